//! Leases that travel along (design §5: traffic carries leases for free where it can). A frame that goes to a ring neighbour
//! anyway asks for its lease, once that is of a certain age, and brings what the neighbour has asked for in the same way. So
//! neighbours that talk renew their leases without a frame of their own; to those that do not, a probe goes in time.
//!
//! No node answers a piggyback with a frame of its own. A delayed grant is only shorter, never unsafe: the holder counts from
//! its request, the issuer from granting. The piggyback stands in the frame, not in a frame around it, so payloads are not
//! copied and keep their class and their order.

use std::time::Duration;

use super::Size;
use crate::id::NodeId;
use crate::memory;
use crate::ring::core::Core;
use crate::sides::Sides;
use crate::time::Instant;
use crate::wire::{Ask, Grant};

/// Most questions kept that may still be answered, and most answers that wait for a frame. Beyond it the oldest is
/// forgotten: that lease is renewed by a later one, or by a probe.
const MAX_PIGGYBACK: usize = 8;

/// Questions that travelled along, and grants that are to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Piggyback {
    /// Oldest first.
    asked: Vec<PiggybackedAsk>,
    /// For which holder, what, and when it was granted; one for each, oldest first.
    owed: Vec<(NodeId, Grant, Instant)>,
}

/// A question that travelled along.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PiggybackedAsk {
    to: NodeId,
    number: u64,
    sent: Instant,
    sides: Sides,
}

impl Piggyback {
    /// A question for these sides, if the last one to this peer was asked long enough ago.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        core: &mut Core,
        to: NodeId,
        sides: Sides,
        after: Duration,
    ) -> Option<Ask> {
        let last = self.asked.iter().rev().find(|asked| asked.to == to);
        if last.is_some_and(|last| last.sent + after / 2 > now) {
            return None;
        }
        if self.asked.len() == MAX_PIGGYBACK {
            self.asked.remove(0);
        }
        let number = core.number();
        self.asked.push(PiggybackedAsk { to, number, sent: now, sides });
        Some(Ask { number, lease: sides })
    }

    /// Takes the question that was answered: when it was asked, and for which sides. Earlier ones mean nothing any more.
    pub(super) fn take_asked(&mut self, from: NodeId, number: u64) -> Option<(Instant, Sides)> {
        let answered = self.asked.iter().find(|asked| asked.to == from && asked.number == number)?;
        let answered = (answered.sent, answered.sides);
        self.asked.retain(|asked| asked.to != from || asked.number > number);
        Some(answered)
    }

    /// Keeps a grant for the next frame to its holder.
    pub(super) fn owe(&mut self, now: Instant, to: NodeId, grant: Grant) {
        self.owed.retain(|&(id, ..)| id != to);
        if self.owed.len() == MAX_PIGGYBACK {
            self.owed.remove(0);
        }
        self.owed.push((to, grant, now));
    }

    /// Takes what this holder is owed, if it was granted no earlier than `since`.
    pub(super) fn take_owed(&mut self, to: NodeId, since: Instant) -> Option<Grant> {
        let at = self.owed.iter().position(|&(id, ..)| id == to)?;
        let (_, grant, granted) = self.owed.remove(at);
        (granted >= since).then_some(grant)
    }

    /// This life of a node is over, or what it granted is void.
    pub(super) fn forget(&mut self, id: NodeId) {
        self.asked.retain(|asked| asked.to != id);
        self.owed.retain(|&(owed, ..)| owed != id);
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::list(&self.asked) + memory::list(&self.owed)
    }

    /// How much is kept (promise O5).
    pub(super) fn sizes(&self) -> [Size; 2] {
        [
            ("lease questions that travel along", self.asked.len(), MAX_PIGGYBACK),
            ("lease grants to travel along", self.owed.len(), MAX_PIGGYBACK),
        ]
    }
}

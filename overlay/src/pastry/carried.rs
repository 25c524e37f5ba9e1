//! Leases that ride along (design §5: traffic carries leases for free where it can). A frame that goes to a ring neighbour
//! anyway asks for its lease, once that is of a certain age, and brings what the neighbour has asked for in the same way. So
//! neighbours that talk renew their leases without a frame of their own; to those that do not, a probe goes in time.
//!
//! Nobody answers words that ride with a frame of its own. A grant that waits for a frame is worth the less the longer it
//! waits, and nothing worse: as always the holder counts from sending, the issuer from granting.

use std::time::Duration;

use super::Node;
use super::invariants::Size;
use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::sides::Sides;
use crate::time::Instant;
use crate::wire::{Ask, Grant, Header, LeaseWords, Standing};

/// Most questions kept that may still be answered, and most answers that wait for a frame. Beyond it the oldest is
/// forgotten: that lease is renewed by a later one, or by a probe.
const MAX_CARRIED: usize = 8;

/// What rides, or is to ride.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Carried {
    /// Oldest first.
    asked: Vec<Asked>,
    /// Whom, what, and when it was granted; one for each, oldest first.
    owed: Vec<(NodeId, Grant, Instant)>,
}

/// A question that rode along.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    to: NodeId,
    number: u64,
    sent: Instant,
    sides: Sides,
}

impl Carried {
    fn note_asked(&mut self, asked: Asked) {
        if self.asked.len() == MAX_CARRIED {
            self.asked.remove(0);
        }
        self.asked.push(asked);
    }

    fn last_asked(&self, to: NodeId) -> Option<Instant> {
        self.asked.iter().rev().find(|asked| asked.to == to).map(|asked| asked.sent)
    }

    /// Takes the question that was answered; those before it tell nothing any more.
    fn take_asked(&mut self, from: NodeId, number: u64) -> Option<Asked> {
        let answered = self.asked.iter().find(|asked| asked.to == from && asked.number == number).cloned()?;
        self.asked.retain(|asked| asked.to != from || asked.number > number);
        Some(answered)
    }

    fn owe(&mut self, now: Instant, to: NodeId, grant: Grant) {
        self.owed.retain(|&(id, ..)| id != to);
        if self.owed.len() == MAX_CARRIED {
            self.owed.remove(0);
        }
        self.owed.push((to, grant, now));
    }

    fn take_owed(&mut self, to: NodeId, since: Instant) -> Option<Grant> {
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
            ("lease questions that ride", self.asked.len(), MAX_CARRIED),
            ("lease grants to ride", self.owed.len(), MAX_CARRIED),
        ]
    }
}

impl Node {
    /// What a frame to this peer says of leases besides. (`now` may be a moment ago, where the layer above sends: then a lease
    /// counts from that moment.)
    pub(super) fn words_for(&mut self, now: Instant, to: NodeId, header: &Header) -> Option<Box<LeaseWords>> {
        let is_next = self.ends().any(|end| end.id == to);
        if !is_next || !may_carry(header) || !self.is_ready() || self.is_edge() {
            return None;
        }
        let after = self.config.ride_after?;
        // A grant that is older is of no use: the holder has asked by a probe meanwhile.
        let grant = self.carried.take_owed(to, now - self.config.heartbeat);
        let ask = self.ask_along(now, to, after);
        (ask.is_some() || grant.is_some()).then(|| Box::new(LeaseWords { ask, grant }))
    }

    /// A question for the renewal of leases that run, if they are old enough and it does not ride, or go, already.
    fn ask_along(&mut self, now: Instant, to: NodeId, after: Duration) -> Option<Ask> {
        let until = self.held_until(to).filter(|&until| until > now)?;
        let is_young = until + after > now + self.config.lease;
        let rides = self.carried.last_asked(to).is_some_and(|sent| sent + after / 2 > now);
        if is_young || rides || self.liveness.asked(to).is_some_and(|asked| asked.question.lease) {
            return None;
        }
        let (number, sides) = (self.number(), self.stands_at(to));
        self.carried.note_asked(Asked { to, number, sent: now, sides });
        Some(Ask { number, lease: sides })
    }

    /// A frame of this peer says something of leases besides.
    pub(super) fn on_words(&mut self, now: Instant, from: Peer, words: LeaseWords) {
        if !self.is_ready() || self.is_edge() {
            return;
        }
        if let Some(Grant { number, lease }) = words.grant
            && let Some(Asked { sent, sides, .. }) = self.carried.take_asked(from.id, number)
        {
            self.take_lease(now, from.id, lease.and(sides), sent);
        }
        if let Some(Ask { number, lease }) = words.ask {
            let lease = self.grant_lease(now, from, Standing::Ready, lease);
            if !lease.is_none() {
                self.carried.owe(now, from.id, Grant { number, lease });
            }
        }
    }
}

/// Traffic carries them. What is itself about leases, joins, leaving, edges or detours speaks for itself.
fn may_carry(header: &Header) -> bool {
    match header {
        Header::Routed(_)
        | Header::HopAck { .. }
        | Header::Letter(_)
        | Header::Relayed { .. }
        | Header::LeafSet { .. }
        | Header::NearerRequest { .. }
        | Header::Near(_)
        | Header::Broadcast { .. }
        | Header::Lost(_) => true,
        Header::Probe(_)
        | Header::ProbeAck(_)
        | Header::Admit
        | Header::Admission(_)
        | Header::Commit { .. }
        | Header::Committed { .. }
        | Header::Withdraw { .. }
        | Header::Leave { .. }
        | Header::Attach
        | Header::Attached { .. }
        | Header::Detach
        | Header::Outdated(_)
        | Header::Via { .. } => false,
    }
}

//! Ways around a broken link: two nodes of a leaf set that cannot reach each other speak through a third.
//!
//! A ring neighbour that does not answer is asked by way of others as well, before it is found dead (SWIM, Das et
//! al. 2002, §3.1): if it answers there, it has refuted the suspicion, and that way is kept while the direct one stays
//! broken. So a pair that is cut apart still renews its leases, and messages to a live root arrive (non-transitive
//! connectivity: Freedman et al. 2005, "Non-Transitive Connectivity and DHTs").
//!
//! A frame that another node passes on is taken on trust, from members of the leaf set only.

use std::time::Duration;

use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::ring::invariants::Size;
use crate::sides::Sides;
use crate::time::Instant;
use crate::wire::Probe;

/// How soon the direct way is tried again at first; each time in vain doubles it.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How seldom it is tried at last.
const TRY_AGAIN_MAX: Duration = Duration::from_secs(60);
/// How long the answer to an indirect probe is waited for: a lease of the default profile that comes later has ended.
const LATE: Duration = Duration::from_secs(4);
/// Most indirect probes kept that may still be answered: as many as two neighbours get in that time, and some more.
/// Beyond it the oldest are forgotten, and their answers count for nothing.
const MAX_INDIRECT: usize = 64;
/// Most detours kept; beyond it the oldest is forgotten, and found again when it is needed.
const MAX_DETOURS: usize = 64;

/// Peers that are reached through others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Detours {
    /// Oldest first.
    ways: Vec<Detour>,
    /// Oldest first. An answer by way of others takes longer than a direct one, for which the next probe waits.
    indirect: Vec<Indirect>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Detour {
    to: NodeId,
    relay: Peer,
    /// The probe that was answered this way.
    number: u64,
    /// When that was: a node that is no ring neighbour any more is probed no more, and the relay may have lost it.
    answered: Instant,
    /// When the direct way is tried again.
    again: Instant,
    wait: Duration,
}

/// A probe that others passed on, or were to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Indirect {
    to: NodeId,
    number: u64,
    sent: Instant,
    /// The leases that it asked for.
    sides: Sides,
}

impl Detours {
    /// The node that passes on what goes to this peer; `since`: by an answer that is no older.
    pub(super) fn relay(&self, to: NodeId, since: Instant) -> Option<Peer> {
        self.ways.iter().find(|way| way.to == to && way.answered >= since).map(|way| way.relay)
    }

    /// A probe was answered by way of `relay`.
    pub(super) fn note(&mut self, now: Instant, to: NodeId, relay: Peer, number: u64) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.to == to) {
            (way.relay, way.number, way.answered) = (relay, number, now);
            return;
        }
        if self.ways.len() == MAX_DETOURS {
            self.ways.remove(0);
        }
        self.ways.push(Detour { to, relay, number, answered: now, again: now + TRY_AGAIN, wait: TRY_AGAIN });
    }

    /// A probe was answered directly: perhaps later than by way of another.
    pub(super) fn note_direct(&mut self, to: NodeId, number: u64, is_outstanding: bool) {
        self.ways.retain(|way| way.to != to || !is_outstanding && way.number != number);
    }

    /// Whether the direct way is to be tried, besides the detour.
    pub(super) fn is_to_be_tried(&mut self, now: Instant, to: NodeId) -> bool {
        let Some(way) = self.ways.iter_mut().find(|way| way.to == to) else { return true };
        let is_due = way.again <= now;
        if is_due {
            way.wait = (way.wait * 2).min(TRY_AGAIN_MAX);
            way.again = now + way.wait;
        }
        is_due
    }

    pub(super) fn note_indirect(&mut self, now: Instant, to: NodeId, probe: Probe) {
        self.indirect.retain(|indirect| now - indirect.sent < LATE);
        if self.indirect.len() == MAX_INDIRECT {
            self.indirect.remove(0);
        }
        self.indirect.push(Indirect { to, number: probe.number, sent: now, sides: probe.lease });
    }

    /// When an indirect probe was sent, and for which leases it asked.
    pub(super) fn indirect(&self, now: Instant, to: NodeId, number: u64) -> Option<(Instant, Sides)> {
        let sent = self.indirect.iter().find(|probe| (probe.to, probe.number) == (to, number))?;
        (now - sent.sent < LATE).then_some((sent.sent, sent.sides))
    }

    /// A probe was answered: a second answer to it, or one to an earlier probe, tells nothing.
    pub(super) fn end_indirect(&mut self, to: NodeId, number: u64) {
        self.indirect.retain(|probe| probe.to != to || probe.number > number);
    }

    /// Questions from before a sleep count for nothing.
    pub(super) fn forget_asked(&mut self) {
        self.indirect.clear();
    }

    /// The peer is gone, as a target or as a relay.
    pub(super) fn forget(&mut self, id: NodeId) {
        self.ways.retain(|way| way.to != id && way.relay.id != id);
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::list(&self.ways) + memory::list(&self.indirect)
    }

    /// How many are kept (promise O5).
    pub(super) fn sizes(&self) -> [Size; 2] {
        [("detours", self.ways.len(), MAX_DETOURS), ("indirect probes", self.indirect.len(), MAX_INDIRECT)]
    }
}

//! Broadcast to every node of the ring without duplicates: each receiver is given an arc of the ring, gives it on in
//! pieces that begin with the nodes it knows there, and never twice (design §5; the arcs are those of El-Ansary et
//! al. 2003, "Efficient Broadcast in Structured P2P Networks", with Pastry's tables as the fingers).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::invariants::Size;
use super::seen::Seen;
use super::{Node, Timer};
use crate::id::{BASE, Key, NodeId};
use crate::kbr::{Event, KeyBasedRouting};
use crate::memory;
use crate::peer::{Contact, Peer};
use crate::time::Instant;
use crate::wire::Header;

/// Pieces that a node cuts its arc into: as many as a routing table has columns.
const FAN_OUT: usize = BASE;
/// Pieces that wait for an acknowledgement; beyond it, further pieces are sent without being repeated.
const MAX_DELEGATIONS: usize = 4096;
/// Bytes of payloads in them, each piece counted; beyond it, as above.
const MAX_DELEGATED_BYTES: usize = 64 * 1024 * 1024;
/// Attempts with one node before its arc is given to the next.
const ATTEMPTS: u8 = 2;

/// Identity of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    /// Who broadcasts.
    pub(super) origin: Contact,
    /// The origin's number for it.
    pub(super) id: u64,
}

/// Broadcasts on their way through this node.
#[derive(Clone, Debug, Default)]
pub(super) struct Broadcasts {
    seen: Seen<Id>,
    pending: BTreeMap<u64, Delegation>,
    /// Bytes of the payloads in `pending`.
    held: usize,
}

/// An arc given to a node that has not acknowledged it yet.
#[derive(Clone, Debug)]
struct Delegation {
    to: Peer,
    broadcast: Id,
    until: Key,
    payload: Bytes,
    attempts: u8,
}

impl Broadcasts {
    /// Forgets what was seen before the last time.
    pub(super) fn tidy(&mut self) {
        if self.pending.is_empty() {
            self.pending = BTreeMap::new();
        }
        self.seen.age();
    }

    /// Bytes on the heap, payloads included.
    pub(super) fn bytes(&self) -> usize {
        memory::tree(self.pending.len(), size_of::<(u64, Delegation)>()) + self.held + self.seen.bytes()
    }

    /// Pieces that wait for their acknowledgement (promise O5).
    pub(super) fn size(&self) -> Size {
        ("broadcasts' pieces", self.pending.len(), MAX_DELEGATIONS)
    }

    fn keep(&mut self, hop: u64, delegation: Delegation) {
        self.held += delegation.payload.len();
        self.pending.insert(hop, delegation);
    }

    fn take(&mut self, hop: u64) -> Option<Delegation> {
        let delegation = self.pending.remove(&hop)?;
        self.held -= delegation.payload.len();
        Some(delegation)
    }
}

impl Node {
    pub(super) fn broadcast(&mut self, now: Instant, payload: Bytes) {
        let broadcast = Id { origin: self.contact(), id: self.number() };
        self.broadcasts.seen.is_new(broadcast);
        match self.access.primary().filter(|_| self.is_edge()) {
            // The access node is part of the ring, too: its arc begins with itself.
            Some(access) => self.delegate(now, access, broadcast, access.id.key(), payload, 1),
            None => self.spread(now, self.me.id.key(), self.me.id.key(), broadcast, payload, None),
        }
    }

    pub(super) fn on_broadcast(
        &mut self,
        now: Instant,
        from: Peer,
        hop: u64,
        broadcast: Id,
        until: Key,
        payload: Bytes,
    ) {
        if !self.takes_messages() {
            return;
        }
        self.transmit(from, Header::HopAck { hop });
        if !self.hops.is_new(&from, hop) {
            return;
        }
        if self.broadcasts.seen.is_new(broadcast) && broadcast.origin.id() != self.me.id {
            let origin = broadcast.origin;
            self.events.push_back(Event::Broadcast { origin, payload: payload.clone() });
        }
        self.spread(now, self.me.id.key(), until, broadcast, payload, None);
    }

    /// Gives the nodes after `after` and before `until`, clockwise, to some of them. The first known one is always
    /// chosen, so no piece of the arc is left out.
    fn spread(
        &mut self,
        now: Instant,
        after: Key,
        until: Key,
        broadcast: Id,
        payload: Bytes,
        without: Option<NodeId>,
    ) {
        // The whole ring, if both ends are one.
        let length = after.clockwise_to(until).wrapping_sub(1);
        let inside = |peer: &&Peer| {
            let way = after.clockwise_to(peer.id);
            way != 0 && way.wrapping_sub(1) < length && Some(peer.id) != without && peer.id != self.me.id
        };
        let mut known: Vec<Peer> =
            self.leaf_set.iter().chain(self.table.iter()).filter(inside).copied().collect();
        known.sort_by_key(|peer| after.clockwise_to(peer.id));
        known.dedup_by_key(|peer| peer.id);
        let pieces = known.len().min(FAN_OUT);
        let first = |piece: usize| known[piece * known.len() / pieces];
        for piece in 0..pieces {
            let end = if piece + 1 < pieces { first(piece + 1).id.key() } else { until };
            self.delegate(now, first(piece), broadcast, end, payload.clone(), 1);
        }
    }

    fn delegate(&mut self, now: Instant, to: Peer, broadcast: Id, until: Key, payload: Bytes, attempts: u8) {
        let hop = self.number();
        let Id { origin, id } = broadcast;
        self.transmit_frame(to, Header::Broadcast { hop, origin, id, until }, payload.clone());
        let pending = &self.broadcasts;
        if pending.pending.len() < MAX_DELEGATIONS && pending.held + payload.len() <= MAX_DELEGATED_BYTES {
            self.broadcasts.keep(hop, Delegation { to, broadcast, until, payload, attempts });
            let rto = self.rto(to.id);
            self.deadlines.set(Timer::Hop(hop), now + rto);
        }
    }

    pub(super) fn on_delegation_ack(&mut self, from: Peer, hop: u64) {
        if self.broadcasts.pending.get(&hop).is_some_and(|delegation| delegation.to.id == from.id) {
            self.broadcasts.take(hop);
            self.deadlines.cancel(Timer::Hop(hop));
        }
    }

    /// Not acknowledged: once more, then the arc goes to the next node in it.
    pub(super) fn on_delegation_timeout(&mut self, now: Instant, hop: u64) {
        let Some(Delegation { to, broadcast, until, payload, attempts }) = self.broadcasts.take(hop) else {
            return;
        };
        if attempts < ATTEMPTS || self.is_edge() && self.access.contains(to.id) && attempts < ATTEMPTS * 3 {
            self.delegate(now, to, broadcast, until, payload, attempts + 1);
        } else if !self.is_edge() {
            self.probe(now, to, false);
            self.spread(now, to.id.key(), until, broadcast, payload, Some(to.id));
        }
    }
}

//! Broadcast to every node of the ring without duplicates: each receiver is given an arc of the ring, gives it on in
//! pieces that begin with the nodes it knows there, and never twice (design §5; the arcs are those of El-Ansary et
//! al. 2003, "Efficient Broadcast in Structured P2P Networks", with the node's tables as the fingers).
//!
//! Arcs are cut with leaf set and routing table together: cutting by the rows of the routing table alone misses nodes whose
//! slot is empty, and the first piece always begins with the next node of the ring, so no node is left out.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::seen::Seen;
use crate::id::{BASE, Key, NodeId};
use crate::kbr::Event;
use crate::memory;
use crate::peer::{Contact, Peer};
use crate::ring::core::{Core, Timer};
use crate::ring::invariants::Size;
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
/// Attempts of an edge with its access node: it has no other.
const ACCESS_ATTEMPTS: u8 = 6;

/// Identity of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BroadcastId {
    /// The node that broadcasts.
    pub(crate) origin: Contact,
    /// The origin's number for it.
    pub(crate) id: u64,
}

/// Broadcasts on their way through this node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Broadcasts {
    seen: Seen<BroadcastId>,
    pending: BTreeMap<u64, Delegation>,
    /// Bytes of the payloads in `pending`.
    held: usize,
}

/// An arc given to a node that has not acknowledged it yet.
#[derive(Clone, Debug)]
struct Delegation {
    to: Peer,
    piece: Piece,
    attempts: u8,
}

/// A broadcast for an arc of the ring.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) broadcast: BroadcastId,
    /// The end of the arc, clockwise.
    pub(crate) until: Key,
    pub(crate) payload: Bytes,
}

/// The nodes and waits by which arcs are cut.
pub(crate) struct Arcs<'a> {
    /// All nodes that this one knows.
    pub(crate) known: &'a mut dyn Iterator<Item = Peer>,
    /// How long an acknowledgement is waited for.
    pub(crate) rto: &'a dyn Fn(NodeId) -> Duration,
}

impl Broadcasts {
    /// A broadcast of this node's own; notes that it was seen.
    pub(crate) fn originate(&mut self, origin: Contact, id: u64) -> BroadcastId {
        let broadcast = BroadcastId { origin, id };
        self.seen.is_new(broadcast);
        broadcast
    }

    /// A broadcast came, if it is another's, for the first time: tells the layer above.
    pub(crate) fn receive(&mut self, core: &mut Core, broadcast: BroadcastId, payload: &Bytes) {
        if self.seen.is_new(broadcast) && broadcast.origin.id() != core.me.id {
            core.emit(Event::Broadcast { origin: broadcast.origin, payload: payload.clone() });
        }
    }

    /// Gives the nodes after `after` and before the piece's end, clockwise, to some of them. The first known one is always
    /// chosen, so no part of the arc is left out.
    pub(crate) fn spread(
        &mut self,
        now: Instant,
        core: &mut Core,
        arcs: Arcs<'_>,
        after: Key,
        piece: Piece,
        without: Option<NodeId>,
    ) {
        // The whole ring, if both ends are one.
        let length = after.clockwise_to(piece.until).wrapping_sub(1);
        let me = core.me.id;
        let inside = |peer: &Peer| {
            let way = after.clockwise_to(peer.id);
            way != 0 && way.wrapping_sub(1) < length && Some(peer.id) != without && peer.id != me
        };
        let mut known: Vec<Peer> = arcs.known.filter(inside).collect();
        known.sort_by_key(|peer| after.clockwise_to(peer.id));
        known.dedup_by_key(|peer| peer.id);
        let pieces = known.len().min(FAN_OUT);
        let first = |nth: usize| known[nth * known.len() / pieces];
        for nth in 0..pieces {
            let until = if nth + 1 < pieces { first(nth + 1).id.key() } else { piece.until };
            let to = first(nth);
            self.delegate(now, core, (arcs.rto)(to.id), to, Piece { until, ..piece.clone() }, 1);
        }
    }

    /// Gives an arc to a node that stands at its beginning.
    pub(crate) fn delegate(
        &mut self,
        now: Instant,
        core: &mut Core,
        rto: Duration,
        to: Peer,
        piece: Piece,
        attempts: u8,
    ) {
        let hop = core.number();
        let Piece { broadcast: BroadcastId { origin, id }, until, ref payload } = piece;
        core.send_payload(to, Header::Broadcast { hop, origin, id, until }, payload.clone());
        if self.pending.len() < MAX_DELEGATIONS && self.held + payload.len() <= MAX_DELEGATED_BYTES {
            self.held += payload.len();
            self.pending.insert(hop, Delegation { to, piece, attempts });
            core.timers.set(Timer::Hop(hop), now + rto);
        }
    }

    pub(crate) fn on_ack(&mut self, core: &mut Core, from: Peer, hop: u64) {
        if self.pending.get(&hop).is_some_and(|delegation| delegation.to.id == from.id) {
            self.take(hop);
            core.timers.cancel(Timer::Hop(hop));
        }
    }

    /// A piece was not acknowledged: it is sent once more. Returns it if it was sent often enough: it is to be given to the
    /// next node of its arc.
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        core: &mut Core,
        hop: u64,
        rto: impl Fn(NodeId) -> Duration,
        is_access: impl Fn(NodeId) -> bool,
    ) -> Option<(Peer, Piece)> {
        let Delegation { to, piece, attempts } = self.take(hop)?;
        let most = if is_access(to.id) { ACCESS_ATTEMPTS } else { ATTEMPTS };
        if attempts < most {
            self.delegate(now, core, rto(to.id), to, piece, attempts + 1);
            return None;
        }
        Some((to, piece))
    }

    /// Forgets what was seen before the last time.
    pub(crate) fn tidy(&mut self) {
        if self.pending.is_empty() {
            self.pending = BTreeMap::new();
        }
        self.seen.age();
    }

    /// Bytes on the heap, payloads included.
    pub(crate) fn bytes(&self) -> usize {
        memory::tree(self.pending.len(), size_of::<(u64, Delegation)>()) + self.held + self.seen.bytes()
    }

    /// Pieces that wait for their acknowledgement (promise O5).
    pub(crate) fn size(&self) -> Size {
        ("broadcasts' pieces", self.pending.len(), MAX_DELEGATIONS)
    }

    fn take(&mut self, hop: u64) -> Option<Delegation> {
        let delegation = self.pending.remove(&hop)?;
        self.held -= delegation.piece.payload.len();
        Some(delegation)
    }
}

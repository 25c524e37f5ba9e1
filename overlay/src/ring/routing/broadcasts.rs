//! Broadcast to every node of the ring without duplicates: each receiver is given an arc of the ring, gives it on in
//! pieces that begin with the nodes it knows there, and never twice (design §5; the arcs are those of El-Ansary et
//! al. 2003, "Efficient Broadcast in Structured P2P Networks", with the node's tables as the fingers).
//!
//! Arcs are cut with leaf set and routing table together: cutting by the rows of the routing table alone misses nodes whose
//! slot is empty, and the first piece always begins with the next node of the ring, so no node is left out.
//!
//! Edges are on no arc: each access node gives its edges a piece whose arc is empty.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::seen::Seen;
use crate::id::{BASE, Key, NodeId};
use crate::kbr::{BroadcastFailure, Event};
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
    /// This node's own that have pieces in `pending`.
    own: BTreeMap<BroadcastId, OwnBroadcast>,
}

/// A broadcast of this node's own that has not left it altogether.
#[derive(Clone, Debug)]
struct OwnBroadcast {
    /// The caller's name for it.
    token: u64,
    /// Its pieces in `pending`.
    pieces: usize,
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

impl Piece {
    /// A piece for one node only, which gives it to nobody: its arc is empty.
    pub(crate) fn for_edge(broadcast: BroadcastId, edge: NodeId, payload: Bytes) -> Piece {
        Piece { broadcast, until: Key(edge.0.wrapping_add(1)), payload }
    }
}

/// The nodes and waits by which arcs are cut.
pub(crate) struct Arcs<'a> {
    /// All nodes that this one knows.
    pub(crate) known: &'a mut dyn Iterator<Item = Peer>,
    /// How long an acknowledgement is waited for.
    pub(crate) rto: &'a dyn Fn(NodeId) -> Duration,
}

impl Broadcasts {
    /// Begins a broadcast of this node's own; notes that it was seen.
    pub(crate) fn originate(&mut self, broadcast: BroadcastId, token: u64) {
        self.seen.is_new(broadcast);
        self.own.insert(broadcast, OwnBroadcast { token, pieces: 0 });
    }

    /// Whether another broadcast of so many bytes would be sent without being repeated.
    pub(crate) fn is_full(&self, len: usize) -> bool {
        self.pending.len() >= MAX_DELEGATIONS || self.held + len > MAX_DELEGATED_BYTES
    }

    /// A broadcast came: if it is another's, and for the first time, tells the layer above. Returns whether it did.
    pub(crate) fn receive(&mut self, core: &mut Core, broadcast: BroadcastId, payload: &Bytes) -> bool {
        let is_news = self.seen.is_new(broadcast) && broadcast.origin.id() != core.me.id;
        if is_news {
            core.emit(Event::Broadcast { origin: broadcast.origin, payload: payload.clone() });
        }
        is_news
    }

    /// Whether no piece of a broadcast of this node's own waits for its acknowledgement.
    pub(crate) fn is_taken(&self, broadcast: BroadcastId) -> bool {
        self.own.get(&broadcast).is_some_and(|own| own.pieces == 0)
    }

    /// Tells the layer above that a broadcast of this node's own has left it, if that is so now.
    pub(crate) fn end_if_taken(&mut self, core: &mut Core, broadcast: BroadcastId) {
        if self.is_taken(broadcast) {
            self.end(core, broadcast, Ok(()));
        }
    }

    /// Ends a broadcast of this node's own.
    pub(crate) fn end(
        &mut self,
        core: &mut Core,
        broadcast: BroadcastId,
        outcome: Result<(), BroadcastFailure>,
    ) {
        if let Some(OwnBroadcast { token, .. }) = self.own.remove(&broadcast) {
            core.emit(Event::BroadcastEnded { token, outcome });
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
        if !self.is_full(payload.len()) {
            self.held += payload.len();
            if let Some(own) = self.own.get_mut(&piece.broadcast) {
                own.pieces += 1;
            }
            self.pending.insert(hop, Delegation { to, piece, attempts });
            core.timers.set(Timer::Hop(hop), now + rto);
        }
    }

    pub(crate) fn on_ack(&mut self, core: &mut Core, from: Peer, hop: u64) {
        if self.pending.get(&hop).is_some_and(|delegation| delegation.to.id == from.id) {
            core.timers.cancel(Timer::Hop(hop));
            if let Some(delegation) = self.take(hop) {
                self.end_if_taken(core, delegation.piece.broadcast);
            }
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
            self.own = BTreeMap::new();
        }
        self.seen.age();
    }

    /// Bytes on the heap, payloads included.
    pub(crate) fn bytes(&self) -> usize {
        let pending = memory::tree(self.pending.len(), size_of::<(u64, Delegation)>());
        let own = memory::tree(self.own.len(), size_of::<(BroadcastId, OwnBroadcast)>());
        pending + own + self.held + self.seen.bytes()
    }

    /// Pieces that wait for their acknowledgement (promise O5).
    pub(crate) fn size(&self) -> Size {
        ("broadcasts' pieces", self.pending.len(), MAX_DELEGATIONS)
    }

    fn take(&mut self, hop: u64) -> Option<Delegation> {
        let delegation = self.pending.remove(&hop)?;
        self.held -= delegation.piece.payload.len();
        if let Some(own) = self.own.get_mut(&delegation.piece.broadcast) {
            own.pieces -= 1;
        }
        Some(delegation)
    }
}

//! The routing table: for each digit that could follow a prefix of this node's id, a few nodes that have it
//! (Pastry §2.1, Figure 2).

use std::time::Duration;

use super::Entry;
use crate::id::{DIGITS, Key, NodeId};
use crate::peer::Peer;

/// Rows by the length of the prefix shared with this node, columns by the digit that follows it. Pastry keeps one node
/// per slot, this table a few (design §5), the nearest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoutingTable {
    me: NodeId,
    /// Most entries of one slot.
    candidates: usize,
    /// By row, column, nearness. Only slots that are not empty take room.
    entries: Vec<Entry>,
}

impl RoutingTable {
    /// An empty table of the node `me` with up to `candidates` entries per slot; at least 1.
    pub fn new(me: NodeId, candidates: usize) -> RoutingTable {
        RoutingTable { me, candidates: candidates.max(1), entries: Vec::new() }
    }

    /// Takes a peer in, or what is newly known of it. In a full slot a measured peer displaces the last one, if that
    /// was not measured or is farther. Returns whether anything changed; words about this node itself or an older
    /// incarnation change nothing, and neither does a known incarnation's missing measurement.
    pub fn insert(&mut self, peer: Peer, rtt: Option<Duration>) -> bool {
        if peer.id == self.me {
            return false;
        }
        let new = Entry::new(peer, rtt);
        match self.find(peer.id) {
            Some(at) => {
                let changed = self.entries[at].refresh(new);
                self.settle(peer.id);
                changed
            }
            None => self.insert_new(new),
        }
    }

    fn insert_new(&mut self, new: Entry) -> bool {
        let (start, end) = self.bounds(self.place(new.peer.id));
        if end - start == self.candidates {
            if new.nearer(&self.entries[end - 1]).is_ge() {
                return false;
            }
            self.entries[end - 1] = new;
        } else {
            super::reserve_one(&mut self.entries);
            self.entries.insert(end, new);
        }
        self.settle(new.peer.id);
        true
    }

    /// Takes a peer out.
    pub fn remove(&mut self, id: NodeId) -> Option<Peer> {
        self.find(id).map(|at| self.entries.remove(at).peer)
    }

    /// The peer of this id.
    pub fn get(&self, id: NodeId) -> Option<&Peer> {
        self.find(id).map(|at| &self.entries[at].peer)
    }

    /// The round-trip time to the peer of this id, if it is in the table and was measured.
    pub fn rtt(&self, id: NodeId) -> Option<Duration> {
        self.find(id).and_then(|at| self.entries[at].rtt())
    }

    /// Notes a measured round-trip time; returns whether the peer is in the table.
    pub fn set_rtt(&mut self, id: NodeId, rtt: Duration) -> bool {
        let Some(at) = self.find(id) else { return false };
        self.entries[at].rtt_micros = Some(super::micros(rtt));
        self.settle(id);
        true
    }

    /// The entries at a row and column, nearest first; none outside the table.
    pub fn slot(&self, row: usize, col: usize) -> &[Entry] {
        let (start, end) = self.bounds((row, col));
        &self.entries[start..end]
    }

    /// The nodes that share one more digit with the key than this node does, nearest first (Pastry §2.3, the second
    /// case of routing).
    pub fn next_hops(&self, key: Key) -> &[Entry] {
        match self.me.key().shared_prefix(key) {
            DIGITS => &[],
            row => self.slot(row, key.digit(row)),
        }
    }

    /// The nearest node of each slot of a row, by column: what a node tells another that asks for the row.
    pub fn row(&self, row: usize) -> impl Iterator<Item = &Peer> {
        let same_slot = |a: &Entry, b: &Entry| self.place(a.peer.id) == self.place(b.peer.id);
        self.row_entries(row).chunk_by(same_slot).map(|slot| &slot[0].peer)
    }

    /// The entries of a row, by column and nearness.
    pub fn row_entries(&self, row: usize) -> &[Entry] {
        let start = self.entries.partition_point(|entry| self.place(entry.peer.id).0 < row);
        let end = self.entries.partition_point(|entry| self.place(entry.peer.id).0 <= row);
        &self.entries[start..end]
    }

    /// The entries of a row and all that follow it: nodes that share at least so many digits with this one.
    pub fn entries_from(&self, row: usize) -> &[Entry] {
        let start = self.entries.partition_point(|entry| self.place(entry.peer.id).0 < row);
        &self.entries[start..]
    }

    /// How many rows there are, down to the last that is not empty.
    pub fn rows(&self) -> usize {
        self.entries.last().map_or(0, |entry| self.place(entry.peer.id).0 + 1)
    }

    /// All peers by row, column and nearness.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Peer> + ExactSizeIterator + Clone {
        self.entries.iter().map(|entry| &entry.peer)
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        crate::memory::list(&self.entries)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Row and column of another node's id.
    fn place(&self, id: NodeId) -> (usize, usize) {
        let row = self.me.key().shared_prefix(id);
        (row, id.key().digit(row))
    }

    /// Where the entries of a slot begin and end.
    fn bounds(&self, place: (usize, usize)) -> (usize, usize) {
        let start = self.entries.partition_point(|entry| self.place(entry.peer.id) < place);
        let in_slot = self.entries[start..].iter().take_while(|entry| self.place(entry.peer.id) == place);
        (start, start + in_slot.count())
    }

    fn find(&self, id: NodeId) -> Option<usize> {
        if id == self.me {
            return None;
        }
        let (start, end) = self.bounds(self.place(id));
        self.entries[start..end].iter().position(|entry| entry.peer.id == id).map(|at| start + at)
    }

    /// Puts the slot that holds this id in order.
    fn settle(&mut self, id: NodeId) {
        let (start, end) = self.bounds(self.place(id));
        let me = self.me;
        self.entries[start..end].sort_unstable_by(|a, b| a.rank(b, me));
    }
}

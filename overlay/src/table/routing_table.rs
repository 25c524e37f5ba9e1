//! The routing table: for each digit that could follow a prefix of this node's id, a few nodes that have it
//! (Pastry §2.1, Figure 2).

use std::time::Duration;

use super::Entry;
use crate::id::{BASE, DIGITS, Key, NodeId};
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
    /// Where each slot begins in `entries`, by row and column down to the last row that is not empty, and the end of
    /// the last: a table is asked several times for each frame, and searching it would touch half of it.
    starts: Vec<u16>,
}

/// Most candidates of one slot: so many that all slots together can be counted in 16 bits.
const MAX_CANDIDATES: usize = 128;
const _: () = assert!(MAX_CANDIDATES * DIGITS * (BASE - 1) <= u16::MAX as usize, "starts count entries");

impl RoutingTable {
    /// An empty table of the node `me` with up to `candidates` entries per slot, 1 to 128.
    pub fn new(me: NodeId, candidates: usize) -> RoutingTable {
        RoutingTable {
            me,
            candidates: candidates.clamp(1, MAX_CANDIDATES),
            entries: Vec::new(),
            starts: Vec::new(),
        }
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
            self.note_inserted(self.place(new.peer.id));
        }
        self.settle(new.peer.id);
        true
    }

    /// Takes a peer out.
    pub fn remove(&mut self, id: NodeId) -> Option<Peer> {
        let at = self.find(id)?;
        self.note_removed(self.place(id));
        Some(self.entries.remove(at).peer)
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

    /// Notes whether a node says that it stands in too many tables.
    pub fn set_crowded(&mut self, id: NodeId, crowded: bool) {
        if let Some(at) = self.find(id).filter(|&at| self.entries[at].crowded != crowded) {
            self.entries[at].crowded = crowded;
            self.settle(id);
        }
    }

    /// The entries at a row and column, nearest first; none outside the table.
    pub fn slot(&self, row: usize, col: usize) -> &[Entry] {
        if col >= BASE {
            return &[];
        }
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
        &self.entries[self.start((row, 0))..self.start((row + 1, 0))]
    }

    /// The entries of a row and all that follow it: nodes that share at least so many digits with this one.
    pub fn entries_from(&self, row: usize) -> &[Entry] {
        &self.entries[self.start((row, 0))..]
    }

    /// How many rows there are, down to the last that is not empty.
    pub fn rows(&self) -> usize {
        self.starts.len() / BASE
    }

    /// All peers by row, column and nearness.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Peer> + ExactSizeIterator + Clone {
        self.entries.iter().map(|entry| &entry.peer)
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        crate::memory::list(&self.entries) + crate::memory::list(&self.starts)
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
    fn bounds(&self, (row, col): (usize, usize)) -> (usize, usize) {
        (self.start((row, col)), self.start((row, col + 1)))
    }

    /// Where the entries of a slot begin, or would.
    fn start(&self, (row, col): (usize, usize)) -> usize {
        self.starts.get(row * BASE + col).map_or(self.entries.len(), |&start| usize::from(start))
    }

    /// An entry has been put into a slot.
    fn note_inserted(&mut self, (row, col): (usize, usize)) {
        if row >= self.rows() {
            // Rows without entries begin where they end.
            let rows = (row + 1) * BASE;
            self.starts.reserve_exact(rows - self.starts.len());
            self.starts.resize(rows, (self.entries.len() - 1) as u16);
        }
        for start in &mut self.starts[row * BASE + col + 1..] {
            *start += 1;
        }
    }

    /// An entry is about to be taken out of a slot.
    fn note_removed(&mut self, (row, col): (usize, usize)) {
        for start in &mut self.starts[row * BASE + col + 1..] {
            *start -= 1;
        }
        let left = self.entries.len() - 1;
        while self.starts.len() >= BASE && usize::from(self.starts[self.starts.len() - BASE]) == left {
            self.starts.truncate(self.starts.len() - BASE);
        }
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

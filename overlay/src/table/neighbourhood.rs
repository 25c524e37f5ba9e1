//! The neighbourhood set: the nodes nearest by round-trip time, wherever on the ring they are (Pastry §2.1).

use std::time::Duration;

use super::Entry;
use crate::id::NodeId;
use crate::peer::Peer;

/// The nearest of the nodes that were measured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NeighbourhoodSet {
    me: NodeId,
    /// Most members.
    size: usize,
    /// Nearest first.
    entries: Vec<Entry>,
}

impl NeighbourhoodSet {
    /// An empty set of the node `me` with room for `size` members.
    pub fn new(me: NodeId, size: usize) -> NeighbourhoodSet {
        NeighbourhoodSet { me, size, entries: Vec::new() }
    }

    /// Takes in a peer with its round-trip time, or what is newly known of it; the farthest of too many goes. Returns
    /// whether anything changed: not if it is this node itself, no nearer than a full set, or older than what is known.
    pub fn insert(&mut self, peer: Peer, rtt: Duration) -> bool {
        if peer.id == self.me {
            return false;
        }
        let new = Entry::new(peer, Some(rtt));
        let changed = match self.find(peer.id) {
            Some(at) => self.entries[at].refresh(new),
            None => self.insert_new(new),
        };
        let me = self.me;
        self.entries.sort_unstable_by(|a, b| a.rank(b, me));
        changed
    }

    fn insert_new(&mut self, new: Entry) -> bool {
        if self.entries.len() == self.size {
            match self.entries.last_mut() {
                Some(farthest) if new.nearer(farthest).is_lt() => *farthest = new,
                Some(_) | None => return false,
            }
        } else {
            super::reserve_one(&mut self.entries);
            self.entries.push(new);
        }
        true
    }

    /// Takes a peer out.
    pub fn remove(&mut self, id: NodeId) -> Option<Peer> {
        self.find(id).map(|at| self.entries.remove(at).peer)
    }

    /// The members, nearest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator + Clone {
        self.entries.iter()
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        crate::memory::list(&self.entries)
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn find(&self, id: NodeId) -> Option<usize> {
        self.entries.iter().position(|entry| entry.peer.id == id)
    }
}

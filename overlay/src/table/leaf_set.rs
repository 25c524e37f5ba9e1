//! The leaf set: the nodes nearest on the ring, half of them on each side (Pastry §2.1).

use crate::id::{Key, NodeId};
use crate::peer::Peer;
use crate::sides::{Side, Sides};

/// The nearest nodes on each side of this one.
///
/// The sides are what one gets by sorting all members clockwise and taking half of the set's size from each end. In a
/// ring smaller than the leaf set they overlap: a member is then on both sides, and still counts once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeafSet {
    me: NodeId,
    /// Members of a full side.
    half: usize,
    /// Clockwise from `me`, at most two halves. The right side is its head, the left side its tail.
    members: Vec<Peer>,
}

impl LeafSet {
    /// An empty leaf set of the node `me` with room for `size` members, half of them on each side; at least 2.
    pub fn new(me: NodeId, size: usize) -> LeafSet {
        LeafSet { me, half: (size / 2).max(1), members: Vec::new() }
    }

    /// Takes a peer in, and lets the farthest go if that makes one too many. Returns whether anything changed: not if
    /// it is this node itself, not near enough, or known in this or a newer incarnation.
    pub fn insert(&mut self, peer: Peer) -> bool {
        if peer.id == self.me {
            return false;
        }
        match self.find(peer.id) {
            Ok(at) => {
                let newer = peer.incarnation > self.members[at].incarnation;
                if newer {
                    self.members[at] = peer;
                }
                newer
            }
            Err(at) => self.insert_at(at, peer),
        }
    }

    fn insert_at(&mut self, mut at: usize, peer: Peer) -> bool {
        if self.members.len() == 2 * self.half {
            if at == self.half {
                return false;
            }
            // The newcomer pushes the farthest of its side out: the one that would stand in the middle.
            let farthest = if at < self.half { self.half - 1 } else { self.half };
            self.members.remove(farthest);
            at -= usize::from(at > farthest);
        }
        super::reserve_one(&mut self.members);
        self.members.insert(at, peer);
        true
    }

    /// Takes a member out. The sides close up over what is left.
    pub fn remove(&mut self, id: NodeId) -> Option<Peer> {
        self.find(id).ok().map(|at| self.members.remove(at))
    }

    /// The member of this id.
    pub fn get(&self, id: NodeId) -> Option<&Peer> {
        self.find(id).ok().map(|at| &self.members[at])
    }

    /// Whether there is a member of this id.
    pub fn contains(&self, id: NodeId) -> bool {
        self.find(id).is_ok()
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        crate::memory::list(&self.members)
    }

    /// How many members there are, each counted once.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether this node knows no other on its ring.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether both sides are full; they may overlap.
    pub fn is_full(&self) -> bool {
        self.members.len() >= self.half
    }

    /// Each member once, clockwise.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Peer> + ExactSizeIterator + Clone {
        self.members.iter()
    }

    /// The counterclockwise side, nearest first.
    pub fn lefts(&self) -> impl ExactSizeIterator<Item = &Peer> + Clone {
        self.side(Side::Left)
    }

    /// The clockwise side, nearest first.
    pub fn rights(&self) -> impl ExactSizeIterator<Item = &Peer> + Clone {
        self.side(Side::Right)
    }

    /// The members of one side, nearest first.
    pub fn side(&self, side: Side) -> impl ExactSizeIterator<Item = &Peer> + Clone {
        let members = self.members.len();
        let at = move |n| if side == Side::Left { members - 1 - n } else { n };
        (0..members.min(self.half)).map(move |n| &self.members[at(n)])
    }

    /// The next node counterclockwise. In a ring of two the same as [`right`](LeafSet::right).
    pub fn left(&self) -> Option<&Peer> {
        self.members.last()
    }

    /// The next node clockwise.
    pub fn right(&self) -> Option<&Peer> {
        self.members.first()
    }

    /// The ring neighbours on both sides; a single one twice.
    pub fn ends(&self) -> impl Iterator<Item = &Peer> + Clone {
        self.left().into_iter().chain(self.right())
    }

    /// The ring neighbours: none, one or two.
    pub fn ring_neighbours(&self) -> Vec<Peer> {
        let mut both: Vec<Peer> = self.ends().copied().collect();
        both.dedup();
        both
    }

    /// Whether a peer is a ring neighbour.
    pub fn is_ring_neighbour(&self, id: NodeId) -> bool {
        self.ends().any(|end| end.id == id)
    }

    /// The ring neighbour on this side; this node itself, if it is alone.
    pub fn neighbour(&self, side: Side) -> NodeId {
        let neighbour = if side == Side::Left { self.left() } else { self.right() };
        neighbour.map_or(self.me, |peer| peer.id)
    }

    /// Whether a peer is one of the nearest `n` members of a side.
    pub fn is_near(&self, id: NodeId, n: usize) -> bool {
        self.lefts().take(n).chain(self.rights().take(n)).any(|near| near.id == id)
    }

    /// On which sides a node is this node's ring neighbour, or would be: both, if this node is alone.
    pub fn sides_for(&self, id: NodeId) -> Sides {
        let me = self.me.key();
        let (Some(left), Some(right)) = (self.left(), self.right()) else {
            return Sides::Both;
        };
        let between = |from: Key, to: Key| from.clockwise_to(id) < from.clockwise_to(to);
        let is_left = between(left.id.key(), me) || left.id == id;
        let is_right = between(me, right.id.key()) || right.id == id;
        [(is_left, Side::Left), (is_right, Side::Right)]
            .into_iter()
            .filter_map(|(is, side)| is.then_some(side))
            .collect()
    }

    /// On which sides of a ring neighbour, or of one that is about to be it, this node stands, as it sees the ring.
    pub fn my_sides_at(&self, neighbour: NodeId) -> Sides {
        self.sides_for(neighbour).opposite()
    }

    /// How many nodes there are on the ring, by how dense they stand around this one.
    pub fn ring_size(&self) -> u128 {
        let members = self.len();
        match (self.lefts().last(), self.rights().last()) {
            (Some(left), Some(right)) if members >= 2 * self.half => {
                let span = left.id.key().clockwise_to(right.id);
                u128::MAX / (span / members as u128).max(1)
            }
            _ => members as u128 + 1,
        }
    }

    /// Whether a peer of this id, which is no member, would become one now.
    pub fn wants(&self, id: NodeId) -> bool {
        let room = |at| self.members.len() < 2 * self.half || at != self.half;
        id != self.me && self.find(id).is_err_and(room)
    }

    /// Whether the key lies within the arc of the ring that the members span (Pastry §2.3, the first case of routing).
    /// They span all of it while the sides overlap or are not full: then this is the whole ring, as far as known.
    pub fn covers(&self, key: Key) -> bool {
        if self.members.len() < 2 * self.half {
            return true;
        }
        let way = |point: Key| self.me.key().clockwise_to(point);
        let (rightmost, leftmost) = (self.members[self.half - 1].id, self.members[self.half].id);
        way(key) <= way(rightmost.key()) || way(key) >= way(leftmost.key())
    }

    /// The usable member closest to the key; this node itself is not considered.
    pub fn closest(&self, key: Key, usable: impl Fn(&Peer) -> bool) -> Option<&Peer> {
        self.members.iter().filter(|peer| usable(peer)).min_by(|a, b| key.closer(a.id, b.id))
    }

    /// The `n` members closest to the key, or all if they are fewer, closest first; without this node itself.
    pub fn closest_n(&self, key: Key, n: usize) -> Vec<Peer> {
        let mut peers = self.members.clone();
        peers.sort_unstable_by(|a, b| key.closer(a.id, b.id));
        peers.truncate(n);
        peers
    }

    /// Where the member of this id is, or where it would be.
    fn find(&self, id: NodeId) -> Result<usize, usize> {
        let way = |id: NodeId| self.me.key().clockwise_to(id);
        self.members.binary_search_by_key(&way(id), |peer| way(peer.id))
    }
}

//! The nodes on the ring right now, by id and by lot: nodes come and go by the thousand, and nobody sorts them anew.

use std::collections::BTreeMap;

use rand::RngExt;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::random::Rng;

/// Nodes on the ring.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    by_id: Vec<(NodeId, u32)>,
    slots: Vec<u32>,
    /// Of each slot: its place in `slots`, and its node.
    places: BTreeMap<u32, (usize, NodeId)>,
}

impl Roster {
    /// These nodes; their lots are by id.
    pub fn of(nodes: impl Iterator<Item = (NodeId, u32)>) -> Roster {
        let mut by_id: Vec<(NodeId, u32)> = nodes.collect();
        by_id.sort_unstable();
        let slots: Vec<u32> = by_id.iter().map(|&(_, slot)| slot).collect();
        let places = by_id.iter().zip(0..).map(|(&(id, slot), place)| (slot, (place, id))).collect();
        Roster { by_id, slots, places }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// All of them, by id.
    pub fn by_id(&self) -> &[(NodeId, u32)] {
        &self.by_id
    }

    /// Likewise.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (NodeId, u32)> + Clone {
        self.by_id.iter().copied()
    }

    /// The node of a slot, if it is on the ring.
    pub fn id(&self, slot: u32) -> Option<NodeId> {
        self.places.get(&slot).map(|&(_, id)| id)
    }

    /// The slot of a node on the ring.
    pub fn slot_of(&self, id: NodeId) -> Option<usize> {
        let place = self.by_id.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(self.by_id[place].1 as usize)
    }

    /// A node got there.
    pub fn insert(&mut self, id: NodeId, slot: u32) {
        if self.places.insert(slot, (self.slots.len(), id)).is_none() {
            self.slots.push(slot);
            let place = self.by_id.partition_point(|&(other, _)| other < id);
            self.by_id.insert(place, (id, slot));
        }
    }

    /// A node is gone.
    pub fn remove(&mut self, slot: u32) {
        let Some((place, id)) = self.places.remove(&slot) else { return };
        if let Ok(place) = self.by_id.binary_search_by_key(&id, |&(id, _)| id) {
            self.by_id.remove(place);
        }
        self.slots.swap_remove(place);
        if let Some(&moved) = self.slots.get(place)
            && let Some(entry) = self.places.get_mut(&moved)
        {
            entry.0 = place;
        }
    }

    /// One of them at random.
    pub fn any(&self, dice: &mut Rng) -> Option<u32> {
        (!self.is_empty()).then(|| self.slots[dice.random_range(0..self.slots.len())])
    }

    /// Clockwise from a point on, once round.
    pub fn clockwise(&self, from: Key) -> impl DoubleEndedIterator<Item = (NodeId, u32)> + Clone {
        let at = self.by_id.partition_point(|&(id, _)| id.0 < from.0);
        self.by_id[at..].iter().chain(&self.by_id[..at]).copied()
    }

    /// Counterclockwise from before a point on, once round.
    pub fn counterclockwise(&self, from: Key) -> impl Iterator<Item = (NodeId, u32)> + Clone {
        self.clockwise(from).rev()
    }

    /// The next ones on both sides of a node, itself where there is no other.
    pub fn neighbours(&self, id: NodeId) -> Option<(NodeId, NodeId)> {
        let right = self.clockwise(Key(id.0.wrapping_add(1))).next()?;
        let left = self.counterclockwise(id.key()).next()?;
        Some((left.0, right.0))
    }

    /// The root of a key, by the knowledge of all: the closest node on the ring.
    pub fn root_of(&self, key: Key) -> Option<(NodeId, usize)> {
        let candidates = [self.clockwise(key).next()?, self.counterclockwise(key).next()?];
        let closest = candidates.into_iter().min_by(|a, b| key.closer(a.0, b.0));
        closest.map(|(id, slot)| (id, slot as usize))
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::random;

    use super::*;

    #[test]
    fn a_node_that_is_gone_is_no_neighbour() {
        let mut roster = Roster::default();
        for slot in [3, 1, 2, 9] {
            roster.insert(NodeId(u128::from(slot) * 10), slot);
        }
        assert_eq!(roster.neighbours(NodeId(10)), Some((NodeId(90), NodeId(20))));
        roster.remove(3);
        roster.remove(9);
        roster.remove(9);
        assert_eq!(roster.neighbours(NodeId(10)), Some((NodeId(20), NodeId(20))));
        let mut dice = random::stream(&[7; 32], "roster");
        let drawn: Vec<u32> = (0..100).filter_map(|_| roster.any(&mut dice)).collect();
        assert!(drawn.contains(&1) && drawn.contains(&2) && !drawn.contains(&9));
        assert_eq!(roster.clockwise(Key(15)).map(|(_, slot)| slot).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(roster.counterclockwise(Key(20)).map(|(_, slot)| slot).collect::<Vec<_>>(), [1, 2]);
        roster.remove(1);
        assert_eq!((roster.neighbours(NodeId(20)), roster.len()), (Some((NodeId(20), NodeId(20))), 1));
    }

    #[test]
    fn roots_are_the_closest_round_the_ring() {
        let ring = Roster::of([10, 20, u128::MAX - 4].into_iter().map(NodeId).zip(0..));
        let slot = |key| ring.root_of(Key(key)).map(|(_, slot)| slot);
        assert_eq!([0, 2, 3, 15, 16, 21, u128::MAX].map(slot), [2, 2, 0, 0, 1, 1, 2].map(Some));
    }
}

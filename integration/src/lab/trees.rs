//! The trees of a ring as they stand: what they cost each node, and how deep their members are.

use std::collections::BTreeMap;

use treecast_scribe::{Topic, TopicId};

use super::groups::Groups;
use crate::cluster::Cluster;
use crate::node::RingNode;

/// Longest way up that is followed: a longer one is a loop.
const MAX_DEPTH: u32 = 128;

/// All trees of a ring.
pub struct Trees {
    /// By (group, slot).
    places: Vec<TreePlace>,
    /// Child entries per node, over all of its trees, one for each node.
    pub entries: Vec<u32>,
    /// Trees with children per node, one for each node.
    pub tables: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TreePlace {
    group: u32,
    slot: u32,
    up: Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Up {
    Root,
    Parent(u32),
    Nobody,
}

impl Trees {
    /// Looks at every node.
    pub fn of<N: RingNode>(cluster: &Cluster<N>, topics: &[Topic]) -> Trees {
        let numbers: BTreeMap<TopicId, u32> = topics.iter().map(Topic::id).zip(0..).collect();
        let mut trees = Trees { places: Vec::new(), entries: Vec::new(), tables: Vec::new() };
        for (slot, stack) in cluster.stacks() {
            let (mut entries, mut tables) = (0, 0);
            for tree in stack.forest().trees() {
                let Some(&group) = numbers.get(&tree.topic) else { continue };
                entries += tree.children.len() as u32;
                tables += u32::from(!tree.children.is_empty());
                let parent = tree.parent.and_then(|parent| cluster.roster.slot_of(parent));
                let up = match parent {
                    _ if tree.is_root => Up::Root,
                    Some(parent) => Up::Parent(parent as u32),
                    None => Up::Nobody,
                };
                trees.places.push(TreePlace { group, slot: slot as u32, up });
            }
            trees.entries.push(entries);
            trees.tables.push(tables);
        }
        trees.places.sort_unstable();
        trees
    }

    /// Hops from the root down to each membership, in their order; `None` if its way up does not end at a root.
    pub fn depths(&self, groups: &Groups) -> Vec<Option<u32>> {
        groups.memberships.iter().map(|&(group, slot)| self.depth(group, slot)).collect()
    }

    /// Hops from a group's root down to a node.
    pub fn depth(&self, group: u32, slot: u32) -> Option<u32> {
        let mut at = slot;
        for depth in 0..MAX_DEPTH {
            let place =
                self.places.binary_search_by_key(&(group, at), |place| (place.group, place.slot)).ok()?;
            match self.places[place].up {
                Up::Root => return Some(depth),
                Up::Parent(parent) => at = parent,
                Up::Nobody => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_end_at_roots() {
        let place = |slot, up| TreePlace { group: 3, slot, up };
        let places = vec![
            place(0, Up::Parent(2)),
            place(2, Up::Root),
            place(5, Up::Parent(0)),
            place(6, Up::Nobody),
            place(7, Up::Parent(8)),
            place(8, Up::Parent(7)),
        ];
        let trees = Trees { places, entries: Vec::new(), tables: Vec::new() };
        let depths = [0, 2, 5, 6, 7, 9].map(|slot| trees.depth(3, slot));
        assert_eq!(depths, [Some(1), Some(0), Some(2), None, None, None]);
        assert_eq!(trees.depth(4, 2), None);
    }
}

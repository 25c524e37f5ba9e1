//! Groups and their members: the Scribe paper's workload (anchor M1), scaled to the ring, or groups of one size.

use rand::seq::SliceRandom;
use treecast_overlay::random::Rng;
use treecast_scribe::Topic;

/// Groups of the paper's workload, and nodes of its ring.
const PAPER: (f64, f64) = (1_500.0, 100_000.0);
/// How fast groups get smaller with their rank (Scribe §4.1.1).
const EXPONENT: f64 = -1.25;

/// Groups and their members.
#[derive(Clone, Debug)]
pub struct Groups {
    /// One topic per group, largest first.
    pub topics: Vec<Topic>,
    /// (group, slot), in random order: each is a subscription, named by its place here.
    pub memberships: Vec<(u32, u32)>,
}

/// Sizes of the groups on a ring of so many nodes: group r has ⌊N·r^−1.25 + 0.5⌋ members. The paper's 1,500 groups
/// on 100,000 nodes; on other rings as many as make the smallest as small as there.
pub fn papers_sizes(nodes: usize, groups: Option<usize>) -> Vec<usize> {
    let scaled = PAPER.0 * (nodes as f64 / PAPER.1).powf(-1.0 / EXPONENT);
    let groups = groups.unwrap_or((scaled.round() as usize).max(1));
    let size = |rank: usize| (nodes as f64 * (rank as f64).powf(EXPONENT) + 0.5).floor() as usize;
    (1..=groups).map(size).map(|size| size.clamp(1, nodes)).collect()
}

impl Groups {
    /// Groups of these sizes, none larger than there are slots, with members at random.
    pub fn new(sizes: &[usize], slots: &[u32], dice: &mut Rng) -> Groups {
        let mut slots = slots.to_vec();
        let mut memberships = Vec::with_capacity(sizes.iter().sum());
        for (group, &size) in sizes.iter().enumerate() {
            let (members, _) = slots.partial_shuffle(dice, size);
            memberships.extend(members.iter().map(|&slot| (group as u32, slot)));
        }
        memberships.shuffle(dice);
        let topic = |group| Topic::new(&format!("lab/{group}")).expect("the name is sound");
        Groups { topics: (0..sizes.len()).map(topic).collect(), memberships }
    }

    /// The members of each group.
    pub fn members(&self) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.topics.len()];
        for &(group, slot) in &self.memberships {
            members[group as usize].push(slot as usize);
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use treecast_overlay::random;

    use super::*;

    #[test]
    fn the_papers_workload_has_its_total() {
        let sizes = papers_sizes(100_000, None);
        assert_eq!((sizes.len(), sizes[0], sizes[1499]), (1500, 100_000, 11));
        assert_eq!(sizes.iter().sum::<usize>(), 395_247);
        let small = papers_sizes(1000, None);
        assert_eq!((small[0], small.last()), (1000, Some(&11)));
        assert_eq!(papers_sizes(10, Some(50)).last(), Some(&1));
    }

    #[test]
    fn members_are_different_nodes() {
        let slots: Vec<u32> = (0..50).collect();
        let groups = Groups::new(&[50, 11, 1], &slots, &mut random::stream(&[7; 32], "test"));
        assert_eq!(groups.memberships.len(), 62);
        for (members, size) in groups.members().into_iter().zip([50, 11, 1]) {
            assert_eq!((members.len(), members.iter().collect::<BTreeSet<_>>().len()), (size, size));
        }
    }
}

//! O5, bounded: no table, queue, window or memory of a node grows beyond its limit. A node says how much of each there
//! is; the limit is what the world was told, not what the node believes. Memory that is held for slow subscribers is judged as
//! promise S6.

use std::collections::BTreeMap;

use treecast_overlay::pastry::Size;
use treecast_scribe::Stack;
use treecast_scribe::forest::Forest;

use super::{Breach, Promise, Scene, Verdict, s6};
use crate::node::RingNode;

/// Judges every node; asks it, too, whether it contradicts itself: then it panics.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    for seen in &scene.nodes {
        seen.node.assert_invariants();
        seen.forest.inspect(|forest| forest.check_invariants());
        let sizes = sizes(seen.node, seen.forest);
        bounded(&sizes, scene.limits).map_err(|what| {
            let (slot, id) = (seen.slot, seen.node.peer().id);
            Breach { promise: Promise::O5, what: format!("slot {slot} ({id:?}) at {}: {what}", scene.now) }
        })?;
    }
    Ok(())
}

/// Everything bounded in a node.
fn sizes(node: &dyn RingNode, forest: Option<&Forest>) -> Vec<Size> {
    let mut sizes = node.sizes();
    sizes.extend(forest.into_iter().flat_map(Forest::sizes));
    sizes
}

/// The limits of a node that was told what the world was told.
pub fn limits<N: RingNode>(stack: &Stack<N>) -> BTreeMap<&'static str, usize> {
    sizes(stack.ring(), Some(stack.forest())).into_iter().map(|(name, _, limit)| (name, limit)).collect()
}

fn bounded(sizes: &[Size], limits: &BTreeMap<&'static str, usize>) -> Result<(), String> {
    for (name, size, own) in sizes.iter().filter(|(name, ..)| !s6::HELD.contains(name)) {
        // A size that a fresh node does not have yet, such as publishers, is held against its own limit.
        let limit = limits.get(name).unwrap_or(own);
        if size > limit {
            return Err(format!("{name}: {size}, allowed are {limit}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_beyond_its_limit_is_seen() {
        let limits = BTreeMap::from([("leaf set", 32)]);
        assert_eq!(bounded(&[("leaf set", 32, 32), ("queue", 3, 3)], &limits), Ok(()));
        assert!(bounded(&[("leaf set", 33, 64)], &limits).unwrap_err().contains("33, allowed are 32"));
        assert!(bounded(&[("queue", 4, 3)], &limits).unwrap_err().contains("queue"));
    }
}

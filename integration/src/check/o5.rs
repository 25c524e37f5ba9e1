//! O5, bounded: no table, queue or map of a node grows beyond its limit.

use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;

/// Panics, naming the node's broken invariant, if one is; limits are among them.
pub fn bounded<'a>(nodes: impl Iterator<Item = &'a Node>) {
    for node in nodes {
        let _ = node.peer();
        node.assert_invariants();
    }
}

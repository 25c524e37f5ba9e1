//! The judges: one file per promise of `design.md` §2. Each says what is wrong in words, or nothing.

pub mod o1;
pub mod o2;
pub mod o3;
pub mod o5;

use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::pastry::Node;
use treecast_overlay::wire::Standing;

/// The nodes on the ring among `nodes`, by id.
fn on_the_ring<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<&'a Node> {
    use treecast_overlay::machine::Machine;
    let mut ready: Vec<&Node> = nodes.filter(|node| node.standing() == Standing::Ready).collect();
    ready.sort_by_key(|node| node.peer().id);
    ready
}

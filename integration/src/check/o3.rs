//! O3, one ring: each ready node's neighbours are the next ready nodes on both sides, and its leases run.

use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Standing;

use super::{Promise, Scene, Verdict};

/// Judges the ring of all nodes that live: everybody is on it, and it is whole.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    let waiting = |node: &&Node| !matches!(node.standing(), Standing::Ready | Standing::Edge);
    if let Some(node) = scene.rings().find(waiting) {
        let (id, standing) = (node.peer().id, node.standing());
        return Err(Promise::O3.broken(format!("{id:?} is not on the ring at {}: {standing:?}", scene.now)));
    }
    one_ring(scene.clocked())
}

/// Whether the nodes on the ring stand in one ring, each of them answering for its part, by its own clock.
pub fn one_ring<'a>(nodes: impl Iterator<Item = (Instant, &'a Node)>) -> Verdict {
    let ring = super::on_the_ring(nodes);
    for (at, (now, node)) in ring.iter().enumerate() {
        let expected = |steps: usize| ring[(at + steps) % ring.len()].1.peer().id;
        stands_between(*now, node, expected(ring.len() - 1), expected(1))?;
    }
    Ok(())
}

/// Whether a node on the ring has these neighbours, and their leases. Itself: it should have none. `now`: by its own
/// clock.
pub fn stands_between(now: Instant, node: &Node, left: NodeId, right: NodeId) -> Verdict {
    let id = node.peer().id;
    let set = node.leaf_set();
    for (side, known, expected) in [("left", set.left(), left), ("right", set.right(), right)] {
        let (known, expected) = (known.map(|peer| peer.id), Some(expected).filter(|&other| other != id));
        if known != expected {
            return Err(Promise::O3
                .broken(format!("{id:?} has {known:?} to its {side} in place of {expected:?}, at {now}")));
        }
    }
    match node.is_root_of(now, id.key()) {
        true => Ok(()),
        false => Err(Promise::O3.broken(format!("the leases of {id:?} do not run at {now}"))),
    }
}

//! O3, one ring: each ready node's neighbours are the next ready nodes on both sides, and its leases run.

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::NodeState;

use super::{Clocked, Promise, Scene, Verdict};
use crate::node::RingNode;

/// Judges the ring of all nodes that live: all are on it, and it is whole.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    all_there(scene)?;
    one_ring(scene.clocked())
}

/// Whether all nodes that live are on the ring, and have the neighbours that they should have; leases, which loss may let
/// lapse for a moment at any time, aside.
pub fn in_order(scene: &Scene<'_>) -> Verdict {
    all_there(scene)?;
    let mut places = places(super::on_the_ring(scene.clocked()));
    places.try_for_each(|((now, node), left, right)| has_neighbours(now, node, left, right))
}

/// How many nodes on the ring have the neighbours that they should have.
pub fn count_in_order(scene: &Scene<'_>) -> usize {
    let places = places(super::on_the_ring(scene.clocked()));
    places.filter(|&((now, node), left, right)| has_neighbours(now, node, left, right).is_ok()).count()
}

/// Whether the nodes on the ring stand in one ring, each of them answering for its part, by its own clock.
pub fn one_ring<'a>(nodes: impl Iterator<Item = Clocked<'a>>) -> Verdict {
    places(super::on_the_ring(nodes)).try_for_each(|((now, node), left, right)| {
        has_neighbours(now, node, left, right)?;
        match node.is_root_of(now, node.peer().id.key()) {
            true => Ok(()),
            false => {
                Err(Promise::O3.broken(format!("the leases of {:?} do not run at {now}", node.peer().id)))
            }
        }
    })
}

fn all_there(scene: &Scene<'_>) -> Verdict {
    let waits = |(_, node): &Clocked<'_>| !matches!(node.node_state(), NodeState::Ready | NodeState::Edge);
    match scene.clocked().find(waits) {
        Some((_, node)) => {
            let (id, node_state) = (node.peer().id, node.node_state());
            Err(Promise::O3.broken(format!("{id:?} is not on the ring at {}: {node_state:?}", scene.now)))
        }
        None => Ok(()),
    }
}

/// Each node of a ring that stands by id, and the ones that should be to its left and to its right.
fn places(ring: Vec<Clocked<'_>>) -> impl Iterator<Item = (Clocked<'_>, NodeId, NodeId)> {
    let ids: Vec<NodeId> = ring.iter().map(|(_, node)| node.peer().id).collect();
    let count = ids.len();
    let place = move |(at, node)| (node, ids[(at + count - 1) % count], ids[(at + 1) % count]);
    ring.into_iter().enumerate().map(place)
}

/// Whether a node on the ring has these neighbours. Itself: it should have none. `now`: by its own clock.
fn has_neighbours(now: Instant, node: &dyn RingNode, left: NodeId, right: NodeId) -> Verdict {
    let id = node.peer().id;
    for ((side, expected), known) in [("left", left), ("right", right)].into_iter().zip(node.neighbours()) {
        let (known, expected) = (known.map(|peer| peer.id), Some(expected).filter(|&other| other != id));
        if known != expected {
            return Err(Promise::O3
                .broken(format!("{id:?} has {known:?} to its {side} in place of {expected:?}, at {now}")));
        }
    }
    Ok(())
}

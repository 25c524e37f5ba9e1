//! O1, correct delivery: whoever answers for a key is the closest node of its side whose leases run, and nobody else of
//! that side answers for it.
//!
//! Excused, and counted: rings that merge after a partition, and the repair after more than half of one side of a leaf
//! set failed together.

use std::collections::BTreeSet;

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::time::Instant;

use super::{Clocked, Promise, Scene, Verdict};
use crate::cluster::passages::Decision;
use crate::node::RingNode;

/// Nodes on each side of a border that are asked whether they answer for it.
const NEAR: usize = 3;

/// Judges all borders between nodes, and the scene's keys, on each side.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    breaches(scene).into_iter().try_for_each(|(side, key, what)| excuse(scene, side, key, what))
}

/// Counts a fault, if it is excused.
fn excuse(scene: &Scene<'_>, side: u8, key: Key, what: String) -> Verdict {
    let beyond = scene.nodes.iter().filter(|seen| scene.watch.side(seen.slot) != side);
    let beyond: Vec<NodeId> = beyond.map(|seen| seen.node.peer().id).collect();
    if !scene.watch.is_excused(scene.now, key, &scene.ready(), &beyond) {
        return Err(Promise::O1.broken(what));
    }
    scene.watch.excused.update(|count| count + 1);
    Ok(())
}

/// Keys at the borders between nodes, and the scene's, where one node's answer is outdone by another's, each with the side on
/// which that is so.
pub fn breaches(scene: &Scene<'_>) -> Vec<(u8, Key, String)> {
    let sides: BTreeSet<u8> = scene.nodes.iter().map(|seen| scene.watch.side(seen.slot)).collect();
    let mut breaches = Vec::new();
    for side in sides {
        let nodes = on_side(scene, side);
        let serving = serving(nodes.iter().copied());
        for &key in scene.keys {
            breaches.extend(at_most_one(scene.now, key, &serving).err().map(|what| (side, key, what)));
        }
        let all = super::on_the_ring(nodes.into_iter());
        for key in borders(&all) {
            let near = around(key, &serving);
            breaches.extend(at_most_one(scene.now, key, &near).err().map(|what| (side, key, what)));
        }
    }
    breaches
}

fn on_side<'a>(scene: &Scene<'a>, side: u8) -> Vec<Clocked<'a>> {
    let same = scene.nodes.iter().filter(|seen| scene.watch.side(seen.slot) == side);
    same.map(|seen| (seen.clock, seen.node)).collect()
}

/// Judges an answer at the very instant at which it was given: the node that gave it as it was when it did, the others
/// as they are.
pub fn judge_decision(scene: &Scene<'_>, decision: &Decision) -> Verdict {
    let Decision { by, key, serves, .. } = *decision;
    let Some(seen) = scene.nodes.iter().find(|seen| seen.node.peer().id == by) else { return Ok(()) };
    let side = scene.watch.side(seen.slot);
    let nodes = on_side(scene, side);
    let what = match nodes.into_iter().find(|(now, node)| outdoes(*now, *node, by, key)) {
        None if serves => return Ok(()),
        None => format!("{by:?} answers for {key:?} at {}, and is not its root", scene.now),
        Some((_, other)) => {
            let other = other.peer().id;
            format!(
                "{by:?} answers for {key:?} at {}, but {other:?} serves, and is closer or does too",
                scene.now
            )
        }
    };
    excuse(scene, side, key, what)
}

/// Whether a node's word on a key counts for more than that of `by`, or as much: its leases run, and it is closer, or
/// answers for the key, too. `now`: by its own clock.
pub fn outdoes(now: Instant, other: &dyn RingNode, by: NodeId, key: Key) -> bool {
    let id = other.peer().id;
    id != by && other.is_root_of(now, id.key()) && (other.is_root_of(now, key) || key.is_closer(id, by))
}

/// The nodes whose leases run, each by its own clock, by id: those that answer for their own id.
pub fn serving<'a>(nodes: impl Iterator<Item = Clocked<'a>>) -> Vec<Clocked<'a>> {
    let mut serving: Vec<_> =
        nodes.filter(|(now, node)| node.is_root_of(*now, node.peer().id.key())).collect();
    serving.sort_by_key(|(_, node)| node.peer().id);
    serving
}

/// At most one node answers for the key, and it is the closest of those whose leases run.
/// `now`: for people.
pub fn at_most_one(now: Instant, key: Key, serving: &[Clocked<'_>]) -> Result<Option<NodeId>, String> {
    let claimants = serving.iter().filter(|(clock, node)| node.is_root_of(*clock, key));
    let claimants: Vec<NodeId> = claimants.map(|(_, node)| node.peer().id).collect();
    let closest = serving.iter().map(|(_, node)| node.peer().id).min_by(|&a, &b| key.closer(a, b));
    match claimants[..] {
        [] => Ok(None),
        [one] if Some(one) == closest => Ok(Some(one)),
        [one] => Err(format!("{one:?} answers for {key:?}, but {closest:?} is closer and serves, at {now}")),
        _ => Err(format!("{claimants:?} all answer for {key:?} at {now}")),
    }
}

/// The keys where two nodes could get into each other's way: halfway between any two that follow each other, on both
/// sides of it.
fn borders(nodes: &[Clocked<'_>]) -> Vec<Key> {
    let ids: Vec<NodeId> = nodes.iter().map(|(_, node)| node.peer().id).collect();
    let next = ids.iter().cycle().skip(1);
    let halves = ids.iter().zip(next).map(|(a, b)| a.0.wrapping_add(b.0.wrapping_sub(a.0) / 2));
    halves.flat_map(|half| [Key(half.wrapping_sub(1)), Key(half.wrapping_add(1))]).collect()
}

/// Returns the serving nodes next to a key on either side; they stand by id.
fn around<'a>(key: Key, serving: &[Clocked<'a>]) -> Vec<Clocked<'a>> {
    let reach = NEAR.min(serving.len());
    let at = serving.partition_point(|(_, node)| node.peer().id.key() < key) + serving.len() * NEAR - reach;
    let mut near: Vec<_> = (0..2 * reach).map(|i| serving[(at + i) % serving.len()]).collect();
    near.sort_by_key(|(_, node)| node.peer().id);
    near.dedup_by_key(|(_, node)| node.peer().id);
    near
}

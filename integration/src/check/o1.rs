//! O1, correct delivery: whoever answers for a key is the closest node whose leases run, and nobody else answers for it.

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::time::Instant;

/// The nodes whose leases run, by id: those that answer for their own id.
pub fn serving<'a>(now: Instant, nodes: impl Iterator<Item = &'a Node>) -> Vec<&'a Node> {
    let mut serving: Vec<&Node> = nodes.filter(|node| node.is_root_of(now, node.peer().id.key())).collect();
    serving.sort_by_key(|node| node.peer().id);
    serving
}

/// Who of the nodes answers for a key.
pub fn claimants(now: Instant, key: Key, nodes: &[&Node]) -> Vec<NodeId> {
    nodes.iter().filter(|node| node.is_root_of(now, key)).map(|node| node.peer().id).collect()
}

/// At most one node answers for the key, and it is the closest of those whose leases run.
pub fn at_most_one(now: Instant, key: Key, serving: &[&Node]) -> Result<Option<NodeId>, String> {
    let claimants = claimants(now, key, serving);
    let closest = serving.iter().map(|node| node.peer().id).min_by(|&a, &b| key.closer(a, b));
    match claimants[..] {
        [] => Ok(None),
        [one] if Some(one) == closest => Ok(Some(one)),
        [one] => {
            Err(format!("O1: {one:?} answers for {key:?}, but {closest:?} is closer and serves, at {now}"))
        }
        _ => Err(format!("O1: {claimants:?} all answer for {key:?} at {now}")),
    }
}

/// The keys where two nodes could get into each other's way: halfway between any two that follow each other, on both
/// sides of it.
pub fn borders(nodes: &[&Node]) -> Vec<Key> {
    let ids: Vec<NodeId> = nodes.iter().map(|node| node.peer().id).collect();
    let next = ids.iter().cycle().skip(1);
    let halves = ids.iter().zip(next).map(|(a, b)| a.0.wrapping_add(b.0.wrapping_sub(a.0) / 2));
    halves.flat_map(|half| [Key(half.wrapping_sub(1)), Key(half.wrapping_add(1))]).collect()
}

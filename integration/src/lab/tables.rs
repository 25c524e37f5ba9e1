//! How good routing tables are, by the knowledge of all (Pastry §3.3 measures the same): entries for which a clearly
//! nearer node exists, and slots that are empty though somebody could be there.

use std::time::Duration;

use rand::RngExt;
use treecast_overlay::id::{BASE, BITS_PER_DIGIT, DIGITS, NodeId};

use super::stats::Samples;
use crate::cluster::Cluster;
use crate::node::RingNode;

/// Most nodes whose tables are looked at.
const SAMPLE: usize = 200;
/// A node is clearly nearer if its latency, so many times, is still below that of the entry.
const CLEARLY: f64 = 1.1;

/// One row of the routing table, as a mean over nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Level {
    /// Entries in use (the first of each slot).
    pub filled: f64,
    /// Of them, those for which a clearly nearer node exists.
    pub suboptimal: f64,
    /// Empty slots for which a node exists.
    pub missing: f64,
}

/// Looks at the tables of a sample of nodes; one entry per row, from the first on, down to the last in use.
pub fn levels<N: RingNode>(cluster: &Cluster<N>) -> Vec<Level> {
    let mut dice = cluster.world.stream("lab/tables");
    let nodes = cluster.roster.by_id();
    let sample = SAMPLE.min(nodes.len());
    let mut levels: Vec<Level> = Vec::new();
    for _ in 0..sample {
        let (id, slot) = nodes[dice.random_range(0..nodes.len())];
        for row in 0..DIGITS {
            let peers = with_prefix(nodes, id, row);
            if peers.len() < 2 {
                break;
            }
            if levels.len() == row {
                levels.push(Level::default());
            }
            let found = look(cluster, peers, id, slot as usize, row);
            let level = &mut levels[row];
            level.filled += found.filled / sample as f64;
            level.suboptimal += found.suboptimal / sample as f64;
            level.missing += found.missing / sample as f64;
        }
    }
    levels
}

/// In how many nodes' routing tables each node stands.
pub fn in_degrees<N: RingNode>(cluster: &Cluster<N>) -> Samples {
    let mut degrees = vec![0_u32; cluster.world.slots()];
    for (_, stack) in cluster.stacks() {
        for peer in stack.ring().far() {
            if let Some(slot) = cluster.roster.slot_of(peer.id) {
                degrees[slot] += 1;
            }
        }
    }
    Samples::new(cluster.roster.by_id().iter().map(|&(_, slot)| degrees[slot as usize] as f32).collect())
}

/// One row of one node. `peers`: all that share its prefix.
fn look<N: RingNode>(
    cluster: &Cluster<N>,
    peers: &[(NodeId, u32)],
    id: NodeId,
    slot: usize,
    row: usize,
) -> Level {
    let mut level = Level::default();
    let Some(node) = cluster.node(slot) else { return level };
    let digit = |id: NodeId| id.key().digit(row);
    for column in peers.chunk_by(|a, b| digit(a.0) == digit(b.0)) {
        let digit = digit(column[0].0);
        if digit == id.key().digit(row) {
            continue;
        }
        debug_assert!(digit < BASE);
        let Some(entry) = node.entry(row, digit) else {
            level.missing += 1.0;
            continue;
        };
        level.filled += 1.0;
        let latency = |other: u32| cluster.world.latency(slot, other as usize);
        let nearest = column.iter().map(|&(_, other)| latency(other)).min().unwrap_or(Duration::MAX);
        let used = cluster
            .roster
            .slot_of(entry.id)
            .map_or(Duration::MAX, |other| cluster.world.latency(slot, other));
        level.suboptimal += f64::from(u8::from(nearest.mul_f64(CLEARLY) < used));
    }
    level
}

/// The nodes whose first `digits` digits are those of `id`.
fn with_prefix(nodes: &[(NodeId, u32)], id: NodeId, digits: usize) -> &[(NodeId, u32)] {
    let free = u128::BITS - BITS_PER_DIGIT * digits as u32;
    let low = 1u128.checked_shl(free).map_or(u128::MAX, |first| first - 1);
    let first = nodes.partition_point(|&(other, _)| other.0 < id.0 & !low);
    let behind = nodes.partition_point(|&(other, _)| other.0 <= id.0 | low);
    &nodes[first..behind]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_ranges() {
        let node = |first: u128| (NodeId(first << 120), 0);
        let nodes: Vec<_> = [0x10, 0x1f, 0x20, 0xf0, 0xff].map(node).to_vec();
        let count = |first: u128, digits| with_prefix(&nodes, node(first).0, digits).len();
        assert_eq!(
            [count(0x10, 0), count(0x10, 1), count(0x10, 2), count(0xff, 1), count(0x30, 1)],
            [5, 2, 1, 2, 0]
        );
        assert_eq!(with_prefix(&nodes, node(0x10).0, 32).len(), 1);
    }
}

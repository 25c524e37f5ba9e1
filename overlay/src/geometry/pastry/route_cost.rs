//! The expected cost of a route, by this node's own distances: nodes of one ring have about the same.

use std::time::Duration;

use super::micros;
use crate::id::{BASE, Key, NodeId};
use crate::memory;
use crate::peer::Peer;
use crate::table::{Entry, LeafSet, RoutingTable};

/// The expected cost of the hops after the next one.
#[derive(Clone, Debug, Default)]
pub(super) struct RouteCost {
    /// Mean distance of two nodes on the ring.
    spacing: u128,
    /// How far a leaf set reaches to each side, less a little.
    reach: u128,
    /// Mean round-trip time to a member of the leaf set, and so to any node, in microseconds.
    leaf: u32,
    /// By matched digits: expected round-trip time of all that is to come, in microseconds.
    rest: Vec<u32>,
}

impl RouteCost {
    /// The expected cost of a route by way of this entry, in microseconds of round-trip time. The nearest of a slot is
    /// not always the best: one that matches more digits than it must, or whose leaf set has the key's root, saves a
    /// later hop, and later hops are the long ones (a departure from Pastry §2.5, which takes the nearest).
    pub(super) fn by_way_of(&self, entry: &Entry, key: Key) -> u64 {
        let first = entry.weight().unwrap_or(self.leaf);
        u64::from(first) + u64::from(self.expected(entry.peer.id, key))
    }

    /// Expected round-trip time from a node to the key's root, in microseconds.
    fn expected(&self, from: NodeId, key: Key) -> u32 {
        let away = key.distance(from);
        if away < self.spacing {
            // Perhaps it is the root itself.
            self.leaf / 2
        } else if away < self.reach {
            self.leaf
        } else {
            let matched = key.shared_prefix(from);
            self.rest.get(matched).or(self.rest.last()).copied().unwrap_or_default()
        }
    }

    /// Rows of the routing table that messages go by: where a slot is no wider than a leaf set, that routes, and the rows
    /// cost nothing.
    pub(super) fn rows_in_use(&self, table: &RoutingTable) -> usize {
        match self.rest.len() {
            0 => table.rows(),
            ahead => table.rows().min(ahead - 1),
        }
    }

    /// Works it out anew. `rtt`: of the members of the leaf set; `half`: members of a full side.
    pub(super) fn renew(
        &mut self,
        leaf_set: &LeafSet,
        half: usize,
        table: &RoutingTable,
        rtt: impl Fn(&Peer) -> Option<Duration>,
    ) {
        let ends = leaf_set.lefts().last().zip(leaf_set.rights().last());
        let span = ends.map_or(0, |(left, right)| left.id.key().clockwise_to(right.id));
        let spacing = span / (2 * half as u128);
        let leaf = mean(leaf_set.iter().filter_map(rtt).map(micros));
        let mut rest: Vec<u32> = Vec::new();
        for row in 0..table.rows() {
            rest.push(mean((0..BASE).filter_map(|col| table.slot(row, col).first()?.rtt_micros())));
            // Where a slot is no wider than a leaf set, it leads to a node whose leaf set has the root.
            if u128::MAX >> (4 * (row + 1)).min(127) < span {
                break;
            }
        }
        let mut ahead = leaf;
        for row in rest.iter_mut().rev() {
            ahead = ahead.saturating_add(*row);
            *row = ahead;
        }
        rest.push(leaf);
        let reach = spacing.saturating_mul(half as u128).saturating_mul(9) / 10;
        *self = RouteCost { spacing, reach, leaf, rest };
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::list(&self.rest)
    }
}

fn mean(micros: impl Iterator<Item = u32>) -> u32 {
    let (sum, count) = micros.fold((0_u64, 0), |(sum, count), each| (sum + u64::from(each), count + 1));
    sum.checked_div(count).unwrap_or_default() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Addr;

    #[test]
    fn a_hop_that_saves_the_next_one_may_be_longer() {
        let key = Key(0x3f7a << 112);
        let cost = RouteCost { spacing: 1 << 96, reach: 1 << 100, leaf: 90, rest: vec![150, 140, 130, 90] };
        let mut table = RoutingTable::new(NodeId(0), 3);
        let place = |id: u128, rtt| (NodeId(id), Duration::from_micros(rtt));
        let [short, far, beside] =
            [place(0x30 << 120, 10), place(0x3f << 120, 40), place((0x3f7a << 112) + 5, 80)];
        for (id, rtt) in [short, far, beside] {
            table.insert(Peer { id, incarnation: 1, addr: Addr::Memory(0) }, Some(rtt));
        }
        let slot = table.next_hops(key);
        let cost = |id: NodeId| {
            slot.iter().find(|entry| entry.peer.id == id).map(|entry| cost.by_way_of(entry, key))
        };
        assert_eq!([short, far, beside].map(|(id, _)| cost(id)), [Some(150), Some(170), Some(125)]);
    }
}

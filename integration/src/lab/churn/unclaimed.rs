//! For each crash, how long a part of the dead node's range had no node that answered for it.

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::time::Instant;

use crate::cluster::Cluster;
use crate::cluster::lookups::millis;
use crate::node::RingNode;

/// The ranges of dead nodes that nobody has taken over yet.
#[derive(Default)]
pub(super) struct Unclaimed {
    open: Vec<Gap>,
    /// Of the others: how long it took, in milliseconds.
    pub(super) took_ms: Vec<f32>,
}

struct Gap {
    since: Instant,
    /// Points of the range that nobody has answered for since.
    keys: Vec<Key>,
}

impl Unclaimed {
    /// To be asked just before a node crashes: what it answers for, if it answers for anything.
    pub(super) fn range_of<N: RingNode>(cluster: &Cluster<N>, slot: u32) -> Option<Vec<Key>> {
        let id = cluster.roster.id(slot)?;
        if !cluster.answers(slot, id.key()) {
            return None;
        }
        let (left, right) = cluster.roster.neighbours(id)?;
        // Both ends, just inside the borders, go to different heirs; its own id goes to one of them.
        let half = |from: NodeId, to: NodeId| from.0.wrapping_add(to.0.wrapping_sub(from.0) / 2);
        Some(vec![Key(half(left, id).wrapping_add(1)), id.key(), Key(half(id, right).wrapping_sub(1))])
    }

    /// It crashed.
    pub(super) fn begin(&mut self, now: Instant, keys: Vec<Key>) {
        self.open.push(Gap { since: now, keys });
    }

    /// Looks which ranges have found an heir.
    pub(super) fn look<N: RingNode>(&mut self, cluster: &Cluster<N>) {
        let now = cluster.now();
        for gap in &mut self.open {
            gap.keys.retain(|&key| !cluster.is_claimed(key, 0));
        }
        for gap in self.open.extract_if(.., |gap| gap.keys.is_empty()) {
            self.took_ms.push(millis(now - gap.since));
        }
    }

    /// Whether there is anything to look at.
    pub(super) fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    /// Nobody looks any more: what is still open has been so for this long at least. Returns how many those
    /// are.
    pub(super) fn end(&mut self, now: Instant) -> usize {
        let open = std::mem::take(&mut self.open);
        self.took_ms.extend(open.iter().map(|gap| millis(now - gap.since)));
        open.len()
    }
}

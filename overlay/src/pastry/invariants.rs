//! What must be true of a node between two calls. Asserted in debug builds, and by the laboratory.

use super::lookup::Lookups;
use super::{Node, Timer};
use crate::id::BASE;

/// How much there is of something that is bounded (promise O5): its name, how many or how many bytes, its limit.
pub type Size = (&'static str, usize, usize);

impl Node {
    /// Every table, queue and memory of this node beside its limit. Of what exists for each peer or slot: the largest.
    pub fn sizes(&self) -> Vec<Size> {
        let slots = (0..self.table.rows()).flat_map(|row| (0..BASE).map(move |col| (row, col)));
        let candidates = slots.map(|(row, col)| self.table.slot(row, col).len()).max();
        let mut sizes = vec![
            ("leaf set", self.leaf_set.len(), self.config.leaf_set),
            ("candidates of one slot", candidates.unwrap_or_default(), self.config.candidates),
            ("neighbourhood set", self.neighbourhood.len(), self.config.neighbourhood),
            ("edges", self.edges.len(), self.config.max_edges),
            ("pending lookups", self.lookups.len(), Lookups::limit()),
        ];
        sizes.extend(self.hops.sizes(&self.config));
        sizes.extend(self.liveness.sizes());
        sizes.push(self.broadcasts.size());
        sizes.push(self.former.size());
        sizes.extend(self.detours.sizes());
        sizes.extend(self.carried.sizes());
        sizes.push(self.budget.size());
        sizes.push(self.tuning.size());
        sizes.push(self.members.size(&self.config));
        sizes
    }

    /// Panics if an invariant of this node is broken: that is our bug, never a peer's.
    pub fn assert_invariants(&self) {
        assert!(!self.leaf_set.contains(self.me.id), "a node is not in its own leaf set");
        assert!(self.table.get(self.me.id).is_none(), "a node is not in its own routing table");
        assert!(self.hops.pending() <= self.config.max_pending_hops, "pending hops are bounded");
        assert!(self.hops.parked() <= self.config.max_parked, "parked messages are bounded");
        assert!(self.hops.holds_no_more_than_it_may(), "payloads held are bounded");
        assert!(self.hops.parked() == 0 || self.deadlines.is_set(Timer::Parked) || !self.is_running());
        assert!(self.edges.len() <= self.config.max_edges, "edges are bounded");
        assert!(self.lookups.len() <= Lookups::limit(), "lookups are bounded");
        if self.is_edge() {
            assert!(self.leaf_set.is_empty() && self.table.is_empty(), "an edge is on no ring");
        }
        if self.is_ready() && !self.is_edge() {
            assert!(self.deadlines.is_set(Timer::Heartbeat), "a ring node keeps its leases");
        }
    }

    fn is_running(&self) -> bool {
        !matches!(self.phase, super::join::Phase::Stopped)
    }
}

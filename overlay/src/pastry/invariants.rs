//! What must be true of a node between two calls. Asserted in debug builds, and by the laboratory.

use super::lookup::Lookups;
use super::{Node, Timer};

impl Node {
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

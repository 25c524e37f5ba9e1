//! Invariants: true of a node between two calls. Asserted in debug builds, and by the laboratory.

use super::core::{Phase, Timer};
use super::node::Node;
use crate::geometry::Geometry;

/// How much there is of something that is bounded (promise O5): its name, how many or how many bytes, its limit.
pub type Size = (&'static str, usize, usize);

impl<G: Geometry> Node<G> {
    /// Every table, queue and memory of this node beside its limit. Of what exists for each peer or slot: the largest.
    pub fn sizes(&self) -> Vec<Size> {
        let config = &self.core.config;
        let mut sizes = vec![
            ("leaf set", self.tables.leaf_set.len(), config.tables.leaf_set),
            self.edges.size(config.edges.max),
            self.lookups.size(),
        ];
        sizes.extend(self.geometry.sizes(config));
        sizes.extend(self.hops.sizes(config));
        sizes.extend(self.detector.sizes());
        sizes.push(self.broadcasts.size());
        sizes.push(self.merge.size());
        sizes.extend(self.leases.sizes());
        sizes.push(self.repair.budget.size());
        sizes
    }

    /// Panics if an invariant of this node is broken: that is our bug, never a peer's.
    pub fn assert_invariants(&self) {
        let (core, leaf_set) = (&self.core, &self.tables.leaf_set);
        assert!(!leaf_set.contains(core.me.id), "a node is not in its own leaf set");
        self.geometry.assert_invariants(core);
        assert!(self.hops.pending() <= core.config.routing.max_pending_hops, "pending hops are bounded");
        assert!(self.hops.parked() <= core.config.routing.max_parked, "parked messages are bounded");
        assert!(self.hops.holds_no_more_than_it_may(), "payloads held are bounded");
        let is_watched = core.timers.is_set(Timer::Parked) || core.phase == Phase::Stopped;
        assert!(self.hops.parked() == 0 || is_watched, "parked messages are looked after");
        for (name, size, most) in [self.edges.size(core.config.edges.max), self.lookups.size()] {
            assert!(size <= most, "{name} are bounded");
        }
        assert!(!core.is_edge() || leaf_set.is_empty(), "an edge is on no ring");
        assert!(!core.is_on_ring() || core.timers.is_set(Timer::Heartbeat), "a ring node keeps its leases");
    }
}

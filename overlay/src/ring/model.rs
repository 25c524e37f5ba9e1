//! Help for a model checker: to copy a node, and to tell which of two copies would act alike
//! (`treecast-integration`'s `model`, docs/guarantees.md).

use std::hash::{Hash, Hasher};

use super::core::Timer;
use super::node::Node;
use crate::geometry::Geometry;
use crate::id::NodeId;

/// Timers that a copy may give up.
const PACED: [Timer; 2] = [Timer::Sweep, Timer::AskAgain];

impl<G: Geometry> Node<G> {
    /// A copy of this drained node, its generator at its beginning: what it does next follows from its state alone. It does
    /// not look any more for silent nodes, and, on a ring with others, for those that it lost: that goes on for ever, and
    /// hardly ever at one pace.
    pub fn fork(&self) -> Node<G> {
        Node {
            core: self.core.fork(PACED.into_iter().filter(|&timer| self.is_left_out(timer))),
            tables: self.tables.clone(),
            geometry: self.geometry.clone(),
            join: self.join.clone(),
            slots: self.slots.clone(),
            leases: self.leases.clone(),
            detector: self.detector.clone(),
            repair: self.repair.clone(),
            merge: self.merge.clone(),
            hops: self.hops.clone(),
            lookups: self.lookups.clone(),
            broadcasts: self.broadcasts.clone(),
            edges: self.edges.clone(),
            access: self.access.clone(),
        }
    }

    /// Numbers this node's questions from here on: so a checker tells from a number whose question it is.
    pub fn count_from(&mut self, number: u64) {
        self.core.count_from(number);
    }

    /// Hashes all that decides what a ring node does in a small ring that no node looks anything up in, as long as waits
    /// have one length (`rto_min` = `rto_max`) and rounds of repair and of the geometry are far. Left out are constants, the generator,
    /// counters, measured times and rates, and [`taken_hops`](Node::taken_hops).
    pub fn hash_state(&self, state: &mut impl Hasher) {
        (self.core.phase, self.core.role, &self.join, &self.tables, &self.geometry).hash(state);
        (&self.slots, &self.leases, &self.detector, &self.repair, &self.merge).hash(state);
        (&self.edges, &self.access).hash(state);
        self.hops.hash_waiting(state);
        for (timer, at) in self.core.timers.iter().filter(|&(timer, _)| !self.is_left_out(timer)) {
            (timer, at).hash(state);
        }
    }

    fn is_left_out(&self, timer: Timer) -> bool {
        timer == Timer::Sweep
            || timer == Timer::Geometry
            || timer == Timer::AskAgain && !self.tables.leaf_set.is_empty()
    }

    /// Hops that this node has accepted, and would not accept again: the nodes that handed them over, and their numbers.
    pub fn taken_hops(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.hops.taken()
    }
}

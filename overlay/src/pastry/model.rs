//! What a model checker needs of a node: to copy it, and to tell which of two copies would act alike
//! (`treecast-integration`'s `model`, docs/guarantees.md).

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use super::{Node, Timer};
use crate::id::NodeId;

/// Timers that a copy may give up.
const PACED: [Timer; 2] = [Timer::Sweep, Timer::AskAgain];

impl Node {
    /// A copy of this drained node, its dice at their beginning: what it does next follows from its state alone. It does
    /// not look any more for who is silent, and, on a ring with others, for those whom it lost: that goes on for ever, and
    /// hardly ever at one pace.
    pub fn fork(&self) -> Node {
        debug_assert!(self.transmits.is_empty() && self.events.is_empty(), "a node is drained first");
        let mut rng = self.rng.clone();
        rng.set_word_pos(0);
        let mut deadlines = self.deadlines.clone();
        PACED.into_iter().filter(|&timer| self.is_left_out(timer)).for_each(|timer| deadlines.cancel(timer));
        Node {
            rng,
            me: self.me,
            config: self.config.clone(),
            role: self.role,
            phase: self.phase.clone(),
            bootstrap: self.bootstrap.clone(),
            leaf_set: self.leaf_set.clone(),
            spare: self.spare.clone(),
            table: self.table.clone(),
            neighbourhood: self.neighbourhood.clone(),
            proximity: self.proximity.clone(),
            liveness: self.liveness.clone(),
            tuning: self.tuning.clone(),
            detours: self.detours.clone(),
            members: self.members.clone(),
            merge: self.merge.clone(),
            leases: self.leases.clone(),
            carried: self.carried.clone(),
            budget: self.budget.clone(),
            slots: self.slots.clone(),
            hops: self.hops.clone(),
            lookups: self.lookups.clone(),
            broadcasts: self.broadcasts.clone(),
            edges: self.edges.clone(),
            former: self.former.clone(),
            access: self.access.clone(),
            serving: self.serving,
            twin_sought: self.twin_sought,
            last_number: self.last_number,
            sent: self.sent,
            last_run: self.last_run,
            deadlines,
            queued: VecDeque::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Numbers this node's questions from here on: so a checker tells from a number whose question it is.
    pub fn count_from(&mut self, number: u64) {
        self.last_number = number;
    }

    /// Hashes all that decides what a ring node does in a small ring that nobody looks anything up in, as long as waits
    /// have one length (`rto_min` = `rto_max`) and rounds of repair and proximity are far. Left out are constants, dice,
    /// counters, measured times and rates, and [`taken_hops`](Node::taken_hops).
    pub fn hash_state(&self, state: &mut impl Hasher) {
        (&self.phase, &self.leaf_set, &self.spare, &self.liveness, &self.leases, &self.slots).hash(state);
        (&self.carried, self.budget.waiting()).hash(state);
        (&self.detours, &self.members, &self.merge).hash(state);
        (&self.edges, &self.former, &self.access, self.role, self.serving).hash(state);
        self.hops.hash_waiting(state);
        self.table.iter().for_each(|peer| peer.hash(state));
        for (timer, at) in self.deadlines.iter().filter(|&(timer, _)| !self.is_left_out(timer)) {
            (timer, at).hash(state);
        }
    }

    fn is_left_out(&self, timer: Timer) -> bool {
        timer == Timer::Sweep
            || timer == Timer::Proximity
            || timer == Timer::AskAgain && !self.leaf_set.is_empty()
    }

    /// Hops that this node has taken over, and would not take again: who handed them over, and their numbers.
    pub fn taken_hops(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.hops.taken()
    }
}

//! What a node takes at rest, and what it gives back to get there.

use super::Node;
use crate::memory::{self, Memory};

impl Node {
    /// Bytes of this node by part, inline ones included, by its own count. Payloads held are counted by their length. The
    /// shared configuration is not counted.
    pub fn memory(&self) -> Memory {
        let seeds = [&self.bootstrap.join, &self.bootstrap.local, &self.bootstrap.remembered];
        let queues =
            memory::queue(&self.queued) + memory::queue(&self.transmits) + memory::queue(&self.events);
        let mut parts = Memory::default();
        parts.add("inline", size_of::<Node>());
        parts.add("leaf set", self.leaf_set.bytes() + memory::list(&self.spare));
        parts.add("routing table", self.table.bytes());
        parts.add("neighbourhood", self.neighbourhood.bytes());
        parts.add("proximity", self.proximity.bytes());
        parts.add("liveness", self.liveness.bytes());
        parts.add("tuning", self.tuning.bytes());
        parts.add("leases", self.leases.bytes() + self.carried.bytes());
        parts.add("budget", self.budget.bytes());
        parts.add("deadlines", self.deadlines.bytes());
        parts.add("detours", self.detours.bytes());
        parts.add("hops", self.hops.bytes());
        parts.add("lookups", self.lookups.bytes());
        parts.add("broadcasts", self.broadcasts.bytes());
        parts.add("edges", self.edges.bytes() + self.access.bytes());
        parts.add("members", self.members.bytes());
        parts.add("former", self.former.bytes() + seeds.into_iter().map(memory::list).sum::<usize>());
        parts.add("queues", queues);
        parts
    }

    /// Gives back what bursts have taken, and forgets what was seen long ago.
    pub(super) fn give_back(&mut self) {
        self.queued.shrink_to_fit();
        self.transmits.shrink_to_fit();
        self.events.shrink_to_fit();
        self.hops.tidy();
        self.budget.tidy();
        self.broadcasts.tidy();
        self.lookups.tidy();
        self.edges.tidy();
        self.members.tidy();
    }
}

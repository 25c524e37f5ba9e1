//! Rare events, which must happen somewhere among many worlds.

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::id::NodeId;
use treecast_overlay::machine::Machine;
use treecast_overlay::wire::NodeState;
use treecast_scribe::TopicId;

use super::Cluster;
use crate::check;
use crate::node::RingNode;

/// Roots, leases and lonely nodes as they were last seen.
#[derive(Default)]
pub(super) struct Known {
    roots: BTreeMap<TopicId, NodeId>,
    /// Nodes that answer for their ids, and between whom.
    serving: BTreeMap<NodeId, [Option<NodeId>; 2]>,
    /// Nodes on the ring that know of nobody.
    alone: BTreeSet<NodeId>,
    /// There was a ring of several once.
    was_ring: bool,
}

impl<N: RingNode> Cluster<N> {
    /// Counts an event.
    pub fn count(&mut self, event: &'static str, times: u64) {
        *self.events.entry(event).or_default() += times;
    }

    /// Counts the nodes that lost their leases while they stood on the ring, between the same neighbours as before: by
    /// others that come and go, one lacks a lease for a moment, too.
    pub(super) fn notice_demotions(&mut self) {
        let (mut serving, mut demoted) = (BTreeMap::new(), 0);
        for (slot, stack) in self.stacks() {
            let (id, ring) = (stack.peer().id, stack.ring());
            let between = ring.neighbours().map(|end| end.map(|peer| peer.id));
            if ring.is_root_of(self.world.local_time(slot), id.key()) {
                serving.insert(id, between);
            } else if ring.node_state() == NodeState::Ready && self.known.serving.get(&id) == Some(&between) {
                demoted += 1;
            }
        }
        self.known.serving = serving;
        self.count("demotion", demoted);
    }

    /// Counts new roots, and nodes that were alone and are not any more.
    pub(super) fn notice(&mut self) {
        let mut roots = BTreeMap::new();
        let (mut alone, mut together) = (BTreeSet::new(), BTreeSet::new());
        for (_, stack) in self.stacks() {
            let id = stack.peer().id;
            let trees = stack.forest().trees();
            roots.extend(trees.iter().filter(|tree| tree.is_root).map(|tree| (tree.topic, id)));
            if stack.ring().node_state() == NodeState::Ready {
                let set = if stack.ring().is_alone() { &mut alone } else { &mut together };
                set.insert(id);
            }
        }
        let known = |topic: &TopicId, id: &NodeId| self.known.roots.get(topic).is_some_and(|old| old != id);
        let changed = roots.iter().filter(|(topic, id)| known(topic, id)).count() as u64;
        // The first of a ring was alone, too, before the second came.
        let begun = self.known.was_ring;
        let merged = self.known.alone.intersection(&together).filter(|_| begun).count() as u64;
        self.known.was_ring |= together.len() > 2;
        self.known.roots.extend(roots);
        self.known.alone = alone;
        self.count("root change", changed);
        self.count("merge", merged);
        if self.watch.merging && self.judge(&[], check::o3::judge).is_ok() {
            self.watch.merging = false;
        }
    }
}

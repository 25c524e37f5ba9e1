//! Judges look at a cluster.

use treecast_overlay::id::Key;

use super::Cluster;
use crate::check::{self, FanOut, Scene, Seen, Verdict, When};
use crate::node::RingNode;

impl<N: RingNode> Cluster<N> {
    /// Has a judge look at the nodes that live, and at all that is known.
    pub fn judge<T>(&self, keys: &[Key], judge: impl FnOnce(&Scene<'_>) -> T) -> T {
        let seen = self.stacks().map(|(slot, stack)| Seen {
            slot,
            runs: self.world.is_running(slot),
            clock: self.world.local_time(slot),
            node: stack.ring(),
            forest: Some(stack.forest()),
        });
        judge(&Scene {
            now: self.now(),
            nodes: seen.collect(),
            keys,
            watch: &self.watch,
            lookups: &self.lookups,
            witness: &self.witness.borrow(),
            history: &self.history,
            limits: &self.limits,
            calm: self.calm,
            beat: self.scribe.beat.every,
            fan_out: FanOut {
                tree: self.scribe.tree.children_per_tree,
                node: self.scribe.tree.children_per_node,
            },
        })
    }

    /// Whether all nodes that live are on one ring, and every lookup is answered (promises O3, O4).
    pub fn is_one_ring(&self) -> Verdict {
        self.judge(&[], |scene| check::o3::judge(scene).and_then(|()| check::o4::judge_open(scene)))
    }

    /// Whether every subscriber is attached, and parents and children agree (promise S1).
    pub fn is_attached(&self) -> Verdict {
        self.judge(&[], check::s1::judge)
    }

    /// Whether no node has more children than it may, nor forwards for one child only (promise S1).
    pub fn is_shapely(&self) -> Verdict {
        self.judge(&[], |scene| check::ask(When::Shaped, scene))
    }

    /// Whether all that was published has been answered (promise S4).
    pub fn is_answered(&self) -> Verdict {
        self.judge(&[], check::s4::judge_open)
    }

    /// Whether all that was published has been answered, and all that was delivered or acknowledged has come to
    /// every subscriber, or was announced to it as lost.
    pub fn is_delivered(&self) -> Verdict {
        self.judge(&[], |scene| check::s4::judge_open(scene).and_then(|()| check::s5::judge(scene)))
    }

    /// Whether all promises are kept that hold once nothing fails any more.
    pub fn is_well(&self) -> Verdict {
        self.judge(&[], |scene| check::ask(When::Recovered, scene))
    }

    /// Whether what was delivered and acknowledged is right, over all that happened.
    pub fn review(&self) -> Verdict {
        self.judge(&[], |scene| check::ask(When::EachRound, scene))
    }
}

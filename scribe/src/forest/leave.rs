//! A node that dies, a connection that breaks, and this node's own end.

use treecast_overlay::deadlines::Deadlines;
use treecast_overlay::id::NodeId;

use super::Forest;
use super::context::{Context, Life, Timer};
use super::links::Waiting;
use super::neighbours::Link;
use super::tree::ParentLost;
use super::tree::role::Role;

impl Forest {
    /// A node was found dead, or has left the ring.
    pub fn handle_peer_down(&mut self, cx: Context<'_>, peer: NodeId) {
        self.lose_parents(cx, peer, ParentLost::PeerDown);
        self.drop_children(cx, peer);
        self.links.on_down(peer);
        let over = self.handoffs.on_peer_down(&mut self.deadlines, peer);
        self.on_transfers_over(cx, over);
        self.for_each_tree(cx, |tree, cx| tree.stop_awaiting(cx, peer));
        self.trees.values_mut().for_each(|tree| tree.role.forget_root(peer));
        for topic in self.publishers.topics() {
            self.publishers.on_peer_down(topic, peer);
            self.send_published(cx, topic);
        }
        self.drain_loopback(cx);
    }

    /// A connection broke: a hint, not a verdict. A node that hung on it looks for another way up at once.
    pub fn handle_link_down(&mut self, cx: Context<'_>, peer: NodeId) {
        let waiting = self.links.on_down(peer);
        self.push_waiting(cx, waiting);
        self.lose_parents(cx, peer, ParentLost::LinkDown);
        self.drain_loopback(cx);
    }

    /// The transport says how much waits for a peer.
    pub fn handle_queued(&mut self, cx: Context<'_>, peer: NodeId, bytes: usize) {
        let waiting = self.links.on_queued(peer, bytes, self.config.high_water);
        self.push_waiting(cx, waiting);
        self.drain_loopback(cx);
    }

    fn push_waiting(&mut self, cx: Context<'_>, waiting: Waiting) {
        for (topic, child) in waiting {
            self.with_tree(cx, topic, |tree, cx| tree.on_link_free(cx, child));
        }
    }

    /// All trees in which a node is the parent lose it.
    pub(super) fn lose_parents(&mut self, cx: Context<'_>, parent: NodeId, reason: ParentLost) {
        for topic in self.neighbours.topics(parent, Link::Parent) {
            self.with_tree(cx, topic, |tree, cx| tree.on_parent_lost(cx, reason));
        }
    }

    /// All trees in which a node is a child let it go.
    pub(super) fn drop_children(&mut self, cx: Context<'_>, child: NodeId) {
        for topic in self.neighbours.topics(child, Link::Child) {
            self.with_tree(cx, topic, |tree, cx| tree.remove_child(cx, child));
        }
    }

    /// Leaves all trees: logs are handed over first. [`has_left`](Forest::has_left) says when the ring may be left.
    pub fn leave(&mut self, cx: Context<'_>) {
        if self.life != Life::Running {
            return;
        }
        self.stop_publishers();
        self.topics.clear();
        self.life = Life::Leaving;
        self.for_each_tree(cx, |tree, cx| {
            tree.drop_subscribers(cx);
            let around = cx.ring.replica_set(cx.topic.key(), 2);
            let successor = around.into_iter().find(|peer| peer.id != cx.me);
            if let (Role::Root(_), Some(successor)) = (&tree.role, successor) {
                tree.step_down(cx, successor.into());
            }
        });
        if self.handoffs.is_done() {
            self.finish_leaving(cx);
        } else {
            self.deadlines.set(Timer::Leave, cx.now + self.config.leave_timeout);
        }
        self.drain_loopback(cx);
    }

    /// Handoffs have come to their end: if they were the last ones, a node that leaves has nothing more to do.
    pub(super) fn on_transfers_over(&mut self, cx: Context<'_>, over: bool) {
        if over && self.handoffs.is_done() {
            self.finish_leaving(cx);
        }
    }

    /// Says goodbye to parents and children, so that they look for others at once.
    pub(super) fn finish_leaving(&mut self, cx: Context<'_>) {
        if self.life != Life::Leaving {
            return;
        }
        for topic in self.topic_ids() {
            self.remove_tree(cx, topic);
        }
        self.end();
    }

    /// The ring is left, or has thrown this node out: nothing goes on.
    pub fn handle_stopped(&mut self) {
        self.stop_publishers();
        self.end();
    }

    fn end(&mut self) {
        self.life = Life::Left;
        self.deadlines = Deadlines::default();
        self.beat_at = None;
    }

    /// Whether [`leave`](Forest::leave) has done its work: the ring may be left.
    pub fn has_left(&self) -> bool {
        self.life == Life::Left
    }
}

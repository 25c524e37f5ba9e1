//! Topics of which this node is the root, or is taken for it.

use bytes::Bytes;

use super::Forest;
use super::context::{Context, LifeStage};
use super::dispatch::Way;
use super::tree::Outcome;
use super::tree::positions::refuse;
use crate::topic::TopicId;
use crate::wire::{self, Header, Publish, RefusedReason};

impl Forest {
    /// A message asks for its position.
    pub(super) fn on_publish(&mut self, cx: Context<'_>, mut publish: Publish, payload: Bytes, way: Way) {
        let topic = publish.topic;
        // The overlay made a hop again: that is as good as a publisher that sends again.
        publish.resent |= way == Way::Delivered { repeated: true };
        // A root that leaves goes on until others hold its log.
        let serves =
            self.trees.get(&topic).is_some_and(|tree| tree.role.is_root() && !tree.role.is_preparing());
        if self.life == LifeStage::Left || (self.life == LifeStage::Leaving && !serves) {
            return;
        }
        self.with_tree(cx, topic, |tree, cx| tree.review_place(cx));
        if !cx.ring.is_root_of(cx.now, topic.key()) {
            // Its publisher took this node for the root: it goes on from here. A routed one was too late by a moment
            // and is sent again.
            if way == Way::Sent && !self.is_suspended(cx, topic) {
                self.out.route(topic, wire::encode(&Header::Publish(publish), &payload));
            }
        } else if self.ensure_tree(cx.now, topic) {
            self.with_tree(cx, topic, |tree, cx| tree.on_publish(cx, publish, payload));
        } else {
            let (_, mut tree_cx) = self.split(cx, topic);
            refuse(&mut tree_cx, &publish, RefusedReason::Full);
        }
    }

    /// Whether this node is the root but for leases that do not run.
    fn is_suspended(&self, cx: Context<'_>, topic: TopicId) -> bool {
        let root = self.trees.get(&topic).is_some_and(|tree| tree.role.is_root());
        root && cx.ring.replica_set(topic.key(), 1).first().is_none_or(|peer| peer.id == self.me)
    }

    /// A root that no node uses is dropped, sessions that no publisher uses are forgotten, and a change in the ring of
    /// which no event told is noticed.
    pub(super) fn look_after_root(&mut self, cx: Context<'_>, topic: TopicId) {
        let outcome = self.with_tree(cx, topic, |tree, cx| {
            tree.review_place(cx);
            tree.look_after_root(cx)
        });
        if outcome == Some(Outcome::Leave) {
            self.remove_tree(cx, topic);
        }
    }
}

//! This node's own subscriptions, by their names.

use super::Forest;
use super::context::{Context, Life};
use crate::event::{Event, SubscriptionId};
use crate::message::{Start, SubscribeError};
use crate::topic::TopicId;

impl Forest {
    /// Subscribes. Answered by [`Event::Subscribed`] once the start is known, else by [`Event::SubscribeFailed`].
    pub fn subscribe(
        &mut self,
        cx: Context<'_>,
        id: SubscriptionId,
        topic: TopicId,
        start: Start,
        credit: u32,
    ) {
        if self.life != Life::Running {
            return self.fail_subscription(id, SubscribeError::Stopped);
        }
        let new = !self.trees.contains_key(&topic);
        if !self.ensure_tree(cx, topic) {
            let limit = self.config.max_trees;
            return self.fail_subscription(id, SubscribeError::TooManyTopics { limit });
        }
        self.topics.insert(id, topic);
        self.with_tree(cx, topic, |tree, cx| tree.subscribe(cx, id, start, credit, new));
        self.drain_loopback(cx);
    }

    /// The subscriber takes so many items more.
    pub fn add_credit(&mut self, cx: Context<'_>, id: SubscriptionId, items: u32) {
        let Some(&topic) = self.topics.get(&id) else { return };
        self.with_tree(cx, topic, |tree, cx| tree.add_credit(cx, id, items));
        self.drain_loopback(cx);
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, cx: Context<'_>, id: SubscriptionId) {
        let Some(topic) = self.topics.remove(&id) else { return };
        self.with_tree(cx, topic, |tree, cx| tree.unsubscribe(cx, id));
        self.drain_loopback(cx);
    }

    /// A subscription got no start in time, and its tree has let it go.
    pub(super) fn on_no_start(&mut self, id: SubscriptionId) {
        self.topics.remove(&id);
        self.fail_subscription(id, SubscribeError::TimedOut(self.config.subscribe_timeout));
    }

    fn fail_subscription(&mut self, subscription: SubscriptionId, error: SubscribeError) {
        self.out.event(Event::SubscribeFailed { subscription, error });
    }
}

//! The publishers of a node: their messages on the way to the root, and what became of them.

mod round_trip;
mod topic;

use std::collections::BTreeMap;

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::memory;
use treecast_overlay::time::Instant;

pub(crate) use self::topic::{Outgoing, TopicPublisher};
use crate::config::Config;
use crate::event::Token;
use crate::message::PublishError;
use crate::topic::TopicId;

/// Messages that failed, and why.
pub(crate) type Failures = Vec<(Token, PublishError)>;

/// One publisher for each topic.
#[derive(Debug, Default)]
pub(crate) struct Publishers {
    by_topic: BTreeMap<TopicId, TopicPublisher>,
}

impl Publishers {
    /// Takes a message, or says why not. `new`: the publisher that begins if there is none on the topic.
    pub(crate) fn offer(
        &mut self,
        now: Instant,
        config: &Config,
        topic: TopicId,
        new: impl FnOnce() -> TopicPublisher,
        message: (Token, Bytes),
    ) -> Result<(), PublishError> {
        let publisher = self.by_topic.entry(topic).or_insert_with(new);
        publisher.offer(now, config, message.0, message.1)
    }

    /// Whether a message on a topic would be one on a topic too many.
    pub(crate) fn is_full(&self, config: &Config, topic: TopicId) -> bool {
        !self.by_topic.contains_key(&topic) && self.by_topic.len() >= config.max_publishers
    }

    /// The topics, in order.
    pub(crate) fn topics(&self) -> Vec<TopicId> {
        self.by_topic.keys().copied().collect()
    }

    pub(crate) fn get_mut(&mut self, topic: TopicId) -> Option<&mut TopicPublisher> {
        self.by_topic.get_mut(&topic)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// A node is down, which may have been the root of a topic.
    pub(crate) fn on_peer_down(&mut self, topic: TopicId, peer: NodeId) {
        if let Some(publisher) = self.by_topic.get_mut(&topic) {
            publisher.on_peer_down(peer);
        }
    }

    /// Forgets those that have nothing to send, and were last used before this.
    pub(crate) fn expire(&mut self, limit: Instant) {
        self.by_topic.retain(|_, publisher| !publisher.is_idle() || publisher.used() >= limit);
    }

    /// Ends all of them. Returns what waited, with its fate.
    pub(crate) fn stop(&mut self) -> Failures {
        std::mem::take(&mut self.by_topic).into_values().flat_map(TopicPublisher::stop).collect()
    }

    /// How many there are, and what waits at each, beside the limits (promise O5).
    pub(crate) fn sizes(&self, config: &Config) -> Vec<(&'static str, usize, usize)> {
        let mut sizes = vec![("publishers", self.by_topic.len(), config.max_publishers)];
        sizes.extend(self.by_topic.values().flat_map(|publisher| publisher.sizes(config)));
        sizes
    }

    /// Heap bytes of the table.
    pub(crate) fn weight(&self) -> usize {
        memory::tree(self.by_topic.len(), size_of::<(TopicId, TopicPublisher)>())
    }
}

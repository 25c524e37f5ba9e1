//! A subscription as a stream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Scribe;
use crate::event::SubscriptionId;
use crate::message::{Item, Mark};
use crate::topic::Topic;

/// The messages of a topic, in the order of its log, with explicit notices where something is missing or the
/// tree has changed. Dropping it leaves the topic.
///
/// It holds at most [`Builder::queue`](super::Builder::queue) items. A subscriber that reads slowly slows the topic's
/// publishers, and loses nothing; one that reads nothing for two seconds
/// ([`AdmissionConfig::patience`](crate::config::AdmissionConfig::patience)) slows no other any more, but falls out of
/// the topic's window in the end, and is told so by an [`Item::Gap`]. As long as it lives, so does its node.
#[derive(Debug)]
pub struct Subscription {
    topic: Topic,
    mark: Mark,
    items: mpsc::Receiver<Item>,
    /// Consumed, and not yet reported to the core.
    consumed: u32,
    batch: u32,
    /// When that was last reported.
    reported: Instant,
    guard: SubscriptionGuard,
}

/// How long what a subscriber has consumed goes unreported at most: far below the patience that others have with it.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// A place in the dispatch tables; gives itself up when dropped.
#[derive(Debug)]
pub(super) struct SubscriptionGuard {
    pub(super) id: SubscriptionId,
    pub(super) node: Scribe,
}

impl Drop for SubscriptionGuard {
    fn drop(&mut self) {
        self.node.dispatch().abandon(self.id);
    }
}

impl Subscription {
    pub(super) fn new(
        topic: Topic,
        mark: Mark,
        items: mpsc::Receiver<Item>,
        guard: SubscriptionGuard,
    ) -> Subscription {
        // Credit goes back in batches of half the queue: few commands, and the core never runs dry meanwhile.
        let batch = u32::try_from(items.max_capacity() / 2).unwrap_or(u32::MAX).max(1);
        Subscription { topic, mark, items, consumed: 0, batch, reported: Instant::now(), guard }
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// How far this subscriber has come: store it, and go on later with
    /// [`Scribe::subscribe_from`] and [`Start::After`](crate::message::Start::After).
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// The next message or notice; `None` once the node has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<Item> {
        std::future::poll_fn(|cx| self.poll_item(cx)).await
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let item = std::task::ready!(self.items.poll_recv(cx));
        if let Some(item) = &item {
            self.on_item(item);
        }
        Poll::Ready(item)
    }

    fn on_item(&mut self, item: &Item) {
        match item {
            Item::Message(message) => self.mark = message.mark,
            Item::Gap(_) | Item::ParentChanged(_) => {}
        }
        self.consumed += 1;
        // Also of a slow subscriber: by its credit the topic's root knows that it goes on reading.
        if self.consumed >= self.batch || self.reported.elapsed() >= REPORT_EVERY {
            self.guard.node.dispatch().owe_credit(self.guard.id, self.consumed);
            self.consumed = 0;
            self.reported = Instant::now();
        }
    }
}

impl Stream for Subscription {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.poll_item(cx)
    }
}

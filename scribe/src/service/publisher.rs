//! Publishing on one topic, with many messages in flight.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::Scribe;
use super::dispatch::Waiting;
use crate::config::Config;
use crate::event::Command;
use crate::message::{PublishError, Receipt};
use crate::topic::{Topic, TopicId};

/// Publishes on one topic. Messages get their places in the order of the calls to [`send`](Publisher::send).
#[derive(Clone, Debug)]
pub struct Publisher {
    node: Scribe,
    topic: Topic,
    flight: Arc<Flight>,
}

impl Publisher {
    pub(super) fn new(node: Scribe, topic: Topic) -> Publisher {
        let flight = node.flights().of(topic.id());
        Publisher { node, topic, flight }
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Sends a message off, and returns as soon as it is on its way: its receipt is awaited separately, so that many
    /// messages can be in flight. Waits while as many as may be already are.
    ///
    /// A message that was sent off arrives whether or not its receipt is awaited. Cancelled before it returns, the
    /// message was not sent.
    pub async fn send(&self, payload: impl Into<Bytes>) -> Result<PendingReceipt, PublishError> {
        let payload = payload.into();
        let permit = self.flight.clone().acquire(payload.len()).await;
        let token = self.node.token();
        let (answer, receipt) = oneshot::channel();
        let waiting = Waiting::Publish { answer, permit };
        let entered = self.node.dispatch().enter(token, waiting).ok_or(PublishError::Stopped)?;
        let publish = Command::Publish { token, topic: self.topic.clone(), payload };
        self.node.driver().send(publish).await.map_err(|_| PublishError::Stopped)?;
        entered.keep();
        Ok(PendingReceipt(receipt))
    }
}

/// A receipt that is on its way: `.await` it.
#[derive(Debug)]
#[must_use = "a message without its receipt may be lost: await it"]
pub struct PendingReceipt(oneshot::Receiver<Result<Receipt, PublishError>>);

impl Future for PendingReceipt {
    type Output = Result<Receipt, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|answer| answer.unwrap_or(Err(PublishError::Stopped)))
    }
}

/// How much of each topic is in flight. All publishers of one topic at one node share the core's limits; a publisher
/// that waits here is never told `Busy` there.
#[derive(Debug)]
pub(super) struct Flights {
    messages: usize,
    kibibytes: u32,
    by_topic: Mutex<BTreeMap<TopicId, Weak<Flight>>>,
}

/// The messages in flight on one topic.
#[derive(Debug)]
pub(super) struct Flight {
    messages: Arc<Semaphore>,
    kibibytes: Arc<Semaphore>,
    all_kibibytes: u32,
}

/// One message's share of its topic's flight, until its receipt has come.
#[derive(Debug)]
pub(super) struct FlightPermit {
    _flight: Arc<Flight>,
    _permits: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl Flights {
    pub(super) fn new(config: &Config) -> Flights {
        // Messages beyond two flights would only wait longer in the core.
        let queue = config.publish.queue.min(config.publish.messages);
        let messages = config.publish.messages.saturating_add(queue).min(Semaphore::MAX_PERMITS);
        let kibibytes = u32::try_from(config.publish.queue_bytes / 1024).unwrap_or(u32::MAX).max(1);
        Flights { messages, kibibytes, by_topic: Mutex::default() }
    }

    fn of(&self, topic: TopicId) -> Arc<Flight> {
        let mut by_topic = self.by_topic.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = by_topic.get(&topic).and_then(Weak::upgrade) {
            return flight;
        }
        // A topic's entry outlives its last publisher only until the next topic comes; a message in flight keeps
        // its flight alive, and so the count right.
        by_topic.retain(|_, flight| flight.strong_count() > 0);
        let flight = Arc::new(Flight {
            messages: Arc::new(Semaphore::new(self.messages)),
            kibibytes: Arc::new(Semaphore::new(self.kibibytes as usize)),
            all_kibibytes: self.kibibytes,
        });
        by_topic.insert(topic, Arc::downgrade(&flight));
        flight
    }
}

impl Flight {
    /// Waits for a message's turn, first come, first served.
    async fn acquire(self: Arc<Flight>, len: usize) -> FlightPermit {
        let kibibytes = u32::try_from(len.div_ceil(1024)).unwrap_or(u32::MAX).clamp(1, self.all_kibibytes);
        let message = self.messages.clone().acquire_owned().await;
        let size = self.kibibytes.clone().acquire_many_owned(kibibytes).await;
        // These semaphores are never closed; if one were, the core's own limits would hold.
        FlightPermit { _permits: message.ok().zip(size.ok()), _flight: self }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use treecast_overlay::id::Key;

    use super::*;
    use crate::config::PublishConfig;

    fn topic(n: u128) -> TopicId {
        TopicId(Key(n))
    }

    #[test]
    fn publishers_of_one_topic_share_its_limit_also_after_the_last_was_dropped() {
        let config = Config {
            publish: PublishConfig { messages: 1, queue: 1, ..PublishConfig::default() },
            ..Config::default()
        };
        let flights = Flights::new(&config);
        let first = flights.of(topic(1)).acquire(1).now_or_never();
        let second = flights.of(topic(1)).acquire(1).now_or_never();
        assert!(first.is_some() && second.is_some());
        assert!(flights.of(topic(1)).acquire(1).now_or_never().is_none());
        assert!(flights.of(topic(2)).acquire(1).now_or_never().is_some());
        drop(first);
        assert!(flights.of(topic(1)).acquire(1).now_or_never().is_some());
        drop(second);
        flights.of(topic(3));
        assert_eq!(flights.by_topic.lock().unwrap().len(), 1);
    }

    #[test]
    fn large_messages_wait_for_room_and_the_largest_flies_alone() {
        let config = Config {
            publish: PublishConfig { queue_bytes: 4096, ..PublishConfig::default() },
            ..Config::default()
        };
        let flights = Flights::new(&config);
        let small = flights.of(topic(1)).acquire(1).now_or_never();
        assert!(flights.of(topic(1)).acquire(1 << 20).now_or_never().is_none());
        drop(small);
        assert!(flights.of(topic(1)).acquire(1 << 20).now_or_never().is_some());
    }
}

//! The library face: a node as a handle, subscriptions as streams, publishers, receipts.
//!
//! ```no_run
//! use treecast_scribe::{Item, Scribe};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Scribe::builder().join("127.0.0.1:4848").start().await?;
//! let mut news = node.subscribe("rust/news").await?;
//! let receipt = node.publish("rust/news", "it compiles").await?;
//! println!("{} listeners, {} copies", receipt.listeners, receipt.copies);
//! while let Some(item) = news.next().await {
//!     match item {
//!         Item::Message(message) => println!("{:?}", message.payload),
//!         Item::Gap(gap) => println!("messages are missing: {:?}", gap.reason),
//!         Item::ParentChanged(_) => {}
//!     }
//! }
//! # Ok(()) }
//! ```

mod broadcasts;
mod builder;
mod dispatch;
mod supervisor;
mod publisher;
mod subscription;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::Found;
use treecast_overlay::net::driver;
use treecast_overlay::peer::{Addr, Contact, Peer, Seed};
use treecast_overlay::wire::RouteFailure;

pub use self::broadcasts::{Broadcast, Broadcasts};
pub use self::builder::{Builder, IntoSeed, StartError};
pub use self::publisher::{PendingReceipt, Publisher};
pub use self::subscription::Subscription;

use self::dispatch::{Dispatch, Subscriber, Waiting};
use self::publisher::Flights;
use self::subscription::SubscriptionGuard;
use crate::event::{Command, Status, SubscriptionId, Token, TopicStatus};
use crate::message::{BroadcastError, PublishError, Receipt, Start, SubscribeError};
use crate::topic::{Topic, TopicError};

/// Most lookups, traces, broadcasts and status questions that wait for their answers at once; further callers queue up.
const MAX_QUESTIONS: usize = 256;

/// A node of a Treecast network: a handle, cheap to clone. The node ends with [`shutdown`](Scribe::shutdown), or when
/// the last of its handles, subscriptions and publishers is dropped.
#[derive(Clone)]
pub struct Scribe {
    handle: Arc<Handle>,
}

/// The state that all clones share. Dropping it tells the supervisor to leave.
struct Handle {
    peer: Peer,
    driver: driver::Handle<Command>,
    dispatch: Arc<Dispatch>,
    flights: Flights,
    questions: Arc<Semaphore>,
    queue: usize,
    names: AtomicU64,
    leave: watch::Sender<bool>,
    ended: watch::Receiver<bool>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.leave.send_replace(true);
    }
}

impl fmt::Debug for Scribe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scribe({})", self.id())
    }
}

/// Why a node has stopped.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Stopped {
    /// It was told to.
    #[error("it was shut down")]
    Shutdown,
    /// A newer start of the same identity is on the ring.
    #[error(
        "another process runs with this node's identity (since {by} ms after 1970): stop one, or use another data directory"
    )]
    Superseded {
        /// The other's incarnation.
        by: u64,
    },
    /// Its driver ended unasked: a bug, or the runtime is shutting down.
    #[error("its tasks ended unexpectedly")]
    Crashed,
}

/// Why a node did not do what it was asked to.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// No topic can have this name.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// There is no receipt.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The subscription did not come about.
    #[error(transparent)]
    Subscribe(#[from] SubscribeError),
    /// There is no answer.
    #[error(transparent)]
    Lookup(#[from] LookupError),
}

/// Why a lookup has no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LookupError {
    /// No node answered for the key.
    #[error("no root of key {key} was found: {}", why(.reason))]
    NotFound {
        /// The key.
        key: Key,
        /// Why, by the last attempt; `None`: no word came back.
        reason: Option<RouteFailure>,
    },
    /// The node is shutting down or has stopped.
    #[error("the node has stopped")]
    Stopped,
}

fn why(reason: &Option<RouteFailure>) -> &'static str {
    match reason {
        None => "no word came back",
        Some(RouteFailure::HopLimit) => "the question made 64 hops",
        Some(RouteFailure::NoRoute) => "no live next hop was left",
        Some(RouteFailure::Overloaded) => "a node on the way was full",
        Some(RouteFailure::NoRoot) => "the ring has nobody who answers for it at the moment",
    }
}

/// A name of a topic: its text, or a [`Topic`] that was made from it before.
pub trait IntoTopic {
    /// The topic, or what is wrong with its name.
    fn into_topic(self) -> Result<Topic, TopicError>;
}

impl IntoTopic for &str {
    fn into_topic(self) -> Result<Topic, TopicError> {
        Topic::new(self)
    }
}

impl IntoTopic for &String {
    fn into_topic(self) -> Result<Topic, TopicError> {
        Topic::new(self)
    }
}

impl IntoTopic for Topic {
    fn into_topic(self) -> Result<Topic, TopicError> {
        Ok(self)
    }
}

impl IntoTopic for &Topic {
    fn into_topic(self) -> Result<Topic, TopicError> {
        Ok(self.clone())
    }
}

impl Scribe {
    /// A node to be: see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.handle.peer.id
    }

    /// Where others dial this node; if it listens at all addresses (`0.0.0.0`), the one towards the internet.
    pub fn addr(&self) -> Addr {
        self.handle.peer.addr
    }

    /// The ticket that others join by: id and address. Its text form is a ticket, `ID@HOST:PORT`.
    pub fn ticket(&self) -> Seed {
        Seed { addr: self.addr(), id: Some(self.id()) }
    }

    /// How others reach this node now: an edge has an access node, until it becomes a ring node.
    pub fn contact(&self) -> Contact {
        *self.handle.dispatch.contact.borrow()
    }

    /// [`contact`](Scribe::contact) and its changes.
    pub fn contacts(&self) -> watch::Receiver<Contact> {
        self.handle.dispatch.contact.subscribe()
    }

    /// Subscribes from now on: whatever is published on the topic after this returns will be delivered, or announced
    /// as a gap.
    pub async fn subscribe(&self, topic: impl IntoTopic) -> Result<Subscription, Error> {
        self.subscribe_from(topic, Start::Latest).await
    }

    /// Subscribes from a chosen place: what is published from now on, what is still kept ([`Start::Earliest`],
    /// [`Start::Last`]), or what follows a stored [`mark`](Subscription::mark) ([`Start::After`]). Returns when the place is
    /// known; what is kept and what is new then come in one order, without a seam.
    ///
    /// After a mark, nothing comes twice, and nothing is left out silently: what is no longer kept is announced as an
    /// [`Item::Gap`](crate::message::Item::Gap). How much is kept is the business of the nodes around; a node that is new on
    /// the topic's tree asks its parent for it.
    pub async fn subscribe_from(&self, topic: impl IntoTopic, start: Start) -> Result<Subscription, Error> {
        let topic = topic.into_topic()?;
        let guard = SubscriptionGuard { id: SubscriptionId(self.name()), node: self.clone() };
        let (items, receiver) = mpsc::channel(self.handle.queue);
        let (confirm, confirmed) = oneshot::channel();
        let credit = u32::try_from(self.handle.queue).unwrap_or(u32::MAX);
        if !self.dispatch().enter_subscription(guard.id, Subscriber { items, confirm: Some(confirm) }) {
            return Err(SubscribeError::Stopped.into());
        }
        let subscribe = Command::Subscribe { subscription: guard.id, topic: topic.clone(), start, credit };
        self.driver().send(subscribe).await.map_err(|_| SubscribeError::Stopped)?;
        let mark = confirmed.await.unwrap_or(Err(SubscribeError::Stopped))?;
        Ok(Subscription::new(topic, mark, receiver, guard))
    }

    /// Publishes one message and waits for its receipt. To have many in flight, take a
    /// [`publisher`](Scribe::publisher).
    pub async fn publish(&self, topic: impl IntoTopic, payload: impl Into<Bytes>) -> Result<Receipt, Error> {
        Ok(self.publisher(topic)?.send(payload).await?.await?)
    }

    /// A publisher on one topic.
    pub fn publisher(&self, topic: impl IntoTopic) -> Result<Publisher, TopicError> {
        Ok(Publisher::new(self.clone(), topic.into_topic()?))
    }

    /// Tells every node of the ring something, and the edges that are attached to them; this node excepted. Listeners
    /// hear it by [`broadcasts`](Scribe::broadcasts).
    ///
    /// Best effort: there is no order, no receipt of those who got it, and nothing is kept for a node that comes later or
    /// was cut off. To be sure of each message, publish on a topic. `Ok` says that the message has left this node: the
    /// nodes that it was given to first have it, and give it on.
    pub async fn broadcast(&self, payload: impl Into<Bytes>) -> Result<(), BroadcastError> {
        let payload = payload.into();
        let (answer, outcome) = oneshot::channel();
        let waiting = |permit| Waiting::Broadcast { answer, permit };
        let asked = self.ask(waiting, |token| Command::Broadcast { token, payload }).await;
        asked.ok_or(BroadcastError::Stopped)?;
        outcome.await.unwrap_or(Err(BroadcastError::Stopped))
    }

    /// A reader of what other nodes [`broadcast`](Scribe::broadcast) from now on. Each call gives a reader of its own.
    pub fn broadcasts(&self) -> Broadcasts {
        Broadcasts::new(self.clone(), self.handle.queue)
    }

    /// Finds the root of this key.
    pub async fn lookup(&self, key: Key) -> Result<Found, LookupError> {
        self.find(key, false).await
    }

    /// Finds the root of this key, and the way to it. The answer has the path.
    pub async fn trace(&self, key: Key) -> Result<Found, LookupError> {
        self.find(key, true).await
    }

    /// [`trace`](Scribe::trace) to the root of a topic.
    pub async fn trace_topic(&self, topic: impl IntoTopic) -> Result<Found, Error> {
        Ok(self.find(topic.into_topic()?.id().key(), true).await?)
    }

    async fn find(&self, key: Key, trace: bool) -> Result<Found, LookupError> {
        let (answer, found) = oneshot::channel();
        let waiting = |permit| Waiting::Lookup { answer, permit };
        let asked = self.ask(waiting, |token| Command::Lookup { token, key, trace }).await;
        asked.ok_or(LookupError::Stopped)?;
        let answer = found.await.map_err(|_| LookupError::Stopped)?;
        answer.map_err(|reason| LookupError::NotFound { key, reason })
    }

    /// How this node is: its place, its neighbours, its trees. `None` once it has stopped.
    pub async fn status(&self) -> Option<Status> {
        let (answer, status) = oneshot::channel();
        self.ask(|permit| Waiting::Status { answer, permit: Some(permit) }, Command::Status).await?;
        status.await.ok()
    }

    /// The state of a topic, as this node itself knows it: as its root all that there is, as a subscriber or
    /// forwarder as far as it was told. `None`: it is not on the topic's tree, or has stopped. No other node is asked.
    pub async fn topic(&self, topic: impl IntoTopic) -> Result<Option<TopicStatus>, TopicError> {
        let topic = topic.into_topic()?;
        let (answer, known) = oneshot::channel();
        let waiting = |permit| Waiting::Topic { answer, permit };
        let asked = self.ask(waiting, |token| Command::Topic { token, topic }).await;
        Ok(if asked.is_some() { known.await.ok().flatten() } else { None })
    }

    async fn ask(
        &self,
        waiting: impl FnOnce(OwnedSemaphorePermit) -> Waiting,
        command: impl FnOnce(Token) -> Command,
    ) -> Option<()> {
        let permit = self.handle.questions.clone().acquire_owned().await.ok()?;
        let token = self.token();
        let entered = self.dispatch().enter(token, waiting(permit))?;
        self.driver().send(command(token)).await.ok()?;
        entered.keep();
        Some(())
    }

    /// Leaves all trees and the ring, in order, and ends every task of the node. Calls on other clones wait for the
    /// same end; afterwards they return at once. Messages without a receipt get an error: await receipts first.
    pub async fn shutdown(self) {
        self.handle.leave.send_replace(true);
        let mut ended = self.handle.ended.clone();
        // An error means that the supervisor is gone, which is the end.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Waits until the node has stopped, by [`shutdown`](Scribe::shutdown) or by itself, and says why.
    pub async fn stopped(&self) -> Stopped {
        let mut ended = self.handle.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
        self.dispatch().why().unwrap_or(Stopped::Crashed)
    }

    fn driver(&self) -> &driver::Handle<Command> {
        &self.handle.driver
    }

    fn dispatch(&self) -> &Dispatch {
        &self.handle.dispatch
    }

    fn flights(&self) -> &Flights {
        &self.handle.flights
    }

    fn token(&self) -> Token {
        Token(self.name())
    }

    fn name(&self) -> u64 {
        self.handle.names.fetch_add(1, Ordering::Relaxed)
    }
}

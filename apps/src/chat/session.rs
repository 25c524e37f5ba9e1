//! A conversation on a node: its room is a topic, its words are messages.

use std::time::Duration;

use chrono::Timelike;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use treecast_scribe::message::{Item, PublishError, Receipt, Start};
use treecast_scribe::topic::{Topic, TopicError};
use treecast_scribe::{Error, PendingReceipt, Publisher, Scribe, Stopped, Subscription};

use super::command::Typed;
use super::conversation::{Conversation, Effect, Now};

/// How often presence and waiting words are looked after.
const TICK: Duration = Duration::from_millis(250);
/// How often the node is asked how it is.
const ASK_EVERY: u32 = 8;
/// Messages that are asked for when a room is entered. Many are presence; the lines among the last ones are shown.
const HISTORY: u32 = 1000;
/// How long the last word in a room may take.
const FAREWELL_WITHIN: Duration = Duration::from_secs(1);

/// The topic of a room.
pub(super) fn topic_of(room: &str) -> Result<Topic, TopicError> {
    Topic::new(&format!("chat/{room}"))
}

/// How the ring looks from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RingView {
    /// Other nodes of the ring that this one knows as its neighbours.
    pub(super) peers: usize,
    /// Whether the node is on the ring at the moment.
    pub(super) ready: bool,
}

type Receipts = FuturesUnordered<BoxFuture<'static, (u64, Result<Receipt, PublishError>)>>;

/// One chat on one node.
pub(super) struct Session {
    pub(super) conversation: Conversation,
    pub(super) ring: RingView,
    node: Scribe,
    began: Instant,
    subscription: Option<Subscription>,
    publisher: Option<Publisher>,
    entering: Option<Entering>,
    receipts: Receipts,
    tick: Interval,
    ticks: u32,
}

type Room = (Subscription, Publisher);

struct Entering {
    name: String,
    room: BoxFuture<'static, Result<Room, Error>>,
}

/// What happened.
enum Happening {
    Item(Option<Item>),
    Entered(Result<Room, Error>),
    Receipt(u64, Result<Receipt, PublishError>),
    Sent(Result<PendingReceipt, PublishError>),
    Tick,
    Stopped(Stopped),
}

impl Session {
    /// A session that is about to enter `room`.
    pub(super) fn new(node: Scribe, nick: String, room: String) -> Session {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Later than any number of an earlier chat of this node: that counted on from an earlier time.
        let number = u64::try_from(chrono::Utc::now().timestamp_millis()).unwrap_or(0);
        let mut session = Session {
            conversation: Conversation::new(node.id(), nick, number),
            ring: RingView::default(),
            node,
            began: Instant::now(),
            subscription: None,
            publisher: None,
            entering: None,
            receipts: FuturesUnordered::new(),
            tick,
            ticks: 0,
        };
        session.start_entering(room);
        session
    }

    pub(super) fn now(&self) -> Now {
        let clock = chrono::Local::now();
        Now { uptime: self.began.elapsed(), clock: clock.hour() * 60 + clock.minute() }
    }

    /// The room that is being entered, if any.
    pub(super) fn entering(&self) -> Option<&str> {
        self.entering.as_ref().map(|entering| entering.name.as_str())
    }

    /// Waits for the next thing to happen, and takes it in. An error says why the node has stopped. Cancel-safe.
    pub(super) async fn step(&mut self) -> Result<(), Stopped> {
        let happening = self.next().await;
        let now = self.now();
        match happening {
            Happening::Item(Some(item)) => self.conversation.on_item(now, item),
            Happening::Item(None) => return Err(self.node.stopped().await),
            Happening::Entered(outcome) => self.on_entered(now, outcome),
            Happening::Receipt(n, outcome) => {
                if let Err(error) = &outcome {
                    tracing::info!(%error, "a message of this chat has no receipt");
                }
                self.conversation.on_receipt(now, n, &outcome);
            }
            Happening::Sent(sent) => self.on_sent(sent),
            Happening::Tick => self.on_tick(now).await,
            Happening::Stopped(why) => return Err(why),
        }
        Ok(())
    }

    async fn next(&mut self) -> Happening {
        let node = self.node.clone();
        tokio::select! {
            item = next_item(&mut self.subscription) => Happening::Item(item),
            room = entered(&mut self.entering) => Happening::Entered(room),
            Some((n, outcome)) = self.receipts.next() => Happening::Receipt(n, outcome),
            sent = send_next(&self.publisher, &self.conversation) => Happening::Sent(sent),
            _ = self.tick.tick() => Happening::Tick,
            why = node.stopped() => Happening::Stopped(why),
        }
    }

    /// A line was typed. `true` if it was the last one.
    pub(super) async fn on_typed(&mut self, typed: Typed) -> bool {
        match self.conversation.on_typed(self.now(), typed) {
            Effect::None => {}
            Effect::Enter(room) => match topic_of(&room) {
                Ok(_) => {
                    self.leave_room().await;
                    self.start_entering(room);
                }
                Err(error) => self.conversation.warn(self.now(), error.to_string()),
            },
            Effect::Leave => self.leave_room().await,
            Effect::Quit => return true,
        }
        false
    }

    /// Says goodbye and ends the node.
    pub(super) async fn quit(mut self) {
        self.leave_room().await;
        self.node.clone().shutdown().await;
    }

    fn start_entering(&mut self, name: String) {
        let node = self.node.clone();
        let room = name.clone();
        let enter = async move {
            let topic = topic_of(&room)?;
            let subscription = node.subscribe_from(&topic, Start::Last(HISTORY)).await?;
            Ok((subscription, node.publisher(topic)?))
        };
        self.entering = Some(Entering { name, room: enter.boxed() });
    }

    fn on_entered(&mut self, now: Now, outcome: Result<Room, Error>) {
        let Some(entering) = self.entering.take() else { return };
        match outcome {
            Ok((subscription, publisher)) => {
                self.conversation.enter(now, &entering.name);
                self.subscription = Some(subscription);
                self.publisher = Some(publisher);
            }
            Err(error) => {
                let name = entering.name;
                self.conversation.warn(now, format!("#{name}: {error}; /join {name} tries again"));
            }
        }
    }

    async fn on_tick(&mut self, now: Now) {
        self.conversation.on_tick(now);
        if self.ticks.is_multiple_of(ASK_EVERY)
            && let Ok(Some(status)) = timeout(TICK, self.node.status()).await
        {
            use treecast_scribe::overlay::wire::NodeState;
            self.ring = RingView { peers: status.peers.len(), ready: status.node_state == NodeState::Ready };
        }
        self.ticks = self.ticks.wrapping_add(1);
    }

    fn on_sent(&mut self, sent: Result<PendingReceipt, PublishError>) {
        let Some(n) = self.conversation.sent() else { return };
        let outcome = async move {
            match sent {
                Ok(receipt) => (n, receipt.await),
                Err(error) => (n, Err(error)),
            }
        };
        self.receipts.push(outcome.boxed());
    }

    async fn leave_room(&mut self) {
        self.entering = None;
        self.subscription = None;
        let sent_all = async {
            while self.conversation.next_outgoing().is_some() {
                let sent = send_next(&self.publisher, &self.conversation).await;
                self.on_sent(sent);
            }
        };
        // What is not sent by then fails, and says so.
        let _ = timeout(FAREWELL_WITHIN, sent_all).await;
        let (Some(payload), Some(publisher)) = (self.conversation.leave(), self.publisher.take()) else {
            return;
        };
        let farewell = async { publisher.send(payload).await?.await };
        if !matches!(timeout(FAREWELL_WITHIN, farewell).await, Ok(Ok(_))) {
            tracing::debug!("the last word had no receipt: the others will notice the silence");
        }
    }
}

async fn next_item(subscription: &mut Option<Subscription>) -> Option<Item> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

async fn entered(entering: &mut Option<Entering>) -> Result<Room, Error> {
    match entering {
        Some(entering) => (&mut entering.room).await,
        None => std::future::pending().await,
    }
}

/// Hands over the next message that waits to be sent; without any, or without a room, never returns. Cancel-safe: a
/// message that was not handed over stays where it is.
async fn send_next(
    publisher: &Option<Publisher>,
    conversation: &Conversation,
) -> Result<PendingReceipt, PublishError> {
    match (publisher, conversation.next_outgoing()) {
        (Some(publisher), Some(outgoing)) => publisher.send(outgoing.payload.clone()).await,
        _ => std::future::pending().await,
    }
}

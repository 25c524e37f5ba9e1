//! Where the driver's events find the callers that wait for them. Nothing here blocks or awaits: the driver calls in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, oneshot, watch};
use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::{Found, StartError};
use treecast_overlay::peer::Contact;
use treecast_overlay::wire::RouteFailure;

use super::Stopped;
use super::broadcasts::{Broadcast, Inbox};
use super::publisher::FlightPermit;
use crate::event::{Event, Status, SubscriptionId, Token, TopicStatus};
use crate::message::{BroadcastError, Item, Mark, PublishError, Receipt, SubscribeError};

/// Callers by the names of what they wait for.
pub(super) struct Dispatch {
    tables: Mutex<Tables>,
    /// Wakes the supervisor: there are [`PendingCommands`].
    pub(super) pending_commands: Notify,
    /// How others reach the node.
    pub(super) contact: watch::Sender<Contact>,
    /// The start's outcome; `None` until it is known.
    pub(super) started: watch::Sender<Option<Result<bool, StartError>>>,
    /// Whether the node has left the ring, or cannot any more.
    pub(super) left: watch::Sender<bool>,
}

#[derive(Default)]
struct Tables {
    /// Bounded by the permits in its entries.
    requests: BTreeMap<Token, Waiting>,
    /// Bounded by what the core allows: an entry beyond its limits is refused at once and goes.
    subscriptions: BTreeMap<SubscriptionId, Subscriber>,
    /// Readers of broadcasts; the entry of one that was dropped goes with the next broadcast or reader.
    inboxes: Vec<Weak<Inbox>>,
    pending_commands: PendingCommands,
    /// Set once nothing will be answered any more.
    closed: bool,
    why: Option<Stopped>,
}

/// Commands that subscribers owe to the core, collected where they must not wait. At most one entry per subscription.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PendingCommands {
    /// Items that were consumed.
    pub(super) credit: BTreeMap<SubscriptionId, u32>,
    /// Subscriptions that were dropped.
    pub(super) unsubscribe: BTreeSet<SubscriptionId>,
}

/// A caller, and the permit that bounds how many there are.
pub(super) enum Waiting {
    Publish {
        answer: oneshot::Sender<Result<Receipt, PublishError>>,
        permit: FlightPermit,
    },
    Broadcast {
        answer: oneshot::Sender<Result<(), BroadcastError>>,
        permit: OwnedSemaphorePermit,
    },
    Lookup {
        answer: oneshot::Sender<Result<Found, Option<RouteFailure>>>,
        permit: OwnedSemaphorePermit,
    },
    Topic {
        answer: oneshot::Sender<Option<TopicStatus>>,
        permit: OwnedSemaphorePermit,
    },
    /// The supervisor asks without a permit: once at a time.
    Status {
        answer: oneshot::Sender<Status>,
        permit: Option<OwnedSemaphorePermit>,
    },
}

/// A caller's entry whose command is not handed over yet: dropping this takes it out again.
#[must_use]
pub(super) struct Entered<'a> {
    dispatch: &'a Dispatch,
    token: Token,
}

impl Entered<'_> {
    /// The command is handed over: an answer will come.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        drop(self.dispatch.take(self.token));
    }
}

/// The sending half of a subscription.
pub(super) struct Subscriber {
    /// As large as the credit that was given: it has room for whatever the core may send.
    pub(super) items: mpsc::Sender<Item>,
    /// The caller that waits for the subscription's start.
    pub(super) confirm: Option<oneshot::Sender<Result<Mark, SubscribeError>>>,
}

impl Dispatch {
    pub(super) fn new(contact: Contact) -> Arc<Dispatch> {
        Arc::new(Dispatch {
            tables: Mutex::default(),
            pending_commands: Notify::new(),
            contact: watch::Sender::new(contact),
            started: watch::Sender::new(None),
            left: watch::Sender::new(false),
        })
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Every section under the lock is a few map operations: a poisoned table is still a whole one.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a caller; `None` if the node has stopped.
    pub(super) fn enter(&self, token: Token, waiting: Waiting) -> Option<Entered<'_>> {
        let mut tables = self.tables();
        if tables.closed {
            return None;
        }
        tables.requests.insert(token, waiting);
        Some(Entered { dispatch: self, token })
    }

    /// Enters a subscription; `false` if the node has stopped.
    pub(super) fn enter_subscription(&self, id: SubscriptionId, subscriber: Subscriber) -> bool {
        let mut tables = self.tables();
        if !tables.closed {
            tables.subscriptions.insert(id, subscriber);
        }
        !tables.closed
    }

    /// Enters a reader of broadcasts. If the node has stopped, it hears of none.
    pub(super) fn enter_inbox(&self, inbox: &Arc<Inbox>) {
        let mut tables = self.tables();
        if tables.closed {
            return inbox.close();
        }
        tables.inboxes.retain(|inbox| inbox.strong_count() > 0);
        tables.inboxes.push(Arc::downgrade(inbox));
    }

    /// A subscriber consumed `items`.
    pub(super) fn owe_credit(&self, id: SubscriptionId, items: u32) {
        let mut tables = self.tables();
        if tables.subscriptions.contains_key(&id) {
            let owed = tables.pending_commands.credit.entry(id).or_default();
            *owed = owed.saturating_add(items);
            self.pending_commands.notify_one();
        }
    }

    /// A subscriber is gone.
    pub(super) fn abandon(&self, id: SubscriptionId) {
        let mut tables = self.tables();
        if tables.subscriptions.remove(&id).is_some() {
            tables.pending_commands.credit.remove(&id);
            tables.pending_commands.unsubscribe.insert(id);
            self.pending_commands.notify_one();
        }
    }

    /// Takes the commands that have come together since the last call.
    pub(super) fn take_pending_commands(&self) -> PendingCommands {
        std::mem::take(&mut self.tables().pending_commands)
    }

    /// Nothing will be answered any more: ends all waiting and all subscriptions.
    pub(super) fn close(&self, why: Stopped) {
        let mut tables = self.tables();
        tables.closed = true;
        tables.why.get_or_insert(why);
        tables.pending_commands = PendingCommands::default();
        let (requests, subscriptions) =
            (std::mem::take(&mut tables.requests), std::mem::take(&mut tables.subscriptions));
        let inboxes = std::mem::take(&mut tables.inboxes);
        // Dropping the senders wakes their receivers: not under the lock.
        drop(tables);
        drop((requests, subscriptions));
        inboxes.iter().filter_map(Weak::upgrade).for_each(|inbox| inbox.close());
        self.left.send_replace(true);
    }

    /// Why the node has stopped, if it has.
    pub(super) fn why(&self) -> Option<Stopped> {
        let tables = self.tables();
        tables.why.clone().filter(|_| tables.closed)
    }

    /// The driver's callback.
    pub(super) fn on_event(&self, event: Event) {
        match event {
            Event::Ready { alone } => self.on_started(Ok(alone)),
            Event::StartFailed(error) => self.on_started(Err(error)),
            Event::Subscribed { subscription, mark } => self.on_subscribed(subscription, mark),
            Event::SubscribeFailed { subscription, error } => self.on_subscribe_failed(subscription, error),
            Event::Item { subscription, item } => self.on_item(subscription, item),
            Event::Published { token, receipt } => self.on_published(token, Ok(receipt)),
            Event::PublishFailed { token, error } => self.on_published(token, Err(error)),
            Event::Broadcast { origin, payload } => self.on_broadcast(origin, &payload),
            Event::BroadcastEnded { token, outcome } => self.on_broadcast_ended(token, outcome),
            Event::Found { token, found } => self.on_lookup(token, Ok(found)),
            Event::NotFound { token, reason } => self.on_lookup(token, Err(reason)),
            Event::Status { token, status } => self.on_status(token, status),
            Event::Topic { token, known } => self.on_topic(token, known),
            Event::ContactChanged(contact) => self.on_contact(contact),
            Event::Left => {
                self.left.send_replace(true);
            }
            Event::Superseded { by } => {
                self.tables().why = Some(Stopped::Superseded { by });
                self.left.send_replace(true);
            }
        }
    }

    fn on_started(&self, outcome: Result<bool, StartError>) {
        // An edge that becomes a ring node is ready twice: the first word counts.
        self.started.send_if_modified(|started| {
            let first = started.is_none();
            if first {
                *started = Some(outcome);
            }
            first
        });
    }

    fn on_subscribed(&self, id: SubscriptionId, mark: Mark) {
        if let Some(subscriber) = self.tables().subscriptions.get_mut(&id)
            && let Some(confirm) = subscriber.confirm.take()
        {
            // Its `subscribe` may have been dropped: then its guard unsubscribes.
            let _ = confirm.send(Ok(mark));
        }
    }

    fn on_subscribe_failed(&self, id: SubscriptionId, error: SubscribeError) {
        let subscriber = self.tables().subscriptions.remove(&id);
        match subscriber.and_then(|subscriber| subscriber.confirm) {
            Some(confirm) => {
                let _ = confirm.send(Err(error));
            }
            None => tracing::warn!(subscription = id.0, %error, "a subscription ended"),
        }
    }

    fn on_item(&self, id: SubscriptionId, item: Item) {
        let mut tables = self.tables();
        let Some(subscriber) = tables.subscriptions.get(&id) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = subscriber.items.try_send(item) {
            // More than the credit: a bug of ours. The subscription ends; an item left out would be a silent loss.
            debug_assert!(false, "an item without credit");
            tracing::error!(subscription = id.0, "an item came without credit: the subscription ends");
            tables.subscriptions.remove(&id);
            tables.pending_commands.unsubscribe.insert(id);
            self.pending_commands.notify_one();
        }
    }

    fn on_published(&self, token: Token, outcome: Result<Receipt, PublishError>) {
        if let Some(Waiting::Publish { answer, permit }) = self.take(token) {
            drop(permit);
            let _ = answer.send(outcome);
        }
    }

    fn on_broadcast(&self, origin: NodeId, payload: &[u8]) {
        let mut tables = self.tables();
        tables.inboxes.retain(|inbox| inbox.strong_count() > 0);
        let readers: Vec<Arc<Inbox>> = tables.inboxes.iter().filter_map(Weak::upgrade).collect();
        drop(tables);
        if readers.is_empty() {
            return;
        }
        // A copy: a small payload would otherwise keep the large buffer that it was received in.
        let payload = Bytes::copy_from_slice(payload);
        for inbox in readers {
            inbox.push(Broadcast { origin, payload: payload.clone(), missed: 0 });
        }
    }

    fn on_broadcast_ended(&self, token: Token, outcome: Result<(), BroadcastError>) {
        if let Some(Waiting::Broadcast { answer, permit }) = self.take(token) {
            drop(permit);
            let _ = answer.send(outcome);
        }
    }

    fn on_lookup(&self, token: Token, outcome: Result<Found, Option<RouteFailure>>) {
        if let Some(Waiting::Lookup { answer, permit }) = self.take(token) {
            drop(permit);
            let _ = answer.send(outcome);
        }
    }

    fn on_contact(&self, contact: Contact) {
        self.contact.send_if_modified(|known| std::mem::replace(known, contact) != contact);
    }

    fn on_status(&self, token: Token, status: Status) {
        self.on_contact(status.contact);
        if let Some(Waiting::Status { answer, permit }) = self.take(token) {
            drop(permit);
            let _ = answer.send(status);
        }
    }

    fn on_topic(&self, token: Token, known: Option<TopicStatus>) {
        if let Some(Waiting::Topic { answer, permit }) = self.take(token) {
            drop(permit);
            let _ = answer.send(known);
        }
    }

    fn take(&self, token: Token) -> Option<Waiting> {
        self.tables().requests.remove(&token)
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::peer::{Addr, Peer};

    use super::*;

    fn dispatch() -> Arc<Dispatch> {
        Dispatch::new(Peer { id: NodeId(1), incarnation: 1, addr: Addr::Unreachable }.into())
    }

    fn subscribe(dispatch: &Dispatch, id: u64, credit: usize) -> mpsc::Receiver<Item> {
        let (items, receiver) = mpsc::channel(credit);
        assert!(dispatch.enter_subscription(SubscriptionId(id), Subscriber { items, confirm: None }));
        receiver
    }

    #[test]
    fn a_dropped_subscriber_owes_its_unsubscribe_once_and_no_credit() {
        let dispatch = dispatch();
        let _items = subscribe(&dispatch, 1, 4);
        dispatch.owe_credit(SubscriptionId(1), 2);
        dispatch.abandon(SubscriptionId(1));
        dispatch.abandon(SubscriptionId(1));
        dispatch.owe_credit(SubscriptionId(1), 2);
        let pending_commands = dispatch.take_pending_commands();
        assert!(pending_commands.credit.is_empty());
        assert_eq!(pending_commands.unsubscribe.into_iter().collect::<Vec<_>>(), [SubscriptionId(1)]);
        assert_eq!(dispatch.take_pending_commands(), PendingCommands::default());
    }

    #[test]
    fn closing_ends_streams_after_what_they_hold_and_lets_nobody_in() {
        let dispatch = dispatch();
        let mut items = subscribe(&dispatch, 1, 4);
        dispatch.on_event(Event::Item { subscription: SubscriptionId(1), item: Item::ParentChanged(None) });
        dispatch.close(Stopped::Shutdown);
        assert_eq!(items.try_recv(), Ok(Item::ParentChanged(None)));
        assert_eq!(items.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        let (late, _receiver) = mpsc::channel(1);
        assert!(!dispatch.enter_subscription(SubscriptionId(2), Subscriber { items: late, confirm: None }));
        assert_eq!(dispatch.why(), Some(Stopped::Shutdown));
    }

    #[test]
    fn the_reason_for_stopping_is_the_first_one() {
        let dispatch = dispatch();
        dispatch.on_event(Event::Superseded { by: 9 });
        dispatch.close(Stopped::Shutdown);
        assert_eq!(dispatch.why(), Some(Stopped::Superseded { by: 9 }));
    }
}

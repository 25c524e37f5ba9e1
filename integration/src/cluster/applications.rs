//! The applications of a cluster: they subscribe, take, stall and publish, and the history has all that they saw.

use std::collections::BTreeMap;

use treecast_overlay::machine::Machine;
use treecast_overlay::time::Instant;
use treecast_scribe::event::{Command, Event, SubscriptionId, Token};
use treecast_scribe::{Item, PublishError, Receipt, Start, Topic};

use super::history::{Offered, Watched, payload};
use super::{Cluster, FailedStart, lookups};
use crate::check::{Promise, Verdict};
use crate::node::RingNode;

/// Items that an ordinary application takes ahead.
const CREDIT: u32 = 1024;

/// Items that applications have taken, and will take as many more.
pub(super) type Consumed = BTreeMap<SubscriptionId, u32>;

impl<N: RingNode> Cluster<N> {
    /// Subscribes to what comes from now on, with an application that takes all; or that takes so many items and then
    /// stops.
    pub fn subscribe_with(&mut self, slot: usize, topic: &Topic, takes: Option<u32>) -> SubscriptionId {
        let subscription = SubscriptionId(self.next_number());
        let stalled = takes.is_some();
        let watched = Watched {
            slot,
            topic: topic.id(),
            asked: self.now(),
            mark: None,
            items: Vec::new(),
            reached: Vec::new(),
            ended: None,
            failed: None,
            stalled,
            was_stalled: stalled,
        };
        self.history.subscriptions.insert(subscription, watched);
        let (topic, credit) = (topic.clone(), takes.unwrap_or(CREDIT));
        self.world.command(slot, Command::Subscribe { subscription, topic, start: Start::Latest, credit });
        subscription
    }

    /// Subscribes with an application that takes all.
    pub fn subscribe(&mut self, slot: usize, topic: &Topic) -> SubscriptionId {
        self.subscribe_with(slot, topic, None)
    }

    /// A stalled application goes on.
    pub fn unstall(&mut self, subscription: SubscriptionId) {
        let watched = self.watched(subscription);
        watched.stalled = false;
        let slot = watched.slot;
        self.world.command(slot, Command::Credit { subscription, items: CREDIT });
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, subscription: SubscriptionId) {
        let now = self.now();
        let watched = self.watched(subscription);
        watched.ended.get_or_insert(now);
        let slot = watched.slot;
        self.world.command(slot, Command::Unsubscribe(subscription));
    }

    /// Publishes `len` bytes, at least eight.
    pub fn publish(&mut self, slot: usize, topic: &Topic, len: usize) -> Token {
        let token = Token(self.next_number());
        let payload = payload(token, len);
        let offered = Offered {
            slot,
            publisher: self.id(slot),
            topic: topic.id(),
            at: self.now(),
            payload: payload.clone(),
            outcome: None,
            abandoned: false,
        };
        self.history.publications.insert(token, offered);
        self.world.command(slot, Command::Publish { token, topic: topic.clone(), payload });
        token
    }

    /// The applications fetch what has come.
    pub(super) fn fetch(&mut self) -> Verdict {
        let mut consumed = Consumed::new();
        for (at, slot, event) in self.world.take_events() {
            self.on_event(at, slot, event, &mut consumed)?;
        }
        for (subscription, items) in consumed {
            let watched = &self.history.subscriptions[&subscription];
            if watched.ended.is_none() && !watched.stalled {
                self.world.command(watched.slot, Command::Credit { subscription, items });
            }
        }
        Ok(())
    }

    fn on_event(&mut self, at: Instant, slot: usize, event: Event, consumed: &mut Consumed) -> Verdict {
        self.witness.borrow().tell(|| format!("{at} #{slot}: the application hears {event:?}"));
        match event {
            Event::Subscribed { subscription, mark } => {
                if self.watched(subscription).mark.replace((at, mark)).is_some() {
                    return Err(Promise::S5.broken(format!("{subscription:?} starts twice")));
                }
            }
            Event::SubscribeFailed { subscription, error } => {
                let watched = self.watched(subscription);
                watched.failed = Some(error);
                watched.ended.get_or_insert(at);
                self.count("failed subscription", 1);
            }
            Event::Item { subscription, item } => {
                self.on_item(at, subscription, item)?;
                *consumed.entry(subscription).or_default() += 1;
            }
            Event::Published { token, receipt } => self.on_outcome(at, token, Ok(receipt))?,
            Event::PublishFailed { token, error } => self.on_outcome(at, token, Err(error))?,
            Event::StartFailed(why) => {
                self.count("failed start", 1);
                self.failed_starts.push(FailedStart { slot, at, why });
                self.stop(slot);
            }
            Event::Left | Event::Superseded { .. } => self.stop(slot),
            Event::Found { token, found } => {
                // Its decision, at this instant, if the origin answered itself.
                self.judge_decisions()?;
                self.on_found(at, token.0, found.hops);
            }
            Event::NotFound { token, reason } => self.on_not_found(token.0, lookups::words(reason)),
            Event::Ready { .. } => {
                if let Some(stack) = self.world.machine(slot) {
                    self.roster.insert(stack.peer().id, slot as u32);
                }
                self.count("rejoin", u64::from(self.lives[slot] > 1));
            }
            Event::Status { .. }
            | Event::ContactChanged(_)
            | Event::Broadcast { .. }
            | Event::BroadcastEnded { .. }
            | Event::Topic { .. } => {}
        }
        Ok(())
    }

    fn on_item(&mut self, at: Instant, subscription: SubscriptionId, item: Item) -> Verdict {
        match &item {
            Item::Gap(_) => self.count("gap", 1),
            Item::ParentChanged(_) => self.count("new parent", 1),
            Item::Message(_) => {}
        }
        let topic = self.watched(subscription).topic;
        let reached = {
            let ledger = &self.witness.borrow().ledger;
            (ledger.reached(topic), ledger.bytes(topic))
        };
        let watched = self.watched(subscription);
        if watched.mark.is_none() {
            return Err(Promise::S5.broken(format!("{subscription:?} yields before it starts")));
        }
        // An item that was under way when it ended belongs to nobody.
        if watched.ended.is_none_or(|ended| at < ended) {
            if let Item::Gap(_) = &item {
                watched.reached.push(reached);
            }
            watched.items.push((at, item));
        }
        Ok(())
    }

    fn on_outcome(&mut self, at: Instant, token: Token, outcome: Result<Receipt, PublishError>) -> Verdict {
        self.count("unknown outcome", u64::from(matches!(outcome, Err(PublishError::OutcomeUnknown { .. }))));
        let offered = self.history.publications.get_mut(&token).expect("it was published");
        match offered.outcome.replace((at, outcome)) {
            None => Ok(()),
            Some(_) => Err(Promise::S4.broken(format!("{token:?} is answered twice"))),
        }
    }

    fn watched(&mut self, subscription: SubscriptionId) -> &mut Watched {
        self.history.subscriptions.get_mut(&subscription).expect("it was subscribed")
    }
}

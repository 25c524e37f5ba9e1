//! This node's own subscribers: cursors into the window like children, with credit in place of acknowledgements.

use super::tree::{Log, Reader, Role, Subscription, is_plausible};
use super::{Context, Forest, Life, Timer};
use crate::event::{Event, SubscriptionId};
use crate::log::seen::Seen;
use crate::log::window::Follow;
use crate::message::{Gap, GapReason, Item, Mark, Message, MessageId, Position, Start, SubscribeError, Term};
use crate::topic::TopicId;
use crate::wire::{Body, Known, MAX_NUMBER};

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
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let before = tree.wish();
        let start = in_range(start);
        tree.subscriptions.insert(
            id,
            Subscription { start, credit, reader: None, seen: Seen::default(), parent_news: None },
        );
        self.topics.insert(id, topic);
        self.deadlines.cancel(Timer::Linger(topic));
        self.deadlines.set(Timer::Subscribe(id), cx.now + self.config.subscribe_timeout);
        if new {
            self.seek(cx, topic);
        } else {
            self.review_wish(cx, topic, before);
        }
        self.begin_subscriptions(cx, topic, None);
        self.note_subscribers(cx, topic);
        self.review_shape(cx, topic);
        self.settle(cx);
    }

    /// The subscriber takes so many items more.
    pub fn add_credit(&mut self, cx: Context<'_>, id: SubscriptionId, items: u32) {
        let Some(&topic) = self.topics.get(&id) else { return };
        if let Some(subscription) =
            self.trees.get_mut(&topic).and_then(|tree| tree.subscriptions.get_mut(&id))
        {
            subscription.credit = subscription.credit.saturating_add(items);
        }
        self.deliver_local(topic);
        self.settle(cx);
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, cx: Context<'_>, id: SubscriptionId) {
        let Some(topic) = self.topics.remove(&id) else { return };
        self.deadlines.cancel(Timer::Subscribe(id));
        if let Some(tree) = self.trees.get_mut(&topic) {
            tree.subscriptions.remove(&id);
        }
        self.note_subscribers(cx, topic);
        self.review_need(cx, topic);
        self.review_shape(cx, topic);
        self.settle(cx);
    }

    pub(super) fn on_subscribe_timer(&mut self, cx: Context<'_>, id: SubscriptionId) {
        self.unsubscribe(cx, id);
        self.fail_subscription(id, SubscribeError::TimedOut(self.config.subscribe_timeout));
    }

    fn fail_subscription(&mut self, subscription: SubscriptionId, error: SubscribeError) {
        self.out.events.push_back(Event::SubscribeFailed { subscription, error });
    }

    /// Gives a start to the subscriptions that have none, once the window has one (promise S5). `latest` is the
    /// parent's last entry, if it has just said so: what comes up to there was published before.
    pub(super) fn begin_subscriptions(&mut self, cx: Context<'_>, topic: TopicId, latest: Option<Position>) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        // A root whose term is not open yet may still learn of a longer log.
        if matches!(tree.role, Role::Opening(_)) {
            return;
        }
        let Some(log) = &tree.log else { return };
        let mut claims = Vec::new();
        for (&id, subscription) in tree.subscriptions.iter_mut().filter(|(_, s)| s.reader.is_none()) {
            let (reader, mark) = begin(log, subscription.start, latest);
            subscription.reader = Some(reader);
            claims.extend(claim(log, mark));
            self.deadlines.cancel(Timer::Subscribe(id));
            self.out.events.push_back(Event::Subscribed { subscription: id, mark });
        }
        for claim in claims {
            self.on_heard(cx, topic, claim);
        }
        self.deliver_local(topic);
    }

    /// Delivers what the subscribers of this node have credit for.
    pub(super) fn deliver_local(&mut self, topic: TopicId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let Some(log) = &tree.log else { return };
        for (&id, subscription) in tree.subscriptions.iter_mut() {
            while let Some(item) = subscription.poll_item(log) {
                self.out.events.push_back(Event::Item { subscription: id, item });
            }
        }
    }
}

/// Where a subscription begins, and the mark that says so.
fn begin(log: &Log, start: Start, latest: Option<Position>) -> (Reader, Mark) {
    let window = &log.window;
    let mark = match start {
        Start::Latest => Mark { birth: log.birth, position: window.tail().max(latest) },
        Start::After(mark) => mark,
    };
    if mark.birth != log.birth {
        let owed = Some((GapReason::OtherLog, mark.position));
        let mark = Mark { birth: log.birth, position: window.base() };
        return (Reader { last: window.base(), next: window.start(), owed }, mark);
    }
    let last = mark.position;
    let reader = match window.follow(last) {
        Follow::At(next) => Reader { last, next, owed: None },
        Follow::TooOld => Reader { last, next: window.start(), owed: Some((GapReason::OutOfWindow, last)) },
        Follow::Newer if !is_plausible(last) => {
            Reader { last: window.base(), next: window.start(), owed: Some((GapReason::RootLost, last)) }
        }
        // It is ahead of this node: what it has is passed over.
        Follow::Newer => Reader { last, next: window.end(), owed: None },
    };
    (reader, mark)
}

/// A mark's numbers as they can travel: whoever made up larger ones gets what the largest get.
fn in_range(start: Start) -> Start {
    let Start::After(Mark { birth, position: Some(position) }) = start else { return start };
    let term = Term { number: position.term.number.min(MAX_NUMBER - 1), ..position.term };
    let offset = position.offset.min(MAX_NUMBER - 1);
    Start::After(Mark { birth, position: Some(Position { term, offset }) })
}

/// A mark of a term that this node has not heard of says that there was one.
fn claim(log: &Log, mark: Mark) -> Option<Known> {
    let position = mark.position?;
    (mark.birth == log.birth && position.term > log.term && is_plausible(mark.position)).then_some(Known {
        birth: mark.birth,
        term: position.term,
        tail: Some(position),
    })
}

impl Subscription {
    /// The next item that there is credit for.
    pub(super) fn poll_item(&mut self, log: &Log) -> Option<Item> {
        let reader = self.reader.as_mut()?;
        if self.credit == 0 {
            return None;
        }
        let item = match self.parent_news.take() {
            Some(parent) => Item::ParentChanged(parent),
            None => reader.poll_item(log, &mut self.seen)?,
        };
        self.credit -= 1;
        Some(item)
    }
}

impl Reader {
    fn poll_item(&mut self, log: &Log, seen: &mut Seen) -> Option<Item> {
        if self.next < log.window.start() {
            self.owed.get_or_insert((GapReason::OutOfWindow, self.last));
            self.next = log.window.start();
        }
        loop {
            let entry = log.window.entry(self.next)?;
            let at = log.window.position(self.next)?;
            if Some(at) <= self.last {
                // A subscriber only ever moves forward.
                self.next += 1;
                continue;
            }
            match entry.body {
                // Who read on behind the entry that this term follows was on a branch that is over.
                Body::TermStart { forced, previous } if forced || self.last > at.behind(previous) => {
                    let (reason, after) = match self.owed.take() {
                        // That it is another log says more: its positions go on from nothing that was before.
                        Some((GapReason::OtherLog, after)) => (GapReason::OtherLog, after),
                        Some((_, after)) => (GapReason::RootLost, after),
                        None => (GapReason::RootLost, self.last),
                    };
                    self.pass(at);
                    return Some(Item::Gap(Gap { after, until: Some(at), reason }));
                }
                Body::TermStart { .. } | Body::Message { .. } if self.owed.is_some() => {
                    let (reason, after) = self.owed.take()?;
                    return Some(Item::Gap(Gap { after, until: Some(at), reason }));
                }
                Body::TermStart { .. } => self.pass(at),
                Body::Message { publisher, session, sequence, .. } => {
                    self.pass(at);
                    let id = MessageId { publisher, session, sequence };
                    if !seen.note(id) {
                        continue;
                    }
                    let mark = Mark { birth: log.birth, position: Some(at) };
                    let payload = entry.payload.clone();
                    return Some(Item::Message(Message { id, position: at, mark, payload }));
                }
            }
        }
    }

    fn pass(&mut self, at: Position) {
        self.last = Some(at);
        self.next = at.offset + 1;
    }
}

//! This node's own subscribers to one topic: cursors into the window like children, with credit in place of
//! acknowledgements.

use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;

use crate::event::{Event, SubscriptionId};
use crate::forest::context::{Outbox, TreeCx, TreeTimer};
use crate::log::backlog::Backlog;
use crate::log::pace::{Pace, Slowest};
use crate::log::reader::Reader;
use crate::log::{Change, Log};
use crate::message::{Item, Mark, Start};
use crate::sorted::SortedMap;
use crate::wire::MAX_NUMBER;

/// All subscribers of this node in one tree.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    by_id: SortedMap<SubscriptionId, LocalSubscriber>,
    /// Subscribers from now on, or to the last so many messages, begin when the log is committed as far as this: what stands
    /// before it was published before.
    settled_at: Option<u64>,
}

/// A subscriber of this very node.
#[derive(Debug)]
pub(crate) struct LocalSubscriber {
    start: Start,
    /// Items that it takes now.
    credit: u32,
    /// Whether it keeps up.
    pace: Pace,
    /// `None` until its start is known.
    reader: Option<Reader>,
    /// A new parent that it has not heard of yet.
    parent_news: Option<Option<NodeId>>,
}

impl Readers {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Their names, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = SubscriptionId> {
        self.by_id.keys().copied()
    }

    /// Adds a subscriber, which has no start yet.
    pub(crate) fn add(&mut self, id: SubscriptionId, start: Start, credit: u32) {
        let start = in_range(start);
        let new = LocalSubscriber { start, credit, pace: Pace::default(), reader: None, parent_news: None };
        self.by_id.insert(id, new);
    }

    pub(crate) fn remove(&mut self, id: SubscriptionId) {
        self.by_id.remove(&id);
    }

    pub(crate) fn clear(&mut self) {
        self.by_id.clear();
    }

    /// Lets a subscriber have so many items more.
    pub(crate) fn add_credit(&mut self, id: SubscriptionId, items: u32) {
        if let Some(subscriber) = self.by_id.get_mut(&id) {
            subscriber.credit = subscriber.credit.saturating_add(items);
        }
    }

    /// Where those begin that have no start yet.
    pub(crate) fn starts(&self) -> impl Iterator<Item = Start> {
        self.by_id
            .values()
            .filter(|subscriber| subscriber.reader.is_none())
            .map(|subscriber| subscriber.start)
    }

    /// Gives a start to those that have none (promise S5). `latest`: the end of the parent's log, if it has just said so.
    pub(crate) fn start_waiting(&mut self, cx: &mut TreeCx<'_>, log: &Log, latest: u64) {
        let settled_at = latest.max(log.positioned()).max(self.settled_at.unwrap_or(0));
        self.settled_at = None;
        for (&id, subscriber) in self.by_id.iter_mut().filter(|(_, s)| s.reader.is_none()) {
            if matches!(subscriber.start, Start::Latest | Start::Last(_)) && log.commit() < settled_at {
                self.settled_at = Some(settled_at);
                continue;
            }
            let (reader, mark) = Reader::begin(log, subscriber.start);
            subscriber.reader = Some(reader);
            cx.timers.cancel(TreeTimer::Start(id));
            cx.out.event(Event::Subscribed { subscription: id, mark });
        }
    }

    /// Whether some waited for the log to come as far as it is now.
    pub(crate) fn can_start(&self, log: &Log) -> bool {
        self.settled_at.is_some_and(|end| log.commit() >= end)
    }

    /// Delivers as many items as they have credit for.
    pub(crate) fn deliver(&mut self, log: &Log, backlog: Option<&Backlog>, out: &mut Outbox) {
        for (&id, subscriber) in self.by_id.iter_mut() {
            while let Some(item) = subscriber.poll_item(log, backlog) {
                out.event(Event::Item { subscription: id, item });
            }
        }
    }

    /// The first entry that one of them needs now and that is older than the window.
    pub(crate) fn lacking(&self, log: &Log) -> Option<u64> {
        let takes = self.by_id.values().filter(|subscriber| subscriber.credit > 0);
        takes.filter_map(|subscriber| subscriber.reader.as_ref()?.lacks(log)).min()
    }

    /// Takes into account how far they are.
    pub(crate) fn survey(&mut self, now: Instant, end: u64, patience: Duration, slowest: &mut Slowest) {
        for subscriber in self.by_id.values_mut() {
            if let Some(reader) = &subscriber.reader {
                subscriber.pace.note(now, reader.next, end);
                slowest.add(now, &subscriber.pace, patience);
            }
        }
    }

    /// Notes a new parent, of which they are to hear.
    pub(crate) fn note_parent(&mut self, parent: Option<NodeId>) {
        for subscriber in self.by_id.values_mut().filter(|s| s.reader.is_some()) {
            subscriber.parent_news = Some(parent);
        }
    }

    /// Another root, or another parent, may have other entries behind those that are committed, or none.
    pub(crate) fn reconsider_starts(&mut self) {
        self.settled_at = None;
    }

    /// Follows a change of the log, which was `old` before and is `new` now.
    pub(crate) fn follow(&mut self, old: &Log, new: &Log, change: &Change) {
        for reader in self.by_id.values_mut().filter_map(|subscriber| subscriber.reader.as_mut()) {
            reader.follow(old, new, change);
        }
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        self.by_id.bytes()
    }

    /// Whether any of them was given a start.
    pub(crate) fn any_started(&self) -> bool {
        self.by_id.values().any(|subscriber| subscriber.reader.is_some())
    }
}

impl LocalSubscriber {
    /// The next item that there is credit for.
    fn poll_item(&mut self, log: &Log, backlog: Option<&Backlog>) -> Option<Item> {
        let reader = self.reader.as_mut()?;
        if self.credit == 0 {
            return None;
        }
        let item = match self.parent_news.take() {
            Some(parent) => Item::ParentChanged(parent),
            None => reader.poll_item(log, backlog)?,
        };
        self.credit -= 1;
        Some(item)
    }
}

/// A mark's number as it can travel: a larger one was made up, and gets what the largest gets.
fn in_range(start: Start) -> Start {
    match start {
        Start::After(mark) => Start::After(Mark { next: mark.next.min(MAX_NUMBER - 1), ..mark }),
        Start::Latest | Start::Earliest | Start::Last(_) => start,
    }
}

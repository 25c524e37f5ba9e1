//! This node's own subscribers to one topic: cursors into the window like children, with credit in place of
//! acknowledgements.

use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;

use crate::event::{Event, SubscriptionId};
use crate::forest::context::{Outbox, TreeCx, TreeTimer};
use crate::log::pace::{Pace, Slowest};
use crate::log::reader::Reader;
use crate::log::seen::Seen;
use crate::log::{Change, Log, is_plausible};
use crate::message::{Item, Mark, Position, Start};
use crate::sorted::SortedMap;
use crate::wire::{LogTip, MAX_NUMBER};

/// All subscribers of this node in one tree.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    by_id: SortedMap<SubscriptionId, LocalSubscriber>,
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
    /// The messages that it has had.
    seen: Seen,
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
        let new = LocalSubscriber {
            start,
            credit,
            pace: Pace::default(),
            reader: None,
            seen: Seen::default(),
            parent_news: None,
        };
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

    /// Marks that subscriptions are to continue after.
    pub(crate) fn resume_points(&self) -> impl Iterator<Item = Mark> {
        self.by_id.values().filter_map(|subscriber| match subscriber.start {
            Start::Latest => None,
            Start::After(mark) => Some(mark),
        })
    }

    /// Gives a start to those that have none (promise S5). `latest`: the parent's last entry, if it has just said so.
    /// Returns the claims about the log that their marks make.
    pub(crate) fn start_waiting(
        &mut self,
        cx: &mut TreeCx<'_>,
        log: &Log,
        latest: Option<Position>,
    ) -> Vec<LogTip> {
        let mut claims = Vec::new();
        for (&id, subscriber) in self.by_id.iter_mut().filter(|(_, s)| s.reader.is_none()) {
            let (reader, mark) = Reader::begin(log, subscriber.start, latest);
            subscriber.reader = Some(reader);
            claims.extend(claim(log, mark));
            cx.timers.cancel(TreeTimer::Start(id));
            cx.out.event(Event::Subscribed { subscription: id, mark });
        }
        claims
    }

    /// Delivers as many items as they have credit for.
    pub(crate) fn deliver(&mut self, log: &Log, out: &mut Outbox) {
        for (&id, subscriber) in self.by_id.iter_mut() {
            while let Some(item) = subscriber.poll_item(log) {
                out.event(Event::Item { subscription: id, item });
            }
        }
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

    /// Follows a change of the log, which is this one now.
    pub(crate) fn follow(&mut self, change: &Change, log: &Log) {
        for reader in self.by_id.values_mut().filter_map(|subscriber| subscriber.reader.as_mut()) {
            match change {
                Change::None => {}
                Change::Truncated { end } => reader.truncate(*end),
                Change::Rebased { .. } => reader.rebase(&log.window),
                Change::Replaced { .. } => reader.restart(&log.window),
            }
        }
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        self.by_id.bytes() + self.by_id.values().map(|subscriber| subscriber.seen.weight()).sum::<usize>()
    }

    /// Whether any of them was given a start.
    pub(crate) fn any_started(&self) -> bool {
        self.by_id.values().any(|subscriber| subscriber.reader.is_some())
    }
}

impl LocalSubscriber {
    /// The next item that there is credit for.
    fn poll_item(&mut self, log: &Log) -> Option<Item> {
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

/// A mark's numbers as they can travel: larger ones were made up, and get what the largest get.
fn in_range(start: Start) -> Start {
    let Start::After(Mark { birth, position: Some(position) }) = start else { return start };
    let term = crate::message::Term { number: position.term.number.min(MAX_NUMBER - 1), ..position.term };
    let offset = position.offset.min(MAX_NUMBER - 1);
    Start::After(Mark { birth, position: Some(Position { term, offset }) })
}

/// A mark of a term that this node has not heard of says that there was one.
fn claim(log: &Log, mark: Mark) -> Option<LogTip> {
    let position = mark.position?;
    let later = mark.birth == log.birth && position.term > log.term && is_plausible(mark.position);
    later.then_some(LogTip { birth: mark.birth, term: position.term, tail: Some(position) })
}

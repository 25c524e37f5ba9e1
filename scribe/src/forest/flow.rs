//! Entries flow down the tree: each child is a cursor into its parent's window (design §6, tree).

use std::time::Duration;

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use super::adopt::{link, millis};
use super::tree::{Child, Cursor, Log, Role, Tree};
use super::{Context, Forest, Request, Timer};
use crate::message::{GapReason, Mark};
use crate::topic::TopicId;
use crate::window::{Arrival, Entry, Follow, Held, Window};
use crate::wire::{Ack, Body, Data, Header, Started};

impl Forest {
    /// An entry came.
    pub(super) fn on_data(
        &mut self,
        cx: Context<'_>,
        from: Contact,
        data: Data,
        bytes: &Bytes,
        payload: Bytes,
    ) {
        let topic = data.topic;
        let Some(tree) = self.trees.get_mut(&topic) else { return self.deny_data(cx, from, topic) };
        match &tree.role {
            Role::Child(upward) if upward.parent == from.id() => {}
            // Its JOIN will say what it needs; until then nothing is taken, and nobody is sent away.
            Role::Joining { .. } => return,
            Role::Child(_) | Role::Opening(_) | Role::Root(_) => return self.deny_data(cx, from, topic),
        }
        // Adopted is not started.
        let Some(arrival) = tree.log.as_ref().map(|log| log.window.arrival(data.position, &data.body)) else {
            return;
        };
        match arrival {
            Arrival::Duplicate => {
                self.deadlines.set_earlier(Timer::Ack(topic), cx.now + self.config.ack_delay);
            }
            Arrival::Hole => {
                let entry = self.entry(data, bytes, payload);
                self.keep_early(cx, topic, entry);
            }
            Arrival::Next | Arrival::Supersedes => {
                let entry = self.entry(data, bytes, payload);
                self.append(cx, topic, entry);
                self.append_early(cx, topic);
                self.note_progress(cx, topic);
                self.flow(cx, topic);
                self.review_drained(cx, topic);
            }
        }
    }

    fn keep_early(&mut self, cx: Context<'_>, topic: TopicId, entry: Entry) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        tree.early.keep(entry, self.config.push_messages, self.config.push_bytes);
        let first = !std::mem::replace(&mut tree.asked_again, true);
        self.count_window(cx.now, topic);
        if first {
            self.acknowledge(topic, true);
        } else {
            self.deadlines.set_earlier(Timer::Ack(topic), cx.now + self.config.ack_delay);
        }
    }

    fn append_early(&mut self, cx: Context<'_>, topic: TopicId) {
        while let Some(tree) = self.trees.get_mut(&topic) {
            let Some(entry) = tree.log.as_ref().and_then(|log| tree.early.poll_next(&log.window)) else {
                break;
            };
            tree.unacknowledged += 1;
            self.append(cx, topic, entry);
        }
        self.count_window(cx.now, topic);
    }

    /// A small message is copied: the buffer in which it came may be much larger.
    fn entry(&self, data: Data, bytes: &Bytes, payload: Bytes) -> Entry {
        let (position, body) = (data.position, data.body);
        if bytes.len() >= self.config.copy_below {
            return Entry { position, held: Held { body, encoded: bytes.clone(), payload } };
        }
        let encoded = Bytes::copy_from_slice(bytes);
        let payload = encoded.slice(encoded.len() - payload.len()..);
        Entry { position, held: Held { body, encoded, payload } }
    }

    /// Appends an entry that was found to be next, or to start a term on an earlier entry.
    pub(super) fn append(&mut self, cx: Context<'_>, topic: TopicId, entry: Entry) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let Some(log) = &mut tree.log else { return };
        let start = matches!(entry.held.body, Body::TermStart { .. });
        if let Body::TermStart { previous, .. } = entry.held.body {
            let previous = entry.position.behind(previous);
            log.term = log.term.max(entry.position.term);
            if log.window.tail() == previous || log.window.holds(previous) {
                log.window.cut_after(previous);
                clamp(tree);
            } else {
                renew(tree, Window::new(previous));
            }
        }
        let Some(log) = &mut tree.log else { return };
        log.window.append(entry);
        self.moved.insert(topic);
        self.count_window(cx.now, topic);
        if start {
            self.start_children(cx, topic);
        }
    }

    fn note_progress(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        tree.asked_again = !tree.early.is_empty();
        tree.unacknowledged += 1;
        // Behind a hole that was filled there may be another one.
        if tree.unacknowledged >= self.config.ack_every || tree.asked_again {
            self.acknowledge(topic, false);
        } else {
            self.deadlines.set_earlier(Timer::Ack(topic), cx.now + self.config.ack_delay);
        }
    }

    /// Tells the parent how far this node is.
    pub(super) fn acknowledge(&mut self, topic: TopicId, again: bool) {
        self.deadlines.cancel(Timer::Ack(topic));
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let Role::Child(upward) = &tree.role else { return };
        let (join, version) = upward.version;
        let position = tree.log.as_ref().and_then(|log| log.window.tail());
        let Some(to) = self.neighbours.contact(upward.parent) else { return };
        let again = again || !tree.early.is_empty();
        tree.unacknowledged = 0;
        tree.told_subscribers = tree.subscribers();
        let subscribers = tree.told_subscribers;
        self.tell(to, &Header::Ack(Ack { topic, join, version, position, subscribers, again }));
    }

    /// Pushes to all children, and delivers to this node's own subscribers.
    pub(super) fn flow(&mut self, cx: Context<'_>, topic: TopicId) {
        self.deliver_local(topic);
        let Some(tree) = self.trees.get(&topic) else { return };
        for child in tree.children.keys().copied().collect::<Vec<_>>() {
            self.push(cx, topic, child);
        }
    }

    /// Moves a child's cursor as far as its link takes it.
    pub(super) fn push(&mut self, cx: Context<'_>, topic: TopicId, id: NodeId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let (Some(log), Some(child)) = (&tree.log, tree.children.get_mut(&id)) else { return };
        let Some(cursor) = child.cursor.as_mut().filter(|_| !child.held) else { return };
        if cursor.next < log.window.start() {
            return self.restart(cx, topic, id);
        }
        let Some(to) = self.neighbours.contact(id) else { return };
        let link = link(to);
        while let Some(entry) = log.window.entry(cursor.next) {
            if self.congested.contains(&link) {
                self.stalled.entry(link).or_default().insert((topic, id));
                break;
            }
            let flying = cursor.next - cursor.acknowledged;
            let bytes = log.window.bytes_between(cursor.acknowledged, cursor.next) as usize;
            let full = bytes + entry.encoded.len() > self.config.push_bytes;
            if flying >= self.config.push_messages as u64 || (full && flying > 0) {
                break;
            }
            let payload = entry.encoded.clone();
            self.out.requests.push_back(Request::Send { to, payload });
            cursor.next += 1;
        }
        let timer = Timer::Push(topic, id);
        if cursor.next > cursor.acknowledged && !self.deadlines.is_set(timer) {
            self.deadlines.set(timer, cx.now + Duration::from_millis(child.rto.into()));
        }
    }

    /// A child that fell out of the window goes on at its start; it finds the gap by itself.
    fn restart(&mut self, cx: Context<'_>, topic: TopicId, id: NodeId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let (Some(log), Some(child)) = (&tree.log, tree.children.get_mut(&id)) else { return };
        let start = log.window.start();
        // That of the word that says so.
        let version = self.words + 1;
        child.cursor = Some(Cursor { next: start, acknowledged: start, version, repeated: None });
        self.attach(cx, topic, id);
        self.push(cx, topic, id);
    }

    /// A child says how far it is.
    pub(super) fn on_ack(&mut self, cx: Context<'_>, from: Contact, ack: Ack) {
        let topic = ack.topic;
        let id = from.id();
        let Some(tree) = self.trees.get_mut(&topic) else {
            return self.tell(from, &Header::Orphan { topic });
        };
        let Some(child) = tree.children.get_mut(&id) else {
            return self.tell(from, &Header::Orphan { topic });
        };
        if child.join != ack.join {
            return;
        }
        child.subscribers = ack.subscribers;
        child.note_seen(cx.now, ack.version);
        let before = child.cursor;
        if let (Some(log), Some(cursor)) = (&tree.log, &mut child.cursor)
            && ack.version >= cursor.version
        {
            advance(&log.window, cursor, &ack);
            if let Some(entry) = missing(&log.window, cursor, &ack) {
                let payload = entry.encoded.clone();
                self.out.requests.push_back(Request::Send { to: from, payload });
            }
        }
        let progress = child.cursor != before;
        let settled = child.version_seen == child.version
            && child.cursor.is_none_or(|cursor| cursor.next <= cursor.acknowledged);
        if progress {
            child.rto = millis(self.config.push_rto_min);
        }
        if progress || settled {
            self.deadlines.cancel(Timer::Push(topic, id));
        }
        if !settled {
            self.deadlines
                .set_earlier(Timer::Push(topic, id), cx.now + Duration::from_millis(child.rto.into()));
        }
        self.note_subscribers(cx, topic);
        self.push(cx, topic, id);
    }

    /// A child has not acknowledged in time: go back and push again.
    pub(super) fn on_push_timer(&mut self, cx: Context<'_>, topic: TopicId, id: NodeId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let Some(child) = tree.children.get_mut(&id) else { return };
        child.rto = child.rto.saturating_mul(2).min(millis(self.config.push_rto_max));
        if let (Some(log), Some(cursor)) = (&tree.log, &mut child.cursor) {
            if cursor.acknowledged < log.window.start() {
                return self.restart(cx, topic, id);
            }
            cursor.next = cursor.acknowledged;
        }
        if child.version_seen < child.version {
            self.repeat_attached(cx, topic, id);
        }
        self.push(cx, topic, id);
    }

    /// The transport says how much waits for a peer.
    pub fn handle_queued(&mut self, cx: Context<'_>, peer: NodeId, bytes: usize) {
        if bytes > self.config.high_water {
            self.congested.insert(peer);
        } else if self.congested.remove(&peer) {
            for (topic, child) in self.stalled.remove(&peer).unwrap_or_default() {
                self.push(cx, topic, child);
            }
        }
        self.settle(cx);
    }

    /// The parent says where it starts.
    pub(super) fn on_started(&mut self, cx: Context<'_>, topic: TopicId, started: Started) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let Started { term, after, latest } = started;
        if tree.markless == tree.join && tree.log.as_ref().is_some_and(|log| skips(log, after)) {
            // A late copy of a JOIN without a mark found a parent that had forgotten this node meanwhile. That begins
            // this node at the parent's own end, though the parent may hold what comes before: a JOIN with the mark
            // asks for it.
            return self.refresh(cx, topic);
        }
        let fresh = || Log { birth: after.birth, term, window: Window::new(after.position) };
        match &mut tree.log {
            None => tree.log = Some(fresh()),
            Some(log) if log.birth != after.birth => {
                tree.early.clear();
                tree.heard = None;
                forsake(tree, fresh());
            }
            Some(log) => {
                log.term = log.term.max(term);
                if after.position > log.window.tail() {
                    // What the parent's window no longer holds is lost to this node, and to those below.
                    renew(tree, Window::new(after.position));
                }
            }
        }
        self.count_window(cx.now, topic);
        self.append_early(cx, topic);
        self.begin_subscriptions(cx, topic, latest);
        self.start_children(cx, topic);
        self.flow(cx, topic);
    }

    /// Somebody pushes entries of a topic to this node without being its parent. It is told, though not for each.
    fn deny_data(&mut self, cx: Context<'_>, from: Contact, topic: TopicId) {
        if cx.now.since(self.denied) >= self.config.ack_delay {
            self.denied = cx.now;
            self.deny(from, topic, self.joins);
        }
    }
}

impl Child {
    /// It has seen a word: the last one, if that was said but once, tells how far it is.
    fn note_seen(&mut self, now: Instant, version: u64) {
        let first = version == self.version && self.version_seen < version;
        if first && !self.said_again {
            let took = u32::try_from(now.since(self.said).as_micros()).unwrap_or(u32::MAX);
            self.rtt = self.rtt.min(took);
        }
        self.version_seen = self.version_seen.max(version.min(self.version));
        self.held = false;
    }
}

/// Moves a cursor by an acknowledgement.
fn advance(window: &Window, cursor: &mut Cursor, ack: &Ack) {
    if let Follow::At(offset) = window.follow(ack.position)
        && offset > cursor.acknowledged
    {
        cursor.acknowledged = offset;
        cursor.next = cursor.next.max(offset);
        cursor.repeated = None;
    }
}

/// The one entry that a child misses: it was pushed, and others after it have come. It is sent again once at the
/// child's wish; if that is lost too, the timer goes back and pushes all that follows.
fn missing<'a>(window: &'a Window, cursor: &mut Cursor, ack: &Ack) -> Option<&'a Held> {
    let at = cursor.acknowledged;
    if !ack.again || cursor.next <= at || cursor.repeated == Some(at) {
        return None;
    }
    let entry = window.entry(at)?;
    cursor.repeated = Some(at);
    Some(entry)
}

/// Whether a start of this node lies beyond what it has, or in another log.
fn skips(log: &Log, start: Mark) -> bool {
    start.birth != log.birth || start.position > log.window.tail()
}

/// A term begins at the window's end: whoever was ahead of that, on a branch that is over, goes back to it.
fn clamp(tree: &mut Tree) {
    let Some(log) = &tree.log else { return };
    let end = log.window.end();
    for cursor in tree.children.values_mut().filter_map(|child| child.cursor.as_mut()) {
        cursor.next = cursor.next.min(end);
        cursor.acknowledged = cursor.acknowledged.min(end);
    }
    for reader in tree.subscriptions.values_mut().filter_map(|subscription| subscription.reader.as_mut()) {
        reader.next = reader.next.min(end);
    }
}

/// Another window of the same log: an offset of the old one may lie on another branch in this. So children are started
/// anew, with the term that is about to begin, from where they are; readers go on where it leads on for them.
pub(super) fn renew(tree: &mut Tree, window: Window) {
    let Some(log) = &mut tree.log else { return };
    let old = std::mem::replace(&mut log.window, window);
    for child in tree.children.values_mut() {
        if let Some(cursor) = child.cursor.take() {
            let position = old.before(cursor.acknowledged);
            child.after = Some(Box::new(Mark { birth: log.birth, position }));
        }
    }
    for reader in tree.subscriptions.values_mut().filter_map(|subscription| subscription.reader.as_mut()) {
        match log.window.follow(reader.last) {
            Follow::At(next) => reader.next = next.min(log.window.end()),
            Follow::Newer => reader.next = log.window.end(),
            Follow::TooOld => {
                reader.next = log.window.start();
                reader.owed.get_or_insert((GapReason::OutOfWindow, reader.last));
            }
        }
    }
}

/// The log is another one: everybody begins at its start, and hears that what they had is no more.
pub(super) fn forsake(tree: &mut Tree, log: Log) {
    let start = log.window.start();
    let Some(old) = tree.log.replace(log) else { return };
    for child in tree.children.values_mut() {
        if let Some(cursor) = child.cursor.take() {
            // Without a mark it would begin at the end, and not come by what says that the log is another one.
            let position = old.window.before(cursor.acknowledged);
            child.after = Some(Box::new(Mark { birth: old.birth, position }));
        }
    }
    for reader in tree.subscriptions.values_mut().filter_map(|subscription| subscription.reader.as_mut()) {
        let after = reader.owed.map_or(reader.last, |(_, after)| after);
        *reader = super::tree::Reader { last: None, next: start, owed: Some((GapReason::OtherLog, after)) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::position::encode_entry;
    use super::super::tree::{Cursor, Reader, Subscription};
    use super::*;
    use crate::event::SubscriptionId;
    use crate::message::{Gap, Item, Position, Start, Term};
    use crate::seen::Seen;
    use crate::topic::TopicId;
    use treecast_overlay::id::Key;

    const TOPIC: TopicId = TopicId(Key(1));

    fn at(number: u64, offset: u64) -> Position {
        Position { term: Term { number, root: NodeId(9) }, offset }
    }

    fn start_of(at: Position, previous: Position, forced: bool) -> Entry {
        encode_entry(TOPIC, at, Body::TermStart { previous: Some(previous.term), forced }, &[])
    }

    fn tree(last: Position) -> Tree {
        let mut tree = Tree::new(Instant::ZERO, TOPIC);
        let term = Term { number: 1, root: NodeId(9) };
        tree.log = Some(Log { birth: 7, term, window: Window::new(Some(last)) });
        let reader = Some(Reader { last: Some(last), next: last.offset + 1, owed: None });
        let subscription = Subscription {
            start: Start::Latest,
            credit: 9,
            reader,
            seen: Seen::default(),
            parent_news: None,
        };
        tree.subscriptions.insert(SubscriptionId(1), subscription);
        tree
    }

    fn next_item(tree: &mut Tree) -> Option<Item> {
        let log = tree.log.as_ref()?;
        tree.subscriptions.values_mut().next()?.poll_item(log)
    }

    #[test]
    fn a_reader_on_a_lost_branch_hears_of_it_where_the_window_begins_anew() {
        // Term 2 began behind 1:5 and ended with 2:6. Of both nothing is here: the reader has come to 1:8.
        let mut tree = tree(at(1, 8));
        renew(&mut tree, Window::new(Some(at(2, 6))));
        let log = tree.log.as_mut().unwrap();
        log.window.append(start_of(at(3, 7), at(2, 6), false));
        let gap = Gap { after: Some(at(1, 8)), until: Some(at(3, 7)), reason: GapReason::OutOfWindow };
        assert_eq!(next_item(&mut tree), Some(Item::Gap(gap)));
    }

    #[test]
    fn a_reader_hears_that_it_was_on_a_branch_that_is_over() {
        // Two roots opened a term 2 behind 1:5; this log is the one that was handed over, the reader was on the other.
        let mut tree = tree(at(1, 5));
        let beside = Position { term: Term { number: 2, root: NodeId(3) }, offset: 8 };
        tree.subscriptions.values_mut().next().unwrap().reader.as_mut().unwrap().last = Some(beside);
        let log = tree.log.as_mut().unwrap();
        log.window.append(start_of(at(2, 6), at(1, 5), false));
        let gap = Gap { after: Some(beside), until: Some(at(2, 6)), reason: GapReason::RootLost };
        assert_eq!(next_item(&mut tree), Some(Item::Gap(gap)));
    }

    #[test]
    fn that_it_is_another_log_is_not_concealed_by_a_forced_term() {
        let mut tree = tree(at(1, 8));
        let other = Log { birth: 8, term: at(1, 2).term, window: Window::new(Some(at(1, 2))) };
        forsake(&mut tree, other);
        tree.log.as_mut().unwrap().window.append(start_of(at(2, 3), at(1, 2), true));
        let gap = Gap { after: Some(at(1, 8)), until: Some(at(2, 3)), reason: GapReason::OtherLog };
        assert_eq!(next_item(&mut tree), Some(Item::Gap(gap)));
    }

    #[test]
    fn a_child_of_a_window_that_begins_anew_is_started_anew() {
        let mut tree = tree(at(1, 8));
        let cursor = Cursor { next: 9, acknowledged: 9, version: 1, repeated: None };
        tree.children.insert(
            NodeId(5),
            Child {
                incarnation: 1,
                join: 1,
                after: None,
                subscribers: 1,
                version: 1,
                version_seen: 1,
                cursor: Some(cursor),
                rto: 100,
                rtt: 1,
                said: Instant::ZERO,
                said_again: false,
                held: false,
                rests_until: Instant::ZERO,
            },
        );
        renew(&mut tree, Window::new(Some(at(2, 6))));
        let child = tree.children.get(&NodeId(5)).unwrap();
        assert!(child.cursor.is_none());
        assert_eq!(child.after.as_deref(), Some(&Mark { birth: 7, position: Some(at(1, 8)) }));
    }
}

//! The children of one tree at this node: each is a cursor into this node's window, pushed as fast as its link takes it
//! (design §6, tree).

use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;

use crate::config::Config;
use crate::forest::context::{TreeCx, TreeTimer};
use crate::forest::neighbours::Link;
use crate::log::cursor::Cursor;
use crate::log::pace::{Pace, Slowest};
use crate::log::{Change, Log};
use crate::message::{Mark, Position};
use crate::permit::Permit;
use crate::sorted::SortedMap;
use crate::wire::{Ack, Attached, Header, Join};

/// Most entries that fly to a child which has not acknowledged in time: enough to learn what it has, too few to flood
/// one that is only slow.
const REPEATED_AT_ONCE: u64 = 32;

/// All children of this node in one tree.
#[derive(Debug, Default)]
pub(crate) struct Children {
    by_id: SortedMap<NodeId, Child>,
    /// What one that was behind when it went had consumed, and until when the others wait for it: it may be on its way to
    /// another parent.
    gone: Option<(u64, Instant)>,
}

/// A child of this node.
#[derive(Debug)]
pub(crate) struct Child {
    /// The life of it that joined.
    incarnation: u64,
    /// Its JOIN.
    pub join: u64,
    /// The mark that it asked to continue after; not kept once it is started.
    resume_point: Option<Box<Mark>>,
    /// Subscribers at and below it.
    subscribers: u64,
    /// The number of the last `Attached` that it was sent.
    pub seq: u64,
    /// The last one that it has acknowledged.
    seq_seen: u64,
    /// `None` until it is started.
    cursor: Option<Cursor>,
    /// The offset before which all at and below it have consumed everything, by its own account.
    consumed: u64,
    /// Whether it keeps up.
    pace: Pace,
    /// How long this node waits for a sign of progress, in milliseconds.
    rto: u32,
    /// Shortest time from an `Attached` to its acknowledgement, in µs; `u32::MAX`: not measured yet.
    pub rtt: u32,
    /// When the last `Attached` was first sent.
    sent_at: Instant,
    /// It was sent again: its acknowledgement measures nothing.
    resent: bool,
    /// It has not acknowledged in time: little is pushed until it does.
    overdue: bool,
    /// The child has another parent still: nothing is pushed before its first acknowledgement.
    held: bool,
    /// Until then it is offered no parents, and to no node as one.
    pub rests_until: Instant,
    /// Counts the child in the node's quota.
    _permit: Permit,
}

/// The source of all that children are told and pushed: this node's way to the root, and its part of the log.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    /// From this node's parent to the root.
    pub path: &'a [NodeId],
    /// How the path's last node, the root, is reached, if that is known.
    pub root: Option<Peer>,
    /// `None` until this node is started itself.
    pub log: Option<&'a Log>,
}

/// The fate of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acked {
    /// The sender is no child.
    Stranger,
    /// It is of another JOIN than the child's last one.
    OtherJoin,
    Taken,
}

/// A child's place when it says goodbye for another parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Farewell {
    /// The last entry that was pushed to it.
    pub last: Option<Position>,
}

impl Children {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(crate) fn contains(&self, id: NodeId) -> bool {
        self.by_id.contains_key(&id)
    }

    /// Their ids, in order.
    pub(crate) fn ids(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.by_id.keys().copied()
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Child> {
        self.by_id.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut Child> {
        self.by_id.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (NodeId, &Child)> {
        self.by_id.iter().map(|(&id, child)| (id, child))
    }

    /// Subscribers at and below them.
    pub(crate) fn subscribers(&self) -> u64 {
        self.by_id.values().fold(0, |sum, child| sum.saturating_add(child.subscribers))
    }

    /// The marks that children which were not started asked to continue after.
    pub(crate) fn resume_points(&self) -> impl Iterator<Item = Mark> {
        self.by_id.values().filter_map(|child| child.resume_point.as_deref().copied())
    }

    /// Takes a child by its JOIN. A repetition changes nothing: its answer was lost, or is on its way, and is sent
    /// again. Returns whether the JOIN is not older than one that came before.
    pub(crate) fn admit(&mut self, cx: &mut TreeCx<'_>, contact: Contact, join: &Join) -> bool {
        let number = (contact.peer.incarnation, join.number);
        let known = self.by_id.get(&contact.id()).map(|child| (child.incarnation, child.join));
        if known.is_some_and(|known| number < known) {
            return false;
        }
        if known != Some(number) {
            let mut child = Child::new(cx, contact, join);
            if let Some(old) = self.by_id.remove(&contact.id()) {
                // That it joins anew is no progress of its subscribers.
                child.pace = old.pace;
                self.on_gone(cx, &old);
            }
            self.by_id.insert(contact.id(), child);
        }
        cx.neighbours.add(cx.now, Link::Child, contact, cx.topic);
        true
    }

    /// Tells a child how things are now, and starts it if that can be.
    pub(crate) fn attach(&mut self, cx: &mut TreeCx<'_>, source: Source<'_>, id: NodeId) {
        let Some(child) = self.by_id.get_mut(&id) else { return };
        child.seq = cx.numbers.next_attached();
        (child.sent_at, child.resent) = (cx.now, false);
        if let (None, Some(log)) = (child.cursor, source.log) {
            child.cursor = Cursor::after(log, child.resume_point.as_deref().copied(), child.seq);
            if let Some(cursor) = &child.cursor {
                child.resume_point = None;
                child.consumed = cursor.next;
                child.pace.skip_to(cursor.next);
            }
        }
        self.send_attached(cx, source, id);
    }

    /// Tells all children.
    pub(crate) fn attach_all(&mut self, cx: &mut TreeCx<'_>, source: Source<'_>) {
        for id in self.ids().collect::<Vec<_>>() {
            self.attach(cx, source, id);
        }
    }

    /// Starts the children that waited for this node's own start, or for its term.
    pub(crate) fn start_waiting(&mut self, cx: &mut TreeCx<'_>, source: Source<'_>) {
        let waiting = self.iter().filter(|(_, child)| child.cursor.is_none());
        for id in waiting.map(|(id, _)| id).collect::<Vec<_>>() {
            self.attach(cx, source, id);
        }
    }

    fn send_attached(&mut self, cx: &mut TreeCx<'_>, source: Source<'_>, id: NodeId) {
        let Some(child) = self.by_id.get(&id) else { return };
        let mut path = vec![cx.me];
        path.extend_from_slice(source.path);
        let start = child.cursor.as_ref().zip(source.log).map(|(cursor, log)| cursor.started(log));
        let attached =
            Attached { topic: cx.topic, join: child.join, seq: child.seq, path, root: source.root, start };
        let Some(to) = cx.neighbours.contact(id) else { return };
        cx.timers.set_earlier(TreeTimer::Push(id), cx.now + child.rto());
        cx.tell(to, &Header::Attached(attached));
    }

    /// Pushes to all children.
    pub(crate) fn push_all(&mut self, cx: &mut TreeCx<'_>, source: Source<'_>) {
        for id in self.ids().collect::<Vec<_>>() {
            self.push(cx, source, id);
        }
    }

    /// Moves a child's cursor as far as its link takes it.
    pub(crate) fn push(&mut self, cx: &mut TreeCx<'_>, source: Source<'_>, id: NodeId) {
        let (Some(log), Some(child)) = (source.log, self.by_id.get_mut(&id)) else { return };
        let Some(cursor) = child.cursor.as_mut().filter(|_| !child.held) else { return };
        if cursor.next < log.window.start() {
            return self.restart(cx, source, id);
        }
        let Some(to) = cx.neighbours.contact(id) else { return };
        let messages = if child.overdue { REPEATED_AT_ONCE } else { u64::MAX };
        let messages = messages.min(cx.config.push.messages as u64);
        let burst = cx.config.push.bytes.div_ceil(4);
        let mut pushed = 0;
        while let Some(entry) = log.window.entry(cursor.next) {
            if pushed >= burst || cx.links.hold_back(to, cx.topic) {
                break;
            }
            let flying = cursor.next - cursor.acknowledged;
            let bytes = log.window.bytes_between(cursor.acknowledged, cursor.next) as usize;
            // One message may be larger than the limit: it flies alone.
            let full = bytes + entry.encoded.len() > cx.config.push.bytes;
            if flying >= messages || (full && flying > 0) {
                break;
            }
            pushed += entry.encoded.len();
            cx.out.send(to, entry.encoded.clone());
            cursor.next += 1;
        }
        let in_flight = cursor.is_in_flight();
        if in_flight && !cx.timers.is_set(TreeTimer::Push(id)) {
            cx.timers.set(TreeTimer::Push(id), cx.now + child.patience(cx.config));
        }
    }

    /// A child that fell out of the window goes on at its start; it finds the gap by itself.
    fn restart(&mut self, cx: &mut TreeCx<'_>, source: Source<'_>, id: NodeId) {
        let (Some(log), Some(child)) = (source.log, self.by_id.get_mut(&id)) else { return };
        // Valid from the `Attached` on that says so, which is the next one.
        child.cursor = Some(Cursor::at(log.window.start(), cx.numbers.last_attached() + 1));
        // What it will say of its subscribers after that leap is no progress of theirs.
        child.consumed = log.window.start();
        child.pace.skip_to(child.consumed);
        self.attach(cx, source, id);
        self.push(cx, source, id);
    }

    /// A child says how far it is.
    pub(crate) fn on_ack(
        &mut self,
        cx: &mut TreeCx<'_>,
        source: Source<'_>,
        from: Contact,
        ack: &Ack,
    ) -> Acked {
        let Some(child) = self.by_id.get_mut(&from.id()) else { return Acked::Stranger };
        if child.join != ack.join {
            return Acked::OtherJoin;
        }
        child.subscribers = ack.subscribers;
        child.note_seen(cx.now, ack.seq);
        let before = child.cursor;
        // An acknowledgement from before the cursor was last set speaks of another window, or of another branch.
        if let (Some(log), Some(cursor)) = (source.log, &mut child.cursor)
            && ack.seq >= cursor.seq
        {
            cursor.on_ack(&log.window, ack);
            child.consumed = ack.consumed;
            if let Some(entry) = cursor.repeat(cx.now, &log.window, ack) {
                cx.out.send(from, entry.encoded.clone());
            }
        }
        // Settled: nothing is awaited from the child. The wait begins anew only with progress, because otherwise a
        // child that repeats itself would put off the timer that pushes again.
        let progress = child.cursor != before;
        let settled =
            child.seq_seen == child.seq && !child.cursor.is_some_and(|cursor| cursor.is_in_flight());
        let timer = TreeTimer::Push(from.id());
        if progress {
            (child.rto, child.overdue) = (millis(cx.config.push.rto_min), false);
        }
        if progress || settled {
            cx.timers.cancel(timer);
        }
        if !settled {
            cx.timers.set_earlier(timer, cx.now + child.patience(cx.config));
        }
        self.push(cx, source, from.id());
        Acked::Taken
    }

    /// A child has not acknowledged in time: goes back, and pushes again.
    pub(crate) fn on_push_timer(&mut self, cx: &mut TreeCx<'_>, source: Source<'_>, id: NodeId) {
        let Some(child) = self.by_id.get_mut(&id) else { return };
        child.rto = child.rto.saturating_mul(2).min(millis(cx.config.push.rto_max));
        if let (Some(log), Some(cursor)) = (source.log, &mut child.cursor) {
            if cursor.acknowledged < log.window.start() {
                return self.restart(cx, source, id);
            }
            child.overdue |= cursor.is_in_flight();
            cursor.next = cursor.acknowledged;
        }
        if child.seq_seen < child.seq {
            child.resent = true;
            self.send_attached(cx, source, id);
        }
        self.push(cx, source, id);
    }

    /// Takes into account how far they are, and one that has gone.
    pub(crate) fn survey(&mut self, now: Instant, end: u64, patience: Duration, slowest: &mut Slowest) {
        self.gone = self.gone.filter(|&(consumed, until)| consumed < end && now < until);
        if let Some((consumed, until)) = self.gone {
            slowest.add_until(now, consumed, until);
        }
        // One that has another parent still is counted there.
        for child in self.by_id.values_mut().filter(|child| child.cursor.is_some() && !child.held) {
            child.pace.note(now, child.consumed, end);
            slowest.add(now, &child.pace, patience + patience / 2);
        }
    }

    /// A child is gone, or has joined anew: the others wait a while for what it lacked.
    fn on_gone(&mut self, cx: &TreeCx<'_>, child: &Child) {
        let patience = cx.config.admission.patience;
        let mut slowest = Slowest::none(u64::MAX);
        if child.cursor.is_some() && !child.held {
            slowest.add(cx.now, &child.pace, patience + patience / 2);
        }
        if slowest.until.is_some() {
            self.wait_for_gone(slowest.consumed, cx.now + patience);
        }
    }

    /// Lets the others wait for one that has gone, and had come so far.
    pub(crate) fn wait_for_gone(&mut self, consumed: u64, until: Instant) {
        let before = self.gone.map_or(u64::MAX, |(consumed, _)| consumed);
        self.gone = Some((consumed.min(before), until));
    }

    /// Whether a child has acknowledged all up to an offset.
    pub(crate) fn has_acknowledged(&self, id: NodeId, end: u64) -> bool {
        let cursor = self.by_id.get(&id).and_then(|child| child.cursor);
        cursor.is_some_and(|cursor| cursor.acknowledged >= end)
    }

    /// Whether a LEAVE is of the child's last JOIN, or of a later life of it, which numbers its JOINs anew.
    pub(crate) fn is_left_by(&self, from: Contact, join: u64) -> bool {
        let told = (from.peer.incarnation, join);
        self.by_id.get(&from.id()).is_some_and(|child| (child.incarnation, child.join) <= told)
    }

    /// Where a child stands that goes to another parent, unless it has joined anew since.
    pub(crate) fn farewell(&self, id: NodeId, join: u64, log: Option<&Log>) -> Option<Farewell> {
        let child = self.by_id.get(&id).filter(|child| child.join <= join)?;
        let last = log.zip(child.cursor).and_then(|(log, cursor)| log.window.before(cursor.next));
        Some(Farewell { last })
    }

    /// Lets a child go. Returns whether it was one.
    pub(crate) fn remove(&mut self, cx: &mut TreeCx<'_>, id: NodeId) -> bool {
        let Some(child) = self.by_id.remove(&id) else { return false };
        self.on_gone(cx, &child);
        if let Some(contact) = cx.neighbours.contact(id) {
            forget(cx, contact);
        }
        true
    }

    /// Sends all children away: this node leaves the tree.
    pub(crate) fn disband(&mut self, cx: &mut TreeCx<'_>) {
        let topic = cx.topic;
        for id in self.ids().collect::<Vec<_>>() {
            let Some(contact) = cx.neighbours.contact(id) else { continue };
            forget(cx, contact);
            cx.tell(contact, &Header::Orphan { topic });
        }
        self.by_id.clear();
        self.gone = None;
    }

    /// Follows a change of the log.
    pub(crate) fn follow(&mut self, change: &Change) {
        match change {
            Change::None => {}
            Change::Truncated { end } => self.truncate_cursors(*end),
            // An offset of the old window may lie on another branch in the new one, and without a mark a child of
            // another log would begin at its end, and not hear that the log is another one: children are started anew,
            // from where they are, with the term that is about to begin.
            Change::Rebased { old } | Change::Replaced { old } => self.detach_cursors(old),
        }
    }

    fn truncate_cursors(&mut self, end: u64) {
        self.by_id
            .values_mut()
            .filter_map(|child| child.cursor.as_mut())
            .for_each(|cursor| cursor.truncate(end));
        self.by_id.values_mut().for_each(|child| child.consumed = child.consumed.min(end));
    }

    fn detach_cursors(&mut self, old: &Log) {
        self.gone = None;
        for child in self.by_id.values_mut() {
            if let Some(cursor) = child.cursor.take() {
                let position = old.window.before(cursor.acknowledged);
                child.resume_point = Some(Box::new(Mark { birth: old.birth, position }));
            }
        }
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        let boxed = |child: &Child| child.resume_point.as_ref().map_or(0, |mark| size_of_val(&**mark));
        self.by_id.bytes() + self.by_id.values().map(boxed).sum::<usize>()
    }

    /// Panics if a child contradicts itself.
    pub(crate) fn check(&self, is_started: bool) {
        for (id, child) in self.iter() {
            let Some(cursor) = &child.cursor else { continue };
            assert!(is_started, "{id} is started by a node that is not");
            assert!(cursor.acknowledged <= cursor.next, "{id} has acknowledged what was not pushed");
            assert!(child.seq_seen <= child.seq, "{id} has seen what was not sent");
        }
    }
}

impl Child {
    fn new(cx: &TreeCx<'_>, contact: Contact, join: &Join) -> Child {
        Child {
            incarnation: contact.peer.incarnation,
            join: join.number,
            resume_point: join.after.map(Box::new),
            subscribers: join.subscribers,
            seq: 0,
            seq_seen: 0,
            cursor: None,
            consumed: 0,
            pace: Pace::default(),
            rto: millis(cx.config.push.rto_min),
            rtt: u32::MAX,
            sent_at: cx.now,
            resent: false,
            overdue: false,
            held: join.former.is_some(),
            rests_until: cx.now,
            _permit: cx.quota.children.take(),
        }
    }

    /// How long an `Attached` may go unacknowledged.
    fn rto(&self) -> Duration {
        Duration::from_millis(self.rto.into())
    }

    /// How long the child may be silent: all that it has to acknowledge at once comes sooner than entries.
    fn patience(&self, config: &Config) -> Duration {
        let delay = if self.seq_seen < self.seq { Duration::ZERO } else { config.push.ack_delay };
        self.rto() + delay
    }

    /// Notes that it has seen an `Attached`: the last one, if that was sent but once, tells how far away it is.
    fn note_seen(&mut self, now: Instant, seq: u64) {
        let first = seq == self.seq && self.seq_seen < seq;
        if first && !self.resent {
            let took = u32::try_from(now.since(self.sent_at).as_micros()).unwrap_or(u32::MAX);
            self.rtt = self.rtt.min(took);
        }
        self.seq_seen = self.seq_seen.max(seq.min(self.seq));
        self.held = false;
    }

    /// Whether nothing is pushed to it yet, because it has another parent still.
    #[cfg(test)]
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// High if a detour through a sibling costs little: few nodes are below the child, and it is far away anyway.
    pub(crate) fn detour_gain(&self) -> u64 {
        u64::from(self.rtt) / self.subscribers.max(1)
    }

    /// Whether it is settled here, so that it can be asked to move, or be offered to others as a parent.
    pub(crate) fn is_movable(&self, now: Instant) -> bool {
        !self.held && self.cursor.is_some() && self.seq_seen > 0 && self.rests_until <= now
    }
}

fn forget(cx: &mut TreeCx<'_>, child: Contact) {
    cx.neighbours.remove(Link::Child, child.id(), cx.topic);
    cx.timers.cancel(TreeTimer::Push(child.id()));
    cx.links.forget(child, cx.topic);
}

/// As a child's patience is kept.
fn millis(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)
}

//! The children of one tree at this node: each is a cursor into this node's window, pushed as fast as its link takes it
//! (design §6, tree).

use std::time::Duration;

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;

use crate::config::Config;
use crate::forest::context::{TreeCx, TreeTimer};
use crate::forest::neighbours::Link;
use crate::log::cursor::{Cursor, Repeats, begins_before, place};
use crate::log::pace::{Pace, Slowest};
use crate::log::primary::Primary;
use crate::log::reader::mark_at;
use crate::log::window::Held;
use crate::log::{Change, Log};
use crate::message::{Mark, Start};
use crate::permit::Permit;
use crate::sorted::SortedMap;
use crate::wire::{Ack, Attached, CopyState, Header, Join, Life, Started};

/// Most entries that fly to a child which has not acknowledged in time: enough to learn what it has, too few to flood
/// one that is only slow.
const REPEATED_AT_ONCE: u64 = 32;

/// How far apart the same entry is sent again at least, at a child's request.
const REPEATS_APART: Duration = Duration::from_millis(200);

/// So many journeys to a member and back a receipt waits for it: what was lost can be asked for twice meanwhile.
const JOURNEYS: u32 = 5;
/// The same for a member that was not heard for as long.
const JOURNEYS_TO_ONE_SILENT: u32 = 3;

/// All children of this node in one tree.
#[derive(Debug, Default)]
pub(crate) struct Children {
    by_id: SortedMap<NodeId, Child>,
    /// How far a child that went while it was behind had consumed, and until when the others wait for it: it may be on its
    /// way to another parent.
    gone: Option<(u64, Instant)>,
}

/// A child of this node.
#[derive(Debug)]
pub(crate) struct Child {
    /// The life of it that joined.
    incarnation: u64,
    /// Its JOIN.
    pub join: u64,
    /// Where it asked to begin; not kept once it is started.
    start: Option<Box<Start>>,
    /// A member, or one that is to become it: how its copy stood when it joined.
    copy: Option<Box<CopyState>>,
    /// The life in which it follows this root's log.
    follows: Option<Life>,
    /// How far it was last told that the log is committed.
    told_commit: u64,
    /// Subscribers at and below it.
    subscribers: u64,
    /// The number of the last `Attached` that it was sent.
    pub seq: u64,
    /// The last one that it has acknowledged.
    seq_seen: u64,
    /// `None` until it is started.
    cursor: Option<Cursor>,
    /// Entries that it has asked for.
    repeats: Repeats,
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
    /// It has not acknowledged in time: little is pushed until it does.
    overdue: bool,
    /// The child has another parent still: nothing is pushed before its first acknowledgement.
    held: bool,
    /// Until then it is offered no parents, and to no node as one.
    pub rests_until: Instant,
    /// Counts the child in the node's quota. Members are not counted: nobody else can be their parent.
    permit: Option<Permit>,
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
    /// `None` if this node is not the root, or does not serve yet.
    pub primary: Option<&'a Primary>,
    /// Entries that are older than the window are on their way.
    pub awaits_older: bool,
}

/// The fate of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acked {
    /// The sender is no child.
    Stranger,
    /// It is of another JOIN than the child's last one.
    OtherJoin,
    Taken {
        /// It is a member's: in that life it holds everything before that offset.
        held: Option<(Life, u64)>,
    },
}

/// A child's place when it says goodbye for another parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Farewell {
    /// The offset behind the last entry that was pushed to it.
    pub end: Option<u64>,
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

    /// Where children that were not started asked to begin.
    pub(crate) fn starts(&self) -> impl Iterator<Item = Start> {
        self.by_id.values().filter_map(|child| child.start.as_deref().copied())
    }

    /// Whether any may have subscribers, for all that it has said: members often have none.
    pub(crate) fn may_listen(&self) -> bool {
        self.by_id.values().any(|child| child.copy.is_none() || child.seq_seen == 0)
    }

    /// How many of them are no members: those count for the tree's shape.
    pub(crate) fn ordinary(&self) -> usize {
        self.by_id.values().filter(|child| child.copy.is_none()).count()
    }

    /// Children that are members, or are to become it, and how their copies stood when they joined.
    pub(crate) fn copies(&self) -> impl Iterator<Item = (NodeId, &CopyState)> {
        self.iter().filter_map(|(id, child)| Some((id, child.copy.as_deref()?)))
    }

    /// How the copy of a child stood when it joined, if it is a member or is to become one.
    pub(crate) fn copy_of(&self, id: NodeId) -> Option<&CopyState> {
        self.by_id.get(&id)?.copy.as_deref()
    }

    /// Where children begin that were not started and have a log, and how they are reached: all before is in their windows.
    pub(crate) fn starts_with_contacts(&self, cx: &TreeCx<'_>) -> Vec<(Contact, Mark)> {
        let of = |(id, child): (NodeId, &Child)| match child.start.as_deref() {
            Some(Start::After(mark)) => Some((cx.neighbours.contact(id)?, *mark)),
            _ => None,
        };
        self.iter().filter_map(of).collect()
    }

    /// The children that follow this root's log, and may not know how far it is committed: those that serve others, or all.
    pub(crate) fn followers_to_tell(&mut self, commit: u64, all: bool) -> Vec<NodeId> {
        let mut tell = Vec::new();
        for (&id, child) in self.by_id.iter_mut() {
            // One that has not said yet whether it serves any may.
            let serves = all || child.subscribers > 0 || child.seq_seen == 0;
            if child.follows.is_some() && serves && child.told_commit < commit {
                child.told_commit = commit;
                tell.push(id);
            }
        }
        tell
    }

    /// How long a receipt waits for members that do not hold its message yet: long enough for the farthest to ask twice for
    /// what was lost, within bounds; but not so long for one that is not heard.
    pub(crate) fn followers_patience(&self, cx: &TreeCx<'_>) -> Duration {
        let limits = &cx.config.replication;
        let measured =
            || self.by_id.iter().filter(|(_, child)| child.follows.is_some() && child.rtt < u32::MAX);
        let farthest = measured().map(|(_, child)| child.rtt).max().unwrap_or(0);
        let (least, most) = (limits.receipt_patience, limits.receipt_patience_max);
        let journeys = |count: u32| count * Duration::from_micros(farthest.into());
        let silent = journeys(JOURNEYS_TO_ONE_SILENT).clamp(least, most);
        let heard = |id: NodeId| cx.neighbours.find(id).map(|neighbour| neighbour.silence.heard);
        let any_silent =
            measured().any(|(&id, _)| heard(id).is_none_or(|heard| cx.now.since(heard) > silent));
        // A loss is noticed when the next entry comes.
        if any_silent { silent } else { (2 * least + journeys(JOURNEYS)).min(most) }
    }

    /// Makes a child a copy of this root's log, from an offset on.
    pub(crate) fn follow_root(&mut self, cx: &TreeCx<'_>, id: NodeId, life: Life, next: u64) {
        let Some(child) = self.by_id.get_mut(&id) else { return };
        child.follows = Some(life);
        // Valid from the `Attached` on that says so, which is the next one.
        child.cursor = Some(Cursor::at(next, cx.numbers.last_attached() + 1));
        child.start = None;
        child.consumed = next;
        child.pace.skip_to(next);
    }

    /// A child is to be started once more.
    pub(crate) fn begin_anew(&mut self, id: NodeId) {
        if let Some(child) = self.by_id.get_mut(&id) {
            child.cursor = None;
        }
    }

    /// A child is no member, nor to become one: it goes on like the others.
    pub(crate) fn release(&mut self, cx: &TreeCx<'_>, id: NodeId) -> bool {
        let Some(child) = self.by_id.get_mut(&id) else { return false };
        child.follows = None;
        child.permit.get_or_insert_with(|| cx.quota.children.take());
        let Some(copy) = child.copy.take() else { return false };
        // It drops all that it held beyond what was committed when it joined.
        child.cursor = None;
        let mark = Mark { birth: copy.birth, next: copy.commit };
        child.start = Some(Box::new(if copy.end > 0 { Start::After(mark) } else { Start::Latest }));
        true
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
        child.sent_at = cx.now;
        // A member is started by the root that makes it a copy, and by nobody else.
        if let (None, Some(log), None) = (child.cursor, source.log, &child.copy) {
            let start = child.start.as_ref().map_or(Start::Latest, |start| **start);
            if !(source.awaits_older && begins_before(log, start)) {
                let cursor = Cursor::at(place(log, start), child.seq);
                (child.start, child.cursor) = (None, Some(cursor));
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
        let start = source.started(id, child);
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
        let Some(to) = cx.neighbours.contact(id) else { return };
        if cursor.next < log.window.start() {
            // Once for all that it misses.
            if !cx.links.hold_back(to, cx.topic) {
                self.restart(cx, source, id);
            }
            return;
        }
        let messages = if child.overdue { REPEATED_AT_ONCE } else { u64::MAX };
        let messages = messages.min(cx.config.push.messages as u64);
        let end = source.end_for(id, child.follows);
        let mut pushed = 0;
        while cursor.next < end
            && let Some(entry) = log.window.entry(cursor.next)
        {
            if pushed >= burst(cx.config) || cx.links.hold_back(to, cx.topic) {
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
            cx.out.send_data(to, source.encoded(cx, child.follows, cursor.next, entry));
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
        // Its word on its subscribers after that leap is no progress of theirs.
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
        if child.follows.is_some() && child.subscribers == 0 && ack.subscribers > 0 {
            // It serves others from now on, and has to know what is committed.
            cx.at_turn_end();
        }
        child.subscribers = ack.subscribers;
        let seen_before = child.seq_seen;
        child.note_seen(cx.now, ack.seq);
        let apart = child.repeats_apart();
        let before = child.cursor;
        let mut held = None;
        // An acknowledgement from before the cursor was last set speaks of another window, or of another birth.
        if let (Some(log), Some(cursor)) = (source.log, &mut child.cursor)
            && ack.seq >= cursor.seq
        {
            cursor.on_ack(&log.window, ack);
            child.consumed = ack.consumed;
            held = child.follows.map(|life| (life, ack.next));
            let mut bytes = 0;
            // One that is no member any more has lost what is not committed.
            let end = source.end_for(from.id(), child.follows);
            let due = child.repeats.due(cx.now, apart, *cursor, ack);
            for offset in due.into_iter().filter(|&offset| offset < end) {
                let full = bytes >= burst(cx.config) || cx.links.hold_back(from, cx.topic);
                let Some(entry) = log.window.entry(offset).filter(|_| !full) else { break };
                bytes += entry.encoded.len();
                child.repeats.note(cx.now, offset);
                cx.out.send_data(from, source.encoded(cx, child.follows, offset, entry));
            }
        }
        // Settled: nothing is awaited from the child. The wait begins anew only with progress, because otherwise a
        // child that repeats itself would put off the timer that pushes again.
        let progress = child.cursor != before || child.seq_seen > seen_before;
        let settled =
            child.seq_seen == child.seq && !child.cursor.is_some_and(|cursor| cursor.is_in_flight());
        let timer = TreeTimer::Push(from.id());
        if progress {
            (child.rto, child.overdue) = (child.least_rto(cx.config), false);
        }
        if progress || settled {
            cx.timers.cancel(timer);
        }
        if !settled {
            cx.timers.set_earlier(timer, cx.now + child.patience(cx.config));
        }
        self.push(cx, source, from.id());
        Acked::Taken { held }
    }

    /// A child has not acknowledged in time: goes back, and pushes again.
    pub(crate) fn on_push_timer(&mut self, cx: &mut TreeCx<'_>, source: Source<'_>, id: NodeId) {
        let Some(child) = self.by_id.get_mut(&id) else { return };
        let asked = child.repeats.forget();
        child.rto = child.rto.saturating_mul(2).min(millis(cx.config.push.rto_max));
        if let (Some(log), Some(cursor)) = (source.log, &mut child.cursor) {
            if cursor.acknowledged < log.window.start() {
                return self.restart(cx, source, id);
            }
            // One that has just asked for what was lost has the rest, most likely. For that it is waited once.
            if !asked {
                child.overdue |= cursor.is_in_flight();
                cursor.next = cursor.acknowledged;
            }
        }
        if child.seq_seen < child.seq {
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

    /// Whether all at and below a child have consumed all up to an offset.
    pub(crate) fn has_consumed(&self, id: NodeId, end: u64) -> bool {
        self.by_id.get(&id).is_some_and(|child| child.consumed >= end)
    }

    /// Whether a LEAVE is of the child's last JOIN, or of a later life of it, which numbers its JOINs anew.
    pub(crate) fn is_left_by(&self, from: Contact, join: u64) -> bool {
        let told = (from.peer.incarnation, join);
        self.by_id.get(&from.id()).is_some_and(|child| (child.incarnation, child.join) <= told)
    }

    /// Where a child stands that goes to another parent, unless it has joined anew since.
    pub(crate) fn farewell(&self, id: NodeId, join: u64) -> Option<Farewell> {
        let child = self.by_id.get(&id).filter(|child| child.join <= join)?;
        Some(Farewell { end: child.cursor.map(|cursor| cursor.next) })
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

    /// Follows a change of the log, which was of this birth before: children are started anew, from where they are.
    pub(crate) fn follow(&mut self, old: &Log, change: &Change) {
        if matches!(change, Change::None) {
            return;
        }
        self.gone = None;
        for child in self.by_id.values_mut() {
            if let Some(cursor) = child.cursor.take() {
                child.start = Some(Box::new(Start::After(mark_at(old, cursor.acknowledged))));
            }
        }
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        let boxed = |child: &Child| {
            let start = child.start.as_ref().map_or(0, |start| size_of_val(&**start));
            start + child.copy.as_ref().map_or(0, |copy| size_of_val(&**copy))
        };
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
            start: Some(Box::new(join.start)),
            copy: join.copy.clone(),
            follows: None,
            told_commit: 0,
            subscribers: join.subscribers,
            seq: 0,
            seq_seen: 0,
            cursor: None,
            repeats: Repeats::default(),
            consumed: 0,
            pace: Pace::default(),
            rto: millis(cx.config.push.rto_min),
            rtt: u32::MAX,
            sent_at: cx.now,
            overdue: false,
            held: join.former.is_some(),
            rests_until: cx.now,
            permit: join.copy.is_none().then(|| cx.quota.children.take()),
        }
    }

    /// How long an `Attached` may go unacknowledged.
    fn rto(&self) -> Duration {
        Duration::from_millis(self.rto.into())
    }

    /// How long an entry that was sent again may be on its way, and the acknowledgement on its way back.
    fn repeats_apart(&self) -> Duration {
        let measured = if self.rtt == u32::MAX { 0 } else { self.rtt };
        REPEATS_APART.max(Duration::from_micros(measured.into()) * 5 / 4)
    }

    /// How long is waited at least, in milliseconds: by then a far child has had the time to answer.
    fn least_rto(&self, config: &Config) -> u32 {
        let measured = if self.rtt == u32::MAX { 0 } else { self.rtt / 1000 };
        millis(config.push.rto_min).max(measured.saturating_add(measured / 2))
    }

    /// How long the child may be silent: all that it has to acknowledge at once comes sooner than entries.
    fn patience(&self, config: &Config) -> Duration {
        // A member says at once what it holds.
        let at_once = self.seq_seen < self.seq || self.follows.is_some();
        let delay = if at_once { Duration::ZERO } else { config.push.ack_delay };
        self.rto() + delay
    }

    /// Notes that it has seen an `Attached`: the last one, if that was sent but once, tells how far away it is.
    fn note_seen(&mut self, now: Instant, seq: u64) {
        if seq == self.seq && self.seq_seen < seq {
            // It was sent more than once, perhaps; but no earlier than that, so it bounds the least time.
            let took = u32::try_from(now.since(self.sent_at).as_micros()).unwrap_or(u32::MAX);
            self.rtt = self.rtt.min(took);
        }
        self.seq_seen = self.seq_seen.max(seq.min(self.seq));
        self.held = false;
    }

    /// The life in which it is made a copy of this root's log.
    pub(crate) fn followed_life(&self) -> Option<Life> {
        self.follows
    }

    /// Whether it is made a copy of this root's log.
    pub(crate) fn follows_root(&self) -> bool {
        self.follows.is_some()
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
        let settled = !self.held && self.cursor.is_some() && self.seq_seen > 0;
        settled && self.copy.is_none() && self.rests_until <= now
    }
}

impl Source<'_> {
    /// The end of what may be pushed: the whole log to a member, to all others, also to one that is to become a member,
    /// what is committed.
    fn end_for(&self, id: NodeId, follows: Option<Life>) -> u64 {
        let Some(log) = self.log else { return 0 };
        let mut counting = log.configurations().all().iter();
        let is_member = follows.is_some_and(|life| counting.any(|known| known.names(id, life)));
        if is_member { log.end() } else { log.commit() }
    }

    /// An entry as it goes to a child. One that follows takes only what this root's term says.
    fn encoded(&self, cx: &TreeCx<'_>, follows: Option<Life>, offset: u64, entry: &Held) -> Bytes {
        let term = self.primary.map(|primary| primary.term().number).filter(|_| follows.is_some());
        match (term, self.log) {
            (Some(term), Some(log)) if term != entry.term => {
                let behind = offset.saturating_sub(log.commit());
                let birth = log.lineage.birth_at(offset, log.birth);
                entry.in_term(cx.topic, birth, offset, term, behind).encoded
            }
            _ => entry.encoded.clone(),
        }
    }

    /// Where a child is started, as it is told.
    fn started(&self, id: NodeId, child: &Child) -> Option<Started> {
        let (log, cursor) = (self.log?, child.cursor?);
        // Only what the child has acknowledged is surely there: what flies must not look like a gap to it.
        let next = cursor.acknowledged;
        let sync = match (child.follows, self.primary) {
            (Some(_), Some(primary)) => Some(Box::new(primary.word_for(log, id, next)?)),
            (Some(_), None) => return None,
            (None, _) => None,
        };
        let (birth, lineage, latest) = (log.birth, log.lineage.clone(), log.positioned());
        Some(Started { birth, lineage, next, latest, sync })
    }
}

/// Bytes that go to one child at once.
fn burst(config: &Config) -> usize {
    config.push.bytes.div_ceil(4)
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

//! The flow of entries through this node in one topic: its part of the log, and the children and subscribers that read
//! it. Knows neither where entries come from nor how a parent is found.

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;

use super::admission::Admission;
use super::backfill::Backfill;
use super::children::{Acked, Children, Source};
use super::history::History;
use super::readers::Readers;
use crate::config::Config;
use crate::forest::context::TreeCx;
use crate::forest::quota::{WindowShare, Windows};
use crate::log::early::Arrived;
use crate::log::local::Arrival;
use crate::log::pace::Slowest;
use crate::log::primary::Primary;
use crate::log::{Change, LocalLog, Log};
use crate::message::Start;
use crate::topic::TopicId;
use crate::wire::{Ack, Header, Join, Started, Term};

/// A topic's log at one node, with those that read it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub topic: TopicId,
    pub log: LocalLog,
    pub children: Children,
    pub readers: Readers,
    /// The offset before which all that read have consumed everything, but for those that were left behind.
    pub consumed: u64,
    /// The entries that are pulled for subscribers that are behind the window.
    pub backfill: Option<Box<Backfill>>,
    /// The entries that a member pulls for itself.
    pub history: Option<Box<History>>,
    share: WindowShare,
}

/// This node's way to the root, as its children are told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WayUp<'a> {
    /// From this node's parent to the root.
    pub path: &'a [NodeId],
    /// How the path's last node, the root, is reached, if that is known.
    pub root: Option<Peer>,
    /// `None` if this node is not the root, or does not serve yet.
    pub primary: Option<&'a Primary>,
}

impl Flow {
    pub(crate) fn new(now: Instant, topic: TopicId) -> Flow {
        Flow {
            topic,
            log: LocalLog::default(),
            children: Children::default(),
            readers: Readers::default(),
            consumed: 0,
            backfill: None,
            history: None,
            share: WindowShare::new(now),
        }
    }

    /// Whether any child or subscriber needs it.
    pub(crate) fn is_needed(&self) -> bool {
        !self.children.is_empty() || !self.readers.is_empty()
    }

    /// Subscribers at and below this node.
    pub(crate) fn subscribers(&self) -> u64 {
        self.children.subscribers().saturating_add(self.readers.len() as u64)
    }

    /// The same as an honest estimate: 0 only if no child has any, be it that it has not said so yet.
    pub(crate) fn listeners(&self) -> u64 {
        self.subscribers().max(u64::from(self.children.may_listen()))
    }

    /// This node's JOIN for a parent, under a certain number. `former`: the parent that it keeps until the other one
    /// pushes.
    pub(crate) fn join_message(&self, number: u64, former: Option<NodeId>) -> Join {
        let subscribers = self.subscribers();
        let copy = self.log.copy_state().map(Box::new);
        let start = self.start_wanted();
        Join { topic: self.topic, number, start, subscribers, former, copy, by_third: false }
    }

    /// Where this node wants to begin or to go on: where its own log ends, else at the earliest place that its children and
    /// subscribers ask for.
    pub(crate) fn start_wanted(&self) -> Start {
        if let Some(mark) = self.log.mark() {
            return Start::After(mark);
        }
        self.children.starts().chain(self.readers.starts()).fold(Start::Latest, earlier)
    }

    /// Takes an entry from the parent.
    pub(crate) fn take(&mut self, cx: &mut TreeCx<'_>, from: NodeId, entry: Arrived) -> Arrival {
        let arrival = self.log.take(from, entry, cx.config.push.messages, cx.config.push.bytes);
        self.count_window(cx);
        if arrival == Arrival::Next {
            cx.note_moved();
        }
        arrival
    }

    /// Keeps an entry for the time when this node is started.
    pub(crate) fn keep_early(&mut self, cx: &mut TreeCx<'_>, from: NodeId, entry: Arrived) {
        self.log.keep_early(from, entry, cx.config.push.messages, cx.config.push.bytes);
        self.count_window(cx);
    }

    /// Begins where the parent starts this node, or goes on there. Returns `false` if the parent takes this node for a
    /// member in a life that is not its own.
    pub(crate) fn start(&mut self, cx: &mut TreeCx<'_>, from: NodeId, started: &Started) -> bool {
        let me = cx.me;
        let taken = self.change_log(|log| match log.start(me, from, started) {
            Some(change) => (change, true),
            None => (Change::None, false),
        });
        self.readers.reconsider_starts();
        self.count_window(cx);
        taken
    }

    /// A member hears what is committed from a parent that is not the root.
    pub(crate) fn listen(&mut self, cx: &mut TreeCx<'_>, from: NodeId, started: &Started) {
        self.log.listen(from, started);
        self.readers.reconsider_starts();
        self.count_window(cx);
    }

    /// A root tells members how far the log is committed: those that serve others, or all.
    pub(crate) fn tell_commit(&mut self, cx: &mut TreeCx<'_>, term: Term, all: bool) {
        let Some(commit) = self.log.part().map(Log::commit) else { return };
        let message = Header::LogCommit { topic: cx.topic, term, commit };
        for id in self.children.followers_to_tell(commit, all) {
            if let Some(to) = cx.neighbours.contact(id) {
                cx.tell(to, &message);
            }
        }
    }

    /// Changes the log, and lets children and subscribers follow.
    pub(crate) fn change_log<T>(&mut self, change: impl FnOnce(&mut LocalLog) -> (Change, T)) -> T {
        // Whatever a child has not acknowledged yet it is started anew with.
        let old = self.log.part().map(|log| Log::new(log.birth, log.lineage.clone(), log.commit()));
        let (change, result) = change(&mut self.log);
        if let Some(old) = old {
            self.follow(&old, &change);
        }
        result
    }

    fn follow(&mut self, old: &Log, change: &Change) {
        self.children.follow(old, change);
        if let Some(new) = self.log.part() {
            self.readers.follow(old, new, change);
        }
    }

    /// Bounds the window, and counts its bytes.
    pub(crate) fn count_window(&mut self, cx: &mut TreeCx<'_>) {
        self.log.trim(cx.config.window.messages, cx.config.window.bytes);
        cx.quota.windows.count(self.topic, &mut self.share, self.log.bytes(), cx.now);
    }

    /// Gives up half of the window, because all windows of the node together are too large; what is not consumed yet only
    /// if `all` may go.
    pub(crate) fn shrink_window(&mut self, windows: &mut Windows, all: bool) {
        if self.log.is_member() {
            // Entries that fall out are not pulled again.
            self.history.get_or_insert_default().close();
        }
        self.log.shrink(if all { u64::MAX } else { self.consumed });
        windows.count_shrunk(self.topic, &mut self.share, self.log.bytes());
    }

    /// Pushes to all children, and delivers to this node's own subscribers.
    pub(crate) fn run(&mut self, cx: &mut TreeCx<'_>, way: WayUp<'_>) {
        self.deliver(cx);
        let (children, source) = self.serving(way);
        children.push_all(cx, source);
        self.survey(cx);
    }

    /// Looks how far the slowest of those that read is. Returns when it is left behind, unless it goes on.
    pub(crate) fn survey(&mut self, cx: &TreeCx<'_>) -> Option<Instant> {
        let end = self.log.part()?.commit();
        let (mut slowest, patience) = (Slowest::none(end), cx.config.admission.patience);
        self.readers.survey(cx.now, end, patience, &mut slowest);
        self.children.survey(cx.now, end, patience, &mut slowest);
        self.consumed = slowest.consumed;
        slowest.until
    }

    /// Whether those that read leave room for another message in the log.
    pub(crate) fn has_room(&self, config: &Config) -> bool {
        self.log.part().is_none_or(|log| Admission::has_room(log, self.consumed, config))
    }

    /// Whether half of the room that readers may leave is taken.
    pub(crate) fn is_half_full(&self, config: &Config) -> bool {
        let Some(log) = self.log.part() else { return false };
        let messages = log.window.end().saturating_sub(self.consumed.max(log.window.start()));
        let bytes = log.window.cost_between(self.consumed, log.window.end());
        8 * bytes >= 3 * config.window.bytes as u64 || 8 * messages >= 3 * config.window.messages as u64
    }

    /// Lets all wait for a while for those that may come: they had most likely consumed all but half a window.
    pub(crate) fn wait_for_orphans(&mut self, cx: &TreeCx<'_>) {
        let Some(log) = self.log.part() else { return };
        let half = log.window.half_before_end(cx.config.window.bytes, cx.config.window.messages);
        self.children.wait_for_gone(half, cx.now + cx.config.admission.patience);
    }

    /// Whether this node is the root, and gets entries that are older than its window.
    pub(crate) fn awaits_older(&self) -> bool {
        self.history.as_ref().is_some_and(|history| history.awaited)
    }

    /// The first entry that a subscriber needs and that is older than the window, and where the window begins.
    pub(crate) fn lacking(&self) -> Option<(u64, u64)> {
        let log = self.log.part()?;
        Some((self.readers.lacking(log)?, log.window.start()))
    }

    /// Delivers what the subscribers of this node have credit for.
    pub(crate) fn deliver(&mut self, cx: &mut TreeCx<'_>) {
        if let Some(log) = self.log.part() {
            if self.readers.can_start(log) {
                self.readers.start_waiting(cx, log, 0);
            }
            self.readers.deliver(log, self.backfill.as_ref().map(|backfill| &backfill.backlog), cx.out);
        }
    }

    /// Gives a start to the subscribers that have none, if the log was started. `latest`: the end of the parent's log, if it
    /// has just said so.
    pub(crate) fn start_readers(&mut self, cx: &mut TreeCx<'_>, latest: u64) {
        if let Some(log) = self.log.part() {
            self.readers.start_waiting(cx, log, latest);
        }
    }

    /// Starts the children that waited for this node's own start, or for its term.
    pub(crate) fn start_children(&mut self, cx: &mut TreeCx<'_>, way: WayUp<'_>) {
        let (children, source) = self.serving(way);
        children.start_waiting(cx, source);
    }

    /// Tells a child how things are now.
    pub(crate) fn attach(&mut self, cx: &mut TreeCx<'_>, way: WayUp<'_>, child: NodeId) {
        let (children, source) = self.serving(way);
        children.attach(cx, source, child);
    }

    /// Tells all children.
    pub(crate) fn attach_all(&mut self, cx: &mut TreeCx<'_>, way: WayUp<'_>) {
        let (children, source) = self.serving(way);
        children.attach_all(cx, source);
    }

    /// Pushes to a child as far as its link takes it.
    pub(crate) fn push(&mut self, cx: &mut TreeCx<'_>, way: WayUp<'_>, child: NodeId) {
        let (children, source) = self.serving(way);
        children.push(cx, source, child);
    }

    pub(crate) fn on_push_timer(&mut self, cx: &mut TreeCx<'_>, way: WayUp<'_>, child: NodeId) {
        let (children, source) = self.serving(way);
        children.on_push_timer(cx, source, child);
    }

    pub(crate) fn on_ack(&mut self, cx: &mut TreeCx<'_>, way: WayUp<'_>, from: Contact, ack: &Ack) -> Acked {
        let (children, source) = self.serving(way);
        children.on_ack(cx, source, from, ack)
    }

    /// The children, and the source of all that they are told and pushed.
    fn serving<'a>(&'a mut self, way: WayUp<'a>) -> (&'a mut Children, Source<'a>) {
        let awaits_older = self.awaits_older();
        (
            &mut self.children,
            Source {
                path: way.path,
                root: way.root,
                log: self.log.part(),
                primary: way.primary,
                awaits_older,
            },
        )
    }

    /// The node leaves the tree: sends the children away, and counts nothing any more.
    pub(crate) fn close(&mut self, cx: &mut TreeCx<'_>) {
        cx.timers.cancel_all(self.children.ids(), self.readers.ids());
        self.children.disband(cx);
        cx.quota.windows.forget(self.topic, self.share);
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        self.log.weight() + self.children.weight() + self.readers.weight()
    }

    /// Panics if its parts contradict each other.
    pub(crate) fn check(&self) {
        let started = self.log.part().is_some();
        self.children.check(started);
        assert!(started || !self.readers.any_started(), "a reader without a log");
    }
}

/// The place of two to begin at so that both find what they want. Marks of different births say nothing of each other;
/// the first decides.
fn earlier(one: Start, other: Start) -> Start {
    match (one, other) {
        (Start::Latest, start) | (start, Start::Latest) => start,
        (Start::Earliest, _) | (_, Start::Earliest) => Start::Earliest,
        (Start::After(a), Start::After(b)) => {
            Start::After(if a.birth == b.birth && b.next < a.next { b } else { a })
        }
        (Start::Last(a), Start::Last(b)) => Start::Last(a.max(b)),
        // A count and a mark: only all that is kept is enough for both.
        (Start::Last(_), Start::After(_)) | (Start::After(_), Start::Last(_)) => Start::Earliest,
    }
}

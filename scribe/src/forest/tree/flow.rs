//! The flow of entries through this node in one topic: its part of the log, and the children and subscribers that read
//! it. Knows neither where entries come from nor how a parent is found.

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;

use super::admission::Admission;
use super::children::{Acked, Children, Source};
use super::readers::Readers;
use crate::config::Config;
use crate::forest::context::TreeCx;
use crate::forest::quota::{WindowShare, Windows};
use crate::log::handoff::Handoff;
use crate::log::pace::Slowest;
use crate::log::window::Entry;
use crate::log::{Change, LocalLog};
use crate::message::{Mark, Position};
use crate::topic::TopicId;
use crate::wire::{Ack, Body, Join, LogTip, Started};

/// A topic's log at one node, with those that read it.
#[derive(Debug)]
pub(crate) struct Flow {
    pub topic: TopicId,
    pub log: LocalLog,
    pub children: Children,
    pub readers: Readers,
    /// The offset before which all that read have consumed everything, but for those that were left behind.
    pub consumed: u64,
    share: WindowShare,
}

/// This node's way to the root, as its children are told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WayUp<'a> {
    /// From this node's parent to the root.
    pub path: &'a [NodeId],
    /// How the path's last node, the root, is reached, if that is known.
    pub root: Option<Peer>,
}

impl Flow {
    pub(crate) fn new(now: Instant, topic: TopicId) -> Flow {
        Flow {
            topic,
            log: LocalLog::default(),
            children: Children::default(),
            readers: Readers::default(),
            consumed: 0,
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

    /// The same as an honest estimate: 0 only if there is neither child nor subscriber.
    pub(crate) fn listeners(&self) -> u64 {
        self.subscribers().max(u64::from(self.is_needed()))
    }

    /// This node's JOIN for a parent, under a certain number. `former`: the parent that it keeps until the other one
    /// pushes.
    pub(crate) fn join_message(&self, number: u64, former: Option<NodeId>) -> Join {
        let subscribers = self.subscribers();
        let (after, best_known) = (self.resume_point(), self.implied_tip());
        Join { topic: self.topic, number, after, best_known, subscribers, former }
    }

    /// The end of the log as a JOIN tells it: the known tip; else the one that the resume point implies.
    fn implied_tip(&self) -> Option<LogTip> {
        let implied = || {
            let mark = self.resume_point()?;
            Some(LogTip { birth: mark.birth, term: mark.position?.term, tail: mark.position })
        };
        self.log.tip().or_else(implied)
    }

    /// The mark that this node wants to continue after: its own, else the oldest that its children and subscribers ask
    /// for.
    pub(crate) fn resume_point(&self) -> Option<Mark> {
        if let Some(log) = self.log.part() {
            return Some(log.mark());
        }
        let mut marks = self.children.resume_points().chain(self.readers.resume_points());
        let first = marks.next()?;
        let older = |oldest: Mark, mark: Mark| if mark.position < oldest.position { mark } else { oldest };
        // Marks of other births say nothing of this one; the first decides.
        Some(marks.filter(|mark| mark.birth == first.birth).fold(first, older))
    }

    /// Appends an entry that was found to be next, or to start a term on an earlier entry.
    pub(crate) fn append(&mut self, cx: &mut TreeCx<'_>, way: WayUp<'_>, entry: Entry) {
        let starts_term = matches!(entry.held.body, Body::TermStart { .. });
        let change = self.log.make_way(&entry);
        self.follow(&change);
        self.log.push(entry);
        cx.note_moved();
        self.count_window(cx);
        if starts_term {
            self.start_children(cx, way);
        }
    }

    /// Appends the early entries whose turn has come.
    pub(crate) fn append_early(&mut self, cx: &mut TreeCx<'_>, way: WayUp<'_>) {
        while let Some(entry) = self.log.poll_early() {
            self.append(cx, way, entry);
        }
        self.count_window(cx);
    }

    /// Begins where the parent starts this node, or goes on there.
    pub(crate) fn start(&mut self, cx: &mut TreeCx<'_>, way: WayUp<'_>, started: &Started) {
        let change = self.log.start(started);
        self.follow(&change);
        self.count_window(cx);
        self.append_early(cx, way);
    }

    /// Makes the log one that ends with the known tail, so that a term can follow.
    pub(crate) fn end_at(&mut self, tip: LogTip) {
        let change = self.log.end_at(tip);
        self.follow(&change);
    }

    /// Completes the log by a handoff, or replaces it.
    pub(crate) fn fill(&mut self, handoff: &Handoff) {
        let change = self.log.fill(handoff);
        self.follow(&change);
    }

    /// Lets children and subscribers follow a change of the log.
    fn follow(&mut self, change: &Change) {
        self.children.follow(change);
        if let Some(log) = self.log.part() {
            self.readers.follow(change, log);
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
        let end = self.log.part()?.window.end();
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

    /// Delivers what the subscribers of this node have credit for.
    pub(crate) fn deliver(&mut self, cx: &mut TreeCx<'_>) {
        if let Some(log) = self.log.part() {
            self.readers.deliver(log, cx.out);
        }
    }

    /// Gives a start to the subscribers that have none, if the log was started. Returns the claims about the log that
    /// their marks make.
    pub(crate) fn start_readers(&mut self, cx: &mut TreeCx<'_>, latest: Option<Position>) -> Vec<LogTip> {
        self.log.part().map_or_else(Vec::new, |log| self.readers.start_waiting(cx, log, latest))
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
        (&mut self.children, Source { path: way.path, root: way.root, log: self.log.part() })
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

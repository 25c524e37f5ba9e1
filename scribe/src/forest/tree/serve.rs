//! Entries flow down the tree: into this node's part of the log, and on to its children and subscribers.

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;

use super::children::Acked;
use super::{Outcome, Tree};
use crate::forest::context::{TreeCx, TreeTimer};
use crate::forest::quota::Windows;
use crate::log::Change;
use crate::log::window::Entry;
use crate::wire::{Ack, Body, Header};

impl Tree {
    /// Appends an entry that was found to be next, or to start a term on an earlier entry.
    pub(super) fn append(&mut self, cx: &mut TreeCx<'_>, entry: Entry) {
        let starts_term = matches!(entry.held.body, Body::TermStart { .. });
        let change = self.log.make_way(&entry);
        self.follow(&change);
        self.log.push(entry);
        cx.note_moved();
        self.count_window(cx);
        if starts_term {
            self.start_children(cx);
        }
    }

    /// Appends the early entries whose turn has come.
    pub(super) fn append_early(&mut self, cx: &mut TreeCx<'_>) {
        while let Some(entry) = self.log.poll_early() {
            self.uplink.count_early();
            self.append(cx, entry);
        }
        self.count_window(cx);
    }

    /// Lets children and subscribers follow a change of the log.
    pub(super) fn follow(&mut self, change: &Change) {
        self.children.follow(change);
        if let Some(log) = self.log.part() {
            self.readers.follow(change, log);
        }
    }

    /// Bounds the window, and counts its bytes.
    pub(super) fn count_window(&mut self, cx: &mut TreeCx<'_>) {
        self.log.trim(cx.config.window_messages, cx.config.window_bytes);
        cx.quota.windows.count(self.topic, &mut self.window_share, self.log.bytes(), cx.now);
    }

    /// Gives up half of the window, because all windows of the node together are too large.
    pub(crate) fn shrink_window(&mut self, windows: &mut Windows) {
        self.log.shrink();
        windows.count_shrunk(self.topic, &mut self.window_share, self.log.bytes());
    }

    /// Pushes to all children, and delivers to this node's own subscribers.
    pub(super) fn flow(&mut self, cx: &mut TreeCx<'_>) {
        self.deliver(cx);
        let (children, source) = self.serving(cx);
        children.push_all(cx, source);
    }

    /// Delivers what the subscribers of this node have credit for.
    pub(super) fn deliver(&mut self, cx: &mut TreeCx<'_>) {
        if let Some(log) = self.log.part() {
            self.readers.deliver(log, cx.out);
        }
    }

    /// Pushes to a child: its link has room again.
    pub(crate) fn on_link_free(&mut self, cx: &mut TreeCx<'_>, child: NodeId) {
        let (children, source) = self.serving(cx);
        children.push(cx, source, child);
    }

    /// Starts the children that waited for this node's own start, or for its term.
    pub(super) fn start_children(&mut self, cx: &mut TreeCx<'_>) {
        let (children, source) = self.serving(cx);
        children.start_waiting(cx, source);
    }

    /// Tells the children of a new path to the root (promise S1).
    pub(crate) fn announce_path(&mut self, cx: &mut TreeCx<'_>) {
        // A child that turns out to be an ancestor closes a loop: it is let go before it hears of it.
        let path = self.role.path();
        let loops: Vec<_> = self.children.ids().filter(|child| path.contains(child)).collect();
        for child in loops {
            let contact = cx.neighbours.contact(child);
            self.remove_child(cx, child);
            if let Some(contact) = contact {
                cx.send_orphan(contact);
            }
        }
        let (children, source) = self.serving(cx);
        children.attach_all(cx, source);
    }

    /// A child leaves.
    pub(super) fn on_leave(&mut self, cx: &mut TreeCx<'_>, from: Contact, join: u64) {
        if self.children.is_left_by(from, join) {
            self.remove_child(cx, from.id());
        }
    }

    /// Lets a child go, if it is one.
    pub(crate) fn remove_child(&mut self, cx: &mut TreeCx<'_>, id: NodeId) {
        if self.children.remove(cx, id) {
            self.note_subscribers(cx);
            self.review_need(cx);
            self.review_shape(cx);
        }
    }

    /// A child says how far it is.
    pub(super) fn on_ack(&mut self, cx: &mut TreeCx<'_>, from: Contact, ack: &Ack) {
        let (children, source) = self.serving(cx);
        match children.on_ack(cx, source, from, ack) {
            Acked::Taken => self.note_subscribers(cx),
            Acked::OtherJoin => {}
            Acked::Stranger => cx.send_orphan(from),
        }
    }

    pub(super) fn on_push_timer(&mut self, cx: &mut TreeCx<'_>, child: NodeId) {
        let (children, source) = self.serving(cx);
        children.on_push_timer(cx, source, child);
    }

    /// A child has another parent that waits.
    pub(super) fn on_detach(&mut self, cx: &mut TreeCx<'_>, from: Contact, join: u64) -> Outcome {
        let farewell = self.children.farewell(from.id(), join, self.log.part());
        if farewell.is_some() {
            self.remove_child(cx, from.id());
        }
        let last = farewell.and_then(|farewell| farewell.last);
        let detached = Header::Parted { topic: self.topic, join, last };
        cx.tell(from, &detached);
        // Spliced out: there is nothing to linger for.
        if self.is_kept(cx.now) { Outcome::Keep } else { self.on_linger_timer() }
    }

    /// Tells the parent, after a moment, that there are more subscribers here, or fewer.
    pub(crate) fn note_subscribers(&mut self, cx: &mut TreeCx<'_>) {
        if self.role.parent().is_some() && self.subscribers() != self.uplink.told_subscribers {
            cx.timers.set_earlier(TreeTimer::Ack, cx.now + cx.config.count_delay);
            cx.note_moved();
        }
    }

    /// Looks after a tree that may not be needed any more.
    pub(super) fn review_need(&mut self, cx: &mut TreeCx<'_>) {
        if self.is_needed() || self.role.is_root() {
            cx.timers.cancel(TreeTimer::Linger);
        } else {
            let at = (cx.now + cx.config.linger).max(self.keep_until);
            cx.timers.set(TreeTimer::Linger, at);
        }
    }

    /// Scribe §3.3: "If there are no other entries in the children table, it sends a LEAVE message to its parent".
    pub(super) fn on_linger_timer(&mut self) -> Outcome {
        if self.is_needed() || self.role.is_root() { Outcome::Keep } else { Outcome::Leave }
    }
}

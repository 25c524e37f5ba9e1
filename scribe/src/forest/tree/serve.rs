//! Entries flow down the tree: into this node's part of the log, and on to its children and subscribers.

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;

use super::children::Acked;
use super::role::Role;
use super::{Outcome, Tree};
use crate::forest::context::{TreeCx, TreeTimer};
use crate::forest::quota::Windows;
use crate::wire::{Ack, Header};

impl Tree {
    /// Gives up half of the window, because all windows of the node together are too large. `all`: also what is not
    /// consumed yet.
    pub(crate) fn shrink_window(&mut self, windows: &mut Windows, all: bool) {
        self.flow.shrink_window(windows, all);
    }

    /// Pushes to a child: its link has room again.
    pub(crate) fn on_link_free(&mut self, cx: &mut TreeCx<'_>, child: NodeId) {
        self.flow.push(cx, self.role.way_up(cx), child);
    }

    /// Tells the children of a new path to the root (promise S1).
    pub(crate) fn announce_path(&mut self, cx: &mut TreeCx<'_>) {
        // A child that turns out to be an ancestor closes a loop: it is let go before it hears of it.
        let path = self.role.path();
        let loops: Vec<_> = self.flow.children.ids().filter(|child| path.contains(child)).collect();
        for child in loops {
            let contact = cx.neighbours.contact(child);
            self.remove_child(cx, child);
            if let Some(contact) = contact {
                cx.send_orphan(contact);
            }
        }
        self.flow.attach_all(cx, self.role.way_up(cx));
    }

    /// A child leaves.
    pub(super) fn on_leave(&mut self, cx: &mut TreeCx<'_>, from: Contact, join: u64) {
        if self.flow.children.is_left_by(from, join) {
            self.remove_child(cx, from.id());
        }
    }

    /// Lets a child go, if it is one.
    pub(crate) fn remove_child(&mut self, cx: &mut TreeCx<'_>, id: NodeId) {
        if self.flow.children.remove(cx, id) {
            if let Role::Root(root) = &mut self.role {
                root.primary.on_follower_lost(id);
            }
            self.note_subscribers(cx);
            self.review_need(cx);
            self.review_shape(cx);
            self.review_pace(cx);
        }
    }

    /// A child says how far it is.
    pub(super) fn on_ack(&mut self, cx: &mut TreeCx<'_>, from: Contact, ack: &Ack) {
        match self.flow.on_ack(cx, self.role.way_up(cx), from, ack) {
            Acked::Taken { held } => {
                if let Some((life, end)) = held {
                    self.on_held(cx, from.id(), life, end);
                }
                self.note_subscribers(cx);
                self.review_pace(cx);
            }
            Acked::OtherJoin => {}
            Acked::Stranger => cx.send_orphan(from),
        }
    }

    /// A child has another parent that waits.
    pub(super) fn on_detach(&mut self, cx: &mut TreeCx<'_>, from: Contact, join: u64) -> Outcome {
        let farewell = self.flow.children.farewell(from.id(), join);
        if farewell.is_some() {
            self.remove_child(cx, from.id());
        }
        let end = farewell.and_then(|farewell| farewell.end);
        let detached = Header::Detached { topic: cx.topic, join, end };
        cx.tell(from, &detached);
        // Spliced out: there is nothing to linger for.
        if self.is_kept(cx.now) { Outcome::Keep } else { self.on_linger_timer() }
    }

    /// Tells the parent, after a moment, that there are more subscribers here, or fewer.
    pub(crate) fn note_subscribers(&mut self, cx: &mut TreeCx<'_>) {
        if self.role.parent().is_some() && self.flow.subscribers() != self.uplink.told.subscribers {
            cx.timers.set_earlier(TreeTimer::Ack, cx.now + cx.config.push.count_delay);
            cx.note_moved();
        }
    }

    /// Looks after a tree that may not be needed any more.
    pub(super) fn review_need(&mut self, cx: &mut TreeCx<'_>) {
        if self.is_needed() {
            cx.timers.cancel(TreeTimer::Linger);
        } else {
            let at = (cx.now + cx.config.tree.linger).max(self.keep_until);
            cx.timers.set(TreeTimer::Linger, at);
        }
    }

    /// Scribe §3.3: "If there are no other entries in the children table, it sends a LEAVE message to its parent".
    pub(super) fn on_linger_timer(&mut self) -> Outcome {
        if self.is_needed() { Outcome::Keep } else { Outcome::Leave }
    }
}

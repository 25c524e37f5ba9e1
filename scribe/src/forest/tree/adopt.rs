//! A JOIN comes: this node takes a child.

use treecast_overlay::peer::Contact;

use super::Tree;
use super::role::Role;
use crate::forest::context::{TreeCx, TreeTimer};
use crate::log::cursor::begins_before;
use crate::wire::{Capacity, Join};

impl Tree {
    /// A JOIN passes on its way to the root. Returns whether it ends here.
    pub(crate) fn intercept(&mut self, cx: &mut TreeCx<'_>, child: Contact, join: &Join) -> bool {
        // If this node's window began too late for the child, those of its ancestors may reach back further: the JOIN goes on
        // towards them.
        let log = self.flow.log.part().filter(|log| !self.role.is_root() && log.window.is_young());
        let misses = log.is_some_and(|log| begins_before(log, join.start));
        let taken = self.may_adopt(cx, child.id()) && !misses;
        if taken {
            self.adopt(cx, child, join);
        }
        taken
    }

    /// A JOIN passes, and begins this tree at this node.
    pub(crate) fn begin_as_forwarder(&mut self, cx: &mut TreeCx<'_>, child: Contact, join: &Join) {
        self.adopt(cx, child, join);
        // Only now: this node's own JOIN asks for what its child needs.
        self.seek(cx);
    }

    /// A JOIN has come to the root.
    pub(crate) fn on_join_delivered(&mut self, cx: &mut TreeCx<'_>, child: Contact, join: &Join) {
        if !self.role.is_root() {
            self.become_root(cx);
        }
        self.adopt(cx, child, join);
    }

    /// A JOIN was sent to this node: by a child, or by one that was offered this node as a parent.
    pub(crate) fn on_join_sent(&mut self, cx: &mut TreeCx<'_>, child: Contact, join: &Join) {
        let moves = join.former.is_some() && !self.flow.children.contains(child.id());
        let full = moves && self.capacity(cx, join.former) == Capacity::None;
        // Members are children of the root, and of no other node as long as it answers; there they always have room.
        let welcome = match join.copy {
            Some(_) if self.role.is_root() || !join.by_third => self.role.is_root() && child.id() != cx.me,
            _ => self.may_adopt(cx, child.id()) && !full,
        };
        if welcome {
            self.adopt(cx, child, join);
        } else {
            cx.send_orphan(child);
        }
    }

    fn adopt(&mut self, cx: &mut TreeCx<'_>, contact: Contact, join: &Join) {
        let before = self.flow.start_wanted();
        if !self.flow.children.admit(cx, contact, join) {
            return;
        }
        cx.timers.cancel(TreeTimer::Linger);
        self.review_follower(contact.id());
        if join.copy.is_some() {
            self.take_member(cx, contact.id());
        }
        self.flow.attach(cx, self.role.way_up(cx), contact.id());
        self.review_start(cx, before);
        self.note_subscribers(cx);
        self.flow.push(cx, self.role.way_up(cx), contact.id());
        self.review_shape(cx);
        self.review_pace(cx);
        if matches!(self.role, Role::Root(_)) {
            self.review_members(cx);
        }
    }
}

//! A JOIN comes: this node takes a child.

use treecast_overlay::peer::Contact;

use super::Tree;
use crate::forest::context::{TreeCx, TreeTimer};
use crate::log::window::Follow;
use crate::message::Mark;
use crate::wire::{Capacity, Join};

impl Tree {
    /// A JOIN passes on its way to the root. Returns whether it ends here.
    pub(crate) fn intercept(&mut self, cx: &mut TreeCx<'_>, child: Contact, join: &Join) -> bool {
        let taken = self.may_adopt(cx, child.id()) && !self.misses_history(join.after);
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
            self.begin_recovery(cx);
        }
        self.adopt(cx, child, join);
    }

    /// A JOIN was sent to this node: by a child, or by one that was offered this node as a parent.
    pub(crate) fn on_join_sent(&mut self, cx: &mut TreeCx<'_>, child: Contact, join: &Join) {
        let moves = join.former.is_some() && !self.flow.children.contains(child.id());
        let welcome =
            self.may_adopt(cx, child.id()) && (!moves || self.capacity(cx, join.former) != Capacity::None);
        if welcome {
            self.adopt(cx, child, join);
        } else {
            cx.send_orphan(child);
        }
    }

    fn adopt(&mut self, cx: &mut TreeCx<'_>, contact: Contact, join: &Join) {
        let before = self.flow.resume_point();
        if !self.flow.children.admit(cx, contact, join) {
            return;
        }
        cx.timers.cancel(TreeTimer::Linger);
        self.flow.attach(cx, self.role.way_up(cx), contact.id());
        if let Some(tip) = join.best_known {
            self.hear(cx, tip);
        }
        self.review_resume_point(cx, before);
        self.note_subscribers(cx);
        self.flow.push(cx, self.role.way_up(cx), contact.id());
        self.review_shape(cx);
    }

    /// Whether this node's window began too late for a child, while those of its ancestors may reach back further: then
    /// the JOIN goes on towards them.
    fn misses_history(&self, after: Option<Mark>) -> bool {
        let (Some(log), Some(mark)) = (self.flow.log.part(), after) else { return false };
        !self.role.is_root()
            && mark.birth == log.birth
            && log.window.is_young()
            && log.window.follow(mark.position) == Follow::TooOld
    }
}

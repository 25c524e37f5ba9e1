//! Entries come from the parent.

use std::time::Duration;

use treecast_overlay::peer::Contact;

use super::role::{Acknowledge, Role};
use super::{Outcome, Tree};
use crate::forest::context::{TreeCx, TreeTimer};
use crate::log::early::Arrived;
use crate::log::local::Arrival;

/// How long the acknowledgement of an entry that came twice waits for others like it.
const DUPLICATES: Duration = Duration::from_millis(20);

/// How far apart the parent is asked for an entry that is missing still.
const ASKED_APART: Duration = Duration::from_millis(250);

impl Tree {
    /// An entry came.
    pub(super) fn on_entry(&mut self, cx: &mut TreeCx<'_>, from: Contact, entry: Arrived) -> Outcome {
        match &self.role {
            Role::Child(link) if link.parent == from.id() => {}
            // It may have overtaken the word that starts this node. No sender is sent away before.
            Role::Joining { .. } => {
                self.flow.keep_early(cx, from.id(), entry.compact(cx.config.window.copy_below));
                return Outcome::Keep;
            }
            Role::Child(_) | Role::Root(_) => return Outcome::Refuse(from),
        }
        let entry = entry.compact(cx.config.window.copy_below);
        match self.flow.take(cx, from.id(), entry) {
            // Adopted is not started; and what a root sent in an earlier term of its own is void.
            Arrival::NotStarted | Arrival::Stranger => {}
            // Its acknowledgement was lost, or the parent has waited too long for it.
            Arrival::Duplicate => cx.timers.set_earlier(TreeTimer::Ack, cx.now + DUPLICATES),
            Arrival::Hole => self.on_hole(cx),
            Arrival::Next => self.on_progress(cx),
        }
        Outcome::Keep
    }

    /// Entries came in their turn.
    pub(super) fn on_progress(&mut self, cx: &mut TreeCx<'_>) {
        self.review_membership(cx);
        self.flow.run(cx, self.role.way_up(cx));
        self.review_backfill(cx);
        self.review_history(cx, false);
        self.watch_slowest(cx);
        let much = self.owes_much(cx) || self.owes_consumption(cx);
        match self.uplink.on_progress(self.flow.log.has_hole(), much) {
            Acknowledge::Now => self.acknowledge(cx, false),
            // The root counts what its members hold.
            Acknowledge::Soon if self.flow.log.is_member() => cx.at_turn_end(),
            Acknowledge::Soon => self.acknowledge_soon(cx),
        }
        // Perhaps that was the last one of an old parent.
        let next = self.flow.log.matched();
        self.relocate(cx, |relocation, _| relocation.on_entry(next));
    }

    fn on_hole(&mut self, cx: &mut TreeCx<'_>) {
        if self.uplink.on_hole() {
            self.acknowledge(cx, true);
        } else {
            cx.timers.set_earlier(TreeTimer::Ack, cx.now + ASKED_APART);
        }
    }
}

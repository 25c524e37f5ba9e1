//! Entries come from the parent.

use std::time::Duration;

use treecast_overlay::peer::Contact;

use super::role::{Acknowledge, Role};
use super::{Outcome, Tree};
use crate::forest::context::{TreeCx, TreeTimer};
use crate::log::window::{Arrival, Entry};

/// How long the acknowledgement of an entry that came twice waits for others like it.
const DUPLICATES: Duration = Duration::from_millis(20);

/// How far apart the parent is asked for an entry that is missing still.
const ASKED_APART: Duration = Duration::from_millis(250);

impl Tree {
    /// An entry came.
    pub(super) fn on_entry(&mut self, cx: &mut TreeCx<'_>, from: Contact, entry: Entry) -> Outcome {
        match &self.role {
            Role::Child(link) if link.parent == from.id() => {}
            // Its JOIN will say what it needs; until then nothing is taken, and no sender is sent away.
            Role::Joining { .. } => return Outcome::Keep,
            Role::Child(_) | Role::Recovering(_) | Role::Root(_) => return Outcome::Refuse(from),
        }
        // Adopted is not started.
        let Some(arrival) = self.flow.log.arrival(&entry) else { return Outcome::Keep };
        match arrival {
            // Its acknowledgement was lost, or the parent has waited too long for it.
            Arrival::Duplicate => cx.timers.set_earlier(TreeTimer::Ack, cx.now + DUPLICATES),
            Arrival::Hole => self.keep_early(cx, entry.compact(cx.config.window.copy_below)),
            Arrival::Next | Arrival::Supersedes => {
                let entry = entry.compact(cx.config.window.copy_below);
                self.flow.append(cx, self.role.way_up(cx), entry);
                self.flow.append_early(cx, self.role.way_up(cx));
                self.flow.run(cx, self.role.way_up(cx));
                self.watch_slowest(cx);
                let much = self.owes_much(cx) || self.owes_consumption(cx);
                match self.uplink.on_progress(self.flow.log.has_hole(), much) {
                    Acknowledge::Now => self.acknowledge(cx, false),
                    Acknowledge::Soon => self.acknowledge_soon(cx),
                }
                // Perhaps that was the last one of an old parent.
                let tail = self.flow.log.tail();
                self.relocate(cx, |relocation, _| relocation.on_entry(tail));
            }
        }
        Outcome::Keep
    }

    fn keep_early(&mut self, cx: &mut TreeCx<'_>, entry: Entry) {
        self.flow.log.keep_early(entry, cx.config.push.messages, cx.config.push.bytes);
        self.flow.count_window(cx);
        if self.uplink.on_hole() {
            self.acknowledge(cx, true);
        } else {
            cx.timers.set_earlier(TreeTimer::Ack, cx.now + ASKED_APART);
        }
    }
}

//! Entries come from the parent.

use treecast_overlay::peer::Contact;

use super::role::{Acknowledge, Role};
use super::{Outcome, Tree};
use crate::forest::context::{TreeCx, TreeTimer};
use crate::log::window::{Arrival, Entry};

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
        let Some(arrival) = self.log.arrival(&entry) else { return Outcome::Keep };
        match arrival {
            Arrival::Duplicate => self.acknowledge_soon(cx),
            Arrival::Hole => self.keep_early(cx, entry.compact(cx.config.copy_below)),
            Arrival::Next | Arrival::Supersedes => {
                self.append(cx, entry.compact(cx.config.copy_below));
                self.append_early(cx);
                match self.uplink.on_progress(self.log.has_hole(), cx.config.ack_every) {
                    Acknowledge::Now => self.acknowledge(cx, false),
                    Acknowledge::Soon => self.acknowledge_soon(cx),
                }
                self.flow(cx);
                self.review_drained(cx);
            }
        }
        Outcome::Keep
    }

    fn keep_early(&mut self, cx: &mut TreeCx<'_>, entry: Entry) {
        self.log.keep_early(entry, cx.config.push_messages, cx.config.push_bytes);
        self.count_window(cx);
        if self.uplink.on_hole() {
            self.acknowledge(cx, true);
        } else {
            self.acknowledge_soon(cx);
        }
    }

    fn acknowledge_soon(&self, cx: &mut TreeCx<'_>) {
        cx.timers.set_earlier(TreeTimer::Ack, cx.now + cx.config.ack_delay);
    }
}

//! How far this node is, as its neighbours are told: by an acknowledgement of its own where the parent waits for much,
//! else with the beat.

use treecast_overlay::id::NodeId;

use super::Tree;
use super::children::Child;
use super::role::Told;
use crate::forest::context::{TreeCx, TreeTimer};
use crate::wire::{Ack, Header, MAX_HOLES, Moved};

/// News of one topic for a neighbour's beat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// For the parent.
    Ack(Ack),
    /// For a child.
    Moved(Moved),
}

impl Tree {
    /// Tells the parent how far this node is. `again`: it is to repeat the missing entry.
    pub(super) fn acknowledge(&mut self, cx: &mut TreeCx<'_>, again: bool) {
        if let Some(ack) = self.ack(cx, again)
            && let Some(to) = self.role.parent().and_then(|parent| cx.neighbours.contact(parent))
        {
            cx.tell(to, &Header::Ack(ack));
        }
    }

    /// Sees to it that the parent hears by and by, if no beat tells it before.
    pub(super) fn acknowledge_soon(&self, cx: &mut TreeCx<'_>) {
        cx.timers.set_earlier(TreeTimer::Ack, cx.now + cx.config.push.ack_delay);
    }

    /// Looks how far those that read are. The parent hears of it, or messages that wait at the root are admitted.
    pub(super) fn review_pace(&mut self, cx: &mut TreeCx<'_>) {
        self.watch_slowest(cx);
        if self.role.is_root() {
            return self.admit_waiting(cx);
        }
        if self.role.parent().is_none() || self.flow.consumed == self.uplink.told.consumed {
            return;
        }
        if self.owes_consumption(cx) {
            self.acknowledge(cx, false);
        } else {
            cx.note_moved();
            self.acknowledge_soon(cx);
        }
    }

    /// Whether so much was consumed since the parent heard of it that the root may wait for it. A small part of a window,
    /// because each node on the way up holds as much back.
    pub(super) fn owes_consumption(&self, cx: &TreeCx<'_>) -> bool {
        let Some(log) = self.flow.log.part() else { return false };
        let (from, to) = (self.uplink.told.consumed, self.flow.consumed);
        16 * to.saturating_sub(from) >= cx.config.window.messages as u64
            || 16 * log.window.cost_between(from, to) >= cx.config.window.bytes as u64
    }

    /// Whether the parent waits for the acknowledgement of a quarter of what it may push ahead.
    pub(super) fn owes_much(&self, cx: &TreeCx<'_>) -> bool {
        let Some(log) = self.flow.log.part() else { return false };
        let (from, end) = (self.uplink.told.end, log.matched());
        let bytes = log.window.bytes_between(from, end);
        4 * end.saturating_sub(from) >= cx.config.push.messages as u64
            || 4 * bytes >= cx.config.push.bytes as u64
    }

    /// The report of this topic for a beat to a neighbour, if the neighbour does not know it.
    pub(crate) fn report(&mut self, cx: &mut TreeCx<'_>, to: NodeId) -> Option<Report> {
        if self.role.parent() == Some(to) {
            let known = self.uplink.told == self.state_to_tell();
            // A beat tells of many topics: what is missing goes in an acknowledgement of its own.
            let ack = |ack| Report::Ack(Ack { missing: Vec::new(), ..ack });
            return if known { None } else { self.ack(cx, false).map(ack) };
        }
        let log = self.flow.log.part()?;
        let has_all = self.flow.children.has_acknowledged(to, log.commit());
        // A member that has everything may not know that it is committed.
        let follows = self.flow.children.get(to).is_some_and(Child::follows_root);
        let moved = Moved { topic: cx.topic, birth: log.birth, next: log.commit() };
        if follows && !self.flow.children.has_consumed(to, log.commit()) {
            // No acknowledgement says what a member knows to be committed, but for this one.
            cx.note_moved();
        }
        (!has_all || follows).then_some(Report::Moved(moved))
    }

    /// The acknowledgement that is about to go to the parent.
    fn ack(&mut self, cx: &mut TreeCx<'_>, again: bool) -> Option<Ack> {
        cx.timers.cancel(TreeTimer::Ack);
        let link = self.role.parent_link()?;
        let ack = Ack {
            topic: cx.topic,
            join: link.join,
            seq: link.seq,
            next: self.flow.log.matched(),
            subscribers: self.flow.subscribers(),
            again: again || self.flow.log.has_hole(),
            missing: self.flow.log.missing(MAX_HOLES),
            consumed: self.flow.consumed,
        };
        self.uplink.told = self.state_to_tell();
        Some(ack)
    }

    fn state_to_tell(&self) -> Told {
        let end = self.flow.log.matched();
        Told { end, consumed: self.flow.consumed, subscribers: self.flow.subscribers() }
    }
}

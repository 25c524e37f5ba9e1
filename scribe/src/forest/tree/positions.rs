//! The root gives messages their positions, and answers their publishers once they are committed.

use bytes::Bytes;

use super::receipts::WaitingReceipt;
use super::role::Role;
use super::sequencer::Answer;
use super::{Outcome, Tree};
use crate::forest::context::{TreeCx, TreeTimer};
use crate::log::reader::position;
use crate::wire::{Header, Nack, Publish, PublishReceipt, RefusedReason};

impl Tree {
    /// The root's word on a message, be it that it has to wait.
    pub(super) fn answer(&mut self, cx: &mut TreeCx<'_>, publish: Publish, payload: Bytes) {
        let may = self.may_position(cx);
        let Role::Root(root) = &mut self.role else { return };
        root.used = cx.now;
        if !may || root.sequencer.admission.precedes(&publish) {
            root.sequencer.admission.park(publish, payload, cx.config);
        } else {
            self.judge(cx, publish, payload);
        }
        self.admit_waiting(cx);
    }

    /// Whether this root may give positions now: it serves, its leases run, no configuration waits to be committed, and
    /// there are as many members as there should be, or they were waited for.
    fn may_position(&self, cx: &TreeCx<'_>) -> bool {
        let (Role::Root(root), Some(log)) = (&self.role, self.flow.log.part()) else { return false };
        let Some(since) = root.serves_since else { return false };
        if root.lapsed || !cx.is_root() || !root.primary.may_append(log) {
            return false;
        }
        let members = log.configurations().last().map_or(0, |last| last.members.len());
        let wanted = cx.config.replication.copies;
        members >= wanted
            || cx.now.since(since) >= cx.config.replication.patience
            || members >= cx.ring.replica_set(cx.topic.key(), wanted).len()
    }

    /// Admits messages that wait, as many as those that read leave room for.
    pub(super) fn admit_waiting(&mut self, cx: &mut TreeCx<'_>) {
        // A root without other members commits at once what it admits, and comes here again: one loop admits all.
        if !self.role.root_mut().is_some_and(|root| root.sequencer.admission.begin()) {
            return;
        }
        while self.may_position(cx)
            && self.flow.has_room(cx.config)
            && let Role::Root(root) = &mut self.role
            && let Some((publish, payload)) = root.sequencer.admission.take()
        {
            self.judge(cx, publish, payload);
        }
        if let Role::Root(root) = &mut self.role {
            root.sequencer.admission.end();
        }
    }

    fn judge(&mut self, cx: &mut TreeCx<'_>, publish: Publish, payload: Bytes) {
        let has_room = self.flow.has_room(cx.config);
        let unix_ms = cx.unix_ms();
        let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part()) else { return };
        match root.sequencer.answer(unix_ms, cx.config, cx.quota, log, publish, payload) {
            Answer::Append(publish, payload) if !has_room => {
                root.sequencer.admission.park(publish, payload, cx.config);
                self.watch_slowest(cx);
            }
            Answer::Append(publish, payload) => self.position(cx, publish, payload),
            Answer::Positioned(publish, offset) => {
                root.receipts.wait(cx.now, &publish, offset);
                self.give_receipts(cx);
            }
            Answer::Missing(publish, missing) => {
                let Publish { topic, session, sequence: seen, .. } = publish;
                cx.tell(publish.publisher, &Header::Nack(Nack { topic, session, missing, seen }));
            }
            Answer::Refuse(publish, reason) => refuse(cx, &publish, reason),
            Answer::Nothing => {}
        }
    }

    /// Looks how far the slowest of those that read is; if others may have to wait for it, also when it has been waited
    /// for long enough.
    pub(super) fn watch_slowest(&mut self, cx: &mut TreeCx<'_>) {
        let Some(until) = self.flow.survey(cx) else { return };
        if !cx.timers.is_set(TreeTimer::Patience) && self.flow.is_half_full(cx.config) {
            cx.timers.set(TreeTimer::Patience, until);
        }
    }

    /// Appends a message, and those of its session that waited for it.
    fn position(&mut self, cx: &mut TreeCx<'_>, publish: Publish, payload: Bytes) {
        let mut next = Some((publish, payload));
        let mut committed = false;
        while let Some((publish, payload)) = next {
            let unix_ms = cx.unix_ms();
            let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part.as_mut()) else { return };
            let stamp = log.next_stamp(unix_ms);
            let (term, offset) = (root.primary.term().number, log.end());
            let positioned =
                root.sequencer.position(stamp, term, cx.config, cx.quota, log, (&publish, &payload));
            root.receipts.wait(cx.now, &publish, offset);
            next = positioned.next;
            committed |= root.primary.append(log, positioned.held);
            self.flow.count_window(cx);
            if let Role::Root(root) = &mut self.role
                && !self.flow.has_room(cx.config)
                && let Some((publish, payload)) = next.take()
            {
                root.sequencer.admission.park(publish, payload, cx.config);
            }
        }
        if committed {
            self.on_committed(cx);
        } else {
            self.flow.run(cx, self.role.way_up(cx));
        }
        self.review_checkpoint(cx);
    }

    /// A log that has gone on far since its last configuration entry gets another one: it carries the sessions, and
    /// entries before it may fall out.
    fn review_checkpoint(&mut self, cx: &mut TreeCx<'_>) {
        let (Role::Root(root), Some(log)) = (&self.role, self.flow.log.part()) else { return };
        let Some(last) = log.configurations().last().filter(|_| root.primary.may_append(log)) else { return };
        let cost = log.window.cost_between(last.at, log.end());
        let far = 4 * cost >= cx.config.window.bytes as u64
            || 4 * (log.end() - last.at) >= cx.config.window.messages as u64;
        if far {
            let members = last.members.clone();
            self.configure(cx, members);
        }
    }

    /// Answers publishers whose messages are committed, and held by all members; by those that are slow not for long.
    pub(super) fn give_receipts(&mut self, cx: &mut TreeCx<'_>) {
        let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part()) else { return };
        if root.receipts.len() == 0 {
            return;
        }
        let patience = self.flow.children.followers_patience(cx);
        let held_by_all = root.primary.held_by_all(log);
        let listeners = self.flow.listeners();
        while let Some(waiting) = root.receipts.take(cx.now, log.commit(), held_by_all, patience) {
            let copies = root.primary.copies(log, waiting.offset);
            let WaitingReceipt { offset, publisher, session, sequence, .. } = waiting;
            let receipt = PublishReceipt {
                topic: cx.topic,
                session,
                sequence,
                position: position(log, offset),
                birth: log.birth,
                copies: u32::try_from(copies).unwrap_or(u32::MAX),
                listeners,
                root: cx.ring.contact(),
            };
            cx.tell(publisher, &Header::Receipt(receipt));
        }
        match root.receipts.due_at(log.commit(), patience) {
            Some(at) => cx.timers.set(TreeTimer::Receipts, at),
            None => cx.timers.cancel(TreeTimer::Receipts),
        }
    }

    /// Once in a while: sessions that were silent are forgotten, and a root without listeners and publishers is
    /// dropped.
    pub(crate) fn look_after_root(&mut self, cx: &mut TreeCx<'_>) -> Outcome {
        // Members are no users.
        let needed = !self.flow.readers.is_empty() || self.flow.subscribers() > 0;
        let limit = cx.unix_ms().saturating_sub(millis(cx.config.sessions.idle));
        let Role::Root(root) = &mut self.role else { return Outcome::Keep };
        root.sequencer.sessions.expire(limit);
        if needed {
            root.used = cx.now;
        }
        let idle = root.used < cx.earlier(cx.config.root.idle);
        if idle && self.drop_log(cx) {
            return Outcome::Leave;
        }
        if !idle
            && let Role::Root(root) = &mut self.role
            && std::mem::take(&mut root.is_dropping)
        {
            // It is used again, and the members may have forgotten it.
            root.lapsed = true;
        }
        self.review_members(cx);
        Outcome::Keep
    }
}

fn millis(wait: std::time::Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// Tells a publisher that its message will get no position.
pub(crate) fn refuse(cx: &mut TreeCx<'_>, publish: &Publish, reason: RefusedReason) {
    let Publish { topic, session, sequence, .. } = *publish;
    cx.tell(publish.publisher, &Header::Refused { topic, session, sequence, reason });
}

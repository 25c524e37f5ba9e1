//! The root gives messages their positions, and answers their publishers.

use bytes::Bytes;

use super::recovering::Parked;
use super::role::Role;
use super::sequencer::Answer;
use super::{Outcome, Tree};
use crate::forest::context::{TreeCx, TreeTimer};
use crate::message::Position;
use crate::wire::{Header, Publish, PublishReceipt, RefusedReason};

/// With one holder of the log, the root itself, a receipt can promise no more.
const COPIES: u32 = 1;

impl Tree {
    /// Answers the messages that waited for the term.
    pub(super) fn answer_all(&mut self, cx: &mut TreeCx<'_>, parked: Parked) {
        for (publish, payload) in parked {
            self.answer(cx, publish, payload);
        }
    }

    /// The root's word on a message, be it that it has to wait.
    pub(super) fn answer(&mut self, cx: &mut TreeCx<'_>, publish: Publish, payload: Bytes) {
        let Role::Root(root) = &mut self.role else { return };
        if root.admission.precedes(&publish) {
            root.admission.park(publish, payload, cx.config);
        } else {
            self.judge(cx, publish, payload);
        }
        self.admit_waiting(cx);
    }

    /// Admits messages that wait, as many as those that read leave room for.
    pub(super) fn admit_waiting(&mut self, cx: &mut TreeCx<'_>) {
        while let Role::Root(root) = &mut self.role
            && root.admission.waiting().0 > 0
            && cx.is_root()
            && !root.lapsed
            && self.flow.has_room(cx.config)
        {
            let Some((publish, payload)) = root.admission.take() else { return };
            self.judge(cx, publish, payload);
        }
    }

    fn judge(&mut self, cx: &mut TreeCx<'_>, publish: Publish, payload: Bytes) {
        let has_room = self.flow.has_room(cx.config);
        let Role::Root(root) = &mut self.role else { return };
        match root.answer(cx.now, cx.config, cx.quota, publish, payload) {
            Answer::Append(publish, payload) if !has_room => {
                root.admission.park(publish, payload, cx.config);
                self.watch_slowest(cx);
            }
            Answer::Append(publish, payload) => self.position(cx, publish, payload),
            Answer::Receipt(publish, at) => self.give_receipt(cx, &publish, at),
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
        let mut positions = Vec::new();
        while let Some((publish, payload)) = next {
            let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part()) else { return };
            let positioned = root.position(cx.now, cx.config, cx.quota, log, &publish, &payload);
            positions.push((publish, positioned.entry.position));
            next = positioned.next;
            self.flow.append(cx, self.role.way_up(cx), positioned.entry);
            if let Role::Root(root) = &mut self.role
                && !self.flow.has_room(cx.config)
                && let Some((publish, payload)) = next.take()
            {
                root.admission.park(publish, payload, cx.config);
            }
        }
        self.flow.run(cx, self.role.way_up(cx));
        for (publish, at) in positions {
            self.give_receipt(cx, &publish, at);
        }
    }

    fn give_receipt(&mut self, cx: &mut TreeCx<'_>, publish: &Publish, position: Position) {
        let receipt = PublishReceipt {
            topic: cx.topic,
            session: publish.session,
            sequence: publish.sequence,
            position,
            copies: COPIES,
            listeners: self.flow.listeners(),
            root: cx.ring.contact(),
        };
        cx.tell(publish.publisher, &Header::Receipt(receipt));
    }

    /// Once in a while: sessions that were silent are forgotten, and a root without listeners and publishers is
    /// dropped.
    pub(crate) fn look_after_root(&mut self, cx: &TreeCx<'_>) -> Outcome {
        let needed = self.flow.is_needed();
        let Role::Root(root) = &mut self.role else { return Outcome::Keep };
        root.sessions.expire(cx.earlier(cx.config.sessions.idle));
        if needed {
            root.used = cx.now;
        } else if root.used < cx.earlier(cx.config.root.idle) {
            return Outcome::Leave;
        }
        Outcome::Keep
    }
}

/// Tells a publisher that its message will get no position.
pub(crate) fn refuse(cx: &mut TreeCx<'_>, publish: &Publish, reason: RefusedReason) {
    let Publish { topic, session, sequence, .. } = *publish;
    cx.tell(publish.publisher, &Header::Refused { topic, session, sequence, reason });
}

//! Becoming the root, and stepping down. The ring decides which node is the root; a root asks around for the log that
//! there was before, and opens a term (design §6).

use bytes::Bytes;
use rand::RngExt;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;

use super::recovering::{Recovering, RecoveryStep};
use super::role::Role;
use super::sequencer::Sequencer;
use super::{ParentLost, Tree};
use crate::forest::context::{Life, TreeCx, TreeTimer};
use crate::forest::handoffs::{ReceivedHandoff, chunks_of};
use crate::log::handoff::Handoff;
use crate::log::local::Heard;
use crate::log::sessions::Sessions;
use crate::log::window::Entry;
use crate::log::{Log, better};
use crate::message::{Position, Term};
use crate::wire::{Body, Header, LogTip, Publish};

impl Tree {
    /// Whether this node is the topic's root is the ring's decision, and may have changed.
    pub(crate) fn review_place(&mut self, cx: &mut TreeCx<'_>) {
        if cx.life != Life::Running || !cx.is_online() {
            return;
        }
        match (self.role.is_root(), cx.is_root()) {
            (false, true) => self.begin_recovery(cx),
            (true, false) => self.on_root_lost(cx),
            (true, true) => self.review_term(cx),
            (false, false) => {}
        }
    }

    /// A root whose leases run again asks whether another one was the root meanwhile; one whose leases never ended may
    /// have heard of a later term, too.
    fn review_term(&mut self, cx: &mut TreeCx<'_>) {
        let Role::Root(root) = &self.role else { return };
        if root.lapsed {
            self.begin_recovery(cx);
        } else if let Some(tip) = self.flow.log.later_term() {
            self.begin_term(cx, tip, true);
        }
    }

    /// This root's leases do not run. If it is still the closest that it knows of, it waits, positions nothing, and
    /// asks around when they run again; else its successor gets the log.
    fn on_root_lost(&mut self, cx: &mut TreeCx<'_>) {
        if let Role::Root(root) = &mut self.role {
            root.lapsed = true;
        }
        if let Some(successor) = cx.successor() {
            self.step_down(cx, successor);
        }
    }

    /// Becomes the root: asks the nodes around the key for the end of the log that they know (design §6).
    pub(crate) fn begin_recovery(&mut self, cx: &mut TreeCx<'_>) {
        self.end_relocation(cx);
        // An answer to a JOIN that is still on its way is void.
        self.uplink.join = cx.numbers.next_join();
        self.leave_parent(cx);
        let mut around = cx.ring.replica_set(cx.topic.key(), cx.config.root.queried);
        around.retain(|peer| peer.id != cx.me);
        let handoff = cx.handoffs.claim(cx.topic);
        let resumes = match std::mem::replace(&mut self.role, Role::Joining { former: None }) {
            Role::Root(root) => Some(root),
            Role::Joining { .. } | Role::Child(_) | Role::Recovering(_) => None,
        };
        let knows_term = self.flow.log.tip().is_some();
        self.role = Role::Recovering(Box::new(Recovering::new(cx.now, around, knows_term, handoff, resumes)));
        self.flow.log.clear_early();
        for timer in [TreeTimer::Join, TreeTimer::Ack, TreeTimer::Linger] {
            cx.timers.cancel(timer);
        }
        self.flow.count_window(cx);
        self.note_parent(cx, None);
        self.announce_path(cx);
        self.review_shape(cx);
        self.proceed(cx);
    }

    /// Opens the term if nothing more is to be waited for.
    pub(super) fn proceed(&mut self, cx: &mut TreeCx<'_>) {
        let Role::Recovering(recovering) = &mut self.role else { return };
        if !cx.is_root() {
            cx.timers.set(TreeTimer::Recover, cx.now + cx.config.root.query_retry);
            return self.on_root_lost(cx);
        }
        match recovering.step(cx.now, cx.config) {
            RecoveryStep::Open => self.open_term(cx),
            RecoveryStep::Wait { until, ask } => {
                cx.timers.set(TreeTimer::Recover, until);
                let query = Header::Query { topic: cx.topic };
                ask.into_iter().for_each(|node| cx.tell(node, &query));
            }
        }
    }

    /// A new root asks.
    pub(super) fn on_query(&mut self, cx: &mut TreeCx<'_>, from: Contact) {
        let closer = cx.is_closer(from.id());
        if self.role.is_root() && closer && !cx.is_root() {
            self.step_down(cx, from);
        } else if closer {
            cx.hand_off_unused(from);
        }
        cx.answer_query(from, self.flow.log.tip());
    }

    /// A node answers. `handoff`: it was the root, and hands its log over.
    pub(super) fn on_query_answer(
        &mut self,
        cx: &mut TreeCx<'_>,
        from: NodeId,
        tip: Option<LogTip>,
        handoff: bool,
    ) {
        if let Role::Recovering(recovering) = &mut self.role {
            recovering.stop_awaiting(from);
            if handoff {
                recovering.promise(cx.now + cx.config.root.handoff_wait);
            }
        }
        if let Some(tip) = tip {
            self.hear(cx, tip);
        }
        self.proceed(cx);
    }

    /// A node died: its answer is waited for no more.
    pub(crate) fn stop_awaiting(&mut self, cx: &mut TreeCx<'_>, node: NodeId) {
        if let Role::Recovering(recovering) = &mut self.role
            && recovering.stop_awaiting(node)
        {
            self.proceed(cx);
        }
    }

    /// A part of a handoff came: the rest is waited for.
    pub(crate) fn on_handoff_chunk(&mut self, cx: &TreeCx<'_>) {
        if let Role::Recovering(recovering) = &mut self.role {
            recovering.promise(cx.now + cx.config.root.handoff_wait);
        }
    }

    /// A handoff is complete. Returns it if it is not for now.
    pub(crate) fn on_handoff(
        &mut self,
        cx: &mut TreeCx<'_>,
        handoff: ReceivedHandoff,
    ) -> Option<ReceivedHandoff> {
        match &mut self.role {
            Role::Recovering(recovering) => {
                recovering.handoff = Some(handoff);
                self.proceed(cx);
                None
            }
            // The term is open already, and the loss was announced.
            Role::Root(_) => None,
            Role::Joining { .. } | Role::Child(_) => Some(handoff),
        }
    }

    /// Hears a claim about the log.
    pub(super) fn hear(&mut self, cx: &mut TreeCx<'_>, tip: LogTip) {
        let later_term = match self.flow.log.hear(tip, self.role.is_recovering()) {
            Heard::Nothing => return,
            Heard::Implausible => {
                return tracing::warn!(topic = %cx.topic, ?tip, "an implausible claim, ignored");
            }
            Heard::More { later_term } => later_term,
        };
        match &mut self.role {
            Role::Recovering(recovering) => {
                recovering.learn(cx.now);
                self.proceed(cx);
            }
            // Another root was, or is. The ring decides for one, whose next term is above both.
            Role::Root(_) => self.review_place(cx),
            // Only news of a later term matters further up; a later position will come down by itself.
            Role::Joining { .. } | Role::Child(_) => {
                if later_term && self.uplink.join > 0 {
                    self.rejoin(cx);
                }
            }
        }
    }

    fn open_term(&mut self, cx: &mut TreeCx<'_>) {
        let new = Role::Root(Box::new(Sequencer::new(cx.now)));
        let Role::Recovering(mut recovering) = std::mem::replace(&mut self.role, new) else { return };
        cx.timers.cancel(TreeTimer::Recover);
        let parked = recovering.take_parked();
        let handoff = recovering.handoff.and_then(|handoff| handoff.open());
        let gave = recovering.resumes.as_ref().and_then(|_| self.flow.log.part().map(Log::mark));
        if let Some(former) = recovering.resumes
            && self.flow.log.has_all(handoff.as_ref().map(|handoff| handoff.tip))
        {
            // No other node was the root meanwhile: the term goes on.
            self.role = Role::Root(former.resume());
            return self.answer_all(cx, parked);
        }
        let inherited = handoff.is_some_and(|handoff| self.inherit(cx, handoff));
        // If another node was the root meanwhile, its log may lack entries to which this node has given positions.
        let astray = gave.is_some_and(|gave| self.flow.log.lacks(gave));
        match self.flow.log.tip() {
            Some(tip) => self.begin_term(cx, tip, !inherited || astray),
            None => self.begin_log(cx),
        }
        self.answer_all(cx, parked);
    }

    /// No node knows of this topic: a new log is born.
    fn begin_log(&mut self, cx: &mut TreeCx<'_>) {
        let birth = cx.rng.random();
        self.flow.log.found(birth, Term { number: 1, root: cx.me });
        self.start_readers(cx, None);
        self.flow.start_children(cx, self.role.way_up(cx));
    }

    /// Opens a term above all that is known. `forced`: entries or sessions of earlier roots may be lost.
    fn begin_term(&mut self, cx: &mut TreeCx<'_>, tip: LogTip, forced: bool) {
        let term = Term { number: tip.term.number + 1, root: cx.me };
        self.flow.end_at(tip);
        if let (Role::Root(root), true) = (&mut self.role, forced) {
            root.begin_forced_term(cx.now, cx.config);
        }
        let body = Body::TermStart { previous: tip.tail.map(|tail| tail.term), forced };
        let at = Position { term, offset: tip.tail.map_or(0, |tail| tail.offset + 1) };
        tracing::debug!(topic = %cx.topic, term = term.number, offset = at.offset, forced, "opening a term");
        let entry = Entry::encode(cx.topic, at, body, &[]);
        self.flow.append(cx, self.role.way_up(cx), entry);
        self.flow.log.set_term(term);
        self.flow.wait_for_orphans(cx);
        self.start_readers(cx, None);
        self.flow.start_children(cx, self.role.way_up(cx));
        self.flow.run(cx, self.role.way_up(cx));
    }

    /// Takes over the former root's state. Returns `false` if some node knows of more than the former root did, or of
    /// another log that is longer; then the handoff's sessions are none of that log's.
    fn inherit(&mut self, cx: &mut TreeCx<'_>, handoff: Handoff) -> bool {
        if self.flow.log.tip().is_some_and(|tip| better(tip, handoff.tip) != handoff.tip) {
            return false;
        }
        self.flow.fill(&handoff);
        if let Role::Root(root) = &mut self.role {
            root.inherit(cx.now, cx.config, cx.quota, handoff.sessions, self.flow.log.part());
        }
        true
    }

    /// Another node is the root now: it gets the log, and this one becomes its child.
    pub(crate) fn step_down(&mut self, cx: &mut TreeCx<'_>, successor: Contact) {
        self.keep_until = cx.now + cx.config.tree.former_root_linger;
        match std::mem::replace(&mut self.role, Role::Joining { former: None }) {
            Role::Root(root) => self.hand_off(cx, &root.sessions, successor),
            Role::Recovering(recovering) => match (recovering.handoff, recovering.resumes) {
                (Some(handoff), _) => cx.hand_off(handoff.into_chunks(), successor),
                (None, Some(root)) => self.hand_off(cx, &root.sessions, successor),
                (None, None) => {}
            },
            other @ (Role::Joining { .. } | Role::Child(_)) => {
                self.role = other;
                return;
            }
        }
        cx.timers.cancel(TreeTimer::Recover);
        self.count_own(cx);
        self.on_parent_lost(cx, ParentLost::SteppedDown);
        self.review_need(cx);
    }

    fn hand_off(&self, cx: &mut TreeCx<'_>, sessions: &Sessions, successor: Contact) {
        let Some(log) = self.flow.log.part() else { return };
        let (window, sessions_bytes) = (cx.config.handoff.window_bytes, cx.config.handoff.session_bytes);
        cx.hand_off(chunks_of(&Handoff::of(log, sessions, window, sessions_bytes)), successor);
    }

    /// Gives a start to the subscriptions that have none, once the window has one (promise S5). `latest` is the
    /// parent's last entry, if it has just said so: entries up to there were published before.
    pub(super) fn start_readers(&mut self, cx: &mut TreeCx<'_>, latest: Option<Position>) {
        if self.role.is_recovering() {
            // It may still learn of a longer log.
            return;
        }
        for claim in self.flow.start_readers(cx, latest) {
            self.hear(cx, claim);
        }
        self.flow.deliver(cx);
    }

    /// A message asks this node, which is the root, for its position.
    pub(crate) fn on_publish(&mut self, cx: &mut TreeCx<'_>, publish: Publish, payload: Bytes) {
        if !self.role.is_root() {
            // Alone in the ring, the term is open at once.
            self.begin_recovery(cx);
        }
        match &mut self.role {
            Role::Root(_) => self.answer(cx, publish, payload),
            Role::Recovering(recovering) => recovering.park(publish, payload, cx.config),
            Role::Joining { .. } | Role::Child(_) => {}
        }
    }
}

//! A root opens its term, once it has asked around what there was before; and closes it when another node is to be
//! the root.

use std::collections::VecDeque;

use bytes::Bytes;
use rand::RngExt;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;

use super::flow::{forsake, renew};
use super::handover::Estate;
use super::neighbours::Side;
use super::position::encode_entry;
use super::tree::{Log, Opening, Role, Root, Tree, better, is_plausible};
use super::{Context, Forest, Life, Timer};
use crate::log::sessions::Sessions;
use crate::log::window::{Held, Window};
use crate::message::{Mark, Position, Term};
use crate::topic::TopicId;
use crate::wire::{Body, Header, Known, Publish};

impl Forest {
    /// Whether this node is the topic's root is the ring's decision, and may have changed.
    pub(super) fn review_place(&mut self, cx: Context<'_>, topic: TopicId) {
        if self.life != Life::Running || !self.is_online(cx) {
            return;
        }
        let Some(tree) = self.trees.get(&topic) else { return };
        let closest = cx.ring.is_root_of(cx.now, topic.key());
        match (tree.is_root(), closest) {
            (false, true) => self.begin_opening(cx, topic),
            (true, false) => self.review_root(cx, topic),
            (true, true) => self.review_term(cx, topic),
            (false, false) => {}
        }
    }

    /// A root whose leases run again asks whether another one was the root meanwhile; one whose leases never ended may
    /// have heard of a later term, too.
    fn review_term(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        if matches!(&tree.role, Role::Root(root) if root.lapsed) {
            return self.begin_opening(cx, topic);
        }
        let (Role::Root(_), Some(log), Some(heard)) = (&tree.role, &tree.log, tree.heard.as_deref().copied())
        else {
            return;
        };
        if heard.birth == log.birth && heard.term > log.term {
            let known = better(log.known(), heard);
            self.begin_term(cx, topic, known, true);
        }
    }

    /// This root's leases do not run. If it is still the closest that it knows of, it waits, positions nothing, and asks
    /// around when they run again; else its successor gets the log.
    fn review_root(&mut self, cx: Context<'_>, topic: TopicId) {
        if let Some(Role::Root(root)) = self.trees.get_mut(&topic).map(|tree| &mut tree.role) {
            root.lapsed = true;
        }
        let closest = cx.ring.replica_set(topic.key(), 1).first().copied();
        if let Some(successor) = closest.filter(|peer| peer.id != self.me) {
            self.abdicate(cx, topic, successor.into());
        }
    }

    /// Becomes the root: asks the nodes around the key what they know of the log (design §6).
    pub(super) fn begin_opening(&mut self, cx: Context<'_>, topic: TopicId) {
        self.end_move(topic);
        self.joins += 1;
        let mut around = cx.ring.replica_set(topic.key(), self.config.queried);
        around.retain(|peer| peer.id != self.me);
        let inheritance = self.handovers.claim(topic);
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let opening = Opening {
            since: cx.now,
            awaiting: around.into_iter().map(|peer: Peer| (peer.id, peer.into())).collect(),
            ask_at: cx.now,
            learned: tree.known().map(|_| cx.now),
            promised: None,
            inheritance,
            resumes: None,
            parked: VecDeque::new(),
            parked_bytes: 0,
        };
        let before = std::mem::replace(&mut tree.role, Role::Opening(Box::new(opening)));
        let parent = match before {
            Role::Child(upward) => self.neighbours.contact(upward.parent),
            Role::Joining { former } => former.map(|former| *former),
            Role::Opening(_) => None,
            Role::Root(root) => {
                if let Role::Opening(opening) = &mut tree.role {
                    // Who was the root meanwhile, if anybody was, stands next to it: no orphans are waited for.
                    (opening.resumes, opening.learned) = (Some(root), None);
                }
                None
            }
        };
        // An answer to a JOIN that is still on its way is void.
        tree.join = self.joins;
        tree.early.clear();
        if let Some(parent) = parent {
            self.neighbours.remove(Side::Up, parent.id(), topic);
            self.tell(parent, &Header::Leave { topic, join: self.joins });
        }
        for timer in [Timer::Join(topic), Timer::Ack(topic), Timer::Linger(topic)] {
            self.deadlines.cancel(timer);
        }
        self.count_window(cx.now, topic);
        self.note_parent(topic, None);
        self.announce_path(cx, topic);
        self.review_shape(cx, topic);
        self.proceed(cx, topic);
    }

    /// Opens the term if nothing more is to be waited for.
    pub(super) fn proceed(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let Role::Opening(opening) = &mut tree.role else { return };
        if !cx.ring.is_root_of(cx.now, topic.key()) {
            let retry = cx.now + self.config.query_retry;
            self.deadlines.set(Timer::Open(topic), retry);
            return self.review_root(cx, topic);
        }
        let Some(until) = opening.waits_until(cx.now, &self.config) else {
            return self.open_term(cx, topic);
        };
        let mut ask = Vec::new();
        if opening.ask_at <= cx.now && !opening.awaiting.is_empty() {
            opening.ask_at = cx.now + self.config.query_retry;
            ask.extend(opening.awaiting.values().copied());
        }
        let at = if opening.awaiting.is_empty() { until } else { until.min(opening.ask_at) };
        self.deadlines.set(Timer::Open(topic), at);
        for node in ask {
            self.tell(node, &Header::Query { topic });
        }
    }

    /// A new root asks.
    pub(super) fn on_query(&mut self, cx: Context<'_>, from: Contact, topic: TopicId) {
        let successor = topic.key().is_closer(from.id(), self.me);
        let roots = self.trees.get(&topic).is_some_and(|tree| tree.is_root());
        if roots && successor && !cx.ring.is_root_of(cx.now, topic.key()) {
            self.abdicate(cx, topic, from);
        } else if successor {
            self.bequeath(cx, topic, from);
        }
        let handover = self.handovers.is_under_way(topic, from.id());
        let known = self.trees.get(&topic).and_then(|tree| tree.known());
        self.tell(from, &Header::Known { topic, known, handover });
    }

    /// A node answers.
    pub(super) fn on_known(
        &mut self,
        cx: Context<'_>,
        from: NodeId,
        topic: TopicId,
        known: Option<Known>,
        handover: bool,
    ) {
        if let Some(Role::Opening(opening)) = self.trees.get_mut(&topic).map(|tree| &mut tree.role) {
            opening.awaiting.remove(&from);
            if handover {
                opening.promised = Some(cx.now + self.config.handover_wait);
            }
        }
        if let Some(known) = known {
            self.on_heard(cx, topic, known);
        }
        self.proceed(cx, topic);
    }

    /// Somebody knows something of the log.
    pub(super) fn on_heard(&mut self, cx: Context<'_>, topic: TopicId, known: Known) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        // A log that this node follows is not given up for another by hearsay.
        if tree.log.as_ref().is_some_and(|log| log.birth != known.birth && !tree.is_opening()) {
            return;
        }
        if !is_plausible(known.tail) || known.term.number >= 1 << 40 {
            tracing::warn!(%topic, ?known, "an implausible claim, ignored");
            return;
        }
        let known = settle_conflict(tree, known);
        let before = tree.known();
        let after = before.map_or(known, |before| better(before, known));
        if before == Some(after) {
            return;
        }
        tree.heard = Some(Box::new(after));
        match &mut tree.role {
            Role::Opening(opening) => {
                opening.learned.get_or_insert(cx.now);
                self.proceed(cx, topic);
            }
            // Another root was, or is. The ring decides for one, whose next term is above both.
            Role::Root(_) => self.review_place(cx, topic),
            Role::Joining { .. } | Role::Child(_) => {
                // Only news of a later term matters further up; a later position will come down by itself.
                if before.is_none_or(|before| after.term > before.term) && tree.join > 0 {
                    self.refresh(cx, topic);
                }
            }
        }
    }

    fn open_term(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let root = Root { sessions: Sessions::default(), certain_from: cx.now, used: cx.now, lapsed: false };
        let Role::Opening(opening) = std::mem::replace(&mut tree.role, Role::Root(Box::new(root))) else {
            return;
        };
        self.deadlines.cancel(Timer::Open(topic));
        let estate = opening.inheritance.and_then(|inheritance| inheritance.open());
        let gave = opening.resumes.as_ref().and_then(|_| tree.log.as_ref().map(Log::mark));
        if let Some(former) = opening.resumes {
            if tree.knows_no_more(estate.as_ref().map(|estate| estate.known)) {
                tree.role = Role::Root(Box::new(Root { lapsed: false, ..*former }));
                return self.answer_all(cx, topic, opening.parked);
            }
            self.sessions -= former.sessions.len();
        }
        let forced = match estate {
            Some(estate) => !self.inherit(cx, topic, estate),
            None => true,
        };
        // What this node gave places to as the root, while another was it, may be no part of the log that comes back.
        let astray = gave.is_some_and(|gave| self.trees.get(&topic).is_some_and(|tree| tree.lacks(gave)));
        let forced = forced || astray;
        match self.trees.get(&topic).and_then(|tree| tree.known()) {
            Some(known) => self.begin_term(cx, topic, known, forced),
            None => self.begin_log(cx, topic),
        }
        self.answer_all(cx, topic, opening.parked);
    }

    fn answer_all(&mut self, cx: Context<'_>, topic: TopicId, parked: VecDeque<(Publish, Bytes)>) {
        for (publish, payload) in parked {
            self.answer(cx, topic, publish, payload);
        }
    }

    /// Nobody knows of this topic: a new log is born.
    fn begin_log(&mut self, cx: Context<'_>, topic: TopicId) {
        let birth = self.rng.random();
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let term = Term { number: 1, root: self.me };
        tree.log = Some(Log { birth, term, window: Window::new(None) });
        self.begin_subscriptions(cx, topic, None);
        self.start_children(cx, topic);
    }

    /// Opens a term above all that is known.
    fn begin_term(&mut self, cx: Context<'_>, topic: TopicId, known: Known, forced: bool) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let number = known.term.number + 1;
        let offset = known.tail.map_or(0, |tail| tail.offset + 1);
        let term = Term { number, root: self.me };
        tree.heard = None;
        tree.take_log(known);
        if let (Role::Root(root), true) = (&mut tree.role, forced) {
            // What an earlier root may have positioned was first sent before now, and is given up by then.
            root.certain_from = cx.now + self.config.publish_timeout;
            self.sessions -= root.sessions.len();
            root.sessions = Sessions::default();
        }
        let body = Body::TermStart { previous: known.tail.map(|tail| tail.term), forced };
        let at = Position { term, offset };
        tracing::debug!(%topic, term = number, offset, forced, "opening a term");
        self.append(cx, topic, encode_entry(topic, at, body, &[]));
        if let Some(log) = self.trees.get_mut(&topic).and_then(|tree| tree.log.as_mut()) {
            log.term = term;
        }
        self.begin_subscriptions(cx, topic, None);
        self.start_children(cx, topic);
        self.flow(cx, topic);
    }

    /// Takes over what the former root handed over. `false`: somebody knows of more than it did, or of another log that
    /// is longer; then the estate's sessions are none of that log's.
    fn inherit(&mut self, cx: Context<'_>, topic: TopicId, estate: Estate) -> bool {
        let Some(tree) = self.trees.get_mut(&topic) else { return false };
        let whole = tree.known().is_none_or(|known| better(known, estate.known) == estate.known);
        if !whole {
            return false;
        }
        if tree.log.as_ref().is_some_and(|log| log.birth != estate.known.birth) {
            tree.heard = None;
        }
        estate.fill(tree);
        let room = self.config.max_sessions.saturating_sub(self.sessions);
        let forced = |held: &Held| matches!(held.body, Body::TermStart { forced: true, .. });
        let guessed = tree.log.as_ref().is_some_and(|log| log.window.entries().any(forced));
        if let Role::Root(root) = &mut tree.role {
            if guessed {
                // The former root did not know every session itself, or had not for long: nor does this one.
                root.certain_from = cx.now + self.config.publish_timeout;
            }
            root.sessions = Sessions::restore(cx.now, estate.sessions, room);
            self.sessions += root.sessions.len();
        }
        true
    }

    /// Another node is the root now: it gets the log, and this one becomes its child.
    pub(super) fn abdicate(&mut self, cx: Context<'_>, topic: TopicId, successor: Contact) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        tree.keep_until = cx.now + self.config.former_linger;
        match std::mem::replace(&mut tree.role, Role::Joining { former: None }) {
            Role::Root(root) => {
                self.sessions -= root.sessions.len();
                self.hand_over(cx, topic, &root.sessions, successor);
            }
            Role::Opening(opening) => {
                if let Some(root) = &opening.resumes {
                    self.sessions -= root.sessions.len();
                }
                match (opening.inheritance, opening.resumes) {
                    (Some(inheritance), _) => self.forward_inheritance(cx, topic, inheritance, successor),
                    (None, Some(root)) => self.hand_over(cx, topic, &root.sessions, successor),
                    (None, None) => {}
                }
            }
            other @ (Role::Joining { .. } | Role::Child(_)) => {
                tree.role = other;
                return;
            }
        }
        self.deadlines.cancel(Timer::Open(topic));
        self.count_own(topic);
        self.seek(cx, topic);
        self.review_need(cx, topic);
    }

    /// A node died: nobody waits for its answer.
    pub(super) fn stop_awaiting(&mut self, cx: Context<'_>, node: NodeId) {
        for topic in self.topic_ids() {
            let Some(Role::Opening(opening)) = self.trees.get_mut(&topic).map(|tree| &mut tree.role) else {
                continue;
            };
            if opening.awaiting.remove(&node).is_some() {
                self.proceed(cx, topic);
            }
        }
    }
}

/// Two roots of one log opened a term of the same number: whoever sees both asks for one above them.
fn settle_conflict(tree: &Tree, known: Known) -> Known {
    let own = tree.log.as_ref().filter(|log| log.birth == known.birth).map(|log| log.term);
    let conflict = own.is_some_and(|own| {
        own.number == known.term.number && own.root != known.term.root && known.term.root != NodeId(0)
    });
    if !conflict {
        return known;
    }
    Known { term: Term { number: known.term.number + 1, root: NodeId(0) }, ..known }
}

impl Opening {
    /// Until when this opening has to wait; `None`: not any longer.
    fn waits_until(&self, now: Instant, config: &crate::config::Config) -> Option<Instant> {
        if self.inheritance.is_some() {
            return None;
        }
        let answers = (!self.awaiting.is_empty()).then_some(self.since + config.query_timeout);
        // A term is above every term that its root learns from JOINs: the orphans get a moment to come.
        let orphans = self.learned.map(|at| at + config.gather);
        [answers, orphans, self.promised].into_iter().flatten().filter(|&at| at > now).max()
    }
}

impl Tree {
    /// Whether this node is about to open a term.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.role, Role::Opening(_))
    }

    /// Whether nobody has told of more than this node's own log shows, nor does an estate.
    fn knows_no_more(&self, estate: Option<Known>) -> bool {
        let own = self.log.as_ref().map(Log::known);
        let told = [self.heard.as_deref().copied(), estate];
        own.is_some_and(|own| {
            let within =
                |known: Known| known.birth == own.birth && known.term <= own.term && known.tail <= own.tail;
            told.into_iter().flatten().all(within)
        })
    }

    /// Whether this node's log, if it is that of the mark, does not show what stands there.
    fn lacks(&self, mark: Mark) -> bool {
        self.log.as_ref().is_some_and(|log| log.birth == mark.birth && !log.window.holds(mark.position))
    }

    /// Makes this node's log one that ends with the known tail, so that a term can follow.
    fn take_log(&mut self, known: Known) {
        let fresh = || Log { birth: known.birth, term: known.term, window: Window::new(known.tail) };
        match &mut self.log {
            None => self.log = Some(fresh()),
            Some(log) if log.birth != known.birth => forsake(self, fresh()),
            Some(log) if log.window.tail() != known.tail => {
                // What came between was only where this node cannot get it from.
                renew(self, Window::new(known.tail));
            }
            Some(_) => {}
        }
    }
}

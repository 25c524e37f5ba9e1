//! How a node comes and goes: the steps of the join as far as they concern others, an edge's access, leaving.

use std::time::Duration;

use super::core::{Phase, Timer};
use super::edge::{Access, AccessLost, Attached};
use super::join::{Advance, Join, Joiner, Next, Overdue};
use super::node::Node;
use crate::config::Role;
use crate::geometry::Geometry;
use crate::id::NodeId;
use crate::kbr::{Bootstrap, Event, StartError};
use crate::peer::Peer;
use crate::sides::Sides;
use crate::time::Instant;
use crate::wire::{Admission, Answer, Header, NodeState, ProbeAck};

/// How long after a start its memory is given back, in the mean.
const TIDY_AFTER: Duration = Duration::from_secs(5);

// The way onto the ring.
impl<G: Geometry> Node<G> {
    pub(super) fn start(&mut self, now: Instant, bootstrap: Bootstrap) {
        if self.core.phase != Phase::Idle {
            return;
        }
        self.join.begin(bootstrap);
        self.core.timers.set(Timer::StartTimeout, now + self.core.config.join.timeout);
        self.ask_for_a_ring(now);
    }

    /// Step 1, from the start or all over again.
    fn ask_for_a_ring(&mut self, now: Instant) {
        self.join.ask_for_a_ring(now, &mut self.core, || self.merge.lost.take_turns());
    }

    /// A seed may have answered.
    pub(super) fn on_seed_answer(&mut self, now: Instant, from: Peer, ack: &ProbeAck) {
        match self.join.on_answer(now, &mut self.core, from, ack) {
            Next::Wait => {}
            Next::Attach(through) => {
                self.join.attach(now, &mut self.core, through);
                self.access.ask(now, &mut self.core, through);
            }
            Next::Seek(through) => self.seek(now, through, 1),
        }
    }

    pub(super) fn on_join_timer(&mut self, now: Instant) {
        match self.join.on_timer(now, &mut self.core, || self.merge.lost.take_turns()) {
            Overdue::Nothing => {}
            Overdue::StartOver => self.start_over(now),
            Overdue::SeekAgain { through, attempts } => self.seek(now, through, attempts),
            Overdue::JoinOn => self.join_on(now),
            Overdue::BeFirst => self.be_first(now),
            Overdue::Fail(error) => self.stop(Event::StartFailed(error)),
        }
    }

    /// Step 2.
    fn seek(&mut self, now: Instant, through: Peer, attempts: u8) {
        let id = self.core.number();
        self.join.seek(&mut self.core, through, attempts, id);
        self.seek_through(now, through, id);
        self.core.timers.set(Timer::Join, now + Join::seek_patience(attempts));
    }

    /// The root of this node's id has answered.
    pub(super) fn on_sought(&mut self, now: Instant, answer: Answer) {
        let found: Vec<Peer> = [answer.root].into_iter().chain(answer.leaf_set).collect();
        let (geometry, mut cx) = self.shaping(now);
        geometry.on_named(&mut cx, &found);
        if self.join.on_sought(&mut self.core, answer.id) {
            let detector = &self.detector;
            let is_barred = |peer: &Peer| detector.is_not_to_be_asked(now, peer);
            if let Some(joiner) = self.join.joiner() {
                joiner.learn(&self.core, &found, is_barred);
            }
            self.join_on(now);
        } else if self.core.is_ready() {
            self.consider_all(now, found);
        }
    }

    /// Step 3: whatever is to be done next, and once more what was not answered.
    fn join_on(&mut self, now: Instant) {
        let Some(joiner) = self.join.joiner() else { return };
        let Some(silent) = joiner.begin_round() else { return self.start_over(now) };
        for neighbour in silent {
            self.probe(now, neighbour, false);
        }
        self.take_step(now);
        Joiner::plan_round(now, &mut self.core);
    }

    fn take_step(&mut self, now: Instant) {
        self.probe_view(now);
        let Some(joiner) = self.join.joiner() else { return };
        if joiner.step(now, &mut self.core) {
            self.take_place(now);
        }
    }

    fn probe_view(&mut self, now: Instant) {
        let Some(joiner) = self.join.joiner() else { return };
        for peer in joiner.to_probe() {
            self.probe(now, peer, false);
        }
    }

    pub(super) fn on_admission(&mut self, now: Instant, from: Peer, admission: Admission) {
        let Some(joiner) = self.join.joiner() else { return };
        if let Admission::NotNeighbour { members } = &admission {
            // A death that this node has found may have been none, or a node may be about to die there too: the nearer ones
            // are asked for themselves.
            for &peer in members {
                self.detector.clear_dead(peer);
            }
        }
        let detector = &self.detector;
        let is_barred = |peer: &Peer| detector.is_not_to_be_asked(now, peer);
        match joiner.on_admission(now, &mut self.core, from, admission, is_barred) {
            Advance::Wait => {}
            Advance::Step => self.take_step(now),
        }
    }

    /// A member of the view has answered what it was asked at `asked`.
    pub(super) fn on_joiner_answer(&mut self, now: Instant, from: Peer, ack: &ProbeAck, asked: Instant) {
        let Some(joiner) = self.join.joiner() else { return };
        let detector = &self.detector;
        let is_barred = |peer: &Peer| detector.is_not_to_be_asked(now, peer);
        let has_heard_all = joiner.on_ack(&mut self.core, from, ack, asked, is_barred);
        self.probe_view(now);
        if has_heard_all {
            self.take_step(now);
        }
    }

    pub(super) fn on_dead_while_joining(&mut self, now: Instant, id: NodeId) {
        if let Some(joiner) = self.join.joiner() {
            joiner.on_peer_dead(now, &mut self.core, id);
        }
    }

    pub(super) fn on_committed(&mut self, now: Instant, from: Peer, number: u64, lease: Sides) {
        let Some(joiner) = self.join.joiner() else { return };
        if joiner.on_committed(from, number, lease) {
            self.take_place(now);
        }
    }

    /// Step 4.
    fn take_place(&mut self, now: Instant) {
        let Some(joiner) = self.join.end(&mut self.core, Phase::Ready) else { return };
        let (view, committed) = joiner.into_place();
        for (&neighbour, &(asked, sides)) in &committed {
            self.leases.hold(now, &mut self.core, &self.tables, neighbour, sides, asked);
        }
        self.tables.replace(view);
        self.be_ready(now, false);
        for peer in self.tables.members() {
            self.merge.lost.forget(peer.id);
            self.geometry.on_joined(peer, self.detector.rtt(peer.id));
            if self.tables.leaf_set.is_ring_neighbour(peer.id) {
                self.introduce(now, peer);
            } else {
                // They have answered a moment ago. One that misses this frame hears of this node in a round of repair.
                self.announce(peer);
            }
        }
    }

    /// Back to asking: the seeds, and the nodes that were met on the ring.
    fn start_over(&mut self, now: Instant) {
        if let Some(view) = self.join.view() {
            view.iter().for_each(|&peer| self.merge.lost.note(now, peer));
        }
        self.join.withdraw(&mut self.core);
        self.ask_for_a_ring(now);
    }

    /// No node is there: this node is the first of a ring of its own, and goes on asking.
    fn be_first(&mut self, now: Instant) {
        let promoted = self.core.is_edge();
        self.core.role = Role::Ring;
        self.be_ready(now, true);
        if promoted {
            self.core.emit(Event::ContactChanged(self.relaying().contact()));
        }
    }

    /// On the ring, or attached to it.
    fn be_ready(&mut self, now: Instant, alone: bool) {
        self.join.end(&mut self.core, Phase::Ready);
        self.core.timers.cancel(Timer::Join);
        self.core.timers.cancel(Timer::StartTimeout);
        self.core.emit(Event::Ready { alone });
        if self.core.is_edge() {
            return;
        }
        self.detector.begin_counting(now);
        self.leases.plan_heartbeat(now, &mut self.core, &self.tables);
        // The first look is an early one: the way onto the ring has taken much memory.
        let soon = self.core.jittered(TIDY_AFTER);
        self.core.timers.set(Timer::Sweep, now + soon);
        let (geometry, mut cx) = self.shaping(now);
        geometry.on_ready(&mut cx);
        self.plan_repair(now);
        self.merge.plan(now, &mut self.core, &self.tables);
        self.unpark(now, usize::MAX);
    }

    pub(super) fn on_start_timeout(&mut self) {
        if let Some(error) = self.join.timed_out() {
            self.stop(Event::StartFailed(error));
        }
    }
}

// Joiners come between this node and its neighbours.
impl<G: Geometry> Node<G> {
    pub(super) fn on_join_request(&mut self, now: Instant, from: Peer) {
        let admission = self.slots.admit(now, &self.core, &self.tables, &self.leases, from);
        self.core.send(from, Header::Admission(admission));
    }

    /// An admitted joiner, whose leaf set has answered, takes its part over.
    pub(super) fn on_join_commit(&mut self, now: Instant, from: Peer, number: u64, other_neighbour: NodeId) {
        if !self.core.is_on_ring() {
            let refusal = Admission::NotReady;
            return self.core.send(from, Header::Admission(refusal));
        }
        let member = self.tables.leaf_set.get(from.id);
        let is_member = member.is_some_and(|member| member.incarnation == from.incarnation);
        let refusal = self.slots.refusal(now, &self.core, &self.tables, &self.leases, from, other_neighbour);
        if let Some(refusal) = refusal.filter(|_| !is_member) {
            return self.core.send(from, Header::Admission(refusal));
        }
        let sides = self.tables.leaf_set.sides_for(from.id);
        let ceded = self.slots.cede(from, number).and(sides);
        self.leases.grant(now, &self.core, from.id, ceded);
        let lease = if is_member { self.grant_lease(now, from, NodeState::Ready, sides) } else { ceded };
        self.core.send(from, Header::JoinCommitted { number, lease });
        self.core.emit(Event::NeighboursChanged);
    }

    pub(super) fn on_join_abort(&mut self, now: Instant, from: Peer, number: u64) {
        if self.slots.withdraw(now, from, number) {
            // It answers for nothing: its neighbours may have their leases back.
            self.leases.release(from.id);
            self.core.emit(Event::NeighboursChanged);
        }
        self.unpark(now, usize::MAX);
    }
}

// Leaving.
impl<G: Geometry> Node<G> {
    /// Leaves in order: answers for nothing first, then tells so all that count on it.
    pub(super) fn leave(&mut self) {
        if self.core.is_ready() {
            let members = self.tables.members();
            let leaf_set = &self.tables.leaf_set;
            let others = self.geometry.entries().filter(|peer| !leaf_set.contains(peer.id)).copied();
            let told = members.iter().copied().chain(others).chain(self.edges.peers());
            for peer in told.collect::<Vec<Peer>>() {
                self.core.send(peer, Header::Leave { members: members.clone() });
            }
            for access in self.access.peers() {
                self.core.send(access, Header::Detach);
            }
        }
        self.stop(Event::Left);
    }

    /// A newer incarnation of this node was met: this one is void (design §5, incarnations). `Outdated` tells an older life
    /// that a newer one exists, but only a handshake that proves the same key stops it: a claim stops no node.
    pub(super) fn superseded(&mut self, by: u64) {
        let event = if self.core.is_ready() {
            Event::Superseded { by }
        } else {
            Event::StartFailed(StartError::Superseded { id: self.core.me.id })
        };
        self.stop(event);
    }

    /// The node stops for good.
    fn stop(&mut self, event: Event) {
        self.join.withdraw(&mut self.core);
        self.join.end(&mut self.core, Phase::Stopped);
        self.core.timers = Default::default();
        self.leases.stop_serving();
        self.core.emit(event);
    }
}

// An edge's access nodes.
impl<G: Geometry> Node<G> {
    pub(super) fn on_attached(&mut self, now: Instant, from: Peer, accepted: bool, members: Vec<Peer>) {
        match self.access.on_attached(now, &mut self.core, from, accepted, members) {
            Attached::Kept => {}
            Attached::Refused => self.lose_access(now, from.id),
            Attached::Gained { is_only } => {
                if !self.core.is_ready() {
                    // Also if its answer came so late that this edge is asking again already.
                    self.be_ready(now, false);
                } else if is_only {
                    self.core.emit(Event::ContactChanged(self.relaying().contact()));
                }
                self.unpark(now, usize::MAX);
                self.access.look_for_standby(now, &mut self.core);
                self.core.timers.set_earlier(Timer::Edge, now + self.core.config.edges.keepalive);
            }
        }
    }

    /// A connection broke, or could not be made: for an access node that is enough to use the other.
    pub(super) fn on_access_unreachable(&mut self, now: Instant, id: NodeId) {
        if self.access.is_concerned(&self.core, id) {
            self.lose_access(now, id);
        }
    }

    pub(super) fn lose_access(&mut self, now: Instant, id: NodeId) {
        let AccessLost { was_attached, contact_changed } = self.access.lose(&mut self.core, id);
        if was_attached {
            self.reroute(now, id);
        }
        if contact_changed {
            self.core.emit(Event::ContactChanged(self.relaying().contact()));
        }
        self.access.note_none(now, &self.core);
        if self.join.is_attaching() {
            return self.core.timers.set(Timer::Join, now);
        }
        self.access.look_for_standby(now, &mut self.core);
    }

    /// An edge's keep-alive.
    pub(super) fn on_access_timer(&mut self, now: Instant) {
        self.core.timers.set(Timer::Edge, now + self.core.config.edges.keepalive);
        for id in self.access.silent(now, &self.core) {
            self.lose_access(now, id);
        }
        match self.access.keep_alive(now, &mut self.core) {
            None => self.access.look_for_standby(now, &mut self.core),
            Some(since) if Access::is_to_be_promoted(now, &self.core, since) => self.promote(now),
            Some(_) => self.access.ask_everybody(&mut self.core, self.join.seeds()),
        }
    }

    /// The edge becomes a ring node: it joins whatever ring it finds, or is the first of one.
    fn promote(&mut self, now: Instant) {
        tracing::info!(node = %self.core.me.id, "no ring node found: becoming one");
        self.core.role = Role::Ring;
        let known = self.access.retire(&mut self.core);
        self.join.widen(known.into_iter());
        self.ask_for_a_ring(now);
    }
}

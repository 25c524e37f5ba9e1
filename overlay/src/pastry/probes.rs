//! Questions and answers: who lives, how far it is, and which leases it grants.

use std::time::Duration;

use super::join::Phase;
use super::liveness::{Asked, Question};
use super::{Node, Timer};
use crate::config::Role;
use crate::id::NodeId;
use crate::kbr::KeyBasedRouting;
use crate::peer::Peer;
use crate::sides::{Side, Sides};
use crate::time::Instant;
use crate::wire::{Ask, Header, Probe, ProbeAck, Standing};

/// How soon a neighbour that has not answered in its time is asked again for a lease.
const LEASE_SPACING: Duration = Duration::from_millis(150);

impl Node {
    /// Sends a probe, unless one is under way: then its retransmissions do. `lease`: asks for a lease as well.
    pub(super) fn probe(&mut self, now: Instant, peer: Peer, lease: bool) {
        match self.liveness.asked_mut(peer.id) {
            Some(asked) => asked.question.lease |= lease,
            None => self.send_probe(now, peer, 1, Question { lease, ..Question::default() }),
        }
    }

    /// The first word to a neighbour from a node that has just taken its place asks for a lease, and for the leaf set: on
    /// the neighbour's other side another one may have entered at the same time, of whom nobody could tell before.
    pub(super) fn introduce(&mut self, now: Instant, neighbour: Peer) {
        match self.liveness.asked_mut(neighbour.id) {
            Some(asked) => (asked.question.lease, asked.question.leaf_set) = (true, true),
            None => {
                let question = Question { lease: true, leaf_set: true, rumour: false };
                self.send_probe(now, neighbour, 1, question);
            }
        }
    }

    /// Others have found this peer dead: it is asked less often than usual, and then believed to be.
    pub(super) fn look_again(&mut self, now: Instant, peer: Peer) {
        if self.liveness.asked(peer.id).is_none() {
            self.send_probe(now, peer, 1, Question { rumour: true, ..Question::default() });
        }
    }

    fn send_probe(&mut self, now: Instant, peer: Peer, attempts: u8, question: Question) {
        let standing = self.standing();
        let entering = matches!(self.phase, Phase::Entering(_));
        let question = Question {
            lease: question.lease && standing == Standing::Ready,
            leaf_set: question.leaf_set || entering,
            ..question
        };
        let (number, sides) = self.expect_answer(now, peer, attempts, question);
        let leaf_set = question.leaf_set;
        let probe = Probe { number, standing, lease: sides, leaf_set };
        self.transmit_probe(now, peer, probe, attempts);
    }

    /// Notes a question that is being sent to this peer; returns its number, and the leases to be asked for. An answer
    /// bears the same number.
    fn expect_answer(&mut self, now: Instant, peer: Peer, attempts: u8, question: Question) -> (u64, Sides) {
        let number = self.number();
        let sides = if question.lease { self.stands_at(peer.id) } else { Sides::None };
        self.liveness.watch(now, peer);
        self.liveness.ask(Asked { peer, number, sent: now, attempts, question, sides, spoke: false });
        let rto = self.rto(peer.id);
        let wait = if !question.lease {
            rto.saturating_mul(1 << (attempts - 1).min(4)).min(self.config.rto_max)
        } else if attempts == 1 || attempts == self.config.lease_attempts {
            rto
        } else {
            // A neighbour's lease may end meanwhile: it is asked without patience, and only the last word waited for.
            LEASE_SPACING
        };
        self.deadlines.set(Timer::Probe(peer.id), now + wait);
        (number, sides)
    }

    /// A neighbour that asks for a lease is asked for one in the answer, if this node's is not fresh: one exchange
    /// serves both.
    fn ask_in_return(&mut self, now: Instant, from: Peer) -> Option<Ask> {
        let is_due = self.is_ready() && !self.is_lease_fresh(now, from.id);
        (is_due && self.liveness.asked(from.id).is_none()).then(|| {
            let (number, lease) =
                self.expect_answer(now, from, 1, Question { lease: true, ..Question::default() });
            Ask { number, lease }
        })
    }

    /// Probes these peers as if nobody had asked them yet: what they were asked before a sleep counts for nothing, and
    /// neither does an answer to it.
    pub(super) fn ask_anew(&mut self, now: Instant, peers: Vec<Peer>) {
        for asked in self.liveness.take_all_asked() {
            self.deadlines.cancel(Timer::Probe(asked.peer.id));
        }
        self.detours.forget_asked();
        let neighbours = self.neighbours();
        for peer in peers {
            self.probe(now, peer, neighbours.contains(&peer));
        }
    }

    pub(super) fn on_probe_timeout(&mut self, now: Instant, id: NodeId) {
        let Some(&Asked { peer, attempts, question, spoke, .. }) = self.liveness.asked(id) else {
            return;
        };
        if spoke {
            // It lives, only the answer was lost. A lease must be granted in words, though.
            self.forgive(id);
            if question.leaf_set {
                self.introduce(now, peer);
            } else if question.lease || self.leases.is_waking(id) {
                self.probe(now, peer, question.lease);
            }
        } else if attempts < self.patience(id, question) {
            self.send_probe(now, peer, attempts + 1, question);
            self.look_beyond(now, id);
        } else {
            tracing::debug!(node = %self.me.id, peer = %id, "found dead: {attempts} probes unanswered");
            let in_table = self.table.get(id).copied();
            self.lose(now, id);
            // Who has believed it after one silence tells nobody: a rumour does not live on what others believed.
            let saw_for_itself = attempts > 1 || !question.rumour;
            if let Some(dead) = in_table.filter(|_| saw_for_itself) {
                self.spread_rumour(dead);
            }
        }
    }

    /// How many silences make a verdict. Fewer where nothing hangs on it, or where it is not the first one.
    fn patience(&self, id: NodeId, question: Question) -> u8 {
        let is_neighbour = self.ends().any(|end| end.id == id);
        let is_needed = !self.is_ready() || self.leaf_set.contains(id) || self.leaf_set.wants(id);
        if question.lease {
            self.config.lease_attempts
        } else if question.rumour && !is_needed {
            1
        } else if !is_needed || question.rumour && !is_neighbour {
            self.config.probe_attempts.min(self.config.confirmations)
        } else {
            self.config.probe_attempts
        }
    }

    /// A suspect may not be the only one: if all between it and this node are suspect too, so that nobody else watches
    /// over whoever comes next on its side, that one is probed without waiting for the verdicts.
    fn look_beyond(&mut self, now: Instant, id: NodeId) {
        for side in Side::BOTH {
            let mut met = false;
            let next = self
                .leaf_set
                .side(side)
                .inspect(|peer| met |= peer.id == id)
                .find(|peer| !self.liveness.is_suspect(peer.id))
                .copied();
            if let Some(next) = next.filter(|_| met) {
                self.probe(now, next, false);
            }
        }
    }

    /// Takes a round-trip sample of a peer that is watched; the tables order their entries by it.
    pub(super) fn note_round_trip(&mut self, peer: Peer, sample: Duration) {
        if let Some(rtt) = self.liveness.measure(peer.id, sample) {
            self.table.set_rtt(peer.id, rtt);
            if self.table.get(peer.id).is_some() || self.leaf_set.contains(peer.id) {
                self.neighbourhood.insert(peer, rtt);
            }
        }
    }

    /// The outstanding probe needs no answer any more.
    pub(super) fn settle_probe(&mut self, id: NodeId) {
        self.liveness.take_asked(id);
        self.deadlines.cancel(Timer::Probe(id));
    }

    /// Whatever this peer was asked by now, its answer counts for nothing.
    pub(super) fn take_questions_back(&mut self, id: NodeId) {
        self.settle_probe(id);
        self.detours.settle_indirect(id, u64::MAX);
        self.carried.forget(id);
    }

    fn forgive(&mut self, id: NodeId) {
        self.settle_probe(id);
        self.forget_stranger(id);
    }

    pub(super) fn on_probe(&mut self, now: Instant, from: Peer, probe: Probe) {
        // Before it is met: whoever has become a neighbour by this very word need not be asked again.
        let may_ask = !probe.lease.is_none() && probe.standing == Standing::Ready && self.is_next_to(from.id);
        let asks = if may_ask { self.ask_in_return(now, from) } else { None };
        if probe.standing == Standing::Ready {
            self.meet(now, from);
        }
        let lease = self.grant_lease(now, from, probe.standing, probe.lease);
        let wants_members = probe.leaf_set || lease != probe.lease;
        let asks_for_a_ring = probe.standing == Standing::Starting && self.is_edge();
        let leaf_set = (wants_members || asks_for_a_ring).then(|| self.members_to_tell()).flatten();
        let ack = ProbeAck { number: probe.number, standing: self.standing(), lease, asks, leaf_set };
        self.transmit(from, Header::ProbeAck(ack));
    }

    /// What an acknowledgement says of those around this node, if it is on the ring or hangs there.
    fn members_to_tell(&self) -> Option<Vec<Peer>> {
        self.is_ready().then(|| match self.role {
            Role::Ring => self.leaf_set.iter().copied().collect(),
            Role::Edge { .. } => self.access.in_use(),
        })
    }

    /// Says that this node is on the ring, without asking for an answer.
    pub(super) fn announce(&mut self, to: Peer) {
        // No question has this number.
        let (number, standing) = (0, self.standing());
        let ack = ProbeAck { number, standing, lease: Sides::None, asks: None, leaf_set: None };
        self.transmit(to, Header::ProbeAck(ack));
    }

    pub(super) fn on_probe_ack(&mut self, now: Instant, from: Peer, relay: Option<Peer>, ack: ProbeAck) {
        let answered = self.liveness.asked(from.id).filter(|asked| asked.number == ack.number);
        let answered = answered.map(|asked| (asked.sent, asked.sides));
        let answered = answered.or_else(|| self.asked_indirectly(now, from.id, ack.number));
        self.note_way(now, from.id, relay, ack.number, answered.is_some());
        if let Some((sent, sides)) = answered {
            self.note_round_trip(from, now - sent);
            self.leases.settle_waking(from.id);
            let granted = ack.lease.and(sides);
            self.take_lease(now, from.id, granted, sent);
            let asked = self.liveness.asked(from.id);
            let came_late = sides.is_none()
                && !self.stands_at(from.id).is_none()
                && asked.is_some_and(|asked| asked.question.lease);
            self.settle_probe(from.id);
            if came_late {
                // The lease was wanted when a probe was on its way that did not ask for it.
                self.probe(now, from, true);
            }
            if granted != sides {
                self.look_between(now, from.id, ack.leaf_set.as_deref().unwrap_or_default());
            }
        }
        self.on_asked_standing(now, from, &ack);
        match ack.standing {
            Standing::Ready if self.is_ready() => self.meet_answering(now, from, ack.number),
            Standing::Ready => {}
            Standing::Starting | Standing::Joining | Standing::Edge => self.on_not_on_ring(now, from.id),
        }
        if let Some(ask) = ack.asks {
            self.answer_in_return(now, from, ask, ack.standing);
        }
        if let Some((sent, _)) = answered {
            self.on_entering_ack(now, from, &ack, sent);
            // Only now: whoever has just entered a table keeps the round-trip time that was measured on its way in.
            self.forget_stranger(from.id);
        }
        if self.is_ready() && !self.is_edge() {
            self.consider_all(now, ack.leaf_set.unwrap_or_default());
        }
    }

    /// The other half of an exchange: the answerer asked as well.
    fn answer_in_return(&mut self, now: Instant, from: Peer, ask: Ask, standing: Standing) {
        let lease = self.grant_lease(now, from, standing, ask.lease);
        let leaf_set = if lease == ask.lease { None } else { self.members_to_tell() };
        let ack = ProbeAck { number: ask.number, standing: self.standing(), lease, asks: None, leaf_set };
        self.transmit(from, Header::ProbeAck(ack));
    }

    /// A member of our tables says that it is not on the ring: it restarted, or left.
    fn on_not_on_ring(&mut self, now: Instant, id: NodeId) {
        if self.is_ready() && self.member(id).is_some() {
            self.lose(now, id);
        }
    }
}

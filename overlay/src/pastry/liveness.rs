//! Who lives: probes and traffic, suspicion and verdict. A rumour of a death is never believed without a probe
//! (MSPastry §3.1); a broken connection is a hint.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::invariants::Size;
use super::join::Phase;
use super::{Node, Timer};
use crate::config::Role;
use crate::id::NodeId;
use crate::kbr::{Event, KeyBasedRouting};
use crate::machine::Refusal;
use crate::peer::{Peer, Seed};
use crate::time::Instant;
use crate::wire::{Header, Probe, ProbeAck, Standing};

/// Peers that are watched or asked; beyond it, nobody is probed because others named him. A node of a ring of a million
/// has some 300 in its tables; who names nodes that do not exist fills the rest, until their probes run out.
const MAX_WATCHED: usize = 1024;
/// Most dead nodes that are remembered; beyond it the oldest are forgotten, and may return by rumour.
const MAX_BURIED: usize = 512;
/// Most nodes remembered that have left; beyond it the oldest are forgotten, and a word of theirs that comes that late
/// brings them back until a probe finds them dead.
const MAX_LEFT: usize = 512;
/// A refused dial counts as an unanswered probe, but no sooner than this after it was sent: three of them make a
/// verdict, and a restarting process deserves a moment.
const REFUSAL_SPACING: Duration = Duration::from_millis(150);
/// The share of the round trip, as a divisor, that is waited beyond it at least (guess).
const EVEN: u32 = 4;
/// Wait for the first answer of a peer that was never measured.
const FIRST_RTO: Duration = Duration::from_secs(1);

/// What this node knows of its peers' lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Liveness {
    peers: BTreeMap<NodeId, Vitals>,
    /// Found dead: (id, incarnation, until when rumours of their life are ignored), oldest first.
    buried: VecDeque<(NodeId, u64, Instant)>,
    /// Lives that have ended by their own word, oldest first: nothing that comes late brings them back.
    left: VecDeque<(NodeId, u64)>,
}

/// What this node knows of one peer's life.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Vitals {
    peer: Peer,
    /// This life was heard itself; if not, others named it, and what they say of its incarnation bars nobody.
    spoke: bool,
    heard: Instant,
    round_trip: Option<RoundTrip>,
    outstanding: Option<Outstanding>,
}

/// Smoothed round-trip time and its variation in microseconds (RFC 6298 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RoundTrip {
    smoothed: u32,
    variation: u32,
}

/// A probe that was not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Outstanding {
    number: u64,
    sent: Instant,
    attempts: u8,
    lease: bool,
}

impl Liveness {
    /// Smoothed round-trip time, if it was ever measured.
    pub(super) fn rtt(&self, id: NodeId) -> Option<Duration> {
        let round_trip = self.peers.get(&id)?.round_trip?;
        Some(Duration::from_micros(u64::from(round_trip.smoothed)))
    }

    /// How long to wait for an answer: smoothed RTT + 4 × variation, and never just the round trip itself, to which an
    /// even link's smoothed RTT comes: its answers would all be too late by nothing (RFC 6298 §2 has a least
    /// variation, too).
    pub(super) fn rto(&self, id: NodeId, min: Duration, max: Duration) -> Duration {
        match self.peers.get(&id).and_then(|vitals| vitals.round_trip) {
            Some(RoundTrip { smoothed, variation }) => {
                let spare = (4 * u64::from(variation)).max(u64::from(smoothed / EVEN));
                Duration::from_micros(u64::from(smoothed) + spare).clamp(min, max)
            }
            None => FIRST_RTO.clamp(min, max),
        }
    }

    /// Whether a probe or a hop to this peer went unanswered, and nothing was heard since.
    pub(super) fn is_suspect(&self, id: NodeId) -> bool {
        self.peers.get(&id).is_some_and(|vitals| {
            vitals.outstanding.is_some_and(|asked| asked.attempts > 1 && vitals.heard < asked.sent)
        })
    }

    /// Whether this incarnation, or a later one, was found dead a short while ago, or has left.
    pub(super) fn is_buried(&self, now: Instant, peer: &Peer) -> bool {
        let dead = |&(id, incarnation, until): &(NodeId, u64, Instant)| {
            id == peer.id && incarnation >= peer.incarnation && until > now
        };
        self.buried.iter().any(dead) || self.has_left(peer)
    }

    /// Whether this incarnation, or a later one, has said that it leaves.
    pub(super) fn has_left(&self, peer: &Peer) -> bool {
        self.left.iter().any(|&(id, incarnation)| id == peer.id && incarnation >= peer.incarnation)
    }

    /// The node has said that it leaves.
    pub(super) fn note_left(&mut self, peer: Peer) {
        self.left.retain(|&(left, _)| left != peer.id);
        if self.left.len() == MAX_LEFT {
            self.left.pop_front();
        }
        self.left.push_back((peer.id, peer.incarnation));
    }

    /// What is remembered of lives that have ended (promise O5). Of those that go on: the tables' members, and whoever
    /// others named, up to a limit that is kept where they are asked.
    pub(super) fn sizes(&self) -> [Size; 2] {
        [("peers found dead", self.buried.len(), MAX_BURIED), ("peers that left", self.left.len(), MAX_LEFT)]
    }

    /// Whether so many peers are watched, or owe an answer, that none is probed because others named it.
    pub(super) fn is_full(&self) -> bool {
        self.peers.len() >= MAX_WATCHED
    }

    /// Begins to watch a peer that was heard just now.
    pub(super) fn begin(&mut self, now: Instant, peer: Peer) {
        self.watch(now, peer).spoke = true;
    }

    /// Takes a round-trip sample.
    fn measure(&mut self, id: NodeId, sample: Duration) -> Option<Duration> {
        let vitals = self.peers.get_mut(&id)?;
        let sample = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX / 8).min(u32::MAX / 8);
        let trip = match vitals.round_trip {
            None => RoundTrip { smoothed: sample, variation: sample / 2 },
            Some(RoundTrip { smoothed, variation }) => RoundTrip {
                smoothed: (7 * smoothed.min(u32::MAX / 8) + sample) / 8,
                variation: (3 * variation.min(u32::MAX / 8) + smoothed.abs_diff(sample)) / 4,
            },
        };
        vitals.round_trip = Some(trip);
        Some(Duration::from_micros(u64::from(trip.smoothed)))
    }

    fn watch(&mut self, now: Instant, peer: Peer) -> &mut Vitals {
        let stranger = Vitals { peer, spoke: false, heard: now, round_trip: None, outstanding: None };
        self.peers.entry(peer.id).or_insert(stranger)
    }

    fn bury(&mut self, peer: Peer, until: Instant) {
        self.buried.retain(|&(buried, _, _)| buried != peer.id);
        if self.buried.len() == MAX_BURIED {
            self.buried.pop_front();
        }
        self.buried.push_back((peer.id, peer.incarnation, until));
    }

    /// This node was the one that could not be reached: no verdict of its own counts.
    pub(super) fn exhume_all(&mut self) {
        self.buried.clear();
    }

    /// The node itself spoke, in this incarnation or a later one: it is not dead. Or somebody near it says so, and it
    /// deserves another look.
    pub(super) fn exhume(&mut self, peer: Peer) {
        self.buried.retain(|&(id, incarnation, _)| id != peer.id || incarnation > peer.incarnation);
    }
}

impl Node {
    /// A frame of `from` arrived: it lives. The words of an older incarnation are void: then, an error
    /// with the newer one.
    pub(super) fn hear(&mut self, now: Instant, from: Peer) -> Result<(), Peer> {
        if let Some(newer) = self.newer_life(from) {
            return Err(newer);
        }
        if let Some(vitals) = self.liveness.peers.get_mut(&from.id) {
            if from.incarnation > vitals.peer.incarnation {
                // Whatever was known of the older one is void, except a lease that it holds.
                self.lose(now, from.id);
                self.liveness.begin(now, from);
                return Ok(());
            }
            *vitals = Vitals { peer: from, spoke: true, heard: now, ..*vitals };
        }
        if !self.liveness.buried.is_empty() {
            self.liveness.exhume(from);
        }
        if self.leaf_set.get(from.id).is_some_and(|member| member.incarnation == from.incarnation) {
            self.leases.pardon(from.id);
        }
        Ok(())
    }

    /// A later life of this peer that was heard itself: watched, about to join here, or hanging here as an edge.
    fn newer_life(&self, peer: Peer) -> Option<Peer> {
        let watched = self.liveness.peers.get(&peer.id).filter(|vitals| vitals.spoke).map(|v| v.peer);
        let lives = watched.into_iter().chain(self.slots.joiner(peer.id)).chain(self.edges.peer(peer.id));
        lives.max_by_key(|life| life.incarnation).filter(|life| life.incarnation > peer.incarnation)
    }

    /// Sends a probe, unless one is under way: then its retransmissions do. `lease`: asks for a lease as well.
    pub(super) fn probe(&mut self, now: Instant, peer: Peer, lease: bool) {
        match &mut self.liveness.watch(now, peer).outstanding {
            Some(outstanding) => outstanding.lease |= lease,
            None => self.send_probe(now, peer, 1, lease),
        }
    }

    fn send_probe(&mut self, now: Instant, peer: Peer, attempts: u8, lease: bool) {
        let number = self.number();
        let standing = self.standing();
        let leaf_set = matches!(self.phase, Phase::Entering(_));
        let lease = lease && standing == Standing::Ready;
        self.transmit(peer, Header::Probe(Probe { number, standing, lease, leaf_set }));
        self.liveness.watch(now, peer).outstanding = Some(Outstanding { number, sent: now, attempts, lease });
        let rto = self.liveness.rto(peer.id, self.config.rto_min, self.config.rto_max);
        let wait = rto.saturating_mul(1 << (attempts - 1).min(4)).min(self.config.rto_max);
        self.deadlines.set(Timer::Probe(peer.id), now + wait);
    }

    /// Probes these peers as if nobody had asked them yet: what they were asked before a sleep counts for nothing, and
    /// neither does an answer to it.
    pub(super) fn ask_anew(&mut self, now: Instant, peers: Vec<Peer>) {
        for vitals in self.liveness.peers.values_mut().filter(|vitals| vitals.outstanding.is_some()) {
            vitals.outstanding = None;
            self.deadlines.cancel(Timer::Probe(vitals.peer.id));
        }
        let neighbours = self.neighbours();
        for peer in peers {
            self.probe(now, peer, neighbours.contains(&peer));
        }
    }

    pub(super) fn on_probe_timeout(&mut self, now: Instant, id: NodeId) {
        let Some(vitals) = self.liveness.peers.get(&id) else { return };
        let Some(outstanding) = vitals.outstanding else { return };
        let (peer, lease) = (vitals.peer, outstanding.lease);
        if vitals.heard > outstanding.sent {
            // It spoke since: it lives, only the answer was lost. A lease must be granted in words, though.
            self.forgive(id);
            if lease || self.leases.is_waking(id) {
                self.probe(now, peer, lease);
            }
        } else if outstanding.attempts < self.config.probe_attempts {
            self.send_probe(now, peer, outstanding.attempts + 1, lease);
        } else {
            tracing::debug!(node = %self.me.id, peer = %id, "found dead: {} probes unanswered", outstanding.attempts);
            self.lose(now, id);
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
    fn settle_probe(&mut self, id: NodeId) {
        if let Some(vitals) = self.liveness.peers.get_mut(&id) {
            vitals.outstanding = None;
        }
        self.deadlines.cancel(Timer::Probe(id));
    }

    fn forgive(&mut self, id: NodeId) {
        self.settle_probe(id);
        self.forget_stranger(id);
    }

    pub(super) fn on_probe(&mut self, now: Instant, from: Peer, probe: Probe) {
        if probe.standing == Standing::Ready {
            self.meet(now, from);
        }
        let lease = probe.lease && self.grant_lease(now, from, probe.standing);
        let wants_members = probe.leaf_set || probe.lease && !lease;
        let asks_for_a_ring = probe.standing == Standing::Starting && self.is_edge();
        let leaf_set = ((wants_members || asks_for_a_ring) && self.is_ready()).then(|| match self.role {
            Role::Ring => self.leaf_set.iter().copied().collect(),
            Role::Edge { .. } => self.access.in_use(),
        });
        let ack = ProbeAck { number: probe.number, standing: self.standing(), lease, leaf_set };
        self.transmit(from, Header::ProbeAck(ack));
    }

    pub(super) fn on_probe_ack(&mut self, now: Instant, from: Peer, ack: ProbeAck) {
        let vitals = self.liveness.peers.get(&from.id);
        let answered =
            vitals.and_then(|vitals| vitals.outstanding).filter(|asked| asked.number == ack.number);
        if let Some(asked) = answered {
            self.note_round_trip(from, now - asked.sent);
            self.leases.settle_waking(from.id);
            if ack.lease {
                self.hold_lease(from.id, asked.sent);
            }
            self.settle_probe(from.id);
            if asked.lease && !ack.lease {
                self.look_between(now, from.id, ack.leaf_set.as_deref().unwrap_or_default());
            }
        }
        self.on_asked_standing(now, from, &ack);
        match ack.standing {
            Standing::Ready if self.is_ready() => self.meet(now, from),
            Standing::Ready => {}
            Standing::Starting | Standing::Joining | Standing::Edge => self.on_not_on_ring(now, from.id),
        }
        if let Some(asked) = answered {
            self.on_entering_ack(now, from, &ack, asked.sent);
            // Only now: whoever has just entered a table keeps the round-trip time that was measured on its way in.
            self.forget_stranger(from.id);
        }
        if self.is_ready() && !self.is_edge() {
            self.consider_all(now, ack.leaf_set.unwrap_or_default());
        }
    }

    /// A member of our tables says that it is not on the ring: it restarted, or left.
    fn on_not_on_ring(&mut self, now: Instant, id: NodeId) {
        if self.is_ready() && (self.leaf_set.contains(id) || self.table.get(id).is_some()) {
            self.lose(now, id);
        }
    }

    /// Verdict: this node is gone. Its place is closed, its messages go other ways.
    pub(super) fn lose(&mut self, now: Instant, id: NodeId) {
        let known = self.liveness.peers.remove(&id).map(|vitals| vitals.peer);
        self.leases.settle_waking(id);
        self.deadlines.cancel(Timer::Probe(id));
        self.table.remove(id);
        self.neighbourhood.remove(id);
        if let Some(peer) = known.or_else(|| self.leaf_set.get(id).copied()) {
            self.liveness.bury(peer, now + self.config.bury_for);
        }
        self.drop_when_lease_ends(now, id);
        self.on_lost_while_entering(now, id);
        self.reroute(now, id);
        self.events.push_back(Event::PeerDown(id));
    }

    pub(super) fn on_link_down(&mut self, now: Instant, id: NodeId) {
        self.doubt_hops(id);
        self.on_access_unreachable(now, id);
        let known = self.leaf_set.get(id).or_else(|| self.table.get(id)).copied();
        if let Some(peer) = known {
            self.probe(now, peer, false);
        }
    }

    /// Dialling failed: for a peer that is being probed that is an unanswered probe.
    pub(super) fn on_refused(&mut self, now: Instant, seed: Seed, reason: Refusal) {
        if let Some(id) = seed.id {
            self.on_access_unreachable(now, id);
            if let Some(outstanding) = self.liveness.peers.get(&id).and_then(|vitals| vitals.outstanding) {
                let soonest = (outstanding.sent + REFUSAL_SPACING).max(now);
                self.deadlines.set_earlier(Timer::Probe(id), soonest);
            }
            self.hurry_hops(now, id);
        }
        self.on_seed_refused(now, seed, reason);
    }

    /// Probes whoever was not heard for its period, and forgets whoever is in no table any more.
    pub(super) fn on_sweep(&mut self, now: Instant) {
        let period = self.jittered(self.config.leaf_probe / 4);
        self.deadlines.set(Timer::Sweep, now + period);
        let watched: Vec<(Peer, Instant)> = self.liveness.peers.values().map(|v| (v.peer, v.heard)).collect();
        for (peer, heard) in watched {
            let patience = if self.leaf_set.contains(peer.id) {
                self.config.leaf_probe
            } else if self.table.get(peer.id).is_some() {
                self.config.table_probe
            } else {
                self.forget_stranger(peer.id);
                continue;
            };
            if now - heard >= patience {
                self.probe(now, peer, false);
            }
        }
    }

    /// Forgets the vitals of a node that is in no table and owes no answer.
    fn forget_stranger(&mut self, id: NodeId) {
        let owes = self.liveness.peers.get(&id).is_some_and(|vitals| vitals.outstanding.is_some());
        let entering = matches!(self.phase, Phase::Entering(_) | Phase::Seeking { .. });
        if !owes && !entering && !self.leaf_set.contains(id) && self.table.get(id).is_none() {
            self.liveness.peers.remove(&id);
        }
    }
}

//! Who lives: probes and traffic, suspicion and verdict. A rumour of a death is never believed without a probe
//! (MSPastry §3.1); a broken connection is a hint.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::time::Duration;

use super::invariants::Size;
use super::join::Phase;
use super::{Node, Timer};
use crate::config::Role;
use crate::id::NodeId;
use crate::kbr::{Event, KeyBasedRouting};
use crate::machine::Refusal;
use crate::memory;
use crate::peer::{Peer, Seed};
use crate::sides::Sides;
use crate::time::Instant;
use crate::wire::{Ask, Header, Probe, ProbeAck, Standing};

/// Peers that are watched or asked; beyond it, nobody is probed because others named him. A node of a ring of a million
/// has some 300 in its tables; who names nodes that do not exist fills the rest, until their probes run out.
const MAX_WATCHED: usize = 1024;
/// Most dead nodes that are remembered; beyond it the oldest are forgotten, and may return by rumour.
const MAX_BURIED: usize = 512;
/// Most nodes remembered that have left; beyond it the oldest are forgotten, and a word of theirs that comes that late
/// brings them back until a probe finds them dead.
const MAX_LEFT: usize = 512;
/// How long a node that has left is remembered: no frame of its last breath comes later than that.
const LEFT_FOR: Duration = Duration::from_secs(600);
/// A refused dial counts as an unanswered probe, but no sooner than this after it was sent: three of them make a
/// verdict, and a restarting process deserves a moment.
const REFUSAL_SPACING: Duration = Duration::from_millis(150);
/// Wait for the first answer of a peer that was never measured.
const FIRST_RTO: Duration = Duration::from_secs(1);
/// How many sweeps there are in the shortest period of a probe.
const SWEEPS: u32 = 16;
/// Longest time between two of them, in the mean: a sweep also gives back what bursts have taken.
const LONGEST_SWEEP: Duration = Duration::from_secs(60);

/// What this node knows of its peers' lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Liveness {
    /// By id.
    peers: Vec<Vitals>,
    /// Probes that were not answered yet, by the id of whom they ask.
    asked: Vec<Asked>,
    /// Found dead: (id, incarnation, until when rumours of their life are ignored), oldest first.
    buried: VecDeque<(NodeId, u64, Instant)>,
    /// Lives that have ended by their own word, and until when that is remembered, oldest first: nothing that comes
    /// late brings them back.
    left: VecDeque<(NodeId, u64, Instant)>,
}

/// What this node knows of one peer's life. Its address stands in the tables, or in the probe that asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Vitals {
    id: NodeId,
    incarnation: u64,
    heard: Moment,
    round_trip: Option<RoundTrip>,
    /// This life was heard itself; if not, others named it, and what they say of its incarnation bars nobody.
    spoke: bool,
}

/// What a model checker compares: measurements decide nothing where waits have one length and sweeps are far.
impl Hash for Vitals {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.id, self.incarnation, self.spoke).hash(state);
    }
}

// A node of a ring of 100,000 watches some 100 peers.
const _: () = assert!(size_of::<Vitals>() <= 40, "the memory of large simulated rings is counted on this");

/// A point in time, as exact as silence needs to be measured: in steps of 2^24 ns, some 17 ms, for two years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Moment(u32);

impl Moment {
    fn of(now: Instant) -> Moment {
        Moment(u32::try_from(now.as_nanos() >> 24).unwrap_or(u32::MAX))
    }

    /// Time passed until `now`; up to a step less.
    fn until(self, now: Instant) -> Duration {
        Duration::from_nanos(u64::from(Moment::of(now).0.saturating_sub(self.0)) << 24)
    }
}

/// Smoothed round-trip time and its variation in microseconds (RFC 6298 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct RoundTrip {
    smoothed: NonZeroU32,
    variation: u32,
}

impl RoundTrip {
    /// At least a microsecond, so that nothing is as small as no measurement.
    fn new(smoothed: u32, variation: u32) -> RoundTrip {
        RoundTrip { smoothed: NonZeroU32::new(smoothed).unwrap_or(NonZeroU32::MIN), variation }
    }

    fn smoothed(self) -> Duration {
        Duration::from_micros(u64::from(self.smoothed.get()))
    }

    fn wait(self) -> Duration {
        // RFC 6298 §2 adds at least a clock's granularity: where round trips do not vary at all, every answer would come
        // in the moment in which it is given up, and a lease be asked for again for ever.
        let slack = (4 * u64::from(self.variation)).max(u64::from(self.smoothed.get()) / 8);
        self.smoothed() + Duration::from_micros(slack)
    }
}

/// A probe that was not answered yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    peer: Peer,
    number: u64,
    sent: Instant,
    attempts: u8,
    /// It is asked for its leases.
    lease: bool,
    /// Those that were asked for when the question was sent.
    sides: Sides,
    /// It was asked for its leaf set, too.
    leaf_set: bool,
    /// The peer said something else since.
    spoke: bool,
}

impl Liveness {
    fn find(&self, id: NodeId) -> Result<usize, usize> {
        self.peers.binary_search_by_key(&id, |vitals| vitals.id)
    }

    fn vitals(&self, id: NodeId) -> Option<&Vitals> {
        self.find(id).ok().map(|at| &self.peers[at])
    }

    fn vitals_mut(&mut self, id: NodeId) -> Option<&mut Vitals> {
        self.find(id).ok().map(|at| &mut self.peers[at])
    }

    fn forget(&mut self, id: NodeId) {
        if let Ok(at) = self.find(id) {
            self.peers.remove(at);
        }
    }

    /// The unanswered probe to this peer.
    fn asked(&self, id: NodeId) -> Option<&Asked> {
        let at = self.asked.binary_search_by_key(&id, |asked| asked.peer.id).ok()?;
        self.asked.get(at)
    }

    fn asked_mut(&mut self, id: NodeId) -> Option<&mut Asked> {
        let at = self.asked.binary_search_by_key(&id, |asked| asked.peer.id).ok()?;
        self.asked.get_mut(at)
    }

    fn take_asked(&mut self, id: NodeId) -> Option<Asked> {
        let at = self.asked.binary_search_by_key(&id, |asked| asked.peer.id).ok()?;
        Some(self.asked.remove(at))
    }

    fn ask(&mut self, asked: Asked) {
        match self.asked.binary_search_by_key(&asked.peer.id, |asked| asked.peer.id) {
            Ok(at) => self.asked[at] = asked,
            Err(at) => self.asked.insert(at, asked),
        }
    }

    /// Smoothed round-trip time, if it was ever measured.
    pub(super) fn rtt(&self, id: NodeId) -> Option<Duration> {
        Some(self.vitals(id)?.round_trip?.smoothed())
    }

    /// Whether a probe or a hop to this peer went unanswered, and nothing was heard since.
    pub(super) fn is_suspect(&self, id: NodeId) -> bool {
        self.asked(id).is_some_and(|asked| asked.attempts > 1 && !asked.spoke)
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
        self.left.iter().any(|&(id, incarnation, _)| id == peer.id && incarnation >= peer.incarnation)
    }

    /// The node has said that it leaves.
    pub(super) fn note_left(&mut self, now: Instant, peer: Peer) {
        self.left.retain(|&(left, ..)| left != peer.id);
        if self.left.len() == MAX_LEFT {
            self.left.pop_front();
        }
        self.left.push_back((peer.id, peer.incarnation, now + LEFT_FOR));
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

    /// A known life spoke.
    fn note_word(&mut self, now: Instant, peer: Peer) {
        let vitals = self.watch(now, peer);
        vitals.incarnation = peer.incarnation;
        vitals.spoke = true;
        vitals.heard = Moment::of(now);
        if let Some(asked) = self.asked_mut(peer.id) {
            asked.peer = peer;
            asked.spoke = true;
        }
    }

    /// Begins to watch a peer that was heard just now.
    pub(super) fn begin(&mut self, now: Instant, peer: Peer) {
        self.watch(now, peer).spoke = true;
    }

    /// Takes a round-trip sample.
    fn measure(&mut self, id: NodeId, sample: Duration) -> Option<Duration> {
        let vitals = self.vitals_mut(id)?;
        let sample = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX / 8).min(u32::MAX / 8);
        let trip = match vitals.round_trip {
            None => RoundTrip::new(sample, sample / 2),
            Some(RoundTrip { smoothed, variation }) => {
                let smoothed = smoothed.get();
                let variation = (3 * variation.min(u32::MAX / 8) + smoothed.abs_diff(sample)) / 4;
                RoundTrip::new((7 * smoothed.min(u32::MAX / 8) + sample) / 8, variation)
            }
        };
        vitals.round_trip = Some(trip);
        Some(trip.smoothed())
    }

    fn watch(&mut self, now: Instant, peer: Peer) -> &mut Vitals {
        let at = self.find(peer.id).unwrap_or_else(|at| {
            if self.peers.len() == self.peers.capacity() {
                self.peers.reserve_exact(1 + self.peers.len() / 8);
            }
            let Peer { id, incarnation, .. } = peer;
            let heard = Moment::of(now);
            self.peers.insert(at, Vitals { id, incarnation, heard, round_trip: None, spoke: false });
            at
        });
        &mut self.peers[at]
    }

    fn bury(&mut self, id: NodeId, incarnation: u64, until: Instant) {
        self.buried.retain(|&(buried, _, _)| buried != id);
        if self.buried.len() == MAX_BURIED {
            self.buried.pop_front();
        }
        self.buried.push_back((id, incarnation, until));
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

    /// Forgets the dead and the gone whose time is over, and gives back what a burst has taken.
    fn tidy(&mut self, now: Instant) {
        self.buried.retain(|&(.., until)| until > now);
        self.left.retain(|&(.., until)| until > now);
        self.buried.shrink_to_fit();
        self.left.shrink_to_fit();
        self.asked.shrink_to_fit();
        self.peers.shrink_to(self.peers.len() + self.peers.len() / 8);
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::list(&self.peers)
            + memory::list(&self.asked)
            + memory::queue(&self.buried)
            + memory::queue(&self.left)
    }
}

impl Node {
    /// A frame of `from` arrived: it lives. The words of an older incarnation are void: then, an error with the newer
    /// one, if it is known where that lives.
    pub(super) fn hear(&mut self, now: Instant, from: Peer) -> Result<(), Option<Peer>> {
        if let Some(newer) = self.newer_life(from) {
            return Err(newer);
        }
        let known = self.liveness.vitals(from.id).map(|vitals| vitals.incarnation);
        if let Some(known) = known.or_else(|| self.member(from.id).map(|peer| peer.incarnation)) {
            if from.incarnation > known {
                // Whatever was known of the older one is void, except a lease that it holds.
                self.lose(now, from.id);
                self.liveness.begin(now, from);
                return Ok(());
            }
            self.liveness.note_word(now, from);
        }
        if !self.liveness.buried.is_empty() {
            self.liveness.exhume(from);
        }
        if self.leaf_set.get(from.id).is_some_and(|member| member.incarnation == from.incarnation) {
            self.leases.pardon(from.id);
        }
        Ok(())
    }

    /// The node of this id in the tables that are kept alive.
    pub(super) fn member(&self, id: NodeId) -> Option<Peer> {
        self.leaf_set.get(id).or_else(|| self.table.get(id)).copied()
    }

    /// Smoothed round-trip time, if it was ever measured.
    pub(super) fn rtt(&self, id: NodeId) -> Option<Duration> {
        self.liveness.rtt(id).or_else(|| self.table.rtt(id))
    }

    /// How long to wait for an answer: smoothed round-trip time + 4 × variation. Of those that are not watched only the
    /// former is kept; the first guess at the latter is half of it (RFC 6298 §2.2).
    pub(super) fn rto(&self, id: NodeId) -> Duration {
        let watched = self.liveness.vitals(id).and_then(|vitals| vitals.round_trip).map(RoundTrip::wait);
        let wait = watched.or_else(|| self.table.rtt(id).map(|rtt| rtt * 3)).unwrap_or(FIRST_RTO);
        wait.clamp(self.config.rto_min, self.config.rto_max)
    }

    /// How long to wait for the acknowledgement of a hop: less than for that of a probe, since another way costs little and
    /// decides nothing (MSPastry §3.2).
    pub(super) fn hop_rto(&self, id: NodeId) -> Duration {
        let watched = self.liveness.vitals(id).and_then(|vitals| vitals.round_trip).map(RoundTrip::wait);
        let wait = watched.or_else(|| self.table.rtt(id).map(|rtt| rtt * 2)).unwrap_or(FIRST_RTO);
        wait.clamp(self.config.hop_rto_min, self.config.rto_max)
    }

    /// A later life of this peer that was heard itself: in the tables, watched, about to join here, or hanging here as an
    /// edge.
    fn newer_life(&self, peer: Peer) -> Option<Option<Peer>> {
        let watched = self.liveness.vitals(peer.id).filter(|vitals| vitals.spoke).map(|v| v.incarnation);
        let others = self.slots.joiner(peer.id).into_iter().chain(self.edges.peer(peer.id));
        let others = others.chain(self.member(peer.id));
        let newest = watched.into_iter().chain(others.clone().map(|life| life.incarnation)).max()?;
        (newest > peer.incarnation).then(|| {
            let asked = self.liveness.asked(peer.id).map(|asked| asked.peer);
            others.chain(asked).find(|life| life.incarnation == newest)
        })
    }

    /// Sends a probe, unless one is under way: then its retransmissions do. `lease`: asks for a lease as well.
    pub(super) fn probe(&mut self, now: Instant, peer: Peer, lease: bool) {
        match self.liveness.asked_mut(peer.id) {
            Some(asked) => asked.lease |= lease,
            None => self.send_probe(now, peer, 1, lease, false),
        }
    }

    /// The first word to a neighbour from a node that has just taken its place asks for a lease, and for the leaf set: on
    /// the neighbour's other side another one may have entered at the same time, of whom nobody could tell before.
    pub(super) fn introduce(&mut self, now: Instant, neighbour: Peer) {
        match self.liveness.asked_mut(neighbour.id) {
            Some(asked) => (asked.lease, asked.leaf_set) = (true, true),
            None => self.send_probe(now, neighbour, 1, true, true),
        }
    }

    fn send_probe(&mut self, now: Instant, peer: Peer, attempts: u8, lease: bool, leaf_set: bool) {
        let standing = self.standing();
        let leaf_set = leaf_set || matches!(self.phase, Phase::Entering(_));
        let lease = lease && standing == Standing::Ready;
        let (number, sides) = self.expect_answer(now, peer, attempts, lease);
        if let Some(asked) = self.liveness.asked_mut(peer.id) {
            asked.leaf_set = leaf_set;
        }
        let probe = Probe { number, standing, lease: sides, leaf_set };
        self.transmit_probe(now, peer, probe, attempts);
    }

    /// Notes a question that is being sent to this peer; returns its number, and the leases to be asked for. An answer
    /// bears the same number.
    fn expect_answer(&mut self, now: Instant, peer: Peer, attempts: u8, lease: bool) -> (u64, Sides) {
        let number = self.number();
        let sides = if lease { self.stands_at(peer.id) } else { Sides::None };
        self.liveness.watch(now, peer);
        self.liveness.ask(Asked {
            peer,
            number,
            sent: now,
            attempts,
            lease,
            sides,
            leaf_set: false,
            spoke: false,
        });
        let rto = self.rto(peer.id);
        // A neighbour's lease may end meanwhile: it is asked without patience, but more often.
        let doubled = if lease { 0 } else { (attempts - 1).min(4) };
        let wait = rto.saturating_mul(1 << doubled).min(self.config.rto_max);
        self.deadlines.set(Timer::Probe(peer.id), now + wait);
        (number, sides)
    }

    /// A neighbour that asks for a lease is asked for one in the answer, if this node's is not fresh: one exchange
    /// serves both.
    fn ask_in_return(&mut self, now: Instant, from: Peer) -> Option<Ask> {
        let is_due = self.is_ready() && !self.is_lease_fresh(now, from.id);
        (is_due && self.liveness.asked(from.id).is_none()).then(|| {
            let (number, lease) = self.expect_answer(now, from, 1, true);
            Ask { number, lease }
        })
    }

    /// Probes these peers as if nobody had asked them yet: what they were asked before a sleep counts for nothing, and
    /// neither does an answer to it.
    pub(super) fn ask_anew(&mut self, now: Instant, peers: Vec<Peer>) {
        for asked in std::mem::take(&mut self.liveness.asked) {
            self.deadlines.cancel(Timer::Probe(asked.peer.id));
        }
        self.detours.forget_asked();
        let neighbours = self.neighbours();
        for peer in peers {
            self.probe(now, peer, neighbours.contains(&peer));
        }
    }

    pub(super) fn on_probe_timeout(&mut self, now: Instant, id: NodeId) {
        let Some(&Asked { peer, attempts, lease, leaf_set, spoke, .. }) = self.liveness.asked(id) else {
            return;
        };
        let limit = if lease { self.config.lease_attempts } else { self.config.probe_attempts };
        if spoke {
            // It lives, only the answer was lost. A lease must be granted in words, though.
            self.forgive(id);
            if leaf_set {
                self.introduce(now, peer);
            } else if lease || self.leases.is_waking(id) {
                self.probe(now, peer, lease);
            }
        } else if attempts < limit {
            self.send_probe(now, peer, attempts + 1, lease, leaf_set);
            self.look_beyond(now, id);
        } else {
            tracing::debug!(node = %self.me.id, peer = %id, "found dead: {attempts} probes unanswered");
            self.lose(now, id);
        }
    }

    /// A suspect may not be the only one: if all between it and this node are suspect too, so that nobody else watches
    /// over whoever comes next on its side, that one is probed without waiting for the verdicts.
    fn look_beyond(&mut self, now: Instant, id: NodeId) {
        let calm = |peer: &&Peer| !self.liveness.is_suspect(peer.id);
        let is_next = |side: &mut dyn Iterator<Item = &Peer>| {
            let mut met = false;
            side.inspect(|peer| met |= peer.id == id).find(calm).copied().filter(|_| met)
        };
        let (left, right) = (is_next(&mut self.leaf_set.lefts()), is_next(&mut self.leaf_set.rights()));
        for next in left.into_iter().chain(right) {
            self.probe(now, next, false);
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
        self.liveness.take_asked(id);
        self.deadlines.cancel(Timer::Probe(id));
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

    pub(super) fn on_probe_ack(&mut self, now: Instant, from: Peer, ack: ProbeAck) {
        let answered = self.liveness.asked(from.id).filter(|asked| asked.number == ack.number);
        let answered = answered.map(|asked| (asked.sent, asked.sides));
        let answered = answered.or_else(|| self.asked_indirectly(now, from.id, ack.number));
        self.note_way(now, from.id, ack.number, answered.is_some());
        if let Some((sent, sides)) = answered {
            self.note_round_trip(from, now - sent);
            self.leases.settle_waking(from.id);
            let granted = ack.lease.and(sides);
            if !granted.is_none() {
                self.hold_lease(now, from.id, granted, sent);
            }
            self.settle_probe(from.id);
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

    /// Verdict: this node is gone. Its place is closed, its messages go other ways.
    pub(super) fn lose(&mut self, now: Instant, id: NodeId) {
        let known = self.liveness.vitals(id).map(|vitals| vitals.incarnation);
        let member = self.member(id).map(|peer| peer.incarnation);
        if member.is_some() {
            self.tuning.note_death(now);
        }
        let known = known.or(member);
        self.liveness.forget(id);
        self.leases.settle_waking(id);
        self.settle_probe(id);
        self.table.remove(id);
        self.neighbourhood.remove(id);
        self.detours.forget(id);
        self.members.remove(id);
        if let Some(incarnation) = known {
            self.liveness.bury(id, incarnation, now + self.config.bury_for);
        }
        self.drop_when_lease_ends(now, id);
        self.on_lost_while_entering(now, id);
        self.reroute(now, id);
        self.events.push_back(Event::PeerDown(id));
    }

    pub(super) fn on_link_down(&mut self, now: Instant, id: NodeId) {
        self.doubt_hops(id);
        self.on_access_unreachable(now, id);
        if let Some(peer) = self.member(id) {
            self.probe(now, peer, false);
        }
    }

    /// Dialling failed: for a peer that is being probed that is an unanswered probe.
    pub(super) fn on_refused(&mut self, now: Instant, seed: Seed, reason: Refusal) {
        if let Some(id) = seed.id {
            self.on_access_unreachable(now, id);
            if let Some(asked) = self.liveness.asked(id) {
                let soonest = (asked.sent + REFUSAL_SPACING).max(now);
                self.deadlines.set_earlier(Timer::Probe(id), soonest);
            }
            self.hurry_hops(now, id);
        }
        self.on_seed_refused(now, seed, reason);
    }

    /// Sets the time for the next look at who was not heard.
    pub(super) fn plan_sweep(&mut self, now: Instant) {
        let sweep = self.config.leaf_probe.min(self.table_probe(now)) / SWEEPS;
        let period = self.jittered(sweep.min(LONGEST_SWEEP));
        self.deadlines.set(Timer::Sweep, now + period);
    }

    /// Probes whoever was not heard for its period: the leaf set, and of each slot of the routing table the node in use,
    /// the nearest. The others wait for their turn. (Ring neighbours watch each other by their leases, and tell the rest
    /// of a death: MSPastry §4.1.) Of all others nothing is kept but what the tables have.
    pub(super) fn on_sweep(&mut self, now: Instant) {
        self.plan_sweep(now);
        let table_probe = self.table_probe(now);
        let in_use = (0..self.table.rows()).flat_map(|row| self.table.row(row));
        let watched = self.leaf_set.iter().map(|peer| (*peer, self.config.leaf_probe));
        let mut watched: Vec<(Peer, Duration)> =
            watched.chain(in_use.map(|peer| (*peer, table_probe))).collect();
        watched.sort_by_key(|(peer, _)| peer.id);
        for &(peer, patience) in &watched {
            let vitals = self.liveness.vitals(peer.id);
            if vitals.is_none_or(|vitals| vitals.heard.until(now) >= patience) {
                self.probe(now, peer, false);
            }
        }
        let Liveness { peers, asked, .. } = &mut self.liveness;
        peers.retain(|vitals| {
            watched.binary_search_by_key(&vitals.id, |(peer, _)| peer.id).is_ok()
                || asked.binary_search_by_key(&vitals.id, |asked| asked.peer.id).is_ok()
        });
        self.liveness.tidy(now);
        self.give_back();
    }

    /// Forgets the vitals of a node that is in no table and owes no answer.
    fn forget_stranger(&mut self, id: NodeId) {
        let entering = matches!(self.phase, Phase::Entering(_) | Phase::Seeking { .. });
        if !entering && self.member(id).is_none() && self.liveness.asked(id).is_none() {
            self.liveness.forget(id);
        }
    }
}

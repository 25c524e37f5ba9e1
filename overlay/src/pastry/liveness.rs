//! Who lives: probes and traffic, suspicion and verdict. A rumour of a death is never believed without a probe
//! (MSPastry §3.1); a broken connection is a hint.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::time::Duration;

use super::Node;
use super::invariants::Size;
use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::sides::Sides;
use crate::time::Instant;

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
/// Longest wait for the acknowledgement of a hop, in round-trip times (guess: it costs one frame where it was too short).
const HOP_PATIENCE: f64 = 1.5;
/// Wait for the first answer of a peer that was never measured.
const FIRST_RTO: Duration = Duration::from_secs(1);

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
pub(super) struct Vitals {
    id: NodeId,
    pub(super) incarnation: u64,
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
pub(super) struct Asked {
    pub(super) peer: Peer,
    pub(super) number: u64,
    pub(super) sent: Instant,
    /// How often it was asked by now.
    pub(super) attempts: u8,
    pub(super) question: Question,
    /// The leases that were asked for when the question was sent.
    pub(super) sides: Sides,
    /// The peer said something else since.
    pub(super) spoke: bool,
}

/// What a peer is asked, besides whether it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// For its leases.
    pub(super) lease: bool,
    /// For its leaf set.
    pub(super) leaf_set: bool,
    /// Somebody else has found it dead: fewer silences make a verdict.
    pub(super) rumour: bool,
}

impl Liveness {
    fn find(&self, id: NodeId) -> Result<usize, usize> {
        self.peers.binary_search_by_key(&id, |vitals| vitals.id)
    }

    pub(super) fn vitals(&self, id: NodeId) -> Option<&Vitals> {
        self.find(id).ok().map(|at| &self.peers[at])
    }

    fn vitals_mut(&mut self, id: NodeId) -> Option<&mut Vitals> {
        self.find(id).ok().map(|at| &mut self.peers[at])
    }

    pub(super) fn forget(&mut self, id: NodeId) {
        if let Ok(at) = self.find(id) {
            self.peers.remove(at);
        }
    }

    /// The unanswered probe to this peer.
    pub(super) fn asked(&self, id: NodeId) -> Option<&Asked> {
        let at = self.asked.binary_search_by_key(&id, |asked| asked.peer.id).ok()?;
        self.asked.get(at)
    }

    pub(super) fn asked_mut(&mut self, id: NodeId) -> Option<&mut Asked> {
        let at = self.asked.binary_search_by_key(&id, |asked| asked.peer.id).ok()?;
        self.asked.get_mut(at)
    }

    pub(super) fn take_asked(&mut self, id: NodeId) -> Option<Asked> {
        let at = self.asked.binary_search_by_key(&id, |asked| asked.peer.id).ok()?;
        Some(self.asked.remove(at))
    }

    pub(super) fn ask(&mut self, asked: Asked) {
        match self.asked.binary_search_by_key(&asked.peer.id, |asked| asked.peer.id) {
            Ok(at) => self.asked[at] = asked,
            Err(at) => self.asked.insert(at, asked),
        }
    }

    /// Takes all questions back.
    pub(super) fn take_all_asked(&mut self) -> Vec<Asked> {
        std::mem::take(&mut self.asked)
    }

    pub(super) fn is_watched(&self, id: NodeId) -> bool {
        self.vitals(id).is_some()
    }

    /// How long ago this peer was heard.
    pub(super) fn silence(&self, now: Instant, id: NodeId) -> Duration {
        self.vitals(id).map_or(Duration::MAX, |vitals| vitals.heard.until(now))
    }

    /// Keeps those only who are watched, or owe an answer.
    pub(super) fn keep(&mut self, is_watched: impl Fn(NodeId) -> bool) {
        let Liveness { peers, asked, .. } = self;
        let owes = |id: NodeId| asked.binary_search_by_key(&id, |asked| asked.peer.id).is_ok();
        peers.retain(|vitals| is_watched(vitals.id) || owes(vitals.id));
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
    pub(super) fn measure(&mut self, id: NodeId, sample: Duration) -> Option<Duration> {
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

    pub(super) fn watch(&mut self, now: Instant, peer: Peer) -> &mut Vitals {
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

    pub(super) fn bury(&mut self, id: NodeId, incarnation: u64, until: Instant) {
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
    pub(super) fn tidy(&mut self, now: Instant) {
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
        let watched = self.liveness.vitals(id).and_then(|vitals| vitals.round_trip);
        let watched = watched.map(|trip| trip.wait().min(trip.smoothed().mul_f64(HOP_PATIENCE)));
        let in_table = || self.table.rtt(id).map(|rtt| rtt.mul_f64(HOP_PATIENCE));
        let wait = watched.or_else(in_table).unwrap_or(FIRST_RTO);
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
}

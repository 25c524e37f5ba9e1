//! The states of a node's peers: when each was heard, how far it is, and what it was asked.

use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::time::Duration;

use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::sides::Sides;
use crate::time::Instant;

/// Peers that are watched or asked; beyond it, no node is probed because others named it. A node of a ring of a million
/// has some 300 in its tables; a peer that names nodes that do not exist fills the rest, until their probes run out.
const MAX_WATCHED: usize = 1024;

/// The states of the watched peers, and the questions that wait for an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PeerStates {
    /// By id.
    peers: Vec<PeerState>,
    /// Probes that were not answered yet, by the id of the peer that they ask.
    asked: Vec<Asked>,
}

/// The state of one peer, as this node knows it. Its address stands in the tables, or in the probe that asks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerState {
    id: NodeId,
    pub(super) incarnation: u64,
    heard: CoarseInstant,
    pub(super) round_trip: Option<RoundTrip>,
    /// This life was heard itself; if not, others named it, and what they say of its incarnation bars no node.
    pub(super) heard_itself: bool,
}

/// A model checker compares this: measurements decide nothing where waits have one length and sweeps are far.
impl Hash for PeerState {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.id, self.incarnation, self.heard_itself).hash(state);
    }
}

// A node of a ring of 100,000 watches some 100 peers.
const _: () = assert!(size_of::<PeerState>() <= 40, "the memory of large simulated rings is counted on this");

/// A point in time, as exact as silence needs to be measured: in steps of 2^24 ns, some 17 ms, for two years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct CoarseInstant(u32);

impl CoarseInstant {
    fn of(now: Instant) -> CoarseInstant {
        CoarseInstant(u32::try_from(now.as_nanos() >> 24).unwrap_or(u32::MAX))
    }

    /// Time passed until `now`; up to a step less.
    fn until(self, now: Instant) -> Duration {
        Duration::from_nanos(u64::from(CoarseInstant::of(now).0.saturating_sub(self.0)) << 24)
    }
}

/// Smoothed round-trip time and its variation in microseconds (RFC 6298 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RoundTrip {
    smoothed: NonZeroU32,
    variation: u32,
}

impl RoundTrip {
    /// At least a microsecond, so that nothing is as small as no measurement.
    fn new(smoothed: u32, variation: u32) -> RoundTrip {
        RoundTrip { smoothed: NonZeroU32::new(smoothed).unwrap_or(NonZeroU32::MIN), variation }
    }

    pub(super) fn smoothed(self) -> Duration {
        Duration::from_micros(u64::from(self.smoothed.get()))
    }

    pub(super) fn wait(self) -> Duration {
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
    /// The peer has sent another frame since.
    pub(super) heard_since: bool,
    /// The same question before it was asked again. An answer to it is one, too: a peer that is slower than the wait would
    /// else answer a question too old each time, for ever. Fewer than the attempts.
    pub(super) earlier: Vec<(u64, Instant, Sides)>,
}

impl Asked {
    /// When the question of this number was sent, and which leases it asked for.
    pub(super) fn question_of(&self, number: u64) -> Option<(Instant, Sides)> {
        if number == self.number {
            return Some((self.sent, self.sides));
        }
        self.earlier.iter().find(|(earlier, ..)| *earlier == number).map(|&(_, sent, sides)| (sent, sides))
    }
}

/// The parts of a probe, besides the question whether the peer lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Question {
    /// For its leases.
    pub(crate) lease: bool,
    /// For its leaf set.
    pub(crate) leaf_set: bool,
    /// Another node has found it dead: fewer silences are enough.
    pub(crate) suspected: bool,
}

impl PeerStates {
    fn find(&self, id: NodeId) -> Result<usize, usize> {
        self.peers.binary_search_by_key(&id, |state| state.id)
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&PeerState> {
        self.find(id).ok().map(|at| &self.peers[at])
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

    /// How long ago this peer was heard.
    pub(super) fn silence(&self, now: Instant, id: NodeId) -> Duration {
        self.get(id).map_or(Duration::MAX, |state| state.heard.until(now))
    }

    /// Whether a watched peer was heard after this point in time: surely, and not just in the same step.
    pub(super) fn was_heard_since(&self, now: Instant, id: NodeId, then: Instant) -> bool {
        self.get(id).is_some_and(|state| state.heard > CoarseInstant::of(then.min(now)))
    }

    /// Takes the time of an answer that came too late: from now on the peer is waited for that long (RFC 4015 §3.2). Waits that
    /// were too short give no other samples, so that they would stay too short.
    pub(super) fn note_slow(&mut self, id: NodeId, took: Duration) {
        let Ok(at) = self.find(id) else { return };
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX / 8).min(u32::MAX / 8);
        let slow = RoundTrip::new(took, took / 2);
        let known = self.peers[at].round_trip;
        if known.is_none_or(|known| known.smoothed < slow.smoothed) {
            self.peers[at].round_trip = Some(slow);
        }
    }

    /// Keeps only peers that are watched, or owe an answer.
    pub(super) fn keep(&mut self, is_watched: impl Fn(NodeId) -> bool) {
        let PeerStates { peers, asked } = self;
        let owes = |id: NodeId| asked.binary_search_by_key(&id, |asked| asked.peer.id).is_ok();
        peers.retain(|state| is_watched(state.id) || owes(state.id));
    }

    /// Whether so many peers are watched, or owe an answer, that none is probed because others named it.
    pub(super) fn is_full(&self) -> bool {
        self.peers.len() >= MAX_WATCHED
    }

    /// A frame of a known life arrived.
    pub(super) fn note_heard(&mut self, now: Instant, peer: Peer) {
        let state = self.watch(now, peer);
        state.incarnation = peer.incarnation;
        state.heard_itself = true;
        state.heard = CoarseInstant::of(now);
        if let Some(asked) = self.asked_mut(peer.id) {
            asked.peer = peer;
            asked.heard_since = true;
        }
    }

    /// Takes a round-trip sample; returns the smoothed time of a watched peer.
    pub(super) fn measure(&mut self, id: NodeId, sample: Duration) -> Option<Duration> {
        let at = self.find(id).ok()?;
        let state = &mut self.peers[at];
        let sample = u32::try_from(sample.as_micros()).unwrap_or(u32::MAX / 8).min(u32::MAX / 8);
        let trip = match state.round_trip {
            None => RoundTrip::new(sample, sample / 2),
            Some(RoundTrip { smoothed, variation }) => {
                let smoothed = smoothed.get();
                let variation = (3 * variation.min(u32::MAX / 8) + smoothed.abs_diff(sample)) / 4;
                RoundTrip::new((7 * smoothed.min(u32::MAX / 8) + sample) / 8, variation)
            }
        };
        state.round_trip = Some(trip);
        Some(trip.smoothed())
    }

    pub(super) fn watch(&mut self, now: Instant, peer: Peer) -> &mut PeerState {
        let at = self.find(peer.id).unwrap_or_else(|at| {
            if self.peers.len() == self.peers.capacity() {
                self.peers.reserve_exact(1 + self.peers.len() / 8);
            }
            let Peer { id, incarnation, .. } = peer;
            let heard = CoarseInstant::of(now);
            self.peers
                .insert(at, PeerState { id, incarnation, heard, round_trip: None, heard_itself: false });
            at
        });
        &mut self.peers[at]
    }

    /// Gives back what a burst has taken.
    pub(super) fn tidy(&mut self) {
        self.asked.shrink_to_fit();
        self.peers.shrink_to(self.peers.len() + self.peers.len() / 8);
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::list(&self.peers) + memory::list(&self.asked)
    }
}

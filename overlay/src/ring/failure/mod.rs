//! Failure detection: probes and traffic, suspicion and death. A hint that a node is dead is never believed without a probe
//! (MSPastry §3.1); a broken connection is a hint. Traffic suppresses probes.
//!
//! Only ring neighbours watch each other (MSPastry §4.1). A neighbour that is found dead is announced to the leaf set, by
//! each of its two neighbours to the members on its own side, which look for themselves; of the geometry's tables only the
//! nodes in use are probed, and rarely. So links to the other members of the leaf set are closed when they are idle: 30
//! open connections a node would cost more than to dial one of them when it is needed.
//!
//! Deaths in the geometry's tables are told on as hints. Nodes near each other have the same near nodes in their tables, so a
//! node that finds an entry dead tells the nearest other one, which probes for itself. Fewer silences make a death where
//! another node has found it already, or where a wrong one costs no more than a place in a table.

mod death_rate;
mod detours;
mod ended;
mod findings;
mod partners;
mod peer_state;

use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;
use rand::seq::SliceRandom;

use self::death_rate::DeathRate;
use self::detours::Detours;
use self::ended::EndedLives;
pub(crate) use self::findings::{Answered, Detected, Ground, Sweep};
use self::partners::Partners;
pub(crate) use self::peer_state::Question;
use self::peer_state::{Asked, PeerStates, RoundTrip};
use super::core::{Core, Timer};
use super::invariants::Size;
use super::tables::Tables;
use crate::config::Config;
use crate::geometry::TableUse;
use crate::id::NodeId;
use crate::kbr::Event;
use crate::memory::Memory;
use crate::peer::Peer;
use crate::sides::{Side, Sides};
use crate::time::Instant;
use crate::wire::{Ask, Header, NodeState, Probe};

/// Longest wait for the acknowledgement of a hop, in round-trip times (guess: it costs one frame where it was too short).
const HOP_PATIENCE: f64 = 1.5;
/// Wait for the first answer of a peer that was never measured.
const FIRST_RTO: Duration = Duration::from_secs(1);
/// How soon a neighbour that has not answered in its time is asked again for a lease.
const LEASE_SPACING: Duration = Duration::from_millis(150);
/// The unanswered probe from which on others are asked to pass it on: one or two are lost easily.
const INDIRECT_FROM: u8 = 3;
/// How many others pass on one probe.
const RELAYS: usize = 2;
/// A refused dial counts as an unanswered probe, but no sooner than this after it was sent: three of them make a
/// death, and a restarting process deserves a moment.
const REFUSAL_SPACING: Duration = Duration::from_millis(150);
/// How many sweeps there are in the shortest period of a probe.
const SWEEPS: u32 = 16;
/// Longest time between two of them, in the mean: a sweep also gives back what bursts have taken.
const LONGEST_SWEEP: Duration = Duration::from_secs(60);
/// A node that was heard so short a while ago is not asked because of a hint.
const JUST_HEARD: Duration = Duration::from_secs(5);

/// Finds out which peers live.
#[derive(Clone, Debug, Default)]
pub struct FailureDetector {
    states: PeerStates,
    ended: EndedLives,
    partners: Partners,
    detours: Detours,
    deaths: DeathRate,
    /// When timers were last looked after: a long gap was a sleep.
    last_run: Instant,
}

/// A model checker compares this: rates and measured times decide nothing there.
impl Hash for FailureDetector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.states, &self.ended, &self.partners, &self.detours).hash(state);
    }
}

// Questions.
impl FailureDetector {
    /// Probes a peer, unless a probe is under way: then its retransmissions do. `lease`: asks for a lease as well.
    pub(crate) fn probe(
        &mut self,
        now: Instant,
        core: &mut Core,
        ground: &Ground<'_>,
        peer: Peer,
        lease: bool,
    ) {
        match self.states.asked_mut(peer.id) {
            Some(asked) => asked.question.lease |= lease,
            None => {
                let question = Question { lease, ..Question::default() };
                self.send_probe(now, core, ground, peer, 1, question);
            }
        }
    }

    /// Asks a neighbour for a lease and for its leaf set, as the first frame of a node that has just taken its place: on the
    /// neighbour's other side another one may have entered at the same time, of which no node could tell before.
    pub(crate) fn introduce(&mut self, now: Instant, core: &mut Core, ground: &Ground<'_>, neighbour: Peer) {
        match self.states.asked_mut(neighbour.id) {
            Some(asked) => (asked.question.lease, asked.question.leaf_set) = (true, true),
            None => {
                let question = Question { lease: true, leaf_set: true, suspected: false };
                self.send_probe(now, core, ground, neighbour, 1, question);
            }
        }
    }

    /// Probes a peer that others have found dead: it is asked less often than usual, and then believed to be.
    pub(crate) fn confirm(&mut self, now: Instant, core: &mut Core, ground: &Ground<'_>, peer: Peer) {
        if self.states.asked(peer.id).is_none() {
            let question = Question { suspected: true, ..Question::default() };
            self.send_probe(now, core, ground, peer, 1, question);
        }
    }

    /// Asks a neighbour that asks for a lease for one in the answer: one exchange serves both.
    pub(crate) fn ask_in_return(
        &mut self,
        now: Instant,
        core: &mut Core,
        ground: &Ground<'_>,
        from: Peer,
    ) -> Option<Ask> {
        if self.states.asked(from.id).is_some() {
            return None;
        }
        let question = Question { lease: true, ..Question::default() };
        let (number, lease) = self.expect_answer(now, core, ground, from, 1, question);
        Some(Ask { number, lease })
    }

    fn send_probe(
        &mut self,
        now: Instant,
        core: &mut Core,
        ground: &Ground<'_>,
        peer: Peer,
        attempts: u8,
        question: Question,
    ) {
        let node_state = core.node_state();
        let question = Question {
            lease: question.lease && node_state == NodeState::Ready,
            leaf_set: question.leaf_set || ground.view.is_some(),
            ..question
        };
        let (number, sides) = self.expect_answer(now, core, ground, peer, attempts, question);
        let probe = Probe { number, node_state, lease: sides, leaf_set: question.leaf_set };
        self.send_both_ways(now, core, ground, peer, probe, attempts);
    }

    /// Notes a question that is being sent to this peer; returns its number, and the leases to be asked for. An answer
    /// bears the same number.
    fn expect_answer(
        &mut self,
        now: Instant,
        core: &mut Core,
        ground: &Ground<'_>,
        peer: Peer,
        attempts: u8,
        question: Question,
    ) -> (u64, Sides) {
        let number = core.number();
        let sides = if question.lease { ground.tables.leaf_set.my_sides_at(peer.id) } else { Sides::None };
        self.states.watch(now, peer);
        let before = self.states.take_asked(peer.id).filter(|asked| attempts > 1 && asked.peer == peer);
        let earlier = before.map_or_else(Vec::new, |before| {
            let mut earlier = before.earlier;
            earlier.push((before.number, before.sent, before.sides));
            earlier
        });
        let asked = Asked { peer, number, sent: now, attempts, question, sides, heard_since: false, earlier };
        self.states.ask(asked);
        let rto = self.rto(&core.config, peer.id, ground.table_rtt);
        let wait = if !question.lease {
            rto.saturating_mul(1 << (attempts - 1).min(4)).min(core.config.failure.rto_max)
        } else if attempts == 1 || attempts == core.config.failure.lease_attempts {
            rto
        } else {
            // A neighbour's lease may end meanwhile: it is asked without patience, and only the last answer waited for.
            LEASE_SPACING
        };
        core.timers.set(Timer::Probe(peer.id), now + wait);
        (number, sides)
    }

    /// Sends a probe: directly, and also by way of others if it is not the first, or if that is the way by now.
    fn send_both_ways(
        &mut self,
        now: Instant,
        core: &mut Core,
        ground: &Ground<'_>,
        to: Peer,
        probe: Probe,
        attempts: u8,
    ) {
        // (A node that stands farther away is lost from a leaf set without harm: its neighbours watch over its range.)
        let is_next = !ground.tables.leaf_set.sides_for(to.id).is_none();
        let is_indirect = attempts >= INDIRECT_FROM && (is_next || !core.is_ready());
        let known = self.relay(now, &core.config, to.id);
        if self.detours.is_to_be_tried(now, to.id) || is_indirect || known.is_none() {
            core.send_straight(to, Header::Probe(probe).into());
        }
        let relays =
            if is_indirect { self.relays_to(core, ground, to.id) } else { known.into_iter().collect() };
        if !relays.is_empty() {
            self.detours.note_indirect(now, to.id, probe);
        }
        for relay in relays {
            core.send_through(relay, to, Header::Probe(probe), Bytes::new());
        }
    }

    /// Some nodes that may reach one that stands near this one on the ring: others of the leaf set.
    fn relays_to(&self, core: &mut Core, ground: &Ground<'_>, to: NodeId) -> Vec<Peer> {
        let around = ground.around();
        if !around.contains(to) && !around.wants(to) {
            return Vec::new();
        }
        let sound = |peer: &&Peer| peer.id != to && !self.is_suspect(peer.id);
        let mut relays: Vec<Peer> = around.iter().filter(sound).copied().collect();
        relays.shuffle(&mut core.rng);
        relays.truncate(RELAYS);
        relays
    }

    /// The node that passes on what goes to this peer, if a probe was answered that way within a lease: ring neighbours ask
    /// each other that often.
    pub(crate) fn relay(&self, now: Instant, config: &Config, to: NodeId) -> Option<Peer> {
        self.detours.relay(to, now - config.leases.duration)
    }

    /// Whether this peer is being asked for its leases.
    pub(crate) fn is_asked_for_lease(&self, id: NodeId) -> bool {
        self.states.asked(id).is_some_and(|asked| asked.question.lease)
    }
}

// Answers, and none.
impl FailureDetector {
    /// A probe was answered, perhaps by way of `relay`. Returns nothing if none of this number waits for its answer; one
    /// that is not the outstanding one had a longer way.
    pub(crate) fn on_probe_ack(
        &mut self,
        now: Instant,
        ground: &Ground<'_>,
        from: NodeId,
        relay: Option<Peer>,
        number: u64,
    ) -> Option<Answered> {
        let asked = self.states.asked(from).and_then(|asked| asked.question_of(number));
        let indirect = || self.detours.indirect(now, from, number).filter(|_| ground.around().contains(from));
        let answered = asked.or_else(indirect);
        if answered.is_some() {
            self.detours.end_indirect(from, number);
        }
        match relay {
            Some(relay) if answered.is_some() => self.detours.note(now, from, relay, number),
            Some(_) => {}
            None => self.detours.note_direct(from, number, answered.is_some()),
        }
        answered.map(|(sent, sides)| Answered { sent, sides })
    }

    /// Whether a lease was wanted when a probe was on its way that did not ask for it.
    pub(crate) fn wants_lease_still(&self, tables: &Tables, from: NodeId, answered: Answered) -> bool {
        answered.sides.is_none()
            && !tables.leaf_set.my_sides_at(from).is_none()
            && self.is_asked_for_lease(from)
    }

    /// A probe was not answered in its time: asks again, or decides.
    pub(crate) fn on_probe_timeout(
        &mut self,
        now: Instant,
        core: &mut Core,
        ground: &Ground<'_>,
        id: NodeId,
    ) -> Option<Detected> {
        let &Asked { peer, attempts, question, heard_since, .. } = self.states.asked(id)?;
        if heard_since {
            // A lease must be granted in an answer, though.
            self.end_probe(core, id);
            self.forget_stranger(core, ground, id);
            return Some(Detected::Alive { peer, question });
        }
        if attempts < patience(core, ground.tables, id, question) {
            self.send_probe(now, core, ground, peer, attempts + 1, question);
            return Some(Detected::Suspect(id));
        }
        tracing::debug!(node = %core.me.id, peer = %id, "found dead: {attempts} probes unanswered");
        Some(Detected::Dead { peer, is_own: attempts > 1 || !question.suspected })
    }

    /// A suspect may not be the only one: if all between it and this node are suspect too, so that no other node watches
    /// over the next one on its side, that one is to be probed without waiting for the deaths.
    pub(crate) fn beyond(&self, tables: &Tables, suspect: NodeId, side: Side) -> Option<Peer> {
        let mut met = false;
        let next = tables
            .leaf_set
            .side(side)
            .inspect(|peer| met |= peer.id == suspect)
            .find(|peer| !self.is_suspect(peer.id))
            .copied();
        next.filter(|_| met)
    }

    /// The outstanding probe needs no answer any more.
    pub(crate) fn end_probe(&mut self, core: &mut Core, id: NodeId) {
        self.states.take_asked(id);
        core.timers.cancel(Timer::Probe(id));
    }

    /// Whatever this peer was asked by now, its answer counts for nothing.
    pub(crate) fn take_questions_back(&mut self, core: &mut Core, id: NodeId) {
        self.end_probe(core, id);
        self.detours.end_indirect(id, u64::MAX);
    }

    /// Questions from before a sleep count for nothing, and neither do the answers.
    pub(crate) fn take_all_questions_back(&mut self, core: &mut Core) {
        for asked in self.states.take_all_asked() {
            core.timers.cancel(Timer::Probe(asked.peer.id));
        }
        self.detours.forget_asked();
    }

    /// Dialling a peer failed: that is an unanswered probe.
    pub(crate) fn on_refused(&mut self, now: Instant, core: &mut Core, id: NodeId) {
        if let Some(asked) = self.states.asked(id) {
            let soonest = (asked.sent + REFUSAL_SPACING).max(now);
            core.timers.set_earlier(Timer::Probe(id), soonest);
        }
    }

    /// A node near this one says that a peer is dead. Returns the peer if that is worth a look.
    pub(crate) fn on_death_hint(&self, now: Instant, ground: &Ground<'_>, dead: Peer) -> Option<Peer> {
        let known = ground.member.filter(|member| member.incarnation <= dead.incarnation);
        known.filter(|_| self.states.silence(now, dead.id) >= JUST_HEARD)
    }
}

/// How many silences are enough. Fewer where nothing depends on it, or where it is not the first death notice.
fn patience(core: &Core, tables: &Tables, id: NodeId, question: Question) -> u8 {
    let leaf_set = &tables.leaf_set;
    let is_neighbour = leaf_set.is_ring_neighbour(id);
    let is_needed = !core.is_ready() || leaf_set.contains(id) || leaf_set.wants(id);
    let config = &core.config;
    if question.lease {
        config.failure.lease_attempts
    } else if question.suspected && !is_needed {
        1
    } else if !is_needed || question.suspected && !is_neighbour {
        config.failure.probe_attempts.min(config.failure.confirmations)
    } else {
        config.failure.probe_attempts
    }
}

// Lives.
impl FailureDetector {
    /// The later life of this peer that was heard itself: in the tables, watched, about to join here, or attached here as an
    /// edge (`known`). `Some(None)`: it is not known where that lives.
    pub(crate) fn newer_life(&self, peer: Peer, known: [Option<Peer>; 3]) -> Option<Option<Peer>> {
        let watched = self.states.get(peer.id).filter(|state| state.heard_itself);
        let known = known.into_iter().flatten();
        let incarnations = watched.map(|state| state.incarnation).into_iter();
        let newest = incarnations.chain(known.clone().map(|life| life.incarnation)).max()?;
        (newest > peer.incarnation).then(|| {
            let asked = self.states.asked(peer.id).map(|asked| asked.peer);
            known.chain(asked).find(|life| life.incarnation == newest)
        })
    }

    /// The incarnation of this peer by what was heard of it.
    pub(crate) fn incarnation(&self, id: NodeId) -> Option<u64> {
        self.states.get(id).map(|state| state.incarnation)
    }

    /// Whether the life of this peer that is watched was heard itself: others may have named it only.
    pub(crate) fn has_heard(&self, id: NodeId) -> bool {
        self.states.get(id).is_some_and(|state| state.heard_itself)
    }

    /// A frame of a known life arrived.
    pub(crate) fn note_heard(&mut self, now: Instant, peer: Peer) {
        self.states.note_heard(now, peer);
    }

    /// Begins to watch a peer that was heard just now.
    pub(crate) fn begin(&mut self, now: Instant, peer: Peer) {
        self.states.watch(now, peer).heard_itself = true;
    }

    /// This life is dead: forgets it, and remembers for a while that it is. `member`: it stood in a table that is kept alive.
    pub(crate) fn on_dead(&mut self, now: Instant, core: &mut Core, id: NodeId, member: Option<Peer>) {
        let known = self.incarnation(id).or(member.map(|peer| peer.incarnation));
        if member.is_some() {
            self.deaths.note_death(now);
        }
        self.states.forget(id);
        self.end_probe(core, id);
        self.detours.forget(id);
        if let Some(incarnation) = known {
            self.ended.mark_dead(id, incarnation, now + core.config.failure.dead_for);
        }
    }

    /// Forgets the state of a node that is in no table and owes no answer.
    pub(crate) fn forget_stranger(&mut self, core: &Core, ground: &Ground<'_>, id: NodeId) {
        let is_joining = core.phase == super::core::Phase::Joining;
        if !is_joining && ground.member.is_none() && self.states.asked(id).is_none() {
            self.states.forget(id);
        }
    }

    /// Whether this incarnation, or a later one, was found dead a short while ago, or has left.
    pub(crate) fn has_ended(&self, now: Instant, peer: &Peer) -> bool {
        self.ended.contains(now, peer)
    }

    /// Whether this incarnation, or a later one, has said that it leaves.
    pub(crate) fn has_left(&self, peer: &Peer) -> bool {
        self.ended.has_left(peer)
    }

    pub(crate) fn mark_left(&mut self, now: Instant, peer: Peer) {
        self.ended.mark_left(now, peer);
    }

    /// The node itself was heard, in this incarnation or a later one: it is not dead. Or a node near it names it, and it
    /// deserves another look. Returns whether an earlier incarnation was found dead.
    pub(crate) fn clear_dead(&mut self, peer: Peer) -> bool {
        self.ended.clear_dead(peer)
    }

    /// A message of this peer's, over its own connection, has come to the layer above.
    pub(crate) fn note_partner(&mut self, now: Instant, peer: Peer) {
        self.partners.note(now, peer);
    }

    /// A peer was heard: tells the layer above if it was known in an earlier life. `edge`: the earlier life that was attached here.
    /// `is_told`: that the earlier life is over was said. What a relay passes on is no proof of a later life of a node that stands
    /// in no table.
    pub(crate) fn tell_of_restart(
        &mut self,
        core: &mut Core,
        from: Peer,
        relay: Option<Peer>,
        edge: Option<u64>,
        is_told: bool,
    ) {
        let partner = if relay.is_none() { self.partners.renew(from) } else { None };
        let earlier = partner.max(edge);
        if let Some(incarnation) = earlier.filter(|_| !is_told) {
            core.emit(Event::PeerDown { id: from.id, incarnation });
        }
        if is_told || earlier.is_some() {
            core.emit(Event::PeerRestarted(from));
        }
    }

    /// This node was the one that could not be reached: nothing that it found out counts.
    pub(crate) fn clear_all_dead(&mut self) {
        self.ended.clear_all_dead();
    }

    /// Whether a probe or a hop to this peer went unanswered, and nothing was heard since.
    pub(crate) fn is_suspect(&self, id: NodeId) -> bool {
        self.states.asked(id).is_some_and(|asked| asked.attempts > 1 && !asked.heard_since)
    }

    /// Whether so many peers are watched, or owe an answer, that none is probed because others named it.
    pub(crate) fn is_full(&self) -> bool {
        self.states.is_full()
    }

    /// Whether a peer that others name is not probed: it has ended, or there is no room to watch it.
    pub(crate) fn is_not_to_be_asked(&self, now: Instant, peer: &Peer) -> bool {
        self.has_ended(now, peer) || self.is_full()
    }

    /// Whether the node, on the ring, did nothing for as long as a lease runs: its heartbeats are more frequent.
    pub(crate) fn slept(&mut self, now: Instant, core: &Core) -> bool {
        let before = std::mem::replace(&mut self.last_run, now);
        core.is_on_ring() && now - before >= core.config.leases.duration
    }
}

// Times.
impl FailureDetector {
    /// Takes a round-trip sample; returns the smoothed time of a watched peer.
    pub(crate) fn measure(&mut self, id: NodeId, sample: Duration) -> Option<Duration> {
        self.states.measure(id, sample)
    }

    /// Hears how long an answer took that was not waited for any more.
    pub(crate) fn note_slow(&mut self, id: NodeId, took: Duration) {
        self.states.note_slow(id, took);
    }

    /// Whether a watched peer was heard after this point in time.
    pub(crate) fn was_heard_since(&self, now: Instant, id: NodeId, then: Instant) -> bool {
        self.states.was_heard_since(now, id, then)
    }

    /// Smoothed round-trip time of a watched peer, if it was measured.
    pub(crate) fn rtt(&self, id: NodeId) -> Option<Duration> {
        Some(self.round_trip(id)?.smoothed())
    }

    fn round_trip(&self, id: NodeId) -> Option<RoundTrip> {
        self.states.get(id)?.round_trip
    }

    /// How long to wait for an answer: smoothed round-trip time + 4 × variation. Of those that are not watched only the
    /// former is kept; the first guess at the latter is half of it (RFC 6298 §2.2).
    pub(crate) fn rto(&self, config: &Config, id: NodeId, table_rtt: Option<Duration>) -> Duration {
        let watched = self.round_trip(id).map(RoundTrip::wait);
        let wait = watched.or_else(|| table_rtt.map(|rtt| rtt * 3)).unwrap_or(FIRST_RTO);
        wait.clamp(config.failure.rto_min, config.failure.rto_max)
    }

    /// How long to wait for the acknowledgement of a hop: less than for that of a probe, since another way costs little and
    /// decides nothing (MSPastry §3.2).
    pub(crate) fn hop_rto(&self, config: &Config, id: NodeId, table_rtt: Option<Duration>) -> Duration {
        let watched = self.round_trip(id);
        let watched = watched.map(|trip| trip.wait().min(trip.smoothed().mul_f64(HOP_PATIENCE)));
        let in_table = || table_rtt.map(|rtt| rtt.mul_f64(HOP_PATIENCE));
        let wait = watched.or_else(in_table).unwrap_or(FIRST_RTO);
        wait.clamp(config.routing.hop_rto_min, config.failure.rto_max)
    }

    /// From now on deaths are counted.
    pub(crate) fn begin_counting(&mut self, now: Instant) {
        self.deaths.begin(now);
    }

    /// Whether a node may well be dead, by how long it was silent and how fast others died. How long an unwatched
    /// node was silent is not known.
    pub(crate) fn is_doubtful(
        &self,
        now: Instant,
        config: &Config,
        tables: &Tables,
        table_use: TableUse,
        peer: &Peer,
    ) -> bool {
        let is_watched = self.states.get(peer.id).is_some();
        let watched = is_watched.then(|| self.states.silence(now, peer.id));
        let silence = watched.unwrap_or(config.failure.table_probe);
        self.deaths.is_doubtful(now, config, tables, table_use, silence)
    }

    /// Begins a sweep over the leaf set and the nodes in use of the geometry's tables: plans the next one, and returns the
    /// watched nodes with the silence after which each is probed, by id. (Ring neighbours watch each other by their leases,
    /// and tell the rest of a death: MSPastry §4.1.)
    pub(crate) fn begin_sweep(
        &self,
        now: Instant,
        core: &mut Core,
        tables: &Tables,
        table_use: TableUse,
        in_use: impl Iterator<Item = Peer>,
    ) -> Sweep {
        let table_probe = self.deaths.table_probe(now, &core.config, tables, table_use);
        let sweep = core.config.failure.leaf_probe.min(table_probe) / SWEEPS;
        let period = core.jittered(sweep.min(LONGEST_SWEEP));
        core.timers.set(Timer::Sweep, now + period);
        let members = tables.leaf_set.iter().map(|peer| (*peer, core.config.failure.leaf_probe));
        let mut watched: Vec<(Peer, Duration)> =
            members.chain(in_use.map(|peer| (peer, table_probe))).collect();
        watched.sort_by_key(|(peer, _)| peer.id);
        Sweep { watched }
    }

    /// Ends it: of all other nodes nothing is kept but what the tables have.
    pub(crate) fn end_sweep(&mut self, now: Instant, sweep: &Sweep) {
        let Sweep { watched } = sweep;
        self.states.keep(|id| watched.binary_search_by_key(&id, |(peer, _)| peer.id).is_ok());
        self.ended.tidy(now);
        self.partners.tidy(now);
        self.states.tidy();
    }

    /// Whether a watched node was silent for so long that it is to be probed.
    pub(crate) fn is_silent(&self, now: Instant, id: NodeId, patience: Duration) -> bool {
        self.states.silence(now, id) >= patience
    }

    /// Adds up the bytes on the heap.
    pub(crate) fn memory(&self, parts: &mut Memory) {
        parts.add("liveness", self.states.bytes() + self.ended.bytes() + self.partners.bytes());
        parts.add("tuning", self.deaths.bytes());
        parts.add("detours", self.detours.bytes());
    }

    /// How much is remembered (promise O5). Of lives that go on: the tables' members, and the nodes that others named, up to a
    /// limit that is kept where they are asked.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = Size> {
        self.ended
            .sizes()
            .into_iter()
            .chain(self.detours.sizes())
            .chain([self.deaths.size(), self.partners.size()])
    }
}

#[cfg(test)]
impl FailureDetector {
    pub(crate) fn question(&self, id: NodeId) -> Option<(u64, Sides)> {
        self.states.asked(id).map(|asked| (asked.number, asked.sides))
    }

    pub(crate) fn silence(&self, now: Instant, id: NodeId) -> Duration {
        self.states.silence(now, id)
    }

    pub(crate) fn note_death(&mut self, now: Instant) {
        self.deaths.note_death(now);
    }

    pub(crate) fn has_detours(&self) -> bool {
        self.detours.sizes()[0].1 > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{at, core, peer, sent, tables};
    use super::*;

    fn ground(tables: &Tables, member: u8) -> Ground<'_> {
        Ground { tables, view: None, member: Some(peer(member)), table_rtt: None }
    }

    #[test]
    fn three_silences_are_a_death_and_a_frame_in_between_is_none() {
        let (mut core, tables) = (core(), tables(&[80, 90, 110, 120]));
        let (far, ground) = (peer(120), ground(&tables, 120));
        for hears in [false, true] {
            let mut detector = FailureDetector::default();
            detector.probe(at(0), &mut core, &ground, far, false);
            let mut timeout = |now| detector.on_probe_timeout(at(now), &mut core, &ground, far.id);
            assert_eq!(timeout(1_000), Some(Detected::Suspect(far.id)));
            assert_eq!(timeout(2_000), Some(Detected::Suspect(far.id)));
            if hears {
                detector.note_heard(at(2_500), far);
            }
            let found = detector.on_probe_timeout(at(3_000), &mut core, &ground, far.id);
            match found {
                Some(Detected::Dead { peer, is_own: true }) => assert!(!hears && peer == far),
                Some(Detected::Alive { peer, .. }) => assert!(hears && peer == far),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_ring_neighbour_that_is_silent_is_asked_by_way_of_others() {
        let (mut core, tables) = (core(), tables(&[80, 90, 110, 120]));
        let (near, ground) = (peer(110), ground(&tables, 110));
        let mut detector = FailureDetector::default();
        detector.probe(at(0), &mut core, &ground, near, false);
        detector.on_probe_timeout(at(1_000), &mut core, &ground, near.id);
        assert!(sent(&mut core).iter().all(|(to, header)| *to == near && matches!(header, Header::Probe(_))));
        detector.on_probe_timeout(at(2_000), &mut core, &ground, near.id);
        let asked = sent(&mut core);
        let relays = asked.iter().filter(|(to, header)| *to != near && matches!(header, Header::Via { .. }));
        assert_eq!(relays.count(), RELAYS, "{asked:?}");
        // Its answer comes by a relay: that is the way from now on, as long as nothing else is known.
        let answered = detector.on_probe_ack(at(2_050), &ground, near.id, Some(peer(90)), core.last_number());
        assert!(answered.is_some());
        assert_eq!(detector.relay(at(2_060), &core.config, near.id), Some(peer(90)));
    }

    #[test]
    fn a_hint_is_worth_a_look_only_if_the_node_was_silent() {
        let tables = tables(&[120]);
        let mut detector = FailureDetector::default();
        detector.begin(at(0), peer(120));
        let hint = |detector: &FailureDetector, now, dead| {
            detector.on_death_hint(at(now), &ground(&tables, 120), dead).is_some()
        };
        assert!(!hint(&detector, 1_000, peer(120)), "it was heard a second ago");
        assert!(hint(&detector, 6_000, peer(120)));
        assert!(!hint(&detector, 6_000, Peer { incarnation: 0, ..peer(120) }), "an older life");
    }
}

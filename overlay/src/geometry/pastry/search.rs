//! The search for near nodes: which of the many that fit a slot of the routing table this node keeps there.
//!
//! A node that has come onto the ring *approaches* its place in the network: it asks the nearest node that it knows for
//! nodes at about the same distance, measures a few, and goes on from the nearest (Castro et al. 2002, §4.2, and
//! Meridian, Wong et al. 2005). Then it *fills* its table row by row, each from the nearest node that shares so many
//! digits: what is near to that one is near to this one. From then on it *watches*: rounds of constrained gossip (Castro
//! et al. 2003; MSPastry §4.2), more and more seldom while they bring nothing.
//!
//! The older a node, the rarer it looks: after its first ten minutes a round waits as long as the node has looked since, and
//! only nodes that may become the nearest of their slots are measured; spares come by themselves. Under churn (measured with
//! `lab churn --profile mspastry --lookups 20000`, 2,000 nodes) that, and probing the tables as seldom as messages find the
//! dead, brought 0.387 messages/s/node down to 0.341; the stretch of the routes rose from 1.614 to 1.641.
//!
//! A node that names others says how far they are from it. With `d` to the one that names and `r` from there, a node is no
//! nearer than |r − d| and no farther than r + d: only those are measured that promise to be nearer than what is there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use super::{Cx, Greeting, Known, Near, PastryFrame, Places, duration, known, micros};
use crate::id::{DIGITS, NodeId};
use crate::memory;
use crate::peer::Peer;
use crate::ring::core::{Core, Timer};
use crate::time::Instant;

/// Most steps of the approach.
const APPROACH_STEPS: u8 = 10;
/// Steps that bring no node nearer before the approach is over.
const VAIN_STEPS: u8 = 3;
/// A step brings a nearer node if the nearest is no farther than this share of the former.
const APPROACHES: f64 = 0.8;
/// Nodes named in one step of the approach, all of which are measured.
const APPROACH_PROBES: usize = 6;
/// Most nodes that are measured because of one message while the table is filled.
const FILL_PROBES: usize = 15;
/// Most nodes that are measured because of one message later.
const ROUND_PROBES: usize = 3;
/// A round has brought much if one of so many that were measured has found a place.
const MUCH: usize = 2;
/// How long a node is young, in the shortest times between two rounds: ten minutes by default. (Measured: with 20, `lab
/// churn` sends 0.011 messages/s/node less, and the stretch of 100,000 nodes is 1.653 after 300 s in place of 1.641.)
/// Measured: `lab churn --nodes 2000 --lookups 20000 --warm 300`: if a node stays young for ever, 74.2 bytes/s/node in place
/// of 71.8, 1.42 messages/s/node in place of 1.41, stretch 1.63 as before.
const YOUNG: u32 = 60;
/// Entries without a distance that are measured in a round.
const ROUND_UNMEASURED: usize = 3;
/// How much nearer or farther than the one that asks the nodes are that it is told of, in hundredths: the nearer to it
/// a node is, the less the two differ; where those are few, about half (Meridian §3).
const NARROW: u32 = 25;
const WIDE: u32 = 50;
/// Nodes that were measured and did not fit, remembered so as not to measure them again; beyond it the oldest are
/// forgotten, which costs a probe.
const MAX_TRIED: usize = 128;
/// Of the nodes that share enough digits, the nearest so many are asked most of the time.
const NEAR_PARTNERS: usize = 6;
/// Below this round-trip time no node is worth to be looked for further.
const NEAR_ENOUGH: Duration = Duration::from_micros(500);
/// How long an answer is waited for at most, while the table is filled.
const PATIENCE: Duration = Duration::from_secs(1);

/// How this node looks for nearer nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Search {
    stage: Stage,
    /// Since when it does.
    since: Instant,
    /// Mean time to the next round.
    period: Duration,
    /// Nodes measured since the last round because others named them, and how many of them deserved a place.
    measured: usize,
    gained: usize,
    /// The node that was asked, and when: the answer measures it once more.
    asked: Option<(NodeId, Instant)>,
    /// The frame that is being handled answers that question.
    is_answered: bool,
    /// Last bits of the ids of those measured in vain, oldest first.
    tried: VecDeque<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Asks nearer and nearer nodes; `reached`: how near the last one is.
    Approaching { steps: u8, vain: u8, reached: Duration },
    /// Fills this row.
    Filling { row: usize },
    #[default]
    Watching,
}

/// The promise of a node that was named, the most promising first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    /// There is room in its slot; how near it may be in microseconds.
    Room(u32),
    /// It may be nearer than the one of its slot that it is measured by: its distance in parts of a thousand of that one's.
    Nearer(u64),
}

// Rounds.
impl Search {
    /// Begins: this node has just come onto the ring.
    pub(super) fn begin(&mut self, cx: &mut Cx<'_>) {
        self.stage = Stage::Approaching { steps: 0, vain: 0, reached: Duration::MAX };
        (self.since, self.period) = (cx.now, cx.core.config.search.period_min);
        cx.core.timers.set(Timer::Geometry, cx.now);
    }

    /// There is much to be found again: the node counts as young.
    pub(super) fn restart(&mut self, now: Instant) {
        self.since = now;
    }

    /// Entries that came by themselves and said nothing of their distance: some of them are measured in each round.
    pub(super) fn unmeasured(places: &Places) -> Vec<Peer> {
        let unmeasured = places
            .table
            .entries_from(0)
            .iter()
            .filter(|entry| entry.rtt().is_none() && places.is_worth_a_place(entry.peer.id));
        unmeasured.map(|entry| entry.peer).take(ROUND_UNMEASURED).collect()
    }

    /// A round.
    pub(super) fn on_timer(&mut self, cx: &mut Cx<'_>, places: &Places) {
        // A node that knows all others needs to ask none.
        if cx.tables.leaf_set.len() < cx.core.config.tables.leaf_set {
            return self.watch_on(cx);
        }
        match self.stage {
            Stage::Approaching { steps, vain, reached } => self.approach(cx, places, steps, vain, reached),
            Stage::Filling { row } => self.fill(cx, places, row),
            Stage::Watching => self.watch(cx, places),
        }
    }

    /// The nearest node is asked; when that has brought no nearer one, the next nearest ones.
    fn approach(&mut self, cx: &mut Cx<'_>, places: &Places, steps: u8, vain: u8, reached: Duration) {
        let partners = places.partners(cx.detector, 0);
        let nearest = partners.first().map_or(Duration::MAX, |&(_, rtt)| rtt);
        let vain = if nearest < reached.mul_f64(APPROACHES) { 0 } else { vain + 1 };
        let next = partners.get(usize::from(vain)).copied();
        let goes_on = steps < APPROACH_STEPS && vain < VAIN_STEPS && nearest > NEAR_ENOUGH;
        let Some((peer, rtt)) = next.filter(|_| goes_on) else { return self.fill(cx, places, 0) };
        let reached = if vain == 0 { nearest } else { reached };
        self.stage = Stage::Approaching { steps: steps + 1, vain, reached };
        self.asked = Some((peer.id, cx.now));
        cx.core.send(peer, PastryFrame::NearerRequest { rtt_micros: micros(rtt) }.encode());
        cx.core.timers.set(Timer::Geometry, cx.now + PATIENCE);
    }

    fn fill(&mut self, cx: &mut Cx<'_>, places: &Places, row: usize) {
        match places.partners(cx.detector, row).into_iter().next() {
            Some((peer, rtt)) if row < places.rows_in_use() => {
                let next = if self.exchange(cx, places, peer, Some(rtt), row) { row + 1 } else { row };
                self.stage = Stage::Filling { row: next };
                cx.core.timers.set(Timer::Geometry, cx.now + PATIENCE);
            }
            Some(_) | None => {
                self.stage = Stage::Watching;
                self.watch_on(cx);
            }
        }
    }

    /// A round: one row is exchanged with a node that shares enough digits, mostly with one of the nearest.
    fn watch(&mut self, cx: &mut Cx<'_>, places: &Places) {
        let rows = places.rows_in_use();
        if rows > 0 {
            // The upper rows have the most to choose from, and need the most rounds.
            let rng = &mut cx.core.rng;
            let row = rng.random_range(0..rows).min(rng.random_range(0..rows));
            let partners = places.partners(cx.detector, row);
            let near = &partners[..partners.len().min(NEAR_PARTNERS)];
            let nearest = rng.random_range(0..4) > 0;
            let chosen = if nearest { near } else { &partners }.choose(rng).copied();
            let unmeasured = || places.table.entries_from(row).first().map(|entry| entry.peer);
            if let Some((peer, rtt)) =
                chosen.map(|(peer, rtt)| (peer, Some(rtt))).or(unmeasured().map(|peer| (peer, None)))
            {
                self.exchange(cx, places, peer, rtt, row);
            }
        }
        self.watch_on(cx);
    }

    /// Rounds that bring much hurry the next one, others let it wait: a few of those that are measured always find a place
    /// where others have died. Once a node is no longer young, the next round waits as long as it has looked since: what is
    /// still to be found gets less and less.
    fn watch_on(&mut self, cx: &mut Cx<'_>) {
        let aged = self.aged(cx.now, cx.core);
        let (measured, gained) = (std::mem::take(&mut self.measured), std::mem::take(&mut self.gained));
        let period = if gained * MUCH > measured { self.period / 2 } else { self.period * 2 };
        let config = &cx.core.config;
        self.period = period.max(aged).min(config.search.period_max).max(config.search.period_min);
        let wait = cx.core.jittered(self.period);
        cx.core.timers.set(Timer::Geometry, cx.now + wait);
    }

    /// For how long this node has been young no more.
    fn aged(&self, now: Instant, core: &Core) -> Duration {
        (now - self.since).saturating_sub(core.config.search.period_min.saturating_mul(YOUNG))
    }

    /// Exchanges a row, if the budget allows.
    fn exchange(
        &mut self,
        cx: &mut Cx<'_>,
        places: &Places,
        peer: Peer,
        rtt: Option<Duration>,
        row: usize,
    ) -> bool {
        let known = places.known_in_row(row, peer.id);
        let may = cx.may_name(known.len());
        if may {
            self.asked = Some((peer.id, cx.now));
            places.tell(cx.core, peer, rtt.map(micros), known, Some(row as u8));
        }
        may
    }

    /// A node that was measured has found a place.
    pub(super) fn note_gain(&mut self) {
        self.gained += 1;
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::queue(&self.tried)
    }
}

// Frames.
impl Search {
    /// The news that a frame has of its sender.
    pub(super) fn greeting(
        &mut self,
        now: Instant,
        from: Peer,
        told_micros: Option<u32>,
        is_near: bool,
    ) -> Greeting {
        let told = told_micros.map(duration);
        self.is_answered = false;
        if !is_near {
            return Greeting { round_trip: None, told };
        }
        let asked = self.asked.take_if(|(id, sent)| *id == from.id && now - *sent <= PATIENCE);
        self.is_answered = asked.is_some();
        Greeting { round_trip: asked.map(|(_, sent)| now - sent), told }
    }

    /// Another node looks for nodes that are nearer to it: those about as far from here as it is are the most likely ones.
    pub(super) fn on_nearer_request(cx: &mut Cx<'_>, places: &Places, from: Peer, rtt_micros: u32) {
        let mut fitting = places.about_as_far(from.id, rtt_micros, NARROW);
        if fitting.len() < APPROACH_PROBES {
            fitting = places.about_as_far(from.id, rtt_micros, WIDE);
        }
        fitting.shuffle(&mut cx.core.rng);
        fitting.truncate(APPROACH_PROBES);
        if cx.may_name(fitting.len()) {
            places.tell(cx.core, from, Some(rtt_micros), fitting, None);
        }
    }

    /// Another node names nodes that it knows. Returns those that are to be probed.
    pub(super) fn on_near(
        &mut self,
        cx: &mut Cx<'_>,
        places: &mut Places,
        from: Peer,
        near: Near,
    ) -> Vec<Peer> {
        let is_answer = std::mem::take(&mut self.is_answered);
        places.table.set_crowded(from.id, near.crowded);
        if !is_answer {
            // It says so because it has this node in its table.
            places.in_degree.note(cx.now, from.id, cx.core.config.search.period_max);
        }
        let distance = places.table.rtt(from.id).or(near.rtt_micros.map(duration));
        if let Some(row) = near.row.map(usize::from).filter(|&row| row < DIGITS) {
            let known = places.known_in_row(row, from.id);
            if cx.may_name(known.len()) {
                places.tell(cx.core, from, distance.map(micros), known, None);
            }
        } else if !is_answer && !near.crowded && places.is_crowded() {
            // Too many have. (Of two crowded ones neither tells the other again and again.)
            places.tell(cx.core, from, distance.map(micros), Vec::new(), None);
        }
        let answers = is_answer && near.row.is_none();
        match self.stage {
            Stage::Approaching { .. } if answers => {
                let named = near.known.iter().map(|known| known.peer).collect();
                let probed = self.worth_a_probe(cx, places, named, APPROACH_PROBES);
                await_probes(cx, distance);
                probed
            }
            Stage::Filling { .. } if answers => {
                let probed = self.promising(cx, places, near.known, distance, FILL_PROBES);
                await_probes(cx, distance);
                probed
            }
            Stage::Approaching { .. } | Stage::Filling { .. } | Stage::Watching => {
                self.promising(cx, places, near.known, distance, ROUND_PROBES)
            }
        }
    }

    /// The named nodes that promise to be nearer than the entries of their slots, the most promising first.
    /// `distance`: how far the one is that names them.
    fn promising(
        &mut self,
        cx: &mut Cx<'_>,
        places: &Places,
        known: Vec<Known>,
        distance: Option<Duration>,
        most: usize,
    ) -> Vec<Peer> {
        let promise = |known: Known| Some((self.promise(cx, places, &known, distance)?, known.peer));
        let mut promising: Vec<(Promise, Peer)> = known.into_iter().filter_map(promise).collect();
        promising.sort_unstable();
        // Each slot has its turn.
        let me = cx.core.me.id.key();
        let mut turns: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        promising.sort_by_cached_key(|(_, peer)| {
            let row = me.shared_prefix(peer.id).min(DIGITS - 1);
            let turn = turns.entry((row, peer.id.key().digit(row))).or_default();
            *turn += 1;
            *turn
        });
        let promising = promising.into_iter().map(|(_, peer)| peer).collect();
        self.worth_a_probe(cx, places, promising, most)
    }

    /// How near a named node may be; `None` if it promises nothing.
    fn promise(
        &self,
        cx: &Cx<'_>,
        places: &Places,
        known: &Known,
        distance: Option<Duration>,
    ) -> Option<Promise> {
        if !places.is_worth_a_place(known.peer.id) {
            return None;
        }
        let slot = places.table.next_hops(known.peer.id.key());
        // Later on, a node that would only be one more candidate comes by itself.
        let watching = self.stage == Stage::Watching;
        let enough = if watching { 1 } else { cx.core.config.tables.candidates };
        // A node that is young no more measures those only that may become the nearest: spares come by themselves, too.
        let rival = if self.aged(cx.now, cx.core).is_zero() { slot.last() } else { slot.first() };
        let rival = if slot.len() < enough { None } else { rival?.weight() };
        let bounds = known.rtt_micros.zip(distance.map(micros));
        let Some(rival) = rival.map(u64::from) else {
            // There is room: the nearer the better.
            return Some(Promise::Room(bounds.map_or(u32::MAX, |(r, d)| r.max(d))));
        };
        let (r, d) = bounds?;
        let likely = (u64::from(r.abs_diff(d)) + u64::from(r.max(d))) / 2;
        (likely < rival).then(|| Promise::Nearer(likely * 1000 / rival))
    }

    /// The named nodes that are to be probed; notes them as tried.
    fn worth_a_probe(
        &mut self,
        cx: &mut Cx<'_>,
        places: &Places,
        peers: Vec<Peer>,
        most: usize,
    ) -> Vec<Peer> {
        let mut probed = Vec::new();
        for peer in peers {
            if peer.id == cx.core.me.id {
                cx.core.look_for_twin(cx.now, peer);
                continue;
            }
            // Where there is no node at all, another try is worth its probe.
            let in_vain = self.has_tried(peer.id) && !places.table.next_hops(peer.id.key()).is_empty();
            let barred = cx.is_barred(&peer) || in_vain || places.table.get(peer.id).is_some();
            if probed.len() < most && !barred && !cx.detector.is_full() {
                self.measured += 1;
                self.note_tried(peer.id);
                probed.push(peer);
            }
        }
        probed
    }

    fn has_tried(&self, id: NodeId) -> bool {
        self.tried.contains(&(id.0 as u32))
    }

    fn note_tried(&mut self, id: NodeId) {
        if self.tried.len() == MAX_TRIED {
            self.tried.pop_front();
        }
        self.tried.push_back(id.0 as u32);
    }
}

/// Goes on when most of those just probed must have answered.
fn await_probes(cx: &mut Cx<'_>, distance: Option<Duration>) {
    let wait = distance.map_or(PATIENCE, |rtt| (rtt * 2 + Duration::from_millis(5)).min(PATIENCE));
    cx.core.timers.set(Timer::Geometry, cx.now + wait);
}

impl Places {
    /// Nodes as far from here as another one, give or take a share of that in hundredths.
    fn about_as_far(&self, other: NodeId, rtt_micros: u32, share: u32) -> Vec<Known> {
        let spare = (u64::from(rtt_micros) * u64::from(share) / 100) as u32;
        let band = rtt_micros.saturating_sub(spare)..=rtt_micros.saturating_add(spare);
        let fits = |entry: &&crate::table::Entry| {
            entry.peer.id != other && entry.rtt_micros().is_some_and(|rtt| band.contains(&rtt))
        };
        self.table.entries_from(0).iter().filter(fits).map(known).collect()
    }
}

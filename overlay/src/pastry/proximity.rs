//! Nearness: whom of the many that fit a slot of the routing table this node keeps there, and whom of those it routes by.
//!
//! A node that has come onto the ring *approaches* its place in the network: it asks the nearest node that it knows for
//! nodes at about the same distance, measures a few, and goes on from the nearest (Castro et al. 2002, §4.2, and
//! Meridian, Wong et al. 2005). Then it *fills* its table row by row, each from the nearest node that shares so many
//! digits: what is near to that one is near to this one. From then on it *watches*: rounds of constrained gossip (Castro
//! et al. 2003; MSPastry §4.2), more and more seldom while they bring nothing.
//!
//! Whoever names nodes says how far they are from it. With `d` to the one who names and `r` from there, a node is no
//! nearer than |r − d| and no farther than r + d: only those are measured that promise to be nearer than what is there.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use super::{Node, Timer};
use crate::id::{BASE, DIGITS, Key, NodeId};
use crate::memory;
use crate::peer::Peer;
use crate::table::Entry;
use crate::time::Instant;
use crate::wire::{Header, Known, Near};

/// Most steps of the approach.
const APPROACH_STEPS: u8 = 10;
/// Steps that bring nobody nearer before the approach is over.
const VAIN_STEPS: u8 = 3;
/// A step brings somebody nearer if the nearest is no farther than this share of the former.
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
const YOUNG: u32 = 60;
/// Entries without a distance that are measured in a round.
const ROUND_UNMEASURED: usize = 3;
/// How much nearer or farther than the one who asks the nodes are that it is told of, in hundredths: the nearer to it
/// somebody is, the less the two differ; where those are few, about half (Meridian §3).
const NARROW: u32 = 25;
const WIDE: u32 = 50;
/// Nodes that were measured and did not fit, remembered so as not to measure them again; beyond it the oldest are
/// forgotten, which costs a probe.
const MAX_TRIED: usize = 128;
/// Of the nodes that share enough digits, the nearest so many are asked most of the time.
const NEAR_PARTNERS: usize = 6;
/// Below this round-trip time nobody is worth to be looked for further.
const NEAR_ENOUGH: Duration = Duration::from_micros(500);
/// A node is crowded that stands in more than so many times as many tables as it has entries (guess).
const CROWD: usize = 2;
/// Words of bits by which those are counted.
const CROWD_WORDS: usize = 8;
/// How long an answer is waited for at most, while the table is filled.
const PATIENCE: Duration = Duration::from_secs(1);

/// How this node looks for nearer nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Proximity {
    stage: Stage,
    /// Since when it does.
    since: Instant,
    /// Mean time to the next round.
    period: Duration,
    /// Nodes measured since the last round because others named them, and how many of them deserved a place.
    measured: usize,
    gained: usize,
    /// Who was asked, and when: the answer measures it once more.
    asked: Option<(NodeId, Instant)>,
    /// Last bits of the ids of those measured in vain, oldest first.
    tried: VecDeque<u32>,
    outlook: Outlook,
    crowd: Crowd,
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

/// What a node that was named promises, the most promising first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    /// There is room in its slot; how near it may be in microseconds.
    Room(u32),
    /// It may be nearer than the one of its slot that it is measured by: its distance in parts of a thousand of that one's.
    Nearer(u64),
}

/// About how many nodes have taken this one into their tables lately: those who told it how near they are, counted by bits
/// that their ids set (Whang et al. 1990, "linear counting").
#[derive(Clone, Debug, Default)]
struct Crowd {
    bits: [[u64; CROWD_WORDS]; 2],
    /// Since when the first half is being filled; the second is the one before.
    since: Instant,
}

impl Crowd {
    fn note(&mut self, now: Instant, id: NodeId, period: Duration) {
        if now - self.since >= period {
            self.bits = [[0; CROWD_WORDS], self.bits[0]];
            self.since = now;
        }
        let bit = id.0 as usize % (64 * CROWD_WORDS);
        self.bits[0][bit / 64] |= 1 << (bit % 64);
    }

    /// An estimate; exact while it is small.
    fn count(&self) -> usize {
        let [first, second] = &self.bits;
        let set: u32 = first.iter().zip(second).map(|(a, b)| (a | b).count_ones()).sum();
        let (all, set) = (64.0 * CROWD_WORDS as f64, f64::from(set));
        // -m ln(z/m) by its series, so that the result is the same on every machine.
        let share = set / all;
        let mut power = share;
        let mut sum = 0.0;
        for term in 1..=24 {
            sum += power / f64::from(term);
            power *= share;
        }
        (all * sum) as usize
    }
}

/// What a message has still to expect after its next hop, by this node's own distances: nodes of one ring have about the
/// same.
#[derive(Clone, Debug, Default)]
struct Outlook {
    /// Mean distance of two nodes on the ring.
    spacing: u128,
    /// How far a leaf set reaches to each side, less a little.
    reach: u128,
    /// Mean round-trip time to a member of the leaf set, and so to any node, in microseconds.
    leaf: u32,
    /// By matched digits: expected round-trip time of all that is to come, in microseconds.
    rest: Vec<u32>,
}

impl Outlook {
    /// Expected round-trip time from a node to the key's root, in microseconds.
    fn expected(&self, from: NodeId, key: Key) -> u32 {
        let away = key.distance(from);
        if away < self.spacing {
            // Perhaps it is the root itself.
            self.leaf / 2
        } else if away < self.reach {
            self.leaf
        } else {
            let matched = key.shared_prefix(from);
            self.rest.get(matched).or(self.rest.last()).copied().unwrap_or_default()
        }
    }
}

impl Proximity {
    /// What a route by way of this entry is expected to take, in microseconds of round-trip time. The nearest of a slot is
    /// not always the best: one that matches more digits than it must, or whose leaf set has the key's root, saves a
    /// later hop, and later hops are the long ones (a departure from Pastry §2.5, which takes the nearest).
    pub(super) fn cost(&self, entry: &Entry, key: Key) -> u64 {
        let first = entry.weight().unwrap_or(self.outlook.leaf);
        u64::from(first) + u64::from(self.outlook.expected(entry.peer.id, key))
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::queue(&self.tried) + memory::list(&self.outlook.rest)
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

impl Node {
    /// Begins to look for near nodes: this node has just come onto the ring.
    pub(super) fn look_around(&mut self, now: Instant) {
        self.proximity.stage = Stage::Approaching { steps: 0, vain: 0, reached: Duration::MAX };
        (self.proximity.since, self.proximity.period) = (now, self.config.gossip);
        self.deadlines.set(Timer::Proximity, now);
    }

    pub(super) fn on_proximity_timer(&mut self, now: Instant) {
        if !self.is_ready() || self.is_edge() {
            return;
        }
        self.look_ahead();
        self.measure_some(now);
        // Whoever knows everybody needs to ask nobody.
        if self.leaf_set.len() < self.config.leaf_set {
            return self.watch_on(now);
        }
        match self.proximity.stage {
            Stage::Approaching { steps, vain, reached } => self.approach(now, steps, vain, reached),
            Stage::Filling { row } => self.fill(now, row),
            Stage::Watching => self.watch(now),
        }
    }

    /// The nearest node is asked; when that has brought nobody nearer, the next nearest ones.
    fn approach(&mut self, now: Instant, steps: u8, vain: u8, reached: Duration) {
        let partners = self.partners(0);
        let nearest = partners.first().map_or(Duration::MAX, |&(_, rtt)| rtt);
        let vain = if nearest < reached.mul_f64(APPROACHES) { 0 } else { vain + 1 };
        let next = partners.get(usize::from(vain)).copied();
        let goes_on = steps < APPROACH_STEPS && vain < VAIN_STEPS && nearest > NEAR_ENOUGH;
        let Some((peer, rtt)) = next.filter(|_| goes_on) else { return self.fill(now, 0) };
        let reached = if vain == 0 { nearest } else { reached };
        self.proximity.stage = Stage::Approaching { steps: steps + 1, vain, reached };
        self.proximity.asked = Some((peer.id, now));
        self.transmit(peer, Header::NearerRequest { rtt_micros: micros(rtt) });
        self.deadlines.set(Timer::Proximity, now + PATIENCE);
    }

    fn fill(&mut self, now: Instant, row: usize) {
        match self.partners(row).into_iter().next() {
            Some((peer, rtt)) if row < self.rows_in_use() => {
                let next = if self.exchange(now, peer, Some(rtt), row) { row + 1 } else { row };
                self.proximity.stage = Stage::Filling { row: next };
                self.deadlines.set(Timer::Proximity, now + PATIENCE);
            }
            Some(_) | None => {
                self.proximity.stage = Stage::Watching;
                self.watch_on(now);
            }
        }
    }

    /// Measures entries that came by themselves and said nothing of their distance.
    fn measure_some(&mut self, now: Instant) {
        let unmeasured = self
            .table
            .entries_from(0)
            .iter()
            .filter(|entry| entry.rtt().is_none() && self.is_worth_a_place(entry.peer.id));
        let some: Vec<Peer> = unmeasured.map(|entry| entry.peer).take(ROUND_UNMEASURED).collect();
        for peer in some {
            self.probe(now, peer, false);
        }
    }

    /// A round: one row is exchanged with a node that shares enough digits, mostly with one of the nearest.
    fn watch(&mut self, now: Instant) {
        let rows = self.rows_in_use();
        if rows > 0 {
            // The upper rows have the most to choose from, and need the most rounds.
            let row = self.rng.random_range(0..rows).min(self.rng.random_range(0..rows));
            let partners = self.partners(row);
            let near = &partners[..partners.len().min(NEAR_PARTNERS)];
            let nearest = self.rng.random_range(0..4) > 0;
            let chosen = if nearest { near } else { &partners }.choose(&mut self.rng).copied();
            let unmeasured = || self.table.entries_from(row).first().map(|entry| entry.peer);
            if let Some((peer, rtt)) =
                chosen.map(|(peer, rtt)| (peer, Some(rtt))).or(unmeasured().map(|p| (p, None)))
            {
                self.exchange(now, peer, rtt, row);
            }
        }
        self.watch_on(now);
    }

    /// Rounds that bring much hurry the next one, others let it wait: a few of those who are measured always find a place
    /// where others have died. Once a node is no longer young, the next round waits as long as it has looked since: what is
    /// still to be found gets less and less.
    fn watch_on(&mut self, now: Instant) {
        let aged = self.aged(now);
        let Proximity { period, measured, gained, .. } = &mut self.proximity;
        let (measured, gained) = (std::mem::take(measured), std::mem::take(gained));
        *period = if gained * MUCH > measured { *period / 2 } else { *period * 2 };
        *period = (*period).max(aged).min(self.config.gossip_max).max(self.config.gossip);
        let wait = self.proximity.period;
        let wait = self.jittered(wait);
        self.deadlines.set(Timer::Proximity, now + wait);
    }

    /// For how long this node has been young no more.
    fn aged(&self, now: Instant) -> Duration {
        (now - self.proximity.since).saturating_sub(self.config.gossip.saturating_mul(YOUNG))
    }

    /// The measured nodes that share at least so many digits with this one, nearest first.
    pub(super) fn partners(&self, digits: usize) -> Vec<(Peer, Duration)> {
        let measured = |entry: &Entry| Some((entry.peer, entry.rtt()?));
        let mut partners: Vec<(Peer, Duration)> =
            self.table.entries_from(digits).iter().filter_map(measured).collect();
        partners.retain(|(peer, _)| !self.liveness.is_suspect(peer.id));
        partners.sort_by_key(|&(peer, rtt)| (rtt, peer.id));
        partners
    }

    /// Exchanges a row, if the budget allows.
    fn exchange(&mut self, now: Instant, peer: Peer, rtt: Option<Duration>, row: usize) -> bool {
        let known = self.known_in_row(row, peer.id);
        let may = self.may_name(now, known.len());
        if may {
            self.proximity.asked = Some((peer.id, now));
            self.tell(peer, rtt.map(micros), known, Some(row as u8));
        }
        may
    }

    /// Rings have found each other: there is much to be found again.
    pub(super) fn be_young(&mut self, now: Instant) {
        self.proximity.since = now;
    }

    fn tell(&mut self, to: Peer, rtt_micros: Option<u32>, known: Vec<Known>, row: Option<u8>) {
        let crowded = self.is_crowded();
        self.transmit(to, Header::Near(Near { rtt_micros, known, row, crowded }));
    }

    /// Whether this node stands in clearly more tables than an average one. All tables together have as many entries as
    /// there are places in tables, and this node's own is as large as others are.
    fn is_crowded(&self) -> bool {
        self.proximity.crowd.count() > CROWD * self.table.len()
    }

    fn known_in_row(&self, row: usize, receiver: NodeId) -> Vec<Known> {
        let others = self.table.row_entries(row).iter().filter(|entry| entry.peer.id != receiver);
        others.take(crate::wire::MAX_PEERS).map(known).collect()
    }

    /// Somebody looks for nodes that are nearer to it: those about as far from here as it is are the most likely ones.
    pub(super) fn on_nearer_request(&mut self, now: Instant, from: Peer, rtt_micros: u32) {
        if !self.is_ready() || self.is_edge() {
            return;
        }
        self.meet_at(now, from, Some(duration(rtt_micros)));
        let mut fitting = self.about_as_far(from.id, rtt_micros, NARROW);
        if fitting.len() < APPROACH_PROBES {
            fitting = self.about_as_far(from.id, rtt_micros, WIDE);
        }
        fitting.shuffle(&mut self.rng);
        fitting.truncate(APPROACH_PROBES);
        if self.may_name(now, fitting.len()) {
            self.tell(from, Some(rtt_micros), fitting, None);
        }
    }

    /// Nodes as far from here as another one, give or take a share of that in hundredths.
    fn about_as_far(&self, other: NodeId, rtt_micros: u32, share: u32) -> Vec<Known> {
        let spare = (u64::from(rtt_micros) * u64::from(share) / 100) as u32;
        let band = rtt_micros.saturating_sub(spare)..=rtt_micros.saturating_add(spare);
        let fits = |entry: &&Entry| {
            entry.peer.id != other && entry.rtt_micros().is_some_and(|rtt| band.contains(&rtt))
        };
        self.table.entries_from(0).iter().filter(fits).map(known).collect()
    }

    pub(super) fn on_near(&mut self, now: Instant, from: Peer, near: Near) {
        if !self.is_ready() || self.is_edge() {
            return;
        }
        let asked = self.proximity.asked.take_if(|(id, sent)| *id == from.id && now - *sent <= PATIENCE);
        if let Some((_, sent)) = asked {
            self.note_round_trip(from, now - sent);
        }
        let told = near.rtt_micros.map(duration);
        self.meet_at(now, from, told);
        self.table.set_crowded(from.id, near.crowded);
        if asked.is_none() {
            // It says so because it has this node in its table.
            self.proximity.crowd.note(now, from.id, self.config.gossip_max);
        }
        let distance = self.table.rtt(from.id).or(told);
        if let Some(row) = near.row.map(usize::from).filter(|&row| row < DIGITS) {
            let known = self.known_in_row(row, from.id);
            if self.may_name(now, known.len()) {
                self.tell(from, distance.map(micros), known, None);
            }
        } else if asked.is_none() && !near.crowded && self.is_crowded() {
            // Too many have. (Of two crowded ones neither tells the other again and again.)
            self.tell(from, distance.map(micros), Vec::new(), None);
        }
        let answers = asked.is_some() && near.row.is_none();
        match self.proximity.stage {
            Stage::Approaching { .. } if answers => {
                let named: Vec<Peer> = near.known.iter().map(|known| known.peer).collect();
                self.try_some(now, named, APPROACH_PROBES);
                self.await_probes(now, distance);
            }
            Stage::Filling { .. } if answers => {
                self.consider_known(now, near.known, distance, FILL_PROBES);
                self.await_probes(now, distance);
            }
            Stage::Approaching { .. } | Stage::Filling { .. } | Stage::Watching => {
                self.consider_known(now, near.known, distance, ROUND_PROBES);
            }
        }
    }

    /// Goes on when most of those just probed must have answered.
    fn await_probes(&mut self, now: Instant, distance: Option<Duration>) {
        let wait = distance.map_or(PATIENCE, |rtt| (rtt * 2 + Duration::from_millis(5)).min(PATIENCE));
        self.deadlines.set(Timer::Proximity, now + wait);
    }

    /// Measures those of the named nodes that promise to be nearer than what is in their slots, the most promising first.
    /// `distance`: how far the one is who named them.
    fn consider_known(&mut self, now: Instant, known: Vec<Known>, distance: Option<Duration>, most: usize) {
        let promise = |known: Known| Some((self.promise(now, &known, distance)?, known.peer));
        let mut promising: Vec<(Promise, Peer)> = known.into_iter().filter_map(promise).collect();
        promising.sort_unstable();
        // Each slot has its turn.
        let mut turns: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        promising.sort_by_cached_key(|(_, peer)| {
            let row = self.me.id.key().shared_prefix(peer.id).min(DIGITS - 1);
            let turn = turns.entry((row, peer.id.key().digit(row))).or_default();
            *turn += 1;
            *turn
        });
        self.try_some(now, promising.into_iter().map(|(_, peer)| peer).collect(), most);
    }

    /// How near a named node may be; `None` if it promises nothing.
    fn promise(&self, now: Instant, known: &Known, distance: Option<Duration>) -> Option<Promise> {
        if !self.is_worth_a_place(known.peer.id) {
            return None;
        }
        let slot = self.table.next_hops(known.peer.id.key());
        // Later on, who would only be one more candidate comes by himself.
        let watching = self.proximity.stage == Stage::Watching;
        let enough = if watching { 1 } else { self.config.candidates };
        // A node that is young no more measures those only who may become the nearest: spares come by themselves, too.
        let rival = if self.aged(now).is_zero() { slot.last() } else { slot.first() };
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

    fn try_some(&mut self, now: Instant, peers: Vec<Peer>, most: usize) {
        let mut probes = 0;
        for peer in peers {
            if peer.id == self.me.id {
                self.look_for_twin(now, peer);
                continue;
            }
            // Where there is nobody at all, another try is worth its probe.
            let in_vain =
                self.proximity.has_tried(peer.id) && !self.table.next_hops(peer.id.key()).is_empty();
            let barred = self.liveness.is_buried(now, &peer)
                || self.leases.is_condemned(peer.id)
                || in_vain
                || self.table.get(peer.id).is_some();
            if probes < most && !barred && !self.liveness.is_full() {
                probes += 1;
                self.proximity.measured += 1;
                self.proximity.note_tried(peer.id);
                self.probe(now, peer, false);
            }
        }
    }

    /// Gives a node that showed itself its place in the routing table, if it deserves one. `told`: how near it says that
    /// it is, which counts until this node has measured it. Returns whether anything changed.
    pub(super) fn place(&mut self, peer: Peer, told: Option<Duration>) -> bool {
        let measured = self.liveness.rtt(peer.id);
        let is_new = self.table.get(peer.id).is_none();
        let changed = self.table.insert(peer, measured.or(told));
        if let Some(rtt) = measured.filter(|_| is_new && changed) {
            self.neighbourhood.insert(peer, rtt);
            if told.is_none() && self.is_worth_a_place(peer.id) {
                self.proximity.gained += 1;
                // Being near is mutual: it need not measure what this node knows.
                self.tell(peer, Some(micros(rtt)), Vec::new(), None);
            }
        }
        changed
    }

    /// Rows of the routing table that messages go by: where a slot is no wider than a leaf set, that does.
    pub(super) fn rows_in_use(&self) -> usize {
        match self.proximity.outlook.rest.len() {
            0 => self.table.rows(),
            ahead => self.table.rows().min(ahead - 1),
        }
    }

    /// Whether messages go by the row in which this node would stand: for others no probe is spent.
    pub(super) fn is_worth_a_place(&self, id: NodeId) -> bool {
        self.me.id.key().shared_prefix(id) < self.rows_in_use()
    }

    /// Works out what messages have to expect.
    fn look_ahead(&mut self) {
        let half = self.config.leaf_set / 2;
        let ends = self.leaf_set.lefts().last().zip(self.leaf_set.rights().last());
        let span = ends.map_or(0, |(left, right)| left.id.key().clockwise_to(right.id));
        let spacing = span / (2 * half as u128);
        let leaf = mean(self.leaf_set.iter().filter_map(|peer| self.rtt(peer.id)).map(micros));
        let mut rest: Vec<u32> = Vec::new();
        for row in 0..self.table.rows() {
            rest.push(mean((0..BASE).filter_map(|col| self.table.slot(row, col).first()?.rtt_micros())));
            // Where a slot is no wider than a leaf set, it leads to a node whose leaf set has the root.
            if u128::MAX >> (4 * (row + 1)).min(127) < span {
                break;
            }
        }
        let mut ahead = leaf;
        for row in rest.iter_mut().rev() {
            ahead = ahead.saturating_add(*row);
            *row = ahead;
        }
        rest.push(leaf);
        self.proximity.outlook = Outlook {
            spacing,
            reach: spacing.saturating_mul(half as u128).saturating_mul(9) / 10,
            leaf,
            rest,
        };
    }
}

fn mean(micros: impl Iterator<Item = u32>) -> u32 {
    let (sum, count) = micros.fold((0_u64, 0), |(sum, count), each| (sum + u64::from(each), count + 1));
    sum.checked_div(count).unwrap_or_default() as u32
}

fn known(entry: &Entry) -> Known {
    Known { peer: entry.peer, rtt_micros: entry.rtt_micros() }
}

fn micros(rtt: Duration) -> u32 {
    u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX)
}

fn duration(micros: u32) -> Duration {
    Duration::from_micros(u64::from(micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Addr;
    use crate::table::RoutingTable;

    #[test]
    fn a_crowd_is_counted_once_each_and_forgotten() {
        let (mut crowd, period) = (Crowd::default(), Duration::from_secs(600));
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        for round in 0..3 {
            (0..300_u64).for_each(|n| crowd.note(at(round), NodeId(Key::hash(&n.to_le_bytes()).0), period));
        }
        assert!((270..330).contains(&crowd.count()), "{} of 300", crowd.count());
        crowd.note(at(700), NodeId(1), period);
        crowd.note(at(1400), NodeId(2), period);
        assert_eq!(crowd.count(), 2);
    }

    #[test]
    fn a_hop_that_saves_the_next_one_may_be_longer() {
        let key = Key(0x3f7a << 112);
        let outlook = Outlook { spacing: 1 << 96, reach: 1 << 100, leaf: 90, rest: vec![150, 140, 130, 90] };
        let proximity = Proximity { outlook, ..Proximity::default() };
        let mut table = RoutingTable::new(NodeId(0), 3);
        let place = |id: u128, rtt| (NodeId(id), Duration::from_micros(rtt));
        let [short, far, beside] =
            [place(0x30 << 120, 10), place(0x3f << 120, 40), place((0x3f7a << 112) + 5, 80)];
        for (id, rtt) in [short, far, beside] {
            table.insert(Peer { id, incarnation: 1, addr: Addr::Memory(0) }, Some(rtt));
        }
        let slot = table.next_hops(key);
        let cost = |id: NodeId| {
            slot.iter().find(|entry| entry.peer.id == id).map(|entry| proximity.cost(entry, key))
        };
        assert_eq!([short, far, beside].map(|(id, _)| cost(id)), [Some(150), Some(170), Some(125)]);
    }
}

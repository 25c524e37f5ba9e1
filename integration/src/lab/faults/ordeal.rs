//! One ring and one fault: what is done to it, how long until its promises hold again, and what its users saw.

use std::collections::BTreeMap;
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;

use super::catalogue::{Act, Fault};
use crate::lab::living::{LIMIT, Living, Tally};
use crate::lab::{Progress, Ring};
use crate::world::{Cut, CutId, Faults};

/// How long lookups go on before anything happens.
const CALM: Duration = Duration::from_secs(10);
/// How often the promises are looked at: the grain of what is said of them.
const LOOK: Duration = Duration::from_millis(100);
/// For how long they must hold to be said to hold again.
const HOLD: Duration = Duration::from_secs(10);
/// How long a ring is watched that does not come together, and so many bounds at least.
const PATIENCE: Duration = Duration::from_secs(120);
const BOUNDS: u32 = 2;
/// Lookups per node and second: ten times those of the churn experiments, to see more of a short time.
const RATE: f64 = 0.1;

/// What one fault did.
pub(super) struct Outcome {
    pub(super) fault: Fault,
    /// From the fault's end until O1 and O3 held, and kept holding; `None`: they did not.
    pub(super) recovered: Option<Duration>,
    /// What was wrong with the ring when it was looked at for the last time.
    pub(super) last_word: Option<String>,
    /// Time with two answers for one key: all of it, and what O1 does not excuse.
    pub(super) doubled: Duration,
    pub(super) unexcused: Duration,
    /// The first of those that are not excused.
    pub(super) breach: Option<String>,
    /// Share of the fault's time in which O1 and O3 held, of all nodes together.
    pub(super) whole: Option<f64>,
    pub(super) tally: Tally,
    /// Starts that failed and were tried again.
    pub(super) retried: u64,
    /// Nodes whose part of the ring changed, and of them those whose layer above was told.
    pub(super) changed: usize,
    pub(super) told: usize,
}

struct Ordeal<'a> {
    living: Living,
    fault: Fault,
    /// Of nodes that are cut off one by one.
    cuts: BTreeMap<u32, CutId>,
    retried: u64,
    next_lookup: Instant,
    next_look: Instant,
    dice: Rng,
    looks: Looks,
    progress: &'a Progress,
}

/// What was seen of the promises.
#[derive(Default)]
struct Looks {
    count: u64,
    well: u64,
    /// Since when they hold.
    since: Option<Instant>,
    last_word: Option<String>,
    doubled: u64,
    unexcused: u64,
    breach: Option<String>,
}

/// A node's neighbours, and how often the layer above was told of a change.
type Standings = BTreeMap<u32, ((NodeId, NodeId), u64)>;

/// Lets a fault happen to a grown ring, and watches it for some bounds' time.
pub(super) fn suffer(ring: Ring, fault: Fault, bound: Duration, progress: &Progress) -> (Ring, Outcome) {
    let living = Living::new(ring);
    let now = living.now();
    let ordeal = Ordeal {
        dice: living.ring.world.stream(&format!("lab/faults/{}", fault.name)),
        living,
        fault,
        cuts: BTreeMap::new(),
        retried: 0,
        next_lookup: now,
        next_look: now,
        looks: Looks::default(),
        progress,
    };
    ordeal.run(bound)
}

impl Ordeal<'_> {
    fn run(mut self, bound: Duration) -> (Ring, Outcome) {
        self.progress.phase(self.fault.name, (CALM + self.fault.lasts + bound).as_secs());
        self.pass(self.living.now() + CALM);
        let before = self.standings();
        self.looks = Looks::default();
        let begin = self.living.now();
        let leaf_set = self.living.ring.config.leaf_set;
        let script = self.fault.script(&self.living.roster, leaf_set, &mut self.dice);
        let (end, last) = (begin + self.fault.lasts, script.len() - 1);
        let (mut during, mut whole) = (before.clone(), None);
        for (n, (after, act)) in script.into_iter().enumerate() {
            self.pass(begin + after);
            if n == last {
                during = self.standings();
                whole = (self.looks.count > 0).then(|| self.looks.well as f64 / self.looks.count as f64);
            }
            self.act(act);
        }
        let recovered = self.recover(end, bound);
        let (first, second) = (changes(&before, &during), changes(&during, &self.standings()));
        self.await_answers();
        let outcome = Outcome {
            fault: self.fault,
            recovered,
            last_word: self.looks.last_word,
            doubled: LOOK * self.looks.doubled as u32,
            unexcused: LOOK * self.looks.unexcused as u32,
            breach: self.looks.breach,
            whole,
            tally: self.living.tally,
            retried: self.retried,
            changed: first.0 + second.0,
            told: first.1 + second.1,
        };
        (self.living.ring, outcome)
    }

    /// Waits until the promises hold and keep holding.
    fn recover(&mut self, end: Instant, bound: Duration) -> Option<Duration> {
        self.looks.since = None;
        let limit = end + PATIENCE.max(bound * BOUNDS);
        loop {
            let now = self.living.now();
            match self.looks.since {
                Some(since) if now - since >= HOLD => {
                    self.living.watch.merging = false;
                    return Some(since - end);
                }
                Some(_) => {}
                None if now >= limit => return None,
                None => {}
            }
            self.pass(now + LOOK);
        }
    }

    /// Nothing is asked any more.
    fn await_answers(&mut self) {
        self.next_lookup = Instant::from_nanos(u64::MAX);
        let end = self.living.now() + LIMIT + LOOK;
        while self.living.open() > 0 && self.living.now() < end {
            self.pass(self.living.now() + LOOK * 10);
        }
    }

    fn pass(&mut self, end: Instant) {
        while self.living.now() < end {
            let next = self.next_lookup.min(self.next_look).min(end);
            self.living.run_to(next);
            let now = self.living.now();
            for slot in std::mem::take(&mut self.living.failed) {
                self.retried += 1;
                self.living.join_again(slot);
            }
            if now >= self.next_lookup {
                self.living.look_up();
                let rate = RATE * self.living.roster.len().max(1) as f64;
                let wait = super::wait(&mut self.dice, Duration::from_secs_f64(1.0 / rate));
                self.next_lookup = now + wait;
            }
            if now >= self.next_look {
                self.look();
                self.next_look = now + LOOK;
            }
        }
    }

    fn look(&mut self) {
        let now = self.living.now();
        self.progress.at(now.as_nanos() / 1_000_000_000, format!("{} nodes", self.living.roster.len()));
        let breaches = self.living.breaches();
        let unexcused = breaches.iter().find(|(key, _)| !self.living.is_excused(*key));
        let word = breaches.first().map(|(_, what)| format!("O1: {what}"));
        let word = word.or_else(|| self.living.is_whole().err().map(|breach| breach.to_string()));
        let looks = &mut self.looks;
        looks.count += 1;
        looks.doubled += u64::from(!breaches.is_empty());
        looks.unexcused += u64::from(unexcused.is_some());
        if let (None, Some((_, what))) = (&looks.breach, unexcused) {
            looks.breach = Some(what.clone());
        }
        match word {
            None => {
                looks.well += 1;
                looks.since.get_or_insert(now);
            }
            Some(_) => looks.since = None,
        }
        looks.last_word = word;
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Part(sides) => {
                self.stand_apart(&sides);
                self.living.ring.world.cut(Cut::Sides(sides));
            }
            Act::OneWay(sides) => {
                self.stand_apart(&sides);
                let on = |side| (0..sides.len()).filter(|&slot| sides[slot] == side).collect();
                self.living.ring.world.cut(Cut::OneWay { from: on(1), to: on(0) });
            }
            Act::Isolate(slot, side) => {
                self.living.note_failure(slot);
                self.stand_on(slot, side);
                let cut = self.living.ring.world.cut(Cut::isolate(slot as usize));
                self.cuts.insert(slot, cut);
            }
            Act::Rejoin(slot) => {
                self.living.note_failure(slot);
                self.stand_on(slot, 0);
                self.living.watch.merging = true;
                if let Some(cut) = self.cuts.remove(&slot) {
                    self.living.ring.world.heal(cut);
                }
            }
            Act::Pairs(share, seed) => {
                self.living.ring.world.cut(Cut::pairs(share, seed));
            }
            Act::Loss(loss) => self.living.ring.world.set_faults(Faults { loss, ..Faults::default() }),
            Act::End => self.end(),
            Act::Crash(slots) => slots.into_iter().for_each(|slot| self.living.crash(slot)),
            Act::Pause(slots) => slots.into_iter().for_each(|slot| self.living.pause(slot)),
            Act::Resume(slots) => slots.into_iter().for_each(|slot| self.living.resume(slot)),
            Act::Jump(slots, by) => {
                slots.into_iter().for_each(|slot| self.living.jump_clock(slot, by));
            }
            Act::Drift(clocks) => {
                clocks
                    .into_iter()
                    .for_each(|(slot, ppm)| self.living.ring.world.set_drift(slot as usize, ppm));
            }
            Act::Join(Some(through)) => {
                self.living.join_through(&[through]);
            }
            Act::Join(None) => {
                self.living.join();
            }
        }
    }

    /// All is as it was, but for what happened meanwhile. Rings that were apart have until they are one again.
    fn end(&mut self) {
        let world = &mut self.living.ring.world;
        world.heal_all();
        world.set_faults(Faults::default());
        let slots: Vec<usize> = world.machines().map(|(slot, _)| slot).collect();
        if self.fault.has_clocks() {
            slots.into_iter().for_each(|slot| world.set_drift(slot, 0));
        }
        self.living.watch.merging = !self.living.watch.sides.is_empty();
        self.living.watch.sides.clear();
    }

    fn stand_apart(&mut self, sides: &[u8]) {
        self.living.watch.sides = sides.to_vec();
    }

    fn stand_on(&mut self, slot: u32, side: u8) {
        let sides = &mut self.living.watch.sides;
        sides.resize(sides.len().max(slot as usize + 1), 0);
        sides[slot as usize] = side;
    }

    /// How all nodes should stand now, each on its side, and what they were told so far. Who pauses for longer
    /// than its leases run stands nowhere.
    fn standings(&self) -> Standings {
        let waits = self.fault.lasts > self.living.ring.config.lease;
        let mut sides: BTreeMap<u8, Vec<(NodeId, u32)>> = BTreeMap::new();
        for (id, slot) in self.living.roster.iter() {
            if self.living.ring.world.is_running(slot as usize) || !waits {
                sides.entry(self.living.watch.side(slot as usize)).or_default().push((id, slot));
            }
        }
        let mut standings = Standings::new();
        for nodes in sides.into_values() {
            let count = nodes.len();
            for (at, &(_, slot)) in nodes.iter().enumerate() {
                let (left, right) = (nodes[(at + count - 1) % count].0, nodes[(at + 1) % count].0);
                let told = self.living.ring.stack(slot as usize).map_or(0, |stack| stack.moves());
                standings.insert(slot, ((left, right), told));
            }
        }
        standings
    }
}

/// Nodes that should have others for neighbours now, and of them those that were told of a change.
fn changes(before: &Standings, after: &Standings) -> (usize, usize) {
    let both = before.iter().filter_map(|(slot, was)| Some((was, after.get(slot)?)));
    let changed = both.filter(|(was, is)| was.0 != is.0);
    changed.fold((0, 0), |(changed, told), (was, is)| (changed + 1, told + usize::from(is.1 > was.1)))
}

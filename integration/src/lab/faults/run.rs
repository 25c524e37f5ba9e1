//! One ring and one fault: what is done to it, how long until its promises hold again, and what its users saw.

use std::collections::BTreeMap;
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;

use super::catalogue::Fault;
use crate::check::{o1, o3};
use crate::cluster::Cluster;
use crate::cluster::lookups::{LIMIT, LookupTally};
use crate::lab::Progress;
use crate::node::RingNode;
use crate::timeline::{Action, Timeline};

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

/// Effects of one fault.
pub(super) struct Recovery {
    pub(super) fault: Fault,
    /// From the fault's end until O1 and O3 held, and kept holding; `None`: they did not.
    pub(super) recovered: Option<Duration>,
    /// The fault of the ring when it was looked at for the last time.
    pub(super) last_word: Option<String>,
    /// Time with two answers for one key: all of it, and what O1 does not excuse.
    pub(super) doubled: Duration,
    pub(super) unexcused: Duration,
    /// The first of those that are not excused.
    pub(super) breach: Option<String>,
    /// Share of the fault's time in which O1 and O3 held, of all nodes together.
    pub(super) whole: Option<f64>,
    pub(super) tally: LookupTally,
    /// Starts that failed and were tried again.
    pub(super) retried: u64,
    /// Nodes whose part of the ring changed, and of them those whose layer above was told.
    pub(super) changed: usize,
    pub(super) told: usize,
}

struct FaultRun<'a, N: RingNode> {
    timeline: Timeline<N>,
    fault: Fault,
    retried: u64,
    next_lookup: Instant,
    next_look: Instant,
    dice: Rng,
    looks: Looks,
    progress: &'a Progress,
}

/// How the promises fared.
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
pub(super) fn suffer<N: RingNode>(
    mut cluster: Cluster<N>,
    fault: Fault,
    bound: Duration,
    progress: &Progress,
) -> (Cluster<N>, Recovery) {
    cluster.watch_lookups();
    let now = cluster.now();
    let run = FaultRun {
        dice: cluster.world.stream(&format!("lab/faults/{}", fault.name)),
        timeline: Timeline::new(cluster),
        fault,
        retried: 0,
        next_lookup: now,
        next_look: now,
        looks: Looks::default(),
        progress,
    };
    run.run(bound)
}

impl<N: RingNode> FaultRun<'_, N> {
    fn run(mut self, bound: Duration) -> (Cluster<N>, Recovery) {
        self.progress.phase(self.fault.name, (CALM + self.fault.lasts + bound).as_secs());
        self.pass(self.now() + CALM);
        let before = self.standings();
        self.looks = Looks::default();
        let begin = self.now();
        let end = begin + self.fault.lasts;
        let leaf_set = self.timeline.cluster.config.tables.leaf_set;
        let script = self.fault.script(&self.timeline.cluster.roster, leaf_set, &mut self.dice);
        let last = script.len() - 1;
        let mut during = (before.clone(), None);
        let mut lasts = false;
        for (n, (after, action, undone)) in script.into_iter().enumerate() {
            self.pass(begin + after);
            lasts |= undone;
            if n == last && !lasts {
                during = self.at_its_height();
            }
            // Nodes that are gone by now are not resumed, nor reached again.
            let _ = self.timeline.perform_until(end.as_nanos(), action);
        }
        if lasts {
            self.pass(end);
            during = self.at_its_height();
            self.timeline.end_all();
        }
        let recovered = self.recover(end, bound);
        let (during, whole) = during;
        let (first, second) = (changes(&before, &during), changes(&during, &self.standings()));
        self.await_answers();
        let outcome = Recovery {
            fault: self.fault,
            recovered,
            last_word: self.looks.last_word,
            doubled: LOOK * self.looks.doubled as u32,
            unexcused: LOOK * self.looks.unexcused as u32,
            breach: self.looks.breach,
            whole,
            tally: std::mem::take(&mut self.timeline.cluster.lookups.tally),
            retried: self.retried,
            changed: first.0 + second.0,
            told: first.1 + second.1,
        };
        (self.timeline.cluster, outcome)
    }

    fn now(&self) -> Instant {
        self.timeline.cluster.now()
    }

    /// How the nodes stand just before the fault's last deed, and the share of its time in which the promises held.
    fn at_its_height(&self) -> (Standings, Option<f64>) {
        let share = || self.looks.well as f64 / self.looks.count as f64;
        (self.standings(), (self.looks.count > 0).then(share))
    }

    /// Waits until the promises hold and keep holding.
    fn recover(&mut self, end: Instant, bound: Duration) -> Option<Duration> {
        self.looks.since = None;
        let limit = end + PATIENCE.max(bound * BOUNDS);
        loop {
            let now = self.now();
            match self.looks.since {
                Some(since) if now - since >= HOLD => {
                    self.timeline.cluster.watch.merging = false;
                    return Some(since - end);
                }
                None if now >= limit => return None,
                Some(_) | None => {}
            }
            self.pass(now + LOOK);
        }
    }

    /// Nothing is asked any more.
    fn await_answers(&mut self) {
        self.next_lookup = Instant::from_nanos(u64::MAX);
        let end = self.now() + LIMIT + LOOK;
        while !self.timeline.cluster.lookups.open.is_empty() && self.now() < end {
            self.pass(self.now() + LOOK * 10);
        }
    }

    fn pass(&mut self, end: Instant) {
        while self.now() < end {
            let next = self.next_lookup.min(self.next_look).min(end);
            self.timeline.cluster.run_to(next);
            let now = self.now();
            self.retried += self.timeline.cluster.retry_starts();
            if now >= self.next_lookup {
                // There is always some node to ask.
                let _ = self.timeline.perform(Action::LookUp(None));
                let rate = RATE * self.timeline.cluster.roster.len().max(1) as f64;
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
        let (now, cluster) = (self.now(), &self.timeline.cluster);
        self.progress.at(now.as_nanos() / 1_000_000_000, format!("{} nodes", cluster.roster.len()));
        let breaches = cluster.judge(&[], o1::breaches);
        let unexcused = breaches.iter().find(|(_, key, _)| !cluster.is_excused(*key));
        let word = breaches.first().map(|(_, _, what)| format!("O1: {what}"));
        let word = word.or_else(|| Some(cluster.judge(&[], o3::judge).err()?.to_string()));
        let looks = &mut self.looks;
        looks.count += 1;
        looks.doubled += u64::from(!breaches.is_empty());
        looks.unexcused += u64::from(unexcused.is_some());
        if let (None, Some((_, _, what))) = (&looks.breach, unexcused) {
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

    /// How all nodes should stand now, each on its side, and what they were told so far. A node that pauses for longer
    /// than its leases run stands nowhere.
    fn standings(&self) -> Standings {
        let cluster = &self.timeline.cluster;
        let waits = self.fault.lasts > cluster.config.leases.duration;
        let mut sides: BTreeMap<u8, Vec<(NodeId, u32)>> = BTreeMap::new();
        for (id, slot) in cluster.roster.iter() {
            if cluster.world.is_running(slot as usize) || !waits {
                sides.entry(cluster.watch.side(slot as usize)).or_default().push((id, slot));
            }
        }
        let mut standings = Standings::new();
        for nodes in sides.into_values() {
            let count = nodes.len();
            for (at, &(_, slot)) in nodes.iter().enumerate() {
                let (left, right) = (nodes[(at + count - 1) % count].0, nodes[(at + 1) % count].0);
                let told = cluster.world.machine(slot as usize).map_or(0, |stack| stack.moves());
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

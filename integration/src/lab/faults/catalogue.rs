//! What can go wrong with a ring, each by its name, and what that comes to on a ring of so many nodes.

use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;
use treecast_overlay::random::Rng;

use crate::lab::roster::Roster;

/// Pairs that cannot reach each other though others reach both (Freedman et al. 2005, PlanetLab; anchor P13).
const PAIRS: f64 = 0.023;
/// Share of the nodes that pauses, jumps and clogs strike.
const SOME: f64 = 0.1;
/// Most nodes that are cut off one by one: each stands on a side of its own, and sides are numbered by a byte.
const MOST_ALONE: usize = 200;
/// Fastest and slowest clocks: two of them differ by less than the 5 % for which leases allow (design §5).
const DRIFT_PPM: i32 = 24_000;
/// How far clocks jump: as when a laptop wakes.
const JUMP: Duration = Duration::from_secs(60);
/// Within which newcomers come when they come together.
const RUSH: Duration = Duration::from_secs(10);
/// Newcomers of a join storm, at most as many as there are nodes.
const STORM: usize = 1_000;

/// A fault of the catalogue.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    kind: Kind,
    /// How long it lasts; zero: it happens at one instant.
    pub(super) lasts: Duration,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Two halves, each node on either at random.
    Part,
    /// Likewise, but only the way from the one to the other is cut.
    OneWay,
    /// One node.
    Isolate,
    /// A share of all pairs.
    Pairs,
    /// Percent of all frames.
    Loss(u8),
    /// Percent of the nodes.
    Crash(u8),
    /// One whole side of somebody's leaf set: neighbours all.
    LeafSet,
    Pause,
    Jump,
    Drift,
    /// Nodes are cut off one by one, and come back in another order (FoundationDB).
    Swizzle,
    /// As many newcomers as there are nodes.
    Flash,
    /// A thousand newcomers through one node.
    Storm,
}

const fn fault(name: &'static str, kind: Kind, seconds: u64) -> Fault {
    Fault { name, kind, lasts: Duration::from_secs(seconds) }
}

/// The catalogue.
pub(super) const CATALOGUE: [Fault; 26] = [
    fault("partition-30s", Kind::Part, 30),
    fault("partition-5m", Kind::Part, 300),
    fault("one-way-30s", Kind::OneWay, 30),
    fault("one-way-5m", Kind::OneWay, 300),
    fault("isolation-30s", Kind::Isolate, 30),
    fault("isolation-5m", Kind::Isolate, 300),
    fault("non-transitive", Kind::Pairs, 300),
    fault("loss-1", Kind::Loss(1), 120),
    fault("loss-5", Kind::Loss(5), 120),
    fault("loss-10", Kind::Loss(10), 120),
    fault("loss-20", Kind::Loss(20), 120),
    fault("loss-30", Kind::Loss(30), 120),
    fault("crash-10", Kind::Crash(10), 0),
    fault("crash-30", Kind::Crash(30), 0),
    fault("crash-50", Kind::Crash(50), 0),
    fault("half-leaf-set", Kind::LeafSet, 0),
    fault("pause-1s", Kind::Pause, 1),
    fault("pause-10s", Kind::Pause, 10),
    fault("pause-1m", Kind::Pause, 60),
    fault("pause-10m", Kind::Pause, 600),
    fault("clock-jump", Kind::Jump, 0),
    fault("clock-drift", Kind::Drift, 300),
    fault("swizzle", Kind::Swizzle, 60),
    fault("flash-crowd", Kind::Flash, 10),
    fault("join-storm", Kind::Storm, 10),
    fault("crash-in-loss", Kind::Crash(30), 60),
];

/// Their names.
pub(super) fn names() -> [&'static str; CATALOGUE.len()] {
    CATALOGUE.map(|fault| fault.name)
}

/// What is done to the ring.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// The side of each slot.
    Part(Vec<u8>),
    /// Likewise; nothing from side 1 reaches side 0.
    OneWay(Vec<u8>),
    /// A node stands on a side of its own.
    Isolate(u32, u8),
    /// It is reached again.
    Rejoin(u32),
    /// A share of pairs, by a seed.
    Pairs(f64, u64),
    /// Cuts, loss and drift end.
    End,
    Loss(f64),
    Crash(Vec<u32>),
    Pause(Vec<u32>),
    Resume(Vec<u32>),
    Jump(Vec<u32>, Duration),
    Drift(Vec<(u32, i32)>),
    /// A newcomer, through this node or through any.
    Join(Option<u32>),
}

impl Fault {
    /// Whether clocks run at rates of their own while it lasts.
    pub(super) fn has_clocks(&self) -> bool {
        matches!(self.kind, Kind::Drift)
    }

    /// What is done when, from the fault's beginning on, in order.
    pub(super) fn script(&self, ring: &Roster, leaf_set: usize, dice: &mut Rng) -> Vec<(Duration, Act)> {
        let end = self.lasts;
        let at_once = |act| vec![(Duration::ZERO, act)];
        let until_end = |act| vec![(Duration::ZERO, act), (end, Act::End)];
        match self.kind {
            Kind::Part => until_end(Act::Part(sides(ring, dice))),
            Kind::OneWay => until_end(Act::OneWay(sides(ring, dice))),
            Kind::Isolate => {
                let slot = some(ring, 1, dice)[0];
                vec![(Duration::ZERO, Act::Isolate(slot, 1)), (end, Act::Rejoin(slot))]
            }
            Kind::Pairs => until_end(Act::Pairs(PAIRS, dice.random())),
            Kind::Loss(percent) => until_end(Act::Loss(f64::from(percent) / 100.0)),
            Kind::Crash(percent) => {
                let count = ring.len() * usize::from(percent) / 100;
                let crash = Act::Crash(some(ring, count.min(ring.len() - 2), dice));
                if end.is_zero() {
                    return at_once(crash);
                }
                // Whoever finds the dead must do so through loss.
                vec![(Duration::ZERO, Act::Loss(0.05)), (Duration::ZERO, crash), (end, Act::End)]
            }
            Kind::LeafSet => {
                let from = dice.random_range(0..ring.len());
                let side = (leaf_set / 2).min(ring.len() - 2);
                at_once(Act::Crash(ring.iter().cycle().skip(from).take(side).map(|(_, slot)| slot).collect()))
            }
            Kind::Pause => {
                let victims = some(ring, share(ring), dice);
                vec![(Duration::ZERO, Act::Pause(victims.clone())), (end, Act::Resume(victims))]
            }
            Kind::Jump => at_once(Act::Jump(some(ring, share(ring), dice), JUMP)),
            Kind::Drift => {
                let drift = |(_, slot)| (slot, dice.random_range(-DRIFT_PPM..=DRIFT_PPM));
                until_end(Act::Drift(ring.iter().map(drift).collect()))
            }
            Kind::Swizzle => swizzle(some(ring, share(ring).min(MOST_ALONE), dice), end, dice),
            Kind::Flash => rush(ring.len(), None),
            Kind::Storm => rush(STORM.min(ring.len()), ring.any(dice)),
        }
    }
}

fn share(ring: &Roster) -> usize {
    ((ring.len() as f64 * SOME) as usize).max(1)
}

/// So many nodes, in random order.
fn some(ring: &Roster, count: usize, dice: &mut Rng) -> Vec<u32> {
    let mut slots: Vec<u32> = ring.iter().map(|(_, slot)| slot).collect();
    slots.shuffle(dice);
    slots.truncate(count);
    slots
}

fn sides(ring: &Roster, dice: &mut Rng) -> Vec<u8> {
    let slots = ring.iter().map(|(_, slot)| slot as usize + 1).max().unwrap_or(0);
    (0..slots).map(|_| u8::from(dice.random::<bool>())).collect()
}

/// One by one in the first half of the time, and back one by one in the second.
fn swizzle(victims: Vec<u32>, time: Duration, dice: &mut Rng) -> Vec<(Duration, Act)> {
    let step = time / 2 / victims.len() as u32;
    let mut order = victims.clone();
    order.shuffle(dice);
    let clog = victims.into_iter().zip(1..).map(|(slot, n)| (step * (n - 1), Act::Isolate(slot, n as u8)));
    let unclog = order.into_iter().zip(1..).map(|(slot, n)| (time / 2 + step * n, Act::Rejoin(slot)));
    clog.chain(unclog).collect()
}

fn rush(count: usize, through: Option<u32>) -> Vec<(Duration, Act)> {
    let at = |n: usize| RUSH.mul_f64((n + 1) as f64 / count as f64);
    (0..count).map(|n| (at(n), Act::Join(through))).collect()
}

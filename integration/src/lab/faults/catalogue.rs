//! Faults of a ring, each by its name, and the actions that it comes to on a ring of so many nodes.

use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;
use treecast_overlay::random::Rng;

use crate::cluster::roster::Roster;
use crate::lab::swarm::DRIFT_PPM;
use crate::timeline::{Action, Split};
use crate::world::{Crash, Faults};

/// Pairs that cannot reach each other though others reach both (Freedman et al. 2005, PlanetLab; anchor P13).
const PAIRS: f64 = 0.023;
/// Share of the nodes that pauses, jumps and clogs strike.
const SOME: f64 = 0.1;
/// Most nodes that are cut off one by one: each stands on a side of its own, and sides are numbered by a byte.
const MOST_ALONE: usize = 200;
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
    kind: FaultKind,
    /// How long it lasts; zero: it happens at one instant.
    pub(super) lasts: Duration,
}

#[derive(Clone, Copy, Debug)]
enum FaultKind {
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

const fn fault(name: &'static str, kind: FaultKind, seconds: u64) -> Fault {
    Fault { name, kind, lasts: Duration::from_secs(seconds) }
}

/// The catalogue.
pub(super) const CATALOGUE: [Fault; 26] = [
    fault("partition-30s", FaultKind::Part, 30),
    fault("partition-5m", FaultKind::Part, 300),
    fault("one-way-30s", FaultKind::OneWay, 30),
    fault("one-way-5m", FaultKind::OneWay, 300),
    fault("isolation-30s", FaultKind::Isolate, 30),
    fault("isolation-5m", FaultKind::Isolate, 300),
    fault("non-transitive", FaultKind::Pairs, 300),
    fault("loss-1", FaultKind::Loss(1), 120),
    fault("loss-5", FaultKind::Loss(5), 120),
    fault("loss-10", FaultKind::Loss(10), 120),
    fault("loss-20", FaultKind::Loss(20), 120),
    fault("loss-30", FaultKind::Loss(30), 120),
    fault("crash-10", FaultKind::Crash(10), 0),
    fault("crash-30", FaultKind::Crash(30), 0),
    fault("crash-50", FaultKind::Crash(50), 0),
    fault("half-leaf-set", FaultKind::LeafSet, 0),
    fault("pause-1s", FaultKind::Pause, 1),
    fault("pause-10s", FaultKind::Pause, 10),
    fault("pause-1m", FaultKind::Pause, 60),
    fault("pause-10m", FaultKind::Pause, 600),
    fault("clock-jump", FaultKind::Jump, 0),
    fault("clock-drift", FaultKind::Drift, 300),
    fault("swizzle", FaultKind::Swizzle, 60),
    fault("flash-crowd", FaultKind::Flash, 10),
    fault("join-storm", FaultKind::Storm, 10),
    fault("crash-in-loss", FaultKind::Crash(30), 60),
];

/// Their names.
pub(super) fn names() -> [&'static str; CATALOGUE.len()] {
    CATALOGUE.map(|fault| fault.name)
}

/// Actions and their times, counted from the fault's beginning, and whether it is undone at the fault's end.
pub(super) type FaultScript = Vec<(Duration, Action, bool)>;

impl Fault {
    /// Returns the fault's actions, in order.
    pub(super) fn script(&self, ring: &Roster, leaf_set: usize, dice: &mut Rng) -> FaultScript {
        let end = self.lasts;
        let at_once = |action| vec![(Duration::ZERO, action, false)];
        let until_end = |action| vec![(Duration::ZERO, action, true)];
        let loss = |loss| Action::Weather(Faults { loss, ..Faults::default() });
        let crash = |slots| Action::Crash { slots, how: Crash::Power, of_root: false };
        match self.kind {
            FaultKind::Part | FaultKind::OneWay => {
                let one_way = matches!(self.kind, FaultKind::OneWay);
                until_end(Action::Sever(Split::Halves { sides: sides(ring, dice), one_way }))
            }
            FaultKind::Isolate => until_end(Action::Isolate(some(ring, 1, dice), 1)),
            FaultKind::Pairs => until_end(Action::Sever(Split::Pairs(PAIRS, dice.random()))),
            FaultKind::Loss(percent) => until_end(loss(f64::from(percent) / 100.0)),
            FaultKind::Crash(percent) => {
                let count = ring.len() * usize::from(percent) / 100;
                let crash = crash(some(ring, count.min(ring.len() - 2), dice));
                // In a fault that lasts, the dead must be found through loss.
                let lost = (!end.is_zero()).then(|| (Duration::ZERO, loss(0.05), true));
                lost.into_iter().chain([(Duration::ZERO, crash, false)]).collect()
            }
            FaultKind::LeafSet => {
                let from = dice.random_range(0..ring.len());
                let side = (leaf_set / 2).min(ring.len() - 2);
                let slots = ring.iter().cycle().skip(from).take(side);
                at_once(crash(slots.map(|(_, slot)| slot as usize).collect()))
            }
            FaultKind::Pause => until_end(Action::Pause(some(ring, share(ring), dice))),
            FaultKind::Jump => at_once(Action::JumpClock(some(ring, share(ring), dice), JUMP)),
            FaultKind::Drift => {
                let drift = |(_, slot)| (slot as usize, dice.random_range(-DRIFT_PPM..=DRIFT_PPM));
                until_end(Action::Drift(ring.iter().map(drift).collect()))
            }
            FaultKind::Swizzle => swizzle(some(ring, share(ring).min(MOST_ALONE), dice), end, dice),
            FaultKind::Flash => rush(ring.len(), None),
            FaultKind::Storm => rush(STORM.min(ring.len()), ring.any(dice)),
        }
    }
}

fn share(ring: &Roster) -> usize {
    ((ring.len() as f64 * SOME) as usize).max(1)
}

/// So many nodes, in random order.
fn some(ring: &Roster, count: usize, dice: &mut Rng) -> Vec<usize> {
    let mut slots: Vec<usize> = ring.iter().map(|(_, slot)| slot as usize).collect();
    slots.shuffle(dice);
    slots.truncate(count);
    slots
}

fn sides(ring: &Roster, dice: &mut Rng) -> Vec<u8> {
    let slots = ring.iter().map(|(_, slot)| slot as usize + 1).max().unwrap_or(0);
    (0..slots).map(|_| u8::from(dice.random::<bool>())).collect()
}

/// One by one in the first half of the time, and back one by one in the second.
fn swizzle(victims: Vec<usize>, time: Duration, dice: &mut Rng) -> FaultScript {
    let step = time / 2 / victims.len() as u32;
    let mut order = victims.clone();
    order.shuffle(dice);
    let clog = |(slot, n): (usize, u32)| (step * (n - 1), Action::Isolate(vec![slot], n as u8), false);
    let unclog = |(slot, n): (usize, u32)| (time / 2 + step * n, Action::Rejoin(vec![slot]), false);
    victims.into_iter().zip(1..).map(clog).chain(order.into_iter().zip(1..).map(unclog)).collect()
}

fn rush(count: usize, through: Option<u32>) -> FaultScript {
    let at = |n: usize| RUSH.mul_f64((n + 1) as f64 / count as f64);
    let through = through.map(|slot| vec![slot as usize]);
    (0..count).map(|n| (at(n), Action::Join(through.clone()), false)).collect()
}

//! The overlay in a world that does what it can to break it. Each test checks the promises all the time.
//!
//! `TREECAST_SWARM=100..200 cargo test --release -p treecast-integration --test overlay swarm` looks for faults by
//! other seeds than the committed ones.

use std::time::Duration;

use rand::RngExt;
use treecast_integration::case;
use treecast_integration::rings::Rings;
use treecast_integration::world::{self, Case, Crash, Faults};
use treecast_overlay::config::Config;
use treecast_overlay::kbr::Bootstrap;

const SECOND: Duration = Duration::from_secs(1);

fn rings(case: Case) -> Rings {
    Rings::new(case, world::Config::default(), Config::default())
}

/// `count` nodes that join within `within`, through the first one.
fn grow(rings: &mut Rings, count: usize, within: Duration) {
    rings.add(Bootstrap::default());
    rings.run(SECOND / 2);
    for _ in 1..count {
        rings.add(Rings::through(&[0]));
        rings.run(within / count as u32);
    }
}

#[test]
fn two_hundred_join_in_ten_seconds() {
    let mut rings = rings(case!("two_hundred_join_in_ten_seconds", 1));
    grow(&mut rings, 200, SECOND * 10);
    let took = rings.run_until_whole(SECOND * 60).unwrap_or_else(|late| panic!("{late}"));
    eprintln!("whole after {took:?}; {:?}", rings.tallies);
    assert_eq!(rings.ready().len(), 200, "{:?}", rings.tallies.failed_starts);
    rings.look_up_somewhere(200);
    rings.run_until_whole(SECOND * 10).unwrap_or_else(|late| panic!("{late}"));
    eprintln!("{:?}\n{}", rings.tallies, rings.world.counters());
}

/// What a seed of the swarm says.
struct Plan {
    nodes: usize,
    join_within: Duration,
    faults: Faults,
    crash_share: f64,
    power: bool,
    pauses: usize,
    restart: bool,
}

impl Plan {
    fn of(rings: &Rings) -> Plan {
        let mut dice = rings.world.stream("plan");
        let nodes = [2, 3, 5, 10, 20, 40, 80][dice.random_range(0..7)];
        Plan {
            nodes,
            join_within: Duration::from_millis(dice.random_range(0..=(nodes as u64 * 100))),
            faults: Faults {
                loss: [0.0, 0.01, 0.05, 0.1][dice.random_range(0..4)],
                duplication: [0.0, 0.05][dice.random_range(0..2)],
                reordering: [0.0, 0.1][dice.random_range(0..2)],
                reorder_by: Duration::from_millis(dice.random_range(10..3000)),
            },
            crash_share: [0.0, 0.1, 0.3][dice.random_range(0..3)],
            power: dice.random(),
            pauses: dice.random_range(0..=nodes / 4 + 1),
            restart: dice.random(),
        }
    }
}

fn torture(case: Case) -> Rings {
    let mut rings = rings(case);
    let plan = Plan::of(&rings);
    eprintln!(
        "{}: {} nodes within {:?}, {:?}, {} crash, power {}, {} pauses, restart {}",
        rings.world.case(),
        plan.nodes,
        plan.join_within,
        plan.faults,
        plan.crash_share,
        plan.power,
        plan.pauses,
        plan.restart
    );
    rings.world.set_faults(plan.faults);
    rings.add(Bootstrap::default());
    rings.run(SECOND / 2);
    for _ in 1..plan.nodes {
        let mut seeds = rings.some_ready(3);
        seeds.push(0);
        rings.add(Rings::through(&seeds));
        rings.run(plan.join_within / plan.nodes as u32);
    }
    rings.run(SECOND * 5);
    rings.run_until_whole(SECOND * 40).unwrap_or_else(|late| panic!("joins under loss: {late}"));
    let mut dice = rings.world.stream("torture");
    let crashed = rings.some_ready((plan.nodes as f64 * plan.crash_share).ceil() as usize);
    for &slot in &crashed {
        rings.crash(slot, if plan.power { Crash::Power } else { Crash::Process });
    }
    let mut paused = Vec::new();
    for round in 0..30 {
        rings.look_up_somewhere(3);
        if round < 20
            && paused.len() < plan.pauses
            && let Some(slot) = rings.any_ready()
        {
            rings.pause(slot);
            paused.push(slot);
        }
        if plan.restart && round == 10 {
            let seeds = rings.ready();
            for &slot in crashed.iter().filter(|_| !seeds.is_empty()) {
                rings.restart(slot, Rings::through(&seeds[..seeds.len().min(3)]));
            }
        }
        let wait = Duration::from_millis(dice.random_range(200..2000));
        rings.run(wait);
        // Paused for up to three times the lease.
        let wakes = !paused.is_empty() && dice.random_bool(0.3);
        if wakes || round >= 25 {
            for slot in paused.drain(..) {
                rings.resume(slot);
            }
        }
    }
    rings.world.set_faults(Faults::default());
    match rings.run_until_whole(SECOND * 90) {
        Ok(took) => eprintln!("whole after {took:?}; excused {}; {:?}", rings.excused, rings.tallies),
        Err(late) => panic!("{late}\n{:?}", rings.tallies),
    }
    assert_eq!(rings.tallies.not_found, 0, "each lookup is answered");
    assert!(rings.tallies.failed_starts.is_empty(), "{:?}", rings.tallies.failed_starts);
    rings
}

fn swarm_seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("TREECAST_SWARM") else { return 0..12 };
    let (from, to) = text.split_once("..").expect("TREECAST_SWARM=FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn swarm() {
    let mut failed = Vec::new();
    for seed in swarm_seeds() {
        let case = case!("swarm_seed", seed).with_seed(seed);
        if std::panic::catch_unwind(|| torture(case)).is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "seeds that fail: {failed:?}; one alone: TREECAST_SEED=… … swarm_seed");
}

#[test]
fn swarm_seed() {
    torture(case!("swarm_seed", 3));
}

//! `lab swarm`: many small worlds, everything in them drawn from a seed, all judges asked. Each finding is told with
//! the command that shows it again; what should have happened and never did makes the swarm fail, too.

mod draw;
mod plan;
mod run;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub(in crate::lab) use draw::DRIFT_PPM;
pub use plan::Plan;
pub(in crate::lab) use plan::spare_frames;
pub use run::SwarmRun;

use clap::{Args, ValueEnum};
use serde_json::json;

use treecast_overlay::pastry::Node;

use crate::check::s5;
use crate::cluster::Cluster;
use crate::lab::{Error, Progress, RingGeometry};
use crate::node::{FullNode, RingNode};
use crate::report::{Figures, Report};
use crate::timeline::DONE;
pub use crate::timeline::Deed;
use crate::world::{Case, Topology};

/// Seeds of a range from which on every event must have occurred.
pub const ENOUGH: u64 = 100;
/// Seeds of a range from which on those must have occurred, too, that happen but once in two hundred.
pub const ENOUGH_FOR_RARE: u64 = 2000;

/// Events that happen but once in two hundred seeds (measured: 9 to 15 starts fail in 2,000).
const RARE: [&str; 1] = ["failed start"];

/// Kinds of worlds; like all that plans do ([`DONE`]), it must happen somewhere in a large enough range.
const WORLDS: [&str; 7] = [
    "world that reorders",
    "world with jitter",
    "world with spurious timeouts",
    "world whose turns end late",
    "world with a latency matrix",
    "world larger than what a node knows",
    "world that spares frames",
];

/// Consequences, some of them rare; they must happen, too.
pub const NOTICED: [&str; 17] = [
    "root change",
    "birth that is not complete",
    "complete birth",
    "receipt with fewer copies",
    "receipt from another log",
    "rejoin",
    "merge",
    "demotion",
    "gap",
    "new parent",
    "unknown outcome",
    "failed start",
    "push-down",
    "splice",
    "lost frame",
    "doubled frame",
    "hop by the routing table",
];

/// The deeds that make an event happen, one of them alone; of what is not listed here, the world itself, or much together.
fn causes(event: &str) -> &'static [Deed] {
    use Deed::*;
    match event {
        "crash of a process" => &[CrashProcess, CrashSeveral, CrashRoot],
        "power failure" => &[CrashPower, CrashSeveral, CrashRoot],
        "crash of a root" => &[CrashRoot],
        "restart" | "rejoin" => &[Restart],
        "leave" => &[Leave],
        "pause" => &[Pause],
        "isolation" => &[Isolate, Blink],
        "cut between two" => &[Part],
        "one-way cut" => &[Deafen],
        "late join" => &[Join],
        "edge node" => &[JoinEdge],
        "late subscription" => &[Subscribe],
        "end of a subscription" => &[Unsubscribe],
        "stalled application" => &[Stall],
        "burst" => &[Burst],
        "merge" => &[Isolate],
        "slow node" => &[Slow],
        "clock drift" => &[Drift],
        "clock jump" => &[JumpClock],
        "limited uplink" => &[Throttle],
        "non-transitive pairs" => &[Pairs],
        "cut between ring neighbours" => &[PartNeighbours],
        "partition of several" => &[PartMany],
        "world with a latency matrix" => &[Matrix],
        "world larger than what a node knows" | "hop by the routing table" => &[Sparse],
        "world that spares frames" => &[Thrifty],
        _ => &[],
    }
}

/// Options of `lab swarm`.
#[derive(Args, Clone, Debug)]
pub struct SwarmOptions {
    /// Seeds to run: A..B, B excluded. From 100 on, every kind of fault and event must have occurred
    #[arg(long, value_name = "A..B", default_value = "0..200", value_parser = parse_seeds)]
    pub seeds: (u64, u64),
    #[command(flatten)]
    choice: Choice,
}

/// Worlds of one seed.
#[derive(Args, Clone, Debug, Default)]
pub struct Choice {
    /// Deeds that are left out of every plan: to find out which of them a fault needs
    #[arg(long, value_name = "DEED,..", value_enum, value_delimiter = ',')]
    pub without: Vec<Deed>,
    /// The ring's tables
    #[arg(long, value_enum, default_value_t)]
    pub geometry: RingGeometry,
}

fn parse_seeds(text: &str) -> Result<(u64, u64), String> {
    let bounds = text.split_once("..").map(|(from, to)| (from.trim().parse(), to.trim().parse()));
    match bounds {
        Some((Ok(from), Ok(to))) if from < to => Ok((from, to)),
        Some((Ok(_), Ok(_))) => Err("the range is empty: the first seed must be smaller".to_string()),
        Some(_) | None => Err("two numbers are expected, such as 0..200".to_string()),
    }
}

/// Runs the range.
pub fn run(options: &SwarmOptions, progress: &Progress) -> Result<Report, Error> {
    let (from, to) = options.seeds;
    let begin = std::time::Instant::now();
    let findings = run_seeds(from, to, &options.choice, progress);
    Ok(findings.report(options, begin.elapsed()))
}

/// The outcome of one seed.
#[derive(Clone, Debug, Default)]
pub struct SeedOutcome {
    /// The broken promise, if one is.
    pub fault: Option<String>,
    /// How often what happened.
    pub events: BTreeMap<&'static str, u64>,
    /// Steps of the world.
    pub steps: u64,
    /// Its hash.
    pub trace_hash: String,
}

/// Outcomes of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Seeds that were run.
    pub seeds: u64,
    /// Seeds with faults, by seed.
    pub faults: BTreeMap<u64, String>,
    /// How often what happened, over all.
    pub events: BTreeMap<&'static str, u64>,
    /// Steps of all worlds.
    pub steps: u64,
}

impl Findings {
    fn add(&mut self, seed: u64, outcome: SeedOutcome) {
        self.seeds += 1;
        self.steps += outcome.steps;
        for (event, times) in outcome.events {
            *self.events.entry(event).or_default() += times;
        }
        if let Some(fault) = outcome.fault {
            self.faults.insert(seed, fault);
        }
    }

    /// The swarm's report: each fault with the command that shows it again, and how often what happened.
    fn report(&self, options: &SwarmOptions, took: std::time::Duration) -> Report {
        let (from, to) = options.seeds;
        let again = |seed: u64| options.choice.command(seed);
        let told = |(seed, fault): (&u64, &String)| format!("seed {seed}: {fault}\n    {}", again(*seed));
        let mut faults: Vec<String> = self.faults.iter().map(told).collect();
        faults.extend(
            self.missing(&options.choice)
                .into_iter()
                .map(|event| format!("in {} seeds not one: {event}", self.seeds)),
        );
        let mut figures = Figures::of(&json!({ "experiment": "swarm", "seeds": format!("{from}..{to}") }));
        for (event, times) in &self.events {
            figures.tell(*event, times.to_string());
        }
        figures.set("runs", self.seeds);
        figures.set("faults", &self.faults);
        figures.set("missing", self.missing(&options.choice));
        figures.set("events", &self.events);
        figures.set_cost(self.steps, took);
        let (seeds, steps, with_faults) = (self.seeds, self.steps, self.faults.len());
        Report {
            experiment: "swarm",
            conditions: vec![("seeds", format!("{from}..{to}"))],
            notes: vec![format!("{seeds} seeds, {steps} steps in {took:.1?}; {with_faults} with faults")],
            faults,
            ..Report::default()
        }
        .with(figures)
    }

    /// Events that should have happened and never did; nothing if there were too few seeds to say. An event
    /// that only deeds cause that are left out need not happen.
    pub fn missing(&self, choice: &Choice) -> Vec<&'static str> {
        let can = |event: &&'static str| {
            let causes = causes(event);
            // Where every node knows every node there is nothing else to route by.
            let by_table = *event != "hop by the routing table" || choice.geometry == RingGeometry::Pastry;
            by_table && (causes.is_empty() || causes.iter().any(|deed| !choice.without.contains(deed)))
        };
        let never = |event: &&'static str| self.events.get(*event).is_none_or(|times| *times == 0);
        let enough =
            |event: &&'static str| self.seeds >= if RARE.contains(event) { ENOUGH_FOR_RARE } else { ENOUGH };
        WORLDS.into_iter().chain(DONE).chain(NOTICED).filter(enough).filter(can).filter(never).collect()
    }
}

impl Choice {
    /// The command that shows a seed again.
    pub fn command(&self, seed: u64) -> String {
        let mut command =
            format!("cargo run --release -p treecast-integration --bin lab -- replay --seed {seed}");
        let name = |deed: &Deed| Some(deed.to_possible_value()?.get_name().to_string());
        let names: Vec<String> = self.without.iter().filter_map(name).collect();
        if !names.is_empty() {
            command.push_str(&format!(" --without {}", names.join(",")));
        }
        if self.geometry == RingGeometry::Full {
            command.push_str(" --geometry full");
        }
        command
    }

    /// One seed's run, about to begin.
    pub fn prepare<N: RingNode>(&self, seed: u64) -> SwarmRun<N> {
        SwarmRun::new(Case::of_command(&self.command(seed), seed), Plan::without(seed, &self.without))
    }

    /// Runs one seed to its end. A panic is a fault, too.
    pub fn run_seed(&self, seed: u64) -> SeedOutcome {
        match self.geometry {
            RingGeometry::Pastry => run_prepared(self.prepare::<Node>(seed)),
            RingGeometry::Full => run_prepared(self.prepare::<FullNode>(seed)),
        }
    }
}

/// Runs one seed of a Pastry ring to its end.
pub fn run_seed(seed: u64, without: &[Deed]) -> SeedOutcome {
    Choice { without: without.to_vec(), ..Choice::default() }.run_seed(seed)
}

/// Runs it to its end, and says how it went.
pub fn run_prepared<N: RingNode>(mut run: SwarmRun<N>) -> SeedOutcome {
    let fault = run_to_the_end(&mut run);
    outcome(&run, fault)
}

/// The broken promise, if one is.
fn run_to_the_end<N: RingNode>(run: &mut SwarmRun<N>) -> Option<String> {
    let verdict = catch_unwind(AssertUnwindSafe(|| run.run()));
    match verdict {
        Ok(Ok(())) => None,
        Ok(Err(breach)) => Some(breach.to_string()),
        Err(panic) => Some(format!("panic: {}", words(panic.as_ref()))),
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// How often what happened in a world.
pub fn events<N: RingNode>(cluster: &Cluster<N>) -> BTreeMap<&'static str, u64> {
    let witness = cluster.witness.borrow();
    let mut events = cluster.events.clone();
    events.extend(witness.moves.iter().map(|(&why, &times)| (why, times)));
    let forced = witness.ledger.all().filter(|known| known.complete == Some(false)).count() as u64;
    let births = witness.ledger.all().filter(|known| !known.lineage.ancestors().is_empty()).count() as u64;
    let unforced = cluster.judge(&[], s5::unforced_gaps);
    let receipts = || {
        let outcomes = cluster.history.publications.values().filter_map(|offered| offered.outcome.as_ref());
        outcomes.filter_map(|(_, outcome)| outcome.as_ref().ok())
    };
    let copies =
        |counts: &dyn Fn(u32) -> bool| receipts().filter(|receipt| counts(receipt.copies)).count() as u64;
    let total = cluster.world.counters().total();
    events.extend([
        ("birth that is not complete", forced),
        ("complete birth", births - forced),
        ("unforced gap", unforced),
        ("receipt with all copies", copies(&|copies| copies >= cluster.copies())),
        ("receipt with fewer copies", copies(&|copies| copies < cluster.copies())),
        ("lost frame", total.vanished),
        ("doubled frame", total.doubled),
        ("excused fault of O1", cluster.watch.excused.get()),
        ("lookup", cluster.lookups.tally.answered),
        ("delivery", cluster.history.deliveries()),
        ("receipt from another log", s5::astray(&cluster.history, &witness.ledger)),
        ("publication", cluster.history.publications.len() as u64),
    ]);
    events
}

/// The outcome of a run.
fn outcome<N: RingNode>(run: &SwarmRun<N>, fault: Option<String>) -> SeedOutcome {
    let (world, plan) = (&run.timeline.cluster.world, &run.plan);
    let mut events = events(&run.timeline.cluster);
    events.extend([
        ("world that reorders", u64::from(plan.weather.reordering > 0.0)),
        ("world with jitter", u64::from(plan.network.jitter > 0.0)),
        ("world with spurious timeouts", u64::from(plan.network.spurious_timeouts > 0.0)),
        ("world whose turns end late", u64::from(plan.network.late_turns > 0.0)),
        ("world with a latency matrix", u64::from(matches!(plan.network.topology, Topology::Matrix(_)))),
        ("world larger than what a node knows", u64::from(plan.is_sparse())),
        ("world that spares frames", u64::from(plan.is_thrifty())),
    ]);
    SeedOutcome { fault, events, steps: world.steps(), trace_hash: world.trace_hash() }
}

/// Runs a range of seeds, on as many threads as there are processors; goes on after a fault.
pub fn run_seeds(from: u64, to: u64, choice: &Choice, progress: &Progress) -> Findings {
    let next = AtomicU64::new(from);
    let findings = Mutex::new(Findings::default());
    progress.phase("swarm", to.saturating_sub(from));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        break;
                    }
                    let outcome = choice.run_seed(seed);
                    let mut findings = findings.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    findings.add(seed, outcome);
                    progress.at(findings.seeds, format!("{} faults", findings.faults.len()));
                }
            });
        }
    });
    findings.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

//! `lab faults`: the catalogue of what networks, clocks and crowds do to a ring. Each fault has a ring of its
//! own, on which lookups go on; what counts is how long until promises O1 and O3 hold again, and what was
//! answered meanwhile.

mod catalogue;
mod run;

use std::time::Duration;

use clap::Args;
use clap::builder::PossibleValuesParser;
use treecast_overlay::pastry::Node;

use self::catalogue::{CATALOGUE, Fault, names};
use self::run::Recovery;
use super::churn::wait;
use super::growth::grow;
use super::run::Run;
use super::stats::Samples;
use super::{Error, Progress, Setting};
use crate::report::{Figures, Report, Sheet};

/// Nodes of each ring unless said otherwise.
const NODES: u32 = 1_000;

/// Partitions, loss, crashes, pauses, clocks, crowds: how long until the ring is one again, and what was wrong
/// meanwhile
#[derive(Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct FaultsOptions {
    #[command(flatten)]
    setting: Setting,
    /// Only these faults of the catalogue
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    #[arg(value_parser = PossibleValuesParser::new(names()))]
    only: Vec<String>,
    /// Later than so many seconds after a fault is too late [default: 30, or four leases if that is longer]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    bound: Option<u64>,
}

const HELP: &str = "Each fault has a ring of its own (1,000 nodes unless said otherwise) and 0.1 lookups a second for
each node, from 10 s before it until all is well:
  partition, one-way   each node stands on one of two sides at random; nothing passes, or nothing from one to
             the other
  isolation            one node, from all others
  non-transitive       2.3 % of all pairs, for 5 min, drawn by the seed; all others reach both
  loss-N               N % of all frames, for 2 min
  crash-N              N % of the nodes lose power at once; crash-in-loss: 30 %, with 5 % of frames lost for a
             minute
  half-leaf-set        all nodes of one side of somebody's leaf set lose power at once: neighbours all
  pause-T              a tenth of the nodes stop, all at once, and go on after T
  clock-jump           the clocks of a tenth of the nodes jump ahead by a minute
  clock-drift          all clocks run up to 2.4 % too slow or too fast, for 5 min
  swizzle              a tenth of the nodes (200 at most) are cut off one by one within 30 s, and come back one
                       by one in another order within 30 s (after FoundationDB's)
  flash-crowd          as many newcomers as there are nodes, within 10 s;  join-storm: 1,000 (at most so many as
                       there are nodes) through one node
What is said of each:
  recovered  from its end (a crash, a jump: from its instant; newcomers: from the last one's start) until
             promises O1 and O3 held and kept holding for 10 s: each border between two nodes has one root at
             most, the closest, and all who live are on one ring, each with its neighbours and their leases;
             looked at every 100 ms
  bound      30 s, or four leases if that is longer: later than that is a fault
  whole      share of the fault's time in which they held, of all nodes together
  wrong      lookups that were answered wrongly, as in lab churn, each side of a cut by itself; excused by O1:
             after a cut, until the ring is one again; and around keys where more than half of a side of a leaf
             set had failed
  doubled    time in which some border had two roots;  unexcused: of it, what O1 does not excuse
  lost       lookups that were not answered within 60 s, though their origin lived and was not paused
  told       nodes whose neighbours changed, at the fault's end or after it, and of them those whose layer above
             heard it";

impl FaultsOptions {
    fn nodes(&self) -> usize {
        self.setting.nodes.unwrap_or(NODES) as usize
    }

    /// How long a ring may take. 30 s is the promise of issue 4, with leases of 4 s; those of 30 s must have
    /// ended, too.
    fn bound(&self) -> Result<Duration, Error> {
        let usual = Duration::from_secs(30).max(self.setting.ring()?.leases.duration * 4);
        Ok(self.bound.map_or(usual, Duration::from_secs))
    }

    /// The command that shows one fault again.
    fn command(&self, fault: &Fault) -> String {
        let Setting { seed, profile, .. } = &self.setting;
        let topology = self.setting.topology();
        let given = |name: &str, value: Option<String>| {
            value.map_or(String::new(), |value| format!(" --{name} {value}"))
        };
        let leaf_set = given("leaf-set", self.setting.leaf_set.map(|size| size.to_string()));
        let known = given("full-membership", self.setting.full_membership.map(|nodes| nodes.to_string()));
        let bound = given("bound", self.bound.map(|seconds| seconds.to_string()));
        format!(
            "cargo run --release -p treecast-integration --bin lab -- faults --nodes {} --only {} --seed {seed} \
             --profile {profile} --topology {topology} --settle {}{leaf_set}{known}{bound}",
            self.nodes(),
            fault.name,
            self.setting.settle
        )
    }
}

/// Lets each fault happen to a ring of its own.
pub fn run(options: &FaultsOptions, progress: &Progress) -> Result<Report, Error> {
    let setting = &options.setting;
    let topology = setting.topology();
    let bound = options.bound()?;
    let wanted =
        |fault: &&Fault| options.only.is_empty() || options.only.iter().any(|name| name == fault.name);
    let (mut runs, mut faults, mut report) = (Vec::new(), Vec::new(), Report::default());
    for fault in CATALOGUE.iter().filter(wanted) {
        let mut grown = grow::<Node>(setting, options.nodes(), topology.clone(), progress)?;
        let (cluster, outcome) = run::suffer(grown.cluster, *fault, bound, progress);
        grown.cluster = cluster;
        runs.push(Run::of("faults", setting, &grown));
        report.faults.extend(broken(&outcome, bound, &options.command(fault)));
        faults.push(figures(&outcome, bound, options.command(fault)));
    }
    let Some(run) = Run::of_all(runs) else {
        return Err(Error::Usage("--only: no fault is left".to_string()));
    };
    let run = Run { nodes: options.nodes(), ..run };
    let mut figures = Figures::of(&run);
    figures.set("bound_s", bound.as_secs_f64());
    report = Report { faults: report.faults, ..run.report() };
    report.conditions.push(("bound", format!("{} s", bound.as_secs_f64())));
    report.sheets = vec![sheet(&faults)];
    figures.rows = faults.iter().flat_map(|fault| fault.rows.clone()).collect();
    figures.set("faults", faults.into_iter().map(|fault| fault.json).collect::<Vec<_>>());
    Ok(report.with(figures))
}

/// Figures of one fault.
fn figures(outcome: &Recovery, bound: Duration, command: String) -> Figures {
    let Recovery { fault, tally, recovered, .. } = outcome;
    let (took, mut figures) = (Samples::new(tally.took_ms.clone()), Figures::default());
    let (doubled, unexcused) = (outcome.doubled.as_secs_f64(), outcome.unexcused.as_secs_f64());
    let whole = outcome.whole.map_or("-".to_string(), |share| format!("{:.1} %", share * 100.0));
    let recovery = match recovered.map(|time| time.as_secs_f64()) {
        Some(time) if time <= bound.as_secs_f64() => format!("{time:.1} s"),
        Some(time) => format!("{time:.1} s: TOO LATE"),
        None => "NOT AGAIN".to_string(),
    };
    let ours = format!(
        "{recovery}; whole {whole}; of {} lookups wrong {} (excused {}), lost {}; two roots {doubled:.1} s \
         (unexcused {unexcused:.1} s); told {} of {}",
        tally.asked, tally.wrong, tally.excused, tally.lost, outcome.told, outcome.changed,
    );
    figures.tell(fault.name, ours);
    figures.set("name", fault.name);
    figures.set("lasts_s", fault.lasts.as_secs_f64());
    figures.set("recovered_s", recovered.map(|time| time.as_secs_f64()));
    figures.set("held", recovered.is_some_and(|time| time <= bound));
    figures.set("whole", outcome.whole);
    figures.set("lookups", tally.asked);
    figures.set("wrong", tally.wrong);
    figures.set("wrong_excused", tally.excused);
    figures.set("lost", tally.lost);
    figures.set("lost_reasons", &tally.reasons);
    figures.set("abandoned", tally.abandoned);
    figures.set("took_ms_p99", took.quantile(0.99));
    figures.set("took_ms_max", took.max());
    figures.set("doubled_s", doubled);
    figures.set("unexcused_s", unexcused);
    figures.set("joins_retried", outcome.retried);
    figures.set("changed", outcome.changed);
    figures.set("told", outcome.told);
    figures.set("command", command);
    figures
}

/// The promises that a fault broke.
fn broken(outcome: &Recovery, bound: Duration, command: &str) -> Vec<String> {
    let Recovery { fault, tally, .. } = outcome;
    let (mut broken, name, lookups) = (Vec::new(), fault.name, tally.asked);
    let last = outcome.last_word.as_deref().unwrap_or("the last look found nothing wrong");
    match outcome.recovered {
        None => broken.push(format!("{name}: O1 and O3 did not hold again: {last}")),
        Some(time) if time > bound => {
            let (time, bound) = (time.as_secs_f64(), bound.as_secs_f64());
            broken.push(format!("{name}: O1 and O3 held again after {time:.1} s, the bound is {bound} s"));
        }
        Some(_) => {}
    }
    if tally.wrong > tally.excused {
        let words = tally.words.iter().find(|words| !words.ends_with("(excused)"));
        let wrong = tally.wrong - tally.excused;
        broken.push(format!("{name}: O1: {wrong} of {lookups} lookups were answered wrongly: {words:?}"));
    }
    if let Some(breach) = &outcome.breach {
        broken.push(format!("{name}: O1: for {:.1} s: {breach}", outcome.unexcused.as_secs_f64()));
    }
    if tally.lost > 0 {
        let (lost, reasons) = (tally.lost, &tally.reasons);
        broken.push(format!("{name}: O4: {lost} of {lookups} lookups were lost: {reasons:?}"));
    }
    if !broken.is_empty() {
        broken.push(format!("{name}: again with: {command}"));
    }
    broken
}

fn sheet(faults: &[Figures]) -> Sheet {
    let columns = vec![
        "place_in_report",
        "lasts_s",
        "recovered_s",
        "whole",
        "lookups",
        "wrong",
        "wrong_excused",
        "lost",
        "doubled_s",
        "unexcused_s",
    ];
    let row = |(at, fault): (usize, &Figures)| {
        let numbers = columns[1..].iter().map(|key| fault.number(key).unwrap_or(f64::NAN));
        std::iter::once(at as f64).chain(numbers).collect()
    };
    Sheet { name: "faults", rows: faults.iter().enumerate().map(row).collect(), columns }
}

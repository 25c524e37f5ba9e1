//! Silent failures, and a ring's recovery: nodes lose power at once, lookups go on, and the tables are repaired.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::seq::SliceRandom;
use serde_json::{Map, Value};

use super::growth::leave_alone;
use super::lookups::{Keys, Part, evenly};
use super::routing::Sight;
use super::stats::Samples;
use super::{Progress, lookups};
use crate::cluster::Cluster;
use crate::cluster::lookups::millis;
use crate::node::RingNode;
use crate::report::{Axis, Figures, Kind, Plot, Report, Row, Series, Sheet};
use crate::world::Crash;

/// How long the usual upkeep is counted before the failure.
const REST: Duration = Duration::from_secs(60);
/// Lookups launched so long after the failure meet the tables as they were.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How long the ring has for its repair.
const REPAIR: Duration = Duration::from_secs(120);
/// Frames of lookups; all others are upkeep, by which nodes find each other dead and fill the gaps.
const LOOKUPS: [&str; 3] = ["routed/lookup", "hop_ack", "direct/answer"];

/// Frames by kind.
type Upkeep = BTreeMap<&'static str, f64>;

/// A second after the failure, by the lookups launched in it.
#[derive(Clone, Debug, Default)]
struct RecoverySecond {
    hops: u64,
    answered: u64,
    took_ms: Vec<f32>,
}

/// A failure, and the lookups before, meanwhile and afterwards.
pub(super) struct Failure {
    percent: u8,
    failed: usize,
    at_once: Sight,
    repaired: Sight,
    seconds: Vec<RecoverySecond>,
    /// Per failed node.
    messages: Upkeep,
}

impl Failure {
    /// Lets `percent` of the nodes lose power, and looks things up meanwhile and afterwards.
    pub(super) fn suffer<N: RingNode>(
        cluster: &mut Cluster<N>,
        percent: u8,
        keys: Keys,
        count: u64,
        progress: &Progress,
    ) -> Failure {
        let before = upkeep(cluster);
        leave_alone(cluster, REST, progress);
        let rest = REST.as_secs_f64() * cluster.roster.by_id().len() as f64;
        let usual: Upkeep =
            above(cluster, &before, |_| 0.0).into_iter().map(|(kind, sent)| (kind, sent / rest)).collect();
        let failed = victims(cluster, percent);
        failed.iter().for_each(|&slot| cluster.crash(slot as usize, Crash::Power));
        let (begin, before) = (cluster.world.now(), upkeep(cluster));
        let mut at_once = Sight::default();
        let mut seconds = vec![RecoverySecond::default(); REPAIR.as_secs() as usize];
        let counts = lookups::look_up(
            cluster,
            &plan(count, cluster.roster.by_id().len()),
            keys,
            "recovering",
            progress,
            |answered| {
                let since = answered.asked - begin;
                if since < AT_ONCE {
                    at_once.note(answered);
                }
                if let Some(second) = seconds.get_mut(since.as_secs() as usize) {
                    second.answered += 1;
                    second.hops += answered.hops as u64;
                    second.took_ms.push(millis(answered.took));
                }
            },
        );
        at_once.counts = counts;
        let lived = (cluster.world.now() - begin).as_secs_f64() * cluster.roster.by_id().len() as f64;
        let mut messages = above(cluster, &before, |kind| usual.get(kind).unwrap_or(&0.0) * lived);
        messages.values_mut().for_each(|sent| *sent /= failed.len() as f64);
        let nodes = cluster.roster.by_id().len();
        let repaired = Sight::see(cluster, &evenly(count, nodes), keys, "repaired", progress);
        Failure { percent, failed: failed.len(), at_once, repaired, seconds, messages }
    }

    /// Adds what it found. Returns it for programs.
    pub(super) fn add_to(
        &self,
        report: &mut Report,
        rows: &mut Vec<Row>,
        before: &Sight,
    ) -> Map<String, Value> {
        let anchor = "P5 pub, 5,000 nodes, 10 %";
        let p99 = |sight: &Sight| sight.took().quantile(0.99);
        let mut figures = Figures::default();
        figures.set("percent", self.percent);
        figures.set("failed", self.failed);
        figures.show("hops_before", "hops before the failure", before.hops.mean()).beside("2.73", anchor);
        figures.show("hops_unrepaired", "hops, unrepaired", self.at_once.hops.mean()).beside("2.96", anchor);
        figures.show("hops_repaired", "hops, repaired", self.repaired.hops.mean()).beside("2.74", anchor);
        figures.set("lookups_unrepaired", self.at_once.hops.count());
        figures.set("lookups_repaired", self.repaired.hops.count());
        figures.show("took_p99_before_ms", "answer, 99 %, ms: before", p99(before));
        figures.show("took_p99_unrepaired_ms", "answer, 99 %, ms: unrepaired", p99(&self.at_once));
        figures.show("took_p99_repaired_ms", "answer, 99 %, ms: repaired", p99(&self.repaired));
        let messages: f64 = self.messages.values().sum();
        figures.show("messages_per_failed_node", "messages per failed node", messages);
        figures.set("messages_per_failed_node_by_kind", &self.messages);
        rows.append(&mut figures.rows);
        report.faults.extend(self.at_once.counts.faults("lookups during recovery"));
        report.faults.extend(self.repaired.counts.faults("lookups after repair"));
        let seconds = self.by_second();
        report.plots.push(hops_plot(&seconds, before.hops.mean().unwrap_or(0.0)));
        report.plots.push(delay_plot(&seconds));
        report.sheets.push(Sheet {
            name: "recovery",
            columns: vec!["seconds_since_failure", "hops_mean", "took_p50_ms", "took_p99_ms", "lookups"],
            rows: seconds.into_iter().map(Vec::from).collect(),
        });
        figures.json
    }

    /// RecoverySecond, mean hops, delay's median and 99 %, lookups.
    fn by_second(&self) -> Vec<[f64; 5]> {
        let known = self.seconds.iter().enumerate().filter(|(_, second)| second.answered > 0);
        let row = |(at, second): (usize, &RecoverySecond)| {
            let took = Samples::new(second.took_ms.clone());
            let hops = second.hops as f64 / second.answered as f64;
            let [p50, p99] = [0.5, 0.99].map(|q| took.quantile(q).unwrap_or(f64::NAN));
            [at as f64, hops, p50, p99, second.answered as f64]
        };
        known.map(row).collect()
    }
}

/// At once as many lookups as there are nodes; then fewer, while the ring repairs itself.
fn plan(count: u64, nodes: usize) -> Vec<Part> {
    let burst = (count as f64).min(nodes as f64) / AT_ONCE.as_secs_f64();
    let then = (nodes as f64 / 10.0).max(100.0);
    vec![Part { time: AT_ONCE, rate: burst }, Part { time: REPAIR - AT_ONCE, rate: then.min(burst) }]
}

fn victims<N: RingNode>(cluster: &Cluster<N>, percent: u8) -> Vec<u32> {
    let mut slots: Vec<u32> = cluster.roster.by_id().iter().map(|&(_, slot)| slot).collect();
    slots.shuffle(&mut cluster.world.stream("lab/failure"));
    // Two stay whatever happens: a ring needs them.
    slots.truncate((slots.len() * usize::from(percent) / 100).min(slots.len() - 2));
    slots
}

fn upkeep<N: RingNode>(cluster: &Cluster<N>) -> Upkeep {
    let kinds = cluster.world.counters().by_kind().filter(|(kind, _)| !LOOKUPS.contains(kind));
    kinds.map(|(kind, tally)| (kind, tally.sent as f64)).collect()
}

/// Frames that were sent since `before`, less those that would have been sent anyway.
fn above<N: RingNode>(cluster: &Cluster<N>, before: &Upkeep, anyway: impl Fn(&str) -> f64) -> Upkeep {
    let now = upkeep(cluster).into_iter();
    now.map(|(kind, sent)| (kind, sent - before.get(kind).unwrap_or(&0.0) - anyway(kind))).collect()
}

fn hops_plot(seconds: &[[f64; 5]], before: f64) -> Plot {
    let hops = seconds.iter().map(|second| (second[0], second[1])).collect();
    Plot {
        name: "recovery_hops",
        title: "Hops after a silent failure".to_string(),
        x: Axis::of("seconds since the failure"),
        y: Axis::of("mean hops of lookups launched in that second"),
        series: vec![
            Series::new("Treecast", Kind::Line, hops),
            Series::new(
                "before the failure",
                Kind::Dashed,
                vec![(0.0, before), (REPAIR.as_secs_f64(), before)],
            ),
        ],
    }
}

fn delay_plot(seconds: &[[f64; 5]]) -> Plot {
    let line = |column: usize| seconds.iter().map(|second| (second[0], second[column])).collect();
    Plot {
        name: "recovery_delay",
        title: "Time to answer after a silent failure".to_string(),
        x: Axis::of("seconds since the failure"),
        y: Axis { logarithmic: true, ..Axis::of("time to the answer, ms") },
        series: vec![Series::new("99 %", Kind::Line, line(3)), Series::new("median", Kind::Line, line(2))],
    }
}

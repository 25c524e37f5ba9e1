//! The figures of one run under churn, and how they are told.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Options;
use super::life::{Seen, Window};
use crate::cluster::passages::Traffic;
use crate::lab::charts;
use crate::lab::run::{Run, show};
use crate::lab::stats::Samples;
use crate::report::{Axis, Kind, Plot, Report, Row, Series, Sheet};

/// For the JSON.
#[derive(Clone, Serialize)]
pub(super) struct Fields {
    #[serde(flatten)]
    pub(super) run: Run,
    pub(super) trace: String,
    pub(super) session_median_min: f64,
    pub(super) loss_percent: f64,
    /// Rings that shared the lookups.
    worlds: u8,
    /// Virtual seconds that were measured, in all worlds together.
    measured_s: f64,
    /// Mean of the nodes that lived.
    live_mean: f64,
    arrivals: u64,
    crashes: u64,
    joins_retried: u64,
    pub(super) lookups: u64,
    pub(super) lost: u64,
    lost_reasons: BTreeMap<&'static str, u64>,
    pub(super) wrong: u64,
    wrong_excused: u64,
    abandoned: u64,
    pub(super) lost_rate: f64,
    pub(super) wrong_rate: f64,
    pub(super) stretch_mean: Option<f64>,
    stretch_p50: Option<f64>,
    stretch_p99: Option<f64>,
    way_stretch_mean: Option<f64>,
    took_ms_p99: Option<f64>,
    took_ms_max: Option<f64>,
    pub(super) control_msgs_per_node_s: f64,
    pub(super) control_bytes_per_node_s: f64,
    control_by_kind: BTreeMap<&'static str, Rate>,
    probes_per_node_s: BTreeMap<&'static str, f64>,
    lookup_msgs_per_node_s: f64,
    unclaimed_ms_p50: Option<f64>,
    pub(super) unclaimed_ms_p99: Option<f64>,
    unclaimed_ms_max: Option<f64>,
    never_claimed: usize,
    unserved: f64,
    neighbours_right: f64,
    pub(super) ring_correct: bool,
}

/// Per live node and second.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rate {
    msgs_per_node_s: f64,
    bytes_per_node_s: f64,
    /// Of the messages, those that did not arrive: to the dead, or lost.
    unheard_per_node_s: f64,
}

impl Fields {
    pub(super) fn of(run: Run, options: &Options, seen: &Seen) -> Fields {
        let tally = &seen.tally;
        let each = |count: u64| count as f64 / seen.node_seconds;
        let by_kind = |(&kind, load): (&&'static str, &Traffic)| {
            let unheard = seen.control.unheard.get(kind).copied().unwrap_or(0);
            let rate = Rate {
                msgs_per_node_s: each(load.frames),
                bytes_per_node_s: each(load.bytes),
                unheard_per_node_s: each(unheard),
            };
            (kind, rate)
        };
        let share = |(all, some): (u64, u64)| some as f64 / all.max(1) as f64;
        let of_lookups = |count: u64| count as f64 / tally.asked.max(1) as f64;
        let stretch = Samples::new(tally.stretch.clone());
        let (unclaimed, took) = (seen.unclaimed(), Samples::new(tally.took_ms.clone()));
        Fields {
            run,
            trace: format!("{:?}", options.trace).to_lowercase(),
            session_median_min: options.session_median,
            loss_percent: options.loss,
            worlds: options.worlds,
            measured_s: seen.seconds,
            live_mean: seen.node_seconds / seen.seconds,
            arrivals: seen.arrivals,
            crashes: seen.crashes,
            joins_retried: seen.retried,
            lookups: tally.asked,
            lost: tally.lost,
            lost_reasons: tally.reasons.clone(),
            wrong: tally.wrong,
            wrong_excused: tally.excused,
            abandoned: tally.abandoned,
            lost_rate: of_lookups(tally.lost),
            wrong_rate: of_lookups(tally.wrong),
            stretch_mean: stretch.mean(),
            stretch_p50: stretch.median(),
            stretch_p99: stretch.quantile(0.99),
            way_stretch_mean: Samples::new(tally.way_stretch.clone()).mean(),
            took_ms_p99: took.quantile(0.99),
            took_ms_max: took.max(),
            control_msgs_per_node_s: each(seen.control.all.frames),
            control_bytes_per_node_s: each(seen.control.all.bytes),
            control_by_kind: seen.control.kinds.iter().map(by_kind).collect(),
            probes_per_node_s: seen.control.probes.iter().map(|(&name, &n)| (name, each(n))).collect(),
            lookup_msgs_per_node_s: each(seen.control.lookups.frames),
            unclaimed_ms_p50: unclaimed.median(),
            unclaimed_ms_p99: unclaimed.quantile(0.99),
            unclaimed_ms_max: unclaimed.max(),
            never_claimed: seen.never_claimed,
            unserved: share(seen.keys),
            neighbours_right: share(seen.standing),
            ring_correct: seen.ring.is_ok(),
        }
    }

    /// What broke a promise. What was lost is a figure.
    pub(super) fn faults(&self, seen: &Seen) -> Vec<String> {
        let mut faults = Vec::new();
        if self.wrong > self.wrong_excused {
            let (wrong, lookups) = (self.wrong - self.wrong_excused, self.lookups);
            let words = seen.tally.words.join("; ");
            faults.push(format!("O1: {wrong} of {lookups} lookups were answered wrongly: {words}"));
        }
        faults.extend(seen.ring.clone().err().map(|breach| format!("{breach} (65 s after the churn ended)")));
        if self.never_claimed > 0 {
            faults.push(format!("{} ranges of dead nodes were never taken over", self.never_claimed));
        }
        faults
    }
}

impl Seen {
    fn unclaimed(&self) -> Samples {
        Samples::new(self.unclaimed_ms.clone())
    }
}

/// A rate that may be a millionth.
pub(super) fn small(rate: f64) -> String {
    if rate == 0.0 { "0".to_string() } else { format!("{rate:.1e}") }
}

pub(super) fn report(fields: &Fields, seen: &Seen) -> Report {
    let mut report = fields.run.report();
    report.conditions.extend([
        ("sessions", format!("{}, median {} min", fields.trace, fields.session_median_min)),
        ("loss", format!("{} %", fields.loss_percent)),
        ("measured", format!("{:.0} s", fields.measured_s)),
        ("worlds", fields.worlds.to_string()),
    ]);
    report.rows = rows(fields);
    report.rows.extend(control_rows(fields));
    report.faults = fields.faults(seen);
    report.sheets = vec![
        charts::cumulative_sheet("unclaimed", &seen.unclaimed()),
        charts::cumulative_sheet("took", &Samples::new(seen.tally.took_ms.clone())),
        timeline(&seen.windows),
    ];
    report.plots = vec![unclaimed_plot(fields, seen), control_plot(fields, seen)];
    report.json = serde_json::to_string(fields).expect("figures are numbers, texts and lists");
    report
}

fn rows(fields: &Fields) -> Vec<Row> {
    let anchor = "P8 mem, Gnutella trace, 2,000 nodes; without loss / at 5 %";
    let whole = if fields.ring_correct { "yes" } else { "NO" };
    let lost = format!("{} ({})", fields.lost, small(fields.lost_rate));
    let wrong = format!("{}, {} ({})", fields.wrong, fields.wrong_excused, small(fields.wrong_rate));
    vec![
        Row::ours("nodes that lived, mean", show(fields.live_mean)),
        Row::ours("arrivals, crashes", format!("{}, {}", fields.arrivals, fields.crashes)),
        Row::ours("starts that failed, tried again", fields.joins_retried.to_string()),
        Row::ours("lookups", fields.lookups.to_string()),
        Row::ours("lost", lost).beside("1.6e-5 / 3.3e-5 (unverified)", anchor),
        Row::ours("wrong, of them excused", wrong).beside("0 / 1.6e-5 (unverified)", anchor),
        Row::ours("origin died before the answer", fields.abandoned.to_string()),
        Row::ours("stretch, waiting included, mean", show(fields.stretch_mean))
            .beside("1.80 (unverified)", "P9 mem, transit-stub; P7 pub: under 2"),
        Row::ours("… median", show(fields.stretch_p50)),
        Row::ours("… 99 %", show(fields.stretch_p99)),
        Row::ours("stretch of the way alone, mean", show(fields.way_stretch_mean)),
        Row::ours("answer, ms: 99 %", show(fields.took_ms_p99)),
        Row::ours("… max", show(fields.took_ms_max)),
        Row::ours("unclaimed, ms: median", show(fields.unclaimed_ms_p50)),
        Row::ours("… 99 %", show(fields.unclaimed_ms_p99))
            .beside("up to 50,000", "P11 pub, FreePastry, leases of 30 s"),
        Row::ours("… max", show(fields.unclaimed_ms_max)),
        Row::ours("share of keys that nobody serves", small(fields.unserved)),
        Row::ours("share of nodes with the right neighbours", show(fields.neighbours_right)),
        Row::ours("one ring at the end", whole),
        Row::ours("control, messages/s/node", show(fields.control_msgs_per_node_s))
            .beside("0.245 (unverified)", "P9 mem; P7 pub: under 0.5"),
        Row::ours("control, bytes/s/node", show(fields.control_bytes_per_node_s)),
        Row::ours("lookups, messages/s/node", show(fields.lookup_msgs_per_node_s)),
    ]
}

/// Where control goes, most frames first.
fn control_rows(fields: &Fields) -> Vec<Row> {
    let mut kinds: Vec<(&str, Rate)> =
        fields.control_by_kind.iter().map(|(&kind, &rate)| (kind, rate)).collect();
    kinds.sort_by(|(_, a), (_, b)| b.msgs_per_node_s.total_cmp(&a.msgs_per_node_s));
    let row = |(kind, rate): (&str, Rate)| {
        let kind = if kind == "routed/lookup" { "routed/lookup, repeated hops" } else { kind };
        let Rate { msgs_per_node_s, bytes_per_node_s, unheard_per_node_s } = rate;
        let ours =
            format!("{msgs_per_node_s:.4} ({unheard_per_node_s:.4} unheard), {bytes_per_node_s:.1} bytes");
        Row::ours(format!("  {kind}"), ours)
    };
    let purpose = |(name, rate): (&&str, &f64)| Row::ours(format!("    {name}"), format!("{rate:.4}"));
    kinds.into_iter().map(row).chain(fields.probes_per_node_s.iter().map(purpose)).collect()
}

fn timeline(windows: &[Window]) -> Sheet {
    Sheet {
        name: "timeline",
        columns: vec!["seconds", "live", "control_msgs_per_node_s", "lost", "wrong"],
        rows: windows
            .iter()
            .map(|w| vec![w.at_s, w.live, w.frames_per_node_s, w.lost as f64, w.wrong as f64])
            .collect(),
    }
}

fn unclaimed_plot(fields: &Fields, seen: &Seen) -> Plot {
    let unclaimed = seen.unclaimed();
    let p99 = fields.unclaimed_ms_p99.unwrap_or(0.0);
    Plot {
        name: "unclaimed",
        title: "How long a dead node's range is nobody's".to_string(),
        x: Axis::of("milliseconds since the crash"),
        y: charts::shares("share of crashes up to it"),
        series: vec![
            Series::new("Treecast", Kind::Line, unclaimed.cumulative()),
            Series::new(&format!("99 %: {p99:.0} ms"), Kind::Dashed, charts::upright(p99)),
        ],
    }
}

fn control_plot(fields: &Fields, seen: &Seen) -> Plot {
    let points = seen.windows.iter().map(|w| (w.at_s, w.frames_per_node_s)).collect();
    let (mean, end) = (fields.control_msgs_per_node_s, fields.measured_s / f64::from(fields.worlds));
    Plot {
        name: "control",
        title: "Control traffic under churn".to_string(),
        x: Axis::of("seconds since the measurement began"),
        y: Axis::of("control messages per node and second"),
        series: vec![
            Series::new("Treecast", Kind::Line, points),
            Series::new(
                "MSPastry, Gnutella trace (unverified)",
                Kind::Dashed,
                vec![(0.0, 0.245), (end, 0.245)],
            ),
            Series::new(&format!("mean: {mean:.2}"), Kind::Dashed, vec![(0.0, mean), (end, mean)]),
        ],
    }
}

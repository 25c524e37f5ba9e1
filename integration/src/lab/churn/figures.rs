//! The figures of one run under churn, and how they are told.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ChurnOptions;
use super::life::{Observed, Window};
use crate::cluster::passages::Traffic;
use crate::lab::charts;
use crate::lab::run::Run;
use crate::lab::stats::Samples;
use crate::report::{Axis, Figures, Kind, Plot, Report, Series, Sheet};

/// Per live node and second.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rate {
    msgs_per_node_s: f64,
    bytes_per_node_s: f64,
    /// Of the messages, those that did not arrive: to the dead, or lost.
    unheard_per_node_s: f64,
}

/// Figures of one run.
pub(super) fn figures(run: &Run, options: &ChurnOptions, seen: &Observed) -> Figures {
    let mut figures = Figures::of(run);
    figures.set("trace", format!("{:?}", options.trace).to_lowercase());
    figures.set("session_median_min", options.session_median);
    figures.set("loss_percent", options.loss);
    figures.set("worlds", options.worlds);
    figures.set("measured_s", seen.seconds);
    figures.show("live_mean", "nodes that lived, mean", seen.node_seconds / seen.seconds);
    figures.tell("arrivals, crashes", format!("{}, {}", seen.arrivals, seen.crashes));
    figures.set("arrivals", seen.arrivals);
    figures.set("crashes", seen.crashes);
    figures.count("joins_retried", "starts that failed, tried again", seen.retried);
    add_lookups(&mut figures, seen);
    add_ring(&mut figures, seen);
    add_control(&mut figures, seen);
    figures
}

fn add_lookups(figures: &mut Figures, seen: &Observed) {
    let (tally, anchor) = (&seen.tally, "P8 mem, Gnutella trace, 2,000 nodes; without loss / at 5 %");
    let rate = |count: u64| count as f64 / tally.asked.max(1) as f64;
    let (lost_rate, wrong_rate) = (rate(tally.lost), rate(tally.wrong));
    figures.count("lookups", "lookups", tally.asked);
    let lost = format!("{} ({})", tally.lost, small(lost_rate));
    figures.tell("lost", lost).beside("1.6e-5 / 3.3e-5 (unverified)", anchor);
    let wrong = format!("{}, {} ({})", tally.wrong, tally.excused, small(wrong_rate));
    figures.tell("wrong, of them excused", wrong).beside("0 / 1.6e-5 (unverified)", anchor);
    figures.set("lost", tally.lost);
    figures.set("lost_reasons", &tally.reasons);
    figures.set("wrong", tally.wrong);
    figures.set("wrong_excused", tally.excused);
    figures.set("lost_rate", lost_rate);
    figures.set("wrong_rate", wrong_rate);
    figures.count("abandoned", "origin died before the answer", tally.abandoned);
    let (stretch, took) = (Samples::new(tally.stretch.clone()), Samples::new(tally.took_ms.clone()));
    figures
        .show("stretch_mean", "stretch, waiting included, mean", stretch.mean())
        .beside("1.80 (unverified)", "P9 mem, transit-stub; P7 pub: under 2");
    figures.show("stretch_p50", "… median", stretch.median());
    figures.show("stretch_p99", "… 99 %", stretch.quantile(0.99));
    let way = Samples::new(tally.way_stretch.clone());
    figures.show("way_stretch_mean", "stretch of the way alone, mean", way.mean());
    figures.show("took_ms_p99", "answer, ms: 99 %", took.quantile(0.99));
    figures.show("took_ms_max", "… max", took.max());
}

fn add_ring(figures: &mut Figures, seen: &Observed) {
    let (unclaimed, share) = (seen.unclaimed(), |(all, some): (u64, u64)| some as f64 / all.max(1) as f64);
    figures.show("unclaimed_ms_p50", "unclaimed, ms: median", unclaimed.median());
    figures
        .show("unclaimed_ms_p99", "… 99 %", unclaimed.quantile(0.99))
        .beside("up to 50,000", "P11 pub, FreePastry, leases of 30 s");
    figures.show("unclaimed_ms_max", "… max", unclaimed.max());
    figures.set("never_claimed", seen.never_claimed);
    figures.set("unserved", share(seen.keys));
    figures.tell("share of keys that nobody serves", small(share(seen.keys)));
    let name = "share of nodes with the right neighbours";
    figures.show("neighbours_right", name, share(seen.node_state));
    figures.set("ring_correct", seen.ring.is_none());
    figures.tell("one ring at the end", if seen.ring.is_none() { "yes" } else { "NO" });
}

/// The cost of upkeep, and its parts, most frames first.
fn add_control(figures: &mut Figures, seen: &Observed) {
    let (control, each) = (&seen.control, |count: u64| count as f64 / seen.node_seconds);
    figures
        .show("control_msgs_per_node_s", "control, messages/s/node", each(control.all.frames))
        .beside("0.245 (unverified)", "P9 mem; P7 pub: under 0.5");
    figures.show("control_bytes_per_node_s", "control, bytes/s/node", each(control.all.bytes));
    let lookups = each(control.lookups.frames);
    figures.show("lookup_msgs_per_node_s", "lookups, messages/s/node", lookups);
    let rate = |(&kind, load): (&&'static str, &Traffic)| {
        let unheard = control.unheard.get(kind).copied().unwrap_or(0);
        let rate = Rate {
            msgs_per_node_s: each(load.frames),
            bytes_per_node_s: each(load.bytes),
            unheard_per_node_s: each(unheard),
        };
        (kind, rate)
    };
    let by_kind: BTreeMap<&str, Rate> = control.kinds.iter().map(rate).collect();
    figures.set("control_by_kind", &by_kind);
    let mut kinds: Vec<(&str, Rate)> = by_kind.into_iter().collect();
    kinds.sort_by(|(_, a), (_, b)| b.msgs_per_node_s.total_cmp(&a.msgs_per_node_s));
    for (kind, Rate { msgs_per_node_s, bytes_per_node_s, unheard_per_node_s }) in kinds {
        let kind = if kind == "routed/lookup" { "routed/lookup, repeated hops" } else { kind };
        let ours =
            format!("{msgs_per_node_s:.4} ({unheard_per_node_s:.4} unheard), {bytes_per_node_s:.1} bytes");
        figures.tell(format!("  {kind}"), ours);
    }
    let probes: BTreeMap<&str, f64> = control.probes.iter().map(|(&name, &n)| (name, each(n))).collect();
    for (name, rate) in &probes {
        figures.tell(format!("    {name}"), format!("{rate:.4}"));
    }
    figures.set("probes_per_node_s", probes);
}

/// Broken promises. Lost lookups are a figure.
pub(super) fn faults(seen: &Observed) -> Vec<String> {
    let (mut faults, tally) = (Vec::new(), &seen.tally);
    if tally.wrong > tally.excused {
        let (wrong, lookups) = (tally.wrong - tally.excused, tally.asked);
        let words = tally.words.join("; ");
        faults.push(format!("O1: {wrong} of {lookups} lookups were answered wrongly: {words}"));
    }
    faults.extend(seen.ring.as_ref().map(|breach| format!("{breach} (65 s after the churn ended)")));
    if seen.never_claimed > 0 {
        faults.push(format!("{} ranges of dead nodes were never taken over", seen.never_claimed));
    }
    faults
}

impl Observed {
    fn unclaimed(&self) -> Samples {
        Samples::new(self.unclaimed_ms.clone())
    }
}

/// A rate that may be a millionth.
pub(super) fn small(rate: f64) -> String {
    if rate == 0.0 { "0".to_string() } else { format!("{rate:.1e}") }
}

pub(super) fn report(options: &ChurnOptions, run: &Run, figures: Figures, seen: &Observed) -> Report {
    let mut report = run.report();
    let trace = format!("{:?}", options.trace).to_lowercase();
    report.conditions.extend([
        ("sessions", format!("{trace}, median {} min", options.session_median)),
        ("loss", format!("{} %", options.loss)),
        ("measured", format!("{:.0} s", seen.seconds)),
        ("worlds", options.worlds.to_string()),
    ]);
    report.faults = faults(seen);
    report.sheets = vec![
        charts::cumulative_sheet("unclaimed", &seen.unclaimed()),
        charts::cumulative_sheet("took", &Samples::new(seen.tally.took_ms.clone())),
        timeline(&seen.windows),
    ];
    let mean = figures.number("control_msgs_per_node_s").unwrap_or(0.0);
    report.plots = vec![unclaimed_plot(seen), control_plot(mean, f64::from(options.worlds), seen)];
    report.with(figures)
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

fn unclaimed_plot(seen: &Observed) -> Plot {
    let unclaimed = seen.unclaimed();
    let p99 = unclaimed.quantile(0.99).unwrap_or(0.0);
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

fn control_plot(mean: f64, worlds: f64, seen: &Observed) -> Plot {
    let points = seen.windows.iter().map(|w| (w.at_s, w.frames_per_node_s)).collect();
    let end = seen.seconds / worlds;
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

//! `lab routing`: hops, stretch and correctness of lookups, the quality of the tables, the cost of joins; and, with
//! `--fail`, what silent failures do to all that (Pastry §3).

use clap::Args;
use treecast_overlay::id::NodeId;
use treecast_overlay::pastry::Node;

use super::failure::Failure;
use super::growth::grow;
use super::ideal::{Ideal, IdealLookups};
use super::lookups::{Answered, Counts, Keys, Part, evenly, look_up};
use super::run::Run;
use super::stats::{Histogram, Samples};
use super::tables::{self, Level};
use super::{Error, Progress, RingGeometry, Setting, charts};
use crate::cluster::Cluster;
use crate::cluster::lookups::millis;
use crate::node::{FullNode, RingNode};
use crate::report::{Axis, Figures, Kind, Plot, Report, Series, Sheet};

/// Bins of direct latency in which stretch is averaged.
const BINS: usize = 40;
/// Lookups over ideal tables: they are computed, a second's worth.
const IDEAL_LOOKUPS: usize = 4_000;
/// Shares of 1 to 5 hops at N = 100,000, b = 4, L = 16 (Pastry, Figure 5; anchor P1).
const PASTRY_SHARES: [f64; 5] = [0.0006, 0.0156, 0.1643, 0.6449, 0.1745];

/// Traced lookups: hops, stretch, correctness, the tables' quality, the cost of joins
#[derive(Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct RoutingOptions {
    #[command(flatten)]
    setting: Setting,
    /// How many lookups; 200,000 for 100,000 nodes, and fewer in proportion, but 10,000 at least
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    lookups: Option<u64>,
    /// This share of the nodes loses power at once, without a word; hops are measured before, at once, and after repair
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=90))]
    fail: Option<u8>,
    /// The ring's tables
    #[arg(long, value_enum, default_value_t)]
    geometry: RingGeometry,
    /// The kind of keys
    #[arg(long, value_enum, default_value_t = Keys::Random)]
    keys: Keys,
}

const HELP: &str = "What is measured:
  hops       of the lookup's message in the overlay, from the asking node to the root; 0 if it is the root itself
  hops_share share of the lookups by hops, from 0 on
  stretch    latencies of a lookup's hops, together, over the latency of the direct way; the mean is that of the
             pairs' ratios; pairs on one router, and nodes that ask for what is their own, are left out
  *_ideal    of the same ring over ideal tables: each slot holds the nearest node that fits
  wrong      answered by another node than the closest one that lives, by the knowledge of all
  lost       not answered within 65 s
  join_messages_mean    frames per join, acknowledgements included, until a second after the newcomer is ready
  suboptimal_per_level  for each row of the routing table, from the first on: entries of a node for which a node
             exists whose latency is less than 1/1.1 of the entry's; mean of 200 nodes
  in_degree  in how many nodes' routing tables a node stands
  --fail     unrepaired: lookups launched in the first second; repaired: after 120 s; messages per failed node: frames in
             those 120 s above what is usual, but for those of the lookups, over the nodes that failed";

/// All that lookups showed.
#[derive(Default)]
pub(super) struct Sight {
    pub(super) counts: Counts,
    pub(super) hops: Histogram,
    /// Direct latency in ms, and the stretch.
    pairs: Vec<(f32, f32)>,
    took_ms: Vec<f32>,
}

impl Sight {
    /// Looks things up, and takes note of all.
    pub(super) fn see<N: RingNode>(
        cluster: &mut Cluster<N>,
        plan: &[Part],
        keys: Keys,
        name: &str,
        progress: &Progress,
    ) -> Sight {
        let mut sight = Sight::default();
        let counts = look_up(cluster, plan, keys, name, progress, |answered| sight.note(answered));
        Sight { counts, ..sight }
    }

    pub(super) fn note(&mut self, answered: &Answered) {
        self.hops.add(answered.hops);
        self.took_ms.push(millis(answered.took));
        if let (Some(way), Some(direct)) = (answered.way, answered.direct.filter(|direct| !direct.is_zero()))
        {
            let ratio = (way.as_secs_f64() / direct.as_secs_f64()) as f32;
            self.pairs.push((millis(direct), ratio));
        }
    }

    /// Until the answer, in milliseconds.
    pub(super) fn took(&self) -> Samples {
        Samples::new(self.took_ms.clone())
    }
}

/// Grows a ring, looks things up, and says how that went.
pub fn run(options: &RoutingOptions, progress: &Progress) -> Result<Report, Error> {
    match options.geometry {
        RingGeometry::Pastry => run_on::<Node>(options, progress),
        RingGeometry::Full => run_on::<FullNode>(options, progress),
    }
}

/// Likewise, of any geometry.
fn run_on<N: RingNode>(options: &RoutingOptions, progress: &Progress) -> Result<Report, Error> {
    let (setting, keys) = (&options.setting, options.keys);
    let nodes = setting.nodes();
    let mut grown = grow::<N>(setting, nodes, setting.topology(), progress)?;
    let cluster = &mut grown.cluster;
    let count = options.lookups.unwrap_or_else(|| usual(nodes));
    let sight = Sight::see(cluster, &evenly(count, nodes), keys, "lookups", progress);
    let (levels, ideal) = (tables::levels(cluster), ideal(cluster, keys));
    let failure = options.fail.map(|percent| Failure::suffer(cluster, percent, keys, count, progress));
    let in_degrees = tables::in_degrees(cluster);
    let run = Run::of("routing", setting, &grown);
    let mut figures = Figures::of(&run);
    add_lookups(&mut figures, &sight, &ideal);
    add_tables(&mut figures, nodes, grown.join_messages_mean, &levels, &in_degrees);
    let mut report = run.report();
    report.conditions.push(("geometry", format!("{:?}", options.geometry).to_lowercase()));
    report.faults = sight.counts.faults("lookups");
    report.sheets = vec![
        hops_sheet(&sight),
        charts::cumulative_sheet("stretch", &sight.stretch()),
        sight.distance_sheet(),
    ];
    report.plots = vec![
        hops_plot(&sight),
        stretch_plot(&sight.stretch(), ideal.stretch.mean().unwrap_or(1.0)),
        sight.distance_plot(),
    ];
    let failed = failure.map(|failure| failure.add_to(&mut report, &mut figures.rows, &sight));
    figures.set("fail", failed);
    Ok(report.with(figures))
}

/// Lookups in the same ring with ideal tables.
fn ideal<N: RingNode>(cluster: &Cluster<N>, keys: Keys) -> IdealLookups {
    let mut ids: Vec<(u32, NodeId)> = cluster.roster.iter().map(|(id, slot)| (slot, id)).collect();
    ids.sort_unstable();
    let ids = ids.into_iter().map(|(_, id)| id);
    let ideal = Ideal::new(cluster.world.map(), ids, cluster.config.tables.leaf_set);
    ideal.lookups(IDEAL_LOOKUPS, keys, &mut cluster.world.stream("lab/ideal"))
}

/// 200,000 lookups for 100,000 nodes, in proportion, but 10,000 at least.
fn usual(nodes: usize) -> u64 {
    (nodes as u64 * 2).max(10_000)
}

fn add_lookups(figures: &mut Figures, sight: &Sight, ideal: &IdealLookups) {
    let stretch = sight.stretch();
    figures.show("hops_mean", "hops, mean", sight.hops.mean()).beside(
        "3.98; to random keys 3.80 (10k: 3.03, 1k: 2.30)",
        "P1 pub, 100k nodes, L=16, between nodes; P2 comp, L=32",
    );
    figures.show("hops_mean_ideal", "… of this ring, ideal tables", ideal.hops.mean());
    figures.count("hops_max", "hops, max", sight.hops.max() as u64).beside("5", "P1 pub, 100k nodes, L=16");
    let shares = sight.hops.shares();
    let shown: Vec<String> = shares.iter().skip(1).map(|share| format!("{share:.4}")).collect();
    figures
        .tell("share at 1, 2, … hops", shown.join(" "))
        .beside(".0006 .0156 .1643 .6449 .1745", "P1 pub, 100k nodes, L=16");
    figures.set("hops_share", shares);
    figures.show("stretch_mean", "stretch, mean", stretch.mean()).beside(
        "1.3–1.4 plane; 1.59–2.2 internet models, 1.61 ideal",
        "P3 pub, 1k–100k; P4 pub/comp, 100k, transit-stub",
    );
    figures.show("stretch_mean_ideal", "… of this ring, ideal tables", ideal.stretch.mean());
    figures.show("stretch_p50", "stretch, median", stretch.median());
    figures.show("stretch_p99", "stretch, 99 %", stretch.quantile(0.99));
    figures.count("lookups", "lookups", sight.counts.asked);
    let (lost, wrong) = (sight.counts.lost, sight.counts.wrong);
    figures
        .tell("lost, wrong", format!("{lost}, {wrong}"))
        .beside("1.6e-5, 0 (unverified)", "P8 mem, under churn");
    figures.set("lost", lost);
    figures.set("wrong", wrong);
}

fn add_tables(figures: &mut Figures, nodes: usize, join: f64, levels: &[Level], in_degrees: &Samples) {
    // The cost of a join by the Pastry paper in a ring of this size (§2.4).
    let papers = 3.0 * 16.0 * (nodes as f64).ln() / 16f64.ln();
    figures
        .show("join_messages_mean", "frames per join", join)
        .beside("3·2^b·log16 N", format!("P6 pub; {papers:.0} for this ring"));
    let mut per_level = |key, name, value: fn(&Level) -> f64, theirs, source| {
        let values: Vec<f64> = levels.iter().map(value).collect();
        let shown: Vec<String> = values.iter().map(|number| format!("{number:.2}")).collect();
        figures.tell(name, shown.join(" ")).beside(theirs, source);
        figures.set(key, values);
    };
    let (under, joins) = ("under 1 each", "P6 pub, 5,000 joins");
    per_level("suboptimal_per_level", "suboptimal entries by level", |level| level.suboptimal, under, joins);
    per_level("missing_per_level", "missing entries by level", |level| level.missing, "", "");
    figures.show("in_degree_mean", "in tables of others: mean", in_degrees.mean());
    figures.show("in_degree_p99", "… 99 %", in_degrees.quantile(0.99));
    figures.show("in_degree_max", "… max", in_degrees.max());
}

impl Sight {
    fn stretch(&self) -> Samples {
        Samples::new(self.pairs.iter().map(|&(_, ratio)| ratio).collect())
    }

    /// Mean stretch of pairs by their direct latency: its middle in ms, the mean, how many pairs.
    fn by_distance(&self) -> Vec<(f64, f64, u64)> {
        let farthest = self.pairs.iter().map(|&(direct, _)| direct).fold(0.0, f32::max);
        let width = f64::from(farthest) / BINS as f64;
        let mut bins = vec![(0.0, 0); BINS];
        for &(direct, ratio) in &self.pairs {
            let bin = &mut bins[((f64::from(direct) / width) as usize).min(BINS - 1)];
            *bin = (bin.0 + f64::from(ratio), bin.1 + 1);
        }
        let middles = (0..BINS).map(|bin| (bin as f64 + 0.5) * width);
        let means = middles.zip(bins).filter(|(_, (_, count))| *count > 0);
        means.map(|(middle, (sum, count))| (middle, sum / count as f64, count)).collect()
    }

    fn distance_sheet(&self) -> Sheet {
        Sheet {
            name: "stretch_by_distance",
            columns: vec!["direct_ms", "stretch_mean", "pairs"],
            rows: self
                .by_distance()
                .into_iter()
                .map(|(at, mean, count)| vec![at, mean, count as f64])
                .collect(),
        }
    }

    fn distance_plot(&self) -> Plot {
        let points = self.by_distance().into_iter().map(|(at, mean, _)| (at, mean)).collect();
        Plot {
            name: "stretch_by_distance",
            title: "Stretch by distance".to_string(),
            x: Axis::of("latency of the direct way, ms"),
            y: Axis { least: Some(1.0), ..Axis::of("mean stretch") },
            series: vec![Series::new("Treecast", Kind::Line, points)],
        }
    }
}

fn hops_sheet(sight: &Sight) -> Sheet {
    let shares = sight.hops.shares();
    let row = |(hops, share): (usize, f64)| vec![hops as f64, share, sight.hops.0[hops] as f64];
    Sheet {
        name: "hops",
        columns: vec!["hops", "share", "lookups"],
        rows: shares.into_iter().enumerate().map(row).collect(),
    }
}

fn hops_plot(sight: &Sight) -> Plot {
    let numbered = |first: usize, shares: &[f64]| -> Vec<(f64, f64)> {
        shares.iter().enumerate().map(|(i, &share)| ((i + first) as f64, share)).collect()
    };
    Plot {
        name: "hops",
        title: "Hops of a lookup".to_string(),
        x: Axis::of("overlay hops"),
        y: Axis::of("share of lookups"),
        series: vec![
            Series::new("Treecast", Kind::Bars, numbered(0, &sight.hops.shares())),
            Series::new("Pastry paper, N = 100,000, L = 16", Kind::Bars, numbered(1, &PASTRY_SHARES)),
        ],
    }
}

fn stretch_plot(stretch: &Samples, ideal: f64) -> Plot {
    let highest = stretch.quantile(0.98).unwrap_or(2.0);
    let mean = stretch.mean().unwrap_or(1.0);
    Plot {
        name: "stretch",
        title: "Stretch of lookups".to_string(),
        x: Axis {
            range: Some((0.9, highest)), ..Axis::of("latency of the way ÷ latency of the direct way")
        },
        y: charts::shares("share of lookups up to it"),
        series: vec![
            Series::new("Treecast", Kind::Line, stretch.cumulative()),
            Series::new(&format!("mean: {mean:.2}"), Kind::Dashed, charts::upright(mean)),
            Series::new(&format!("mean with ideal tables: {ideal:.2}"), Kind::Dashed, charts::upright(ideal)),
        ],
    }
}

//! `lab broadcast`: one topic to which all nodes subscribe. What a message costs, how far its last copy travels, and
//! how long it takes, in the settings in which others were measured.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use treecast_overlay::pastry::Node;

use super::deliveries;
use super::groups::Groups;
use super::growth::{grow, leave_alone};
use super::rounds::{Load, Rounds, publish};
use super::run::{Run, show};
use super::trees::Trees;
use super::{Error, Progress, Setting, charts};
use crate::report::{Axis, Kind, Plot, Report, Row, Series};
use crate::world::Topology;

/// One topic that all subscribe to: messages per broadcast, last hop, time to the last node, redundancy
#[derive(Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct Options {
    #[command(flatten)]
    ring: Setting,
    /// The setting in which another system was measured; other options override its parts
    #[arg(long, value_enum, value_name = "NAME")]
    setting: Option<Preset>,
    /// Messages in each round [default: 200]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    messages: Option<u32>,
    /// Messages per second [default: 10]
    #[arg(long, value_name = "PER SECOND", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,
    /// Who sends [default: both, one after the other]
    #[arg(long, value_enum)]
    senders: Option<Senders>,
    /// Seconds of virtual time that the tree is left alone before anything is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    rest: u64,
}

/// Where others were measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Preset {
    /// Maelstrom's broadcast: 25 nodes, 100 ms a hop, 100 messages a second from random senders
    M9,
    /// iroh-gossip's simulator: 1,000 nodes, each pair 10 to 50 ms apart, one sender, then random senders
    M6,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Senders {
    /// One node sends all messages
    One,
    /// Each message has a sender of its own
    Random,
}

const HELP: &str = "What is measured, for each message:
  payload_messages   frames that carry it: copies from parents to children, and hops of its way to the root
  redundancy         copies that a node got beyond the first, per delivery over the network
  last_hop           hops of its way to the root, and from there down to the deepest node
  last_ms            from publishing until the last node has it;  delay_ms: until each node has it
  lost               nodes that did not get it;  unacknowledged: messages without receipt";

/// What the options come to.
struct Parts {
    nodes: usize,
    topology: Topology,
    plans: Vec<(&'static str, Load)>,
}

impl Options {
    fn parts(&self) -> Parts {
        let apart = |millis| Duration::from_millis(millis);
        let (nodes, topology, messages, rate, both) = match self.setting {
            Some(Preset::M9) => (25, Topology::Constant(apart(100)), 2_000, 100, false),
            Some(Preset::M6) => (1_000, Topology::Pairs { least: apart(10), most: apart(50) }, 200, 10, true),
            None => (self.ring.nodes(), self.ring.topology(), 200, 10, true),
        };
        let messages = self.messages.unwrap_or(messages) as usize;
        let rate = f64::from(self.rate.unwrap_or(rate));
        let plan = |random| Load { messages, rate, random };
        let plans = [("one sender", plan(false)), ("random senders", plan(true))];
        let wanted = |random| match self.senders {
            None => random || both,
            Some(Senders::One) => !random,
            Some(Senders::Random) => random,
        };
        Parts {
            nodes: self.ring.nodes.map_or(nodes, |nodes| nodes as usize),
            topology: self.ring.topology.clone().unwrap_or(topology),
            plans: plans.into_iter().filter(|(_, plan)| wanted(plan.random)).collect(),
        }
    }
}

#[derive(Serialize)]
struct Fields {
    #[serde(flatten)]
    run: Run,
    setting: Option<&'static str>,
    depth_mean: Option<f64>,
    depth_max: Option<f64>,
    one_sender: Option<RoundFields>,
    random_senders: Option<RoundFields>,
}

/// One round's figures.
#[derive(Clone, Serialize)]
struct RoundFields {
    messages: usize,
    rate: f64,
    payload_messages: f64,
    redundancy: f64,
    last_hop_mean: f64,
    last_hop_max: u32,
    last_ms_p50: Option<f64>,
    last_ms_p99: Option<f64>,
    last_ms_max: Option<f64>,
    delay_ms_p50: Option<f64>,
    delay_ms_p99: Option<f64>,
    delay_ms_max: Option<f64>,
    lost: u64,
    duplicates: u64,
    unacknowledged: u64,
}

/// Grows a ring, subscribes all, sends, and says how that went.
pub fn run(options: &Options, progress: &Progress) -> Result<Report, Error> {
    let Parts { nodes, topology, plans } = options.parts();
    let mut grown = grow::<Node>(&options.ring, nodes, topology, progress)?;
    let cluster = &mut grown.cluster;
    let slots: Vec<u32> = cluster.roster.iter().map(|(_, slot)| slot).collect();
    let groups = Groups::new(&[nodes], &slots, &mut cluster.world.stream("lab/groups"));
    deliveries::subscribe(cluster, &groups, progress)?;
    leave_alone(cluster, Duration::from_secs(options.rest), progress);
    let depths = Trees::of(cluster, &groups.topics).depths(&groups);
    grown.meter.borrow_mut().looking = true;
    let mut rounds = Vec::new();
    for (name, plan) in plans {
        rounds.push((name, plan, publish((&mut *cluster, &grown.meter), &groups, &plan, name, progress)));
    }
    let run = Run::of("broadcast", &options.ring, &grown);
    Ok(report(run, options, &depths, &rounds))
}

impl RoundFields {
    /// `depth`: of the deepest node.
    fn of(plan: &Load, rounds: &Rounds, depth: u32) -> RoundFields {
        let messages = plan.messages as f64;
        let (copies, ways) = rounds.costs.iter().fold((0, 0), |(copies, ways), sent| {
            (copies + u64::from(sent.copies), ways + u64::from(sent.way))
        });
        // The root has each message without a copy.
        let remote = (rounds.delivered as f64 - messages).max(1.0);
        RoundFields {
            messages: plan.messages,
            rate: plan.rate,
            payload_messages: (copies + ways) as f64 / messages,
            redundancy: copies as f64 / remote - 1.0,
            last_hop_mean: ways as f64 / messages + f64::from(depth),
            last_hop_max: rounds.costs.iter().map(|sent| sent.way).max().unwrap_or(0) + depth,
            last_ms_p50: rounds.lasts.median(),
            last_ms_p99: rounds.lasts.quantile(0.99),
            last_ms_max: rounds.lasts.max(),
            delay_ms_p50: rounds.delays.median(),
            delay_ms_p99: rounds.delays.quantile(0.99),
            delay_ms_max: rounds.delays.max(),
            lost: rounds.lost,
            duplicates: rounds.duplicates,
            unacknowledged: rounds.unacknowledged,
        }
    }

    fn faults(&self, name: &str) -> Vec<String> {
        let counts = [
            (self.lost, "S5: deliveries are missing"),
            (self.duplicates, "S2: deliveries came twice"),
            (self.unacknowledged, "S4: messages have no receipt"),
        ];
        let found = counts.into_iter().filter(|(count, _)| *count > 0);
        found.map(|(count, what)| format!("{what}, {name}: {count}")).collect()
    }
}

fn report(
    run: Run,
    options: &Options,
    depths: &[Option<u32>],
    rounds: &[(&'static str, Load, Rounds)],
) -> Report {
    let known: Vec<f32> = depths.iter().flatten().map(|&depth| depth as f32).collect();
    let depth = super::stats::Samples::new(known);
    let deepest = depth.max().unwrap_or(0.0) as u32;
    let figures: Vec<(&str, RoundFields)> =
        rounds.iter().map(|(name, plan, rounds)| (*name, RoundFields::of(plan, rounds, deepest))).collect();
    let of =
        |wanted: &str| figures.iter().find(|(name, _)| *name == wanted).map(|(_, fields)| fields.clone());
    let mut report = run.report();
    report.rows =
        vec![Row::ours("depth, mean", show(depth.mean())), Row::ours("depth, max", show(depth.max()))];
    for (name, fields) in &figures {
        report.rows.extend(rows(name, fields, options.setting));
        report.faults.extend(fields.faults(name));
    }
    let unattached = depths.iter().filter(|depth| depth.is_none()).count();
    if unattached > 0 {
        report.faults.push(format!("S1: nodes whose way up does not end at a root: {unattached}"));
    }
    report.plots = vec![charts::depths(&depth), delay_plot(rounds, options.setting)];
    for (name, sheet) in [("one sender", "delay_one_sender"), ("random senders", "delay_random_senders")] {
        let sheets = rounds.iter().filter(|(round, ..)| *round == name);
        report.sheets.extend(sheets.map(|(_, _, rounds)| charts::cumulative_sheet(sheet, &rounds.delays)));
    }
    let fields = Fields {
        setting: options.setting.map(|preset| match preset {
            Preset::M9 => "m9",
            Preset::M6 => "m6",
        }),
        depth_mean: depth.mean(),
        depth_max: depth.max(),
        one_sender: of("one sender"),
        random_senders: of("random senders"),
        run,
    };
    report.json = serde_json::to_string(&fields).expect("figures are numbers and texts");
    report
}

fn rows(name: &str, fields: &RoundFields, preset: Option<Preset>) -> Vec<Row> {
    // What others reach: messages, redundancy, last hop, time to the last node (p50, p99, max), and who says so.
    let others = match (preset, name) {
        (Some(Preset::M9), _) => {
            ["24", "", "", "386", "498", "505", "M9 pub, Maelstrom's reference, tree of 4"]
        }
        (Some(Preset::M6), "one sender") => {
            ["", "0.075", "12–15", "320–390", "", "", "M6 run, iroh-gossip's simulator"]
        }
        (Some(Preset::M6), _) => {
            ["", "0.44–0.51", "19–22", "570–630", "", "", "M6 run, iroh-gossip's simulator"]
        }
        (None, _) => [""; 7],
    };
    let row = |figure: &str, ours: String, place: usize| {
        let row = Row::ours(format!("{name}: {figure}"), ours);
        if others[place].is_empty() { row } else { row.beside(others[place], others[6]) }
    };
    let own = |figure: &str, ours: String| Row::ours(format!("{name}: {figure}"), ours);
    vec![
        row("payload messages per broadcast", show(fields.payload_messages), 0),
        row("redundancy", show(fields.redundancy), 1),
        row("last hop, max", fields.last_hop_max.to_string(), 2),
        own("last hop, mean", show(fields.last_hop_mean)),
        row("time to the last node, median, ms", show(fields.last_ms_p50), 3),
        row("time to the last node, 99 %, ms", show(fields.last_ms_p99), 4),
        row("time to the last node, max, ms", show(fields.last_ms_max), 5),
        own("time to each node, median, ms", show(fields.delay_ms_p50)),
        own("time to each node, 99 %, ms", show(fields.delay_ms_p99)),
        own("lost, duplicates", format!("{}, {}", fields.lost, fields.duplicates)),
    ]
}

fn delay_plot(rounds: &[(&'static str, Load, Rounds)], preset: Option<Preset>) -> Plot {
    let mut series = Vec::new();
    for (name, _, rounds) in rounds {
        series.push(Series::new(&format!("each node, {name}"), Kind::Line, rounds.delays.cumulative()));
        series.push(Series::new(&format!("last node, {name}"), Kind::Line, rounds.lasts.cumulative()));
    }
    let others: &[(&str, (f64, f64))] = match preset {
        Some(Preset::M9) => &[("last node, Maelstrom's reference, median to max", (386.0, 505.0))],
        Some(Preset::M6) => &[
            ("last node, iroh-gossip, one sender", (320.0, 390.0)),
            ("last node, iroh-gossip, random senders", (570.0, 630.0)),
        ],
        None => &[],
    };
    let between = |&(name, (from, to)): &(&str, (f64, f64))| {
        Series::new(name, Kind::Dashed, vec![(from, 0.0), (from, 0.99), (to, 0.99), (to, 0.0)])
    };
    series.extend(others.iter().map(between));
    Plot {
        name: "delay",
        title: "Time from publishing to delivery".to_string(),
        x: Axis::of("ms since publishing"),
        y: charts::shares("share up to it"),
        series,
    }
}

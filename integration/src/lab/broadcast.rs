//! `lab broadcast`: one topic to which all nodes subscribe. The cost of a message, how far its last copy travels, and
//! how long it takes, in the settings in which others were measured.

use std::time::Duration;

use clap::{Args, ValueEnum};
use rand::RngExt;
use treecast_overlay::pastry::Node;

use super::groups::Groups;
use super::growth::{grow, leave_alone};
use super::meter::{Meter, Sent};
use super::publishing::{self, Outgoing, Pace, Received};
use super::run::Run;
use super::stats::Samples;
use super::trees::Trees;
use super::{Error, Progress, Setting, charts};
use crate::cluster::Cluster;
use crate::cluster::lookups::millis;
use crate::node::RingNode;
use crate::report::{Axis, Figures, Kind, Plot, Report, Series};
use crate::world::{Shared, Topology};

/// How often messages are sent.
const TICK: Duration = Duration::from_millis(1);

/// One topic that all subscribe to: messages per broadcast, last hop, time to the last node, redundancy
#[derive(Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct BroadcastOptions {
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
    /// The senders [default: both, one after the other]
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

/// The senders.
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

/// The options, resolved.
struct Parts {
    nodes: usize,
    topology: Topology,
    plans: Vec<(&'static str, Load)>,
}

impl BroadcastOptions {
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

/// Messages to be sent.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Load {
    messages: usize,
    /// Messages per second.
    rate: f64,
    /// Each message has a sender of its own, at random; else one sends all.
    random: bool,
}

/// Their deliveries and costs.
struct Round {
    received: Received,
    /// The cost of each message.
    costs: Vec<Sent>,
    /// From publishing to each delivery, in milliseconds.
    delays: Samples,
    /// From publishing until the last node has it, for each message that all got.
    lasts: Samples,
}

impl Round {
    fn of<N: RingNode>(
        (cluster, meter): (&mut Cluster<N>, &Shared<Meter>),
        groups: &Groups,
        load: &Load,
        name: &str,
        progress: &Progress,
    ) -> Round {
        let slots: Vec<u32> = groups.memberships.iter().map(|&(_, slot)| slot).collect();
        let mut dice = cluster.world.stream(&format!("lab/senders/{name}"));
        let any = dice.random_range(0..slots.len());
        let outgoing = |_| {
            let sender = if load.random { dice.random_range(0..slots.len()) } else { any };
            Outgoing { slot: slots[sender] as usize, group: 0 }
        };
        meter.borrow_mut().messages = vec![Sent::default(); load.messages];
        let pace = Pace { rate: load.rate, tick: TICK, look: TICK * 10, receipts: true };
        let received =
            publishing::publish(cluster, groups, (load.messages, pace), outgoing, (name, progress));
        let complete = received.messages.iter().filter(|message| message.reached == slots.len());
        Round {
            costs: std::mem::take(&mut meter.borrow_mut().messages),
            delays: Samples::new(received.delays_ms.clone()),
            lasts: Samples::new(complete.map(|message| millis(message.max)).collect()),
            received,
        }
    }

    /// Deliveries that are missing, deliveries that came twice, and messages without receipt.
    fn counts(&self) -> (u64, u64, u64) {
        let Received { missed, duplicates, receipts, .. } = self.received;
        (missed, duplicates, self.costs.len() as u64 - receipts)
    }
}

/// Grows a ring, subscribes all, sends, and says how that went.
pub fn run(options: &BroadcastOptions, progress: &Progress) -> Result<Report, Error> {
    let Parts { nodes, topology, plans } = options.parts();
    let mut grown = grow::<Node>(&options.ring, nodes, topology, progress)?;
    let cluster = &mut grown.cluster;
    let slots: Vec<u32> = cluster.roster.iter().map(|(_, slot)| slot).collect();
    let groups = Groups::new(&[nodes], &slots, &mut cluster.world.stream("lab/groups"));
    publishing::subscribe(cluster, &groups, progress)?;
    leave_alone(cluster, Duration::from_secs(options.rest), progress);
    let depths = Trees::of(cluster, &groups.topics).depths(&groups);
    grown.meter.borrow_mut().looking = true;
    let mut rounds = Vec::new();
    for (name, plan) in plans {
        rounds.push((name, plan, Round::of((&mut *cluster, &grown.meter), &groups, &plan, name, progress)));
    }
    let run = Run::of("broadcast", &options.ring, &grown);
    Ok(report(&run, options, &depths, &rounds))
}

fn report(
    run: &Run,
    options: &BroadcastOptions,
    depths: &[Option<u32>],
    rounds: &[(&'static str, Load, Round)],
) -> Report {
    let known: Vec<f32> = depths.iter().flatten().map(|&depth| depth as f32).collect();
    let depth = Samples::new(known);
    let mut report = run.report();
    let mut figures = Figures::of(run);
    figures.set(
        "setting",
        options.setting.and_then(|preset| Some(preset.to_possible_value()?.get_name().to_string())),
    );
    figures.show("depth_mean", "depth, mean", depth.mean());
    figures.show("depth_max", "depth, max", depth.max());
    for (key, wanted) in [("one_sender", "one sender"), ("random_senders", "random senders")] {
        let round = rounds.iter().find(|(name, ..)| *name == wanted);
        let round = round.map(|(name, plan, rounds)| {
            report.faults.extend(faults(rounds, name));
            let sheet = if *name == "one sender" { "delay_one_sender" } else { "delay_random_senders" };
            report.sheets.push(charts::cumulative_sheet(sheet, &rounds.delays));
            let round = add_round(name, plan, rounds, depth.max().unwrap_or(0.0), options.setting);
            figures.rows.extend(round.rows);
            round.json
        });
        figures.set(key, round);
    }
    let unattached = depths.iter().filter(|depth| depth.is_none()).count();
    if unattached > 0 {
        report.faults.push(format!("S1: nodes whose way up does not end at a root: {unattached}"));
    }
    report.plots = vec![charts::depths(&depth), delay_plot(rounds, options.setting)];
    report.with(figures)
}

/// One round's figures. `depth`: of the deepest node.
fn add_round(name: &str, plan: &Load, rounds: &Round, depth: f64, preset: Option<Preset>) -> Figures {
    let (messages, mut figures) = (plan.messages as f64, Figures::default());
    let (copies, ways) = rounds
        .costs
        .iter()
        .fold((0, 0), |(copies, ways), sent| (copies + u64::from(sent.copies), ways + u64::from(sent.way)));
    // The root has each message without a copy.
    let remote = (rounds.received.delays_ms.len() as f64 - messages).max(1.0);
    let longest = rounds.costs.iter().map(|sent| sent.way).max().unwrap_or(0) as f64 + depth;
    // Figures of others: messages, redundancy, last hop, time to the last node (p50, p99, max), and their source.
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
    let mut add = |key: &str, what: &str, value: Option<f64>, other: Option<usize>| {
        let row = figures.show(key, &format!("{name}: {what}"), value);
        if let Some(theirs) = other.map(|place| others[place]).filter(|theirs| !theirs.is_empty()) {
            row.beside(theirs, others[6]);
        }
    };
    let (lasts, delays) = (&rounds.lasts, &rounds.delays);
    let sent = (copies + ways) as f64 / messages;
    add("payload_messages", "payload messages per broadcast", Some(sent), Some(0));
    add("redundancy", "redundancy", Some(copies as f64 / remote - 1.0), Some(1));
    add("last_hop_max", "last hop, max", Some(longest), Some(2));
    add("last_hop_mean", "last hop, mean", Some(ways as f64 / messages + depth), None);
    add("last_ms_p50", "time to the last node, median, ms", lasts.median(), Some(3));
    add("last_ms_p99", "time to the last node, 99 %, ms", lasts.quantile(0.99), Some(4));
    add("last_ms_max", "time to the last node, max, ms", lasts.max(), Some(5));
    add("delay_ms_p50", "time to each node, median, ms", delays.median(), None);
    add("delay_ms_p99", "time to each node, 99 %, ms", delays.quantile(0.99), None);
    figures.set("delay_ms_max", delays.max());
    let (lost, duplicates, unacknowledged) = rounds.counts();
    figures.tell(format!("{name}: lost, duplicates"), format!("{lost}, {duplicates}"));
    for (key, count) in [("lost", lost), ("duplicates", duplicates), ("unacknowledged", unacknowledged)] {
        figures.set(key, count);
    }
    figures.set("messages", plan.messages);
    figures.set("rate", plan.rate);
    figures
}

fn faults(rounds: &Round, name: &str) -> Vec<String> {
    let (lost, duplicates, unacknowledged) = rounds.counts();
    let counts = [
        (lost, "S5: deliveries are missing"),
        (duplicates, "S2: deliveries came twice"),
        (unacknowledged, "S4: messages have no receipt"),
    ];
    let found = counts.into_iter().filter(|(count, _)| *count > 0);
    found.map(|(count, what)| format!("{what}, {name}: {count}")).collect()
}

fn delay_plot(rounds: &[(&'static str, Load, Round)], preset: Option<Preset>) -> Plot {
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

//! `lab multicast`: many trees at once, as in the Scribe paper (§4): what they cost each node, how late their members
//! get a message, and what they load onto physical links, beside IP multicast on the same links.

use std::time::Duration;

use clap::{Args, ValueEnum};
use rand::RngExt;
use treecast_overlay::pastry::Node;
use treecast_scribe::Topic;

use super::groups::{Groups, papers_sizes};
use super::growth::{Grown, grow, leave_alone};
use super::meter::is_copy;
use super::publishing::{self, Outgoing, Pace, Received};
use super::run::Run;
use super::stats::Samples;
use super::trees::Trees;
use super::{Error, Progress, Setting, charts};
use crate::cluster::Cluster;
use crate::node::RingNode;
use crate::report::{Figures, Report};
use crate::world::LinkLoads;

/// Many trees: entries per node, delays against unicast, load of physical links against IP multicast
#[derive(Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct MulticastOptions {
    #[command(flatten)]
    setting: Setting,
    /// How many groups; 1,500 for 100,000 nodes, and on smaller rings as many as keep the smallest at 11 members
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    groups: Option<u32>,
    /// All groups have so many members, instead of the Scribe paper's sizes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    members: Option<u32>,
    /// The sender of each group's message
    #[arg(long, value_enum, default_value_t = Sender::Root)]
    sender: Sender,
    /// Seconds of virtual time that the trees are left alone before anything is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    rest: u64,
}

/// Senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sender {
    /// The group's root, as in the paper
    Root,
    /// Any node of the ring
    Random,
}

const HELP: &str = "The workload is the Scribe paper's: group r of the nodes N has floor(N r^-1.25 + 0.5) members.
All subscribe, the trees are left alone for --rest seconds and then measured, then each group gets one message:
  entries    children of a node, over all of its trees;  tables: its trees with children
  rad, rmd   per group: mean (largest) delay of its members by the tree / mean (largest) latency of unicast from the sender
  link_messages     crossings of physical links by the messages on their way from parents to children, acknowledgements
             left out; _ip: by IP multicast from the root to the same members; null without physical links
  link_stress_max   crossings of the most used link, both directions and nodes' own links counted
  copies_per_delivery  messages from parents to children / members that are not the root; forwarders make it exceed 1
  depth      hops from the root down to a member (at rest, as are entries and tables);  missed, duplicates: members that got no message, or one twice
  join_messages_mean  hops of JOINs per membership, until all are attached; what moves children afterwards is left out";

impl MulticastOptions {
    fn sizes(&self, nodes: usize) -> Result<Vec<usize>, Error> {
        let groups = self.groups.map(|groups| groups as usize);
        match self.members.map(|members| members as usize) {
            Some(members) if members > nodes => Err(Error::Usage(format!(
                "--members {members}: the ring has only {nodes} nodes; see --nodes"
            ))),
            Some(members) => {
                let groups = groups.ok_or_else(|| Error::Usage("--members needs --groups".to_string()))?;
                Ok(vec![members; groups])
            }
            None => Ok(papers_sizes(nodes, groups)),
        }
    }
}

/// Measurements, before they are put into figures.
struct Measured {
    entries: Samples,
    tables: Samples,
    depths: Samples,
    /// Memberships whose way up does not end at a root.
    unattached: usize,
    rad: Samples,
    rmd: Samples,
    links: Option<LinkLoads>,
    links_ip: Option<LinkLoads>,
    /// Deliveries that needed a message on the network.
    remote: u64,
    outcome: Received,
    joins: u64,
    copies: u64,
}

/// Grows a ring, plants trees, sends, and says how that went.
pub fn run(options: &MulticastOptions, progress: &Progress) -> Result<Report, Error> {
    let setting = &options.setting;
    let nodes = setting.nodes();
    let sizes = options.sizes(nodes)?;
    let mut grown = grow::<Node>(setting, nodes, setting.topology(), progress)?;
    let cluster = &mut grown.cluster;
    let mut dice = cluster.world.stream("lab/groups");
    let slots: Vec<u32> = cluster.roster.iter().map(|(_, slot)| slot).collect();
    let groups = Groups::new(&sizes, &slots, &mut dice);
    grown.meter.borrow_mut().looking = true;
    publishing::subscribe(cluster, &groups, progress)?;
    grown.meter.borrow_mut().looking = false;
    leave_alone(cluster, Duration::from_secs(options.rest), progress);
    let root = |topic: &Topic| cluster.roster.root_of(topic.id().key()).map(|(_, slot)| slot);
    let roots: Vec<usize> = groups.topics.iter().filter_map(root).collect();
    let senders = match options.sender {
        Sender::Root => roots.clone(),
        Sender::Random => roots.iter().map(|_| slots[dice.random_range(0..slots.len())] as usize).collect(),
    };
    let measured = measure(&mut grown, &groups, &roots, &senders, progress);
    let run = Run::of("multicast", setting, &grown);
    Ok(report(&run, &groups, &measured, options))
}

fn measure<N: RingNode>(
    grown: &mut Grown<N>,
    groups: &Groups,
    roots: &[usize],
    senders: &[usize],
    progress: &Progress,
) -> Measured {
    let (cluster, meter) = (&mut grown.cluster, &grown.meter);
    let trees = Trees::of(cluster, &groups.topics);
    let depths = trees.depths(groups);
    meter.borrow_mut().looking = true;
    cluster.world.watch_links(is_copy);
    let tick = Duration::from_millis(20);
    let rate = (senders.len() as f64 / 30.0).max(10.0);
    let pace = Pace { rate, tick, look: tick, receipts: false };
    let outgoing = |group| Outgoing { slot: senders[group], group };
    let outcome =
        publishing::publish(cluster, groups, (senders.len(), pace), outgoing, ("publishing", progress));
    meter.borrow_mut().looking = false;
    let links = cluster.world.link_loads().cloned();
    let members = groups.members();
    let (rad, rmd) = delay_ratios(cluster, &members, senders, &outcome);
    let own = roots.iter().zip(&members).filter(|(root, members)| members.contains(root)).count();
    Measured {
        unattached: depths.iter().filter(|depth| depth.is_none()).count(),
        depths: Samples::new(depths.into_iter().flatten().map(|depth| depth as f32).collect()),
        entries: Samples::new(trees.entries.iter().map(|&entries| entries as f32).collect()),
        tables: Samples::new(trees.tables.iter().map(|&tables| tables as f32).collect()),
        rad,
        rmd,
        links_ip: links.as_ref().map(|_| ip_multicast(cluster, &members, roots)),
        links,
        remote: (outcome.delays_ms.len() as u64).saturating_sub(own as u64),
        outcome,
        joins: meter.borrow().joins,
        copies: meter.borrow().copies,
    }
}

/// Per group: delay by the tree over latency of unicast from the sender; means, and maxima. Groups without a member
/// beside the sender, or not all of whose members got the message, have none.
fn delay_ratios<N: RingNode>(
    cluster: &Cluster<N>,
    members: &[Vec<usize>],
    senders: &[usize],
    outcome: &Received,
) -> (Samples, Samples) {
    let (mut rad, mut rmd) = (Vec::new(), Vec::new());
    for ((members, &sender), delays) in members.iter().zip(senders).zip(&outcome.messages) {
        let unicast = || {
            let others = members.iter().filter(|&&member| member != sender);
            others.map(|&member| cluster.world.latency(sender, member))
        };
        let (sum, max) = (unicast().sum::<Duration>(), unicast().max().unwrap_or_default());
        if !max.is_zero() && delays.reached == members.len() {
            rad.push((delays.sum.as_secs_f64() / sum.as_secs_f64()) as f32);
            rmd.push((delays.max.as_secs_f64() / max.as_secs_f64()) as f32);
        }
    }
    (Samples::new(rad), Samples::new(rmd))
}

/// Returns the load of IP multicast from the roots to the same members on the same links.
fn ip_multicast<N: RingNode>(cluster: &Cluster<N>, members: &[Vec<usize>], roots: &[usize]) -> LinkLoads {
    let mut loads = LinkLoads::default();
    for (members, &root) in members.iter().zip(roots) {
        let others: Vec<usize> = members.iter().copied().filter(|&member| member != root).collect();
        if let Some(links) = cluster.world.multicast_links(root, &others) {
            loads.add(&links);
        }
    }
    loads
}

fn report(run: &Run, groups: &Groups, measured: &Measured, options: &MulticastOptions) -> Report {
    let mut report = run.report();
    let mut figures = Figures::of(run);
    let sender = match options.sender {
        Sender::Root => "root",
        Sender::Random => "random",
    };
    let (count, memberships) = (groups.topics.len(), groups.memberships.len());
    report.conditions.push(("groups", count.to_string()));
    report.conditions.push(("memberships", memberships.to_string()));
    report.conditions.push(("sender", sender.to_string()));
    figures.set("groups", count);
    figures.set("memberships", memberships);
    figures.set("sender", sender);
    add_trees(&mut figures, measured, options);
    add_links(&mut figures, measured);
    figures.show(
        "copies_per_delivery",
        "copies per delivery",
        measured.copies as f64 / measured.remote.max(1) as f64,
    );
    figures.show("depth_mean", "depth, mean", measured.depths.mean());
    figures.show("depth_max", "depth, max", measured.depths.max());
    let Received { missed, duplicates, .. } = measured.outcome;
    figures.tell("missed, duplicates", format!("{missed}, {duplicates}"));
    figures.set("missed", missed);
    figures.set("duplicates", duplicates);
    let joins = measured.joins as f64 / memberships.max(1) as f64;
    figures.show("join_messages_mean", "hops of JOINs per membership", joins);
    report.faults = faults(measured);
    report.sheets = vec![
        charts::cumulative_sheet("rad", &measured.rad),
        charts::cumulative_sheet("rmd", &measured.rmd),
        charts::entries_sheet(&measured.entries),
    ];
    report.plots = vec![
        charts::delay_ratios(&measured.rad, &measured.rmd),
        charts::entries(&measured.entries),
        charts::depths(&measured.depths),
    ];
    if let (Some(ours), Some(ip)) = (&measured.links, &measured.links_ip) {
        report.sheets.push(charts::stress_sheet("link_stress", ours));
        report.sheets.push(charts::stress_sheet("link_stress_ip", ip));
        report.plots.push(charts::stress(ours, ip));
    }
    report.with(figures)
}

fn add_trees(figures: &mut Figures, measured: &Measured, options: &MulticastOptions) {
    let Measured { entries, tables, rad, rmd, .. } = measured;
    let mean = figures.show("entries_mean", "entries, mean", entries.mean());
    match options.members {
        None => mean.beside("6.2 (unverified); ideal 6.5", "M2 mem/comp, M1: 100k nodes, 1,500 groups"),
        Some(_) => mean.beside(
            "21.2, 8.5 with single-child forwarders collapsed (unverified)",
            "M5 mem, 50k nodes, 30,000 groups of 11",
        ),
    }
    let (m2, m3, m3_mem) = ("M2 mem/comp", "M3 mem/comp, transit-stub", "M3 mem, transit-stub");
    figures.show("entries_median", "entries, median", entries.median()).beside("2 (unverified); ideal 4", m2);
    figures.show("entries_p99", "entries, 99 %", entries.quantile(0.99));
    figures.show("entries_max", "entries, max", entries.max()).beside("1059 (unverified); ideal 116", m2);
    figures.show("tables_mean", "tables, mean", tables.mean());
    figures.show("tables_max", "tables, max", tables.max());
    figures.show("rad_median", "RAD, median", rad.median()).beside("1.68 (unverified); ideal 1.62", m3);
    figures.show("rad_max", "RAD, max", rad.max()).beside("2 (unverified)", m3_mem);
    figures.show("rmd_median", "RMD, median", rmd.median()).beside("1.69 (unverified); ideal 1.77", m3);
    figures.show("rmd_max", "RMD, max", rmd.max()).beside("4.26 (unverified)", m3_mem);
}

fn add_links(figures: &mut Figures, measured: &Measured) {
    let loads = [&measured.links, &measured.links_ip].map(Option::as_ref);
    let mut compare = |names: [&str; 3], keys: [&str; 2], load: fn(&LinkLoads) -> u64, theirs: [&str; 3]| {
        let ([name, by_ip, key], [key_ip, key_ratio]) = (names, keys);
        let [ours, ip] = loads.map(|loads| loads.map(load));
        let ratio = ours.zip(ip.filter(|&ip| ip > 0)).map(|(ours, ip)| ours as f64 / ip as f64);
        figures.count(key, name, ours).beside(theirs[0], "M4 mem");
        figures.count(key_ip, by_ip, ip).beside(theirs[1], "M4 mem");
        figures.show(key_ratio, "… ours ÷ IP's", ratio).beside(theirs[2], "M4 mem");
    };
    compare(
        ["messages over links", "… by IP multicast", "link_messages"],
        ["link_messages_ip", "link_messages_vs_ip"],
        |loads| loads.total,
        ["2489824 (unverified)", "758853 (unverified)", "3.3 (unverified)"],
    );
    compare(
        ["worst link", "… by IP multicast", "link_stress_max"],
        ["link_stress_max_ip", "link_stress_max_vs_ip"],
        |loads| loads.max,
        ["4031 (unverified)", "950 (unverified)", "4.2 (unverified)"],
    );
}

fn faults(measured: &Measured) -> Vec<String> {
    let Measured { unattached, outcome, .. } = measured;
    let counts = [
        (*unattached as u64, "S1: members whose way up does not end at a root"),
        (outcome.missed, "S5: members that never got their group's message"),
        (outcome.duplicates, "S2: deliveries beyond the first"),
        (outcome.gaps, "S5: gaps, though nothing failed"),
    ];
    let found = counts.into_iter().filter(|(count, _)| *count > 0);
    found.map(|(count, what)| format!("{what}: {count}")).collect()
}

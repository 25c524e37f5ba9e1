//! `lab upkeep`: what a node costs while nothing happens, and what a join sends beyond that.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use treecast_overlay::id::NodeId;
use treecast_overlay::pastry::Node;

use super::growth::{grow, leave_alone};
use super::run::Run;
use super::{Error, Progress, Setting};
use crate::cluster::Cluster;
use crate::node::RingNode;
use crate::report::{Figures, Report, show};

/// How long a ring is watched at rest.
const WATCHED: Duration = Duration::from_secs(120);
/// Within which newcomers come, a fifth of the ring, and in how many steps.
const BURST: Duration = Duration::from_secs(10);
const STEPS: usize = 50;

/// A ring at rest: frames, bytes and wakes of a node, its memory by part; and what a join sends beyond that
#[derive(Args, Clone, Debug)]
pub struct UpkeepOptions {
    #[command(flatten)]
    setting: Setting,
}

/// Frames and bytes by kind.
type ByKind = BTreeMap<&'static str, (f64, f64)>;

/// Grows a ring, watches it at rest, and lets a fifth of as many nodes join.
pub fn run(options: &UpkeepOptions, progress: &Progress) -> Result<Report, Error> {
    let setting = &options.setting;
    let mut grown = grow::<Node>(setting, setting.nodes(), setting.topology(), progress)?;
    let cluster = &mut grown.cluster;
    let nodes = cluster.roster.len();
    let (before, wakes) = (sent(cluster), cluster.world.wakes());
    leave_alone(cluster, WATCHED, progress);
    let node_seconds = WATCHED.as_secs_f64() * nodes as f64;
    let at_rest = since(&before, &sent(cluster), |_| (0.0, 0.0), node_seconds);
    let wakes_per_node_s = (cluster.world.wakes() - wakes) as f64 / node_seconds;
    let serves = |&(id, slot): &(NodeId, u32)| cluster.answers(slot, id.key());
    let not_serving = nodes - cluster.roster.iter().filter(serves).count();
    let (before, joins) = (sent(cluster), nodes / 5);
    for step in 0..STEPS {
        (step * joins / STEPS..(step + 1) * joins / STEPS).for_each(|_| {
            cluster.join();
        });
        cluster.world.run_for(BURST / STEPS as u32);
    }
    let usual = (nodes + joins / 2) as f64 * BURST.as_secs_f64();
    let upkeep = |kind: &str| at_rest.get(kind).map_or((0.0, 0.0), |&(n, size)| (n * usual, size * usual));
    let join = since(&before, &sent(cluster), upkeep, joins as f64);
    let mut bytes_by_part: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (_, stack) in cluster.stacks() {
        for &(part, bytes) in <Node as RingNode>::memory(stack).parts() {
            *bytes_by_part.entry(part).or_default() += bytes;
        }
    }
    bytes_by_part.values_mut().for_each(|bytes| *bytes /= nodes + joins);
    let run = Run { nodes, ..Run::of("upkeep", setting, &grown) };
    let mut figures = Figures::of(&run);
    add_sent(&mut figures, "at_rest", "at rest, a node and second", &at_rest);
    figures.show("wakes_per_node_s", "wakes, a node and second", wakes_per_node_s);
    add_sent(&mut figures, "join", "a join, beyond the upkeep of all nodes", &join);
    figures.count("not_serving", "nodes whose leases do not run", not_serving as u64);
    for (part, bytes) in &bytes_by_part {
        figures.tell(format!("  bytes: {part}"), bytes.to_string());
    }
    figures.set("bytes_by_part", bytes_by_part);
    Ok(run.report().with(figures))
}

fn sent<N: RingNode>(cluster: &Cluster<N>) -> ByKind {
    let kinds = cluster.world.counters().by_kind();
    kinds.map(|(kind, tally)| (kind, (tally.sent as f64, tally.bytes as f64))).collect()
}

/// Frames and bytes that were sent between two looks, less those that would have been sent anyway, over `share`.
fn since(before: &ByKind, after: &ByKind, anyway: impl Fn(&str) -> (f64, f64), share: f64) -> ByKind {
    let difference = |(&kind, now): (&&'static str, &(f64, f64))| {
        let (then, anyway) = (before.get(kind).copied().unwrap_or_default(), anyway(kind));
        (kind, ((now.0 - then.0 - anyway.0) / share, (now.1 - then.1 - anyway.1) / share))
    };
    after.iter().map(difference).filter(|(_, sent)| *sent != (0.0, 0.0)).collect()
}

fn add_sent(figures: &mut Figures, key: &str, name: &str, kinds: &ByKind) {
    figures.set(key, kinds);
    let all = kinds.values().fold((0.0, 0.0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    let each = kinds.iter().map(|(kind, sent)| (format!("  {kind}"), *sent));
    for (name, (frames, bytes)) in std::iter::once((name.to_string(), all)).chain(each) {
        figures.tell(name, format!("{} frames, {} bytes", show(frames), show(bytes)));
    }
}

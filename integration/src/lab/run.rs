//! Fields that every experiment's report has: the conditions, what it cost, and the hash by which two runs
//! are known to be the same.

use std::collections::BTreeMap;

use serde::Serialize;
use treecast_overlay::config::Config as RingConfig;

use super::growth::Grown;
use super::{Setting, memory};
use crate::node::RingNode;
use crate::report::Report;

/// Conditions and cost, the same fields in every experiment's JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    /// The experiment.
    pub experiment: &'static str,
    /// Nodes that were started.
    pub nodes: usize,
    /// All random choices follow from it.
    pub seed: u64,
    /// The network.
    pub topology: String,
    /// The overlay's figures by name, and those that matter most.
    pub profile: String,
    /// Them.
    pub config: RingFigures,
    /// Virtual seconds that the grown ring was left alone before anything was measured.
    pub settle_s: u64,
    /// Virtual seconds until all nodes were on the ring.
    pub grown_s: f64,
    /// Real seconds until all nodes were on the ring.
    pub grown_wall_s: f64,
    /// Starts that failed and were tried again.
    pub starts_retried: u64,
    /// Resident memory of the process per node after settling, all of the world counted, in bytes.
    pub bytes_per_node: Option<f64>,
    /// The nodes' own count of their memory, as a mean in bytes.
    pub bytes_per_node_own: Option<f64>,
    /// The most memory that the process held by the end, in bytes, the load and what measures it included.
    pub peak_bytes: Option<u64>,
    /// Virtual seconds, all in all.
    pub virtual_s: f64,
    /// Real seconds, all in all.
    pub wall_s: f64,
    /// Frames that arrived, by kind, from the first join to the end.
    pub frames: BTreeMap<&'static str, u64>,
    /// Steps of the world.
    pub events: u64,
    /// Steps per real second.
    pub events_per_s: f64,
    /// The hash of all that happened.
    pub trace_hash: String,
}

/// The figures of the overlay's configuration that the results hang on.
#[derive(Clone, Debug, Serialize)]
pub struct RingFigures {
    /// Pastry's L.
    pub leaf_set: usize,
    /// Entries per slot of the routing table.
    pub candidates: usize,
    /// Pastry's M.
    pub neighbourhood: usize,
    /// How long leases run, in seconds.
    pub lease_s: f64,
    /// Nodes up to which every node knows every node.
    pub full_membership: usize,
    /// Between two rounds of repair, in seconds.
    pub repair_s: f64,
}

impl RingFigures {
    fn of(config: &RingConfig) -> RingFigures {
        RingFigures {
            leaf_set: config.tables.leaf_set,
            candidates: config.tables.candidates,
            neighbourhood: config.tables.neighbourhood,
            lease_s: config.leases.duration.as_secs_f64(),
            full_membership: config.tables.full_membership,
            repair_s: config.repair.period.as_secs_f64(),
        }
    }
}

impl Run {
    /// The run's fields when all is measured.
    pub fn of<N: RingNode>(experiment: &'static str, setting: &Setting, grown: &Grown<N>) -> Run {
        let (wall, world) = (grown.wall().as_secs_f64(), &grown.cluster.world);
        let events = world.steps();
        Run {
            experiment,
            nodes: world.slots(),
            seed: setting.seed,
            topology: grown.topology.to_string(),
            profile: setting.profile.to_string(),
            config: RingFigures::of(&grown.cluster.config),
            settle_s: setting.settle,
            grown_s: grown.took.as_secs_f64(),
            grown_wall_s: grown.wall.as_secs_f64(),
            starts_retried: grown.retried,
            bytes_per_node: grown.resident_per_node,
            bytes_per_node_own: grown.own_bytes_per_node,
            peak_bytes: memory::peak(),
            virtual_s: world.now().as_nanos() as f64 / 1e9,
            wall_s: wall,
            frames: world.counters().by_kind().map(|(kind, tally)| (kind, tally.delivered)).collect(),
            events,
            events_per_s: events as f64 / wall.max(1e-9),
            trace_hash: world.trace_hash(),
        }
    }

    /// Several runs as one: the conditions of the first, the cost of all, a hash over theirs.
    pub fn of_all(runs: Vec<Run>) -> Option<Run> {
        let hashes: Vec<u8> = runs.iter().flat_map(|run| run.trace_hash.bytes()).collect();
        let several = runs.len() > 1;
        let mut all = runs.into_iter().reduce(|mut all, run| {
            all.starts_retried += run.starts_retried;
            all.virtual_s += run.virtual_s;
            all.wall_s += run.wall_s;
            all.events += run.events;
            run.frames.into_iter().for_each(|(kind, count)| *all.frames.entry(kind).or_default() += count);
            all
        })?;
        if several {
            all.events_per_s = all.events as f64 / all.wall_s.max(1e-9);
            all.trace_hash = blake3::hash(&hashes).to_hex().to_string();
        }
        Some(all)
    }

    /// A report with these conditions on top and the cost in its notes.
    pub fn report(&self) -> Report {
        let figures = &self.config;
        let conditions = vec![
            ("nodes", self.nodes.to_string()),
            ("topology", self.topology.clone()),
            ("profile", self.profile.clone()),
            ("L", figures.leaf_set.to_string()),
            ("candidates", figures.candidates.to_string()),
            ("settled", format!("{} s", self.settle_s)),
            ("seed", self.seed.to_string()),
        ];
        let kilobytes =
            |bytes: Option<f64>| bytes.map_or("unknown".to_string(), |b| format!("{:.1} kB", b / 1000.0));
        let notes = vec![
            format!(
                "{:.0} s of virtual time in {:.1} s: {} steps, {:.0}/s; all on the ring after {:.1} s",
                self.virtual_s, self.wall_s, self.events, self.events_per_s, self.grown_wall_s
            ),
            format!(
                "a node takes {} of the process at rest, {} by its own account; the process took {} at most; {} starts were \
                 tried again",
                kilobytes(self.bytes_per_node),
                kilobytes(self.bytes_per_node_own),
                self.peak_bytes.map_or("unknown".to_string(), |b| format!("{:.2} GB", b as f64 / 1e9)),
                self.starts_retried
            ),
            format!("trace hash {}", self.trace_hash),
        ];
        Report { experiment: self.experiment, conditions, notes, ..Report::default() }
    }
}

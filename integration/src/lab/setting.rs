//! Options of all experiments: how many nodes, which seed, over what network, with which figures.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use treecast_overlay::config::Config as RingConfig;

use super::Error;
use crate::world::{Case, Config as WorldConfig, Connections, Fidelity, Topology};

/// Nodes of a ring unless said otherwise: seconds, not minutes.
const NODES: u32 = 2_000;

/// The options of a run, the same for every experiment on a ring.
#[derive(Args, Clone, Debug)]
pub struct Setting {
    /// Nodes on the ring, joined by the real protocol [default: 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub nodes: Option<u32>,
    /// Everything random follows from it: the same seed gives the same trace hash
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// The network: plane, sphere, transit-stub, pairs:LEAST,MOST, matrix:FILE or constant:MS [default: transit-stub]
    #[arg(long, value_name = "T")]
    pub topology: Option<Topology>,
    /// The overlay's figures: those that ship, or those for large quiet rings
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    pub profile: Profile,
    /// Members of a leaf set, instead of the profile's
    #[arg(long, value_name = "L")]
    pub leaf_set: Option<usize>,
    /// Nodes up to which every node knows every node, instead of the profile's; 0: Pastry's tables alone
    #[arg(long, value_name = "N")]
    pub full_membership: Option<usize>,
    /// Seconds of virtual time that the grown ring is left alone before anything is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub settle: u64,
}

impl Setting {
    /// How many nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.unwrap_or(NODES) as usize
    }

    /// The network: the Scribe paper's internet unless said otherwise.
    pub fn topology(&self) -> Topology {
        self.topology.clone().unwrap_or_else(Topology::transit_stub)
    }

    /// The overlay's figures.
    pub fn ring(&self) -> Result<RingConfig, Error> {
        let mut config = self.profile.config();
        config.tables.leaf_set = self.leaf_set.unwrap_or(config.tables.leaf_set);
        config.tables.full_membership = self.full_membership.unwrap_or(config.tables.full_membership);
        config.check().map_err(|error| Error::Usage(format!("the overlay's figures: {error}")))?;
        Ok(config)
    }

    /// The world of the papers' simulators: latencies and nothing else. Neither jitter nor loss nor connections, and
    /// frames are moved as values; the checkers' worlds are the harsh ones.
    pub fn world(&self, topology: Topology) -> WorldConfig {
        WorldConfig {
            topology,
            jitter: 0.0,
            fidelity: Fidelity::Values,
            connections: Connections::None,
            spurious_timeouts: 0.0,
            late_turns: 0.0,
            ..WorldConfig::default()
        }
    }

    /// The run's name and seed; its command, as it was typed, is what reproduces it.
    pub fn case(&self) -> Case {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let command = format!("cargo run --release -p treecast-integration --bin lab -- {}", words.join(" "));
        Case::of_command(&command, self.seed)
    }
}

/// Where the figures go.
#[derive(Args, Clone, Debug)]
pub struct Output {
    /// One JSON object as the last line of stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Write report.json, tables as CSV and plots as SVG into this directory
    #[arg(long, global = true, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Kinds of tables of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RingGeometry {
    /// Pastry's prefix tables, with near nodes
    #[default]
    Pastry,
    /// Every node knows every node
    Full,
}

/// The overlay's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// The figures that ship: leases of 4 s
    Default,
    /// For large quiet rings: leases of 30 s, as MSPastry's heartbeats
    Mspastry,
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Default => "default",
            Profile::Mspastry => "mspastry",
        })
    }
}

impl Profile {
    /// Its figures.
    pub fn config(self) -> RingConfig {
        match self {
            Profile::Default => RingConfig::default(),
            Profile::Mspastry => mspastry(),
        }
    }
}

/// For large quiet rings, with leases of 30 s as FreePastry has them: under churn a fifth of the default's frames. A dead
/// node's range is unclaimed for half a minute, and for twice as long if its heir dies, too; no lookup goes two ways, and most
/// of the dead are found by messages that meet them, so lookups take longer; fewer silences are a death, so where many frames
/// are lost, nodes that live lose places in tables now and then.
fn mspastry() -> RingConfig {
    let mut config = RingConfig::default();
    let RingConfig { leases, failure, routing, repair, search, .. } = &mut config;
    leases.duration = Duration::from_secs(30);
    leases.heartbeat = Duration::from_secs(29);
    leases.piggyback_after = Some(Duration::from_millis(14_500));
    failure.leaf_probe = Duration::from_secs(3600);
    failure.table_probe = Duration::from_secs(3600);
    failure.target_loss_rate = 1.0;
    failure.confirmations = 1;
    failure.lease_attempts = 3;
    routing.hedge_above = f64::INFINITY;
    routing.park_for = Duration::from_secs(35);
    repair.period = Duration::from_secs(600);
    search.period_max = Duration::from_secs(1800);
    config
}

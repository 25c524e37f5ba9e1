//! What all experiments can be told: how many nodes, which seed, over what network, with which figures.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use treecast_overlay::config::Config as RingConfig;

/// The options of a run, the same for every experiment on a ring.
#[derive(Args, Clone, Debug)]
pub struct Setting {
    /// Nodes on the ring, joined by the real protocol
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub nodes: Option<u32>,
    /// Everything random follows from it: the same seed gives the same trace hash
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// The network: plane, sphere, transit-stub, matrix:FILE or constant:MS
    #[arg(long, value_name = "T")]
    pub topology: Option<String>,
    /// The overlay's figures: those that ship, or those for large quiet rings
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    pub profile: Profile,
    /// Members of a leaf set, instead of the profile's
    #[arg(long, value_name = "L")]
    pub leaf_set: Option<usize>,
    /// Seconds of virtual time that the grown ring is left alone before anything is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub settle: u64,
}

/// Where the figures go.
#[derive(Args, Clone, Debug)]
pub struct Output {
    /// One JSON object as the last line of stdout
    #[arg(long)]
    pub json: bool,
    /// Write report.json, tables as CSV and plots as SVG into this directory
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// The overlay's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// Those that ship: leases of 4 s
    Default,
    /// For large quiet rings: leases of 30 s, as MSPastry's heartbeats
    Mspastry,
}

impl Profile {
    /// Its figures.
    pub fn config(self) -> RingConfig {
        match self {
            Profile::Default | Profile::Mspastry => RingConfig::default(),
        }
    }
}

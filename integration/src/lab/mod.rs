//! The laboratory's experiments, one file each, and what they share. Every experiment runs
//! [`PastryStack`](treecast_scribe::PastryStack), the code that ships, in a [`World`](crate::world::World).

pub mod setting;
pub mod progress;
pub mod pages;
pub mod memory;
pub mod log_model;
pub mod model;
pub mod meter;
pub mod growth;
pub mod stats;
pub mod run;
pub mod lookups;
pub mod churn;
pub mod faults;
pub mod tables;
mod charts;
mod failure;
pub mod routing;
pub mod groups;
pub mod trees;
pub mod multicast;
pub mod publishing;
pub mod delivery;
pub mod broadcast;
pub mod ideal;
pub mod upkeep;
pub mod swarm;
pub mod replay;
pub mod scenario;

use thiserror::Error;

pub use progress::Progress;
pub use setting::{Output, RingGeometry, Setting};

/// Why an experiment has no figures.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Error {
    /// The caller asked for something that cannot be: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The nodes under test did not do what they must: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Failed(_) => 1,
            Error::Usage(_) => 2,
        }
    }
}

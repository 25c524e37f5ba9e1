//! A world's figures.

use std::time::Duration;

use super::{Faults, Topology};

/// Whether frames are turned into bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// Encoded, decoded and compared: a frame that the wire changes is a panic. For tests.
    Encoded,
    /// Moved as they are. For scale. The trace hash is the same.
    Values,
}

/// Whether there are connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// As over TCP: they come up and break, machines hear of it, and a dead process's host refuses.
    Kept,
    /// As over datagrams: no `Up`, `Down` or `Refused`, and nothing is kept per pair. For scale.
    None,
}

/// A world's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How long frames take.
    pub topology: Topology,
    /// Most that jitter adds, as a share of the latency: each frame throws its own.
    pub jitter: f64,
    /// Loss, duplication and reordering. [`set_faults`](super::World::set_faults) changes it on the way.
    pub faults: Faults,
    /// Values or bytes.
    pub fidelity: Fidelity,
    /// Whether there are connections.
    pub connections: Connections,
    /// Share of handled frames after which the machine gets a timeout that it did not ask for.
    pub spurious_timeouts: f64,
    /// Share of calls after which the turn goes on: the machine hears of its end up to two milliseconds later, and what it is
    /// called for meanwhile belongs to the same turn. After the others the turn ends at once.
    pub late_turns: f64,
    /// Largest frame in bytes; a larger one is lost, as the transports drop it.
    pub max_frame: usize,
    /// How long a dial that nobody answers takes to be refused (`TimedOut`); `None`: for ever, without a word.
    pub dial_timeout: Option<Duration>,
    /// How long a record takes to disk.
    pub store_takes: Duration,
    /// Most things that wait for a paused or a slow node (as in its kernel's and its peers' buffers); further frames are lost.
    pub backlog: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            topology: Topology::Plane {
                nearest: Duration::from_millis(2),
                across: Duration::from_millis(100),
            },
            jitter: 0.1,
            faults: Faults::default(),
            fidelity: Fidelity::Encoded,
            connections: Connections::Kept,
            spurious_timeouts: 0.01,
            late_turns: 0.05,
            max_frame: 1024 * 1024,
            dial_timeout: Some(Duration::from_secs(5)),
            store_takes: Duration::from_millis(1),
            backlog: 65_536,
        }
    }
}

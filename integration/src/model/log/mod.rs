//! The model checker over the replicated log: every order in which messages of roots and members can come, be lost and
//! come again, while roots and configurations change and members end, within bounds.
//!
//! It drives [`Log`](treecast_scribe::log) and its `Primary`, the code that ships, by the crate `stateright`. The ring is
//! adversarial: any node takes over as the root whenever it likes, also while another one is the root. A message that was
//! sent may come at any time, any number of times, or never. An entry's payload is left out.

mod net;

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use stateright::{Checker, HasDiscoveries, Model, Property};

use net::StateParts;
pub use net::{Act, LogNet};

/// How much of everything there is.
#[derive(Args, Clone, Debug)]
pub struct LogBounds {
    /// Nodes; the first three are the first members
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=6))]
    pub nodes: u8,
    /// Messages that are published
    #[arg(long, value_name = "V", default_value_t = 1)]
    pub values: u8,
    /// Takeovers by another root, or by the same once more
    #[arg(long, value_name = "T", default_value_t = 1)]
    pub takeovers: u8,
    /// Changes of the members
    #[arg(long, value_name = "C", default_value_t = 0)]
    pub changes: u8,
    /// Members that lose all they know
    #[arg(long, value_name = "R", default_value_t = 0)]
    pub restarts: u8,
    /// Former members that drop their copy, by themselves or by a root's word
    #[arg(long, value_name = "D", default_value_t = 0)]
    pub drops: u8,
    /// Committed entries that members hear from others than their root
    #[arg(long, value_name = "H", default_value_t = 0)]
    pub hears: u8,
    /// Configurations that a change may lead to, as digits: `123,013`
    #[arg(long, value_name = "SETS", default_value = "123")]
    pub to: String,
    /// Nodes that may take over, as digits
    #[arg(long, value_name = "NODES", default_value = "013")]
    pub roots: String,
    /// Entries come one by one, so that a root may end in their midst
    #[arg(long)]
    pub piecemeal: bool,
    /// What a member says of how far it is comes at once
    #[arg(long)]
    pub prompt: bool,
    /// A bug that the model must find
    #[arg(long, value_enum)]
    pub plant: Option<LogBug>,
}

impl Default for LogBounds {
    fn default() -> LogBounds {
        LogBounds {
            nodes: 3,
            values: 1,
            takeovers: 1,
            changes: 0,
            restarts: 0,
            drops: 0,
            hears: 0,
            to: "123".to_string(),
            roots: "013".to_string(),
            piecemeal: false,
            prompt: false,
            plant: None,
        }
    }
}

impl LogBounds {
    /// Whether a message can be committed after the root changed.
    fn can_progress(&self) -> bool {
        self.values > 0 && self.takeovers > 0
    }
}

/// A set of nodes, from digits.
pub(super) fn nodes_of(digits: &str) -> BTreeSet<u8> {
    digits.bytes().filter(u8::is_ascii_digit).map(|digit| digit - b'0').collect()
}

/// A bug that is planted, to prove that the model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogBug {
    /// A member that restarts keeps its life, though it has lost what it held.
    LifeOverRestart,
    /// A member that drops its copy keeps its life.
    LifeOverDrop,
    /// A member drops its copy as soon as a committed configuration is without it, though a later one names it.
    EarlyDrop,
    /// A configuration counts when a majority of the old one holds it.
    OldMajorityOnly,
    /// A configuration counts when a majority of the new one holds it.
    NewMajorityOnly,
    /// A new root asks the members of the last configuration that it knows to be committed, and no others.
    KnownConfiguration,
    /// The longest log wins, not the one of the highest term.
    Longest,
    /// A root that was overtaken ends the life of a member that a later configuration names again.
    LateRelease,
    /// A node passes on to a member what it holds, be it committed or not.
    OpenHearsay,
}

/// Results of an exploration.
#[derive(Clone, Debug)]
pub struct LogExplored {
    /// Different states.
    pub unique: usize,
    /// States met, those met before included.
    pub generated: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// Nothing is left to be explored.
    pub complete: bool,
    /// Promises that do not hold, and the way there.
    pub broken: Vec<(&'static str, Vec<String>)>,
    /// Events that should be possible, and were not met.
    pub missing: Vec<&'static str>,
}

/// Always: no two entries at one offset are committed, and a new root lacks none of them.
pub const ONE_LOG: &str = "S4: one entry at one offset, and nothing committed is lost";
/// Always: a majority of the members holds what is committed.
pub const MAJORITY: &str = "S4: a majority of the members holds what is committed";
/// Always: what a node takes for committed is committed.
pub const TRUE_COMMIT: &str = "S3: what a node takes for committed is";
/// Sometimes: the protocol goes on.
pub const PROGRESS: &str = "a message is committed after the root changed";
/// Sometimes, where configurations change.
pub const PROGRESS_CHANGED: &str = "a message is committed after the root and the configuration changed";
/// Sometimes, where copies are dropped.
pub const DROPPED: &str = "a former member drops its copy";

/// Sometimes, where members hear from others than their root.
pub const HEARD: &str = "a member hears a committed entry from another node than its root";

const ALWAYS: [&str; 3] = [ONE_LOG, MAJORITY, TRUE_COMMIT];
const SOMETIMES: [&str; 4] = [PROGRESS, PROGRESS_CHANGED, DROPPED, HEARD];

/// The model.
pub struct LogModel {
    pub(super) bounds: LogBounds,
    pub(super) allowed: Vec<BTreeSet<u8>>,
    pub(super) roots: BTreeSet<u8>,
    parts: StateParts,
}

impl LogModel {
    /// A log with three members, which are complete.
    pub fn new(bounds: LogBounds) -> LogModel {
        let allowed = bounds.to.split(',').map(nodes_of).collect();
        let roots = nodes_of(&bounds.roots);
        LogModel { bounds, allowed, roots, parts: StateParts::default() }
    }
}

impl Model for LogModel {
    type State = LogNet;
    type Action = Act;

    fn init_states(&self) -> Vec<LogNet> {
        vec![LogNet::at_rest(self)]
    }

    fn actions(&self, net: &LogNet, acts: &mut Vec<Act>) {
        net.acts(self, acts);
    }

    fn next_state(&self, net: &LogNet, act: Act) -> Option<LogNet> {
        net.after(self, act)
    }

    fn properties(&self) -> Vec<Property<LogModel>> {
        vec![
            Property::always(ONE_LOG, |_, net: &LogNet| net.broken() != Some(ONE_LOG)),
            Property::always(MAJORITY, |_, net: &LogNet| net.broken() != Some(MAJORITY)),
            Property::always(TRUE_COMMIT, |_, net: &LogNet| net.broken() != Some(TRUE_COMMIT)),
            Property::sometimes(PROGRESS, |model: &LogModel, net: &LogNet| {
                !model.bounds.can_progress() || net.has_progressed(false)
            }),
            Property::sometimes(PROGRESS_CHANGED, |model: &LogModel, net: &LogNet| {
                !model.bounds.can_progress() || model.bounds.changes == 0 || net.has_progressed(true)
            }),
            Property::sometimes(DROPPED, |model: &LogModel, net: &LogNet| {
                model.bounds.drops == 0 || net.has_dropped()
            }),
            Property::sometimes(HEARD, |model: &LogModel, net: &LogNet| {
                model.bounds.hears == 0 || net.has_heard()
            }),
        ]
    }
}

/// Explores everything within the bounds; `stop_at`: no further than so many generated states.
pub fn explore(bounds: LogBounds, stop_at: Option<usize>, mut say: impl FnMut(usize, usize)) -> LogExplored {
    // One thread finds one of the shortest ways to a planted bug, and always the same.
    let threads = if bounds.plant.is_some() { 1 } else { 2 };
    let mut builder =
        LogModel::new(bounds).checker().threads(threads).finish_when(HasDiscoveries::AnyFailures);
    if let Some(limit) = stop_at {
        builder = builder.target_state_count(limit);
    }
    let mut checker = builder.spawn_bfs();
    for handle in checker.handles() {
        while !handle.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            say(checker.unique_state_count(), checker.max_depth());
        }
    }
    let discoveries = checker.discoveries();
    let broken = ALWAYS.into_iter().filter_map(|name| {
        let path = discoveries.get(name)?.clone();
        Some((name, path.into_actions().iter().map(|act| act.to_string()).collect()))
    });
    let broken: Vec<_> = broken.collect();
    let complete = broken.is_empty() && stop_at.is_none_or(|limit| checker.state_count() < limit);
    let missing = SOMETIMES.into_iter().filter(|name| !discoveries.contains_key(name));
    LogExplored {
        unique: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        missing: if complete { missing.collect() } else { Vec::new() },
        complete,
        broken,
    }
}

//! All that may be done to a cluster: by its name, as files and command lines say it, and with all that belongs to it.

use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;
use treecast_overlay::id::Key;
use treecast_scribe::Topic;
use treecast_scribe::event::SubscriptionId;

use crate::world::{Crash, Cut, CutId, Faults, Uplink};

/// Something that may happen to a cluster, by name. A scenario says to which node; a seed of the swarm draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// A process dies.
    #[serde(alias = "crash")]
    CrashProcess,
    /// The power fails.
    #[serde(alias = "power-failure")]
    CrashPower,
    /// Several nodes die at once.
    CrashSeveral,
    /// A dead node starts again.
    Restart,
    /// A node leaves in order.
    Leave,
    /// A node stops in its tracks for a while.
    Pause,
    /// A node is cut off from all others, until it is alone.
    Isolate,
    /// A node is cut off for a moment.
    Blink,
    /// Two nodes cannot reach each other, others reach both.
    Part,
    /// Nothing from one node reaches another; the way back is open.
    Deafen,
    /// A node comes late.
    Join,
    /// A node hangs itself on the ring without being on it.
    JoinEdge,
    /// A subscriber comes.
    Subscribe,
    /// A subscriber goes.
    Unsubscribe,
    /// An application takes nothing for a while.
    Stall,
    /// Many messages at once.
    Burst,
    /// The root of a topic dies.
    CrashRoot,
    /// A node is slow for a while.
    Slow,
    /// All clocks run at rates of their own.
    Drift,
    /// A clock jumps ahead, as when a laptop wakes.
    JumpClock,
    /// A node sends no faster than a thin line takes it.
    Throttle,
    /// A share of all pairs cannot reach each other, others reach both.
    Pairs,
    /// Two ring neighbours cannot reach each other, or one of them not the other.
    PartNeighbours,
    /// Several nodes are cut off from all others, not from each other.
    PartMany,
    /// Latencies are those of a matrix: no triangle need close.
    #[serde(skip)]
    Matrix,
    /// More nodes than any of them knows: messages go by routing tables.
    #[serde(skip)]
    Sparse,
    /// The overlay spares frames as the profile `mspastry` does, but for its long leases.
    #[serde(skip)]
    Thrifty,
    /// A paused node goes on.
    #[value(skip)]
    Resume,
    /// Nodes that are cut off from all others are reached again.
    #[value(skip)]
    Rejoin,
    /// All pairs reach each other again.
    #[value(skip)]
    Heal,
    /// Stalled applications go on.
    #[value(skip)]
    Unstall,
    /// The network's faults become others.
    #[value(skip)]
    Weather,
}

/// Names by which the swarm counts actions; so does a scenario.
pub const DONE: [&str; 22] = [
    "crash of a process",
    "power failure",
    "crash of a root",
    "restart",
    "leave",
    "pause",
    "isolation",
    "cut between two",
    "one-way cut",
    "late join",
    "edge node",
    "late subscription",
    "end of a subscription",
    "stalled application",
    "burst",
    "slow node",
    "clock drift",
    "clock jump",
    "limited uplink",
    "non-transitive pairs",
    "cut between ring neighbours",
    "partition of several",
];

/// Something that is done at one instant, with all that belongs to it.
#[derive(Clone, Debug)]
pub enum Action {
    /// Nodes die at once.
    Crash {
        /// Which.
        slots: Vec<usize>,
        /// How.
        how: Crash,
        /// It is the root of a topic, and dies because of that.
        of_root: bool,
    },
    /// A dead node starts again, through others.
    Restart(usize, Vec<usize>),
    /// A node leaves in order.
    Leave(usize),
    /// Nodes stop in their tracks.
    Pause(Vec<usize>),
    /// They go on.
    Resume(Vec<usize>),
    /// Nodes are cut off from all others, not from each other: they stand on this side.
    Isolate(Vec<usize>, u8),
    /// They are reached again.
    Rejoin(Vec<usize>),
    /// Some nodes cannot reach some others.
    Sever(Split),
    /// They can again; `None`: all that were severed.
    Heal(Option<CutId>),
    /// A newcomer through these nodes, or through any.
    Join(Option<Vec<usize>>),
    /// An edge node through these nodes.
    JoinEdge(Vec<usize>),
    /// A subscriber comes.
    Subscribe {
        /// Where.
        slot: usize,
        /// To what.
        topic: Topic,
        /// It takes so many items and then stops.
        takes: Option<u32>,
        /// Others have been there for a while.
        late: bool,
    },
    /// A subscriber goes.
    Unsubscribe(SubscriptionId),
    /// Stalled applications go on.
    Unstall(Vec<SubscriptionId>),
    /// Messages of so many bytes, one from each of these nodes; several of one instant are a burst.
    Publish {
        /// Where.
        slots: Vec<usize>,
        /// On what.
        topic: Topic,
        /// Bytes of each.
        bytes: usize,
        /// It is one.
        burst: bool,
    },
    /// A node asks for the root of a key; `None`: any node asks for any key.
    LookUp(Option<(usize, Key)>),
    /// Each frame takes a node so long; zero: no time.
    Slow(usize, Duration),
    /// Clocks run too fast by so many millionths.
    Drift(Vec<(usize, i32)>),
    /// Clocks jump ahead.
    JumpClock(Vec<usize>, Duration),
    /// The uplink of a node is limited, or not any more.
    Throttle(usize, Option<Uplink>),
    /// Loss, duplication and reordering of all frames.
    Weather(Faults),
}

/// Which nodes cannot reach which.
#[derive(Clone, Debug)]
pub enum Split {
    /// Two, both ways; they are neighbours on the ring.
    Pair(usize, usize, bool),
    /// Nothing from the one reaches the other; they are neighbours on the ring.
    OneWay(usize, usize, bool),
    /// A share of all pairs, by a seed.
    Pairs(f64, u64),
    /// The side of each slot; nothing from side 1 reaches side 0, and if it is not one way, nothing comes back.
    Halves {
        /// By slot.
        sides: Vec<u8>,
        /// Only one way is cut.
        one_way: bool,
    },
}

impl Split {
    /// The cut that does it.
    pub fn cut(&self) -> Cut {
        match self {
            &Split::Pair(a, b, _) => Cut::pair(a, b),
            &Split::OneWay(from, to, _) => Cut::OneWay { from: [from].into(), to: [to].into() },
            &Split::Pairs(share, seed) => Cut::pairs(share, seed),
            Split::Halves { sides, one_way: false } => Cut::Sides(sides.clone()),
            Split::Halves { sides, one_way: true } => {
                let on = |side| (0..sides.len()).filter(|&slot| sides[slot] == side).collect();
                Cut::OneWay { from: on(1), to: on(0) }
            }
        }
    }

    /// The swarm's name for it.
    pub fn event(&self) -> &'static str {
        match self {
            Split::Pair(.., true) | Split::OneWay(.., true) => "cut between ring neighbours",
            Split::Pair(.., false) => "cut between two",
            Split::OneWay(.., false) => "one-way cut",
            Split::Pairs(..) => "non-transitive pairs",
            Split::Halves { .. } => "partition of several",
        }
    }
}

impl Action {
    /// In which group it is undone: those of one group in the order in which they were done.
    pub(super) fn group(&self) -> Group {
        if matches!(self, Action::Resume(_)) {
            Group::Pauses
        } else if matches!(self, Action::Rejoin(_) | Action::Heal(_)) {
            Group::Cuts
        } else {
            Group::Hosts
        }
    }

    /// Whether it gives this host back its speed, its clock or its uplink.
    pub(super) fn repairs(&self, slot: usize) -> bool {
        if let Action::Slow(other, _) | Action::Throttle(other, _) = self {
            *other == slot
        } else {
            matches!(self, Action::Drift(clocks) if clocks.iter().any(|&(other, _)| other == slot))
        }
    }
}

/// Actions that are undone together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Pauses,
    Hosts,
    Cuts,
}

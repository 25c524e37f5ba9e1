//! What a seed says: the size of a world, its network, its figures, and what is to happen in it.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use rand::RngExt;
use rand::seq::IndexedRandom;
use treecast_overlay::config::Config as RingConfig;
use treecast_overlay::random::{self, Rng};
use treecast_scribe::Config;

use crate::world::{self, Faults, Matrix, Topology};

/// What may happen to a world, one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Deed {
    /// A process dies.
    CrashProcess,
    /// The power fails.
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
    Matrix,
    /// More nodes than any of them knows: messages go by routing tables.
    Sparse,
    /// The overlay spares frames as `Config::mspastry` does, but for its long leases.
    Thrifty,
}

impl Deed {
    /// Drawn from a stream of their own since seeds have been kept: a plan without these is the plan that its seed made
    /// before there were any.
    pub const LATER: [Deed; 8] = [
        Deed::Slow,
        Deed::Drift,
        Deed::JumpClock,
        Deed::Throttle,
        Deed::Pairs,
        Deed::PartNeighbours,
        Deed::PartMany,
        Deed::Matrix,
    ];

    /// The same, from a third stream.
    pub const LATEST: [Deed; 2] = [Deed::Sparse, Deed::Thrifty];

    const ALL: [Deed; 17] = [
        Deed::CrashProcess,
        Deed::CrashPower,
        Deed::CrashSeveral,
        Deed::Restart,
        Deed::Leave,
        Deed::Pause,
        Deed::Isolate,
        Deed::Blink,
        Deed::Part,
        Deed::Deafen,
        Deed::Join,
        Deed::JoinEdge,
        Deed::Subscribe,
        Deed::Unsubscribe,
        Deed::Stall,
        Deed::Burst,
        Deed::CrashRoot,
    ];
}

/// What a seed says.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Nodes that join in the beginning.
    pub nodes: usize,
    /// How long that takes.
    pub join_within: Duration,
    /// The network; its faults begin with the joins if `early`, else after them.
    pub network: world::Config,
    /// The network's faults.
    pub weather: Faults,
    /// They begin with the joins.
    pub early: bool,
    /// The overlay's figures.
    pub ring: RingConfig,
    /// Scribe's figures.
    pub forest: Config,
    /// Topics.
    pub topics: usize,
    /// Share of the nodes that subscribe to each.
    pub subscribers: f64,
    /// Bytes of a message.
    pub payload: usize,
    /// Steps of the turmoil; each takes 0.2 to 2 s.
    pub steps: usize,
    /// What may happen in them.
    pub deeds: Vec<Deed>,
}

fn millis(range: std::ops::RangeInclusive<u64>, dice: &mut Rng) -> Duration {
    Duration::from_millis(dice.random_range(range))
}

fn one_of<T: Clone>(choices: &[T], dice: &mut Rng) -> T {
    choices.choose(dice).expect("there are choices").clone()
}

impl Plan {
    /// What the seed says, without certain deeds: to find out which of them a fault needs.
    pub fn without(seed: u64, without: &[Deed]) -> Plan {
        let key = blake3::hash(&seed.to_le_bytes());
        let mut plan = Plan::first(seed, &mut random::stream(key.as_bytes(), "swarm/plan"));
        plan.add_later(&mut random::stream(key.as_bytes(), "swarm/later"), without);
        plan.add_latest(&mut random::stream(key.as_bytes(), "swarm/latest"), without);
        plan.deeds.retain(|deed| !without.contains(deed));
        plan
    }

    /// Deeds that are drawn besides the first ones, in seven plans of ten.
    fn add_later(&mut self, dice: &mut Rng, without: &[Deed]) {
        if dice.random_bool(0.3) {
            return;
        }
        let points = dice.random_range(4..=16);
        let matrix = Matrix::drawn(points, millis(1..=20, dice), millis(20..=150, dice), dice);
        for deed in Deed::LATER {
            if !dice.random_bool(0.4) || without.contains(&deed) {
                continue;
            }
            if deed == Deed::Matrix {
                self.network.topology = Topology::Matrix(matrix.clone());
            } else {
                self.deeds.push(deed);
            }
        }
    }

    /// What makes the overlay another one, each in three plans of ten.
    fn add_latest(&mut self, dice: &mut Rng, without: &[Deed]) {
        let [sparse, thrifty] = Deed::LATEST.map(|deed| dice.random_bool(0.3) && !without.contains(&deed));
        if sparse {
            self.nodes = one_of(&[24, 32, 40, 48, 64], dice);
            self.join_within = millis(0..=self.nodes as u64 * 200, dice);
            self.ring.leaf_set = 8;
            self.ring.full_membership = one_of(&[0, 0, 8], dice);
        }
        if thrifty {
            let RingConfig { raw_loss, doubt, confirmations, lease_attempts, .. } = RingConfig::mspastry();
            self.ring = RingConfig { raw_loss, doubt, confirmations, lease_attempts, ..self.ring.clone() };
        }
    }

    /// Whether there are more nodes than any of them knows.
    pub fn is_sparse(&self) -> bool {
        self.nodes > self.ring.full_membership
    }

    /// Whether the overlay spares frames.
    pub fn is_thrifty(&self) -> bool {
        self.ring.doubt.is_infinite()
    }

    fn first(seed: u64, dice: &mut Rng) -> Plan {
        let nodes = one_of(&[3, 4, 5, 6, 8, 8, 10, 10, 12, 12, 16, 16, 20, 24, 32, 40], dice);
        let (weather, early) = (weather(dice), dice.random_bool(0.5));
        let some = |deed: &Deed, dice: &mut Rng| dice.random_bool(0.5).then_some(*deed);
        Plan {
            seed,
            nodes,
            join_within: millis(0..=nodes as u64 * 200, dice),
            network: network(dice),
            weather,
            early,
            ring: ring(dice),
            forest: forest(dice),
            topics: dice.random_range(1..=5),
            subscribers: one_of(&[0.2, 0.5, 0.8], dice),
            payload: one_of(&[8, 200, 3000], dice),
            steps: dice.random_range(10..=25),
            deeds: Deed::ALL.iter().filter_map(|deed| some(deed, dice)).collect(),
        }
    }
}

fn weather(dice: &mut Rng) -> Faults {
    if dice.random_bool(0.3) {
        return Faults::default();
    }
    Faults {
        loss: one_of(&[0.0, 0.01, 0.03, 0.05, 0.1], dice),
        duplication: one_of(&[0.0, 0.05], dice),
        reordering: one_of(&[0.0, 0.1], dice),
        reorder_by: millis(10..=1500, dice),
    }
}

fn network(dice: &mut Rng) -> world::Config {
    let nearest = Duration::from_millis(2);
    let across = millis(20..=200, dice);
    let topologies = [
        Topology::Constant(millis(1..=50, dice)),
        Topology::Plane { nearest, across },
        Topology::Plane { nearest, across },
        Topology::Sphere { nearest, across },
        Topology::transit_stub(),
    ];
    world::Config {
        topology: one_of(&topologies, dice),
        jitter: one_of(&[0.0, 0.1, 0.5], dice),
        spurious_timeouts: one_of(&[0.0, 0.01, 0.05], dice),
        ..world::Config::default()
    }
}

fn ring(dice: &mut Rng) -> RingConfig {
    let lease = Duration::from_secs(one_of(&[3, 4, 4, 8], dice));
    RingConfig {
        leaf_set: one_of(&[8, 16, 32, 32], dice),
        candidates: one_of(&[1, 2, 3], dice),
        neighbourhood: one_of(&[8, 32], dice),
        lease,
        heartbeat: lease / 4,
        repair: Duration::from_secs(one_of(&[10, 20], dice)),
        hop_attempts: one_of(&[4, 6], dice),
        ..RingConfig::default()
    }
}

fn forest(dice: &mut Rng) -> Config {
    let mut config = Config::default();
    let Config { tree, window, push, .. } = &mut config;
    // In this order, which decides what a seed means.
    window.messages = one_of(&[16, 64, 1024], dice);
    push.messages = window.messages.min(one_of(&[8, 256], dice));
    push.ack_every = one_of(&[1, 16], dice);
    window.copy_below = one_of(&[0, 4096], dice);
    tree.linger = Duration::from_secs(one_of(&[0, 2], dice));
    tree.children_per_tree = one_of(&[2, 4, 16], dice);
    tree.children_per_node = one_of(&[8, 48], dice);
    tree.offered = one_of(&[1, 4, 16], dice);
    tree.splice_after = Duration::from_secs(one_of(&[1, 2], dice));
    config
}

/// For people: what the seed says, in one paragraph.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, nodes, join_within, network, weather, early, ring, forest, .. } = self;
        writeln!(
            f,
            "seed {seed}: {nodes} nodes join within {join_within:?}, topology {}, jitter {}",
            network.topology, network.jitter
        )?;
        writeln!(f, "  {weather:?}{}", if *early { ", from the beginning" } else { ", after the joins" })?;
        writeln!(
            f,
            "  leaf set {}, all known up to {}, candidates {}, lease {:?}{}; window {}, pushed ahead {}, children of a tree {}, of a node {}",
            ring.leaf_set,
            ring.full_membership,
            ring.candidates,
            ring.lease,
            if self.is_thrifty() { ", sparing frames" } else { "" },
            forest.window.messages,
            forest.push.messages,
            forest.tree.children_per_tree,
            forest.tree.children_per_node
        )?;
        write!(
            f,
            "  {} topics, {} of the nodes subscribe to each, {} bytes a message; {} steps of {:?}",
            self.topics, self.subscribers, self.payload, self.steps, self.deeds
        )
    }
}

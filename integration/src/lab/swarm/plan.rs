//! Plans of seeds: the size of a world, its network, its figures, and what is to happen in it.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use rand::RngExt;
use rand::seq::IndexedRandom;
use treecast_overlay::config::{Config as RingConfig, FailureConfig};
use treecast_overlay::random::{self, Rng};
use treecast_scribe::Config;

use crate::lab::setting::Profile;
use crate::timeline::Deed;
use crate::world::{self, Faults, Matrix, Topology};

/// Deeds of the first plans; those that are drawn from a stream of their own since seeds have been kept, so that a plan
/// without them is the plan that its seed made before there were any; and those of a third stream. New deeds come last.
const STREAMS: [std::ops::Range<usize>; 3] = [0..17, 17..25, 25..27];

impl Deed {
    fn of_stream(stream: usize) -> &'static [Deed] {
        &Deed::value_variants()[STREAMS[stream].clone()]
    }

    /// Deeds of the second stream.
    pub fn later() -> &'static [Deed] {
        Deed::of_stream(1)
    }

    /// Deeds of the third stream.
    pub fn latest() -> &'static [Deed] {
        Deed::of_stream(2)
    }
}

/// A seed's plan.
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
    /// Steps in which things happen; each takes 0.2 to 2 s.
    pub steps: usize,
    /// The deeds that may happen in them.
    pub deeds: Vec<Deed>,
}

fn millis(range: std::ops::RangeInclusive<u64>, dice: &mut Rng) -> Duration {
    Duration::from_millis(dice.random_range(range))
}

fn one_of<T: Clone>(choices: &[T], dice: &mut Rng) -> T {
    choices.choose(dice).expect("there are choices").clone()
}

impl Plan {
    /// The seed's plan, without certain deeds: to find out which of them a fault needs.
    pub fn without(seed: u64, without: &[Deed]) -> Plan {
        let key = blake3::hash(&seed.to_le_bytes());
        let mut plan = Plan::first(seed, &mut random::stream(key.as_bytes(), "swarm/plan"));
        plan.add_later(&mut random::stream(key.as_bytes(), "swarm/later"), without);
        plan.add_latest(&mut random::stream(key.as_bytes(), "swarm/latest"), without);
        let turns = &mut random::stream(key.as_bytes(), "swarm/turns");
        plan.network.late_turns = one_of(&[0.0, 0.05, 0.5, 1.0], turns);
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
        for &deed in Deed::later() {
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

    /// Deeds that make the overlay another one, each in three plans of ten.
    fn add_latest(&mut self, dice: &mut Rng, without: &[Deed]) {
        let mut draws = |deed| dice.random_bool(0.3) && !without.contains(&deed);
        let (sparse, thrifty) = (draws(Deed::Sparse), draws(Deed::Thrifty));
        if sparse {
            self.nodes = one_of(&[24, 32, 40, 48, 64], dice);
            self.join_within = millis(0..=self.nodes as u64 * 200, dice);
            self.ring.tables.leaf_set = 8;
            self.ring.tables.full_membership = one_of(&[0, 0, 8], dice);
        }
        if thrifty {
            spare_frames(&mut self.ring);
        }
    }

    /// Whether there are more nodes than any of them knows.
    pub fn is_sparse(&self) -> bool {
        self.nodes > self.ring.tables.full_membership
    }

    /// Whether the overlay spares frames.
    pub fn is_thrifty(&self) -> bool {
        self.ring.routing.hedge_above.is_infinite()
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
            deeds: Deed::of_stream(0).iter().filter_map(|deed| some(deed, dice)).collect(),
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
    let mut config = RingConfig::default();
    let RingConfig { tables, leases, repair, routing, .. } = &mut config;
    // In this order, which decides what a seed means.
    tables.leaf_set = one_of(&[8, 16, 32, 32], dice);
    tables.candidates = one_of(&[1, 2, 3], dice);
    tables.neighbourhood = one_of(&[8, 32], dice);
    (leases.duration, leases.heartbeat) = (lease, lease / 4);
    repair.period = Duration::from_secs(one_of(&[10, 20], dice));
    routing.hop_attempts = one_of(&[4, 6], dice);
    config
}

fn forest(dice: &mut Rng) -> Config {
    let mut config = Config::default();
    let Config { tree, window, push, .. } = &mut config;
    // In this order, which decides what a seed means.
    window.messages = one_of(&[16, 64, 1024], dice);
    push.messages = window.messages.min(one_of(&[8, 256], dice));
    push.ack_delay = Duration::from_millis(one_of(&[20, 1200], dice));
    window.copy_below = one_of(&[0, 4096], dice);
    tree.linger = Duration::from_secs(one_of(&[0, 2], dice));
    tree.children_per_tree = one_of(&[2, 4, 16], dice);
    tree.children_per_node = one_of(&[8, 48], dice);
    tree.offered = one_of(&[1, 4, 16], dice);
    tree.splice_after = Duration::from_secs(one_of(&[1, 2], dice));
    config
}

/// Spares frames as the profile `mspastry` does, but for its long leases.
pub(in crate::lab) fn spare_frames(ring: &mut RingConfig) {
    let thrifty = Profile::Mspastry.config();
    ring.routing.hedge_above = thrifty.routing.hedge_above;
    ring.failure = FailureConfig {
        target_loss_rate: thrifty.failure.target_loss_rate,
        confirmations: thrifty.failure.confirmations,
        lease_attempts: thrifty.failure.lease_attempts,
        ..ring.failure.clone()
    };
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
            ring.tables.leaf_set,
            ring.tables.full_membership,
            ring.tables.candidates,
            ring.leases.duration,
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

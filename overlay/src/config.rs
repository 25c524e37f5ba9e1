//! Every figure of the overlay, with its unit, its source and its consequence.

use std::time::Duration;

/// The role of a node in its overlay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// On the ring: answers for keys and forwards for others.
    #[default]
    Ring,
    /// Uses the overlay through access nodes, and is root of nothing.
    Edge {
        /// Becomes a ring node when it has found no access node for this long; `None` never.
        promote_after: Option<Duration>,
    },
}

/// The overlay's figures, in a group for each component. [`Config::default`] is what ships.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// On the ring or on its edge.
    pub role: Role,
    /// How large a node's tables are.
    pub tables: TablesConfig,
    /// The way onto the ring.
    pub join: JoinConfig,
    /// Leases between ring neighbours.
    pub leases: LeaseConfig,
    /// Finding out which peers live.
    pub failure: FailureConfig,
    /// Messages between two hops.
    pub routing: RoutingConfig,
    /// The exchange of leaf sets.
    pub repair: RepairConfig,
    /// The search for near nodes.
    pub search: SearchConfig,
    /// Edge nodes, from both sides.
    pub edges: EdgeConfig,
}

/// How large a node's tables are.
#[derive(Clone, Debug)]
pub struct TablesConfig {
    /// Members of a full leaf set, half of them on each side (design §5: it carries the resilience; Pastry's L).
    pub leaf_set: usize,
    /// Candidates kept per slot of the routing table (design §5; guess). More survive a death without a search.
    pub candidates: usize,
    /// Members of the neighbourhood set (Pastry §2.1, M).
    pub neighbourhood: usize,
    /// While the ring has no more nodes than this, every node knows every node, and routes in one hop (design §5; 0:
    /// never). Each takes 48 bytes at each other.
    pub full_membership: usize,
}

impl Default for TablesConfig {
    fn default() -> TablesConfig {
        TablesConfig { leaf_set: 32, candidates: 3, neighbourhood: 32, full_membership: 256 }
    }
}

/// The way onto the ring.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// How long an admitted joiner may hold its slot, unless it asks for it again: it does so after half of it. A
    /// joiner that gave up unheard keeps others out for this long.
    pub slot: Duration,
    /// How long a start may take before it is given up and said to have failed.
    pub timeout: Duration,
    /// How often a node alone in its ring asks its seeds again.
    pub ask_again: Duration,
}

impl Default for JoinConfig {
    fn default() -> JoinConfig {
        JoinConfig {
            slot: Duration::from_secs(4),
            timeout: Duration::from_secs(30),
            ask_again: Duration::from_secs(1),
        }
    }
}

/// Leases between ring neighbours.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    /// How long a lease runs (design §5, default profile): bounds the time for which a dead node's range is unclaimed.
    pub duration: Duration,
    /// How old a ring neighbour's lease gets before it is renewed, which is also how often neighbours see that the other
    /// lives. The rest of the lease is for lost frames: each side asks again after a short silence, so
    /// that by default three questions in turn may be lost before a lease lapses, where answers take 0.3 s or less (guess).
    pub heartbeat: Duration,
    /// How old a ring neighbour's lease is when frames that go there anyway begin to carry its renewal; `None`: they never
    /// do. By default early enough that one frame a second each way, a tree's beat, brings question and answer before a
    /// probe is due.
    pub piggyback_after: Option<Duration>,
}

impl Default for LeaseConfig {
    fn default() -> LeaseConfig {
        LeaseConfig {
            duration: Duration::from_secs(4),
            heartbeat: Duration::from_secs(3),
            piggyback_after: Some(Duration::from_millis(750)),
        }
    }
}

/// Finding out which peers live.
#[derive(Clone, Debug)]
pub struct FailureConfig {
    /// After which silence a leaf-set member that is no ring neighbour is probed: the last resort, because the node that
    /// finds a neighbour dead tells the others (MSPastry §4.1; guess).
    pub leaf_probe: Duration,
    /// After which silence the node in use of a routing-table slot is probed at the latest (guess; messages that it carries
    /// are heard).
    pub table_probe: Duration,
    /// How many dead nodes a message may meet on its way, in the mean, and go around: the probes of the routing table
    /// tune themselves to it, up to once in ten seconds (MSPastry §4.1, there 5 %).
    pub target_loss_rate: f64,
    /// Shortest wait for an answer to a probe (MSPastry §3.1 waits 3 s; connections here are kept, and round trips
    /// measured).
    pub rto_min: Duration,
    /// Longest wait for an answer.
    pub rto_max: Duration,
    /// Unanswered probes that are a death (MSPastry §3.1: 2 retries). Each waits twice as long as the last.
    pub probe_attempts: u8,
    /// The same where another node has found the peer dead already, or where it costs no more than a place in a routing
    /// table. (Where both is so, one is enough.) Measured: `lab churn --nodes 2000 --lookups 20000 --warm 300`: with 3, which
    /// turns it off, 73.6 bytes/s/node in place of 71.8, 1.43 messages/s/node in place of 1.41, stretch 1.63 as before.
    pub confirmations: u8,
    /// Unanswered requests for a lease that are a death. They follow each other without a growing wait: two waits for an
    /// answer and 0.3 s, by default, so that a neighbour that died is found dead about when its lease ends.
    pub lease_attempts: u8,
    /// How long a node that was found dead does not return because others name it (guess).
    pub dead_for: Duration,
    /// A node whose deadline passed so long ago is late itself: answers wait unhandled, so that its own waits for them go on
    /// for as long as it was late, up to `rto_max`. Below `rto_min` and `hop_rto_min`; more than a busy driver's turn (guess).
    pub late_from: Duration,
}

impl Default for FailureConfig {
    fn default() -> FailureConfig {
        FailureConfig {
            leaf_probe: Duration::from_secs(3600),
            table_probe: Duration::from_secs(1200),
            target_loss_rate: 0.1,
            rto_min: Duration::from_millis(300),
            rto_max: Duration::from_secs(3),
            probe_attempts: 3,
            confirmations: 2,
            lease_attempts: 4,
            dead_for: Duration::from_secs(60),
            late_from: Duration::from_millis(50),
        }
    }
}

/// Messages between two hops.
#[derive(Clone, Debug)]
pub struct RoutingConfig {
    /// Shortest wait for the acknowledgement of a hop, before the message goes another way.
    pub hop_rto_min: Duration,
    /// Attempts of one hop, over all alternatives, before a message is undeliverable. Each waits twice as long as the last,
    /// up to `failure.rto_max`.
    pub hop_attempts: u8,
    /// How often a hop's wait begins anew, twice as long each time, because its peer was heard meanwhile: it lives, and is slow
    /// (guess). With 4 a hop goes another way after 3.1 s at the soonest where `hop_rto_min` holds; with 0 it does so at once,
    /// and a ring whose nodes are all late by a second sends each message six times.
    pub hop_patience: u8,
    /// Most messages held while waiting for a hop's acknowledgement; further ones are undeliverable (`Overloaded`).
    pub max_pending_hops: usize,
    /// Most messages held while this node, closest to their key, waits for its leases; further ones are
    /// undeliverable (`Overloaded`).
    pub max_parked: usize,
    /// How long such a message waits before it is undeliverable (`NoRoot`).
    pub park_for: Duration,
    /// How many deaths of the first hop of a lookup are to be expected, by how long it was silent and how often others died,
    /// before the lookup goes another way, too (by default a guess: 0.03 did no better in one short `lab churn`;
    /// infinity: it never does). Measured: `lab churn --nodes 2000 --lookups 20000 --warm 300`: without it stretch 1.78 in
    /// place of 1.63, 1.35 messages/s/node in place of 1.41.
    pub hedge_above: f64,
}

impl Default for RoutingConfig {
    fn default() -> RoutingConfig {
        RoutingConfig {
            hop_rto_min: Duration::from_millis(100),
            hop_attempts: 6,
            hop_patience: 4,
            max_pending_hops: 4096,
            max_parked: 1024,
            park_for: Duration::from_secs(10),
            hedge_above: 0.01,
        }
    }
}

/// The exchange of leaf sets.
#[derive(Clone, Debug)]
pub struct RepairConfig {
    /// Mean time between two rounds, jittered by half (Rhea et al. 2004 §3: periodic, not reactive).
    pub period: Duration,
    /// Bytes a second that leaf sets and rows of tables, told to others, take at the most, after a burst of four seconds'
    /// worth (guess: a fifteenth of a link of 1 Mbit/s).
    pub bytes_per_second: u32,
}

impl Default for RepairConfig {
    fn default() -> RepairConfig {
        RepairConfig { period: Duration::from_secs(60), bytes_per_second: 8192 }
    }
}

/// The search for near nodes.
#[derive(Clone, Debug)]
pub struct SearchConfig {
    /// Shortest mean time between two rounds, jittered by half: while they bring something.
    pub period_min: Duration,
    /// Longest: each round that brought nothing doubles the time to the next (guess).
    pub period_max: Duration,
}

impl Default for SearchConfig {
    fn default() -> SearchConfig {
        SearchConfig { period_min: Duration::from_secs(10), period_max: Duration::from_secs(600) }
    }
}

/// Edge nodes, from both sides.
#[derive(Clone, Debug)]
pub struct EdgeConfig {
    /// How often an edge tells its access nodes that it is there. Three silent periods, and it is forgotten.
    pub keepalive: Duration,
    /// Most edge nodes that are attached to one ring node; further ones are refused and told of others.
    pub max: usize,
}

impl Default for EdgeConfig {
    fn default() -> EdgeConfig {
        EdgeConfig { keepalive: Duration::from_secs(1), max: 1024 }
    }
}

/// A configuration that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A leaf set must have as many members on each side, and at least one.
    #[error("tables.leaf_set is {0}: it must be even and at least 2")]
    LeafSet(usize),
    /// A list of all nodes must fit into a frame.
    #[error("tables.full_membership is {0}: at most {max}", max = crate::wire::MAX_PEERS)]
    FullMembership(usize),
    /// A lease must outlive a heartbeat and a lost frame.
    #[error(
        "leases.duration is {lease:?}, leases.heartbeat {heartbeat:?}: between the two there must be time for two answers ({wait:?})"
    )]
    Lease {
        /// As configured.
        lease: Duration,
        /// As configured.
        heartbeat: Duration,
        /// Two of the shortest waits.
        wait: Duration,
    },
    /// The shortest wait for an answer must not be longer than the longest.
    #[error("failure.rto_min is {min:?}, failure.rto_max {max:?}: the first must not be the longer one")]
    Rto {
        /// As configured.
        min: Duration,
        /// As configured.
        max: Duration,
    },
    /// A figure that must not be zero.
    #[error("{0} must not be zero")]
    Zero(&'static str),
}

impl Config {
    /// The same with a change: `Config::default().with(|config| config.tables.leaf_set = 16)`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Config)) -> Config {
        change(&mut self);
        self
    }

    /// Says what contradicts itself, if anything does.
    pub fn check(&self) -> Result<(), ConfigError> {
        let Config { tables, join, leases, failure, routing, repair, search, edges, .. } = self;
        if tables.leaf_set < 2 || tables.leaf_set % 2 == 1 || tables.leaf_set > crate::wire::MAX_PEERS {
            return Err(ConfigError::LeafSet(tables.leaf_set));
        }
        if tables.full_membership > crate::wire::MAX_PEERS {
            return Err(ConfigError::FullMembership(tables.full_membership));
        }
        if failure.rto_min > failure.rto_max {
            return Err(ConfigError::Rto { min: failure.rto_min, max: failure.rto_max });
        }
        let (lease, heartbeat, wait) = (leases.duration, leases.heartbeat, failure.rto_min * 2);
        if lease < heartbeat + wait {
            return Err(ConfigError::Lease { lease, heartbeat, wait });
        }
        // A period of zero would be a timer that never lets anything else happen.
        let figures = [
            ("tables.candidates", tables.candidates == 0),
            ("routing.hop_attempts", routing.hop_attempts == 0),
            ("failure.probe_attempts", failure.probe_attempts == 0),
            ("failure.confirmations", failure.confirmations == 0),
            ("failure.lease_attempts", failure.lease_attempts == 0),
            ("routing.max_pending_hops", routing.max_pending_hops == 0),
            ("leases.heartbeat", leases.heartbeat.is_zero()),
            ("leases.piggyback_after", leases.piggyback_after.is_some_and(|after| after.is_zero())),
            ("failure.leaf_probe", failure.leaf_probe.is_zero()),
            ("failure.table_probe", failure.table_probe.is_zero()),
            ("failure.rto_min", failure.rto_min.is_zero()),
            ("routing.hop_rto_min", routing.hop_rto_min.is_zero()),
            ("failure.late_from", failure.late_from.is_zero()),
            (
                "failure.target_loss_rate",
                failure.target_loss_rate.is_nan() || failure.target_loss_rate <= 0.0,
            ),
            ("repair.period", repair.period.is_zero()),
            ("repair.bytes_per_second", repair.bytes_per_second == 0),
            ("routing.hedge_above", routing.hedge_above.is_nan() || routing.hedge_above <= 0.0),
            ("search.period_min", search.period_min.is_zero()),
            ("join.ask_again", join.ask_again.is_zero()),
            ("edges.keepalive", edges.keepalive.is_zero()),
        ];
        match figures.into_iter().find(|&(_, is_zero)| is_zero) {
            Some((name, _)) => Err(ConfigError::Zero(name)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_would_spin_or_contradict_each_other_are_refused() {
        assert_eq!(Config::default().check(), Ok(()));
        let mut spins = Config::default();
        spins.leases.heartbeat = Duration::ZERO;
        assert_eq!(spins.check(), Err(ConfigError::Zero("leases.heartbeat")));
        let (min, max) = (Duration::from_secs(9), Duration::from_secs(3));
        let mut inverted = Config::default();
        (inverted.failure.rto_min, inverted.failure.rto_max) = (min, max);
        assert_eq!(inverted.check(), Err(ConfigError::Rto { min, max }));
    }
}

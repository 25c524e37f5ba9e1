//! Every figure of the overlay, with its unit, its source and what follows from it.

use std::time::Duration;

/// What a node is in its overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// On the ring: answers for keys and forwards for others.
    Ring,
    /// Uses the overlay through access nodes, and is root of nothing.
    Edge {
        /// Becomes a ring node when it has found no access node for this long; `None` never.
        promote_after: Option<Duration>,
    },
}

/// The overlay's figures. [`Config::default`] is what ships.
#[derive(Clone, Debug)]
pub struct Config {
    /// On the ring or on its edge.
    pub role: Role,
    /// Members of a full leaf set, half of them on each side (design §5: it carries the resilience; Pastry's L).
    pub leaf_set: usize,
    /// Candidates kept per slot of the routing table (design §5; guess). More survive a death without a search.
    pub candidates: usize,
    /// Members of the neighbourhood set (Pastry §2.1, M).
    pub neighbourhood: usize,
    /// How long a lease between ring neighbours runs (design §5, default profile): bounds the time for which a dead
    /// node's range is unclaimed.
    pub lease: Duration,
    /// How old a ring neighbour's lease gets before it is renewed, which is also how often neighbours see that the other
    /// lives. What is left of the lease is for lost frames: each side asks again after a short silence, so
    /// that by default three questions in turn may be lost before a lease lapses, where answers take 0.3 s or less (guess).
    pub heartbeat: Duration,
    /// How old a ring neighbour's lease is when frames that go there anyway begin to carry its renewal; `None`: they never
    /// do. By default early enough that one frame a second each way, a tree's beat, brings question and answer before a
    /// probe is due.
    pub ride_after: Option<Duration>,
    /// After which silence any other leaf-set member is probed: the last resort, since whoever finds a neighbour dead
    /// tells the others (MSPastry §4.1; guess).
    pub leaf_probe: Duration,
    /// After which silence the node in use of a routing-table slot is probed at the latest (guess; messages that it carries
    /// are heard).
    pub table_probe: Duration,
    /// How many dead nodes a message may meet on its way, in the mean, and go around: the probes of the routing table
    /// tune themselves to it, up to once in ten seconds (MSPastry §4.1, there 5 %).
    pub raw_loss: f64,
    /// How many deaths of the first hop of a lookup are to be expected, by how long it was silent and how often others died,
    /// before the lookup goes another way, too (by default a guess: 0.03 did no better in one short `lab churn`;
    /// infinity: it never does). Measured: `lab churn --nodes 2000 --lookups 20000 --warm 300`: without it stretch 1.78 in
    /// place of 1.63, 1.35 messages/s/node in place of 1.41.
    pub doubt: f64,
    /// Shortest wait for an answer to a probe (MSPastry §3.1 waits 3 s; connections here are kept, and round trips
    /// measured).
    pub rto_min: Duration,
    /// Shortest wait for the acknowledgement of a hop, before the message goes another way.
    pub hop_rto_min: Duration,
    /// Longest wait for an answer.
    pub rto_max: Duration,
    /// Unanswered probes that make a verdict (MSPastry §3.1: 2 retries). Each waits twice as long as the last.
    pub probe_attempts: u8,
    /// The same where another one has made the verdict already, or where it costs no more than a place in a routing table.
    /// (Where both is so, one does.) Measured: `lab churn --nodes 2000 --lookups 20000 --warm 300`: with 3, which turns it
    /// off, 73.6 bytes/s/node in place of 71.8, 1.43 messages/s/node in place of 1.41, stretch 1.63 as before.
    pub confirmations: u8,
    /// Unanswered requests for a lease that make a verdict. They follow each other without a growing wait: two waits for an
    /// answer and 0.3 s, by default, so that a neighbour that died is found dead about when its lease ends.
    pub lease_attempts: u8,
    /// While the ring has no more nodes than this, every node knows every node, and routes in one hop (design §5; 0:
    /// never). Each takes 48 bytes at each other.
    pub full_membership: usize,
    /// Mean time between two repair rounds, jittered by half (Rhea et al. 2004 §3: periodic, not reactive).
    pub repair: Duration,
    /// Bytes a second that leaf sets and rows of tables, told to others, take at the most, after a burst of four seconds'
    /// worth (guess: a fifteenth of a link of 1 Mbit/s).
    pub repair_rate: u32,
    /// Shortest mean time between two rounds of looking for nearer nodes, jittered by half: while they bring something.
    pub gossip: Duration,
    /// Longest: each round that brought nothing doubles the time to the next (guess).
    pub gossip_max: Duration,
    /// How long a node that was found dead stays barred from returning by rumour (guess).
    pub bury_for: Duration,
    /// How long an admitted joiner may hold its slot, unless it asks for it again: it does so after half of it. A
    /// joiner that gave up unheard keeps others out for this long.
    pub join_slot: Duration,
    /// How long a start may take before it is given up and said to have failed.
    pub start_timeout: Duration,
    /// How often a node alone in its ring asks its seeds again.
    pub ask_again: Duration,
    /// Attempts of one hop, over all alternatives, before a message is undeliverable.
    pub hop_attempts: u8,
    /// How often an edge tells its access nodes that it is there. Three silent periods, and it is forgotten.
    pub edge_keepalive: Duration,
    /// Most edge nodes that hang on one ring node; further ones are refused and told of others.
    pub max_edges: usize,
    /// Most messages held while waiting for a hop's acknowledgement; further ones are undeliverable (`Overloaded`).
    pub max_pending_hops: usize,
    /// Most messages held while this node, closest to their key, waits for its leases; further ones are
    /// undeliverable (`Overloaded`).
    pub max_parked: usize,
    /// How long such a message waits before it is undeliverable (`NoRoot`).
    pub park_for: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            role: Role::Ring,
            leaf_set: 32,
            candidates: 3,
            neighbourhood: 32,
            lease: Duration::from_secs(4),
            heartbeat: Duration::from_secs(3),
            ride_after: Some(Duration::from_millis(750)),
            leaf_probe: Duration::from_secs(3600),
            table_probe: Duration::from_secs(1200),
            raw_loss: 0.1,
            doubt: 0.01,
            rto_min: Duration::from_millis(300),
            hop_rto_min: Duration::from_millis(100),
            rto_max: Duration::from_secs(3),
            probe_attempts: 3,
            confirmations: 2,
            lease_attempts: 4,
            full_membership: 256,
            repair: Duration::from_secs(60),
            repair_rate: 8192,
            gossip: Duration::from_secs(10),
            gossip_max: Duration::from_secs(600),
            bury_for: Duration::from_secs(60),
            join_slot: Duration::from_secs(4),
            start_timeout: Duration::from_secs(30),
            ask_again: Duration::from_secs(1),
            hop_attempts: 6,
            edge_keepalive: Duration::from_secs(1),
            max_edges: 1024,
            max_pending_hops: 4096,
            max_parked: 1024,
            park_for: Duration::from_secs(10),
        }
    }
}

/// A configuration that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A leaf set must have as many members on each side, and at least one.
    #[error("leaf_set is {0}: it must be even and at least 2")]
    LeafSet(usize),
    /// A list of all nodes must fit into a frame.
    #[error("full_membership is {0}: at most {max}", max = crate::wire::MAX_PEERS)]
    FullMembership(usize),
    /// A lease must outlive a heartbeat and a lost frame.
    #[error(
        "lease is {lease:?}, heartbeat {heartbeat:?}: between the two there must be time for two answers ({wait:?})"
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
    #[error("rto_min is {min:?}, rto_max {max:?}: the first must not be the longer one")]
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
    /// The profile for large quiet rings, with leases of 30 s as FreePastry has them: under churn a fifth of the default's frames.
    /// A dead node's range is unclaimed for half a minute, and for twice as long if its heir dies, too; no lookup goes two
    /// ways, and most of the dead are found by messages that meet them, so lookups take longer; fewer silences make a
    /// verdict, so where many frames are lost, nodes that live lose places in tables now and then.
    pub fn mspastry() -> Config {
        Config {
            lease: Duration::from_secs(30),
            heartbeat: Duration::from_secs(29),
            ride_after: Some(Duration::from_millis(14_500)),
            leaf_probe: Duration::from_secs(3600),
            table_probe: Duration::from_secs(3600),
            raw_loss: 1.0,
            doubt: f64::INFINITY,
            confirmations: 1,
            lease_attempts: 3,
            park_for: Duration::from_secs(35),
            repair: Duration::from_secs(600),
            gossip_max: Duration::from_secs(1800),
            ..Config::default()
        }
    }

    /// Says what contradicts itself, if anything does.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.leaf_set < 2 || self.leaf_set % 2 == 1 || self.leaf_set > crate::wire::MAX_PEERS {
            return Err(ConfigError::LeafSet(self.leaf_set));
        }
        if self.full_membership > crate::wire::MAX_PEERS {
            return Err(ConfigError::FullMembership(self.full_membership));
        }
        if self.rto_min > self.rto_max {
            return Err(ConfigError::Rto { min: self.rto_min, max: self.rto_max });
        }
        let (lease, heartbeat, wait) = (self.lease, self.heartbeat, self.rto_min * 2);
        if lease < heartbeat + wait {
            return Err(ConfigError::Lease { lease, heartbeat, wait });
        }
        // A period of zero would be a timer that never lets anything else happen.
        let figures = [
            ("candidates", self.candidates == 0),
            ("hop_attempts", self.hop_attempts == 0),
            ("probe_attempts", self.probe_attempts == 0),
            ("confirmations", self.confirmations == 0),
            ("lease_attempts", self.lease_attempts == 0),
            ("max_pending_hops", self.max_pending_hops == 0),
            ("heartbeat", self.heartbeat.is_zero()),
            ("ride_after", self.ride_after.is_some_and(|after| after.is_zero())),
            ("leaf_probe", self.leaf_probe.is_zero()),
            ("table_probe", self.table_probe.is_zero()),
            ("rto_min", self.rto_min.is_zero()),
            ("hop_rto_min", self.hop_rto_min.is_zero()),
            ("raw_loss", self.raw_loss.is_nan() || self.raw_loss <= 0.0),
            ("repair", self.repair.is_zero()),
            ("repair_rate", self.repair_rate == 0),
            ("doubt", self.doubt.is_nan() || self.doubt <= 0.0),
            ("gossip", self.gossip.is_zero()),
            ("ask_again", self.ask_again.is_zero()),
            ("edge_keepalive", self.edge_keepalive.is_zero()),
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
        assert_eq!((Config::default().check(), Config::mspastry().check()), (Ok(()), Ok(())));
        let spins = Config { heartbeat: Duration::ZERO, ..Config::default() };
        assert_eq!(spins.check(), Err(ConfigError::Zero("heartbeat")));
        let (min, max) = (Duration::from_secs(9), Duration::from_secs(3));
        let inverted = Config { rto_min: min, rto_max: max, ..Config::default() };
        assert_eq!(inverted.check(), Err(ConfigError::Rto { min, max }));
    }
}

//! Every figure of Scribe, with its unit, its source and what follows from it, in one group for each component.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Bytes that an entry of a window costs at most, beside its own.
const ENTRY: usize = 256;

/// Scribe's figures. [`Config::default`] is what ships.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest payload in bytes; larger ones are refused (`TooLarge`). Header and payload must fit in a frame
    /// (1 MiB by default).
    pub max_payload: usize,
    /// Largest payload of a broadcast in bytes; larger ones are refused. Far below `max_payload`, because each node of
    /// the ring sends it on to up to 16 others, and no node asked for it (guess).
    pub max_broadcast: usize,
    /// A node's trees, and their shape.
    pub tree: TreeConfig,
    /// The part of a topic's log that a node holds.
    pub window: WindowConfig,
    /// The flow of entries to children, and their acknowledgements.
    pub push: PushConfig,
    /// A root: how it prepares its term, and how long it is one.
    pub root: RootConfig,
    /// The messages that wait at a root for those that read.
    pub admission: AdmissionConfig,
    /// The members that hold a topic's log.
    pub replication: ReplicationConfig,
    /// A root's memory of its publishers.
    pub sessions: SessionsConfig,
    /// This node's publishers.
    pub publish: PublishConfig,
    /// Keep-alives between tree neighbours.
    pub beat: BeatConfig,
    /// JOINs of all topics that may be unanswered.
    pub joins: RetryConfig,
    /// Messages of all topics that may be published again.
    pub resends: RetryConfig,
    /// How long leaving may take: by then this node goes although a log may count on it as a member.
    pub leave_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_payload: 512 * KIB,
            max_broadcast: 64 * KIB,
            tree: TreeConfig::default(),
            window: WindowConfig::default(),
            push: PushConfig::default(),
            root: RootConfig::default(),
            admission: AdmissionConfig::default(),
            replication: ReplicationConfig::default(),
            sessions: SessionsConfig::default(),
            publish: PublishConfig::default(),
            beat: BeatConfig::default(),
            joins: RetryConfig { unanswered: 256, per_second: 64 },
            resends: RetryConfig { unanswered: 64, per_second: 32 },
            leave_timeout: Duration::from_secs(5),
        }
    }
}

/// A node's trees, and their shape.
#[derive(Clone, Debug)]
pub struct TreeConfig {
    /// Most trees that this node may be on, as subscriber, forwarder or root (guess). Beyond it subscriptions fail,
    /// JOINs of others pass by, and publishers are refused (`RootFull`).
    pub max_trees: usize,
    /// Most children in one tree, even for a moment (guess). Beyond it a forwarder lets a JOIN pass; a root leaves it
    /// unanswered.
    pub max_children: usize,
    /// Children in one tree beyond which a node hands some over to others of them. 16: so many rows a hop of Pastry
    /// chooses from, so a tree of N nodes is about log₁₆ N deep with or without the limit.
    pub children_per_tree: usize,
    /// The same for the children in all trees together. 48: eight times the mean that the Scribe paper's workload leads
    /// to, and a quarter below the 64 that no node should exceed, since a crowd comes faster than it is led on. A node
    /// that subscribes to many topics, or is root of many, has two for each if that is more; and it yields where every
    /// tree has one child only.
    pub children_per_node: usize,
    /// Most siblings that a child which is handed over is offered, and measures (guess).
    pub offered: usize,
    /// How long a child waits for the answers of those that it was offered.
    pub probe_wait: Duration,
    /// How long a node with too many children waits before it hands some over, jittered by a quarter: a crowd comes
    /// together first. Doubles without success.
    pub hand_over_after: Duration,
    /// How long a forwarder with one child and no subscriber waits before it splices itself out, jittered and doubled
    /// alike.
    pub splice_after: Duration,
    /// After how long an unanswered JOIN is sent again, jittered by a quarter; doubles, up to four times as long.
    pub join_retry: Duration,
    /// How long a subscription may wait for its start (`TimedOut`).
    pub subscribe_timeout: Duration,
    /// How long a node stays on a tree that it no longer needs: a quick return costs nothing.
    pub linger: Duration,
    /// The same for a node that was the root: its successor may ask.
    pub former_root_linger: Duration,
}

impl Default for TreeConfig {
    fn default() -> TreeConfig {
        TreeConfig {
            max_trees: 65_536,
            max_children: 4096,
            children_per_tree: 16,
            children_per_node: 48,
            offered: 16,
            probe_wait: Duration::from_secs(1),
            hand_over_after: Duration::from_secs(1),
            splice_after: Duration::from_secs(2),
            join_retry: Duration::from_secs(1),
            subscribe_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            former_root_linger: Duration::from_secs(30),
        }
    }
}

/// The part of a topic's log that a node holds.
#[derive(Clone, Debug)]
pub struct WindowConfig {
    /// Most messages in one tree's window. Older ones fall out: a reader that still needs them pulls them from further up, or
    /// gets a gap. Far above what `bytes` lets in, because a limit that small messages reach first makes bursts of them gaps.
    pub messages: usize,
    /// Most bytes in one tree's window, counting the buffers that it pins and what an entry costs beside its own bytes.
    pub bytes: usize,
    /// Most bytes in all windows of this node. Beyond it the window that was idle longest shrinks first.
    pub total_bytes: usize,
    /// A received message of fewer bytes is copied into a buffer of its own, so that a small message never pins a
    /// large receive buffer (design §7).
    pub copy_below: usize,
}

impl Default for WindowConfig {
    fn default() -> WindowConfig {
        WindowConfig { messages: 65_536, bytes: 4 * MIB, total_bytes: 64 * MIB, copy_below: 4 * KIB }
    }
}

/// The flow of entries to children, and their acknowledgements.
#[derive(Clone, Debug)]
pub struct PushConfig {
    /// Most messages pushed to a child ahead of its acknowledgement. It acknowledges after a quarter of them.
    pub messages: usize,
    /// Most bytes pushed to a child ahead of its acknowledgement; one message may exceed it. It acknowledges after a
    /// quarter of them, so that pushing never stands still for an acknowledgement (as QUIC and HTTP/2 open their windows,
    /// RFC 9000 §4.2, RFC 9113 §5.2). As large as a topic's window, because the link has its own limit.
    pub bytes: usize,
    /// Nothing is pushed towards a peer for which the transport holds more bytes than this.
    pub high_water: usize,
    /// Shortest wait for an `Attached` to be acknowledged before it is sent again; doubles. Entries wait `ack_delay`
    /// longer, because a child may take so long to acknowledge them.
    pub rto_min: Duration,
    /// Longest such wait.
    pub rto_max: Duration,
    /// A child acknowledges what is less than a quarter of the window with its next beat; without one (the beat was
    /// full) after this long. Above a beat's period, so that a slow topic needs no frame for it.
    pub ack_delay: Duration,
    /// How long a changed count of subscribers waits for others before it is told to the parent.
    pub count_delay: Duration,
}

impl Default for PushConfig {
    fn default() -> PushConfig {
        PushConfig {
            messages: 4096,
            bytes: 4 * MIB,
            high_water: 256 * KIB,
            rto_min: Duration::from_millis(500),
            rto_max: Duration::from_secs(4),
            ack_delay: Duration::from_millis(1200),
            count_delay: Duration::from_millis(200),
        }
    }
}

/// A root: how it prepares its term, and how long it is one.
#[derive(Clone, Debug)]
pub struct RootConfig {
    /// Nodes around a topic's key that a new root asks for the log if it knows of no member (design §6).
    pub queried: usize,
    /// How long a new root waits for their answers before it takes the topic for a new one; and for that of a member that the
    /// ring does not know, before it takes that one for dead. Above the time in which the ring finds a silent neighbour dead.
    pub query_timeout: Duration,
    /// How often it asks again meanwhile.
    pub query_retry: Duration,
    /// How long a root waits before it gives up a majority of members that has ended, and begins the log anew with what
    /// others hold. Meanwhile orphans come, whose windows have most of it. Members that were found dead so long ago are asked
    /// once more before. A root that serves prepares its term again if so long it has not heard a majority.
    pub force_after: Duration,
    /// A root's log without children, subscriptions and publishers is dropped after this long.
    pub idle: Duration,
}

impl Default for RootConfig {
    fn default() -> RootConfig {
        RootConfig {
            queried: 16,
            query_timeout: Duration::from_secs(5),
            query_retry: Duration::from_millis(300),
            force_after: Duration::from_secs(2),
            idle: Duration::from_secs(600),
        }
    }
}

/// The messages that wait at a root for those that read (backpressure; as TCP's receive window, RFC 9293 §3.8.6, but of
/// a whole tree).
#[derive(Clone, Debug)]
pub struct AdmissionConfig {
    /// Most messages that wait at a topic's root because a reader is so far behind that they would push what it lacks out
    /// of the windows; further ones are left to be sent again. 16 publishers' full windows.
    pub messages: usize,
    /// Most bytes of such messages.
    pub bytes: usize,
    /// How long all wait for a subscriber that takes nothing although something waits for it. Then it is left behind,
    /// and gets a gap in the end; as soon as it takes something it counts again. A parent waits for a child half as long
    /// again, because the child decides so of its own subscribers.
    pub patience: Duration,
}

impl Default for AdmissionConfig {
    fn default() -> AdmissionConfig {
        AdmissionConfig { messages: 4096, bytes: 8 * MIB, patience: Duration::from_secs(2) }
    }
}

/// The members that hold a topic's log.
#[derive(Clone, Debug)]
pub struct ReplicationConfig {
    /// How many members a log has: its copies. 3 survives the loss of any one; 1 is classic Scribe: what only a dead root
    /// had is lost, and said so. At most 7.
    pub copies: usize,
    /// A member that was not heard for so long is replaced, whatever the ring says of it: the others decide without it,
    /// so a wrong guess costs a copy only. One that was silent for a beat is asked for a sign of life before.
    pub member_silent: Duration,
    /// How often a root looks at its members while something is open.
    pub review: Duration,
    /// How long a new root with fewer members than it should have keeps messages waiting for the others.
    pub patience: Duration,
    /// How long the receipt of a committed message waits for the members that do not hold it yet.
    pub receipt_patience: Duration,
    /// The same where members are so far away that a few journeys to the farthest take longer.
    pub receipt_patience_max: Duration,
}

impl Default for ReplicationConfig {
    fn default() -> ReplicationConfig {
        ReplicationConfig {
            copies: 3,
            member_silent: Duration::from_secs(2),
            review: Duration::from_millis(300),
            patience: Duration::from_secs(1),
            receipt_patience: Duration::from_millis(200),
            receipt_patience_max: Duration::from_secs(2),
        }
    }
}

/// A root's memory of its publishers.
#[derive(Clone, Debug)]
pub struct SessionsConfig {
    /// Most sessions that this node keeps as root, over all topics (design §6); further ones are refused.
    pub max: usize,
    /// Most sessions of one topic: each entry that names members carries them.
    pub per_topic: usize,
    /// A session that was silent for so long is forgotten (design §6).
    pub idle: Duration,
    /// Messages of a session that may arrive before their predecessors. Of more, the lower numbers stay, and the others are
    /// left to be sent again.
    pub early_messages: usize,
    /// Most bytes of such messages over all sessions of a topic.
    pub early_bytes: usize,
}

impl Default for SessionsConfig {
    fn default() -> SessionsConfig {
        SessionsConfig {
            max: 65_536,
            per_topic: 4096,
            idle: Duration::from_secs(600),
            early_messages: 256,
            early_bytes: 4 * MIB,
        }
    }
}

/// This node's publishers.
#[derive(Clone, Debug)]
pub struct PublishConfig {
    /// Most topics on which this node publishes at a time (`TooManyTopics`).
    pub max_topics: usize,
    /// A publisher that was silent for so long is forgotten; the next message opens a new session.
    pub idle: Duration,
    /// Most messages of one session without receipt; the root remembers as many.
    pub messages: usize,
    /// Most bytes of them; one message may exceed it.
    pub bytes: usize,
    /// Most messages that wait behind those, per topic (`Busy`).
    pub queue: usize,
    /// Most bytes of them.
    pub queue_bytes: usize,
    /// Shortest wait for a receipt before a message is sent again; doubles.
    pub rto_min: Duration,
    /// Longest such wait.
    pub rto_max: Duration,
    /// A message without receipt for so long has an unknown outcome.
    pub timeout: Duration,
}

impl Default for PublishConfig {
    fn default() -> PublishConfig {
        PublishConfig {
            max_topics: 4096,
            idle: Duration::from_secs(600),
            messages: 256,
            bytes: 4 * MIB,
            queue: 1024,
            queue_bytes: 16 * MIB,
            rto_min: Duration::from_secs(1),
            rto_max: Duration::from_secs(8),
            timeout: Duration::from_secs(30),
        }
    }
}

/// Keep-alives between tree neighbours.
#[derive(Clone, Debug)]
pub struct BeatConfig {
    /// How often tree neighbours tell each other that they live (design §6, upkeep).
    pub every: Duration,
    /// Most topics whose high-water mark one beat carries; the others wait for the next.
    pub marks: usize,
    /// A parent silent for so long is given up: three beats.
    pub parent_silent: Duration,
    /// A child silent for so long is dropped.
    pub child_silent: Duration,
}

impl Default for BeatConfig {
    fn default() -> BeatConfig {
        BeatConfig {
            every: Duration::from_secs(1),
            marks: 64,
            parent_silent: Duration::from_secs(3),
            child_silent: Duration::from_secs(10),
        }
    }
}

/// A budget of one node for questions of one kind, over all its topics.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// Questions that may be unanswered at a time; further ones wait (guess: what a node answers within some 20 ms).
    pub unanswered: usize,
    /// How many of them count no more each second, because they or their answers were lost (guess). So many a second are asked
    /// where no answer comes at all: 32 nodes that lost all others send 2,000 JOINs a second, however many topics they have.
    pub per_second: u32,
}

/// A configuration that contradicts itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A figure that must not be zero.
    #[error("{0} must not be zero")]
    Zero(&'static str),
    /// A limit of one that is above the limit of all.
    #[error("{smaller} must not exceed {larger}")]
    Order {
        /// The figure that must be smaller, or equal.
        smaller: &'static str,
        /// The figure that must be larger.
        larger: &'static str,
    },
}

impl Config {
    /// Says what contradicts itself, if anything does.
    pub fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            ("max_payload", self.max_payload),
            ("max_broadcast", self.max_broadcast),
            ("tree.max_trees", self.tree.max_trees),
            ("tree.max_children", self.tree.max_children),
            ("tree.children_per_tree", self.tree.children_per_tree),
            ("tree.children_per_node", self.tree.children_per_node),
            ("window.messages", self.window.messages),
            ("push.messages", self.push.messages),
            ("push.bytes", self.push.bytes),
            ("admission.messages", self.admission.messages),
            ("publish.messages", self.publish.messages),
            ("publish.queue", self.publish.queue),
            ("publish.bytes", self.publish.bytes),
            ("replication.copies", self.replication.copies),
            ("beat.every", self.beat.every.as_nanos() as usize),
            ("joins.unanswered", self.joins.unanswered),
            ("joins.per_second", self.joins.per_second as usize),
            ("resends.unanswered", self.resends.unanswered),
            ("resends.per_second", self.resends.per_second as usize),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, n)| *n == 0) {
            return Err(ConfigError::Zero(name));
        }
        let wrong = |smaller, larger| Err(ConfigError::Order { smaller, larger });
        if self.window.bytes > self.window.total_bytes {
            return wrong("window.bytes", "window.total_bytes");
        }
        if self.max_payload.saturating_add(crate::wire::MAX_DATA_HEADER + ENTRY) > self.window.bytes {
            return wrong("max_payload", "window.bytes (with the header)");
        }
        if self.max_payload > self.admission.bytes {
            return wrong("max_payload", "admission.bytes");
        }
        if self.replication.copies > crate::wire::MAX_MEMBERS {
            return wrong("replication.copies", "7, the most members of a log");
        }
        if self.beat.every > self.beat.parent_silent {
            return wrong("beat.every", "beat.parent_silent");
        }
        if self.push.bytes > self.window.bytes {
            return wrong("push.bytes", "window.bytes");
        }
        if self.push.messages > self.window.messages {
            return wrong("push.messages", "window.messages");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_sound_and_contradictions_are_named() {
        assert_eq!(Config::default().check(), Ok(()));
        let zero = Config { push: PushConfig { messages: 0, ..PushConfig::default() }, ..Config::default() };
        assert_eq!(zero.check(), Err(ConfigError::Zero("push.messages")));
        let large = Config { max_payload: 8 * MIB, ..Config::default() };
        let error = large.check().unwrap_err().to_string();
        assert_eq!(error, "max_payload must not exceed window.bytes (with the header)");
    }
}

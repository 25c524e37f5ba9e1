//! Every figure of Scribe, with its unit, its source and what follows from it.

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Scribe's figures. [`Config::default`] is what ships.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest payload in bytes; larger ones are refused (`TooLarge`). Header and payload must fit in a frame
    /// (1 MiB by default).
    pub max_payload: usize,
    /// Largest payload of a broadcast in bytes; larger ones are refused. Far below `max_payload`, because each node of
    /// the ring sends it on to up to 16 others, and nobody asked for it (guess).
    pub max_broadcast: usize,
    /// Most trees that this node may be on, as subscriber, forwarder or root (guess). Beyond it subscriptions fail,
    /// JOINs of others pass by, and publishers are refused (`RootFull`).
    pub max_trees: usize,
    /// Most children in one tree, even for a moment (guess). Beyond it a forwarder lets a JOIN pass; a root leaves it
    /// unanswered.
    pub max_children: usize,

    /// Children in one tree beyond which a node hands some over to others of them. 16: so many rows a hop of Pastry
    /// chooses from, so a tree of N nodes is about log₁₆ N deep with or without the limit.
    pub tree_children: usize,
    /// The same for the children in all trees together. 48: eight times the mean that the Scribe paper's workload
    /// leads to, and a quarter below the 64 that no node should exceed, since a crowd comes faster than it is led on.
    /// Who subscribes to many topics, or is root of many, has two for each if that is more; and it yields where every
    /// tree has one child only.
    pub node_children: usize,
    /// Most siblings that a child which is handed over is offered, and measures (guess).
    pub offered: usize,
    /// How long a child waits for the answers of those that it was offered.
    pub visit_wait: Duration,
    /// How long a node with too many children waits before it hands some over, jittered by a quarter: a crowd comes
    /// together first. Doubles without success.
    pub hand_over_after: Duration,
    /// How long a forwarder with one child and no subscriber waits before it splices itself out, jittered and doubled
    /// alike.
    pub splice_after: Duration,

    /// Most messages in one tree's window. Older ones fall out: who still needs them gets a gap.
    pub window_messages: usize,
    /// Most bytes in one tree's window, counting the buffers that it pins.
    pub window_bytes: usize,
    /// Most bytes in all windows of this node. Beyond it the window that was idle longest shrinks first.
    pub windows_bytes: usize,
    /// A received message of fewer bytes is copied into a buffer of its own, so that a small message never pins a
    /// large receive buffer (design §7).
    pub copy_below: usize,

    /// Most messages pushed to a child ahead of its acknowledgement.
    pub push_messages: usize,
    /// Most bytes pushed to a child ahead of its acknowledgement; one message may exceed it.
    pub push_bytes: usize,
    /// Nothing is pushed towards a peer for which the transport holds more bytes than this.
    pub high_water: usize,
    /// Shortest wait for a child's acknowledgement before its window is pushed again; doubles without progress.
    pub push_rto_min: Duration,
    /// Longest such wait.
    pub push_rto_max: Duration,
    /// A child acknowledges after so many messages …
    pub ack_every: u64,
    /// … or after this long, whichever comes first.
    pub ack_delay: Duration,
    /// How long a changed count of subscribers waits for others before it is told to the parent.
    pub count_delay: Duration,

    /// How often an unanswered JOIN is sent again, jittered by a quarter.
    pub join_retry: Duration,
    /// How long a subscription may wait for its start (`TimedOut`).
    pub subscribe_timeout: Duration,
    /// How long a node stays on a tree that it no longer needs: a quick return costs nothing.
    pub linger: Duration,
    /// The same for a node that was the root: its successor may ask.
    pub former_linger: Duration,

    /// Nodes around a topic's key that a new root asks for the log (design §6: "asks its leaf set").
    pub queried: usize,
    /// How long a new root waits for their answers.
    pub query_timeout: Duration,
    /// How often it asks again meanwhile.
    pub query_retry: Duration,
    /// How long a new root that knows of an earlier term waits for the orphans' JOINs: their marks bound the gap.
    pub gather: Duration,
    /// How long a new root waits for a handover that was promised, from its last part on.
    pub handover_wait: Duration,
    /// Most bytes of the window in a handover, newest first.
    pub handover_window: usize,
    /// Most bytes of sessions in a handover, last used first. The others' publishers hear `OutcomeUnknown`.
    pub handover_sessions: usize,
    /// How often unacknowledged parts of a handover are sent again.
    pub handover_retry: Duration,
    /// How long a handover is tried, and how long a received one is kept for the day that this node is root.
    pub handover_keep: Duration,
    /// Most bytes of handovers kept by this node; further ones are not taken.
    pub handovers_bytes: usize,
    /// A root's log without children, subscriptions and publishers is dropped after this long.
    pub root_idle: Duration,
    /// Most messages that wait while a new root opens its term; further ones are left to be sent again.
    pub parked_messages: usize,
    /// Most bytes of such messages.
    pub parked_bytes: usize,

    /// Most sessions that this node keeps as root, over all topics (design §6); further ones are refused.
    pub max_sessions: usize,
    /// A session that was silent for so long is forgotten (design §6).
    pub session_idle: Duration,
    /// Messages of a session that may arrive before their predecessors; further ones are left to be sent again.
    pub session_reorder: usize,
    /// Most bytes of such messages over all sessions of a topic.
    pub session_reorder_bytes: usize,

    /// Most topics on which this node publishes at a time (`TooManyTopics`).
    pub max_publishers: usize,
    /// A publisher that was silent for so long is forgotten; the next message opens a new session.
    pub publisher_idle: Duration,
    /// Most messages of one session without receipt; the root remembers as many.
    pub publish_messages: usize,
    /// Most bytes of them; one message may exceed it.
    pub publish_bytes: usize,
    /// Most messages that wait behind those, per topic (`Busy`).
    pub publish_queue: usize,
    /// Most bytes of them.
    pub publish_queue_bytes: usize,
    /// Shortest wait for a receipt before a message is sent again; doubles.
    pub publish_rto_min: Duration,
    /// Longest such wait.
    pub publish_rto_max: Duration,
    /// A message without receipt for so long has an unknown outcome.
    pub publish_timeout: Duration,

    /// How often tree neighbours tell each other that they live (design §6, upkeep).
    pub beat: Duration,
    /// Most topics whose high-water mark one beat carries; the others wait for the next.
    pub beat_marks: usize,
    /// A parent silent for so long is given up: three beats.
    pub parent_silent: Duration,
    /// A child silent for so long is dropped.
    pub child_silent: Duration,
    /// How long leaving may take: handovers not acknowledged by then are lost.
    pub leave_timeout: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_payload: 512 * KIB,
            max_broadcast: 64 * KIB,
            max_trees: 65_536,
            max_children: 4096,
            tree_children: 16,
            node_children: 48,
            offered: 16,
            visit_wait: Duration::from_secs(1),
            hand_over_after: Duration::from_secs(1),
            splice_after: Duration::from_secs(2),
            window_messages: 1024,
            window_bytes: 4 * MIB,
            windows_bytes: 64 * MIB,
            copy_below: 4 * KIB,
            push_messages: 256,
            push_bytes: 256 * KIB,
            high_water: 256 * KIB,
            push_rto_min: Duration::from_millis(500),
            push_rto_max: Duration::from_secs(4),
            ack_every: 16,
            ack_delay: Duration::from_millis(20),
            count_delay: Duration::from_millis(200),
            join_retry: Duration::from_secs(1),
            subscribe_timeout: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            former_linger: Duration::from_secs(30),
            queried: 16,
            query_timeout: Duration::from_secs(1),
            query_retry: Duration::from_millis(300),
            gather: Duration::from_millis(700),
            handover_wait: Duration::from_secs(2),
            handover_window: MIB,
            handover_sessions: MIB,
            handover_retry: Duration::from_millis(500),
            handover_keep: Duration::from_secs(30),
            handovers_bytes: 64 * MIB,
            root_idle: Duration::from_secs(600),
            parked_messages: 256,
            parked_bytes: 4 * MIB,
            max_sessions: 65_536,
            session_idle: Duration::from_secs(600),
            session_reorder: 64,
            session_reorder_bytes: 4 * MIB,
            max_publishers: 4096,
            publisher_idle: Duration::from_secs(600),
            publish_messages: 256,
            publish_bytes: 4 * MIB,
            publish_queue: 1024,
            publish_queue_bytes: 16 * MIB,
            publish_rto_min: Duration::from_secs(1),
            publish_rto_max: Duration::from_secs(4),
            publish_timeout: Duration::from_secs(30),
            beat: Duration::from_secs(1),
            beat_marks: 64,
            parent_silent: Duration::from_secs(3),
            child_silent: Duration::from_secs(10),
            leave_timeout: Duration::from_secs(2),
        }
    }
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
            ("max_trees", self.max_trees),
            ("max_children", self.max_children),
            ("tree_children", self.tree_children),
            ("node_children", self.node_children),
            ("window_messages", self.window_messages),
            ("push_messages", self.push_messages),
            ("push_bytes", self.push_bytes),
            ("publish_messages", self.publish_messages),
            ("publish_queue", self.publish_queue),
            ("publish_bytes", self.publish_bytes),
            ("beat", self.beat.as_nanos() as usize),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, n)| *n == 0) {
            return Err(ConfigError::Zero(name));
        }
        let wrong = |smaller, larger| Err(ConfigError::Order { smaller, larger });
        if self.window_bytes > self.windows_bytes {
            return wrong("window_bytes", "windows_bytes");
        }
        if self.max_payload.saturating_add(crate::wire::MAX_DATA_HEADER) > self.window_bytes {
            return wrong("max_payload", "window_bytes (with the header)");
        }
        if self.beat > self.parent_silent {
            return wrong("beat", "parent_silent");
        }
        if self.push_messages > self.window_messages {
            return wrong("push_messages", "window_messages");
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
        let zero = Config { push_messages: 0, ..Config::default() };
        assert_eq!(zero.check(), Err(ConfigError::Zero("push_messages")));
        let large = Config { max_payload: 8 * MIB, ..Config::default() };
        let error = large.check().unwrap_err().to_string();
        assert_eq!(error, "max_payload must not exceed window_bytes (with the header)");
    }
}

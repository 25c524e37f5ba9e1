//! Messages that wait at the root until those that read the topic have come far enough: the root admits into the log
//! what the slowest of them can still get from everybody's window, so that no reader that goes on reading loses
//! anything, whatever publishers do.
//!
//! A message beyond the limits is left to be sent again: it is dropped without an answer, and its publisher, whose
//! window is full, waits longer and longer.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use treecast_overlay::id::NodeId;

use crate::config::Config;
use crate::log::Log;
use crate::wire::Publish;

/// A message's name: its publisher, session and number.
type Name = (NodeId, u64, u64);

/// Messages that wait for their positions, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    waiting: VecDeque<(Publish, Bytes)>,
    names: BTreeSet<Name>,
    bytes: usize,
    /// They are being admitted.
    under_way: bool,
}

impl Admission {
    /// Whether a log has room for another message: what the slowest reader has not consumed is less than three quarters
    /// of a window. The rest is for what readers learn of each other late.
    pub(crate) fn has_room(log: &Log, consumed: u64, config: &Config) -> bool {
        let (start, end) = (log.window.start(), log.window.end());
        let messages = end.saturating_sub(consumed.max(start));
        4 * log.window.cost_between(consumed, end) < 3 * config.window.bytes as u64
            && 4 * messages < 3 * config.window.messages as u64
    }

    /// Whether a message has to wait because it does already, or one of its session does.
    pub(crate) fn precedes(&self, publish: &Publish) -> bool {
        let (publisher, session, _) = name(publish);
        self.names.range((publisher, session, 0)..=(publisher, session, u64::MAX)).next().is_some()
    }

    /// Keeps a message, unless it waits already, or too many do.
    pub(crate) fn park(&mut self, publish: Publish, payload: Bytes, config: &Config) {
        let fits = self.waiting.len() < config.admission.messages
            && self.bytes + payload.len() <= config.admission.bytes;
        if fits && self.names.insert(name(&publish)) {
            self.bytes += payload.len();
            self.waiting.push_back((publish, payload));
        }
    }

    /// Begins to admit those that wait, unless that is under way.
    pub(crate) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.under_way, true)
    }

    /// No more are admitted for now.
    pub(crate) fn end(&mut self) {
        self.under_way = false;
    }

    /// Hands out the message that waits longest.
    pub(crate) fn take(&mut self) -> Option<(Publish, Bytes)> {
        let (publish, payload) = self.waiting.pop_front()?;
        self.names.remove(&name(&publish));
        self.bytes -= payload.len();
        Some((publish, payload))
    }

    /// How many messages and bytes wait.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }
}

fn name(publish: &Publish) -> Name {
    (publish.publisher.id(), publish.session, publish.sequence)
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::Key;
    use treecast_overlay::peer::{Addr, Peer};

    use super::*;
    use crate::config::AdmissionConfig;
    use crate::topic::TopicId;
    use crate::wire::Signature;

    fn publish(session: u64, sequence: u64) -> Publish {
        let publisher = Peer { id: NodeId(5), incarnation: 1, addr: Addr::Unreachable }.into();
        let (topic, signature) = (TopicId(Key(9)), Signature::None);
        Publish {
            topic,
            publisher,
            session,
            sequence,
            acknowledged: 0,
            resent: false,
            birth: None,
            signature,
        }
    }

    #[test]
    fn messages_wait_once_in_their_order_and_no_more_than_fit() {
        let admission = AdmissionConfig { messages: 3, bytes: 3, ..AdmissionConfig::default() };
        let config = Config { admission, ..Config::default() };
        let mut waiting = Admission::default();
        for (session, sequence) in [(1, 4), (2, 1), (1, 4), (1, 5), (2, 2)] {
            waiting.park(publish(session, sequence), Bytes::from_static(b"x"), &config);
        }
        assert_eq!(waiting.waiting(), (3, 3), "what is sent again waits already");
        assert!(waiting.precedes(&publish(1, 9)) && !waiting.precedes(&publish(3, 1)));
        let order = std::iter::from_fn(|| waiting.take().map(|(publish, _)| publish));
        let order: Vec<_> = order.map(|publish| (publish.session, publish.sequence)).collect();
        assert_eq!(order, [(1, 4), (2, 1), (1, 5)]);
        assert!(!waiting.precedes(&publish(1, 9)));
    }
}

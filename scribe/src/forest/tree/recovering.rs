//! A root that has not opened its term yet: it asks the nodes around the key, and waits for them, though not long
//! (design §6).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;

use super::sequencer::Sequencer;
use crate::config::Config;
use crate::forest::handoffs::ReceivedHandoff;
use crate::wire::Publish;

/// Messages that wait for the term.
pub(crate) type Parked = VecDeque<(Publish, Bytes)>;

/// A root that has not opened its term yet.
#[derive(Debug)]
pub(crate) struct Recovering {
    since: Instant,
    /// Nodes that were asked and have not answered.
    awaiting: BTreeMap<NodeId, Contact>,
    /// When they are asked again.
    ask_at: Instant,
    /// When an earlier term became known.
    learned: Option<Instant>,
    /// Until when a promised handoff is waited for.
    promised: Option<Instant>,
    pub handoff: Option<ReceivedHandoff>,
    /// Its state as the root before its leases ended for a while. It goes on with its term, unless some node knows of
    /// more.
    pub resumes: Option<Box<Sequencer>>,
    parked: Parked,
    parked_bytes: usize,
}

/// The next step of a recovering root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecoveryStep {
    /// Open the term.
    Open,
    /// Ask these, and look again at that time.
    Wait { until: Instant, ask: Vec<Contact> },
}

impl Recovering {
    /// Asks these nodes. `knows_term`: an earlier term is known already. `resumes`: this node was the root itself,
    /// until its leases ended for a while.
    pub(crate) fn new(
        now: Instant,
        around: Vec<Peer>,
        knows_term: bool,
        handoff: Option<ReceivedHandoff>,
        resumes: Option<Box<Sequencer>>,
    ) -> Recovering {
        Recovering {
            since: now,
            awaiting: around.into_iter().map(|peer| (peer.id, peer.into())).collect(),
            ask_at: now,
            // Another node that was the root meanwhile, if any was, stands next to this one: no orphans are waited for.
            learned: (knows_term && resumes.is_none()).then_some(now),
            promised: None,
            handoff,
            resumes,
            parked: Parked::new(),
            parked_bytes: 0,
        }
    }

    /// Notes that a node has answered, or is dead. Returns whether it was waited for.
    pub(crate) fn stop_awaiting(&mut self, node: NodeId) -> bool {
        self.awaiting.remove(&node).is_some()
    }

    /// Notes that a handoff was promised, or that a part of it came.
    pub(crate) fn promise(&mut self, until: Instant) {
        self.promised = Some(until);
    }

    /// Notes that an earlier term became known.
    pub(crate) fn learn(&mut self, now: Instant) {
        self.learned.get_or_insert(now);
    }

    /// Decides on the next step.
    pub(crate) fn step(&mut self, now: Instant, config: &Config) -> RecoveryStep {
        let Some(until) = self.waits_until(now, config) else { return RecoveryStep::Open };
        let mut ask = Vec::new();
        if self.ask_at <= now && !self.awaiting.is_empty() {
            self.ask_at = now + config.root.query_retry;
            ask.extend(self.awaiting.values().copied());
        }
        let until = if self.awaiting.is_empty() { until } else { until.min(self.ask_at) };
        RecoveryStep::Wait { until, ask }
    }

    /// Until when to wait; `None`: not any longer.
    fn waits_until(&self, now: Instant, config: &Config) -> Option<Instant> {
        if self.handoff.is_some() {
            return None;
        }
        let answers = (!self.awaiting.is_empty()).then_some(self.since + config.root.query_timeout);
        // A term is above every term that its root learns from JOINs: the orphans get a moment to come.
        let orphans = self.learned.map(|at| at + config.root.gather);
        [answers, orphans, self.promised].into_iter().flatten().filter(|&at| at > now).max()
    }

    /// Keeps a message until the term is open. Beyond the limit it is left to be sent again.
    pub(crate) fn park(&mut self, publish: Publish, payload: Bytes, config: &Config) {
        let fits = self.parked_bytes + payload.len() <= config.root.parked_bytes;
        if self.parked.len() < config.root.parked_messages && fits {
            self.parked_bytes += payload.len();
            self.parked.push_back((publish, payload));
        }
    }

    /// Messages and bytes that wait for the term.
    pub(crate) fn parked(&self) -> (usize, usize) {
        (self.parked.len(), self.parked_bytes)
    }

    /// Hands out the messages that waited.
    pub(crate) fn take_parked(&mut self) -> Parked {
        self.parked_bytes = 0;
        std::mem::take(&mut self.parked)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use treecast_overlay::peer::Addr;

    use super::*;

    fn around() -> Vec<Peer> {
        let peer = |id| Peer { id: NodeId(id), incarnation: 1, addr: Addr::Unreachable };
        vec![peer(1), peer(2)]
    }

    fn after(wait: Duration) -> Instant {
        Instant::ZERO + wait
    }

    #[test]
    fn a_root_opens_its_term_when_all_have_answered_and_the_orphans_had_their_moment() {
        let config = Config::default();
        let mut root = Recovering::new(Instant::ZERO, around(), false, None, None);
        let RecoveryStep::Wait { until, ask } = root.step(Instant::ZERO, &config) else { panic!() };
        assert_eq!((until, ask.len()), (after(config.root.query_retry), 2));
        assert!(root.stop_awaiting(NodeId(1)) && !root.stop_awaiting(NodeId(1)));
        root.learn(Instant::ZERO);
        root.stop_awaiting(NodeId(2));
        let wait = RecoveryStep::Wait { until: after(config.root.gather), ask: Vec::new() };
        assert_eq!(root.step(Instant::ZERO, &config), wait);
        assert_eq!(root.step(after(config.root.gather), &config), RecoveryStep::Open);
    }

    #[test]
    fn a_promised_handoff_is_waited_for_and_silence_is_not() {
        let config = Config::default();
        let mut root = Recovering::new(Instant::ZERO, around(), true, None, None);
        assert_eq!(root.step(after(config.root.query_timeout), &config), RecoveryStep::Open);
        let until = after(config.root.query_timeout * 2);
        root.promise(until);
        let RecoveryStep::Wait { .. } = root.step(after(config.root.query_timeout), &config) else {
            panic!()
        };
        assert_eq!(root.step(until, &config), RecoveryStep::Open);
    }

    #[test]
    fn alone_nothing_is_waited_for() {
        let mut root = Recovering::new(Instant::ZERO, Vec::new(), false, None, None);
        assert_eq!(root.step(Instant::ZERO, &Config::default()), RecoveryStep::Open);
    }
}

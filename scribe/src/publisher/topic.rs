//! One life of one publisher on one topic: numbers its messages, sends them again until the root has positioned them,
//! and reports the outcome of each (design §6, publishing).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::time::{Instant, earliest};

use super::round_trip::RoundTrip;
use crate::config::Config;
use crate::event::Token;
use crate::message::{MessageId, PublishError};
use crate::wire::{Nack, RefusedReason};

/// Most messages that one time-out sends again: enough to fill a hole, too few to flood a root that is only slow.
const RESEND_AT_ONCE: usize = 32;

/// A publisher's state on one topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicPublisher {
    me: NodeId,
    session: u64,
    /// Sequence of the next message that is sent for the first time.
    next: u64,
    /// Not sent yet, in order.
    queue: VecDeque<(Token, Bytes)>,
    queue_bytes: usize,
    /// Sent, without receipt.
    flight: BTreeMap<u64, InFlight>,
    flight_bytes: usize,
    /// Where the last receipt came from.
    root: Option<Contact>,
    round_trip: Option<RoundTrip>,
    /// How long a receipt takes at this node's other topics; counts while none was measured here.
    usual: Duration,
    /// When a message was last sent again: until those sent later have their receipts, none tells a round trip.
    resent: Option<Instant>,
    /// Time-outs in a row: each doubles the wait.
    backoff: u32,
    /// When the oldest message without a receipt came to be the oldest: a root that is only slow makes progress, and the
    /// others wait for it from then on.
    progress: Instant,
    /// The root before it was silent for long. If it answers, it has what was sent to it.
    silent: Option<Contact>,
    /// The birth of the log in which this session's messages are.
    birth: Option<u64>,
    used: Instant,
}

#[derive(Clone, Debug)]
struct InFlight {
    token: Token,
    payload: Bytes,
    first_sent: Instant,
    last_sent: Instant,
    sends: u32,
    /// It is to be sent again.
    due: bool,
}

/// A message to send.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub session: u64,
    pub sequence: u64,
    /// All up to this sequence have their receipts.
    pub acknowledged: u64,
    /// How often it is sent with this time.
    pub sends: u32,
    pub payload: Bytes,
    /// The birth of the log in which the session's messages are, if that is known.
    pub birth: Option<u64>,
    /// Where to send it; `None`: route it.
    pub root: Option<Contact>,
}

/// A message that has its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipted {
    pub token: Token,
    pub id: MessageId,
    /// How long the receipt took, if that can be told.
    pub took: Option<Duration>,
}

impl TopicPublisher {
    pub(crate) fn new(now: Instant, me: NodeId, session: u64) -> TopicPublisher {
        TopicPublisher {
            me,
            session,
            next: 1,
            queue: VecDeque::new(),
            queue_bytes: 0,
            flight: BTreeMap::new(),
            flight_bytes: 0,
            root: None,
            round_trip: None,
            usual: Duration::ZERO,
            resent: None,
            backoff: 0,
            progress: now,
            silent: None,
            birth: None,
            used: now,
        }
    }

    /// When it was last of use.
    pub(crate) fn used(&self) -> Instant {
        self.used
    }

    /// Hears how long a receipt takes at this node's other topics.
    pub(crate) fn expect(&mut self, usual: Duration) {
        self.usual = usual;
    }

    /// Whether the oldest message is given up now.
    pub(crate) fn is_over(&self, now: Instant, config: &Config) -> bool {
        let oldest = self.flight.first_key_value();
        oldest.is_some_and(|(_, oldest)| oldest.first_sent.max(self.progress) + config.publish.timeout <= now)
    }

    /// Whether nothing waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.flight.is_empty()
    }

    /// Messages that wait for a receipt, and messages that wait behind them (promise O5). One message may exceed the
    /// limit of bytes.
    pub(crate) fn sizes(&self, config: &Config) -> [(&'static str, usize, usize); 4] {
        let bytes = |messages: usize, bytes: usize| if messages == 1 { 0 } else { bytes };
        let flight = bytes(self.flight.len(), self.flight_bytes);
        let queued = bytes(self.queue.len(), self.queue_bytes);
        [
            ("messages without receipt", self.flight.len(), config.publish.messages),
            ("bytes without receipt", flight, config.publish.bytes),
            ("messages to be published", self.queue.len(), config.publish.queue),
            ("bytes to be published", queued, config.publish.queue_bytes),
        ]
    }

    /// Queues a message.
    pub(crate) fn offer(
        &mut self,
        now: Instant,
        config: &Config,
        token: Token,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        let full = self.queue.len() >= config.publish.queue
            || (!self.queue.is_empty() && self.queue_bytes + payload.len() > config.publish.queue_bytes);
        if full {
            return Err(PublishError::Busy { limit: config.publish.messages + config.publish.queue });
        }
        self.used = now;
        self.queue_bytes += payload.len();
        self.queue.push_back((token, payload));
        Ok(())
    }

    /// The next message to send now, if any: first those that are due again, then new ones while the window allows.
    ///
    /// `told`: the root, by the tree's account. That may be old: only what was never sent goes there, and opens no
    /// window. A root that is none any more passes it on; one that is silent leaves it to the ring.
    pub(crate) fn poll_send(
        &mut self,
        now: Instant,
        config: &Config,
        told: Option<Contact>,
    ) -> Option<Outgoing> {
        let again = self.flight.iter().find(|(_, flight)| flight.due).map(|(&sequence, _)| sequence);
        let sequence = match again {
            Some(sequence) => sequence,
            None => self.admit(now, config)?,
        };
        let acknowledged = self.acknowledged();
        let flight = self.flight.get_mut(&sequence)?;
        flight.due = false;
        flight.last_sent = now;
        flight.sends = flight.sends.saturating_add(1);
        if flight.sends > 1 {
            self.resent = Some(now);
        }
        Some(Outgoing {
            session: self.session,
            sequence,
            acknowledged,
            sends: flight.sends,
            payload: flight.payload.clone(),
            birth: self.birth,
            root: self.root.or(told.filter(|_| flight.sends == 1)),
        })
    }

    /// Moves a message from the queue into the window, if there is room. Until the root is known one message flies
    /// alone: routed messages may overtake each other.
    fn admit(&mut self, now: Instant, config: &Config) -> Option<u64> {
        let (_, payload) = self.queue.front()?;
        let window = if self.root.is_some() { config.publish.messages } else { 1 };
        let span = self.flight.first_key_value().map_or(0, |(&first, _)| self.next - first);
        let no_room = span >= window as u64 || self.flight_bytes + payload.len() > config.publish.bytes;
        if no_room && !self.flight.is_empty() {
            return None;
        }
        let (token, payload) = self.queue.pop_front()?;
        self.queue_bytes -= payload.len();
        self.flight_bytes += payload.len();
        let sequence = self.next;
        self.next += 1;
        let flight = InFlight { token, payload, first_sent: now, last_sent: now, sends: 0, due: false };
        self.flight.insert(sequence, flight);
        Some(sequence)
    }

    fn acknowledged(&self) -> u64 {
        self.flight.first_key_value().map_or(self.next, |(&first, _)| first) - 1
    }

    /// When [`on_timeout`](TopicPublisher::on_timeout) wants to be called.
    pub(crate) fn deadline(&self, config: &Config) -> Option<Instant> {
        let (_, oldest) = self.flight.first_key_value()?;
        let given_up = oldest.first_sent.max(self.progress) + config.publish.timeout;
        earliest(Some(given_up), Some(oldest.last_sent.max(self.progress) + self.rto(config)))
    }

    fn rto(&self, config: &Config) -> Duration {
        let measured = self.round_trip.map_or(self.usual, RoundTrip::limit);
        let wait = measured.max(config.publish.rto_min);
        wait.saturating_mul(1 << self.backoff.min(16)).min(config.publish.rto_max)
    }

    /// Marks messages that waited too long as due, or gives all of them up. Returns those that failed.
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        config: &Config,
        new_session: u64,
    ) -> Vec<(Token, PublishError)> {
        if self.is_over(now, config) {
            return self.abandon(new_session);
        }
        let rto = self.rto(config);
        let progress = self.progress;
        let late = |flight: &&mut InFlight| flight.last_sent.max(progress) + rto <= now;
        // Without a known root, one message finds it; the others follow directly.
        let count = if self.root.is_some() { RESEND_AT_ONCE } else { 1 };
        let mut any = false;
        for flight in self.flight.values_mut().filter(late).take(count) {
            flight.due = true;
            any = true;
        }
        if any {
            self.backoff = self.backoff.saturating_add(1);
        }
        if self.backoff > 1 {
            // Twice in a row is more than a lost message: maybe another node is the root now.
            self.silent = self.root.take().or(self.silent);
        }
        Vec::new()
    }

    /// A receipt came. Returns the message that it is for.
    pub(crate) fn on_receipt(
        &mut self,
        now: Instant,
        session: u64,
        sequence: u64,
        root: Contact,
        birth: u64,
    ) -> Option<Receipted> {
        if session != self.session {
            return None;
        }
        let oldest = self.flight.first_key_value().is_some_and(|(&first, _)| first == sequence);
        let flight = self.flight.remove(&sequence)?;
        let (sent, mut took) = (flight.last_sent, None);
        if oldest {
            self.progress = now;
        }
        self.flight_bytes -= flight.payload.len();
        self.used = now;
        self.backoff = 0;
        self.birth = Some(birth);
        if flight.sends == 1 && self.resent.is_none_or(|resent| flight.first_sent > resent) {
            // Karn: the receipt of a repeated message says nothing of the time; nor does that of one that had to wait
            // for it.
            let sample = now.since(flight.last_sent);
            self.round_trip = Some(RoundTrip::after(self.round_trip, sample));
            took = Some(sample);
        }
        let known = self.root.or(self.silent.take());
        self.root = Some(root);
        if known == Some(root) {
            // Receipts come in the order of the log: those before it were lost.
            self.flight.range_mut(..sequence).for_each(|(_, before)| before.due |= before.last_sent <= sent);
        } else {
            self.flight.values_mut().for_each(|flight| flight.due = true);
        }
        Some(Receipted { token: flight.token, id: self.id(sequence), took })
    }

    /// The root lacks messages that were sent before one that it has: they go again at once. A root that asks more than
    /// once, because its answer is under way, gets them once.
    pub(crate) fn on_nack(&mut self, nack: &Nack) {
        let seen = self.flight.get(&nack.seen).filter(|_| nack.session == self.session);
        let Some(sent) = seen.map(|seen| seen.last_sent) else { return };
        for &sequence in nack.missing.iter().filter(|&&sequence| sequence < nack.seen) {
            if let Some(lost) = self.flight.get_mut(&sequence) {
                lost.due |= lost.last_sent <= sent;
            }
        }
    }

    /// The root took a message not. The session is over; what else was in flight has an unknown outcome, and is never
    /// sent again. Returns those that failed.
    pub(crate) fn on_refused(
        &mut self,
        session: u64,
        sequence: u64,
        reason: RefusedReason,
        new_session: u64,
    ) -> Vec<(Token, PublishError)> {
        if session != self.session {
            return Vec::new();
        }
        let Some(refused) = self.flight.get(&sequence) else { return Vec::new() };
        let certain = match reason {
            RefusedReason::NotRoot { root } => {
                self.on_root_moved(root);
                return Vec::new();
            }
            RefusedReason::OtherBirth { birth, repeated } => {
                return self.on_other_birth(sequence, birth, repeated, new_session);
            }
            RefusedReason::UnknownSession => None,
            RefusedReason::Full => Some((refused.token, PublishError::RootFull)),
            RefusedReason::TooLarge { limit } => {
                let limit = usize::try_from(limit).unwrap_or(usize::MAX);
                Some((refused.token, PublishError::TooLarge { len: refused.payload.len(), limit }))
            }
        };
        let mut failed = self.abandon(new_session);
        if let Some((token, error)) = certain {
            failed.iter_mut().filter(|(other, _)| *other == token).for_each(|entry| entry.1 = error.clone());
        }
        failed
    }

    /// Another node is the root now: what is in flight goes there.
    fn on_root_moved(&mut self, root: Option<Contact>) {
        (self.root, self.silent) = (root, None);
        let count = if root.is_some() { usize::MAX } else { 1 };
        self.flight.values_mut().take(count).for_each(|flight| flight.due = true);
    }

    /// The log has begun anew. The refused message is in it nowhere if it was sent but once, and goes on in a new session;
    /// the others may be in the earlier log.
    fn on_other_birth(
        &mut self,
        sequence: u64,
        birth: u64,
        repeated: bool,
        new_session: u64,
    ) -> Vec<(Token, PublishError)> {
        let sent_once = self.flight.get(&sequence).is_some_and(|flight| flight.sends == 1 && !repeated);
        let kept = if sent_once { self.flight.remove(&sequence) } else { None };
        let failed = self.abandon(new_session);
        self.birth = Some(birth);
        if let Some(flight) = kept {
            self.queue_bytes += flight.payload.len();
            self.queue.push_front((flight.token, flight.payload));
        }
        failed
    }

    /// Gives up what is in flight, and opens a new session for what waits.
    fn abandon(&mut self, new_session: u64) -> Vec<(Token, PublishError)> {
        let failed = std::mem::take(&mut self.flight);
        let failed = failed
            .into_iter()
            .map(|(sequence, flight)| (flight.token, PublishError::OutcomeUnknown { id: self.id(sequence) }))
            .collect();
        self.flight_bytes = 0;
        self.session = new_session;
        self.next = 1;
        (self.root, self.silent) = (None, None);
        self.backoff = 0;
        failed
    }

    /// A node is down: if it was the root, the oldest message looks for the next one at once.
    pub(crate) fn on_peer_down(&mut self, peer: NodeId) {
        if self.root.or(self.silent).is_some_and(|root| root.id() == peer) {
            (self.root, self.silent) = (None, None);
            if let Some(mut oldest) = self.flight.first_entry() {
                oldest.get_mut().due = true;
            }
        }
    }

    /// The node stops. Returns everything that waits, with its fate.
    pub(crate) fn stop(mut self) -> Vec<(Token, PublishError)> {
        let mut failed = self.abandon(0);
        failed.extend(self.queue.drain(..).map(|(token, _)| (token, PublishError::Stopped)));
        failed
    }

    fn id(&self, sequence: u64) -> MessageId {
        MessageId { publisher: self.me, session: self.session, sequence }
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::Key;
    use treecast_overlay::peer::{Addr, Peer};

    use super::*;
    use crate::config::PublishConfig;
    use crate::topic::TopicId;

    const BIRTH: u64 = 5;

    fn contact(id: u128) -> Contact {
        Peer { id: NodeId(id), incarnation: 1, addr: Addr::Memory(0) }.into()
    }

    fn with_messages(count: u64) -> (TopicPublisher, Config) {
        let config = Config {
            publish: PublishConfig { messages: 4, queue: 8, ..PublishConfig::default() },
            ..Config::default()
        };
        let mut publisher = TopicPublisher::new(Instant::ZERO, NodeId(1), 77);
        for token in 1..=count {
            publisher.offer(Instant::ZERO, &config, Token(token), Bytes::from_static(b"x")).unwrap();
        }
        (publisher, config)
    }

    fn sends(publisher: &mut TopicPublisher, now: Instant, config: &Config) -> Vec<(u64, u64, bool)> {
        std::iter::from_fn(|| publisher.poll_send(now, config, None))
            .map(|out| (out.session, out.sequence, out.sends > 1))
            .collect()
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn one_message_finds_the_root_and_a_window_follows() {
        let (mut publisher, config) = with_messages(7);
        assert_eq!(sends(&mut publisher, Instant::ZERO, &config), [(77, 1, false)]);
        let Receipted { token, id, took } =
            publisher.on_receipt(Instant::ZERO, 77, 1, contact(9), BIRTH).unwrap();
        assert_eq!((token, id.sequence, took), (Token(1), 1, Some(Duration::ZERO)));
        assert!(
            publisher.on_receipt(Instant::ZERO, 77, 1, contact(9), BIRTH).is_none(),
            "the same receipt twice"
        );
        let next = sends(&mut publisher, Instant::ZERO, &config);
        assert_eq!(next, [(77, 2, false), (77, 3, false), (77, 4, false), (77, 5, false)]);
    }

    #[test]
    fn what_the_root_lacks_is_sent_again_once_for_each_later_one() {
        let (mut publisher, config) = with_messages(6);
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_receipt(Instant::ZERO, 77, 1, contact(9), BIRTH).unwrap();
        sends(&mut publisher, Instant::ZERO, &config);
        let nack = |session, seen| Nack { topic: TopicId(Key(7)), session, missing: vec![1, 2, 4, 5], seen };
        publisher.on_nack(&nack(76, 4));
        publisher.on_nack(&nack(77, 9));
        assert_eq!(
            sends(&mut publisher, seconds(1), &config),
            [],
            "another session's word, and one never sent"
        );
        publisher.on_nack(&nack(77, 4));
        assert_eq!(
            sends(&mut publisher, seconds(1), &config),
            [(77, 2, true)],
            "what was sent before the fourth"
        );
        publisher.on_nack(&nack(77, 5));
        assert_eq!(sends(&mut publisher, seconds(2), &config), [(77, 4, true)], "the second is on its way");
    }

    #[test]
    fn a_receipt_that_was_overtaken_was_lost() {
        let (mut publisher, config) = with_messages(5);
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_receipt(Instant::ZERO, 77, 1, contact(9), BIRTH).unwrap();
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_receipt(seconds(1), 77, 3, contact(9), BIRTH).unwrap();
        assert_eq!(sends(&mut publisher, seconds(1), &config), [(77, 2, true)]);
        publisher.on_receipt(seconds(1), 77, 4, contact(9), BIRTH).unwrap();
        assert_eq!(sends(&mut publisher, seconds(1), &config), [], "it was sent again since");
    }

    #[test]
    fn a_root_that_was_only_told_gets_one_message_and_no_second_try() {
        let (mut publisher, config) = with_messages(3);
        let told = Some(contact(9));
        let next =
            |publisher: &mut TopicPublisher, at| publisher.poll_send(at, &config, told).map(|out| out.root);
        assert_eq!(next(&mut publisher, Instant::ZERO), Some(told));
        assert_eq!(next(&mut publisher, Instant::ZERO), None, "it opens no window");
        publisher.on_timeout(seconds(1), &config, 0);
        assert_eq!(next(&mut publisher, seconds(1)), Some(None), "the ring knows better");
        publisher.on_receipt(seconds(1), 77, 1, contact(8), BIRTH).unwrap();
        assert_eq!(next(&mut publisher, seconds(1)), Some(Some(contact(8))), "a receipt proves more");
    }

    #[test]
    fn a_full_queue_says_so() {
        let (mut publisher, config) = with_messages(8);
        let refused = publisher.offer(Instant::ZERO, &config, Token(9), Bytes::new());
        assert_eq!(refused, Err(PublishError::Busy { limit: 12 }));
    }

    #[test]
    fn silence_is_answered_by_sending_again_and_in_the_end_by_the_truth() {
        let (mut publisher, config) = with_messages(2);
        sends(&mut publisher, Instant::ZERO, &config);
        assert_eq!(publisher.deadline(&config), Some(seconds(1)));
        publisher.expect(Duration::from_secs(2));
        assert_eq!(publisher.deadline(&config), Some(seconds(2)), "as long as other topics' take");
        publisher.expect(Duration::ZERO);
        assert_eq!(publisher.on_timeout(seconds(1), &config, 0), []);
        assert_eq!(sends(&mut publisher, seconds(1), &config), [(77, 1, true)]);
        assert_eq!(publisher.deadline(&config), Some(seconds(3)), "the wait doubles");
        let id = MessageId { publisher: NodeId(1), session: 77, sequence: 1 };
        let failed = publisher.on_timeout(seconds(30), &config, 78);
        assert_eq!(failed, [(Token(1), PublishError::OutcomeUnknown { id })]);
        assert_eq!(
            sends(&mut publisher, seconds(30), &config),
            [(78, 1, false)],
            "the second was never sent"
        );
    }

    #[test]
    fn a_refused_session_is_never_sent_again() {
        let (mut publisher, config) = with_messages(6);
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_receipt(Instant::ZERO, 77, 1, contact(9), BIRTH);
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_peer_down(NodeId(9));
        assert_eq!(sends(&mut publisher, seconds(1), &config), [(77, 2, true)]);
        let failed = publisher.on_refused(77, 2, RefusedReason::UnknownSession, 78);
        let tokens: Vec<_> = failed.iter().map(|(token, _)| token.0).collect();
        assert_eq!(tokens, [2, 3, 4, 5]);
        assert!(failed.iter().all(|(_, error)| matches!(error, PublishError::OutcomeUnknown { .. })));
        assert_eq!(sends(&mut publisher, seconds(1), &config), [(78, 1, false)]);
        assert_eq!(publisher.on_refused(77, 1, RefusedReason::Full, 79), [], "an old session's word");
    }

    #[test]
    fn a_new_root_gets_what_is_in_flight_directly() {
        let (mut publisher, config) = with_messages(4);
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_receipt(Instant::ZERO, 77, 1, contact(9), BIRTH);
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_peer_down(NodeId(9));
        sends(&mut publisher, seconds(1), &config);
        publisher.on_receipt(seconds(1), 77, 2, contact(10), BIRTH);
        let out: Vec<_> = std::iter::from_fn(|| publisher.poll_send(seconds(1), &config, None)).collect();
        assert!(out.iter().all(|out| out.root.map(|root| root.id()) == Some(NodeId(10)) && out.sends > 1));
        assert_eq!(out.iter().map(|out| out.sequence).collect::<Vec<_>>(), [3, 4]);
    }

    #[test]
    fn a_root_that_is_slow_and_makes_progress_is_neither_flooded_nor_given_up() {
        let (mut publisher, config) = with_messages(5);
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_receipt(Instant::ZERO, 77, 1, contact(9), BIRTH);
        assert_eq!(sends(&mut publisher, Instant::ZERO, &config).len(), 4);
        publisher.on_receipt(seconds(20), 77, 2, contact(9), BIRTH);
        assert_eq!(publisher.on_timeout(seconds(20), &config, 78), []);
        assert_eq!(sends(&mut publisher, seconds(20), &config), [], "the others wait since then");
        assert_eq!(publisher.on_timeout(seconds(49), &config, 78), []);
        publisher.on_timeout(seconds(49), &config, 78);
        let again = sends(&mut publisher, seconds(49), &config);
        assert_eq!(again, [(77, 3, true), (77, 4, true), (77, 5, true)]);
        assert_eq!(publisher.on_timeout(seconds(50), &config, 78).len(), 3, "it is silent");
    }

    #[test]
    fn a_receipt_that_was_lost_is_asked_for_though_later_ones_come() {
        let (mut publisher, config) = with_messages(3);
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_receipt(Instant::ZERO, 77, 1, contact(9), BIRTH);
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_receipt(seconds(1), 77, 3, contact(9), BIRTH);
        publisher.on_timeout(seconds(2), &config, 78);
        assert_eq!(sends(&mut publisher, seconds(2), &config), [(77, 2, true)]);
    }

    #[test]
    fn a_root_that_was_one_names_the_next_and_all_that_flies_goes_there() {
        let (mut publisher, config) = with_messages(4);
        sends(&mut publisher, Instant::ZERO, &config);
        publisher.on_receipt(Instant::ZERO, 77, 1, contact(9), BIRTH);
        sends(&mut publisher, Instant::ZERO, &config);
        let next = RefusedReason::NotRoot { root: Some(contact(10)) };
        assert_eq!(publisher.on_refused(77, 3, next, 78), []);
        let out: Vec<_> = std::iter::from_fn(|| publisher.poll_send(seconds(1), &config, None)).collect();
        assert_eq!(out.iter().map(|out| out.sequence).collect::<Vec<_>>(), [2, 3, 4], "in its session");
        assert!(out.iter().all(|out| out.session == 77 && out.birth == Some(BIRTH)));
        assert!(out.iter().all(|out| out.root.map(|root| root.id()) == Some(NodeId(10)) && out.sends == 2));
        assert_eq!(publisher.on_refused(77, 2, RefusedReason::NotRoot { root: None }, 78), []);
        let routed = publisher.poll_send(seconds(2), &config, None).unwrap();
        assert_eq!((routed.sequence, routed.root), (2, None), "one finds it, and the others wait");
        assert!(publisher.poll_send(seconds(2), &config, None).is_none());
    }

    #[test]
    fn of_another_birth_only_what_was_sent_but_once_goes_on() {
        let other = |repeated| RefusedReason::OtherBirth { birth: 6, repeated };
        for (again, repeated, unknown) in [(false, false, 3), (false, true, 4), (true, false, 4)] {
            let (mut publisher, config) = with_messages(7);
            sends(&mut publisher, Instant::ZERO, &config);
            publisher.on_receipt(Instant::ZERO, 77, 1, contact(9), BIRTH);
            sends(&mut publisher, Instant::ZERO, &config);
            if again {
                publisher.on_timeout(seconds(1), &config, 0);
                sends(&mut publisher, seconds(1), &config);
            }
            let failed = publisher.on_refused(77, 2, other(repeated), 78);
            assert!(failed.iter().all(|(_, error)| matches!(error, PublishError::OutcomeUnknown { .. })));
            assert_eq!(failed.len(), unknown, "sent again: {again}, repeated: {repeated}");
            let next: Vec<_> =
                std::iter::from_fn(|| publisher.poll_send(seconds(2), &config, None)).collect();
            assert!(next.iter().all(|out| out.session == 78 && out.sends == 1));
            assert!(!next.is_empty());
            let mut left = 0;
            let mut sequence = next[0].sequence;
            while let Some(Receipted { token, .. }) =
                publisher.on_receipt(seconds(2), 78, sequence, contact(10), 6)
            {
                assert!(token.0 > 1 && !failed.iter().any(|(other, _)| *other == token));
                left += 1;
                sends(&mut publisher, seconds(2), &config);
                sequence += 1;
            }
            assert_eq!(left + failed.len() + 1, 7, "each has its answer");
        }
    }
}

//! What publishers and subscribers saw, counted as it comes. A message is forgotten once it is settled: its publisher has
//! its word, and every subscription that is to get it has it, or was told that it will not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;
use treecast_scribe::event::{Event, SubscriptionId, Token};
use treecast_scribe::{Gap, GapReason, Item, Mark, Message, Position, PublishError, Receipt, TopicId};

use super::births::{Deaths, covers};
use super::counting::{Bits, Times};
use crate::cluster::ledger::Ledger;
use crate::lab::meter::number_of;

/// A message of unknown outcome is settled after this long: it comes to all, or to none.
const UNKNOWN: Duration = Duration::from_secs(60);
/// So many faults are told in words.
const WORDS: usize = 24;
/// And so many of one kind.
const OF_A_KIND: usize = 6;
/// Numbers of messages within a topic have so many bits.
const NUMBER_BITS: u32 = 32;

/// Counts over all topics.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) published: u64,
    pub(super) acknowledged: u64,
    pub(super) outcome_unknown: u64,
    pub(super) refused: u64,
    /// No word came of them.
    pub(super) unanswered: u64,
    /// Pairs of an acknowledged message and a subscription that is to get it, and those that did.
    pub(super) expected: u64,
    pub(super) delivered: u64,
    /// All first deliveries.
    pub(super) deliveries: u64,
    pub(super) duplicates: u64,
    pub(super) order_violations: u64,
    pub(super) lost_acknowledged: u64,
    /// Lost with a majority of the members, and said so.
    pub(super) lost_owed: u64,
    pub(super) gaps_silent: u64,
    /// Unreplicated, too old, another log.
    pub(super) gaps: [u64; 3],
    pub(super) unforced_gaps: u64,
    pub(super) receipts_full: u64,
    pub(super) receipts_ms: Times,
    pub(super) delivery_ms: Times,
    pub(super) recovery_ms: Times,
    /// Of these, where the root lived.
    pub(super) forwarder_recovery_ms: Times,
    /// From the death of a root to the next receipt on its topic.
    pub(super) root_recovery_ms: Times,
    pub(super) words: Vec<String>,
    /// Faults that are among the words, by topic and kind.
    told: BTreeSet<(u32, &'static str)>,
}

/// All that was seen.
pub(super) struct Account {
    pub(super) totals: Totals,
    pub(super) topics: Vec<TopicAccount>,
    pub(super) subscribers: Vec<Subscriber>,
    /// Nodes that are on the ring since the run looked last; whose start failed; that have left.
    pub(super) news: News,
    copies: u32,
    /// Gaps, until it is clear whether they were owed.
    told: Vec<(u32, Gap)>,
}

/// What the run has to act upon.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    pub(super) ready: Vec<usize>,
    pub(super) failed: Vec<usize>,
    pub(super) left: Vec<usize>,
}

/// The messages of one topic.
pub(super) struct TopicAccount {
    pub(super) id: TopicId,
    /// The number of the first one that is not settled.
    first: u64,
    open: VecDeque<Publication>,
    /// Subscriptions whose nodes live.
    seats: Vec<u32>,
    /// Its root was killed then, and no receipt came for what was published since.
    awaits_receipt: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Publication {
    at: Instant,
    fate: Fate,
    /// Its place, by the receipt or by a delivery.
    position: Option<Position>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Kept,
    Unknown,
    Refused,
}

/// One subscription.
pub(super) struct Subscriber {
    pub(super) topic: u32,
    pub(super) slot: usize,
    /// When it had its start, and where that was.
    started: Option<(Instant, Option<Mark>)>,
    got: Bits,
    last: Option<Position>,
    /// Of each session of a publisher: the last number.
    sessions: Vec<(NodeId, u64, u64)>,
    /// A gap came since the last message.
    after_gap: bool,
    gaps: Vec<Gap>,
    /// A node above it was killed then, and nothing came that was published since.
    pub(super) awaits: Option<Instant>,
    /// Its topic's root died then.
    pub(super) awaits_root: bool,
}

impl Subscriber {
    fn is_to_get(&self, message: &Publication) -> bool {
        self.started.is_some_and(|(at, mark)| {
            let reached = |mark: Mark| {
                message
                    .position
                    .is_some_and(|position| position.birth == mark.birth && position.offset >= mark.next)
            };
            message.at > at || mark.is_some_and(reached)
        })
    }
}

impl Account {
    /// Of these topics, each with so many copies.
    pub(super) fn new(topics: impl Iterator<Item = TopicId>, copies: u32) -> Account {
        let empty = |id| TopicAccount {
            id,
            first: 0,
            open: VecDeque::new(),
            seats: Vec::new(),
            awaits_receipt: None,
        };
        Account {
            totals: Totals::default(),
            topics: topics.map(empty).collect(),
            subscribers: Vec::new(),
            news: News::default(),
            copies,
            told: Vec::new(),
        }
    }

    /// A subscription; `started`: it has its start already.
    pub(super) fn add_subscriber(
        &mut self,
        topic: u32,
        slot: usize,
        started: Option<Instant>,
    ) -> SubscriptionId {
        let number = self.subscribers.len() as u32;
        self.topics[topic as usize].seats.push(number);
        self.subscribers.push(Subscriber {
            topic,
            slot,
            started: started.map(|at| (at, None)),
            got: Bits::default(),
            last: None,
            sessions: Vec::new(),
            after_gap: false,
            gaps: Vec::new(),
            awaits: None,
            awaits_root: false,
        });
        SubscriptionId(u64::from(number))
    }

    /// The topics of the subscriptions of a node, which end.
    pub(super) fn end_node(&mut self, slot: usize) -> Vec<u32> {
        let Account { topics, subscribers, .. } = self;
        let mut ended = Vec::new();
        for topic in topics {
            topic.seats.retain(|&seat| {
                let lives = subscribers[seat as usize].slot != slot;
                if !lives {
                    ended.push(subscribers[seat as usize].topic);
                }
                lives
            });
        }
        ended
    }

    /// The subscriptions of a topic whose nodes live.
    pub(super) fn living(&self, topic: u32) -> &[u32] {
        &self.topics[topic as usize].seats
    }

    /// A message is about to be published. Returns its name.
    pub(super) fn begin(&mut self, topic: u32, now: Instant) -> Token {
        self.totals.published += 1;
        let account = &mut self.topics[topic as usize];
        let number = account.first + account.open.len() as u64;
        account.open.push_back(Publication { at: now, fate: Fate::Open, position: None });
        Token(u64::from(topic) << NUMBER_BITS | number)
    }

    /// The root of a topic is killed.
    pub(super) fn on_root_killed(&mut self, topic: u32, now: Instant) {
        self.topics[topic as usize].awaits_receipt.get_or_insert(now);
    }

    /// Messages that are not settled.
    pub(super) fn open(&self) -> usize {
        self.topics.iter().map(|topic| topic.open.len()).sum()
    }

    /// Subscriptions that a node above was killed of, and that nothing came to since.
    pub(super) fn waiting(&self) -> u64 {
        let seats = self.topics.iter().flat_map(|topic| &topic.seats);
        seats.filter(|&&seat| self.subscribers[seat as usize].awaits.is_some()).count() as u64
    }

    /// Something happened at a node.
    pub(super) fn note(&mut self, at: Instant, slot: usize, event: Event) {
        match event {
            Event::Item { subscription, item } => match item {
                Item::Message(message) => self.on_message(at, subscription, &message),
                Item::Gap(gap) => self.on_gap(subscription, gap),
                Item::ParentChanged(_) => {}
            },
            Event::Published { token, receipt } => self.on_receipt(at, token, &receipt),
            Event::PublishFailed { token, error } => self.on_failed(token, &error),
            Event::Subscribed { subscription, mark } => {
                self.subscribers[subscription.0 as usize].started = Some((at, Some(mark)));
            }
            Event::SubscribeFailed { subscription, error } => {
                self.tell(|| format!("{subscription:?} at {at}: {error}"));
            }
            Event::Ready { .. } => self.news.ready.push(slot),
            Event::StartFailed(_) => self.news.failed.push(slot),
            Event::Left | Event::Superseded { .. } => self.news.left.push(slot),
            Event::Found { .. }
            | Event::NotFound { .. }
            | Event::Status { .. }
            | Event::ContactChanged(_)
            | Event::Broadcast { .. }
            | Event::BroadcastEnded { .. }
            | Event::Topic { .. } => {}
        }
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.totals.words.len() < WORDS {
            self.totals.words.push(what());
        }
    }

    /// The same, of one topic and one kind of fault once only: what happens to a topic happens to all of its subscribers.
    fn tell_once(&mut self, topic: u32, kind: &'static str, what: impl FnOnce() -> String) {
        let before = self.totals.told.iter().filter(|(_, other)| *other == kind).count();
        if self.totals.told.insert((topic, kind)) && before < OF_A_KIND {
            self.tell(what);
        }
    }

    fn on_message(&mut self, at: Instant, id: SubscriptionId, message: &Message) {
        let Some((topic, number)) = named(&message.payload) else { return };
        let subscriber = &mut self.subscribers[id.0 as usize];
        if !subscriber.got.add(number) {
            self.totals.duplicates += 1;
            return self.tell(|| {
                format!("{id:?} gets message {number} of topic {topic} again, at {at}: {:?}", message.id)
            });
        }
        self.totals.deliveries += 1;
        let disorder = subscriber.disorder(message);
        if let Some(why) = disorder {
            self.totals.order_violations += 1;
            self.tell(|| format!("{id:?} at {at}, message {number} of topic {topic}: {why}"));
        }
        let account = &mut self.topics[topic as usize];
        let Some(known) =
            number.checked_sub(account.first).and_then(|place| account.open.get_mut(place as usize))
        else {
            return;
        };
        let subscriber = &mut self.subscribers[id.0 as usize];
        self.totals.delivery_ms.add(at - known.at);
        if let Some(killed) = subscriber.awaits.filter(|&killed| known.at >= killed) {
            self.totals.recovery_ms.add(at - killed);
            if !subscriber.awaits_root {
                self.totals.forwarder_recovery_ms.add(at - killed);
            }
            subscriber.awaits = None;
        }
        let told = known.position.replace(message.position);
        if let Some(told) = told.filter(|&told| told != message.position) {
            self.totals.order_violations += 1;
            let now = message.position;
            self.tell(|| {
                format!("{id:?} gets message {number} of topic {topic} from {now:#}; it was at {told:#}")
            });
        }
    }

    fn on_gap(&mut self, id: SubscriptionId, gap: Gap) {
        let subscriber = &mut self.subscribers[id.0 as usize];
        subscriber.after_gap = true;
        subscriber.gaps.push(gap);
        self.told.push((id.0 as u32, gap));
        let reason = match gap.reason {
            GapReason::Unreplicated => 0,
            GapReason::TooOld => 1,
            GapReason::OtherLog => 2,
        };
        self.totals.gaps[reason] += 1;
    }

    fn publication(&mut self, token: Token) -> Option<&mut Publication> {
        let account = &mut self.topics[(token.0 >> NUMBER_BITS) as usize];
        let number = token.0 & ((1 << NUMBER_BITS) - 1);
        account.open.get_mut(number.checked_sub(account.first)? as usize)
    }

    fn on_receipt(&mut self, at: Instant, token: Token, receipt: &Receipt) {
        let topic = (token.0 >> NUMBER_BITS) as usize;
        let Some(known) = self.publication(token) else { return };
        let (sent, other) = (known.at, known.position.filter(|&known| known != receipt.position));
        known.fate = Fate::Kept;
        known.position = Some(receipt.position);
        self.totals.acknowledged += 1;
        self.totals.receipts_full += u64::from(receipt.copies >= self.copies);
        self.totals.receipts_ms.add(at - sent);
        if let Some(other) = other {
            self.totals.order_violations += 1;
            self.tell(|| {
                format!(
                    "{token:?} has a receipt for {:#}, and was delivered from {other:#}",
                    receipt.position
                )
            });
        }
        let waits = &mut self.topics[topic].awaits_receipt;
        if let Some(killed) = waits.filter(|&killed| sent >= killed) {
            self.totals.root_recovery_ms.add(at - killed);
            *waits = None;
        }
    }

    fn on_failed(&mut self, token: Token, error: &PublishError) {
        let is_unknown = matches!(error, PublishError::OutcomeUnknown { .. });
        let fate = if is_unknown { Fate::Unknown } else { Fate::Refused };
        if let Some(known) = self.publication(token) {
            known.fate = fate;
        }
        self.totals.outcome_unknown += u64::from(is_unknown);
        self.totals.refused += u64::from(!is_unknown);
    }

    /// Settles what can be settled; in the end all of it.
    pub(super) fn sweep(
        &mut self,
        now: Instant,
        ledger: &Ledger,
        deaths: &Deaths,
        held: &Held,
        is_end: bool,
    ) {
        for topic in 0..self.topics.len() {
            while let Some(&message) = self.topics[topic].open.front() {
                let is_over = match message.fate {
                    Fate::Open => is_end,
                    Fate::Kept => is_end || self.pending(topic, &message, ledger) == 0,
                    Fate::Unknown | Fate::Refused => is_end || now - message.at > UNKNOWN,
                };
                if !is_over {
                    break;
                }
                self.settle(topic, &message, ledger, deaths, held);
                let account = &mut self.topics[topic];
                account.open.pop_front();
                account.first += 1;
            }
        }
        for (seat, gap) in std::mem::take(&mut self.told) {
            let number = self.subscribers[seat as usize].topic;
            let id = self.topics[number as usize].id;
            if !deaths.owes(ledger, id, &gap) {
                self.totals.unforced_gaps += 1;
                self.tell_once(number, "gap", || {
                    format!(
                        "subscription {seat} to topic {number} ({id:?}) hears of {gap:?}, which nobody owes"
                    )
                });
            }
        }
    }

    /// Subscriptions that have neither got a message nor were told that they will not.
    fn pending(&self, topic: usize, message: &Publication, ledger: &Ledger) -> usize {
        let TopicAccount { id, first, seats, .. } = &self.topics[topic];
        let waits = |&&seat: &&u32| {
            let subscriber = &self.subscribers[seat as usize];
            !subscriber.got.has(*first)
                && subscriber.is_to_get(message)
                && !subscriber.knows_lost(*id, message, ledger)
        };
        seats.iter().filter(waits).count()
    }

    /// Counts the first message that is not settled.
    fn settle(&mut self, topic: usize, message: &Publication, ledger: &Ledger, deaths: &Deaths, held: &Held) {
        let TopicAccount { id, first: number, .. } = self.topics[topic];
        let was_held = message.position.is_some_and(|at| held.has(id, at, ledger));
        let totals = &mut self.totals;
        if message.fate == Fate::Open {
            totals.unanswered += 1;
            self.tell_once(topic as u32, "answer", || {
                format!(
                    "message {number} of topic {topic} ({id:?}), published at {}, has no answer",
                    message.at
                )
            });
        }
        if message.position.is_none() {
            // Nobody has it.
            return;
        }
        let TopicAccount { seats, .. } = &self.topics[topic];
        let (mut words, totals) = (Vec::new(), &mut self.totals);
        for &seat in seats {
            let subscriber = &self.subscribers[seat as usize];
            if !subscriber.is_to_get(message) {
                continue;
            }
            let (is_kept, got) = (message.fate == Fate::Kept, subscriber.got.has(number));
            totals.expected += u64::from(is_kept);
            totals.delivered += u64::from(is_kept && got);
            if got {
                continue;
            }
            let gap = subscriber.gap_for(id, message, ledger);
            let is_owed = gap.is_some_and(|gap| deaths.owes(ledger, id, gap)) && !was_held;
            totals.lost_owed += u64::from(is_kept && is_owed);
            totals.lost_acknowledged += u64::from(is_kept && !is_owed);
            totals.gaps_silent += u64::from(gap.is_none());
            if !is_owed {
                let told = if gap.is_some() { "was told so" } else { "was told nothing" };
                words.push(format!(
                    "message {number} of topic {topic} ({id:?}), published at {}, {:?} at {:?}, never came to subscription \
                     {seat} in slot {}, which {told}",
                    message.at, message.fate, message.position, subscriber.slot
                ));
            }
        }
        words.into_iter().for_each(|word| self.tell_once(topic as u32, "loss", || word));
    }
}

impl Subscriber {
    /// What is wrong with the place of a message, if anything is.
    fn disorder(&mut self, message: &Message) -> Option<String> {
        let (position, id) = (message.position, message.id);
        let last = self.last.replace(position);
        let after_gap = std::mem::take(&mut self.after_gap);
        let back = last
            .filter(|last| last.offset >= position.offset && (last.birth == position.birth || !after_gap));
        let known = self
            .sessions
            .iter_mut()
            .find(|(node, session, _)| (*node, *session) == (id.publisher, id.session));
        let before = match known {
            Some((_, _, sequence)) => Some(std::mem::replace(sequence, id.sequence)),
            None => {
                self.sessions.push((id.publisher, id.session, id.sequence));
                None
            }
        };
        if let Some(last) = back {
            return Some(format!("{position:#} came behind {last:#}"));
        }
        let before = before?;
        let follows = if after_gap { id.sequence > before } else { id.sequence == before + 1 };
        (!follows).then(|| {
            format!("number {} of session {:x} came behind number {before}", id.sequence, id.session)
        })
    }

    fn gap_for(&self, topic: TopicId, message: &Publication, ledger: &Ledger) -> Option<&Gap> {
        let at = message.position?;
        self.gaps.iter().find(|gap| covers(gap, topic, at, ledger))
    }

    fn knows_lost(&self, topic: TopicId, message: &Publication, ledger: &Ledger) -> bool {
        self.gap_for(topic, message, ledger).is_some()
    }
}

/// How far the logs of the nodes that survived a mass removal reached at that instant, by topic and birth.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(pub(super) BTreeMap<TopicId, Vec<(u64, std::ops::Range<u64>)>>);

impl Held {
    /// Whether a survivor had what stood at a place.
    fn has(&self, topic: TopicId, at: Position, ledger: &Ledger) -> bool {
        self.0.get(&topic).is_some_and(|all| {
            all.iter().any(|(birth, offsets)| offsets.contains(&at.offset) && ledger.has(topic, *birth, at))
        })
    }
}

/// The topic and the number that a payload says.
pub(super) fn named(payload: &[u8]) -> Option<(u32, u64)> {
    let name = number_of(payload)? as u64;
    Some(((name >> NUMBER_BITS) as u32, name & ((1 << NUMBER_BITS) - 1)))
}

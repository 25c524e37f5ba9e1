//! The context of a call into the forest, the forest's requests in return, and the part of both that one tree may use.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use treecast_overlay::deadlines::Deadlines;
use treecast_overlay::id::{Key, NodeId};
pub use treecast_overlay::kbr::RingView;
use treecast_overlay::peer::Contact;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Class, NodeState};

use super::links::Links;
use super::neighbours::Neighbours;
use super::quota::Quota;
use crate::config::Config;
use crate::event::{Event, SubscriptionId};
use crate::topic::TopicId;
use crate::wire::{self, Header, Life};

/// The context of every call into the forest: the time, and the ring as it is now.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The time.
    pub now: Instant,
    /// The ring.
    pub ring: &'a dyn RingView,
}

impl Context<'_> {
    /// Whether the ring can carry messages.
    pub(super) fn is_online(&self) -> bool {
        match self.ring.node_state() {
            NodeState::Ready | NodeState::Edge => true,
            NodeState::Starting | NodeState::Joining => false,
        }
    }

    /// The time so long ago; the very beginning, if that is not long enough ago.
    pub(super) fn earlier(&self, ago: Duration) -> Instant {
        let nanos = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
        Instant::from_nanos(self.now.as_nanos().saturating_sub(nanos))
    }
}

/// A request of the forest to the ring.
#[derive(Debug)]
pub enum Request {
    /// Send towards the root of a key.
    Route {
        /// The key.
        key: Key,
        /// An encoded [`Header`] and its payload.
        payload: Bytes,
    },
    /// Send to one node.
    Send {
        /// The node.
        to: Contact,
        /// An encoded [`Header`] and its payload.
        payload: Bytes,
        /// Whether it goes before data.
        class: Class,
    },
}

/// A deadline of the forest. Of deadlines of the same instant, the lesser name comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Something of one tree. The kind comes first: of deadlines of the same instant, all JOINs go before all pushes.
    Tree(TreeTimer, TopicId),
    /// A receipt is overdue.
    Publish(TopicId),
    /// There are too many children in all trees together.
    Crowd,
    /// Leaving has taken long enough.
    Leave,
}

/// A deadline of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TreeTimer {
    /// The JOIN is to be sent again.
    Join,
    /// No child and no subscriber needs the tree: it is to be left.
    Linger,
    /// The next step towards a term is to be taken.
    Recover,
    /// The members are to be looked at.
    Members,
    /// Older entries have not come that were asked for.
    Backfill,
    /// Older entries have not come that a member asked for.
    History,
    /// A receipt has waited for all members for long enough.
    Receipts,
    /// A child's acknowledgement is overdue.
    Push(NodeId),
    /// An acknowledgement is to be sent.
    Ack,
    /// A subscription's start is overdue.
    Start(SubscriptionId),
    /// The tree's shape is to be looked after.
    Shape,
    /// A move to another parent takes long.
    Relocate,
    /// The readers of the topic have waited long enough for one that takes nothing.
    Patience,
}

/// The deadlines of one topic's tree.
pub(super) struct TimersOf<'a> {
    topic: TopicId,
    all: &'a mut Deadlines<Timer>,
}

impl<'a> TimersOf<'a> {
    pub(super) fn new(topic: TopicId, all: &'a mut Deadlines<Timer>) -> TimersOf<'a> {
        TimersOf { topic, all }
    }

    pub(super) fn set(&mut self, timer: TreeTimer, at: Instant) {
        self.all.set(Timer::Tree(timer, self.topic), at);
    }

    pub(super) fn set_earlier(&mut self, timer: TreeTimer, at: Instant) {
        self.all.set_earlier(Timer::Tree(timer, self.topic), at);
    }

    pub(super) fn cancel(&mut self, timer: TreeTimer) {
        self.all.cancel(Timer::Tree(timer, self.topic));
    }

    pub(super) fn is_set(&self, timer: TreeTimer) -> bool {
        self.all.is_set(Timer::Tree(timer, self.topic))
    }

    /// Cancels all deadlines of the tree: it is gone, and so are its children and subscribers.
    pub(super) fn cancel_all(
        &mut self,
        children: impl Iterator<Item = NodeId>,
        subscriptions: impl Iterator<Item = SubscriptionId>,
    ) {
        let own = [
            TreeTimer::Join,
            TreeTimer::Linger,
            TreeTimer::Recover,
            TreeTimer::Members,
            TreeTimer::Receipts,
            TreeTimer::Backfill,
            TreeTimer::History,
            TreeTimer::Ack,
            TreeTimer::Shape,
            TreeTimer::Relocate,
            TreeTimer::Patience,
        ];
        let of_others = children.map(TreeTimer::Push).chain(subscriptions.map(TreeTimer::Start));
        own.into_iter().chain(of_others).for_each(|timer| self.cancel(timer));
    }
}

/// The forest's own life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LifeStage {
    Running,
    /// It goes once it is replaced as a member of logs.
    Leaving,
    /// It answers nothing any more.
    Left,
}

/// Requests and events on their way out, and messages of this node to itself.
#[derive(Debug)]
pub(super) struct Outbox {
    me: NodeId,
    pub requests: VecDeque<Request>,
    pub events: VecDeque<Event>,
    /// Messages of this node to itself: a root's receipts for its own publisher, and the like.
    pub loopback: VecDeque<Bytes>,
}

impl Outbox {
    pub(super) fn new(me: NodeId) -> Outbox {
        let (requests, events, loopback) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        Outbox { me, requests, events, loopback }
    }

    /// Sends a message without payload.
    pub(super) fn tell(&mut self, to: Contact, header: &Header) {
        self.send(to, wire::encode(header, &[]), header.class());
    }

    /// Sends an encoded message that carries an entry, a publication or a piece of a log.
    pub(super) fn send_data(&mut self, to: Contact, payload: Bytes) {
        self.send(to, payload, Class::Data);
    }

    fn send(&mut self, to: Contact, payload: Bytes, class: Class) {
        if to.id() == self.me {
            self.loopback.push_back(payload);
        } else {
            self.requests.push_back(Request::Send { to, payload, class });
        }
    }

    /// Routes an encoded message towards the root of a topic.
    pub(super) fn route(&mut self, topic: TopicId, payload: Bytes) {
        self.requests.push_back(Request::Route { key: topic.key(), payload });
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Gives back the room that a burst took.
    pub(super) fn trim(&mut self) {
        self.requests.shrink_to(0);
        self.events.shrink_to(0);
        self.loopback.shrink_to(0);
    }
}

/// Numbers that this node gives, over all topics.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    joins: u64,
    attached: u64,
    lives: Life,
}

impl Numbers {
    /// A number for a JOIN, or for a move to another parent.
    pub(super) fn next_join(&mut self) -> u64 {
        self.joins += 1;
        self.joins
    }

    /// A life as a member, greater than any before, also than those before a restart.
    pub(super) fn next_life(&mut self, incarnation: u64) -> Life {
        /// Lives for each millisecond between two starts: far more than a node can begin in one.
        const LIVES: u64 = 1 << 14;
        self.lives = (self.lives + 1).max(incarnation.saturating_mul(LIVES)) % wire::MAX_NUMBER;
        self.lives
    }

    /// The last number for a JOIN.
    pub(super) fn last_join(&self) -> u64 {
        self.joins
    }

    /// The last number for an `Attached`.
    pub(super) fn last_attached(&self) -> u64 {
        self.attached
    }

    /// A number for an `Attached`. Over all topics and children, because a child that was forgotten and comes again
    /// under an old JOIN would take an `Attached` with a small number for an old one.
    pub(super) fn next_attached(&mut self) -> u64 {
        self.attached += 1;
        self.attached
    }
}

/// All that one tree may use: the time, the ring, and its topic's share of what the forest's trees have in common.
pub(super) struct TreeCx<'a> {
    pub now: Instant,
    pub topic: TopicId,
    pub me: NodeId,
    pub ring: &'a dyn RingView,
    pub config: &'a Config,
    pub life: LifeStage,
    pub rng: &'a mut Rng,
    pub out: &'a mut Outbox,
    pub timers: TimersOf<'a>,
    pub neighbours: &'a mut Neighbours,
    pub links: &'a mut Links,
    pub quota: &'a mut Quota,
    pub numbers: &'a mut Numbers,
    /// Topics that have something to say when the turn ends.
    pub turn: &'a mut BTreeSet<TopicId>,
}

impl TreeCx<'_> {
    /// Whether the ring can carry messages.
    pub(super) fn is_online(&self) -> bool {
        Context { now: self.now, ring: self.ring }.is_online()
    }

    /// Whether the ring says that this node is the topic's root.
    pub(super) fn is_root(&self) -> bool {
        self.ring.is_root_of(self.now, self.topic.key())
    }

    /// The node that is to be the root by this node's tables, if that is another one.
    pub(super) fn successor(&self) -> Option<Contact> {
        let closest = self.ring.replica_set(self.topic.key(), 1).first().copied();
        closest.filter(|peer| peer.id != self.me).map(Contact::from)
    }

    pub(super) fn tell(&mut self, to: Contact, header: &Header) {
        self.out.tell(to, header);
    }

    /// Tells a node that takes this one for its child, by a JOIN of this number or an earlier one, that it is not. A
    /// later JOIN may have come there already.
    pub(super) fn send_leave(&mut self, to: Contact, join: u64) {
        let leave = Header::Leave { topic: self.topic, join };
        self.tell(to, &leave);
    }

    /// Tells a node that it is not this one's child.
    pub(super) fn send_orphan(&mut self, to: Contact) {
        let orphan = Header::Orphan { topic: self.topic };
        self.tell(to, &orphan);
    }

    /// The topic has something to say when the turn ends.
    pub(super) fn at_turn_end(&mut self) {
        self.turn.insert(self.topic);
    }

    /// A new life of this node as a member.
    pub(super) fn next_life(&mut self) -> Life {
        self.numbers.next_life(self.ring.contact().peer.incarnation)
    }

    /// The time in unix milliseconds, as far as a node knows that has no wall clock: its incarnation is the time of its
    /// start.
    pub(super) fn unix_ms(&self) -> u64 {
        let since_start = self.now.as_nanos() / 1_000_000;
        self.ring.contact().peer.incarnation.saturating_add(since_start) % wire::MAX_NUMBER
    }

    /// The time so long ago.
    pub(super) fn earlier(&self, ago: Duration) -> Instant {
        Context { now: self.now, ring: self.ring }.earlier(ago)
    }

    /// Notes that neighbours are to hear of the topic's progress with the next beat.
    pub(super) fn note_moved(&mut self) {
        self.neighbours.moved.insert(self.topic);
    }

    /// A wait, jittered by a quarter, and doubled with every attempt in vain.
    pub(super) fn pause(&mut self, base: Duration, tries: u8) -> Duration {
        pause(self.rng, base, tries)
    }

    /// Looks whether this node has too many children in all trees together.
    pub(super) fn review_crowd(&mut self) {
        self.quota.review_crowd(self.now, self.config, self.rng, self.timers.all);
    }
}

/// A wait, jittered by a quarter, and doubled with every attempt in vain.
pub(super) fn pause(rng: &mut Rng, base: Duration, tries: u8) -> Duration {
    /// Doublings of the time between attempts.
    const MOST_TRIES: u8 = 5;
    base.mul_f64(rng.random_range(0.75..1.25)) * (1 << tries.min(MOST_TRIES))
}

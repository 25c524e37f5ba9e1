//! All trees of a node. Sans-IO: the stack hands in what the ring says and carries out the requests.

mod tree;
mod neighbours;
mod join;
mod adopt;
mod flow;
mod moving;
mod shape;
mod budget;
mod subscribe;
mod publish;
mod position;
mod open;
mod handover;
mod upkeep;
mod view;
mod invariants;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use treecast_overlay::deadlines::Deadlines;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::random::{self, Rng};
use treecast_overlay::time::{Instant, earliest};
use treecast_overlay::wire::Standing;

use self::budget::Budget;
use self::handover::{Handovers, Part};
pub use self::invariants::Size;
use self::neighbours::Neighbours;
use self::tree::Tree;
pub use self::view::Place;
use crate::config::{Config, ConfigError};
use crate::event::{Event, SubscriptionId, TreeStatus};
use crate::publisher::TopicPublisher;
use crate::topic::TopicId;
use crate::wire::{self, Header};

/// What the forest reads of the ring. Everything that implements [`KeyBasedRouting`] is one.
pub trait RingView {
    /// See [`KeyBasedRouting::contact`].
    fn contact(&self) -> Contact;
    /// See [`KeyBasedRouting::roundabout`].
    fn roundabout(&self, nth: u64) -> Contact;
    /// See [`KeyBasedRouting::standing`].
    fn standing(&self) -> Standing;
    /// See [`KeyBasedRouting::is_root_of`].
    fn is_root_of(&self, now: Instant, key: Key) -> bool;
    /// See [`KeyBasedRouting::replica_set`].
    fn replica_set(&self, key: Key, count: usize) -> Vec<Peer>;
}

impl<R: KeyBasedRouting> RingView for R {
    fn contact(&self) -> Contact {
        KeyBasedRouting::contact(self)
    }

    fn roundabout(&self, nth: u64) -> Contact {
        KeyBasedRouting::roundabout(self, nth)
    }

    fn standing(&self) -> Standing {
        KeyBasedRouting::standing(self)
    }

    fn is_root_of(&self, now: Instant, key: Key) -> bool {
        KeyBasedRouting::is_root_of(self, now, key)
    }

    fn replica_set(&self, key: Key, count: usize) -> Vec<Peer> {
        KeyBasedRouting::replica_set(self, key, count)
    }
}

/// What every call into the forest stands on: the time, and the ring as it is now.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The time.
    pub now: Instant,
    /// The ring.
    pub ring: &'a dyn RingView,
}

/// What the forest wants of the ring.
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
    },
}

/// What the forest waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A JOIN to be sent again.
    Join(TopicId),
    /// A tree that nobody needs, to be left.
    Linger(TopicId),
    /// A root's term to be opened.
    Open(TopicId),
    /// A child's acknowledgement is overdue.
    Push(TopicId, NodeId),
    /// An acknowledgement to be sent.
    Ack(TopicId),
    /// A receipt is overdue.
    Publish(TopicId),
    /// A subscription's start is overdue.
    Subscribe(SubscriptionId),
    /// Parts of a handover to be sent again.
    Transfer(TopicId),
    /// A tree's shape is to be looked after.
    Shape(TopicId),
    /// A move to another parent takes long.
    Move(TopicId),
    /// There are too many children.
    Load,
    /// Leaving has taken long enough.
    Leave,
}

/// How a message came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Sent to this very node.
    Sent,
    /// Routed, and this node is the root of its key.
    Delivered {
        /// A hop on its way was made again.
        repeated: bool,
    },
}

/// The forest's own life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Running,
    /// It hands its logs over.
    Leaving,
    /// It answers nothing any more.
    Left,
}

/// What the forest hands out, and what it tells itself.
#[derive(Debug, Default)]
struct Outbox {
    requests: VecDeque<Request>,
    events: VecDeque<Event>,
    /// Messages of this node to itself: a root's receipts for its own publisher, and the like.
    loopback: VecDeque<Bytes>,
}

/// All trees of a node.
pub struct Forest {
    me: NodeId,
    /// Shared: a laboratory has a hundred thousand of them.
    config: Arc<Config>,
    rng: Rng,
    life: Life,
    // Boxed: a B-tree's leaf has room for eleven.
    trees: BTreeMap<TopicId, Box<Tree>>,
    topics: BTreeMap<SubscriptionId, TopicId>,
    publishers: BTreeMap<TopicId, TopicPublisher>,
    neighbours: Neighbours,
    /// Topics whose log or count moved since the last beat.
    moved: BTreeSet<TopicId>,
    /// Links for which the transport holds more than it should.
    congested: BTreeSet<NodeId>,
    /// Children that wait for such a link.
    stalled: BTreeMap<NodeId, BTreeSet<(TopicId, NodeId)>>,
    budget: Budget,
    /// Sessions of all root topics.
    sessions: usize,
    handovers: Handovers,
    /// Children in all trees.
    entries: usize,
    /// Topics that this node subscribes to, or is the root of.
    own: usize,
    /// Attempts in vain to have fewer, and how many there were at the last one.
    load_tries: u8,
    load_before: usize,
    /// The number of the last JOIN.
    joins: u64,
    /// The number of the last word to a child. A child that was forgotten and comes again under an old number must not
    /// take the next word for an old one.
    words: u64,
    /// When a stranger was last told that it is none of ours.
    denied: Instant,
    deadlines: Deadlines<Timer>,
    /// When neighbours are to be told that this node lives. Not among the deadlines: a node at rest has no others, and
    /// pays for no B-tree.
    beat_at: Option<Instant>,
    out: Outbox,
}

impl Forest {
    /// A forest without trees, for the node `me`. The same seed makes the same choices; many nodes may share one
    /// configuration.
    pub fn new(me: NodeId, config: impl Into<Arc<Config>>, seed: &[u8; 32]) -> Result<Forest, ConfigError> {
        let config = config.into();
        config.check()?;
        Ok(Forest {
            me,
            config,
            rng: random::stream(seed, "forest"),
            life: Life::Running,
            trees: BTreeMap::new(),
            topics: BTreeMap::new(),
            publishers: BTreeMap::new(),
            neighbours: Neighbours::default(),
            moved: BTreeSet::new(),
            congested: BTreeSet::new(),
            stalled: BTreeMap::new(),
            budget: Budget::default(),
            sessions: 0,
            handovers: Handovers::default(),
            entries: 0,
            own: 0,
            load_tries: 0,
            load_before: 0,
            joins: 0,
            words: 0,
            denied: Instant::ZERO,
            deadlines: Deadlines::default(),
            beat_at: None,
            out: Outbox::default(),
        })
    }

    /// The trees that this node is on, as values of their own; [`places`](Forest::places) is cheaper.
    pub fn trees(&self) -> Vec<TreeStatus> {
        let status = |place: Place<'_>| TreeStatus {
            topic: place.topic(),
            parent: place.parent(),
            is_root: place.is_root(),
            children: place.children().collect(),
            subscriptions: place.subscriptions(),
        };
        self.places().map(status).collect()
    }

    /// Whether [`leave`](Forest::leave) has done its work: the ring may be left.
    pub fn has_left(&self) -> bool {
        self.life == Life::Left
    }

    /// The ring is ready: what waited for it begins.
    pub fn handle_ready(&mut self, cx: Context<'_>) {
        for topic in self.topic_ids() {
            if self.trees.get(&topic).is_some_and(|tree| tree.is_joining()) {
                self.seek(cx, topic);
            }
        }
        let publishing: Vec<_> = self.publishers.keys().copied().collect();
        for topic in publishing {
            self.send_published(cx, topic);
        }
        self.settle(cx);
    }

    /// A routed message passes this node. Returns whether the forest took it: if not, it is to go on.
    ///
    /// Scribe §3.3: "When a node receives a JOIN … it checks … whether it is currently a forwarder; if so, it accepts
    /// the node as a child, adding it to the children table. If the node is not already a forwarder, it creates an
    /// entry for the group, and adds the source node as a child … It then becomes a forwarder by sending a JOIN".
    pub fn handle_forward(&mut self, cx: Context<'_>, origin: &Contact, payload: &Bytes) -> bool {
        if self.life != Life::Running || origin.id() == self.me || cx.ring.standing() != Standing::Ready {
            return false;
        }
        let Ok((Header::Join(join), _)) = wire::decode(payload) else { return false };
        let taken = self.intercept(cx, *origin, join);
        self.settle(cx);
        taken
    }

    /// A routed message has come to the root of its key, which is this node. `repeated`: the root before may have had
    /// it too.
    pub fn handle_deliver(&mut self, cx: Context<'_>, origin: &Contact, payload: &Bytes, repeated: bool) {
        self.on_bytes(cx, origin, payload, Way::Delivered { repeated });
        self.settle(cx);
    }

    /// A message came that was sent to this node.
    pub fn handle_received(&mut self, cx: Context<'_>, from: &Contact, payload: &Bytes) {
        self.neighbours.hear(cx.now, from.id());
        self.on_bytes(cx, from, payload, Way::Sent);
        self.settle(cx);
    }

    /// Keys may have moved to this node, or away from it.
    pub fn handle_neighbours_changed(&mut self, cx: Context<'_>) {
        for topic in self.topic_ids() {
            self.review_place(cx, topic);
        }
        self.settle(cx);
    }

    /// This node is reached in another way now: parents and roots must know.
    pub fn handle_contact_changed(&mut self, cx: Context<'_>) {
        for topic in self.topic_ids() {
            self.refresh(cx, topic);
        }
        self.settle(cx);
    }

    /// The ring is left, or has thrown this node out: nothing goes on.
    pub fn handle_stopped(&mut self) {
        self.stop_publishers();
        self.life = Life::Left;
        self.deadlines = Deadlines::default();
        self.beat_at = None;
    }

    /// The deadline passed. Spurious calls are harmless.
    pub fn handle_timeout(&mut self, cx: Context<'_>) {
        while let Some(timer) = self.deadlines.pop(cx.now) {
            match timer {
                Timer::Join(topic) => self.on_join_timer(cx, topic),
                Timer::Linger(topic) => self.on_linger(topic),
                Timer::Open(topic) => self.proceed(cx, topic),
                Timer::Push(topic, child) => self.on_push_timer(cx, topic, child),
                Timer::Ack(topic) => self.acknowledge(topic, false),
                Timer::Publish(topic) => self.on_publish_timer(cx, topic),
                Timer::Subscribe(subscription) => self.on_subscribe_timer(cx, subscription),
                Timer::Transfer(topic) => self.on_transfer_timer(cx, topic),
                Timer::Shape(topic) => self.on_shape_timer(cx, topic),
                Timer::Move(topic) => self.on_move_timer(cx, topic),
                Timer::Load => self.on_load_timer(cx),
                Timer::Leave => self.finish_leaving(),
            }
            self.settle(cx);
        }
        if self.beat_at.is_some_and(|at| at <= cx.now) {
            self.on_beat_timer(cx);
            self.settle(cx);
        }
    }

    /// The next thing that the forest wants of the ring.
    pub fn poll_request(&mut self) -> Option<Request> {
        let request = self.out.requests.pop_front();
        if request.is_none() {
            give_back(&mut self.out.requests);
        }
        request
    }

    /// The next thing to tell the layer above.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.out.events.pop_front();
        if event.is_none() {
            give_back(&mut self.out.events);
        }
        event
    }

    /// When [`handle_timeout`](Forest::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.deadlines.next(), self.beat_at)
    }

    /// Handles what this node told itself, until it has nothing more to say. Each such message answers one of a
    /// publisher's, whose window is bounded.
    fn settle(&mut self, cx: Context<'_>) {
        while let Some(bytes) = self.out.loopback.pop_front() {
            self.on_bytes(cx, &cx.ring.contact(), &bytes, Way::Sent);
        }
    }

    fn on_bytes(&mut self, cx: Context<'_>, from: &Contact, bytes: &Bytes, way: Way) {
        if self.life == Life::Left {
            return;
        }
        match wire::decode(bytes) {
            Ok((header, payload)) => self.on_message(cx, *from, header, bytes, payload, way),
            Err(error) => tracing::warn!(from = %from.id(), %error, "not a message of this version, ignored"),
        }
    }

    fn on_message(
        &mut self,
        cx: Context<'_>,
        from: Contact,
        header: Header,
        bytes: &Bytes,
        payload: Bytes,
        way: Way,
    ) {
        match header {
            Header::Join(join) => self.on_join(cx, from, join, way),
            Header::Attached(attached) => self.on_attached(cx, from, attached),
            Header::Leave { topic, join } => self.on_leave(cx, from, topic, join),
            Header::Orphan { topic } => self.on_orphan(cx, from.id(), topic),
            Header::Data(data) => self.on_data(cx, from, data, bytes, payload),
            Header::Ack(ack) => self.on_ack(cx, from, ack),
            Header::Publish(publish) => self.on_publish(cx, publish, payload, way),
            Header::Receipt(receipt) => self.on_receipt(cx, receipt),
            Header::Refused { topic, session, sequence, reason } => {
                self.on_refused(cx, topic, session, sequence, reason);
            }
            Header::Beat(beat) => self.on_beat(cx, from, beat),
            Header::Shared(shared) => self.on_shared(cx, from, shared),
            Header::Query { topic } => self.on_query(cx, from, topic),
            Header::Known { topic, known, handover } => self.on_known(cx, from.id(), topic, known, handover),
            Header::Handover { topic, transfer, part, parts } => {
                self.on_handover(cx, from, topic, Part { transfer, part, parts, bytes: payload });
            }
            Header::HandoverTaken { topic, transfer, part } => {
                self.on_handover_taken(cx, from.id(), topic, transfer, part);
            }
            Header::Offer(offer) => self.on_offer(cx, from.id(), offer),
            Header::Visit { topic, number } => self.on_visit(cx, from, topic, number),
            Header::Visited { topic, number, room } => self.on_visited(cx, from.id(), topic, number, room),
            Header::Part { topic, join } => self.on_part(cx, from, topic, join),
            Header::Parted { topic, join, last } => self.on_parted(cx, from.id(), topic, join, last),
        }
    }

    fn topic_ids(&self) -> Vec<TopicId> {
        self.trees.keys().copied().collect()
    }

    /// Whether the ring can carry messages.
    fn is_online(&self, cx: Context<'_>) -> bool {
        match cx.ring.standing() {
            Standing::Ready | Standing::Edge => true,
            Standing::Starting | Standing::Joining => false,
        }
    }

    fn tell(&mut self, to: Contact, header: &Header) {
        self.send(to, wire::encode(header, &[]));
    }

    fn send(&mut self, to: Contact, payload: Bytes) {
        if to.id() == self.me {
            self.out.loopback.push_back(payload);
        } else {
            self.out.requests.push_back(Request::Send { to, payload });
        }
    }
}

/// A drained queue of a quiet node keeps no room; a busy one's is given back with the next beat.
fn give_back<T>(queue: &mut VecDeque<T>) {
    const BUSY: usize = 64;
    if queue.capacity() < BUSY {
        *queue = VecDeque::new();
    }
}

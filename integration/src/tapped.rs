//! A whole node with a tap on its wires, which tells the [`Witness`](crate::witness::Witness) what goes by; and, to
//! prove that the judges see, with a fault if one is planted.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use treecast_overlay::config::{Config as RingConfig, Role};
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::machine::{Destination, Link, Machine, Store, StoreToken, Transmit};
use treecast_overlay::peer::Peer;
use treecast_overlay::time::{Instant, earliest};
use treecast_overlay::wire::{Answer, Frame, Header, Letter, Purpose, Standing, within};
use treecast_scribe::event::{Command, Event, SubscriptionId, Token, TreeStatus};
use treecast_scribe::message::MessageId;
use treecast_scribe::wire::{self, Body, Data, Header as Word};
use treecast_scribe::{Config, Item, PastryStack, TopicId};

use crate::witness::{Decision, Envelope, Hop, Shared};

/// Lookups that a tap remembers until they are answered here; beyond it, those of the smallest origins are forgotten.
const MAX_ASKED: usize = 1024;

/// How long a node that dawdles, or waits, keeps what it is to push.
const DAWDLE: Duration = Duration::from_secs(6);

/// What is wrong with a node. Where a number is given, the fault strikes once: the n-th message that the node's
/// applications get, or the n-th receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// O1: takes every lease for thirty seconds, whatever was granted: it answers without leases.
    Overstays,
    /// O2: hands its own lookups to whoever is farthest from their key.
    Backwards,
    /// O3: once it was alone, it hears nobody and says nothing: it never merges.
    Hermit,
    /// O4: acknowledges lookups, and does nothing about them.
    Swallows,
    /// O5: keeps four times as many peers as it may.
    Hoards,
    /// S1: its JOINs never leave: it subscribes and hangs on nothing.
    Parentless,
    /// S1: hands no child over, however many it has.
    Crowds,
    /// S2: a message comes twice.
    Doubled(u64),
    /// S3: the next message comes before it.
    Swapped(u64),
    /// S4: a receipt never comes.
    Unanswered(u64),
    /// S4: its receipts name the place behind the right one.
    Misplaces,
    /// S5: a message never comes.
    Swallowed(u64),
    /// S6: keeps for whoever is slow as much as there is, beyond every limit.
    Collects,
    /// S6: keeps what it is to push for six seconds.
    Dawdles,
    /// S6: does so while an application of its own takes nothing.
    Waits,
    /// S7: says for each topic that it lives.
    BeatsPerTopic,
    /// S8: alters what passes through it.
    Forges,
}

impl Fault {
    /// The figures of a node with this fault, which was told others.
    pub fn spoil(self, ring: &mut RingConfig, forest: &mut Config) {
        match self {
            Fault::Overstays => ring.lease = Duration::from_secs(30),
            Fault::Hoards => ring.leaf_set *= 4,
            Fault::Collects => forest.window.messages *= 64,
            Fault::Crowds => {
                (forest.tree.children_per_tree, forest.tree.children_per_node) = (1 << 10, 1 << 10);
            }
            Fault::Backwards
            | Fault::Hermit
            | Fault::Swallows
            | Fault::Parentless
            | Fault::Doubled(_)
            | Fault::Swapped(_)
            | Fault::Unanswered(_)
            | Fault::Misplaces
            | Fault::Swallowed(_)
            | Fault::Dawdles
            | Fault::Waits
            | Fault::BeatsPerTopic
            | Fault::Forges => {}
        }
    }
}

/// A node under observation.
pub struct Tapped {
    stack: PastryStack,
    fault: Option<Fault>,
    witness: Shared,
    messages: u64,
    receipts: u64,
    /// What comes before the next event.
    held: Vec<Event>,
    /// What goes out before the next frame.
    extra: VecDeque<Transmit>,
    /// What goes out later, and when.
    delayed: VecDeque<(Instant, Transmit)>,
    /// The hermit has been on the ring with others, and then alone.
    retreat: (bool, bool),
    /// Lookups that came here, by origin and number, and this node's own.
    asked: BTreeMap<(NodeId, u64), Key>,
    /// Topics of this node's publications that have no receipt yet.
    offered: BTreeMap<Token, TopicId>,
    /// How many items each of its applications takes yet.
    credit: BTreeMap<SubscriptionId, u32>,
    now: Instant,
}

impl Tapped {
    /// A node as it is, before one witness of its world.
    pub fn new(stack: PastryStack, witness: &Shared) -> Tapped {
        Tapped {
            stack,
            fault: None,
            witness: Rc::clone(witness),
            messages: 0,
            receipts: 0,
            held: Vec::new(),
            extra: VecDeque::new(),
            delayed: VecDeque::new(),
            retreat: (false, false),
            asked: BTreeMap::new(),
            offered: BTreeMap::new(),
            credit: BTreeMap::new(),
            now: Instant::ZERO,
        }
    }

    /// A node with a fault; [`Fault::spoil`] has seen its figures.
    pub fn plant(stack: PastryStack, witness: &Shared, fault: Fault) -> Tapped {
        Tapped { fault: Some(fault), ..Tapped::new(stack, witness) }
    }

    /// The node.
    pub fn stack(&self) -> &PastryStack {
        &self.stack
    }

    /// Takes the tap off.
    pub fn into_stack(self) -> PastryStack {
        self.stack
    }

    fn id(&self) -> NodeId {
        self.stack.peer().id
    }

    fn ask(&mut self, origin: NodeId, id: u64, key: Key) {
        if self.asked.len() >= MAX_ASKED {
            self.asked.pop_first();
        }
        self.asked.insert((origin, id), key);
    }

    // In.

    /// Whether the hermit has retreated.
    fn has_retreated(&mut self) -> bool {
        if self.fault != Some(Fault::Hermit) {
            return false;
        }
        let ring = self.stack.ring();
        let alone = ring.leaf_set().is_empty() && ring.standing() == Standing::Ready;
        self.retreat.1 |= alone && self.retreat.0;
        self.retreat.0 |= !ring.leaf_set().is_empty();
        self.retreat.1
    }

    /// What becomes of a frame that comes in; `None`: nothing.
    fn take_in(&mut self, from: Peer, frame: Frame) -> Option<Frame> {
        if self.has_retreated() {
            return None;
        }
        let inner = passed_on(&frame, self.id());
        let Header::Routed(routed) = inner.as_ref().map_or(&frame.header, |inner| &inner.header) else {
            return Some(frame);
        };
        if routed.purpose != Purpose::Lookup {
            return Some(frame);
        }
        if self.fault == Some(Fault::Swallows) {
            let taken = Header::HopAck { hop: routed.hop }.into();
            self.extra.push_back(Transmit { to: Destination::Peer(from), frame: taken });
            return None;
        }
        self.ask(routed.origin.id(), routed.id, routed.key);
        Some(frame)
    }

    // Out.

    /// What becomes of a frame on its way out; `None`: nothing.
    fn spoil_transmit(&mut self, mut transmit: Transmit) -> Option<Transmit> {
        let fault = self.fault?;
        let word = word(&transmit.frame);
        match fault {
            Fault::Hermit if self.has_retreated() => return None,
            Fault::Parentless if matches!(word, Some((Word::Join(_), _))) => return None,
            Fault::Backwards => self.turn_round(&mut transmit),
            Fault::BeatsPerTopic if matches!(word, Some((Word::Beat(_), _))) => {
                let topics = self.stack.forest().trees().len();
                self.extra.extend(std::iter::repeat_n(transmit.clone(), topics.saturating_sub(1)));
            }
            Fault::Forges if matches!(word, Some((Word::Data(_), _))) => forge(&mut transmit.frame),
            Fault::Misplaces => misplace(&mut transmit.frame, word),
            Fault::Dawdles | Fault::Waits
                if matches!(word, Some((Word::Data(_), _)))
                    && (fault == Fault::Dawdles || self.credit.values().any(|credit| *credit == 0)) =>
            {
                self.delayed.push_back((self.now + DAWDLE, transmit));
                return None;
            }
            Fault::Overstays
            | Fault::Hermit
            | Fault::Swallows
            | Fault::Hoards
            | Fault::Parentless
            | Fault::Crowds
            | Fault::Doubled(_)
            | Fault::Swapped(_)
            | Fault::Unanswered(_)
            | Fault::Swallowed(_)
            | Fault::Collects
            | Fault::Dawdles
            | Fault::Waits
            | Fault::BeatsPerTopic
            | Fault::Forges => {}
        }
        Some(transmit)
    }

    fn turn_round(&self, transmit: &mut Transmit) {
        let Header::Routed(routed) = &transmit.frame.header else { return };
        if routed.purpose != Purpose::Lookup || routed.origin.id() != self.id() {
            return;
        }
        let others = self.stack.ring().leaf_set().iter();
        if let Some(farthest) = others.max_by(|a, b| routed.key.closer(a.id, b.id)) {
            transmit.to = Destination::Peer(*farthest);
        }
    }

    /// Tells the witness.
    fn testify(&mut self, transmit: &Transmit) {
        let me = self.id();
        let to = match transmit.to {
            Destination::Peer(peer) => Some(peer),
            Destination::Seed(_) => None,
        };
        let header = &transmit.frame.header;
        if let Header::Via { to, from } = header {
            // Its own words by a detour are its words; whose it passes on has told of them.
            if let Some(frame) = within(&transmit.frame).filter(|_| from.id == me) {
                self.testify(&Transmit { to: Destination::Peer(*to), frame });
            }
        } else if let Header::Routed(routed) = header {
            // The first hop of a joiner and those of edges lead onto the ring.
            let edge = matches!(self.stack.ring().role(), Role::Edge { .. });
            let seeks = matches!(routed.purpose, Purpose::Seek);
            // (A node of the ring that asks again has its answer come by way of another, and is no edge.)
            let again = routed.origin.via.is_some_and(|via| self.stack.ring().leaf_set().contains(via.id));
            let hung = routed.origin.is_edge() && !again;
            let onto_the_ring = edge || routed.origin.id() == me && (seeks || hung);
            if let Some(to) = to.filter(|_| !onto_the_ring) {
                let hop = Hop { key: routed.key, from: me, to: to.id, by_leaf_set: routed.by_leaf_set };
                self.witness.borrow_mut().hops.push(hop);
            }
        } else if let Header::Letter(Letter::Answer(answer)) = header {
            self.on_answer(to.map(|to| to.id), answer);
        } else if let Header::Relayed { to, letter: Letter::Answer(answer), .. } = header {
            self.on_answer(Some(to.id()), answer);
        }
        if let Some((word, payload)) = word(&transmit.frame) {
            self.on_word(transmit, word, payload);
        }
    }

    /// An answer passes. Its root's decision is this instant's only if it is this node's.
    fn on_answer(&mut self, origin: Option<NodeId>, answer: &Answer) {
        let key = origin.and_then(|origin| self.asked.remove(&(origin, answer.id)));
        if let Some(key) = key.filter(|_| answer.root.id == self.id()) {
            self.note_decision(key);
        }
    }

    fn note_decision(&self, key: Key) {
        let serves = self.stack.ring().is_root_of(self.now, key);
        self.witness.borrow_mut().decisions.push(Decision { by: self.id(), key, serves });
    }

    /// Takes note of what one forest tells another. A routed word counts once, where it sets out.
    fn on_word(&self, transmit: &Transmit, word: Word, payload: Bytes) {
        let me = self.id();
        if matches!(&transmit.frame.header, Header::Routed(routed) if routed.origin.id() != me) {
            return;
        }
        let mut witness = self.witness.borrow_mut();
        witness.tell(|| {
            let (from, to) = (self.stack.peer().addr, goal(transmit));
            format!("    {from} tells {to}: {word:?} + {} bytes", payload.len())
        });
        if let Word::Data(Data { topic, position, body }) = word {
            witness.payloads += 1;
            match body {
                Body::Message { publisher, session, sequence, signature } => {
                    let id = MessageId { publisher, session, sequence };
                    witness.envelopes.push(Envelope { by: me, topic, id, signature, payload });
                }
                Body::TermStart { forced, .. } => {
                    witness.terms.insert((topic, position), forced);
                }
            }
        } else if let Word::Publish(publish) = word {
            let (session, sequence) = (publish.session, publish.sequence);
            let id = MessageId { publisher: publish.publisher.id(), session, sequence };
            let (topic, signature) = (publish.topic, publish.signature);
            witness.envelopes.push(Envelope { by: me, topic, id, signature, payload });
        } else if let Word::Receipt(receipt) = word {
            let id = MessageId {
                publisher: receiver(transmit).unwrap_or(me),
                session: receipt.session,
                sequence: receipt.sequence,
            };
            if let Some(birth) = self.birth(receipt.topic) {
                witness.births.insert((id, receipt.position), birth);
            }
        } else if let (Word::Beat(_), Some(_), Destination::Peer(to)) =
            (&word, witness.rest.since, transmit.to)
        {
            *witness.rest.beats.entry((me, to.id)).or_default() += 1;
        } else if let (Word::Offer(offer), Destination::Peer(to)) = (&word, transmit.to) {
            let splices = |tree: &TreeStatus| tree.topic == offer.topic && tree.subscriptions == 0;
            let tree = self.stack.forest().trees().into_iter().find(splices);
            let splice = tree.is_some_and(|tree| tree.children.len() == 1 && !tree.is_root);
            witness.offers.insert((offer.topic, to.id), if splice { "splice" } else { "push-down" });
        } else if let Word::Part { topic, .. } = word
            && let Some(why) = witness.offers.remove(&(topic, me))
        {
            *witness.moves.entry(why).or_default() += 1;
        }
    }

    fn birth(&self, topic: TopicId) -> Option<u64> {
        self.stack.forest().places().find(|place| place.topic() == topic)?.birth()
    }

    /// A root's receipts for its own publications go through no frame.
    fn note_receipt(&mut self, event: &Event) {
        if let Event::PublishFailed { token, .. } = event {
            self.offered.remove(token);
        }
        let Event::Published { token, receipt } = event else { return };
        let Some(topic) = self.offered.remove(token) else { return };
        let Some(birth) = self.birth(topic) else { return };
        self.witness.borrow_mut().births.entry((receipt.id, receipt.position)).or_insert(birth);
    }

    // Up.

    /// What becomes of an event; `None`: nothing.
    fn spoil(&mut self, event: Event) -> Option<Event> {
        if let Event::Published { .. } = &event {
            self.receipts += 1;
            return (self.fault != Some(Fault::Unanswered(self.receipts))).then_some(event);
        }
        if let Event::Item { subscription, .. } = &event
            && let Some(credit) = self.credit.get_mut(subscription)
        {
            *credit = credit.saturating_sub(1);
        }
        let Event::Item { subscription, item: item @ Item::Message(_) } = &event else { return Some(event) };
        self.messages += 1;
        match self.fault {
            Some(Fault::Doubled(n)) if n == self.messages => {
                self.held.push(Event::Item { subscription: *subscription, item: item.clone() });
                Some(event)
            }
            Some(Fault::Swallowed(n)) if n == self.messages => None,
            Some(Fault::Swapped(n)) if n == self.messages => {
                let next = self.stack.poll_event();
                let same = |other: &Event| matches!(other, Event::Item { subscription: own, item: Item::Message(_) } if own == subscription);
                if next.as_ref().is_some_and(same) {
                    self.held.push(event);
                    return next;
                }
                // The last of its batch: another one will do.
                self.fault = Some(Fault::Swapped(n + 1));
                self.held.extend(next);
                Some(event)
            }
            Some(_) | None => Some(event),
        }
    }

    /// A lookup that this node answers itself is decided here, without a frame.
    fn note_own_answer(&mut self, event: &Event) {
        let Event::Found { token, found } = event else { return };
        let key = self.asked.remove(&(self.id(), u64::MAX - token.0));
        if let Some(key) = key.filter(|_| found.hops == 0 && found.root.id == self.id()) {
            self.note_decision(key);
        }
    }
}

/// The frame within one that comes to this node by a detour.
fn passed_on(frame: &Frame, me: NodeId) -> Option<Frame> {
    let ends_here = matches!(&frame.header, Header::Via { to, .. } if to.id == me);
    if ends_here { within(frame) } else { None }
}

/// What a forest says in a frame, and with which payload.
fn word(frame: &Frame) -> Option<(Word, Bytes)> {
    let carries = if let Header::Routed(routed) = &frame.header {
        routed.purpose == Purpose::Application
    } else {
        matches!(
            &frame.header,
            Header::Letter(Letter::Payload) | Header::Relayed { letter: Letter::Payload, .. }
        )
    };
    carries.then(|| wire::decode(&frame.payload).ok()).flatten()
}

/// For whom a letter is, if it is for one node.
fn receiver(transmit: &Transmit) -> Option<NodeId> {
    match (&transmit.frame.header, transmit.to) {
        (Header::Relayed { to, .. }, _) => Some(to.id()),
        (_, Destination::Peer(peer)) => Some(peer.id),
        (_, Destination::Seed(_)) => None,
    }
}

fn goal(transmit: &Transmit) -> String {
    match (&transmit.frame.header, transmit.to) {
        (Header::Routed(routed), _) => format!("the root of {}", routed.key),
        (Header::Relayed { to, .. }, Destination::Peer(via)) => format!("{} through {}", to.id(), via.addr),
        (_, Destination::Peer(peer)) => peer.addr.to_string(),
        (_, Destination::Seed(seed)) => seed.addr.to_string(),
    }
}

/// A receipt names the next place.
fn misplace(frame: &mut Frame, word: Option<(Word, Bytes)>) {
    if let Some((Word::Receipt(mut receipt), _)) = word {
        receipt.position.offset += 1;
        frame.payload = wire::encode(&Word::Receipt(receipt), &[]);
    }
}

/// The last byte becomes another one.
fn forge(frame: &mut Frame) {
    let mut bytes = BytesMut::from(&frame.payload[..]);
    if let Some(last) = bytes.last_mut() {
        *last ^= 0xff;
    }
    frame.payload = bytes.freeze();
}

impl Machine for Tapped {
    type Command = Command;
    type Event = Event;

    fn peer(&self) -> Peer {
        self.stack.peer()
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        if let Command::Lookup { token, key, .. } = &command {
            self.ask(self.id(), u64::MAX - token.0, *key);
        } else if let Command::Publish { token, topic, .. } = &command {
            self.offered.insert(*token, topic.id());
        } else if let Command::Subscribe { subscription, credit: items, .. }
        | Command::Credit { subscription, items } = &command
        {
            *self.credit.entry(*subscription).or_default() += items;
        }
        self.now = now;
        self.stack.handle_command(now, command);
    }

    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame) {
        self.now = now;
        if let Some(frame) = self.take_in(from, frame) {
            self.stack.handle_frame(now, from, frame);
        }
    }

    fn handle_link(&mut self, now: Instant, link: Link) {
        self.now = now;
        self.stack.handle_link(now, link);
    }

    fn handle_queued(&mut self, now: Instant, peer: NodeId, bytes: usize) {
        self.now = now;
        self.stack.handle_queued(now, peer, bytes);
    }

    fn handle_stored(&mut self, now: Instant, token: StoreToken) {
        self.now = now;
        self.stack.handle_stored(now, token);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let due = self.delayed.partition_point(|(at, _)| *at <= now);
        self.extra.extend(self.delayed.drain(..due).map(|(_, transmit)| transmit));
        self.stack.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        loop {
            let transmit = match self.extra.pop_front() {
                Some(transmit) => Some(transmit),
                None if self.fault.is_none() => Some(self.stack.poll_transmit()?),
                None => {
                    let transmit = self.stack.poll_transmit()?;
                    self.spoil_transmit(transmit)
                }
            };
            if let Some(transmit) = transmit {
                self.testify(&transmit);
                return Some(transmit);
            }
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.held.pop() {
            return Some(event);
        }
        loop {
            let event = self.stack.poll_event()?;
            self.note_own_answer(&event);
            self.note_receipt(&event);
            if let Some(event) = self.spoil(event) {
                return Some(event);
            }
        }
    }

    fn poll_store(&mut self) -> Option<Store> {
        self.stack.poll_store()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.stack.poll_timeout(), self.delayed.front().map(|(at, _)| *at))
    }
}

//! A tap on the wires of all nodes: evidence for the judges, kept until they have judged it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use treecast_overlay::config::Role;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::machine::{Destination, Machine, Transmit};
use treecast_overlay::peer::Peer;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Frame, Header, Purpose, Routed, within};
use treecast_scribe::event::{Command, Event, SubscriptionId, TreeStatus};
use treecast_scribe::message::MessageId;
use treecast_scribe::wire::{self, Ack, Attached, Body, Data, Header as ForestHeader, Signature};
use treecast_scribe::{Item, Position, Stack, TopicId};

use super::ledger::Ledger;
use crate::node::RingNode;
use crate::world::{At, Inward, Observer, Outward};

/// One hop of a routed message, as it left a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where the message goes.
    pub key: Key,
    /// The node that makes it.
    pub from: NodeId,
    /// Where it leads.
    pub to: NodeId,
    /// The flag as it goes out: a hop came from a leaf set.
    pub by_leaf_set: bool,
}

/// A message as a node passed it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// The node that passed it on.
    pub by: NodeId,
    /// On which topic.
    pub topic: TopicId,
    /// The identity that it claims.
    pub id: MessageId,
    /// The signature that it carries.
    pub signature: Signature,
    /// Its payload.
    pub payload: Bytes,
}

/// The signs of life that went between tree neighbours since somebody began to count.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// Since when; `None`: nobody counts.
    pub since: Option<Instant>,
    /// By sender and receiver.
    pub beats: BTreeMap<(NodeId, NodeId), u64>,
}

/// Hears what is said.
pub type LineListener = Box<dyn Fn(&str)>;

/// Evidence.
#[derive(Default)]
pub struct Witness {
    /// Hops since the last judgement.
    pub hops: Vec<Hop>,
    /// Messages since the last judgement.
    pub envelopes: Vec<Envelope>,
    /// Beats, while they are counted.
    pub rest: Rest,
    /// Log entries that went from node to node so far, repetitions included.
    pub payloads: u64,
    /// All that was heard of the topics' logs.
    pub ledger: Ledger,
    /// Why children were last offered other parents: `push-down` or `splice`, by topic and child.
    pub offers: BTreeMap<(TopicId, NodeId), &'static str>,
    /// Children that went to a parent that they were offered, by reason.
    pub moves: BTreeMap<&'static str, u64>,
    /// Listens to what is said, line by line.
    pub listener: Option<LineListener>,
    /// Children that were last started as no members: topic, parent, child.
    ordinary: BTreeSet<(TopicId, NodeId, NodeId)>,
    subscriptions: BTreeMap<SubscriptionId, TopicId>,
}

impl Witness {
    /// Forgets what has been judged.
    pub fn forget_judged(&mut self) {
        self.hops.clear();
        self.envelopes.clear();
        self.ledger.fresh.clear();
        self.ledger.wrongs.clear();
    }

    /// Begins to count beats.
    pub fn begin_rest(&mut self, now: Instant) {
        self.rest = Rest { since: Some(now), beats: BTreeMap::new() };
    }

    /// Says something, if somebody listens.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(listener) = &self.listener {
            listener(&line());
        }
    }

    fn testify<N: RingNode>(&mut self, at: &At<'_, Stack<N>>, transmit: &Transmit) {
        if let Header::Routed(routed) = &transmit.frame.header {
            self.hops.extend(hop(at.machine, transmit.to, routed));
        } else if let Some(sent) = by_detour(at.machine.peer().id, &transmit.frame) {
            self.testify(at, &sent);
        }
        if let Some((header, payload)) = forest_message(&transmit.frame) {
            self.on_forest_message(at, transmit, header, payload);
        }
    }

    /// Takes note of what one forest tells another. A routed message counts once, where it sets out.
    fn on_forest_message<N: RingNode>(
        &mut self,
        at: &At<'_, Stack<N>>,
        transmit: &Transmit,
        header: ForestHeader,
        payload: Bytes,
    ) {
        let stack = at.machine;
        let me = stack.peer().id;
        if matches!(&transmit.frame.header, Header::Routed(routed) if routed.origin.id() != me) {
            return;
        }
        self.tell(|| {
            let (from, to) = (stack.peer().addr, goal(transmit));
            format!("    {from} tells {to}: {header:?} + {} bytes", payload.len())
        });
        self.note_log(at, transmit, &header, &payload);
        if let ForestHeader::Data(Data { topic, body, .. }) = header {
            self.payloads += 1;
            if let Body::Message { publisher, session, sequence, signature } = body {
                let id = MessageId { publisher, session, sequence };
                self.envelopes.push(Envelope { by: me, topic, id, signature, payload });
            }
        } else if let ForestHeader::Publish(publish) = header {
            let (session, sequence) = (publish.session, publish.sequence);
            let id = MessageId { publisher: publish.publisher.id(), session, sequence };
            let (topic, signature) = (publish.topic, publish.signature);
            self.envelopes.push(Envelope { by: me, topic, id, signature, payload });
        } else if let (ForestHeader::Beat(_), Some(_), Destination::Peer(to)) =
            (&header, self.rest.since, transmit.to)
        {
            *self.rest.beats.entry((me, to.id)).or_default() += 1;
        } else if let (ForestHeader::Offer(offer), Destination::Peer(to)) = (&header, transmit.to) {
            let splices = |tree: &TreeStatus| tree.topic == offer.topic && tree.subscriptions == 0;
            let tree = stack.forest().trees().into_iter().find(splices);
            let splice = tree.is_some_and(|tree| tree.children.len() == 1 && !tree.is_root);
            self.offers.insert((offer.topic, to.id), if splice { "splice" } else { "push-down" });
        } else if let ForestHeader::Detach { topic, .. } = header
            && let Some(why) = self.offers.remove(&(topic, me))
        {
            *self.moves.entry(why).or_default() += 1;
        }
    }
}

/// What is said of the topics' logs.
impl Witness {
    fn note_log<N: RingNode>(
        &mut self,
        at: &At<'_, Stack<N>>,
        transmit: &Transmit,
        header: &ForestHeader,
        payload: &Bytes,
    ) {
        let (slot, peer, ledger) = (at.slot, at.machine.peer(), &mut self.ledger);
        let me = peer.id;
        match header {
            ForestHeader::Data(data) => {
                self.note_entry(at, data, payload.len());
                let (topic, birth) = (data.topic, data.birth);
                if data.behind < data.offset {
                    let place = Position { birth, offset: data.offset - data.behind - 1 };
                    self.ledger.note_commit(topic, me, place, || "says so of".to_string());
                }
                let to = receiver(transmit);
                if let Some(to) = to.filter(|to| self.ordinary.contains(&(topic, me, *to))) {
                    let place = Position { birth, offset: data.offset };
                    self.ledger
                        .note_commit(topic, me, place, || format!("pushes to {to:?}, which is no member,"));
                }
            }
            ForestHeader::Pulled { .. } => {
                if let Ok((ForestHeader::Data(data), tail)) = wire::decode(payload) {
                    self.note_entry(at, &data, tail.len());
                }
            }
            ForestHeader::Attached(Attached { topic, start: Some(start), .. }) => {
                ledger.note_birth(at.now, slot, *topic, start.birth, &start.lineage);
                if let Some(sync) = &start.sync {
                    for known in &sync.configurations {
                        ledger.note_members(*topic, start.birth, known.at, &known.members, sync.term.number);
                    }
                }
                if let Some(to) = receiver(transmit) {
                    let link = (*topic, me, to);
                    match start.sync {
                        None => self.ordinary.insert(link),
                        Some(_) => self.ordinary.remove(&link),
                    };
                }
            }
            ForestHeader::Join(join) => {
                ledger.note_copy(join.topic, me, peer.incarnation, join.number, join.copy.as_deref());
                if join.by_third {
                    ledger.note_third(join.topic, me, join.number);
                }
            }
            ForestHeader::Promise(promise) => {
                let (topic, copy) = (promise.topic, promise.copy.as_deref());
                if copy.is_some() {
                    ledger.note_copy(topic, me, peer.incarnation, promise.join, copy);
                    ledger.note_promise(topic, me, promise.term);
                } else {
                    ledger.note_no_copy(topic, me, promise.known);
                }
            }
            ForestHeader::LogCommit { topic, commit, .. } => {
                if let (Some(birth), Some(offset)) = (birth(at.machine, *topic), commit.checked_sub(1)) {
                    // Its sender is the root, which has all that is committed.
                    ledger.note_held(*topic, birth, me, *commit);
                    let place = Position { birth, offset };
                    note_own(ledger, at, *topic);
                    ledger.note_commit(*topic, me, place, || "says so of".to_string());
                }
            }
            ForestHeader::Receipt(receipt) => {
                let (topic, place) = (receipt.topic, receipt.position);
                note_own(ledger, at, topic);
                ledger.note_held(topic, place.birth, me, place.offset + 1);
                ledger.note_commit(topic, me, place, || "gives a receipt for".to_string());
            }
            ForestHeader::Ack(ack) => self.note_ack(at, ack),
            ForestHeader::Beat(beat) => beat.acks.iter().for_each(|ack| self.note_ack(at, ack)),
            ForestHeader::Attached(_)
            | ForestHeader::Leave { .. }
            | ForestHeader::Orphan { .. }
            | ForestHeader::Publish(_)
            | ForestHeader::Refused { .. }
            | ForestHeader::Nack(_)
            | ForestHeader::Shared(_)
            | ForestHeader::Prepare { .. }
            | ForestHeader::PromiseRefused { .. }
            | ForestHeader::Invite { .. }
            | ForestHeader::InviteRefused { .. }
            | ForestHeader::Pull(_)
            | ForestHeader::NotPulled { .. }
            | ForestHeader::Offer(_)
            | ForestHeader::CapacityProbe { .. }
            | ForestHeader::CapacityAnswer { .. }
            | ForestHeader::Detach { .. }
            | ForestHeader::Detached { .. } => {}
        }
    }

    fn note_entry<N: RingNode>(&mut self, at: &At<'_, Stack<N>>, data: &Data, bytes: usize) {
        let (me, ledger, topic, offset) = (at.machine.peer().id, &mut self.ledger, data.topic, data.offset);
        if let Body::Configuration { members, birth, replaces } = &data.body {
            if let Some(other) = replaces {
                ledger.note_replaces(topic, data.birth, offset, *other);
            }
            if let Some(begun) = birth {
                // An entry of an earlier birth may travel as one of the birth that took it over.
                let begins = ledger.birth_at(topic, data.birth, offset);
                ledger.note_birth(at.now, at.slot, topic, begins, &begun.lineage);
                ledger.note_begin(topic, begins, begun.complete);
            }
            ledger.note_members(topic, data.birth, offset, members, data.term);
        } else {
            ledger.note_message(topic, data.birth, offset, data.term);
        }
        ledger.note_entry(topic, data.birth, offset, bytes);
        ledger.note_held(topic, data.birth, me, offset + 1);
    }

    fn note_ack<N: RingNode>(&mut self, at: &At<'_, Stack<N>>, ack: &Ack) {
        if let Some(birth) = birth(at.machine, ack.topic) {
            self.ledger.note_held(ack.topic, birth, at.machine.peer().id, ack.next);
        }
    }
}

impl<N: RingNode> Observer<Stack<N>> for Witness {
    fn frame_out(&mut self, at: &At<'_, Stack<N>>, transmit: &mut Transmit) -> Outward {
        self.testify(at, transmit);
        Outward::Passes
    }

    fn frame_in(&mut self, at: &At<'_, Stack<N>>, _: Peer, frame: &Frame) -> Inward {
        let message = message_for(at.machine.peer().id, frame);
        if let Some((ForestHeader::Attached(Attached { topic, join, start: Some(start), path, .. }), _)) =
            message
            && start.sync.is_none()
            && is_child_of(at.machine, topic, path.first())
        {
            // (The answer to a JOIN that has found no parent, or of one that was given up, is none of its parent's.)
            self.ledger.note_release(topic, at.machine.peer().id, join);
        }
        Inward::Passes
    }

    fn event(&mut self, at: &At<'_, Stack<N>>, event: Event, told: &mut Vec<Event>) {
        let (me, forest) = (at.machine.peer().id, at.machine.forest());
        if let Event::Item { subscription, item: Item::Message(message) } = &event
            && let Some(topic) = self.subscriptions.get(subscription)
        {
            let place = message.position;
            note_own(&mut self.ledger, at, *topic);
            let is_root = forest.places().any(|here| here.topic() == *topic && here.is_root());
            if is_root {
                self.ledger.note_held(*topic, place.birth, me, place.offset + 1);
            }
            self.ledger.note_commit(*topic, me, place, || "delivers".to_string());
        }
        if let Event::Item { subscription, item: Item::Gap(gap) } = &event
            && let Some(topic) = self.subscriptions.get(subscription)
        {
            note_own(&mut self.ledger, at, *topic);
            note_own_entry(&mut self.ledger, at, *topic, gap.until);
        }
        told.push(event);
    }

    fn command(&mut self, _: &At<'_, Stack<N>>, command: &Command) {
        if let Command::Subscribe { subscription, topic, .. } = command {
            self.subscriptions.insert(*subscription, topic.id());
        }
    }
}

/// Returns the frame that a node sends by a detour, if it is its own. A frame that it relays was seen where it was first sent.
pub(super) fn by_detour(me: NodeId, frame: &Frame) -> Option<Transmit> {
    let Header::Via { to, from, .. } = &frame.header else { return None };
    let frame = within(frame).filter(|_| from.id == me)?;
    Some(Transmit { to: Destination::Peer(*to), frame })
}

fn is_child_of<N: RingNode>(stack: &Stack<N>, topic: TopicId, parent: Option<&NodeId>) -> bool {
    let trees = stack.forest().trees();
    parent.is_some() && trees.iter().any(|tree| tree.topic == topic && tree.parent.as_ref() == parent)
}

/// The hop that promise O2 speaks of, if it is one. The first hop of a joiner and those of edges lead onto the ring.
fn hop<N: RingNode>(stack: &Stack<N>, to: Destination, routed: &Routed) -> Option<Hop> {
    let (me, Destination::Peer(to)) = (stack.peer().id, to) else { return None };
    let edge = matches!(stack.ring().role(), Role::Edge { .. });
    let seeks = matches!(routed.purpose, Purpose::Seek);
    // (A node of the ring that asks again has its answer come by way of another, and is no edge.)
    let again = routed.origin.via.is_some_and(|via| stack.ring().knows(via.id));
    let hung = routed.origin.is_edge() && !again;
    let onto_the_ring = edge || routed.origin.id() == me && (seeks || hung);
    let hop = Hop { key: routed.key, from: me, to: to.id, by_leaf_set: routed.by_leaf_set };
    (!onto_the_ring).then_some(hop)
}

/// Notes the birth of the log that a node has a part of: a root that is alone tells no wire of it.
fn note_own<N: RingNode>(ledger: &mut Ledger, at: &At<'_, Stack<N>>, topic: TopicId) {
    if let Some(log) =
        at.machine.forest().places().find(|place| place.topic() == topic).and_then(|place| place.log())
    {
        ledger.note_birth(at.now, at.slot, topic, log.birth, &log.lineage);
    }
}

/// Notes what a configuration in a node's own log says of births: a root that is alone tells no wire of it.
fn note_own_entry<N: RingNode>(ledger: &mut Ledger, at: &At<'_, Stack<N>>, topic: TopicId, place: Position) {
    let log = at.machine.forest().places().find(|here| here.topic() == topic).and_then(|here| here.log());
    let Some(entry) = log.and_then(|log| log.window.entry(place.offset)) else { return };
    if let Body::Configuration { birth, replaces, .. } = &entry.body {
        if let Some(other) = replaces {
            ledger.note_replaces(topic, place.birth, place.offset, *other);
        }
        if let Some(begun) = birth {
            ledger.note_begin(topic, place.birth, begun.complete);
        }
    }
}

fn birth<N: RingNode>(stack: &Stack<N>, topic: TopicId) -> Option<u64> {
    stack.forest().places().find(|place| place.topic() == topic)?.birth()
}

/// The forest's message in a frame, and its payload.
pub fn forest_message(frame: &Frame) -> Option<(ForestHeader, Bytes)> {
    let carries = if let Header::Routed(routed) = &frame.header {
        routed.purpose == Purpose::Application
    } else {
        matches!(
            &frame.header,
            Header::Direct(direct) | Header::RelayedDirect { direct, .. } if direct.is_payload()
        )
    };
    carries.then(|| wire::decode(&frame.payload).ok()).flatten()
}

/// The forest's message in a frame that came to a node, if it is for this very one: what it passes on is none of its.
pub(super) fn message_for(me: NodeId, frame: &Frame) -> Option<(ForestHeader, Bytes)> {
    let mut inner = None;
    if let Header::Via { to, .. } = &frame.header {
        if to.id != me {
            return None;
        }
        inner = within(frame);
    }
    let frame = inner.as_ref().unwrap_or(frame);
    let is_others = matches!(&frame.header, Header::RelayedDirect { to, .. } if to.id() != me);
    if is_others { None } else { forest_message(frame) }
}

/// For which node a message is, if it is for one.
fn receiver(transmit: &Transmit) -> Option<NodeId> {
    match (&transmit.frame.header, transmit.to) {
        (Header::RelayedDirect { to, .. }, _) => Some(to.id()),
        (_, Destination::Peer(peer)) => Some(peer.id),
        (_, Destination::Seed(_)) => None,
    }
}

fn goal(transmit: &Transmit) -> String {
    match (&transmit.frame.header, transmit.to) {
        (Header::Routed(routed), _) => format!("the root of {}", routed.key),
        (Header::RelayedDirect { to, .. }, Destination::Peer(via)) => {
            format!("{} through {}", to.id(), via.addr)
        }
        (_, Destination::Peer(peer)) => peer.addr.to_string(),
        (_, Destination::Seed(seed)) => seed.addr.to_string(),
    }
}

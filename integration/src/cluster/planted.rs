//! Bugs that are planted in a node, one or more for each promise, to prove that the judges see.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::BytesMut;
use treecast_overlay::config::Config as RingConfig;
use treecast_overlay::id::NodeId;
use treecast_overlay::machine::{Destination, Machine, Transmit};
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::wire::{Direct, Frame, Header, NodeState, Purpose, within};
use treecast_scribe::event::{Command, Event, SubscriptionId};
use treecast_scribe::wire::{
    self, Attached, Body, CopyState, Header as ForestHeader, Promise, PublishReceipt, Term,
};
use treecast_scribe::{Config, Gap, GapReason, Item, Position, Stack, TopicId};

use super::witness::forest_message;
use crate::node::RingNode;
use crate::world::{At, Inward, Observer, Outward};

/// How long a node that dawdles, or waits, keeps what it is to push.
const DAWDLE: Duration = Duration::from_secs(6);

/// A bug of a node. Where a number is given, the bug strikes once: the n-th message that the node's
/// applications get, or the n-th receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// O1: takes every lease for thirty seconds, whatever was granted: it answers without leases.
    Overstays,
    /// O2: hands its own lookups to the node that is farthest from their key.
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
    /// S4: a root that gives the receipt when it appends.
    Hasty,
    /// S4: a root that pushes to every child what is not committed.
    Leaky,
    /// S4: a member that claims after a restart to be in its former life.
    Amnesiac,
    /// S4: a member that claims to be one still after it has dropped its copy.
    Resurrected,
    /// S4: a root that takes a configuration for committed because the old one holds it.
    Grasping,
    /// S4: a member that promises a term although it has promised a later one.
    Oblivious,
    /// S5: before a message comes a gap that nobody owes.
    Gappy(u64),
    /// S5: a message never comes.
    Swallowed(u64),
    /// S6: keeps for a slow child as much as there is, beyond every limit.
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

impl Bug {
    /// The figures of a node with this bug, where they make it.
    pub(super) fn spoil(self, ring: &mut RingConfig, scribe: &mut Config) {
        if self == Bug::Overstays {
            ring.leases.duration = Duration::from_secs(30);
        } else if self == Bug::Hoards {
            ring.tables.leaf_set *= 4;
        } else if self == Bug::Collects {
            scribe.window.messages *= 64;
        } else if self == Bug::Crowds {
            (scribe.tree.children_per_tree, scribe.tree.children_per_node) = (1 << 10, 1 << 10);
        }
    }
}

/// Makes one node behave as its bug says.
pub(super) struct Planted {
    slot: usize,
    bug: Bug,
    messages: u64,
    receipts: u64,
    /// A message that waits for the next one to come before it.
    held: Option<Event>,
    /// The hermit has been on the ring with others, and then alone.
    retreat: (bool, bool),
    /// Its id.
    me: Option<NodeId>,
    /// The term for which it was last asked.
    prepared: Option<Term>,
    /// As it was last seen as a member.
    copy: Option<CopyState>,
    /// Its life as a member is over.
    is_over: bool,
    /// Publishers, and how to reach them.
    publishers: BTreeMap<(TopicId, NodeId), Contact>,
    /// Frames to children that are no members.
    ordinary: BTreeMap<(TopicId, NodeId), Transmit>,
    /// Places whose messages were told of too early.
    told: BTreeSet<(TopicId, u64)>,
    /// How many items each of its applications takes yet.
    credit: BTreeMap<SubscriptionId, u32>,
}

impl Planted {
    pub(super) fn new(slot: usize, bug: Bug) -> Planted {
        Planted {
            slot,
            bug,
            messages: 0,
            receipts: 0,
            held: None,
            retreat: (false, false),
            me: None,
            prepared: None,
            copy: None,
            is_over: false,
            publishers: BTreeMap::new(),
            ordinary: BTreeMap::new(),
            told: BTreeSet::new(),
            credit: BTreeMap::new(),
        }
    }

    /// Whether the hermit has retreated.
    fn has_retreated<N: RingNode>(&mut self, stack: &Stack<N>) -> bool {
        let ring = stack.ring();
        let alone = ring.is_alone() && ring.node_state() == NodeState::Ready;
        self.retreat.1 |= alone && self.retreat.0;
        self.retreat.0 |= !ring.is_alone();
        self.bug == Bug::Hermit && self.retreat.1
    }

    /// A message for the node.
    fn hear(&mut self, message: ForestHeader) {
        if let ForestHeader::Publish(publish) = message {
            self.publishers.insert((publish.topic, publish.publisher.id()), publish.publisher);
        } else if let ForestHeader::Prepare { term, .. } = message {
            self.prepared = Some(term);
        } else if let ForestHeader::Attached(Attached { start: Some(start), .. }) = message {
            self.is_over |= self.bug == Bug::Resurrected && start.sync.is_none() && self.copy.is_some();
        }
    }

    /// Breaks the rules of the replication: says something else, or more.
    fn replicate(&mut self, transmit: &mut Transmit, message: ForestHeader) -> Option<Vec<Transmit>> {
        let Destination::Peer(to) = transmit.to else { return None };
        match (self.bug, message) {
            (Bug::Hasty, ForestHeader::Data(data)) => {
                let Body::Message { publisher, session, sequence, .. } = data.body else { return None };
                let contact =
                    self.publishers.get(&(data.topic, publisher)).filter(|contact| contact.via.is_none())?;
                if data.behind == 0 && data.offset == 0 || !self.told.insert((data.topic, data.offset)) {
                    return None;
                }
                let receipt = PublishReceipt {
                    topic: data.topic,
                    session,
                    sequence,
                    position: Position { birth: data.birth, offset: data.offset },
                    birth: data.birth,
                    copies: 1,
                    listeners: 1,
                    root: *self.publishers.get(&(data.topic, publisher))?,
                };
                Some(vec![told(transmit, contact.peer, &ForestHeader::Receipt(receipt))])
            }
            (Bug::Leaky, ForestHeader::Attached(Attached { topic, start: Some(start), .. })) => {
                match start.sync {
                    None => self.ordinary.insert((topic, to.id), transmit.clone()),
                    Some(_) => self.ordinary.remove(&(topic, to.id)),
                };
                None
            }
            (Bug::Leaky, ForestHeader::Data(data)) => {
                let members = !self.ordinary.contains_key(&(data.topic, to.id));
                if !members || !self.told.insert((data.topic, data.offset)) {
                    return None;
                }
                let children = self.ordinary.iter().filter(|((topic, _), _)| *topic == data.topic);
                let push = |like: &Transmit| {
                    let mut frame = transmit.frame.clone();
                    frame.header = like.frame.header.clone();
                    Transmit { to: like.to, frame }
                };
                Some(children.map(|(_, like)| push(like)).collect())
            }
            (Bug::Grasping, ForestHeader::Data(data)) => {
                let Body::Configuration { birth: None, .. } = data.body else { return None };
                if !self.told.insert((data.topic, data.offset)) {
                    return None;
                }
                let term = Term { number: data.term, root: self.me? };
                let commit = ForestHeader::LogCommit { topic: data.topic, term, commit: data.offset + 1 };
                Some(vec![told(transmit, to, &commit)])
            }
            (Bug::Amnesiac | Bug::Resurrected, ForestHeader::Join(mut join)) => {
                join.copy = self.claim(join.copy);
                transmit.frame.payload = wire::encode(&ForestHeader::Join(join), &[]);
                None
            }
            (Bug::Amnesiac | Bug::Resurrected, ForestHeader::Promise(mut promise)) => {
                promise.copy = self.claim(promise.copy);
                transmit.frame.payload = wire::encode(&ForestHeader::Promise(promise), &[]);
                None
            }
            (Bug::Oblivious, ForestHeader::Promise(Promise { copy: Some(copy), .. })) => {
                self.copy = Some(*copy);
                None
            }
            (Bug::Oblivious, ForestHeader::PromiseRefused { topic, .. }) => {
                let (copy, term) = (Box::new(self.copy.clone()?), self.prepared?);
                let promise = Promise { topic, term, join: 0, copy: Some(copy), known: None };
                transmit.frame.payload = wire::encode(&ForestHeader::Promise(promise), &[]);
                None
            }
            _ => None,
        }
    }

    /// What it claims to be: the member that it was.
    fn claim(&mut self, copy: Option<Box<CopyState>>) -> Option<Box<CopyState>> {
        match (copy, &self.copy) {
            (Some(copy), Some(former)) if self.is_over => {
                Some(Box::new(CopyState { life: former.life, ..*copy }))
            }
            (Some(copy), _) => {
                self.copy = Some((*copy).clone());
                Some(copy)
            }
            (None, Some(former)) if self.is_over => Some(Box::new(former.clone())),
            (None, _) => None,
        }
    }

    /// A message for an application of the node.
    fn deliver(&mut self, event: Event, told: &mut Vec<Event>) {
        let Event::Item { subscription, item } = &event else { return };
        self.messages += 1;
        let held = self.held.take();
        if self.bug == Bug::Swallowed(self.messages) {
            return;
        }
        if self.bug == Bug::Doubled(self.messages) {
            told.push(Event::Item { subscription: *subscription, item: item.clone() });
        }
        if self.bug == Bug::Gappy(self.messages)
            && let Item::Message(message) = item
        {
            let until = message.position;
            let after = until.offset.checked_sub(1).map(|offset| Position { offset, ..until });
            let gap = Item::Gap(Gap { after, until, reason: GapReason::Unreplicated });
            told.push(Event::Item { subscription: *subscription, item: gap });
        }
        if self.bug == Bug::Swapped(self.messages) {
            self.held = Some(event);
            return;
        }
        let is_same = matches!(&held, Some(Event::Item { subscription: other, .. }) if other == subscription);
        if is_same || held.is_none() {
            told.push(event);
            told.extend(held);
        } else {
            // The next message is another subscription's: another one will do.
            told.extend(held);
            told.push(event);
            self.bug = Bug::Swapped(self.messages + 1);
        }
    }
}

impl<N: RingNode> Observer<Stack<N>> for Planted {
    fn command(&mut self, at: &At<'_, Stack<N>>, command: &Command) {
        if let Command::Subscribe { subscription, credit: items, .. }
        | Command::Credit { subscription, items } = command
            && at.slot == self.slot
        {
            *self.credit.entry(*subscription).or_default() += items;
        }
    }

    fn started(&mut self, slot: usize) {
        self.is_over |= slot == self.slot && self.copy.is_some();
    }

    fn frame_in(&mut self, at: &At<'_, Stack<N>>, from: Peer, frame: &Frame) -> Inward {
        if at.slot != self.slot {
            return Inward::Passes;
        }
        let whole = within(frame);
        if let Some((message, _)) = forest_message(whole.as_ref().unwrap_or(frame)) {
            self.hear(message);
        }
        if self.has_retreated(at.machine) {
            return Inward::Vanishes;
        }
        let ends_here = matches!(&frame.header, Header::Via { to, .. } if to.id == at.machine.peer().id);
        let inner = if ends_here { within(frame) } else { None };
        let Header::Routed(routed) = inner.as_ref().map_or(&frame.header, |inner| &inner.header) else {
            return Inward::Passes;
        };
        if self.bug == Bug::Swallows && routed.purpose == Purpose::Lookup {
            let taken = Header::HopAck { hop: routed.hop }.into();
            return Inward::Answered(Box::new(Transmit { to: Destination::Peer(from), frame: taken }));
        }
        Inward::Passes
    }

    fn frame_out(&mut self, at: &At<'_, Stack<N>>, transmit: &mut Transmit) -> Outward {
        if at.slot != self.slot {
            return Outward::Passes;
        }
        if self.has_retreated(at.machine) {
            return Outward::Vanishes;
        }
        self.me = Some(at.machine.peer().id);
        if self.bug == Bug::Backwards {
            turn_round(at.machine, transmit);
        }
        let Some((message, _)) = forest_message(&transmit.frame) else { return Outward::Passes };
        let is_data = matches!(message, ForestHeader::Data(_));
        if self.bug == Bug::Parentless && matches!(message, ForestHeader::Join(_)) {
            return Outward::Vanishes;
        } else if self.bug == Bug::BeatsPerTopic && matches!(message, ForestHeader::Beat(_)) {
            return Outward::Repeated(at.machine.forest().trees().len().saturating_sub(1));
        } else if self.bug == Bug::Forges && is_data {
            forge(&mut transmit.frame);
        } else if self.bug == Bug::Misplaces {
            misplace(&mut transmit.frame, message);
        } else if let Some(more) = self.replicate(transmit, message) {
            return Outward::With(more);
        } else if is_data
            && (self.bug == Bug::Dawdles
                || self.bug == Bug::Waits && self.credit.values().any(|credit| *credit == 0))
        {
            return Outward::Late(DAWDLE);
        }
        Outward::Passes
    }

    fn event(&mut self, at: &At<'_, Stack<N>>, event: Event, told: &mut Vec<Event>) {
        if at.slot != self.slot {
            return told.push(event);
        }
        if let Event::Published { .. } = &event {
            self.receipts += 1;
            if self.bug == Bug::Unanswered(self.receipts) {
                return;
            }
        }
        let Event::Item { subscription, item } = &event else { return told.push(event) };
        if let Some(credit) = self.credit.get_mut(subscription) {
            *credit = credit.saturating_sub(1);
        }
        match item {
            Item::Message(_) => self.deliver(event, told),
            Item::Gap(_) | Item::ParentChanged(_) => told.push(event),
        }
    }
}

fn turn_round<N: RingNode>(stack: &Stack<N>, transmit: &mut Transmit) {
    let Header::Routed(routed) = &transmit.frame.header else { return };
    if routed.purpose != Purpose::Lookup || routed.origin.id() != stack.peer().id {
        return;
    }
    let others = stack.ring().around().into_iter();
    if let Some(farthest) = others.max_by(|a, b| routed.key.closer(a.id, b.id)) {
        transmit.to = Destination::Peer(farthest);
    }
}

/// A message to a peer, in a frame like another one.
fn told(like: &Transmit, to: Peer, message: &ForestHeader) -> Transmit {
    let mut frame = like.frame.clone();
    frame.header = Header::Direct(Direct::Control);
    frame.payload = wire::encode(message, &[]);
    Transmit { to: Destination::Peer(to), frame }
}

/// A receipt names the next place.
fn misplace(frame: &mut Frame, message: ForestHeader) {
    if let ForestHeader::Receipt(mut receipt) = message {
        receipt.position.offset += 1;
        frame.payload = wire::encode(&ForestHeader::Receipt(receipt), &[]);
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

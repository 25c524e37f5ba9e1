//! Stories of several forests over a ring that routes on full knowledge, in virtual time.

mod births;
mod faults;
mod flow;
mod members;
mod publish;
mod root;
mod shape;
mod starts;
mod tree;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::peer::{Addr, Contact, Peer};
use treecast_overlay::random::{self, Rng};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::NodeState;

use super::{Context, Forest, Request, RingView};
use crate::config::{
    AdmissionConfig, Config, PushConfig, ReplicationConfig, RetryConfig, TreeConfig, WindowConfig,
};
use crate::event::{Event, SubscriptionId, Token};
use crate::log::Log;
use crate::message::{Gap, GapReason, Item, Mark, Message, PublishError, Receipt, Start};
use crate::topic::{Topic, TopicId};
use crate::wire::{self, Header};

const LATENCY: Duration = Duration::from_millis(5);
/// From a crash until the ring finds it dead.
const FOUND_DEAD_AFTER: Duration = Duration::from_millis(800);

struct World {
    nodes: BTreeMap<NodeId, Node>,
    /// Ring nodes as the ring knows them: a crashed one stays until it is found dead.
    members: Vec<Peer>,
    queue: BTreeMap<(Instant, u64), Happening>,
    count: u64,
    now: Instant,
    rng: Rng,
    config: Config,
    /// Of a hundred messages, so many are lost, so many come twice, and all are late by up to so long.
    loss: u32,
    twice: u32,
    jitter: Duration,
    /// Messages that were sent, by kind.
    sent: BTreeMap<&'static str, u64>,
    /// Messages from one node to another that are swallowed.
    cut: Option<fn(&Header) -> bool>,
    /// Two nodes that do not reach each other, while both reach all others.
    apart: Option<(NodeId, NodeId)>,
    /// Two nodes that are near each other, while all others are far apart.
    distance: Option<(NodeId, NodeId)>,
    next_id: u64,
}

struct Node {
    contact: Contact,
    forest: Forest,
    alive: bool,
    leases: bool,
    events: Vec<Event>,
    /// For when it was promised to be woken.
    woken: Option<Instant>,
}

enum Happening {
    Sent { from: Contact, to: NodeId, payload: Bytes },
    Routed { origin: Contact, at: NodeId, key: Key, payload: Bytes },
    FoundDead(NodeId),
    Wake(NodeId),
}

struct View<'a> {
    contact: Contact,
    members: &'a [Peer],
    leases: bool,
}

fn closest(members: &[Peer], key: Key, count: usize) -> Vec<Peer> {
    let mut all = members.to_vec();
    all.sort_by(|a, b| key.closer(a.id, b.id));
    all.truncate(count);
    all
}

impl RingView for View<'_> {
    fn contact(&self) -> Contact {
        self.contact
    }

    fn reply_contact(&self, _: u64) -> Contact {
        self.contact
    }

    fn node_state(&self) -> NodeState {
        if self.contact.is_edge() { NodeState::Edge } else { NodeState::Ready }
    }

    fn is_root_of(&self, _: Instant, key: Key) -> bool {
        self.leases && closest(self.members, key, 1).first().is_some_and(|peer| peer.id == self.contact.id())
    }

    fn replica_set(&self, key: Key, count: usize) -> Vec<Peer> {
        closest(self.members, key, count)
    }
}

/// Classic Scribe: the root alone holds the log.
fn single(config: Config) -> Config {
    Config { replication: ReplicationConfig { copies: 1, ..ReplicationConfig::default() }, ..config }
}

/// The topic of all these stories.
fn topic() -> TopicId {
    Topic::new("story").unwrap().id()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

impl World {
    /// So many ring nodes with random ids.
    fn new(count: usize, seed: u8) -> World {
        World::with_config(count, seed, Config::default())
    }

    /// The same, and forwarders stay as they are.
    fn unspliced(count: usize, seed: u8) -> World {
        World::with_config(
            count,
            seed,
            Config {
                tree: TreeConfig { splice_after: seconds(3600), ..TreeConfig::default() },
                ..Config::default()
            },
        )
    }

    fn with_config(count: usize, seed: u8, config: Config) -> World {
        let mut world = World {
            nodes: BTreeMap::new(),
            members: Vec::new(),
            queue: BTreeMap::new(),
            count: 0,
            now: Instant::ZERO,
            rng: random::stream(&[seed; 32], "world"),
            config,
            loss: 0,
            twice: 0,
            jitter: Duration::ZERO,
            sent: BTreeMap::new(),
            cut: None,
            apart: None,
            distance: None,
            next_id: 0,
        };
        for _ in 0..count {
            let id = NodeId(world.rng.random());
            world.enter(id);
        }
        world
    }

    /// A node enters the ring.
    fn enter(&mut self, id: NodeId) {
        let peer = Peer { id, incarnation: 1, addr: Addr::Memory(self.nodes.len() as u32) };
        self.members.push(peer);
        self.start(peer.into());
        for id in self.alive() {
            self.with(id, |forest, cx| {
                forest.handle_neighbours_changed(cx);
                forest.handle_nearest_changed(cx);
            });
        }
    }

    /// An edge node attaches itself to a ring node.
    fn enter_edge(&mut self, id: NodeId, access: NodeId) {
        let peer = Peer { id, incarnation: 1, addr: Addr::Unreachable };
        let via = self.nodes[&access].contact.peer;
        self.start(Contact { peer, via: Some(via) });
    }

    fn start(&mut self, contact: Contact) {
        let id = contact.id();
        let seed = self.rng.random();
        let forest = Forest::new(id, self.config.clone(), &seed).unwrap();
        let node = Node { contact, forest, alive: true, leases: true, events: Vec::new(), woken: None };
        self.nodes.insert(id, node);
        self.with(id, |forest, cx| forest.handle_ready(cx));
    }

    fn alive(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|(_, node)| node.alive).map(|(&id, _)| id).collect()
    }

    fn root(&self) -> NodeId {
        closest(&self.members, topic().key(), 1)[0].id
    }

    /// All ring nodes by their distance to the key, the root first.
    fn by_distance(&self) -> Vec<NodeId> {
        closest(&self.members, topic().key(), usize::MAX).into_iter().map(|peer| peer.id).collect()
    }

    fn crash(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().alive = false;
        self.schedule(FOUND_DEAD_AFTER, Happening::FoundDead(id));
    }

    /// The node is gone in order: its ring knows at once.
    fn depart(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).unwrap().alive = false;
        self.find_dead(id);
    }

    fn find_dead(&mut self, dead: NodeId) {
        self.members.retain(|peer| peer.id != dead);
        for id in self.alive() {
            self.with(id, |forest, cx| {
                forest.handle_peer_down(cx, dead);
                forest.handle_neighbours_changed(cx);
                forest.handle_nearest_changed(cx);
            });
        }
    }

    fn schedule(&mut self, after: Duration, what: Happening) {
        self.count += 1;
        self.queue.insert((self.now + after, self.count), what);
    }

    /// Lets a node act, and carries out what it wants.
    fn with<T>(&mut self, id: NodeId, act: impl FnOnce(&mut Forest, Context<'_>) -> T) -> T {
        let node = self.nodes.get_mut(&id).unwrap();
        let view = View { contact: node.contact, members: &self.members, leases: node.leases };
        let result = act(&mut node.forest, Context { now: self.now, ring: &view });
        node.forest.handle_turn_end(Context { now: self.now, ring: &view });
        node.forest.check_invariants();
        let requests: Vec<_> = std::iter::from_fn(|| node.forest.poll_request()).collect();
        node.events.extend(std::iter::from_fn(|| node.forest.poll_event()));
        let contact = node.contact;
        let wake = node.forest.poll_timeout();
        if let Some(at) = wake.filter(|_| wake != node.woken) {
            node.woken = wake;
            let after = at.since(self.now);
            self.schedule(after, Happening::Wake(id));
        }
        for request in requests {
            self.carry_out(contact, request);
        }
        result
    }

    fn carry_out(&mut self, from: Contact, request: Request) {
        match request {
            Request::Route { key, payload } => {
                if let Ok((Header::Join(_), _)) = wire::decode(&payload) {
                    *self.sent.entry("routed Join").or_default() += 1;
                }
                self.route(from, from.id(), key, payload);
            }
            Request::Send { to, payload, class } => {
                let (header, _) = wire::decode(&payload).unwrap();
                assert_eq!(class, header.class(), "{header:?}");
                *self.sent.entry(header.kind()).or_default() += 1;
                let lost = self.cut.is_some_and(|cut| cut(&header)) || self.are_apart(from.id(), to.id());
                if lost || self.rng.random_range(0..100) < self.loss {
                    return;
                }
                let copies = if self.rng.random_range(0..100) < self.twice { 2 } else { 1 };
                for _ in 0..copies {
                    let late = self.jitter.mul_f64(self.rng.random_range(0.0..1.0));
                    let payload = payload.clone();
                    let latency = self.latency(from.id(), to.id());
                    self.schedule(latency + late, Happening::Sent { from, to: to.id(), payload });
                }
            }
        }
    }

    fn are_apart(&self, a: NodeId, b: NodeId) -> bool {
        self.apart.is_some_and(|pair| pair == (a, b) || pair == (b, a))
    }

    fn latency(&self, a: NodeId, b: NodeId) -> Duration {
        match self.distance {
            Some(near) if near == (a, b) || near == (b, a) => LATENCY / 5,
            Some(_) => LATENCY * 4,
            None => LATENCY,
        }
    }

    /// How many hops a message from here to the topic's root makes.
    fn hops(&self, from: NodeId) -> usize {
        let (mut at, mut hops) = (from, 0);
        while at != self.root() {
            (at, hops) = (self.next_hop(at, topic().key()), hops + 1);
        }
        hops
    }

    /// One hop: to a node that shares a longer prefix, though the longest is left for later; else to the closest.
    fn route(&mut self, origin: Contact, at: NodeId, key: Key, payload: Bytes) {
        let here = self.nodes[&at].contact;
        let root = closest(&self.members, key, 1)[0].id;
        if root == at {
            return self.schedule(Duration::ZERO, Happening::Routed { origin, at, key, payload });
        }
        let next = self.next_hop(at, key);
        let next = here.via.map_or(next, |access| access.id);
        if self.rng.random_range(0..100) >= self.loss {
            self.schedule(LATENCY, Happening::Routed { origin, at: next, key, payload });
        }
    }

    fn next_hop(&self, at: NodeId, key: Key) -> NodeId {
        let root = closest(&self.members, key, 1)[0].id;
        let shared = key.shared_prefix(at);
        let better = self.members.iter().map(|peer| peer.id).filter(|&id| key.shared_prefix(id) > shared);
        let next = better.min_by_key(|&id| (key.shared_prefix(id), at.key().distance(id))).unwrap_or(root);
        if !self.are_apart(at, next) {
            return next;
        }
        let mut others = closest(&self.members, key, usize::MAX).into_iter().map(|peer| peer.id);
        others.find(|&id| id != at && id != next).unwrap()
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Sent { from, to, payload } if self.nodes[&to].alive => {
                self.with(to, |forest, cx| forest.handle_received(cx, &from, &payload));
            }
            Happening::Routed { origin, at, key, payload } if self.nodes[&at].alive => {
                if closest(&self.members, key, 1)[0].id == at {
                    self.with(at, |forest, cx| forest.handle_deliver(cx, &origin, &payload, false));
                } else if !self.with(at, |forest, cx| forest.handle_forward(cx, &origin, &payload)) {
                    self.route(origin, at, key, payload);
                }
            }
            Happening::FoundDead(id) => self.find_dead(id),
            Happening::Wake(id) if self.nodes[&id].alive => {
                if self.nodes[&id].forest.poll_timeout().is_some_and(|at| at <= self.now) {
                    self.with(id, |forest, cx| forest.handle_timeout(cx));
                } else {
                    self.nodes.get_mut(&id).unwrap().woken = None;
                    self.with(id, |_, _| ());
                }
            }
            Happening::Sent { .. } | Happening::Routed { .. } | Happening::Wake(_) => {}
        }
    }

    /// Lets time pass.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some((&(at, number), _)) = self.queue.first_key_value() {
            if at > until {
                break;
            }
            self.now = at;
            let what = self.queue.remove(&(at, number)).unwrap();
            self.happen(what);
        }
        self.now = until;
    }

    fn subscribe(&mut self, id: NodeId, start: Start) -> SubscriptionId {
        self.subscribe_with(id, start, u32::MAX)
    }

    fn subscribe_with(&mut self, id: NodeId, start: Start, credit: u32) -> SubscriptionId {
        self.next_id += 1;
        let subscription = SubscriptionId(self.next_id);
        self.with(id, |forest, cx| forest.subscribe(cx, subscription, topic(), start, credit));
        subscription
    }

    fn publish(&mut self, id: NodeId, text: &str) -> Token {
        self.next_id += 1;
        let token = Token(self.next_id);
        let payload = Bytes::copy_from_slice(text.as_bytes());
        self.with(id, |forest, cx| forest.publish(cx, token, topic(), payload));
        token
    }

    /// Publishes `text 0` and so on, one every few milliseconds.
    fn publish_many(&mut self, id: NodeId, text: &str, count: usize) {
        for number in 0..count {
            self.publish(id, &format!("{text} {number}"));
            self.run(millis(3));
        }
    }

    fn items(&self, id: NodeId, wanted: SubscriptionId) -> Vec<Item> {
        let items = self.nodes[&id].events.iter().filter_map(|event| {
            if let Event::Item { subscription, item } = event {
                (*subscription == wanted).then(|| item.clone())
            } else {
                None
            }
        });
        items.collect()
    }

    fn messages(&self, id: NodeId, wanted: SubscriptionId) -> Vec<Message> {
        let messages = self.items(id, wanted).into_iter().filter_map(|item| match item {
            Item::Message(message) => Some(message),
            Item::Gap(_) | Item::ParentChanged(_) => None,
        });
        messages.collect()
    }

    fn texts(&self, id: NodeId, wanted: SubscriptionId) -> Vec<String> {
        let text = |message: Message| String::from_utf8(message.payload.to_vec()).unwrap();
        self.messages(id, wanted).into_iter().map(text).collect()
    }

    fn gaps(&self, id: NodeId, wanted: SubscriptionId) -> Vec<Gap> {
        let gaps = self.items(id, wanted).into_iter().filter_map(|item| match item {
            Item::Gap(gap) => Some(gap),
            Item::Message(_) | Item::ParentChanged(_) => None,
        });
        gaps.collect()
    }

    /// The mark of a subscription's start.
    fn started(&self, id: NodeId, wanted: SubscriptionId) -> Option<Mark> {
        self.nodes[&id].events.iter().find_map(|event| {
            if let Event::Subscribed { subscription, mark } = event {
                (*subscription == wanted).then_some(*mark)
            } else {
                None
            }
        })
    }

    fn receipts(&self, id: NodeId) -> Vec<(Token, Receipt)> {
        let receipts = self.nodes[&id].events.iter().filter_map(|event| {
            if let Event::Published { token, receipt } = event { Some((*token, *receipt)) } else { None }
        });
        receipts.collect()
    }

    fn receipt(&self, id: NodeId, wanted: Token) -> Option<Receipt> {
        self.receipts(id).into_iter().find(|(token, _)| *token == wanted).map(|(_, receipt)| receipt)
    }

    fn failures(&self, id: NodeId) -> Vec<(Token, PublishError)> {
        let failures = self.nodes[&id].events.iter().filter_map(|event| {
            if let Event::PublishFailed { token, error } = event {
                Some((*token, error.clone()))
            } else {
                None
            }
        });
        failures.collect()
    }

    fn children(&self, id: NodeId) -> Vec<NodeId> {
        self.nodes[&id].forest.trees().first().map(|tree| tree.children.clone()).unwrap_or_default()
    }

    fn parent(&self, id: NodeId) -> Option<NodeId> {
        self.nodes[&id].forest.trees().first().and_then(|tree| tree.parent)
    }

    fn sent_of(&self, kind: &str) -> u64 {
        self.sent.get(kind).copied().unwrap_or(0)
    }

    /// A node's part of the log.
    fn log(&self, id: NodeId) -> &Log {
        self.nodes[&id].forest.trees[&topic()].flow.log.part().unwrap()
    }

    /// The members by the root's log, in the order of their ids.
    fn log_members(&self) -> Vec<NodeId> {
        let last = self.log(self.root()).configurations().last().unwrap();
        let mut ids: Vec<_> = last.members.iter().map(|member| member.peer.id).collect();
        ids.sort();
        ids
    }

    fn on_tree(&self) -> Vec<NodeId> {
        self.alive().into_iter().filter(|id| !self.nodes[id].forest.trees().is_empty()).collect()
    }

    /// Asserts that a subscription got exactly these, in the order of positions, with nothing lost.
    #[track_caller]
    fn expect_all(&self, id: NodeId, subscription: SubscriptionId, texts: &[String]) {
        assert_eq!(self.gaps(id, subscription), [], "at {id:?}");
        assert_eq!(self.texts(id, subscription), texts, "at {id:?}");
        self.expect_order(id, subscription);
    }

    /// S2 and S3: nothing twice, and within a birth of the log positions only grow.
    #[track_caller]
    fn expect_order(&self, id: NodeId, subscription: SubscriptionId) {
        let messages = self.messages(id, subscription);
        for two in messages.windows(2) {
            let [one, next] = [two[0].position, two[1].position];
            assert!(one.birth != next.birth || one.offset < next.offset, "at {id:?}: {one:#}, then {next:#}");
        }
        let mut ids: Vec<_> = messages.iter().map(|message| message.id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), messages.len(), "a message came twice at {id:?}");
    }
}

fn numbered(text: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{text} {number}")).collect()
}

impl World {
    /// How all nodes stand, for a story that fails.
    #[allow(dead_code, reason = "for a story that fails")]
    fn dump(&self) {
        for (id, node) in &self.nodes {
            let Some(tree) = node.forest.trees.get(&topic()) else { continue };
            let log = tree.flow.log.part();
            let log = log.map(|log| {
                (
                    log.birth,
                    log.window.start(),
                    log.commit(),
                    log.matched(),
                    log.end(),
                    log.replica().map(|r| (r.life, r.promised.number, r.synced.number)),
                    log.configurations()
                        .all()
                        .iter()
                        .map(|c| (c.at, c.members.iter().map(|m| m.peer.id).collect::<Vec<_>>()))
                        .collect::<Vec<_>>(),
                )
            });
            let role = match &tree.role {
                super::tree::role::Role::Joining { .. } => "joining".to_string(),
                super::tree::role::Role::Child(link) => format!("child of {}", link.parent),
                super::tree::role::Role::Root(root) => format!(
                    "root {:?} {:?} receipts {}",
                    root.primary.is_serving(),
                    root.primary.term(),
                    root.receipts.len()
                ),
            };
            eprintln!(
                "{id:?} alive {} {role} {log:?} children {:?}",
                node.alive,
                tree.flow.children.ids().collect::<Vec<_>>()
            );
        }
    }
}

//! Rings of real nodes under watch: the promises are checked while time passes, not only in the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use treecast_overlay::config::Config;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::{Bootstrap, Command, Event, Found, KeyBasedRouting};
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Standing;

use crate::check::{o1, o3, o5};
use crate::member::{Member, Wish};
use crate::world::{Case, Crash, TimedOut, World};

/// How long a lookup may take while its origin lives (promise O4).
const LOOKUP_LIMIT: Duration = Duration::from_secs(60);
/// How much longer than that until the verdict: the last attempt may still be on its way.
const LOOKUP_GRACE: Duration = Duration::from_secs(5);
/// How long after a failure more than half of one side of a leaf set may be repaired.
const REPAIR_LIMIT: Duration = Duration::from_secs(60);
/// Nodes on each side of a border that are asked whether they answer for it.
const NEAR: usize = 3;

type News = Rc<RefCell<Vec<(Instant, usize, Event)>>>;

struct Asked {
    slot: usize,
    incarnation: u64,
    at: Instant,
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    /// Lookups that were answered.
    pub found: u64,
    /// Lookups whose origin heard that there is no answer.
    pub not_found: u64,
    /// Hops of those answered, together.
    pub hops: u64,
    /// The slowest answer.
    pub slowest: Duration,
    /// Messages delivered at a root.
    pub delivered: u64,
    /// Messages whose origin heard that they cannot be delivered.
    pub undeliverable: u64,
    /// Letters received.
    pub received: u64,
    /// Broadcasts received.
    pub broadcasts: u64,
    /// Starts that failed, and why.
    pub failed_starts: Vec<String>,
}

/// A world of nodes, and what is expected of them.
pub struct Rings {
    /// The world. Time should pass by [`run`](Rings::run) only.
    pub world: World<Member>,
    /// What happened so far.
    pub tallies: Tallies,
    /// How often the promises are checked.
    pub period: Duration,
    /// Whether promise O1 is expected of all nodes together: not during a partition.
    pub one_side: bool,
    config: Config,
    dice: Rng,
    news: News,
    incarnations: Vec<u64>,
    /// When nodes crashed or paused, by id.
    failed: Vec<(Instant, NodeId)>,
    /// Faults of O1 that were excused: more than half of one side of a claimant's leaf set had failed together.
    pub excused: u64,
    lookups: BTreeMap<u64, Asked>,
    tokens: u64,
}

impl Rings {
    /// No node yet.
    pub fn new(case: Case, world: crate::world::Config, config: Config) -> Rings {
        let mut world = World::new(case, world);
        let news = News::default();
        let writer = Rc::clone(&news);
        world.observe(move |at, slot, event| writer.borrow_mut().push((at, slot, event)));
        Rings {
            dice: world.stream("rings"),
            world,
            tallies: Tallies::default(),
            period: Duration::from_millis(50),
            one_side: true,
            config,
            news,
            incarnations: Vec::new(),
            failed: Vec::new(),
            excused: 0,
            lookups: BTreeMap::new(),
            tokens: 0,
        }
    }

    // Nodes.

    /// The node that lives, or last lived, in a slot. Ids follow from the world's seed.
    pub fn peer(&self, slot: usize) -> Peer {
        let id = NodeId(self.world.stream(&format!("id/{slot}")).random());
        Peer { id, incarnation: self.incarnations[slot], addr: Addr::Memory(slot as u32) }
    }

    /// The node in a slot.
    pub fn node(&self, slot: usize) -> &Node {
        self.world.machine(slot).unwrap_or_else(|| panic!("nobody lives in slot {slot}")).node()
    }

    /// All nodes that live.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.world.machines().map(|(_, member)| member.node())
    }

    /// Slots of the nodes on the ring that run.
    pub fn ready(&self) -> Vec<usize> {
        let ready = |&(slot, member): &(usize, &Member)| {
            self.world.is_running(slot) && member.node().standing() == Standing::Ready
        };
        self.world.machines().filter(ready).map(|(slot, _)| slot).collect()
    }

    /// A random slot of a node on the ring.
    pub fn any_ready(&mut self) -> Option<usize> {
        self.ready().choose(&mut self.dice).copied()
    }

    /// `count` random slots of nodes on the ring.
    pub fn some_ready(&mut self, count: usize) -> Vec<usize> {
        let mut ready = self.ready();
        ready.shuffle(&mut self.dice);
        ready.truncate(count);
        ready
    }

    /// A random key.
    pub fn any_key(&mut self) -> Key {
        Key(self.dice.random())
    }

    /// The wish to join through the nodes of certain slots; through none: to be the first.
    pub fn through(slots: &[usize]) -> Bootstrap {
        let join = slots.iter().map(|&slot| Seed::from(Addr::Memory(slot as u32))).collect();
        Bootstrap { join, ..Bootstrap::default() }
    }

    /// Starts a new node.
    pub fn add(&mut self, bootstrap: Bootstrap) -> usize {
        let config = self.config.clone();
        self.add_with(config, bootstrap)
    }

    /// Starts a new node with its own figures.
    pub fn add_with(&mut self, config: Config, bootstrap: Bootstrap) -> usize {
        let slot = self.world.next_slot();
        self.incarnations.push(1);
        let member = self.make(slot, config);
        self.world.add(member);
        self.world.command(slot, Wish::Overlay(Command::Start(bootstrap)));
        slot
    }

    /// Starts a node again in its slot, as a new incarnation.
    pub fn restart(&mut self, slot: usize, bootstrap: Bootstrap) {
        self.incarnations[slot] += 1;
        let member = self.make(slot, self.config.clone());
        self.world.restart(slot, member);
        self.world.command(slot, Wish::Overlay(Command::Start(bootstrap)));
    }

    /// Crashes a node, if one lives there.
    pub fn crash(&mut self, slot: usize, how: Crash) {
        if self.world.machine(slot).is_some() {
            self.note_failure(slot);
            self.world.crash(slot, how);
        }
    }

    /// Pauses a node.
    pub fn pause(&mut self, slot: usize) {
        self.note_failure(slot);
        self.world.pause(slot);
    }

    /// Lets a paused node go on.
    pub fn resume(&mut self, slot: usize) {
        self.note_failure(slot);
        self.world.resume(slot);
    }

    fn note_failure(&mut self, slot: usize) {
        self.failed.push((self.world.now(), self.peer(slot).id));
    }

    /// Promise O1's excuse: around one of the claimants, more than half of one side failed within the last minute.
    fn is_excused(&self, key: Key) -> bool {
        let now = self.world.now();
        let recently =
            |id: NodeId| self.failed.iter().any(|&(at, other)| other == id && now - at < REPAIR_LIMIT);
        let mut ids: Vec<NodeId> = self
            .nodes()
            .filter(|node| node.standing() == Standing::Ready)
            .map(|node| node.peer().id)
            .collect();
        ids.extend(self.failed.iter().map(|&(_, id)| id));
        let side = |order: &dyn Fn(NodeId) -> u128| {
            let mut side = ids.clone();
            side.sort_by_key(|&id| order(id));
            side.dedup();
            side.truncate(self.config.leaf_set / 2);
            let failed = side.iter().filter(|&&id| recently(id)).count();
            failed * 2 > side.len()
        };
        side(&|id| key.clockwise_to(id)) || side(&|id| id.key().clockwise_to(key))
    }

    fn make(&self, slot: usize, config: Config) -> Member {
        let seed = self.world.node_seed(slot);
        Member::new(Node::new(self.peer(slot), config, seed).expect("the configuration is sound"))
    }

    // Work.

    /// Asks for the root of a random key.
    pub fn look_up(&mut self, slot: usize) {
        let key = self.any_key();
        self.tokens += 1;
        let asked = Asked { slot, incarnation: self.incarnations[slot], at: self.world.now() };
        self.lookups.insert(self.tokens, asked);
        let lookup = Command::Lookup { token: self.tokens, key, trace: false };
        self.world.command(slot, Wish::Overlay(lookup));
    }

    /// Random nodes look random keys up.
    pub fn look_up_somewhere(&mut self, count: usize) {
        for slot in self.some_ready(count) {
            self.look_up(slot);
        }
    }

    /// How many lookups still wait for their answer.
    pub fn open_lookups(&self) -> usize {
        self.lookups.len()
    }

    // Time.

    /// Lets time pass under watch.
    pub fn run(&mut self, time: Duration) {
        let end = self.world.now() + time;
        while self.world.now() < end {
            let period = self.period.min(end - self.world.now());
            self.pass(period);
            self.check();
        }
    }

    /// Lets time pass under watch until all nodes that live are on one ring and every lookup is answered.
    pub fn run_until_whole(&mut self, limit: Duration) -> Result<Duration, TimedOut> {
        let begin = self.world.now();
        loop {
            let whole = self.is_whole();
            if whole.is_ok() {
                return Ok(self.world.now() - begin);
            }
            if self.world.now() - begin >= limit {
                eprintln!("{}", whole.err().unwrap_or_default());
                return self.world.run_until(Duration::ZERO, |_| false);
            }
            self.run(self.period);
        }
    }

    /// Whether all nodes that live are on one ring and every lookup is answered.
    pub fn is_whole(&self) -> Result<(), String> {
        let waiting = |node: &&Node| !matches!(node.standing(), Standing::Ready | Standing::Edge);
        if let Some(node) = self.nodes().find(waiting) {
            return Err(format!("{:?} is not on the ring: {:?}", node.peer().id, node.standing()));
        }
        if let Some((token, asked)) = self.lookups.first_key_value() {
            return Err(format!("lookup {token} of slot {} is not answered", asked.slot));
        }
        o3::one_ring(self.world.now(), self.nodes())
    }

    fn pass(&mut self, time: Duration) {
        let end = self.world.now() + time;
        let news = Rc::clone(&self.news);
        let one_side = self.one_side;
        // Deliveries are judged at their own instant, in the state that the delivering node was left in.
        let stopped = self.world.run_until(time, |world| {
            if one_side {
                news.borrow().iter().for_each(|(at, slot, event)| check_delivery(world, *at, *slot, event));
            }
            !news.borrow().is_empty()
        });
        let news: Vec<_> = self.news.borrow_mut().drain(..).collect();
        for (at, slot, event) in news {
            self.on_event(at, slot, event);
        }
        if stopped.is_ok() && self.world.now() < end {
            self.pass(end - self.world.now());
        }
    }

    fn on_event(&mut self, at: Instant, slot: usize, event: Event) {
        match event {
            Event::Found { token, found } => self.on_found(at, token, found),
            Event::NotFound { token, reason } => {
                let asked = self.lookups.remove(&token);
                let at = asked.map(|asked| asked.at);
                eprintln!("lookup {token} of slot {slot}, asked at {at:?}, was not answered: {reason:?}");
                self.tallies.not_found += 1;
            }
            Event::Deliver(_) => self.tallies.delivered += 1,
            Event::Undeliverable { .. } => self.tallies.undeliverable += 1,
            Event::Received { .. } => self.tallies.received += 1,
            Event::Broadcast { .. } => self.tallies.broadcasts += 1,
            Event::StartFailed(error) => {
                self.tallies.failed_starts.push(format!("slot {slot} at {at}: {error}"));
                self.world.stop(slot);
            }
            Event::Left | Event::Superseded { .. } => {
                self.world.stop(slot);
            }
            Event::Ready { .. }
            | Event::Forward(_)
            | Event::NeighboursChanged
            | Event::PeerDown(_)
            | Event::ContactChanged(_) => {}
        }
    }

    fn on_found(&mut self, at: Instant, token: u64, found: Found) {
        let Some(asked) = self.lookups.remove(&token) else { return };
        self.tallies.found += 1;
        self.tallies.hops += u64::from(found.hops);
        self.tallies.slowest = self.tallies.slowest.max(at - asked.at);
    }

    /// The promises that can be judged at any instant.
    fn check(&mut self) {
        let now = self.world.now();
        let keys: Vec<Key> = (0..4).map(|_| self.any_key()).collect();
        if self.one_side {
            self.excused += self.check_claims(now, keys);
        }
        o5::bounded(self.nodes());
        let incarnations = &self.incarnations;
        let world = &self.world;
        // The promise ends with the origin, and rests while it does.
        self.lookups.retain(|_, asked| {
            incarnations[asked.slot] == asked.incarnation && world.machine(asked.slot).is_some()
        });
        let late =
            |asked: &&Asked| now - asked.at > LOOKUP_LIMIT + LOOKUP_GRACE && world.is_running(asked.slot);
        if let Some(asked) = self.lookups.values().find(late) {
            panic!("O4: slot {} asked at {} and has no answer at {now}", asked.slot, asked.at);
        }
    }

    /// Says how many faults were excused; panics at one that is not.
    fn check_claims(&self, now: Instant, keys: Vec<Key>) -> u64 {
        let serving = o1::serving(now, self.nodes());
        let mut excused = 0;
        let mut judge = |key: Key, judgement: Result<_, String>| match judgement {
            Ok(_) => {}
            Err(_) if self.is_excused(key) => excused += 1,
            Err(fault) => panic!("{fault}"),
        };
        for key in keys {
            judge(key, o1::at_most_one(now, key, &serving));
        }
        let mut all: Vec<&Node> = self.nodes().collect();
        all.sort_by_key(|node| node.peer().id);
        for key in o1::borders(&all) {
            let at = serving.partition_point(|node| node.peer().id.key() < key);
            let near: Vec<&Node> = (0..2 * NEAR.min(serving.len()))
                .map(|i| serving[(at + serving.len() * NEAR + i - NEAR.min(serving.len())) % serving.len()])
                .collect();
            let mut near = near;
            near.sort_by_key(|node| node.peer().id);
            near.dedup_by_key(|node| node.peer().id);
            judge(key, o1::at_most_one(now, key, &near));
        }
        excused
    }
}

fn check_delivery(world: &World<Member>, at: Instant, slot: usize, event: &Event) {
    let Event::Deliver(delivery) = event else { return };
    let Some(root) = world.machine(slot).map(Member::id) else { return };
    let serving = o1::serving(at, world.machines().map(|(_, member)| member.node()));
    match o1::at_most_one(at, delivery.key, &serving) {
        Ok(Some(claimant)) if claimant == root => {}
        Ok(other) => panic!("O1: {root:?} delivers for {:?}, but {other:?} answers for it", delivery.key),
        Err(fault) => panic!("{fault}"),
    }
}

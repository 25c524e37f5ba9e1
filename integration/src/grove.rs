//! Many whole nodes in a [`World`], with applications that subscribe and publish, and a record of all that they saw.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::config::{Config as RingConfig, Role};
use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::{Bootstrap, KeyBasedRouting};
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Standing;
use treecast_scribe::event::{Command, Event, SubscriptionId, Token, TreeStatus};
use treecast_scribe::{Config, PastryStack, Start, Topic};

use crate::check::{s1, s2, s3, s4, s5};
use crate::history::{History, Offered, Watched, payload};
use crate::tapped::{Fault, Tapped};
use crate::world::{Case, Crash, World};

/// Items that an ordinary application takes ahead.
const CREDIT: u32 = 1024;
/// How long applications take to fetch what has come.
const SLICE: Duration = Duration::from_millis(50);
/// How often every forest's invariants are asked for.
const INSPECTION: Duration = Duration::from_secs(1);

/// A world of whole nodes.
pub struct Grove {
    /// The world. Time should pass by [`run`](Grove::run) only.
    pub world: World<Tapped>,
    /// What the applications saw.
    pub history: History,
    ring: RingConfig,
    forest: Config,
    plant: BTreeMap<usize, Fault>,
    incarnations: Vec<u64>,
    numbers: u64,
    inspected: Instant,
    /// Starts that failed, and why.
    pub failed_starts: Vec<String>,
    /// Log entries sent by nodes that are no more.
    payloads: u64,
}

impl Grove {
    /// No node yet; the figures that ship.
    pub fn new(case: Case, world: crate::world::Config) -> Grove {
        Grove::with(case, world, Config::default())
    }

    /// No node yet; Scribe's figures as given.
    pub fn with(case: Case, world: crate::world::Config, forest: Config) -> Grove {
        Grove {
            world: World::new(case, world),
            history: History::default(),
            ring: RingConfig::default(),
            forest,
            plant: BTreeMap::new(),
            incarnations: Vec::new(),
            numbers: 0,
            inspected: Instant::ZERO,
            failed_starts: Vec::new(),
            payloads: 0,
        }
    }

    // Nodes.

    /// The node that lives, or last lived, in a slot. Ids follow from the world's seed.
    pub fn id(&self, slot: usize) -> NodeId {
        NodeId(self.world.stream(&format!("id/{slot}")).random())
    }

    /// The node that will start in this slot has a fault.
    pub fn plant(&mut self, slot: usize, fault: Fault) {
        self.plant.insert(slot, fault);
    }

    /// Starts a node on the ring through the nodes of certain slots; through none: the first.
    pub fn add(&mut self, through: &[usize]) -> usize {
        let (ring, slot) = (self.ring.clone(), self.world.next_slot());
        self.start(slot, ring, Addr::Memory(slot as u32), through)
    }

    /// Starts an edge node, which nobody can dial.
    pub fn add_edge(&mut self, through: &[usize]) -> usize {
        let ring = RingConfig { role: Role::Edge { promote_after: None }, ..self.ring.clone() };
        self.start(self.world.next_slot(), ring, Addr::Unreachable, through)
    }

    /// Starts a node again in its slot, as a new incarnation.
    pub fn restart(&mut self, slot: usize, through: &[usize]) {
        self.start(slot, self.ring.clone(), Addr::Memory(slot as u32), through);
    }

    fn start(&mut self, slot: usize, ring: RingConfig, addr: Addr, through: &[usize]) -> usize {
        if slot == self.incarnations.len() {
            self.incarnations.push(0);
        }
        self.incarnations[slot] += 1;
        let seed = self.world.node_seed(slot);
        let peer = Peer { id: self.id(slot), incarnation: self.incarnations[slot], addr };
        let node = Node::new(peer, ring, seed).expect("the configuration is sound");
        let stack = PastryStack::new(node, self.forest.clone(), seed).expect("the configuration is sound");
        let tapped = match self.plant.get(&slot) {
            Some(&fault) => Tapped::plant(stack, fault),
            None => Tapped::new(stack),
        };
        if slot == self.world.slots() {
            self.world.add(tapped);
        } else {
            self.world.restart(slot, tapped);
        }
        let join = through.iter().map(|&slot| Seed::from(Addr::Memory(slot as u32))).collect();
        self.world.command(slot, Command::Start(Bootstrap { join, ..Bootstrap::default() }));
        slot
    }

    /// So many nodes on the ring, all through the first, and waits until they are there.
    pub fn grow(&mut self, count: usize, within: Duration) {
        self.add(&[]);
        self.run(Duration::from_millis(500));
        for _ in 1..count {
            self.add(&[0]);
            self.run(within / count as u32);
        }
        self.await_ready();
    }

    /// Waits until every node is on the ring, or hangs on it.
    pub fn await_ready(&mut self) {
        self.run_until(Duration::from_secs(60), |grove| {
            match grove
                .stacks()
                .find(|(_, s)| !matches!(s.ring().standing(), Standing::Ready | Standing::Edge))
            {
                Some((slot, stack)) => Err(format!("slot {slot} is {:?}", stack.ring().standing())),
                None => Ok(()),
            }
        });
        assert!(self.failed_starts.is_empty(), "{:?}", self.failed_starts);
    }

    /// Crashes a node.
    pub fn crash(&mut self, slot: usize, how: Crash) {
        self.bury(slot);
        self.world.crash(slot, how);
    }

    /// Tells a node to leave; it ends when it has.
    pub fn leave(&mut self, slot: usize) {
        self.world.command(slot, Command::Leave);
    }

    fn bury(&mut self, slot: usize) {
        self.payloads += self.world.machine(slot).map_or(0, Tapped::payloads);
        self.history.end(slot, self.world.now());
    }

    /// All nodes that live.
    pub fn stacks(&self) -> impl Iterator<Item = (usize, &PastryStack)> {
        self.world.machines().map(|(slot, tapped)| (slot, tapped.stack()))
    }

    /// The node in a slot.
    pub fn stack(&self, slot: usize) -> &PastryStack {
        self.world.machine(slot).unwrap_or_else(|| panic!("nobody lives in slot {slot}")).stack()
    }

    /// How the nodes stand in a topic's tree, by slot.
    pub fn tree(&self, topic: &Topic) -> Vec<(usize, TreeStatus)> {
        let find =
            |stack: &PastryStack| stack.forest().trees().into_iter().find(|tree| tree.topic == topic.id());
        self.stacks().filter_map(|(slot, stack)| Some((slot, find(stack)?))).collect()
    }

    /// The slot of a topic's root: of the ready node that is closest to its key.
    pub fn root(&self, topic: &Topic) -> usize {
        let ready = self.stacks().filter(|(_, stack)| stack.ring().standing() == Standing::Ready);
        let key = topic.id().key();
        let closest = ready.min_by(|(_, a), (_, b)| key.closer(a.peer().id, b.peer().id));
        closest.expect("somebody is on the ring").0
    }

    /// Slots of a topic's nodes with children, the root excepted, largest families first.
    pub fn parents(&self, topic: &Topic) -> Vec<usize> {
        let mut parents: Vec<(usize, usize)> = self
            .tree(topic)
            .into_iter()
            .filter(|(_, tree)| !tree.is_root && !tree.children.is_empty())
            .map(|(slot, tree)| (tree.children.len(), slot))
            .collect();
        parents.sort_by_key(|&(children, slot)| (std::cmp::Reverse(children), slot));
        parents.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Trees of all nodes, together.
    pub fn trees(&self) -> usize {
        self.stacks().map(|(_, stack)| stack.forest().trees().len()).sum()
    }

    /// Log entries that went from node to node so far, repetitions included.
    pub fn payloads(&self) -> u64 {
        self.payloads + self.world.machines().map(|(_, tapped)| tapped.payloads()).sum::<u64>()
    }

    // Applications.

    /// Subscribes to what comes from now on, with an application that takes all.
    pub fn subscribe(&mut self, slot: usize, topic: &Topic) -> SubscriptionId {
        self.subscribe_with(slot, topic, Start::Latest, CREDIT, false)
    }

    /// Subscribes after a mark.
    pub fn subscribe_after(&mut self, slot: usize, topic: &Topic, start: Start) -> SubscriptionId {
        self.subscribe_with(slot, topic, start, CREDIT, false)
    }

    /// Subscribes with an application that takes so many items and then stops.
    pub fn subscribe_stalled(&mut self, slot: usize, topic: &Topic, credit: u32) -> SubscriptionId {
        self.subscribe_with(slot, topic, Start::Latest, credit, true)
    }

    fn subscribe_with(
        &mut self,
        slot: usize,
        topic: &Topic,
        start: Start,
        credit: u32,
        stalled: bool,
    ) -> SubscriptionId {
        let subscription = SubscriptionId(self.next_number());
        let watched = Watched {
            slot,
            topic: topic.id(),
            asked: self.world.now(),
            mark: None,
            items: Vec::new(),
            ended: None,
            failed: None,
            stalled,
        };
        self.history.subscriptions.insert(subscription, watched);
        self.world.command(slot, Command::Subscribe { subscription, topic: topic.clone(), start, credit });
        subscription
    }

    /// A stalled application goes on.
    pub fn unstall(&mut self, subscription: SubscriptionId) {
        let watched = self.history.subscriptions.get_mut(&subscription).expect("it was subscribed");
        watched.stalled = false;
        let slot = watched.slot;
        self.world.command(slot, Command::Credit { subscription, items: CREDIT });
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, subscription: SubscriptionId) {
        let now = self.world.now();
        let watched = self.history.subscriptions.get_mut(&subscription).expect("it was subscribed");
        watched.ended.get_or_insert(now);
        let slot = watched.slot;
        self.world.command(slot, Command::Unsubscribe(subscription));
    }

    /// Publishes `len` bytes, at least eight.
    pub fn publish(&mut self, slot: usize, topic: &Topic, len: usize) -> Token {
        let token = Token(self.next_number());
        let payload = payload(token, len);
        let offered = Offered {
            slot,
            publisher: self.id(slot),
            topic: topic.id(),
            at: self.world.now(),
            payload: payload.clone(),
            outcome: None,
            abandoned: false,
        };
        self.history.publications.insert(token, offered);
        self.world.command(slot, Command::Publish { token, topic: topic.clone(), payload });
        token
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    // Time.

    /// Lets time pass; the applications fetch what comes.
    pub fn run(&mut self, time: Duration) {
        let end = self.world.now() + time;
        while self.world.now() < end {
            self.world.run_for(SLICE.min(end - self.world.now()));
            self.fetch();
            if self.world.now() - self.inspected >= INSPECTION {
                self.inspect();
            }
        }
    }

    /// Lets time pass until `done`, and says how long that took. Panics with its last word when time is up.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Grove) -> Result<(), String>,
    ) -> Duration {
        let begin = self.world.now();
        loop {
            match done(self) {
                Ok(()) => return self.world.now() - begin,
                Err(missing) if self.world.now() - begin >= limit => panic!("within {limit:?}: {missing}"),
                Err(_) => self.run(SLICE * 2),
            }
        }
    }

    /// Every forest and every node is asked whether it contradicts itself.
    pub fn inspect(&mut self) {
        self.inspected = self.world.now();
        for (_, stack) in self.stacks() {
            stack.check_invariants();
            stack.ring().assert_invariants();
        }
    }

    fn fetch(&mut self) {
        let mut consumed: BTreeMap<SubscriptionId, u32> = BTreeMap::new();
        for (at, slot, event) in self.world.take_events() {
            self.on_event(at, slot, event, &mut consumed);
        }
        for (subscription, items) in consumed {
            let watched = &self.history.subscriptions[&subscription];
            if watched.ended.is_none() && !watched.stalled {
                self.world.command(watched.slot, Command::Credit { subscription, items });
            }
        }
    }

    fn on_event(
        &mut self,
        at: Instant,
        slot: usize,
        event: Event,
        consumed: &mut BTreeMap<SubscriptionId, u32>,
    ) {
        match event {
            Event::Subscribed { subscription, mark } => {
                let watched = self.watched(subscription);
                assert!(watched.mark.is_none(), "S5: {subscription:?} starts twice");
                watched.mark = Some((at, mark));
            }
            Event::SubscribeFailed { subscription, error } => {
                let watched = self.watched(subscription);
                watched.failed = Some(error);
                watched.ended.get_or_insert(at);
            }
            Event::Item { subscription, item } => {
                let watched = self.watched(subscription);
                assert!(watched.mark.is_some(), "S5: {subscription:?} yields before it starts");
                // What was under way when it ended belongs to nobody.
                if watched.ended.is_none_or(|ended| at < ended) {
                    watched.items.push((at, item));
                    *consumed.entry(subscription).or_default() += 1;
                }
            }
            Event::Published { token, receipt } => self.on_outcome(at, token, Ok(receipt)),
            Event::PublishFailed { token, error } => self.on_outcome(at, token, Err(error)),
            Event::StartFailed(error) => {
                self.failed_starts.push(format!("slot {slot} at {at}: {error}"));
                self.bury(slot);
                self.world.stop(slot);
            }
            Event::Left | Event::Superseded { .. } => {
                self.bury(slot);
                self.world.stop(slot);
            }
            Event::Ready { .. }
            | Event::Found { .. }
            | Event::NotFound { .. }
            | Event::Status { .. }
            | Event::ContactChanged(_) => {}
        }
    }

    fn on_outcome(
        &mut self,
        at: Instant,
        token: Token,
        outcome: Result<treecast_scribe::Receipt, treecast_scribe::PublishError>,
    ) {
        let offered = self.history.publications.get_mut(&token).expect("it was published");
        assert!(offered.outcome.is_none(), "S4: {token:?} is answered twice");
        offered.outcome = Some((at, outcome));
    }

    fn watched(&mut self, subscription: SubscriptionId) -> &mut Watched {
        self.history.subscriptions.get_mut(&subscription).expect("it was subscribed")
    }

    // Judgement.

    /// Whether every subscriber is attached, and parents and children agree (promise S1).
    pub fn is_whole(&self) -> Result<(), String> {
        s1::attached(self.stacks().map(|(_, stack)| stack))
    }

    /// Whether all that was published has been answered, and all that was delivered or acknowledged has come to
    /// every subscriber, or was announced to it as lost.
    pub fn is_settled(&self) -> Result<(), String> {
        let waiting = |watched: &&Watched| watched.mark.is_none() && watched.ended.is_none();
        if let Some(watched) = self.history.subscriptions.values().find(waiting) {
            return Err(format!("the subscription of slot {} has not started", watched.slot));
        }
        s4::answered(&self.history)?;
        s5::announced(&self.history)
    }

    /// The promises that always hold. Panics, naming the one that does not.
    pub fn judge(&self) {
        let verdicts =
            [s2::once(&self.history), s3::in_order(&self.history), s4::true_receipts(&self.history)];
        for verdict in verdicts {
            verdict.unwrap_or_else(|fault| panic!("{fault}"));
        }
    }

    /// Waits until trees are whole and everything is settled, and judges. Says how long it took.
    pub fn settle(&mut self, limit: Duration) -> Duration {
        let took = self.run_until(limit, |grove| {
            grove.is_whole()?;
            grove.is_settled()
        });
        self.judge();
        took
    }
}

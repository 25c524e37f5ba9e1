//! Many whole nodes in a [`World`], with applications that subscribe and publish, and a record of all that they saw.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::config::{Config as RingConfig, Role};
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::{Bootstrap, KeyBasedRouting};
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Standing;
use treecast_scribe::event::{Command, SubscriptionId, Token, TreeStatus};
use treecast_scribe::{Config, PastryStack, Start, Topic};

use crate::check::{Promise, Verdict, o5};
use crate::history::{History, Offered, Watched, payload};
use crate::tapped::{Fault, Tapped};
use crate::watch::{Asked, Watch};
use crate::witness;
use crate::world::{Case, Crash, Cut, CutId, World};

mod time;

/// Items that an ordinary application takes ahead.
const CREDIT: u32 = 1024;

/// A world of whole nodes.
pub struct Grove {
    /// The world. Time should pass by [`run`](Grove::run) only.
    pub world: World<Tapped>,
    /// What the applications saw.
    pub history: History,
    /// Failures, sides and lookups.
    pub watch: Watch,
    /// What the taps saw.
    pub witness: witness::Shared,
    /// How often what happened that seldom does.
    pub events: BTreeMap<&'static str, u64>,
    ring: RingConfig,
    forest: Config,
    limits: BTreeMap<&'static str, usize>,
    plant: BTreeMap<usize, Fault>,
    incarnations: Vec<u64>,
    numbers: u64,
    dice: Rng,
    /// When each second's, and each round's, judges were asked last.
    inspected: (Instant, Instant),
    /// Since when all is well.
    calm: Option<Instant>,
    known: time::Known,
    /// What a judge said between two steps: told when time passes.
    unheard: Verdict,
    /// Starts that failed, and why.
    pub failed_starts: Vec<String>,
}

impl Grove {
    /// No node yet; the figures that ship.
    pub fn new(case: Case, world: crate::world::Config) -> Grove {
        Grove::with(case, world, Config::default())
    }

    /// No node yet; Scribe's figures as given.
    pub fn with(case: Case, world: crate::world::Config, forest: Config) -> Grove {
        Grove::told(case, world, RingConfig::default(), forest)
    }

    /// No node yet; all figures as given.
    pub fn told(case: Case, world: crate::world::Config, ring: RingConfig, forest: Config) -> Grove {
        let world = World::new(case, world);
        Grove {
            history: History::default(),
            watch: Watch::new(ring.leaf_set),
            witness: witness::Shared::default(),
            events: BTreeMap::new(),
            limits: limits(&ring, &forest),
            ring,
            forest,
            plant: BTreeMap::new(),
            incarnations: Vec::new(),
            numbers: 0,
            dice: world.stream("grove"),
            inspected: (Instant::ZERO, Instant::ZERO),
            calm: None,
            known: time::Known::default(),
            unheard: Ok(()),
            failed_starts: Vec::new(),
            world,
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
        let (mut ring, mut forest, fault) = (ring, self.forest.clone(), self.plant.get(&slot).copied());
        if let Some(fault) = fault {
            fault.spoil(&mut ring, &mut forest);
        }
        let node = Node::new(peer, ring, seed).expect("the configuration is sound");
        let stack = PastryStack::new(node, forest, seed).expect("the configuration is sound");
        let tapped = match fault {
            Some(fault) => Tapped::plant(stack, &self.witness, fault),
            None => Tapped::new(stack, &self.witness),
        };
        if slot == self.world.slots() {
            self.world.add(tapped);
        } else {
            self.world.restart(slot, tapped);
        }
        self.find_sides();
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
                Some((slot, stack)) => {
                    Err(Promise::O3.broken(format!("slot {slot} is {:?}", stack.ring().standing())))
                }
                None => Ok(()),
            }
        });
        assert!(self.failed_starts.is_empty(), "{:?}", self.failed_starts);
    }

    /// Crashes a node.
    pub fn crash(&mut self, slot: usize, how: Crash) {
        self.note_failure(slot);
        self.bury(slot);
        self.world.crash(slot, how);
        self.find_sides();
    }

    /// Tells a node to leave; it ends when it has.
    pub fn leave(&mut self, slot: usize) {
        self.world.command(slot, Command::Leave);
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

    /// Cuts one node off from all others: it stands on a side of its own.
    pub fn isolate(&mut self, slot: usize) -> CutId {
        self.part(&[slot])
    }

    /// Cuts some nodes off from all others, not from each other: they stand on a side of their own.
    pub fn part(&mut self, slots: &[usize]) -> CutId {
        slots.iter().for_each(|&slot| self.note_failure(slot));
        self.cut(Cut::island(slots))
    }

    /// Takes the cut of [`isolate`](Grove::isolate) or [`part`](Grove::part) back. Until the ring is whole again,
    /// promise O1 rests.
    pub fn rejoin(&mut self, slots: &[usize], cut: CutId) {
        slots.iter().for_each(|&slot| self.note_failure(slot));
        self.heal(cut);
    }

    /// Severs what a cut says.
    pub fn cut(&mut self, cut: Cut) -> CutId {
        let cut = self.world.cut(cut);
        self.find_sides();
        cut
    }

    /// Takes a cut back. If sides become one by it, promise O1 rests until the ring is whole again.
    pub fn heal(&mut self, cut: CutId) {
        self.world.heal(cut);
        self.find_sides();
    }

    /// Edge nodes pass nothing on between ring nodes, and neither do the dead.
    fn find_sides(&mut self) {
        let on_ring = |(_, stack): &(usize, &PastryStack)| stack.ring().role() == Role::Ring;
        let nodes: Vec<usize> = self.stacks().filter(on_ring).map(|(slot, _)| slot).collect();
        let (sides, before) = (self.world.sides(&nodes), &self.watch);
        let is_one = |&(a, b): &(usize, usize)| sides[a] == sides[b];
        let was_one = |&(a, b): &(usize, usize)| before.side(a) == before.side(b);
        let pairs = || nodes.iter().flat_map(|&a| nodes.iter().map(move |&b| (a, b)));
        let joined = pairs().any(|pair| is_one(&pair) && !was_one(&pair));
        let parted = pairs().any(|pair| !is_one(&pair) && was_one(&pair));
        self.watch.merging |= joined;
        if parted {
            self.watch.parted = Some(self.world.now());
        }
        self.watch.sides = sides;
    }

    /// Makes a node slow: each frame takes it so long. It may do nothing in time until [`quicken`](Grove::quicken) is
    /// called, as if it were paused.
    pub fn slow(&mut self, slot: usize, per_frame: Duration) {
        self.note_failure(slot);
        self.world.set_slowness(slot, per_frame);
    }

    /// A slow node is quick again.
    pub fn quicken(&mut self, slot: usize) {
        self.slow(slot, Duration::ZERO);
    }

    /// A node's clock jumps ahead, as if it had slept: what it has asked is over when it wakes.
    pub fn jump_clock(&mut self, slot: usize, by: Duration) {
        self.note_failure(slot);
        self.watch.lookups.open.retain(|_, asked| asked.slot != slot);
        self.world.jump_clock(slot, by);
    }

    fn note_failure(&mut self, slot: usize) {
        self.watch.failures.push((self.world.now(), self.id(slot)));
    }

    fn bury(&mut self, slot: usize) {
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
        self.witness.borrow().payloads
    }

    /// Slots of the nodes on the ring that run.
    pub fn ready(&self) -> Vec<usize> {
        let ready = |(slot, stack): &(usize, &PastryStack)| {
            self.world.is_running(*slot) && stack.ring().standing() == Standing::Ready
        };
        self.stacks().filter(ready).map(|(slot, _)| slot).collect()
    }

    /// Asks for the root of a key.
    pub fn look_up(&mut self, slot: usize, key: Key) {
        let token = self.next_number();
        let asked = Asked { slot, life: self.incarnations[slot], at: self.world.now(), origin_runs: true };
        self.watch.lookups.open.insert(token, asked);
        self.world.command(slot, Command::Lookup { token: Token(token), key, trace: false });
        // It may have answered itself: that is judged before anything else happens.
        if self.unheard.is_ok() {
            self.unheard = self.judge_decisions();
        }
    }

    // Applications.

    /// Subscribes to what comes from now on, with an application that takes all.
    pub fn subscribe(&mut self, slot: usize, topic: &Topic) -> SubscriptionId {
        self.subscribe_with(slot, topic, CREDIT, false)
    }

    /// Subscribes with an application that takes so many items and then stops.
    pub fn subscribe_stalled(&mut self, slot: usize, topic: &Topic, credit: u32) -> SubscriptionId {
        self.subscribe_with(slot, topic, credit, true)
    }

    fn subscribe_with(&mut self, slot: usize, topic: &Topic, credit: u32, stalled: bool) -> SubscriptionId {
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
            was_stalled: stalled,
        };
        self.history.subscriptions.insert(subscription, watched);
        self.world.command(
            slot,
            Command::Subscribe { subscription, topic: topic.clone(), start: Start::Latest, credit },
        );
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
            birth: None,
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
}

/// The limits of a node that was told these figures.
fn limits(ring: &RingConfig, forest: &Config) -> BTreeMap<&'static str, usize> {
    let peer = Peer { id: NodeId(0), incarnation: 1, addr: Addr::Memory(0) };
    let node = Node::new(peer, ring.clone(), [0; 32]).expect("the configuration is sound");
    let stack = PastryStack::new(node, forest.clone(), [0; 32]).expect("the configuration is sound");
    o5::limits(stack.ring(), Some(&stack))
}

//! A cluster: many whole nodes in a [`World`], all that the laboratory does to them, and what it remembers of them. Taps,
//! meters and planted bugs are observers of its world.
//!
//! Under the judges ([`Mode::Judged`]) applications subscribe and publish, and every promise is judged while time passes.
//! Large rings that are measured ([`Mode::Measured`]) have lookups only, whose answers are judged one by one.

mod applications;
pub mod history;
mod judges;
pub mod ledger;
pub mod lookups;
mod notice;
pub mod passages;
pub mod planted;
pub mod roster;
#[cfg(test)]
mod tests;
mod time;
pub mod watch;
pub mod witness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;
use treecast_overlay::config::{Config as RingConfig, Role};
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::{Bootstrap, StartError};
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::NodeState;
use treecast_scribe::event::{Command, TreeStatus};
use treecast_scribe::{Config, Stack, Topic};

use self::history::History;
use self::lookups::Lookups;
use self::passages::Passages;
use self::planted::{Bug, Planted};
use self::roster::Roster;
use self::watch::{REPAIR_LIMIT, Watch};
use self::witness::Witness;
use crate::check::{Verdict, o5};
use crate::node::RingNode;
use crate::world::{self, Case, Crash, Cut, CutId, Shared, World};

/// The purpose of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To be judged: small, with applications; sides are computed from the cuts in force.
    Judged,
    /// To be measured: large; cuts come with the side of each slot.
    Measured,
}

/// A start that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedStart {
    /// Where.
    pub slot: usize,
    /// When.
    pub at: Instant,
    /// Why.
    pub why: StartError,
}

/// Many whole nodes.
pub struct Cluster<N: RingNode = Node> {
    /// The world. Under judges time should pass by [`run`](Cluster::run) only.
    pub world: World<Stack<N>>,
    /// The nodes on the ring, by their own word.
    pub roster: Roster,
    /// All that the applications saw.
    pub history: History,
    /// Failures and sides.
    pub watch: Watch,
    /// Lookups, and what became of them.
    pub lookups: Lookups,
    /// Them frame by frame, once an observer looks.
    pub passages: Shared<Passages>,
    /// All that the tap saw, if there is one.
    pub witness: Shared<Witness>,
    /// How often what happened that seldom does.
    pub events: BTreeMap<&'static str, u64>,
    /// Starts that failed; their nodes are gone.
    pub failed_starts: Vec<FailedStart>,
    /// How often the promises are judged that hold at any instant; and how long applications take to fetch what has come.
    pub slice: Duration,
    /// The overlay's figures.
    pub config: Arc<RingConfig>,
    /// Scribe's.
    scribe: Arc<Config>,
    mode: Mode,
    limits: BTreeMap<&'static str, usize>,
    bugs: BTreeMap<usize, Bug>,
    lives: Vec<u64>,
    numbers: u64,
    dice: Rng,
    /// When each second's, and each round's, judges were asked last.
    inspected: (Instant, Instant),
    /// Since when all is well.
    calm: Option<Instant>,
    known: notice::Known,
    /// A judge's verdict between two steps: told when time passes.
    unheard: Verdict,
}

impl Cluster {
    /// No node yet; the figures that ship.
    pub fn new(case: Case, world: world::Config) -> Cluster {
        Cluster::with(case, world, RingConfig::default(), Config::default())
    }
}

impl<N: RingNode> Cluster<N> {
    /// To be judged; no node yet; all figures as given.
    pub fn with(case: Case, world: world::Config, ring: RingConfig, scribe: Config) -> Cluster<N> {
        let mut cluster = Cluster::empty(case, world, ring, scribe, Mode::Judged);
        cluster.world.attach(Shared::clone(&cluster.witness));
        cluster.watch_lookups();
        cluster
    }

    /// To be measured; no node yet; figures that were checked.
    pub fn measured(case: Case, world: world::Config, ring: RingConfig, scribe: Config) -> Cluster<N> {
        Cluster::empty(case, world, ring, scribe, Mode::Measured)
    }

    fn empty(case: Case, world: world::Config, ring: RingConfig, scribe: Config, mode: Mode) -> Cluster<N> {
        let world = World::new(case, world);
        let label = match mode {
            Mode::Judged => "grove",
            Mode::Measured => "lab/living",
        };
        let (config, scribe) = (Arc::new(ring), Arc::new(scribe));
        let nobody = Peer { id: NodeId(0), incarnation: 1, addr: Addr::Memory(0) };
        Cluster {
            limits: o5::limits(&make::<N>(nobody, &config, &scribe, [0; 32])),
            dice: world.stream(label),
            world,
            roster: Roster::default(),
            history: History::default(),
            watch: Watch::new(config.tables.leaf_set),
            lookups: Lookups::default(),
            passages: Shared::default(),
            witness: Shared::default(),
            events: BTreeMap::new(),
            failed_starts: Vec::new(),
            slice: time::SLICE,
            config,
            scribe,
            mode,
            bugs: BTreeMap::new(),
            lives: Vec::new(),
            numbers: 0,
            inspected: (Instant::ZERO, Instant::ZERO),
            calm: None,
            known: notice::Known::default(),
            unheard: Ok(()),
        }
    }

    /// Lookups are followed frame by frame from now on, and their answers judged.
    pub fn watch_lookups(&mut self) {
        self.world.keep_events();
        self.world.attach(Shared::clone(&self.passages));
    }

    // Lives.

    /// The node that lives, or last lived, in a slot. Ids follow from the world's seed.
    pub fn id(&self, slot: usize) -> NodeId {
        NodeId(self.world.stream(&format!("id/{slot}")).random())
    }

    /// The node that will start in this slot has a bug.
    pub fn plant(&mut self, slot: usize, bug: Bug) {
        self.bugs.insert(slot, bug);
        self.world.attach_first(Planted::new(slot, bug));
    }

    /// Starts a node on the ring through the nodes of certain slots; through none: the first.
    pub fn add(&mut self, through: &[usize]) -> usize {
        self.add_with(Role::Ring, through_slots(through))
    }

    /// Starts an edge node, which nobody can dial.
    pub fn add_edge(&mut self, through: &[usize]) -> usize {
        self.add_with(Role::Edge { promote_after: None }, through_slots(through))
    }

    /// Starts a node in this role.
    pub fn add_with(&mut self, role: Role, bootstrap: Bootstrap) -> usize {
        let slot = self.world.next_slot();
        self.start(slot, role, bootstrap);
        slot
    }

    /// Starts a node again in its slot, as a new incarnation.
    pub fn restart(&mut self, slot: usize, through: &[usize]) {
        self.start(slot, Role::Ring, through_slots(through));
    }

    /// A newcomer starts, through up to three random nodes of the ring.
    pub fn join(&mut self) -> u32 {
        let through = self.lots(3);
        let slot = self.add(&through);
        self.catch_up();
        slot as u32
    }

    /// Starts the nodes again whose start failed, each through up to three random nodes; says how many.
    pub fn retry_starts(&mut self) -> u64 {
        let failed = std::mem::take(&mut self.failed_starts);
        for start in &failed {
            let through = self.lots(3);
            self.restart(start.slot, &through);
            self.catch_up();
        }
        failed.len() as u64
    }

    fn lots(&mut self, count: usize) -> Vec<usize> {
        (0..count).filter_map(|_| self.roster.any(&mut self.dice)).map(|slot| slot as usize).collect()
    }

    fn start(&mut self, slot: usize, role: Role, bootstrap: Bootstrap) {
        self.lives.resize(self.lives.len().max(slot + 1), 0);
        self.lives[slot] += 1;
        // Small, because nodes add the milliseconds of virtual time to it for a wall clock: all have the same one.
        let incarnation = self.lives[slot];
        let addr = match role {
            // A promoted edge must be dialled.
            Role::Ring | Role::Edge { promote_after: Some(_) } => Addr::Memory(slot as u32),
            Role::Edge { promote_after: None } => Addr::Unreachable,
        };
        let peer = Peer { id: self.id(slot), incarnation, addr };
        let seed = self.world.node_seed(slot);
        let (mut ring, mut scribe) = (Arc::clone(&self.config), Arc::clone(&self.scribe));
        if role != Role::Ring {
            Arc::make_mut(&mut ring).role = role;
        }
        if let Some(bug) = self.bugs.get(&slot) {
            bug.spoil(Arc::make_mut(&mut ring), Arc::make_mut(&mut scribe));
        }
        let stack = make(peer, &ring, &scribe, seed);
        if slot == self.world.slots() {
            self.world.add(stack);
        } else {
            self.world.restart(slot, stack);
        }
        self.find_sides();
        self.world.command(slot, Command::Start(bootstrap));
    }

    /// Crashes a node.
    pub fn crash(&mut self, slot: usize, how: Crash) {
        self.note_failure(slot);
        self.end_life(slot);
        self.world.crash(slot, how);
        self.find_sides();
    }

    /// Tells a node to leave; it ends when it has.
    pub fn leave(&mut self, slot: usize) {
        self.world.command(slot, Command::Leave);
    }

    /// Ends a node that has left, or is of no use.
    fn stop(&mut self, slot: usize) {
        self.end_life(slot);
        self.world.stop(slot);
        self.find_sides();
    }

    /// Its applications end with it, and what it has asked.
    fn end_life(&mut self, slot: usize) {
        if let (Mode::Judged, Some(stack)) = (self.mode, self.world.machine(slot)) {
            let peer = stack.peer();
            self.watch.ended.insert((peer.id, peer.incarnation));
        }
        self.roster.remove(slot as u32);
        self.history.end(slot, self.now());
        self.abandon_lookups(slot);
    }

    /// Pauses a node.
    pub fn pause(&mut self, slot: usize) {
        self.note_failure(slot);
        self.lookups.rest(slot);
        self.world.pause(slot);
    }

    /// Lets a paused node go on.
    pub fn resume(&mut self, slot: usize) {
        self.note_failure(slot);
        self.world.resume(slot);
        if self.mode == Mode::Measured {
            self.catch_up();
        }
    }

    // Networks and hosts.

    /// Cuts some nodes off from all others, not from each other: they stand on a side of their own.
    pub fn isolate(&mut self, slots: &[usize]) -> CutId {
        slots.iter().for_each(|&slot| self.note_failure(slot));
        self.cut(Cut::island(slots))
    }

    /// Takes the cut of [`isolate`](Cluster::isolate) back. Until the ring is whole again, promise O1 rests.
    pub fn rejoin(&mut self, slots: &[usize], cut: CutId) {
        slots.iter().for_each(|&slot| self.note_failure(slot));
        self.world.heal(cut);
        match self.mode {
            Mode::Judged => self.find_sides(),
            Mode::Measured => {
                self.stand_on(slots, 0);
                self.watch.merging = true;
            }
        }
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
        match self.mode {
            Mode::Judged => self.find_sides(),
            Mode::Measured => self.watch.merging = !std::mem::take(&mut self.watch.sides).is_empty(),
        }
    }

    /// These slots stand on a side of their own from now on, or on the main one again. (Of a cluster that is measured:
    /// sides are told, because to compute them takes too long in a large ring.)
    pub fn stand_on(&mut self, slots: &[usize], side: u8) {
        if self.mode == Mode::Measured {
            let sides = &mut self.watch.sides;
            let most = slots.iter().max().map_or(0, |slot| slot + 1);
            sides.resize(sides.len().max(most), 0);
            slots.iter().for_each(|&slot| sides[slot] = side);
        }
    }

    /// Edge nodes pass nothing on between ring nodes, and neither do the dead.
    fn find_sides(&mut self) {
        if self.mode == Mode::Measured {
            return;
        }
        let on_ring = |(_, stack): &(usize, &Stack<N>)| stack.ring().role() == Role::Ring;
        let nodes: Vec<usize> = self.stacks().filter(on_ring).map(|(slot, _)| slot).collect();
        let (sides, before) = (self.world.sides(&nodes), &self.watch);
        let is_one = |&(a, b): &(usize, usize)| sides[a] == sides[b];
        let was_one = |&(a, b): &(usize, usize)| before.side(a) == before.side(b);
        let pairs = || nodes.iter().flat_map(|&a| nodes.iter().map(move |&b| (a, b)));
        let joined = pairs().any(|pair| is_one(&pair) && !was_one(&pair));
        let parted = pairs().any(|pair| !is_one(&pair) && was_one(&pair));
        self.watch.merging |= joined;
        if parted {
            self.watch.parted = Some(self.now());
        }
        if sides != self.watch.sides {
            let past = std::mem::replace(&mut self.watch.sides, sides);
            let now = self.now();
            self.watch.past_sides.push((now, past));
        }
    }

    /// Makes a node slow: each frame takes it so long; zero: it is quick again. It may do nothing in time meanwhile, as
    /// if it were paused.
    pub fn slow(&mut self, slot: usize, per_frame: Duration) {
        self.note_failure(slot);
        self.world.set_slowness(slot, per_frame);
    }

    /// A node's clock jumps ahead, as if it had slept: what it has asked is over when it wakes.
    pub fn jump_clock(&mut self, slot: usize, by: Duration) {
        self.note_failure(slot);
        match self.mode {
            Mode::Judged => self.lookups.open.retain(|_, asked| asked.slot != slot),
            Mode::Measured => self.lookups.rest(slot),
        }
        self.world.jump_clock(slot, by);
    }

    /// For promise O1's excuse: which node failed when, or was cut off.
    pub fn note_failure(&mut self, slot: usize) {
        let now = self.now();
        match self.mode {
            Mode::Judged => self.watch.failures.push((now, self.id(slot))),
            Mode::Measured => {
                self.watch.failures.retain(|&(at, _)| now - at < REPAIR_LIMIT);
                self.watch.failures.extend(self.roster.id(slot as u32).map(|id| (now, id)));
            }
        }
    }

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    // Looking at it.

    /// Copies of a log that there are to be.
    pub fn copies(&self) -> u32 {
        self.scribe.replication.copies as u32
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.world.now()
    }

    /// All nodes that live.
    pub fn stacks(&self) -> impl Iterator<Item = (usize, &Stack<N>)> {
        self.world.machines()
    }

    /// The node in a slot.
    pub fn stack(&self, slot: usize) -> &Stack<N> {
        self.world.machine(slot).unwrap_or_else(|| panic!("nobody lives in slot {slot}"))
    }

    /// The overlay's node in a slot, if one lives there.
    pub fn node(&self, slot: usize) -> Option<&N> {
        self.world.machine(slot).map(Stack::ring)
    }

    /// How the nodes stand in a topic's tree, by slot.
    pub fn tree(&self, topic: &Topic) -> Vec<(usize, TreeStatus)> {
        let find =
            |stack: &Stack<N>| stack.forest().trees().into_iter().find(|tree| tree.topic == topic.id());
        self.stacks().filter_map(|(slot, stack)| Some((slot, find(stack)?))).collect()
    }

    /// The slot of a topic's root: of the ready node that is closest to its key.
    pub fn root(&self, topic: &Topic) -> usize {
        let ready = self.stacks().filter(|(_, stack)| stack.ring().node_state() == NodeState::Ready);
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

    /// Slots of the nodes on the ring that run.
    pub fn ready(&self) -> Vec<usize> {
        let ready = |(slot, stack): &(usize, &Stack<N>)| {
            self.world.is_running(*slot) && stack.ring().node_state() == NodeState::Ready
        };
        self.stacks().filter(ready).map(|(slot, _)| slot).collect()
    }

    /// `count` random ones of them.
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

    /// Whether two nodes hang on one router: such pairs say nothing of stretch.
    pub fn is_one_router(&self, a: usize, b: usize) -> bool {
        self.world.router(a).is_some_and(|router| self.world.router(b) == Some(router))
    }

    /// A node's own count of its memory, as a mean in bytes.
    pub fn own_bytes_per_node(&self) -> Option<f64> {
        let bytes: usize = self.stacks().map(|(_, stack)| N::memory(stack).total()).sum();
        (!self.roster.is_empty()).then(|| bytes as f64 / self.roster.len() as f64)
    }
}

/// Where to look for a ring: at the nodes of these slots; none: nowhere, to be the first.
pub fn through_slots(slots: &[usize]) -> Bootstrap {
    let join = slots.iter().map(|&slot| Seed::from(Addr::Memory(slot as u32))).collect();
    Bootstrap { join, ..Bootstrap::default() }
}

/// A whole node that was not started yet; its figures are sound.
pub fn make<N: RingNode>(
    peer: Peer,
    ring: &Arc<RingConfig>,
    scribe: &Arc<Config>,
    seed: [u8; 32],
) -> Stack<N> {
    let node = N::create(peer, Arc::clone(ring), seed).expect("the configuration is sound");
    Stack::new(node, Arc::clone(scribe), seed).expect("the configuration is sound")
}

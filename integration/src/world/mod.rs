//! The world: many [`Machine`]s in one process and in virtual time, with a network between them that does what it is
//! told. It is generic over [`Machine`] and over nothing else, so it runs the very code that ships.
//!
//! Everything random follows from one seed, and everything happens in the order of (time, sequence): the same seed
//! gives the same [`World::trace_hash`]. A failing test prints the last steps and the command that runs it again.
//! `docs/simulation.md` says what is modelled and what is not.

mod config;
mod counters;
mod deliver;
mod faults;
mod links;
mod network;
mod observer;
mod queue;
mod host;
mod report;
mod trace;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::id::NodeId;
use treecast_overlay::machine::Machine;
use treecast_overlay::peer::Addr;
use treecast_overlay::random::{self, Rng};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Frame;

pub use config::{Config, Connections, Fidelity};
pub use counters::{Counters, Tally};
pub use faults::{Cut, CutId, Faults};
pub use host::{MAX_DRIFT_PPM, Uplink};
pub use network::{LinkLoads, Map, Matrix, ParseTopologyError, Topology, TransitStub};
pub use observer::{At, Inward, Observer, Outward, Shared};
pub use report::{Case, SEED_VARIABLE, TimedOut};
pub use trace::KEPT_STEPS;

use faults::Cuts;
use host::Host;
use links::Links;
use network::Network;
use observer::Observers;
use queue::{Arrival, Happening, Notice, Queue};
use trace::{Trace, What};

/// How a node ends against its will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process dies, its host lives on: connected peers get `Down`, and a dial is refused.
    Process,
    /// The power fails: no word of it to anybody, until the slot starts again and knows of no connection.
    Power,
}

/// Most timeouts of one node at one instant: a machine that asks for more asks for ever.
const MAX_TIMEOUTS_AT_ONCE: u32 = 10_000;

struct Slot<M: Machine> {
    /// Taken out while it handles something. Boxed: slots move when the world grows.
    machine: Option<Box<M>>,
    state: SlotState,
    /// Counts the starts in this slot; what was meant for an earlier life is dropped.
    life: u32,
    /// The deadline that the machine asked for last.
    deadline: Option<Instant>,
    /// The one wake in the queue that counts, and its ticket. It may be earlier than the deadline, never later.
    wake: Option<(Instant, u32)>,
    tickets: u32,
    /// When the last timeout was handled, and how many there were at that instant.
    timeouts: (Instant, u32),
    /// A turn goes on: its end is queued.
    in_turn: bool,
    /// Peculiarities of the host.
    host: Option<Box<Host>>,
    /// Things that wait until a paused node resumes, or a slow one is free.
    backlog: VecDeque<Waiting<M>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    Running,
    Paused,
    /// Nobody there, and the host says so.
    Vacant,
    /// Nobody there, and no host either.
    Dark,
}

enum Waiting<M: Machine> {
    Arrival(Box<Arrival>),
    Notice(Box<Notice>),
    Command(M::Command),
}

/// Which frames are counted on physical links, and what the count is.
type LinkWatch = (fn(&Frame) -> bool, LinkLoads);

type Sink<E> = Box<dyn FnMut(Instant, usize, E)>;

/// Many machines in virtual time. See the [module](self).
pub struct World<M: Machine> {
    config: Config,
    case: Case,
    seed: [u8; 32],
    now: Instant,
    queue: Queue,
    slots: Vec<Slot<M>>,
    network: Network,
    links: Links,
    /// With [`Connections::None`]: where the nodes are that say no address.
    undialled: BTreeMap<NodeId, u32>,
    watch: Option<LinkWatch>,
    cuts: Cuts,
    /// Throws for frames' verdicts.
    verdicts: Rng,
    /// Throws for spurious timeouts.
    mischief: Rng,
    /// Throws for turns that end late.
    turns: Rng,
    trace: Trace,
    wakes: u64,
    /// For a header's bytes.
    scratch: Vec<u8>,
    counters: Counters,
    events: Vec<(Instant, usize, M::Event)>,
    sink: Option<Sink<M::Event>>,
    observers: Observers<M>,
}

impl<M: Machine> World<M> {
    /// An empty world. Its seed is the case's.
    pub fn new(case: Case, config: Config) -> World<M> {
        let seed = *blake3::hash(&case.seed.to_le_bytes()).as_bytes();
        let network = Network::new(&config.topology, config.jitter, &seed);
        World {
            config,
            seed,
            now: Instant::ZERO,
            queue: Queue::default(),
            slots: Vec::new(),
            network,
            links: Links::default(),
            undialled: BTreeMap::new(),
            watch: None,
            cuts: Cuts::default(),
            verdicts: random::stream(&seed, "world/verdicts"),
            mischief: random::stream(&seed, "world/mischief"),
            turns: random::stream(&seed, "world/turns"),
            trace: Trace::new(case.seed),
            wakes: 0,
            scratch: Vec::new(),
            counters: Counters::default(),
            events: Vec::new(),
            sink: None,
            observers: Observers::default(),
            case,
        }
    }

    // Looking at it.

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How many slots there are, whoever lives in them.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// The node in a slot, running or paused; `None` if its life ended.
    pub fn machine(&self, slot: usize) -> Option<&M> {
        self.slots.get(slot).and_then(|slot| slot.machine.as_deref())
    }

    /// All nodes that live, by slot.
    pub fn machines(&self) -> impl Iterator<Item = (usize, &M)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| Some((i, slot.machine.as_deref()?)))
    }

    /// Whether a node lives in this slot and is not paused.
    pub fn is_running(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|slot| slot.state == SlotState::Running)
    }

    /// How long a frame takes between two slots without jitter: what stretch is measured against.
    pub fn latency(&self, a: usize, b: usize) -> Duration {
        self.network.map.latency(a, b)
    }

    /// The thing that a slot is attached to: a router, or a point of a matrix. `None` where there is no such thing. Stretch
    /// leaves out pairs that share one.
    pub fn router(&self, slot: usize) -> Option<u32> {
        self.network.map.router(slot)
    }

    /// Where every slot stands.
    pub fn map(&self) -> &Map {
        &self.network.map
    }

    /// Counts, from now on and from zero, how often the frames that satisfy the filter cross each physical link. A
    /// frame that is lost by the dice counts, too; one that a cut or a full queue keeps from being sent does not.
    pub fn watch_links(&mut self, filter: fn(&Frame) -> bool) {
        self.watch = self.network.map.has_links().then(|| (filter, LinkLoads::default()));
    }

    /// The counts of [`watch_links`](World::watch_links); `None` if nothing is counted, or if the topology has no
    /// physical links.
    pub fn link_loads(&self) -> Option<&LinkLoads> {
        self.watch.as_ref().map(|(_, loads)| loads)
    }

    /// The physical links of the IP multicast tree from a source to members, each once: to be
    /// [added up](LinkLoads::add). `None` if the topology has no physical links.
    pub fn multicast_links(&self, source: usize, members: &[usize]) -> Option<Vec<u32>> {
        self.network.map.multicast_links(source, members)
    }

    /// Tallies of frames so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Steps so far, each of them in the trace.
    pub fn steps(&self) -> u64 {
        self.trace.steps()
    }

    /// Timeouts that machines were given so far.
    pub fn wakes(&self) -> u64 {
        self.wakes
    }

    /// Things still to come.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of memory that the world itself takes: slots, queue and what flies, connections, map, trace. Machines,
    /// payloads and events that nobody has taken are not in it.
    pub fn bytes(&self) -> usize {
        let waiting: usize = self.slots.iter().map(|slot| slot.backlog.capacity()).sum();
        self.slots.capacity() * size_of::<Slot<M>>()
            + waiting * size_of::<Waiting<M>>()
            + self.queue.bytes()
            + self.links.bytes()
            + self.network.map.bytes()
            + self.trace.bytes()
    }

    /// The hash of all that happened so far: the same for the same seed, in any process.
    pub fn trace_hash(&self) -> String {
        self.trace.hash_so_far()
    }

    /// The last [`KEPT_STEPS`] steps, a line each.
    pub fn last_steps(&self) -> String {
        self.trace.to_string()
    }

    /// The test case that runs here, and its seed.
    pub fn case(&self) -> &Case {
        &self.case
    }

    /// A stream of random numbers that follows from the world's seed and the label: for workloads.
    pub fn stream(&self, label: &str) -> Rng {
        random::stream(&self.seed, label)
    }

    /// A seed for the next machine that starts in this slot: another one for each life.
    pub fn node_seed(&self, slot: usize) -> [u8; 32] {
        let life = self.slots.get(slot).map_or(0, |slot| slot.life) + 1;
        self.stream(&format!("node/{slot}/{life}")).random()
    }

    // Nodes.

    /// The slot that the next [`add`](World::add) will fill.
    pub fn next_slot(&self) -> usize {
        self.slots.len()
    }

    /// Starts a node in a new slot. Its address must be `Addr::Memory` of that slot, or `Unreachable`.
    pub fn add(&mut self, machine: M) -> usize {
        let slot = self.slots.len();
        self.network.map.add();
        self.slots.push(Slot {
            machine: None,
            state: SlotState::Vacant,
            life: 0,
            deadline: None,
            wake: None,
            tickets: 0,
            timeouts: (Instant::ZERO, 0),
            in_turn: false,
            host: None,
            backlog: VecDeque::new(),
        });
        self.begin(slot, machine);
        slot
    }

    /// Starts a node again in its slot: same identity, new incarnation.
    pub fn restart(&mut self, slot: usize, machine: M) {
        let vacant = matches!(self.slots[slot].state, SlotState::Vacant | SlotState::Dark);
        assert!(vacant, "slot {slot} is taken: stop or crash its node first");
        self.begin(slot, machine);
    }

    fn begin(&mut self, slot: usize, machine: M) {
        let peer = machine.peer();
        assert!(
            peer.addr == Addr::Memory(slot as u32) || peer.addr == Addr::Unreachable,
            "the node of slot {slot} says that it lives at {}",
            peer.addr
        );
        self.links.begin(slot, peer.id);
        if peer.addr == Addr::Unreachable && self.config.connections == Connections::None {
            self.undialled.insert(peer.id, slot as u32);
        }
        self.trace.record(self.now, slot, What::Start { id: peer.id });
        let room = &mut self.slots[slot];
        room.life += 1;
        room.state = SlotState::Running;
        room.machine = Some(Box::new(machine));
        self.observers.started(slot);
        self.call(slot, |_, _| ());
    }

    /// Ends a node's life in order, as a process that has said its farewells exits, and hands out what is left.
    pub fn stop(&mut self, slot: usize) -> M {
        self.trace.record(self.now, slot, What::Stop);
        self.end(slot, SlotState::Vacant)
    }

    /// Ends a node's life.
    pub fn crash(&mut self, slot: usize, how: Crash) {
        let (silent, state) = match how {
            Crash::Process => (false, SlotState::Vacant),
            Crash::Power => (true, SlotState::Dark),
        };
        self.trace.record(self.now, slot, What::Crash { silent });
        self.end(slot, state);
    }

    fn end(&mut self, slot: usize, state: SlotState) -> M {
        let connections = self.links.end(slot);
        let room = &mut self.slots[slot];
        let machine = room.machine.take().unwrap_or_else(|| panic!("nobody lives in slot {slot}"));
        room.state = state;
        room.deadline = None;
        room.wake = None;
        room.in_turn = false;
        for waiting in std::mem::take(&mut room.backlog) {
            if let Waiting::Arrival(arrival) = waiting {
                self.counters.on(&arrival.frame.header).lost += 1;
            }
        }
        self.drop_uplink(slot);
        if state == SlotState::Vacant {
            for connection in connections {
                self.close(slot, connection);
            }
        }
        *machine
    }

    /// Stops a node in its tracks. Anything that reaches it waits; its timeout will fire late.
    pub fn pause(&mut self, slot: usize) {
        assert!(self.is_running(slot), "slot {slot} does not run: it cannot be paused");
        self.trace.record(self.now, slot, What::Pause);
        self.slots[slot].state = SlotState::Paused;
    }

    /// Lets a paused node go on: its timeout first, if it has passed, then all that has waited (the driver's order:
    /// expiry is checked before any frame of a batch is handled).
    pub fn resume(&mut self, slot: usize) {
        assert!(self.slots[slot].state == SlotState::Paused, "slot {slot} is not paused");
        self.trace.record(self.now, slot, What::Resume);
        self.slots[slot].state = SlotState::Running;
        self.end_turn(slot);
        if self.slots[slot].deadline.is_some_and(|at| at <= self.now) {
            self.time_out(slot, false);
        }
        for waiting in std::mem::take(&mut self.slots[slot].backlog) {
            self.take_up(slot, waiting);
        }
        self.arm(slot);
    }

    /// Something that has waited comes at last. A slow node that has its hands full again lets it wait on.
    fn take_up(&mut self, slot: usize, waiting: Waiting<M>) {
        match waiting {
            Waiting::Arrival(arrival) => self.on_arrival(arrival),
            Waiting::Notice(notice) => self.on_notice(notice),
            Waiting::Command(command) => self.command(slot, command),
        }
    }

    /// Gives a node a command, now; a paused one gets it when it resumes.
    pub fn command(&mut self, slot: usize, command: M::Command) {
        match self.slots[slot].state {
            SlotState::Running => {
                self.trace.record(self.now, slot, What::Command);
                self.call_observed(slot, |at, observers| observers.command(at, &command));
                self.call(slot, |machine, now| machine.handle_command(now, command));
            }
            SlotState::Paused => self.slots[slot].backlog.push_back(Waiting::Command(command)),
            SlotState::Vacant | SlotState::Dark => panic!("nobody lives in slot {slot}: it takes no command"),
        }
    }

    // Faults.

    /// Changes what happens to frames from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.config.faults = faults;
    }

    /// Severs pairs, from now on: frames in flight still arrive.
    pub fn cut(&mut self, cut: Cut) -> CutId {
        self.cuts.add(cut)
    }

    /// Takes a cut back.
    pub fn heal(&mut self, cut: CutId) {
        self.cuts.heal(cut);
    }

    /// On which side each slot stands: those of `nodes` that reach each other, be it through others of them, are one
    /// side, and the largest is 0, where all other slots stand.
    pub fn sides(&self, nodes: &[usize]) -> Vec<u8> {
        self.cuts.sides(self.slots.len(), nodes)
    }

    /// Takes all cuts back.
    pub fn heal_all(&mut self) {
        self.cuts.heal_all();
    }

    /// Tells each step of the trace from now on, before it is carried out: its number, and what happens, in words.
    pub fn listen(&mut self, listener: impl FnMut(u64, &dyn std::fmt::Display) + 'static) {
        self.trace.listener = Some(Box::new(listener));
    }

    // Time.

    /// Lets the next thing happen; false if nothing will ever happen again.
    pub fn step(&mut self) -> bool {
        self.step_until(Instant::from_nanos(u64::MAX))
    }

    /// Lets virtual time pass.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step_until(end) {}
        self.now = end;
    }

    /// Runs until `done`, which is asked after every step, and says how long that took.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&World<M>) -> bool,
    ) -> Result<Duration, TimedOut> {
        let begin = self.now;
        while !done(self) {
            if !self.step_until(begin + limit) {
                self.now = begin + limit;
                return Err(self.timed_out(limit));
            }
        }
        Ok(self.now.since(begin))
    }

    /// Runs until `done`, which is asked every `period`: for questions that look at every node.
    pub fn run_until_every(
        &mut self,
        period: Duration,
        limit: Duration,
        mut done: impl FnMut(&World<M>) -> bool,
    ) -> Result<Duration, TimedOut> {
        let begin = self.now;
        while !done(self) {
            if self.now.since(begin) >= limit {
                return Err(self.timed_out(limit));
            }
            self.run_for(period);
        }
        Ok(self.now.since(begin))
    }

    fn timed_out(&self, limit: Duration) -> TimedOut {
        TimedOut { limit, at: self.now, case: self.case.clone() }
    }

    /// The next step that is due by `end`. Stale wakes are passed over.
    fn step_until(&mut self, end: Instant) -> bool {
        while self.next_at().is_some_and(|at| at <= end) {
            let Some((at, happening)) = self.queue.pop() else { return false };
            assert!(at >= self.now, "time runs backwards: from {} to {at}", self.now);
            self.now = at;
            match happening {
                Happening::Wake { slot, ticket } if !self.on_wake(slot as usize, ticket) => continue,
                Happening::Wake { .. } => {}
                Happening::TurnEnd { slot, life } => self.on_turn_end(slot as usize, life),
                Happening::Free { slot } => self.on_free(slot as usize),
                Happening::Sent { slot, departure } => self.on_sent(slot as usize, departure),
                Happening::Arrival(arrival) => self.on_arrival(arrival),
                Happening::Notice(notice) => self.on_notice(notice),
            }
            return true;
        }
        false
    }

    fn next_at(&mut self) -> Option<Instant> {
        if self.queue.turn() {
            self.warm_up();
        }
        self.queue.next_at()
    }

    /// Touches what the next millisecond's events will need, all at once: among 100,000 nodes each of these is far from
    /// the caches, and the processor fetches many of them together but, later, one after the other.
    fn warm_up(&self) {
        let slots = self.queue.concerned().filter_map(|slot| self.slots.get(slot));
        let machines = slots.filter_map(|slot| slot.machine.as_deref());
        std::hint::black_box(machines.fold(0, |sum: u64, machine| sum ^ machine.peer().incarnation));
    }

    /// Whether the wake was due; a stale one does nothing, an early one is put off.
    fn on_wake(&mut self, slot: usize, ticket: u32) -> bool {
        let room = &mut self.slots[slot];
        if room.wake.is_none_or(|(_, live)| live != ticket) {
            return false;
        }
        room.wake = None;
        if room.state != SlotState::Running {
            return false;
        }
        let due = room.deadline.is_some_and(|at| at <= self.now) && self.busy_until(slot).is_none();
        if due {
            self.time_out(slot, false)
        } else {
            self.arm(slot)
        }
        due
    }

    fn time_out(&mut self, slot: usize, spurious: bool) {
        self.wakes += 1;
        self.trace.record(self.now, slot, What::Timeout { spurious });
        if !spurious {
            let (at, times) = self.slots[slot].timeouts;
            let times = if at == self.now { times + 1 } else { 1 };
            assert!(
                times <= MAX_TIMEOUTS_AT_ONCE,
                "the node in slot {slot} asks for a timeout at {} again and again",
                self.now
            );
            self.slots[slot].timeouts = (self.now, times);
        }
        self.call(slot, |machine, now| machine.handle_timeout(now));
    }

    /// Sees to it that a wake is queued no later than the deadline. A later one stays where it is and is put off
    /// when it comes: a deadline that moves with every frame would otherwise fill the heap.
    fn arm(&mut self, slot: usize) {
        let free = self.busy_until(slot).unwrap_or(self.now);
        let room = &mut self.slots[slot];
        let Some(at) = room.deadline.map(|at| at.max(free)) else { return };
        if room.wake.is_none_or(|(queued, _)| at < queued) {
            room.tickets = room.tickets.wrapping_add(1);
            room.wake = Some((at, room.tickets));
            self.queue.push(at, Happening::Wake { slot: slot as u32, ticket: room.tickets });
        }
    }
}

/// A test that fails drops its world while it panics: this tells how to see it again.
impl<M: Machine> Drop for World<M> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last steps of the world:\n{}", self.trace);
            eprintln!("at {} with seed {}; reproduce with:\n  {}", self.now, self.case.seed, self.case);
        }
    }
}

//! How fast the world is, and where its time goes: whole nodes join by the real protocol and then idle.
//!
//! `cargo run --release -p treecast-integration --example world_speed -- NODES SECONDS [TOPOLOGY] [plain]`
//!
//! Each call of a machine is timed, which itself costs some 50 ns; what is left is the world's. `plain` leaves that
//! out, for the truth about the whole.

use std::cell::Cell;
use std::time::{Duration, Instant as Clock};

use rand::RngExt;
use treecast_integration::world::{Case, Config, Connections, Fidelity, Topology, World};
use treecast_overlay::config::Config as RingConfig;
use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::{Bootstrap, KeyBasedRouting};
use treecast_overlay::machine::{Link, Machine, Store, StoreToken, Transmit};
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Frame, Standing};
use treecast_scribe::event::{Command, Event};
use treecast_scribe::{Config as ForestConfig, PastryStack};

thread_local! {
    static INSIDE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static TIMED: Cell<bool> = const { Cell::new(true) };
}

/// A stack whose calls are timed.
struct Timed(PastryStack);

fn timed<T>(act: impl FnOnce() -> T) -> T {
    if !TIMED.get() {
        return act();
    }
    let begin = Clock::now();
    let result = act();
    let (calls, nanos) = INSIDE.get();
    INSIDE.set((calls + 1, nanos + begin.elapsed().as_nanos() as u64));
    result
}

impl Machine for Timed {
    type Command = Command;
    type Event = Event;

    fn peer(&self) -> Peer {
        self.0.peer()
    }
    fn handle_command(&mut self, now: Instant, command: Command) {
        timed(|| self.0.handle_command(now, command))
    }
    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame) {
        timed(|| self.0.handle_frame(now, from, frame))
    }
    fn handle_link(&mut self, now: Instant, link: Link) {
        timed(|| self.0.handle_link(now, link))
    }
    fn handle_queued(&mut self, now: Instant, peer: NodeId, bytes: usize) {
        timed(|| self.0.handle_queued(now, peer, bytes))
    }
    fn handle_stored(&mut self, now: Instant, token: StoreToken) {
        timed(|| self.0.handle_stored(now, token))
    }
    fn handle_timeout(&mut self, now: Instant) {
        timed(|| self.0.handle_timeout(now))
    }
    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.0.poll_transmit()
    }
    fn poll_event(&mut self) -> Option<Event> {
        self.0.poll_event()
    }
    fn poll_store(&mut self) -> Option<Store> {
        self.0.poll_store()
    }
    fn poll_timeout(&self) -> Option<Instant> {
        timed(|| self.0.poll_timeout())
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |place: usize, default: u64| words.get(place).map_or(default, |word| word.parse().expect("a number"));
    let (nodes, seconds) = (number(0, 2000) as usize, number(1, 60));
    let topology = words.get(2).map_or("transit-stub", String::as_str);
    let topology: Topology = topology.parse().unwrap_or_else(|error| panic!("{error}"));
    TIMED.set(!words.iter().any(|word| word == "plain"));
    let config = Config {
        topology,
        jitter: 0.0,
        fidelity: Fidelity::Values,
        connections: Connections::None,
        spurious_timeouts: 0.0,
        ..Config::default()
    };
    let mut world = World::new(Case::of_command(&words.join(" "), 1), config);
    let mut watch = Watch::start(&world);
    grow(&mut world, nodes);
    watch.lap("grow", &world);
    world.run_for(Duration::from_secs(seconds));
    watch.lap("rest", &world);
    let ready = world.machines().filter(|(_, node)| node.0.ring().standing() == Standing::Ready).count();
    println!("the world takes {} bytes a node, {} in all", world.bytes() / nodes, world.bytes());
    println!("{ready} of {nodes} are ready; trace hash {}", world.trace_hash());
    println!("{}", world.counters());
}

/// One node after another, a tenth of the ring each second and ten at least, each through a random one.
fn grow(world: &mut World<Timed>, nodes: usize) {
    let mut dice = world.stream("join");
    world.observe(|_, _, event| drop(event));
    for slot in 0..nodes {
        let seed = world.node_seed(slot);
        let peer = Peer { id: NodeId(dice.random()), incarnation: 1, addr: Addr::Memory(slot as u32) };
        let node = Node::new(peer, RingConfig::default(), seed).expect("the configuration is sound");
        let stack =
            PastryStack::new(node, ForestConfig::default(), seed).expect("the configuration is sound");
        world.add(Timed(stack));
        let through = (slot > 0).then(|| Seed::from(Addr::Memory(dice.random_range(0..slot) as u32)));
        let bootstrap = Bootstrap { join: through.into_iter().collect(), ..Bootstrap::default() };
        world.command(slot, Command::Start(bootstrap));
        world.run_for(Duration::from_secs(1) / (slot as u32 / 10).max(10));
    }
}

struct Watch {
    begin: Clock,
    steps: u64,
    inside: (u64, u64),
}

impl Watch {
    fn start(world: &World<Timed>) -> Watch {
        Watch { begin: Clock::now(), steps: world.steps(), inside: INSIDE.get() }
    }

    fn lap(&mut self, name: &str, world: &World<Timed>) {
        let (wall, steps) = (self.begin.elapsed(), world.steps() - self.steps);
        let (calls, nanos) = INSIDE.get();
        let (calls, nanos) = (calls - self.inside.0, nanos - self.inside.1);
        let inside = Duration::from_nanos(nanos);
        println!(
            "{name}: until {}, {steps} steps in {wall:.2?}, {:.0} steps/s; {calls} calls, inside machines {inside:.2?}, \
             in the world {:.2?} = {:.0} ns a step; {} pending",
            world.now(),
            steps as f64 / wall.as_secs_f64(),
            wall.saturating_sub(inside),
            wall.saturating_sub(inside).as_nanos() as f64 / steps as f64,
            world.pending()
        );
        *self = Watch::start(world);
    }
}

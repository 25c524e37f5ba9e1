//! What a node costs at rest: bytes by the allocator's count and by the node's own, frames, bytes and wakes per second,
//! and what a join sends. Real stacks, grown by the join protocol.
//!
//! ```text
//! cargo run --release -p treecast-integration --example node_size -- [NODES] [default|mspastry] [GROWTH PER CENT/S] [SEED]
//! ```

use std::alloc::System;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use treecast_integration::case;
use treecast_integration::world::{self, Counters, Fidelity, World};
use treecast_overlay::config::Config;
use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::{Bootstrap, KeyBasedRouting};
use treecast_overlay::machine::{Link, Machine, Store, StoreToken, Transmit};
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Frame, Standing};
use treecast_scribe::PastryStack;
use treecast_scribe::event::{Command, Event};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SECOND: Duration = Duration::from_secs(1);
/// How long a ring is watched at rest.
const WATCHED: Duration = Duration::from_secs(120);
/// How long joins are watched.
const BURST: Duration = Duration::from_secs(10);
/// Nodes that are taken apart.
const WEIGHED: usize = 200;

fn main() {
    let mut args = std::env::args().skip(1);
    let nodes: usize = args.next().map_or(1000, |text| text.parse().expect("NODES is a number"));
    let profile = args.next().unwrap_or_else(|| "default".into());
    let growth: f64 = args.next().map_or(20.0, |text| text.parse().expect("GROWTH is a number of per cent"));
    let seed: u64 = args.next().map_or(1, |text| text.parse().expect("SEED is a number"));
    let config = match profile.as_str() {
        "default" => Config::default(),
        "mspastry" => Config::mspastry(),
        other => panic!("`{other}` is no profile: default or mspastry"),
    };
    let mut ring = Ring::new(seed, config);
    let wall = std::time::Instant::now();
    ring.grow(nodes, growth / 100.0);
    println!(
        "{profile}: {} of {nodes} ready at {}, {:?} of wall time",
        ring.ready().len(),
        ring.world.now(),
        wall.elapsed()
    );
    println!(
        "starts that failed: {}; growing: {:.0} frames a join, upkeep included",
        ring.failed,
        ring.world.counters().total().sent as f64 / nodes as f64
    );
    ring.run(WATCHED);
    let rest = ring.watch();
    ring.joins(nodes / 5, &rest);
    ring.run(SECOND * 60);
    ring.weigh();
}

/// A stack that counts how often it is woken.
struct Woken {
    stack: PastryStack,
    wakes: u64,
}

/// A ring at rest for [`WATCHED`].
struct Rest {
    before: Counters,
    after: Counters,
    node_seconds: f64,
}

struct Ring {
    world: World<Woken>,
    config: Arc<Config>,
    forest: Arc<treecast_scribe::Config>,
    dice: Rng,
    failed: usize,
}

impl Ring {
    fn new(seed: u64, config: Config) -> Ring {
        let figures =
            world::Config { fidelity: Fidelity::Values, spurious_timeouts: 0.0, ..Default::default() };
        let world = World::new(case!("node_size", seed), figures);
        Ring {
            dice: world.stream("dice"),
            world,
            config: Arc::new(config),
            forest: Arc::default(),
            failed: 0,
        }
    }

    fn ready(&self) -> Vec<usize> {
        let ready = |(_, woken): &(usize, &Woken)| woken.stack.ring().standing() == Standing::Ready;
        self.world.machines().filter(ready).map(|(slot, _)| slot).collect()
    }

    fn add(&mut self, through: Option<usize>) {
        let slot = self.world.next_slot();
        let seed = self.world.node_seed(slot);
        let id = NodeId(self.world.stream(&format!("id/{slot}")).random());
        let peer = Peer { id, incarnation: 1_760_000_000_000, addr: Addr::Memory(slot as u32) };
        let node = Node::new(peer, Arc::clone(&self.config), seed).expect("the configuration is sound");
        let stack =
            PastryStack::new(node, Arc::clone(&self.forest), seed).expect("the configuration is sound");
        self.world.add(Woken { stack, wakes: 0 });
        let join = through.into_iter().map(|slot| Seed::from(Addr::Memory(slot as u32))).collect();
        self.world.command(slot, Command::Start(Bootstrap { join, ..Bootstrap::default() }));
    }

    fn run(&mut self, time: Duration) {
        self.world.run_for(time);
        self.failed += self
            .world
            .take_events()
            .iter()
            .filter(|(_, _, event)| matches!(event, Event::StartFailed(_)))
            .count();
    }

    /// Each tenth of a second a tenth of the growth joins, through random nodes that are there.
    fn grow(&mut self, nodes: usize, per_second: f64) {
        self.add(None);
        self.run(SECOND * 2);
        let mut due = 0.0;
        while self.world.slots() < nodes {
            due += (self.world.slots() as f64 * per_second / 10.0).max(0.1);
            let ready = self.ready();
            while due >= 1.0 && self.world.slots() < nodes {
                due -= 1.0;
                let through = ready.choose(&mut self.dice).copied();
                self.add(through);
            }
            self.run(SECOND / 10);
        }
        let begin = self.world.now();
        while self.ready().len() + self.failed < nodes {
            self.run(SECOND / 10);
        }
        println!("the last ones needed {:?}", self.world.now() - begin);
    }

    fn wakes(&self) -> u64 {
        self.world.machines().map(|(_, woken)| woken.wakes).sum()
    }

    fn watch(&mut self) -> Rest {
        let (before, wakes) = (*self.world.counters(), self.wakes());
        let lapsed = self.unserving();
        self.run(WATCHED);
        let after = *self.world.counters();
        let share = WATCHED.as_secs_f64() * self.ready().len() as f64;
        println!("at rest, per node and second:");
        table(&before, &after, share);
        println!("  {:<20}{:>9.3}", "wakes", (self.wakes() - wakes) as f64 / share);
        println!("not serving: {lapsed} before, {} after", self.unserving());
        Rest { before, after, node_seconds: share }
    }

    /// Nodes whose leases do not run.
    fn unserving(&self) -> usize {
        let now = self.world.now();
        let serves = |woken: &Woken| woken.stack.ring().is_root_of(now, woken.stack.peer().id.key());
        self.world.machines().filter(|(_, woken)| !serves(woken)).count()
    }

    /// What a join sends beyond the upkeep of all nodes, `rest` of [`WATCHED`]: `count` of them, within [`BURST`].
    fn joins(&mut self, count: usize, rest: &Rest) {
        let before = *self.world.counters();
        let ready = self.ready();
        for i in 0..50 {
            for _ in i * count / 50..(i + 1) * count / 50 {
                let through = ready.choose(&mut self.dice).copied();
                self.add(through);
            }
            self.run(BURST / 50);
        }
        let after = *self.world.counters();
        println!("a join, beyond the upkeep of all nodes:");
        let upkeep = (ready.len() + count / 2) as f64 * BURST.as_secs_f64() / rest.node_seconds;
        let (mut sent, mut bytes) = (0.0, 0.0);
        for (name, _) in after.by_kind() {
            let (rest, all) =
                (difference(&rest.before, &rest.after, name), difference(&before, &after, name));
            let (frames, size) =
                ((all.0 - rest.0 * upkeep) / count as f64, (all.1 - rest.1 * upkeep) / count as f64);
            (sent, bytes) = (sent + frames, bytes + size);
            println!("  {name:<20}{frames:>9.2}{size:>10.0}");
        }
        println!("  {:<20}{sent:>9.2}{bytes:>10.0}", "total");
    }

    /// Takes nodes apart and sees what the allocator gets back.
    fn weigh(&mut self) {
        let mut slots = self.ready();
        slots.truncate(WEIGHED);
        let inline = size_of::<PastryStack>();
        let (mut heap, mut counted, mut parts) = (0, 0, Vec::new());
        for &slot in &slots {
            let woken = self.world.stop(slot);
            let memory = woken.stack.memory();
            counted += memory.total();
            parts.resize(memory.parts().len(), ("", 0));
            parts.iter_mut().zip(memory.parts()).for_each(|(sum, part)| *sum = (part.0, sum.1 + part.1));
            let region = Region::new(ALLOCATOR);
            drop(woken);
            let change = region.change();
            heap += change.bytes_deallocated - change.bytes_allocated;
        }
        println!("bytes per node by its own count: {}", counted / slots.len());
        for (part, bytes) in parts {
            println!("  {part:<16}{:>8}", bytes / slots.len());
        }
        println!(
            "bytes per node by the allocator: {} on the heap + {inline} inline = {}",
            heap / slots.len(),
            heap / slots.len() + inline
        );
    }
}

fn difference(before: &Counters, after: &Counters, name: &str) -> (f64, f64) {
    let (before, after) = (before.of(name), after.of(name));
    ((after.sent - before.sent) as f64, (after.bytes - before.bytes) as f64)
}

fn table(before: &Counters, after: &Counters, share: f64) {
    let (mut sent, mut bytes) = (0.0, 0.0);
    for (name, _) in after.by_kind() {
        let (frames, size) = difference(before, after, name);
        (sent, bytes) = (sent + frames / share, bytes + size / share);
        if frames > 0.0 {
            println!("  {name:<20}{:>9.3}{:>10.1}", frames / share, size / share);
        }
    }
    println!("  {:<20}{sent:>9.3}{bytes:>10.1}", "total");
}

impl Machine for Woken {
    type Command = Command;
    type Event = Event;

    fn peer(&self) -> Peer {
        self.stack.peer()
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        self.stack.handle_command(now, command);
    }

    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame) {
        self.stack.handle_frame(now, from, frame);
    }

    fn handle_link(&mut self, now: Instant, link: Link) {
        self.stack.handle_link(now, link);
    }

    fn handle_queued(&mut self, now: Instant, peer: NodeId, bytes: usize) {
        self.stack.handle_queued(now, peer, bytes);
    }

    fn handle_stored(&mut self, now: Instant, token: StoreToken) {
        self.stack.handle_stored(now, token);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.wakes += 1;
        self.stack.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.stack.poll_transmit()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.stack.poll_event()
    }

    fn poll_store(&mut self) -> Option<Store> {
        self.stack.poll_store()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.stack.poll_timeout()
    }
}

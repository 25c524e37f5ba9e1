//! Costs of an event: the world itself, with machines that do next to nothing; and whole nodes in it.
//!
//! `cargo bench -p treecast-integration --bench world -- NODES SECONDS [TOPOLOGY]`

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use rand::RngExt;
use treecast_integration::cluster::{make, through_slots};
use treecast_integration::world::{Case, Config, Connections, Fidelity, Topology, World};
use treecast_overlay::id::NodeId;
use treecast_overlay::machine::{Destination, Link, Machine, Store, StoreToken, Transmit};
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::sides::Sides;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Frame, Header, NodeState, Probe, ProbeAck};
use treecast_scribe::PastryStack;
use treecast_scribe::event::Command;

const PERIOD: Duration = Duration::from_secs(1);

/// Probes one peer after another, and answers.
struct Beat {
    me: Peer,
    friends: Vec<Peer>,
    next: Instant,
    number: u64,
    out: VecDeque<Transmit>,
}

impl Beat {
    fn send(&mut self, to: Peer, header: Header) {
        self.out.push_back(Transmit { to: Destination::Peer(to), frame: header.into() });
    }
}

impl Machine for Beat {
    type Command = ();
    type Event = ();

    fn peer(&self) -> Peer {
        self.me
    }
    fn handle_command(&mut self, _: Instant, (): ()) {}
    fn handle_frame(&mut self, _: Instant, from: Peer, frame: Frame) {
        if let Header::Probe(probe) = frame.header {
            let number = probe.number;
            let ack = ProbeAck {
                number,
                node_state: NodeState::Ready,
                lease: Sides::None,
                asks: None,
                leaf_set: None,
            };
            self.send(from, Header::ProbeAck(ack));
        }
    }
    fn handle_link(&mut self, _: Instant, _: Link) {}
    fn handle_queued(&mut self, _: Instant, _: NodeId, _: usize) {}
    fn handle_stored(&mut self, _: Instant, _: StoreToken) {}
    fn handle_turn_end(&mut self, _: Instant) {}
    fn handle_timeout(&mut self, now: Instant) {
        if now >= self.next {
            self.number += 1;
            self.next = now + PERIOD / self.friends.len() as u32;
            let friend = self.friends[self.number as usize % self.friends.len()];
            let probe = Probe {
                number: self.number,
                node_state: NodeState::Ready,
                lease: Sides::Left,
                leaf_set: false,
            };
            self.send(friend, Header::Probe(probe));
        }
    }
    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }
    fn poll_event(&mut self) -> Option<()> {
        None
    }
    fn poll_store(&mut self) -> Option<Store> {
        None
    }
    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.next)
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let number = |place: usize, default: u64| {
        words.get(place).map_or(default, |word| word.parse().expect("NODES SECONDS [TOPOLOGY]"))
    };
    let topology = words.get(2).map_or("transit-stub", String::as_str);
    let topology: Topology = topology.parse().unwrap_or_else(|error| panic!("{error}"));
    let config = Config {
        topology,
        jitter: 0.0,
        fidelity: Fidelity::Values,
        connections: Connections::None,
        spurious_timeouts: 0.0,
        ..Config::default()
    };
    let (nodes, time) = (number(0, 2_000) as u32, Duration::from_secs(number(1, 60)));
    alone(config.clone(), nodes, time);
    whole(config, nodes, time);
}

/// Machines that do next to nothing: what an event costs the world itself.
fn alone(config: Config, nodes: u32, time: Duration) {
    let mut world = World::new(Case::of_command("world", 1), config);
    let mut dice = world.stream("beats");
    let ids: Vec<NodeId> = (0..nodes).map(|_| NodeId(dice.random())).collect();
    let peer = |slot: u32| Peer { id: ids[slot as usize], incarnation: 1, addr: Addr::Memory(slot) };
    for slot in 0..nodes {
        let friends = (0..4).map(|_| peer(dice.random_range(0..nodes))).collect();
        let next = Instant::from_nanos(dice.random_range(0..1_000_000_000));
        world.add(Beat { me: peer(slot), friends, next, number: 0, out: VecDeque::new() });
    }
    measure("machines that only probe", &mut world, nodes, time);
}

/// Whole nodes that join by the real protocol, one after the other, and then idle.
fn whole(config: Config, nodes: u32, time: Duration) {
    let mut world: World<PastryStack> = World::new(Case::of_command("world", 1), config);
    let mut dice = world.stream("join");
    world.hand_events_to(|_, _, event| drop(event));
    for slot in 0..nodes as usize {
        let peer = Peer { id: NodeId(dice.random()), incarnation: 1, addr: Addr::Memory(slot as u32) };
        world.add(make(peer, &Arc::default(), &Arc::default(), world.node_seed(slot)));
        let through: Vec<usize> = if slot == 0 { Vec::new() } else { vec![dice.random_range(0..slot)] };
        world.command(slot, Command::Start(through_slots(&through)));
        world.run_for(Duration::from_secs(1) / (slot as u32 / 10).max(10));
    }
    measure("whole nodes at rest", &mut world, nodes, time);
}

fn measure<M: Machine>(what: &str, world: &mut World<M>, nodes: u32, time: Duration) {
    let (begin, steps, before) = (Clock::now(), world.steps(), world.counters().total().delivered);
    world.run_for(time);
    let (wall, steps) = (begin.elapsed(), world.steps() - steps);
    let frames = world.counters().total().delivered - before;
    println!(
        "{what}: {frames} frames, {steps} steps in {wall:.2?}: {:.0} ns a frame, {:.0} ns a step; {} pending; the world \
         takes {} bytes a node; trace {}",
        wall.as_nanos() as f64 / frames.max(1) as f64,
        wall.as_nanos() as f64 / steps.max(1) as f64,
        world.pending(),
        world.bytes() / nodes as usize,
        &world.trace_hash()[..16]
    );
}

//! The routing step: a message comes from a peer and goes on to the next, both hops acknowledged.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use rand::RngExt;
use treecast_integration::case;
use treecast_integration::cluster::{Cluster, through_slots};
use treecast_integration::world::{self, Fidelity, World};
use treecast_overlay::config::Config;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::{Command, Event, KeyBasedRouting};
use treecast_overlay::machine::{Destination, Machine};
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Frame, Header, Purpose, Routed};

/// Nodes of the ring in which the tables were filled.
const NODES: usize = 500;
const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routing_step");
    group.throughput(Throughput::Elements(1));
    let (mut node, now) = node();
    let mut traffic = Traffic::new(&node);
    group.bench_function("node", |bencher| {
        bencher.iter(|| {
            traffic.come(&mut node, now);
            let Some(Event::Forward(transit)) = node.poll_event() else { panic!("nothing to forward") };
            node.resume(now, transit);
            traffic.go(&mut node, now);
        });
    });
    let (mut stack, now) = stack();
    let mut traffic = Traffic::new(stack.ring());
    group.bench_function("stack", |bencher| {
        bencher.iter(|| {
            traffic.come(&mut stack, now);
            traffic.go(&mut stack, now);
        });
    });
    group.finish();
}

fn network() -> world::Config {
    world::Config { fidelity: Fidelity::Values, spurious_timeouts: 0.0, ..Default::default() }
}

/// A node out of a ring, its tables full, its leases running.
fn node() -> (Node, Instant) {
    let mut world: World<Node> = World::new(case!("routing", 1), network());
    let mut dice = world.stream("routing");
    for slot in 0..NODES {
        let peer = Peer { id: NodeId(dice.random()), incarnation: 1, addr: Addr::Memory(slot as u32) };
        world.add(Node::new(peer, Config::default(), world.node_seed(slot)).expect("figures that ship"));
        let through: Vec<usize> = if slot == 0 { Vec::new() } else { vec![dice.random_range(0..slot)] };
        world.command(slot, Command::Start(through_slots(&through)));
        world.run_for(if slot == 0 { SECOND } else { SECOND / 10 });
    }
    world.run_for(SECOND * 60);
    let now = world.now();
    let mut node = world.stop(7);
    while node.poll_event().is_some() || node.poll_transmit().is_some() {}
    (node, now)
}

fn stack() -> (treecast_scribe::PastryStack, Instant) {
    let mut cluster = Cluster::new(case!("routing", 1), network());
    cluster.grow(NODES, SECOND * 50);
    cluster.run(SECOND * 60);
    let now = cluster.world.now();
    (cluster.world.stop(7), now)
}

/// Passing traffic: messages of 1 KiB for keys of which this node is not the root.
struct Traffic {
    from: Peer,
    keys: VecDeque<Key>,
    hop: u64,
    payload: Bytes,
}

impl Traffic {
    fn new(node: &Node) -> Traffic {
        let peers: Vec<Peer> = node.leaf_set().iter().copied().collect();
        eprintln!("{} in the leaf set, {} in the routing table", peers.len(), node.routing_table().len());
        let me = node.peer().id;
        // Every step but the last: most keys are beyond the leaf set.
        let passing = |key: &Key| peers.iter().any(|peer| key.is_closer(peer.id, me));
        let keys = (0..4096_u32).map(|i| Key::hash(&i.to_le_bytes())).filter(passing).collect();
        Traffic { from: peers[0], keys, hop: 0, payload: Bytes::from(vec![7; 1024]) }
    }

    fn come(&mut self, machine: &mut impl Machine, now: Instant) {
        self.hop += 1;
        let key = self.keys[self.hop as usize % self.keys.len()];
        let routed = Routed {
            hop: self.hop,
            key,
            origin: self.from.into(),
            id: self.hop,
            hops: 1,
            by_leaf_set: false,
            repeated: false,
            purpose: Purpose::Application,
            trace: None,
        };
        let frame = Frame::new(Header::Routed(routed), self.payload.clone());
        machine.handle_frame(now, self.from, black_box(frame));
    }

    /// The acknowledgement of the last hop, and the message itself, whose next hop acknowledges it.
    fn go(&mut self, machine: &mut impl Machine, now: Instant) {
        let mut out = 0;
        while let Some(transmit) = machine.poll_transmit() {
            if let (Destination::Peer(to), Header::Routed(routed)) = (transmit.to, &transmit.frame.header) {
                out += 1;
                machine.handle_frame(now, to, Header::HopAck { hop: routed.hop }.into());
            }
            black_box(&transmit);
        }
        assert_eq!(out, 1, "it goes on");
    }
}

//! Routing quality of a ring grown by the real join protocol, beside what perfect tables would give on the same nodes:
//! `cargo run --release -p treecast-integration --example proximity -- [NODES] [plane|transit-stub] [SEED] [SETTLE_S]`.
//!
//! The oracle knows every node and every latency: its tables hold in each slot the nearest node that there is, and it
//! routes as plain Pastry does (Pastry §2.3). Stretch is the mean over pairs of (delay of the route ÷ delay of the
//! direct way).

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use treecast_integration::case;
use treecast_integration::world::{Config as Network, Connections, Fidelity, World};
use treecast_overlay::config::Config;
use treecast_overlay::id::{BASE, Key, NodeId};
use treecast_overlay::kbr::{Bootstrap, Command, Event, KeyBasedRouting};
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::random::Rng;
use treecast_overlay::wire::Standing;

const SECOND: Duration = Duration::from_secs(1);
/// Nodes that join per second, as a share of those that are there.
const GROWTH: f64 = 0.03;
/// Nodes whose tables are compared with the oracle's.
const SAMPLE: usize = 300;
const LOOKUPS: usize = 4000;
/// Rows that are looked at.
const ROWS: usize = 6;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let nodes = arguments.next().map_or(2000, |text| text.parse().expect("NODES is a number"));
    let topology = arguments.next().unwrap_or_else(|| "plane".into());
    let seed = arguments.next().map_or(1, |text| text.parse().expect("SEED is a number"));
    let settle = arguments.next().map_or(120, |text| text.parse().expect("SETTLE_S is a number"));
    let mut lab = Lab::new(&topology, seed);
    let begin = std::time::Instant::now();
    lab.grow(nodes);
    println!("{nodes} nodes on {topology}, seed {seed}");
    lab.report_growth(nodes, begin.elapsed());
    lab.oracle = Oracle::of(&lab.world);
    lab.report_tables("just grown");
    lab.rest(settle);
    lab.report_tables("settled");
    lab.report_degrees();
    lab.report_routes();
    lab.report_join();
    println!("wall {:.1} s", begin.elapsed().as_secs_f64());
}

/// A ring and its judge.
struct Lab {
    world: World<Node>,
    dice: Rng,
    oracle: Oracle,
}

impl Lab {
    fn new(topology: &str, seed: u64) -> Lab {
        let network = Network {
            topology: topology.parse().unwrap_or_else(|why| panic!("{why}")),
            connections: Connections::None,
            jitter: 0.0,
            spurious_timeouts: 0.0,
            fidelity: Fidelity::Values,
            ..Network::default()
        };
        let world = World::new(case!("proximity", seed), network);
        Lab { dice: world.stream("proximity"), world, oracle: Oracle::default() }
    }

    /// Large quiet rings. Many join together here: a start may take its time.
    fn config() -> Config {
        Config { start_timeout: SECOND * 120, ..Config::mspastry() }
    }

    fn grow(&mut self, nodes: usize) {
        let mut due = 1.0_f64;
        while self.world.slots() < nodes {
            while due >= 1.0 && self.world.slots() < nodes {
                self.add();
                due -= 1.0;
            }
            let step = 0.05;
            self.world.run_for(Duration::from_secs_f64(step));
            due += (self.world.slots() as f64 * GROWTH).max(4.0) * step;
        }
        let all_ready =
            |world: &World<Node>| world.machines().all(|(_, node)| node.standing() == Standing::Ready);
        self.world.run_until_every(SECOND, SECOND * 180, all_ready).expect("all join");
        for (_, _, event) in self.world.take_events() {
            assert!(!matches!(event, Event::StartFailed(_)), "{event:?}");
        }
    }

    fn add(&mut self) {
        let slot = self.world.next_slot();
        let id = NodeId(self.dice.random());
        let peer = Peer { id, incarnation: 1, addr: Addr::Memory(slot as u32) };
        let node = Node::new(peer, Lab::config(), self.world.node_seed(slot)).expect("a good configuration");
        let seed = loop {
            let seed = self.dice.random_range(0..slot.max(1));
            if slot == 0 || self.world.machine(seed).is_some_and(|node| node.standing() == Standing::Ready) {
                break seed;
            }
        };
        let join = if slot == 0 { vec![] } else { vec![Seed::from(Addr::Memory(seed as u32))] };
        self.world.add(node);
        self.world.command(slot, Command::Start(Bootstrap { join, ..Bootstrap::default() }));
    }

    fn report_growth(&self, nodes: usize, wall: Duration) {
        let total = self.world.counters().total().sent as f64 / nodes as f64;
        println!(
            "grown in {} virtual, {:.1} s wall; {total:.0} frames per node:",
            self.world.now(),
            wall.as_secs_f64()
        );
        for (kind, tally) in self.world.counters().by_kind() {
            print!("  {kind} {:.1}", tally.sent as f64 / nodes as f64);
        }
        println!();
    }

    /// Lets time pass, and says what each quarter of it cost.
    fn rest(&mut self, seconds: u32) {
        for _ in 0..4 {
            let before = *self.world.counters();
            self.world.run_for(SECOND * seconds / 4);
            self.world.take_events();
            let after = self.world.counters();
            let rate = |sent: u64| sent as f64 / self.world.slots() as f64 / f64::from(seconds) * 4.0;
            print!("at rest: {:.3} frames/s/node:", rate(after.total().sent - before.total().sent));
            for (kind, tally) in after.by_kind() {
                print!("  {kind} {:.3}", rate(tally.sent - before.of(kind).sent));
            }
            println!();
            self.report_silent();
        }
    }

    fn report_silent(&self) {
        let now = self.world.now();
        for (slot, node) in self.world.machines() {
            if !node.is_root_of(now, node.peer().id.key()) {
                let at = self.oracle.ring.partition_point(|&(id, _)| id < node.peer().id.0);
                let all = self.oracle.ring.len();
                println!(
                    "#{slot} is silent: standing {:?}, left {:?} (is {}), right {:?} (is {})",
                    node.standing(),
                    node.leaf_set().left().map(slot_of),
                    self.oracle.ring[(at + all - 1) % all].1,
                    node.leaf_set().right().map(slot_of),
                    self.oracle.ring[(at + 1) % all].1
                );
            }
        }
    }

    fn report_tables(&mut self, when: &str) {
        let (mut slots, mut empty, mut worse, mut far) = ([0; ROWS], [0; ROWS], [0; ROWS], [0.0; ROWS]);
        let mut unmeasured = 0;
        let (mut entries, mut best, mut ours) = (0, [0.0; ROWS], [0.0; ROWS]);
        let sample: Vec<usize> = (0..SAMPLE).map(|_| self.dice.random_range(0..self.world.slots())).collect();
        for &me in &sample {
            let node = self.world.machine(me).expect("it lives");
            entries += node.routing_table().len();
            unmeasured +=
                node.routing_table().iter().filter(|p| node.routing_table().rtt(p.id).is_none()).count();
            for row in 0..ROWS {
                for col in 0..BASE {
                    let Some(nearest) = self.oracle.nearest(&self.world, me, row, col) else { continue };
                    let nearest = self.world.latency(me, nearest).as_secs_f64();
                    slots[row] += 1;
                    let Some(first) = node.routing_table().slot(row, col).first() else {
                        empty[row] += 1;
                        continue;
                    };
                    let first = self.world.latency(me, slot_of(&first.peer)).as_secs_f64();
                    worse[row] += usize::from(first > nearest * 1.1);
                    far[row] += first / nearest.max(1e-6);
                    best[row] += nearest;
                    ours[row] += first;
                }
            }
        }
        println!(
            "{when}: {:.1} entries a table, {:.1} unmeasured",
            entries as f64 / SAMPLE as f64,
            unmeasured as f64 / SAMPLE as f64
        );
        for row in (0..ROWS).filter(|&row| slots[row] > 0) {
            let of = |count: usize| count as f64 / SAMPLE as f64;
            println!(
                "  row {row}: {:.2} slots, {:.3} empty, {:.2} more than 10 % farther than need be; delay ours ÷ oracle's {:.3}",
                of(slots[row]),
                of(empty[row]),
                of(worse[row]),
                ours[row] / best[row]
            );
        }
    }

    /// What a join costs when all is at rest: all frames of a minute, less those of the minute before.
    fn report_join(&mut self) {
        const MINUTE: Duration = Duration::from_secs(60);
        const JOINS: usize = 50;
        let start = *self.world.counters();
        self.world.run_for(MINUTE);
        let middle = *self.world.counters();
        for _ in 0..JOINS {
            self.add();
            self.world.run_for(SECOND / 5);
        }
        self.world.run_for(MINUTE - SECOND / 5 * JOINS as u32);
        let end = self.world.counters();
        let extra = |before: u64, between: u64, after: u64| {
            (after as f64 - 2.0 * between as f64 + before as f64) / JOINS as f64
        };
        let total = extra(start.total().sent, middle.total().sent, end.total().sent);
        print!("a join at rest costs {total:.0} frames:");
        for (kind, tally) in end.by_kind() {
            print!("  {kind} {:.1}", extra(start.of(kind).sent, middle.of(kind).sent, tally.sent));
        }
        println!();
    }

    /// In how many tables each node stands.
    fn report_degrees(&self) {
        let (mut any, mut first) = (vec![0_u32; self.world.slots()], vec![0_u32; self.world.slots()]);
        for (_, node) in self.world.machines() {
            node.routing_table().iter().for_each(|peer| any[slot_of(peer)] += 1);
            for row in 0..ROWS {
                node.routing_table().row(row).for_each(|peer| first[slot_of(peer)] += 1);
            }
        }
        for (what, mut degrees) in [("in tables", any), ("first of a slot", first)] {
            degrees.sort_unstable();
            let at = |share: f64| degrees[((degrees.len() - 1) as f64 * share) as usize];
            let mean = degrees.iter().sum::<u32>() as f64 / degrees.len() as f64;
            println!(
                "{what}: mean {mean:.1}, p50 {}, p99 {}, p99.9 {}, max {}",
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0)
            );
        }
    }

    fn report_routes(&mut self) {
        for to_nodes in [false, true] {
            let name = if to_nodes { "to nodes" } else { "to keys" };
            let mut asked = Vec::new();
            for token in 0..LOOKUPS {
                let (from, to) = (
                    self.dice.random_range(0..self.world.slots()),
                    self.dice.random_range(0..self.world.slots()),
                );
                let key = if to_nodes {
                    self.world.machine(to).expect("it lives").peer().id.key()
                } else {
                    Key(self.dice.random())
                };
                let load = token as u64;
                self.world.command(from, Command::Lookup { token: load, key, trace: true });
                asked.push((from, key));
                self.world.run_for(SECOND / 500);
            }
            self.world.run_for(SECOND * 70);
            let mut figures = Figures::default();
            let mut passed: BTreeMap<NodeId, u32> = BTreeMap::new();
            for (_, slot, event) in self.world.take_events() {
                if let Event::NotFound { token, reason } = &event {
                    println!("lookup {token} was not answered: {reason:?}");
                }
                let Event::Found { token, found } = event else { continue };
                if found.took > SECOND * 3 {
                    println!("lookup {token} took {:?}, {} hops", found.took, found.hops);
                }
                let (from, key) = asked[token as usize];
                assert_eq!(slot, from);
                let root = slot_of(&found.root);
                figures.wrong += usize::from(root != self.oracle.root(key));
                figures.found += 1;
                let direct = self.world.latency(from, root);
                if root == from || same_router(&self.world, from, root) {
                    continue;
                }
                let path = found.path.unwrap_or_default();
                for hop in path.iter().skip(1).rev().skip(1) {
                    *passed.entry(hop.node).or_default() += 1;
                }
                let took = found.took - direct;
                let (hops, perfect) = self.oracle.route(&self.world, from, key);
                figures.add(found.hops.into(), took, direct, hops, perfect);
            }
            figures.print(name);
            self.report_silent();
            let most = passed.values().max().copied().unwrap_or_default();
            let mean = f64::from(passed.values().sum::<u32>()) / self.world.slots() as f64;
            println!("  passes by one node: mean {mean:.2}, max {most}");
        }
    }
}

/// Sums over routes.
#[derive(Default)]
struct Figures {
    found: usize,
    wrong: usize,
    hops: Vec<f64>,
    stretch: Vec<f64>,
    oracle_hops: Vec<f64>,
    oracle_stretch: Vec<f64>,
    delays: [f64; 3],
}

impl Figures {
    fn add(&mut self, hops: usize, took: Duration, direct: Duration, oracle_hops: usize, perfect: Duration) {
        let direct = direct.as_secs_f64();
        self.hops.push(hops as f64);
        self.stretch.push(took.as_secs_f64() / direct);
        self.oracle_hops.push(oracle_hops as f64);
        self.oracle_stretch.push(perfect.as_secs_f64() / direct);
        for (sum, delay) in self.delays.iter_mut().zip([took.as_secs_f64(), perfect.as_secs_f64(), direct]) {
            *sum += delay;
        }
    }

    fn print(&mut self, name: &str) {
        let mean = |list: &[f64]| list.iter().sum::<f64>() / list.len() as f64;
        let [took, perfect, direct] = self.delays;
        println!("{name}: {} of {LOOKUPS} found, {} wrong", self.found, self.wrong);
        println!(
            "  hops    {:.3}   plain Pastry with perfect tables {:.3}",
            mean(&self.hops),
            mean(&self.oracle_hops)
        );
        self.stretch.sort_by(f64::total_cmp);
        self.oracle_stretch.sort_by(f64::total_cmp);
        let (ours, theirs) = (&self.stretch, &self.oracle_stretch);
        println!(
            "  stretch {:.3} (p50 {:.3}, total {:.3})   plain Pastry with perfect tables {:.3} (p50 {:.3}, total {:.3})",
            mean(ours),
            ours[ours.len() / 2],
            took / direct,
            mean(theirs),
            theirs[theirs.len() / 2],
            perfect / direct
        );
    }
}

/// Who knows everything.
#[derive(Default)]
struct Oracle {
    /// All nodes by id.
    ring: Vec<(u128, usize)>,
    ids: Vec<u128>,
}

impl Oracle {
    fn of(world: &World<Node>) -> Oracle {
        let ids: Vec<u128> = world.machines().map(|(_, node)| node.peer().id.0).collect();
        let mut ring: Vec<(u128, usize)> = ids.iter().copied().zip(0..).collect();
        ring.sort_unstable();
        Oracle { ring, ids }
    }

    fn id(&self, slot: usize) -> NodeId {
        NodeId(self.ids[slot])
    }

    fn root(&self, key: Key) -> usize {
        let at = self.ring.partition_point(|&(id, _)| id < key.0) % self.ring.len();
        let before = (at + self.ring.len() - 1) % self.ring.len();
        let [a, b] = [self.ring[at], self.ring[before]];
        if key.is_closer(NodeId(a.0), NodeId(b.0)) { a.1 } else { b.1 }
    }

    /// The nearest node of a slot of a perfect table.
    fn nearest(&self, world: &World<Node>, me: usize, row: usize, col: usize) -> Option<usize> {
        let my_id = self.id(me).key();
        if my_id.digit(row) == col {
            return None;
        }
        let shift = 124 - 4 * row as u32;
        let first = ((my_id.0 >> shift) & !0xf | col as u128) << shift;
        let last = first | ((1 << shift) - 1);
        let begin = self.ring.partition_point(|&(id, _)| id < first);
        let end = self.ring.partition_point(|&(id, _)| id <= last);
        self.ring[begin..end]
            .iter()
            .map(|&(_, slot)| slot)
            .min_by_key(|&slot| (world.latency(me, slot), slot))
    }

    /// Plain Pastry over perfect tables: hops and delay.
    fn route(&self, world: &World<Node>, from: usize, key: Key) -> (usize, Duration) {
        let root = self.root(key);
        let (mut at, mut hops, mut delay) = (from, 0, Duration::ZERO);
        while at != root {
            let next = self.next(world, at, key, root);
            delay += world.latency(at, next);
            hops += 1;
            at = next;
        }
        (hops, delay)
    }

    fn next(&self, world: &World<Node>, at: usize, key: Key, root: usize) -> usize {
        let place = |slot: usize| self.ring.partition_point(|&(id, _)| id < self.ids[slot]);
        let (here, there, all) = (place(at), place(root), self.ring.len());
        let (half, way) = (Lab::config().leaf_set / 2, (there + all - here) % all);
        if way <= half || all - way <= half {
            return root;
        }
        let row = key.shared_prefix(self.id(at));
        self.nearest(world, at, row, key.digit(row)).unwrap_or_else(|| {
            let members = (1..=half).flat_map(|i| [(here + i) % all, (here + all - i) % all]);
            let closest = members.map(|at| self.ring[at]).min_by(|a, b| key.closer(NodeId(a.0), NodeId(b.0)));
            closest.expect("a leaf set").1
        })
    }
}

fn same_router(world: &World<Node>, a: usize, b: usize) -> bool {
    world.router(a).is_some_and(|router| world.router(b) == Some(router))
}

fn slot_of(peer: &Peer) -> usize {
    match peer.addr {
        Addr::Memory(slot) => slot as usize,
        Addr::Socket(_) | Addr::Unreachable => panic!("{} has no slot", peer.id),
    }
}

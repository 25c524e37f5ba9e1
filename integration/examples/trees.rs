//! Trees' shapes at a size that takes a minute: what `lab multicast` measures at scale.
//!
//! `trees [--nodes N] [--groups G] [--members M] [--constant MS] [--seed S]`

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;
use treecast_integration::case;
use treecast_integration::world::{self, Fidelity, Topology, World};
use treecast_overlay::config::Config as RingConfig;
use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::{Bootstrap, KeyBasedRouting};
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Header, Standing};
use treecast_scribe::event::{Command, Event, SubscriptionId, Token};
use treecast_scribe::{Config, Item, PastryStack, Start, Topic, TopicId};

fn argument(name: &str) -> Option<usize> {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    args.next().map(|text| text.parse().expect("a number"))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    if sorted.is_empty() { f64::NAN } else { sorted[((sorted.len() - 1) as f64 * q) as usize] }
}

fn main() {
    let nodes = argument("--nodes").unwrap_or(2000);
    let groups = argument("--groups").unwrap_or(150);
    let seed = argument("--seed").unwrap_or(1) as u64;
    let topology = match argument("--constant") {
        Some(ms) => Topology::Constant(Duration::from_millis(ms as u64)),
        None => Topology::Plane { nearest: Duration::from_millis(2), across: Duration::from_millis(100) },
    };
    let config = world::Config {
        topology,
        jitter: 0.0,
        fidelity: Fidelity::Values,
        spurious_timeouts: 0.0,
        ..world::Config::default()
    };
    let mut world: World<PastryStack> = World::new(case!("trees", seed).with_seed(seed), config);
    let begin = std::time::Instant::now();
    let mut dice = world.stream("trees");
    let mut slots: BTreeMap<NodeId, usize> = BTreeMap::new();
    let forest = Config {
        splice_after: Duration::from_secs(argument("--splice").unwrap_or(2) as u64),
        tree_children: argument("--cap").unwrap_or(Config::default().tree_children),
        node_children: argument("--load").unwrap_or(Config::default().node_children),
        ..Config::default()
    };
    for slot in 0..nodes {
        let seed = world.node_seed(slot);
        let id = NodeId(dice.random());
        slots.insert(id, slot);
        let peer = Peer { id, incarnation: 1, addr: Addr::Memory(slot as u32) };
        let node = Node::new(peer, RingConfig::default(), seed).expect("sound");
        let stack = PastryStack::new(node, forest.clone(), seed).expect("sound");
        world.add(stack);
        let through = (slot > 0).then(|| dice.random_range(0..slot.min(1 + slot * 9 / 10)));
        let join = through.into_iter().map(|slot| Seed::from(Addr::Memory(slot as u32))).collect();
        world.command(slot, Command::Start(Bootstrap { join, ..Bootstrap::default() }));
        world.run_for(if slot < 100 { Duration::from_millis(200) } else { Duration::from_millis(20) });
    }
    loop {
        world.run_for(Duration::from_secs(1));
        let ready = world.machines().filter(|(_, s)| s.ring().standing() == Standing::Ready).count();
        if ready == nodes {
            break;
        }
        println!("{ready} ready at {}", world.now());
    }
    world.run_for(Duration::from_secs(20));
    println!("{nodes} nodes joined in {:?}, {} virtual", begin.elapsed(), world.now());

    // Groups.
    let topics: Vec<Topic> =
        (0..groups).map(|g| Topic::new(&format!("group/{g}")).expect("a name")).collect();
    let mut members: Vec<Vec<usize>> = Vec::new();
    let mut next = 0;
    for (rank, topic) in topics.iter().enumerate() {
        let size = match argument("--members") {
            Some(members) => members,
            None => (nodes as f64 * ((rank + 1) as f64).powf(-1.25) + 0.5) as usize,
        };
        let mut group: Vec<usize> = (0..nodes).collect();
        group.partial_shuffle(&mut dice, size.min(nodes));
        group.reverse();
        group.truncate(size.min(nodes));
        for &slot in &group {
            next += 1;
            let subscription = SubscriptionId(next);
            let (topic, start) = (topic.clone(), Start::Latest);
            world.command(slot, Command::Subscribe { subscription, topic, start, credit: 1 << 20 });
        }
        members.push(group);
        world.run_for(Duration::from_millis(10));
    }
    let memberships: usize = members.iter().map(Vec::len).sum();
    let letters = *world.counters();
    for _ in 0..12 {
        world.run_for(Duration::from_secs(5));
        shape(&world);
    }
    world.take_events();
    let resting = *world.counters();
    world.run_for(Duration::from_secs(10));
    let rest = (world.counters().total().sent - resting.total().sent) as f64 / 10.0 / nodes as f64;
    println!("{memberships} memberships; at rest {rest:.2} frames a second and node");
    println!(
        "letters since the first JOIN: {}, routed {}",
        world.counters().of("letter/payload").sent - letters.of("letter/payload").sent,
        world.counters().of("routed/application").sent - letters.of("routed/application").sent
    );
    let bytes: Vec<usize> = world.machines().map(|(_, s)| s.forest().bytes()).collect();
    println!("forest bytes: mean {}, max {:?}", bytes.iter().sum::<usize>() / nodes, bytes.iter().max());

    publish(&mut world, &topics, &members, &slots);
    println!("{:?} wall, {} virtual", begin.elapsed(), world.now());
}

fn shape(world: &World<PastryStack>) {
    let mut entries: Vec<f64> = Vec::new();
    let (mut trees, mut widest) = (0, 0);
    for (_, stack) in world.machines() {
        let mut sum = 0;
        for place in stack.forest().places() {
            trees += 1;
            sum += place.children().len();
            widest = widest.max(place.children().len());
        }
        entries.push(sum as f64);
    }
    entries.sort_by(f64::total_cmp);
    println!(
        "{}: {trees} trees; entries mean {:.2} median {} p99 {} max {}; widest tree {widest}",
        world.now(),
        entries.iter().sum::<f64>() / entries.len() as f64,
        quantile(&entries, 0.5),
        quantile(&entries, 0.99),
        quantile(&entries, 1.0),
    );
}

fn is_data(frame: &treecast_overlay::wire::Frame) -> bool {
    matches!(frame.header, Header::Letter(_)) && frame.payload.first() == Some(&4)
}

fn publish(
    world: &mut World<PastryStack>,
    topics: &[Topic],
    members: &[Vec<usize>],
    slots: &BTreeMap<NodeId, usize>,
) {
    let _ = is_data;
    let key_root = |world: &World<PastryStack>, topic: TopicId| {
        world
            .machines()
            .find(|(_, s)| s.forest().places().any(|place| place.topic() == topic && place.is_root()))
            .map(|(slot, _)| slot)
    };
    let (mut rads, mut rmds, mut depths) = (Vec::new(), Vec::new(), Vec::new());
    let (mut missed, mut duplicates, mut deliveries) = (0usize, 0usize, 0usize);
    let mut payloads = 0;
    for (topic, members) in topics.iter().zip(members) {
        let Some(root) = key_root(world, topic.id()) else {
            println!("{} has no root", topic.name());
            continue;
        };
        let mut parents: BTreeMap<usize, usize> = BTreeMap::new();
        for (slot, stack) in world.machines() {
            if let Some(place) = stack.forest().places().find(|place| place.topic() == topic.id()) {
                parents.extend(place.parent().map(|parent| (slot, slots[&parent])));
            }
        }
        payloads += parents.len();
        for &member in members {
            let (mut at, mut depth) = (member, 0);
            while let Some(&parent) = parents.get(&at) {
                (at, depth) = (parent, depth + 1);
                assert!(depth < 100, "a loop");
            }
            depths.push(depth as f64);
        }
        let token = Token(1 << 40);
        let begin = world.now();
        world.command(root, Command::Publish { token, topic: topic.clone(), payload: "x".into() });
        world.run_for(Duration::from_secs(3));
        let mut got: BTreeMap<usize, Vec<Instant>> = BTreeMap::new();
        for (at, slot, event) in world.take_events() {
            if let Event::Item { item: Item::Message(_), .. } = event {
                got.entry(slot).or_default().push(at);
            }
        }
        let others: Vec<usize> = members.iter().copied().filter(|&slot| slot != root).collect();
        missed += members.iter().filter(|slot| !got.contains_key(slot)).count();
        duplicates += got.values().map(|times| times.len() - 1).sum::<usize>();
        deliveries += others.len();
        let tree: Vec<f64> = others.iter().filter_map(|slot| Some(ms(got.get(slot)?[0] - begin))).collect();
        let unicast: Vec<f64> = others.iter().map(|&slot| ms(world.latency(root, slot))).collect();
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let max = |v: &[f64]| v.iter().copied().fold(0.0, f64::max);
        if tree.len() > 1 {
            rads.push(mean(&tree) / mean(&unicast));
            rmds.push(max(&tree) / max(&unicast));
        }
    }
    println!(
        "RAD of the 10 largest: {:?}",
        rads.iter().take(10).map(|r| (r * 100.0).round() / 100.0).collect::<Vec<_>>()
    );
    for values in [&mut rads, &mut rmds, &mut depths] {
        values.sort_by(f64::total_cmp);
    }
    println!(
        "RAD median {:.3} max {:.3}; RMD median {:.3} max {:.3}; depth mean {:.2} max {}",
        quantile(&rads, 0.5),
        quantile(&rads, 1.0),
        quantile(&rmds, 0.5),
        quantile(&rmds, 1.0),
        depths.iter().sum::<f64>() / depths.len() as f64,
        quantile(&depths, 1.0)
    );
    println!(
        "copies per delivery {:.3}; missed {missed}, duplicates {duplicates}",
        payloads as f64 / deliveries as f64
    );
}

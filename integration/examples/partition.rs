//! Two halves of a ring that cannot reach each other for a while, and how long they take to be one ring again.
//!
//! `cargo run --release -p treecast-integration --example partition -- NODES SECONDS SEEDS [oneway|apart] [mspastry]`
//!
//! `apart`: the halves never were one; a twentieth of the nodes have been told of a node of the other half.

use std::collections::BTreeSet;
use std::time::Duration;

use treecast_integration::check::o3;
use treecast_integration::rings::Rings;
use treecast_integration::world::{Case, Config as WorldConfig, Cut, Fidelity};
use treecast_overlay::config::Config;
use treecast_overlay::kbr::Bootstrap;
use treecast_overlay::peer::{Addr, Seed};

const SECOND: Duration = Duration::from_secs(1);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).expect("NODES SECONDS SEEDS");
    let (nodes, seconds, seeds) = (number(0) as usize, number(1), number(2));
    let has = |word: &str| words.iter().any(|other| other == word);
    let config = if has("mspastry") { Config::mspastry() } else { Config::default() };
    for seed in 1..=seeds {
        run(seed, nodes, Duration::from_secs(seconds), has("oneway"), has("apart"), config.clone());
    }
}

fn run(seed: u64, nodes: usize, cut_for: Duration, one_way: bool, apart: bool, config: Config) {
    let case = Case::of_command("partition", seed);
    let network =
        WorldConfig { fidelity: Fidelity::Values, spurious_timeouts: 0.0, ..WorldConfig::default() };
    let mut rings = Rings::new(case, network, config);
    (rings.one_side, rings.period) = (false, SECOND);
    let sides = |nodes: usize| Cut::Sides((0..nodes).map(|slot| (slot % 2) as u8).collect());
    let first = apart.then(|| rings.world.cut(sides(nodes)));
    for slot in 0..if apart { 2 } else { 1 } {
        rings.add(Bootstrap::default());
        assert_eq!(rings.world.slots(), slot + 1);
    }
    rings.run(SECOND);
    while rings.world.slots() < nodes {
        let count = (rings.world.slots() / 10).clamp(1, nodes - rings.world.slots());
        for _ in 0..count {
            let slot = rings.world.slots();
            let near: Vec<usize> =
                rings.ready().into_iter().filter(|other| !apart || other % 2 == slot % 2).collect();
            let near = near[slot * 31 % near.len()];
            let remembered = Seed::from(Addr::Memory((slot as u32 + 1) % nodes as u32));
            let mut bootstrap = Rings::through(&[near]);
            if apart && slot % 20 == 7 {
                bootstrap.remembered.push(remembered);
            }
            rings.add(bootstrap);
        }
        rings.run(SECOND);
    }
    rings.run(SECOND * 30);
    if !apart {
        o3::one_ring(rings.nodes().map(|node| (rings.world.now(), node)))
            .unwrap_or_else(|fault| panic!("{fault}"));
    }
    let cut = first.unwrap_or_else(|| {
        rings.world.cut(match one_way {
            false => sides(nodes),
            true => {
                let half = |rest| (0..nodes).filter(|slot| slot % 2 == rest).collect::<BTreeSet<usize>>();
                Cut::OneWay { from: half(0), to: half(1) }
            }
        })
    });
    rings.run(cut_for);
    let before = rings.world.counters().total();
    rings.run(SECOND * 5);
    let cost = rings.world.counters().total().sent - before.sent;
    let apart_cost = cost as f64 / 5.0 / nodes as f64;
    let before = rings.world.counters().total();
    rings.world.heal(cut);
    rings.period = SECOND / 10;
    let begin = rings.world.now();
    let mut took = None;
    for _ in 0..1200 {
        rings.run(SECOND / 10);
        if o3::one_ring(rings.nodes().map(|node| (rings.world.now(), node))).is_ok() {
            took = Some(rings.world.now() - begin);
            break;
        }
    }
    let after = rings.world.counters().total();
    let per_node = |count: u64| count as f64 / nodes as f64;
    println!(
        "seed {seed}: {nodes} nodes apart for {cut_for:?} ({apart_cost:.2} frames/s/node then): one ring after {took:?}; {:.0} frames and {:.0} bytes a node",
        per_node(after.sent - before.sent),
        per_node(after.bytes - before.bytes),
    );
}

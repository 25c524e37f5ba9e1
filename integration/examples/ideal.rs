//! Ideal figures of a ring: `cargo run --release -p treecast-integration --example ideal -- TOPOLOGY NODES LEAF_SET
//! LOOKUPS SEED`.

use rand::RngExt;
use rand::seq::SliceRandom;
use treecast_integration::lab::ideal::{Ideal, Keys};
use treecast_integration::world::{Map, Topology};
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::random;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |place: usize, default: &str| words.get(place).cloned().unwrap_or(default.to_string());
    let number = |place: usize, default: &str| {
        let word = word(place, default);
        word.parse::<usize>().unwrap_or_else(|_| panic!("`{word}`: a number is expected"))
    };
    let topology: Topology = word(0, "transit-stub").parse().unwrap_or_else(|error| panic!("{error}"));
    let (nodes, leaf_set, lookups) = (number(1, "100000"), number(2, "32"), number(3, "20000"));
    let seed = [number(4, "1") as u8; 32];
    let mut map = Map::new(&topology, &seed);
    (0..nodes).for_each(|_| map.add());
    let mut dice = random::stream(&seed, "ideal");
    let ids: Vec<NodeId> = (0..nodes).map(|_| NodeId(dice.random())).collect();
    let ideal = Ideal::new(&map, ids, leaf_set);
    println!("{topology}, {nodes} nodes, leaf set {leaf_set}, {lookups} lookups");
    for keys in [Keys::Random, Keys::Nodes] {
        let begin = std::time::Instant::now();
        let figures = ideal.lookups(lookups, keys, &mut dice);
        println!(
            "{keys:?}: hops {:.4}, at most {}, share {:.4?}; stretch mean {:.4} p50 {:.4} p99 {:.4}; {:.1?}",
            figures.hops_mean,
            figures.hops_max,
            figures.hops_share,
            figures.stretch_mean(),
            figures.stretch_at(0.5),
            figures.stretch_at(0.99),
            begin.elapsed()
        );
    }
    trees(&ideal, nodes);
}

/// The Scribe paper's groups (§4.1): group r of 1,500 has ⌊N·r^-1.25 + 0.5⌋ members.
fn trees(ideal: &Ideal<'_>, nodes: usize) {
    let begin = std::time::Instant::now();
    let mut dice = random::stream(&[1; 32], "groups");
    let (mut rads, mut rmds, mut children) = (Vec::new(), Vec::new(), vec![0_u32; nodes]);
    let mut slots: Vec<usize> = (0..nodes).collect();
    let mut memberships = 0;
    for rank in 1..=1500 {
        let size = (nodes as f64 * f64::from(rank).powf(-1.25) + 0.5) as usize;
        let (members, _) = slots.partial_shuffle(&mut dice, size);
        memberships += size;
        let tree = ideal.tree(Key(dice.random()), members);
        tree.parents.values().for_each(|&parent| children[parent] += 1);
        rads.push(tree.rad);
        rmds.push(tree.rmd);
    }
    children.sort_unstable();
    rads.sort_unstable_by(f64::total_cmp);
    rmds.sort_unstable_by(f64::total_cmp);
    println!(
        "{memberships} memberships: entries mean {:.2} median {} max {}; RAD median {:.3} max {:.2}; RMD median {:.3} \
         max {:.2}; {:.1?}",
        f64::from(children.iter().sum::<u32>()) / nodes as f64,
        children[nodes / 2],
        children[nodes - 1],
        rads[750],
        rads[1499],
        rmds[750],
        rmds[1499],
        begin.elapsed()
    );
}

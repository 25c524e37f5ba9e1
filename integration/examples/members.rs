//! A small ring in full-membership mode: how many hops lookups take, and what it costs while nothing happens.
//!
//! `cargo run --release -p treecast-integration --example members -- NODES SEEDS [mspastry] [off]`

use std::time::Duration;

use treecast_integration::rings::Rings;
use treecast_integration::world::{Case, Config as WorldConfig, Crash, Fidelity};
use treecast_overlay::config::Config;
use treecast_overlay::kbr::Bootstrap;

const SECOND: Duration = Duration::from_secs(1);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).expect("NODES SEEDS");
    let has = |word: &str| words.iter().any(|other| other == word);
    let config = if has("mspastry") { Config::mspastry() } else { Config::default() };
    let full_membership = if has("off") { 0 } else { config.full_membership };
    for seed in 1..=number(1) {
        run(seed, number(0) as usize, Config { full_membership, ..config.clone() });
    }
}

/// Hops in the mean, and the most.
fn hops(rings: &mut Rings) -> f64 {
    let before = (rings.watch.lookups.hops, rings.watch.lookups.found);
    rings.look_up_somewhere(100);
    rings.look_up_somewhere(100);
    rings.run(SECOND * 5);
    let after = (rings.watch.lookups.hops, rings.watch.lookups.found);
    (after.0 - before.0) as f64 / (after.1 - before.1) as f64
}

fn run(seed: u64, nodes: usize, config: Config) {
    let case = Case::of_command("members", seed);
    let network =
        WorldConfig { fidelity: Fidelity::Values, spurious_timeouts: 0.0, ..WorldConfig::default() };
    let mut rings = Rings::new(case, network, config);
    rings.period = SECOND;
    rings.add(Bootstrap::default());
    rings.run(SECOND);
    while rings.world.slots() < nodes {
        let count = (rings.world.slots() / 10).clamp(1, nodes - rings.world.slots());
        for near in rings.some_ready(count) {
            rings.add(Rings::through(&[near]));
        }
        rings.run(SECOND);
    }
    rings.run(SECOND * 5);
    let mut line = format!("seed {seed}: {nodes} nodes; hops");
    for wait in [0, 30, 30, 60, 120] {
        rings.run(SECOND * wait);
        line += &format!(" {:.2}", hops(&mut rings));
    }
    let before = rings.world.counters().total();
    rings.run(SECOND * 600);
    let after = rings.world.counters().total();
    let share = 600.0 * nodes as f64;
    let memory = rings.nodes().map(|node| node.memory().total()).max().unwrap_or_default();
    line += &format!(
        "; at rest {:.3} frames and {:.0} bytes a second and node; {memory} bytes at most",
        (after.sent - before.sent) as f64 / share,
        (after.bytes - before.bytes) as f64 / share,
    );
    for slot in rings.some_ready(nodes / 10) {
        rings.crash(slot, Crash::Process);
    }
    line += "; after a tenth died";
    for wait in [5, 20, 30, 60, 120] {
        rings.run(SECOND * wait);
        line += &format!(" {:.2}", hops(&mut rings));
    }
    println!("{line}");
}

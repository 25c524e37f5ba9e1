//! Worlds by seed: whatever a seed draws, every promise holds. (`lab swarm --seeds A..B` looks at more of them.)

use treecast_integration::lab::Progress;
use treecast_integration::lab::swarm::{run_seed, run_seeds};

#[test]
fn two_hundred_seeds() {
    let begin = std::time::Instant::now();
    let findings = run_seeds(0, 200, &[], &Progress::hidden());
    let took = begin.elapsed();
    eprintln!("{} seeds, {} steps in {took:?}: {:#?}", findings.seeds, findings.steps, findings.events);
    assert!(findings.faults.is_empty(), "{:#?}", findings.faults);
    assert_eq!(findings.missing(), Vec::<&str>::new(), "what never happened proves nothing");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let [one, same, other] = [4, 4, 5].map(|seed| run_seed(seed, &[]).trace_hash);
    assert_eq!(one, same);
    assert_ne!(one, other);
}

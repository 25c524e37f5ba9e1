//! The oracle of refactoring: a trace hash covers every frame's bytes, time and order, so a change that means to change
//! nothing leaves all of these as they are. A change of behaviour or of the wire renews them, in a commit of its own that
//! says so:
//!
//! ```text
//! RENEW_GOLDEN=1 cargo test -p treecast-integration --test golden
//! ```
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use treecast_integration::lab::swarm::run_seed;
use treecast_integration::lab::{Progress, scenario};

/// Small worlds, with every kind of fault.
const SEEDS: [std::ops::Range<u64>; 2] = [0..20, 771_000..771_020];

/// Small runs of the laboratory's command, one for each way that it uses the cores.
const RUNS: [&str; 5] = [
    "routing --nodes 150 --lookups 500 --settle 10 --seed 3 --full-membership 0 --fail 10",
    "routing --nodes 60 --lookups 300 --settle 10 --seed 4 --profile mspastry --topology plane",
    "multicast --nodes 120 --settle 10 --seed 5",
    "broadcast --setting m9 --messages 60 --settle 5 --rest 5 --seed 6",
    "churn --nodes 40 --session-median 5 --loss 5 --lookups 60 --warm 20 --settle 5 --seed 7",
];

fn manifest() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden_file() -> PathBuf {
    manifest().join("tests/golden.json")
}

/// Compares a part of the file with what came out now, or writes it there.
fn compare(part: &str, now: BTreeMap<String, String>) {
    let written: String = std::fs::read_to_string(golden_file()).unwrap_or_default();
    let mut all: BTreeMap<String, BTreeMap<String, String>> =
        serde_json::from_str(&written).unwrap_or_default();
    if std::env::var_os("RENEW_GOLDEN").is_some() {
        all.insert(part.to_string(), now);
        return std::fs::write(golden_file(), serde_json::to_string_pretty(&all).unwrap()).unwrap();
    }
    let golden = all.remove(part).unwrap_or_default();
    let runs = golden.keys().chain(now.keys()).collect::<std::collections::BTreeSet<_>>();
    let differ: Vec<_> = runs.into_iter().filter(|run| golden.get(*run) != now.get(*run)).collect();
    assert!(
        differ.is_empty(),
        "{} of {} runs take another course than before: {differ:#?}\nIf that was meant, renew them: \
         RENEW_GOLDEN=1 cargo test -p treecast-integration --test golden",
        differ.len(),
        now.len()
    );
}

/// One test, because renewing writes one file.
#[test]
fn every_run_takes_the_course_that_it_took() {
    compare("swarm", swarm());
    compare("lab", RUNS.iter().map(|run| (run.to_string(), lab(run))).collect());
    compare("scenario", scenarios());
}

fn swarm() -> BTreeMap<String, String> {
    let seeds: Vec<u64> = SEEDS.into_iter().flatten().collect();
    let run = |seed: u64| (format!("{seed}"), run_seed(seed, &[]).trace_hash);
    std::thread::scope(|scope| {
        let halves = seeds.chunks(seeds.len().div_ceil(2));
        let halves: Vec<_> = halves
            .map(|half| scope.spawn(move || half.iter().map(|&seed| run(seed)).collect::<Vec<_>>()))
            .collect();
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    })
}

fn lab(run: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    let output = command.args(run.split_whitespace()).arg("--json").output().unwrap();
    hash_of(String::from_utf8(output.stdout).unwrap().lines().last().unwrap_or_default())
}

fn scenarios() -> BTreeMap<String, String> {
    let files = std::fs::read_dir(manifest().join("scenarios")).unwrap().map(|entry| entry.unwrap().path());
    let play = |file: PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap().to_string();
        let text = std::fs::read_to_string(&file).unwrap();
        let report = scenario::play(Path::new(&name), &text, &Progress::hidden()).unwrap();
        (name, hash_of(&report.json))
    };
    files.map(play).collect()
}

fn hash_of(object: &str) -> String {
    let figures: Value = serde_json::from_str(object).unwrap_or_else(|why| panic!("{why}: {object}"));
    figures["trace_hash"].as_str().unwrap().to_string()
}

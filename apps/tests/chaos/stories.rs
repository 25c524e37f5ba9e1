//! Short runs, and stories of one death each.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::options::Options;
use crate::run::chaos;
use crate::support::observers::{Verdict, judge_one_log};
use crate::town::{Plan, Town, Who};

pub(crate) const STORIES: [(&str, fn()); 5] = [
    ("nothing_acknowledged_is_lost_while_processes_die_and_sleep", gentle),
    ("what_is_lost_is_announced_when_many_die_at_once", brutal),
    ("the_root_dies_while_publishers_go_on", root_dies),
    ("of_two_nodes_one_dies_and_nobody_hears_of_a_gap", one_of_two_dies),
    ("a_root_that_sleeps_beyond_its_leases_loses_nothing_and_doubles_nothing", root_sleeps),
];

/// Twice the default profile's lease.
const SLEEP: Duration = Duration::from_secs(8);

fn gentle() {
    let (done, verdict) = chaos(&Options::short(1, false), false);
    println!("{done}\n{verdict}");
}

fn brutal() {
    let (done, verdict) = chaos(&Options::short(2, true), false);
    println!("brutal: {done}\n{verdict}");
}

fn town(nodes: usize, aloud: bool, again: &str) -> Town {
    let again = format!("cargo test -p treecast --test chaos -- {again}");
    Town::found(Plan { nodes, publishers: 2, subscribers: 3, rate: 100.0, aloud, logs: None, again })
}

/// So many lines more are published.
fn publishes(town: &mut Town, lines: usize) {
    let wanted = town.published() + lines;
    town.until("lines are published", |town| town.published() >= wanted);
}

/// All was printed once, in one order, without a gap.
fn end(mut town: Town, what: &str) {
    town.finish();
    let verdict = town.judge(judge_one_log, Verdict::is_broken_or_has_gaps);
    println!("{what}: {verdict}");
}

fn root_dies() {
    let mut town = town(5, false, "the_root_dies");
    publishes(&mut town, 200);
    let root = town.root();
    town.kill(Who::Node(root), " (root)", None);
    let full = town.until_full("after the root's death");
    publishes(&mut town, 200);
    end(town, &format!("the root died, and the log was full {full:.1?} later"));
}

fn one_of_two_dies() {
    // Once the root, and once the other one.
    for (dies, role) in [(0, " (root)"), (1, "")] {
        let mut town = town(2, false, "of_two_nodes");
        publishes(&mut town, 100);
        let root = town.root();
        town.kill(Who::Node((root + dies) % 2), role, None);
        let full = town.until_full("after a death");
        publishes(&mut town, 100);
        end(town, &format!("one of two{role} died, and the other one served {full:.1?} later"));
    }
}

fn root_sleeps() {
    sleeping_root(SLEEP, false);
}

/// From the command line.
pub(crate) fn stop_root_for(sleep: Duration) -> ExitCode {
    sleeping_root(sleep, true);
    ExitCode::SUCCESS
}

/// It is replaced meanwhile. When it wakes, what its clients and neighbours sent is still in its sockets: it must answer none
/// of it as the root that it was.
fn sleeping_root(sleep: Duration, aloud: bool) {
    let mut town = town(5, aloud, &format!("--stop-root {}", sleep.as_secs()));
    publishes(&mut town, 200);
    let root = town.root();
    town.pause(Who::Node(root), " (root)", None);
    let begun = Instant::now();
    let full = town.until_full("while the root sleeps");
    town.tell(&format!("the log is full, {full:.1?} later"));
    town.go_on_for(sleep.saturating_sub(begun.elapsed()));
    town.wake(Who::Node(root));
    let woken = Instant::now();
    town.until("receipts for all after the root woke", |town| town.serves_all_since(woken));
    publishes(&mut town, 200);
    end(
        town,
        &format!("the root slept for {sleep:?}, and was replaced in full {full:.1?} after it was stopped"),
    );
}

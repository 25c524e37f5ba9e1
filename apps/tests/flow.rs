//! Several publish as fast as they can, and several read: every reader gets every message once, in the order of its
//! publisher, without a gap. `cargo test --release -p treecast --test flow` publishes
//! 5,000 lines each, `FLOW_LINES` says otherwise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::thread;

use support::{Line, Process, payloads, ring, subscriber, talk, treecast};

/// Lines that each publisher publishes. Fewer without optimisation, which is some ten times slower.
fn lines() -> usize {
    let usual = if cfg!(debug_assertions) { 1500 } else { 5000 };
    std::env::var("FLOW_LINES").map_or(usual, |lines| lines.parse().unwrap())
}

/// Publishes `NAME 0` and so on, all at once.
fn publish(name: String, through: &str, lines: usize) -> thread::JoinHandle<(bool, Vec<Line>)> {
    let args = ["pub", "demo", "-l", "--ephemeral", "--join", through];
    let mut process = Process::start(&name, treecast(&args));
    thread::spawn(move || {
        for number in 0..lines {
            process.type_line(&format!("{name} {number}"));
        }
        process.close_stdin();
        let (status, said) = process.wait();
        (status.success(), said)
    })
}

fn all_get_all(publishers: usize, subscribers: usize) {
    let (nodes, lines) = (ring(1), lines());
    let through = &nodes[0].addr;
    let total = (publishers * lines).to_string();
    let readers: Vec<Process> = (0..subscribers)
        .map(|number| subscriber(&format!("reader {number}"), "demo", through, &["-C", &total]))
        .collect();
    let writers: Vec<_> = (0..publishers).map(|n| publish(format!("writer {n}"), through, lines)).collect();
    // All at once: a reader whose test does not read its output is a slow one.
    let readers: Vec<_> =
        readers.into_iter().map(|mut reader| thread::spawn(move || reader.wait())).collect();
    for writer in writers {
        let (success, said) = writer.join().unwrap();
        assert!(success, "{}", talk(&said));
    }
    for reader in readers {
        let (status, said) = reader.join().unwrap();
        assert!(status.success(), "{}", talk(&said));
        let gap = said.iter().find(|line| matches!(line, Line::Out(text) if text.contains("\"gap\"")));
        assert_eq!(gap, None);
        let mut next: BTreeMap<String, usize> = BTreeMap::new();
        for payload in payloads(&said) {
            let (writer, number) = payload.rsplit_once(' ').unwrap();
            let next = next.entry(writer.to_string()).or_default();
            assert_eq!(number, next.to_string(), "of {writer}");
            *next += 1;
        }
        assert_eq!(next.len(), publishers);
        assert!(next.values().all(|&count| count == lines), "{next:?}");
    }
}

#[test]
fn two_publishers_overrun_no_reader() {
    all_get_all(2, 1);
    all_get_all(2, 3);
}

#[test]
fn four_publishers_overrun_no_reader() {
    all_get_all(4, 1);
    all_get_all(4, 3);
}

#[test]
fn eight_publishers_overrun_no_reader() {
    all_get_all(8, 1);
    all_get_all(8, 3);
}

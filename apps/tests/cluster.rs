//! Many processes on one machine: order, completeness, and the death of roots and forwarders.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;
use support::{Line, Process, payloads, ring, root_of, subscriber, treecast};

#[test]
fn twelve_processes_a_hundred_lines_once_each_in_order() {
    let nodes = ring(8);
    let mut subs: Vec<Process> =
        (0..3).map(|i| subscriber(&format!("sub {i}"), "demo", &nodes[i * 3].addr, &["-C", "100"])).collect();
    let mut publisher = Process::start(
        "pub",
        treecast(&["pub", "demo", "-l", "--json", "--ephemeral", "--join", &nodes[4].addr]),
    );
    let lines: Vec<String> = (1..=100).map(|i| format!("line {i}")).collect();
    for line in &lines {
        publisher.type_line(line);
    }
    publisher.close_stdin();
    let (status, receipts) = publisher.wait();
    assert!(status.success(), "{receipts:#?}");
    assert_eq!(
        receipts.iter().filter(|line| matches!(line, Line::Out(_))).count(),
        100,
        "a receipt for each"
    );
    for sub in &mut subs {
        let (status, said) = sub.wait();
        assert!(status.success());
        assert_eq!(payloads(&said), lines);
    }
}

#[test]
fn the_root_dies_while_the_publisher_goes_on() {
    let mut nodes = ring(8);
    let root = root_of("demo", &nodes[0].addr);
    let at = nodes.iter().position(|node| node.id == root).expect("a ring node is the root");
    // Everybody hangs on nodes that stay.
    let stays: Vec<String> =
        nodes.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, node)| node.addr.clone()).collect();
    let mut subs: Vec<Process> =
        (0..3).map(|i| subscriber(&format!("sub {i}"), "demo", &stays[i * 2], &[])).collect();
    let mut publisher =
        Process::start("pub", treecast(&["pub", "demo", "-l", "--json", "--ephemeral", "--join", &stays[1]]));

    for i in 0..50 {
        publisher.type_line(&format!("before {i}"));
        publisher.json("a receipt");
    }
    nodes[at].process.kill();
    // Lines go on, whether or not they are received; the first receipt of another root ends the outage.
    let killed = std::time::Instant::now();
    let mut unknown = Vec::new();
    let mut sent = 0;
    let outage = loop {
        let text = format!("meanwhile {sent}");
        publisher.type_line(&text);
        sent += 1;
        let word = publisher.json("a receipt, or word that there is none");
        if word["event"] != "failed" {
            break killed.elapsed();
        }
        unknown.push(word);
    };
    println!(
        "publishing worked again {outage:?} after the root was killed; {} outcomes unknown",
        unknown.len()
    );
    assert!(
        outage < Duration::from_secs(60),
        "issue 2 asks for 10 s; the time stands above, a test only bounds it"
    );
    for i in 0..50 {
        publisher.type_line(&format!("after {i}"));
        let receipt = publisher.json("a receipt");
        assert!(receipt["offset"].is_u64(), "{receipt}");
    }
    publisher.close_stdin();
    let (status, _) = publisher.wait();
    assert_eq!(status.success(), unknown.is_empty(), "the exit code says whether any receipt is missing");

    for sub in &mut subs {
        let mut got = Vec::new();
        let mut gaps = 0;
        let last = "after 49".to_string();
        while got.last() != Some(&last) {
            let word: Value = sub.json("a message or a gap");
            if let Some(text) = word["payload"].as_str() {
                got.push(text.to_string());
            }
            gaps += u32::from(word["event"] == "gap");
        }
        let once: BTreeSet<&String> = got.iter().collect();
        assert_eq!(once.len(), got.len(), "nothing twice");
        for i in 0..50 {
            assert!(once.contains(&format!("before {i}")), "a message received before the death: {i}");
            assert!(once.contains(&format!("after {i}")), "a message of the next root: {i}");
        }
        assert_eq!(gaps, 0, "the other members of the log had all that the dead root had");
    }
}

#[test]
fn five_topics_outlive_a_forwarder_and_a_root() {
    let mut nodes = ring(12);
    let topics = ["news", "rust/news", "weather", "demo", "a/b/c"];
    let roots: Vec<String> = topics.iter().map(|topic| root_of(topic, &nodes[0].addr)).collect();
    // A root, and another node, which forwards for its edge.
    let root = nodes.iter().position(|node| node.id == roots[0]).unwrap();
    let forwarder = (0..12).rev().find(|&i| !roots.contains(&nodes[i].id)).expect("a node that is no root");
    let stays: Vec<String> =
        (0..12).filter(|&i| i != root && i != forwarder).map(|i| nodes[i].addr.clone()).collect();

    let mut subs: Vec<Process> = Vec::new();
    for (i, topic) in topics.iter().enumerate() {
        subs.push(subscriber(&format!("sub {topic}"), topic, &stays[i], &[]));
        subs.push(subscriber(
            &format!("sub {topic} behind the forwarder"),
            topic,
            &nodes[forwarder].addr,
            &[],
        ));
    }
    let publish = |topic: &str, text: &str, through: &str| {
        let args = ["pub", topic, "-m", text, "--json", "--ephemeral", "--join", through];
        let (status, said) = Process::start("pub", treecast(&args)).wait();
        assert!(status.success(), "{topic}: {said:#?}");
    };
    let receive = |subs: &mut Vec<Process>, text: &str| {
        for sub in subs {
            while sub.json(text)["payload"] != text {}
        }
    };
    for topic in topics {
        publish(topic, "all are well", &stays[0]);
    }
    receive(&mut subs, "all are well");

    nodes[forwarder].process.kill();
    for topic in topics {
        publish(topic, "without the forwarder", &stays[1]);
    }
    receive(&mut subs, "without the forwarder");

    nodes[root].process.kill();
    for topic in topics {
        publish(topic, "without the root", &stays[2]);
    }
    receive(&mut subs, "without the root");
}

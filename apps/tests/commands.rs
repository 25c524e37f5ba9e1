//! Exit codes, errors, and what goes to stdout: the command line's promises.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::Instant;

use serde_json::{Value, json};
use support::{Line, PATIENCE, Process, free_ports, ring, root_of, talk, treecast};

fn run(args: &[&str]) -> (Option<i32>, Vec<Line>) {
    let mut command = treecast(args);
    command.env("TREECAST_PORTS", free_ports());
    let mut process = Process::start("command", command);
    process.close_stdin();
    let (status, said) = process.wait();
    (status.code(), said)
}

#[test]
fn wrong_usage_is_2_and_names_the_culprit() {
    for (args, culprit) in [
        (&["pub", "demo", "--join", "nowhere", "-m", "x"][..], "nowhere"),
        (&["pub", "a//b", "-m", "x"][..], "a//b"),
        (&["pub", "demo"][..], "-m"),
        (&["sub"][..], "TOPIC"),
        (&["sub", "demo", "--from", "yesterday"][..], "yesterday"),
        (&["topic", "show", "a//b"][..], "a//b"),
        (&["trace", "xyz"][..], "xyz"),
        (&["frobnicate"][..], "frobnicate"),
    ] {
        let (code, said) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {said:?}");
        assert!(talk(&said).contains(culprit), "{args:?}: {said:?}");
    }
}

#[test]
fn a_ring_that_cannot_be_reached_is_1_and_named() {
    // A port that was free a moment ago: nobody listens there.
    let port = free_ports().split('-').next().unwrap().to_string();
    let addr = format!("127.0.0.1:{port}");
    let (code, said) = run(&["pub", "demo", "-m", "x", "--ephemeral", "--join", &addr]);
    assert_eq!(code, Some(1));
    assert!(talk(&said).contains(&addr), "{said:?}");
}

#[test]
fn another_network_is_refused_by_name() {
    let nodes = ring(1);
    let args = ["pub", "demo", "-m", "x", "--ephemeral", "--network", "other", "--join", &nodes[0].addr];
    let (code, said) = run(&args);
    assert_eq!(code, Some(1));
    assert!(talk(&said).contains("network `main`"), "{said:?}");
}

#[test]
fn sub_is_3_when_its_time_is_up() {
    let (code, said) = run(&["sub", "demo", "-C", "1", "-W", "1", "--ephemeral"]);
    assert_eq!(code, Some(3), "{said:?}");
}

#[test]
fn an_empty_topic_has_no_listeners_and_each_message_its_fields() {
    let nodes = ring(2);
    let join = ["--json", "--ephemeral", "--join", &nodes[0].addr];
    let publish = |text: &str| {
        let mut publisher = Process::start("pub", treecast(&[&["pub", "t", "-m", text][..], &join].concat()));
        let receipt = publisher.json("a receipt");
        assert!(publisher.wait().0.success());
        receipt
    };
    let receipt = publish("nobody listens");
    // Each of the two nodes holds a copy; that makes neither of them a listener.
    assert_eq!(
        (&receipt["listeners"], &receipt["copies"], &receipt["seq"]),
        (&0.into(), &2.into(), &1.into())
    );

    let mut sub = Process::start("sub", treecast(&[&["sub", "t", "-C", "1"][..], &join].concat()));
    sub.event("subscribed");
    let receipt = publish("somebody does");
    assert_eq!(receipt["listeners"], 1);
    let message = sub.json("the message");
    for field in ["topic", "session", "seq", "birth", "offset"] {
        assert_eq!(message[field], receipt[field], "{field}");
    }
    assert_eq!(message["payload"], "somebody does");
    assert!(message["publisher"].is_string() && message["mark"].is_string(), "{message}");
    assert_eq!(sub.wait().0.code(), Some(0));
}

#[test]
fn a_trace_ends_at_the_root() {
    let nodes = ring(3);
    let key = &nodes[2].id;
    let mut trace =
        Process::start("trace", treecast(&["trace", key, "--json", "--ephemeral", "--join", &nodes[0].addr]));
    let path = trace.json("the path");
    let (root, way) = path["hops"].as_array().unwrap().split_last().unwrap();
    assert_eq!(root["node"], **key);
    assert!(!way.is_empty() && way.iter().all(|hop| hop["rtt_ms"].is_f64()), "round-trip times in {path}");
    assert!(trace.wait().0.success());
}

#[test]
fn a_topic_shows_its_root_its_members_and_what_is_kept() {
    let nodes = ring(3);
    let join = ["--json", "--ephemeral", "--join", &nodes[0].addr];
    let args = [&["pub", "demo", "-m", "one", "-m", "two"][..], &join].concat();
    let mut publisher = Process::start("pub", treecast(&args));
    let receipts = [publisher.json("a receipt"), publisher.json("a receipt")];
    assert!(publisher.wait().0.success());

    let show = || {
        let mut show = Process::start("topic", treecast(&[&["topic", "show", "demo"][..], &join].concat()));
        let shown = show.json("the topic");
        assert!(show.wait().0.success());
        shown
    };
    // The node that is asked may hear a little later than the publisher that a message is committed.
    let begun = Instant::now();
    let shown = loop {
        let shown = show();
        if shown["end"].as_u64() > receipts[1]["offset"].as_u64() {
            break shown;
        }
        assert!(begun.elapsed() < PATIENCE, "the last message is not shown: {shown}");
    };
    assert_eq!(shown["root"], root_of("demo", &nodes[1].addr));
    assert_eq!(shown["birth"], receipts[0]["birth"]);
    assert_eq!(shown["first"], receipts[0]["offset"], "{shown}");
    let members = shown["members"].as_array().unwrap();
    assert_eq!(members.len(), 3, "{shown}");
    assert!(nodes.iter().all(|node| members.iter().any(|member| *member == node.id)), "{shown}");
    assert_eq!(shown["subscribers"], Value::Null, "only the root knows: {shown}");
}

#[test]
fn a_node_that_is_alone_is_the_root_and_knows_that_nobody_subscribes() {
    let mut command = treecast(&["topic", "show", "demo", "--json", "--ephemeral"]);
    command.env("TREECAST_PORTS", free_ports());
    let mut show = Process::start("topic", command);
    let shown = show.json("the topic");
    assert!(show.wait().0.success());
    assert_eq!((&shown["subscribers"], &shown["members"]), (&0.into(), &json!([shown["root"]])), "{shown}");
    assert_eq!(shown["first"], Value::Null, "no message is kept: {shown}");
}

//! Commands of one machine find each other without being told.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Command;
use std::time::Instant;

use support::{PATIENCE, Process, free_ports, treecast};

/// A chat in line mode, in a test's own range of ports.
fn chat(name: &str, ports: &str, more: &[&str]) -> Process {
    let mut command: Command = treecast(&[&["chat", "--nick", name], more].concat());
    command.env("TREECAST_PORTS", ports);
    Process::start(name, command)
}

/// Each hears what the other says.
fn assert_they_talk(ann: &mut Process, bob: &mut Process) {
    ann.wait_for("that bob is here", |line| line.contains("bob"));
    bob.wait_for("that ann is here", |line| line.contains("ann"));
    ann.type_line("hello from ann");
    assert_eq!(bob.wait_for("ann's line", |line| line.contains("hello")), "<ann> hello from ann");
    bob.type_line("hello from bob");
    assert_eq!(ann.wait_for("bob's line", |line| line.contains("from bob")), "<bob> hello from bob");
}

#[test]
fn the_second_meets_the_first() {
    let ports = free_ports();
    let mut ann = chat("ann", &ports, &["--ephemeral"]);
    ann.wait_for_talk("that it is in the room", |line| line.contains("lobby"));
    let mut bob = chat("bob", &ports, &["--ephemeral"]);
    assert_they_talk(&mut ann, &mut bob);
    for mut chat in [ann, bob] {
        chat.close_stdin();
        assert!(chat.wait().0.success());
    }
}

#[test]
fn two_that_start_in_the_same_instant_meet() {
    let ports = free_ports();
    let mut ann = chat("ann", &ports, &["--ephemeral"]);
    let mut bob = chat("bob", &ports, &["--ephemeral"]);
    assert_they_talk(&mut ann, &mut bob);
}

#[test]
fn two_with_one_data_directory_are_two_nodes() {
    let ports = free_ports();
    let dir = tempfile::tempdir().unwrap();
    let data = ["--data-dir", dir.path().to_str().unwrap()];
    let mut ann = chat("ann", &ports, &data);
    let mut bob = chat("bob", &ports, &data);
    assert_they_talk(&mut ann, &mut bob);
    let mut identities: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("node"))
        .collect();
    identities.sort();
    assert_eq!(identities, ["node", "node-2"]);
}

#[test]
fn a_third_meets_the_second_after_the_first_has_quit() {
    let ports = free_ports();
    let mut first = chat("first", &ports, &["--ephemeral"]);
    first.wait_for_talk("that it is in the room", |line| line.contains("lobby"));
    let mut ann = chat("ann", &ports, &["--ephemeral"]);
    ann.wait_for("that first is here", |line| line.contains("first"));
    first.type_line("/quit");
    assert!(first.wait().0.success());
    let mut bob = chat("bob", &ports, &["--ephemeral"]);
    assert_they_talk(&mut ann, &mut bob);
}

#[test]
fn a_subscriber_whose_ring_has_gone_becomes_one() {
    let ports = free_ports();
    let run = |name: &str, args: &[&str]| {
        let mut command = treecast(args);
        command.env("TREECAST_PORTS", &ports);
        Process::start(name, command)
    };
    let mut node = run("node", &["node", "--json", "--ephemeral"]);
    node.event("ready");
    let mut sub = run("sub", &["sub", "demo", "--json", "--ephemeral"]);
    sub.event("subscribed");
    node.kill();
    // Nobody is left but the subscriber: what is published then is received because it is a ring by itself.
    let begun = Instant::now();
    let heard = |sub: &mut Process, text: &str| while sub.json(text)["payload"] != text {};
    let published = (0..).take_while(|_| begun.elapsed() < PATIENCE).any(|_| {
        let mut publisher = run("pub", &["pub", "demo", "-m", "to the last one", "--json", "--ephemeral"]);
        let (status, said) = publisher.wait();
        let listeners = said.iter().any(|line| match line {
            support::Line::Out(text) => text.contains("\"listeners\":1"),
            support::Line::Err(_) => false,
        });
        status.success() && listeners
    });
    assert!(published, "no publisher ever found the subscriber");
    heard(&mut sub, "to the last one");
}

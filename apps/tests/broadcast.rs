//! A word to every node that is there: ring nodes and edges hear it, once each, and a sender that reaches nobody is told so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{Line, Process, free_ports, ring, talk, treecast};

/// Broadcasts through a node, and waits for the end.
fn broadcast(args: &[&str], through: &str) -> (Option<i32>, Vec<Line>) {
    let args = [&["broadcast", "--ephemeral", "--join", through], args].concat();
    let mut process = Process::start("broadcast", treecast(&args));
    process.close_stdin();
    let (status, said) = process.wait();
    (status.code(), said)
}

#[test]
fn every_node_and_every_edge_hears_it_once() {
    let mut nodes = ring(4);
    let args = ["sub", "--broadcasts", "-C", "3", "--json", "--ephemeral", "--join", &nodes[2].addr];
    let mut edge = Process::start("sub", treecast(&args));
    edge.event("listening");

    let args = ["broadcast", "-l", "-m", "one", "--json", "--ephemeral", "--join", &nodes[1].addr];
    let mut sender = Process::start("broadcast", treecast(&args));
    let sent = sender.event("sent");
    assert_eq!(sent["bytes"], 3);
    sender.type_line("two");
    sender.close_stdin();
    sender.event("sent");
    assert!(sender.wait().0.success());
    let (code, said) = broadcast(&["-m", "last"], &nodes[3].addr);
    assert_eq!(code, Some(0), "{said:?}");
    assert!(talk(&said).contains("broadcast 1 message in network `main`"), "{said:?}");

    // Broadcasts of one sender may overtake each other; the last one began when the others had left their sender only.
    let mut listeners: Vec<&mut Process> = nodes.iter_mut().map(|node| &mut node.process).collect();
    listeners.push(&mut edge);
    for listener in listeners {
        let mut heard: Vec<String> = Vec::new();
        while heard.len() < 3 {
            let word = listener.event("broadcast");
            assert_eq!(word["missed"], 0, "{word}");
            let text = word["payload"].as_str().unwrap().to_string();
            assert_eq!(word["origin"] == sent["origin"], text != "last", "{word}");
            heard.push(text);
        }
        heard.sort_unstable();
        assert_eq!(heard, ["last", "one", "two"]);
    }
    assert_eq!(edge.wait().0.code(), Some(0));
}

#[test]
fn a_person_at_a_node_reads_who_says_what_and_nothing_acts_on_the_terminal() {
    let nodes = ring(1);
    let args = ["node", "--ephemeral", "--listen", "127.0.0.1:0", "--join", &nodes[0].addr];
    let mut node = Process::start("node", treecast(&args));
    node.wait_for_talk("that it is ready", |line| line.contains("ready on"));
    assert_eq!(broadcast(&["-m", "red:\x1b[31m"], &nodes[0].addr).0, Some(0));
    let line = node.wait_for_talk("the broadcast", |line| line.starts_with("broadcast from "));
    assert!(line.ends_with("[31m") && !line.contains('\x1b'), "{line:?}");
}

#[test]
fn what_is_too_large_is_refused_with_its_size_and_the_limit() {
    let nodes = ring(1);
    let (code, said) = broadcast(&["-m", &"x".repeat(65_537)], &nodes[0].addr);
    assert_eq!(code, Some(1));
    assert!(talk(&said).contains("65537 bytes, at most 65536"), "{said:?}");
}

#[test]
fn a_sender_that_is_alone_is_told_so() {
    let mut command = treecast(&["broadcast", "-m", "hello?", "--ephemeral"]);
    command.env("TREECAST_PORTS", free_ports());
    let (status, said) = Process::start("broadcast", command).wait();
    assert_eq!(status.code(), Some(1));
    assert!(talk(&said).contains("no other node is there to hear it"), "{said:?}");
}

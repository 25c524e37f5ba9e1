//! What was published before one came: `sub --from`, and the chat's last lines.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::Value;
use support::tmux::Tmux;
use support::{Process, RingNode, ring, root_of, subscriber, treecast};

/// Publishes these one after the other; the place of each in the log.
fn publish(through: &str, texts: &[String]) -> Vec<u64> {
    let args = ["pub", "demo", "-l", "--json", "--ephemeral", "--join", through];
    let mut publisher = Process::start("pub", treecast(&args));
    let publish = |text: &String| {
        publisher.type_line(text);
        publisher.json("a receipt")["offset"].as_u64().unwrap()
    };
    let offsets = texts.iter().map(publish).collect();
    publisher.close_stdin();
    assert!(publisher.wait().0.success());
    offsets
}

fn lines(what: &str, n: usize) -> Vec<String> {
    (0..n).map(|i| format!("{what} {i}")).collect()
}

/// A subscriber from a place; it has said that it is subscribed.
fn from(start: &str, through: &str) -> Process {
    subscriber(&format!("sub --from {start}"), "demo", through, &["--from", start])
}

/// The next messages, which must be these, without a gap. The last one's mark.
fn expect(sub: &mut Process, texts: &[String]) -> String {
    let mut mark = String::new();
    for text in texts {
        let message = sub.json(text);
        assert_eq!(message["payload"], **text, "{message}");
        mark = message["mark"].as_str().unwrap().to_string();
    }
    mark
}

/// A ring of three, a subscriber at each, and lines that were published before all others come. A node may hear a little
/// later than a publisher that a message is committed: what a node's subscriber has read, the node knows to be.
fn town() -> (Vec<RingNode>, Vec<Process>, Vec<String>) {
    let nodes = ring(3);
    let mut subs: Vec<Process> =
        nodes.iter().map(|node| subscriber("first sub", "demo", &node.addr, &[])).collect();
    let old = lines("old", 30);
    publish(&nodes[2].addr, &old);
    subs.iter_mut().for_each(|sub| drop(expect(sub, &old)));
    (nodes, subs, old)
}

#[test]
fn history_and_news_come_in_one_order_from_the_place_asked_for() {
    let (nodes, mut first, mut all) = town();
    for (number, node) in nodes.iter().enumerate() {
        // What came since is history to those that come later.
        let mut late = [("latest", 0), ("earliest", all.len()), ("last:7", 7), ("last:1000", all.len())]
            .map(|(start, count)| (from(start, &node.addr), count));
        for (sub, count) in &mut late {
            expect(sub, &all[all.len() - *count..]);
        }
        let new = [format!("new {number}")];
        publish(&node.addr, &new);
        late.iter_mut().map(|(sub, _)| sub).chain(&mut first).for_each(|sub| drop(expect(sub, &new)));
        all.extend(new);
    }
}

#[test]
fn who_goes_on_from_a_mark_misses_nothing_and_hears_nothing_twice() {
    let (nodes, _first, old) = town();
    let mut sub = from("earliest", &nodes[0].addr);
    let mark = expect(&mut sub, &old[..12]);
    sub.kill();
    let meanwhile = lines("meanwhile", 8);
    publish(&nodes[1].addr, &meanwhile);
    // Also by way of another node than before.
    for node in &nodes {
        let mut sub = from(&mark, &node.addr);
        expect(&mut sub, &[&old[12..], &meanwhile[..]].concat());
    }
    // The mark at which a subscription begins is as good as one of a message.
    let args = ["sub", "demo", "--json", "--ephemeral", "--join", &nodes[2].addr];
    let mut latest = Process::start("sub", treecast(&args));
    let mark = latest.event("subscribed")["mark"].as_str().unwrap().to_string();
    latest.kill();
    let after = lines("after", 3);
    publish(&nodes[0].addr, &after);
    expect(&mut from(&mark, &nodes[1].addr), &after);
}

#[test]
fn history_outlives_the_root() {
    let (mut nodes, _first, old) = town();
    let mut sub = from("earliest", &nodes[0].addr);
    let mark = expect(&mut sub, &old[..5]);
    drop(sub);
    let root = root_of("demo", &nodes[0].addr);
    let at = nodes.iter().position(|node| node.id == root).unwrap();
    nodes.remove(at).process.kill();
    let new = lines("new", 3);
    publish(&nodes[0].addr, &new);
    for node in &nodes {
        expect(&mut from(&mark, &node.addr), &[&old[5..], &new[..]].concat());
        expect(&mut from("last:5", &node.addr), &[&old[28..], &new[..]].concat());
    }
}

#[test]
fn a_mark_of_another_log_is_answered_by_a_gap_that_says_so_and_then_by_what_is_kept() {
    let (nodes, _first, old) = town();
    let mut sub = from("3.00000000000000ab.7", &nodes[1].addr);
    let gap: Value = sub.json("the gap");
    assert_eq!((&gap["event"], &gap["reason"]), (&"gap".into(), &"other_log".into()), "{gap}");
    assert_eq!(gap["after"]["offset"], 6, "{gap}");
    expect(&mut sub, &old);
}

/// A chat in line mode; it is in the room.
fn chat(nick: &str, through: &str, more: &[&str]) -> Process {
    let args = [&["chat", "--nick", nick, "--listen", "127.0.0.1:0", "--join", through], more].concat();
    let mut chat = Process::start(nick, treecast(&args));
    chat.wait_for_talk("that it is in the room", |line| line.contains("you joined #lobby"));
    chat
}

/// Says this, and leaves when it has a receipt.
fn says_and_goes(mut chat: Process, text: &str) {
    chat.type_line(text);
    chat.close_stdin();
    assert!(chat.wait().0.success());
}

#[test]
fn a_chat_begins_with_what_was_said_before_also_by_oneself() {
    let nodes = ring(3);
    let through = &nodes[0].addr;
    let home = tempfile::tempdir().unwrap();
    let kept = ["--data-dir", home.path().to_str().unwrap()];
    says_and_goes(chat("ann", through, &kept), "anybody here?");
    let mut bob = chat("bob", &nodes[1].addr, &["--ephemeral"]);
    assert_eq!(bob.wait_for("ann's line", |line| line.contains("anybody")), "earlier: <ann> anybody here?");
    says_and_goes(bob, "I am, now");
    // The same node again, under another nick.
    let mut anna = chat("anna", through, &kept);
    for line in ["earlier: <ann> anybody here?", "earlier: <bob> I am, now"] {
        assert_eq!(anna.wait_for(line, |line| !line.starts_with("* ")), line);
    }
    anna.type_line("too late");
    assert_eq!(anna.wait_for("the own line", |line| !line.starts_with("* ")), "<anna> too late");

    let Some(tmux) = Tmux::start("history") else { return };
    let treecast = env!("CARGO_BIN_EXE_treecast");
    tmux.open(
        "eve",
        &format!("{treecast} chat --nick eve --ephemeral --listen 127.0.0.1:0 --join {through}"),
    );
    let screen = tmux.wait_for("eve", "── now ──");
    let row = |text: &str| {
        let found = screen.lines().position(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("no {text:?} in:\n{screen}"))
    };
    let rows = [
        "── earlier ──",
        "      ann: anybody here?",
        "      bob: I am, now",
        "      anna: too late",
        "── now ──",
    ];
    assert!(rows.map(row).is_sorted(), "{screen}");
}

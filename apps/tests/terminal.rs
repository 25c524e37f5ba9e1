//! The chat on a real terminal: typed into and read as a person would.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Command;

use support::free_ports;
use support::tmux::Tmux;

/// A chat on a terminal; then its exit code, and how the terminal is.
fn chat(tmux: &Tmux, nick: &str, ports: &str) {
    let treecast = env!("CARGO_BIN_EXE_treecast");
    let command = format!(
        "TREECAST_PORTS={ports} {treecast} chat --nick {nick} --ephemeral; echo the chat ended with $?; stty -a"
    );
    tmux.open(nick, &command);
}

/// The chat's process, a child of the terminal's shell.
fn pid(tmux: &Tmux, nick: &str) -> u32 {
    let shell: u32 = tmux
        .run(&["display-message", "-p", "-t", &format!("={nick}:"), "#{pane_pid}"])
        .trim()
        .parse()
        .unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent = format!("PPid:\t{shell}\n");
    let is_child = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| status.contains(&parent))
    };
    pids.find(is_child).expect("the shell's child")
}

#[test]
fn two_people_chat_on_their_screens() {
    let Some(tmux) = Tmux::start("talk") else { return };
    let ports = free_ports();
    chat(&tmux, "ann", &ports);
    chat(&tmux, "bob", &ports);
    tmux.wait_for("ann", "bob");
    tmux.wait_for("bob", "ann");
    tmux.type_line("ann", "grüße, 世界");
    tmux.wait_for("bob", "grüße, 世界");
    tmux.type_line("bob", "/me waves");
    tmux.wait_for("ann", "bob waves");
    // A small window harms nobody.
    tmux.run(&["resize-window", "-t", "=ann:", "-x", "7", "-y", "3"]);
    tmux.run(&["resize-window", "-t", "=ann:", "-x", "90", "-y", "30"]);
    tmux.wait_for("ann", "bob waves");
    tmux.type_line("ann", "/quit");
    tmux.wait_for("ann", "the chat ended with 0");
    tmux.wait_for("ann", "iexten");
    tmux.expect_restored("ann");
}

#[test]
fn a_chat_that_is_told_to_go_leaves_the_terminal_as_it_was() {
    let Some(tmux) = Tmux::start("term") else { return };
    chat(&tmux, "ann", &free_ports());
    tmux.wait_for("ann", "you joined");
    let killed = Command::new("sh").args(["-c", &format!("kill -TERM {}", pid(&tmux, "ann"))]).status();
    assert!(killed.unwrap().success(), "the chat runs");
    tmux.wait_for("ann", "the chat ended with 0");
    tmux.wait_for("ann", "iexten");
    tmux.expect_restored("ann");
}

//! The chat on a real terminal: two of them in tmux, typed into and read as a person would.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::{Command, Stdio};
use std::time::Instant;

use support::{PATIENCE, free_ports};

/// A tmux server of this test's own.
struct Tmux {
    socket: String,
}

impl Tmux {
    /// `None`, with a clear word, where tmux is missing (`.ci/run` installs it).
    fn start() -> Option<Tmux> {
        let found = Command::new("tmux").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            println!("SKIPPED: tmux is not installed, so the chat's screen was not tested");
            return None;
        }
        Some(Tmux { socket: format!("treecast-test-{}", std::process::id()) })
    }

    fn run(&self, args: &[&str]) -> String {
        let output =
            Command::new("tmux").args(["-L", &self.socket, "-f", "/dev/null"]).args(args).output().unwrap();
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn chat(&self, nick: &str, ports: &str) {
        let command = format!(
            "TREECAST_PORTS={ports} {} chat --nick {nick} --ephemeral; echo the chat ended with $?; cat",
            env!("CARGO_BIN_EXE_treecast")
        );
        self.run(&["new-session", "-d", "-s", nick, "-x", "80", "-y", "24", &command]);
    }

    fn screen(&self, session: &str) -> String {
        self.run(&["capture-pane", "-p", "-t", session])
    }

    fn wait_for(&self, session: &str, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen(session);
            if screen.contains(text) {
                return screen;
            }
            assert!(Instant::now() < deadline, "`{text}` never showed on {session}'s screen:\n{screen}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).stderr(Stdio::null()).status();
    }
}

#[test]
fn two_people_chat_on_their_screens() {
    let Some(tmux) = Tmux::start() else { return };
    let ports = free_ports();
    tmux.chat("ann", &ports);
    tmux.chat("bob", &ports);
    tmux.wait_for("ann", "bob");
    tmux.wait_for("bob", "ann");
    tmux.run(&["send-keys", "-t", "ann", "-l", "grüße, 世界"]);
    tmux.run(&["send-keys", "-t", "ann", "Enter"]);
    tmux.wait_for("bob", "grüße, 世界");
    tmux.run(&["send-keys", "-t", "bob", "-l", "/me waves"]);
    tmux.run(&["send-keys", "-t", "bob", "Enter"]);
    tmux.wait_for("ann", "bob waves");
    // A small window harms nobody.
    tmux.run(&["resize-window", "-t", "ann", "-x", "7", "-y", "3"]);
    tmux.run(&["resize-window", "-t", "ann", "-x", "90", "-y", "30"]);
    tmux.wait_for("ann", "bob waves");
    tmux.run(&["send-keys", "-t", "ann", "-l", "/quit"]);
    tmux.run(&["send-keys", "-t", "ann", "Enter"]);
    tmux.wait_for("ann", "the chat ended with 0");
}

//! A terminal for tests: a tmux server, typed into and read as a person would.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part of this; a test fails by panicking"
)]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long any single thing may take before the test fails. Generous: these machines are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A tmux server of one test's own.
pub struct Tmux {
    socket: String,
}

impl Tmux {
    /// `None`, with a clear word, where tmux is missing (`.ci/run` installs it).
    pub fn start(test: &str) -> Option<Tmux> {
        let found = Command::new("tmux").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            println!("SKIPPED: tmux is not installed, so the chat's screen was not tested");
            return None;
        }
        Some(Tmux { socket: format!("treecast-{test}-{}", std::process::id()) })
    }

    /// A tmux command; gives back its output.
    pub fn run(&self, args: &[&str]) -> String {
        let output =
            Command::new("tmux").args(["-L", &self.socket, "-f", "/dev/null"]).args(args).output().unwrap();
        assert!(output.status.success(), "tmux {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a shell command on a terminal of 80 × 24 cells. The terminal stays when it has ended.
    pub fn open(&self, session: &str, command: &str) {
        self.run(&["new-session", "-d", "-s", session, "-x", "80", "-y", "24", &format!("{command}; cat")]);
    }

    /// Types a line.
    pub fn type_line(&self, session: &str, line: &str) {
        self.run(&["send-keys", "-t", &pane(session), "-l", line]);
        self.run(&["send-keys", "-t", &pane(session), "Enter"]);
    }

    /// What is to be seen.
    pub fn screen(&self, session: &str) -> String {
        self.run(&["capture-pane", "-p", "-t", &pane(session)])
    }

    /// Waits until it is to be seen.
    pub fn wait_for(&self, session: &str, text: &str) -> String {
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

    /// Asserts that the terminal is as a shell wants it: no alternate screen, a cursor, and, by the words of
    /// `stty -a` on the screen, lines and echo.
    pub fn expect_restored(&self, session: &str) {
        let flags = "#{alternate_on} #{cursor_flag}";
        let state = self.run(&["display-message", "-p", "-t", &pane(session), flags]);
        assert_eq!(state.trim_end(), "0 1", "alternate screen, cursor");
        let screen = self.screen(session);
        let settings: Vec<&str> = screen.split_whitespace().collect();
        for setting in ["icanon", "echo", "isig"] {
            assert!(settings.contains(&setting), "no {setting} in:\n{screen}");
        }
    }
}

/// Exactly this session: tmux takes a bare name for the beginning of any window's, too.
fn pane(session: &str) -> String {
    format!("={session}:")
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-L", &self.socket, "kill-server"]).stderr(Stdio::null()).status();
    }
}

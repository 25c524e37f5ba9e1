//! Real `treecast` processes on 127.0.0.1: started, listened to, and ended with the test.
//!
//! End-to-end tests live in `apps/tests` and not in `integration/tests`: only there does cargo build the binary that they run,
//! and say where it is.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses a part of this; a test fails by panicking"
)]

pub mod observers;
pub mod tmux;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long any single thing may take before the test fails. Generous: these machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of a process's output that a failure shows.
const SHOWN: usize = 200;

/// A running command. Killed when dropped.
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Line>,
    /// The last lines that it said, for failures.
    said: VecDeque<Line>,
}

/// A line of a process's output.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// On stdout.
    Out(String),
    /// On stderr.
    Err(String),
}

/// What was said on stderr.
pub fn talk(said: &[Line]) -> String {
    let text = |line: &Line| match line {
        Line::Err(text) => Some(text.clone()),
        Line::Out(_) => None,
    };
    said.iter().filter_map(text).collect::<Vec<_>>().join("\n")
}

/// A `treecast` command line, with what all tests want set: no discovery outside the test, a data directory only if asked.
pub fn treecast(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_treecast"));
    command.args(args).env_remove("RUST_LOG").env_remove("TREECAST_DATA").env("NO_COLOR", "1");
    command
}

/// Sixteen free ports in a row: a range for `TREECAST_PORTS` that no other test has. (A test binary runs its cases in
/// threads of one process, test binaries run one after the other.)
pub fn free_ports() -> String {
    for _ in 0..1000 {
        let probe = TcpListener::bind("127.0.0.1:0").unwrap();
        let first = probe.local_addr().unwrap().port();
        drop(probe);
        let Some(last) = first.checked_add(15) else { continue };
        let held: Vec<_> =
            (first..=last).map_while(|port| TcpListener::bind(("127.0.0.1", port)).ok()).collect();
        if held.len() == 16 {
            return format!("{first}-{last}");
        }
    }
    panic!("no sixteen free ports in a row");
}

impl Process {
    pub fn start(name: &str, mut command: Command) -> Process {
        command.stderr(Stdio::piped());
        Process::spawn(name, command)
    }

    /// The same; what it says on stderr goes to a file.
    pub fn start_with_log(name: &str, mut command: Command, log: File) -> Process {
        command.stderr(log);
        Process::spawn(name, command)
    }

    fn spawn(name: &str, mut command: Command) -> Process {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let (sender, lines) = channel();
        if let Some(err) = child.stderr.take() {
            read(err, sender.clone(), Line::Err);
        }
        read(child.stdout.take().unwrap(), sender, Line::Out);
        let stdin = child.stdin.take();
        Process { name: name.into(), child, stdin, lines, said: VecDeque::new() }
    }

    /// Writes a line to its stdin.
    pub fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).unwrap_or_else(|error| {
            panic!("{} does not read: {error}", self.name);
        });
    }

    /// Ends its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The next line on stdout that passes, skipping others.
    pub fn wait_for(&mut self, what: &str, passes: impl Fn(&str) -> bool) -> String {
        self.wait_for_line(what, |line| match line {
            Line::Out(text) if passes(text) => Some(text.clone()),
            Line::Out(_) | Line::Err(_) => None,
        })
    }

    /// The next line on stderr that passes, skipping others.
    pub fn wait_for_talk(&mut self, what: &str, passes: impl Fn(&str) -> bool) -> String {
        self.wait_for_line(what, |line| match line {
            Line::Err(text) if passes(text) => Some(text.clone()),
            Line::Out(_) | Line::Err(_) => None,
        })
    }

    fn wait_for_line<T>(&mut self, what: &str, passes: impl Fn(&Line) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{} did not say {what}; it said {:#?}", self.name, self.said)
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("{} ended and did not say {what}; it said {:#?}", self.name, self.said)
                }
            };
            self.remember(&line);
            if let Some(found) = passes(&line) {
                return found;
            }
        }
    }

    /// The next JSON line on stdout.
    pub fn json(&mut self, what: &str) -> Value {
        let line = self.wait_for(what, |_| true);
        self.parse(&line)
    }

    /// The next JSON line on stdout with this `event`.
    pub fn event(&mut self, event: &str) -> Value {
        loop {
            let json = self.json(event);
            if json["event"] == event {
                return json;
            }
        }
    }

    /// Waits for its end, and hears the rest of what it says.
    pub fn wait(&mut self) -> (ExitStatus, Vec<Line>) {
        let deadline = Instant::now() + PATIENCE;
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.remember(&line);
                    rest.push(line);
                }
                Err(RecvTimeoutError::Disconnected) => return (self.child.wait().unwrap(), rest),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{} did not end; it said {:#?}", self.name, self.said)
                }
            }
        }
    }

    /// All that it says until it has been quiet for this long: for output that has no last line to wait for.
    pub fn rest(&mut self, quiet: Duration) -> Vec<Line> {
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(quiet) {
            self.remember(&line);
            rest.push(line);
        }
        rest
    }

    /// The next JSON line on stdout, if one is there.
    pub fn json_now(&mut self) -> Option<Value> {
        while let Ok(line) = self.lines.try_recv() {
            self.remember(&line);
            if let Line::Out(text) = line {
                return Some(self.parse(&text));
            }
        }
        None
    }

    /// All JSON lines that are still to come on stdout from a process that has ended.
    pub fn rest_of_json(&mut self) -> Vec<Value> {
        let (_, rest) = self.wait();
        let json = |line: &Line| match line {
            Line::Out(text) => Some(self.parse(text)),
            Line::Err(_) => None,
        };
        rest.iter().filter_map(json).collect()
    }

    fn parse(&self, line: &str) -> Value {
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{}: `{line}` is no JSON: {error}", self.name))
    }

    fn remember(&mut self, line: &Line) {
        if self.said.len() == SHOWN {
            self.said.pop_front();
        }
        self.said.push_back(line.clone());
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Has it stop or go on, by a signal's name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Its name in failures.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Hands on the lines of an output as they come. What a killed process did not end with a newline is no line.
fn read(output: impl Read + Send + 'static, lines: Sender<Line>, line: fn(String) -> Line) {
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut text = String::new();
        while output.read_line(&mut text).is_ok() && text.ends_with('\n') {
            text.pop();
            if lines.send(line(std::mem::take(&mut text))).is_err() {
                return;
            }
        }
    });
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A ring node, its id and address.
pub struct RingNode {
    pub process: Process,
    pub id: String,
    pub addr: String,
}

/// Nodes that joined through the first one.
pub fn ring(n: usize) -> Vec<RingNode> {
    let mut nodes: Vec<RingNode> = Vec::new();
    for i in 0..n {
        let mut args = vec!["node", "--json", "--ephemeral", "--listen", "127.0.0.1:0"];
        let first = nodes.first().map(|node| node.addr.clone());
        if let Some(first) = &first {
            args.extend(["--join", first]);
        }
        let mut command = treecast(&args);
        if first.is_none() {
            // The first one looks for nobody: its range is its own.
            command.env("TREECAST_PORTS", free_ports());
        }
        let mut process = Process::start(&format!("node {i}"), command);
        let ready = process.event("ready");
        let text = |field: &str| {
            ready[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {ready}")).to_string()
        };
        nodes.push(RingNode { id: text("id"), addr: text("addr"), process });
    }
    nodes
}

/// The id of a topic's root, as `treecast trace` names it.
pub fn root_of(topic: &str, through: &str) -> String {
    let mut trace = Process::start(
        "trace",
        treecast(&["trace", "--topic", topic, "--json", "--ephemeral", "--join", through]),
    );
    let path = trace.json("the path");
    assert!(trace.wait().0.success());
    path["hops"].as_array().unwrap().last().unwrap()["node"].as_str().unwrap().to_string()
}

/// A subscriber that has said that it is attached.
pub fn subscriber(name: &str, topic: &str, through: &str, more: &[&str]) -> Process {
    let args = [&["sub", topic, "--json", "--ephemeral", "--join", through], more].concat();
    let mut process = Process::start(name, treecast(&args));
    assert_eq!(process.event("subscribed")["topic"], topic);
    process
}

/// The payloads of the JSON messages in some lines.
pub fn payloads(lines: &[Line]) -> Vec<String> {
    let text = |line: &Line| match line {
        Line::Out(text) => Some(text.clone()),
        Line::Err(_) => None,
    };
    lines
        .iter()
        .filter_map(text)
        .filter_map(|line| Some(serde_json::from_str::<Value>(&line).ok()?["payload"].as_str()?.to_string()))
        .collect()
}

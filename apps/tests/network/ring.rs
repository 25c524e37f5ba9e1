//! Ring nodes on hosts, and whether they are one ring.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use treecast_scribe::overlay::id::NodeId;
use treecast_scribe::overlay::peer::Seed;
use treecast_scribe::topic::Topic;

use crate::net::Host;
use crate::support::{Line, PATIENCE, Process, treecast};

/// A `treecast node` on its host.
pub(crate) struct Node {
    pub(crate) host: Host,
    pub(crate) id: NodeId,
    process: Process,
    /// Where it keeps its identity and the peers that it remembers; stays when it is killed.
    home: TempDir,
}

impl Node {
    /// The first of a ring, or one that joins through others.
    pub(crate) fn start(host: Host, through: &[Host]) -> Node {
        let home = tempfile::tempdir().unwrap();
        let mut process = launch(host, through, &home);
        let id = ready(&mut process);
        Node { host, id, process, home }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Has it stop or go on, by a signal's name.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Starts it again where it was, and tells it nothing: it must find its ring by what it remembers.
    pub(crate) fn start_again(&mut self) {
        let before = self.incarnation();
        self.process = launch(self.host, &[], &self.home);
        let id = ready(&mut self.process);
        assert_eq!(id, self.id, "who has its identity on disk is the same node again");
        assert!(self.incarnation() > before, "each life has a later incarnation");
    }

    /// Starts it again, and kills it while it writes down its peers; false if it was faster.
    pub(crate) fn kill_while_it_writes(&mut self) -> bool {
        let peers = self.file("peers");
        let written = || fs::metadata(&peers).map(|file| file.ino()).ok();
        let (before, half) = (written(), self.file("peers.new"));
        self.process = launch(self.host, &[], &self.home);
        let begun = Instant::now();
        while !half.exists() && written() == before {
            assert!(begun.elapsed() < PATIENCE, "{:?} does not write down its peers", self.host);
        }
        self.process.kill();
        half.exists()
    }

    /// The peers that it finds on disk when it starts again.
    pub(crate) fn remembered(&self) -> Vec<Seed> {
        let text = fs::read_to_string(self.file("peers")).unwrap();
        assert!(text.ends_with('\n'), "{text:?} is not whole");
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    fn incarnation(&self) -> u64 {
        fs::read_to_string(self.file("incarnation")).unwrap().trim().parse().unwrap()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join("node").join(name)
    }

    /// Asks at this node who answers for a key.
    fn trace(&self, key: NodeId) -> Process {
        let command = on(self.host, &["trace", &key.to_string(), "--json", "--ephemeral"], &[self.host]);
        // While a ring is broken it may wait for long; then it is asked anew.
        let mut limited = Command::new("timeout");
        limited.arg("10").arg(command.get_program()).args(command.get_args());
        Process::start("trace", limited)
    }

    /// The root of a topic, as this node finds it.
    pub(crate) fn root_of(&self, topic: &str) -> NodeId {
        let key = Topic::new(topic).unwrap().id().key();
        let (_, said) = self.trace(NodeId(key.0)).wait();
        root(&said).unwrap_or_else(|| panic!("{:?} finds no root of {topic}: {said:?}", self.host))
    }

    /// How long it takes from this node to another and back, as it says itself.
    pub(crate) fn way_to(&self, other: &Node) -> Duration {
        let path = self.trace(other.id).json("the path");
        Duration::from_secs_f64(path["took_ms"].as_f64().unwrap() / 1000.0)
    }
}

fn launch(host: Host, through: &[Host], home: &TempDir) -> Process {
    let listen = host.addr().to_string();
    let home = home.path().to_str().unwrap();
    let args = ["node", "--json", "-v", "--listen", &listen, "--data-dir", home];
    Process::start(&format!("node on {host:?}"), on(host, &args, through))
}

/// Waits until it is on its ring; returns its id.
fn ready(process: &mut Process) -> NodeId {
    process.event("ready")["id"].as_str().unwrap().parse().unwrap()
}

/// A `treecast` command on a host, joining through nodes on others.
pub(crate) fn on(host: Host, args: &[&str], through: &[Host]) -> Command {
    let through: Vec<String> = through.iter().map(|host| host.addr().to_string()).collect();
    let join = through.iter().flat_map(|addr| ["--join", addr]);
    host.on(&treecast(&args.iter().copied().chain(join).collect::<Vec<_>>()))
}

/// A node on each host; the later ones join through the first.
pub(crate) fn ring(hosts: &[Host]) -> Vec<Node> {
    let start = |(i, &host)| Node::start(host, &hosts[..usize::min(i, 1)]);
    hosts.iter().enumerate().map(start).collect()
}

/// Waits until these nodes are one ring; returns how long that took.
pub(crate) fn wait_for_one_ring(nodes: &[&Node]) -> Duration {
    let begun = Instant::now();
    loop {
        let wrong = strangers(nodes);
        let took = begun.elapsed();
        if wrong.is_empty() {
            return took;
        }
        assert!(took < PATIENCE, "no one ring after {took:?}: {wrong:#?}");
    }
}

/// Each node is asked who answers for its two neighbours' ids: it must be they. What was answered wrongly.
fn strangers(nodes: &[&Node]) -> Vec<String> {
    let mut in_order = nodes.to_vec();
    in_order.sort_by_key(|node| node.id);
    let neighbours = |at: usize| [at + 1, at + in_order.len() - 1].map(|at| in_order[at % in_order.len()]);
    let pairs = in_order.iter().enumerate().flat_map(|(at, node)| neighbours(at).map(|other| (node, other)));
    let asked: Vec<_> = pairs.map(|(node, other)| (node, other, node.trace(other.id))).collect();
    let wrong = |(node, other, mut trace): (&&Node, &Node, Process)| {
        let (_, said) = trace.wait();
        let answers = root(&said);
        let right = answers == Some(other.id);
        (!right).then(|| format!("{:?} finds {answers:?} in place of {:?}: {said:?}", node.host, other.host))
    };
    asked.into_iter().filter_map(wrong).collect()
}

fn root(said: &[Line]) -> Option<NodeId> {
    let path: Value = said.iter().find_map(|line| match line {
        Line::Out(text) => serde_json::from_str(text).ok(),
        Line::Err(_) => None,
    })?;
    path["hops"].as_array()?.last()?["node"].as_str()?.parse().ok()
}

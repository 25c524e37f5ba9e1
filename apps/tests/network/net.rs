//! Hosts on a network, and what goes wrong there. Each host is a network namespace with one address; a bridge joins
//! them, and nftables on that bridge drops frames.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::cable::Cable;

/// A computer of the test's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host(u8);

/// All hosts, and the cable that some of them are behind.
pub(crate) struct Net {
    hosts: Vec<Host>,
    /// Delays while it lives.
    _cable: Option<Cable>,
}

/// Every host's node listens there: nobody else is in its namespace.
const PORT: u16 = 4848;

impl Host {
    pub(crate) fn addr(self) -> SocketAddr {
        ([10, 77, 0, self.0], PORT).into()
    }

    fn name(self) -> String {
        format!("host{}", self.0)
    }

    /// The same command, on this host.
    pub(crate) fn on(self, command: &Command) -> Command {
        let mut there = Command::new("nsenter");
        there.arg(format!("--net=/run/netns/{}", self.name())).arg("--");
        there.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        there
    }
}

impl Net {
    /// So many hosts on one bridge, in the namespaces of this process.
    pub(crate) fn new(hosts: u8) -> Net {
        // The hosts' names are this process's own.
        run("mount -t tmpfs tmpfs /run");
        run("nft add table bridge faults");
        run("nft add chain bridge faults arrivals { type filter hook prerouting priority 0; }");
        let mut net = Net { hosts: Vec::new(), _cable: None };
        add_bridge("near");
        net.add_hosts(hosts, "near");
        net
    }

    /// Besides, so many hosts at the other end of a cable that takes so long in either direction.
    pub(crate) fn with_far_hosts(mut self, hosts: u8, delay: Duration) -> Net {
        add_bridge("far");
        self._cable = Some(Cable::lay("cable-near", "cable-far", delay));
        run("ip link set cable-near master near");
        run("ip link set cable-far master far");
        self.add_hosts(hosts, "far");
        self
    }

    fn add_hosts(&mut self, hosts: u8, bridge: &str) {
        for _ in 0..hosts {
            let host = Host(u8::try_from(self.hosts.len()).unwrap() + 1);
            let (name, ip) = (host.name(), host.addr().ip());
            run(&format!("ip netns add {name}"));
            run(&format!("ip link add to-{name} type veth peer name eth0 netns {name}"));
            run(&format!("ip link set to-{name} master {bridge} up"));
            run(&format!("ip -n {name} link set lo up"));
            run(&format!("ip -n {name} addr add {ip}/24 dev eth0"));
            run(&format!("ip -n {name} link set eth0 up"));
            self.hosts.push(host);
        }
    }

    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Nothing passes between the two sides.
    pub(crate) fn cut(&self, left: &[Host], right: &[Host]) {
        self.cut_one_way(left, right);
        self.cut_one_way(right, left);
    }

    /// Nothing passes from these to those; the other direction stays.
    pub(crate) fn cut_one_way(&self, from: &[Host], to: &[Host]) {
        let set = |hosts: &[Host]| {
            hosts.iter().map(|host| host.addr().ip().to_string()).collect::<Vec<_>>().join(",")
        };
        let (from, to) = (set(from), set(to));
        run(&format!(
            "nft add rule bridge faults arrivals ip saddr {{ {from} }} ip daddr {{ {to} }} counter drop"
        ));
    }

    /// So many of a hundred frames are lost, at random.
    pub(crate) fn lose(&self, percent: u8) {
        run(&format!("nft add rule bridge faults arrivals numgen random mod 100 < {percent} counter drop"));
    }

    /// How many frames the faults of now have taken.
    pub(crate) fn dropped(&self) -> u64 {
        let rules = run("nft list chain bridge faults arrivals");
        let words: Vec<&str> = rules.split_whitespace().collect();
        let count = |pair: &[&str]| pair[1].parse::<u64>().unwrap();
        words.windows(2).filter(|pair| pair[0] == "packets").map(count).sum()
    }

    /// Ends all faults; returns how many frames they took.
    pub(crate) fn heal(&self) -> u64 {
        let dropped = self.dropped();
        run("nft flush chain bridge faults arrivals");
        dropped
    }
}

fn add_bridge(name: &str) {
    run(&format!("ip link add {name} type bridge"));
    run(&format!("ip link set {name} up"));
}

/// Runs a command line, and returns what it says.
fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("`{line}`: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`{line}`: {}", error.trim());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

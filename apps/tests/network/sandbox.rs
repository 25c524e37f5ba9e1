//! Where a story runs: this very program, started again as root of namespaces of its own. They have no names, and end
//! with it, whatever ends it.

use std::ffi::OsString;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::{env, thread};

use libtest_mimic::{Completion, Failed};

use crate::cable::Cable;
use crate::net::Net;

/// A test: its name says what it shows.
#[derive(Clone, Copy)]
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
    /// It needs a slow cable, and so network devices made by programs.
    pub(crate) cable: bool,
}

struct Probe {
    what: &'static str,
    takes: &'static str,
    run: fn(),
}

/// Tells the program inside which story to run.
const INSIDE: &str = "TREECAST_NETWORK_STORY";
/// In place of a story: whether hosts and faults, or a cable, can be made at all.
const HOSTS: Probe = Probe { what: "hosts", takes: "root, or user namespaces", run: probe_hosts };
const CABLE: Probe = Probe { what: "cable", takes: "to write to /dev/net/tun", run: probe_cable };
/// The programs that this needs, and whose packages they are.
const TOOLS: [(&str, &str); 5] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
];
/// Root makes namespaces as it is, others by a user namespace in which they are root.
const WAYS: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];

/// Outside: runs a story in namespaces of its own, or says why it cannot.
pub(crate) fn run(story: Story) -> Result<Completion, Failed> {
    static WITH_HOSTS: OnceLock<Result<&[&str], String>> = OnceLock::new();
    static WITH_CABLE: OnceLock<Result<&[&str], String>> = OnceLock::new();
    let hosts = WITH_HOSTS.get_or_init(|| said(find_way(&WAYS, &HOSTS))).as_ref();
    let way = match hosts {
        Ok(way) if story.cable => WITH_CABLE.get_or_init(|| said(find_way(&[way], &CABLE))).as_ref(),
        hosts => hosts,
    };
    let way = match way {
        Ok(way) => way,
        Err(missing) => return Ok(Completion::ignored_with(missing)),
    };
    let Output { status, stdout, stderr } = inside(way, story.name);
    let stdout = String::from_utf8_lossy(&stdout);
    if status.success() {
        // What was measured.
        print!("{stdout}");
        return Ok(Completion::Completed);
    }
    Err(format!("{status}\n{stdout}{}", String::from_utf8_lossy(&stderr)).into())
}

/// What is missing is said aloud, once.
fn said<T>(found: Result<T, String>) -> Result<T, String> {
    found.inspect_err(|missing| println!("SKIPPED: faults on a real network: {missing}"))
}

fn find_way(ways: &[&'static [&'static str]], probe: &Probe) -> Result<&'static [&'static str], String> {
    let is_there = |tool: &str| env::split_paths(&search_path()).any(|folder| folder.join(tool).is_file());
    if let Some((tool, package)) = TOOLS.iter().find(|(tool, _)| !is_there(tool)) {
        return Err(format!("`{tool}` is not installed: it comes with the package {package}"));
    }
    let mut why = String::new();
    for way in ways {
        let Output { status, stderr, .. } = inside(way, probe.what);
        if status.success() {
            return Ok(way);
        }
        let stderr = String::from_utf8_lossy(&stderr);
        // The last word is the reason: of a panic, its message.
        why =
            stderr.lines().rfind(|line| !line.is_empty() && !line.starts_with("note:")).unwrap_or("?").into();
    }
    Err(format!("no {} can be made here, which takes {}: {why}", probe.what, probe.takes))
}

/// This program, in new namespaces, until it ends. It ends, too, when this process does.
fn inside(way: &[&str], story: &str) -> Output {
    let mut child = Command::new("unshare")
        .args(way)
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--"])
        .arg(env::current_exe().unwrap())
        .env("PATH", search_path())
        .env("RUST_BACKTRACE", "0")
        .env(INSIDE, story)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let held_open = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(held_open);
    output
}

/// Inside: runs the story that was asked for. False outside.
pub(crate) fn run_inside(stories: &[Story]) -> bool {
    let Ok(name) = env::var(INSIDE) else { return false };
    thread::spawn(|| {
        // Whoever started this has gone when its end of the pipe is closed.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    let probe = [HOSTS, CABLE].into_iter().find(|probe| probe.what == name).map(|probe| probe.run);
    let run = probe.or_else(|| stories.iter().find(|story| story.name == name).map(|story| story.run));
    run.unwrap_or_else(|| panic!("no story `{name}`"))();
    true
}

fn probe_hosts() {
    let net = Net::new(2);
    net.cut(&net.hosts()[..1], &net.hosts()[1..]);
    net.lose(10);
    net.heal();
}

fn probe_cable() {
    Net::new(1);
    Cable::lay("a", "b", std::time::Duration::ZERO);
}

/// Where `ip` and `nft` are, too: not everybody has these folders in their path.
fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    env::join_paths(folders).unwrap()
}

//! A ring of processes, its publishers and subscribers, and all that is done to them. One thread drives all: whoever waits
//! for something has publishers publish and subscribers print meanwhile.

use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::observers::{Publisher, Subscriber, TOPIC, Verdict, judge};
use crate::support::{PATIENCE, Process, free_ports, treecast};

/// Lines of a publisher that may be without word; then it waits.
const MAX_UNDER_WAY: usize = 64;
/// One line of so many is longer than what passes as control (4 KiB).
const LONG_EVERY: usize = 100;
/// How often all processes are looked at.
const TICK: Duration = Duration::from_millis(5);
/// How often it is looked whether one has ended by itself.
const ROLL_CALL: Duration = Duration::from_secs(1);
/// Copies of a log, where there are so many nodes.
const COPIES: usize = 3;
/// What processes log unless `TREECAST_LOG` says something else.
const LOG: &str = "warn,treecast=info,treecast_overlay=info,treecast_scribe=debug";

/// A process of the town.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    Node(usize),
    Publisher(usize),
    Subscriber(usize),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Node(at) => write!(f, "node {at}"),
            Who::Publisher(at) => write!(f, "publisher {at}"),
            Who::Subscriber(at) => write!(f, "subscriber {at}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    /// Killed; started again then, if ever.
    Down(Option<Instant>),
    /// Stopped; woken then, if ever.
    Paused(Option<Instant>),
}

struct Node {
    process: Process,
    state: State,
    /// Where it keeps its identity and the peers that it remembers; stays when it is killed.
    home: TempDir,
    id: String,
    /// `None` until it is ready.
    addr: Option<String>,
}

struct Client<T> {
    client: T,
    state: State,
}

/// The nodes that matter to the topic.
#[derive(Debug)]
pub(crate) struct Roles {
    pub(crate) root: Option<usize>,
    pub(crate) members: Vec<usize>,
}

/// What was done.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    roots_killed: usize,
    pauses: usize,
    roots_paused: usize,
    restarts: usize,
}

pub(crate) struct Town {
    nodes: Vec<Node>,
    publishers: Vec<Client<Publisher>>,
    subscribers: Vec<Client<Subscriber>>,
    /// Time between two lines of a publisher; `None`: nobody publishes.
    every: Option<Duration>,
    last_line: Instant,
    last_roll_call: Instant,
    /// When a process was last killed or stopped.
    disturbed: Instant,
    tally: Tally,
    begun: Instant,
    /// Whether everything that is done is told at once, or if the run fails.
    aloud: bool,
    journal: Vec<String>,
    /// The command that does the same again.
    again: String,
    /// The range in which processes of this town look for each other: there is nobody.
    ports: String,
    /// The town's own network: a port that one town has left another one may get.
    network: String,
    logs: PathBuf,
    /// The logs, if nobody said where they should go.
    kept_if_it_fails: Option<TempDir>,
}

/// How many towns there were in this process.
static TOWNS: AtomicUsize = AtomicUsize::new(0);

/// Of what a town consists.
pub(crate) struct Plan {
    pub(crate) nodes: usize,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    /// Lines a second that each publisher publishes.
    pub(crate) rate: f64,
    pub(crate) aloud: bool,
    pub(crate) logs: Option<PathBuf>,
    pub(crate) again: String,
}

impl Town {
    /// All are ready; subscribers are subscribed before anything is published.
    pub(crate) fn found(plan: Plan) -> Town {
        let temporary = plan.logs.is_none().then(|| tempfile::tempdir().unwrap());
        let logs = plan.logs.unwrap_or_else(|| temporary.as_ref().unwrap().path().to_path_buf());
        fs::create_dir_all(&logs).unwrap();
        let now = Instant::now();
        let mut town = Town {
            nodes: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            every: None,
            last_line: now,
            last_roll_call: now,
            disturbed: now,
            tally: Tally::default(),
            begun: now,
            aloud: plan.aloud,
            journal: Vec::new(),
            again: plan.again,
            ports: free_ports(),
            network: format!("chaos-{}-{}", std::process::id(), TOWNS.fetch_add(1, Relaxed)),
            logs,
            kept_if_it_fails: temporary,
        };
        for at in 0..plan.nodes {
            let home = tempfile::tempdir().unwrap();
            let process = town.launch_node(at, &home);
            town.nodes.push(Node { process, state: State::Up, home, id: String::new(), addr: None });
            if at == 0 {
                town.until("the first node ready", Town::is_ready);
            }
        }
        town.until("all nodes ready", Town::is_ready);
        for at in 0..plan.subscribers {
            let client = Subscriber::new(town.launch_subscriber(at, "earliest")).subscribed();
            town.subscribers.push(Client { client, state: State::Up });
        }
        for at in 0..plan.publishers {
            let client = Publisher::new(town.launch_publisher(at));
            town.publishers.push(Client { client, state: State::Up });
        }
        town.every = Some(Duration::from_secs_f64(1.0 / plan.rate));
        town.until_full("after the beginning");
        town
    }

    fn launch_node(&self, at: usize, home: &TempDir) -> Process {
        let home = home.path().to_str().unwrap();
        self.launch(Who::Node(at), &["node", "--json", "--listen", "127.0.0.1:0", "--data-dir", home])
    }

    fn launch_publisher(&self, at: usize) -> Process {
        self.launch(Who::Publisher(at), &["pub", TOPIC, "-l", "--json", "--ephemeral"])
    }

    fn launch_subscriber(&self, at: usize, from: &str) -> Process {
        self.launch(Who::Subscriber(at), &["sub", TOPIC, "--json", "--ephemeral", "--from", from])
    }

    fn launch(&self, who: Who, args: &[&str]) -> Process {
        let (Who::Node(at) | Who::Publisher(at) | Who::Subscriber(at)) = who;
        let file = self.log_of(&who.to_string());
        let log = File::options().create(true).append(true).open(file).unwrap();
        Process::start_with_log(&who.to_string(), self.command(args, at), log)
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{}.log", name.replace(' ', "-")))
    }

    /// A command that joins through three nodes, which depend on a number.
    fn command(&self, args: &[&str], number: usize) -> Command {
        let (before, behind) = self.nodes.split_at(number.min(self.nodes.len()));
        let ready = behind.iter().chain(before).filter(|node| node.state == State::Up);
        let through = ready.filter_map(|node| node.addr.as_deref()).take(3);
        let join = through.flat_map(|addr| ["--join", addr]);
        let network = ["--network", &self.network];
        let mut command = treecast(&args.iter().copied().chain(network).chain(join).collect::<Vec<_>>());
        command.env("TREECAST_PORTS", &self.ports);
        if std::env::var_os("TREECAST_LOG").is_none() {
            command.env("TREECAST_LOG", LOG);
        }
        command
    }

    /// Waits until something is so.
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&Town) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.tick();
            if is_so(self) {
                return;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            thread::sleep(TICK);
        }
    }

    /// Lets everybody go on for so long.
    pub(crate) fn go_on_for(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.tick();
            thread::sleep(TICK);
        }
    }

    /// Waits until something that was published after the last disturbance is held in full.
    pub(crate) fn until_full(&mut self, when: &str) -> Duration {
        let disturbed = self.disturbed;
        self.until(&format!("a receipt in full {when}"), |town| town.is_full_since(disturbed));
        disturbed.elapsed()
    }

    /// Whether something that was published after this instant has a receipt of as many copies as there can be.
    pub(crate) fn is_full_since(&self, since: Instant) -> bool {
        let copies = self.nodes_up().count().min(COPIES);
        self.publishers.iter().any(|publisher| publisher.client.received_since(since, copies as u64))
    }

    /// Whether any publisher has a receipt for something that it published after this instant.
    pub(crate) fn is_served_since(&self, since: Instant) -> bool {
        self.publishers.iter().any(|publisher| publisher.client.received_since(since, 1))
    }

    /// Whether each publisher has a receipt for something that it published after this instant.
    pub(crate) fn serves_all_since(&self, since: Instant) -> bool {
        self.publishers.iter().all(|publisher| publisher.client.received_since(since, 1))
    }

    pub(crate) fn published(&self) -> usize {
        self.publishers.iter().map(|publisher| publisher.client.published()).sum()
    }

    fn is_ready(&self) -> bool {
        self.nodes.iter().all(|node| node.state != State::Up || node.addr.is_some())
    }

    /// The nodes that run and are ready.
    pub(crate) fn nodes_up(&self) -> impl Iterator<Item = usize> {
        let up = |(at, node): (usize, &Node)| (node.state == State::Up && node.addr.is_some()).then_some(at);
        self.nodes.iter().enumerate().filter_map(up)
    }

    pub(crate) fn publishers_up(&self) -> impl Iterator<Item = usize> {
        up(&self.publishers)
    }

    pub(crate) fn subscribers_up(&self) -> impl Iterator<Item = usize> {
        up(&self.subscribers)
    }

    fn tick(&mut self) {
        let now = Instant::now();
        self.bring_back(|due| due.is_some_and(|due| due <= now));
        for node in &mut self.nodes {
            while let Some(word) = node.process.json_now() {
                if word["event"] == "ready" {
                    node.id = word["id"].as_str().unwrap().to_string();
                    node.addr = Some(word["addr"].as_str().unwrap().to_string());
                }
            }
        }
        self.subscribers.iter_mut().for_each(|subscriber| subscriber.client.listen());
        self.publishers.iter_mut().for_each(|publisher| publisher.client.listen());
        if self.every.is_some_and(|every| now >= self.last_line + every) {
            self.last_line = now;
            self.publish();
        }
        if now >= self.last_roll_call + ROLL_CALL {
            self.last_roll_call = now;
            self.call_roll();
        }
    }

    fn publish(&mut self) {
        for (at, Client { client, state }) in self.publishers.iter_mut().enumerate() {
            if *state == State::Up && client.under_way() < MAX_UNDER_WAY {
                let number = client.published();
                let filler = if number % LONG_EVERY == 0 { "x".repeat(5000) } else { String::new() };
                client.send(format!("publisher {at}, line {number}{filler}"));
            }
        }
    }

    /// Nobody ends but who is killed.
    fn call_roll(&mut self) {
        let nodes = self.nodes.iter_mut().map(|node| (&mut node.process, node.state));
        let publishers =
            self.publishers.iter_mut().map(|publisher| (publisher.client.process(), publisher.state));
        let subscribers =
            self.subscribers.iter_mut().map(|subscriber| (subscriber.client.process(), subscriber.state));
        let gone = nodes.chain(publishers).chain(subscribers).find_map(|(process, state)| {
            (!matches!(state, State::Down(_)) && !process.runs()).then_some(process)
        });
        if let Some(process) = gone {
            panic!("{} has ended by itself", process.name());
        }
    }

    fn state(&mut self, who: Who) -> &mut State {
        match who {
            Who::Node(at) => &mut self.nodes[at].state,
            Who::Publisher(at) => &mut self.publishers[at].state,
            Who::Subscriber(at) => &mut self.subscribers[at].state,
        }
    }

    fn process(&mut self, who: Who) -> &mut Process {
        match who {
            Who::Node(at) => &mut self.nodes[at].process,
            Who::Publisher(at) => self.publishers[at].client.process(),
            Who::Subscriber(at) => self.subscribers[at].client.process(),
        }
    }

    /// kill -9. It is started again after so long, if at all.
    pub(crate) fn kill(&mut self, who: Who, role: &str, for_: Option<Duration>) {
        let length = for_.map_or("for good".to_string(), |for_| format!("for {for_:.1?}"));
        self.tell(&format!("kill {who}{role} {length}"));
        self.tally.kills += 1;
        self.tally.roots_killed += usize::from(role.contains("root"));
        match who {
            Who::Node(at) => {
                self.nodes[at].process.kill();
                self.nodes[at].addr = None;
            }
            Who::Publisher(at) => self.publishers[at].client.kill(),
            Who::Subscriber(at) => self.subscribers[at].client.kill(),
        }
        self.disturbed = Instant::now();
        *self.state(who) = State::Down(for_.map(|for_| Instant::now() + for_));
    }

    /// SIGSTOP. It is woken after so long, if at all.
    pub(crate) fn pause(&mut self, who: Who, role: &str, for_: Option<Duration>) {
        let length = for_.map_or("until it is woken".to_string(), |for_| format!("for {for_:.1?}"));
        self.tell(&format!("stop {who}{role} {length}"));
        self.tally.pauses += 1;
        self.tally.roots_paused += usize::from(role.contains("root"));
        self.process(who).signal("STOP");
        self.disturbed = Instant::now();
        *self.state(who) = State::Paused(for_.map(|for_| Instant::now() + for_));
    }

    /// SIGCONT.
    pub(crate) fn wake(&mut self, who: Who) {
        self.tell(&format!("wake {who}"));
        self.process(who).signal("CONT");
        *self.state(who) = State::Up;
    }

    fn restart(&mut self, who: Who) {
        self.tell(&format!("start {who} again"));
        self.tally.restarts += 1;
        match who {
            Who::Node(at) => self.nodes[at].process = self.launch_node(at, &self.nodes[at].home),
            Who::Publisher(at) => {
                let process = self.launch_publisher(at);
                self.publishers[at].client.start_again(process);
            }
            Who::Subscriber(at) => {
                let mark = self.subscribers[at].client.mark().unwrap_or("earliest").to_string();
                let process = self.launch_subscriber(at, &mark);
                self.subscribers[at].client.start_again(process);
            }
        }
        *self.state(who) = State::Up;
    }

    /// Wakes and starts again those whose time is such.
    fn bring_back(&mut self, is_time: impl Fn(Option<Instant>) -> bool) {
        let nodes = (0..self.nodes.len()).map(Who::Node);
        let publishers = (0..self.publishers.len()).map(Who::Publisher);
        let subscribers = (0..self.subscribers.len()).map(Who::Subscriber);
        for who in nodes.chain(publishers).chain(subscribers).collect::<Vec<_>>() {
            match *self.state(who) {
                State::Down(back) if is_time(back) => self.restart(who),
                State::Paused(until) if is_time(until) => self.wake(who),
                State::Up | State::Down(_) | State::Paused(_) => {}
            }
        }
    }

    /// Asks the ring which nodes matter to the topic; `None` if it does not know, or not soon.
    pub(crate) fn look(&mut self) -> Option<Roles> {
        let command = self.command(&["topic", "show", TOPIC, "--json", "--ephemeral"], 0);
        let log = File::options().create(true).append(true).open(self.log_of("topic show")).unwrap();
        let mut show = Process::start_with_log("topic show", command, log);
        let deadline = Instant::now() + PATIENCE / 3;
        let line = loop {
            self.tick();
            // In this order: what it says, it says before it ends.
            let runs = show.runs();
            let line = show.json_now();
            if line.is_some() || !runs || Instant::now() > deadline {
                break line?;
            }
            thread::sleep(TICK);
        };
        let at = |id: &Value| self.nodes.iter().position(|node| Some(node.id.as_str()) == id.as_str());
        let members =
            line["members"].as_array().map_or(Vec::new(), |ids| ids.iter().filter_map(at).collect());
        Some(Roles { root: at(&line["root"]), members })
    }

    /// The topic's root, once it is known.
    pub(crate) fn root(&mut self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(root) = self.look().and_then(|roles| roles.root) {
                return root;
            }
            assert!(Instant::now() < deadline, "nobody knows the root");
        }
    }

    /// All come back that are to come back, each publishes a last line, and every subscriber prints it.
    pub(crate) fn finish(&mut self) {
        self.tell("all come back");
        self.bring_back(|due| due.is_some());
        self.until("all nodes ready", Town::is_ready);
        let back = Instant::now();
        self.until("a receipt in full in the end", |town| town.is_full_since(back));
        self.until("receipts for all publishers in the end", |town| town.serves_all_since(back));
        self.every = None;
        self.until("a word on every line", |town| {
            town.publishers.iter().all(|publisher| publisher.client.under_way() == 0)
        });
        let last: Vec<String> = self
            .publishers
            .iter_mut()
            .map(|publisher| publisher.client.publish_until_received("the last"))
            .collect();
        self.until("every subscriber prints the last lines", |town| {
            town.subscribers
                .iter()
                .all(|subscriber| last.iter().all(|last| subscriber.client.has_heard(last)))
        });
        self.tell("all has been printed");
    }

    /// Judges what was published and printed, says what came of it, and fails if it is broken.
    pub(crate) fn judge(
        &self,
        judge: fn(&[&Publisher], &[&Subscriber]) -> Verdict,
        is_broken: fn(&Verdict) -> bool,
    ) -> Verdict {
        let verdict = self.verdict(judge);
        assert!(!is_broken(&verdict), "{}\n{verdict}\n{:#?}", self.done(), verdict.faults());
        verdict
    }

    fn verdict(&self, judge: fn(&[&Publisher], &[&Subscriber]) -> Verdict) -> Verdict {
        let publishers: Vec<_> = self.publishers.iter().map(|publisher| &publisher.client).collect();
        let subscribers: Vec<_> = self.subscribers.iter().map(|subscriber| &subscriber.client).collect();
        judge(&publishers, &subscribers)
    }

    /// What was done, in figures.
    pub(crate) fn done(&self) -> String {
        let Tally { kills, roots_killed, pauses, roots_paused, restarts } = self.tally;
        format!(
            "{} nodes, {} publishers, {} subscribers, {:.0?}: {kills} kills ({roots_killed} of the root), {pauses} pauses \
             ({roots_paused} of the root), {restarts} restarts",
            self.nodes.len(),
            self.publishers.len(),
            self.subscribers.len(),
            self.begun.elapsed(),
        )
    }

    pub(crate) fn tell(&mut self, what: &str) {
        let line = format!("{:7.2} s  {what}", self.begun.elapsed().as_secs_f64());
        if self.aloud {
            println!("{line}");
        }
        self.journal.push(line);
    }
}

fn up<T>(clients: &[Client<T>]) -> impl Iterator<Item = usize> {
    clients.iter().enumerate().filter(|(_, client)| client.state == State::Up).map(|(at, _)| at)
}

/// A failure says what was done, and how to do it again.
impl Drop for Town {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        if !self.aloud {
            self.journal.iter().for_each(|line| eprintln!("{line}"));
        }
        if let Some(logs) = self.kept_if_it_fails.take() {
            let _ = logs.keep();
        }
        let verdict = self.verdict(judge);
        eprintln!("FAILED after {}", self.done());
        eprintln!("by then (what is under way counts as lost): {verdict}");
        verdict.faults().iter().for_each(|fault| eprintln!("  {fault}"));
        eprintln!("logs: {}", self.logs.display());
        eprintln!("again: {}", self.again);
    }
}

//! `lab scenario FILE.toml`: a described run. The file says which nodes there are and what happens when; all judges are asked as
//! ever, and what the file expects besides must have come out. Scenarios that ship are in `integration/scenarios`.

mod script;
mod seconds;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rand::RngExt;
use serde_json::json;
use treecast_overlay::config::Config as RingConfig;
use treecast_overlay::pastry::Node;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_scribe::{Config, Topic};

use self::script::{Publisher, Role, Script, ScriptEvent, Subscribers, Target, place};
use crate::check::{Verdict, s6};
use crate::cluster::Cluster;
use crate::lab::swarm::{self, DRIFT_PPM};
use crate::lab::{Error, Progress};
use crate::node::RingNode;
use crate::report::{Figures, Report};
use crate::timeline::{Action, Deed, Split, Timeline};
use crate::world::{self, Case, Crash, Faults, Topology, Uplink};

/// How long a `blink` lasts.
const BLINK: f64 = 1.0;
/// Bytes that wait for a limited uplink at most.
const UPLINK_QUEUE: usize = 1 << 20;
/// Messages of a burst, and bytes of each, unless the file says otherwise.
const BURST: usize = 30;
const BURST_BYTES: usize = 200;

/// Options of `lab scenario`.
#[derive(Args, Clone, Debug)]
pub struct ScenarioOptions {
    /// The scenario
    #[arg(value_name = "FILE.toml")]
    pub file: PathBuf,
}

/// Reads the file and runs it.
pub fn run(options: &ScenarioOptions, progress: &Progress) -> Result<Report, Error> {
    let path = &options.file;
    let text =
        std::fs::read_to_string(path).map_err(|why| Error::Usage(format!("{}: {why}", path.display())))?;
    play(path, &text, progress)
}

/// Runs a scenario's text; the path is for errors.
pub fn play(path: &Path, text: &str, progress: &Progress) -> Result<Report, Error> {
    let script = Script::parse(path, text)?;
    progress.phase("scenario", script.lasts.get_ref().ceil() as u64);
    let mut stage = Stage::<Node>::new(path, script)?;
    let verdict = stage.run(progress);
    Ok(stage.report(path, verdict))
}

/// Something that the file has on its timeline.
#[derive(Clone)]
enum Scheduled {
    Event(Box<ScriptEvent>),
    Subscribe(Subscribers),
    Publish(Publisher),
}

/// A scenario under way.
struct Stage<N: RingNode> {
    script: Script,
    timeline: Timeline<N>,
    dice: Rng,
    /// When all began, by the clock on the wall.
    started: std::time::Instant,
    /// When the timeline began.
    begin: Instant,
    whole_after: Option<Duration>,
    settled_after: Option<Duration>,
    /// Cues that could not be carried out.
    misfits: Vec<String>,
}

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

impl<N: RingNode> Stage<N> {
    fn new(path: &Path, script: Script) -> Result<Stage<N>, Error> {
        let command =
            format!("cargo run --release -p treecast-integration --bin lab -- scenario {}", path.display());
        let topology: Option<Topology> =
            script.topology.as_ref().and_then(|name| name.get_ref().parse().ok());
        let shipped = world::Config::default();
        let network = world::Config {
            topology: topology.unwrap_or_else(|| shipped.topology.clone()),
            jitter: script.jitter.as_ref().map_or(shipped.jitter, |jitter| *jitter.get_ref()),
            ..shipped
        };
        let mut ring = RingConfig::default();
        ring.tables.leaf_set = script.leaf_set.unwrap_or(ring.tables.leaf_set);
        ring.tables.full_membership = script.full_membership.unwrap_or(ring.tables.full_membership);
        if script.thrifty {
            swarm::spare_frames(&mut ring);
        }
        ring.check().map_err(|error| Error::Usage(format!("{}: {error}", path.display())))?;
        let case = Case::of_command(&command, script.seed);
        let cluster = Cluster::<N>::with(case, network, ring, Config::default());
        Ok(Stage {
            dice: cluster.world.stream("scenario"),
            timeline: Timeline::new(cluster),
            script,
            started: std::time::Instant::now(),
            begin: Instant::ZERO,
            whole_after: None,
            settled_after: None,
            misfits: Vec::new(),
        })
    }

    fn run(&mut self, progress: &Progress) -> Verdict {
        let nodes = *self.script.nodes.get_ref();
        let within = self.script.join_within.as_ref().map_or(nodes as f64 * 0.1, |within| *within.get_ref());
        let cluster = &mut self.timeline.cluster;
        cluster.add(&[]);
        cluster.advance(Duration::from_millis(500))?;
        for _ in 1..nodes {
            cluster.add(&[0]);
            cluster.advance(seconds(within / nodes as f64))?;
        }
        cluster.advance_until(Duration::from_secs(60), Cluster::is_well)?;
        self.begin = cluster.now();
        let weather = self.script.weather.as_ref().map(script::Weather::faults);
        cluster.world.set_faults(weather.unwrap_or_default());
        for (at, cue) in self.cues() {
            self.advance_to(at)?;
            self.carry_out(cue);
            progress.at(at.as_secs(), String::new());
        }
        self.advance_to(seconds(*self.script.lasts.get_ref()))?;
        let cluster = &mut self.timeline.cluster;
        cluster.world.set_faults(Faults::default());
        let limit = |said: Option<f64>, usual| seconds(said.unwrap_or(usual));
        let expect = &self.script.expect;
        let (whole, settled) = (limit(expect.whole_within, 20.0), limit(expect.settled_within, 40.0));
        self.whole_after = Some(cluster.advance_until(whole, Cluster::is_attached)?);
        self.settled_after = Some(cluster.advance_until(settled, Cluster::is_well)?);
        cluster.review()
    }

    /// Time passes until then, and what has lasted long enough ends.
    fn advance_to(&mut self, at: Duration) -> Verdict {
        let until = self.begin + at;
        loop {
            let due = self.timeline.next_end().map(Instant::from_nanos).filter(|&due| due <= until);
            let next = due.unwrap_or(until);
            let now = self.timeline.cluster.now();
            if now < next {
                self.timeline.cluster.advance(next - now)?;
            }
            if due.is_none() {
                return Ok(());
            }
            self.timeline.end_due(next.as_nanos());
        }
    }

    /// The timeline in its order.
    fn cues(&self) -> Vec<(Duration, Scheduled)> {
        let mut cues = Vec::new();
        for event in &self.script.events {
            cues.push((seconds(*event.at.get_ref()), Scheduled::Event(Box::new(event.clone()))));
        }
        for subscribers in &self.script.subscribers {
            let at = subscribers.at.as_ref().map_or(0.0, |at| *at.get_ref());
            cues.push((seconds(at), Scheduled::Subscribe(subscribers.clone())));
        }
        for publisher in &self.script.publishers {
            let (every, until) = (*publisher.every.get_ref(), *publisher.until.get_ref());
            let from = publisher.from.as_ref().map_or(0.0, |from| *from.get_ref());
            let messages = ((until - from).max(0.0) / every).floor() as u64;
            let cue = |n: u64| (seconds(from + n as f64 * every), Scheduled::Publish(publisher.clone()));
            cues.extend((0..messages).map(cue));
        }
        cues.sort_by_key(|(at, _)| *at);
        cues
    }

    fn carry_out(&mut self, cue: Scheduled) {
        match cue {
            Scheduled::Event(event) => self.act(&event),
            Scheduled::Subscribe(subscribers) => {
                let (first, last) = *subscribers.nodes.get_ref();
                for slot in first..=last {
                    let topic = topic(subscribers.topic.get_ref());
                    let late = subscribers.at.as_ref().is_some_and(|at| *at.get_ref() > 0.0);
                    let subscribe = Action::Subscribe { slot, topic, takes: subscribers.takes, late };
                    if self.timeline.perform(subscribe).is_err() {
                        self.misfits.push(format!("nobody lives in slot {slot} to subscribe"));
                    }
                }
            }
            Scheduled::Publish(publisher) => {
                let (slot, topic) = (*publisher.node.get_ref(), topic(publisher.topic.get_ref()));
                // A dead publisher publishes nothing.
                if self.timeline.cluster.world.machine(slot).is_some() {
                    let publish =
                        Action::Publish { slots: vec![slot], topic, bytes: publisher.bytes, burst: false };
                    let _ = self.timeline.perform(publish);
                }
            }
        }
    }

    fn act(&mut self, event: &ScriptEvent) {
        let lasts = match (&event.lasts, *event.deed.get_ref()) {
            (Some(lasts), _) => Some(*lasts.get_ref()),
            (None, Deed::Blink) => Some(BLINK),
            (None, _) => None,
        };
        let end = lasts.map_or(u64::MAX, |lasts| (self.timeline.cluster.now() + seconds(lasts)).as_nanos());
        let done = self.action(event).map(|action| self.timeline.perform_until(end, action));
        if done != Some(Ok(())) {
            let (at, deed, slot) = (event.at.get_ref(), event.deed.get_ref(), self.slot(event));
            self.misfits.push(format!("at {at}: {deed:?} does not fit {slot:?}"));
        }
    }

    /// The slot that an event means.
    fn slot(&self, event: &ScriptEvent) -> Option<usize> {
        let cluster = &self.timeline.cluster;
        match event.node.as_ref()?.get_ref() {
            Target::Node(slot) => Some(*slot),
            Target::Role(words) => match place(words)? {
                Role::Root(topic) => Some(cluster.root(&topic)),
                Role::Forwarder(topic) => cluster.parents(&topic).first().copied(),
                Role::Last => self.timeline.last,
            },
        }
    }

    /// The action that an event comes to now; `None`: it is about no node.
    fn action(&mut self, event: &ScriptEvent) -> Option<Action> {
        let slot = self.slot(event);
        let nodes = || match &event.nodes[..] {
            [] => slot.into_iter().collect(),
            nodes => nodes.iter().map(|node| *node.get_ref()).collect::<Vec<usize>>(),
        };
        let ready = || self.timeline.cluster.ready().into_iter().take(3).collect();
        let other = || event.with.as_ref().map(|with| *with.get_ref());
        let topic = || event.topic.as_ref().map(|name| topic(name.get_ref()));
        let crash = |slots: Vec<usize>, how, of_root| Action::Crash { slots, how, of_root };
        Some(match *event.deed.get_ref() {
            Deed::CrashProcess | Deed::CrashSeveral => {
                let of_root = matches!(event.node.as_ref().map(toml::Spanned::get_ref),
                    Some(Target::Role(role)) if role.starts_with("root of"));
                crash(nodes(), Crash::Process, of_root)
            }
            Deed::CrashPower => crash(nodes(), Crash::Power, false),
            Deed::CrashRoot => crash(vec![self.timeline.cluster.root(&topic()?)], Crash::Process, true),
            Deed::Restart => Action::Restart(slot?, ready()),
            Deed::Leave => Action::Leave(slot?),
            Deed::Pause => Action::Pause(nodes()),
            Deed::Resume => Action::Resume(nodes()),
            Deed::Isolate | Deed::Blink | Deed::PartMany => Action::Isolate(nodes(), 1),
            Deed::Rejoin => Action::Rejoin(nodes()),
            Deed::Part => Action::Sever(Split::Pair(slot?, other()?, false)),
            Deed::Deafen => Action::Sever(Split::OneWay(slot?, other()?, false)),
            Deed::PartNeighbours => {
                let [_, next] = self.timeline.cluster.node(slot?)?.neighbours();
                let next = self.timeline.cluster.roster.slot_of(next?.id)?;
                Action::Sever(Split::Pair(slot?, next, true))
            }
            Deed::Pairs => Action::Sever(Split::Pairs(*event.share.as_ref()?.get_ref(), self.dice.random())),
            Deed::Heal => Action::Heal(None),
            Deed::Join => Action::Join(Some(ready())),
            Deed::JoinEdge => Action::JoinEdge(ready()),
            Deed::Subscribe | Deed::Stall => {
                let stalls = *event.deed.get_ref() == Deed::Stall;
                let takes = event.takes.or(stalls.then_some(3));
                Action::Subscribe { slot: slot?, topic: topic()?, takes, late: true }
            }
            Deed::Unsubscribe => {
                let history = &self.timeline.cluster.history;
                let mut there =
                    history.lasting(topic()?.id()).filter(|(_, watched)| Some(watched.slot) == slot);
                Action::Unsubscribe(there.next()?.0)
            }
            Deed::Unstall => {
                let of_it = self.timeline.stalled.iter().filter(|(at, _)| Some(*at) == slot);
                Action::Unstall(of_it.map(|(_, id)| *id).collect())
            }
            Deed::Burst => {
                let slots = vec![slot?; event.count.unwrap_or(BURST)];
                Action::Publish { slots, topic: topic()?, bytes: BURST_BYTES, burst: true }
            }
            Deed::Slow => Action::Slow(slot?, seconds(*event.per_frame.as_ref()?.get_ref())),
            Deed::Drift => {
                let most = event.ppm.unwrap_or(DRIFT_PPM).abs();
                let slots = 0..self.timeline.cluster.world.slots();
                Action::Drift(slots.map(|slot| (slot, self.dice.random_range(-most..=most))).collect())
            }
            Deed::JumpClock => Action::JumpClock(nodes(), seconds(*event.by.as_ref()?.get_ref())),
            Deed::Throttle => {
                let uplink = Uplink { bytes_per_second: event.bytes_per_second?, queue: UPLINK_QUEUE };
                Action::Throttle(slot?, Some(uplink))
            }
            Deed::Weather => {
                Action::Weather(event.weather.as_ref().map(script::Weather::faults).unwrap_or_default())
            }
            Deed::Matrix | Deed::Sparse | Deed::Thrifty => return None,
        })
    }

    fn report(&self, path: &Path, verdict: Verdict) -> Report {
        let cluster = &self.timeline.cluster;
        let outcome = swarm::events(cluster);
        let (kept, failed, open) = cluster.history.outcomes();
        let (gaps, deliveries) = (cluster.history.gaps() as u64, cluster.history.deliveries());
        let mut faults: Vec<String> = verdict.err().map(|breach| breach.to_string()).into_iter().collect();
        faults.extend(self.misfits.clone());
        let expect = &self.script.expect;
        let bounds = [
            ("gaps", expect.gaps, gaps),
            ("without_receipt", expect.without_receipt, (failed + open) as u64),
            ("deliveries", expect.deliveries, deliveries),
        ];
        for (key, expected, found) in bounds {
            if let Some((least, most)) = expected.filter(|(least, most)| !(least..=most).contains(&&found)) {
                faults.push(format!("expect.{key}: {found}, expected were {least} to {most}"));
            }
        }
        let slowest = s6::undisturbed(&cluster.history, Duration::MAX).unwrap_or_default();
        if let Some(limit) = expect.slowest.filter(|limit| slowest > seconds(*limit)) {
            faults.push(format!("expect.slowest: {slowest:?}, expected were at most {limit} s"));
        }
        for event in &expect.events {
            let name = event.get_ref().as_str();
            if outcome.get(name).is_none_or(|times| *times == 0) {
                faults.push(format!("expect.events: not one {name}"));
            }
        }
        let told = |time: Option<Duration>| time.map_or("never".to_string(), |time| format!("{time:.1?}"));
        let mut figures =
            Figures::of(&json!({ "experiment": "scenario", "file": path.display().to_string() }));
        figures.set("seed", self.script.seed);
        figures.tell("whole after", told(self.whole_after));
        figures.set("whole_after_s", self.whole_after.map(|time| time.as_secs_f64()));
        figures.tell("settled after", told(self.settled_after));
        figures.set("settled_after_s", self.settled_after.map(|time| time.as_secs_f64()));
        figures.count("deliveries", "deliveries", deliveries);
        figures.count("receipts", "receipts", kept as u64);
        figures.count("without_receipt", "without receipt", (failed + open) as u64);
        figures.count("gaps", "gaps", gaps);
        figures.tell("slowest delivery", format!("{slowest:.1?}"));
        figures.set("slowest_s", slowest.as_secs_f64());
        for (event, times) in outcome.iter().filter(|(_, times)| **times > 0) {
            figures.tell(*event, times.to_string());
        }
        figures.set("events", outcome);
        figures.set("faults", &faults);
        figures.set("trace_hash", cluster.world.trace_hash());
        figures.set_cost(cluster.world.steps(), self.started.elapsed());
        let conditions = vec![("file", path.display().to_string()), ("seed", self.script.seed.to_string())];
        let notes = vec![self.script.about.clone()];
        let mut report =
            Report { experiment: "scenario", conditions, notes, faults, ..Report::default() }.with(figures);
        seconds::add_to(&mut report, &cluster.history, self.begin);
        report
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).expect("the script was checked")
}

//! `lab scenario FILE.toml`: a described run. The file says who is there and what happens when; all judges are asked as
//! ever, and what the file expects besides must have come out. Those that ship are in `integration/scenarios`.

mod script;
mod timeline;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use treecast_overlay::config::Config as RingConfig;
use treecast_overlay::time::Instant;
use treecast_scribe::event::SubscriptionId;
use treecast_scribe::{Config, Topic};

use self::script::{Act, Event, Place, Role, Script, place};
use crate::check::{Verdict, s6};
use crate::grove::Grove;
use crate::lab::{Error, Output, Progress, memory, swarm};
use crate::report::{Report, Row};
use crate::world::{self, Case, Crash, Cut, CutId, Faults, Topology};

/// What `lab scenario` can be told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The scenario
    #[arg(value_name = "FILE.toml")]
    pub file: PathBuf,
    #[command(flatten)]
    output: Output,
}

impl Options {
    /// Where the figures go.
    pub fn output(&self) -> &Output {
        &self.output
    }
}

/// Reads the file and runs it.
pub fn run(options: &Options, progress: &Progress) -> Result<Report, Error> {
    let path = &options.file;
    let text =
        std::fs::read_to_string(path).map_err(|why| Error::Usage(format!("{}: {why}", path.display())))?;
    play(path, &text, progress)
}

/// Runs a scenario's text; the path is for errors.
pub fn play(path: &Path, text: &str, progress: &Progress) -> Result<Report, Error> {
    let script = Script::parse(path, text)?;
    progress.phase("scenario", script.lasts.get_ref().ceil() as u64);
    let mut stage = Stage::new(path, script);
    let verdict = stage.run(progress);
    Ok(stage.report(path, verdict))
}

/// Something on the timeline.
enum Cue {
    Event(usize),
    Subscribe(usize),
    Publish(usize),
}

/// A scenario under way.
struct Stage {
    script: Script,
    grove: Grove,
    /// When all began, by the clock on the wall.
    started: std::time::Instant,
    /// When the timeline began.
    begin: Instant,
    stalled: BTreeMap<usize, Vec<SubscriptionId>>,
    isolated: BTreeMap<usize, CutId>,
    pairs: Vec<CutId>,
    /// The node that failed last.
    last: Option<usize>,
    whole_after: Option<Duration>,
    settled_after: Option<Duration>,
    /// Cues that could not be carried out.
    misfits: Vec<String>,
}

fn seconds(value: f64) -> Duration {
    Duration::from_secs_f64(value)
}

impl Stage {
    fn new(path: &Path, script: Script) -> Stage {
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
        let case = Case::of_command(&command, script.seed);
        Stage {
            grove: Grove::told(case, network, RingConfig::default(), Config::default()),
            script,
            started: std::time::Instant::now(),
            begin: Instant::ZERO,
            stalled: BTreeMap::new(),
            isolated: BTreeMap::new(),
            pairs: Vec::new(),
            last: None,
            whole_after: None,
            settled_after: None,
            misfits: Vec::new(),
        }
    }

    fn run(&mut self, progress: &Progress) -> Verdict {
        let nodes = *self.script.nodes.get_ref();
        let within = self.script.join_within.as_ref().map_or(nodes as f64 * 0.1, |within| *within.get_ref());
        self.grove.add(&[]);
        self.grove.advance(Duration::from_millis(500))?;
        for _ in 1..nodes {
            self.grove.add(&[0]);
            self.grove.advance(seconds(within / nodes as f64))?;
        }
        self.grove.advance_until(Duration::from_secs(60), Grove::is_well)?;
        self.begin = self.grove.world.now();
        let weather = self.script.weather.as_ref().map(script::Weather::faults);
        self.grove.world.set_faults(weather.unwrap_or_default());
        for (at, cue) in self.cues() {
            self.advance_to(at)?;
            self.carry_out(cue);
            progress.at(at.as_secs(), String::new());
        }
        self.advance_to(seconds(*self.script.lasts.get_ref()))?;
        self.grove.world.set_faults(Faults::default());
        let limit = |said: Option<f64>, usual| seconds(said.unwrap_or(usual));
        let expect = &self.script.expect;
        let (whole, settled) = (limit(expect.whole_within, 20.0), limit(expect.settled_within, 40.0));
        self.whole_after = Some(self.grove.advance_until(whole, Grove::is_whole)?);
        self.settled_after = Some(self.grove.advance_until(settled, Grove::is_well)?);
        self.grove.review()
    }

    fn advance_to(&mut self, at: Duration) -> Verdict {
        let until = self.begin + at;
        match self.grove.world.now() < until {
            true => self.grove.advance(until - self.grove.world.now()),
            false => Ok(()),
        }
    }

    /// The timeline in its order.
    fn cues(&self) -> VecDeque<(Duration, Cue)> {
        let mut cues = Vec::new();
        for (i, event) in self.script.events.iter().enumerate() {
            cues.push((seconds(*event.at.get_ref()), Cue::Event(i)));
        }
        for (i, subscribers) in self.script.subscribers.iter().enumerate() {
            let at = subscribers.at.as_ref().map_or(0.0, |at| *at.get_ref());
            cues.push((seconds(at), Cue::Subscribe(i)));
        }
        for (i, publisher) in self.script.publishers.iter().enumerate() {
            let (every, until) = (*publisher.every.get_ref(), *publisher.until.get_ref());
            let from = publisher.from.as_ref().map_or(0.0, |from| *from.get_ref());
            let messages = ((until - from).max(0.0) / every).floor() as u64;
            cues.extend((0..messages).map(|n| (seconds(from + n as f64 * every), Cue::Publish(i))));
        }
        cues.sort_by_key(|(at, _)| *at);
        cues.into()
    }

    fn carry_out(&mut self, cue: Cue) {
        match cue {
            Cue::Event(i) => {
                let event = self.script.events[i].clone();
                self.act(&event);
            }
            Cue::Subscribe(i) => self.subscribe(i),
            Cue::Publish(i) => {
                let publisher = &self.script.publishers[i];
                let (slot, topic) = (*publisher.node.get_ref(), topic(publisher.topic.get_ref()));
                // A dead publisher publishes nothing.
                if self.grove.world.machine(slot).is_some() {
                    self.grove.publish(slot, &topic, publisher.bytes);
                }
            }
        }
    }

    fn subscribe(&mut self, i: usize) {
        let subscribers = self.script.subscribers[i].clone();
        let topic = topic(subscribers.topic.get_ref());
        let (first, last) = *subscribers.nodes.get_ref();
        for slot in first..=last {
            if self.grove.world.machine(slot).is_none() {
                self.misfits.push(format!("nobody lives in slot {slot} to subscribe"));
                continue;
            }
            let is_late = subscribers.at.as_ref().is_some_and(|at| *at.get_ref() > 0.0);
            self.grove.count("late subscription", u64::from(is_late));
            match subscribers.takes {
                Some(credit) => {
                    self.grove.count("stalled application", 1);
                    let subscription = self.grove.subscribe_stalled(slot, &topic, credit);
                    self.stalled.entry(slot).or_default().push(subscription);
                }
                None => drop(self.grove.subscribe(slot, &topic)),
            }
        }
    }

    /// The slot that an event means.
    fn slot(&self, event: &Event) -> Option<usize> {
        match event.node.as_ref()?.get_ref() {
            Place::Node(slot) => Some(*slot),
            Place::Role(words) => match place(words)? {
                Role::Root(topic) => Some(self.grove.root(&topic)),
                Role::Forwarder(topic) => self.grove.parents(&topic).first().copied(),
                Role::Last => self.last,
            },
        }
    }

    fn act(&mut self, event: &Event) {
        let act = *event.act.get_ref();
        let slot = self.slot(event);
        let lives = slot.is_some_and(|slot| self.grove.world.machine(slot).is_some());
        let runs = slot.is_some_and(|slot| self.grove.world.is_running(slot));
        match (act, slot) {
            (Act::Heal, _) => self.pairs.drain(..).for_each(|cut| self.grove.heal(cut)),
            (Act::Join, _) => drop(self.grove.add(&self.some_ready())),
            (Act::Weather, _) => {
                let weather = event.weather.as_ref().map(script::Weather::faults);
                self.grove.world.set_faults(weather.unwrap_or_default());
            }
            (Act::Crash, Some(slot)) if lives => self.fail(slot, |grove| grove.crash(slot, Crash::Process)),
            (Act::PowerFailure, Some(slot)) if lives => {
                self.fail(slot, |grove| grove.crash(slot, Crash::Power))
            }
            (Act::Leave, Some(slot)) if runs => self.fail(slot, |grove| grove.leave(slot)),
            (Act::Pause, Some(slot)) if runs => self.fail(slot, |grove| grove.pause(slot)),
            (Act::Resume, Some(slot)) if lives && !runs => self.grove.resume(slot),
            (Act::Restart, Some(slot)) if !lives => self.grove.restart(slot, &self.some_ready()),
            (Act::Isolate, Some(slot)) if lives && !self.isolated.contains_key(&slot) => {
                let cut = self.grove.isolate(slot);
                self.isolated.insert(slot, cut);
                self.last = Some(slot);
            }
            (Act::Rejoin, Some(slot)) if self.isolated.contains_key(&slot) => {
                if let Some(cut) = self.isolated.remove(&slot) {
                    self.grove.rejoin(&[slot], cut);
                }
            }
            (Act::Part, Some(slot)) => {
                let other = event.with.as_ref().map(|with| *with.get_ref());
                let cut = other.map(|other| self.grove.cut(Cut::pair(slot, other)));
                self.pairs.extend(cut);
            }
            (Act::Unstall, Some(slot)) => {
                for subscription in self.stalled.remove(&slot).unwrap_or_default() {
                    self.grove.unstall(subscription);
                }
            }
            _ => {
                let misfit = format!("at {}: {act:?} does not fit {slot:?}", event.at.get_ref());
                return self.misfits.push(misfit);
            }
        }
        if let Some(event) = act.event() {
            self.grove.count(event, 1);
        }
    }

    fn fail(&mut self, slot: usize, how: impl FnOnce(&mut Grove)) {
        how(&mut self.grove);
        self.last = Some(slot);
    }

    fn some_ready(&self) -> Vec<usize> {
        self.grove.ready().into_iter().take(3).collect()
    }

    fn report(&self, path: &Path, verdict: Verdict) -> Report {
        let outcome = swarm::events(&self.grove);
        let (kept, failed, open) = self.grove.history.outcomes();
        let (gaps, deliveries) = (self.grove.history.gaps() as u64, self.grove.history.deliveries());
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
        let slowest = s6::undisturbed(&self.grove.history, Duration::MAX).unwrap_or_default();
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
        let mut rows = vec![
            Row::ours("whole after", told(self.whole_after)),
            Row::ours("settled after", told(self.settled_after)),
            Row::ours("deliveries", deliveries.to_string()),
            Row::ours("receipts", kept.to_string()),
            Row::ours("without receipt", (failed + open).to_string()),
            Row::ours("gaps", gaps.to_string()),
            Row::ours("slowest delivery", format!("{slowest:.1?}")),
        ];
        let happened = outcome.iter().filter(|(_, times)| **times > 0);
        rows.extend(happened.map(|(event, times)| Row::ours(*event, times.to_string())));
        let json = json!({
            "experiment": "scenario",
            "file": path.display().to_string(),
            "seed": self.script.seed,
            "faults": faults,
            "deliveries": deliveries,
            "receipts": kept,
            "without_receipt": failed + open,
            "gaps": gaps,
            "slowest_s": slowest.as_secs_f64(),
            "whole_after_s": self.whole_after.map(|time| time.as_secs_f64()),
            "settled_after_s": self.settled_after.map(|time| time.as_secs_f64()),
            "events": outcome,
            "steps": self.grove.world.steps(),
            "events_per_s": self.grove.world.steps() as f64 / self.started.elapsed().as_secs_f64().max(1e-9),
            "peak_bytes": memory::peak(),
            "trace_hash": self.grove.world.trace_hash(),
        });
        let mut report = Report {
            experiment: "scenario",
            conditions: vec![("file", path.display().to_string()), ("seed", self.script.seed.to_string())],
            rows,
            notes: vec![self.script.about.clone()],
            json: json.to_string(),
            faults,
            ..Report::default()
        };
        timeline::add_to(&mut report, &self.grove.history, self.begin);
        report
    }
}

fn topic(name: &str) -> Topic {
    Topic::new(name).expect("the script was checked")
}

//! A scenario's file: what it may say, and where it is wrong. Errors name file, line and key.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use treecast_scribe::Topic;

use crate::lab::Error;
use crate::lab::swarm::NOTICED;
use crate::timeline::{DONE, Deed};
use crate::world::{Faults, Topology};

/// A described run. Times are seconds of virtual time; those of the timeline count from the moment at which all nodes
/// of the beginning are on the ring.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Script {
    /// A sentence on it, for people.
    pub about: String,
    /// Everything random follows from it.
    #[serde(default = "one")]
    pub seed: u64,
    /// Nodes that join in the beginning.
    pub nodes: Spanned<usize>,
    /// How long they take to join.
    pub join_within: Option<Spanned<f64>>,
    /// The network, as on the command line.
    pub topology: Option<Spanned<String>>,
    /// Most that jitter adds to a frame's way, as a share of it.
    pub jitter: Option<Spanned<f64>>,
    /// Members of a leaf set, instead of those that ship.
    pub leaf_set: Option<usize>,
    /// Nodes up to which every node knows every node, likewise.
    pub full_membership: Option<usize>,
    /// The overlay spares frames, as in the swarm's plans.
    #[serde(default)]
    pub thrifty: bool,
    /// When the timeline ends, and all must come to rest.
    pub lasts: Spanned<f64>,
    /// The network's faults after the joins.
    pub weather: Option<Weather>,
    #[serde(default)]
    pub subscribers: Vec<Subscribers>,
    #[serde(default)]
    pub publishers: Vec<Publisher>,
    #[serde(default)]
    pub events: Vec<ScriptEvent>,
    #[serde(default)]
    pub expect: Expect,
}

fn one() -> u64 {
    1
}

/// Shares of frames.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Weather {
    loss: Option<Spanned<f64>>,
    duplication: Option<Spanned<f64>>,
    reordering: Option<Spanned<f64>>,
    /// Seconds.
    reorder_by: Option<Spanned<f64>>,
}

/// Nodes that subscribe to a topic.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscribers {
    pub topic: Spanned<String>,
    /// First and last node.
    pub nodes: Spanned<(usize, usize)>,
    pub at: Option<Spanned<f64>>,
    /// The application takes so many items, and then nothing until it is told to `unstall`.
    pub takes: Option<u32>,
}

/// A node that publishes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Publisher {
    pub topic: Spanned<String>,
    pub node: Spanned<usize>,
    /// Seconds between two messages.
    pub every: Spanned<f64>,
    pub from: Option<Spanned<f64>>,
    pub until: Spanned<f64>,
    #[serde(default = "two_hundred")]
    pub bytes: usize,
}

fn two_hundred() -> usize {
    200
}

/// Something that happens. The keys that belong to it depend on `do`: [`needs`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScriptEvent {
    pub at: Spanned<f64>,
    #[serde(rename = "do")]
    pub deed: Spanned<Deed>,
    pub node: Option<Spanned<Target>>,
    /// Several nodes.
    #[serde(default)]
    pub nodes: Vec<Spanned<usize>>,
    /// The other one of two.
    pub with: Option<Spanned<usize>>,
    /// Seconds until it ends.
    pub lasts: Option<Spanned<f64>>,
    /// For `weather`; without it: none.
    pub weather: Option<Weather>,
    pub topic: Option<Spanned<String>>,
    /// Messages of a burst.
    pub count: Option<usize>,
    /// Items that a subscriber takes before it stalls.
    pub takes: Option<u32>,
    /// Seconds that a slow node takes for a frame.
    pub per_frame: Option<Spanned<f64>>,
    /// Seconds that a clock jumps.
    pub by: Option<Spanned<f64>>,
    /// Millionths by which clocks run too fast or too slow at most.
    pub ppm: Option<i32>,
    /// Of an uplink.
    pub bytes_per_second: Option<u64>,
    /// Share of the pairs that are cut.
    pub share: Option<Spanned<f64>>,
}

/// The keys that an event needs besides `at` and `do`.
fn needs(deed: Deed) -> &'static [&'static str] {
    match deed {
        Deed::Heal | Deed::Join | Deed::JoinEdge | Deed::Weather | Deed::Drift => &[],
        Deed::Part | Deed::Deafen => &["node", "with"],
        Deed::Subscribe | Deed::Unsubscribe | Deed::Stall | Deed::Burst => &["node", "topic"],
        Deed::CrashRoot => &["topic"],
        Deed::CrashSeveral | Deed::PartMany => &["nodes"],
        Deed::Pairs => &["share"],
        Deed::Slow => &["node", "per_frame"],
        Deed::JumpClock => &["node", "by"],
        Deed::Throttle => &["node", "bytes_per_second"],
        Deed::CrashProcess
        | Deed::CrashPower
        | Deed::Restart
        | Deed::Leave
        | Deed::Pause
        | Deed::Resume
        | Deed::Isolate
        | Deed::Blink
        | Deed::Rejoin
        | Deed::PartNeighbours
        | Deed::Unstall
        | Deed::Matrix
        | Deed::Sparse
        | Deed::Thrifty => &["node"],
    }
}

/// Where something happens: at a node, or at a role that the run decides about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Target {
    Node(usize),
    /// `root of TOPIC`, `forwarder of TOPIC` or `last` (the node that failed last).
    Role(String),
}

/// Expectations. All promises must hold besides.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// Seconds after the end of the timeline until every subscriber is attached; 20 unless said otherwise.
    pub whole_within: Option<f64>,
    /// Seconds until everything is delivered or announced as lost; 40 unless said otherwise.
    pub settled_within: Option<f64>,
    /// Announced gaps, over all subscriptions: least and most.
    pub gaps: Option<(u64, u64)>,
    /// Publications without a receipt: least and most.
    pub without_receipt: Option<(u64, u64)>,
    /// Deliveries, over all subscriptions: least and most.
    pub deliveries: Option<(u64, u64)>,
    /// Seconds from publication to the last delivery, over all subscribers that take what comes.
    pub slowest: Option<f64>,
    /// Events, as `lab swarm` calls them, each of which must have happened.
    #[serde(default)]
    pub events: Vec<Spanned<String>>,
}

impl Weather {
    pub(super) fn faults(&self) -> Faults {
        let share = |value: &Option<Spanned<f64>>| value.as_ref().map_or(0.0, |value| *value.get_ref());
        Faults {
            loss: share(&self.loss),
            duplication: share(&self.duplication),
            reordering: share(&self.reordering),
            reorder_by: std::time::Duration::from_secs_f64(share(&self.reorder_by)),
        }
    }
}

/// A file and its text, to say where something is wrong.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    /// `file:line: key: what`.
    fn wrong<T>(&self, key: &str, at: &Spanned<T>, what: impl std::fmt::Display) -> Error {
        let line = self.text[..at.span().start.min(self.text.len())].matches('\n').count() + 1;
        Error::Usage(format!("{}:{line}: {key}: {what}", self.path.display()))
    }

    fn seconds(&self, key: &str, value: &Spanned<f64>) -> Result<(), Error> {
        match *value.get_ref() {
            seconds if (0.0..=3600.0).contains(&seconds) => Ok(()),
            other => Err(self.wrong(key, value, format!("{other} is no time from 0 to 3600 seconds"))),
        }
    }

    fn share(&self, key: &str, value: &Spanned<f64>) -> Result<(), Error> {
        match *value.get_ref() {
            share if (0.0..=1.0).contains(&share) => Ok(()),
            other => Err(self.wrong(key, value, format!("{other} is no share from 0 to 1"))),
        }
    }

    fn topic(&self, key: &str, value: &Spanned<String>) -> Result<(), Error> {
        Topic::new(value.get_ref()).map(drop).map_err(|why| self.wrong(key, value, why))
    }
}

impl Script {
    /// Reads a scenario, and says what is wrong with it before anything is run.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Script, Error> {
        let source = Source { path, text };
        let script: Script = toml::from_str(text).map_err(|error| {
            let at = Spanned::new(error.span().unwrap_or_default(), ());
            source.wrong("the file", &at, error.message())
        })?;
        script.check(&source)?;
        Ok(script)
    }

    fn check(&self, source: &Source<'_>) -> Result<(), Error> {
        if !(2..=2000).contains(self.nodes.get_ref()) {
            return Err(source.wrong("nodes", &self.nodes, "from 2 to 2000 are expected"));
        }
        for (key, value) in [("lasts", Some(&self.lasts)), ("join_within", self.join_within.as_ref())] {
            value.map_or(Ok(()), |value| source.seconds(key, value))?;
        }
        if let Some(jitter) = &self.jitter {
            source.share("jitter", jitter)?;
        }
        if let Some(name) = &self.topology {
            let parsed: Result<Topology, _> = name.get_ref().parse();
            parsed.map_err(|why| source.wrong("topology", name, why))?;
        }
        self.weather.iter().try_for_each(|weather| check_weather(source, weather))?;
        self.check_applications(source)?;
        self.events.iter().try_for_each(|event| self.check_event(source, event))?;
        let can_be: Vec<&str> = DONE.into_iter().chain(NOTICED).collect();
        match self.expect.events.iter().find(|name| !can_be.contains(&name.get_ref().as_str())) {
            Some(name) => {
                let events = can_be.join(", ");
                let what = format!("a scenario has no event `{}`; there are: {events}", name.get_ref());
                Err(source.wrong("expect.events", name, what))
            }
            None => Ok(()),
        }
    }

    fn check_applications(&self, source: &Source<'_>) -> Result<(), Error> {
        for subscribers in &self.subscribers {
            let (first, last) = *subscribers.nodes.get_ref();
            source.topic("subscribers.topic", &subscribers.topic)?;
            subscribers.at.iter().try_for_each(|at| source.seconds("subscribers.at", at))?;
            if first > last || last >= self.all_nodes() {
                let what = format!("[first, last] of nodes 0 to {} is expected", self.all_nodes() - 1);
                return Err(source.wrong("subscribers.nodes", &subscribers.nodes, what));
            }
        }
        for publisher in &self.publishers {
            source.topic("publishers.topic", &publisher.topic)?;
            self.check_node(source, "publishers.node", &publisher.node, *publisher.node.get_ref())?;
            source.seconds("publishers.until", &publisher.until)?;
            publisher.from.iter().try_for_each(|from| source.seconds("publishers.from", from))?;
            if *publisher.every.get_ref() < 0.001 {
                let what = "at least 0.001 seconds are expected";
                return Err(source.wrong("publishers.every", &publisher.every, what));
            }
        }
        Ok(())
    }

    /// Nodes of the beginning and those that come later.
    fn all_nodes(&self) -> usize {
        let joins = |event: &&ScriptEvent| matches!(event.deed.get_ref(), Deed::Join | Deed::JoinEdge);
        self.nodes.get_ref() + self.events.iter().filter(joins).count()
    }

    fn check_node<T>(
        &self,
        source: &Source<'_>,
        key: &str,
        at: &Spanned<T>,
        node: usize,
    ) -> Result<(), Error> {
        if node < self.all_nodes() {
            return Ok(());
        }
        let what = format!("there is no node {node}: they are numbered from 0 to {}", self.all_nodes() - 1);
        Err(source.wrong(key, at, what))
    }

    fn check_event(&self, source: &Source<'_>, event: &ScriptEvent) -> Result<(), Error> {
        source.seconds("events.at", &event.at)?;
        for (key, value) in
            [("events.lasts", &event.lasts), ("events.per_frame", &event.per_frame), ("events.by", &event.by)]
        {
            value.iter().try_for_each(|value| source.seconds(key, value))?;
        }
        event.share.iter().try_for_each(|share| source.share("events.share", share))?;
        event.topic.iter().try_for_each(|topic| source.topic("events.topic", topic))?;
        event.weather.iter().try_for_each(|weather| check_weather(source, weather))?;
        let given = [
            ("node", event.node.is_some() || !event.nodes.is_empty()),
            ("with", event.with.is_some()),
            ("nodes", !event.nodes.is_empty()),
            ("topic", event.topic.is_some()),
            ("share", event.share.is_some()),
            ("per_frame", event.per_frame.is_some()),
            ("by", event.by.is_some()),
            ("bytes_per_second", event.bytes_per_second.is_some()),
        ];
        for key in needs(*event.deed.get_ref()) {
            if !given.contains(&(key, true)) {
                return Err(source.wrong("events.do", &event.deed, format!("it needs a `{key}`")));
            }
        }
        for node in event.nodes.iter().chain(&event.with) {
            let key = if event.nodes.is_empty() { "events.with" } else { "events.nodes" };
            self.check_node(source, key, node, *node.get_ref())?;
        }
        let Some(node) = &event.node else { return Ok(()) };
        match node.get_ref() {
            Target::Node(slot) => self.check_node(source, "events.node", node, *slot),
            Target::Role(role) if place(role).is_none() => {
                let what = format!(
                    "`{role}` is no place: a number, `last`, `root of TOPIC` or `forwarder of TOPIC`"
                );
                Err(source.wrong("events.node", node, what))
            }
            Target::Role(_) => Ok(()),
        }
    }
}

fn check_weather(source: &Source<'_>, weather: &Weather) -> Result<(), Error> {
    let shares = [
        ("weather.loss", &weather.loss),
        ("weather.duplication", &weather.duplication),
        ("weather.reordering", &weather.reordering),
    ];
    for (key, value) in shares {
        value.iter().try_for_each(|value| source.share(key, value))?;
    }
    weather.reorder_by.iter().try_for_each(|value| source.seconds("weather.reorder_by", value))
}

/// A role that the run decides about.
pub(super) enum Role {
    Root(Topic),
    Forwarder(Topic),
    Last,
}

/// The role that a target's words name.
pub(super) fn place(words: &str) -> Option<Role> {
    if words == "last" {
        return Some(Role::Last);
    }
    let (role, name) = words.split_once(" of ")?;
    let topic = Topic::new(name).ok()?;
    match role {
        "root" => Some(Role::Root(topic)),
        "forwarder" => Some(Role::Forwarder(topic)),
        _ => None,
    }
}

//! Those who publish and those who listen, and whether what came is what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;
use treecast_scribe::message::{Mark, Position, Term};
use treecast_scribe::overlay::id::NodeId;

use crate::net::Host;
use crate::ring::on;
use crate::support::{PATIENCE, Process};

const TOPIC: &str = "demo";

/// A message's identity, as all say it: publisher's session, and number there.
type Id = (String, u64);

/// A `treecast pub` that goes on.
pub(crate) struct Publisher {
    pub(crate) host: Host,
    process: Process,
    /// What it was told to publish, in order, and the place in the log if there was a receipt.
    outcomes: Vec<(String, Option<(Id, Position)>)>,
}

impl Publisher {
    pub(crate) fn start(host: Host) -> Publisher {
        let command = on(host, &["pub", TOPIC, "-l", "--json", "--ephemeral", "-v"], &[host]);
        let process = Process::start(&format!("publisher on {host:?}"), command);
        Publisher { host, process, outcomes: Vec::new() }
    }

    /// Publishes these, all under way at once, and waits for the word on each: how many have receipts.
    pub(crate) fn publish(&mut self, texts: impl IntoIterator<Item = String>) -> usize {
        let texts: Vec<String> = texts.into_iter().collect();
        for text in &texts {
            self.process.type_line(text);
        }
        let mut received = 0;
        for text in texts {
            let word = self.process.json("a receipt, or word that there is none");
            let outcome = (word["event"] != "failed").then(|| (id(&word), position(&word).unwrap()));
            received += usize::from(outcome.is_some());
            self.outcomes.push((text, outcome));
        }
        received
    }

    /// Publishes until there is a receipt, however many of these get none; returns the text that has one.
    pub(crate) fn publish_until_received(&mut self, what: &str) -> String {
        let begun = Instant::now();
        loop {
            let text = format!("{what}, line {}", self.outcomes.len());
            if self.publish([text.clone()]) == 1 {
                return text;
            }
            assert!(begun.elapsed() < PATIENCE, "{:?} gets no receipt for {what:?}", self.host);
        }
    }

    /// The root that gave the last receipt.
    pub(crate) fn root(&self) -> Option<NodeId> {
        self.outcomes.iter().rev().find_map(|(_, outcome)| Some(outcome.as_ref()?.1.term.root))
    }

    pub(crate) fn without_receipt(&self) -> usize {
        self.outcomes.iter().filter(|(_, outcome)| outcome.is_none()).count()
    }
}

/// A `treecast sub`, and all that it was told.
pub(crate) struct Subscriber {
    pub(crate) host: Host,
    name: String,
    process: Process,
    items: Vec<Item>,
}

enum Item {
    Message { id: Id, text: String, mark: Mark },
    Gap { after: Option<Position>, until: Option<Position>, other_log: bool },
}

impl Subscriber {
    pub(crate) fn start(host: Host) -> Subscriber {
        let name = format!("subscriber on {host:?}");
        let command = on(host, &["sub", TOPIC, "--json", "--ephemeral", "-v"], &[host]);
        let mut process = Process::start(&name, command);
        process.event("subscribed");
        Subscriber { host, name, process, items: Vec::new() }
    }

    /// Listens until this has come.
    pub(crate) fn hear(&mut self, wanted: &str) {
        while !self.has_heard(wanted) {
            let word = self.process.json(wanted);
            self.items.push(Item::of(&word));
        }
    }

    fn has_heard(&self, wanted: &str) -> bool {
        self.messages().any(|(_, text, _)| text == wanted)
    }

    fn messages(&self) -> impl Iterator<Item = (&Id, &str, Mark)> {
        self.items.iter().filter_map(|item| match item {
            Item::Message { id, text, mark } => Some((id, text.as_str(), *mark)),
            Item::Gap { .. } => None,
        })
    }

    /// Nothing comes twice, positions only grow, and a session's numbers follow each other, but for announced gaps.
    fn judge_order(&self) {
        let name = &self.name;
        let (mut ids, mut last, mut sessions) = (BTreeSet::new(), None, BTreeMap::new());
        for item in &self.items {
            match item {
                Item::Message { id, text, mark } => {
                    assert!(ids.insert(id), "{name}: {text:?} came twice");
                    assert!(mark.position > last, "{name}: {text:?} at {mark} came after {last:?}");
                    last = mark.position;
                    if let Some(before) = sessions.insert(&id.0, id.1) {
                        assert_eq!(id.1, before + 1, "{name}: no gap was announced before {text:?}");
                    }
                }
                Item::Gap { other_log, .. } => {
                    sessions.clear();
                    last = last.filter(|_| !other_log);
                }
            }
        }
    }

    /// Whether it was told that it does not get what stands there. A bound names the branch that was followed: the one
    /// beside it was lost, or left, between the two.
    fn was_told_of_a_gap(&self, at: Position) -> bool {
        let beside = |bound: Option<Position>| {
            bound.is_some_and(|bound| bound.term.number == at.term.number && bound.term.root != at.term.root)
        };
        self.items.iter().any(|item| match item {
            Item::Message { .. } => false,
            Item::Gap { other_log: true, after, .. } => Some(at) > *after || beside(*after),
            Item::Gap { after, until, .. } => {
                (Some(at) > *after || beside(*after))
                    && (until.is_none_or(|until| at < until) || beside(*until))
            }
        })
    }
}

impl Item {
    fn of(word: &Value) -> Item {
        if word["event"] == "gap" {
            let other_log = word["reason"] == "other_log";
            return Item::Gap { after: position(&word["after"]), until: position(&word["until"]), other_log };
        }
        let text = word["payload"].as_str().unwrap_or_else(|| panic!("no message: {word}")).to_string();
        Item::Message { id: id(word), text, mark: word["mark"].as_str().unwrap().parse().unwrap() }
    }
}

fn id(word: &Value) -> Id {
    (word["session"].as_str().unwrap().to_string(), word["seq"].as_u64().unwrap())
}

fn position(word: &Value) -> Option<Position> {
    let number = word["term"].as_u64()?;
    let root = word["root"].as_str()?.parse().unwrap();
    Some(Position { term: Term { number, root }, offset: word["offset"].as_u64()? })
}

/// What every story demands of all that was published and heard; returns how many messages with a receipt were announced
/// as lost, counted once for each subscriber.
pub(crate) fn judge(publishers: &[&Publisher], subscribers: &[Subscriber]) -> usize {
    let outcomes = || publishers.iter().flat_map(|publisher| &publisher.outcomes);
    let published: BTreeSet<&str> = outcomes().map(|(text, _)| text.as_str()).collect();
    let mut places = BTreeMap::new();
    let mut announced = 0;
    for subscriber in subscribers {
        let name = &subscriber.name;
        subscriber.judge_order();
        for (id, text, mark) in subscriber.messages() {
            assert!(published.contains(text), "{name}: nobody published {text:?}");
            let first = places.entry((mark.birth, mark.position)).or_insert(id);
            assert_eq!(*first, id, "{name}: {mark} is two messages");
        }
        let heard: BTreeSet<&Id> = subscriber.messages().map(|(id, _, _)| id).collect();
        for (text, outcome) in outcomes() {
            let Some((id, at)) = outcome else { continue };
            if !heard.contains(id) {
                assert!(subscriber.was_told_of_a_gap(*at), "{name}: {text:?} at {at} was lost silently");
                announced += 1;
            }
        }
    }
    announced
}

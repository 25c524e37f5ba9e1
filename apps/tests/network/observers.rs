//! Those who publish and those who listen, and whether what came is what was promised.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;
use treecast_scribe::message::{Mark, Position};

use crate::net::Host;
use crate::ring::on;
use crate::support::{PATIENCE, Process};

pub(crate) const TOPIC: &str = "demo";

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

    /// The birth of the log that took its last message with a receipt.
    pub(crate) fn birth(&self) -> Option<u64> {
        self.outcomes.iter().rev().find_map(|(_, outcome)| Some(outcome.as_ref()?.1.birth))
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
    Message { id: Id, text: String, at: Position },
    Gap { after: Option<Position>, until: Position },
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

    fn messages(&self) -> impl Iterator<Item = (&Id, &str, Position)> {
        self.items.iter().filter_map(|item| match item {
            Item::Message { id, text, at } => Some((id, text.as_str(), *at)),
            Item::Gap { .. } => None,
        })
    }

    /// The gaps that it was told of, for failures.
    fn gaps(&self) -> Vec<String> {
        let gap = |item: &Item| match item {
            Item::Message { .. } => None,
            Item::Gap { after: Some(after), until } => Some(format!("{after:#} to {until:#}")),
            Item::Gap { after: None, until } => Some(format!("the beginning to {until:#}")),
        };
        self.items.iter().filter_map(gap).collect()
    }

    /// Nothing comes twice, offsets only grow, and a session's numbers follow each other, but for announced gaps.
    fn judge_order(&self) {
        let name = &self.name;
        let (mut ids, mut next, mut sessions) = (BTreeSet::new(), 0, BTreeMap::new());
        for item in &self.items {
            match item {
                Item::Message { id, text, at } => {
                    assert!(ids.insert(id), "{name}: {text:?} came twice");
                    assert!(at.offset >= next, "{name}: {text:?} at {at:#} came when {next} was next");
                    next = at.offset + 1;
                    if let Some(before) = sessions.insert(&id.0, id.1) {
                        assert_eq!(id.1, before + 1, "{name}: no gap was announced before {text:?}");
                    }
                }
                Item::Gap { until, .. } => {
                    sessions.clear();
                    next = until.offset;
                }
            }
        }
    }

    /// Whether it was told that it does not get what stands there: between the bounds of a gap; or, where a gap leads from one
    /// birth of the log to another, behind the one bound or before the other, or in a birth that is neither.
    fn was_told_of_a_gap(&self, at: Position) -> bool {
        self.items.iter().any(|item| match item {
            Item::Message { .. } => false,
            Item::Gap { after, until } => {
                let after_here = after.filter(|after| after.birth == at.birth);
                let until_here = Some(until).filter(|until| until.birth == at.birth);
                let changes_birth = after.is_none_or(|after| after.birth != until.birth);
                let within = after_here.is_none_or(|after| at.offset > after.offset)
                    && until_here.is_none_or(|until| at.offset < until.offset);
                within && (changes_birth || after_here.is_some())
            }
        })
    }
}

impl Item {
    fn of(word: &Value) -> Item {
        if word["event"] == "gap" {
            let until = position(&word["until"]).unwrap_or_else(|| panic!("no end of the gap: {word}"));
            return Item::Gap { after: position(&word["after"]), until };
        }
        let text = word["payload"].as_str().unwrap_or_else(|| panic!("no message: {word}")).to_string();
        let at = position(word).unwrap();
        let mark: Mark = word["mark"].as_str().unwrap().parse().unwrap();
        assert_eq!((mark.birth, mark.next), (at.birth, at.offset + 1), "the mark behind {word}");
        Item::Message { id: id(word), text, at }
    }
}

fn id(word: &Value) -> Id {
    (word["session"].as_str().unwrap().to_string(), word["seq"].as_u64().unwrap())
}

fn position(word: &Value) -> Option<Position> {
    let birth = u64::from_str_radix(word["birth"].as_str()?, 16).unwrap();
    Some(Position { birth, offset: word["offset"].as_u64()? })
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
        for (id, text, at) in subscriber.messages() {
            assert!(published.contains(text), "{name}: nobody published {text:?}");
            let first = places.entry(at).or_insert(id);
            assert_eq!(*first, id, "{name}: {at:#} is two messages");
        }
        let heard: BTreeSet<&Id> = subscriber.messages().map(|(id, _, _)| id).collect();
        for (text, outcome) in outcomes() {
            let Some((id, at)) = outcome else { continue };
            if !heard.contains(id) {
                let told = subscriber.gaps();
                assert!(
                    subscriber.was_told_of_a_gap(*at),
                    "{name}: {text:?} at {at:#} was lost silently; told of the gaps {told:?}"
                );
                announced += 1;
            }
        }
    }
    announced
}

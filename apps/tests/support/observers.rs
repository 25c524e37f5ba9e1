//! Publishers and subscribers as processes, and the judge that compares receipts with what each subscriber printed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;
use treecast_scribe::message::{Mark, Position};

use super::{PATIENCE, Process};

pub const TOPIC: &str = "demo";
/// Faults that a verdict tells in words; all are counted.
const TOLD: usize = 20;

/// A message's identity, as all say it: publisher's session, and number there.
type Id = (String, u64);

/// A `treecast pub TOPIC -l --json` that goes on. Its process may be killed and started again.
pub struct Publisher {
    process: Process,
    /// What it was told to publish, in order.
    publications: Vec<Publication>,
    /// The publication that the process's next word is about.
    next: usize,
}

/// A line that was written to a publisher's stdin. No other line of a test has its text.
struct Publication {
    text: String,
    sent: Instant,
    /// `None`: none came yet, or the process was killed before.
    word: Option<Word>,
}

enum Word {
    Received { id: Id, at: Position, copies: u64, after: Duration },
    Failed(String),
}

impl Publisher {
    pub fn new(process: Process) -> Publisher {
        Publisher { process, publications: Vec::new(), next: 0 }
    }

    /// kill -9. What it has said by then counts.
    pub fn kill(&mut self) {
        self.process.kill();
        for word in self.process.rest_of_json() {
            self.note(&word);
        }
    }

    /// Goes on with another process after the old one was killed. What was under way has no word.
    pub fn start_again(&mut self, process: Process) {
        self.process = process;
        self.next = self.publications.len();
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Publishes this, and waits for nothing.
    pub fn send(&mut self, text: String) {
        self.process.type_line(&text);
        self.publications.push(Publication { text, sent: Instant::now(), word: None });
    }

    /// Takes the words that have come.
    pub fn listen(&mut self) {
        while let Some(word) = self.process.json_now() {
            self.note(&word);
        }
    }

    /// Publishes these, all under way at once, and waits for the word on each: how many have receipts.
    pub fn publish(&mut self, texts: impl IntoIterator<Item = String>) -> usize {
        let first = self.publications.len();
        for text in texts {
            self.send(text);
        }
        while self.under_way() > 0 {
            let word = self.process.json("a receipt, or word that there is none");
            self.note(&word);
        }
        self.publications[first..].iter().filter(|publication| publication.received().is_some()).count()
    }

    /// Publishes until there is a receipt, however many of these get none; returns the text that has one.
    pub fn publish_until_received(&mut self, what: &str) -> String {
        let begun = Instant::now();
        loop {
            let text = format!("{what}, line {} of {}", self.publications.len(), self.process.name());
            if self.publish([text.clone()]) == 1 {
                return text;
            }
            assert!(begun.elapsed() < PATIENCE, "{} gets no receipt for {what:?}", self.process.name());
        }
    }

    fn note(&mut self, word: &Value) {
        let publication = self.publications.get_mut(self.next).unwrap_or_else(|| panic!("of what: {word}"));
        self.next += 1;
        publication.word = Some(match word["event"] == "failed" {
            true => Word::Failed(word["error"].as_str().unwrap().to_string()),
            false => Word::Received {
                id: id(word),
                at: position(word).unwrap(),
                copies: word["copies"].as_u64().unwrap(),
                after: publication.sent.elapsed(),
            },
        });
    }

    /// How many wait for their words.
    pub fn under_way(&self) -> usize {
        self.publications.len() - self.next
    }

    /// How many it was told to publish.
    pub fn published(&self) -> usize {
        self.publications.len()
    }

    /// Whether something that was published after this instant has a receipt of so many copies.
    pub fn received_since(&self, since: Instant, copies: u64) -> bool {
        let later = self.publications.iter().rev().take_while(|publication| publication.sent > since);
        later.filter_map(|publication| publication.word.as_ref()).any(|word| match word {
            Word::Received { copies: held, .. } => *held >= copies,
            Word::Failed(_) => false,
        })
    }

    /// The birth of the log that took its last message with a receipt.
    pub fn birth(&self) -> Option<u64> {
        self.publications.iter().rev().find_map(|publication| Some(publication.received()?.1.birth))
    }

    pub fn without_receipt(&self) -> usize {
        self.publications.iter().filter(|publication| publication.received().is_none()).count()
    }

    /// The longest time from a line to its receipt.
    pub fn worst_wait(&self) -> Duration {
        let wait = |publication: &Publication| match publication.word {
            Some(Word::Received { after, .. }) => Some(after),
            Some(Word::Failed(_)) | None => None,
        };
        self.publications.iter().filter_map(wait).max().unwrap_or_default()
    }
}

impl Publication {
    fn received(&self) -> Option<(&Id, Position)> {
        match &self.word {
            Some(Word::Received { id, at, .. }) => Some((id, *at)),
            Some(Word::Failed(_)) | None => None,
        }
    }

    /// Whether it is certain that it is not in the log.
    fn is_refused(&self) -> bool {
        matches!(&self.word, Some(Word::Failed(error)) if !error.starts_with("outcome unknown"))
    }
}

/// A `treecast sub TOPIC --json`, and all that it printed. Its process may be killed, and another one goes on from the mark.
pub struct Subscriber {
    process: Process,
    items: Vec<Item>,
    mark: Option<String>,
}

enum Item {
    Message { id: Id, text: String, at: Position },
    Gap { after: Option<Position>, until: Position, reason: String },
}

impl Subscriber {
    pub fn new(process: Process) -> Subscriber {
        Subscriber { process, items: Vec::new(), mark: None }
    }

    /// Waits until it is subscribed.
    pub fn subscribed(mut self) -> Subscriber {
        let subscribed = self.process.event("subscribed");
        self.note(&subscribed);
        self
    }

    /// kill -9. What it has printed by then counts.
    pub fn kill(&mut self) {
        self.process.kill();
        for word in self.process.rest_of_json() {
            self.note(&word);
        }
    }

    /// Goes on with another process after the old one was killed; its command says from which [`mark`](Subscriber::mark) on.
    pub fn start_again(&mut self, process: Process) {
        self.process = process;
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The last mark that it printed.
    pub fn mark(&self) -> Option<&str> {
        self.mark.as_deref()
    }

    /// Takes what has come.
    pub fn listen(&mut self) {
        while let Some(word) = self.process.json_now() {
            self.note(&word);
        }
    }

    /// Listens until this has come.
    pub fn hear(&mut self, wanted: &str) {
        while !self.has_heard(wanted) {
            let word = self.process.json(wanted);
            self.note(&word);
        }
    }

    pub fn has_heard(&self, wanted: &str) -> bool {
        // What is asked for came lately, as a rule.
        self.items.iter().rev().any(|item| matches!(item, Item::Message { text, .. } if text == wanted))
    }

    fn note(&mut self, word: &Value) {
        if word["event"] != "gap" {
            self.mark = Some(word["mark"].as_str().unwrap_or_else(|| panic!("no mark: {word}")).to_string());
        }
        if word["event"] != "subscribed" {
            self.items.push(Item::of(word));
        }
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
            Item::Gap { after, until, reason } => {
                let after = after.map_or("the beginning".to_string(), |after| format!("{after:#}"));
                Some(format!("{after} to {until:#} ({reason})"))
            }
        };
        self.items.iter().filter_map(gap).collect()
    }

    /// Nothing comes twice, offsets only grow, and a session's numbers follow each other, but for announced gaps.
    fn judge_order(&self, verdict: &mut Verdict) {
        let name = self.process.name();
        let (mut ids, mut texts, mut next, mut sessions) =
            (BTreeSet::new(), BTreeSet::new(), 0, BTreeMap::new());
        for item in &self.items {
            match item {
                Item::Message { id, text, at } => {
                    // Both: a publisher that sends again in another session gives one text two identities.
                    if !ids.insert(id) | !texts.insert(text) {
                        verdict.duplicates += 1;
                        verdict.tell(format!("{name}: {text:?} came twice, the second time at {at:#}"));
                    }
                    if at.offset < next {
                        verdict.out_of_order += 1;
                        verdict.tell(format!("{name}: {text:?} at {at:#} came when {next} was next"));
                    }
                    next = at.offset + 1;
                    if let Some(before) = sessions.insert(&id.0, id.1)
                        && id.1 != before + 1
                    {
                        verdict.out_of_order += 1;
                        let session = &id.0;
                        verdict.tell(format!(
                            "{name}: {text:?} at {at:#} is number {} of session {session}, and came behind {before}: no gap was \
                             announced",
                            id.1
                        ));
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
    /// birth of the log to another, behind the one bound or before the other, or in a birth that is neither; or, where another
    /// log gave way to the subscriber's own, in a birth that is not its own.
    fn was_told_of_a_gap(&self, at: Position) -> bool {
        self.items.iter().any(|item| match item {
            Item::Message { .. } => false,
            Item::Gap { after, until, reason } => {
                let after_here = after.filter(|after| after.birth == at.birth);
                let until_here = Some(until).filter(|until| until.birth == at.birth);
                let changes_birth = after.is_none_or(|after| after.birth != until.birth);
                let within = after_here.is_none_or(|after| at.offset > after.offset)
                    && until_here.is_none_or(|until| at.offset < until.offset);
                let gave_way = reason == "other_log" && at.birth != until.birth;
                gave_way || within && (changes_birth || after_here.is_some())
            }
        })
    }
}

impl Item {
    fn of(word: &Value) -> Item {
        if word["event"] == "gap" {
            let until = position(&word["until"]).unwrap_or_else(|| panic!("no end of the gap: {word}"));
            let reason = word["reason"].as_str().unwrap().to_string();
            return Item::Gap { after: position(&word["after"]), until, reason };
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

/// What came of all that was published, counted once for each subscriber where it is about what it printed.
#[derive(Debug, Default)]
pub struct Verdict {
    pub published: usize,
    pub acknowledged: usize,
    /// "Outcome unknown", or the publisher was killed before it said anything.
    pub unknown: usize,
    pub refused: usize,
    pub worst_wait: Duration,
    pub delivered: usize,
    pub gaps: usize,
    /// Has a receipt, was not printed, and lies in a gap that was.
    pub announced: usize,
    /// Has a receipt, was not printed, and no gap covers it.
    pub lost_acknowledged: usize,
    pub duplicates: usize,
    pub out_of_order: usize,
    /// Whatever else must not be: one place of two messages, a receipt of another place, text that nobody published.
    pub other_faults: usize,
    /// The first faults, in words.
    faults: Vec<String>,
}

impl Verdict {
    /// Tells a fault that is counted elsewhere.
    fn tell(&mut self, fault: String) {
        if self.faults.len() < TOLD {
            self.faults.push(fault);
        }
    }

    fn other(&mut self, fault: String) {
        self.other_faults += 1;
        self.tell(fault);
    }

    /// Whether anything was found that must not be; gaps that are told may be.
    pub fn is_broken(&self) -> bool {
        self.lost_acknowledged + self.duplicates + self.out_of_order + self.other_faults > 0
    }

    /// The same where no gap may be, either.
    pub fn is_broken_or_has_gaps(&self) -> bool {
        self.is_broken() || self.gaps + self.announced > 0
    }

    /// What was found, in words.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "published {}, acknowledged {}, outcome unknown {}, refused {}, worst wait for a receipt {:.1?}; delivered {}, \
             lost_acknowledged {}, duplicates {}, order violations {}, other faults {}, gaps {} (acknowledged and in a gap {})",
            self.published,
            self.acknowledged,
            self.unknown,
            self.refused,
            self.worst_wait,
            self.delivered,
            self.lost_acknowledged,
            self.duplicates,
            self.out_of_order,
            self.other_faults,
            self.gaps,
            self.announced,
        )
    }
}

/// Compares all that was published with all that was printed. Every subscriber was there before anything was published.
pub fn judge(publishers: &[&Publisher], subscribers: &[&Subscriber]) -> Verdict {
    let publications = || publishers.iter().flat_map(|publisher| &publisher.publications);
    let texts: BTreeMap<&str, &Publication> =
        publications().map(|publication| (publication.text.as_str(), publication)).collect();
    let mut verdict = Verdict {
        published: publications().count(),
        acknowledged: publications().filter(|publication| publication.received().is_some()).count(),
        refused: publications().filter(|publication| publication.is_refused()).count(),
        worst_wait: publishers.iter().map(|publisher| publisher.worst_wait()).max().unwrap_or_default(),
        ..Verdict::default()
    };
    assert_eq!(texts.len(), verdict.published, "a test publishes no text twice");
    verdict.unknown = verdict.published - verdict.acknowledged - verdict.refused;
    let mut places = BTreeMap::new();
    for subscriber in subscribers {
        let name = subscriber.process.name();
        subscriber.judge_order(&mut verdict);
        verdict.gaps += subscriber.gaps().len();
        for (id, text, at) in subscriber.messages() {
            verdict.delivered += 1;
            match texts.get(text) {
                None => verdict.other(format!("{name}: nobody published {text:?}")),
                Some(published) if published.is_refused() => {
                    verdict.other(format!("{name}: {text:?} was refused, and came at {at:#}"));
                }
                Some(_) => {}
            }
            let first = places.entry(at).or_insert(id);
            if *first != id {
                verdict.other(format!("{name}: {at:#} is two messages"));
            }
        }
        let heard: BTreeSet<&Id> = subscriber.messages().map(|(id, _, _)| id).collect();
        for publication in publications() {
            let Some((id, at)) = publication.received() else { continue };
            if heard.contains(id) {
                continue;
            }
            if subscriber.was_told_of_a_gap(at) {
                verdict.announced += 1;
                continue;
            }
            verdict.lost_acknowledged += 1;
            let (text, told) = (&publication.text, subscriber.gaps());
            verdict.tell(format!(
                "{name}: {text:?} at {at:#} was lost silently; it was told of the gaps {told:?}"
            ));
        }
    }
    verdict
}

/// The same where one log goes on throughout, and nobody is told of a gap: all print the same, and each receipt names the
/// place of its delivery.
pub fn judge_one_log(publishers: &[&Publisher], subscribers: &[&Subscriber]) -> Verdict {
    let mut verdict = judge(publishers, subscribers);
    let Some((first, others)) = subscribers.split_first() else { return verdict };
    let printed: Vec<_> = first.messages().collect();
    for other in others {
        let names = (first.process.name(), other.process.name());
        let also: Vec<_> = other.messages().collect();
        let same = printed.iter().zip(&also).take_while(|(one, other)| one == other).count();
        if same < printed.len().max(also.len()) {
            verdict.other(format!(
                "{names:?} printed {same} messages alike, and then {:?} and {:?}",
                printed.get(same),
                also.get(same)
            ));
        }
    }
    let places: BTreeMap<&Id, Position> = printed.iter().map(|(id, _, at)| (*id, *at)).collect();
    for publication in publishers.iter().flat_map(|publisher| &publisher.publications) {
        let Some((id, at)) = publication.received() else { continue };
        if let Some(place) = places.get(id).filter(|place| **place != at) {
            verdict.other(format!("{:?} came at {place:#}, and its receipt says {at:#}", publication.text));
        }
    }
    for subscriber in subscribers {
        for gap in subscriber.gaps() {
            verdict.tell(format!("{}: was told of the gap {gap}", subscriber.process.name()));
        }
    }
    verdict
}

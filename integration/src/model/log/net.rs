//! A state of the model: the nodes, and the messages that were sent.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Addr, Peer};
use treecast_scribe::log::Log;
use treecast_scribe::log::primary::{PrepareOutcome, Primary};
use treecast_scribe::log::window::Held;
use treecast_scribe::wire::{Birth, Body, CopyState, Life, Lineage, Member, Members, Signature, Sync, Term};

use super::{LogBug, LogModel, MAJORITY, ONE_LOG, TRUE_COMMIT};

/// The birth of the log that all of it is about.
const BIRTH: u64 = 1;

/// A state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogNet {
    /// Shared with the states that differ in others.
    nodes: Vec<Arc<Node>>,
    sent: Arc<BTreeSet<Arc<SentMessage>>>,
    used: Used,
    /// The number of the last term.
    last_term: u64,
    /// What was committed, in order.
    chosen: Arc<Vec<Held>>,
    /// The promise that this state breaks; nothing happens after it.
    broken: Option<&'static str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Used {
    values: u8,
    takeovers: u8,
    changes: u8,
    restarts: u8,
    drops: u8,
    hears: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Node {
    life: Life,
    log: Option<Box<Log>>,
    primary: Option<Primary>,
}

/// The parts of all states, each held once: few nodes and messages make many states.
#[derive(Default)]
pub(super) struct StateParts {
    nodes: Mutex<HashSet<Arc<Node>>>,
    sent: Mutex<HashSet<Arc<BTreeSet<Arc<SentMessage>>>>>,
    messages: Mutex<HashSet<Arc<SentMessage>>>,
    chosen: Mutex<HashSet<Arc<Vec<Held>>>>,
}

impl StateParts {
    /// Makes the parts in which a state differs from the one before it those that are held.
    fn share(&self, before: &LogNet, net: &mut LogNet) {
        for (node, before) in net.nodes.iter_mut().zip(&before.nodes) {
            if !Arc::ptr_eq(node, before) {
                held_once(&self.nodes, node);
            }
        }
        if !Arc::ptr_eq(&net.chosen, &before.chosen) {
            held_once(&self.chosen, &mut net.chosen);
        }
        if !Arc::ptr_eq(&net.sent, &before.sent) {
            let sent = net.sent.iter().map(|sent| {
                let mut sent = Arc::clone(sent);
                if !before.sent.contains(&sent) {
                    held_once(&self.messages, &mut sent);
                }
                sent
            });
            net.sent = Arc::new(sent.collect());
            held_once(&self.sent, &mut net.sent);
        }
    }
}

/// Takes the equal one that is held, or else holds this one.
fn held_once<T: Eq + Hash>(all: &Mutex<HashSet<Arc<T>>>, part: &mut Arc<T>) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.get(part) {
        *part = Arc::clone(known);
    } else {
        all.insert(Arc::clone(part));
    }
}

/// A message. Its order among others means nothing, but lets them be a set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum LogMessage {
    Prepare {
        to: u8,
        term: Term,
    },
    /// With it, the log that the root may pull.
    Promise {
        from: u8,
        term: Term,
        promised: Box<(CopyState, Log)>,
    },
    Copy {
        to: u8,
        next: u64,
        sync: Sync,
        entries: Vec<Held>,
    },
    Holds {
        from: u8,
        life: Life,
        term: Term,
        end: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct SentMessage {
    word: LogMessage,
    /// A hash of it, which stands for it among others.
    order: u64,
}

impl Hash for SentMessage {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.order.hash(state);
    }
}

impl PartialOrd for SentMessage {
    fn partial_cmp(&self, other: &SentMessage) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SentMessage {
    fn cmp(&self, other: &SentMessage) -> std::cmp::Ordering {
        self.order.cmp(&other.order)
    }
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A message comes.
    Deliver(Arc<InFlight>),
    /// Only so many of a message's entries come.
    DeliverPart(Arc<InFlight>, usize),
    /// A node becomes the root.
    TakeOver(u8),
    /// A root appends a message.
    Publish(u8),
    /// A root appends a configuration.
    Change(u8, BTreeSet<u8>),
    /// A node loses all that it knows.
    Restart(u8),
    /// A former member drops its copy.
    Drop(u8),
    /// A member hears the next committed entry from another node than its root.
    Hear(u8),
    /// A root takes a node for no member, and ends its life.
    Release(u8, u8),
}

/// A message that was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct InFlight(Arc<SentMessage>);

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tell = |f: &mut fmt::Formatter<'_>, word: &LogMessage| match word {
            LogMessage::Prepare { to, term } => write!(f, "{to} hears Prepare {}", term.number),
            LogMessage::Promise { from, term, promised } => write!(
                f,
                "root {} hears {from} promise term {}: synced in {}, committed to {}, end {}",
                node_of(term.root),
                term.number,
                promised.0.synced.number,
                promised.0.commit,
                promised.0.end
            ),
            LogMessage::Copy { to, next, sync, entries } => write!(
                f,
                "{to}'s life {} becomes a copy in term {} from {next}, {} entries, committed to {}",
                sync.life,
                sync.term.number,
                entries.len(),
                sync.commit
            ),
            LogMessage::Holds { from, life, term, end } => {
                write!(
                    f,
                    "root {} hears {from}'s life {life} hold up to {end} in {}",
                    node_of(term.root),
                    term.number
                )
            }
        };
        match self {
            Act::Deliver(sent) => tell(f, &sent.0.word),
            Act::DeliverPart(sent, entries) => {
                tell(f, &sent.0.word)?;
                write!(f, ", of which {entries} come")
            }
            Act::TakeOver(node) => write!(f, "{node} takes over"),
            Act::Publish(node) => write!(f, "root {node} appends a message"),
            Act::Change(node, to) => write!(f, "root {node} appends the configuration {to:?}"),
            Act::Restart(node) => write!(f, "{node} restarts"),
            Act::Drop(node) => write!(f, "{node} drops its copy"),
            Act::Hear(node) => write!(f, "{node} hears the next committed entry by a third"),
            Act::Release(root, node) => write!(f, "root {root} ends {node}'s life"),
        }
    }
}

fn id(node: u8) -> NodeId {
    NodeId(node.into())
}

fn node_of(id: NodeId) -> u8 {
    id.0 as u8
}

fn member(node: u8, life: Life) -> Member {
    Member { peer: Peer { id: id(node), incarnation: 1, addr: Addr::Memory(node.into()) }, life }
}

fn held(term: Term, stamp: u64, body: Body) -> Held {
    Held { term: term.number, stamp, body, encoded: Bytes::new(), payload: Bytes::new() }
}

fn configuration(members: Members, birth: Option<Birth>) -> Body {
    Body::Configuration { members, birth: birth.map(Box::new), replaces: None }
}

impl LogNet {
    /// Three members with a log that holds their configuration only; the first is the root.
    pub(super) fn at_rest(model: &LogModel) -> LogNet {
        let node = |_| Arc::new(Node { life: 0, log: None, primary: None });
        let mut net = LogNet {
            nodes: (0..model.bounds.nodes).map(node).collect(),
            sent: Arc::default(),
            used: Used::default(),
            last_term: 1,
            chosen: Arc::default(),
            broken: None,
        };
        let term = Term { number: 1, root: id(0) };
        let mut log = Log::new(BIRTH, Lineage::default(), 0);
        log.begin_life(id(0), 0);
        let mut primary = Primary::found(id(0), term);
        let members: Members = (0..3).map(|node| member(node, 0)).collect();
        let birth = Birth { lineage: Lineage::default(), complete: true };
        primary.append(&mut log, held(term, 0, configuration(members, Some(birth))));
        net.nodes[0] = Arc::new(Node { life: 0, log: Some(Box::new(log)), primary: Some(primary) });
        for node in [1, 2] {
            net.invite(0, node);
        }
        net.spread(0);
        // All of it is delivered before the model begins.
        loop {
            let before = net.nodes.clone();
            for sent in std::mem::take(&mut net.sent).iter() {
                net.deliver(model, &sent.word, usize::MAX);
            }
            net.spread(0);
            if net.nodes == before {
                break;
            }
        }
        net.sent = Arc::default();
        net
    }

    pub(super) fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    /// Notes the first of the promises that is broken.
    fn judge(&mut self) {
        let judged = [(MAJORITY, self.a_majority_holds_it()), (TRUE_COMMIT, self.commits_are_true())];
        let broken = judged.into_iter().find(|(_, holds)| !holds).map(|(name, _)| name);
        self.broken = self.broken.or(broken);
    }

    /// Whether a member restarted, or a majority of the last committed configuration holds all that was committed.
    fn a_majority_holds_it(&self) -> bool {
        let last = self.chosen.iter().rev().find_map(|entry| entry.body.members());
        let Some(members) = last.filter(|_| self.used.restarts == 0) else { return true };
        let holds = |member: &&Member| {
            let node = &self.nodes[member.peer.id.0 as usize];
            let log = node
                .log
                .as_ref()
                .filter(|log| log.replica().is_some_and(|replica| replica.life == member.life));
            log.is_some_and(|log| self.agrees(log, self.chosen.len() as u64))
        };
        members.iter().filter(holds).count() * 2 > members.len()
    }

    fn agrees(&self, log: &Log, end: u64) -> bool {
        (log.window.start()..end).all(|offset| {
            log.window.entry(offset).is_some_and(|own| own.is_same(&self.chosen[offset as usize]))
        })
    }

    /// Whether everything that a node takes for committed is.
    fn commits_are_true(&self) -> bool {
        let logs = self.nodes.iter().filter_map(|node| node.log.as_ref());
        logs.into_iter().all(|log| log.commit() <= self.chosen.len() as u64 && self.agrees(log, log.commit()))
    }

    /// Whether a message was committed by another root than the first, after a configuration if asked.
    pub(super) fn has_progressed(&self, changed: bool) -> bool {
        let from = match changed {
            true => {
                self.chosen.iter().skip(1).position(|entry| entry.body.members().is_some()).map(|at| at + 2)
            }
            false => Some(0),
        };
        let Some(from) = from else { return false };
        let mut later = self.chosen.iter().skip(from);
        later.any(|entry| entry.term > 1 && entry.body.members().is_none())
    }

    pub(super) fn has_dropped(&self) -> bool {
        self.used.drops > 0
    }

    pub(super) fn acts(&self, model: &LogModel, acts: &mut Vec<Act>) {
        if self.broken.is_some() {
            return;
        }
        let (bounds, used) = (&model.bounds, &self.used);
        for sent in self.sent.iter() {
            let whole = Arc::new(InFlight(Arc::clone(sent)));
            if let LogMessage::Copy { entries, .. } = &sent.word
                && bounds.piecemeal
            {
                acts.extend((0..entries.len()).map(|count| Act::DeliverPart(Arc::clone(&whole), count)));
            }
            acts.push(Act::Deliver(whole));
        }
        for (at, node) in (0u8..).zip(&self.nodes) {
            if used.takeovers < bounds.takeovers && model.roots.contains(&at) {
                acts.push(Act::TakeOver(at));
            }
            if let (Some(primary), Some(log)) = (&node.primary, &node.log)
                && primary.may_append(log)
            {
                if used.values < bounds.values {
                    acts.push(Act::Publish(at));
                }
                if used.changes < bounds.changes {
                    let now: BTreeSet<u8> = now(log).iter().map(|member| member.peer.id.0 as u8).collect();
                    let other = model.allowed.iter().filter(|to| **to != now);
                    acts.extend(other.map(|to| Act::Change(at, to.clone())));
                }
            }
            if used.restarts < bounds.restarts && (node.log.is_some() || node.primary.is_some()) {
                acts.push(Act::Restart(at));
            }
            if used.hears < bounds.hears && self.heard_next(model, at).is_some() {
                acts.push(Act::Hear(at));
            }
            let early = bounds.plant == Some(LogBug::EarlyDrop);
            if used.drops < bounds.drops
                && node
                    .log
                    .as_ref()
                    .is_some_and(|log| log.is_released() || (early && is_released_early(log, at)))
            {
                acts.push(Act::Drop(at));
            }
            if used.drops < bounds.drops {
                let others = (0..bounds.nodes).filter(|&other| self.releases(model, at, other));
                acts.extend(others.map(|other| Act::Release(at, other)));
            }
        }
    }

    /// The entry that a member hears next from another node.
    fn heard_next(&self, model: &LogModel, node: u8) -> Option<(u64, Held)> {
        let (place, others) = (usize::from(node), self.nodes.iter());
        let Node { log: Some(log), primary: None, .. } = &*self.nodes[place] else { return None };
        log.replica()?;
        let offset = log.commit();
        let mut others = others.enumerate().filter(|(other, _)| *other != place);
        others.find_map(|(_, other)| {
            let log = other.log.as_ref()?;
            let open = model.bounds.plant == Some(LogBug::OpenHearsay);
            let entry = log.window.entry(offset).filter(|_| open || offset < log.commit())?;
            Some((offset, entry.clone()))
        })
    }

    pub(super) fn has_heard(&self) -> bool {
        self.used.hears > 0
    }

    /// Whether a root ends a node's life, once that node tells it of its copy.
    fn releases(&self, model: &LogModel, root: u8, node: u8) -> bool {
        let Node { log: Some(log), primary: Some(primary), .. } = &*self.nodes[usize::from(root)] else {
            return false;
        };
        let copy = self.nodes[usize::from(node)].log.as_ref().and_then(|log| log.copy_state());
        let Some(mut copy) = copy.filter(|_| root != node) else { return false };
        if model.bounds.plant == Some(LogBug::LateRelease) {
            copy.synced = Term::ZERO;
        }
        primary.releases(log, id(node), &copy)
    }

    pub(super) fn after(&self, model: &LogModel, act: Act) -> Option<LogNet> {
        let mut net = self.clone();
        match act {
            Act::Deliver(sent) => net.deliver(model, &sent.0.word, usize::MAX),
            Act::DeliverPart(sent, entries) => net.deliver(model, &sent.0.word, entries),
            Act::TakeOver(node) => net.take_over(model, node),
            Act::Publish(node) => {
                net.used.values += 1;
                let (publisher, session) = (id(node), net.used.values.into());
                let body = Body::Message { publisher, session, sequence: 1, signature: Signature::None };
                net.append(model, node, net.used.values.into(), body);
            }
            Act::Change(node, to) => net.change(model, node, &to),
            Act::Restart(node) => {
                net.used.restarts += 1;
                let node = Arc::make_mut(&mut net.nodes[usize::from(node)]);
                (node.log, node.primary) = (None, None);
                if model.bounds.plant != Some(LogBug::LifeOverRestart) {
                    node.life += 1;
                }
            }
            Act::Release(_, node) => {
                net.used.drops += 1;
                let node = Arc::make_mut(&mut net.nodes[usize::from(node)]);
                if let Some(log) = &mut node.log {
                    log.end_life();
                }
                node.life += 1;
            }
            Act::Hear(node) => {
                let (offset, entry) = net.heard_next(model, node)?;
                net.used.hears += 1;
                let log = &mut Arc::make_mut(&mut net.nodes[usize::from(node)]).log;
                if let Some(log) = log {
                    log.listen(offset);
                    let _ = log.hear(offset, entry);
                }
            }
            Act::Drop(node) => {
                net.used.drops += 1;
                let node = Arc::make_mut(&mut net.nodes[usize::from(node)]);
                node.log = None;
                if model.bounds.plant != Some(LogBug::LifeOverDrop) {
                    node.life += 1;
                }
            }
        }
        if net == *self {
            return None;
        }
        net.nodes.iter().filter_map(|node| node.log.as_ref()).for_each(|log| log.check());
        net.forget_spent(model);
        net.judge();
        model.parts.share(self, &mut net);
        (net != *self).then_some(net)
    }

    /// Forgets messages that can change nothing any more, whenever they come: states that differ in nothing else are one.
    fn forget_spent(&mut self, model: &LogModel) {
        if self.sent.iter().any(|sent| self.is_spent(model, &sent.word)) {
            let rest = self.sent.iter().filter(|sent| !self.is_spent(model, &sent.word));
            self.sent = Arc::new(rest.cloned().collect());
        }
    }

    fn is_spent(&self, model: &LogModel, word: &LogMessage) -> bool {
        let forgets = model.bounds.restarts > 0 || model.bounds.drops > 0;
        // A number is one term's for ever: a root that is none in it will be none in it again.
        let primary_of = |term: Term| {
            let primary = self.nodes[usize::from(node_of(term.root))].primary.as_ref();
            primary.filter(|primary| primary.term() == term)
        };
        let replica_of = |node: u8| self.nodes[usize::from(node)].log.as_ref().and_then(|log| log.replica());
        match word {
            LogMessage::Prepare { to, term } => {
                // What was promised is only forgotten with the copy.
                let is_bound = replica_of(*to).is_some_and(|replica| replica.promised >= *term);
                is_bound && !forgets && primary_of(*term).is_none()
            }
            LogMessage::Promise { from, term, promised } => primary_of(*term)
                .is_none_or(|primary| !forgets && primary.follows(id(*from), promised.0.life)),
            LogMessage::Copy { to, sync, .. } => {
                let is_bound = replica_of(*to).is_some_and(|replica| replica.promised > sync.term);
                is_bound && !forgets
            }
            LogMessage::Holds { from, life, term, end } => primary_of(*term).is_none_or(|primary| {
                let is_known = primary.held_by(id(*from)).is_some_and(|held| held >= *end);
                is_known && !forgets && primary.follows(id(*from), *life)
            }),
        }
    }

    fn send(&mut self, word: LogMessage) {
        let mut hasher = DefaultHasher::new();
        word.hash(&mut hasher);
        let order = hasher.finish();
        let sent = SentMessage { word, order };
        if !self.sent.contains(&sent) {
            Arc::make_mut(&mut self.sent).insert(Arc::new(sent));
        }
    }

    fn take_over(&mut self, model: &LogModel, node: u8) {
        self.used.takeovers += 1;
        self.last_term += 1;
        let term = Term { number: self.last_term, root: id(node) };
        let at = Arc::make_mut(&mut self.nodes[usize::from(node)]);
        let own = at.log.as_mut().and_then(|log| log.on_prepare(term)).and_then(Result::ok);
        let own = own.map(|promise| as_weighed(model, promise));
        at.primary = Some(Primary::prepare(id(node), term, own));
        for to in (0..model.bounds.nodes).filter(|&to| to != node) {
            self.send(LogMessage::Prepare { to, term });
        }
        self.weigh(node, None);
    }

    fn append(&mut self, model: &LogModel, node: u8, stamp: u64, body: Body) {
        let Node { log: Some(log), primary: Some(primary), .. } =
            Arc::make_mut(&mut self.nodes[usize::from(node)])
        else {
            return;
        };
        let entry = held(primary.term(), stamp, body);
        primary.append(log, entry);
        self.count_too_few(model, node);
        self.note_commits(node);
        self.spread(node);
    }

    /// The planted rules for a configuration that waits: once a majority of the one counts, the members of the other are
    /// taken to hold it, too.
    fn count_too_few(&mut self, model: &LogModel, root: u8) {
        let Node { log: Some(log), primary: Some(primary), .. } =
            Arc::make_mut(&mut self.nodes[usize::from(root)])
        else {
            return;
        };
        let Some(new) = log.configurations().pending(log.commit()).cloned() else { return };
        let Some(old) = log.configurations().governing(new.at).cloned() else { return };
        let (counted, ignored) = match model.bounds.plant {
            Some(LogBug::OldMajorityOnly) => (&old, &new),
            Some(LogBug::NewMajorityOnly) => (&new, &old),
            _ => return,
        };
        let own =
            log.replica().filter(|replica| replica.synced == primary.term()).map(|replica| replica.life);
        let holds = |member: &Member| match member.peer.id {
            node if node == id(root) => own == Some(member.life),
            node => {
                primary.follows(node, member.life) && primary.held_by(node).is_some_and(|end| end > new.at)
            }
        };
        if log.commit() == new.at && counted.has_majority(holds) {
            for member in ignored.members.iter() {
                let _ = primary.on_held(log, member.peer.id, member.life, new.at + 1);
            }
        }
    }

    fn change(&mut self, model: &LogModel, node: u8, to: &BTreeSet<u8>) {
        self.used.changes += 1;
        let Some(log) = &self.nodes[usize::from(node)].log else { return };
        let now = now(log);
        let lives: Vec<Life> = self.nodes.iter().map(|node| node.life).collect();
        // Who stays keeps its life, if it has it still; whoever comes says which life it begins.
        let named = |&to: &u8| {
            let stays =
                now.iter().find(|known| known.peer.id == id(to) && known.life == lives[usize::from(to)]);
            stays.copied().unwrap_or(member(to, lives[usize::from(to)]))
        };
        let members: Members = to.iter().map(named).collect();
        for &to in to {
            self.invite(node, to);
        }
        // Stamps tell entries apart here.
        self.append(model, node, 100 + u64::from(self.used.changes), configuration(members, None));
    }

    /// A root makes a node that holds nothing yet a copy.
    fn invite(&mut self, root: u8, node: u8) {
        let life = self.nodes[usize::from(node)].life;
        let Node { log: Some(log), primary: Some(primary), .. } =
            Arc::make_mut(&mut self.nodes[usize::from(root)])
        else {
            return;
        };
        if root == node {
            if log.replica().is_none() {
                // Its log is complete: it becomes a member by saying so.
                log.begin_life(id(node), life);
                log.become_synced(primary.term());
            }
            return;
        }
        if primary.follows(id(node), life) {
            return;
        }
        let nothing = CopyState {
            life,
            synced: Term::ZERO,
            birth: 0,
            lineage: Lineage::default(),
            start: 0,
            commit: 0,
            end: 0,
            configurations: Vec::new(),
        };
        let _ = primary.sync(log, id(node), &nothing, true);
    }

    /// The root tells those that follow it all that it has.
    fn spread(&mut self, root: u8) {
        let Node { log: Some(log), primary: Some(primary), .. } = &*self.nodes[usize::from(root)] else {
            return;
        };
        let nodes = 0..self.nodes.len() as u8;
        let mut words = Vec::new();
        for to in nodes.filter(|&to| to != root) {
            // Whole logs, so that few messages differ.
            let next = log.window.start();
            let Some(sync) = primary.word_for(log, id(to), next) else { continue };
            let entries = log.window.entries_from(next);
            let entries =
                entries.map(|(_, entry)| Held { term: sync.term.number, ..entry.clone() }).collect();
            words.push(LogMessage::Copy { to, next, sync, entries });
        }
        words.into_iter().for_each(|word| self.send(word));
    }

    /// Makes one that has promised a copy.
    fn copy_to(&mut self, root: u8, node: u8, promise: &CopyState) {
        let Node { log: Some(log), primary: Some(primary), .. } =
            Arc::make_mut(&mut self.nodes[usize::from(root)])
        else {
            return;
        };
        let Some((next, sync)) = primary.sync(log, id(node), promise, true) else { return };
        let entries = log.window.entries_from(next);
        let entries = entries.map(|(_, entry)| Held { term: sync.term.number, ..entry.clone() }).collect();
        self.send(LogMessage::Copy { to: node, next, sync, entries });
    }

    fn deliver(&mut self, model: &LogModel, word: &LogMessage, entries_that_come: usize) {
        match word {
            LogMessage::Prepare { to, term } => {
                let node = Arc::make_mut(&mut self.nodes[usize::from(*to)]);
                let Some(log) = &mut node.log else { return };
                let Some(Ok(promise)) = log.on_prepare(*term) else { return };
                if node.primary.as_ref().is_some_and(|primary| primary.term() < *term) {
                    node.primary = None;
                }
                let log = Log::clone(log);
                let promised = Box::new((promise, log));
                self.send(LogMessage::Promise { from: *to, term: *term, promised });
            }
            LogMessage::Promise { from, term, promised } => {
                self.on_promise(model, *from, *term, &promised.0, &promised.1);
            }
            LogMessage::Copy { to, next, sync, entries } => {
                self.on_copy(model, *to, *next, sync, entries, entries_that_come);
            }
            LogMessage::Holds { from, life, term, end } => self.on_holds(model, *from, *life, *term, *end),
        }
    }

    fn on_promise(&mut self, model: &LogModel, from: u8, term: Term, promise: &CopyState, log: &Log) {
        let root = term.root.0 as u8;
        let node = Arc::make_mut(&mut self.nodes[usize::from(root)]);
        let Some(primary) = node.primary.as_mut().filter(|primary| primary.term() == term) else { return };
        if primary.is_serving() {
            if !primary.follows(id(from), promise.life) {
                self.copy_to(root, from, promise);
            }
            return;
        }
        primary.on_promise(id(from), as_weighed(model, promise.clone()));
        self.weigh(root, Some((from, log)));
    }

    /// Lets a root serve once it has enough promises.
    fn weigh(&mut self, root: u8, told: Option<(u8, &Log)>) {
        let node = Arc::make_mut(&mut self.nodes[usize::from(root)]);
        let Some(primary) = &mut node.primary else { return };
        let PrepareOutcome::Adopt { best, commit } = primary.outcome(|_| false, false) else { return };
        let promised: Vec<(NodeId, CopyState)> =
            primary.promises().map(|(node, promise)| (node, promise.clone())).collect();
        let term = primary.term();
        // It is told of by an earlier message if not by this one; what was promised has not changed since.
        let earlier = self.sent.iter().find_map(|sent| match &sent.word {
            LogMessage::Promise { from, term: of, promised } if id(*from) == best && *of == term => {
                Some(promised.1.clone())
            }
            LogMessage::Promise { .. }
            | LogMessage::Prepare { .. }
            | LogMessage::Copy { .. }
            | LogMessage::Holds { .. } => None,
        });
        let pulled = told.filter(|(from, _)| id(*from) == best).map(|(_, log)| log.clone()).or(earlier);
        let was_member = node.log.as_ref().and_then(|log| log.replica().copied());
        let next = primary.adopt(&mut node.log, best, commit);
        debug_assert!(was_member.is_none() || node.log.as_ref().is_some_and(|log| log.replica().is_some()));
        if let (Some(next), Some(from), Some(log)) = (next, pulled, &mut node.log) {
            for (offset, entry) in from.window.entries_from(next) {
                if primary.on_pulled(log, offset, entry.clone()) {
                    break;
                }
            }
        }
        if !primary.is_serving() {
            return;
        }
        let Some(log) = self.nodes[usize::from(root)].log.as_ref() else { return };
        let overtaken = self.nodes.iter().any(|node| {
            node.log.as_ref().and_then(|log| log.replica()).is_some_and(|replica| replica.synced > term)
        });
        if !overtaken && !self.agrees_with_chosen(log) {
            self.broken = Some(ONE_LOG);
        }
        self.note_commits(root);
        for (node, promise) in promised.into_iter().filter(|(node, _)| *node != id(root)) {
            self.copy_to(root, node.0 as u8, &promise);
        }
    }

    fn agrees_with_chosen(&self, log: &Log) -> bool {
        log.end() >= self.chosen.len() as u64 && self.agrees(log, self.chosen.len() as u64)
    }

    fn on_copy(&mut self, model: &LogModel, to: u8, next: u64, sync: &Sync, entries: &[Held], come: usize) {
        let node = Arc::make_mut(&mut self.nodes[usize::from(to)]);
        // A root is nobody's child: before it becomes a copy of another's log, a later term has to end its own. A root
        // that is no member has promised nothing by which its log could tell.
        let reigns = node.primary.as_ref().is_some_and(|primary| primary.term() > sync.term);
        if node.life != sync.life || reigns {
            return;
        }
        let log = node.log.get_or_insert_with(|| {
            let mut log = Log::new(BIRTH, Lineage::default(), next);
            log.begin_life(id(to), sync.life);
            Box::new(log)
        });
        if log.replica().is_none() {
            log.begin_life(id(to), sync.life);
        }
        // To a copy of the term the root has no more to say than what comes next, and what is committed.
        let goes_on = log.is_synced(sync.term) && log.replica().is_some_and(|own| own.promised == sync.term);
        if !goes_on && !log.on_sync(next, sync) {
            return;
        }
        if node.primary.as_ref().is_some_and(|primary| primary.term() < sync.term) {
            node.primary = None;
        }
        for (offset, entry) in (next..).zip(entries).take(come) {
            let _ = log.take(sync.term.root, offset, entry.clone());
        }
        log.on_commit(sync.commit);
        let (life, end) = (sync.life, log.matched());
        if model.bounds.prompt {
            self.on_holds(model, to, life, sync.term, end);
        } else {
            self.send(LogMessage::Holds { from: to, life, term: sync.term, end });
        }
    }

    fn on_holds(&mut self, model: &LogModel, from: u8, life: Life, term: Term, end: u64) {
        let root = term.root.0 as u8;
        let Node { log: Some(log), primary: Some(primary), .. } =
            Arc::make_mut(&mut self.nodes[usize::from(root)])
        else {
            return;
        };
        if primary.term() != term {
            return;
        }
        let _ = primary.on_held(log, id(from), life, end);
        self.count_too_few(model, root);
        let before = self.chosen.len();
        self.note_commits(root);
        // A member hears of a commit with the next entry, of a configuration's at once.
        if self.chosen[before..].iter().any(|entry| entry.body.members().is_some()) {
            self.spread(root);
        }
    }

    /// What a root has committed stands for ever.
    fn note_commits(&mut self, root: u8) {
        let Some(log) = &self.nodes[usize::from(root)].log else { return };
        for (offset, entry) in log.window.entries_from(0).take_while(|(offset, _)| *offset < log.commit()) {
            match self.chosen.get(offset as usize) {
                Some(known) if known.is_same(entry) => {}
                Some(_) => self.broken = Some(ONE_LOG),
                None => Arc::make_mut(&mut self.chosen).push(entry.clone()),
            }
        }
    }
}

/// The members that the last configuration names.
fn now(log: &Log) -> Members {
    log.configurations().last().map_or_else(|| Arc::from([]), |last| Arc::clone(&last.members))
}

/// A promise as a root weighs it, by the planted rule if there is one.
fn as_weighed(model: &LogModel, mut promise: CopyState) -> CopyState {
    match model.bounds.plant {
        Some(LogBug::Longest) => promise.synced = Term::ZERO,
        Some(LogBug::KnownConfiguration) => {
            let commit = promise.commit;
            promise.configurations.retain(|known| known.at < commit);
        }
        _ => {}
    }
    promise
}

/// The planted rule: a committed configuration is without it, whatever comes after.
fn is_released_early(log: &Log, node: u8) -> bool {
    let Some(replica) = log.replica() else { return false };
    let committed = log.configurations().all().iter().rfind(|known| known.at < log.commit());
    committed.is_some_and(|known| known.at > 0 && !known.names(id(node), replica.life))
}

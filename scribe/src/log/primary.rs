//! A root's side of the replication: it gathers promises, adopts a log, and commits what a majority holds.
//!
//! The root is whoever the ring names, be it a member or not (the primary of Sequence Paxos, chosen from outside). Rules
//! are those of `docs/design.md` §6.

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::id::NodeId;

use super::configurations::Configurations;
use super::part::Log;
use super::window::Held;
use crate::wire::{Body, Configuration, CopyState, Life, Member, Sync, Term};

/// A root in its term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Primary {
    me: NodeId,
    term: Term,
    phase: TermPhase,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum TermPhase {
    /// It gathers promises.
    Preparing { promises: BTreeMap<NodeId, CopyState> },
    /// It goes through the best log, to make its own a copy.
    Adopting { promises: BTreeMap<NodeId, CopyState>, best: NodeId, commit: u64 },
    /// It appends and commits.
    Serving { followers: BTreeMap<NodeId, Follower> },
}

/// A node that the root makes a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Follower {
    life: Life,
    /// It is a copy from here on.
    upto: u64,
    /// It holds everything before this offset.
    end: u64,
}

/// The step that the promises allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareOutcome {
    /// No member is known.
    Unknown,
    /// The promises of these are missing.
    Wait(Vec<Member>),
    /// A majority of every configuration that counts has promised: this member's log is the one to adopt.
    Adopt {
        /// The member.
        best: NodeId,
        /// The greatest offset up to which a member knows the log to be committed.
        commit: u64,
    },
    /// A majority of a configuration has ended. `complete`: those that promised hold all that was committed.
    MajorityEnded {
        /// The member whose log reaches farthest, if any has promised.
        best: Option<NodeId>,
        /// Nothing that was committed can be missing from it.
        complete: bool,
    },
}

impl Primary {
    /// Begins a term, with the own promise if this node is a member.
    pub fn prepare(me: NodeId, term: Term, own: Option<CopyState>) -> Primary {
        let promises = own.into_iter().map(|promise| (me, promise)).collect();
        Primary { me, term, phase: TermPhase::Preparing { promises } }
    }

    /// Begins a term in a log of this node's own, which is born with it.
    pub fn found(me: NodeId, term: Term) -> Primary {
        Primary { me, term, phase: TermPhase::Serving { followers: BTreeMap::new() } }
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Whether it gives positions.
    pub fn is_serving(&self) -> bool {
        matches!(self.phase, TermPhase::Serving { .. })
    }

    /// The member whose log is being adopted, and the promise that it gave.
    pub fn adopting(&self) -> Option<(NodeId, &CopyState)> {
        match &self.phase {
            TermPhase::Adopting { promises, best, .. } => Some((*best, promises.get(best)?)),
            TermPhase::Preparing { .. } | TermPhase::Serving { .. } => None,
        }
    }

    /// The members that have promised, with what they said.
    pub fn promises(&self) -> impl Iterator<Item = (NodeId, &CopyState)> {
        let promises = match &self.phase {
            TermPhase::Preparing { promises } | TermPhase::Adopting { promises, .. } => Some(promises),
            TermPhase::Serving { .. } => None,
        };
        promises.into_iter().flatten().map(|(&node, promise)| (node, promise))
    }

    /// A member promises.
    pub fn on_promise(&mut self, from: NodeId, promise: CopyState) {
        if let TermPhase::Preparing { promises } | TermPhase::Adopting { promises, .. } = &mut self.phase {
            promises.insert(from, promise);
        }
    }

    /// The member whose log was being adopted is gone: the promises are weighed anew, without its own.
    pub fn on_best_lost(&mut self) {
        if let TermPhase::Adopting { promises, best, .. } = &mut self.phase {
            promises.remove(best);
            let promises = std::mem::take(promises);
            self.phase = TermPhase::Preparing { promises };
        }
    }

    /// Weighs the promises. `is_over`: whether a member's life has ended, so that it will promise nothing any more.
    /// `hurries`: a birth whose members are silent is waited for no longer, if another one has a majority.
    ///
    /// Members of several births may promise: one side of a partition found the members of the other side dead, and began
    /// the log anew. Of those births that have a majority the longest goes on.
    pub fn outcome(&self, is_over: impl Fn(&Member) -> bool, hurries: bool) -> PrepareOutcome {
        let TermPhase::Preparing { promises } = &self.phase else { return PrepareOutcome::Unknown };
        let births: BTreeSet<u64> = promises.values().map(|promise| promise.birth).collect();
        let weighed = births.into_iter().map(|birth| (birth, weigh(promises, birth, &is_over)));
        let weighed: Vec<_> = weighed.filter(|(_, outcome)| *outcome != PrepareOutcome::Unknown).collect();
        let end = |birth: u64| promises.values().filter(|p| p.birth == birth).map(|p| (p.end, p.birth)).max();
        let longest = |is_such: fn(&PrepareOutcome) -> bool| {
            let such = weighed.iter().filter(|(_, outcome)| is_such(outcome));
            such.max_by_key(|(birth, _)| end(*birth)).map(|(_, outcome)| outcome.clone())
        };
        let alive = longest(|outcome| matches!(outcome, PrepareOutcome::Adopt { .. }));
        let awaited = longest(|outcome| matches!(outcome, PrepareOutcome::Wait(_)));
        let ended = longest(|outcome| matches!(outcome, PrepareOutcome::MajorityEnded { .. }));
        let alive_first = if hurries { alive.clone() } else { None };
        alive_first.or(awaited).or(alive).or(ended).unwrap_or(PrepareOutcome::Unknown)
    }

    /// Begins to make this node's log a copy of a member's, which has promised. Returns from which offset on its entries
    /// are needed; `None`: this node is the member.
    pub fn adopt(&mut self, log: &mut Option<Box<Log>>, best: NodeId, commit: u64) -> Option<u64> {
        let TermPhase::Preparing { promises } = &mut self.phase else { return None };
        let promises = std::mem::take(promises);
        let adopted = promises.get(&best)?.clone();
        // The sessions stand in the last committed configuration's entry, and what comes after it.
        let base = adopted.configurations.first().map_or(adopted.start, |first| first.at);
        let log = match log {
            Some(log) if log.birth == adopted.birth && log.window.start() <= base => log,
            // Of another birth, or none, or too late a part: of the member's log everything is needed.
            other => other.insert(Box::new(Log::new(adopted.birth, adopted.lineage.clone(), adopted.start))),
        };
        let own = best == self.me;
        let next = if own { log.end() } else { log.commit().max(adopted.start) };
        log.follow(self.term, next, adopted.end);
        if !own {
            log.hear_configurations(&adopted.configurations, next);
        }
        self.phase = TermPhase::Adopting { promises, best, commit };
        self.finish_adopting(log);
        (!self.is_serving()).then_some(next)
    }

    /// Takes an entry of the log that is adopted. Returns whether it was the last.
    pub fn on_pulled(&mut self, log: &mut Log, offset: u64, held: Held) -> bool {
        if !matches!(self.phase, TermPhase::Adopting { .. }) {
            return false;
        }
        let _ = log.accept(offset, held);
        self.finish_adopting(log)
    }

    fn finish_adopting(&mut self, log: &mut Log) -> bool {
        let TermPhase::Adopting { commit, .. } = &self.phase else { return false };
        if !log.is_synced(self.term) {
            return false;
        }
        log.become_synced(self.term);
        log.on_commit(*commit);
        self.phase = TermPhase::Serving { followers: BTreeMap::new() };
        self.advance(log);
        true
    }

    /// The word by which a member's log becomes a copy of this one, and the first offset that it needs. `promise`: what
    /// the member said of its log. `haste`: one that holds nothing begins at the last committed configuration, the entry of which
    /// holds the sessions, and gets what is before it later.
    pub fn sync(&mut self, log: &Log, node: NodeId, promise: &CopyState, haste: bool) -> Option<(u64, Sync)> {
        let TermPhase::Serving { followers } = &mut self.phase else { return None };
        let same_birth = promise.birth == log.birth;
        let next = match same_birth {
            true if promise.synced == self.term => promise.end.min(log.end()),
            true => promise.commit.min(log.end()),
            false if haste && promise.end == 0 => log.checkpoint(),
            false => log.window.start(),
        };
        let next = next.max(log.window.start());
        let upto = log.end();
        let life = promise.life;
        match followers.get_mut(&node).filter(|follower| follower.life == life) {
            // It may have come further since.
            Some(_) => {}
            None => {
                followers.insert(node, Follower { life, upto, end: 0 });
            }
        }
        Some((next, self.word(log, next, life, upto)))
    }

    /// The same, for a member that is told again how things are.
    pub fn word_for(&self, log: &Log, node: NodeId, next: u64) -> Option<Sync> {
        let TermPhase::Serving { followers } = &self.phase else { return None };
        let follower = followers.get(&node)?;
        Some(self.word(log, next, follower.life, follower.upto.max(next)))
    }

    fn word(&self, log: &Log, next: u64, life: Life, upto: u64) -> Sync {
        let known = log.configurations().all().iter().filter(|known| known.at < next);
        Sync { term: self.term, life, upto, commit: log.commit(), configurations: known.cloned().collect() }
    }

    /// Whether a node is made a copy, in this life.
    pub fn follows(&self, node: NodeId, life: Life) -> bool {
        match &self.phase {
            TermPhase::Serving { followers } => followers.get(&node).is_some_and(|known| known.life == life),
            TermPhase::Preparing { .. } | TermPhase::Adopting { .. } => false,
        }
    }

    /// Whether a node with such a copy is no member any more by this root's word, so that its life ends. A root that was
    /// overtaken has no say: a later configuration may name the node again, and count what it holds.
    pub fn releases(&self, log: &Log, node: NodeId, copy: &CopyState) -> bool {
        let is_named = log.configurations().all().iter().any(|known| known.names(node, copy.life));
        self.is_serving() && copy.synced <= self.term && !is_named
    }

    /// How far a node that is made a copy is.
    pub fn held_by(&self, node: NodeId) -> Option<u64> {
        match &self.phase {
            TermPhase::Serving { followers } => followers.get(&node).map(|follower| follower.end),
            TermPhase::Preparing { .. } | TermPhase::Adopting { .. } => None,
        }
    }

    /// A node is no longer made a copy: what it held counts no more until it says so again.
    pub fn on_follower_lost(&mut self, node: NodeId) {
        if let TermPhase::Serving { followers } = &mut self.phase {
            followers.remove(&node);
        }
    }

    /// Whether an entry may be appended: not while a configuration waits to be committed.
    pub fn may_append(&self, log: &Log) -> bool {
        self.is_serving() && log.configurations().pending(log.commit()).is_none()
    }

    /// Appends an entry. Returns whether something was committed by that.
    pub fn append(&mut self, log: &mut Log, held: Held) -> bool {
        debug_assert!(self.is_serving(), "only a root that serves appends");
        if let Body::Configuration { birth: Some(_), .. } = &held.body {
            // All that was taken over is as good as committed: no other log has anything else there.
            log.begin_birth(self.term);
        }
        log.append(held);
        self.advance(log)
    }

    /// A member says how far it is. Returns whether something was committed by that.
    pub fn on_held(&mut self, log: &mut Log, node: NodeId, life: Life, end: u64) -> bool {
        let TermPhase::Serving { followers } = &mut self.phase else { return false };
        let Some(follower) = followers.get_mut(&node).filter(|follower| follower.life == life) else {
            return false;
        };
        // A member that is not a copy yet may hold something else; nobody holds what was never appended.
        if end < follower.upto || end > log.end() || end <= follower.end {
            return false;
        }
        follower.end = end;
        self.advance(log)
    }

    /// How far a member is, by what it said.
    fn end_of(&self, log: &Log, member: &Member) -> u64 {
        let TermPhase::Serving { followers } = &self.phase else { return 0 };
        if member.peer.id == self.me {
            let own = log
                .replica()
                .is_some_and(|replica| replica.life == member.life && replica.synced == self.term);
            return if own { log.end() } else { 0 };
        }
        followers.get(&member.peer.id).filter(|follower| follower.life == member.life).map_or(0, |f| f.end)
    }

    /// In how many copies a committed entry is held: in those of a majority at least, though some may not say so any more.
    pub fn copies(&self, log: &Log, offset: u64) -> usize {
        let Some(configuration) = log.configurations().last() else { return 1 };
        let holds = |member: &&Member| self.end_of(log, member) > offset;
        configuration.members.iter().filter(holds).count().max(configuration.majority())
    }

    /// The offset before which every member holds all.
    pub fn held_by_all(&self, log: &Log) -> u64 {
        let configuration = log.configurations().last();
        let members = configuration.map_or(&[][..], |configuration| &configuration.members);
        members.iter().map(|member| self.end_of(log, member)).min().unwrap_or(0)
    }

    /// Commits what a majority holds: an entry in a majority of the configuration before it, a configuration in a
    /// majority of the old one and of the new one.
    fn advance(&self, log: &mut Log) -> bool {
        let before = log.commit();
        loop {
            let commit = log.commit();
            let quorum = |configuration: &Configuration| {
                let mut ends: Vec<u64> =
                    configuration.members.iter().map(|member| self.end_of(log, member)).collect();
                ends.sort_unstable_by_key(|&end| std::cmp::Reverse(end));
                ends.get(configuration.majority() - 1).copied().unwrap_or(0)
            };
            let configurations: &Configurations = log.configurations();
            let old = configurations.governing(commit).map(&quorum);
            let pending = configurations.pending(commit);
            // A birth has nothing before it.
            let old = match (old, pending) {
                (Some(end), _) => end,
                (None, Some(first)) => quorum(first),
                (None, None) => return false,
            };
            let reached = match pending {
                Some(new) if old > new.at && quorum(new) > new.at => new.at + 1,
                Some(new) => old.min(new.at),
                None => old.min(log.end()),
            };
            if !log.on_commit(reached) {
                return log.commit() > before;
            }
        }
    }
}

/// Weighs the promises of one birth's members.
fn weigh(
    promises: &BTreeMap<NodeId, CopyState>,
    birth: u64,
    is_over: impl Fn(&Member) -> bool,
) -> PrepareOutcome {
    let promises: BTreeMap<_, _> = promises.iter().filter(|(_, promise)| promise.birth == birth).collect();
    let Some((&&best, log)) = promises.iter().max_by_key(|(_, promise)| (promise.synced, promise.end)) else {
        return PrepareOutcome::Unknown;
    };
    let commit = promises.values().map(|promise| promise.commit).max().unwrap_or(0).min(log.end);
    let has =
        |member: &Member| promises.get(&member.peer.id).is_some_and(|promise| promise.life == member.life);
    let may = |member: &Member| has(member) || !is_over(member);
    let counting = counting(log, promises.values().copied(), commit);
    if counting.is_empty() {
        return PrepareOutcome::Unknown;
    }
    if counting.iter().all(|configuration| configuration.has_majority(has)) {
        return PrepareOutcome::Adopt { best, commit };
    }
    if counting.iter().all(|configuration| configuration.has_majority(may)) {
        let missing = counting.iter().flat_map(|configuration| configuration.members.iter());
        let missing = missing.filter(|member| !has(member) && may(member)).copied();
        let missing: BTreeMap<_, _> = missing.map(|member| (member.key(), member)).collect();
        return PrepareOutcome::Wait(missing.into_values().collect());
    }
    let complete = counting.iter().all(|configuration| {
        let survivors = configuration.members.iter().filter(|member| has(member)).count();
        survivors > configuration.members.len() - configuration.majority()
    });
    PrepareOutcome::MajorityEnded { best: Some(best), complete }
}

/// The configurations that count: in the best log, from the last one known to be committed on. If that log does not
/// reach back so far, another one does.
fn counting<'a>(
    best: &CopyState,
    all: impl Iterator<Item = &'a CopyState> + Clone,
    commit: u64,
) -> Vec<Configuration> {
    let known = |promise: &CopyState| {
        promise.configurations.iter().filter(|known| known.at < commit).max_by_key(|known| known.at).cloned()
    };
    let committed = all.filter_map(known).max_by_key(|known| known.at);
    let committed = committed.into_iter();
    let after = committed.clone().next().map_or(0, |known| known.at + 1);
    let open = best.configurations.iter().filter(|known| known.at >= after).cloned();
    committed.chain(open).collect()
}

#[cfg(test)]
mod tests;

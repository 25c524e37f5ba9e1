//! A node's part of a topic's log: a window of it, how far it is committed, and, at a member, the promises that its
//! copy is bound by.
//!
//! The protocol is Sequence Paxos (Haridi, Kroll & Carbone 2020): a root prepares a term, adopts the best of a
//! majority's logs, and makes every member's log a copy of its own before it counts what that member holds. A
//! member that is made a copy goes through the root's entries one by one. It cuts its log only where an entry differs,
//! since from there on nothing of it can be committed; and it belongs to the new term only when it has all that the
//! root had. So a root that dies midway leaves nothing behind that is less than what was there before.

use treecast_overlay::id::NodeId;

use super::configurations::Configurations;
use super::window::{Held, Window};
use crate::wire::{Body, Configuration, CopyState, Life, Lineage, Sync, Term};

/// A node's part of a topic's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    /// The random number of this birth of the log.
    pub birth: u64,
    /// The births before it.
    pub lineage: Lineage,
    /// The entries.
    pub window: Window,
    /// Entries before this offset are committed.
    commit: u64,
    configurations: Configurations,
    replica: Option<Replica>,
    /// The root's log of which this one is, or is to become, a copy.
    stream: Option<Stream>,
}

/// A member's state beside its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    /// The node.
    me: NodeId,
    /// Its life as a member.
    pub life: Life,
    /// No root of an earlier term is listened to.
    pub promised: Term,
    /// The term whose root last made this log a copy of its own.
    pub synced: Term,
    /// A configuration in its log has named it.
    named: bool,
}

/// A log on its way to become a copy of a root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Stream {
    term: Term,
    /// Entries before this offset are the same as the root's.
    matched: u64,
    /// How far the root's log reached when the term began for this node.
    upto: u64,
    /// How far the root said that its log is committed.
    committed: u64,
}

/// The fate of an entry that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is the next one.
    Next,
    /// It is here already.
    Duplicate,
    /// Something before it is missing.
    Hole,
    /// It is of another root than the one that this node listens to.
    Stranger,
}

impl Replica {
    /// The node that it is the copy of.
    pub(crate) fn me(&self) -> NodeId {
        self.me
    }
}

impl Log {
    /// An empty log, the first entry of which will be at `start`.
    pub fn new(birth: u64, lineage: Lineage, start: u64) -> Log {
        Log {
            birth,
            lineage,
            window: Window::new(start),
            commit: start,
            configurations: Configurations::default(),
            replica: None,
            stream: None,
        }
    }

    /// Offset of the entry to come.
    pub fn end(&self) -> u64 {
        self.window.end()
    }

    /// Entries before this offset are committed: they may be read, and passed on.
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// How far this log agrees with that of the root which it is a copy of. Where there is none: its end, or how far it is
    /// committed, if this node is a member.
    pub fn matched(&self) -> u64 {
        let next = || if self.listens() { self.commit } else { self.end() };
        self.stream.map_or_else(next, |stream| stream.matched)
    }

    /// The offset behind all that is known here to have a position, though it may not be known to be committed.
    pub(crate) fn positioned(&self) -> u64 {
        self.matched().max(self.commit)
    }

    /// The configurations from the last committed one on.
    pub fn configurations(&self) -> &Configurations {
        &self.configurations
    }

    /// The offset of the last committed configuration: all before it is committed, and nothing of it counts for what comes. Where
    /// none is known, the first offset that is kept.
    pub(crate) fn checkpoint(&self) -> u64 {
        let last = self.configurations.all().iter().rfind(|known| known.at < self.commit);
        last.map_or(self.window.start(), |known| known.at.max(self.window.start()))
    }

    /// The state of a member; `None`: this node is none.
    pub fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    /// Becomes a member's copy, in a new life.
    pub fn begin_life(&mut self, me: NodeId, life: Life) {
        let (promised, synced, named) = (Term::ZERO, Term::ZERO, false);
        self.replica = Some(Replica { me, life, promised, synced, named });
    }

    /// The copy as it stands, if this node is a member.
    pub fn copy_state(&self) -> Option<CopyState> {
        self.replica.map(|replica| self.state(replica.life, replica.synced))
    }

    /// Ends this node's life as a member. Committed entries stay.
    pub fn end_life(&mut self) {
        self.replica = None;
        self.stream = None;
        self.cut(self.commit);
    }

    /// Whether this node was a member and is none any more: a configuration without it is committed, and none after it
    /// names it.
    pub fn is_released(&self) -> bool {
        let Some(replica) = self.replica.filter(|replica| replica.named) else { return false };
        let mut counting = self.configurations.all().iter();
        let committed = self.configurations.all().first().is_some_and(|first| first.at < self.commit);
        committed && counting.all(|configuration| !configuration.names(replica.me, replica.life))
    }

    /// A root asks for a promise. Refuses by the term that was promised to another; `None`: this node is no member.
    pub fn on_prepare(&mut self, term: Term) -> Option<Result<CopyState, Term>> {
        let replica = self.replica.as_mut()?;
        if term < replica.promised {
            return Some(Err(replica.promised));
        }
        replica.promised = term;
        let (life, synced) = (replica.life, replica.synced);
        Some(Ok(self.state(life, synced)))
    }

    fn state(&self, life: Life, synced: Term) -> CopyState {
        CopyState {
            life,
            synced,
            birth: self.birth,
            lineage: self.lineage.clone(),
            start: self.window.start(),
            commit: self.commit,
            end: self.end(),
            configurations: self.configurations.all().to_vec(),
        }
    }

    /// A root begins to make this log a copy of its own, from its entry at `next` on. Returns whether it is listened to.
    pub fn on_sync(&mut self, next: u64, sync: &Sync) -> bool {
        let Some(replica) = self.replica.as_mut().filter(|replica| replica.life == sync.life) else {
            return false;
        };
        if sync.term < replica.promised || sync.upto < next {
            return false;
        }
        replica.promised = sync.term;
        if self.stream.is_none() && replica.synced == sync.term && next <= self.window.end() {
            // It has listened since, and what it held of that root's log it holds still, be this word an old one or not.
            let (term, matched, upto) = (sync.term, self.window.end(), sync.upto);
            self.stream = Some(Stream { term, matched, upto, committed: 0 });
        }
        let is_told_again =
            self.stream.is_some_and(|stream| stream.term == sync.term && stream.matched >= next);
        if !is_told_again {
            // All that is committed here is the same there, also what has fallen out of this window.
            self.follow(sync.term, next.max(self.commit), sync.upto);
            if let Some(told) = Configurations::told(sync.configurations.clone())
                && self.configurations.all().is_empty()
            {
                self.configurations = told;
            }
            self.complete();
        }
        self.on_commit_in(sync.term, sync.commit);
        if let Some(replica) = &mut self.replica {
            // A root that makes it a copy although no configuration names it is about to name it: that an earlier one ended
            // without it says nothing any more.
            let mut counting = self.configurations.all().iter();
            replica.named = counting.any(|known| known.names(replica.me, replica.life));
        }
        true
    }

    /// Goes through the entries of another log from `next` to `upto`, to become a copy of it.
    pub(crate) fn follow(&mut self, term: Term, next: u64, upto: u64) {
        if next > self.end() {
            // The entries between are committed, and no longer kept there.
            self.skip_to(next);
        }
        self.stream = Some(Stream { term, matched: next, upto, committed: 0 });
    }

    /// Takes an entry of the root that this node listens to. `from` sent it.
    pub fn take(&mut self, from: NodeId, offset: u64, held: Held) -> Taken {
        match self.stream {
            Some(stream) if stream.term != (Term { number: held.term, root: from }) => Taken::Stranger,
            // A promise is that no entry of an earlier term is taken any more.
            Some(stream) if self.replica.is_some_and(|replica| replica.promised > stream.term) => {
                Taken::Stranger
            }
            Some(_) => self.accept(offset, held),
            None => Taken::Stranger,
        }
    }

    /// Takes an entry of the log that this one becomes a copy of.
    pub(crate) fn accept(&mut self, offset: u64, held: Held) -> Taken {
        let Some(stream) = self.stream.as_mut() else { return Taken::Stranger };
        if offset != stream.matched {
            return if offset < stream.matched { Taken::Duplicate } else { Taken::Hole };
        }
        stream.matched += 1;
        let is_same = self.window.entry(offset).is_some_and(|own| own.is_same(&held));
        if !is_same {
            self.cut(offset);
            self.push(held);
        }
        self.complete();
        // The root may have said that it is committed before it came.
        let committed = self.stream.map_or(0, |stream| stream.committed);
        self.on_commit(committed);
        Taken::Next
    }

    /// Takes the next entry, which is committed, from a parent that this node is no member of.
    pub fn take_committed(&mut self, offset: u64, held: Held) -> Taken {
        if offset != self.end() {
            return if offset < self.end() { Taken::Duplicate } else { Taken::Hole };
        }
        self.push(held);
        self.on_commit(offset + 1);
        Taken::Next
    }

    /// A member goes on as the copy of no root, and hears what is committed, from an offset on, until one makes it a copy
    /// again. Its promise holds, and so does the rest of its log until it turns out that something else was committed.
    pub fn listen(&mut self, next: u64) {
        self.stream = None;
        if next > self.commit {
            self.skip_to(next);
        }
    }

    /// Whether this node is a member that is the copy of no root.
    pub(crate) fn listens(&self) -> bool {
        self.replica.is_some() && self.stream.is_none()
    }

    /// Takes the next entry, which is committed, if this node is a member that [listens](Log::listen).
    pub fn hear(&mut self, offset: u64, held: Held) -> Taken {
        if !self.listens() {
            return Taken::Stranger;
        }
        if offset != self.commit {
            return if offset < self.commit { Taken::Duplicate } else { Taken::Hole };
        }
        self.adopt_committed(offset, held);
        Taken::Next
    }

    /// Takes an entry that is committed. What this log has there of its own goes on only as far as it is the same.
    pub(crate) fn adopt_committed(&mut self, offset: u64, held: Held) {
        if offset < self.commit || offset > self.end() {
            return;
        }
        if !self.window.entry(offset).is_some_and(|own| own.is_same(&held)) {
            self.cut(offset);
            self.push(held);
        }
        self.commit = offset + 1;
        self.configurations.settle(self.commit);
    }

    /// When the next entry is appended, in unix milliseconds: never before the one before it.
    pub(crate) fn next_stamp(&self, unix_ms: u64) -> u64 {
        let last = self.end().checked_sub(1).and_then(|last| self.window.entry(last));
        unix_ms.max(last.map_or(0, |entry| entry.stamp))
    }

    /// Appends an entry of this node's own, which is the root.
    pub(crate) fn append(&mut self, held: Held) {
        self.push(held);
        let end = self.end();
        if let Some(stream) = &mut self.stream {
            (stream.matched, stream.upto) = (end, end);
        }
    }

    fn push(&mut self, held: Held) {
        let at = self.end();
        // The members of earlier births are none of this one's.
        let is_own = self.lineage.birth_at(at, self.birth) == self.birth;
        if let (Body::Configuration { members, .. }, true) = (&held.body, is_own) {
            self.configurations.note(at, members);
            if let Some(replica) = &mut self.replica {
                replica.named |= members.iter().any(|member| member.key() == (replica.me, replica.life));
            }
        }
        self.window.append(held);
    }

    fn cut(&mut self, end: u64) {
        self.window.cut(end);
        self.configurations.cut(end);
    }

    /// This log is a copy, once it has all that the root's had.
    fn complete(&mut self) {
        let Some(stream) = self.stream.filter(|stream| stream.matched >= stream.upto) else { return };
        let done = self.replica.is_none_or(|replica| replica.synced >= stream.term);
        if done && self.end() == stream.matched {
            return;
        }
        self.cut(stream.matched);
        if let Some(replica) = &mut self.replica {
            replica.synced = replica.synced.max(stream.term);
        }
    }

    /// Whether this log is a copy of the log of this term's root.
    pub fn is_synced(&self, term: Term) -> bool {
        self.stream.is_some_and(|stream| stream.term == term && stream.matched >= stream.upto)
    }

    /// Whether this node makes its log a copy of that of this root.
    pub(crate) fn copies(&self, root: NodeId) -> bool {
        let promised = self.replica.map(|replica| replica.promised);
        self.stream.is_some_and(|stream| stream.term.root == root && promised == Some(stream.term))
    }

    /// Hears from the root of this term how far its log is committed: what is still to come counts when it comes. Returns
    /// whether that is news. Another root's log may be another one.
    pub(crate) fn on_commit_in(&mut self, term: Term, commit: u64) -> bool {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.term == term) else { return false };
        stream.committed = stream.committed.max(commit);
        self.on_commit(commit)
    }

    /// Hears how far the log is committed. Returns whether that is news.
    pub fn on_commit(&mut self, commit: u64) -> bool {
        let commit = commit.min(self.matched());
        if commit <= self.commit {
            return false;
        }
        self.commit = commit;
        self.configurations.settle(commit);
        true
    }

    /// Goes on at a later offset: what is before it is not to be had.
    pub(crate) fn skip_to(&mut self, next: u64) {
        self.window = Window::new(next);
        self.commit = next;
        // There may have been others since.
        self.configurations = Configurations::default();
    }

    /// Becomes a log of another birth, which is the same up to an offset. Returns what it had beyond.
    pub(crate) fn go_over(&mut self, birth: u64, lineage: Lineage, end: u64) -> Window {
        let mut window = std::mem::replace(&mut self.window, Window::new(end));
        let commit = self.commit.min(end);
        *self = Log::new(birth, lineage, end);
        if window.start() > end || commit > window.end() {
            return window;
        }
        // A node that is no member holds committed entries only.
        let left = window.split_off(end.min(commit));
        self.window = window;
        self.commit = commit;
        left
    }

    /// Whether nothing of a birth is missing here, as far as this window tells: all that came after it say so.
    pub(crate) fn took_all_of(&self, birth: u64) -> bool {
        for (_, entry) in self.window.entries_from(self.window.start()).rev() {
            let Body::Configuration { birth: Some(begun), .. } = &entry.body else { continue };
            if !begun.complete {
                return false;
            }
            if begun.lineage.ancestors().last().is_some_and(|before| before.birth == birth) {
                return true;
            }
        }
        false
    }

    /// Drops the entries that are not committed.
    pub(crate) fn drop_open(&mut self) {
        self.cut(self.commit);
        if let Some(stream) = &mut self.stream {
            stream.matched = stream.matched.min(self.commit);
        }
    }

    /// Becomes a log of a birth of this node's own, which takes over all that is here.
    pub(crate) fn begin_anew(&mut self, birth: u64, lineage: Lineage) {
        let window = std::mem::replace(&mut self.window, Window::new(0));
        let end = window.end();
        *self = Log::new(birth, lineage, end);
        self.window = window;
    }

    /// Gives up half of the window, but nothing from this offset on, and nothing that a member has to keep.
    pub(crate) fn shrink(&mut self, keep: u64) {
        let half = self.window.bytes() / 2;
        let keep = keep.min(self.kept_from());
        self.window.trim(usize::MAX, half, keep);
    }

    /// Lets old entries fall out until the limits hold. The last committed configuration stays, because its entry holds
    /// the sessions, and so does what is not committed.
    pub fn trim(&mut self, messages: usize, bytes: usize) {
        let keep = self.kept_from();
        self.window.trim(messages, bytes, keep);
    }

    /// The first entry that must not fall out.
    fn kept_from(&self) -> u64 {
        if self.stream.is_none() && !self.listens() {
            return self.commit;
        }
        let first = self.configurations.all().first();
        first.map_or(self.commit, |first| first.at.min(self.commit))
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        self.window.weight() + self.lineage.weight()
    }

    /// Panics if the log contradicts itself.
    pub fn check(&self) {
        assert!(self.commit >= self.window.start(), "entries that are not committed have fallen out");
        assert!(self.commit <= self.end(), "committed beyond the end");
        if let Some(replica) = self.replica {
            assert!(replica.synced <= replica.promised, "synced by a root that was promised nothing");
        }
        if let Some(stream) = self.stream {
            assert!(stream.matched <= self.end(), "matched beyond the end");
        }
        // A log that becomes a copy has heard of no commit yet.
        let settled = self.stream.is_none_or(|stream| stream.matched >= stream.upto);
        let pending = self.configurations.all().iter().filter(|known| known.at >= self.commit);
        assert!(!settled || pending.count() <= 1, "two configurations are not committed");
    }
}

/// For the root.
impl Log {
    /// Takes over which configurations lie before an offset.
    pub(crate) fn hear_configurations(&mut self, told: &[Configuration], next: u64) {
        let newer = |known: &Configuration| self.configurations.last().is_none_or(|last| last.at < known.at);
        let told = told.iter().filter(|known| known.at < next && newer(known)).cloned();
        let all: Vec<_> = self.configurations.all().iter().cloned().chain(told).collect();
        if let Some(all) = Configurations::told(all) {
            self.configurations = all;
            self.configurations.settle(self.commit);
        }
    }

    /// The own copy is one of this term.
    pub fn become_synced(&mut self, term: Term) {
        self.complete();
        if let Some(replica) = &mut self.replica {
            replica.promised = replica.promised.max(term);
            replica.synced = replica.synced.max(term);
        }
    }

    /// The next entry begins a birth of this node's own.
    pub(crate) fn begin_birth(&mut self, term: Term) {
        let end = self.end();
        self.stream = Some(Stream { term, matched: end, upto: end, committed: 0 });
        self.commit = end;
        self.become_synced(term);
    }
}

#[cfg(test)]
mod tests;

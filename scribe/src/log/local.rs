//! One node's share of a topic's log: the part that it holds, and entries that came too early for it.

use treecast_overlay::id::NodeId;

use super::early::{Arrived, Early};
use super::part::Taken;
use super::reader::mark_at;
use super::window::Window;
use super::{Change, Log};
use crate::message::Mark;
use crate::wire::{CopyState, Life, Lineage, Started, Term};

/// One node's side of a topic's log.
#[derive(Debug)]
pub(crate) struct LocalLog {
    /// `None` until a parent has started it, or a term of this node's own.
    pub part: Option<Box<Log>>,
    /// Entries that came before their predecessors.
    early: Early,
    /// The node that sent all of them: of another root's term of the same number they are none.
    early_of: NodeId,
    /// The node that is no root, and passes on what is committed to this member.
    heard_from: Option<NodeId>,
    /// The life in which this node agreed to become a member, until a root makes it one.
    invited: Option<Life>,
}

impl Default for LocalLog {
    fn default() -> LocalLog {
        LocalLog { part: None, early: Early::default(), early_of: NodeId(0), heard_from: None, invited: None }
    }
}

/// The effect of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The log was not started.
    NotStarted,
    /// It is part of the log now.
    Next,
    /// It is here already.
    Duplicate,
    /// Something before it is missing.
    Hole,
    /// It is of another log, or of another root than the one that this node listens to.
    Stranger,
}

impl LocalLog {
    /// The part that this node holds.
    pub(crate) fn part(&self) -> Option<&Log> {
        self.part.as_deref()
    }

    /// How far this node is: the offset before which it has everything that its parent has.
    pub(crate) fn matched(&self) -> u64 {
        self.part().map_or(0, Log::matched)
    }

    /// The mark of one that has all that is committed here.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.part().map(|log| mark_at(log, log.commit()))
    }

    /// Bytes that the window and the early entries pin.
    pub(crate) fn bytes(&self) -> usize {
        self.part().map_or(0, |log| log.window.bytes()) + self.early.bytes()
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        self.part().map_or(0, |log| size_of::<Log>() + log.weight()) + self.early.bytes()
    }

    /// Whether this node is a member of the log.
    pub(crate) fn is_member(&self) -> bool {
        self.part().is_some_and(|log| log.replica().is_some())
    }

    /// Agrees to become a member, in a new life.
    pub(crate) fn accept_invitation(&mut self, life: Life) {
        if !self.is_member() {
            self.invited = Some(life);
        }
    }

    /// Is a member, or about to be one, no more.
    pub(crate) fn end_life(&mut self) {
        if self.invited.take().is_some() || self.is_member() {
            // They may not be committed.
            self.early.clear();
        }
        if let Some(log) = self.part.as_mut().filter(|log| log.replica().is_some()) {
            log.end_life();
        }
    }

    /// A member's copy as it stands, or that of one which is to become a member.
    pub(crate) fn copy_state(&self) -> Option<CopyState> {
        let log = self.part();
        let empty = |life| {
            let (birth, lineage) = (
                log.map_or(0, |log| log.birth),
                log.map_or_else(Lineage::default, |log| log.lineage.clone()),
            );
            let end = log.map_or(0, Log::commit);
            let start = log.map_or(0, |log| log.window.start());
            let (synced, configurations) = (Term::ZERO, Vec::new());
            CopyState { life, synced, birth, lineage, start, commit: end, end, configurations }
        };
        log.and_then(Log::copy_state).or_else(|| self.invited.map(empty))
    }

    /// Takes an entry from the parent, and those early ones that come next by that.
    pub(crate) fn take(&mut self, from: NodeId, entry: Arrived, messages: usize, bytes: usize) -> Arrival {
        let Some(log) = &mut self.part else { return Arrival::NotStarted };
        match take_one(log, from, self.heard_from, entry.clone()) {
            Taken::Next => {}
            Taken::Duplicate => return Arrival::Duplicate,
            Taken::Stranger => return Arrival::Stranger,
            Taken::Hole => {
                self.keep(from, entry, messages, bytes);
                return Arrival::Hole;
            }
        }
        self.take_early(from);
        Arrival::Next
    }

    /// A root that has served, and is no member, drops what it has positioned and never knew to be committed: if the members live
    /// where it does not reach them, another root gives those positions to other messages.
    pub(crate) fn drop_open_unless_member(&mut self) {
        if let Some(log) = self.part.as_mut().filter(|log| log.replica().is_none()) {
            log.drop_open();
        }
    }

    /// Takes those early entries that come next.
    fn take_early(&mut self, from: NodeId) {
        if self.early_of != from {
            self.early.clear();
        }
        let Some(log) = &mut self.part else { return };
        while let Some(entry) = self.early.take(log.matched()) {
            if take_one(log, from, self.heard_from, entry) != Taken::Next {
                break;
            }
        }
    }

    /// Keeps an entry that has overtaken the root's word that this node is to be a copy. Of anybody else's nothing is
    /// kept: only a member can tell by the term whether it is of the root that it comes to follow.
    pub(crate) fn keep_early(&mut self, from: NodeId, entry: Arrived, messages: usize, bytes: usize) {
        // While a member listens, only one node's word is committed, and may be kept for that.
        let listens = self.part().is_some_and(Log::listens);
        if !listens && (self.is_member() || self.invited.is_some()) {
            self.keep(from, entry, messages, bytes);
        }
    }

    fn keep(&mut self, from: NodeId, entry: Arrived, messages: usize, bytes: usize) {
        if self.early_of != from {
            self.early.clear();
            self.early_of = from;
        }
        self.early.keep(entry, messages, bytes);
    }

    /// Whether entries wait for their predecessors.
    pub(crate) fn has_hole(&self) -> bool {
        !self.early.is_empty()
    }

    /// The entries that are missing before others that have come, after the next one; at most so many.
    pub(crate) fn missing(&self, most: usize) -> Vec<u64> {
        self.early.missing(self.matched().saturating_add(1), most)
    }

    /// Forgets the entries that wait for their predecessors.
    pub(crate) fn clear_early(&mut self) {
        self.early.clear();
    }

    /// Whether a start lies beyond the own part, or in another log.
    pub(crate) fn would_skip(&self, started: &Started) -> bool {
        self.part().is_some_and(|log| {
            let common = log.lineage.common(log.birth, &started.lineage, started.birth);
            common.is_none_or(|end| started.next > end.min(log.end()))
        })
    }

    /// Whether this log is of a later birth than a parent's.
    pub(crate) fn has_left_behind(&self, birth: u64) -> bool {
        self.part().is_some_and(|log| log.lineage.taken_over(birth).is_some())
    }

    /// Whether this node is a member, and may hear what is committed from a node that starts it so and is not the root.
    pub(crate) fn may_listen(&self, started: &Started) -> bool {
        let same = |log: &Log| log.replica().is_some() && log.birth == started.birth;
        started.sync.is_none() && self.part().is_some_and(same)
    }

    /// A member hears what is committed from a node that is not the root.
    pub(crate) fn listen(&mut self, from: NodeId, started: &Started) {
        // They may not be committed.
        self.early.clear();
        self.heard_from = Some(from);
        if let Some(log) = &mut self.part {
            log.listen(started.next);
        }
        self.take_early(from);
    }

    /// This member has said to a root how its copy stands: what comes from there on may not be committed, whoever sends it.
    pub(crate) fn stop_listening(&mut self) {
        if self.heard_from.take().is_some() {
            self.early.clear();
        }
    }

    /// Begins where the parent starts this node, or goes on there. `None`: the parent takes it for a member, in a life that
    /// is not its own.
    pub(crate) fn start(&mut self, me: NodeId, from: NodeId, started: &Started) -> Option<Change> {
        let sync = started.sync.as_deref();
        let own_life = self.part().and_then(|log| log.replica()).map(|replica| replica.life).or(self.invited);
        if sync.is_some_and(|sync| own_life != Some(sync.life)) {
            return None;
        }
        if sync.is_none() {
            // The root's word that no configuration which counts names this node.
            self.end_life();
        }
        let change = self.go_over(started.birth, &started.lineage, started.next);
        let log = self.part.as_mut()?;
        if let Some(sync) = sync {
            if log.replica().is_none() {
                log.begin_life(me, sync.life);
                self.invited = None;
            }
            if !log.on_sync(started.next, sync) {
                return None;
            }
        } else if started.next > log.end() {
            log.skip_to(started.next);
        }
        self.take_early(from);
        Some(change)
    }

    /// Makes the part one of this birth; what is new begins at `next`.
    pub(crate) fn go_over(&mut self, birth: u64, lineage: &Lineage, next: u64) -> Change {
        let fresh = || Box::new(Log::new(birth, lineage.clone(), next));
        match &mut self.part {
            None => self.part = Some(fresh()),
            Some(log) if log.birth == birth => {}
            Some(log) => {
                self.early.clear();
                let Some(end) = log.lineage.common(log.birth, lineage, birth) else {
                    let left = std::mem::replace(&mut log.window, Window::new(next));
                    self.part = Some(fresh());
                    return Change::Replaced { start: next, left };
                };
                let descends = lineage.taken_over(log.birth).is_some();
                let left = log.go_over(birth, lineage.clone(), end);
                return Change::Branched { end, descends, left };
            }
        }
        Change::None
    }

    /// Lets old entries fall out until the limits of one window hold.
    pub(crate) fn trim(&mut self, messages: usize, bytes: usize) {
        if let Some(log) = &mut self.part {
            log.trim(messages, bytes);
        }
    }

    /// Gives up half of the window, but nothing from this offset on, and all early entries: a topic that was quiet for a
    /// while keeps its newest messages.
    pub(crate) fn shrink(&mut self, keep: u64) {
        self.early.clear();
        if let Some(log) = &mut self.part {
            log.shrink(keep);
        }
    }
}

fn take_one(log: &mut Log, from: NodeId, heard_from: Option<NodeId>, entry: Arrived) -> Taken {
    let Arrived { birth, offset, behind, held } = entry;
    if birth != log.birth && birth != log.lineage.birth_at(offset, log.birth) {
        return Taken::Stranger;
    }
    if log.replica().is_none() {
        return log.take_committed(offset, held);
    }
    if log.listens() {
        return if heard_from == Some(from) { log.hear(offset, held) } else { Taken::Stranger };
    }
    let taken = log.take(from, offset, held);
    if taken == Taken::Next {
        log.on_commit(offset.saturating_sub(behind));
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{BIRTH, ME, ROOT, message, sync, term};
    use crate::log::window::Held;

    const THIRD: NodeId = NodeId(8);

    fn arrived(offset: u64, held: Held) -> Arrived {
        Arrived { birth: BIRTH, offset, behind: 0, held }
    }

    fn started(next: u64, sync: Option<crate::wire::Sync>) -> Started {
        let lineage = Lineage::default();
        Started { birth: BIRTH, lineage, next, latest: next, sync: sync.map(Box::new) }
    }

    /// A member whose log begins at 5, and who holds three entries of its root, none of which it knows to be committed.
    fn member() -> LocalLog {
        let mut log = LocalLog::default();
        log.accept_invitation(1);
        assert!(log.start(ME, ROOT, &started(5, Some(sync(1, 5, 5)))).is_some());
        for offset in 5..8 {
            let behind = offset - 4;
            let entry = Arrived { behind, ..arrived(offset, message(1, offset)) };
            assert_eq!(log.take(ROOT, entry, 100, 1 << 20), Arrival::Next);
        }
        assert_eq!((log.matched(), log.part().unwrap().commit()), (8, 5));
        log
    }

    #[test]
    fn a_member_that_listens_takes_entries_from_that_node_only() {
        let mut log = member();
        assert!(log.may_listen(&started(5, None)) && !log.may_listen(&started(5, Some(sync(1, 5, 5)))));
        log.listen(THIRD, &started(5, None));
        assert_eq!(log.matched(), 5);
        let mut take = |from, offset| log.take(from, arrived(offset, message(1, offset)), 100, 1 << 20);
        assert_eq!(take(ROOT, 5), Arrival::Stranger, "the root's may not be committed");
        assert_eq!(take(THIRD, 6), Arrival::Hole);
        assert_eq!(take(THIRD, 5), Arrival::Next);
        assert_eq!((log.matched(), log.part().unwrap().commit()), (7, 7), "with the one that came early");
    }

    #[test]
    fn what_a_member_kept_early_for_a_root_is_not_taken_for_committed() {
        let mut log = member();
        // Of the root that it follows; and one that has overtaken the root's word.
        assert_eq!(log.take(ROOT, arrived(9, message(1, 9)), 100, 1 << 20), Arrival::Hole);
        log.listen(THIRD, &started(5, None));
        log.keep_early(ROOT, arrived(6, message(2, 60)), 100, 1 << 20);
        assert_eq!(log.take(THIRD, arrived(5, message(1, 5)), 100, 1 << 20), Arrival::Next);
        assert_eq!(log.part().unwrap().commit(), 6);
        assert!(!log.has_hole());
    }

    #[test]
    fn entries_that_came_early_are_of_the_root_that_sent_them_and_of_no_other_with_that_number() {
        let mut log = member();
        // Of a root with a term of the same number as the next one's; its own word is lost, or late.
        assert!(log.part.as_mut().unwrap().on_prepare(term(2)).is_some());
        log.keep_early(THIRD, arrived(8, message(2, 80)), 100, 1 << 20);
        assert!(log.start(ME, ROOT, &started(5, Some(sync(2, 8, 5)))).is_some());
        for offset in 5..8 {
            let entry = Arrived { behind: offset - 4, ..arrived(offset, message(2, offset)) };
            assert_eq!(log.take(ROOT, entry, 100, 1 << 20), Arrival::Next);
        }
        assert_eq!(log.matched(), 8, "the eighth is not here");
    }

    #[test]
    fn once_it_has_promised_a_member_listens_to_nobody() {
        let mut log = member();
        log.listen(THIRD, &started(5, None));
        log.stop_listening();
        // The third may be that root.
        assert_eq!(log.take(THIRD, arrived(5, message(2, 50)), 100, 1 << 20), Arrival::Stranger);
        assert!(log.start(ME, ROOT, &started(5, Some(sync(2, 6, 5)))).is_some());
        assert_eq!(
            log.take(ROOT, Arrived { behind: 1, ..arrived(5, message(2, 50)) }, 100, 1 << 20),
            Arrival::Next
        );
        assert_eq!((log.matched(), log.part().unwrap().commit()), (6, 5));
    }
}

//! One node's share of a topic's log: the part that it holds, entries that came too early for it, and the most that any
//! node has told of the rest.

use treecast_overlay::id::NodeId;

use super::early::Early;
use super::handoff::Handoff;
use super::window::{Arrival, Entry, Window};
use super::{Change, Log, better, is_plausible};
use crate::message::{Mark, Position, Term};
use crate::wire::{Body, LogTip, Started};

/// One node's side of a topic's log.
#[derive(Debug, Default)]
pub(crate) struct LocalLog {
    /// `None` until a parent has started it, or a term of this node's own.
    part: Option<Log>,
    /// Entries that came before their predecessors.
    early: Early,
    /// The most that any node told of the log, if that is more than the own part shows.
    best_known: Option<Box<LogTip>>,
}

/// The worth of a claim about the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing new.
    Nothing,
    /// No honest node says so.
    Implausible,
    /// More than was known; whether it is of a later term.
    More { later_term: bool },
}

impl LocalLog {
    /// The part that this node holds.
    pub(crate) fn part(&self) -> Option<&Log> {
        self.part.as_ref()
    }

    /// The last entry held.
    pub(crate) fn tail(&self) -> Option<Position> {
        self.part.as_ref().and_then(|log| log.window.tail())
    }

    /// The most that is known of the log, from the own part and from others.
    pub(crate) fn tip(&self) -> Option<LogTip> {
        let own = self.part.as_ref().map(Log::tip);
        match (own, self.best_known.as_deref().copied()) {
            (Some(own), Some(told)) => Some(better(own, told)),
            (one, None) | (None, one) => one,
        }
    }

    /// Bytes that the window and the early entries pin.
    pub(crate) fn bytes(&self) -> usize {
        self.part.as_ref().map_or(0, |log| log.window.bytes()) + self.early.bytes()
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        let window = self.part.as_ref().map_or(0, |log| log.window.weight());
        let told = self.best_known.as_ref().map_or(0, |told| size_of_val(&**told));
        window + told + self.early.bytes()
    }

    /// Hears a claim about the log. `recovering`: this node is about to open a term, and may go over to another log;
    /// otherwise the log that it follows is not given up for another by hearsay.
    pub(crate) fn hear(&mut self, claim: LogTip, recovering: bool) -> Heard {
        if self.part.as_ref().is_some_and(|log| log.birth != claim.birth && !recovering) {
            return Heard::Nothing;
        }
        if !is_plausible(claim.tail) || claim.term.number >= 1 << 40 {
            return Heard::Implausible;
        }
        let claim = self.above_conflict(claim);
        let before = self.tip();
        let after = before.map_or(claim, |before| better(before, claim));
        if before == Some(after) {
            return Heard::Nothing;
        }
        self.best_known = Some(Box::new(after));
        Heard::More { later_term: before.is_none_or(|before| after.term > before.term) }
    }

    /// Two roots of one log opened a term of the same number: a node that sees both asks for one above them.
    fn above_conflict(&self, claim: LogTip) -> LogTip {
        let own = self.part.as_ref().filter(|log| log.birth == claim.birth).map(|log| log.term);
        let conflict = own.is_some_and(|own| {
            own.number == claim.term.number && own.root != claim.term.root && claim.term.root != NodeId(0)
        });
        if !conflict {
            return claim;
        }
        LogTip { term: Term { number: claim.term.number + 1, root: NodeId(0) }, ..claim }
    }

    /// A later term of this log than its own part shows, of which some node told.
    pub(crate) fn later_term(&self) -> Option<LogTip> {
        let log = self.part.as_ref()?;
        let told = self.best_known.as_deref().copied()?;
        (told.birth == log.birth && told.term > log.term).then(|| better(log.tip(), told))
    }

    /// Whether no node has told of more than this node's own log shows, nor does a handoff.
    pub(crate) fn has_all(&self, handoff: Option<LogTip>) -> bool {
        let told = [self.best_known.as_deref().copied(), handoff];
        self.part.as_ref().map(Log::tip).is_some_and(|own| {
            let within = |tip: LogTip| tip.birth == own.birth && tip.term <= own.term && tip.tail <= own.tail;
            told.into_iter().flatten().all(within)
        })
    }

    /// Whether this node's log, if it is that of the mark, does not show what stands there.
    pub(crate) fn lacks(&self, mark: Mark) -> bool {
        self.part.as_ref().is_some_and(|log| log.birth == mark.birth && !log.window.holds(mark.position))
    }

    /// Classifies a received entry; `None` if the log was not started.
    pub(crate) fn arrival(&self, entry: &Entry) -> Option<Arrival> {
        self.part.as_ref().map(|log| log.window.arrival(entry.position, &entry.held.body))
    }

    /// Makes room for an entry that is next, or that starts a term on an earlier entry. To be called before
    /// [`push`](LocalLog::push), so that those that read the log go to where the new branch leaves theirs.
    pub(crate) fn make_way(&mut self, entry: &Entry) -> Change {
        let (Some(log), Body::TermStart { previous, .. }) = (&mut self.part, entry.held.body) else {
            return Change::None;
        };
        let previous = entry.position.behind(previous);
        log.term = log.term.max(entry.position.term);
        if log.window.tail() == previous || log.window.holds(previous) {
            log.window.cut_after(previous);
            Change::Truncated { end: log.window.end() }
        } else {
            rebase_window(log, Window::new(previous))
        }
    }

    /// Appends an entry.
    pub(crate) fn push(&mut self, entry: Entry) {
        if let Some(log) = &mut self.part {
            log.window.append(entry);
        }
    }

    /// Keeps an entry that came before its predecessors, if there is room.
    pub(crate) fn keep_early(&mut self, entry: Entry, messages: usize, bytes: usize) {
        self.early.keep(entry, messages, bytes);
    }

    /// Takes out the early entry that comes next.
    pub(crate) fn poll_early(&mut self) -> Option<Entry> {
        self.part.as_ref().and_then(|log| self.early.poll_next(&log.window))
    }

    /// Whether entries wait for their predecessors.
    pub(crate) fn has_hole(&self) -> bool {
        !self.early.is_empty()
    }

    /// Forgets the entries that wait for their predecessors.
    pub(crate) fn clear_early(&mut self) {
        self.early.clear();
    }

    /// Whether a start lies beyond the own part, or in another log.
    pub(crate) fn would_skip(&self, start: Mark) -> bool {
        self.part.as_ref().is_some_and(|log| start.birth != log.birth || start.position > log.window.tail())
    }

    /// Begins where the parent starts this node, or goes on there.
    pub(crate) fn start(&mut self, started: &Started) -> Change {
        let Started { term, after, .. } = *started;
        let fresh = || Log { birth: after.birth, term, window: Window::new(after.position) };
        match &mut self.part {
            None => self.part = Some(fresh()),
            Some(log) if log.birth != after.birth => {
                self.early.clear();
                self.best_known = None;
                return self.replace_log(fresh());
            }
            Some(log) => {
                log.term = log.term.max(term);
                if after.position > log.window.tail() {
                    // Entries that the parent's window no longer holds are lost to this node, and to those below.
                    return rebase_window(log, Window::new(after.position));
                }
            }
        }
        Change::None
    }

    /// Begins a log that never was before.
    pub(crate) fn found(&mut self, birth: u64, term: Term) {
        self.part = Some(Log { birth, term, window: Window::new(None) });
    }

    /// Makes this node's log one that ends with the known tail, so that a term can follow.
    pub(crate) fn end_at(&mut self, tip: LogTip) -> Change {
        self.best_known = None;
        let fresh = || Log { birth: tip.birth, term: tip.term, window: Window::new(tip.tail) };
        match &mut self.part {
            None => self.part = Some(fresh()),
            Some(log) if log.birth != tip.birth => return self.replace_log(fresh()),
            Some(log) if log.window.tail() != tip.tail => {
                // The entries between were only at nodes that are gone.
                return rebase_window(log, Window::new(tip.tail));
            }
            Some(_) => {}
        }
        Change::None
    }

    /// Notes the term that this node has opened.
    pub(crate) fn set_term(&mut self, term: Term) {
        if let Some(log) = &mut self.part {
            log.term = term;
        }
    }

    /// Completes this node's log by a handoff, or replaces it.
    pub(crate) fn fill(&mut self, handoff: &Handoff) -> Change {
        let Handoff { tip, base, .. } = *handoff;
        if self.part.as_ref().is_some_and(|log| log.birth != tip.birth) {
            self.best_known = None;
        }
        let same = self.part.as_ref().is_some_and(|log| log.birth == tip.birth);
        // First what the own part lacks; if that does not lead to the handoff's end, the own part is behind it, or on
        // another branch, and is given up for the handoff's.
        if let (Some(log), true) = (&mut self.part, same) {
            handoff.append_to(log);
        }
        let mut change = Change::None;
        if self.part.as_ref().is_none_or(|log| !same || log.window.tail() != tip.tail) {
            // This node was not on the tree, or too far behind, or on a lost branch.
            let mut log = Log { birth: tip.birth, term: tip.term, window: Window::new(base) };
            handoff.append_to(&mut log);
            change = match &mut self.part {
                Some(part) if same => rebase_window(part, log.window),
                Some(_) => self.replace_log(log),
                None => {
                    self.part = Some(log);
                    Change::None
                }
            };
        }
        if let Some(log) = &mut self.part {
            log.term = log.term.max(tip.term);
        }
        change
    }

    fn replace_log(&mut self, log: Log) -> Change {
        self.part.replace(log).map_or(Change::None, |old| Change::Replaced { old })
    }

    /// Lets old entries fall out until the limits of one window hold.
    pub(crate) fn trim(&mut self, messages: usize, bytes: usize) {
        if let Some(log) = &mut self.part {
            log.window.trim(messages, bytes);
        }
    }

    /// Gives up half of the window, but nothing from this offset on, and all early entries: a topic that was quiet for a
    /// while keeps its newest messages.
    pub(crate) fn shrink(&mut self, keep: u64) {
        self.early.clear();
        if let Some(log) = &mut self.part {
            let half = log.window.bytes() / 2;
            while log.window.bytes() > half && log.window.start() < keep {
                log.window.evict();
            }
        }
    }
}

fn rebase_window(log: &mut Log, window: Window) -> Change {
    let old = std::mem::replace(&mut log.window, window);
    Change::Rebased { old: Log { birth: log.birth, term: log.term, window: old } }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::Key;

    use super::*;
    use crate::topic::TopicId;

    fn at(number: u64, offset: u64) -> Position {
        Position { term: Term { number, root: NodeId(9) }, offset }
    }

    /// A part of log 7 that ends with this.
    fn local(tail: Position) -> LocalLog {
        let mut log = LocalLog::default();
        let after = Mark { birth: 7, position: Some(tail) };
        let change = log.start(&Started { term: tail.term, after, latest: None });
        assert!(matches!(change, Change::None));
        log
    }

    fn term_start(at: Position, previous: Position) -> Entry {
        let body = Body::TermStart { previous: Some(previous.term), forced: true };
        Entry::encode(TopicId(Key(1)), at, body, &[])
    }

    #[test]
    fn a_term_cuts_the_branch_that_it_leaves_and_a_window_it_does_not_know() {
        let mut log = local(at(1, 5));
        log.push(term_start(at(2, 6), at(1, 5)));
        let change = log.make_way(&term_start(at(3, 6), at(1, 5)));
        assert!(matches!(change, Change::Truncated { end: 6 }), "{change:?}");
        let change = log.make_way(&term_start(at(4, 9), at(3, 8)));
        let Change::Rebased { old } = change else { panic!("{change:?}") };
        assert_eq!(old.window.tail(), Some(at(1, 5)));
        assert_eq!(log.tail(), Some(at(3, 8)));
    }

    #[test]
    fn hearsay_of_another_log_counts_only_while_a_term_is_to_be_opened() {
        let mut log = local(at(1, 5));
        let longer = LogTip { birth: 8, term: at(4, 0).term, tail: Some(at(4, 44)) };
        assert_eq!(log.hear(longer, false), Heard::Nothing);
        assert_eq!(log.hear(longer, true), Heard::More { later_term: true });
        assert_eq!(log.tip(), Some(longer));
        let change = log.end_at(longer);
        assert!(matches!(change, Change::Replaced { .. }), "{change:?}");
        assert_eq!(log.tail(), Some(at(4, 44)));
    }

    #[test]
    fn two_roots_of_one_number_call_for_a_term_above_both() {
        let mut log = local(at(2, 5));
        let other = Term { number: 2, root: NodeId(3) };
        let claim = LogTip { birth: 7, term: other, tail: Some(at(2, 5)) };
        assert_eq!(log.hear(claim, false), Heard::More { later_term: true });
        assert_eq!(log.later_term().map(|tip| tip.term.number), Some(3));
        assert_eq!(log.hear(LogTip { tail: Some(at(1 << 40, 0)), ..claim }, false), Heard::Implausible);
    }
}

//! A subscriber's place in its node's window: a cursor that turns entries into messages and gaps.

use super::seen::Seen;
use super::window::{Follow, Window};
use super::{Log, is_plausible};
use crate::message::{Gap, GapReason, Item, Mark, Message, MessageId, Position, Start};
use crate::wire::Body;

/// A subscriber's place in this node's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// The last position that is behind it. It only ever moves forward.
    pub last: Option<Position>,
    /// The next offset to deliver.
    pub next: u64,
    /// It has missed something that it has not heard of yet: why, and what it had before.
    pub owed: Option<(GapReason, Option<Position>)>,
}

impl Reader {
    /// Where a subscription begins, and the mark that says so (promise S5). `latest` is the parent's last entry, if it
    /// has just said so: what comes up to there was published before.
    pub(crate) fn begin(log: &Log, start: Start, latest: Option<Position>) -> (Reader, Mark) {
        let window = &log.window;
        let mark = match start {
            Start::Latest => Mark { birth: log.birth, position: window.tail().max(latest) },
            Start::After(mark) => mark,
        };
        if mark.birth != log.birth {
            let owed = Some((GapReason::OtherLog, mark.position));
            let mark = Mark { birth: log.birth, position: window.base() };
            return (Reader { last: window.base(), next: window.start(), owed }, mark);
        }
        let last = mark.position;
        let reader = match window.follow(last) {
            Follow::At(next) => Reader { last, next, owed: None },
            Follow::TooOld => {
                Reader { last, next: window.start(), owed: Some((GapReason::OutOfWindow, last)) }
            }
            Follow::Newer if !is_plausible(last) => {
                Reader { last: window.base(), next: window.start(), owed: Some((GapReason::RootLost, last)) }
            }
            // It is ahead of this node: what it has is passed over.
            Follow::Newer => Reader { last, next: window.end(), owed: None },
        };
        (reader, mark)
    }

    /// The next item, if there is one.
    pub(crate) fn poll_item(&mut self, log: &Log, seen: &mut Seen) -> Option<Item> {
        if self.next < log.window.start() {
            self.owed.get_or_insert((GapReason::OutOfWindow, self.last));
            self.next = log.window.start();
        }
        loop {
            let entry = log.window.entry(self.next)?;
            let at = log.window.position(self.next)?;
            if Some(at) <= self.last {
                // A subscriber only ever moves forward.
                self.next += 1;
                continue;
            }
            match entry.body {
                // A reader past the entry that this term builds on has read a branch that was discarded.
                Body::TermStart { forced, previous } if forced || self.last > at.behind(previous) => {
                    let (reason, after) = match self.owed.take() {
                        // That it is another log says more: its positions go on from nothing that was before.
                        Some((GapReason::OtherLog, after)) => (GapReason::OtherLog, after),
                        Some((_, after)) => (GapReason::RootLost, after),
                        None => (GapReason::RootLost, self.last),
                    };
                    self.pass(at);
                    return Some(Item::Gap(Gap { after, until: Some(at), reason }));
                }
                Body::TermStart { .. } | Body::Message { .. } if self.owed.is_some() => {
                    let (reason, after) = self.owed.take()?;
                    return Some(Item::Gap(Gap { after, until: Some(at), reason }));
                }
                Body::TermStart { .. } => self.pass(at),
                Body::Message { publisher, session, sequence, .. } => {
                    self.pass(at);
                    let id = MessageId { publisher, session, sequence };
                    if !seen.note(id) {
                        continue;
                    }
                    let mark = Mark { birth: log.birth, position: Some(at) };
                    let payload = entry.payload.clone();
                    return Some(Item::Message(Message { id, position: at, mark, payload }));
                }
            }
        }
    }

    fn pass(&mut self, at: Position) {
        self.last = Some(at);
        self.next = at.offset + 1;
    }

    /// Goes back to where the log leaves the branch on which the reader stands.
    pub(crate) fn truncate(&mut self, end: u64) {
        self.next = self.next.min(end);
    }

    /// Goes on in another window of the same log.
    pub(crate) fn rebase(&mut self, window: &Window) {
        match window.follow(self.last) {
            Follow::At(next) => self.next = next.min(window.end()),
            Follow::Newer => self.next = window.end(),
            Follow::TooOld => {
                self.next = window.start();
                self.owed.get_or_insert((GapReason::OutOfWindow, self.last));
            }
        }
    }

    /// Begins at the start of another log, and owes the subscriber the news of it.
    pub(crate) fn restart(&mut self, window: &Window) {
        let after = self.owed.map_or(self.last, |(_, after)| after);
        let owed = Some((GapReason::OtherLog, after));
        *self = Reader { last: None, next: window.start(), owed };
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::{Key, NodeId};

    use super::*;
    use crate::log::window::Entry;
    use crate::message::Term;
    use crate::topic::TopicId;

    fn at(number: u64, offset: u64) -> Position {
        Position { term: Term { number, root: NodeId(9) }, offset }
    }

    fn start_of(at: Position, previous: Position, forced: bool) -> Entry {
        Entry::encode(TopicId(Key(1)), at, Body::TermStart { previous: Some(previous.term), forced }, &[])
    }

    /// A log whose window begins behind a position, and a reader that has come so far.
    fn log_and_reader(last: Position) -> (Log, Reader) {
        let term = Term { number: 1, root: NodeId(9) };
        let log = Log { birth: 7, term, window: Window::new(Some(last)) };
        (log, Reader { last: Some(last), next: last.offset + 1, owed: None })
    }

    fn next_item(reader: &mut Reader, log: &Log) -> Option<Item> {
        reader.poll_item(log, &mut Seen::default())
    }

    #[test]
    fn a_reader_on_a_lost_branch_hears_of_it_where_the_window_begins_anew() {
        // Term 2 began behind 1:5 and ended with 2:6. Of both nothing is here: the reader has come to 1:8.
        let (mut log, mut reader) = log_and_reader(at(1, 8));
        log.window = Window::new(Some(at(2, 6)));
        reader.rebase(&log.window);
        log.window.append(start_of(at(3, 7), at(2, 6), false));
        let gap = Gap { after: Some(at(1, 8)), until: Some(at(3, 7)), reason: GapReason::OutOfWindow };
        assert_eq!(next_item(&mut reader, &log), Some(Item::Gap(gap)));
    }

    #[test]
    fn a_reader_hears_that_it_was_on_a_branch_that_is_over() {
        // Two roots opened a term 2 behind 1:5; this log is the one that was handed over, the reader was on the other.
        let (mut log, mut reader) = log_and_reader(at(1, 5));
        let beside = Position { term: Term { number: 2, root: NodeId(3) }, offset: 8 };
        reader.last = Some(beside);
        log.window.append(start_of(at(2, 6), at(1, 5), false));
        let gap = Gap { after: Some(beside), until: Some(at(2, 6)), reason: GapReason::RootLost };
        assert_eq!(next_item(&mut reader, &log), Some(Item::Gap(gap)));
    }

    #[test]
    fn that_it_is_another_log_is_not_concealed_by_a_forced_term() {
        let (_, mut reader) = log_and_reader(at(1, 8));
        let mut other = Log { birth: 8, term: at(1, 2).term, window: Window::new(Some(at(1, 2))) };
        reader.restart(&other.window);
        other.window.append(start_of(at(2, 3), at(1, 2), true));
        let gap = Gap { after: Some(at(1, 8)), until: Some(at(2, 3)), reason: GapReason::OtherLog };
        assert_eq!(next_item(&mut reader, &other), Some(Item::Gap(gap)));
    }
}

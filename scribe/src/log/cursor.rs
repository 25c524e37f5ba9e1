//! A child's place in its parent's window (design §6: "Each child is a cursor into its parent's window").

use std::time::Duration;

use treecast_overlay::time::Instant;

use super::window::{Follow, Held, Window};
use super::{Log, is_plausible};
use crate::message::{Mark, Term};
use crate::wire::{Ack, Started};

/// How far apart the same entry is pushed again at a child's request.
const REPEATS_APART: Duration = Duration::from_millis(200);

/// A child's place in this node's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The next offset to push.
    pub next: u64,
    /// Everything before this offset has arrived.
    pub acknowledged: u64,
    /// The `Attached` by which the cursor was last set: older acknowledgements say nothing of it.
    pub seq: u64,
    /// The place from which an entry was pushed again at the child's request, and when: once is enough, unless that is
    /// lost too.
    repeated: Option<(u64, Instant)>,
}

impl Cursor {
    /// A cursor with nothing in flight.
    pub(crate) fn at(next: u64, seq: u64) -> Cursor {
        Cursor { next, acknowledged: next, seq, repeated: None }
    }

    /// The cursor of a child that has everything up to a mark. `None`: the mark is of a term of which this node is yet
    /// to hear.
    pub(crate) fn after(log: &Log, after: Option<Mark>, seq: u64) -> Option<Cursor> {
        place(log, after).map(|next| Cursor::at(next, seq))
    }

    /// The start that the child is told.
    pub(crate) fn started(&self, log: &Log) -> Started {
        // Only what the child has acknowledged is surely there: what flies must not look like a gap to it.
        let position = log.window.before(self.acknowledged);
        let after = Mark { birth: log.birth, position };
        Started { term: log.term, after, latest: log.window.tail() }
    }

    /// Whether something was pushed that was not acknowledged.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.next > self.acknowledged
    }

    /// Moves by an acknowledgement.
    pub(crate) fn on_ack(&mut self, window: &Window, ack: &Ack) {
        if let Follow::At(offset) = window.follow(ack.position)
            && offset > self.acknowledged
        {
            self.acknowledged = offset;
            self.next = self.next.max(offset);
            self.repeated = None;
        }
    }

    /// The one entry that the child misses, if it was pushed, and others after it have come. It is sent again at the
    /// child's request, though not for each that comes in a short time; if the child is not heard, the timer goes back and
    /// pushes all that follows.
    pub(crate) fn repeat<'a>(&mut self, now: Instant, window: &'a Window, ack: &Ack) -> Option<&'a Held> {
        let at = self.acknowledged;
        let done = self.repeated.is_some_and(|(place, when)| place == at && now < when + REPEATS_APART);
        if !ack.again || self.next <= at || done {
            return None;
        }
        let entry = window.entry(at)?;
        self.repeated = Some((at, now));
        Some(entry)
    }

    /// Goes back to where the log leaves the branch on which the cursor stands.
    pub(crate) fn truncate(&mut self, end: u64) {
        self.next = self.next.min(end);
        self.acknowledged = self.acknowledged.min(end);
    }
}

/// Where in the window a child begins.
fn place(log: &Log, after: Option<Mark>) -> Option<u64> {
    match after {
        None => Some(log.window.end()),
        Some(mark) if mark.birth != log.birth => Some(log.window.start()),
        Some(mark) => match log.window.follow(mark.position) {
            // Not beyond what is here: a child that asks on behalf of its own child has no log yet, and begins where
            // this node says.
            Follow::At(offset) => Some(offset.min(log.window.end())),
            Follow::TooOld => Some(log.window.start()),
            // Nothing is here yet, and the child's term is this one: no start of another will come to start it.
            Follow::Newer if log.window.tail().is_none() && is_of(mark, log.term) => Some(log.window.end()),
            Follow::Newer if is_plausible(mark.position) => None,
            Follow::Newer => Some(log.window.start()),
        },
    }
}

/// Whether a mark lies in this term, or before it.
fn is_of(mark: Mark, term: Term) -> bool {
    mark.position.is_none_or(|position| position.term <= term)
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::NodeId;

    use super::*;
    use crate::message::Position;

    #[test]
    fn a_child_ahead_of_an_empty_window_is_started() {
        let term = Term { number: 1, root: NodeId(1) };
        let log = Log { birth: 7, term, window: Window::new(None) };
        let from = |number| {
            let position = Position { term: Term { number, root: NodeId(1) }, offset: 0 };
            Some(Mark { birth: 7, position: Some(position) })
        };
        assert_eq!(place(&log, from(1)), Some(0), "what it has comes again, and is passed over");
        assert_eq!(place(&log, from(2)), None, "the start of its term is yet to come");
    }

    #[test]
    fn a_child_is_started_where_its_cursor_stands() {
        let term = Term { number: 1, root: NodeId(1) };
        let at = |offset| Some(Position { term, offset });
        let log = Log { birth: 7, term, window: Window::new(at(22)) };
        // The grandchild is ahead of this window, the child between them has nothing at all.
        for (from, begins) in [(at(22), 23), (at(23), 23), (at(40), 23)] {
            let cursor = Cursor::after(&log, Some(Mark { birth: 7, position: from }), 1).unwrap();
            assert_eq!(cursor.next, begins, "{from:?}");
            let told = cursor.started(&log).after.position.unwrap();
            assert_eq!(told.offset + 1, cursor.next, "what it is told to expect is what it is sent");
        }
    }
}

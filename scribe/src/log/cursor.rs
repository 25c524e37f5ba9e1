//! A child's place in its parent's window (design §6: "Each child is a cursor into its parent's window").

use std::time::Duration;

use treecast_overlay::time::Instant;

use super::Log;
use super::window::{Held, Window};
use crate::message::{Mark, Start};
use crate::wire::{Ack, Body};

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

    /// Whether something was pushed that was not acknowledged.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.next > self.acknowledged
    }

    /// Moves by an acknowledgement. One of entries that were never pushed is not believed.
    pub(crate) fn on_ack(&mut self, window: &Window, ack: &Ack) {
        if ack.next > self.acknowledged && ack.next <= window.end() {
            self.acknowledged = ack.next;
            self.next = self.next.max(ack.next);
            self.repeated = None;
        }
    }

    /// The one entry that the child misses, if it was pushed, and others after it have come. It is sent again at the
    /// child's request, though not for each that comes in a short time; if the child is not heard, the timer goes back and
    /// pushes all that follows.
    pub(crate) fn repeat<'a>(&mut self, now: Instant, window: &'a Window, ack: &Ack) -> Option<(u64, &'a Held)> {
        let at = self.acknowledged;
        let done = self.repeated.is_some_and(|(place, when)| place == at && now < when + REPEATS_APART);
        if !ack.again || self.next <= at || done {
            return None;
        }
        let entry = window.entry(at)?;
        self.repeated = Some((at, now));
        Some((at, entry))
    }
}

/// Where in a log one begins that is to read it. Never beyond what is committed here: one that asks on behalf of another
/// has no log yet, and begins where this node says.
pub(crate) fn place(log: &Log, start: Start) -> u64 {
    let first = log.window.start();
    match start {
        Start::Latest => log.commit(),
        Start::Earliest => first,
        Start::Last(count) => last_messages(log, count),
        Start::After(mark) => match own_offset(log, mark) {
            Some(next) => next.clamp(first, log.commit()),
            None => first,
        },
    }
}

/// The offset of a mark in this log, if it is one of its own or of a birth before it; what the log did not take over is
/// left out.
pub(crate) fn own_offset(log: &Log, mark: Mark) -> Option<u64> {
    if mark.birth == log.birth {
        return Some(mark.next);
    }
    log.lineage.taken_over(mark.birth).map(|end| mark.next.min(end))
}

/// Where the last so many messages begin.
fn last_messages(log: &Log, count: u32) -> u64 {
    let mut next = log.commit();
    let mut left = count;
    while left > 0 && next > log.window.start() {
        next -= 1;
        if log.window.entry(next).is_some_and(|entry| matches!(entry.body, Body::Message { .. })) {
            left -= 1;
        }
    }
    next
}

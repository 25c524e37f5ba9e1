//! A child's place in its parent's window (design §6: "Each child is a cursor into its parent's window").

use std::collections::BTreeSet;
use std::time::Duration;

use treecast_overlay::time::Instant;

use super::Log;
use super::window::Window;
use crate::message::{Mark, Start};
use crate::wire::{Ack, Body, MAX_HOLES};

/// A child's place in this node's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The next offset to push.
    pub next: u64,
    /// Everything before this offset has arrived.
    pub acknowledged: u64,
    /// The `Attached` by which the cursor was last set: older acknowledgements say nothing of it.
    pub seq: u64,
}

/// The entries that were pushed again at a child's request, and when: once is enough, unless that is lost too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repeats {
    under_way: Vec<(u64, Instant)>,
}

impl Repeats {
    /// The entries that a child asks for and that were pushed, but for those that may be on their way again, which takes
    /// `apart`. If the child is not heard, the timer goes back and pushes all that follows. The caller notes which it sends.
    pub(crate) fn due(&mut self, now: Instant, apart: Duration, cursor: Cursor, ack: &Ack) -> Vec<u64> {
        let pushed = cursor.acknowledged..cursor.next;
        self.under_way.retain(|(offset, at)| pushed.contains(offset) && now < *at + apart);
        if !ack.again {
            return Vec::new();
        }
        // A child that names one twice gets it once.
        let asked = std::iter::once(cursor.acknowledged).chain(ack.missing.iter().copied());
        let asked: BTreeSet<u64> = asked.collect();
        let is_due =
            |offset: &u64| pushed.contains(offset) && self.under_way.iter().all(|(other, _)| other != offset);
        asked.into_iter().filter(is_due).take(MAX_HOLES.saturating_sub(self.under_way.len())).collect()
    }

    /// Notes that an entry is sent again.
    pub(crate) fn note(&mut self, now: Instant, offset: u64) {
        self.under_way.push((offset, now));
    }

    /// Forgets what was sent again, because it was waited for in vain. Returns whether there was anything.
    pub(crate) fn forget(&mut self) -> bool {
        !std::mem::take(&mut self.under_way).is_empty()
    }
}

impl Cursor {
    /// A cursor with nothing in flight.
    pub(crate) fn at(next: u64, seq: u64) -> Cursor {
        Cursor { next, acknowledged: next, seq }
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
        }
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

/// Whether one that begins like this needs entries that are older than the window.
pub(crate) fn begins_before(log: &Log, start: Start) -> bool {
    match start {
        Start::Latest => false,
        Start::Earliest | Start::Last(_) => log.window.is_young(),
        Start::After(mark) => own_offset(log, mark).is_some_and(|next| next < log.window.start()),
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

#[cfg(test)]
mod tests {
    use treecast_overlay::id::Key;

    const APART: Duration = Duration::from_millis(200);

    use super::*;
    use crate::log::testing::{BIRTH, born, configuration, message, read_log};
    use crate::topic::TopicId;
    use crate::wire::Lineage;

    fn ack(next: u64, again: bool) -> Ack {
        Ack {
            topic: TopicId(Key(7)),
            join: 1,
            seq: 1,
            next,
            subscribers: 1,
            again,
            missing: vec![4, 6, 4],
            consumed: 0,
        }
    }

    fn after(birth: u64, next: u64) -> Start {
        Start::After(Mark { birth, next })
    }

    #[test]
    fn an_acknowledgement_moves_forward_and_never_beyond_what_was_appended() {
        let log = read_log(9);
        let mut cursor = Cursor::at(2, 1);
        cursor.next = 6;
        for (next, acknowledged) in [(4, 4), (3, 4), (11, 4), (u64::MAX, 4), (10, 10)] {
            cursor.on_ack(&log.window, &ack(next, false));
            assert_eq!(cursor.acknowledged, acknowledged, "by one of {next}");
        }
        assert_eq!(cursor.next, 10, "it had them from elsewhere");
        assert!(!cursor.is_in_flight());
    }

    #[test]
    fn entries_are_repeated_once_in_a_while() {
        let mut cursor = Cursor::at(2, 1);
        cursor.next = 6;
        let mut repeats = Repeats::default();
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut due = |now, cursor, again| {
            let due = repeats.due(at(now), APART, cursor, &ack(2, again));
            due.iter().for_each(|&offset| repeats.note(at(now), offset));
            due
        };
        assert_eq!(due(0, cursor, false), [] as [u64; 0], "it does not ask");
        assert_eq!(due(0, cursor, true), [2, 4], "the sixth was never pushed");
        assert_eq!(due(199, cursor, true), [] as [u64; 0]);
        assert_eq!(due(200, cursor, true), [2, 4]);
        cursor.next = 7;
        assert_eq!(due(300, cursor, true), [6]);
        let beyond = Cursor { acknowledged: 7, ..cursor };
        assert_eq!(due(900, beyond, true), [] as [u64; 0], "it has everything");
        assert_eq!(due(1200, cursor, true), [2, 4, 6]);
        assert!(repeats.forget());
        assert!(!repeats.forget(), "they are waited for once");
    }

    #[test]
    fn one_begins_where_it_asks_within_what_is_committed_here() {
        let mut log = read_log(9);
        log.trim(8, usize::MAX);
        let of = |start| place(&log, start);
        assert_eq!((log.window.start(), log.commit()), (2, 10));
        assert_eq!([of(Start::Latest), of(Start::Earliest)], [10, 2]);
        assert_eq!([0, 1, 8, 9, u32::MAX].map(|count| of(Start::Last(count))), [10, 9, 2, 2, 2]);
        assert_eq!([0, 2, 5, 10, 11].map(|next| of(after(BIRTH, next))), [2, 2, 5, 10, 10]);
        assert_eq!(of(after(99, 5)), 2, "of another log");
    }

    #[test]
    fn one_that_begins_at_the_end_gets_what_is_not_committed_yet() {
        let mut log = read_log(2);
        log.append(message(1, 3));
        assert_eq!((place(&log, Start::Latest), log.matched()), (3, 4));
    }

    #[test]
    fn the_last_messages_are_counted_without_the_logs_own_entries() {
        let mut log = read_log(3);
        for (offset, held) in [(4, configuration(1, &[1])), (5, message(1, 4)), (6, configuration(1, &[2]))] {
            let _ = log.take_committed(offset, held);
        }
        assert_eq!([1, 2, 3, 4].map(|count| place(&log, Start::Last(count))), [5, 3, 2, 1]);
    }

    #[test]
    fn a_mark_of_a_birth_before_counts_as_far_as_that_was_taken_over() {
        let lineage = Lineage::default().then(BIRTH, 4);
        let mut log = read_log(9);
        log.go_over(8, lineage.clone(), 4);
        let _ = log.take_committed(4, born(1, &[1], lineage, false));
        let of = |birth, next| own_offset(&log, Mark { birth, next });
        assert_eq!([of(8, 5), of(BIRTH, 3), of(BIRTH, 9), of(3, 3)], [Some(5), Some(3), Some(4), None]);
    }
}

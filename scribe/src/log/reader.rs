//! A subscriber's place in its node's window: a cursor that turns entries into messages and gaps.

use super::Log;
use super::backlog::Backlog;
use super::cursor::{own_offset, place};
use crate::message::{Gap, GapReason, Item, Mark, Message, MessageId, Position, Start};
use crate::wire::Body;

/// A subscriber's place in this node's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// The next offset to deliver. It only ever moves forward, but where the log left a branch.
    pub next: u64,
    /// Where it began.
    begun: u64,
    /// It has missed something that it has not heard of yet: why, and what it had before.
    owed: Option<(GapReason, Option<Position>)>,
    /// It has asked for whatever is kept: that earlier entries are not is no news.
    takes_what_is_kept: bool,
}

impl Reader {
    /// Where a subscription begins, and the mark that says so (promise S5). `latest` is the end of the parent's log, if it
    /// has just said so: what comes up to there was published before.
    pub(crate) fn begin(log: &Log, start: Start, latest: u64) -> (Reader, Mark) {
        let at = |next| Reader { next, begun: next, owed: None, takes_what_is_kept: false };
        let kept = |next| Reader { takes_what_is_kept: true, ..at(next) };
        let reader = match start {
            Start::Latest => at(log.commit().max(latest)),
            // Nodes above may keep more than this one.
            Start::Earliest if log.window.is_young() => kept(0),
            Start::Last(count) if log.window.is_young() => {
                let next = place(log, start);
                let here = log.window.entries_from(next).filter(|(_, entry)| entry.body.members().is_none());
                let missing = u64::from(count).saturating_sub(here.count() as u64);
                kept(next.saturating_sub(missing))
            }
            Start::Earliest | Start::Last(_) => kept(place(log, start)),
            Start::After(mark) => {
                let after = mark.next.checked_sub(1).map(|offset| Position { birth: mark.birth, offset });
                match own_offset(log, mark) {
                    // What it lacks before the window is told when it is looked for; it may be ahead of this node, too.
                    Some(next) if next == mark.next => at(next),
                    // It has read what the log did not take over.
                    Some(next) => Reader { owed: Some((GapReason::Unreplicated, after)), ..at(next) },
                    None => Reader { owed: Some((GapReason::OtherLog, after)), ..at(log.window.start()) },
                }
            }
        };
        (reader, mark_at(log, reader.next))
    }

    /// The first entry that it needs and that is older than the window.
    pub(crate) fn lacks(&self, log: &Log) -> Option<u64> {
        (self.next < log.window.start()).then_some(self.next)
    }

    /// The next item, if there is one.
    pub(crate) fn poll_item(&mut self, log: &Log, backlog: Option<&Backlog>) -> Option<Item> {
        let gone_before = backlog.map_or(0, Backlog::gone_before);
        if self.next < gone_before.min(log.window.start()) {
            if self.takes_what_is_kept {
                self.begun = gone_before;
            } else {
                self.owed.get_or_insert((GapReason::TooOld, before(log, self.next)));
            }
            self.next = gone_before;
        }
        if let Some((reason, after)) = self.owed.take() {
            return Some(Item::Gap(Gap { after, until: position(log, self.next), reason }));
        }
        while self.next < log.commit() {
            let older = || backlog.and_then(|backlog| backlog.entry(self.next));
            let entry = log.window.entry(self.next).or_else(older)?;
            self.takes_what_is_kept = false;
            let at = position(log, self.next);
            let after = before(log, self.next);
            self.next += 1;
            match &entry.body {
                Body::Message { publisher, session, sequence, .. } => {
                    let id = MessageId { publisher: *publisher, session: *session, sequence: *sequence };
                    let mark = mark_at(log, self.next);
                    let payload = entry.payload.clone();
                    return Some(Item::Message(Message { id, position: at, mark, payload }));
                }
                Body::Configuration { birth: Some(birth), .. } if !birth.complete && at.offset > self.begun => {
                    return Some(Item::Gap(Gap { after, until: at, reason: GapReason::Unreplicated }));
                }
                Body::Configuration { .. } => {}
            }
        }
        None
    }

    /// From this offset on the log is another one than `old`: what was read beyond it is of another branch.
    pub(crate) fn branch(&mut self, old: &Log, end: u64, descends: bool) {
        if self.next > end {
            let reason = if descends { GapReason::Unreplicated } else { GapReason::OtherLog };
            self.owed.get_or_insert((reason, before(old, self.next)));
            (self.next, self.begun) = (end, self.begun.min(end));
        }
    }

    /// Begins at the start of another log than `old`, and owes the subscriber the news of it.
    pub(crate) fn restart(&mut self, old: &Log, start: u64) {
        let after = self.owed.map_or(before(old, self.next), |(_, after)| after);
        let owed = Some((GapReason::OtherLog, after));
        *self = Reader { next: start, begun: start, owed, takes_what_is_kept: false };
    }
}

/// The place of an offset.
pub(crate) fn position(log: &Log, offset: u64) -> Position {
    Position { birth: log.lineage.birth_at(offset, log.birth), offset }
}

/// The mark of one that has everything before an offset. It names the birth of the entry before it: what a later birth
/// adds is still to come.
pub(crate) fn mark_at(log: &Log, next: u64) -> Mark {
    let birth = next.checked_sub(1).map_or(log.birth, |last| log.lineage.birth_at(last, log.birth));
    Mark { birth, next }
}

fn before(log: &Log, next: u64) -> Option<Position> {
    next.checked_sub(1).map(|offset| position(log, offset))
}

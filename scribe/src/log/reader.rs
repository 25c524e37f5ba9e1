//! A subscriber's place in its node's window: a cursor that turns entries into messages and gaps.

use std::collections::{BTreeSet, VecDeque};

use super::backlog::Backlog;
use super::cursor::{own_offset, place};
use super::window::Window;
use super::{Change, Log};
use crate::message::{Gap, GapReason, Item, Mark, Message, MessageId, Position, Start};
use crate::wire::Body;

/// Most logs that a subscriber remembers to have left.
const MAX_PAST: usize = 8;
/// Most messages that a subscriber remembers to have read where the log has left a branch.
const MAX_ELSEWHERE: usize = 4096;

/// A subscriber's place in this node's window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// The next offset to deliver. It only ever moves forward, but where the log left a branch.
    pub next: u64,
    /// Where it began.
    begun: u64,
    /// It has missed something that it has not heard of yet: why, and what it had before.
    owed: Option<(GapReason, Option<Position>)>,
    /// How far it came in logs that it has left.
    past: Vec<Mark>,
    /// What it read there, and nobody may give it again.
    elsewhere: Elsewhere,
    /// The offset up to which it was last told of a gap: what stands there is told.
    told: Option<u64>,
    /// It has asked for whatever is kept: that earlier entries are not is no news.
    takes_what_is_kept: bool,
}

/// Messages that a subscriber read on branches which its log has left. A publisher that both sides of a divided ring heard
/// has a place for one message in each branch. Forgets the oldest ones first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Elsewhere {
    ids: BTreeSet<MessageId>,
    order: VecDeque<MessageId>,
}

impl Elsewhere {
    /// Adds what a window holds from one offset to another.
    fn add(&mut self, window: &Window, from: u64, until: u64) {
        let entries = window.entries_from(from).take_while(|(offset, _)| *offset < until);
        for id in entries.filter_map(|(_, entry)| message_id(&entry.body)) {
            if !self.ids.insert(id) {
                continue;
            }
            self.order.push_back(id);
            if self.order.len() > MAX_ELSEWHERE
                && let Some(oldest) = self.order.pop_front()
            {
                self.ids.remove(&oldest);
            }
        }
    }

    fn has(&self, id: MessageId) -> bool {
        self.ids.contains(&id)
    }
}

fn message_id(body: &Body) -> Option<MessageId> {
    match body {
        Body::Message { publisher, session, sequence, .. } => {
            Some(MessageId { publisher: *publisher, session: *session, sequence: *sequence })
        }
        Body::Configuration { .. } => None,
    }
}

impl Reader {
    /// Where a subscription begins, and the mark that says so (promise S5).
    pub(crate) fn begin(log: &Log, start: Start) -> (Reader, Mark) {
        let at = |next| Reader {
            next,
            begun: next,
            owed: None,
            past: Vec::new(),
            elsewhere: Elsewhere::default(),
            told: None,
            takes_what_is_kept: false,
        };
        let kept = |next| Reader { takes_what_is_kept: true, ..at(next) };
        let reader = match start {
            Start::Latest => at(log.commit()),
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
                    // A gap before the window is told when it is looked for; the reader may be ahead of this node, too.
                    // A birth that begins there is news to the reader.
                    Some(next) if next == mark.next && mark.birth != position(log, next).birth => {
                        Reader { begun: next.saturating_sub(1), ..at(next) }
                    }
                    Some(next) if next == mark.next => at(next),
                    // It has read what the log did not take over.
                    Some(next) => Reader { owed: Some((GapReason::Unreplicated, after)), ..at(next) },
                    None => Reader { owed: Some((GapReason::OtherLog, after)), ..at(log.window.start()) },
                }
            }
        };
        let mark = mark_at(log, reader.next);
        (reader, mark)
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
                // Where it goes on a birth begins that lacks something, and nothing tells of that once more.
                let is_incomplete = log.window.entry(gone_before).is_some_and(|entry| {
                    matches!(&entry.body, Body::Configuration { birth: Some(birth), .. } if !birth.complete)
                });
                let reason = if is_incomplete { GapReason::Unreplicated } else { GapReason::TooOld };
                self.owed.get_or_insert((reason, before(log, self.next)));
            }
            self.next = gone_before;
        }
        if let Some((reason, after)) = self.owed.take() {
            self.told = Some(self.next);
            return Some(Item::Gap(Gap { after, until: position(log, self.next), reason }));
        }
        while self.next < log.commit() {
            let older = || backlog.and_then(|backlog| backlog.entry(self.next));
            let entry = log.window.entry(self.next).or_else(older)?;
            self.takes_what_is_kept = false;
            let at = position(log, self.next);
            let after = before(log, self.next);
            let is_news = at.offset > self.begun && self.told != Some(at.offset);
            self.next += 1;
            if let Some(id) = message_id(&entry.body) {
                if self.elsewhere.has(id) {
                    continue;
                }
                let mark = mark_at(log, self.next);
                let payload = entry.payload.clone();
                return Some(Item::Message(Message { id, position: at, mark, payload }));
            }
            match &entry.body {
                Body::Configuration { birth: Some(birth), .. } if !birth.complete && is_news => {
                    return Some(Item::Gap(Gap { after, until: at, reason: GapReason::Unreplicated }));
                }
                Body::Configuration { replaces: Some(_), .. } if is_news => {
                    return Some(Item::Gap(Gap { after, until: at, reason: GapReason::OtherLog }));
                }
                Body::Configuration { .. } | Body::Message { .. } => {}
            }
        }
        None
    }

    /// Follows a change of the log, which was `old` before, and is `new` now.
    pub(crate) fn follow(&mut self, old: &Log, new: &Log, change: &Change) {
        match change {
            Change::None => {}
            Change::Branched { end, descends, left } => {
                if self.next > *end {
                    self.elsewhere.add(left, self.begun.max(*end), self.next);
                }
                self.branch(old, new, *end, *descends);
            }
            Change::Replaced { start, left } => {
                self.elsewhere.add(left, self.begun, self.next);
                self.restart(old, new, *start);
            }
        }
    }

    /// From this offset on the log is another one than `old`: what was read beyond it is of another branch.
    fn branch(&mut self, old: &Log, new: &Log, end: u64, descends: bool) {
        if self.next > end {
            let reason = if descends { GapReason::Unreplicated } else { GapReason::OtherLog };
            self.owed.get_or_insert((reason, before(old, self.next)));
            self.note_past(old);
            self.next = end.max(self.been_at(new));
            self.begun = self.begun.min(end);
            return;
        }
        let been = self.been_at(new);
        if been > self.next {
            // It has left this log before, and read nothing of the other one. If it has not heard of that, there is nothing
            // to tell.
            let after = before(old, self.next);
            self.next = been;
            self.owed = match self.owed {
                Some((_, after)) if after == before(new, been) => None,
                Some(owed) => Some(owed),
                None => Some((GapReason::OtherLog, after)),
            };
        } else if self.owed.is_none() {
            // It has not read what begins there.
            self.begun = self.begun.min(end.saturating_sub(1));
        }
    }

    /// Begins at the start of another log than `old`, and owes the subscriber the news of it.
    fn restart(&mut self, old: &Log, new: &Log, start: u64) {
        let after = self.owed.map_or(before(old, self.next), |(_, after)| after);
        self.owed = Some((GapReason::OtherLog, after));
        self.note_past(old);
        self.next = start.max(self.been_at(new));
        (self.begun, self.told, self.takes_what_is_kept) = (self.next, None, false);
    }

    /// Notes how far it came in a log that it leaves: it may come back, and gets nothing twice.
    fn note_past(&mut self, old: &Log) {
        self.past.retain(|mark| mark.birth != old.birth);
        if self.past.len() == MAX_PAST {
            self.past.remove(0);
        }
        self.past.push(Mark { birth: old.birth, next: self.next });
    }

    /// How far it has come before in a log.
    fn been_at(&self, log: &Log) -> u64 {
        self.past.iter().filter_map(|&mark| own_offset(log, mark)).max().unwrap_or(0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{BIRTH, born, message, read_log};
    use crate::wire::Lineage;

    fn after(birth: u64, next: u64) -> Start {
        Start::After(Mark { birth, next })
    }

    fn at(birth: u64, offset: u64) -> Position {
        Position { birth, offset }
    }

    /// Offsets of messages, and gaps, until there is no more.
    fn read(reader: &mut Reader, log: &Log) -> Vec<Result<u64, Gap>> {
        let items = std::iter::from_fn(|| reader.poll_item(log, None));
        let of = |item| match item {
            Item::Message(message) => {
                assert_eq!(message.mark.next, message.position.offset + 1);
                Ok(message.position.offset)
            }
            Item::Gap(gap) => Err(gap),
            Item::ParentChanged(_) => unreachable!("that is no item of the log"),
        };
        items.map(of).collect()
    }

    fn begin(log: &Log, start: Start) -> Reader {
        Reader::begin(log, start).0
    }

    #[test]
    fn messages_come_in_order_and_only_committed_ones() {
        let mut log = read_log(3);
        let mut reader = begin(&log, Start::Earliest);
        assert_eq!(read(&mut reader, &log), [Ok(1), Ok(2), Ok(3)]);
        assert_eq!(read(&mut reader, &log), []);
        let _ = log.take_committed(4, message(1, 4));
        assert_eq!(read(&mut reader, &log), [Ok(4)]);
    }

    #[test]
    fn latest_is_behind_all_that_was_published_before() {
        let log = read_log(3);
        let (mut reader, mark) = Reader::begin(&log, Start::Latest);
        assert_eq!((read(&mut reader, &log), mark), (vec![], Mark { birth: BIRTH, next: 4 }));
    }

    #[test]
    fn a_mark_continues_exactly_there() {
        let log = read_log(5);
        let mut reader = begin(&log, after(BIRTH, 3));
        assert_eq!(read(&mut reader, &log), [Ok(3), Ok(4), Ok(5)]);
        let mut ahead = begin(&log, after(BIRTH, 9));
        assert_eq!(read(&mut ahead, &log), [], "this node has not come there");
    }

    #[test]
    fn what_nobody_keeps_is_one_gap() {
        let mut log = read_log(9);
        log.trim(4, usize::MAX);
        let mut reader = begin(&log, after(BIRTH, 2));
        assert_eq!(read(&mut reader, &log), [], "others may keep it");
        assert_eq!(reader.lacks(&log), Some(2));
        let mut gone = Backlog::default();
        gone.set_gone_before(6);
        let gap = Gap { after: Some(at(BIRTH, 1)), until: at(BIRTH, 6), reason: GapReason::TooOld };
        assert_eq!(reader.poll_item(&log, Some(&gone)), Some(Item::Gap(gap)));
        assert_eq!(read(&mut reader, &log), [Ok(6), Ok(7), Ok(8), Ok(9)]);
        assert_eq!(reader.lacks(&log), None);
    }

    #[test]
    fn a_mark_of_another_log_is_a_gap_and_the_earliest() {
        let log = read_log(2);
        let mut reader = begin(&log, after(99, 45));
        let gap = Gap { after: Some(at(99, 44)), until: at(BIRTH, 0), reason: GapReason::OtherLog };
        assert_eq!(read(&mut reader, &log), [Err(gap), Ok(1), Ok(2)]);
        let mut fresh = begin(&log, after(99, 0));
        assert!(matches!(read(&mut fresh, &log)[0], Err(Gap { after: None, .. })));
    }

    /// A log whose second birth has taken over the first four entries of the first, with one message behind.
    fn second_birth(complete: bool) -> Log {
        let lineage = Lineage::default().then(BIRTH, 4);
        let mut log = read_log(9);
        log.go_over(8, lineage.clone(), 4);
        let _ = log.take_committed(4, born(1, &[1], lineage, complete));
        let _ = log.take_committed(5, message(1, 50));
        log
    }

    #[test]
    fn a_birth_that_is_not_complete_is_one_gap_to_each_that_read_the_one_before() {
        let log = second_birth(false);
        let gap =
            |after| Gap { after: Some(at(BIRTH, after)), until: at(8, 4), reason: GapReason::Unreplicated };
        let mut here = begin(&log, after(BIRTH, 2));
        assert_eq!(read(&mut here, &log), [Ok(2), Ok(3), Err(gap(3)), Ok(5)]);
        let mut beyond = begin(&log, after(BIRTH, 7));
        assert_eq!(
            read(&mut beyond, &log),
            [Err(gap(6)), Ok(5)],
            "it has read what was not taken over: once"
        );
        let mut late = begin(&log, after(8, 5));
        assert_eq!(read(&mut late, &log), [Ok(5)]);
        let mut latest = begin(&log, Start::Latest);
        assert_eq!(read(&mut latest, &log), []);
        let whole = second_birth(true);
        let mut reader = begin(&whole, after(BIRTH, 2));
        assert_eq!(read(&mut reader, &whole), [Ok(2), Ok(3), Ok(5)], "nothing is missing");
    }

    #[test]
    fn the_mark_at_the_end_of_a_birth_is_of_that_birth() {
        let log = second_birth(false);
        assert_eq!(mark_at(&log, 4), Mark { birth: BIRTH, next: 4 });
        assert_eq!(mark_at(&log, 5), Mark { birth: 8, next: 5 });
        let mut reader = begin(&log, after(BIRTH, 4));
        assert!(matches!(read(&mut reader, &log)[..], [Err(_), Ok(5)]), "it hears of the birth");
        let old = read_log(3);
        let mut latest = begin(&old, Start::Latest);
        latest.branch(&old, &log, 4, true);
        assert!(
            matches!(read(&mut latest, &log)[..], [Err(_), Ok(5)]),
            "so does one that has read nothing yet"
        );
    }

    #[test]
    fn a_reader_follows_its_nodes_log_to_another_birth_and_to_another_log() {
        let old = read_log(9);
        let mut reader = begin(&old, after(BIRTH, 8));
        assert_eq!(read(&mut reader, &old), [Ok(8), Ok(9)]);
        let log = second_birth(false);
        reader.branch(&old, &log, 4, true);
        let items = read(&mut reader, &log);
        let gap = Gap { after: Some(at(BIRTH, 9)), until: at(8, 4), reason: GapReason::Unreplicated };
        assert_eq!(items, [Err(gap), Ok(5)], "one gap for all that it lost");
        let mut other = begin(&old, after(BIRTH, 8));
        let mut third = Log::new(77, Lineage::default(), 20);
        other.restart(&old, &third, 20);
        let gap = Gap { after: Some(at(BIRTH, 7)), until: at(77, 20), reason: GapReason::OtherLog };
        let _ = third.take_committed(20, message(1, 1));
        assert_eq!(read(&mut other, &third), [Err(gap), Ok(20)]);
        other.restart(&third, &old, 0);
        assert!(
            matches!(read(&mut other, &old)[..], [Err(_), Ok(8), Ok(9)]),
            "back again, it gets nothing twice"
        );
    }

    #[test]
    fn what_was_read_on_one_branch_does_not_come_again_from_another() {
        let old = read_log(9);
        let mut reader = begin(&old, after(BIRTH, 3));
        assert_eq!(read(&mut reader, &old).len(), 7);
        // Both branches have message 8, one of them at another place.
        let mut log = read_log(9);
        log.go_over(8, Lineage::default().then(BIRTH, 4), 4);
        let _ = log.take_committed(4, message(1, 8));
        let _ = log.take_committed(5, message(1, 50));
        let change = Change::Branched { end: 4, descends: true, left: old.window.clone().split_off(4) };
        reader.follow(&old, &log, &change);
        assert!(matches!(read(&mut reader, &log)[..], [Err(_), Ok(5)]), "it has read message 8");
        let mut third = Log::new(77, Lineage::default(), 20);
        let change = Change::Replaced { start: 20, left: log.window.clone() };
        reader.follow(&log, &third, &change);
        let _ = third.take_committed(20, message(1, 50));
        let _ = third.take_committed(21, message(1, 51));
        assert!(matches!(read(&mut reader, &third)[..], [Err(_), Ok(21)]));
    }

    #[test]
    fn of_what_was_read_elsewhere_the_last_is_remembered() {
        let many = MAX_ELSEWHERE as u64 + 3;
        let log = read_log(many);
        let mut elsewhere = Elsewhere::default();
        elsewhere.add(&log.window, 0, many + 1);
        elsewhere.add(&log.window, 0, 2);
        assert_eq!((elsewhere.ids.len(), elsewhere.order.len()), (MAX_ELSEWHERE, MAX_ELSEWHERE));
        let id = |offset| message_id(&log.window.entry(offset).unwrap().body).unwrap();
        assert!(!elsewhere.has(id(2)) && elsewhere.has(id(many)));
    }
}

//! A member that was in the tree before it became one lacks entries that its root keeps. It pulls them, the latest first, so
//! that they have as many copies as those that come.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;

use super::flow::Flow;
use crate::forest::context::{TreeCx, TreeTimer};
use crate::log::early::Arrived;
use crate::log::window::Held;
use crate::wire::{Header, Pull};

/// Entries that are asked for at once.
const AT_ONCE: u64 = 256;
/// How long the next entry is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Answers that do not come, in a row, until the rest is given up.
const TRIES: u8 = 12;

/// The entries that a member pulls, to put them before its window.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Whom it asks: what one root does not keep another one may.
    root: Option<NodeId>,
    /// That root keeps nothing before this offset.
    gone_before: u64,
    /// This node keeps no more.
    is_full: bool,
    stretch: Option<Box<Stretch>>,
    tries: u8,
}

/// The entries that are asked for.
#[derive(Debug)]
struct Stretch {
    number: u64,
    from: u64,
    until: u64,
    /// Those that have come, in any order.
    entries: BTreeMap<u64, Held>,
    again_at: Instant,
}

impl Stretch {
    /// From the first entry that is missing on.
    fn rest(&self) -> Range<u64> {
        let first = (self.from..self.until).find(|offset| !self.entries.contains_key(offset));
        first.unwrap_or(self.until)..self.until
    }
}

impl History {
    /// What to ask a root for, if anything. `start`: where the window begins. `room`: how many entries more it takes.
    fn next(&mut self, root: NodeId, start: u64, room: u64) -> Option<Range<u64>> {
        if self.root != Some(root) {
            (self.root, self.gone_before, self.tries) = (Some(root), 0, 0);
        }
        self.is_full |= room == 0 && self.stretch.is_none();
        let from = self.gone_before.max(start.saturating_sub(AT_ONCE.min(room)));
        (!self.is_full && self.stretch.is_none() && from < start).then_some(from..start)
    }

    fn ask(&mut self, now: Instant, number: u64, wanted: &Range<u64>) {
        let again_at = now + PATIENCE;
        let stretch =
            Stretch { number, from: wanted.start, until: wanted.end, entries: BTreeMap::new(), again_at };
        self.stretch = Some(Box::new(stretch));
    }

    /// Whether it has asked by this number.
    fn has_asked(&self, number: u64) -> bool {
        self.stretch.as_ref().is_some_and(|stretch| stretch.number == number)
    }

    /// An entry came that was asked for. Returns all of them when the last one is here, with the offset behind them.
    fn on_entry(&mut self, now: Instant, offset: u64, held: Held) -> Option<(Vec<Held>, u64)> {
        let stretch =
            self.stretch.as_mut().filter(|stretch| (stretch.from..stretch.until).contains(&offset))?;
        if stretch.entries.insert(offset, held).is_none() {
            (stretch.again_at, self.tries) = (now + PATIENCE, 0);
        }
        if (stretch.entries.len() as u64) < stretch.until - stretch.from {
            return None;
        }
        self.stretch.take().map(|stretch| (stretch.entries.into_values().collect(), stretch.until))
    }

    /// The root has not what it was asked for. `start`: where its window begins.
    fn on_nothing(&mut self, start: Option<u64>) {
        if let Some(stretch) = self.stretch.take() {
            let first = stretch.rest().start;
            self.gone_before = start.filter(|start| *start > first).unwrap_or(u64::MAX);
        }
    }

    /// What to ask for once more, by which number.
    fn again(&mut self, now: Instant) -> Option<(u64, Range<u64>)> {
        let stretch = self.stretch.as_mut().filter(|stretch| stretch.again_at <= now)?;
        self.tries += 1;
        if self.tries >= TRIES {
            (self.stretch, self.gone_before) = (None, u64::MAX);
            return None;
        }
        stretch.again_at = now + PATIENCE;
        Some((stretch.number, stretch.rest()))
    }

    /// This node gives entries up: it does not get them back.
    pub(crate) fn close(&mut self) {
        (self.is_full, self.stretch) = (true, None);
    }
}

impl Flow {
    /// Sees to it that a member has what its parent keeps, which is the root.
    pub(crate) fn review_history(&mut self, cx: &mut TreeCx<'_>, parent: Option<NodeId>) {
        let (Some(log), Some(root)) = (self.log.part(), parent) else { return };
        let Some(replica) = log.replica() else {
            if self.history.root.is_some() || self.history.is_full {
                self.history = History::default();
                cx.timers.cancel(TreeTimer::History);
            }
            return;
        };
        if !log.is_synced(replica.promised) {
            return;
        }
        let window = &log.window;
        let room = match window.bytes() < cx.config.window.bytes {
            true => (cx.config.window.messages as u64).saturating_sub(window.end() - window.start()),
            false => 0,
        };
        if let Some(wanted) = self.history.next(root, window.start(), room) {
            let number = cx.numbers.next_join();
            self.history.ask(cx.now, number, &wanted);
            self.pull_history(cx, root, number, &wanted);
        }
    }

    fn pull_history(&self, cx: &mut TreeCx<'_>, root: NodeId, number: u64, wanted: &Range<u64>) {
        cx.timers.set(TreeTimer::History, cx.now + PATIENCE);
        let (Some(log), Some(root)) = (self.log.part(), cx.neighbours.contact(root)) else { return };
        let (from, until) = (wanted.start, wanted.end);
        let pull = Pull { topic: cx.topic, number, birth: log.birth, from, until, term: None };
        cx.tell(root, &Header::Pull(pull));
    }

    /// An entry came. Returns whether it was asked for here.
    pub(crate) fn on_history(&mut self, cx: &mut TreeCx<'_>, number: u64, entry: &Arrived) -> bool {
        if !self.history.has_asked(number) {
            return false;
        }
        let Some(log) = &mut self.log.part else { return true };
        if entry.birth != log.lineage.birth_at(entry.offset, log.birth) {
            return true;
        }
        let held = entry.held.clone().compact(cx.config.window.copy_below);
        if let Some((entries, until)) = self.history.on_entry(cx.now, entry.offset, held)
            && until == log.window.start()
        {
            let all = entries.len();
            if log.window.prepend(entries, cx.config.window.bytes) < all {
                self.history.close();
            }
            self.count_window(cx);
            self.deliver(cx);
            self.review_history(cx, self.history.root);
        }
        true
    }

    /// A node has not what was asked for. Returns whether it was asked for here.
    pub(crate) fn on_no_history(&mut self, cx: &mut TreeCx<'_>, number: u64, start: Option<u64>) -> bool {
        let asked = self.history.has_asked(number);
        if asked {
            self.history.on_nothing(start);
            self.review_history(cx, self.history.root);
        }
        asked
    }

    /// The rest has not come. `parent`: this node's, which may be another one than was asked.
    pub(crate) fn on_history_timer(&mut self, cx: &mut TreeCx<'_>, parent: Option<NodeId>) {
        let Some(root) = parent.filter(|_| self.log.is_member()) else {
            return self.history = History::default();
        };
        match self.history.again(cx.now) {
            Some((number, rest)) => self.pull_history(cx, root, number, &rest),
            None if self.history.stretch.is_some() => cx.timers.set(TreeTimer::History, cx.now + PATIENCE),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::tree::testing::entry;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    const ROOT: NodeId = NodeId(1);

    fn asked(from: u64, until: u64) -> History {
        let mut all = History::default();
        all.ask(at(0), 7, &(from..until));
        all
    }

    fn held() -> Held {
        entry(0).held
    }

    #[test]
    fn the_latest_entries_are_asked_for_first_as_far_as_there_is_room() {
        let mut all = History::default();
        assert_eq!(all.next(ROOT, 0, 100), None, "it has all");
        assert_eq!(all.next(ROOT, 1000, 9000), Some(744..1000));
        assert_eq!(all.next(ROOT, 1000, 10), Some(990..1000));
        all.ask(at(0), 7, &(744..1000));
        assert_eq!(all.next(ROOT, 1000, 9000), None, "it has asked");
        assert!(all.has_asked(7) && !all.has_asked(8));
        let mut full = History::default();
        assert_eq!(full.next(ROOT, 1000, 0), None);
        assert_eq!(full.next(ROOT, 1000, 500), None, "what falls out is not pulled again");
        let mut shrunk = asked(744, 1000);
        shrunk.close();
        assert_eq!(shrunk.next(ROOT, 1000, 500), None);
    }

    #[test]
    fn a_stretch_is_whole_when_all_of_it_has_come_in_any_order() {
        let mut all = asked(3, 6);
        assert!(all.on_entry(at(1), 5, held()).is_none() && all.on_entry(at(1), 6, held()).is_none());
        assert!(all.on_entry(at(1), 3, held()).is_none() && all.on_entry(at(2), 3, held()).is_none());
        assert_eq!(all.again(at(500)), None);
        assert_eq!(all.again(at(501)), Some((7, 4..6)), "from the one that is missing");
        let (entries, until) = all.on_entry(at(503), 4, held()).unwrap();
        assert_eq!((entries.len(), until, all.has_asked(7)), (3, 6, false));
    }

    #[test]
    fn what_a_root_does_not_keep_another_one_may() {
        let mut all = asked(3, 20);
        all.on_nothing(Some(10));
        assert_eq!(all.next(ROOT, 20, 100), Some(0..20), "of this root nothing is known yet");
        all.ask(at(0), 7, &(0..20));
        all.on_nothing(Some(10));
        assert_eq!(all.next(ROOT, 20, 100), Some(10..20));
        all.ask(at(0), 8, &(10..20));
        all.on_nothing(None);
        assert_eq!(all.next(ROOT, 20, 100), None);
        assert_eq!(all.next(NodeId(2), 20, 100), Some(0..20));
    }

    #[test]
    fn nobody_is_asked_for_ever() {
        let mut all = asked(3, 6);
        let tries = (1..100).take_while(|n| all.again(at(n * 500)).is_some()).count();
        assert_eq!((tries, all.has_asked(7)), (11, false));
    }
}

//! A member that was in the tree before it became one, or was named in haste, lacks entries that its root keeps. It pulls them,
//! the latest first, so that they have as many copies as those that come. A root that lacks what a member keeps does the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;

use super::Tree;
use super::children::Child;
use super::flow::Flow;
use super::role::Role;
use crate::forest::context::{TreeCx, TreeTimer};
use crate::log::Log;
use crate::log::early::Arrived;
use crate::log::window::Held;
use crate::wire::{Header, Pull};

/// Entries that are asked for at once.
const AT_ONCE: u64 = 256;
/// How long the next entry is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Answers that do not come, in a row, until the rest is given up.
const TRIES: u8 = 40;

/// The entries that a member or a root pulls, to put them before its window.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Whom it asks: what one node does not keep another one may.
    source: Option<NodeId>,
    /// That one keeps nothing before this offset.
    gone_before: u64,
    /// Nodes that have no more.
    exhausted: BTreeSet<NodeId>,
    /// This node is the root, and others wait for what it pulls.
    pub awaited: bool,
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
    /// Entries that have come, in any order.
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
    /// Returns what to ask a node for, if anything. `start`: where the window begins. `room`: how many entries more it takes.
    fn next(&mut self, source: NodeId, start: u64, room: u64) -> Option<Range<u64>> {
        self.is_full |= room == 0 && self.stretch.is_none();
        if self.is_full || self.stretch.is_some() || self.exhausted.contains(&source) {
            return None;
        }
        if self.source != Some(source) {
            (self.source, self.gone_before, self.tries) = (Some(source), 0, 0);
        }
        let from = self.gone_before.max(start.saturating_sub(AT_ONCE.min(room)));
        if from >= start {
            self.exhausted.insert(source);
            return None;
        }
        Some(from..start)
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

    /// The node has not what it was asked for. `start`: where its window begins.
    fn on_nothing(&mut self, start: Option<u64>) {
        if let Some(stretch) = self.stretch.take() {
            let first = stretch.rest().start;
            self.gone_before = start.filter(|start| *start > first).unwrap_or(u64::MAX);
        }
    }

    /// Returns whom to ask once more, by which number, and for what.
    fn again(&mut self, now: Instant) -> Option<(NodeId, u64, Range<u64>)> {
        let source = self.source?;
        let stretch = self.stretch.as_mut().filter(|stretch| stretch.again_at <= now)?;
        self.tries += 1;
        if self.tries >= TRIES {
            (self.stretch, self.gone_before) = (None, u64::MAX);
            return None;
        }
        stretch.again_at = now + PATIENCE;
        Some((source, stretch.number, stretch.rest()))
    }

    /// This node gives entries up: it does not get them back.
    pub(crate) fn close(&mut self) {
        (self.is_full, self.stretch) = (true, None);
    }
}

impl Tree {
    /// Sees to it that a member has what its root keeps, and a root what any member keeps. A root's readers that wait for older
    /// entries go on when these have come, or do not come. `came`: some have.
    pub(super) fn review_history(&mut self, cx: &mut TreeCx<'_>, came: bool) {
        let awaited = self.flow.awaits_older();
        self.flow.review_history(cx, &self.role);
        if awaited && (came || !self.flow.awaits_older()) {
            self.flow.start_children(cx, self.role.way_up(cx));
            self.review_backfill(cx);
        }
    }
}

impl Flow {
    /// Asks for older entries, if another node may keep some.
    fn review_history(&mut self, cx: &mut TreeCx<'_>, role: &Role) {
        let Some(log) = self.log.part() else { return };
        if log.replica().is_none() && !role.is_root() {
            if self.history.take().is_some() {
                cx.timers.cancel(TreeTimer::History);
            }
            return;
        }
        let sources = self.history_sources(role);
        if sources.is_empty() && self.history.is_none() {
            return;
        }
        let history = self.history.get_or_insert_default();
        history.exhausted.retain(|id| sources.contains(id));
        if history.source.is_some_and(|source| !sources.contains(&source)) {
            history.stretch = None;
        }
        let window = &log.window;
        let room = match window.bytes() < cx.config.window.bytes {
            true => (cx.config.window.messages as u64).saturating_sub(window.end() - window.start()),
            false => 0,
        };
        let wanted =
            sources.iter().find_map(|&source| Some((source, history.next(source, window.start(), room)?)));
        if let Some((source, wanted)) = wanted {
            let number = cx.numbers.next_join();
            history.ask(cx.now, number, &wanted);
            self.pull_history(cx, source, number, &wanted);
        }
        if let Some(history) = &mut self.history {
            history.awaited = role.is_root() && history.stretch.is_some();
        }
    }

    /// The nodes that may keep more than this one: its root, or the members that follow this root.
    fn history_sources(&self, role: &Role) -> Vec<NodeId> {
        match role {
            Role::Root(root) if root.primary.is_serving() => {
                let follows = |id: &NodeId| self.children.get(*id).is_some_and(Child::follows_root);
                self.children.ids().filter(follows).collect()
            }
            Role::Child(link) => {
                let is_synced = |log: &Log| log.replica().is_some_and(|own| log.is_synced(own.promised));
                self.log.part().filter(|log| is_synced(log)).map(|_| link.parent).into_iter().collect()
            }
            Role::Root(_) | Role::Joining { .. } => Vec::new(),
        }
    }

    fn pull_history(&self, cx: &mut TreeCx<'_>, source: NodeId, number: u64, wanted: &Range<u64>) {
        cx.timers.set(TreeTimer::History, cx.now + PATIENCE);
        let (Some(log), Some(source)) = (self.log.part(), cx.neighbours.contact(source)) else { return };
        let (from, until) = (wanted.start, wanted.end);
        let pull = Pull { topic: cx.topic, number, birth: log.birth, from, until, term: None };
        cx.tell(source, &Header::Pull(pull));
    }

    /// Whether this node has asked for older entries by this number.
    pub(crate) fn has_asked(&self, number: u64) -> bool {
        self.history.as_ref().is_some_and(|history| history.has_asked(number))
    }

    /// Takes an entry that was asked for. Returns whether the window begins earlier by it.
    pub(crate) fn take_history(&mut self, cx: &mut TreeCx<'_>, entry: &Arrived) -> bool {
        let (Some(log), Some(history)) = (self.log.part.as_mut(), &mut self.history) else { return false };
        if entry.birth != log.lineage.birth_at(entry.offset, log.birth) {
            return false;
        }
        let held = entry.held.clone().compact(cx.config.window.copy_below);
        let Some((entries, until)) = history.on_entry(cx.now, entry.offset, held) else { return false };
        if until != log.window.start() {
            return false;
        }
        let all = entries.len();
        if log.window.prepend(entries, cx.config.window.bytes) < all {
            history.close();
        }
        self.count_window(cx);
        self.deliver(cx);
        true
    }

    /// A node has not what it was asked for.
    pub(crate) fn on_no_history(&mut self, start: Option<u64>) {
        if let Some(history) = &mut self.history {
            history.on_nothing(start);
        }
    }

    /// The rest has not come.
    pub(crate) fn on_history_timer(&mut self, cx: &mut TreeCx<'_>) {
        let Some(history) = &mut self.history else { return };
        match history.again(cx.now) {
            Some((source, number, rest)) => self.pull_history(cx, source, number, &rest),
            None if history.stretch.is_some() => cx.timers.set(TreeTimer::History, cx.now + PATIENCE),
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
        let mut all = History { source: Some(ROOT), ..History::default() };
        all.ask(at(0), 7, &(from..until));
        all
    }

    fn held() -> Held {
        entry(0).held
    }

    #[test]
    fn the_latest_entries_are_asked_for_first_as_far_as_there_is_room() {
        let mut all = History::default();
        assert_eq!(all.next(NodeId(2), 0, 100), None, "it has all");
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
        assert_eq!(all.again(at(501)), Some((ROOT, 7, 4..6)), "from the one that is missing");
        let (entries, until) = all.on_entry(at(503), 4, held()).unwrap();
        assert_eq!((entries.len(), until, all.has_asked(7)), (3, 6, false));
    }

    #[test]
    fn what_a_root_does_not_keep_another_one_may() {
        let mut all = asked(3, 20);
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
        assert_eq!((tries, all.has_asked(7)), (39, false));
    }
}

//! The bounded part of a topic's log that one node holds. Children and subscribers are cursors into it.

use std::collections::VecDeque;

use bytes::Bytes;

use super::terms::Terms;
use crate::message::Position;
use crate::topic::TopicId;
use crate::wire::{self, Body, Data, Header};

/// An entry of the log, with its place.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its place.
    pub position: Position,
    /// The entry itself.
    pub held: Held,
}

impl Entry {
    /// An entry of this node's own, encoded once for all children of all forwarders.
    pub(crate) fn encode(topic: TopicId, position: Position, body: Body, payload: &[u8]) -> Entry {
        let encoded = wire::encode(&Header::Data(Data { topic, position, body }), payload);
        let payload = encoded.slice(encoded.len() - payload.len()..);
        Entry { position, held: Held { body, encoded, payload } }
    }

    /// The entry in a buffer of its own, if it is smaller than this: the buffer in which it came may be much larger.
    pub(crate) fn compact(self, copy_below: usize) -> Entry {
        let Entry { position, held: Held { body, encoded, payload } } = self;
        if encoded.len() >= copy_below {
            return Entry { position, held: Held { body, encoded, payload } };
        }
        let encoded = Bytes::copy_from_slice(&encoded);
        let payload = encoded.slice(encoded.len() - payload.len()..);
        Entry { position, held: Held { body, encoded, payload } }
    }
}

/// An entry of the log. Its place follows from where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    /// A message, or a term's start.
    pub body: Body,
    /// The whole message as it travels: the same bytes for every child.
    pub encoded: Bytes,
    /// The payload, a slice of `encoded`.
    pub payload: Bytes,
}

/// Entries at consecutive offsets, the last of which is the newest that this node has.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Offset of the first entry, or of the one to come.
    start: u64,
    /// The terms of the entries, and of the one before them, if there was one.
    terms: Terms,
    entries: VecDeque<(Held, Until)>,
    /// Bytes of all entries that ever were here: the last one's `until`.
    total: Until,
    bytes: usize,
    /// Nothing has fallen out yet.
    young: bool,
}

/// Bytes that an entry takes beside its own.
pub(crate) const ENTRY: usize = size_of::<(Held, Until)>();

/// Bytes of all entries up to and including one.
type Until = u64;

/// Where a reader that has everything up to some position goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// At this offset, missing nothing; it may lie beyond the end, if the reader is ahead.
    At(u64),
    /// The window no longer reaches back so far: its start is the best there is.
    TooOld,
    /// The reader comes from a term that this window knows nothing of.
    Newer,
}

/// How a received entry relates to this window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The one that follows.
    Next,
    /// The start of a term that does not descend from our last entries: it replaces what came after `previous`.
    Supersedes,
    /// Here already, or of a term that is over.
    Duplicate,
    /// Something before it is missing.
    Hole,
}

impl Window {
    /// An empty window behind `base`.
    pub(crate) fn new(base: Option<Position>) -> Window {
        let start = base.map_or(0, |base| base.offset + 1);
        let mut terms = Terms::default();
        base.into_iter().for_each(|base| terms.note(base));
        Window { start, terms, entries: VecDeque::new(), total: 0, bytes: 0, young: true }
    }

    /// Offset of the first entry, or of the one to come.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Offset of the entry to come.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    /// The entry before the first; `None` at the log's beginning.
    pub(crate) fn base(&self) -> Option<Position> {
        self.terms.position(self.start.checked_sub(1)?)
    }

    /// The last entry's place: all that has been here is behind it.
    pub(crate) fn tail(&self) -> Option<Position> {
        self.terms.position(self.end().checked_sub(1)?)
    }

    /// Whether nothing has fallen out yet: a node nearer to the root may have older entries.
    pub(crate) fn is_young(&self) -> bool {
        self.young
    }

    /// Bytes that the entries pin, and what they cost beside: small ones are mostly that.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.entries.len() * ENTRY
    }

    /// Heap bytes: the entries and the buffers that they pin.
    pub(crate) fn weight(&self) -> usize {
        self.entries.capacity() * size_of::<(Held, Until)>() + self.terms.weight() + self.bytes
    }

    /// The entry at an offset.
    pub(crate) fn entry(&self, offset: u64) -> Option<&Held> {
        self.held(offset).map(|(held, _)| held)
    }

    /// The place of the entry at an offset.
    pub(crate) fn position(&self, offset: u64) -> Option<Position> {
        (self.start..self.end()).contains(&offset).then(|| self.terms.position(offset))?
    }

    /// All entries, oldest first.
    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = &Held> {
        self.entries.iter().map(|(held, _)| held)
    }

    fn held(&self, offset: u64) -> Option<&(Held, Until)> {
        self.entries.get(usize::try_from(offset.checked_sub(self.start)?).ok()?)
    }

    /// The entry before an offset of this window.
    pub(crate) fn before(&self, offset: u64) -> Option<Position> {
        match offset.checked_sub(1).and_then(|before| self.position(before)) {
            Some(position) => Some(position),
            None if offset <= self.start => self.base(),
            None => self.tail(),
        }
    }

    /// Bytes of the entries in `from..to`.
    pub(crate) fn bytes_between(&self, from: u64, to: u64) -> u64 {
        let until = |offset: u64| match self.held(offset) {
            Some((held, until)) => until - held.encoded.len() as u64,
            None if offset < self.start => self.total - self.bytes as u64,
            None => self.total,
        };
        until(to).saturating_sub(until(from))
    }

    /// What the entries in `from..to` cost, in bytes as [`bytes`](Window::bytes) counts them.
    pub(crate) fn cost_between(&self, from: u64, to: u64) -> u64 {
        let (from, to) = (from.max(self.start), to.min(self.end()));
        self.bytes_between(from, to) + to.saturating_sub(from) * ENTRY as u64
    }

    /// The offset from which on the entries are half of a window with these limits, or the first one.
    pub(crate) fn half_before_end(&self, bytes: usize, messages: usize) -> u64 {
        let (mut at, end) = (self.end(), self.end());
        while at > self.start
            && 2 * self.cost_between(at, end) < bytes as u64
            && 2 * (end - at) < messages as u64
        {
            at -= 1;
        }
        at
    }

    /// Appends the next entry.
    pub(crate) fn append(&mut self, entry: Entry) {
        debug_assert_eq!(entry.position.offset, self.end(), "entries are consecutive");
        debug_assert!(Some(entry.position) > self.tail(), "positions grow");
        let len = entry.held.encoded.len();
        self.bytes += len;
        self.total += len as u64;
        self.terms.note(entry.position);
        self.entries.push_back((entry.held, self.total));
    }

    /// Whether this is an entry's place here, or that before the first.
    pub(crate) fn holds(&self, at: Option<Position>) -> bool {
        at == self.base() || at.is_some_and(|at| self.position(at.offset) == Some(at))
    }

    /// Makes `previous` the last entry: what came after it is no part of the log any more. If it is not here, nothing
    /// stays.
    pub(crate) fn cut_after(&mut self, previous: Option<Position>) {
        if !self.holds(previous) {
            *self = Window { total: self.total, ..Window::new(previous) };
            return;
        }
        let end = previous.map_or(0, |at| at.offset + 1);
        while self.end() > end {
            let Some((held, _)) = self.entries.pop_back() else { break };
            self.bytes -= held.encoded.len();
            self.total -= held.encoded.len() as u64;
        }
        self.terms.cut(end);
    }

    /// Lets the oldest entry fall out. Says whether there was one.
    pub(crate) fn evict(&mut self) -> bool {
        let Some((held, _)) = self.entries.pop_front() else { return false };
        self.terms.forget_before(self.start);
        self.start += 1;
        self.young = false;
        self.bytes -= held.encoded.len();
        true
    }

    /// Lets old entries fall out until the limits hold.
    pub(crate) fn trim(&mut self, messages: usize, bytes: usize) {
        while self.entries.len() > messages || self.bytes() > bytes {
            self.evict();
        }
    }

    /// Where a reader goes on that has everything up to `after`.
    pub(crate) fn follow(&self, after: Option<Position>) -> Follow {
        let Some(after) = after else {
            return if self.base().is_none() { Follow::At(0) } else { Follow::TooOld };
        };
        let Some(tail) = self.tail() else { return Follow::Newer };
        if after.term > tail.term {
            return Follow::Newer;
        }
        let ahead = after.term == tail.term && after.offset > tail.offset;
        if self.holds(Some(after)) || ahead {
            return Follow::At(after.offset + 1);
        }
        self.divergence(after).map_or(Follow::TooOld, Follow::At)
    }

    /// Where the log left the branch on which `after` lies: at the start of the first later term, if the entry before
    /// that is one that the reader has, or lies on an even older branch.
    fn divergence(&self, after: Position) -> Option<u64> {
        let first = self.terms.above(after.term)?;
        self.before(first).is_none_or(|previous| previous < after).then_some(first)
    }

    /// Classifies an entry.
    pub(crate) fn arrival(&self, at: Position, body: &Body) -> Arrival {
        let Some(tail) = self.tail() else {
            return if at.offset == 0 { Arrival::Next } else { Arrival::Hole };
        };
        if at <= tail {
            return Arrival::Duplicate;
        }
        if at.term == tail.term {
            return if at.offset == self.end() { Arrival::Next } else { Arrival::Hole };
        }
        match *body {
            Body::Message { .. } => Arrival::Hole,
            Body::TermStart { previous, .. } => match at.behind(previous) {
                Some(previous) if previous == tail => Arrival::Next,
                Some(previous) if previous > tail => Arrival::Hole,
                Some(_) | None => Arrival::Supersedes,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use treecast_overlay::id::NodeId;

    use super::*;
    use crate::message::Term;
    use crate::wire::Signature;

    fn at(number: u64, offset: u64) -> Position {
        of(1, number, offset)
    }

    /// Of a term that this root has opened.
    fn of(root: u128, number: u64, offset: u64) -> Position {
        Position { term: Term { number, root: NodeId(root) }, offset }
    }

    fn message(position: Position) -> Entry {
        let body =
            Body::Message { publisher: NodeId(1), session: 1, sequence: 1, signature: Signature::None };
        let held = Held { body, encoded: Bytes::from_static(&[0; 10]), payload: Bytes::new() };
        Entry { position, held }
    }

    fn start(previous: Option<Position>) -> Body {
        Body::TermStart { previous: previous.map(|at| at.term), forced: true }
    }

    /// An entry that opens its term.
    fn first(position: Position, previous: Position) -> Entry {
        let held = Held { body: start(Some(previous)), ..message(position).held };
        Entry { position, held }
    }

    /// Term 1 at offsets 3 to 6, term 2 at 7 to 8; what came before 3 has fallen out.
    fn two_terms() -> Window {
        let mut window = Window::new(Some(at(1, 1)));
        for offset in 2..=6 {
            window.append(message(at(1, offset)));
        }
        window.append(first(at(2, 7), at(1, 6)));
        window.append(message(at(2, 8)));
        assert!(window.evict());
        window
    }

    #[test]
    fn readers_go_on_where_they_were() {
        let window = two_terms();
        assert_eq!((window.start(), window.end(), window.bytes()), (3, 9, 60 + 6 * ENTRY));
        assert_eq!(window.follow(Some(at(2, 8))), Follow::At(9));
        assert_eq!(window.follow(Some(at(1, 4))), Follow::At(5));
        assert_eq!(window.follow(Some(at(1, 2))), Follow::At(3));
        assert_eq!(window.follow(Some(at(2, 11))), Follow::At(12), "ahead of us in the same term");
    }

    #[test]
    fn readers_that_the_window_cannot_serve_are_told_so() {
        let window = two_terms();
        assert_eq!(window.follow(Some(at(1, 1))), Follow::TooOld);
        assert_eq!(window.follow(None), Follow::TooOld);
        assert_eq!(window.follow(Some(at(3, 1))), Follow::Newer);
    }

    #[test]
    fn a_reader_on_a_lost_branch_goes_on_where_the_log_left_it() {
        let window = two_terms();
        assert_eq!(window.follow(Some(at(1, 9))), Follow::At(7));
        let mut fresh = Window::new(Some(at(1, 6)));
        fresh.append(first(at(3, 7), at(1, 6)));
        assert_eq!(fresh.follow(Some(at(1, 8))), Follow::At(7));
        assert_eq!(fresh.follow(Some(at(2, 20))), Follow::At(7), "a term that the log never had");
        assert_eq!(
            fresh.follow(Some(at(1, 5))),
            Follow::TooOld,
            "it misses the entry before the term's start"
        );
    }

    #[test]
    fn only_what_follows_is_taken() {
        let window = two_terms();
        let body = message(at(0, 0)).held.body;
        assert_eq!(window.arrival(at(2, 9), &body), Arrival::Next);
        assert_eq!(window.arrival(at(2, 10), &body), Arrival::Hole);
        assert_eq!(window.arrival(at(2, 8), &body), Arrival::Duplicate);
        assert_eq!(window.arrival(at(1, 9), &body), Arrival::Duplicate, "a stale root");
        assert_eq!(window.arrival(at(3, 9), &body), Arrival::Hole, "its term's start is missing");
        assert_eq!(window.arrival(at(3, 9), &start(Some(at(2, 8)))), Arrival::Next);
        assert_eq!(window.arrival(at(3, 12), &start(Some(at(2, 11)))), Arrival::Hole);
        assert_eq!(window.arrival(at(3, 8), &start(Some(at(2, 7)))), Arrival::Supersedes);
    }

    #[test]
    fn a_forced_term_replaces_the_lost_branch_only() {
        let mut window = two_terms();
        window.cut_after(Some(at(1, 5)));
        assert_eq!((window.start(), window.end(), window.tail()), (3, 6, Some(at(1, 5))));
        window.cut_after(Some(at(2, 20)));
        assert_eq!((window.start(), window.end(), window.bytes()), (21, 21, 0));
    }

    #[test]
    fn terms_of_one_number_are_two_branches() {
        // Roots 1 and 2 both opened a term 2 behind 1:6.
        let mut window = two_terms();
        assert_eq!(window.follow(Some(of(0, 2, 8))), Follow::At(7), "the lesser branch's reader goes back");
        assert_eq!(window.follow(Some(of(2, 2, 8))), Follow::Newer, "the greater branch is not here");
        let body = message(at(0, 0)).held.body;
        assert_eq!(
            window.arrival(of(0, 2, 9), &body),
            Arrival::Duplicate,
            "what the lesser root says is over"
        );
        assert_eq!(window.arrival(of(2, 2, 9), &body), Arrival::Hole);
        assert_eq!(window.arrival(of(2, 2, 7), &start(Some(at(1, 6)))), Arrival::Supersedes);
        assert!(!window.holds(Some(of(2, 2, 8))));
        window.cut_after(Some(at(1, 6)));
        window.append(first(of(2, 2, 7), at(1, 6)));
        assert_eq!((window.tail(), window.end()), (Some(of(2, 2, 7)), 8));
    }

    proptest! {
        #[test]
        fn bytes_are_counted_right(evicted in 0u64..5, from in 0u64..12, to in 0u64..12) {
            let mut window = Window::new(None);
            for offset in 0..10 {
                window.append(message(at(1, offset)));
            }
            for _ in 0..evicted {
                window.evict();
            }
            let naive = (from..to).filter(|&offset| window.entry(offset).is_some()).count() as u64 * 10;
            prop_assert_eq!(window.bytes_between(from, to), naive);
            prop_assert_eq!(window.bytes() as u64, window.cost_between(0, 20));
        }
    }
}

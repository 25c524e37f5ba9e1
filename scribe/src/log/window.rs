//! The bounded part of a topic's log that one node holds: entries at consecutive offsets. Children and subscribers are
//! cursors into it.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use bytes::Bytes;

use crate::topic::TopicId;
use crate::wire::{self, Body, Data, Header};

/// Bytes that an entry takes beside its own.
pub(crate) const ENTRY: usize = size_of::<(Held, Until)>();

/// An entry as a node holds it. Its place follows from where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    /// The number of the root's term that sent it.
    pub term: u64,
    /// When the root appended it, in unix milliseconds; never less than that of the entry before.
    pub stamp: u64,
    /// Its content.
    pub body: Body,
    /// The whole message as it travels: the same bytes for every child.
    pub encoded: Bytes,
    /// The payload, a slice of `encoded`.
    pub payload: Bytes,
}

impl Held {
    /// An entry of this node's own, encoded once for all children of all forwarders.
    pub(crate) fn encode(data: Data, payload: &[u8]) -> Held {
        let (term, stamp, body) = (data.term, data.stamp, data.body.clone());
        let encoded = wire::encode(&Header::Data(data), payload);
        let payload = encoded.slice(encoded.len() - payload.len()..);
        Held { term, stamp, body, encoded, payload }
    }

    /// The same entry, as the root of another term sends it. `behind`: how many entries before it are not committed.
    pub(crate) fn in_term(&self, topic: TopicId, birth: u64, offset: u64, term: u64, behind: u64) -> Held {
        let Held { stamp, ref body, ref payload, .. } = *self;
        let data = Data { topic, birth, offset, term, behind, stamp, body: body.clone() };
        Held::encode(data, payload)
    }

    /// The entry in a buffer of its own, if it is smaller than this: the buffer in which it came may be much larger.
    pub(crate) fn compact(self, copy_below: usize) -> Held {
        if self.encoded.len() >= copy_below {
            return self;
        }
        let encoded = Bytes::copy_from_slice(&self.encoded);
        let payload = encoded.slice(encoded.len() - self.payload.len()..);
        Held { encoded, payload, ..self }
    }

    /// Whether it is the same entry, by whichever root it was sent.
    pub fn is_same(&self, other: &Held) -> bool {
        self.stamp == other.stamp && self.body == other.body && self.payload == other.payload
    }
}

/// Entries at consecutive offsets, the last of which is the newest that this node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Offset of the first entry, or of the one to come.
    start: u64,
    entries: VecDeque<(Held, Until)>,
    /// Bytes of all entries that ever were here: the last one's `until`.
    total: Until,
    bytes: usize,
    /// Where it began: whatever lies before was never here.
    began: u64,
}

/// Bytes of all entries up to and including one.
type Until = u64;

impl Hash for Window {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.start.hash(state);
        self.entries.hash(state);
    }
}

impl Window {
    /// An empty window that begins at an offset.
    pub fn new(start: u64) -> Window {
        Window { start, entries: VecDeque::new(), total: 0, bytes: 0, began: start }
    }

    /// Offset of the first entry, or of the one to come.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset of the entry to come.
    pub fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    /// Whether nothing has fallen out yet, although the log has earlier entries: a node nearer to the root may have them.
    pub(crate) fn is_young(&self) -> bool {
        self.start == self.began && self.start > 0
    }

    /// Bytes that the entries pin, and what they cost beside: small ones are mostly that.
    pub fn bytes(&self) -> usize {
        self.bytes + self.entries.len() * ENTRY
    }

    /// Heap bytes: the entries and the buffers that they pin.
    pub(crate) fn weight(&self) -> usize {
        self.entries.capacity() * size_of::<(Held, Until)>() + self.bytes
    }

    /// The entry at an offset.
    pub fn entry(&self, offset: u64) -> Option<&Held> {
        self.held(offset).map(|(held, _)| held)
    }

    /// The entries from an offset on, with their places.
    pub fn entries_from(&self, offset: u64) -> impl DoubleEndedIterator<Item = (u64, &Held)> {
        let skip =
            usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.entries.len());
        let start = self.start + skip as u64;
        self.entries.range(skip..).enumerate().map(move |(at, (held, _))| (start + at as u64, held))
    }

    fn held(&self, offset: u64) -> Option<&(Held, Until)> {
        self.entries.get(usize::try_from(offset.checked_sub(self.start)?).ok()?)
    }

    /// Bytes of the entries in `from..to`.
    pub fn bytes_between(&self, from: u64, to: u64) -> u64 {
        let until = |offset: u64| match self.held(offset) {
            Some((held, until)) => until - held.encoded.len() as u64,
            None if offset < self.start => self.total - self.bytes as u64,
            None => self.total,
        };
        until(to).saturating_sub(until(from))
    }

    /// The cost of the entries in `from..to`, in bytes as [`bytes`](Window::bytes) counts them.
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
    pub fn append(&mut self, held: Held) {
        let len = held.encoded.len();
        self.bytes += len;
        self.total += len as u64;
        self.entries.push_back((held, self.total));
    }

    /// Puts entries before the first one, as many of the last of them as the bytes of a window allow. Returns how many.
    pub(crate) fn prepend(&mut self, entries: Vec<Held>, bytes: usize) -> usize {
        let was_young = self.start == self.began;
        let mut room = bytes.saturating_sub(self.bytes());
        let fits = |held: &&Held| {
            let rest = room.checked_sub(held.encoded.len() + ENTRY);
            room = rest.unwrap_or(0);
            rest.is_some()
        };
        let count = entries.iter().rev().take_while(fits).count();
        let first = entries.len() - count;
        let added: usize = entries[first..].iter().map(|held| held.encoded.len()).sum();
        let mut until = self.total - self.bytes as u64 + added as u64;
        for (_, until) in &mut self.entries {
            *until += added as u64;
        }
        self.total += added as u64;
        self.bytes += added;
        for held in entries.into_iter().skip(first).rev() {
            let len = held.encoded.len() as u64;
            self.entries.push_front((held, until));
            until -= len;
        }
        self.start -= count as u64;
        if was_young {
            self.began = self.start;
        }
        count
    }

    /// Makes this offset the end: what came from there on is no part of the log any more.
    pub fn cut(&mut self, end: u64) {
        self.split_off(end);
    }

    /// Drops all entries from an offset on, and returns them.
    pub(crate) fn split_off(&mut self, end: u64) -> Window {
        let at = end.max(self.start).min(self.end());
        let mut tail = Window::new(at);
        for (held, _) in self.entries.split_off((at - self.start) as usize) {
            self.bytes -= held.encoded.len();
            self.total -= held.encoded.len() as u64;
            tail.append(held);
        }
        tail
    }

    /// Lets the oldest entry fall out. Returns whether there was one.
    pub(crate) fn evict(&mut self) -> bool {
        let Some((held, _)) = self.entries.pop_front() else { return false };
        self.start += 1;
        self.bytes -= held.encoded.len();
        true
    }

    /// Lets old entries fall out until the limits hold, though none from `keep` on.
    pub(crate) fn trim(&mut self, messages: usize, bytes: usize, keep: u64) {
        while self.start < keep && (self.entries.len() > messages || self.bytes() > bytes) {
            self.evict();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::message;

    fn window(from: u64, until: u64) -> Window {
        let mut window = Window::new(from);
        (from..until).for_each(|offset| window.append(message(1, offset + 1)));
        window
    }

    #[test]
    fn what_is_put_before_is_as_if_it_had_always_been_there() {
        let all = window(0, 9);
        let mut late = window(5, 9);
        let first = |n| all.entries_from(0).take(n).map(|(_, held)| held.clone()).collect::<Vec<_>>();
        assert_eq!(late.prepend(first(5), usize::MAX), 5);
        assert_eq!(late, all);
        assert_eq!(late.bytes_between(2, 7), all.bytes_between(2, 7));
    }

    #[test]
    fn of_what_does_not_fit_the_last_is_put_before() {
        let all = window(0, 9);
        let mut late = window(5, 9);
        assert!(late.is_young());
        let size = late.bytes() / 4;
        let first: Vec<_> = all.entries_from(0).take(5).map(|(_, held)| held.clone()).collect();
        assert_eq!(late.prepend(first, 6 * size), 2);
        assert_eq!((late.start(), late.end(), late.bytes(), late.is_young()), (3, 9, 6 * size, true));
        assert_eq!(late.entry(3), all.entry(3));
        assert_eq!(late.prepend(Vec::new(), 0), 0);
    }
}

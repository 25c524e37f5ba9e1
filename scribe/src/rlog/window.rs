//! The bounded part of a topic's log that one node holds: entries at consecutive offsets. Children and subscribers are
//! cursors into it.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use super::entry::Held;

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

    /// Bytes that the entries pin.
    pub fn bytes(&self) -> usize {
        self.bytes
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
        let skip = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX).min(self.entries.len());
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

    /// Appends the next entry.
    pub fn append(&mut self, held: Held) {
        let len = held.encoded.len();
        self.bytes += len;
        self.total += len as u64;
        self.entries.push_back((held, self.total));
    }

    /// Makes this offset the end: what came from there on is no part of the log any more.
    pub fn cut(&mut self, end: u64) {
        while self.end() > end.max(self.start) {
            let Some((held, _)) = self.entries.pop_back() else { break };
            self.bytes -= held.encoded.len();
            self.total -= held.encoded.len() as u64;
        }
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
        while self.start < keep && (self.entries.len() > messages || self.bytes > bytes) {
            self.evict();
        }
    }
}

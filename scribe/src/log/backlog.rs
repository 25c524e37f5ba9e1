//! Entries older than a node's window, pulled for subscribers that still need them.

use std::collections::VecDeque;

use super::window::Held;

/// A stretch of the log before the window.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Offset of the first entry.
    start: u64,
    entries: VecDeque<Held>,
    bytes: usize,
    /// No node that can be asked keeps what lies before this offset.
    gone_before: u64,
}

impl Backlog {
    /// The entry at an offset, if it is here.
    pub(crate) fn entry(&self, offset: u64) -> Option<&Held> {
        self.entries.get(usize::try_from(offset.checked_sub(self.start)?).ok()?)
    }

    /// Where one goes on that needs what lies before this offset and cannot have it.
    pub(crate) fn gone_before(&self) -> u64 {
        self.gone_before
    }

    /// No node that can be asked keeps what lies before this offset.
    pub(crate) fn set_gone_before(&mut self, offset: u64) {
        self.gone_before = self.gone_before.max(offset);
    }

    /// Adds the entry at an offset; a stretch that it does not follow is given up.
    pub(crate) fn push(&mut self, offset: u64, held: Held) {
        if offset != self.start + self.entries.len() as u64 {
            self.entries.clear();
            (self.start, self.bytes) = (offset, 0);
        }
        self.bytes += held.encoded.len();
        self.entries.push_back(held);
    }

    /// Forgets what lies before an offset.
    pub(crate) fn forget_before(&mut self, offset: u64) {
        while self.start < offset
            && let Some(held) = self.entries.pop_front()
        {
            self.start += 1;
            self.bytes -= held.encoded.len();
        }
    }

    /// Bytes of the entries.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

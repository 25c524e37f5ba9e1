//! Entries that came before their predecessors. Networks reorder; an entry that has come need not be sent again.

use std::collections::BTreeMap;

use super::window::{Arrival, Entry, Window};

/// Entries behind a hole, by offset. The caller of `keep` gives the bounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Early {
    entries: BTreeMap<u64, Entry>,
    bytes: usize,
}

impl Early {
    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that the entries pin.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps an entry, unless there is no room for it: then it has to be sent again.
    pub(crate) fn keep(&mut self, entry: Entry, messages: usize, bytes: usize) {
        let offset = entry.position.offset;
        let older = self.entries.get(&offset).is_none_or(|old| old.position < entry.position);
        if !older || self.entries.len() >= messages || self.bytes + entry.held.encoded.len() > bytes {
            return;
        }
        self.bytes += entry.held.encoded.len();
        if let Some(old) = self.entries.insert(offset, entry) {
            self.bytes -= old.held.encoded.len();
        }
    }

    /// Takes out the entry that the window takes next, and forgets those that it has.
    pub(crate) fn poll_next(&mut self, window: &Window) -> Option<Entry> {
        while let Some(first) = self.entries.first_entry() {
            let arrival = window.arrival(first.get().position, &first.get().held.body);
            if arrival == Arrival::Hole {
                return None;
            }
            let entry = first.remove();
            self.bytes -= entry.held.encoded.len();
            if arrival != Arrival::Duplicate {
                return Some(entry);
            }
        }
        None
    }

    /// Forgets all of them.
    pub(crate) fn clear(&mut self) {
        *self = Early::default();
    }
}

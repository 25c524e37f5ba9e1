//! Entries that came before their predecessors. Networks reorder; an entry that has come need not be sent again.

use std::collections::BTreeMap;

use super::window::Held;

/// Entries behind a hole, by offset. The caller of `keep` gives the bounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Early {
    entries: BTreeMap<u64, Arrived>,
    bytes: usize,
}

/// An entry as it came.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    /// The birth that it is of.
    pub birth: u64,
    pub offset: u64,
    /// How many entries before it were not committed when it was encoded.
    pub behind: u64,
    pub held: Held,
}

impl Arrived {
    /// The entry in a buffer of its own, if it is smaller than this.
    pub(crate) fn compact(self, copy_below: usize) -> Arrived {
        Arrived { held: self.held.compact(copy_below), ..self }
    }
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
    pub(crate) fn keep(&mut self, entry: Arrived, messages: usize, bytes: usize) {
        let len = entry.held.encoded.len();
        let newer = self.entries.get(&entry.offset).is_none_or(|old| old.held.term < entry.held.term);
        if !newer || self.entries.len() >= messages || self.bytes + len > bytes {
            return;
        }
        self.bytes += len;
        if let Some(old) = self.entries.insert(entry.offset, entry) {
            self.bytes -= old.held.encoded.len();
        }
    }

    /// The offsets from `next` on that have not come before the last one that has, at most so many.
    pub(crate) fn missing(&self, next: u64, most: usize) -> Vec<u64> {
        let mut missing = Vec::new();
        let mut from = next;
        for &offset in self.entries.range(next..).map(|(offset, _)| offset) {
            missing.extend((from..offset).take(most - missing.len()));
            if missing.len() == most {
                break;
            }
            from = offset + 1;
        }
        missing
    }

    /// Whether the entry at an offset waits.
    pub(crate) fn has(&self, offset: u64) -> bool {
        self.entries.contains_key(&offset)
    }

    /// Takes out the entry at an offset, and forgets those before it.
    pub(crate) fn take(&mut self, offset: u64) -> Option<Arrived> {
        while let Some(first) = self.entries.first_entry() {
            if *first.key() > offset {
                return None;
            }
            let entry = first.remove();
            self.bytes -= entry.held.encoded.len();
            if entry.offset == offset {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::{BIRTH, message};

    #[test]
    fn the_holes_are_those_before_what_has_come() {
        let mut early = Early::default();
        assert_eq!(early.missing(3, 9), [] as [u64; 0]);
        for offset in [5, 8, 9, 12] {
            early.keep(Arrived { birth: BIRTH, offset, behind: 0, held: message(1, offset) }, 9, usize::MAX);
        }
        assert_eq!(early.missing(3, 9), [3, 4, 6, 7, 10, 11]);
        assert_eq!((early.missing(6, 9), early.missing(3, 3)), (vec![6, 7, 10, 11], vec![3, 4, 6]));
        assert!(early.has(8) && !early.has(10));
    }
}

//! Things that were seen before, so that a repeated one is taken once.

use std::collections::BTreeSet;

use crate::memory;
use crate::ring::invariants::Size;

/// Things remembered; beyond it the oldest are forgotten. One that is repeated later than that is served twice, and must
/// have an identity of its own.
const MAX_SEEN: usize = 4096;

/// At least the last `MAX_SEEN` / 2 things that were not [aged](Seen::age) away, and at most `MAX_SEEN`.
#[derive(Clone, Debug)]
pub(crate) struct Seen<T> {
    young: BTreeSet<T>,
    old: BTreeSet<T>,
}

impl<T> Default for Seen<T> {
    fn default() -> Seen<T> {
        Seen { young: BTreeSet::new(), old: BTreeSet::new() }
    }
}

impl<T: Ord> Seen<T> {
    /// How many are remembered (promise O5).
    pub(crate) fn size(&self, name: &'static str) -> Size {
        (name, self.young.len() + self.old.len(), MAX_SEEN)
    }

    /// Whether this thing comes for the first time.
    pub(crate) fn is_new(&mut self, thing: T) -> bool {
        if self.old.contains(&thing) || !self.young.insert(thing) {
            return false;
        }
        if self.young.len() >= MAX_SEEN / 2 {
            self.age();
        }
        true
    }

    /// All that is remembered.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.young.iter().chain(&self.old)
    }

    /// Forgets what was there when this was called last.
    pub(crate) fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        memory::tree(self.young.len(), size_of::<T>()) + memory::tree(self.old.len(), size_of::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_remembered_for_a_while_and_not_for_ever() {
        let mut seen = Seen::default();
        assert!(seen.is_new(7) && !seen.is_new(7));
        seen.age();
        assert!(!seen.is_new(7), "it is remembered from one sweep to the next");
        seen.age();
        assert!(seen.is_new(7), "and then forgotten");
        assert!((0..100_000).all(|thing| seen.is_new(1000 + thing)));
        assert!(seen.young.len() + seen.old.len() <= MAX_SEEN);
        assert!(!seen.is_new(100_999 - MAX_SEEN / 2 + 1), "the last ones are never forgotten");
    }
}

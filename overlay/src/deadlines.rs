//! Named deadlines behind the one that a machine shows: set, moved and cancelled by name, never fired and forgotten.

use std::collections::{BTreeMap, BTreeSet};

use crate::memory;
use crate::time::Instant;

/// At most one deadline per name; names are ordered, so that a run is the same twice.
#[derive(Clone, Debug)]
pub struct Deadlines<N: Ord + Copy> {
    by_name: BTreeMap<N, Instant>,
    by_time: BTreeSet<(Instant, N)>,
}

impl<N: Ord + Copy> Default for Deadlines<N> {
    fn default() -> Self {
        Deadlines { by_name: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}

impl<N: Ord + Copy> Deadlines<N> {
    /// Sets or moves a deadline.
    pub fn set(&mut self, name: N, at: Instant) {
        if let Some(old) = self.by_name.insert(name, at) {
            self.by_time.remove(&(old, name));
        }
        self.by_time.insert((at, name));
    }

    /// Moves a deadline forward to `at`, or sets it; one that is already earlier stays.
    pub fn set_earlier(&mut self, name: N, at: Instant) {
        if self.by_name.get(&name).is_none_or(|&old| at < old) {
            self.set(name, at);
        }
    }

    /// Cancels a deadline, if it is set.
    pub fn cancel(&mut self, name: N) {
        if let Some(at) = self.by_name.remove(&name) {
            self.by_time.remove(&(at, name));
        }
    }

    /// Whether a deadline is set.
    pub fn is_set(&self, name: N) -> bool {
        self.by_name.contains_key(&name)
    }

    /// When a deadline is, if it is set.
    pub fn at(&self, name: N) -> Option<Instant> {
        self.by_name.get(&name).copied()
    }

    /// How many are set.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Gives back what an emptied B-tree keeps.
    pub fn trim(&mut self) {
        if self.is_empty() {
            *self = Deadlines::default();
        }
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|&(at, _)| at)
    }

    /// All that are set, by name.
    pub fn iter(&self) -> impl Iterator<Item = (N, Instant)> {
        self.by_name.iter().map(|(&name, &at)| (name, at))
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        2 * memory::tree(self.by_name.len(), size_of::<(N, Instant)>())
    }

    /// Takes out a deadline that has passed.
    pub fn pop(&mut self, now: Instant) -> Option<N> {
        let &(at, name) = self.by_time.first()?;
        if at > now {
            return None;
        }
        self.cancel(name);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_deadline() {
        let at = Instant::from_nanos;
        let mut deadlines = Deadlines::default();
        deadlines.set('a', at(5));
        deadlines.set('b', at(3));
        deadlines.set('a', at(2));
        deadlines.set_earlier('a', at(9));
        assert_eq!(deadlines.next(), Some(at(2)));
        assert_eq!(deadlines.pop(at(1)), None);
        assert_eq!(
            (deadlines.pop(at(9)), deadlines.pop(at(9)), deadlines.pop(at(9))),
            (Some('a'), Some('b'), None)
        );
    }
}

//! Small maps as sorted vectors. A node is on many trees with few children each: a B-tree pays for eleven entries when
//! it holds one, these pay for what they hold. In order of their keys, so that a run is the same twice.

/// A map of few entries.
#[derive(Clone, Debug)]
pub(crate) struct SortedMap<K, V> {
    entries: Vec<(K, V)>,
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        SortedMap { entries: Vec::new() }
    }
}

impl<K: Ord + Copy, V> SortedMap<K, V> {
    fn find(&self, key: &K) -> Result<usize, usize> {
        self.entries.binary_search_by(|(other, _)| other.cmp(key))
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.find(key).ok().map(|at| &self.entries[at].1)
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.find(key).ok().map(|at| &mut self.entries[at].1)
    }

    /// Whether a key has a value.
    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// Gives a key a value, and hands out the one that it had.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(&key) {
            Ok(at) => Some(std::mem::replace(&mut self.entries[at].1, value)),
            Err(at) => {
                grow(&mut self.entries);
                self.entries.insert(at, (key, value));
                None
            }
        }
    }

    /// Takes a value out. Room that is no longer needed is given back.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.find(key).ok()?;
        let (_, value) = self.entries.remove(at);
        shrink(&mut self.entries);
        Some(value)
    }

    /// Forgets all entries.
    pub(crate) fn clear(&mut self) {
        self.entries = Vec::new();
    }

    /// Keys in order.
    pub(crate) fn keys(&self) -> impl ExactSizeIterator<Item = &K> + DoubleEndedIterator {
        self.entries.iter().map(|(key, _)| key)
    }

    /// Values in the order of their keys.
    pub(crate) fn values(&self) -> impl ExactSizeIterator<Item = &V> {
        self.entries.iter().map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|(_, value)| value)
    }

    /// Entries in the order of their keys.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, value)| (key, value))
    }

    /// The same, their values to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.entries.iter_mut().map(|(key, value)| (&*key, value))
    }

    /// Heap bytes of the entries themselves, spare room counted.
    pub(crate) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<(K, V)>()
    }
}

/// A set of few members.
#[derive(Clone, Debug)]
pub(crate) struct SortedSet<K> {
    members: Vec<K>,
}

impl<K> Default for SortedSet<K> {
    fn default() -> Self {
        SortedSet { members: Vec::new() }
    }
}

impl<K: Ord + Copy> SortedSet<K> {
    /// The members in order.
    pub(crate) fn as_slice(&self) -> &[K] {
        &self.members
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether it has this member.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.members.binary_search(key).is_ok()
    }

    /// Adds a member. Says whether it is new.
    pub(crate) fn insert(&mut self, key: K) -> bool {
        let Err(at) = self.members.binary_search(&key) else { return false };
        grow(&mut self.members);
        self.members.insert(at, key);
        true
    }

    /// Takes a member out. Says whether it was there.
    pub(crate) fn remove(&mut self, key: &K) -> bool {
        let Ok(at) = self.members.binary_search(key) else { return false };
        self.members.remove(at);
        shrink(&mut self.members);
        true
    }

    /// Takes out the first members, so many at most.
    pub(crate) fn pop_first(&mut self, count: usize) -> Vec<K> {
        let first = self.members.drain(..count.min(self.members.len())).collect();
        shrink(&mut self.members);
        first
    }

    /// Heap bytes, spare room counted.
    pub(crate) fn bytes(&self) -> usize {
        self.members.capacity() * size_of::<K>()
    }
}

fn grow<T>(entries: &mut Vec<T>) {
    if entries.len() == entries.capacity() {
        // By one while they are few, by a quarter later.
        entries.reserve_exact((entries.len() / 4).max(1));
    }
}

fn shrink<T>(entries: &mut Vec<T>) {
    if entries.is_empty() {
        *entries = Vec::new();
    } else if entries.capacity() > 2 * entries.len() {
        entries.shrink_to(entries.len() + entries.len() / 4);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_sorted_map_is_a_map(steps in proptest::collection::vec((0u8..40, any::<Option<u8>>()), 0..300)) {
            let mut naive = BTreeMap::new();
            let mut map = SortedMap::default();
            for (key, value) in steps {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), naive.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), naive.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), naive.get(&key));
                prop_assert!(map.iter().eq(naive.iter()));
                let room = map.len() * 2;
                prop_assert!(map.bytes() <= room * size_of::<(u8, u8)>(), "{} for {}", map.bytes(), map.len());
            }
        }

        #[test]
        fn a_sorted_set_is_a_set(steps in proptest::collection::vec((0u8..40, any::<bool>()), 0..300)) {
            let mut naive = BTreeSet::new();
            let mut set = SortedSet::default();
            for (key, add) in steps {
                if add {
                    prop_assert_eq!(set.insert(key), naive.insert(key));
                } else {
                    prop_assert_eq!(set.remove(&key), naive.remove(&key));
                }
                prop_assert_eq!(set.contains(&key), naive.contains(&key));
                prop_assert!(set.as_slice().iter().eq(naive.iter()));
            }
            let all: Vec<u8> = naive.into_iter().collect();
            prop_assert_eq!(set.pop_first(3), all[..all.len().min(3)].to_vec());
        }
    }
}

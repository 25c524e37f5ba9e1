//! The configurations of a log that count: the last committed one, and those that may still be committed.

use std::sync::Arc;

use crate::wire::{Configuration, Members};

/// The configurations that a node knows of, oldest first: of the committed ones the last only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Configurations(Vec<Configuration>);

impl Configurations {
    /// Takes over what a root or a member tells. Returns `None` if they are not in order.
    pub fn told(all: Vec<Configuration>) -> Option<Configurations> {
        let in_order = all.windows(2).all(|two| two[0].at < two[1].at);
        in_order.then_some(Configurations(all))
    }

    /// All of them, oldest first.
    pub fn all(&self) -> &[Configuration] {
        &self.0
    }

    /// The newest.
    pub fn last(&self) -> Option<&Configuration> {
        self.0.last()
    }

    /// Notes one behind all others.
    pub(super) fn note(&mut self, at: u64, members: &Members) {
        self.0.retain(|known| known.at < at);
        self.0.push(Configuration { at, members: Arc::clone(members) });
    }

    /// Forgets those from an offset on.
    pub(super) fn cut(&mut self, end: u64) {
        self.0.retain(|known| known.at < end);
    }

    /// Forgets those that were followed by another one which is committed.
    pub(super) fn settle(&mut self, commit: u64) {
        let committed = self.0.iter().filter(|known| known.at < commit).count();
        self.0.drain(..committed.saturating_sub(1));
    }

    /// The one in which an entry at this offset is committed: the last one before it.
    pub fn governing(&self, offset: u64) -> Option<&Configuration> {
        self.0.iter().rev().find(|known| known.at < offset)
    }

    /// One that is not committed yet.
    pub fn pending(&self, commit: u64) -> Option<&Configuration> {
        self.0.iter().find(|known| known.at >= commit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::testing::members;

    fn known(at: u64) -> Configuration {
        Configuration { at, members: members(&[1, 2, 3]) }
    }

    fn noted(at: &[u64]) -> Configurations {
        let mut all = Configurations::default();
        at.iter().for_each(|&at| all.note(at, &members(&[1, 2, 3])));
        all
    }

    #[test]
    fn only_what_is_in_order_is_believed() {
        assert!(Configurations::told(vec![]).is_some());
        assert!(Configurations::told(vec![known(1), known(4)]).is_some());
        assert!(Configurations::told(vec![known(4), known(1)]).is_none());
        assert!(Configurations::told(vec![known(4), known(4)]).is_none());
    }

    #[test]
    fn one_at_the_same_place_or_before_takes_the_place_of_those_behind_it() {
        assert_eq!(noted(&[0, 5, 9, 5]), noted(&[0, 5]));
        let mut all = noted(&[0, 5, 9]);
        all.cut(5);
        assert_eq!(all, noted(&[0]));
        all.cut(0);
        assert_eq!(all.last(), None);
    }

    #[test]
    fn of_the_committed_ones_the_last_counts() {
        let mut all = noted(&[0, 5, 9]);
        all.settle(0);
        assert_eq!(all, noted(&[0, 5, 9]), "none is committed");
        all.settle(5);
        assert_eq!(all, noted(&[0, 5, 9]), "the first one is");
        all.settle(6);
        assert_eq!(all, noted(&[5, 9]));
        all.settle(100);
        assert_eq!(all, noted(&[9]));
    }

    #[test]
    fn an_entry_is_governed_by_the_one_before_it() {
        let all = noted(&[0, 5]);
        assert_eq!(all.governing(0), None, "a birth has nothing before it");
        assert_eq!(all.governing(1).map(|known| known.at), Some(0));
        assert_eq!(all.governing(5).map(|known| known.at), Some(0));
        assert_eq!(all.governing(6).map(|known| known.at), Some(5));
        assert_eq!(all.pending(5).map(|known| known.at), Some(5));
        assert_eq!(all.pending(6), None);
    }
}

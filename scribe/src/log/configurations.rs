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

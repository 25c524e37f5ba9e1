//! What was seen before, so that what is repeated is taken once.

use std::collections::{BTreeSet, VecDeque};

use super::invariants::Size;

/// Things remembered; beyond it the oldest are forgotten. Whoever repeats one later than that is served twice, and must
/// have an identity of its own.
const MAX_SEEN: usize = 4096;

/// The last [`MAX_SEEN`] things.
#[derive(Clone, Debug)]
pub(super) struct Seen<T> {
    things: BTreeSet<T>,
    order: VecDeque<T>,
}

impl<T> Default for Seen<T> {
    fn default() -> Seen<T> {
        Seen { things: BTreeSet::new(), order: VecDeque::new() }
    }
}

impl<T: Ord + Copy> Seen<T> {
    /// How many are remembered (promise O5).
    pub(super) fn size(&self, name: &'static str) -> Size {
        (name, self.things.len().max(self.order.len()), MAX_SEEN)
    }

    /// Whether this thing comes for the first time.
    pub(super) fn is_new(&mut self, thing: T) -> bool {
        if !self.things.insert(thing) {
            return false;
        }
        self.order.push_back(thing);
        if self.order.len() > MAX_SEEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.things.remove(&oldest);
        }
        true
    }
}

//! The births of a log. Offsets go on over births, so each offset belongs to one of them.

use serde::{Deserialize, Serialize};

/// Most births that a log remembers; offsets of earlier ones count as the first of these.
pub const MAX_LINEAGE: usize = 8;

/// The births before a log's own, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lineage(Vec<Ancestor>);

/// A birth that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ancestor {
    /// The birth.
    pub birth: u64,
    /// Offset of the first entry that was not taken over.
    pub end: u64,
}

impl Lineage {
    /// The births of a log that begins anew where another one ends.
    #[must_use]
    pub fn then(&self, birth: u64, end: u64) -> Lineage {
        let mut all = self.0.clone();
        all.push(Ancestor { birth, end });
        let surplus = all.len().saturating_sub(MAX_LINEAGE);
        all.drain(..surplus);
        Lineage(all)
    }

    /// The births, oldest first.
    pub fn ancestors(&self) -> &[Ancestor] {
        &self.0
    }

    /// How far a log took over this birth.
    pub fn taken_over(&self, birth: u64) -> Option<u64> {
        self.0.iter().find(|ancestor| ancestor.birth == birth).map(|ancestor| ancestor.end)
    }

    /// How far a log of one birth and its lineage is the same as one of another: the end of what both have. `None`: they have
    /// nothing in common.
    pub fn common(&self, own: u64, other: &Lineage, others: u64) -> Option<u64> {
        let end_of = |lineage: &Lineage, last: u64, birth: u64| {
            if birth == last { Some(u64::MAX) } else { lineage.taken_over(birth) }
        };
        let births = self.0.iter().map(|ancestor| ancestor.birth).chain([own]);
        let shared =
            births.filter_map(|birth| Some(end_of(self, own, birth)?.min(end_of(other, others, birth)?)));
        shared.max()
    }

    /// The birth that an offset belongs to, in a log of this birth.
    pub fn birth_at(&self, offset: u64, own: u64) -> u64 {
        self.0.iter().find(|ancestor| offset < ancestor.end).map_or(own, |ancestor| ancestor.birth)
    }

    /// Whether the births can be those of one log: their ends only grow.
    pub fn is_sound(&self) -> bool {
        self.0.len() <= MAX_LINEAGE && self.0.windows(2).all(|two| two[0].end <= two[1].end)
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        self.0.capacity() * size_of::<Ancestor>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_belong_to_the_birth_that_took_them() {
        let lineage = Lineage::default().then(1, 5).then(2, 5).then(3, 9);
        let births: Vec<_> = [0, 4, 5, 8, 9, 100].iter().map(|&at| lineage.birth_at(at, 4)).collect();
        assert_eq!(births, [1, 1, 3, 3, 4, 4], "the second birth took no entry");
        assert_eq!([1, 2, 3, 4].map(|birth| lineage.taken_over(birth)), [Some(5), Some(5), Some(9), None]);
        assert!(lineage.is_sound());
        assert_eq!(Lineage::default().birth_at(3, 4), 4);
    }

    #[test]
    fn only_the_last_births_are_remembered() {
        let all = (0..20).fold(Lineage::default(), |lineage, birth| lineage.then(birth, 10 * birth));
        assert_eq!(all.ancestors().len(), MAX_LINEAGE);
        assert!(all.is_sound());
        assert_eq!(all.taken_over(11), None);
        assert_eq!(all.taken_over(12), Some(120));
        assert_eq!(all.birth_at(3, 99), 12, "an earlier one counts as the first of these");
    }

    #[test]
    fn births_out_of_order_or_too_many_are_not_sound() {
        assert!(!Lineage::default().then(1, 5).then(2, 4).is_sound());
        let many = (0..9).map(|birth| Ancestor { birth, end: birth }).collect();
        assert!(!Lineage(many).is_sound());
    }
}

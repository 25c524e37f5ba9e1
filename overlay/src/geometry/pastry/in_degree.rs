//! In-degree: about how many nodes have taken this one into their tables. Among near-equal candidates the crowded one is
//! left, or the top of every tree would land on the same nodes (design §5).

use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;

/// Words of bits by which the nodes are counted.
const PIGGYBACK: usize = 8;

/// The nodes that lately told this one how near they are, counted by bits that their ids set (Whang et al. 1990, "linear
/// counting").
#[derive(Clone, Debug, Default)]
pub(super) struct InDegree {
    bits: [[u64; PIGGYBACK]; 2],
    /// Since when the first half is being filled; the second is the one before.
    since: Instant,
}

impl InDegree {
    pub(super) fn note(&mut self, now: Instant, id: NodeId, period: Duration) {
        if now - self.since >= period {
            self.bits = [[0; PIGGYBACK], self.bits[0]];
            self.since = now;
        }
        let bit = id.0 as usize % (64 * PIGGYBACK);
        self.bits[0][bit / 64] |= 1 << (bit % 64);
    }

    /// An estimate; exact while it is small.
    pub(super) fn count(&self) -> usize {
        let [first, second] = &self.bits;
        let set: u32 = first.iter().zip(second).map(|(a, b)| (a | b).count_ones()).sum();
        let (all, set) = (64.0 * PIGGYBACK as f64, f64::from(set));
        // -m ln(z/m) by its series, so that the result is the same on every machine.
        let share = set / all;
        let mut power = share;
        let mut sum = 0.0;
        for term in 1..=24 {
            sum += power / f64::from(term);
            power *= share;
        }
        (all * sum) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Key;

    #[test]
    fn nodes_are_counted_once_each_and_forgotten() {
        let (mut in_degree, period) = (InDegree::default(), Duration::from_secs(600));
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        for round in 0..3 {
            (0..300_u64)
                .for_each(|n| in_degree.note(at(round), NodeId(Key::hash(&n.to_le_bytes()).0), period));
        }
        assert!((270..330).contains(&in_degree.count()), "{} of 300", in_degree.count());
        in_degree.note(at(700), NodeId(1), period);
        in_degree.note(at(1400), NodeId(2), period);
        assert_eq!(in_degree.count(), 2);
    }
}

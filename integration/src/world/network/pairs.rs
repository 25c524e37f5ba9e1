//! Each pair of nodes has a latency of its own, at random: the network of iroh-gossip's simulator. Two nodes near a
//! third say nothing of each other, so that no tree can be clever.

use std::time::Duration;

use rand::RngExt;
use treecast_overlay::random::Rng;

/// Latencies by a hash of the pair: nothing is kept.
#[derive(Clone, Debug)]
pub(super) struct Pairs {
    least: u64,
    span: u64,
    salt: u64,
}

impl Pairs {
    pub(super) fn new(least: Duration, most: Duration, mut dice: Rng) -> Pairs {
        let (least, most) = (super::nanos(least), super::nanos(most));
        Pairs { least, span: most.saturating_sub(least) + 1, salt: dice.random() }
    }

    /// The same both ways.
    pub(super) fn nanos(&self, a: usize, b: usize) -> u64 {
        let pair = (a.min(b) as u64) << 32 | a.max(b) as u64;
        self.least + mixed(self.salt ^ pair) % self.span
    }
}

/// Spreads the bits of a number over the whole of it: the finalizer of MurmurHash3.
fn mixed(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use treecast_overlay::random;

    use super::*;

    #[test]
    fn latencies_are_spread_evenly_between_both_ends() {
        let apart = Duration::from_millis;
        let pairs = Pairs::new(apart(10), apart(50), random::stream(&[7; 32], "test"));
        let mut tens = [0; 4];
        for (a, b) in (0..200).flat_map(|a| (0..a).map(move |b| (a, b))) {
            assert_eq!(pairs.nanos(a, b), pairs.nanos(b, a));
            tens[((pairs.nanos(a, b) - 10_000_000) / 10_000_001) as usize] += 1;
        }
        assert!(tens.iter().all(|&count| (4_700..5_300).contains(&count)), "{tens:?}");
    }
}

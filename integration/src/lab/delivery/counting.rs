//! Counts that stay small however many messages there are: a bit for each message, a counter for each millisecond.

use std::time::Duration;

/// Milliseconds that are told apart; what takes longer counts as the last.
const MOST: usize = 600_000;

/// A set of small numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    /// Adds a number. Returns whether it is new.
    pub(super) fn add(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Whether a number is in it.
    pub(super) fn has(&self, number: u64) -> bool {
        self.0.get((number / 64) as usize).is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}

/// How often something took so many milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(Vec<u32>);

impl Times {
    /// One more.
    pub(super) fn add(&mut self, took: Duration) {
        let ms = (took.as_millis() as usize).min(MOST);
        if ms >= self.0.len() {
            self.0.resize(ms + 1, 0);
        }
        self.0[ms] += 1;
    }

    /// How many.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|&count| u64::from(count)).sum()
    }

    /// The milliseconds that the share `q` of them, 0 to 1, did not exceed.
    pub(super) fn quantile(&self, q: f64) -> Option<f64> {
        let place = ((self.count() as f64 * q).ceil() as u64).max(1);
        let mut before = 0;
        let reaches = |&count: &u32| {
            before += u64::from(count);
            before >= place
        };
        self.0.iter().position(reaches).map(|ms| ms as f64)
    }

    /// The longest.
    pub(super) fn max(&self) -> Option<f64> {
        self.0.iter().rposition(|&count| count > 0).map(|ms| ms as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_counted() {
        let mut bits = Bits::default();
        assert_eq!([3, 3, 200].map(|number| bits.add(number)), [true, false, true]);
        assert_eq!([3, 4, 200, 9999].map(|number| bits.has(number)), [true, false, true, false]);
        let mut times = Times::default();
        assert_eq!((times.quantile(0.5), times.max()), (None, None));
        (1..=100).for_each(|ms| times.add(Duration::from_millis(ms)));
        assert_eq!(
            (times.quantile(0.5), times.quantile(0.99), times.max()),
            (Some(50.0), Some(99.0), Some(100.0))
        );
    }
}

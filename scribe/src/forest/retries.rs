//! How much a node may ask for at a time, over all topics. Each topic repeats its questions by itself; where thousands of them
//! are unanswered because other nodes are late, repeating all of them makes those later. So all draw on one budget: a
//! question takes a piece of it, its answer gives it back, and time makes up for questions that were lost.

use std::time::Duration;

use treecast_overlay::time::Instant;

use crate::config::RetryConfig;

/// Pieces of a budget. At most `RetryConfig::unanswered` of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Retries {
    /// Pieces that are taken, in billionths: time gives them back bit by bit.
    taken: u128,
    /// When time was last counted.
    at: Instant,
}

const PIECE: u128 = 1_000_000_000;

impl Retries {
    /// Takes a piece, if there is one.
    pub(super) fn take(&mut self, now: Instant, config: &RetryConfig) -> bool {
        let passed = now.since(std::mem::replace(&mut self.at, now)).as_nanos();
        self.taken = self.taken.saturating_sub(passed * u128::from(config.per_second));
        let has_room = self.taken + PIECE <= config.unanswered as u128 * PIECE;
        if has_room {
            self.taken += PIECE;
        }
        has_room
    }

    /// A question was answered.
    pub(super) fn give_back(&mut self) {
        self.taken = self.taken.saturating_sub(PIECE);
    }
}

/// How long a question waits that found none.
pub(super) const AGAIN: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unanswered_questions_use_the_budget_up_and_answers_and_time_restore_it() {
        let config = RetryConfig { unanswered: 3, per_second: 2 };
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut retries = Retries::default();
        let take = |retries: &mut Retries, now| retries.take(at(now), &config);
        assert_eq!([0; 4].map(|now| take(&mut retries, now)), [true, true, true, false]);
        retries.give_back();
        assert_eq!([0; 2].map(|now| take(&mut retries, now)), [true, false], "one was answered");
        assert_eq!([499, 500, 501].map(|now| take(&mut retries, now)), [false, true, false], "two a second");
        assert_eq!(
            [0; 4].map(|_| take(&mut retries, 9_000)),
            [true, true, true, false],
            "and never more than all"
        );
    }
}

//! How far one that reads the log has come, and whether others wait for it.

use std::time::Duration;

use treecast_overlay::time::Instant;

/// The pace of one that reads the log: a subscriber, or a child with all that are below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Everything before this offset is consumed.
    consumed: u64,
    /// The most that it ever had: only what is beyond it is progress.
    best: u64,
    /// Since when something waits for it, and it takes nothing.
    idle_since: Option<Instant>,
}

impl Pace {
    /// Notes how far it is in a log that ends at `end`. Only what moves forward is progress.
    pub(crate) fn note(&mut self, now: Instant, consumed: u64, end: u64) {
        let (waits, best) = (consumed < end, self.best.min(end));
        if consumed > best {
            self.idle_since = waits.then_some(now);
        } else if waits {
            self.idle_since.get_or_insert(now);
        }
        (self.consumed, self.best) = (consumed, best.max(consumed));
    }

    /// Notes that it goes on further on, though it has taken nothing.
    pub(crate) fn skip_to(&mut self, consumed: u64) {
        self.best = self.best.max(consumed);
    }

    /// Until when others wait for it, unless it goes on; `None`: it has everything.
    fn waits_until(&self, patience: Duration) -> Option<Instant> {
        self.idle_since.map(|since| since + patience)
    }
}

/// The slowest of all that read the log, without those that have been left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slowest {
    /// Everything before this offset is consumed.
    pub consumed: u64,
    /// When it is left behind, unless it goes on; `None`: all have everything.
    pub until: Option<Instant>,
}

impl Slowest {
    /// Of a log that ends at this offset, and that nothing reads.
    pub(crate) fn none(end: u64) -> Slowest {
        Slowest { consumed: end, until: None }
    }

    /// Takes one more into account.
    pub(crate) fn add(&mut self, now: Instant, pace: &Pace, patience: Duration) {
        if let Some(until) = pace.waits_until(patience) {
            self.add_until(now, pace.consumed, until);
        }
    }

    /// The same, of one that is waited for until then.
    pub(crate) fn add_until(&mut self, now: Instant, consumed: u64, until: Instant) {
        if until > now && consumed < self.consumed {
            *self = Slowest { consumed, until: Some(until) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn slowest(now: Instant, paces: &[Pace]) -> u64 {
        let mut slowest = Slowest::none(9);
        paces.iter().for_each(|pace| slowest.add(now, pace, Duration::from_millis(100)));
        slowest.consumed
    }

    #[test]
    fn one_that_takes_nothing_is_left_behind_and_counts_again_when_it_goes_on() {
        let (mut slow, mut fast) = (Pace::default(), Pace::default());
        slow.note(at(0), 3, 9);
        fast.note(at(0), 9, 9);
        assert_eq!(slowest(at(50), &[slow, fast]), 3);
        slow.note(at(99), 3, 9);
        assert_eq!(slowest(at(100), &[slow, fast]), 9, "looking at it is no progress of its");
        slow.note(at(200), 4, 9);
        assert_eq!(slowest(at(200), &[slow, fast]), 4);
    }

    #[test]
    fn one_that_has_everything_is_never_slow() {
        let mut idle = Pace::default();
        idle.note(at(0), 9, 9);
        assert_eq!(slowest(at(5000), &[idle]), 9);
        idle.note(at(5000), 9, 10);
        let mut slowest = Slowest::none(10);
        slowest.add(at(5050), &idle, Duration::from_millis(100));
        assert_eq!(slowest, Slowest { consumed: 9, until: Some(at(5100)) }, "from now on");
    }
}

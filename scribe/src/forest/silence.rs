//! Whether a neighbour has fallen silent: one that was heard often is asked for a sign of life soon, and given up when it has
//! given none to three such questions.

use std::time::Duration;

use treecast_overlay::time::Instant;

/// The least time without a word after which a neighbour is asked.
const LEAST: Duration = Duration::from_millis(400);
/// One that is heard every so often, and more often, is watched between two beats.
const OFTEN: u16 = 250;
/// So many times as long as usual a neighbour may be silent before it is asked.
const TIMES: u32 = 4;
/// How long each of the questions waits for an answer. They are no more than that, because one in ten of them, or of the answers, may
/// be lost.
const WAITS: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_millis(300), Duration::from_millis(400)];
/// A node that looks so much too late has slept: it could not hear.
pub(super) const SLEPT: Duration = Duration::from_millis(250);
/// How far apart this node looks at the soonest.
pub(super) const APART: Duration = Duration::from_millis(100);

/// How a neighbour was heard of late.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Silence {
    /// When it was last heard.
    pub heard: Instant,
    /// When it was last asked for a sign of life.
    asked_at: Instant,
    /// How often, since it was heard.
    asked: u8,
    /// The usual time between two of its words, in milliseconds.
    rhythm: u16,
}

/// A look at a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    /// How long it was silent.
    pub silent_for: Duration,
    /// It is to be asked for a sign of life.
    pub asks: bool,
    /// It gives none, and is given up with this look.
    pub is_given_up: bool,
    /// When to look again; `None`: it was given up.
    pub again_at: Option<Instant>,
}

impl Silence {
    /// A neighbour that was heard now for the first time. `every`: how far apart beats are.
    pub(crate) fn new(now: Instant, every: Duration) -> Silence {
        Silence { heard: now, asked_at: now, asked: 0, rhythm: millis(every) }
    }

    /// Notes a word of it.
    pub(crate) fn hear(&mut self, now: Instant) {
        let gap = millis(now.since(self.heard));
        // An answer says nothing of how often it speaks by itself: else questions would lead to questions.
        self.rhythm = match self.asked {
            0 => ((3 * u32::from(self.rhythm) + u32::from(gap)) / 4) as u16,
            _ => self.rhythm.max(gap),
        };
        self.break_off(now);
    }

    /// Counts no silence until now: this node could not hear.
    pub(crate) fn break_off(&mut self, now: Instant) {
        (self.heard, self.asked) = (now, 0);
    }

    /// Whether it is heard so often that it is watched between two beats.
    fn is_busy(&self) -> bool {
        self.rhythm <= OFTEN
    }

    /// Whether it is looked at between two beats: it is heard often, or was asked.
    pub(crate) fn is_watched(&self) -> bool {
        self.is_busy() || self.asked > 0 && !self.is_given_up()
    }

    /// Whether it has answered no question, or was not heard for so long.
    pub(crate) fn lasts(&self, now: Instant, limit: Duration) -> bool {
        self.is_given_up() || now.since(self.heard) >= limit
    }

    fn is_given_up(&self) -> bool {
        usize::from(self.asked) > WAITS.len()
    }

    /// How long it may be silent before it is asked.
    fn patience(&self, every: Duration) -> Duration {
        let usual = TIMES * Duration::from_millis(self.rhythm.into());
        usual.clamp(LEAST.min(every), every + every / 4)
    }

    /// Looks at it. The caller asks when told to.
    pub(super) fn look(&mut self, now: Instant, every: Duration) -> Looked {
        let silent_for = now.since(self.heard);
        let nothing = Looked { silent_for, asks: false, is_given_up: false, again_at: None };
        if self.is_given_up() {
            return nothing;
        }
        let due = self.due_at(every);
        if now < due {
            return Looked { again_at: Some(due), ..nothing };
        }
        (self.asked, self.asked_at) = (self.asked + 1, now);
        if self.is_given_up() {
            return Looked { is_given_up: true, ..nothing };
        }
        Looked { asks: true, again_at: Some(self.due_at(every)), ..nothing }
    }

    /// When it is to be asked, or given up.
    fn due_at(&self, every: Duration) -> Instant {
        match usize::from(self.asked).checked_sub(1) {
            Some(last) => self.asked_at + WAITS[last],
            None => self.heard + self.patience(every),
        }
    }
}

fn millis(time: Duration) -> u16 {
    u16::try_from(time.as_millis()).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// One that was heard ten times a second for two seconds.
    fn busy() -> Silence {
        let mut busy = Silence::new(at(0), EVERY);
        (1..=20).for_each(|n| busy.hear(at(100 * n)));
        busy
    }

    #[test]
    fn one_that_was_heard_often_is_asked_soon_and_given_up_after_three_questions() {
        let mut busy = busy();
        assert!(busy.is_busy());
        assert_eq!(busy.look(at(2300), EVERY).again_at, Some(at(2408)));
        assert!(busy.look(at(2410), EVERY).asks);
        assert_eq!(busy.look(at(2410), EVERY).again_at, Some(at(2710)));
        assert!(busy.look(at(2710), EVERY).asks);
        assert!(busy.look(at(3010), EVERY).asks);
        assert!(!busy.lasts(at(3409), 2 * EVERY));
        assert!(busy.look(at(3410), EVERY).is_given_up);
        assert_eq!(busy.look(at(3500), EVERY).again_at, None);
        assert!(busy.lasts(at(3410), 2 * EVERY));
        busy.hear(at(3600));
        assert!(!busy.lasts(at(3600), 2 * EVERY));
    }

    #[test]
    fn any_word_is_an_answer() {
        let mut busy = busy();
        assert!(busy.look(at(2410), EVERY).asks);
        busy.hear(at(2500));
        assert!(!busy.look(at(2700), EVERY).asks);
    }

    #[test]
    fn one_that_says_little_is_asked_when_a_beat_is_overdue() {
        let mut quiet = Silence::new(at(0), EVERY);
        (1..=9).for_each(|n| quiet.hear(at(1000 * n)));
        assert!(!quiet.is_busy());
        assert_eq!(quiet.look(at(9100), EVERY).again_at, Some(at(10_250)));
        assert!(quiet.look(at(10_250), EVERY).asks);
        // One that has said much, and comes to rest, is asked once.
        let mut resting = busy();
        assert!(resting.look(at(2410), EVERY).asks);
        resting.hear(at(2420));
        resting.hear(at(3000));
        for beat in 4..10 {
            assert!(!resting.look(at(1000 * beat), EVERY).asks, "beat {beat}");
            resting.hear(at(1000 * beat + 5));
        }
    }

    #[test]
    fn a_node_that_could_not_hear_begins_anew() {
        let mut busy = busy();
        assert!(busy.look(at(60_000), EVERY).asks);
        busy.break_off(at(60_000));
        assert!(!busy.look(at(60_100), EVERY).asks);
        assert!(!busy.lasts(at(60_100), EVERY));
    }
}

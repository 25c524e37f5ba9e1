//! What became of lookups.

use std::collections::BTreeMap;

/// Words of wrong answers that are kept.
pub(super) const KEPT: usize = 20;

/// What became of lookups.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Launched.
    pub asked: u64,
    /// Answered in time.
    pub answered: u64,
    /// Not answered within a minute, or by an error, though the origin lived and was not paused.
    pub lost: u64,
    /// Why, by the last word that came back, and how often.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Their origin died, or was paused, before there was an answer.
    pub abandoned: u64,
    /// Answered by a node that is not the closest of its side whose leases run, or while another answers, too.
    pub wrong: u64,
    /// Of these, those that promise O1 excuses.
    pub excused: u64,
    /// The first of them in words.
    pub words: Vec<String>,
    /// From the question to the root's decision over the latency of the direct way: waiting counts.
    pub stretch: Vec<f32>,
    /// Latencies of the hops over the latency of the direct way.
    pub way_stretch: Vec<f32>,
    /// From the question to the answer, in milliseconds.
    pub took_ms: Vec<f32>,
}

impl Tally {
    /// What became of those of another ring, too.
    pub fn add(&mut self, other: Tally) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.lost += other.lost;
        other.reasons.into_iter().for_each(|(why, times)| *self.reasons.entry(why).or_default() += times);
        self.abandoned += other.abandoned;
        self.wrong += other.wrong;
        self.excused += other.excused;
        self.words.extend(other.words);
        self.words.truncate(KEPT);
        self.stretch.extend(other.stretch);
        self.way_stretch.extend(other.way_stretch);
        self.took_ms.extend(other.took_ms);
    }
}

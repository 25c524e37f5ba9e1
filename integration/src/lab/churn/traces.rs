//! How long nodes stay: distributions of session lengths, each scaled to a median.

use std::time::Duration;

use clap::ValueEnum;
use rand::RngExt;
use treecast_overlay::random::Rng;

/// Shape of session lengths in Gnutella, Kad and BitTorrent (Stutzbach & Rejaie 2006, "Understanding churn in
/// peer-to-peer networks", §4: Weibull; 0.59 for Gnutella).
const WEIBULL_SHAPE: f64 = 0.59;
/// Γ(1 + 1/0.59): the mean of a Weibull distribution of this shape over its scale.
const WEIBULL_GAMMA: f64 = 1.538_449_205_118_726_7;
/// Mean over median of Gnutella's sessions: 2.3 h over 1 h (Saroiu, Gummadi & Gribble 2002; anchor P8).
const GNUTELLA_SKEW: f64 = 2.3;
/// Share of arrivals that pass by, and how much longer the others stay in the mean (ours: servers among
/// visitors).
const VISITORS: f64 = 0.75;
const PATIENT: f64 = 20.0;
/// Sessions of which residual ones are drawn.
const POOL: usize = 65_536;

/// Session lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SessionTrace {
    /// Exponential: a node's age says nothing (Rhea et al. 2004)
    Exponential,
    /// Weibull of shape 0.59: many leave at once, few stay for very long (Stutzbach & Rejaie 2006)
    Weibull,
    /// Lognormal with Gnutella's mean, 2.3 medians (Saroiu et al. 2002); not the trace itself
    Gnutella,
    /// Three quarters pass by, one quarter stays twenty times as long (ours)
    Bimodal,
    /// Exponential, and half as many nodes as there are come at one instant, on top
    Flash,
}

/// Draws sessions.
pub(super) struct Sessions {
    trace: SessionTrace,
    /// Seconds.
    median: f64,
    /// Mean of the visits, in seconds.
    visit: f64,
    /// Lengths, and their sum up to each: a node that is met is more likely in a long session.
    pool: Vec<(f64, f64)>,
}

impl Sessions {
    /// Sessions of this median.
    pub(super) fn new(trace: SessionTrace, median: Duration, dice: &mut Rng) -> Sessions {
        let median = median.as_secs_f64();
        let mut sessions = Sessions { trace, median, visit: visit(median), pool: Vec::with_capacity(POOL) };
        let mut sum = 0.0;
        for _ in 0..POOL {
            let length = sessions.seconds(dice);
            sum += length;
            sessions.pool.push((length, sum));
        }
        sessions
    }

    /// Their mean.
    pub(super) fn mean(&self) -> Duration {
        let ln2 = std::f64::consts::LN_2;
        Duration::from_secs_f64(match self.trace {
            SessionTrace::Exponential | SessionTrace::Flash => self.median / ln2,
            SessionTrace::Weibull => self.scale() * WEIBULL_GAMMA,
            SessionTrace::Gnutella => self.median * GNUTELLA_SKEW,
            SessionTrace::Bimodal => self.visit * (VISITORS + (1.0 - VISITORS) * PATIENT),
        })
    }

    /// How long a newcomer stays.
    pub(super) fn draw(&self, dice: &mut Rng) -> Duration {
        Duration::from_secs_f64(self.seconds(dice))
    }

    /// How long a node stays on that has been there for a while: what is left, at a random point, of a session
    /// that was drawn in proportion to its length.
    pub(super) fn residual(&self, dice: &mut Rng) -> Duration {
        let whole = self.pool.last().map_or(0.0, |&(_, sum)| sum);
        let point = dice.random::<f64>() * whole;
        let at = self.pool.partition_point(|&(_, sum)| sum <= point).min(self.pool.len() - 1);
        Duration::from_secs_f64(self.pool[at].0 * dice.random::<f64>())
    }

    /// Of the Weibull distribution, in seconds.
    fn scale(&self) -> f64 {
        self.median / std::f64::consts::LN_2.powf(1.0 / WEIBULL_SHAPE)
    }

    fn seconds(&self, dice: &mut Rng) -> f64 {
        match self.trace {
            SessionTrace::Exponential | SessionTrace::Flash => {
                exponential(dice) * self.median / std::f64::consts::LN_2
            }
            SessionTrace::Weibull => self.scale() * exponential(dice).powf(1.0 / WEIBULL_SHAPE),
            SessionTrace::Gnutella => {
                let sigma = (2.0 * GNUTELLA_SKEW.ln()).sqrt();
                self.median * (sigma * normal(dice)).exp()
            }
            SessionTrace::Bimodal => {
                let stays = if dice.random::<f64>() < VISITORS { 1.0 } else { PATIENT };
                exponential(dice) * self.visit * stays
            }
        }
    }
}

/// The time to the next of events that come at random, `mean` apart (a Poisson process).
pub(in crate::lab) fn wait(dice: &mut Rng, mean: Duration) -> Duration {
    mean.mul_f64(exponential(dice))
}

/// Exponential with mean 1.
fn exponential(dice: &mut Rng) -> f64 {
    -(1.0 - dice.random::<f64>()).ln()
}

/// Normal with mean 0 and deviation 1 (Box & Muller 1958).
fn normal(dice: &mut Rng) -> f64 {
    let angle = std::f64::consts::TAU * dice.random::<f64>();
    (2.0 * exponential(dice)).sqrt() * angle.cos()
}

/// The mean visit with which half of all sessions of the bimodal trace are shorter than the median: by
/// bisection.
fn visit(median: f64) -> f64 {
    let longer =
        |mean: f64| VISITORS * (-median / mean).exp() + (1.0 - VISITORS) * (-median / (mean * PATIENT)).exp();
    let (mut low, mut high) = (median / 100.0, median * 100.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if longer(middle) > 0.5 { high = middle } else { low = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use treecast_overlay::random;

    use super::*;

    #[test]
    fn sessions_have_the_median_and_the_mean_that_they_should_have() {
        let mut dice = random::stream(&[3; 32], "traces");
        for &trace in SessionTrace::value_variants() {
            let sessions = Sessions::new(trace, Duration::from_secs(600), &mut dice);
            let mut drawn: Vec<f64> = (0..100_001).map(|_| sessions.seconds(&mut dice)).collect();
            drawn.sort_by(f64::total_cmp);
            let (median, mean) = (drawn[50_000], drawn.iter().sum::<f64>() / drawn.len() as f64);
            assert!((570.0..630.0).contains(&median), "{trace:?}: median {median}");
            let off = mean / sessions.mean().as_secs_f64();
            assert!((0.93..1.07).contains(&off), "{trace:?}: mean {mean}, said {:?}", sessions.mean());
        }
    }

    #[test]
    fn who_is_met_stays_on_for_as_long_as_renewal_theory_says() {
        let mut dice = random::stream(&[4; 32], "traces");
        for &trace in SessionTrace::value_variants() {
            let sessions = Sessions::new(trace, Duration::from_secs(600), &mut dice);
            let square = |&(length, _): &(f64, f64)| length * length;
            let whole = sessions.pool.last().expect("drawn").1;
            // E[L²] / 2 E[L].
            let expected = sessions.pool.iter().map(square).sum::<f64>() / whole / 2.0;
            let drawn =
                (0..50_000).map(|_| sessions.residual(&mut dice).as_secs_f64()).sum::<f64>() / 50_000.0;
            assert!((0.9..1.1).contains(&(drawn / expected)), "{trace:?}: {drawn}, expected {expected}");
        }
    }
}

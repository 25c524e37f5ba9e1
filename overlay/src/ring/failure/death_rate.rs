//! Probe rates that tune themselves (MSPastry §4.1). The nodes in use in the routing table are probed just so often that of
//! a message meets no more dead ones on its way, in the mean, than was chosen: seldom in a quiet ring, often in a restless one.
//!
//! How often nodes die is estimated from the last deaths that this node has found itself. Unlike MSPastry's, no other node's
//! estimate is asked for: a wrong one costs a message a hop's retransmission, and no more.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Config;
use crate::geometry::TableUse;
use crate::memory;
use crate::ring::invariants::Size;
use crate::ring::tables::Tables;
use crate::time::Instant;

/// Deaths that are remembered (MSPastry's K); beyond it the oldest is forgotten.
const REMEMBERED: usize = 16;
/// The shortest time over which deaths are counted: two in a second are no rate yet.
const SHORTEST: Duration = Duration::from_secs(120);
/// The shortest period, whatever happens: a ring that falls apart is not to be drowned in probes.
const SHORTEST_PERIOD: Duration = Duration::from_secs(10);

/// Deaths among the nodes that this one watches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct DeathRate {
    since: Instant,
    /// Oldest first.
    deaths: VecDeque<Instant>,
}

impl DeathRate {
    /// From now on deaths are counted.
    pub(super) fn begin(&mut self, now: Instant) {
        *self = DeathRate { since: now, deaths: VecDeque::new() };
    }

    /// A node that this one watched was found dead.
    pub(super) fn note_death(&mut self, now: Instant) {
        if self.deaths.len() == REMEMBERED {
            self.since = self.deaths.pop_front().unwrap_or(now);
        }
        self.deaths.push_back(now);
    }

    /// The period at which a message meets `target_loss_rate` dead nodes, if each makes so many hops by the table,
    /// and `watched` nodes were watched. Found dead at its next probe, a node has stood there for half a period.
    fn period(&self, now: Instant, target_loss_rate: f64, hops: usize, watched: usize) -> Duration {
        let time = (now - self.since).max(SHORTEST).as_secs_f64();
        // (At least one, just about to happen: no rate is known to be zero.)
        let deaths = self.deaths.len().max(1) as f64;
        let rate = deaths / (watched.max(1) as f64 * time);
        Duration::from_secs_f64((2.0 * target_loss_rate / (hops.max(1) as f64 * rate)).clamp(0.0, 1e6))
            .max(SHORTEST_PERIOD)
    }

    /// Deaths a second of one of the watched nodes.
    fn rate(&self, now: Instant, watched: usize) -> f64 {
        let time = (now - self.since).max(SHORTEST).as_secs_f64();
        self.deaths.len() as f64 / (watched.max(1) as f64 * time)
    }

    /// Whether a node may well be dead that was silent for so long, by how fast others died.
    pub(super) fn is_doubtful(
        &self,
        now: Instant,
        config: &Config,
        tables: &Tables,
        table_use: TableUse,
        silence: Duration,
    ) -> bool {
        let rate = self.rate(now, tables.leaf_set.len() + table_use.nodes);
        rate * silence.as_secs_f64() > config.routing.hedge_above
    }

    /// After which silence the nodes in use of the geometry's tables are probed.
    pub(super) fn table_probe(
        &self,
        now: Instant,
        config: &Config,
        tables: &Tables,
        table_use: TableUse,
    ) -> Duration {
        let watched = tables.leaf_set.len() + table_use.nodes;
        self.period(now, config.failure.target_loss_rate, table_use.hops, watched)
            .min(config.failure.table_probe)
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::queue(&self.deaths)
    }

    /// How many are remembered (promise O5).
    pub(super) fn size(&self) -> Size {
        ("deaths remembered", self.deaths.len(), REMEMBERED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_die_the_more_often_is_looked() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut deaths = DeathRate::default();
        deaths.begin(at(0));
        let quiet = deaths.period(at(100_000), 0.1, 3, 80);
        assert!(quiet > Duration::from_secs(3600), "one death in a day is nothing: {quiet:?}");
        // Of 80 one each 60 s: a mean life of 80 minutes.
        (1..=40).for_each(|n| deaths.note_death(at(60 * n)));
        let period = deaths.period(at(60 * 40), 0.1, 2, 80).as_secs();
        // 2 × 0.1 / 2 hops × 4,800 s.
        assert!((400..560).contains(&period), "{period} s");
        // All of a sudden.
        (0..40).for_each(|_| deaths.note_death(at(60 * 41)));
        assert!(deaths.period(at(60 * 41), 0.1, 2, 80) < Duration::from_secs(80));
        assert!(deaths.period(at(60 * 41), 0.001, 2, 80) >= SHORTEST_PERIOD);
    }
}

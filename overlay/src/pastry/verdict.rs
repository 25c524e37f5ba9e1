//! Verdicts: who was found dead, and the looks at those who were not heard.

use std::time::Duration;

use super::join::Phase;
use super::{Node, Timer};
use crate::id::NodeId;
use crate::kbr::Event;
use crate::machine::Refusal;
use crate::peer::{Peer, Seed};
use crate::time::Instant;

/// A refused dial counts as an unanswered probe, but no sooner than this after it was sent: three of them make a
/// verdict, and a restarting process deserves a moment.
const REFUSAL_SPACING: Duration = Duration::from_millis(150);
/// How many sweeps there are in the shortest period of a probe.
const SWEEPS: u32 = 16;
/// Longest time between two of them, in the mean: a sweep also gives back what bursts have taken.
const LONGEST_SWEEP: Duration = Duration::from_secs(60);

impl Node {
    /// Verdict: this node is gone. Its place is closed, its messages go other ways.
    pub(super) fn lose(&mut self, now: Instant, id: NodeId) {
        let known = self.liveness.vitals(id).map(|vitals| vitals.incarnation);
        let member = self.member(id).map(|peer| peer.incarnation);
        if member.is_some() {
            self.tuning.note_death(now);
        }
        let known = known.or(member);
        self.liveness.forget(id);
        self.leases.settle_waking(id);
        self.carried.forget(id);
        self.budget.forget(id);
        self.settle_probe(id);
        self.table.remove(id);
        self.neighbourhood.remove(id);
        self.detours.forget(id);
        self.members.remove(id);
        if let Some(incarnation) = known {
            self.liveness.bury(id, incarnation, now + self.config.bury_for);
        }
        self.drop_when_lease_ends(now, id);
        self.on_lost_while_entering(now, id);
        self.reroute(now, id);
        self.events.push_back(Event::PeerDown(id));
    }

    pub(super) fn on_link_down(&mut self, now: Instant, id: NodeId) {
        self.doubt_hops(id);
        self.on_access_unreachable(now, id);
        if let Some(peer) = self.member(id) {
            self.probe(now, peer, false);
        }
    }

    /// Dialling failed: for a peer that is being probed that is an unanswered probe.
    pub(super) fn on_refused(&mut self, now: Instant, seed: Seed, reason: Refusal) {
        if let Some(id) = seed.id {
            self.on_access_unreachable(now, id);
            if let Some(asked) = self.liveness.asked(id) {
                let soonest = (asked.sent + REFUSAL_SPACING).max(now);
                self.deadlines.set_earlier(Timer::Probe(id), soonest);
            }
            self.hurry_hops(now, id);
        }
        self.on_seed_refused(now, seed, reason);
    }

    /// Sets the time for the next look at who was not heard.
    pub(super) fn plan_sweep(&mut self, now: Instant) {
        let sweep = self.config.leaf_probe.min(self.table_probe(now)) / SWEEPS;
        let period = self.jittered(sweep.min(LONGEST_SWEEP));
        self.deadlines.set(Timer::Sweep, now + period);
    }

    /// Probes whoever was not heard for its period: the leaf set, and of each slot of the routing table the node in use,
    /// the nearest. The others wait for their turn. (Ring neighbours watch each other by their leases, and tell the rest
    /// of a death: MSPastry §4.1.) Of all others nothing is kept but what the tables have.
    pub(super) fn on_sweep(&mut self, now: Instant) {
        self.plan_sweep(now);
        let table_probe = self.table_probe(now);
        let in_use = (0..self.rows_in_use()).flat_map(|row| self.table.row(row));
        let watched = self.leaf_set.iter().map(|peer| (*peer, self.config.leaf_probe));
        let mut watched: Vec<(Peer, Duration)> =
            watched.chain(in_use.map(|peer| (*peer, table_probe))).collect();
        watched.sort_by_key(|(peer, _)| peer.id);
        for &(peer, patience) in &watched {
            if self.liveness.silence(now, peer.id) >= patience {
                self.probe(now, peer, false);
            }
        }
        self.liveness.keep(|id| watched.binary_search_by_key(&id, |(peer, _)| peer.id).is_ok());
        self.liveness.tidy(now);
        self.give_back();
    }

    /// Forgets the vitals of a node that is in no table and owes no answer.
    pub(super) fn forget_stranger(&mut self, id: NodeId) {
        let entering = matches!(self.phase, Phase::Entering(_) | Phase::Seeking { .. });
        if !entering && self.member(id).is_none() && self.liveness.asked(id).is_none() {
            self.liveness.forget(id);
        }
    }
}

//! Rings that lost each other, or never met, become one (design §5, partitions; promise O3). Published Pastry has nothing
//! for it: two halves that each closed their gaps never look back.
//!
//! *Finding*: all nodes of a ring together ask a few former peers or seeds a second, whatever the ring's size, so a ring
//! that grows pays less a node. *Proof*: a peer that was found dead is back when it has answered a question, not when it
//! is heard: where only one direction is broken, its words arrive and its answers do not. *Round*: who is back was seldom
//! lost alone, so those lost at about the same time are asked at once; they ask in turn, and the news runs around the
//! ring in steps of half a leaf set. *Zip*: where a stranger becomes a ring neighbour, leaf sets are exchanged with it, with
//! the neighbour that it displaced, and with the ends of the leaf set, so both rings are woven into each other from
//! every place where they touch (Shafaat, Ghodsi & Haridi 2007, "Handling Network Partitions and Mergers in Structured
//! Overlay Networks", whose gentle algorithm does the same with queues of passed-on nodes).

use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::{Node, Timer};
use crate::kbr::Bootstrap;
use crate::peer::{Addr, Peer, Seed};
use crate::sides::Side;
use crate::time::Instant;

/// How often any of all the nodes of a ring asks a former peer, in the time of a lease: halves of a ring that found each
/// other again wait for each other's leases anyway.
const RING_ASKS_LOST: u32 = 40;
/// The same for seeds of which this node does not know that they are on its ring.
const RING_ASKS_SEEDS: Duration = Duration::from_secs(2);
/// How often one node asks former peers at most, in the mean.
const MIN_LOST: Duration = Duration::from_secs(10);
/// How often one node asks seeds at most, in the mean.
const MIN_SEEDS: Duration = Duration::from_secs(60);
/// How often it asks former peers at least, in the mean.
const MAX_LOST: Duration = Duration::from_secs(1800);
/// How often it asks seeds at least, in the mean: whoever is on this ring costs a search each time.
const MAX_SEEDS: Duration = Duration::from_secs(1800);
/// The longer nothing was lost, the more seldom: after this share of that time.
const PATIENCE_GROWS: u64 = 32;
/// Whoever is back may bring back whom this node lost so much earlier or later: verdicts take a while to get around.
const LOST_TOGETHER: Duration = Duration::from_secs(60);
/// Most former peers that one return makes this node ask.
const MAX_ROUND: usize = 32;
/// How long news of strangers next to this node are gathered before its neighbours hear of them: they come in bursts.
const ZIP_GATHERS: Duration = Duration::from_millis(50);
/// Neighbours that strangers displaced while news are gathered; who stood between them and this node tells the others.
const MAX_DISPLACED: usize = 4;

/// What a node does to find its ring's other part, and to grow together with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Merge {
    /// The number of the last question to a former peer or a seed.
    asked: Option<u64>,
    /// Ring neighbours displaced by strangers that came without a slot, to be told of them.
    displaced: Vec<Peer>,
}

impl Node {
    /// Sets the time of the next question to a former peer or a seed: soon for a node alone.
    pub(super) fn plan_asking(&mut self, now: Instant) {
        let mean = if self.leaf_set.is_empty() {
            self.config.ask_again
        } else {
            let ring = u32::try_from(self.ring_size()).unwrap_or(u32::MAX);
            match self.former.last_loss() {
                Some(lost) => {
                    let grown = Duration::from_nanos((now - lost).as_nanos() as u64 / PATIENCE_GROWS);
                    (self.config.lease / RING_ASKS_LOST)
                        .saturating_mul(ring)
                        .max(MIN_LOST)
                        .max(grown)
                        .min(MAX_LOST)
                }
                None => RING_ASKS_SEEDS.saturating_mul(ring).max(MIN_SEEDS).min(MAX_SEEDS),
            }
        };
        let wait = self.jittered(mean);
        self.deadlines.set_earlier(Timer::AskAgain, now + wait);
    }

    /// How many nodes there are on the ring, by how dense they stand around this one.
    pub(super) fn ring_size(&self) -> u128 {
        let members = self.leaf_set.len();
        match (self.leaf_set.lefts().last(), self.leaf_set.rights().last()) {
            (Some(left), Some(right)) if members >= self.config.leaf_set => {
                let span = left.id.key().clockwise_to(right.id);
                u128::MAX / (span / members as u128).max(1)
            }
            _ => members as u128 + 1,
        }
    }

    /// Alone in its ring, a node asks all its seeds, and those that once stood around it; others ask one of them.
    pub(super) fn on_ask_again(&mut self, now: Instant) {
        self.plan_asking(now);
        if !self.leaf_set.is_empty() {
            if let Some(seed) = self.whom_to_ask(now) {
                self.merge.asked = Some(self.ask(seed));
            }
            return;
        }
        let Bootstrap { join, local, remembered } = &self.bootstrap;
        let mut seeds: Vec<Seed> = join.iter().chain(local).chain(remembered).copied().collect();
        seeds.extend(self.former.take_turns());
        for seed in seeds {
            if self.is_elsewhere(&seed) {
                self.ask(seed);
            }
        }
    }

    /// A former peer, or a seed that is not known to be on this node's ring.
    fn whom_to_ask(&mut self, now: Instant) -> Option<Seed> {
        let lost = self.former.any(&mut self.rng).filter(|peer| self.former.may_try(now, peer.id));
        let Bootstrap { join, local, remembered } = &self.bootstrap;
        let seeds = join.iter().chain(local).chain(remembered);
        let unknown = seeds.filter(|seed| self.is_elsewhere(seed) && !self.is_known(seed)).copied();
        let unknown: Vec<Seed> = unknown.collect();
        match (lost, unknown.choose(&mut self.rng)) {
            (Some(lost), Some(_)) if self.rng.random_range(0..4) > 0 => Some(lost.into()),
            (lost, seed) => seed.copied().or(lost.map(Seed::from)),
        }
    }

    fn is_elsewhere(&self, seed: &Seed) -> bool {
        seed.addr != self.me.addr && seed.addr != Addr::Unreachable && seed.id != Some(self.me.id)
    }

    fn is_known(&self, seed: &Seed) -> bool {
        let mut known = self.leaf_set.iter().chain(self.table.iter()).chain(self.members.iter());
        known.any(|peer| peer.addr == seed.addr)
    }

    /// Somebody says that a peer lives that this node found dead: a question of a single frame finds out. Returns whether
    /// it was one of those.
    pub(super) fn try_lost(&mut self, now: Instant, peer: Peer) -> bool {
        let is_lost = self.former.contains(peer);
        if is_lost && self.former.may_try(now, peer.id) {
            self.ask(peer.into());
        }
        is_lost
    }

    /// A ready node has answered the question of this number (0: it announces itself).
    pub(super) fn meet_answering(&mut self, now: Instant, from: Peer, number: u64) {
        let lost = if number == 0 { None } else { self.former.forget(from.id) };
        self.meet(now, from);
        if self.merge.asked.take_if(|asked| *asked == number).is_some() && !self.leaf_set.contains(from.id) {
            // Its ring may be another one: who stands around this node's id there?
            let id = self.number();
            self.seek_through(now, from, id);
        }
        let Some(lost) = lost else { return };
        tracing::debug!(node = %self.me.id, peer = %from.id, "back");
        let others = self.former.lost_about(lost, LOST_TOGETHER);
        for peer in others.into_iter().take(MAX_ROUND) {
            self.try_lost(now, peer);
        }
    }

    /// A node that had no slot of this one has become its ring neighbour, in place of one of `before`.
    pub(super) fn zip(&mut self, now: Instant, before: &[Peer]) {
        for &peer in before {
            let is_noted = self.merge.displaced.iter().any(|displaced| displaced.id == peer.id);
            if !is_noted && self.merge.displaced.len() < MAX_DISPLACED {
                self.merge.displaced.push(peer);
            }
        }
        self.deadlines.set_earlier(Timer::Zip, now + ZIP_GATHERS);
        self.be_young(now);
    }

    /// Leaf sets are exchanged with the ring neighbours, those that were it before, and the ends of the leaf set.
    pub(super) fn on_zip_timer(&mut self, now: Instant) {
        let mut told = std::mem::take(&mut self.merge.displaced);
        told.retain(|peer| self.leaf_set.contains(peer.id));
        told.extend(Side::BOTH.into_iter().filter_map(|side| self.leaf_set.side(side).last()));
        told.extend(self.neighbours());
        told.sort_unstable_by_key(|peer| peer.id);
        told.dedup_by_key(|peer| peer.id);
        for peer in told {
            self.tell_members(now, peer, true);
        }
    }
}

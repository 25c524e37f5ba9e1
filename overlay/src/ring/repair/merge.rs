//! Rings that lost each other, or never met, become one (design §5, partitions; promise O3). Published Pastry has nothing
//! for it: two halves that each closed their gaps never look back.
//!
//! *Finding*: all nodes of a ring together ask a few lost peers or seeds a second, whatever the ring's size, so a ring
//! that grows pays less a node. *Proof*: a peer that was found dead is back when it has answered a question, not when it
//! is heard: where only one direction is broken, its frames arrive and its answers do not. *Round*: a peer that is back was
//! seldom lost alone, so those lost at about the same time are asked at once; they ask in turn, and the news runs around the
//! ring in steps of half a leaf set. *Stitch*: where a stranger becomes a ring neighbour, leaf sets are exchanged with it,
//! with the neighbour that it displaced, and with the ends of the leaf set, so both rings are woven into each other from
//! every place where they touch (Shafaat, Ghodsi & Haridi 2007, "Handling Network Partitions and Mergers in Structured
//! Overlay Networks", whose gentle algorithm does the same with queues of passed-on nodes).

use std::hash::{Hash, Hasher};
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use super::LostPeers;
use crate::memory;
use crate::peer::{Peer, Seed};
use crate::ring::core::{Core, Timer};
use crate::ring::invariants::Size;
use crate::ring::tables::Tables;
use crate::sides::Side;
use crate::time::Instant;

/// How often any of all the nodes of a ring asks a lost peer, in the time of a lease: halves of a ring that found each
/// other again wait for each other's leases anyway.
const RING_ASKS_LOST: u32 = 40;
/// The same for seeds of which this node does not know that they are on its ring.
const RING_ASKS_SEEDS: Duration = Duration::from_secs(2);
/// How often one node asks lost peers at most, in the mean.
const MIN_LOST: Duration = Duration::from_secs(10);
/// How often one node asks seeds at most, in the mean.
const MIN_SEEDS: Duration = Duration::from_secs(60);
/// How often it asks lost peers at least, in the mean.
const MAX_LOST: Duration = Duration::from_secs(1800);
/// How often it asks seeds at least, in the mean: one that is on this ring costs a search each time.
const MAX_SEEDS: Duration = Duration::from_secs(1800);
/// The longer nothing was lost, the more seldom: after this share of that time.
const PATIENCE_GROWS: u64 = 32;
/// A peer that is back may bring back those that this node lost so much earlier or later: deaths take a while to get around.
const LOST_TOGETHER: Duration = Duration::from_secs(60);
/// Most lost peers that one return makes this node ask.
const MAX_ROUND: usize = 32;
/// How long news of strangers next to this node are gathered before its neighbours hear of them: they come in bursts.
const STITCH_GATHERS: Duration = Duration::from_millis(50);
/// Neighbours that strangers displaced while news are gathered; the one that stood between them and this node tells the
/// others.
const MAX_DISPLACED: usize = 4;

/// The search for the other part of this node's ring, and the merge with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merge {
    pub(crate) lost: LostPeers,
    /// The number of the last question to a lost peer or a seed.
    asked: Option<u64>,
    /// Ring neighbours displaced by strangers that came without a slot, to be told of them.
    displaced: Vec<Peer>,
}

impl Hash for Merge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.asked, &self.displaced, &self.lost).hash(state);
    }
}

impl Merge {
    /// Sets the time of the next question to a lost peer or a seed: soon for a node alone.
    pub(crate) fn plan(&self, now: Instant, core: &mut Core, tables: &Tables) {
        let mean = if tables.leaf_set.is_empty() {
            core.config.join.ask_again
        } else {
            let ring = u32::try_from(tables.leaf_set.ring_size()).unwrap_or(u32::MAX);
            match self.lost.last_loss() {
                Some(lost) => {
                    let grown = Duration::from_nanos((now - lost).as_nanos() as u64 / PATIENCE_GROWS);
                    (core.config.leases.duration / RING_ASKS_LOST)
                        .saturating_mul(ring)
                        .max(MIN_LOST)
                        .max(grown)
                        .min(MAX_LOST)
                }
                None => RING_ASKS_SEEDS.saturating_mul(ring).max(MIN_SEEDS).min(MAX_SEEDS),
            }
        };
        let wait = core.jittered(mean);
        core.timers.set_earlier(Timer::AskAgain, now + wait);
    }

    /// Asks a lost peer, or one of the seeds that are not known to be on this node's ring.
    pub(crate) fn ask_one(&mut self, now: Instant, core: &mut Core, unknown: Vec<Seed>) {
        let lost = self.lost.any(&mut core.rng).filter(|peer| self.lost.may_try(now, peer.id));
        let chosen = match (lost, unknown.choose(&mut core.rng)) {
            (Some(lost), Some(_)) if core.rng.random_range(0..4) > 0 => Some(lost.into()),
            (lost, seed) => seed.copied().or(lost.map(Seed::from)),
        };
        if let Some(seed) = chosen {
            self.asked = Some(core.ask_seed(seed));
        }
    }

    /// Another node says that a peer lives that this node found dead: a question of a single frame finds out. Returns whether
    /// it was one of those.
    pub(crate) fn try_lost(&mut self, now: Instant, core: &mut Core, peer: Peer) -> bool {
        let is_lost = self.lost.contains(peer);
        if is_lost && self.lost.may_try(now, peer.id) {
            core.ask_seed(peer.into());
        }
        is_lost
    }

    /// Whether this is the answer to the last question.
    pub(crate) fn take_answer(&mut self, number: u64) -> bool {
        self.asked.take_if(|asked| *asked == number).is_some()
    }

    /// A lost peer is back: asks those that were lost at about the same time.
    pub(crate) fn ask_lost_with(&mut self, now: Instant, core: &mut Core, when: Instant) {
        for peer in self.lost.lost_about(when, LOST_TOGETHER).into_iter().take(MAX_ROUND) {
            self.try_lost(now, core, peer);
        }
    }

    /// A node that had no slot of this one has become its ring neighbour, in place of one of `before`.
    pub(crate) fn stitch(&mut self, now: Instant, core: &mut Core, before: &[Peer]) {
        for &peer in before {
            let is_noted = self.displaced.iter().any(|displaced| displaced.id == peer.id);
            if !is_noted && self.displaced.len() < MAX_DISPLACED {
                self.displaced.push(peer);
            }
        }
        core.timers.set_earlier(Timer::Stitch, now + STITCH_GATHERS);
    }

    /// The nodes with which leaf sets are exchanged: the ring neighbours, those that were it before, and the ends of the leaf
    /// set.
    pub(crate) fn take_stitched(&mut self, tables: &Tables) -> Vec<Peer> {
        let leaf_set = &tables.leaf_set;
        let mut told = std::mem::take(&mut self.displaced);
        told.retain(|peer| leaf_set.contains(peer.id));
        told.extend(Side::BOTH.into_iter().filter_map(|side| leaf_set.side(side).last()));
        told.extend(leaf_set.ring_neighbours());
        told.sort_unstable_by_key(|peer| peer.id);
        told.dedup_by_key(|peer| peer.id);
        told
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        self.lost.bytes() + memory::list(&self.displaced)
    }

    /// How many are remembered (promise O5).
    pub(crate) fn size(&self) -> Size {
        self.lost.size()
    }
}

//! What is to be remembered of a world so that its rings can be judged: who failed when, who stands on which side,
//! which lookups wait for their answer.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::Found;
use treecast_overlay::time::Instant;

/// How long after a failure more than half of one side of a leaf set may be repaired (promise O1's excuse).
pub const REPAIR_LIMIT: Duration = Duration::from_secs(60);

/// A lookup that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Where it was asked.
    pub slot: usize,
    /// In which life of that slot.
    pub life: u64,
    /// When.
    pub at: Instant,
    /// Its origin is paused: it waits for nothing.
    pub origin_runs: bool,
}

/// A lookup whose origin lived and heard that there is no answer.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What was asked, and by whom.
    pub asked: Asked,
    /// What it was told.
    pub why: String,
}

/// Lookups so far.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    /// By their numbers.
    pub open: BTreeMap<u64, Asked>,
    /// Those that came to nothing.
    pub failed: Vec<Failed>,
    /// How many were answered.
    pub found: u64,
    /// Their hops, together.
    pub hops: u64,
    /// The slowest answer.
    pub slowest: Duration,
}

impl Lookups {
    /// An answer came.
    pub fn on_found(&mut self, at: Instant, token: u64, found: &Found) {
        let Some(asked) = self.open.remove(&token) else { return };
        self.found += 1;
        self.hops += u64::from(found.hops);
        self.slowest = self.slowest.max(at - asked.at);
    }

    /// There is no answer.
    pub fn on_not_found(&mut self, token: u64, why: String) {
        if let Some(asked) = self.open.remove(&token) {
            self.failed.push(Failed { asked, why });
        }
    }
}

/// What is remembered of a world's rings.
#[derive(Clone, Debug)]
pub struct Watch {
    /// When nodes crashed or paused, by id.
    pub failures: Vec<(Instant, NodeId)>,
    /// Which side each slot stands on; slots beyond the list, and all slots without a partition: 0.
    pub sides: Vec<u8>,
    /// When a side last fell apart: to each part the others failed together.
    pub parted: Option<Instant>,
    /// Promise O1 rests: rings that were apart find each other again.
    pub merging: bool,
    /// Members of a leaf set, as the world was told.
    pub leaf_set: usize,
    /// Lookups.
    pub lookups: Lookups,
    /// Faults of O1 that were excused so far.
    pub excused: Cell<u64>,
}

impl Watch {
    /// Nothing has happened.
    pub fn new(leaf_set: usize) -> Watch {
        Watch {
            failures: Vec::new(),
            sides: Vec::new(),
            parted: None,
            merging: false,
            leaf_set,
            lookups: Lookups::default(),
            excused: Cell::new(0),
        }
    }

    /// The side of a slot.
    pub fn side(&self, slot: usize) -> u8 {
        self.sides.get(slot).copied().unwrap_or_default()
    }

    /// Promise O1's excuse: around a key, more than half of one side of the leaf set failed within the last minute.
    /// `ready`: the nodes on the ring; `beyond`: those of them that stand on another side than the one in question.
    pub fn is_excused(&self, now: Instant, key: Key, ready: &[NodeId], beyond: &[NodeId]) -> bool {
        if self.merging {
            return true;
        }
        let parted = self.parted.is_some_and(|at| now - at < REPAIR_LIMIT);
        let recently = |id: NodeId| {
            self.failures.iter().any(|&(at, other)| other == id && now - at < REPAIR_LIMIT)
                || parted && beyond.contains(&id)
        };
        let mut ids: Vec<NodeId> = ready.to_vec();
        ids.extend(self.failures.iter().map(|&(_, id)| id));
        let side = |order: &dyn Fn(NodeId) -> u128| {
            let mut side = ids.clone();
            side.sort_by_key(|&id| order(id));
            side.dedup();
            side.truncate(self.leaf_set / 2);
            let failed = side.iter().filter(|&&id| recently(id)).count();
            failed * 2 > side.len()
        };
        side(&|id| key.clockwise_to(id)) || side(&|id| id.key().clockwise_to(key))
    }
}

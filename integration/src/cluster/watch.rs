//! The past of a world, as far as judges of its rings need it: which nodes failed when, and which stand on which
//! side.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::time::Instant;

/// How long after a failure more than half of one side of a leaf set may be repaired (promise O1's excuse).
pub const REPAIR_LIMIT: Duration = Duration::from_secs(60);

/// The past of a world's rings.
#[derive(Clone, Debug)]
pub struct Watch {
    /// When nodes crashed or paused, by id.
    pub failures: Vec<(Instant, NodeId)>,
    /// Which side each slot stands on; slots beyond the list, and all slots without a partition: 0.
    pub sides: Vec<u8>,
    /// Likewise, until an instant.
    pub past_sides: Vec<(Instant, Vec<u8>)>,
    /// Lives of nodes that are over: ids and incarnations.
    pub ended: BTreeSet<(NodeId, u64)>,
    /// When a side last fell apart: to each part the others failed together.
    pub parted: Option<Instant>,
    /// Promise O1 rests: rings that were apart find each other again.
    pub merging: bool,
    /// Members of a leaf set, as the world was told.
    pub leaf_set: usize,
    /// Faults of O1 that were excused so far.
    pub excused: Cell<u64>,
}

impl Watch {
    /// Nothing has happened.
    pub fn new(leaf_set: usize) -> Watch {
        Watch {
            failures: Vec::new(),
            sides: Vec::new(),
            past_sides: Vec::new(),
            ended: BTreeSet::new(),
            parted: None,
            merging: false,
            leaf_set,
            excused: Cell::new(0),
        }
    }

    /// The side of a slot.
    pub fn side(&self, slot: usize) -> u8 {
        self.sides.get(slot).copied().unwrap_or_default()
    }

    /// Whether a node may have been found dead by the one in a slot: its life is over, or it did nothing in time or stood
    /// on another side within the last minute.
    pub fn may_be_found_dead(&self, now: Instant, peer: &Peer, by: usize) -> bool {
        let recent = |at: Instant| now - at < REPAIR_LIMIT;
        let apart = |sides: &[u8]| match peer.addr {
            Addr::Memory(slot) => sides.get(slot as usize).unwrap_or(&0) != sides.get(by).unwrap_or(&0),
            Addr::Socket(_) | Addr::Unreachable => false,
        };
        self.ended.contains(&(peer.id, peer.incarnation))
            || self.failures.iter().any(|&(at, id)| id == peer.id && recent(at))
            || apart(&self.sides)
            || self.past_sides.iter().any(|(until, sides)| recent(*until) && apart(sides))
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

//! Pastry's three tables (Pastry §2.1) as pure data: no clock, no messages, no opinion on which node is alive.
//!
//! Each is one sorted `Vec`: many thousands of nodes may live in one process. Ties that the ring does not settle are
//! broken by `id XOR own id`: the same in every run, but another order at every node, so that equally good candidates
//! share the load (design §5).

mod leaf_set;
mod neighbourhood;
mod routing_table;
#[cfg(test)]
mod tests;

pub use leaf_set::LeafSet;
pub use neighbourhood::NeighbourhoodSet;
pub use routing_table::RoutingTable;

use std::cmp::Ordering;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::id::NodeId;
use crate::peer::Peer;

/// A peer and its measured nearness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The peer.
    pub peer: Peer,
    rtt_micros: Option<NonZeroU32>,
    /// It says that it stands in too many tables.
    crowded: bool,
}

// A node of a ring of 100,000 has about 180 entries with three candidates a slot.
const _: () = assert!(size_of::<Entry>() <= 56, "the memory of large simulated rings is counted on this");

impl Entry {
    fn new(peer: Peer, rtt: Option<Duration>) -> Entry {
        Entry { peer, rtt_micros: rtt.map(micros), crowded: false }
    }

    /// The round-trip time to it, 1 µs to 71 minutes in whole microseconds; `None` if it was not measured.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt_micros.map(|micros| Duration::from_micros(u64::from(micros.get())))
    }

    /// The same in microseconds.
    pub fn rtt_micros(&self) -> Option<u32> {
        self.rtt_micros.map(NonZeroU32::get)
    }

    /// The weight of this entry's round-trip time where there is a choice, in microseconds: that of a crowded node half
    /// as much again (an in-degree cap that costs little; a guess).
    pub fn weight(&self) -> Option<u32> {
        let micros = self.rtt_micros()?;
        Some(if self.crowded { micros.saturating_add(micros / 2) } else { micros })
    }

    /// Orders the nearer first: measured before unmeasured, then by weight. Equal for equally near ones.
    fn nearer(&self, other: &Entry) -> Ordering {
        let key = |entry: &Entry| (entry.rtt_micros.is_none(), entry.weight());
        key(self).cmp(&key(other))
    }

    /// [`nearer`](Entry::nearer) made total, in an order of `me`'s own.
    fn rank(&self, other: &Entry, me: NodeId) -> Ordering {
        self.nearer(other).then((self.peer.id.0 ^ me.0).cmp(&(other.peer.id.0 ^ me.0)))
    }

    /// Takes in what is newly known of the same node; returns whether anything changed. Words about an older
    /// incarnation are void; a newer one is another process, whose nearness is only what was measured of it.
    fn refresh(&mut self, new: Entry) -> bool {
        debug_assert_eq!(self.peer.id, new.peer.id);
        let refreshed = match new.peer.incarnation.cmp(&self.peer.incarnation) {
            Ordering::Less => *self,
            Ordering::Equal => Entry { rtt_micros: new.rtt_micros.or(self.rtt_micros), ..*self },
            Ordering::Greater => new,
        };
        std::mem::replace(self, refreshed) != refreshed
    }
}

fn micros(rtt: Duration) -> NonZeroU32 {
    let micros = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
    NonZeroU32::new(micros).unwrap_or(NonZeroU32::MIN)
}

/// Makes room for one more without doubling: tables are small, and many.
pub(crate) fn reserve_one<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(1 + list.len() / 8);
    }
}

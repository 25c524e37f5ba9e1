//! What is still to come, ordered by (time, sequence): two things of one instant happen in the order in which they
//! were scheduled, so that a run is the same twice.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::machine::{Refusal, StoreToken};
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Frame;

/// Something that will happen. Small, because the heap moves it about: the big parts are boxed.
#[derive(Debug)]
pub(super) enum Happening {
    /// A node's deadline may have come. Stale unless the slot still holds this ticket.
    Wake { slot: u32, ticket: u32 },
    /// A frame reaches a slot.
    Arrival(Box<Arrival>),
    /// A node hears something that is no frame.
    Notice(Box<Notice>),
}

/// A frame in flight.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) from: u32,
    /// Which life of its slot sent it: answers to an earlier life reach nobody.
    pub(super) from_life: u32,
    pub(super) to: u32,
    /// The sender, as it was when it sent.
    pub(super) peer: Peer,
    /// Who must be there, if the sender knew.
    pub(super) want: Option<NodeId>,
    pub(super) generation: u64,
    /// The sender does not know of a connection yet: this frame opens one.
    pub(super) dials: bool,
    pub(super) frame: Frame,
    /// The encoded header, for the trace.
    pub(super) head: Bytes,
}

/// Something that one life of a slot hears.
#[derive(Debug)]
pub(super) struct Notice {
    pub(super) slot: u32,
    pub(super) life: u32,
    pub(super) word: Word,
}

#[derive(Debug)]
pub(super) enum Word {
    /// The node in slot `by` took the connection that this one dialled.
    Accepted { by: u32, peer: Peer, generation: u64 },
    /// The host of slot `by` says that there is no such connection, or none any more.
    Closed { by: u32, generation: u64 },
    /// A dial came to nothing. `dial` names the slot and the generation, unless nothing was sent at all.
    Refused { dial: Option<(u32, u64)>, addr: Addr, id: Option<NodeId>, reason: Refusal },
    /// A record is on disk.
    Stored(StoreToken),
}

#[derive(Debug)]
struct Item {
    at: Instant,
    sequence: u64,
    happening: Happening,
}

/// The heap.
#[derive(Debug, Default)]
pub(super) struct Queue {
    heap: BinaryHeap<Item>,
    sequence: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Instant, happening: Happening) {
        self.sequence += 1;
        self.heap.push(Item { at, sequence: self.sequence, happening });
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|item| item.at)
    }

    pub(super) fn pop(&mut self) -> Option<(Instant, Happening)> {
        self.heap.pop().map(|item| (item.at, item.happening))
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}

// Reversed: `BinaryHeap` gives the greatest first, and the earliest is wanted.
impl Ord for Item {
    fn cmp(&self, other: &Item) -> Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Item) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Item) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Item {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_what_was_scheduled_first() {
        let mut queue = Queue::default();
        for (at, slot) in [(5, 0), (3, 1), (5, 2), (3, 3), (4, 4)] {
            queue.push(Instant::from_nanos(at), Happening::Wake { slot, ticket: 0 });
        }
        let mut order = Vec::new();
        while let Some((_, happening)) = queue.pop() {
            let Happening::Wake { slot, .. } = happening else { unreachable!("only wakes were pushed") };
            order.push(slot);
        }
        assert_eq!(order, [1, 3, 4, 0, 2]);
    }

    #[test]
    fn the_heap_moves_little() {
        assert!(size_of::<Item>() <= 32, "{} bytes", size_of::<Item>());
    }
}

//! All that is still to come, ordered by (time, sequence): two things of one instant happen in the order in which they
//! were scheduled, so that a run is the same twice.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::machine::{Refusal, StoreToken};
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Frame;

use super::trace::Note;

/// Something that will happen. Small, because the queue moves it about: the big parts are boxed.
#[derive(Debug)]
pub(super) enum Happening {
    /// A node's deadline may have come. Stale unless the slot still holds this ticket.
    Wake { slot: u32, ticket: u32 },
    /// A turn of a node ends late.
    TurnEnd { slot: u32, life: u32 },
    /// A slow node has finished with a frame.
    Free { slot: u32 },
    /// A frame has left over a limited uplink.
    Sent { slot: u32, departure: u32 },
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
    /// The node that must be there, if the sender knew.
    pub(super) want: Option<NodeId>,
    pub(super) generation: u64,
    /// The sender does not know of a connection yet: this frame opens one.
    pub(super) dials: bool,
    pub(super) frame: Frame,
    /// The trace's note of it.
    pub(super) note: Note,
    /// How much longer it takes than the network does: an observer holds it back.
    pub(super) late: Duration,
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
    /// The data that waits for a peer on the uplink has moved by a step.
    Queued(NodeId),
    /// A record is on disk.
    Stored(StoreToken),
}

#[derive(Debug)]
struct Item {
    at: Instant,
    sequence: u64,
    happening: Happening,
}

/// A bucket is 2^20 ns wide, about a millisecond: few enough things to sort cheaply, even with 100,000 nodes.
const WIDTH: u32 = 20;
/// Buckets of the wheel: 4.3 s. Beyond are leases and periodic repair, which are few.
const BUCKETS: usize = 4096;
/// A bucket that had room for more than this gives it back.
const KEPT_ROOM: usize = 4096;

/// A wheel of buckets with a heap at either end (a calendar queue, Brown 1988): what is due next is in a small heap,
/// what comes soon lies unsorted in its bucket, the rest is in a large heap.
#[derive(Debug)]
pub(super) struct Queue {
    /// All up to bucket `turned`.
    near: BinaryHeap<Item>,
    turned: u64,
    /// The buckets after `turned`, each at its number modulo their count.
    wheel: Vec<Vec<Item>>,
    /// Which of them have anything, a bit for each.
    filled: [u64; BUCKETS / 64],
    /// All beyond the wheel.
    far: BinaryHeap<Item>,
    len: usize,
    sequence: u64,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            near: BinaryHeap::new(),
            turned: 0,
            wheel: (0..BUCKETS).map(|_| Vec::new()).collect(),
            filled: [0; BUCKETS / 64],
            far: BinaryHeap::new(),
            len: 0,
            sequence: 0,
        }
    }
}

impl Queue {
    pub(super) fn push(&mut self, at: Instant, happening: Happening) {
        self.sequence += 1;
        self.len += 1;
        self.sort_in(Item { at, sequence: self.sequence, happening });
    }

    /// When the first thing at hand is due; nothing is at hand before [`turn`](Queue::turn) has seen to it.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.near.peek().map(|item| item.at)
    }

    /// Sees to it that what is due next is at hand. Says whether a bucket was opened.
    pub(super) fn turn(&mut self) -> bool {
        let empty = self.near.is_empty();
        if empty {
            self.open_next();
        }
        empty
    }

    /// The slots that the things at hand concern.
    pub(super) fn concerned(&self) -> impl Iterator<Item = usize> {
        self.near.iter().map(|item| match &item.happening {
            Happening::Wake { slot, .. }
            | Happening::TurnEnd { slot, .. }
            | Happening::Free { slot }
            | Happening::Sent { slot, .. } => *slot as usize,
            Happening::Arrival(arrival) => arrival.to as usize,
            Happening::Notice(notice) => notice.slot as usize,
        })
    }

    pub(super) fn pop(&mut self) -> Option<(Instant, Happening)> {
        self.turn();
        let item = self.near.pop()?;
        self.len -= 1;
        Some((item.at, item.happening))
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory, frames in flight included but for their payloads.
    pub(super) fn bytes(&self) -> usize {
        let wheel: usize = self.wheel.iter().map(Vec::capacity).sum();
        (wheel + self.near.capacity() + self.far.capacity()) * size_of::<Item>()
            + BUCKETS * size_of::<Vec<Item>>()
            + self.flying().count() * size_of::<Arrival>()
    }

    fn flying(&self) -> impl Iterator<Item = &Item> {
        let all = self.near.iter().chain(self.wheel.iter().flatten()).chain(&self.far);
        all.filter(|item| matches!(item.happening, Happening::Arrival(_)))
    }

    fn sort_in(&mut self, item: Item) {
        let bucket = bucket(item.at);
        if bucket <= self.turned {
            self.near.push(item);
        } else if bucket - self.turned < BUCKETS as u64 {
            let place = bucket as usize % BUCKETS;
            self.filled[place / 64] |= 1 << (place % 64);
            self.wheel[place].push(item);
        } else {
            self.far.push(item);
        }
    }

    /// Turns the wheel to the next bucket that has anything.
    fn open_next(&mut self) {
        let next = self.next_filled().or_else(|| self.far.peek().map(|item| bucket(item.at)));
        let Some(next) = next else { return };
        self.turned = next;
        while self.far.peek().is_some_and(|item| bucket(item.at) - next < BUCKETS as u64) {
            if let Some(item) = self.far.pop() {
                self.sort_in(item);
            }
        }
        let place = next as usize % BUCKETS;
        self.filled[place / 64] &= !(1 << (place % 64));
        let mut due = std::mem::take(&mut self.wheel[place]);
        self.near.extend(due.drain(..));
        if due.capacity() <= KEPT_ROOM {
            self.wheel[place] = due;
        }
    }

    fn next_filled(&self) -> Option<u64> {
        let first = self.turned as usize % BUCKETS + 1;
        // Once round; the word in which the search begins is looked at twice, for its upper and its lower bits.
        (0..=self.filled.len()).find_map(|step| {
            let word = (first / 64 + step) % self.filled.len();
            let mask = match step {
                0 if first / 64 == self.filled.len() => !0,
                0 => !0 << (first % 64),
                _ => !0,
            };
            let bits = self.filled[word] & mask;
            (bits != 0).then(|| {
                let place = (word * 64) as u64 + u64::from(bits.trailing_zeros());
                self.turned + (place + BUCKETS as u64 - self.turned % BUCKETS as u64) % BUCKETS as u64
            })
        })
    }
}

fn bucket(at: Instant) -> u64 {
    at.as_nanos() >> WIDTH
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
    use std::cmp::Reverse;

    use rand::RngExt;
    use treecast_overlay::random;

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

    /// Against a plain heap, with times far and near, while time passes.
    #[test]
    fn the_wheel_keeps_the_order_of_a_heap() {
        let mut dice = random::stream(&[1; 32], "queue");
        let (mut queue, mut heap) = (Queue::default(), BinaryHeap::new());
        let (mut now, mut number) = (0, 0);
        for round in 0..60_000 {
            let filling = (round / 5000) % 2 == 0;
            if dice.random_bool(if filling { 0.7 } else { 0.3 }) {
                let reach = [0, 1000, 1 << 20, 1 << 27, 5 << 30, 1 << 38][dice.random_range(0..6)];
                let at = now + dice.random_range(0..=reach);
                number += 1;
                queue.push(Instant::from_nanos(at), Happening::Wake { slot: number, ticket: 0 });
                heap.push(Reverse((at, number)));
            } else {
                let expected = heap.pop().map(|Reverse(item)| item);
                let popped = queue.pop().map(|(at, happening)| {
                    let Happening::Wake { slot, .. } = happening else {
                        unreachable!("only wakes were pushed")
                    };
                    (at.as_nanos(), slot)
                });
                assert_eq!(popped, expected);
                now = popped.map_or(now, |(at, _)| at);
                if dice.random_bool(0.5) {
                    // Looking ahead turns the wheel, and must not lose what comes before.
                    queue.turn();
                    assert_eq!(
                        queue.next_at().map(Instant::as_nanos),
                        heap.peek().map(|Reverse((at, _))| *at)
                    );
                }
            }
            assert_eq!(queue.len(), heap.len());
        }
        assert!(now > 1 << 38 && number > 25_000, "{now} {number}");
    }

    #[test]
    fn the_queue_moves_little() {
        assert!(size_of::<Item>() <= 32, "{} bytes", size_of::<Item>());
    }
}

//! Lives that have ended: found dead by this node, or ended by a farewell of their own.

use std::collections::VecDeque;

use std::time::Duration;

use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::ring::invariants::Size;
use crate::time::Instant;

/// Most dead nodes that are remembered; beyond it the oldest are forgotten, and may return when others name them.
const MAX_DEAD: usize = 512;
/// Most nodes remembered that have left; beyond it the oldest are forgotten, and a frame of theirs that comes that late
/// brings them back until a probe finds them dead.
const MAX_LEFT: usize = 512;
/// How long a node that has left is remembered: no frame that it sent before comes later than that.
const LEFT_FOR: Duration = Duration::from_secs(600);

/// The dead and the gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct EndedLives {
    /// Found dead: (id, incarnation, until when it is not enough that others name them), oldest first.
    dead: VecDeque<(NodeId, u64, Instant)>,
    /// Lives that have ended by a farewell, and until when that is remembered, oldest first: nothing that comes late brings
    /// them back.
    left: VecDeque<(NodeId, u64, Instant)>,
}

impl EndedLives {
    /// Whether this incarnation, or a later one, was found dead a short while ago, or has left.
    pub(super) fn contains(&self, now: Instant, peer: &Peer) -> bool {
        let is_dead = |&(id, incarnation, until): &(NodeId, u64, Instant)| {
            id == peer.id && incarnation >= peer.incarnation && until > now
        };
        self.dead.iter().any(is_dead) || self.has_left(peer)
    }

    /// Whether this incarnation, or a later one, has said that it leaves.
    pub(super) fn has_left(&self, peer: &Peer) -> bool {
        self.left.iter().any(|&(id, incarnation, _)| id == peer.id && incarnation >= peer.incarnation)
    }

    pub(super) fn mark_left(&mut self, now: Instant, peer: Peer) {
        self.left.retain(|&(left, ..)| left != peer.id);
        if self.left.len() == MAX_LEFT {
            self.left.pop_front();
        }
        self.left.push_back((peer.id, peer.incarnation, now + LEFT_FOR));
    }

    pub(super) fn mark_dead(&mut self, id: NodeId, incarnation: u64, until: Instant) {
        self.dead.retain(|&(dead, _, _)| dead != id);
        if self.dead.len() == MAX_DEAD {
            self.dead.pop_front();
        }
        self.dead.push_back((id, incarnation, until));
    }

    /// This node was the one that could not be reached: nothing that it found out counts.
    pub(super) fn clear_all_dead(&mut self) {
        self.dead.clear();
    }

    /// The node itself was heard, in this incarnation or a later one: it is not dead. Or a node near it names it, and it
    /// deserves another look. Returns whether an earlier incarnation was found dead.
    pub(super) fn clear_dead(&mut self, peer: Peer) -> bool {
        let mut earlier = false;
        self.dead.retain(|&(id, incarnation, _)| {
            let is_cleared = id == peer.id && incarnation <= peer.incarnation;
            earlier |= is_cleared && incarnation < peer.incarnation;
            !is_cleared
        });
        earlier
    }

    /// Forgets those whose time is over, and gives back what a burst has taken.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.dead.retain(|&(.., until)| until > now);
        self.left.retain(|&(.., until)| until > now);
        self.dead.shrink_to_fit();
        self.left.shrink_to_fit();
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::queue(&self.dead) + memory::queue(&self.left)
    }

    /// How many are remembered (promise O5).
    pub(super) fn sizes(&self) -> [Size; 2] {
        [("peers found dead", self.dead.len(), MAX_DEAD), ("peers that left", self.left.len(), MAX_LEFT)]
    }
}

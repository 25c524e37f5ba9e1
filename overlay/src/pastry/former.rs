//! Ring nodes that this node once knew: asked again when it finds itself alone, or its join has to start over.

use std::collections::VecDeque;

use super::invariants::Size;
use crate::memory;
use crate::peer::{Peer, Seed};

/// Most former peers remembered; beyond it the oldest are forgotten.
const MAX_FORMER: usize = 64;
/// Of those, how many are asked at a time: they take turns.
const ASKED_AT_ONCE: usize = 8;

/// Former peers, the one to be asked next first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Former {
    peers: VecDeque<Peer>,
}

impl Former {
    /// Remembers a peer, to be asked first.
    pub(super) fn note(&mut self, peer: Peer) {
        self.peers.retain(|known| known.id != peer.id);
        self.peers.push_front(peer);
        self.peers.truncate(MAX_FORMER);
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::queue(&self.peers)
    }

    /// How many are remembered (promise O5).
    pub(super) fn size(&self) -> Size {
        ("former peers", self.peers.len(), MAX_FORMER)
    }

    /// Some of them; the next ones when called again.
    pub(super) fn take_turns(&mut self) -> Vec<Seed> {
        let turn = self.peers.len().min(ASKED_AT_ONCE);
        let asked = self.peers.iter().take(turn).map(|&peer| peer.into()).collect();
        self.peers.rotate_left(turn);
        asked
    }
}

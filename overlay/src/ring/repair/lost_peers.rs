//! Ring nodes that this node once knew. They are asked again when it finds itself alone, when its join has to start over,
//! and now and then because they may live on in a ring of their own (`merge.rs`).

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use rand::seq::IteratorRandom;

use crate::id::NodeId;
use crate::memory;
use crate::peer::{Peer, Seed};
use crate::random::Rng;
use crate::ring::invariants::Size;
use crate::time::Instant;

/// Most lost peers remembered; beyond it the oldest are forgotten.
const MAX_LOST: usize = 64;
/// Of those, how many are asked at a time by a node alone: they take turns.
const ASKED_AT_ONCE: usize = 8;
/// How often one of them is asked at most, however many say that it lives.
const TRY_SPACING: Duration = Duration::from_secs(1);

/// Lost peers, the one to be asked next first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct LostPeers {
    peers: VecDeque<LostPeer>,
}

/// A peer that was found dead, or was met on a way onto the ring that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LostPeer {
    peer: Peer,
    since: Instant,
    tried: Option<Instant>,
}

/// For a model checker, all are lost together.
impl Hash for LostPeer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.peer.hash(state);
    }
}

impl LostPeers {
    /// Remembers a peer, to be asked first.
    pub(crate) fn note(&mut self, now: Instant, peer: Peer) {
        self.forget(peer.id);
        self.peers.push_front(LostPeer { peer, since: now, tried: None });
        self.peers.truncate(MAX_LOST);
    }

    /// Whether this life of a peer, or a later one, was lost.
    pub(crate) fn contains(&self, peer: Peer) -> bool {
        self.peers.iter().any(|lost| lost.peer.supersedes(&peer))
    }

    /// It is back, in whatever life. Returns when it was lost.
    pub(crate) fn forget(&mut self, id: NodeId) -> Option<Instant> {
        let at = self.peers.iter().position(|lost| lost.peer.id == id)?;
        self.peers.remove(at).map(|lost| lost.since)
    }

    /// When the last one was lost that is still missing.
    pub(crate) fn last_loss(&self) -> Option<Instant> {
        self.peers.iter().map(|lost| lost.since).max()
    }

    /// Whether this one may be asked now, being asked often enough for a while then.
    pub(crate) fn may_try(&mut self, now: Instant, id: NodeId) -> bool {
        let rested = |tried: Instant| now - tried >= TRY_SPACING;
        let lost = self.peers.iter_mut().find(|lost| lost.peer.id == id && lost.tried.is_none_or(rested));
        lost.map(|lost| lost.tried = Some(now)).is_some()
    }

    /// Any one of them.
    pub(crate) fn any(&self, dice: &mut Rng) -> Option<Peer> {
        self.peers.iter().choose(dice).map(|lost| lost.peer)
    }

    /// The peers that were lost at about this time.
    pub(crate) fn lost_about(&self, when: Instant, within: Duration) -> Vec<Peer> {
        let apart = |lost: &LostPeer| lost.since.max(when) - lost.since.min(when);
        self.peers.iter().filter(|lost| apart(lost) <= within).map(|lost| lost.peer).collect()
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        memory::queue(&self.peers)
    }

    /// How many are remembered (promise O5).
    pub(crate) fn size(&self) -> Size {
        ("lost peers", self.peers.len(), MAX_LOST)
    }

    /// Some of them; the next ones when called again.
    pub(crate) fn take_turns(&mut self) -> Vec<Seed> {
        let turn = self.peers.len().min(ASKED_AT_ONCE);
        let asked = self.peers.iter().take(turn).map(|lost| lost.peer.into()).collect();
        self.peers.rotate_left(turn);
        asked
    }
}

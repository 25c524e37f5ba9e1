//! Partners: the nodes whose direct messages the layer above has got, and in which life each was heard last. They need not stand in
//! any table, and yet it matters to the layer above when one of them has lost its memory.

use std::time::Duration;

use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::ring::invariants::Size;
use crate::time::Instant;

/// Most partners that are remembered; beyond it the one that was silent for longest is forgotten.
const MAX_PARTNERS: usize = 256;
/// How long a silent partner is remembered (guess: trees' keep-alives come far more often).
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// By id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Partners {
    partners: Vec<Partner>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Partner {
    id: NodeId,
    incarnation: u64,
    /// When its last message came.
    heard: Instant,
}

impl Partners {
    fn find(&self, id: NodeId) -> Result<usize, usize> {
        self.partners.binary_search_by_key(&id, |partner| partner.id)
    }

    /// A message of this peer's has come to the layer above.
    pub(super) fn note(&mut self, now: Instant, peer: Peer) {
        if let Ok(at) = self.find(peer.id) {
            self.partners[at].heard = now;
            return;
        }
        if self.partners.len() == MAX_PARTNERS {
            let silent = self.partners.iter().enumerate().min_by_key(|(_, partner)| partner.heard);
            silent.map(|(at, _)| at).map(|at| self.partners.remove(at));
        }
        let at = self.find(peer.id).unwrap_or_else(|at| at);
        let Peer { id, incarnation, .. } = peer;
        self.partners.insert(at, Partner { id, incarnation, heard: now });
    }

    /// This life of a peer was heard. Returns the earlier one, if it was a partner: the new one takes its place.
    pub(super) fn renew(&mut self, peer: Peer) -> Option<u64> {
        let at = self.find(peer.id).ok()?;
        let partner = &mut self.partners[at];
        let earlier = (partner.incarnation < peer.incarnation).then_some(partner.incarnation);
        partner.incarnation = partner.incarnation.max(peer.incarnation);
        earlier
    }

    /// Forgets those that were silent for long, and gives back what a burst has taken.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.partners.retain(|partner| now - partner.heard < REMEMBERED_FOR);
        self.partners.shrink_to_fit();
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::list(&self.partners)
    }

    /// How many are remembered (promise O5).
    pub(super) fn size(&self) -> Size {
        ("partners", self.partners.len(), MAX_PARTNERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::fixture::at;

    fn life(id: u128, incarnation: u64) -> Peer {
        Peer { id: NodeId(id), incarnation, addr: crate::peer::Addr::Unreachable }
    }

    #[test]
    fn a_later_life_is_news_once_and_a_stranger_is_none() {
        let mut partners = Partners::default();
        assert_eq!(partners.renew(life(1, 5)), None);
        partners.note(at(0), life(1, 5));
        assert_eq!(partners.renew(life(1, 5)), None);
        assert_eq!(partners.renew(life(1, 7)), Some(5));
        assert_eq!(partners.renew(life(1, 7)), None);
    }

    #[test]
    fn the_one_that_was_silent_for_longest_is_forgotten_first() {
        let mut partners = Partners::default();
        for n in 0..MAX_PARTNERS as u64 {
            partners.note(at(n), life(n.into(), 1));
        }
        partners.note(at(1_000), life(0, 1));
        partners.note(at(1_001), life(u128::MAX, 1));
        assert_eq!(partners.size().1, MAX_PARTNERS);
        assert_eq!(partners.renew(life(1, 2)), None, "forgotten");
        assert_eq!(partners.renew(life(0, 2)), Some(1));
        assert_eq!(partners.renew(life(u128::MAX, 2)), Some(1));
        partners.tidy(at(1_000) + REMEMBERED_FOR);
        assert_eq!(partners.size().1, 1);
    }
}

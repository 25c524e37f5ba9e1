//! Routing (Pastry §2.3): where a message goes next. The decision is a pure function over the tables.

pub(crate) mod broadcasts;
pub(crate) mod hops;
pub(crate) mod lookups;
mod seen;

use super::failure::FailureDetector;
use super::join::Slots;
use super::tables::Tables;
use crate::geometry::{Geometry, TableHop, Usable};
use crate::id::{Key, NodeId};
use crate::peer::Peer;
use crate::wire::{Purpose, Routed};

/// Where a message goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hop {
    /// Nowhere: this node is the closest to its key.
    Mine,
    /// To this peer.
    To {
        /// The next hop.
        peer: Peer,
        /// It was chosen by the leaf set: from here on each hop must be strictly closer (promise O2).
        by_leaf_set: bool,
    },
    /// Not now: the closest node does not answer, and its fate is not decided yet.
    Wait,
}

/// The state by which the decision is made.
pub(crate) struct View<'a, G> {
    pub(crate) me: NodeId,
    pub(crate) tables: &'a Tables,
    pub(crate) slots: &'a Slots,
    pub(crate) detector: &'a FailureDetector,
    pub(crate) geometry: &'a G,
}

impl<G: Geometry> View<'_, G> {
    /// Whether this node is closer to the key than any node that it knows around it: dead ones whose lease runs and
    /// joiners to which a part was ceded count.
    pub(crate) fn owns(&self, key: Key) -> bool {
        // Of the leaf set only the next node on each side can be closer where this one is closer than both.
        let nearest = self.tables.leaf_set.ends().chain(self.slots.successors());
        nearest.map(|peer| peer.id).all(|id| key.is_closer(self.me, id))
    }

    /// The nearest to a key of those around this node, itself left out.
    fn nearest(&self, key: Key, usable: impl Fn(&Peer) -> bool) -> Option<Peer> {
        let member = self.tables.closest(key, &usable);
        let successors = self.slots.successors().filter(|peer| usable(peer)).copied();
        member.into_iter().chain(successors).min_by(|a, b| key.closer(a.id, b.id))
    }

    /// Pastry §2.3's rule, under promise O2. `tried`: next hops that did not acknowledge.
    pub(crate) fn next_hop(&self, routed: &Routed, tried: &[NodeId]) -> Hop {
        let key = routed.key;
        // A seeker is on no node's way to itself: its former life may still stand in the tables.
        let seeker = matches!(routed.purpose, Purpose::Seek).then(|| routed.origin.id());
        let exists = |peer: &Peer| Some(peer.id) != seeker;
        let usable =
            |peer: &Peer| exists(peer) && !tried.contains(&peer.id) && !self.tables.is_being_removed(peer.id);
        let closer = |peer: &Peer| key.is_closer(peer.id, self.me);

        // "If D is within range of our leaf set, forward to the numerically closest member."
        if self.tables.leaf_set.covers(key) || self.owns(key) {
            let nearest = self.nearest(key, exists).filter(closer);
            let reachable = self.nearest(key, usable).filter(closer);
            return match (nearest, reachable) {
                (None, _) => Hop::Mine,
                (Some(_), Some(peer)) => Hop::To { peer, by_leaf_set: true },
                // Never past a root that may live: it has answered nothing, but no node found it dead.
                (Some(_), None) => Hop::Wait,
            };
        }
        // "Otherwise use the routing table": the geometry's tables.
        let rule = Usable {
            // Once a hop came from the leaf set, every later hop is strictly closer.
            allowed: &|peer: &Peer| usable(peer) && (!routed.by_leaf_set || closer(peer)),
            closer: &closer,
            is_suspect: &|id| self.detector.is_suspect(id),
        };
        match self.geometry.next_hop(key, &self.tables.leaf_set, &rule) {
            Some(TableHop::Closer(peer)) => return Hop::To { peer, by_leaf_set: true },
            Some(TableHop::Along(peer)) => return Hop::To { peer, by_leaf_set: routed.by_leaf_set },
            None => {}
        }
        match self.nearest(key, usable).filter(closer) {
            Some(peer) => Hop::To { peer, by_leaf_set: true },
            None => Hop::Wait,
        }
    }
}

/// How many digits an id shares with a key, as it stands in a trace.
pub(crate) fn matched(key: Key, id: NodeId) -> u8 {
    u8::try_from(key.shared_prefix(id)).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{core, peer, tables};
    use super::*;
    use crate::geometry::full::FullMembership;
    use crate::peer::Contact;

    fn routed(key: u8, by_leaf_set: bool) -> Routed {
        Routed {
            hop: 0,
            key: peer(key).id.key(),
            origin: Contact::from(peer(1)),
            id: 0,
            hops: 0,
            by_leaf_set,
            repeated: false,
            purpose: Purpose::Lookup,
            trace: None,
        }
    }

    #[test]
    fn within_the_leaf_set_the_closest_member_is_next_and_never_one_past_a_live_root() {
        let (core, mut tables, detector) = (core(), tables(&[90, 110, 120]), FailureDetector::default());
        let (slots, geometry) = (Slots::default(), FullMembership::new(core.me.id, &core.config));
        let next = |tables: &Tables, key, tried: &[NodeId]| {
            let view =
                View { me: core.me.id, tables, slots: &slots, detector: &detector, geometry: &geometry };
            view.next_hop(&routed(key, false), tried)
        };
        let to = |point| Hop::To { peer: peer(point), by_leaf_set: true };
        assert_eq!(next(&tables, 101, &[]), Hop::Mine);
        assert_eq!(next(&tables, 118, &[]), to(120));
        assert_eq!(next(&tables, 118, &[peer(120).id]), to(110), "another one that is closer");
        assert_eq!(next(&tables, 107, &[peer(110).id]), Hop::Wait, "the root may live");
        tables.begin_removal(peer(110).id, crate::ring::fixture::at(9));
        assert_eq!(next(&tables, 107, &[]), Hop::Wait, "its lease runs: its range is not this node's yet");
    }
}

//! The ring around a node, as pure data: its leaf set, and which of its members are out of use.

use std::collections::BTreeSet;

use crate::geometry::Geometry;
use crate::id::{Key, NodeId};
use crate::kbr::NEAREST;
use crate::memory;
use crate::peer::Peer;
use crate::table::LeafSet;
use crate::time::Instant;

/// The leaf set and its members' state. Readers get `&Tables`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tables {
    pub(crate) leaf_set: LeafSet,
    /// Members that were found dead, or restarted, while a lease of theirs runs: out of use, but not dropped before it ends.
    removing: Vec<(NodeId, Instant)>,
    /// The nearest members are not the ones that were told last.
    nearest_changed: bool,
}

impl Tables {
    pub(crate) fn new(me: NodeId, leaf_set: usize) -> Tables {
        Tables { leaf_set: LeafSet::new(me, leaf_set), removing: Vec::new(), nearest_changed: false }
    }

    /// The node of this id in the tables that are kept alive: these, and the geometry's.
    pub(crate) fn member(&self, geometry: &impl Geometry, id: NodeId) -> Option<Peer> {
        self.leaf_set.get(id).or_else(|| geometry.get(id)).copied()
    }

    /// Takes a node into the leaf set, where it fits. Returns whether anything changed.
    pub(crate) fn insert(&mut self, peer: Peer) -> bool {
        let is_new = self.leaf_set.insert(peer);
        self.nearest_changed |= is_new && self.leaf_set.is_near(peer.id, NEAREST);
        is_new
    }

    /// Takes a node out of the leaf set.
    pub(crate) fn remove(&mut self, id: NodeId) -> Option<Peer> {
        self.nearest_changed |= self.leaf_set.is_near(id, NEAREST);
        self.leaf_set.remove(id)
    }

    /// Takes over the leaf set of a joiner that has its place now.
    pub(crate) fn replace(&mut self, view: LeafSet) {
        self.nearest_changed |= view != self.leaf_set;
        self.leaf_set = view;
    }

    /// Whether the nearest members changed since the last call.
    pub(crate) fn take_nearest_changed(&mut self) -> bool {
        std::mem::take(&mut self.nearest_changed)
    }

    /// Takes a member out of use until its lease ends.
    pub(crate) fn begin_removal(&mut self, id: NodeId, until: Instant) {
        match self.removing.iter_mut().find(|(other, _)| *other == id) {
            Some((_, end)) => *end = until,
            None => self.removing.push((id, until)),
        }
    }

    /// The member showed that it lives after all, or is gone.
    pub(crate) fn cancel_removal(&mut self, id: NodeId) {
        self.removing.retain(|&(other, _)| other != id);
    }

    pub(crate) fn is_being_removed(&self, id: NodeId) -> bool {
        self.removing.iter().any(|&(other, _)| other == id)
    }

    /// Takes the members out of the list whose lease has ended: they are to be dropped now.
    pub(crate) fn take_removed(&mut self, now: Instant) -> Vec<NodeId> {
        let ended = self.removing.iter().filter(|&&(_, until)| until <= now).map(|&(id, _)| id);
        let ended: BTreeSet<NodeId> = ended.collect();
        self.removing.retain(|&(_, until)| until > now);
        ended.into_iter().collect()
    }

    /// When the next member is to be dropped.
    pub(crate) fn next_removal(&self) -> Option<Instant> {
        self.removing.iter().map(|&(_, until)| until).min()
    }

    /// The members in use.
    pub(crate) fn in_use(&self) -> Vec<Peer> {
        self.leaf_set.iter().filter(|peer| !self.is_being_removed(peer.id)).copied().collect()
    }

    /// All members.
    pub(crate) fn members(&self) -> Vec<Peer> {
        self.leaf_set.iter().copied().collect()
    }

    /// The usable member that is closest to a key.
    pub(crate) fn closest(&self, key: Key, usable: impl Fn(&Peer) -> bool) -> Option<Peer> {
        self.leaf_set.closest(key, usable).copied()
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        self.leaf_set.bytes() + memory::list(&self.removing)
    }
}

//! Full-membership mode (design §5): while the ring is small, every node knows every node, and a message goes to the root
//! of its key in one hop. Only next hops change: the root is whoever holds the leases, and a stale entry costs a hop.
//!
//! Who is on the ring is learned by arcs. A full leaf set is all there is between its ends, by the word of a node that
//! watches over it, so whoever tells its leaf set adds those who have joined and takes away those who died: nothing else
//! need be remembered of the dead, and no rumour goes around twice. A node *walks* the ring: in its rounds of repair it
//! compares leaf sets with one node after the other, each a leaf set further on; more often while that brings news, no
//! more often than the repair of larger rings while it does not. A joiner gets the whole list with the answer of its root.
//!
//! When more than `Config::full_membership` nodes are known, the list is given up for Pastry's tables alone; it is begun
//! again when the ring looks half as large.

use std::time::Duration;

use super::Node;
use super::invariants::Size;
use crate::config::Config;
use crate::id::{Key, NodeId};
use crate::memory;
use crate::peer::Peer;
use crate::table::{self, LeafSet};
use crate::time::Instant;
use crate::wire::MAX_PEERS;

/// How much more often rounds come while they bring news.
const HURRY: u32 = 4;

/// All nodes of a small ring, as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Members {
    is_on: bool,
    /// By id.
    peers: Vec<Peer>,
    /// How far the walk has come; it begins at this node.
    reached: Option<Key>,
    /// Whom the last round of the walk asked.
    asked: Option<NodeId>,
    /// Mean time to the next round.
    period: Duration,
    /// The list has changed since the last round.
    changed: bool,
    /// The last round was one of the walk.
    walked: bool,
}

impl Members {
    fn note(&mut self, peer: Peer) {
        match self.peers.binary_search_by_key(&peer.id, |known| known.id) {
            Ok(at) if peer.incarnation > self.peers[at].incarnation => self.peers[at] = peer,
            Ok(_) => return,
            Err(at) => {
                table::reserve_one(&mut self.peers);
                self.peers.insert(at, peer);
            }
        }
        self.changed = true;
    }

    /// A node is gone.
    pub(super) fn remove(&mut self, id: NodeId) {
        if let Ok(at) = self.peers.binary_search_by_key(&id, |known| known.id) {
            self.peers.remove(at);
            self.changed = true;
        }
    }

    fn give_up(&mut self) {
        *self = Members::default();
    }

    /// The usable one that is closest to a key.
    pub(super) fn closest(&self, key: Key, usable: impl Fn(&Peer) -> bool) -> Option<Peer> {
        self.peers.iter().filter(|peer| usable(peer)).min_by(|a, b| key.closer(a.id, b.id)).copied()
    }

    /// All that are known; none while the ring is large.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter()
    }

    /// Clockwise from a point.
    fn after(&self, point: Key) -> impl Iterator<Item = &Peer> {
        let at = self.peers.partition_point(|peer| peer.id.key() <= point);
        self.peers[at..].iter().chain(&self.peers[..at])
    }

    /// Gives back what those that left had taken.
    pub(super) fn tidy(&mut self) {
        self.peers.shrink_to(self.peers.len() + self.peers.len() / 8);
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::list(&self.peers)
    }

    /// How many are known (promise O5).
    pub(super) fn size(&self, config: &Config) -> Size {
        ("known members", self.peers.len(), config.full_membership)
    }
}

impl Node {
    /// Begins the list if the ring has no more nodes than this, as far as its density shows: with the leaf set, from whose
    /// end the walk goes on. (The routing table may have nodes that left long ago.)
    pub(super) fn begin_members_below(&mut self, now: Instant, limit: usize) {
        if !self.members.is_on && self.ring_size() <= limit as u128 {
            self.begin_members(now, self.leaf_set.iter().copied().collect());
        }
        if self.members.is_on && self.leaf_set.len() < self.config.leaf_set {
            // All of the ring fits into a leaf set, which is watched over.
            let leaf_set = &self.leaf_set;
            self.members.peers.retain(|peer| leaf_set.contains(peer.id));
        }
    }

    /// A node that has just come onto the ring knows those around it, and perhaps all.
    pub(super) fn begin_members_on_arrival(&mut self, now: Instant) {
        self.begin_members_below(now, self.config.full_membership);
        let around: Vec<Peer> = self.leaf_set.iter().copied().collect();
        around.into_iter().for_each(|peer| self.note_member(now, peer));
    }

    fn begin_members(&mut self, now: Instant, known: Vec<Peer>) {
        self.members.is_on = self.config.full_membership > 0;
        known.into_iter().for_each(|peer| self.note_member(now, peer));
    }

    /// A joiner's root has answered: whoever names more than a leaf set names all.
    pub(super) fn note_named(&mut self, now: Instant, named: &[Peer]) {
        if named.len() > self.config.leaf_set + 1 || self.members.is_on {
            self.begin_members(now, named.to_vec());
        }
    }

    /// Somebody is on the ring, by its own word or that of a node near it.
    pub(super) fn note_member(&mut self, now: Instant, peer: Peer) {
        let barred = peer.id == self.me.id
            || self.liveness.is_buried(now, &peer)
            || self.leases.is_condemned(peer.id)
            || self.former.contains(peer);
        if !self.members.is_on || barred {
            return;
        }
        self.members.note(peer);
        if self.members.peers.len() > self.config.full_membership {
            self.members.give_up();
        }
    }

    /// A ready node tells its leaf set.
    pub(super) fn take_arc(&mut self, now: Instant, from: Peer, named: &[Peer]) {
        if !self.members.is_on {
            return;
        }
        let mut theirs = LeafSet::new(from.id, self.config.leaf_set);
        for &peer in named {
            theirs.insert(peer);
        }
        // Half a ring that is about to merge, or a node that has just lost everybody, says nothing about others.
        if theirs.len() >= self.config.leaf_set {
            let is_gone = |peer: &Peer| {
                let around = [from.id, self.me.id].contains(&peer.id) || self.leaf_set.contains(peer.id);
                !around && theirs.covers(peer.id.key()) && !theirs.contains(peer.id)
            };
            let gone: Vec<NodeId> =
                self.members.iter().filter(|peer| is_gone(peer)).map(|peer| peer.id).collect();
            gone.into_iter().for_each(|id| self.members.remove(id));
        }
        for &peer in [from].iter().chain(named) {
            self.note_member(now, peer);
        }
        if self.members.asked.take_if(|asked| *asked == from.id).is_some()
            && let Some(end) = theirs.rights().last()
        {
            self.members.reached = Some(end.id.key());
        }
    }

    /// With whom leaf sets are compared in this round, if the walk has its turn: half a leaf set after where it has
    /// come to, so that the next one's arc begins there; of those before it rather one that is routed by, to whom
    /// there is a connection.
    pub(super) fn next_on_walk(&mut self) -> Option<Peer> {
        let rests = self.members.period >= self.config.repair;
        let walks = self.knows_more_than_leaf_set() && !(rests && self.members.walked);
        self.members.walked = walks;
        let from = self.members.reached.unwrap_or(self.me.id.key());
        let ahead: Vec<Peer> = self.members.after(from).take(self.config.leaf_set / 2).copied().collect();
        let routed_by = ahead.iter().rev().find(|peer| self.table.get(peer.id).is_some());
        let next = routed_by.or(ahead.last()).copied().filter(|_| walks)?;
        self.members.reached = Some(next.id.key());
        self.members.asked = Some(next.id);
        Some(next)
    }

    /// The time to the next round of repair, in the mean.
    pub(super) fn repair_period(&mut self) -> Duration {
        let longest = self.config.repair;
        if !self.knows_more_than_leaf_set() {
            return longest;
        }
        let Members { period, changed, .. } = &mut self.members;
        *period = if std::mem::take(changed) { *period / 2 } else { *period * 2 };
        *period = (*period).clamp(longest / HURRY, longest);
        *period
    }

    fn knows_more_than_leaf_set(&self) -> bool {
        self.members.is_on && self.leaf_set.len() >= self.config.leaf_set
    }

    /// What a seeker is told: the leaf set, and all others as well while they are few.
    pub(super) fn all_but(&self, seeker: NodeId) -> Vec<Peer> {
        let others = self.members.iter().filter(|peer| !self.leaf_set.contains(peer.id));
        let all = self.leaf_set.iter().chain(others).filter(|peer| peer.id != seeker);
        all.take(MAX_PEERS).copied().collect()
    }
}

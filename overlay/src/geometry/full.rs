//! Full membership (design §5): while a ring is small, every node knows every node, and a message goes to the root of its key
//! in one hop. Only next hops change: the root is the node that holds the leases, and a stale entry costs a hop.
//!
//! Which nodes are on the ring is learned by arcs. A full leaf set is all there is between its ends, by the word of a node that
//! watches over it, so a node that tells its leaf set adds those that have joined and takes away those that died: nothing else
//! need be remembered of the dead, neither digests nor tombstones, and no hint goes around twice. A node *walks* the ring: in
//! its rounds of repair it compares leaf sets with one node after the other, each a leaf set further on; more often while that
//! brings news, no more often than the repair of larger rings while it does not. A joiner gets the whole list with the answer
//! of its root.
//!
//! It is a geometry of its own ([`Node<FullMembership>`](crate::ring::Node)), for rings of any size that one list may hold.
//! [`Pastry`](super::pastry::Pastry) keeps such a list beside its tables while its ring is small: when more than
//! `tables.full_membership` nodes are known, the list is given up for Pastry's tables alone; it is begun again when the ring
//! looks half as large.

use std::time::Duration;

use super::{Cx, Geometry, Greeting, TableHop, TableUse, Usable};
use crate::config::Config;
use crate::id::{Key, NodeId};
use crate::memory::{self, Memory};
use crate::peer::Peer;
use crate::ring::{Core, FailureDetector, Size};
use crate::table::{self, LeafSet};
use crate::time::Instant;
use crate::wire::{Header, MAX_PEERS};

/// How much more often rounds come while they bring news.
const HURRY: u32 = 4;
/// Most nodes in the list of a ring that knows nothing else; later ones are not noted, and are reached by way of others.
const MAX_MEMBERS: usize = 65_536;

/// All nodes of a ring, as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FullMembership {
    is_on: bool,
    /// The list is all that there is: it is never given up.
    is_alone: bool,
    /// By id.
    peers: Vec<Peer>,
    /// How far the walk has come; it begins at this node.
    reached: Option<Key>,
    /// The node that the last round of the walk asked.
    asked: Option<NodeId>,
    /// Mean time to the next round.
    period: Duration,
    /// The list has changed since the last round.
    changed: bool,
    /// The last round was one of the walk.
    walked: bool,
}

impl FullMembership {
    /// An empty list beside other tables.
    pub(super) fn beside_tables() -> FullMembership {
        FullMembership::default()
    }

    fn note(&mut self, peer: Peer) {
        match self.peers.binary_search_by_key(&peer.id, |known| known.id) {
            Ok(at) if peer.incarnation > self.peers[at].incarnation => self.peers[at] = peer,
            Ok(_) => return,
            Err(_) if self.is_alone && self.peers.len() >= MAX_MEMBERS => return,
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

    /// The usable node that is closest to a key.
    pub(super) fn closest(&self, key: Key, usable: impl Fn(&Peer) -> bool) -> Option<Peer> {
        self.peers.iter().filter(|peer| usable(peer)).min_by(|a, b| key.closer(a.id, b.id)).copied()
    }

    /// All that are known; none while the ring is large.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter()
    }

    /// Clockwise from a point.
    fn after(&self, point: Key) -> impl Iterator<Item = &Peer> {
        let at = self.peers.partition_point(|peer| peer.id.key() <= point);
        self.peers[at..].iter().chain(&self.peers[..at])
    }

    /// Begins the list if the ring has no more nodes than this, as far as its density shows: with the leaf set, from whose
    /// end the walk goes on. (The routing table may have nodes that left long ago.)
    pub(super) fn begin_below(&mut self, cx: &mut Cx<'_>, limit: usize) {
        if !self.is_on && cx.tables.leaf_set.ring_size() <= limit as u128 {
            self.begin(cx, &cx.tables.members());
        }
        if self.is_on && cx.tables.leaf_set.len() < cx.core.config.tables.leaf_set {
            // All of the ring fits into a leaf set, which is watched over.
            self.peers.retain(|peer| cx.tables.leaf_set.contains(peer.id));
        }
    }

    /// A node that has just come onto the ring knows those around it, and perhaps all.
    pub(super) fn begin_on_arrival(&mut self, cx: &mut Cx<'_>) {
        self.begin_below(cx, cx.core.config.tables.full_membership);
        for peer in cx.tables.members() {
            self.note_met(cx, peer);
        }
    }

    fn begin(&mut self, cx: &Cx<'_>, known: &[Peer]) {
        self.is_on = self.is_alone || cx.core.config.tables.full_membership > 0;
        known.iter().for_each(|peer| self.note_met(cx, *peer));
    }

    /// A joiner's root has answered: one that names more than a leaf set names all.
    pub(super) fn note_named(&mut self, cx: &Cx<'_>, named: &[Peer]) {
        if named.len() > cx.core.config.tables.leaf_set + 1 || self.is_on {
            self.begin(cx, named);
        }
    }

    /// A node is on the ring, by its own word or that of a node near it.
    pub(super) fn note_met(&mut self, cx: &Cx<'_>, peer: Peer) {
        let is_barred = peer.id == cx.core.me.id || cx.is_barred(&peer) || cx.lost.contains(peer);
        if !self.is_on || is_barred {
            return;
        }
        self.note(peer);
        if !self.is_alone && self.peers.len() > cx.core.config.tables.full_membership {
            *self = FullMembership::beside_tables();
        }
    }

    /// A ready node tells its leaf set.
    pub(super) fn take_arc(&mut self, cx: &Cx<'_>, from: Peer, named: &[Peer]) {
        if !self.is_on {
            return;
        }
        let mut theirs = LeafSet::new(from.id, cx.core.config.tables.leaf_set);
        for &peer in named {
            theirs.insert(peer);
        }
        // Half a ring that is about to merge, or a node that has just lost all others, says nothing about others.
        if theirs.len() >= cx.core.config.tables.leaf_set {
            let (me, leaf_set) = (cx.core.me.id, &cx.tables.leaf_set);
            let is_gone = |peer: &Peer| {
                let around = [from.id, me].contains(&peer.id) || leaf_set.contains(peer.id);
                !around && theirs.covers(peer.id.key()) && !theirs.contains(peer.id)
            };
            let gone: Vec<NodeId> = self.iter().filter(|peer| is_gone(peer)).map(|peer| peer.id).collect();
            gone.into_iter().for_each(|id| self.remove(id));
        }
        for &peer in [from].iter().chain(named) {
            self.note_met(cx, peer);
        }
        if self.asked.take_if(|asked| *asked == from.id).is_some()
            && let Some(end) = theirs.rights().last()
        {
            self.reached = Some(end.id.key());
        }
    }

    /// With which node leaf sets are compared in this round, if the walk has its turn: half a leaf set after where it has
    /// come to, so that the next one's arc begins there; of those before it rather one that is routed by (`is_routed_by`), to
    /// which there is a connection.
    pub(super) fn next_on_walk(
        &mut self,
        me: NodeId,
        config: &Config,
        leaf_set: &LeafSet,
        is_routed_by: impl Fn(NodeId) -> bool,
    ) -> Option<Peer> {
        let rests = self.period >= config.repair.period;
        let walks = self.knows_more_than(leaf_set, config) && !(rests && self.walked);
        self.walked = walks;
        let from = self.reached.unwrap_or(me.key());
        let ahead: Vec<Peer> = self.after(from).take(config.tables.leaf_set / 2).copied().collect();
        let routed_by = ahead.iter().rev().find(|peer| is_routed_by(peer.id));
        let next = routed_by.or(ahead.last()).copied().filter(|_| walks)?;
        self.reached = Some(next.id.key());
        self.asked = Some(next.id);
        Some(next)
    }

    /// The mean time to the next round of repair.
    pub(super) fn next_period(&mut self, config: &Config, leaf_set: &LeafSet) -> Duration {
        let longest = config.repair.period;
        if !self.knows_more_than(leaf_set, config) {
            return longest;
        }
        let FullMembership { period, changed, .. } = self;
        *period = if std::mem::take(changed) { *period / 2 } else { *period * 2 };
        *period = (*period).clamp(longest / HURRY, longest);
        *period
    }

    fn knows_more_than(&self, leaf_set: &LeafSet, config: &Config) -> bool {
        self.is_on && leaf_set.len() >= config.tables.leaf_set
    }

    /// The nodes that a seeker is told: the leaf set, and all others as well while they are few.
    pub(super) fn all_but(&self, leaf_set: &LeafSet, seeker: NodeId) -> Vec<Peer> {
        let others = self.iter().filter(|peer| !leaf_set.contains(peer.id));
        let all = leaf_set.iter().chain(others).filter(|peer| peer.id != seeker);
        all.take(MAX_PEERS).copied().collect()
    }

    /// Gives back what those that left had taken.
    pub(super) fn shrink(&mut self) {
        self.peers.shrink_to(self.peers.len() + self.peers.len() / 8);
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::list(&self.peers)
    }

    /// How many are known (promise O5).
    pub(super) fn size(&self, config: &Config) -> Size {
        let most = if self.is_alone { MAX_MEMBERS } else { config.tables.full_membership };
        ("known members", self.peers.len(), most)
    }
}

/// The list alone.
impl Geometry for FullMembership {
    fn new(_: NodeId, _: &Config) -> FullMembership {
        FullMembership { is_on: true, is_alone: true, ..FullMembership::default() }
    }

    fn next_hop(&self, key: Key, _: &LeafSet, usable: &Usable<'_>) -> Option<TableHop> {
        let sound =
            |peer: &Peer| (usable.allowed)(peer) && (usable.closer)(peer) && !(usable.is_suspect)(peer.id);
        self.closest(key, sound).map(TableHop::Closer)
    }

    fn get(&self, id: NodeId) -> Option<&Peer> {
        let at = self.peers.binary_search_by_key(&id, |known| known.id).ok()?;
        self.peers.get(at)
    }

    fn rtt(&self, _: NodeId) -> Option<Duration> {
        None
    }

    fn entries(&self) -> impl Iterator<Item = &Peer> {
        self.iter()
    }

    fn known(&self) -> impl Iterator<Item = &Peer> {
        self.iter()
    }

    fn table_use(&self) -> TableUse {
        TableUse { hops: 1, nodes: 0 }
    }

    /// None: the arcs tell of the dead, and a message that meets one goes around it.
    fn in_use(&self) -> impl Iterator<Item = Peer> {
        std::iter::empty()
    }

    fn wants(&self, _: NodeId) -> bool {
        false
    }

    fn gossip_partners(&self, _: &FailureDetector, _: usize) -> Vec<Peer> {
        Vec::new()
    }

    fn told_to(&self, leaf_set: &LeafSet, seeker: NodeId) -> Vec<Peer> {
        self.all_but(leaf_set, seeker)
    }

    fn on_met(&mut self, cx: &mut Cx<'_>, peer: Peer, _: Option<Duration>) -> bool {
        self.note_met(cx, peer);
        false
    }

    fn on_joined(&mut self, _: Peer, _: Option<Duration>) {}

    fn on_measured(&mut self, _: Peer, _: Duration, _: bool) {}

    fn on_dead(&mut self, id: NodeId) {
        self.remove(id);
    }

    fn on_ready(&mut self, cx: &mut Cx<'_>) {
        self.begin_on_arrival(cx);
    }

    fn on_rings_met(&mut self, _: Instant) {
        // The rounds of repair come sooner while the list changes.
        self.changed = true;
    }

    fn on_named(&mut self, cx: &mut Cx<'_>, named: &[Peer]) {
        self.note_named(cx, named);
    }

    fn on_leaf_set(&mut self, cx: &mut Cx<'_>, from: Peer, members: &[Peer]) {
        self.take_arc(cx, from, members);
    }

    fn repair_period(&mut self, config: &Config, leaf_set: &LeafSet) -> Duration {
        self.next_period(config, leaf_set)
    }

    fn on_repair_round(&mut self, cx: &mut Cx<'_>) {
        self.begin_below(cx, usize::MAX);
    }

    fn repair_partner(&mut self, cx: &mut Cx<'_>) -> Option<Peer> {
        self.next_on_walk(cx.core.me.id, &cx.core.config, &cx.tables.leaf_set, |_| false)
    }

    fn to_measure(&mut self, _: &mut Cx<'_>) -> Vec<Peer> {
        Vec::new()
    }

    fn on_timer(&mut self, _: &mut Cx<'_>) {}

    fn greeting(&mut self, _: Instant, _: Peer, _: &Header) -> Greeting {
        Greeting::default()
    }

    fn on_frame(&mut self, _: &mut Cx<'_>, _: Peer, _: Header) -> Vec<Peer> {
        Vec::new()
    }

    fn tidy(&mut self) {
        self.shrink();
    }

    fn memory(&self, parts: &mut Memory) {
        parts.add("members", self.bytes());
    }

    fn sizes(&self, config: &Config) -> Vec<Size> {
        vec![self.size(config)]
    }

    fn assert_invariants(&self, core: &Core) {
        assert!(self.get(core.me.id).is_none(), "a node is not in its own list");
    }
}

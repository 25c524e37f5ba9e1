//! The edge's own side: two access nodes, one in use and one at hand (design §5). For every key the next hop is the
//! one in use. An edge that finds no ring node for long becomes one, if it may.

use std::time::Duration;

use rand::seq::IndexedRandom;

use super::join::Phase;
use super::{Node, Timer};
use crate::config::Role;
use crate::id::NodeId;
use crate::kbr::{Event, KeyBasedRouting};
use crate::memory;
use crate::peer::{Peer, Seed};
use crate::time::Instant;
use crate::wire::Header;

/// Ring nodes that an edge remembers to hang itself on next; beyond it, later ones are not noted.
const MAX_CANDIDATES: usize = 64;
/// How long the first access node has to answer before others are looked for.
const ATTACH_PATIENCE: Duration = Duration::from_millis(1500);
/// Keep-alives without an answer after which an access node counts as lost.
const SILENT_PERIODS: f64 = 3.5;

/// The access nodes of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Access {
    /// At most two that took this edge, the one in use first.
    nodes: Vec<Hold>,
    /// Asked, but not answered yet.
    asked: Option<(Peer, Instant)>,
    candidates: Vec<Peer>,
    /// Since when there has been none.
    lost: Option<Instant>,
}

/// An access node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Hold {
    peer: Peer,
    heard: Instant,
    /// When it was last asked to keep this edge.
    asked: Instant,
    /// From that question to its answer; the first one may have waited for a connection.
    round_trip: Option<Duration>,
}

impl Access {
    /// The one in use.
    pub(super) fn primary(&self) -> Option<Peer> {
        self.nodes.first().map(|node| node.peer)
    }

    /// The round-trip time to an access node, if it was measured.
    pub(super) fn rtt(&self, id: NodeId) -> Option<Duration> {
        self.nodes.iter().find(|node| node.peer.id == id)?.round_trip
    }

    pub(super) fn contains(&self, id: NodeId) -> bool {
        self.nodes.iter().any(|node| node.peer.id == id)
    }

    /// Whether a word of this node is waited for. Without any access node everybody known is asked.
    fn expects(&self, id: NodeId) -> bool {
        self.contains(id) || self.lost.is_some() || self.asked.is_some_and(|(peer, _)| peer.id == id)
    }

    /// The access nodes.
    pub(super) fn in_use(&self) -> Vec<Peer> {
        self.nodes.iter().map(|node| node.peer).collect()
    }

    /// The access nodes, and after them others worth remembering.
    pub(super) fn peers(&self) -> Vec<Peer> {
        let mut peers = self.in_use();
        for &candidate in &self.candidates {
            if !peers.iter().any(|peer| peer.id == candidate.id) {
                peers.push(candidate);
            }
        }
        peers
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::list(&self.nodes) + memory::list(&self.candidates)
    }

    fn note(&mut self, peers: impl IntoIterator<Item = Peer>) {
        for peer in peers {
            if let Some(known) = self.candidates.iter_mut().find(|known| known.id == peer.id) {
                known.incarnation = known.incarnation.max(peer.incarnation);
                known.addr = peer.addr;
            } else if self.candidates.len() < MAX_CANDIDATES {
                self.candidates.push(peer);
            }
        }
    }

    fn drop(&mut self, id: NodeId) {
        self.nodes.retain(|node| node.peer.id != id);
        self.candidates.retain(|peer| peer.id != id);
        self.asked.take_if(|(peer, _)| peer.id == id);
    }
}

impl Hold {
    /// Its answer came: the first one since it was asked gives the round-trip time.
    fn hear(&mut self, now: Instant, peer: Peer) {
        if self.heard < self.asked {
            self.round_trip = Some(now - self.asked);
        }
        self.peer = peer;
        self.heard = now;
    }
}

impl Node {
    /// The first ready node that was found: this edge hangs itself there.
    pub(super) fn attach_first(&mut self, now: Instant, through: Peer) {
        self.phase = Phase::Attaching { through };
        self.deadlines.set(Timer::Join, now + ATTACH_PATIENCE);
        self.ask_to_attach(now, through);
    }

    fn ask_to_attach(&mut self, now: Instant, peer: Peer) {
        self.access.asked = Some((peer, now));
        self.transmit(peer, Header::Attach);
    }

    pub(super) fn on_attached(&mut self, now: Instant, from: Peer, accepted: bool, members: Vec<Peer>) {
        if !self.is_edge() {
            // It became a ring node meanwhile: the access node need not keep it.
            return self.transmit(from, Header::Detach);
        }
        if !self.access.expects(from.id) {
            // Whoever is not asked does not make itself this edge's way to everybody.
            return self.transmit(from, Header::Detach);
        }
        let me = self.me.id;
        self.access.note(members.into_iter().filter(|peer| peer.id != me));
        let asked = self.access.asked.take_if(|(peer, _)| peer.id == from.id).map(|(_, asked)| asked);
        if !accepted {
            return self.lose_access(now, from.id);
        }
        match self.access.nodes.iter_mut().find(|node| node.peer.id == from.id) {
            Some(node) => node.hear(now, from),
            None => self.gain_access(now, from, asked),
        }
    }

    fn gain_access(&mut self, now: Instant, peer: Peer, asked: Option<Instant>) {
        if self.access.nodes.len() >= 2 {
            return self.transmit(peer, Header::Detach);
        }
        self.access.note([peer]);
        let round_trip = asked.map(|asked| now - asked);
        self.access.nodes.push(Hold { peer, heard: now, asked: now, round_trip });
        self.access.lost = None;
        if !self.is_ready() {
            // Also if its word came so late that this edge is asking again already.
            self.be_ready(now, false);
        } else if self.access.nodes.len() == 1 {
            self.events.push_back(Event::ContactChanged(self.contact()));
        }
        self.unpark(now);
        self.look_for_standby(now);
        self.deadlines.set_earlier(Timer::Edge, now + self.config.edge_keepalive);
    }

    fn look_for_standby(&mut self, now: Instant) {
        if self.access.nodes.len() >= 2 || self.access.asked.is_some() {
            return;
        }
        let known = &self.access;
        let others: Vec<Peer> =
            known.candidates.iter().filter(|peer| !known.contains(peer.id)).copied().collect();
        if let Some(&peer) = others.choose(&mut self.rng) {
            self.ask_to_attach(now, peer);
        }
    }

    /// A connection broke, or could not be made: for an access node that is enough to use the other.
    pub(super) fn on_access_unreachable(&mut self, now: Instant, id: NodeId) {
        let asked = self.access.asked.is_some_and(|(peer, _)| peer.id == id);
        if self.is_edge() && (asked || self.access.contains(id)) {
            self.lose_access(now, id);
        }
    }

    pub(super) fn lose_access(&mut self, now: Instant, id: NodeId) {
        let was_primary = self.access.primary().is_some_and(|peer| peer.id == id);
        let had = self.access.contains(id);
        self.access.drop(id);
        if had {
            self.events.push_back(Event::PeerDown(id));
            self.reroute(now, id);
        }
        if was_primary && self.access.primary().is_some() {
            self.events.push_back(Event::ContactChanged(self.contact()));
        }
        if self.access.nodes.is_empty() && self.is_ready() {
            self.access.lost.get_or_insert(now);
        }
        if matches!(self.phase, Phase::Attaching { .. }) {
            return self.deadlines.set(Timer::Join, now);
        }
        self.look_for_standby(now);
    }

    /// An edge's keep-alive, or a ring node's watch over its edges.
    pub(super) fn on_edge_timer(&mut self, now: Instant) {
        if !self.is_edge() {
            return self.forget_silent_edges(now);
        }
        self.deadlines.set(Timer::Edge, now + self.config.edge_keepalive);
        let patience = self.config.edge_keepalive.mul_f64(SILENT_PERIODS);
        let silent = |heard: Instant| now - heard > patience;
        let lost: Vec<NodeId> = self
            .access
            .nodes
            .iter()
            .map(|node| (node.peer, node.heard))
            .chain(self.access.asked)
            .filter(|(_, heard)| silent(*heard))
            .map(|(peer, _)| peer.id)
            .collect();
        for id in lost {
            self.lose_access(now, id);
        }
        for access in self.access.in_use() {
            self.transmit(access, Header::Attach);
        }
        self.access.nodes.iter_mut().for_each(|node| node.asked = now);
        match self.access.lost {
            Some(since) if self.access.nodes.is_empty() => self.look_for_ring_again(now, since),
            _ => self.look_for_standby(now),
        }
    }

    /// No access node is left: try whoever is known; after a while, be a ring node oneself.
    fn look_for_ring_again(&mut self, now: Instant, since: Instant) {
        if let Role::Edge { promote_after: Some(limit) } = self.role
            && now - since >= limit
        {
            return self.promote(now);
        }
        let candidates = std::mem::take(&mut self.access.candidates);
        let seeds = self.bootstrap.join.iter().chain(&self.bootstrap.local).chain(&self.bootstrap.remembered);
        let seeds: Vec<Seed> = candidates.iter().map(|&peer| peer.into()).chain(seeds.copied()).collect();
        for seed in seeds {
            if seed.id != Some(self.me.id) && seed.addr != self.me.addr {
                self.transmit_to_seed(seed, Header::Attach);
            }
        }
        self.access.candidates = candidates;
    }

    /// The edge becomes a ring node: it joins whatever ring it finds, or is the first of one.
    fn promote(&mut self, now: Instant) {
        tracing::info!(node = %self.me.id, "no ring node found: becoming one");
        self.role = Role::Ring;
        self.bootstrap.remembered.extend(self.access.candidates.drain(..).map(Seed::from));
        self.bootstrap.local.append(&mut self.bootstrap.join);
        self.access = Access::default();
        self.deadlines.cancel(Timer::Edge);
        self.ask_for_a_ring(now);
    }
}

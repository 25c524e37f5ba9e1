//! The edge's own side: two access nodes, one in use and one at hand. For every key the next hop is the one in use. An edge
//! that finds no ring node for long becomes one, if it may.

use std::time::Duration;

use rand::seq::IndexedRandom;

use crate::config::Role;
use crate::id::NodeId;
use crate::kbr::Event;
use crate::memory;
use crate::peer::{Peer, Seed};
use crate::ring::core::{Core, Timer};
use crate::ring::join::is_another;
use crate::time::Instant;
use crate::wire::Header;

/// Ring nodes that an edge remembers to attach itself to next; beyond it, later ones are not noted.
const MAX_CANDIDATES: usize = 64;
/// Keep-alives without an answer after which an access node counts as lost.
const SILENT_PERIODS: f64 = 3.5;

/// The access nodes of an edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Access {
    /// At most two that took this edge, the one in use first.
    nodes: Vec<AccessNode>,
    /// Asked, but not answered yet.
    asked: Option<(Peer, Instant)>,
    candidates: Vec<Peer>,
    /// Since when there has been none.
    lost: Option<Instant>,
}

/// An access node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AccessNode {
    peer: Peer,
    heard: Instant,
    /// When it was last asked to keep this edge.
    asked: Instant,
    /// From that question to its answer; the first one may have waited for a connection.
    round_trip: Option<Duration>,
}

/// The outcome of an access node's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    /// Nothing new.
    Kept,
    /// It refuses: it counts as lost.
    Refused,
    /// The edge is attached there now. `is_only`: it was to none before.
    Gained { is_only: bool },
}

/// The outcome of the loss of an access node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccessLost {
    /// This edge was attached there: what waits for it goes another way.
    pub(crate) was_attached: bool,
    /// Others reach this edge through another one now.
    pub(crate) contact_changed: bool,
}

impl Access {
    /// The one in use.
    pub(crate) fn primary(&self) -> Option<Peer> {
        self.nodes.first().map(|node| node.peer)
    }

    /// The round-trip time to an access node, if it was measured.
    pub(crate) fn rtt(&self, id: NodeId) -> Option<Duration> {
        self.nodes.iter().find(|node| node.peer.id == id)?.round_trip
    }

    pub(crate) fn contains(&self, id: NodeId) -> bool {
        self.nodes.iter().any(|node| node.peer.id == id)
    }

    /// The access nodes.
    pub(crate) fn in_use(&self) -> Vec<Peer> {
        self.nodes.iter().map(|node| node.peer).collect()
    }

    /// The access nodes, and after them others worth remembering.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let mut peers = self.in_use();
        for &candidate in &self.candidates {
            if !peers.iter().any(|peer| peer.id == candidate.id) {
                peers.push(candidate);
            }
        }
        peers
    }

    /// Asks a node to let this edge attach itself.
    pub(crate) fn ask(&mut self, now: Instant, core: &mut Core, peer: Peer) {
        self.asked = Some((peer, now));
        core.send(peer, Header::Attach);
    }

    pub(crate) fn on_attached(
        &mut self,
        now: Instant,
        core: &mut Core,
        from: Peer,
        accepted: bool,
        members: Vec<Peer>,
    ) -> Attached {
        // A ring node that was an edge need not be kept; and a node that is not asked does not make itself this edge's way to
        // every node.
        if !core.is_edge() || !self.expects(from.id) {
            core.send(from, Header::Detach);
            return Attached::Kept;
        }
        let me = core.me.id;
        self.note(members.into_iter().filter(|peer| peer.id != me));
        let asked = self.asked.take_if(|(peer, _)| peer.id == from.id).map(|(_, asked)| asked);
        if !accepted {
            return Attached::Refused;
        }
        match self.nodes.iter_mut().find(|node| node.peer.id == from.id) {
            Some(node) => {
                node.hear(now, from);
                Attached::Kept
            }
            None => self.gain(now, core, from, asked),
        }
    }

    fn gain(&mut self, now: Instant, core: &mut Core, peer: Peer, asked: Option<Instant>) -> Attached {
        if self.nodes.len() >= 2 {
            core.send(peer, Header::Detach);
            return Attached::Kept;
        }
        self.note([peer]);
        let round_trip = asked.map(|asked| now - asked);
        self.nodes.push(AccessNode { peer, heard: now, asked: now, round_trip });
        self.lost = None;
        Attached::Gained { is_only: self.nodes.len() == 1 }
    }

    /// Looks for a second access node, unless one is known or asked.
    pub(crate) fn look_for_standby(&mut self, now: Instant, core: &mut Core) {
        if self.nodes.len() >= 2 || self.asked.is_some() {
            return;
        }
        let others = self.candidates.iter().filter(|peer| !self.contains(peer.id));
        let others: Vec<Peer> = others.copied().collect();
        if let Some(&peer) = others.choose(&mut core.rng) {
            self.ask(now, core, peer);
        }
    }

    /// Whether a broken connection, or one that cannot be made, is news: for an access node that is enough to use the other.
    pub(crate) fn is_concerned(&self, core: &Core, id: NodeId) -> bool {
        let asked = self.asked.is_some_and(|(peer, _)| peer.id == id);
        core.is_edge() && (asked || self.contains(id))
    }

    /// An access node is gone, or refuses this edge.
    pub(crate) fn lose(&mut self, core: &mut Core, id: NodeId) -> AccessLost {
        let was_primary = self.primary().is_some_and(|peer| peer.id == id);
        let attached = self.nodes.iter().find(|node| node.peer.id == id).map(|node| node.peer.incarnation);
        self.nodes.retain(|node| node.peer.id != id);
        self.candidates.retain(|peer| peer.id != id);
        self.asked.take_if(|(peer, _)| peer.id == id);
        if let Some(incarnation) = attached {
            core.emit(Event::PeerDown { id, incarnation });
        }
        AccessLost {
            was_attached: attached.is_some(),
            contact_changed: was_primary && self.primary().is_some(),
        }
    }

    /// Notes since when there is no access node.
    pub(crate) fn note_none(&mut self, now: Instant, core: &Core) {
        if self.nodes.is_empty() && core.is_ready() {
            self.lost.get_or_insert(now);
        }
    }

    /// Access nodes that have not answered for long.
    pub(crate) fn silent(&self, now: Instant, core: &Core) -> Vec<NodeId> {
        let patience = core.config.edges.keepalive.mul_f64(SILENT_PERIODS);
        let heard = self.nodes.iter().map(|node| (node.peer, node.heard)).chain(self.asked);
        heard.filter(|&(_, heard)| now - heard > patience).map(|(peer, _)| peer.id).collect()
    }

    /// Tells the access nodes that this edge is there. Returns since when there is none.
    pub(crate) fn keep_alive(&mut self, now: Instant, core: &mut Core) -> Option<Instant> {
        for access in self.in_use() {
            core.send(access, Header::Attach);
        }
        self.nodes.iter_mut().for_each(|node| node.asked = now);
        self.lost.filter(|_| self.nodes.is_empty())
    }

    /// Whether an edge without access nodes since then is to become a ring node.
    pub(crate) fn is_to_be_promoted(now: Instant, core: &Core, since: Instant) -> bool {
        matches!(core.role, Role::Edge { promote_after: Some(limit) } if now - since >= limit)
    }

    /// Asks every known node and seed to let this edge attach itself.
    pub(crate) fn ask_everybody<'a>(&self, core: &mut Core, seeds: impl Iterator<Item = &'a Seed>) {
        let seeds = self.candidates.iter().map(|&peer| peer.into()).chain(seeds.copied());
        for seed in seeds.collect::<Vec<Seed>>() {
            if is_another(&core.me, &seed) {
                core.send_to_seed(seed, Header::Attach);
            }
        }
    }

    /// The edge becomes a ring node: forgets all. Returns the nodes that were worth remembering.
    pub(crate) fn retire(&mut self, core: &mut Core) -> Vec<Peer> {
        core.timers.cancel(Timer::Edge);
        std::mem::take(self).candidates
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        memory::list(&self.nodes) + memory::list(&self.candidates)
    }

    /// Whether an answer of this node is waited for. Without any access node every known node is asked.
    fn expects(&self, id: NodeId) -> bool {
        self.contains(id) || self.lost.is_some() || self.asked.is_some_and(|(peer, _)| peer.id == id)
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
}

impl AccessNode {
    /// Its answer came: the first one since it was asked gives the round-trip time.
    fn hear(&mut self, now: Instant, peer: Peer) {
        if self.heard < self.asked {
            self.round_trip = Some(now - self.asked);
        }
        self.peer = peer;
        self.heard = now;
    }
}

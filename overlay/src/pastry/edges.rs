//! Edge nodes, from the side of the ring node that they hang on (design §5).

use std::collections::BTreeMap;

use super::{Node, Timer};
use crate::id::NodeId;
use crate::kbr::Event;
use crate::memory;
use crate::peer::Peer;
use crate::time::Instant;
use crate::wire::Header;

/// The edges that hang on this node, and when each was last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Edges {
    by_id: BTreeMap<NodeId, (Peer, Instant)>,
}

impl Edges {
    pub(super) fn contains(&self, id: NodeId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(super) fn peer(&self, id: NodeId) -> Option<Peer> {
        self.by_id.get(&id).map(|&(peer, _)| peer)
    }

    pub(super) fn peers(&self) -> Vec<Peer> {
        self.by_id.values().map(|&(peer, _)| peer).collect()
    }

    /// Gives back what edges that have gone had taken.
    pub(super) fn tidy(&mut self) {
        if self.by_id.is_empty() {
            self.by_id = BTreeMap::new();
        }
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::tree(self.by_id.len(), size_of::<(NodeId, (Peer, Instant))>())
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
}

impl Node {
    pub(super) fn on_attach(&mut self, now: Instant, from: Peer) {
        let room = self.edges.by_id.len() < self.config.max_edges || self.edges.contains(from.id);
        let accepted = self.is_ready() && !self.is_edge() && room;
        if accepted {
            self.edges.by_id.insert(from.id, (from, now));
            if !self.deadlines.is_set(Timer::Edge) {
                self.deadlines.set(Timer::Edge, now + self.config.edge_keepalive);
            }
        }
        let members = self.leaf_set.iter().copied().collect();
        self.transmit(from, Header::Attached { accepted, members });
    }

    pub(super) fn on_detach(&mut self, from: Peer) {
        if self.edges.by_id.remove(&from.id).is_some() {
            self.events.push_back(Event::PeerDown(from.id));
        }
    }

    /// Forgets edges that fell silent for three periods and a bit.
    pub(super) fn forget_silent_edges(&mut self, now: Instant) {
        let patience = self.config.edge_keepalive.mul_f64(3.5);
        let silent: Vec<NodeId> = self
            .edges
            .by_id
            .iter()
            .filter(|(_, (_, heard))| now - *heard > patience)
            .map(|(&id, _)| id)
            .collect();
        for id in silent {
            self.edges.by_id.remove(&id);
            self.events.push_back(Event::PeerDown(id));
        }
        if !self.edges.by_id.is_empty() {
            self.deadlines.set(Timer::Edge, now + self.config.edge_keepalive);
        }
    }
}

//! Edge nodes, from the side of the ring node that they are attached to.

use std::collections::BTreeMap;

use crate::id::NodeId;
use crate::kbr::Event;
use crate::memory;
use crate::peer::Peer;
use crate::ring::core::{Core, Timer};
use crate::ring::invariants::Size;
use crate::ring::tables::Tables;
use crate::time::Instant;
use crate::wire::Header;

/// Keep-alives that may fail to come before an edge is forgotten.
const SILENT_PERIODS: f64 = 3.5;

/// The edges that are attached to this node, and when each was last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Edges {
    by_id: BTreeMap<NodeId, (Peer, Instant)>,
}

impl Edges {
    pub(crate) fn contains(&self, id: NodeId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(crate) fn peer(&self, id: NodeId) -> Option<Peer> {
        self.by_id.get(&id).map(|&(peer, _)| peer)
    }

    pub(crate) fn peers(&self) -> Vec<Peer> {
        self.by_id.values().map(|&(peer, _)| peer).collect()
    }

    /// An edge asks to be attached, or to stay so.
    pub(crate) fn on_attach(&mut self, now: Instant, core: &mut Core, tables: &Tables, from: Peer) {
        let room = self.by_id.len() < core.config.edges.max || self.contains(from.id);
        let accepted = core.is_on_ring() && room;
        if accepted {
            self.by_id.insert(from.id, (from, now));
            if !core.timers.is_set(Timer::Edge) {
                core.timers.set(Timer::Edge, now + core.config.edges.keepalive);
            }
        }
        core.send(from, Header::Attached { accepted, members: tables.members() });
    }

    pub(crate) fn on_detach(&mut self, core: &mut Core, from: NodeId) {
        if let Some((Peer { id, incarnation, .. }, _)) = self.by_id.remove(&from) {
            core.emit(Event::PeerDown { id, incarnation });
        }
    }

    /// This life of a peer was heard: an earlier one is attached here no more. Returns its incarnation, if it was.
    pub(crate) fn forget_earlier(&mut self, life: Peer) -> Option<u64> {
        let attached = self.by_id.get(&life.id)?.0.incarnation;
        (attached < life.incarnation).then(|| {
            self.by_id.remove(&life.id);
            attached
        })
    }

    /// Forgets edges that fell silent.
    pub(crate) fn on_timer(&mut self, now: Instant, core: &mut Core) {
        let patience = core.config.edges.keepalive.mul_f64(SILENT_PERIODS);
        let is_silent = |heard: Instant| now - heard > patience;
        let silent = self.by_id.iter().filter(|(_, (_, heard))| is_silent(*heard));
        for id in silent.map(|(&id, _)| id).collect::<Vec<NodeId>>() {
            self.on_detach(core, id);
        }
        if !self.by_id.is_empty() {
            core.timers.set(Timer::Edge, now + core.config.edges.keepalive);
        }
    }

    /// Gives back what edges that have gone had taken.
    pub(crate) fn tidy(&mut self) {
        if self.by_id.is_empty() {
            self.by_id = BTreeMap::new();
        }
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        memory::tree(self.by_id.len(), size_of::<(NodeId, (Peer, Instant))>())
    }

    /// How many are attached (promise O5).
    pub(crate) fn size(&self, most: usize) -> Size {
        ("edges", self.by_id.len(), most)
    }
}

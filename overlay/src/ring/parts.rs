//! Parts of a node, borrowed together for one component's work.

use super::core::Core;
use super::failure::{FailureDetector, Ground};
use super::node::Node;
use super::relay::Relaying;
use super::routing::View;
use crate::geometry::{Cx, Geometry};
use crate::id::NodeId;
use crate::peer::Peer;
use crate::time::Instant;

impl<G: Geometry> Node<G> {
    /// The node of this id in the tables that are kept alive.
    pub(super) fn member(&self, id: NodeId) -> Option<Peer> {
        self.tables.member(&self.geometry, id)
    }

    /// Whether this node answers for its range now.
    pub(super) fn is_serving(&self, now: Instant) -> bool {
        self.leases.is_serving(now, &self.core, &self.tables)
    }

    /// The view by which the next hop is decided.
    pub(super) fn view(&self) -> View<'_, G> {
        View {
            me: self.core.me.id,
            tables: &self.tables,
            slots: &self.slots,
            detector: &self.detector,
            geometry: &self.geometry,
        }
    }

    /// The rules of relaying.
    pub(super) fn relaying(&self) -> Relaying<'_, G> {
        Relaying {
            core: &self.core,
            tables: &self.tables,
            geometry: &self.geometry,
            detector: &self.detector,
            access: &self.access,
            edges: &self.edges,
            around: self.join.view().unwrap_or(&self.tables.leaf_set),
        }
    }

    /// The detector, and what it needs to know of one peer.
    pub(super) fn detecting(&mut self, id: NodeId) -> (&mut FailureDetector, &mut Core, Ground<'_>) {
        let ground = Ground {
            tables: &self.tables,
            view: self.join.view(),
            member: self.member(id),
            table_rtt: self.geometry.rtt(id),
        };
        (&mut self.detector, &mut self.core, ground)
    }

    /// The geometry, and what it works with.
    pub(super) fn shaping(&mut self, now: Instant) -> (&mut G, Cx<'_>) {
        let cx = Cx {
            now,
            core: &mut self.core,
            tables: &self.tables,
            detector: &self.detector,
            budget: &mut self.repair.budget,
            lost: &self.merge.lost,
        };
        (&mut self.geometry, cx)
    }
}

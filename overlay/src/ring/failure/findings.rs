//! The detector's questions and findings.

use std::time::Duration;

use super::Question;
use crate::id::NodeId;
use crate::peer::Peer;
use crate::ring::tables::Tables;
use crate::sides::Sides;
use crate::table::LeafSet;
use crate::time::Instant;

/// The knowledge of other components about a peer that is to be probed.
pub(crate) struct Ground<'a> {
    pub(crate) tables: &'a Tables,
    /// The leaf set as it will be, while the node takes its place.
    pub(crate) view: Option<&'a LeafSet>,
    /// The peer, if it stands in a table that is kept alive.
    pub(crate) member: Option<Peer>,
    /// Its round-trip time by the geometry's tables.
    pub(crate) table_rtt: Option<Duration>,
}

impl Ground<'_> {
    /// The leaf set, or what is to become it.
    pub(super) fn around(&self) -> &LeafSet {
        self.view.unwrap_or(&self.tables.leaf_set)
    }
}

/// The decision of the detector when a probe was not answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detected {
    /// The peer lives: only the answer was lost.
    Alive { peer: Peer, question: Question },
    /// It was asked again.
    Suspect(NodeId),
    /// It is dead. `is_own`: by more than one silence, or without any node's hint.
    Dead { peer: Peer, is_own: bool },
}

/// A probe that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// When it was sent.
    pub(crate) sent: Instant,
    /// The leases for which it asked.
    pub(crate) sides: Sides,
}

/// The watched nodes of one sweep, by id, each with the silence after which it is probed.
pub(crate) struct Sweep {
    pub(crate) watched: Vec<(Peer, Duration)>,
}

//! The differences between one ring and another: the tables beyond the leaf set, the next hop by them, and their upkeep. All
//! else (joins, leases, liveness, hops, lookups, edges, merging) is common and stands in [`ring`](crate::ring).
//!
//! A new geometry takes one folder here: a type that implements [`Geometry`]. It runs as [`Node<G>`](crate::ring::Node), under
//! the same Scribe, driver, simulator and judges. Two ship: [`Pastry`](pastry::Pastry), and
//! [`FullMembership`](full::FullMembership), in which every node knows every node.

pub mod full;
pub mod pastry;

use std::hash::Hash;
use std::time::Duration;

use crate::config::Config;
use crate::id::{Key, NodeId};
use crate::memory::Memory;
use crate::peer::{Addresses, Peer};
use crate::ring::repair::{Budget, LostPeers};
use crate::ring::tables::Tables;
use crate::ring::{Core, FailureDetector, Size};
use crate::table::LeafSet;
use crate::time::Instant;
use crate::wire::GeometryFrame;

/// The tables of one node beyond its leaf set, and the decisions about them.
///
/// A geometry sends its own frames through [`Cx`]; it probes no node itself, but returns the peers that it wants to be probed.
pub trait Geometry: Clone + Hash + 'static {
    /// A frame of this geometry.
    type Frame;

    /// Empty tables.
    fn new(me: NodeId, config: &Config) -> Self;

    /// Where a message for this key goes next by these tables. It is asked only for keys beyond the leaf set.
    fn next_hop(&self, key: Key, leaf_set: &LeafSet, usable: &Usable<'_>) -> Option<TableHop>;

    /// The entry of this id, if it is kept alive: its death is noticed, and counts.
    fn get(&self, id: NodeId) -> Option<&Peer>;
    /// The round-trip time to an entry, if it was measured.
    fn rtt(&self, id: NodeId) -> Option<Duration>;
    /// The entries that messages are routed by.
    fn entries(&self) -> impl Iterator<Item = &Peer>;
    /// All nodes of the ring that the tables name.
    fn known(&self) -> impl Iterator<Item = &Peer>;
    /// How messages are routed by the entries.
    fn table_use(&self) -> TableUse;
    /// The entries that are to be probed when they are silent for long: those that are routed by first.
    fn in_use(&self) -> impl Iterator<Item = Peer>;
    /// Whether a node of this id that others name is worth a probe.
    fn wants(&self, id: NodeId) -> bool;
    /// At most so many entries whose tables have a dead entry of this node's, too.
    fn gossip_partners(&self, detector: &FailureDetector, most: usize) -> Vec<Peer>;
    /// The nodes that a seeker is told, at most as many as fit into a frame.
    fn told_to(&self, leaf_set: &LeafSet, seeker: NodeId) -> Vec<Peer>;

    /// A ready node was heard, and has measured itself to be so near (`told`). Returns whether it has become an entry.
    fn on_met(&mut self, cx: &mut Cx<'_>, peer: Peer, told: Option<Duration>) -> bool;
    /// A member of the leaf set, which has answered this joiner, becomes an entry where it fits.
    fn on_joined(&mut self, peer: Peer, rtt: Option<Duration>);
    /// The round-trip time to a node was measured.
    fn on_measured(&mut self, peer: Peer, rtt: Duration, is_leaf: bool);
    /// A node is dead.
    fn on_dead(&mut self, id: NodeId);
    /// This node is on the ring.
    fn on_ready(&mut self, cx: &mut Cx<'_>);
    /// Another ring was found: there is much to be found again.
    fn on_rings_met(&mut self, now: Instant);
    /// The root of this node's id has named these nodes.
    fn on_named(&mut self, cx: &mut Cx<'_>, named: &[Peer]);
    /// A ready node has told its leaf set.
    fn on_leaf_set(&mut self, cx: &mut Cx<'_>, from: Peer, members: &[Peer]);

    /// The mean time to the next round of leaf-set repair.
    fn repair_period(&mut self, config: &Config, leaf_set: &LeafSet) -> Duration;
    /// A round of repair begins.
    fn on_repair_round(&mut self, cx: &mut Cx<'_>);
    /// With which node leaf sets are compared in this round; `None`: any member of the leaf set.
    fn repair_partner(&mut self, cx: &mut Cx<'_>) -> Option<Peer>;

    /// Entries that are to be measured before the next round of upkeep.
    fn to_measure(&mut self, cx: &mut Cx<'_>) -> Vec<Peer>;
    /// A round of upkeep (`Timer::Geometry`).
    fn on_timer(&mut self, cx: &mut Cx<'_>);
    /// Reads a frame, which may name these addresses: one that names another is refused, as nobody else can see into it.
    /// `None`: it is refused, or none of this geometry's.
    fn read(frame: &GeometryFrame, addresses: Addresses) -> Option<Self::Frame>;
    /// The news that a frame of this geometry has of its sender.
    fn greeting(&mut self, now: Instant, from: Peer, frame: &Self::Frame) -> Greeting;
    /// A frame of this geometry, after its sender was met. Returns the nodes that are to be probed.
    fn on_frame(&mut self, cx: &mut Cx<'_>, from: Peer, frame: Self::Frame) -> Vec<Peer>;

    /// Gives back what bursts have taken.
    fn tidy(&mut self);
    /// Adds up the bytes on the heap.
    fn memory(&self, parts: &mut Memory);
    /// How much is kept, beside its limits (promise O5).
    fn sizes(&self, config: &Config) -> Vec<Size>;
    /// Panics if an invariant is broken.
    fn assert_invariants(&self, core: &Core);
}

/// The context of a geometry.
pub struct Cx<'a> {
    pub(crate) now: Instant,
    pub(crate) core: &'a mut Core,
    pub(crate) tables: &'a Tables,
    pub(crate) detector: &'a FailureDetector,
    pub(crate) budget: &'a mut Budget,
    pub(crate) lost: &'a LostPeers,
}

impl Cx<'_> {
    /// Whether a node that others name may be dead: it was found dead a short while ago, or is being removed.
    pub(crate) fn is_barred(&self, peer: &Peer) -> bool {
        self.detector.has_ended(self.now, peer) || self.tables.is_being_removed(peer.id)
    }

    /// Whether so many nodes may be named now; then they are paid for.
    pub(crate) fn may_name(&mut self, peers: usize) -> bool {
        self.budget.may_name(self.now, self.core, peers)
    }
}

/// Which nodes may be a message's next hop.
pub struct Usable<'a> {
    /// It is none of those that were tried in vain, and within promise O2.
    pub allowed: &'a dyn Fn(&Peer) -> bool,
    /// It is closer to the key than this node.
    pub closer: &'a dyn Fn(&Peer) -> bool,
    /// It has not answered lately.
    pub is_suspect: &'a dyn Fn(NodeId) -> bool,
}

/// A next hop by a geometry's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableHop {
    /// As if by the leaf set: from here on each hop must be strictly closer (promise O2).
    Closer(Peer),
    /// By the geometry's own rule.
    Along(Peer),
}

/// How messages are routed by a geometry's tables: for how often the nodes in use are probed.
#[derive(Clone, Copy, Debug)]
pub struct TableUse {
    /// Hops that a message makes by them, at the most.
    pub hops: usize,
    /// Nodes in use.
    pub nodes: usize,
}

/// The news that a frame has of its sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// The frame answers a question that was asked so long ago.
    pub round_trip: Option<Duration>,
    /// How near the sender says that it is.
    pub told: Option<Duration>,
}

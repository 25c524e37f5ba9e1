//! A ring node as a state machine: its way onto the ring, its leases, failure detection, routing, and the upkeep of all that.
//! The differences between geometries are behind [`Geometry`](crate::geometry::Geometry).
//!
//! Components own their state **and** their decisions, and know nothing but a small context, [`Core`]. A component returns the
//! news that it has for the others; [`Node`] is the coordinator that handles it, the only place where they meet:
//!
//! | component | owns |
//! | --- | --- |
//! | `core` | identity, configuration, phase, random numbers, timers, outbox |
//! | `tables` | the leaf set, and which of its members are out of use |
//! | `join` | the way onto the ring, from both sides |
//! | `leases` | leases held and granted, and those that travel along with other frames |
//! | `failure` | what is known of peers' lives: probes, silence, death, detours |
//! | `routing` | the next hop; hops, lookups and broadcasts under way |
//! | `repair` | the leaf set's exchange within a budget; lost peers, rings that merge |
//! | `edge` | an edge's access nodes; the edges of a ring node |
//! | `relay` | whose messages and frames this node passes on, and which it takes from those that pass on |
//!
//! The coordinator has four files: `node` (the face, and which frame or timer goes where), `arrival` (how a node comes and
//! goes), `membership` (which nodes are around it), `messages` (what passes through it). Beside
//! them, `invariants` checks it and `parts` lends it out.
//!
//! Sources: Rowstron & Druschel 2001 ("Pastry"), Castro, Costa & Rowstron 2004 ("MSPastry"), Azmy, Merz & Weidenbach
//! 2016 for the join, Rhea et al. 2004 for repair. `docs/papers.md` maps sections to files and tests.

pub(crate) mod core;
pub(crate) mod tables;
pub(crate) mod join;
pub(crate) mod leases;
pub(crate) mod failure;
pub(crate) mod routing;
pub(crate) mod repair;
pub(crate) mod edge;
pub(crate) mod relay;
mod node;
mod parts;
mod arrival;
mod membership;
mod messages;
pub(crate) mod invariants;
mod model;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use self::core::Core;
pub use self::failure::FailureDetector;
pub use self::invariants::Size;
pub use self::node::Node;

//! The overlay that ships: a ring node with Pastry's tables.

pub use crate::ring::Size;

/// A node of a Pastry ring.
pub type Node = crate::ring::Node<crate::geometry::pastry::Pastry>;

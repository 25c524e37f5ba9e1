//! The laboratory: a world of real [`Machine`](treecast_overlay::machine::Machine)s in virtual time, and what judges it.

pub mod world;
pub mod node;
pub mod cluster;
pub mod check;
pub mod timeline;
pub mod model;
pub mod lab;
pub mod report;

//! Publish and subscribe without a broker: Scribe trees over a Pastry overlay.

pub mod event;
pub mod message;
pub mod topic;

pub use treecast_overlay as overlay;

//! Publish and subscribe without a broker: Scribe trees over a Pastry overlay.
//!
//! [`stack::Stack`] is a node of the overlay and a [`forest::Forest`] as one
//! [`Machine`](treecast_overlay::machine::Machine).

pub mod config;
pub mod event;
pub mod forest;
pub mod message;
mod publisher;
mod sessions;
pub mod stack;
pub mod topic;
mod window;
mod early;
pub mod wire;

pub use config::{Config, ConfigError};
pub use stack::Stack;
pub use treecast_overlay as overlay;

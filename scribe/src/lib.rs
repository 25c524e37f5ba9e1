//! Publish and subscribe without a broker: Scribe trees over a Pastry overlay.
//!
//! [`stack::Stack`] is a node of the overlay and a [`forest::Forest`] as one
//! [`Machine`](treecast_overlay::machine::Machine).

pub mod topic;
pub mod message;
pub mod config;
pub mod event;
pub mod wire;
#[doc(hidden)]
pub mod log;
mod permit;
mod sorted;
mod publisher;
pub mod forest;
pub mod stack;
#[cfg(feature = "tokio")]
pub mod service;

pub use config::{Config, ConfigError};
pub use message::{
    BroadcastError, Gap, GapReason, Item, Mark, Message, Position, PublishError, Receipt, Start,
    SubscribeError,
};
#[cfg(feature = "tokio")]
pub use service::{
    Broadcast, Broadcasts, Builder, Error, IntoSeed, IntoTopic, LookupError, PendingReceipt, Publisher,
    Scribe, StartError, Stopped, Subscription,
};
pub use stack::{PastryStack, Stack};
pub use topic::{Topic, TopicError, TopicId};
pub use treecast_overlay as overlay;

/// The README's example is a test.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../../README.md")]
struct Readme;

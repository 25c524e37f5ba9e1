//! The overlay: Pastry's ring, tables and routing as a sans-IO core, with a tokio driver and a TLS transport beside it.
//!
//! A message's way in: transport bytes → [`wire::decode`] → [`Machine::handle_frame`](machine::Machine::handle_frame)
//! → [`pastry::Node`] → [`kbr::Event`]. Its way out: [`kbr::KeyBasedRouting`] → [`machine::Transmit`] →
//! [`wire::encode`] → transport.

pub mod config;
pub mod deadlines;
pub mod id;
pub mod identity;
pub mod kbr;
pub mod machine;
#[cfg(feature = "tokio")]
pub mod net;
pub mod peer;
pub mod random;
pub mod table;
pub mod time;
pub mod wire;

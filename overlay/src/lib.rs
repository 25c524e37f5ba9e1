//! The overlay: Pastry's ring, tables and routing as a sans-IO core, with a tokio driver and a TLS transport beside it.
//!
//! A message's way in: transport bytes → [`wire::decode`] → [`Machine::handle_frame`](machine::Machine::handle_frame)
//! → [`pastry::Node`] → [`kbr::Event`]. Its way out: [`kbr::KeyBasedRouting`] → [`machine::Transmit`] →
//! [`wire::encode`] → transport.

pub mod id;
pub mod time;
pub mod random;
pub mod peer;
pub mod sides;
pub mod identity;
pub mod config;
pub mod wire;
pub mod machine;
pub mod kbr;
pub mod memory;
pub mod deadlines;
pub mod table;
pub mod ring;
pub mod geometry;
pub mod pastry;
#[cfg(feature = "tokio")]
pub mod net;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

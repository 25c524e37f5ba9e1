//! The only place with sockets, a disk and a clock: the driver that runs a [`Machine`](crate::machine::Machine) on
//! tokio, and the transports that carry its frames. It knows nothing of Pastry.
//!
//! A frame's way out: driver → [`Transport::send`] → `mesh` (which peers are connected) → `queue` (what waits for one peer)
//! → `connection` (one task each) → `pipe` (TLS) → socket. Its way in: socket → `pipe` → `records` → `connection` →
//! `inbox` → [`Transport::next`] → driver, which keeps a `backlog`.

pub mod clock;
pub mod data_dir;
pub mod driver;
mod store;

pub mod memory;
pub mod tcp;
pub mod transport;

mod backlog;
mod connection;
mod inbox;
mod mesh;
mod pipe;
mod queue;
mod records;

pub use clock::Clock;
pub use data_dir::DataDir;
pub use driver::{Handle, Stopped, spawn};
pub use memory::{MemoryNetwork, MemoryTransport};
pub use mesh::Dropped;
pub use tcp::{Listen, TcpOptions, TcpTransport};
pub use transport::{Limits, Transport, TransportEvent};

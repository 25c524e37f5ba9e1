//! The only place with sockets, a disk and a clock: the driver that runs a [`Machine`](crate::machine::Machine) on
//! tokio, and the transports that carry its frames. It knows nothing of Pastry.

pub mod clock;
pub mod driver;
mod store;
pub mod transport;

pub use clock::Clock;
pub use driver::{Handle, Stopped, spawn};
pub use transport::{Transport, TransportEvent};

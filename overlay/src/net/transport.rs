//! A transport, as the driver wants it. One conformance suite (`tests/transport_conformance.rs`) holds for all.

use std::future::Future;

use crate::id::NodeId;
use crate::machine::{Destination, Link};
use crate::peer::{Addr, Peer};
use crate::wire::Frame;

/// Carries frames between nodes over authenticated connections that it makes, keeps and closes by itself.
///
/// Frames to one peer wait in two bounded queues, control ([`Frame::is_control`]) before data; the policies at
/// their limits are told at [`Limits`]. Frames arrive whole, each class of one connection in its order; they are
/// lost when a connection breaks.
pub trait Transport: Send + 'static {
    /// Where others can dial this transport.
    fn local_addr(&self) -> Addr;

    /// Queues a frame, dialling if there is no connection. Never blocks; what becomes of a frame that cannot be
    /// sent is told by [`TransportEvent::Link`] or the log.
    fn send(&mut self, to: Destination, frame: Frame);

    /// Starts the transmission of what was queued since the last call. Called once per turn, so that a turn's
    /// frames leave together.
    fn flush(&mut self);

    /// The events since the last call; waits until there is one. Never empty. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Vec<TransportEvent>> + Send;

    /// Sends what is queued, within [`CLOSE_WITHIN`], tells the peers, and ends all connections and tasks. Dropping
    /// a transport ends them too, at once.
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// How long a closing transport tries to send what is queued.
pub const CLOSE_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// An event of a transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransportEvent {
    /// A frame came. Its payload pins no more memory than the frame's own bytes.
    Frame {
        /// The sender, by the connection's greeting.
        from: Peer,
        /// The frame.
        frame: Frame,
    },
    /// News of a connection.
    Link(Link),
    /// The data that waits for a peer has grown or shrunk by [`QUEUED_STEP`] since it was last told, or is all gone. With this
    /// node itself for the peer: much has come that is not handled yet, or little is left of it (0).
    Queued {
        /// The receiver.
        peer: NodeId,
        /// How much waits, in bytes.
        bytes: usize,
    },
}

/// How far the data waiting for a peer moves before [`TransportEvent::Queued`] says so again, in bytes.
pub const QUEUED_STEP: usize = 64 * 1024;

/// The bytes that a transport may hold for its peers. Sizes are encoded sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame in bytes, 1 KiB to 64 MiB; default 1 MiB. A larger one is neither sent (it is dropped, with a
    /// log line) nor received (its connection is closed before the excess is read).
    pub max_frame: usize,
    /// Control frames that may wait for one peer; the next one closes the connection, as the peer is not reading.
    pub control_frames: usize,
    /// Bytes of control frames that may wait for one peer; beyond, as above.
    pub control_bytes: usize,
    /// Bytes of data frames that may wait for one peer, never less than one largest frame. Beyond, data frames are
    /// dropped, counted and logged: the core repairs that by its acknowledgements.
    pub data_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_frame: 1024 * 1024,
            control_frames: 4096,
            control_bytes: 4 * 1024 * 1024,
            data_bytes: 8 * 1024 * 1024,
        }
    }
}

/// A frame limit that is out of bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("max_frame is {0} bytes: it must be between 1 KiB and 64 MiB")]
pub struct LimitsError(usize);

impl Limits {
    /// Says whether the frame limit is within bounds.
    pub fn check(&self) -> Result<(), LimitsError> {
        if (1024..=64 * 1024 * 1024).contains(&self.max_frame) {
            Ok(())
        } else {
            Err(LimitsError(self.max_frame))
        }
    }

    /// Data that may wait for one peer: at least one largest frame.
    pub(crate) fn data_limit(&self) -> usize {
        self.data_bytes.max(self.max_frame)
    }
}

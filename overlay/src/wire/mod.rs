//! Frames and their bytes. A frame is a header, encoded by postcard, and a payload, the frame's uncopied tail; a lease
//! piggyback may stand before the header.
//! `docs/protocol.md` has every frame, byte by byte, with test vectors.

mod bounded;
mod codec;
mod header;
mod hello;
#[cfg(test)]
mod tests;

pub use codec::{DecodeError, EncodedFrame, decode, encode, encode_head, within};
pub use header::{
    Admission, Answer, Ask, Direct, Grant, Header, KINDS, Known, LeasePiggyback, MAX_PATH, MAX_PEERS,
    MAX_TRACE, Near, NodeState, Probe, ProbeAck, Purpose, RouteFailure, Routed, TraceHop,
};
pub use hello::{Hello, HelloError, MAX_NETWORK_NAME, PROTOCOL_VERSION};

use bytes::Bytes;

/// One message between two neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Its lease piggyback, if any.
    pub piggyback: Option<Box<LeasePiggyback>>,
    /// Its header.
    pub header: Header,
    /// The payload for the layer above; empty for the overlay's own frames.
    pub payload: Bytes,
}

impl Frame {
    /// A frame that says nothing of leases besides.
    pub fn new(header: Header, payload: Bytes) -> Frame {
        Frame { piggyback: None, header, payload }
    }

    /// Whether this frame goes before data in every queue: the overlay's own frames keep leases alive and rings
    /// whole, and are small.
    pub fn is_control(&self) -> bool {
        self.payload.is_empty()
    }
}

impl From<Header> for Frame {
    fn from(header: Header) -> Frame {
        Frame::new(header, Bytes::new())
    }
}

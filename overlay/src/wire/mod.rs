//! Frames and their bytes. A frame is a header, encoded by postcard, and a payload, the frame's uncopied tail; a lease
//! piggyback may stand before the header.
//! `docs/protocol.md` has every frame, byte by byte, with test vectors.

pub(crate) mod bounded;
mod codec;
mod header;
mod hello;
#[cfg(test)]
mod tests;

pub use codec::{DecodeError, EncodedFrame, decode, encode, encode_head, within};
pub use header::{
    Admission, Answer, Ask, Class, Direct, GeometryFrame, Grant, Header, KINDS, LeasePiggyback, MAX_CONTROL,
    MAX_GEOMETRY_BYTES, MAX_PATH, MAX_PEERS, MAX_TRACE, NodeState, Probe, ProbeAck, Purpose, RouteFailure,
    Routed, TraceHop,
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

    /// Its class, by its header. What carries more than control may is data, whatever its header says.
    pub fn class(&self) -> Class {
        self.header.class(self.payload.len())
    }

    /// Whether this frame goes before data in every queue.
    pub fn is_control(&self) -> bool {
        self.class() == Class::Control
    }
}

impl From<Header> for Frame {
    fn from(header: Header) -> Frame {
        Frame::new(header, Bytes::new())
    }
}

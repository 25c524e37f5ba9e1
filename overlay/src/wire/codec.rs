//! Frames to bytes and back. Pure, bounded, and unable to panic on what a peer sends.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{Frame, Header, LeasePiggyback};
use crate::peer::Addresses;

/// The first byte of a frame that carries a lease piggyback before its header: no header begins so.
const PIGGYBACK: u8 = 0x7f;

/// A frame's bytes: head and tail stay apart, so that a payload is never copied on its way out.
#[derive(Clone, Debug)]
pub struct EncodedFrame {
    /// The encoded header.
    pub head: Bytes,
    /// The payload.
    pub payload: Bytes,
}

impl EncodedFrame {
    /// Bytes of the whole frame, without the transport's length prefix.
    pub fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Whether there is nothing: never true of an encoded frame.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Bytes that are no frame.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The header does not parse.
    #[error("malformed header")]
    Header,
    /// A list in the header is longer than its limit. How much longer is not known: the excess was not kept.
    #[error("a list in the header has more than the {limit} entries that are allowed")]
    ListTooLong {
        /// Entries allowed.
        limit: usize,
    },
    /// A payload behind a header that carries none.
    #[error("{len} bytes follow a header that carries no payload")]
    UnexpectedPayload {
        /// Bytes found.
        len: usize,
    },
    /// A node with an address that no node of a real network has.
    #[error("a node in the header has the address of a memory transport, which no node of a network has")]
    MemoryAddress,
}

/// Encodes a frame. The payload is shared, not copied.
pub fn encode(frame: &Frame) -> EncodedFrame {
    let head = extend(frame, BytesMut::with_capacity(128)).freeze();
    EncodedFrame { head, payload: frame.payload.clone() }
}

/// Encodes all of a frame but its payload behind what `buffer` has already: for transports that gather small frames.
pub fn encode_head(frame: &Frame, buffer: Vec<u8>) -> Vec<u8> {
    extend(frame, buffer)
}

fn extend<B: Extend<u8>>(frame: &Frame, mut buffer: B) -> B {
    const ENCODES: &str = "it always encodes: it has no unsized parts";
    if let Some(piggyback) = frame.piggyback.as_deref() {
        buffer.extend([PIGGYBACK]);
        buffer = postcard::to_extend(piggyback, buffer).expect(ENCODES);
    }
    postcard::to_extend(&frame.header, buffer).expect(ENCODES)
}

/// Decodes a frame that names no other addresses than these. The payload is a slice of `bytes`, not a copy.
pub fn decode(bytes: Bytes, addresses: Addresses) -> Result<Frame, DecodeError> {
    let malformed = |_| DecodeError::Header;
    let (piggyback, head) = match bytes.split_first() {
        Some((&PIGGYBACK, rest)) => {
            let (piggyback, rest) = postcard::take_from_bytes::<LeasePiggyback>(rest).map_err(malformed)?;
            (Some(Box::new(piggyback)), rest)
        }
        Some(_) | None => (None, &bytes[..]),
    };
    let (header, rest) = postcard::take_from_bytes::<Header>(head).map_err(malformed)?;
    let payload = bytes.slice(bytes.len() - rest.len()..);
    if let Some(limit) = header.list_over_limit() {
        return Err(DecodeError::ListTooLong { limit });
    }
    if !payload.is_empty() && !header.carries_payload() {
        return Err(DecodeError::UnexpectedPayload { len: payload.len() });
    }
    if !header.all_peers(|peer| addresses.contain(peer.addr)) {
        return Err(DecodeError::MemoryAddress);
    }
    Ok(Frame { piggyback, header, payload })
}

/// The frame within a [`Header::Via`] of a simulated world; `None` if the frame is none, or what it carries is no frame.
pub fn within(frame: &Frame) -> Option<Frame> {
    matches!(frame.header, Header::Via { .. })
        .then(|| decode(frame.payload.clone(), Addresses::Any).ok())
        .flatten()
}

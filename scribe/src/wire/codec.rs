//! Messages to bytes and back. Pure, bounded, and unable to panic on what a peer sends.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{Body, Header, LogTip, MAX_NUMBER};
use crate::message::{Mark, Position};

/// Bytes that are no message.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The header does not parse.
    #[error("malformed header")]
    Header,
    /// A list is longer than its limit.
    #[error("a list has {len} entries, at most {limit} are allowed")]
    ListTooLong {
        /// Entries found.
        len: usize,
        /// Entries allowed.
        limit: usize,
    },
    /// A number is larger than any that counting leads to.
    #[error("number {0} is out of range")]
    OutOfRange(u64),
    /// A term's first entry does not follow one of the term that it names.
    #[error("a term starts at offset {0}, behind no entry of an earlier term")]
    TermStart(u64),
    /// Bytes behind a header that carries no payload.
    #[error("{0} bytes follow a header that carries no payload")]
    UnexpectedPayload(usize),
}

/// Encodes a message into one buffer.
pub fn encode(header: &Header, payload: &[u8]) -> Bytes {
    let buffer = BytesMut::with_capacity(super::MAX_DATA_HEADER + payload.len());
    let mut bytes =
        postcard::to_extend(header, buffer).expect("a header always encodes: it has no unsized parts");
    bytes.extend_from_slice(payload);
    bytes.freeze()
}

/// Decodes a message. The payload is a slice of `bytes`, not a copy.
pub fn decode(bytes: &Bytes) -> Result<(Header, Bytes), DecodeError> {
    let (header, rest) = postcard::take_from_bytes::<Header>(bytes).map_err(|_| DecodeError::Header)?;
    let payload = bytes.slice(bytes.len() - rest.len()..);
    header.check()?;
    if !header.carries_payload() && !payload.is_empty() {
        return Err(DecodeError::UnexpectedPayload(payload.len()));
    }
    Ok((header, payload))
}

pub(super) fn body(at: Position, body: &Body) -> Result<(), DecodeError> {
    match *body {
        Body::Message { session, sequence, .. } => numbers(&[session, sequence]),
        Body::TermStart { previous, .. } => {
            let follows = match previous {
                None => at.offset == 0,
                Some(previous) => at.offset > 0 && previous.number < at.term.number,
            };
            if follows { Ok(()) } else { Err(DecodeError::TermStart(at.offset)) }
        }
    }
}

pub(super) fn mark(mark: Option<Mark>) -> Result<(), DecodeError> {
    position(mark.and_then(|mark| mark.position))
}

pub(super) fn position(position: Option<Position>) -> Result<(), DecodeError> {
    position.map_or(Ok(()), |position| numbers(&[position.term.number, position.offset]))
}

pub(super) fn tip(tip: Option<LogTip>) -> Result<(), DecodeError> {
    let Some(tip) = tip else { return Ok(()) };
    numbers(&[tip.term.number])?;
    position(tip.tail)
}

pub(super) fn numbers(numbers: &[u64]) -> Result<(), DecodeError> {
    match numbers.iter().find(|&&number| number >= MAX_NUMBER) {
        Some(&number) => Err(DecodeError::OutOfRange(number)),
        None => Ok(()),
    }
}

pub(super) fn at_most(len: usize, limit: usize) -> Result<(), DecodeError> {
    if len > limit { Err(DecodeError::ListTooLong { len, limit }) } else { Ok(()) }
}

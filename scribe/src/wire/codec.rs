//! Messages to bytes and back. Pure, bounded, and unable to panic on what a peer sends.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{Body, Header, LogTip, MAX_CHUNKS, MAX_MARKS, MAX_NUMBER, MAX_OFFERED, MAX_PATH, MAX_SHARED};
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
    check(&header)?;
    let carries = carries_payload(&header);
    if !carries && !payload.is_empty() {
        return Err(DecodeError::UnexpectedPayload(payload.len()));
    }
    Ok((header, payload))
}

fn carries_payload(header: &Header) -> bool {
    match header {
        Header::Data(data) => matches!(data.body, Body::Message { .. }),
        Header::Publish(_) | Header::HandoffChunk { .. } => true,
        Header::Join(_)
        | Header::Attached(_)
        | Header::Leave { .. }
        | Header::Orphan { .. }
        | Header::Ack(_)
        | Header::Receipt(_)
        | Header::Refused { .. }
        | Header::Beat(_)
        | Header::Shared(_)
        | Header::Query { .. }
        | Header::QueryAnswer { .. }
        | Header::HandoffTaken { .. }
        | Header::Offer(_)
        | Header::CapacityProbe { .. }
        | Header::CapacityAnswer { .. }
        | Header::Part { .. }
        | Header::Parted { .. } => false,
    }
}

fn check(header: &Header) -> Result<(), DecodeError> {
    match header {
        Header::Join(join) => {
            numbers(&[join.number])?;
            mark(join.after)?;
            tip(join.best_known)
        }
        Header::Attached(attached) => {
            numbers(&[attached.join, attached.seq])?;
            at_most(attached.path.len(), MAX_PATH)?;
            let Some(start) = attached.start else { return Ok(()) };
            numbers(&[start.term.number])?;
            mark(Some(start.after))?;
            position(start.latest)
        }
        Header::Data(data) => {
            position(Some(data.position))?;
            body(data.position, &data.body)
        }
        Header::Ack(ack) => {
            numbers(&[ack.join, ack.seq])?;
            position(ack.position)
        }
        Header::Publish(publish) => numbers(&[publish.session, publish.sequence, publish.acknowledged]),
        Header::Receipt(receipt) => {
            numbers(&[receipt.session, receipt.sequence])?;
            position(Some(receipt.position))
        }
        Header::Beat(beat) => {
            at_most(beat.moved.len(), MAX_MARKS)?;
            beat.moved.iter().try_for_each(|moved| position(moved.tail))
        }
        Header::Shared(shared) => at_most(shared.topics.len(), MAX_SHARED),
        Header::QueryAnswer { tip: answer, .. } => tip(*answer),
        Header::HandoffChunk { chunk, chunks, .. } => {
            at_most(*chunks as usize, MAX_CHUNKS as usize)?;
            if chunk < chunks { Ok(()) } else { Err(DecodeError::OutOfRange(u64::from(*chunk))) }
        }
        Header::Offer(offer) => at_most(offer.parents.len(), MAX_OFFERED),
        Header::Parted { last, .. } => position(*last),
        Header::Leave { .. }
        | Header::Orphan { .. }
        | Header::CapacityProbe { .. }
        | Header::CapacityAnswer { .. }
        | Header::Part { .. }
        | Header::Refused { .. }
        | Header::Query { .. }
        | Header::HandoffTaken { .. } => Ok(()),
    }
}

fn body(at: Position, body: &Body) -> Result<(), DecodeError> {
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

fn mark(mark: Option<Mark>) -> Result<(), DecodeError> {
    position(mark.and_then(|mark| mark.position))
}

fn position(position: Option<Position>) -> Result<(), DecodeError> {
    position.map_or(Ok(()), |position| numbers(&[position.term.number, position.offset]))
}

fn tip(tip: Option<LogTip>) -> Result<(), DecodeError> {
    let Some(tip) = tip else { return Ok(()) };
    numbers(&[tip.term.number])?;
    position(tip.tail)
}

fn numbers(numbers: &[u64]) -> Result<(), DecodeError> {
    match numbers.iter().find(|&&number| number >= MAX_NUMBER) {
        Some(&number) => Err(DecodeError::OutOfRange(number)),
        None => Ok(()),
    }
}

fn at_most(len: usize, limit: usize) -> Result<(), DecodeError> {
    if len > limit { Err(DecodeError::ListTooLong { len, limit }) } else { Ok(()) }
}

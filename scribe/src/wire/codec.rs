//! Messages to bytes and back. Pure, bounded, and unable to panic on what a peer sends.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{
    Body, Configuration, CopyState, Header, Lineage, MAX_CONFIGURATIONS, MAX_MEMBERS, MAX_NUMBER, Member,
    Sync,
};
use crate::message::Start;

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
    /// A configuration without members, or with one twice.
    #[error("a configuration names no member, or one twice")]
    Members,
    /// Births whose ends do not grow.
    #[error("the births of a log are not in order")]
    Lineage,
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

pub(super) fn body(body: &Body) -> Result<(), DecodeError> {
    match body {
        Body::Message { session, sequence, .. } => numbers(&[*session, *sequence]),
        Body::Configuration { members: named, birth, .. } => {
            members(named)?;
            birth.as_deref().map_or(Ok(()), |birth| lineage(&birth.lineage))
        }
    }
}

fn members(named: &[Member]) -> Result<(), DecodeError> {
    at_most(named.len(), MAX_MEMBERS)?;
    named.iter().try_for_each(|member| numbers(&[member.life]))?;
    let twice =
        |(at, member): (usize, &Member)| named[..at].iter().any(|other| other.peer.id == member.peer.id);
    if named.is_empty() || named.iter().enumerate().any(twice) { Err(DecodeError::Members) } else { Ok(()) }
}

pub(super) fn lineage(lineage: &Lineage) -> Result<(), DecodeError> {
    lineage.ancestors().iter().try_for_each(|ancestor| numbers(&[ancestor.end]))?;
    if lineage.is_sound() { Ok(()) } else { Err(DecodeError::Lineage) }
}

pub(super) fn start(start: Start) -> Result<(), DecodeError> {
    match start {
        Start::After(mark) => numbers(&[mark.next]),
        Start::Latest | Start::Earliest | Start::Last(_) => Ok(()),
    }
}

fn configurations(all: &[Configuration]) -> Result<(), DecodeError> {
    at_most(all.len(), MAX_CONFIGURATIONS)?;
    all.iter().try_for_each(|configuration| {
        numbers(&[configuration.at])?;
        members(&configuration.members)
    })
}

pub(super) fn copy(copy: &CopyState) -> Result<(), DecodeError> {
    numbers(&[copy.life, copy.synced.number, copy.start, copy.commit, copy.end])?;
    lineage(&copy.lineage)?;
    configurations(&copy.configurations)?;
    if copy.start <= copy.commit && copy.commit <= copy.end {
        Ok(())
    } else {
        Err(DecodeError::OutOfRange(copy.commit))
    }
}

pub(super) fn sync(sync: &Sync) -> Result<(), DecodeError> {
    numbers(&[sync.life, sync.term.number, sync.upto, sync.commit])?;
    configurations(&sync.configurations)
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

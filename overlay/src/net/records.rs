//! The records that pass over a connection: four bytes of head (kind, then length as u24, big-endian) and a body of
//! at most 64 KiB. A frame is one record or several; records of control frames may stand between those of a data frame.

use bytes::Bytes;

use crate::peer::Addresses;
use crate::wire::{DecodeError, Frame, decode};

/// Bytes in front of each record.
pub(super) const HEAD: usize = 4;
/// Longest body of a record.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// Longest body of a record that is no frame: a greeting, a farewell.
const MAX_WORD: usize = 512;

const CONTROL: u8 = 0;
const DATA: u8 = 1;
/// Added to `CONTROL` or `DATA`: the frame goes on in a later record.
const MORE: u8 = 2;
const HELLO: u8 = 0x10;
const ACCEPT: u8 = 0x11;
const GOODBYE: u8 = 0x12;

/// Something whole that came over a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The greeting's bytes.
    Hello(Bytes),
    /// The node with the smaller id has decided for this connection.
    Accept,
    /// The other side sends no more.
    Goodbye(Goodbye),
    /// A frame.
    Frame(Frame),
}

/// Why one side sends no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goodbye {
    /// Nothing passed for a while. The next frame opens a new connection.
    Idle,
    /// Another connection between the same nodes takes over.
    Replaced,
    /// The node shuts down.
    Shutdown,
}

/// Bytes that are no records.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum RecordError {
    #[error("unknown record kind {0:#04x}")]
    Kind(u8),
    #[error("a record of {len} bytes, at most {limit} are allowed")]
    RecordTooLong { len: usize, limit: usize },
    #[error("a frame of at least {len} bytes, at most {limit} are allowed")]
    FrameTooLong { len: usize, limit: usize },
    #[error("malformed farewell")]
    Goodbye,
    #[error("a frame that does not parse: {0}")]
    Frame(#[from] DecodeError),
}

/// The head of a frame's record.
pub(super) fn frame_head(control: bool, more: bool, len: usize) -> [u8; HEAD] {
    let class = if control { CONTROL } else { DATA };
    head(if more { class | MORE } else { class }, len)
}

fn head(kind: u8, len: usize) -> [u8; HEAD] {
    debug_assert!(len <= MAX_BODY);
    let [_, high, middle, low] = (len as u32).to_be_bytes();
    [kind, high, middle, low]
}

/// A greeting as a record.
pub(super) fn hello(greeting: &[u8]) -> Vec<u8> {
    [&head(HELLO, greeting.len()), greeting].concat()
}

/// `Accept` as a record.
pub(super) fn accept() -> Vec<u8> {
    head(ACCEPT, 0).to_vec()
}

/// A farewell as a record.
pub(super) fn goodbye(reason: Goodbye) -> Vec<u8> {
    let code = match reason {
        Goodbye::Idle => 0,
        Goodbye::Replaced => 1,
        Goodbye::Shutdown => 2,
    };
    [&head(GOODBYE, 1), &[code][..]].concat()
}

/// Puts records and frames together from bytes as they come. Memory grows with what was received, never with what
/// was promised: at most one frame of each class.
#[derive(Debug)]
pub(super) struct Reader {
    max_frame: usize,
    /// Which a frame may name.
    addresses: Addresses,
    head: [u8; HEAD],
    /// Bytes of `head` that have come.
    head_len: usize,
    /// Bytes of the record's body that are still to come, once its head is complete.
    missing: usize,
    /// Frames that are not complete: control, data; and a word.
    partial: [Vec<u8>; 3],
}

const WORD: usize = 2;

impl Reader {
    pub(super) fn new(max_frame: usize, addresses: Addresses) -> Reader {
        Reader { max_frame, addresses, head: [0; HEAD], head_len: 0, missing: 0, partial: Default::default() }
    }

    /// Takes all of `bytes` in; gives what became whole to `sink`. After an error nothing more may be read.
    pub(super) fn read(
        &mut self,
        mut bytes: &[u8],
        sink: &mut impl FnMut(Record),
    ) -> Result<(), RecordError> {
        while !bytes.is_empty() {
            if self.head_len < HEAD {
                let taken = bytes.len().min(HEAD - self.head_len);
                self.head[self.head_len..self.head_len + taken].copy_from_slice(&bytes[..taken]);
                self.head_len += taken;
                bytes = &bytes[taken..];
                if self.head_len < HEAD {
                    return Ok(());
                }
                self.on_head()?;
            }
            let (body, rest) = bytes.split_at(bytes.len().min(self.missing));
            self.missing -= body.len();
            bytes = rest;
            if self.missing > 0 {
                self.partial[self.class()].extend_from_slice(body);
                return Ok(());
            }
            self.head_len = 0;
            self.on_body(body, sink)?;
        }
        Ok(())
    }

    fn class(&self) -> usize {
        let [kind, ..] = self.head;
        if kind < HELLO { usize::from(kind & DATA) } else { WORD }
    }

    /// Refuses what is too long before any of it is kept.
    fn on_head(&mut self) -> Result<(), RecordError> {
        let [kind, high, middle, low] = self.head;
        let len = u32::from_be_bytes([0, high, middle, low]) as usize;
        let limit = match kind {
            CONTROL | DATA => MAX_BODY,
            kind if kind == CONTROL | MORE || kind == DATA | MORE => MAX_BODY,
            HELLO | ACCEPT | GOODBYE => MAX_WORD,
            other => return Err(RecordError::Kind(other)),
        };
        if len > limit {
            return Err(RecordError::RecordTooLong { len, limit });
        }
        let whole = self.partial[self.class()].len() + len;
        if whole > self.max_frame {
            return Err(RecordError::FrameTooLong { len: whole, limit: self.max_frame });
        }
        self.missing = len;
        Ok(())
    }

    /// The record is complete, and `body` the last part of it.
    fn on_body(&mut self, body: &[u8], sink: &mut impl FnMut(Record)) -> Result<(), RecordError> {
        let [kind, ..] = self.head;
        let partial = &mut self.partial[if kind < HELLO { usize::from(kind & DATA) } else { WORD }];
        if kind < HELLO && kind & MORE != 0 {
            partial.extend_from_slice(body);
            return Ok(());
        }
        let bytes = if partial.is_empty() { Bytes::copy_from_slice(body) } else { complete(partial, body) };
        let record = match kind {
            HELLO => Record::Hello(bytes),
            ACCEPT => Record::Accept,
            GOODBYE => Record::Goodbye(match bytes.first() {
                Some(0) => Goodbye::Idle,
                Some(1) => Goodbye::Replaced,
                Some(2) => Goodbye::Shutdown,
                _ => return Err(RecordError::Goodbye),
            }),
            _ => Record::Frame(decode(bytes, self.addresses)?),
        };
        sink(record);
        Ok(())
    }
}

/// The frame that `partial` and its last part make; pins hardly more than its own length.
fn complete(partial: &mut Vec<u8>, body: &[u8]) -> Bytes {
    let mut whole = std::mem::take(partial);
    whole.reserve_exact(body.len());
    whole.extend_from_slice(body);
    if whole.capacity() - whole.len() > whole.len() / 4 {
        whole.shrink_to_fit();
    }
    whole.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::NodeId;
    use crate::peer::{Addr, Peer};
    use crate::wire::{Header, encode};

    fn read(reader: &mut Reader, bytes: &[u8]) -> Result<Vec<Record>, RecordError> {
        let mut records = Vec::new();
        reader.read(bytes, &mut |record| records.push(record)).map(|()| records)
    }

    #[test]
    fn words_round_trip_byte_by_byte() {
        let bytes = [hello(b"hi"), accept(), goodbye(Goodbye::Idle), goodbye(Goodbye::Shutdown)].concat();
        let mut reader = Reader::new(1024, Addresses::Any);
        let records: Vec<Record> =
            bytes.iter().flat_map(|&byte| read(&mut reader, &[byte]).unwrap()).collect();
        let expected = [
            Record::Hello(Bytes::from_static(b"hi")),
            Record::Accept,
            Record::Goodbye(Goodbye::Idle),
            Record::Goodbye(Goodbye::Shutdown),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn a_frame_that_names_a_slot_of_memory_is_good_in_one_process_only() {
        let slot = Peer { id: NodeId(7), incarnation: 1, addr: Addr::Memory(3) };
        let frame = Frame::from(Header::PeerDeadHint(slot));
        let head = encode(&frame).head;
        let bytes = [&frame_head(true, false, head.len())[..], &head].concat();
        assert_eq!(read(&mut Reader::new(1024, Addresses::Any), &bytes), Ok(vec![Record::Frame(frame)]));
        let error = read(&mut Reader::new(1024, Addresses::Public), &bytes).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a frame that does not parse: a node in the header has the address of a memory transport, which no node of \
             a network has"
        );
    }

    #[test]
    fn promises_are_refused_before_anything_is_kept() {
        let error = read(&mut Reader::new(1024, Addresses::Any), &[DATA, 0xff, 0xff, 0xff]).unwrap_err();
        assert_eq!(error, RecordError::RecordTooLong { len: 0xff_ffff, limit: MAX_BODY });
        let error = read(&mut Reader::new(1024, Addresses::Any), &[DATA | MORE, 0, 4, 1]).unwrap_err();
        assert_eq!(error, RecordError::FrameTooLong { len: 1025, limit: 1024 });
        let mut reader = Reader::new(1024, Addresses::Any);
        read(&mut reader, &[&[DATA | MORE, 0, 4, 0][..], &[7; 1024]].concat()).unwrap();
        let error = read(&mut reader, &[DATA, 0, 0, 1]).unwrap_err();
        assert_eq!(error, RecordError::FrameTooLong { len: 1025, limit: 1024 });
        assert_eq!(
            read(&mut Reader::new(1024, Addresses::Any), &[9, 0, 0, 0]).unwrap_err(),
            RecordError::Kind(9)
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics_nor_grows(chunks: Vec<Vec<u8>>) {
            let mut reader = Reader::new(1024, Addresses::Any);
            for chunk in chunks {
                if read(&mut reader, &chunk).is_err() {
                    break;
                }
                prop_assert!(reader.partial.iter().all(|partial| partial.len() <= 1024));
            }
        }
    }
}

//! The first frame of a connection, in both directions.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::peer::Addr;

/// The version of the wire format. A peer of another one is refused.
pub const PROTOCOL_VERSION: u16 = 1;
/// Longest network name in bytes.
pub const MAX_NETWORK_NAME: usize = 64;

/// The greeting of both sides. The id follows from the connection's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The network that the sender belongs to, at most 64 bytes.
    pub network: String,
    /// Which start of the sender this is.
    pub incarnation: u64,
    /// Where the sender listens; an unspecified IP means "the address that you see me at".
    pub listens: Addr,
}

/// A greeting that is none.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HelloError {
    /// The magic bytes are missing: this is some other protocol.
    #[error("not a Treecast greeting")]
    NotTreecast,
    /// Another version of ours.
    #[error("protocol version {theirs}, ours is {PROTOCOL_VERSION}")]
    Version {
        /// The other side's version.
        theirs: u16,
    },
    /// The fields do not parse or break a limit.
    #[error("malformed greeting")]
    Malformed,
}

const MAGIC: [u8; 4] = *b"TREE";

impl Hello {
    /// `TREE`, the version (u16, big-endian), then the fields (postcard). The version stands in front, where every
    /// later version will find it.
    pub fn encode(&self) -> Bytes {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&PROTOCOL_VERSION.to_be_bytes());
        postcard::to_extend(self, bytes).expect("a greeting always encodes: it has no unsized parts").into()
    }

    /// The inverse of [`encode`](Hello::encode).
    pub fn decode(bytes: &[u8]) -> Result<Hello, HelloError> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(HelloError::NotTreecast)?;
        let (version, fields) = rest.split_first_chunk::<2>().ok_or(HelloError::Malformed)?;
        let theirs = u16::from_be_bytes(*version);
        if theirs != PROTOCOL_VERSION {
            return Err(HelloError::Version { theirs });
        }
        match postcard::from_bytes::<Hello>(fields) {
            Ok(hello) if hello.network.len() <= MAX_NETWORK_NAME => Ok(hello),
            _ => Err(HelloError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_round_trip_and_strangers_are_told_apart() {
        let hello = Hello { network: "main".into(), incarnation: 5, listens: Addr::Memory(1) };
        let bytes = hello.encode();
        assert_eq!(Hello::decode(&bytes), Ok(hello));
        assert_eq!(Hello::decode(b"GET / HTTP/1.1"), Err(HelloError::NotTreecast));
        let mut other = bytes.to_vec();
        other[5] = 9;
        assert_eq!(Hello::decode(&other), Err(HelloError::Version { theirs: 9 }));
        assert_eq!(Hello::decode(&bytes[..bytes.len() - 1]), Err(HelloError::Malformed));
    }
}

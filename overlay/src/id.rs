//! The ring: 128-bit points, their digits, their distances.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bits per digit, Pastry's `b` (Pastry §2: "a typical value of 4").
pub const BITS_PER_DIGIT: u32 = 4;
/// Values a digit can take, Pastry's 2^b: the columns of a routing table.
pub const BASE: usize = 1 << BITS_PER_DIGIT;
/// Digits in an id: the rows of a routing table.
pub const DIGITS: usize = (u128::BITS / BITS_PER_DIGIT) as usize;

/// A point of the 128-bit ring. A topic's id is a key. On the wire sixteen bytes, most significant first: postcard's own
/// form of a `u128` is a varint, which needs nineteen for a random one. Aligned to 8: an alignment of 16 would make the
/// tables of large simulated rings a seventh larger.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "[u8; 16]", into = "[u8; 16]")]
#[repr(Rust, packed(8))]
pub struct Key(pub u128);

/// A node's id: the first 128 bits of BLAKE3 of its ed25519 public key. On the
/// wire, and in memory, as a [`Key`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "[u8; 16]", into = "[u8; 16]")]
#[repr(Rust, packed(8))]
pub struct NodeId(pub u128);

impl Key {
    /// The key of some bytes: the first 128 bits of their BLAKE3, most significant byte first.
    pub fn hash(bytes: &[u8]) -> Key {
        Key(first_128_bits(blake3::hash(bytes)))
    }

    /// Digit `row` counted from the most significant, 0 ≤ row < [`DIGITS`].
    pub fn digit(self, row: usize) -> usize {
        debug_assert!(row < DIGITS);
        let shift = u128::BITS - BITS_PER_DIGIT * (row as u32 + 1);
        (self.0 >> shift) as usize & (BASE - 1)
    }

    /// How many leading digits two points share, 0..=[`DIGITS`].
    pub fn shared_prefix(self, other: impl Into<Key>) -> usize {
        ((self.0 ^ other.into().0).leading_zeros() / BITS_PER_DIGIT) as usize
    }

    /// Distance along the ring, the shorter way round: at most 2^127.
    pub fn distance(self, other: impl Into<Key>) -> u128 {
        let way = self.clockwise_to(other);
        way.min(way.wrapping_neg())
    }

    /// Distance from here to `other` in the direction of growing ids.
    pub fn clockwise_to(self, other: impl Into<Key>) -> u128 {
        other.into().0.wrapping_sub(self.0)
    }

    /// Orders two nodes by their distance to this key; ties go to the smaller id (design §1, "root of a key").
    pub fn closer(self, a: NodeId, b: NodeId) -> Ordering {
        self.distance(a).cmp(&self.distance(b)).then(a.cmp(&b))
    }

    /// Whether `a` is strictly closer to this key than `b`, ties going to the smaller id.
    pub fn is_closer(self, a: NodeId, b: NodeId) -> bool {
        self.closer(a, b) == Ordering::Less
    }
}

impl NodeId {
    /// The id that belongs to an ed25519 public key.
    pub fn of_public_key(key: &[u8; 32]) -> NodeId {
        NodeId(first_128_bits(blake3::hash(key)))
    }

    /// This id as a point of the ring.
    pub const fn key(self) -> Key {
        Key(self.0)
    }
}

fn first_128_bits(hash: blake3::Hash) -> u128 {
    let mut first = [0; 16];
    first.copy_from_slice(&hash.as_bytes()[..16]);
    u128::from_be_bytes(first)
}

impl From<NodeId> for Key {
    fn from(id: NodeId) -> Key {
        id.key()
    }
}

/// A text that is no point of the ring.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not an id: 32 hexadecimal digits are expected")]
pub struct ParseIdError(String);

macro_rules! point {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if f.alternate() {
                    // `{:#}`: the first eight digits, for people.
                    write!(f, "{:08x}", self.0 >> 96)
                } else {
                    write!(f, "{:032x}", { self.0 })
                }
            }
        }

        impl From<[u8; 16]> for $name {
            fn from(bytes: [u8; 16]) -> $name {
                $name(u128::from_be_bytes(bytes))
            }
        }

        impl From<$name> for [u8; 16] {
            fn from(point: $name) -> [u8; 16] {
                point.0.to_be_bytes()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self:#}")
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<$name, ParseIdError> {
                let digits = text.len() == DIGITS && text.bytes().all(|b| b.is_ascii_hexdigit());
                match u128::from_str_radix(text, 16) {
                    Ok(point) if digits => Ok($name(point)),
                    _ => Err(ParseIdError(text.chars().take(64).collect())),
                }
            }
        }
    };
}
point!(Key);
point!(NodeId);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_run_from_the_most_significant() {
        let key = Key(0x3f00_0000_0000_0000_0000_0000_0000_000a);
        assert_eq!((key.digit(0), key.digit(1), key.digit(31)), (3, 15, 10));
    }

    #[test]
    fn distance_wraps_and_ties_go_to_the_smaller_id() {
        assert_eq!(Key(1).distance(Key(u128::MAX)), 2);
        assert_eq!(Key(0).distance(Key(1 << 127)), 1 << 127);
        assert!(Key(10).is_closer(NodeId(8), NodeId(12)));
        assert!(!Key(10).is_closer(NodeId(12), NodeId(8)));
        assert!(Key(0).is_closer(NodeId(1), NodeId(u128::MAX)));
    }

    #[test]
    fn texts_that_are_no_ids_are_named() {
        assert!("+f000000000000000000000000000000".parse::<Key>().is_err());
        let error = "3f".parse::<NodeId>().unwrap_err();
        assert_eq!(error.to_string(), "`3f` is not an id: 32 hexadecimal digits are expected");
    }

    proptest! {
        #[test]
        fn distance_is_a_metric(a: u128, b: u128, c: u128) {
            let (a, b, c) = (Key(a), Key(b), Key(c));
            prop_assert_eq!(a.distance(b), b.distance(a));
            prop_assert_eq!(a.distance(b) == 0, a == b);
            prop_assert!(a.distance(b) <= 1 << 127);
            prop_assert!(a.distance(c) <= a.distance(b).saturating_add(b.distance(c)));
        }

        #[test]
        fn shared_prefix_counts_equal_digits(a: u128, keep in 0u32..=128, b: u128) {
            let mask = if keep == 0 { 0 } else { u128::MAX << (128 - keep) };
            let other = Key((a & mask) | (b & !mask));
            let naive = (0..DIGITS).take_while(|&row| Key(a).digit(row) == other.digit(row)).count();
            prop_assert_eq!(Key(a).shared_prefix(other), naive);
        }

        #[test]
        fn exactly_one_of_two_nodes_is_closer(key: u128, a: u128, b: u128) {
            let (key, a, b) = (Key(key), NodeId(a), NodeId(b));
            prop_assert_eq!(key.is_closer(a, b) as u8 + key.is_closer(b, a) as u8, (a != b) as u8);
        }

        #[test]
        fn text_round_trips(a: u128) {
            prop_assert_eq!(NodeId(a).to_string().parse(), Ok(NodeId(a)));
        }
    }
}

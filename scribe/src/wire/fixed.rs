//! Ids as sixteen bytes, most significant first. Postcard's own form of a `u128` is a varint, which needs nineteen
//! bytes for a random one; a message carries two.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use treecast_overlay::id::{Key, NodeId};

pub(crate) trait Point: Copy {
    fn into_bits(self) -> u128;
    fn from_bits(bits: u128) -> Self;
}

impl Point for Key {
    fn into_bits(self) -> u128 {
        self.0
    }

    fn from_bits(bits: u128) -> Key {
        Key(bits)
    }
}

impl Point for NodeId {
    fn into_bits(self) -> u128 {
        self.0
    }

    fn from_bits(bits: u128) -> NodeId {
        NodeId(bits)
    }
}

pub(crate) fn serialize<P: Point, S: Serializer>(point: &P, serializer: S) -> Result<S::Ok, S::Error> {
    point.into_bits().to_be_bytes().serialize(serializer)
}

pub(crate) fn deserialize<'de, P: Point, D: Deserializer<'de>>(deserializer: D) -> Result<P, D::Error> {
    Ok(P::from_bits(u128::from_be_bytes(<[u8; 16]>::deserialize(deserializer)?)))
}

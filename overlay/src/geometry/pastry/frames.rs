//! Pastry's own frames. On the wire they are the body of [`Header::Geometry`].

use serde::{Deserialize, Serialize};

use crate::peer::{Addresses, Peer};
use crate::wire::{GeometryFrame, Header, MAX_PEERS, bounded};

/// A frame between two nodes with prefix tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PastryFrame {
    /// Asks for nodes that may be nearer to the sender than the receiver is.
    NearerRequest {
        /// The round-trip time between the two, as the sender measured it, in microseconds.
        rtt_micros: u32,
    },
    /// The answer to `NearerRequest`; or a row of the sender's routing table, or nothing but how near the receiver is.
    Near(Near),
}

/// Nodes that the sender knows, each with how near it is to the sender: so the receiver can tell which may be near to
/// itself before it measures anything (constrained gossip).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Near {
    /// The round-trip time between sender and receiver, as the sender measured it, in microseconds.
    pub rtt_micros: Option<u32>,
    /// The nodes.
    #[serde(deserialize_with = "bounded::list::<MAX_PEERS, _, _>")]
    pub known: Vec<Known>,
    /// Asks for this row, 0..32, of the receiver's routing table in return.
    pub row: Option<u8>,
    /// The sender stands in more tables than others do: a node that has a choice takes another.
    pub crowded: bool,
}

/// A node, and how near it is to the node that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Known {
    /// The node.
    pub peer: Peer,
    /// The round-trip time to it in microseconds, if it was measured.
    pub rtt_micros: Option<u32>,
}

/// Kinds of Pastry's frames.
const NEARER_REQUEST: u8 = 0;
const NEAR: u8 = 1;

impl PastryFrame {
    /// As it goes over the wire.
    pub fn encode(&self) -> Header {
        const ENCODES: &str = "it always encodes: it has no unsized parts";
        let (kind, body) = match self {
            PastryFrame::NearerRequest { rtt_micros } => (NEARER_REQUEST, postcard::to_stdvec(rtt_micros)),
            PastryFrame::Near(near) => (NEAR, postcard::to_stdvec(near)),
        };
        Header::Geometry(GeometryFrame { kind, body: body.expect(ENCODES) })
    }

    /// Reads a frame. `None`: it is none of Pastry's, is malformed, or names more nodes or other addresses than it may.
    pub fn decode(frame: &GeometryFrame, addresses: Addresses) -> Option<PastryFrame> {
        match frame.kind {
            NEARER_REQUEST => {
                let rtt_micros = read(&frame.body)?;
                Some(PastryFrame::NearerRequest { rtt_micros })
            }
            NEAR => {
                let near: Near = read(&frame.body)?;
                let may_be_named = |known: &Known| addresses.contain(known.peer.addr);
                let is_good = near.known.len() <= MAX_PEERS && near.known.iter().all(may_be_named);
                is_good.then_some(PastryFrame::Near(near))
            }
            _ => None,
        }
    }
}

/// All of a body, and nothing behind it.
fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<T> {
    postcard::take_from_bytes(body).ok().and_then(|(value, rest)| rest.is_empty().then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::peer::Addr;

    fn near(nodes: usize, addr: Addr) -> PastryFrame {
        let known =
            |id| Known { peer: Peer { id: NodeId(id as u128), incarnation: 1, addr }, rtt_micros: Some(9) };
        PastryFrame::Near(Near {
            rtt_micros: None,
            known: (0..nodes).map(known).collect(),
            row: Some(3),
            crowded: true,
        })
    }

    fn there_and_back(frame: &PastryFrame, addresses: Addresses) -> Option<PastryFrame> {
        let header = frame.encode();
        let Header::Geometry(encoded) = header else { panic!("{header:?}") };
        assert!(encoded.body.len() <= crate::wire::MAX_GEOMETRY_BYTES);
        PastryFrame::decode(&encoded, addresses)
    }

    #[test]
    fn frames_survive_the_wire_and_a_hostile_one_is_none() {
        for frame in [PastryFrame::NearerRequest { rtt_micros: 7 }, near(MAX_PEERS, Addr::Memory(1))] {
            assert_eq!(there_and_back(&frame, Addresses::Any), Some(frame));
        }
        assert_eq!(there_and_back(&near(MAX_PEERS + 1, Addr::Unreachable), Addresses::Any), None, "too many");
        assert_eq!(
            there_and_back(&near(1, Addr::Memory(1)), Addresses::Public),
            None,
            "no address of a network"
        );
        for (kind, body) in
            [(9, vec![1]), (NEARER_REQUEST, vec![]), (NEARER_REQUEST, vec![1, 2]), (NEAR, vec![255; 99])]
        {
            assert_eq!(PastryFrame::decode(&GeometryFrame { kind, body }, Addresses::Any), None, "{kind}");
        }
    }
}

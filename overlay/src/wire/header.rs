//! What frames say. One closed enum: every node of one protocol version knows them all.

use serde::{Deserialize, Serialize};

use super::bounded;
use crate::id::{Key, NodeId};
use crate::peer::{Contact, Peer};
use crate::sides::Sides;

/// Most peers that one list in a frame may have. Longer ones are refused by the decoder, so that to keep to it is the
/// duty of whoever makes the frame.
pub const MAX_PEERS: usize = 256;
/// Most hops that a recorded path may have: the hop limit (promise O2).
pub const MAX_PATH: usize = 64;
/// Most nodes that a trace may name: those of the longest path, both ends included.
pub const MAX_TRACE: usize = MAX_PATH + 1;

/// The header of a [`Frame`](super::Frame). Frames that carry a payload say so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Header {
    /// A message on its way to the root of a key. Acknowledged hop by hop. Carries the application's payload.
    Routed(Routed),
    /// The hop with this number has been taken over.
    HopAck {
        /// The sender's number for the hop.
        hop: u64,
    },
    /// Something for the node at the other end of this connection. Not acknowledged.
    Letter(Letter),
    /// A letter for a node behind, or in front of, the receiver: to and from edge nodes.
    Relayed {
        /// Whom it is for.
        to: Box<Contact>,
        /// Whom it is from.
        from: Box<Contact>,
        /// What it says.
        letter: Letter,
    },
    /// Are you there?
    Probe(Probe),
    /// I am.
    ProbeAck(ProbeAck),
    /// A joiner asks a ready node for its slot on the joiner's side (join, step 2).
    Admit,
    /// The answer to `Admit`.
    Admission(Admission),
    /// An admitted joiner, whose leaf set has answered, asks its neighbour to give up its part (join, step 3).
    Commit {
        /// The joiner's number for the request; the lease that answers it counts from its sending.
        number: u64,
        /// The joiner's other neighbour: the receiver's own on that side.
        beside: NodeId,
    },
    /// The neighbour no longer answers for the joiner's part, and grants it a lease.
    Committed {
        /// The number of the `Commit`.
        number: u64,
        /// On which sides of the neighbour the joiner's part is, each with a lease.
        lease: Sides,
    },
    /// A joiner gives its slot back, and with it what was given up to it.
    Withdraw {
        /// The joiner takes its place by no `Commit` of this number or a smaller one: whatever it was granted for those
        /// is void.
        number: u64,
    },
    /// Periodic repair: my leaf set; `reply` asks for yours.
    LeafSet {
        /// The sender's leaf set.
        #[serde(deserialize_with = "bounded::list::<MAX_PEERS, _, _>")]
        members: Vec<Peer>,
        /// Whether the receiver is to send its own.
        reply: bool,
    },
    /// Proximity: who of those that the receiver knows may be nearer to the sender than the receiver is?
    NearerRequest {
        /// The round-trip time between the two, as the sender measured it, in microseconds.
        rtt_micros: u32,
    },
    /// Proximity: the answer to `NearerRequest`; or a row of the sender's routing table, or nothing but how near the
    /// receiver is.
    Near(Near),
    /// The sender leaves the ring: it answers for nothing any more. Its leaf set, for those who must close the gap.
    Leave {
        /// The leaver's leaf set.
        #[serde(deserialize_with = "bounded::list::<MAX_PEERS, _, _>")]
        members: Vec<Peer>,
    },
    /// A message for every node of an arc of the ring. Acknowledged hop by hop. Carries the application's payload.
    Broadcast {
        /// The sender's number for this hop.
        hop: u64,
        /// Who broadcasts.
        origin: Contact,
        /// The origin's number for the broadcast.
        id: u64,
        /// The receiver passes it on to all nodes after itself and before this point, clockwise.
        until: Key,
    },
    /// An edge node hangs itself on a ring node, and keeps hanging there by saying so again.
    Attach,
    /// The answer to `Attach`.
    Attached {
        /// Whether the edge was taken.
        accepted: bool,
        /// The access node's leaf set: where to find a second one.
        #[serde(deserialize_with = "bounded::list::<MAX_PEERS, _, _>")]
        members: Vec<Peer>,
    },
    /// An edge node goes.
    Detach,
    /// The receiver is an older life of this peer; its words are void. (A hint: the receiver looks for itself.)
    Outdated(Peer),
    /// A frame for a node that its sender cannot reach directly: the payload, encoded. Its receiver passes it on, or is
    /// the one that it is for.
    Via {
        /// Whom it is for.
        to: Peer,
        /// Whom it is from.
        from: Peer,
    },
    /// The sender has found this peer dead, which the receiver may have in its routing table too. (A rumour: whoever hears
    /// it looks for itself.)
    Lost(Peer),
}

impl Header {
    /// Whether a frame may carry something of leases. What is itself about leases, joins, leaving, edges or detours says that
    /// in its own header.
    pub fn may_piggyback(&self) -> bool {
        match self {
            Header::Routed(_)
            | Header::HopAck { .. }
            | Header::Letter(_)
            | Header::Relayed { .. }
            | Header::LeafSet { .. }
            | Header::NearerRequest { .. }
            | Header::Near(_)
            | Header::Broadcast { .. }
            | Header::Lost(_) => true,
            Header::Probe(_)
            | Header::ProbeAck(_)
            | Header::Admit
            | Header::Admission(_)
            | Header::Commit { .. }
            | Header::Committed { .. }
            | Header::Withdraw { .. }
            | Header::Leave { .. }
            | Header::Attach
            | Header::Attached { .. }
            | Header::Detach
            | Header::Outdated(_)
            | Header::Via { .. } => false,
        }
    }
}

// Queues are full of these in a burst: what is rare and large stands apart.
const _: () = assert!(size_of::<Header>() <= 192);

/// What one node tells another, near or far.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Letter {
    /// A payload of the layer above: the frame's tail.
    Payload,
    /// What the root of a key answers to a lookup, or to one who seeks its place on the ring.
    Answer(Box<Answer>),
    /// A routed message could not be delivered; sent to its origin.
    Undeliverable {
        /// The origin's number for the message.
        id: u64,
        /// Where it was going.
        key: Key,
        /// Why it stopped.
        reason: RouteFailure,
    },
}

/// The header of a routed message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Routed {
    /// The sender's number for this hop; the receiver acknowledges it.
    pub hop: u64,
    /// Where it is going.
    pub key: Key,
    /// Who sent it off.
    pub origin: Contact,
    /// The origin's number for it. Only the origin gives it a meaning.
    pub id: u64,
    /// How many hops it has made.
    pub hops: u8,
    /// A hop on its way came from a leaf set: each later hop must be strictly closer (promise O2).
    pub by_leaf_set: bool,
    /// A hop on its way was not acknowledged and was made again: another node may have it too, or have had it.
    pub repeated: bool,
    /// What it is for.
    pub purpose: Purpose,
    /// The path so far, if the origin asked for it.
    #[serde(deserialize_with = "bounded::optional::<MAX_TRACE, _, _>")]
    pub trace: Option<Vec<TraceHop>>,
}

/// What a routed message is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// The layer above: raised as `Forward` on its way and as `Deliver` at the root.
    Application,
    /// Who is the root of the key?
    Lookup,
    /// Who are the neighbours of the key? Asked by joiners and by rings that have found each other.
    Seek,
}

/// One hop of a traced message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceHop {
    /// The node that was passed.
    pub node: NodeId,
    /// Leading digits that its id shares with the key.
    pub matched: u8,
    /// Its smoothed round-trip time to the next hop in microseconds, if it had one.
    pub rtt_micros: Option<u32>,
}

/// What a root answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Answer {
    /// The origin's number for the question.
    pub id: u64,
    /// The root.
    pub root: Peer,
    /// How many hops the question made.
    pub hops: u8,
    /// The question's path, if asked for.
    #[serde(deserialize_with = "bounded::optional::<MAX_TRACE, _, _>")]
    pub trace: Option<Vec<TraceHop>>,
    /// For `Seek`: the root's leaf set.
    #[serde(deserialize_with = "bounded::list::<MAX_PEERS, _, _>")]
    pub leaf_set: Vec<Peer>,
}

/// Why a routed message stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RouteFailure {
    /// It made 64 hops.
    HopLimit,
    /// No live next hop was found within the retries.
    NoRoute,
    /// The node that held it was full.
    Overloaded,
    /// Nobody answered for the key in time: its root's leases did not run.
    NoRoot,
}

/// Are you there, and in what state?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Probe {
    /// Comes back in the acknowledgement.
    pub number: u64,
    /// How far the sender is; a ready sender may enter the receiver's tables.
    pub standing: Standing,
    /// On these sides of the receiver the sender stands, as it sees the ring, and asks for a lease for each.
    pub lease: Sides,
    /// The sender wants the receiver's leaf set.
    pub leaf_set: bool,
}

/// The answer to a [`Probe`], or to another answer that asks in return. One that answers nothing says how far its sender is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProbeAck {
    /// The probe's number.
    pub number: u64,
    /// How far the answerer is.
    pub standing: Standing,
    /// The asked-for leases that are granted: four seconds by default, counted from the probe's sending.
    pub lease: Sides,
    /// The answerer asks for leases in return; another `ProbeAck` answers it.
    pub asks: Option<Ask>,
    /// The answerer's leaf set, if it was asked for.
    #[serde(deserialize_with = "bounded::optional::<MAX_PEERS, _, _>")]
    pub leaf_set: Option<Vec<Peer>>,
}

/// A question for leases in an answer, or in a frame that is for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ask {
    /// The asker's number: it comes back in the acknowledgement.
    pub number: u64,
    /// As in a [`Probe`].
    pub lease: Sides,
}

/// What ring neighbours tell each other of leases in any frame that goes from one to the other anyway (design §5: traffic
/// carries leases). Nobody answers it with a frame of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseWords {
    /// A question; a grant may ride back.
    pub ask: Option<Ask>,
    /// The answer to an earlier one.
    pub grant: Option<Grant>,
}

/// Leases that are granted to whoever asked for them in an [`Ask`] that rode along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The question's number: the leases count from its sending.
    pub number: u64,
    /// For which of the sides that were asked for.
    pub lease: Sides,
}

/// Nodes that the sender knows, each with how near it is to the sender: so the receiver can tell who may be near to
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
}

/// A node, and how near it is to whoever names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Known {
    /// The node.
    pub peer: Peer,
    /// The round-trip time to it in microseconds, if it was measured.
    pub rtt_micros: Option<u32>,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// Just started: looking for a ring.
    Starting,
    /// On its way into one.
    Joining,
    /// On the ring.
    Ready,
    /// An edge node: on no ring.
    Edge,
}

/// The answer of a ready node to a joiner that asks for its slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Admission {
    /// The slot is the joiner's, until it expires.
    Granted {
        /// The answerer's leaf set: who stands around the slot while it keeps others out.
        #[serde(deserialize_with = "bounded::list::<MAX_PEERS, _, _>")]
        members: Vec<Peer>,
    },
    /// Another joiner has it: ask again later.
    Busy,
    /// The joiner is not this node's neighbour; these are.
    NotNeighbour {
        /// The answerer's leaf set.
        #[serde(deserialize_with = "bounded::list::<MAX_PEERS, _, _>")]
        members: Vec<Peer>,
    },
    /// The answerer is not on the ring.
    NotReady,
}

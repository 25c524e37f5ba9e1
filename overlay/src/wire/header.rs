//! The headers of frames. One closed enum: every node of one protocol version knows them all.

use serde::{Deserialize, Serialize};

use super::bounded;
use crate::id::{Key, NodeId};
use crate::peer::{Contact, Peer};
use crate::sides::Sides;

/// Most peers that one list in a frame may have. Longer ones are refused by the decoder, so that to keep to it is the
/// duty of the sender.
pub const MAX_PEERS: usize = 256;
/// Most bytes of a geometry's frame: 256 nodes with their distances, and some more.
pub const MAX_GEOMETRY_BYTES: usize = 16 * 1024;
/// Most hops that a recorded path may have: the hop limit (promise O2).
pub const MAX_PATH: usize = 64;
/// Most nodes that a trace may name: those of the longest path, both ends included.
pub const MAX_TRACE: usize = MAX_PATH + 1;

/// Most bytes of a payload of the layer above that goes before data: a larger one is data whatever was asked for.
pub const MAX_CONTROL: usize = 4 * 1024;
/// Room for the header of a frame that another node passes on, beside its payload.
const VIA_ROOM: usize = 1024;

/// The two kinds of frames in every queue towards a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Small, and goes before data: it keeps leases alive, rings and trees whole, and acknowledges.
    Control,
    /// Waits for its turn, and is counted in [`Machine::handle_queued`](crate::machine::Machine::handle_queued).
    Data,
}

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
    Direct(Direct),
    /// A direct message for a node behind, or in front of, the receiver: to and from edge nodes.
    RelayedDirect {
        /// The receiver.
        to: Box<Contact>,
        /// The sender.
        from: Box<Contact>,
        /// Its content.
        direct: Direct,
    },
    /// Are you there?
    Probe(Probe),
    /// I am.
    ProbeAck(ProbeAck),
    /// A joiner asks a ready node for its slot on the joiner's side (join, step 3).
    JoinRequest,
    /// The answer to `JoinRequest`.
    Admission(Admission),
    /// An admitted joiner, whose leaf set has answered, asks its neighbour to cede its part (join, step 3).
    JoinCommit {
        /// The joiner's number for the request; the lease that answers it counts from its sending.
        number: u64,
        /// The joiner's other neighbour: the receiver's own on that side.
        other_neighbour: NodeId,
    },
    /// The neighbour no longer answers for the joiner's part, and grants it a lease.
    JoinCommitted {
        /// The number of the `JoinCommit`.
        number: u64,
        /// On which sides of the neighbour the joiner's part is, each with a lease.
        lease: Sides,
    },
    /// A joiner gives its slot back, and with it what was ceded to it.
    JoinAbort {
        /// The joiner takes its place by no `JoinCommit` of this number or a smaller one: whatever it was granted for those
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
    /// A frame of the ring's geometry, which alone can read it.
    Geometry(GeometryFrame),
    /// The sender leaves the ring: it answers for nothing any more. Its leaf set, for the nodes that must close the gap.
    Leave {
        /// The leaver's leaf set.
        #[serde(deserialize_with = "bounded::list::<MAX_PEERS, _, _>")]
        members: Vec<Peer>,
    },
    /// A message for every node of an arc of the ring. Acknowledged hop by hop. Carries the application's payload.
    Broadcast {
        /// The sender's number for this hop.
        hop: u64,
        /// The node that broadcasts.
        origin: Contact,
        /// The origin's number for the broadcast.
        id: u64,
        /// The receiver passes it on to all nodes after itself and before this point, clockwise.
        until: Key,
    },
    /// An edge node attaches itself to a ring node, and stays attached by saying so again.
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
    /// The receiver is an older life of this peer; its frames are void. (A hint: the receiver looks for itself.)
    Outdated(Peer),
    /// A frame for a node that its sender cannot reach directly: the payload, encoded. Its receiver passes it on, or is
    /// the one that it is for.
    Via {
        /// The receiver.
        to: Peer,
        /// The sender.
        from: Peer,
        /// The class of the frame inside.
        class: Class,
    },
    /// The sender has found this peer dead, which the receiver may have in its routing table too. (A hint: a node that hears
    /// it looks for itself.)
    PeerDeadHint(Peer),
    /// The sender does not take this hop over, because it is not on the ring: the message may go another way at once.
    HopRefused {
        /// The receiver's number for the hop.
        hop: u64,
    },
}

/// Names of the kinds of frames, for counts. Routed messages are told apart by purpose and direct messages by content, so joins and
/// lookups are counted separately.
pub const KINDS: [&str; 28] = [
    "routed/application",
    "routed/lookup",
    "routed/seek",
    "hop_ack",
    "direct/payload",
    "direct/answer",
    "direct/undeliverable",
    "relayed_direct",
    "probe",
    "probe_ack",
    "join_request",
    "admission",
    "join_commit",
    "join_committed",
    "join_abort",
    "leaf_set",
    // A geometry's kinds from 1 on are counted together.
    "geometry/0",
    "geometry/1",
    "leave",
    "broadcast",
    "attach",
    "attached",
    "detach",
    "outdated",
    "via",
    "peer_dead_hint",
    "hop_refused",
    "direct/control",
];

impl Header {
    /// The header's place in [`KINDS`].
    pub fn kind(&self) -> usize {
        match self {
            Header::Routed(routed) => match routed.purpose {
                Purpose::Application => 0,
                Purpose::Lookup => 1,
                Purpose::Seek => 2,
            },
            Header::HopAck { .. } => 3,
            Header::Direct(Direct::Payload) => 4,
            Header::Direct(Direct::Answer(_)) => 5,
            Header::Direct(Direct::Undeliverable { .. }) => 6,
            Header::RelayedDirect { .. } => 7,
            Header::Probe(_) => 8,
            Header::ProbeAck(_) => 9,
            Header::JoinRequest => 10,
            Header::Admission(_) => 11,
            Header::JoinCommit { .. } => 12,
            Header::JoinCommitted { .. } => 13,
            Header::JoinAbort { .. } => 14,
            Header::LeafSet { .. } => 15,
            Header::Geometry(frame) => 16 + usize::from(frame.kind.min(1)),
            Header::Leave { .. } => 18,
            Header::Broadcast { .. } => 19,
            Header::Attach => 20,
            Header::Attached { .. } => 21,
            Header::Detach => 22,
            Header::Outdated(_) => 23,
            Header::Via { .. } => 24,
            Header::PeerDeadHint(_) => 25,
            Header::HopRefused { .. } => 26,
            Header::Direct(Direct::Control) => 27,
        }
    }

    /// Whether a payload may follow.
    pub fn carries_payload(&self) -> bool {
        match self {
            Header::Routed(routed) => routed.purpose == Purpose::Application,
            Header::Direct(direct) | Header::RelayedDirect { direct, .. } => direct.class().is_some(),
            Header::Broadcast { .. } | Header::Via { .. } => true,
            Header::HopAck { .. }
            | Header::HopRefused { .. }
            | Header::Probe(_)
            | Header::ProbeAck(_)
            | Header::JoinRequest
            | Header::Admission(_)
            | Header::JoinCommit { .. }
            | Header::JoinCommitted { .. }
            | Header::JoinAbort { .. }
            | Header::LeafSet { .. }
            | Header::Geometry(_)
            | Header::Leave { .. }
            | Header::Outdated(_)
            | Header::PeerDeadHint(_)
            | Header::Attach
            | Header::Attached { .. }
            | Header::Detach => false,
        }
    }

    /// The class of a frame with this header and a payload of so many bytes.
    pub(super) fn class(&self, payload: usize) -> Class {
        let (class, most) = match self {
            Header::Routed(routed) if routed.purpose == Purpose::Application => (Class::Data, 0),
            Header::Broadcast { .. } => (Class::Data, 0),
            Header::Direct(direct) | Header::RelayedDirect { direct, .. } => {
                (direct.class().unwrap_or(Class::Control), MAX_CONTROL)
            }
            Header::Via { class, .. } => (*class, MAX_CONTROL + VIA_ROOM),
            Header::Routed(_)
            | Header::HopAck { .. }
            | Header::HopRefused { .. }
            | Header::Probe(_)
            | Header::ProbeAck(_)
            | Header::JoinRequest
            | Header::Admission(_)
            | Header::JoinCommit { .. }
            | Header::JoinCommitted { .. }
            | Header::JoinAbort { .. }
            | Header::LeafSet { .. }
            | Header::Geometry(_)
            | Header::Leave { .. }
            | Header::Outdated(_)
            | Header::PeerDeadHint(_)
            | Header::Attach
            | Header::Attached { .. }
            | Header::Detach => (Class::Control, 0),
        };
        if payload > most { Class::Data } else { class }
    }

    /// The limit of a list that is longer than it may be, if there is one: its decoder has kept one entry too many.
    pub(super) fn list_over_limit(&self) -> Option<usize> {
        match self {
            Header::Routed(routed) => over_limit(routed.trace.as_deref(), MAX_TRACE),
            Header::Direct(Direct::Answer(answer))
            | Header::RelayedDirect { direct: Direct::Answer(answer), .. } => {
                let trace = over_limit(answer.trace.as_deref(), MAX_TRACE);
                trace.or(over_limit(Some(&answer.leaf_set), MAX_PEERS))
            }
            Header::ProbeAck(ack) => over_limit(ack.leaf_set.as_deref(), MAX_PEERS),
            Header::Admission(Admission::Granted { members } | Admission::NotNeighbour { members })
            | Header::LeafSet { members, .. }
            | Header::Leave { members }
            | Header::Attached { members, .. } => over_limit(Some(members), MAX_PEERS),
            Header::Geometry(frame) => over_limit(Some(&frame.body), MAX_GEOMETRY_BYTES),
            Header::Direct(Direct::Payload | Direct::Control | Direct::Undeliverable { .. })
            | Header::RelayedDirect {
                direct: Direct::Payload | Direct::Control | Direct::Undeliverable { .. },
                ..
            }
            | Header::HopAck { .. }
            | Header::HopRefused { .. }
            | Header::Probe(_)
            | Header::JoinRequest
            | Header::Admission(Admission::Busy | Admission::NotReady)
            | Header::JoinCommit { .. }
            | Header::JoinCommitted { .. }
            | Header::JoinAbort { .. }
            | Header::Outdated(_)
            | Header::PeerDeadHint(_)
            | Header::Broadcast { .. }
            | Header::Via { .. }
            | Header::Attach
            | Header::Detach => None,
        }
    }

    /// Whether something is so of every node that this header names with an address.
    pub fn all_peers(&self, mut is_so: impl FnMut(&Peer) -> bool) -> bool {
        match self {
            Header::Routed(Routed { origin, .. }) | Header::Broadcast { origin, .. } => {
                origin.all_peers(&mut is_so)
            }
            Header::Direct(direct) => direct.all_peers(&mut is_so),
            Header::RelayedDirect { to, from, direct } => {
                to.all_peers(&mut is_so) && from.all_peers(&mut is_so) && direct.all_peers(&mut is_so)
            }
            Header::ProbeAck(ack) => ack.leaf_set.iter().flatten().all(is_so),
            Header::Admission(Admission::Granted { members } | Admission::NotNeighbour { members })
            | Header::LeafSet { members, .. }
            | Header::Leave { members }
            | Header::Attached { members, .. } => members.iter().all(is_so),
            Header::Outdated(peer) | Header::PeerDeadHint(peer) => is_so(peer),
            Header::Via { to, from, .. } => is_so(to) && is_so(from),
            Header::HopAck { .. }
            | Header::HopRefused { .. }
            | Header::Probe(_)
            | Header::JoinRequest
            | Header::Admission(Admission::Busy | Admission::NotReady)
            | Header::JoinCommit { .. }
            | Header::JoinCommitted { .. }
            | Header::JoinAbort { .. }
            | Header::Geometry(_)
            | Header::Attach
            | Header::Detach => true,
        }
    }

    /// Whether a frame may carry a lease piggyback. A frame about leases, joins, leaving, edges or detours says so in
    /// its own header.
    pub fn may_piggyback(&self) -> bool {
        match self {
            Header::Routed(_)
            | Header::HopAck { .. }
            | Header::HopRefused { .. }
            | Header::Direct(_)
            | Header::RelayedDirect { .. }
            | Header::LeafSet { .. }
            | Header::Geometry(_)
            | Header::Broadcast { .. }
            | Header::PeerDeadHint(_) => true,
            Header::Probe(_)
            | Header::ProbeAck(_)
            | Header::JoinRequest
            | Header::Admission(_)
            | Header::JoinCommit { .. }
            | Header::JoinCommitted { .. }
            | Header::JoinAbort { .. }
            | Header::Leave { .. }
            | Header::Attach
            | Header::Attached { .. }
            | Header::Detach
            | Header::Outdated(_)
            | Header::Via { .. } => false,
        }
    }
}

fn over_limit<T>(list: Option<&[T]>, limit: usize) -> Option<usize> {
    list.filter(|list| list.len() > limit).map(|_| limit)
}

// Queues are full of these in a burst: what is rare and large stands apart.
const _: () = assert!(size_of::<Header>() <= 192);

/// A message of one node to another, near or far.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Direct {
    /// A payload of the layer above, data: the frame's tail.
    Payload,
    /// The answer of the root of a key to a lookup, or to a node that seeks its place on the ring.
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
    /// A small payload of the layer above, which goes before data: the frame's tail.
    Control,
}

/// The header of a routed message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Routed {
    /// The sender's number for this hop; the receiver acknowledges it.
    pub hop: u64,
    /// Where it is going.
    pub key: Key,
    /// The node that sent it.
    pub origin: Contact,
    /// The origin's number for it. Only the origin gives it a meaning.
    pub id: u64,
    /// How many hops it has made.
    pub hops: u8,
    /// A hop on its way came from a leaf set: each later hop must be strictly closer (promise O2).
    pub by_leaf_set: bool,
    /// A hop on its way was not acknowledged and was made again: another node may have it too, or have had it. A new root,
    /// which has lost the table of sessions, must not take a session's first message for a fresh one. A hop whose dial was
    /// refused never left its node, and is not a repeated one.
    pub repeated: bool,
    /// Its purpose.
    pub purpose: Purpose,
    /// The path so far, if the origin asked for it.
    #[serde(deserialize_with = "bounded::optional::<MAX_TRACE, _, _>")]
    pub trace: Option<Vec<TraceHop>>,
}

/// The purpose of a routed message.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// The layer above: raised as `Forward` on its way and as `Deliver` at the root.
    Application,
    /// Asks for the root of the key.
    Lookup,
    /// Asks for the neighbours of the key. Asked by joiners and by rings that have found each other.
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

/// The answer of a root.
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

impl Direct {
    /// A payload of so many bytes that is to go in this class. One over [`MAX_CONTROL`] is data.
    pub fn of(class: Class, payload: usize) -> Direct {
        match class {
            Class::Control if payload <= MAX_CONTROL => Direct::Control,
            Class::Control | Class::Data => Direct::Payload,
        }
    }

    /// The class that was asked for a payload of the layer above; `None`: this carries none.
    fn class(&self) -> Option<Class> {
        match self {
            Direct::Payload => Some(Class::Data),
            Direct::Control => Some(Class::Control),
            Direct::Answer(_) | Direct::Undeliverable { .. } => None,
        }
    }

    /// Whether it is a payload of the layer above.
    pub fn is_payload(&self) -> bool {
        self.class().is_some()
    }

    fn all_peers(&self, is_so: &mut impl FnMut(&Peer) -> bool) -> bool {
        match self {
            Direct::Answer(answer) => is_so(&answer.root) && answer.leaf_set.iter().all(is_so),
            Direct::Payload | Direct::Control | Direct::Undeliverable { .. } => true,
        }
    }
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
    /// No node answered for the key in time: its root's leases did not run.
    NoRoot,
}

/// Are you there, and in what state?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Probe {
    /// Comes back in the acknowledgement.
    pub number: u64,
    /// How far the sender is; a ready sender may enter the receiver's tables.
    pub node_state: NodeState,
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
    pub node_state: NodeState,
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

/// Lease requests and grants of ring neighbours, in any frame that goes from one to the other anyway (design §5: traffic
/// carries leases). No node answers it with a frame of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeasePiggyback {
    /// A question; a grant may ride back.
    pub ask: Option<Ask>,
    /// The answer to an earlier one.
    pub grant: Option<Grant>,
}

/// Leases that are granted to the node that asked for them in a piggybacked [`Ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// The question's number: the leases count from its sending.
    pub number: u64,
    /// For which of the sides that were asked for.
    pub lease: Sides,
}

/// A frame of the ring's geometry: opaque to all else.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GeometryFrame {
    /// What it is, as the geometry counts its frames.
    pub kind: u8,
    /// Its content.
    #[serde(deserialize_with = "bounded::list::<MAX_GEOMETRY_BYTES, _, _>")]
    pub body: Vec<u8>,
}

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NodeState {
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
        /// The answerer's leaf set: the nodes around the slot while it keeps others out.
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

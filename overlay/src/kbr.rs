//! The key-based-routing face that Scribe needs from below: the Common API of Dabek et al. 2003 ("Towards a Common
//! API for Structured Peer-to-Peer Overlays", §3) with owned events in place of upcalls. Ring geometries differ
//! below this face, under the same Scribe.

use bytes::Bytes;

use crate::id::{Key, NodeId};

use crate::machine::{Machine, Refusal};
use crate::peer::{Contact, Peer, Seed};
use crate::time::Instant;
use crate::wire::{Class, NodeState, RouteFailure, Routed, TraceHop};

/// How many nodes on each side of this one [`Event::NearestChanged`] looks at: a replica set that this node stands in has no
/// other nodes, if it has at most one more than this.
pub const NEAREST: usize = 8;

/// A node's place on its ring, as the layer above may read it at any time, without changing anything.
pub trait RingView {
    /// How others reach this node now. For an edge it changes with its access node.
    fn contact(&self) -> Contact;

    /// How others reach this node another way, for an answer that did not come: the direct way from the node that gave it may
    /// be broken. Each number stands for one of the ways there are.
    fn reply_contact(&self, nth: u64) -> Contact;

    /// How far this node is.
    fn node_state(&self) -> NodeState;

    /// Whether this node answers for `key` now: closest, ready, and its leases run.
    fn is_root_of(&self, now: Instant, key: Key) -> bool;

    /// The `count` ring nodes closest to `key` that this node knows of, itself among them if it is ready.
    fn replica_set(&self, key: Key, count: usize) -> Vec<Peer>;
}

/// An overlay as the layer above sees it. It is one for every geometry of the ring.
pub trait KeyBasedRouting: RingView + Machine<Command = Command, Event = Event> {
    /// Sends a message towards the root of a key: `Forward` at each intermediate node, `Deliver` at the root (which
    /// may be this node), [`Event::Undeliverable`] here if it stops on its way.
    fn route(&mut self, now: Instant, key: Key, payload: Bytes);

    /// Sends a message to one node, best effort. Control goes before data on every way there; a payload over
    /// [`MAX_CONTROL`](crate::wire::MAX_CONTROL) is data whatever its class. Messages of different classes overtake each other.
    fn send(&mut self, now: Instant, to: &Contact, payload: Bytes, class: Class);

    /// Gives a message back that [`Event::Forward`] handed out: it goes on.
    fn resume(&mut self, now: Instant, transit: Transit);

    /// The nodes worth remembering for the next start: the nearest on the ring, or an edge's access nodes.
    fn peers(&self) -> Vec<Peer>;
}

/// A routed message at an intermediate node. Its holder may read it, change its payload, stop it by dropping
/// it, or give it back with [`KeyBasedRouting::resume`].
#[derive(Debug)]
pub struct Transit {
    pub(crate) routed: Routed,
    /// The node that handed the message to this one.
    pub previous: Peer,
    /// The payload.
    pub payload: Bytes,
}

impl Transit {
    /// Where it is going.
    pub fn key(&self) -> Key {
        self.routed.key
    }

    /// The node that sent it.
    pub fn origin(&self) -> Contact {
        self.routed.origin
    }
}

/// A command of the layer above to an overlay, beyond [`KeyBasedRouting`]'s methods.
#[derive(Clone, Debug)]
pub enum Command {
    /// Find a ring, or be the first. To be given once.
    Start(Bootstrap),
    /// Finds the root of this key. Answered by [`Event::Found`] or [`Event::NotFound`] with the same token.
    Lookup {
        /// The caller's name for the question.
        token: u64,
        /// Where to look.
        key: Key,
        /// Whether to record the path.
        trace: bool,
    },
    /// Sends a payload to every node of the ring and to their edges, this one excepted. Answered by
    /// [`Event::BroadcastEnded`] with the same token.
    Broadcast {
        /// The caller's name for the broadcast.
        token: u64,
        /// The message.
        payload: Bytes,
    },
    /// Leave the ring in order. [`Event::Left`] follows.
    Leave,
}

/// Where to look for a ring.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// The seeds that the user named. If there are any, only these are tried, and not reaching any is an error.
    pub join: Vec<Seed>,
    /// Where other nodes of this machine may listen: asked first when `join` is empty.
    pub local: Vec<Seed>,
    /// Peers of earlier lives: tried next.
    pub remembered: Vec<Seed>,
}

/// News of an overlay for the layer above.
#[derive(Debug)]
pub enum Event {
    /// The node is on the ring (or, in role edge, attached to it).
    Ready {
        /// It found no node and is the first of a ring of its own.
        alone: bool,
    },
    /// The start failed; the node is of no use.
    StartFailed(StartError),
    /// An intermediate hop: the message waits for `resume`.
    Forward(Transit),
    /// This node is the root of the message's key.
    Deliver(Delivery),
    /// A message that another node sent to this one.
    Received {
        /// The sender.
        from: Contact,
        /// The payload.
        payload: Bytes,
    },
    /// A message that another node sent to all.
    Broadcast {
        /// The sender, as those say that passed it on: no signature proves it.
        origin: Contact,
        /// The payload.
        payload: Bytes,
    },
    /// A broadcast of this node's own has left it, or did not.
    BroadcastEnded {
        /// The caller's name for the broadcast.
        token: u64,
        /// `Ok`: the nodes that it was given to first have it, or have not answered and the next ones have it.
        outcome: Result<(), BroadcastFailure>,
    },
    /// A message that this node routed stopped on its way.
    Undeliverable {
        /// Where it was going.
        key: Key,
        /// Why it stopped.
        reason: RouteFailure,
    },
    /// A lookup was answered.
    Found {
        /// The caller's name for the question.
        token: u64,
        /// The answer.
        found: Found,
    },
    /// A lookup was not answered.
    NotFound {
        /// The caller's name for the question.
        token: u64,
        /// Why, by the last attempt; `None`: no word came back.
        reason: Option<RouteFailure>,
    },
    /// The nodes around this one on the ring changed, or its leases did: keys may have moved to it or away from it.
    NeighboursChanged,
    /// The nodes nearest to this one changed: one of the [`NEAREST`] on a side came, died, left, or lives anew. The replica set
    /// of a key for which this node stands may be another one. At most once for each call of the machine, and never at an edge.
    NearestChanged,
    /// A node was found dead, left, or was heard in a later life: this life of it is over. A node that depends on it looks for
    /// another.
    PeerDown {
        /// The node.
        id: NodeId,
        /// Which of its lives.
        incarnation: u64,
    },
    /// A node was heard that this one knew in an earlier life: it has lost its memory. [`PeerDown`](Event::PeerDown) for the earlier
    /// life has come before. The node stands or stood in the tables, is an edge of this node, or has sent messages to it. Rarely it is
    /// told twice.
    PeerRestarted(Peer),
    /// How others reach this node changed: its old access node is gone, or it became a ring node.
    ContactChanged(Contact),
    /// The node has left the ring.
    Left,
    /// The node stopped for good: a newer incarnation of itself is on the ring.
    Superseded {
        /// The other's incarnation.
        by: u64,
    },
}

/// A message at the root of its key.
#[derive(Debug)]
pub struct Delivery {
    /// The key.
    pub key: Key,
    /// The node that sent it.
    pub origin: Contact,
    /// How many hops it made.
    pub hops: u8,
    /// A hop on its way was made again: the root that was there before may have had the same message. (A message
    /// that its sender sends again is another one.)
    pub repeated: bool,
    /// The payload.
    pub payload: Bytes,
}

/// Why a broadcast did not leave its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BroadcastFailure {
    /// The node is on no ring now, and attached to none.
    #[error("this node is not on the ring now")]
    NotReady,
    /// The ring has no other node that this one knows of, and no edge is attached to it.
    #[error("no other node is there to hear it")]
    Alone,
    /// As many broadcasts as this node keeps wait for their acknowledgements.
    #[error("too many broadcasts are on their way through this node: try again later")]
    Overloaded,
    /// An edge's access node did not acknowledge it. Some nodes may have it all the same.
    #[error("no node of the ring acknowledged it")]
    NotAcknowledged,
}

/// The answer to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key's root.
    pub root: Peer,
    /// Hops from the asking node to the root.
    pub hops: u8,
    /// From the question's first sending to the answer.
    pub took: std::time::Duration,
    /// The path, asking node first, root last, if it was asked for.
    pub path: Option<Vec<TraceHop>>,
}

/// Why a start failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// None of the named nodes could be reached.
    #[error("no node to join: {}", list(.0))]
    Unreachable(Vec<(Seed, Refusal)>),
    /// A node was reached, but the join did not end within the start timeout.
    #[error(
        "the ring was found through {through}, but the join did not finish in time: is the ring itself well?"
    )]
    JoinTimedOut {
        /// The seed that answered.
        through: Seed,
    },
    /// A newer incarnation of this node is on the ring.
    #[error("another process runs with this node's identity {id}: stop it, or use another data directory")]
    Superseded {
        /// The identity.
        id: NodeId,
    },
}

fn list(refusals: &[(Seed, Refusal)]) -> String {
    let lines: Vec<String> = refusals.iter().map(|(seed, why)| format!("{seed} {why}")).collect();
    lines.join("; ")
}

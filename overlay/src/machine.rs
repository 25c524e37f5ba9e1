//! The contract between protocol, driver and simulator. Protocol code touches no socket, disk, clock, thread or
//! unseeded random number. Its driver hands in the events and carries out the effects.
//!
//! The driver (`net::driver`) and the simulated world (`treecast-integration`) are generic over [`Machine`] and
//! over nothing else: the simulator runs the very code that ships.
//!
//! Departures from design §4: `handle_link` takes one [`Link`] value with a third case, [`Link::Refused`], because a start
//! that reaches no node must say which address it could not reach, and a refused dial counts as an unanswered probe.
//! `handle_frame` gets the whole [`Peer`] and not just an id, because the greeting of a connection says incarnation and address
//! once, so frames need not repeat them. A frame of an older incarnation is void wherever that incarnation stands.

use bytes::Bytes;

use crate::id::NodeId;
use crate::peer::{Addr, Peer, Seed};
use crate::time::Instant;
use crate::wire::Frame;

/// A protocol as a state machine.
///
/// **Drain contract.** After every `handle_*` call the caller drains [`poll_transmit`](Machine::poll_transmit),
/// [`poll_event`](Machine::poll_event) and [`poll_store`](Machine::poll_store) to `None`, then asks
/// [`poll_timeout`](Machine::poll_timeout). `now` never decreases from call to call. Frames may be lost,
/// duplicated and reordered on their way.
///
/// **Turns.** Calls that come together are one turn: a batch of frames, some commands, a deadline. The caller ends each turn by
/// [`handle_turn_end`](Machine::handle_turn_end), which is drained like every call, within milliseconds of the turn's first call. So
/// a machine may gather its answers to all of them. A turn may be as short as one call, and its end may come without any.
pub trait Machine {
    /// A command of the layer above.
    type Command;
    /// News for the layer above.
    type Event;

    /// This node as its peers know it: the transport's greeting.
    fn peer(&self) -> Peer;
    /// Handles a wish of the layer above.
    fn handle_command(&mut self, now: Instant, command: Self::Command);
    /// Handles a frame that `from` sent. The transport has checked that `from` owns its id.
    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame);
    /// Handles news of a connection: a hint, not a proof of death.
    fn handle_link(&mut self, now: Instant, link: Link);
    /// Hears how many bytes still wait in the transport for `peer`. For this node itself: how much has come and is not handled
    /// yet, when that becomes much, and 0 when it is little again.
    fn handle_queued(&mut self, now: Instant, peer: NodeId, bytes: usize);
    /// Hears that what [`poll_store`](Machine::poll_store) asked for is on disk.
    fn handle_stored(&mut self, now: Instant, token: StoreToken);
    /// The deadline passed. Spurious calls are harmless.
    fn handle_timeout(&mut self, now: Instant);
    /// The calls that came together have all been made. Spurious calls are harmless.
    fn handle_turn_end(&mut self, now: Instant);
    /// The next frame to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;
    /// The next thing to tell the layer above.
    fn poll_event(&mut self) -> Option<Self::Event>;
    /// The next thing to keep on disk.
    fn poll_store(&mut self) -> Option<Store>;
    /// When [`handle_timeout`](Machine::handle_timeout) wants to be called, if ever.
    fn poll_timeout(&self) -> Option<Instant>;
}

/// A frame on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: Destination,
    /// The bytes.
    pub frame: Frame,
}

/// The node that a transport is to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A known node: over the connection that it has, else dialled, and then its key must fit its id.
    Peer(Peer),
    /// An address behind which any node (`id: None`) or one certain node may answer.
    Seed(Seed),
}

/// News of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// A connection with this peer came up. Generations of one peer grow.
    Up {
        /// The node at the other end, by its greeting.
        peer: Peer,
        /// Tells this connection from earlier ones with the same peer.
        generation: u64,
    },
    /// A connection broke (or was closed by the other side), and there is no other with this peer.
    Down {
        /// The node at the other end.
        peer: NodeId,
        /// Which connection.
        generation: u64,
    },
    /// Dialling failed.
    Refused {
        /// Where.
        addr: Addr,
        /// The node that was wanted there, if its id was known.
        id: Option<NodeId>,
        /// Why.
        reason: Refusal,
    },
}

/// Why a connection did not come about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Nothing listens there, or the network says no; the text is the system's.
    Unreachable(String),
    /// Something listens there, but did not finish the handshake in time.
    TimedOut,
    /// The other side speaks another protocol, or another version of ours.
    Protocol(String),
    /// The other side belongs to another network, named here.
    Network(String),
    /// Another key than the wanted one answered; its id.
    WrongId(NodeId),
    /// It is this node itself.
    Myself,
    /// Another process with this node's key; its incarnation.
    Twin(u64),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Unreachable(why) => write!(f, "cannot be reached ({why})"),
            Refusal::TimedOut => f.write_str("does not answer"),
            Refusal::Protocol(why) => write!(f, "does not speak this version of Treecast ({why})"),
            Refusal::Network(name) => write!(f, "belongs to network `{name}`"),
            Refusal::WrongId(id) => write!(f, "is another node ({id})"),
            Refusal::Myself => f.write_str("is this node itself"),
            Refusal::Twin(_) => f.write_str("is another process with this node's identity"),
        }
    }
}

/// Something to keep on disk, as an effect like sending. Nothing issues one yet: durable topics will.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// Comes back in [`Machine::handle_stored`].
    pub token: StoreToken,
    /// The record's name.
    pub name: String,
    /// The record.
    pub bytes: Bytes,
}

/// Names one [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreToken(pub u64);

//! The messages between the nodes of a tree. One closed enum: every node of one protocol version knows them all.

use serde::{Deserialize, Serialize};
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::wire::Class;

use super::codec::{self, DecodeError};
use super::short::{LogTipForm, StartedForm};
use crate::message::{Mark, Position, Term};
use crate::topic::TopicId;

/// Longest path to a root that a node accepts: Pastry's hop limit (promise O2). A longer one is a loop.
pub const MAX_PATH: usize = 64;
/// Most topics in one [`Shared`] message; longer lists go in several, each for a range of ids.
pub const MAX_SHARED: usize = 1024;
/// Most topics in one of the lists of a [`Beat`].
pub const MAX_MARKS: usize = 1024;
/// Most chunks of one handoff.
pub const MAX_CHUNKS: u32 = 256;
/// Terms, offsets, sessions and sequences stay below this: sums of them never overflow, whatever a peer says.
pub const MAX_NUMBER: u64 = 1 << 56;
/// Most bytes that the header of a [`Data`] message takes.
pub const MAX_DATA_HEADER: usize = 96;

/// Most parents in one [`Offer`].
pub const MAX_OFFERED: usize = 32;

/// The head of a Scribe message. `Data`, `Publish` and `HandoffChunk` carry a payload, the message's tail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Header {
    /// A child looks for a parent, or tells its parent news of itself. Routed towards the topic's key, or sent.
    Join(Join),
    /// A parent tells its child how things are: at once on adoption, and whenever it changes. Acknowledged.
    Attached(Attached),
    /// The sender is no longer the receiver's child.
    Leave {
        /// The topic.
        topic: TopicId,
        /// The sender's last number for a JOIN: a later JOIN is not undone by this.
        join: u64,
    },
    /// The receiver is not, or no longer, the sender's child.
    Orphan {
        /// The topic.
        topic: TopicId,
    },
    /// An entry of the log, the same bytes for all children. Carries the message's payload.
    Data(Data),
    /// A child says how far it is.
    Ack(Ack),
    /// A publisher asks the root for a position. Routed towards the topic's key, or sent. Carries the payload.
    Publish(Publish),
    /// The root says that a message has its position.
    Receipt(PublishReceipt),
    /// The root says that a message will get none.
    Refused {
        /// The topic.
        topic: TopicId,
        /// The publisher's session.
        session: u64,
        /// The message's number.
        sequence: u64,
        /// The reason.
        reason: RefusedReason,
    },
    /// Tree neighbours keep each other informed: the same size for one topic as for ten thousand (promise S7).
    Beat(Beat),
    /// A part of the list of topics in which the receiver is the sender's child; sent when a digest did not match.
    Shared(Shared),
    /// A new root asks what a node knows of a topic's log.
    Query {
        /// The topic.
        topic: TopicId,
    },
    /// The answer to `Query`.
    QueryAnswer {
        /// The topic.
        topic: TopicId,
        /// The tip that the sender knows, if any.
        tip: Option<LogTip>,
        /// The sender was the root: a handoff follows.
        handoff: bool,
    },
    /// A chunk of a former root's state. Carries the chunk.
    HandoffChunk {
        /// The topic.
        topic: TopicId,
        /// The sender's number for this handoff.
        transfer: u64,
        /// Which chunk, from 0.
        chunk: u32,
        /// How many chunks there are.
        chunks: u32,
    },
    /// A chunk of a handoff was taken.
    HandoffTaken {
        /// The topic.
        topic: TopicId,
        /// The sender's number for the handoff.
        transfer: u64,
        /// Which chunk.
        chunk: u32,
    },
    /// A parent wants its child to attach to another node.
    Offer(Offer),
    /// A child that was offered several parents looks how far they are.
    CapacityProbe {
        /// The topic.
        topic: TopicId,
        /// The sender's number for the offer.
        number: u64,
    },
    /// The answer to `CapacityProbe`.
    CapacityAnswer {
        /// The topic.
        topic: TopicId,
        /// The child's number for the offer.
        number: u64,
        /// Whether there is room for the child.
        capacity: Capacity,
    },
    /// A child has another parent that waits for its word: nothing more is to be pushed to it.
    Detach {
        /// The topic.
        topic: TopicId,
        /// The sender's last number for a JOIN: a later JOIN is not undone by this.
        join: u64,
    },
    /// The answer to `Detach`: the receiver is the sender's child no more.
    Detached {
        /// The topic.
        topic: TopicId,
        /// The number in `Detach`.
        join: u64,
        /// The last entry that was pushed to the receiver.
        last: Option<Position>,
    },
}

impl Header {
    /// Its name, as `docs/protocol.md` has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Header::Join(_) => "Join",
            Header::Attached(_) => "Attached",
            Header::Leave { .. } => "Leave",
            Header::Orphan { .. } => "Orphan",
            Header::Data(_) => "Data",
            Header::Ack(_) => "Ack",
            Header::Publish(_) => "Publish",
            Header::Receipt(_) => "Receipt",
            Header::Refused { .. } => "Refused",
            Header::Beat(_) => "Beat",
            Header::Shared(_) => "Shared",
            Header::Query { .. } => "Query",
            Header::QueryAnswer { .. } => "QueryAnswer",
            Header::HandoffChunk { .. } => "HandoffChunk",
            Header::HandoffTaken { .. } => "HandoffTaken",
            Header::Offer(_) => "Offer",
            Header::CapacityProbe { .. } => "CapacityProbe",
            Header::CapacityAnswer { .. } => "CapacityAnswer",
            Header::Detach { .. } => "Detach",
            Header::Detached { .. } => "Detached",
        }
    }

    /// Whether a payload may follow.
    pub fn carries_payload(&self) -> bool {
        match self {
            Header::Data(data) => matches!(data.body, Body::Message { .. }),
            Header::Publish(_) | Header::HandoffChunk { .. } => true,
            Header::Join(_)
            | Header::Attached(_)
            | Header::Leave { .. }
            | Header::Orphan { .. }
            | Header::Ack(_)
            | Header::Receipt(_)
            | Header::Refused { .. }
            | Header::Beat(_)
            | Header::Shared(_)
            | Header::Query { .. }
            | Header::QueryAnswer { .. }
            | Header::HandoffTaken { .. }
            | Header::Offer(_)
            | Header::CapacityProbe { .. }
            | Header::CapacityAnswer { .. }
            | Header::Detach { .. }
            | Header::Detached { .. } => false,
        }
    }

    /// The class in which it goes: entries, publications and pieces of logs are data, and what all else says goes before them.
    pub fn class(&self) -> Class {
        match self {
            Header::Data(_) | Header::Publish(_) | Header::HandoffChunk { .. } => Class::Data,
            Header::Join(_)
            | Header::Attached(_)
            | Header::Leave { .. }
            | Header::Orphan { .. }
            | Header::Ack(_)
            | Header::Receipt(_)
            | Header::Refused { .. }
            | Header::Beat(_)
            | Header::Shared(_)
            | Header::Query { .. }
            | Header::QueryAnswer { .. }
            | Header::HandoffTaken { .. }
            | Header::Offer(_)
            | Header::CapacityProbe { .. }
            | Header::CapacityAnswer { .. }
            | Header::Detach { .. }
            | Header::Detached { .. } => Class::Control,
        }
    }

    /// Whether its lists and numbers are within their limits.
    pub(super) fn check(&self) -> Result<(), DecodeError> {
        match self {
            Header::Join(join) => {
                codec::numbers(&[join.number])?;
                codec::mark(join.after)?;
                codec::tip(join.best_known)
            }
            Header::Attached(attached) => {
                codec::numbers(&[attached.join, attached.seq])?;
                codec::at_most(attached.path.len(), MAX_PATH)?;
                let Some(start) = attached.start else { return Ok(()) };
                codec::numbers(&[start.term.number])?;
                codec::mark(Some(start.after))?;
                codec::position(start.latest)
            }
            Header::Data(data) => {
                codec::position(Some(data.position))?;
                codec::body(data.position, &data.body)
            }
            Header::Ack(ack) => ack.check(),
            Header::Publish(publish) => {
                codec::numbers(&[publish.session, publish.sequence, publish.acknowledged])
            }
            Header::Receipt(receipt) => {
                codec::numbers(&[receipt.session, receipt.sequence])?;
                codec::position(Some(receipt.position))
            }
            Header::Beat(beat) => {
                codec::at_most(beat.moved.len(), MAX_MARKS)?;
                codec::at_most(beat.acks.len(), MAX_MARKS)?;
                beat.moved.iter().try_for_each(|moved| codec::position(moved.tail))?;
                beat.acks.iter().try_for_each(Ack::check)
            }
            Header::Shared(shared) => codec::at_most(shared.topics.len(), MAX_SHARED),
            Header::QueryAnswer { tip: answer, .. } => codec::tip(*answer),
            Header::HandoffChunk { chunk, chunks, .. } => {
                codec::at_most(*chunks as usize, MAX_CHUNKS as usize)?;
                if chunk < chunks { Ok(()) } else { Err(DecodeError::OutOfRange(u64::from(*chunk))) }
            }
            Header::Offer(offer) => codec::at_most(offer.parents.len(), MAX_OFFERED),
            Header::Detached { last, .. } => codec::position(*last),
            Header::Leave { .. }
            | Header::Orphan { .. }
            | Header::CapacityProbe { .. }
            | Header::CapacityAnswer { .. }
            | Header::Detach { .. }
            | Header::Refused { .. }
            | Header::Query { .. }
            | Header::HandoffTaken { .. } => Ok(()),
        }
    }
}

/// A parent asks its child to attach to another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The topic.
    pub topic: TopicId,
    /// The number of the JOIN that made the receiver a child.
    pub join: u64,
    /// The nodes to choose from.
    pub parents: Vec<Offered>,
}

/// A parent that a child may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    /// The node.
    pub contact: Contact,
    /// Round-trip time between it and the node that offers it, in µs.
    pub micros: u32,
}

/// Whether a node takes another child over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capacity {
    /// No.
    None,
    /// Yes, though it has as many children as it should, and one will be handed on.
    Crowded,
    /// Yes, to stay.
    Free,
}

/// A child asks to attach to a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The topic.
    pub topic: TopicId,
    /// The child's number for this JOIN: grows with every new one, over all topics; a repetition keeps it.
    pub number: u64,
    /// The mark that the child has, or wants to continue after; `None`: whatever comes next.
    pub after: Option<Mark>,
    /// The most that the child has heard of the log: a new root's term must be above it.
    pub best_known: Option<LogTip>,
    /// Subscribers at and below the child.
    pub subscribers: u64,
    /// The parent that the child has as long as this one does not push: nothing is pushed before the child's first
    /// `Ack`. `None`: it has none, or the receiver is it.
    pub former: Option<NodeId>,
}

/// A parent tells its child how things are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// The topic.
    pub topic: TopicId,
    /// The number of the JOIN that made the receiver a child.
    pub join: u64,
    /// Grows with each that the parent sends: of those about one JOIN an older one is void.
    pub seq: u64,
    /// From the parent to the root, as far as the parent knows.
    pub path: Vec<NodeId>,
    /// How its last node, the root, is reached, if the parent knows: publishers go there directly.
    pub root: Option<Peer>,
    /// Where the parent will start pushing; `None` while it has not been started itself.
    pub start: Option<Started>,
}

/// Where a parent starts its child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StartedForm", into = "StartedForm")]
pub struct Started {
    /// The log's term as the parent knows it.
    pub term: Term,
    /// The first entry that is pushed follows this.
    pub after: Mark,
    /// The parent's last entry.
    pub latest: Option<Position>,
}

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The topic.
    pub topic: TopicId,
    /// Its place.
    pub position: Position,
    /// A message, or a term's start.
    pub body: Body,
}

/// The content of an entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A message; the payload is the tail.
    Message {
        /// The node that published it.
        publisher: NodeId,
        /// In which session.
        session: u64,
        /// Its number in the session.
        sequence: u64,
        /// The publisher's signature.
        signature: Signature,
    },
    /// A root opens the term of this position. It takes a position like a message (as leaders of VSR and Raft append a
    /// no-op), so that it is ordered, acknowledged and repaired by the same cursors.
    TermStart {
        /// The term of the entry before this one; `None` at the log's beginning.
        previous: Option<Term>,
        /// The previous root did not hand its log over: what only it had is lost.
        forced: bool,
    },
}

/// A message's signature. The field is there from the first day, with its version as the enum's tag (promise S8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Signature {
    /// Not signed.
    #[default]
    None,
}

/// How far a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The topic.
    pub topic: TopicId,
    /// The child's JOIN.
    pub join: u64,
    /// The last `Attached` of that JOIN that the child has seen.
    pub seq: u64,
    /// The last entry that the child has; all before it are there too.
    pub position: Option<Position>,
    /// Subscribers at and below the child.
    pub subscribers: u64,
    /// The child misses what follows: it is to be sent again.
    pub again: bool,
    /// The offset before which all subscribers at and below the child have consumed everything, but for those that were
    /// left behind: the root admits no message that would push what is beyond it out of a window.
    pub consumed: u64,
}

impl Ack {
    fn check(&self) -> Result<(), DecodeError> {
        codec::numbers(&[self.join, self.seq, self.consumed])?;
        codec::position(self.position)
    }
}

/// A message on its way to its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Publish {
    /// The topic.
    pub topic: TopicId,
    /// The publisher, and where the receipt goes.
    pub publisher: Contact,
    /// The publisher's session.
    pub session: u64,
    /// The message's number in the session, from 1.
    pub sequence: u64,
    /// All up to this number have their receipts: the root may forget them.
    pub acknowledged: u64,
    /// It was sent before: if this root does not know the session, an earlier one may have known the message.
    pub resent: bool,
    /// The publisher's signature.
    pub signature: Signature,
}

/// The root's receipt for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishReceipt {
    /// The topic.
    pub topic: TopicId,
    /// The publisher's session.
    pub session: u64,
    /// The message's number.
    pub sequence: u64,
    /// Its place.
    pub position: Position,
    /// In how many copies the log holds it.
    pub copies: u32,
    /// Estimate of the topic's subscribers.
    pub listeners: u64,
    /// The root: further messages may go there directly.
    pub root: Contact,
}

/// The reason why a root does not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedReason {
    /// The root does not know the session, and earlier messages of it may be in the log.
    UnknownSession,
    /// The root keeps as many topics or sessions as it can.
    Full,
    /// The payload is larger than the root allows; its limit.
    TooLarge {
        /// In bytes.
        limit: u64,
    },
}

/// The end of a topic's log as far as a node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "LogTipForm", into = "LogTipForm")]
pub struct LogTip {
    /// The log's birth.
    pub birth: u64,
    /// The highest term heard of.
    pub term: Term,
    /// The last entry known.
    pub tail: Option<Position>,
}

/// A sign of life between tree neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The topics in which the receiver is the sender's parent.
    pub up: Digest,
    /// Topics in which the receiver is the sender's child, and lacks what the sender has for all that the sender knows.
    pub moved: Vec<Moved>,
    /// Acknowledgements of topics in which the receiver is the sender's parent.
    pub acks: Vec<Ack>,
    /// This beat answers one from a node with which the sender shares no topic; it is not to be answered.
    pub reply: bool,
}

/// A set of topics in brief. The ids are hashes, so their sum without carry tells sets apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many.
    pub count: u32,
    /// All ids, combined by exclusive or.
    pub sum: u128,
}

impl Digest {
    /// Adds a topic that is not in the set, or takes out one that is.
    pub fn toggle(&mut self, topic: TopicId, added: bool) {
        self.sum ^= topic.key().0;
        self.count = if added { self.count.saturating_add(1) } else { self.count.saturating_sub(1) };
    }
}

/// How far the sender of a beat is in a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The topic.
    pub topic: TopicId,
    /// The sender's last entry.
    pub tail: Option<Position>,
}

/// The topics with ids in `from..=to` in which the receiver is the sender's child, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// First id of the range.
    pub from: TopicId,
    /// Last id of the range.
    pub to: TopicId,
    /// The topics.
    pub topics: Vec<TopicId>,
}

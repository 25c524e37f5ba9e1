//! The messages between the nodes of a tree. One closed enum: every node of one protocol version knows them all.

use serde::{Deserialize, Serialize};
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::wire::Class;

use super::codec::{self, DecodeError};
use super::{Body, CopyState, Lineage, Sync, Term};
use crate::message::{Mark, Position, Start};
use crate::topic::TopicId;

/// Longest path to a root that a node accepts: Pastry's hop limit (promise O2). A longer one is a loop.
pub const MAX_PATH: usize = 64;
/// Most topics in one [`Shared`] message; longer lists go in several, each for a range of ids.
pub const MAX_SHARED: usize = 1024;
/// Most entries that one [`Ack`] says to be missing.
pub const MAX_HOLES: usize = 128;
/// Most sequences in one [`Nack`].
pub const MAX_MISSING: usize = 32;
/// Most topics in one of the lists of a [`Beat`].
pub const MAX_MARKS: usize = 1024;
/// Most members of a log.
pub const MAX_MEMBERS: usize = 7;
/// Most configurations in one message: the last committed one, and those that may follow.
pub const MAX_CONFIGURATIONS: usize = 4;
/// Terms, offsets, sessions and sequences stay below this: sums of them never overflow, whatever a peer says.
pub const MAX_NUMBER: u64 = 1 << 56;
/// Most bytes that the header of a [`Data`] message takes.
pub const MAX_DATA_HEADER: usize = 96;

/// Most parents in one [`Offer`].
pub const MAX_OFFERED: usize = 32;

/// The head of a Scribe message. `Data`, `Publish` and `Pulled` carry a payload, the message's tail.
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
    /// A new root asks a node for its promise, and for what it holds of a topic's log.
    Prepare {
        /// The topic.
        topic: TopicId,
        /// The root's term.
        term: Term,
    },
    /// The answer to `Prepare`.
    Promise(Promise),
    /// The other answer to `Prepare`, and to an `Attached` with a `Sync` of an earlier term: the sender has promised to listen
    /// to no root before this term's.
    PromiseRefused {
        /// The topic.
        topic: TopicId,
        /// The term.
        promised: Term,
    },
    /// A root asks a node to become a member of a topic's log. It answers with a JOIN, or with `InviteRefused`.
    Invite {
        /// The topic.
        topic: TopicId,
    },
    /// The sender will not be a member, or not any longer: it leaves, or has no room.
    InviteRefused {
        /// The topic.
        topic: TopicId,
    },
    /// A root tells a member how far the log is committed. Counts only for a copy of this very root's log, in this term.
    LogCommit {
        /// The topic.
        topic: TopicId,
        /// The root's term.
        term: Term,
        /// Entries before this offset are committed.
        commit: u64,
    },
    /// A node asks for entries.
    Pull(Pull),
    /// The answer to `Pull`: an entry as it travels is the payload.
    Pulled {
        /// The topic.
        topic: TopicId,
        /// The number in `Pull`.
        number: u64,
        /// The offset of the entry that follows as the payload.
        offset: u64,
    },
    /// The other answer to `Pull`: what is asked for is not here.
    NotPulled {
        /// The topic.
        topic: TopicId,
        /// The number in `Pull`.
        number: u64,
        /// The first offset that is here, if the log is.
        start: Option<u64>,
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
        /// The offset behind the last entry that was pushed to the receiver, if any was.
        end: Option<u64>,
    },
    /// The root says that messages of a session have not come, though a later one has.
    Nack(Nack),
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
            Header::Nack(_) => "Nack",
            Header::Beat(_) => "Beat",
            Header::Shared(_) => "Shared",
            Header::Prepare { .. } => "Prepare",
            Header::Promise(_) => "Promise",
            Header::PromiseRefused { .. } => "PromiseRefused",
            Header::Invite { .. } => "Invite",
            Header::InviteRefused { .. } => "InviteRefused",
            Header::LogCommit { .. } => "LogCommit",
            Header::Pull(_) => "Pull",
            Header::Pulled { .. } => "Pulled",
            Header::NotPulled { .. } => "NotPulled",
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
            Header::Data(_) | Header::Publish(_) | Header::Pulled { .. } => true,
            Header::Join(_)
            | Header::Attached(_)
            | Header::Leave { .. }
            | Header::Orphan { .. }
            | Header::Ack(_)
            | Header::Receipt(_)
            | Header::Refused { .. }
            | Header::Nack(_)
            | Header::Beat(_)
            | Header::Shared(_)
            | Header::Prepare { .. }
            | Header::Promise(_)
            | Header::PromiseRefused { .. }
            | Header::Invite { .. }
            | Header::InviteRefused { .. }
            | Header::LogCommit { .. }
            | Header::Pull(_)
            | Header::NotPulled { .. }
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
            Header::Data(_) | Header::Publish(_) | Header::Pulled { .. } => Class::Data,
            Header::Join(_)
            | Header::Attached(_)
            | Header::Leave { .. }
            | Header::Orphan { .. }
            | Header::Ack(_)
            | Header::Receipt(_)
            | Header::Refused { .. }
            | Header::Nack(_)
            | Header::Beat(_)
            | Header::Shared(_)
            | Header::Prepare { .. }
            | Header::Promise(_)
            | Header::PromiseRefused { .. }
            | Header::Invite { .. }
            | Header::InviteRefused { .. }
            | Header::LogCommit { .. }
            | Header::Pull(_)
            | Header::NotPulled { .. }
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
                codec::start(join.start)?;
                join.copy.as_deref().map_or(Ok(()), codec::copy)
            }
            Header::Attached(attached) => {
                codec::numbers(&[attached.join, attached.seq])?;
                codec::at_most(attached.path.len(), MAX_PATH)?;
                let Some(start) = &attached.start else { return Ok(()) };
                codec::numbers(&[start.next, start.latest])?;
                codec::lineage(&start.lineage)?;
                start.sync.as_deref().map_or(Ok(()), codec::sync)
            }
            Header::Data(data) => {
                codec::numbers(&[data.offset, data.term, data.behind, data.stamp])?;
                if data.behind > data.offset {
                    return Err(DecodeError::OutOfRange(data.behind));
                }
                codec::body(&data.body)
            }
            Header::Ack(ack) => ack.check(),
            Header::Publish(publish) => {
                codec::numbers(&[publish.session, publish.sequence, publish.acknowledged])
            }
            Header::Receipt(receipt) => {
                codec::numbers(&[receipt.session, receipt.sequence, receipt.position.offset])
            }
            Header::Beat(beat) => {
                codec::at_most(beat.moved.len(), MAX_MARKS)?;
                codec::at_most(beat.acks.len(), MAX_MARKS)?;
                beat.moved.iter().try_for_each(|moved| codec::numbers(&[moved.next]))?;
                beat.acks.iter().try_for_each(Ack::check)
            }
            Header::Shared(shared) => codec::at_most(shared.topics.len(), MAX_SHARED),
            Header::Prepare { term, .. } | Header::PromiseRefused { promised: term, .. } => {
                codec::numbers(&[term.number])
            }
            Header::Promise(promise) => {
                codec::numbers(&[promise.term.number, promise.join])?;
                promise.known.iter().try_for_each(|mark| codec::numbers(&[mark.next]))?;
                promise.copy.as_deref().map_or(Ok(()), codec::copy)
            }
            Header::LogCommit { term, commit, .. } => codec::numbers(&[term.number, *commit]),
            Header::Pull(pull) => {
                let term = pull.term.map_or(0, |term| term.number);
                codec::numbers(&[pull.number, pull.from, pull.until, term])
            }
            Header::Pulled { number, offset, .. } => codec::numbers(&[*number, *offset]),
            Header::NotPulled { number, start, .. } => codec::numbers(&[*number, start.unwrap_or(0)]),
            Header::Offer(offer) => {
                codec::numbers(&[offer.join])?;
                codec::at_most(offer.parents.len(), MAX_OFFERED)
            }
            Header::Leave { join, .. } | Header::Detach { join, .. } => codec::numbers(&[*join]),
            Header::Detached { join, end, .. } => codec::numbers(&[*join, end.unwrap_or(0)]),
            Header::CapacityProbe { number, .. } | Header::CapacityAnswer { number, .. } => {
                codec::numbers(&[*number])
            }
            Header::Refused { session, sequence, .. } => codec::numbers(&[*session, *sequence]),
            Header::Nack(nack) => {
                codec::at_most(nack.missing.len(), MAX_MISSING)?;
                codec::numbers(&[nack.session, nack.seen])?;
                codec::numbers(&nack.missing)
            }
            Header::Orphan { .. } | Header::Invite { .. } | Header::InviteRefused { .. } => Ok(()),
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The topic.
    pub topic: TopicId,
    /// The child's number for this JOIN: grows with every new one, over all topics; a repetition keeps it.
    pub number: u64,
    /// Where the child wants to begin, or goes on.
    pub start: Start,
    /// Subscribers at and below the child.
    pub subscribers: u64,
    /// The parent that the child has as long as this one does not push: nothing is pushed before the child's first
    /// `Ack`. `None`: it has none, or the receiver is it.
    pub former: Option<NodeId>,
    /// The child is a member of the log, or is to become one: only the root may be its parent.
    pub copy: Option<Box<CopyState>>,
    /// The root does not answer this member: any node may be its parent meanwhile, and push what is committed.
    pub by_third: bool,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The log's birth.
    pub birth: u64,
    /// The births before it.
    pub lineage: Lineage,
    /// Offset of the first entry that is pushed.
    pub next: u64,
    /// The offset behind the last entry that the parent knows to have been given a position.
    pub latest: u64,
    /// The child's log is to become a copy of the root's. `None`: the child is no member.
    pub sync: Option<Box<Sync>>,
}

/// The answer to `Prepare`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The topic.
    pub topic: TopicId,
    /// The root's term.
    pub term: Term,
    /// The sender's number for the JOIN that this is as well.
    pub join: u64,
    /// The sender's copy; `None`: it is no member.
    pub copy: Option<Box<CopyState>>,
    /// How far the sender's part of the log reaches, if it has one: all of it was committed.
    pub known: Option<Mark>,
}

/// A node asks for entries in `from..until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    /// The topic.
    pub topic: TopicId,
    /// The sender's number for this request.
    pub number: u64,
    /// The log's birth.
    pub birth: u64,
    /// Offset of the first entry.
    pub from: u64,
    /// The offset behind the last one.
    pub until: u64,
    /// For a root that adopts this log: the term that was promised. Else only what is committed is given.
    pub term: Option<Term>,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Data {
    /// The topic.
    pub topic: TopicId,
    /// The birth of the log.
    pub birth: u64,
    /// Its offset.
    pub offset: u64,
    /// The number of the term of the root that sends it to members; for all others without a meaning.
    pub term: u64,
    /// How many entries before it were not committed yet when it was encoded: members hear of commits by it.
    pub behind: u64,
    /// When the root appended it, in unix milliseconds.
    pub stamp: u64,
    /// A message, or a configuration.
    pub body: Body,
}

/// A message's signature. The field is there from the first day, with its version as the enum's tag (promise S8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Signature {
    /// Not signed.
    #[default]
    None,
}

/// How far a child is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The topic.
    pub topic: TopicId,
    /// The child's JOIN.
    pub join: u64,
    /// The last `Attached` of that JOIN that the child has seen.
    pub seq: u64,
    /// The child has everything before this offset. Of a member: what is the same as the root's.
    pub next: u64,
    /// Subscribers at and below the child.
    pub subscribers: u64,
    /// The child misses the entry that follows: it is to be sent again.
    pub again: bool,
    /// Further entries that it misses, before others that have come.
    pub missing: Vec<u64>,
    /// The offset before which all subscribers at and below the child have consumed everything, but for those that were
    /// left behind: the root admits no message that would push what is beyond it out of a window.
    pub consumed: u64,
}

impl Ack {
    fn check(&self) -> Result<(), DecodeError> {
        codec::at_most(self.missing.len(), MAX_HOLES)?;
        codec::numbers(&[self.join, self.seq, self.consumed, self.next])?;
        codec::numbers(&self.missing)
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
    /// The birth of the log in which this session's messages are, if the publisher knows.
    pub birth: Option<u64>,
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
    /// The log's birth now.
    pub birth: u64,
    /// In how many copies the log holds it.
    pub copies: u32,
    /// Estimate of the topic's subscribers.
    pub listeners: u64,
    /// The root: further messages may go there directly.
    pub root: Contact,
}

/// A root's word on what it lacks of a session: its publisher sends that again at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// The topic.
    pub topic: TopicId,
    /// The publisher's session.
    pub session: u64,
    /// The first sequences that have not come, in order.
    pub missing: Vec<u64>,
    /// The sequence of the message that has just come.
    pub seen: u64,
}

/// The reason why a root does not take a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedReason {
    /// The root does not know the session, and earlier messages of it may be in the log.
    UnknownSession,
    /// The log has begun anew, and earlier messages of the session may be in it or not. A message that was sent but once
    /// is in none.
    OtherBirth {
        /// The log's birth now.
        birth: u64,
        /// The message came here by a way on which it may have been doubled.
        repeated: bool,
    },
    /// The receiver of the message is the root no more, and has not taken it; the new one, if it is known.
    NotRoot {
        /// The root.
        root: Option<Contact>,
    },
    /// The root keeps as many topics or sessions as it can.
    Full,
    /// The payload is larger than the root allows; its limit.
    TooLarge {
        /// In bytes.
        limit: u64,
    },
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
    /// The receiver was silent: it is to answer with a beat at once.
    pub asks: bool,
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
    /// The birth of its log.
    pub birth: u64,
    /// The offset behind the sender's last committed entry.
    pub next: u64,
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

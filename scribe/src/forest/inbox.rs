//! Sorts the messages that come by the part of the forest that they are for.

use bytes::Bytes;

use crate::log::early::Arrived;
use crate::log::window::Held;
use crate::topic::TopicId;
use crate::wire::{
    self, Ack, Attached, Beat, Capacity, Data, Header, Join, Nack, Offer, Promise, Publish, PublishReceipt,
    Pull, RefusedReason, Shared, Term,
};

/// A message, sorted.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Asks for a place in a tree, which this node may not be on yet.
    Join(Join),
    /// Asks for a position in a log, of which this node may not know that it is the root.
    Publish(Publish, Bytes),
    /// For the tree of one topic.
    Topic { topic: TopicId, message: TopicMessage },
    /// For this node's publisher on one topic.
    Publisher { topic: TopicId, message: PublisherMessage },
    /// Asks this node to become a member of a log, of whose tree it may not be yet.
    Invite { topic: TopicId },
    /// Between neighbours, of all the topics that they share.
    Neighbour(NeighbourMessage),
}

/// A message between two nodes of one tree; see [`Header`].
#[derive(Debug)]
pub(super) enum TopicMessage {
    Attached(Attached),
    Leave { join: u64 },
    Orphan,
    Entry(Arrived),
    Ack(Ack),
    Prepare { term: Term },
    Promise(Promise),
    PromiseRefused { promised: Term },
    InviteRefused,
    LogCommit { term: Term, commit: u64 },
    Pull(Pull),
    Pulled { number: u64, entry: Arrived },
    NotPulled { number: u64, start: Option<u64> },
    Offer(Offer),
    CapacityProbe { number: u64 },
    Capacity { number: u64, capacity: Capacity },
    Detach { join: u64 },
    Detached { join: u64, end: Option<u64> },
}

/// The answer to a message for a tree that this node is not on, though its sender believes it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerWithoutTree {
    Nothing,
    /// This node is no child of the sender's.
    Leave {
        join: u64,
    },
    /// The same, though not for each entry.
    RefuseEntries,
    /// The sender is no child of this node's.
    Orphan,
    /// This node is no member of the log.
    NoCopy {
        term: Term,
    },
    /// It has no entries.
    NotPulled {
        number: u64,
    },
    /// There is no room here.
    NoCapacity {
        number: u64,
    },
    /// The sender may go.
    Detached {
        join: u64,
    },
}

impl TopicMessage {
    pub(super) fn answer_without_tree(&self) -> AnswerWithoutTree {
        match *self {
            TopicMessage::Attached(ref attached) => AnswerWithoutTree::Leave { join: attached.join },
            TopicMessage::Entry(_) => AnswerWithoutTree::RefuseEntries,
            TopicMessage::Ack(_) => AnswerWithoutTree::Orphan,
            TopicMessage::Prepare { term } => AnswerWithoutTree::NoCopy { term },
            TopicMessage::Pull(ref pull) => AnswerWithoutTree::NotPulled { number: pull.number },
            TopicMessage::CapacityProbe { number } => AnswerWithoutTree::NoCapacity { number },
            TopicMessage::Detach { join } => AnswerWithoutTree::Detached { join },
            TopicMessage::Leave { .. }
            | TopicMessage::Orphan
            | TopicMessage::Promise(_)
            | TopicMessage::PromiseRefused { .. }
            | TopicMessage::InviteRefused
            | TopicMessage::LogCommit { .. }
            | TopicMessage::Pulled { .. }
            | TopicMessage::NotPulled { .. }
            | TopicMessage::Offer(_)
            | TopicMessage::Capacity { .. }
            | TopicMessage::Detached { .. } => AnswerWithoutTree::Nothing,
        }
    }
}

/// A root's answer to a publisher.
#[derive(Debug)]
pub(super) enum PublisherMessage {
    Receipt(PublishReceipt),
    Refused { session: u64, sequence: u64, reason: RefusedReason },
    Nack(Nack),
}

/// A message between neighbours about all topics.
#[derive(Debug)]
pub(super) enum NeighbourMessage {
    Beat(Beat),
    Shared(Shared),
}

/// Sorts a message. `encoded` are all of its bytes, `payload` is their end.
pub(super) fn sort(header: Header, encoded: &Bytes, payload: Bytes) -> Incoming {
    let for_tree = |topic, message| Incoming::Topic { topic, message };
    match header {
        Header::Join(join) => Incoming::Join(join),
        Header::Publish(publish) => Incoming::Publish(publish, payload),
        Header::Attached(attached) => for_tree(attached.topic, TopicMessage::Attached(attached)),
        Header::Leave { topic, join } => for_tree(topic, TopicMessage::Leave { join }),
        Header::Orphan { topic } => for_tree(topic, TopicMessage::Orphan),
        Header::Data(data) => for_tree(data.topic, TopicMessage::Entry(entry(data, encoded, payload))),
        Header::Ack(ack) => for_tree(ack.topic, TopicMessage::Ack(ack)),
        Header::Prepare { topic, term } => for_tree(topic, TopicMessage::Prepare { term }),
        Header::Promise(promise) => for_tree(promise.topic, TopicMessage::Promise(promise)),
        Header::PromiseRefused { topic, promised } => {
            for_tree(topic, TopicMessage::PromiseRefused { promised })
        }
        Header::Invite { topic } => Incoming::Invite { topic },
        Header::InviteRefused { topic } => for_tree(topic, TopicMessage::InviteRefused),
        Header::LogCommit { topic, term, commit } => {
            for_tree(topic, TopicMessage::LogCommit { term, commit })
        }
        Header::Pull(pull) => for_tree(pull.topic, TopicMessage::Pull(pull)),
        Header::Pulled { topic, number, offset } => match pulled(topic, offset, &payload) {
            Some(entry) => for_tree(topic, TopicMessage::Pulled { number, entry }),
            None => for_tree(topic, TopicMessage::NotPulled { number, start: None }),
        },
        Header::NotPulled { topic, number, start } => {
            for_tree(topic, TopicMessage::NotPulled { number, start })
        }
        Header::Offer(offer) => for_tree(offer.topic, TopicMessage::Offer(offer)),
        Header::CapacityProbe { topic, number } => for_tree(topic, TopicMessage::CapacityProbe { number }),
        Header::CapacityAnswer { topic, number, capacity } => {
            for_tree(topic, TopicMessage::Capacity { number, capacity })
        }
        Header::Detach { topic, join } => for_tree(topic, TopicMessage::Detach { join }),
        Header::Detached { topic, join, end } => for_tree(topic, TopicMessage::Detached { join, end }),
        Header::Receipt(receipt) => {
            Incoming::Publisher { topic: receipt.topic, message: PublisherMessage::Receipt(receipt) }
        }
        Header::Nack(nack) => {
            Incoming::Publisher { topic: nack.topic, message: PublisherMessage::Nack(nack) }
        }
        Header::Refused { topic, session, sequence, reason } => {
            Incoming::Publisher { topic, message: PublisherMessage::Refused { session, sequence, reason } }
        }
        Header::Beat(beat) => Incoming::Neighbour(NeighbourMessage::Beat(beat)),
        Header::Shared(shared) => Incoming::Neighbour(NeighbourMessage::Shared(shared)),
    }
}

fn entry(data: Data, encoded: &Bytes, payload: Bytes) -> Arrived {
    let Data { birth, offset, term, behind, stamp, body, .. } = data;
    let held = Held { term, stamp, body, encoded: encoded.clone(), payload };
    Arrived { birth, offset, behind, held }
}

/// An entry within the answer to a `Pull`; `None`: it is none, or another one.
fn pulled(topic: TopicId, offset: u64, bytes: &Bytes) -> Option<Arrived> {
    match wire::decode(bytes) {
        Ok((Header::Data(data), payload)) if data.topic == topic && data.offset == offset => {
            Some(entry(data, bytes, payload))
        }
        _ => None,
    }
}

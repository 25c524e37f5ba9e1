//! Sorts the messages that come by the part of the forest that they are for.

use bytes::Bytes;

use crate::log::window::{Entry, Held};
use crate::message::Position;
use crate::topic::TopicId;
use crate::wire::{
    Ack, Attached, Beat, Capacity, Data, Header, Join, LogTip, Offer, Publish, PublishReceipt, RefusedReason,
    Shared,
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
    /// Of the handoff of one topic's log.
    Handoff { topic: TopicId, message: HandoffMessage },
    /// Between neighbours, of all the topics that they share.
    Neighbour(NeighbourMessage),
}

/// A message between two nodes of one tree; see [`Header`].
#[derive(Debug)]
pub(super) enum TopicMessage {
    Attached(Attached),
    Leave { join: u64 },
    Orphan,
    Entry(Entry),
    Ack(Ack),
    Query,
    QueryAnswer { tip: Option<LogTip>, handoff: bool },
    Offer(Offer),
    CapacityProbe { number: u64 },
    Capacity { number: u64, capacity: Capacity },
    Detach { join: u64 },
    Detached { join: u64, last: Option<Position> },
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
    /// This node knows nothing of the log.
    KnowsNothing,
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
            TopicMessage::Query => AnswerWithoutTree::KnowsNothing,
            TopicMessage::CapacityProbe { number } => AnswerWithoutTree::NoCapacity { number },
            TopicMessage::Detach { join } => AnswerWithoutTree::Detached { join },
            TopicMessage::Leave { .. }
            | TopicMessage::Orphan
            | TopicMessage::QueryAnswer { .. }
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
}

/// A message between a former root and its successor.
#[derive(Debug)]
pub(super) enum HandoffMessage {
    Chunk(Chunk),
    Taken { transfer: u64, chunk: u32 },
}

/// A chunk of a handoff.
#[derive(Debug)]
pub(super) struct Chunk {
    pub transfer: u64,
    pub index: u32,
    /// How many chunks there are.
    pub count: u32,
    pub bytes: Bytes,
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
        Header::Query { topic } => for_tree(topic, TopicMessage::Query),
        Header::QueryAnswer { topic, tip, handoff } => {
            for_tree(topic, TopicMessage::QueryAnswer { tip, handoff })
        }
        Header::Offer(offer) => for_tree(offer.topic, TopicMessage::Offer(offer)),
        Header::CapacityProbe { topic, number } => for_tree(topic, TopicMessage::CapacityProbe { number }),
        Header::CapacityAnswer { topic, number, capacity } => {
            for_tree(topic, TopicMessage::Capacity { number, capacity })
        }
        Header::Detach { topic, join } => for_tree(topic, TopicMessage::Detach { join }),
        Header::Detached { topic, join, last } => for_tree(topic, TopicMessage::Detached { join, last }),
        Header::Receipt(receipt) => {
            Incoming::Publisher { topic: receipt.topic, message: PublisherMessage::Receipt(receipt) }
        }
        Header::Refused { topic, session, sequence, reason } => {
            Incoming::Publisher { topic, message: PublisherMessage::Refused { session, sequence, reason } }
        }
        Header::HandoffChunk { topic, transfer, chunk, chunks } => {
            let chunk = Chunk { transfer, index: chunk, count: chunks, bytes: payload };
            Incoming::Handoff { topic, message: HandoffMessage::Chunk(chunk) }
        }
        Header::HandoffTaken { topic, transfer, chunk } => {
            Incoming::Handoff { topic, message: HandoffMessage::Taken { transfer, chunk } }
        }
        Header::Beat(beat) => Incoming::Neighbour(NeighbourMessage::Beat(beat)),
        Header::Shared(shared) => Incoming::Neighbour(NeighbourMessage::Shared(shared)),
    }
}

fn entry(Data { position, body, .. }: Data, encoded: &Bytes, payload: Bytes) -> Entry {
    Entry { position, held: Held { body, encoded: encoded.clone(), payload } }
}

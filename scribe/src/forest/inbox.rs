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
pub(super) enum Message {
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

/// What the nodes of one tree tell each other; see [`Header`].
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

/// What a root tells a publisher.
#[derive(Debug)]
pub(super) enum PublisherMessage {
    Receipt(PublishReceipt),
    Refused { session: u64, sequence: u64, reason: RefusedReason },
}

/// What a former root and its successor tell each other.
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

/// What neighbours tell each other of all topics.
#[derive(Debug)]
pub(super) enum NeighbourMessage {
    Beat(Beat),
    Shared(Shared),
}

/// Sorts a message. `encoded` are all of its bytes, `payload` is their end.
pub(super) fn sort(header: Header, encoded: &Bytes, payload: Bytes) -> Message {
    let for_tree = |topic, message| Message::Topic { topic, message };
    match header {
        Header::Join(join) => Message::Join(join),
        Header::Publish(publish) => Message::Publish(publish, payload),
        Header::Attached(attached) => for_tree(attached.topic, TopicMessage::Attached(attached)),
        Header::Leave { topic, join } => for_tree(topic, TopicMessage::Leave { join }),
        Header::Orphan { topic } => for_tree(topic, TopicMessage::Orphan),
        Header::Data(data) => for_tree(data.topic, TopicMessage::Entry(entry(data, encoded, payload))),
        Header::Ack(ack) => for_tree(ack.topic, TopicMessage::Ack(ack)),
        Header::Query { topic } => for_tree(topic, TopicMessage::Query),
        Header::Known { topic, known, handover } => {
            for_tree(topic, TopicMessage::QueryAnswer { tip: known, handoff: handover })
        }
        Header::Offer(offer) => for_tree(offer.topic, TopicMessage::Offer(offer)),
        Header::Visit { topic, number } => for_tree(topic, TopicMessage::CapacityProbe { number }),
        Header::Visited { topic, number, room } => {
            for_tree(topic, TopicMessage::Capacity { number, capacity: room })
        }
        Header::Part { topic, join } => for_tree(topic, TopicMessage::Detach { join }),
        Header::Parted { topic, join, last } => for_tree(topic, TopicMessage::Detached { join, last }),
        Header::Receipt(receipt) => {
            Message::Publisher { topic: receipt.topic, message: PublisherMessage::Receipt(receipt) }
        }
        Header::Refused { topic, session, sequence, reason } => {
            Message::Publisher { topic, message: PublisherMessage::Refused { session, sequence, reason } }
        }
        Header::Handover { topic, transfer, part, parts } => {
            let chunk = Chunk { transfer, index: part, count: parts, bytes: payload };
            Message::Handoff { topic, message: HandoffMessage::Chunk(chunk) }
        }
        Header::HandoverTaken { topic, transfer, part } => {
            Message::Handoff { topic, message: HandoffMessage::Taken { transfer, chunk: part } }
        }
        Header::Beat(beat) => Message::Neighbour(NeighbourMessage::Beat(beat)),
        Header::Shared(shared) => Message::Neighbour(NeighbourMessage::Shared(shared)),
    }
}

fn entry(Data { position, body, .. }: Data, encoded: &Bytes, payload: Bytes) -> Entry {
    Entry { position, held: Held { body, encoded: encoded.clone(), payload } }
}

//! Holds the part of `docs/protocol.md` that is about Scribe's messages to the code: their numbers, test vectors,
//! limits.

#[path = "../../overlay/tests/protocol_page/mod.rs"]
mod protocol_page;

use bytes::Bytes;
use protocol_page::{DOC, K, M, expect_limits, expect_table, nodes, table, text, unhex};
use treecast_overlay::peer::Contact;
use treecast_scribe::message::{Mark, Position, Term};
use treecast_scribe::topic::TopicId;
use treecast_scribe::wire::{
    Ack, Attached, Beat, Body, Capacity, Data, DecodeError, Digest, Header, Join, LogTip, MAX_CHUNKS,
    MAX_DATA_HEADER, MAX_MARKS, MAX_NUMBER, MAX_OFFERED, MAX_PATH, MAX_SHARED, Moved, Offer, Offered,
    Publish, PublishReceipt, RefusedReason, Shared, Signature, Started, decode, encode,
};

/// The topic of the examples.
const T: TopicId = TopicId(K);

/// A term of the node A.
fn term(number: u64) -> Term {
    let [(_, a), ..] = nodes();
    Term { number, root: a.id }
}

fn at(number: u64, offset: u64) -> Position {
    Position { term: term(number), offset }
}

/// The end of the log in the examples: the topic's log.
fn known() -> LogTip {
    LogTip { birth: 300, term: term(2), tail: Some(at(2, 5)) }
}

fn messages() -> Vec<(Header, &'static [u8])> {
    let plain = messages_of_the_tree().into_iter().chain(messages_of_the_root());
    messages_with_payload().into_iter().chain(plain.map(|header| (header, &b""[..]))).collect()
}

fn messages_with_payload() -> Vec<(Header, &'static [u8])> {
    let [(_, a), (_, b), (_, e)] = nodes();
    let publisher = Contact { peer: e, via: Some(a) };
    let signature = Signature::None;
    let body = Body::Message { publisher: b.id, session: 77, sequence: 1, signature };
    let first =
        Publish { topic: T, publisher, session: 77, sequence: 1, acknowledged: 0, resent: false, signature };
    let again = Publish { publisher: b.into(), sequence: 3, acknowledged: 1, resent: true, ..first };
    vec![
        (Header::Data(Data { topic: T, position: at(2, 300), body }), b"hi"),
        (Header::Publish(first), b"hi"),
        (Header::Publish(again), b""),
        (Header::HandoffChunk { topic: T, transfer: 6, chunk: 0, chunks: 2 }, b"hi"),
    ]
}

fn messages_of_the_tree() -> Vec<Header> {
    let [(_, a), (_, b), _] = nodes();
    let join = Join { topic: T, number: 9, after: None, best_known: None, subscribers: 1, former: None };
    let mark = |position| Mark { birth: 300, position };
    let again = Join { after: Some(mark(Some(at(2, 4)))), best_known: Some(known()), ..join };
    let started = Started { term: known().term, after: mark(None), latest: Some(at(2, 5)) };
    let attached = Attached { topic: T, join: 9, seq: 1, path: vec![b.id, a.id], root: None, start: None };
    let start = |previous, forced| Body::TermStart { previous, forced };
    let data = |position, body| Header::Data(Data { topic: T, position, body });
    let ack = Ack { topic: T, join: 9, seq: 1, position: None, subscribers: 1, again: false, consumed: 0 };
    let up = Digest { count: 1, sum: 300 };
    let offered = Offered { contact: b.into(), micros: 300 };
    let moved = Moved { topic: T, tail: Some(at(2, 5)) };
    vec![
        Header::Join(join),
        Header::Join(Join { after: Some(mark(None)), ..join }),
        Header::Join(again),
        Header::Join(Join { former: Some(a.id), ..again }),
        Header::Attached(attached.clone()),
        Header::Attached(Attached { seq: 2, root: Some(a), start: Some(started), ..attached }),
        Header::Leave { topic: T, join: 9 },
        Header::Orphan { topic: T },
        data(at(2, 0), start(None, false)),
        data(at(3, 6), start(Some(term(2)), true)),
        Header::Ack(ack),
        Header::Ack(Ack { position: Some(at(2, 5)), again: true, consumed: 300, ..ack }),
        Header::Beat(Beat { up: Digest::default(), moved: vec![], acks: vec![], reply: true }),
        Header::Beat(Beat { up, moved: vec![moved], acks: vec![ack], reply: false }),
        Header::Shared(Shared { from: T, to: TopicId(M), topics: vec![T] }),
        Header::Offer(Offer { topic: T, join: 9, parents: vec![offered] }),
        Header::CapacityProbe { topic: T, number: 10 },
        Header::CapacityAnswer { topic: T, number: 10, capacity: Capacity::None },
        Header::CapacityAnswer { topic: T, number: 10, capacity: Capacity::Crowded },
        Header::CapacityAnswer { topic: T, number: 10, capacity: Capacity::Free },
        Header::Detach { topic: T, join: 11 },
        Header::Detached { topic: T, join: 11, last: None },
        Header::Detached { topic: T, join: 11, last: Some(at(2, 5)) },
    ]
}

fn messages_of_the_root() -> Vec<Header> {
    let [(_, a), ..] = nodes();
    let refused = |reason| Header::Refused { topic: T, session: 77, sequence: 1, reason };
    vec![
        Header::Receipt(PublishReceipt {
            topic: T,
            session: 77,
            sequence: 1,
            position: at(2, 300),
            copies: 1,
            listeners: 3,
            root: a.into(),
        }),
        refused(RefusedReason::UnknownSession),
        refused(RefusedReason::Full),
        refused(RefusedReason::TooLarge { limit: 300 }),
        Header::Query { topic: T },
        Header::QueryAnswer { topic: T, tip: None, handoff: false },
        Header::QueryAnswer { topic: T, tip: Some(known()), handoff: true },
        Header::QueryAnswer { topic: T, tip: Some(LogTip { term: term(3), ..known() }), handoff: false },
        Header::HandoffTaken { topic: T, transfer: 6, chunk: 0 },
    ]
}

#[test]
fn the_messages_of_the_page_are_those_of_the_code() {
    let vector = |(header, payload): &(Header, &'static [u8])| {
        (text(header, &Bytes::from_static(payload)), encode(header, payload).to_vec())
    };
    expect_table("vectors: messages", &messages().iter().map(vector).collect::<Vec<_>>());
    for (row, (header, payload)) in table("vectors: messages").iter().zip(messages()) {
        assert_eq!(decode(&unhex(&row[1]).into()), Ok((header, Bytes::from_static(payload))));
    }
}

#[test]
fn every_message_has_a_section_under_its_number_and_an_example() {
    let mut has_example = [false; 20];
    for (header, payload) in messages() {
        let number = encode(&header, payload)[0];
        has_example[usize::from(number)] = true;
        let heading = format!("\n#### Scribe {number:02x} {}\n", header.kind());
        assert!(DOC.contains(&heading), "docs/protocol.md has no section `{}`", heading.trim());
    }
    assert!(has_example.iter().all(|&has| has), "messages without an example: {has_example:?}");
    // Zeros are enough for the fields of any header: what is still no header has no variant.
    let beyond = [&[has_example.len() as u8][..], &[0; 256]].concat();
    assert_eq!(decode(&beyond.into()), Err(DecodeError::Header), "there are more messages than counted here");
}

#[test]
fn the_limits_of_the_page_are_those_of_the_code() {
    let limits = [
        ("MAX_PATH", MAX_PATH as u64),
        ("MAX_SHARED", MAX_SHARED as u64),
        ("MAX_MARKS", MAX_MARKS as u64),
        ("MAX_CHUNKS", u64::from(MAX_CHUNKS)),
        ("MAX_OFFERED", MAX_OFFERED as u64),
        ("MAX_NUMBER", MAX_NUMBER),
        ("MAX_DATA_HEADER", MAX_DATA_HEADER as u64),
    ];
    expect_limits("limits: messages", &limits);
}

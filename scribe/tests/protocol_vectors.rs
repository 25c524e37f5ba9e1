//! Holds the part of `docs/protocol.md` that is about Scribe's messages to the code: their numbers, test vectors,
//! limits.

#[path = "../../overlay/tests/protocol_page/mod.rs"]
mod protocol_page;

use bytes::Bytes;
use protocol_page::{DOC, K, M, expect_limits, expect_table, nodes, table, text, unhex};
use treecast_overlay::peer::Contact;
use treecast_scribe::message::{Mark, Position, Start};
use treecast_scribe::topic::TopicId;
use treecast_scribe::wire::{
    Ack, Attached, Beat, Birth, Body, Capacity, Configuration, CopyState, Data, DecodeError, Digest, Header,
    Join, Lineage, MAX_CONFIGURATIONS, MAX_DATA_HEADER, MAX_HOLES, MAX_LINEAGE, MAX_MARKS, MAX_MEMBERS,
    MAX_MISSING, MAX_NUMBER, MAX_OFFERED, MAX_PATH, MAX_SHARED, Member, Moved, Nack, Offer, Offered, Promise,
    Publish, PublishReceipt, Pull, RefusedReason, Shared, Signature, Started, Sync, Term, decode, encode,
};

/// The topic of the examples.
const T: TopicId = TopicId(K);
/// The birth of its log.
const BIRTH: u64 = 300;

/// A term of the node A.
fn term(number: u64) -> Term {
    let [(_, a), ..] = nodes();
    Term { number, root: a.id }
}

/// A configuration of A alone, before which there was another log.
fn configuration() -> Configuration {
    let [(_, a), ..] = nodes();
    Configuration { at: 4, members: [Member { peer: a, life: 16 }].into() }
}

fn lineage() -> Lineage {
    Lineage::default().then(200, 4)
}

/// A member's copy, in which the entry 5 is not committed.
fn copy() -> CopyState {
    CopyState {
        life: 17,
        synced: term(2),
        birth: BIRTH,
        lineage: lineage(),
        start: 0,
        commit: 5,
        end: 6,
        configurations: vec![configuration()],
    }
}

fn messages() -> Vec<(Header, Vec<u8>)> {
    let plain = messages_of_the_tree().into_iter().chain(messages_of_the_root()).chain(messages_of_members());
    messages_with_payload().into_iter().chain(plain.map(|header| (header, Vec::new()))).collect()
}

fn entry(offset: u64, body: Body) -> Data {
    Data { topic: T, birth: BIRTH, offset, term: 2, behind: 1, stamp: 1_764_547_200_000, body }
}

fn messages_with_payload() -> Vec<(Header, Vec<u8>)> {
    let [(_, a), (_, b), (_, e)] = nodes();
    let publisher = Contact { peer: e, via: Some(a) };
    let signature = Signature::None;
    let body = Body::Message { publisher: b.id, session: 77, sequence: 1, signature };
    let first = Publish {
        topic: T,
        publisher,
        session: 77,
        sequence: 1,
        acknowledged: 0,
        resent: false,
        birth: None,
        signature,
    };
    let (sequence, acknowledged, birth) = (3, 1, Some(BIRTH));
    let again = Publish { publisher: b.into(), sequence, acknowledged, resent: true, birth, ..first };
    let pair = [Member { peer: a, life: 16 }, Member { peer: b, life: 17 }];
    let pulled = encode(&Header::Data(entry(5, body.clone())), b"hi").to_vec();
    vec![
        (Header::Data(entry(5, body)), b"hi".to_vec()),
        (
            Header::Data(entry(6, Body::Configuration { members: pair.into(), birth: None, replaces: None })),
            sessions(),
        ),
        (Header::Publish(first), b"hi".to_vec()),
        (Header::Publish(again), Vec::new()),
        (Header::Pulled { topic: T, number: 12, offset: 5 }, pulled),
    ]
}

/// The table of the sessions: one of B, the last message of which has the offset 5.
fn sessions() -> Vec<u8> {
    let [_, (_, b), _] = nodes();
    let (last, stamp, recent) = (1u64, 1_764_547_200_000_u64, vec![5u64]);
    postcard::to_stdvec(&vec![(b.id, 77u64, last, stamp, recent)]).expect("a table always encodes")
}

fn messages_of_the_tree() -> Vec<Header> {
    let [(_, a), (_, b), _] = nodes();
    let join = Join {
        topic: T,
        number: 9,
        start: Start::Latest,
        subscribers: 1,
        former: None,
        copy: None,
        by_third: false,
    };
    let from = |start| Header::Join(Join { start, ..join.clone() });
    let after = Start::After(Mark { birth: BIRTH, next: 5 });
    let started = Started { birth: BIRTH, lineage: Lineage::default(), next: 5, latest: 6, sync: None };
    let sync = Sync { term: term(2), life: 17, upto: 6, commit: 5, configurations: vec![configuration()] };
    let synced = Started { lineage: lineage(), sync: Some(Box::new(sync)), ..started.clone() };
    let attached = Attached { topic: T, join: 9, seq: 1, path: vec![b.id, a.id], root: None, start: None };
    let members: std::sync::Arc<[Member]> = configuration().members;
    let birth = |lineage, complete| Some(Box::new(Birth { lineage, complete }));
    let born = |offset, birth| {
        Header::Data(Data {
            behind: 0,
            ..entry(offset, Body::Configuration { members: members.clone(), birth, replaces: None })
        })
    };
    let ack = Ack {
        topic: T,
        join: 9,
        seq: 1,
        next: 0,
        subscribers: 1,
        again: false,
        missing: vec![],
        consumed: 0,
    };
    let up = Digest { count: 1, sum: 300 };
    let offered = Offered { contact: b.into(), micros: 300 };
    let moved = Moved { topic: T, birth: BIRTH, next: 6 };
    vec![
        from(Start::Latest),
        from(Start::Earliest),
        from(Start::Last(300)),
        from(after),
        Header::Join(Join { start: after, former: Some(a.id), ..join.clone() }),
        Header::Join(Join { start: after, copy: Some(Box::new(copy())), ..join.clone() }),
        Header::Join(Join { start: after, copy: Some(Box::new(copy())), by_third: true, ..join.clone() }),
        Header::Attached(attached.clone()),
        Header::Attached(Attached { seq: 2, root: Some(a), start: Some(started), ..attached.clone() }),
        Header::Attached(Attached { seq: 3, path: vec![a.id], start: Some(synced), ..attached }),
        Header::Leave { topic: T, join: 9 },
        Header::Orphan { topic: T },
        born(0, birth(Lineage::default(), true)),
        born(4, birth(lineage(), false)),
        Header::Ack(ack.clone()),
        Header::Ack(Ack { next: 6, again: true, missing: vec![8, 300], consumed: 300, ..ack.clone() }),
        Header::Beat(Beat { up: Digest::default(), moved: vec![], acks: vec![], reply: true, asks: false }),
        Header::Beat(Beat { up, moved: vec![moved], acks: vec![ack], reply: false, asks: true }),
        Header::Shared(Shared { from: T, to: TopicId(M), topics: vec![T] }),
        Header::Offer(Offer { topic: T, join: 9, parents: vec![offered] }),
        Header::CapacityProbe { topic: T, number: 10 },
        Header::CapacityAnswer { topic: T, number: 10, capacity: Capacity::None },
        Header::CapacityAnswer { topic: T, number: 10, capacity: Capacity::Crowded },
        Header::CapacityAnswer { topic: T, number: 10, capacity: Capacity::Free },
        Header::Detach { topic: T, join: 11 },
        Header::Detached { topic: T, join: 11, end: None },
        Header::Detached { topic: T, join: 11, end: Some(6) },
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
            position: Position { birth: 200, offset: 3 },
            birth: BIRTH,
            copies: 3,
            listeners: 3,
            root: a.into(),
        }),
        refused(RefusedReason::UnknownSession),
        refused(RefusedReason::OtherBirth { birth: BIRTH, repeated: true }),
        refused(RefusedReason::NotRoot { root: None }),
        refused(RefusedReason::NotRoot { root: Some(a.into()) }),
        refused(RefusedReason::Full),
        refused(RefusedReason::TooLarge { limit: 300 }),
        Header::Nack(Nack { topic: T, session: 77, missing: vec![1, 300], seen: 301 }),
    ]
}

fn messages_of_members() -> Vec<Header> {
    let promise = Promise { topic: T, term: term(3), join: 10, copy: Some(Box::new(copy())), known: None };
    let known = Some(Mark { birth: BIRTH, next: 5 });
    let pull = Pull { topic: T, number: 12, birth: BIRTH, from: 5, until: 261, term: None };
    vec![
        Header::Prepare { topic: T, term: term(3) },
        Header::Promise(promise.clone()),
        Header::Promise(Promise { join: 0, copy: None, known, ..promise.clone() }),
        Header::Promise(Promise { join: 0, copy: None, ..promise }),
        Header::PromiseRefused { topic: T, promised: term(4) },
        Header::Invite { topic: T },
        Header::InviteRefused { topic: T },
        Header::LogCommit { topic: T, term: term(3), commit: 6 },
        Header::Pull(pull),
        Header::Pull(Pull { until: 6, term: Some(term(3)), ..pull }),
        Header::NotPulled { topic: T, number: 12, start: None },
        Header::NotPulled { topic: T, number: 12, start: Some(7) },
    ]
}

#[test]
fn the_messages_of_the_page_are_those_of_the_code() {
    let vector = |(header, payload): &(Header, Vec<u8>)| {
        (text(header, &Bytes::copy_from_slice(payload)), encode(header, payload).to_vec())
    };
    expect_table("vectors: messages", &messages().iter().map(vector).collect::<Vec<_>>());
    for (row, (header, payload)) in table("vectors: messages").iter().zip(messages()) {
        assert_eq!(decode(&unhex(&row[1]).into()), Ok((header, Bytes::from(payload))));
    }
}

#[test]
fn every_message_has_a_section_under_its_number_and_an_example() {
    let mut has_example = [false; 26];
    for (header, payload) in messages() {
        let number = encode(&header, &payload)[0];
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
        ("MAX_HOLES", MAX_HOLES as u64),
        ("MAX_MISSING", MAX_MISSING as u64),
        ("MAX_MARKS", MAX_MARKS as u64),
        ("MAX_MEMBERS", MAX_MEMBERS as u64),
        ("MAX_CONFIGURATIONS", MAX_CONFIGURATIONS as u64),
        ("MAX_LINEAGE", MAX_LINEAGE as u64),
        ("MAX_OFFERED", MAX_OFFERED as u64),
        ("MAX_NUMBER", MAX_NUMBER),
        ("MAX_DATA_HEADER", MAX_DATA_HEADER as u64),
    ];
    expect_limits("limits: messages", &limits);
}

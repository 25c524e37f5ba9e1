use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::peer::{Addr, Contact, Peer};

use super::*;
use crate::message::{Mark, Position, Start};
use crate::topic::TopicId;

const TOPIC: TopicId = TopicId(Key(u128::MAX / 3));
/// The least number that no node says.
const BAD: u64 = MAX_NUMBER;

fn data(body: Body) -> Data {
    let (birth, offset, term, behind, stamp) = (u64::MAX / 3, 1_000_000, 9, 3, 1_790_000_000_000);
    Data { topic: TOPIC, birth, offset, term, behind, stamp, body }
}

fn message(publisher: u128, session: u64, sequence: u64) -> Body {
    Body::Message { publisher: NodeId(publisher), session, sequence, signature: Signature::None }
}

fn peer(id: u128) -> Peer {
    Peer { id: NodeId(id), incarnation: 1, addr: Addr::Unreachable }
}

fn member(id: u128, life: Life) -> Member {
    Member { peer: peer(id), life }
}

fn configuration(at: u64) -> Configuration {
    Configuration { at, members: [member(1, 1), member(2, 1)].into() }
}

fn term(number: u64) -> Term {
    Term { number, root: NodeId(4) }
}

fn copy() -> CopyState {
    CopyState {
        life: 1,
        synced: term(2),
        birth: u64::MAX,
        lineage: Lineage::default().then(u64::MAX, 5),
        start: 3,
        commit: 6,
        end: 8,
        configurations: vec![configuration(5), configuration(7)],
    }
}

fn sync() -> Sync {
    Sync { term: term(3), life: 1, upto: 8, commit: 6, configurations: vec![configuration(5)] }
}

fn join() -> Join {
    let (start, copy) = (Start::Latest, Some(Box::new(copy())));
    Join { topic: TOPIC, number: 1, start, subscribers: u64::MAX, former: None, copy, by_third: false }
}

fn started() -> Started {
    let lineage = Lineage::default().then(1, 5);
    Started { birth: u64::MAX, lineage, next: 6, latest: 6, sync: Some(Box::new(sync())) }
}

fn attached(start: Option<Started>) -> Attached {
    Attached { topic: TOPIC, join: 1, seq: 1, path: vec![NodeId(1)], root: None, start }
}

fn publish() -> Publish {
    Publish {
        topic: TOPIC,
        publisher: Contact::from(peer(1)),
        session: 1,
        sequence: 1,
        acknowledged: 0,
        resent: false,
        birth: Some(u64::MAX),
        signature: Signature::None,
    }
}

fn receipt() -> PublishReceipt {
    PublishReceipt {
        topic: TOPIC,
        session: 1,
        sequence: 1,
        position: Position { birth: u64::MAX, offset: 3 },
        birth: u64::MAX,
        copies: u32::MAX,
        listeners: u64::MAX,
        root: peer(1).into(),
    }
}

fn ack() -> Ack {
    Ack {
        topic: TOPIC,
        join: 1,
        seq: 1,
        next: 2,
        subscribers: u64::MAX,
        again: false,
        missing: vec![],
        consumed: 1,
    }
}

fn promise() -> Promise {
    let known = Some(Mark { birth: u64::MAX, next: 3 });
    Promise { topic: TOPIC, term: term(2), join: 3, copy: Some(Box::new(copy())), known }
}

fn pull() -> Pull {
    Pull { topic: TOPIC, number: 1, birth: u64::MAX, from: 2, until: 3, term: Some(term(2)) }
}

fn again(header: Header) -> Result<Header, DecodeError> {
    decode(&encode(&header, b"")).map(|(header, _)| header)
}

#[track_caller]
fn sound(header: Header) {
    assert_eq!(again(header.clone()), Ok(header));
}

#[track_caller]
fn refused(header: Header, error: DecodeError) {
    let told = format!("{header:?}");
    assert_eq!(again(header), Err(error), "{told}");
}

/// Each of these is the same message with one number that is too large.
#[track_caller]
fn out_of_range(headers: impl IntoIterator<Item = Header>) {
    headers.into_iter().for_each(|header| refused(header, DecodeError::OutOfRange(BAD)));
}

#[test]
fn a_message_costs_at_most_66_bytes_more_than_its_payload() {
    let header = Header::Data(Data { birth: u64::MAX, ..data(message(u128::MAX, (1 << 48) - 1, 16_000)) });
    assert!(encode(&header, b"").len() <= 66, "{}", encode(&header, b"").len());
}

#[test]
fn no_data_header_of_a_message_exceeds_its_limit() {
    let last = MAX_NUMBER - 1;
    let body = message(u128::MAX, last, last);
    let data =
        Data { topic: TOPIC, birth: u64::MAX, offset: last, term: last, behind: last, stamp: last, body };
    let len = encode(&Header::Data(data), b"").len();
    assert!(len <= MAX_DATA_HEADER, "{len}");
}

#[test]
fn the_payload_is_not_copied() {
    let bytes = encode(&Header::Data(data(message(1, 2, 3))), b"hello");
    let (_, payload) = decode(&bytes).unwrap();
    assert_eq!(payload, "hello");
    assert_eq!(payload.as_ptr(), bytes[bytes.len() - 5..].as_ptr());
}

#[test]
fn what_no_node_says_is_refused_by_name() {
    let long = Header::Attached(Attached { path: vec![NodeId(1); 65], ..attached(None) });
    refused(long, DecodeError::ListTooLong { len: 65, limit: 64 });
    let tail = encode(&Header::Invite { topic: TOPIC }, b"x");
    assert_eq!(decode(&tail), Err(DecodeError::UnexpectedPayload(1)));
    let moved = vec![Moved { topic: TOPIC, birth: 1, next: 1 }; MAX_MARKS + 1];
    let beat = Beat { up: Digest::default(), moved, acks: Vec::new(), reply: false, asks: false };
    refused(Header::Beat(beat), DecodeError::ListTooLong { len: MAX_MARKS + 1, limit: MAX_MARKS });
    let acks = vec![ack(); MAX_MARKS + 1];
    let beat = Beat { up: Digest::default(), moved: Vec::new(), acks, reply: false, asks: false };
    refused(Header::Beat(beat), DecodeError::ListTooLong { len: MAX_MARKS + 1, limit: MAX_MARKS });
    let shared = Shared { from: TOPIC, to: TOPIC, topics: vec![TOPIC; MAX_SHARED + 1] };
    refused(Header::Shared(shared), DecodeError::ListTooLong { len: MAX_SHARED + 1, limit: MAX_SHARED });
    let parents = vec![Offered { contact: peer(1).into(), micros: 1 }; MAX_OFFERED + 1];
    let offer = Offer { topic: TOPIC, join: 1, parents };
    refused(Header::Offer(offer), DecodeError::ListTooLong { len: MAX_OFFERED + 1, limit: MAX_OFFERED });
}

#[test]
fn the_numbers_of_an_entry_are_bounded() {
    let good = || data(message(1, 2, 3));
    sound(Header::Data(good()));
    let bad = [
        Data { offset: BAD, ..good() },
        Data { term: BAD, ..good() },
        Data { behind: BAD, ..good() },
        Data { stamp: BAD, ..good() },
        data(message(1, BAD, 3)),
        data(message(1, 2, BAD)),
    ];
    out_of_range(bad.map(Header::Data));
    // No entry comes after more open ones than there are entries before it.
    refused(Header::Data(Data { offset: 5, behind: 6, ..good() }), DecodeError::OutOfRange(6));
}

#[test]
fn a_configuration_names_one_to_seven_nodes_once_each() {
    let entry = |members: Vec<Member>| {
        Header::Data(data(Body::Configuration { members: members.into(), birth: None, replaces: None }))
    };
    sound(entry((1..=7).map(|id| member(id, 1)).collect()));
    refused(entry((1..=8).map(|id| member(id, 1)).collect()), DecodeError::ListTooLong { len: 8, limit: 7 });
    refused(entry(Vec::new()), DecodeError::Members);
    // Two lives of one node are two copies on one disk.
    refused(entry(vec![member(1, 1), member(2, 1), member(1, 2)]), DecodeError::Members);
    out_of_range([entry(vec![member(1, BAD)])]);
}

#[test]
fn the_births_of_a_log_are_few_and_in_order() {
    let entry = |lineage: Lineage| {
        let birth = Some(Box::new(Birth { lineage, complete: true }));
        Header::Data(data(Body::Configuration { members: [member(1, 1)].into(), birth, replaces: None }))
    };
    let grow = |ends: &[u64]| ends.iter().fold(Lineage::default(), |lineage, &end| lineage.then(end, end));
    sound(entry(grow(&[1, 2, 2, 7])));
    refused(entry(grow(&[3, 2])), DecodeError::Lineage);
    out_of_range([entry(grow(&[BAD]))]);
    out_of_range([Header::Attached(attached(Some(Started { lineage: grow(&[BAD]), ..started() })))]);
    // More births than a log remembers, as bytes that only a stranger writes.
    let ancestors: Vec<(u64, u64)> = (0..9).map(|number| (number, number)).collect();
    let lineage: Lineage = postcard::from_bytes(&postcard::to_stdvec(&ancestors).unwrap()).unwrap();
    refused(entry(lineage), DecodeError::Lineage);
}

#[test]
fn the_numbers_of_a_join_and_of_a_copy_are_bounded() {
    sound(Header::Join(join()));
    let after = Start::After(Mark { birth: u64::MAX, next: BAD });
    out_of_range([
        Header::Join(Join { number: BAD, ..join() }),
        Header::Join(Join { start: after, ..join() }),
    ]);
    let with = |copy| Header::Join(Join { copy: Some(Box::new(copy)), ..join() });
    out_of_range([
        with(CopyState { life: BAD, ..copy() }),
        with(CopyState { synced: term(BAD), ..copy() }),
        with(CopyState { end: BAD, ..copy() }),
        with(CopyState { lineage: Lineage::default().then(1, BAD), ..copy() }),
        with(CopyState { configurations: vec![configuration(BAD)], ..copy() }),
    ]);
    refused(with(CopyState { start: 7, ..copy() }), DecodeError::OutOfRange(6));
    refused(with(CopyState { commit: 9, ..copy() }), DecodeError::OutOfRange(9));
    let configurations: Vec<_> = (0..5).map(configuration).collect();
    refused(with(CopyState { configurations, ..copy() }), DecodeError::ListTooLong { len: 5, limit: 4 });
    let configurations = vec![Configuration { at: 1, members: [].into() }];
    refused(with(CopyState { configurations, ..copy() }), DecodeError::Members);
}

#[test]
fn the_numbers_of_a_parents_word_are_bounded() {
    sound(Header::Attached(attached(Some(started()))));
    let with = |start| Header::Attached(attached(Some(start)));
    let synced = |sync| with(Started { sync: Some(Box::new(sync)), ..started() });
    out_of_range([
        Header::Attached(Attached { join: BAD, ..attached(None) }),
        Header::Attached(Attached { seq: BAD, ..attached(None) }),
        with(Started { next: BAD, ..started() }),
        with(Started { latest: BAD, ..started() }),
        synced(Sync { term: term(BAD), ..sync() }),
        synced(Sync { life: BAD, ..sync() }),
        synced(Sync { upto: BAD, ..sync() }),
        synced(Sync { commit: BAD, ..sync() }),
        synced(Sync { configurations: vec![configuration(BAD)], ..sync() }),
    ]);
    let configurations: Vec<_> = (0..5).map(configuration).collect();
    refused(synced(Sync { configurations, ..sync() }), DecodeError::ListTooLong { len: 5, limit: 4 });
}

#[test]
fn the_numbers_of_acknowledgements_and_beats_are_bounded() {
    let bad = || {
        [
            Ack { join: BAD, ..ack() },
            Ack { seq: BAD, ..ack() },
            Ack { next: BAD, ..ack() },
            Ack { consumed: BAD, ..ack() },
            Ack { missing: vec![3, BAD], ..ack() },
        ]
    };
    sound(Header::Ack(ack()));
    let missing = vec![3; MAX_HOLES + 1];
    refused(
        Header::Ack(Ack { missing, ..ack() }),
        DecodeError::ListTooLong { len: MAX_HOLES + 1, limit: MAX_HOLES },
    );
    out_of_range(bad().map(Header::Ack));
    let beat =
        |moved, acks| Header::Beat(Beat { up: Digest::default(), moved, acks, reply: false, asks: false });
    out_of_range(bad().map(|ack| beat(Vec::new(), vec![ack])));
    out_of_range([beat(vec![Moved { topic: TOPIC, birth: 1, next: BAD }], Vec::new())]);
}

#[test]
fn the_numbers_of_publishing_are_bounded() {
    sound(Header::Publish(publish()));
    out_of_range([
        Header::Publish(Publish { session: BAD, ..publish() }),
        Header::Publish(Publish { sequence: BAD, ..publish() }),
        Header::Publish(Publish { acknowledged: BAD, ..publish() }),
        Header::Receipt(PublishReceipt { session: BAD, ..receipt() }),
        Header::Receipt(PublishReceipt { sequence: BAD, ..receipt() }),
        Header::Receipt(PublishReceipt { position: Position { birth: 1, offset: BAD }, ..receipt() }),
    ]);
    sound(Header::Receipt(receipt()));
}

#[test]
fn the_numbers_of_the_replication_are_bounded() {
    sound(Header::Promise(promise()));
    sound(Header::Pull(pull()));
    out_of_range([
        Header::Prepare { topic: TOPIC, term: term(BAD) },
        Header::PromiseRefused { topic: TOPIC, promised: term(BAD) },
        Header::Promise(Promise { term: term(BAD), ..promise() }),
        Header::Promise(Promise { join: BAD, ..promise() }),
        Header::Promise(Promise { known: Some(Mark { birth: 1, next: BAD }), ..promise() }),
        Header::Promise(Promise { copy: Some(Box::new(CopyState { life: BAD, ..copy() })), ..promise() }),
        Header::LogCommit { topic: TOPIC, term: term(BAD), commit: 1 },
        Header::LogCommit { topic: TOPIC, term: term(1), commit: BAD },
        Header::Pull(Pull { number: BAD, ..pull() }),
        Header::Pull(Pull { from: BAD, ..pull() }),
        Header::Pull(Pull { until: BAD, ..pull() }),
        Header::Pull(Pull { term: Some(term(BAD)), ..pull() }),
        Header::Pulled { topic: TOPIC, number: BAD, offset: 1 },
        Header::Pulled { topic: TOPIC, number: 1, offset: BAD },
        Header::NotPulled { topic: TOPIC, number: BAD, start: None },
        Header::NotPulled { topic: TOPIC, number: 1, start: Some(BAD) },
    ]);
}

#[test]
fn the_numbers_of_moves_are_bounded() {
    let refused = |session, sequence| {
        let reason = RefusedReason::UnknownSession;
        Header::Refused { topic: TOPIC, session, sequence, reason }
    };
    let nack = || Nack { topic: TOPIC, session: 1, missing: vec![1, 2], seen: 3 };
    sound(Header::Nack(nack()));
    out_of_range([
        Header::Nack(Nack { session: BAD, ..nack() }),
        Header::Nack(Nack { missing: vec![BAD], ..nack() }),
        Header::Nack(Nack { seen: BAD, ..nack() }),
        refused(BAD, 1),
        refused(1, BAD),
        Header::Leave { topic: TOPIC, join: BAD },
        Header::Detach { topic: TOPIC, join: BAD },
        Header::Detached { topic: TOPIC, join: BAD, end: None },
        Header::Detached { topic: TOPIC, join: 1, end: Some(BAD) },
        Header::Offer(Offer { topic: TOPIC, join: BAD, parents: Vec::new() }),
        Header::CapacityProbe { topic: TOPIC, number: BAD },
        Header::CapacityAnswer { topic: TOPIC, number: BAD, capacity: Capacity::Free },
    ]);
}

#[test]
fn garbage_in_the_place_of_a_pulled_entry_is_no_entry() {
    let pulled = Header::Pulled { topic: TOPIC, number: 1, offset: 5 };
    let entry = encode(&Header::Data(Data { offset: 5, ..data(message(1, 2, 3)) }), b"x");
    let (header, payload) = decode(&encode(&pulled, &entry)).unwrap();
    assert_eq!((header, payload), (pulled, entry));
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: Duration::from_secs(10).as_millis() as u32, ..ProptestConfig::default() })]

    #[test]
    fn data_round_trips(
        topic: u128, birth: u64, term in 0..MAX_NUMBER, offset in 0..MAX_NUMBER, stamp in 0..MAX_NUMBER,
        publisher: u128, session in 0..MAX_NUMBER, sequence in 0..MAX_NUMBER, payload: Vec<u8>,
    ) {
        let (topic, behind, body) = (TopicId(Key(topic)), offset / 2, message(publisher, session, sequence));
        let header = Header::Data(Data { topic, birth, offset, term, behind, stamp, body });
        let (again, tail) = decode(&encode(&header, &payload)).unwrap();
        prop_assert_eq!((again, tail.to_vec()), (header, payload));
    }

    #[test]
    fn garbage_never_panics_and_never_grows(garbage in proptest::collection::vec(any::<u8>(), 0..256)) {
        let bytes = Bytes::from(garbage);
        if let Ok((header, payload)) = decode(&bytes) {
            let again = encode(&header, &payload);
            prop_assert_eq!(decode(&again).unwrap(), (header, payload));
        }
    }

    #[test]
    fn flipped_bytes_never_panic(which in 0usize..5, index in 0usize..400, bit in 0u8..8) {
        let headers = [
            Header::Data(data(message(1 << 90, 77, 8))),
            Header::Join(join()),
            Header::Attached(attached(Some(started()))),
            Header::Promise(promise()),
            Header::Pull(pull()),
        ];
        let mut bytes = encode(&headers[which], b"").to_vec();
        let index = index % bytes.len();
        bytes[index] ^= 1 << bit;
        let _ = decode(&Bytes::from(bytes));
    }
}

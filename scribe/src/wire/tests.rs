use bytes::Bytes;
use proptest::prelude::*;
use treecast_overlay::id::{Key, NodeId};

use super::*;
use crate::message::{Position, Term};
use crate::topic::TopicId;

fn at(number: u64, offset: u64) -> Position {
    Position { term: Term { number, root: NodeId(u128::MAX / 5) }, offset }
}

fn data(position: Position, body: Body) -> Header {
    Header::Data(Data { topic: TopicId(Key(u128::MAX / 3)), position, body })
}

fn message(publisher: u128, session: u64, sequence: u64) -> Body {
    Body::Message { publisher: NodeId(publisher), session, sequence, signature: Signature::None }
}

#[test]
fn a_message_costs_at_most_66_bytes_more_than_its_payload() {
    let position = at(9, 1_000_000);
    let header = data(position, message(u128::MAX, (1 << 48) - 1, 16_000));
    assert!(encode(&header, b"").len() <= 66, "{}", encode(&header, b"").len());
}

#[test]
fn no_data_header_exceeds_its_limit() {
    let last = MAX_NUMBER - 1;
    let position = at(last, last);
    let previous = Some(at(last - 1, 0).term);
    let start = Body::TermStart { previous, forced: true };
    for body in [message(u128::MAX, last, last), start] {
        assert!(encode(&data(position, body), b"").len() <= MAX_DATA_HEADER);
    }
}

#[test]
fn the_payload_is_not_copied() {
    let bytes = encode(&data(at(1, 0), message(1, 2, 3)), b"hello");
    let (_, payload) = decode(&bytes).unwrap();
    assert_eq!(payload, "hello");
    assert_eq!(payload.as_ptr(), bytes[bytes.len() - 5..].as_ptr());
}

#[test]
fn what_no_node_says_is_refused_by_name() {
    let topic = TopicId(Key(7));
    let long = Header::Attached(Attached {
        topic,
        join: 1,
        seq: 1,
        path: vec![NodeId(1); 65],
        root: None,
        start: None,
    });
    assert_eq!(decode(&encode(&long, b"")), Err(DecodeError::ListTooLong { len: 65, limit: 64 }));
    let huge = data(at(u64::MAX, 0), message(1, 1, 1));
    assert_eq!(decode(&encode(&huge, b"")), Err(DecodeError::OutOfRange(u64::MAX)));
    let start = |previous| Body::TermStart { previous, forced: true };
    for (offset, previous) in [(5, None), (0, Some(at(1, 0).term)), (5, Some(at(2, 0).term))] {
        let jump = data(at(2, offset), start(previous));
        assert_eq!(decode(&encode(&jump, b"")), Err(DecodeError::TermStart(offset)));
    }
    let tail = encode(&Header::Query { topic }, b"x");
    assert_eq!(decode(&tail), Err(DecodeError::UnexpectedPayload(1)));
    let part = Header::HandoffChunk { topic, transfer: 1, chunk: 3, chunks: 3 };
    assert_eq!(decode(&encode(&part, b"")), Err(DecodeError::OutOfRange(3)));
}

proptest! {
    #[test]
    fn data_round_trips(
        topic: u128, number in 0..MAX_NUMBER, root: u128, offset in 0..MAX_NUMBER, publisher: u128,
        session in 0..MAX_NUMBER, sequence in 0..MAX_NUMBER, payload: Vec<u8>,
    ) {
        let position = Position { term: Term { number, root: NodeId(root) }, offset };
        let header = Header::Data(Data {
            topic: TopicId(Key(topic)), position, body: message(publisher, session, sequence),
        });
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
    fn flipped_bytes_never_panic(index in 0usize..60, bit in 0u8..8) {
        let mut bytes = encode(&data(at(1, 5), message(1 << 90, 77, 8)), b"hello").to_vec();
        let index = index % bytes.len();
        bytes[index] ^= 1 << bit;
        let _ = decode(&Bytes::from(bytes));
    }
}

//! Holds `docs/protocol.md` to the code: its test vectors, the numbers of its frames, its limits.

mod protocol_page;

use bytes::Bytes;
use protocol_page::{DOC, K, M, expect_limits, expect_table, hex, nodes, table, text, unhex};
use treecast_overlay::id::Key;
use treecast_overlay::peer::{Addr, Contact};
use treecast_overlay::sides::Sides;
use treecast_overlay::wire::{
    Admission, Answer, Ask, DecodeError, Frame, Grant, Header, Hello, Known, LeaseWords, Letter,
    MAX_NETWORK_NAME, MAX_PATH, MAX_PEERS, MAX_TRACE, Near, PROTOCOL_VERSION, Probe, ProbeAck, Purpose,
    RouteFailure, Routed, Standing, TraceHop, decode, encode,
};

fn hellos() -> Vec<Hello> {
    let [(_, a), (_, b), _] = nodes();
    let hello = |network: &str, listens| Hello { network: network.into(), incarnation: 300, listens };
    vec![
        hello("main", a.addr),
        hello("", b.addr),
        hello("é", Addr::Unreachable),
        hello("x", Addr::Memory(128)),
    ]
}

fn frames() -> Vec<Frame> {
    let plain = headers_of_routing().into_iter().chain(headers_of_upkeep()).map(Frame::from);
    frames_with_payload().into_iter().chain(plain).collect()
}

fn frames_with_payload() -> Vec<Frame> {
    let [(_, a), (_, b), (_, e)] = nodes();
    let edge = Contact { peer: e, via: Some(a) };
    let headers = [
        routed(K, a.into(), Purpose::Application, None),
        Header::Letter(Letter::Payload),
        Header::Relayed { to: edge.into(), from: Contact::from(b).into(), letter: Letter::Payload },
        Header::Broadcast { hop: 8, origin: a.into(), id: 9, until: M },
    ];
    headers.into_iter().map(|header| Frame::new(header, Bytes::from_static(b"hi"))).collect()
}

fn routed(key: Key, origin: Contact, purpose: Purpose, trace: Option<Vec<TraceHop>>) -> Header {
    let by_leaf_set = trace.is_some();
    Header::Routed(Routed {
        hop: 7,
        key,
        origin,
        id: 1,
        hops: 2,
        by_leaf_set,
        repeated: false,
        purpose,
        trace,
    })
}

fn headers_of_routing() -> Vec<Header> {
    let [(_, a), (_, b), (_, e)] = nodes();
    let hop = TraceHop { node: a.id, matched: 2, rtt_micros: Some(450) };
    let answer = Answer { id: 1, root: b, hops: 2, trace: None, leaf_set: vec![] };
    let traced = Answer { trace: Some(vec![hop, TraceHop { rtt_micros: None, ..hop }]), ..answer.clone() };
    let sought = Answer { leaf_set: vec![a], ..answer.clone() };
    let undeliverable = |reason| Letter::Undeliverable { id: 1, key: K, reason };
    let edge = Contact { peer: e, via: Some(a) };
    vec![
        routed(M, edge, Purpose::Lookup, Some(vec![hop])),
        routed(b.id.key(), b.into(), Purpose::Seek, None),
        Header::HopAck { hop: 7 },
        Header::Letter(Letter::Answer(answer.into())),
        Header::Letter(Letter::Answer(traced.into())),
        Header::Letter(Letter::Answer(sought.into())),
        Header::Letter(undeliverable(RouteFailure::HopLimit)),
        Header::Letter(undeliverable(RouteFailure::NoRoute)),
        Header::Letter(undeliverable(RouteFailure::Overloaded)),
        Header::Relayed {
            to: Contact::from(b).into(),
            from: edge.into(),
            letter: undeliverable(RouteFailure::NoRoot),
        },
    ]
}

fn headers_of_upkeep() -> Vec<Header> {
    let [(_, a), (_, b), _] = nodes();
    let probe = |standing, lease: Sides| {
        Header::Probe(Probe { number: 4, standing, lease, leaf_set: lease.is_none() })
    };
    let ack = |standing, lease: Sides, leaf_set| {
        let asks = (!lease.is_none()).then_some(Ask { number: 6, lease: Sides::Right });
        Header::ProbeAck(ProbeAck { number: 4, standing, lease, asks, leaf_set })
    };
    let known = |peer, rtt_micros| Known { peer, rtt_micros };
    vec![
        probe(Standing::Joining, Sides::None),
        probe(Standing::Ready, Sides::Both),
        ack(Standing::Ready, Sides::Left, None),
        ack(Standing::Starting, Sides::None, None),
        ack(Standing::Edge, Sides::None, None),
        ack(Standing::Ready, Sides::None, Some(vec![a, b])),
        Header::Admit,
        Header::Admission(Admission::Granted { members: vec![a] }),
        Header::Admission(Admission::Busy),
        Header::Admission(Admission::NotNeighbour { members: vec![a] }),
        Header::Admission(Admission::NotReady),
        Header::Commit { number: 5, beside: b.id },
        Header::Committed { number: 5, lease: Sides::Right },
        Header::Withdraw { number: 6 },
        Header::LeafSet { members: vec![a, b], reply: true },
        Header::NearerRequest { rtt_micros: 450 },
        Header::Near(Near { rtt_micros: Some(450), known: vec![known(b, Some(300))], row: Some(31) }),
        Header::Near(Near { rtt_micros: None, known: vec![known(a, None)], row: None }),
        Header::Leave { members: vec![a] },
        Header::Attach,
        Header::Attached { accepted: true, members: vec![a] },
        Header::Attached { accepted: false, members: vec![] },
        Header::Detach,
        Header::Outdated(a),
        Header::Via { to: a, from: b },
        Header::Lost(a),
    ]
}

#[test]
fn the_greetings_of_the_page_are_those_of_the_code() {
    let vector = |hello: &Hello| (text(hello, &Bytes::new()), hello.encode().to_vec());
    expect_table("vectors: greetings", &hellos().iter().map(vector).collect::<Vec<_>>());
    for (row, hello) in table("vectors: greetings").iter().zip(hellos()) {
        assert_eq!(Hello::decode(&unhex(&row[1])), Ok(hello));
    }
}

#[test]
fn the_frames_of_the_page_are_those_of_the_code() {
    let bytes = |frame: &Frame| [&encode(frame).head[..], &frame.payload[..]].concat();
    let vector = |frame: &Frame| (text(&frame.header, &frame.payload), bytes(frame));
    expect_table("vectors: frames", &frames().iter().map(vector).collect::<Vec<_>>());
    for (row, frame) in table("vectors: frames").iter().zip(frames()) {
        assert_eq!(decode(unhex(&row[1]).into()), Ok(frame));
    }
}

#[test]
fn the_example_nodes_of_the_page_are_those_of_the_code() {
    let rows = nodes().map(|(name, peer)| {
        let bytes = hex(&postcard::to_stdvec(&peer).unwrap());
        vec![
            name.to_string(),
            peer.id.to_string(),
            peer.incarnation.to_string(),
            peer.addr.to_string(),
            bytes,
        ]
    });
    assert_eq!(table("example nodes"), rows);
    assert!(DOC.contains(&format!("`K` is `{K}`, the key `M` is `{M}`")));
}

/// A new variant does not compile until it has its name here, and then wants an example and a section.
fn name(header: &Header) -> &'static str {
    match header {
        Header::Routed(_) => "Routed",
        Header::HopAck { .. } => "HopAck",
        Header::Letter(_) => "Letter",
        Header::Relayed { .. } => "Relayed",
        Header::Probe(_) => "Probe",
        Header::ProbeAck(_) => "ProbeAck",
        Header::Admit => "Admit",
        Header::Admission(_) => "Admission",
        Header::Commit { .. } => "Commit",
        Header::Committed { .. } => "Committed",
        Header::Withdraw { .. } => "Withdraw",
        Header::LeafSet { .. } => "LeafSet",
        Header::NearerRequest { .. } => "NearerRequest",
        Header::Near(_) => "Near",
        Header::Leave { .. } => "Leave",
        Header::Broadcast { .. } => "Broadcast",
        Header::Attach => "Attach",
        Header::Attached { .. } => "Attached",
        Header::Detach => "Detach",
        Header::Outdated(_) => "Outdated",
        Header::Lost(_) => "Lost",
        Header::Via { .. } => "Via",
    }
}

#[test]
fn every_frame_has_a_section_under_its_number_and_an_example() {
    let mut has_example = [false; 22];
    for frame in frames() {
        let number = encode(&frame).head[0];
        has_example[usize::from(number)] = true;
        let heading = format!("\n#### {number:02x} {}\n", name(&frame.header));
        assert!(DOC.contains(&heading), "docs/protocol.md has no section `{}`", heading.trim());
    }
    assert!(has_example.iter().all(|&has| has), "frames without an example: {has_example:?}");
    // Zeros are enough for the fields of any header: what is still no header has no variant.
    let beyond = [&[has_example.len() as u8][..], &[0; 256]].concat();
    assert_eq!(decode(beyond.into()), Err(DecodeError::Header), "there are more frames than counted here");
}

#[test]
fn words_about_leases_stand_before_the_header() {
    let (ask, grant) = (Ask { number: 4, lease: Sides::Left }, Grant { number: 6, lease: Sides::Right });
    let both = LeaseWords { ask: Some(ask), grant: Some(grant) };
    let expected: Vec<(String, Vec<u8>)> =
        [both, LeaseWords { ask: Some(ask), grant: None }, LeaseWords::default()]
            .into_iter()
            .map(|words| {
                let frame = Frame { words: Some(Box::new(words)), ..Frame::from(Header::HopAck { hop: 7 }) };
                let bytes = encode(&frame).head;
                assert_eq!(decode(bytes.clone()), Ok(frame));
                (format!("HopAck {{ hop: 7 }} with {words:?}"), bytes.to_vec())
            })
            .collect();
    expect_table("words", &expected);
    let twice = [&expected[2].1[..3], &expected[2].1[..]].concat();
    assert_eq!(decode(twice.into()), Err(DecodeError::Header), "words are said once in a frame");
}

#[test]
fn the_limits_of_the_page_are_those_of_the_code() {
    let limits = [
        ("PROTOCOL_VERSION", u64::from(PROTOCOL_VERSION)),
        ("MAX_NETWORK_NAME", MAX_NETWORK_NAME as u64),
        ("MAX_PEERS", MAX_PEERS as u64),
        ("MAX_PATH", MAX_PATH as u64),
        ("MAX_TRACE", MAX_TRACE as u64),
    ];
    expect_limits("limits", &limits);
}

//! Holds `docs/protocol.md` to the code: its test vectors, the numbers of its frames, its limits.

mod protocol_page;

use bytes::Bytes;
use protocol_page::{DOC, K, M, expect_limits, expect_table, hex, nodes, table, text, unhex};
use treecast_overlay::geometry::pastry::{Known, Near, PastryFrame};
use treecast_overlay::id::Key;
use treecast_overlay::peer::{Addr, Addresses, Contact};
use treecast_overlay::sides::Sides;
use treecast_overlay::wire::{
    Admission, Answer, Ask, Class, DecodeError, Direct, Frame, Grant, Header, Hello, LeasePiggyback,
    MAX_CONTROL, MAX_NETWORK_NAME, MAX_PATH, MAX_PEERS, MAX_TRACE, NodeState, PROTOCOL_VERSION, Probe,
    ProbeAck, Purpose, RouteFailure, Routed, TraceHop, decode, encode,
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
        Header::Direct(Direct::Payload),
        Header::Direct(Direct::Control),
        Header::RelayedDirect { to: edge.into(), from: Contact::from(b).into(), direct: Direct::Payload },
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
    let undeliverable = |reason| Direct::Undeliverable { id: 1, key: K, reason };
    let edge = Contact { peer: e, via: Some(a) };
    vec![
        routed(M, edge, Purpose::Lookup, Some(vec![hop])),
        routed(b.id.key(), b.into(), Purpose::Seek, None),
        Header::HopAck { hop: 7 },
        Header::Direct(Direct::Answer(answer.into())),
        Header::Direct(Direct::Answer(traced.into())),
        Header::Direct(Direct::Answer(sought.into())),
        Header::Direct(undeliverable(RouteFailure::HopLimit)),
        Header::Direct(undeliverable(RouteFailure::NoRoute)),
        Header::Direct(undeliverable(RouteFailure::Overloaded)),
        Header::RelayedDirect {
            to: Contact::from(b).into(),
            from: edge.into(),
            direct: undeliverable(RouteFailure::NoRoot),
        },
    ]
}

fn headers_of_upkeep() -> Vec<Header> {
    let [(_, a), (_, b), _] = nodes();
    let probe = |node_state, lease: Sides| {
        Header::Probe(Probe { number: 4, node_state, lease, leaf_set: lease.is_none() })
    };
    let ack = |node_state, lease: Sides, leaf_set| {
        let asks = (!lease.is_none()).then_some(Ask { number: 6, lease: Sides::Right });
        Header::ProbeAck(ProbeAck { number: 4, node_state, lease, asks, leaf_set })
    };
    let known = |peer, rtt_micros| Known { peer, rtt_micros };
    let near = |rtt_micros, known, row, crowded| {
        PastryFrame::Near(Near { rtt_micros, known: vec![known], row, crowded }).encode()
    };
    vec![
        probe(NodeState::Joining, Sides::None),
        probe(NodeState::Ready, Sides::Both),
        ack(NodeState::Ready, Sides::Left, None),
        ack(NodeState::Starting, Sides::None, None),
        ack(NodeState::Edge, Sides::None, None),
        ack(NodeState::Ready, Sides::None, Some(vec![a, b])),
        Header::JoinRequest,
        Header::Admission(Admission::Granted { members: vec![a] }),
        Header::Admission(Admission::Busy),
        Header::Admission(Admission::NotNeighbour { members: vec![a] }),
        Header::Admission(Admission::NotReady),
        Header::JoinCommit { number: 5, other_neighbour: b.id },
        Header::JoinCommitted { number: 5, lease: Sides::Right },
        Header::JoinAbort { number: 6 },
        Header::LeafSet { members: vec![a, b], reply: true },
        PastryFrame::NearerRequest { rtt_micros: 450 }.encode(),
        near(Some(450), known(b, Some(300)), Some(31), true),
        near(None, known(a, None), None, false),
        Header::Leave { members: vec![a] },
        Header::Attach,
        Header::Attached { accepted: true, members: vec![a] },
        Header::Attached { accepted: false, members: vec![] },
        Header::Detach,
        Header::Outdated(a),
        Header::Via { to: a, from: b, class: Class::Control },
        Header::Via { to: a, from: b, class: Class::Data },
        Header::PeerDeadHint(a),
        Header::HopRefused { hop: 7 },
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
        assert_eq!(decode(unhex(&row[1]).into(), Addresses::Any), Ok(frame));
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
        Header::Direct(_) => "Direct",
        Header::RelayedDirect { .. } => "RelayedDirect",
        Header::Probe(_) => "Probe",
        Header::ProbeAck(_) => "ProbeAck",
        Header::JoinRequest => "JoinRequest",
        Header::Admission(_) => "Admission",
        Header::JoinCommit { .. } => "JoinCommit",
        Header::JoinCommitted { .. } => "JoinCommitted",
        Header::JoinAbort { .. } => "JoinAbort",
        Header::LeafSet { .. } => "LeafSet",
        Header::Geometry(_) => "Geometry",
        Header::Leave { .. } => "Leave",
        Header::Broadcast { .. } => "Broadcast",
        Header::Attach => "Attach",
        Header::Attached { .. } => "Attached",
        Header::Detach => "Detach",
        Header::Outdated(_) => "Outdated",
        Header::PeerDeadHint(_) => "PeerDeadHint",
        Header::HopRefused { .. } => "HopRefused",
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
    assert_eq!(
        decode(beyond.into(), Addresses::Any),
        Err(DecodeError::Header),
        "there are more frames than counted here"
    );
}

#[test]
fn words_about_leases_stand_before_the_header() {
    let (ask, grant) = (Ask { number: 4, lease: Sides::Left }, Grant { number: 6, lease: Sides::Right });
    let both = LeasePiggyback { ask: Some(ask), grant: Some(grant) };
    let expected: Vec<(String, Vec<u8>)> =
        [both, LeasePiggyback { ask: Some(ask), grant: None }, LeasePiggyback::default()]
            .into_iter()
            .map(|words| {
                let frame =
                    Frame { piggyback: Some(Box::new(words)), ..Frame::from(Header::HopAck { hop: 7 }) };
                let bytes = encode(&frame).head;
                assert_eq!(decode(bytes.clone(), Addresses::Any), Ok(frame));
                (format!("HopAck {{ hop: 7 }} with {words:?}"), bytes.to_vec())
            })
            .collect();
    expect_table("words", &expected);
    let twice = [&expected[2].1[..3], &expected[2].1[..]].concat();
    assert_eq!(
        decode(twice.into(), Addresses::Any),
        Err(DecodeError::Header),
        "words are said once in a frame"
    );
}

#[test]
fn the_limits_of_the_page_are_those_of_the_code() {
    let limits = [
        ("PROTOCOL_VERSION", u64::from(PROTOCOL_VERSION)),
        ("MAX_NETWORK_NAME", MAX_NETWORK_NAME as u64),
        ("MAX_CONTROL", MAX_CONTROL as u64),
        ("MAX_PEERS", MAX_PEERS as u64),
        ("MAX_PATH", MAX_PATH as u64),
        ("MAX_TRACE", MAX_TRACE as u64),
    ];
    expect_limits("limits", &limits);
}

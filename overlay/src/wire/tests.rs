//! The codec against every frame there is, and against everything that is none.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;

use super::*;
use crate::id::{Key, NodeId};
use crate::peer::{Addr, Addresses, Contact, Peer};
use crate::sides::Sides;

// Compound strategies are boxed: their value trees would overflow a test thread's stack.

/// A number of any length on the wire: uniform ones would nearly all take the longest form.
fn number() -> impl Strategy<Value = u64> + Clone {
    (any::<u64>(), 0u32..64).prop_map(|(bits, shift)| bits >> shift)
}

fn point() -> impl Strategy<Value = u128> + Clone {
    prop_oneof![3 => any::<u128>(), 1 => number().prop_map(u128::from), 1 => Just(u128::MAX)]
}

fn addr() -> BoxedStrategy<Addr> {
    let v4 = (any::<[u8; 4]>(), any::<u16>())
        .prop_map(|(ip, port)| Addr::from(SocketAddr::new(Ipv4Addr::from(ip).into(), port)));
    // Without flow label and scope: they mean nothing to another machine and do not travel.
    let v6 = (any::<[u8; 16]>(), any::<u16>())
        .prop_map(|(ip, port)| Addr::from(SocketAddr::new(Ipv6Addr::from(ip).into(), port)));
    prop_oneof![Just(Addr::Unreachable), v4, v6, any::<u32>().prop_map(Addr::Memory)].boxed()
}

fn peer() -> BoxedStrategy<Peer> {
    (point(), number(), addr())
        .prop_map(|(id, incarnation, addr)| Peer { id: NodeId(id), incarnation, addr })
        .boxed()
}

fn contact() -> BoxedStrategy<Contact> {
    (peer(), option::of(peer())).prop_map(|(peer, via)| Contact { peer, via }).boxed()
}

/// Short lists mostly, and full ones.
fn peers() -> BoxedStrategy<Vec<Peer>> {
    prop_oneof![9 => vec(peer(), 0..6), 1 => vec(peer(), MAX_PEERS)].boxed()
}

fn trace() -> BoxedStrategy<Option<Vec<TraceHop>>> {
    let hop = (point(), any::<u8>(), option::of(any::<u32>()));
    let hop =
        hop.prop_map(|(node, matched, rtt_micros)| TraceHop { node: NodeId(node), matched, rtt_micros });
    option::of(prop_oneof![9 => vec(hop.clone(), 0..6), 1 => vec(hop, MAX_TRACE)]).boxed()
}

fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![Just(Purpose::Application), Just(Purpose::Lookup), Just(Purpose::Seek),]
}

fn routed() -> BoxedStrategy<Routed> {
    let numbers = (number(), point(), number(), any::<u8>(), any::<bool>(), any::<bool>());
    (numbers, contact(), purpose(), trace())
        .prop_map(|((hop, key, id, hops, by_leaf_set, repeated), origin, purpose, trace)| Routed {
            hop,
            key: Key(key),
            origin,
            id,
            hops,
            by_leaf_set,
            repeated,
            purpose,
            trace,
        })
        .boxed()
}

fn answer() -> BoxedStrategy<Answer> {
    (number(), peer(), any::<u8>(), trace(), peers())
        .prop_map(|(id, root, hops, trace, leaf_set)| Answer { id, root, hops, trace, leaf_set })
        .boxed()
}

fn direct() -> BoxedStrategy<Direct> {
    let reason = select(vec![
        RouteFailure::HopLimit,
        RouteFailure::NoRoute,
        RouteFailure::Overloaded,
        RouteFailure::NoRoot,
    ]);
    let undeliverable = (number(), point(), reason);
    prop_oneof![
        Just(Direct::Payload),
        Just(Direct::Control),
        answer().prop_map(|answer| Direct::Answer(answer.into())),
        undeliverable.prop_map(|(id, key, reason)| Direct::Undeliverable { id, key: Key(key), reason }),
    ]
    .boxed()
}

fn node_state() -> impl Strategy<Value = NodeState> {
    select(vec![NodeState::Starting, NodeState::Joining, NodeState::Ready, NodeState::Edge])
}

fn sides() -> impl Strategy<Value = Sides> {
    select(vec![Sides::None, Sides::Left, Sides::Right, Sides::Both])
}

fn probe() -> impl Strategy<Value = Probe> {
    (number(), node_state(), sides(), any::<bool>()).prop_map(|(number, node_state, lease, leaf_set)| Probe {
        number,
        node_state,
        lease,
        leaf_set,
    })
}

fn probe_ack() -> impl Strategy<Value = ProbeAck> {
    let ask = (number(), sides()).prop_map(|(number, lease)| Ask { number, lease });
    (number(), node_state(), sides(), option::of(ask), option::of(peers())).prop_map(
        |(number, node_state, lease, asks, leaf_set)| ProbeAck { number, node_state, lease, asks, leaf_set },
    )
}

fn admission() -> impl Strategy<Value = Admission> {
    prop_oneof![
        peers().prop_map(|members| Admission::Granted { members }),
        Just(Admission::Busy),
        peers().prop_map(|members| Admission::NotNeighbour { members }),
        Just(Admission::NotReady),
    ]
}

fn words() -> impl Strategy<Value = LeasePiggyback> {
    let ask = (number(), sides()).prop_map(|(number, lease)| Ask { number, lease });
    let grant = (number(), sides()).prop_map(|(number, lease)| Grant { number, lease });
    (option::of(ask), option::of(grant)).prop_map(|(ask, grant)| LeasePiggyback { ask, grant })
}

/// How many variants [`Header`] has. The match has no `_`: a new variant does not compile until it is counted here,
/// and is not covered until [`header`] makes it.
const VARIANTS: usize = 22;

fn variant(header: &Header) -> usize {
    match header {
        Header::Routed(_) => 0,
        Header::HopAck { .. } => 1,
        Header::Direct(_) => 2,
        Header::RelayedDirect { .. } => 3,
        Header::Probe(_) => 4,
        Header::ProbeAck(_) => 5,
        Header::JoinRequest => 6,
        Header::Admission(_) => 7,
        Header::JoinCommit { .. } => 8,
        Header::JoinCommitted { .. } => 9,
        Header::JoinAbort { .. } => 10,
        Header::LeafSet { .. } => 11,
        Header::Geometry(_) => 12,
        Header::Leave { .. } => 13,
        Header::Broadcast { .. } => 14,
        Header::Attach => 15,
        Header::Attached { .. } => 16,
        Header::Detach => 17,
        Header::Outdated(_) => 18,
        Header::Via { .. } => 19,
        Header::PeerDeadHint(_) => 20,
        Header::HopRefused { .. } => 21,
    }
}

fn header() -> impl Strategy<Value = Header> {
    let relayed = (contact(), contact(), direct());
    let broadcast = (number(), contact(), number(), point());
    let of_routing = prop_oneof![
        routed().prop_map(Header::Routed),
        number().prop_map(|hop| Header::HopAck { hop }),
        direct().prop_map(Header::Direct),
        relayed.prop_map(|(to, from, direct)| Header::RelayedDirect {
            to: to.into(),
            from: from.into(),
            direct
        }),
        broadcast.prop_map(|(hop, origin, id, until)| Header::Broadcast {
            hop,
            origin,
            id,
            until: Key(until)
        }),
    ];
    let of_joining = prop_oneof![
        Just(Header::JoinRequest),
        admission().prop_map(Header::Admission),
        (number(), any::<u128>())
            .prop_map(|(number, id)| Header::JoinCommit { number, other_neighbour: NodeId(id) }),
        (number(), sides()).prop_map(|(number, lease)| Header::JoinCommitted { number, lease }),
        number().prop_map(|number| Header::JoinAbort { number }),
        peers().prop_map(|members| Header::Leave { members }),
        peer().prop_map(Header::Outdated),
        peer().prop_map(Header::PeerDeadHint),
        number().prop_map(|hop| Header::HopRefused { hop }),
        (peer(), peer(), select(vec![Class::Control, Class::Data]))
            .prop_map(|(to, from, class)| Header::Via { to, from, class }),
    ];
    let of_upkeep = prop_oneof![
        probe().prop_map(Header::Probe),
        probe_ack().prop_map(Header::ProbeAck),
        (peers(), any::<bool>()).prop_map(|(members, reply)| Header::LeafSet { members, reply }),
        (any::<u8>(), vec(any::<u8>(), 0..40))
            .prop_map(|(kind, body)| Header::Geometry(GeometryFrame { kind, body })),
    ];
    let of_edges = prop_oneof![
        Just(Header::Attach),
        (any::<bool>(), peers()).prop_map(|(accepted, members)| Header::Attached { accepted, members }),
        Just(Header::Detach),
    ];
    prop_oneof![of_routing, of_joining, of_upkeep, of_edges]
}

/// The module's rule for payloads, in other words than the decoder's.
fn may_carry(header: &Header) -> bool {
    let text = format!("{header:?}");
    text.starts_with("Broadcast")
        || text.starts_with("Via")
        || text.starts_with("Direct(Payload")
        || text.starts_with("Direct(Control")
        || text.starts_with("RelayedDirect")
            && (text.ends_with("direct: Payload }") || text.ends_with("direct: Control }"))
        || text.starts_with("Routed") && text.contains("purpose: Application")
}

fn frame() -> impl Strategy<Value = Frame> {
    (option::of(words()), header(), vec(any::<u8>(), 0..40)).prop_map(|(words, header, payload)| {
        let payload = if may_carry(&header) { payload.into() } else { Bytes::new() };
        Frame { piggyback: words.map(Box::new), header, payload }
    })
}

/// As between nodes of one process: the strategies make addresses of all kinds.
fn decode(bytes: Bytes) -> Result<Frame, DecodeError> {
    super::decode(bytes, Addresses::Any)
}

/// The frame as the transport hands it in: one buffer.
fn bytes_of(frame: &Frame) -> Bytes {
    let encoded = encode(frame);
    let bytes = Bytes::from([&encoded.head[..], &encoded.payload[..]].concat());
    assert_eq!(encoded.len(), bytes.len());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn every_frame_round_trips(frame in frame()) {
        prop_assert_eq!(decode(bytes_of(&frame)), Ok(frame));
    }

    /// The frame says in words whether it names a slot: so a variant that `all_peers` passes over is found.
    #[test]
    fn a_slot_of_memory_in_any_place_is_refused_where_only_public_addresses_are_allowed(frame in frame()) {
        let names_slot = format!("{:?}", frame.header).contains("Memory(");
        let decoded = super::decode(bytes_of(&frame), Addresses::Public);
        prop_assert_eq!(decoded, if names_slot { Err(DecodeError::MemoryAddress) } else { Ok(frame) });
    }

    #[test]
    fn payloads_are_not_copied(header in header(), payload in vec(any::<u8>(), 1..40)) {
        let frame = Frame::new(header, payload.into());
        prop_assert_eq!(encode(&frame).payload.as_ptr(), frame.payload.as_ptr());
        let bytes = bytes_of(&frame);
        let tail = bytes[bytes.len() - frame.payload.len()..].as_ptr();
        match decode(bytes) {
            Ok(decoded) => {
                prop_assert!(may_carry(&frame.header));
                prop_assert_eq!(decoded.payload.as_ptr(), tail);
            }
            Err(error) => {
                prop_assert!(!may_carry(&frame.header));
                prop_assert_eq!(error, DecodeError::UnexpectedPayload { len: frame.payload.len() });
            }
        }
    }

    #[test]
    fn garbage_never_panics(bytes in vec(any::<u8>(), 0..300)) {
        let _ = decode(bytes.clone().into());
        let _ = Hello::decode(&bytes);
        let _ = Hello::decode(&[&greeting_prefix()[..], &bytes].concat());
    }

    /// Garbage that gets past the first byte, and from there on often to the end: small values are valid variants,
    /// booleans and lengths.
    #[test]
    fn plausible_garbage_never_panics_and_what_it_says_round_trips(
        variant in 0..VARIANTS as u8,
        bytes in vec(prop_oneof![3 => 0u8..4, 1 => any::<u8>()], 0..300),
    ) {
        if let Ok(frame) = decode([&[variant][..], &bytes].concat().into()) {
            prop_assert_eq!(decode(bytes_of(&frame)), Ok(frame));
        }
    }

    #[test]
    fn cut_headers_are_refused(frame in frame(), at: Index) {
        let head = encode(&frame).head;
        let cut = head.slice(..at.index(head.len()));
        prop_assert_eq!(decode(cut), Err(DecodeError::Header));
    }

    #[test]
    fn flipped_bits_never_panic(frame in frame(), flips in vec(any::<Index>(), 1..4)) {
        let mut bytes = bytes_of(&frame).to_vec();
        for flip in flips {
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        if let Ok(frame) = decode(bytes.into()) {
            prop_assert_eq!(decode(bytes_of(&frame)), Ok(frame));
        }
    }

    #[test]
    fn every_greeting_round_trips(
        network in "\\PC{0,16}", incarnation in number(), listens in addr(), at: Index,
    ) {
        let hello = Hello { network, incarnation, listens };
        let bytes = hello.encode();
        prop_assert!(Hello::decode(&bytes[..at.index(bytes.len())]).is_err());
        prop_assert_eq!(Hello::decode(&bytes), Ok(hello));
    }
}

fn greeting_prefix() -> [u8; 6] {
    let bytes = Hello { network: String::new(), incarnation: 0, listens: Addr::Unreachable }.encode();
    bytes[..6].try_into().unwrap()
}

#[test]
fn the_strategy_makes_every_variant() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut made = [0; VARIANTS];
    for _ in 0..2000 {
        made[variant(&header().new_tree(&mut runner).unwrap().current())] += 1;
    }
    assert!(made.iter().all(|&count| count > 20), "{made:?}");
}

/// One frame for each list that there is on the wire, with `len` elements in it.
fn frames_with_lists_of(len: usize) -> Vec<(Frame, usize)> {
    let peer = Peer { id: NodeId(0), incarnation: 0, addr: Addr::Unreachable };
    let hop = TraceHop { node: NodeId(0), matched: 0, rtt_micros: None };
    let (peers, path) = (vec![peer; len], vec![hop; len]);
    let routed = |purpose, trace| {
        let (key, origin) = (Key(0), peer.into());
        Header::Routed(Routed {
            hop: 0,
            key,
            origin,
            id: 0,
            hops: 0,
            by_leaf_set: false,
            repeated: false,
            purpose,
            trace,
        })
    };
    let empty = Answer { id: 0, root: peer, hops: 0, trace: None, leaf_set: vec![] };
    let answers = [
        (Answer { trace: Some(path.clone()), ..empty.clone() }, MAX_TRACE),
        (Answer { leaf_set: peers.clone(), ..empty }, MAX_PEERS),
    ];
    let leaf_set = Some(peers.clone());
    let ack = ProbeAck { number: 0, node_state: NodeState::Ready, lease: Sides::None, asks: None, leaf_set };
    let body = vec![7; len];
    let mut headers = vec![
        (routed(Purpose::Lookup, Some(path)), MAX_TRACE),
        (Header::ProbeAck(ack), MAX_PEERS),
        (Header::Admission(Admission::Granted { members: peers.clone() }), MAX_PEERS),
        (Header::Admission(Admission::NotNeighbour { members: peers.clone() }), MAX_PEERS),
        (Header::LeafSet { members: peers.clone(), reply: false }, MAX_PEERS),
        (Header::Geometry(GeometryFrame { kind: 1, body }), MAX_GEOMETRY_BYTES),
        (Header::Leave { members: peers.clone() }, MAX_PEERS),
        (Header::Attached { accepted: true, members: peers }, MAX_PEERS),
    ];
    for (answer, limit) in answers {
        let direct = Direct::Answer(answer.into());
        headers.push((Header::Direct(direct.clone()), limit));
        headers.push((
            Header::RelayedDirect {
                to: Contact::from(peer).into(),
                from: Contact::from(peer).into(),
                direct,
            },
            limit,
        ));
    }
    headers.into_iter().map(|(header, limit)| (header.into(), limit)).collect()
}

#[test]
fn lists_over_their_limit_are_refused_whatever_their_length() {
    for len in [0, MAX_TRACE, MAX_TRACE + 1, MAX_PEERS, MAX_PEERS + 1, 300_000] {
        for (frame, limit) in frames_with_lists_of(len) {
            let decoded = decode(bytes_of(&frame));
            if len <= limit {
                assert_eq!(decoded, Ok(frame));
            } else {
                assert_eq!(decoded, Err(DecodeError::ListTooLong { limit }));
            }
        }
    }
}

#[test]
fn a_declared_length_without_elements_is_refused() {
    // LeafSet is variant 11; then a list's length of 2^64 - 1, and nothing.
    let bytes: Vec<u8> = [&[11][..], &[0xff; 9], &[1]].concat();
    assert_eq!(decode(bytes.into()), Err(DecodeError::Header));
    assert_eq!(decode(Bytes::new()), Err(DecodeError::Header));
    assert_eq!(decode(Bytes::from_static(&[VARIANTS as u8])), Err(DecodeError::Header));
}

#[test]
fn a_greeting_has_limits() {
    let greet = |len| Hello { network: "x".repeat(len), incarnation: 1, listens: Addr::Unreachable };
    assert_eq!(Hello::decode(&greet(MAX_NETWORK_NAME).encode()), Ok(greet(MAX_NETWORK_NAME)));
    let too_long = greet(MAX_NETWORK_NAME + 1).encode();
    assert_eq!(Hello::decode(&too_long), Err(HelloError::Malformed));
    // A length of 2^64 - 1 for the name, and nothing behind it.
    let huge = [&greeting_prefix()[..], &[0xff; 9], &[1]].concat();
    assert_eq!(Hello::decode(&huge), Err(HelloError::Malformed));
}

/// A list that is not bounded while it is decoded would pass every other test here, and take memory on a peer's word.
#[test]
fn every_list_in_a_header_is_bounded_while_it_is_decoded() {
    let source = include_str!("header.rs");
    let lines: Vec<&str> = source.lines().collect();
    let is_list = |line: &str| line.contains("Vec<") && line.trim_end().ends_with(',');
    let lists: Vec<usize> = (0..lines.len()).filter(|&at| is_list(lines[at])).collect();
    assert_eq!(lists.len(), source.matches("Vec<").count(), "a list that is no field of its own");
    for at in lists {
        assert!(lines[at - 1].contains("\"bounded::"), "line {}: {}", at + 1, lines[at]);
    }
}

#[test]
fn a_frame_has_the_class_of_its_header_if_it_is_small() {
    let of = |header: Header, len: usize| Frame::new(header, Bytes::from(vec![1; len])).class();
    let (to, from) = (peer_of(1), peer_of(2));
    let relayed =
        |direct| Header::RelayedDirect { to: Box::new(to.into()), from: Box::new(from.into()), direct };
    for header in [Header::Direct(Direct::Control), relayed(Direct::Control)] {
        assert_eq!(of(header.clone(), 0), Class::Control);
        assert_eq!(of(header.clone(), MAX_CONTROL), Class::Control);
        assert_eq!(of(header, MAX_CONTROL + 1), Class::Data, "too large");
    }
    for header in [Header::Direct(Direct::Payload), relayed(Direct::Payload)] {
        assert_eq!(of(header, 1), Class::Data, "it was asked to be data");
    }
    for class in [Class::Control, Class::Data] {
        assert_eq!(of(Header::Via { to, from, class }, MAX_CONTROL + 100), class);
        assert_eq!(of(Header::Via { to, from, class }, 2 * MAX_CONTROL), Class::Data);
    }
    assert_eq!(of(Header::HopAck { hop: 1 }, 0), Class::Control);
    assert_eq!(Direct::of(Class::Control, MAX_CONTROL), Direct::Control);
    assert_eq!(Direct::of(Class::Control, MAX_CONTROL + 1), Direct::Payload);
    assert_eq!(Direct::of(Class::Data, 1), Direct::Payload);
}

fn peer_of(id: u128) -> Peer {
    Peer { id: NodeId(id), incarnation: 1, addr: Addr::Unreachable }
}

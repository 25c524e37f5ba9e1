//! Costs of the cores per message: `cargo bench -p treecast-integration --bench core`.

#[path = "core/flow.rs"]
mod flow;
#[path = "core/routing.rs"]
mod routing;

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_main};
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::peer::{Addr, Addresses, Peer};
use treecast_overlay::sides::Sides;
use treecast_overlay::wire::{self, Frame, Header, NodeState, Probe, ProbeAck, Purpose, Routed};

criterion_main!(benches);

fn benches() {
    let mut criterion = Criterion::default().configure_from_args();
    codec(&mut criterion);
    routing::benches(&mut criterion);
    flow::benches(&mut criterion);
    criterion.final_summary();
}

/// Frames to bytes and back: a routed message of 1 KiB, the small frames that acknowledge and keep leases alive, and
/// the largest that repair sends every round.
fn codec(criterion: &mut Criterion) {
    let frames = [
        ("routed_1_kib", routed(1024)),
        ("hop_ack", Header::HopAck { hop: 12_345 }.into()),
        ("probe", probe()),
        ("probe_ack", probe_ack()),
        ("leaf_set_of_32", Header::LeafSet { members: (0..32).map(peer).collect(), reply: true }.into()),
    ];
    let mut group = criterion.benchmark_group("codec");
    for (name, frame) in &frames {
        let bytes = contiguous(frame);
        assert_eq!(
            wire::decode(bytes.clone(), Addresses::Any).as_ref(),
            Ok(frame),
            "{name} does not survive the wire"
        );
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_with_input(BenchmarkId::new("encode", name), frame, |bencher, frame| {
            bencher.iter(|| wire::encode(black_box(frame)));
        });
        group.bench_with_input(BenchmarkId::new("decode", name), &bytes, |bencher, bytes| {
            bencher.iter(|| wire::decode(black_box(bytes.clone()), Addresses::Any));
        });
    }
    group.finish();
}

/// As a transport has it in its buffer.
fn contiguous(frame: &Frame) -> Bytes {
    let encoded = wire::encode(frame);
    let mut bytes = BytesMut::from(&encoded.head[..]);
    bytes.extend_from_slice(&encoded.payload);
    bytes.freeze()
}

fn routed(payload: usize) -> Frame {
    let routed = Routed {
        hop: 4711,
        key: Key::hash(b"topic"),
        origin: peer(1).into(),
        id: 99,
        hops: 2,
        by_leaf_set: false,
        repeated: false,
        purpose: Purpose::Application,
        trace: None,
    };
    Frame::new(Header::Routed(routed), Bytes::from(vec![7; payload]))
}

fn probe() -> Frame {
    let probe = Probe { number: 4711, node_state: NodeState::Ready, lease: Sides::Left, leaf_set: false };
    Header::Probe(probe).into()
}

fn probe_ack() -> Frame {
    let ack = ProbeAck {
        number: 4711,
        node_state: NodeState::Ready,
        lease: Sides::Left,
        asks: None,
        leaf_set: None,
    };
    Header::ProbeAck(ack).into()
}

/// Ids, incarnations and addresses of real size.
fn peer(number: u64) -> Peer {
    let id = NodeId(Key::hash(&number.to_le_bytes()).0);
    let addr = Addr::from(std::net::SocketAddr::from(([192, 0, 2, number as u8], 4848)));
    Peer { id, incarnation: 1_760_000_000_000 + number, addr }
}

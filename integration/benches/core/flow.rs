//! Fan-out through whole nodes in steady state: a root with 31 children, and a forwarder. Children acknowledge every
//! sixteenth message, as real ones do.

use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use treecast_integration::case;
use treecast_integration::cluster::Cluster;
use treecast_integration::world::{self, Fidelity};
use treecast_overlay::machine::{Destination, Machine};
use treecast_overlay::peer::Peer;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Direct, Frame, Header};
use treecast_scribe::wire::{self, Ack, Body, Data, Header as Word, Publish, Signature};
use treecast_scribe::{PastryStack, Position, Topic};

/// Messages in a batch: after so many a child acknowledges.
const BATCH: u64 = 16;
/// Bytes of a payload.
const PAYLOAD: usize = 1024;
const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flow");
    for (name, mut family) in [("root", Family::of_root()), ("forwarder", Family::of_forwarder())] {
        let children = family.acks.len();
        group.throughput(Throughput::Elements(BATCH * children as u64));
        group.bench_function(BenchmarkId::new(name, children), |bencher| bencher.iter(|| family.batch()));
    }
    group.finish();
}

/// A parent out of a tree, and what its children say.
struct Family {
    parent: PastryStack,
    now: Instant,
    topic: Topic,
    /// Feeds it: a publisher for a root, its own parent for a forwarder.
    source: Peer,
    is_root: bool,
    /// The last place that was given.
    last: Position,
    sequence: u64,
    payload: Bytes,
    /// Each child, and its last acknowledgement.
    acks: Vec<(Peer, Ack)>,
}

impl Family {
    fn of_root() -> Family {
        let (mut cluster, topic) = tree(32);
        let root = cluster.root(&topic);
        Family::take(&mut cluster, topic, root)
    }

    /// The forwarder of a larger tree whose children are nearest to eight.
    fn of_forwarder() -> Family {
        let (mut cluster, topic) = tree(300);
        let children = |slot: usize| {
            let tree = cluster.tree(&topic).into_iter().find(|(other, _)| *other == slot);
            tree.map_or(0, |(_, tree)| tree.children.len())
        };
        let forwarder = cluster.parents(&topic).into_iter().min_by_key(|&slot| children(slot).abs_diff(8));
        Family::take(&mut cluster, topic, forwarder.expect("a tree of 300 has forwarders"))
    }

    fn take(cluster: &mut Cluster, topic: Topic, slot: usize) -> Family {
        let token = cluster.publish(slot, &topic, PAYLOAD);
        cluster.run(SECOND * 3);
        let Some((_, Ok(receipt))) = &cluster.history.publications[&token].outcome else {
            panic!("no receipt")
        };
        let last = receipt.position;
        let (now, me) = (cluster.world.now(), cluster.stack(slot).peer());
        let places = cluster.tree(&topic);
        let place = places.iter().find(|(other, _)| *other == slot).expect("it is on the tree").1.clone();
        let peer = |id| cluster.stacks().find(|(_, stack)| stack.peer().id == id).expect("it lives").1.peer();
        let source = peer(place.parent.unwrap_or(place.children[0]));
        let children: Vec<(usize, Peer)> = places
            .iter()
            .filter(|(_, tree)| tree.parent == Some(me.id))
            .map(|&(slot, _)| (slot, cluster.stack(slot).peer()))
            .collect();
        let parent = cluster.world.stop(slot);
        let (is_root, payload) = (place.is_root, Bytes::from(vec![7; PAYLOAD]));
        let mut family =
            Family { parent, now, topic, source, is_root, last, sequence: 0, payload, acks: Vec::new() };
        family.greet(cluster, me, &children);
        family
    }

    /// The first batch goes to the real children: their acknowledgements show how the next ones look.
    fn greet(&mut self, cluster: &mut Cluster, me: Peer, children: &[(usize, Peer)]) {
        let mut children: Vec<(Peer, PastryStack)> =
            children.iter().map(|&(slot, peer)| (peer, cluster.world.stop(slot))).collect();
        for _ in 0..BATCH {
            self.feed();
        }
        while let Some(transmit) = self.parent.poll_transmit() {
            let Destination::Peer(to) = transmit.to else { continue };
            if let Some((_, child)) = children.iter_mut().find(|(peer, _)| peer.id == to.id) {
                child.handle_frame(self.now, me, transmit.frame);
            }
        }
        for (peer, child) in &mut children {
            while let Some(transmit) = child.poll_transmit() {
                let ack = wire::decode(&transmit.frame.payload);
                if let (Destination::Peer(to), Ok((Word::Ack(ack), _))) = (transmit.to, ack)
                    && to.id == me.id
                    && ack.next == self.last.offset + 1
                {
                    self.acks.push((*peer, ack));
                }
            }
        }
        assert_eq!(self.acks.len(), children.len(), "every child acknowledges the whole batch");
        self.acknowledge();
        self.drain();
    }

    /// Sixteen messages in, each of them out to every child, and the children's acknowledgements.
    fn batch(&mut self) {
        let mut sent = 0;
        for _ in 0..BATCH {
            self.feed();
            sent += self.drain();
        }
        self.acknowledge();
        sent += self.drain();
        assert_eq!(sent, BATCH as usize * self.acks.len(), "everything to everybody, once");
    }

    /// The next message comes in.
    fn feed(&mut self) {
        self.sequence += 1;
        self.last.offset += 1;
        let word = if self.is_root {
            Word::Publish(Publish {
                topic: self.topic.id(),
                publisher: self.source.into(),
                session: 7,
                sequence: self.sequence,
                acknowledged: self.sequence.saturating_sub(BATCH),
                resent: false,
                birth: Some(self.last.birth),
                signature: Signature::None,
            })
        } else {
            let (publisher, session, sequence) = (self.source.id, 7, self.sequence);
            let body = Body::Message { publisher, session, sequence, signature: Signature::None };
            let Position { birth, offset } = self.last;
            let topic = self.topic.id();
            Word::Data(Data { topic, birth, offset, term: 1, behind: 0, stamp: 1, body })
        };
        let bytes = wire::encode(&word, &self.payload);
        self.parent.handle_frame(self.now, self.source, black_box(direct(bytes)));
    }

    fn acknowledge(&mut self) {
        for (child, ack) in &self.acks {
            let ack = Ack { next: self.last.offset + 1, consumed: self.last.offset + 1, ..ack.clone() };
            let bytes = wire::encode(&Word::Ack(ack), &[]);
            self.parent.handle_frame(self.now, *child, direct(bytes));
        }
    }

    /// Takes out what the parent sends, and says how much of it carries a payload.
    fn drain(&mut self) -> usize {
        let mut sent = 0;
        while let Some(transmit) = self.parent.poll_transmit() {
            sent += usize::from(transmit.frame.payload.len() > PAYLOAD);
            black_box(&transmit);
        }
        while let Some(event) = self.parent.poll_event() {
            black_box(&event);
        }
        sent
    }
}

fn direct(payload: Bytes) -> Frame {
    Frame::new(Header::Direct(Direct::Payload), payload)
}

/// A ring in which everybody but the root subscribes.
fn tree(nodes: usize) -> (Cluster, Topic) {
    let network = world::Config { fidelity: Fidelity::Values, spurious_timeouts: 0.0, ..Default::default() };
    let mut cluster = Cluster::new(case!("flow", 1), network);
    cluster.grow(nodes, SECOND * nodes as u32 / 10);
    let topic = Topic::new("rust/news").expect("a name");
    let root = cluster.root(&topic);
    for slot in (0..nodes).filter(|&slot| slot != root) {
        cluster.subscribe(slot, &topic);
    }
    cluster.run_until_delivered(SECOND * 20);
    // Lingering forwarders go.
    cluster.run(SECOND * 10);
    (cluster, topic)
}

//! Stories of joining, routing, repair, leases, edges and broadcast, told by nodes in one queue.
#![expect(clippy::wildcard_enum_match_arm, reason = "a story looks for one event and passes over the others")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::core::Timer;
use crate::config::{Config, Role};
use crate::geometry::Geometry;
use crate::id::Key;
use crate::id::NodeId;
use crate::kbr::{Bootstrap, BroadcastFailure, Command, Event, KeyBasedRouting, RingView, Transit};
use crate::kbr::{Delivery, Found};
use crate::machine::{Destination, Link, Machine, Transmit};
use crate::pastry::Node;
use crate::peer::Addr;
use crate::peer::{Contact, Peer, Seed};
use crate::sides::{Side, Sides};
use crate::testing::{self, Told, peer_at, slot_of};
use crate::time::Instant;
use crate::wire::{Class, Direct, Frame, Header, NodeState, Probe};
use std::sync::Arc;

mod carried;
mod cuts;
mod hostile;
mod idle;
mod lives;
mod late;
mod members;
mod merge;
mod near;
mod nearest;
mod hints;
mod slots;

const DELAY: Duration = Duration::from_millis(1);

impl Node {
    fn held_until(&self, issuer: NodeId) -> Option<Instant> {
        self.leases.held_until(&self.tables, issuer)
    }

    fn holds_lease(&self, now: Instant, issuer: NodeId) -> bool {
        self.leases.holds_all(now, &self.tables, issuer)
    }

    fn rtt(&self, id: NodeId) -> Option<Duration> {
        self.detector.rtt(id).or_else(|| self.geometry.rtt(id))
    }

    /// All that it has to send, also by something within it that a story called.
    fn take_sent(&mut self, now: Instant) -> impl Iterator<Item = Transmit> + use<> {
        self.send_queued(now);
        std::iter::from_fn(|| self.poll_transmit()).collect::<Vec<_>>().into_iter()
    }
}

impl Told for Node {
    fn before_drain(&mut self, now: Instant) {
        self.send_queued(now);
    }

    /// The layer above gives a message in transit back, but for one that says it should not.
    fn react(&mut self, now: Instant, event: Event) -> Option<Event> {
        match event {
            Event::Forward(transit) if transit.payload != "stop me" => {
                self.resume(now, transit);
                None
            }
            event => Some(event),
        }
    }
}

/// Some nodes of a ring.
type Net = testing::Net<Node>;

trait Stories {
    fn empty() -> Self;
    fn ring(n: usize) -> Self;
    fn join(&mut self, through: Option<usize>, config: Config) -> usize;
    fn start(&mut self, peer: Peer, config: Config, bootstrap: Bootstrap) -> usize;
    fn revive(&mut self, slot: usize, peer: Peer, bootstrap: Bootstrap);
    fn configure(&mut self, slot: usize, change: impl FnOnce(&mut Config));
    fn ready(&self) -> Vec<usize>;
    fn route(&mut self, slot: usize, key: Key, text: &'static str);
    fn true_root(&self, key: Key) -> usize;
    fn claimants(&self, key: Key) -> Vec<usize>;
    fn deliveries(&mut self) -> Vec<(usize, Delivery)>;
    fn reached(&self) -> Vec<usize>;
    fn ended(&self, slot: usize) -> Vec<(u64, Result<(), BroadcastFailure>)>;
    fn assert_one_ring(&self);
}

impl Stories for Net {
    fn empty() -> Net {
        Net::new(DELAY)
    }

    /// A ring of `n` nodes that joined one after the other.
    fn ring(n: usize) -> Net {
        let mut net = Net::empty();
        for slot in 0..n {
            net.join(slot.checked_sub(1).map(|_| 0), Config::default());
            net.run(Duration::from_millis(200));
        }
        assert_eq!(net.ready().len(), n, "all are ready");
        net.events.clear();
        net
    }

    fn start(&mut self, peer: Peer, config: Config, bootstrap: Bootstrap) -> usize {
        let node = Node::new(peer, config, [self.nodes.len() as u8; 32]).unwrap();
        self.add(node, Command::Start(bootstrap))
    }

    fn join(&mut self, through: Option<usize>, config: Config) -> usize {
        let join = through.map(|slot| Seed::from(Addr::Memory(slot as u32))).into_iter().collect();
        self.start(peer_at(self.nodes.len()), config, Bootstrap { join, ..Bootstrap::default() })
    }

    /// Starts another life in a slot whose node is gone.
    fn revive(&mut self, slot: usize, peer: Peer, bootstrap: Bootstrap) {
        let seed = [peer.incarnation as u8 ^ 0x80; 32];
        self.nodes[slot] = Some(Node::new(peer, Config::default(), seed).unwrap());
        self.command(slot, Command::Start(bootstrap));
    }

    /// Gives a running node other figures.
    fn configure(&mut self, slot: usize, change: impl FnOnce(&mut Config)) {
        change(Arc::make_mut(&mut self.node(slot).core.config));
    }

    fn ready(&self) -> Vec<usize> {
        self.live().filter(|(_, node)| node.node_state() == NodeState::Ready).map(|(slot, _)| slot).collect()
    }

    /// The slots that a broadcast has reached, once for each time.
    fn reached(&self) -> Vec<usize> {
        let reached = self.events.iter().filter(|(_, event)| matches!(event, Event::Broadcast { .. }));
        reached.map(|(slot, _)| *slot).collect()
    }

    /// How the broadcasts of a node ended.
    fn ended(&self, slot: usize) -> Vec<(u64, Result<(), BroadcastFailure>)> {
        let outcome = |(by, event): &(usize, Event)| match event {
            Event::BroadcastEnded { token, outcome } if *by == slot => Some((*token, *outcome)),
            _ => None,
        };
        self.events.iter().filter_map(outcome).collect()
    }

    fn route(&mut self, slot: usize, key: Key, text: &'static str) {
        let now = self.now;
        self.node(slot).route(now, key, Bytes::from_static(text.as_bytes()));
        self.drain(slot);
    }

    /// The ready node that is closest to a key, by full knowledge.
    fn true_root(&self, key: Key) -> usize {
        let ready = self.live().filter(|(_, node)| node.node_state() == NodeState::Ready);
        ready.min_by(|(_, a), (_, b)| key.closer(a.peer().id, b.peer().id)).unwrap().0
    }

    /// The nodes that say that they are the root of a key.
    fn claimants(&self, key: Key) -> Vec<usize> {
        self.live().filter(|(_, node)| node.is_root_of(self.now, key)).map(|(slot, _)| slot).collect()
    }

    fn deliveries(&mut self) -> Vec<(usize, Delivery)> {
        let events = std::mem::take(&mut self.events);
        let mut deliveries = Vec::new();
        for (slot, event) in events {
            match event {
                Event::Deliver(delivery) => deliveries.push((slot, delivery)),
                other => self.events.push((slot, other)),
            }
        }
        deliveries
    }

    /// Each key has just its true root.
    fn assert_one_ring(&self) {
        for i in 0..200u64 {
            let key = Key::hash(&i.to_le_bytes());
            assert_eq!(self.claimants(key), [self.true_root(key)], "root of {key}");
        }
    }
}

#[test]
fn the_first_node_is_alone_and_answers_for_everything() {
    let mut net = Net::empty();
    net.join(None, Config::default());
    net.run(Duration::from_millis(1));
    assert!(matches!(net.events[..], [(0, Event::Ready { alone: true }), (0, Event::NeighboursChanged)]));
    net.route(0, Key(7), "hello");
    assert!(matches!(net.deliveries()[..], [(0, Delivery { key: Key(7), hops: 0, .. })]));
}

#[test]
fn a_second_node_shares_the_ring() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(1));
    net.assert_one_ring();
    let key = net.nodes[1].as_ref().unwrap().peer().id.key();
    net.route(0, key, "to the other");
    net.run(Duration::from_millis(50));
    assert!(matches!(net.deliveries()[..], [(1, Delivery { hops: 1, repeated: false, .. })]));
}

#[test]
fn fifty_nodes_form_one_ring_and_each_message_finds_its_root() {
    let mut net = Net::ring(50);
    net.run(Duration::from_secs(5));
    net.assert_one_ring();
    for i in 0..100u64 {
        let key = Key::hash(&i.to_be_bytes());
        net.route((i % 50) as usize, key, "x");
        net.run(Duration::from_millis(50));
        let root = net.true_root(key);
        assert!(matches!(net.deliveries()[..], [(slot, _)] if slot == root), "message {i}");
    }
}

#[test]
fn concurrent_joiners_of_one_gap_do_not_split_the_ring() {
    // Lu, Merz & Weidenbach 2011: two joiners between the same two nodes, at the same instant.
    let mut net = Net::ring(2);
    for _ in 0..20 {
        net.join(Some(0), Config::default());
    }
    for _ in 0..2000 {
        net.run(Duration::from_millis(5));
        for i in 0..20u64 {
            let key = Key::hash(&i.to_le_bytes());
            assert!(net.claimants(key).len() <= 1, "{key} has several roots at {}", net.now);
        }
    }
    assert_eq!(net.ready().len(), 22);
    net.assert_one_ring();
}

#[test]
fn nobodys_table_holds_a_node_that_is_not_ready() {
    let mut net = Net::ring(5);
    for _ in 0..5 {
        net.join(Some(0), Config::default());
    }
    for _ in 0..200 {
        net.run(DELAY);
        let node_state: BTreeMap<NodeId, NodeState> =
            net.live().map(|(_, node)| (node.peer().id, node.node_state())).collect();
        for (_, node) in net.live().filter(|(_, node)| node.node_state() == NodeState::Ready) {
            for peer in node.leaf_set().iter().chain(node.routing_table().iter()) {
                assert_eq!(node_state[&peer.id], NodeState::Ready, "{:?} at {}", peer.id, net.now);
            }
        }
    }
}

#[test]
fn a_dead_node_is_found_and_its_range_is_taken_over_after_its_lease() {
    let mut net = Net::ring(10);
    net.run(Duration::from_secs(10));
    let dead = net.kill(4);
    let key = dead.id.key();
    let heir = net.true_root(key);
    let mut unclaimed = Duration::ZERO;
    while net.claimants(key).is_empty() {
        net.run(Duration::from_millis(100));
        unclaimed += Duration::from_millis(100);
        assert!(unclaimed < Duration::from_secs(6), "never taken over");
    }
    assert!(unclaimed <= Duration::from_secs(5), "default profile: at most 5 s, was {unclaimed:?}");
    assert_eq!(net.claimants(key), [heir]);
    net.run(Duration::from_secs(30));
    net.assert_one_ring();
    assert!(net.live().all(|(_, node)| !node.leaf_set().contains(dead.id)), "all have closed the gap");
}

#[test]
fn a_message_to_a_dead_root_reaches_its_heir() {
    let mut net = Net::ring(10);
    net.run(Duration::from_secs(10));
    let dead = net.kill(4);
    let key = dead.id.key();
    net.route(1, key, "for the heir");
    net.run(Duration::from_secs(10));
    let heir = net.true_root(key);
    // Dialling the dead was refused: it cannot have had it.
    assert!(matches!(net.deliveries()[..], [(slot, Delivery { repeated: false, .. })] if slot == heir));
}

#[test]
fn a_message_that_a_broken_connection_may_have_carried_is_marked() {
    let mut net = Net::ring(10);
    net.run(Duration::from_secs(10));
    let dead = net.kill(4);
    net.route(1, dead.id.key(), "for the heir");
    let now = net.now;
    net.node(1).handle_link(now, Link::Down { peer: dead.id, generation: 1 });
    net.run(Duration::from_secs(10));
    let heir = net.true_root(dead.id.key());
    // The dead one may have had it: the layer above hears of that.
    assert!(matches!(net.deliveries()[..], [(slot, Delivery { repeated: true, .. })] if slot == heir));
}

#[test]
fn a_paused_node_answers_nothing_when_it_wakes() {
    let mut net = Net::ring(10);
    net.run(Duration::from_secs(5));
    // The node is away from everybody for longer than its lease, and does not know it.
    let key = net.nodes[3].as_ref().unwrap().peer().id.key();
    let sleeper = net.nodes[3].take();
    net.run(Duration::from_secs(20));
    let heir = net.claimants(key);
    assert_eq!(heir.len(), 1);
    net.nodes[3] = sleeper;
    let now = net.now;
    net.node(3).handle_timeout(now);
    assert_eq!(net.claimants(key), heir, "its leases are over before it does anything");
    net.run(Duration::from_secs(40));
    net.assert_one_ring();
    assert_eq!(net.claimants(key), [3], "it is back in its place");
}

#[test]
fn a_leaver_is_gone_at_once() {
    let mut net = Net::ring(10);
    net.run(Duration::from_secs(5));
    let key = net.nodes[2].as_ref().unwrap().peer().id.key();
    net.command(2, Command::Leave);
    assert!(net.events.iter().any(|(slot, event)| *slot == 2 && matches!(event, Event::Left)));
    net.run(Duration::from_millis(100));
    net.nodes[2] = None;
    assert_eq!(net.claimants(key), [net.true_root(key)]);
}

#[test]
fn a_restarted_node_takes_its_place_again() {
    let mut net = Net::ring(6);
    net.run(Duration::from_secs(5));
    let old = net.kill(3);
    let again = Peer { incarnation: 2, addr: Addr::Memory(6), ..old };
    let join = vec![Seed::from(Addr::Memory(0))];
    net.start(again, Config::default(), Bootstrap { join, ..Bootstrap::default() });
    net.run(Duration::from_secs(20));
    assert_eq!(net.ready().len(), 6);
    net.assert_one_ring();
}

#[test]
fn the_older_of_two_lives_stops() {
    let mut net = Net::ring(6);
    let twin = Peer { incarnation: 2, addr: Addr::Memory(6), ..peer_at(3) };
    let join = vec![Seed::from(Addr::Memory(0))];
    net.start(twin, Config::default(), Bootstrap { join, ..Bootstrap::default() });
    net.run(Duration::from_secs(60));
    assert!(
        net.events.iter().any(|(slot, event)| *slot == 3 && matches!(event, Event::Superseded { by: 2 }))
    );
    assert_eq!(net.ready().len(), 6);
}

#[test]
fn nodes_that_start_in_the_same_instant_find_each_other() {
    let mut net = Net::empty();
    for slot in 0..3 {
        let local = (0..3).map(|slot| Seed::from(Addr::Memory(slot))).collect();
        net.start(peer_at(slot), Config::default(), Bootstrap { local, ..Bootstrap::default() });
    }
    net.run(Duration::from_secs(5));
    assert_eq!(net.ready().len(), 3);
    net.assert_one_ring();
    let alone = net.events.iter().filter(|(_, event)| matches!(event, Event::Ready { alone: true }));
    assert_eq!(alone.count(), 1);
}

#[test]
fn rings_that_could_not_see_each_other_merge() {
    let mut net = Net::empty();
    net.cut = Box::new(|_, _| true);
    for slot in 0..2 {
        let local = (0..2).map(|slot| Seed::from(Addr::Memory(slot))).collect();
        net.start(peer_at(slot), Config::default(), Bootstrap { local, ..Bootstrap::default() });
    }
    net.run(Duration::from_secs(5));
    let alone = net.events.iter().filter(|(_, event)| matches!(event, Event::Ready { alone: true }));
    assert_eq!(alone.count(), 2, "each is the first of its own ring");
    net.cut = Box::new(|_, _| false);
    net.run(Duration::from_secs(10));
    net.assert_one_ring();
    assert!(net.live().all(|(_, node)| node.leaf_set().len() == 1));
}

#[test]
fn a_start_that_reaches_nobody_says_so() {
    let mut net = Net::empty();
    let join = vec![Seed::from(Addr::Memory(9))];
    net.start(peer_at(0), Config::default(), Bootstrap { join, ..Bootstrap::default() });
    net.run(Duration::from_secs(10));
    let [(0, Event::StartFailed(error))] = &net.events[..] else { panic!("{:?}", net.events) };
    assert_eq!(error.to_string(), "no node to join: mem:9 cannot be reached (nobody listens)");
}

#[test]
fn who_is_silent_is_waited_for_longer_than_who_is_not_there() {
    let mut net = Net::ring(3);
    net.cut = Box::new(|from, to| from == 3 || to == 3);
    net.join(Some(0), Config::default());
    net.run(Duration::from_secs(8));
    net.cut = Box::new(|_, _| false);
    net.run(Duration::from_secs(5));
    assert_eq!(net.ready().len(), 4, "{:?}", net.events);
}

#[test]
fn the_layer_above_owns_messages_in_transit() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(2));
    // An edge's message to the other node passes through its access node.
    let edge = net.join(Some(0), Config { role: Role::Edge { promote_after: None }, ..Config::default() });
    net.cut = Box::new(move |a, b| a == edge && b == 1 || a == 1 && b == edge);
    net.run(Duration::from_secs(1));
    let key = net.nodes[1].as_ref().unwrap().peer().id.key();
    net.route(edge, key, "stop me");
    net.run(Duration::from_secs(2));
    let at = net.events.iter().position(|(_, event)| matches!(event, Event::Forward(_))).unwrap();
    let (0, Event::Forward(transit)) = net.events.remove(at) else { panic!("not at the access node") };
    assert!(net.deliveries().is_empty(), "it waits for its owner");
    assert_eq!((transit.key(), transit.previous.id), (key, peer_at(edge).id));
    let now = net.now;
    net.node(0).resume(now, Transit { payload: Bytes::from_static(b"changed"), ..transit });
    net.drain(0);
    net.run(Duration::from_secs(1));
    assert!(matches!(&net.deliveries()[..], [(1, delivery)] if delivery.payload == "changed"));
}

#[test]
fn a_trace_names_each_hop() {
    let mut net = Net::ring(60);
    net.run(Duration::from_secs(60));
    let key = Key::hash(b"far away");
    net.command(0, Command::Lookup { token: 5, key, trace: true });
    net.run(Duration::from_secs(1));
    let found = net.events.iter().find_map(|(_, event)| match event {
        Event::Found { token: 5, found } => Some(found.clone()),
        _ => None,
    });
    let Found { root, hops, path, .. } = found.unwrap();
    let path = path.unwrap();
    assert_eq!(root.id, peer_at(net.true_root(key)).id);
    assert_eq!(path.len(), usize::from(hops) + 1);
    assert_eq!((path[0].node, path.last().unwrap().node), (peer_at(0).id, root.id));
    assert!(path.iter().all(|hop| usize::from(hop.matched) == key.shared_prefix(hop.node)));
    assert!(path[..path.len() - 1].iter().all(|hop| hop.rtt_micros == Some(2000)));
}

#[test]
fn a_broadcast_reaches_every_node_once() {
    let mut net = Net::ring(70);
    net.run(Duration::from_secs(60));
    net.command(5, Command::Broadcast { token: 1, payload: Bytes::from_static(b"all") });
    net.run(Duration::from_secs(1));
    let mut reached = net.reached();
    reached.sort_unstable();
    assert_eq!(reached, (0..70).filter(|&slot| slot != 5).collect::<Vec<_>>());
}

#[test]
fn a_broadcast_reaches_edges_and_comes_from_them_once() {
    let mut net = Net::ring(8);
    net.run(Duration::from_secs(2));
    let role = Role::Edge { promote_after: None };
    let edges = [0, 3].map(|through| net.join(Some(through), Config { role, ..Config::default() }));
    net.run(Duration::from_secs(3));
    for origin in [2, edges[0]] {
        net.events.clear();
        net.command(origin, Command::Broadcast { token: 7, payload: Bytes::from_static(b"all") });
        net.run(Duration::from_secs(1));
        let mut reached = net.reached();
        reached.sort_unstable();
        assert_eq!(reached, (0..10).filter(|&slot| slot != origin).collect::<Vec<_>>());
        assert_eq!(net.ended(origin), [(7, Ok(()))]);
    }
}

#[test]
fn a_broadcast_that_leaves_nobody_is_no_silent_loss() {
    let mut net = Net::ring(2);
    let role = Role::Edge { promote_after: None };
    let edge = net.join(Some(0), Config { role, ..Config::default() });
    net.run(Duration::from_secs(3));
    let all = |token| Command::Broadcast { token, payload: Bytes::from_static(b"all") };
    // Both access nodes fall silent, which the edge finds out later.
    net.cut = Box::new(move |from, _| from != edge);
    net.command(edge, all(1));
    net.run(Duration::from_secs(120));
    assert_eq!(net.ended(edge), [(1, Err(BroadcastFailure::NotAcknowledged))]);
    net.events.clear();
    net.command(edge, all(2));
    assert_eq!(net.ended(edge), [(2, Err(BroadcastFailure::NotReady))]);
    let mut alone = Net::ring(1);
    alone.command(0, all(3));
    assert_eq!(alone.ended(0), [(3, Err(BroadcastFailure::Alone))]);
}

#[test]
fn an_edges_broadcast_outlives_its_access_node() {
    let mut net = Net::ring(5);
    net.run(Duration::from_secs(2));
    let role = Role::Edge { promote_after: None };
    let edge = net.join(Some(0), Config { role, ..Config::default() });
    net.run(Duration::from_secs(3));
    let access = slot_of(net.node(edge).contact().via.unwrap().addr);
    net.kill(access);
    net.command(edge, Command::Broadcast { token: 1, payload: Bytes::from_static(b"all") });
    net.run(Duration::from_secs(60));
    assert_eq!(net.ended(edge), [(1, Ok(()))]);
    assert_eq!(net.reached().len(), 4);
}

#[test]
fn a_broadcast_goes_round_the_dead() {
    let mut net = Net::ring(40);
    net.run(Duration::from_secs(60));
    for slot in [7, 11, 20, 33] {
        net.kill(slot);
    }
    net.command(5, Command::Broadcast { token: 1, payload: Bytes::from_static(b"all") });
    net.run(Duration::from_secs(10));
    let reached = net.reached();
    let once: BTreeSet<usize> = reached.iter().copied().collect();
    assert_eq!((reached.len(), once.len()), (35, 35));
    assert_eq!(net.ended(5), [(1, Ok(()))]);
}

#[test]
fn an_edge_loses_one_access_node_and_uses_the_other() {
    let mut net = Net::ring(5);
    net.run(Duration::from_secs(2));
    let edge = net.join(Some(0), Config { role: Role::Edge { promote_after: None }, ..Config::default() });
    net.run(Duration::from_secs(3));
    assert_eq!(net.node(edge).node_state(), NodeState::Edge);
    let first = net.node(edge).contact().via.unwrap();
    assert!(net.live().all(|(_, node)| !node.leaf_set().contains(peer_at(edge).id)), "it is on no ring");
    net.kill(slot_of(first.addr));
    net.run(Duration::from_secs(6));
    let second = net.node(edge).contact().via.unwrap();
    assert_ne!(first.id, second.id);
    assert!(
        net.events.iter().any(|(slot, event)| *slot == edge && matches!(event, Event::ContactChanged(_)))
    );
    let key = Key::hash(b"still there");
    net.route(edge, key, "x");
    net.run(Duration::from_secs(1));
    let root = net.true_root(key);
    assert!(matches!(net.deliveries()[..], [(slot, _)] if slot == root));
}

#[test]
fn letters_reach_an_edge_through_its_access_node() {
    let mut net = Net::ring(3);
    net.run(Duration::from_secs(2));
    let edge = net.join(Some(0), Config { role: Role::Edge { promote_after: None }, ..Config::default() });
    net.cut = Box::new(move |a, b| a == edge && b == 1 || a == 1 && b == edge);
    net.run(Duration::from_secs(2));
    let contact = net.node(edge).contact();
    let now = net.now;
    net.node(1).send(now, &contact, Bytes::from_static(b"hello edge"), Class::Data);
    net.drain(1);
    net.run(Duration::from_secs(1));
    let sender = net.node(1).contact();
    assert!(net.events.iter().any(|(slot, event)| *slot == edge
        && matches!(event, Event::Received { from, payload } if *from == sender && payload == "hello edge")));
    let now = net.now;
    net.node(edge).send(now, &sender, Bytes::from_static(b"hello ring"), Class::Control);
    net.drain(edge);
    net.run(Duration::from_secs(1));
    assert!(net.events.iter().any(|(slot, event)| *slot == 1
        && matches!(event, Event::Received { from, payload } if *from == contact && payload == "hello ring")));
}

#[test]
fn an_edge_shows_newcomers_to_its_ring() {
    let mut net = Net::ring(2);
    let edge = net.join(Some(0), Config { role: Role::Edge { promote_after: None }, ..Config::default() });
    net.run(Duration::from_secs(2));
    let newcomer = net.join(Some(edge), Config::default());
    net.run(Duration::from_secs(5));
    assert_eq!(net.ready(), [0, 1, newcomer]);
}

#[test]
fn a_long_lived_edge_without_a_ring_becomes_one() {
    let mut net = Net::ring(1);
    let role = Role::Edge { promote_after: Some(Duration::from_secs(5)) };
    let edge = net.join(Some(0), Config { role, ..Config::default() });
    net.run(Duration::from_secs(2));
    assert_eq!(net.node(edge).node_state(), NodeState::Edge);
    net.kill(0);
    net.run(Duration::from_secs(20));
    assert_eq!(net.node(edge).node_state(), NodeState::Ready);
    assert_eq!(net.claimants(Key(0)), [edge]);
}

#[test]
fn lossy_wires_lose_no_lookup() {
    let mut net = Net::ring(30);
    net.run(Duration::from_secs(30));
    let lost = std::cell::Cell::new(0u64);
    net.cut = Box::new(move |_, _| {
        // One frame in five, by a small generator of its own.
        lost.set(lost.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        (lost.get() >> 33).is_multiple_of(5)
    });
    for i in 0..100 {
        net.command(i % 30, Command::Lookup { token: i as u64, key: Key::hash(&[i as u8]), trace: false });
        net.run(Duration::from_millis(300));
    }
    net.run(Duration::from_secs(60));
    let found: BTreeSet<u64> = net
        .events
        .iter()
        .filter_map(|(_, event)| match event {
            Event::Found { token, found } => {
                let truth = peer_at(net.true_root(Key::hash(&[*token as u8]))).id;
                assert_eq!(found.root.id, truth);
                Some(*token)
            }
            _ => None,
        })
        .collect();
    assert_eq!(found.len(), 100);
}

//! Stories of peers that lie, and of words that come too late.

use super::*;
use crate::sides::Sides;
use crate::wire::Probe;

/// A node that says whatever a story wants; it runs no code of ours.
pub(super) fn stranger(seed: u64) -> Peer {
    Peer { id: NodeId(Key::hash(&seed.to_le_bytes()).0), incarnation: 5, addr: Addr::Memory(900) }
}

impl Net {
    /// A frame arrives at a node; gives what it sends in return.
    pub(super) fn hand(&mut self, slot: usize, from: Peer, header: Header) -> Vec<Transmit> {
        let now = self.now;
        let node = self.node(slot);
        node.handle_frame(now, from, header.into());
        node.take_sent(now).collect()
    }
}

fn probe(node_state: NodeState) -> Header {
    Header::Probe(Probe { number: 1, node_state, lease: Sides::None, leaf_set: false })
}

#[test]
fn a_late_probe_does_not_bring_back_who_has_left() {
    let mut net = Net::ring(6);
    net.run(Duration::from_secs(5));
    let left = net.node(2).peer();
    net.command(2, Command::Leave);
    net.nodes[2] = None;
    net.run(Duration::from_millis(100));
    net.hand(0, left, probe(NodeState::Ready));
    assert!(!net.node(0).leaf_set().contains(left.id), "it has left");
    net.hand(0, Peer { incarnation: 2, ..left }, probe(NodeState::Ready));
    assert!(net.node(0).leaf_set().contains(left.id), "another life of it has not");
}

#[test]
fn a_slot_is_not_freed_by_the_last_words_of_an_earlier_life() {
    let mut net = Net::ring(1);
    let joiner = stranger(1);
    let earlier = Peer { incarnation: 4, ..joiner };
    net.hand(0, joiner, Header::JoinRequest);
    let answers = net.hand(0, earlier, Header::Leave { members: Vec::new() });
    assert_eq!(answers[0].frame.header, Header::Outdated(joiner));
    let busy = Header::Admission(crate::wire::Admission::Busy);
    assert_eq!(net.hand(0, stranger(2), Header::JoinRequest)[0].frame.header, busy);
}

#[test]
fn a_hint_of_a_later_life_silences_nobody() {
    let mut net = Net::ring(6);
    net.run(Duration::from_secs(5));
    let liar = net.node(1).peer();
    let victim = stranger(3);
    let made_up = Peer { incarnation: u64::MAX, addr: Addr::Memory(901), ..victim };
    let asked = net.hand(0, liar, Header::LeafSet { members: vec![made_up], reply: false });
    assert!(asked.iter().any(|sent| sent.to == Destination::Peer(made_up)), "the hint is worth a probe");
    let answers = net.hand(0, victim, probe(NodeState::Joining));
    assert!(matches!(answers[0].frame.header, Header::ProbeAck(_)), "{answers:?}");
}

#[test]
fn who_gives_up_joining_gives_its_slots_back() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(2));
    let joiner = net.join(Some(0), Config::default());
    let id = net.node(joiner).peer().id;
    while (0..2).all(|slot| net.node(slot).slots.joiner(id).is_none()) {
        net.run(DELAY / 2);
    }
    net.run(DELAY);
    let now = net.now;
    net.node(joiner).handle_command(now, Command::Leave);
    let node = net.node(joiner);
    let told: Vec<Header> = node.take_sent(now).map(|sent| sent.frame.header).collect();
    assert!(told.iter().any(|header| matches!(header, Header::JoinAbort { .. })), "{told:?}");
}

#[test]
fn a_question_that_is_asked_again_waits_once() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(2));
    let other = net.kill(1);
    net.command(0, Command::Lookup { token: 1, key: other.id.key(), trace: false });
    // Its heir may not answer before the lease of the dead ends, and the origin asks every three seconds.
    net.cut = Box::new(|_, _| true);
    let now = net.now;
    net.node(0).leases.grant_for(now, other.id, Sides::Both, Duration::from_secs(60));
    net.run(Duration::from_secs(9));
    assert_eq!(net.node(0).hops.parked(), 1);
}

#[test]
fn claims_of_a_twin_make_nobody_dial_the_world() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(2));
    let (me, liar) = (net.node(0).peer(), net.node(1).peer());
    let twin = |slot| Peer { incarnation: 9, addr: Addr::Memory(1000 + slot), ..me };
    let members = (0..crate::wire::MAX_PEERS as u32).map(twin).collect();
    let sent = net.hand(0, liar, Header::LeafSet { members, reply: false });
    let dialled = sent.iter().filter(|sent| matches!(sent.to, Destination::Seed(_))).count();
    assert_eq!(dialled, 1);
}

fn an_edge() -> Config {
    Config { role: Role::Edge { promote_after: None }, ..Config::default() }
}

#[test]
fn nobody_makes_itself_an_access_node_unasked() {
    let mut net = Net::ring(1);
    let edge = net.join(Some(0), an_edge());
    net.run(Duration::from_secs(2));
    let answers = net.hand(edge, stranger(4), Header::Attached { accepted: true, members: Vec::new() });
    assert_eq!(answers[0].frame.header, Header::Detach);
    assert_eq!(net.node(edge).peers(), [net.node(0).peer()]);
}

#[test]
fn an_edge_takes_an_answer_that_comes_late() {
    let mut net = Net::ring(1);
    let edge = net.join(Some(0), an_edge());
    let access = net.node(0).peer();
    while !net.node(edge).join.is_attaching() {
        net.run(DELAY);
    }
    net.cut = Box::new(|_, _| true);
    while net.node(edge).join.is_attaching() {
        net.run(DELAY);
    }
    net.hand(edge, access, Header::Attached { accepted: true, members: Vec::new() });
    assert_eq!(net.node(edge).node_state(), NodeState::Edge);
}

#[test]
fn who_enters_a_table_by_a_probe_is_measured_already() {
    let mut net = Net::ring(2);
    let (liar, newcomer) = (net.node(1).peer(), stranger(5));
    let asked = net.hand(0, liar, Header::LeafSet { members: vec![newcomer], reply: false });
    let number = asked.iter().find_map(|sent| match sent.frame.header {
        Header::Probe(probe) if sent.to == Destination::Peer(newcomer) => Some(probe.number),
        _ => None,
    });
    net.now = net.now + Duration::from_millis(7);
    let node_state = NodeState::Ready;
    let number = number.unwrap();
    let ack = crate::wire::ProbeAck { number, node_state, lease: Sides::None, asks: None, leaf_set: None };
    net.hand(0, newcomer, Header::ProbeAck(ack));
    assert_eq!(net.node(0).routing_table().rtt(newcomer.id), Some(Duration::from_millis(7)));
}

#[test]
fn large_messages_that_nobody_takes_over_fill_no_more_memory_than_they_may() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(2));
    let (me, other) = (net.node(0).peer(), net.node(1).peer());
    let payload = Bytes::from(vec![0; 1024 * 1024]);
    let now = net.now;
    for hop in 1000..1100 {
        let routed = net.node(0).new_routed(hop, other.id.key(), crate::wire::Purpose::Application, false);
        let routed = crate::wire::Routed { hop, origin: other.into(), ..routed };
        let frame = Frame::new(Header::Routed(routed), payload.clone());
        net.node(0).handle_frame(now, other, frame);
        net.drain(0);
    }
    net.node(0).assert_invariants();
    assert_eq!(net.node(0).hops.pending(), 64);
    let refused = |header: &Header| matches!(header, Header::Direct(Direct::Undeliverable { .. }));
    assert_eq!(net.on_the_way().filter(|(from, _, frame)| *from == me && refused(&frame.header)).count(), 36);
}

#[test]
fn nobody_speaks_in_the_name_of_a_node_of_the_ring() {
    let mut net = Net::ring(3);
    net.run(Duration::from_secs(2));
    let (to, liar, victim) = (net.node(0).contact(), net.node(1).peer(), net.node(2).peer());
    let direct = Direct::Payload;
    for (speaker, heard) in [(victim, 0), (stranger(6), 1)] {
        let from = Contact { peer: speaker, via: Some(liar) };
        net.hand(0, liar, Header::RelayedDirect { to: to.into(), from: from.into(), direct: direct.clone() });
        net.drain(0);
        let received =
            |(_, event): &(usize, Event)| matches!(event, Event::Received { from: f, .. } if *f == from);
        assert_eq!(net.events.iter().filter(|event| received(event)).count(), heard);
    }
}

/// The hops among what was sent, and where to.
fn hops(sent: impl IntoIterator<Item = Transmit>) -> Vec<(Peer, u64)> {
    let hop = |sent: Transmit| match (sent.to, sent.frame.header) {
        (Destination::Peer(to), Header::Routed(routed)) => Some((to, routed.hop)),
        (Destination::Peer(_) | Destination::Seed(_), _) => None,
    };
    sent.into_iter().filter_map(hop).collect()
}

#[test]
fn a_refused_hop_goes_another_way_at_once() {
    let mut net = Net::ring(20);
    net.run(Duration::from_secs(5));
    let (now, key) = (net.now, Key(net.node(0).peer().id.key().0 ^ (1 << 127)));
    let node = net.node(0);
    node.route(now, key, Bytes::from_static(b"on its way"));
    let [(first, hop)] = hops(node.take_sent(now))[..] else { panic!("one hop") };
    assert!(hops(net.hand(0, stranger(1), Header::HopRefused { hop })).is_empty(), "no hop of a stranger's");
    let [(second, next)] = hops(net.hand(0, first, Header::HopRefused { hop }))[..] else {
        panic!("one hop")
    };
    assert!(second != first && next != hop);
    assert!(hops(net.hand(0, first, Header::HopRefused { hop })).is_empty(), "once");
}

#[test]
fn an_edge_that_knows_no_other_way_does_not_repeat_a_refused_hop() {
    let mut net = Net::ring(1);
    let (edge, access) = (net.join(Some(0), an_edge()), net.node(0).peer());
    net.run(Duration::from_secs(5));
    let now = net.now;
    let node = net.node(edge);
    assert_eq!(node.node_state(), NodeState::Edge);
    node.route(now, Key(1), Bytes::from_static(b"on its way"));
    let [(to, hop)] = hops(node.take_sent(now))[..] else { panic!("one hop") };
    assert_eq!(to, access);
    assert_eq!(hops(net.hand(edge, access, Header::HopRefused { hop })), [], "its time-out decides");
    assert_eq!(net.node(edge).hops.pending(), 1);
}

#[test]
fn a_node_on_its_way_onto_the_ring_refuses_hops() {
    let mut net = Net::ring(3);
    let joiner = net.join(Some(0), Config::default());
    let me = net.node(0).peer();
    let routed = net.node(0).new_routed(7, Key(1), crate::wire::Purpose::Lookup, false);
    let sent = net.hand(joiner, me, Header::Routed(crate::wire::Routed { hop: 7, ..routed }));
    assert!(sent.iter().any(|sent| sent.frame.header == Header::HopRefused { hop: 7 }), "{sent:?}");
}

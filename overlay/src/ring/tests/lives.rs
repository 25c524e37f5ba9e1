//! Stories of nodes that restart, as the layer above hears of them.

use super::*;
use crate::wire;

impl Net {
    /// What a slot's node told of this peer's lives: the incarnation that is over, or the one that began.
    fn lives(&self, slot: usize, id: NodeId) -> Vec<Result<u64, u64>> {
        let told = |(by, event): &(usize, Event)| match event {
            Event::PeerDown { id: of, incarnation } if *of == id && *by == slot => Some(Err(*incarnation)),
            Event::PeerRestarted(peer) if peer.id == id && *by == slot => Some(Ok(peer.incarnation)),
            _ => None,
        };
        self.events.iter().filter_map(told).collect()
    }

    fn restart(&mut self, slot: usize, incarnation: u64, through: usize) {
        let join = vec![Seed::from(Addr::Memory(through as u32))];
        let peer = Peer { incarnation, ..peer_at(slot) };
        self.revive(slot, peer, Bootstrap { join, ..Bootstrap::default() });
    }

    fn hear(&mut self, slot: usize, from: Peer, header: Header) {
        let (now, payload) = (self.now, Bytes::new());
        self.node(slot).handle_frame(now, from, Frame::new(header, payload));
        self.drain(slot);
    }
}

fn message() -> Header {
    Header::Direct(Direct::Payload)
}

#[test]
fn a_node_that_restarts_at_once_is_told_by_those_that_have_it_in_a_table() {
    let mut net = Net::ring(20);
    net.run(Duration::from_secs(10));
    net.events.clear();
    let old = net.kill(4);
    net.restart(4, 2, 0);
    net.run(Duration::from_secs(10));
    let others: Vec<usize> = (0..20).filter(|slot| *slot != 4).collect();
    for slot in others {
        assert_eq!(net.lives(slot, old.id), [Err(1), Ok(2)], "slot {slot}");
    }
}

#[test]
fn a_node_that_was_found_dead_before_it_restarts_is_told_once_more() {
    let mut net = Net::ring(12);
    net.run(Duration::from_secs(10));
    net.events.clear();
    let old = net.kill(4);
    net.run(Duration::from_secs(20));
    assert_eq!(net.lives(0, old.id), [Err(1)]);
    net.restart(4, 2, 0);
    net.run(Duration::from_secs(20));
    assert_eq!(net.lives(0, old.id), [Err(1), Ok(2)]);
}

#[test]
fn a_node_in_no_table_that_has_sent_messages_is_told_when_it_restarts() {
    let mut net = Net::ring(3);
    let (stranger, silent) = (peer_at(77), peer_at(78));
    let later = |peer: Peer| Peer { incarnation: 5, ..peer };
    net.hear(0, stranger, message());
    net.hear(0, silent, Header::HopAck { hop: 1 });
    net.events.clear();
    for peer in [stranger, silent] {
        net.hear(0, later(peer), Header::HopAck { hop: 2 });
        net.hear(0, later(peer), message());
    }
    assert_eq!(net.lives(0, stranger.id), [Err(1), Ok(5)]);
    assert_eq!(net.lives(0, silent.id), [], "the layer above has never heard of it");
}

#[test]
fn what_another_node_passes_on_restarts_no_stranger() {
    let mut net = Net::ring(3);
    let stranger = peer_at(77);
    net.hear(0, stranger, message());
    let (me, relay) = (peer_at(0), peer_at(1));
    let inner = wire::encode(&message().into()).head;
    let lie = Peer { incarnation: 9, ..stranger };
    let now = net.now;
    net.events.clear();
    net.node(0).handle_frame(
        now,
        relay,
        Frame::new(Header::Via { to: me, from: lie, class: Class::Control }, inner),
    );
    net.drain(0);
    assert_eq!(net.lives(0, stranger.id), []);
    net.hear(0, Peer { incarnation: 2, ..stranger }, message());
    assert_eq!(net.lives(0, stranger.id), [Err(1), Ok(2)], "it says so itself");
}

#[test]
fn an_edge_that_restarts_is_told_at_its_access_node() {
    let mut net = Net::ring(3);
    let edge = peer_at(77);
    net.hear(0, edge, Header::Attach);
    net.hear(0, edge, Header::Attach);
    assert_eq!(net.lives(0, edge.id), []);
    net.hear(0, Peer { incarnation: 2, ..edge }, Header::Attach);
    assert_eq!(net.lives(0, edge.id), [Err(1), Ok(2)]);
    net.hear(0, Peer { incarnation: 2, ..edge }, Header::Detach);
    assert_eq!(net.lives(0, edge.id), [Err(1), Ok(2), Err(2)]);
}

//! Stories of nearness: who is measured, who is not, and who is in too many tables.

use super::*;
use crate::wire::{Known, Near};

fn stranger(seed: u64) -> Peer {
    Peer { id: NodeId(Key::hash(&seed.to_le_bytes()).0), incarnation: 5, addr: Addr::Memory(900) }
}

fn near(rtt_micros: u32, known: Vec<Known>) -> Near {
    Near { rtt_micros: Some(rtt_micros), known, row: None, crowded: false }
}

impl Net {
    /// A frame about nearness arrives at the first node; gives what it sends in return.
    fn tell(&mut self, from: Peer, near: Near) -> Vec<Header> {
        let now = self.now;
        let node = self.node(0);
        node.handle_frame(now, from, Header::Near(near).into());
        let sent = std::iter::from_fn(|| node.poll_transmit());
        // (Heartbeats that happen to be due are none of this story's business.)
        let about = |sent: &Transmit| {
            !matches!(sent.frame.header, Header::Probe(_))
                || matches!(sent.to, Destination::Peer(to) if to.addr == Addr::Memory(900))
        };
        sent.filter(about).map(|transmit| transmit.frame.header).collect()
    }
}

/// A ring that is larger than a leaf set, so that nobody knows everybody.
fn ring() -> Net {
    let mut net = Net::ring(40);
    net.run(Duration::from_secs(100));
    net
}

/// A node of a slot of the first one's table that is full, and how far the farthest in there is.
fn rival(net: &mut Net) -> (Peer, u32) {
    let table = net.node(0).routing_table().clone();
    let full = |peer: &Peer| table.get(peer.id).is_none() && table.next_hops(peer.id.key()).len() == 3;
    let rival = (0..).map(stranger).find(full).unwrap();
    let farthest = table.next_hops(rival.id.key()).last().and_then(crate::table::Entry::rtt_micros);
    (rival, farthest.expect("a node that has settled has measured its entries"))
}

#[test]
fn only_who_promises_to_be_nearer_is_measured() {
    let mut net = ring();
    let (rival, farthest) = rival(&mut net);
    let friend = net.node(1).peer();
    let named = |rtt| vec![Known { peer: rival, rtt_micros: Some(rtt) }];
    let d = net.node(0).routing_table().rtt(friend.id).map_or(2000, |rtt| rtt.as_micros() as u32);
    assert!(net.tell(friend, near(d, named(d + farthest * 3))).is_empty(), "it can only be farther");
    let sent = net.tell(friend, near(d, named(100)));
    assert!(matches!(sent[..], [Header::Probe(_)]), "it may be nearer, {d} and {farthest} µs: {sent:?}");
}

#[test]
fn a_message_full_of_names_costs_a_few_probes() {
    let mut net = ring();
    let friend = net.node(1).peer();
    let known = (0..256).map(|seed| Known { peer: stranger(seed), rtt_micros: Some(1) }).collect();
    let sent = net.tell(friend, Near { row: Some(200), ..near(1, known) });
    let probes = sent.iter().filter(|header| matches!(header, Header::Probe(_))).count();
    assert!((1..=8).contains(&probes), "{probes} probes");
    assert!(!sent.iter().any(|header| matches!(header, Header::Near(_))), "there is no row 200");
}

#[test]
fn a_row_that_is_asked_for_comes_with_distances() {
    let mut net = ring();
    let friend = net.node(1).peer();
    let sent = net.tell(friend, Near { row: Some(0), ..near(2000, Vec::new()) });
    let Some(Header::Near(answer)) = sent.first() else { panic!("{sent:?}") };
    assert!(answer.known.len() > 15 && answer.row.is_none(), "{answer:?}");
    assert!(answer.known.iter().all(|known| known.rtt_micros.is_some() && known.peer.id != friend.id));
}

#[test]
fn who_is_in_too_many_tables_says_so_once() {
    let mut net = ring();
    assert!(net.tell(stranger(0), near(1_000_000, Vec::new())).is_empty());
    for seed in 1..400 {
        net.tell(stranger(seed), near(1_000_000, Vec::new()));
    }
    let sent = net.tell(stranger(400), near(1_000_000, Vec::new()));
    assert!(matches!(&sent[..], [Header::Near(near)] if near.crowded), "{sent:?}");
    let other = Near { crowded: true, ..near(1_000_000, Vec::new()) };
    assert!(net.tell(stranger(401), other).is_empty(), "two crowded ones do not talk for ever");
}

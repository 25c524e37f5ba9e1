//! Stories of nearness: which nodes are measured, which are not, and which are in too many tables.

use super::carried::announced;
use super::hostile::stranger;
use super::*;
use crate::geometry::pastry::{Known, Near, PastryFrame};
use crate::peer::Addresses;

/// The nodes that a frame names, if it is one that does.
fn near_in(header: &Header) -> Option<Near> {
    let Header::Geometry(frame) = header else { return None };
    match PastryFrame::decode(frame, Addresses::Any)? {
        PastryFrame::Near(near) => Some(near),
        PastryFrame::NearerRequest { .. } => None,
    }
}

fn near(rtt_micros: u32, known: Vec<Known>) -> Near {
    Near { rtt_micros: Some(rtt_micros), known, row: None, crowded: false }
}

impl Net {
    /// A frame about nearness arrives at the first node; gives what it sends in return.
    fn tell(&mut self, from: Peer, near: Near) -> Vec<Header> {
        let now = self.now;
        let node = self.node(0);
        node.handle_frame(now, from, PastryFrame::Near(near).encode().into());
        let sent = node.take_sent(now);
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
    assert!(!sent.iter().any(|header| near_in(header).is_some()), "there is no row 200");
}

#[test]
fn a_row_that_is_asked_for_comes_with_distances() {
    let mut net = ring();
    let friend = net.node(1).peer();
    let sent = net.tell(friend, Near { row: Some(0), ..near(2000, Vec::new()) });
    let answer = sent.first().and_then(near_in).expect("an answer");
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
    assert!(sent.len() == 1 && near_in(&sent[0]).is_some_and(|near| near.crowded), "{sent:?}");
    let other = Near { crowded: true, ..near(1_000_000, Vec::new()) };
    assert!(net.tell(stranger(401), other).is_empty(), "two crowded ones do not talk for ever");
}

#[test]
fn a_node_that_is_young_no_more_measures_who_may_become_the_nearest() {
    let mut net = ring();
    let (rival, _) = rival(&mut net);
    let friend = net.node(1).peer();
    let node = net.node(0);
    let slot: Vec<NodeId> =
        node.routing_table().next_hops(rival.id.key()).iter().map(|entry| entry.peer.id).collect();
    for (id, micros) in slot.into_iter().zip([1000, 5000, 9000]) {
        node.geometry.set_rtt(id, Duration::from_micros(micros));
    }
    // As far from the friend as this node is: from here half as far, most likely.
    let d = node.routing_table().rtt(friend.id).map_or(2000, |rtt| rtt.as_micros() as u32);
    assert!((1000..5000).contains(&(d / 2)), "nearer than the last one, not nearer than the first: {d}");
    let named = || near(d, vec![Known { peer: rival, rtt_micros: Some(d) }]);
    net.configure(0, |config| config.search.period_min = Duration::from_secs(1));
    assert!(net.tell(friend, named()).is_empty(), "spares come by themselves");
    // Another ring shows itself: a stranger stands next to this node.
    let beside = Peer { id: NodeId(net.node(0).peer().id.key().0.wrapping_add(1)), ..stranger(7) };
    net.hand(0, beside, announced());
    assert!(net.node(0).leaf_set().contains(beside.id));
    let sent = net.tell(friend, named());
    assert!(matches!(sent[..], [Header::Probe(_)]), "there is much to be found again: {sent:?}");
}

#[test]
fn an_answer_that_comes_late_measures_nothing() {
    for (wait, measures) in [(Duration::from_millis(900), true), (Duration::from_millis(1100), false)] {
        let mut net = ring();
        let now = net.now;
        let node = net.node(0);
        node.on_geometry_timer(now);
        let asked = node
            .take_sent(now)
            .find(|sent| near_in(&sent.frame.header).is_some_and(|near| near.row.is_some()));
        let Some(Transmit { to: Destination::Peer(friend), .. }) = asked else { panic!("{asked:?}") };
        let before = node.rtt(friend.id);
        net.now = now + wait;
        net.tell(friend, near(2000, Vec::new()));
        assert_eq!(net.node(0).rtt(friend.id) != before, measures, "{wait:?}");
    }
}

#[test]
fn rows_keep_to_the_budget() {
    let mut net = ring();
    let friend = net.node(1).peer();
    net.configure(0, |config| config.repair.bytes_per_second = 1);
    let answers = |net: &mut Net| {
        let sent = net.tell(friend, Near { row: Some(0), ..near(2000, Vec::new()) });
        sent.iter().filter(|header| near_in(header).is_some()).count()
    };
    assert_eq!(answers(&mut net), 1);
    assert_eq!(answers(&mut net), 0, "at a byte a second that was enough for long");
    // Questions of this node are left for later, too.
    let asks = |net: &mut Net| {
        let now = net.now;
        let node = net.node(0);
        node.on_geometry_timer(now);
        let sent = node.take_sent(now);
        sent.filter(|sent| near_in(&sent.frame.header).is_some_and(|near| near.row.is_some())).count()
    };
    assert_eq!(asks(&mut net), 0);
    net.now = net.now + Duration::from_secs(3600);
    assert_eq!(asks(&mut net), 1, "an hour later all is paid for");
}

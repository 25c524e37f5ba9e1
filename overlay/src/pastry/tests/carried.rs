//! Stories of leases that ride along with other frames, and of news that keep to a budget.

use super::*;
use crate::wire::{Ask, Grant, LeaseWords};

/// Frames sent by these two to each other from here on that are about leases alone.
fn renewals(net: &mut Net, pair: [usize; 2], mut talk: impl FnMut(&mut Net, u32)) -> usize {
    let mut seen = 0;
    for tick in 0..120 {
        talk(net, tick);
        net.run(Duration::from_millis(250));
        seen += net
            .wire_log
            .drain(..)
            .filter(|(from, to, frame)| {
                let between = pair.contains(&slot_of(from.addr)) && pair.contains(to);
                between && matches!(frame.header, Header::Probe(_) | Header::ProbeAck(_))
            })
            .count();
        for slot in pair {
            let (node, now) = (net.nodes[slot].as_ref().unwrap(), net.now);
            assert!(node.is_root_of(now, node.peer().id.key()), "no lease lapses");
        }
    }
    seen
}

fn say(net: &mut Net, from: usize, to: usize) {
    let (contact, now) = (peer_at(to).into(), net.now);
    net.node(from).send(now, &contact, Bytes::from_static(b"hi"));
    net.drain(from);
}

fn pair() -> Net {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(10));
    net.logs = true;
    net
}

#[test]
fn neighbours_that_talk_renew_their_leases_without_a_frame_of_their_own() {
    let silent = renewals(&mut pair(), [0, 1], |_, _| {});
    assert!(silent >= 30, "30 s at rest: three frames in each 3 s or less, {silent}");
    let talking = renewals(&mut pair(), [0, 1], |net, _| {
        say(net, 0, 1);
        say(net, 1, 0);
    });
    assert_eq!(talking, 0, "{talking} of {silent}");
    // Who never hears an answer asks for itself.
    let one_sided = renewals(&mut pair(), [0, 1], |net, _| say(net, 0, 1));
    assert!(0 < one_sided && one_sided <= silent, "{one_sided} of {silent}");
}

#[test]
fn a_message_and_its_acknowledgement_carry_a_lease_there_and_back() {
    let mut net = pair();
    net.run(Duration::from_millis(2000));
    let key = peer_at(1).id.key();
    let mut words = Vec::new();
    for token in 0..8 {
        let now = net.now;
        net.node(0).handle_command(now, Command::Lookup { token, key, trace: false });
        net.drain(0);
        net.run(Duration::from_millis(250));
        words.extend(net.wire_log.drain(..).filter_map(|(.., frame)| Some((frame.header, frame.words?))));
    }
    let asked =
        words.iter().find_map(|(header, words)| words.ask.filter(|_| matches!(header, Header::Routed(_))));
    let asked = asked.expect("a message on its way asks");
    let granted = words
        .iter()
        .find_map(|(header, words)| words.grant.filter(|_| matches!(header, Header::HopAck { .. })));
    assert_eq!(granted.map(|grant| (grant.number, grant.lease)), Some((asked.number, asked.lease)));
}

#[test]
fn a_lease_that_nobody_asked_for_or_that_comes_twice_counts_for_nothing() {
    let mut net = pair();
    let (now, from) = (net.now, peer_at(0));
    let before = net.node(1).held_until(from.id);
    let grant = |number| {
        let words = LeaseWords { ask: None, grant: Some(Grant { number, lease: Sides::Both }) };
        Frame { words: Some(Box::new(words)), ..Frame::from(Header::HopAck { hop: 1 }) }
    };
    for number in 0..200 {
        net.node(1).handle_frame(now, from, grant(number));
    }
    assert_eq!(net.node(1).held_until(from.id), before);
    // Nor does a stranger get one.
    let stranger = Peer { id: NodeId(7), ..peer_at(9) };
    let words = LeaseWords { ask: Some(Ask { number: 1, lease: Sides::Both }), grant: None };
    let frame = Frame { words: Some(Box::new(words)), ..Frame::from(Header::HopAck { hop: 1 }) };
    net.node(1).handle_frame(now, stranger, frame);
    let kept = net.node(1).sizes().into_iter().find(|(name, ..)| *name == "lease grants to ride");
    assert_eq!(kept.map(|(_, count, _)| count), Some(0));
}

#[test]
fn news_of_many_deaths_keep_to_the_budget_and_arrive_all_the_same() {
    let rate = 512;
    let mut net = Net::new();
    for slot in 0..24 {
        let config = Config { repair_rate: rate, ..Config::default() };
        net.join((slot > 0).then_some(0), config);
        net.run(Duration::from_millis(200));
    }
    net.run(Duration::from_secs(60));
    net.logs = true;
    for dead in [3, 5, 9, 14, 17, 20] {
        net.nodes[dead] = None;
    }
    let mut by_node: BTreeMap<usize, usize> = BTreeMap::new();
    let mut seconds = 0;
    while !net.live().all(|(_, node)| node.leaf_set().len() == 17) {
        net.run(Duration::from_secs(1));
        seconds += 1;
        assert!(seconds < 120, "all have heard of all by a round of repair at the latest");
        for (from, _, frame) in net.wire_log.drain(..) {
            if let Header::LeafSet { members, .. } = frame.header {
                *by_node.entry(slot_of(from.addr)).or_default() += members.len() * 32;
            }
        }
    }
    let most = by_node.values().max().copied().unwrap_or_default();
    let allowed = (seconds + 5) * rate as usize + 23 * 32;
    assert!(0 < most && most <= allowed, "{most} bytes in {seconds} s, {allowed} allowed");
}

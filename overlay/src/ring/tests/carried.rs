//! Stories of leases that ride along with other frames, and of news that keep to a budget.

use super::hostile::stranger;
use super::*;
use crate::wire::{Ask, Grant, LeasePiggyback, ProbeAck};

/// Frames sent by these two to each other from here on that are about leases alone.
fn renewals(net: &mut Net, pair: [usize; 2], mut talk: impl FnMut(&mut Net, u32)) -> usize {
    let mut seen = 0;
    for tick in 0..120 {
        talk(net, tick);
        net.run(Duration::from_millis(250));
        seen += net
            .log
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
    net.node(from).send(now, &contact, Bytes::from_static(b"hi"), Class::Data);
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
    // A node that never hears an answer asks for itself.
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
        words.extend(net.log.drain(..).filter_map(|(.., frame)| Some((frame.header, frame.piggyback?))));
    }
    let asked =
        words.iter().find_map(|(header, words)| words.ask.filter(|_| matches!(header, Header::Routed(_))));
    let asked = asked.expect("a message on its way asks");
    let granted = words
        .iter()
        .find_map(|(header, words)| words.grant.filter(|_| matches!(header, Header::HopAck { .. })));
    assert_eq!(granted.map(|grant| (grant.number, grant.lease)), Some((asked.number, asked.lease)));
}

/// A frame that says nothing but these words.
fn words(ask: Option<Ask>, grant: Option<Grant>) -> Frame {
    Frame {
        piggyback: Some(Box::new(LeasePiggyback { ask, grant })),
        ..Frame::from(Header::HopAck { hop: 1 })
    }
}

/// Node 1 has asked node 0 for leases by a frame of its own: what it asked, and when.
fn asked(net: &mut Net) -> (Ask, Instant) {
    loop {
        net.run(Duration::from_millis(50));
        net.log.clear();
        let now = net.now;
        net.node(1).handle_timeout(now);
        say(net, 1, 0);
        let ask = net.log.drain(..).find_map(|(.., frame)| frame.piggyback?.ask);
        if let Some(ask) = ask {
            return (ask, net.now);
        }
    }
}

fn grant(net: &mut Net, number: u64, lease: Sides) -> Option<Instant> {
    let (now, from) = (net.now, peer_at(0));
    net.node(1).handle_frame(now, from, words(None, Some(Grant { number, lease })));
    net.node(1).held_until(from.id)
}

#[test]
fn a_grant_counts_once_for_its_question_and_from_its_sending() {
    let mut net = pair();
    let (Ask { number, lease }, sent) = asked(&mut net);
    let before = net.node(1).held_until(peer_at(0).id);
    // Node 0 is not heard from here on, and grants by our hand.
    silence_from(&mut net, 0);
    net.run(Duration::from_millis(700));
    assert_eq!(grant(&mut net, number + 1, lease), before, "another question's");
    let until = grant(&mut net, number, lease);
    assert_eq!(
        until,
        Some(sent + net.node(1).core.config.leases.duration),
        "late, and counted from the sending"
    );
    assert!(until > before);
    net.run(Duration::from_millis(700));
    assert_eq!(grant(&mut net, number, lease), until, "a second time");
}

fn silence_from(net: &mut Net, slot: usize) {
    net.cut = Box::new(move |from, _| from == slot);
}

#[test]
fn a_grant_from_before_a_sleep_or_another_neighbour_is_void() {
    let mut slept = pair();
    let (Ask { number, lease }, sent) = asked(&mut slept);
    slept.now = sent + Duration::from_secs(5);
    assert_eq!(grant(&mut slept, number, lease), None, "asked before a sleep");

    // A node comes between the two, and goes again: what was asked when nobody stood there counts no more.
    let mut net = pair();
    let (Ask { number, lease }, _) = asked(&mut net);
    assert_eq!(lease, Sides::Both);
    silence_from(&mut net, 0);
    let me = peer_at(1).id.key();
    let between = Peer { id: NodeId(me.0.wrapping_add(1)), ..peer_at(9) };
    let now = net.now;
    let before = net.node(1).leases.clone();
    net.node(1).handle_frame(now, between, announced().into());
    assert!(net.node(1).leaf_set().contains(between.id));
    net.node(1).handle_frame(now, between, Header::Leave { members: Vec::new() }.into());
    assert!(!net.node(1).leaf_set().contains(between.id), "two nodes again");
    let kept = net.node(1).held_until(peer_at(0).id);
    assert!(before.holds(now, peer_at(0).id, Side::Left));
    assert_eq!(grant(&mut net, number, lease), kept, "nothing is revived");
}

/// The frames that a node on the ring sends.
pub(super) fn announced() -> Header {
    let (number, node_state) = (0, NodeState::Ready);
    Header::ProbeAck(ProbeAck { number, node_state, lease: Sides::None, asks: None, leaf_set: None })
}

#[test]
fn strangers_and_older_lives_get_no_lease() {
    let mut net = pair();
    let now = net.now;
    let ask = Some(Ask { number: 1, lease: Sides::Both });
    let owed = |net: &mut Net| {
        let sizes = net.node(1).sizes().into_iter();
        sizes
            .filter(|(name, ..)| *name == "lease grants to travel along")
            .map(|(_, count, _)| count)
            .sum::<usize>()
    };
    let older = Peer { incarnation: 0, ..peer_at(0) };
    for from in [Peer { id: NodeId(7), ..peer_at(9) }, older] {
        net.node(1).handle_frame(now, from, words(ask, None));
        assert_eq!(owed(&mut net), 0, "{from:?}");
    }
    net.node(1).handle_frame(now, peer_at(0), words(ask, None));
    assert_eq!(owed(&mut net), 1, "a neighbour gets one");
}

#[test]
fn leaf_sets_are_full_again_soon_after_a_death() {
    let mut net = Net::ring(60);
    net.run(Duration::from_secs(30));
    let far = net.now + Duration::from_secs(600);
    for node in net.nodes.iter_mut().flatten() {
        node.core.timers.set(Timer::Repair, far);
    }
    net.nodes[7] = None;
    net.run(Duration::from_secs(10));
    let short: Vec<usize> =
        net.live().filter(|(_, node)| node.leaf_set().len() < 32).map(|(slot, _)| slot).collect();
    assert!(short.is_empty(), "without a round of repair: {short:?}");
    assert!(net.live().all(|(_, node)| !node.leaf_set().contains(peer_at(7).id)));
}

#[test]
fn news_of_many_deaths_keep_to_the_budget_and_arrive_all_the_same() {
    let rate = 512;
    let mut net = Net::empty();
    for slot in 0..24 {
        let config = Config::default().with(|config| config.repair.bytes_per_second = rate);
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
        for (from, _, frame) in net.log.drain(..) {
            if let Header::LeafSet { members, .. } = frame.header {
                *by_node.entry(slot_of(from.addr)).or_default() += members.len() * 48;
            }
        }
    }
    let most = by_node.values().max().copied().unwrap_or_default();
    let allowed = (seconds + 5) * rate as usize + 23 * 48;
    assert!(0 < most && most <= allowed, "{most} bytes in {seconds} s, {allowed} allowed");
}

#[test]
fn strangers_who_ask_keep_nobody_from_hearing_of_a_death() {
    let mut net = Net::ring(20);
    net.run(Duration::from_secs(10));
    net.configure(0, |config| config.repair.bytes_per_second = 1);
    for seed in 0..200 {
        net.hand(0, stranger(seed), Header::LeafSet { members: Vec::new(), reply: true });
    }
    let waiting = |net: &mut Net| net.node(0).repair.budget.waiting().len();
    let answers = waiting(&mut net);
    assert!(0 < answers && answers < 64, "{answers} of 200");
    let now = net.now;
    let neighbour = net.node(0).leaf_set().ring_neighbours()[0];
    net.node(0).on_peer_dead(now, neighbour);
    net.node(0).drop_member(now, neighbour.id);
    let told: Vec<Peer> = net.node(0).repair.budget.waiting().iter().map(|&(peer, _)| peer).collect();
    let members: Vec<Peer> = net.node(0).leaf_set().iter().copied().collect();
    let hear = members.iter().filter(|member| told.contains(member)).count();
    assert!(told.len() > answers && hear >= members.len() / 2, "{hear} of {}", members.len());
}

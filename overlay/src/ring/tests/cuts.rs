//! Stories of nodes that cannot reach each other, though others reach both.

use super::*;
use crate::wire::Direct;
use crate::wire::MAX_CONTROL;

impl Net {
    /// The slots of the ring neighbours.
    fn neighbours_of(&self, slot: usize) -> [usize; 2] {
        let node = self.nodes[slot].as_ref().unwrap();
        let side = |peer: Option<&Peer>| slot_of(peer.unwrap().addr);
        [side(node.leaf_set().left()), side(node.leaf_set().right())]
    }

    /// Runs, and looks each 50 ms whether each key has one root at most; returns how long, in the longest time without a
    /// break, some key had none.
    fn run_watched(&mut self, time: Duration) -> Duration {
        let step = Duration::from_millis(50);
        let keys: Vec<Key> = (0..40u64).map(|i| Key::hash(&i.to_le_bytes())).collect();
        let mut unclaimed = vec![Duration::ZERO; keys.len()];
        let mut longest = Duration::ZERO;
        for _ in 0..time.as_millis() / step.as_millis() {
            self.run(step);
            for (key, without) in keys.iter().zip(&mut unclaimed) {
                let claimants = self.claimants(*key);
                assert!(claimants.len() <= 1, "{claimants:?} answer for {key} at {}", self.now);
                *without = if claimants.is_empty() { *without + step } else { Duration::ZERO };
                longest = longest.max(*without);
            }
        }
        longest
    }

    fn cut_pair(&mut self, pair: [usize; 2], one_way: bool) {
        self.cut = Box::new(move |a, b| [a, b] == pair || !one_way && [b, a] == pair);
    }
}

#[test]
fn ring_neighbours_that_cannot_reach_each_other_speak_through_others() {
    for (size, one_way) in [(3, false), (3, true), (10, false), (10, true)] {
        let mut net = Net::ring(size);
        net.run(Duration::from_secs(5));
        let pair = [2, net.neighbours_of(2)[1]];
        net.cut_pair(pair, one_way);
        let unclaimed = net.run_watched(Duration::from_secs(150));
        assert!(unclaimed <= Duration::from_millis(1500), "{size}, {one_way}: {unclaimed:?} without a root");
        net.assert_one_ring();
        net.events.clear();
        let key = net.nodes[pair[1]].as_ref().unwrap().peer().id.key();
        net.route(pair[0], key, "around the cut");
        net.run(Duration::from_secs(3));
        assert!(matches!(net.deliveries()[..], [(slot, _)] if slot == pair[1]), "{size}, {one_way}");

        net.cut = Box::new(|_, _| false);
        net.run(Duration::from_secs(130));
        assert!(net.live().all(|(_, node)| !node.detector.has_detours()), "the direct way is found again");
    }
}

#[test]
fn a_detour_is_found_though_it_takes_longer_than_the_direct_way_ever_did() {
    let mut net = Net::ring(10);
    net.run(Duration::from_secs(5));
    let pair = [2, net.neighbours_of(2)[1]];
    net.cut_pair(pair, false);
    // There and back by way of another: 480 ms. A probe waits for 300 ms, and nothing measured tells it to wait longer.
    net.delay = Box::new(move |a, b| {
        let is_far = pair.contains(&a) || pair.contains(&b);
        Some(if is_far { Duration::from_millis(120) } else { DELAY })
    });
    let unclaimed = net.run_watched(Duration::from_secs(150));
    assert!(unclaimed <= Duration::from_secs(3), "{unclaimed:?} without a root");
    net.assert_one_ring();
}

#[test]
fn a_root_that_cannot_reach_whoever_asks_answers_through_another() {
    let mut net = Net::ring(12);
    net.run(Duration::from_secs(5));
    let neighbours = net.neighbours_of(2);
    let far = (0..12).find(|slot| *slot != 2 && !neighbours.contains(slot)).unwrap();
    let root = net.node(far).peer();
    for one_way in [false, true] {
        net.cut_pair([far, 2], one_way);
        net.events.clear();
        net.command(2, Command::Lookup { token: 7, key: root.id.key(), trace: false });
        net.run(Duration::from_secs(4));
        let found = |(slot, event): &(usize, Event)| {
            *slot == 2 && matches!(event, Event::Found { token: 7, found } if found.root == root)
        };
        assert!(net.events.iter().any(found), "one way: {one_way}: {:?}", net.events);
    }
}

#[test]
fn whoever_sees_one_of_two_neighbours_only_gets_one_side() {
    // No third that could help: the other two are cut off from the one in turn.
    let mut net = Net::ring(4);
    net.run(Duration::from_secs(5));
    let [left, right] = net.neighbours_of(1);
    let far = (0..4).find(|slot| ![left, 1, right].contains(slot)).unwrap();
    net.cut = Box::new(move |a, b| {
        let is = |x, y| a == x && b == y || a == y && b == x;
        is(1, right) || is(1, far)
    });
    net.run_watched(Duration::from_secs(100));
    net.cut = Box::new(|_, _| false);
    net.run_watched(Duration::from_secs(100));
    net.assert_one_ring();
}

#[test]
fn a_frame_is_passed_on_once_and_in_nobody_elses_name() {
    let mut net = Net::ring(4);
    net.run(Duration::from_secs(5));
    let [a, b, relay, stranger] = [0, 1, 2, 3].map(|slot| net.nodes[slot].as_ref().unwrap().peer());
    let inner = |header: Header| {
        let encoded = crate::wire::encode(&header.into());
        encoded.head
    };
    let (now, class) = (net.now, Class::Control);
    let mut hand = |slot: usize, from: Peer, header: Header, payload: Bytes| {
        let node = net.node(slot);
        node.handle_frame(now, from, Frame::new(header, payload));
        node.take_sent(now).map(|sent| sent.frame.header).collect::<Vec<_>>()
    };
    let detach = inner(Header::JoinAbort { number: 1 });
    let passed = hand(2, a, Header::Via { to: b, from: a, class }, detach.clone());
    assert!(matches!(passed[..], [Header::Via { class: Class::Control, .. }]), "{passed:?}");
    let forged = hand(2, stranger, Header::Via { to: b, from: a, class }, detach);
    assert!(forged.is_empty(), "only what is the sender's own: {forged:?}");
    let of = |direct: Direct, from: Peer| {
        let (to, from) = (Box::new(b.into()), Box::new(from.into()));
        Header::RelayedDirect { to, from, direct }
    };
    let small = hand(2, a, of(Direct::Control, a), Bytes::from_static(b"hi"));
    assert!(matches!(small[..], [Header::Via { class: Class::Control, .. }]), "it stays control: {small:?}");
    let large = hand(2, a, of(Direct::Control, a), Bytes::from_static(&[0; MAX_CONTROL + 1]));
    assert!(
        matches!(large[..], [Header::Via { class: Class::Data, .. }]),
        "too large for control: {large:?}"
    );
    let direct = |from: Peer| of(Direct::Payload, from);
    let passed = hand(2, a, direct(a), Bytes::from_static(b"hi"));
    assert!(
        matches!(passed[..], [Header::Via { to, from, class: Class::Data }] if to == b && from == a),
        "{passed:?}"
    );
    let forged = hand(2, stranger, direct(a), Bytes::from_static(b"hi"));
    assert!(forged.is_empty(), "likewise: {forged:?}");
    let number = 77;
    let probe =
        Header::Probe(Probe { number, node_state: NodeState::Ready, lease: Sides::None, leaf_set: false });
    let answer = hand(1, relay, Header::Via { to: b, from: a, class }, inner(probe.clone()));
    assert!(matches!(answer[..], [Header::Via { to, .. }] if to == a), "the answer goes back: {answer:?}");
    let nested =
        hand(1, relay, Header::Via { to: b, from: a, class }, inner(Header::Via { to: b, from: a, class }));
    assert!(nested.is_empty(), "{nested:?}");
    let newer = Peer { incarnation: 9, ..a };
    let other_life = hand(1, relay, Header::Via { to: b, from: newer, class }, inner(probe));
    assert!(other_life.is_empty(), "another's word ends nobody's life: {other_life:?}");
    let garbage = hand(1, relay, Header::Via { to: b, from: a, class }, Bytes::from_static(&[0xff; 40]));
    assert!(garbage.is_empty(), "{garbage:?}");
}

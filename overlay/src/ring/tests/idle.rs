//! Stories of nodes at rest: what they send, what they notice, what they keep; and of a start that has to ask again.

use super::*;

/// Frames are lost without a word to or from these slots.
fn silence(net: &mut Net, dark: &'static [usize]) {
    net.cut = Box::new(move |from, to| dark.contains(&from) || dark.contains(&to));
}

/// The slots of a ring of `n` in the order of the ring.
fn in_order(n: usize) -> Vec<usize> {
    let mut slots: Vec<usize> = (0..n).collect();
    slots.sort_by_key(|&slot| peer_at(slot).id);
    slots
}

fn serving(net: &Net) -> usize {
    net.live().filter(|(_, node)| node.is_root_of(net.now, node.peer().id.key())).count()
}

#[test]
fn one_exchange_renews_both_leases() {
    let mut net = Net::ring(20);
    net.run(Duration::from_secs(20));
    let begin = net.sent;
    for _ in 0..240 {
        net.run(Duration::from_millis(250));
        assert_eq!(serving(&net), 20, "no lease lapses");
    }
    let per_second = (net.sent - begin) as f64 / 60.0 / 20.0;
    assert!(per_second < 1.4, "three frames in 2.75 s, and repair: {per_second}");
}

#[test]
fn a_lease_that_is_due_while_another_question_is_under_way_is_asked_for_at_once() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(10));
    let (now, other) = (net.now, peer_at(0));
    net.node(1).leases.forget_held(other.id);
    net.node(1).probe(now, other, false);
    net.node(1).probe(now, other, true);
    net.drain(1);
    net.run(DELAY * 5);
    let now = net.now;
    assert!(net.node(1).holds_lease(now, other.id), "one answer later, and one more");
}

#[test]
fn who_stands_next_to_this_node_no_more_is_asked_for_no_lease() {
    let mut net = Net::ring(6);
    net.run(Duration::from_secs(10));
    let ends: Vec<Peer> = net.node(1).leaf_set().ring_neighbours();
    let other = net.node(1).leaf_set().iter().find(|peer| !ends.contains(peer)).copied().unwrap();
    net.logs = true;
    let now = net.now;
    net.node(1).probe(now, other, false);
    net.node(1).probe(now, other, true);
    net.drain(1);
    net.run(Duration::from_millis(500));
    let probes = net.log.iter().filter(|(from, to, frame)| {
        (slot_of(from.addr), *to) == (1, slot_of(other.addr)) && matches!(frame.header, Header::Probe(_))
    });
    assert_eq!(probes.count(), 1);
}

#[test]
fn the_right_neighbour_asks_if_the_left_one_is_not_heard() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(10));
    let [low, high] = in_order(2)[..] else { unreachable!() };
    // One way is dead for a while, then the other: the node that is heard asks for both.
    for (from, to) in [(low, high), (high, low)] {
        net.cut = Box::new(move |a, b| (a, b) == (from, to));
        net.run(Duration::from_millis(1200));
        net.cut = Box::new(|_, _| false);
        net.run(Duration::from_millis(2500));
        assert_eq!(serving(&net), 2);
    }
}

#[test]
fn a_death_without_a_word_is_found_within_five_seconds() {
    for later in [0, 700, 1400, 2100] {
        let mut net = Net::ring(40);
        net.run(Duration::from_secs(20) + Duration::from_millis(later));
        let dead = peer_at(4);
        silence(&mut net, &[4]);
        let mut waited = Duration::ZERO;
        while !net.claimants(dead.id.key()).iter().any(|&slot| slot != 4) {
            net.run(Duration::from_millis(50));
            waited += Duration::from_millis(50);
            assert!(waited <= Duration::from_secs(5), "died {later} ms later and was not found");
        }
        net.nodes[4] = None;
        // Every node that had it in its leaf set was told, and looked for itself.
        net.run(Duration::from_secs(5));
        let keep = net.live().filter(|(_, node)| node.leaf_set().contains(dead.id)).count();
        assert_eq!(keep, 0, "nobody keeps the dead");
    }
}

#[test]
fn a_row_of_dead_neighbours_is_found_at_once() {
    let mut net = Net::ring(40);
    net.run(Duration::from_secs(20));
    let order = in_order(40);
    let dark: &'static [usize] = Vec::leak(order[10..16].to_vec());
    silence(&mut net, dark);
    let mut waited = Duration::ZERO;
    let (left, right) = (order[9], peer_at(order[16]).id);
    while net.node(left).leaf_set().right().is_none_or(|peer| peer.id != right) {
        net.run(Duration::from_millis(100));
        waited += Duration::from_millis(100);
        // One after the other they would take half a minute.
        assert!(waited <= Duration::from_secs(12), "the gap is not closed");
    }
}

#[test]
fn a_node_at_rest_keeps_what_it_needs() {
    let mut net = Net::ring(60);
    for i in 0..200u64 {
        net.route(0, Key::hash(&i.to_be_bytes()), "a burst");
    }
    net.command(0, Command::Broadcast { token: 1, payload: Bytes::from_static(b"and another one") });
    net.run(Duration::from_secs(1));
    let busy = net.node(0).memory();
    net.run(Duration::from_secs(120));
    let rest = net.node(0).memory();
    let part = |name: &str| rest.parts().iter().find(|(part, _)| *part == name).unwrap().1;
    assert!(rest.total() < busy.total(), "{busy}\n{rest}");
    assert_eq!(part("hops") + part("broadcasts") + part("lookups") + part("queues"), 0, "{rest}");
    assert!(rest.total() < 16 * 1024, "{rest}");
    net.assert_one_ring();
}

#[test]
fn a_start_outlives_lost_questions() {
    let mut net = Net::ring(3);
    // Four questions in turn are lost.
    net.cut = Box::new(|from, to| from == 3 && to == 0);
    let newcomer = net.join(Some(0), Config::default());
    net.run(Duration::from_millis(1900));
    net.cut = Box::new(|_, _| false);
    net.run(Duration::from_secs(5));
    assert_eq!(net.ready(), [0, 1, 2, newcomer]);
}

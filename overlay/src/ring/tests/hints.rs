//! Stories of deaths that others have found first, and of ways that may be dead.

use super::hostile::stranger;
use super::*;

/// A ring in which few know everybody.
fn sparse_ring(n: usize) -> Net {
    sparse_ring_of(n, &Config::default())
}

/// The same with these figures.
fn sparse_ring_of(n: usize, config: &Config) -> Net {
    let mut net = Net::empty();
    for slot in 0..n {
        let config =
            config.clone().with(|config| (config.tables.leaf_set, config.tables.full_membership) = (4, 0));
        net.join(slot.checked_sub(1).map(|_| 0), config);
        net.run(Duration::from_millis(200));
    }
    assert_eq!(net.ready().len(), n, "all are ready");
    net.run(Duration::from_secs(60));
    net
}

impl Net {
    /// A node, and a member of its leaf set that is none of its ring neighbours and was not heard for a while.
    fn silent_member(&self) -> (usize, Peer) {
        let far = |node: &Node| {
            let silent = |peer: &&Peer| {
                node.routing_table().get(peer.id).is_some()
                    && node.detector.silence(self.now, peer.id) > Duration::from_secs(5)
            };
            node.leaf_set().lefts().skip(1).find(silent).copied()
        };
        self.live().find_map(|(slot, node)| Some((slot, far(node)?))).expect("some member was silent")
    }

    /// A node and one that stands in its routing table only.
    fn far_pair(&self) -> (usize, Peer) {
        let far = |node: &Node| {
            node.routing_table()
                .iter()
                .find(|peer| {
                    !node.leaf_set().contains(peer.id)
                        && node.detector.silence(self.now, peer.id) > Duration::from_secs(5)
                })
                .copied()
        };
        self.live()
            .find_map(|(slot, node)| Some((slot, far(node)?)))
            .expect("some table has more than the leaf set")
    }
}

fn is_probe(sent: &Transmit, to: Peer) -> bool {
    sent.to == Destination::Peer(to) && matches!(sent.frame.header, Header::Probe(_))
}

#[test]
fn a_hint_of_a_death_is_looked_into_and_told_on() {
    let mut net = sparse_ring(30);
    let (slot, victim) = net.silent_member();
    net.kill(slot_of(victim.addr));
    let asked = net.hand(slot, stranger(1), Header::PeerDeadHint(victim));
    assert!(asked.iter().any(|sent| is_probe(sent, victim)), "{asked:?}");
    // Nothing answers, once and again.
    let mut told = Vec::new();
    for _ in 0..2 {
        let now = net.now + Duration::from_secs(10);
        let node = net.node(slot);
        node.on_probe_timeout(now, victim.id);
        told.extend(node.take_sent(now));
    }
    assert!(
        net.node(slot).routing_table().get(victim.id).is_none(),
        "two silences are enough where another one had found it dead"
    );
    assert!(told.iter().any(|sent| sent.frame.header == Header::PeerDeadHint(victim)), "{told:?}");
}

#[test]
fn where_one_silence_is_enough_only_who_noticed_it_tells() {
    let config = Config::default().with(|config| config.failure.confirmations = 1);
    for by_hint in [true, false] {
        let mut net = sparse_ring_of(30, &config);
        let (slot, victim) = if by_hint { net.silent_member() } else { net.far_pair() };
        let now = net.now + Duration::from_secs(10);
        if by_hint {
            net.hand(slot, stranger(1), Header::PeerDeadHint(victim));
        } else {
            net.node(slot).probe(now, victim, false);
        }
        let node = net.node(slot);
        node.on_probe_timeout(now, victim.id);
        assert!(node.routing_table().get(victim.id).is_none());
        let mut sent = node.take_sent(now);
        assert_eq!(sent.any(|sent| sent.frame.header == Header::PeerDeadHint(victim)), !by_hint);
    }
}

#[test]
fn a_false_hint_of_a_death_costs_a_probe() {
    let mut net = sparse_ring(30);
    let (slot, victim) = net.far_pair();
    for sent in net.hand(slot, stranger(1), Header::PeerDeadHint(victim)) {
        let from = net.node(slot).peer();
        net.deliver(from, sent.to, sent.frame);
    }
    net.run(Duration::from_secs(2));
    assert!(net.node(slot).routing_table().get(victim.id).is_some());
    assert!(net.hand(slot, stranger(1), Header::PeerDeadHint(victim)).is_empty(), "it was heard just now");
    assert!(
        net.hand(slot, stranger(1), Header::PeerDeadHint(stranger(2))).is_empty(),
        "nobody whom this node knows"
    );
}

#[test]
fn who_comes_next_is_known_before_a_member_is_found_dead() {
    let mut net = sparse_ring(12);
    let rights: Vec<Peer> = net.node(0).leaf_set().rights().copied().collect();
    let [neighbour, victim] = rights[..] else { panic!("{rights:?}") };
    // The neighbour has found it dead, and names the node behind it.
    let behind = *net.node(slot_of(victim.addr)).leaf_set().right().unwrap();
    let theirs = net.node(slot_of(neighbour.addr)).leaf_set().clone();
    let members: Vec<Peer> =
        theirs.iter().filter(|peer| peer.id != victim.id).copied().chain([behind]).collect();
    net.hand(0, neighbour, Header::LeafSet { members, reply: false });
    let now = net.now;
    let node = net.node(0);
    node.on_peer_dead(now, victim);
    let sent: Vec<Transmit> = node.take_sent(now).collect();
    assert!(sent.iter().any(|sent| is_probe(sent, behind)), "{sent:?}");
    assert!(
        !sent.iter().any(|sent| matches!(sent.frame.header, Header::LeafSet { .. })),
        "nobody need be asked: {sent:?}"
    );
}

#[test]
fn a_question_goes_two_ways_where_the_first_may_be_dead() {
    let mut net = sparse_ring(30);
    let (slot, far) = net.far_pair();
    let ways = |net: &mut Net| {
        let now = net.now;
        let node = net.node(slot);
        node.handle_command(now, Command::Lookup { token: 1, key: far.id.key(), trace: false });
        let sent: Vec<Transmit> = node.take_sent(now).collect();
        let hops = sent.iter().filter(|sent| matches!(sent.frame.header, Header::Routed(_)));
        hops.map(|sent| sent.to).collect::<Vec<Destination>>()
    };
    assert_eq!(ways(&mut net).len(), 1, "nobody has died");
    let now = net.now;
    (0..16).for_each(|_| net.node(slot).detector.note_death(now));
    let two = ways(&mut net);
    assert!(two.len() == 2 && two[0] != two[1], "{two:?}");
}

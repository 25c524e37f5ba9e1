//! Stories of slots, and of what is given up with them.

use super::hostile::stranger;
use super::*;
use crate::sides::{Side, Sides};
use crate::wire::{Admission, ProbeAck};

const BUSY: Header = Header::Admission(Admission::Busy);

impl Net {
    /// The answer of a node to a joiner's frame.
    fn answer(&mut self, slot: usize, joiner: Peer, header: Header) -> Header {
        self.hand(slot, joiner, header).remove(0).frame.header
    }
}

#[test]
fn what_a_joiner_withdraws_is_its_neighbours_again_at_once() {
    let mut net = Net::ring(1);
    let (first, second) = (stranger(1), stranger(2));
    assert!(matches!(
        net.answer(0, first, Header::JoinRequest),
        Header::Admission(Admission::Granted { .. })
    ));
    let other_neighbour = net.node(0).peer().id;
    assert_eq!(
        net.answer(0, first, Header::JoinCommit { number: 5, other_neighbour }),
        Header::JoinCommitted { number: 5, lease: Sides::Both }
    );
    net.hand(0, first, Header::JoinAbort { number: 4 });
    assert_eq!(net.answer(0, second, Header::JoinRequest), BUSY, "the word is older than the commit");
    net.hand(0, first, Header::JoinAbort { number: 5 });
    assert!(matches!(
        net.answer(0, second, Header::JoinRequest),
        Header::Admission(Admission::Granted { .. })
    ));
}

#[test]
fn who_lacks_its_neighbours_lease_admits_nobody() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(5));
    let joiner = stranger(1);
    assert!(matches!(
        net.answer(0, joiner, Header::JoinRequest),
        Header::Admission(Admission::Granted { .. })
    ));
    net.hand(0, joiner, Header::JoinAbort { number: 0 });
    let other = net.node(1).peer();
    net.node(0).leases.forget(other.id);
    assert_eq!(net.answer(0, joiner, Header::JoinRequest), BUSY, "it has nothing to give up");
}

#[test]
fn a_joiner_whose_other_neighbour_has_gone_gets_no_part() {
    let mut net = Net::ring(3);
    net.run(Duration::from_secs(5));
    let joiner = stranger(1);
    let admitting = |net: &mut Net| {
        (0..3).find(|&slot| {
            matches!(
                net.answer(slot, joiner, Header::JoinRequest),
                Header::Admission(Admission::Granted { .. })
            )
        })
    };
    let slot = admitting(&mut net).unwrap();
    let me = net.node(slot).peer().id;
    let sides = net.node(slot).leaf_set().sides_for(joiner.id);
    let (left, right) =
        (net.node(slot).leaf_set().left().unwrap().id, net.node(slot).leaf_set().right().unwrap().id);
    let (other_neighbour, other) = if sides.has(Side::Left) { (left, right) } else { (right, left) };
    for wrong in [other, me] {
        let told = net.answer(slot, joiner, Header::JoinCommit { number: 5, other_neighbour: wrong });
        assert!(matches!(told, Header::Admission(Admission::NotNeighbour { .. })), "{told:?}");
    }
    let told = net.answer(slot, joiner, Header::JoinCommit { number: 6, other_neighbour });
    assert!(matches!(told, Header::JoinCommitted { number: 6, .. }), "{told:?}");
}

#[test]
fn what_a_neighbour_was_asked_before_a_joiner_left_counts_for_nothing() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(5));
    let (joiner, other, now) = (stranger(1), net.node(1).peer(), net.now);
    assert!(matches!(
        net.answer(0, joiner, Header::JoinRequest),
        Header::Admission(Admission::Granted { .. })
    ));
    let told = net.answer(0, joiner, Header::JoinCommit { number: 5, other_neighbour: other.id });
    assert!(matches!(told, Header::JoinCommitted { number: 5, .. }), "{told:?}");
    net.node(0).probe(now, other, true);
    let (number, lease) = net.node(0).detector.question(other.id).unwrap();
    net.hand(0, joiner, Header::Leave { members: Vec::new() });
    // It may have been said while the joiner had this node's part.
    let node_state = NodeState::Ready;
    let ack = ProbeAck { number, node_state, lease, asks: None, leaf_set: None };
    net.hand(0, other, Header::ProbeAck(ack));
    assert!(!net.node(0).holds_lease(now, other.id));
    let number = net.node(0).detector.question(other.id).unwrap().0;
    net.hand(0, other, Header::ProbeAck(ProbeAck { number, node_state, lease, asks: None, leaf_set: None }));
    assert!(net.node(0).holds_lease(now, other.id), "what it says since is another matter");
}

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
    assert!(matches!(net.answer(0, first, Header::Admit), Header::Admission(Admission::Granted { .. })));
    let beside = net.node(0).peer().id;
    assert_eq!(
        net.answer(0, first, Header::Commit { number: 5, beside }),
        Header::Committed { number: 5, lease: Sides::Both }
    );
    net.hand(0, first, Header::Withdraw { number: 4 });
    assert_eq!(net.answer(0, second, Header::Admit), BUSY, "the word is older than the commit");
    net.hand(0, first, Header::Withdraw { number: 5 });
    assert!(matches!(net.answer(0, second, Header::Admit), Header::Admission(Admission::Granted { .. })));
}

#[test]
fn who_lacks_its_neighbours_lease_admits_nobody() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(5));
    let joiner = stranger(1);
    assert!(matches!(net.answer(0, joiner, Header::Admit), Header::Admission(Admission::Granted { .. })));
    net.hand(0, joiner, Header::Withdraw { number: 0 });
    let other = net.node(1).peer();
    net.node(0).leases.forget(other.id);
    assert_eq!(net.answer(0, joiner, Header::Admit), BUSY, "it has nothing to give up");
}

#[test]
fn a_joiner_whose_other_neighbour_has_gone_gets_no_part() {
    let mut net = Net::ring(3);
    net.run(Duration::from_secs(5));
    let joiner = stranger(1);
    let admitting = |net: &mut Net| {
        (0..3).find(|&slot| {
            matches!(net.answer(slot, joiner, Header::Admit), Header::Admission(Admission::Granted { .. }))
        })
    };
    let slot = admitting(&mut net).unwrap();
    let me = net.node(slot).peer().id;
    let sides = net.node(slot).leaf_set().sides_for(joiner.id);
    let (left, right) =
        (net.node(slot).leaf_set().left().unwrap().id, net.node(slot).leaf_set().right().unwrap().id);
    let (beside, other) = if sides.has(Side::Left) { (left, right) } else { (right, left) };
    for wrong in [other, me] {
        let told = net.answer(slot, joiner, Header::Commit { number: 5, beside: wrong });
        assert!(matches!(told, Header::Admission(Admission::NotNeighbour { .. })), "{told:?}");
    }
    let told = net.answer(slot, joiner, Header::Commit { number: 6, beside });
    assert!(matches!(told, Header::Committed { number: 6, .. }), "{told:?}");
}

#[test]
fn what_a_neighbour_was_asked_before_a_joiner_left_counts_for_nothing() {
    let mut net = Net::ring(2);
    net.run(Duration::from_secs(5));
    let (joiner, other, now) = (stranger(1), net.node(1).peer(), net.now);
    assert!(matches!(net.answer(0, joiner, Header::Admit), Header::Admission(Admission::Granted { .. })));
    let told = net.answer(0, joiner, Header::Commit { number: 5, beside: other.id });
    assert!(matches!(told, Header::Committed { number: 5, .. }), "{told:?}");
    net.node(0).probe(now, other, true);
    let (number, lease) = net.node(0).detector.question(other.id).unwrap();
    net.hand(0, joiner, Header::Leave { members: Vec::new() });
    // It may have been said while the joiner had this node's part.
    let standing = Standing::Ready;
    let ack = ProbeAck { number, standing, lease, asks: None, leaf_set: None };
    net.hand(0, other, Header::ProbeAck(ack));
    assert!(!net.node(0).holds_lease(now, other.id));
    let number = net.node(0).detector.question(other.id).unwrap().0;
    net.hand(0, other, Header::ProbeAck(ProbeAck { number, standing, lease, asks: None, leaf_set: None }));
    assert!(net.node(0).holds_lease(now, other.id), "what it says since is another matter");
}

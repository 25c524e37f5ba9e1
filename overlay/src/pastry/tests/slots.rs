//! Stories of slots, and of what is given up with them.

use super::hostile::stranger;
use super::*;
use crate::sides::{Side, Sides};
use crate::wire::Admission;

const BUSY: Header = Header::Admission(Admission::Busy);

impl Net {
    /// What a node answers to a joiner's word.
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
    let sides = net.node(slot).sides_of(joiner.id);
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

//! The nodes that take part, their figures, and planted bugs.

use std::time::Duration;

use treecast_overlay::config::Config;
use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::RingView;
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::sides::Sides;
use treecast_overlay::wire::{Admission, Header, NodeState};

use super::image::FAR;
use super::{Bounds, Gaps, ModelBug, QUARTER};

/// Quarters for which others keep their hands off the part of a node that crashed: its lease and 5 %, begun.
pub(super) const LEASE: u8 = 5;

/// The peer in a slot. The ring's nodes stand as far from each other as they can.
pub(super) fn peer(bounds: &Bounds, slot: usize) -> Peer {
    let gap = u128::MAX / bounds.ring as u128;
    let begin = 1 << 100;
    let id = match slot.checked_sub(bounds.ring) {
        None => begin + gap * slot as u128,
        Some(joiner) if bounds.gaps == Gaps::Same => {
            begin + gap / (bounds.joiners as u128 + 1) * (joiner as u128 + 1)
        }
        Some(joiner) => begin + gap * (joiner % bounds.ring) as u128 + gap / 3 + joiner as u128,
    };
    Peer { id: NodeId(id), incarnation: 1, addr: Addr::Memory(slot as u32) }
}

/// The overlay's figures, its adaptive parts fixed: every wait for an answer is a quarter of a lease, and what is periodic,
/// besides leases, is out of reach.
pub(super) fn config(bounds: &Bounds, slot: usize) -> Config {
    let never = FAR * 10_000;
    let overstays = bounds.plant == Some(ModelBug::Overstays) && slot == 0;
    let mut config = Config::default();
    let Config { tables, join, leases, failure, routing, repair, search, .. } = &mut config;
    tables.full_membership = 0;
    (join.slot, join.ask_again, join.timeout) = (QUARTER * 4, QUARTER, never);
    leases.duration = QUARTER * if overstays { 8 } else { 4 };
    leases.heartbeat = QUARTER * 2;
    leases.piggyback_after = bounds.ride.then_some(QUARTER);
    (failure.rto_min, failure.rto_max) = (QUARTER, QUARTER);
    (failure.probe_attempts, failure.lease_attempts) = (bounds.attempts, bounds.attempts);
    (failure.leaf_probe, failure.table_probe, failure.dead_for) = (never, never, never);
    (routing.hop_rto_min, routing.park_for) = (QUARTER, Duration::from_secs(8));
    (repair.period, repair.bytes_per_second) = (never, u32::MAX);
    (search.period_min, search.period_max) = (never, never);
    config
}

/// [`ModelBug::Published`]: what a neighbour answers that is busy with another joiner. `asked`: the joiner's words.
pub(super) fn answer_as_published(asked: &Header, answer: &mut Header, members: impl Fn() -> Vec<Peer>) {
    if !matches!(answer, Header::Admission(Admission::Busy)) {
        return;
    }
    *answer = if let Header::JoinCommit { number, .. } = *asked {
        Header::JoinCommitted { number, lease: Sides::Both }
    } else {
        Header::Admission(Admission::Granted { members: members() })
    };
}

/// Whether a node is on the ring.
pub(super) fn is_ready(node: &Node) -> bool {
    node.node_state() == NodeState::Ready
}

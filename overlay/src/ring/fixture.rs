//! Fixtures for the components' own tests: a core that is on the ring, and peers around it.

use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Phase};
use super::tables::Tables;
use crate::config::Config;
use crate::id::NodeId;
use crate::machine::{Destination, Transmit};
use crate::peer::{Addr, Peer};
use crate::random;
use crate::time::Instant;
use crate::wire::Header;

/// The node of this point, in units of 2^120.
pub(super) fn peer(point: u8) -> Peer {
    Peer { id: NodeId(u128::from(point) << 120), incarnation: 1, addr: Addr::Memory(u32::from(point)) }
}

/// A point in time.
pub(super) fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

/// The core of node 100, on the ring.
pub(super) fn core() -> Core {
    let mut core = Core::new(peer(100), Arc::new(Config::default()), random::stream(&[7; 32], "test"));
    core.phase = Phase::Ready;
    core
}

/// Its tables, with these nodes in the leaf set.
pub(super) fn tables(members: &[u8]) -> Tables {
    let mut tables = Tables::new(peer(100).id, Config::default().tables.leaf_set);
    members.iter().for_each(|&point| assert!(tables.insert(peer(point))));
    tables
}

/// The frames that were sent since the last call, and where to.
pub(super) fn sent(core: &mut Core) -> Vec<(Peer, Header)> {
    while let Some((to, frame)) = core.out.next_without_path() {
        core.out.send_by(core.me, to, frame, super::core::Path::Straight(None));
    }
    let sent = std::iter::from_fn(|| core.out.poll_transmit());
    let peers = sent.filter_map(|Transmit { to, frame }| match to {
        Destination::Peer(peer) => Some((peer, frame.header)),
        Destination::Seed(_) => None,
    });
    peers.collect()
}

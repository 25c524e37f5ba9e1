//! Acknowledged hops (MSPastry §3.2): each hop is kept until it is acknowledged, and goes another way if it is not.
//! Messages that cannot go on yet are parked for a while.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;

use super::Node;
use super::Timer;
use super::invariants::Size;
use super::route::{Hop, matched};
use super::seen::Seen;
use crate::config::Config;
use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::time::Instant;
use crate::wire::{Header, RouteFailure, Routed, TraceHop};

/// Bytes of payloads held, pending and parked together; a message beyond it is undeliverable (`Overloaded`). One message
/// always has room, however large.
const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
/// How often parked messages look for a way again, besides whenever the neighbourhood changes.
const PARKED_PERIOD: Duration = Duration::from_millis(500);

/// Messages between two hops.
#[derive(Clone, Debug, Default)]
pub(super) struct Hops {
    pending: BTreeMap<u64, Pending>,
    parked: VecDeque<Parked>,
    /// Bytes of the payloads in both.
    held: usize,
    seen: Seen<(NodeId, u64, u64)>,
}

/// A message whose next hop has not acknowledged it yet.
#[derive(Clone, Debug, Hash)]
struct Pending {
    to: Peer,
    routed: Routed,
    payload: Bytes,
    tried: Vec<NodeId>,
    sent: Instant,
    fate: Fate,
}

/// What is known of a hop that is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    /// Nothing yet.
    Unknown,
    /// The connection that may have carried it broke.
    MayHaveArrived,
    /// There was no connection, and none could be made.
    Unsent,
}

/// A message that waits for a way.
#[derive(Clone, Debug, Hash)]
struct Parked {
    routed: Routed,
    payload: Bytes,
    previous: Option<Peer>,
    since: Instant,
}

impl Parked {
    fn is_copy(&self, routed: &Routed, payload: &Bytes) -> bool {
        let name = |routed: &Routed| (routed.id, routed.origin.peer, routed.key);
        name(&self.routed) == name(routed) && self.payload == payload
    }
}

impl Hops {
    /// Whether this hop comes for the first time.
    pub(super) fn is_new(&mut self, from: &Peer, hop: u64) -> bool {
        self.seen.is_new((from.id, from.incarnation, hop))
    }

    fn has_room(&self, payload: &Bytes) -> bool {
        self.held == 0 || self.held + payload.len() <= MAX_HELD_BYTES
    }

    fn keep(&mut self, hop: u64, pending: Pending) {
        self.held += pending.payload.len();
        self.pending.insert(hop, pending);
    }

    fn take(&mut self, hop: u64) -> Option<Pending> {
        let pending = self.pending.remove(&hop)?;
        self.held -= pending.payload.len();
        Some(pending)
    }

    fn keep_parked(&mut self, parked: Parked) {
        self.held += parked.payload.len();
        self.parked.push_back(parked);
    }

    fn take_parked(&mut self) -> VecDeque<Parked> {
        let parked = std::mem::take(&mut self.parked);
        self.held -= parked.iter().map(|parked| parked.payload.len()).sum::<usize>();
        parked
    }

    /// Whether the count of bytes is right, and within its limit unless one message exceeds it.
    pub(super) fn holds_no_more_than_it_may(&self) -> bool {
        let pending = self.pending.values().map(|pending| pending.payload.len());
        let held: usize = pending.chain(self.parked.iter().map(|parked| parked.payload.len())).sum();
        held == self.held && (held <= MAX_HELD_BYTES || self.pending.len() + self.parked.len() == 1)
    }

    /// Gives back what a burst has taken; forgets what was seen before the last time.
    pub(super) fn tidy(&mut self) {
        if self.pending.is_empty() {
            // An emptied tree keeps a node.
            self.pending = BTreeMap::new();
        }
        self.parked.shrink_to_fit();
        self.seen.age();
    }

    /// Bytes on the heap, payloads included.
    pub(super) fn bytes(&self) -> usize {
        let pending = memory::tree(self.pending.len(), size_of::<(u64, Pending)>());
        pending + memory::queue(&self.parked) + self.held + self.seen.bytes()
    }

    /// What waits, and what is remembered (promise O5).
    pub(super) fn sizes(&self, config: &Config) -> [Size; 4] {
        // One message may exceed the limit of bytes: it counts as none.
        let alone = self.pending.len() + self.parked.len() == 1;
        [
            ("pending hops", self.pending.len(), config.max_pending_hops),
            ("parked messages", self.parked.len(), config.max_parked),
            ("bytes of pending and parked messages", if alone { 0 } else { self.held }, MAX_HELD_BYTES),
            self.seen.size("hops seen"),
        ]
    }

    /// What waits, for a model checker.
    pub(super) fn hash_waiting(&self, state: &mut impl Hasher) {
        self.pending.hash(state);
        self.parked.hash(state);
    }

    /// Hops that were taken over: who handed them over, and their numbers.
    pub(super) fn taken(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.seen.iter().map(|&(from, _, hop)| (from, hop))
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn parked(&self) -> usize {
        self.parked.len()
    }
}

impl Node {
    pub(super) fn on_routed(&mut self, now: Instant, from: Peer, routed: Routed, payload: Bytes) {
        if !self.takes_messages() {
            // Not acknowledged: the sender looks for another way.
            return;
        }
        self.transmit(from, Header::HopAck { hop: routed.hop });
        if self.hops.is_new(&from, routed.hop) {
            self.take_over(now, from, routed, payload);
        }
    }

    pub(super) fn send_hop(
        &mut self,
        now: Instant,
        to: Peer,
        by_leaf_set: bool,
        routed: Routed,
        payload: Bytes,
    ) {
        let routed = Routed { by_leaf_set: routed.by_leaf_set || by_leaf_set, ..routed };
        self.send_hop_after(now, to, routed, payload, Vec::new());
    }

    /// Hands a message of this node's own to a certain first hop.
    pub(super) fn hand_over(&mut self, now: Instant, to: Peer, routed: Routed) {
        self.send_hop_after(now, to, routed, Bytes::new(), Vec::new());
    }

    fn send_hop_after(&mut self, now: Instant, to: Peer, routed: Routed, payload: Bytes, tried: Vec<NodeId>) {
        if self.hops.pending.len() >= self.config.max_pending_hops || !self.hops.has_room(&payload) {
            return self.fail(now, routed, RouteFailure::Overloaded);
        }
        let hop = self.number();
        let mut sent = Routed { hop, ..routed.clone() };
        if let Some(path) = &mut sent.trace {
            let rtt = self.rtt(to.id).or_else(|| self.access.rtt(to.id));
            let rtt_micros = rtt.map(|rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
            path.push(TraceHop { node: self.me.id, matched: matched(routed.key, self.me.id), rtt_micros });
        }
        self.transmit_frame(to, Header::Routed(sent), payload.clone());
        self.hops.keep(hop, Pending { to, routed, payload, tried, sent: now, fate: Fate::Unknown });
        let rto = self.hop_rto(to.id);
        self.deadlines.set(Timer::Hop(hop), now + rto);
    }

    pub(super) fn on_hop_ack(&mut self, now: Instant, from: Peer, hop: u64) {
        if self.hops.pending.get(&hop).is_none_or(|pending| pending.to.id != from.id) {
            return self.on_delegation_ack(from, hop);
        }
        if let Some(pending) = self.hops.take(hop) {
            self.deadlines.cancel(Timer::Hop(hop));
            self.note_round_trip(from, now - pending.sent);
        }
    }

    /// Not acknowledged in time: the peer is suspect, and the message goes another way at once.
    pub(super) fn on_hop_timeout(&mut self, now: Instant, hop: u64) {
        let Some(pending) = self.hops.take(hop) else {
            return self.on_delegation_timeout(now, hop);
        };
        let Pending { to, mut routed, payload, mut tried, fate, .. } = pending;
        routed.repeated |= fate != Fate::Unsent;
        if !self.is_edge() && self.is_ready() {
            self.probe(now, to, false);
        }
        tried.push(to.id);
        if tried.len() >= usize::from(self.config.hop_attempts) {
            return self.fail(now, routed, RouteFailure::NoRoute);
        }
        match self.next_hop(&routed, &tried) {
            Hop::To { peer, by_leaf_set } => {
                let routed = Routed { by_leaf_set: routed.by_leaf_set || by_leaf_set, ..routed };
                self.send_hop_after(now, peer, routed, payload, tried);
            }
            Hop::Mine | Hop::Wait => self.park(now, routed, payload, None),
        }
    }

    /// A peer is gone: what waits for its acknowledgement goes another way.
    pub(super) fn reroute(&mut self, now: Instant, lost: NodeId) {
        let hops: Vec<u64> = self
            .hops
            .pending
            .iter()
            .filter(|(_, pending)| pending.to.id == lost)
            .map(|(&hop, _)| hop)
            .collect();
        for hop in hops {
            self.deadlines.cancel(Timer::Hop(hop));
            if let Some(Pending { mut routed, payload, fate, .. }) = self.hops.take(hop) {
                routed.repeated |= fate != Fate::Unsent;
                self.pass_on(now, routed, payload, None);
            }
        }
    }

    /// A peer cannot be dialled: its hops need not wait for their time, and those that no connection carried have not
    /// left this node.
    pub(super) fn hurry_hops(&mut self, now: Instant, id: NodeId) {
        for (&hop, pending) in self.hops.pending.iter_mut().filter(|(_, pending)| pending.to.id == id) {
            self.deadlines.set_earlier(Timer::Hop(hop), now);
            if pending.fate == Fate::Unknown {
                pending.fate = Fate::Unsent;
            }
        }
    }

    /// A connection broke: what waits for its peer's acknowledgement may have arrived there.
    pub(super) fn doubt_hops(&mut self, id: NodeId) {
        for pending in self.hops.pending.values_mut().filter(|pending| pending.to.id == id) {
            pending.fate = Fate::MayHaveArrived;
        }
    }

    /// Lets a message wait for a way, or for this node's leases. A copy of one that waits already (its origin asked
    /// again) is let go.
    pub(super) fn park(&mut self, now: Instant, routed: Routed, payload: Bytes, previous: Option<Peer>) {
        if self.hops.parked.iter().any(|parked| parked.is_copy(&routed, &payload)) {
            return;
        }
        if self.hops.parked.len() >= self.config.max_parked || !self.hops.has_room(&payload) {
            return self.fail(now, routed, RouteFailure::Overloaded);
        }
        self.hops.keep_parked(Parked { routed, payload, previous, since: now });
        if !self.deadlines.is_set(Timer::Parked) {
            self.deadlines.set(Timer::Parked, now + PARKED_PERIOD);
        }
    }

    pub(super) fn on_parked_timer(&mut self, now: Instant) {
        self.expire_slots(now);
        self.unpark(now);
        if !self.hops.parked.is_empty() {
            self.deadlines.set(Timer::Parked, now + PARKED_PERIOD);
        }
    }

    /// Something changed: each parked message looks for a way again, in its order.
    pub(super) fn unpark(&mut self, now: Instant) {
        for parked in self.hops.take_parked() {
            if now - parked.since >= self.config.park_for {
                self.fail(now, parked.routed, RouteFailure::NoRoot);
                continue;
            }
            let before = self.hops.parked.len();
            let Parked { routed, payload, previous, since } = parked;
            self.pass_on(now, routed, payload, previous);
            if self.hops.parked.len() > before
                && let Some(again) = self.hops.parked.back_mut()
            {
                again.since = since;
            }
        }
    }
}

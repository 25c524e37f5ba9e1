//! Acknowledged hops (MSPastry §3.2): each hop is kept until it is acknowledged, and goes another way if it is not.
//! Messages that cannot go on yet are parked for a while.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;

use super::matched;
use super::seen::Seen;
use crate::config::Config;
use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::ring::core::{Core, Timer};
use crate::ring::invariants::Size;
use crate::time::Instant;
use crate::wire::{Header, Routed, TraceHop};

/// Bytes of payloads held, pending and parked together; a message beyond it is undeliverable (`Overloaded`). One message
/// always has room, however large.
const MAX_HELD_BYTES: usize = 64 * 1024 * 1024;
/// How often parked messages look for a way again, besides whenever the neighbourhood changes.
const PARKED_PERIOD: Duration = Duration::from_millis(500);

/// Messages between two hops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hops {
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

/// The knowledge about a hop that is not acknowledged.
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
pub(crate) struct Parked {
    pub(crate) routed: Routed,
    pub(crate) payload: Bytes,
    pub(crate) previous: Option<Peer>,
    pub(crate) since: Instant,
}

/// Where a hop goes, and what is known of the way there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NextHop {
    pub(crate) peer: Peer,
    pub(crate) rtt: Option<Duration>,
    /// How long its acknowledgement is waited for.
    pub(crate) rto: Duration,
}

/// A hop that was not acknowledged in time.
#[derive(Debug)]
pub(crate) struct Unacknowledged {
    pub(crate) to: Peer,
    pub(crate) routed: Routed,
    pub(crate) payload: Bytes,
    pub(crate) tried: Vec<NodeId>,
}

/// There is no room for this message.
#[derive(Debug)]
pub(crate) struct Overloaded(pub(crate) Box<Routed>);

impl Parked {
    fn is_copy(&self, routed: &Routed, payload: &Bytes) -> bool {
        let name = |routed: &Routed| (routed.id, routed.origin.peer, routed.key);
        name(&self.routed) == name(routed) && self.payload == payload
    }
}

impl From<Pending> for Unacknowledged {
    /// A hop that a connection may have carried, and that is made again, is a repeated one.
    fn from(pending: Pending) -> Unacknowledged {
        let Pending { to, mut routed, payload, tried, fate, .. } = pending;
        routed.repeated |= fate != Fate::Unsent;
        Unacknowledged { to, routed, payload, tried }
    }
}

impl Hops {
    /// Whether this hop comes for the first time.
    pub(crate) fn is_new(&mut self, from: &Peer, hop: u64) -> bool {
        self.seen.is_new((from.id, from.incarnation, hop))
    }

    /// Sends a message to its next hop, and keeps it until that has acknowledged it. `tried`: the hops that have not.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        core: &mut Core,
        next: NextHop,
        routed: Routed,
        payload: Bytes,
        tried: Vec<NodeId>,
    ) -> Result<(), Overloaded> {
        if self.pending.len() >= core.config.routing.max_pending_hops || !self.has_room(&payload) {
            return Err(Overloaded(Box::new(routed)));
        }
        let NextHop { peer: to, rtt, rto } = next;
        let hop = core.number();
        let mut sent = Routed { hop, ..routed.clone() };
        if let Some(path) = &mut sent.trace {
            let rtt_micros = rtt.map(|rtt| u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
            path.push(TraceHop { node: core.me.id, matched: matched(routed.key, core.me.id), rtt_micros });
        }
        core.send_payload(to, Header::Routed(sent), payload.clone());
        self.keep(hop, Pending { to, routed, payload, tried, sent: now, fate: Fate::Unknown });
        core.timers.set(Timer::Hop(hop), now + rto);
        Ok(())
    }

    /// Whether this hop waits for the acknowledgement of this peer.
    pub(crate) fn awaits(&self, from: NodeId, hop: u64) -> bool {
        self.pending.get(&hop).is_some_and(|pending| pending.to.id == from)
    }

    /// A hop was acknowledged. Returns how long that took.
    pub(crate) fn on_ack(&mut self, now: Instant, core: &mut Core, hop: u64) -> Option<Duration> {
        let pending = self.take(hop)?;
        core.timers.cancel(Timer::Hop(hop));
        Some(now - pending.sent)
    }

    /// The message of a hop that this peer refuses, and the hops that were tried before it.
    pub(crate) fn refused(&self, from: NodeId, hop: u64) -> Option<(&Routed, Vec<NodeId>)> {
        let pending = self.pending.get(&hop).filter(|pending| pending.to.id == from)?;
        Some((&pending.routed, pending.tried.clone()))
    }

    /// Takes a refused hop. It counts as one that may have arrived: an earlier copy of the frame may have been taken over.
    pub(crate) fn take_refused(&mut self, core: &mut Core, hop: u64) -> Option<Unacknowledged> {
        core.timers.cancel(Timer::Hop(hop));
        self.take(hop).map(Unacknowledged::from)
    }

    /// A hop was not acknowledged in time, if it was one.
    pub(crate) fn on_timeout(&mut self, hop: u64) -> Option<Unacknowledged> {
        self.take(hop).map(Unacknowledged::from)
    }

    /// A peer is gone: what waits for its acknowledgement is to go another way.
    pub(crate) fn take_all_to(&mut self, core: &mut Core, lost: NodeId) -> Vec<Unacknowledged> {
        let to_it = self.pending.iter().filter(|(_, pending)| pending.to.id == lost);
        let hops: Vec<u64> = to_it.map(|(&hop, _)| hop).collect();
        let take = |hop| {
            core.timers.cancel(Timer::Hop(hop));
            self.take(hop).map(Unacknowledged::from)
        };
        hops.into_iter().filter_map(take).collect()
    }

    /// A peer cannot be dialled: its hops need not wait for their time, and those that no connection carried have not
    /// left this node.
    pub(crate) fn on_refused(&mut self, now: Instant, core: &mut Core, id: NodeId) {
        for (&hop, pending) in self.pending.iter_mut().filter(|(_, pending)| pending.to.id == id) {
            core.timers.set_earlier(Timer::Hop(hop), now);
            if pending.fate == Fate::Unknown {
                pending.fate = Fate::Unsent;
            }
        }
    }

    /// A connection broke: what waits for its peer's acknowledgement may have arrived there.
    pub(crate) fn on_link_down(&mut self, id: NodeId) {
        for pending in self.pending.values_mut().filter(|pending| pending.to.id == id) {
            pending.fate = Fate::MayHaveArrived;
        }
    }

    /// Lets a message wait for a way, or for this node's leases. Drops a copy of one that waits already, because its origin
    /// has asked again.
    pub(crate) fn park(&mut self, core: &mut Core, now: Instant, parked: Parked) -> Result<(), Overloaded> {
        if self.parked.iter().any(|other| other.is_copy(&parked.routed, &parked.payload)) {
            return Ok(());
        }
        if self.parked.len() >= core.config.routing.max_parked || !self.has_room(&parked.payload) {
            return Err(Overloaded(Box::new(parked.routed)));
        }
        self.held += parked.payload.len();
        self.parked.push_back(parked);
        if !core.timers.is_set(Timer::Parked) {
            core.timers.set(Timer::Parked, now + PARKED_PERIOD);
        }
        Ok(())
    }

    /// Takes all parked messages, each to look for a way again, in their order.
    pub(crate) fn take_parked(&mut self) -> VecDeque<Parked> {
        let parked = std::mem::take(&mut self.parked);
        self.held -= parked.iter().map(|parked| parked.payload.len()).sum::<usize>();
        parked
    }

    /// A message that was parked again has waited since then, if there are more than `before`.
    pub(crate) fn keep_since(&mut self, before: usize, since: Instant) {
        if self.parked.len() > before
            && let Some(again) = self.parked.back_mut()
        {
            again.since = since;
        }
    }

    /// Sets the time of the next look, if any message is parked.
    pub(crate) fn plan_parked(&self, now: Instant, core: &mut Core) {
        if !self.parked.is_empty() {
            core.timers.set(Timer::Parked, now + PARKED_PERIOD);
        }
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

    /// Whether the count of bytes is right, and within its limit unless one message exceeds it.
    pub(crate) fn holds_no_more_than_it_may(&self) -> bool {
        let pending = self.pending.values().map(|pending| pending.payload.len());
        let held: usize = pending.chain(self.parked.iter().map(|parked| parked.payload.len())).sum();
        held == self.held && (held <= MAX_HELD_BYTES || self.pending.len() + self.parked.len() == 1)
    }

    /// Gives back what a burst has taken; forgets what was seen before the last time.
    pub(crate) fn tidy(&mut self) {
        if self.pending.is_empty() {
            // An emptied tree keeps a node.
            self.pending = BTreeMap::new();
        }
        self.parked.shrink_to_fit();
        self.seen.age();
    }

    /// Bytes on the heap, payloads included.
    pub(crate) fn bytes(&self) -> usize {
        let pending = memory::tree(self.pending.len(), size_of::<(u64, Pending)>());
        pending + memory::queue(&self.parked) + self.held + self.seen.bytes()
    }

    /// How many messages wait, and how many hops are remembered (promise O5).
    pub(crate) fn sizes(&self, config: &Config) -> [Size; 4] {
        // One message may exceed the limit of bytes: it counts as none.
        let alone = self.pending.len() + self.parked.len() == 1;
        [
            ("pending hops", self.pending.len(), config.routing.max_pending_hops),
            ("parked messages", self.parked.len(), config.routing.max_parked),
            ("bytes of pending and parked messages", if alone { 0 } else { self.held }, MAX_HELD_BYTES),
            self.seen.size("hops seen"),
        ]
    }

    /// Hashes the messages that wait, for a model checker.
    pub(crate) fn hash_waiting(&self, state: &mut impl Hasher) {
        self.pending.hash(state);
        self.parked.hash(state);
    }

    /// Hops that were taken over: the nodes that handed them over, and their numbers.
    pub(crate) fn taken(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.seen.iter().map(|&(from, _, hop)| (from, hop))
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn parked(&self) -> usize {
        self.parked.len()
    }
}

//! Acknowledged hops (MSPastry §3.2): each hop is kept until it is acknowledged, and goes another way if it is not.
//! Messages that cannot go on yet are parked for a while.
//!
//! Silence has two causes, and only one of them is mended by going another way. A peer that was heard since the hop left lives,
//! and is slow, unless it has acknowledged a later hop, because then this one was lost: frames of one class arrive in their
//! order. So the wait for a slow peer begins anew, twice as long, and an acknowledgement that comes after the wait is a sample
//! of the round-trip time all the same (RFC 4015: a spurious time-out). Otherwise a ring whose nodes are late by more than the
//! shortest wait would send each message in six copies, and be later for it.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;

use super::matched;
use super::seen::Seen;
use crate::config::Config;
use crate::id::{Key, NodeId};
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
/// How many of them do so then, those first that have not for longest: a full house takes four seconds.
pub(crate) const PARKED_AT_ONCE: usize = 128;
/// Hops remembered after their wait, for the time that their acknowledgements took; beyond it the oldest are forgotten.
const MAX_EXPIRED: usize = 1024;
/// Peers whose last acknowledged hop is remembered; beyond it all are forgotten.
const MAX_ACKNOWLEDGED: usize = 1024;

/// Messages between two hops.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hops {
    pending: BTreeMap<u64, Pending>,
    /// Where and when hops were sent for whose acknowledgement this node waits no more.
    expired: BTreeMap<u64, (NodeId, Instant)>,
    /// The latest hop that a peer has acknowledged, of control and of data: each class arrives in its order.
    acknowledged: BTreeMap<(NodeId, bool), u64>,
    /// In the order in which they look for a way.
    parked: BTreeMap<u64, Parked>,
    /// The places of the parked, by origin and number.
    places: BTreeMap<Name, u64>,
    next_place: u64,
    /// Bytes of the payloads, pending and parked.
    held: usize,
    seen: Seen<(NodeId, u64, u64)>,
}

/// A message's name: its origin, and its number there.
type Name = (Peer, u64, Key);

fn name(routed: &Routed) -> Name {
    (routed.origin.peer, routed.id, routed.key)
}

/// A message whose next hop has not acknowledged it yet.
#[derive(Clone, Debug, Hash)]
struct Pending {
    to: Peer,
    routed: Routed,
    payload: Bytes,
    tried: Vec<NodeId>,
    sent: Instant,
    /// How long its acknowledgement is waited for; doubled each time that the wait begins anew.
    wait: Duration,
    /// How often it has.
    waits: u8,
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
        let doubled = rto.saturating_mul(1 << tried.len().min(16));
        let wait = doubled.min(core.config.failure.rto_max.max(rto));
        self.keep(
            hop,
            Pending { to, routed, payload, tried, sent: now, wait, waits: 0, fate: Fate::Unknown },
        );
        core.timers.set(Timer::Hop(hop), now + wait);
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
        if self.acknowledged.len() >= MAX_ACKNOWLEDGED {
            self.acknowledged.clear();
        }
        let latest = self.acknowledged.entry((pending.to.id, pending.payload.is_empty())).or_default();
        *latest = hop.max(*latest);
        Some(now - pending.sent)
    }

    /// A hop was acknowledged after its wait. Returns how long that took.
    pub(crate) fn on_late_ack(&mut self, now: Instant, from: NodeId, hop: u64) -> Option<Duration> {
        let &(_, sent) = self.expired.get(&hop).filter(|(to, _)| *to == from)?;
        self.expired.remove(&hop);
        Some(now - sent)
    }

    /// The peer whose acknowledgement of this hop is waited for, and since when.
    pub(crate) fn awaited(&self, hop: u64) -> Option<(NodeId, Instant)> {
        self.pending.get(&hop).map(|pending| (pending.to.id, pending.sent))
    }

    /// The wait for a hop is over, and its peer was heard meanwhile. Begins the wait anew, unless the hop was lost or this
    /// was done often enough. Returns whether it did.
    pub(crate) fn wait_again(&mut self, now: Instant, core: &mut Core, hop: u64) -> bool {
        let Some(pending) = self.pending.get_mut(&hop) else { return false };
        let class = (pending.to.id, pending.payload.is_empty());
        let is_lost = self.acknowledged.get(&class).is_some_and(|&latest| latest > hop);
        if is_lost || pending.fate != Fate::Unknown || pending.waits >= core.config.routing.hop_patience {
            return false;
        }
        pending.waits += 1;
        pending.wait = (pending.wait * 2).min(core.config.failure.rto_max.max(pending.wait));
        core.timers.set(Timer::Hop(hop), now + pending.wait);
        true
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
        let pending = self.take(hop)?;
        if self.expired.len() >= MAX_EXPIRED {
            self.expired.pop_first();
        }
        self.expired.insert(hop, (pending.to.id, pending.sent));
        Some(pending.into())
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
        let name = name(&parked.routed);
        let waiting = self.places.get(&name).and_then(|place| self.parked.get(place));
        if waiting.is_some_and(|waiting| waiting.payload == parked.payload) {
            return Ok(());
        }
        if self.parked.len() >= core.config.routing.max_parked || !self.has_room(&parked.payload) {
            return Err(Overloaded(Box::new(parked.routed)));
        }
        self.held += parked.payload.len();
        // (The same name with another payload is no copy: one of both is forged.)
        self.places.entry(name).or_insert(self.next_place);
        self.parked.insert(self.next_place, parked);
        self.next_place += 1;
        if !core.timers.is_set(Timer::Parked) {
            core.timers.set(Timer::Parked, now + PARKED_PERIOD);
        }
        Ok(())
    }

    /// Takes so many parked messages, each to look for a way again, in their order.
    pub(crate) fn take_parked(&mut self, most: usize) -> Vec<Parked> {
        let mut taken = Vec::with_capacity(most.min(self.parked.len()));
        while taken.len() < most
            && let Some((place, parked)) = self.parked.pop_first()
        {
            let name = name(&parked.routed);
            if self.places.get(&name) == Some(&place) {
                self.places.remove(&name);
            }
            self.held -= parked.payload.len();
            taken.push(parked);
        }
        taken
    }

    /// A message that was parked again has waited since then, if there are more than `before`.
    pub(crate) fn keep_since(&mut self, before: usize, since: Instant) {
        if self.parked.len() > before
            && let Some(mut again) = self.parked.last_entry()
        {
            again.get_mut().since = since;
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
        let held: usize = pending.chain(self.parked.values().map(|parked| parked.payload.len())).sum();
        held == self.held && (held <= MAX_HELD_BYTES || self.pending.len() + self.parked.len() == 1)
    }

    /// Gives back what a burst has taken; forgets what was seen before the last time.
    pub(crate) fn tidy(&mut self) {
        if self.pending.is_empty() {
            // An emptied tree keeps a node.
            self.pending = BTreeMap::new();
        }
        if self.parked.is_empty() {
            (self.parked, self.places) = (BTreeMap::new(), BTreeMap::new());
        }
        (self.expired, self.acknowledged) = (BTreeMap::new(), BTreeMap::new());
        self.seen.age();
    }

    /// Bytes on the heap, payloads included.
    pub(crate) fn bytes(&self) -> usize {
        let pending = memory::tree(self.pending.len(), size_of::<(u64, Pending)>());
        let parked = memory::tree(self.parked.len(), size_of::<(u64, Parked)>());
        let places = memory::tree(self.places.len(), size_of::<(Name, u64)>());
        let expired = memory::tree(self.expired.len(), size_of::<(u64, (NodeId, Instant))>());
        let acknowledged = memory::tree(self.acknowledged.len(), size_of::<((NodeId, bool), u64)>());
        pending + parked + places + expired + acknowledged + self.held + self.seen.bytes()
    }

    /// How many messages wait, and how many hops are remembered (promise O5).
    pub(crate) fn sizes(&self, config: &Config) -> [Size; 6] {
        // One message may exceed the limit of bytes: it counts as none.
        let alone = self.pending.len() + self.parked.len() == 1;
        [
            ("pending hops", self.pending.len(), config.routing.max_pending_hops),
            ("parked messages", self.parked.len(), config.routing.max_parked),
            ("bytes of pending and parked messages", if alone { 0 } else { self.held }, MAX_HELD_BYTES),
            ("hops after their wait", self.expired.len(), MAX_EXPIRED),
            ("peers that acknowledged hops", self.acknowledged.len(), MAX_ACKNOWLEDGED),
            self.seen.size("hops seen"),
        ]
    }

    /// Hashes the messages that wait, for a model checker.
    pub(crate) fn hash_waiting(&self, state: &mut impl Hasher) {
        self.pending.hash(state);
        // Not their places: only the order of the parked decides anything.
        self.parked.values().for_each(|parked| parked.hash(state));
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

//! Routing (Pastry §2.3): where a message goes next, and what happens where it ends.

use bytes::Bytes;

use super::Node;
use super::join::Phase;
use crate::id::{Key, NodeId};
use crate::kbr::{Delivery, Event, KeyBasedRouting, Transit};
use crate::peer::Peer;
use crate::table::Entry;
use crate::time::Instant;
use crate::wire::{Answer, Letter, MAX_PATH, Purpose, RouteFailure, Routed, TraceHop};

/// Where a message goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hop {
    /// Nowhere: this node is the closest to its key.
    Mine,
    /// To this peer.
    To {
        /// The next hop.
        peer: Peer,
        /// It was chosen by the leaf set: from here on each hop must be strictly closer (promise O2).
        by_leaf_set: bool,
    },
    /// Not now: whoever is closest does not answer, and its fate is not decided yet.
    Wait,
}

impl Node {
    /// A routed message of this node's own.
    pub(super) fn new_routed(&self, id: u64, key: Key, purpose: Purpose, trace: bool) -> Routed {
        Routed {
            hop: 0,
            key,
            origin: self.contact(),
            id,
            hops: 0,
            by_leaf_set: false,
            repeated: false,
            purpose,
            trace: trace.then(Vec::new),
        }
    }

    pub(super) fn send_off(&mut self, now: Instant, key: Key, payload: Bytes) {
        let id = self.number();
        let routed = self.new_routed(id, key, Purpose::Application, false);
        self.pass_on(now, routed, payload, None);
    }

    /// Sends a message one hop on, ends it here, or lets it wait. `previous`: who handed it to this node.
    pub(super) fn pass_on(&mut self, now: Instant, routed: Routed, payload: Bytes, previous: Option<Peer>) {
        match self.next_hop(&routed, &[]) {
            Hop::Mine if self.may_answer(now, &routed.purpose) => self.arrive(now, routed, payload),
            Hop::Mine | Hop::Wait => self.park(now, routed, payload, previous),
            Hop::To { peer, by_leaf_set } => match (previous, &routed.purpose) {
                (Some(previous), Purpose::Application) => {
                    self.events.push_back(Event::Forward(Transit { routed, previous, payload }));
                }
                _ => self.send_hop(now, peer, by_leaf_set, routed, payload),
            },
        }
    }

    /// The layer above gives a message back.
    pub(super) fn go_on(&mut self, now: Instant, transit: Transit) {
        let Transit { routed, payload, .. } = transit;
        self.pass_on(now, routed, payload, None);
    }

    /// Whether this node, closest to a message's key, may answer it now. To be told one's neighbours on the ring
    /// needs no lease: what is told there is checked by probes and slots.
    fn may_answer(&self, now: Instant, purpose: &Purpose) -> bool {
        match purpose {
            Purpose::Seek => self.is_ready(),
            Purpose::Application | Purpose::Lookup => self.is_serving(now),
        }
    }

    /// Whether this node is closer to the key than any node that it knows around it: dead ones whose lease runs and
    /// joiners to whom a part was given up count.
    pub(super) fn owns(&self, key: Key) -> bool {
        // Of the leaf set only the next node on each side can be closer where this one is closer than both.
        let nearest =
            self.leaf_set.left().into_iter().chain(self.leaf_set.right()).chain(self.slots.successors());
        nearest.map(|peer| peer.id).all(|id| key.is_closer(self.me.id, id))
    }

    /// The nearest to a key of those around this node, itself left out.
    fn nearest(&self, key: Key, usable: impl Fn(&Peer) -> bool) -> Option<Peer> {
        let member = self.leaf_set.closest(key, &usable).copied();
        let successors = self.slots.successors().filter(|peer| usable(peer)).copied();
        member.into_iter().chain(successors).min_by(|a, b| key.closer(a.id, b.id))
    }

    /// Pastry §2.3's rule, under promise O2. `tried`: next hops that did not acknowledge.
    pub(super) fn next_hop(&self, routed: &Routed, tried: &[NodeId]) -> Hop {
        if self.is_edge() {
            let access = self.access.primary();
            return access.map_or(Hop::Wait, |peer| Hop::To { peer, by_leaf_set: false });
        }
        let key = routed.key;
        // A seeker is on nobody's way to itself: its former life may still stand in the tables.
        let seeker = matches!(routed.purpose, Purpose::Seek).then(|| routed.origin.id());
        let exists = |peer: &Peer| Some(peer.id) != seeker;
        let usable =
            |peer: &Peer| exists(peer) && !tried.contains(&peer.id) && !self.leases.is_condemned(peer.id);
        let closer = |peer: &Peer| key.is_closer(peer.id, self.me.id);

        // "If D is within range of our leaf set, forward to the numerically closest member."
        if self.leaf_set.covers(key) || self.owns(key) {
            let nearest = self.nearest(key, exists).filter(closer);
            let reachable = self.nearest(key, usable).filter(closer);
            return match (nearest, reachable) {
                (None, _) => Hop::Mine,
                (Some(_), Some(peer)) => Hop::To { peer, by_leaf_set: true },
                // Never past a root that may live: it has answered nothing, but nobody found it dead.
                (Some(_), None) => Hop::Wait,
            };
        }
        let allowed = |peer: &Peer| usable(peer) && (!routed.by_leaf_set || closer(peer));
        // In a small ring every node knows every node: as if all of it were the leaf set.
        let sound = |peer: &Peer| allowed(peer) && closer(peer) && !self.liveness.is_suspect(peer.id);
        if let Some(peer) = self.members.closest(key, sound) {
            return Hop::To { peer, by_leaf_set: true };
        }
        // "Otherwise use the routing table, and forward to a node that shares a longer prefix with the key."
        let slot = || self.table.next_hops(key).iter().filter(|entry| allowed(&entry.peer));
        let cost = |entry: &&Entry| self.proximity.cost(entry, key);
        let sound = slot().filter(|entry| !self.liveness.is_suspect(entry.peer.id)).min_by_key(cost);
        if let Some(entry) = sound.or_else(|| slot().min_by_key(cost)) {
            return Hop::To { peer: entry.peer, by_leaf_set: routed.by_leaf_set };
        }
        // "In certain cases (…) forward to a node that shares a prefix at least as long, and is closer."
        let matched = key.shared_prefix(self.me.id);
        let near = self.neighbourhood.iter().map(|entry| &entry.peer);
        let known = self.table.iter().chain(self.leaf_set.iter()).chain(near);
        let rare = known
            .filter(|peer| allowed(peer) && closer(peer) && key.shared_prefix(peer.id) >= matched)
            .max_by(|a, b| {
                let prefix = |peer: &Peer| key.shared_prefix(peer.id);
                prefix(a).cmp(&prefix(b)).then_with(|| key.closer(b.id, a.id))
            });
        if let Some(&peer) = rare {
            return Hop::To { peer, by_leaf_set: routed.by_leaf_set };
        }
        match self.nearest(key, usable).filter(closer) {
            Some(peer) => Hop::To { peer, by_leaf_set: true },
            None => Hop::Wait,
        }
    }

    /// A message from another node.
    pub(super) fn take_over(&mut self, now: Instant, from: Peer, mut routed: Routed, payload: Bytes) {
        routed.hops = routed.hops.saturating_add(1);
        if usize::from(routed.hops) > MAX_PATH {
            return self.fail(now, routed, RouteFailure::HopLimit);
        }
        // Whoever slept handles what waited for it meanwhile: that may long have gone another way.
        routed.repeated |= self.leases.is_any_waking();
        if routed.by_leaf_set {
            // It stands in the sender's leaf set, or near it: a word by which they should have met was lost.
            self.consider_all(now, vec![from]);
        }
        self.pass_on(now, routed, payload, Some(from));
    }

    /// Whether a routed message may be taken over at all: by a ring node, or by a joiner whose neighbours may have
    /// given up its part to it already.
    pub(super) fn takes_messages(&self) -> bool {
        match &self.phase {
            Phase::Ready => !self.is_edge(),
            Phase::Entering(entering) => entering.has_asked_to_commit(),
            Phase::Idle
            | Phase::Asking(_)
            | Phase::Attaching { .. }
            | Phase::Seeking { .. }
            | Phase::Stopped => false,
        }
    }

    /// The message is at the root of its key.
    fn arrive(&mut self, now: Instant, mut routed: Routed, payload: Bytes) {
        if let Some(path) = &mut routed.trace {
            path.push(TraceHop {
                node: self.me.id,
                matched: matched(routed.key, self.me.id),
                rtt_micros: None,
            });
        }
        let Routed { key, origin, id, hops, repeated, purpose, trace, .. } = routed;
        let answer = |leaf_set| Box::new(Answer { id, root: self.me, hops, trace, leaf_set });
        let answer = match purpose {
            Purpose::Application => {
                return self.events.push_back(Event::Deliver(Delivery {
                    key,
                    origin,
                    hops,
                    repeated,
                    payload,
                }));
            }
            Purpose::Lookup => answer(Vec::new()),
            Purpose::Seek => answer(self.all_but(origin.id())),
        };
        self.send_letter(now, &origin, Letter::Answer(answer), Bytes::new());
    }

    /// The message stops here; its origin is told.
    pub(super) fn fail(&mut self, now: Instant, routed: Routed, reason: RouteFailure) {
        let Routed { key, origin, id, purpose, .. } = routed;
        tracing::debug!(node = %self.me.id, %key, ?reason, ?purpose, "undeliverable");
        self.send_letter(now, &origin, Letter::Undeliverable { id, key, reason }, Bytes::new());
    }

    /// A message of this node's own stopped on its way.
    pub(super) fn on_undeliverable(&mut self, id: u64, key: Key, reason: RouteFailure) {
        if self.lookups.contains(id) {
            self.on_lookup_failed(id, reason);
        } else if key != self.me.id.key() {
            // (What goes to this node's own key is a join's or a merge's question, repeated by its own timer.)
            self.events.push_back(Event::Undeliverable { key, reason });
        }
    }
}

/// How many digits an id shares with a key, as it stands in a trace.
pub(super) fn matched(key: Key, id: NodeId) -> u8 {
    u8::try_from(key.shared_prefix(id)).unwrap_or(u8::MAX)
}

//! Messages of and through a node: routed ones, lookups, broadcasts, and direct ones.

use bytes::Bytes;

use super::node::Node;
use super::relay::{self, Way};
use super::routing::broadcasts::{Arcs, BroadcastId, Piece};
use super::routing::hops::{NextHop, Overloaded, PARKED_AT_ONCE, Parked, Unacknowledged};
use super::routing::lookups::LookupAttempt;
use super::routing::{Hop, matched};
use crate::geometry::Geometry;
use crate::id::{Key, NodeId};
use crate::kbr::{BroadcastFailure, Delivery, Event, Transit};
use crate::peer::{Contact, Peer};
use crate::time::Instant;
use crate::wire::{Answer, Class, Direct, Frame, Header, MAX_PATH, Purpose, RouteFailure, Routed, TraceHop};

// Routed messages.
impl<G: Geometry> Node<G> {
    /// A routed message of this node's own.
    pub(super) fn new_routed(&self, id: u64, key: Key, purpose: Purpose, trace: bool) -> Routed {
        Routed {
            hop: 0,
            key,
            origin: self.relaying().contact(),
            id,
            hops: 0,
            by_leaf_set: false,
            repeated: false,
            purpose,
            trace: trace.then(Vec::new),
        }
    }

    /// Sends a message of this node's own towards the root of a key.
    pub(super) fn originate(&mut self, now: Instant, key: Key, payload: Bytes) {
        let id = self.core.number();
        let routed = self.new_routed(id, key, Purpose::Application, false);
        self.forward(now, routed, payload, None);
    }

    /// Asks for the neighbours of this node's own id, by way of `through`.
    pub(super) fn seek_through(&mut self, now: Instant, through: Peer, id: u64) {
        let routed = self.new_routed(id, self.core.me.id.key(), Purpose::Seek, false);
        self.send_via(now, through, routed, Bytes::new(), Vec::new());
    }

    fn next_hop(&self, routed: &Routed, tried: &[NodeId]) -> Hop {
        if self.core.is_edge() {
            let access = self.access.primary();
            return access.map_or(Hop::Wait, |peer| Hop::To { peer, by_leaf_set: false });
        }
        self.view().next_hop(routed, tried)
    }

    /// Sends a message one hop on, ends it here, or lets it wait. `previous`: the node that handed it to this one.
    pub(super) fn forward(&mut self, now: Instant, routed: Routed, payload: Bytes, previous: Option<Peer>) {
        match self.next_hop(&routed, &[]) {
            Hop::Mine if self.may_answer(now, &routed.purpose) => self.deliver(now, routed, payload),
            Hop::Mine | Hop::Wait => self.park(now, routed, payload, previous),
            Hop::To { peer, by_leaf_set } => match (previous, &routed.purpose) {
                (Some(previous), Purpose::Application) => {
                    self.core.emit(Event::Forward(Transit { routed, previous, payload }));
                }
                _ => self.send_hop(now, peer, by_leaf_set, routed, payload, Vec::new()),
            },
        }
    }

    /// Whether this node, closest to a message's key, may answer it now. To be told one's neighbours on the ring
    /// needs no lease, because what is told there is checked by probes and slots.
    fn may_answer(&self, now: Instant, purpose: &Purpose) -> bool {
        match purpose {
            Purpose::Seek => self.core.is_ready(),
            Purpose::Application | Purpose::Lookup => self.is_serving(now),
        }
    }

    fn send_hop(
        &mut self,
        now: Instant,
        to: Peer,
        by_leaf_set: bool,
        routed: Routed,
        payload: Bytes,
        tried: Vec<NodeId>,
    ) {
        let routed = Routed { by_leaf_set: routed.by_leaf_set || by_leaf_set, ..routed };
        self.send_via(now, to, routed, payload, tried);
    }

    /// Hands a message to a certain next hop.
    fn send_via(&mut self, now: Instant, to: Peer, routed: Routed, payload: Bytes, tried: Vec<NodeId>) {
        let table_rtt = self.geometry.rtt(to.id);
        let next = NextHop {
            peer: to,
            rtt: self.detector.rtt(to.id).or(table_rtt).or_else(|| self.access.rtt(to.id)),
            rto: self.detector.hop_rto(&self.core.config, to.id, table_rtt),
        };
        let sent = self.hops.send(now, &mut self.core, next, routed, payload, tried);
        if let Err(Overloaded(routed)) = sent {
            self.fail(now, *routed, RouteFailure::Overloaded);
        }
    }

    pub(super) fn on_routed(&mut self, now: Instant, from: Peer, routed: Routed, payload: Bytes) {
        if !self.takes_messages() {
            return self.core.send(from, Header::HopRefused { hop: routed.hop });
        }
        self.core.send(from, Header::HopAck { hop: routed.hop });
        if self.hops.is_new(&from, routed.hop) {
            self.accept_hop(now, from, routed, payload);
        }
    }

    /// Whether a routed message may be accepted at all: by a ring node, or by a joiner whose neighbours may have ceded its
    /// part to it already.
    fn takes_messages(&self) -> bool {
        self.core.is_on_ring() || self.join.has_asked_to_commit()
    }

    fn accept_hop(&mut self, now: Instant, from: Peer, mut routed: Routed, payload: Bytes) {
        routed.hops = routed.hops.saturating_add(1);
        if usize::from(routed.hops) > MAX_PATH {
            return self.fail(now, routed, RouteFailure::HopLimit);
        }
        // A node that slept handles what waited for it meanwhile: that may long have gone another way.
        routed.repeated |= self.leases.is_any_waking();
        if routed.by_leaf_set {
            // It stands in the sender's leaf set, or near it: a frame by which they should have met was lost.
            self.consider_all(now, vec![from]);
        }
        self.forward(now, routed, payload, Some(from));
    }

    /// The message is at the root of its key.
    fn deliver(&mut self, now: Instant, mut routed: Routed, payload: Bytes) {
        let me = self.core.me;
        if let Some(path) = &mut routed.trace {
            path.push(TraceHop { node: me.id, matched: matched(routed.key, me.id), rtt_micros: None });
        }
        let Routed { key, origin, id, hops, repeated, purpose, trace, .. } = routed;
        let answer = |leaf_set| Box::new(Answer { id, root: me, hops, trace, leaf_set });
        let answer = match purpose {
            Purpose::Application => {
                let delivery = Delivery { key, origin, hops, repeated, payload };
                return self.core.emit(Event::Deliver(delivery));
            }
            Purpose::Lookup => answer(Vec::new()),
            Purpose::Seek => answer(self.geometry.told_to(&self.tables.leaf_set, origin.id())),
        };
        self.send_direct(now, &origin, Direct::Answer(answer), Bytes::new());
    }

    /// The message stops here; its origin is told.
    fn fail(&mut self, now: Instant, routed: Routed, reason: RouteFailure) {
        let Routed { key, origin, id, purpose, .. } = routed;
        tracing::debug!(node = %self.core.me.id, %key, ?reason, ?purpose, "undeliverable");
        self.send_direct(now, &origin, Direct::Undeliverable { id, key, reason }, Bytes::new());
    }

    /// A message of this node's own stopped on its way.
    fn on_undeliverable(&mut self, id: u64, key: Key, reason: RouteFailure) {
        if !self.lookups.on_failed(id, reason) && key != self.core.me.id.key() {
            // (A message to this node's own key is a join's or a merge's question, repeated by its own timer.)
            self.core.emit(Event::Undeliverable { key, reason });
        }
    }

    pub(super) fn on_hop_ack(&mut self, now: Instant, from: Peer, hop: u64) {
        if !self.hops.awaits(from.id, hop) {
            if let Some(took) = self.hops.on_late_ack(now, from.id, hop) {
                self.detector.note_slow(from.id, took);
            }
            return self.broadcasts.on_ack(&mut self.core, from, hop);
        }
        if let Some(took) = self.hops.on_ack(now, &mut self.core, hop) {
            self.note_round_trip(from, took);
        }
    }

    /// Not acknowledged in time. Where the peer was heard meanwhile it is slow, and waited for again; otherwise it is suspect,
    /// and the message goes another way at once.
    pub(super) fn on_hop_timeout(&mut self, now: Instant, hop: u64) {
        let awaited = self.hops.awaited(hop);
        let is_heard = awaited.is_some_and(|(id, sent)| self.detector.was_heard_since(now, id, sent));
        if is_heard && self.hops.wait_again(now, &mut self.core, hop) {
            return;
        }
        let Some(unacknowledged) = self.hops.on_timeout(hop) else {
            return self.on_piece_timeout(now, hop);
        };
        let Unacknowledged { to, routed, payload, mut tried } = unacknowledged;
        if self.core.is_on_ring() {
            self.probe(now, to, false);
        }
        tried.push(to.id);
        if tried.len() >= usize::from(self.core.config.routing.hop_attempts) {
            return self.fail(now, routed, RouteFailure::NoRoute);
        }
        match self.next_hop(&routed, &tried) {
            Hop::To { peer, by_leaf_set } => self.send_hop(now, peer, by_leaf_set, routed, payload, tried),
            Hop::Mine | Hop::Wait => self.park(now, routed, payload, None),
        }
    }

    /// The next hop does not take a message over. If there is another way, the message goes it at once; else its time-out
    /// decides, because the refusing node may be about to take its place.
    pub(super) fn on_hop_refused(&mut self, now: Instant, from: Peer, hop: u64) {
        let Some((routed, mut tried)) = self.hops.refused(from.id, hop) else { return };
        tried.push(from.id);
        let has_attempts = tried.len() < usize::from(self.core.config.routing.hop_attempts);
        if let Hop::To { peer, by_leaf_set } = self.next_hop(routed, &tried)
            && has_attempts
            && !tried.contains(&peer.id)
            && let Some(Unacknowledged { routed, payload, .. }) = self.hops.take_refused(&mut self.core, hop)
        {
            self.send_hop(now, peer, by_leaf_set, routed, payload, tried);
        }
    }

    /// A peer is gone: what waits for its acknowledgement goes another way.
    pub(super) fn reroute(&mut self, now: Instant, lost: NodeId) {
        for Unacknowledged { routed, payload, .. } in self.hops.take_all_to(&mut self.core, lost) {
            self.forward(now, routed, payload, None);
        }
    }

    /// Lets a message wait for a way, or for this node's leases.
    fn park(&mut self, now: Instant, routed: Routed, payload: Bytes, previous: Option<Peer>) {
        let parked = Parked { routed, payload, previous, since: now };
        if let Err(Overloaded(routed)) = self.hops.park(&mut self.core, now, parked) {
            self.fail(now, *routed, RouteFailure::Overloaded);
        }
    }

    pub(super) fn on_parked_timer(&mut self, now: Instant) {
        self.slots.expire(now, &self.leases);
        self.unpark(now, PARKED_AT_ONCE);
        self.hops.plan_parked(now, &mut self.core);
    }

    /// So many parked messages look for a way again, in their order; all where something has changed.
    pub(super) fn unpark(&mut self, now: Instant, most: usize) {
        for Parked { routed, payload, previous, since } in self.hops.take_parked(most) {
            if now - since >= self.core.config.routing.park_for {
                self.fail(now, routed, RouteFailure::NoRoot);
                continue;
            }
            let before = self.hops.parked();
            self.forward(now, routed, payload, previous);
            self.hops.keep_since(before, since);
        }
    }
}

// Lookups.
impl<G: Geometry> Node<G> {
    pub(super) fn look_up(&mut self, now: Instant, token: u64, key: Key, trace: bool) {
        if let Some(attempt) = self.lookups.begin(now, &mut self.core, token, key, trace) {
            self.ask_for_root(now, attempt);
        }
    }

    pub(super) fn on_lookup_timer(&mut self, now: Instant, id: u64) {
        if let Some(attempt) = self.lookups.on_timer(now, &mut self.core, id) {
            self.ask_for_root(now, attempt);
        }
    }

    fn ask_for_root(&mut self, now: Instant, attempt: LookupAttempt) {
        let LookupAttempt { id, key, trace, reply_way } = attempt;
        let mut routed = self.new_routed(id, key, Purpose::Lookup, trace);
        if let Some(way) = reply_way {
            routed.origin = self.relaying().reply_contact(way);
        }
        self.hedge(now, &routed);
        self.forward(now, routed, Bytes::new(), None);
    }

    /// Sends a question whose first hop may well be dead another way, too: the answer that comes first counts (Dean & Barroso
    /// 2013, "The Tail at Scale", hedged requests). Only the origin does so, and only lookups: they do no harm twice.
    fn hedge(&mut self, now: Instant, routed: &Routed) {
        if self.core.is_edge() {
            return;
        }
        let Hop::To { peer: first, by_leaf_set: false } = self.next_hop(routed, &[]) else { return };
        let table_use = self.geometry.table_use();
        if !self.detector.is_doubtful(now, &self.core.config, &self.tables, table_use, &first) {
            return;
        }
        if let Hop::To { peer, by_leaf_set } = self.next_hop(routed, &[first.id]) {
            self.send_hop(now, peer, by_leaf_set, routed.clone(), Bytes::new(), Vec::new());
        }
    }
}

// Broadcasts.
impl<G: Geometry> Node<G> {
    pub(super) fn broadcast(&mut self, now: Instant, token: u64, payload: Bytes) {
        let broadcast = BroadcastId { origin: self.relaying().contact(), id: self.core.number() };
        self.broadcasts.originate(broadcast, token);
        if let Err(failure) = self.send_broadcast(now, broadcast, payload) {
            self.broadcasts.end(&mut self.core, broadcast, Err(failure));
        } else if self.broadcasts.is_taken(broadcast) {
            self.broadcasts.end(&mut self.core, broadcast, Err(BroadcastFailure::Alone));
        }
    }

    fn send_broadcast(
        &mut self,
        now: Instant,
        broadcast: BroadcastId,
        payload: Bytes,
    ) -> Result<(), BroadcastFailure> {
        if !self.core.is_ready() {
            return Err(BroadcastFailure::NotReady);
        }
        if self.broadcasts.is_full(payload.len()) {
            return Err(BroadcastFailure::Overloaded);
        }
        if self.core.is_edge() {
            let access = self.access.primary().ok_or(BroadcastFailure::NotReady)?;
            self.give_to_access(now, access, broadcast, payload);
            return Ok(());
        }
        let me = self.core.me.id.key();
        self.tell_edges(now, broadcast, &payload);
        self.spread(now, me, Piece { broadcast, until: me, payload }, None);
        Ok(())
    }

    /// An edge's broadcast begins at its access node. That is part of the ring, too: its arc begins with itself.
    fn give_to_access(&mut self, now: Instant, access: Peer, broadcast: BroadcastId, payload: Bytes) {
        let piece = Piece { broadcast, until: access.id.key(), payload };
        self.delegate(now, access, piece);
    }

    pub(super) fn on_broadcast(&mut self, now: Instant, from: Peer, hop: u64, piece: Piece) {
        let is_edge = self.core.is_edge() && self.access.contains(from.id);
        if !is_edge && !self.takes_messages() {
            return;
        }
        self.core.send(from, Header::HopAck { hop });
        if !self.hops.is_new(&from, hop) {
            return;
        }
        // An edge hears it from each of its access nodes.
        let is_news = self.broadcasts.receive(&mut self.core, piece.broadcast, &piece.payload);
        if is_edge {
            return;
        }
        if is_news {
            self.tell_edges(now, piece.broadcast, &piece.payload);
        }
        self.spread(now, self.core.me.id.key(), piece, None);
    }

    /// Gives a broadcast to the edges of this node.
    fn tell_edges(&mut self, now: Instant, broadcast: BroadcastId, payload: &Bytes) {
        for edge in self.edges.peers() {
            if edge.id != broadcast.origin.id() {
                self.delegate(now, edge, Piece::for_edge(broadcast, edge.id, payload.clone()));
            }
        }
    }

    fn delegate(&mut self, now: Instant, to: Peer, piece: Piece) {
        let rto = self.detector.rto(&self.core.config, to.id, self.geometry.rtt(to.id));
        self.broadcasts.delegate(now, &mut self.core, rto, to, piece, 1);
    }

    fn spread(&mut self, now: Instant, after: Key, piece: Piece, without: Option<NodeId>) {
        let (detector, geometry, config) = (&self.detector, &self.geometry, self.core.config.clone());
        let rto = |id: NodeId| detector.rto(&config, id, geometry.rtt(id));
        let mut known = self.tables.leaf_set.iter().chain(geometry.entries()).copied();
        let arcs = Arcs { known: &mut known, rto: &rto };
        self.broadcasts.spread(now, &mut self.core, arcs, after, piece, without);
    }

    /// Not acknowledged: once more, then the arc goes to the next node in it.
    fn on_piece_timeout(&mut self, now: Instant, hop: u64) {
        let (detector, geometry, config) = (&self.detector, &self.geometry, self.core.config.clone());
        let rto = |id: NodeId| detector.rto(&config, id, geometry.rtt(id));
        let is_edge = self.core.is_edge();
        let is_access = |id: NodeId| is_edge && self.access.contains(id);
        let given_up = self.broadcasts.on_timeout(now, &mut self.core, hop, rto, is_access);
        let Some((to, piece)) = given_up else { return };
        let broadcast = piece.broadcast;
        if is_edge {
            match self.access.primary().filter(|access| access.id != to.id) {
                Some(access) => self.give_to_access(now, access, broadcast, piece.payload),
                None => {
                    self.broadcasts.end(&mut self.core, broadcast, Err(BroadcastFailure::NotAcknowledged))
                }
            }
            return;
        }
        if !self.edges.contains(to.id) {
            self.probe(now, to, false);
        }
        self.spread(now, to.id.key(), piece, Some(to.id));
        self.broadcasts.end_if_taken(&mut self.core, broadcast);
    }
}

// Direct messages: what one node tells another, directly or by way of an edge's access node; or of another one that the
// receiver has named, because the direct way may be broken.
impl<G: Geometry> Node<G> {
    /// Sends a direct message. To an edge it goes through its access node; from an edge too.
    pub(super) fn send_direct(&mut self, now: Instant, to: &Contact, direct: Direct, payload: Bytes) {
        let rules = self.relaying();
        let (me, way) = (rules.contact(), rules.way_to(to));
        if way == Way::Here {
            return self.on_direct(now, me, direct, payload);
        }
        relay::send(&mut self.core, way, (to, &me), direct, payload);
    }

    /// A direct message that passes through, or ends here.
    pub(super) fn on_relayed_direct(
        &mut self,
        now: Instant,
        previous: Peer,
        to: Contact,
        from: Contact,
        direct: Direct,
        payload: Bytes,
    ) {
        let way = self.relaying().way_on(previous, &to, &from);
        if way == Way::Here {
            return self.on_direct(now, from, direct, payload);
        }
        relay::send(&mut self.core, way, (&to, &from), direct, payload);
    }

    pub(super) fn on_direct(&mut self, now: Instant, from: Contact, direct: Direct, payload: Bytes) {
        match direct {
            Direct::Payload | Direct::Control => self.core.emit(Event::Received { from, payload }),
            Direct::Answer(answer) if self.lookups.contains(answer.id) => {
                self.lookups.on_answer(now, &mut self.core, *answer);
            }
            Direct::Answer(answer) => self.on_sought(now, *answer),
            Direct::Undeliverable { id, key, reason } => self.on_undeliverable(id, key, reason),
        }
    }

    /// Passes on a frame that is for another node.
    pub(super) fn pass_frame_on(
        &mut self,
        previous: Peer,
        (to, from): (Peer, Peer),
        class: Class,
        inner: Bytes,
    ) {
        if let Some(known) = self.relaying().detour(previous, to.id, from) {
            self.core.send_straight(known, Frame::new(Header::Via { to, from, class }, inner));
        }
    }
}

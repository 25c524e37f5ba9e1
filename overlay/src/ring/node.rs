//! The coordinator: one node of the overlay, the components that it is made of, and which frame or timer goes to which.

use std::sync::Arc;

use bytes::Bytes;

use super::core::{Core, Path, Phase, Timer};
use super::edge::{Access, Edges};
use super::failure::FailureDetector;
use super::join::{Join, Slots};
use super::leases::Leases;
use super::repair::{Merge, Repair};
use super::routing::broadcasts::{BroadcastId, Broadcasts, Piece};
use super::routing::hops::Hops;
use super::routing::lookups::Lookups;
use super::tables::Tables;
use crate::config::{Config, ConfigError, Role};
use crate::geometry::Geometry;
use crate::geometry::pastry::Pastry;
use crate::id::{Key, NodeId};
use crate::kbr::{Command, Event, KeyBasedRouting, RingView, Transit};
use crate::machine::{Link, Machine, Refusal, Store, StoreToken, Transmit};
use crate::memory::Memory;
use crate::peer::{Contact, Peer, Seed};
use crate::random;
use crate::table::LeafSet;
use crate::time::Instant;
use crate::wire::{Class, Direct, Frame, Header, NodeState};

/// One node of the overlay.
pub struct Node<G: Geometry = Pastry> {
    pub(super) core: Core,
    pub(super) tables: Tables,
    pub(super) geometry: G,
    pub(super) join: Join,
    pub(super) slots: Slots,
    pub(super) leases: Leases,
    pub(super) detector: FailureDetector,
    pub(super) repair: Repair,
    pub(super) merge: Merge,
    pub(super) hops: Hops,
    pub(super) lookups: Lookups,
    pub(super) broadcasts: Broadcasts,
    pub(super) edges: Edges,
    pub(super) access: Access,
}

/// A model checker drives these states of join, lease and liveness: it copies and compares them (design §4).
const _: () = {
    const fn can_be_driven<S: Clone + std::hash::Hash>() {}
    can_be_driven::<Join>();
    can_be_driven::<Slots>();
    can_be_driven::<Tables>();
    can_be_driven::<Leases>();
    can_be_driven::<FailureDetector>();
    can_be_driven::<Merge>();
    can_be_driven::<Access>();
    can_be_driven::<Edges>();
};

/// The path by which a frame came, and by which the answers go back.
#[derive(Clone, Copy, Debug)]
struct ReplyPath {
    to: NodeId,
    relay: Option<Peer>,
}

impl<G: Geometry> Node<G> {
    /// A node that has not started yet. `seed` is the source of all its random choices; many nodes may share one
    /// configuration.
    pub fn new(me: Peer, config: impl Into<Arc<Config>>, seed: [u8; 32]) -> Result<Node<G>, ConfigError> {
        let config = config.into();
        config.check()?;
        Ok(Node {
            tables: Tables::new(me.id, config.tables.leaf_set),
            geometry: G::new(me.id, &config),
            // Only a label of the choices; another one would change every recorded run.
            core: Core::new(me, config, random::stream(&seed, "pastry")),
            join: Join::default(),
            slots: Slots::default(),
            leases: Leases::default(),
            detector: FailureDetector::default(),
            repair: Repair::default(),
            merge: Merge::default(),
            hops: Hops::default(),
            lookups: Lookups::default(),
            broadcasts: Broadcasts::default(),
            edges: Edges::default(),
            access: Access::default(),
        })
    }

    /// The leaf set: the nodes around this one on the ring.
    pub fn leaf_set(&self) -> &LeafSet {
        &self.tables.leaf_set
    }

    /// The tables beyond the leaf set.
    pub fn geometry(&self) -> &G {
        &self.geometry
    }

    /// Ring or edge: an edge may have become a ring node.
    pub fn role(&self) -> Role {
        self.core.role
    }

    /// Handles a frame from this peer, and what it holds for this node if the peer has passed it on. Returns the path by
    /// which the answers go.
    fn on_incoming(&mut self, now: Instant, from: Peer, frame: Frame) -> ReplyPath {
        let passed_on = if let &Header::Via { to, from: sender, .. } = &frame.header {
            (to.id == self.core.me.id).then(|| (to, sender, frame.payload.clone()))
        } else {
            None
        };
        let is_heard = self.on_heard_frame(now, from, None, frame);
        if let Some((to, sender, inner)) = passed_on.filter(|_| is_heard)
            && let Some(inner) = self.relaying().open(from, to, sender, inner)
        {
            self.on_heard_frame(now, sender, Some(from), inner);
            return ReplyPath { to: sender.id, relay: Some(from) };
        }
        ReplyPath { to: from.id, relay: None }
    }

    /// Handles a frame, unless a later life of its sender is known: then it is void. Returns whether it was handled. `relay`:
    /// the node that passed it on, if its sender did not reach this node directly.
    fn on_heard_frame(&mut self, now: Instant, from: Peer, relay: Option<Peer>, frame: Frame) -> bool {
        match self.hear(now, from, relay) {
            Ok(()) => {
                self.on_frame(now, from, relay, frame);
                return true;
            }
            Err(Some(newer)) => self.core.send(from, Header::Outdated(newer)),
            // Where the newer life is, others know.
            Err(None) => {}
        }
        false
    }

    fn on_frame(&mut self, now: Instant, from: Peer, relay: Option<Peer>, frame: Frame) {
        let Frame { piggyback, header, payload } = frame;
        if let Some(piggyback) = piggyback {
            self.leases.on_piggyback(now, &mut self.core, &self.tables, &self.slots, from, *piggyback);
        }
        match header {
            Header::Routed(routed) => self.on_routed(now, from, routed, payload),
            Header::HopAck { hop } => self.on_hop_ack(now, from, hop),
            Header::HopRefused { hop } => self.on_hop_refused(now, from, hop),
            Header::Direct(direct) => {
                if direct.is_payload() && relay.is_none() {
                    self.detector.note_partner(now, from);
                }
                self.on_direct(now, from.into(), direct, payload);
            }
            Header::RelayedDirect { to, from: sender, direct } => {
                self.on_relayed_direct(now, from, *to, *sender, direct, payload)
            }
            Header::Probe(probe) => self.on_probe(now, from, probe),
            Header::ProbeAck(ack) => self.on_probe_ack(now, from, relay, ack),
            Header::JoinRequest => self.on_join_request(now, from),
            Header::Admission(admission) => self.on_admission(now, from, admission),
            Header::JoinCommit { number, other_neighbour } => {
                self.on_join_commit(now, from, number, other_neighbour)
            }
            Header::JoinCommitted { number, lease } => self.on_committed(now, from, number, lease),
            Header::JoinAbort { number } => self.on_join_abort(now, from, number),
            Header::LeafSet { members, reply } => self.on_leaf_set(now, from, members, reply),
            Header::Geometry(frame) => self.on_geometry_frame(now, from, &frame),
            Header::Leave { members } => self.on_leave(now, from, members),
            Header::Broadcast { hop, origin, id, until } => {
                let piece = Piece { broadcast: BroadcastId { origin, id }, until, payload };
                self.on_broadcast(now, from, hop, piece);
            }
            Header::Via { to, from: sender, class } => self.pass_frame_on(from, (to, sender), class, payload),
            Header::Outdated(life) => self.core.look_for_twin(now, life),
            Header::PeerDeadHint(dead) => self.on_death_hint(now, dead),
            Header::Attach => self.edges.on_attach(now, &mut self.core, &self.tables, from),
            Header::Attached { accepted, members } => self.on_attached(now, from, accepted, members),
            Header::Detach => self.edges.on_detach(&mut self.core, from.id),
        }
    }

    fn on_timer(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Join => self.on_join_timer(now),
            Timer::StartTimeout => self.on_start_timeout(),
            Timer::Heartbeat => self.on_heartbeat(now),
            Timer::Lease => self.on_lease_timer(now),
            Timer::Sweep => self.on_sweep(now),
            Timer::Repair => self.on_repair_timer(now),
            Timer::Geometry => self.on_geometry_timer(now),
            Timer::AskAgain => self.on_ask_again(now),
            Timer::Stitch => self.on_stitch_timer(now),
            Timer::Tell => self.repair.budget.tell_on(now, &mut self.core, &self.tables),
            Timer::Probe(id) => self.on_probe_timeout(now, id),
            Timer::Hop(hop) => self.on_hop_timeout(now, hop),
            Timer::Parked => self.on_parked_timer(now),
            Timer::Lookup(id) => self.on_lookup_timer(now, id),
            Timer::Edge if self.core.is_edge() => self.on_access_timer(now),
            Timer::Edge => self.edges.on_timer(now, &mut self.core),
        }
    }

    /// Begins every call from outside: a lease that ended counts for nothing (design §4: expiry is checked first).
    fn run_timers(&mut self, now: Instant) {
        if self.detector.slept(now, &self.core) {
            self.on_waking(now);
        }
        self.core.note_lateness(now);
        while let Some(timer) = self.core.next_timer(now) {
            self.on_timer(now, timer);
        }
        self.choose_paths(now, None);
    }

    /// Ends every call from outside: tells of a change in what this node answers for, and sends what is queued. `reply`: the
    /// path by which the handled frame came.
    fn finish(&mut self, now: Instant, reply: Option<ReplyPath>) {
        if let Some(serving) = self.leases.serving_changed(now, &self.core, &self.tables) {
            self.core.emit(Event::NeighboursChanged);
            if serving {
                self.unpark(now, usize::MAX);
            }
        }
        if self.core.is_on_ring() && self.tables.take_nearest_changed() {
            self.core.emit(Event::NearestChanged);
        }
        self.choose_paths(now, reply);
        #[cfg(debug_assertions)]
        self.assert_invariants();
    }

    /// Sends what a story has made a part of the node queue.
    #[cfg(test)]
    pub(super) fn send_queued(&mut self, now: Instant) {
        self.choose_paths(now, None);
    }

    /// Drains the outbox's queue: each frame goes by a detour if there is one, and an answer the way that the question came.
    /// A frame that goes directly to a ring neighbour may carry a lease piggyback.
    fn choose_paths(&mut self, now: Instant, reply: Option<ReplyPath>) {
        while let Some((to, frame)) = self.core.out.next_without_path() {
            let relay = match reply {
                Some(path) if path.to == to.id => path.relay,
                _ => self.detector.relay(now, &self.core.config, to.id),
            };
            let path = relay.map_or_else(
                || {
                    let is_asked = self.detector.is_asked_for_lease(to.id);
                    let (core, tables) = (&mut self.core, &self.tables);
                    let header = &frame.header;
                    Path::Straight(self.leases.piggyback_for(now, core, tables, to.id, header, is_asked))
                },
                Path::Through,
            );
            self.core.out.send_by(self.core.me, to, frame, path);
        }
    }

    /// Bytes of this node by part, inline ones included, by its own count. Payloads held are counted by their length. The
    /// shared configuration is not counted.
    pub fn memory(&self) -> Memory {
        let mut parts = Memory::default();
        parts.add("inline", size_of::<Node<G>>());
        parts.add("leaf set", self.tables.bytes() + self.repair.bytes());
        self.geometry.memory(&mut parts);
        self.detector.memory(&mut parts);
        parts.add("leases", self.leases.bytes());
        parts.add("budget", self.repair.budget.bytes());
        parts.add("deadlines", self.core.timers.bytes());
        parts.add("hops", self.hops.bytes());
        parts.add("lookups", self.lookups.bytes());
        parts.add("broadcasts", self.broadcasts.bytes());
        parts.add("edges", self.edges.bytes() + self.access.bytes());
        parts.add("former", self.merge.bytes() + self.join.bytes());
        parts.add("queues", self.core.out.bytes());
        parts
    }
}

impl<G: Geometry> Machine for Node<G> {
    type Command = Command;
    type Event = Event;

    fn peer(&self) -> Peer {
        self.core.me
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        self.run_timers(now);
        match command {
            Command::Start(bootstrap) => self.start(now, bootstrap),
            Command::Lookup { token, key, trace } => self.look_up(now, token, key, trace),
            Command::Broadcast { token, payload } => self.broadcast(now, token, payload),
            Command::Leave => self.leave(),
        }
        self.finish(now, None);
    }

    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame) {
        self.run_timers(now);
        let is_running = self.core.phase != Phase::Stopped && from.id != self.core.me.id;
        let reply = is_running.then(|| self.on_incoming(now, from, frame));
        self.finish(now, reply);
    }

    fn handle_link(&mut self, now: Instant, link: Link) {
        self.run_timers(now);
        if self.core.phase == Phase::Stopped {
            return;
        }
        match link {
            Link::Up { .. } => {}
            Link::Down { peer, .. } => self.on_link_down(now, peer),
            Link::Refused { reason: Refusal::Twin(by), .. } if by > self.core.me.incarnation => {
                self.superseded(by)
            }
            Link::Refused { addr, id, reason } => self.on_refused(now, Seed { addr, id }, reason),
        }
        self.finish(now, None);
    }

    fn handle_queued(&mut self, _now: Instant, _peer: NodeId, _bytes: usize) {
        // The overlay's own frames are small and paced; a layer that pushes data listens to this.
    }

    fn handle_stored(&mut self, _now: Instant, _token: StoreToken) {
        // The overlay asks for nothing to be stored: identities and remembered peers are the driver's.
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.run_timers(now);
        self.finish(now, None);
    }

    fn handle_turn_end(&mut self, _now: Instant) {
        // The ring gathers nothing: its answers are waited for.
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.core.out.poll_transmit()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.core.out.poll_event()
    }

    fn poll_store(&mut self) -> Option<Store> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.core.timers.next()
    }
}

impl<G: Geometry> RingView for Node<G> {
    fn contact(&self) -> Contact {
        self.relaying().contact()
    }

    fn reply_contact(&self, nth: u64) -> Contact {
        self.relaying().reply_contact(nth)
    }

    fn node_state(&self) -> NodeState {
        self.core.node_state()
    }

    fn is_root_of(&self, now: Instant, key: Key) -> bool {
        self.is_serving(now) && self.view().owns(key)
    }

    fn replica_set(&self, key: Key, count: usize) -> Vec<Peer> {
        let mut nodes = self.tables.leaf_set.closest_n(key, count);
        if self.core.node_state() == NodeState::Ready {
            nodes.push(self.core.me);
        }
        nodes.sort_by(|a, b| key.closer(a.id, b.id));
        nodes.truncate(count);
        nodes
    }
}

impl<G: Geometry> KeyBasedRouting for Node<G> {
    fn route(&mut self, now: Instant, key: Key, payload: Bytes) {
        self.originate(now, key, payload);
        self.finish(now, None);
    }

    fn send(&mut self, now: Instant, to: &Contact, payload: Bytes, class: Class) {
        self.send_direct(now, to, Direct::of(class, payload.len()), payload);
        self.finish(now, None);
    }

    fn resume(&mut self, now: Instant, transit: Transit) {
        let Transit { routed, payload, .. } = transit;
        self.forward(now, routed, payload, None);
        self.finish(now, None);
    }

    fn peers(&self) -> Vec<Peer> {
        match self.core.role {
            Role::Ring => self.tables.members(),
            Role::Edge { .. } => self.access.peers(),
        }
    }
}

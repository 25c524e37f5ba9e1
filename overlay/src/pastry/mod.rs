//! Pastry as a state machine: one node's tables, its way onto the ring, its routing, and the upkeep of all that.
//!
//! Sources: Rowstron & Druschel 2001 ("Pastry"), Castro, Costa & Rowstron 2004 ("MSPastry"), Azmy, Merz & Weidenbach
//! 2016 for the join, Rhea et al. 2004 for repair. `docs/papers.md` maps sections to files and tests.

mod access;
mod broadcast;
mod budget;
mod carried;
mod detour;
mod edges;
mod enter;
mod former;
mod hops;
mod invariants;
mod join;
mod lease;
mod letters;
mod liveness;
mod lookup;
mod members;
mod memory;
mod merge;
mod model;
mod probes;
mod proximity;
mod repair;
mod route;
mod rumour;
mod seen;
mod slots;
mod tuning;
mod verdict;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;

use crate::config::{Config, ConfigError, Role};
use crate::deadlines::Deadlines;
use crate::id::{Key, NodeId};
use crate::kbr::{Bootstrap, Command, Event, KeyBasedRouting, StartError, Transit};
use crate::machine::{Destination, Link, Machine, Refusal, Store, StoreToken, Transmit};
use crate::peer::{Contact, Peer, Seed};
use crate::random::{self, Rng};
use crate::sides::Sides;
use crate::table::{LeafSet, NeighbourhoodSet, RoutingTable};
use crate::time::Instant;
use crate::wire::{Frame, Header, Probe, Standing};

use access::Access;
use broadcast::Broadcasts;
use budget::Budget;
use carried::Carried;
use detour::{Detours, Queued, ReplyPath};
use edges::Edges;
use former::Former;
use hops::Hops;
pub use invariants::Size;
use join::Phase;
use lease::Leases;
use liveness::Liveness;
use lookup::Lookups;
use members::Members;
use merge::Merge;
use proximity::Proximity;
use slots::Slots;
use tuning::Tuning;

/// Frames for which a busy node keeps room between two calls; what a burst took beyond it is given back at once.
const KEPT_CAPACITY: usize = 32;
/// Frames sent since the last heartbeat that make a node a busy one: others keep no room at all.
const BUSY: u32 = 256;
/// How often a node looks whether a newer life of itself exists; rumours of more are not followed.
const TWIN_PERIOD: Duration = Duration::from_secs(1);

/// A model checker drives these states of join, lease and liveness: it copies and compares them (design §4).
const _: () = {
    const fn can_be_driven<S: Clone + std::hash::Hash>() {}
    can_be_driven::<Phase>();
    can_be_driven::<Slots>();
    can_be_driven::<Detours>();
    can_be_driven::<Leases>();
    can_be_driven::<Carried>();
    can_be_driven::<Liveness>();
    can_be_driven::<Access>();
    can_be_driven::<Edges>();
};

/// What a deadline is for. Ordered, so that deadlines of the same instant fire in one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// The current step of the join, or of looking for a ring.
    Join,
    /// The start as a whole.
    StartTimeout,
    /// Probe the ring neighbours and renew leases.
    Heartbeat,
    /// A held or granted lease ends.
    Lease,
    /// Probe whoever was not heard for long.
    Sweep,
    /// A round of repair.
    Repair,
    /// A round of looking for nearer nodes.
    Proximity,
    /// A node alone asks again; others ask one that they lost, or a seed.
    AskAgain,
    /// Strangers next to this node are told of.
    Zip,
    /// News of leaf sets may be sent again.
    Tell,
    /// An unanswered probe.
    Probe(NodeId),
    /// An unacknowledged hop.
    Hop(u64),
    /// The oldest parked message.
    Parked,
    /// An unanswered lookup.
    Lookup(u64),
    /// Edges that fell silent; access nodes that did.
    Edge,
}

/// One node of the overlay.
pub struct Node {
    me: Peer,
    config: Arc<Config>,
    role: Role,
    rng: Rng,
    phase: Phase,
    bootstrap: Bootstrap,
    leaf_set: LeafSet,
    /// Who comes next where others have found members dead, until this node has found out for itself.
    spare: Vec<Peer>,
    table: RoutingTable,
    neighbourhood: NeighbourhoodSet,
    proximity: Proximity,
    liveness: Liveness,
    tuning: Tuning,
    leases: Leases,
    carried: Carried,
    budget: Budget,
    slots: Slots,
    detours: Detours,
    hops: Hops,
    lookups: Lookups,
    broadcasts: Broadcasts,
    edges: Edges,
    former: Former,
    merge: Merge,
    members: Members,
    access: Access,
    /// Whether this node answered for its range when last looked at: a change is an event.
    serving: bool,
    /// When this node last looked for a newer life of itself.
    twin_sought: Option<Instant>,
    last_number: u64,
    /// Frames sent since the last heartbeat.
    sent: u32,
    /// When timers were last looked after.
    last_run: Instant,
    deadlines: Deadlines<Timer>,
    /// Frames whose path is not chosen yet.
    queued: VecDeque<Queued>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Node {
    /// A node that has not started yet. `seed` is the source of all its random choices; many nodes may share one
    /// configuration.
    pub fn new(me: Peer, config: impl Into<Arc<Config>>, seed: [u8; 32]) -> Result<Node, ConfigError> {
        let config = config.into();
        config.check()?;
        Ok(Node {
            me,
            role: config.role,
            rng: random::stream(&seed, "pastry"),
            phase: Phase::Idle,
            bootstrap: Bootstrap::default(),
            leaf_set: LeafSet::new(me.id, config.leaf_set),
            spare: Vec::new(),
            table: RoutingTable::new(me.id, config.candidates),
            neighbourhood: NeighbourhoodSet::new(me.id, config.neighbourhood),
            proximity: Proximity::default(),
            liveness: Liveness::default(),
            tuning: Tuning::default(),
            leases: Leases::default(),
            carried: Carried::default(),
            budget: Budget::default(),
            slots: Slots::default(),
            detours: Detours::default(),
            hops: Hops::default(),
            lookups: Lookups::default(),
            broadcasts: Broadcasts::default(),
            edges: Edges::default(),
            former: Former::default(),
            merge: Merge::default(),
            members: Members::default(),
            access: Access::default(),
            serving: false,
            twin_sought: None,
            last_number: 0,
            sent: 0,
            last_run: Instant::ZERO,
            deadlines: Deadlines::default(),
            queued: VecDeque::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            config,
        })
    }

    /// The leaf set: the nodes around this one on the ring.
    pub fn leaf_set(&self) -> &LeafSet {
        &self.leaf_set
    }

    /// The routing table.
    pub fn routing_table(&self) -> &RoutingTable {
        &self.table
    }

    /// Ring or edge: an edge may have become a ring node.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The nodes worth remembering for the next start: the leaf set, or an edge's access nodes.
    pub fn peers(&self) -> Vec<Peer> {
        match self.role {
            Role::Ring => self.leaf_set.iter().copied().collect(),
            Role::Edge { .. } => self.access.peers(),
        }
    }

    fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    fn is_edge(&self) -> bool {
        matches!(self.role, Role::Edge { .. })
    }

    /// A number that this node has not used yet, for probes, hops, lookups and broadcasts.
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn transmit_directly(&mut self, to: Peer, frame: Frame) {
        debug_assert_ne!(to.id, self.me.id, "a node sends nothing to itself: {:?}", frame.header);
        self.queued.push_back(Queued { to: Destination::Peer(to), frame, has_path: true });
    }

    fn transmit_to_seed(&mut self, seed: Seed, header: Header) {
        self.queued.push_back(Queued { to: Destination::Seed(seed), frame: header.into(), has_path: true });
    }

    /// `mean`, jittered by half: nodes that started together do not act together.
    fn jittered(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(self.rng.random_range(0.5..1.5))
    }

    fn start(&mut self, now: Instant, bootstrap: Bootstrap) {
        if self.phase != Phase::Idle {
            return;
        }
        self.bootstrap = bootstrap;
        self.deadlines.set(Timer::StartTimeout, now + self.config.start_timeout);
        self.ask_for_a_ring(now);
    }

    /// The node stops for good.
    fn stop(&mut self, event: Event) {
        self.withdraw();
        self.phase = Phase::Stopped;
        self.deadlines = Deadlines::default();
        self.serving = false;
        self.events.push_back(event);
    }

    /// Somebody knows a newer life of this node. Rumours stop nobody: whoever answers there must prove by its key that
    /// it is this node, and the transport says so ([`Refusal::Twin`]).
    fn look_for_twin(&mut self, now: Instant, life: Peer) {
        let rests = self.twin_sought.is_some_and(|sought| now - sought < TWIN_PERIOD);
        if life.id == self.me.id && life.incarnation > self.me.incarnation && !rests {
            self.twin_sought = Some(now);
            let number = self.number();
            let probe = Probe { number, standing: self.standing(), lease: Sides::None, leaf_set: false };
            // By its address: whoever answers there is told by its key.
            self.transmit_to_seed(life.addr.into(), Header::Probe(probe));
        }
    }

    /// A newer incarnation of this node was met: this one is void (design §5, incarnations).
    fn superseded(&mut self, by: u64) {
        let event = if self.is_ready() {
            Event::Superseded { by }
        } else {
            Event::StartFailed(StartError::Superseded { id: self.me.id })
        };
        self.stop(event);
    }

    /// Leaves in order: answers for nothing first, then says so to all who count on it.
    fn leave(&mut self) {
        if self.is_ready() {
            let members: Vec<Peer> = self.leaf_set.iter().copied().collect();
            let mut told = members.clone();
            told.extend(self.table.iter().copied().filter(|peer| !self.leaf_set.contains(peer.id)));
            for peer in told {
                self.transmit(peer, Header::Leave { members: members.clone() });
            }
            for edge in self.edges.peers() {
                self.transmit(edge, Header::Leave { members: members.clone() });
            }
            for access in self.access.peers() {
                self.transmit(access, Header::Detach);
            }
        }
        self.stop(Event::Left);
    }

    /// Handles a frame, unless a later life of its sender is known: then it is void. Returns whether it was handled. `relay`:
    /// the node that passed it on, if its sender did not reach this node directly.
    fn on_heard_frame(&mut self, now: Instant, from: Peer, relay: Option<Peer>, frame: Frame) -> bool {
        match self.hear(now, from) {
            Ok(()) => {
                self.on_frame(now, from, relay, frame);
                return true;
            }
            Err(Some(newer)) => self.transmit(from, Header::Outdated(newer)),
            // Where the newer life is, others know.
            Err(None) => {}
        }
        false
    }

    fn on_frame(&mut self, now: Instant, from: Peer, relay: Option<Peer>, frame: Frame) {
        let Frame { words, header, payload } = frame;
        if let Some(words) = words {
            self.on_words(now, from, *words);
        }
        match header {
            Header::Routed(routed) => self.on_routed(now, from, routed, payload),
            Header::HopAck { hop } => self.on_hop_ack(now, from, hop),
            Header::Letter(letter) => self.on_direct_letter(now, from, letter, payload),
            Header::Relayed { to, from: sender, letter } => {
                self.on_relayed(now, from, *to, *sender, letter, payload)
            }
            Header::Probe(probe) => self.on_probe(now, from, probe),
            Header::ProbeAck(ack) => self.on_probe_ack(now, from, relay, ack),
            Header::Admit => self.on_admit(now, from),
            Header::Admission(admission) => self.on_admission(now, from, admission),
            Header::Commit { number, beside } => self.on_commit(now, from, number, beside),
            Header::Committed { number, lease } => self.on_committed(now, from, number, lease),
            Header::Withdraw { number } => self.on_withdraw(now, from, number),
            Header::LeafSet { members, reply } => self.on_leaf_set(now, from, members, reply),
            Header::NearerRequest { rtt_micros } => self.on_nearer_request(now, from, rtt_micros),
            Header::Near(near) => self.on_near(now, from, near),
            Header::Leave { members } => self.on_leave(now, from, members),
            Header::Broadcast { hop, origin, id, until } => {
                self.on_broadcast(now, from, hop, broadcast::Id { origin, id }, until, payload);
            }
            Header::Via { to, from: sender } => self.pass_frame_on(from, to, sender, payload),
            Header::Outdated(life) => self.look_for_twin(now, life),
            Header::Lost(dead) => self.on_lost(now, dead),
            Header::Attach => self.on_attach(now, from),
            Header::Attached { accepted, members } => self.on_attached(now, from, accepted, members),
            Header::Detach => self.on_detach(from),
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
            Timer::Proximity => self.on_proximity_timer(now),
            Timer::AskAgain => self.on_ask_again(now),
            Timer::Zip => self.on_zip_timer(now),
            Timer::Tell => self.tell_on(now),
            Timer::Probe(id) => self.on_probe_timeout(now, id),
            Timer::Hop(hop) => self.on_hop_timeout(now, hop),
            Timer::Parked => self.on_parked_timer(now),
            Timer::Lookup(id) => self.on_lookup_timer(now, id),
            Timer::Edge => self.on_edge_timer(now),
        }
    }

    fn run_timers(&mut self, now: Instant) {
        if self.slept(now) {
            self.on_waking(now);
        }
        self.last_run = now;
        while let Some(timer) = self.deadlines.pop(now) {
            self.on_timer(now, timer);
        }
        self.dispatch(now, None);
    }

    /// Ends every call from outside: tells of a change in what this node answers for, and sends what is queued. `reply`: the
    /// path by which the handled frame came.
    fn settle(&mut self, now: Instant, reply: Option<ReplyPath>) {
        let serving = self.is_serving(now);
        if serving != self.serving {
            self.serving = serving;
            self.events.push_back(Event::NeighboursChanged);
            if serving {
                self.unpark(now);
            }
        }
        self.dispatch(now, reply);
        #[cfg(debug_assertions)]
        self.assert_invariants();
    }
}

impl Machine for Node {
    type Command = Command;
    type Event = Event;

    fn peer(&self) -> Peer {
        self.me
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        self.run_timers(now);
        match command {
            Command::Start(bootstrap) => self.start(now, bootstrap),
            Command::Lookup { token, key, trace } => self.look_up(now, token, key, trace),
            Command::Broadcast(payload) => self.broadcast(now, payload),
            Command::Leave => self.leave(),
        }
        self.settle(now, None);
    }

    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame) {
        // Expiry is checked before anything is handled (design §4): a lease that ended counts for nothing.
        self.run_timers(now);
        if self.phase != Phase::Stopped && from.id != self.me.id {
            let reply = self.on_incoming(now, from, frame);
            return self.settle(now, Some(reply));
        }
        self.settle(now, None);
    }

    fn handle_link(&mut self, now: Instant, link: Link) {
        self.run_timers(now);
        if self.phase == Phase::Stopped {
            return;
        }
        match link {
            Link::Up { .. } => {}
            Link::Down { peer, .. } => self.on_link_down(now, peer),
            Link::Refused { reason: Refusal::Twin(by), .. } if by > self.me.incarnation => {
                self.superseded(by)
            }
            Link::Refused { addr, id, reason } => self.on_refused(now, Seed { addr, id }, reason),
        }
        self.settle(now, None);
    }

    fn handle_queued(&mut self, _now: Instant, _peer: NodeId, _bytes: usize) {
        // The overlay's own frames are small and paced; whoever pushes data listens to this.
    }

    fn handle_stored(&mut self, _now: Instant, _token: StoreToken) {
        // The overlay asks for nothing to be stored: identities and remembered peers are the driver's.
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.run_timers(now);
        self.settle(now, None);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front();
        self.sent = self.sent.saturating_add(u32::from(transmit.is_some()));
        if transmit.is_none() && (self.sent < BUSY || self.transmits.capacity() > KEPT_CAPACITY) {
            self.transmits = VecDeque::new();
        }
        transmit
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() && self.sent < BUSY {
            self.events = VecDeque::new();
        }
        event
    }

    fn poll_store(&mut self) -> Option<Store> {
        None
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.next()
    }
}

impl KeyBasedRouting for Node {
    fn contact(&self) -> Contact {
        let via = if self.is_edge() { self.access.primary() } else { None };
        Contact { peer: self.me, via }
    }

    fn roundabout(&self, nth: u64) -> Contact {
        let ways: Vec<Peer> = if self.is_edge() {
            self.access.in_use().into_iter().skip(1).collect()
        } else {
            self.leaf_set.iter().filter(|peer| !self.liveness.is_suspect(peer.id)).copied().collect()
        };
        let way = (!ways.is_empty()).then(|| ways[(nth % ways.len() as u64) as usize]);
        Contact { peer: self.me, via: way.or(self.contact().via) }
    }

    fn standing(&self) -> Standing {
        match self.phase {
            Phase::Ready if self.is_edge() => Standing::Edge,
            Phase::Ready => Standing::Ready,
            Phase::Idle | Phase::Asking(_) | Phase::Attaching { .. } | Phase::Stopped => Standing::Starting,
            Phase::Seeking { .. } | Phase::Entering(_) => Standing::Joining,
        }
    }

    fn route(&mut self, now: Instant, key: Key, payload: Bytes) {
        self.send_off(now, key, payload);
        self.settle(now, None);
    }

    fn send(&mut self, now: Instant, to: &Contact, payload: Bytes) {
        self.send_payload(now, to, payload);
        self.settle(now, None);
    }

    fn resume(&mut self, now: Instant, transit: Transit) {
        self.go_on(now, transit);
        self.settle(now, None);
    }

    fn is_root_of(&self, now: Instant, key: Key) -> bool {
        self.is_serving(now) && self.owns(key)
    }

    fn replica_set(&self, key: Key, count: usize) -> Vec<Peer> {
        let mut nodes = self.leaf_set.closest_n(key, count);
        if self.standing() == Standing::Ready {
            nodes.push(self.me);
        }
        nodes.sort_by(|a, b| key.closer(a.id, b.id));
        nodes.truncate(count);
        nodes
    }

    fn peers(&self) -> Vec<Peer> {
        Node::peers(self)
    }
}

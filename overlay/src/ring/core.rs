//! The context that every component of a ring node may use: its identity, its configuration, its place in its own life, its generator
//! of random numbers, its timers, and its outbox. Nothing else is shared.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::RngExt;

use crate::config::{Config, Role};
use crate::deadlines::Deadlines;
use crate::id::NodeId;
use crate::kbr::Event;
use crate::machine::{Destination, Transmit};
use crate::memory;
use crate::peer::{Peer, Seed};
use crate::random::Rng;
use crate::sides::Sides;
use crate::time::Instant;
use crate::wire::{self, Frame, Header, LeasePiggyback, NodeState, Probe};

/// Frames for which a busy node keeps room between two calls; what a burst took beyond it is given back at once.
const KEPT_CAPACITY: usize = 32;
/// Frames sent since the last heartbeat that make a node a busy one: others keep no room at all.
const BUSY: u32 = 256;
/// How often a node looks whether a newer life of itself exists; further claims of one are not followed.
const TWIN_PERIOD: Duration = Duration::from_secs(1);

/// How far a node is in its own life. The steps of a joiner stand in [`Join`](super::join::Join).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    /// Not started.
    Idle,
    /// Looking for a ring, or for an access node.
    Starting,
    /// On its way onto the ring.
    Joining,
    /// On the ring (an edge: attached to it).
    Ready,
    /// Left, superseded, or never came up.
    Stopped,
}

/// The purpose of a deadline. Ordered, so that deadlines of the same instant fire in one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// The current step of the join, or of looking for a ring.
    Join,
    /// The start as a whole.
    StartTimeout,
    /// Probe the ring neighbours and renew leases.
    Heartbeat,
    /// A held or granted lease ends.
    Lease,
    /// Probe peers that were silent for long.
    Sweep,
    /// A round of repair.
    Repair,
    /// A round of the geometry's own upkeep.
    Geometry,
    /// A node alone asks again; others ask a lost peer, or a seed.
    AskAgain,
    /// Strangers next to this node are made known to its neighbours.
    Stitch,
    /// Leaf sets that wait for the budget may be sent.
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

impl Timer {
    /// Whether it ends a wait for another node's answer. That may have come while this node was late.
    fn ends_wait(self) -> bool {
        match self {
            Timer::Probe(_) | Timer::Hop(_) | Timer::Lookup(_) => true,
            Timer::Join
            | Timer::StartTimeout
            | Timer::Heartbeat
            | Timer::Lease
            | Timer::Sweep
            | Timer::Repair
            | Timer::Geometry
            | Timer::AskAgain
            | Timer::Stitch
            | Timer::Tell
            | Timer::Parked
            | Timer::Edge => false,
        }
    }
}

/// The shared context of all components.
pub struct Core {
    pub(crate) me: Peer,
    pub(crate) config: Arc<Config>,
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    pub(crate) rng: Rng,
    pub(crate) timers: Deadlines<Timer>,
    pub(crate) out: Outbox,
    last_number: u64,
    /// When this node last looked for a newer life of itself.
    twin_sought: Option<Instant>,
    /// This node was late: no wait for another node's answer ends before this.
    excused: Option<Instant>,
}

impl Core {
    pub(crate) fn new(me: Peer, config: Arc<Config>, rng: Rng) -> Core {
        Core {
            me,
            role: config.role,
            config,
            phase: Phase::Idle,
            rng,
            timers: Deadlines::default(),
            out: Outbox::default(),
            last_number: 0,
            twin_sought: None,
            excused: None,
        }
    }

    /// Whether the node is on the ring, or is an edge that is attached to it.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    pub(crate) fn is_edge(&self) -> bool {
        matches!(self.role, Role::Edge { .. })
    }

    /// Whether the node stands on the ring itself.
    pub(crate) fn is_on_ring(&self) -> bool {
        self.is_ready() && !self.is_edge()
    }

    /// How far this node is, as it tells others.
    pub(crate) fn node_state(&self) -> NodeState {
        match self.phase {
            Phase::Ready if self.is_edge() => NodeState::Edge,
            Phase::Ready => NodeState::Ready,
            Phase::Idle | Phase::Starting | Phase::Stopped => NodeState::Starting,
            Phase::Joining => NodeState::Joining,
        }
    }

    /// Looks whether this node is late: its earliest deadline has passed long ago. Answers that came meanwhile have not been
    /// handled yet, so that all waits for answers go on for as long as it was late. Those that pass meanwhile end
    /// together, however late the node is then: else a node that is always late would wait for ever.
    pub(crate) fn note_lateness(&mut self, now: Instant) {
        let failure = &self.config.failure;
        let late = self.timers.next().map_or(Duration::ZERO, |at| now - at);
        match self.excused {
            Some(until) if until > now => {}
            Some(_) => self.excused = None,
            None if late >= failure.late_from => self.excused = Some(now + late.min(failure.rto_max)),
            None => {}
        }
    }

    /// The next deadline that has passed.
    pub(crate) fn next_timer(&mut self, now: Instant) -> Option<Timer> {
        loop {
            let timer = self.timers.pop(now)?;
            match self.excused.filter(|_| timer.ends_wait()) {
                Some(until) => self.timers.set(timer, until),
                None => return Some(timer),
            }
        }
    }

    /// A number that this node has not used yet, for probes, hops, lookups and broadcasts.
    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The last number that was used.
    pub(crate) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Numbers from here on.
    pub(crate) fn count_from(&mut self, number: u64) {
        self.last_number = number;
    }

    /// `mean`, jittered by half: nodes that started together do not act together.
    pub(crate) fn jittered(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(self.rng.random_range(0.5..1.5))
    }

    /// Queues a frame without a payload.
    pub(crate) fn send(&mut self, to: Peer, header: Header) {
        self.send_payload(to, header, Bytes::new());
    }

    /// Queues a frame. Its path is chosen when the outbox is drained.
    pub(crate) fn send_payload(&mut self, to: Peer, header: Header, payload: Bytes) {
        debug_assert_ne!(to.id, self.me.id, "a node sends nothing to itself: {header:?}");
        let frame = Frame::new(header, payload);
        self.out.queued.push_back(Queued { to: Destination::Peer(to), frame, has_path: false });
    }

    /// Queues a frame that goes over this node's own connection, and carries no lease piggyback.
    pub(crate) fn send_straight(&mut self, to: Peer, frame: Frame) {
        debug_assert_ne!(to.id, self.me.id, "a node sends nothing to itself: {:?}", frame.header);
        self.out.queued.push_back(Queued { to: Destination::Peer(to), frame, has_path: true });
    }

    /// Queues a frame that `relay` is to pass on.
    pub(crate) fn send_through(&mut self, relay: Peer, to: Peer, header: Header, payload: Bytes) {
        let frame = passed_on(to, self.me, Frame::new(header, payload));
        self.send_straight(relay, frame);
    }

    /// Queues a frame for an address behind which any node may answer.
    pub(crate) fn send_to_seed(&mut self, seed: Seed, header: Header) {
        self.out.queued.push_back(Queued {
            to: Destination::Seed(seed),
            frame: header.into(),
            has_path: true,
        });
    }

    /// Probes a seed; returns the probe's number.
    pub(crate) fn ask_seed(&mut self, seed: Seed) -> u64 {
        let number = self.number();
        self.probe_seed(seed, number);
        number
    }

    /// Probes a seed under this number.
    pub(crate) fn probe_seed(&mut self, seed: Seed, number: u64) {
        let probe = Probe { number, node_state: self.node_state(), lease: Sides::None, leaf_set: false };
        self.send_to_seed(seed, Header::Probe(probe));
    }

    /// Tells the layer above.
    pub(crate) fn emit(&mut self, event: Event) {
        self.out.events.push_back(event);
    }

    /// Looks for a newer life of this node that another node names. A claim stops no node: the node that answers there must
    /// prove by its key that it is this node, and the transport says so ([`Refusal::Twin`](crate::machine::Refusal)).
    pub(crate) fn look_for_twin(&mut self, now: Instant, life: Peer) {
        let rests = self.twin_sought.is_some_and(|sought| now - sought < TWIN_PERIOD);
        if life.id == self.me.id && life.incarnation > self.me.incarnation && !rests {
            self.twin_sought = Some(now);
            // By its address, because the node that answers there is told by its key.
            self.ask_seed(life.addr.into());
        }
    }

    /// A copy of this drained core for a model checker, its generator at its beginning and without some timers.
    pub(crate) fn fork(&self, without: impl IntoIterator<Item = Timer>) -> Core {
        debug_assert!(self.out.is_empty(), "a node is drained first");
        let mut rng = self.rng.clone();
        rng.set_word_pos(0);
        let mut timers = self.timers.clone();
        without.into_iter().for_each(|timer| timers.cancel(timer));
        Core {
            me: self.me,
            config: self.config.clone(),
            role: self.role,
            phase: self.phase,
            rng,
            timers,
            out: Outbox { sent: self.out.sent, ..Outbox::default() },
            last_number: self.last_number,
            twin_sought: self.twin_sought,
            excused: self.excused,
        }
    }
}

/// A frame as the payload of another, which its receiver passes on.
pub(crate) fn passed_on(to: Peer, from: Peer, frame: Frame) -> Frame {
    let encoded = wire::encode(&frame);
    let mut inner = BytesMut::with_capacity(encoded.len());
    inner.extend_from_slice(&encoded.head);
    inner.extend_from_slice(&encoded.payload);
    Frame::new(Header::Via { to, from, class: frame.class() }, inner.freeze())
}

/// Frames to be sent, and events for the layer above.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Frames whose path is not chosen yet.
    queued: VecDeque<Queued>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    /// Frames sent since the last heartbeat.
    sent: u32,
}

/// A frame that is still to be sent.
#[derive(Debug)]
struct Queued {
    to: Destination,
    frame: Frame,
    /// It goes exactly there.
    has_path: bool,
}

/// How a queued frame goes.
pub(crate) enum Path {
    /// Over this node's own connection, with its lease piggyback.
    Straight(Option<Box<LeasePiggyback>>),
    /// Another node passes it on.
    Through(Peer),
}

impl Outbox {
    fn is_empty(&self) -> bool {
        self.queued.is_empty() && self.transmits.is_empty() && self.events.is_empty()
    }

    /// The next queued frame whose path is to be chosen; what has one already is sent meanwhile.
    pub(crate) fn next_without_path(&mut self) -> Option<(Peer, Frame)> {
        while let Some(Queued { to, frame, has_path }) = self.queued.pop_front() {
            match to {
                Destination::Peer(peer) if !has_path => return Some((peer, frame)),
                Destination::Peer(_) | Destination::Seed(_) => {
                    self.transmits.push_back(Transmit { to, frame })
                }
            }
        }
        if self.queued.capacity() > KEPT_CAPACITY || self.sent < BUSY {
            self.queued = VecDeque::new();
        }
        None
    }

    /// Sends a frame over the path that was chosen for it.
    pub(crate) fn send_by(&mut self, me: Peer, to: Peer, mut frame: Frame, path: Path) {
        let (to, frame) = match path {
            Path::Straight(piggyback) => {
                frame.piggyback = piggyback;
                (to, frame)
            }
            Path::Through(relay) => (relay, passed_on(to, me, frame)),
        };
        self.transmits.push_back(Transmit { to: Destination::Peer(to), frame });
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front();
        self.sent = self.sent.saturating_add(u32::from(transmit.is_some()));
        if transmit.is_none() && (self.sent < BUSY || self.transmits.capacity() > KEPT_CAPACITY) {
            self.transmits = VecDeque::new();
        }
        transmit
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() && self.sent < BUSY {
            self.events = VecDeque::new();
        }
        event
    }

    /// A heartbeat: frames are counted anew.
    pub(crate) fn restart_count(&mut self) {
        self.sent = 0;
    }

    /// Gives back what bursts have taken.
    pub(crate) fn tidy(&mut self) {
        self.queued.shrink_to_fit();
        self.transmits.shrink_to_fit();
        self.events.shrink_to_fit();
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        memory::queue(&self.queued) + memory::queue(&self.transmits) + memory::queue(&self.events)
    }
}

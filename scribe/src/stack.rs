//! An overlay's node and a forest as one [`Machine`]. `Stack::pump` is the only place where both cores meet.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use treecast_overlay::geometry::Geometry;
use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::{self, KeyBasedRouting};
use treecast_overlay::machine::{Link, Machine, Store, StoreToken, Transmit};
use treecast_overlay::memory::{self, Memory};
use treecast_overlay::peer::Peer;
use treecast_overlay::ring;
use treecast_overlay::time::{Instant, earliest};
use treecast_overlay::wire::Frame;

use crate::config::{Config, ConfigError};
use crate::event::{Command, Event, Status, Token};
use crate::forest::{Context, Forest, Request};
use crate::message::BroadcastError;

/// Events for which room is kept between two calls; what a burst took beyond it is given back at once.
const KEPT_CAPACITY: usize = 32;

/// A whole Treecast node without sockets and clock: what the driver runs, and what the simulator runs.
pub struct Stack<R: KeyBasedRouting> {
    ring: R,
    forest: Forest,
    events: VecDeque<Event>,
    /// The ring was told to leave: the forest had left before.
    ring_leaves: bool,
    /// How often the ring said that keys may have moved.
    moves: u64,
    max_broadcast: usize,
}

/// A stack over Pastry: what ships.
pub type PastryStack = Stack<treecast_overlay::pastry::Node>;

impl<R: KeyBasedRouting> Stack<R> {
    /// A stack over a ring that was not started yet. The same seed makes the same choices; many stacks may share one
    /// configuration.
    pub fn new(ring: R, config: impl Into<Arc<Config>>, seed: [u8; 32]) -> Result<Stack<R>, ConfigError> {
        let config = config.into();
        let max_broadcast = config.max_broadcast;
        let forest = Forest::new(ring.peer().id, config, &seed)?;
        Ok(Stack { ring, forest, events: VecDeque::new(), ring_leaves: false, moves: 0, max_broadcast })
    }

    /// The overlay's node.
    pub fn ring(&self) -> &R {
        &self.ring
    }

    /// The topics' side.
    pub fn forest(&self) -> &Forest {
        &self.forest
    }

    /// How often the ring told the topics' side that keys may have moved to this node or away from it.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// How the node is.
    pub fn status(&self) -> Status {
        let contact = self.ring.contact();
        Status {
            contact,
            node_state: self.ring.node_state(),
            peers: self.ring.peers(),
            trees: self.forest.trees(),
        }
    }

    /// Panics if the forest contradicts itself; for tests and the simulator.
    pub fn check_invariants(&self) {
        self.forest.check_invariants();
    }

    /// Hands the ring's events to the forest and the forest's requests to the ring, until both are quiet.
    ///
    /// It ends: from within, the ring raises an event only for what this node routes to a key of its own: a JOIN or a
    /// message to publish. Such a JOIN makes this node the root, which routes none; such a message has its receipt,
    /// its refusal or its place among the parked at once, and what its publisher sends next comes from a bounded
    /// queue that only the layer above fills. All else that the forest does in answer is to send, keep or drop.
    fn pump(&mut self, now: Instant) {
        loop {
            let mut quiet = true;
            while let Some(event) = self.ring.poll_event() {
                quiet = false;
                self.on_ring_event(now, event);
            }
            while let Some(request) = self.forest.poll_request() {
                quiet = false;
                self.on_request(now, request);
            }
            if self.forest.has_left() && !self.ring_leaves {
                quiet = false;
                self.ring_leaves = true;
                self.ring.handle_command(now, kbr::Command::Leave);
            }
            if quiet {
                break;
            }
        }
        while let Some(event) = self.forest.poll_event() {
            self.events.push_back(event);
        }
    }

    fn on_request(&mut self, now: Instant, request: Request) {
        match request {
            Request::Route { key, payload } => self.ring.route(now, key, payload),
            Request::Send { to, payload, class } => self.ring.send(now, &to, payload, class),
        }
    }

    /// Broadcasts concern no tree: the ring sends them, and the layer above hears them.
    fn broadcast(&mut self, now: Instant, token: Token, payload: Bytes) {
        let (len, limit) = (payload.len(), self.max_broadcast);
        if len > limit {
            let outcome = Err(BroadcastError::TooLarge { len, limit });
            return self.events.push_back(Event::BroadcastEnded { token, outcome });
        }
        self.ring.handle_command(now, kbr::Command::Broadcast { token: token.0, payload });
    }

    fn on_ring_event(&mut self, now: Instant, event: kbr::Event) {
        let Stack { ring, forest, events, .. } = self;
        let cx = Context { now, ring };
        match event {
            kbr::Event::Ready { alone } => {
                events.push_back(Event::Ready { alone });
                forest.handle_ready(cx);
            }
            kbr::Event::StartFailed(error) => events.push_back(Event::StartFailed(error)),
            kbr::Event::Forward(transit) => {
                if !forest.handle_forward(cx, &transit.origin(), &transit.payload) {
                    ring.resume(now, transit);
                }
            }
            kbr::Event::Deliver(delivery) => {
                forest.handle_deliver(cx, &delivery.origin, &delivery.payload, delivery.repeated);
            }
            kbr::Event::Received { from, payload } => forest.handle_received(cx, &from, &payload),
            kbr::Event::Broadcast { origin, payload } => {
                events.push_back(Event::Broadcast { origin: origin.id(), payload });
            }
            kbr::Event::BroadcastEnded { token, outcome } => {
                let outcome = outcome.map_err(BroadcastError::from);
                events.push_back(Event::BroadcastEnded { token: Token(token), outcome });
            }
            // JOINs and publishes are repeated by their own timers, which also know when to stop.
            kbr::Event::Undeliverable { key, reason } => {
                tracing::debug!(%key, ?reason, "undeliverable, will be sent again");
            }
            kbr::Event::Found { token, found } => {
                events.push_back(Event::Found { token: Token(token), found });
            }
            kbr::Event::NotFound { token, reason } => {
                events.push_back(Event::NotFound { token: Token(token), reason });
            }
            kbr::Event::NeighboursChanged => {
                self.moves += 1;
                forest.handle_neighbours_changed(cx);
            }
            kbr::Event::NearestChanged => forest.handle_nearest_changed(cx),
            kbr::Event::PeerDown { id, .. } => forest.handle_peer_down(cx, id),
            // `PeerDown` for its earlier life came before.
            kbr::Event::PeerRestarted(_) => {}
            kbr::Event::ContactChanged(contact) => {
                forest.handle_contact_changed(cx);
                events.push_back(Event::ContactChanged(contact));
            }
            kbr::Event::Left => {
                forest.handle_stopped();
                events.push_back(Event::Left);
            }
            kbr::Event::Superseded { by } => {
                forest.handle_stopped();
                events.push_back(Event::Superseded { by });
            }
        }
    }
}

impl<G: Geometry> Stack<ring::Node<G>> {
    /// Bytes of this node by part, inline ones included, by its own count; see [`Memory`].
    pub fn memory(&self) -> Memory {
        let mut parts = self.ring.memory();
        parts.add("forest", self.forest.bytes());
        parts.add("stack", size_of::<Self>() - size_of_val(&self.ring) + memory::queue(&self.events));
        parts
    }
}

impl<R: KeyBasedRouting> Machine for Stack<R> {
    type Command = Command;
    type Event = Event;

    fn peer(&self) -> Peer {
        self.ring.peer()
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        let Stack { ring, forest, .. } = self;
        match command {
            Command::Start(bootstrap) => ring.handle_command(now, kbr::Command::Start(bootstrap)),
            Command::Subscribe { subscription, topic, start, credit } => {
                forest.subscribe(Context { now, ring }, subscription, topic.id(), start, credit);
            }
            Command::Credit { subscription, items } => {
                forest.add_credit(Context { now, ring }, subscription, items);
            }
            Command::Unsubscribe(subscription) => forest.unsubscribe(Context { now, ring }, subscription),
            Command::Publish { token, topic, payload } => {
                forest.publish(Context { now, ring }, token, topic.id(), payload);
            }
            Command::Broadcast { token, payload } => self.broadcast(now, token, payload),
            Command::Lookup { token, key, trace } => {
                ring.handle_command(now, kbr::Command::Lookup { token: token.0, key, trace });
            }
            Command::Status(token) => {
                let status = self.status();
                self.events.push_back(Event::Status { token, status });
            }
            Command::Topic { token, topic } => {
                let known = forest.topic(topic.id());
                self.events.push_back(Event::Topic { token, known });
            }
            Command::Leave => forest.leave(Context { now, ring }),
        }
        self.pump(now);
    }

    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame) {
        self.ring.handle_frame(now, from, frame);
        self.pump(now);
    }

    fn handle_link(&mut self, now: Instant, link: Link) {
        let down = match &link {
            Link::Down { peer, .. } => Some(*peer),
            Link::Up { .. } | Link::Refused { .. } => None,
        };
        self.ring.handle_link(now, link);
        if let Some(peer) = down {
            self.forest.handle_link_down(Context { now, ring: &self.ring }, peer);
        }
        self.pump(now);
    }

    fn handle_queued(&mut self, now: Instant, peer: NodeId, bytes: usize) {
        self.ring.handle_queued(now, peer, bytes);
        self.forest.handle_queued(Context { now, ring: &self.ring }, peer, bytes);
        self.pump(now);
    }

    fn handle_stored(&mut self, now: Instant, token: StoreToken) {
        self.ring.handle_stored(now, token);
        self.pump(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        // The ring first: leases that ended have ended before anything is positioned.
        self.ring.handle_timeout(now);
        self.pump(now);
        self.forest.handle_timeout(Context { now, ring: &self.ring });
        self.pump(now);
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    fn handle_turn_end(&mut self, now: Instant) {
        self.ring.handle_turn_end(now);
        self.forest.handle_turn_end(Context { now, ring: &self.ring });
        self.pump(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.ring.poll_transmit()
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        if event.is_none() && self.events.capacity() > KEPT_CAPACITY {
            self.events = VecDeque::new();
        }
        event
    }

    fn poll_store(&mut self) -> Option<Store> {
        self.ring.poll_store()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.ring.poll_timeout(), self.forest.poll_timeout())
    }
}

#[cfg(test)]
mod tests;

//! Fixtures for the cores' own stories: machines in one queue, in virtual time. (The laboratory's world is for everything
//! else: it has networks, faults and judges.)

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{Key, NodeId};
use crate::machine::{Destination, Link, Machine, Refusal, Transmit};
use crate::peer::{Addr, Addresses, Peer};
use crate::time::{Instant, earliest};
use crate::wire::{self, Frame};

/// A machine of which stories are told.
pub trait Told: Machine + Sized {
    /// Called before each drain: checks invariants, or sends what a story has made a part of it queue.
    fn before_drain(&mut self, now: Instant);

    /// Handles an event as the layer above would, or leaves it to the story.
    fn react(&mut self, now: Instant, event: Self::Event) -> Option<Self::Event> {
        let _ = now;
        Some(event)
    }
}

/// Some machines, and what is on its way between them.
pub struct Net<M: Told> {
    /// The time.
    pub now: Instant,
    /// By slot; a dead one leaves its slot empty.
    pub nodes: Vec<Option<M>>,
    /// Events of the machines, by slot, until a story takes them.
    pub events: Vec<(usize, M::Event)>,
    /// How long a frame takes from one slot to another; `None`: it is lost on its way out.
    pub delay: Box<dyn FnMut(usize, usize) -> Option<Duration>>,
    /// Frames between these slots are lost on their way in.
    pub cut: Box<dyn Fn(usize, usize) -> bool>,
    /// Frames sent so far.
    pub sent: usize,
    /// Whether frames are written down.
    pub logs: bool,
    /// The sender, the receiver's slot, and what was sent.
    pub log: Vec<(Peer, usize, Frame)>,
    wires: BTreeMap<(Instant, usize), (Peer, Destination, Frame)>,
}

/// The slot of a peer.
pub fn slot_of(addr: Addr) -> usize {
    match addr {
        Addr::Memory(slot) => slot as usize,
        Addr::Socket(_) | Addr::Unreachable => usize::MAX,
    }
}

/// The peer that lives in a slot, in its first life.
pub fn peer_at(slot: usize) -> Peer {
    let id = NodeId(Key::hash(&(slot as u64).to_be_bytes()).0);
    Peer { id, incarnation: 1, addr: Addr::Memory(slot as u32) }
}

fn place(to: Destination) -> (Addr, Option<NodeId>) {
    match to {
        Destination::Peer(peer) => (peer.addr, Some(peer.id)),
        Destination::Seed(seed) => (seed.addr, seed.id),
    }
}

impl<M: Told> Net<M> {
    /// No node yet; each frame takes so long.
    pub fn new(delay: Duration) -> Net<M> {
        Net {
            now: Instant::ZERO,
            nodes: Vec::new(),
            events: Vec::new(),
            delay: Box::new(move |_, _| Some(delay)),
            cut: Box::new(|_, _| false),
            sent: 0,
            logs: false,
            log: Vec::new(),
            wires: BTreeMap::new(),
        }
    }

    /// Adds a machine that handles this command first. Returns its slot.
    pub fn add(&mut self, machine: M, command: M::Command) -> usize {
        self.nodes.push(Some(machine));
        let slot = self.nodes.len() - 1;
        self.command(slot, command);
        slot
    }

    /// A machine that lives.
    pub fn node(&mut self, slot: usize) -> &mut M {
        self.nodes[slot].as_mut().expect("it lives")
    }

    /// The machines that live.
    pub fn live(&self) -> impl Iterator<Item = (usize, &M)> {
        self.nodes.iter().enumerate().filter_map(|(slot, node)| Some((slot, node.as_ref()?)))
    }

    /// A machine falls silent.
    pub fn kill(&mut self, slot: usize) -> Peer {
        self.nodes[slot].take().expect("it lives").peer()
    }

    /// Gives a machine a command.
    pub fn command(&mut self, slot: usize, command: M::Command) {
        let now = self.now;
        self.node(slot).handle_command(now, command);
        self.drain(slot);
    }

    /// Takes what a machine has to send and to tell, and ends its turn.
    pub fn drain(&mut self, slot: usize) {
        self.take_out(slot);
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(slot).and_then(Option::as_mut) {
            node.handle_turn_end(now);
            self.take_out(slot);
        }
    }

    fn take_out(&mut self, slot: usize) {
        loop {
            let now = self.now;
            let Some(node) = self.nodes.get_mut(slot).and_then(Option::as_mut) else { return };
            node.before_drain(now);
            let from = node.peer();
            while let Some(Transmit { to, frame }) = node.poll_transmit() {
                // Whatever goes out survives the codec.
                let encoded = wire::encode(&frame);
                let bytes = [encoded.head, encoded.payload].concat();
                assert_eq!(wire::decode(bytes.into(), Addresses::Any).as_ref(), Ok(&frame));
                self.sent += 1;
                let receiver = slot_of(place(to).0);
                if self.logs {
                    self.log.push((from, receiver, frame.clone()));
                }
                if let Some(delay) = (self.delay)(slot, receiver) {
                    self.wires.insert((now + delay, self.sent), (from, to, frame));
                }
            }
            let events: Vec<M::Event> = std::iter::from_fn(|| node.poll_event()).collect();
            if events.is_empty() {
                return;
            }
            let left = events.into_iter().filter_map(|event| node.react(now, event));
            self.events.extend(left.map(|event| (slot, event)));
        }
    }

    /// Hands a frame over, or its sender the news that no node is there.
    pub fn deliver(&mut self, from: Peer, to: Destination, frame: Frame) {
        let ((addr, id), now, sender) = (place(to), self.now, slot_of(from.addr));
        let slot = slot_of(addr);
        if (self.cut)(sender, slot) {
            return;
        }
        let reason = match self.nodes.get_mut(slot).and_then(Option::as_mut) {
            // As a transport does: the key proves that both are one node.
            Some(node) if node.peer().id == from.id => Refusal::Twin(node.peer().incarnation),
            Some(node) => {
                node.handle_frame(now, from, frame);
                return self.drain(slot);
            }
            None => Refusal::Unreachable("nobody listens".into()),
        };
        if let Some(node) = self.nodes.get_mut(sender).and_then(Option::as_mut) {
            node.handle_link(now, Link::Refused { addr, id, reason });
            self.drain(sender);
        }
    }

    /// Frames on their way: the sender, where to, and what.
    pub fn on_the_way(&self) -> impl Iterator<Item = &(Peer, Destination, Frame)> {
        self.wires.values()
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let wire = self.wires.first_key_value().map(|(&(at, _), _)| at);
            let timer = self.live().filter_map(|(slot, node)| Some((node.poll_timeout()?, slot))).min();
            let next = earliest(wire, timer.map(|(at, _)| at)).filter(|&at| at <= end);
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            if wire == Some(at)
                && let Some((_, (from, to, frame))) = self.wires.pop_first()
            {
                self.deliver(from, to, frame);
            } else if let Some((_, slot)) = timer {
                let now = self.now;
                self.node(slot).handle_timeout(now);
                self.drain(slot);
            }
        }
        self.now = end;
    }
}

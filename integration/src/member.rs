//! A node of the overlay with the least that can live on top of it: it gives every message in transit back.

use bytes::Bytes;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::{Command, Event, KeyBasedRouting};
use treecast_overlay::machine::{Destination, Link, Machine, Store, StoreToken, Transmit};
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Frame, Header, Purpose};

use crate::check::o2;
use crate::witness::Hop;

/// What a member may be told to do.
#[derive(Clone, Debug)]
pub enum Wish {
    /// A command of the overlay.
    Overlay(Command),
    /// Send a message towards a key's root.
    Route(Key, Bytes),
    /// Send a letter.
    Send(Contact, Bytes),
}

/// A node that gives back whatever it is to forward. Panics if it sends a frame against promise O2.
pub struct Member {
    node: Node,
    now: Instant,
}

impl Member {
    /// Puts a node to work.
    pub fn new(node: Node) -> Member {
        Member { node, now: Instant::ZERO }
    }

    /// The node itself.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Takes the node out.
    pub fn into_node(self) -> Node {
        self.node
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        self.node.peer().id
    }

    /// Promise O2, as far as one hop shows it. The first hop of a joiner and those of edges are exempt: they lead
    /// onto the ring.
    fn check_progress(&self, transmit: &Transmit) {
        let (Destination::Peer(to), Header::Routed(routed)) = (transmit.to, &transmit.frame.header) else {
            return;
        };
        let me = self.id();
        // (A node of the ring that asks again has its answer come by way of another, and is no edge.)
        let again = routed.origin.via.is_some_and(|via| self.node.leaf_set().contains(via.id));
        let hung = routed.origin.is_edge() && !again;
        let onto_the_ring = routed.origin.id() == me && (matches!(routed.purpose, Purpose::Seek) || hung);
        let hop = Hop { key: routed.key, from: me, to: to.id, by_leaf_set: routed.by_leaf_set };
        if !onto_the_ring && let Err(fault) = o2::progress(&hop) {
            panic!("{fault}");
        }
    }
}

impl Machine for Member {
    type Command = Wish;
    type Event = Event;

    fn peer(&self) -> Peer {
        self.node.peer()
    }

    fn handle_command(&mut self, now: Instant, wish: Wish) {
        self.now = now;
        match wish {
            Wish::Overlay(command) => self.node.handle_command(now, command),
            Wish::Route(key, payload) => self.node.route(now, key, payload),
            Wish::Send(to, payload) => self.node.send(now, &to, payload),
        }
    }

    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame) {
        self.now = now;
        self.node.handle_frame(now, from, frame);
    }

    fn handle_link(&mut self, now: Instant, link: Link) {
        self.now = now;
        self.node.handle_link(now, link);
    }

    fn handle_queued(&mut self, now: Instant, peer: NodeId, bytes: usize) {
        self.now = now;
        self.node.handle_queued(now, peer, bytes);
    }

    fn handle_stored(&mut self, now: Instant, token: StoreToken) {
        self.now = now;
        self.node.handle_stored(now, token);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.node.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.node.poll_transmit()?;
        self.check_progress(&transmit);
        Some(transmit)
    }

    fn poll_event(&mut self) -> Option<Event> {
        loop {
            let event = self.node.poll_event()?;
            let Event::Forward(transit) = event else { return Some(event) };
            self.node.resume(self.now, transit);
        }
    }

    fn poll_store(&mut self) -> Option<Store> {
        self.node.poll_store()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.node.poll_timeout()
    }
}

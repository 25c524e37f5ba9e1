//! All trees of a node. Sans-IO: the stack hands in what the ring says and carries out the requests.

use std::collections::VecDeque;

use bytes::Bytes;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Standing;

use crate::config::{Config, ConfigError};
use crate::event::{Event, SubscriptionId, Token, TreeStatus};
use crate::message::Start;
use crate::topic::TopicId;

/// What the forest reads of the ring. Everything that implements [`KeyBasedRouting`] is one.
pub trait RingView {
    /// See [`KeyBasedRouting::contact`].
    fn contact(&self) -> Contact;
    /// See [`KeyBasedRouting::standing`].
    fn standing(&self) -> Standing;
    /// See [`KeyBasedRouting::is_root_of`].
    fn is_root_of(&self, now: Instant, key: Key) -> bool;
    /// See [`KeyBasedRouting::replica_set`].
    fn replica_set(&self, key: Key, count: usize) -> Vec<Peer>;
}

impl<R: KeyBasedRouting> RingView for R {
    fn contact(&self) -> Contact {
        KeyBasedRouting::contact(self)
    }

    fn standing(&self) -> Standing {
        KeyBasedRouting::standing(self)
    }

    fn is_root_of(&self, now: Instant, key: Key) -> bool {
        KeyBasedRouting::is_root_of(self, now, key)
    }

    fn replica_set(&self, key: Key, count: usize) -> Vec<Peer> {
        KeyBasedRouting::replica_set(self, key, count)
    }
}

/// What every call into the forest stands on: the time, and the ring as it is now.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The time.
    pub now: Instant,
    /// The ring.
    pub ring: &'a dyn RingView,
}

/// What the forest wants of the ring.
#[derive(Debug)]
pub enum Request {
    /// Send towards the root of a key.
    Route {
        /// The key.
        key: Key,
        /// An encoded [`Header`](crate::wire::Header) and its payload.
        payload: Bytes,
    },
    /// Send to one node.
    Send {
        /// The node.
        to: Contact,
        /// An encoded [`Header`](crate::wire::Header) and its payload.
        payload: Bytes,
    },
}

/// All trees of a node.
pub struct Forest {
    requests: VecDeque<Request>,
    events: VecDeque<Event>,
    left: bool,
}

impl Forest {
    /// A forest without trees.
    pub fn new(_me: NodeId, config: Config, _seed: &[u8; 32]) -> Result<Forest, ConfigError> {
        config.check()?;
        Ok(Forest { requests: VecDeque::new(), events: VecDeque::new(), left: false })
    }
    /// x
    pub fn subscribe(
        &mut self,
        _cx: Context<'_>,
        _id: SubscriptionId,
        _topic: TopicId,
        _start: Start,
        _credit: u32,
    ) {
    }
    /// x
    pub fn add_credit(&mut self, _cx: Context<'_>, _id: SubscriptionId, _items: u32) {}
    /// x
    pub fn unsubscribe(&mut self, _cx: Context<'_>, _id: SubscriptionId) {}
    /// x
    pub fn publish(&mut self, _cx: Context<'_>, _token: Token, _topic: TopicId, _payload: Bytes) {}
    /// x
    pub fn leave(&mut self, _cx: Context<'_>) {
        self.left = true;
    }
    /// x
    pub fn has_left(&self) -> bool {
        self.left
    }
    /// x
    pub fn trees(&self) -> Vec<TreeStatus> {
        Vec::new()
    }
    /// x
    pub fn check_invariants(&self) {}
    /// x
    pub fn handle_ready(&mut self, _cx: Context<'_>) {}
    /// x
    pub fn handle_forward(&mut self, _cx: Context<'_>, _origin: &Contact, _payload: &Bytes) -> bool {
        false
    }
    /// x
    pub fn handle_deliver(&mut self, _cx: Context<'_>, _origin: &Contact, _payload: &Bytes) {}
    /// x
    pub fn handle_received(&mut self, _cx: Context<'_>, _from: &Contact, _payload: &Bytes) {}
    /// x
    pub fn handle_neighbours_changed(&mut self, _cx: Context<'_>) {}
    /// x
    pub fn handle_peer_down(&mut self, _cx: Context<'_>, _peer: NodeId) {}
    /// x
    pub fn handle_link_down(&mut self, _cx: Context<'_>, _peer: NodeId) {}
    /// x
    pub fn handle_contact_changed(&mut self, _cx: Context<'_>) {}
    /// x
    pub fn handle_stopped(&mut self) {}
    /// x
    pub fn handle_queued(&mut self, _cx: Context<'_>, _peer: NodeId, _bytes: usize) {}
    /// x
    pub fn handle_timeout(&mut self, _cx: Context<'_>) {}
    /// x
    pub fn poll_request(&mut self) -> Option<Request> {
        self.requests.pop_front()
    }
    /// x
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
    /// x
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}

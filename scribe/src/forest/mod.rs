//! All trees of a node. Sans-IO: the stack hands in what the ring says and carries out the requests.
//!
//! The forest holds the state that the trees share, and lets each message, deadline and news of the ring come to the
//! tree that it is about. Decisions about one tree are made in `tree/`, which knows the forest only by
//! `TreeCx`.

mod context;
mod quota;
mod retries;
mod links;
mod silence;
mod neighbours;
mod publishing;
mod inbox;
mod tree;
mod trees;
mod roots;
mod dispatch;
mod upkeep;
mod leave;
mod view;
mod invariants;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use treecast_overlay::deadlines::Deadlines;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::random::{self, Rng};
use treecast_overlay::time::{Instant, earliest};
use treecast_overlay::wire::NodeState;

pub use self::context::{Context, Request, RingView};
use self::context::{LifeStage, Numbers, Outbox, Timer};
use self::dispatch::Way;
pub use self::invariants::Size;
use self::links::Links;
use self::links::WaitingChildren;
use self::neighbours::Neighbours;
use self::publishing::Publishing;
use self::quota::Quota;
use self::tree::{ParentLost, Tree};
use self::upkeep::Upkeep;
pub use self::view::Place;
use crate::config::{Config, ConfigError};
use crate::event::{Event, SubscriptionId, Token};
use crate::message::{PublishError, Start, SubscribeError};
use crate::topic::TopicId;
use crate::wire::{self, Header};

type Trees = BTreeMap<TopicId, Box<Tree>>;

/// All trees of a node.
pub struct Forest {
    me: NodeId,
    /// Shared: a laboratory has a hundred thousand of them.
    config: Arc<Config>,
    rng: Rng,
    life: LifeStage,
    // Boxed: a B-tree's leaf has room for eleven.
    trees: Trees,
    /// The topic of each subscription.
    topics: BTreeMap<SubscriptionId, TopicId>,
    publishing: Publishing,
    neighbours: Neighbours,
    links: Links,
    quota: Quota,
    /// Topics that have something to say when the turn ends.
    turn: BTreeSet<TopicId>,
    numbers: Numbers,
    deadlines: Deadlines<Timer>,
    upkeep: Upkeep,
    out: Outbox,
}

impl Forest {
    /// A forest without trees, for the node `me`. The same seed makes the same choices; many nodes may share one
    /// configuration.
    pub fn new(me: NodeId, config: impl Into<Arc<Config>>, seed: &[u8; 32]) -> Result<Forest, ConfigError> {
        let config = config.into();
        config.check()?;
        Ok(Forest {
            me,
            config,
            rng: random::stream(seed, "forest"),
            life: LifeStage::Running,
            trees: Trees::new(),
            topics: BTreeMap::new(),
            publishing: Publishing::default(),
            neighbours: Neighbours::default(),
            links: Links::default(),
            quota: Quota::default(),
            turn: BTreeSet::new(),
            numbers: Numbers::default(),
            deadlines: Deadlines::default(),
            upkeep: Upkeep::NONE,
            out: Outbox::new(me),
        })
    }

    /// Subscribes. Answered by [`Event::Subscribed`] once the start is known, else by [`Event::SubscribeFailed`].
    pub fn subscribe(
        &mut self,
        cx: Context<'_>,
        id: SubscriptionId,
        topic: TopicId,
        start: Start,
        credit: u32,
    ) {
        let new = !self.trees.contains_key(&topic);
        let failed = if self.life != LifeStage::Running {
            Some(SubscribeError::Stopped)
        } else if !self.ensure_tree(cx.now, topic) {
            Some(SubscribeError::TooManyTopics { limit: self.config.tree.max_trees })
        } else {
            None
        };
        if let Some(error) = failed {
            return self.out.event(Event::SubscribeFailed { subscription: id, error });
        }
        self.topics.insert(id, topic);
        self.with_tree(cx, topic, |tree, cx| tree.subscribe(cx, id, start, credit, new));
        self.drain_loopback(cx);
    }

    /// The subscriber takes so many items more.
    pub fn add_credit(&mut self, cx: Context<'_>, id: SubscriptionId, items: u32) {
        let Some(&topic) = self.topics.get(&id) else { return };
        self.with_tree(cx, topic, |tree, cx| tree.add_credit(cx, id, items));
        self.drain_loopback(cx);
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, cx: Context<'_>, id: SubscriptionId) {
        let Some(topic) = self.topics.remove(&id) else { return };
        self.with_tree(cx, topic, |tree, cx| tree.unsubscribe(cx, id));
        self.drain_loopback(cx);
    }

    /// Publishes. Answered by [`Event::Published`] or [`Event::PublishFailed`].
    pub fn publish(&mut self, cx: Context<'_>, token: Token, topic: TopicId, payload: Bytes) {
        let running = self.life == LifeStage::Running;
        self.with_publisher(cx, topic, |publishing, cx| {
            let stopped = Err(PublishError::Stopped);
            let taken = if running { publishing.accept(cx, token, payload) } else { stopped };
            if let Err(error) = taken {
                cx.out.event(Event::PublishFailed { token, error });
            }
            publishing.send(cx);
        });
        if !self.publishing.is_empty() {
            self.keep_beating(cx.now);
        }
        self.drain_loopback(cx);
    }

    /// Leaves all trees. Members of logs are replaced first. [`has_left`](Forest::has_left) says when the ring may be left.
    pub fn leave(&mut self, cx: Context<'_>) {
        if self.life != LifeStage::Running {
            return;
        }
        self.publishing.stop(&mut self.out);
        self.topics.clear();
        self.life = LifeStage::Leaving;
        self.for_each_tree(cx, |tree, cx| {
            tree.drop_subscribers(cx);
            tree.ask_to_be_replaced(cx);
        });
        self.deadlines.set(Timer::Leave, cx.now + self.config.leave_timeout);
        self.review_leaving(cx);
        self.drain_loopback(cx);
    }

    /// Whether [`leave`](Forest::leave) has done its work: the ring may be left.
    pub fn has_left(&self) -> bool {
        self.life == LifeStage::Left
    }

    /// The ring is ready: trees and publishers that waited for it begin.
    pub fn handle_ready(&mut self, cx: Context<'_>) {
        self.for_each_tree(cx, |tree, cx| {
            if tree.role.is_joining() {
                tree.seek(cx);
            }
        });
        for topic in self.publishing.topics() {
            self.with_publisher(cx, topic, |publishing, cx| publishing.send(cx));
        }
        self.drain_loopback(cx);
    }

    /// A routed message passes this node. Returns whether the forest took it: if not, it is to go on.
    ///
    /// Scribe §3.3: "When a node receives a JOIN … it checks … whether it is currently a forwarder; if so, it accepts
    /// the node as a child, adding it to the children table. If the node is not already a forwarder, it creates an
    /// entry for the group, and adds the source node as a child … It then becomes a forwarder by sending a JOIN".
    pub fn handle_forward(&mut self, cx: Context<'_>, origin: &Contact, payload: &Bytes) -> bool {
        if self.life != LifeStage::Running
            || origin.id() == self.me
            || cx.ring.node_state() != NodeState::Ready
        {
            return false;
        }
        let Ok((Header::Join(join), _)) = wire::decode(payload) else { return false };
        // Members are children of the root, and of no other node as long as it answers.
        if join.copy.is_some() && !join.by_third {
            return false;
        }
        let taken = self.with_tree(cx, join.topic, |tree, cx| tree.intercept(cx, *origin, &join));
        let taken = taken.unwrap_or_else(|| {
            self.ensure_tree(cx.now, join.topic)
                && self
                    .with_tree(cx, join.topic, |tree, cx| tree.begin_as_forwarder(cx, *origin, &join))
                    .is_some()
        });
        self.drain_loopback(cx);
        taken
    }

    /// A routed message has come to the root of its key, which is this node. `repeated`: the root before may have had
    /// it too.
    pub fn handle_deliver(&mut self, cx: Context<'_>, origin: &Contact, payload: &Bytes, repeated: bool) {
        self.on_bytes(cx, origin, payload, Way::Delivered { repeated });
        self.drain_loopback(cx);
    }

    /// A message came that was sent to this node.
    pub fn handle_received(&mut self, cx: Context<'_>, from: &Contact, payload: &Bytes) {
        self.neighbours.hear(cx.now, from.id());
        self.on_bytes(cx, from, payload, Way::Sent);
        self.drain_loopback(cx);
    }

    /// Keys may have moved to this node, or away from it.
    pub fn handle_neighbours_changed(&mut self, cx: Context<'_>) {
        self.for_each_tree(cx, Tree::review_place);
        self.drain_loopback(cx);
    }

    /// The nodes nearest to this one are others now: they may be members of its logs.
    pub fn handle_nearest_changed(&mut self, cx: Context<'_>) {
        self.for_each_tree(cx, |tree, cx| {
            if tree.role.is_root() {
                tree.review_place(cx);
                tree.review_members(cx);
            }
        });
        self.drain_loopback(cx);
    }

    /// This node is reached in another way now: parents and roots must know.
    pub fn handle_contact_changed(&mut self, cx: Context<'_>) {
        self.for_each_tree(cx, Tree::rejoin);
        self.drain_loopback(cx);
    }

    /// A node was found dead, or has left the ring.
    pub fn handle_peer_down(&mut self, cx: Context<'_>, peer: NodeId) {
        self.lose_parents(cx, peer, ParentLost::PeerDown);
        self.drop_children(cx, peer);
        self.links.on_down(peer);
        self.links.note_lost(cx.now);
        self.for_each_tree(cx, |tree, cx| tree.on_node_down(cx, peer));
        self.trees.values_mut().for_each(|tree| tree.role.forget_root(peer));
        for topic in self.publishing.topics() {
            self.with_publisher(cx, topic, |publishing, cx| publishing.on_peer_down(cx, peer));
        }
        self.drain_loopback(cx);
    }

    /// A connection broke: a hint, not a proof of death. Trees with that parent look for another one at once.
    pub fn handle_link_down(&mut self, cx: Context<'_>, peer: NodeId) {
        let waiting = self.links.on_down(peer);
        self.push_waiting(cx, waiting);
        self.lose_parents(cx, peer, ParentLost::LinkDown);
        self.drain_loopback(cx);
    }

    /// The transport says how much waits for a peer, or to be handled by this node.
    pub fn handle_queued(&mut self, cx: Context<'_>, peer: NodeId, bytes: usize) {
        let high_water = self.config.push.high_water;
        let waiting = if peer == self.me {
            self.links.set_behind(bytes > high_water)
        } else {
            self.links.on_queued(peer, bytes, high_water)
        };
        self.push_waiting(cx, waiting);
        self.drain_loopback(cx);
    }

    fn push_waiting(&mut self, cx: Context<'_>, waiting: WaitingChildren) {
        for (topic, child) in waiting {
            self.with_tree(cx, topic, |tree, cx| tree.on_link_free(cx, child));
        }
    }

    /// The deadline passed. Spurious calls are harmless.
    pub fn handle_timeout(&mut self, cx: Context<'_>) {
        while let Some(timer) = self.deadlines.pop(cx.now) {
            self.on_timer(cx, timer);
            self.drain_loopback(cx);
        }
        for id in self.neighbours.due(cx.now, self.links.is_behind()) {
            if self.look_at(cx, id) {
                self.neighbours.send_beat(&mut self.out, id, Vec::new(), Vec::new(), true);
            }
        }
        if self.upkeep.at.is_some_and(|at| at <= cx.now) {
            self.on_beat_timer(cx);
            self.drain_loopback(cx);
        }
    }

    /// The calls that came together have all been made: what the trees gathered in them is said.
    pub fn handle_turn_end(&mut self, cx: Context<'_>) {
        for topic in std::mem::take(&mut self.turn) {
            self.with_tree(cx, topic, |tree, cx| tree.on_turn_end(cx));
        }
        self.review_leaving(cx);
        self.drain_loopback(cx);
    }

    /// The ring is left, or has thrown this node out: nothing goes on.
    pub fn handle_stopped(&mut self) {
        self.publishing.stop(&mut self.out);
        self.end();
    }

    /// The next request to the ring.
    pub fn poll_request(&mut self) -> Option<Request> {
        poll(&mut self.out.requests)
    }

    /// The next thing to tell the layer above.
    pub fn poll_event(&mut self) -> Option<Event> {
        poll(&mut self.out.events)
    }

    /// When [`handle_timeout`](Forest::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        earliest(earliest(self.deadlines.next(), self.upkeep.at), self.neighbours.watched_at())
    }
}

/// Takes from a queue. One that is drained keeps no room at a quiet node; a busy node's is given back with the next
/// beat.
fn poll<T>(queue: &mut VecDeque<T>) -> Option<T> {
    const BUSY: usize = 64;
    let item = queue.pop_front();
    if item.is_none() && queue.capacity() < BUSY {
        *queue = VecDeque::new();
    }
    item
}

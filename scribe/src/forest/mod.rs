//! All trees of a node. Sans-IO: the stack hands in what the ring says and carries out the requests.
//!
//! The forest holds what the trees have in common, and lets each message, deadline and news of the ring come to the tree
//! that it is about. What happens in one tree is decided in `tree/`, which knows the forest only by
//! [`TreeCx`](context::TreeCx).

mod context;
mod quota;
mod links;
mod neighbours;
mod handoffs;
mod inbox;
mod tree;
mod dispatch;
mod subscribe;
mod publish;
mod upkeep;
mod leave;
mod view;
mod invariants;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use treecast_overlay::deadlines::Deadlines;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::random::{self, Rng};
use treecast_overlay::time::{Instant, earliest};
use treecast_overlay::wire::Standing;

pub use self::context::{Context, Request, RingView};
use self::context::{Life, Numbers, Outbox, Timer, TimersOf, TreeCx};
use self::dispatch::Way;
use self::handoffs::Handoffs;
pub use self::invariants::Size;
use self::links::Links;
use self::neighbours::Neighbours;
use self::quota::Quota;
use self::tree::Tree;
pub use self::view::Place;
use crate::config::{Config, ConfigError};
use crate::event::{Event, SubscriptionId};
use crate::publisher::Publishers;
use crate::topic::TopicId;
use crate::wire::{self, Header};

type Trees = BTreeMap<TopicId, Box<Tree>>;

/// All trees of a node.
pub struct Forest {
    me: NodeId,
    /// Shared: a laboratory has a hundred thousand of them.
    config: Arc<Config>,
    rng: Rng,
    life: Life,
    // Boxed: a B-tree's leaf has room for eleven.
    trees: Trees,
    /// The topic of each subscription.
    topics: BTreeMap<SubscriptionId, TopicId>,
    publishers: Publishers,
    neighbours: Neighbours,
    links: Links,
    quota: Quota,
    handoffs: Handoffs,
    numbers: Numbers,
    deadlines: Deadlines<Timer>,
    /// When neighbours are to be told that this node lives. Not among the deadlines: a node at rest has no others, and
    /// pays for no B-tree.
    beat_at: Option<Instant>,
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
            life: Life::Running,
            trees: Trees::new(),
            topics: BTreeMap::new(),
            publishers: Publishers::default(),
            neighbours: Neighbours::default(),
            links: Links::default(),
            quota: Quota::default(),
            handoffs: Handoffs::default(),
            numbers: Numbers::default(),
            deadlines: Deadlines::default(),
            beat_at: None,
            out: Outbox::new(me),
        })
    }

    /// The ring is ready: what waited for it begins.
    pub fn handle_ready(&mut self, cx: Context<'_>) {
        self.for_each_tree(cx, |tree, cx| {
            if tree.role.is_joining() {
                tree.seek(cx);
            }
        });
        for topic in self.publishers.topics() {
            self.send_published(cx, topic);
        }
        self.drain_loopback(cx);
    }

    /// A routed message passes this node. Returns whether the forest took it: if not, it is to go on.
    ///
    /// Scribe §3.3: "When a node receives a JOIN … it checks … whether it is currently a forwarder; if so, it accepts
    /// the node as a child, adding it to the children table. If the node is not already a forwarder, it creates an
    /// entry for the group, and adds the source node as a child … It then becomes a forwarder by sending a JOIN".
    pub fn handle_forward(&mut self, cx: Context<'_>, origin: &Contact, payload: &Bytes) -> bool {
        if self.life != Life::Running || origin.id() == self.me || cx.ring.standing() != Standing::Ready {
            return false;
        }
        let Ok((Header::Join(join), _)) = wire::decode(payload) else { return false };
        let taken = self.with_tree(cx, join.topic, |tree, cx| tree.intercept(cx, *origin, &join));
        let taken = taken.unwrap_or_else(|| {
            self.ensure_tree(cx, join.topic)
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

    /// This node is reached in another way now: parents and roots must know.
    pub fn handle_contact_changed(&mut self, cx: Context<'_>) {
        self.for_each_tree(cx, Tree::rejoin);
        self.drain_loopback(cx);
    }

    /// The deadline passed. Spurious calls are harmless.
    pub fn handle_timeout(&mut self, cx: Context<'_>) {
        while let Some(timer) = self.deadlines.pop(cx.now) {
            self.on_timer(cx, timer);
            self.drain_loopback(cx);
        }
        if self.beat_at.is_some_and(|at| at <= cx.now) {
            self.on_beat_timer(cx);
            self.drain_loopback(cx);
        }
    }

    /// The next thing that the forest wants of the ring.
    pub fn poll_request(&mut self) -> Option<Request> {
        poll(&mut self.out.requests)
    }

    /// The next thing to tell the layer above.
    pub fn poll_event(&mut self) -> Option<Event> {
        poll(&mut self.out.events)
    }

    /// When [`handle_timeout`](Forest::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        earliest(self.deadlines.next(), self.beat_at)
    }

    /// The trees, and all that one of them may use.
    fn split<'a>(&'a mut self, cx: Context<'a>, topic: TopicId) -> (&'a mut Trees, TreeCx<'a>) {
        let Forest { me, config, rng, life, trees, neighbours, links, quota, handoffs, .. } = self;
        let timers = TimersOf::new(topic, &mut self.deadlines);
        let (now, ring, out, numbers) = (cx.now, cx.ring, &mut self.out, &mut self.numbers);
        let (me, life) = (*me, *life);
        let cx = TreeCx {
            now,
            topic,
            me,
            ring,
            config,
            life,
            rng,
            out,
            timers,
            neighbours,
            links,
            quota,
            numbers,
            handoffs,
        };
        (trees, cx)
    }

    /// Lets a tree act, if this node is on it.
    fn with_tree<T>(
        &mut self,
        cx: Context<'_>,
        topic: TopicId,
        act: impl FnOnce(&mut Tree, &mut TreeCx<'_>) -> T,
    ) -> Option<T> {
        let (trees, mut tree_cx) = self.split(cx, topic);
        let result = act(trees.get_mut(&topic)?, &mut tree_cx);
        self.shrink_windows();
        Some(result)
    }

    /// Lets all trees act, in the order of their topics.
    fn for_each_tree(&mut self, cx: Context<'_>, act: impl Fn(&mut Tree, &mut TreeCx<'_>)) {
        for topic in self.topic_ids() {
            self.with_tree(cx, topic, &act);
        }
    }

    fn topic_ids(&self) -> Vec<TopicId> {
        self.trees.keys().copied().collect()
    }

    /// Makes sure that this node is on a tree, or on its way. `false`: it is on too many.
    fn ensure_tree(&mut self, cx: Context<'_>, topic: TopicId) -> bool {
        if self.trees.contains_key(&topic) {
            return true;
        }
        if self.trees.len() >= self.config.max_trees {
            return false;
        }
        self.trees.insert(topic, Box::new(Tree::new(cx.now, topic)));
        self.keep_beating(cx.now);
        true
    }

    /// Leaves a tree, and forgets it.
    fn remove_tree(&mut self, cx: Context<'_>, topic: TopicId) {
        let (trees, mut tree_cx) = self.split(cx, topic);
        if let Some(mut tree) = trees.remove(&topic) {
            tree.close(&mut tree_cx);
        }
    }

    /// If all windows together are too large, those shrink that were idle longest.
    fn shrink_windows(&mut self) {
        let Forest { trees, quota: Quota { windows, .. }, config, .. } = self;
        while windows.bytes() > config.windows_bytes {
            let Some(tree) = windows.oldest().and_then(|oldest| trees.get_mut(&oldest)) else { break };
            tree.shrink_window(windows);
        }
    }
}

/// Takes from a queue. One that is drained keeps no room at a quiet node; a busy node's is given back with the next beat.
fn poll<T>(queue: &mut VecDeque<T>) -> Option<T> {
    const BUSY: usize = 64;
    let item = queue.pop_front();
    if item.is_none() && queue.capacity() < BUSY {
        *queue = VecDeque::new();
    }
    item
}

//! What a forest takes of memory, by its own count.

use treecast_overlay::id::NodeId;
use treecast_overlay::memory;
use treecast_overlay::time::Instant;

use super::Forest;
use super::tree::{Child, Log, Role, Subscription, Tree};
use crate::event::SubscriptionId;
use crate::publisher::Publisher;
use crate::topic::TopicId;

/// A root's session takes about that much: its place in a B-tree, and a few positions.
const SESSION: usize = 256;
/// A tree neighbour: its place in a B-tree, and one topic shared.
const NEIGHBOUR: usize = 512;

impl Forest {
    /// Bytes on the heap: what trees pin is counted to the byte, sessions and neighbours are estimated, and the shared
    /// configuration is not counted.
    pub fn bytes(&self) -> usize {
        let trees = memory::tree(self.trees.len(), size_of::<(TopicId, Tree)>());
        let topics = memory::tree(self.topics.len(), size_of::<(SubscriptionId, TopicId)>());
        let publishers = memory::tree(self.publishers.len(), size_of::<(TopicId, Publisher)>());
        let timers = self.deadlines.bytes();
        let ages = memory::tree(self.trees.len(), size_of::<(Instant, TopicId)>());
        let queues = memory::queue(&self.out.requests)
            + memory::queue(&self.out.events)
            + memory::queue(&self.out.loopback);
        let estimates = self.sessions * SESSION + self.neighbours.iter().count() * NEIGHBOUR;
        let owned: usize = self.trees.values().map(bytes_of).sum();
        let moved = memory::tree(self.moved.len(), size_of::<TopicId>());
        trees + topics + publishers + timers + ages + queues + estimates + owned + moved
    }
}

/// What a tree owns besides its own entry.
fn bytes_of(tree: &Tree) -> usize {
    let children = memory::tree(tree.children.len(), size_of::<(NodeId, Child)>());
    let subscriptions = memory::tree(tree.subscriptions.len(), size_of::<(SubscriptionId, Subscription)>());
    let place = match &tree.role {
        Role::Joining { .. } => 0,
        Role::Child(upward) => memory::list(&upward.path),
        Role::Opening(opening) => size_of_val(&**opening) + opening.parked_bytes,
        Role::Root(root) => size_of_val(&**root),
    };
    let entries = tree.log.as_ref().map_or(0, |log: &Log| log.window.entries().count());
    let window = entries * size_of::<crate::window::Entry>();
    children + subscriptions + place + window + tree.bytes()
}

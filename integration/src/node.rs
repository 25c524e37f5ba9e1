//! Ring nodes as the laboratory knows them, whatever the ring's geometry: how to make one, and what judges, builders
//! and figures read of it.

use std::any::Any;
use std::sync::Arc;

use treecast_overlay::config::{Config, ConfigError, Role};
use treecast_overlay::geometry::Geometry;
use treecast_overlay::geometry::full::FullMembership;
use treecast_overlay::geometry::pastry::Pastry;
use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::memory::Memory;
use treecast_overlay::peer::Peer;
use treecast_overlay::ring::{Node, Size};
use treecast_scribe::Stack;

/// A node that the laboratory can run and judge. Every `Node<G>` is one.
pub trait RingNode: KeyBasedRouting + 'static {
    /// A node that was not started yet. The same seed makes the same choices.
    fn create(me: Peer, config: Arc<Config>, seed: [u8; 32]) -> Result<Self, ConfigError>
    where
        Self: Sized;

    /// Whether it is on the ring, or hangs on it.
    fn role(&self) -> Role;

    /// The next nodes to its left and to its right, as far as it knows.
    fn neighbours(&self) -> [Option<Peer>; 2];

    /// Whether another node is among those around it.
    fn knows(&self, id: NodeId) -> bool;

    /// The nodes around it.
    fn around(&self) -> Vec<Peer>;

    /// Whether it knows of no other node around it.
    fn is_alone(&self) -> bool {
        self.neighbours() == [None, None]
    }

    /// The nodes in its tables for far keys.
    fn far(&self) -> Vec<Peer>;

    /// The peer that its table for far keys has for this digit behind a prefix of `row` digits. `None`: nothing, or there is no
    /// such table.
    fn entry(&self, row: usize, digit: usize) -> Option<Peer>;

    /// Everything bounded in it.
    fn sizes(&self) -> Vec<Size>;

    /// Panics if it contradicts itself.
    fn assert_invariants(&self);

    /// Bytes of a whole node by part, by its own count.
    fn memory(stack: &Stack<Self>) -> Memory
    where
        Self: Sized;
}

impl<G: Geometry> RingNode for Node<G> {
    fn create(me: Peer, config: Arc<Config>, seed: [u8; 32]) -> Result<Node<G>, ConfigError> {
        Node::new(me, config, seed)
    }

    fn role(&self) -> Role {
        Node::role(self)
    }

    fn neighbours(&self) -> [Option<Peer>; 2] {
        [self.leaf_set().left(), self.leaf_set().right()].map(|peer| peer.copied())
    }

    fn knows(&self, id: NodeId) -> bool {
        self.leaf_set().contains(id)
    }

    fn around(&self) -> Vec<Peer> {
        self.leaf_set().iter().copied().collect()
    }

    fn far(&self) -> Vec<Peer> {
        self.geometry().entries().copied().collect()
    }

    fn entry(&self, row: usize, digit: usize) -> Option<Peer> {
        let pastry: &Pastry = (self.geometry() as &dyn Any).downcast_ref()?;
        pastry.routing_table().slot(row, digit).first().map(|entry| entry.peer)
    }

    fn sizes(&self) -> Vec<Size> {
        Node::sizes(self)
    }

    fn assert_invariants(&self) {
        Node::assert_invariants(self);
    }

    fn memory(stack: &Stack<Node<G>>) -> Memory {
        stack.memory()
    }
}

/// A node of a ring in which every node knows every node.
pub type FullNode = Node<FullMembership>;

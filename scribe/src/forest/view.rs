//! Looking at a forest from outside: each tree's place by reference, and what all of it weighs.

use treecast_overlay::id::NodeId;
use treecast_overlay::memory;

use super::Forest;
use super::tree::{Child, Role, Tree};
use crate::event::SubscriptionId;
use crate::publisher::TopicPublisher;
use crate::topic::TopicId;

/// What a root remembers of a session takes about that much: its place in a B-tree, and a few positions.
const SESSION: usize = 256;

/// This node's place in one topic's tree. Costs nothing to take: a laboratory walks those of a hundred thousand nodes.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    tree: &'a Tree,
}

impl<'a> Place<'a> {
    /// The topic.
    pub fn topic(&self) -> TopicId {
        self.tree.topic
    }

    /// The parent; `None` at the root, or while there is none.
    pub fn parent(&self) -> Option<NodeId> {
        self.tree.parent()
    }

    /// From the parent, which is the first, to the root, as far as this node was told. Empty at the root, and while
    /// there is no parent.
    pub fn path(&self) -> &'a [NodeId] {
        self.tree.path()
    }

    /// Hops to the root, as far as this node was told.
    pub fn depth(&self) -> usize {
        self.path().len()
    }

    /// Whether this node is the root.
    pub fn is_root(&self) -> bool {
        self.tree.is_root()
    }

    /// The birth of the log that this node has a part of; `None` until a parent has started it.
    pub fn birth(&self) -> Option<u64> {
        self.tree.log.as_ref().map(|log| log.birth)
    }

    /// Subscriptions of this very node: none at a forwarder.
    pub fn subscriptions(&self) -> usize {
        self.tree.subscriptions.len()
    }

    /// The children, in the order of their ids.
    pub fn children(&self) -> impl ExactSizeIterator<Item = NodeId> + 'a {
        self.tree.children.keys().copied()
    }
}

impl Forest {
    /// This node's places, in the order of their topics.
    pub fn places(&self) -> impl ExactSizeIterator<Item = Place<'_>> {
        self.trees.values().map(|tree| Place { tree })
    }

    /// Children in all trees together: the paper's "entries in children tables".
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Heap bytes of the trees and of what belongs to them: trees, children, subscriptions, publishers, neighbours,
    /// timers, and the entries of the windows with the buffers that they pin. Spare room is counted; what roots remember
    /// of sessions is estimated. Not counted: the shared configuration, handovers, which have limits of their own, and
    /// what an allocator adds.
    pub fn bytes(&self) -> usize {
        let trees: usize = self.trees.values().map(|tree| tree.weight()).sum();
        let index = memory::tree(self.trees.len(), size_of::<(TopicId, usize)>());
        let names = memory::tree(self.topics.len(), size_of::<(SubscriptionId, TopicId)>());
        let publishers = memory::tree(self.publishers.len(), size_of::<(TopicId, TopicPublisher)>());
        let moved = memory::tree(self.moved.len(), size_of::<TopicId>());
        let queues = memory::queue(&self.out.requests) + memory::queue(&self.out.events);
        let sessions = self.sessions * SESSION;
        let timers = self.deadlines.bytes();
        trees + index + names + publishers + moved + timers + queues + sessions + self.neighbours.weight()
    }
}

impl Tree {
    /// Heap bytes, the tree itself included.
    fn weight(&self) -> usize {
        let role = match &self.role {
            Role::Child(upward) => {
                let root = upward.root.as_ref().map_or(0, |root| size_of_val(&**root));
                size_of_val::<[NodeId]>(&upward.path) + root
            }
            Role::Joining { former } => former.as_ref().map_or(0, |former| size_of_val(&**former)),
            Role::Opening(opening) => size_of_val(&**opening),
            Role::Root(root) => size_of_val(&**root),
        };
        let boxed = |child: &Child| child.after.as_ref().map_or(0, |after| size_of_val(&**after));
        let window = self.log.as_ref().map_or(0, |log| log.window.weight());
        size_of::<Tree>()
            + role
            + self.heard.as_ref().map_or(0, |heard| size_of_val(&**heard))
            + self.children.bytes()
            + self.children.values().map(boxed).sum::<usize>()
            + self.subscriptions.bytes()
            + self.subscriptions.values().map(|subscription| subscription.seen.weight()).sum::<usize>()
            + self.moving.as_ref().map_or(0, |moving| moving.bytes())
            + window
            + self.early.bytes()
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::NodeId;

    use crate::config::Config;
    use crate::forest::Forest;
    use crate::forest::neighbours::Neighbour;
    use crate::forest::tree::{Child, Subscription, Tree};

    #[test]
    fn a_forest_weighs_what_it_holds() {
        let forest = Forest::new(NodeId(1), Config::default(), &[1; 32]).unwrap();
        assert_eq!(forest.bytes(), 0, "no trees, no heap");
        let sizes = [
            ("forest", size_of::<Forest>(), 2048),
            ("tree", size_of::<Tree>(), 400),
            ("child", size_of::<(NodeId, Child)>(), 160),
            ("neighbour", size_of::<Neighbour>(), 256),
            ("subscription", size_of::<Subscription>(), 256),
        ];
        for (what, size, most) in sizes {
            println!("{what}: {size} bytes");
            assert!(size <= most, "a {what} takes {size} bytes, more than {most}");
        }
    }
}

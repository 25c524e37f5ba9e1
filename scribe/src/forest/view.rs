//! Looking at a forest from outside: each tree's place by reference, and the weight of all.

use std::ops::Range;

use treecast_overlay::id::NodeId;
use treecast_overlay::memory;

use super::Forest;
use super::tree::Tree;
use crate::event::{LogStatus, SubscriptionId, TopicStatus, TreeStatus};
use crate::log::Log;
use crate::topic::TopicId;
use crate::wire::{Configuration, Life};

/// A root's memory of one session takes about that many bytes: its place in a B-tree, and a few positions.
const SESSION: usize = 256;

/// This node's place in one topic's tree. Costs nothing to take: a laboratory walks those of a hundred thousand nodes.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    tree: &'a Tree,
}

impl<'a> Place<'a> {
    /// The topic.
    pub fn topic(&self) -> TopicId {
        self.tree.topic()
    }

    /// The parent; `None` at the root, or while there is none.
    pub fn parent(&self) -> Option<NodeId> {
        self.tree.role.parent()
    }

    /// From the parent, which is the first, to the root, as far as this node was told. Empty at the root, and while
    /// there is no parent.
    pub fn path(&self) -> &'a [NodeId] {
        self.tree.role.path()
    }

    /// Hops to the root, as far as this node was told.
    pub fn depth(&self) -> usize {
        self.path().len()
    }

    /// Whether this node is the root.
    pub fn is_root(&self) -> bool {
        self.tree.role.is_root()
    }

    /// Whether this node is a member of the log, or is to become one.
    pub fn is_member(&self) -> bool {
        self.tree.flow.log.copy_state().is_some()
    }

    /// This node's part of the log; `None` until a parent has started it.
    pub fn log(&self) -> Option<&'a Log> {
        self.tree.flow.log.part()
    }

    /// The birth of the log that this node has a part of; `None` until a parent has started it.
    pub fn birth(&self) -> Option<u64> {
        self.tree.flow.log.part().map(|log| log.birth)
    }

    /// The state of the topic, as this node knows it.
    pub fn status(&self, me: NodeId) -> TopicStatus {
        let log = |log: &Log| LogStatus {
            birth: log.birth,
            first: log.window.start(),
            end: log.commit(),
            members: log
                .configurations()
                .governing(log.commit())
                .map_or_else(Vec::new, |known| known.members.iter().map(|member| member.peer.id).collect()),
        };
        TopicStatus {
            root: if self.is_root() { Some(me) } else { self.path().last().copied() },
            is_root: self.is_root(),
            depth: self.depth(),
            subscribers: self.tree.flow.subscribers(),
            log: self.tree.flow.log.part().map(log),
        }
    }

    /// Whether this node is the root, and gives positions.
    pub fn is_serving(&self) -> bool {
        self.tree.role.root().is_some_and(|root| root.primary.is_serving())
    }

    /// This node's life as a member of the log; `None`: it is none.
    pub fn life(&self) -> Option<Life> {
        self.tree.flow.log.part().and_then(|log| log.replica()).map(|replica| replica.life)
    }

    /// The configurations that this node knows of: the last committed one, and those behind it.
    pub fn configurations(&self) -> &'a [Configuration] {
        self.tree.flow.log.part().map_or(&[], |log| log.configurations().all())
    }

    /// Entries before this offset are committed, as far as this node knows.
    pub fn commit(&self) -> u64 {
        self.tree.flow.log.part().map_or(0, |log| log.commit())
    }

    /// The entries that this node keeps.
    pub fn window(&self) -> Range<u64> {
        self.tree.flow.log.part().map_or(0..0, |log| log.window.start()..log.end())
    }

    /// The offset before which this node has everything that its parent has.
    pub fn matched(&self) -> u64 {
        self.tree.flow.log.matched()
    }

    /// Subscriptions of this very node: none at a forwarder.
    pub fn subscriptions(&self) -> usize {
        self.tree.flow.readers.len()
    }

    /// The children, in the order of their ids.
    pub fn children(&self) -> impl ExactSizeIterator<Item = NodeId> + 'a {
        self.tree.flow.children.ids()
    }
}

impl Forest {
    /// This node's places, in the order of their topics.
    pub fn places(&self) -> impl ExactSizeIterator<Item = Place<'_>> {
        self.trees.values().map(|tree| Place { tree })
    }

    /// This node's place in the tree of one topic.
    pub fn place(&self, topic: TopicId) -> Option<Place<'_>> {
        self.trees.get(&topic).map(|tree| Place { tree })
    }

    /// The trees that this node is on, as values of their own; [`places`](Forest::places) is cheaper.
    pub fn trees(&self) -> Vec<TreeStatus> {
        let status = |place: Place<'_>| TreeStatus {
            topic: place.topic(),
            parent: place.parent(),
            is_root: place.is_root(),
            is_member: place.is_member(),
            children: place.children().collect(),
            subscriptions: place.subscriptions(),
        };
        self.places().map(status).collect()
    }

    /// The state of a topic, as this node knows it; `None` if it is not on its tree.
    pub fn topic(&self, topic: TopicId) -> Option<TopicStatus> {
        self.trees.get(&topic).map(|tree| Place { tree }.status(self.me))
    }

    /// Children in all trees together: the paper's "entries in children tables".
    pub fn entries(&self) -> usize {
        self.quota.children.count()
    }

    /// Heap bytes of the trees and of what belongs to them: trees, children, subscriptions, publishers, neighbours,
    /// timers, and the entries of the windows with the buffers that they pin. Spare room is counted; sessions of roots
    /// are estimated. Not counted: the shared configuration and the allocator's overhead.
    pub fn bytes(&self) -> usize {
        let trees: usize = self.trees.values().map(|tree| tree.weight()).sum();
        let index = memory::tree(self.trees.len(), size_of::<(TopicId, usize)>());
        let names = memory::tree(self.topics.len(), size_of::<(SubscriptionId, TopicId)>());
        let queues = memory::queue(&self.out.requests) + memory::queue(&self.out.events);
        let sessions = self.quota.sessions.count() * SESSION;
        let timers = self.deadlines.bytes();
        let publishers = self.publishing.weight();
        trees + index + names + publishers + timers + queues + sessions + self.neighbours.weight()
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::NodeId;

    use crate::config::Config;
    use crate::forest::Forest;
    use crate::forest::neighbours::Neighbour;
    use crate::forest::tree::Tree;
    use crate::forest::tree::children::Child;
    use crate::forest::tree::readers::LocalSubscriber;

    #[test]
    fn a_forest_weighs_what_it_holds() {
        let forest = Forest::new(NodeId(1), Config::default(), &[1; 32]).unwrap();
        assert_eq!(forest.bytes(), 0, "no trees, no heap");
        let sizes = [
            ("forest", size_of::<Forest>(), 2048),
            ("tree", size_of::<Tree>(), 448),
            ("child", size_of::<(NodeId, Child)>(), 232),
            ("neighbour", size_of::<Neighbour>(), 256),
            ("subscriber", size_of::<LocalSubscriber>(), 256),
        ];
        for (what, size, most) in sizes {
            println!("{what}: {size} bytes");
            assert!(size <= most, "a {what} takes {size} bytes, more than {most}");
        }
    }
}

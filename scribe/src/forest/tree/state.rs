//! Questions about a tree that several of its parts answer together. Changes nothing, and calls no other file of
//! [`Tree`].

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;

use super::Tree;
use super::role::{Role, is_above};
use crate::forest::context::TreeCx;
use crate::topic::TopicId;
use crate::wire::{Attached, MAX_PATH};

impl Tree {
    pub(crate) fn topic(&self) -> TopicId {
        self.flow.topic
    }

    /// Whether the topic is this node's own: it subscribes to it, holds its log, or is its root.
    pub(crate) fn is_own(&self) -> bool {
        self.role.is_root() || !self.flow.readers.is_empty() || self.flow.log.is_member()
    }

    /// Whether it is kept for a while, be it needed or not.
    pub(crate) fn is_kept(&self, now: Instant) -> bool {
        self.keep_until > now
    }

    /// Whether nothing changes above this node as far as it knows, and it has a log to start others.
    pub(crate) fn is_settled(&self) -> bool {
        let placed = match &self.role {
            Role::Child(link) => link.join == self.uplink.join,
            Role::Root(root) => root.primary.is_serving(),
            Role::Joining { .. } => false,
        };
        placed && self.relocation.is_none() && self.flow.log.part().is_some()
    }

    /// Whether a child, a subscriber or the log's members need this node.
    pub(crate) fn is_needed(&self) -> bool {
        self.flow.is_needed() || self.role.is_root() || self.flow.log.copy_state().is_some()
    }

    /// The nodes next to this one: its children, and its parent.
    pub(crate) fn neighbours(&self) -> Vec<NodeId> {
        self.flow.children.ids().chain(self.role.parent()).collect()
    }

    /// Whether this node may take a child. One that is its own ancestor would close a loop.
    pub(crate) fn may_adopt(&self, cx: &TreeCx<'_>, child: NodeId) -> bool {
        let room =
            self.flow.children.contains(child) || self.flow.children.ordinary() < cx.config.tree.max_children;
        let path = self.role.path();
        room && child != cx.me && !path.contains(&child) && path.len() + 1 < MAX_PATH
    }

    /// Whether a node may take this one for its child: it is the parent, or this node waits for its answer to a JOIN.
    pub(crate) fn may_be_child_of(&self, node: NodeId) -> bool {
        let chosen = self.relocation.as_ref().and_then(|relocation| relocation.chosen());
        let parent = self.role.parent();
        chosen.is_some_and(|to| to.id() == node) || self.role.is_joining() || parent == Some(node)
    }

    /// Whether a node that has said this is above this one, and has what it needs next. (Promise S1: no node accepts a
    /// parent whose last known path to the root contains it; nor one of its own children.)
    pub(crate) fn is_served_by(&self, me: NodeId, parent: NodeId, attached: &Attached) -> bool {
        let (Some(log), Some(start)) = (self.flow.log.part(), &attached.start) else { return false };
        is_above(me, attached)
            && !self.flow.children.contains(parent)
            && start.birth == log.birth
            && start.next <= log.end()
            && start.sync.is_none()
    }

    /// Heap bytes, the tree itself included.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Tree>()
            + self.role.weight()
            + self.uplink.weight()
            + self.flow.weight()
            + self.relocation.as_ref().map_or(0, |relocation| relocation.bytes())
    }
}

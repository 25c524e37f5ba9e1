//! What follows from the state of a tree's parts together. Changes nothing, and calls no other file of [`Tree`].

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;

use super::Tree;
use super::children::{Children, Source};
use super::role::{Role, is_above};
use crate::forest::context::TreeCx;
use crate::message::Mark;
use crate::topic::TopicId;
use crate::wire::{Attached, Join, LogTip, MAX_PATH, Moved};

impl Tree {
    pub(crate) fn topic(&self) -> TopicId {
        self.topic
    }

    /// Whether the topic is this node's own: it subscribes to it, or is its root.
    pub(crate) fn is_own(&self) -> bool {
        self.role.is_root() || !self.readers.is_empty()
    }

    /// Whether any child or subscriber needs it.
    pub(crate) fn is_needed(&self) -> bool {
        !self.children.is_empty() || !self.readers.is_empty()
    }

    /// Whether it is kept for a while, be it needed or not.
    pub(crate) fn is_kept(&self, now: Instant) -> bool {
        self.keep_until > now
    }

    /// Whether nothing changes above this node as far as it knows, and it has a log to start others.
    pub(crate) fn is_settled(&self) -> bool {
        let placed = match &self.role {
            Role::Child(link) => link.join == self.uplink.join,
            Role::Root(_) => true,
            Role::Joining { .. } | Role::Recovering(_) => false,
        };
        placed && self.relocation.is_none() && self.log.part().is_some()
    }

    /// Subscribers at and below this node.
    pub(crate) fn subscribers(&self) -> u64 {
        self.children.subscribers().saturating_add(self.readers.len() as u64)
    }

    /// The same as an honest estimate: 0 only if there is neither child nor subscriber.
    pub(crate) fn listeners(&self) -> u64 {
        self.subscribers().max(u64::from(self.is_needed()))
    }

    /// The nodes next to this one: its children, and its parent.
    pub(crate) fn neighbours(&self) -> Vec<NodeId> {
        self.children.ids().chain(self.role.parent()).collect()
    }

    /// How far this node is, for its neighbours.
    pub(crate) fn progress(&self) -> Moved {
        Moved { topic: self.topic, tail: self.log.tail(), subscribers: self.subscribers() }
    }

    /// This node's JOIN for a parent, under a certain number. `former`: the parent that it keeps until the other one
    /// pushes.
    pub(crate) fn join_message(&self, number: u64, former: Option<NodeId>) -> Join {
        let subscribers = self.subscribers();
        let (after, heard) = (self.resume_point(), self.implied_tip());
        Join { topic: self.topic, number, after, heard, subscribers, former }
    }

    /// What a JOIN tells of the log: what is known; else what the resume point implies.
    fn implied_tip(&self) -> Option<LogTip> {
        let implied = || {
            let mark = self.resume_point()?;
            Some(LogTip { birth: mark.birth, term: mark.position?.term, tail: mark.position })
        };
        self.log.tip().or_else(implied)
    }

    /// What this node wants to continue after: what it has, else the oldest that its children and subscribers ask for.
    pub(crate) fn resume_point(&self) -> Option<Mark> {
        if let Some(log) = self.log.part() {
            return Some(log.mark());
        }
        let mut marks = self.children.resume_points().chain(self.readers.resume_points());
        let first = marks.next()?;
        let older = |oldest: Mark, mark: Mark| if mark.position < oldest.position { mark } else { oldest };
        // Marks of other births say nothing of this one; the first decides.
        Some(marks.filter(|mark| mark.birth == first.birth).fold(first, older))
    }

    /// Whether this node may take a child. One that is its own ancestor would close a loop.
    pub(crate) fn may_adopt(&self, cx: &TreeCx<'_>, child: NodeId) -> bool {
        let room = self.children.contains(child) || self.children.len() < cx.config.max_children;
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
        let (Some(log), Some(start)) = (self.log.part(), &attached.start) else { return false };
        is_above(me, attached)
            && !self.children.contains(parent)
            && start.after.birth == log.birth
            && start.after.position <= log.window.tail()
    }

    /// The children, and what they are told and pushed.
    pub(super) fn serving(&mut self, cx: &TreeCx<'_>) -> (&mut Children, Source<'_>) {
        let root = if self.role.is_root() { Some(cx.ring.contact().peer) } else { self.role.told_root() };
        (&mut self.children, Source { path: self.role.path(), root, log: self.log.part() })
    }

    /// Heap bytes, the tree itself included.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Tree>()
            + self.role.weight()
            + self.log.weight()
            + self.children.weight()
            + self.readers.weight()
            + self.relocation.as_ref().map_or(0, |relocation| relocation.bytes())
    }
}

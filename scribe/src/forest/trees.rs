//! How the forest lets trees act, makes them, and drops them. Calls no other file of [`Forest`].

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use super::context::{Context, TimersOf, TreeCx};
use super::neighbours::Link;
use super::publishing::{PublishCx, Publishing};
use super::quota::Quota;
use super::tree::{ParentLost, Tree};
use super::{Forest, Trees};
use crate::topic::TopicId;

impl Forest {
    /// The trees, and all that the tree of one topic may use.
    pub(super) fn split<'a>(&'a mut self, cx: Context<'a>, topic: TopicId) -> (&'a mut Trees, TreeCx<'a>) {
        let tree_cx = TreeCx {
            now: cx.now,
            topic,
            me: self.me,
            ring: cx.ring,
            config: &self.config,
            life: self.life,
            rng: &mut self.rng,
            out: &mut self.out,
            timers: TimersOf::new(topic, &mut self.deadlines),
            neighbours: &mut self.neighbours,
            links: &mut self.links,
            quota: &mut self.quota,
            numbers: &mut self.numbers,
            turn: &mut self.turn,
        };
        (&mut self.trees, tree_cx)
    }

    /// Lets a tree act, if this node is on it.
    pub(super) fn with_tree<T>(
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
    pub(super) fn for_each_tree(&mut self, cx: Context<'_>, act: impl Fn(&mut Tree, &mut TreeCx<'_>)) {
        for topic in self.topic_ids() {
            self.with_tree(cx, topic, &act);
        }
    }

    pub(super) fn topic_ids(&self) -> Vec<TopicId> {
        self.trees.keys().copied().collect()
    }

    /// Makes sure that this node is on a tree, or on its way. `false`: it is on too many.
    pub(super) fn ensure_tree(&mut self, now: Instant, topic: TopicId) -> bool {
        if self.trees.contains_key(&topic) {
            return true;
        }
        if self.trees.len() >= self.config.tree.max_trees {
            return false;
        }
        self.trees.insert(topic, Box::new(Tree::new(now, topic)));
        self.keep_beating(now);
        true
    }

    /// Leaves a tree, and forgets it.
    pub(super) fn remove_tree(&mut self, cx: Context<'_>, topic: TopicId) {
        let (trees, mut tree_cx) = self.split(cx, topic);
        if let Some(mut tree) = trees.remove(&topic) {
            tree.close(&mut tree_cx);
        }
    }

    /// If all windows together are too large, those shrink that were idle longest: first what is consumed.
    fn shrink_windows(&mut self) {
        let Forest { trees, quota: Quota { windows, .. }, config, .. } = self;
        // Most windows that are looked at for what nothing needs any more.
        const MOST: usize = 64;
        let limit = config.window.total_bytes;
        if windows.bytes() <= limit {
            return;
        }
        for topic in windows.by_age().take(MOST).collect::<Vec<_>>() {
            if windows.bytes() > limit
                && let Some(tree) = trees.get_mut(&topic)
            {
                tree.shrink_window(windows, false);
            }
        }
        while windows.bytes() > limit {
            let Some(tree) = windows.oldest().and_then(|oldest| trees.get_mut(&oldest)) else { break };
            tree.shrink_window(windows, true);
        }
    }

    /// There is something to look after once in a while.
    pub(super) fn keep_beating(&mut self, now: Instant) {
        self.upkeep.begin(now, self.config.beat.every);
    }

    /// All trees in which a node is the parent lose it.
    pub(super) fn lose_parents(&mut self, cx: Context<'_>, parent: NodeId, reason: ParentLost) {
        for topic in self.neighbours.topics(parent, Link::Parent) {
            self.with_tree(cx, topic, |tree, cx| tree.on_parent_lost(cx, reason));
        }
    }

    /// All trees in which a node is a child let it go.
    pub(super) fn drop_children(&mut self, cx: Context<'_>, child: NodeId) {
        for topic in self.neighbours.topics(child, Link::Child) {
            self.with_tree(cx, topic, |tree, cx| tree.remove_child(cx, child));
        }
    }

    /// Lets the publisher of a topic act.
    pub(super) fn with_publisher<T>(
        &mut self,
        cx: Context<'_>,
        topic: TopicId,
        act: impl FnOnce(&mut Publishing, &mut PublishCx<'_>) -> T,
    ) -> T {
        let told_root = self.trees.get(&topic).and_then(|tree| tree.role.told_root()).map(Contact::from);
        let mut publish_cx = PublishCx {
            now: cx.now,
            topic,
            me: self.me,
            ring: cx.ring,
            config: &self.config,
            rng: &mut self.rng,
            out: &mut self.out,
            deadlines: &mut self.deadlines,
            told_root,
            is_behind: self.links.is_behind(),
        };
        act(&mut self.publishing, &mut publish_cx)
    }
}

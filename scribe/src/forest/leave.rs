//! This node's end: it is replaced as a member of logs, parents and children are told, and nothing goes on.

use treecast_overlay::deadlines::Deadlines;

use super::Forest;
use super::context::{Context, LifeStage};
use super::upkeep::Upkeep;

impl Forest {
    /// A node that leaves goes once it holds no log that counts on it.
    pub(super) fn review_leaving(&mut self, cx: Context<'_>) {
        if self.life == LifeStage::Leaving && !self.trees.values().any(|tree| tree.is_held_by_its_log()) {
            self.finish_leaving(cx);
        }
    }

    /// Says goodbye to parents and children, so that they look for others at once.
    pub(super) fn finish_leaving(&mut self, cx: Context<'_>) {
        if self.life != LifeStage::Leaving {
            return;
        }
        for topic in self.topic_ids() {
            self.remove_tree(cx, topic);
        }
        self.end();
    }

    pub(super) fn end(&mut self) {
        self.life = LifeStage::Left;
        self.deadlines = Deadlines::default();
        self.upkeep = Upkeep::NONE;
    }
}

//! This node's end: logs are handed over, parents and children are told, and nothing goes on.

use treecast_overlay::deadlines::Deadlines;

use super::Forest;
use super::context::{Context, Life};

impl Forest {
    /// Handoffs have come to their end: if they were the last ones, a node that leaves has nothing more to do.
    pub(super) fn on_transfers_over(&mut self, cx: Context<'_>, over: bool) {
        if over && self.handoffs.is_done() {
            self.finish_leaving(cx);
        }
    }

    /// Says goodbye to parents and children, so that they look for others at once.
    pub(super) fn finish_leaving(&mut self, cx: Context<'_>) {
        if self.life != Life::Leaving {
            return;
        }
        for topic in self.topic_ids() {
            self.remove_tree(cx, topic);
        }
        self.end();
    }

    pub(super) fn end(&mut self) {
        self.life = Life::Left;
        self.deadlines = Deadlines::default();
        self.upkeep.at = None;
    }
}

//! The bytes of all windows of a node. Beyond the limit the window that was idle longest shrinks first.

use std::collections::BTreeSet;

use treecast_overlay::time::Instant;

use super::Forest;
use super::tree::Tree;
use crate::topic::TopicId;

/// How many bytes all windows pin, and which of them grew last.
#[derive(Clone, Debug, Default)]
pub(super) struct Budget {
    bytes: usize,
    by_age: BTreeSet<(Instant, TopicId)>,
}

impl Budget {
    /// All bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A tree is gone.
    pub(super) fn forget(&mut self, topic: TopicId, counted: (usize, Instant)) {
        self.bytes -= counted.0;
        self.by_age.remove(&(counted.1, topic));
    }

    fn count(&mut self, tree: &mut Tree, at: Instant) {
        self.forget(tree.topic, tree.counted);
        let bytes = tree.bytes();
        tree.counted = (bytes, at);
        self.bytes += bytes;
        if bytes > 0 {
            self.by_age.insert((at, tree.topic));
        }
    }
}

impl Forest {
    /// Counts a window that has changed, and shrinks others if that is too much.
    pub(super) fn count_window(&mut self, now: Instant, topic: TopicId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        if let Some(log) = &mut tree.log {
            log.window.trim(self.config.window_messages, self.config.window_bytes);
        }
        self.budget.count(tree, now);
        while self.budget.bytes > self.config.windows_bytes {
            let Some(&(at, oldest)) = self.budget.by_age.first() else { break };
            let Some(tree) = self.trees.get_mut(&oldest) else { break };
            tree.early.clear();
            let Some(log) = &mut tree.log else { break };
            // Half at a time: a topic that was quiet for a while keeps its newest messages.
            let half = log.window.bytes() / 2;
            log.window.trim(usize::MAX, half);
            self.budget.count(tree, at);
        }
    }
}

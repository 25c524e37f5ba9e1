//! Branches of a log. Where nodes around a key cannot reach each other, two roots open terms above the same one, and
//! what each of them gives places lies on a branch of its own; a forced term goes on with one of them.

use std::collections::{BTreeMap, BTreeSet};

use treecast_scribe::{Gap, GapReason, Item, Position, TopicId};

use crate::cluster::history::History;

/// Whether two roots opened terms of the same number, and these positions lie in one each.
pub(super) fn are_beside(a: Position, b: Position) -> bool {
    a.term.number == b.term.number && a.term.root != b.term.root
}

/// The starts of forced terms of which somebody heard.
pub(super) struct Forced(BTreeMap<TopicId, BTreeSet<Position>>);

impl Forced {
    pub(super) fn of(history: &History) -> Forced {
        let mut forced: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for watched in history.subscriptions.values() {
            for (_, item) in &watched.items {
                if let Item::Gap(Gap { until: Some(until), reason: GapReason::RootLost, .. }) = item {
                    forced.entry(watched.topic).or_default().insert(*until);
                }
            }
        }
        Forced(forced)
    }

    /// Whether whoever has followed the log up to `reached` has passed the start of a term that left this position
    /// behind: another root gave it out beyond that start, without having heard of it.
    pub(super) fn overrule(&self, topic: TopicId, at: Position, reached: Position) -> bool {
        let mut starts = self.0.get(&topic).into_iter().flat_map(|starts| starts.range(..=reached));
        starts.any(|start| at.term.number < start.term.number && start.offset <= at.offset)
    }

    /// Whether the root that gave out one of these positions may not have known of the other: then one message may stand
    /// at both.
    pub(super) fn parts(&self, topic: TopicId, a: Position, b: Position) -> bool {
        let starts = self.0.get(&topic);
        let between = starts.is_some_and(|starts| starts.range(a.min(b)..=a.max(b)).next().is_some());
        are_beside(a, b) || (a.term != b.term && between)
    }
}

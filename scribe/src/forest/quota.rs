//! Sums over all trees of a node, beside its limits: children, sessions, topics of its own, and the bytes of the
//! windows.

use std::collections::BTreeSet;

use treecast_overlay::deadlines::Deadlines;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;

use super::context::{Timer, pause};
use super::retries::Retries;
use crate::config::Config;
use crate::permit::Meter;
use crate::topic::TopicId;

/// Counts for all trees. Trees hold permits, so that a tree that is dropped is counted no more.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// Children in all trees.
    pub children: Meter,
    /// Sessions of all topics of which this node is the root.
    pub sessions: Meter,
    /// Topics that this node subscribes to, or is the root of.
    pub own_topics: Meter,
    /// JOINs that are not answered yet.
    pub joins: Retries,
    pub windows: Windows,
    crowd: Crowd,
}

/// Attempts to have fewer children.
#[derive(Debug, Default)]
struct Crowd {
    /// Attempts in vain, in a row.
    tries: u8,
    /// How many children there were at the last one.
    before: usize,
}

/// Children that are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Excess {
    pub children: usize,
    /// Attempts with the best choice came to nothing.
    pub in_vain: bool,
}

impl Quota {
    /// Sessions that this node may add.
    pub(super) fn session_room(&self, config: &Config) -> usize {
        config.sessions.max.saturating_sub(self.sessions.count())
    }

    /// Whether this node may have a child more.
    pub(super) fn has_child_room(&self, config: &Config) -> bool {
        self.children.count() < self.most_children(config)
    }

    /// How many children this node has at most in all trees. A node that takes much gives much: two for each topic of
    /// its own, if that is more than the limit.
    fn most_children(&self, config: &Config) -> usize {
        config.tree.children_per_node.max(2 * self.own_topics.count())
    }

    /// Sees to it that a node with too many children will give some away.
    pub(super) fn review_crowd(
        &mut self,
        now: Instant,
        config: &Config,
        rng: &mut Rng,
        deadlines: &mut Deadlines<Timer>,
    ) {
        let children = self.children.count();
        if children <= self.most_children(config) {
            deadlines.cancel(Timer::Crowd);
        } else if !deadlines.is_set(Timer::Crowd) {
            self.crowd = Crowd { tries: 0, before: children };
            deadlines.set(Timer::Crowd, now + pause(rng, config.tree.hand_over_after, 0));
        }
    }

    /// How many children are to go now, if any.
    pub(super) fn on_crowd_timer(
        &mut self,
        now: Instant,
        config: &Config,
        rng: &mut Rng,
        deadlines: &mut Deadlines<Timer>,
    ) -> Option<Excess> {
        let count = self.children.count();
        let children = count.checked_sub(self.most_children(config)).filter(|&excess| excess > 0)?;
        let progress = count < self.crowd.before;
        let tries = if progress { 0 } else { self.crowd.tries.saturating_add(1) };
        self.crowd = Crowd { tries, before: count };
        deadlines.set(Timer::Crowd, now + pause(rng, config.tree.hand_over_after, tries));
        Some(Excess { children, in_vain: !progress && tries > 1 })
    }
}

/// How many bytes all windows pin, and which of them grew last.
#[derive(Debug, Default)]
pub(super) struct Windows {
    bytes: usize,
    by_age: BTreeSet<(Instant, TopicId)>,
}

/// The count for one tree's window and early entries, and when they last grew.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowShare {
    bytes: usize,
    at: Instant,
}

impl WindowShare {
    pub(super) fn new(now: Instant) -> WindowShare {
        WindowShare { bytes: 0, at: now }
    }
}

impl Windows {
    /// All bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts a tree's window anew.
    pub(super) fn count(&mut self, topic: TopicId, share: &mut WindowShare, bytes: usize, at: Instant) {
        self.forget(topic, *share);
        *share = WindowShare { bytes, at };
        self.bytes += bytes;
        if bytes > 0 {
            self.by_age.insert((at, topic));
        }
    }

    /// Counts the window of a tree that has shrunk: that does not make it younger.
    pub(super) fn count_shrunk(&mut self, topic: TopicId, share: &mut WindowShare, bytes: usize) {
        self.count(topic, share, bytes, share.at);
    }

    /// Counts the window of a tree that is gone no more.
    pub(super) fn forget(&mut self, topic: TopicId, share: WindowShare) {
        self.bytes -= share.bytes;
        self.by_age.remove(&(share.at, topic));
    }

    /// The trees, with that whose window was idle longest first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = TopicId> {
        self.by_age.iter().map(|&(_, topic)| topic)
    }

    /// The tree whose window was idle longest.
    pub(super) fn oldest(&self) -> Option<TopicId> {
        self.by_age.first().map(|&(_, topic)| topic)
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::Key;
    use treecast_overlay::random;

    use super::*;
    use crate::config::TreeConfig;

    #[test]
    fn windows_shrink_in_the_order_of_their_age() {
        let mut windows = Windows::default();
        let topic = |n| TopicId(Key(n));
        let mut shares = [1, 2].map(|_| WindowShare::new(Instant::ZERO));
        windows.count(topic(1), &mut shares[0], 10, Instant::from_nanos(1));
        windows.count(topic(2), &mut shares[1], 20, Instant::from_nanos(2));
        assert_eq!((windows.bytes(), windows.oldest()), (30, Some(topic(1))));
        windows.count_shrunk(topic(1), &mut shares[0], 5);
        assert_eq!((windows.bytes(), windows.oldest()), (25, Some(topic(1))), "it is still the oldest");
        windows.count_shrunk(topic(1), &mut shares[0], 0);
        assert_eq!(windows.oldest(), Some(topic(2)), "there is nothing left to take");
        windows.forget(topic(2), shares[1]);
        assert_eq!((windows.bytes(), windows.oldest()), (0, None));
    }

    #[test]
    fn a_crowd_is_led_on_until_it_fits_and_two_are_allowed_for_each_topic_of_ones_own() {
        let config = Config {
            tree: TreeConfig { children_per_node: 3, ..TreeConfig::default() },
            ..Config::default()
        };
        let mut quota = Quota::default();
        let (mut rng, mut deadlines) = (random::stream(&[1; 32], "quota"), Deadlines::default());
        let mut children: Vec<_> = (0..5).map(|_| quota.children.take()).collect();
        quota.review_crowd(Instant::ZERO, &config, &mut rng, &mut deadlines);
        assert!(deadlines.is_set(Timer::Crowd) && !quota.has_child_room(&config));
        let mut fire = |quota: &mut Quota| {
            quota.on_crowd_timer(Instant::ZERO, &config, &mut rng, &mut Deadlines::default())
        };
        let vain = [fire(&mut quota), fire(&mut quota)].map(|excess| excess.unwrap().in_vain);
        assert_eq!(vain, [false, true]);
        children.pop();
        assert_eq!(fire(&mut quota), Some(Excess { children: 1, in_vain: false }));
        let _own = [quota.own_topics.take(), quota.own_topics.take()];
        assert_eq!(fire(&mut quota), None);
        assert_eq!(quota.session_room(&config), config.sessions.max);
    }
}

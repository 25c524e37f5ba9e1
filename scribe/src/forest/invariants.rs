//! Invariants that hold between two calls. Tests and the simulator check them after every step.

use std::collections::BTreeSet;

use super::Forest;
use super::neighbours::Link;
use super::tree::Tree;
use super::tree::role::Role;
use crate::topic::TopicId;
use crate::wire::Digest;

/// How much there is of something that is bounded (promise O5): its name, how many or how many bytes, its limit.
pub type Size = (&'static str, usize, usize);

impl Forest {
    /// Every table, queue and window of this forest beside its limit. Of what exists for each topic: the largest.
    pub fn sizes(&self) -> Vec<Size> {
        let config = &self.config;
        let mut sizes = vec![
            ("trees", self.trees.len(), config.tree.max_trees),
            ("sessions of all topics", self.quota.sessions.count(), config.sessions.max),
            ("bytes of all windows", self.quota.windows.bytes(), config.window.total_bytes),
        ];
        let largest =
            |of: fn(&Tree) -> usize| self.trees.values().map(|tree| of(tree)).max().unwrap_or_default();
        sizes.extend([
            ("children in one tree", largest(|tree| tree.flow.children.ordinary()), config.tree.max_children),
            ("messages in one window", largest(|tree| window(tree).0), config.window.messages),
            ("bytes in one window", largest(|tree| window(tree).1), config.window.bytes),
            ("messages waiting at one root", largest(|tree| waiting(tree).0), config.admission.messages),
            ("bytes waiting at one root", largest(|tree| waiting(tree).1), config.admission.bytes),
        ]);
        sizes.extend(self.publishing.sizes(config));
        sizes
    }

    /// Panics, naming the topic, if the forest contradicts itself.
    pub fn check_invariants(&self) {
        for (topic, tree) in &self.trees {
            self.check_place(*topic, tree);
            tree.flow.check();
        }
        self.check_neighbours();
        self.check_sums();
    }

    fn check_place(&self, topic: TopicId, tree: &Tree) {
        assert_eq!(topic, tree.topic());
        assert!(!tree.role.path().contains(&self.me), "{topic}: own id in the path to the root");
        assert!(!tree.flow.children.contains(self.me), "{topic}: own child");
        if let Some(parent) = tree.role.parent() {
            assert!(!tree.flow.children.contains(parent), "{topic}: {parent} is parent and child");
            let neighbour = self.neighbours.find(parent);
            assert!(
                neighbour.is_some_and(|n| n.topics(Link::Parent).contains(&topic)),
                "{topic}: unknown parent"
            );
        }
        assert!(tree.flow.children.len() <= self.config.tree.max_children, "{topic}: too many children");
        for child in tree.flow.children.ids() {
            let neighbour = self.neighbours.find(child);
            assert!(
                neighbour.is_some_and(|n| n.topics(Link::Child).contains(&topic)),
                "{topic}: unknown child"
            );
        }
        if tree.relocation.is_some() {
            assert!(matches!(tree.role, Role::Child(_)), "{topic}: moves without a parent");
        }
        let serves = tree.role.root().is_some_and(|root| root.primary.is_serving());
        assert!(!serves || tree.flow.log.part().is_some(), "{topic}: a root that serves without a log");
        if let Some(log) = tree.flow.log.part() {
            log.check();
        }
    }

    fn check_neighbours(&self) {
        for (id, neighbour) in self.neighbours.iter() {
            for link in [Link::Parent, Link::Child] {
                let mut digest = Digest::default();
                for topic in neighbour.topics(link) {
                    digest.toggle(*topic, true);
                    let tree =
                        self.trees.get(topic).unwrap_or_else(|| panic!("{topic}: shared without a tree"));
                    let holds = match link {
                        Link::Parent => tree.role.parent() == Some(id),
                        Link::Child => tree.flow.children.contains(id),
                    };
                    assert!(holds, "{topic}: {id} is no neighbour on side {link:?}");
                }
                assert_eq!(digest, neighbour.digest(link), "digest of {id} on side {link:?}");
            }
        }
    }

    fn check_sums(&self) {
        let bytes: usize = self.trees.values().map(|tree| tree.flow.log.bytes()).sum();
        assert_eq!(bytes, self.quota.windows.bytes(), "bytes of all windows");
        assert!(bytes <= self.config.window.total_bytes, "windows exceed their limit");
        let roots = self.trees.values().filter_map(|tree| tree.role.root());
        let sessions: usize = roots.map(|root| root.sequencer.sessions.len()).sum();
        assert_eq!(sessions, self.quota.sessions.count(), "sessions of all topics");
        let children: usize = self.trees.values().map(|tree| tree.flow.children.ordinary()).sum();
        assert_eq!(children, self.quota.children.count(), "children in all trees");
        let own = self.trees.values().filter(|tree| tree.is_own()).count();
        assert_eq!(own, self.quota.own_topics.count(), "own topics");
        let subscriptions: BTreeSet<_> =
            self.trees.values().flat_map(|tree| tree.flow.readers.ids()).collect();
        assert!(self.topics.keys().copied().eq(subscriptions), "subscriptions of all topics");
    }
}

/// Messages and bytes in a tree's window.
fn window(tree: &Tree) -> (usize, usize) {
    let window = tree.flow.log.part().map(|log| &log.window);
    window.map_or((0, 0), |window| ((window.end() - window.start()) as usize, window.bytes()))
}

/// Messages and bytes that wait for those that read.
fn waiting(tree: &Tree) -> (usize, usize) {
    tree.role.root().map_or((0, 0), |root| root.sequencer.admission.waiting())
}

//! What is always true between two calls. Tests and the simulator ask after every step.

use std::collections::BTreeSet;

use super::Forest;
use super::neighbours::Side;
use super::tree::{Role, Tree};
use crate::topic::TopicId;
use crate::wire::Digest;

/// How much there is of something that is bounded (promise O5): its name, how many or how many bytes, its limit.
pub type Size = (&'static str, usize, usize);

impl Forest {
    /// Every table, queue and window of this forest beside its limit. Of what exists for each topic: the largest.
    pub fn sizes(&self) -> Vec<Size> {
        let config = &self.config;
        let mut sizes = vec![
            ("trees", self.trees.len(), config.max_trees),
            ("sessions of all topics", self.sessions, config.max_sessions),
            ("publishers", self.publishers.len(), config.max_publishers),
            ("bytes of all windows", self.budget.bytes(), config.windows_bytes),
            self.handovers.size(config),
        ];
        let largest =
            |of: fn(&Tree) -> usize| self.trees.values().map(|tree| of(tree)).max().unwrap_or_default();
        sizes.extend([
            ("children in one tree", largest(|tree| tree.children.len()), config.max_children),
            ("messages in one window", largest(|tree| tree.window().0), config.window_messages),
            ("bytes in one window", largest(|tree| tree.window().1), config.window_bytes),
            ("messages parked by one root", largest(|tree| tree.parked().0), config.parked_messages),
            ("bytes parked by one root", largest(|tree| tree.parked().1), config.parked_bytes),
        ]);
        let publishers = self.publishers.values().map(|publisher| publisher.sizes(config));
        sizes.extend(publishers.flatten());
        sizes
    }

    /// Panics, naming the topic, if the forest contradicts itself.
    pub fn check_invariants(&self) {
        for (topic, tree) in &self.trees {
            self.check_place(*topic, tree);
            check_cursors(*topic, tree);
        }
        self.check_neighbours();
        self.check_sums();
    }

    fn check_place(&self, topic: TopicId, tree: &Tree) {
        assert_eq!(topic, tree.topic);
        assert!(!tree.path().contains(&self.me), "{topic}: own id in the path to the root");
        assert!(!tree.children.contains_key(&self.me), "{topic}: own child");
        if let Role::Child(upward) = &tree.role {
            let parent = upward.parent;
            assert!(!tree.children.contains_key(&parent), "{topic}: {parent} is parent and child");
            let neighbour = self.neighbours.find(parent);
            assert!(
                neighbour.is_some_and(|n| n.topics(Side::Up).contains(&topic)),
                "{topic}: unknown parent"
            );
        }
        assert!(tree.children.len() <= self.config.max_children, "{topic}: too many children");
        for child in tree.children.keys() {
            let neighbour = self.neighbours.find(*child);
            assert!(
                neighbour.is_some_and(|n| n.topics(Side::Down).contains(&topic)),
                "{topic}: unknown child"
            );
        }
        if tree.moving.is_some() {
            assert!(matches!(tree.role, Role::Child(_)), "{topic}: moves without a parent");
        }
        if let (Role::Root(_), None) = (&tree.role, &tree.log) {
            panic!("{topic}: a root without a log");
        }
    }

    fn check_neighbours(&self) {
        for (id, neighbour) in self.neighbours.iter() {
            for side in [Side::Up, Side::Down] {
                let mut digest = Digest::default();
                for topic in neighbour.topics(side) {
                    digest.toggle(*topic, true);
                    let tree =
                        self.trees.get(topic).unwrap_or_else(|| panic!("{topic}: shared without a tree"));
                    let holds = match side {
                        Side::Up => tree.parent() == Some(id),
                        Side::Down => tree.children.contains_key(&id),
                    };
                    assert!(holds, "{topic}: {id} is no neighbour on side {side:?}");
                }
                assert_eq!(digest, neighbour.digest(side), "digest of {id} on side {side:?}");
            }
        }
    }

    fn check_sums(&self) {
        let bytes: usize = self.trees.values().map(|tree| tree.bytes()).sum();
        assert_eq!(bytes, self.budget.bytes(), "bytes of all windows");
        assert!(bytes <= self.config.windows_bytes, "windows exceed their limit");
        let sessions: usize = self.trees.values().map(|tree| sessions(tree)).sum();
        assert_eq!(sessions, self.sessions, "sessions of all topics");
        let entries: usize = self.trees.values().map(|tree| tree.children.len()).sum();
        assert_eq!(entries, self.entries, "children in all trees");
        let own = self.trees.values().filter(|tree| tree.is_own()).count();
        assert_eq!(own, self.own, "own topics");
        let subscriptions: BTreeSet<_> =
            self.trees.values().flat_map(|tree| tree.subscriptions.keys().copied()).collect();
        assert!(self.topics.keys().copied().eq(subscriptions), "subscriptions of all topics");
    }
}

impl Tree {
    /// Messages and bytes in the window.
    fn window(&self) -> (usize, usize) {
        let window = self.log.as_ref().map(|log| &log.window);
        window.map_or((0, 0), |window| ((window.end() - window.start()) as usize, window.bytes()))
    }

    /// Messages and bytes that wait for the term.
    fn parked(&self) -> (usize, usize) {
        match &self.role {
            Role::Opening(opening) => (opening.parked.len(), opening.parked_bytes),
            Role::Joining { .. } | Role::Child(_) | Role::Root(_) => (0, 0),
        }
    }
}

fn sessions(tree: &Tree) -> usize {
    match &tree.role {
        Role::Root(root) => root.sessions.len(),
        Role::Opening(opening) => opening.resumes.as_ref().map_or(0, |root| root.sessions.len()),
        Role::Joining { .. } | Role::Child(_) => 0,
    }
}

fn check_cursors(topic: TopicId, tree: &Tree) {
    for (id, child) in tree.children.iter() {
        let Some(cursor) = &child.cursor else { continue };
        assert!(tree.log.is_some(), "{topic}: {id} is started by a node that is not");
        assert!(cursor.acknowledged <= cursor.next, "{topic}: {id} has acknowledged what was not pushed");
        assert!(child.version_seen <= child.version, "{topic}: {id} has seen what was not said");
    }
    let reader = |s: &super::tree::Subscription| s.reader.is_some();
    assert!(
        tree.log.is_some() || !tree.subscriptions.values().any(reader),
        "{topic}: a reader without a log"
    );
}

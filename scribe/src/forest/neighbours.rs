//! The nodes next to this one in any tree, and the topics shared with each. What they tell each other once a second
//! has the same size for one topic as for ten thousand (promise S7).

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use crate::topic::TopicId;
use crate::wire::Digest;

/// All tree neighbours. Bounded by the trees, their children and their one parent each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Neighbours {
    by_id: BTreeMap<NodeId, Neighbour>,
}

/// A node that is parent or child of this one in some tree.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    /// How to reach it.
    pub contact: Contact,
    /// When it was last heard.
    pub heard: Instant,
    /// Beats in a row whose digest did not fit.
    pub mismatches: u32,
    /// Topics about whose progress it is to hear with the next beat.
    pub moved: BTreeSet<TopicId>,
    /// Topics in which it is the parent.
    up: BTreeSet<TopicId>,
    up_digest: Digest,
    /// Topics in which it is a child.
    down: BTreeSet<TopicId>,
    down_digest: Digest,
}

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The neighbour is the parent.
    Up,
    /// The neighbour is a child.
    Down,
}

impl Neighbour {
    /// The shared topics on one side.
    pub(crate) fn topics(&self, side: Side) -> &BTreeSet<TopicId> {
        match side {
            Side::Up => &self.up,
            Side::Down => &self.down,
        }
    }

    /// The same in brief.
    pub(crate) fn digest(&self, side: Side) -> Digest {
        match side {
            Side::Up => self.up_digest,
            Side::Down => self.down_digest,
        }
    }

    fn change(&mut self, side: Side, topic: TopicId, add: bool) {
        let (topics, digest) = match side {
            Side::Up => (&mut self.up, &mut self.up_digest),
            Side::Down => (&mut self.down, &mut self.down_digest),
        };
        let changed = if add { topics.insert(topic) } else { topics.remove(&topic) };
        if changed {
            digest.toggle(topic, add);
        }
    }
}

impl Neighbours {
    /// Notes that a topic is shared.
    pub(crate) fn add(&mut self, now: Instant, side: Side, contact: Contact, topic: TopicId) {
        let neighbour = self.by_id.entry(contact.id()).or_insert_with(|| Neighbour {
            contact,
            heard: now,
            mismatches: 0,
            moved: BTreeSet::new(),
            up: BTreeSet::new(),
            up_digest: Digest::default(),
            down: BTreeSet::new(),
            down_digest: Digest::default(),
        });
        neighbour.contact = contact;
        neighbour.heard = now;
        neighbour.change(side, topic, true);
    }

    /// Notes that a topic is shared no more. Who shares none is forgotten.
    pub(crate) fn remove(&mut self, side: Side, id: NodeId, topic: TopicId) {
        let Some(neighbour) = self.by_id.get_mut(&id) else { return };
        neighbour.change(side, topic, false);
        if !neighbour.up.contains(&topic) && !neighbour.down.contains(&topic) {
            neighbour.moved.remove(&topic);
        }
        if neighbour.up.is_empty() && neighbour.down.is_empty() {
            self.by_id.remove(&id);
        }
    }

    /// A neighbour, if it is one.
    pub(crate) fn find(&self, id: NodeId) -> Option<&Neighbour> {
        self.by_id.get(&id)
    }

    /// The same, to be changed.
    pub(crate) fn find_mut(&mut self, id: NodeId) -> Option<&mut Neighbour> {
        self.by_id.get_mut(&id)
    }

    /// All of them, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Neighbour)> {
        self.by_id.iter().map(|(&id, neighbour)| (id, neighbour))
    }

    /// Their ids.
    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.by_id.keys().copied().collect()
    }

    /// Notes a sign of life.
    pub(crate) fn hear(&mut self, now: Instant, id: NodeId) {
        if let Some(neighbour) = self.by_id.get_mut(&id) {
            neighbour.heard = now;
        }
    }

    /// Notes that a neighbour is to hear of a topic's progress.
    pub(crate) fn mark_moved(&mut self, id: NodeId, topic: TopicId) {
        if let Some(neighbour) = self.by_id.get_mut(&id) {
            neighbour.moved.insert(topic);
        }
    }
}

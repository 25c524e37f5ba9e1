//! The nodes next to this one in any tree, and the topics shared with each. What they tell each other once a second
//! has the same size for one topic as for ten thousand (promise S7).

use std::collections::{BTreeMap, BTreeSet};

use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::memory;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;

use crate::sorted::SortedSet;
use crate::topic::TopicId;
use crate::wire::Digest;

/// All tree neighbours. Bounded by the trees, their children and their one parent each.
#[derive(Debug)]
pub(crate) struct Neighbours {
    // Boxed: a B-tree's leaf has room for eleven, and most nodes have few.
    by_id: BTreeMap<NodeId, Box<Neighbour>>,
    /// Topics whose log or count moved since the last beat.
    pub moved: BTreeSet<TopicId>,
    /// When a stranger was last told that it is none of ours.
    refused: Instant,
}

/// A node that is parent or child of this one in some tree.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    peer: Peer,
    via: Option<Box<Peer>>,
    /// When it was last heard.
    pub heard: Instant,
    /// Beats in a row whose digest did not fit.
    pub mismatches: u32,
    /// Topics about whose progress it is to hear with the next beat.
    pub moved: SortedSet<TopicId>,
    /// Topics in which it is the parent.
    up: SortedSet<TopicId>,
    up_digest: Digest,
    /// Topics in which it is a child.
    down: SortedSet<TopicId>,
    down_digest: Digest,
}

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The neighbour is the parent.
    Parent,
    /// The neighbour is a child.
    Child,
}

impl Neighbour {
    /// How to reach it.
    pub(crate) fn contact(&self) -> Contact {
        Contact { peer: self.peer, via: self.via.as_deref().copied() }
    }

    fn set_contact(&mut self, contact: Contact) {
        self.peer = contact.peer;
        self.via = contact.via.map(Box::new);
    }

    /// The shared topics on one side, in order.
    pub(crate) fn topics(&self, link: Link) -> &[TopicId] {
        match link {
            Link::Parent => self.up.as_slice(),
            Link::Child => self.down.as_slice(),
        }
    }

    /// The same in brief.
    pub(crate) fn digest(&self, link: Link) -> Digest {
        match link {
            Link::Parent => self.up_digest,
            Link::Child => self.down_digest,
        }
    }

    fn change(&mut self, link: Link, topic: TopicId, add: bool) {
        let (topics, digest) = match link {
            Link::Parent => (&mut self.up, &mut self.up_digest),
            Link::Child => (&mut self.down, &mut self.down_digest),
        };
        let changed = if add { topics.insert(topic) } else { topics.remove(&topic) };
        if changed {
            digest.toggle(topic, add);
        }
    }
}

impl Default for Neighbours {
    fn default() -> Neighbours {
        Neighbours { by_id: BTreeMap::new(), moved: BTreeSet::new(), refused: Instant::ZERO }
    }
}

impl Neighbours {
    /// Notes that a topic is shared.
    pub(crate) fn add(&mut self, now: Instant, link: Link, contact: Contact, topic: TopicId) {
        let neighbour = self.by_id.entry(contact.id()).or_insert_with(|| {
            Box::new(Neighbour {
                peer: contact.peer,
                via: None,
                heard: now,
                mismatches: 0,
                moved: SortedSet::default(),
                up: SortedSet::default(),
                up_digest: Digest::default(),
                down: SortedSet::default(),
                down_digest: Digest::default(),
            })
        });
        neighbour.set_contact(contact);
        neighbour.heard = now;
        neighbour.change(link, topic, true);
    }

    /// Notes that a topic is shared no more. Who shares none is forgotten.
    pub(crate) fn remove(&mut self, link: Link, id: NodeId, topic: TopicId) {
        let Some(neighbour) = self.by_id.get_mut(&id) else { return };
        neighbour.change(link, topic, false);
        if !neighbour.up.contains(&topic) && !neighbour.down.contains(&topic) {
            neighbour.moved.remove(&topic);
        }
        if neighbour.up.is_empty() && neighbour.down.is_empty() {
            self.by_id.remove(&id);
        }
    }

    /// A neighbour, if it is one.
    pub(crate) fn find(&self, id: NodeId) -> Option<&Neighbour> {
        self.by_id.get(&id).map(|neighbour| &**neighbour)
    }

    /// How to reach a neighbour.
    pub(crate) fn contact(&self, id: NodeId) -> Option<Contact> {
        self.find(id).map(Neighbour::contact)
    }

    /// The topics that are shared with a node on one side, in order.
    pub(crate) fn topics(&self, id: NodeId, link: Link) -> Vec<TopicId> {
        self.find(id).map_or_else(Vec::new, |neighbour| neighbour.topics(link).to_vec())
    }

    /// Whether a node that is none may be told so now: not for each of its messages.
    pub(crate) fn may_refuse(&mut self, now: Instant, pause: Duration) -> bool {
        let may = now.since(self.refused) >= pause;
        if may {
            self.refused = now;
        }
        may
    }

    /// The same, to be changed.
    pub(crate) fn find_mut(&mut self, id: NodeId) -> Option<&mut Neighbour> {
        self.by_id.get_mut(&id).map(|neighbour| &mut **neighbour)
    }

    /// All of them, in order of their ids.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeId, &Neighbour)> {
        self.by_id.iter().map(|(&id, neighbour)| (id, &**neighbour))
    }

    /// Heap bytes of all of them.
    pub(crate) fn weight(&self) -> usize {
        let own = |neighbour: &Neighbour| {
            let via = neighbour.via.as_ref().map_or(0, |via| size_of_val(&**via));
            let sets = neighbour.moved.bytes() + neighbour.up.bytes() + neighbour.down.bytes();
            size_of::<Neighbour>() + via + sets
        };
        let all: usize = self.by_id.values().map(|neighbour| own(neighbour)).sum();
        all + memory::tree(self.by_id.len(), size_of::<(NodeId, usize)>())
            + memory::tree(self.moved.len(), size_of::<TopicId>())
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

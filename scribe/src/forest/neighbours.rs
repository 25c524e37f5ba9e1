//! The nodes next to this one in any tree, and the topics shared with each. Their beat, once a
//! second, has the same size for one topic as for ten thousand (promise S7).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::memory;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;

use super::context::Outbox;
use super::silence::{APART, Looked, SLEPT, Silence};
use crate::sorted::SortedSet;
use crate::topic::TopicId;
use crate::wire::{Ack, Beat, Digest, Header, MAX_SHARED, Moved, Shared};

/// Beats in a row with a wrong digest before the lists are compared: one may cross a JOIN on its way.
const MISMATCHES: u32 = 2;

/// How often a new neighbour is expected to say something.
const BEATS: Duration = Duration::from_secs(1);

/// All tree neighbours. Bounded by the trees, their children and their one parent each.
#[derive(Debug)]
pub(crate) struct Neighbours {
    // Boxed: a B-tree's leaf has room for eleven, and most nodes have few.
    by_id: BTreeMap<NodeId, Box<Neighbour>>,
    /// Topics whose log or count moved since the last beat.
    pub moved: BTreeSet<TopicId>,
    /// When those that are heard often, or were asked, are looked at next.
    watched_at: Option<Instant>,
    /// When a stranger was last told that it is none of ours.
    refused: Instant,
}

/// A node that is parent or child of this one in some tree.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    peer: Peer,
    via: Option<Box<Peer>>,
    /// Whether it has fallen silent.
    pub silence: Silence,
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
        let (by_id, moved) = (BTreeMap::new(), BTreeSet::new());
        Neighbours { by_id, moved, watched_at: None, refused: Instant::ZERO }
    }
}

impl Neighbours {
    /// Notes that a topic is shared.
    pub(crate) fn add(&mut self, now: Instant, link: Link, contact: Contact, topic: TopicId) {
        let neighbour = self.by_id.entry(contact.id()).or_insert_with(|| {
            Box::new(Neighbour {
                peer: contact.peer,
                via: None,
                silence: Silence::new(now, BEATS),
                mismatches: 0,
                moved: SortedSet::default(),
                up: SortedSet::default(),
                up_digest: Digest::default(),
                down: SortedSet::default(),
                down_digest: Digest::default(),
            })
        });
        neighbour.set_contact(contact);
        neighbour.silence.hear(now);
        neighbour.change(link, topic, true);
    }

    /// Notes that a topic is shared no more. A node that shares none is forgotten.
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

    /// Notes a sign of life. A neighbour that gives many is watched.
    pub(crate) fn hear(&mut self, now: Instant, id: NodeId) {
        let Some(neighbour) = self.by_id.get_mut(&id) else { return };
        neighbour.silence.hear(now);
        if neighbour.silence.is_watched() {
            self.watched_at.get_or_insert(now + BEATS);
        }
    }

    /// When neighbours are to be looked at, if any are watched.
    pub(super) fn watched_at(&self) -> Option<Instant> {
        self.watched_at
    }

    /// The neighbours that are to be looked at now. `behind`: what they said may not be handled yet.
    pub(super) fn due(&mut self, now: Instant, behind: bool) -> Vec<NodeId> {
        let Some(at) = self.watched_at.take_if(|at| *at <= now) else { return Vec::new() };
        if now.since(at) >= SLEPT || behind {
            self.hear_all(now);
        }
        self.iter().filter(|(_, neighbour)| neighbour.silence.is_watched()).map(|(id, _)| id).collect()
    }

    /// Looks whether a neighbour has fallen silent.
    pub(super) fn look(&mut self, now: Instant, id: NodeId, every: Duration) -> Option<Looked> {
        let silence = &mut self.by_id.get_mut(&id)?.silence;
        let looked = silence.look(now, every);
        // One that says little is looked at with the next beat: a node at rest is not woken for it.
        if let Some(again_at) = looked.again_at.filter(|_| silence.is_watched()) {
            let at = again_at.max(now + APART);
            self.watched_at = Some(self.watched_at.map_or(at, |watched| watched.min(at)));
        }
        Some(looked)
    }

    /// Counts no silence until now: this node could not hear.
    pub(crate) fn hear_all(&mut self, now: Instant) {
        self.by_id.values_mut().for_each(|neighbour| neighbour.silence.break_off(now));
    }

    /// Sees to it that those that share a topic hear with the next beat how far it is, if it moved.
    pub(super) fn spread_moved(&mut self, sharers: impl Fn(TopicId) -> Option<Vec<NodeId>>) {
        for topic in std::mem::take(&mut self.moved) {
            for id in sharers(topic).unwrap_or_default() {
                if let Some(neighbour) = self.by_id.get_mut(&id) {
                    neighbour.moved.insert(topic);
                }
            }
        }
    }

    /// Takes out topics about whose progress a neighbour is to hear, so many at most.
    pub(super) fn take_moved(&mut self, id: NodeId, count: usize) -> Vec<TopicId> {
        self.by_id.get_mut(&id).map_or_else(Vec::new, |neighbour| neighbour.moved.pop_first(count))
    }

    /// Tells a neighbour, if it is one still, that this node lives, and how far it is. `asks`: it is to answer at once.
    pub(super) fn send_beat(
        &self,
        out: &mut Outbox,
        id: NodeId,
        moved: Vec<Moved>,
        acks: Vec<Ack>,
        asks: bool,
    ) {
        if let Some(neighbour) = self.find(id) {
            let beat = Beat { up: neighbour.up_digest, moved, acks, reply: false, asks };
            out.tell(neighbour.contact(), &Header::Beat(beat));
        }
    }

    /// Compares the topics that a node says it shares with those that this one knows of. `false`: it is no neighbour.
    pub(super) fn on_beat(&mut self, out: &mut Outbox, from: Contact, up: Digest, reply: bool) -> bool {
        let Some(neighbour) = self.by_id.get_mut(&from.id()) else {
            on_strange_beat(out, from, up, reply);
            return false;
        };
        if neighbour.down_digest == up {
            neighbour.mismatches = 0;
        } else {
            neighbour.mismatches += 1;
            if neighbour.mismatches >= MISMATCHES {
                neighbour.mismatches = 0;
                send_shared(out, from, neighbour.down.as_slice());
            }
        }
        true
    }
}

/// A node that beats here without sharing a topic has lost something, or this node has.
fn on_strange_beat(out: &mut Outbox, from: Contact, up: Digest, reply: bool) {
    if up != Digest::default() {
        send_shared(out, from, &[]);
    } else if !reply {
        let (up, moved, acks) = (Digest::default(), Vec::new(), Vec::new());
        let beat = Beat { up, moved, acks, reply: true, asks: false };
        out.tell(from, &Header::Beat(beat));
    }
}

/// Lists the topics in which the receiver is this node's child.
fn send_shared(out: &mut Outbox, to: Contact, topics: &[TopicId]) {
    let mut from = TopicId(Key(0));
    let mut rest = topics;
    loop {
        let (chunk, after) = rest.split_at(rest.len().min(MAX_SHARED));
        let last = after.first().map_or(u128::MAX, |next| next.key().0 - 1);
        let shared = Shared { from, to: TopicId(Key(last)), topics: chunk.to_vec() };
        out.tell(to, &Header::Shared(shared));
        let Some(&next) = after.first() else { break };
        (from, rest) = (next, after);
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::peer::Addr;

    use super::*;
    use crate::forest::context::Request;
    use crate::wire;

    fn contact(id: u128) -> Contact {
        Peer { id: NodeId(id), incarnation: 1, addr: Addr::Unreachable }.into()
    }

    fn sent(out: &mut Outbox) -> Vec<Header> {
        let decode = |request| match request {
            Request::Send { payload, .. } => wire::decode(&payload).unwrap().0,
            Request::Route { .. } => panic!("beats are sent"),
        };
        out.requests.drain(..).map(decode).collect()
    }

    #[test]
    fn a_digest_that_does_not_fit_twice_is_answered_with_the_list() {
        let (mut neighbours, mut out) = (Neighbours::default(), Outbox::new(NodeId(1)));
        let topic = TopicId(Key(7));
        neighbours.add(Instant::ZERO, Link::Child, contact(2), topic);
        let none = Digest::default();
        assert!(neighbours.on_beat(&mut out, contact(2), none, false) && sent(&mut out).is_empty());
        assert!(neighbours.on_beat(&mut out, contact(2), none, false));
        assert!(matches!(&sent(&mut out)[..], [Header::Shared(shared)] if shared.topics == [topic]));
        assert!(!neighbours.on_beat(&mut out, contact(3), none, false), "no neighbour");
        assert!(matches!(&sent(&mut out)[..], [Header::Beat(Beat { reply: true, .. })]));
    }

    #[test]
    fn a_beat_costs_the_same_for_many_topics_and_names_those_that_moved() {
        let (mut neighbours, mut out) = (Neighbours::default(), Outbox::new(NodeId(1)));
        for topic in 0..9 {
            neighbours.add(Instant::ZERO, Link::Parent, contact(2), TopicId(Key(topic)));
        }
        neighbours.moved.insert(TopicId(Key(3)));
        neighbours.spread_moved(|_| Some(vec![NodeId(2)]));
        assert_eq!(neighbours.take_moved(NodeId(2), 64), [TopicId(Key(3))]);
        neighbours.send_beat(&mut out, NodeId(2), Vec::new(), Vec::new(), false);
        let [Header::Beat(beat)] = &sent(&mut out)[..] else { panic!("one beat") };
        assert_eq!(beat.up.count, 9);
    }
}

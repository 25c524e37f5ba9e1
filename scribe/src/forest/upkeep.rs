//! Keep-alives between tree neighbours (promise S7), and what has to be looked after once in a while.

use std::cmp::Reverse;

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use super::Forest;
use super::context::Context;
use super::neighbours::Link;
use super::tree::ParentLost;
use super::tree::shape::MOVERS;
use crate::topic::TopicId;
use crate::wire::{Beat, Digest, Header, MAX_SHARED, Moved, Shared};

/// Beats in a row with a wrong digest before the lists are compared: one may cross a JOIN on its way.
const MISMATCHES: u32 = 2;

impl Forest {
    pub(super) fn on_beat_timer(&mut self, cx: Context<'_>) {
        self.beat_at = None;
        self.trim();
        self.drop_silent(cx);
        self.send_beats();
        self.look_after_roots(cx);
        self.handoffs.expire(cx.earlier(self.config.handover_keep));
        self.publishers.expire(cx.earlier(self.config.publisher_idle));
        // Nothing is left to be looked after: the node is not woken again.
        if !(self.trees.is_empty() && self.publishers.is_empty() && self.handoffs.is_empty()) {
            self.keep_beating(cx.now);
        }
    }

    /// There is something to look after once in a while.
    pub(super) fn keep_beating(&mut self, now: Instant) {
        self.beat_at.get_or_insert(now + self.config.beat);
    }

    /// Gives back the room that a burst took.
    fn trim(&mut self) {
        self.out.requests.shrink_to(0);
        self.out.events.shrink_to(0);
        self.out.loopback.shrink_to(0);
        self.deadlines.trim();
    }

    /// A parent silent for three beats is given up; a child gets longer.
    fn drop_silent(&mut self, cx: Context<'_>) {
        for id in self.neighbours.ids() {
            let Some(neighbour) = self.neighbours.find(id) else { continue };
            let silent = cx.now.since(neighbour.heard);
            if silent >= self.config.parent_silent {
                self.lose_parents(cx, id, ParentLost::Silent);
            }
            if silent >= self.config.child_silent {
                self.drop_children(cx, id);
            }
        }
    }

    fn send_beats(&mut self) {
        for topic in std::mem::take(&mut self.neighbours.moved) {
            let Some(tree) = self.trees.get(&topic) else { continue };
            for id in tree.children.ids().chain(tree.role.parent()) {
                self.neighbours.mark_moved(id, topic);
            }
        }
        for id in self.neighbours.ids() {
            self.send_beat(id);
        }
    }

    fn send_beat(&mut self, id: NodeId) {
        let Some(neighbour) = self.neighbours.find_mut(id) else { return };
        let first = neighbour.moved.pop_first(self.config.beat_marks);
        let (to, up) = (neighbour.contact(), neighbour.digest(Link::Parent));
        let moved = first.into_iter().filter_map(|topic| {
            let tree = self.trees.get(&topic)?;
            Some(Moved { topic, tail: tree.log.tail(), subscribers: tree.subscribers() })
        });
        let beat = Beat { up, moved: moved.collect(), reply: false };
        self.out.tell(to, &Header::Beat(beat));
    }

    pub(super) fn on_beat(&mut self, cx: Context<'_>, from: Contact, beat: Beat) {
        let id = from.id();
        let Some(neighbour) = self.neighbours.find_mut(id) else {
            return self.on_strange_beat(from, &beat);
        };
        if neighbour.digest(Link::Child) == beat.up {
            neighbour.mismatches = 0;
        } else {
            neighbour.mismatches += 1;
            if neighbour.mismatches >= MISMATCHES {
                neighbour.mismatches = 0;
                let children = neighbour.topics(Link::Child).to_vec();
                self.send_shared(from, &children);
            }
        }
        for moved in beat.moved {
            self.with_tree(cx, moved.topic, |tree, cx| tree.on_moved(cx, id, &moved));
        }
    }

    /// A node that beats here without sharing a topic has lost something, or this node has.
    fn on_strange_beat(&mut self, from: Contact, beat: &Beat) {
        if beat.up != Digest::default() {
            self.send_shared(from, &[]);
        } else if !beat.reply {
            let beat = Beat { up: Digest::default(), moved: Vec::new(), reply: true };
            self.out.tell(from, &Header::Beat(beat));
        }
    }

    /// Lists the topics in which the receiver is this node's child.
    fn send_shared(&mut self, to: Contact, topics: &[TopicId]) {
        let mut from = TopicId(Key(0));
        let mut rest = topics;
        loop {
            let (chunk, after) = rest.split_at(rest.len().min(MAX_SHARED));
            let last = after.first().map_or(u128::MAX, |next| next.key().0 - 1);
            let shared = Shared { from, to: TopicId(Key(last)), topics: chunk.to_vec() };
            self.out.tell(to, &Header::Shared(shared));
            let Some(&next) = after.first() else { break };
            (from, rest) = (next, after);
        }
    }

    /// The sender's view of this node as its child, for a range of topics: both sides are made to agree.
    pub(super) fn on_shared(&mut self, cx: Context<'_>, from: Contact, shared: &Shared) {
        let id = from.id();
        let join = self.numbers.last_join();
        for &topic in &shared.topics {
            let tree = self.trees.get(&topic);
            if !tree.is_some_and(|tree| tree.may_be_child_of(id)) {
                self.out.tell(from, &Header::Leave { topic, join });
            }
        }
        let range = shared.from..=shared.to;
        let mut lost = self.neighbours.topics(id, Link::Parent);
        lost.retain(|topic| range.contains(topic) && shared.topics.binary_search(topic).is_err());
        for topic in lost {
            self.with_tree(cx, topic, |tree, cx| tree.on_lost_entry(cx));
        }
    }

    /// Roots that no node uses are dropped, sessions that no publisher uses are forgotten, and a change in the ring of
    /// which no event told is noticed.
    fn look_after_roots(&mut self, cx: Context<'_>) {
        for topic in self.topic_ids() {
            let outcome = self.with_tree(cx, topic, |tree, cx| {
                tree.review_place(cx);
                tree.look_after_root(cx)
            });
            outcome.into_iter().for_each(|outcome| self.on_outcome(cx, topic, outcome));
        }
    }

    /// There are too many children: the trees in which most of them could go give some away, half of them at most, since
    /// the others take them.
    pub(super) fn on_crowd_timer(&mut self, cx: Context<'_>) {
        let Forest { quota, config, rng, deadlines, .. } = self;
        let Some(excess) = quota.on_crowd_timer(cx.now, config, rng, deadlines) else { return };
        let mut trees = Vec::new();
        for topic in self.topic_ids() {
            let movable = self.with_tree(cx, topic, |tree, cx| tree.movable_children(cx));
            trees.extend(movable.map(|movable| (Reverse(movable), topic)));
        }
        trees.sort_unstable();
        let mut left = excess.children.min(MOVERS);
        for (Reverse(count), topic) in trees {
            let going = left.min(count / 2);
            if going == 0 {
                break;
            }
            self.with_tree(cx, topic, |tree, cx| tree.hand_children_over(cx, going, excess.in_vain));
            left -= going;
        }
    }
}

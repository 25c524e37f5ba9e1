//! Keep-alives between tree neighbours (promise S7), and all that has to be looked after once in a while.

use std::cmp::Reverse;
use std::time::Duration;

use treecast_overlay::peer::Contact;

use super::Forest;
use super::context::Context;
use super::neighbours::Link;
use super::tree::ParentLost;
use super::tree::shape::MOVERS;
use crate::wire::{Beat, Header, Shared};

impl Forest {
    pub(super) fn on_beat_timer(&mut self, cx: Context<'_>) {
        let late = self.beat_at.take().map_or(Duration::ZERO, |at| cx.now.since(at));
        self.trim();
        if late >= self.config.beat.every || self.links.is_behind() {
            // This node slept, or is late: what its neighbours said meanwhile is not handled yet. (One that is dead the ring
            // finds out, whose own frames go first.)
            self.neighbours.hear_all(cx.now);
        }
        self.drop_silent(cx);
        self.send_beats();
        self.look_after_roots(cx);
        self.handoffs.expire(cx.earlier(self.config.handoff.keep));
        self.publishing.expire(cx.earlier(self.config.publish.idle));
        // Nothing is left to be looked after: the node is not woken again.
        if !(self.trees.is_empty() && self.publishing.is_empty() && self.handoffs.is_empty()) {
            self.keep_beating(cx.now);
        }
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
            if silent >= self.config.beat.parent_silent {
                self.lose_parents(cx, id, ParentLost::Silent);
            }
            if silent >= self.config.beat.child_silent {
                self.drop_children(cx, id);
            }
        }
    }

    fn send_beats(&mut self) {
        let Forest { neighbours, trees, out, config, .. } = self;
        neighbours.spread_moved(|topic| trees.get(&topic).map(|tree| tree.neighbours()));
        neighbours.send_beats(out, config.beat.marks, |topic| trees.get(&topic).map(|tree| tree.progress()));
    }

    pub(super) fn on_beat(&mut self, cx: Context<'_>, from: Contact, beat: &Beat) {
        if self.neighbours.on_beat(&mut self.out, from, beat) {
            for moved in &beat.moved {
                self.with_tree(cx, moved.topic, |tree, cx| tree.on_moved(cx, from.id(), moved));
            }
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

    /// There are too many children: the trees in which most of them could go give some away, half of them at most,
    /// since the others take them.
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

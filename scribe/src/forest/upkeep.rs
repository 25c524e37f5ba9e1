//! Keep-alives between tree neighbours (promise S7), and all that has to be looked after once in a while.

use std::cmp::Reverse;
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use super::Forest;
use super::context::Context;
use super::neighbours::Link;
use super::tree::ParentLost;
use super::tree::progress::Report;
use super::tree::shape::MOVERS;
use crate::wire::{Header, Shared};

/// Trees up to which a node does all of its upkeep at once: few wakes cost less than short ones.
const AT_ONCE: usize = 64;
/// Parts in which a node on more trees does it, spread over the time between two beats.
const PARTS: u32 = 8;

/// When this node looks after its neighbours and trees, and after which of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Upkeep {
    /// `None`: there is nothing to look after. Not among the deadlines: a node at rest has no others, and pays for no
    /// B-tree.
    pub at: Option<Instant>,
    /// The part that is next.
    part: u32,
    parts: u32,
}

impl Upkeep {
    pub(super) const NONE: Upkeep = Upkeep { at: None, part: 0, parts: 1 };

    /// Begins, if it has not begun.
    pub(super) fn begin(&mut self, now: Instant, every: Duration) {
        self.at.get_or_insert(now + every);
    }

    fn schedule(&mut self, now: Instant, every: Duration, trees: usize) {
        self.parts = if trees > AT_ONCE { PARTS } else { 1 };
        self.part = (self.part + 1) % self.parts;
        self.at = Some(now + every / self.parts);
    }

    /// Whether it is a number's turn. Ids and keys are hashes.
    fn is_due(self, number: u128) -> bool {
        number % u128::from(self.parts) == u128::from(self.part)
    }
}

impl Forest {
    /// A part of what is done between two beats.
    pub(super) fn on_beat_timer(&mut self, cx: Context<'_>) {
        let late = self.upkeep.at.take().map_or(Duration::ZERO, |at| cx.now.since(at));
        if late >= self.config.beat.every || self.links.is_behind() {
            // This node slept, or is late: what its neighbours said meanwhile is not handled yet. (One that is dead the ring
            // finds out, whose own frames go first.)
            self.neighbours.hear_all(cx.now);
        }
        let (upkeep, me) = (self.upkeep, self.me);
        let neighbours = self.neighbours.ids();
        for id in neighbours.into_iter().filter(|id| upkeep.is_due(id.0 ^ me.0)) {
            let asks = self.look_at(cx, id);
            self.send_beat(cx, id, asks);
        }
        let topics = self.topic_ids();
        for topic in topics.into_iter().filter(|topic| upkeep.is_due(topic.key().0)) {
            self.look_after_root(cx, topic);
        }
        if upkeep.part == 0 {
            self.out.trim();
            self.deadlines.trim();
            self.publishing.expire(cx.earlier(self.config.publish.idle));
        }
        // Nothing is left to be looked after: the node is not woken again.
        if !(self.trees.is_empty() && self.publishing.is_empty()) {
            self.upkeep.schedule(cx.now, self.config.beat.every, self.trees.len());
        }
    }

    /// Looks whether a neighbour has fallen silent. One that gives no sign of life is no parent any more, and another node is a
    /// member in its place; a child stays for longer. Returns whether it is to be asked.
    pub(super) fn look_at(&mut self, cx: Context<'_>, id: NodeId) -> bool {
        let beat = &self.config.beat;
        let Some(looked) = self.neighbours.look(cx.now, id, beat.every) else { return false };
        let silent = looked.silent_for;
        if looked.is_given_up || silent >= beat.parent_silent {
            self.lose_parents(cx, id, ParentLost::Silent);
            for topic in self.neighbours.topics(id, Link::Child) {
                self.with_tree(cx, topic, |tree, cx| tree.review_members(cx));
            }
        }
        if silent >= self.config.beat.child_silent {
            self.drop_children(cx, id);
        }
        looked.asks
    }

    /// Tells a neighbour that this node lives, and of so many of the topics in which it does not know how far this node
    /// is.
    fn send_beat(&mut self, cx: Context<'_>, id: NodeId, asks: bool) {
        let Forest { neighbours, trees, config, .. } = self;
        neighbours.spread_moved(|topic| trees.get(&topic).map(|tree| tree.neighbours()));
        let (mut moved, mut acks, marks) = (Vec::new(), Vec::new(), config.beat.marks);
        while moved.len() + acks.len() < marks {
            let topics = self.neighbours.take_moved(id, marks - moved.len() - acks.len());
            if topics.is_empty() {
                break;
            }
            for topic in topics {
                match self.with_tree(cx, topic, |tree, cx| tree.report(cx, id)).flatten() {
                    Some(Report::Moved(told)) => moved.push(told),
                    Some(Report::Ack(ack)) => acks.push(ack),
                    None => {}
                }
            }
        }
        self.neighbours.send_beat(&mut self.out, id, moved, acks, asks);
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

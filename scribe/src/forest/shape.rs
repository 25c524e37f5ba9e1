//! Parents keep their trees in shape (design §6, "Trees' shape"): a full one hands children over to others of its
//! children, and a forwarder with one child and no subscriber splices itself out.
//!
//! Castro et al. 2002 ("Scribe") have both: the "bottleneck remover", by which an overloaded node makes its farthest
//! child join that one of its other children by which the way from the parent is shortest; and, for many small groups,
//! the collapsing of paths through nodes that are no members and have one child. Here the child moves with its place in
//! the log (`moving.rs`), so that subscribers notice neither.
//!
//! Why nothing goes to and fro. *Down*: a child is handed over only to a sibling, one level further from the root; it
//! comes up again only when a forwarder is spliced out, which leaves its parent with as many children as before.
//! *One at a time*: who is on its way to another parent, or has offered to splice itself out, takes nobody over; who
//! was offered parents is offered none again, and to nobody, for ten seconds. *Patience*: what did not succeed is tried
//! again after twice the time.

use std::cmp::Reverse;
use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;
use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;

use super::moving::OFFER_REST;
use super::tree::{Child, Role, Tree};
use super::{Context, Forest, Life, Timer};
use crate::topic::TopicId;
use crate::wire::{Header, MAX_OFFERED, Offer, Offered, Room};

/// Most children that are asked at once to move: a crowd is led down in several rounds.
const MOVERS: usize = 64;
/// Doublings of the time between attempts.
const MOST_TRIES: u8 = 5;

/// What a tree's shape lacks at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Nobody but this child needs this node.
    Splice(NodeId),
    /// So many children too many.
    HandOver(usize),
}

impl Forest {
    /// Looks whether this node's place in a tree is as it should be, after its children or subscribers changed.
    pub(super) fn review_shape(&mut self, cx: Context<'_>, topic: TopicId) {
        self.count_own(topic);
        let Some(tree) = self.trees.get(&topic) else { return };
        let need = self.need(tree);
        if let Some(tree) = self.trees.get_mut(&topic) {
            tree.tries = 0;
        }
        match need {
            Some(need) => {
                let at = cx.now + self.pause(need, 0);
                self.deadlines.set_earlier(Timer::Shape(topic), at);
            }
            None => self.deadlines.cancel(Timer::Shape(topic)),
        }
        self.review_load(cx);
    }

    /// Looks whether this node has too many children in all trees together.
    fn review_load(&mut self, cx: Context<'_>) {
        if self.entries <= self.most_entries() {
            self.deadlines.cancel(Timer::Load);
        } else if !self.deadlines.is_set(Timer::Load) {
            (self.load_tries, self.load_before) = (0, self.entries);
            let at = cx.now + self.pause(Need::HandOver(1), 0);
            self.deadlines.set(Timer::Load, at);
        }
    }

    /// What this node's place in a tree lacks.
    fn need(&self, tree: &Tree) -> Option<Need> {
        let forwards = matches!(tree.role, Role::Child(_)) && tree.subscriptions.is_empty();
        match tree.children.keys().next() {
            Some(&child) if forwards && tree.children.len() == 1 => {
                let edge = self.neighbours.contact(child).is_none_or(|contact| contact.is_edge());
                (!edge).then_some(Need::Splice(child))
            }
            Some(_) | None => {
                let excess = tree.children.len().checked_sub(self.config.tree_children)?;
                (excess > 0).then_some(Need::HandOver(excess))
            }
        }
    }

    /// How many children this node has at most in all trees. Who takes much gives much: two for each topic of its own,
    /// if that is more than the limit.
    fn most_entries(&self) -> usize {
        self.config.node_children.max(2 * self.own)
    }

    /// Counts a topic among this node's own, or no more, after its place or its subscriptions changed.
    pub(super) fn count_own(&mut self, topic: TopicId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let own = tree.is_own();
        match (std::mem::replace(&mut tree.counted_own, own), own) {
            (false, true) => self.own += 1,
            (true, false) => self.own -= 1,
            (false, false) | (true, true) => {}
        }
    }

    fn pause(&mut self, need: Need, tries: u8) -> Duration {
        let base = match need {
            Need::Splice(_) => self.config.splice_after,
            Need::HandOver(_) => self.config.hand_over_after,
        };
        base.mul_f64(self.rng.random_range(0.75..1.25)) * (1 << tries.min(MOST_TRIES))
    }

    pub(super) fn on_shape_timer(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(need) = self.trees.get(&topic).and_then(|tree| self.need(tree)) else { return };
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        tree.tries = tree.tries.saturating_add(1);
        let tries = tree.tries;
        let again = cx.now + self.pause(need, tries);
        self.deadlines.set(Timer::Shape(topic), again);
        match need {
            Need::Splice(child) => self.splice_out(cx, topic, child),
            Need::HandOver(count) => self.hand_children_over(cx, topic, count, tries > 1),
        }
    }

    /// The trees in which most children could go give some of them away: half of them at most, since the others take
    /// them.
    pub(super) fn on_load_timer(&mut self, cx: Context<'_>) {
        let mut excess = self.entries.saturating_sub(self.most_entries());
        if excess == 0 {
            return;
        }
        let progress = self.entries < self.load_before;
        self.load_before = self.entries;
        self.load_tries = if progress { 0 } else { self.load_tries.saturating_add(1) };
        let again = cx.now + self.pause(Need::HandOver(excess), self.load_tries);
        self.deadlines.set(Timer::Load, again);
        let movable =
            |tree: &Tree| tree.children.iter().filter(|(id, c)| self.may_move(cx.now, **id, c)).count();
        let mut trees: Vec<_> =
            self.trees.values().map(|tree| (Reverse(movable(tree)), tree.topic)).collect();
        trees.sort_unstable();
        excess = excess.min(MOVERS);
        for (Reverse(count), topic) in trees {
            let going = excess.min(count / 2);
            if going == 0 {
                break;
            }
            self.hand_children_over(cx, topic, going, !progress && self.load_tries > 1);
            excess -= going;
        }
    }

    /// Offers the only child this node's own parent. When the child has gone there, this node leaves.
    fn splice_out(&mut self, cx: Context<'_>, topic: TopicId, id: NodeId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        let Some(child) = tree.children.get(&id) else { return };
        if !tree.is_settled() || tree.keep_until > cx.now || !self.may_move(cx.now, id, child) {
            return;
        }
        let parent = tree.parent().and_then(|parent| self.neighbours.contact(parent));
        let offered = parent.map(|contact| Offered { contact, micros: 0 });
        self.offer(cx, topic, id, offered.into_iter().collect());
    }

    /// Offers some children the others: those whom a detour costs least, because few nodes are below them and they are
    /// far away anyway; so a newcomer that is nearer than an older child displaces it. If that was `in_vain`, any, to any.
    fn hand_children_over(&mut self, cx: Context<'_>, topic: TopicId, count: usize, in_vain: bool) {
        let Some(tree) = self.trees.get(&topic) else { return };
        if !tree.is_settled() || self.life != Life::Running {
            return;
        }
        let mut movable: Vec<(u64, NodeId)> = tree
            .children
            .iter()
            .filter(|(id, child)| self.may_move(cx.now, **id, child))
            .map(|(&id, child)| (u64::from(child.rtt) / child.subscribers.max(1), id))
            .collect();
        movable.sort_unstable_by_key(|&(cost, id)| (Reverse(cost), id));
        if in_vain {
            movable.shuffle(&mut self.rng);
        }
        let stay = movable.split_off(count.min(MOVERS).min(movable.len() / 2));
        let rtt = |id: &NodeId| tree.children.get(id).map_or(u32::MAX, |child| child.rtt);
        let mut near: Vec<_> = stay.into_iter().map(|(_, id)| (rtt(&id), id)).collect();
        near.sort_unstable();
        if in_vain {
            // The nearest have no room.
            near.shuffle(&mut self.rng);
        }
        near.truncate(self.config.offered.min(MAX_OFFERED));
        let offered = |(micros, id)| Some(Offered { contact: self.neighbours.contact(id)?, micros });
        let offered: Vec<_> = near.into_iter().filter_map(offered).collect();
        for (_, child) in movable {
            self.offer(cx, topic, child, offered.clone());
        }
    }

    fn offer(&mut self, cx: Context<'_>, topic: TopicId, id: NodeId, parents: Vec<Offered>) {
        let child = self.trees.get_mut(&topic).and_then(|tree| tree.children.get_mut(&id));
        let (Some(child), Some(to)) = (child, self.neighbours.contact(id)) else { return };
        if parents.is_empty() {
            return;
        }
        child.rests_until = cx.now + OFFER_REST;
        let join = child.join;
        self.tell(to, &Header::Offer(Offer { topic, join, parents }));
    }

    /// Whether a child can be asked to move, or be offered to others as a parent. Edges stay with their access nodes:
    /// whatever they get passes there.
    fn may_move(&self, now: Instant, id: NodeId, child: &Child) -> bool {
        let edge = self.neighbours.contact(id).is_none_or(|contact| contact.is_edge());
        !edge && !child.held && child.cursor.is_some() && child.version_seen > 0 && child.rests_until <= now
    }

    /// Whether this node takes a child over from another parent: from a child of its own that splices itself out
    /// always, else up to twice the number at which it hands children over itself.
    pub(super) fn room(&self, now: Instant, tree: &Tree, former: Option<NodeId>) -> Room {
        let going = match self.need(tree) {
            Some(Need::Splice(child)) => {
                tree.children.get(&child).is_some_and(|child| child.rests_until > now)
            }
            Some(Need::HandOver(_)) | None => false,
        };
        let spliced = former.is_some_and(|former| tree.children.contains_key(&former));
        let (count, most) = (tree.children.len(), self.config.tree_children);
        let room = count < 2 * most && self.entries < self.most_entries();
        match self.life == Life::Running && tree.is_settled() && !going && (spliced || room) {
            true if spliced || count < most => Room::Free,
            true => Room::Crowded,
            false => Room::None,
        }
    }
}

impl Tree {
    /// Whether nothing changes above this node as far as it knows, and it has a log to start others.
    fn is_settled(&self) -> bool {
        let placed = match &self.role {
            Role::Child(upward) => upward.version.0 == self.join,
            Role::Root(_) => true,
            Role::Joining { .. } | Role::Opening(_) => false,
        };
        placed && self.moving.is_none() && self.log.is_some()
    }
}

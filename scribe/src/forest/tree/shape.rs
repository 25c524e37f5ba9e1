//! Parents keep their trees in shape (design §6, "Trees' shape"): a full one hands children over to others of its
//! children, and a forwarder with one child and no subscriber splices itself out.
//!
//! Castro et al. 2002 ("Scribe") have both: the "bottleneck remover", by which an overloaded node makes its farthest
//! child join that one of its other children by which the way from the parent is shortest; and, for many small groups,
//! the collapsing of paths through nodes that are no members and have one child. Here the child moves with its place in
//! the log (`relocation.rs`), so that subscribers notice neither.
//!
//! Why nothing goes to and fro. *Down*: a child is handed over only to a sibling, one level further from the root; it
//! comes up again only when a forwarder is spliced out, which leaves its parent with as many children as before.
//! *One at a time*: a node that is on its way to another parent, or has offered to splice itself out, takes no child
//! over; a child that was offered parents is offered none again, and to no node, for ten seconds. *Patience*: an
//! attempt in vain is repeated after twice the time.

use std::cmp::Reverse;

use rand::seq::SliceRandom;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;

use super::Tree;
use super::children::Child;
use super::relocation::OFFER_REST;
use super::role::Role;
use crate::forest::context::{LifeStage, TreeCx, TreeTimer};
use crate::wire::{Capacity, Header, MAX_OFFERED, Offer, Offered};

/// Most children that are asked at once to move: a crowd is led down in several rounds.
pub(crate) const MOVERS: usize = 64;

/// A flaw in a tree's shape at this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Only this child needs this node.
    Splice(NodeId),
    /// So many children too many.
    HandOver(usize),
}

impl Tree {
    /// Looks whether this node's place in a tree is as it should be, after its children or subscribers changed.
    pub(crate) fn review_shape(&mut self, cx: &mut TreeCx<'_>) {
        self.count_own(cx);
        self.shape_tries = 0;
        match self.need(cx) {
            Some(need) => {
                let at = cx.now + cx.pause(need.after(cx), 0);
                cx.timers.set_earlier(TreeTimer::Shape, at);
            }
            None => cx.timers.cancel(TreeTimer::Shape),
        }
        cx.review_crowd();
    }

    /// Counts the topic among this node's own, or no more, after its place or its subscriptions changed.
    pub(crate) fn count_own(&mut self, cx: &TreeCx<'_>) {
        if !self.is_own() {
            self.own = None;
        } else if self.own.is_none() {
            self.own = Some(cx.quota.own_topics.take());
        }
    }

    /// The flaw in the tree's shape at this node, if any.
    fn need(&self, cx: &TreeCx<'_>) -> Option<Need> {
        let is_member = self.flow.log.copy_state().is_some();
        let forwards = matches!(self.role, Role::Child(_)) && self.flow.readers.is_empty() && !is_member;
        match self.flow.children.ids().next() {
            Some(child) if forwards && self.flow.children.len() == 1 => {
                (!is_edge(cx, child)).then_some(Need::Splice(child))
            }
            Some(_) | None => {
                let excess = self.flow.children.ordinary().checked_sub(cx.config.tree.children_per_tree)?;
                (excess > 0).then_some(Need::HandOver(excess))
            }
        }
    }

    pub(super) fn on_shape_timer(&mut self, cx: &mut TreeCx<'_>) {
        let Some(need) = self.need(cx) else { return };
        self.shape_tries = self.shape_tries.saturating_add(1);
        let tries = self.shape_tries;
        let again = cx.now + cx.pause(need.after(cx), tries);
        cx.timers.set(TreeTimer::Shape, again);
        match need {
            Need::Splice(child) => self.splice_out(cx, child),
            Need::HandOver(count) => self.hand_children_over(cx, count, tries > 1),
        }
    }

    /// Offers the only child this node's own parent. When the child has gone there, this node leaves.
    fn splice_out(&mut self, cx: &mut TreeCx<'_>, id: NodeId) {
        let Some(child) = self.flow.children.get(id) else { return };
        if !self.is_settled() || self.is_kept(cx.now) || !may_move(cx, id, child) {
            return;
        }
        let parent = self.role.parent().and_then(|parent| cx.neighbours.contact(parent));
        let offered = parent.map(|contact| Offered { contact, micros: 0 });
        self.offer(cx, id, offered.into_iter().collect());
    }

    /// Offers some children the others: those that a detour costs least, because few nodes are below them and they are
    /// far away anyway; so a newcomer that is nearer than an older child displaces it. If that was `in_vain`, any, to
    /// any.
    pub(crate) fn hand_children_over(&mut self, cx: &mut TreeCx<'_>, count: usize, in_vain: bool) {
        if !self.is_settled() || cx.life != LifeStage::Running {
            return;
        }
        let movable = self.flow.children.iter().filter(|(id, child)| may_move(cx, *id, child));
        let mut movable: Vec<_> = movable.map(|(id, child)| (child.detour_gain(), id)).collect();
        movable.sort_unstable_by_key(|&(gain, id)| (Reverse(gain), id));
        if in_vain {
            movable.shuffle(cx.rng);
        }
        // Half of them stay at least, because they are the ones that are offered to the others.
        let stay = movable.split_off(count.min(MOVERS).min(movable.len() / 2));
        let rtt = |id| self.flow.children.get(id).map_or(u32::MAX, |child| child.rtt);
        let mut near: Vec<_> = stay.into_iter().map(|(_, id)| (rtt(id), id)).collect();
        near.sort_unstable();
        if in_vain {
            // The nearest have no room.
            near.shuffle(cx.rng);
        }
        near.truncate(cx.config.tree.offered.min(MAX_OFFERED));
        let offered = |(micros, id)| Some(Offered { contact: cx.neighbours.contact(id)?, micros });
        let offered: Vec<_> = near.into_iter().filter_map(offered).collect();
        for (_, child) in movable {
            self.offer(cx, child, offered.clone());
        }
    }

    fn offer(&mut self, cx: &mut TreeCx<'_>, id: NodeId, parents: Vec<Offered>) {
        let (Some(child), Some(to)) = (self.flow.children.get_mut(id), cx.neighbours.contact(id)) else {
            return;
        };
        if parents.is_empty() {
            return;
        }
        child.rests_until = cx.now + OFFER_REST;
        let offer = Offer { topic: cx.topic, join: child.join, parents };
        cx.tell(to, &Header::Offer(offer));
    }

    /// How many children could be asked to move.
    pub(crate) fn movable_children(&self, cx: &TreeCx<'_>) -> usize {
        self.flow.children.iter().filter(|(id, child)| may_move(cx, *id, child)).count()
    }

    /// A child of another node asks how much room there is here.
    pub(super) fn on_capacity_probe(&mut self, cx: &mut TreeCx<'_>, from: Contact, number: u64) {
        let may_adopt = self.may_adopt(cx, from.id());
        let capacity = if may_adopt { self.capacity(cx, None) } else { Capacity::None };
        let answer = Header::CapacityAnswer { topic: cx.topic, number, capacity };
        cx.tell(from, &answer);
    }

    /// Whether this node takes a child over from another parent: from a child of its own that splices itself out
    /// always, else up to twice the number at which it hands children over itself.
    pub(super) fn capacity(&self, cx: &TreeCx<'_>, former: Option<NodeId>) -> Capacity {
        let going = match self.need(cx) {
            Some(Need::Splice(child)) => {
                self.flow.children.get(child).is_some_and(|c| c.rests_until > cx.now)
            }
            Some(Need::HandOver(_)) | None => false,
        };
        let spliced = former.is_some_and(|former| self.flow.children.contains(former));
        let (count, most) = (self.flow.children.ordinary(), cx.config.tree.children_per_tree);
        let room = count < 2 * most && cx.quota.has_child_room(cx.config);
        match cx.life == LifeStage::Running && self.is_settled() && !going && (spliced || room) {
            true if spliced || count < most => Capacity::Free,
            true => Capacity::Crowded,
            false => Capacity::None,
        }
    }
}

impl Need {
    /// How long it is left as it is.
    fn after(self, cx: &TreeCx<'_>) -> std::time::Duration {
        match self {
            Need::Splice(_) => cx.config.tree.splice_after,
            Need::HandOver(_) => cx.config.tree.hand_over_after,
        }
    }
}

/// Whether a child can be asked to move, or be offered to others as a parent. Edges stay with their access nodes,
/// because all that they get passes there.
fn may_move(cx: &TreeCx<'_>, id: NodeId, child: &Child) -> bool {
    child.is_movable(cx.now) && !is_edge(cx, id)
}

fn is_edge(cx: &TreeCx<'_>, id: NodeId) -> bool {
    cx.neighbours.contact(id).is_none_or(|contact| contact.is_edge())
}

//! Admission, from the side of the ready node: one joiner at a time on each side, for a limited time (design §5;
//! Azmy, Merz & Weidenbach 2016, "A Machine-Checked Correctness Proof for Pastry", whose LuPastry+ does the same).
//!
//! The gap between two ring neighbours belongs to the joiner that holds the left one's right slot *and* the right
//! one's left slot. So two joiners never enter one gap together, which is how published Pastry splits its ring.

use super::Node;
use crate::id::{Key, NodeId};
use crate::kbr::Event;
use crate::peer::Peer;
use crate::sides::{Side, Sides};
use crate::time::Instant;
use crate::wire::{Admission, Header, Standing};

/// The two slots of a ready node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Slots {
    left: Option<Slot>,
    right: Option<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot {
    joiner: Peer,
    until: Instant,
    /// This node no longer answers for the joiner's part: the joiner may. The number of its latest `Commit`.
    given_up: Option<u64>,
}

impl Slots {
    fn slot(&mut self, side: Side) -> &mut Option<Slot> {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }

    fn both(&self) -> impl Iterator<Item = &Slot> {
        self.left.iter().chain(&self.right)
    }

    /// Joiners to whom this node has given up a part.
    pub(super) fn successors(&self) -> impl Iterator<Item = &Peer> {
        self.both().filter(|slot| slot.given_up.is_some()).map(|slot| &slot.joiner)
    }

    /// The sides on which this node's part was given up to this joiner.
    pub(super) fn given_up(&self, joiner: Peer) -> Sides {
        let sides = [(Side::Left, &self.left), (Side::Right, &self.right)];
        let is_its = |slot: &Slot| slot.joiner == joiner && slot.given_up.is_some();
        sides
            .into_iter()
            .filter(|(_, slot)| slot.as_ref().is_some_and(is_its))
            .map(|(side, _)| side)
            .collect()
    }

    /// Takes the slots of the named sides for the joiner, if they are free, expired, or its own already.
    fn take(&mut self, now: Instant, sides: Sides, slot: Slot, is_free: impl Fn(&Slot) -> bool) -> bool {
        let free = |held: &Option<Slot>| {
            held.is_none_or(|held| held.joiner == slot.joiner || held.until <= now && is_free(&held))
        };
        let all_free = sides.iter().all(|side| free(self.slot(side)));
        if all_free {
            for side in sides.iter() {
                let held = self.slot(side).filter(|held| held.joiner == slot.joiner);
                let given_up = held.and_then(|held| held.given_up);
                *self.slot(side) = Some(Slot { given_up, ..slot });
            }
        }
        all_free
    }

    /// Gives up this node's part to the joiner, on each side where it holds a slot.
    fn give_up(&mut self, joiner: Peer, number: u64) {
        for side in Side::BOTH {
            if let Some(slot) = self.slot(side).as_mut().filter(|slot| slot.joiner == joiner) {
                slot.given_up = slot.given_up.max(Some(number));
            }
        }
    }

    /// The joiner does not come by any `Commit` up to this number. What was given up for a later one stays given up
    /// until its lease ends: this word is an old one, and the joiner may be in its place by now.
    fn withdraw(&mut self, now: Instant, joiner: Peer, number: u64) {
        for side in Side::BOTH {
            let slot = self.slot(side);
            slot.take_if(|slot| slot.joiner == joiner && slot.given_up <= Some(number));
            if let Some(slot) = slot.as_mut().filter(|slot| slot.joiner == joiner) {
                slot.until = slot.until.min(now);
            }
        }
    }

    /// Whether the joiner holds each of these sides.
    fn holds(&mut self, joiner: Peer, sides: Sides) -> bool {
        sides.iter().all(|side| self.slot(side).is_some_and(|slot| slot.joiner == joiner))
    }

    /// The node of this id that holds a slot, if it does.
    pub(super) fn joiner(&self, id: NodeId) -> Option<Peer> {
        self.both().map(|slot| slot.joiner).find(|joiner| joiner.id == id)
    }

    /// Frees whatever this node holds, or an earlier life of it: not what a later one does.
    pub(super) fn release(&mut self, joiner: Peer) {
        for side in Side::BOTH {
            self.slot(side).take_if(|slot| joiner.supersedes(&slot.joiner));
        }
    }
}

impl Node {
    /// On which sides a joiner would be this node's neighbour: both, if this node is alone.
    pub(super) fn sides_of(&self, joiner: NodeId) -> Sides {
        let me = self.me.id.key();
        let (Some(left), Some(right)) = (self.leaf_set.left(), self.leaf_set.right()) else {
            return Sides::Both;
        };
        let between = |from: Key, to: Key| from.clockwise_to(joiner) < from.clockwise_to(to);
        let is_left = between(left.id.key(), me) || left.id == joiner;
        let is_right = between(me, right.id.key()) || right.id == joiner;
        [(is_left, Side::Left), (is_right, Side::Right)]
            .into_iter()
            .filter_map(|(is, side)| is.then_some(side))
            .collect()
    }

    pub(super) fn on_admit(&mut self, now: Instant, from: Peer) {
        let admission = self.admit(now, from);
        self.transmit(from, Header::Admission(admission));
    }

    fn admit(&mut self, now: Instant, joiner: Peer) -> Admission {
        if !self.is_ready() || self.is_edge() {
            return Admission::NotReady;
        }
        if self.leaf_set.contains(joiner.id) {
            // Another life of the joiner: its place is closed first, when its lease has ended. (That a later one was
            // heard has condemned it, and bars its words.)
            return Admission::Busy;
        }
        let sides = self.sides_of(joiner.id);
        if sides.is_none() {
            return Admission::NotNeighbour { members: self.leaf_set.iter().copied().collect() };
        }
        let slot = Slot { joiner, until: now + self.config.join_slot, given_up: None };
        if self.slots.given_up(joiner).is_none() && !self.may_give_up(now, sides) {
            // It would get no part by now.
            return Admission::Busy;
        }
        // A part that was given up is taken back only when the lease that went with it has ended.
        let leases = &self.leases;
        if self.slots.take(now, sides, slot, |held| !leases.binds(now, held.joiner.id)) {
            Admission::Granted { members: self.leaf_set.iter().copied().collect() }
        } else {
            Admission::Busy
        }
    }

    /// An admitted joiner, whose leaf set has answered, takes its part over.
    pub(super) fn on_commit(&mut self, now: Instant, from: Peer, number: u64, beside: NodeId) {
        let known = self.leaf_set.get(from.id).is_some_and(|member| member.incarnation == from.incarnation);
        if !self.is_ready() || self.is_edge() {
            return self.transmit(from, Header::Admission(Admission::NotReady));
        }
        let sides = self.sides_of(from.id);
        if let Some(refusal) = self.refusal(now, from, sides, beside).filter(|_| !known) {
            return self.transmit(from, Header::Admission(refusal));
        }
        self.slots.give_up(from, number);
        let given_up = self.slots.given_up(from).and(sides);
        self.leases.grant(now, from.id, given_up, self.config.lease);
        let lease = if known { self.grant_lease(now, from, Standing::Ready, sides) } else { given_up };
        self.transmit(from, Header::Committed { number, lease });
        self.events.push_back(Event::NeighboursChanged);
    }

    /// Why a joiner gets no part on these sides, where it stands by now.
    fn refusal(&mut self, now: Instant, joiner: Peer, sides: Sides, beside: NodeId) -> Option<Admission> {
        if self.slots.given_up(joiner).is_none() && !self.may_give_up(now, sides) {
            // It slept, say, or its neighbour died, and another may answer for that part by a lease that still runs.
            return Some(Admission::Busy);
        }
        if sides.is_none() || sides.iter().any(|side| self.beside(side) != beside) {
            // The ring has changed since the slot was given: a node that had been thought dead came back between, or the
            // joiner's other neighbour has left, and the next one has this node's lease for the joiner's part.
            return Some(Admission::NotNeighbour { members: self.leaf_set.iter().copied().collect() });
        }
        (!self.slots.holds(joiner, sides)).then_some(Admission::Busy)
    }

    /// The ring neighbour on this side; this node itself, if it is alone.
    pub(super) fn beside(&self, side: Side) -> NodeId {
        let neighbour = if side == Side::Left { self.leaf_set.left() } else { self.leaf_set.right() };
        neighbour.map_or(self.me.id, |peer| peer.id)
    }

    /// Whether this node answers for its part on these sides: nobody has anything to give up that he does not hold.
    fn may_give_up(&self, now: Instant, sides: Sides) -> bool {
        let holds = |side: Side| {
            let neighbour = self.beside(side);
            neighbour == self.me.id || self.leases.holds(now, neighbour, side.opposite())
        };
        !self.leases.is_any_waking() && sides.iter().all(holds)
    }

    pub(super) fn on_withdraw(&mut self, now: Instant, from: Peer, number: u64) {
        let had = self.slots.given_up(from);
        self.slots.withdraw(now, from, number);
        if !had.is_none() && self.slots.given_up(from).is_none() {
            // It answers for nothing: its neighbours may have their leases back.
            self.leases.renounce(from.id);
            self.events.push_back(Event::NeighboursChanged);
        }
        self.unpark(now);
    }

    /// Takes back what was given up to joiners that never came: their slot and their lease have ended.
    pub(super) fn expire_slots(&mut self, now: Instant) {
        let leases = &self.leases;
        for side in Side::BOTH {
            self.slots.slot(side).take_if(|slot| slot.until <= now && !leases.binds(now, slot.joiner.id));
        }
    }
}

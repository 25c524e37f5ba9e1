//! Admission, from the side of the ready node: one joiner at a time on each side, for a limited time (design §5;
//! Azmy, Merz & Weidenbach 2016, "A Machine-Checked Correctness Proof for Pastry", whose LuPastry+ does the same).
//!
//! The gap between two ring neighbours belongs to the joiner that holds the left one's right slot *and* the right
//! one's left slot. So two joiners never enter one gap together, which is how published Pastry splits its ring.

use super::Node;
use crate::id::{Key, NodeId};
use crate::kbr::Event;
use crate::peer::Peer;
use crate::time::Instant;
use crate::wire::{Admission, Header};

/// One side of this node on the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    /// Towards smaller ids.
    Left,
    /// Towards greater ids.
    Right,
}

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
    /// This node no longer answers for the joiner's part: the joiner may.
    given_up: bool,
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
        self.both().filter(|slot| slot.given_up).map(|slot| &slot.joiner)
    }

    fn has_given_up(&self, joiner: Peer) -> bool {
        self.both().any(|slot| slot.joiner == joiner && slot.given_up)
    }

    /// Takes the slots of the named sides for the joiner, if they are free, expired, or its own already.
    fn take(&mut self, now: Instant, sides: &[Side], slot: Slot, is_free: impl Fn(&Slot) -> bool) -> bool {
        let free = |held: &Option<Slot>| {
            held.is_none_or(|held| held.joiner == slot.joiner || held.until <= now && is_free(&held))
        };
        let all_free = sides.iter().all(|&side| free(self.slot(side)));
        if all_free {
            for &side in sides {
                let given_up =
                    self.slot(side).is_some_and(|held| held.given_up && held.joiner == slot.joiner);
                *self.slot(side) = Some(Slot { given_up, ..slot });
            }
        }
        all_free
    }

    /// Gives up this node's part to the joiner, on each side where it holds a slot.
    fn give_up(&mut self, joiner: Peer) {
        for side in [Side::Left, Side::Right] {
            if let Some(slot) = self.slot(side).as_mut().filter(|slot| slot.joiner == joiner) {
                slot.given_up = true;
            }
        }
    }

    /// The joiner does not come. What was given up to it stays given up until its lease ends: this word may be an
    /// old one, and the joiner in its place by now.
    fn withdraw(&mut self, now: Instant, joiner: Peer) {
        for side in [Side::Left, Side::Right] {
            let slot = self.slot(side);
            slot.take_if(|slot| slot.joiner == joiner && !slot.given_up);
            if let Some(slot) = slot.as_mut().filter(|slot| slot.joiner == joiner) {
                slot.until = slot.until.min(now);
            }
        }
    }

    /// Whether the joiner holds each of these sides.
    fn holds(&mut self, joiner: Peer, sides: &[Side]) -> bool {
        sides.iter().all(|&side| self.slot(side).is_some_and(|slot| slot.joiner == joiner))
    }

    /// The node of this id that holds a slot, if it does.
    pub(super) fn joiner(&self, id: NodeId) -> Option<Peer> {
        self.both().map(|slot| slot.joiner).find(|joiner| joiner.id == id)
    }

    /// Frees whatever this node holds, or an earlier life of it: not what a later one does.
    pub(super) fn release(&mut self, joiner: Peer) {
        for side in [Side::Left, Side::Right] {
            self.slot(side).take_if(|slot| joiner.supersedes(&slot.joiner));
        }
    }
}

impl Node {
    /// On which sides a joiner would be this node's neighbour: both, if this node is alone.
    pub(super) fn sides_of(&self, joiner: NodeId) -> Vec<Side> {
        let me = self.me.id.key();
        let (Some(left), Some(right)) = (self.leaf_set.left(), self.leaf_set.right()) else {
            return vec![Side::Left, Side::Right];
        };
        let between = |from: Key, to: Key| from.clockwise_to(joiner) < from.clockwise_to(to);
        let mut sides = Vec::new();
        if between(left.id.key(), me) || left.id == joiner {
            sides.push(Side::Left);
        }
        if between(me, right.id.key()) || right.id == joiner {
            sides.push(Side::Right);
        }
        sides
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
        if sides.is_empty() {
            return Admission::NotNeighbour { members: self.leaf_set.iter().copied().collect() };
        }
        let slot = Slot { joiner, until: now + self.config.join_slot, given_up: false };
        // A part that was given up is taken back only when the lease that went with it has ended.
        let leases = &self.leases;
        if self.slots.take(now, &sides, slot, |held| !leases.binds(now, held.joiner.id)) {
            Admission::Granted { members: self.leaf_set.iter().copied().collect() }
        } else {
            Admission::Busy
        }
    }

    /// An admitted joiner, whose leaf set has answered, takes its part over.
    pub(super) fn on_commit(&mut self, now: Instant, from: Peer, number: u64) {
        let known = self.leaf_set.get(from.id).is_some_and(|member| member.incarnation == from.incarnation);
        if !self.is_ready() || self.is_edge() {
            return self.transmit(from, Header::Admission(Admission::NotReady));
        }
        if !known && !self.slots.has_given_up(from) {
            if self.leases.is_any_waking() {
                // It slept, and others may have taken its part over: it has nothing to give up before it knows.
                return self.transmit(from, Header::Admission(Admission::Busy));
            }
            // The ring may have changed since the slot was given: a node that had been thought dead came back between.
            let sides = self.sides_of(from.id);
            if sides.is_empty() {
                let members = self.leaf_set.iter().copied().collect();
                return self.transmit(from, Header::Admission(Admission::NotNeighbour { members }));
            }
            if !self.slots.holds(from, &sides) {
                return self.transmit(from, Header::Admission(Admission::Busy));
            }
        }
        self.slots.give_up(from);
        self.leases.grant(now, from.id, self.config.lease);
        self.transmit(from, Header::Committed { number });
        self.events.push_back(Event::NeighboursChanged);
    }

    pub(super) fn on_withdraw(&mut self, now: Instant, from: Peer) {
        self.slots.withdraw(now, from);
        self.unpark(now);
    }

    /// Takes back what was given up to joiners that never came: their slot and their lease have ended.
    pub(super) fn expire_slots(&mut self, now: Instant) {
        let leases = &self.leases;
        for side in [Side::Left, Side::Right] {
            self.slots.slot(side).take_if(|slot| slot.until <= now && !leases.binds(now, slot.joiner.id));
        }
    }
}

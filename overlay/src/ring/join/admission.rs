//! Admission, from the side of the ready node: one joiner at a time on each side, for a limited time (design §5;
//! Azmy, Merz & Weidenbach 2016, "A Machine-Checked Correctness Proof for Pastry", whose LuPastry+ does the same).
//!
//! The gap between two ring neighbours belongs to the joiner that holds the left one's right slot *and* the right
//! one's left slot. So two joiners never enter one gap together, which is how published Pastry splits its ring.
//!
//! A `JoinCommit` names the joiner's other neighbour, and a `JoinAbort` the commits that it takes back. Azmy et al. have no
//! leaving nodes: one that leaves after it has ceded its part would let the next one and the joiner answer side by side. And
//! what a joiner takes back need not wait for a lease to end. A node that lacks its neighbour's lease admits no node.

use crate::id::NodeId;
use crate::peer::Peer;
use crate::ring::core::Core;
use crate::ring::leases::Leases;
use crate::ring::tables::Tables;
use crate::sides::{Side, Sides};
use crate::time::Instant;
use crate::wire::Admission;

/// The two slots of a ready node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Slots {
    left: Option<Slot>,
    right: Option<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot {
    joiner: Peer,
    until: Instant,
    /// This node no longer answers for the joiner's part: the joiner may. The number of its latest `JoinCommit`.
    ceded: Option<u64>,
}

impl Slots {
    /// Answers a joiner that asks for its slots.
    pub(crate) fn admit(
        &mut self,
        now: Instant,
        core: &Core,
        tables: &Tables,
        leases: &Leases,
        joiner: Peer,
    ) -> Admission {
        if !core.is_on_ring() {
            return Admission::NotReady;
        }
        if tables.leaf_set.contains(joiner.id) {
            // Another life of the joiner: its place is closed first, when its lease has ended. (A later one that was heard
            // has begun its removal.)
            return Admission::Busy;
        }
        let sides = tables.leaf_set.sides_for(joiner.id);
        if sides.is_none() {
            return Admission::NotNeighbour { members: tables.members() };
        }
        if self.ceded(joiner).is_none() && !leases.may_cede(now, core, tables, sides) {
            // It would get no part by now.
            return Admission::Busy;
        }
        let slot = Slot { joiner, until: now + core.config.join.slot, ceded: None };
        // A part that was ceded is taken back only when the lease that went with it has ended.
        if self.take(now, sides, slot, |held| !leases.binds(now, held.joiner.id)) {
            Admission::Granted { members: tables.members() }
        } else {
            Admission::Busy
        }
    }

    /// Says why a joiner gets no part on these sides, where it stands by now.
    pub(crate) fn refusal(
        &mut self,
        now: Instant,
        core: &Core,
        tables: &Tables,
        leases: &Leases,
        joiner: Peer,
        other_neighbour: NodeId,
    ) -> Option<Admission> {
        let sides = tables.leaf_set.sides_for(joiner.id);
        if self.ceded(joiner).is_none() && !leases.may_cede(now, core, tables, sides) {
            // It slept, say, or its neighbour died, and another may answer for that part by a lease that still runs.
            return Some(Admission::Busy);
        }
        if sides.is_none() || sides.iter().any(|side| tables.leaf_set.neighbour(side) != other_neighbour) {
            // The ring has changed since the slot was given: a node that had been thought dead came back between, or the
            // joiner's other neighbour has left, and the next one has this node's lease for the joiner's part.
            return Some(Admission::NotNeighbour { members: tables.members() });
        }
        (!self.holds(joiner, sides)).then_some(Admission::Busy)
    }

    /// Cedes this node's part to the joiner, on each side where it holds a slot. Returns those sides.
    pub(crate) fn cede(&mut self, joiner: Peer, number: u64) -> Sides {
        for side in Side::BOTH {
            if let Some(slot) = self.slot(side).as_mut().filter(|slot| slot.joiner == joiner) {
                slot.ceded = slot.ceded.max(Some(number));
            }
        }
        self.ceded(joiner)
    }

    /// The joiner does not come by any `JoinCommit` up to this number. A part that was ceded for a later one stays ceded until its
    /// lease ends, because this frame is an old one, and the joiner may be in its place by now. Returns whether the joiner
    /// has given back all that was ceded to it.
    pub(crate) fn withdraw(&mut self, now: Instant, joiner: Peer, number: u64) -> bool {
        let had = self.ceded(joiner);
        for side in Side::BOTH {
            let slot = self.slot(side);
            slot.take_if(|slot| slot.joiner == joiner && slot.ceded <= Some(number));
            if let Some(slot) = slot.as_mut().filter(|slot| slot.joiner == joiner) {
                slot.until = slot.until.min(now);
            }
        }
        !had.is_none() && self.ceded(joiner).is_none()
    }

    /// Takes back what was ceded to joiners that never came: their slot and their lease have ended.
    pub(crate) fn expire(&mut self, now: Instant, leases: &Leases) {
        for side in Side::BOTH {
            self.slot(side).take_if(|slot| slot.until <= now && !leases.binds(now, slot.joiner.id));
        }
    }

    /// Frees whatever this node holds, or an earlier life of it: not what a later one does.
    pub(crate) fn release_slot(&mut self, joiner: Peer) {
        for side in Side::BOTH {
            self.slot(side).take_if(|slot| joiner.supersedes(&slot.joiner));
        }
    }

    /// Joiners to which this node has ceded a part.
    pub(crate) fn successors(&self) -> impl Iterator<Item = &Peer> {
        self.both().filter(|slot| slot.ceded.is_some()).map(|slot| &slot.joiner)
    }

    /// The sides on which this node's part was ceded to this joiner.
    pub(crate) fn ceded(&self, joiner: Peer) -> Sides {
        let sides = [(Side::Left, &self.left), (Side::Right, &self.right)];
        let is_its = |slot: &Slot| slot.joiner == joiner && slot.ceded.is_some();
        sides
            .into_iter()
            .filter(|(_, slot)| slot.as_ref().is_some_and(is_its))
            .map(|(side, _)| side)
            .collect()
    }

    /// The node of this id that holds a slot, if it does.
    pub(crate) fn joiner(&self, id: NodeId) -> Option<Peer> {
        self.both().map(|slot| slot.joiner).find(|joiner| joiner.id == id)
    }

    /// Whether no joiner, to which a part was ceded, stands between this node and its neighbour on this side. Such a
    /// neighbour came back after the joiner's part was promised: one of the two must wait for the other.
    pub(crate) fn is_next(&self, me: NodeId, neighbour: NodeId, side: Side) -> bool {
        let (me, neighbour) = (me.key(), neighbour.key());
        let (from, to) = if side == Side::Left { (neighbour, me) } else { (me, neighbour) };
        let mut joiners = self.successors().map(|peer| peer.id.key()).filter(|&key| key != neighbour);
        joiners.all(|joiner| from.clockwise_to(joiner) >= from.clockwise_to(to))
    }

    fn slot(&mut self, side: Side) -> &mut Option<Slot> {
        match side {
            Side::Left => &mut self.left,
            Side::Right => &mut self.right,
        }
    }

    fn both(&self) -> impl Iterator<Item = &Slot> {
        self.left.iter().chain(&self.right)
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
                let ceded = held.and_then(|held| held.ceded);
                *self.slot(side) = Some(Slot { ceded, ..slot });
            }
        }
        all_free
    }

    /// Whether the joiner holds each of these sides.
    fn holds(&mut self, joiner: Peer, sides: Sides) -> bool {
        sides.iter().all(|side| self.slot(side).is_some_and(|slot| slot.joiner == joiner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::fixture::{at, core, peer, tables};

    /// Leases of both neighbours, without which nothing can be ceded.
    fn leases(core: &mut Core, tables: &Tables) -> Leases {
        let mut leases = Leases::default();
        leases.take(at(0), core, tables, peer(90).id, Sides::Right, at(0));
        leases.take(at(0), core, tables, peer(110).id, Sides::Left, at(0));
        leases
    }

    #[test]
    fn one_joiner_has_a_side_until_its_slot_and_its_lease_have_ended() {
        let (mut core, tables) = (core(), tables(&[90, 110]));
        let (mut slots, mut leases) = (Slots::default(), leases(&mut core, &tables));
        let admit = |slots: &mut Slots, leases: &Leases, now, joiner| {
            matches!(slots.admit(at(now), &core, &tables, leases, peer(joiner)), Admission::Granted { .. })
        };
        assert!(admit(&mut slots, &leases, 0, 104));
        assert!(!admit(&mut slots, &leases, 1, 106), "the right side is taken");
        assert!(admit(&mut slots, &leases, 2, 96), "the left one is free");
        assert_eq!(slots.cede(peer(104), 1), Sides::Right);
        leases.grant_for(at(3_900), peer(104).id, Sides::Right, std::time::Duration::from_secs(9));
        assert!(
            !slots.take(at(4_100), Sides::Right, slot(106), |held| !leases.binds(at(4_100), held.joiner.id))
        );
        slots.expire(at(4_100), &leases);
        assert!(slots.joiner(peer(104).id).is_some() && slots.joiner(peer(96).id).is_none());
    }

    fn slot(joiner: u8) -> Slot {
        Slot { joiner: peer(joiner), until: at(9_999), ceded: None }
    }

    #[test]
    fn an_old_withdrawal_takes_back_no_later_commit() {
        let mut slots = Slots { right: Some(slot(104)), left: None };
        slots.cede(peer(104), 7);
        assert!(!slots.withdraw(at(0), peer(104), 6), "the joiner may be in its place by commit 7");
        assert_eq!(slots.ceded(peer(104)), Sides::Right);
        assert!(slots.withdraw(at(0), peer(104), 7));
    }

    #[test]
    fn a_node_without_its_neighbours_lease_admits_nobody() {
        let (core, tables) = (core(), tables(&[90, 110]));
        let answer = Slots::default().admit(at(0), &core, &tables, &Leases::default(), peer(104));
        assert_eq!(answer, Admission::Busy);
    }
}

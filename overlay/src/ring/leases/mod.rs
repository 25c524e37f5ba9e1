//! Leases between ring neighbours (design §5): a node answers for its range only while both neighbours' leases run.
//!
//! The holder counts from *sending* its request, the issuer from *granting*, plus 5 % for drift; the issuer neither
//! drops nor takes over before the lease ends. So a node that was paused beyond its lease finds it ended before it
//! answers anything, and no node took its range before that.
//!
//! Two neighbours renew their leases in one exchange of three frames: one asks, the other grants and asks in return, the
//! first grants. Each node asks its left neighbour first, and its right one only if that one is late. Two frames would do
//! if a grant answered the question of the exchange before; but then a node that died right after one was granted a lease
//! without a sign of life, and its range would be no node's for almost two leases.
//!
//! A lease is for one side of its issuer, and an issuer grants each side to one holder at a time: so a node that does not
//! see all that stand around it, or whose neighbour sees another next to itself, gets no lease for the part that it would
//! take wrongly. A lease is void where its holder stands no more: a joiner that comes and leaves between two nodes within
//! one lease would otherwise leave the outer ones a lease from before, while the part in between is another joiner's.

mod piggyback;

use std::collections::BTreeSet;
use std::time::Duration;

pub(crate) use self::piggyback::Piggyback;
use super::core::{Core, Timer};
use super::invariants::Size;
use super::join::Slots;
use super::tables::Tables;
use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::sides::{Side, Sides};
use crate::time::{Instant, earliest};
use crate::wire::{Grant, Header, LeasePiggyback, NodeState};

/// How long a node waits for its right neighbour, which is to ask it, before it asks itself.
const COURTESY: Duration = Duration::from_millis(150);
/// How soon a neighbour that has refused a lease, or given none, is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Leases held and granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Leases {
    /// Issuer and the side of it on which this node stands, and until when it keeps its hands off this node's range.
    held: Terms,
    /// Holder and the side of this node on which it stands, and until when this node keeps its hands off its range.
    granted: Terms,
    /// After a sleep: members of the leaf set that have not answered since.
    waking: BTreeSet<NodeId>,
    piggyback: Piggyback,
    /// Whether this node answered for its range when last looked at: a change is an event.
    serving: bool,
}

/// Whose leases they are, and when they end; few.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Terms(Vec<((NodeId, Side), Instant)>);

impl Terms {
    fn end(&self, id: NodeId, side: Side) -> Option<Instant> {
        self.0.iter().find(|(other, _)| *other == (id, side)).map(|&(_, until)| until)
    }

    fn set(&mut self, id: NodeId, side: Side, until: Instant) {
        match self.0.iter_mut().find(|(other, _)| *other == (id, side)) {
            Some((_, end)) => *end = until,
            None => self.0.push(((id, side), until)),
        }
    }

    fn runs(&self, now: Instant, id: NodeId, side: Side) -> bool {
        self.end(id, side).is_some_and(|until| until > now)
    }

    fn expire(&mut self, now: Instant) {
        self.0.retain(|&(_, until)| until > now);
    }

    fn remove(&mut self, id: NodeId) {
        self.0.retain(|&((other, _), _)| other != id);
    }

    fn first_end(&self) -> Option<Instant> {
        self.0.iter().map(|&(_, until)| until).min()
    }

    /// When the last lease of this node ends.
    fn last_end(&self, id: NodeId) -> Option<Instant> {
        Side::BOTH.into_iter().filter_map(|side| self.end(id, side)).max()
    }
}

impl Leases {
    /// Whether this node answers for its range: on the ring, and both neighbours' leases run, each for the side on which
    /// this node stands. Alone in a ring none is needed; of two nodes each has two of the other.
    pub(crate) fn is_serving(&self, now: Instant, core: &Core, tables: &Tables) -> bool {
        core.is_on_ring()
            && self.waking.is_empty()
            && tables.leaf_set.ends().all(|neighbour| self.holds_all(now, tables, neighbour.id))
    }

    /// Whether that has changed since it was last asked; then, what it is now.
    pub(crate) fn serving_changed(&mut self, now: Instant, core: &Core, tables: &Tables) -> Option<bool> {
        let serving = self.is_serving(now, core, tables);
        (std::mem::replace(&mut self.serving, serving) != serving).then_some(serving)
    }

    /// The node stops: it serves no range, and no event need tell so.
    pub(crate) fn stop_serving(&mut self) {
        self.serving = false;
    }

    /// When the leases that this node needs of a ring neighbour end, if it holds them all.
    pub(crate) fn held_until(&self, tables: &Tables, neighbour: NodeId) -> Option<Instant> {
        let sides = tables.leaf_set.my_sides_at(neighbour);
        let ends: Option<Vec<Instant>> = sides.iter().map(|side| self.held.end(neighbour, side)).collect();
        ends?.into_iter().min()
    }

    /// Whether the leases run that this node needs of a ring neighbour.
    pub(crate) fn holds_all(&self, now: Instant, tables: &Tables, neighbour: NodeId) -> bool {
        self.held_until(tables, neighbour).is_some_and(|until| until > now)
    }

    /// Whether they need not be renewed before half of a heartbeat is over.
    pub(crate) fn is_fresh(&self, now: Instant, core: &Core, tables: &Tables, neighbour: NodeId) -> bool {
        let rest = core.config.leases.duration.saturating_sub(core.config.leases.heartbeat / 2);
        self.held_until(tables, neighbour).is_some_and(|until| until > now + rest)
    }

    /// Whether this node answers for its part on these sides: a node cedes only what it holds.
    pub(crate) fn may_cede(&self, now: Instant, core: &Core, tables: &Tables, sides: Sides) -> bool {
        let holds = |side: Side| {
            let neighbour = tables.leaf_set.neighbour(side);
            neighbour == core.me.id || self.held.runs(now, neighbour, side.opposite())
        };
        !self.is_any_waking() && sides.iter().all(holds)
    }

    /// Whether a lease of this holder still runs.
    pub(crate) fn binds(&self, now: Instant, holder: NodeId) -> bool {
        self.granted.last_end(holder).is_some_and(|until| until > now)
    }

    /// When the last lease of this holder ends.
    pub(crate) fn granted_until(&self, holder: NodeId) -> Option<Instant> {
        self.granted.last_end(holder)
    }

    /// Grants leases to a ready node that is this node's ring neighbour, as this node sees the ring: of the sides that it
    /// asks for those on which it stands, which are granted to no other node.
    pub(crate) fn grant_asked(
        &mut self,
        now: Instant,
        core: &Core,
        tables: &Tables,
        slots: &Slots,
        (holder, node_state): (Peer, NodeState),
        asked: Sides,
    ) -> Sides {
        if !core.is_ready() || node_state != NodeState::Ready || self.is_any_waking() {
            return Sides::None;
        }
        let (left, right) = (tables.leaf_set.left(), tables.leaf_set.right());
        let is = |end: Option<&Peer>| end.is_some_and(|peer| peer.id == holder.id);
        let may_have = |side: Side| {
            let stands_there = is(if side == Side::Left { left } else { right });
            let has = self.granted.runs(now, holder.id, side);
            let is_next = || slots.is_next(core.me.id, holder.id, side);
            stands_there && (has || is_next() && self.is_free(now, side, holder.id))
        };
        let granted: Sides = asked.iter().filter(|&side| may_have(side)).collect();
        self.grant(now, core, holder.id, granted);
        granted
    }

    /// Grants leases for these sides of this node.
    pub(crate) fn grant(&mut self, now: Instant, core: &Core, holder: NodeId, sides: Sides) {
        self.grant_for(now, holder, sides, core.config.leases.duration);
    }

    /// Grants leases of this length, by the holder's clock.
    pub(crate) fn grant_for(&mut self, now: Instant, holder: NodeId, sides: Sides, length: Duration) {
        for side in sides.iter() {
            self.granted.set(holder, side, now + length.mul_f64(1.05));
        }
    }

    /// Whether this side is granted to no other node by now.
    fn is_free(&self, now: Instant, side: Side, holder: NodeId) -> bool {
        let is_others =
            |&((other, of), until): &((NodeId, Side), Instant)| of == side && other != holder && until > now;
        !self.granted.0.iter().any(is_others)
    }

    /// Takes leases that a ring neighbour grants, and that were asked for at `asked`. They may have been granted for a place
    /// where this node stands no more.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        core: &mut Core,
        tables: &Tables,
        issuer: NodeId,
        granted: Sides,
        asked: Instant,
    ) {
        let held = granted.and(tables.leaf_set.my_sides_at(issuer));
        if tables.leaf_set.is_ring_neighbour(issuer) && !held.is_none() {
            self.hold(now, core, tables, issuer, held, asked);
        }
    }

    /// Takes leases that were asked for at `asked`, for these sides of the issuer.
    pub(crate) fn hold(
        &mut self,
        now: Instant,
        core: &mut Core,
        tables: &Tables,
        issuer: NodeId,
        sides: Sides,
        asked: Instant,
    ) {
        for side in sides.iter() {
            let until =
                (asked + core.config.leases.duration).max(self.held.end(issuer, side).unwrap_or_default());
            self.held.set(issuer, side, until);
        }
        self.plan_expiry(core, tables);
        self.plan_heartbeat(now, core, tables);
    }

    /// Gives up the leases of nodes that are next to this node no more: should they be again, they may have granted that
    /// side to another one meanwhile, by a joiner to which this node had ceded its part.
    pub(crate) fn keep_current(&mut self, tables: &Tables) {
        let places = |peer: &Peer| {
            let id = peer.id;
            let sides = tables.leaf_set.my_sides_at(id).iter();
            sides.map(move |side| (id, side)).collect::<Vec<(NodeId, Side)>>()
        };
        let places: Vec<(NodeId, Side)> = tables.leaf_set.ends().flat_map(places).collect();
        self.held.0.retain(|(place, _)| places.contains(place));
        // The piggybacked requests and grants are for the places from before, too.
        self.piggyback = Piggyback::default();
    }

    /// The leases that this issuer gave are void.
    pub(crate) fn forget_held(&mut self, issuer: NodeId) {
        self.held.remove(issuer);
    }

    /// The holder gives its leases back: it answers for nothing.
    pub(crate) fn release(&mut self, holder: NodeId) {
        self.granted.remove(holder);
    }

    /// The node is gone for good.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.held.remove(node);
        self.granted.remove(node);
    }

    /// Piggybacked requests to this peer, and grants that wait for a frame to it, count for nothing.
    pub(crate) fn forget_piggyback(&mut self, id: NodeId) {
        self.piggyback.forget(id);
    }

    /// A heartbeat: the ring neighbours whose leases are due. They are to be asked for them, which also asks whether they
    /// live. One that is being removed is asked too, because its answer cancels that.
    pub(crate) fn due(&self, now: Instant, core: &Core, tables: &Tables) -> Vec<Peer> {
        let is_due = |peer: &Peer| self.renewal(core, tables, peer.id).is_none_or(|due| due <= now);
        tables.leaf_set.ring_neighbours().into_iter().filter(is_due).collect()
    }

    /// Ends a heartbeat: forgets what has ended, and sets the times for what is to come.
    pub(crate) fn end_heartbeat(&mut self, now: Instant, core: &mut Core, tables: &Tables) {
        self.granted.expire(now);
        self.waking.retain(|&id| tables.leaf_set.contains(id));
        self.plan_expiry(core, tables);
        self.plan_heartbeat(now, core, tables);
    }

    /// When the lease of this neighbour is to be renewed: a heartbeat after it was asked for last. The right neighbour is
    /// given the chance to ask first, because its question renews both leases.
    fn renewal(&self, core: &Core, tables: &Tables, neighbour: NodeId) -> Option<Instant> {
        let is_left = tables.leaf_set.left().is_some_and(|left| left.id == neighbour);
        let wait = core.config.leases.heartbeat + if is_left { Duration::ZERO } else { COURTESY };
        Some(self.held_until(tables, neighbour)? - core.config.leases.duration.saturating_sub(wait))
    }

    /// Sets the time for the next renewal. A neighbour that owes one is asked again after a while.
    pub(crate) fn plan_heartbeat(&self, now: Instant, core: &mut Core, tables: &Tables) {
        let again = now + core.config.leases.heartbeat.min(ASK_AGAIN);
        let due = |peer: &Peer| self.renewal(core, tables, peer.id).filter(|&due| due > now).unwrap_or(again);
        let next = tables.leaf_set.ends().map(due).min();
        core.timers.set(Timer::Heartbeat, next.unwrap_or(now + core.config.leases.heartbeat));
    }

    /// Forgets the leases that have ended.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.held.expire(now);
        self.granted.expire(now);
    }

    /// Sets the time at which the next lease ends whose end changes anything.
    pub(crate) fn plan_expiry(&self, core: &mut Core, tables: &Tables) {
        match earliest(self.held.first_end(), tables.next_removal()) {
            Some(at) => core.timers.set(Timer::Lease, at),
            None => core.timers.cancel(Timer::Lease),
        }
    }

    /// The node slept through a lease: others took its part over, and may have forgotten it, and its neighbours may
    /// have slept beside it. So it neither answers nor grants anything before each member of its leaf set has
    /// answered it, or was found dead; a node that answers knows of it.
    pub(crate) fn begin_waking(&mut self, now: Instant, core: &Core, tables: &Tables, slots: &Slots) {
        // A joiner to which a part was ceded is no member, and may be in its place: its lease counts anew.
        for joiner in slots.successors() {
            self.grant(now, core, joiner.id, slots.ceded(*joiner));
        }
        self.held.0.clear();
        self.piggyback = Piggyback::default();
        self.waking = tables.leaf_set.iter().map(|peer| peer.id).collect();
    }

    /// A member of the leaf set has answered a probe that was sent after this node's sleep, or is dead.
    pub(crate) fn end_waking(&mut self, id: NodeId) {
        self.waking.remove(&id);
    }

    /// Whether this node waits for an answer of this one after its sleep.
    pub(crate) fn is_waking(&self, id: NodeId) -> bool {
        self.waking.contains(&id)
    }

    /// Whether this node waits for any node's answer after its sleep.
    pub(crate) fn is_any_waking(&self) -> bool {
        !self.waking.is_empty()
    }

    /// The lease piggyback of a frame to this peer. `is_asked`: the peer is being probed for them already.
    pub(crate) fn piggyback_for(
        &mut self,
        now: Instant,
        core: &mut Core,
        tables: &Tables,
        to: NodeId,
        header: &Header,
        is_asked: bool,
    ) -> Option<Box<LeasePiggyback>> {
        let after = core.config.leases.piggyback_after?;
        if !core.is_on_ring() || !header.may_piggyback() || !tables.leaf_set.is_ring_neighbour(to) {
            return None;
        }
        // A grant that is older is of no use, because the holder has asked by a probe meanwhile.
        let grant = self.piggyback.take_owed(to, now - core.config.leases.heartbeat);
        // Leases that do not run are asked for by a probe; young ones not at all.
        let until = self.held_until(tables, to).filter(|&until| until > now);
        let is_old = until.is_some_and(|until| until + after <= now + core.config.leases.duration);
        let ask = (is_old && !is_asked)
            .then(|| self.piggyback.ask(now, core, to, tables.leaf_set.my_sides_at(to), after))
            .flatten();
        (ask.is_some() || grant.is_some()).then(|| Box::new(LeasePiggyback { ask, grant }))
    }

    /// A frame of this peer carries a lease piggyback.
    pub(crate) fn on_piggyback(
        &mut self,
        now: Instant,
        core: &mut Core,
        tables: &Tables,
        slots: &Slots,
        from: Peer,
        piggyback: LeasePiggyback,
    ) {
        if !core.is_on_ring() {
            return;
        }
        if let Some(Grant { number, lease }) = piggyback.grant
            && let Some((asked, sides)) = self.piggyback.take_asked(from.id, number)
        {
            self.take(now, core, tables, from.id, lease.and(sides), asked);
        }
        if let Some(ask) = piggyback.ask {
            let lease = self.grant_asked(now, core, tables, slots, (from, NodeState::Ready), ask.lease);
            if !lease.is_none() {
                self.piggyback.owe(now, from.id, Grant { number: ask.number, lease });
            }
        }
    }

    /// Whether this node holds a running lease for this side of the issuer.
    #[cfg(test)]
    pub(crate) fn holds(&self, now: Instant, issuer: NodeId, side: Side) -> bool {
        self.held.runs(now, issuer, side)
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        let waking = memory::tree(self.waking.len(), size_of::<NodeId>());
        memory::list(&self.held.0) + memory::list(&self.granted.0) + waking + self.piggyback.bytes()
    }

    /// How much is kept (promise O5).
    pub(crate) fn sizes(&self) -> [Size; 2] {
        self.piggyback.sizes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{at, core, peer, tables};
    use super::*;

    #[test]
    fn the_holder_counts_from_its_question_and_the_issuer_from_its_grant() {
        let (mut core, tables) = (core(), tables(&[90, 110]));
        let mut leases = Leases::default();
        for (neighbour, side) in [(90, Sides::Right), (110, Sides::Left)] {
            assert!(!leases.is_serving(at(0), &core, &tables), "one is missing");
            leases.take(at(300), &mut core, &tables, peer(neighbour).id, side, at(0));
        }
        assert!(leases.is_serving(at(3_999), &core, &tables));
        assert!(!leases.is_serving(at(4_000), &core, &tables), "4 s after the question");
        leases.grant(at(300), &core, peer(90).id, Sides::Left);
        assert!(leases.binds(at(4_499), peer(90).id), "4 s and 5 % after the grant");
        assert!(!leases.binds(at(4_500), peer(90).id));
    }

    #[test]
    fn a_side_has_one_holder_at_a_time() {
        let core = core();
        let mut leases = Leases::default();
        let mut grant = |now, neighbours: &[u8], holder| {
            let holder = (peer(holder), NodeState::Ready);
            leases.grant_asked(at(now), &core, &tables(neighbours), &Slots::default(), holder, Sides::Right)
        };
        assert_eq!(grant(0, &[90, 120], 120), Sides::Right);
        assert_eq!(grant(10, &[90, 120], 90), Sides::None, "it stands on the other side");
        assert_eq!(grant(20, &[90, 110, 120], 110), Sides::None, "the lease of the one behind it runs");
        assert_eq!(grant(4_300, &[90, 110, 120], 110), Sides::Right);
    }

    #[test]
    fn a_lease_is_void_where_its_holder_stands_no_more() {
        let mut core = core();
        let mut leases = Leases::default();
        leases.take(at(0), &mut core, &tables(&[90, 110]), peer(110).id, Sides::Left, at(0));
        leases.keep_current(&tables(&[90, 105, 110]));
        assert!(!leases.holds(at(1), peer(110).id, Side::Left), "another node stands between");
    }
}

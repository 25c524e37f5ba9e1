//! Leases between ring neighbours (design §5): a node answers for its range only while both neighbours' leases run.
//!
//! The holder counts from *sending* its request, the issuer from *granting*, plus 5 % for drift; the issuer neither
//! drops nor takes over before the lease ends. So whoever was paused beyond its lease finds it ended before it
//! answers anything, and nobody took its range before that.
//!
//! Two neighbours renew their leases in one exchange of three frames: one asks, the other grants and asks in return, the
//! first grants. Who asks first: each node asks its left neighbour, and its right one only if that one is late.
//!
//! A lease is for one side of its issuer, and an issuer grants each side to one holder at a time: so a node that does not
//! see all that stand around it, or whose neighbour sees another next to itself, gets no lease for the part that it would
//! take wrongly.

use std::collections::BTreeSet;
use std::time::Duration;

use super::carried::Carried;
use super::{Node, Timer};
use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::sides::{Side, Sides};
use crate::time::{Instant, earliest};
use crate::wire::Standing;

/// How long a node waits for its right neighbour, who is to ask it, before it asks itself.
const COURTESY: Duration = Duration::from_millis(150);
/// How soon a neighbour that has refused a lease, or given none, is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Leases held and granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Leases {
    /// Issuer and the side of it on which this node stands, and until when it keeps its hands off this node's range.
    held: Terms<(NodeId, Side)>,
    /// Holder and the side of this node on which it stands, and until when this node keeps its hands off its range.
    granted: Terms<(NodeId, Side)>,
    /// Holders that were found dead, or restarted, while their lease runs: out of use, but not yet dropped.
    condemned: Terms<NodeId>,
    /// After a sleep: members of the leaf set that have not answered since.
    waking: BTreeSet<NodeId>,
}

/// Whose leases they are, and when they end; few.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Terms<K>(Vec<(K, Instant)>);

impl<K> Default for Terms<K> {
    fn default() -> Self {
        Terms(Vec::new())
    }
}

impl<K: PartialEq> Terms<K> {
    fn end(&self, key: K) -> Option<Instant> {
        self.0.iter().find(|(other, _)| *other == key).map(|&(_, until)| until)
    }

    fn set(&mut self, key: K, until: Instant) {
        match self.0.iter_mut().find(|(other, _)| *other == key) {
            Some((_, end)) => *end = until,
            None => self.0.push((key, until)),
        }
    }

    fn runs(&self, now: Instant, key: K) -> bool {
        self.end(key).is_some_and(|until| until > now)
    }

    fn first_end(&self) -> Option<Instant> {
        self.0.iter().map(|&(_, until)| until).min()
    }
}

impl Terms<(NodeId, Side)> {
    fn remove(&mut self, id: NodeId) {
        self.0.retain(|&((other, _), _)| other != id);
    }

    /// When the last lease of this node ends.
    fn last_end(&self, id: NodeId) -> Option<Instant> {
        Side::BOTH.into_iter().filter_map(|side| self.end((id, side))).max()
    }
}

impl Leases {
    /// Takes leases that were asked for at `asked`, for these sides of the issuer.
    pub(super) fn hold(&mut self, issuer: NodeId, sides: Sides, asked: Instant, length: Duration) {
        for side in sides.iter() {
            let until = (asked + length).max(self.held.end((issuer, side)).unwrap_or_default());
            self.held.set((issuer, side), until);
        }
    }

    /// Grants leases for these sides of this node.
    pub(super) fn grant(&mut self, now: Instant, holder: NodeId, sides: Sides, length: Duration) {
        for side in sides.iter() {
            self.granted.set((holder, side), now + length.mul_f64(1.05));
        }
    }

    /// Whether a lease of this holder still runs.
    pub(super) fn binds(&self, now: Instant, holder: NodeId) -> bool {
        self.granted.last_end(holder).is_some_and(|until| until > now)
    }

    /// Whether this side is granted to nobody else by now.
    fn is_free(&self, now: Instant, side: Side, holder: NodeId) -> bool {
        let is_others =
            |&((other, of), until): &((NodeId, Side), Instant)| of == side && other != holder && until > now;
        !self.granted.0.iter().any(is_others)
    }

    /// Whether this node holds a running lease for this side of the issuer.
    pub(super) fn holds(&self, now: Instant, issuer: NodeId, side: Side) -> bool {
        self.held.runs(now, (issuer, side))
    }

    /// When the first of the leases ends that this node needs of this issuer, if it holds them all.
    fn held_until(&self, issuer: NodeId, sides: Sides) -> Option<Instant> {
        let ends: Option<Vec<Instant>> = sides.iter().map(|side| self.held.end((issuer, side))).collect();
        ends?.into_iter().min()
    }

    /// What was granted for a place where the holder stands no more is void.
    fn keep_held(&mut self, places: &[(NodeId, Side)]) {
        self.held.0.retain(|(place, _)| places.contains(place));
    }

    /// Whether this holder waits to be dropped.
    pub(super) fn is_condemned(&self, holder: NodeId) -> bool {
        self.condemned.end(holder).is_some()
    }

    /// The holder showed that it lives after all.
    pub(super) fn pardon(&mut self, holder: NodeId) {
        self.condemned.0.retain(|&(other, _)| other != holder);
    }

    /// The holder gave its lease back, or is gone for good.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.held.remove(node);
        self.granted.remove(node);
        self.condemned.0.retain(|&(other, _)| other != node);
    }

    /// Its leases are void.
    pub(super) fn forget_held(&mut self, issuer: NodeId) {
        self.held.remove(issuer);
    }

    /// The holder gives its lease back: it answers for nothing.
    pub(super) fn renounce(&mut self, holder: NodeId) {
        self.granted.remove(holder);
    }

    /// A member of the leaf set has answered a probe that was sent after this node's sleep, or is dead.
    pub(super) fn settle_waking(&mut self, id: NodeId) {
        self.waking.remove(&id);
    }

    /// Whether this node waits for an answer of this one after its sleep.
    pub(super) fn is_waking(&self, id: NodeId) -> bool {
        self.waking.contains(&id)
    }

    /// Whether this node waits for anybody's answer after its sleep.
    pub(super) fn is_any_waking(&self) -> bool {
        !self.waking.is_empty()
    }

    fn condemn(&mut self, holder: NodeId) {
        if let Some(until) = self.granted.last_end(holder) {
            self.condemned.set(holder, until);
        }
    }

    /// Forgets what has ended, and says which condemned holders are to be dropped now.
    fn expire(&mut self, now: Instant) -> Vec<NodeId> {
        self.held.0.retain(|&(_, until)| until > now);
        self.granted.0.retain(|&(_, until)| until > now);
        let mut ended: Vec<NodeId> =
            self.condemned.0.iter().filter(|&&(_, until)| until <= now).map(|&(id, _)| id).collect();
        ended.sort_unstable();
        self.condemned.0.retain(|&(_, until)| until > now);
        ended
    }

    /// The next end of a lease that changes anything.
    fn next_end(&self) -> Option<Instant> {
        earliest(self.held.first_end(), self.condemned.first_end())
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let waking = memory::tree(self.waking.len(), size_of::<NodeId>());
        memory::list(&self.held.0) + memory::list(&self.granted.0) + memory::list(&self.condemned.0) + waking
    }
}

impl Node {
    /// Whether this node answers for its range: on the ring, and both neighbours' leases run, each for the side on which
    /// this node stands. Alone in a ring none is needed; of two nodes each has two of the other.
    pub(super) fn is_serving(&self, now: Instant) -> bool {
        self.is_ready()
            && !self.is_edge()
            && self.leases.waking.is_empty()
            && self.ends().all(|neighbour| self.holds_lease(now, neighbour.id))
    }

    /// On which sides of a ring neighbour, or of one that is about to be it, this node stands, as it sees the ring.
    pub(super) fn stands_at(&self, neighbour: NodeId) -> Sides {
        self.sides_of(neighbour).opposite()
    }

    /// When the leases that this node needs of a ring neighbour end, if it holds them.
    pub(super) fn held_until(&self, neighbour: NodeId) -> Option<Instant> {
        self.leases.held_until(neighbour, self.stands_at(neighbour))
    }

    /// Whether the leases run that this node needs of a ring neighbour.
    pub(super) fn holds_lease(&self, now: Instant, neighbour: NodeId) -> bool {
        self.held_until(neighbour).is_some_and(|until| until > now)
    }

    /// Whether they need not be renewed before half of a heartbeat is over.
    pub(super) fn is_lease_fresh(&self, now: Instant, neighbour: NodeId) -> bool {
        let rest = self.config.lease.saturating_sub(self.config.heartbeat / 2);
        self.held_until(neighbour).is_some_and(|until| until > now + rest)
    }

    /// Gives up the leases of those who are next to this node no more: should they be again, they may have granted that
    /// side to another one meanwhile, by a joiner to whom this node had given up its part.
    pub(super) fn give_up_old_leases(&mut self) {
        let places = |peer: &Peer| {
            let id = peer.id;
            self.stands_at(id).iter().map(move |side| (id, side)).collect::<Vec<(NodeId, Side)>>()
        };
        let places: Vec<(NodeId, Side)> = self.ends().flat_map(places).collect();
        self.leases.keep_held(&places);
        // What rides was asked and granted for the places from before, too.
        self.carried = Carried::default();
    }

    /// The ring neighbours on both sides; a single one twice.
    pub(super) fn ends(&self) -> impl Iterator<Item = &Peer> {
        self.leaf_set.left().into_iter().chain(self.leaf_set.right())
    }

    /// The ring neighbours: none, one or two.
    pub(super) fn neighbours(&self) -> Vec<Peer> {
        let mut both: Vec<Peer> = self.ends().copied().collect();
        both.dedup();
        both
    }

    /// Asks the ring neighbours for leases, which also asks whether they live.
    pub(super) fn on_heartbeat(&mut self, now: Instant) {
        self.sent = 0;
        for neighbour in self.neighbours() {
            // A condemned neighbour is asked too: its answer pardons it.
            if self.renewal(neighbour.id).is_none_or(|due| due <= now) {
                self.probe(now, neighbour, true);
            }
        }
        self.expire_slots(now);
        self.leases.granted.0.retain(|&(_, until)| until > now);
        let leaf_set = &self.leaf_set;
        self.leases.waking.retain(|&id| leaf_set.contains(id));
        self.watch_leases();
        self.plan_heartbeat(now);
    }

    /// When the lease of this neighbour is to be renewed: a heartbeat after it was asked for last. The right neighbour is
    /// given the chance to ask first: its word renews both leases.
    fn renewal(&self, neighbour: NodeId) -> Option<Instant> {
        let is_left = self.leaf_set.left().is_some_and(|left| left.id == neighbour);
        let wait = self.config.heartbeat + if is_left { Duration::ZERO } else { COURTESY };
        Some(self.held_until(neighbour)? - self.config.lease.saturating_sub(wait))
    }

    /// Sets the time for the next renewal. Who owes one is asked again after a while.
    pub(super) fn plan_heartbeat(&mut self, now: Instant) {
        let again = now + self.config.heartbeat.min(ASK_AGAIN);
        let due = |peer: &Peer| self.renewal(peer.id).filter(|&due| due > now).unwrap_or(again);
        let next = self.ends().map(due).min();
        self.deadlines.set(Timer::Heartbeat, next.unwrap_or(now + self.config.heartbeat));
    }

    /// Whether this node is a ring neighbour, or would be one.
    pub(super) fn is_next_to(&self, id: NodeId) -> bool {
        !self.sides_of(id).is_none()
    }

    /// Grants leases to a ready node that is this node's ring neighbour, as this node sees the ring: of the sides that it
    /// asks for those on which it stands, which are granted to nobody else.
    pub(super) fn grant_lease(
        &mut self,
        now: Instant,
        holder: Peer,
        standing: Standing,
        asked: Sides,
    ) -> Sides {
        if !self.is_ready() || standing != Standing::Ready || !self.leases.waking.is_empty() {
            return Sides::None;
        }
        let (left, right) = (self.leaf_set.left(), self.leaf_set.right());
        let is = |end: Option<&Peer>| end.is_some_and(|peer| peer.id == holder.id);
        let may_have = |side: Side| {
            let stands_there = is(if side == Side::Left { left } else { right });
            let has = self.leases.granted.runs(now, (holder.id, side));
            stands_there
                && (has || self.is_next(holder.id, side) && self.leases.is_free(now, side, holder.id))
        };
        let granted: Sides = asked.iter().filter(|&side| may_have(side)).collect();
        self.leases.grant(now, holder.id, granted, self.config.lease);
        granted
    }

    /// Whether no joiner, to whom a part was given up, stands between this node and its neighbour on this side. Such a
    /// neighbour came back after the joiner's part was promised: one of the two must wait for the other.
    fn is_next(&self, neighbour: NodeId, side: Side) -> bool {
        let (me, neighbour) = (self.me.id.key(), neighbour.key());
        let (from, to) = if side == Side::Left { (neighbour, me) } else { (me, neighbour) };
        let mut joiners = self.slots.successors().map(|peer| peer.id.key()).filter(|&key| key != neighbour);
        joiners.all(|joiner| from.clockwise_to(joiner) >= from.clockwise_to(to))
    }

    /// The node slept through a lease: others took its part over, and may have forgotten it, and its neighbours may
    /// have slept beside it. So it neither answers nor grants anything before each member of its leaf set has
    /// answered it, or was found dead; whoever answers knows of it.
    pub(super) fn on_waking(&mut self, now: Instant) {
        let members: Vec<Peer> = self.leaf_set.iter().copied().collect();
        // A joiner to whom a part was given up is none of them, and may be in its place: its lease counts anew.
        let joiners: Vec<Peer> = self.slots.successors().copied().collect();
        for joiner in joiners {
            self.leases.grant(now, joiner.id, self.slots.given_up(joiner), self.config.lease);
        }
        self.leases.held.0.clear();
        self.carried = Carried::default();
        self.leases.waking = members.iter().map(|peer| peer.id).collect();
        self.ask_anew(now, members);
        self.watch_leases();
        self.plan_heartbeat(now);
    }

    /// Whether the node, on the ring, did nothing for as long as a lease runs: its heartbeats are more frequent.
    pub(super) fn slept(&self, now: Instant) -> bool {
        self.is_ready() && !self.is_edge() && now - self.last_run >= self.config.lease
    }

    /// A ring neighbour grants leases that were asked for at `asked`. They may have been granted for a place where this node
    /// stands no more.
    pub(super) fn take_lease(&mut self, now: Instant, issuer: NodeId, granted: Sides, asked: Instant) {
        let held = granted.and(self.stands_at(issuer));
        if self.ends().any(|end| end.id == issuer) && !held.is_none() {
            self.hold_lease(now, issuer, held, asked);
        }
    }

    /// The answer to a request for leases.
    pub(super) fn hold_lease(&mut self, now: Instant, issuer: NodeId, sides: Sides, asked: Instant) {
        self.leases.hold(issuer, sides, asked, self.config.lease);
        self.watch_leases();
        self.plan_heartbeat(now);
    }

    /// Drops a leaf-set member at once, or when its lease has ended.
    pub(super) fn drop_when_lease_ends(&mut self, now: Instant, id: NodeId) {
        if !self.leases.binds(now, id) {
            self.drop_member(now, id);
        } else if self.leaf_set.contains(id) {
            self.leases.condemn(id);
            self.watch_leases();
        }
        // (A joiner to whom a part was given up is no member yet: its lease and its slot end by themselves.)
    }

    pub(super) fn on_lease_timer(&mut self, now: Instant) {
        for id in self.leases.expire(now) {
            self.drop_member(now, id);
        }
        self.watch_leases();
    }

    fn watch_leases(&mut self) {
        match self.leases.next_end() {
            Some(at) => self.deadlines.set(Timer::Lease, at),
            None => self.deadlines.cancel(Timer::Lease),
        }
    }
}

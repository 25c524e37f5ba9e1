//! Leases between ring neighbours (design §5): a node answers for its range only while both neighbours' leases run.
//!
//! The holder counts from *sending* its request, the issuer from *granting*, plus 5 % for drift; the issuer neither
//! drops nor takes over before the lease ends. So whoever was paused beyond its lease finds it ended before it
//! answers anything, and nobody took its range before that.
//!
//! Two neighbours renew their leases in one exchange of three frames: one asks, the other grants and asks in return, the
//! first grants. Who asks first: each node asks its left neighbour, and its right one only if that one is late.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Node, Timer};
use crate::config::Config;
use crate::id::{Key, NodeId};
use crate::memory;
use crate::peer::Peer;
use crate::time::{Instant, earliest};
use crate::wire::Standing;

/// How long a node waits for its right neighbour, who is to ask it, before it asks itself.
const COURTESY: Duration = Duration::from_millis(300);
/// How soon a neighbour that has refused a lease, or given none, is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Leases held and granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Leases {
    /// Issuer, and until when it keeps its hands off this node's range.
    held: Terms,
    /// Holder, and until when this node keeps its hands off the holder's range.
    granted: Terms,
    /// Holders that were found dead, or restarted, while their lease runs: out of use, but not yet dropped.
    condemned: Terms,
    /// After a sleep: members of the leaf set that have not answered since.
    waking: BTreeSet<NodeId>,
}

/// Nodes and the ends of their leases; few.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Terms(Vec<(NodeId, Instant)>);

impl Terms {
    fn end(&self, id: NodeId) -> Option<Instant> {
        self.0.iter().find(|&&(other, _)| other == id).map(|&(_, until)| until)
    }

    fn set(&mut self, id: NodeId, until: Instant) {
        match self.0.iter_mut().find(|(other, _)| *other == id) {
            Some((_, end)) => *end = until,
            None => self.0.push((id, until)),
        }
    }

    fn remove(&mut self, id: NodeId) {
        self.0.retain(|&(other, _)| other != id);
    }

    fn runs(&self, now: Instant, id: NodeId) -> bool {
        self.end(id).is_some_and(|until| until > now)
    }

    fn first_end(&self) -> Option<Instant> {
        self.0.iter().map(|&(_, until)| until).min()
    }
}

impl Leases {
    /// Takes a lease that was asked for at `asked`.
    pub(super) fn hold(&mut self, issuer: NodeId, asked: Instant, length: Duration) {
        let until = (asked + length).max(self.held.end(issuer).unwrap_or_default());
        self.held.set(issuer, until);
    }

    /// Grants a lease.
    pub(super) fn grant(&mut self, now: Instant, holder: NodeId, length: Duration) {
        self.granted.set(holder, now + length.mul_f64(1.05));
    }

    /// Whether a lease of this holder still runs.
    pub(super) fn binds(&self, now: Instant, holder: NodeId) -> bool {
        self.granted.runs(now, holder)
    }

    /// Whether this node holds a running lease of this issuer.
    pub(super) fn holds(&self, now: Instant, issuer: NodeId) -> bool {
        self.held.runs(now, issuer)
    }

    /// Whether a lease of this issuer need not be renewed before half of a heartbeat is over.
    pub(super) fn is_fresh(&self, now: Instant, issuer: NodeId, config: &Config) -> bool {
        let rest = config.lease.saturating_sub(config.heartbeat / 2);
        self.held.end(issuer).is_some_and(|until| until > now + rest)
    }

    /// Whether this holder waits to be dropped.
    pub(super) fn is_condemned(&self, holder: NodeId) -> bool {
        self.condemned.end(holder).is_some()
    }

    /// The holder showed that it lives after all.
    pub(super) fn pardon(&mut self, holder: NodeId) {
        self.condemned.remove(holder);
    }

    /// The holder gave its lease back, or is gone for good.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.held.remove(node);
        self.granted.remove(node);
        self.condemned.remove(node);
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
        if let Some(until) = self.granted.end(holder) {
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
        let terms = [&self.held, &self.granted, &self.condemned];
        let waking = memory::tree(self.waking.len(), size_of::<NodeId>());
        terms.map(|terms| memory::list(&terms.0)).iter().sum::<usize>() + waking
    }
}

impl Node {
    /// Whether this node answers for its range: on the ring, and both neighbours' leases run. Alone in a ring none
    /// is needed; with two nodes one neighbour counts for both sides.
    pub(super) fn is_serving(&self, now: Instant) -> bool {
        self.is_ready()
            && !self.is_edge()
            && self.leases.waking.is_empty()
            && self.ends().all(|neighbour| self.leases.holds(now, neighbour.id))
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
        let rest = self.config.lease.saturating_sub(wait).as_nanos() as u64;
        let until = self.leases.held.end(neighbour)?;
        Some(Instant::from_nanos(until.as_nanos().saturating_sub(rest)))
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
        !self.sides_of(id).is_empty()
    }

    /// Grants a lease to a ready node that is this node's ring neighbour, as this node sees the ring.
    pub(super) fn grant_lease(&mut self, now: Instant, holder: Peer, standing: Standing) -> bool {
        let grants = self.is_ready()
            && standing == Standing::Ready
            && self.leases.waking.is_empty()
            && self.ends().any(|neighbour| neighbour.id == holder.id)
            && (self.leases.binds(now, holder.id) || self.is_next(holder.id));
        if grants {
            self.leases.grant(now, holder.id, self.config.lease);
        }
        grants
    }

    /// Whether no joiner, to whom a part was given up, stands between this node and its neighbour. Such a neighbour
    /// came back after the joiner's part was promised: one of the two must wait for the other.
    fn is_next(&self, neighbour: NodeId) -> bool {
        let me = self.me.id.key();
        let joiners = || self.slots.successors().map(|peer| peer.id).filter(|&id| id != neighbour);
        let is_left = self.leaf_set.left().is_some_and(|peer| peer.id == neighbour);
        let is_right = self.leaf_set.right().is_some_and(|peer| peer.id == neighbour);
        let between = |id: NodeId, from: Key, to: Key| from.clockwise_to(id) < from.clockwise_to(to);
        is_left && joiners().all(|id| !between(id, neighbour.key(), me))
            || is_right && joiners().all(|id| !between(id, me, neighbour.key()))
    }

    /// The node slept through a lease: others took its part over, and may have forgotten it, and its neighbours may
    /// have slept beside it. So it neither answers nor grants anything before each member of its leaf set has
    /// answered it, or was found dead; whoever answers knows of it.
    pub(super) fn on_waking(&mut self, now: Instant) {
        let members: Vec<Peer> = self.leaf_set.iter().copied().collect();
        self.leases.held.0.clear();
        self.leases.waking = members.iter().map(|peer| peer.id).collect();
        self.ask_anew(now, members);
        self.watch_leases();
        self.plan_heartbeat(now);
    }

    /// Whether the node, on the ring, did nothing for as long as a lease runs: its heartbeats are more frequent.
    pub(super) fn slept(&self, now: Instant) -> bool {
        self.is_ready() && !self.is_edge() && now - self.last_run >= self.config.lease
    }

    /// The answer to a request for a lease.
    pub(super) fn hold_lease(&mut self, now: Instant, issuer: NodeId, asked: Instant) {
        self.leases.hold(issuer, asked, self.config.lease);
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

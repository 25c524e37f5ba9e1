//! Which nodes are around this one: how they come into its tables, stay there, and leave them again.

use std::time::Duration;

use super::failure::{Answered, Detected};
use super::node::Node;
use super::repair::{Dropping, MAX_PROBES_PER_MESSAGE, between};
use crate::config::Role;
use crate::geometry::{Geometry, Greeting};
use crate::id::NodeId;
use crate::kbr::Event;
use crate::machine::Refusal;
use crate::peer::{Addresses, Peer, Seed};
use crate::sides::{Side, Sides};
use crate::time::Instant;
use crate::wire::{Ask, GeometryFrame, Header, NodeState, Probe, ProbeAck};

use super::core::Timer;
use rand::seq::IndexedRandom;

/// How many nodes each node tells that finds a routed-by node dead (guess: four took 0.12 off a stretch of 2.1 under churn for
/// 0.08 messages/s/node; what is left is better spent on probes).
const TOLD: usize = 1;

// Nodes come.
impl<G: Geometry> Node<G> {
    /// A frame of `from` arrived: it lives. The frames of an older incarnation are void: then, an error with the newer one,
    /// if it is known where that lives. `relay`: the node that passed the frame on.
    pub(super) fn hear(&mut self, now: Instant, from: Peer, relay: Option<Peer>) -> Result<(), Option<Peer>> {
        let member = self.member(from.id);
        let known = [self.slots.joiner(from.id), self.edges.peer(from.id), member];
        if let Some(newer) = self.detector.newer_life(from, known) {
            return Err(newer);
        }
        let incarnation = self.detector.incarnation(from.id).or(member.map(|peer| peer.incarnation));
        let is_later = incarnation.is_some_and(|known| from.incarnation > known);
        // That the earlier life is over was said when it was found dead.
        let mut is_told = self.detector.clear_dead(from);
        if is_later {
            // Whatever was known of the older one is void, except a lease that it holds.
            is_told |= self.on_peer_dead(now, from);
            self.detector.clear_dead(from);
            self.detector.begin(now, from);
        } else if incarnation.is_some() {
            self.detector.note_heard(now, from);
        }
        let edge = if relay.is_none() { self.edges.forget_earlier(from) } else { None };
        self.detector.tell_of_restart(&mut self.core, from, relay, edge, is_told);
        // First what is nearly always false, because every frame comes by here.
        if self.tables.is_being_removed(from.id) {
            let leaf = self.tables.leaf_set.get(from.id);
            if leaf.is_some_and(|member| member.incarnation == from.incarnation) {
                self.tables.cancel_removal(from.id);
            }
        }
        Ok(())
    }

    /// A ready node showed itself: it enters the tables where it fits. `told`: how near it says that it is.
    pub(super) fn meet(&mut self, now: Instant, peer: Peer, told: Option<Duration>) {
        let barred = self.tables.is_being_removed(peer.id) || self.detector.has_left(&peer);
        if !self.core.is_on_ring() || barred {
            return;
        }
        // (A later life than the one that was lost is another matter.)
        if self.merge.try_lost(now, &mut self.core, peer) {
            return;
        }
        self.merge.lost.forget(peer.id);
        let alone = self.tables.leaf_set.is_empty();
        let is_expected = self.slots.joiner(peer.id).is_some();
        self.slots.release_slot(peer);
        let before = self.tables.leaf_set.ring_neighbours();
        let (geometry, mut cx) = self.shaping(now);
        let in_table = geometry.on_met(&mut cx, peer, told);
        let in_leaf_set = self.tables.insert(peer);
        if in_table || in_leaf_set {
            self.detector.begin(now, peer);
        }
        if in_leaf_set {
            self.on_members_changed(now, &before);
            let is_next = self.tables.leaf_set.is_ring_neighbour(peer.id);
            if !is_expected && is_next && before.iter().all(|end| end.id != peer.id) {
                self.merge.stitch(now, &mut self.core, &before);
                self.geometry.on_rings_met(now);
            }
        }
        if alone {
            // Two rings have found each other, one of them a single node: its place is asked for (design §5). The nodes that
            // it had found dead when it lost all others may well live.
            self.detector.clear_all_dead();
            let id = self.core.number();
            self.seek_through(now, peer, id);
        }
    }

    /// A ready node has answered the question of this number (0: it announces itself).
    fn meet_answering(&mut self, now: Instant, from: Peer, number: u64) {
        let lost = if number == 0 { None } else { self.merge.lost.forget(from.id) };
        self.meet(now, from, None);
        if self.merge.take_answer(number) && !self.tables.leaf_set.contains(from.id) {
            // Its ring may be another one: which nodes stand around this node's id there?
            let id = self.core.number();
            self.seek_through(now, from, id);
        }
        let Some(lost) = lost else { return };
        tracing::debug!(node = %self.core.me.id, peer = %from.id, "back");
        self.merge.ask_lost_with(now, &mut self.core, lost);
    }

    /// Nodes that another one named: those that would fit are probed, and enter when they answer.
    pub(super) fn consider_all(&mut self, now: Instant, peers: Vec<Peer>) {
        // Where a member is missing, all that stand farther would fit: only the nearest is to be asked.
        let me = self.core.me.id;
        let mut view = self.tables.leaf_set.clone();
        for &peer in peers.iter().filter(|peer| peer.id != me && !self.is_barred(now, peer)) {
            view.insert(peer);
        }
        let mut probes = 0;
        for peer in peers {
            if peer.id == me {
                self.core.look_for_twin(now, peer);
                continue;
            }
            let leaf_set = &self.tables.leaf_set;
            if leaf_set.wants(peer.id) && self.merge.try_lost(now, &mut self.core, peer) {
                continue;
            }
            let room = probes < MAX_PROBES_PER_MESSAGE && !self.detector.is_full();
            let for_leaf_set = !leaf_set.contains(peer.id) && view.contains(peer.id);
            let fits = for_leaf_set || self.geometry.wants(peer.id);
            if room && self.core.is_ready() && fits && !self.is_barred(now, &peer) {
                probes += 1;
                self.probe(now, peer, false);
            }
        }
    }

    /// Whether a node that others name may be dead.
    fn is_barred(&self, now: Instant, peer: &Peer) -> bool {
        self.detector.has_ended(now, peer) || self.tables.is_being_removed(peer.id)
    }

    fn on_members_changed(&mut self, now: Instant, before: &[Peer]) {
        let neighbours = self.tables.leaf_set.ring_neighbours();
        if neighbours != before {
            self.leases.keep_current(&self.tables);
            for neighbour in &neighbours {
                let has = self.leases.holds_all(now, &self.tables, neighbour.id);
                if !has && !self.tables.is_being_removed(neighbour.id) {
                    self.probe(now, *neighbour, true);
                }
            }
            self.core.emit(Event::NeighboursChanged);
        }
        self.leases.plan_heartbeat(now, &mut self.core, &self.tables);
        self.merge.plan(now, &mut self.core, &self.tables);
        self.unpark(now, usize::MAX);
    }
}

// Nodes are asked, and answer.
impl<G: Geometry> Node<G> {
    /// Probes a peer, unless a probe is under way. `lease`: asks for a lease as well.
    pub(super) fn probe(&mut self, now: Instant, peer: Peer, lease: bool) {
        let (detector, core, ground) = self.detecting(peer.id);
        detector.probe(now, core, &ground, peer, lease);
    }

    /// The first frame to a neighbour from a node that has just taken its place.
    pub(super) fn introduce(&mut self, now: Instant, neighbour: Peer) {
        let (detector, core, ground) = self.detecting(neighbour.id);
        detector.introduce(now, core, &ground, neighbour);
    }

    /// Others have found this peer dead: it is asked whether that is so.
    fn confirm(&mut self, now: Instant, peer: Peer) {
        let (detector, core, ground) = self.detecting(peer.id);
        detector.confirm(now, core, &ground, peer);
    }

    /// Says that this node is on the ring, without asking for an answer.
    pub(super) fn announce(&mut self, to: Peer) {
        // No question has this number.
        let (number, node_state) = (0, self.core.node_state());
        let ack = ProbeAck { number, node_state, lease: Sides::None, asks: None, leaf_set: None };
        self.core.send(to, Header::ProbeAck(ack));
    }

    pub(super) fn on_probe(&mut self, now: Instant, from: Peer, probe: Probe) {
        // Before it is met, because a node that becomes a neighbour by this very frame need not be asked again.
        let is_next = !self.tables.leaf_set.sides_for(from.id).is_none();
        let may_ask = !probe.lease.is_none() && probe.node_state == NodeState::Ready && is_next;
        let asks = if may_ask { self.ask_in_return(now, from) } else { None };
        if probe.node_state == NodeState::Ready {
            self.meet(now, from, None);
        }
        let lease = self.grant_lease(now, from, probe.node_state, probe.lease);
        let wants_members = probe.leaf_set || lease != probe.lease;
        let asks_for_a_ring = probe.node_state == NodeState::Starting && self.core.is_edge();
        let leaf_set = (wants_members || asks_for_a_ring).then(|| self.members_to_tell()).flatten();
        let ack =
            ProbeAck { number: probe.number, node_state: self.core.node_state(), lease, asks, leaf_set };
        self.core.send(from, Header::ProbeAck(ack));
    }

    /// A neighbour that asks for a lease is asked for one in the answer, if this node's is not fresh.
    fn ask_in_return(&mut self, now: Instant, from: Peer) -> Option<Ask> {
        let is_fresh = self.leases.is_fresh(now, &self.core, &self.tables, from.id);
        if !self.core.is_ready() || is_fresh {
            return None;
        }
        let (detector, core, ground) = self.detecting(from.id);
        detector.ask_in_return(now, core, &ground, from)
    }

    pub(super) fn grant_lease(
        &mut self,
        now: Instant,
        holder: Peer,
        node_state: NodeState,
        asked: Sides,
    ) -> Sides {
        self.leases.grant_asked(now, &self.core, &self.tables, &self.slots, (holder, node_state), asked)
    }

    /// The nodes around this one, as an acknowledgement names them, if it is on the ring or attached to it.
    fn members_to_tell(&self) -> Option<Vec<Peer>> {
        self.core.is_ready().then(|| match self.core.role {
            Role::Ring => self.tables.members(),
            Role::Edge { .. } => self.access.in_use(),
        })
    }

    pub(super) fn on_probe_ack(&mut self, now: Instant, from: Peer, relay: Option<Peer>, ack: ProbeAck) {
        let (detector, _, ground) = self.detecting(from.id);
        let answered = detector.on_probe_ack(now, &ground, from.id, relay, ack.number);
        if let Some(answered) = answered {
            self.on_answered(now, from, &ack, answered);
        }
        self.on_seed_answer(now, from, &ack);
        match ack.node_state {
            NodeState::Ready if self.core.is_ready() => self.meet_answering(now, from, ack.number),
            NodeState::Ready => {}
            // A member of the tables that is not on the ring has left it. (A later life of a member on its way out was told when it
            // was heard first.)
            NodeState::Starting | NodeState::Joining | NodeState::Edge => {
                let member = self.member(from.id).filter(|member| member.incarnation == from.incarnation);
                if self.core.is_ready() && member.is_some() {
                    self.on_peer_dead(now, from);
                }
            }
        }
        if let Some(ask) = ack.asks {
            self.answer_in_return(now, from, ask, ack.node_state);
        }
        if let Some(Answered { sent, .. }) = answered {
            self.on_joiner_answer(now, from, &ack, sent);
            // Only now: a node that has just entered a table keeps the round-trip time that was measured on its way in.
            let (detector, core, ground) = self.detecting(from.id);
            detector.forget_stranger(core, &ground, from.id);
        }
        if self.core.is_on_ring() {
            self.consider_all(now, ack.leaf_set.unwrap_or_default());
        }
    }

    /// A question was answered: takes the time, and the leases.
    fn on_answered(&mut self, now: Instant, from: Peer, ack: &ProbeAck, answered: Answered) {
        self.note_round_trip(from, now - answered.sent);
        self.leases.end_waking(from.id);
        let granted = ack.lease.and(answered.sides);
        self.leases.take(now, &mut self.core, &self.tables, from.id, granted, answered.sent);
        let wants_lease = self.detector.wants_lease_still(&self.tables, from.id, answered);
        self.detector.end_probe(&mut self.core, from.id);
        if wants_lease {
            self.probe(now, from, true);
        }
        if granted != answered.sides {
            // Another node may stand between it and this one.
            let named = ack.leaf_set.as_deref().unwrap_or_default();
            let has_left = |peer: &Peer| self.detector.has_left(peer);
            for peer in between(&self.core, &self.tables, from.id, named, has_left) {
                self.probe(now, peer, false);
            }
        }
    }

    /// The other half of an exchange: the answerer asked as well.
    fn answer_in_return(&mut self, now: Instant, from: Peer, ask: Ask, node_state: NodeState) {
        let lease = self.grant_lease(now, from, node_state, ask.lease);
        let leaf_set = if lease == ask.lease { None } else { self.members_to_tell() };
        let ack =
            ProbeAck { number: ask.number, node_state: self.core.node_state(), lease, asks: None, leaf_set };
        self.core.send(from, Header::ProbeAck(ack));
    }

    /// Takes a round-trip sample of a peer that is watched; the tables order their entries by it.
    pub(super) fn note_round_trip(&mut self, peer: Peer, sample: Duration) {
        if let Some(rtt) = self.detector.measure(peer.id, sample) {
            self.geometry.on_measured(peer, rtt, self.tables.leaf_set.contains(peer.id));
        }
    }
}

// Nodes are silent, and go.
impl<G: Geometry> Node<G> {
    pub(super) fn on_probe_timeout(&mut self, now: Instant, id: NodeId) {
        let (detector, core, ground) = self.detecting(id);
        match detector.on_probe_timeout(now, core, &ground, id) {
            None => {}
            Some(Detected::Alive { peer, question }) if question.leaf_set => self.introduce(now, peer),
            Some(Detected::Alive { peer, question }) if question.lease || self.leases.is_waking(id) => {
                self.probe(now, peer, question.lease);
            }
            Some(Detected::Alive { .. }) => {}
            Some(Detected::Suspect(suspect)) => {
                for side in Side::BOTH {
                    if let Some(next) = self.detector.beyond(&self.tables, suspect, side) {
                        self.probe(now, next, false);
                    }
                }
            }
            Some(Detected::Dead { peer, is_own }) => {
                let routed_by = self.geometry.get(peer.id).copied();
                self.on_peer_dead(now, peer);
                // A node that has believed it after one silence tells no node: gossip does not live on what others believed.
                if let Some(dead) = routed_by.filter(|_| is_own && self.core.is_ready()) {
                    for near in self.geometry.gossip_partners(&self.detector, TOLD) {
                        self.core.send(near, Header::PeerDeadHint(dead));
                    }
                }
            }
        }
    }

    /// A node near this one has found another one dead (failure gossip, the epidemic of Demers et al. 1987 with each step
    /// checked: MSPastry §3.1 believes no hint). So few probes find a death, and few messages meet the dead on their way.
    pub(super) fn on_death_hint(&mut self, now: Instant, dead: Peer) {
        let (detector, _, ground) = self.detecting(dead.id);
        if let Some(member) = detector.on_death_hint(now, &ground, dead) {
            self.confirm(now, member);
        }
    }

    /// This life of a node is over, or the earlier one that is known: its place is closed, its messages go other ways. Returns
    /// whether the layer above was told: not of an earlier life that was only named, or was told of before.
    pub(super) fn on_peer_dead(&mut self, now: Instant, peer: Peer) -> bool {
        let id = peer.id;
        let member = self.member(id);
        let known = self.detector.incarnation(id).or(member.map(|member| member.incarnation));
        let known = known.unwrap_or(peer.incarnation);
        let was_met = self.detector.has_heard(id) || member.is_some() && !self.tables.is_being_removed(id);
        let is_news = known >= peer.incarnation || was_met;
        self.detector.on_dead(now, &mut self.core, id, member);
        self.leases.end_waking(id);
        self.leases.forget_piggyback(id);
        self.repair.budget.forget(id);
        self.geometry.on_dead(id);
        self.drop_when_lease_ends(now, id);
        self.on_dead_while_joining(now, id);
        self.reroute(now, id);
        if is_news {
            self.core.emit(Event::PeerDown { id, incarnation: known });
        }
        is_news
    }

    /// Drops a leaf-set member at once, or when its lease has ended.
    fn drop_when_lease_ends(&mut self, now: Instant, id: NodeId) {
        if !self.leases.binds(now, id) {
            self.drop_member(now, id);
        } else if self.tables.leaf_set.contains(id) {
            if let Some(until) = self.leases.granted_until(id) {
                self.tables.begin_removal(id, until);
            }
            self.leases.plan_expiry(&mut self.core, &self.tables);
        }
        // (A joiner to which a part was ceded is no member yet: its lease and its slot end by themselves.)
    }

    /// A leaf-set member is no more.
    pub(super) fn drop_member(&mut self, now: Instant, id: NodeId) {
        let dropping = Dropping::of(&self.core, &self.tables, id);
        self.leases.forget(id);
        self.tables.cancel_removal(id);
        let Some(dropped) = self.tables.remove(id) else { return };
        if !self.detector.has_left(&dropped) {
            self.merge.lost.note(now, dropped);
        }
        self.on_members_changed(now, dropping.neighbours());
        if !self.core.is_ready() {
            return;
        }
        for next in self.repair.close_gap(now, &mut self.core, &self.tables, id, &dropping) {
            self.probe(now, next, false);
        }
    }

    /// The sender answers for nothing any more: its leases are given back with this frame.
    pub(super) fn on_leave(&mut self, now: Instant, from: Peer, members: Vec<Peer>) {
        let mut behinds: Vec<Peer> = Vec::new();
        for side in self.slots.ceded(from).iter() {
            // The node behind it may have ceded more to others meanwhile.
            let behind = self.tables.leaf_set.neighbour(side);
            self.leases.forget_held(behind);
            self.detector.take_questions_back(&mut self.core, behind);
            self.leases.forget_piggyback(behind);
            behinds.extend(self.tables.leaf_set.get(behind).copied());
        }
        self.slots.release_slot(from);
        self.leases.release(from.id);
        for behind in behinds {
            self.probe(now, behind, true);
        }
        self.detector.mark_left(now, from);
        if self.core.is_edge() {
            return self.lose_access(now, from.id);
        }
        self.on_peer_dead(now, from);
        self.consider_all(now, members);
    }

    pub(super) fn on_link_down(&mut self, now: Instant, id: NodeId) {
        self.hops.on_link_down(id);
        self.on_access_unreachable(now, id);
        if let Some(peer) = self.member(id) {
            self.probe(now, peer, false);
        }
    }

    /// Dialling failed: for a peer that is being probed that is an unanswered probe.
    pub(super) fn on_refused(&mut self, now: Instant, seed: Seed, reason: Refusal) {
        if let Some(id) = seed.id {
            self.on_access_unreachable(now, id);
            self.detector.on_refused(now, &mut self.core, id);
            self.hops.on_refused(now, &mut self.core, id);
        }
        self.join.on_refused(now, &mut self.core, seed, reason);
    }
}

// Rounds.
impl<G: Geometry> Node<G> {
    /// Asks the ring neighbours for leases, which also asks whether they live.
    pub(super) fn on_heartbeat(&mut self, now: Instant) {
        self.core.out.restart_count();
        for neighbour in self.leases.due(now, &self.core, &self.tables) {
            self.probe(now, neighbour, true);
        }
        self.slots.expire(now, &self.leases);
        self.leases.end_heartbeat(now, &mut self.core, &self.tables);
    }

    pub(super) fn on_lease_timer(&mut self, now: Instant) {
        self.leases.expire(now);
        for id in self.tables.take_removed(now) {
            self.drop_member(now, id);
        }
        self.leases.plan_expiry(&mut self.core, &self.tables);
    }

    /// The node slept: its leaf set is asked anew.
    pub(super) fn on_waking(&mut self, now: Instant) {
        self.leases.begin_waking(now, &self.core, &self.tables, &self.slots);
        self.detector.take_all_questions_back(&mut self.core);
        for peer in self.tables.members() {
            let is_neighbour = self.tables.leaf_set.is_ring_neighbour(peer.id);
            self.probe(now, peer, is_neighbour);
        }
        self.leases.plan_expiry(&mut self.core, &self.tables);
        self.leases.plan_heartbeat(now, &mut self.core, &self.tables);
    }

    /// Probes every watched node that was not heard for its period. Gives back what bursts have taken, and forgets what was seen long
    /// ago.
    pub(super) fn on_sweep(&mut self, now: Instant) {
        let (table_use, in_use) = (self.geometry.table_use(), self.geometry.in_use());
        let sweep = self.detector.begin_sweep(now, &mut self.core, &self.tables, table_use, in_use);
        for &(peer, patience) in &sweep.watched {
            if self.detector.is_silent(now, peer.id, patience) {
                self.probe(now, peer, false);
            }
        }
        self.detector.end_sweep(now, &sweep);
        self.core.out.tidy();
        self.hops.tidy();
        self.repair.budget.tidy();
        self.broadcasts.tidy();
        self.lookups.tidy();
        self.edges.tidy();
        self.geometry.tidy();
    }

    /// One round of repair: leaf sets are compared with a random member, or with the node that the geometry names.
    pub(super) fn on_repair_timer(&mut self, now: Instant) {
        let (geometry, mut cx) = self.shaping(now);
        geometry.on_repair_round(&mut cx);
        self.plan_repair(now);
        let members = self.tables.in_use();
        let (geometry, mut cx) = self.shaping(now);
        let partner = geometry.repair_partner(&mut cx);
        if let Some(peer) = partner.or_else(|| members.choose(&mut self.core.rng).copied()) {
            self.repair.budget.tell(now, &mut self.core, &self.tables, peer, true);
        }
    }

    pub(super) fn plan_repair(&mut self, now: Instant) {
        let period = self.geometry.repair_period(&self.core.config, &self.tables.leaf_set);
        let wait = self.core.jittered(period);
        self.core.timers.set(Timer::Repair, now + wait);
    }

    pub(super) fn on_leaf_set(&mut self, now: Instant, from: Peer, members: Vec<Peer>, reply: bool) {
        if !self.core.is_on_ring() {
            return;
        }
        if reply {
            self.repair.budget.answer(now, &mut self.core, &self.tables, from);
        }
        let (geometry, mut cx) = self.shaping(now);
        geometry.on_leaf_set(&mut cx, from, &members);
        let (detector, tables) = (&self.detector, &self.tables);
        let is_barred = |peer: &Peer| detector.has_ended(now, peer) || tables.is_being_removed(peer.id);
        for missing in self.repair.missing_in(&self.core, &self.tables, from, &members, is_barred) {
            self.confirm(now, missing);
        }
        self.consider_all(now, members);
    }

    /// Leaf sets are exchanged where a stranger has come next to this node.
    pub(super) fn on_stitch_timer(&mut self, now: Instant) {
        for peer in self.merge.take_stitched(&self.tables) {
            self.repair.budget.tell(now, &mut self.core, &self.tables, peer, true);
        }
    }

    /// Alone in its ring, a node asks all its seeds, and those that once stood around it; others ask one of them.
    pub(super) fn on_ask_again(&mut self, now: Instant) {
        self.merge.plan(now, &mut self.core, &self.tables);
        let leaf_set = &self.tables.leaf_set;
        let is_alone = leaf_set.is_empty();
        let is_known =
            |seed: &Seed| leaf_set.iter().chain(self.geometry.known()).any(|peer| peer.addr == seed.addr);
        let seeds = self.join.other_seeds(&self.core.me).filter(|seed| is_alone || !is_known(seed));
        let seeds: Vec<Seed> = seeds.collect();
        if !is_alone {
            return self.merge.ask_one(now, &mut self.core, seeds);
        }
        for seed in seeds {
            self.core.ask_seed(seed);
        }
        for lost in self.merge.lost.take_turns() {
            if super::join::is_another(&self.core.me, &lost) {
                self.core.ask_seed(lost);
            }
        }
    }

    pub(super) fn on_geometry_timer(&mut self, now: Instant) {
        if !self.core.is_on_ring() {
            return;
        }
        let (geometry, mut cx) = self.shaping(now);
        for peer in geometry.to_measure(&mut cx) {
            self.probe(now, peer, false);
        }
        let (geometry, mut cx) = self.shaping(now);
        geometry.on_timer(&mut cx);
    }

    /// A frame of the geometry: what it says of its sender comes first.
    pub(super) fn on_geometry_frame(&mut self, now: Instant, from: Peer, frame: &GeometryFrame) {
        if !self.core.is_on_ring() {
            return;
        }
        let Some(frame) = G::read(frame, Addresses::named_to(self.core.me.addr)) else {
            tracing::debug!(node = %self.core.me.id, from = %from.id, "sends what is no frame of this geometry");
            return;
        };
        let Greeting { round_trip, told } = self.geometry.greeting(now, from, &frame);
        if let Some(sample) = round_trip {
            self.note_round_trip(from, sample);
        }
        self.meet(now, from, told);
        let (geometry, mut cx) = self.shaping(now);
        for peer in geometry.on_frame(&mut cx, from, frame) {
            self.probe(now, peer, false);
        }
    }
}

//! Tables kept whole: periodic, jittered, budgeted exchange, with one early round on news (Rhea et al. 2004, §3:
//! purely reactive repair collapses on congested links).

use std::collections::BTreeSet;
use std::time::Duration;

use rand::seq::IndexedRandom;

use super::{Node, Timer};
use crate::id::NodeId;
use crate::kbr::Event;
use crate::peer::Peer;
use crate::sides::Side;
use crate::table::LeafSet;
use crate::time::Instant;

/// Most nodes that one message of another may make this node probe. What is left out comes with a later round.
const MAX_PROBES_PER_MESSAGE: usize = 48;
/// Most nodes remembered that come next where members are missing.
const MAX_SPARE: usize = 4;
/// Most nodes asked at once that a neighbour names in place of a lease; the nearest first, and it names them again.
const MAX_BETWEEN: usize = 4;

impl Node {
    /// A ready node showed itself: it enters the tables where it fits.
    pub(super) fn meet(&mut self, now: Instant, peer: Peer) {
        self.meet_at(now, peer, None);
    }

    /// [`meet`](Node::meet); `told`: how near the peer says that it is.
    pub(super) fn meet_at(&mut self, now: Instant, peer: Peer, told: Option<Duration>) {
        let barred = self.leases.is_condemned(peer.id) || self.liveness.has_left(&peer);
        if !self.is_ready() || self.is_edge() || barred {
            return;
        }
        // (A later life than the one that was lost is another matter.)
        if self.try_lost(now, peer) {
            return;
        }
        self.former.forget(peer.id);
        let alone = self.leaf_set.is_empty();
        let is_expected = self.slots.joiner(peer.id).is_some();
        self.slots.release(peer);
        let before = self.neighbours();
        let in_table = self.place(peer, told);
        let in_leaf_set = self.leaf_set.insert(peer);
        self.note_member(now, peer);
        if in_table || in_leaf_set {
            self.liveness.begin(now, peer);
        }
        if in_leaf_set {
            self.on_members_changed(now, &before);
            let is_next = |peer: &Peer| self.ends().any(|end| end.id == peer.id);
            if !is_expected && is_next(&peer) && before.iter().all(|end| end.id != peer.id) {
                self.zip(now, &before);
            }
        }
        if alone {
            // Two rings have found each other, one of them a single node: its place is asked for (design §5). Whom it
            // had found dead when it lost everybody may well live.
            self.liveness.exhume_all();
            let id = self.number();
            self.seek_through(now, peer, id);
        }
    }

    /// A leaf-set member is no more. The gap is closed with what its neighbours know.
    pub(super) fn drop_member(&mut self, now: Instant, id: NodeId) {
        let before = self.neighbours();
        let was_full = self.leaf_set.len() >= self.config.leaf_set;
        let is_right = self.leaf_set.rights().any(|peer| peer.id == id);
        let side = if is_right { Side::Right } else { Side::Left };
        let end = |side| self.leaf_set.side(side).filter(|end| end.id != id).last().copied();
        let (far_end, other_end) = (end(side), end(side.opposite()));
        self.leases.forget(id);
        let Some(dropped) = self.leaf_set.remove(id) else { return };
        if !self.liveness.has_left(&dropped) {
            self.former.note(now, dropped);
        }
        self.on_members_changed(now, &before);
        if !self.is_ready() {
            return;
        }
        if before.iter().any(|neighbour| neighbour.id == id) {
            // One early round on news, by those who watch each other: the members hear what this node's leaf set is
            // now, and check for themselves whom they miss in it (MSPastry §4.1). Those beyond the dead one hear of it
            // from its other neighbour; but its far end knows who comes next.
            let told: BTreeSet<Peer> = self.leaf_set.side(side.opposite()).copied().chain(far_end).collect();
            for peer in told {
                self.tell_members(now, peer, [far_end, other_end].contains(&Some(peer)));
            }
        } else if was_full {
            // Its neighbours tell the others, and have said who comes next. If not, the farthest on its side knows
            // (Pastry §2.5).
            let spare = std::mem::take(&mut self.spare);
            let next: Vec<Peer> = spare.into_iter().filter(|peer| self.leaf_set.wants(peer.id)).collect();
            if next.is_empty()
                && let Some(end) = far_end
            {
                self.tell_members(now, end, true);
            }
            for peer in next {
                self.probe(now, peer, false);
            }
        }
    }

    pub(super) fn members_in_use(&self) -> Vec<Peer> {
        self.leaf_set.iter().filter(|peer| !self.leases.is_condemned(peer.id)).copied().collect()
    }

    fn on_members_changed(&mut self, now: Instant, before: &[Peer]) {
        let neighbours = self.neighbours();
        if neighbours != before {
            self.give_up_old_leases();
            for neighbour in &neighbours {
                if !self.holds_lease(now, neighbour.id) && !self.leases.is_condemned(neighbour.id) {
                    self.probe(now, *neighbour, true);
                }
            }
            self.events.push_back(Event::NeighboursChanged);
        }
        self.plan_heartbeat(now);
        self.plan_asking(now);
        self.unpark(now);
    }

    /// Nodes that another one named: those that would fit are probed, and enter when they answer.
    pub(super) fn consider_all(&mut self, now: Instant, peers: Vec<Peer>) {
        // Where a member is missing, all who stand farther would fit: only the nearest is to be asked.
        let mut view = self.leaf_set.clone();
        for &peer in peers.iter().filter(|peer| peer.id != self.me.id && !self.is_barred(now, peer)) {
            view.insert(peer);
        }
        let mut probes = 0;
        for peer in peers {
            if peer.id == self.me.id {
                self.look_for_twin(now, peer);
                continue;
            }
            if self.leaf_set.wants(peer.id) && self.try_lost(now, peer) {
                continue;
            }
            let room = probes < MAX_PROBES_PER_MESSAGE && !self.liveness.is_full();
            if room && self.is_ready() && self.would_fit(now, &peer, &view) {
                probes += 1;
                self.probe(now, peer, false);
            }
        }
    }

    /// A ring neighbour refuses a lease: somebody may stand between it and this node, whom this node has found dead
    /// while it could reach nobody. A rumour of one's life is not believed for a while; that a neighbour counts on
    /// him is more than a rumour, so he is asked.
    pub(super) fn look_between(&mut self, now: Instant, refuser: NodeId, members: &[Peer]) {
        let me = self.me.id.key();
        let to_right = |id: NodeId| me.clockwise_to(id);
        let to_left = |id: NodeId| id.key().clockwise_to(me);
        let is = |side: Option<&Peer>| side.is_some_and(|peer| peer.id == refuser);
        let (left, right) = (is(self.leaf_set.left()), is(self.leaf_set.right()));
        let between = |peer: &&Peer| {
            peer.id != self.me.id
                && !self.liveness.has_left(peer)
                && (right && to_right(peer.id) < to_right(refuser)
                    || left && to_left(peer.id) < to_left(refuser))
        };
        let mut between: Vec<Peer> = members.iter().filter(between).copied().collect();
        between.sort_by_key(|peer| to_right(peer.id).min(to_left(peer.id)));
        between.truncate(MAX_BETWEEN);
        for peer in between {
            self.probe(now, peer, false);
        }
    }

    /// `view`: the leaf set with all in it who were named.
    fn would_fit(&self, now: Instant, peer: &Peer, view: &LeafSet) -> bool {
        let for_leaf_set = !self.leaf_set.contains(peer.id) && view.contains(peer.id);
        let for_table = self.is_worth_a_place(peer.id) && self.table.next_hops(peer.id.key()).is_empty();
        (for_leaf_set || for_table) && !self.is_barred(now, peer)
    }

    fn is_barred(&self, now: Instant, peer: &Peer) -> bool {
        self.liveness.is_buried(now, peer) || self.leases.is_condemned(peer.id)
    }

    pub(super) fn on_leaf_set(&mut self, now: Instant, from: Peer, members: Vec<Peer>, reply: bool) {
        if !self.is_ready() || self.is_edge() {
            return;
        }
        if reply {
            self.answer_with_members(now, from);
        }
        self.take_arc(now, from, &members);
        self.check_missing(now, from, &members);
        self.consider_all(now, members);
    }

    /// Members of ours that the sender, to whom they are near as well, does not have: perhaps it found them dead.
    fn check_missing(&mut self, now: Instant, from: Peer, members: &[Peer]) {
        if !self.leaf_set.contains(from.id) {
            return;
        }
        let mut theirs = LeafSet::new(from.id, self.config.leaf_set);
        for &member in members {
            theirs.insert(member);
        }
        // Near itself it knows all; how far is not told by its list's ends, which move where one is missing in between.
        // (One that knows few knows all.)
        let (start, knows_all) = (from.id.key(), 2 * theirs.len() <= self.config.leaf_set);
        let surely = theirs.len() / 4;
        let to_right = theirs.rights().nth(surely).map_or(0, |end| start.clockwise_to(end.id));
        let to_left = theirs.lefts().nth(surely).map_or(0, |end| end.id.key().clockwise_to(start));
        let is_near = |id: NodeId| {
            knows_all || start.clockwise_to(id) <= to_right || id.key().clockwise_to(start) <= to_left
        };
        let missing: Vec<Peer> = self
            .leaf_set
            .iter()
            .filter(|peer| peer.id != from.id && !theirs.contains(peer.id))
            .filter(|peer| theirs.wants(peer.id) && is_near(peer.id))
            .copied()
            .collect();
        self.spare = self.next_without(now, &missing, members);
        for peer in missing.into_iter().take(MAX_PROBES_PER_MESSAGE) {
            self.look_again(now, peer);
        }
    }

    /// Who of the named would be a member if the missing ones were not.
    fn next_without(&self, now: Instant, missing: &[Peer], named: &[Peer]) -> Vec<Peer> {
        if missing.is_empty() {
            return Vec::new();
        }
        let mut view = self.leaf_set.clone();
        for peer in missing {
            view.remove(peer.id);
        }
        let strange = |peer: &&Peer| !self.leaf_set.contains(peer.id) && !self.is_barred(now, peer);
        for &peer in named.iter().filter(strange) {
            view.insert(peer);
        }
        view.iter().filter(strange).take(MAX_SPARE).copied().collect()
    }

    /// One round: leaf sets are compared with a random member, or with the next node on the walk around a small ring.
    pub(super) fn on_repair_timer(&mut self, now: Instant) {
        self.begin_members_below(now, self.config.full_membership / 2);
        let period = self.repair_period();
        let wait = self.jittered(period);
        self.deadlines.set(Timer::Repair, now + wait);
        let members = self.members_in_use();
        let partner = self.next_on_walk().or_else(|| members.choose(&mut self.rng).copied());
        if let Some(peer) = partner {
            self.tell_members(now, peer, true);
        }
    }

    /// The sender answers for nothing any more: its leases are given back with this word.
    pub(super) fn on_leave(&mut self, now: Instant, from: Peer, members: Vec<Peer>) {
        let mut behinds: Vec<Peer> = Vec::new();
        for side in self.slots.given_up(from).iter() {
            // Whoever stands behind it may have given up more to others meanwhile.
            let behind = self.beside(side);
            self.leases.forget_held(behind);
            self.take_questions_back(behind);
            behinds.extend(self.leaf_set.get(behind).copied());
        }
        self.slots.release(from);
        self.leases.renounce(from.id);
        for behind in behinds {
            self.probe(now, behind, true);
        }
        self.liveness.note_left(now, from);
        if self.is_edge() {
            return self.lose_access(now, from.id);
        }
        self.lose(now, from.id);
        self.consider_all(now, members);
    }
}

//! Steps 3 and 4 of the join: the joiner takes the slots of both neighbours, hears each member of its leaf set, has both
//! neighbours give up its part, and takes its place.
//!
//! What a neighbour says of those around it counts once its slot keeps others out: it says so with the slot. All other
//! members are probed, once each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use rand::RngExt;

use super::join::{Phase, STEP_PATIENCE};
use super::{Node, Timer};
use crate::id::NodeId;
use crate::peer::Peer;
use crate::sides::{Side, Sides};
use crate::table::LeafSet;
use crate::time::Instant;
use crate::wire::{Admission, Header, ProbeAck, Standing};

/// Unanswered commits; who answers a joiner with floods of other words makes it ask no more often than that.
const MAX_COMMITS: usize = 16;
/// How long a joiner that has let both parts go leaves its neighbours alone.
const STEP_BACK: Range<Duration> = Duration::from_millis(300)..Duration::from_millis(1000);

/// The state of entering.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Entering {
    /// The leaf set as it will be.
    view: LeafSet,
    /// Members of the view that have answered.
    answered: BTreeSet<NodeId>,
    /// Neighbours whose slot this node has, and since when. The right one's is held only together with the left
    /// one's: who has that is alone in the gap, so nobody waits in a circle.
    admitted: BTreeMap<NodeId, Slot>,
    /// Neighbours that have given up this node's part, when they were asked, and on which of their sides it is.
    committed: BTreeMap<NodeId, (Instant, Sides)>,
    /// Number of a commit → whom it asks, and when it was sent.
    commits: BTreeMap<u64, (NodeId, Instant)>,
    attempts: u8,
    through: Peer,
}

/// A slot that this node has at a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot {
    /// Others are kept out since then.
    since: Instant,
    renewed: Instant,
}

impl Entering {
    /// Nothing is done yet.
    pub(super) fn new(view: LeafSet, through: Peer) -> Entering {
        Entering {
            view,
            answered: BTreeSet::new(),
            admitted: BTreeMap::new(),
            committed: BTreeMap::new(),
            commits: BTreeMap::new(),
            attempts: 0,
            through,
        }
    }

    /// The leaf set as it will be.
    pub(super) fn view(&self) -> &LeafSet {
        &self.view
    }

    /// Who led to the ring.
    pub(super) fn through(&self) -> Peer {
        self.through
    }

    /// Steps repeated without an answer.
    pub(super) fn attempts(&self) -> u8 {
        self.attempts
    }

    fn neighbours(&self) -> Vec<Peer> {
        let mut both: Vec<Peer> = self.view.left().into_iter().chain(self.view.right()).copied().collect();
        both.dedup();
        both
    }

    /// The other neighbour; the same, if there is only one.
    fn beside(&self, neighbour: NodeId) -> NodeId {
        self.neighbours().iter().map(|peer| peer.id).find(|&id| id != neighbour).unwrap_or(neighbour)
    }

    /// This node has no slot of this one (any more), and no word about one counts.
    fn give_back(&mut self, id: NodeId) {
        self.admitted.remove(&id);
        self.committed.remove(&id);
        self.commits.retain(|_, &mut (asked, _)| asked != id);
    }

    /// Whether a neighbour may have given up this node's part by now.
    pub(super) fn has_asked_to_commit(&self) -> bool {
        !self.commits.is_empty() || !self.committed.is_empty()
    }

    fn has_heard_all(&self) -> bool {
        self.view.iter().all(|peer| self.answered.contains(&peer.id))
    }

    /// Members that have not answered. A neighbour answers with its slot.
    fn to_probe(&self) -> Vec<Peer> {
        let ends = [self.view.left(), self.view.right()].map(|peer| peer.map(|peer| peer.id));
        let speaks_with_slot = |id: NodeId| ends.contains(&Some(id)) && !self.admitted.contains_key(&id);
        let silent = |peer: &&Peer| !self.answered.contains(&peer.id) && !speaks_with_slot(peer.id);
        self.view.iter().filter(silent).copied().collect()
    }
}

impl Node {
    /// Members for the view: those that are near enough, and not known to be dead.
    pub(super) fn learn(&mut self, now: Instant, members: Vec<Peer>) {
        let me = self.me.id;
        for peer in members {
            let dead = self.liveness.is_buried(now, &peer) || self.liveness.is_full();
            let Phase::Entering(entering) = &mut self.phase else { return };
            if peer.id != me && !dead {
                entering.view.insert(peer);
            }
        }
    }

    /// Step 3: whatever is to be done next, and once more what was not answered.
    pub(super) fn enter_on(&mut self, now: Instant) {
        let Phase::Entering(entering) = &mut self.phase else { return };
        entering.attempts += 1;
        if entering.view.is_empty() {
            // Everybody who was named is dead.
            return self.start_over(now);
        }
        if entering.attempts > 1 {
            // No answer: is the neighbour still there? If not, its verdict takes it out of the view.
            for neighbour in entering.neighbours() {
                self.probe(now, neighbour, false);
            }
        }
        self.enter_step(now);
        let patience = self.jittered(STEP_PATIENCE);
        self.deadlines.set(Timer::Join, now + patience);
    }

    fn enter_step(&mut self, now: Instant) {
        let Phase::Entering(entering) = &self.phase else { return };
        let neighbours = entering.neighbours();
        // A slot ends by itself: it is asked for again when half of its time is over.
        let half = self.config.join_slot / 2;
        let has = |peer: &Peer| entering.admitted.get(&peer.id).is_some_and(|slot| now - slot.renewed < half);
        // Left slot first, always.
        let next = neighbours.iter().find(|peer| !has(peer)).copied();
        // Who waits for a slot finds out meanwhile who lives: who has it keeps others waiting.
        let has_heard_all = entering.has_heard_all();
        for peer in entering.to_probe() {
            self.probe(now, peer, false);
        }
        if let Some(next) = next {
            return self.transmit(next, Header::Admit);
        }
        if !has_heard_all {
            return;
        }
        // A part that was given up long ago comes with a lease that is over, or nearly.
        let lease = self.config.lease;
        if let Phase::Entering(entering) = &mut self.phase {
            entering.committed.retain(|_, (asked, _)| now - *asked < lease / 2);
            entering.commits.retain(|_, (_, asked)| now - *asked < lease / 2);
        }
        if self.has_both_parts() {
            return self.take_place(now);
        }
        for neighbour in neighbours {
            let Phase::Entering(entering) = &self.phase else { return };
            if !entering.committed.contains_key(&neighbour.id) && entering.commits.len() < MAX_COMMITS {
                let beside = entering.beside(neighbour.id);
                let number = self.number();
                let Phase::Entering(entering) = &mut self.phase else { return };
                entering.commits.insert(number, (neighbour.id, now));
                self.transmit(neighbour, Header::Commit { number, beside });
            }
        }
    }

    pub(super) fn on_admission(&mut self, now: Instant, from: Peer, admission: Admission) {
        let Phase::Entering(entering) = &mut self.phase else { return };
        match admission {
            Admission::Granted { members } => {
                let is_neighbour = entering.neighbours().iter().any(|peer| peer.id == from.id);
                let first = !entering.admitted.contains_key(&from.id);
                entering.admitted.entry(from.id).or_insert(Slot { since: now, renewed: now }).renewed = now;
                if first {
                    entering.attempts = 0;
                }
                if entering.view.contains(from.id) {
                    entering.view.insert(from);
                    entering.answered.insert(from.id);
                }
                self.learn(now, members);
                if first || is_neighbour {
                    self.leave_wrong_slots();
                    self.enter_step(now);
                }
            }
            Admission::Busy => {
                // Busy is an answer: the queue moves, and the start timeout bounds the wait.
                entering.attempts = 0;
                if entering.has_asked_to_commit() {
                    // The other neighbour may have given up its part, and this one cannot: without it, it gets no lease of
                    // the other any more. Both are let go, until what was given up has come back.
                    return self.step_back(now);
                }
                entering.give_back(from.id);
                self.leave_wrong_slots();
                let wait = self.rng.random_range(50..300);
                self.deadlines.set(Timer::Join, now + Duration::from_millis(wait));
            }
            Admission::NotNeighbour { members } => {
                let before = entering.neighbours();
                entering.give_back(from.id);
                // A verdict of this node's own may have been wrong, or about to become right there too: the nearer ones
                // are asked for themselves.
                members.iter().for_each(|peer| self.liveness.exhume(*peer));
                self.learn(now, members);
                self.leave_wrong_slots();
                let Phase::Entering(entering) = &self.phase else { return };
                if entering.neighbours() != before {
                    return self.enter_step(now);
                }
                let wait = self.rng.random_range(50..300);
                self.deadlines.set(Timer::Join, now + Duration::from_millis(wait));
            }
            Admission::NotReady => {
                entering.view.remove(from.id);
                entering.give_back(from.id);
                self.leave_wrong_slots();
            }
        }
    }

    /// Gives all slots back, and with them what was given up: the neighbours renew their leases meanwhile.
    fn step_back(&mut self, now: Instant) {
        self.withdraw();
        let Phase::Entering(entering) = &mut self.phase else { return };
        (entering.admitted, entering.committed, entering.commits) = Default::default();
        let wait = self.rng.random_range(STEP_BACK);
        self.deadlines.set(Timer::Join, now + wait);
    }

    /// A member of the view has answered what it was asked at `asked`: it lives, and may know nearer ones.
    pub(super) fn on_entering_ack(&mut self, now: Instant, from: Peer, ack: &ProbeAck, asked: Instant) {
        let Phase::Entering(entering) = &mut self.phase else { return };
        // A neighbour's word on who stands around it counts once its slot keeps others out.
        let slot = entering.admitted.get(&from.id);
        let current = ack.leaf_set.is_some() && slot.is_none_or(|slot| asked >= slot.since);
        if ack.standing != Standing::Ready {
            entering.view.remove(from.id);
        } else if entering.view.contains(from.id) && current {
            entering.view.insert(from);
            entering.answered.insert(from.id);
        }
        self.learn(now, ack.leaf_set.clone().unwrap_or_default());
        self.leave_wrong_slots();
        let Phase::Entering(entering) = &self.phase else { return };
        let has_heard_all = entering.has_heard_all();
        for peer in entering.to_probe() {
            self.probe(now, peer, false);
        }
        if has_heard_all {
            self.enter_step(now);
        }
    }

    /// A member of the view was found dead.
    pub(super) fn on_lost_while_entering(&mut self, now: Instant, id: NodeId) {
        let Phase::Entering(entering) = &mut self.phase else { return };
        entering.view.remove(id);
        entering.answered.remove(&id);
        self.leave_wrong_slots();
        self.deadlines.set_earlier(Timer::Join, now);
    }

    /// Gives back slots of nodes that turned out not to be neighbours, and the right one's without the left one's.
    fn leave_wrong_slots(&mut self) {
        let Phase::Entering(entering) = &mut self.phase else { return };
        let mut neighbours = entering.neighbours();
        if neighbours.first().is_some_and(|left| !entering.admitted.contains_key(&left.id)) {
            neighbours.clear();
        }
        let is_right = |id: NodeId| neighbours.iter().any(|peer| peer.id == id);
        let wrong: Vec<NodeId> = entering.admitted.keys().copied().filter(|&id| !is_right(id)).collect();
        let mut told = Vec::new();
        for id in wrong {
            entering.give_back(id);
            told.extend(entering.view.get(id).copied());
        }
        self.withdraw_from(told);
    }

    /// Back to asking: the seeds, and whoever was met on the ring.
    pub(super) fn start_over(&mut self, now: Instant) {
        if let Phase::Entering(entering) = &self.phase {
            entering.view.iter().for_each(|&peer| self.former.note(now, peer));
        }
        self.withdraw();
        self.ask_for_a_ring(now);
    }

    /// Gives all slots back.
    pub(super) fn withdraw(&mut self) {
        let Phase::Entering(entering) = &self.phase else { return };
        let holders: Vec<Peer> =
            entering.admitted.keys().filter_map(|&id| entering.view.get(id)).copied().collect();
        self.withdraw_from(holders);
    }

    /// Their slots, and whatever they gave up: no commit that was sent so far counts any more.
    fn withdraw_from(&mut self, holders: Vec<Peer>) {
        let number = self.last_number;
        for peer in holders {
            self.transmit(peer, Header::Withdraw { number });
        }
    }

    pub(super) fn on_committed(&mut self, now: Instant, from: Peer, number: u64, lease: Sides) {
        let Phase::Entering(entering) = &mut self.phase else { return };
        let Some((neighbour, sent)) = entering.commits.remove(&number) else { return };
        if neighbour != from.id || !entering.admitted.contains_key(&neighbour) {
            return;
        }
        entering.committed.insert(neighbour, (sent, lease));
        if self.has_both_parts() {
            self.take_place(now);
        }
    }

    /// Both neighbours have given up this node's part, and its whole leaf set has answered.
    fn has_both_parts(&self) -> bool {
        let Phase::Entering(entering) = &self.phase else { return false };
        let gave = |peer: Option<&Peer>, side: Side| {
            peer.and_then(|peer| entering.committed.get(&peer.id)).is_some_and(|(_, sides)| sides.has(side))
        };
        let (left, right) = (entering.view.left(), entering.view.right());
        gave(left, Side::Right) && gave(right, Side::Left) && entering.has_heard_all()
    }

    /// Step 4.
    fn take_place(&mut self, now: Instant) {
        let Phase::Entering(entering) = std::mem::replace(&mut self.phase, Phase::Ready) else { return };
        for (&neighbour, &(asked, sides)) in &entering.committed {
            self.hold_lease(now, neighbour, sides, asked);
        }
        self.leaf_set = entering.view;
        self.be_ready(now, false);
        let members: Vec<Peer> = self.leaf_set.iter().copied().collect();
        let neighbours = self.neighbours();
        for peer in members {
            self.former.forget(peer.id);
            self.table.insert(peer, self.liveness.rtt(peer.id));
            if neighbours.contains(&peer) {
                self.introduce(now, peer);
            } else {
                // They have answered a moment ago. One who misses this word hears of this node in a round of repair.
                self.announce(peer);
            }
        }
    }
}

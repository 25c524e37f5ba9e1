//! Steps 3 and 4 of the join: the joiner takes the slots of both neighbours, hears each member of its leaf set, has both
//! neighbours cede its part, and takes its place.
//!
//! The leaf set of a neighbour counts once its slot keeps others out: it comes with the slot (Azmy et al.: by
//! a probe each; what `Granted` says was read when the probe would have been answered). All other members are probed, once
//! each.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use rand::RngExt;

use super::STEP_PATIENCE;
use crate::id::NodeId;
use crate::peer::Peer;
use crate::ring::core::{Core, Timer};
use crate::sides::{Side, Sides};
use crate::table::LeafSet;
use crate::time::Instant;
use crate::wire::{Admission, Header, NodeState, ProbeAck};

/// Unanswered commits; a neighbour that answers a joiner with floods of other frames makes it ask no more often than that.
const MAX_COMMITS: usize = 16;
/// How long a joiner that has released both parts leaves its neighbours alone.
const STEP_BACK: Range<Duration> = Duration::from_millis(300)..Duration::from_millis(1000);
/// How long a refused joiner waits before it asks again, in milliseconds.
const REFUSED: Range<u64> = 50..300;

/// The state of a joiner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Joiner {
    /// The leaf set as it will be.
    view: LeafSet,
    /// Members of the view that have answered.
    answered: BTreeSet<NodeId>,
    /// Neighbours whose slot this node has, and since when. The right one's is held only together with the left
    /// one's: a node that has that is alone in the gap, so joiners do not wait in a circle.
    admitted: BTreeMap<NodeId, HeldSlot>,
    /// Neighbours that have ceded this node's part, when they were asked, and on which of their sides it is.
    committed: BTreeMap<NodeId, (Instant, Sides)>,
    /// Number of a commit → the neighbour that it asks, and when it was sent.
    commits: BTreeMap<u64, (NodeId, Instant)>,
    attempts: u8,
    through: Peer,
}

/// A slot that this node has at a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct HeldSlot {
    /// Others are kept out since then.
    since: Instant,
    renewed: Instant,
}

/// The next thing that a joiner does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// Nothing, for now.
    Wait,
    /// Its next step.
    Step,
}

impl Joiner {
    /// Nothing is done yet.
    pub(super) fn new(view: LeafSet, through: Peer) -> Joiner {
        Joiner {
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
    pub(crate) fn view(&self) -> &LeafSet {
        &self.view
    }

    /// The leaf set as it is to be, and the neighbours that have ceded their parts: when each was asked, and on which sides.
    pub(crate) fn into_place(self) -> (LeafSet, BTreeMap<NodeId, (Instant, Sides)>) {
        (self.view, self.committed)
    }

    /// The node that led to the ring.
    pub(super) fn through(&self) -> Peer {
        self.through
    }

    /// Steps repeated without an answer.
    pub(super) fn attempts(&self) -> u8 {
        self.attempts
    }

    /// Whether a neighbour may have ceded this node's part by now.
    pub(super) fn has_asked_to_commit(&self) -> bool {
        !self.commits.is_empty() || !self.committed.is_empty()
    }

    /// Takes members into the view: those that are near enough, and not known to be dead.
    pub(crate) fn learn(&mut self, core: &Core, members: &[Peer], is_barred: impl Fn(&Peer) -> bool) {
        for peer in members {
            if peer.id != core.me.id && !is_barred(peer) {
                self.view.insert(*peer);
            }
        }
    }

    /// Begins a round. Returns the neighbours to be probed because they have not answered: one that is dead is to leave the
    /// view. `None`: every node that was named is dead.
    pub(crate) fn begin_round(&mut self) -> Option<Vec<Peer>> {
        self.attempts += 1;
        if self.view.is_empty() {
            return None;
        }
        Some(if self.attempts > 1 { self.view.ring_neighbours() } else { Vec::new() })
    }

    /// Sets the time for the next round.
    pub(crate) fn plan_round(now: Instant, core: &mut Core) {
        let patience = core.jittered(STEP_PATIENCE);
        core.timers.set(Timer::Join, now + patience);
    }

    /// Members that have not answered, and are to be probed before each step. (A joiner that waits for a slot finds out
    /// meanwhile which of them live: the one that has it keeps others waiting.) A neighbour answers with its slot.
    pub(crate) fn to_probe(&self) -> Vec<Peer> {
        let ends = [self.view.left(), self.view.right()].map(|peer| peer.map(|peer| peer.id));
        let answers_with_slot = |id: NodeId| ends.contains(&Some(id)) && !self.admitted.contains_key(&id);
        let silent = |peer: &&Peer| !self.answered.contains(&peer.id) && !answers_with_slot(peer.id);
        self.view.iter().filter(silent).copied().collect()
    }

    /// Asks for whatever is missing: the left slot, the right slot, the answers of all members, both parts. Returns whether
    /// nothing is.
    pub(crate) fn step(&mut self, now: Instant, core: &mut Core) -> bool {
        let neighbours = self.view.ring_neighbours();
        // A slot ends by itself: it is asked for again when half of its time is over.
        let half = core.config.join.slot / 2;
        let has = |peer: &Peer| self.admitted.get(&peer.id).is_some_and(|slot| now - slot.renewed < half);
        // Left slot first, always.
        if let Some(&next) = neighbours.iter().find(|peer| !has(peer)) {
            core.send(next, Header::JoinRequest);
            return false;
        }
        if !self.has_heard_all() {
            return false;
        }
        // A part that was ceded long ago comes with a lease that is over, or nearly.
        let lease = core.config.leases.duration;
        self.committed.retain(|_, (asked, _)| now - *asked < lease / 2);
        self.commits.retain(|_, (_, asked)| now - *asked < lease / 2);
        if self.has_both_parts() {
            return true;
        }
        for neighbour in neighbours {
            if !self.committed.contains_key(&neighbour.id) && self.commits.len() < MAX_COMMITS {
                let other_neighbour = self.other_neighbour(neighbour.id);
                let number = core.number();
                self.commits.insert(number, (neighbour.id, now));
                core.send(neighbour, Header::JoinCommit { number, other_neighbour });
            }
        }
        false
    }

    /// A neighbour has answered the request for its slot.
    pub(crate) fn on_admission(
        &mut self,
        now: Instant,
        core: &mut Core,
        from: Peer,
        admission: Admission,
        is_barred: impl Fn(&Peer) -> bool,
    ) -> Advance {
        match admission {
            Admission::Granted { members } => {
                let is_neighbour = self.view.is_ring_neighbour(from.id);
                let first = !self.admitted.contains_key(&from.id);
                let slot = HeldSlot { since: now, renewed: now };
                self.admitted.entry(from.id).or_insert(slot).renewed = now;
                if first {
                    self.attempts = 0;
                }
                if self.view.contains(from.id) {
                    self.view.insert(from);
                    self.answered.insert(from.id);
                }
                self.learn(core, &members, is_barred);
                if first || is_neighbour {
                    self.release_wrong_slots(core);
                    return Advance::Step;
                }
                Advance::Wait
            }
            Admission::Busy => {
                // Busy is an answer: the queue moves, and the start timeout bounds the wait.
                self.attempts = 0;
                if self.has_asked_to_commit() {
                    // The other neighbour may have ceded its part, and this one cannot: without it, it gets no lease of
                    // the other any more. Both slots are released, until what was ceded has come back.
                    self.step_back(now, core);
                    return Advance::Wait;
                }
                self.release_slot(from.id);
                self.release_wrong_slots(core);
                self.ask_later(now, core)
            }
            Admission::NotNeighbour { members } => {
                let before = self.view.ring_neighbours();
                self.release_slot(from.id);
                self.learn(core, &members, is_barred);
                self.release_wrong_slots(core);
                if self.view.ring_neighbours() != before {
                    return Advance::Step;
                }
                self.ask_later(now, core)
            }
            Admission::NotReady => {
                self.view.remove(from.id);
                self.release_slot(from.id);
                self.release_wrong_slots(core);
                Advance::Wait
            }
        }
    }

    fn ask_later(&self, now: Instant, core: &mut Core) -> Advance {
        let wait = core.rng.random_range(REFUSED);
        core.timers.set(Timer::Join, now + Duration::from_millis(wait));
        Advance::Wait
    }

    /// Releases all slots, and with them what was ceded: the neighbours renew their leases meanwhile.
    fn step_back(&mut self, now: Instant, core: &mut Core) {
        self.withdraw_all(core);
        (self.admitted, self.committed, self.commits) = Default::default();
        let wait = core.rng.random_range(STEP_BACK);
        core.timers.set(Timer::Join, now + wait);
    }

    /// A member of the view has answered what it was asked at `asked`: it lives, and may know nearer ones. Returns whether
    /// all have.
    pub(crate) fn on_ack(
        &mut self,
        core: &mut Core,
        from: Peer,
        ack: &ProbeAck,
        asked: Instant,
        is_barred: impl Fn(&Peer) -> bool,
    ) -> bool {
        // The leaf set of a neighbour counts once its slot keeps others out.
        let slot = self.admitted.get(&from.id);
        let current = ack.leaf_set.is_some() && slot.is_none_or(|slot| asked >= slot.since);
        if ack.node_state != NodeState::Ready {
            self.view.remove(from.id);
        } else if self.view.contains(from.id) && current {
            self.view.insert(from);
            self.answered.insert(from.id);
        }
        self.learn(core, ack.leaf_set.as_deref().unwrap_or_default(), is_barred);
        self.release_wrong_slots(core);
        self.has_heard_all()
    }

    /// A member of the view was found dead.
    pub(crate) fn on_peer_dead(&mut self, now: Instant, core: &mut Core, id: NodeId) {
        self.view.remove(id);
        self.answered.remove(&id);
        self.release_wrong_slots(core);
        core.timers.set_earlier(Timer::Join, now);
    }

    /// A neighbour has ceded this node's part. Returns whether both have, and the whole leaf set has answered.
    pub(crate) fn on_committed(&mut self, from: Peer, number: u64, lease: Sides) -> bool {
        let Some((neighbour, sent)) = self.commits.remove(&number) else { return false };
        if neighbour != from.id || !self.admitted.contains_key(&neighbour) {
            return false;
        }
        self.committed.insert(neighbour, (sent, lease));
        self.has_both_parts()
    }

    /// Releases all slots.
    pub(super) fn withdraw_all(&self, core: &mut Core) {
        let holders = self.admitted.keys().filter_map(|&id| self.view.get(id)).copied();
        withdraw_from(core, holders.collect());
    }

    /// Releases slots of nodes that turned out not to be neighbours, and the right one's without the left one's.
    fn release_wrong_slots(&mut self, core: &mut Core) {
        let mut neighbours = self.view.ring_neighbours();
        if neighbours.first().is_some_and(|left| !self.admitted.contains_key(&left.id)) {
            neighbours.clear();
        }
        let is_right = |id: NodeId| neighbours.iter().any(|peer| peer.id == id);
        let wrong: Vec<NodeId> = self.admitted.keys().copied().filter(|&id| !is_right(id)).collect();
        let mut told = Vec::new();
        for id in wrong {
            self.release_slot(id);
            told.extend(self.view.get(id).copied());
        }
        withdraw_from(core, told);
    }

    /// This node has no slot of this one (any more), and no answer about one counts.
    fn release_slot(&mut self, id: NodeId) {
        self.admitted.remove(&id);
        self.committed.remove(&id);
        self.commits.retain(|_, &mut (asked, _)| asked != id);
    }

    /// The other neighbour; the same, if there is only one.
    fn other_neighbour(&self, neighbour: NodeId) -> NodeId {
        let neighbours = self.view.ring_neighbours();
        neighbours.iter().map(|peer| peer.id).find(|&id| id != neighbour).unwrap_or(neighbour)
    }

    fn has_heard_all(&self) -> bool {
        self.view.iter().all(|peer| self.answered.contains(&peer.id))
    }

    /// Both neighbours have ceded this node's part, and its whole leaf set has answered.
    fn has_both_parts(&self) -> bool {
        let ceded = |peer: Option<&Peer>, side: Side| {
            peer.and_then(|peer| self.committed.get(&peer.id)).is_some_and(|(_, sides)| sides.has(side))
        };
        let (left, right) = (self.view.left(), self.view.right());
        ceded(left, Side::Right) && ceded(right, Side::Left) && self.has_heard_all()
    }
}

/// Their slots, and whatever they ceded: no commit that was sent so far counts any more.
fn withdraw_from(core: &mut Core, holders: Vec<Peer>) {
    let number = core.last_number();
    for peer in holders {
        core.send(peer, Header::JoinAbort { number });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::fixture::{at, core, peer, sent};

    fn joiner(core: &Core, members: &[u8]) -> Joiner {
        let mut joiner = Joiner::new(LeafSet::new(core.me.id, 32), peer(90));
        joiner.learn(core, &members.iter().map(|&point| peer(point)).collect::<Vec<_>>(), |_| false);
        joiner
    }

    fn granted() -> Admission {
        Admission::Granted { members: Vec::new() }
    }

    #[test]
    fn the_left_slot_comes_first_then_the_right_one_then_all_answers_then_both_parts() {
        let mut core = core();
        let mut joiner = joiner(&core, &[80, 90, 110]);
        let asked = |joiner: &mut Joiner, core: &mut Core| {
            assert!(!joiner.step(at(0), core));
            sent(core)
        };
        assert_eq!(asked(&mut joiner, &mut core), [(peer(90), Header::JoinRequest)]);
        assert_eq!(joiner.on_admission(at(0), &mut core, peer(90), granted(), |_| false), Advance::Step);
        assert_eq!(asked(&mut joiner, &mut core), [(peer(110), Header::JoinRequest)]);
        assert_eq!(joiner.on_admission(at(0), &mut core, peer(110), granted(), |_| false), Advance::Step);
        assert_eq!(joiner.to_probe(), [peer(80)], "neighbours answer with their slots");
        assert_eq!(asked(&mut joiner, &mut core), []);
        let (node_state, lease) = (NodeState::Ready, Sides::None);
        let ack = ProbeAck { number: 1, node_state, lease, asks: None, leaf_set: Some(Vec::new()) };
        assert!(joiner.on_ack(&mut core, peer(80), &ack, at(0), |_| false));
        let commits = asked(&mut joiner, &mut core);
        let number_to = |to: Peer| {
            commits.iter().find_map(|(peer, header)| {
                let Header::JoinCommit { number, .. } = header else { return None };
                (*peer == to).then_some(*number)
            })
        };
        let (left, right) = (number_to(peer(90)).unwrap(), number_to(peer(110)).unwrap());
        assert!(!joiner.on_committed(peer(90), left, Sides::Right), "the other part is missing");
        assert!(joiner.on_committed(peer(110), right, Sides::Left));
    }

    #[test]
    fn a_slot_of_a_node_that_is_no_neighbour_is_given_back() {
        let mut core = core();
        let mut joiner = joiner(&core, &[80, 110]);
        joiner.on_admission(at(0), &mut core, peer(80), granted(), |_| false);
        let named = Admission::Granted { members: vec![peer(90)] };
        joiner.on_admission(at(1), &mut core, peer(80), named, |_| false);
        assert!(matches!(sent(&mut core)[..], [(to, Header::JoinAbort { .. })] if to == peer(80)));
    }
}

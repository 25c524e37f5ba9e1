//! The way onto the ring.
//!
//! 1. *Asking*: probe the seeds until a ready node answers; if nobody at all does, be the first of a ring.
//! 2. *Seeking*: have the root of one's own id found (Pastry §2.4), and learn its leaf set and rows.
//! 3. *Entering*: take the slots of both neighbours, left one first; probe each member of the leaf set until it has
//!    answered or was found dead; have both neighbours give up the joiner's part.
//! 4. Ready: say so to all in the tables, who add this node only now.
//!
//! Published Pastry lets a joiner answer as soon as it has heard of its leaf set, and can be split by concurrent
//! joins without any failure (Lu, Merz & Weidenbach 2011); steps 3 and 4 are what Azmy et al. 2016 prove sufficient.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;

use super::{Node, Timer};
use crate::config::Role;
use crate::id::NodeId;
use crate::kbr::{Bootstrap, Event, KeyBasedRouting, StartError};
use crate::machine::Refusal;
use crate::peer::{Addr, Peer, Seed};
use crate::table::LeafSet;
use crate::time::Instant;
use crate::wire::{Admission, Answer, Header, Probe, ProbeAck, Purpose, Standing};

/// How long seeds have to answer before the next group of them is asked, or the same again.
const ASK_PATIENCE: Duration = Duration::from_millis(1500);
/// How soon seeds that are themselves just starting are asked again.
const STARTING_PATIENCE: Duration = Duration::from_millis(150);
/// Access nodes of an edge that a newcomer asks; an edge has no more than two.
const MAX_REFERRALS: usize = 2;
/// How long nodes that are just starting are waited for, before this one goes its own way (and merges later).
const STARTING_LIMIT: Duration = Duration::from_secs(5);
/// How long seeds that the user named are tried while none can be reached.
const JOIN_PATIENCE: Duration = Duration::from_secs(3);
/// How long a step of the join waits for its answer before it is repeated.
const STEP_PATIENCE: Duration = Duration::from_millis(700);
/// Repetitions of one step before the join starts over from asking.
const STEP_ATTEMPTS: u8 = 8;

/// Unanswered commits; who answers a joiner with floods of other words makes it ask no more often than that.
const MAX_COMMITS: usize = 16;

/// Where a node is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Phase {
    /// Not started.
    Idle,
    /// Looking for a ready node.
    Asking(Asking),
    /// An edge hangs itself on an access node.
    Attaching { through: Peer },
    /// Looking for its place on the ring.
    Seeking { through: Peer, attempts: u8, id: u64 },
    /// Taking its place.
    Entering(Entering),
    /// On the ring (an edge: hanging on it).
    Ready,
    /// Left, superseded, or never came up.
    Stopped,
}

/// Which seeds are being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Group {
    Join,
    Local,
    Remembered,
}

/// The state of asking.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asking {
    group: Group,
    since: Instant,
    /// Number of the probe → whom it asks; answered and refused ones are taken out.
    waiting: BTreeMap<u64, Seed>,
    /// Why seeds that the user named could not be asked.
    refused: Vec<(Seed, Refusal)>,
    /// Somebody is just starting, and this node waits for it.
    wait_for_starting: bool,
}

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
    /// Neighbours that have given up this node's part, and when they were asked.
    committed: BTreeMap<NodeId, Instant>,
    /// Number of a commit → whom it asks, and when it was sent.
    commits: BTreeMap<u64, (NodeId, Instant)>,
    attempts: u8,
    through: Peer,
    /// Rows met on the way (Pastry §2.4), for the routing table; at most as many as an answer can have.
    rows: Vec<Peer>,
}

/// A slot that this node has at a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot {
    /// Others are kept out since then.
    since: Instant,
    renewed: Instant,
}

impl Entering {
    fn neighbours(&self) -> Vec<Peer> {
        let mut both: Vec<Peer> = self.view.left().into_iter().chain(self.view.right()).copied().collect();
        both.dedup();
        both
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

    fn unanswered(&self) -> Vec<Peer> {
        self.view.iter().filter(|peer| !self.answered.contains(&peer.id)).copied().collect()
    }
}

impl Node {
    /// Step 1, from the start or all over again.
    pub(super) fn ask_for_a_ring(&mut self, now: Instant) {
        let group = if self.bootstrap.join.is_empty() { Group::Local } else { Group::Join };
        self.ask_group(now, group, now);
    }

    fn ask_group(&mut self, now: Instant, group: Group, since: Instant) {
        let seeds: Vec<Seed> = match group {
            Group::Join => self.bootstrap.join.iter().copied().chain(self.former.take_turns()).collect(),
            Group::Local => self.bootstrap.local.clone(),
            Group::Remembered => self.bootstrap.remembered.clone(),
        };
        let mut asking =
            Asking { group, since, waiting: BTreeMap::new(), refused: Vec::new(), wait_for_starting: false };
        for seed in seeds {
            if seed.id == Some(self.me.id) || seed.addr == self.me.addr {
                asking.refused.push((seed, Refusal::Myself));
            } else {
                asking.waiting.insert(self.ask(seed), seed);
            }
        }
        let nobody = asking.waiting.is_empty();
        self.phase = Phase::Asking(asking);
        self.deadlines.set(Timer::Join, now + if nobody { Duration::ZERO } else { ASK_PATIENCE });
    }

    /// Probes a seed; returns the probe's number.
    pub(super) fn ask(&mut self, seed: Seed) -> u64 {
        let number = self.number();
        let probe = Probe { number, standing: self.standing(), lease: false, leaf_set: false };
        self.transmit_to_seed(seed, Header::Probe(probe));
        number
    }

    /// A seed answered, while this node is asking.
    pub(super) fn on_asked_standing(&mut self, now: Instant, from: Peer, ack: &ProbeAck) {
        let my_addr = self.me.addr;
        let Phase::Asking(asking) = &mut self.phase else { return };
        if asking.waiting.remove(&ack.number).is_none() {
            return;
        }
        match ack.standing {
            Standing::Ready if matches!(self.role, Role::Edge { .. }) => return self.attach_first(now, from),
            Standing::Ready => return self.seek(now, from, 1),
            // Of two that start in the same instant, the one at the smaller address goes first.
            Standing::Starting if asking.group != Group::Join => {
                asking.wait_for_starting |= from.addr < my_addr
            }
            Standing::Starting | Standing::Joining => asking.wait_for_starting = true,
            Standing::Edge => {
                // It is on no ring, but hangs on one.
                let access = ack.leaf_set.iter().flatten().take(MAX_REFERRALS).copied().collect();
                return self.ask_referred(now, access);
            }
        }
        self.hurry_asking(now);
    }

    /// Asks the nodes that an edge named, besides those that are being asked.
    fn ask_referred(&mut self, now: Instant, access: Vec<Peer>) {
        for peer in access {
            let number = self.number();
            let Phase::Asking(asking) = &mut self.phase else { return };
            let seed = Seed::from(peer);
            let is_new = !asking.waiting.values().any(|waiting| waiting.addr == seed.addr);
            if is_new && peer.id != self.me.id {
                asking.waiting.insert(number, seed);
                let probe = Probe { number, standing: Standing::Starting, lease: false, leaf_set: false };
                self.transmit_to_seed(seed, Header::Probe(probe));
            }
        }
        self.hurry_asking(now);
    }

    pub(super) fn on_seed_refused(&mut self, now: Instant, seed: Seed, reason: Refusal) {
        let Phase::Asking(asking) = &mut self.phase else { return };
        let before = asking.waiting.len();
        asking.waiting.retain(|_, waiting| waiting.addr != seed.addr);
        if asking.waiting.len() < before {
            asking.refused.push((seed, reason));
            self.hurry_asking(now);
        }
    }

    /// All have answered or refused: no need to wait for the deadline.
    fn hurry_asking(&mut self, now: Instant) {
        let Phase::Asking(asking) = &self.phase else { return };
        if asking.waiting.is_empty() {
            let wait = if asking.wait_for_starting { STARTING_PATIENCE } else { Duration::ZERO };
            self.deadlines.set(Timer::Join, now + wait);
        }
    }

    pub(super) fn on_join_timer(&mut self, now: Instant) {
        match &self.phase {
            Phase::Asking(asking) => {
                let asking = asking.clone();
                self.ask_on(now, asking);
            }
            Phase::Attaching { .. } => self.ask_for_a_ring(now),
            &Phase::Seeking { through, attempts, .. } if attempts < STEP_ATTEMPTS => {
                self.seek(now, through, attempts + 1);
            }
            Phase::Entering(entering) if entering.attempts < STEP_ATTEMPTS => self.enter_on(now),
            Phase::Seeking { .. } | Phase::Entering(_) => self.start_over(now),
            Phase::Idle | Phase::Ready | Phase::Stopped => {}
        }
    }

    /// A group of seeds had its chance: the same again, the next group, or alone.
    fn ask_on(&mut self, now: Instant, asking: Asking) {
        let waited = now - asking.since;
        // A node that the user named will come up, or the start times out; others are not waited for that long.
        if asking.wait_for_starting && (asking.group == Group::Join || waited < STARTING_LIMIT) {
            return self.ask_group(now, asking.group, asking.since);
        }
        match asking.group {
            Group::Join => self.ask_named_again(now, asking),
            Group::Local => self.ask_group(now, Group::Remembered, now),
            Group::Remembered => self.be_first(now),
        }
    }

    /// Seeds that the user named are tried for a while; then the user hears what is wrong with each.
    fn ask_named_again(&mut self, now: Instant, asking: Asking) {
        let Asking { since, waiting, mut refused, .. } = asking;
        let hopeless = waiting.is_empty()
            && refused.iter().all(|(_, why)| !matches!(why, Refusal::Unreachable(_) | Refusal::TimedOut));
        if hopeless || now - since >= JOIN_PATIENCE {
            refused.extend(waiting.into_values().map(|seed| (seed, Refusal::TimedOut)));
            return self.stop(Event::StartFailed(StartError::Unreachable(refused)));
        }
        self.ask_group(now, Group::Join, since);
        if let Phase::Asking(asking) = &mut self.phase {
            // Kept until the new round says otherwise, for the error.
            asking.refused = refused.into_iter().filter(|(_, why)| *why == Refusal::Myself).collect();
        }
    }

    /// Nobody is there: this node is the first of a ring of its own, and goes on asking.
    fn be_first(&mut self, now: Instant) {
        let promoted = self.is_edge();
        self.role = Role::Ring;
        self.be_ready(now, true);
        if promoted {
            self.events.push_back(Event::ContactChanged(self.contact()));
        }
    }

    /// Step 2.
    fn seek(&mut self, now: Instant, through: Peer, attempts: u8) {
        let id = self.number();
        self.phase = Phase::Seeking { through, attempts, id };
        self.seek_through(now, through, id);
        self.deadlines.set(Timer::Join, now + STEP_PATIENCE.saturating_mul(u32::from(attempts)));
    }

    /// Asks for the neighbours of this node's own id, by way of `through`.
    pub(super) fn seek_through(&mut self, now: Instant, through: Peer, id: u64) {
        let routed = self.new_routed(id, self.me.id.key(), Purpose::Seek { rows: Vec::new() }, false);
        self.hand_over(now, through, routed);
    }

    /// The root of this node's id has answered.
    pub(super) fn on_sought(&mut self, now: Instant, answer: Answer) {
        let rows = answer.rows.clone();
        let found = [answer.root].into_iter().chain(answer.leaf_set).chain(answer.rows);
        match self.phase {
            Phase::Seeking { through, id, .. } if id == answer.id => {
                let entering = Entering {
                    view: LeafSet::new(self.me.id, self.config.leaf_set),
                    answered: BTreeSet::new(),
                    admitted: BTreeMap::new(),
                    committed: BTreeMap::new(),
                    commits: BTreeMap::new(),
                    attempts: 0,
                    through,
                    rows,
                };
                self.phase = Phase::Entering(entering);
                self.learn(now, found.collect());
                self.enter_on(now);
            }
            Phase::Ready => self.consider_all(now, found.collect()),
            Phase::Idle | Phase::Asking(_) | Phase::Attaching { .. } | Phase::Seeking { .. } => {}
            Phase::Entering(_) | Phase::Stopped => {}
        }
    }

    /// Members for the view: those that are near enough, and not known to be dead.
    fn learn(&mut self, now: Instant, members: Vec<Peer>) {
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
    fn enter_on(&mut self, now: Instant) {
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
        let unanswered = entering.unanswered();
        for &peer in &unanswered {
            self.probe(now, peer, false);
        }
        if let Some(next) = next {
            return self.transmit(next, Header::Admit);
        }
        if !unanswered.is_empty() {
            return;
        }
        // A part that was given up long ago comes with a lease that is over, or nearly.
        let lease = self.config.lease;
        if let Phase::Entering(entering) = &mut self.phase {
            entering.committed.retain(|_, asked| now - *asked < lease / 2);
            entering.commits.retain(|_, (_, asked)| now - *asked < lease / 2);
        }
        if self.has_both_parts() {
            return self.take_place(now);
        }
        for neighbour in neighbours {
            let Phase::Entering(entering) = &self.phase else { return };
            if !entering.committed.contains_key(&neighbour.id) && entering.commits.len() < MAX_COMMITS {
                let number = self.number();
                let Phase::Entering(entering) = &mut self.phase else { return };
                entering.commits.insert(number, (neighbour.id, now));
                self.transmit(neighbour, Header::Commit { number });
            }
        }
    }

    pub(super) fn on_admission(&mut self, now: Instant, from: Peer, admission: Admission) {
        let Phase::Entering(entering) = &mut self.phase else { return };
        match admission {
            Admission::Granted => {
                let is_neighbour = entering.neighbours().iter().any(|peer| peer.id == from.id);
                let first = !entering.admitted.contains_key(&from.id);
                entering.admitted.entry(from.id).or_insert(Slot { since: now, renewed: now }).renewed = now;
                if first {
                    entering.answered.remove(&from.id);
                    entering.attempts = 0;
                }
                if first || is_neighbour {
                    self.leave_wrong_slots();
                    self.enter_step(now);
                }
            }
            Admission::Busy => {
                // Busy is an answer: the queue moves, and the start timeout bounds the wait.
                entering.attempts = 0;
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
        for peer in entering.unanswered() {
            self.probe(now, peer, false);
        }
        let Phase::Entering(entering) = &self.phase else { return };
        if entering.unanswered().is_empty() {
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
        for peer in told {
            self.transmit(peer, Header::Withdraw);
        }
    }

    /// Back to asking: the seeds, and whoever was met on the ring.
    fn start_over(&mut self, now: Instant) {
        if let Phase::Entering(entering) = &self.phase {
            entering.view.iter().for_each(|&peer| self.former.note(peer));
        }
        self.withdraw();
        self.ask_for_a_ring(now);
    }

    /// Gives all slots back.
    pub(super) fn withdraw(&mut self) {
        let Phase::Entering(entering) = &self.phase else { return };
        let holders: Vec<Peer> =
            entering.admitted.keys().filter_map(|&id| entering.view.get(id)).copied().collect();
        for peer in holders {
            self.transmit(peer, Header::Withdraw);
        }
    }

    pub(super) fn on_committed(&mut self, now: Instant, from: Peer, number: u64) {
        let Phase::Entering(entering) = &mut self.phase else { return };
        let Some((neighbour, sent)) = entering.commits.remove(&number) else { return };
        if neighbour != from.id || !entering.admitted.contains_key(&neighbour) {
            return;
        }
        entering.committed.insert(neighbour, sent);
        if self.has_both_parts() {
            self.take_place(now);
        }
    }

    /// Both neighbours have given up this node's part, and its whole leaf set has answered.
    fn has_both_parts(&self) -> bool {
        let Phase::Entering(entering) = &self.phase else { return false };
        entering.neighbours().iter().all(|peer| entering.committed.contains_key(&peer.id))
            && entering.unanswered().is_empty()
    }

    /// Step 4.
    fn take_place(&mut self, now: Instant) {
        let Phase::Entering(entering) = std::mem::replace(&mut self.phase, Phase::Ready) else { return };
        for (&neighbour, &asked) in &entering.committed {
            self.hold_lease(neighbour, asked);
        }
        self.leaf_set = entering.view;
        self.be_ready(now, false);
        let members: Vec<Peer> = self.leaf_set.iter().copied().collect();
        for peer in members {
            self.table.insert(peer, self.liveness.rtt(peer.id));
            self.probe(now, peer, self.neighbours().contains(&peer));
        }
        self.consider_all(now, entering.rows);
    }

    /// On the ring, or hanging on it.
    pub(super) fn be_ready(&mut self, now: Instant, alone: bool) {
        self.phase = Phase::Ready;
        self.deadlines.cancel(Timer::Join);
        self.deadlines.cancel(Timer::StartTimeout);
        self.events.push_back(Event::Ready { alone });
        if self.is_edge() {
            return;
        }
        self.deadlines.set(Timer::Heartbeat, now + self.config.heartbeat);
        let sweep = self.jittered(self.config.leaf_probe / 4);
        self.deadlines.set(Timer::Sweep, now + sweep);
        let repair = self.jittered(self.config.repair);
        self.deadlines.set(Timer::Repair, now + repair);
        self.deadlines.set(Timer::AskAgain, now + self.config.ask_again);
        self.unpark(now);
    }

    pub(super) fn on_start_timeout(&mut self) {
        let through = match &self.phase {
            Phase::Seeking { through, .. } | Phase::Attaching { through } => Some(*through),
            Phase::Entering(entering) => Some(entering.through),
            Phase::Asking(_) => None,
            Phase::Idle | Phase::Ready | Phase::Stopped => return,
        };
        let asked = || self.bootstrap.join.iter().map(|&seed| (seed, Refusal::TimedOut)).collect();
        let error = match through {
            Some(peer) => StartError::JoinTimedOut { through: peer.into() },
            None => StartError::Unreachable(asked()),
        };
        self.stop(Event::StartFailed(error));
    }

    /// Alone in its ring, a node keeps asking: its seeds, and those that once stood around it.
    pub(super) fn on_ask_again(&mut self, now: Instant) {
        let wait = self.jittered(self.config.ask_again);
        self.deadlines.set(Timer::AskAgain, now + wait);
        if !self.leaf_set.is_empty() {
            return;
        }
        let Bootstrap { join, local, remembered } = &self.bootstrap;
        let mut seeds: Vec<Seed> = join.iter().chain(local).chain(remembered).copied().collect();
        seeds.extend(self.former.take_turns());
        for seed in seeds {
            if seed.addr != self.me.addr && seed.addr != Addr::Unreachable && seed.id != Some(self.me.id) {
                self.ask(seed);
            }
        }
    }
}

//! The way onto the ring.
//!
//! 1. *Asking*: probe the seeds until a ready node answers; if nobody at all does, be the first of a ring.
//! 2. *Seeking*: have the root of one's own id found (Pastry §2.4), and learn its leaf set.
//! 3. *Entering* (`enter.rs`): take the slots of both neighbours, left one first; probe each member of the leaf set until it has
//!    answered or was found dead; have both neighbours give up the joiner's part.
//! 4. Ready: say so to all in the tables, who add this node only now.
//!
//! Published Pastry lets a joiner answer as soon as it has heard of its leaf set, and can be split by concurrent
//! joins without any failure (Lu, Merz & Weidenbach 2011); steps 3 and 4 are what Azmy et al. 2016 prove sufficient.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::enter::Entering;
use super::{Node, Timer};
use crate::config::Role;
use crate::kbr::{Event, KeyBasedRouting, StartError};
use crate::machine::Refusal;
use crate::peer::{Peer, Seed};
use crate::sides::Sides;
use crate::table::LeafSet;
use crate::time::Instant;
use crate::wire::{Answer, Header, Probe, ProbeAck, Purpose, Standing};

/// How long seeds have to answer before the next group of them is asked.
const ASK_PATIENCE: Duration = Duration::from_millis(1500);
/// How soon seeds that the user named are asked again: a frame may be lost. Late answers to earlier questions count.
const ASK_NAMED_AGAIN: Duration = Duration::from_millis(500);
/// How soon seeds that are themselves just starting are asked again.
const STARTING_PATIENCE: Duration = Duration::from_millis(150);
/// Access nodes of an edge that a newcomer asks; an edge has no more than two.
const MAX_REFERRALS: usize = 2;
/// How long nodes that are just starting are waited for, before this one goes its own way (and merges later).
const STARTING_LIMIT: Duration = Duration::from_secs(5);
/// How long seeds that the user named are tried while none can be reached, and the system says so.
const JOIN_PATIENCE: Duration = Duration::from_secs(3);
/// The same while one of them is silent: where a tenth of all frames is lost, two lost greetings of TCP in a row take 3 s.
const SILENT_PATIENCE: Duration = Duration::from_secs(10);
/// How long a step of the join waits for its answer before it is repeated.
pub(super) const STEP_PATIENCE: Duration = Duration::from_millis(700);
/// How long after a start its memory is given back, in the mean.
const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// Repetitions of one step before the join starts over from asking.
const STEP_ATTEMPTS: u8 = 8;

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
        let patience = match group {
            _ if asking.waiting.is_empty() => Duration::ZERO,
            Group::Join => ASK_NAMED_AGAIN,
            Group::Local | Group::Remembered => ASK_PATIENCE,
        };
        self.phase = Phase::Asking(asking);
        self.deadlines.set(Timer::Join, now + patience);
    }

    /// Probes a seed; returns the probe's number.
    pub(super) fn ask(&mut self, seed: Seed) -> u64 {
        let number = self.number();
        let probe = Probe { number, standing: self.standing(), lease: Sides::None, leaf_set: false };
        self.transmit_to_seed(seed, Header::Probe(probe));
        number
    }

    /// A seed answered, while this node is asking.
    pub(super) fn on_asked_standing(&mut self, now: Instant, from: Peer, ack: &ProbeAck) {
        let my_addr = self.me.addr;
        let Phase::Asking(asking) = &mut self.phase else { return };
        let Some(seed) = asking.waiting.remove(&ack.number) else { return };
        asking.waiting.retain(|_, waiting| waiting.addr != seed.addr);
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
                let probe =
                    Probe { number, standing: Standing::Starting, lease: Sides::None, leaf_set: false };
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
            Phase::Entering(entering) if entering.attempts() < STEP_ATTEMPTS => self.enter_on(now),
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
        let is_silent = !waiting.is_empty() || refused.iter().any(|(_, why)| *why == Refusal::TimedOut);
        let patience = if is_silent { SILENT_PATIENCE } else { JOIN_PATIENCE };
        if hopeless || now - since >= patience {
            let silent: BTreeSet<Seed> = waiting.into_values().collect();
            refused.extend(silent.into_iter().map(|seed| (seed, Refusal::TimedOut)));
            return self.stop(Event::StartFailed(StartError::Unreachable(refused)));
        }
        self.ask_group(now, Group::Join, since);
        if let Phase::Asking(asking) = &mut self.phase {
            // Kept until the new round says otherwise, for the error.
            asking.refused = refused.into_iter().filter(|(_, why)| *why == Refusal::Myself).collect();
            asking.waiting.extend(waiting);
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
        let routed = self.new_routed(id, self.me.id.key(), Purpose::Seek, false);
        self.hand_over(now, through, routed);
    }

    /// The root of this node's id has answered.
    pub(super) fn on_sought(&mut self, now: Instant, answer: Answer) {
        let found: Vec<Peer> = [answer.root].into_iter().chain(answer.leaf_set).collect();
        self.note_named(now, &found);
        match self.phase {
            Phase::Seeking { through, id, .. } if id == answer.id => {
                let view = LeafSet::new(self.me.id, self.config.leaf_set);
                self.phase = Phase::Entering(Entering::new(view, through));
                self.learn(now, found);
                self.enter_on(now);
            }
            Phase::Ready => self.consider_all(now, found),
            Phase::Idle | Phase::Asking(_) | Phase::Attaching { .. } | Phase::Seeking { .. } => {}
            Phase::Entering(_) | Phase::Stopped => {}
        }
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
        self.tuning.begin(now);
        self.plan_heartbeat(now);
        // The first look is an early one: the way onto the ring has taken much memory.
        let soon = self.jittered(SETTLED_AFTER);
        self.deadlines.set(Timer::Sweep, now + soon);
        self.begin_members_on_arrival(now);
        let period = self.repair_period();
        let repair = self.jittered(period);
        self.deadlines.set(Timer::Repair, now + repair);
        self.plan_asking(now);
        self.look_around(now);
        self.unpark(now);
    }

    pub(super) fn on_start_timeout(&mut self) {
        let through = match &self.phase {
            Phase::Seeking { through, .. } | Phase::Attaching { through } => Some(*through),
            Phase::Entering(entering) => Some(entering.through()),
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
}

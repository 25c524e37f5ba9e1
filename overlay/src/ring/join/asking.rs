//! Step 1 of the join: which seeds are asked for a ring, for how long, and what comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Next, Step};
use crate::config::Role;
use crate::kbr::{Bootstrap, StartError};
use crate::machine::Refusal;
use crate::peer::{Peer, Seed};
use crate::ring::core::{Core, Timer};
use crate::time::Instant;
use crate::wire::{NodeState, ProbeAck};

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
    /// Number of the probe → the seed that it asks; answered and refused ones are taken out.
    waiting: BTreeMap<u64, Seed>,
    /// Why seeds that the user named could not be asked.
    refused: Vec<(Seed, Refusal)>,
    /// A node is just starting, and this node waits for it.
    wait_for_starting: bool,
}

impl Asking {
    /// Asks all seeds of a group; `since`: when the group was first asked.
    pub(super) fn begin(
        now: Instant,
        core: &mut Core,
        seeds: Vec<Seed>,
        group: Group,
        since: Instant,
    ) -> Asking {
        let mut asking =
            Asking { group, since, waiting: BTreeMap::new(), refused: Vec::new(), wait_for_starting: false };
        for seed in seeds {
            if seed.id == Some(core.me.id) || seed.addr == core.me.addr {
                asking.refused.push((seed, Refusal::Myself));
            } else {
                asking.waiting.insert(core.ask_seed(seed), seed);
            }
        }
        let patience = match group {
            _ if asking.waiting.is_empty() => Duration::ZERO,
            Group::Join => ASK_NAMED_AGAIN,
            Group::Local | Group::Remembered => ASK_PATIENCE,
        };
        core.timers.set(Timer::Join, now + patience);
        asking
    }

    /// A seed answered.
    pub(super) fn on_answer(&mut self, now: Instant, core: &mut Core, from: Peer, ack: &ProbeAck) -> Next {
        let Some(seed) = self.waiting.remove(&ack.number) else { return Next::Wait };
        self.waiting.retain(|_, waiting| waiting.addr != seed.addr);
        match ack.node_state {
            NodeState::Ready if matches!(core.role, Role::Edge { .. }) => return Next::Attach(from),
            NodeState::Ready => return Next::Seek(from),
            // Of two that start in the same instant, the one at the smaller address goes first.
            NodeState::Starting if self.group != Group::Join => {
                self.wait_for_starting |= from.addr < core.me.addr;
            }
            NodeState::Starting | NodeState::Joining => self.wait_for_starting = true,
            // It is on no ring, but attached to one.
            NodeState::Edge => {
                let access = ack.leaf_set.iter().flatten().take(MAX_REFERRALS);
                access.for_each(|peer| self.ask_referred(core, *peer));
            }
        }
        self.hurry(now, core);
        Next::Wait
    }

    /// Asks a node that an edge named, unless it is being asked.
    fn ask_referred(&mut self, core: &mut Core, peer: Peer) {
        let number = core.number();
        let seed = Seed::from(peer);
        let is_new = !self.waiting.values().any(|waiting| waiting.addr == seed.addr);
        if is_new && peer.id != core.me.id {
            self.waiting.insert(number, seed);
            core.probe_seed(seed, number);
        }
    }

    pub(super) fn on_refused(&mut self, now: Instant, core: &mut Core, seed: Seed, reason: Refusal) {
        let before = self.waiting.len();
        self.waiting.retain(|_, waiting| waiting.addr != seed.addr);
        if self.waiting.len() < before {
            self.refused.push((seed, reason));
            self.hurry(now, core);
        }
    }

    /// If all have answered or refused, there is no need to wait for the deadline.
    fn hurry(&self, now: Instant, core: &mut Core) {
        if self.waiting.is_empty() {
            let wait = if self.wait_for_starting { STARTING_PATIENCE } else { Duration::ZERO };
            core.timers.set(Timer::Join, now + wait);
        }
    }

    /// A group of seeds had its chance: the same again, the next group, or alone.
    pub(super) fn on_timer(self, now: Instant) -> Result<Onwards, StartError> {
        let waited = now - self.since;
        // A node that the user named will come up, or the start times out; others are not waited for that long.
        if self.wait_for_starting && (self.group == Group::Join || waited < STARTING_LIMIT) {
            return Ok(Onwards::Ask { group: self.group, since: self.since, kept: None });
        }
        match self.group {
            Group::Join => self.ask_named_again(now),
            Group::Local => Ok(Onwards::Ask { group: Group::Remembered, since: now, kept: None }),
            Group::Remembered => Ok(Onwards::BeFirst),
        }
    }

    /// Seeds that the user named are tried for a while; then the user hears what is wrong with each.
    fn ask_named_again(self, now: Instant) -> Result<Onwards, StartError> {
        let Asking { since, waiting, mut refused, .. } = self;
        let hopeless = waiting.is_empty()
            && refused.iter().all(|(_, why)| !matches!(why, Refusal::Unreachable(_) | Refusal::TimedOut));
        let is_silent = !waiting.is_empty() || refused.iter().any(|(_, why)| *why == Refusal::TimedOut);
        let patience = if is_silent { SILENT_PATIENCE } else { JOIN_PATIENCE };
        if hopeless || now - since >= patience {
            let silent: BTreeSet<Seed> = waiting.into_values().collect();
            refused.extend(silent.into_iter().map(|seed| (seed, Refusal::TimedOut)));
            return Err(StartError::Unreachable(refused));
        }
        // Kept until the new round says otherwise, for the error.
        refused.retain(|(_, why)| *why == Refusal::Myself);
        Ok(Onwards::Ask { group: Group::Join, since, kept: Some(Kept { waiting, refused }) })
    }

    /// Takes over what an earlier round of the same group has left.
    pub(super) fn keep(&mut self, kept: Kept) {
        self.refused = kept.refused;
        self.waiting.extend(kept.waiting);
    }
}

/// The step that comes after a group of seeds.
pub(super) enum Onwards {
    Ask { group: Group, since: Instant, kept: Option<Kept> },
    BeFirst,
}

/// The state that a round of asking leaves to the next one.
pub(super) struct Kept {
    waiting: BTreeMap<u64, Seed>,
    refused: Vec<(Seed, Refusal)>,
}

/// The seeds of a group, and after those that the user named some lost peers.
pub(super) fn seeds_of(bootstrap: &Bootstrap, group: Group, lost: impl FnOnce() -> Vec<Seed>) -> Vec<Seed> {
    match group {
        Group::Join => bootstrap.join.iter().copied().chain(lost()).collect(),
        Group::Local => bootstrap.local.clone(),
        Group::Remembered => bootstrap.remembered.clone(),
    }
}

impl From<Asking> for Step {
    fn from(asking: Asking) -> Step {
        Step::Asking(asking)
    }
}

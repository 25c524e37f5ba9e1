//! The way onto the ring.
//!
//! 1. *Asking* (`asking.rs`): probe the seeds until a ready node answers; if no node at all does, be the first of a ring.
//! 2. *Seeking*: have the root of one's own id found (Pastry §2.4), and learn its leaf set.
//! 3. *Joining* (`joiner.rs`): take the slots of both neighbours, left one first; probe each member of the leaf set until it
//!    has answered or was found dead; have both neighbours cede the joiner's part.
//! 4. Ready: say so to all in the tables, which add this node only now.
//!
//! The other side, that of the neighbours, is `admission.rs`.
//!
//! Published Pastry lets a joiner answer as soon as it has heard of its leaf set, and can be split by concurrent
//! joins without any failure (Lu, Merz & Weidenbach 2011); steps 3 and 4 are what Azmy et al. 2016 prove sufficient.

mod admission;
mod asking;
mod joiner;

use std::hash::{Hash, Hasher};
use std::time::Duration;

pub(crate) use self::admission::Slots;
use self::asking::{Asking, Group, Onwards, seeds_of};
pub(crate) use self::joiner::{Advance, Joiner};
use super::core::{Core, Phase, Timer};
use crate::kbr::{Bootstrap, StartError};
use crate::machine::Refusal;
use crate::memory;
use crate::peer::{Addr, Peer, Seed};
use crate::table::LeafSet;
use crate::time::Instant;
use crate::wire::ProbeAck;

/// How long a step of the join waits for its answer before it is repeated.
const STEP_PATIENCE: Duration = Duration::from_millis(700);
/// Repetitions of one step before the join starts over from asking.
const STEP_ATTEMPTS: u8 = 8;
/// How long the first access node of an edge has to answer before others are looked for.
const ATTACH_PATIENCE: Duration = Duration::from_millis(1500);

/// Where a node is on its way onto the ring.
#[derive(Clone, Debug, Default)]
pub(crate) struct Join {
    bootstrap: Bootstrap,
    step: Step,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Step {
    /// None: before the start, on the ring, or at the end.
    #[default]
    Rest,
    /// Looking for a ready node.
    Asking(Asking),
    /// An edge attaches itself to an access node.
    Attaching { through: Peer },
    /// Looking for its place on the ring.
    Seeking { through: Peer, attempts: u8, id: u64 },
    /// Taking its place.
    Joining(Joiner),
}

/// For a model checker: the seeds never change.
impl Hash for Join {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.step.hash(state);
    }
}

/// The step that follows from the answer of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Wait,
    /// An edge has found a ready node.
    Attach(Peer),
    /// A ready node was found: the root of one's own id is looked for through it.
    Seek(Peer),
}

/// The step that follows when the time of one is over.
#[derive(Debug)]
pub(crate) enum Overdue {
    Nothing,
    /// From asking on.
    StartOver,
    /// The root of one's own id is looked for again.
    SeekAgain {
        through: Peer,
        attempts: u8,
    },
    /// Unanswered questions are asked again.
    JoinOn,
    /// No node is there.
    BeFirst,
    /// No node that the user named can be reached.
    Fail(StartError),
}

// Seeds.
impl Join {
    /// Begins, with these seeds.
    pub(crate) fn begin(&mut self, bootstrap: Bootstrap) {
        self.bootstrap = bootstrap;
    }

    /// All seeds.
    pub(crate) fn seeds(&self) -> impl Iterator<Item = &Seed> + Clone {
        let Bootstrap { join, local, remembered } = &self.bootstrap;
        join.iter().chain(local).chain(remembered)
    }

    /// All seeds that are not this node itself.
    pub(crate) fn other_seeds<'a>(&'a self, me: &'a Peer) -> impl Iterator<Item = Seed> + 'a {
        self.seeds().copied().filter(|seed| seed.addr != Addr::Unreachable && is_another(me, seed))
    }

    /// An edge becomes a ring node: access nodes that it knew are seeds, and what the user named is no condition any more.
    pub(crate) fn widen(&mut self, known: impl Iterator<Item = Peer>) {
        self.bootstrap.remembered.extend(known.map(Seed::from));
        self.bootstrap.local.append(&mut self.bootstrap.join);
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        let Bootstrap { join, local, remembered } = &self.bootstrap;
        [join, local, remembered].into_iter().map(memory::list).sum()
    }
}

/// Whether a seed is another node than this one.
pub(crate) fn is_another(me: &Peer, seed: &Seed) -> bool {
    seed.addr != me.addr && seed.id != Some(me.id)
}

// Steps.
impl Join {
    fn go(&mut self, core: &mut Core, step: impl Into<Step>) {
        self.step = step.into();
        core.phase = match self.step {
            Step::Rest => core.phase,
            Step::Asking(_) | Step::Attaching { .. } => Phase::Starting,
            Step::Seeking { .. } | Step::Joining(_) => Phase::Joining,
        };
    }

    /// Step 1, from the start or all over again. `lost`: peers to be asked besides the named seeds.
    pub(crate) fn ask_for_a_ring(&mut self, now: Instant, core: &mut Core, lost: impl FnOnce() -> Vec<Seed>) {
        let group = if self.bootstrap.join.is_empty() { Group::Local } else { Group::Join };
        let asking = Asking::begin(now, core, seeds_of(&self.bootstrap, group, lost), group, now);
        self.go(core, asking);
    }

    /// A seed may have answered, while this node is asking.
    pub(crate) fn on_answer(&mut self, now: Instant, core: &mut Core, from: Peer, ack: &ProbeAck) -> Next {
        match &mut self.step {
            Step::Asking(asking) => asking.on_answer(now, core, from, ack),
            Step::Rest | Step::Attaching { .. } | Step::Seeking { .. } | Step::Joining(_) => Next::Wait,
        }
    }

    pub(crate) fn on_refused(&mut self, now: Instant, core: &mut Core, seed: Seed, reason: Refusal) {
        if let Step::Asking(asking) = &mut self.step {
            asking.on_refused(now, core, seed, reason);
        }
    }

    /// The time of the current step is over.
    pub(crate) fn on_timer(
        &mut self,
        now: Instant,
        core: &mut Core,
        lost: impl FnOnce() -> Vec<Seed>,
    ) -> Overdue {
        match &self.step {
            Step::Asking(asking) => {
                let asking = asking.clone();
                self.ask_on(now, core, asking, lost)
            }
            Step::Attaching { .. } => Overdue::StartOver,
            &Step::Seeking { through, attempts, .. } if attempts < STEP_ATTEMPTS => {
                Overdue::SeekAgain { through, attempts: attempts + 1 }
            }
            Step::Joining(joiner) if joiner.attempts() < STEP_ATTEMPTS => Overdue::JoinOn,
            Step::Seeking { .. } | Step::Joining(_) => Overdue::StartOver,
            Step::Rest => Overdue::Nothing,
        }
    }

    fn ask_on(
        &mut self,
        now: Instant,
        core: &mut Core,
        asking: Asking,
        lost: impl FnOnce() -> Vec<Seed>,
    ) -> Overdue {
        match asking.on_timer(now) {
            Err(error) => Overdue::Fail(error),
            Ok(Onwards::BeFirst) => Overdue::BeFirst,
            Ok(Onwards::Ask { group, since, kept }) => {
                let seeds = seeds_of(&self.bootstrap, group, lost);
                let mut asking = Asking::begin(now, core, seeds, group, since);
                if let Some(kept) = kept {
                    asking.keep(kept);
                }
                self.go(core, asking);
                Overdue::Nothing
            }
        }
    }

    /// An edge attaches itself through this node.
    pub(crate) fn attach(&mut self, now: Instant, core: &mut Core, through: Peer) {
        self.go(core, Step::Attaching { through });
        core.timers.set(Timer::Join, now + ATTACH_PATIENCE);
    }

    /// Whether an edge is attaching itself for the first time.
    pub(crate) fn is_attaching(&self) -> bool {
        matches!(self.step, Step::Attaching { .. })
    }

    /// Step 2, under this number.
    pub(crate) fn seek(&mut self, core: &mut Core, through: Peer, attempts: u8, id: u64) {
        self.go(core, Step::Seeking { through, attempts, id });
    }

    /// How long the answer is waited for.
    pub(crate) fn seek_patience(attempts: u8) -> Duration {
        STEP_PATIENCE.saturating_mul(u32::from(attempts))
    }

    /// The root of this node's id has answered the question of this number: step 3 begins, if that is the one.
    pub(crate) fn on_sought(&mut self, core: &mut Core, id: u64) -> bool {
        match self.step {
            Step::Seeking { through, id: sought, .. } if sought == id => {
                let view = LeafSet::new(core.me.id, core.config.tables.leaf_set);
                self.go(core, Step::Joining(Joiner::new(view, through)));
                true
            }
            Step::Rest
            | Step::Asking(_)
            | Step::Attaching { .. }
            | Step::Seeking { .. }
            | Step::Joining(_) => false,
        }
    }

    /// Step 3, while this node is at it.
    pub(crate) fn joiner(&mut self) -> Option<&mut Joiner> {
        match &mut self.step {
            Step::Joining(joiner) => Some(joiner),
            Step::Rest | Step::Asking(_) | Step::Attaching { .. } | Step::Seeking { .. } => None,
        }
    }

    /// The leaf set as it will be, in step 3.
    pub(crate) fn view(&self) -> Option<&LeafSet> {
        match &self.step {
            Step::Joining(joiner) => Some(joiner.view()),
            Step::Rest | Step::Asking(_) | Step::Attaching { .. } | Step::Seeking { .. } => None,
        }
    }

    /// Whether a neighbour may have ceded this node's part by now.
    pub(crate) fn has_asked_to_commit(&self) -> bool {
        matches!(&self.step, Step::Joining(joiner) if joiner.has_asked_to_commit())
    }

    /// The end of the way, however it came. Returns the joiner, if the way had come to step 3.
    pub(crate) fn end(&mut self, core: &mut Core, phase: Phase) -> Option<Joiner> {
        core.phase = phase;
        match std::mem::take(&mut self.step) {
            Step::Joining(joiner) => Some(joiner),
            Step::Rest | Step::Asking(_) | Step::Attaching { .. } | Step::Seeking { .. } => None,
        }
    }

    /// Gives all slots back, and what was ceded with them.
    pub(crate) fn withdraw(&self, core: &mut Core) {
        if let Step::Joining(joiner) = &self.step {
            joiner.withdraw_all(core);
        }
    }

    /// Why the start has taken too long; nothing if it has ended.
    pub(crate) fn timed_out(&self) -> Option<StartError> {
        let through = match &self.step {
            Step::Seeking { through, .. } | Step::Attaching { through } => Some(*through),
            Step::Joining(joiner) => Some(joiner.through()),
            Step::Asking(_) => None,
            Step::Rest => return None,
        };
        let asked = || self.bootstrap.join.iter().map(|&seed| (seed, Refusal::TimedOut)).collect();
        Some(match through {
            Some(peer) => StartError::JoinTimedOut { through: peer.into() },
            None => StartError::Unreachable(asked()),
        })
    }
}

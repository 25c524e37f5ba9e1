//! One ring under churn: sessions, lookups meanwhile, and observations.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::id::Key;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;

use super::control::{Control, SentSoFar};
use super::traces::{SessionTrace, Sessions, wait};
use super::unclaimed::Unclaimed;
use crate::check::{Breach, o3};
use crate::cluster::Cluster;
use crate::cluster::lookups::LookupTally;
use crate::lab::Progress;
use crate::node::RingNode;
use crate::timeline::{Action, Timeline};
use crate::world::{Crash, Faults};

/// Lookups per node and second (MSPastry §5.1).
pub(super) const RATE: f64 = 0.01;
/// How often dead nodes' ranges are looked at: the grain of what is said of them.
pub(super) const LOOK: Duration = Duration::from_millis(20);
/// How often the ring is looked at.
const SAMPLE: Duration = Duration::from_secs(1);
/// Every so many samples all neighbours are compared.
const SAMPLES_PER_REVIEW: u64 = 10;
/// How long the last lookups are waited for, with nobody coming or going: promise O4's limit, and a while for
/// the ring.
const AFTER: Duration = Duration::from_secs(65);

/// A run to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChurnPlan {
    pub(super) trace: SessionTrace,
    pub(super) median: Duration,
    pub(super) loss: f64,
    pub(super) warm: Duration,
    pub(super) lookups: u64,
}

/// Observations of a run.
#[derive(Default)]
pub(super) struct Observed {
    pub(super) tally: LookupTally,
    pub(super) control: Control,
    /// Of those that were measured.
    pub(super) node_seconds: f64,
    pub(super) seconds: f64,
    pub(super) arrivals: u64,
    pub(super) crashes: u64,
    /// Starts that failed and were tried again.
    pub(super) retried: u64,
    pub(super) unclaimed_ms: Vec<f32>,
    /// Ranges that nobody had taken over when the run was over.
    pub(super) never_claimed: usize,
    /// Random keys, one a second, and those for which nobody answered.
    pub(super) keys: (u64, u64),
    /// Nodes looked at while all this happened, and those with the right neighbours.
    pub(super) node_state: (u64, u64),
    /// A breach of promise O3, leases aside, after [`AFTER`] without churn.
    pub(super) ring: Option<Breach>,
    pub(super) windows: Vec<Window>,
}

/// A part of the run, for the timeline.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    pub(super) at_s: f64,
    pub(super) live: f64,
    pub(super) frames_per_node_s: f64,
    pub(super) lost: u64,
    pub(super) wrong: u64,
}

/// Beginnings and ends of sessions, and looks at the ring meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cue {
    Arrive,
    Crowd,
    Leave(u32),
    Ask,
    Look,
    Sample,
}

struct Life<'a, N: RingNode> {
    timeline: Timeline<N>,
    plan: ChurnPlan,
    sessions: Sessions,
    size: usize,
    cues: BinaryHeap<Reverse<(Instant, u64, Cue)>>,
    numbers: u64,
    dice: Rng,
    unclaimed: Unclaimed,
    looking: bool,
    live: usize,
    /// Node-seconds until `counted`.
    node_seconds: f64,
    counted: Instant,
    seen: Observed,
    progress: &'a Progress,
}

/// Lets nodes come and go in a grown ring, and says what was seen. The ring comes back for its figures.
pub(super) fn live<N: RingNode>(
    mut cluster: Cluster<N>,
    plan: ChurnPlan,
    progress: &Progress,
) -> (Cluster<N>, Observed) {
    let mut dice = cluster.world.stream("lab/churn");
    cluster.watch_lookups();
    let size = cluster.roster.len();
    let mut life = Life {
        sessions: Sessions::new(plan.trace, plan.median, &mut dice),
        plan,
        size,
        cues: BinaryHeap::new(),
        numbers: 0,
        dice,
        unclaimed: Unclaimed::default(),
        looking: false,
        live: size,
        node_seconds: 0.0,
        counted: cluster.now(),
        seen: Observed::default(),
        timeline: Timeline::new(cluster),
        progress,
    };
    life.begin();
    life.warm_up();
    life.measure();
    life.finish()
}

impl Observed {
    /// Adds up two worlds. The timeline is the first one's.
    pub(super) fn and(mut self, other: Observed) -> Observed {
        self.tally.add(other.tally);
        self.control.add(other.control);
        self.node_seconds += other.node_seconds;
        self.seconds += other.seconds;
        self.arrivals += other.arrivals;
        self.crashes += other.crashes;
        self.retried += other.retried;
        self.unclaimed_ms.extend(other.unclaimed_ms);
        self.never_claimed += other.never_claimed;
        self.keys = (self.keys.0 + other.keys.0, self.keys.1 + other.keys.1);
        self.node_state = (self.node_state.0 + other.node_state.0, self.node_state.1 + other.node_state.1);
        self.ring = self.ring.or(other.ring);
        self
    }
}

impl<N: RingNode> Life<'_, N> {
    fn cluster(&self) -> &Cluster<N> {
        &self.timeline.cluster
    }

    fn now(&self) -> Instant {
        self.timeline.cluster.now()
    }

    fn perform(&mut self, action: Action) {
        // The nodes that it is about live: that was asked before.
        let _ = self.timeline.perform(action);
    }

    fn plan_at(&mut self, at: Instant, cue: Cue) {
        self.numbers += 1;
        self.cues.push(Reverse((at, self.numbers, cue)));
    }

    /// Everybody has been there for a while; others come at the rate at which they go.
    fn begin(&mut self) {
        self.perform(Action::Weather(Faults { loss: self.plan.loss, ..Faults::default() }));
        let now = self.now();
        let slots: Vec<u32> = self.cluster().roster.iter().map(|(_, slot)| slot).collect();
        for slot in slots {
            let rest = self.sessions.residual(&mut self.dice);
            self.plan_at(now + rest, Cue::Leave(slot));
        }
        let next = self.next_arrival();
        self.plan_at(now + next, Cue::Arrive);
        self.plan_at(now, Cue::Ask);
        self.plan_at(now, Cue::Sample);
    }

    fn next_arrival(&mut self) -> Duration {
        let mean = self.sessions.mean() / self.size as u32;
        wait(&mut self.dice, mean)
    }

    fn warm_up(&mut self) {
        let (begin, warm) = (self.now(), self.plan.warm);
        self.progress.phase("warming up", warm.as_secs());
        while self.now() - begin < warm {
            self.pass(begin + warm);
            let passed = self.now() - begin;
            self.progress.at(passed.as_secs(), format!("{} nodes", self.live));
        }
        self.timeline.cluster.forget_lookups();
        self.unclaimed.took_ms.clear();
        self.seen = Observed::default();
    }

    fn measure(&mut self) {
        let begin = self.now();
        let at_first = SentSoFar::by_now(self.cluster());
        self.count_nodes();
        let from = self.node_seconds;
        if self.plan.trace == SessionTrace::Flash {
            let expected = self.plan.lookups as f64 / (RATE * self.size as f64);
            self.plan_at(begin + Duration::from_secs_f64(expected / 4.0), Cue::Crowd);
        }
        self.progress.phase("churn", self.plan.lookups);
        let share = (self.plan.lookups / 100).max(1);
        let mut window = (begin, at_first.clone(), from, (0, 0));
        while self.cluster().lookups.tally.asked < self.plan.lookups {
            let due = self.next_at();
            self.pass(due);
            let done = self.cluster().lookups.tally.asked;
            if done / share > self.seen.windows.len() as u64 {
                window = self.close_window(begin, window);
                self.progress.at(done, format!("{} nodes, {}", self.live, self.now()));
            }
        }
        self.count_nodes();
        self.seen.control = SentSoFar::by_now(self.cluster()).since(&at_first);
        self.seen.node_seconds = self.node_seconds - from;
        self.seen.seconds = (self.now() - begin).as_secs_f64();
    }

    fn close_window(
        &mut self,
        begin: Instant,
        (since, sent, from, (lost, wrong)): (Instant, SentSoFar, f64, (u64, u64)),
    ) -> (Instant, SentSoFar, f64, (u64, u64)) {
        self.count_nodes();
        let (now, by_now) = (self.now(), SentSoFar::by_now(self.cluster()));
        let lived = self.node_seconds - from;
        let tally = &self.timeline.cluster.lookups.tally;
        self.seen.windows.push(Window {
            at_s: (now - begin).as_secs_f64(),
            live: lived / (now - since).as_secs_f64().max(1e-9),
            frames_per_node_s: by_now.since(&sent).all.frames as f64 / lived.max(1e-9),
            lost: tally.lost - lost,
            wrong: tally.wrong - wrong,
        });
        (now, by_now, self.node_seconds, (tally.lost, tally.wrong))
    }

    /// Nobody comes or goes any more; the last answers are waited for.
    fn finish(mut self) -> (Cluster<N>, Observed) {
        let end = self.now() + AFTER;
        self.progress.phase("last answers", AFTER.as_secs());
        self.cues.retain(|Reverse((_, _, cue))| *cue == Cue::Look);
        while self.now() < end {
            self.pass(end);
        }
        self.seen.ring = self.cluster().judge(&[], o3::in_order).err();
        self.seen.never_claimed = self.unclaimed.end(self.now());
        self.seen.unclaimed_ms = std::mem::take(&mut self.unclaimed.took_ms);
        self.seen.tally = std::mem::take(&mut self.timeline.cluster.lookups.tally);
        (self.timeline.cluster, self.seen)
    }

    fn next_at(&self) -> Instant {
        self.cues.peek().map_or(self.now() + SAMPLE, |Reverse((at, ..))| *at)
    }

    /// Time passes until the next cue, which is carried out, or until `end`.
    fn pass(&mut self, end: Instant) {
        let due = self.next_at();
        self.timeline.cluster.run_to(due.min(end));
        self.seen.retried += self.timeline.cluster.retry_starts();
        if due <= end
            && let Some(Reverse((_, _, cue))) = self.cues.pop()
        {
            self.act(cue);
        }
    }

    fn act(&mut self, cue: Cue) {
        let now = self.now();
        match cue {
            Cue::Arrive => {
                self.arrive();
                let next = self.next_arrival();
                self.plan_at(now + next, Cue::Arrive);
            }
            Cue::Crowd => (0..self.size / 2).for_each(|_| self.arrive()),
            Cue::Leave(slot) => self.leave(slot),
            Cue::Ask => {
                self.perform(Action::LookUp(None));
                let rate = RATE * self.cluster().roster.len().max(1) as f64;
                let next = wait(&mut self.dice, Duration::from_secs_f64(1.0 / rate));
                self.plan_at(now + next, Cue::Ask);
            }
            Cue::Look => {
                self.unclaimed.look(&self.timeline.cluster);
                self.looking = !self.unclaimed.is_over();
                if self.looking {
                    self.plan_at(now + LOOK, Cue::Look);
                }
            }
            Cue::Sample => {
                self.sample();
                self.plan_at(now + SAMPLE, Cue::Sample);
            }
        }
    }

    fn arrive(&mut self) {
        self.count_nodes();
        self.live += 1;
        self.seen.arrivals += 1;
        let slot = self.cluster().world.next_slot() as u32;
        self.perform(Action::Join(None));
        let stays = self.sessions.draw(&mut self.dice);
        self.plan_at(self.now() + stays, Cue::Leave(slot));
    }

    /// A session ends without a word: the harshest end there is, and the one that MSPastry and Bamboo were
    /// measured with.
    fn leave(&mut self, slot: u32) {
        let roster = &self.cluster().roster;
        let is_last = roster.len() <= 2 && roster.id(slot).is_some();
        if is_last || self.cluster().node(slot as usize).is_none() {
            return;
        }
        self.count_nodes();
        self.live -= 1;
        self.seen.crashes += 1;
        let range = Unclaimed::range_of(self.cluster(), slot);
        self.perform(Action::Crash { slots: vec![slot as usize], how: Crash::Power, of_root: false });
        let now = self.now();
        if let Some(keys) = range {
            self.unclaimed.begin(now, keys);
            if !std::mem::replace(&mut self.looking, true) {
                self.plan_at(now + LOOK, Cue::Look);
            }
        }
    }

    fn sample(&mut self) {
        let key = Key(self.dice.random());
        self.seen.keys.0 += 1;
        self.seen.keys.1 += u64::from(!self.cluster().is_claimed(key, 0));
        if self.seen.keys.0.is_multiple_of(SAMPLES_PER_REVIEW) {
            self.seen.node_state.0 += self.cluster().roster.len() as u64;
            self.seen.node_state.1 += self.cluster().judge(&[], o3::count_in_order) as u64;
        }
    }

    fn count_nodes(&mut self) {
        let now = self.now();
        self.node_seconds += (now - self.counted).as_secs_f64() * self.live as f64;
        self.counted = now;
    }
}

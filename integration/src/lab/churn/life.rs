//! One ring under churn: who comes and goes when, what is asked meanwhile, and what was seen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::id::Key;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;

use super::control::{Control, Sent};
use super::traces::{Sessions, Trace, wait};
use super::unclaimed::Unclaimed;
use crate::check::Verdict;
use crate::lab::living::{Living, Tally};
use crate::lab::{Progress, Ring};
use crate::world::Faults;

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

/// What is to happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) trace: Trace,
    pub(super) median: Duration,
    pub(super) loss: f64,
    pub(super) warm: Duration,
    pub(super) lookups: u64,
}

/// What was seen.
pub(super) struct Seen {
    pub(super) tally: Tally,
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
    pub(super) standing: (u64, u64),
    /// Promise O3 but for leases, after [`AFTER`] without churn.
    pub(super) ring: Verdict,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Deed {
    Arrive,
    Crowd,
    Leave(u32),
    Ask,
    Look,
    Sample,
}

struct Life<'a> {
    living: Living,
    plan: Plan,
    sessions: Sessions,
    size: usize,
    deeds: BinaryHeap<Reverse<(Instant, u64, Deed)>>,
    numbers: u64,
    dice: Rng,
    unclaimed: Unclaimed,
    looking: bool,
    live: usize,
    /// Node-seconds until `counted`.
    node_seconds: f64,
    counted: Instant,
    seen: Seen,
    progress: &'a Progress,
}

/// Lets nodes come and go in a grown ring, and says what was seen. The ring comes back for its figures.
pub(super) fn live(ring: Ring, plan: Plan, progress: &Progress) -> (Ring, Seen) {
    let mut dice = ring.world.stream("lab/churn");
    let living = Living::new(ring);
    let size = living.roster.len();
    let mut life = Life {
        sessions: Sessions::new(plan.trace, plan.median, &mut dice),
        plan,
        size,
        deeds: BinaryHeap::new(),
        numbers: 0,
        dice,
        unclaimed: Unclaimed::default(),
        looking: false,
        live: size,
        node_seconds: 0.0,
        counted: living.now(),
        seen: Seen::nothing(),
        living,
        progress,
    };
    life.begin();
    life.warm_up();
    life.measure();
    life.finish()
}

impl Seen {
    fn nothing() -> Seen {
        Seen {
            tally: Tally::default(),
            control: Control::default(),
            node_seconds: 0.0,
            seconds: 0.0,
            arrivals: 0,
            crashes: 0,
            retried: 0,
            unclaimed_ms: Vec::new(),
            never_claimed: 0,
            keys: (0, 0),
            standing: (0, 0),
            ring: Ok(()),
            windows: Vec::new(),
        }
    }
}

impl Seen {
    /// What was seen in two worlds. The timeline is the first one's.
    pub(super) fn and(mut self, other: Seen) -> Seen {
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
        self.standing = (self.standing.0 + other.standing.0, self.standing.1 + other.standing.1);
        self.ring = self.ring.and(other.ring);
        self
    }
}

impl Life<'_> {
    fn plan_at(&mut self, at: Instant, deed: Deed) {
        self.numbers += 1;
        self.deeds.push(Reverse((at, self.numbers, deed)));
    }

    /// Everybody has been there for a while; others come at the rate at which they go.
    fn begin(&mut self) {
        self.living.ring.world.set_faults(Faults { loss: self.plan.loss, ..Faults::default() });
        let now = self.living.now();
        let slots: Vec<u32> = self.living.roster.iter().map(|(_, slot)| slot).collect();
        for slot in slots {
            let rest = self.sessions.residual(&mut self.dice);
            self.plan_at(now + rest, Deed::Leave(slot));
        }
        let next = self.next_arrival();
        self.plan_at(now + next, Deed::Arrive);
        self.plan_at(now, Deed::Ask);
        self.plan_at(now, Deed::Sample);
    }

    fn next_arrival(&mut self) -> Duration {
        let mean = self.sessions.mean() / self.size as u32;
        wait(&mut self.dice, mean)
    }

    fn warm_up(&mut self) {
        let (begin, warm) = (self.living.now(), self.plan.warm);
        self.progress.phase("warming up", warm.as_secs());
        while self.living.now() - begin < warm {
            self.pass(begin + warm);
            let passed = self.living.now() - begin;
            self.progress.at(passed.as_secs(), format!("{} nodes", self.live));
        }
        self.living.forget_lookups();
        self.unclaimed.took_ms.clear();
        self.seen = Seen::nothing();
    }

    fn measure(&mut self) {
        let begin = self.living.now();
        let at_first = Sent::by_now(&self.living);
        self.count_nodes();
        let from = self.node_seconds;
        if self.plan.trace == Trace::Flash {
            let expected = self.plan.lookups as f64 / (RATE * self.size as f64);
            self.plan_at(begin + Duration::from_secs_f64(expected / 4.0), Deed::Crowd);
        }
        self.progress.phase("churn", self.plan.lookups);
        let share = (self.plan.lookups / 100).max(1);
        let mut window = (begin, at_first.clone(), from, (0, 0));
        while self.living.tally.asked < self.plan.lookups {
            let due = self.next_at();
            self.pass(due);
            let done = self.living.tally.asked;
            if done / share > self.seen.windows.len() as u64 {
                window = self.close_window(begin, window);
                self.progress.at(done, format!("{} nodes, {}", self.live, self.living.now()));
            }
        }
        self.count_nodes();
        self.seen.control = Sent::by_now(&self.living).since(&at_first);
        self.seen.node_seconds = self.node_seconds - from;
        self.seen.seconds = (self.living.now() - begin).as_secs_f64();
    }

    fn close_window(
        &mut self,
        begin: Instant,
        (since, sent, from, (lost, wrong)): (Instant, Sent, f64, (u64, u64)),
    ) -> (Instant, Sent, f64, (u64, u64)) {
        self.count_nodes();
        let (now, by_now) = (self.living.now(), Sent::by_now(&self.living));
        let lived = self.node_seconds - from;
        let tally = &self.living.tally;
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
    fn finish(mut self) -> (Ring, Seen) {
        let end = self.living.now() + AFTER;
        self.progress.phase("last answers", AFTER.as_secs());
        self.deeds.retain(|Reverse((_, _, deed))| *deed == Deed::Look);
        while self.living.now() < end {
            self.pass(end);
        }
        self.seen.ring = self.living.is_in_order();
        self.seen.never_claimed = self.unclaimed.end(self.living.now());
        self.seen.unclaimed_ms = std::mem::take(&mut self.unclaimed.took_ms);
        self.seen.tally = std::mem::take(&mut self.living.tally);
        (self.living.ring, self.seen)
    }

    fn next_at(&self) -> Instant {
        self.deeds.peek().map_or(self.living.now() + SAMPLE, |Reverse((at, ..))| *at)
    }

    /// Time passes until the next deed, which is done, or until `end`.
    fn pass(&mut self, end: Instant) {
        let due = self.next_at();
        self.living.run_to(due.min(end));
        for slot in std::mem::take(&mut self.living.failed) {
            self.seen.retried += 1;
            self.living.join_again(slot);
        }
        if due <= end
            && let Some(Reverse((_, _, deed))) = self.deeds.pop()
        {
            self.act(deed);
        }
    }

    fn act(&mut self, deed: Deed) {
        let now = self.living.now();
        match deed {
            Deed::Arrive => {
                self.arrive();
                let next = self.next_arrival();
                self.plan_at(now + next, Deed::Arrive);
            }
            Deed::Crowd => (0..self.size / 2).for_each(|_| self.arrive()),
            Deed::Leave(slot) => self.leave(slot),
            Deed::Ask => {
                self.living.look_up();
                let rate = RATE * self.living.roster.len().max(1) as f64;
                let next = wait(&mut self.dice, Duration::from_secs_f64(1.0 / rate));
                self.plan_at(now + next, Deed::Ask);
            }
            Deed::Look => {
                self.unclaimed.look(&self.living);
                self.looking = !self.unclaimed.is_over();
                if self.looking {
                    self.plan_at(now + LOOK, Deed::Look);
                }
            }
            Deed::Sample => {
                self.sample();
                self.plan_at(now + SAMPLE, Deed::Sample);
            }
        }
    }

    fn arrive(&mut self) {
        self.count_nodes();
        self.live += 1;
        self.seen.arrivals += 1;
        let slot = self.living.join();
        let stays = self.sessions.draw(&mut self.dice);
        self.plan_at(self.living.now() + stays, Deed::Leave(slot));
    }

    /// A session ends without a word: the harshest end there is, and the one that MSPastry and Bamboo were
    /// measured with.
    fn leave(&mut self, slot: u32) {
        let is_last = self.living.roster.len() <= 2 && self.living.roster.id(slot).is_some();
        if is_last || self.living.node(slot).is_none() {
            return;
        }
        self.count_nodes();
        self.live -= 1;
        self.seen.crashes += 1;
        let range = Unclaimed::range_of(&self.living, slot);
        self.living.crash(slot);
        let now = self.living.now();
        if let Some(keys) = range {
            self.unclaimed.begin(now, keys);
            if !std::mem::replace(&mut self.looking, true) {
                self.plan_at(now + LOOK, Deed::Look);
            }
        }
    }

    fn sample(&mut self) {
        let key = Key(self.dice.random());
        self.seen.keys.0 += 1;
        self.seen.keys.1 += u64::from(!self.living.is_claimed(key, 0));
        if self.seen.keys.0.is_multiple_of(SAMPLES_PER_REVIEW) {
            self.seen.standing.0 += self.living.roster.len() as u64;
            self.seen.standing.1 += self.living.standing_right() as u64;
        }
    }

    fn count_nodes(&mut self) {
        let now = self.living.now();
        self.node_seconds += (now - self.counted).as_secs_f64() * self.live as f64;
        self.counted = now;
    }
}

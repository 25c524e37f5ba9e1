//! One seed's run: a ring grows, topics live on it, what the plan allows happens to both, then peace, and all promises.

use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use treecast_overlay::id::Key;
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::machine::Machine;
use treecast_overlay::random::Rng;
use treecast_overlay::wire::Standing;
use treecast_scribe::Topic;
use treecast_scribe::event::SubscriptionId;

use super::plan::{Deed, Plan};
use super::trouble::Hampered;
use crate::check::{Promise, Verdict, s4};
use crate::grove::Grove;
use crate::world::{Case, Crash, Cut, CutId, Faults};

const SECOND: Duration = Duration::from_secs(1);
/// How long every start may take: a node that is not on the ring by then has said so.
const STARTED: Duration = Duration::from_secs(45);
/// How long after the last fault the ring is one, and every lookup is answered (promises O3, O4).
const RING_BOUND: Duration = Duration::from_secs(90);
/// How long after that every subscriber is attached (promise S1).
const TREE_BOUND: Duration = Duration::from_secs(20);
/// How long after that everything is answered and delivered, or announced as lost: a publication waits 30 s for its
/// receipt or its error (promises S4, S5).
const END_BOUND: Duration = Duration::from_secs(40);
/// How long after that the trees have their shape: a former root stays for 30 s, attempts in vain double their pauses up to
/// 32 times one or two seconds, and where a plan has one sibling offered at a time, that may be the wrong one often
/// (promise S1).
const SHAPE_BOUND: Duration = Duration::from_secs(600);
/// How long a publisher may wait for its first receipt, when all is well.
const RECEIPT_BOUND: Duration = Duration::from_secs(60);
/// Share of the nodes without applications: those that may be cut off for long. (Two sides that both publish make two
/// branches of a log; merging those comes with replication.)
const BYSTANDERS: usize = 4;

/// A run of one plan.
pub struct Turmoil {
    /// The world.
    pub grove: Grove,
    pub(super) plan: Plan,
    pub(super) dice: Rng,
    topics: Vec<Topic>,
    subscriptions: Vec<SubscriptionId>,
    stalled: Vec<SubscriptionId>,
    pub(super) hampered: Vec<Hampered>,
    paused: Vec<(usize, usize)>,
    pub(super) cuts: Vec<Severed>,
    /// How many failed within the last steps: (step, how many).
    pub(super) failures: Vec<(usize, usize)>,
}

/// Something severed, and the step at which it heals.
pub(super) struct Severed {
    pub(super) cut: CutId,
    /// Nodes that stand apart from all others; none: pairs.
    pub(super) apart: Vec<usize>,
    pub(super) until: usize,
}

impl Turmoil {
    /// Nothing has happened yet.
    pub fn new(case: Case, plan: Plan) -> Turmoil {
        let grove = Grove::told(case, plan.network.clone(), plan.ring.clone(), plan.forest.clone());
        let topic = |i| Topic::new(&format!("swarm/{i}")).expect("a name");
        Turmoil {
            dice: grove.world.stream("turmoil"),
            topics: (0..plan.topics).map(topic).collect(),
            grove,
            plan,
            subscriptions: Vec::new(),
            stalled: Vec::new(),
            hampered: Vec::new(),
            paused: Vec::new(),
            cuts: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// What the seed said.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// From the first node to the last verdict.
    pub fn run(&mut self) -> Verdict {
        self.grow()?;
        self.inhabit()?;
        for step in 0..self.plan.steps {
            self.mend(step);
            self.work();
            if let Some(&deed) = self.plan.deeds.choose(&mut self.dice) {
                self.act(step, deed);
            }
            let wait = Duration::from_millis(self.dice.random_range(200..2000));
            self.grove.advance(wait)?;
        }
        self.make_peace();
        self.review()
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        let now = self.grove.world.now();
        self.grove.witness.borrow().tell(|| format!("{now} == {}", what()));
    }

    pub(super) fn note(&mut self, event: &'static str, what: impl FnOnce() -> String) {
        self.grove.count(event, 1);
        self.tell(|| format!("{event}: {}", what()));
    }

    // Before.

    fn grow(&mut self) -> Verdict {
        let plan = self.plan.clone();
        if plan.early {
            self.grove.world.set_faults(plan.weather);
        }
        self.grove.add(&[]);
        self.grove.advance(SECOND / 2)?;
        for _ in 1..plan.nodes {
            let mut seeds = self.some_ready(3);
            seeds.push(0);
            self.grove.add(&seeds);
            self.grove.advance(plan.join_within / plan.nodes as u32)?;
        }
        self.grove.advance_until(STARTED, is_started)?;
        let failed = &self.grove.failed_starts;
        // Where all come at once, one may run out of time although nothing is lost.
        if failed.len() > 1 && !(plan.early && plan.weather != Faults::default()) {
            return Err(Promise::O3.broken(format!("starts failed in good weather: {failed:?}")));
        }
        self.grove.world.set_faults(plan.weather);
        Ok(())
    }

    /// Applications move in.
    fn inhabit(&mut self) -> Verdict {
        for i in 0..self.topics.len() {
            for slot in self.inhabited() {
                if self.dice.random_bool(self.plan.subscribers) {
                    self.subscribe(slot, i);
                }
            }
        }
        self.grove.advance(SECOND * 3)
    }

    /// Slots with applications whose nodes run.
    fn inhabited(&self) -> Vec<usize> {
        let live = (0..self.grove.world.slots()).filter(|&slot| self.grove.world.is_running(slot));
        live.filter(|&slot| !self.is_bystander(slot)).collect()
    }

    pub(super) fn is_bystander(&self, slot: usize) -> bool {
        slot % BYSTANDERS == BYSTANDERS - 1
    }

    pub(super) fn some_ready(&mut self, count: usize) -> Vec<usize> {
        let mut ready = self.grove.ready();
        ready.shuffle(&mut self.dice);
        ready.truncate(count);
        ready
    }

    fn subscribe(&mut self, slot: usize, topic: usize) {
        let subscription = self.grove.subscribe(slot, &self.topics[topic]);
        self.subscriptions.push(subscription);
        self.tell(|| format!("slot {slot} subscribes to topic {topic}"));
    }

    fn publish(&mut self, topic: usize) {
        if let Some(&slot) = self.inhabited().choose(&mut self.dice) {
            self.grove.publish(slot, &self.topics[topic], self.plan.payload);
            self.tell(|| format!("slot {slot} publishes on topic {topic}"));
        }
    }

    // Meanwhile.

    /// What people do all the time.
    fn work(&mut self) {
        for slot in self.some_ready(2) {
            let key = match self.dice.random_bool(0.5) {
                true => Key(self.dice.random()),
                false => self.topics[0].id().key(),
            };
            self.grove.look_up(slot, key);
        }
        for _ in 0..self.dice.random_range(0..4) {
            let topic = self.dice.random_range(0..self.topics.len());
            self.publish(topic);
        }
    }

    /// What has lasted long enough ends.
    fn mend(&mut self, step: usize) {
        for (slot, _) in self.paused.extract_if(.., |(_, until)| *until <= step).collect::<Vec<_>>() {
            self.tell(|| format!("slot {slot} goes on"));
            self.grove.resume(slot);
        }
        for hampered in self.hampered.extract_if(.., |hampered| hampered.until <= step).collect::<Vec<_>>() {
            self.free(&hampered);
        }
        for severed in self.cuts.extract_if(.., |severed| severed.until <= step).collect::<Vec<_>>() {
            self.heal(&severed);
        }
        if self.dice.random_bool(0.2)
            && let Some(subscription) = self.stalled.pop()
        {
            self.unstall(subscription);
        }
    }

    fn heal(&mut self, severed: &Severed) {
        match &severed.apart[..] {
            [] => {
                self.tell(|| "nodes reach each other again".to_string());
                self.grove.heal(severed.cut);
            }
            slots => {
                self.tell(|| format!("slots {slots:?} are reached again"));
                self.grove.rejoin(slots, severed.cut);
            }
        }
    }

    fn unstall(&mut self, subscription: SubscriptionId) {
        if self.grove.history.subscriptions[&subscription].ended.is_none() {
            self.tell(|| format!("the application of {subscription:?} goes on"));
            self.grove.unstall(subscription);
        }
    }

    /// How many more may fail now: a leaf set of which half fails at once is excused of what follows, and proves
    /// nothing; and somebody must be left.
    pub(super) fn spare(&mut self, step: usize) -> usize {
        self.failures.retain(|(at, _)| at + 8 > step);
        let failing: usize = self.failures.iter().map(|(_, count)| count).sum();
        let ready = self.grove.ready().len();
        let most = (self.plan.ring.leaf_set / 4).min(ready / 3);
        most.saturating_sub(failing)
    }

    fn act(&mut self, step: usize, deed: Deed) {
        match deed {
            Deed::CrashProcess => self.crash(step, 1, Crash::Process),
            Deed::CrashPower => self.crash(step, 1, Crash::Power),
            Deed::CrashSeveral => {
                let how = if self.dice.random() { Crash::Process } else { Crash::Power };
                self.crash(step, 4, how);
            }
            Deed::CrashRoot => self.crash_root(step),
            Deed::Restart => self.restart(),
            Deed::Leave => self.leave(step),
            Deed::Pause => self.pause(step),
            Deed::Isolate => self.isolate(step, true),
            Deed::Blink => self.isolate(step, false),
            Deed::Part => self.part(step, true),
            Deed::Deafen => self.part(step, false),
            Deed::Join => self.join(false),
            Deed::JoinEdge => self.join(true),
            Deed::Subscribe => self.add_subscriber(),
            Deed::Unsubscribe => self.end_subscription(),
            Deed::Stall => self.stall(),
            Deed::Burst => self.burst(),
            Deed::Slow => self.slow_down(step),
            Deed::Drift => self.drift(step),
            Deed::JumpClock => self.jump_clock(step),
            Deed::Throttle => self.throttle(step),
            Deed::Pairs => self.part_pairs(step),
            Deed::PartNeighbours => self.part_neighbours(step),
            Deed::PartMany => self.part_many(step),
            // They are not done: the world is like that from its beginning.
            Deed::Matrix | Deed::Sparse | Deed::Thrifty => {}
        }
    }

    pub(super) fn victims(&mut self, step: usize, count: usize) -> Vec<usize> {
        let count = count.min(self.spare(step));
        let mut ready = self.grove.ready();
        ready.retain(|slot| !self.stands_apart(*slot));
        ready.shuffle(&mut self.dice);
        ready.truncate(count);
        self.failures.push((step, ready.len()));
        ready
    }

    /// Whoever is cut off already is left alone.
    pub(super) fn stands_apart(&self, slot: usize) -> bool {
        self.cuts.iter().any(|severed| severed.apart.contains(&slot))
    }

    fn crash(&mut self, step: usize, count: usize, how: Crash) {
        for slot in self.victims(step, count) {
            self.crash_one(slot, how);
        }
    }

    fn crash_one(&mut self, slot: usize, how: Crash) {
        let event = match how {
            Crash::Process => "crash of a process",
            Crash::Power => "power failure",
        };
        self.note(event, || format!("slot {slot}"));
        self.grove.crash(slot, how);
    }

    fn crash_root(&mut self, step: usize) {
        let topic = self.dice.random_range(0..self.topics.len());
        let root = self.grove.root(&self.topics[topic]);
        let free = self.grove.world.is_running(root) && !self.stands_apart(root);
        if free && self.spare(step) > 0 {
            self.failures.push((step, 1));
            let how = if self.dice.random() { Crash::Process } else { Crash::Power };
            self.grove.count("crash of a root", 1);
            self.crash_one(root, how);
        }
    }

    fn restart(&mut self) {
        let through = self.some_ready(3);
        let vacant = |&slot: &usize| self.grove.world.machine(slot).is_none();
        let dead: Vec<usize> = (0..self.grove.world.slots()).filter(vacant).collect();
        if let (Some(&slot), false) = (dead.choose(&mut self.dice), through.is_empty()) {
            self.note("restart", || format!("slot {slot} through {through:?}"));
            self.grove.restart(slot, &through);
        }
    }

    fn leave(&mut self, step: usize) {
        for slot in self.victims(step, 1) {
            self.note("leave", || format!("slot {slot}"));
            self.grove.leave(slot);
        }
    }

    fn pause(&mut self, step: usize) {
        for slot in self.victims(step, 1) {
            let steps = self.dice.random_range(1..12);
            self.note("pause", || format!("slot {slot}"));
            self.grove.pause(slot);
            self.paused.push((slot, step + steps));
        }
    }

    fn isolate(&mut self, step: usize, long: bool) {
        let Some(slot) = self.victims(step, 1).pop() else { return };
        if long && !self.is_bystander(slot) {
            return;
        }
        let steps = if long { self.dice.random_range(12..24) } else { 1 };
        self.note("isolation", || format!("slot {slot}"));
        let cut = self.grove.isolate(slot);
        self.cuts.push(Severed { cut, apart: vec![slot], until: step + steps });
    }

    fn part(&mut self, step: usize, both: bool) {
        let &[a, b, _, _] = &self.some_ready(4)[..] else { return };
        if self.are_neighbours(a, b) {
            return;
        }
        let (event, cut) = match both {
            true => ("cut between two", Cut::pair(a, b)),
            false => ("one-way cut", Cut::OneWay { from: [a].into(), to: [b].into() }),
        };
        self.note(event, || format!("slots {a} and {b}"));
        let cut = self.grove.cut(cut);
        let until = step + self.dice.random_range(1..6);
        self.cuts.push(Severed { cut, apart: Vec::new(), until });
    }

    /// Neighbours are parted by a deed of their own.
    fn are_neighbours(&self, a: usize, b: usize) -> bool {
        let ring = |slot: usize| self.grove.stack(slot).ring().leaf_set();
        let knows = |slot: usize, other: usize| {
            let near = ring(slot).left().into_iter().chain(ring(slot).right());
            near.into_iter().any(|peer| peer.id == self.grove.id(other))
        };
        knows(a, b) || knows(b, a)
    }

    fn join(&mut self, edge: bool) {
        let through = self.some_ready(3);
        if through.is_empty() || self.grove.world.slots() >= 2 * self.plan.nodes + 4 {
            return;
        }
        self.note(if edge { "edge node" } else { "late join" }, || format!("through {through:?}"));
        match edge {
            true => self.grove.add_edge(&through),
            false => self.grove.add(&through),
        };
    }

    fn add_subscriber(&mut self) {
        let topic = self.dice.random_range(0..self.topics.len());
        if let Some(&slot) = self.inhabited().choose(&mut self.dice) {
            self.grove.count("late subscription", 1);
            self.subscribe(slot, topic);
        }
    }

    fn end_subscription(&mut self) {
        if self.subscriptions.is_empty() {
            return;
        }
        let subscription =
            self.subscriptions.swap_remove(self.dice.random_range(0..self.subscriptions.len()));
        let watched = &self.grove.history.subscriptions[&subscription];
        if watched.ended.is_none() && self.grove.world.is_running(watched.slot) {
            self.note("end of a subscription", || format!("{subscription:?}"));
            self.grove.unsubscribe(subscription);
        }
    }

    /// A subscriber comes that takes little and then nothing.
    fn stall(&mut self) {
        let topic = self.dice.random_range(0..self.topics.len());
        if let Some(&slot) = self.inhabited().choose(&mut self.dice) {
            self.note("stalled application", || format!("slot {slot}, topic {topic}"));
            let subscription = self.grove.subscribe_stalled(slot, &self.topics[topic], 3);
            self.stalled.push(subscription);
        }
    }

    fn burst(&mut self) {
        let topic = self.dice.random_range(0..self.topics.len());
        self.grove.count("burst", 1);
        for _ in 0..self.dice.random_range(10..60) {
            self.publish(topic);
        }
    }

    // Afterwards.

    fn make_peace(&mut self) {
        self.tell(|| "peace".to_string());
        self.grove.world.set_faults(Faults::default());
        for severed in std::mem::take(&mut self.cuts) {
            self.heal(&severed);
        }
        for (slot, _) in std::mem::take(&mut self.paused) {
            self.grove.resume(slot);
        }
        for hampered in std::mem::take(&mut self.hampered) {
            self.free(&hampered);
        }
        for subscription in std::mem::take(&mut self.stalled) {
            self.unstall(subscription);
        }
    }

    /// Every promise, within its bound.
    fn review(&mut self) -> Verdict {
        self.grove.advance_until(RING_BOUND, |grove| {
            use crate::check::{o3, o4};
            grove.judge(&[], |scene| o3::judge(scene).and_then(|()| o4::judge_open(scene)))
        })?;
        self.grove.advance_until(TREE_BOUND, Grove::is_whole)?;
        self.grove.advance_until(END_BOUND, Grove::is_well)?;
        self.reach_all()?;
        self.grove.advance_until(END_BOUND, Grove::is_well)?;
        self.grove.review()?;
        self.grove.advance_until(SHAPE_BOUND, Grove::is_shapely)?;
        self.grove.rest(SECOND * 5)
    }

    /// New messages come to everybody, without delay.
    fn reach_all(&mut self) -> Verdict {
        let publishers: Vec<usize> = self.inhabited().into_iter().take(3).collect();
        let each = |topics: &[Topic]| -> Vec<(usize, Topic)> {
            publishers
                .iter()
                .flat_map(|&slot| topics.iter().map(move |topic| (slot, topic.clone())))
                .collect()
        };
        for (slot, topic) in each(&self.topics) {
            self.await_receipt(slot, &topic)?;
        }
        self.grove.begin_calm();
        for (slot, topic) in each(&self.topics) {
            if self.inhabited().contains(&slot) {
                self.grove.publish(slot, &topic, self.plan.payload);
            }
        }
        self.grove.advance(SECOND * 2)
    }

    /// Publishes until there is a receipt: for a while after the loss of a root its heir does not know which sessions
    /// there were, and gives no receipt for what may be a repetition.
    fn await_receipt(&mut self, slot: usize, topic: &Topic) -> Verdict {
        let begin = self.grove.world.now();
        while self.grove.world.now() - begin < RECEIPT_BOUND {
            if !self.inhabited().contains(&slot) {
                // It was told to leave, and has gone only now.
                return Ok(());
            }
            let token = self.grove.publish(slot, topic, 64);
            self.grove.advance_until(END_BOUND, |grove| grove.judge(&[], s4::judge_open))?;
            if matches!(self.grove.history.publications[&token].outcome, Some((_, Ok(_)))) {
                return Ok(());
            }
            self.grove.advance(SECOND)?;
        }
        let what = format!("slot {slot} publishes for {RECEIPT_BOUND:?}, all being well, and has no receipt");
        Err(Promise::S4.broken(what))
    }
}

/// Whether every node is on the ring, or hangs on it, or has given up.
fn is_started(grove: &Grove) -> Verdict {
    let waiting =
        grove.stacks().find(|(_, s)| !matches!(s.ring().standing(), Standing::Ready | Standing::Edge));
    match waiting {
        Some((slot, stack)) => {
            let (id, standing) = (stack.peer().id, stack.ring().standing());
            Err(Promise::O3.broken(format!("slot {slot} ({id:?}) is {standing:?}")))
        }
        None => Ok(()),
    }
}

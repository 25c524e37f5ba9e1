//! One seed's run: a ring grows, topics live on it, what the plan allows happens to both, then peace, and all promises.

use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use treecast_overlay::id::Key;
use treecast_overlay::pastry::Node;
use treecast_overlay::random::Rng;
use treecast_scribe::Topic;

use super::plan::Plan;
use crate::check::{Promise, Verdict};
use crate::cluster::Cluster;
use crate::node::RingNode;
use crate::timeline::{Action, Timeline};
use crate::world::{Case, Faults};

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
/// A run of one plan.
pub struct SwarmRun<N: RingNode = Node> {
    /// The world, and what is being done to it.
    pub timeline: Timeline<N>,
    /// The seed's plan.
    pub plan: Plan,
    pub(super) dice: Rng,
    pub(super) topics: Vec<Topic>,
    /// How many failed within the last steps: (step, how many).
    pub(super) failures: Vec<(usize, usize)>,
}

impl<N: RingNode> SwarmRun<N> {
    /// Nothing has happened yet.
    pub fn new(case: Case, plan: Plan) -> SwarmRun<N> {
        let (ring, forest) = (plan.ring.clone(), plan.forest.clone());
        let cluster = Cluster::with(case, plan.network.clone(), ring, forest);
        let topic = |i| Topic::new(&format!("swarm/{i}")).expect("a name");
        SwarmRun {
            dice: cluster.world.stream("turmoil"),
            topics: (0..plan.topics).map(topic).collect(),
            timeline: Timeline::new(cluster),
            plan,
            failures: Vec::new(),
        }
    }

    /// From the first node to the last verdict.
    pub fn run(&mut self) -> Verdict {
        self.grow()?;
        self.inhabit()?;
        for step in 0..self.plan.steps {
            self.end_what_lasted(step);
            self.work();
            if let Some(&deed) = self.plan.deeds.choose(&mut self.dice)
                && let Some((action, steps)) = self.draw(step, deed)
            {
                // A draw looks before it says what; but an end of a subscription may come too late.
                let _ = self.timeline.perform_until((step + steps) as u64, action);
            }
            let wait = Duration::from_millis(self.dice.random_range(200..2000));
            self.timeline.cluster.advance(wait)?;
        }
        self.make_peace();
        self.review()
    }

    // Before.

    fn grow(&mut self) -> Verdict {
        let plan = self.plan.clone();
        if plan.early {
            self.timeline.cluster.world.set_faults(plan.weather);
        }
        self.timeline.cluster.add(&[]);
        self.timeline.cluster.advance(SECOND / 2)?;
        for _ in 1..plan.nodes {
            let mut seeds = self.some_ready(3);
            seeds.push(0);
            self.timeline.cluster.add(&seeds);
            self.timeline.cluster.advance(plan.join_within / plan.nodes as u32)?;
        }
        self.timeline.cluster.advance_until(STARTED, Cluster::is_started)?;
        let failed = &self.timeline.cluster.failed_starts;
        // Where all come at once, one may run out of time although nothing is lost.
        if failed.len() > 1 && !(plan.early && plan.weather != Faults::default()) {
            return Err(Promise::O3.broken(format!("starts failed in good weather: {failed:?}")));
        }
        self.timeline.cluster.world.set_faults(plan.weather);
        Ok(())
    }

    /// Applications move in.
    fn inhabit(&mut self) -> Verdict {
        for topic in self.topics.clone() {
            for slot in self.inhabited() {
                if self.dice.random_bool(self.plan.subscribers) {
                    let topic = topic.clone();
                    self.perform(Action::Subscribe { slot, topic, takes: None, late: false });
                }
            }
        }
        self.timeline.cluster.advance(SECOND * 3)
    }

    /// Slots whose nodes run: all have applications.
    pub(super) fn inhabited(&self) -> Vec<usize> {
        let world = &self.timeline.cluster.world;
        (0..world.slots()).filter(|&slot| world.is_running(slot)).collect()
    }

    pub(super) fn some_ready(&mut self, count: usize) -> Vec<usize> {
        let mut ready = self.timeline.cluster.ready();
        ready.shuffle(&mut self.dice);
        ready.truncate(count);
        ready
    }

    fn perform(&mut self, action: Action) {
        // The nodes that it is about run: that was asked before.
        let _ = self.timeline.perform(action);
    }

    // Meanwhile.

    /// Lookups and publications, which go on all the time.
    fn work(&mut self) {
        for slot in self.some_ready(2) {
            let key = match self.dice.random_bool(0.5) {
                true => Key(self.dice.random()),
                false => self.topics[0].id().key(),
            };
            self.perform(Action::LookUp(Some((slot, key))));
        }
        for _ in 0..self.dice.random_range(0..4) {
            let topic = self.dice.random_range(0..self.topics.len());
            let slots = self.inhabited().choose(&mut self.dice).copied().into_iter().collect();
            let (topic, bytes) = (self.topics[topic].clone(), self.plan.payload);
            self.perform(Action::Publish { slots, topic, bytes, burst: false });
        }
    }

    fn end_what_lasted(&mut self, step: usize) {
        self.timeline.end_due(step as u64);
        if self.dice.random_bool(0.2)
            && let Some((_, subscription)) = self.timeline.stalled.pop()
        {
            self.perform(Action::Unstall(vec![subscription]));
        }
    }

    // Afterwards.

    fn make_peace(&mut self) {
        self.timeline.tell(|| "peace".to_string());
        self.timeline.cluster.world.set_faults(Faults::default());
        self.timeline.end_all();
        let stalled = std::mem::take(&mut self.timeline.stalled);
        self.perform(Action::Unstall(stalled.into_iter().map(|(_, id)| id).collect()));
    }

    /// Every promise, within its bound.
    fn review(&mut self) -> Verdict {
        self.timeline.cluster.advance_until(RING_BOUND, Cluster::is_one_ring)?;
        self.timeline.cluster.advance_until(TREE_BOUND, Cluster::is_attached)?;
        self.timeline.cluster.advance_until(END_BOUND, Cluster::is_well)?;
        self.reach_all()?;
        let cluster = &mut self.timeline.cluster;
        cluster.advance_until(END_BOUND, Cluster::is_well)?;
        cluster.review()?;
        cluster.advance_until(SHAPE_BOUND, Cluster::is_shapely)?;
        cluster.rest(SECOND * 5)
    }

    /// New messages come to everybody, without delay.
    fn reach_all(&mut self) -> Verdict {
        let publishers: Vec<usize> = self.inhabited().into_iter().take(3).collect();
        let topics = self.topics.clone();
        let each = || publishers.iter().flat_map(|&slot| topics.iter().map(move |topic| (slot, topic)));
        for (slot, topic) in each() {
            self.await_receipt(slot, topic)?;
        }
        self.timeline.cluster.begin_calm();
        for (slot, topic) in each() {
            if self.inhabited().contains(&slot) {
                self.timeline.cluster.publish(slot, topic, self.plan.payload);
            }
        }
        self.timeline.cluster.advance(SECOND * 2)
    }

    /// Publishes until there is a receipt: for a while after the loss of a root its heir does not know which sessions
    /// there were, and gives no receipt for what may be a repetition.
    fn await_receipt(&mut self, slot: usize, topic: &Topic) -> Verdict {
        let begin = self.timeline.cluster.now();
        while self.timeline.cluster.now() - begin < RECEIPT_BOUND {
            if !self.inhabited().contains(&slot) {
                // It was told to leave, and has gone only now.
                return Ok(());
            }
            let cluster = &mut self.timeline.cluster;
            let token = cluster.publish(slot, topic, 64);
            cluster.advance_until(END_BOUND, Cluster::is_answered)?;
            if matches!(cluster.history.publications[&token].outcome, Some((_, Ok(_)))) {
                return Ok(());
            }
            cluster.advance(SECOND)?;
        }
        let what = format!("slot {slot} publishes for {RECEIPT_BOUND:?}, all being well, and has no receipt");
        Err(Promise::S4.broken(what))
    }
}

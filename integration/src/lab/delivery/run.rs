//! One ring with its topics: messages are published, nodes are killed, leave and come, and all is accounted for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_scribe::event::Command;
use treecast_scribe::{Start, Topic, TopicId};

use super::account::{Account, Held, Totals};
use super::births::{BirthCounts, Deaths};
use super::counting::Times;
use super::members::{Replacements, root, root_slot};
use super::tap::{Cost, DeliveryTap};
use super::{Blow, Victim};
use crate::cluster::Cluster;
use crate::lab::Progress;
use crate::lab::groups::Groups;
use crate::lab::meter::numbered;
use crate::node::RingNode;
use crate::world::{Crash, Faults, Shared};

/// Between two deaths.
const BETWEEN: Duration = Duration::from_secs(10);
/// How often what is open is looked at: the grain of what is said of members.
const LOOK: Duration = Duration::from_millis(20);
/// How often what is settled is forgotten.
const SWEEP: Duration = Duration::from_secs(1);
/// How long the last messages are waited for.
const DRAIN: Duration = Duration::from_secs(90);
/// Copies that come so late would be duplicates.
const LATE: Duration = Duration::from_secs(5);
/// Items that each subscriber takes: far more than there are.
const CREDIT: u32 = 1 << 24;
/// Bytes of a message.
pub(super) const PAYLOAD: usize = 100;
/// Longest way up that is followed.
const MAX_DEPTH: usize = 64;

/// A run to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeliveryPlan {
    pub(super) blow: Blow,
    /// Messages a second on each topic.
    pub(super) rate: f64,
    pub(super) publishers: usize,
    pub(super) loss: f64,
    pub(super) time: Duration,
    pub(super) copies: usize,
    /// Deaths are told on stderr.
    pub(super) tells: bool,
}

/// What came of it.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) totals: Totals,
    pub(super) cost: Cost,
    pub(super) births: BirthCounts,
    pub(super) named: Times,
    pub(super) replica_named: Times,
    pub(super) full_again: Times,
    /// Dead members that nobody has replaced, and members that do not hold all.
    pub(super) missing: (u64, u64),
    pub(super) never_recovered: u64,
    pub(super) killed: u64,
    pub(super) left: u64,
    /// Deaths for which there was no node.
    pub(super) skipped: u64,
    pub(super) joined: u64,
    /// Topics a majority of whose members were removed, and all of them.
    pub(super) majority_removed: u64,
    pub(super) all_removed: u64,
    /// Bytes of all frames.
    pub(super) bytes: u64,
    pub(super) drained: Duration,
    pub(super) words: Vec<String>,
}

/// Things to do, in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Publish(u32),
    Strike,
    Look,
    Sweep,
}

struct DeliveryRun<'a, N: RingNode> {
    cluster: Cluster<N>,
    plan: DeliveryPlan,
    topics: &'a [Topic],
    /// By topic.
    publishers: Vec<Vec<usize>>,
    account: Shared<Account>,
    tap: Shared<DeliveryTap>,
    deaths: Deaths,
    held: Held,
    replacements: Replacements,
    /// By slot, the topics that a newcomer subscribes to.
    heirs: BTreeMap<usize, Vec<u32>>,
    tasks: BinaryHeap<Reverse<(Instant, u64, Task)>>,
    numbers: u64,
    /// Messages published so far, by topic.
    sent: Vec<usize>,
    /// The topic whose turn it is.
    turn: usize,
    end: Instant,
    dice: Rng,
    outcome: Outcome,
}

/// Runs it on a ring whose subscriptions have their starts. The ring comes back for its figures.
pub(super) fn run<N: RingNode>(
    mut cluster: Cluster<N>,
    groups: &Groups,
    tap: Shared<DeliveryTap>,
    plan: DeliveryPlan,
    progress: &Progress,
) -> (Cluster<N>, Outcome) {
    let mut dice = cluster.world.stream("lab/delivery");
    let publishers = publishers(&cluster, &groups.topics, plan, &mut dice);
    let now = cluster.now();
    let ids = groups.topics.iter().map(Topic::id);
    let mut account = Account::new(ids, plan.copies as u32);
    for &(topic, slot) in &groups.memberships {
        account.add_subscriber(topic, slot as usize, Some(now));
    }
    let account = Shared::new(account.into());
    let (book, bytes) = (Shared::clone(&account), cluster.world.counters().total().bytes);
    cluster.world.hand_events_to(move |at, slot, event| book.borrow_mut().note(at, slot, event));
    cluster.world.set_faults(Faults { loss: plan.loss, ..Faults::default() });
    tap.borrow_mut().counting = true;
    let mut run = DeliveryRun {
        plan,
        topics: &groups.topics,
        publishers,
        account,
        tap,
        deaths: Deaths::default(),
        held: Held::default(),
        replacements: Replacements::new(plan.copies),
        heirs: BTreeMap::new(),
        tasks: BinaryHeap::new(),
        numbers: 0,
        sent: vec![0; groups.topics.len()],
        turn: 0,
        end: now + plan.time,
        dice,
        outcome: Outcome::default(),
        cluster,
    };
    run.begin(now);
    run.publish_all(progress);
    run.drain(progress);
    run.outcome.bytes = run.cluster.world.counters().total().bytes - bytes;
    run.finish()
}

/// Publishers of each topic: nodes that stand far from all keys, because those near to one become its root and are killed.
/// A mass removal spares as many as it must; of a mass leave two nodes stay.
fn publishers<N: RingNode>(
    cluster: &Cluster<N>,
    topics: &[Topic],
    plan: DeliveryPlan,
    dice: &mut Rng,
) -> Vec<Vec<usize>> {
    let mut near: BTreeMap<u32, usize> = BTreeMap::new();
    for topic in topics {
        let key = topic.id().key();
        let (right, left) = (cluster.roster.clockwise(key), cluster.roster.counterclockwise(key));
        for (side, place) in
            right.zip(left).zip(0..).flat_map(|((r, l), place)| [(r, place), (l, place)]).take(64)
        {
            let least = near.entry(side.1).or_insert(usize::MAX);
            *least = place.min(*least);
        }
    }
    let mut nodes: Vec<u32> = cluster.roster.iter().map(|(_, slot)| slot).collect();
    nodes.shuffle(dice);
    nodes.sort_by_key(|slot| Reverse(near.get(slot).copied().unwrap_or(usize::MAX)));
    let few = if plan.blow == Blow::MassLeave { 2 } else { (nodes.len() / 10).max(2) };
    nodes.truncate(few);
    let mut draw = || nodes[dice.random_range(0..nodes.len())] as usize;
    topics.iter().map(|_| (0..plan.publishers).map(|_| draw()).collect()).collect()
}

impl<N: RingNode> DeliveryRun<'_, N> {
    fn plan_at(&mut self, at: Instant, task: Task) {
        self.numbers += 1;
        self.tasks.push(Reverse((at, self.numbers, task)));
    }

    fn begin(&mut self, now: Instant) {
        let interval = 1.0 / self.plan.rate;
        for topic in 0..self.topics.len() {
            let share = (topic as f64 + 0.5) / self.topics.len() as f64;
            self.plan_at(now + Duration::from_secs_f64(share * interval), Task::Publish(topic as u32));
        }
        match self.plan.blow {
            Blow::Kill(Victim::None) => {}
            Blow::Kill(_) => self.plan_at(now + BETWEEN, Task::Strike),
            Blow::Remove(_) | Blow::MassLeave => self.plan_at(now + self.plan.time / 2, Task::Strike),
        }
        self.plan_at(now + LOOK, Task::Look);
        self.plan_at(now + SWEEP, Task::Sweep);
    }

    fn publish_all(&mut self, progress: &Progress) {
        let begin = self.cluster.now();
        progress.phase("publishing", self.plan.time.as_secs());
        while self.cluster.now() < self.end {
            self.pass(self.end);
            let passed = self.cluster.now() - begin;
            progress.at(passed.as_secs(), format!("{} deliveries", self.account.borrow().totals.deliveries));
        }
    }

    /// Nobody is killed any more; the last messages are waited for, and dead members' places.
    fn drain(&mut self, progress: &Progress) {
        let begin = self.cluster.now();
        progress.phase("last messages", DRAIN.as_secs());
        self.tasks.retain(|Reverse((_, _, task))| matches!(task, Task::Look | Task::Sweep));
        while self.cluster.now() - begin < DRAIN && !self.is_settled() {
            self.pass(begin + DRAIN);
        }
        self.outcome.drained = self.cluster.now() - begin;
        let end = self.cluster.now() + LATE;
        while self.cluster.now() < end {
            self.pass(end);
        }
    }

    fn is_settled(&self) -> bool {
        self.account.borrow().open() == 0 && self.replacements.is_over() && self.heirs.is_empty()
    }

    /// Time passes until the next task, which is carried out, or until `end`.
    fn pass(&mut self, end: Instant) {
        let due = self.tasks.peek().map_or(end, |Reverse((at, ..))| *at);
        let now = self.cluster.now();
        if due > now {
            self.cluster.world.run_for(due.min(end) - now);
        }
        if due <= end
            && let Some(Reverse((at, _, task))) = self.tasks.pop()
        {
            self.act(at, task);
        }
    }

    fn act(&mut self, at: Instant, task: Task) {
        match task {
            Task::Publish(topic) => {
                self.publish(topic);
                self.plan_at(at + Duration::from_secs_f64(1.0 / self.plan.rate), task);
            }
            Task::Strike => self.strike(at),
            Task::Look => {
                self.take_news();
                self.deaths.judge(&mut self.tap.borrow_mut().ledger);
                self.replacements.look(&self.cluster);
                self.plan_at(at + LOOK, task);
            }
            Task::Sweep => {
                self.sweep(false);
                self.plan_at(at + SWEEP, task);
            }
        }
    }

    fn sweep(&mut self, is_end: bool) {
        let (now, tap) = (self.cluster.now(), self.tap.borrow());
        self.account.borrow_mut().sweep(now, &tap.ledger, &self.deaths, &self.held, is_end);
    }

    fn publish(&mut self, topic: u32) {
        let place = topic as usize;
        let all = &self.publishers[place];
        let slot = all[self.sent[place] % all.len()];
        self.sent[place] += 1;
        if !self.cluster.world.is_running(slot) {
            return;
        }
        let token = self.account.borrow_mut().begin(topic, self.cluster.now());
        let payload = numbered(token.0 as usize, PAYLOAD);
        self.cluster
            .world
            .command(slot, Command::Publish { token, topic: self.topics[place].clone(), payload });
    }

    // Coming and going.

    fn strike(&mut self, at: Instant) {
        match self.plan.blow {
            Blow::Kill(victim) => {
                self.strike_one(victim);
                if at + BETWEEN * 2 <= self.end {
                    self.plan_at(at + BETWEEN, Task::Strike);
                }
            }
            Blow::Remove(percent) => self.remove(percent),
            Blow::MassLeave => self.leave_all(),
        }
    }

    fn strike_one(&mut self, victim: Victim) {
        let topic = self.turn % self.topics.len();
        self.turn += 1;
        let Some(slot) = self.choose(victim, topic).filter(|&slot| !self.is_publisher(slot)) else {
            self.outcome.skipped += 1;
            return;
        };
        self.note_affected(&[slot]);
        let heirloom = if victim == Victim::Leave {
            self.replacements.on_death(&self.cluster, slot);
            self.leave(slot)
        } else {
            self.kill(slot)
        };
        let newcomer = self.cluster.join() as usize;
        self.heirs.insert(newcomer, heirloom);
    }

    fn choose(&mut self, victim: Victim, topic: usize) -> Option<usize> {
        match victim {
            Victim::Root | Victim::Leave => root_slot(&self.cluster, &self.topics[topic]),
            Victim::Forwarder => {
                self.cluster.parents(&self.topics[topic]).into_iter().find(|&slot| !self.is_publisher(slot))
            }
            Victim::Member => {
                let root = root(&self.cluster, self.topics[topic].id())?;
                let own = root_slot(&self.cluster, &self.topics[topic]);
                let members = root.configurations().last()?.members.iter();
                let slots = members.filter_map(|member| self.cluster.roster.slot_of(member.peer.id));
                let slots: Vec<usize> =
                    slots.filter(|&slot| Some(slot) != own && !self.is_publisher(slot)).collect();
                slots.choose(&mut self.dice).copied()
            }
            Victim::Random => (0..100).find_map(|_| {
                let slot = self.cluster.roster.any(&mut self.dice)? as usize;
                (!self.is_publisher(slot)).then_some(slot)
            }),
            Victim::None => None,
        }
    }

    fn is_publisher(&self, slot: usize) -> bool {
        self.publishers.iter().any(|all| all.contains(&slot))
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.plan.tells {
            eprintln!("{} == {}", self.cluster.now(), what());
        }
    }

    /// A node dies. Returns the topics that it subscribed to.
    fn kill(&mut self, slot: usize) -> Vec<u32> {
        self.outcome.killed += 1;
        self.tell(|| format!("#{slot} dies: {:?}", self.cluster.id(slot)));
        self.replacements.on_death(&self.cluster, slot);
        self.deaths.add(self.cluster.id(slot), self.cluster.now());
        self.cluster.crash(slot, Crash::Power);
        self.heirs.remove(&slot);
        self.tap.borrow_mut().forget(slot);
        self.account.borrow_mut().end_node(slot)
    }

    /// A node is told to leave: its applications end at once.
    fn leave(&mut self, slot: usize) -> Vec<u32> {
        self.outcome.left += 1;
        self.tell(|| format!("#{slot} is told to leave: {:?}", self.cluster.id(slot)));
        let topics = self.account.borrow_mut().end_node(slot);
        self.cluster.leave(slot);
        topics
    }

    /// Nodes die at once.
    fn remove(&mut self, percent: f64) {
        let mut nodes: Vec<usize> = self.cluster.roster.iter().map(|(_, slot)| slot as usize).collect();
        nodes.shuffle(&mut self.dice);
        let count = (nodes.len() as f64 * percent / 100.0).round() as usize;
        nodes.retain(|&slot| !self.is_publisher(slot));
        nodes.truncate(count);
        self.note_affected(&nodes);
        for &slot in &nodes {
            self.kill(slot);
        }
        self.note_held();
    }

    /// How far the survivors' logs reach, and which topics have lost a majority.
    fn note_held(&mut self) {
        for (_, stack) in self.cluster.stacks() {
            for place in stack.forest().places() {
                let Some(birth) = place.birth() else { continue };
                let until = place.commit();
                let kept = place.window().start.min(until)..until;
                self.held.0.entry(place.topic()).or_default().push((birth, kept));
            }
        }
        let (tap, now) = (self.tap.borrow(), self.cluster.now());
        for topic in self.topics {
            self.outcome.majority_removed +=
                u64::from(self.deaths.majority_is_dead(&tap.ledger, topic.id(), now));
            let is_left = |(_, stack): (usize, &treecast_scribe::Stack<N>)| {
                stack.forest().place(topic.id()).is_some_and(|place| place.life().is_some())
            };
            self.outcome.all_removed += u64::from(!self.cluster.stacks().any(is_left));
        }
    }

    /// All but the publishers leave in the same instant.
    fn leave_all(&mut self) {
        let mut nodes: Vec<usize> = self.cluster.roster.iter().map(|(_, slot)| slot as usize).collect();
        nodes.retain(|&slot| !self.is_publisher(slot));
        self.note_affected(&nodes);
        nodes.into_iter().for_each(|slot| drop(self.leave(slot)));
    }

    /// These nodes are about to go: notes the subscriptions below them, and the topics of which they are roots.
    fn note_affected(&mut self, slots: &[usize]) {
        let (now, mut account) = (self.cluster.now(), self.account.borrow_mut());
        for topic in 0..self.topics.len() as u32 {
            let id = self.topics[topic as usize].id();
            let place =
                |slot: usize| self.cluster.world.machine(slot).and_then(|stack| stack.forest().place(id));
            if !slots.iter().any(|&slot| place(slot).is_some()) {
                continue;
            }
            let root_dies = slots.iter().any(|&slot| place(slot).is_some_and(|place| place.is_root()));
            if root_dies {
                account.on_root_killed(topic, now);
            }
            let seats = account.living(topic).to_vec();
            for seat in seats {
                let subscriber = &mut account.subscribers[seat as usize];
                if is_below(&self.cluster, id, subscriber.slot, slots) {
                    subscriber.awaits_root &= subscriber.awaits.is_some();
                    subscriber.awaits_root |= root_dies;
                    subscriber.awaits.get_or_insert(now);
                }
            }
        }
    }

    /// Nodes that got ready, that did not, and that have left.
    fn take_news(&mut self) {
        let news = std::mem::take(&mut self.account.borrow_mut().news);
        for slot in news.ready {
            let id = self.cluster.id(slot);
            self.cluster.roster.insert(id, slot as u32);
            self.outcome.joined += 1;
            for topic in self.heirs.remove(&slot).unwrap_or_default() {
                let subscription = self.account.borrow_mut().add_subscriber(topic, slot, None);
                let topic = self.topics[topic as usize].clone();
                let command =
                    Command::Subscribe { subscription, topic, start: Start::Latest, credit: CREDIT };
                self.cluster.world.command(slot, command);
            }
        }
        for slot in news.left.into_iter().chain(news.failed) {
            if self.cluster.world.machine(slot).is_none() {
                continue;
            }
            self.cluster.world.stop(slot);
            self.cluster.roster.remove(slot as u32);
            self.tap.borrow_mut().forget(slot);
            if let Some(topics) = self.heirs.remove(&slot) {
                let again = self.cluster.join() as usize;
                self.heirs.insert(again, topics);
            }
        }
    }

    fn finish(mut self) -> (Cluster<N>, Outcome) {
        self.deaths.judge(&mut self.tap.borrow_mut().ledger);
        self.sweep(true);
        let (mut account, tap) = (self.account.borrow_mut(), self.tap.borrow());
        let outcome = &mut self.outcome;
        outcome.never_recovered = account.waiting();
        outcome.totals = std::mem::take(&mut account.totals);
        outcome.cost = tap.cost;
        outcome.births = self.deaths.counts(&tap.ledger);
        outcome.words = self.deaths.words(&tap.ledger);
        outcome.words.extend(self.replacements.words());
        outcome.missing = self.replacements.open();
        outcome.named = std::mem::take(&mut self.replacements.named);
        outcome.replica_named = std::mem::take(&mut self.replacements.replica_named);
        outcome.full_again = std::mem::take(&mut self.replacements.full_again);
        drop((account, tap));
        (self.cluster, self.outcome)
    }
}

/// Whether one of these nodes is on a node's way up.
fn is_below<N: RingNode>(cluster: &Cluster<N>, topic: TopicId, slot: usize, nodes: &[usize]) -> bool {
    let mut at = slot;
    for _ in 0..MAX_DEPTH {
        let place = cluster.world.machine(at).and_then(|stack| stack.forest().place(topic));
        let parent = place.and_then(|place| place.parent()).and_then(|parent| cluster.roster.slot_of(parent));
        let Some(parent) = parent else { return false };
        if nodes.contains(&parent) {
            return true;
        }
        at = parent;
    }
    false
}

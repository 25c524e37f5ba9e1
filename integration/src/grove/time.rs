//! How time passes in a grove: the applications fetch what comes, the judges are asked, rare events are noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::machine::Machine;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Standing;
use treecast_scribe::event::{Command, Event, SubscriptionId, Token};
use treecast_scribe::{Item, PublishError, Receipt, TopicId};

use super::Grove;
use crate::check::{self, FanOut, Promise, Scene, Seen, Verdict, When, o1};
use crate::history::Watched;
use crate::witness::{Decision, Rest};

/// How long applications take to fetch what has come; and how often the promises are judged that hold at any instant.
const SLICE: Duration = Duration::from_millis(50);
/// How often what costs more is judged.
const SECOND: Duration = Duration::from_secs(1);
/// How often all that ever happened is judged.
const ROUND: Duration = Duration::from_secs(5);
/// Random keys, besides all borders, for which is asked who answers.
const KEYS: usize = 2;

impl Grove {
    /// Lets time pass; the applications fetch what comes. Panics at a broken promise.
    pub fn run(&mut self, time: Duration) {
        self.advance(time).unwrap_or_else(|breach| panic!("{breach}"));
    }

    /// Lets time pass; the applications fetch what comes. Says which promise is broken, if one is: of those that hold
    /// whatever happens.
    pub fn advance(&mut self, time: Duration) -> Verdict {
        let end = self.world.now() + time;
        while self.world.now() < end {
            self.pass(SLICE.min(end - self.world.now()))?;
            self.fetch()?;
            self.judge_always()?;
        }
        Ok(())
    }

    /// Lets time pass until `done`, and says how long that took; with its last word if time is up.
    pub fn advance_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Grove) -> Verdict,
    ) -> Result<Duration, check::Breach> {
        let begin = self.world.now();
        loop {
            match done(self) {
                Ok(()) => return Ok(self.world.now() - begin),
                Err(check::Breach { promise, what }) if self.world.now() - begin >= limit => {
                    return Err(promise.broken(format!("within {limit:?}: {what}")));
                }
                Err(_) => self.advance(SLICE * 2)?,
            }
        }
    }

    /// Lets time pass until `done`, and says how long that took. Panics with its last word when time is up.
    pub fn run_until(&mut self, limit: Duration, done: impl FnMut(&Grove) -> Verdict) -> Duration {
        self.advance_until(limit, done).unwrap_or_else(|breach| panic!("{breach}"))
    }

    /// Answers are judged at their own instant, in the state that the answering node was left in.
    fn pass(&mut self, time: Duration) -> Verdict {
        std::mem::replace(&mut self.unheard, Ok(()))?;
        let end = self.world.now() + time;
        loop {
            let witness = self.witness.clone();
            let rest = end - self.world.now();
            let stopped = self.world.run_until(rest, |_| !witness.borrow().decisions.is_empty());
            self.judge_decisions()?;
            if stopped.is_err() {
                return Ok(());
            }
        }
    }

    pub(super) fn judge_decisions(&self) -> Verdict {
        let decisions: Vec<Decision> = std::mem::take(&mut self.witness.borrow_mut().decisions);
        let mut decisions = decisions.into_iter();
        decisions.try_for_each(|decision| self.judge(&[], |scene| o1::judge_decision(scene, decision)))
    }

    fn judge_always(&mut self) -> Verdict {
        let now = self.world.now();
        let keys: Vec<Key> = (0..KEYS).map(|_| Key(self.dice.random())).collect();
        self.review_lookups();
        self.judge(&keys, |scene| check::ask(When::Always, scene))?;
        let by_table = self.witness.borrow().hops.iter().filter(|hop| !hop.by_leaf_set).count() as u64;
        self.count("hop by the routing table", by_table);
        self.witness.borrow_mut().forget_judged();
        self.notice_demotions();
        let (second, round) = self.inspected;
        if now - second >= SECOND {
            self.inspected.0 = now;
            self.notice();
            self.judge(&[], |scene| check::ask(When::EachSecond, scene))?;
        }
        if now - round >= ROUND {
            self.inspected.1 = now;
            self.review()?;
        }
        Ok(())
    }

    /// The promise of an answer ends with its origin, and rests while that does.
    fn review_lookups(&mut self) {
        let (lives, world) = (&self.incarnations, &self.world);
        self.watch.lookups.open.retain(|_, asked| {
            asked.origin_runs = world.is_running(asked.slot);
            lives[asked.slot] == asked.life && world.machine(asked.slot).is_some()
        });
    }

    // What seldom happens.

    /// Counts an event.
    pub fn count(&mut self, event: &'static str, times: u64) {
        *self.events.entry(event).or_default() += times;
    }

    /// Who lost its leases while it stood on the ring, between the same neighbours as before: by others that come and go,
    /// one lacks a lease for a moment, too.
    fn notice_demotions(&mut self) {
        let (mut serving, mut demoted) = (BTreeMap::new(), 0);
        for (slot, stack) in self.stacks() {
            let (id, ring) = (stack.peer().id, stack.ring().leaf_set());
            let between = [ring.left(), ring.right()].map(|end| end.map(|peer| peer.id));
            if stack.ring().is_root_of(self.world.local_time(slot), id.key()) {
                serving.insert(id, between);
            } else if stack.ring().standing() == Standing::Ready
                && self.known.serving.get(&id) == Some(&between)
            {
                demoted += 1;
            }
        }
        self.known.serving = serving;
        self.count("demotion", demoted);
    }

    /// New roots, and nodes that were alone and are not any more.
    fn notice(&mut self) {
        let mut roots = BTreeMap::new();
        let (mut alone, mut together) = (BTreeSet::new(), BTreeSet::new());
        for (_, stack) in self.stacks() {
            let id = stack.peer().id;
            let trees = stack.forest().trees();
            roots.extend(trees.iter().filter(|tree| tree.is_root).map(|tree| (tree.topic, id)));
            if stack.ring().standing() == Standing::Ready {
                let set = if stack.ring().leaf_set().is_empty() { &mut alone } else { &mut together };
                set.insert(id);
            }
        }
        let known = |topic: &TopicId, id: &NodeId| self.known.roots.get(topic).is_some_and(|old| old != id);
        let changed = roots.iter().filter(|(topic, id)| known(topic, id)).count() as u64;
        // The first of a ring was alone, too, before the second came.
        let begun = self.known.was_ring;
        let merged = self.known.alone.intersection(&together).filter(|_| begun).count() as u64;
        self.known.was_ring |= together.len() > 2;
        self.known.roots.extend(roots);
        self.known.alone = alone;
        self.count("root change", changed);
        self.count("merge", merged);
        if self.watch.merging && self.judge(&[], check::o3::judge).is_ok() {
            self.watch.merging = false;
        }
    }

    // Applications.

    fn fetch(&mut self) -> Verdict {
        let mut consumed: BTreeMap<SubscriptionId, u32> = BTreeMap::new();
        for (at, slot, event) in self.world.take_events() {
            self.on_event(at, slot, event, &mut consumed)?;
        }
        for (subscription, items) in consumed {
            let watched = &self.history.subscriptions[&subscription];
            if watched.ended.is_none() && !watched.stalled {
                self.world.command(watched.slot, Command::Credit { subscription, items });
            }
        }
        Ok(())
    }

    fn on_event(
        &mut self,
        at: Instant,
        slot: usize,
        event: Event,
        consumed: &mut BTreeMap<SubscriptionId, u32>,
    ) -> Verdict {
        self.witness.borrow().tell(|| format!("{at} #{slot}: the application hears {event:?}"));
        match event {
            Event::Subscribed { subscription, mark } => {
                if self.watched(subscription).mark.replace((at, mark)).is_some() {
                    return Err(Promise::S5.broken(format!("{subscription:?} starts twice")));
                }
            }
            Event::SubscribeFailed { subscription, error } => {
                let watched = self.watched(subscription);
                watched.failed = Some(error);
                watched.ended.get_or_insert(at);
                self.count("failed subscription", 1);
            }
            Event::Item { subscription, item } => {
                self.on_item(at, subscription, item)?;
                *consumed.entry(subscription).or_default() += 1;
            }
            Event::Published { token, receipt } => self.on_outcome(at, token, Ok(receipt))?,
            Event::PublishFailed { token, error } => self.on_outcome(at, token, Err(error))?,
            Event::StartFailed(error) => {
                self.count("failed start", 1);
                self.failed_starts.push(format!("slot {slot} at {at}: {error}"));
                self.bury(slot);
                self.world.stop(slot);
                self.find_sides();
            }
            Event::Left | Event::Superseded { .. } => {
                self.bury(slot);
                self.world.stop(slot);
                self.find_sides();
            }
            Event::Found { token, found } => self.watch.lookups.on_found(at, token.0, &found),
            Event::NotFound { token, reason } => {
                self.watch.lookups.on_not_found(token.0, format!("{reason:?}"));
            }
            Event::Ready { .. } => self.count("rejoin", u64::from(self.incarnations[slot] > 1)),
            Event::Status { .. }
            | Event::ContactChanged(_)
            | Event::Broadcast { .. }
            | Event::BroadcastEnded { .. } => {}
        }
        Ok(())
    }

    fn on_item(&mut self, at: Instant, subscription: SubscriptionId, item: Item) -> Verdict {
        match &item {
            Item::Gap(_) => self.count("gap", 1),
            Item::ParentChanged(_) => self.count("new parent", 1),
            Item::Message(_) => {}
        }
        let watched = self.watched(subscription);
        if watched.mark.is_none() {
            return Err(Promise::S5.broken(format!("{subscription:?} yields before it starts")));
        }
        // What was under way when it ended belongs to nobody.
        if watched.ended.is_none_or(|ended| at < ended) {
            watched.items.push((at, item));
        }
        Ok(())
    }

    fn on_outcome(&mut self, at: Instant, token: Token, outcome: Result<Receipt, PublishError>) -> Verdict {
        self.count("unknown outcome", u64::from(matches!(outcome, Err(PublishError::OutcomeUnknown { .. }))));
        let offered = self.history.publications.get_mut(&token).expect("it was published");
        if let Ok(receipt) = &outcome {
            offered.birth = self.witness.borrow().births.get(&(receipt.id, receipt.position)).copied();
        }
        match offered.outcome.replace((at, outcome)) {
            None => Ok(()),
            Some(_) => Err(Promise::S4.broken(format!("{token:?} is answered twice"))),
        }
    }

    fn watched(&mut self, subscription: SubscriptionId) -> &mut Watched {
        self.history.subscriptions.get_mut(&subscription).expect("it was subscribed")
    }

    // Judgement.

    /// Has somebody look at the nodes that live, and at all that is known.
    pub fn judge(&self, keys: &[Key], judge: impl FnOnce(&Scene<'_>) -> Verdict) -> Verdict {
        let seen = self.stacks().map(|(slot, stack)| Seen {
            slot,
            runs: self.world.is_running(slot),
            clock: self.world.local_time(slot),
            node: stack.ring(),
            stack: Some(stack),
        });
        judge(&Scene {
            now: self.world.now(),
            nodes: seen.collect(),
            keys,
            watch: &self.watch,
            witness: &self.witness.borrow(),
            history: &self.history,
            limits: &self.limits,
            calm: self.calm,
            beat: self.forest.beat,
            fan_out: FanOut { tree: self.forest.tree_children, node: self.forest.node_children },
        })
    }

    /// Whether every subscriber is attached, and parents and children agree (promise S1).
    pub fn is_whole(&self) -> Verdict {
        self.judge(&[], check::s1::judge)
    }

    /// Whether no node has more children than it may, nor forwards for one child only (promise S1).
    pub fn is_shapely(&self) -> Verdict {
        self.judge(&[], |scene| check::ask(When::Shaped, scene))
    }

    /// Whether all that was published has been answered, and all that was delivered or acknowledged has come to
    /// every subscriber, or was announced to it as lost.
    pub fn is_settled(&self) -> Verdict {
        self.judge(&[], |scene| check::s4::judge_open(scene).and_then(|()| check::s5::judge(scene)))
    }

    /// Whether all promises are kept that hold once nothing fails any more.
    pub fn is_well(&self) -> Verdict {
        self.judge(&[], |scene| check::ask(When::Settled, scene))
    }

    /// Whether what was delivered and acknowledged is right, over all that happened.
    pub fn review(&self) -> Verdict {
        self.judge(&[], |scene| check::ask(When::EachRound, scene))
    }

    /// From now on all is well: what is published comes without delay.
    pub fn begin_calm(&mut self) {
        self.calm = Some(self.world.now());
    }

    /// Nobody does anything for so long; says whether the upkeep is as cheap as promised (S7).
    pub fn rest(&mut self, time: Duration) -> Verdict {
        let now = self.world.now();
        self.witness.borrow_mut().begin_rest(now);
        self.advance(time)?;
        let verdict = self.judge(&[], |scene| check::ask(When::AtRest, scene));
        self.witness.borrow_mut().rest = Rest::default();
        verdict
    }

    /// Waits until trees are whole and everything is settled, and judges. Says how long it took. Panics if it does not
    /// come to that, or at a broken promise.
    pub fn settle(&mut self, limit: Duration) -> Duration {
        let took = self.run_until(limit, |grove| {
            grove.is_whole()?;
            grove.is_settled()
        });
        self.review().unwrap_or_else(|breach| panic!("{breach}"));
        took
    }
}

/// What was last known of roots, leases and lonely nodes.
#[derive(Default)]
pub(super) struct Known {
    roots: BTreeMap<TopicId, NodeId>,
    /// Nodes that answer for their ids, and between whom.
    serving: BTreeMap<NodeId, [Option<NodeId>; 2]>,
    /// Nodes on the ring that know of nobody.
    alone: BTreeSet<NodeId>,
    /// There was a ring of several once.
    was_ring: bool,
}

//! A ring that lives: nodes come and go, lookups go on, and each answer is judged at the very instant at which it is
//! decided, by who holds the leases (promise O1), whatever else happens.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_scribe::event::{Command, Event, Token};

use super::Ring;
use super::lookups::words;
use super::passages::{Decision, Load, Passages};
use super::roster::Roster;
use crate::check::{Promise, Verdict, o1, o3};
use crate::watch::{REPAIR_LIMIT, Watch};
use crate::world::Crash;

/// How long an answer is waited for (promise O4).
pub const LIMIT: Duration = Duration::from_secs(60);
/// Nodes on each side of a key that are asked whether they answer for it.
const NEAR: usize = 8;
/// Likewise, for each border of the ring at a time.
const NEAR_BORDER: usize = 3;
/// Words of wrong answers that are kept.
const KEPT: usize = 20;

/// A lookup that waits for its answer.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    slot: u32,
    key: Key,
    /// Somebody decided to answer it.
    decided: bool,
    /// It was answered wrongly.
    wrong: bool,
    /// Its origin was paused meanwhile: it waits for nothing.
    rests: bool,
}

/// What became of lookups.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Launched.
    pub asked: u64,
    /// Answered in time.
    pub answered: u64,
    /// Not answered within [`LIMIT`], or by an error, though the origin lived and was not paused.
    pub lost: u64,
    /// Why, by the last word that came back, and how often.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Their origin died, or was paused, before there was an answer.
    pub abandoned: u64,
    /// Answered by a node that is not the closest of its side whose leases run, or while another answers, too.
    pub wrong: u64,
    /// Of these, those that promise O1 excuses.
    pub excused: u64,
    /// The first of them in words.
    pub words: Vec<String>,
    /// From the question to the root's decision over the latency of the direct way: waiting counts.
    pub stretch: Vec<f32>,
    /// Latencies of the hops over the latency of the direct way.
    pub way_stretch: Vec<f32>,
    /// From the question to the answer, in milliseconds.
    pub took_ms: Vec<f32>,
}

/// A ring that lives. Time passes by [`run_to`](Living::run_to) only.
pub struct Living {
    /// The ring. Its own list of nodes is that of its youth.
    pub ring: Ring,
    /// Who is on it now.
    pub roster: Roster,
    /// Failures and sides, for promise O1's excuses.
    pub watch: Watch,
    /// What became of lookups.
    pub tally: Tally,
    /// Starts that failed since somebody looked: their nodes are gone.
    pub failed: Vec<u32>,
    /// Paused nodes.
    paused: BTreeSet<u32>,
    asked: BTreeMap<u64, Asked>,
    due: VecDeque<(Instant, u64)>,
    news: Rc<RefCell<Vec<(Instant, usize, Event)>>>,
    stir: Rc<Cell<bool>>,
    lookups: u64,
    dice: Rng,
}

impl Living {
    /// A grown ring comes to life.
    pub fn new(mut ring: Ring) -> Living {
        let mut roster = Roster::default();
        ring.by_id().iter().for_each(|&(id, slot)| roster.insert(id, slot));
        let (news, stir) = (Rc::default(), Rc::new(Cell::new(false)));
        let (writer, flag): (Rc<RefCell<Vec<_>>>, _) = (Rc::clone(&news), Rc::clone(&stir));
        ring.world.observe(move |at, slot, event| {
            flag.set(true);
            writer.borrow_mut().push((at, slot, event));
        });
        ring.meter.borrow_mut().passages = Some(Passages::stirring(Rc::clone(&stir)));
        Living {
            dice: ring.world.stream("lab/living"),
            watch: Watch::new(ring.config.leaf_set),
            ring,
            roster,
            tally: Tally::default(),
            failed: Vec::new(),
            paused: BTreeSet::new(),
            asked: BTreeMap::new(),
            due: VecDeque::new(),
            news,
            stir,
            lookups: 0,
        }
    }

    /// Virtual time.
    pub fn now(&self) -> Instant {
        self.ring.world.now()
    }

    /// Frames that carried lookups for the first time, so far.
    pub fn first(&self) -> Load {
        self.ring.meter.borrow().passages.as_ref().map(|passages| passages.first).unwrap_or_default()
    }

    /// What probes and their answers were for, by frames, so far.
    pub fn probes(&self) -> BTreeMap<&'static str, u64> {
        self.ring.meter.borrow().passages.as_ref().map(|passages| passages.probes.clone()).unwrap_or_default()
    }

    /// Lookups that wait for their answer.
    pub fn open(&self) -> usize {
        self.asked.len()
    }

    /// A node's overlay.
    pub fn node(&self, slot: u32) -> Option<&Node> {
        self.ring.stack(slot as usize).map(|stack| stack.ring())
    }

    // Deeds.

    /// A newcomer starts, through up to three random nodes of the ring.
    pub fn join(&mut self) -> u32 {
        let through: Vec<u32> = (0..3).filter_map(|_| self.roster.any(&mut self.dice)).collect();
        self.join_through(&through)
    }

    /// A newcomer starts through these nodes.
    pub fn join_through(&mut self, through: &[u32]) -> u32 {
        let slot = self.ring.world.next_slot();
        self.ring.start(slot, through);
        self.take_news();
        slot as u32
    }

    /// Starts a node again whose start failed.
    pub fn join_again(&mut self, slot: u32) {
        let through: Vec<u32> = (0..3).filter_map(|_| self.roster.any(&mut self.dice)).collect();
        self.ring.start(slot as usize, &through);
        self.take_news();
    }

    /// A node loses power: no word of it to anybody.
    pub fn crash(&mut self, slot: u32) {
        self.note_failure(slot);
        self.roster.remove(slot);
        self.paused.remove(&slot);
        self.ring.world.crash(slot as usize, Crash::Power);
        let gone: Vec<u64> =
            self.asked.iter().filter(|(_, asked)| asked.slot == slot).map(|(&lookup, _)| lookup).collect();
        for lookup in gone {
            self.tally.abandoned += 1;
            self.close(lookup);
        }
    }

    /// A node stops in its tracks.
    pub fn pause(&mut self, slot: u32) {
        self.note_failure(slot);
        self.ring.world.pause(slot as usize);
        self.paused.insert(slot);
        self.asked.values_mut().filter(|asked| asked.slot == slot).for_each(|asked| asked.rests = true);
    }

    /// A paused node goes on.
    pub fn resume(&mut self, slot: u32) {
        if self.paused.remove(&slot) {
            self.note_failure(slot);
            self.ring.world.resume(slot as usize);
            self.judge_decisions();
            self.take_news();
        }
    }

    /// A node's clock jumps ahead, as if it had slept: what it has asked is over when it wakes.
    pub fn jump_clock(&mut self, slot: u32, by: Duration) {
        self.note_failure(slot);
        self.asked.values_mut().filter(|asked| asked.slot == slot).for_each(|asked| asked.rests = true);
        self.ring.world.jump_clock(slot as usize, by);
    }

    /// For promise O1's excuse: who failed when, or was cut off.
    pub fn note_failure(&mut self, slot: u32) {
        let now = self.now();
        self.watch.failures.retain(|&(at, _)| now - at < REPAIR_LIMIT);
        if let Some(id) = self.roster.id(slot) {
            self.watch.failures.push((now, id));
        }
    }

    /// A random node that runs asks for the root of a random key.
    pub fn look_up(&mut self) {
        let Some(slot) = self.roster.any(&mut self.dice).filter(|slot| !self.paused.contains(slot)) else {
            return;
        };
        let (key, at) = (Key(self.dice.random()), self.now());
        self.lookups += 1;
        let lookup = self.lookups;
        self.tally.asked += 1;
        self.asked.insert(lookup, Asked { at, slot, key, decided: false, wrong: false, rests: false });
        self.due.push_back((at + LIMIT, lookup));
        if let Some(passages) = &mut self.ring.meter.borrow_mut().passages {
            passages.begin(lookup, key);
        }
        self.ring.world.command(slot as usize, Command::Lookup { token: Token(lookup), key, trace: false });
        self.judge_decisions();
        self.take_news();
    }

    /// What was asked until now is nobody's concern.
    pub fn forget_lookups(&mut self) {
        let open: Vec<u64> = self.asked.keys().copied().collect();
        open.into_iter().for_each(|lookup| self.close(lookup));
        self.tally = Tally::default();
    }

    // Time.

    /// Lets time pass until then.
    pub fn run_to(&mut self, at: Instant) {
        loop {
            let rest = at - self.now();
            let stir = Rc::clone(&self.stir);
            let is_quiet = self.ring.world.run_until(rest, |_| stir.replace(false)).is_err();
            // Who just got onto the ring may be the better root: the list first.
            self.take_news();
            self.judge_decisions();
            if is_quiet {
                break;
            }
        }
        self.give_up();
    }

    /// Lookups that have waited for too long.
    fn give_up(&mut self) {
        let now = self.now();
        while let Some(&(limit, lookup)) = self.due.front()
            && limit <= now
        {
            self.due.pop_front();
            self.fail(lookup, "none");
        }
    }

    fn fail(&mut self, lookup: u64, why: &'static str) {
        let Some(asked) = self.asked.get(&lookup) else { return };
        if asked.rests || self.paused.contains(&asked.slot) {
            self.tally.abandoned += 1;
        } else {
            self.tally.lost += 1;
            *self.tally.reasons.entry(why).or_default() += 1;
        }
        self.close(lookup);
    }

    fn close(&mut self, lookup: u64) {
        self.asked.remove(&lookup);
        if let Some(passages) = &mut self.ring.meter.borrow_mut().passages {
            passages.end(lookup);
        }
    }

    fn take_news(&mut self) {
        let news = std::mem::take(&mut *self.news.borrow_mut());
        for (at, slot, event) in news {
            let slot = slot as u32;
            match event {
                Event::Ready { .. } => {
                    if let Some(id) = self.ring.stack(slot as usize).map(|stack| stack.peer().id) {
                        self.roster.insert(id, slot);
                    }
                }
                Event::StartFailed(_) => {
                    self.ring.world.stop(slot as usize);
                    self.failed.push(slot);
                }
                Event::Superseded { .. } | Event::Left => {
                    self.roster.remove(slot);
                    self.ring.world.stop(slot as usize);
                }
                Event::Found { token, .. } => self.on_found(at, token.0),
                Event::NotFound { token, reason } => self.fail(token.0, words(reason)),
                _ => {}
            }
        }
    }

    fn on_found(&mut self, at: Instant, lookup: u64) {
        // Its decision, at this instant, if the origin answered itself.
        self.judge_decisions();
        if let Some(asked) = self.asked.get(&lookup) {
            self.tally.answered += 1;
            self.tally.took_ms.push(millis(at - asked.at));
            self.close(lookup);
        }
    }

    // Judgement.

    fn judge_decisions(&mut self) {
        let decisions = match &mut self.ring.meter.borrow_mut().passages {
            Some(passages) => std::mem::take(&mut passages.decisions),
            None => return,
        };
        for decision in decisions {
            self.judge(&decision);
        }
    }

    fn judge(&mut self, decision: &Decision) {
        let Some(&asked) = self.asked.get(&decision.lookup) else { return };
        let now = self.now();
        if !asked.decided {
            self.measure(&asked, decision);
        }
        let fault = match self.rival(asked.key, decision) {
            Some(other) => Some(format!("{other:?} serves, and is closer or answers, too")),
            None if !decision.serves => Some("it is not the root in its own eyes".to_string()),
            None => None,
        };
        if let Some(fault) = &fault
            && !asked.wrong
        {
            let excused = self.is_excused(asked.key);
            self.tally.wrong += 1;
            self.tally.excused += u64::from(excused);
            if self.tally.words.len() < KEPT {
                let excuse = if excused { " (excused)" } else { "" };
                let Decision { by, slot, .. } = decision;
                let key = asked.key;
                self.tally
                    .words
                    .push(format!("{by:?} (slot {slot}) answers for {key:?} at {now}, but {fault}{excuse}"));
            }
        }
        if let Some(asked) = self.asked.get_mut(&decision.lookup) {
            asked.decided = true;
            asked.wrong |= fault.is_some();
        }
    }

    /// The first decision is where the message was delivered.
    fn measure(&mut self, asked: &Asked, decision: &Decision) {
        let world = &self.ring.world;
        let (from, to) = (asked.slot as usize, decision.slot as usize);
        if from == to || self.ring.is_one_router(from, to) {
            return;
        }
        let direct = world.latency(from, to);
        if direct.is_zero() {
            return;
        }
        let ratio = |time: Duration| (time.as_secs_f64() / direct.as_secs_f64()) as f32;
        let way = decision.way.iter().map(|&(a, b)| world.latency(a as usize, b as usize)).sum();
        self.tally.stretch.push(ratio(self.now() - asked.at));
        self.tally.way_stretch.push(ratio(way));
    }

    /// Another node of the same side whose word on the key counts for as much as that of whoever decided, or more.
    fn rival(&self, key: Key, decision: &Decision) -> Option<NodeId> {
        let side = self.watch.side(decision.slot as usize);
        self.around(key, side)
            .find(|&(_, slot)| {
                let now = self.ring.world.local_time(slot as usize);
                self.node(slot).is_some_and(|node| o1::outdoes(now, node, decision.by, key))
            })
            .map(|(id, _)| id)
    }

    /// The nodes of one side next to a key, in both directions.
    fn around(&self, key: Key, side: u8) -> impl Iterator<Item = (NodeId, u32)> {
        let same = move |&(_, slot): &(NodeId, u32)| self.watch.side(slot as usize) == side;
        let behind = self.roster.counterclockwise(key).filter(same).take(NEAR);
        self.roster.clockwise(key).filter(same).take(NEAR).chain(behind)
    }

    /// Promise O1 at this instant: keys at the borders between nodes, on each side, where one node's answer is
    /// outdone by another's.
    pub fn breaches(&self) -> Vec<(Key, String)> {
        let mut sides: BTreeMap<u8, Vec<(NodeId, Instant, &Node)>> = BTreeMap::new();
        for (id, slot) in self.roster.iter() {
            if let Some(node) = self.node(slot) {
                let now = self.ring.world.local_time(slot as usize);
                sides.entry(self.watch.side(slot as usize)).or_default().push((id, now, node));
            }
        }
        let mut breaches = Vec::new();
        for nodes in sides.values().filter(|nodes| nodes.len() > 1) {
            let serving: Vec<_> =
                nodes.iter().filter(|(id, now, node)| node.is_root_of(*now, id.key())).copied().collect();
            for (at, &(id, ..)) in nodes.iter().enumerate() {
                let next = nodes[(at + 1) % nodes.len()].0;
                let half = id.0.wrapping_add(next.0.wrapping_sub(id.0) / 2);
                for key in [Key(half), Key(half.wrapping_add(1))] {
                    breaches.extend(self.outdone(key, &serving).map(|what| (key, what)));
                }
            }
        }
        breaches
    }

    /// A node that answers for a key though another is closer, or does too. `serving`: by id.
    fn outdone(&self, key: Key, serving: &[(NodeId, Instant, &Node)]) -> Option<String> {
        let reach = NEAR_BORDER.min(serving.len());
        let at = serving.partition_point(|&(id, ..)| id.key() < key) + serving.len() - reach;
        let near = || (0..2 * reach).map(|i| serving[(at + i) % serving.len()]);
        let claims = near().filter(|&(_, now, node)| node.is_root_of(now, key));
        claims.into_iter().find_map(|(by, ..)| {
            let (other, ..) = near().find(|&(_, now, node)| o1::outdoes(now, node, by, key))?;
            Some(format!(
                "{by:?} answers for {key:?}, but {other:?} is closer or does, too, at {}",
                self.now()
            ))
        })
    }

    /// Whether promise O1 is excused around a key.
    pub fn is_excused(&self, key: Key) -> bool {
        let ready: Vec<NodeId> = self.roster.iter().map(|(id, _)| id).collect();
        self.watch.is_excused(self.now(), key, &ready)
    }

    /// Whether somebody of a side answers for a key.
    pub fn is_claimed(&self, key: Key, side: u8) -> bool {
        self.around(key, side).any(|(_, slot)| self.answers(slot, key))
    }

    /// Whether a node's leases run.
    pub fn serves(&self, slot: u32) -> bool {
        self.node(slot).is_some_and(|node| self.answers(slot, node.peer().id.key()))
    }

    fn answers(&self, slot: u32, key: Key) -> bool {
        let now = self.ring.world.local_time(slot as usize);
        self.node(slot).is_some_and(|node| node.is_root_of(now, key))
    }

    /// Promise O3: everybody who lives is on the ring, and it is one.
    pub fn is_whole(&self) -> Verdict {
        let waiting = self.ring.stacks().find(|&(slot, _)| self.roster.id(slot as u32).is_none());
        if let Some((slot, stack)) = waiting {
            let (id, standing) = (stack.peer().id, stack.ring().standing());
            return Err(Promise::O3.broken(format!("{id:?} (slot {slot}) is not on the ring: {standing:?}")));
        }
        self.is_one_ring()
    }

    /// Promise O3, of all nodes that are on the ring: each has its neighbours, and their leases.
    pub fn is_one_ring(&self) -> Verdict {
        for (id, slot) in self.roster.iter() {
            self.stands_right(id, slot)?;
        }
        Ok(())
    }

    /// How many nodes have the neighbours that they should have.
    pub fn standing_right(&self) -> usize {
        let right = |&(id, slot): &(NodeId, u32)| {
            let (Some((left, right)), Some(node)) = (self.roster.neighbours(id), self.node(slot)) else {
                return false;
            };
            let is = |known: Option<NodeId>, expected| known == Some(expected).filter(|&other| other != id);
            is(node.leaf_set().left().map(|peer| peer.id), left)
                && is(node.leaf_set().right().map(|peer| peer.id), right)
        };
        self.roster.iter().filter(right).count()
    }

    fn stands_right(&self, id: NodeId, slot: u32) -> Verdict {
        let (Some((left, right)), Some(node)) = (self.roster.neighbours(id), self.node(slot)) else {
            return Err(Promise::O3.broken(format!("{id:?} is gone")));
        };
        o3::stands_between(self.ring.world.local_time(slot as usize), node, left, right)
    }
}

fn millis(time: Duration) -> f32 {
    (time.as_secs_f64() * 1000.0) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::setting::Profile;
    use crate::lab::{Progress, Setting};

    fn ring(nodes: u32) -> Living {
        let setting = Setting {
            nodes: Some(nodes),
            seed: 3,
            topology: None,
            profile: Profile::Default,
            leaf_set: None,
            settle: 5,
        };
        let world = setting.world(crate::world::Topology::Constant(Duration::from_millis(20)));
        let scribe = treecast_scribe::Config::default();
        let ring = Ring::grow(&setting, setting.nodes(), world, scribe, &Progress::hidden());
        Living::new(ring.expect("a ring comes about"))
    }

    fn pass(living: &mut Living, time: Duration) {
        living.run_to(living.now() + time);
    }

    /// A lookup is under way, and `by` decides to answer it.
    fn decide(living: &mut Living, by: u32, serves: bool) -> (u64, u64) {
        living.look_up();
        let id = living.roster.id(by).expect("on the ring");
        let lookup = living.lookups;
        let key = living.asked.get(&lookup).map(|asked| asked.key);
        let is_root = key.is_some_and(|key| living.answers(by, key));
        assert!(!is_root, "the seed gives a key of another node");
        living.judge(&Decision { lookup, by: id, slot: by, serves, way: Vec::new() });
        (living.tally.wrong, living.tally.excused)
    }

    #[test]
    fn an_answer_of_any_other_node_is_wrong() {
        let mut living = ring(12);
        for _ in 0..20 {
            living.look_up();
        }
        pass(&mut living, Duration::from_secs(2));
        let Tally { asked, answered, wrong, lost, .. } = &living.tally;
        assert_eq!((*asked, *answered, *wrong, *lost), (20, 20, 0, 0));
        assert_eq!(decide(&mut living, 1, false), (1, 0));
        assert_eq!(decide(&mut living, 1, true), (2, 0), "another serves and is closer");
        living.watch.merging = true;
        assert_eq!(decide(&mut living, 1, true), (3, 1), "excused while rings merge");
    }

    #[test]
    fn a_dead_nodes_range_is_nobodys_until_it_has_an_heir() {
        let mut living = ring(12);
        assert_eq!((living.is_whole(), living.breaches()), (Ok(()), Vec::new()));
        let (id, slot) = living.roster.iter().nth(4).expect("twelve");
        assert!(living.is_claimed(id.key(), 0));
        living.crash(slot);
        assert!(!living.is_claimed(id.key(), 0) && living.is_whole().is_err());
        assert_eq!(living.standing_right(), 9, "its two neighbours still think that it is there");
        pass(&mut living, Duration::from_secs(15));
        assert_eq!(living.is_whole(), Ok(()));
        assert!(living.is_claimed(id.key(), 0));
    }

    #[test]
    fn who_stands_apart_has_roots_of_its_own() {
        let mut living = ring(12);
        let (_, slot) = living.roster.iter().nth(4).expect("twelve");
        living.ring.world.cut(crate::world::Cut::isolate(slot as usize));
        living.watch.sides = (0..12).map(|other| u8::from(other == slot)).collect();
        pass(&mut living, Duration::from_secs(30));
        assert!(living.breaches().is_empty(), "each side by itself has one root for each key");
        assert!(living.is_claimed(Key(1), 0) && living.is_claimed(Key(1), 1));
        living.watch.sides.clear();
        assert!(!living.breaches().is_empty(), "taken together they have two");
    }
}

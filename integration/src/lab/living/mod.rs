//! A ring that lives: nodes come and go, lookups go on, and each answer is judged at the very instant at which
//! it is decided, by who holds the leases (promise O1), whatever else happens.

mod judge;
mod tally;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::id::Key;
use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_scribe::event::{Command, Event, Token};

pub use tally::Tally;

use super::Ring;
use super::lookups::words;
use super::passages::{Load, Passages};
use super::roster::Roster;
use super::routing::millis;
use crate::watch::{REPAIR_LIMIT, Watch};
use crate::world::Crash;

/// How long an answer is waited for (promise O4).
pub const LIMIT: Duration = Duration::from_secs(60);

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
                // Nobody subscribes or publishes here.
                Event::Subscribed { .. }
                | Event::SubscribeFailed { .. }
                | Event::Item { .. }
                | Event::Published { .. }
                | Event::PublishFailed { .. }
                | Event::Status { .. }
                | Event::Broadcast { .. }
                | Event::BroadcastEnded { .. }
                | Event::ContactChanged(_) => {}
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
}

//! Lookups that the laboratory asked for: which wait for their answer, and what became of the others. Each answer is
//! judged at the very instant at which it is decided, by the holders of the leases (promise O1), whatever else happens.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::RouteFailure;
use treecast_scribe::event::{Command, Token};

use super::passages::Decision;
use super::{Cluster, Mode};
use crate::check::{Verdict, o1};
use crate::node::RingNode;

/// How long an answer is waited for (promise O4).
pub const LIMIT: Duration = Duration::from_secs(60);
/// Nodes on each side of a key that are asked whether they answer for it.
const NEAR: usize = 8;
/// Words of wrong answers that are kept.
const KEPT: usize = 20;

/// A lookup that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Where it was asked.
    pub slot: usize,
    /// When.
    pub at: Instant,
    /// For which key.
    pub key: Key,
    /// Some node decided to answer it.
    decided: bool,
    /// It was answered wrongly.
    wrong: bool,
    /// Its origin was paused meanwhile: it waits for nothing.
    rests: bool,
}

/// A lookup whose origin lived and heard that there is no answer.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The lookup.
    pub asked: Asked,
    /// The reason that it was told.
    pub why: &'static str,
}

/// Counts of lookups.
#[derive(Clone, Debug, Default)]
pub struct LookupTally {
    /// Launched.
    pub asked: u64,
    /// Answered in time.
    pub answered: u64,
    /// Hops of the answered ones, together.
    pub hops: u64,
    /// Not answered within a minute, or by an error, though the origin lived and was not paused.
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

impl LookupTally {
    /// Adds the lookups of another ring.
    pub fn add(&mut self, other: LookupTally) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.hops += other.hops;
        self.lost += other.lost;
        other.reasons.into_iter().for_each(|(why, times)| *self.reasons.entry(why).or_default() += times);
        self.abandoned += other.abandoned;
        self.wrong += other.wrong;
        self.excused += other.excused;
        self.words.extend(other.words);
        self.words.truncate(KEPT);
        self.stretch.extend(other.stretch);
        self.way_stretch.extend(other.way_stretch);
        self.took_ms.extend(other.took_ms);
    }
}

/// All lookups of a cluster.
#[derive(Clone, Debug, Default)]
pub struct Lookups {
    /// Lookups that wait, by their numbers.
    pub open: BTreeMap<u64, Asked>,
    /// Lookups that came to nothing.
    pub failed: Vec<Failed>,
    /// Counts of them.
    pub tally: LookupTally,
    /// When those that wait have waited for too long.
    due: VecDeque<(Instant, u64)>,
}

impl Lookups {
    /// Lookups of a slot do not count while its node sleeps.
    pub(super) fn rest(&mut self, slot: usize) {
        self.open.values_mut().filter(|asked| asked.slot == slot).for_each(|asked| asked.rests = true);
    }
}

pub(crate) fn millis(time: Duration) -> f32 {
    (time.as_secs_f64() * 1000.0) as f32
}

/// Why there was no answer.
pub(crate) fn words(reason: Option<RouteFailure>) -> &'static str {
    match reason {
        None => "none",
        Some(RouteFailure::HopLimit) => "hop limit",
        Some(RouteFailure::NoRoute) => "no route",
        Some(RouteFailure::Overloaded) => "overloaded",
        Some(RouteFailure::NoRoot) => "no root whose leases run",
    }
}

impl<N: RingNode> Cluster<N> {
    /// Asks for the root of a key.
    pub fn look_up(&mut self, slot: usize, key: Key) {
        let (number, at) = (self.next_number(), self.now());
        self.lookups.tally.asked += 1;
        let asked = Asked { slot, at, key, decided: false, wrong: false, rests: false };
        self.lookups.open.insert(number, asked);
        self.lookups.due.push_back((at + LIMIT, number));
        self.passages.borrow_mut().begin(number, self.id(slot), key);
        self.world.command(slot, Command::Lookup { token: Token(number), key, trace: false });
        // It may have answered itself: that is judged before anything else happens.
        match self.mode {
            Mode::Judged if self.unheard.is_ok() => self.unheard = self.judge_decisions(),
            Mode::Judged => {}
            Mode::Measured => self.catch_up(),
        }
    }

    /// A random node that runs asks for the root of a random key.
    pub fn look_up_somewhere(&mut self) {
        let Some(slot) = self.roster.any(&mut self.dice).filter(|&slot| self.world.is_running(slot as usize))
        else {
            return;
        };
        let key = Key(self.dice.random());
        self.look_up(slot as usize, key);
    }

    /// Lookups that were asked until now do not count.
    pub fn forget_lookups(&mut self) {
        let open: Vec<u64> = self.lookups.open.keys().copied().collect();
        open.into_iter().for_each(|lookup| self.close(lookup));
        self.lookups.tally = LookupTally::default();
    }

    /// A node's life ended, and its lookups with it.
    pub(super) fn abandon_lookups(&mut self, slot: usize) {
        let of_it = self.lookups.open.iter().filter(|(_, asked)| asked.slot == slot);
        for lookup in of_it.map(|(&lookup, _)| lookup).collect::<Vec<u64>>() {
            self.lookups.tally.abandoned += 1;
            self.close(lookup);
        }
    }

    /// Lookups that have waited for too long.
    pub(super) fn give_up_lookups(&mut self) {
        let now = self.now();
        while let Some(&(limit, lookup)) = self.lookups.due.front()
            && limit <= now
        {
            self.lookups.due.pop_front();
            self.on_not_found(lookup, "none");
        }
    }

    pub(super) fn on_not_found(&mut self, lookup: u64, why: &'static str) {
        let Some(&asked) = self.lookups.open.get(&lookup) else { return };
        if asked.rests || !self.world.is_running(asked.slot) {
            self.lookups.tally.abandoned += 1;
        } else {
            self.lookups.tally.lost += 1;
            *self.lookups.tally.reasons.entry(why).or_default() += 1;
        }
        self.lookups.failed.push(Failed { asked, why });
        self.close(lookup);
    }

    pub(super) fn on_found(&mut self, at: Instant, lookup: u64, hops: u8) {
        if let Some(asked) = self.lookups.open.get(&lookup) {
            self.lookups.tally.answered += 1;
            self.lookups.tally.hops += u64::from(hops);
            self.lookups.tally.took_ms.push(millis(at - asked.at));
            self.close(lookup);
        }
    }

    fn close(&mut self, lookup: u64) {
        self.lookups.open.remove(&lookup);
        // Under the judges late copies are followed to their end, too.
        if self.mode == Mode::Measured {
            self.passages.borrow_mut().end(lookup);
        }
    }

    // Decisions.

    /// Judges what was answered since the last look.
    pub(super) fn judge_decisions(&mut self) -> Verdict {
        let decisions = std::mem::take(&mut self.passages.borrow_mut().decisions);
        for decision in decisions {
            match self.mode {
                Mode::Judged => self.judge(&[], |scene| o1::judge_decision(scene, &decision))?,
                Mode::Measured => self.count_decision(&decision),
            }
        }
        Ok(())
    }

    /// Counts a wrong answer, in place of ending the run.
    pub(super) fn count_decision(&mut self, decision: &Decision) {
        let Some(&asked) = self.lookups.open.get(&decision.lookup) else { return };
        let now = self.now();
        if !asked.decided {
            self.measure(&asked, decision);
        }
        let fault = match self.rival(decision) {
            Some(other) => Some(format!("{other:?} serves, and is closer or answers, too")),
            None if !decision.serves => Some("it is not the root in its own eyes".to_string()),
            None => None,
        };
        if let Some(fault) = &fault
            && !asked.wrong
        {
            let excused = self.is_excused(asked.key);
            let tally = &mut self.lookups.tally;
            tally.wrong += 1;
            tally.excused += u64::from(excused);
            if tally.words.len() < KEPT {
                let excuse = if excused { " (excused)" } else { "" };
                let Decision { by, slot, key, .. } = decision;
                tally
                    .words
                    .push(format!("{by:?} (slot {slot}) answers for {key:?} at {now}, but {fault}{excuse}"));
            }
        }
        if let Some(asked) = self.lookups.open.get_mut(&decision.lookup) {
            asked.decided = true;
            asked.wrong |= fault.is_some();
        }
    }

    /// The first decision is where the message was delivered.
    fn measure(&mut self, asked: &Asked, decision: &Decision) {
        let (from, to) = (asked.slot, decision.slot as usize);
        if from == to || self.is_one_router(from, to) {
            return;
        }
        let direct = self.world.latency(from, to);
        if direct.is_zero() {
            return;
        }
        let ratio = |time: Duration| (time.as_secs_f64() / direct.as_secs_f64()) as f32;
        let way = decision.way.iter().map(|&(a, b)| self.world.latency(a as usize, b as usize)).sum();
        let stretch = ratio(self.now() - asked.at);
        self.lookups.tally.stretch.push(stretch);
        self.lookups.tally.way_stretch.push(ratio(way));
    }

    /// Another node of the same side whose word on the key counts for as much as that of the decider, or more.
    fn rival(&self, decision: &Decision) -> Option<NodeId> {
        let side = self.watch.side(decision.slot as usize);
        let outdoes = |&(_, slot): &(NodeId, u32)| {
            let now = self.world.local_time(slot as usize);
            self.node(slot as usize).is_some_and(|node| o1::outdoes(now, node, decision.by, decision.key))
        };
        self.around(decision.key, side).find(outdoes).map(|(id, _)| id)
    }

    /// The nodes of one side next to a key, in both directions.
    fn around(&self, key: Key, side: u8) -> impl Iterator<Item = (NodeId, u32)> {
        let same = move |&(_, slot): &(NodeId, u32)| self.watch.side(slot as usize) == side;
        let behind = self.roster.counterclockwise(key).filter(same).take(NEAR);
        self.roster.clockwise(key).filter(same).take(NEAR).chain(behind)
    }

    /// Whether promise O1 is excused around a key.
    pub fn is_excused(&self, key: Key) -> bool {
        let ready: Vec<NodeId> = self.roster.iter().map(|(id, _)| id).collect();
        self.watch.is_excused(self.now(), key, &ready, &[])
    }

    /// Whether a node of a side answers for a key.
    pub fn is_claimed(&self, key: Key, side: u8) -> bool {
        self.around(key, side).any(|(_, slot)| self.answers(slot, key))
    }

    /// Whether a node answers for a key.
    pub fn answers(&self, slot: u32, key: Key) -> bool {
        let now = self.world.local_time(slot as usize);
        self.node(slot as usize).is_some_and(|node| node.is_root_of(now, key))
    }
}

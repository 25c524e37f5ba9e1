//! Traced lookups, spread over virtual time: how a ring routes, by the knowledge of all.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use clap::ValueEnum;
use rand::RngExt;
use treecast_overlay::id::Key;
use treecast_overlay::kbr::Found;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_scribe::event::{Command, Event, Token};

use super::Progress;
use crate::cluster::Cluster;
use crate::cluster::lookups::words;
use crate::node::RingNode;

/// How often lookups are launched, and answers looked at.
const TICK: Duration = Duration::from_millis(10);
/// How long the last answer is waited for: the limit of promise O4, and a hop's worth.
const LIMIT: Duration = Duration::from_secs(65);
/// Most lookups under way at once; further ones are launched later.
const MOST_OPEN: usize = 50_000;

/// Kinds of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Keys {
    /// Points of the ring at random: what topics are
    Random,
    /// Ids of other nodes at random: what the Pastry paper looks up
    Nodes,
}

/// A part of a plan: for so long, so many lookups a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    /// How long.
    pub time: Duration,
    /// Lookups per second.
    pub rate: f64,
}

/// `count` lookups, evenly, at a rate that leaves a ring of `nodes` its rest.
pub fn evenly(count: u64, nodes: usize) -> Vec<Part> {
    let rate = (nodes as f64 / 5.0).max(200.0);
    vec![Part { time: Duration::from_secs_f64(count as f64 / rate), rate }]
}

/// An answered lookup.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// When it was launched.
    pub asked: Instant,
    /// Until the answer came.
    pub took: Duration,
    /// Hops from the asking node to the root.
    pub hops: usize,
    /// The way that it took: the latencies of its hops, together; `None` if a node of its path is no more.
    pub way: Option<Duration>,
    /// The direct way; `None` if both are one node, or on one router.
    pub direct: Option<Duration>,
}

/// Counts of lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Launched.
    pub asked: u64,
    /// Never answered, or answered by an error.
    pub lost: u64,
    /// Why, by the last word that came back, and how often.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Answered by a node that is not the closest one that lives.
    pub wrong: u64,
}

impl Counts {
    /// Says in words which promises it breaks.
    pub fn faults(&self, what: &str) -> Vec<String> {
        let Counts { asked, lost, wrong, reasons } = self;
        let mut faults = Vec::new();
        if *lost > 0 {
            let why: Vec<String> =
                reasons.iter().map(|(why, times)| format!("{why} {times} times")).collect();
            faults.push(format!(
                "O4: {lost} of {asked} {what} were not answered within {LIMIT:?}; last words: {}",
                why.join(", ")
            ));
        }
        if *wrong > 0 {
            faults.push(format!(
                "O1: {wrong} of {asked} {what} were answered by a node that is not the closest"
            ));
        }
        faults
    }
}

struct Open {
    asked: Instant,
    slot: u32,
    key: Key,
}

type Answers = Rc<RefCell<Vec<(Instant, u64, Result<Found, &'static str>)>>>;

/// Launches lookups from random nodes by plan, hands each answer to `each`, and waits for the last.
pub fn look_up<N: RingNode>(
    cluster: &mut Cluster<N>,
    plan: &[Part],
    keys: Keys,
    name: &str,
    progress: &Progress,
    mut each: impl FnMut(&Answered),
) -> Counts {
    let answers = listen(cluster);
    let mut dice = cluster.world.stream(&format!("lab/lookups/{name}"));
    let mut open: BTreeMap<u64, Open> = BTreeMap::new();
    let mut counts = Counts::default();
    let expected: f64 = plan.iter().map(|part| part.time.as_secs_f64() * part.rate).sum();
    progress.phase(name, expected as u64);
    let mut collect = |cluster: &Cluster<N>, open: &mut BTreeMap<u64, Open>, counts: &mut Counts| {
        for (at, token, found) in std::mem::take(&mut *answers.borrow_mut()) {
            let Some(lookup) = open.remove(&token) else { continue };
            match found {
                Err(why) => {
                    counts.lost += 1;
                    *counts.reasons.entry(why).or_default() += 1;
                }
                Ok(found) => {
                    counts.wrong += u64::from(
                        cluster.roster.root_of(lookup.key).is_none_or(|(root, _)| root != found.root.id),
                    );
                    each(&judge(cluster, &lookup, at, &found));
                }
            }
        }
    };
    for part in plan {
        let end = cluster.world.now() + part.time;
        let mut due = 0.0;
        while cluster.world.now() < end {
            due += part.rate * TICK.as_secs_f64();
            while due >= 1.0 && open.len() < MOST_OPEN {
                due -= 1.0;
                counts.asked += 1;
                open.insert(counts.asked, launch(cluster, &mut dice, counts.asked, keys));
            }
            cluster.world.run_for(TICK);
            collect(cluster, &mut open, &mut counts);
            progress.at(counts.asked, format!("{} under way", open.len()));
        }
    }
    let end = cluster.world.now() + LIMIT;
    while !open.is_empty() && cluster.world.now() < end {
        cluster.world.run_for(TICK);
        collect(cluster, &mut open, &mut counts);
    }
    counts.lost += open.len() as u64;
    counts
}

fn listen<N: RingNode>(cluster: &mut Cluster<N>) -> Answers {
    let answers = Answers::default();
    let writer = Rc::clone(&answers);
    cluster.world.hand_events_to(move |at, _, event| {
        if let Event::Found { token, found } = event {
            writer.borrow_mut().push((at, token.0, Ok(found)));
        } else if let Event::NotFound { token, reason } = event {
            writer.borrow_mut().push((at, token.0, Err(words(reason))));
        }
    });
    answers
}

fn launch<N: RingNode>(cluster: &mut Cluster<N>, dice: &mut Rng, number: u64, keys: Keys) -> Open {
    let nodes = cluster.roster.by_id();
    let from = dice.random_range(0..nodes.len());
    let slot = nodes[from].1;
    let key = match keys {
        Keys::Random => Key(dice.random()),
        // Another one than that which asks.
        Keys::Nodes => nodes[(from + dice.random_range(1..nodes.len())) % nodes.len()].0.key(),
    };
    let asked = cluster.world.now();
    cluster.world.command(slot as usize, Command::Lookup { token: Token(number), key, trace: true });
    Open { asked, slot, key }
}

fn judge<N: RingNode>(cluster: &Cluster<N>, lookup: &Open, at: Instant, found: &Found) -> Answered {
    let origin = lookup.slot as usize;
    let root = cluster
        .roster
        .slot_of(found.root.id)
        .filter(|&root| root != origin && !cluster.is_one_router(root, origin));
    let path = found.path.as_deref().unwrap_or_default();
    let slots: Option<Vec<usize>> = path.iter().map(|hop| cluster.roster.slot_of(hop.node)).collect();
    let way = slots.map(|slots| slots.windows(2).map(|hop| cluster.world.latency(hop[0], hop[1])).sum());
    Answered {
        asked: lookup.asked,
        took: at - lookup.asked,
        hops: usize::from(found.hops),
        way,
        direct: root.map(|root| cluster.world.latency(origin, root)),
    }
}

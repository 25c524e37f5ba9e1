//! `lab bulk`: a few nodes with very many topics, and one of the nodes dies.

use std::time::{Duration, Instant as Wall};

use clap::Args;
use rand::RngExt;
use treecast_overlay::pastry::Node;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_scribe::event::Command;
use treecast_scribe::{Config, Topic};

use super::account::{Account, Held};
use super::births::{BirthCounts, Deaths};
use super::counting::Times;
use super::figures::percentiles;
use super::members::{Replacements, root};
use super::run::PAYLOAD;
use super::tap::DeliveryTap;
use crate::cluster::Cluster;
use crate::lab::groups::Groups;
use crate::lab::growth::grow_in;
use crate::lab::meter::numbered;
use crate::lab::run::Run;
use crate::lab::{Error, Progress, Setting, publishing};
use crate::node::RingNode;
use crate::report::{Figures, Report};
use crate::world::{Crash, Shared};

/// Nodes unless said otherwise.
const NODES: usize = 8;
/// How often it is looked who serves what.
const LOOK: Duration = Duration::from_millis(20);
/// How long the logs may take to have all their copies, and how long all may take after a death.
const LIMIT: Duration = Duration::from_secs(180);
/// How long messages are published before the death.
const BEFORE: Duration = Duration::from_secs(10);
/// How long the last messages are waited for.
const AFTER: Duration = Duration::from_secs(180);

/// One of few nodes with very many topics dies: how long until all of them have a root, and all their members, again
#[derive(Args, Clone, Debug)]
#[command(after_long_help = HELP)]
pub struct BulkOptions {
    #[command(flatten)]
    setting: Setting,
    /// Topics
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    topics: u32,
    /// Subscribers of each
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    subscribers: u32,
    /// Messages a second, each on a random topic whose root stays
    #[arg(long, value_name = "N", default_value_t = 200)]
    rate: u32,
    /// Microseconds that each frame takes a node
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 4)]
    frame_us: u64,
    /// Tell on stderr what nodes say of this topic's log; messages and acknowledgements left out
    #[arg(long, value_name = "TOPIC")]
    tell: Option<u32>,
}

const HELP: &str = "All nodes subscribe to their topics and are left alone until every log has all its copies. Then
messages are published for 10 s (before), the node that is root of most topics loses power, and more are published
until all is well again (meanwhile). Each frame takes its receiver --frame-us, so a crowd of frames makes a node late.
  rooted     from the death until the topic has a root that gives positions
  named      until the committed configuration has as many members as it should without the dead; full_again: and these
             hold everything; of all topics of which the dead node was a member
  receipts   of messages on topics whose root did not die";

/// What came of it.
#[derive(Default)]
struct BulkOutcome {
    roots: usize,
    memberships: usize,
    rooted: Times,
    never_rooted: usize,
    before: Times,
    meanwhile: Times,
    frames: u64,
    wall: Duration,
    /// From then until the last message was where it had to be.
    drained: Duration,
    replacements: Replacements,
    births: BirthCounts,
}

struct Bulk<'a, N: RingNode> {
    cluster: Cluster<N>,
    topics: &'a [Topic],
    account: Shared<Account>,
    tap: Shared<DeliveryTap>,
    deaths: Deaths,
    dice: Rng,
    /// Topics of which messages are published.
    open: Vec<u32>,
    rate: u32,
    /// Messages that are due, in millionths.
    due: u64,
}

/// Runs it.
pub fn run(options: &BulkOptions, progress: &Progress) -> Result<Report, Error> {
    let setting = &options.setting;
    let (nodes, size) = (setting.nodes.map_or(NODES, |nodes| nodes as usize), options.subscribers as usize);
    if size > nodes {
        return Err(Error::Usage(format!("--subscribers {size}: the ring has only {nodes} nodes")));
    }
    let config = Config::default();
    let copies = config.replication.copies;
    let mut grown = grow_in::<Node>(setting, nodes, setting.world(setting.topology()), config, progress)?;
    let cluster = &mut grown.cluster;
    let slots: Vec<u32> = cluster.roster.iter().map(|(_, slot)| slot).collect();
    let groups =
        Groups::new(&vec![size; options.topics as usize], &slots, &mut cluster.world.stream("lab/groups"));
    for &slot in &slots {
        cluster.world.set_slowness(slot as usize, Duration::from_micros(options.frame_us));
    }
    let tap: Shared<DeliveryTap> = Shared::default();
    tap.borrow_mut().told = options.tell.and_then(|number| groups.topics.get(number as usize)).map(Topic::id);
    cluster.world.attach(Shared::clone(&tap));
    publishing::subscribe(cluster, &groups, progress)?;
    let mut account = Account::new(groups.topics.iter().map(Topic::id), copies as u32);
    for &(topic, slot) in &groups.memberships {
        account.add_subscriber(topic, slot as usize, Some(cluster.now()));
    }
    let account = Shared::new(account.into());
    let book = Shared::clone(&account);
    cluster.world.hand_events_to(move |at, slot, event| book.borrow_mut().note(at, slot, event));
    let mut bulk = Bulk {
        dice: cluster.world.stream("lab/bulk"),
        topics: &groups.topics,
        account,
        tap,
        deaths: Deaths::default(),
        open: (0..options.topics).collect(),
        rate: options.rate,
        due: 0,
        cluster: grown.cluster,
    };
    let seen = bulk.live(copies, progress);
    let totals = std::mem::take(&mut bulk.account.borrow_mut().totals);
    grown.cluster = bulk.cluster;
    let run = Run { nodes, ..Run::of("bulk", setting, &grown) };
    let seen = seen?;
    let mut report = run.report();
    report.conditions.extend([
        ("topics", options.topics.to_string()),
        ("subscribers", size.to_string()),
        ("rate", format!("{}/s", options.rate)),
        ("a frame takes", format!("{} µs", options.frame_us)),
    ]);
    let mut figures = Figures::of(&run);
    figures.set("topics", options.topics);
    figures.set("frame_us", options.frame_us);
    figures
        .tell("topics whose root died, whose member died", format!("{}, {}", seen.roots, seen.memberships));
    figures.set("roots", seen.roots);
    figures.set("memberships", seen.memberships);
    percentiles(&mut figures, "rooted_ms", "death to a serving root", &seen.rooted, None);
    percentiles(&mut figures, "named_ms", "dead member replaced", &seen.replacements.named, None);
    percentiles(&mut figures, "full_again_ms", "… and all copies full", &seen.replacements.full_again, None);
    percentiles(&mut figures, "receipts_before_ms", "receipt before", &seen.before, None);
    percentiles(&mut figures, "receipts_meanwhile_ms", "receipt meanwhile", &seen.meanwhile, None);
    figures.count("frames", "frames sent meanwhile", seen.frames);
    figures.show("meanwhile_wall_s", "… real seconds", seen.wall.as_secs_f64());
    figures.show("drained_s", "until the last message had come, s", seen.drained.as_secs_f64());
    figures.count("acknowledged", "acknowledged", totals.acknowledged);
    figures.count("outcome_unknown", "outcome unknown", totals.outcome_unknown);
    figures.set("births", seen.births.all);
    let (missing, filling) = seen.replacements.open();
    let faults = [
        (seen.never_rooted as u64, "topics without a root"),
        (missing, "dead members that nobody replaced"),
        (filling, "new members that do not hold all"),
        (totals.lost_acknowledged, "S4: acknowledged, and never delivered"),
        (totals.duplicates, "S2: deliveries beyond the first"),
        (totals.order_violations, "S3: deliveries out of order"),
        (totals.gaps_silent, "S5: messages that neither came nor were announced as lost"),
        (totals.unforced_gaps, "S5: gaps that nobody owed"),
        (seen.births.forced, "S4: logs that began anew with a loss, though a majority of the members lived"),
    ];
    let found = faults.into_iter().filter(|(count, _)| *count > 0);
    report.faults = found.map(|(count, what)| format!("{what}: {count}")).collect();
    report.notes.extend(totals.words);
    Ok(report.with(figures))
}

impl<N: RingNode> Bulk<'_, N> {
    fn live(&mut self, copies: usize, progress: &Progress) -> Result<BulkOutcome, Error> {
        self.await_copies(copies, progress)?;
        let mut seen = BulkOutcome { replacements: Replacements::new(copies), ..BulkOutcome::default() };
        let victim = self.victim();
        let own = |bulk: &Bulk<'_, N>, topic: u32| {
            let id = bulk.topics[topic as usize].id();
            let place = bulk.cluster.world.machine(victim).and_then(|stack| stack.forest().place(id));
            place.is_some_and(|place| place.is_root())
        };
        let mut orphaned: Vec<u32> =
            (0..self.topics.len() as u32).filter(|&topic| own(self, topic)).collect();
        self.open.retain(|topic| orphaned.binary_search(topic).is_err());
        progress.phase("publishing", BEFORE.as_secs());
        let begin = self.cluster.now();
        while self.cluster.now() - begin < BEFORE {
            self.pass(victim);
        }
        seen.before = std::mem::take(&mut self.account.borrow_mut().totals.receipts_ms);
        seen.roots = orphaned.len();
        let (died, frames, wall) =
            (self.cluster.now(), self.cluster.world.counters().total().sent, Wall::now());
        seen.replacements.on_death(&self.cluster, victim);
        seen.memberships = seen.replacements.open().0 as usize;
        if self.tap.borrow().told.is_some() {
            eprintln!("{died} == #{victim} dies: {:?}", self.cluster.id(victim));
        }
        self.deaths.add(self.cluster.id(victim), died);
        self.account.borrow_mut().end_node(victim);
        self.cluster.crash(victim, Crash::Power);
        progress.phase("after the death", seen.memberships as u64);
        while self.cluster.now() - died < LIMIT && !(orphaned.is_empty() && seen.replacements.is_over()) {
            self.pass(victim);
            self.look(died, &mut orphaned, &mut seen);
            progress.at(seen.replacements.named.count(), format!("{} have no root", orphaned.len()));
        }
        seen.never_rooted = orphaned.len();
        seen.meanwhile = std::mem::take(&mut self.account.borrow_mut().totals.receipts_ms);
        seen.frames = self.cluster.world.counters().total().sent - frames;
        seen.wall = wall.elapsed();
        let end = self.cluster.now();
        while self.account.borrow().open() > 0 && self.cluster.now() - end < AFTER {
            self.cluster.world.run_for(Duration::from_secs(1));
            self.sweep(false);
        }
        seen.drained = self.cluster.now() - end;
        self.sweep(true);
        let tap = self.tap.borrow();
        seen.births = self.deaths.counts(&tap.ledger);
        Ok(seen)
    }

    /// Settles what can be settled; in the end all of it.
    fn sweep(&mut self, is_end: bool) {
        let (now, mut tap) = (self.cluster.now(), self.tap.borrow_mut());
        self.deaths.judge(&mut tap.ledger);
        self.account.borrow_mut().sweep(now, &tap.ledger, &self.deaths, &Held::default(), is_end);
    }

    /// Waits until every log has all its copies.
    fn await_copies(&mut self, copies: usize, progress: &Progress) -> Result<(), Error> {
        progress.phase("copies", self.topics.len() as u64);
        let (begin, enough) = (self.cluster.now(), copies.min(self.cluster.roster.len()));
        let lacks = |cluster: &Cluster<N>, topic: &Topic| {
            let root = root(cluster, topic.id());
            let members = root.and_then(|root| Some(root.configurations().last()?.members.len()));
            members.is_none_or(|members| members < enough)
        };
        loop {
            let missing = self.topics.iter().filter(|topic| lacks(&self.cluster, topic)).count();
            if missing == 0 {
                return Ok(());
            }
            if self.cluster.now() - begin > LIMIT {
                let all = self.topics.len();
                return Err(Error::Failed(format!("after {LIMIT:?} {missing} of {all} logs lack members")));
            }
            progress
                .at((self.topics.len() - missing) as u64, format!("{} of virtual time", self.cluster.now()));
            self.cluster.world.run_for(Duration::from_secs(1));
        }
    }

    /// The node that is root of most topics.
    fn victim(&self) -> usize {
        let roots = |stack: &treecast_scribe::Stack<N>| {
            stack.forest().places().filter(|place| place.is_root()).count()
        };
        let most = self.cluster.stacks().max_by_key(|(slot, stack)| (roots(stack), *slot));
        most.expect("the ring has nodes").0
    }

    /// Some time passes, in which messages are published.
    fn pass(&mut self, victim: usize) {
        self.cluster.world.run_for(LOOK);
        self.due += u64::from(self.rate) * LOOK.as_micros() as u64;
        while self.due >= 1_000_000 && !self.open.is_empty() {
            self.due -= 1_000_000;
            let topic = self.open[self.dice.random_range(0..self.open.len())];
            let Some(slot) = self.cluster.roster.any(&mut self.dice).filter(|&slot| slot as usize != victim)
            else {
                continue;
            };
            let token = self.account.borrow_mut().begin(topic, self.cluster.now());
            let (topic, payload) = (self.topics[topic as usize].clone(), numbered(token.0 as usize, PAYLOAD));
            self.cluster.world.command(slot as usize, Command::Publish { token, topic, payload });
        }
        let mut tap = self.tap.borrow_mut();
        self.deaths.judge(&mut tap.ledger);
    }

    fn look(&mut self, died: Instant, orphaned: &mut Vec<u32>, seen: &mut BulkOutcome) {
        let now = self.cluster.now();
        orphaned.retain(|&topic| {
            let is_served = root(&self.cluster, self.topics[topic as usize].id()).is_some();
            if is_served {
                seen.rooted.add(now - died);
            }
            !is_served
        });
        seen.replacements.look(&self.cluster);
    }
}

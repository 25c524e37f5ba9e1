//! Subscriptions, and messages to groups: which members got each, how often, and after how long.

use std::time::Duration;

use treecast_overlay::time::Instant;
use treecast_scribe::event::{Command, Event, SubscriptionId, Token};
use treecast_scribe::{Item, Start};

use super::groups::Groups;
use super::meter::{number_of, numbered};
use super::{Error, Progress};
use crate::cluster::Cluster;
use crate::cluster::lookups::millis;
use crate::node::RingNode;
use crate::world::Shared;

/// How often subscriptions are asked for and counts looked at.
const TICK: Duration = Duration::from_millis(20);
/// Items that each subscriber takes: far more than there are.
const CREDIT: u32 = 1 << 20;
/// How long subscriptions may take after the last was asked for: Scribe's own limit, and a little.
const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(35);
/// How long the last message is waited for.
const DELIVER_LIMIT: Duration = Duration::from_secs(60);
/// Copies that come so late would be duplicates.
const LATE: Duration = Duration::from_secs(5);
/// Bytes of a message.
const PAYLOAD: usize = 100;

/// How messages are spread over time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Messages per second.
    pub rate: f64,
    /// How often some are sent.
    pub tick: Duration,
    /// How often it is looked whether the last have come.
    pub look: Duration,
    /// Receipts are waited for, too.
    pub receipts: bool,
}

/// A message to a group.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// Where it is published.
    pub slot: usize,
    /// Its group.
    pub group: usize,
}

/// Deliveries of one message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    /// When it was sent.
    sent: Instant,
    /// Until each member had it, together.
    pub sum: Duration,
    /// Until the last one that got it had it.
    pub max: Duration,
    /// Members that it reached.
    pub reached: usize,
}

/// Deliveries of all messages.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// By message.
    pub messages: Vec<Delays>,
    /// From publishing to each delivery, in milliseconds: each member's first of each message.
    pub delays_ms: Vec<f32>,
    /// Members that never got a message, over all messages.
    pub missed: u64,
    /// Deliveries beyond the first.
    pub duplicates: u64,
    /// Gaps that subscribers were told of.
    pub gaps: u64,
    /// Messages with a receipt.
    pub receipts: u64,
    /// For each message and each member of its group, one after the other: whether it came.
    seen: Vec<bool>,
    /// Where those of a message begin.
    begins: Vec<usize>,
}

/// Counts of subscriptions.
#[derive(Debug, Default)]
struct Started {
    started: u64,
    failed: u64,
    first_failure: Option<String>,
}

/// Does something `total` times, evenly, so many times a tick.
fn spread<N: RingNode>(
    cluster: &mut Cluster<N>,
    total: usize,
    (tick, per_tick): (Duration, f64),
    mut act: impl FnMut(&mut Cluster<N>, usize),
    mut tell: impl FnMut(&Cluster<N>, usize),
) {
    let (mut due, mut next) = (0.0, 0);
    while next < total {
        due += per_tick;
        while due >= 1.0 && next < total {
            due -= 1.0;
            act(cluster, next);
            next += 1;
        }
        cluster.world.run_for(tick);
        tell(cluster, next);
    }
}

/// Subscribes every member, evenly, and waits until all have their start.
pub fn subscribe<N: RingNode>(
    cluster: &mut Cluster<N>,
    groups: &Groups,
    progress: &Progress,
) -> Result<(), Error> {
    let book: Shared<Started> = Shared::default();
    let writer = Shared::clone(&book);
    cluster.world.hand_events_to(move |_, _, event| writer.borrow_mut().note(event));
    let memberships = &groups.memberships;
    progress.phase("subscribing", memberships.len() as u64);
    let per_tick = (cluster.roster.len() as f64 / 10.0).max(50.0) * TICK.as_secs_f64();
    let ask = |cluster: &mut Cluster<N>, next: usize| {
        let (group, slot) = memberships[next];
        let (subscription, topic) = (SubscriptionId(next as u64), groups.topics[group as usize].clone());
        let command = Command::Subscribe { subscription, topic, start: Start::Latest, credit: CREDIT };
        cluster.world.command(slot as usize, command);
    };
    spread(cluster, memberships.len(), (TICK, per_tick), ask, |cluster, _| {
        progress.at(book.borrow().started, format!("{} of virtual time", cluster.now()));
    });
    let (end, all) = (cluster.now() + SUBSCRIBE_LIMIT, memberships.len() as u64);
    while book.borrow().started < all && cluster.now() < end {
        cluster.world.run_for(TICK);
    }
    let book = book.borrow();
    match all - book.started {
        0 => Ok(()),
        waiting => Err(Error::Failed(format!(
            "S5: {waiting} of {all} subscriptions did not start; {} failed{}",
            book.failed,
            book.first_failure.as_ref().map(|why| format!(", the first because {why}")).unwrap_or_default()
        ))),
    }
}

impl Started {
    fn note(&mut self, event: Event) {
        if let Event::Subscribed { .. } = event {
            self.started += 1;
        } else if let Event::SubscribeFailed { error, .. } = event {
            self.failed += 1;
            self.first_failure.get_or_insert_with(|| error.to_string());
        }
    }
}

/// Publishes messages, evenly, waits until all have come, and a little longer for what should not come. `outgoing` says
/// the next one when it is its turn.
pub fn publish<N: RingNode>(
    cluster: &mut Cluster<N>,
    groups: &Groups,
    (count, pace): (usize, Pace),
    mut outgoing: impl FnMut(usize) -> Outgoing,
    (name, progress): (&str, &Progress),
) -> Received {
    // A subscription's place among the members of its group.
    let mut sizes = vec![0; groups.topics.len()];
    let place = |&(group, _): &(u32, u32)| {
        sizes[group as usize] += 1;
        sizes[group as usize] - 1
    };
    let places: Vec<usize> = groups.memberships.iter().map(place).collect();
    let book: Shared<Received> = Shared::default();
    let writer = Shared::clone(&book);
    let note = move |at, _, event| writer.borrow_mut().note(at, event, &places);
    cluster.world.hand_events_to(note);
    progress.phase(name, count as u64);
    let mut expected = 0;
    let send = |cluster: &mut Cluster<N>, next: usize| {
        let Outgoing { slot, group } = outgoing(next);
        expected += sizes[group];
        book.borrow_mut().begin(cluster.now(), sizes[group]);
        let (topic, payload) = (groups.topics[group].clone(), numbered(next, PAYLOAD));
        cluster.world.command(slot, Command::Publish { token: Token(next as u64), topic, payload });
    };
    spread(cluster, count, (pace.tick, pace.rate * pace.tick.as_secs_f64()), send, |_, next| {
        progress.at(next as u64, format!("{} deliveries", book.borrow().delays_ms.len()));
    });
    let is_complete = |book: &Received| {
        book.delays_ms.len() == expected && (!pace.receipts || book.receipts == count as u64)
    };
    let end = cluster.now() + DELIVER_LIMIT;
    while !is_complete(&book.borrow()) && cluster.now() < end {
        cluster.world.run_for(pace.look);
    }
    cluster.world.run_for(LATE);
    let mut received = book.take();
    received.missed = (expected - received.delays_ms.len()) as u64;
    received
}

impl Received {
    /// A message is about to be sent to so many members.
    fn begin(&mut self, now: Instant, members: usize) {
        self.messages.push(Delays { sent: now, ..Delays::default() });
        self.begins.push(self.seen.len());
        self.seen.resize(self.seen.len() + members, false);
    }

    /// A subscription is named by its place among the memberships.
    fn note(&mut self, at: Instant, event: Event, places: &[usize]) {
        if let Event::Published { .. } = event {
            self.receipts += 1;
        } else if let Event::Item { item: Item::Gap(_), .. } = event {
            self.gaps += 1;
        } else if let Event::Item { subscription, item: Item::Message(message) } = event
            && let Some(number) = number_of(&message.payload).filter(|&number| number < self.messages.len())
        {
            let seen = &mut self.seen[self.begins[number] + places[subscription.0 as usize]];
            if std::mem::replace(seen, true) {
                self.duplicates += 1;
                return;
            }
            let message = &mut self.messages[number];
            let delay = at - message.sent;
            message.sum += delay;
            message.reached += 1;
            message.max = message.max.max(delay);
            self.delays_ms.push(millis(delay));
        }
    }
}

//! Subscriptions and one message for each group: who got it, how often, and after how long.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use treecast_overlay::time::Instant;
use treecast_scribe::event::{Command, Event, SubscriptionId, Token};
use treecast_scribe::{Item, Start};

use super::groups::Groups;
use super::meter::numbered;
use super::{Error, Progress};
use crate::cluster::Cluster;
use crate::node::RingNode;

/// How often commands are given and counts looked at.
const TICK: Duration = Duration::from_millis(20);
/// Items that each subscriber takes: far more than there are.
const CREDIT: u32 = 1 << 20;
/// How long subscriptions may take after the last was asked for: Scribe's own limit, and a little.
const SUBSCRIBE_LIMIT: Duration = Duration::from_secs(35);
/// How long the last message is waited for.
const DELIVER_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a message.
const PAYLOAD: usize = 100;

/// What the subscribers say.
#[derive(Debug, Default)]
struct Book {
    started: u64,
    failed: u64,
    first_failure: Option<String>,
    gaps: u64,
    /// By subscription: how often its message came.
    times: Vec<u8>,
    delivered: u64,
    groups: Vec<Delays>,
}

/// What the members of one group waited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    /// When the message was sent.
    sent: Instant,
    /// Sum over the members.
    pub sum: Duration,
    /// The longest.
    pub max: Duration,
    /// How many members, other than the sender, the message reached.
    pub reached: usize,
}

/// What became of all messages.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// By group.
    pub delays: Vec<Delays>,
    /// Deliveries to subscriptions, each message's first.
    pub delivered: u64,
    /// Memberships that never got their message.
    pub missed: u64,
    /// Deliveries beyond the first.
    pub duplicates: u64,
    /// Gaps that subscribers were told of.
    pub gaps: u64,
}

/// Subscribes every member, evenly, and waits until all have their start.
pub fn subscribe<N: RingNode>(
    cluster: &mut Cluster<N>,
    groups: &Groups,
    progress: &Progress,
) -> Result<(), Error> {
    let book = Rc::new(RefCell::new(Book::default()));
    let writer = Rc::clone(&book);
    cluster.world.hand_events_to(move |_, _, event| writer.borrow_mut().note_start(event));
    let memberships = &groups.memberships;
    progress.phase("subscribing", memberships.len() as u64);
    let rate = (cluster.roster.by_id().len() as f64 / 10.0).max(50.0) * TICK.as_secs_f64();
    let (mut due, mut next) = (0.0, 0);
    while next < memberships.len() {
        due += rate;
        while due >= 1.0 && next < memberships.len() {
            due -= 1.0;
            let (group, slot) = memberships[next];
            let command = Command::Subscribe {
                subscription: SubscriptionId(next as u64),
                topic: groups.topics[group as usize].clone(),
                start: Start::Latest,
                credit: CREDIT,
            };
            cluster.world.command(slot as usize, command);
            next += 1;
        }
        cluster.world.run_for(TICK);
        progress.at(book.borrow().started, format!("{} of virtual time", cluster.world.now()));
    }
    let end = cluster.world.now() + SUBSCRIBE_LIMIT;
    while book.borrow().started < next as u64 && cluster.world.now() < end {
        cluster.world.run_for(TICK);
    }
    let book = book.borrow();
    match next as u64 - book.started {
        0 => Ok(()),
        waiting => Err(Error::Failed(format!(
            "S5: {waiting} of {next} subscriptions did not start; {} failed{}",
            book.failed,
            book.first_failure.as_ref().map(|why| format!(", the first because {why}")).unwrap_or_default()
        ))),
    }
}

/// Publishes a message in each group from its publisher's slot, evenly, and waits until all have come.
pub fn publish<N: RingNode>(
    cluster: &mut Cluster<N>,
    groups: &Groups,
    publishers: &[usize],
    progress: &Progress,
) -> Received {
    let memberships = groups.memberships.clone();
    let book = Rc::new(RefCell::new(Book {
        times: vec![0; memberships.len()],
        groups: vec![Delays::default(); publishers.len()],
        ..Book::default()
    }));
    let (expected, writer) = (memberships.len() as u64, Rc::clone(&book));
    cluster.world.hand_events_to(move |at, _, event| writer.borrow_mut().note_item(at, event, &memberships));
    progress.phase("publishing", publishers.len() as u64);
    let rate = (publishers.len() as f64 / 30.0).max(10.0) * TICK.as_secs_f64();
    let (mut due, mut next) = (0.0, 0);
    while next < publishers.len() {
        due += rate;
        while due >= 1.0 && next < publishers.len() {
            due -= 1.0;
            book.borrow_mut().groups[next].sent = cluster.world.now();
            let (topic, payload) = (groups.topics[next].clone(), numbered(next, PAYLOAD));
            cluster
                .world
                .command(publishers[next], Command::Publish { token: Token(next as u64), topic, payload });
            next += 1;
        }
        cluster.world.run_for(TICK);
        progress.at(next as u64, format!("{} deliveries", book.borrow().delivered));
    }
    let end = cluster.world.now() + DELIVER_LIMIT;
    while book.borrow().delivered < expected && cluster.world.now() < end {
        cluster.world.run_for(TICK);
    }
    // Copies that come late would be duplicates.
    cluster.world.run_for(Duration::from_secs(5));
    let book = book.take();
    Received {
        missed: book.times.iter().filter(|&&times| times == 0).count() as u64,
        duplicates: book.times.iter().map(|&times| u64::from(times.saturating_sub(1))).sum(),
        delays: book.groups,
        delivered: book.delivered,
        gaps: book.gaps,
    }
}

impl Book {
    fn note_start(&mut self, event: Event) {
        if let Event::Subscribed { .. } = event {
            self.started += 1;
        } else if let Event::SubscribeFailed { error, .. } = event {
            self.failed += 1;
            self.first_failure.get_or_insert_with(|| error.to_string());
        }
    }

    fn note_item(&mut self, at: Instant, event: Event, memberships: &[(u32, u32)]) {
        let Event::Item { subscription, item } = event else { return };
        match item {
            Item::Message(_) => {
                let times = &mut self.times[subscription.0 as usize];
                *times = times.saturating_add(1);
                if *times == 1 {
                    self.delivered += 1;
                    let delays = &mut self.groups[memberships[subscription.0 as usize].0 as usize];
                    let delay = at - delays.sent;
                    delays.sum += delay;
                    delays.reached += 1;
                    delays.max = delays.max.max(delay);
                }
            }
            Item::Gap(_) => self.gaps += 1,
            Item::ParentChanged(_) => {}
        }
    }
}

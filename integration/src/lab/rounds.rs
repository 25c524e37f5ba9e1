//! Messages through one topic to which all nodes subscribe: who got each, and how late.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::time::Instant;
use treecast_scribe::Item;
use treecast_scribe::event::{Command, Event, Token};

use super::Progress;
use super::groups::Groups;
use super::meter::{Meter, Sent, number_of, numbered};
use super::stats::Samples;
use crate::cluster::Cluster;
use crate::cluster::lookups::millis;
use crate::node::RingNode;
use crate::world::Shared;

/// How often commands are given.
const TICK: Duration = Duration::from_millis(1);
/// How long the last message is waited for.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a message.
const PAYLOAD: usize = 100;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Messages.
    pub messages: usize,
    /// Messages per second.
    pub rate: f64,
    /// Each message has a sender of its own, at random; else one sends all.
    pub random: bool,
}

/// What became of the messages.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    /// From publishing to each delivery, in milliseconds.
    pub delays: Samples,
    /// From publishing until the last node has it, in milliseconds, for each message that all got.
    pub lasts: Samples,
    /// What each message cost.
    pub costs: Vec<Sent>,
    /// Deliveries, each node's first of each message.
    pub delivered: u64,
    /// Nodes that did not get a message, over all messages.
    pub lost: u64,
    /// Deliveries beyond the first.
    pub duplicates: u64,
    /// Messages without receipt.
    pub unacknowledged: u64,
}

#[derive(Debug, Default)]
struct Book {
    sent: Vec<Instant>,
    /// Per message and node: whether it was delivered.
    seen: Vec<bool>,
    counts: Vec<u32>,
    last: Vec<Instant>,
    delays: Vec<f32>,
    duplicates: u64,
    receipts: u64,
}

/// Publishes by plan, waits for all deliveries, and a little longer for those that should not come.
pub fn publish<N: RingNode>(
    (cluster, meter): (&mut Cluster<N>, &Shared<Meter>),
    groups: &Groups,
    plan: &Load,
    name: &str,
    progress: &Progress,
) -> Rounds {
    let slots: Vec<u32> = groups.memberships.iter().map(|&(_, slot)| slot).collect();
    let (nodes, messages) = (slots.len(), plan.messages);
    let book = Rc::new(RefCell::new(Book {
        seen: vec![false; nodes * messages],
        counts: vec![0; messages],
        last: vec![Instant::ZERO; messages],
        ..Book::default()
    }));
    let writer = Rc::clone(&book);
    cluster.world.hand_events_to(move |at, _, event| writer.borrow_mut().note(at, event, nodes));
    meter.borrow_mut().messages = vec![Sent::default(); messages];
    let mut dice = cluster.world.stream(&format!("lab/senders/{name}"));
    let any = dice.random_range(0..nodes);
    progress.phase(name, messages as u64);
    let (mut due, mut number) = (0.0, 0);
    while number < messages {
        due += plan.rate * TICK.as_secs_f64();
        while due >= 1.0 && number < messages {
            due -= 1.0;
            let sender = if plan.random { dice.random_range(0..nodes) } else { any };
            book.borrow_mut().sent.push(cluster.world.now());
            let (topic, payload) = (groups.topics[0].clone(), numbered(number, PAYLOAD));
            let command = Command::Publish { token: Token(number as u64), topic, payload };
            cluster.world.command(slots[sender] as usize, command);
            number += 1;
        }
        cluster.world.run_for(TICK);
        progress.at(number as u64, format!("{} deliveries", book.borrow().delays.len()));
    }
    let end = cluster.world.now() + LIMIT;
    while !book.borrow().is_complete() && cluster.world.now() < end {
        cluster.world.run_for(TICK * 10);
    }
    cluster.world.run_for(Duration::from_secs(5));
    let costs = std::mem::take(&mut meter.borrow_mut().messages);
    book.take().close(costs, nodes)
}

impl Book {
    /// A subscription is named by its place among the nodes.
    fn note(&mut self, at: Instant, event: Event, nodes: usize) {
        if let Event::Published { .. } = event {
            self.receipts += 1;
            return;
        }
        let Event::Item { subscription, item: Item::Message(message) } = event else { return };
        let Some(number) = number_of(&message.payload).filter(|&number| number < self.sent.len()) else {
            return;
        };
        let seen = &mut self.seen[number * nodes + subscription.0 as usize];
        if std::mem::replace(seen, true) {
            self.duplicates += 1;
            return;
        }
        self.counts[number] += 1;
        self.last[number] = at;
        self.delays.push(millis(at - self.sent[number]));
    }

    fn is_complete(&self) -> bool {
        self.delays.len() == self.seen.len() && self.receipts == self.sent.len() as u64
    }

    fn close(self, costs: Vec<Sent>, nodes: usize) -> Rounds {
        let complete = |number: &usize| self.counts[*number] as usize == nodes;
        let last = |number: usize| millis(self.last[number] - self.sent[number]);
        let lasts = (0..self.sent.len()).filter(complete).map(last).collect();
        Rounds {
            lasts: Samples::new(lasts),
            costs,
            delivered: self.delays.len() as u64,
            lost: (self.seen.len() - self.delays.len()) as u64,
            duplicates: self.duplicates,
            unacknowledged: self.sent.len() as u64 - self.receipts,
            delays: Samples::new(self.delays),
        }
    }
}

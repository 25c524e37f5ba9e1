//! The surroundings of a tree, so that its parts can be tested alone.

use std::collections::BTreeSet;

use treecast_overlay::deadlines::Deadlines;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::peer::{Addr, Contact, Peer};
use treecast_overlay::random::{self, Rng};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::NodeState;

use crate::config::Config;
use crate::event::Event;
use crate::forest::context::{
    LifeStage, Numbers, Outbox, Request, RingView, Timer, TimersOf, TreeCx, TreeTimer,
};
use crate::forest::links::Links;
use crate::forest::neighbours::Neighbours;
use crate::forest::quota::Quota;
use crate::log::early::Arrived;
use crate::log::window::Held;
use crate::message::Start;
use crate::topic::TopicId;
use crate::wire::{self, Body, CopyState, Data, Header, Join, Lineage, Signature, Started, Term};

pub(super) const TOPIC: TopicId = TopicId(Key(7));
pub(super) const ME: NodeId = NodeId(1);

pub(super) fn contact(id: u128) -> Contact {
    Peer { id: NodeId(id), incarnation: 1, addr: Addr::Unreachable }.into()
}

/// The first JOIN of a child that has nothing.
pub(super) fn join() -> Join {
    Join {
        topic: TOPIC,
        number: 1,
        start: Start::Latest,
        subscribers: 1,
        former: None,
        copy: None,
        by_third: false,
    }
}

/// The birth of the log.
pub(super) const BIRTH: u64 = 7;

/// A message at an offset.
pub(super) fn entry(offset: u64) -> Arrived {
    let (publisher, signature) = (NodeId(3), Signature::None);
    let body = Body::Message { publisher, session: 1, sequence: offset + 1, signature };
    let (birth, term, behind, stamp) = (BIRTH, 1, 0, 1000);
    let data = Data { topic: TOPIC, birth, offset, term, behind, stamp, body };
    Arrived { birth, offset, behind, held: Held::encode(data, b"text") }
}

/// The empty copy of a new member.
pub(super) fn copy(life: u64) -> CopyState {
    let (synced, lineage, configurations) = (Term::ZERO, Lineage::default(), Vec::new());
    CopyState { life, synced, birth: 7, lineage, start: 0, commit: 0, end: 0, configurations }
}

/// A parent starts this node at the log's beginning.
pub(super) fn started() -> Started {
    Started { birth: BIRTH, lineage: Lineage::default(), next: 0, latest: 0, sync: None }
}

/// A ring on which this node is never the root.
struct Elsewhere;

impl RingView for Elsewhere {
    fn contact(&self) -> Contact {
        contact(ME.0)
    }

    fn reply_contact(&self, _: u64) -> Contact {
        contact(ME.0)
    }

    fn node_state(&self) -> NodeState {
        NodeState::Ready
    }

    fn is_root_of(&self, _: Instant, _: Key) -> bool {
        false
    }

    fn replica_set(&self, _: Key, _: usize) -> Vec<Peer> {
        Vec::new()
    }
}

/// All that a tree shares with others.
pub(super) struct Surroundings {
    pub now: Instant,
    pub config: Config,
    rng: Rng,
    pub out: Outbox,
    deadlines: Deadlines<Timer>,
    neighbours: Neighbours,
    pub links: Links,
    pub quota: Quota,
    numbers: Numbers,
    turn: BTreeSet<TopicId>,
}

impl Surroundings {
    pub(super) fn new(config: Config) -> Surroundings {
        Surroundings {
            now: Instant::ZERO,
            config,
            rng: random::stream(&[1; 32], "tree"),
            out: Outbox::new(ME),
            deadlines: Deadlines::default(),
            neighbours: Neighbours::default(),
            links: Links::default(),
            quota: Quota::default(),
            numbers: Numbers::default(),
            turn: BTreeSet::new(),
        }
    }

    pub(super) fn cx(&mut self) -> TreeCx<'_> {
        TreeCx {
            now: self.now,
            topic: TOPIC,
            me: ME,
            ring: &Elsewhere,
            config: &self.config,
            life: LifeStage::Running,
            rng: &mut self.rng,
            out: &mut self.out,
            timers: TimersOf::new(TOPIC, &mut self.deadlines),
            neighbours: &mut self.neighbours,
            links: &mut self.links,
            quota: &mut self.quota,
            numbers: &mut self.numbers,
            turn: &mut self.turn,
        }
    }

    /// Messages that were sent, or routed, since the last call.
    pub(super) fn sent(&mut self) -> Vec<Header> {
        let decode = |request| match request {
            Request::Send { payload, .. } | Request::Route { payload, .. } => {
                wire::decode(&payload).unwrap().0
            }
        };
        self.out.requests.drain(..).map(decode).collect()
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        self.out.events.drain(..).collect()
    }

    pub(super) fn waits_for(&self, timer: TreeTimer) -> bool {
        self.deadlines.is_set(Timer::Tree(timer, TOPIC))
    }
}

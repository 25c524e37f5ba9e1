//! What one node knows of one topic's tree: its place, its children, its own subscribers, and its part of the log.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Addr, Contact, Peer};
use treecast_overlay::time::Instant;

use super::handover::Inheritance;
use super::moving::Moving;
use crate::early::Early;
use crate::event::SubscriptionId;
use crate::message::{GapReason, Mark, Position, Start, Term};
use crate::seen::Seen;
use crate::sessions::Sessions;
use crate::sorted::SortedMap;
use crate::topic::TopicId;
use crate::window::Window;
use crate::wire::{Attached, Join, Known, Publish};

/// One topic at one node.
#[derive(Debug)]
pub(crate) struct Tree {
    pub topic: TopicId,
    pub role: Role,
    /// This node's last JOIN for the topic.
    pub join: u64,
    /// The last one that named no mark: a parent that takes it begins this node at the parent's own end.
    pub markless: u64,
    /// This node's part of the log; `None` until a parent has started it.
    pub log: Option<Log>,
    /// The most that anybody told of the log, if that is more than this node's own part shows.
    pub heard: Option<Box<Known>>,
    pub children: SortedMap<NodeId, Child>,
    pub subscriptions: SortedMap<SubscriptionId, Subscription>,
    /// The parent before this one, to tell a change from a first attachment.
    pub last_parent: Option<Option<NodeId>>,
    /// It stays until then, even if nobody needs it.
    pub keep_until: Instant,
    /// Entries that came before their predecessors.
    pub early: Early,
    /// Entries that the parent does not know yet to have come.
    pub unacknowledged: u64,
    /// The parent was asked to repeat since the last progress.
    pub asked_again: bool,
    /// Subscribers as last told to the parent.
    pub told_subscribers: u64,
    /// This node is on its way to another parent.
    pub moving: Option<Box<Moving>>,
    /// Attempts to bring the tree into shape since its children last changed.
    pub tries: u8,
    /// Repetitions of a JOIN that the parent has not answered.
    pub unanswered: u8,
    /// Bytes that the forest counts for this tree's window and early entries, and when they last grew.
    pub counted: (usize, Instant),
    /// The forest counts this tree among the node's own topics.
    pub counted_own: bool,
}

/// This node's place in the tree.
#[derive(Debug)]
pub(crate) enum Role {
    /// It looks for a parent.
    Joining {
        /// The parent that it had, which may not know that it has lost this child.
        former: Option<Box<Contact>>,
    },
    /// It has a parent.
    Child(Upward),
    /// It is the root, and asks around before it opens its term.
    Opening(Box<Opening>),
    /// It is the root.
    Root(Box<Root>),
}

/// A child's way up.
#[derive(Clone, Debug)]
pub(crate) struct Upward {
    pub parent: NodeId,
    /// From the parent to the root.
    pub path: Box<[NodeId]>,
    /// How the path's end is reached, if that is known.
    pub root: Option<Box<Reach>>,
    pub since: Instant,
    /// The JOIN to which the parent's last word belongs, and that word's number.
    pub version: (u64, u64),
}

/// A peer whose id stands elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    incarnation: u64,
    addr: Addr,
}

impl Upward {
    /// The way up through a parent that said this. A root that the path does not end at is not believed.
    pub(crate) fn through(parent: NodeId, since: Instant, word: Attached) -> Upward {
        let end = word.path.last().copied();
        Upward {
            parent,
            root: word.root.filter(|root| Some(root.id) == end).map(Reach::of),
            path: word.path.into_boxed_slice(),
            since,
            version: (word.join, word.version),
        }
    }

    /// The root, as the parent told.
    fn root(&self) -> Option<Peer> {
        let Reach { incarnation, addr } = **self.root.as_ref()?;
        Some(Peer { id: *self.path.last()?, incarnation, addr })
    }
}

impl Reach {
    fn of(peer: Peer) -> Box<Reach> {
        Box::new(Reach { incarnation: peer.incarnation, addr: peer.addr })
    }
}

/// A root that has not opened its term yet.
#[derive(Debug)]
pub(crate) struct Opening {
    pub since: Instant,
    /// Nodes that were asked and have not answered.
    pub awaiting: BTreeMap<NodeId, Contact>,
    /// When they are asked again.
    pub ask_at: Instant,
    /// When an earlier term became known.
    pub learned: Option<Instant>,
    /// Until when a promised handover is waited for.
    pub promised: Option<Instant>,
    pub inheritance: Option<Inheritance>,
    /// This node was the root before its leases ended for a while: what it knew then. It goes on with its term, unless
    /// somebody knows of more.
    pub resumes: Option<Box<Root>>,
    /// Messages that wait for the term.
    pub parked: VecDeque<(Publish, Bytes)>,
    pub parked_bytes: usize,
}

/// What a root knows beyond its window.
#[derive(Debug)]
pub(crate) struct Root {
    pub sessions: Sessions,
    /// From then on every session that counts is known: one that is not known cannot have been in the log.
    pub certain_from: Instant,
    pub used: Instant,
    /// Its leases have ended: another node may have been the root since.
    pub lapsed: bool,
}

/// A node's part of a topic's log.
#[derive(Debug)]
pub(crate) struct Log {
    pub birth: u64,
    /// The highest term of which this node has the start, or was told by the parent that started it.
    pub term: Term,
    pub window: Window,
}

impl Log {
    /// How far it reaches.
    pub(crate) fn known(&self) -> Known {
        Known { birth: self.birth, term: self.term, tail: self.window.tail() }
    }

    /// The mark of a reader that has everything.
    pub(crate) fn mark(&self) -> Mark {
        Mark { birth: self.birth, position: self.window.tail() }
    }
}

/// A child of this node.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    /// The life of it that joined.
    pub incarnation: u64,
    /// Its JOIN.
    pub join: u64,
    /// What that asked for; not kept once it is started.
    pub after: Option<Box<Mark>>,
    /// Subscribers at and below it.
    pub subscribers: u64,
    /// The number of this node's last word to it.
    pub version: u64,
    /// The last one that it has acknowledged.
    pub version_seen: u64,
    /// `None` until it is started.
    pub cursor: Option<Cursor>,
    /// How long this node waits for a sign of progress, in milliseconds.
    pub rto: u32,
    /// Shortest time from a word to its acknowledgement, in µs; `u32::MAX`: not measured yet.
    pub rtt: u32,
    /// When the last word was first said.
    pub said: Instant,
    /// That word was said again: its acknowledgement measures nothing.
    pub said_again: bool,
    /// It has another parent still: nothing is pushed before its first acknowledgement.
    pub held: bool,
    /// Until then it is offered no parents, and to nobody as one.
    pub rests_until: Instant,
}

/// A child's place in this node's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The next offset to push.
    pub next: u64,
    /// Everything before this offset has arrived.
    pub acknowledged: u64,
    /// The word by which the cursor was last set: older acknowledgements say nothing of it.
    pub version: u64,
    /// The place from which was pushed again at the child's wish: once is enough.
    pub repeated: Option<u64>,
}

/// A subscriber of this very node.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub start: Start,
    /// Items that it takes now.
    pub credit: u32,
    /// `None` until its start is known.
    pub reader: Option<Reader>,
    /// The messages that it has had.
    pub seen: Seen,
    /// A new parent that it has not heard of yet.
    pub parent_news: Option<Option<NodeId>>,
}

/// A subscriber's place in this node's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    /// The last position that is behind it. It only ever moves forward.
    pub last: Option<Position>,
    /// The next offset to deliver.
    pub next: u64,
    /// It has missed something that it has not heard of yet: why, and what it had before.
    pub owed: Option<(GapReason, Option<Position>)>,
}

impl Tree {
    pub(crate) fn new(now: Instant, topic: TopicId) -> Tree {
        Tree {
            topic,
            role: Role::Joining { former: None },
            join: 0,
            markless: 0,
            log: None,
            heard: None,
            children: SortedMap::default(),
            subscriptions: SortedMap::default(),
            last_parent: None,
            keep_until: now,
            early: Early::default(),
            unacknowledged: 0,
            asked_again: false,
            told_subscribers: 0,
            moving: None,
            tries: 0,
            unanswered: 0,
            counted: (0, now),
            counted_own: false,
        }
    }

    /// Bytes that the window and the early entries pin.
    pub(crate) fn bytes(&self) -> usize {
        self.log.as_ref().map_or(0, |log| log.window.bytes()) + self.early.bytes()
    }

    /// Has a parent, or news of it.
    pub(crate) fn hang(&mut self, upward: Upward) {
        self.role = Role::Child(upward);
        self.unanswered = 0;
    }

    /// The parent, if there is one.
    pub(crate) fn parent(&self) -> Option<NodeId> {
        match &self.role {
            Role::Child(upward) => Some(upward.parent),
            Role::Joining { .. } | Role::Opening(_) | Role::Root(_) => None,
        }
    }

    /// From the parent to the root.
    pub(crate) fn path(&self) -> &[NodeId] {
        match &self.role {
            Role::Child(upward) => &upward.path,
            Role::Joining { .. } | Role::Opening(_) | Role::Root(_) => &[],
        }
    }

    /// Where the parent says that the root is.
    pub(crate) fn told_root(&self) -> Option<Peer> {
        match &self.role {
            Role::Child(upward) => upward.root(),
            Role::Joining { .. } | Role::Opening(_) | Role::Root(_) => None,
        }
    }

    /// A node is down: if it was the root, nobody else is known to be.
    pub(crate) fn forget_root(&mut self, down: NodeId) {
        if let Role::Child(upward) = &mut self.role
            && upward.path.last() == Some(&down)
        {
            upward.root = None;
        }
    }

    /// Whether this node is the topic's root, be it that its term is still to be opened.
    pub(crate) fn is_root(&self) -> bool {
        match self.role {
            Role::Opening(_) | Role::Root(_) => true,
            Role::Joining { .. } | Role::Child(_) => false,
        }
    }

    /// Whether the topic is this node's own: it subscribes to it, or is its root.
    pub(crate) fn is_own(&self) -> bool {
        self.is_root() || !self.subscriptions.is_empty()
    }

    /// Whether it looks for a parent.
    pub(crate) fn is_joining(&self) -> bool {
        matches!(self.role, Role::Joining { .. })
    }

    /// Whether anybody needs it.
    pub(crate) fn is_needed(&self) -> bool {
        !self.children.is_empty() || !self.subscriptions.is_empty()
    }

    /// Subscribers at and below this node.
    pub(crate) fn subscribers(&self) -> u64 {
        let own = self.subscriptions.len() as u64;
        self.children.values().fold(own, |sum, child| sum.saturating_add(child.subscribers))
    }

    /// The same as an honest estimate: 0 only if there is neither child nor subscriber.
    pub(crate) fn listeners(&self) -> u64 {
        self.subscribers().max(u64::from(self.is_needed()))
    }

    /// This node's wish for a parent, under a certain number.
    pub(crate) fn join_message(&self, number: u64, former: Option<NodeId>) -> Join {
        let subscribers = self.subscribers();
        Join { topic: self.topic, number, after: self.wish(), heard: self.implied(), subscribers, former }
    }

    /// What a JOIN tells of the log: what is known; else what the wished mark implies.
    fn implied(&self) -> Option<Known> {
        let implied = || {
            let mark = self.wish()?;
            Some(Known { birth: mark.birth, term: mark.position?.term, tail: mark.position })
        };
        self.known().or_else(implied)
    }

    /// The most that is known of the log, from the own part and from others.
    pub(crate) fn known(&self) -> Option<Known> {
        let own = self.log.as_ref().map(Log::known);
        match (own, self.heard.as_deref().copied()) {
            (Some(own), Some(heard)) => Some(better(own, heard)),
            (one, None) | (None, one) => one,
        }
    }

    /// What this node wants to continue after: what it has, else the oldest wish of its children and subscribers.
    pub(crate) fn wish(&self) -> Option<Mark> {
        if let Some(log) = &self.log {
            return Some(log.mark());
        }
        let children = self.children.values().filter_map(|child| child.after.as_deref().copied());
        let own = self.subscriptions.values().filter_map(|subscription| match subscription.start {
            Start::Latest => None,
            Start::After(mark) => Some(mark),
        });
        let mut wishes = children.chain(own);
        let first = wishes.next()?;
        // Marks of other births say nothing of this one; the first decides.
        Some(
            wishes
                .filter(|mark| mark.birth == first.birth)
                .fold(first, |oldest, mark| if mark.position < oldest.position { mark } else { oldest }),
        )
    }
}

/// Whether a position may be the word of an honest node: no log has had so many terms, or so many entries. A claim
/// beyond that would drive the topic's numbers towards their end.
pub(crate) fn is_plausible(position: Option<Position>) -> bool {
    position.is_none_or(|position| position.term.number < 1 << 40 && position.offset < 1 << 50)
}

/// What two nodes know together: the highest term, and the last position. Of two logs the longer one is kept.
pub(crate) fn better(a: Known, b: Known) -> Known {
    if a.birth == b.birth {
        return Known { birth: a.birth, term: a.term.max(b.term), tail: a.tail.max(b.tail) };
    }
    let length = |known: &Known| (known.tail.map(|tail| tail.offset), known.birth);
    if length(&a) >= length(&b) { a } else { b }
}

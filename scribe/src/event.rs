//! Commands of the layer above to a [`Stack`](crate::stack::Stack), and the events that it hears.

use bytes::Bytes;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::{Bootstrap, Found, StartError};
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::wire::{NodeState, RouteFailure};

use crate::message::{BroadcastError, Item, Mark, PublishError, Receipt, Start, SubscribeError};
use crate::topic::Topic;

/// Names one subscription; chosen by the layer above, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// Names one request; chosen by the layer above, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A command of the layer above.
#[derive(Clone, Debug)]
pub enum Command {
    /// Find a ring, or be the first. To be given once.
    Start(Bootstrap),
    /// Subscribe. Answered by `Subscribed` or `SubscribeFailed`.
    Subscribe {
        /// Names the subscription.
        subscription: SubscriptionId,
        /// The topic.
        topic: Topic,
        /// Where to begin.
        start: Start,
        /// How many items the subscriber takes now; see `Credit`.
        credit: u32,
    },
    /// The subscriber takes so many items more. Without credit nothing is delivered to it: it is a cursor into the
    /// topic's window, and falls out of it if it waits too long.
    Credit {
        /// The subscription.
        subscription: SubscriptionId,
        /// How many items more.
        items: u32,
    },
    /// End a subscription. No word of it follows.
    Unsubscribe(SubscriptionId),
    /// Publish. Answered by `Published` or `PublishFailed`.
    Publish {
        /// Names the request.
        token: Token,
        /// The topic.
        topic: Topic,
        /// The message.
        payload: Bytes,
    },
    /// Tell every node of the ring, and their edges; this one excepted. Answered by `BroadcastEnded`.
    Broadcast {
        /// Names the request.
        token: Token,
        /// The message.
        payload: Bytes,
    },
    /// Asks for the root of a key. Answered by `Found` or `NotFound`.
    Lookup {
        /// Names the request.
        token: Token,
        /// Where to look.
        key: Key,
        /// Whether to record the path.
        trace: bool,
    },
    /// Asks for the node's state. Answered by `Status`.
    Status(Token),
    /// Asks what this node itself knows of a topic. Answered by `Topic`, at once.
    Topic {
        /// Names the request.
        token: Token,
        /// The topic.
        topic: Topic,
    },
    /// Leave all trees and the ring, in order. `Left` follows.
    Leave,
}

/// An event for the layer above.
#[derive(Debug)]
pub enum Event {
    /// The node is on the ring, or attached to it.
    Ready {
        /// It is the first of a ring of its own.
        alone: bool,
    },
    /// The start failed; the node is of no use.
    StartFailed(StartError),
    /// A subscription has its start: everything that is committed after the mark will be delivered or announced as a
    /// gap.
    Subscribed {
        /// The subscription.
        subscription: SubscriptionId,
        /// Where it begins.
        mark: Mark,
    },
    /// A subscription came to nothing.
    SubscribeFailed {
        /// The subscription.
        subscription: SubscriptionId,
        /// Why.
        error: SubscribeError,
    },
    /// A message or a notice for a subscriber; costs one credit.
    Item {
        /// The subscription.
        subscription: SubscriptionId,
        /// The item.
        item: Item,
    },
    /// A message is committed.
    Published {
        /// The request.
        token: Token,
        /// The root's word.
        receipt: Receipt,
    },
    /// A message has no receipt.
    PublishFailed {
        /// The request.
        token: Token,
        /// Why.
        error: PublishError,
    },
    /// Another node told all nodes something. Best effort: without order, and nothing is kept for a node that comes later.
    Broadcast {
        /// The sender, as those say that passed it on: no signature proves it.
        origin: NodeId,
        /// The message.
        payload: Bytes,
    },
    /// A broadcast of this node's own has left it, or did not.
    BroadcastEnded {
        /// The request.
        token: Token,
        /// `Ok`: the nodes that it was given to first have it, and give it on.
        outcome: Result<(), BroadcastError>,
    },
    /// A lookup was answered.
    Found {
        /// The request.
        token: Token,
        /// The answer.
        found: Found,
    },
    /// A lookup was not answered.
    NotFound {
        /// The request.
        token: Token,
        /// Why, if any word came back.
        reason: Option<RouteFailure>,
    },
    /// How the node is.
    Status {
        /// The request.
        token: Token,
        /// The answer.
        status: Status,
    },
    /// The state of a topic, as this node knows it.
    Topic {
        /// The request.
        token: Token,
        /// `None`: the node is not on the topic's tree.
        known: Option<TopicStatus>,
    },
    /// How others reach this node changed: an edge moved to another access node, or became a ring node.
    ContactChanged(Contact),
    /// The node has left.
    Left,
    /// The node stopped for good: a newer incarnation of itself is on the ring.
    Superseded {
        /// The other's incarnation.
        by: u64,
    },
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How others reach it.
    pub contact: Contact,
    /// How far it is.
    pub node_state: NodeState,
    /// Its leaf set (an edge: its access nodes): the peers to remember for the next start.
    pub peers: Vec<Peer>,
    /// The trees it is on.
    pub trees: Vec<TreeStatus>,
}

/// How a node stands in one tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeStatus {
    /// The topic.
    pub topic: crate::topic::TopicId,
    /// Its parent; `None` at the root, or while it has none.
    pub parent: Option<NodeId>,
    /// Whether this node is the root.
    pub is_root: bool,
    /// Whether this node is a member of the topic's log, or is to become one.
    pub is_member: bool,
    /// Its children.
    pub children: Vec<NodeId>,
    /// Subscriptions of this very node.
    pub subscriptions: usize,
}

/// The state of a topic, as one node knows it: as its root all that there is, else as far as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicStatus {
    /// The root; `None` while this node has neither a parent nor the root's part itself.
    pub root: Option<NodeId>,
    /// Whether this node is the root.
    pub is_root: bool,
    /// Hops from this node to the root.
    pub depth: usize,
    /// Subscribers at and below this node: at the root all of them.
    pub subscribers: u64,
    /// This node's part of the log; `None` until its parent has started it.
    pub log: Option<LogStatus>,
}

/// A node's part of a topic's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStatus {
    /// The log's birth.
    pub birth: u64,
    /// Offset of the first entry that this node keeps.
    pub first: u64,
    /// Offset behind the last entry that it knows to be committed.
    pub end: u64,
    /// The nodes that hold the log, by the last configuration that this node has seen; empty if it has seen none.
    pub members: Vec<NodeId>,
}

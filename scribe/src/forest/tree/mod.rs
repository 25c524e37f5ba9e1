//! One topic's tree at one node: a state machine. Its parts own their state and decide about it; this type lets them
//! meet.
//!
//! | part | decides |
//! | --- | --- |
//! | `role` | whether this node looks for a parent, has one, or is the root; which news of the parent count |
//! | `flow` | where an entry goes: into this node's part of the log, and to those that read it, which are |
//! | `children` | … the children: when each is told and pushed something, and |
//! | `readers` | … this node's own subscribers: which items they get |
//! | `relocation` | how a child changes to another parent without missing anything |
//! | `preparation` | whom a root asks before it serves, and what it pulls |
//! | `team` | which nodes are to be members of the log |
//! | `sequencer` | which position a message gets |
//! | `receipts` | which receipts wait for a commit |
//! | `backfill` | which older entries are pulled for subscribers |
//! | `admission` | which messages wait at the root for those that read |
//! | `progress` | how far this node is, and its slowest reader, as the parent is told |
//! | `crate::log::LocalLog` | which entries are next, and whose word of the log counts |
//!
//! The methods of [`Tree`] call downwards: this file → `adopt`, `entries`, `subscribe` → `parent`, `root`, `moving` →
//! `serve` → `progress` → `positions`, `shape` → `state`. Only the three in the middle call each other, because a node without a
//! parent may turn out to be the root, and a root that steps down looks for a parent.

pub(crate) mod role;
pub(crate) mod children;
pub(crate) mod readers;
pub(crate) mod relocation;
pub(crate) mod preparation;
pub(crate) mod receipts;
pub(crate) mod root_state;
pub(crate) mod team;
pub(crate) mod sequencer;
pub(crate) mod admission;
pub(crate) mod backfill;
pub(crate) mod history;
pub(crate) mod flow;
mod state;
pub(crate) mod shape;
mod serve;
pub(crate) mod progress;
mod parent;
mod root;
mod membership;
pub(crate) mod positions;
mod moving;
mod adopt;
mod entries;
mod subscribe;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use self::flow::Flow;
pub(crate) use self::parent::ParentLost;
use self::relocation::Relocation;
use self::role::{Role, Uplink};
use super::context::{TreeCx, TreeTimer};
use super::inbox::TopicMessage;
use crate::event::SubscriptionId;
use crate::permit::Permit;
use crate::topic::TopicId;

/// One topic at one node.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(super) role: Role,
    pub(super) uplink: Uplink,
    pub(super) flow: Flow,
    /// This node is on its way to another parent.
    pub(super) relocation: Option<Box<Relocation>>,
    /// It stays until then, even if no node needs it.
    keep_until: Instant,
    /// The greatest number of a term that this node has heard of.
    known_term: u64,
    /// Attempts to bring the tree into shape since its children last changed.
    shape_tries: u8,
    /// Counts the topic among the node's own.
    own: Option<Permit>,
}

/// A request of the tree to the forest, after a message or a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Outcome {
    Keep,
    /// No node needs it: it is to be left.
    Leave,
    /// This node pushes entries, and is not the parent: it is to be told.
    Refuse(Contact),
    /// This subscription got no start in time, and was ended.
    NoStart(SubscriptionId),
}

impl Tree {
    pub(crate) fn new(now: Instant, topic: TopicId) -> Tree {
        Tree {
            role: Role::Joining { former: None },
            uplink: Uplink::default(),
            flow: Flow::new(now, topic),
            relocation: None,
            keep_until: now,
            known_term: 0,
            shape_tries: 0,
            own: None,
        }
    }

    /// Handles a message of another node of the tree.
    pub(crate) fn on_message(
        &mut self,
        cx: &mut TreeCx<'_>,
        from: Contact,
        message: TopicMessage,
    ) -> Outcome {
        match message {
            TopicMessage::Attached(attached) => self.on_attached(cx, from, attached),
            TopicMessage::Leave { join } => self.on_leave(cx, from, join),
            TopicMessage::Orphan => self.on_orphan(cx, from.id()),
            TopicMessage::Entry(entry) => return self.on_entry(cx, from, entry),
            TopicMessage::Ack(ack) => self.on_ack(cx, from, &ack),
            TopicMessage::Prepare { term } => self.on_prepare(cx, from, term),
            TopicMessage::Promise(promise) => self.on_promise(cx, from, promise),
            TopicMessage::PromiseRefused { promised } => self.on_promise_refused(cx, promised),
            TopicMessage::InviteRefused => self.on_invite_refused(cx, from.id()),
            TopicMessage::LogCommit { term, commit } => self.on_commit(cx, from.id(), term, commit),
            TopicMessage::Pull(pull) => self.on_pull(cx, from, &pull),
            TopicMessage::Pulled { number, entry } => self.on_pulled(cx, number, entry),
            TopicMessage::NotPulled { number, start } => self.on_not_pulled(cx, number, start),
            TopicMessage::Offer(offer) => self.on_offer(cx, from.id(), offer),
            TopicMessage::CapacityProbe { number } => self.on_capacity_probe(cx, from, number),
            TopicMessage::Capacity { number, capacity } => {
                self.relocate(cx, |relocation, cx| {
                    relocation.on_capacity(cx.now, cx.numbers, from.id(), number, capacity)
                });
            }
            TopicMessage::Detach { join } => return self.on_detach(cx, from, join),
            TopicMessage::Detached { join, end } => self.on_detached(cx, from.id(), join, end),
        }
        Outcome::Keep
    }

    /// Handles a deadline that has passed.
    pub(crate) fn on_timer(&mut self, cx: &mut TreeCx<'_>, timer: TreeTimer) -> Outcome {
        match timer {
            TreeTimer::Join => self.on_join_timer(cx),
            TreeTimer::Linger => return self.on_linger_timer(),
            TreeTimer::Recover => self.proceed(cx),
            TreeTimer::Members => self.review_members(cx),
            TreeTimer::Receipts => self.give_receipts(cx),
            TreeTimer::Backfill => self.on_backfill_timer(cx),
            TreeTimer::History => {
                self.flow.on_history_timer(cx);
                self.review_history(cx, false);
            }
            TreeTimer::Push(child) => self.flow.on_push_timer(cx, self.role.way_up(cx), child),
            TreeTimer::Ack => self.acknowledge(cx, false),
            TreeTimer::Patience => self.review_pace(cx),
            TreeTimer::Start(subscription) => {
                self.unsubscribe(cx, subscription);
                return Outcome::NoStart(subscription);
            }
            TreeTimer::Shape => self.on_shape_timer(cx),
            TreeTimer::Relocate => {
                self.relocate(cx, |relocation, cx| relocation.on_timer(cx.now, cx.numbers));
            }
        }
        Outcome::Keep
    }

    /// Says goodbye to parent and children: the tree is about to be dropped.
    pub(crate) fn close(&mut self, cx: &mut TreeCx<'_>) {
        self.end_relocation(cx);
        let around = cx.ring.replica_set(cx.topic.key(), 2);
        let successor = around.into_iter().find(|peer| peer.id != cx.me).map(Contact::from);
        self.yield_root(cx, successor);
        self.leave_parent(cx);
        self.flow.close(cx);
        cx.neighbours.moved.remove(&cx.topic);
    }
}

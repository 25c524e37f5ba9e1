//! Leads each message and each deadline to the part of the forest that it is for; those of one topic to its tree.

use std::time::Duration;

use bytes::Bytes;
use treecast_overlay::peer::Contact;

use super::Forest;
use super::context::{Context, LifeStage, Timer};
use super::inbox::{self, AnswerWithoutTree, Incoming, NeighbourMessage, TopicMessage};
use super::tree::Outcome;
use crate::event::Event;
use crate::message::SubscribeError;
use crate::topic::TopicId;
use crate::wire::{self, Beat, Capacity, Header, Join, Promise};

/// How far apart a node is told that this one is not its child.
const REFUSALS_APART: Duration = Duration::from_millis(20);

/// How a message came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Sent to this very node.
    Sent,
    /// Routed, and this node is the root of its key.
    Delivered {
        /// A hop on its way was made again.
        repeated: bool,
    },
}

impl Forest {
    /// Handles this node's messages to itself, until there is none. Each such message answers one of a
    /// publisher's, whose window is bounded.
    pub(super) fn drain_loopback(&mut self, cx: Context<'_>) {
        while let Some(bytes) = self.out.loopback.pop_front() {
            self.on_bytes(cx, &cx.ring.contact(), &bytes, Way::Sent);
        }
    }

    pub(super) fn on_bytes(&mut self, cx: Context<'_>, from: &Contact, bytes: &Bytes, way: Way) {
        if self.life == LifeStage::Left {
            return;
        }
        match wire::decode(bytes) {
            Ok((header, payload)) => self.on_message(cx, *from, inbox::sort(header, bytes, payload), way),
            Err(error) => tracing::warn!(from = %from.id(), %error, "not a message of this version, ignored"),
        }
    }

    fn on_message(&mut self, cx: Context<'_>, from: Contact, message: Incoming, way: Way) {
        match message {
            Incoming::Join(join) => self.on_join(cx, from, &join, way),
            Incoming::Publish(publish, payload) => self.on_publish(cx, publish, payload, way),
            Incoming::Topic { topic, message } => self.on_topic_message(cx, from, topic, message),
            Incoming::Publisher { topic, message } => {
                self.with_publisher(cx, topic, |publishing, cx| publishing.on_message(cx, message));
            }
            Incoming::Invite { topic } => self.on_invite(cx, from, topic),
            Incoming::Neighbour(NeighbourMessage::Beat(beat)) => self.on_beat(cx, from, beat),
            Incoming::Neighbour(NeighbourMessage::Shared(shared)) => self.on_shared(cx, from, &shared),
        }
    }

    /// A neighbour lives, and says how far it is.
    fn on_beat(&mut self, cx: Context<'_>, from: Contact, beat: Beat) {
        let is_neighbour = self.neighbours.on_beat(&mut self.out, from, beat.up, beat.reply);
        if is_neighbour && beat.asks {
            self.neighbours.send_beat(&mut self.out, from.id(), Vec::new(), Vec::new(), false);
        }
        if is_neighbour {
            for moved in &beat.moved {
                self.with_tree(cx, moved.topic, |tree, cx| tree.on_moved(cx, from.id(), moved));
            }
            for ack in beat.acks {
                self.on_topic_message(cx, from, ack.topic, TopicMessage::Ack(ack));
            }
        }
    }

    fn on_join(&mut self, cx: Context<'_>, child: Contact, join: &Join, way: Way) {
        let topic = join.topic;
        if child.id() == self.me {
            // This node's own JOIN came back: it has become the root since.
            self.with_tree(cx, topic, |tree, cx| tree.review_place(cx));
            return;
        }
        // A root that leaves takes its successors as members still.
        if self.life != LifeStage::Running && join.copy.is_none() {
            return;
        }
        match way {
            Way::Delivered { .. } => {
                // O1 is decided at the ring; here it is only asked again, since the lease may have ended meanwhile.
                if cx.ring.is_root_of(cx.now, topic.key()) && self.ensure_tree(cx.now, topic) {
                    self.with_tree(cx, topic, |tree, cx| tree.on_join_delivered(cx, child, join));
                }
            }
            Way::Sent => {
                let met = self.with_tree(cx, topic, |tree, cx| tree.on_join_sent(cx, child, join));
                if met.is_none() {
                    self.out.tell(child, &Header::Orphan { topic });
                }
            }
        }
    }

    /// A root asks this node to become a member of a log.
    fn on_invite(&mut self, cx: Context<'_>, from: Contact, topic: TopicId) {
        if self.life == LifeStage::Running && self.ensure_tree(cx.now, topic) {
            self.with_tree(cx, topic, |tree, cx| tree.on_invite(cx, from));
        } else {
            self.out.tell(from, &Header::InviteRefused { topic });
        }
    }

    fn on_topic_message(&mut self, cx: Context<'_>, from: Contact, topic: TopicId, message: TopicMessage) {
        if !self.trees.contains_key(&topic) {
            return self.answer_without_tree(cx, from, topic, message.answer_without_tree());
        }
        let outcome = self.with_tree(cx, topic, |tree, cx| tree.on_message(cx, from, message));
        self.on_outcome(cx, topic, outcome.unwrap_or(Outcome::Keep));
    }

    /// Answers as a node that is not on the tree, to one that believes it is.
    fn answer_without_tree(
        &mut self,
        cx: Context<'_>,
        from: Contact,
        topic: TopicId,
        answer: AnswerWithoutTree,
    ) {
        let (_, mut tree_cx) = self.split(cx, topic);
        match answer {
            AnswerWithoutTree::Nothing => {}
            AnswerWithoutTree::Leave { join } => tree_cx.send_leave(from, join),
            AnswerWithoutTree::RefuseEntries => self.refuse_entries(cx, from, topic),
            AnswerWithoutTree::Orphan => tree_cx.send_orphan(from),
            AnswerWithoutTree::NoCopy { term } => {
                let promise = Promise { topic, term, join: 0, copy: None, known: None };
                tree_cx.tell(from, &Header::Promise(promise));
            }
            AnswerWithoutTree::NotPulled { number } => {
                tree_cx.tell(from, &Header::NotPulled { topic, number, start: None });
            }
            AnswerWithoutTree::NoCapacity { number } => {
                tree_cx.tell(from, &Header::CapacityAnswer { topic, number, capacity: Capacity::None });
            }
            AnswerWithoutTree::Detached { join } => {
                tree_cx.tell(from, &Header::Detached { topic, join, end: None });
            }
        }
    }

    fn on_outcome(&mut self, cx: Context<'_>, topic: TopicId, outcome: Outcome) {
        match outcome {
            Outcome::Keep => {}
            Outcome::Leave => self.remove_tree(cx, topic),
            Outcome::Refuse(stranger) => self.refuse_entries(cx, stranger, topic),
            Outcome::NoStart(subscription) => {
                self.topics.remove(&subscription);
                let error = SubscribeError::TimedOut(self.config.tree.subscribe_timeout);
                self.out.event(Event::SubscribeFailed { subscription, error });
            }
        }
    }

    /// A node pushes entries of a topic to this one without being its parent. It is told, though not for each.
    fn refuse_entries(&mut self, cx: Context<'_>, from: Contact, topic: TopicId) {
        if self.neighbours.may_refuse(cx.now, REFUSALS_APART) {
            let join = self.numbers.last_join();
            self.out.tell(from, &Header::Leave { topic, join });
        }
    }

    pub(super) fn on_timer(&mut self, cx: Context<'_>, timer: Timer) {
        match timer {
            Timer::Tree(timer, topic) => {
                let outcome = self.with_tree(cx, topic, |tree, cx| tree.on_timer(cx, timer));
                self.on_outcome(cx, topic, outcome.unwrap_or(Outcome::Keep));
            }
            Timer::Publish(topic) => {
                self.with_publisher(cx, topic, |publishing, cx| publishing.on_timer(cx));
            }
            Timer::Crowd => self.on_crowd_timer(cx),
            Timer::Leave => self.finish_leaving(cx),
        }
    }
}

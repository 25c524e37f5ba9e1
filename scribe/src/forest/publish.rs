//! Messages on their way: this node's own to the root of their topic, and those of others that come here for a position.

use bytes::Bytes;
use rand::RngExt;
use treecast_overlay::peer::Contact;

use super::Forest;
use super::context::{Context, Life, Timer};
use super::dispatch::Way;
use super::tree::root::refuse;
use crate::event::{Event, Token};
use crate::message::{PublishError, Receipt};
use crate::publisher::{Failures, Outgoing, TopicPublisher};
use crate::topic::TopicId;
use crate::wire::{self, Header, Publish, PublishReceipt, RefusedReason, Signature};

/// Sessions are random numbers of 48 bits: with 65,536 of them at one root, the odds of two alike, of the same
/// publisher, are 1 in 2^17; and the varint stays at seven bytes.
const SESSION_BITS: u32 = 48;

impl Forest {
    /// Publishes. Answered by [`Event::Published`] or [`Event::PublishFailed`].
    pub fn publish(&mut self, cx: Context<'_>, token: Token, topic: TopicId, payload: Bytes) {
        if let Err(error) = self.accept(cx, token, topic, payload) {
            self.out.event(Event::PublishFailed { token, error });
        }
        self.send_published(cx, topic);
        self.drain_loopback(cx);
    }

    fn accept(
        &mut self,
        cx: Context<'_>,
        token: Token,
        topic: TopicId,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        if self.life != Life::Running {
            return Err(PublishError::Stopped);
        }
        if payload.len() > self.config.max_payload {
            return Err(PublishError::TooLarge { len: payload.len(), limit: self.config.max_payload });
        }
        if self.publishers.is_full(&self.config, topic) {
            return Err(PublishError::TooManyTopics { limit: self.config.max_publishers });
        }
        let (me, session) = (self.me, self.new_session());
        self.keep_beating(cx.now);
        let new = || TopicPublisher::new(cx.now, me, session);
        self.publishers.offer(cx.now, &self.config, topic, new, (token, payload))
    }

    fn new_session(&mut self) -> u64 {
        self.rng.random_range(0..1 << SESSION_BITS)
    }

    /// Sends what a publisher may send now.
    pub(super) fn send_published(&mut self, cx: Context<'_>, topic: TopicId) {
        if !cx.is_online() {
            return;
        }
        let told = self.trees.get(&topic).and_then(|tree| tree.role.told_root()).map(Contact::from);
        let Some(publisher) = self.publishers.get_mut(topic) else { return };
        while let Some(out) = publisher.poll_send(cx.now, &self.config, told) {
            let (root, message) = (out.root, publish_message(cx, topic, out));
            match root {
                Some(root) => self.out.send(root, message),
                None => self.out.route(topic, message),
            }
        }
        match publisher.deadline(&self.config) {
            Some(at) => self.deadlines.set(Timer::Publish(topic), at),
            None => self.deadlines.cancel(Timer::Publish(topic)),
        }
    }

    pub(super) fn on_publish_timer(&mut self, cx: Context<'_>, topic: TopicId) {
        let session = self.new_session();
        let Some(publisher) = self.publishers.get_mut(topic) else { return };
        let failed = publisher.on_timeout(cx.now, &self.config, session);
        self.report(failed);
        self.send_published(cx, topic);
    }

    pub(super) fn on_receipt(&mut self, cx: Context<'_>, topic: TopicId, receipt: PublishReceipt) {
        let PublishReceipt { session, sequence, position, copies, listeners, root, .. } = receipt;
        let Some(publisher) = self.publishers.get_mut(topic) else { return };
        let Some((token, id)) = publisher.on_receipt(cx.now, session, sequence, root) else { return };
        let receipt = Receipt { id, position, copies, listeners };
        self.out.event(Event::Published { token, receipt });
        self.send_published(cx, topic);
    }

    pub(super) fn on_refused(
        &mut self,
        cx: Context<'_>,
        topic: TopicId,
        session: u64,
        sequence: u64,
        reason: RefusedReason,
    ) {
        let next = self.new_session();
        let Some(publisher) = self.publishers.get_mut(topic) else { return };
        let failed = publisher.on_refused(session, sequence, reason, next);
        self.report(failed);
        self.send_published(cx, topic);
    }

    fn report(&mut self, failed: Failures) {
        failed.into_iter().for_each(|(token, error)| self.out.event(Event::PublishFailed { token, error }));
    }

    /// Says of every message that waits what became of it.
    pub(super) fn stop_publishers(&mut self) {
        let failed = self.publishers.stop();
        self.report(failed);
    }

    /// A message asks for its position.
    pub(super) fn on_publish(&mut self, cx: Context<'_>, mut publish: Publish, payload: Bytes, way: Way) {
        let topic = publish.topic;
        // The overlay made a hop again: that is as good as a publisher that sends again.
        publish.resent |= way == Way::Delivered { repeated: true };
        if self.life != Life::Running {
            return;
        }
        self.with_tree(cx, topic, |tree, cx| tree.review_place(cx));
        if !cx.ring.is_root_of(cx.now, topic.key()) {
            // Its publisher took this node for the root: it goes on from here. A routed one was too late by a moment
            // and is sent again.
            if way == Way::Sent && !self.is_suspended(cx, topic) {
                self.out.route(topic, wire::encode(&Header::Publish(publish), &payload));
            }
        } else if self.ensure_tree(cx, topic) {
            self.with_tree(cx, topic, |tree, cx| tree.on_publish(cx, publish, payload));
        } else {
            let (_, mut tree_cx) = self.split(cx, topic);
            refuse(&mut tree_cx, &publish, RefusedReason::Full);
        }
    }

    /// Whether this node is the root but for leases that do not run.
    fn is_suspended(&self, cx: Context<'_>, topic: TopicId) -> bool {
        let root = self.trees.get(&topic).is_some_and(|tree| tree.role.is_root());
        root && cx.ring.replica_set(topic.key(), 1).first().is_none_or(|peer| peer.id == self.me)
    }
}

fn publish_message(cx: Context<'_>, topic: TopicId, out: Outgoing) -> Bytes {
    // Perhaps it has a position, and the root cannot reach this node: every second receipt is to come another way.
    let publisher = match out.sends.is_multiple_of(2) {
        true => cx.ring.roundabout(out.sequence.wrapping_add(u64::from(out.sends) / 2)),
        false => cx.ring.contact(),
    };
    let header = Header::Publish(Publish {
        topic,
        publisher,
        session: out.session,
        sequence: out.sequence,
        acknowledged: out.acknowledged,
        resent: out.sends > 1,
        signature: Signature::None,
    });
    wire::encode(&header, &out.payload)
}

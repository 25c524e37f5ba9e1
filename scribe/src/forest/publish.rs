//! The publishers of this node: their messages on the way to the root, and what became of them.

use bytes::Bytes;
use rand::RngExt;
use treecast_overlay::peer::Contact;

use super::{Context, Forest, Life, Request, Timer};
use crate::event::{Event, Token};
use crate::message::PublishError;
use crate::publisher::TopicPublisher;
use crate::topic::TopicId;
use crate::wire::{self, Header, Publish, Receipt, RefusedReason, Signature};

/// Sessions are random numbers of 48 bits: with 65,536 of them at one root, the odds of two alike, of the same
/// publisher, are 1 in 2^17; and the varint stays at seven bytes.
const SESSION_BITS: u32 = 48;

impl Forest {
    /// Publishes. Answered by [`Event::Published`] or [`Event::PublishFailed`].
    pub fn publish(&mut self, cx: Context<'_>, token: Token, topic: TopicId, payload: Bytes) {
        if let Err(error) = self.accept(cx, token, topic, payload) {
            self.out.events.push_back(Event::PublishFailed { token, error });
        }
        self.send_published(cx, topic);
        self.settle(cx);
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
        if !self.publishers.contains_key(&topic) && self.publishers.len() >= self.config.max_publishers {
            return Err(PublishError::TooManyTopics { limit: self.config.max_publishers });
        }
        let session = self.new_session();
        self.keep_beating(cx);
        let publisher =
            self.publishers.entry(topic).or_insert_with(|| TopicPublisher::new(cx.now, self.me, session));
        publisher.offer(cx.now, &self.config, token, payload)
    }

    fn new_session(&mut self) -> u64 {
        self.rng.random_range(0..1 << SESSION_BITS)
    }

    /// Sends what a publisher may send now.
    pub(super) fn send_published(&mut self, cx: Context<'_>, topic: TopicId) {
        if !self.is_online(cx) {
            return;
        }
        let contact = cx.ring.contact();
        let told = self.trees.get(&topic).and_then(|tree| tree.told_root()).map(Contact::from);
        let Some(publisher) = self.publishers.get_mut(&topic) else { return };
        while let Some(out) = publisher.poll_send(cx.now, &self.config, told) {
            // Perhaps it has a place, and the root cannot reach this node: every second receipt is to come another way.
            let publisher = match out.sends.is_multiple_of(2) {
                true => cx.ring.roundabout(out.sequence.wrapping_add(u64::from(out.sends) / 2)),
                false => contact,
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
            let payload = wire::encode(&header, &out.payload);
            match out.root {
                Some(root) if root.id() == self.me => self.out.loopback.push_back(payload),
                Some(to) => self.out.requests.push_back(Request::Send { to, payload }),
                None => self.out.requests.push_back(Request::Route { key: topic.key(), payload }),
            }
        }
        match publisher.deadline(&self.config) {
            Some(at) => self.deadlines.set(Timer::Publish(topic), at),
            None => self.deadlines.cancel(Timer::Publish(topic)),
        }
    }

    pub(super) fn on_publish_timer(&mut self, cx: Context<'_>, topic: TopicId) {
        let session = self.new_session();
        let Some(publisher) = self.publishers.get_mut(&topic) else { return };
        let failed = publisher.on_timeout(cx.now, &self.config, session);
        self.report(failed);
        self.send_published(cx, topic);
    }

    pub(super) fn on_receipt(&mut self, cx: Context<'_>, receipt: Receipt) {
        let Receipt { topic, session, sequence, position, copies, listeners, root } = receipt;
        let Some(publisher) = self.publishers.get_mut(&topic) else { return };
        let Some((token, id)) = publisher.on_receipt(cx.now, session, sequence, root) else { return };
        let receipt = crate::message::Receipt { id, position, copies, listeners };
        self.out.events.push_back(Event::Published { token, receipt });
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
        let Some(publisher) = self.publishers.get_mut(&topic) else { return };
        let failed = publisher.on_refused(session, sequence, reason, next);
        self.report(failed);
        self.send_published(cx, topic);
    }

    pub(super) fn report(&mut self, failed: Vec<(Token, PublishError)>) {
        let events = failed.into_iter().map(|(token, error)| Event::PublishFailed { token, error });
        self.out.events.extend(events);
    }

    /// Says of every message that waits what became of it.
    pub(super) fn stop_publishers(&mut self) {
        for (_, publisher) in std::mem::take(&mut self.publishers) {
            self.report(publisher.stop());
        }
    }
}

//! All publishers of this node: their messages go to the root of their topic, as far as it is known, and every one is
//! answered.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use treecast_overlay::deadlines::Deadlines;
use treecast_overlay::id::NodeId;
use treecast_overlay::memory;
use treecast_overlay::peer::Contact;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;

use super::context::{Context, Outbox, RingView, Timer, pause};
use super::inbox::PublisherMessage;
use super::retries::{self, Retries};
use crate::config::Config;
use crate::event::{Event, Token};
use crate::message::{PublishError, Receipt};
use crate::publisher::{Failures, Outgoing, Receipted, RoundTrip, TopicPublisher};
use crate::topic::TopicId;
use crate::wire::{self, Header, Publish, PublishReceipt, Signature};

/// Sessions are random numbers of 48 bits: with 65,536 of them at one root, the odds of two alike, of the same
/// publisher, are 1 in 2^17; and the varint stays at seven bytes.
const SESSION_BITS: u32 = 48;

/// One publisher for each topic.
#[derive(Debug, Default)]
pub(super) struct Publishing {
    by_topic: BTreeMap<TopicId, TopicPublisher>,
    /// How long receipts take, over all topics.
    round_trip: Option<RoundTrip>,
    /// Messages that were sent again.
    resends: Retries,
}

/// All that one topic's publisher may use.
pub(super) struct PublishCx<'a> {
    pub now: Instant,
    pub topic: TopicId,
    pub me: NodeId,
    pub ring: &'a dyn RingView,
    pub config: &'a Config,
    pub rng: &'a mut Rng,
    pub out: &'a mut Outbox,
    pub deadlines: &'a mut Deadlines<Timer>,
    /// The root, by the tree's account.
    pub told_root: Option<Contact>,
    /// Much has come to this node and is not handled yet, perhaps receipts, too.
    pub is_behind: bool,
}

impl PublishCx<'_> {
    fn new_session(&mut self) -> u64 {
        self.rng.random_range(0..1 << SESSION_BITS)
    }

    fn report(&mut self, failed: Failures) {
        report(self.out, failed);
    }
}

impl Publishing {
    /// Takes a message, or says why not.
    pub(super) fn accept(
        &mut self,
        cx: &mut PublishCx<'_>,
        token: Token,
        payload: Bytes,
    ) -> Result<(), PublishError> {
        if payload.len() > cx.config.max_payload {
            return Err(PublishError::TooLarge { len: payload.len(), limit: cx.config.max_payload });
        }
        if !self.by_topic.contains_key(&cx.topic) && self.by_topic.len() >= cx.config.publish.max_topics {
            return Err(PublishError::TooManyTopics { limit: cx.config.publish.max_topics });
        }
        let session = cx.new_session();
        let new = || TopicPublisher::new(cx.now, cx.me, session);
        self.by_topic.entry(cx.topic).or_insert_with(new).offer(cx.now, cx.config, token, payload)
    }

    /// Sends the messages that the topic's publisher may send now.
    pub(super) fn send(&mut self, cx: &mut PublishCx<'_>) {
        let online = Context { now: cx.now, ring: cx.ring }.is_online();
        let usual = self.round_trip.map_or(Duration::ZERO, RoundTrip::limit);
        let Some(publisher) = self.by_topic.get_mut(&cx.topic).filter(|_| online) else { return };
        publisher.expect(usual);
        while let Some(out) = publisher.poll_send(cx.now, cx.config, cx.told_root) {
            let (root, message) = (out.root, publish_message(cx, out));
            match root {
                Some(root) => cx.out.send_data(root, message),
                None => cx.out.route(cx.topic, message),
            }
        }
        match publisher.deadline(cx.config) {
            Some(at) => cx.deadlines.set(Timer::Publish(cx.topic), at),
            None => cx.deadlines.cancel(Timer::Publish(cx.topic)),
        }
    }

    /// A receipt is overdue.
    pub(super) fn on_timer(&mut self, cx: &mut PublishCx<'_>) {
        let session = cx.new_session();
        let Some(publisher) = self.by_topic.get_mut(&cx.topic) else { return };
        let may_resend = !cx.is_behind && self.resends.take(cx.now, &cx.config.resends);
        if !publisher.is_over(cx.now, cx.config) && !may_resend {
            let again = pause(cx.rng, retries::AGAIN, 0);
            return cx.deadlines.set(Timer::Publish(cx.topic), cx.now + again);
        }
        cx.report(publisher.on_timeout(cx.now, cx.config, session));
        self.send(cx);
    }

    /// The root answers.
    pub(super) fn on_message(&mut self, cx: &mut PublishCx<'_>, message: PublisherMessage) {
        match message {
            PublisherMessage::Receipt(receipt) => self.on_receipt(cx, receipt),
            PublisherMessage::Nack(nack) => {
                let Some(publisher) = self.by_topic.get_mut(&cx.topic) else { return };
                publisher.on_nack(&nack);
                self.send(cx);
            }
            PublisherMessage::Refused { session, sequence, reason } => {
                let next = cx.new_session();
                let Some(publisher) = self.by_topic.get_mut(&cx.topic) else { return };
                cx.report(publisher.on_refused(session, sequence, reason, next));
                self.send(cx);
            }
        }
    }

    fn on_receipt(&mut self, cx: &mut PublishCx<'_>, receipt: PublishReceipt) {
        let PublishReceipt { session, sequence, position, copies, listeners, root, birth, .. } = receipt;
        let Some(publisher) = self.by_topic.get_mut(&cx.topic) else { return };
        let Some(receipted) = publisher.on_receipt(cx.now, session, sequence, root, birth) else { return };
        let Receipted { token, id, took } = receipted;
        if let Some(took) = took {
            self.round_trip = Some(RoundTrip::after(self.round_trip, took));
        }
        self.resends.give_back();
        let receipt = Receipt { id, position, copies, listeners };
        cx.out.event(Event::Published { token, receipt });
        self.send(cx);
    }

    /// A node is down, which may have been the root of the topic.
    pub(super) fn on_peer_down(&mut self, cx: &mut PublishCx<'_>, peer: NodeId) {
        if let Some(publisher) = self.by_topic.get_mut(&cx.topic) {
            publisher.on_peer_down(peer);
        }
        self.send(cx);
    }

    /// The topics, in order.
    pub(super) fn topics(&self) -> Vec<TopicId> {
        self.by_topic.keys().copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// Forgets publishers that have nothing to send, and were last used before this.
    pub(super) fn expire(&mut self, limit: Instant) {
        self.by_topic.retain(|_, publisher| !publisher.is_idle() || publisher.used() >= limit);
    }

    /// Ends all publishers, and says of every message that waits what became of it.
    pub(super) fn stop(&mut self, out: &mut Outbox) {
        for publisher in std::mem::take(&mut self.by_topic).into_values() {
            report(out, publisher.stop());
        }
    }

    /// How many publishers there are, and what waits at each, beside the limits (promise O5).
    pub(super) fn sizes(&self, config: &Config) -> Vec<(&'static str, usize, usize)> {
        let mut sizes = vec![("publishers", self.by_topic.len(), config.publish.max_topics)];
        sizes.extend(self.by_topic.values().flat_map(|publisher| publisher.sizes(config)));
        sizes
    }

    /// Heap bytes of the table.
    pub(super) fn weight(&self) -> usize {
        memory::tree(self.by_topic.len(), size_of::<(TopicId, TopicPublisher)>())
    }
}

fn report(out: &mut Outbox, failed: Failures) {
    failed.into_iter().for_each(|(token, error)| out.event(Event::PublishFailed { token, error }));
}

fn publish_message(cx: &PublishCx<'_>, out: Outgoing) -> Bytes {
    // Perhaps it has a position, and the root cannot reach this node: every second receipt is to come another way.
    let publisher = match out.sends.is_multiple_of(2) {
        true => cx.ring.reply_contact(out.sequence.wrapping_add(u64::from(out.sends) / 2)),
        false => cx.ring.contact(),
    };
    let header = Header::Publish(Publish {
        topic: cx.topic,
        publisher,
        session: out.session,
        sequence: out.sequence,
        acknowledged: out.acknowledged,
        resent: out.sends > 1,
        birth: out.birth,
        signature: Signature::None,
    });
    wire::encode(&header, &out.payload)
}

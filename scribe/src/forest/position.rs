//! The root gives messages their positions (design §6, publishing).

use bytes::Bytes;

use super::tree::{Opening, Role, Root};
use super::{Context, Forest, Life, Request, Way};
use crate::log::sessions::Verdict;
use crate::log::window::{Entry, Held};
use crate::message::Position;
use crate::topic::TopicId;
use crate::wire::{self, Body, Data, Header, Publish, Receipt, RefusedReason};

/// With one holder of the log, the root itself, a receipt can promise no more.
const COPIES: u32 = 1;

impl Forest {
    /// A message asks for its position.
    pub(super) fn on_publish(&mut self, cx: Context<'_>, mut publish: Publish, payload: Bytes, way: Way) {
        let topic = publish.topic;
        // The overlay made a hop again: that is as good as a publisher that sends again.
        publish.resent |= way == Way::Delivered { repeated: true };
        if self.life != Life::Running {
            return;
        }
        self.review_place(cx, topic);
        if !cx.ring.is_root_of(cx.now, topic.key()) {
            // Its publisher took this node for the root: it goes on from here. A routed one was too late by a moment
            // and is sent again.
            if way == Way::Sent && !self.is_suspended(cx, topic) {
                let payload = wire::encode(&Header::Publish(publish), &payload);
                self.out.requests.push_back(Request::Route { key: topic.key(), payload });
            }
            return;
        }
        if !self.ensure_tree(cx, topic) {
            return self.refuse(&publish, RefusedReason::Full);
        }
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        match &mut tree.role {
            Role::Root(_) => self.answer(cx, topic, publish, payload),
            Role::Opening(opening) => {
                opening.park(publish, payload, self.config.parked_messages, self.config.parked_bytes);
            }
            Role::Joining { .. } | Role::Child(_) => {
                self.begin_opening(cx, topic);
                // Alone in the ring, the term is open already.
                self.answer_or_park(cx, topic, publish, payload);
            }
        }
    }

    fn answer_or_park(&mut self, cx: Context<'_>, topic: TopicId, publish: Publish, payload: Bytes) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        match &mut tree.role {
            Role::Root(_) => self.answer(cx, topic, publish, payload),
            Role::Opening(opening) => {
                opening.park(publish, payload, self.config.parked_messages, self.config.parked_bytes);
            }
            Role::Joining { .. } | Role::Child(_) => {}
        }
    }

    /// Whether this node is the root but for leases that do not run.
    fn is_suspended(&self, cx: Context<'_>, topic: TopicId) -> bool {
        let root = self.trees.get(&topic).is_some_and(|tree| tree.is_root());
        root && cx.ring.replica_set(topic.key(), 1).first().is_none_or(|peer| peer.id == self.me)
    }

    /// The root's word on a message.
    pub(super) fn answer(&mut self, cx: Context<'_>, topic: TopicId, publish: Publish, payload: Bytes) {
        if payload.len() > self.config.max_payload {
            let limit = self.config.max_payload as u64;
            return self.refuse(&publish, RefusedReason::TooLarge { limit });
        }
        let room = self.sessions < self.config.max_sessions;
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let Role::Root(root) = &mut tree.role else { return };
        root.used = cx.now;
        let certain = cx.now >= root.certain_from;
        match root.sessions.judge(cx.now, &publish, room, certain) {
            Verdict::Append => self.position(cx, topic, publish, payload),
            Verdict::Positioned(at) => self.give_receipt(cx, topic, &publish, at),
            Verdict::Forgotten => {}
            Verdict::Early => {
                let (messages, bytes) = (self.config.session_reorder, self.config.session_reorder_bytes);
                root.sessions.keep_early(publish, payload, messages, bytes);
            }
            Verdict::Unknown => self.refuse(&publish, RefusedReason::UnknownSession),
            Verdict::Full => self.refuse(&publish, RefusedReason::Full),
        }
    }

    /// Appends a message, and those of its session that waited for it.
    fn position(&mut self, cx: Context<'_>, topic: TopicId, publish: Publish, payload: Bytes) {
        let mut next = Some((publish, payload));
        let mut receipts = Vec::new();
        while let Some((publish, payload)) = next {
            let Some(tree) = self.trees.get_mut(&topic) else { return };
            let (Role::Root(root), Some(log)) = (&mut tree.role, &tree.log) else { return };
            let at = Position { term: log.term, offset: log.window.end() };
            let before = root.sessions.len();
            next = root.sessions.appended(cx.now, &publish, at);
            root.sessions.bound((publish.publisher.id(), publish.session), self.config.publish_messages);
            self.sessions += root.sessions.len() - before;
            let body = Body::Message {
                publisher: publish.publisher.id(),
                session: publish.session,
                sequence: publish.sequence,
                signature: publish.signature,
            };
            self.append(cx, topic, encode_entry(topic, at, body, &payload));
            receipts.push((publish, at));
        }
        self.flow(cx, topic);
        for (publish, at) in receipts {
            self.give_receipt(cx, topic, &publish, at);
        }
    }

    fn give_receipt(&mut self, cx: Context<'_>, topic: TopicId, publish: &Publish, position: Position) {
        let listeners = self.trees.get(&topic).map_or(0, |tree| tree.listeners());
        let receipt = Receipt {
            topic,
            session: publish.session,
            sequence: publish.sequence,
            position,
            copies: COPIES,
            listeners,
            root: cx.ring.contact(),
        };
        self.tell(publish.publisher, &Header::Receipt(receipt));
    }

    fn refuse(&mut self, publish: &Publish, reason: RefusedReason) {
        let Publish { topic, session, sequence, .. } = *publish;
        self.tell(publish.publisher, &Header::Refused { topic, session, sequence, reason });
    }
}

/// An entry of the log with its bytes: encoded once, for all children of all forwarders.
pub(super) fn encode_entry(topic: TopicId, position: Position, body: Body, payload: &[u8]) -> Entry {
    let encoded = wire::encode(&Header::Data(Data { topic, position, body }), payload);
    let payload = encoded.slice(encoded.len() - payload.len()..);
    Entry { position, held: Held { body, encoded, payload } }
}

impl Opening {
    /// Keeps a message until the term is open. Beyond the limit it is left to be sent again.
    fn park(&mut self, publish: Publish, payload: Bytes, messages: usize, bytes: usize) {
        if self.parked.len() < messages && self.parked_bytes + payload.len() <= bytes {
            self.parked_bytes += payload.len();
            self.parked.push_back((publish, payload));
        }
    }
}

impl Root {
    /// When a root without children and subscribers was last of use.
    pub(super) fn used(&self) -> treecast_overlay::time::Instant {
        self.used
    }
}

//! Everything that the applications of a world saw: subscriptions with all that they yielded, publications with what became of
//! them. The judges of the promises S2 to S6 read nothing else.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;
use treecast_scribe::event::{SubscriptionId, Token};
use treecast_scribe::{Item, Mark, Message, PublishError, Receipt, SubscribeError, TopicId};

/// A subscription, from its wish to its end.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Where it lives.
    pub slot: usize,
    /// Its topic.
    pub topic: TopicId,
    /// When it was wished for.
    pub asked: Instant,
    /// Its start, and when that was known.
    pub mark: Option<(Instant, Mark)>,
    /// Items that it yielded.
    pub items: Vec<(Instant, Item)>,
    /// At each gap: how far the topic's log reached then, and how many bytes it had.
    pub reached: Vec<(u64, usize)>,
    /// When it was given up, or its node ended.
    pub ended: Option<Instant>,
    /// Why it came to nothing.
    pub failed: Option<SubscribeError>,
    /// It takes nothing more: the end of the log will not reach it.
    pub stalled: bool,
    /// It takes nothing more, or once took nothing for a while.
    pub was_stalled: bool,
}

impl Watched {
    /// The messages among the items.
    pub fn messages(&self) -> impl Iterator<Item = (Instant, &Message)> {
        self.items.iter().filter_map(|(at, item)| match item {
            Item::Message(message) => Some((*at, message)),
            Item::Gap(_) | Item::ParentChanged(_) => None,
        })
    }

    /// Gaps that were announced.
    pub fn gaps(&self) -> usize {
        self.items.iter().filter(|(_, item)| matches!(item, Item::Gap(_))).count()
    }
}

/// A publication.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Where.
    pub slot: usize,
    /// By whom.
    pub publisher: NodeId,
    /// On which topic.
    pub topic: TopicId,
    /// When.
    pub at: Instant,
    /// The payload.
    pub payload: Bytes,
    /// Its receipt or its error, and when that was known.
    pub outcome: Option<(Instant, Result<Receipt, PublishError>)>,
    /// Its node ended first.
    pub abandoned: bool,
}

/// All that the applications saw.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// By name.
    pub subscriptions: BTreeMap<SubscriptionId, Watched>,
    /// By name.
    pub publications: BTreeMap<Token, Offered>,
}

impl History {
    /// A node ended: its applications with it.
    pub fn end(&mut self, slot: usize, at: Instant) {
        for watched in self.subscriptions.values_mut().filter(|watched| watched.slot == slot) {
            watched.ended.get_or_insert(at);
        }
        for offered in self.publications.values_mut().filter(|offered| offered.slot == slot) {
            offered.abandoned |= offered.outcome.is_none();
        }
    }

    /// Subscriptions of a topic that are there to the end.
    pub fn lasting(&self, topic: TopicId) -> impl Iterator<Item = (SubscriptionId, &Watched)> {
        let lasting = move |watched: &Watched| watched.topic == topic && watched.ended.is_none();
        self.subscriptions
            .iter()
            .filter(move |(_, watched)| lasting(watched))
            .map(|(&id, watched)| (id, watched))
    }

    /// Messages delivered, over all subscriptions.
    pub fn deliveries(&self) -> u64 {
        self.subscriptions.values().map(|watched| watched.messages().count() as u64).sum()
    }

    /// Gaps announced, over all subscriptions.
    pub fn gaps(&self) -> usize {
        self.subscriptions.values().map(Watched::gaps).sum()
    }

    /// Publications with a receipt, with an error, and without either.
    pub fn outcomes(&self) -> (usize, usize, usize) {
        self.publications.values().fold((0, 0, 0), |(kept, failed, open), offered| match offered.outcome {
            Some((_, Ok(_))) => (kept + 1, failed, open),
            Some((_, Err(_))) => (kept, failed + 1, open),
            None => (kept, failed, open + 1),
        })
    }
}

/// A payload of `len` bytes, at least eight, that says which publication it belongs to.
pub fn payload(token: Token, len: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(len.max(8));
    bytes.put_u64_le(token.0);
    // Every byte follows from the token, so that a payload that was mixed up with another is seen.
    bytes.resize(len.max(8), token.0 as u8);
    bytes.freeze()
}

/// The publication that a payload says it belongs to.
pub fn token(payload: &[u8]) -> Option<Token> {
    Some(Token(u64::from_le_bytes(payload.get(..8)?.try_into().ok()?)))
}

//! The judges: one file per promise of `design.md` §2. Each says what is wrong in words, or nothing.

pub mod o1;
pub mod o2;
pub mod o3;
pub mod o5;
pub mod s1;
pub mod s2;
pub mod s3;
pub mod s4;
pub mod s5;
pub mod s6;
pub mod s7;

use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::pastry::Node;
use treecast_overlay::wire::Standing;

/// The nodes on the ring among `nodes`, by id.
fn on_the_ring<'a>(nodes: impl Iterator<Item = &'a Node>) -> Vec<&'a Node> {
    use treecast_overlay::machine::Machine;
    let mut ready: Vec<&Node> = nodes.filter(|node| node.standing() == Standing::Ready).collect();
    ready.sort_by_key(|node| node.peer().id);
    ready
}

/// A small history that is right, for the judges' own tests to spoil.
#[cfg(test)]
mod stories {
    use std::time::Duration;

    use treecast_overlay::id::{Key, NodeId};
    use treecast_overlay::time::Instant;
    use treecast_scribe::event::{SubscriptionId, Token};
    use treecast_scribe::message::MessageId;
    use treecast_scribe::{Gap, GapReason, Item, Mark, Message, Position, Receipt, TopicId};

    use crate::history::{History, Offered, Watched, payload};

    const TOPIC: TopicId = TopicId(Key(7));
    const PUBLISHER: NodeId = NodeId(100);
    const BIRTH: u64 = 0xb;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn position(offset: u64) -> Position {
        Position { term: 1, offset }
    }

    /// Two subscribers of one topic get so many messages of one publisher.
    pub(super) fn story(messages: u64) -> History {
        let mut history = History::default();
        for offset in 0..messages {
            let token = Token(1000 + offset);
            let id = id(offset);
            let receipt = Receipt { id, position: position(offset), copies: 1, listeners: 2 };
            let offered = Offered {
                slot: 0,
                publisher: PUBLISHER,
                topic: TOPIC,
                at: at(offset + 10),
                payload: payload(token, 16),
                outcome: Some((at(offset + 30), Ok(receipt))),
                abandoned: false,
            };
            history.publications.insert(token, offered);
        }
        for slot in [1, 2] {
            let watched = Watched {
                slot,
                topic: TOPIC,
                asked: at(0),
                mark: Some((at(5), Mark { birth: BIRTH, position: None })),
                items: (0..messages).map(delivery).collect(),
                ended: None,
                failed: None,
                stalled: false,
            };
            history.subscriptions.insert(SubscriptionId(slot as u64), watched);
        }
        history
    }

    fn id(offset: u64) -> MessageId {
        MessageId { publisher: PUBLISHER, session: 5, sequence: offset + 1 }
    }

    fn delivery(offset: u64) -> (Instant, Item) {
        let position = position(offset);
        let mark = Mark { birth: BIRTH, position: Some(position) };
        let payload = payload(Token(1000 + offset), 16);
        (at(offset + 40), Item::Message(Message { id: id(offset), position, mark, payload }))
    }

    /// The first subscriber's n-th item.
    pub(super) fn message(history: &History, n: usize) -> (Instant, Item) {
        history.subscriptions[&SubscriptionId(1)].items[n].clone()
    }

    /// Both bounds as offsets.
    pub(super) fn gap(after: Option<u64>, until: Option<u64>) -> (Instant, Item) {
        let (after, until) = (after.map(position), until.map(position));
        (at(50), Item::Gap(Gap { after, until, reason: GapReason::OutOfWindow }))
    }
}

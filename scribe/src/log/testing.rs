//! The tests of the log have in common: one topic, some members, and entries.

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::peer::{Addr, Peer};

use super::Log;
use super::window::Held;
use crate::topic::TopicId;
use crate::wire::{Birth, Body, Data, Lineage, Member, Members, Signature, Sync, Term};

const TOPIC: TopicId = TopicId(Key(7));
/// The birth of the log.
pub(super) const BIRTH: u64 = 7;
/// The root.
pub(super) const ROOT: NodeId = NodeId(9);
/// A member.
pub(super) const ME: NodeId = NodeId(1);

/// A term of the root.
pub(super) fn term(number: u64) -> Term {
    Term { number, root: ROOT }
}

pub(super) fn member(id: u128, life: u64) -> Member {
    Member { peer: Peer { id: NodeId(id), incarnation: 1, addr: Addr::Unreachable }, life }
}

/// These nodes, each in its first life.
pub(super) fn members(ids: &[u128]) -> Members {
    ids.iter().map(|&id| member(id, 1)).collect()
}

/// An entry of the root's term with this number.
pub(super) fn entry(number: u64, body: Body, payload: &[u8]) -> Held {
    let data = Data { topic: TOPIC, birth: BIRTH, offset: 0, term: number, behind: 0, stamp: 1000, body };
    Held::encode(data, payload)
}

/// The message with this number of session 1.
pub(super) fn message(number: u64, sequence: u64) -> Held {
    let (publisher, signature) = (NodeId(3), Signature::None);
    entry(number, Body::Message { publisher, session: 1, sequence, signature }, b"text")
}

pub(super) fn configuration(number: u64, ids: &[u128]) -> Held {
    entry(number, Body::Configuration { members: members(ids), birth: None, replaces: None }, b"")
}

/// The first entry of a birth.
pub(super) fn born(number: u64, ids: &[u128], lineage: Lineage, complete: bool) -> Held {
    let birth = Some(Box::new(Birth { lineage, complete }));
    entry(number, Body::Configuration { members: members(ids), birth, replaces: None }, b"")
}

/// A log without ancestors, which a node reads that is no member: born for node 1 to 3, and so many messages.
pub(super) fn read_log(messages: u64) -> Log {
    let mut log = Log::new(BIRTH, Lineage::default(), 0);
    let first = born(1, &[1, 2, 3], Lineage::default(), true);
    let entries = std::iter::once(first).chain((1..=messages).map(|sequence| message(1, sequence)));
    for (offset, held) in entries.enumerate() {
        let _ = log.take_committed(offset as u64, held);
    }
    log
}

/// The word of the root of this term to `ME` in its first life.
pub(super) fn sync(number: u64, upto: u64, commit: u64) -> Sync {
    Sync { term: term(number), life: 1, upto, commit, configurations: Vec::new() }
}

//! A root that goes, or is succeeded by a node closer to the key, hands its log over: then the next term is not forced,
//! and nothing is lost.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use super::flow::{forsake, renew};
use super::tree::{Log, Role, Tree};
use super::{Context, Forest, Life, Size, Timer};
use crate::config::Config;
use crate::log::sessions::{Sessions, SessionsState};
use crate::log::window::{Arrival, Entry, Held, Window};
use crate::message::Position;
use crate::topic::TopicId;
use crate::wire::{self, Header, Known, MAX_PARTS};

/// Bytes of one part: small beside a frame, so that control passes between them.
const PART: usize = 32 * 1024;
/// What a part, or the beginning of an estate, costs beside its bytes: small ones are not free.
const OVERHEAD: usize = 128;
/// Parts sent ahead of their acknowledgements.
const AHEAD: usize = 8;

/// What a root leaves behind.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Estate {
    pub known: Known,
    pub sessions: SessionsState,
    /// The entry before the first of these.
    base: Option<Position>,
    /// The window's newest entries, as they travel.
    entries: Vec<Vec<u8>>,
}

/// An estate's bytes, complete.
#[derive(Clone, Debug)]
pub(crate) struct Inheritance {
    parts: Vec<Bytes>,
    since: Instant,
}

/// A part that came.
#[derive(Debug)]
pub(super) struct Part {
    pub transfer: u64,
    pub part: u32,
    pub parts: u32,
    pub bytes: Bytes,
}

/// Handovers on their way out and in.
#[derive(Debug, Default)]
pub(super) struct Handovers {
    out: BTreeMap<TopicId, Transfer>,
    coming: BTreeMap<(TopicId, NodeId), Assembly>,
    ready: BTreeMap<TopicId, Inheritance>,
    /// Bytes in `coming` and `ready`.
    bytes: usize,
    number: u64,
}

#[derive(Debug)]
struct Transfer {
    to: Contact,
    number: u64,
    parts: Vec<Bytes>,
    open: BTreeSet<u32>,
    since: Instant,
}

#[derive(Debug)]
struct Assembly {
    transfer: u64,
    /// How many parts it will have.
    count: u32,
    parts: BTreeMap<u32, Bytes>,
    since: Instant,
    /// It was complete, and is kept only to acknowledge repetitions.
    done: bool,
}

impl Estate {
    pub(super) fn of(log: &Log, sessions: &Sessions, window_bytes: usize, session_bytes: usize) -> Estate {
        let mut room = window_bytes;
        let mut entries: Vec<&Held> = Vec::new();
        for entry in log.window.entries().rev() {
            let Some(rest) = room.checked_sub(entry.encoded.len()) else { break };
            room = rest;
            entries.push(entry);
        }
        entries.reverse();
        let first = log.window.end() - entries.len() as u64;
        Estate {
            known: log.known(),
            sessions: sessions.state(session_bytes),
            base: log.window.before(first),
            entries: entries.into_iter().map(|entry| entry.encoded.to_vec()).collect(),
        }
    }

    /// Completes a tree's log, or replaces it.
    pub(super) fn fill(&self, tree: &mut Tree) {
        let Estate { known, base, .. } = *self;
        let same = tree.log.as_ref().is_some_and(|log| log.birth == known.birth);
        if let (Some(log), true) = (&mut tree.log, same) {
            self.append_to(log);
        }
        if tree.log.as_ref().is_none_or(|log| !same || log.window.tail() != known.tail) {
            // This node was not on the tree, or too far behind, or on a lost branch.
            let mut log = Log { birth: known.birth, term: known.term, window: Window::new(base) };
            self.append_to(&mut log);
            if same {
                renew(tree, log.window);
            } else if tree.log.is_some() {
                forsake(tree, log);
            } else {
                tree.log = Some(log);
            }
        }
        let Some(log) = &mut tree.log else { return };
        log.term = log.term.max(known.term);
    }

    fn append_to(&self, log: &mut Log) {
        for bytes in &self.entries {
            append_encoded(log, bytes);
        }
    }
}

/// Appends an entry of an estate if it comes next.
fn append_encoded(log: &mut Log, bytes: &[u8]) {
    let encoded = Bytes::copy_from_slice(bytes);
    let Ok((Header::Data(data), payload)) = wire::decode(&encoded) else { return };
    if log.window.arrival(data.position, &data.body) != Arrival::Next {
        return;
    }
    log.term = log.term.max(data.position.term);
    log.window.append(Entry { position: data.position, held: Held { body: data.body, encoded, payload } });
}

impl Inheritance {
    /// Reads the estate; `None`: it is malformed, and worth no more than none.
    pub(super) fn open(&self) -> Option<Estate> {
        let bytes = self.parts.concat();
        match postcard::from_bytes::<Estate>(&bytes) {
            Ok(estate) if estate.is_sound() => Some(estate),
            Ok(_) | Err(_) => {
                tracing::warn!("a former root handed over something malformed: opening a forced term");
                None
            }
        }
    }

    fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len() + OVERHEAD).sum()
    }
}

impl Estate {
    fn is_sound(&self) -> bool {
        let positions = [self.known.tail, self.base].into_iter().flatten();
        let in_range = |number: u64| number < wire::MAX_NUMBER;
        in_range(self.known.term.number)
            && positions.into_iter().all(|at| in_range(at.term.number) && in_range(at.offset))
    }
}

impl Handovers {
    /// Takes what a former root left for this topic.
    pub(super) fn claim(&mut self, topic: TopicId) -> Option<Inheritance> {
        let inheritance = self.ready.remove(&topic)?;
        self.bytes -= inheritance.len();
        Some(inheritance)
    }

    /// Whether this topic's log is being handed over to that node.
    pub(super) fn is_under_way(&self, topic: TopicId, to: NodeId) -> bool {
        self.out.get(&topic).is_some_and(|transfer| transfer.to.id() == to)
    }

    /// Whether nothing is on its way out.
    pub(super) fn is_done(&self) -> bool {
        self.out.is_empty()
    }

    /// Whether nothing is on its way, and nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.out.is_empty() && self.coming.is_empty() && self.ready.is_empty()
    }

    /// Forgets what nobody claimed, or what came in parts only.
    pub(super) fn expire(&mut self, limit: Instant) {
        self.coming.retain(|_, assembly| assembly.since >= limit);
        self.ready.retain(|_, inheritance| inheritance.since >= limit);
        self.recount();
    }

    /// Bytes that are kept (promise O5).
    pub(super) fn size(&self, config: &Config) -> Size {
        ("bytes of handovers", self.bytes, config.handovers_bytes)
    }

    fn recount(&mut self) {
        let coming = self.coming.values().map(Assembly::len);
        self.bytes = coming.chain(self.ready.values().map(Inheritance::len)).sum();
    }

    /// Takes a part. `None`: there is no room for it; else whether the estate is complete by it.
    fn take(&mut self, now: Instant, topic: TopicId, from: NodeId, part: Part, room: usize) -> Option<bool> {
        let key = (topic, from);
        let known = self.coming.get(&key).is_some_and(|assembly| assembly.transfer == part.transfer);
        if self.bytes + part.bytes.len() + OVERHEAD > room {
            return None;
        }
        if !known {
            let new = Assembly {
                transfer: part.transfer,
                count: part.parts,
                parts: BTreeMap::new(),
                since: now,
                done: false,
            };
            self.bytes += OVERHEAD;
            if let Some(old) = self.coming.insert(key, new) {
                self.bytes -= old.len();
            }
        }
        let assembly = self.coming.get_mut(&key)?;
        if assembly.done || part.part >= assembly.count || assembly.parts.contains_key(&part.part) {
            return Some(false);
        }
        self.bytes += part.bytes.len() + OVERHEAD;
        assembly.parts.insert(part.part, part.bytes);
        Some(assembly.parts.len() == assembly.count as usize)
    }

    /// Takes out a complete estate.
    fn complete(&mut self, now: Instant, topic: TopicId, from: NodeId) -> Option<Inheritance> {
        let assembly = self.coming.get_mut(&(topic, from))?;
        assembly.done = true;
        let parts = std::mem::take(&mut assembly.parts).into_values().collect();
        let inheritance = Inheritance { parts, since: now };
        self.bytes -= inheritance.len();
        Some(inheritance)
    }

    /// Keeps an estate for the day that this node is the root.
    fn keep(&mut self, topic: TopicId, inheritance: Inheritance) {
        self.bytes += inheritance.len();
        if let Some(old) = self.ready.insert(topic, inheritance) {
            self.bytes -= old.len();
        }
    }
}

impl Assembly {
    fn len(&self) -> usize {
        OVERHEAD + self.parts.values().map(|part| part.len() + OVERHEAD).sum::<usize>()
    }
}

impl Forest {
    /// Hands a root's log to its successor.
    pub(super) fn hand_over(&mut self, cx: Context<'_>, topic: TopicId, sessions: &Sessions, to: Contact) {
        let Some(log) = self.trees.get(&topic).and_then(|tree| tree.log.as_ref()) else { return };
        let estate = Estate::of(log, sessions, self.config.handover_window, self.config.handover_sessions);
        let bytes = postcard::to_stdvec(&estate).expect("an estate always encodes: it has no unsized parts");
        let bytes = Bytes::from(bytes);
        let parts: Vec<Bytes> =
            (0..bytes.len()).step_by(PART).map(|at| bytes.slice(at..bytes.len().min(at + PART))).collect();
        self.transfer(cx, topic, parts, to);
    }

    /// What was left to this node goes on to the node that is the root in its place.
    pub(super) fn forward_inheritance(
        &mut self,
        cx: Context<'_>,
        topic: TopicId,
        inheritance: Inheritance,
        to: Contact,
    ) {
        self.transfer(cx, topic, inheritance.parts, to);
    }

    /// The same for an inheritance that this node never came to use.
    pub(super) fn bequeath(&mut self, cx: Context<'_>, topic: TopicId, to: Contact) {
        if let Some(inheritance) = self.handovers.claim(topic) {
            self.transfer(cx, topic, inheritance.parts, to);
        }
    }

    fn transfer(&mut self, cx: Context<'_>, topic: TopicId, parts: Vec<Bytes>, to: Contact) {
        let Ok(count) = u32::try_from(parts.len()) else { return };
        if count > MAX_PARTS {
            tracing::warn!(%topic, parts = count, "too much to hand over: the next term will be forced");
            return;
        }
        self.handovers.number += 1;
        let number = self.handovers.number;
        let open = (0..count).collect();
        self.handovers.out.insert(topic, Transfer { to, number, parts, open, since: cx.now });
        self.send_parts(cx, topic, AHEAD);
    }

    /// Sends the first open parts, for the first time or again.
    fn send_parts(&mut self, cx: Context<'_>, topic: TopicId, count: usize) {
        let Some(transfer) = self.handovers.out.get(&topic) else { return };
        let (to, number, parts) = (transfer.to, transfer.number, transfer.parts.len() as u32);
        let open: Vec<u32> = transfer.open.iter().copied().take(count).collect();
        let messages = open.into_iter().map(|part| {
            let header = Header::Handover { topic, transfer: number, part, parts };
            wire::encode(&header, &transfer.parts[part as usize])
        });
        for message in messages.collect::<Vec<_>>() {
            self.send(to, message);
        }
        self.deadlines.set(Timer::Transfer(topic), cx.now + self.config.handover_retry);
    }

    pub(super) fn on_transfer_timer(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(transfer) = self.handovers.out.get(&topic) else { return };
        if cx.now.since(transfer.since) >= self.config.handover_keep {
            return self.end_transfer(topic);
        }
        self.send_parts(cx, topic, AHEAD);
    }

    fn end_transfer(&mut self, topic: TopicId) {
        self.deadlines.cancel(Timer::Transfer(topic));
        self.handovers.out.remove(&topic);
        if self.life == Life::Leaving && self.handovers.is_done() {
            self.finish_leaving();
        }
    }

    /// Successors that died take nothing any more.
    pub(super) fn end_transfers_to(&mut self, node: NodeId) {
        let ended = self.handovers.out.iter().filter(|(_, transfer)| transfer.to.id() == node);
        for topic in ended.map(|(&topic, _)| topic).collect::<Vec<_>>() {
            self.end_transfer(topic);
        }
    }

    /// A successor has taken a part: the next one may go.
    pub(super) fn on_handover_taken(
        &mut self,
        cx: Context<'_>,
        from: NodeId,
        topic: TopicId,
        number: u64,
        part: u32,
    ) {
        let Some(transfer) = self.handovers.out.get_mut(&topic) else { return };
        if transfer.to.id() != from || transfer.number != number || !transfer.open.remove(&part) {
            return;
        }
        if transfer.open.is_empty() {
            return self.end_transfer(topic);
        }
        // Parts before the window's end are on their way already.
        let Some(&next) = transfer.open.iter().nth(AHEAD - 1) else { return };
        let header =
            Header::Handover { topic, transfer: number, part: next, parts: transfer.parts.len() as u32 };
        let (to, message) = (transfer.to, wire::encode(&header, &transfer.parts[next as usize]));
        self.send(to, message);
        self.deadlines.set(Timer::Transfer(topic), cx.now + self.config.handover_retry);
    }

    /// A part of what a former root leaves.
    pub(super) fn on_handover(&mut self, cx: Context<'_>, from: Contact, topic: TopicId, part: Part) {
        let taken = Header::HandoverTaken { topic, transfer: part.transfer, part: part.part };
        let room = self.config.handovers_bytes;
        let Some(complete) = self.handovers.take(cx.now, topic, from.id(), part, room) else { return };
        self.tell(from, &taken);
        let role = self.trees.get_mut(&topic).map(|tree| &mut tree.role);
        if !complete {
            if let Some(Role::Opening(opening)) = role {
                opening.promised = Some(cx.now + self.config.handover_wait);
            }
            return;
        }
        let Some(inheritance) = self.handovers.complete(cx.now, topic, from.id()) else { return };
        match role {
            Some(Role::Opening(opening)) => {
                opening.inheritance = Some(inheritance);
                self.proceed(cx, topic);
            }
            // The term is open already; what it lost was announced.
            Some(Role::Root(_)) => {}
            Some(Role::Joining { .. } | Role::Child(_)) | None => self.handovers.keep(topic, inheritance),
        }
        self.keep_beating(cx);
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::Key;
    use treecast_overlay::peer::{Addr, Peer};

    use super::*;
    use crate::forest::position::encode_entry;
    use crate::message::Term;
    use crate::wire::{Body, Publish, Signature};

    /// `docs/protocol.md` shows a handover's bytes: that is this one.
    #[test]
    fn the_handover_of_the_page_is_that_of_the_code() {
        let topic = TopicId(Key(0x1234_5678_9abc_def0_0fed_cba9_8765_4321));
        let publisher = NodeId(0xc5a2_90ab_0000_0000_0000_0000_0000_0080);
        let contact = Peer { id: publisher, incarnation: 1, addr: Addr::Unreachable }.into();
        let publish = Publish {
            topic,
            publisher: contact,
            session: 77,
            sequence: 1,
            acknowledged: 0,
            resent: false,
            signature: Signature::None,
        };
        let root = NodeId(0x3f00_0000_0000_0000_0000_0000_0000_0001);
        let term = Term { number: 1, root };
        let at = Position { term, offset: 0 };
        let body = Body::Message { publisher, session: 77, sequence: 1, signature: Signature::None };
        let mut window = Window::new(None);
        window.append(encode_entry(topic, at, body, b"hi"));
        let log = Log { birth: 300, term, window };
        let mut sessions = Sessions::default();
        sessions.appended(Instant::ZERO, &publish, at);
        let estate = Estate::of(&log, &sessions, 1000, 1000);
        let hex: String =
            postcard::to_stdvec(&estate).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        let page = include_str!("../../../docs/protocol.md");
        assert!(page.contains(&format!("`{hex}`")), "docs/protocol.md should show {hex}");
    }
}

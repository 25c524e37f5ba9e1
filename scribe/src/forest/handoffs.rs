//! Logs on their way from a root that steps down to its successor, in chunks between which control passes, and those
//! that came here and wait for the day that this node is the root.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use treecast_overlay::deadlines::Deadlines;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use super::context::{Outbox, Timer};
use super::inbox::Chunk;
use super::invariants::Size;
use crate::config::Config;
use crate::log::handoff::Handoff;
use crate::topic::TopicId;
use crate::wire::{self, Header, MAX_CHUNKS};

/// Bytes of one chunk: small beside a frame, so that control passes between them.
const CHUNK: usize = 32 * 1024;
/// The cost of a chunk, or of the beginning of a handoff, beside its bytes: small ones are not free.
const OVERHEAD: usize = 128;
/// Chunks sent ahead of their acknowledgements.
const AHEAD: usize = 8;

/// A handoff's bytes, complete.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedHandoff {
    chunks: Vec<Bytes>,
    since: Instant,
}

/// Handoffs on their way out and in.
#[derive(Debug, Default)]
pub(super) struct Handoffs {
    outgoing: BTreeMap<TopicId, Transfer>,
    coming: BTreeMap<(TopicId, NodeId), Assembly>,
    ready: BTreeMap<TopicId, ReceivedHandoff>,
    /// Bytes in `coming` and `ready`.
    bytes: usize,
    /// The number of the last transfer.
    number: u64,
}

/// The context in which handoffs are sent.
pub(super) struct HandoffCx<'a> {
    pub now: Instant,
    pub config: &'a Config,
    pub out: &'a mut Outbox,
    pub deadlines: &'a mut Deadlines<Timer>,
}

/// The effect of a chunk.
#[derive(Debug)]
pub(super) enum Arrived {
    /// There is no room for it: it is to be sent again.
    NoRoom,
    /// Others are still to come, or it came before.
    Chunk,
    /// All of the handoff is here.
    All(ReceivedHandoff),
}

#[derive(Debug)]
struct Transfer {
    to: Contact,
    number: u64,
    chunks: Vec<Bytes>,
    /// Chunks that were not taken yet.
    open: BTreeSet<u32>,
    since: Instant,
}

#[derive(Debug)]
struct Assembly {
    transfer: u64,
    /// How many chunks it will have.
    count: u32,
    chunks: BTreeMap<u32, Bytes>,
    since: Instant,
    /// It was complete, and is kept only to acknowledge repetitions.
    done: bool,
}

/// Cuts a handoff into chunks.
pub(super) fn chunks_of(handoff: &Handoff) -> Vec<Bytes> {
    let bytes = handoff.encode();
    (0..bytes.len()).step_by(CHUNK).map(|at| bytes.slice(at..bytes.len().min(at + CHUNK))).collect()
}

impl ReceivedHandoff {
    /// Reads it; `None`: it is malformed.
    pub(super) fn open(&self) -> Option<Handoff> {
        Handoff::decode(&self.chunks.concat())
    }

    /// Its bytes as they came, to be passed on.
    pub(super) fn into_chunks(self) -> Vec<Bytes> {
        self.chunks
    }

    fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len() + OVERHEAD).sum()
    }
}

impl Handoffs {
    /// Takes the handoff that a former root left for this topic.
    pub(super) fn claim(&mut self, topic: TopicId) -> Option<ReceivedHandoff> {
        let handoff = self.ready.remove(&topic)?;
        self.bytes -= handoff.len();
        Some(handoff)
    }

    /// Whether this topic's log is being handed to that node.
    pub(super) fn is_under_way(&self, topic: TopicId, to: NodeId) -> bool {
        self.outgoing.get(&topic).is_some_and(|transfer| transfer.to.id() == to)
    }

    /// Whether nothing is on its way out.
    pub(super) fn is_done(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Whether nothing is on its way, and nothing is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.outgoing.is_empty() && self.coming.is_empty() && self.ready.is_empty()
    }

    /// Forgets handoffs that no root claimed, and those that came in part only.
    pub(super) fn expire(&mut self, limit: Instant) {
        self.coming.retain(|_, assembly| assembly.since >= limit);
        self.ready.retain(|_, handoff| handoff.since >= limit);
        let coming = self.coming.values().map(Assembly::len);
        self.bytes = coming.chain(self.ready.values().map(ReceivedHandoff::len)).sum();
    }

    /// Bytes that are kept (promise O5).
    pub(super) fn size(&self, config: &Config) -> Size {
        ("bytes of handoffs", self.bytes, config.handoff.total_bytes)
    }

    /// Begins to hand a log to a node.
    pub(super) fn start(&mut self, cx: HandoffCx<'_>, topic: TopicId, chunks: Vec<Bytes>, to: Contact) {
        let Ok(count) = u32::try_from(chunks.len()) else { return };
        if count > MAX_CHUNKS {
            tracing::warn!(%topic, chunks = count, "too much to hand over: the next term will be forced");
            return;
        }
        self.number += 1;
        let open = (0..count).collect();
        let transfer = Transfer { to, number: self.number, chunks, open, since: cx.now };
        self.outgoing.insert(topic, transfer);
        self.send_chunks(cx, topic);
    }

    /// Sends the first open chunks, for the first time or again.
    fn send_chunks(&mut self, cx: HandoffCx<'_>, topic: TopicId) {
        let Some(transfer) = self.outgoing.get(&topic) else { return };
        for &chunk in transfer.open.iter().take(AHEAD) {
            cx.out.send_data(transfer.to, transfer.encode(topic, chunk));
        }
        cx.deadlines.set(Timer::Handoff(topic), cx.now + cx.config.handoff.retry);
    }

    /// Chunks are to be sent again, or the successor is given up. Returns whether the transfer is over.
    pub(super) fn on_timer(&mut self, cx: HandoffCx<'_>, topic: TopicId) -> bool {
        let Some(transfer) = self.outgoing.get(&topic) else { return false };
        if cx.now.since(transfer.since) >= cx.config.handoff.keep {
            self.end(cx.deadlines, topic);
            return true;
        }
        self.send_chunks(cx, topic);
        false
    }

    fn end(&mut self, deadlines: &mut Deadlines<Timer>, topic: TopicId) {
        deadlines.cancel(Timer::Handoff(topic));
        self.outgoing.remove(&topic);
    }

    /// Ends the transfers to a successor that is dead. Returns whether anything did.
    pub(super) fn on_peer_down(&mut self, deadlines: &mut Deadlines<Timer>, node: NodeId) -> bool {
        let ended = self.outgoing.iter().filter(|(_, transfer)| transfer.to.id() == node);
        let ended: Vec<_> = ended.map(|(&topic, _)| topic).collect();
        ended.iter().for_each(|&topic| self.end(deadlines, topic));
        !ended.is_empty()
    }

    /// A successor has taken a chunk: the next one may go. Returns whether the transfer is over.
    pub(super) fn on_taken(
        &mut self,
        cx: HandoffCx<'_>,
        from: NodeId,
        topic: TopicId,
        number: u64,
        chunk: u32,
    ) -> bool {
        let Some(transfer) = self.outgoing.get_mut(&topic) else { return false };
        if transfer.to.id() != from || transfer.number != number || !transfer.open.remove(&chunk) {
            return false;
        }
        if transfer.open.is_empty() {
            self.end(cx.deadlines, topic);
            return true;
        }
        // Chunks before the window's end are on their way already.
        if let Some(&next) = transfer.open.iter().nth(AHEAD - 1) {
            cx.out.send_data(transfer.to, transfer.encode(topic, next));
            cx.deadlines.set(Timer::Handoff(topic), cx.now + cx.config.handoff.retry);
        }
        false
    }

    /// Takes a chunk of a handoff.
    pub(super) fn on_chunk(
        &mut self,
        now: Instant,
        config: &Config,
        topic: TopicId,
        from: NodeId,
        chunk: Chunk,
    ) -> Arrived {
        let key = (topic, from);
        let known = self.coming.get(&key).is_some_and(|assembly| assembly.transfer == chunk.transfer);
        if self.bytes + chunk.bytes.len() + OVERHEAD > config.handoff.total_bytes {
            return Arrived::NoRoom;
        }
        if !known {
            let Chunk { transfer, count, .. } = chunk;
            let new = Assembly { transfer, count, chunks: BTreeMap::new(), since: now, done: false };
            self.bytes += OVERHEAD;
            if let Some(old) = self.coming.insert(key, new) {
                self.bytes -= old.len();
            }
        }
        let Some(assembly) = self.coming.get_mut(&key) else { return Arrived::NoRoom };
        let repeated = assembly.chunks.contains_key(&chunk.index);
        if assembly.done || chunk.index >= assembly.count || repeated {
            return Arrived::Chunk;
        }
        self.bytes += chunk.bytes.len() + OVERHEAD;
        assembly.chunks.insert(chunk.index, chunk.bytes);
        if assembly.chunks.len() < assembly.count as usize {
            return Arrived::Chunk;
        }
        assembly.done = true;
        let chunks = std::mem::take(&mut assembly.chunks).into_values().collect();
        let handoff = ReceivedHandoff { chunks, since: now };
        // From here on it is counted where it is kept.
        self.bytes -= handoff.len();
        Arrived::All(handoff)
    }

    /// Keeps a handoff for the day that this node is the root.
    pub(super) fn keep(&mut self, topic: TopicId, handoff: ReceivedHandoff) {
        self.bytes += handoff.len();
        if let Some(old) = self.ready.insert(topic, handoff) {
            self.bytes -= old.len();
        }
    }
}

impl Transfer {
    fn encode(&self, topic: TopicId, chunk: u32) -> Bytes {
        let chunks = self.chunks.len() as u32;
        let header = Header::HandoffChunk { topic, transfer: self.number, chunk, chunks };
        wire::encode(&header, &self.chunks[chunk as usize])
    }
}

impl Assembly {
    fn len(&self) -> usize {
        OVERHEAD + self.chunks.values().map(|chunk| chunk.len() + OVERHEAD).sum::<usize>()
    }
}

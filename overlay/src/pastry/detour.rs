//! Ways around a broken one: two nodes of a leaf set that cannot reach each other speak through a third.
//!
//! A ring neighbour that does not answer is asked by way of others as well, before it is found dead (SWIM, Das et
//! al. 2002, §4.1): if it answers there, it has refuted the suspicion, and that way is kept while the direct one stays
//! broken. So a pair that is cut apart still renews its leases, and messages to a live root arrive (non-transitive
//! connectivity: Freedman et al. 2005, "Non-Transitive Connectivity and DHTs").
//!
//! What another is said to have said is taken on trust, from members of the leaf set only.

use bytes::{Bytes, BytesMut};
use rand::seq::SliceRandom;
use std::collections::VecDeque;
use std::time::Duration;

use super::invariants::Size;
use super::join::Phase;
use super::{BUSY, KEPT_CAPACITY, Node};
use crate::id::NodeId;
use crate::machine::{Destination, Transmit};
use crate::memory;
use crate::peer::Peer;
use crate::sides::Sides;
use crate::table::LeafSet;
use crate::time::Instant;
use crate::wire::{self, Frame, Header, Letter, Probe};

/// The unanswered probe from which on others are asked to pass it on: one or two are lost easily.
const INDIRECT_FROM: u8 = 3;
/// How many others pass on one probe.
const RELAYS: usize = 2;
/// How soon the direct way is tried again at first; each time in vain doubles it.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How seldom it is tried at last.
const TRY_AGAIN_MAX: Duration = Duration::from_secs(60);
/// How long the answer to an indirect probe is waited for: a lease of the default profile that comes later has ended.
const LATE: Duration = Duration::from_secs(4);
/// Most indirect probes kept that may still be answered: as many as two neighbours get in that time, and some more.
/// Beyond it the oldest are forgotten, and their answers count for nothing.
const MAX_INDIRECT: usize = 64;
/// Most detours kept; beyond it the oldest is forgotten, and found again when it is needed.
const MAX_DETOURS: usize = 64;

/// A frame that is still to be sent.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) to: Destination,
    pub(super) frame: Frame,
    /// It goes exactly there, without words about leases.
    pub(super) has_path: bool,
}

/// The path by which a frame came, and by which the answers go back.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplyPath {
    pub(super) to: NodeId,
    pub(super) relay: Option<Peer>,
}

/// Peers that are reached through others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Detours {
    /// Oldest first.
    ways: Vec<Detour>,
    /// Oldest first. An answer by way of others takes longer than a direct one, for which the next probe waits.
    indirect: Vec<Indirect>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Detour {
    to: NodeId,
    relay: Peer,
    /// The probe that was answered this way.
    number: u64,
    /// When that was: who is no ring neighbour any more is probed no more, and the relay may have lost it.
    answered: Instant,
    /// When the direct way is tried again.
    again: Instant,
    wait: Duration,
}

/// A probe that others passed on, or were to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Indirect {
    to: NodeId,
    number: u64,
    sent: Instant,
    /// The leases that it asked for.
    sides: Sides,
}

impl Detours {
    /// Who passes on what goes to this peer; `since`: by an answer that is no older.
    fn relay(&self, to: NodeId, since: Instant) -> Option<Peer> {
        self.ways.iter().find(|way| way.to == to && way.answered >= since).map(|way| way.relay)
    }

    /// A probe was answered by way of `relay`.
    fn note(&mut self, now: Instant, to: NodeId, relay: Peer, number: u64) {
        if let Some(way) = self.ways.iter_mut().find(|way| way.to == to) {
            (way.relay, way.number, way.answered) = (relay, number, now);
            return;
        }
        if self.ways.len() == MAX_DETOURS {
            self.ways.remove(0);
        }
        self.ways.push(Detour { to, relay, number, answered: now, again: now + TRY_AGAIN, wait: TRY_AGAIN });
    }

    /// A probe was answered directly: perhaps later than by way of another.
    fn note_direct(&mut self, to: NodeId, number: u64, is_outstanding: bool) {
        self.ways.retain(|way| way.to != to || !is_outstanding && way.number != number);
    }

    /// Whether the direct way is to be tried, besides the detour.
    fn is_to_be_tried(&mut self, now: Instant, to: NodeId) -> bool {
        let Some(way) = self.ways.iter_mut().find(|way| way.to == to) else { return true };
        let is_due = way.again <= now;
        if is_due {
            way.wait = (way.wait * 2).min(TRY_AGAIN_MAX);
            way.again = now + way.wait;
        }
        is_due
    }

    fn note_indirect(&mut self, now: Instant, to: NodeId, probe: Probe) {
        self.indirect.retain(|indirect| now - indirect.sent < LATE);
        if self.indirect.len() == MAX_INDIRECT {
            self.indirect.remove(0);
        }
        self.indirect.push(Indirect { to, number: probe.number, sent: now, sides: probe.lease });
    }

    /// When an indirect probe was sent, and for which leases it asked.
    fn indirect(&self, now: Instant, to: NodeId, number: u64) -> Option<(Instant, Sides)> {
        let sent = self.indirect.iter().find(|probe| (probe.to, probe.number) == (to, number))?;
        (now - sent.sent < LATE).then_some((sent.sent, sent.sides))
    }

    /// A probe was answered: a second answer to it, or one to an earlier probe, tells nothing.
    pub(super) fn settle_indirect(&mut self, to: NodeId, number: u64) {
        self.indirect.retain(|probe| probe.to != to || probe.number > number);
    }

    /// What was asked before a sleep counts for nothing.
    pub(super) fn forget_asked(&mut self) {
        self.indirect.clear();
    }

    /// The peer is gone, as a target or as a relay.
    pub(super) fn forget(&mut self, id: NodeId) {
        self.ways.retain(|way| way.to != id && way.relay.id != id);
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::list(&self.ways) + memory::list(&self.indirect)
    }

    /// How many are kept (promise O5).
    pub(super) fn sizes(&self) -> [Size; 2] {
        [("detours", self.ways.len(), MAX_DETOURS), ("indirect probes", self.indirect.len(), MAX_INDIRECT)]
    }
}

/// A frame as the payload of another.
fn within(header: Header, payload: Bytes) -> Bytes {
    let encoded = wire::encode(&Frame::new(header, payload));
    let mut inner = BytesMut::with_capacity(encoded.len());
    inner.extend_from_slice(&encoded.head);
    inner.extend_from_slice(&encoded.payload);
    inner.freeze()
}

impl Node {
    pub(super) fn transmit(&mut self, to: Peer, header: Header) {
        self.transmit_frame(to, header, Bytes::new());
    }

    /// Queues a frame. Its path is chosen when the call that made it ends.
    pub(super) fn transmit_frame(&mut self, to: Peer, header: Header, payload: Bytes) {
        debug_assert_ne!(to.id, self.me.id, "a node sends nothing to itself: {header:?}");
        let frame = Frame::new(header, payload);
        self.queued.push_back(Queued { to: Destination::Peer(to), frame, has_path: false });
    }

    /// Sends all that is queued, each by a detour if there is one. What goes directly to a ring neighbour carries words
    /// about leases. An answer goes the way that the question came.
    pub(super) fn dispatch(&mut self, now: Instant, reply: Option<ReplyPath>) {
        while let Some(Queued { to, mut frame, has_path }) = self.queued.pop_front() {
            let Destination::Peer(peer) = to else {
                self.transmits.push_back(Transmit { to, frame });
                continue;
            };
            if has_path {
                self.transmits.push_back(Transmit { to, frame });
                continue;
            }
            let relay = match reply {
                Some(path) if path.to == peer.id => path.relay,
                _ => self.relay(now, peer.id),
            };
            let transmit = match relay {
                Some(relay) => {
                    let header = Header::Via { to: peer, from: self.me };
                    let frame = Frame::new(header, within(frame.header, frame.payload));
                    Transmit { to: Destination::Peer(relay), frame }
                }
                None => {
                    frame.words = self.words_for(now, peer.id, &frame.header);
                    Transmit { to, frame }
                }
            };
            self.transmits.push_back(transmit);
        }
        if self.queued.capacity() > KEPT_CAPACITY || self.sent < BUSY {
            self.queued = VecDeque::new();
        }
    }

    /// Who passes on what goes to this peer, if a probe was answered that way within a lease: ring neighbours ask each
    /// other that often.
    fn relay(&self, now: Instant, to: NodeId) -> Option<Peer> {
        self.detours.relay(to, now - self.config.lease)
    }

    fn transmit_through(&mut self, relay: Peer, to: Peer, header: Header, payload: Bytes) {
        let from = self.me;
        self.transmit_directly(relay, Frame::new(Header::Via { to, from }, within(header, payload)));
    }

    /// Passes a letter on to a node that has named this one as a way around a broken link.
    pub(super) fn pass_letter_on(&mut self, to: Peer, from: Peer, letter: Letter, payload: Bytes) {
        let inner = within(Header::Letter(letter), payload);
        self.transmit_directly(to, Frame::new(Header::Via { to, from }, inner));
    }

    /// Sends a probe: directly, and also by way of others if it is not the first, or if that is the way by now.
    pub(super) fn transmit_probe(&mut self, now: Instant, to: Peer, probe: Probe, attempts: u8) {
        // (Whoever stands farther away is lost from a leaf set without harm: its neighbours watch over its range.)
        let is_indirect = attempts >= INDIRECT_FROM && (self.is_next_to(to.id) || !self.is_ready());
        let known = self.relay(now, to.id);
        if self.detours.is_to_be_tried(now, to.id) || is_indirect || known.is_none() {
            self.transmit_directly(to, Header::Probe(probe).into());
        }
        let relays = if is_indirect { self.relays_to(to.id) } else { known.into_iter().collect() };
        if !relays.is_empty() {
            self.detours.note_indirect(now, to.id, probe);
        }
        for relay in relays {
            self.transmit_through(relay, to, Header::Probe(probe), Bytes::new());
        }
    }

    /// The leaf set, or what is to become it.
    fn surroundings(&self) -> &LeafSet {
        if let Phase::Entering(entering) = &self.phase { entering.view() } else { &self.leaf_set }
    }

    /// Some who may reach a node that stands near this one on the ring: others of the leaf set.
    fn relays_to(&mut self, to: NodeId) -> Vec<Peer> {
        let around = self.surroundings();
        if !around.contains(to) && !around.wants(to) {
            return Vec::new();
        }
        let sound = |peer: &&Peer| peer.id != to && !self.liveness.is_suspect(peer.id);
        let mut relays: Vec<Peer> = around.iter().filter(sound).copied().collect();
        relays.shuffle(&mut self.rng);
        relays.truncate(RELAYS);
        relays
    }

    /// When the probe of this number was sent, and for which leases it asked, if its answer is waited for though it is
    /// not the outstanding one: it had a longer way.
    pub(super) fn asked_indirectly(
        &self,
        now: Instant,
        from: NodeId,
        number: u64,
    ) -> Option<(Instant, Sides)> {
        self.detours.indirect(now, from, number).filter(|_| self.surroundings().contains(from))
    }

    /// A probe was answered, the outstanding one or an earlier: which way?
    pub(super) fn note_way(
        &mut self,
        now: Instant,
        from: NodeId,
        relay: Option<Peer>,
        number: u64,
        is_outstanding: bool,
    ) {
        if is_outstanding {
            self.detours.settle_indirect(from, number);
        }
        match relay {
            Some(relay) if is_outstanding => self.detours.note(now, from, relay, number),
            Some(_) => {}
            None => self.detours.note_direct(from, number, is_outstanding),
        }
    }

    /// Handles a frame from this peer, and what it holds for this node if the peer has passed it on. Returns the path by
    /// which the answers go.
    pub(super) fn on_incoming(&mut self, now: Instant, from: Peer, frame: Frame) -> ReplyPath {
        let passed_on = match &frame.header {
            &Header::Via { to, from: sender } if to.id == self.me.id => {
                Some((to, sender, frame.payload.clone()))
            }
            _ => None,
        };
        let is_heard = self.on_heard_frame(now, from, None, frame);
        if let Some((to, sender, inner)) = passed_on.filter(|_| is_heard)
            && let Some(inner) = self.take_passed_on(from, to, sender, inner)
        {
            self.on_heard_frame(now, sender, Some(from), inner);
            return ReplyPath { to: sender.id, relay: Some(from) };
        }
        ReplyPath { to: from.id, relay: None }
    }

    /// Passes on a frame that is for another node.
    pub(super) fn pass_frame_on(&mut self, previous: Peer, to: Peer, from: Peer, inner: Bytes) {
        if to.id == self.me.id {
            return;
        }
        // For its own sender only, to a node that is known, and not by yet another.
        let known = self.is_ready().then(|| self.member(to.id)).flatten();
        if let Some(known) = known.filter(|known| known.id != from.id && from == previous) {
            self.transmit_directly(known, Frame::new(Header::Via { to, from }, inner));
        }
    }

    /// The frame that `previous` passes on to this node, if it may.
    fn take_passed_on(&self, previous: Peer, to: Peer, from: Peer, inner: Bytes) -> Option<Frame> {
        // Of another life than the one that is known only its own connection can tell.
        let is_other_life = self.member(from.id).is_some_and(|known| known.incarnation != from.incarnation);
        if !self.surroundings().contains(previous.id)
            || is_other_life
            || from.id == self.me.id
            || to.incarnation != self.me.incarnation
        {
            return None;
        }
        let frame = wire::decode(inner).ok();
        let frame = frame
            .filter(|frame| !matches!(frame.header, Header::Via { .. } | Header::Attach | Header::Detach));
        if frame.is_none() {
            tracing::debug!(node = %self.me.id, relay = %previous.id, "passes on what is no frame");
        }
        frame
    }
}

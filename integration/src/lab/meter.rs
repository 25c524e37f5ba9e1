//! A whole node with a counter on its ways in and out: what joins cost, and which way messages take. The node itself
//! is untouched; all counters of a ring are one, so that a node costs a few bytes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::KeyBasedRouting;
use treecast_overlay::machine::{Destination, Link, Machine, Store, StoreToken, Transmit};
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Answer, Frame, Header, Letter, Purpose, encode_head, within};
use treecast_scribe::PastryStack;
use treecast_scribe::event::{Command, Event};
use treecast_scribe::wire::{self, Body, Header as Word};

use super::passages::Passages;

/// A join is over this long after the newcomer is ready: until then it makes itself known and begins to look for near
/// nodes. What it looks for later counts as upkeep: [`Run::frames`](super::run::Run::frames) has all of it.
const JOIN_TAIL: Duration = Duration::from_secs(1);

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Gauge {
    /// Frames that joins took: all that newcomers send and receive until a second after they are ready, and the hops
    /// of their requests between others, each with its acknowledgement.
    pub join_frames: u64,
    /// Whether Scribe's messages are looked into. Off, because most of a quiet ring's are keep-alives.
    pub looking: bool,
    /// Hops of JOINs.
    pub joins: u64,
    /// Log entries sent from parents to children.
    pub copies: u64,
    /// Hops of messages on their way to the root.
    pub ways: u64,
    /// Both again for each message, by the number that its payload begins with.
    pub messages: Vec<Passage>,
    /// Lookups on their way, if anybody asks.
    pub passages: Option<Passages>,
}

/// How often one message was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// From a parent to a child.
    pub copies: u32,
    /// Towards the root.
    pub way: u32,
}

impl Gauge {
    fn look(&mut self, frame: &Frame) {
        let letter = matches!(
            &frame.header,
            Header::Letter(Letter::Payload) | Header::Relayed { letter: Letter::Payload, .. }
        );
        let routed =
            matches!(&frame.header, Header::Routed(routed) if routed.purpose == Purpose::Application);
        if !letter && !routed {
            return;
        }
        match wire::decode(&frame.payload) {
            Ok((Word::Join(_), _)) => self.joins += 1,
            Ok((Word::Data(data), payload)) if matches!(data.body, Body::Message { .. }) => {
                self.copies += 1;
                self.passage(&payload, |passage| passage.copies += 1);
            }
            Ok((Word::Publish(_), payload)) => {
                self.ways += 1;
                self.passage(&payload, |passage| passage.way += 1);
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn passage(&mut self, payload: &Bytes, count: impl FnOnce(&mut Passage)) {
        let known = number_of(payload).and_then(|number| self.messages.get_mut(number));
        if let Some(passage) = known {
            count(passage);
        }
    }
}

/// A payload of `len` bytes, 8 at least, that begins with the message's number.
pub fn numbered(number: usize, len: usize) -> Bytes {
    let mut payload = vec![0; len.max(8)];
    payload[..8].copy_from_slice(&(number as u64).to_le_bytes());
    payload.into()
}

/// The number that a payload begins with.
pub fn number_of(payload: &[u8]) -> Option<usize> {
    Some(u64::from_le_bytes(payload.get(..8)?.try_into().ok()?) as usize)
}

/// Whether a frame carries a log entry from parent to child: what link stress counts.
pub fn is_copy(frame: &Frame) -> bool {
    let letter = matches!(frame.header, Header::Letter(Letter::Payload));
    letter
        && matches!(wire::decode(&frame.payload),
            Ok((Word::Data(data), _)) if matches!(data.body, Body::Message { .. }))
}

/// The counter of a ring.
pub type Meter = Rc<RefCell<Gauge>>;

/// A node under measurement.
pub struct Metered {
    stack: PastryStack,
    meter: Meter,
    /// Until then it is a newcomer; `None`: as long as it is not ready.
    new_until: Option<Instant>,
    now: Instant,
}

impl Metered {
    /// A node as it is, counted by this meter.
    pub fn new(stack: PastryStack, meter: Meter) -> Metered {
        Metered { stack, meter, new_until: None, now: Instant::ZERO }
    }

    /// The node.
    pub fn stack(&self) -> &PastryStack {
        &self.stack
    }

    fn slot(&self) -> u32 {
        match self.stack.peer().addr {
            Addr::Memory(slot) => slot,
            Addr::Socket(_) | Addr::Unreachable => unreachable!("the laboratory's nodes live in slots"),
        }
    }

    /// Whether this node is the root of a key, in its own eyes.
    fn serves(&self, key: Option<Key>) -> bool {
        key.is_some_and(|key| self.stack.ring().is_root_of(self.now, key))
    }

    /// A frame leaves: does it carry a lookup, or answer one?
    fn follow(&self, passages: &mut Passages, transmit: &Transmit) {
        let header = &transmit.frame.header;
        if let Header::Via { to, from } = header {
            // Its own words by a detour are its words.
            if let Some(frame) = within(&transmit.frame).filter(|_| from.id == self.stack.peer().id) {
                self.follow(passages, &Transmit { to: Destination::Peer(*to), frame });
            }
            return;
        }
        passages.on_probe(header);
        let Destination::Peer(to) = transmit.to else { return };
        if let Header::Routed(routed) = header
            && matches!(routed.purpose, Purpose::Lookup)
            && let Addr::Memory(slot) = to.addr
        {
            passages.on_hop(self.slot(), slot, routed, || {
                encode_head(&header.clone().into(), Vec::new()).len() as u64
            });
        } else if let Some((origin, answer)) = answer_in(header, to)
            && answer.root.id == self.stack.peer().id
        {
            let serves = self.serves(passages.key_of(origin, answer.id));
            passages.on_answer((origin, answer.id), answer.hops, (answer.root.id, self.slot()), serves);
        }
    }

    fn is_new(&self) -> bool {
        self.new_until.is_none_or(|until| self.now < until)
    }
}

/// An answer to a lookup, and for whom it is.
fn answer_in(header: &Header, to: Peer) -> Option<(NodeId, &Answer)> {
    if let Header::Letter(Letter::Answer(answer)) = header {
        Some((to.id, answer))
    } else if let Header::Relayed { to, letter: Letter::Answer(answer), .. } = header {
        Some((to.id(), answer))
    } else {
        None
    }
}

impl Machine for Metered {
    type Command = Command;
    type Event = Event;

    fn peer(&self) -> Peer {
        self.stack.peer()
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        self.now = now;
        self.stack.handle_command(now, command);
    }

    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame) {
        self.now = now;
        if self.is_new() {
            self.meter.borrow_mut().join_frames += 1;
        }
        self.stack.handle_frame(now, from, frame);
    }

    fn handle_link(&mut self, now: Instant, link: Link) {
        self.now = now;
        self.stack.handle_link(now, link);
    }

    fn handle_queued(&mut self, now: Instant, peer: NodeId, bytes: usize) {
        self.now = now;
        self.stack.handle_queued(now, peer, bytes);
    }

    fn handle_stored(&mut self, now: Instant, token: StoreToken) {
        self.now = now;
        self.stack.handle_stored(now, token);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.stack.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.stack.poll_transmit()?;
        let mut gauge = self.meter.borrow_mut();
        let seek = matches!(&transmit.frame.header,
            Header::Routed(routed) if matches!(routed.purpose, Purpose::Seek));
        if self.is_new() {
            gauge.join_frames += 1;
        } else if seek {
            gauge.join_frames += 2;
        }
        if gauge.looking {
            gauge.look(&transmit.frame);
        }
        if let Some(passages) = &mut gauge.passages {
            self.follow(passages, &transmit);
        }
        drop(gauge);
        Some(transmit)
    }

    fn poll_event(&mut self) -> Option<Event> {
        let event = self.stack.poll_event()?;
        if matches!(event, Event::Ready { .. }) {
            self.new_until = Some(self.now + JOIN_TAIL);
        } else if let Event::Found { token, found } = &event
            && found.root.id == self.stack.peer().id
            && let Some(passages) = &mut self.meter.borrow_mut().passages
        {
            // Whoever asks for what is its own answers without a frame.
            let serves = self.serves(passages.key(token.0));
            passages.decide(token.0, found.hops, (found.root.id, self.slot()), serves);
        }
        Some(event)
    }

    fn poll_store(&mut self) -> Option<Store> {
        self.stack.poll_store()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.stack.poll_timeout()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_bear_their_number() {
        assert_eq!(number_of(&numbered(7, 100)), Some(7));
        assert_eq!((numbered(7, 100).len(), numbered(7, 0).len()), (100, 8));
        assert_eq!(number_of(b"short"), None);
    }
}

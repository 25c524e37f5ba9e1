//! A counter on the ways in and out of all nodes: what joins cost, and how often messages are sent.

use std::time::Duration;

use bytes::Bytes;
use treecast_overlay::machine::Transmit;
use treecast_overlay::peer::Peer;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Direct, Frame, Header, Purpose};
use treecast_scribe::Stack;
use treecast_scribe::event::Event;
use treecast_scribe::wire::{Body, Header as ForestHeader};

use crate::cluster::witness::forest_message;
use crate::node::RingNode;
use crate::world::{At, Inward, Observer, Outward};

/// A join is over this long after the newcomer is ready: until then it makes itself known and begins to look for near
/// nodes. Its later search counts as upkeep: [`Run::frames`](super::run::Run::frames) has all of it.
const JOIN_TAIL: Duration = Duration::from_secs(1);

/// Counts of frames.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Frames that joins took: all that newcomers send and receive until a second after they are ready, and the hops
    /// of their requests between others, each with its acknowledgement.
    pub join_frames: u64,
    /// Whether Scribe's messages are looked into. Off, because most of a quiet ring's are keep-alives.
    pub looking: bool,
    /// Hops of JOINs.
    pub joins: u64,
    /// Log entries sent from parents to children.
    pub copies: u64,
    /// For each message, by the number that its payload begins with, how often it was sent.
    pub messages: Vec<Sent>,
    /// By slot, until when its node is a newcomer; `None`: as long as it is not ready.
    new_until: Vec<Option<Instant>>,
}

/// How often one message was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// From a parent to a child.
    pub copies: u32,
    /// Towards the root.
    pub way: u32,
}

impl Meter {
    fn look(&mut self, frame: &Frame) {
        let Some((header, payload)) = forest_message(frame) else { return };
        if let ForestHeader::Join(_) = header {
            self.joins += 1;
        } else if is_message(&header) {
            self.copies += 1;
            self.count(&payload, |sent| sent.copies += 1);
        } else if let ForestHeader::Publish(_) = header {
            self.count(&payload, |sent| sent.way += 1);
        }
    }

    fn count(&mut self, payload: &Bytes, count: impl FnOnce(&mut Sent)) {
        if let Some(sent) = number_of(payload).and_then(|number| self.messages.get_mut(number)) {
            count(sent);
        }
    }

    fn is_new<M>(&self, at: &At<'_, M>) -> bool {
        self.new_until[at.slot].is_none_or(|until| at.now < until)
    }
}

impl<N: RingNode> Observer<Stack<N>> for Meter {
    fn started(&mut self, slot: usize) {
        self.new_until.resize(self.new_until.len().max(slot + 1), None);
        self.new_until[slot] = None;
    }

    fn frame_in(&mut self, at: &At<'_, Stack<N>>, _: Peer, _: &Frame) -> Inward {
        self.join_frames += u64::from(self.is_new(at));
        Inward::Passes
    }

    fn frame_out(&mut self, at: &At<'_, Stack<N>>, transmit: &mut Transmit) -> Outward {
        let seeks = matches!(&transmit.frame.header,
            Header::Routed(routed) if matches!(routed.purpose, Purpose::Seek));
        self.join_frames += if self.is_new(at) { 1 } else { 2 * u64::from(seeks) };
        if self.looking {
            self.look(&transmit.frame);
        }
        Outward::Passes
    }

    fn event(&mut self, at: &At<'_, Stack<N>>, event: Event, told: &mut Vec<Event>) {
        if matches!(event, Event::Ready { .. }) {
            self.new_until[at.slot] = Some(at.now + JOIN_TAIL);
        }
        told.push(event);
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

fn is_message(header: &ForestHeader) -> bool {
    matches!(header, ForestHeader::Data(data) if matches!(data.body, Body::Message { .. }))
}

/// Whether a frame carries a log entry from parent to child: what link stress counts.
pub fn is_copy(frame: &Frame) -> bool {
    matches!(frame.header, Header::Direct(Direct::Payload))
        && forest_message(frame).is_some_and(|(header, _)| is_message(&header))
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

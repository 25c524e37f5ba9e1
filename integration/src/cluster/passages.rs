//! Lookups on their way, frame by frame: which frames carry one for the first time, which way it took, and which node
//! decided to answer it. An observer, so that nothing need be traced on the wire.

use std::collections::BTreeMap;

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::machine::{Destination, Machine, Transmit};
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::wire::{
    Answer, Direct, Header, NodeState, Probe, ProbeAck, Purpose, Routed, encode_head,
};
use treecast_scribe::Stack;
use treecast_scribe::event::Event;

use super::witness::by_detour;
use crate::node::RingNode;
use crate::world::{At, Observer, Outward};

/// Most lookups that are remembered: answers by late copies are judged, too. Beyond it the oldest are forgotten.
const MAX_OPEN: usize = 4096;

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// How many.
    pub frames: u64,
    /// Their bytes, without the transport's prefix and encryption.
    pub bytes: u64,
}

/// A node answered for a key, at this very instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The lookup that it answered.
    pub lookup: u64,
    /// For which key.
    pub key: Key,
    /// The node.
    pub by: NodeId,
    /// Where it lives.
    pub slot: u32,
    /// Whether it was the root of the key in its own eyes, by its own clock, when it answered. A node that goes on after
    /// a pause handles all that has waited at one instant: what it learns from a later frame says nothing of its answer
    /// to an earlier one.
    pub serves: bool,
    /// The hops that brought the lookup here, sender and receiver, last one first.
    pub way: Vec<(u32, u32)>,
}

/// Lookups under way.
#[derive(Clone, Debug, Default)]
pub struct Passages {
    open: BTreeMap<u64, Passage>,
    /// The origin and the key name a lookup: what the origin's application calls it does not stand in frames.
    by_key: BTreeMap<(NodeId, Key), u64>,
    /// By the message.
    by_message: BTreeMap<Message, u64>,
    /// Answers since the last look.
    pub decisions: Vec<Decision>,
    /// Frames that carried a lookup over its n-th hop before any other did, for any n: those that are no
    /// control.
    pub first: Traffic,
    /// Frames of probes and their answers, by purpose.
    pub probes: BTreeMap<&'static str, u64>,
}

/// A message's name: its origin's id, the origin's life, and that life's number for it. A restarted node numbers from 1 again.
type Message = (NodeId, u64, u64);

fn message(origin: &Peer, number: u64) -> Message {
    (origin.id, origin.incarnation, number)
}

#[derive(Clone, Debug)]
struct Passage {
    origin: NodeId,
    key: Key,
    message: Option<Message>,
    /// Hops that some copy has made.
    reached: u8,
    /// Each frame: the hops that the message had made, sender, receiver.
    frames: Vec<(u8, u32, u32)>,
}

impl Passages {
    /// A lookup is about to be asked.
    pub fn begin(&mut self, lookup: u64, origin: NodeId, key: Key) {
        if self.open.len() >= MAX_OPEN
            && let Some((&oldest, _)) = self.open.first_key_value()
        {
            self.end(oldest);
        }
        self.by_key.insert((origin, key), lookup);
        self.open.insert(lookup, Passage { origin, key, message: None, reached: 0, frames: Vec::new() });
    }

    /// A lookup is of no interest any more. Copies of it that are still under way count as control.
    pub fn end(&mut self, lookup: u64) {
        if let Some(passage) = self.open.remove(&lookup) {
            let name = (passage.origin, passage.key);
            if self.by_key.get(&name) == Some(&lookup) {
                self.by_key.remove(&name);
            }
            passage.message.and_then(|message| self.by_message.remove(&message));
        }
    }

    /// A lookup's frame leaves a node; `bytes` says how long it is.
    fn on_hop(&mut self, from: u32, to: u32, routed: &Routed, bytes: impl FnOnce() -> u64) {
        let message = message(&routed.origin.peer, routed.id);
        let lookup = match self.by_message.get(&message) {
            Some(&lookup) => lookup,
            None => {
                let Some(&lookup) = self.by_key.get(&(routed.origin.id(), routed.key)) else { return };
                self.by_message.insert(message, lookup);
                lookup
            }
        };
        let Some(passage) = self.open.get_mut(&lookup) else { return };
        passage.message = Some(message);
        passage.frames.push((routed.hops, from, to));
        if routed.hops >= passage.reached {
            passage.reached = routed.hops + 1;
            self.first.frames += 1;
            self.first.bytes += bytes();
        }
    }

    /// A node answered.
    fn decide(&mut self, lookup: u64, hops: u8, at: (NodeId, u32), serves: impl FnOnce(Key) -> bool) {
        let Some(passage) = self.open.get(&lookup) else { return };
        let (key, (by, slot)) = (passage.key, at);
        let way = passage.way(hops, slot);
        self.decisions.push(Decision { lookup, key, by, slot, serves: serves(key), way });
    }

    /// A frame leaves: does it carry a lookup, or answer one?
    fn follow<N: RingNode>(&mut self, at: &At<'_, Stack<N>>, transmit: &Transmit) {
        let (me, header) = (at.machine.peer().id, &transmit.frame.header);
        if let Header::Via { .. } = header {
            if let Some(sent) = by_detour(me, &transmit.frame) {
                self.follow(at, &sent);
            }
            return;
        }
        if let Some(purpose) = purpose(header) {
            *self.probes.entry(purpose).or_default() += 1;
        }
        let Destination::Peer(to) = transmit.to else { return };
        if let Header::Routed(routed) = header
            && matches!(routed.purpose, Purpose::Lookup)
            && let Addr::Memory(slot) = to.addr
        {
            let bytes = || encode_head(&header.clone().into(), Vec::new()).len() as u64;
            self.on_hop(at.slot as u32, slot, routed, bytes);
        } else if let Some((origin, answer)) = answer_in(header, to)
            && answer.root.id == me
            && let Some(&lookup) = self.by_message.get(&message(&origin, answer.id))
        {
            let serves = |key| at.machine.ring().is_root_of(at.now, key);
            self.decide(lookup, answer.hops, (me, at.slot as u32), serves);
        }
    }
}

impl<N: RingNode> Observer<Stack<N>> for Passages {
    fn frame_out(&mut self, at: &At<'_, Stack<N>>, transmit: &mut Transmit) -> Outward {
        self.follow(at, transmit);
        Outward::Passes
    }

    /// A node that asks for what is its own answers without a frame.
    fn event(&mut self, at: &At<'_, Stack<N>>, event: Event, told: &mut Vec<Event>) {
        let me = at.machine.peer().id;
        if let Event::Found { token, found } = &event
            && found.root.id == me
        {
            let serves = |key| at.machine.ring().is_root_of(at.now, key);
            self.decide(token.0, found.hops, (me, at.slot as u32), serves);
        }
        told.push(event);
    }
}

/// An answer to a lookup, and for which node it is.
fn answer_in(header: &Header, to: Peer) -> Option<(Peer, &Answer)> {
    if let Header::Direct(Direct::Answer(answer)) = header {
        Some((to, answer))
    } else if let Header::RelayedDirect { to, direct: Direct::Answer(answer), .. } = header {
        Some((to.peer, answer))
    } else {
        None
    }
}

/// The purpose of a probe, or of an answer to one; `None`: it is neither.
fn purpose(header: &Header) -> Option<&'static str> {
    if let Header::Probe(Probe { node_state, lease, leaf_set, .. }) = header {
        return Some(match (node_state, !lease.is_none(), leaf_set) {
            (NodeState::Joining | NodeState::Starting, ..) => "probe: a joiner's",
            (_, true, _) => "probe: asks for a lease",
            (_, false, true) => "probe: asks for a leaf set",
            (_, false, false) => "probe: alive, how far?",
        });
    }
    let Header::ProbeAck(ProbeAck { lease, asks, leaf_set, .. }) = header else { return None };
    Some(match (!lease.is_none(), asks, leaf_set) {
        (true, Some(_), _) => "probe_ack: grants a lease and asks for one",
        (true, None, _) => "probe_ack: grants a lease",
        (false, Some(_), _) => "probe_ack: asks for a lease",
        (false, None, Some(_)) => "probe_ack: with a leaf set",
        (false, None, None) => "probe_ack: alive",
    })
}

impl Passage {
    /// The hops that led to a slot.
    fn way(&self, hops: u8, mut slot: u32) -> Vec<(u32, u32)> {
        let mut way = Vec::with_capacity(usize::from(hops));
        for made in (0..hops).rev() {
            let last = self.frames.iter().find(|&&(before, _, to)| before == made && to == slot);
            let Some(&(_, from, to)) = last else { break };
            way.push((from, to));
            slot = from;
        }
        way
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::peer::Contact;

    use super::*;

    fn peer(slot: u32) -> Peer {
        Peer { id: NodeId(u128::from(slot)), incarnation: 1, addr: Addr::Memory(slot) }
    }

    fn routed(hops: u8) -> Routed {
        Routed {
            hop: 0,
            key: Key(77),
            origin: Contact { peer: peer(1), via: None },
            id: 5,
            hops,
            by_leaf_set: false,
            repeated: false,
            purpose: Purpose::Lookup,
            trace: None,
        }
    }

    #[test]
    fn only_the_first_frame_over_each_hop_is_no_control() {
        let mut passages = Passages::default();
        passages.begin(9, peer(1).id, Key(77));
        // The hop from 1 to 2 is not acknowledged and made again to 3, which goes on to 4, as 2 does in the
        // end.
        for (hops, from, to) in [(0, 1, 2), (0, 1, 3), (1, 3, 4), (1, 2, 4)] {
            passages.on_hop(from, to, &routed(hops), || 10);
        }
        assert_eq!(passages.first, Traffic { frames: 2, bytes: 20 });
        passages.decide(9, 2, (peer(4).id, 4), |_| true);
        assert_eq!(passages.decisions[0].way, [(3, 4), (1, 3)]);
        passages.end(9);
        passages.on_hop(1, 2, &routed(0), || 10);
        passages.decide(9, 2, (peer(4).id, 4), |_| true);
        assert_eq!((passages.first.frames, passages.decisions.len()), (2, 1));
    }
}

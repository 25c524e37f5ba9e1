//! Lookups on their way, frame by frame: which frames carry one for the first time, which way it took, and who
//! decided to answer it. Filled by the ring's [`Meter`](super::meter::Meter), so that nothing need be traced on
//! the wire.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::wire::{Header, Probe, ProbeAck, Routed, Standing};

/// Frames and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
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
    /// Who.
    pub by: NodeId,
    /// Where it lives.
    pub slot: u32,
    /// Whether it was the root of the key in its own eyes, by its own clock, when it answered.
    pub serves: bool,
    /// The hops that brought the lookup here, sender and receiver, last one first.
    pub way: Vec<(u32, u32)>,
}

/// Lookups under way.
#[derive(Clone, Debug, Default)]
pub struct Passages {
    open: BTreeMap<u64, Passage>,
    /// A random key names its lookup: what the origin's application calls it does not stand in frames.
    by_key: BTreeMap<Key, u64>,
    /// By the origin and its own number for the message.
    by_message: BTreeMap<(NodeId, u64), u64>,
    /// What answered since the last look.
    pub decisions: Vec<Decision>,
    /// Frames that carried a lookup over its n-th hop before any other did, for any n: those that are no
    /// control.
    pub first: Load,
    /// What probes and their answers were for, by frames.
    pub probes: BTreeMap<&'static str, u64>,
    stir: Rc<Cell<bool>>,
}

#[derive(Clone, Debug)]
struct Passage {
    key: Key,
    message: Option<(NodeId, u64)>,
    /// Hops that some copy has made.
    reached: u8,
    /// Each frame: the hops that the message had made, sender, receiver.
    frames: Vec<(u8, u32, u32)>,
}

impl Passages {
    /// None yet; each decision sets the flag, so that the world stops for it.
    pub fn stirring(stir: Rc<Cell<bool>>) -> Passages {
        Passages { stir, ..Passages::default() }
    }

    /// A lookup is about to be asked. Its key must be no other's.
    pub fn begin(&mut self, lookup: u64, key: Key) {
        self.by_key.insert(key, lookup);
        self.open.insert(lookup, Passage { key, message: None, reached: 0, frames: Vec::new() });
    }

    /// A lookup is of no interest any more. Copies of it that are still under way count as control.
    pub fn end(&mut self, lookup: u64) {
        if let Some(passage) = self.open.remove(&lookup) {
            self.by_key.remove(&passage.key);
            passage.message.and_then(|message| self.by_message.remove(&message));
        }
    }

    /// The key of a lookup.
    pub fn key(&self, lookup: u64) -> Option<Key> {
        self.open.get(&lookup).map(|passage| passage.key)
    }

    /// The key of the lookup that stands under this number at its origin.
    pub(super) fn key_of(&self, origin: NodeId, id: u64) -> Option<Key> {
        self.by_message.get(&(origin, id)).and_then(|&lookup| self.key(lookup))
    }

    /// A probe or an answer to one leaves a node.
    pub(super) fn on_probe(&mut self, header: &Header) {
        if let Some(purpose) = purpose(header) {
            *self.probes.entry(purpose).or_default() += 1;
        }
    }

    /// A lookup's frame leaves a node; `bytes` says how long it is.
    pub(super) fn on_hop(&mut self, from: u32, to: u32, routed: &Routed, bytes: impl FnOnce() -> u64) {
        let message = (routed.origin.id(), routed.id);
        let lookup = match self.by_message.get(&message) {
            Some(&lookup) => lookup,
            None => {
                let Some(&lookup) = self.by_key.get(&routed.key) else { return };
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

    /// A node's answer to a message of `origin` leaves.
    pub(super) fn on_answer(
        &mut self,
        (origin, id): (NodeId, u64),
        hops: u8,
        at: (NodeId, u32),
        serves: bool,
    ) {
        if let Some(&lookup) = self.by_message.get(&(origin, id)) {
            self.decide(lookup, hops, at, serves);
        }
    }

    /// A node answered.
    pub(super) fn decide(&mut self, lookup: u64, hops: u8, (by, slot): (NodeId, u32), serves: bool) {
        let Some(passage) = self.open.get(&lookup) else { return };
        let way = passage.way(hops, slot);
        self.decisions.push(Decision { lookup, by, slot, serves, way });
        self.stir.set(true);
    }
}

/// What a probe, or an answer to one, is for; `None`: it is neither.
fn purpose(header: &Header) -> Option<&'static str> {
    if let Header::Probe(Probe { standing, lease, leaf_set, .. }) = header {
        return Some(match (standing, !lease.is_none(), leaf_set) {
            (Standing::Joining | Standing::Starting, ..) => "probe: a joiner's",
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
    use treecast_overlay::peer::{Addr, Contact, Peer};
    use treecast_overlay::wire::Purpose;

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
        passages.begin(9, Key(77));
        // The hop from 1 to 2 is not acknowledged and made again to 3, which goes on to 4, as 2 does in the
        // end.
        for (hops, from, to) in [(0, 1, 2), (0, 1, 3), (1, 3, 4), (1, 2, 4)] {
            passages.on_hop(from, to, &routed(hops), || 10);
        }
        assert_eq!(passages.first, Load { frames: 2, bytes: 20 });
        passages.on_answer((peer(1).id, 5), 2, (peer(4).id, 4), true);
        assert_eq!(passages.decisions[0].way, [(3, 4), (1, 3)]);
        assert!(passages.stir.get());
        passages.end(9);
        passages.on_hop(1, 2, &routed(0), || 10);
        passages.on_answer((peer(1).id, 5), 2, (peer(4).id, 4), true);
        assert_eq!((passages.first.frames, passages.decisions.len()), (2, 1));
    }
}

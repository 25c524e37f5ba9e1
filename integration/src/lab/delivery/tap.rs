//! A tap on all wires: what messages cost, and the births and configurations that pass.

use std::collections::BTreeMap;

use bytes::Bytes;
use treecast_overlay::machine::{Destination, Transmit};
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::wire::{Frame, Header};
use treecast_scribe::wire::{self, Attached, Body, CopyState, Data, Header as ForestHeader, Promise};
use treecast_scribe::{Stack, TopicId};

use super::account::named;
use super::counting::Bits;
use crate::cluster::ledger::Ledger;
use crate::cluster::witness::forest_message;
use crate::node::RingNode;
use crate::world::{At, Inward, Observer, Outward};

/// A message that is so many behind the newest of its topic comes to a node that catches up.
const BEHIND: u64 = 50;

/// Counts, and evidence.
#[derive(Default)]
pub(super) struct DeliveryTap {
    /// Whether messages are counted.
    pub(super) counting: bool,
    /// Births and configurations.
    pub(super) ledger: Ledger,
    pub(super) cost: Cost,
    /// All that is said of this topic goes to stderr; messages, acknowledgements and beats only if all is to be told.
    pub(super) told: Option<TopicId>,
    pub(super) tells_all: bool,
    /// By receiver and topic.
    inlets: BTreeMap<(u32, u32), Inlet>,
    /// The newest message of each topic.
    newest: BTreeMap<u32, u64>,
}

/// What messages cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Messages that came to nodes over the links of trees.
    pub(super) copies: u64,
    /// Of these, the first of each message at each node.
    pub(super) first: u64,
    /// Of the first ones: at nodes that catch up, new members above all; of the others: at members without a subscription and without children, and at nodes that only pass on.
    pub(super) late: u64,
    pub(super) at_replicas: u64,
    pub(super) at_forwarders: u64,
    /// Messages sent to a node to which the same node had sent them before.
    pub(super) retransmitted: u64,
    /// Messages that came because they were asked for.
    pub(super) pulled: u64,
    /// Bytes of all frames that carry a message.
    pub(super) message_bytes: u64,
}

/// The messages of one topic that came to one node, and those that each other node sent to it.
#[derive(Clone, Debug, Default)]
struct Inlet {
    got: Bits,
    sent: Vec<(u32, Bits)>,
}

impl DeliveryTap {
    /// A node is gone: nothing comes to it, or from it, any more.
    pub(super) fn forget(&mut self, slot: usize) {
        let slot = slot as u32;
        self.inlets.retain(|(to, _), _| *to != slot);
        self.inlets.values_mut().for_each(|inlet| inlet.sent.retain(|(from, _)| *from != slot));
    }

    fn inlet(&mut self, slot: usize, topic: u32) -> &mut Inlet {
        self.inlets.entry((slot as u32, topic)).or_default()
    }

    fn count_in<N: RingNode>(
        &mut self,
        at: &At<'_, Stack<N>>,
        topic: TopicId,
        payload: &Bytes,
        pulled: bool,
    ) {
        let Some((number, message)) = named(payload) else { return };
        self.cost.copies += 1;
        self.cost.pulled += u64::from(pulled);
        if !self.inlet(at.slot, number).got.add(message) {
            return;
        }
        self.cost.first += 1;
        let newest = self.newest.entry(number).or_default();
        *newest = message.max(*newest);
        if message + BEHIND < *newest {
            self.cost.late += 1;
        } else if let Some(place) = at.machine.forest().place(topic)
            && place.subscriptions() == 0
            && !place.is_root()
        {
            let is_member = place.life().is_some();
            self.cost.at_replicas += u64::from(is_member && place.children().len() == 0);
            self.cost.at_forwarders += u64::from(!is_member);
        }
    }

    fn count_out(&mut self, from: usize, transmit: &Transmit, payload: &Bytes) {
        let (Some((topic, message)), Destination::Peer(Peer { addr: Addr::Memory(to), .. })) =
            (named(payload), transmit.to)
        else {
            return;
        };
        let from = from as u32;
        let sent = &mut self.inlet(to as usize, topic).sent;
        let place = sent.iter().position(|(sender, _)| *sender == from).unwrap_or_else(|| {
            sent.push((from, Bits::default()));
            sent.len() - 1
        });
        let is_again = !sent[place].1.add(message);
        self.cost.retransmitted += u64::from(is_again);
    }

    fn tell<N: RingNode>(&self, at: &At<'_, Stack<N>>, transmit: &Transmit, header: &ForestHeader) {
        let Some(topic) = self.told else { return };
        let is_usual = matches!(
            header,
            ForestHeader::Publish(_)
                | ForestHeader::Receipt(_)
                | ForestHeader::Ack(_)
                | ForestHeader::Beat(_)
        ) || matches!(header, ForestHeader::Data(data) if is_message(data));
        let words = if is_usual && !self.tells_all { String::new() } else { format!("{header:?}") };
        if words.contains(&format!("topic: {topic:?}")) {
            let to = match transmit.to {
                Destination::Peer(peer) => peer.addr.to_string(),
                Destination::Seed(seed) => seed.addr.to_string(),
            };
            eprintln!("{} #{} to {to}: {words}", at.now, at.slot);
        }
    }

    fn note_copy<N: RingNode>(&mut self, at: &At<'_, Stack<N>>, topic: TopicId, copy: &CopyState) {
        self.ledger.note_birth(at.now, at.slot, topic, copy.birth, &copy.lineage);
        for known in &copy.configurations {
            self.ledger.note_members(topic, copy.birth, known.at, &known.members, copy.synced.number);
        }
    }

    fn note_entry<N: RingNode>(&mut self, at: &At<'_, Stack<N>>, data: &Data, bytes: usize) {
        let Data { topic, birth, offset, .. } = *data;
        if let Body::Configuration { members, birth: begun, .. } = &data.body {
            if let Some(begun) = begun {
                self.ledger.note_birth(at.now, at.slot, topic, birth, &begun.lineage);
                self.ledger.note_begin(topic, birth, begun.complete);
            }
            self.ledger.note_members(topic, birth, offset, members, data.term);
        }
        self.ledger.note_entry(topic, birth, offset, bytes);
    }

    fn note_log<N: RingNode>(&mut self, at: &At<'_, Stack<N>>, header: &ForestHeader, payload: &Bytes) {
        if let ForestHeader::Data(data) = header {
            self.note_entry(at, data, payload.len());
        } else if let ForestHeader::Attached(Attached { topic, start: Some(start), .. }) = header {
            self.ledger.note_birth(at.now, at.slot, *topic, start.birth, &start.lineage);
            if let Some(sync) = &start.sync {
                for known in &sync.configurations {
                    self.ledger.note_members(*topic, start.birth, known.at, &known.members, sync.term.number);
                }
            }
        } else if let ForestHeader::Promise(Promise { topic, copy: Some(copy), .. }) = header {
            self.note_copy(at, *topic, copy);
        }
    }
}

/// A message in an entry, as `Pulled` carries it.
fn entry(payload: &Bytes) -> Option<(Data, Bytes)> {
    match wire::decode(payload) {
        Ok((ForestHeader::Data(data), tail)) => Some((data, tail)),
        Ok(_) | Err(_) => None,
    }
}

fn is_message(data: &Data) -> bool {
    matches!(data.body, Body::Message { .. })
}

impl<N: RingNode> Observer<Stack<N>> for DeliveryTap {
    fn frame_in(&mut self, at: &At<'_, Stack<N>>, _: Peer, frame: &Frame) -> Inward {
        if self.counting
            && matches!(frame.header, Header::Direct(_) | Header::RelayedDirect { .. })
            && let Some((header, payload)) = forest_message(frame)
        {
            if let ForestHeader::Data(data) = &header
                && is_message(data)
            {
                self.count_in(at, data.topic, &payload, false);
            } else if let ForestHeader::Pulled { topic, .. } = header
                && let Some((_, tail)) = entry(&payload).filter(|(data, _)| is_message(data))
            {
                self.count_in(at, topic, &tail, true);
            }
        }
        Inward::Passes
    }

    fn frame_out(&mut self, at: &At<'_, Stack<N>>, transmit: &mut Transmit) -> Outward {
        let Some((header, payload)) = forest_message(&transmit.frame) else { return Outward::Passes };
        self.tell(at, transmit, &header);
        self.note_log(at, &header, &payload);
        let pulled = matches!(header, ForestHeader::Pulled { .. }).then(|| entry(&payload)).flatten();
        if let Some((data, tail)) = &pulled {
            self.note_entry(at, data, tail.len());
        }
        if self.counting {
            let bytes = transmit.frame.payload.len() as u64;
            if let ForestHeader::Data(data) = &header
                && is_message(data)
            {
                self.cost.message_bytes += bytes;
                self.count_out(at.slot, transmit, &payload);
            } else if pulled.is_some_and(|(data, _)| is_message(&data))
                || matches!(header, ForestHeader::Publish(_))
            {
                self.cost.message_bytes += bytes;
            }
        }
        Outward::Passes
    }
}

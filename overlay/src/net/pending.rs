//! Events of the transport that the driver has taken and not handled yet: control before data, as in the queues on their
//! way here. A node that is behind with its data hears at once who lives, and which hops have arrived.

use std::collections::VecDeque;

use super::transport::TransportEvent;

/// While so many bytes of data wait here, no more is taken from the transport: its own limits make the senders wait. As
/// much as an inbox holds (`inbox::FULL_AT`), because control that came behind it is to be found, too.
const FULL_AT: usize = 8 * 1024 * 1024;
/// The weight of an event, beside its payload; as in the inbox.
const EVENT_WEIGHT: usize = 512;

/// Events that wait to be handled, in two classes, each in its order.
#[derive(Debug, Default)]
pub(super) struct Pending {
    control: VecDeque<TransportEvent>,
    data: VecDeque<TransportEvent>,
    /// The weight of the data.
    weight: usize,
}

impl Pending {
    /// Takes a batch over.
    pub(super) fn add(&mut self, batch: Vec<TransportEvent>) {
        for event in batch {
            if is_control(&event) {
                self.control.push_back(event);
            } else {
                self.weight += weight(&event);
                self.data.push_back(event);
            }
        }
    }

    /// The next event: control first.
    pub(super) fn pop(&mut self) -> Option<TransportEvent> {
        self.control.pop_front().or_else(|| self.pop_data())
    }

    fn pop_data(&mut self) -> Option<TransportEvent> {
        let event = self.data.pop_front()?;
        self.weight -= weight(&event);
        if self.data.is_empty() {
            self.tidy();
        }
        Some(event)
    }

    /// What a burst took is given back.
    fn tidy(&mut self) {
        const KEPT: usize = 256;
        self.data.shrink_to(KEPT);
        self.control.shrink_to(KEPT);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.control.len() + self.data.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.data.is_empty()
    }

    /// Whether no more is to be taken from the transport now.
    pub(super) fn is_full(&self) -> bool {
        self.weight >= FULL_AT
    }
}

/// Whether an event goes first. News of a connection keep their place among its data: what came before it broke is handled
/// before.
fn is_control(event: &TransportEvent) -> bool {
    match event {
        TransportEvent::Frame { frame, .. } => frame.is_control(),
        TransportEvent::Queued { .. } => true,
        TransportEvent::Link(_) => false,
    }
}

fn weight(event: &TransportEvent) -> usize {
    let payload = match event {
        TransportEvent::Frame { frame, .. } => frame.payload.len(),
        TransportEvent::Link(_) | TransportEvent::Queued { .. } => 0,
    };
    payload + EVENT_WEIGHT
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::NodeId;
    use crate::machine::Link;
    use crate::peer::{Addr, Peer};
    use crate::wire::{Direct, Frame, Header};

    fn frame(header: Header, payload: &'static [u8]) -> TransportEvent {
        let from = Peer { id: NodeId(1), incarnation: 1, addr: Addr::Memory(1) };
        TransportEvent::Frame { from, frame: Frame::new(header, Bytes::from_static(payload)) }
    }

    #[test]
    fn a_probe_that_came_behind_much_data_is_handled_before_it_and_each_class_keeps_its_order() {
        let data = |bytes| frame(Header::Direct(Direct::Payload), bytes);
        let ack = |hop| frame(Header::HopAck { hop }, b"");
        let down = TransportEvent::Link(Link::Down { peer: NodeId(1), generation: 1 });
        let mut pending = Pending::default();
        pending.add(vec![data(b"1"), data(b"2"), ack(1)]);
        pending.add(vec![down.clone(), ack(2)]);
        let order: Vec<_> = std::iter::from_fn(|| pending.pop()).collect();
        assert_eq!(order, [ack(1), ack(2), data(b"1"), data(b"2"), down]);
        assert!(pending.is_empty() && pending.weight == 0);
    }

    #[test]
    fn no_more_is_taken_while_much_waits() {
        let data = || frame(Header::Direct(Direct::Payload), b"x");
        let mut pending = Pending::default();
        pending.add((0..FULL_AT / EVENT_WEIGHT).map(|_| data()).collect());
        assert!(pending.is_full());
        for _ in 0..100 {
            pending.pop();
        }
        assert!(!pending.is_full());
    }
}

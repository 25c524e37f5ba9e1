//! Events of the transport that the driver has taken and not handled yet: control before data, as in the queues on their
//! way here. A node that is behind with its data hears at once who lives, and which hops have arrived.

use std::collections::VecDeque;

use super::transport::TransportEvent;
use crate::machine::Link;

/// Events that wait to be handled, in two classes, each in its order.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    control: VecDeque<TransportEvent>,
    data: VecDeque<TransportEvent>,
}

impl Backlog {
    /// Takes a batch over.
    pub(super) fn add(&mut self, batch: Vec<TransportEvent>) {
        for event in batch {
            if is_control(&event) {
                self.control.push_back(event);
            } else {
                self.data.push_back(event);
            }
        }
    }

    /// The next event: control first.
    pub(super) fn pop(&mut self) -> Option<TransportEvent> {
        self.control.pop_front().or_else(|| self.data.pop_front())
    }

    /// Whether so much waits in one of the classes.
    pub(super) fn holds(&self, many: usize) -> bool {
        self.data.len().max(self.control.len()) >= many
    }

    pub(super) fn is_empty(&self) -> bool {
        self.control.is_empty() && self.data.is_empty()
    }
}

/// Whether an event goes first. A connection's end keeps its place behind the data that came by it.
fn is_control(event: &TransportEvent) -> bool {
    match event {
        TransportEvent::Frame { frame, .. } => frame.is_control(),
        TransportEvent::Queued { .. } | TransportEvent::Link(Link::Up { .. } | Link::Refused { .. }) => true,
        TransportEvent::Link(Link::Down { .. }) => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::NodeId;
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
        let mut pending = Backlog::default();
        pending.add(vec![data(b"1"), data(b"2"), ack(1)]);
        pending.add(vec![down.clone(), ack(2)]);
        let order: Vec<_> = std::iter::from_fn(|| pending.pop()).collect();
        assert_eq!(order, [ack(1), ack(2), data(b"1"), data(b"2"), down]);
        assert!(pending.is_empty());
    }
}

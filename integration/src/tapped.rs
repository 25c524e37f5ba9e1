//! A whole node with a counter on its way out, and, to prove that the judges see, with a fault if one is planted.

use treecast_overlay::id::NodeId;
use treecast_overlay::machine::{Link, Machine, Store, StoreToken, Transmit};
use treecast_overlay::peer::Peer;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Frame, Header};
use treecast_scribe::event::{Command, Event};
use treecast_scribe::wire::{self, Header as Word};
use treecast_scribe::{Item, PastryStack};

/// What is wrong with a node: each fault strikes one message, the n-th that the node's applications get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It comes twice.
    Doubled(u64),
    /// The next one comes before it.
    Swapped(u64),
    /// It never comes.
    Swallowed(u64),
    /// Not a message: the n-th receipt never comes.
    Unanswered(u64),
}

/// A node under observation.
pub struct Tapped {
    stack: PastryStack,
    fault: Option<Fault>,
    messages: u64,
    receipts: u64,
    /// What comes before the next event.
    held: Vec<Event>,
    payloads: u64,
}

impl Tapped {
    /// A node as it is.
    pub fn new(stack: PastryStack) -> Tapped {
        Tapped { stack, fault: None, messages: 0, receipts: 0, held: Vec::new(), payloads: 0 }
    }

    /// A node with a fault.
    pub fn plant(stack: PastryStack, fault: Fault) -> Tapped {
        Tapped { fault: Some(fault), ..Tapped::new(stack) }
    }

    /// The node.
    pub fn stack(&self) -> &PastryStack {
        &self.stack
    }

    /// Takes the tap off.
    pub fn into_stack(self) -> PastryStack {
        self.stack
    }

    /// Log entries that this node has sent, repetitions included.
    pub fn payloads(&self) -> u64 {
        self.payloads
    }

    fn count(&mut self, frame: &Frame) {
        let letter = matches!(frame.header, Header::Letter(_) | Header::Relayed { .. });
        if letter && matches!(wire::decode(&frame.payload), Ok((Word::Data(_), _))) {
            self.payloads += 1;
        }
    }

    /// What becomes of an event; `None`: nothing.
    fn spoil(&mut self, event: Event) -> Option<Event> {
        if let Event::Published { .. } = &event {
            self.receipts += 1;
            return (self.fault != Some(Fault::Unanswered(self.receipts))).then_some(event);
        }
        let Event::Item { subscription, item: item @ Item::Message(_) } = &event else { return Some(event) };
        self.messages += 1;
        match self.fault {
            Some(Fault::Doubled(n)) if n == self.messages => {
                self.held.push(Event::Item { subscription: *subscription, item: item.clone() });
                Some(event)
            }
            Some(Fault::Swallowed(n)) if n == self.messages => None,
            Some(Fault::Swapped(n)) if n == self.messages => {
                let next = self.stack.poll_event();
                if next.is_none() {
                    // Alone in its batch: another one will do.
                    self.fault = Some(Fault::Swapped(n + 1));
                    return Some(event);
                }
                self.held.push(event);
                next
            }
            Some(_) | None => Some(event),
        }
    }
}

impl Machine for Tapped {
    type Command = Command;
    type Event = Event;

    fn peer(&self) -> Peer {
        self.stack.peer()
    }

    fn handle_command(&mut self, now: Instant, command: Command) {
        self.stack.handle_command(now, command);
    }

    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame) {
        self.stack.handle_frame(now, from, frame);
    }

    fn handle_link(&mut self, now: Instant, link: Link) {
        self.stack.handle_link(now, link);
    }

    fn handle_queued(&mut self, now: Instant, peer: NodeId, bytes: usize) {
        self.stack.handle_queued(now, peer, bytes);
    }

    fn handle_stored(&mut self, now: Instant, token: StoreToken) {
        self.stack.handle_stored(now, token);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.stack.handle_timeout(now);
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.stack.poll_transmit()?;
        self.count(&transmit.frame);
        Some(transmit)
    }

    fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.held.pop() {
            return Some(event);
        }
        loop {
            let event = self.stack.poll_event()?;
            if let Some(event) = self.spoil(event) {
                return Some(event);
            }
        }
    }

    fn poll_store(&mut self) -> Option<Store> {
        self.stack.poll_store()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.stack.poll_timeout()
    }
}

//! Observers see what goes into the machines of a world and what comes out of them: taps, meters, and planted faults, which
//! also change it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use treecast_overlay::machine::{Machine, Transmit};
use treecast_overlay::peer::Peer;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Frame;

use super::World;

/// The node that something is observed at.
#[derive(Debug)]
pub struct At<'a, M> {
    /// Where it lives.
    pub slot: usize,
    /// The time that its clock shows.
    pub now: Instant,
    /// The node: before what goes in, after what comes out.
    pub machine: &'a M,
}

/// The fate of a frame on its way in.
#[derive(Debug)]
pub enum Inward {
    /// The machine gets it.
    Passes,
    /// It does not.
    Vanishes,
    /// It does not, and this goes out in its place.
    Answered(Box<Transmit>),
}

/// The fate of a frame on its way out.
#[derive(Debug)]
pub enum Outward {
    /// It goes out.
    Passes,
    /// It does not.
    Vanishes,
    /// It takes so much longer.
    Late(Duration),
    /// It goes out so many times more.
    Repeated(usize),
    /// It goes out, and these with it.
    With(Vec<Transmit>),
}

/// Sees what passes, and says what becomes of it. Observers are asked in the order in which they were attached; the next
/// one sees what the one before left.
pub trait Observer<M: Machine> {
    /// A node begins a life.
    fn started(&mut self, _slot: usize) {}

    /// A node is about to get a command.
    fn command(&mut self, _at: &At<'_, M>, _command: &M::Command) {}

    /// A node is about to get a frame.
    fn frame_in(&mut self, _at: &At<'_, M>, _from: Peer, _frame: &Frame) -> Inward {
        Inward::Passes
    }

    /// A node sends a frame.
    fn frame_out(&mut self, _at: &At<'_, M>, _transmit: &mut Transmit) -> Outward {
        Outward::Passes
    }

    /// A node tells the layer above something; what is pushed is told.
    fn event(&mut self, _at: &At<'_, M>, event: M::Event, told: &mut Vec<M::Event>) {
        told.push(event);
    }
}

/// One observer for several owners. A world is one thread.
pub type Shared<T> = Rc<RefCell<T>>;

impl<M: Machine, T: Observer<M>> Observer<M> for Shared<T> {
    fn started(&mut self, slot: usize) {
        self.borrow_mut().started(slot);
    }

    fn command(&mut self, at: &At<'_, M>, command: &M::Command) {
        self.borrow_mut().command(at, command);
    }

    fn frame_in(&mut self, at: &At<'_, M>, from: Peer, frame: &Frame) -> Inward {
        self.borrow_mut().frame_in(at, from, frame)
    }

    fn frame_out(&mut self, at: &At<'_, M>, transmit: &mut Transmit) -> Outward {
        self.borrow_mut().frame_out(at, transmit)
    }

    fn event(&mut self, at: &At<'_, M>, event: M::Event, told: &mut Vec<M::Event>) {
        self.borrow_mut().event(at, event, told);
    }
}

/// The observers of a world.
pub(super) struct Observers<M: Machine>(Vec<Box<dyn Observer<M>>>);

impl<M: Machine> Default for Observers<M> {
    fn default() -> Observers<M> {
        Observers(Vec::new())
    }
}

impl<M: Machine> Observers<M> {
    pub(super) fn started(&mut self, slot: usize) {
        self.0.iter_mut().for_each(|observer| observer.started(slot));
    }

    pub(super) fn command(&mut self, at: &At<'_, M>, command: &M::Command) {
        self.0.iter_mut().for_each(|observer| observer.command(at, command));
    }

    pub(super) fn frame_in(&mut self, at: &At<'_, M>, from: Peer, frame: &Frame) -> Inward {
        for observer in &mut self.0 {
            let fate = observer.frame_in(at, from, frame);
            if !matches!(fate, Inward::Passes) {
                return fate;
            }
        }
        Inward::Passes
    }

    /// Hands what goes out to `send`, each with how much longer it takes.
    pub(super) fn frame_out(
        &mut self,
        at: &At<'_, M>,
        transmit: Transmit,
        send: &mut dyn FnMut(Transmit, Duration),
    ) {
        pass_out(&mut self.0, at, transmit, Duration::ZERO, send);
    }

    pub(super) fn event(&mut self, at: &At<'_, M>, event: M::Event) -> Vec<M::Event> {
        let mut events = vec![event];
        for observer in &mut self.0 {
            let mut told = Vec::with_capacity(events.len());
            events.into_iter().for_each(|event| observer.event(at, event, &mut told));
            events = told;
        }
        events
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn pass_out<M: Machine>(
    observers: &mut [Box<dyn Observer<M>>],
    at: &At<'_, M>,
    mut transmit: Transmit,
    late: Duration,
    send: &mut dyn FnMut(Transmit, Duration),
) {
    let Some((first, others)) = observers.split_first_mut() else { return send(transmit, late) };
    let (times, late) = match first.frame_out(at, &mut transmit) {
        Outward::Passes => (0, late),
        Outward::Vanishes => return,
        Outward::Late(by) => (0, late + by),
        Outward::Repeated(times) => (times, late),
        Outward::With(more) => {
            more.into_iter().for_each(|transmit| pass_out(others, at, transmit, late, send));
            (0, late)
        }
    };
    for _ in 0..times {
        pass_out(others, at, transmit.clone(), late, send);
    }
    pass_out(others, at, transmit, late, send);
}

impl<M: Machine> World<M> {
    /// Shows an observer from now on what goes in and out.
    pub fn attach(&mut self, observer: impl Observer<M> + 'static) {
        self.observers.0.push(Box::new(observer));
    }

    /// Likewise, before all others.
    pub fn attach_first(&mut self, observer: impl Observer<M> + 'static) {
        self.observers.0.insert(0, Box::new(observer));
    }

    /// Hands each event to `sink` from now on: instant, slot, event.
    pub fn hand_events_to(&mut self, sink: impl FnMut(Instant, usize, M::Event) + 'static) {
        self.sink = Some(Box::new(sink));
    }

    /// Keeps events from now on, for [`take_events`](World::take_events).
    pub fn keep_events(&mut self) {
        self.sink = None;
        self.events.clear();
    }

    /// Whether there are events to be taken.
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// All events since the last call, in order. Empty while they are handed to somebody.
    pub fn take_events(&mut self) -> Vec<(Instant, usize, M::Event)> {
        std::mem::take(&mut self.events)
    }
}

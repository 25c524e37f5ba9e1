//! The way of a frame: out of one machine, over the network, into another; and of the news about connections.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::RngExt;
use treecast_overlay::id::NodeId;
use treecast_overlay::machine::{Destination, Link, Machine, Refusal, Transmit};
use treecast_overlay::peer::{Addr, Addresses, Peer};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{self, Frame};

use super::faults::{DiceVerdict, happens};
use super::links::{Connection, Incoming};
use super::observer::{At, Inward, Observers};
use super::queue::{Arrival, Happening, Notice, Word};
use super::trace::{Loss, Note, What};
use super::{Connections, Fidelity, SlotState, Waiting, World};

/// Latest end of a turn: the driver's turns take no longer unless the machine itself does.
const LONGEST_TURN: Duration = Duration::from_millis(2);

/// Most things that a machine may hand out after one call: one that hands out more never ends.
const MAX_DRAINED: u32 = 1_000_000;

impl<M: Machine> World<M> {
    /// One call of a machine, and the drain contract after it. The turn ends with the call, or goes on for a while.
    pub(super) fn call(&mut self, slot: usize, act: impl FnOnce(&mut M, Instant)) {
        let Some(mut machine) = self.slots[slot].machine.take() else { return };
        act(&mut machine, self.local_time(slot));
        self.drain(slot, &mut machine);
        if !self.goes_on(slot) {
            machine.handle_turn_end(self.local_time(slot));
            self.drain(slot, &mut machine);
        }
        self.put_back(slot, machine);
    }

    /// Whether the turn of a node goes on after this call.
    fn goes_on(&mut self, slot: usize) -> bool {
        if !self.slots[slot].in_turn && happens(&mut self.turns, self.config.late_turns) {
            let late = Duration::from_nanos(self.turns.random_range(0..=LONGEST_TURN.as_nanos() as u64));
            let life = self.slots[slot].life;
            self.slots[slot].in_turn = true;
            self.queue.push(self.now + late, Happening::TurnEnd { slot: slot as u32, life });
        }
        self.slots[slot].in_turn
    }

    /// A turn ends late. That of a paused node ends when the node goes on.
    pub(super) fn on_turn_end(&mut self, slot: usize, life: u32) {
        let room = &mut self.slots[slot];
        if room.life == life && room.state == SlotState::Running {
            self.end_turn(slot);
        }
    }

    /// Ends the turn of a running node, if one goes on.
    pub(super) fn end_turn(&mut self, slot: usize) {
        if !std::mem::take(&mut self.slots[slot].in_turn) {
            return;
        }
        let Some(mut machine) = self.slots[slot].machine.take() else { return };
        self.trace.record(self.now, slot, What::TurnEnd);
        machine.handle_turn_end(self.local_time(slot));
        self.drain(slot, &mut machine);
        self.put_back(slot, machine);
    }

    fn put_back(&mut self, slot: usize, machine: Box<M>) {
        self.slots[slot].deadline = machine.poll_timeout().map(|at| self.world_time(slot, at));
        self.slots[slot].machine = Some(machine);
        self.arm(slot);
    }

    fn drain(&mut self, slot: usize, machine: &mut M) {
        let (mut frames, mut events, mut stores) = (0, 0, 0);
        loop {
            let before = frames + events + stores;
            while let Some(transmit) = machine.poll_transmit() {
                frames += 1;
                self.send_observed(slot, machine, transmit);
            }
            while let Some(event) = machine.poll_event() {
                events += 1;
                self.tell_observed(slot, machine, event);
            }
            while let Some(store) = machine.poll_store() {
                stores += 1;
                self.notify(slot, self.config.store_takes, Word::Stored(store.token));
            }
            let all = frames + events + stores;
            assert!(all < MAX_DRAINED, "the node in slot {slot} hands out things without end");
            if all == before {
                break;
            }
        }
        if frames + events + stores > 0 {
            self.trace.record(self.now, slot, What::Drained { frames, events, stores });
        }
    }

    // Past the observers.

    /// Shows the observers what a node is about to get.
    pub(super) fn call_observed<T>(
        &mut self,
        slot: usize,
        show: impl FnOnce(&At<'_, M>, &mut Observers<M>) -> T,
    ) -> Option<T> {
        let now = self.local_time(slot);
        let machine = self.slots[slot].machine.as_deref()?;
        Some(show(&At { slot, now, machine }, &mut self.observers))
    }

    fn send_observed(&mut self, slot: usize, machine: &M, transmit: Transmit) {
        if self.observers.is_empty() {
            return self.send(slot, machine.peer(), transmit, Duration::ZERO);
        }
        let at = At { slot, now: self.local_time(slot), machine };
        let mut observers = std::mem::take(&mut self.observers);
        let mut send = |transmit, late| self.send(slot, machine.peer(), transmit, late);
        observers.frame_out(&at, transmit, &mut send);
        self.observers = observers;
    }

    fn tell_observed(&mut self, slot: usize, machine: &M, event: M::Event) {
        let at = At { slot, now: self.local_time(slot), machine };
        let told = if self.observers.is_empty() { vec![event] } else { self.observers.event(&at, event) };
        for event in told {
            match &mut self.sink {
                Some(sink) => sink(self.now, slot, event),
                None => self.events.push((self.now, slot, event)),
            }
        }
    }

    /// Lets a node handle a frame, if its observers let it pass.
    fn handle_observed(&mut self, slot: usize, peer: Peer, frame: Frame) {
        let fate = self.call_observed(slot, |at, observers| observers.frame_in(at, peer, &frame));
        match fate {
            Some(Inward::Passes) | None => {
                self.call(slot, |machine, now| machine.handle_frame(now, peer, frame));
            }
            Some(Inward::Vanishes) => {}
            Some(Inward::Answered(answer)) => {
                if let Some(me) = self.slots[slot].machine.as_ref().map(|machine| machine.peer()) {
                    self.send(slot, me, *answer, Duration::ZERO);
                }
            }
        }
    }

    // Out.

    fn send(&mut self, from: usize, peer: Peer, transmit: Transmit, late: Duration) {
        let Transmit { to, frame } = transmit;
        self.scratch.clear();
        self.scratch = wire::encode_head(&frame, std::mem::take(&mut self.scratch));
        let head = &self.scratch;
        let length = head.len() + frame.payload.len();
        let tally = self.counters.on(&frame.header);
        tally.sent += 1;
        tally.bytes += length as u64;
        let (frame, kept) = match self.config.fidelity {
            Fidelity::Values => (frame, Bytes::new()),
            Fidelity::Encoded => through_the_wire(from, frame, head),
        };
        let note = self.trace.sent(self.now, from, &frame, head, kept);
        if length > self.config.max_frame {
            return self.lose(from, from as u32, &frame, note, Loss::TooLarge);
        }
        let (addr, want) = match to {
            Destination::Peer(peer) => (peer.addr, Some(peer.id)),
            Destination::Seed(seed) => (seed.addr, seed.id),
        };
        let connected = want.and_then(|id| match addr {
            Addr::Unreachable => self.connected_to(from, id),
            Addr::Memory(_) | Addr::Socket(_) => None,
        });
        let to = match (addr, connected) {
            (Addr::Memory(slot), _) if slot as usize == from => Err(Refusal::Myself),
            (Addr::Memory(slot), _) | (Addr::Unreachable, Some(slot)) => Ok(slot),
            (Addr::Unreachable, None) => Err(unreachable("it opened no connection to this node")),
            (Addr::Socket(_), _) => Err(unreachable("there are no sockets in a simulated world")),
        };
        let to = match to {
            Ok(to) => to,
            Err(reason) => {
                self.lose(from, from as u32, &frame, note, Loss::Undialled);
                if self.config.connections == Connections::Kept {
                    self.notify(from, Duration::ZERO, Word::Refused { dial: None, addr, id: want, reason });
                }
                return;
            }
        };
        let Connection { up, generation, .. } = self.connection(from, to, want);
        let from_life = self.slots[from].life;
        let (from, dials) = (from as u32, !up);
        self.dispatch(Box::new(Arrival {
            from,
            from_life,
            to,
            peer,
            want,
            generation,
            dials,
            frame,
            note,
            late,
        }));
    }

    /// The slot of a node that has no address.
    fn connected_to(&self, from: usize, id: NodeId) -> Option<u32> {
        match self.config.connections {
            Connections::Kept => self.links.connected_to(from, id),
            Connections::None => self.undialled.get(&id).copied(),
        }
    }

    /// The connection to send over. A fresh dial that nobody answers ends in time.
    fn connection(&mut self, from: usize, to: u32, want: Option<NodeId>) -> Connection {
        if self.config.connections == Connections::None {
            return Connection { slot: to, up: true, generation: 0 };
        }
        let known = self.links.between(from, to);
        let connection = known.unwrap_or_else(|| self.links.dial(from, to));
        if known.is_none()
            && let Some(wait) = self.config.dial_timeout
        {
            let dial = Some((to, connection.generation));
            let reason = Refusal::TimedOut;
            self.notify(from, wait, Word::Refused { dial, addr: Addr::Memory(to), id: want, reason });
        }
        connection
    }

    /// A frame is on the network.
    pub(super) fn launch(&mut self, arrival: Box<Arrival>) {
        let (from, to) = (arrival.from as usize, arrival.to as usize);
        if self.cuts.sever(from, to) {
            return self.lose(from, arrival.to, &arrival.frame, arrival.note, Loss::Cut);
        }
        if let Some((filter, loads)) = &mut self.watch
            && filter(&arrival.frame)
        {
            self.network.map.count(from, to, loads);
        }
        match self.config.faults.verdict(&mut self.verdicts) {
            DiceVerdict::Lost => self.lose(from, arrival.to, &arrival.frame, arrival.note, Loss::Dice),
            DiceVerdict::Once(late) => self.fly(arrival, late),
            DiceVerdict::Twice(late, later) => {
                self.counters.on(&arrival.frame.header).doubled += 1;
                self.fly(arrival.clone(), late);
                self.fly(arrival, later);
            }
        }
    }

    fn fly(&mut self, arrival: Box<Arrival>, late: Duration) {
        let delay = self.network.delay(arrival.from as usize, arrival.to as usize);
        let late = late + arrival.late;
        self.queue.push(self.now + delay + late, Happening::Arrival(arrival));
    }

    pub(super) fn lose(&mut self, from: usize, to: u32, frame: &Frame, note: Note, why: Loss) {
        let tally = self.counters.on(&frame.header);
        tally.lost += 1;
        tally.vanished += u64::from(why == Loss::Dice);
        self.trace.record(self.now, from, What::Lost { to, note, why });
    }

    // In.

    pub(super) fn on_arrival(&mut self, arrival: Box<Arrival>) {
        let to = arrival.to as usize;
        match self.slots.get(to).map_or(SlotState::Vacant, |slot| slot.state) {
            SlotState::Running => match self.busy_until(to) {
                None => self.take_in(arrival),
                Some(free) if self.slots[to].backlog.len() < self.config.backlog => {
                    self.wait_until(to, free, Waiting::Arrival(arrival));
                }
                Some(_) => self.miss(arrival, Loss::Backlog, None),
            },
            SlotState::Paused if self.slots[to].backlog.len() < self.config.backlog => {
                self.slots[to].backlog.push_back(Waiting::Arrival(arrival));
            }
            SlotState::Paused => self.miss(arrival, Loss::Backlog, None),
            SlotState::Dark => self.miss(arrival, Loss::NobodyThere, None),
            SlotState::Vacant => {
                self.miss(arrival, Loss::NobodyThere, Some(unreachable("nobody listens there")))
            }
        }
    }

    /// A frame reaches a running node: is it the right one, and is there a connection?
    fn take_in(&mut self, arrival: Box<Arrival>) {
        let Arrival { from, to, generation, dials, .. } = *arrival;
        let slot = to as usize;
        let Some(here) = self.slots[slot].machine.as_ref().map(|machine| machine.peer()) else { return };
        if arrival.peer.id == here.id {
            // The handshake proves that both hold one key.
            return self.miss(arrival, Loss::NobodyThere, Some(Refusal::Twin(here.incarnation)));
        }
        if arrival.want.is_some_and(|id| id != here.id) {
            return self.miss(arrival, Loss::NobodyThere, Some(Refusal::WrongId(here.id)));
        }
        if self.config.connections == Connections::None {
            return self.hand_over(slot, arrival);
        }
        if dials && self.links.between(slot, from).is_none() {
            if here.addr != Addr::Memory(to) {
                return self.miss(arrival, Loss::NobodyThere, Some(unreachable("nobody listens there")));
            }
            if !self.lives(from as usize, arrival.from_life) {
                // A handshake with the dead does not come to an end.
                return self.miss(arrival, Loss::NobodyThere, None);
            }
        }
        match self.links.incoming(slot, from, generation, dials) {
            Incoming::Stray => return self.miss(arrival, Loss::NobodyThere, Some(unreachable("reset"))),
            Incoming::Known => {}
            Incoming::Opens => {
                let peer = arrival.peer;
                self.trace.record(self.now, slot, What::Up { with: from, generation });
                self.call(slot, |machine, now| machine.handle_link(now, Link::Up { peer, generation }));
            }
        }
        if dials {
            // Again for each frame of the dialler's first round trip: an earlier answer may have met a cut.
            self.answer(&arrival, Word::Accepted { by: to, peer: here, generation });
        }
        self.hand_over(slot, arrival);
    }

    fn hand_over(&mut self, slot: usize, arrival: Box<Arrival>) {
        let Arrival { from, peer, frame, note, .. } = *arrival;
        self.counters.on(&frame.header).delivered += 1;
        self.begin_frame(slot);
        self.trace.record(self.now, slot, What::Frame { from, note });
        self.handle_observed(slot, peer, frame);
        if happens(&mut self.mischief, self.config.spurious_timeouts) {
            self.time_out(slot, true);
        }
    }

    /// A frame is not taken in; its sender hears of it if `word` says why.
    fn miss(&mut self, arrival: Box<Arrival>, why: Loss, word: Option<Refusal>) {
        if let Some(reason) = word
            && self.config.connections == Connections::Kept
        {
            let Arrival { to, want, generation, dials, .. } = *arrival;
            let wrong = matches!(reason, Refusal::WrongId(_));
            let word = if dials || wrong {
                let dial = Some((to, generation));
                Word::Refused { dial, addr: Addr::Memory(to), id: want, reason }
            } else {
                Word::Closed { by: to, generation }
            };
            self.answer(&arrival, word);
        }
        self.lose(arrival.from as usize, arrival.to, &arrival.frame, arrival.note, why);
    }

    // News of connections. They pass cuts no more than frames do, but no dice are thrown for them.

    /// The host's answer to a frame, for the life that sent it.
    fn answer(&mut self, arrival: &Arrival, word: Word) {
        let (here, there) = (arrival.to as usize, arrival.from as usize);
        if self.lives(there, arrival.from_life) && !self.cuts.sever(here, there) {
            let delay = self.network.delay(here, there);
            self.notify(there, delay, word);
        }
    }

    /// Tells the other end of a connection that this one is gone, after the frames sent before.
    pub(super) fn close(&mut self, slot: usize, connection: Connection) {
        let other = connection.slot as usize;
        if other < self.slots.len() && !self.cuts.sever(slot, other) {
            let delay = self.network.slowest(slot, other);
            self.notify(other, delay, Word::Closed { by: slot as u32, generation: connection.generation });
        }
    }

    pub(super) fn notify(&mut self, slot: usize, delay: Duration, word: Word) {
        let notice = Notice { slot: slot as u32, life: self.slots[slot].life, word };
        self.queue.push(self.now + delay, Happening::Notice(Box::new(notice)));
    }

    pub(super) fn on_notice(&mut self, notice: Box<Notice>) {
        let slot = notice.slot as usize;
        if !self.lives(slot, notice.life) {
            return;
        }
        if self.slots[slot].state == SlotState::Paused {
            return self.slots[slot].backlog.push_back(Waiting::Notice(notice));
        }
        if let Some(free) = self.busy_until(slot) {
            return self.wait_until(slot, free, Waiting::Notice(notice));
        }
        match notice.word {
            Word::Accepted { by, peer, generation } => {
                if self.links.accepted(slot, by, generation) {
                    self.trace.record(self.now, slot, What::Up { with: by, generation });
                    self.call(slot, |machine, now| machine.handle_link(now, Link::Up { peer, generation }));
                }
            }
            Word::Closed { by, generation } => self.on_closed(slot, by, generation),
            Word::Refused { dial, addr, id, reason } => {
                let dialled = dial.is_none_or(|(by, generation)| self.links.refused(slot, by, generation));
                if dialled || matches!(reason, Refusal::WrongId(_)) {
                    self.on_refused(slot, addr, id, reason);
                }
            }
            Word::Queued(peer) => {
                if let Some(bytes) = self.uplink_level(slot, peer) {
                    self.trace.record(self.now, slot, What::Queued { bytes });
                    self.call(slot, |machine, now| machine.handle_queued(now, peer, bytes));
                }
            }
            Word::Stored(token) => {
                self.trace.record(self.now, slot, What::Stored { token: token.0 });
                self.call(slot, |machine, now| machine.handle_stored(now, token));
            }
        }
    }

    fn on_closed(&mut self, slot: usize, by: u32, generation: u64) {
        let Some(peer) = self.links.id(by as usize) else { return };
        match self.links.closed(slot, by, generation) {
            Some(Connection { up: true, .. }) => {
                self.trace.record(self.now, slot, What::Down { with: by, generation });
                self.call(slot, |machine, now| machine.handle_link(now, Link::Down { peer, generation }));
            }
            // The other side went before its answer came.
            Some(Connection { up: false, .. }) => {
                self.on_refused(slot, Addr::Memory(by), Some(peer), unreachable("reset"));
            }
            None => {}
        }
    }

    fn on_refused(&mut self, slot: usize, addr: Addr, id: Option<NodeId>, reason: Refusal) {
        self.trace.record(self.now, slot, What::Refused { why: words(&reason) });
        let link = Link::Refused { addr, id, reason };
        self.call(slot, |machine, now| machine.handle_link(now, link));
    }

    fn lives(&self, slot: usize, life: u32) -> bool {
        let room = &self.slots[slot];
        room.life == life && matches!(room.state, SlotState::Running | SlotState::Paused)
    }
}

/// Encode, decode, compare: what a node sends is what the other gets, or the wire is wrong.
fn through_the_wire(slot: usize, frame: Frame, head: &[u8]) -> (Frame, Bytes) {
    let mut bytes = BytesMut::with_capacity(head.len() + frame.payload.len());
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(&frame.payload);
    let bytes = bytes.freeze();
    match wire::decode(bytes.clone(), Addresses::Any) {
        Ok(decoded) if decoded == frame => (decoded, bytes.slice(..head.len())),
        Ok(decoded) => panic!("the wire changes a frame of slot {slot}:\n{frame:?}\nbecomes\n{decoded:?}"),
        Err(error) => panic!("a frame of slot {slot} does not decode ({error}):\n{frame:?}"),
    }
}

fn unreachable(why: &str) -> Refusal {
    Refusal::Unreachable(why.to_string())
}

fn words(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Unreachable(_) => "unreachable",
        Refusal::TimedOut => "timed out",
        Refusal::Protocol(_) => "protocol",
        Refusal::Network(_) => "network",
        Refusal::WrongId(_) => "wrong id",
        Refusal::Myself => "myself",
        Refusal::Twin(_) => "twin",
    }
}

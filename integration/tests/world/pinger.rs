//! The machine that the world's own tests run: it pings, and tells of all that it hears. It checks the caller's side of
//! the contract, too: time that never decreases, and everything drained.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::machine::{Destination, Link, Machine, Store, StoreToken, Transmit};
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::sides::Sides;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Direct, Frame, Header, NodeState, Probe, ProbeAck};

/// Answers probes, tells of all that it hears, and wakes when told.
pub(crate) struct Pinger {
    pub(crate) peer: Peer,
    last: Instant,
    alarm: Option<Alarm>,
    out: VecDeque<Transmit>,
    events: VecDeque<Heard>,
    stores: VecDeque<Store>,
    /// How many timeouts came that it had not asked for.
    pub(crate) spurious: u32,
    /// Calls since the last end of a turn.
    calls: u32,
    /// When the first of them was.
    began: Option<Instant>,
    /// How long turns took, and how many calls each had.
    pub(crate) turns: Vec<(Duration, u32)>,
}

#[derive(Clone)]
struct Alarm {
    at: Instant,
    again: Option<(Duration, Vec<Destination>)>,
}

pub(crate) enum Wish {
    Ping(Destination, u64),
    Say(Destination, Bytes),
    WakeAt(Option<Instant>),
    /// Ping these, again and again.
    Beat(Duration, Vec<Destination>),
    Keep(u64),
    /// Send what the wire does not know.
    Garble(Destination),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Ping(Peer, u64),
    Pong(NodeId, u64),
    Said(Bytes),
    Link(Link),
    Woke,
    Kept(u64),
    Queued(NodeId, usize),
}

impl Pinger {
    pub(crate) fn new(slot: usize) -> Pinger {
        let peer = Peer { id: id(slot), incarnation: 1, addr: Addr::Memory(slot as u32) };
        Pinger {
            peer,
            last: Instant::ZERO,
            alarm: None,
            out: VecDeque::new(),
            events: VecDeque::new(),
            stores: VecDeque::new(),
            spurious: 0,
            calls: 0,
            began: None,
            turns: Vec::new(),
        }
    }

    pub(crate) fn edge(slot: usize) -> Pinger {
        let mut pinger = Pinger::new(slot);
        pinger.peer.addr = Addr::Unreachable;
        pinger
    }

    pub(crate) fn restarted(slot: usize) -> Pinger {
        let mut pinger = Pinger::new(slot);
        pinger.peer.incarnation = 2;
        pinger
    }

    fn at(&mut self, now: Instant) {
        assert!(now >= self.last, "time ran backwards");
        assert!(self.out.is_empty() && self.events.is_empty() && self.stores.is_empty(), "not drained");
        self.last = now;
        self.calls += 1;
        self.began.get_or_insert(now);
    }

    fn send(&mut self, to: Destination, header: Header, payload: Bytes) {
        self.out.push_back(Transmit { to, frame: Frame::new(header, payload) });
    }

    fn ping(&mut self, to: Destination, number: u64) {
        let probe = Probe { number, node_state: NodeState::Ready, lease: Sides::None, leaf_set: false };
        self.send(to, Header::Probe(probe), Bytes::new());
    }
}

impl Machine for Pinger {
    type Command = Wish;
    type Event = Heard;

    fn peer(&self) -> Peer {
        self.peer
    }

    fn handle_command(&mut self, now: Instant, command: Wish) {
        self.at(now);
        match command {
            Wish::Ping(to, number) => self.ping(to, number),
            Wish::Say(to, payload) => self.send(to, Header::Direct(Direct::Payload), payload),
            Wish::WakeAt(at) => self.alarm = at.map(|at| Alarm { at, again: None }),
            Wish::Beat(period, friends) => {
                self.alarm = Some(Alarm { at: now + period, again: Some((period, friends)) })
            }
            Wish::Keep(token) => {
                let name = "record".to_string();
                self.stores.push_back(Store { token: StoreToken(token), name, bytes: Bytes::new() });
            }
            Wish::Garble(to) => self.send(to, Header::HopAck { hop: 1 }, Bytes::from_static(b"tail")),
        }
    }

    fn handle_frame(&mut self, now: Instant, from: Peer, frame: Frame) {
        self.at(now);
        if let Header::Probe(probe) = frame.header {
            self.events.push_back(Heard::Ping(from, probe.number));
            let ack = ProbeAck {
                number: probe.number,
                node_state: NodeState::Ready,
                lease: Sides::None,
                asks: None,
                leaf_set: None,
            };
            self.send(Destination::Peer(from), Header::ProbeAck(ack), Bytes::new());
        } else if let Header::ProbeAck(ack) = frame.header {
            self.events.push_back(Heard::Pong(from.id, ack.number));
        } else {
            self.events.push_back(Heard::Said(frame.payload));
        }
    }

    fn handle_link(&mut self, now: Instant, link: Link) {
        self.at(now);
        self.events.push_back(Heard::Link(link));
    }

    fn handle_queued(&mut self, now: Instant, peer: NodeId, bytes: usize) {
        self.at(now);
        self.events.push_back(Heard::Queued(peer, bytes));
    }

    fn handle_stored(&mut self, now: Instant, token: StoreToken) {
        self.at(now);
        self.events.push_back(Heard::Kept(token.0));
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.at(now);
        let Some(alarm) = self.alarm.take_if(|alarm| alarm.at <= now) else {
            self.spurious += 1;
            return;
        };
        self.events.push_back(Heard::Woke);
        if let Some((period, friends)) = alarm.again {
            friends.iter().for_each(|&friend| self.ping(friend, now.as_nanos()));
            self.alarm = Some(Alarm { at: now + period, again: Some((period, friends)) });
        }
    }

    fn handle_turn_end(&mut self, now: Instant) {
        let (calls, began) = (self.calls, self.began);
        self.at(now);
        (self.calls, self.began) = (0, None);
        self.turns.push((now - began.unwrap_or(now), calls));
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.out.pop_front()
    }

    fn poll_event(&mut self) -> Option<Heard> {
        self.events.pop_front()
    }

    fn poll_store(&mut self) -> Option<Store> {
        self.stores.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.alarm.as_ref().map(|alarm| alarm.at)
    }
}

pub(crate) fn id(slot: usize) -> NodeId {
    NodeId(slot as u128 + 100)
}

pub(crate) fn to(slot: usize) -> Destination {
    Destination::Peer(Pinger::new(slot).peer)
}

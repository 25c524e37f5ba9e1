//! The driver runs a machine: commands in, frames between, events and records out, and an orderly end.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::timeout;
use treecast_overlay::id::NodeId;
use treecast_overlay::machine::{Destination, Link, Machine, Store, StoreToken, Transmit};
use treecast_overlay::net::memory::MemoryOptions;
use treecast_overlay::net::{Clock, Handle, MemoryNetwork, Transport, spawn};
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Frame, Header};

const SOON: Duration = Duration::from_secs(30);

/// Does one thing of each kind.
struct Parrot {
    peer: Peer,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Said>,
    stores: VecDeque<Store>,
    deadline: Option<Instant>,
    /// If it gathers what it hears until a turn ends: what it has heard in this one, how often and how much.
    gathers: Option<Option<(u64, u64)>>,
}

enum Do {
    Send(Peer, u64),
    Store(&'static str, &'static [u8]),
    WakeAfter(Duration),
    /// From now on frames are told of when a turn ends.
    Gather,
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Heard(NodeId, u64),
    Up(NodeId),
    Down(NodeId),
    Stored(u64),
    Woke(bool),
    Gathered((u64, u64)),
}

impl Machine for Parrot {
    type Command = Do;
    type Event = Said;

    fn peer(&self) -> Peer {
        self.peer
    }

    fn handle_command(&mut self, now: Instant, command: Do) {
        match command {
            Do::Send(peer, hop) => {
                let to = Destination::Peer(peer);
                self.transmits.push_back(Transmit { to, frame: Header::HopAck { hop }.into() });
            }
            Do::Store(name, bytes) => {
                let token = StoreToken(bytes.len() as u64);
                self.stores.push_back(Store { token, name: name.into(), bytes: Bytes::from_static(bytes) });
            }
            Do::Gather => self.gathers = Some(None),
            Do::WakeAfter(after) => self.deadline = Some(now + after),
        }
    }

    fn handle_frame(&mut self, _: Instant, from: Peer, frame: Frame) {
        if let Header::HopAck { hop } = frame.header {
            match &mut self.gathers {
                Some(gathered) => {
                    let (count, sum) = gathered.get_or_insert_default();
                    (*count, *sum) = (*count + 1, *sum + hop);
                }
                None => self.events.push_back(Said::Heard(from.id, hop)),
            }
        }
    }

    fn handle_link(&mut self, _: Instant, link: Link) {
        match link {
            Link::Up { peer, .. } => self.events.push_back(Said::Up(peer.id)),
            Link::Down { peer, .. } => self.events.push_back(Said::Down(peer)),
            Link::Refused { .. } => panic!("{link:?}"),
        }
    }

    fn handle_queued(&mut self, _: Instant, _: NodeId, _: usize) {}

    fn handle_stored(&mut self, _: Instant, token: StoreToken) {
        self.events.push_back(Said::Stored(token.0));
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(deadline) = self.deadline.take() {
            self.events.push_back(Said::Woke(now >= deadline));
        }
    }

    fn handle_turn_end(&mut self, _: Instant) {
        if let Some(sum) = self.gathers.as_mut().and_then(Option::take) {
            self.events.push_back(Said::Gathered(sum));
        }
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    fn poll_event(&mut self) -> Option<Said> {
        self.events.pop_front()
    }

    fn poll_store(&mut self) -> Option<Store> {
        self.stores.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }
}

struct Running {
    peer: Peer,
    handle: Handle<Do>,
    said: mpsc::UnboundedReceiver<Said>,
}

impl Running {
    fn start(network: &MemoryNetwork, number: u128, store_in: Option<&std::path::Path>) -> Running {
        let id = NodeId(number);
        let transport = network.bind(id, MemoryOptions::new("test"));
        let addr: Addr = transport.local_addr();
        let peer = Peer { id, incarnation: 1, addr };
        let machine = Parrot {
            peer,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            stores: VecDeque::new(),
            deadline: None,
            gathers: None,
        };
        let (tell, said) = mpsc::unbounded_channel();
        let store_in = store_in.map(std::path::Path::to_owned);
        let handle = spawn(machine, transport, Clock::start(), store_in, move |event| {
            let _ = tell.send(event);
        });
        Running { peer, handle, said }
    }

    async fn says(&mut self) -> Said {
        timeout(SOON, self.said.recv()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn frames_pass_between_machines_in_order() {
    let network = MemoryNetwork::new();
    let (mut a, mut b) = (Running::start(&network, 1, None), Running::start(&network, 2, None));
    for n in 0..3000 {
        a.handle.send(Do::Send(b.peer, n)).await.unwrap();
    }
    assert_eq!(b.says().await, Said::Up(a.peer.id));
    for n in 0..3000 {
        assert_eq!(b.says().await, Said::Heard(a.peer.id, n));
    }
    assert_eq!(a.says().await, Said::Up(b.peer.id));
    // Stopping sends what is on its way, and is seen by all who hold a handle and by the peer.
    let other = a.handle.clone();
    a.handle.send(Do::Send(b.peer, 3000)).await.unwrap();
    while a.handle.try_send(Do::WakeAfter(Duration::from_secs(3600))).is_err() {}
    assert_eq!(b.says().await, Said::Heard(a.peer.id, 3000));
    a.handle.shutdown().await;
    assert!(other.is_stopped());
    assert!(other.send(Do::Send(b.peer, 1)).await.is_err());
    assert_eq!(b.says().await, Said::Down(a.peer.id));
}

#[tokio::test]
async fn a_batch_of_frames_is_one_turn() {
    let network = MemoryNetwork::new();
    let (a, mut b) = (Running::start(&network, 1, None), Running::start(&network, 2, None));
    b.handle.send(Do::Gather).await.unwrap();
    for n in 0..3000 {
        a.handle.send(Do::Send(b.peer, n)).await.unwrap();
    }
    assert_eq!(b.says().await, Said::Up(a.peer.id));
    let (mut turns, mut heard, mut sum) = (0, 0, 0);
    while heard < 3000 {
        let Said::Gathered((count, hops)) = b.says().await else { panic!("nothing else is told") };
        assert!(count <= 256, "{count} frames in one turn");
        (turns, heard, sum) = (turns + 1, heard + count, sum + hops);
    }
    assert_eq!((heard, sum), (3000, 2999 * 1500));
    assert!(turns < 1000, "{turns} turns: nothing was gathered");
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_machine() {
    let network = MemoryNetwork::new();
    let (a, mut b) = (Running::start(&network, 1, None), Running::start(&network, 2, None));
    a.handle.send(Do::Send(b.peer, 1)).await.unwrap();
    let id = a.peer.id;
    drop(a);
    assert_eq!(b.says().await, Said::Up(id));
    assert_eq!(b.says().await, Said::Heard(id, 1));
    assert_eq!(b.says().await, Said::Down(id));
}

#[tokio::test]
async fn deadlines_ring_neither_early_nor_never() {
    let network = MemoryNetwork::new();
    let mut a = Running::start(&network, 1, None);
    a.handle.send(Do::WakeAfter(Duration::from_secs(3600))).await.unwrap();
    for millis in [1, 700, 20] {
        a.handle.send(Do::WakeAfter(Duration::from_millis(millis))).await.unwrap();
        assert_eq!(a.says().await, Said::Woke(true));
    }
}

#[tokio::test]
async fn records_are_on_disk_when_the_machine_hears_so() {
    let directory = tempfile::tempdir().unwrap();
    let network = MemoryNetwork::new();
    let mut a = Running::start(&network, 1, Some(directory.path()));
    for bytes in [&b"first"[..], b"second"] {
        a.handle.send(Do::Store("log/1", bytes)).await.unwrap();
        assert_eq!(a.says().await, Said::Stored(bytes.len() as u64));
        assert_eq!(std::fs::read(directory.path().join("log%2f1")).unwrap(), bytes);
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

//! The part that all transports share: which peers are connected, which are being dialled, and which of two connections is kept.
//!
//! Of two connections between the same nodes the node with the smaller id keeps the newer one, and tells the other
//! side; the older one is drained and dropped without a `Down`. (Design §7 has both sides keep the one that the
//! smaller id dialled. One side deciding cannot disagree with itself, and keeping the newer one lets a node that has
//! lost a connection dial again at once while the other side still believes in the old one.)

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::connection::{self, GREETING, Greeted, Notice, Order};
use super::inbox::Inbox;
use super::pipe::Pipe;
use super::queue::{Pushed, Queue};
use super::transport::{CLOSE_WITHIN, Limits, TransportEvent};
use crate::id::NodeId;
use crate::machine::{Destination, Link, Refusal};
use crate::peer::{Addr, Peer, Seed};
use crate::wire::{Frame, Hello};

/// Addresses that may be dialled at once for one peer; further ones are refused.
const DIALS_PER_PEER: usize = 4;

/// One in so many connections is kept for this node's own dials: strangers that open connections do not cut it off from
/// its ring, and a peer that makes it dial (by naming nodes that do not exist) does not keep others out.
const DIALLED_SHARE: usize = 4;

/// Frames that a transport did not send, since its start.
#[derive(Debug, Default)]
pub struct Dropped {
    oversized: AtomicU64,
    data: AtomicU64,
    control: AtomicU64,
}

impl Dropped {
    /// Frames over the frame limit.
    pub fn oversized(&self) -> u64 {
        self.oversized.load(Ordering::Relaxed)
    }

    /// Data frames for which there was no room in their peer's queue.
    pub fn data(&self) -> u64 {
        self.data.load(Ordering::Relaxed)
    }

    /// Control frames for which there was no room in their peer's queue; its connection was closed.
    pub fn control(&self) -> u64 {
        self.control.load(Ordering::Relaxed)
    }

    /// Counts, and says whether this one is worth a log line: the first, and at every doubling.
    fn count(counter: &AtomicU64) -> Option<u64> {
        let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
        count.is_power_of_two().then_some(count)
    }
}

/// A transport, whatever carries its bytes.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) me: NodeId,
    pub(super) hello: Hello,
    pub(super) limits: Limits,
    pub(super) idle_after: Duration,
    pub(super) max_connections: usize,
}

/// Makes connections.
pub(super) trait Dialler: Send + Sync + 'static {
    /// A connection to `addr`, any TLS handshake made, and the node that is there.
    fn dial(
        &self,
        shared: &Shared,
        addr: Addr,
    ) -> impl Future<Output = Result<(Pipe, NodeId, Option<IpAddr>), Refusal>> + Send;
}

/// The state that a transport's tasks share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) me: NodeId,
    pub(super) hello: Hello,
    pub(super) limits: Limits,
    pub(super) idle_after: Duration,
    pub(super) inbox: Inbox,
    pub(super) dropped: Arc<Dropped>,
    /// One permit for each connection that others opened, greeted or not.
    pub(super) incoming: Arc<Semaphore>,
    /// One permit for each connection that this node dials or has dialled.
    outgoing: Arc<Semaphore>,
    closing: watch::Sender<bool>,
    connection: AtomicU64,
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Shared {
    pub(super) fn next_connection(&self) -> u64 {
        self.connection.fetch_add(1, Ordering::Relaxed)
    }

    /// Becomes true when the transport closes.
    pub(super) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Runs a task that ends with the transport, at the latest.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(tasks) = &mut *self.tasks() {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(task);
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs an incoming connection, of which `greet` makes the handshake, to its end.
    pub(super) async fn welcome(
        self: Arc<Self>,
        from: Addr,
        ip: Option<IpAddr>,
        handshake: impl Future<Output = Result<(Pipe, NodeId), Refusal>>,
        half_open: Option<OwnedSemaphorePermit>,
    ) {
        let greeting = async {
            let (mut pipe, id) = handshake.await?;
            let peer = connection::greet(&mut pipe, &self, id, ip).await?;
            self.not_myself(&peer)?;
            Ok((pipe, peer))
        };
        let mut closing = self.closing();
        let greeted = tokio::select! {
            greeted = timeout(GREETING, greeting) => greeted.unwrap_or(Err(Refusal::TimedOut)),
            () = connection::set(&mut closing) => return,
        };
        drop(half_open);
        match greeted {
            Ok((pipe, peer)) => connection::run(self, pipe, peer, None).await,
            Err(Refusal::Myself) => tracing::debug!(%from, "refused a connection from this node itself"),
            // Nodes of several networks on one machine ask each other's ports all the time; the dialler hears why.
            Err(reason @ Refusal::Network(_)) => {
                tracing::debug!(%from, "refused an incoming connection: the other side {reason}");
            }
            Err(reason) => {
                let network = &self.hello.network;
                tracing::warn!(%from, network, "refused an incoming connection: the other side {reason}");
            }
        }
    }

    /// A node does not talk to its own key: that is itself, or another process that has its identity.
    fn not_myself(&self, peer: &Peer) -> Result<(), Refusal> {
        match peer.incarnation == self.hello.incarnation {
            _ if peer.id != self.me => Ok(()),
            true => Err(Refusal::Myself),
            false => Err(Refusal::Twin(peer.incarnation)),
        }
    }

    async fn dial(self: Arc<Self>, dialler: Arc<impl Dialler>, seed: Seed) {
        let mut closing = self.closing();
        let greeting = async {
            let permit = self.outgoing.clone().try_acquire_owned().map_err(|_| {
                Refusal::Unreachable("this node already dials as many nodes as it may".into())
            })?;
            let (mut pipe, id, ip) = dialler.dial(&self, seed.addr).await?;
            if seed.id.is_some_and(|wanted| wanted != id) {
                connection::part(&mut pipe).await;
                return Err(Refusal::WrongId(id));
            }
            let peer = timeout(GREETING, connection::greet(&mut pipe, &self, id, ip));
            let peer = peer.await.unwrap_or(Err(Refusal::TimedOut))?;
            self.not_myself(&peer)?;
            Ok((permit, pipe, peer))
        };
        let greeted = tokio::select! {
            greeted = greeting => greeted,
            () = connection::set(&mut closing) => return,
        };
        match greeted {
            Ok((_permit, pipe, peer)) => connection::run(self.clone(), pipe, peer, Some(seed)).await,
            Err(reason) => self.inbox.put_one(Notice::Refused { seed, reason }),
        }
    }
}

/// A connection that carries a peer's frames.
#[derive(Debug)]
struct Current {
    connection: u64,
    generation: u64,
    /// The bare address that this node dialled, if it did.
    dialled: Option<Addr>,
    orders: mpsc::Sender<Order>,
}

/// A peer that is connected or being dialled.
#[derive(Debug)]
struct MeshPeer {
    addr: Addr,
    queue: Arc<Queue>,
    current: Option<Current>,
    dials: Vec<Addr>,
}

/// The transport's owner's side: all decisions are made here, one after the other.
#[derive(Debug)]
pub(super) struct Mesh<D> {
    pub(super) shared: Arc<Shared>,
    dialler: Arc<D>,
    peers: BTreeMap<NodeId, MeshPeer>,
    /// Bare addresses being dialled, and what waits for the node that answers there.
    strangers: BTreeMap<Addr, Arc<Queue>>,
    /// Bare addresses that have been dialled and whose connection lives.
    answered: BTreeMap<Addr, NodeId>,
    /// Greeted connections for which the other side, having the smaller id, is to decide.
    undecided: BTreeMap<u64, Greeted>,
    dirty: Vec<Arc<Queue>>,
    events: Vec<TransportEvent>,
    generation: u64,
}

impl<D> Drop for Mesh<D> {
    fn drop(&mut self) {
        // The tasks hold what is shared, and their own set within it: only taking it out ends them.
        self.shared.tasks().take();
    }
}

impl<D: Dialler> Mesh<D> {
    pub(super) fn new(settings: Settings, dialler: D) -> Mesh<D> {
        let outgoing = (settings.max_connections / DIALLED_SHARE).max(1);
        let incoming = settings.max_connections.saturating_sub(outgoing).max(1);
        let shared = Arc::new(Shared {
            me: settings.me,
            hello: settings.hello,
            limits: settings.limits,
            idle_after: settings.idle_after,
            inbox: Inbox::default(),
            dropped: Arc::default(),
            incoming: Arc::new(Semaphore::new(incoming)),
            outgoing: Arc::new(Semaphore::new(outgoing)),
            closing: watch::channel(false).0,
            connection: AtomicU64::new(0),
            tasks: Mutex::new(Some(JoinSet::new())),
        });
        Mesh {
            shared,
            dialler: Arc::new(dialler),
            peers: BTreeMap::new(),
            strangers: BTreeMap::new(),
            answered: BTreeMap::new(),
            undecided: BTreeMap::new(),
            dirty: Vec::new(),
            events: Vec::new(),
            generation: 0,
        }
    }

    pub(super) fn send(&mut self, to: Destination, frame: &Frame) {
        let seed = match to {
            Destination::Peer(peer) => Seed::from(peer),
            Destination::Seed(seed) => seed,
        };
        match seed.id.or_else(|| self.answered.get(&seed.addr).copied()) {
            Some(id) if id == self.shared.me => self.refuse(seed, Refusal::Myself),
            Some(id) => self.send_to_peer(id, seed.addr, frame),
            None => self.send_to_stranger(seed.addr, frame),
        }
    }

    fn send_to_peer(&mut self, id: NodeId, addr: Addr, frame: &Frame) {
        let connected = self.peers.get(&id).is_some_and(|entry| entry.current.is_some());
        if !connected && !self.dial_peer(id, addr) {
            return;
        }
        if let Some(entry) = self.peers.get(&id) {
            let queue = entry.queue.clone();
            self.push(Some(id), &queue, frame);
        }
    }

    /// Sees to it that a peer without a connection is dialled at `addr`; false if that is refused.
    fn dial_peer(&mut self, id: NodeId, addr: Addr) -> bool {
        let entry = self.peers.get(&id);
        if entry.is_some_and(|entry| entry.dials.contains(&addr)) {
            return true;
        }
        let seed = Seed { addr, id: Some(id) };
        if addr == Addr::Unreachable {
            if entry.is_some() {
                // It is being dialled elsewhere.
                return true;
            }
            let why = "it has no address of its own, and has not connected to this node";
            self.refuse(seed, Refusal::Unreachable(why.into()));
            return false;
        }
        if entry.is_some_and(|entry| entry.dials.len() >= DIALS_PER_PEER) {
            self.refuse(seed, Refusal::Unreachable("it is being dialled at other addresses".into()));
            return false;
        }
        let new = || MeshPeer { addr, queue: Arc::default(), current: None, dials: Vec::new() };
        self.peers.entry(id).or_insert_with(new).dials.push(addr);
        self.shared.spawn(self.shared.clone().dial(self.dialler.clone(), seed));
        true
    }

    fn send_to_stranger(&mut self, addr: Addr, frame: &Frame) {
        if addr == Addr::Unreachable {
            return self.refuse(addr.into(), Refusal::Unreachable("it is no address".into()));
        }
        let queue = match self.strangers.get(&addr) {
            Some(queue) => queue.clone(),
            None => {
                self.shared.spawn(self.shared.clone().dial(self.dialler.clone(), addr.into()));
                self.strangers.entry(addr).or_default().clone()
            }
        };
        self.push(None, &queue, frame);
    }

    fn refuse(&mut self, seed: Seed, reason: Refusal) {
        tracing::debug!(%seed, "dialling came to nothing: the other side {reason}");
        self.events.push(TransportEvent::Link(Link::Refused { addr: seed.addr, id: seed.id, reason }));
    }

    fn push(&mut self, peer: Option<NodeId>, queue: &Arc<Queue>, frame: &Frame) {
        let dropped = self.shared.dropped.clone();
        let whom = peer.map(tracing::field::display);
        match queue.push(frame, &self.shared.limits) {
            Pushed::Queued { first, level } => {
                if first {
                    self.dirty.push(queue.clone());
                }
                self.events
                    .extend(peer.zip(level).map(|(peer, bytes)| TransportEvent::Queued { peer, bytes }));
            }
            Pushed::TooLarge { len } => {
                let limit = self.shared.limits.max_frame;
                let total = Dropped::count(&dropped.oversized);
                tracing::error!(peer = whom, len, limit, total, "dropped a frame over the frame limit");
            }
            Pushed::DataFull => {
                if let Some(total) = Dropped::count(&dropped.data) {
                    tracing::warn!(peer = whom, total, "dropped a data frame: the peer's queue is full");
                }
            }
            Pushed::ControlFull => {
                let total = Dropped::count(&dropped.control);
                tracing::warn!(peer = whom, total, "the peer does not read: its control queue is full");
                if let Some(id) = peer {
                    self.abort(id);
                }
            }
        }
    }

    fn abort(&mut self, id: NodeId) {
        let current = self.peers.get(&id).and_then(|entry| entry.current.as_ref());
        if let Some(current) = current {
            let _ = current.orders.try_send(Order::Abort);
            let connection = current.connection;
            self.on_ended(connection, id, false);
        }
    }

    pub(super) fn flush(&mut self) {
        self.dirty.drain(..).for_each(|queue| queue.wake());
    }

    /// Cancel-safe: notices are taken and handled without a pause between.
    pub(super) async fn next(&mut self) -> Vec<TransportEvent> {
        self.flush();
        loop {
            for notice in self.shared.inbox.take() {
                self.on_notice(notice);
            }
            let level = self.shared.inbox.level();
            self.events.extend(level.map(|bytes| TransportEvent::Queued { peer: self.shared.me, bytes }));
            self.flush();
            if !self.events.is_empty() {
                return std::mem::take(&mut self.events);
            }
            self.shared.inbox.arrived().await;
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Event(event) => self.events.push(event),
            Notice::Greeted(greeted) if self.shared.me < greeted.peer.id => self.adopt(greeted, true),
            Notice::Greeted(greeted) => {
                self.undecided.insert(greeted.connection, greeted);
            }
            Notice::Accepted { connection } => {
                if let Some(greeted) = self.undecided.remove(&connection) {
                    self.adopt(greeted, false);
                }
            }
            Notice::Drained { peer } => {
                let bytes = self.peers.get(&peer).and_then(|entry| entry.queue.level());
                self.events.extend(bytes.map(|bytes| TransportEvent::Queued { peer, bytes }));
            }
            Notice::Ended { connection, peer, quietly } => self.on_ended(connection, peer, quietly),
            Notice::Refused { seed, reason } => self.on_refused(seed, reason),
        }
    }

    /// A connection was decided for: it carries the peer's frames from now on.
    fn adopt(&mut self, greeted: Greeted, tell: bool) {
        let Greeted { connection, peer, dialled, orders } = greeted;
        self.generation += 1;
        let generation = self.generation;
        let new = || MeshPeer { addr: peer.addr, queue: Arc::default(), current: None, dials: Vec::new() };
        let entry = self.peers.entry(peer.id).or_insert_with(new);
        entry.addr = peer.addr;
        let bare = dialled.filter(|seed| seed.id.is_none()).map(|seed| seed.addr);
        match (dialled, bare) {
            (_, Some(addr)) => {
                if let Some(waiting) = self.strangers.remove(&addr) {
                    entry.queue.absorb(&waiting);
                }
                self.answered.insert(addr, peer.id);
            }
            (Some(seed), None) => entry.dials.retain(|addr| *addr != seed.addr),
            (None, None) => {}
        }
        let _ = orders.try_send(Order::Carry { queue: entry.queue.clone(), tell });
        entry.queue.wake();
        let current = Current { connection, generation, dialled: bare, orders };
        if let Some(old) = entry.current.replace(current) {
            let _ = old.orders.try_send(Order::Retire);
            if let Some(addr) = old.dialled.filter(|addr| Some(*addr) != bare) {
                self.answered.remove(&addr);
            }
        }
        tracing::debug!(peer = %peer.id, addr = %peer.addr, generation, "connected");
        self.events.push(TransportEvent::Link(Link::Up { peer, generation }));
    }

    fn on_ended(&mut self, connection: u64, id: NodeId, quietly: bool) {
        if let Some(Greeted { dialled: Some(seed), .. }) = self.undecided.remove(&connection) {
            let why = "it closed the connection before it was used";
            return self.on_refused(seed, Refusal::Unreachable(why.into()));
        }
        let Some(entry) = self.peers.get_mut(&id) else { return };
        let Some(current) = entry.current.take_if(|current| current.connection == connection) else { return };
        if let Some(addr) = current.dialled {
            self.answered.remove(&addr);
        }
        let addr = entry.addr;
        if quietly && addr != Addr::Unreachable {
            tracing::debug!(peer = %id, generation = current.generation, "closed an idle connection");
            if !entry.queue.is_empty() {
                self.dial_peer(id, addr);
            }
        } else {
            tracing::debug!(peer = %id, generation = current.generation, "a connection broke");
            let down = Link::Down { peer: id, generation: current.generation };
            self.events.push(TransportEvent::Link(down));
            self.clear(id);
        }
        self.forget_if_unused(id);
    }

    fn on_refused(&mut self, seed: Seed, reason: Refusal) {
        match seed.id {
            None => {
                self.strangers.remove(&seed.addr);
            }
            Some(id) => {
                if let Some(entry) = self.peers.get_mut(&id) {
                    entry.dials.retain(|addr| *addr != seed.addr);
                    if entry.current.is_none() && entry.dials.is_empty() {
                        self.clear(id);
                        self.forget_if_unused(id);
                    }
                }
            }
        }
        self.refuse(seed, reason);
    }

    fn clear(&mut self, id: NodeId) {
        let level = self.peers.get(&id).and_then(|entry| entry.queue.clear());
        self.events.extend(level.map(|bytes| TransportEvent::Queued { peer: id, bytes }));
    }

    fn forget_if_unused(&mut self, id: NodeId) {
        let unused = |entry: &MeshPeer| entry.current.is_none() && entry.dials.is_empty();
        if self.peers.get(&id).is_some_and(unused) {
            self.peers.remove(&id);
        }
    }

    pub(super) async fn close(mut self) {
        let deadline = Instant::now() + CLOSE_WITHIN;
        let connected = timeout_at(deadline, self.connect_all()).await.is_ok();
        self.shared.closing.send_replace(true);
        let tasks = self.shared.tasks().take();
        let Some(mut tasks) = tasks else { return };
        let ended = timeout_at(deadline, async { while tasks.join_next().await.is_some() {} }).await.is_ok();
        if !(connected && ended) {
            tracing::debug!("closed before all was sent: some peers do not answer, or do not read");
        }
        tasks.shutdown().await;
    }

    /// Waits until whatever is queued has a connection to leave by, or never will.
    async fn connect_all(&mut self) {
        loop {
            self.flush();
            for notice in self.shared.inbox.take_all() {
                self.on_notice(notice);
            }
            self.events.clear();
            let waits = |entry: &MeshPeer| entry.current.is_none() && !entry.queue.is_empty();
            if self.strangers.is_empty() && !self.peers.values().any(waits) {
                return self.flush();
            }
            self.shared.inbox.arrived().await;
        }
    }
}

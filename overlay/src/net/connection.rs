//! One connection: the greeting, then a task that sends, receives, idles, and says goodbye.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, timeout};

use super::mesh::Shared;
use super::pipe::Pipe;
use super::queue::{Queue, Unit};
use super::records::{self, Goodbye, Record};
use super::transport::TransportEvent;
use crate::id::NodeId;
use crate::machine::Refusal;
use crate::peer::{Addr, Peer, Seed};
use crate::wire::{Hello, HelloError};

/// How long a greeting may take, TLS handshake included, and how long the node with the smaller id may take to
/// decide for a greeted connection.
pub(super) const GREETING: Duration = Duration::from_secs(5);
/// How long a connection that has said goodbye waits for the other side's.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a refused or finished connection tries to tell the other side why.
const FAREWELL: Duration = Duration::from_secs(1);
/// How long a replaced connection waits for its successor before its peer counts as unconnected.
const SUCCESSION: Duration = Duration::from_secs(1);
/// Plain bytes handed to the coding at once. With TCP_NOTSENT_LOWAT this bounds what control waits behind.
const WRITE: usize = 64 * 1024;

/// A notice of a connection's task to the transport's owner.
#[derive(Debug)]
pub(super) enum Notice {
    /// Passed on as it is.
    Event(TransportEvent),
    /// A connection has been greeted.
    Greeted(Greeted),
    /// The other side, having the smaller id, decided for this connection.
    Accepted {
        /// Which.
        connection: u64,
    },
    /// The data that waits for a peer has become less by a step.
    Drained {
        /// The receiver.
        peer: NodeId,
    },
    /// A connection takes no more frames, or is no more.
    Ended {
        /// Which.
        connection: u64,
        /// The other side.
        peer: NodeId,
        /// Not by a break, but because it was idle or replaced.
        quietly: bool,
    },
    /// A dial came to nothing.
    Refused {
        /// The address that was dialled.
        seed: Seed,
        /// Why.
        reason: Refusal,
    },
}

/// A connection that knows its peer.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) connection: u64,
    pub(super) peer: Peer,
    /// The address that this node dialled, if it did.
    pub(super) dialled: Option<Seed>,
    pub(super) orders: mpsc::Sender<Order>,
}

/// An order of the transport's owner to a connection's task.
#[derive(Debug)]
pub(super) enum Order {
    /// Carry this queue's frames.
    Carry {
        /// The peer's queue.
        queue: Arc<Queue>,
        /// This node has decided so, and is to tell the other side.
        tell: bool,
    },
    /// Another connection takes over.
    Retire,
    /// Break off: the peer does not read.
    Abort,
}

/// Exchanges greetings; gives the peer, or why there is none.
pub(super) async fn greet(
    pipe: &mut Pipe,
    shared: &Shared,
    id: NodeId,
    from: Option<IpAddr>,
) -> Result<Peer, Refusal> {
    let greeting = exchange(pipe, &shared.hello).await?;
    let hello = Hello::decode(&greeting).map_err(|error| match error {
        HelloError::NotTreecast | HelloError::Version { .. } | HelloError::Malformed => {
            Refusal::Protocol(error.to_string())
        }
    });
    let refusal = match hello {
        Ok(hello) if hello.network == shared.hello.network => {
            return Ok(Peer { id, incarnation: hello.incarnation, addr: seen_at(hello.listens, from) });
        }
        Ok(hello) => Refusal::Network(hello.network),
        Err(refusal) => refusal,
    };
    part(pipe).await;
    Err(refusal)
}

async fn exchange(pipe: &mut Pipe, hello: &Hello) -> Result<bytes::Bytes, Refusal> {
    while pipe.is_handshaking() {
        progress(pipe).await?;
    }
    let word = Unit::word(records::hello(&hello.encode()));
    pipe.write(&[word]).map_err(|error| Refusal::Protocol(error.to_string()))?;
    while pipe.records.is_empty() || pipe.has_unsent() {
        progress(pipe).await?;
    }
    match pipe.records.remove(0) {
        Record::Hello(greeting) => Ok(greeting),
        Record::Accept | Record::Goodbye(_) | Record::Frame(_) => {
            Err(Refusal::Protocol("its first record is no greeting".into()))
        }
    }
}

/// Sends and reads while a greeting goes on.
pub(super) async fn progress(pipe: &mut Pipe) -> Result<(), Refusal> {
    let closed = || Refusal::Protocol("it closed the connection during the greeting".into());
    if pipe.is_closed() {
        return Err(closed());
    }
    match pipe.progress(true).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Refusal::Protocol(error.to_string())),
        Err(_) => Err(closed()),
    }
}

/// Closes a connection that has come to nothing, so that what was said arrives: an unread byte here would make the
/// system take back what it has not delivered.
pub(super) async fn part(pipe: &mut Pipe) {
    let _ = timeout(FAREWELL, async {
        pipe.close().await?;
        while !pipe.is_closed() {
            pipe.progress(true).await?;
            pipe.records.clear();
        }
        io::Result::Ok(())
    })
    .await;
}

/// An unspecified IP means the one that the peer is seen at; what can be no address is none.
fn seen_at(listens: Addr, from: Option<IpAddr>) -> Addr {
    match (listens, from) {
        (Addr::Socket(addr), _) if addr.port() == 0 => Addr::Unreachable,
        (Addr::Socket(addr), Some(from)) if addr.ip().is_unspecified() => {
            SocketAddr::from((from, addr.port())).into()
        }
        (Addr::Socket(_), Some(_)) | (Addr::Memory(_), None) => listens,
        (Addr::Socket(_), None) | (Addr::Memory(_), Some(_)) | (Addr::Unreachable, _) => Addr::Unreachable,
    }
}

/// Runs a greeted connection to its end.
pub(super) async fn run(shared: Arc<Shared>, pipe: Pipe, peer: Peer, dialled: Option<Seed>) {
    let id = shared.next_connection();
    let (order_sender, orders) = mpsc::channel(4);
    let greeted = Greeted { connection: id, peer, dialled, orders: order_sender };
    shared.inbox.put_one(Notice::Greeted(greeted));
    let reachable = |addr: Addr| addr != Addr::Unreachable;
    let idles = reachable(peer.addr) && reachable(shared.hello.listens);
    let mut connection = Connection {
        id,
        peer,
        pipe,
        orders,
        queue: None,
        phase: LinkPhase::Undecided,
        heard: Instant::now(),
        timer: Box::pin(tokio::time::sleep(GREETING)),
        closing: shared.closing(),
        idle_after: idles.then_some(shared.idle_after),
        units: Vec::new(),
        notices: Vec::new(),
        shared,
    };
    let quietly = match connection.serve().await {
        Ok(()) => connection.finish().await,
        Err(error) => {
            connection.log_break(&error);
            false
        }
    };
    if let Some(queue) = &connection.queue {
        queue.release(id);
    }
    connection.shared.inbox.put_one(Notice::Ended { connection: id, peer: peer.id, quietly });
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkPhase {
    /// Greeted; neither side has decided for it yet.
    Undecided,
    /// Frames pass.
    Open,
    /// This side is about to say goodbye, as soon as the data frame that it is inside of is sent; on shutdown, all.
    Leaving(Goodbye),
    /// This side has said goodbye, and waits for the other's.
    Parting(Goodbye),
    /// The other side has said goodbye: this side answers as soon as the data frame that it is inside of is sent.
    Left(Goodbye),
    /// Both have said goodbye.
    Over(Goodbye),
}

struct Connection {
    id: u64,
    peer: Peer,
    shared: Arc<Shared>,
    pipe: Pipe,
    orders: mpsc::Receiver<Order>,
    queue: Option<Arc<Queue>>,
    phase: LinkPhase,
    /// When a frame last passed, either way.
    heard: Instant,
    /// Rings when the phase has lasted too long; in `Open`, when it is time to look for idleness.
    timer: Pin<Box<Sleep>>,
    closing: watch::Receiver<bool>,
    /// `None`: never, as one of the two could not be dialled again.
    idle_after: Option<Duration>,
    units: Vec<Unit>,
    notices: Vec<Notice>,
}

impl Connection {
    /// Carries frames until both sides have said goodbye; an error is a break.
    async fn serve(&mut self) -> io::Result<()> {
        // The bytes that came close behind the greeting.
        self.on_progress(0)?;
        loop {
            self.fill()?;
            if matches!(self.phase, LinkPhase::Over(_)) {
                return Ok(());
            }
            let reads = !self.shared.inbox.is_full();
            let takes = self.phase == LinkPhase::Open && !self.pipe.has_unsent();
            let shared = self.shared.clone();
            tokio::select! {
                came = self.pipe.progress(reads) => self.on_progress(came?)?,
                () = ready(self.queue.as_deref()), if takes => {}
                Some(order) = self.orders.recv() => self.on_order(order)?,
                () = shared.inbox.room(), if !reads => {}
                () = self.timer.as_mut() => self.on_timer()?,
                () = set(&mut self.closing), if !self.is_leaving() => self.on_closing()?,
            }
        }
    }

    fn is_leaving(&self) -> bool {
        !matches!(self.phase, LinkPhase::Undecided | LinkPhase::Open)
    }

    /// Moves frames from the queue into the coding, if it has room.
    fn fill(&mut self) -> io::Result<()> {
        if self.pipe.has_unsent() {
            return Ok(());
        }
        let Some(queue) = self.queue.clone() else { return self.say_goodbye_if_due() };
        match self.phase {
            LinkPhase::Undecided | LinkPhase::Parting(_) | LinkPhase::Over(_) => return Ok(()),
            LinkPhase::Open | LinkPhase::Leaving(Goodbye::Shutdown) => {
                if queue.take(self.id, WRITE, &mut self.units) {
                    self.shared.inbox.put_one(Notice::Drained { peer: self.peer.id });
                }
            }
            LinkPhase::Leaving(_) | LinkPhase::Left(_) => self.units.extend(queue.take_rest(self.id)),
        }
        if self.units.is_empty() {
            return self.say_goodbye_if_due();
        }
        self.heard = Instant::now();
        self.pipe.write(&self.units)?;
        self.units.clear();
        Ok(())
    }

    /// Nothing is left to be sent: a side that wants to leave says so.
    fn say_goodbye_if_due(&mut self) -> io::Result<()> {
        let (reason, next) = match self.phase {
            LinkPhase::Leaving(reason) => (reason, LinkPhase::Parting(reason)),
            LinkPhase::Left(reason) => (reason, LinkPhase::Over(reason)),
            LinkPhase::Undecided | LinkPhase::Open | LinkPhase::Parting(_) | LinkPhase::Over(_) => {
                return Ok(());
            }
        };
        if let Some(queue) = &self.queue {
            // A successor may take from here on.
            queue.release(self.id);
        }
        self.pipe.write(&[Unit::word(records::goodbye(reason))])?;
        self.enter(next, DRAIN);
        Ok(())
    }

    fn enter(&mut self, phase: LinkPhase, lasts: Duration) {
        self.phase = phase;
        self.timer.as_mut().reset(Instant::now() + lasts);
    }

    fn on_progress(&mut self, bytes: usize) -> io::Result<()> {
        if bytes > 0 {
            self.heard = Instant::now();
        }
        let mut records = std::mem::take(&mut self.pipe.records);
        for record in records.drain(..) {
            self.on_record(record)?;
        }
        self.pipe.records = records;
        self.shared.inbox.put(&mut self.notices);
        match self.phase {
            _ if !self.pipe.is_closed() => Ok(()),
            LinkPhase::Parting(reason) | LinkPhase::Left(reason) | LinkPhase::Over(reason) => {
                self.phase = LinkPhase::Over(reason);
                Ok(())
            }
            LinkPhase::Undecided | LinkPhase::Open | LinkPhase::Leaving(_) => {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }

    fn on_record(&mut self, record: Record) -> io::Result<()> {
        match record {
            Record::Frame(frame) => {
                let event = TransportEvent::Frame { from: self.peer, frame };
                self.notices.push(Notice::Event(event));
                Ok(())
            }
            Record::Accept if self.phase == LinkPhase::Undecided && self.peer.id < self.shared.me => {
                self.notices.push(Notice::Accepted { connection: self.id });
                Ok(())
            }
            Record::Goodbye(reason) => self.on_goodbye(reason),
            Record::Accept | Record::Hello(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a greeting or a decision in the middle of a connection",
            )),
        }
    }

    fn on_goodbye(&mut self, reason: Goodbye) -> io::Result<()> {
        if reason == Goodbye::Shutdown {
            tracing::debug!(peer = %self.peer.id, "the peer shuts down");
        }
        match self.phase {
            LinkPhase::Undecided | LinkPhase::Open | LinkPhase::Leaving(_) => {
                self.enter(LinkPhase::Left(reason), DRAIN)
            }
            // Both left at once; a shutdown on either side is no quiet end.
            LinkPhase::Parting(_) => self.phase = LinkPhase::Over(reason),
            LinkPhase::Left(_) | LinkPhase::Over(_) => {}
        }
        if reason == Goodbye::Idle {
            self.tell_ended();
        }
        Ok(())
    }

    /// The next frame needs another connection, also while this one still drains.
    fn tell_ended(&mut self) {
        self.notices.push(Notice::Ended { connection: self.id, peer: self.peer.id, quietly: true });
        self.shared.inbox.put(&mut self.notices);
    }

    fn on_order(&mut self, order: Order) -> io::Result<()> {
        match (order, self.phase) {
            (Order::Carry { queue, tell }, LinkPhase::Undecided) => {
                self.queue = Some(queue);
                if tell {
                    self.pipe.write(&[Unit::word(records::accept())])?;
                }
                self.heard = Instant::now();
                self.enter(LinkPhase::Open, self.idle_after.unwrap_or(GREETING));
            }
            (Order::Retire, LinkPhase::Undecided | LinkPhase::Open) => {
                self.enter(LinkPhase::Leaving(Goodbye::Replaced), DRAIN);
            }
            (Order::Abort, _) => return Err(io::ErrorKind::ConnectionAborted.into()),
            // It leaves already, for another reason.
            (Order::Carry { .. } | Order::Retire, _) => {}
        }
        Ok(())
    }

    fn on_timer(&mut self) -> io::Result<()> {
        match self.phase {
            LinkPhase::Open => {
                let Some(idle_after) = self.idle_after else {
                    self.timer.as_mut().reset(Instant::now() + DRAIN * 1000);
                    return Ok(());
                };
                let due = self.heard + idle_after;
                if Instant::now() < due || self.pipe.has_unsent() {
                    self.timer.as_mut().reset(due.max(Instant::now() + idle_after / 4));
                } else {
                    self.enter(LinkPhase::Leaving(Goodbye::Idle), DRAIN);
                    self.tell_ended();
                }
                Ok(())
            }
            LinkPhase::Parting(reason) | LinkPhase::Over(reason) => {
                self.phase = LinkPhase::Over(reason);
                Ok(())
            }
            LinkPhase::Undecided | LinkPhase::Leaving(_) | LinkPhase::Left(_) => {
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    fn on_closing(&mut self) -> io::Result<()> {
        // The last orders were given before the transport began to close.
        while let Ok(order) = self.orders.try_recv() {
            self.on_order(order)?;
        }
        if !self.is_leaving() {
            self.enter(LinkPhase::Leaving(Goodbye::Shutdown), DRAIN);
        }
        Ok(())
    }

    /// Both sides have said goodbye. Gives whether that was a quiet end.
    async fn finish(&mut self) -> bool {
        let LinkPhase::Over(reason) = self.phase else { return false };
        let _ = timeout(FAREWELL, self.pipe.close()).await;
        match reason {
            Goodbye::Idle => true,
            Goodbye::Shutdown => false,
            Goodbye::Replaced => {
                // Frames that wait go over the successor, which may still be on its way here.
                let _ = timeout(SUCCESSION, async {
                    while let Some(order) = self.orders.recv().await {
                        if matches!(order, Order::Retire) {
                            return;
                        }
                    }
                })
                .await;
                true
            }
        }
    }

    fn log_break(&self, error: &io::Error) {
        let Peer { id, addr, .. } = self.peer;
        if error.kind() == io::ErrorKind::InvalidData {
            tracing::warn!(peer = %id, %addr, %error, "closed a connection: the peer broke the protocol");
        } else {
            tracing::debug!(peer = %id, %addr, %error, "a connection broke");
        }
    }
}

/// Waits until the flag is set. Cancel-safe.
pub(super) async fn set(flag: &mut watch::Receiver<bool>) {
    if flag.wait_for(|set| *set).await.is_err() {
        std::future::pending().await
    }
}

async fn ready(queue: Option<&Queue>) {
    match queue {
        Some(queue) => queue.ready().await,
        None => std::future::pending().await,
    }
}

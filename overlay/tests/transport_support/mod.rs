//! What the transports' tests share: nodes that run a transport on a task of their own, and laboratories that make them.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, clippy::large_enum_variant, reason = "these are tests")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use treecast_overlay::id::NodeId;
use treecast_overlay::identity::Identity;
use treecast_overlay::machine::{Destination, Link, Refusal};
use treecast_overlay::net::memory::MemoryOptions;
use treecast_overlay::net::{
    Dropped, Limits, Listen, MemoryNetwork, MemoryTransport, TcpOptions, TcpTransport, Transport,
    TransportEvent,
};
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::wire::{Direct, Frame, Header};

/// Far longer than anything takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A data frame.
pub(crate) fn data(len: usize, fill: u8) -> Frame {
    Frame::new(Header::Direct(Direct::Payload), Bytes::from(vec![fill; len]))
}

/// A control frame.
pub(crate) fn control(number: u64) -> Frame {
    Header::HopAck { hop: number }.into()
}

/// The number of a control frame.
pub(crate) fn number(frame: &Frame) -> Option<u64> {
    if let Header::HopAck { hop } = frame.header { Some(hop) } else { None }
}

#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) network: &'static str,
    pub(crate) limits: Limits,
    pub(crate) idle_after: Duration,
    /// Of each connection, in the memory laboratory; over TCP a proxy does that.
    pub(crate) bytes_per_second: Option<u64>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            network: "test",
            limits: Limits::default(),
            idle_after: Duration::from_secs(60),
            bytes_per_second: None,
        }
    }
}

/// Makes nodes of one kind of transport.
pub(crate) trait Lab: Default + Send + Sync + 'static {
    async fn start(&self, number: u8, setup: Setup) -> Node;
    /// An address that nobody listens at.
    async fn nobody(&self) -> Addr;
    /// An address by which a node is reached at the rate of its setup.
    async fn slow(&self, node: &Node, bytes_per_second: u64) -> Addr;
}

enum Act {
    Send(Destination, Frame),
    Pause(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// A transport on a task of its own.
pub(crate) struct Node {
    pub(crate) peer: Peer,
    pub(crate) dropped: Arc<Dropped>,
    acts: mpsc::UnboundedSender<Act>,
    events: mpsc::UnboundedReceiver<TransportEvent>,
    task: tokio::task::JoinHandle<()>,
}

impl Node {
    fn run(id: NodeId, dropped: Arc<Dropped>, mut transport: impl Transport) -> Node {
        let peer = Peer { id, incarnation: 1, addr: transport.local_addr() };
        let (acts, mut todo) = mpsc::unbounded_channel();
        let (tell, events) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            let mut paused = false;
            loop {
                let act = tokio::select! {
                    act = todo.recv() => act,
                    batch = transport.next(), if !paused => {
                        assert!(!batch.is_empty());
                        batch.into_iter().for_each(|event| { let _ = tell.send(event); });
                        continue;
                    }
                };
                let Some(mut act) = act else { return };
                loop {
                    match act {
                        Act::Send(to, frame) => transport.send(to, frame),
                        Act::Pause(done) => {
                            paused = true;
                            let _ = done.send(());
                        }
                        Act::Close(done) => {
                            transport.close().await;
                            let _ = done.send(());
                            return;
                        }
                    }
                    match todo.try_recv() {
                        Ok(next) => act = next,
                        Err(_) => break,
                    }
                }
                transport.flush();
            }
        });
        Node { peer, dropped, acts, events, task }
    }

    pub(crate) fn send(&self, to: Destination, frame: Frame) {
        self.acts.send(Act::Send(to, frame)).ok().unwrap();
    }

    pub(crate) fn send_to(&self, peer: &Peer, frame: Frame) {
        self.send(Destination::Peer(*peer), frame);
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> TransportEvent {
        let event = timeout(SOON, self.events.recv()).await.expect("an event within 30 s");
        event.expect("the node runs")
    }

    /// What has happened but was not looked at.
    pub(crate) fn seen(&mut self) -> Vec<TransportEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// The next event of which `pick` makes something; others are skipped.
    pub(crate) async fn until<T>(&mut self, mut pick: impl FnMut(TransportEvent) -> Option<T>) -> T {
        loop {
            if let Some(picked) = pick(self.event().await) {
                return picked;
            }
        }
    }

    pub(crate) async fn up(&mut self) -> (Peer, u64) {
        self.until(|event| match event {
            TransportEvent::Link(Link::Up { peer, generation }) => Some((peer, generation)),
            TransportEvent::Link(Link::Refused { reason, .. }) => panic!("refused: {reason:?}"),
            TransportEvent::Link(Link::Down { .. })
            | TransportEvent::Frame { .. }
            | TransportEvent::Queued { .. } => None,
        })
        .await
    }

    pub(crate) async fn down(&mut self) -> (NodeId, u64) {
        self.until(|event| match event {
            TransportEvent::Link(Link::Down { peer, generation }) => Some((peer, generation)),
            TransportEvent::Link(_) | TransportEvent::Frame { .. } | TransportEvent::Queued { .. } => None,
        })
        .await
    }

    pub(crate) async fn refused(&mut self) -> (Addr, Option<NodeId>, Refusal) {
        self.until(|event| match event {
            TransportEvent::Link(Link::Refused { addr, id, reason }) => Some((addr, id, reason)),
            TransportEvent::Link(link) => panic!("{link:?} in place of a refusal"),
            TransportEvent::Frame { .. } | TransportEvent::Queued { .. } => None,
        })
        .await
    }

    pub(crate) async fn frame(&mut self) -> (Peer, Frame) {
        self.until(|event| match event {
            TransportEvent::Frame { from, frame } => Some((from, frame)),
            TransportEvent::Link(_) | TransportEvent::Queued { .. } => None,
        })
        .await
    }

    /// Connects two nodes, and waits until both know.
    pub(crate) async fn meet(&mut self, other: &mut Node) {
        self.send_to(&other.peer, control(0));
        self.up().await;
        other.up().await;
        other.frame().await;
    }

    /// No more reading, nor anything else, until it is killed.
    pub(crate) async fn pause(&self) {
        let (done, paused) = oneshot::channel();
        self.acts.send(Act::Pause(done)).ok().unwrap();
        paused.await.unwrap();
    }

    pub(crate) async fn close(self) {
        let (done, closed) = oneshot::channel();
        self.acts.send(Act::Close(done)).ok().unwrap();
        timeout(SOON, closed).await.unwrap().unwrap();
        self.task.await.unwrap();
    }

    /// Drops the transport without a word.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

#[derive(Default)]
pub(crate) struct MemoryLab {
    network: MemoryNetwork,
}

impl Lab for MemoryLab {
    async fn start(&self, number: u8, setup: Setup) -> Node {
        let id = identity(number).id();
        let options = MemoryOptions {
            limits: setup.limits,
            idle_after: setup.idle_after,
            bytes_per_second: setup.bytes_per_second,
            ..MemoryOptions::new(setup.network)
        };
        let transport: MemoryTransport = self.network.bind(id, options);
        Node::run(id, transport.dropped(), transport)
    }

    async fn nobody(&self) -> Addr {
        Addr::Memory(u32::MAX)
    }

    async fn slow(&self, node: &Node, _: u64) -> Addr {
        node.peer.addr
    }
}

#[derive(Default)]
pub(crate) struct TcpLab;

impl Lab for TcpLab {
    async fn start(&self, number: u8, setup: Setup) -> Node {
        let identity = identity(number);
        let options = TcpOptions {
            listen: Listen::Exactly((Ipv4Addr::LOCALHOST, 0).into()),
            limits: setup.limits,
            idle_after: setup.idle_after,
            ..TcpOptions::new(setup.network, 1)
        };
        let transport = TcpTransport::bind(&identity, options).await.unwrap();
        Node::run(identity.id(), transport.dropped(), transport)
    }

    async fn nobody(&self) -> Addr {
        // Bound and closed again: the system gives it to nobody else at once.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().into()
    }

    async fn slow(&self, node: &Node, bytes_per_second: u64) -> Addr {
        proxy(socket(node.peer.addr), bytes_per_second).await.into()
    }
}

pub(crate) fn socket(addr: Addr) -> SocketAddr {
    match addr {
        Addr::Socket(addr) => addr.into(),
        Addr::Memory(_) | Addr::Unreachable => panic!("{addr} is no socket address"),
    }
}

pub(crate) fn identity(number: u8) -> Identity {
    Identity::from_secret(&[number; 32])
}

pub(crate) fn seed(addr: Addr, id: Option<NodeId>) -> Destination {
    Destination::Seed(Seed { addr, id })
}

/// A link of the given rate in each direction, with little room in it.
async fn proxy(to: SocketAddr, bytes_per_second: u64) -> SocketAddr {
    const ROOM: u32 = 16 * 1024;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(ROOM).unwrap();
    socket.set_send_buffer_size(ROOM).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let listener = socket.listen(8).unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(ROOM).unwrap();
            socket.set_send_buffer_size(ROOM).unwrap();
            let Ok(far) = socket.connect(to).await else { continue };
            let (near_out, near_in) = near.into_split();
            let (far_out, far_in) = far.into_split();
            tokio::spawn(copy(near_out, far_in, bytes_per_second));
            tokio::spawn(copy(far_out, near_in, bytes_per_second));
        }
    });
    addr
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    bytes_per_second: u64,
) {
    let mut buffer = [0; 4096];
    let mut free_at = Instant::now();
    while let Ok(len) = from.read(&mut buffer).await {
        if len == 0 || to.write_all(&buffer[..len]).await.is_err() {
            return;
        }
        let lasts = Duration::from_secs_f64(len as f64 / bytes_per_second as f64);
        free_at = free_at.max(Instant::now()) + lasts;
        sleep_until(free_at).await;
    }
}

/// A client that is no node.
pub(crate) async fn stranger(node: &Node) -> TcpStream {
    TcpStream::connect(socket(node.peer.addr)).await.unwrap()
}

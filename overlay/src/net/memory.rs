//! A transport within one process, for tests: the same connections as over TCP, without sockets and TLS.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep};

use super::connection;
use super::mesh::{Dialler, Dropped, Mesh, Settings, Shared};
use super::pipe::Pipe;
use super::transport::{Limits, Transport, TransportEvent};
use crate::id::NodeId;
use crate::machine::{Destination, Refusal};
use crate::peer::Addr;
use crate::wire::{Frame, Hello};

/// Bytes that a connection holds in each direction.
const BUFFER: usize = 64 * 1024;
/// Connections that may wait to be accepted; further ones are refused.
const BACKLOG: usize = 64;

/// Nodes of one process that can reach each other, each by the number of its slot.
#[derive(Clone, Debug, Default)]
pub struct MemoryNetwork {
    slots: Arc<Mutex<Listeners>>,
}

#[derive(Debug, Default)]
struct Listeners {
    next: u32,
    taken: BTreeMap<u32, Listener>,
}

#[derive(Clone, Debug)]
struct Listener {
    id: NodeId,
    bytes_per_second: Option<u64>,
    incoming: mpsc::Sender<Incoming>,
}

#[derive(Debug)]
struct Incoming {
    stream: DuplexStream,
    bytes_per_second: Option<u64>,
    id: NodeId,
    from: Addr,
}

/// How a memory transport is to be.
#[derive(Clone, Debug)]
pub struct MemoryOptions {
    /// The network's name, at most 64 bytes; connections within one network only.
    pub network: String,
    /// Which start of the node this is.
    pub incarnation: u64,
    /// Sizes of frames and queues.
    pub limits: Limits,
    /// After how much silence a connection is closed.
    pub idle_after: Duration,
    /// How fast each connection of this node is in each direction; `None`: as fast as it goes.
    pub bytes_per_second: Option<u64>,
}

impl MemoryOptions {
    /// The defaults, for a node of this network in its first life.
    pub fn new(network: &str) -> MemoryOptions {
        MemoryOptions {
            network: network.to_owned(),
            incarnation: 1,
            limits: Limits::default(),
            idle_after: Duration::from_secs(60),
            bytes_per_second: None,
        }
    }
}

impl MemoryNetwork {
    /// A network without nodes.
    pub fn new() -> MemoryNetwork {
        MemoryNetwork::default()
    }

    /// A transport for this node in the next free slot, on the current tokio runtime.
    pub fn bind(&self, id: NodeId, options: MemoryOptions) -> MemoryTransport {
        let (incoming, accept) = mpsc::channel(BACKLOG);
        let slot = {
            let mut slots = self.lock();
            slots.taken.retain(|_, slot| !slot.incoming.is_closed());
            slots.next += 1;
            let slot = slots.next;
            let bytes_per_second = options.bytes_per_second;
            slots.taken.insert(slot, Listener { id, bytes_per_second, incoming });
            slot
        };
        let local = Addr::Memory(slot);
        let hello = Hello { network: options.network, incarnation: options.incarnation, listens: local };
        let settings = Settings {
            me: id,
            hello,
            limits: options.limits,
            idle_after: options.idle_after,
            max_connections: super::tcp::MAX_CONNECTIONS,
        };
        let dialler =
            MemoryDialler { network: self.clone(), id, local, bytes_per_second: options.bytes_per_second };
        let mesh = Mesh::new(settings, dialler);
        mesh.shared.spawn(listen(mesh.shared.clone(), accept, options.bytes_per_second));
        MemoryTransport { mesh, local }
    }

    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn listen(shared: Arc<Shared>, mut accept: mpsc::Receiver<Incoming>, rate: Option<u64>) {
    let mut closing = shared.closing();
    loop {
        let incoming = tokio::select! {
            incoming = accept.recv() => incoming,
            () = connection::set(&mut closing) => return,
        };
        let Some(Incoming { stream, bytes_per_second, id, from }) = incoming else { return };
        let Ok(permit) = shared.incoming.clone().try_acquire_owned() else {
            tracing::warn!(%from, "refused an incoming connection: as many are open as may be");
            continue;
        };
        let pipe =
            Pipe::plain(Throttled::new(stream, slower(rate, bytes_per_second)), shared.limits.max_frame);
        let welcome = shared.clone();
        shared.spawn(async move {
            let _permit = permit;
            welcome.welcome(from, None, async { Ok((pipe, id)) }, None).await;
        });
    }
}

fn slower(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    a.into_iter().chain(b).min()
}

#[derive(Debug)]
struct MemoryDialler {
    network: MemoryNetwork,
    id: NodeId,
    local: Addr,
    bytes_per_second: Option<u64>,
}

impl Dialler for MemoryDialler {
    async fn dial(&self, shared: &Shared, addr: Addr) -> Result<(Pipe, NodeId, Option<IpAddr>), Refusal> {
        let slot = match addr {
            Addr::Memory(slot) => self.network.lock().taken.get(&slot).cloned(),
            Addr::Socket(_) | Addr::Unreachable => None,
        };
        let nobody = || Refusal::Unreachable("nobody listens there".into());
        let slot = slot.ok_or_else(nobody)?;
        let (ours, theirs) = duplex(BUFFER);
        let incoming = Incoming {
            stream: theirs,
            bytes_per_second: self.bytes_per_second,
            id: self.id,
            from: self.local,
        };
        slot.incoming.try_send(incoming).map_err(|_| nobody())?;
        let rate = slower(self.bytes_per_second, slot.bytes_per_second);
        Ok((Pipe::plain(Throttled::new(ours, rate), shared.limits.max_frame), slot.id, None))
    }
}

/// The transport of one slot of a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryTransport {
    mesh: Mesh<MemoryDialler>,
    local: Addr,
}

impl MemoryTransport {
    /// Counts what is not sent, also while a driver has the transport.
    pub fn dropped(&self) -> Arc<Dropped> {
        self.mesh.shared.dropped.clone()
    }
}

impl Transport for MemoryTransport {
    fn local_addr(&self) -> Addr {
        self.local
    }

    fn send(&mut self, to: Destination, frame: Frame) {
        self.mesh.send(to, &frame);
    }

    fn flush(&mut self) {
        self.mesh.flush();
    }

    async fn next(&mut self) -> Vec<TransportEvent> {
        self.mesh.next().await
    }

    async fn close(self) {
        self.mesh.close().await;
    }
}

/// A stream that takes bytes no faster than a rate.
struct Throttled {
    stream: DuplexStream,
    bytes_per_second: Option<u64>,
    until: Pin<Box<Sleep>>,
}

/// Bytes taken at once by a slow stream.
const SLICE: usize = 4 * 1024;

impl Throttled {
    fn new(stream: DuplexStream, bytes_per_second: Option<u64>) -> Throttled {
        Throttled { stream, bytes_per_second, until: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

impl AsyncRead for Throttled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Throttled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(rate) = self.bytes_per_second else {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        };
        ready!(self.until.as_mut().poll(context));
        let slice = &bytes[..bytes.len().min(SLICE)];
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, slice))?;
        let lasts = Duration::from_secs_f64(written as f64 / rate.max(1) as f64);
        // A late timer is made up for, up to a few slices.
        let start = self.until.deadline().max(Instant::now() - Duration::from_millis(10));
        self.until.as_mut().reset(start + lasts);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Peer;
    use crate::wire::Header;

    #[tokio::test]
    async fn nodes_of_one_process_tell_each_other_slots() {
        let network = MemoryNetwork::new();
        let [mut a, mut b] = [1, 2].map(|id| network.bind(NodeId(id), MemoryOptions::new("test")));
        let third = Peer { id: NodeId(3), incarnation: 1, addr: Addr::Memory(3) };
        a.send(Destination::Seed(b.local_addr().into()), Frame::from(Header::PeerDeadHint(third)));
        a.flush();
        let heard = async {
            loop {
                let events = tokio::select! {
                    events = a.next() => events,
                    events = b.next() => events,
                };
                for event in events {
                    if let TransportEvent::Frame { frame, .. } = event {
                        return frame.header;
                    }
                }
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(30), heard).await;
        assert_eq!(heard.unwrap(), Header::PeerDeadHint(third));
    }
}

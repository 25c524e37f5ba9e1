//! The default transport: TLS 1.3 over TCP, both sides authenticated by the ed25519 keys that their ids follow from.

mod listen;
mod ports;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

pub use listen::Listen;
pub use ports::{DEFAULT_PORTS, PortsError, local_ports};

use self::tls::Tls;
use super::mesh::{Dialler, Dropped, Mesh, Settings, Shared};
use super::pipe::Pipe;
use super::transport::{Limits, LimitsError, Transport, TransportEvent};
use crate::id::NodeId;
use crate::identity::Identity;
use crate::machine::{Destination, Refusal};
use crate::peer::Addr;
use crate::wire::{Frame, Hello, MAX_NETWORK_NAME};

/// Connections that a node may have by default, a quarter of them dialled by itself; further incoming ones are closed at
/// once, further dials refused.
pub const MAX_CONNECTIONS: usize = 4096;
/// Incoming connections that may be in their handshake at once; further ones wait in the system's backlog.
pub const MAX_HALF_OPEN: usize = 64;
/// How long the system may take to say whether anything listens at an address.
const CONNECT: Duration = Duration::from_secs(3);
/// Bytes that the kernel takes before it has sent them: what control frames wait behind.
const NOT_SENT: u32 = 64 * 1024;
/// How long sent bytes may stay unacknowledged before the system gives a connection up.
const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// How a TCP transport is to be.
#[derive(Clone, Debug)]
pub struct TcpOptions {
    /// The network's name, at most 64 bytes; connections within one network only.
    pub network: String,
    /// Which start of the node this is.
    pub incarnation: u64,
    /// Where to listen.
    pub listen: Listen,
    /// The address to tell others, if it is not the one listened at. When listening at an unspecified address
    /// (`0.0.0.0`), the default is this machine's address on the way to the internet.
    pub advertise: Option<SocketAddr>,
    /// Sizes of frames and queues.
    pub limits: Limits,
    /// After how much silence a connection is closed, if it could be dialled again; default 60 s.
    pub idle_after: Duration,
    /// Default [`MAX_CONNECTIONS`].
    pub max_connections: usize,
}

impl TcpOptions {
    /// The defaults: 127.0.0.1, the first free port of [`DEFAULT_PORTS`].
    pub fn new(network: &str, incarnation: u64) -> TcpOptions {
        let listen = Listen::FirstFree { ip: Ipv4Addr::LOCALHOST.into(), ports: DEFAULT_PORTS };
        TcpOptions {
            network: network.to_owned(),
            incarnation,
            listen,
            advertise: None,
            limits: Limits::default(),
            idle_after: Duration::from_secs(60),
            max_connections: MAX_CONNECTIONS,
        }
    }
}

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The network's name is too long.
    #[error("the network name `{0}` is longer than {MAX_NETWORK_NAME} bytes")]
    NetworkName(String),
    /// The frame limit is out of bounds.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The address is not to be had.
    #[error("cannot listen at {addr}: {source}")]
    Listen {
        /// Which address.
        addr: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// The identity's key is of no use to TLS.
    #[error("the identity cannot be used for TLS: {0}")]
    Identity(#[source] rustls::Error),
}

/// The TCP transport of one node.
#[derive(Debug)]
pub struct TcpTransport {
    mesh: Mesh<Tcp>,
    local: Addr,
}

impl TcpTransport {
    /// Starts a transport on the current tokio runtime.
    pub async fn bind(identity: &Identity, options: TcpOptions) -> Result<TcpTransport, BindError> {
        options.limits.check()?;
        if options.network.len() > MAX_NETWORK_NAME {
            return Err(BindError::NetworkName(options.network));
        }
        let tls = Tls::new(identity).map_err(BindError::Identity)?;
        let listener = options.listen.bind().await?;
        let bound = match &listener {
            Some(listener) => {
                let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
                Some(
                    listener
                        .local_addr()
                        .map_err(|source| BindError::Listen { addr: unspecified, source })?,
                )
            }
            None => None,
        };
        let address = |addr: Option<SocketAddr>| addr.map_or(Addr::Unreachable, Addr::from);
        let listens = address(bound.map(|bound| options.advertise.unwrap_or(bound)));
        let settings = Settings {
            me: identity.id(),
            hello: Hello { network: options.network, incarnation: options.incarnation, listens },
            limits: options.limits,
            idle_after: options.idle_after,
            max_connections: options.max_connections,
        };
        let mesh = Mesh::new(settings, Tcp { tls: tls.clone() });
        if let Some(listener) = listener {
            mesh.shared.spawn(listen::accept(mesh.shared.clone(), listener, tls));
        }
        let local = address(bound.map(|bound| options.advertise.unwrap_or_else(|| specific(bound))));
        Ok(TcpTransport { mesh, local })
    }

    /// Counts what is not sent, also while a driver has the transport.
    pub fn dropped(&self) -> Arc<Dropped> {
        self.mesh.shared.dropped.clone()
    }
}

/// An address that can be told to others: for an unspecified one, the one that this machine would send from.
fn specific(bound: SocketAddr) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    // Connecting a datagram socket sends nothing: the system only chooses a way. The address is one of RFC 5737.
    let outward = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
        socket.local_addr()
    });
    let ip = outward.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |addr| addr.ip());
    SocketAddr::new(ip, bound.port())
}

impl Transport for TcpTransport {
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

#[derive(Debug)]
struct Tcp {
    tls: Tls,
}

impl Dialler for Tcp {
    async fn dial(&self, shared: &Shared, addr: Addr) -> Result<(Pipe, NodeId, Option<IpAddr>), Refusal> {
        let addr = match addr {
            Addr::Socket(socket) => SocketAddr::from(socket),
            Addr::Memory(_) | Addr::Unreachable => {
                return Err(Refusal::Unreachable("it is no internet address".into()));
            }
        };
        let stream = match timeout(CONNECT, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Refusal::Unreachable(error.to_string())),
            Err(_) => return Err(Refusal::TimedOut),
        };
        prepare(&stream).map_err(|error| Refusal::Unreachable(error.to_string()))?;
        let client = self.tls.client().map_err(|error| Refusal::Protocol(error.to_string()))?;
        let mut pipe = Pipe::tls(stream, client.into(), shared.limits.max_frame);
        let handshake = timeout(super::connection::GREETING, tls::handshake(&mut pipe));
        let id = handshake.await.unwrap_or(Err(Refusal::TimedOut))?;
        Ok((pipe, id, Some(addr.ip())))
    }
}

/// Sets what every connection needs.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let socket = socket2::SockRef::from(stream);
        socket.set_tcp_notsent_lowat(NOT_SENT)?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    }
    Ok(())
}

//! Where a node listens, and how incoming connections are taken in.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::super::connection;
use super::super::mesh::Shared;
use super::super::pipe::Pipe;
use super::tls::{self, Tls};
use super::{BindError, MAX_HALF_OPEN, prepare};
use crate::id::NodeId;
use crate::machine::Refusal;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// At this address; port 0 means any.
    Exactly(SocketAddr),
    /// At the first free port of a range, else any.
    FirstFree {
        /// The address.
        ip: IpAddr,
        /// The range.
        ports: RangeInclusive<u16>,
    },
    /// Nowhere: the node can only be reached over connections that it opened itself.
    Nowhere,
}

impl Listen {
    pub(super) async fn bind(&self) -> Result<Option<TcpListener>, BindError> {
        let exactly = match self {
            Listen::Exactly(addr) => *addr,
            Listen::FirstFree { ip, ports } => {
                for port in ports.clone() {
                    if let Ok(listener) = TcpListener::bind((*ip, port)).await {
                        return Ok(Some(listener));
                    }
                }
                (*ip, 0).into()
            }
            Listen::Nowhere => return Ok(None),
        };
        let listener = TcpListener::bind(exactly).await;
        listener.map(Some).map_err(|source| BindError::Listen { addr: exactly, source })
    }
}

/// How long the listener rests when the system has no room for another connection.
const REST: Duration = Duration::from_millis(100);

/// Takes connections in until the transport closes.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Tls) {
    let half_open = Arc::new(Semaphore::new(MAX_HALF_OPEN));
    let mut closing = shared.closing();
    loop {
        let next = async {
            let slot = half_open.clone().acquire_owned().await.ok();
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            () = connection::set(&mut closing) => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(REST).await;
                continue;
            }
        };
        let Ok(permit) = shared.incoming.clone().try_acquire_owned() else {
            tracing::warn!(%remote, "refused an incoming connection: as many are open as may be");
            continue;
        };
        let (welcome, tls) = (shared.clone(), tls.clone());
        shared.spawn(async move {
            let _permit = permit;
            let handshake = handshake(stream, &tls, welcome.limits.max_frame);
            welcome.welcome(remote.into(), Some(remote.ip()), handshake, slot).await;
        });
    }
}

async fn handshake(stream: TcpStream, tls: &Tls, max_frame: usize) -> Result<(Pipe, NodeId), Refusal> {
    let gone = |error: io::Error| Refusal::Protocol(error.to_string());
    prepare(&stream).map_err(gone)?;
    let server = tls.server().map_err(|error| Refusal::Protocol(error.to_string()))?;
    let mut pipe = Pipe::tls(stream, server.into(), max_frame);
    let id = tls::handshake(&mut pipe).await?;
    Ok((pipe, id))
}

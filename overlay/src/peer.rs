//! Peers, as one node knows another: id, address, incarnation; and how to reach it, be it on the ring or an edge.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::NodeId;

/// Where a transport can dial a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Addr {
    /// Nowhere: the node can only be reached over connections that it opened itself.
    Unreachable,
    /// An IP address and port.
    Socket(Socket),
    /// A slot of a memory transport or of a simulated world.
    Memory(u32),
}

/// Which addresses a frame may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// Addresses of real networks. A slot of a memory transport means nothing there, so its sender is broken or hostile.
    Public,
    /// All addresses: within one process, and in a simulated world.
    Any,
}

impl Addresses {
    /// The addresses that may be named to a node which has this one.
    pub fn named_to(own: Addr) -> Addresses {
        match own {
            Addr::Memory(_) => Addresses::Any,
            Addr::Socket(_) | Addr::Unreachable => Addresses::Public,
        }
    }

    /// Whether this address is one of them.
    pub fn contain(self, addr: Addr) -> bool {
        match self {
            Addresses::Public => !matches!(addr, Addr::Memory(_)),
            Addresses::Any => true,
        }
    }
}

/// An IP address and port, as on the wire the same as [`SocketAddr`]; smaller, because nothing here uses the flow
/// information of IPv6.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "SocketAddr", into = "SocketAddr")]
pub enum Socket {
    /// IPv4.
    V4(SocketAddrV4),
    /// IPv6.
    V6 {
        /// The address, most significant byte first.
        ip: [u8; 16],
        /// The port.
        port: u16,
        /// The zone of a link-local address; it means something on this machine only, and does not travel.
        scope: u32,
    },
}

// Every table of every node is made of these.
const _: () = assert!(size_of::<Addr>() == 24 && size_of::<Peer>() == 48);

impl Socket {
    /// The IP address.
    pub fn ip(self) -> IpAddr {
        SocketAddr::from(self).ip()
    }

    /// The port.
    pub fn port(self) -> u16 {
        SocketAddr::from(self).port()
    }
}

impl From<SocketAddr> for Socket {
    fn from(addr: SocketAddr) -> Socket {
        match addr {
            SocketAddr::V4(addr) => Socket::V4(addr),
            SocketAddr::V6(addr) => {
                Socket::V6 { ip: addr.ip().octets(), port: addr.port(), scope: addr.scope_id() }
            }
        }
    }
}

impl From<Socket> for SocketAddr {
    fn from(socket: Socket) -> SocketAddr {
        match socket {
            Socket::V4(addr) => SocketAddr::V4(addr),
            Socket::V6 { ip, port, scope } => {
                SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope))
            }
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&SocketAddr::from(*self), f)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Unreachable => f.write_str("unreachable"),
            Addr::Socket(socket) => SocketAddr::from(*socket).fmt(f),
            Addr::Memory(slot) => write!(f, "mem:{slot}"),
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(addr: SocketAddr) -> Addr {
        Addr::Socket(addr.into())
    }
}

/// A node as its peers know it. Whether the key fits the id is checked when a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Its point on the ring.
    pub id: NodeId,
    /// Which start of the node this is: max(stored + 1, unix milliseconds). Words about an older one are void.
    pub incarnation: u64,
    /// Where to dial it.
    pub addr: Addr,
}

impl Peer {
    /// Whether `other` is the same node, started no later than this.
    pub fn supersedes(&self, other: &Peer) -> bool {
        self.id == other.id && self.incarnation >= other.incarnation
    }
}

/// How to reach a node from anywhere: directly, or, for an edge node, through the ring node that it is attached to. (A ring node
/// that asks something again, because no answer came, names a node that is to pass the answer on.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Contact {
    /// The node itself.
    pub peer: Peer,
    /// For an edge node: its access node.
    pub via: Option<Peer>,
}

impl Contact {
    /// The node's id.
    pub fn id(&self) -> NodeId {
        self.peer.id
    }

    /// Whether something is so of the node, and of its access node.
    pub(crate) fn all_peers(&self, is_so: &mut impl FnMut(&Peer) -> bool) -> bool {
        is_so(&self.peer) && self.via.iter().all(is_so)
    }

    /// Whether this is an edge node, which is on no ring.
    pub fn is_edge(&self) -> bool {
        self.via.is_some()
    }
}

impl From<Peer> for Contact {
    fn from(peer: Peer) -> Contact {
        Contact { peer, via: None }
    }
}

/// A way into an overlay: an address, and the id that must answer there if it is known.
///
/// As text either `HOST:PORT` (a bare address: any key is accepted) or a ticket, `ID@HOST:PORT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seed {
    /// Where to dial.
    pub addr: Addr,
    /// The node that must answer; `None` accepts any.
    pub id: Option<NodeId>,
}

impl From<Addr> for Seed {
    fn from(addr: Addr) -> Seed {
        Seed { addr, id: None }
    }
}

impl From<Peer> for Seed {
    fn from(peer: Peer) -> Seed {
        Seed { addr: peer.addr, id: Some(peer.id) }
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "{id}@{}", self.addr),
            None => self.addr.fmt(f),
        }
    }
}

/// A text that is neither an address nor a ticket.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is neither an address (`127.0.0.1:4848`) nor a ticket (`ID@127.0.0.1:4848`)")]
pub struct ParseSeedError(String);

impl FromStr for Seed {
    type Err = ParseSeedError;

    fn from_str(text: &str) -> Result<Seed, ParseSeedError> {
        let error = || ParseSeedError(text.chars().take(128).collect());
        let (id, addr) = match text.split_once('@') {
            Some((id, addr)) => (Some(id.parse().map_err(|_| error())?), addr),
            None => (None, text),
        };
        let addr = match addr.strip_prefix("mem:") {
            Some(slot) => Addr::Memory(slot.parse().map_err(|_| error())?),
            None => addr.parse::<SocketAddr>().map_err(|_| error())?.into(),
        };
        Ok(Seed { addr, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_addresses_or_tickets() {
        let id = NodeId(7);
        for text in [
            "127.0.0.1:4848".to_string(),
            format!("{id}@[::1]:9"),
            "[fe80::1%7]:9".to_string(),
            "mem:3".to_string(),
        ] {
            assert_eq!(text.parse::<Seed>().unwrap().to_string(), text);
        }
        for text in ["", "localhost", "7@127.0.0.1:1", "127.0.0.1"] {
            assert!(text.parse::<Seed>().is_err(), "{text}");
        }
    }
}

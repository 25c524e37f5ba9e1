//! How a node comes to life: what the caller said, an identity, a socket, a ring.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use treecast_overlay::config::{Config as OverlayConfig, ConfigError as OverlayConfigError, Role};
use treecast_overlay::kbr::{self, Bootstrap};
use treecast_overlay::net::data_dir::DataDirError;
use treecast_overlay::net::tcp::{BindError, PortsError, local_ports};
use treecast_overlay::net::{self, Clock, DataDir, Limits, Listen, TcpOptions, TcpTransport, Transport};
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, ParseSeedError, Peer, Seed};

use super::dispatch::Dispatch;
use super::publisher::Flights;
use super::supervisor::Supervisor;
use super::{Handle, MAX_QUESTIONS, Scribe, Stopped};
use crate::config::{Config, ConfigError};
use crate::event::Command;
use crate::stack::Stack;

/// Items that a subscription holds by default.
const QUEUE: usize = 256;
/// Room for what a frame has beside its payload, in bytes.
const FRAME_OVERHEAD: usize = 64 * 1024;

/// A node to be. Every setting has a default; [`start`](Builder::start) makes the node.
#[derive(Debug)]
pub struct Builder {
    join: Vec<Seed>,
    wrong: Option<ParseSeedError>,
    listen: Option<SocketAddr>,
    network: String,
    home: Home,
    overlay: OverlayConfig,
    config: Config,
    queue: usize,
}

/// Where identity and peers are kept.
#[derive(Debug)]
enum Home {
    Nowhere,
    Default,
    At(PathBuf),
}

impl Default for Builder {
    fn default() -> Builder {
        Builder {
            join: Vec::new(),
            wrong: None,
            listen: None,
            network: "main".to_string(),
            home: Home::Nowhere,
            overlay: OverlayConfig::default(),
            config: Config::default(),
            queue: QUEUE,
        }
    }
}

/// A way into a ring: an address, a ticket, or either as text.
pub trait IntoSeed {
    /// The seed, or what is wrong with the text.
    fn into_seed(self) -> Result<Seed, ParseSeedError>;
}

impl IntoSeed for &str {
    fn into_seed(self) -> Result<Seed, ParseSeedError> {
        self.parse()
    }
}

impl IntoSeed for &String {
    fn into_seed(self) -> Result<Seed, ParseSeedError> {
        self.parse()
    }
}

impl IntoSeed for Seed {
    fn into_seed(self) -> Result<Seed, ParseSeedError> {
        Ok(self)
    }
}

impl IntoSeed for SocketAddr {
    fn into_seed(self) -> Result<Seed, ParseSeedError> {
        Ok(Addr::from(self).into())
    }
}

impl IntoSeed for Addr {
    fn into_seed(self) -> Result<Seed, ParseSeedError> {
        Ok(self.into())
    }
}

/// Why a node did not start. Nothing of it is left running.
#[derive(Debug, Error)]
pub enum StartError {
    /// The argument of [`Builder::join`] leads nowhere.
    #[error(transparent)]
    Seed(#[from] ParseSeedError),
    /// A node that listens on this machine only cannot be on a ring with others.
    #[error(
        "{seed} is on another machine, and this node listens at {listen}, where it cannot reach this one: \
         listen at an address of this machine, or at all of them (--listen 0.0.0.0:4848)"
    )]
    ListensLocally {
        /// The other machine's node.
        seed: Seed,
        /// Where this node would listen.
        listen: IpAddr,
    },
    /// `TREECAST_PORTS` is no range of ports.
    #[error(transparent)]
    Ports(#[from] PortsError),
    /// The data directory is of no use.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no socket.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The overlay's figures contradict each other.
    #[error("the overlay's configuration: {0}")]
    OverlayConfig(#[from] OverlayConfigError),
    /// Scribe's figures contradict each other.
    #[error("the configuration: {0}")]
    Config(#[from] ConfigError),
    /// The system has no randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(getrandom::Error),
    /// The ring was not found, or would not take the node.
    #[error(transparent)]
    Ring(#[from] kbr::StartError),
    /// The node ended while it was starting.
    #[error("the node ended while it was starting: {0}")]
    Stopped(Stopped),
}

impl Builder {
    /// Joins the ring of this node: an address (`"127.0.0.1:4848"`), a ticket (`"ID@127.0.0.1:4848"`), or their
    /// parsed forms. Of several, one that answers is enough. Without any, the ports of this machine are asked for a
    /// node of the same network, then the peers of earlier lives; if none answers, the node is the first of its ring.
    pub fn join(mut self, seed: impl IntoSeed) -> Builder {
        match seed.into_seed() {
            Ok(seed) => self.join.push(seed),
            Err(error) => {
                self.wrong.get_or_insert(error);
            }
        }
        self
    }

    /// Listens there (port 0: any). The default is 127.0.0.1, and the first free port of 4848–4863
    /// (`TREECAST_PORTS=A-B` changes the range) or, on an edge that may be promoted, of its upper half, else
    /// any.
    pub fn listen(mut self, addr: SocketAddr) -> Builder {
        self.listen = Some(addr);
        self
    }

    /// The network to be in; the default is `main`. Nodes of different networks refuse each other.
    pub fn network(mut self, name: &str) -> Builder {
        self.network = name.to_string();
        self
    }

    /// Keeps identity and known peers in this directory. It may be shared: each process takes its own identity there.
    pub fn data_dir(mut self, path: impl AsRef<Path>) -> Builder {
        self.home = Home::At(path.as_ref().to_path_buf());
        self
    }

    /// Keeps identity and known peers where the user's data is: `$TREECAST_DATA`, `$XDG_DATA_HOME/treecast` or
    /// `~/.local/share/treecast`.
    pub fn default_data_dir(mut self) -> Builder {
        self.home = Home::Default;
        self
    }

    /// Keeps nothing: a new identity with each start. The default.
    pub fn ephemeral(mut self) -> Builder {
        self.home = Home::Nowhere;
        self
    }

    /// On the ring (the default), or on its edge: an edge node serves no other node, comes and goes without moving any
    /// key, and needs no reachable address.
    pub fn role(mut self, role: Role) -> Builder {
        self.overlay.role = role;
        self
    }

    /// The overlay's figures. Its role is set by [`role`](Builder::role), if that is called later.
    pub fn overlay_config(mut self, overlay: OverlayConfig) -> Builder {
        self.overlay = overlay;
        self
    }

    /// Scribe's figures.
    pub fn config(mut self, config: Config) -> Builder {
        self.config = config;
        self
    }

    /// How many items each subscription, and each reader of broadcasts, holds while nobody reads; default 256, at least 2.
    pub fn queue(mut self, items: usize) -> Builder {
        self.queue = items.max(2);
        self
    }

    /// Starts the node on the current tokio runtime. Returns when it is on its ring, or attached to it, or says why not;
    /// then, and when this future is dropped, nothing is left running.
    pub async fn start(mut self) -> Result<Scribe, StartError> {
        if let Some(error) = self.wrong.take() {
            return Err(error.into());
        }
        self.overlay.check()?;
        self.config.check()?;
        let ports = local_ports()?;
        self.check_reach()?;
        let (home, incarnation) = self.open_home().await?;
        let transport = TcpTransport::bind(home.identity(), self.tcp_options(incarnation, &ports)).await?;
        let me = Peer { id: home.identity().id(), incarnation, addr: transport.local_addr() };
        let bootstrap = self.bootstrap(me.addr, &ports, &home)?;
        let node = Node::new(me, self.overlay.clone(), random_seed()?)?;
        let stack = Stack::new(node, self.config.clone(), random_seed()?)?;
        let scribe = self.spawn(me, stack, transport, home);
        scribe.start_ring(bootstrap).await?;
        Ok(scribe)
    }

    async fn open_home(&mut self) -> Result<(DataDir, u64), StartError> {
        let home = std::mem::replace(&mut self.home, Home::Nowhere);
        // The disk is waited for.
        let open = tokio::task::spawn_blocking(move || {
            let home = match home {
                Home::Nowhere => DataDir::ephemeral()?,
                Home::Default => DataDir::open(DataDir::default_path()?)?,
                Home::At(path) => DataDir::open(path)?,
            };
            let incarnation = home.next_incarnation()?;
            Ok::<_, DataDirError>((home, incarnation))
        });
        Ok(open.await.map_err(|_| StartError::Stopped(Stopped::Crashed))??)
    }

    /// A ring node that its ring cannot reach would only do harm there.
    fn check_reach(&self) -> Result<(), StartError> {
        let listen = self.listen.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
        let far = self.join.iter().find(|seed| !is_local(seed.addr));
        match (self.overlay.role, far) {
            (Role::Ring, Some(&seed)) if listen.ip().is_loopback() => {
                Err(StartError::ListensLocally { seed, listen: listen.ip() })
            }
            _ => Ok(()),
        }
    }

    fn tcp_options(&mut self, incarnation: u64, ports: &RangeInclusive<u16>) -> TcpOptions {
        let mut options = TcpOptions::new(&self.network, incarnation);
        let local = Ipv4Addr::LOCALHOST.into();
        let far = self.join.iter().any(|seed| !is_local(seed.addr));
        options.listen = match (self.listen, self.overlay.role) {
            (Some(addr), _) => Listen::Exactly(addr),
            (None, Role::Ring) => Listen::FirstFree { ip: local, ports: ports.clone() },
            (None, Role::Edge { .. }) if far => {
                // No node could dial it: it stays on the edge.
                self.overlay.role = Role::Edge { promote_after: None };
                Listen::Nowhere
            }
            (None, Role::Edge { promote_after: Some(_) }) => {
                Listen::FirstFree { ip: local, ports: for_edges(ports) }
            }
            (None, Role::Edge { promote_after: None }) => Listen::Exactly((local, 0).into()),
        };
        let default = Limits::default();
        let largest = self.config.max_payload.max(self.config.max_broadcast);
        let max_frame = default.max_frame.max(largest.saturating_add(FRAME_OVERHEAD));
        options.limits = Limits { max_frame, ..default };
        options
    }

    fn bootstrap(
        &self,
        me: Addr,
        ports: &RangeInclusive<u16>,
        home: &DataDir,
    ) -> Result<Bootstrap, StartError> {
        let on_this_machine =
            ports.clone().map(|port| Addr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        let local = on_this_machine.filter(|addr| *addr != me).map(Seed::from).collect();
        let mut remembered = home.remembered()?;
        // A node that listens on this machine only has its ring here.
        remembered.retain(|seed| !is_local(me) || is_local(seed.addr));
        Ok(Bootstrap { join: self.join.clone(), local, remembered })
    }

    fn spawn(&self, me: Peer, stack: Stack<Node>, transport: impl Transport, home: DataDir) -> Scribe {
        let dispatch = Dispatch::new(me.into());
        let events = dispatch.clone();
        let records = home.path().map(Path::to_path_buf);
        let driver =
            net::spawn(stack, transport, Clock::start(), records, move |event| events.on_event(event));
        let (leave, leaving) = watch::channel(false);
        let (ending, ended) = watch::channel(false);
        let supervisor = Supervisor {
            driver: driver.clone(),
            dispatch: dispatch.clone(),
            leave: leaving,
            ended: ending,
            home: Arc::new(home),
        };
        tokio::spawn(supervisor.run());
        let handle = Handle {
            peer: me,
            driver,
            dispatch,
            flights: Flights::new(&self.config),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            queue: self.queue,
            names: AtomicU64::new(0),
            leave,
            ended,
        };
        Scribe { handle: Arc::new(handle) }
    }
}

impl Scribe {
    /// Waits until the node is ready; if that comes to nothing, until it has ended.
    async fn start_ring(&self, bootstrap: Bootstrap) -> Result<(), StartError> {
        let mut started = self.dispatch().started.subscribe();
        let sent = self.driver().send(Command::Start(bootstrap)).await;
        let outcome = tokio::select! {
            // A start that failed ends the node, too: its reason comes first.
            biased;
            started = started.wait_for(Option::is_some), if sent.is_ok() => {
                started.ok().and_then(|started| started.clone())
            }
            why = self.stopped() => return Err(StartError::Stopped(why)),
        };
        match outcome {
            Some(Ok(_)) => {
                // Brings the contact: an edge has an access node now.
                self.status().await;
                Ok(())
            }
            Some(Err(error)) => {
                self.clone().shutdown().await;
                Err(error.into())
            }
            None => Err(StartError::Stopped(self.stopped().await)),
        }
    }
}

/// Edges that may become ring nodes take the upper half of the range: newcomers must find them there, but a machine
/// full of edges must leave room for nodes that stay.
fn for_edges(ports: &RangeInclusive<u16>) -> RangeInclusive<u16> {
    let (first, last) = (*ports.start(), *ports.end());
    first + (last - first).div_ceil(2)..=last
}

fn is_local(addr: Addr) -> bool {
    match addr {
        Addr::Socket(addr) => addr.ip().is_loopback(),
        Addr::Memory(_) | Addr::Unreachable => true,
    }
}

fn random_seed() -> Result<[u8; 32], StartError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(StartError::Random)?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_leave_the_lower_half_of_the_ports_to_ring_nodes() {
        assert_eq!(for_edges(&(4848..=4863)), 4856..=4863);
        assert_eq!(for_edges(&(7..=7)), 7..=7);
        assert_eq!(for_edges(&(7..=8)), 8..=8);
    }
}

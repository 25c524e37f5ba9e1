//! Stories of strangers: on a socket of this node, and behind an address that it dials.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::connection;
use super::super::queue::Unit;
use super::super::records;
use super::*;
use crate::machine::Link;
use crate::peer::{Peer, Seed};
use crate::wire::{Direct, Header};

const SOON: Duration = Duration::from_secs(30);

fn identity(number: u8) -> Identity {
    Identity::from_secret(&[number; 32])
}

async fn node(number: u8) -> TcpTransport {
    let listen = Listen::Exactly((Ipv4Addr::LOCALHOST, 0).into());
    let options = TcpOptions { listen, ..TcpOptions::new("test", 1) };
    TcpTransport::bind(&identity(number), options).await.unwrap()
}

fn addr(node: &TcpTransport) -> SocketAddr {
    match node.local_addr() {
        Addr::Socket(socket) => socket.into(),
        Addr::Memory(_) | Addr::Unreachable => panic!("no socket"),
    }
}

async fn until<T>(node: &mut TcpTransport, mut pick: impl FnMut(TransportEvent) -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(picked) = node.next().await.into_iter().find_map(&mut pick) {
                return picked;
            }
        }
    };
    timeout(SOON, search).await.expect("within 30 s")
}

fn frame(event: TransportEvent) -> Option<Frame> {
    match event {
        TransportEvent::Frame { frame, .. } => Some(frame),
        TransportEvent::Link(Link::Up { .. }) | TransportEvent::Queued { .. } => None,
        TransportEvent::Link(link) => panic!("{link:?}"),
    }
}

/// A client that makes a valid handshake and greeting, and may then say anything.
async fn client(number: u8, to: SocketAddr) -> Pipe {
    let stream = TcpStream::connect(to).await.unwrap();
    let tls = Tls::new(&identity(number)).unwrap().client().unwrap();
    let mut pipe = Pipe::tls(stream, tls.into(), 1024);
    tls::handshake(&mut pipe).await.unwrap();
    pipe
}

fn hello() -> Hello {
    Hello { network: "test".into(), incarnation: 1, listens: Addr::Unreachable }
}

async fn say(pipe: &mut Pipe, bytes: Vec<u8>) {
    pipe.write(&[Unit::word(bytes)]).unwrap();
    while pipe.has_unsent() {
        pipe.progress(false).await.unwrap();
    }
}

/// Waits until the node has had enough.
async fn is_dropped(pipe: &mut Pipe) {
    let dropped = async { while !pipe.is_closed() && pipe.progress(true).await.is_ok() {} };
    timeout(SOON, dropped).await.expect("the node drops the connection");
}

async fn is_dropped_raw(stream: &mut TcpStream) {
    let dropped = async { while stream.read(&mut [0; 4096]).await.is_ok_and(|len| len > 0) {} };
    timeout(SOON, dropped).await.expect("the node drops the connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_harms_nobody() {
    let (mut a, mut b) = (node(1).await, node(2).await);
    let to_b = Destination::Seed(Seed { addr: b.local_addr(), id: Some(identity(2).id()) });
    let target = addr(&b);
    let mut strangers = Vec::new();
    for n in 0..40u8 {
        strangers.push(tokio::spawn(async move {
            let mut stream = TcpStream::connect(target).await.unwrap();
            match n % 4 {
                // Random bytes.
                0 => {
                    let noise: Vec<u8> = blake3::hash(&[n]).as_bytes().repeat(512);
                    let _ = stream.write_all(&noise).await;
                }
                // A TLS record of the greatest length, never completed.
                1 => stream.write_all(&[0x16, 3, 1, 0xff, 0xff, 1]).await.unwrap(),
                // Half of a good ClientHello.
                2 => {
                    let mut tls = Tls::new(&identity(3)).unwrap().client().unwrap();
                    let mut bytes = Vec::new();
                    tls.write_tls(&mut bytes).unwrap();
                    stream.write_all(&bytes[..bytes.len() / 2]).await.unwrap();
                }
                // Nothing at all.
                _ => {}
            }
            is_dropped_raw(&mut stream).await;
        }));
    }
    for _ in 0..2 {
        for huge in [vec![0x01, 0xff, 0xff, 0xff], vec![0x77; 64], records::hello(&[7; 500])] {
            strangers.push(tokio::spawn(async move {
                let mut pipe = client(4, target).await;
                say(&mut pipe, records::hello(&hello().encode())).await;
                say(&mut pipe, huge).await;
                is_dropped(&mut pipe).await;
            }));
        }
    }
    // A first record that is no greeting.
    strangers.push(tokio::spawn(async move {
        let mut pipe = client(5, target).await;
        say(&mut pipe, records::accept()).await;
        is_dropped(&mut pipe).await;
    }));
    let payload = Bytes::from(vec![7; 100_000]);
    for _ in 0..200 {
        let sent = Frame::new(Header::Direct(Direct::Payload), payload.clone());
        a.send(to_b, sent.clone());
        a.flush();
        let exchange = async {
            tokio::select! {
                got = until(&mut b, |event| match event {
                    // The strangers with a valid greeting come and go.
                    TransportEvent::Link(_) => None,
                    TransportEvent::Frame { .. } | TransportEvent::Queued { .. } => frame(event),
                }) => got,
                () = async { loop { a.next().await; } } => unreachable!("an endless loop"),
            }
        };
        assert!(exchange.await == sent);
    }
    let shared = b.mesh.shared.clone();
    let all = async {
        for stranger in strangers {
            stranger.await.unwrap();
        }
        // Only a's connection is left.
        while shared.incoming.available_permits() < MAX_CONNECTIONS / 4 * 3 - 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        all = timeout(SOON, all) => all.expect("strangers still hold connections"),
        () = async { loop { b.next().await; } } => unreachable!("an endless loop"),
    }
}

#[tokio::test]
async fn strangers_leave_room_for_a_nodes_own_dials() {
    let options =
        TcpOptions { listen: Listen::Exactly((Ipv4Addr::LOCALHOST, 0).into()), ..TcpOptions::new("test", 1) };
    let mut a = TcpTransport::bind(&identity(1), TcpOptions { max_connections: 4, ..options }).await.unwrap();
    let mut b = node(2).await;
    let mut strangers = Vec::new();
    while a.mesh.shared.incoming.available_permits() > 0 {
        strangers.push(TcpStream::connect(addr(&a)).await.unwrap());
        tokio::task::yield_now().await;
    }
    a.send(Destination::Seed(b.local_addr().into()), Header::Attach.into());
    a.flush();
    let asked = tokio::select! {
        asked = until(&mut b, frame) => asked,
        () = async { loop { a.next().await; } } => unreachable!("an endless loop"),
    };
    assert_eq!(asked, Header::Attach.into());
}

/// Dials a listener that behaves in a certain way.
async fn refusal<F: Future<Output = ()> + Send>(
    behave: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> Refusal {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let behaviour = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        behave(stream).await;
    });
    let mut a = node(1).await;
    a.send(Destination::Seed(Addr::from(at).into()), Header::Attach.into());
    let reason = until(&mut a, |event| match event {
        TransportEvent::Link(Link::Refused { reason, .. }) => Some(reason),
        TransportEvent::Link(_) | TransportEvent::Frame { .. } | TransportEvent::Queued { .. } => None,
    });
    let reason = reason.await;
    behaviour.abort();
    reason
}

#[tokio::test]
async fn what_does_not_speak_our_protocol_is_told_apart() {
    let http = refusal(|mut stream| async move {
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        is_dropped_raw(&mut stream).await;
    });
    assert!(matches!(http.await, Refusal::Protocol(_)));
    let silent = refusal(|stream| async move {
        let _open = stream;
        std::future::pending().await
    });
    assert_eq!(silent.await, Refusal::TimedOut);
    let closing = refusal(|stream| async move { drop(stream) });
    assert!(matches!(closing.await, Refusal::Protocol(_)));
    let newer = refusal(|stream| async move {
        let tls = Tls::new(&identity(6)).unwrap().server().unwrap();
        let mut pipe = Pipe::tls(stream, tls.into(), 1024);
        tls::handshake(&mut pipe).await.unwrap();
        let mut greeting = hello().encode().to_vec();
        greeting[5] = 9;
        say(&mut pipe, records::hello(&greeting)).await;
        is_dropped(&mut pipe).await;
    });
    assert_eq!(newer.await, Refusal::Protocol("protocol version 9, ours is 1".into()));
}

#[tokio::test]
async fn an_unspecified_address_is_the_one_that_the_peer_is_seen_at() {
    let mut b = node(2).await;
    let mut pipe = client(3, addr(&b)).await;
    let listens = Addr::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 77)));
    say(&mut pipe, records::hello(&Hello { listens, ..hello() }.encode())).await;
    if identity(3).id() < identity(2).id() {
        say(&mut pipe, records::accept()).await;
    }
    let peer = until(&mut b, |event| match event {
        TransportEvent::Link(Link::Up { peer, .. }) => Some(peer),
        TransportEvent::Link(_) | TransportEvent::Frame { .. } | TransportEvent::Queued { .. } => None,
    });
    let expected = Addr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 77)));
    assert_eq!(peer.await, Peer { id: identity(3).id(), incarnation: 1, addr: expected });
}

#[tokio::test]
async fn a_frame_that_names_an_address_of_no_network_ends_its_connection() {
    let mut b = node(2).await;
    let mut pipe = client(3, addr(&b)).await;
    say(&mut pipe, records::hello(&hello().encode())).await;
    if identity(3).id() < identity(2).id() {
        say(&mut pipe, records::accept()).await;
    }
    let lost = |addr| Frame::from(Header::PeerDeadHint(Peer { id: identity(4).id(), incarnation: 1, addr }));
    let record = |frame: &Frame| {
        let head = crate::wire::encode(frame).head;
        [&records::frame_head(true, false, head.len())[..], &head].concat()
    };
    let public = lost(Addr::from(addr(&b)));
    say(&mut pipe, record(&public)).await;
    assert_eq!(until(&mut b, frame).await, public);
    say(&mut pipe, record(&lost(Addr::Memory(3)))).await;
    until(&mut b, |event| match event {
        TransportEvent::Frame { frame, .. } => panic!("{frame:?} is let in"),
        TransportEvent::Link(Link::Down { .. }) => Some(()),
        TransportEvent::Link(_) | TransportEvent::Queued { .. } => None,
    })
    .await;
    is_dropped(&mut pipe).await;
}

#[tokio::test]
async fn a_node_that_listens_nowhere_is_answered_over_its_own_connection() {
    let options = TcpOptions { listen: Listen::Nowhere, ..TcpOptions::new("test", 1) };
    let mut edge = TcpTransport::bind(&identity(1), options).await.unwrap();
    assert_eq!(edge.local_addr(), Addr::Unreachable);
    let mut ring = node(2).await;
    edge.send(Destination::Seed(ring.local_addr().into()), Header::Attach.into());
    edge.flush();
    let mut from = None;
    let asked = tokio::select! {
        asked = until(&mut ring, |event| {
            if let TransportEvent::Frame { from: peer, .. } = &event { from = Some(*peer); }
            frame(event)
        }) => asked,
        () = async { loop { edge.next().await; } } => unreachable!("an endless loop"),
    };
    assert_eq!(asked, Header::Attach.into());
    let from = from.unwrap();
    assert_eq!(from.addr, Addr::Unreachable);
    ring.send(Destination::Peer(from), Header::Detach.into());
    ring.flush();
    assert_eq!(until(&mut edge, frame).await, Header::Detach.into());
}

#[tokio::test]
async fn nodes_take_the_first_free_port_of_a_range() {
    // A range of ports that the system just gave out and took back.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port();
    let listen = Listen::FirstFree { ip: Ipv4Addr::LOCALHOST.into(), ports: free..=free };
    let options = TcpOptions { listen, ..TcpOptions::new("test", 1) };
    let first = TcpTransport::bind(&identity(1), options.clone()).await.unwrap();
    let second = TcpTransport::bind(&identity(2), options).await.unwrap();
    assert_ne!(addr(&first).port(), addr(&second).port());
    let taken = Listen::Exactly(addr(&first));
    let options = TcpOptions { listen: taken, ..TcpOptions::new("test", 1) };
    let error = TcpTransport::bind(&identity(3), options).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen at {}", addr(&first))), "{error}");
}

#[tokio::test]
async fn limits_out_of_bounds_are_refused_at_the_start() {
    let limits = Limits { max_frame: (64 << 20) + 1, ..Limits::default() };
    let options = TcpOptions { limits, ..TcpOptions::new("test", 1) };
    let error = TcpTransport::bind(&identity(1), options).await.unwrap_err();
    assert!(matches!(error, BindError::Limits(_)), "{error}");
    assert!(connection::GREETING < SOON);
}

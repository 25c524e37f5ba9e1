//! What every transport has to hold, run for each of them; below, what concerns sockets only.

mod transport_support;

use std::time::Duration;

use tokio::time::{Instant, timeout};
use transport_support::*;
use treecast_overlay::machine::{Link, Refusal};
use treecast_overlay::net::{Limits, TransportEvent};
use treecast_overlay::peer::{Addr, Peer};
use treecast_overlay::wire::Frame;

const MIB: usize = 1024 * 1024;

async fn frames_arrive_whole_and_in_order_both_ways<L: Lab>(lab: L) {
    let mut a = lab.start(1, Setup::default()).await;
    let mut b = lab.start(2, Setup::default()).await;
    a.meet(&mut b).await;
    let sizes = [1, 17, 1024, 8187, 8188, 16_384, 65_534, 65_535, 65_536, 200_000, 1_000_000, 3];
    for (from, to) in [(&a, b.peer), (&b, a.peer)] {
        for (n, len) in sizes.into_iter().enumerate() {
            from.send_to(&to, data(len, n as u8));
            from.send_to(&to, control(n as u64));
        }
    }
    let (first, second) = (a.peer, b.peer);
    for (node, sender) in [(&mut a, second), (&mut b, first)] {
        let (mut controls, mut payloads) = (Vec::new(), Vec::new());
        while controls.len() + payloads.len() < 2 * sizes.len() {
            let (from, frame) = node.frame().await;
            assert_eq!(from, sender);
            match number(&frame) {
                Some(number) => controls.push(number),
                None => payloads.push(frame),
            }
        }
        assert_eq!(controls, (0..sizes.len() as u64).collect::<Vec<_>>());
        let expected: Vec<Frame> = sizes.into_iter().enumerate().map(|(n, len)| data(len, n as u8)).collect();
        assert!(payloads == expected, "payloads differ");
    }
}

async fn many_small_frames_keep_their_order<L: Lab>(lab: L) {
    let mut a = lab.start(1, Setup::default()).await;
    let mut b = lab.start(2, Setup::default()).await;
    a.meet(&mut b).await;
    let mut sent = 0;
    for batch in 0..20u64 {
        for n in 0..1000 {
            a.send_to(&b.peer, control(batch * 1000 + n + 1));
            sent += 1;
        }
        for n in 0..1000 {
            let (_, frame) = b.frame().await;
            assert_eq!(number(&frame), Some(batch * 1000 + n + 1));
        }
    }
    assert_eq!(sent, 20_000);
}

async fn other_networks_are_refused_by_name<L: Lab>(lab: L) {
    let mut a = lab.start(1, Setup { network: "theirs", ..Setup::default() }).await;
    let mut b = lab.start(2, Setup { network: "ours", ..Setup::default() }).await;
    a.send_to(&b.peer, control(1));
    let refused = a.refused().await;
    assert_eq!(refused, (b.peer.addr, Some(b.peer.id), Refusal::Network("ours".into())));
    a.send(seed(b.peer.addr, None), control(1));
    assert_eq!(a.refused().await, (b.peer.addr, None, Refusal::Network("ours".into())));
    assert_eq!(b.seen(), []);
}

async fn whoever_answers_must_be_the_wanted_one<L: Lab>(lab: L) {
    let mut a = lab.start(1, Setup::default()).await;
    let mut b = lab.start(2, Setup::default()).await;
    let wanted = identity(9).id();
    a.send(seed(b.peer.addr, Some(wanted)), control(1));
    assert_eq!(a.refused().await, (b.peer.addr, Some(wanted), Refusal::WrongId(b.peer.id)));
    a.send(seed(a.peer.addr, None), control(1));
    assert_eq!(a.refused().await, (a.peer.addr, None, Refusal::Myself));
    a.send_to(&a.peer.clone(), control(1));
    assert_eq!(a.refused().await, (a.peer.addr, Some(a.peer.id), Refusal::Myself));
    assert_eq!(b.seen(), []);
}

async fn dialling_nobody_is_refused<L: Lab>(lab: L) {
    let mut a = lab.start(1, Setup::default()).await;
    let id = identity(9).id();
    for addr in [lab.nobody().await, Addr::Unreachable] {
        a.send_to(&Peer { id, incarnation: 1, addr }, control(1));
        let (at, whom, reason) = a.refused().await;
        assert_eq!((at, whom), (addr, Some(id)));
        assert!(matches!(reason, Refusal::Unreachable(_)), "{reason:?}");
        a.send(seed(addr, None), control(1));
        let (at, whom, reason) = a.refused().await;
        assert_eq!((at, whom), (addr, None));
        assert!(matches!(reason, Refusal::Unreachable(_)), "{reason:?}");
    }
}

async fn a_bare_address_leads_to_whoever_is_there<L: Lab>(lab: L) {
    let mut a = lab.start(1, Setup::default()).await;
    let mut b = lab.start(2, Setup::default()).await;
    a.send(seed(b.peer.addr, None), control(1));
    assert_eq!(a.up().await.0, b.peer);
    assert_eq!(b.up().await.0, a.peer);
    assert_eq!(b.frame().await, (a.peer, control(1)));
    // The connection is there: neither the address nor the peer is dialled again.
    a.send(seed(b.peer.addr, None), control(2));
    a.send_to(&b.peer, control(3));
    b.send_to(&a.peer, control(4));
    assert_eq!(b.event().await, TransportEvent::Frame { from: a.peer, frame: control(2) });
    assert_eq!(b.event().await, TransportEvent::Frame { from: a.peer, frame: control(3) });
    assert_eq!(a.event().await, TransportEvent::Frame { from: b.peer, frame: control(4) });
}

async fn simultaneous_dials_settle_without_a_down<L: Lab>(lab: L) {
    for round in 0..20u8 {
        let mut a = lab.start(2 * round + 10, Setup::default()).await;
        let mut b = lab.start(2 * round + 11, Setup::default()).await;
        a.send_to(&b.peer, control(1));
        b.send_to(&a.peer, control(1));
        assert_eq!(a.frame().await, (b.peer, control(1)));
        assert_eq!(b.frame().await, (a.peer, control(1)));
        // Whatever still settles, frames go on passing, none is lost, and nothing breaks.
        for n in 2..50 {
            a.send_to(&b.peer, control(n));
            b.send_to(&a.peer, control(n));
            let next = |event| match event {
                TransportEvent::Frame { frame, .. } => Some(frame),
                TransportEvent::Link(Link::Up { .. }) => None,
                TransportEvent::Link(link) => panic!("{link:?}"),
                TransportEvent::Queued { .. } => None,
            };
            assert_eq!(a.until(next).await, control(n));
            assert_eq!(b.until(next).await, control(n));
        }
        let (seen_by_a, seen_by_b) = (a.seen(), b.seen());
        assert!(!has_down(&seen_by_a) && !has_down(&seen_by_b), "{seen_by_a:?} {seen_by_b:?}");
        // One connection is left: its end is one Down.
        let (id, _) = (b.peer.id, b.kill().await);
        assert_eq!(a.down().await.0, id);
    }
}

fn has_down(events: &[TransportEvent]) -> bool {
    events.iter().any(|event| matches!(event, TransportEvent::Link(Link::Down { .. })))
}

async fn the_end_of_a_peer_is_a_down<L: Lab>(lab: L) {
    let mut a = lab.start(1, Setup::default()).await;
    let mut b = lab.start(2, Setup::default()).await;
    let mut c = lab.start(3, Setup::default()).await;
    a.send_to(&b.peer, control(1));
    let (_, generation) = a.up().await;
    b.frame().await;
    let id = b.peer.id;
    b.kill().await;
    assert_eq!(a.down().await, (id, generation));
    a.meet(&mut c).await;
    let id = c.peer.id;
    c.close().await;
    assert_eq!(a.down().await.0, id);
}

async fn generations_grow<L: Lab>(lab: L) {
    let mut a = lab.start(1, Setup::default()).await;
    let mut last = 0;
    for _ in 0..3 {
        let mut b = lab.start(2, Setup::default()).await;
        b.send_to(&a.peer, control(1));
        let (peer, generation) = a.up().await;
        assert!(peer.id == b.peer.id && generation > last);
        last = generation;
        b.up().await;
        b.kill().await;
        assert_eq!(a.down().await.1, generation);
    }
}

async fn idle_connections_close_and_come_back_without_a_down<L: Lab>(lab: L) {
    let idle_after = Duration::from_millis(200);
    let mut a = lab.start(1, Setup { idle_after, ..Setup::default() }).await;
    let mut b = lab.start(2, Setup::default()).await;
    a.meet(&mut b).await;
    for round in 0..4 {
        // A connection that comes up anew shows that the old one was closed meanwhile.
        let mut came_anew = false;
        let deadline = Instant::now() + SOON;
        while !came_anew {
            assert!(Instant::now() < deadline, "the connection was never closed");
            tokio::time::sleep(2 * idle_after).await;
            let (from, to) = if round % 2 == 0 { (&a, &mut b) } else { (&b, &mut a) };
            from.send_to(&to.peer, control(round));
            let frame = to.until(|event| match event {
                TransportEvent::Link(Link::Up { .. }) => {
                    came_anew = true;
                    None
                }
                TransportEvent::Frame { frame, .. } => Some(frame),
                TransportEvent::Link(link) => panic!("{link:?}"),
                TransportEvent::Queued { .. } => None,
            });
            assert_eq!(frame.await, control(round));
        }
    }
    let (seen_by_a, seen_by_b) = (a.seen(), b.seen());
    assert!(!has_down(&seen_by_a) && !has_down(&seen_by_b), "{seen_by_a:?} {seen_by_b:?}");
}

async fn the_frame_limit_is_exact_and_visible<L: Lab>(lab: L) {
    let limits = Limits { max_frame: 100_000, ..Limits::default() };
    let mut a = lab.start(1, Setup { limits, ..Setup::default() }).await;
    let mut b = lab.start(2, Setup { limits, ..Setup::default() }).await;
    a.meet(&mut b).await;
    let header = 2;
    for len in [100_001 - header, 100_000 - header, 64 * MIB] {
        a.send_to(&b.peer, data(len, 1));
    }
    a.send_to(&b.peer, data(5, 2));
    assert_eq!(b.frame().await.1, data(100_000 - header, 1));
    assert_eq!(b.frame().await.1, data(5, 2));
    assert_eq!(a.dropped.oversized(), 2);
}

async fn a_frame_over_the_receivers_limit_ends_the_connection<L: Lab>(lab: L) {
    let small = Limits { max_frame: 100_000, ..Limits::default() };
    let mut a = lab.start(1, Setup::default()).await;
    let mut b = lab.start(2, Setup { limits: small, ..Setup::default() }).await;
    a.meet(&mut b).await;
    a.send_to(&b.peer, data(200_000, 1));
    assert_eq!(b.down().await.0, a.peer.id);
    assert_eq!(a.down().await.0, b.peer.id);
}

async fn a_peer_that_does_not_read_harms_nobody<L: Lab>(lab: L) {
    let limits = Limits { data_bytes: 2 * MIB, ..Limits::default() };
    let mut a = lab.start(1, Setup { limits, ..Setup::default() }).await;
    let mut deaf = lab.start(2, Setup::default()).await;
    let mut well = lab.start(3, Setup::default()).await;
    a.meet(&mut deaf).await;
    a.meet(&mut well).await;
    deaf.pause().await;
    // More than its inbox, the system's buffers and the queue take together.
    let mut top = 0;
    for n in 0..64u64 {
        a.send_to(&deaf.peer, data(MIB - 100, 1));
        a.send_to(&well.peer, control(n));
        let mut next = |event| match event {
            TransportEvent::Queued { peer, bytes } => {
                assert_eq!(peer, deaf.peer.id);
                top = top.max(bytes);
                None
            }
            TransportEvent::Frame { frame, .. } => Some(frame),
            TransportEvent::Link(link) => panic!("{link:?}"),
        };
        well.send_to(&a.peer, control(n));
        assert_eq!(a.until(&mut next).await, control(n));
        assert_eq!(well.frame().await.1, control(n));
    }
    assert!(a.dropped.data() > 0, "nothing was dropped");
    assert!((MIB..=2 * MIB + 100).contains(&top), "{top} bytes were said to be queued");
    // Its control queue overflows: that is the end of its connection.
    for n in 0..200_000 {
        a.send_to(&deaf.peer, control(n));
    }
    assert_eq!(a.down().await.0, deaf.peer.id);
    assert!(a.dropped.control() > 0);
}

async fn queue_levels_are_told_until_all_is_gone<L: Lab>(lab: L) {
    let mut a = lab.start(1, Setup::default()).await;
    let mut b = lab.start(2, Setup::default()).await;
    a.meet(&mut b).await;
    for _ in 0..6 {
        a.send_to(&b.peer, data(MIB - 100, 1));
    }
    let mut levels = Vec::new();
    while levels.last() != Some(&0) {
        levels.push(
            a.until(|event| match event {
                TransportEvent::Queued { bytes, .. } => Some(bytes),
                TransportEvent::Link(_) | TransportEvent::Frame { .. } => None,
            })
            .await,
        );
    }
    assert!(levels.windows(2).all(|pair| pair[0] != pair[1]), "{levels:?}");
    assert!(levels.iter().any(|level| *level > MIB / 2), "{levels:?}");
}

async fn control_passes_beside_a_large_transfer_on_a_slow_link<L: Lab>(lab: L) {
    const RATE: u64 = 10_000_000 / 8;
    let limits = Limits { data_bytes: 65 * MIB, ..Limits::default() };
    let setup = Setup { limits, bytes_per_second: Some(RATE), ..Setup::default() };
    let mut a = lab.start(1, setup.clone()).await;
    let mut b = lab.start(2, setup).await;
    let slow = lab.slow(&b, RATE).await;
    a.send(seed(slow, Some(b.peer.id)), control(0));
    b.frame().await;
    a.up().await;
    for n in 0..64 {
        a.send_to(&b.peer, data(MIB - 100, n));
    }
    let mut came = 0;
    let mut worst = Duration::ZERO;
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < Duration::from_secs(5) {
        rounds += 1;
        let sent = Instant::now();
        a.send_to(&b.peer, control(rounds));
        loop {
            let (_, frame) = b.frame().await;
            if number(&frame) == Some(rounds) {
                break;
            }
            came += frame.payload.len();
        }
        b.send_to(&a.peer, control(rounds));
        assert_eq!(number(&a.frame().await.1), Some(rounds));
        worst = worst.max(sent.elapsed());
    }
    println!("{rounds} round trips beside {came} bytes, the longest took {worst:?}");
    assert!(worst < Duration::from_millis(500), "a control round trip took {worst:?}");
    assert_eq!(a.dropped.data(), 0);
    // The transfer went on all the while, and is not over: at least half of the link's rate, less than all.
    assert!((2 * MIB..63 * MIB).contains(&came), "{came} bytes came in 5 s");
}

async fn closing_sends_what_is_queued<L: Lab>(lab: L) {
    let mut a = lab.start(1, Setup::default()).await;
    let mut b = lab.start(2, Setup::default()).await;
    a.meet(&mut b).await;
    for n in 0..4 {
        a.send_to(&b.peer, data(500_000, n));
    }
    let id = a.peer.id;
    a.close().await;
    for n in 0..4 {
        assert!(b.frame().await.1 == data(500_000, n));
    }
    assert_eq!(b.down().await.0, id);
}

async fn no_task_outlives_its_transport<L: Lab>(lab: L) {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut a = lab.start(1, Setup::default()).await;
    let mut b = lab.start(2, Setup::default()).await;
    let mut c = lab.start(3, Setup::default()).await;
    a.meet(&mut b).await;
    b.meet(&mut c).await;
    a.send(seed(lab.nobody().await, None), control(1));
    a.close().await;
    b.kill().await;
    c.kill().await;
    // Aborted tasks end when they are next looked at.
    let gone = async {
        while tasks() > before {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, gone).await.expect("tasks are left");
}

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::MemoryLab::default()).await;
            })*
        }
        mod tcp {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(super::TcpLab).await;
            })*
        }
    };
}

conformance! {
    frames_arrive_whole_and_in_order_both_ways,
    many_small_frames_keep_their_order,
    other_networks_are_refused_by_name,
    whoever_answers_must_be_the_wanted_one,
    dialling_nobody_is_refused,
    a_bare_address_leads_to_whoever_is_there,
    simultaneous_dials_settle_without_a_down,
    the_end_of_a_peer_is_a_down,
    generations_grow,
    idle_connections_close_and_come_back_without_a_down,
    the_frame_limit_is_exact_and_visible,
    a_frame_over_the_receivers_limit_ends_the_connection,
    a_peer_that_does_not_read_harms_nobody,
    queue_levels_are_told_until_all_is_gone,
    control_passes_beside_a_large_transfer_on_a_slow_link,
    closing_sends_what_is_queued,
    no_task_outlives_its_transport,
}

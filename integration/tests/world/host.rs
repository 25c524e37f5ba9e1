//! Hosts with peculiarities, each seen to act.

use std::collections::BTreeSet;

use bytes::Bytes;

use std::time::Duration;
use treecast_integration::case;

use treecast_integration::world::*;
use treecast_overlay::time::Instant;

use crate::pinger::{Heard, Pinger, Wish, id, to};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + ms(millis)
}

fn world(name: &str, nodes: usize) -> World<Pinger> {
    with_backlog(name, nodes, Config::default().backlog)
}

fn with_backlog(name: &str, nodes: usize, backlog: usize) -> World<Pinger> {
    let config = Config {
        backlog,
        topology: Topology::Constant(ms(10)),
        jitter: 0.0,
        spurious_timeouts: 0.0,
        late_turns: 0.0,
        max_frame: usize::MAX,
        ..Config::default()
    };
    let mut world = World::new(case!(name, 7), config);
    (0..nodes).for_each(|slot| {
        world.add(Pinger::new(slot));
    });
    world
}

/// All that a slot heard, links left out.
fn heard(world: &mut World<Pinger>, slot: usize) -> Vec<(Instant, Heard)> {
    let events = world.take_events().into_iter();
    let heard = events.filter(|(_, other, event)| *other == slot && !matches!(event, Heard::Link(_)));
    heard.map(|(at, _, event)| (at, event)).collect()
}

fn said(length: usize) -> Wish {
    Wish::Say(to(1), Bytes::from(vec![b'x'; length]))
}

#[test]
fn a_fast_clock_wakes_its_node_early_and_a_slow_one_late() {
    for (ppm, woken) in [(0, 1000), (250_000, 800), (-500_000, 2000)] {
        let mut world = world("a_fast_clock_wakes", 1);
        world.set_drift(0, ppm);
        world.command(0, Wish::WakeAt(Some(at(1000))));
        world.run_for(ms(3000));
        assert_eq!(heard(&mut world, 0), [(at(woken), Heard::Woke)], "{ppm} ppm");
    }
}

#[test]
fn a_changed_drift_moves_the_deadline_and_never_turns_time_back() {
    let mut world = world("a_changed_drift", 1);
    world.command(0, Wish::WakeAt(Some(at(1000))));
    world.run_for(ms(400));
    world.set_drift(0, 500_000);
    world.run_for(ms(200));
    assert_eq!(world.local_time(0), at(700));
    world.set_drift(0, -500_000);
    world.run_for(ms(2000));
    assert_eq!(heard(&mut world, 0), [(at(1200), Heard::Woke)], "300 ms at half the pace");
}

#[test]
fn a_clock_that_jumps_wakes_its_node_at_once() {
    let mut world = world("a_clock_that_jumps", 2);
    world.command(0, Wish::WakeAt(Some(at(3_600_000))));
    world.run_for(ms(100));
    world.jump_clock(0, Duration::from_secs(7200));
    world.run_for(ms(100));
    assert_eq!(heard(&mut world, 0), [(at(100), Heard::Woke)]);
    assert_eq!((world.local_time(0), world.local_time(1)), (at(7_200_200), at(200)));
}

#[test]
fn a_slow_node_handles_one_frame_after_another() {
    let mut world = world("a_slow_node", 2);
    world.set_slowness(1, ms(100));
    world.command(1, Wish::WakeAt(Some(at(50))));
    (0..4).for_each(|number| world.command(0, Wish::Ping(to(1), number)));
    world.run_for(ms(1000));
    let me = Pinger::new(0).peer;
    let ping = |millis, number| (at(millis), Heard::Ping(me, number));
    let story = [ping(10, 0), (at(110), Heard::Woke), ping(110, 1), ping(210, 2), ping(310, 3)];
    assert_eq!(heard(&mut world, 1), story, "the timeout is late, and comes before the next frame");
    world.set_slowness(1, Duration::ZERO);
    (0..2).for_each(|number| world.command(0, Wish::Ping(to(1), number)));
    world.run_for(ms(1000));
    assert_eq!(heard(&mut world, 1), [ping(1010, 0), ping(1010, 1)]);
}

#[test]
fn a_slow_node_keeps_order_and_no_more_than_its_backlog() {
    let mut world = with_backlog("a_slow_nodes_backlog", 2, 20);
    world.set_slowness(1, ms(7));
    // Some come just when it is free.
    for number in 0..40 {
        world.command(0, Wish::Ping(to(1), number));
        world.run_for(ms(if number % 3 == 0 { 7 } else { 1 }));
    }
    world.pause(1);
    world.run_for(ms(100));
    world.resume(1);
    world.run_for(ms(6000));
    let numbers: Vec<u64> = heard(&mut world, 1)
        .into_iter()
        .filter_map(|(_, event)| if let Heard::Ping(_, number) = event { Some(number) } else { None })
        .collect();
    assert!(numbers.is_sorted() && numbers.len() < 40 && numbers.len() >= 21, "{numbers:?}");
    assert_eq!(world.counters().of("probe").lost as usize, 40 - numbers.len());
    assert_eq!(world.pending(), 0, "nothing waits for ever");
}

#[test]
fn a_limited_uplink_sends_one_frame_after_another_and_control_first() {
    let mut world = world("a_limited_uplink", 2);
    world.set_uplink(0, Some(Uplink { bytes_per_second: 10_000, queue: 100_000 }));
    for _ in 0..3 {
        world.command(0, said(998));
    }
    world.command(0, Wish::Ping(to(1), 1));
    world.run_for(ms(1000));
    let heard = heard(&mut world, 1);
    let when: Vec<u64> = heard.iter().map(|(at, _)| at.as_nanos() / 1_000_000).collect();
    assert!(matches!(heard[1].1, Heard::Ping(..)), "control passes data that waits: {heard:?}");
    assert_eq!(when, [110, 110, 210, 310], "a tenth of a second for each thousand bytes");
}

#[test]
fn what_waits_on_an_uplink_is_told_in_steps_and_what_does_not_fit_is_lost() {
    let mut world = world("what_waits_on_an_uplink", 2);
    world.set_uplink(0, Some(Uplink { bytes_per_second: 100_000, queue: 250_000 }));
    for _ in 0..3 {
        world.command(0, said(99_998));
    }
    world.run_for(ms(5000));
    let levels: Vec<_> = heard(&mut world, 0);
    let level = |millis, bytes| (at(millis), Heard::Queued(id(1), bytes));
    assert_eq!(levels, [level(0, 200_000), level(1000, 100_000), level(2000, 0)]);
    assert_eq!(world.counters().of("direct/payload").lost, 1);
    assert!(world.last_steps().contains("uplink's queue"));
    assert_eq!(world.pending(), 0);
}

#[test]
fn an_uplink_ends_with_its_node_or_when_its_limit_is_lifted() {
    let mut world = world("an_uplink_ends", 2);
    let uplink = Some(Uplink { bytes_per_second: 100_000, queue: 10_000_000 });
    world.set_uplink(0, uplink);
    (0..3).for_each(|_| world.command(0, said(99_998)));
    world.run_for(ms(1500));
    world.set_uplink(0, None);
    world.run_for(ms(100));
    assert_eq!(world.counters().of("direct/payload").delivered, 3, "what waits leaves at once");
    let levels = heard(&mut world, 0);
    assert_eq!(levels.last(), Some(&(at(1500), Heard::Queued(id(1), 0))));
    world.set_uplink(0, uplink);
    (0..3).for_each(|_| world.command(0, said(99_998)));
    world.run_for(ms(1500));
    world.crash(0, Crash::Power);
    world.restart(0, Pinger::restarted(0));
    world.command(0, said(99_998));
    world.run_for(ms(5000));
    let tally = world.counters().of("direct/payload");
    assert_eq!((tally.delivered, tally.lost), (5, 2), "the new life sends its own");
}

#[test]
fn pairs_are_cut_by_their_share_and_not_transitively() {
    let cut = |seed| {
        let cut = Cut::pairs(0.1, seed);
        let all = (0..100).flat_map(|a| (0..100).map(move |b| (a, b)));
        all.filter(|&(a, b)| cut.severs(a, b)).collect::<BTreeSet<(usize, usize)>>()
    };
    let severed = cut(1);
    assert!(severed.iter().all(|&(a, b)| a != b && severed.contains(&(b, a))), "both ways");
    assert!((800..1190).contains(&severed.len()), "{} of 9900", severed.len());
    assert_eq!(severed, cut(1));
    assert_ne!(severed, cut(2));
    let around = severed.iter().filter(|&&(a, b)| {
        (0..100).any(|by| by != a && by != b && !severed.contains(&(a, by)) && !severed.contains(&(by, b)))
    });
    assert_eq!(around.count(), severed.len(), "others reach both");
    assert!(!Cut::pairs(0.0, 1).severs(0, 1) && Cut::pairs(1.0, 1).severs(0, 1));
    let mut world = world("pairs_are_cut", 2);
    world.cut(Cut::pairs(1.0, 1));
    world.command(0, Wish::Ping(to(1), 1));
    world.run_for(ms(100));
    assert_eq!(world.counters().of("probe").lost, 1);
}

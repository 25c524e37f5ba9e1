//! Stories of the world itself, told with a machine that pings. The product's machines are tested elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
mod pinger;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use treecast_overlay::id::NodeId;
use treecast_overlay::machine::{Destination, Link, Refusal};
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Header;

use treecast_integration::case;
use treecast_integration::world::*;

use self::pinger::{Heard, Pinger, Wish, id, to};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + ms(millis)
}

/// 10 ms everywhere, nothing goes wrong.
fn calm() -> Config {
    Config {
        topology: Topology::Constant(ms(10)),
        jitter: 0.0,
        spurious_timeouts: 0.0,
        late_turns: 0.0,
        ..Config::default()
    }
}

fn world(name: &str, nodes: usize, config: Config) -> World<Pinger> {
    let mut world = World::new(case!(name, 7), config);
    for slot in 0..nodes {
        world.add(Pinger::new(slot));
    }
    world
}

/// All that one slot heard since the last look, with when; connections' ups are left out.
fn heard(world: &mut World<Pinger>, slot: usize) -> Vec<(Instant, Heard)> {
    let events = world.take_events().into_iter();
    events
        .filter(|(_, other, event)| *other == slot && !matches!(event, Heard::Link(Link::Up { .. })))
        .map(|(at, _, event)| (at, event))
        .collect()
}

fn pongs(events: &[(Instant, Heard)]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|(_, event)| if let Heard::Pong(_, n) = event { Some(*n) } else { None })
        .collect()
}

fn refused(slot: usize, reason: Refusal) -> Heard {
    Heard::Link(Link::Refused { addr: Addr::Memory(slot as u32), id: Some(id(slot)), reason })
}

fn nobody(slot: usize) -> Heard {
    refused(slot, Refusal::Unreachable("nobody listens there".into()))
}

/// The lengths of all turns of a busy node, and how many calls each had. It is paused once.
fn turns(late_turns: f64) -> (Vec<(Duration, u32)>, String) {
    let mut world = world("turns", 12, Config { late_turns, ..calm() });
    for slot in 1..12 {
        world.command(slot, Wish::Beat(ms(7), vec![to(0)]));
    }
    world.run_for(ms(500));
    world.pause(0);
    world.run_for(ms(50));
    world.resume(0);
    world.run_for(ms(500));
    (world.machine(0).unwrap().turns.clone(), world.trace_hash())
}

#[test]
fn turns_end_with_each_call_or_gather_what_comes_within_two_milliseconds() {
    let (each, _) = turns(0.0);
    assert!(each.len() > 1000 && each.iter().all(|&(took, calls)| took.is_zero() && calls <= 1));
    let (some, hash) = turns(0.3);
    let calls = |turns: &[(Duration, u32)]| turns.iter().map(|(_, calls)| calls).sum::<u32>();
    assert!(calls(&some) > 1000 && calls(&each) > 1000);
    assert!(some.iter().any(|&(took, calls)| !took.is_zero() && calls > 3), "none gathers");
    let longest = |turns: &[(Duration, u32)]| turns.iter().filter(|(took, _)| *took > ms(2)).count();
    assert!(longest(&some) <= 1, "only the turn in which it was paused took longer");
    assert_eq!((some, hash), turns(0.3), "the same seed, the same turns");
    let (all, _) = turns(1.0);
    assert!(all.len() < each.len() / 4, "{} turns of {}", all.len(), each.len());
}

#[test]
fn a_turn_ends_with_the_life_of_its_node() {
    let mut world = world("a_turn_ends_with_the_life", 2, Config { late_turns: 1.0, ..calm() });
    world.run_for(ms(5));
    world.command(0, Wish::Ping(to(1), 5));
    world.crash(0, Crash::Process);
    world.restart(0, Pinger::restarted(0));
    world.run_for(ms(5));
    assert_eq!(world.machine(0).unwrap().turns.len(), 1, "the start of the later life");
}

#[test]
fn a_frame_takes_its_latency_and_opens_a_connection() {
    let mut world = world("a_frame_takes_its_latency", 2, calm());
    world.command(0, Wish::Ping(to(1), 5));
    world.run_for(ms(100));
    let peer = |slot| Pinger::new(slot).peer;
    let up = |slot| Heard::Link(Link::Up { peer: peer(slot), generation: 1 });
    let story = [
        (at(10), 1, up(0)),
        (at(10), 1, Heard::Ping(peer(0), 5)),
        (at(20), 0, up(1)),
        (at(20), 0, Heard::Pong(id(1), 5)),
    ];
    assert_eq!(world.take_events(), story);
    assert_eq!(
        (world.now(), world.pending()),
        (at(100), 1),
        "the dial's own timeout is still to come, for nothing"
    );
    world.run_for(Duration::from_secs(10));
    assert_eq!(world.take_events(), []);
}

/// Everybody beats, with everything going wrong that can.
fn busy(seed: u64, fidelity: Fidelity) -> World<Pinger> {
    let faults = Faults { loss: 0.05, duplication: 0.05, reordering: 0.1, reorder_by: ms(200) };
    let config = Config { faults, fidelity, ..Config::default() };
    let case = case!("same_seed_same_trace", seed).with_seed(seed);
    let mut world = World::new(case, config);
    for slot in 0..20 {
        world.add(Pinger::new(slot));
    }
    for slot in 0..20 {
        let friends = (1..4).map(|step| to((slot + step * step) % 20)).collect();
        world.command(slot, Wish::Beat(ms(90 + slot as u64), friends));
    }
    world.run_for(ms(2000));
    world.crash(3, Crash::Process);
    world.crash(4, Crash::Power);
    world.pause(5);
    let cut = world.cut(Cut::Sides((0..20).map(|slot| slot % 2).collect()));
    world.run_for(ms(2000));
    world.heal(cut);
    world.resume(5);
    world.restart(4, Pinger::restarted(4));
    world.run_for(ms(2000));
    world
}

#[test]
fn same_seed_same_trace() {
    let (one, same) = (busy(1, Fidelity::Encoded), busy(1, Fidelity::Encoded));
    assert_eq!(one.trace_hash(), same.trace_hash());
    assert_eq!(one.last_steps(), same.last_steps());
    assert_eq!(one.trace_hash(), busy(1, Fidelity::Values).trace_hash(), "fidelity changes nothing");
    assert_ne!(one.trace_hash(), busy(2, Fidelity::Encoded).trace_hash());
    assert!(one.steps() > 10_000, "{} steps", one.steps());
    assert!(one.machines().any(|(_, machine)| machine.spurious > 0), "no spurious timeout at all");
}

#[test]
fn same_seed_same_trace_in_two_processes() {
    const CHILD: &str = "TREECAST_PRINT_TRACE_HASH";
    let hash = busy(1, Fidelity::Encoded).trace_hash();
    if std::env::var_os(CHILD).is_some() {
        return println!("trace hash {hash}");
    }
    let name = "same_seed_same_trace_in_two_processes";
    let this_test = std::env::current_exe().unwrap();
    let child =
        Command::new(this_test).args([name, "--exact", "--nocapture"]).env(CHILD, "1").output().unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(told.contains(&format!("trace hash {hash}")), "{hash} here, and in the child:\n{told}");
}

#[test]
fn every_frame_is_accounted_for() {
    let mut world = busy(3, Fidelity::Encoded);
    for slot in world.machines().map(|(slot, _)| slot).collect::<Vec<_>>() {
        world.command(slot, Wish::WakeAt(None));
    }
    world.run_for(Duration::from_secs(60));
    let total = world.counters().total();
    assert_eq!(world.pending(), 0);
    assert_eq!(total.sent + total.doubled, total.delivered + total.lost, "\n{}", world.counters());
    let probes = world.counters().of("probe");
    let acks = world.counters().of("probe_ack");
    assert_eq!(acks.sent, probes.delivered, "each probe that came was answered");
    assert!(total.doubled > 0 && total.lost > 0 && total.bytes > total.sent);
}

#[test]
fn dice_lose_and_double_their_share() {
    let faults = Faults { loss: 0.2, duplication: 0.1, ..Faults::default() };
    let mut world = world("dice_lose_and_double_their_share", 2, Config { faults, ..calm() });
    for number in 0..5000 {
        world.command(0, Wish::Say(to(1), Bytes::from(number.to_string())));
    }
    world.run_for(ms(1000));
    let tally = world.counters().of("direct/payload");
    assert_eq!(tally.sent, 5000);
    assert!((900..1100).contains(&tally.lost), "{tally:?}");
    assert!((320..480).contains(&tally.doubled), "{tally:?}");
    world.take_events();
    world.set_faults(Faults::default());
    world.command(0, Wish::Ping(to(1), 1));
    world.run_for(ms(1000));
    assert_eq!(pongs(&heard(&mut world, 0)), [1]);
}

#[test]
fn frames_over_the_limit_are_lost() {
    let mut world = world("frames_over_the_limit", 2, Config { max_frame: 100, ..calm() });
    for length in [50, 200] {
        world.command(0, Wish::Say(to(1), Bytes::from(vec![b'x'; length])));
    }
    world.run_for(ms(100));
    let tally = world.counters().of("direct/payload");
    assert_eq!((tally.delivered, tally.lost), (1, 1));
    assert!(world.last_steps().contains("larger than the frame limit"));
}

#[test]
fn frames_overtake_only_if_reordered() {
    for (reordering, in_order) in [(0.0, true), (0.5, false)] {
        let faults = Faults { reordering, reorder_by: ms(50), ..Faults::default() };
        let mut world = world("frames_overtake_only_if_reordered", 2, Config { faults, ..calm() });
        for number in 0..100 {
            world.command(0, Wish::Ping(to(1), number));
            world.run_for(ms(1));
        }
        world.run_for(ms(1000));
        let pongs = pongs(&heard(&mut world, 0));
        assert_eq!(pongs.len(), 100);
        assert_eq!(pongs.is_sorted(), in_order, "{pongs:?}");
    }
}

#[test]
fn latency_is_the_distance_on_the_plane() {
    let topology = Topology::Plane { nearest: ms(2), across: ms(100) };
    let mut world = world("latency_is_the_distance", 30, Config { topology, ..calm() });
    for slot in 1..30 {
        let way = world.latency(0, slot);
        assert!(way > ms(2) && way <= ms(102), "{way:?}");
        assert_eq!(way, world.latency(slot, 0));
        let begin = world.now();
        world.command(0, Wish::Ping(to(slot), 0));
        world.run_for(ms(500));
        let events = heard(&mut world, 0);
        assert_eq!(events, [(begin + way + way, Heard::Pong(id(slot), 0))]);
    }
}

#[test]
fn without_connections_nothing_is_heard_of_them() {
    let mut world = world("without_connections", 3, Config { connections: Connections::None, ..calm() });
    let edge = world.add(Pinger::edge(3));
    let there = Destination::Peer(Pinger::edge(3).peer);
    world.crash(2, Crash::Process);
    for (number, other) in [to(1), to(2), to(0), to(9), there].into_iter().enumerate() {
        world.command(0, Wish::Ping(other, number as u64));
    }
    world.command(1, Wish::Ping(Destination::Seed(Seed::from(Addr::Memory(0))), 7));
    world.run_for(ms(100));
    assert_eq!(world.pending(), 0, "no dial is waited for");
    let events = world.take_events();
    assert!(!events.iter().any(|(_, _, event)| matches!(event, Heard::Link(_))), "{events:?}");
    let pong = |slot, other, number| (at(20), slot, Heard::Pong(id(other), number));
    for expected in [pong(0, 1, 0), pong(0, edge, 4), pong(1, 0, 7)] {
        assert!(events.contains(&expected), "{expected:?} is not in {events:?}");
    }
    assert_eq!(world.counters().of("probe").lost, 3);
}

#[test]
fn watched_frames_are_counted_on_their_links() {
    let mut world = world("watched_frames", 40, Config { topology: Topology::transit_stub(), ..calm() });
    world.watch_links(|frame| matches!(frame.header, Header::Direct(_)));
    let mut expected = LinkLoads::default();
    for slot in 1..40 {
        world.command(0, Wish::Say(to(slot), Bytes::from_static(b"hello")));
        world.command(0, Wish::Ping(to(slot), 0));
        world.map().count(0, slot, &mut expected);
    }
    world.run_for(ms(2000));
    assert_eq!(world.link_loads(), Some(&expected));
    assert_eq!(expected.max, 39, "all copies leave over one access link");
    let everybody: Vec<usize> = (1..40).collect();
    let mut multicast = LinkLoads::default();
    multicast.add(&world.multicast_links(0, &everybody).unwrap());
    assert_eq!((multicast.max, multicast.used), (1, expected.used));
    world.watch_links(|_| true);
    assert_eq!(world.link_loads(), Some(&LinkLoads::default()), "from zero");
}

#[test]
fn a_cut_severs_both_ways_until_it_is_healed() {
    let mut world = world("a_cut_severs_both_ways", 4, calm());
    let cut = world.cut(Cut::Sides(vec![0, 0, 1, 1]));
    for other in [1, 2] {
        world.command(0, Wish::Ping(to(other), other as u64));
        world.command(3, Wish::Ping(to(other), other as u64));
    }
    world.run_for(ms(1000));
    let events = world.take_events();
    let pongs: Vec<_> = events.iter().filter(|(_, _, e)| matches!(e, Heard::Pong(..))).collect();
    assert_eq!(pongs.iter().map(|(_, slot, _)| *slot).collect::<Vec<_>>(), [0, 3]);
    world.heal(cut);
    world.command(0, Wish::Ping(to(2), 9));
    world.run_for(ms(1000));
    assert!(heard(&mut world, 0).contains(&(at(1020), Heard::Pong(id(2), 9))));
}

#[test]
fn a_one_way_cut_lets_answers_vanish() {
    let mut world = world("a_one_way_cut", 2, calm());
    world.cut(Cut::OneWay { from: BTreeSet::from([1]), to: BTreeSet::from([0]) });
    world.command(0, Wish::Ping(to(1), 1));
    world.run_for(Duration::from_secs(10));
    let events = world.take_events();
    assert!(events.contains(&(at(10), 1, Heard::Ping(Pinger::new(0).peer, 1))), "the way there is open");
    assert_eq!(events.last(), Some(&(at(5000), 0, refused(1, Refusal::TimedOut))), "{events:?}");
}

#[test]
fn isolation_and_broken_pairs_leave_others_alone() {
    for (cut, answered) in [(Cut::isolate(0), vec![(1, 2)]), (Cut::pair(0, 1), vec![(0, 2), (1, 2)])] {
        let mut world = world("isolation_and_broken_pairs", 3, calm());
        world.cut(cut);
        for (from, other) in [(0, 1), (0, 2), (1, 2)] {
            world.command(from, Wish::Ping(to(other), other as u64));
        }
        world.run_for(ms(100));
        let events = world.take_events().into_iter();
        let pongs = events.filter_map(|(_, slot, event)| match event {
            Heard::Pong(_, number) => Some((slot, number)),
            Heard::Ping(..)
            | Heard::Said(_)
            | Heard::Link(_)
            | Heard::Woke
            | Heard::Kept(_)
            | Heard::Queued(..) => None,
        });
        assert_eq!(pongs.collect::<Vec<_>>(), answered);
    }
}

#[test]
fn a_paused_node_is_late_for_its_timeout_and_then_hears_all() {
    let mut world = world("a_paused_node_is_late", 2, calm());
    world.command(1, Wish::WakeAt(Some(at(50))));
    world.pause(1);
    world.command(0, Wish::Ping(to(1), 1));
    world.command(1, Wish::Ping(to(0), 2));
    world.run_for(ms(500));
    assert_eq!(
        heard(&mut world, 0),
        [],
        "nothing comes from a paused node, not even what it was told to send"
    );
    assert!(!world.is_running(1) && world.machine(1).is_some());
    world.resume(1);
    let events = heard(&mut world, 1);
    assert_eq!(events, [(at(500), Heard::Woke), (at(500), Heard::Ping(Pinger::new(0).peer, 1))]);
    world.run_for(ms(500));
    assert_eq!(pongs(&heard(&mut world, 0)), [1]);
}

#[test]
fn a_pause_keeps_no_more_than_its_backlog() {
    let mut world = world("a_pause_keeps_no_more", 2, Config { backlog: 3, ..calm() });
    world.pause(1);
    (0..10).for_each(|number| world.command(0, Wish::Ping(to(1), number)));
    world.run_for(ms(100));
    world.resume(1);
    world.run_for(ms(100));
    assert_eq!(pongs(&heard(&mut world, 0)), [0, 1, 2]);
    assert_eq!(world.counters().of("probe").lost, 7);
}

#[test]
fn a_crashed_process_is_heard_of() {
    let mut world = world("a_crashed_process_is_heard_of", 3, calm());
    world.command(0, Wish::Ping(to(1), 1));
    world.run_for(ms(100));
    world.take_events();
    world.crash(1, Crash::Process);
    world.run_for(ms(100));
    assert_eq!(heard(&mut world, 0), [(at(110), Heard::Link(Link::Down { peer: id(1), generation: 1 }))]);
    world.command(2, Wish::Ping(to(1), 1));
    world.run_for(ms(100));
    assert_eq!(heard(&mut world, 2), [(at(220), nobody(1))]);
    world.command(2, Wish::Ping(to(9), 1));
    world.run_for(ms(100));
    assert_eq!(heard(&mut world, 2), [(at(320), nobody(9))], "a slot that never was");
}

#[test]
fn a_node_without_power_says_nothing_until_it_is_back() {
    let mut world = world("a_node_without_power", 3, calm());
    world.command(0, Wish::Ping(to(1), 1));
    world.run_for(ms(100));
    world.crash(1, Crash::Power);
    world.take_events();
    world.command(0, Wish::Ping(to(1), 2));
    world.command(2, Wish::Ping(to(1), 3));
    world.run_for(ms(9900));
    assert_eq!(world.take_events(), [(at(5100), 2, refused(1, Refusal::TimedOut))]);
    world.restart(1, Pinger::restarted(1));
    // The survivor's end is half open: the new process knows nothing of it.
    world.command(0, Wish::Ping(to(1), 4));
    world.run_for(ms(100));
    assert_eq!(
        world.take_events(),
        [(at(10_020), 0, Heard::Link(Link::Down { peer: id(1), generation: 1 }))]
    );
    world.command(0, Wish::Ping(to(1), 5));
    world.run_for(ms(100));
    let events = world.take_events();
    let up = |incarnation, slot| {
        let peer = Peer { incarnation, ..Pinger::new(slot).peer };
        Heard::Link(Link::Up { peer, generation: 3 })
    };
    assert!(events.contains(&(at(10_110), 1, up(1, 0))), "{events:?}");
    assert!(events.contains(&(at(10_120), 0, up(2, 1))), "generations grow, and the new incarnation is seen");
    assert!(events.contains(&(at(10_120), 0, Heard::Pong(id(1), 5))));
}

#[test]
fn a_node_that_stops_is_handed_out_and_its_last_words_arrive() {
    let mut world = world("a_node_that_stops", 2, calm());
    world.command(0, Wish::Ping(to(1), 1));
    world.run_for(ms(100));
    world.command(1, Wish::Say(to(0), Bytes::from_static(b"farewell")));
    let gone = world.stop(1);
    assert_eq!(gone.peer.id, id(1));
    assert!(world.machine(1).is_none());
    world.take_events();
    world.run_for(ms(100));
    let down = Heard::Link(Link::Down { peer: id(1), generation: 1 });
    assert_eq!(
        heard(&mut world, 0),
        [(at(110), Heard::Said(Bytes::from_static(b"farewell"))), (at(110), down)]
    );
}

#[test]
fn moved_deadlines_fire_once_and_in_time() {
    let mut world = world("moved_deadlines", 1, calm());
    for moved in [500, 300, 400, 100, 200] {
        world.command(0, Wish::WakeAt(Some(at(moved))));
    }
    world.run_for(ms(1000));
    assert_eq!(heard(&mut world, 0), [(at(200), Heard::Woke)]);
    world.command(0, Wish::WakeAt(Some(at(1100))));
    world.command(0, Wish::WakeAt(None));
    world.run_for(ms(1000));
    assert_eq!(heard(&mut world, 0), []);
    world.command(0, Wish::WakeAt(Some(at(1))));
    world.run_for(ms(0));
    assert_eq!(heard(&mut world, 0), [(at(2000), Heard::Woke)], "a deadline that has passed fires at once");
    assert_eq!(
        world.machine(0).map(|machine| machine.spurious),
        Some(0),
        "no stale wake reached the machine"
    );
    assert_eq!(world.pending(), 0);
}

#[test]
fn a_deadline_that_keeps_moving_does_not_fill_the_queue() {
    let mut world = world("a_deadline_that_keeps_moving", 1, calm());
    for later in 0..10_000 {
        world.command(0, Wish::WakeAt(Some(at(100 + later))));
    }
    assert_eq!(world.pending(), 1);
    world.run_for(ms(20_000));
    assert_eq!(heard(&mut world, 0), [(at(10_099), Heard::Woke)]);
}

#[test]
fn deadlines_die_with_their_node() {
    let mut world = world("deadlines_die_with_their_node", 1, calm());
    world.command(0, Wish::WakeAt(Some(at(50))));
    world.command(0, Wish::Keep(1));
    world.crash(0, Crash::Process);
    world.restart(0, Pinger::restarted(0));
    world.command(0, Wish::WakeAt(Some(at(80))));
    world.command(0, Wish::Keep(2));
    world.run_for(ms(100));
    assert_eq!(heard(&mut world, 0), [(at(1), Heard::Kept(2)), (at(80), Heard::Woke)]);
}

#[test]
fn an_edge_is_reached_only_over_what_it_opened() {
    let mut world = world("an_edge_is_reached_only", 2, calm());
    let edge = world.add(Pinger::edge(2));
    let there = Destination::Peer(Pinger::edge(2).peer);
    world.command(0, Wish::Ping(there, 1));
    world.command(1, Wish::Ping(Destination::Seed(Seed::from(Addr::Memory(2))), 2));
    world.run_for(ms(100));
    let events = world.take_events();
    let refused = |addr, id, why: &str| Link::Refused { addr, id, reason: Refusal::Unreachable(why.into()) };
    let no_connection = refused(Addr::Unreachable, Some(id(2)), "it opened no connection to this node");
    let no_listener = refused(Addr::Memory(2), None, "nobody listens there");
    assert_eq!(events, [(at(0), 0, Heard::Link(no_connection)), (at(20), 1, Heard::Link(no_listener))]);
    world.command(edge, Wish::Ping(to(0), 3));
    world.run_for(ms(100));
    world.command(0, Wish::Ping(there, 4));
    world.run_for(ms(100));
    let events = world.take_events();
    assert!(events.contains(&(at(120), 2, Heard::Pong(id(0), 3))), "the answer comes back: {events:?}");
    assert!(events.contains(&(at(220), 0, Heard::Pong(id(2), 4))), "{events:?}");
}

#[test]
fn a_dial_to_the_wrong_node_names_who_answered() {
    let mut world = world("a_dial_to_the_wrong_node", 2, calm());
    let wrong = Peer { id: NodeId(1), ..Pinger::new(1).peer };
    let refused = |slot, wanted, reason| {
        Heard::Link(Link::Refused { addr: Addr::Memory(slot), id: Some(NodeId(wanted)), reason })
    };
    world.command(0, Wish::Ping(Destination::Peer(wrong), 1));
    world.command(0, Wish::Ping(Destination::Seed(Seed::from(Addr::Memory(0))), 2));
    world.run_for(ms(100));
    let myself = Link::Refused { addr: Addr::Memory(0), id: None, reason: Refusal::Myself };
    let story = [(at(0), Heard::Link(myself)), (at(20), refused(1, 1, Refusal::WrongId(id(1))))];
    assert_eq!(heard(&mut world, 0), story);
    world.command(0, Wish::Ping(Destination::Seed(Seed::from(Addr::Memory(1))), 3));
    world.run_for(ms(100));
    world.command(0, Wish::Ping(Destination::Peer(wrong), 4));
    world.run_for(ms(100));
    let story = [(at(120), Heard::Pong(id(1), 3)), (at(220), refused(1, 1, Refusal::WrongId(id(1))))];
    assert_eq!(heard(&mut world, 0), story, "also where a connection with the right one is up");
}

#[test]
fn both_may_dial_at_once() {
    let mut world = world("both_may_dial_at_once", 2, calm());
    for round in 0..3 {
        world.command(0, Wish::Ping(to(1), round));
        world.command(1, Wish::Ping(to(0), round));
        world.run_for(ms(100));
    }
    let events = world.take_events();
    let count = |wanted: fn(&Heard) -> bool| events.iter().filter(|(.., event)| wanted(event)).count();
    assert_eq!(count(|event| matches!(event, Heard::Pong(..))), 6);
    assert_eq!(count(|event| matches!(event, Heard::Link(Link::Up { .. }))), 2, "{events:?}");
    assert_eq!(count(|event| matches!(event, Heard::Link(Link::Down { .. } | Link::Refused { .. }))), 0);
}

#[test]
fn an_observer_gets_the_events() {
    let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let mut world = world("an_observer_gets_the_events", 2, calm());
    let notes = seen.clone();
    world.hand_events_to(move |at, slot, event| notes.borrow_mut().push((at, slot, event)));
    world.command(0, Wish::Ping(to(1), 1));
    world.run_for(ms(100));
    assert_eq!((seen.borrow().len(), world.take_events().len()), (4, 0));
}

#[test]
fn waiting_ends_in_time_and_says_how_to_see_it_again() {
    let mut world = world("waiting_ends_in_time", 2, calm());
    world.command(0, Wish::Beat(ms(30), vec![to(1)]));
    assert_eq!(
        world.run_until(ms(1000), |world| world.counters().of("probe_ack").delivered >= 2),
        Ok(ms(80))
    );
    let error = world.run_until(ms(1000), |world| world.counters().of("leave").sent > 0).unwrap_err();
    assert_eq!(world.now(), at(1080));
    let command = format!(
        "TREECAST_SEED={} cargo test -p treecast-integration --test world waiting",
        world.case().seed
    );
    assert!(error.to_string().contains(&command), "{error}");
    let took = world.run_until_every(ms(500), ms(2000), |world| world.now() >= at(1500));
    assert_eq!(took, Ok(ms(500)));
}

#[test]
fn the_last_steps_are_told_in_words() {
    let mut world = world("the_last_steps", 2, calm());
    world.command(0, Wish::Say(to(1), Bytes::from_static(b"hello")));
    world.run_for(ms(10));
    world.crash(1, Crash::Power);
    let words = world.last_steps();
    for expected in
        ["#0     gets a command", "#1     <- #0 Direct(Payload) + 5 bytes", "loses power", "is up"]
    {
        assert!(words.contains(expected), "`{expected}` is not in\n{words}");
    }
    world.command(0, Wish::Beat(ms(1), vec![to(0)]));
    world.run_for(ms(1000));
    assert_eq!(world.last_steps().lines().count(), KEPT_STEPS + 1);
    assert!(world.last_steps().starts_with("… "));
}

#[test]
#[should_panic(
    expected = "a frame of slot 0 does not decode (4 bytes follow a header that carries no payload)"
)]
fn a_frame_that_the_wire_does_not_carry_is_caught() {
    world("a_frame_that_the_wire_does_not_carry", 2, calm()).command(0, Wish::Garble(to(1)));
}

#[test]
#[should_panic(expected = "asks for a timeout at 0.000000s again and again")]
fn a_machine_that_spins_is_caught() {
    let mut world = world("a_machine_that_spins", 1, calm());
    world.command(0, Wish::Beat(ms(0), Vec::new()));
    world.run_for(ms(1));
}

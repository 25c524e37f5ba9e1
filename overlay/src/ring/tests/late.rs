//! Stories of nodes that are late, and of rings in which all are.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::wire::Purpose;

/// How many frames carry 400 messages from one node, ten milliseconds apart, while each frame takes longer than the one
/// before, up to 0.15 s.
fn frames_while_all_get_late(patience: u8) -> usize {
    let mut net = Net::empty();
    for slot in 0..8 {
        let config = Config::default().with(|config| config.routing.hop_patience = patience);
        net.join((slot > 0).then_some(0), config);
        net.run(Duration::from_secs(1));
    }
    net.run(Duration::from_secs(5));
    let delay = Rc::new(Cell::new(DELAY));
    net.delay = Box::new({
        let delay = delay.clone();
        move |_, _| Some(delay.get())
    });
    (net.logs, net.log) = (true, Vec::new());
    let before = net.events.len();
    for number in 0..400u64 {
        delay.set((delay.get() + Duration::from_millis(2)).min(Duration::from_millis(150)));
        let now = net.now;
        net.node(0).route(now, Key::hash(&number.to_be_bytes()), Bytes::from_static(b"x"));
        net.drain(0);
        net.run(Duration::from_millis(10));
    }
    net.run(Duration::from_secs(9));
    let key = |(_, event): &(usize, Event)| match event {
        Event::Deliver(delivery) => Some(delivery.key),
        _ => None,
    };
    let arrived: BTreeSet<Key> = net.events[before..].iter().filter_map(key).collect();
    assert_eq!(arrived.len(), 400, "all arrive");
    let carries = |frame: &Frame| matches!(&frame.header, Header::Routed(routed) if routed.purpose == Purpose::Application);
    net.log.iter().filter(|(_, _, frame)| carries(frame)).count()
}

#[test]
fn messages_through_a_ring_that_gets_late_are_not_multiplied() {
    let (patient, impatient) = (frames_while_all_get_late(4), frames_while_all_get_late(0));
    assert!(patient < 420, "{patient} frames for 400 messages");
    assert!(impatient > 450, "{impatient} frames where a slow peer is taken for a dead one");
}

#[test]
fn a_node_that_was_stopped_for_three_seconds_finds_none_dead_for_it() {
    let mut net = Net::ring(4);
    net.run(Duration::from_secs(5));
    let (now, other) = (net.now, net.node(1).peer());
    net.node(0).probe(now, other, false);
    let (late, asked) = (now + Duration::from_secs(3), net.node(0).detector.question(other.id));
    // Its own deadlines come first after the stop; the answer waits behind them.
    net.node(0).handle_timeout(late);
    assert_eq!(net.node(0).detector.question(other.id), asked, "it is not even asked again");
    assert!(!net.node(0).detector.is_suspect(other.id));
    net.node(0).handle_timeout(late + Duration::from_secs(4));
    assert_ne!(net.node(0).detector.question(other.id), asked, "no node waits for ever");
}

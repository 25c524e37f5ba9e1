//! Stories of subscribers that come late.

use super::*;
use crate::message::Position;

/// Twenty messages in a log that a node keeps, and the mark behind the fifth.
fn with_history(seed: u8) -> (World, Vec<NodeId>, Mark) {
    let mut world = World::new(12, seed);
    let nodes = world.by_distance();
    let first = world.subscribe(nodes[1], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[3], "kept", 20);
    world.run(seconds(2));
    let mark = world.messages(nodes[1], first)[4].mark;
    (world, nodes, mark)
}

#[test]
fn a_late_subscriber_gets_exactly_what_it_asks_for() {
    let (mut world, nodes, mark) = with_history(170);
    let kept = numbered("kept", 20);
    let cases = [
        (Start::Earliest, 0),
        (Start::Last(7), 13),
        (Start::Last(1), 19),
        (Start::Last(0), 20),
        (Start::Last(500), 0),
        (Start::After(mark), 5),
        (Start::Latest, 20),
    ];
    // On nodes that are not on the tree, on members, and on the root.
    for id in [nodes[9], nodes[1], nodes[0], nodes[10], nodes[2]] {
        let subscriptions: Vec<_> =
            cases.iter().map(|&(start, from)| (world.subscribe(id, start), start, from)).collect();
        world.run(seconds(3));
        for (subscription, start, from) in subscriptions {
            assert_eq!(world.texts(id, subscription), kept[from..], "{start:?} at {id}");
            assert_eq!(world.gaps(id, subscription), [], "{start:?} at {id}");
            assert!(world.started(id, subscription).is_some());
        }
    }
}

#[test]
fn each_kind_of_start_works_alone_on_a_node_of_its_own() {
    for (start, from) in [(Start::Earliest, 0), (Start::Last(7), 13), (Start::Last(0), 20)] {
        let (mut world, nodes, _) = with_history(171);
        let late = world.subscribe(nodes[10], start);
        world.run(seconds(3));
        world.publish(nodes[3], "new");
        world.run(seconds(2));
        let expected = [numbered("kept", 20)[from..].to_vec(), vec!["new".into()]].concat();
        world.expect_all(nodes[10], late, &expected);
    }
}

#[test]
fn a_second_subscriber_of_a_node_that_began_late_gets_the_earlier_ones_too() {
    let (mut world, nodes, mark) = with_history(172);
    let latest = world.subscribe(nodes[10], Start::Latest);
    world.run(seconds(2));
    let after = world.subscribe(nodes[10], Start::After(mark));
    world.run(seconds(3));
    assert_eq!(world.texts(nodes[10], latest), [] as [String; 0]);
    world.expect_all(nodes[10], after, &numbered("kept", 20)[5..]);
}

#[test]
fn what_no_window_keeps_is_announced_as_too_old() {
    let window = WindowConfig { messages: 16, ..WindowConfig::default() };
    let push = PushConfig { messages: 16, ..PushConfig::default() };
    let mut world = World::with_config(12, 173, Config { window, push, ..Config::default() });
    let nodes = world.by_distance();
    let first = world.subscribe(nodes[1], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[3], "m", 60);
    world.run(seconds(3));
    let messages = world.messages(nodes[1], first);
    assert_eq!(messages.len(), 60);
    let late = world.subscribe(nodes[10], Start::After(messages[4].mark));
    let earliest = world.subscribe(nodes[9], Start::Earliest);
    world.run(seconds(3));
    let gaps = world.gaps(nodes[10], late);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!((gaps[0].reason, gaps[0].after), (GapReason::TooOld, Some(messages[4].position)));
    let texts = world.texts(nodes[10], late);
    assert!(!texts.is_empty() && numbered("m", 60).ends_with(&texts), "{texts:?}");
    assert_eq!(world.texts(nodes[9], earliest), texts);
    assert_eq!(world.gaps(nodes[9], earliest), [], "it asked for no more");
}

#[test]
fn a_mark_of_another_log_yields_a_gap_and_the_earliest() {
    let (mut world, nodes, _) = with_history(174);
    let mark = Mark { birth: 1, next: 45 };
    let late = world.subscribe(nodes[5], Start::After(mark));
    world.run(seconds(3));
    let gaps = world.gaps(nodes[5], late);
    let after = Some(Position { birth: 1, offset: 44 });
    assert_eq!((gaps.len(), gaps[0].reason, gaps[0].after), (1, GapReason::OtherLog, after));
    assert_eq!(world.texts(nodes[5], late), numbered("kept", 20));
}

#[test]
fn a_made_up_mark_harms_nobody() {
    let (mut world, nodes, mark) = with_history(175);
    let start = Start::After(Mark { next: u64::MAX, ..mark });
    let made_up = [nodes[0], nodes[1], nodes[5]].map(|id| (id, world.subscribe(id, start)));
    let fine = world.subscribe(nodes[7], Start::Latest);
    world.run(seconds(3));
    let token = world.publish(nodes[3], "goes on");
    world.run(seconds(3));
    assert!(world.receipt(nodes[3], token).is_some());
    world.expect_all(nodes[7], fine, &["goes on".to_string()]);
    for (id, subscription) in made_up {
        world.expect_order(id, subscription);
    }
}

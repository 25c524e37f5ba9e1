//! Stories of logs whose majority has ended, and that begin anew.

use super::*;

/// Several nodes die at once.
fn crash_all(world: &mut World, ids: &[NodeId]) {
    ids.iter().for_each(|&id| world.crash(id));
}

#[test]
fn of_two_nodes_one_dies_and_the_other_goes_on_without_a_gap() {
    for first in [0, 1] {
        let mut world = World::new(2, 160);
        let nodes = world.by_distance();
        let survivor = nodes[1 - first];
        let news = world.subscribe(survivor, Start::Latest);
        world.run(seconds(3));
        world.publish_many(survivor, "before", 20);
        world.run(seconds(1));
        let birth = world.log(survivor).birth;
        world.crash(nodes[first]);
        world.run(seconds(8));
        world.publish_many(survivor, "after", 20);
        world.run(seconds(2));
        world.expect_all(survivor, news, &[numbered("before", 20), numbered("after", 20)].concat());
        assert_eq!(world.failures(survivor), [], "{first}");
        assert_ne!(world.log(survivor).birth, birth, "one of two is no majority: the log began anew");
    }
}

#[test]
fn two_nodes_of_which_one_dies_under_a_running_publisher_lose_nothing() {
    for first in [0, 1] {
        let mut world = World::new(2, 161);
        let nodes = world.by_distance();
        let survivor = nodes[1 - first];
        let news = world.subscribe(survivor, Start::Latest);
        world.run(seconds(3));
        world.publish_many(survivor, "before", 20);
        world.crash(nodes[first]);
        world.publish_many(survivor, "down", 300);
        world.run(seconds(40));
        let texts = world.texts(survivor, news);
        assert_eq!(world.gaps(survivor, news), [], "{first}");
        world.expect_order(survivor, news);
        let answered = world.receipts(survivor).len() + world.failures(survivor).len();
        assert_eq!(answered, 320, "{first}");
        assert!(texts.len() >= world.receipts(survivor).len(), "{first}: what has a receipt is there");
        assert_eq!(world.failures(survivor), [], "{first}: nothing was lost");
    }
}

#[test]
fn all_members_die_and_the_survivors_windows_give_a_new_birth_with_one_gap_each() {
    let mut world = World::new(16, 162);
    let nodes = world.by_distance();
    let readers: Vec<_> = nodes[3..9].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(3));
    world.publish_many(nodes[12], "before", 50);
    world.run(seconds(2));
    let before = world.log(nodes[4]).birth;
    crash_all(&mut world, &nodes[..3]);
    world.run(seconds(15));
    world.publish_many(nodes[13], "after", 20);
    world.run(seconds(5));
    let mut births = Vec::new();
    for &(id, reader) in &readers {
        let expected = [numbered("before", 50), numbered("after", 20)].concat();
        assert_eq!(world.texts(id, reader), expected, "at {id}");
        let gaps = world.gaps(id, reader);
        assert_eq!(gaps.len(), 1, "at {id}: {gaps:?}");
        assert_eq!(gaps[0].reason, GapReason::Unreplicated);
        assert_eq!(gaps[0].after.map(|at| at.birth), Some(before));
        world.expect_order(id, reader);
        births.push(world.messages(id, reader).last().unwrap().mark.birth);
    }
    assert!(births.iter().all(|&birth| birth == births[0] && birth != before));
    // One that comes late reads both births.
    let late = world.subscribe(nodes[10], Start::Earliest);
    world.run(seconds(3));
    let texts = world.texts(nodes[10], late);
    assert!(texts.ends_with(&numbered("after", 20)), "{texts:?}");
    assert_eq!(world.log_members().len(), 3);
}

#[test]
fn a_majority_dies_with_the_root_and_the_last_member_gives_the_new_birth() {
    let mut world = World::new(16, 163);
    let nodes = world.by_distance();
    let reader = world.subscribe(nodes[8], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[12], "before", 50);
    world.run(seconds(2));
    crash_all(&mut world, &nodes[..2]);
    world.run(seconds(12));
    world.publish_many(nodes[12], "after", 20);
    world.run(seconds(5));
    assert_eq!(world.texts(nodes[8], reader), [numbered("before", 50), numbered("after", 20)].concat());
    let gaps = world.gaps(nodes[8], reader);
    assert_eq!(gaps.iter().map(|gap| gap.reason).collect::<Vec<_>>(), [GapReason::Unreplicated]);
    world.expect_order(nodes[8], reader);
}

#[test]
fn a_majority_dies_and_the_root_that_has_everything_goes_on_without_a_gap() {
    let mut world = World::new(16, 164);
    let nodes = world.by_distance();
    let reader = world.subscribe(nodes[8], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[12], "before", 50);
    world.run(seconds(2));
    crash_all(&mut world, &nodes[1..3]);
    world.publish_many(nodes[12], "down", 20);
    world.run(seconds(15));
    world.publish_many(nodes[12], "after", 20);
    world.run(seconds(5));
    let texts = world.texts(nodes[8], reader);
    assert_eq!(world.gaps(nodes[8], reader), [], "the root had all that was committed");
    assert_eq!(texts, [numbered("before", 50), numbered("down", 20), numbered("after", 20)].concat());
    assert_eq!(world.failures(nodes[12]), []);
}

#[test]
fn a_publisher_of_the_log_before_hears_that_it_is_another_and_sends_nothing_twice() {
    let mut world = World::new(16, 165);
    let nodes = world.by_distance();
    let reader = world.subscribe(nodes[8], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[12], "before", 10);
    world.run(seconds(1));
    crash_all(&mut world, &nodes[..3]);
    world.publish_many(nodes[12], "down", 30);
    world.run(seconds(40));
    world.publish_many(nodes[12], "after", 10);
    world.run(seconds(5));
    let (receipts, failures) = (world.receipts(nodes[12]).len(), world.failures(nodes[12]));
    assert_eq!(receipts + failures.len(), 50, "each message got its answer");
    assert!(failures.iter().all(|(_, error)| matches!(error, PublishError::OutcomeUnknown { .. })));
    world.expect_order(nodes[8], reader);
    let texts = world.texts(nodes[8], reader);
    assert!(texts.ends_with(&numbered("after", 10)), "{texts:?}");
    let mut once = texts.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), texts.len(), "a text came twice: {texts:?}");
}

/// Publishes to the root as a made-up publisher.
fn publish_to_root(world: &mut World, publish: wire::Publish) {
    let publisher = world.nodes[&publish.publisher.id()].contact;
    let payload = wire::encode(&Header::Publish(publish), b"made up");
    let root = world.root();
    world.with(root, |forest, cx| forest.handle_deliver(cx, &publisher, &payload, false));
}

fn made_up(publisher: Contact) -> wire::Publish {
    wire::Publish {
        topic: topic(),
        publisher,
        session: 7,
        sequence: 1,
        acknowledged: 0,
        resent: false,
        birth: None,
        signature: wire::Signature::None,
    }
}

#[test]
fn messages_of_another_birth_and_repeated_first_ones_of_a_young_log_are_refused() {
    let mut world = World::new(16, 166);
    let nodes = world.by_distance();
    let reader = world.subscribe(nodes[8], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[12], "before", 10);
    world.run(seconds(1));
    crash_all(&mut world, &nodes[..3]);
    world.run(seconds(12));
    let publisher = world.nodes[&nodes[9]].contact;
    let first = world.sent_of("Refused");
    let root = world.root();
    let lineage = world.log(root).lineage.clone();
    let old = lineage.ancestors()[0].birth;
    publish_to_root(&mut world, wire::Publish { birth: Some(old), ..made_up(publisher) });
    publish_to_root(&mut world, wire::Publish { birth: Some(old ^ 1), ..made_up(publisher) });
    publish_to_root(&mut world, wire::Publish { resent: true, ..made_up(publisher) });
    world.run(seconds(1));
    assert_eq!(world.sent_of("Refused"), first + 3);
    assert!(!world.texts(nodes[8], reader).contains(&"made up".to_string()));
    publish_to_root(&mut world, made_up(publisher));
    world.run(seconds(2));
    assert_eq!(world.sent_of("Refused"), first + 3, "one that was sent but once is in no log");
    assert_eq!(world.texts(nodes[8], reader).last().unwrap(), "made up");
    // After 30 s no publisher of the birth before waits any more.
    world.run(seconds(31));
    publish_to_root(&mut world, wire::Publish { session: 8, resent: true, ..made_up(publisher) });
    world.run(seconds(1));
    assert_eq!(world.texts(nodes[8], reader).iter().filter(|text| *text == "made up").count(), 2);
}

#[test]
fn a_root_that_steps_down_sends_waiting_publishers_to_the_next() {
    let mut world = World::new(12, 167);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[9], "before", 5);
    world.run(seconds(1));
    // Nothing is committed, so that receipts wait at the root.
    world.cut = Some(|header| matches!(header, Header::Ack(_) | Header::Beat(_)));
    world.publish_many(nodes[9], "open", 10);
    world.cut = None;
    let before = world.sent_of("Refused");
    world.enter(NodeId(topic().key().0 ^ 1));
    world.run(seconds(1));
    assert!(world.sent_of("Refused") > before, "NotRoot: they need not wait for a time-out");
    world.run(seconds(4));
    world.expect_all(nodes[6], news, &[numbered("before", 5), numbered("open", 10)].concat());
    assert_eq!((world.receipts(nodes[9]).len(), world.failures(nodes[9]).len()), (15, 0));
}

use super::*;

fn small_window() -> Config {
    Config {
        window: WindowConfig { messages: 32, ..WindowConfig::default() },
        push: PushConfig { messages: 16, ..PushConfig::default() },
        tree: TreeConfig { splice_after: seconds(3600), ..TreeConfig::default() },
        ..Config::default()
    }
}

#[test]
fn a_subscriber_that_takes_nothing_is_waited_for_and_then_gets_a_gap() {
    let mut world = World::with_config(12, 31, small_window());
    let nodes = world.by_distance();
    let slow = world.subscribe_with(nodes[3], Start::Latest, 5);
    let fast = world.subscribe(nodes[3], Start::Latest);
    let far = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(2));
    world.publish_many(nodes[8], "message", 100);
    world.run(millis(1200));
    assert_eq!(
        world.texts(nodes[3], fast).len(),
        5 + 21,
        "three quarters of the window, of which each eighth entry carries the sessions"
    );
    world.run(seconds(2));
    world.expect_all(nodes[3], fast, &numbered("message", 100));
    world.expect_all(nodes[6], far, &numbered("message", 100));
    assert_eq!(world.texts(nodes[3], slow), numbered("message", 5), "a message costs one credit");
    world.with(nodes[3], |forest, cx| forest.add_credit(cx, slow, 1000));
    world.run(seconds(1));
    let gaps = world.gaps(nodes[3], slow);
    let messages = world.messages(nodes[3], slow);
    let expected =
        Gap { after: Some(messages[4].position), until: messages[5].position, reason: GapReason::TooOld };
    assert_eq!(gaps, [expected]);
    assert_eq!(world.texts(nodes[3], slow)[5..], numbered("message", 100)[72..], "the window's 32 entries");
}

#[test]
fn a_child_behind_a_full_link_falls_out_of_the_window_alone() {
    let mut world = World::with_config(12, 32, small_window());
    let nodes = world.by_distance();
    let stuck = world.subscribe(nodes[3], Start::Latest);
    let fine = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(2));
    let parent = world.parent(nodes[3]).unwrap();
    world.with(parent, |forest, cx| forest.handle_queued(cx, nodes[3], 300 << 10));
    world.publish_many(nodes[8], "message", 100);
    world.run(seconds(1));
    assert_eq!(world.texts(nodes[6], fine).len(), 21, "three quarters of the window");
    world.run(seconds(3));
    assert_eq!(world.messages(nodes[3], stuck).len(), 0, "nothing is pushed above the high-water mark");
    world.expect_all(nodes[6], fine, &numbered("message", 100));
    world.with(parent, |forest, cx| forest.handle_queued(cx, nodes[3], 0));
    world.run(seconds(2));
    let gaps = world.gaps(nodes[3], stuck);
    assert_eq!((gaps.len(), gaps[0].reason), (1, GapReason::TooOld));
    assert_eq!(world.texts(nodes[3], stuck), numbered("message", 100)[72..]);
    assert_eq!(gaps[0].until, world.messages(nodes[3], stuck)[0].position);
}

#[test]
fn thousands_of_messages_that_waited_are_admitted_at_once() {
    let config = Config {
        window: WindowConfig { messages: 4096, ..WindowConfig::default() },
        admission: AdmissionConfig { patience: seconds(60), ..AdmissionConfig::default() },
        replication: ReplicationConfig { copies: 1, ..ReplicationConfig::default() },
        ..Config::default()
    };
    let mut world = World::with_config(14, 37, config);
    let nodes = world.by_distance();
    let slow = world.subscribe_with(nodes[0], Start::Latest, 1);
    world.run(seconds(2));
    // Each learns which node is the root, and sends a whole window from then on.
    for count in [1, 599] {
        for &publisher in &nodes[1..13] {
            world.publish_many(publisher, &format!("{publisher}"), count);
        }
        world.run(seconds(5));
    }
    world.with(nodes[0], |forest, cx| forest.add_credit(cx, slow, 10_000));
    world.run(seconds(5));
    let texts = world.texts(nodes[0], slow);
    assert_eq!(texts.len(), 12 * 600);
    assert!(world.gaps(nodes[0], slow).is_empty());
    let receipts: usize = nodes[1..13].iter().map(|&publisher| world.receipts(publisher).len()).sum();
    assert_eq!(receipts, 12 * 600);
}

#[test]
fn a_subscriber_that_goes_on_reading_loses_nothing_whatever_is_published() {
    let mut world = World::with_config(12, 36, small_window());
    let nodes = world.by_distance();
    let slow = world.subscribe_with(nodes[3], Start::Latest, 1);
    let fast = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(2));
    for number in 0..100 {
        for &publisher in &nodes[7..11] {
            world.publish(publisher, &format!("{publisher} {number}"));
        }
    }
    for _ in 0..400 {
        world.run(millis(50));
        world.with(nodes[3], |forest, cx| forest.add_credit(cx, slow, 1));
    }
    world.run(seconds(2));
    let texts = world.texts(nodes[3], slow);
    assert_eq!((texts.len(), world.gaps(nodes[3], slow)), (400, Vec::new()));
    world.expect_all(nodes[6], fast, &texts);
    for &publisher in &nodes[7..11] {
        let own = texts.iter().filter(|text| text.starts_with(&format!("{publisher} ")));
        let order = (0..100).map(|number| format!("{publisher} {number}"));
        assert!(own.cloned().eq(order), "in the order of publication");
        assert_eq!((world.receipts(publisher).len(), world.failures(publisher)), (100, vec![]));
    }
}

#[test]
fn a_slow_subscriber_that_changes_its_parent_loses_nothing() {
    let mut world = World::with_config(12, 37, small_window());
    let nodes = world.by_distance();
    let slow = world.subscribe_with(nodes[3], Start::Latest, 1);
    let fast = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(2));
    for number in 0..200 {
        world.publish(nodes[8], &format!("message {number}"));
    }
    for step in 0..220 {
        world.run(millis(50));
        world.with(nodes[3], |forest, cx| forest.add_credit(cx, slow, 1));
        if step % 60 == 30
            && let Some(parent) = world.parent(nodes[3])
        {
            world.with(nodes[3], |forest, cx| forest.handle_link_down(cx, parent));
        }
    }
    world.expect_all(nodes[3], slow, &numbered("message", 200));
    world.expect_all(nodes[6], fast, &numbered("message", 200));
}

#[test]
fn a_silent_child_is_not_pushed_more_than_the_limit() {
    let push = PushConfig { messages: 256, ..PushConfig::default() };
    let mut world = World::with_config(4, 33, single(Config { push, ..Config::default() }));
    let nodes = world.by_distance();
    world.subscribe(nodes[1], Start::Latest);
    world.run(seconds(2));
    world.cut = Some(|header| matches!(header, Header::Ack(_)));
    for number in 0..400 {
        world.publish(nodes[0], &format!("message {number}"));
        world.run(Duration::from_micros(100));
    }
    assert_eq!(world.receipts(nodes[0]).len(), 400, "the publisher is not slowed");
    assert_eq!(world.sent["Data"], 256);
}

#[test]
fn all_windows_together_stay_within_their_limit() {
    let config = Config {
        max_payload: 16 << 10,
        window: WindowConfig { bytes: 64 << 10, total_bytes: 128 << 10, ..WindowConfig::default() },
        push: PushConfig { bytes: 64 << 10, ..PushConfig::default() },
        ..Config::default()
    };
    let mut world = World::with_config(1, 34, config);
    let me = world.root();
    for number in 0..8 {
        let topic = Topic::new(&format!("topic {number}")).unwrap().id();
        for token in 0..8 {
            let payload = Bytes::from(vec![0; 10 << 10]);
            world.with(me, |forest, cx| forest.publish(cx, Token(number * 100 + token), topic, payload));
            world.run(millis(1));
        }
    }
    let forest = &world.nodes[&me].forest;
    assert_eq!(world.receipts(me).len(), 64);
    assert!(forest.quota.windows.bytes() <= 128 << 10);
    let last = Topic::new("topic 7").unwrap().id();
    let kept = forest.trees[&last]
        .flow
        .log
        .part()
        .unwrap()
        .window
        .entries_from(0)
        .filter(|(_, entry)| entry.body.members().is_none())
        .count();
    assert_eq!(kept, 6, "the topic that grew last keeps its whole window");
}

#[test]
fn small_messages_are_copied_out_of_the_buffers_they_came_in() {
    let mut world = World::new(4, 35);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[1], Start::Latest);
    world.run(seconds(2));
    world.publish(nodes[0], "small");
    world.run(seconds(1));
    let at_root = world.nodes[&nodes[0]].forest.trees[&topic()].flow.log.part().unwrap();
    let at_child = world.nodes[&nodes[1]].forest.trees[&topic()].flow.log.part().unwrap();
    let [root_entry, child_entry] = [at_root, at_child].map(|log| {
        log.window
            .entries_from(0)
            .map(|(_, entry)| entry)
            .find(|entry| entry.body.members().is_none())
            .unwrap()
    });
    assert_eq!(root_entry.encoded, child_entry.encoded, "forwarded unchanged");
    assert_ne!(root_entry.encoded.as_ptr(), child_entry.encoded.as_ptr());
    assert_eq!(world.messages(nodes[1], news).len(), 1);
}

#[test]
fn what_is_lost_again_when_it_was_asked_for_comes_at_last_however_far_the_child_is() {
    // Its answer takes as long as anything is ever waited for.
    let wait = millis(300);
    let push = PushConfig { rto_min: wait, rto_max: wait, ack_delay: millis(100), ..PushConfig::default() };
    let mut world = World::with_config(2, 45, single(Config { push, ..Config::default() }));
    let (root, child) = (world.by_distance()[0], world.by_distance()[1]);
    let news = world.subscribe(child, Start::Latest);
    world.run(seconds(3));
    let is_data: fn(&Header) -> bool = |header| matches!(header, Header::Data(_));
    world.cut = Some(is_data);
    world.publish(root, "lost");
    world.run(millis(20));
    world.cut = None;
    world.publish(root, "behind a hole");
    // It comes, and the question for the other one goes.
    world.run(millis(8));
    world.cut = Some(is_data);
    world.run(millis(200));
    assert_eq!(world.texts(child, news), [] as [String; 0]);
    // No more is heard of the child: its parent goes back by itself.
    world.cut = Some(|header| !matches!(header, Header::Data(_)));
    world.run(millis(1200));
    world.expect_all(child, news, &["lost".into(), "behind a hole".into()]);
}

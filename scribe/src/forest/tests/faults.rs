use super::*;

#[test]
fn over_a_bad_network_everything_still_arrives_once_and_in_order() {
    for seed in 0..12 {
        let mut world = World::new(25, 100 + seed);
        world.loss = 10;
        world.twice = 10;
        world.jitter = millis(30);
        let nodes = world.by_distance();
        let subscriptions: Vec<_> =
            nodes[1..12].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
        world.run(seconds(20));
        for (id, subscription) in &subscriptions {
            assert!(world.started(*id, *subscription).is_some(), "seed {seed}: {id:?} has no start");
        }
        for number in 0..100 {
            world.publish(nodes[15], &format!("a {number}"));
            world.publish(nodes[16], &format!("b {number}"));
            world.run(millis(20));
        }
        world.run(seconds(60));
        assert_eq!(world.failures(nodes[15]), [], "seed {seed}");
        assert_eq!(world.failures(nodes[16]), [], "seed {seed}");
        assert_eq!(world.receipts(nodes[16]).len(), 100, "seed {seed}");
        let expected = world.texts(nodes[1], subscriptions[0].1);
        assert_eq!(expected.len(), 200, "seed {seed}");
        for &(id, subscription) in &subscriptions {
            world.expect_all(id, subscription, &expected);
        }
    }
}

#[test]
fn a_child_entry_lost_by_the_parent_is_repaired_within_five_seconds() {
    let mut world = World::new(12, 41);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[4], Start::Latest);
    world.run(seconds(4));
    let parent = world.parent(nodes[4]).unwrap();
    world
        .with(parent, |forest, cx| forest.with_tree(cx, topic(), |tree, cx| tree.remove_child(cx, nodes[4])));
    assert_eq!(world.children(parent), []);
    world.publish(nodes[7], "meanwhile");
    world.run(seconds(5));
    world.expect_all(nodes[4], news, &["meanwhile".to_string()]);
    assert!(world.children(world.parent(nodes[4]).unwrap()).contains(&nodes[4]));
}

#[test]
fn a_child_entry_that_the_child_denies_is_removed_within_five_seconds() {
    let mut world = World::new(12, 41);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[4], Start::Latest);
    world.run(seconds(4));
    let parent = world.parent(nodes[4]).unwrap();
    world.cut = Some(|header| matches!(header, Header::Leave { .. }));
    world.with(nodes[4], |forest, cx| forest.unsubscribe(cx, news));
    world.run(millis(2100));
    assert!(!world.on_tree().contains(&nodes[4]));
    assert_eq!(world.children(parent), [nodes[4]], "the goodbye was lost");
    world.cut = None;
    world.run(seconds(5));
    assert_eq!(world.children(parent), []);
}

#[test]
fn idling_costs_the_same_for_one_topic_as_for_many() {
    let mut beats = Vec::new();
    for count in [1, 200] {
        let mut world = World::new(2, 42);
        let nodes = world.alive();
        for number in 0..count {
            let topic = Topic::new(&format!("topic {number}")).unwrap().id();
            for (index, &id) in nodes.iter().enumerate() {
                let subscription = SubscriptionId(number * 2 + index as u64);
                world.with(id, |forest, cx| forest.subscribe(cx, subscription, topic, Start::Latest, 10));
            }
        }
        world.run(seconds(20));
        world.sent.clear();
        world.run(seconds(60));
        assert_eq!(world.sent.keys().copied().collect::<Vec<_>>(), ["Beat"], "{count} topics");
        beats.push(world.sent["Beat"]);
    }
    assert_eq!(beats[0], beats[1]);
    assert!((118..=122).contains(&beats[0]), "one beat a second each way, not {beats:?}");
}

#[test]
fn a_parent_that_falls_silent_is_given_up_without_being_found_dead() {
    let mut world = World::new(60, 11);
    let nodes = world.by_distance();
    let subscriptions: Vec<_> =
        nodes[1..30].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(3));
    let forwarder = nodes[1..30].iter().copied().find(|&id| !world.children(id).is_empty()).unwrap();
    let child = world.children(forwarder)[0];
    world.nodes.get_mut(&forwarder).unwrap().alive = false;
    world.run(seconds(4));
    world.find_dead(forwarder);
    world.publish_many(nodes[0], "after", 5);
    world.run(seconds(3));
    assert_ne!(world.parent(child), Some(forwarder));
    for (id, subscription) in subscriptions.into_iter().filter(|(id, _)| *id != forwarder) {
        world.expect_all(id, subscription, &numbered("after", 5));
    }
}

#[test]
fn garbage_harms_nobody() {
    let mut world = World::new(4, 43);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[1], Start::Latest);
    world.run(seconds(2));
    let stranger = world.nodes[&nodes[3]].contact;
    for _ in 0..5000 {
        let len = world.rng.random_range(0..80);
        let mut bytes: Vec<u8> = (0..len).map(|_| world.rng.random()).collect();
        if len > 17 {
            // Half-plausible: a known kind of message about the very topic.
            bytes[0] %= 20;
            bytes[1..17].copy_from_slice(&topic().key().0.to_be_bytes());
        }
        let payload = Bytes::from(bytes);
        for &id in &nodes[..3] {
            world.with(id, |forest, cx| forest.handle_received(cx, &stranger, &payload));
            world.with(id, |forest, cx| forest.handle_forward(cx, &stranger, &payload));
            world.with(id, |forest, cx| forest.handle_deliver(cx, &stranger, &payload, false));
        }
    }
    world.run(seconds(30));
    let token = world.publish(nodes[2], "still here");
    world.run(seconds(10));
    let unheard = world.receipt(nodes[2], token).is_none() && world.failures(nodes[2]).is_empty();
    assert!(!unheard);
    world.expect_order(nodes[1], news);
}

#[test]
fn many_crashes_and_newcomers_leave_nothing_twice_and_all_attached() {
    for seed in 0..8 {
        let mut world = World::new(30, 60 + seed);
        let nodes = world.by_distance();
        let publisher = nodes[29];
        let mut live: Vec<_> =
            nodes[0..20].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
        world.run(seconds(3));
        for round in 0..8 {
            let victim = live.remove(world.rng.random_range(0..live.len())).0;
            world.crash(victim);
            let newcomer = NodeId(topic().key().0 ^ world.rng.random::<u128>() >> (round * 6));
            world.enter(newcomer);
            live.push((newcomer, world.subscribe(newcomer, Start::Latest)));
            world.publish_many(publisher, &format!("round {round}"), 30);
            world.run(seconds(4));
        }
        world.run(seconds(30));
        world.publish_many(publisher, "end", 10);
        world.run(seconds(10));
        for (id, subscription) in live {
            let texts = world.texts(id, subscription);
            assert!(texts.ends_with(&numbered("end", 10)), "seed {seed}: {id:?} {texts:?}");
            world.expect_order(id, subscription);
        }
        assert_eq!(world.receipts(publisher).len() + world.failures(publisher).len(), 250, "seed {seed}");
    }
}

#[test]
fn repairs_cost_little_on_a_network_that_loses_and_reorders() {
    let mut world = World::new(25, 100);
    (world.loss, world.twice, world.jitter) = (10, 10, millis(30));
    let nodes = world.by_distance();
    for &id in &nodes[1..12] {
        world.subscribe(id, Start::Latest);
    }
    world.run(seconds(20));
    world.sent.clear();
    for number in 0..200 {
        world.publish(nodes[15], &number.to_string());
        world.run(millis(10));
    }
    world.run(seconds(30));
    let edges: u64 = nodes.iter().map(|&id| world.children(id).len() as u64).sum();
    let needed = edges * 200;
    assert!(world.sent["Data"] < needed * 3 / 2, "{} entries sent, {needed} needed", world.sent["Data"]);
    assert!(world.sent["Ack"] < needed, "{} acknowledgements for {needed} entries", world.sent["Ack"]);
}

#[test]
fn a_first_message_that_comes_late_to_the_next_root_is_not_delivered_twice() {
    let mut world = World::new(20, 71);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[3], Start::Latest);
    world.run(seconds(2));
    // Somebody on its way never heard that the root took it over, and passes it on once more after the root's death.
    world.publish(nodes[9], "once");
    let routed = |what: &&Happening| matches!(what, Happening::Routed { .. });
    let Some(Happening::Routed { origin, key, payload, .. }) = world.queue.values().find(routed) else {
        panic!("the message is on its way");
    };
    let (origin, key, payload) = (*origin, *key, payload.clone());
    world.run(seconds(1));
    world.crash(nodes[0]);
    world.run(seconds(3));
    world.route(origin, nodes[9], key, payload);
    world.run(seconds(1));
    world.publish(nodes[9], "after");
    world.run(seconds(8));
    assert_eq!(world.texts(nodes[3], news), ["once", "after"]);
    world.expect_order(nodes[3], news);
}

#[test]
fn many_joins_without_an_answer_are_not_repeated_all_at_once_and_end_well() {
    let joins = RetryConfig { unanswered: 16, per_second: 4 };
    let mut world = World::with_config(2, 23, Config { joins, ..Config::default() });
    let (root, other) = (world.root(), world.by_distance()[1]);
    assert_ne!(root, other);
    // Topics whose root is the other node.
    let all = (0..).map(|number: u32| Topic::new(&format!("t{number}")).unwrap().id());
    let theirs = |topic: &TopicId| topic.key().is_closer(root, other);
    let topics: Vec<TopicId> = all.filter(theirs).take(100).collect();
    world.cut = Some(|header| matches!(header, Header::Attached(_)));
    let ids: Vec<SubscriptionId> = (1..=100).map(SubscriptionId).collect();
    for (&id, &topic) in ids.iter().zip(&topics) {
        world.with(other, |forest, cx| forest.subscribe(cx, id, topic, Start::Latest, 9));
    }
    world.run(seconds(10));
    // One a second and topic would be 1,000.
    let sent = world.sent["routed Join"];
    assert!((40..80).contains(&sent), "{sent} JOINs in 10 s");
    world.cut = None;
    world.run(seconds(15));
    let started = ids.iter().filter(|&&id| world.started(other, id).is_some());
    assert_eq!(started.count(), 100);
}

#[test]
fn a_node_that_is_behind_asks_nothing_again_until_it_has_caught_up() {
    let mut world = World::new(3, 24);
    let [root, other, publisher] = world.by_distance()[..] else { panic!("three nodes") };
    let subscription = world.subscribe(other, Start::Latest);
    world.run(seconds(3));
    // Beats are late or dropped, too, but the ring says of no node that it is dead.
    world.cut = Some(|header| matches!(header, Header::Data(_) | Header::Receipt(_) | Header::Beat(_)));
    let parent = world.parent(other);
    world.publish(publisher, "one");
    world.run(millis(50));
    let before = world.sent.clone();
    for node in [root, other, publisher] {
        world.with(node, |forest, cx| forest.handle_queued(cx, node, 1 << 20));
    }
    world.run(seconds(10));
    // Neither is the entry pushed again, nor the message published again, which the root would answer again.
    assert_eq!(world.sent["Data"], before["Data"]);
    assert_eq!(world.sent_of("Receipt"), before.get("Receipt").copied().unwrap_or_default());
    assert!(world.sent["Beat"] > before["Beat"], "it lives, and says so");
    assert_eq!(world.parent(other), parent, "and takes its own lateness for no other node's silence");
    assert_eq!(world.sent["routed Join"], before["routed Join"]);
    world.cut = None;
    for node in [root, other, publisher] {
        world.with(node, |forest, cx| forest.handle_queued(cx, node, 0));
    }
    world.run(seconds(5));
    assert_eq!(world.texts(other, subscription), ["one"]);
    assert_eq!(world.receipts(publisher).len(), 1);
}

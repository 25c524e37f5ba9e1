use super::*;
use crate::config::PublishConfig;
use crate::message::SubscribeError;

#[test]
fn what_is_published_reaches_a_subscriber_and_is_receipted() {
    let mut world = World::new(8, 1);
    let [a, b] = [world.by_distance()[3], world.by_distance()[5]];
    let news = world.subscribe(a, Start::Latest);
    world.run(seconds(1));
    assert!(world.started(a, news).is_some());
    let token = world.publish(b, "hello");
    world.run(seconds(1));
    world.expect_all(a, news, &["hello".to_string()]);
    let receipt = world.receipt(b, token).unwrap();
    let message = &world.messages(a, news)[0];
    assert_eq!((receipt.id, receipt.position), (message.id, message.position));
    assert_eq!((receipt.copies, receipt.listeners, receipt.id.publisher, receipt.id.sequence), (3, 1, b, 1));
}

/// Sixty nodes, and a subscriber among them that routes to the root over others.
fn distant() -> (World, NodeId, SubscriptionId) {
    let mut world = World::unspliced(60, 11);
    let (subscriber, _) = tree::deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(seconds(2));
    assert_eq!(told_root(&world, subscriber), Some(world.root()));
    (world, subscriber, news)
}

fn told_root(world: &World, id: NodeId) -> Option<NodeId> {
    world.nodes[&id].forest.trees[&topic()].role.told_root().map(|root| root.id)
}

#[test]
fn who_is_on_the_tree_sends_its_first_message_straight_to_the_root() {
    let (mut world, subscriber, _) = distant();
    let token = world.publish(subscriber, "there and back");
    world.run(LATENCY * 4);
    assert!(world.receipt(subscriber, token).is_some(), "one hop there, to the members and back, one back");
    let mut others = world.by_distance().into_iter();
    let stranger = others.find(|&id| world.hops(id) > 1 && !world.on_tree().contains(&id)).unwrap();
    let token = world.publish(stranger, "on the way");
    world.run(LATENCY * 4);
    assert!(world.receipt(stranger, token).is_none(), "nobody told it of the root");
    world.run(LATENCY * 2);
    assert!(world.receipt(stranger, token).is_some());
}

#[test]
fn a_root_that_is_none_any_more_passes_the_first_message_on() {
    let (mut world, subscriber, news) = distant();
    let former = world.root();
    world.cut = Some(|header| {
        let start = if let Header::Attached(attached) = header { attached.start.as_ref() } else { None };
        start.is_some_and(|start| start.sync.is_none())
    });
    world.enter(NodeId(topic().key().0 ^ 1));
    world.run(seconds(3));
    assert_eq!(told_root(&world, subscriber), Some(former), "the news is lost on its way down");
    let token = world.publish(subscriber, "to the former one");
    world.run(millis(100));
    let failures = world.failures(subscriber);
    assert!(world.receipt(subscriber, token).is_some(), "without being sent again: {failures:?}");
    world.cut = None;
    world.run(seconds(10));
    assert_eq!(told_root(&world, subscriber), Some(world.root()), "path and root are pushed down");
    world.expect_all(subscriber, news, &["to the former one".to_string()]);
}

#[test]
fn what_a_silent_root_does_not_answer_is_routed() {
    let (mut world, subscriber, news) = distant();
    world.cut = Some(|header| matches!(header, Header::Publish(_)));
    world.sent.clear();
    let token = world.publish(subscriber, "lost, then routed");
    world.run(millis(990));
    assert!(world.receipt(subscriber, token).is_none());
    world.run(millis(50));
    assert!(world.receipt(subscriber, token).is_some(), "the second time it is routed");
    assert_eq!(world.sent["Publish"], 1, "the silent one is tried once");
    world.run(seconds(1));
    world.expect_all(subscriber, news, &["lost, then routed".to_string()]);
}

#[test]
fn a_root_that_is_down_is_forgotten_and_one_beside_the_path_not_believed() {
    let (mut world, subscriber, _) = distant();
    let root = world.root();
    world.cut = Some(|header| matches!(header, Header::Attached(_)));
    world.with(subscriber, |forest, cx| forest.handle_peer_down(cx, root));
    assert_eq!(told_root(&world, subscriber), None);
    let tree = &world.nodes[&subscriber].forest.trees[&topic()];
    let (join, parent) = (tree.uplink.join, tree.role.parent().unwrap());
    let say = |world: &mut World, seq, root| {
        let path = vec![parent, world.root()];
        let root = Some(world.nodes[&root].contact.peer);
        let attached = wire::Attached { topic: topic(), join, seq, path, root, start: None };
        let payload = wire::encode(&Header::Attached(attached), &[]);
        let contact = world.nodes[&parent].contact;
        world.with(subscriber, |forest, cx| forest.handle_received(cx, &contact, &payload));
    };
    say(&mut world, 1 << 40, parent);
    assert_eq!(told_root(&world, subscriber), None, "the path ends elsewhere");
    say(&mut world, 1 << 41, root);
    assert_eq!(told_root(&world, subscriber), Some(root));
}

#[test]
fn an_empty_topic_is_answered_honestly() {
    let mut world = World::new(8, 2);
    let publisher = world.by_distance()[4];
    let token = world.publish(publisher, "anybody?");
    world.run(seconds(3));
    assert_eq!(world.receipt(publisher, token).unwrap().listeners, 0);
    let others = world.by_distance();
    let subscriptions: Vec<_> =
        others[1..4].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(2));
    let token = world.publish(publisher, "somebody");
    world.run(seconds(1));
    assert_eq!(world.receipt(publisher, token).unwrap().listeners, 3);
    for (id, subscription) in subscriptions {
        world.with(id, |forest, cx| forest.unsubscribe(cx, subscription));
    }
    world.run(seconds(8));
    let token = world.publish(publisher, "nobody again");
    world.run(seconds(1));
    assert_eq!(world.receipt(publisher, token).unwrap().listeners, 0);
}

#[test]
fn alone_in_a_ring_everything_works_at_once() {
    let mut world = World::new(1, 3);
    let me = world.root();
    let news = world.subscribe(me, Start::Latest);
    assert!(world.started(me, news).is_some(), "a lone node needs to ask nobody");
    let token = world.publish(me, "to myself");
    world.run(millis(1));
    world.expect_all(me, news, &["to myself".to_string()]);
    assert_eq!(world.receipt(me, token).unwrap().listeners, 1);
}

#[test]
fn many_publishers_are_ordered_alike_everywhere_and_each_in_its_own_order() {
    let mut world = World::new(20, 4);
    let nodes = world.by_distance();
    let subscriptions: Vec<_> =
        nodes.iter().step_by(2).map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(2));
    for number in 0..50 {
        for &publisher in &nodes[3..8] {
            world.publish(publisher, &format!("{publisher} {number}"));
        }
        world.run(millis(2));
    }
    world.run(seconds(5));
    let (first, first_subscription) = subscriptions[0];
    let expected = world.texts(first, first_subscription);
    assert_eq!(expected.len(), 250);
    for &(id, subscription) in &subscriptions {
        world.expect_all(id, subscription, &expected);
    }
    for publisher in &nodes[3..8] {
        let own: Vec<_> =
            expected.iter().filter(|text| text.starts_with(&publisher.to_string())).cloned().collect();
        assert_eq!(own, numbered(&publisher.to_string(), 50));
    }
}

#[test]
fn a_lost_receipt_is_given_again_with_the_same_position() {
    let mut world = World::new(8, 5);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[2], Start::Latest);
    world.run(seconds(2));
    world.cut = Some(|header| matches!(header, Header::Receipt(_)));
    let token = world.publish(nodes[5], "once");
    world.run(seconds(5));
    assert!(world.receipt(nodes[5], token).is_none());
    assert!(world.sent["Receipt"] > 1, "each repetition is answered");
    world.cut = None;
    world.run(seconds(5));
    let receipt = world.receipt(nodes[5], token).unwrap();
    assert_eq!(receipt.position, world.messages(nodes[2], news)[0].position);
    world.expect_all(nodes[2], news, &["once".to_string()]);
}

#[test]
fn a_message_without_receipt_fails_with_the_truth() {
    let mut world = World::new(8, 6);
    let nodes = world.by_distance();
    world.cut = Some(|header| matches!(header, Header::Receipt(_)));
    let token = world.publish(nodes[5], "into the void");
    world.run(seconds(31));
    let failures = world.failures(nodes[5]);
    assert!(matches!(&failures[..], [(failed, PublishError::OutcomeUnknown { id })]
        if *failed == token && id.sequence == 1));
}

#[test]
fn what_cannot_be_sent_is_refused_at_once() {
    let mut world = World::with_config(
        3,
        7,
        Config { publish: PublishConfig { max_topics: 1, ..PublishConfig::default() }, ..Config::default() },
    );
    let id = world.root();
    let other = Topic::new("other").unwrap().id();
    world.publish(id, "first topic");
    world.with(id, |forest, cx| forest.publish(cx, Token(90), other, Bytes::new()));
    world.with(id, |forest, cx| forest.publish(cx, Token(91), topic(), Bytes::from(vec![0; 600 << 10])));
    let failures = world.failures(id);
    assert_eq!(failures[0], (Token(90), PublishError::TooManyTopics { limit: 1 }));
    assert_eq!(failures[1], (Token(91), PublishError::TooLarge { len: 600 << 10, limit: 512 << 10 }));
}

#[test]
fn a_tree_out_of_reach_is_said_to_be() {
    let mut world = World::with_config(4, 8, single(Config::default()));
    world.cut = Some(|header| matches!(header, Header::Attached(_)));
    let id = world.by_distance()[2];
    let news = world.subscribe(id, Start::Latest);
    world.run(seconds(31));
    assert!(world.nodes[&id].events.iter().any(|event| matches!(event,
        Event::SubscribeFailed { subscription, error: SubscribeError::TimedOut(_) } if *subscription == news)));
    world.run(seconds(5));
    assert!(!world.on_tree().contains(&id));
}

#[test]
fn a_node_that_leaves_says_what_became_of_its_messages() {
    let mut world = World::new(4, 9);
    let id = world.by_distance()[2];
    let first = world.publish(id, "in flight");
    let second = world.publish(id, "never sent");
    world.with(id, |forest, cx| forest.leave(cx));
    let failures = world.failures(id);
    assert!(matches!(&failures[..], [(a, PublishError::OutcomeUnknown { .. }), (b, PublishError::Stopped)]
        if *a == first && *b == second));
}

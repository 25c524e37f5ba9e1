//! Stories of trees that are brought into shape: children that are handed over, forwarders that splice themselves out.

use super::*;
use crate::wire::{Capacity, Offer, Offered};

/// A subscriber whose JOIN passes a node that is neither root nor itself, and that node.
fn deep(world: &World) -> (NodeId, NodeId) {
    tree::deep(world)
}

fn narrow(most: usize) -> Config {
    let tree = TreeConfig { children_per_tree: most, ..TreeConfig::default() };
    single(Config { tree, ..Config::default() })
}

impl World {
    /// Lets time pass until this holds; panics after so long.
    #[track_caller]
    fn run_until(&mut self, limit: Duration, holds: impl Fn(&World) -> bool) {
        let end = self.now + limit;
        while !holds(self) {
            assert!(self.now < end, "not within {limit:?}");
            self.run(millis(1));
        }
    }

    /// Every node is attached below the root, by ways on which parent and child agree.
    #[track_caller]
    fn expect_whole(&self) {
        let root = self.root();
        for id in self.on_tree().into_iter().filter(|&id| id != root) {
            let mut at = id;
            for _ in 0..=self.nodes.len() {
                if at == root {
                    break;
                }
                let parent = self.parent(at).unwrap_or_else(|| panic!("{at} has no parent"));
                assert!(self.children(parent).contains(&at), "{parent} does not know its child {at}");
                at = parent;
            }
            assert_eq!(at, root, "a loop above {id}");
        }
    }

    fn widest(&self) -> usize {
        self.alive().into_iter().map(|id| self.children(id).len()).max().unwrap_or(0)
    }
}

/// All but the root subscribe, close to each other in time.
fn crowd(world: &mut World) -> Vec<(NodeId, SubscriptionId)> {
    let nodes = world.by_distance();
    nodes[1..].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect()
}

#[test]
fn a_full_parent_hands_children_over_and_nobody_misses_or_doubles_anything() {
    let mut world = World::with_config(40, 81, narrow(3));
    let subscriptions = crowd(&mut world);
    world.run(millis(700));
    assert!(world.widest() > 6, "the crowd stays where it came in");
    world.sent.clear();
    // Messages flow all the while.
    for number in 0..500 {
        world.publish(subscriptions[0].0, &format!("m {number}"));
        world.run(millis(20));
    }
    world.run(seconds(20));
    assert!(world.widest() <= 3, "{} children", world.widest());
    world.expect_whole();
    let deliveries = 500 * subscriptions.len() as u64;
    for (id, subscription) in subscriptions {
        world.expect_all(id, subscription, &numbered("m", 500));
    }
    assert!(world.sent_of("Detached") > 10, "many moved");
    // Everybody but the root subscribes: each entry goes once to each, whoever moves meanwhile.
    assert_eq!(world.sent_of("Data"), deliveries, "payloads for {deliveries} deliveries");
}

#[test]
fn a_crowd_at_a_root_that_everybody_knows_is_led_down() {
    let config = Config {
        tree: TreeConfig { children_per_tree: 4, children_per_node: 8, ..TreeConfig::default() },
        ..Config::default()
    };
    let mut world = World::with_config(2, 82, single(config));
    // Ids far from the key: the first hop of each is the root.
    let key = topic().key().0;
    for number in 0..80u128 {
        world.enter(NodeId(key ^ (1 << 127) ^ (number << 64)));
    }
    let subscriptions = crowd(&mut world);
    world.run(seconds(60));
    assert!(world.widest() <= 4, "{} children", world.widest());
    world.expect_whole();
    world.publish(subscriptions[7].0, "to all");
    world.run(seconds(2));
    for (id, subscription) in subscriptions {
        world.expect_all(id, subscription, &["to all".to_string()]);
    }
}

#[test]
fn a_node_with_too_many_children_in_all_trees_hands_over_where_it_can() {
    let config = Config {
        tree: TreeConfig { children_per_tree: 16, children_per_node: 5, ..TreeConfig::default() },
        ..Config::default()
    };
    let mut world = World::with_config(16, 87, single(config));
    let topics: Vec<_> = (0..2).map(|i| Topic::new(&format!("topic {i}")).unwrap().id()).collect();
    for (index, &id) in world.alive().iter().enumerate() {
        for (number, &topic) in topics.iter().enumerate() {
            let subscription = SubscriptionId((index * topics.len() + number) as u64);
            world.with(id, |forest, cx| forest.subscribe(cx, subscription, topic, Start::Latest, 10));
        }
    }
    let most = |world: &World| world.nodes.values().map(|node| node.forest.entries()).max();
    world.run(seconds(2));
    assert!(most(&world) > Some(6), "{:?}", most(&world));
    world.run(seconds(120));
    // Two trees of sixteen nodes have thirty entries: less than two a node.
    assert!(most(&world) <= Some(5), "{:?}", most(&world));
    for id in world.alive() {
        assert_eq!(world.nodes[&id].forest.places().len(), 2);
        assert!(world.nodes[&id].forest.places().all(|place| place.is_root() || place.parent().is_some()));
    }
}

#[test]
fn the_nearest_of_those_offered_is_taken() {
    let mut world = World::with_config(20, 83, narrow(2));
    let root = world.root();
    let nodes = world.by_distance();
    let far = nodes[1..].iter().copied().filter(|&id| world.hops(id) == 1);
    let members: Vec<_> = far.take(5).collect();
    for &id in &members {
        world.subscribe(id, Start::Latest);
        world.run(millis(50));
    }
    // The first member and the last are neighbours; everybody else is far from everybody.
    world.distance = Some((members[0], members[4]));
    world.run(millis(200));
    world.with(root, |forest, cx| {
        forest.with_tree(cx, topic(), |tree, cx| {
            for id in tree.flow.children.ids().collect::<Vec<_>>() {
                // The last one is far from the root, and so the first to be handed over.
                let rtt = if id == members[4] { 90_000 } else { 10_000 };
                tree.flow.children.get_mut(id).unwrap().rtt = rtt;
            }
            tree.review_shape(cx);
        });
    });
    world.run_until(seconds(5), |world| world.parent(members[4]) != Some(root));
    assert_eq!(world.parent(members[4]), Some(members[0]));
    world.run(seconds(10));
    world.expect_whole();
}

#[test]
fn a_forwarder_with_one_child_splices_itself_out_without_a_gap_or_a_double() {
    let mut world = World::with_config(60, 11, single(Config::default()));
    let (subscriber, hop) = deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(millis(300));
    assert_eq!(world.parent(subscriber), Some(hop));
    let above = world.parent(hop).unwrap();
    let publisher = world.by_distance()[1];
    world.sent.clear();
    let mut hops = 0;
    for number in 0..1500 {
        world.publish(publisher, &format!("m {number}"));
        world.run(millis(3));
        hops += u64::from(world.on_tree().contains(&hop));
    }
    world.run(seconds(2));
    assert!(!world.on_tree().contains(&hop), "it has left");
    assert_eq!(world.parent(subscriber), Some(above));
    world.expect_all(subscriber, news, &numbered("m", 1500));
    world.expect_whole();
    // One payload per message, and one more while the forwarder stood between (the last of them were on their way when
    // it left).
    let sent = world.sent_of("Data");
    assert!((1500..=1500 + hops + 2).contains(&sent), "{sent} payloads, {hops} messages by the forwarder");
}

#[test]
fn a_splice_overlaps_the_old_parent_stays_until_the_new_one_has_answered() {
    let mut world = World::with_config(60, 11, single(Config::default()));
    let (subscriber, hop) = deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(millis(300));
    let above = world.parent(hop).unwrap();
    world.run_until(seconds(4), |world| world.children(above).contains(&subscriber));
    // The new parent has taken the child and holds still; the old one goes on.
    assert_eq!(world.parent(subscriber), Some(hop));
    assert!(world.children(hop).contains(&subscriber));
    assert!(world.nodes[&above].forest.trees[&topic()].flow.children.get(subscriber).unwrap().is_held());
    world.publish(above, "by the old parent");
    world.run(seconds(2));
    assert_eq!(world.parent(subscriber), Some(above));
    world.expect_all(subscriber, news, &["by the old parent".to_string()]);
}

#[test]
fn roots_and_subscribers_and_access_nodes_stay() {
    let mut world = World::with_config(60, 11, single(Config::default()));
    let (subscriber, hop) = deep(&world);
    let edge = NodeId(topic().key().0 ^ 1);
    let access = world.by_distance()[30];
    world.enter_edge(edge, access);
    world.subscribe(edge, Start::Latest);
    world.subscribe(hop, Start::Latest);
    world.subscribe(subscriber, Start::Latest);
    world.run(seconds(30));
    assert_eq!(world.parent(edge), Some(access), "whatever the edge gets passes its access node");
    assert_eq!(world.parent(subscriber), Some(hop), "it subscribes itself");
    assert!(world.on_tree().contains(&world.root()));
    let before = world.sent_of("Offer");
    world.run(seconds(300));
    assert_eq!(world.sent_of("Offer"), before, "nothing is left to be done");
}

#[test]
fn a_join_through_a_node_that_was_spliced_out_costs_one_more_splice_and_no_more() {
    let mut world = World::with_config(60, 11, single(Config::default()));
    let (subscriber, hop) = deep(&world);
    world.subscribe(subscriber, Start::Latest);
    world.run(seconds(10));
    assert!(!world.on_tree().contains(&hop));
    let offers = world.sent_of("Offer");
    // Somebody else comes the same way.
    let other = NodeId(subscriber.0 ^ 1);
    world.enter(other);
    world.subscribe(other, Start::Latest);
    world.run(seconds(60));
    let more = world.sent_of("Offer") - offers;
    assert!(more <= 3, "{more} offers for one newcomer");
    world.expect_whole();
    let settled = world.sent_of("Offer");
    world.run(seconds(300));
    assert_eq!(world.sent_of("Offer"), settled);
}

#[test]
fn two_that_are_handed_to_each_other_make_no_loop() {
    let mut world = World::unspliced(20, 84);
    let subscriptions = crowd(&mut world);
    world.run(seconds(3));
    let root = world.root();
    let (a, b) = (world.children(root)[0], world.children(root)[1]);
    for (child, other) in [(a, b), (b, a)] {
        let contact = world.nodes[&other].contact;
        let join = world.nodes[&child].forest.trees[&topic()].uplink.join;
        let parents = vec![Offered { contact, micros: 1 }];
        let offer = Offer { topic: topic(), join, parents };
        let payload = wire::encode(&Header::Offer(offer), &[]);
        let from = world.nodes[&root].contact;
        world.with(child, |forest, cx| forest.handle_received(cx, &from, &payload));
    }
    for number in 0..100 {
        world.publish(root, &format!("m {number}"));
        world.run(millis(50));
        world.expect_whole();
    }
    assert_eq!((world.parent(a), world.parent(b)), (Some(root), Some(root)), "neither takes who is moving");
    for (id, subscription) in subscriptions {
        world.expect_all(id, subscription, &numbered("m", 100));
    }
}

/// A splice that is struck by a crash at a certain moment; everything must come, whoever died.
fn crash_during_a_splice(after: Duration, victim: impl Fn(NodeId, NodeId, NodeId) -> NodeId) {
    let mut world = World::with_config(60, 11, single(Config::default()));
    let (subscriber, hop) = deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(millis(300));
    let above = world.parent(hop).unwrap();
    let publisher = world.by_distance()[1];
    let victim = victim(hop, above, subscriber);
    assert!(victim != publisher);
    world.run_until(seconds(4), |world| world.sent_of("Offer") > 0);
    for number in 0..20 {
        world.publish(publisher, &format!("m {number}"));
        world.run(millis(1));
        if world.alive().contains(&victim) && millis(number) >= after {
            world.crash(victim);
        }
    }
    // If the root died, what was in flight has an unknown outcome in the end, and a new session begins.
    world.run(seconds(40));
    world.publish_many(publisher, "after", 5);
    world.run(seconds(5));
    let texts = world.texts(subscriber, news);
    let gaps = world.gaps(subscriber, news).len();
    assert!(texts.ends_with(&numbered("after", 5)), "{after:?} {victim}: {texts:?}");
    let all = texts.len() + world.failures(publisher).len() == 25;
    assert!(all || gaps > 0, "{after:?} {victim}: {} messages, {gaps} gaps", texts.len());
    world.expect_order(subscriber, news);
    world.expect_whole();
}

#[test]
fn a_forwarder_that_dies_at_any_step_of_its_splice_costs_no_message() {
    for step in (0..20).step_by(2) {
        crash_during_a_splice(millis(step), |hop, _, _| hop);
    }
}

#[test]
fn a_new_parent_that_dies_at_any_step_of_a_splice_is_replaced() {
    for step in (1..20).step_by(2) {
        crash_during_a_splice(millis(step), |_, above, _| above);
    }
}

#[test]
fn a_child_prefers_a_sibling_with_a_free_place_to_a_nearer_one_that_is_crowded() {
    for (near, expected) in [(Capacity::Crowded, 1), (Capacity::Free, 0), (Capacity::None, 1)] {
        let mut world = World::unspliced(60, 11);
        let (child, parent) = deep(&world);
        world.subscribe(child, Start::Latest);
        world.run(seconds(2));
        let others: Vec<_> =
            world.by_distance().into_iter().filter(|&id| id != child && id != parent).take(2).collect();
        world.cut = Some(|header| matches!(header, Header::CapacityAnswer { .. }));
        let say = |world: &mut World, from: NodeId, header: Header| {
            let (from, payload) = (world.nodes[&from].contact, wire::encode(&header, &[]));
            world.with(child, |forest, cx| forest.handle_received(cx, &from, &payload));
        };
        let offered = |id| Offered { contact: world.nodes[id].contact, micros: 300 };
        let (parents, join) =
            (others.iter().map(offered).collect(), world.nodes[&child].forest.numbers.last_join());
        say(&mut world, parent, Header::Offer(Offer { topic: topic(), join, parents }));
        let number = world.nodes[&child].forest.numbers.last_join();
        let chosen = |world: &World| {
            let moving = world.nodes[&child].forest.trees[&topic()].relocation.as_ref();
            moving.and_then(|moving| moving.chosen()).map(|to| to.id())
        };
        for (id, room) in [(others[0], near), (others[1], Capacity::Free)] {
            assert_eq!(chosen(&world), None, "both are waited for");
            world.run(millis(10));
            say(&mut world, id, Header::CapacityAnswer { topic: topic(), number, capacity: room });
        }
        assert_eq!(chosen(&world), Some(others[expected]), "the near one says {near:?}");
    }
}

#[test]
fn words_of_a_move_that_are_lost_cost_time_only() {
    let lost: [fn(&Header) -> bool; 5] = [
        |header| matches!(header, Header::Offer(_)),
        |header| matches!(header, Header::Join(join) if join.former.is_some()),
        |header| matches!(header, Header::Detach { .. }),
        |header| matches!(header, Header::Detached { .. }),
        |header| matches!(header, Header::CapacityAnswer { .. }),
    ];
    for (index, cut) in lost.into_iter().enumerate() {
        let mut world = World::with_config(25, 85, narrow(3));
        let subscriptions = crowd(&mut world);
        world.cut = Some(cut);
        for number in 0..100 {
            world.publish(subscriptions[3].0, &format!("m {number}"));
            world.run(millis(50));
        }
        world.cut = None;
        world.run(seconds(60));
        assert!(world.widest() <= 3, "case {index}: {} children", world.widest());
        world.expect_whole();
        for &(id, subscription) in &subscriptions {
            world.expect_all(id, subscription, &numbered("m", 100));
        }
    }
}

#[test]
fn trees_keep_their_shape_while_members_come_and_go() {
    for seed in 0..3 {
        let config = Config {
            tree: TreeConfig { children_per_tree: 2, children_per_node: 3, ..TreeConfig::default() },
            ..Config::default()
        };
        let mut world = World::with_config(25, 90 + seed, single(config));
        (world.loss, world.twice, world.jitter) = (5, 5, millis(30));
        let nodes = world.by_distance();
        let mut live: Vec<_> =
            nodes[1..].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
        for round in 0..5 {
            world.publish_many(nodes[0], &format!("round {round}"), 40);
            let (victim, _) = live.remove(world.rng.random_range(0..live.len()));
            world.crash(victim);
            let (leaver, subscription) = live.remove(world.rng.random_range(0..live.len()));
            world.with(leaver, |forest, cx| forest.unsubscribe(cx, subscription));
            world.run(seconds(3));
        }
        (world.loss, world.twice) = (0, 0);
        world.run(seconds(120));
        world.expect_whole();
        assert!(world.widest() <= 2, "seed {seed}: {} children", world.widest());
        world.publish_many(nodes[0], "end", 5);
        world.run(seconds(5));
        for (id, subscription) in live {
            let texts = world.texts(id, subscription);
            assert!(texts.ends_with(&numbered("end", 5)), "seed {seed}: {id:?} {texts:?}");
            assert_eq!(world.gaps(id, subscription), [], "seed {seed}: {id:?}");
            world.expect_order(id, subscription);
        }
    }
}

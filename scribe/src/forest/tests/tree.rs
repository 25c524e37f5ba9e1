use super::*;

/// A subscriber whose JOIN passes a node that is neither root nor itself.
pub(super) fn deep(world: &World) -> (NodeId, NodeId) {
    let key = topic().key();
    let root = world.root();
    for id in world.by_distance() {
        let shared = key.shared_prefix(id);
        let better = world.alive().into_iter().filter(|&other| key.shared_prefix(other) > shared);
        let hop = better.min_by_key(|&other| (key.shared_prefix(other), id.key().distance(other)));
        if let Some(hop) = hop.filter(|&hop| hop != root && id != root) {
            return (id, hop);
        }
    }
    panic!("no route of two hops: take another seed");
}

#[test]
fn the_first_node_on_the_way_adopts_and_becomes_a_forwarder() {
    let mut world = World::unspliced(60, 11);
    let (subscriber, hop) = deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(seconds(2));
    assert_eq!(world.parent(subscriber), Some(hop));
    assert!(world.children(hop).contains(&subscriber));
    assert_eq!(world.nodes[&hop].forest.trees()[0].subscriptions, 0);
    assert!(!world.children(world.root()).contains(&subscriber));
    world.publish(hop, "down the tree");
    world.run(seconds(2));
    world.expect_all(subscriber, news, &["down the tree".to_string()]);
}

#[test]
fn a_tree_that_nobody_needs_is_left_by_all_but_its_root() {
    let mut world = World::unspliced(60, 11);
    let (subscriber, hop) = deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(seconds(2));
    assert!(world.on_tree().contains(&hop));
    world.with(subscriber, |forest, cx| forest.unsubscribe(cx, news));
    world.run(seconds(1));
    assert!(world.on_tree().contains(&subscriber), "it lingers");
    world.run(seconds(6));
    let mut members = world.by_distance()[..3].to_vec();
    members.sort();
    assert_eq!(world.on_tree(), members, "the log stays");
}

#[test]
fn a_log_that_nobody_uses_is_forgotten() {
    for copies in [1, 3] {
        let replication = ReplicationConfig { copies, ..ReplicationConfig::default() };
        let mut world = World::with_config(8, 12, Config { replication, ..Config::default() });
        let publisher = world.by_distance()[5];
        world.publish(publisher, "unheard");
        world.run(seconds(5));
        assert_eq!(world.on_tree().len(), copies);
        world.run(seconds(700));
        assert_eq!(world.on_tree(), [], "{copies} copies");
    }
}

#[test]
fn a_lost_parent_costs_no_message() {
    let mut world = World::unspliced(60, 11);
    let (subscriber, hop) = deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(seconds(2));
    let publisher = world.by_distance()[1];
    world.publish_many(publisher, "before", 20);
    world.crash(hop);
    world.publish_many(publisher, "while down", 300);
    world.run(seconds(5));
    let expected = [numbered("before", 20), numbered("while down", 300)].concat();
    world.expect_all(subscriber, news, &expected);
    assert_ne!(world.parent(subscriber), Some(hop));
    assert!(world.items(subscriber, news).iter().any(|item| matches!(item, Item::ParentChanged(Some(_)))));
}

#[test]
fn a_forwarder_that_leaves_sends_its_children_on() {
    let mut world = World::unspliced(60, 11);
    let (subscriber, hop) = deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(seconds(2));
    let publisher = world.by_distance()[1];
    world.publish_many(publisher, "before", 5);
    world.with(hop, |forest, cx| {
        forest.leave(cx);
        assert!(forest.has_left(), "no log to hand over");
    });
    world.depart(hop);
    world.publish_many(publisher, "after", 5);
    world.run(seconds(3));
    world.expect_all(subscriber, news, &[numbered("before", 5), numbered("after", 5)].concat());
}

#[test]
fn a_subscriber_with_a_mark_continues_exactly_there() {
    let mut world = World::new(12, 13);
    let nodes = world.by_distance();
    let keeper = world.subscribe(nodes[1], Start::Latest);
    world.run(seconds(2));
    let news = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(2));
    world.publish_many(nodes[3], "first", 10);
    world.run(seconds(1));
    let mark = world.messages(nodes[6], news)[4].mark;
    world.with(nodes[6], |forest, cx| forest.unsubscribe(cx, news));
    world.publish_many(nodes[3], "second", 10);
    world.run(seconds(8));
    assert!(!world.on_tree().contains(&nodes[6]));
    let again = world.subscribe(nodes[6], Start::After(mark));
    world.run(seconds(2));
    assert_eq!(world.started(nodes[6], again), Some(mark));
    let expected = [numbered("first", 10)[5..].to_vec(), numbered("second", 10)].concat();
    world.expect_all(nodes[6], again, &expected);
    assert_eq!(world.messages(nodes[1], keeper).len(), 20);
}

#[test]
fn several_subscribers_of_one_node_share_its_place() {
    let mut world = World::new(12, 14);
    let nodes = world.by_distance();
    let first = world.subscribe(nodes[5], Start::Latest);
    world.run(seconds(2));
    let joins = world.nodes[&nodes[5]].forest.trees();
    let second = world.subscribe(nodes[5], Start::Latest);
    assert!(world.started(nodes[5], second).is_some(), "the tree is there already");
    assert_eq!(world.nodes[&nodes[5]].forest.trees()[0].parent, joins[0].parent);
    world.run(seconds(1));
    let token = world.publish(nodes[2], "for both");
    world.run(seconds(2));
    world.expect_all(nodes[5], first, &["for both".to_string()]);
    world.expect_all(nodes[5], second, &["for both".to_string()]);
    assert_eq!(world.receipt(nodes[2], token).unwrap().listeners, 2);
}

#[test]
fn a_loop_of_stale_paths_is_broken() {
    let mut world = World::unspliced(60, 11);
    let (subscriber, hop) = deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(seconds(2));
    // The forwarder loses its parent, and its JOIN reaches its own child: as with a wrong table on the way.
    let join = wire::Join {
        topic: topic(),
        number: 1 << 40,
        start: Start::Latest,
        subscribers: 1,
        former: None,
        copy: None,
        by_third: false,
    };
    let payload = wire::encode(&Header::Join(join), &[]);
    let contact = world.nodes[&hop].contact;
    let taken = world.with(subscriber, |forest, cx| forest.handle_forward(cx, &contact, &payload));
    assert!(!taken, "its ancestor must not become its child");
    // Even told that its child is its parent, the forwarder sees itself in the path.
    let trees = world.nodes[&hop].forest.trees();
    let number = world.nodes[&hop].forest.trees[&topic()].uplink.join;
    let path = vec![subscriber, hop, world.root()];
    let attached =
        wire::Attached { topic: topic(), join: number, seq: 1 << 40, path, root: None, start: None };
    let payload = wire::encode(&Header::Attached(attached), &[]);
    let child = world.nodes[&subscriber].contact;
    world.with(hop, |forest, cx| forest.handle_received(cx, &child, &payload));
    assert_eq!(world.nodes[&hop].forest.trees()[0].parent, trees[0].parent);
    world.publish(world.root(), "still flowing");
    world.run(seconds(3));
    world.expect_all(subscriber, news, &["still flowing".to_string()]);
}

#[test]
fn a_parent_whose_path_comes_to_lead_through_its_child_is_left() {
    let mut world = World::unspliced(60, 11);
    let (subscriber, hop) = deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(seconds(2));
    let tree = &world.nodes[&subscriber].forest.trees[&topic()];
    let path = vec![hop, subscriber];
    let attached = wire::Attached {
        topic: topic(),
        join: tree.uplink.join,
        seq: 1 << 40,
        path,
        root: None,
        start: None,
    };
    let payload = wire::encode(&Header::Attached(attached), &[]);
    let parent = world.nodes[&hop].contact;
    world.with(subscriber, |forest, cx| forest.handle_received(cx, &parent, &payload));
    assert_eq!(world.parent(subscriber), None, "S1");
    world.publish_many(world.root(), "after the loop", 5);
    world.run(seconds(3));
    assert!(world.parent(subscriber).is_some());
    world.expect_all(subscriber, news, &numbered("after the loop", 5));
}

#[test]
fn an_edge_node_publishes_and_subscribes_through_its_access_node() {
    let mut world = World::new(12, 15);
    let nodes = world.by_distance();
    let edge = NodeId(topic().key().0 ^ 1);
    world.enter_edge(edge, nodes[4]);
    let news = world.subscribe(edge, Start::Latest);
    let far = world.subscribe(nodes[7], Start::Latest);
    world.run(seconds(3));
    assert_eq!(world.parent(edge), Some(nodes[4]), "its access node adopts it");
    let token = world.publish(edge, "from the edge");
    world.run(seconds(2));
    world.expect_all(edge, news, &["from the edge".to_string()]);
    world.expect_all(nodes[7], far, &["from the edge".to_string()]);
    assert!(world.receipt(edge, token).is_some());
    assert!(!world.nodes[&edge].forest.trees()[0].is_root, "closest, but on no ring");
}

#[test]
fn an_edge_node_moves_with_its_mark() {
    let mut world = World::new(12, 15);
    let nodes = world.by_distance();
    let edge = NodeId(topic().key().0 ^ 1);
    world.enter_edge(edge, nodes[4]);
    let news = world.subscribe(edge, Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[2], "before", 5);
    world.crash(nodes[4]);
    world.publish_many(nodes[2], "meanwhile", 20);
    world.run(seconds(1));
    let via = world.nodes[&nodes[6]].contact.peer;
    world.nodes.get_mut(&edge).unwrap().contact.via = Some(via);
    world.with(edge, |forest, cx| forest.handle_contact_changed(cx));
    world.run(seconds(4));
    world.expect_all(edge, news, &[numbered("before", 5), numbered("meanwhile", 20)].concat());
}

#[test]
fn what_a_young_window_does_not_hold_is_asked_for_further_up() {
    let mut world = World::unspliced(60, 11);
    let (subscriber, hop) = deep(&world);
    world.publish_many(world.root(), "early", 10);
    world.run(seconds(2));
    let log = world.nodes[&world.root()].forest.trees[&topic()].flow.log.part().unwrap();
    let mark = Mark { birth: log.birth, next: log.end() - 6 };
    world.subscribe(hop, Start::Latest);
    world.run(seconds(2));
    let news = world.subscribe(subscriber, Start::After(mark));
    world.run(seconds(2));
    world.expect_all(subscriber, news, &numbered("early", 10)[4..]);
    assert_eq!(world.parent(subscriber), Some(world.root()), "the forwarder on the way could not serve it");
}

#[test]
fn news_of_the_path_do_not_make_a_gap_of_what_still_flies() {
    let mut world = World::new(12, 16);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[4], Start::Latest);
    world.run(seconds(2));
    world.cut = Some(|header| matches!(header, Header::Data(_)));
    world.publish_many(nodes[1], "lost at first", 5);
    world.cut = None;
    let parent = world.parent(nodes[4]).unwrap();
    world.with(parent, |forest, cx| forest.with_tree(cx, topic(), |tree, cx| tree.announce_path(cx)));
    world.run(seconds(3));
    world.expect_all(nodes[4], news, &numbered("lost at first", 5));
}

#[test]
fn a_child_that_was_forgotten_and_comes_again_by_an_old_join_is_started() {
    let mut world = World::unspliced(60, 11);
    let (subscriber, hop) = deep(&world);
    // The forwarder is not started yet, so that it does not start its child.
    world.cut = Some(|header| matches!(header, Header::Attached(attached) if attached.start.is_some()));
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(millis(200));
    for _ in 0..5 {
        world.with(hop, |forest, cx| forest.with_tree(cx, topic(), |tree, cx| tree.announce_path(cx)));
        world.run(millis(20));
    }
    assert_eq!(world.parent(subscriber), Some(hop));
    let join = world.nodes[&subscriber].forest.trees[&topic()].flow.join_message(1, None);
    let number = world.nodes[&subscriber].forest.trees[&topic()].uplink.join;
    let child = world.nodes[&subscriber].contact;
    let leave = wire::encode(&Header::Leave { topic: topic(), join: number }, &[]);
    world.with(hop, |forest, cx| forest.handle_received(cx, &child, &leave));
    assert_eq!(world.children(hop), [], "a word that was long on its way");
    let again = wire::encode(&Header::Join(wire::Join { number, ..join }), &[]);
    assert!(world.with(hop, |forest, cx| forest.handle_forward(cx, &child, &again)), "and another one");
    world.cut = None;
    world.run(seconds(4));
    assert!(world.started(subscriber, news).is_some());
    world.publish(world.root(), "at last");
    world.run(seconds(1));
    world.expect_all(subscriber, news, &["at last".to_string()]);
}

#[test]
fn an_old_join_without_a_mark_skips_nothing_where_the_parent_has_forgotten_its_child() {
    let mut world = World::unspliced(60, 11);
    let (subscriber, hop) = deep(&world);
    let news = world.subscribe(subscriber, Start::Latest);
    world.run(seconds(2));
    assert_eq!(world.parent(subscriber), Some(hop));
    world.publish(world.root(), "before");
    world.run(seconds(1));
    let tree = &world.nodes[&subscriber].forest.trees[&topic()];
    let join = wire::Join { start: Start::Latest, ..tree.flow.join_message(tree.uplink.join, None) };
    assert!(tree.uplink.is_markless(), "it has never had to ask again");
    // The child is paused for so long that its parent forgets it; the log goes on meanwhile.
    world.nodes.get_mut(&subscriber).unwrap().alive = false;
    world.with(hop, |forest, cx| forest.with_tree(cx, topic(), |tree, cx| tree.remove_child(cx, subscriber)));
    world.publish(world.root(), "meanwhile");
    world.run(millis(100));
    world.nodes.get_mut(&subscriber).unwrap().alive = true;
    let child = world.nodes[&subscriber].contact;
    let again = wire::encode(&Header::Join(join), &[]);
    assert!(
        world.with(hop, |forest, cx| forest.handle_forward(cx, &child, &again)),
        "a copy of the first JOIN"
    );
    world.run(seconds(1));
    let texts = ["before", "meanwhile"].map(String::from);
    world.expect_all(subscriber, news, &texts);
    world.publish(world.root(), "after");
    world.run(seconds(1));
    world.expect_all(subscriber, news, &[&texts[..], &["after".to_string()]].concat());
}

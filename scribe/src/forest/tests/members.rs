//! Stories of the members that hold a log: they come, go, and are replaced.

use super::*;

fn copies(copies: usize) -> Config {
    let replication = ReplicationConfig { copies, ..ReplicationConfig::default() };
    Config { replication, ..Config::default() }
}

#[test]
fn the_first_message_of_a_new_topic_is_committed_in_as_many_copies_as_there_should_be() {
    for count in [1, 2, 3, 5] {
        let mut world = World::with_config(12, 140, copies(count));
        let nodes = world.by_distance();
        let token = world.publish(nodes[9], "first");
        world.run(seconds(2));
        let receipt = world.receipt(nodes[9], token).unwrap();
        assert_eq!(receipt.copies as usize, count);
        let mut expected = nodes[..count].to_vec();
        expected.sort();
        assert_eq!(world.log_members(), expected, "those closest to the key");
        for &id in &nodes[..count] {
            let log = world.log(id);
            assert!(log.window.entry(receipt.position.offset).is_some(), "{id}");
            assert!(log.replica().is_some());
        }
    }
}

#[test]
fn fewer_nodes_than_copies_are_enough() {
    for count in 1..=3 {
        let mut world = World::with_config(count, 141, copies(5));
        let root = world.root();
        let token = world.publish(root, "few");
        world.run(seconds(3));
        assert_eq!(world.receipt(root, token).unwrap().copies as usize, count);
    }
}

#[test]
fn a_member_that_dies_is_replaced_and_writes_go_on_meanwhile() {
    let mut world = World::new(12, 142);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[9], "before", 20);
    world.run(seconds(1));
    let victim = nodes[1];
    assert!(world.log_members().contains(&victim));
    world.crash(victim);
    let token = world.publish(nodes[9], "meanwhile");
    world.run(millis(600));
    assert_eq!(world.receipt(nodes[9], token).map(|receipt| receipt.copies), Some(2), "two are a majority");
    world.run(seconds(4));
    let mut expected = vec![nodes[0], nodes[2], nodes[3]];
    expected.sort();
    assert_eq!(world.log_members(), expected);
    let token = world.publish(nodes[9], "after");
    world.run(seconds(1));
    assert_eq!(world.receipt(nodes[9], token).map(|receipt| receipt.copies), Some(3));
    let texts = [numbered("before", 20), vec!["meanwhile".into(), "after".into()]].concat();
    world.expect_all(nodes[6], news, &texts);
    assert_eq!(world.log(nodes[3]).commit(), world.log(nodes[0]).commit());
}

#[test]
fn one_that_takes_the_place_of_a_dead_member_is_named_before_it_holds_all_and_gets_the_rest() {
    let mut world = World::new(12, 162);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[9], "long ago", 3000);
    world.run(seconds(1));
    world.crash(nodes[1]);
    let named = |world: &World| world.log_members().contains(&nodes[3]);
    while !named(&world) {
        world.run(millis(5));
    }
    let (root, new) = (world.log(nodes[0]), world.log(nodes[3]));
    assert!(new.window.start() > root.window.start(), "it was waited for until it held all");
    world.run(seconds(4));
    let (root, new) = (world.log(nodes[0]), world.log(nodes[3]));
    assert_eq!((new.window.start(), new.commit()), (root.window.start(), root.commit()));
    // It has the sessions: as the root it gives what comes again no second place.
    world.publish_many(nodes[9], "after", 20);
    world.run(seconds(1));
    world.expect_all(nodes[6], news, &[numbered("long ago", 3000), numbered("after", 20)].concat());
}

#[test]
fn a_root_that_lacks_what_a_member_keeps_pulls_it_and_readers_that_are_behind_wait_for_it() {
    let window = WindowConfig { messages: 4096, ..WindowConfig::default() };
    let mut world = World::with_config(12, 163, Config { window, ..Config::default() });
    let nodes = world.by_distance();
    let slow = world.subscribe_with(nodes[6], Start::Latest, 10);
    world.run(seconds(3));
    world.publish_many(nodes[9], "long ago", 3000);
    world.run(seconds(1));
    // A node that has no log is the root from now on, and serves long before it has all of it.
    let id = NodeId(topic().key().0 ^ 1);
    world.enter(id);
    let served =
        |world: &World| world.nodes[&id].forest.place(topic()).is_some_and(|place| place.is_serving());
    while !served(&world) {
        world.run(millis(1));
    }
    let first = world.log(id).window.start();
    assert!(first > 1000, "it was not waited for until it had all: {first}");
    let early = world.subscribe(nodes[10], Start::Earliest);
    world.with(nodes[6], |forest, cx| forest.add_credit(cx, slow, u32::MAX));
    world.run(seconds(5));
    assert_eq!(world.log(id).window.start(), world.log(nodes[1]).window.start());
    world.publish_many(nodes[9], "after", 20);
    world.run(seconds(1));
    let all = [numbered("long ago", 3000), numbered("after", 20)].concat();
    world.expect_all(nodes[6], slow, &all);
    world.expect_all(nodes[10], early, &all);
}

#[test]
fn a_member_that_falls_silent_is_replaced_without_being_found_dead() {
    let mut world = World::new(12, 143);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[9], "before", 20);
    world.nodes.get_mut(&nodes[2]).unwrap().alive = false;
    world.run(seconds(8));
    assert!(!world.log_members().contains(&nodes[2]), "beats decide");
    assert_eq!(world.log_members().len(), 3);
    // It wakes up: nothing that it says is of this log any more.
    world.nodes.get_mut(&nodes[2]).unwrap().alive = true;
    world.with(nodes[2], |forest, cx| forest.handle_timeout(cx));
    world.publish_many(nodes[9], "after", 20);
    world.run(seconds(8));
    assert_eq!(world.log_members().len(), 3);
    world.expect_all(nodes[6], news, &[numbered("before", 20), numbered("after", 20)].concat());
    assert_eq!(world.failures(nodes[9]), []);
}

#[test]
fn members_are_replaced_one_after_the_other_until_none_of_the_first_is_left() {
    let mut world = World::new(16, 144);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[12], Start::Latest);
    world.run(seconds(3));
    let mut expected = Vec::new();
    for round in 0..8 {
        let victims = world.log_members();
        let victim = victims[round % 3];
        world.publish_many(nodes[14], &format!("round {round}"), 30);
        expected.extend(numbered(&format!("round {round}"), 30));
        if victim != nodes[12] && victim != nodes[14] {
            world.crash(victim);
        }
        world.run(seconds(8));
        assert_eq!(world.log_members().len(), 3, "round {round}");
    }
    world.expect_all(nodes[12], news, &expected);
    assert_eq!(world.failures(nodes[14]), []);
}

#[test]
fn leaving_members_are_replaced_first() {
    let mut world = World::new(12, 145);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[7], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[9], "before", 20);
    world.run(seconds(1));
    for leaver in [nodes[1], nodes[2]] {
        world.with(leaver, |forest, cx| forest.leave(cx));
        assert!(!world.nodes[&leaver].forest.has_left(), "its copy is needed still");
    }
    world.run(seconds(3));
    for leaver in [nodes[1], nodes[2]] {
        assert!(world.nodes[&leaver].forest.has_left());
        assert!(!world.log_members().contains(&leaver));
        world.depart(leaver);
    }
    assert_eq!(world.log_members().len(), 3, "as many as there should be");
    let token = world.publish(nodes[9], "after");
    world.run(seconds(1));
    assert_eq!(world.receipt(nodes[9], token).unwrap().copies, 3);
    world.expect_all(nodes[7], news, &[numbered("before", 20), vec!["after".into()]].concat());
}

#[test]
fn root_and_members_leave_at_once_and_the_log_stays() {
    let mut world = World::new(12, 146);
    let nodes = world.by_distance();
    world.publish_many(nodes[9], "unheard", 20);
    world.run(seconds(2));
    for &leaver in &nodes[..3] {
        world.with(leaver, |forest, cx| forest.leave(cx));
    }
    world.run(seconds(6));
    for &leaver in &nodes[..3] {
        assert!(world.nodes[&leaver].forest.has_left());
        world.depart(leaver);
    }
    let late = world.subscribe(nodes[7], Start::Earliest);
    world.run(seconds(8));
    world.expect_all(nodes[7], late, &numbered("unheard", 20));
}

#[test]
fn members_stay_while_they_are_near_though_closer_nodes_squeeze_in() {
    let mut world = World::new(12, 147);
    let nodes = world.by_distance();
    world.publish_many(nodes[9], "before", 3);
    world.run(seconds(3));
    let before = world.log_members();
    let between = NodeId(nodes[1].0 ^ 1);
    world.enter(between);
    world.run(seconds(10));
    assert_eq!(world.log_members(), before, "no state moves for it");
}

#[test]
fn a_member_serves_readers_and_children_like_any_node_of_the_tree() {
    let mut world = World::new(12, 148);
    let nodes = world.by_distance();
    let readers: Vec<_> = nodes.iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(3));
    world.sent.clear();
    world.publish_many(nodes[9], "m", 100);
    world.run(seconds(3));
    for (id, reader) in readers {
        world.expect_all(id, reader, &numbered("m", 100));
    }
    let needed = 11 * 100;
    assert!(world.sent["Data"] <= needed + 20, "{} payloads for {needed} deliveries", world.sent["Data"]);
}

#[test]
fn a_single_copy_behaves_as_classic_scribe() {
    let mut world = World::with_config(12, 149, copies(1));
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(3));
    world.sent.clear();
    world.publish_many(nodes[9], "before", 20);
    world.run(seconds(1));
    assert_eq!(world.sent_of("Invite"), 0);
    assert_eq!(world.receipts(nodes[9]).last().unwrap().1.copies, 1);
    world.crash(nodes[0]);
    world.run(seconds(6));
    world.publish_many(nodes[9], "after", 20);
    world.run(seconds(3));
    assert_eq!(world.texts(nodes[6], news), [numbered("before", 20), numbered("after", 20)].concat());
    let gaps = world.gaps(nodes[6], news);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(gaps[0].reason, GapReason::Unreplicated, "what only the dead root had is lost");
    assert_eq!(gaps[0].after, Some(world.messages(nodes[6], news)[19].position));
    world.expect_order(nodes[6], news);
}

#[test]
fn an_edge_is_no_member() {
    let mut world = World::new(2, 150);
    let nodes = world.by_distance();
    let edge = NodeId(topic().key().0 ^ 1);
    world.enter_edge(edge, nodes[0]);
    world.subscribe(edge, Start::Latest);
    world.publish(edge, "from the edge");
    world.run(seconds(3));
    let mut expected = nodes.clone();
    expected.sort();
    assert_eq!(world.log_members(), expected);
    let invite = wire::encode(&Header::Invite { topic: topic() }, &[]);
    let root = world.nodes[&world.root()].contact;
    world.with(edge, |forest, cx| forest.handle_received(cx, &root, &invite));
    world.run(seconds(1));
    assert_eq!(world.sent_of("InviteRefused"), 1);
}

#[test]
fn whatever_happens_to_one_node_at_a_time_nothing_is_lost_and_nobody_hears_of_a_gap() {
    for seed in 0..4 {
        let mut world = World::new(16, seed);
        (world.loss, world.twice, world.jitter) = (3, 3, millis(20));
        let nodes = world.by_distance();
        let publisher = nodes[15];
        let readers: Vec<_> =
            nodes[10..14].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
        // A young log asks publishers for its name first; a first message that is lost meanwhile has an unknown outcome.
        world.run(seconds(40));
        let mut expected = Vec::new();
        for round in 0..8 {
            let near: Vec<_> = world.by_distance()[..4].to_vec();
            let near: Vec<_> = near.into_iter().filter(|id| !nodes[10..].contains(id)).collect();
            let pick = near.get(world.rng.random_range(0..4)).copied();
            match (world.rng.random_range(0..4), pick) {
                (0, Some(id)) => world.crash(id),
                (1, Some(id)) => {
                    world.with(id, |forest, cx| forest.leave(cx));
                    world.run(seconds(3));
                    world.depart(id);
                }
                (2, _) => {
                    let distance = world.rng.random::<u128>() >> (4 + round * 4);
                    world.enter(NodeId(topic().key().0 ^ distance));
                }
                _ => {}
            }
            let text = format!("round {round}");
            world.publish_many(publisher, &text, 60);
            expected.extend(numbered(&text, 60));
            world.run(seconds(12));
        }
        world.run(seconds(30));
        assert_eq!(world.failures(publisher), [], "seed {seed}");
        for &(id, reader) in &readers {
            assert_eq!(world.gaps(id, reader), [], "seed {seed}: {id}");
            assert!(world.texts(id, reader) == expected, "seed {seed}: {id}");
            world.expect_order(id, reader);
        }
        assert_eq!(world.log_members().len(), 3, "seed {seed}");
    }
}

#[test]
fn a_member_that_the_root_does_not_reach_keeps_its_copy_while_it_listens_to_a_third() {
    let mut world = World::with_config(3, 160, copies(2));
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[1], Start::Latest);
    let others = world.subscribe(nodes[2], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[2], "before", 20);
    world.run(seconds(1));
    let life = world.log(nodes[1]).replica().unwrap().life;
    world.apart = Some((nodes[0], nodes[1]));
    // One of two copies is no majority: without it nothing is committed, and it cannot be replaced.
    let token = world.publish(nodes[2], "meanwhile");
    world.run(seconds(12));
    assert_eq!(world.receipt(nodes[2], token), None);
    assert_eq!(world.parent(nodes[1]), Some(nodes[2]));
    assert_eq!(world.log(nodes[1]).replica().unwrap().life, life);
    world.apart = None;
    world.run(seconds(4));
    assert_eq!(world.receipt(nodes[2], token).map(|receipt| receipt.copies), Some(2));
    assert_eq!(world.parent(nodes[1]), Some(nodes[0]));
    assert_eq!(world.log(nodes[1]).replica().unwrap().life, life);
    for (id, subscription) in [(nodes[1], news), (nodes[2], others)] {
        world.expect_all(id, subscription, &[numbered("before", 20), vec!["meanwhile".into()]].concat());
    }
}

#[test]
fn a_member_that_was_replaced_because_the_root_does_not_reach_it_goes_on_as_an_ordinary_child() {
    let mut world = World::new(12, 161);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[1], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[9], "before", 20);
    world.run(seconds(1));
    assert!(world.log_members().contains(&nodes[1]));
    world.apart = Some((nodes[0], nodes[1]));
    for round in 0..12 {
        world.publish_many(nodes[9], &format!("round {round}"), 5);
        world.run(seconds(1));
    }
    assert!(!world.log_members().contains(&nodes[1]));
    assert!(world.log(nodes[1]).replica().is_none(), "it has heard so by a third");
    let rounds = (0..12).flat_map(|round| numbered(&format!("round {round}"), 5));
    world.expect_all(nodes[1], news, &numbered("before", 20).into_iter().chain(rounds).collect::<Vec<_>>());
}

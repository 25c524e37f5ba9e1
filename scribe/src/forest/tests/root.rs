//! Stories of the root: it dies, is succeeded, leaves, or is cut off.

use super::*;

#[test]
fn a_root_that_dies_under_a_running_publisher_costs_nothing_and_nobody_hears_of_a_gap() {
    for seed in 0..6 {
        let mut world = World::new(20, 120 + seed);
        let nodes = world.by_distance();
        let readers: Vec<_> =
            nodes[1..8].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
        world.run(seconds(3));
        world.publish_many(nodes[9], "before", 50 + usize::from(seed) * 7);
        world.crash(nodes[0]);
        world.publish_many(nodes[9], "while down", 300);
        world.run(seconds(10));
        let before = numbered("before", 50 + usize::from(seed) * 7);
        let expected = [before, numbered("while down", 300)].concat();
        for (id, reader) in readers {
            world.expect_all(id, reader, &expected);
            let marks: Vec<_> = world.messages(id, reader).iter().map(|message| message.mark.birth).collect();
            assert!(marks.iter().all(|&birth| birth == marks[0]), "seed {seed}: it is still the same log");
        }
        assert_eq!(world.failures(nodes[9]), [], "seed {seed}: no outcome is unknown");
        assert_eq!(world.receipts(nodes[9]).len(), expected.len(), "seed {seed}");
        assert_eq!(world.log_members().len(), 3, "seed {seed}: the dead one is replaced");
    }
}

#[test]
fn root_after_root_dies_and_the_log_goes_on() {
    let mut world = World::new(20, 130);
    let nodes = world.by_distance();
    let reader = world.subscribe(nodes[12], Start::Latest);
    world.run(seconds(3));
    let mut expected = Vec::new();
    for round in 0..6 {
        let text = format!("round {round}");
        world.publish_many(nodes[15], &text, 40);
        world.crash(nodes[round]);
        world.publish_many(nodes[15], &format!("{text} down"), 40);
        world.run(seconds(8));
        expected.extend([numbered(&text, 40), numbered(&format!("{text} down"), 40)].concat());
    }
    world.expect_all(nodes[12], reader, &expected);
    assert_eq!(world.failures(nodes[15]), []);
}

#[test]
fn publishing_goes_on_within_three_seconds_of_a_roots_death() {
    let mut world = World::new(20, 23);
    let nodes = world.by_distance();
    world.subscribe(nodes[3], Start::Latest);
    world.run(seconds(2));
    world.publish_many(nodes[9], "before", 10);
    world.crash(nodes[0]);
    let token = world.publish(nodes[9], "after");
    world.run(seconds(3));
    assert!(world.receipt(nodes[9], token).is_some());
}

#[test]
fn a_newcomer_closer_to_the_key_takes_over_without_a_gap() {
    let mut world = World::new(20, 24);
    let nodes = world.by_distance();
    let readers: Vec<_> = nodes[0..8].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(2));
    world.publish_many(nodes[9], "before", 20);
    let newcomer = NodeId(topic().key().0 ^ 1);
    world.enter(newcomer);
    world.publish_many(nodes[9], "during", 300);
    world.run(seconds(6));
    assert!(world.nodes[&newcomer].forest.trees()[0].is_root);
    let expected = [numbered("before", 20), numbered("during", 300)].concat();
    for (id, reader) in readers {
        world.expect_all(id, reader, &expected);
        let messages = world.messages(id, reader);
        assert!(messages.iter().all(|message| message.mark.birth == messages[0].mark.birth));
    }
    assert_eq!(world.failures(nodes[9]), [], "no outcome is unknown");
    assert_eq!(world.receipts(nodes[9]).len(), 320);
}

#[test]
fn newcomer_after_newcomer_takes_over_over_a_bad_network() {
    let mut world = World::new(12, 25);
    (world.loss, world.twice, world.jitter) = (5, 5, millis(20));
    let nodes = world.by_distance();
    let readers: Vec<_> = nodes[0..4].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(10));
    let mut expected = Vec::new();
    for round in 0..5 {
        world.enter(NodeId(topic().key().0 ^ (1 << (100 - 10 * round))));
        world.publish_many(nodes[9], &format!("round {round}"), 100);
        expected.extend(numbered(&format!("round {round}"), 100));
        world.run(seconds(10));
    }
    world.run(seconds(40));
    assert_eq!(world.failures(nodes[9]), []);
    for (id, reader) in readers {
        world.expect_all(id, reader, &expected);
    }
}

#[test]
fn a_successor_that_was_on_no_tree_has_the_log_though_nobody_listens() {
    let mut world = World::new(6, 26);
    let nodes = world.by_distance();
    world.publish_many(nodes[4], "unheard", 20);
    world.run(seconds(3));
    let first = world.receipts(nodes[4])[0].1;
    world.enter(NodeId(topic().key().0 ^ 1));
    world.run(seconds(5));
    let newcomer = world.root();
    let messages =
        world.log(newcomer).window.entries_from(0).filter(|(_, entry)| entry.body.members().is_none());
    assert_eq!(messages.count(), 20);
    let mark = Mark { birth: first.position.birth, next: first.position.offset + 1 };
    let late = world.subscribe(nodes[2], Start::After(mark));
    world.run(seconds(2));
    world.expect_all(nodes[2], late, &numbered("unheard", 20)[1..]);
}

#[test]
fn a_root_without_leases_positions_nothing_and_goes_on_when_they_run_again() {
    let mut world = World::new(8, 27);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[2], Start::Latest);
    world.run(seconds(2));
    world.publish_many(nodes[3], "before", 3);
    world.run(seconds(1));
    world.nodes.get_mut(&nodes[0]).unwrap().leases = false;
    world.with(nodes[0], |forest, cx| forest.handle_neighbours_changed(cx));
    world.publish_many(nodes[3], "parked", 3);
    world.run(seconds(4));
    assert_eq!(world.receipts(nodes[3]).len(), 3);
    world.nodes.get_mut(&nodes[0]).unwrap().leases = true;
    world.with(nodes[0], |forest, cx| forest.handle_neighbours_changed(cx));
    world.run(seconds(6));
    world.expect_all(nodes[2], news, &[numbered("before", 3), numbered("parked", 3)].concat());
    assert_eq!(world.failures(nodes[3]), []);
}

#[test]
fn a_root_that_was_cut_off_is_fenced_and_its_open_entries_are_not_read() {
    let mut world = World::new(12, 28);
    let nodes = world.by_distance();
    let own = world.subscribe(nodes[0], Start::Latest);
    let news = world.subscribe(nodes[5], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[9], "before", 5);
    world.run(seconds(1));
    // It hears nobody and nobody hears it; its ring does not know that yet.
    world.nodes.get_mut(&nodes[0]).unwrap().alive = false;
    let payload = Bytes::from_static(b"alone");
    world.with(nodes[0], |forest, cx| forest.publish(cx, Token(900), topic(), payload));
    world.find_dead(nodes[0]);
    world.publish_many(nodes[9], "without it", 5);
    world.run(seconds(5));
    let peer = world.nodes[&nodes[0]].contact.peer;
    world.nodes.get_mut(&nodes[0]).unwrap().alive = true;
    world.members.push(peer);
    for id in world.alive() {
        world.with(id, |forest, cx| {
            forest.handle_neighbours_changed(cx);
            forest.handle_nearest_changed(cx);
        });
    }
    world.with(nodes[0], |forest, cx| forest.handle_timeout(cx));
    world.run(seconds(40));
    let texts = world.texts(nodes[5], news);
    assert_eq!(texts[..10], [numbered("before", 5), numbered("without it", 5)].concat());
    for (id, reader) in [(nodes[5], news), (nodes[0], own)] {
        world.expect_order(id, reader);
        assert_eq!(world.gaps(id, reader), [], "{id}");
        assert_eq!(world.texts(id, reader), texts, "{id}");
    }
    assert_eq!(world.receipts(nodes[9]).len(), 10);
    let answered = world.receipt(nodes[0], Token(900)).is_some() || !world.failures(nodes[0]).is_empty();
    assert!(answered);
    assert_eq!(texts.contains(&"alone".to_string()), world.receipt(nodes[0], Token(900)).is_some());
}

#[test]
fn a_message_whose_receipt_died_with_the_root_gets_it_from_the_next() {
    let mut world = World::new(12, 33);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[3], Start::Latest);
    world.run(seconds(2));
    world.cut = Some(|header| matches!(header, Header::Receipt(_)));
    let token = world.publish(nodes[9], "once");
    world.run(millis(300));
    assert_eq!(world.texts(nodes[3], news), ["once"]);
    world.crash(nodes[0]);
    world.cut = None;
    world.run(seconds(10));
    world.expect_all(nodes[3], news, &["once".to_string()]);
    let receipt = world.receipt(nodes[9], token).expect("the sessions are part of the log");
    assert_eq!(receipt.position, world.messages(nodes[3], news)[0].position);
}

#[test]
fn what_a_root_has_not_committed_when_it_dies_is_sent_again_and_comes_once() {
    let mut world = World::new(12, 34);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[6], Start::Latest);
    world.run(seconds(3));
    world.publish_many(nodes[9], "before", 5);
    world.run(seconds(1));
    // The members' acknowledgements are lost: the root commits nothing more.
    world.cut = Some(|header| matches!(header, Header::Ack(_) | Header::Beat(_)));
    world.publish_many(nodes[9], "open", 20);
    assert_eq!(world.texts(nodes[6], news).len(), 5, "nothing that is open is read");
    assert_eq!(world.receipts(nodes[9]).len(), 5);
    world.crash(nodes[0]);
    world.cut = None;
    world.run(seconds(10));
    world.expect_all(nodes[6], news, &[numbered("before", 5), numbered("open", 20)].concat());
    assert_eq!((world.receipts(nodes[9]).len(), world.failures(nodes[9]).len()), (25, 0));
}

#[test]
fn a_leaving_root_is_replaced_first() {
    let mut world = World::new(20, 25);
    let nodes = world.by_distance();
    let readers: Vec<_> = nodes[1..6].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(2));
    world.publish_many(nodes[9], "before", 20);
    world.run(seconds(1));
    world.with(nodes[0], |forest, cx| forest.leave(cx));
    assert!(!world.nodes[&nodes[0]].forest.has_left(), "its copy is needed still");
    world.run(seconds(1));
    assert!(world.nodes[&nodes[0]].forest.has_left());
    world.depart(nodes[0]);
    world.publish_many(nodes[9], "after", 20);
    world.run(seconds(5));
    for (id, reader) in readers {
        world.expect_all(id, reader, &[numbered("before", 20), numbered("after", 20)].concat());
    }
    assert_eq!(world.failures(nodes[9]), []);
    assert_eq!(world.log_members().len(), 3);
    assert!(!world.log_members().contains(&nodes[0]));
}

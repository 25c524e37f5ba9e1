use super::super::tree::role::Role;
use super::*;
use crate::log::Log;
use crate::log::handoff::Handoff;
use crate::log::sessions::Sessions;
use crate::log::window::{Entry, Window};
use crate::message::{GapReason, Position, Term};
use crate::wire::Body;

/// In a term that some root may have opened.
fn at(number: u64, offset: u64) -> Position {
    Position { term: Term { number, root: NodeId(5) }, offset }
}

#[test]
fn a_lost_root_is_followed_by_a_forced_term_that_says_so() {
    let mut world = World::new(20, 21);
    let nodes = world.by_distance();
    let subscriptions: Vec<_> =
        nodes[2..8].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(2));
    world.publish_many(nodes[9], "before", 20);
    world.run(millis(500));
    world.crash(nodes[0]);
    world.run(seconds(3));
    let token = world.publish(nodes[10], "after");
    world.run(seconds(3));
    let receipt = world.receipt(nodes[10], token).expect("publishing goes on");
    assert_eq!(
        (receipt.position.term.number, receipt.position.offset),
        (2, 21),
        "offsets go on behind the term's start"
    );
    for (id, subscription) in subscriptions {
        assert_eq!(world.texts(id, subscription), [numbered("before", 20), vec!["after".into()]].concat());
        let messages = world.messages(id, subscription);
        assert_eq!(messages[0].mark.birth, messages[20].mark.birth, "it is still the same log");
        let gap = world.gaps(id, subscription);
        let last = messages[19].position;
        let until = Some(Position { term: receipt.position.term, offset: 20 });
        assert_eq!(gap, [Gap { after: Some(last), until, reason: GapReason::RootLost }]);
    }
}

#[test]
fn what_was_in_flight_when_the_root_died_is_unknown_and_never_sent_again() {
    let mut world = World::new(20, 22);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[3], Start::Latest);
    world.run(seconds(2));
    let publisher = nodes[9];
    world.publish_many(publisher, "line", 30);
    world.crash(nodes[0]);
    world.publish_many(publisher, "lost", 30);
    world.run(seconds(8));
    world.publish_many(publisher, "again", 30);
    world.run(seconds(3));
    let failed = world.failures(publisher).len();
    let receipts = world.receipts(publisher).len();
    assert!(failed > 0 && failed <= 31, "{failed}");
    assert_eq!(failed + receipts, 90, "each message got its answer");
    world.expect_order(nodes[3], news);
    let texts = world.texts(nodes[3], news);
    assert_eq!(&texts[texts.len() - 30..], numbered("again", 30));
    let unknown = |text: &String| texts.contains(text);
    assert!(numbered("lost", 30).iter().filter(|text| !unknown(text)).count() <= failed);
    assert_eq!(world.gaps(nodes[3], news).len(), 1);
}

#[test]
fn publishing_goes_on_within_ten_seconds_while_a_publisher_keeps_sending() {
    let mut world = World::new(20, 23);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[3], Start::Latest);
    world.run(seconds(2));
    world.publish_many(nodes[9], "before", 10);
    world.crash(nodes[0]);
    for second in 0..10 {
        world.publish(nodes[9], &format!("second {second}"));
        world.run(seconds(1));
    }
    let texts = world.texts(nodes[3], news);
    assert!(texts.contains(&"second 9".to_string()), "{texts:?}");
    assert_eq!(world.receipts(nodes[9]).len() + world.failures(nodes[9]).len(), 20);
}

#[test]
fn a_newcomer_closer_to_the_key_takes_over_without_a_gap() {
    let mut world = World::new(20, 24);
    let nodes = world.by_distance();
    let subscriptions: Vec<_> =
        nodes[0..8].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(2));
    world.publish_many(nodes[9], "before", 20);
    let newcomer = NodeId(topic().key().0 ^ 1);
    world.enter(newcomer);
    world.publish_many(nodes[9], "during", 300);
    world.run(seconds(6));
    assert!(world.nodes[&newcomer].forest.trees()[0].is_root);
    let expected = [numbered("before", 20), numbered("during", 300)].concat();
    for (id, subscription) in subscriptions {
        world.expect_all(id, subscription, &expected);
        let messages = world.messages(id, subscription);
        assert!(messages.iter().all(|message| message.mark.birth == messages[0].mark.birth));
        assert_eq!(messages.last().unwrap().position.term.number, 2);
    }
    assert_eq!(world.failures(nodes[9]), [], "no outcome is unknown");
    assert_eq!(world.receipts(nodes[9]).len(), 320);
}

#[test]
fn a_root_that_leaves_hands_its_log_over() {
    let mut world = World::new(20, 25);
    let nodes = world.by_distance();
    let subscriptions: Vec<_> =
        nodes[1..6].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(2));
    world.publish_many(nodes[9], "before", 20);
    world.run(seconds(1));
    world.with(nodes[0], |forest, cx| forest.leave(cx));
    assert!(!world.nodes[&nodes[0]].forest.has_left(), "the successor has not taken it yet");
    world.run(seconds(1));
    assert!(world.nodes[&nodes[0]].forest.has_left());
    world.depart(nodes[0]);
    world.publish_many(nodes[9], "after", 20);
    world.run(seconds(5));
    let expected = [numbered("before", 20), numbered("after", 20)].concat();
    for (id, subscription) in subscriptions {
        world.expect_all(id, subscription, &expected);
    }
    assert_eq!(world.failures(nodes[9]), []);
}

#[test]
fn a_successor_that_was_on_no_tree_inherits_the_window_too() {
    let mut world = World::new(6, 26);
    let nodes = world.by_distance();
    world.publish_many(nodes[4], "unheard", 20);
    world.run(seconds(3));
    let first = world.receipts(nodes[4])[0].1;
    world.enter(NodeId(topic().key().0 ^ 1));
    world.run(seconds(5));
    let newcomer = world.root();
    let log = world.nodes[&newcomer].forest.trees[&topic()].flow.log.part();
    let log = log.expect("it was handed over, though nobody listens");
    assert_eq!(log.window.entries().count(), 21);
    let mark = Mark { birth: log.birth, position: Some(first.position) };
    let late = world.subscribe(nodes[2], Start::After(mark));
    world.run(seconds(2));
    world.expect_all(nodes[2], late, &numbered("unheard", 20)[1..]);
}

#[test]
fn a_root_without_leases_positions_nothing_and_continues_its_term() {
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
    assert!(world.messages(nodes[2], news).iter().all(|message| message.position.term.number == 1));
}

#[test]
fn a_root_that_hears_of_a_later_term_opens_one_above_it() {
    let mut world = World::new(8, 28);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[2], Start::Latest);
    world.run(seconds(2));
    world.publish_many(nodes[3], "before", 3);
    world.run(seconds(1));
    let mut mark = world.messages(nodes[2], news)[2].mark;
    mark.position = Some(at(7, 90));
    let late = world.subscribe(nodes[5], Start::After(mark));
    world.run(seconds(3));
    let token = world.publish(nodes[3], "after");
    world.run(seconds(3));
    let receipt = world.receipt(nodes[3], token);
    let failed = world.failures(nodes[3]);
    assert!(receipt.is_some() || !failed.is_empty());
    let token = world.publish(nodes[3], "at last");
    world.run(seconds(3));
    assert_eq!(world.receipt(nodes[3], token).unwrap().position.term.number, 8);
    for (id, subscription) in [(nodes[2], news), (nodes[5], late)] {
        assert_eq!(world.gaps(id, subscription).len(), 1);
        assert_eq!(world.texts(id, subscription).last().unwrap(), "at last");
        world.expect_order(id, subscription);
    }
}

#[test]
fn a_mark_of_another_log_yields_a_gap_and_the_earliest() {
    let mut world = World::new(8, 29);
    let nodes = world.by_distance();
    world.publish_many(nodes[3], "kept", 5);
    world.run(seconds(2));
    let position = Some(at(4, 44));
    let late = world.subscribe(nodes[5], Start::After(Mark { birth: 1, position }));
    world.run(seconds(3));
    let gaps = world.gaps(nodes[5], late);
    assert_eq!((gaps.len(), gaps[0].reason, gaps[0].after), (1, GapReason::OtherLog, position));
    assert_eq!(world.texts(nodes[5], late), numbered("kept", 5));
}

#[test]
fn two_terms_of_one_number_are_followed_by_one_above_both() {
    let mut world = World::new(8, 30);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[2], Start::Latest);
    world.run(seconds(2));
    world.publish_many(nodes[3], "before", 3);
    world.run(seconds(1));
    let mark = world.messages(nodes[2], news)[2].mark;
    let term = Term { number: 1, root: NodeId(5) };
    tell_root(&mut world, nodes[6], mark, term);
    world.run(seconds(3));
    assert_eq!(world.gaps(nodes[2], news)[0].reason, GapReason::RootLost);
    let token = world.publish(nodes[7], "above both");
    world.run(seconds(3));
    assert_eq!(world.receipt(nodes[7], token).unwrap().position.term.number, 3);
}

#[test]
fn a_made_up_mark_harms_nobody() {
    let mut world = World::new(8, 31);
    let nodes = world.by_distance();
    world.publish_many(nodes[3], "kept", 5);
    world.run(seconds(2));
    let birth = world.nodes[&nodes[0]].forest.trees[&topic()].flow.log.part().unwrap().birth;
    let position = Some(at(u64::MAX, u64::MAX));
    let start = Start::After(Mark { birth, position });
    let [at_root, far] = [nodes[0], nodes[5]].map(|id| (id, world.subscribe(id, start)));
    world.run(seconds(3));
    let token = world.publish(nodes[3], "goes on");
    world.run(seconds(3));
    assert_eq!(world.receipt(nodes[3], token).unwrap().position.term.number, 1, "no term is burnt on it");
    for (id, subscription) in [at_root, far] {
        assert_eq!(world.gaps(id, subscription).len(), 1);
        assert_eq!(world.texts(id, subscription).last().unwrap(), "goes on");
    }
}

#[test]
fn a_large_log_is_handed_over_in_parts_over_a_bad_network() {
    let mut world = World::new(12, 32);
    let nodes = world.by_distance();
    let subscriptions: Vec<_> =
        nodes[0..4].iter().map(|&id| (id, world.subscribe(id, Start::Latest))).collect();
    world.run(seconds(2));
    let large = "x".repeat(2000);
    world.publish_many(nodes[9], &large, 300);
    world.run(seconds(2));
    (world.loss, world.twice, world.jitter) = (10, 10, millis(30));
    world.sent.clear();
    let newcomer = NodeId(topic().key().0 ^ 1);
    world.enter(newcomer);
    world.run(seconds(5));
    assert!(world.sent["HandoffChunk"] >= 19, "{:?}", world.sent);
    world.publish_many(nodes[9], "after", 20);
    world.run(seconds(30));
    for (id, subscription) in subscriptions {
        world.expect_all(id, subscription, &[numbered(&large, 300), numbered("after", 20)].concat());
    }
    let held =
        world.nodes[&newcomer].forest.trees[&topic()].flow.log.part().unwrap().window.entries().count();
    assert_eq!(held, 321, "the window came with the log");
}

#[test]
fn a_first_message_that_a_lost_root_had_positioned_is_not_positioned_again() {
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
    assert_eq!(world.texts(nodes[3], news), ["once"]);
    let failures = world.failures(nodes[9]);
    assert!(matches!(&failures[..], [(failed, PublishError::OutcomeUnknown { .. })] if *failed == token));
}

#[test]
fn a_first_message_that_the_ring_repeated_is_refused_where_the_lost_root_may_have_had_it() {
    let mut world = World::new(20, 46);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[3], Start::Latest);
    world.run(seconds(2));
    world.publish_many(nodes[9], "before", 3);
    world.run(seconds(1));
    world.crash(nodes[0]);
    world.run(seconds(3));
    let publisher = world.nodes[&nodes[9]].contact;
    for (session, repeated, text) in [(7, true, "in doubt"), (8, false, "fresh")] {
        let header = Header::Publish(wire::Publish {
            topic: topic(),
            publisher,
            session,
            sequence: 1,
            acknowledged: 0,
            resent: false,
            signature: wire::Signature::None,
        });
        let payload = wire::encode(&header, text.as_bytes());
        world.with(nodes[1], |forest, cx| forest.handle_deliver(cx, &publisher, &payload, repeated));
    }
    world.run(seconds(2));
    assert_eq!(world.texts(nodes[3], news), [numbered("before", 3), vec!["fresh".into()]].concat());
}

/// The root hears, by a stranger's JOIN, of a term that another root has opened.
fn tell_root(world: &mut World, stranger: NodeId, mark: Mark, term: Term) {
    let heard = Some(wire::LogTip { birth: mark.birth, term, tail: mark.position });
    let join = wire::Join {
        topic: topic(),
        number: 1 << 40,
        after: Some(mark),
        best_known: heard,
        subscribers: 1,
        former: None,
    };
    let payload = wire::encode(&Header::Join(join), &[]);
    let stranger = world.nodes[&stranger].contact;
    let root = world.root();
    world.with(root, |forest, cx| forest.handle_deliver(cx, &stranger, &payload, false));
}

#[test]
fn a_child_that_was_ahead_of_its_root_hears_of_the_next_term() {
    let mut world = World::new(8, 32);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[2], Start::Latest);
    world.run(seconds(2));
    world.publish_many(nodes[3], "before", 3);
    world.run(seconds(1));
    let mark = world.messages(nodes[2], news)[2].mark;
    // An earlier root had given out one position more, of which this one has not heard.
    let child = &world.nodes[&nodes[0]].forest.trees[&topic()].flow.children.get(nodes[2]).unwrap();
    let ahead = mark.position.map(|at| Position { offset: at.offset + 1, ..at });
    let (join, seq) = (child.join, child.seq);
    let ack =
        wire::Ack { topic: topic(), join, seq, position: ahead, subscribers: 1, again: false, consumed: 0 };
    let payload = wire::encode(&Header::Ack(ack), &[]);
    let contact = world.nodes[&nodes[2]].contact;
    world.with(nodes[0], |forest, cx| forest.handle_received(cx, &contact, &payload));
    tell_root(&mut world, nodes[6], mark, Term { number: 2, root: NodeId(5) });
    world.run(seconds(3));
    assert_eq!(world.gaps(nodes[2], news)[0].reason, GapReason::RootLost);
    world.publish(nodes[7], "after");
    world.run(seconds(3));
    assert_eq!(world.texts(nodes[2], news).last().unwrap(), "after");
}

#[test]
fn readers_of_two_branches_of_one_number_hear_of_a_gap_each() {
    for other in [NodeId(1), NodeId(u128::MAX)] {
        let mut world = World::new(8, 33);
        let nodes = world.by_distance();
        let news = world.subscribe(nodes[2], Start::Latest);
        world.run(seconds(2));
        world.publish_many(nodes[3], "before", 5);
        world.run(seconds(1));
        let mark = world.messages(nodes[2], news)[4].mark;
        tell_root(&mut world, nodes[6], mark, Term { number: 2, root: NodeId(5) });
        world.run(seconds(3));
        let begin = world.gaps(nodes[2], news)[0].until.unwrap();
        // Another root opened a term of the same number, of which one reader has more than the other of this.
        let beside = Position { term: Term { root: other, ..begin.term }, offset: begin.offset + 4 };
        let last = Mark { position: Some(begin), ..mark };
        let there = world.subscribe(nodes[5], Start::After(Mark { position: Some(beside), ..last }));
        world.run(seconds(3));
        let token = world.publish(nodes[7], "on one branch");
        world.run(seconds(3));
        let at = world.receipt(nodes[7], token).unwrap().position;
        assert!(at.term.number > begin.term.number, "{at:#}, while one reader followed {beside:#}");
        assert_eq!(world.gaps(nodes[2], news).len(), 2, "{:?}", world.gaps(nodes[2], news));
        assert_eq!(world.gaps(nodes[5], there)[0].after, Some(beside));
        for (id, subscription) in [(nodes[2], news), (nodes[5], there)] {
            assert_eq!(world.texts(id, subscription).last().unwrap(), "on one branch");
            world.expect_order(id, subscription);
        }
    }
}

#[test]
fn the_handoff_of_a_shorter_log_is_not_taken_for_that_of_this_one() {
    // A node that was cut off had a log of its own for a while, with one message.
    let mut elsewhere = World::new(2, 35);
    let nodes = elsewhere.by_distance();
    elsewhere.publish(nodes[1], "astray");
    elsewhere.run(seconds(2));
    let tree = &elsewhere.nodes[&nodes[0]].forest.trees[&topic()];
    let Role::Root(root) = &tree.role else { unreachable!("it is the root") };
    let handoff = Handoff::of(tree.flow.log.part().unwrap(), &root.sessions, 1 << 20, 1 << 20);
    let handoff = postcard::to_stdvec(&handoff).unwrap();

    let mut world = World::new(8, 34);
    let nodes = world.by_distance();
    let news = world.subscribe(nodes[2], Start::Latest);
    world.run(seconds(2));
    world.publish_many(nodes[4], "before", 5);
    world.run(seconds(1));
    world.crash(nodes[0]);
    // The others have told the new root of this log already.
    world.run(FOUND_DEAD_AFTER + LATENCY * 3);
    let part = Header::HandoffChunk { topic: topic(), transfer: 1, chunk: 0, chunks: 1 };
    let former = world.nodes[&nodes[6]].contact;
    let payload = wire::encode(&part, &handoff);
    world.with(nodes[1], |forest, cx| forest.handle_received(cx, &former, &payload));
    world.run(seconds(3));
    assert_eq!(
        world.nodes[&nodes[1]].forest.quota.sessions.count(),
        0,
        "nothing is known of the sessions of this log"
    );
    assert_eq!(world.gaps(nodes[2], news)[0].reason, GapReason::RootLost, "the root was lost, whatever came");
    world.publish(nodes[7], "after");
    world.run(seconds(3));
    assert_eq!(world.texts(nodes[2], news), [numbered("before", 5), vec!["after".into()]].concat());
}

/// The root's leases end for a moment: it asks around before it goes on.
fn interrupt_root(world: &mut World) -> NodeId {
    let root = world.root();
    for leases in [false, true] {
        world.nodes.get_mut(&root).unwrap().leases = leases;
        world.with(root, |forest, cx| forest.handle_neighbours_changed(cx));
    }
    root
}

#[test]
fn readers_below_a_root_that_goes_over_to_another_log_hear_of_it_at_once() {
    let mut world = World::new(8, 36);
    let nodes = world.by_distance();
    let readers = [nodes[0], nodes[2], nodes[5]].map(|id| (id, world.subscribe(id, Start::Latest)));
    world.run(seconds(2));
    world.publish_many(nodes[3], "before", 3);
    world.run(seconds(1));
    let root = interrupt_root(&mut world);
    let longer = wire::LogTip { birth: 1, term: at(4, 0).term, tail: Some(at(4, 44)) };
    let answer = Header::QueryAnswer { topic: topic(), tip: Some(longer), handoff: false };
    let somebody = world.nodes[&nodes[6]].contact;
    world.with(root, |forest, cx| forest.handle_received(cx, &somebody, &wire::encode(&answer, &[])));
    world.run(seconds(5));
    for (id, subscription) in readers {
        let after = world.messages(id, subscription).last().map(|message| message.position);
        let until = Some(Position { term: Term { number: 5, root }, offset: 45 });
        assert_eq!(world.gaps(id, subscription), [Gap { after, until, reason: GapReason::OtherLog }]);
    }
}

#[test]
fn a_root_whose_own_branch_is_lost_says_so_to_all_though_the_other_one_was_handed_over() {
    for lost in [false, true] {
        let mut world = World::new(8, 37);
        let nodes = world.by_distance();
        let news = world.subscribe(nodes[2], Start::Latest);
        world.run(seconds(2));
        world.publish_many(nodes[3], "before", 3);
        world.run(seconds(1));
        let messages = world.messages(nodes[2], news);
        // Another root opened a term behind all of these, or behind the last but one.
        let fork = messages[if lost { 1 } else { 2 }].position;
        let mut window = Window::new(Some(fork));
        let start = at(2, fork.offset + 1);
        let body = Body::TermStart { previous: Some(fork.term), forced: true };
        window.append(Entry::encode(topic(), start, body, &[]));
        let birth = messages[0].mark.birth;
        let handoff = Handoff::of(&Log { birth, term: start.term, window }, &Sessions::default(), 1000, 1000);
        let root = interrupt_root(&mut world);
        let part = Header::HandoffChunk { topic: topic(), transfer: 1, chunk: 0, chunks: 1 };
        let payload = wire::encode(&part, &postcard::to_stdvec(&handoff).unwrap());
        let former = world.nodes[&nodes[6]].contact;
        world.with(root, |forest, cx| forest.handle_received(cx, &former, &payload));
        world.run(seconds(3));
        let log = world.nodes[&root].forest.trees[&topic()].flow.log.part().unwrap();
        let last = log.window.entries().last().unwrap().body;
        assert_eq!(last, Body::TermStart { previous: Some(start.term), forced: lost });
    }
}

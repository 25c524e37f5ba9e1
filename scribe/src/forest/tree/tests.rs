//! A tree, and the flow through it, without a forest around.

use treecast_overlay::id::NodeId;

use super::flow::{Flow, WayUp};
use super::progress::Report;
use super::role::Role;
use super::testing::{BIRTH, ME, Surroundings, TOPIC, contact, entry, join, started};
use super::{Outcome, ParentLost, Tree};
use crate::config::{Config, PushConfig, WindowConfig};
use crate::event::{Event, SubscriptionId};
use crate::forest::context::TreeTimer;
use crate::forest::inbox::TopicMessage;
use crate::log::early::Arrived;
use crate::log::local::Arrival;
use crate::message::{Item, Start};
use crate::wire::{Ack, Attached, Header, Lineage, Started};

const CHILD: NodeId = NodeId(5);
const WAY: WayUp<'static> = WayUp { path: &[NodeId(2)], root: None, primary: None };

/// The parent pushes these entries.
fn append(flow: &mut Flow, around: &mut Surroundings, offsets: std::ops::Range<u64>) {
    for offset in offsets {
        assert_eq!(flow.take(&mut around.cx(), NodeId(2), entry(offset)), Arrival::Next);
    }
}

/// A flow that was started at the log's beginning, with one child.
fn flow_with_child(around: &mut Surroundings) -> Flow {
    let mut flow = Flow::new(around.now, TOPIC);
    assert!(flow.start(&mut around.cx(), NodeId(9), &started()));
    assert!(flow.children.admit(&mut around.cx(), contact(CHILD.0), &join()));
    flow.attach(&mut around.cx(), WAY, CHILD);
    let sent = around.sent();
    let [Header::Attached(attached)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(attached.path, [ME, NodeId(2)]);
    assert_eq!(attached.start, Some(started()));
    flow
}

fn ack(flow: &Flow, next: u64, again: bool) -> Ack {
    let seq = flow.children.get(CHILD).unwrap().seq;
    Ack { topic: TOPIC, join: 1, seq, next, subscribers: 3, again, missing: vec![], consumed: next }
}

/// Offsets of the entries that were sent.
fn pushed(around: &mut Surroundings) -> Vec<u64> {
    let offset = |header| if let Header::Data(data) = header { Some(data.offset) } else { None };
    around.sent().into_iter().filter_map(offset).collect()
}

#[test]
fn a_child_is_pushed_as_far_as_it_acknowledges() {
    let mut around = Surroundings::new(Config {
        push: PushConfig { messages: 2, ..PushConfig::default() },
        ..Config::default()
    });
    let mut flow = flow_with_child(&mut around);
    append(&mut flow, &mut around, 0..4);
    flow.run(&mut around.cx(), WAY);
    assert_eq!(pushed(&mut around), [0, 1]);
    assert!(around.waits_for(TreeTimer::Push(CHILD)));
    let first = ack(&flow, 1, false);
    flow.on_ack(&mut around.cx(), WAY, contact(CHILD.0), &first);
    assert_eq!(pushed(&mut around), [2]);
    assert_eq!(flow.subscribers(), 3);
    let missing = ack(&flow, 1, true);
    flow.on_ack(&mut around.cx(), WAY, contact(CHILD.0), &missing);
    flow.on_ack(&mut around.cx(), WAY, contact(CHILD.0), &missing);
    assert_eq!(pushed(&mut around), [1], "once at its request");
    flow.on_push_timer(&mut around.cx(), WAY, CHILD);
    assert_eq!(pushed(&mut around), [0; 0], "that is on its way");
    assert!(around.waits_for(TreeTimer::Push(CHILD)));
    flow.on_push_timer(&mut around.cx(), WAY, CHILD);
    assert_eq!(pushed(&mut around), [1, 2], "in the end all of it");
    for next in 3..=4 {
        let next = ack(&flow, next, false);
        flow.on_ack(&mut around.cx(), WAY, contact(CHILD.0), &next);
    }
    assert_eq!(pushed(&mut around), [3]);
    assert!(!around.waits_for(TreeTimer::Push(CHILD)), "it has everything");
}

#[test]
fn a_child_behind_a_full_link_goes_on_at_the_windows_start() {
    let mut around = Surroundings::new(Config {
        window: WindowConfig { messages: 2, ..WindowConfig::default() },
        ..Config::default()
    });
    let mut flow = flow_with_child(&mut around);
    around.links.on_queued(CHILD, 2, 1);
    for offset in 0..5 {
        append(&mut flow, &mut around, offset..offset + 1);
        if offset == 0 {
            flow.run(&mut around.cx(), WAY);
        }
    }
    assert_eq!(around.sent(), []);
    assert_eq!(around.links.on_queued(CHILD, 0, 1).len(), 1);
    flow.push(&mut around.cx(), WAY, CHILD);
    let sent = around.sent();
    let Some(Header::Attached(attached)) = sent.first() else { panic!("{sent:?}") };
    assert_eq!(attached.start.as_ref().map(|start| start.next), Some(3), "by that it finds the gap");
    assert_eq!(sent.len(), 3);
}

#[test]
fn a_child_of_a_log_that_begins_anew_is_started_anew() {
    let mut around = Surroundings::new(Config::default());
    let mut flow = flow_with_child(&mut around);
    append(&mut flow, &mut around, 0..9);
    flow.run(&mut around.cx(), WAY);
    assert_eq!(pushed(&mut around), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let acknowledged = ack(&flow, 9, false);
    flow.on_ack(&mut around.cx(), WAY, contact(CHILD.0), &acknowledged);
    // The next birth has taken over six entries of this one: what the child has beyond is not in it.
    let lineage = Lineage::default().then(BIRTH, 6);
    let next = Started { birth: 8, lineage, next: 6, latest: 6, sync: None };
    assert!(flow.start(&mut around.cx(), NodeId(9), &next));
    flow.start_children(&mut around.cx(), WAY);
    let taken = flow.take(&mut around.cx(), NodeId(2), Arrived { birth: 8, ..entry(6) });
    assert_eq!(taken, Arrival::Next);
    flow.run(&mut around.cx(), WAY);
    let sent = around.sent();
    let [Header::Attached(attached), Header::Data(data)] = &sent[..] else { panic!("{sent:?}") };
    let start = attached.start.as_ref().unwrap();
    assert_eq!((start.birth, start.next), (8, 6));
    assert_eq!(data.offset, 6);
}

#[test]
fn what_a_child_counts_is_given_back_with_it() {
    let mut around = Surroundings::new(Config::default());
    let mut flow = flow_with_child(&mut around);
    append(&mut flow, &mut around, 0..1);
    assert_eq!(around.quota.children.count(), 1);
    assert!(around.quota.windows.bytes() > 0);
    flow.close(&mut around.cx());
    assert_eq!((around.quota.children.count(), around.quota.windows.bytes()), (0, 0));
    assert!(matches!(&around.sent()[..], [Header::Orphan { .. }]));
    assert!(!around.waits_for(TreeTimer::Push(CHILD)));
}

#[test]
fn subscribers_get_as_much_as_they_have_credit_for() {
    let mut around = Surroundings::new(Config::default());
    let mut flow = Flow::new(around.now, TOPIC);
    flow.readers.add(SubscriptionId(1), Start::Latest, 1);
    assert!(flow.start(&mut around.cx(), NodeId(9), &started()));
    flow.start_readers(&mut around.cx(), 0);
    assert!(matches!(around.events()[..], [Event::Subscribed { .. }]));
    append(&mut flow, &mut around, 0..2);
    flow.deliver(&mut around.cx());
    let text = |event: &Event| matches!(event, Event::Item { item: Item::Message(_), .. });
    assert_eq!(around.events().iter().filter(|event| text(event)).count(), 1);
    flow.readers.add_credit(SubscriptionId(1), 5);
    flow.deliver(&mut around.cx());
    assert_eq!(around.events().iter().filter(|event| text(event)).count(), 1);
}

#[test]
fn a_subscription_from_now_on_begins_when_what_was_published_before_is_committed_here() {
    let mut around = Surroundings::new(Config::default());
    let mut flow = Flow::new(around.now, TOPIC);
    flow.readers.add(SubscriptionId(1), Start::Latest, 9);
    let mut start = |flow: &mut Flow, latest| {
        assert!(flow.start(&mut around.cx(), NodeId(9), &started()));
        flow.start_readers(&mut around.cx(), latest);
        around.events().len()
    };
    assert_eq!(start(&mut flow, 9), 0, "its parent holds nine entries");
    assert_eq!(start(&mut flow, 2), 0, "the next parent's log is a shorter one");
    for offset in 0..4 {
        append(&mut flow, &mut around, offset..offset + 1);
        flow.deliver(&mut around.cx());
        let events = around.events();
        let items = events.iter().filter(|event| matches!(event, Event::Item { .. })).count();
        let begins =
            events.iter().any(|event| matches!(event, Event::Subscribed { mark, .. } if mark.next == 2));
        assert_eq!((begins, items), (offset == 1, usize::from(offset > 1)), "at {offset}");
    }
}

/// A tree whose parent is node 2.
fn child_tree(around: &mut Surroundings) -> Tree {
    let mut tree = Tree::new(around.now, TOPIC);
    tree.subscribe(&mut around.cx(), SubscriptionId(1), Start::Latest, 9, true);
    assert!(matches!(&around.sent()[..], [Header::Join(join)] if join.number == 1));
    let path = vec![NodeId(2), NodeId(9)];
    let attached = Attached { topic: TOPIC, join: 1, seq: 1, path, root: None, start: Some(started()) };
    let outcome = tree.on_message(&mut around.cx(), contact(2), TopicMessage::Attached(attached));
    assert_eq!(outcome, Outcome::Keep);
    assert!(matches!(&around.sent()[..], [Header::Ack(_)]));
    tree
}

#[test]
fn a_parent_that_may_live_is_left_when_there_is_another_one() {
    for (reason, leaves) in [(ParentLost::Silent, true), (ParentLost::PeerDown, false)] {
        let mut around = Surroundings::new(Config::default());
        let mut tree = child_tree(&mut around);
        tree.on_parent_lost(&mut around.cx(), reason);
        assert!(tree.role.is_joining());
        assert!(matches!(&around.sent()[..], [Header::Join(join)] if join.number == 2));
        let path = vec![NodeId(4), NodeId(9)];
        let attached = Attached { topic: TOPIC, join: 2, seq: 1, path, root: None, start: None };
        let outcome = tree.on_message(&mut around.cx(), contact(4), TopicMessage::Attached(attached));
        assert_eq!(outcome, Outcome::Keep);
        assert_eq!(tree.role.parent(), Some(NodeId(4)));
        let left = around.sent().iter().any(|header| matches!(header, Header::Leave { .. }));
        assert_eq!(left, leaves, "{reason:?}");
    }
}

#[test]
fn entries_of_a_stranger_are_refused_and_a_tree_without_use_is_left() {
    let mut around = Surroundings::new(Config::default());
    let mut tree = child_tree(&mut around);
    let outcome = tree.on_message(&mut around.cx(), contact(4), TopicMessage::Entry(entry(0)));
    assert_eq!(outcome, Outcome::Refuse(contact(4)));
    let outcome = tree.on_message(&mut around.cx(), contact(2), TopicMessage::Entry(entry(0)));
    assert_eq!((outcome, tree.flow.log.matched()), (Outcome::Keep, 1));
    assert_eq!(tree.on_timer(&mut around.cx(), TreeTimer::Linger), Outcome::Keep, "it has a subscriber");
    tree.unsubscribe(&mut around.cx(), SubscriptionId(1));
    assert!(around.waits_for(TreeTimer::Linger));
    assert_eq!(tree.on_timer(&mut around.cx(), TreeTimer::Linger), Outcome::Leave);
    around.sent();
    tree.close(&mut around.cx());
    assert!(matches!(&around.sent()[..], [Header::Leave { .. }]));
    assert!(!around.waits_for(TreeTimer::Linger), "its deadlines are gone with it");
    assert!(matches!(tree.role, Role::Child(_)), "its role does not matter any more");
}

#[test]
fn a_child_acknowledges_a_quarter_of_the_window_and_less_with_its_beat() {
    let mut around = Surroundings::new(Config {
        push: PushConfig { messages: 16, ..PushConfig::default() },
        ..Config::default()
    });
    let mut tree = child_tree(&mut around);
    let push = |tree: &mut Tree, around: &mut Surroundings, offset| {
        let outcome = tree.on_message(&mut around.cx(), contact(2), TopicMessage::Entry(entry(offset)));
        assert_eq!(outcome, Outcome::Keep);
    };
    (0..3).for_each(|offset| push(&mut tree, &mut around, offset));
    assert_eq!(around.sent(), []);
    push(&mut tree, &mut around, 3);
    assert!(matches!(&around.sent()[..], [Header::Ack(ack)] if ack.next == 4));
    assert_eq!(tree.report(&mut around.cx(), NodeId(2)), None, "the parent knows");
    push(&mut tree, &mut around, 4);
    assert!(around.waits_for(TreeTimer::Ack), "the last resort");
    let told = tree.report(&mut around.cx(), NodeId(2));
    assert!(matches!(&told, Some(Report::Ack(ack)) if ack.next == 5), "{told:?}");
    assert!(!around.waits_for(TreeTimer::Ack) && around.sent().is_empty());
}

#[test]
fn a_child_that_acknowledges_late_is_not_flooded() {
    let mut around = Surroundings::new(Config::default());
    let mut flow = flow_with_child(&mut around);
    append(&mut flow, &mut around, 0..100);
    flow.run(&mut around.cx(), WAY);
    assert_eq!(pushed(&mut around).len(), 100);
    flow.on_push_timer(&mut around.cx(), WAY, CHILD);
    assert_eq!(pushed(&mut around).len(), 32);
    let late = ack(&flow, 50, false);
    flow.on_ack(&mut around.cx(), WAY, contact(CHILD.0), &late);
    assert_eq!(pushed(&mut around).len(), 50, "it lives: all that it lacks");
}

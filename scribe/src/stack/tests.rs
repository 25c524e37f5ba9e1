//! Stories of whole stacks: real Pastry nodes under real forests, in one queue with a constant delay.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use treecast_overlay::config::{Config as RingConfig, Role};
use treecast_overlay::kbr::{Bootstrap, RingView};
use treecast_overlay::peer::{Addr, Seed};
use treecast_overlay::random::{self, Rng};
use treecast_overlay::testing::{Net, Told, peer_at};
use treecast_overlay::wire::{Header as RingHeader, NodeState};

use super::*;
use crate::event::SubscriptionId;
use crate::message::{GapReason, Item, Receipt, Start};
use crate::topic::Topic;
use crate::wire::{self, Header};

const DELAY: Duration = Duration::from_millis(2);

impl Told for PastryStack {
    fn before_drain(&mut self, _: Instant) {
        self.check_invariants();
    }
}

/// Stacks in one queue, and the numbers of what they were told.
struct World {
    net: Net<PastryStack>,
    count: u64,
    rng: Rng,
}

impl Deref for World {
    type Target = Net<PastryStack>;

    fn deref(&self) -> &Net<PastryStack> {
        &self.net
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Net<PastryStack> {
        &mut self.net
    }
}

fn topic() -> Topic {
    Topic::new("stack/story").unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    fn ring(count: usize) -> World {
        let mut world = World { net: Net::new(DELAY), count: 0, rng: random::stream(&[1; 32], "world") };
        for _ in 0..count {
            world.enter(Role::Ring);
            world.run(seconds(2));
        }
        let ready = world.live().filter(|(_, stack)| stack.ring().node_state() == NodeState::Ready).count();
        assert_eq!(ready, count, "all are on the ring");
        world
    }

    /// From now on so many of a hundred frames are lost, and all are late by up to so many milliseconds.
    fn storm(&mut self, seed: u8, loss: u32, jitter: u64) {
        let mut dice = random::stream(&[seed; 32], "storm");
        self.rng = random::stream(&[seed; 32], "torture");
        self.net.delay = Box::new(move |_, _| {
            let arrives = dice.random_range(0..100) >= loss;
            arrives.then(|| DELAY + Duration::from_millis(dice.random_range(0..=jitter)))
        });
    }

    fn enter(&mut self, role: Role) -> usize {
        let slot = self.nodes.len();
        let config = RingConfig { role, ..RingConfig::default() };
        let ring = treecast_overlay::pastry::Node::new(peer_at(slot), config, [slot as u8; 32]);
        let stack = Stack::new(ring.unwrap(), Config::default(), [slot as u8; 32]).unwrap();
        let first = self.live().map(|(slot, _)| slot).next();
        let join = first.map(|first| Seed::from(Addr::Memory(first as u32))).into_iter().collect();
        self.add(stack, Command::Start(Bootstrap { join, ..Bootstrap::default() }))
    }

    fn subscribe(&mut self, slot: usize) -> SubscriptionId {
        self.count += 1;
        let subscription = SubscriptionId(self.count);
        let command =
            Command::Subscribe { subscription, topic: topic(), start: Start::Latest, credit: u32::MAX };
        self.command(slot, command);
        subscription
    }

    fn publish(&mut self, slot: usize, text: &str) {
        self.count += 1;
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let token = Token(self.count);
        self.command(slot, Command::Publish { token, topic: topic(), payload });
    }

    fn publish_many(&mut self, slot: usize, text: &str, count: usize) {
        for number in 0..count {
            self.publish(slot, &format!("{text} {number}"));
            self.run(Duration::from_millis(10));
        }
    }

    fn items(&self, wanted: SubscriptionId) -> Vec<&Item> {
        let item = |event| {
            if let &Event::Item { subscription, ref item } = event {
                Some((subscription, item))
            } else {
                None
            }
        };
        let items = self.events.iter().filter_map(|(_, event)| item(event));
        items.filter(|(subscription, _)| *subscription == wanted).map(|(_, item)| item).collect()
    }

    fn texts(&self, wanted: SubscriptionId) -> Vec<String> {
        let text = |item: &&Item| {
            if let Item::Message(message) = item { Some(message.payload.to_vec()) } else { None }
        };
        let texts = self.items(wanted).iter().filter_map(text).collect::<Vec<_>>();
        texts.into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    }

    fn gaps(&self, wanted: SubscriptionId) -> Vec<GapReason> {
        let gap = |item: &&Item| if let Item::Gap(gap) = item { Some(gap.reason) } else { None };
        self.items(wanted).iter().filter_map(gap).collect()
    }

    fn receipts(&self) -> Vec<Receipt> {
        let receipt =
            |event: &Event| if let Event::Published { receipt, .. } = event { Some(*receipt) } else { None };
        self.events.iter().filter_map(|(_, event)| receipt(event)).collect()
    }

    fn failures(&self) -> usize {
        self.events.iter().filter(|(_, event)| matches!(event, Event::PublishFailed { .. })).count()
    }

    fn root(&self) -> usize {
        let id = topic().id();
        let is_root = |stack: &PastryStack| stack.forest().trees().iter().any(|t| t.topic == id && t.is_root);
        let roots: Vec<_> = self.live().filter(|(_, stack)| is_root(stack)).map(|(slot, _)| slot).collect();
        assert_eq!(roots.len(), 1, "one root, not {roots:?}");
        roots[0]
    }
}

fn numbered(text: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{text} {number}")).collect()
}

#[test]
fn a_ring_of_stacks_publishes_and_subscribes() {
    let mut world = World::ring(12);
    let subscriptions: Vec<_> = (0..12).step_by(2).map(|slot| world.subscribe(slot)).collect();
    world.run(seconds(3));
    world.publish_many(1, "one", 50);
    world.publish_many(2, "two", 50);
    world.run(seconds(2));
    for &subscription in &subscriptions {
        assert_eq!(world.texts(subscription), [numbered("one", 50), numbered("two", 50)].concat());
    }
    assert_eq!(world.receipts().len(), 100);
    assert!(world.receipts().iter().all(|receipt| receipt.listeners == 6));
    let status = world.nodes[0].as_ref().unwrap().status();
    assert_eq!((status.peers.len(), status.trees.len()), (11, 1));
}

#[test]
fn a_killed_root_is_replaced_within_ten_seconds() {
    let mut world = World::ring(12);
    world.subscribe(0);
    world.run(seconds(2));
    let dead = world.root();
    let live: Vec<_> = (0..12).filter(|&slot| slot != dead).collect();
    let subscriptions: Vec<_> = live[1..6].iter().map(|&slot| world.subscribe(slot)).collect();
    world.run(seconds(2));
    let publisher = live[8];
    world.publish_many(publisher, "before", 20);
    world.nodes[dead] = None;
    world.publish_many(publisher, "while down", 20);
    world.run(seconds(10));
    world.publish_many(publisher, "after", 20);
    world.run(seconds(2));
    for &subscription in &subscriptions {
        let texts = world.texts(subscription);
        assert!(texts.ends_with(&numbered("after", 20)), "{texts:?}");
        assert_eq!(texts[..20], numbered("before", 20));
        assert_eq!(world.gaps(subscription), [] as [GapReason; 0]);
    }
    assert_eq!(world.receipts().len() + world.failures(), 60, "no message without an answer");
}

#[test]
fn a_root_that_leaves_is_followed_without_a_gap() {
    let mut world = World::ring(10);
    world.subscribe(0);
    world.run(seconds(2));
    let root = world.root();
    let others: Vec<_> = (0..10).filter(|&slot| slot != root).collect();
    let subscriptions: Vec<_> = others.iter().map(|&slot| world.subscribe(slot)).collect();
    world.run(seconds(2));
    let publisher = others[5];
    world.publish_many(publisher, "before", 20);
    world.command(root, Command::Leave);
    world.publish_many(publisher, "meanwhile", 100);
    world.run(seconds(2));
    assert!(world.events.iter().any(|(slot, event)| *slot == root && matches!(event, Event::Left)));
    world.nodes[root] = None;
    world.run(seconds(10));
    for &subscription in &subscriptions {
        assert_eq!(world.gaps(subscription), []);
        assert_eq!(world.texts(subscription), [numbered("before", 20), numbered("meanwhile", 100)].concat());
    }
    assert_eq!((world.receipts().len(), world.failures()), (120, 0));
}

#[test]
fn newcomers_take_their_topics_over_without_a_gap() {
    let mut world = World::ring(3);
    let subscriptions: Vec<_> = (0..3).map(|slot| world.subscribe(slot)).collect();
    world.run(seconds(2));
    let mut roots = vec![world.root()];
    let mut expected = Vec::new();
    for round in 0..25 {
        world.enter(Role::Ring);
        world.publish_many(0, &format!("round {round}"), 20);
        expected.extend(numbered(&format!("round {round}"), 20));
        world.run(seconds(3));
        roots.push(world.root());
    }
    roots.dedup();
    assert!(roots.len() > 1, "the story needs a newcomer closer to the key");
    for &subscription in &subscriptions {
        assert_eq!(world.gaps(subscription), []);
        assert_eq!(world.texts(subscription), expected);
    }
    assert_eq!((world.receipts().len(), world.failures()), (500, 0));
}

#[test]
fn crashes_and_newcomers_under_loss_leave_nothing_twice_and_nothing_unannounced() {
    for seed in 0..4 {
        let mut world = World::ring(16);
        world.storm(seed, 3, 20);
        let publisher = 1;
        let mut live: Vec<_> = (2..14).map(|slot| (slot, world.subscribe(slot))).collect();
        world.run(seconds(10));
        let mut published = 0;
        for round in 0..6 {
            let victim = world.rng.random_range(0..live.len());
            let (victim, _) = live.remove(victim);
            world.nodes[victim] = None;
            let newcomer = world.enter(Role::Ring);
            world.publish_many(publisher, &format!("round {round}"), 30);
            published += 30;
            world.run(seconds(6));
            live.push((newcomer, world.subscribe(newcomer)));
        }
        world.run(seconds(40));
        world.publish_many(publisher, "end", 10);
        world.run(seconds(35));
        assert_eq!(world.receipts().len() + world.failures(), published + 10, "seed {seed}");
        for (slot, subscription) in live {
            let texts = world.texts(subscription);
            let mut once = texts.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), texts.len(), "seed {seed}: something came twice at {slot}");
            assert!(texts.ends_with(&numbered("end", 10)), "seed {seed}: {slot} has {:?}", texts.last());
        }
    }
}

#[test]
fn edges_take_part_like_everybody_else() {
    let mut world = World::ring(8);
    let far = world.subscribe(3);
    let edge = world.enter(Role::Edge { promote_after: None });
    world.run(seconds(3));
    let near = world.subscribe(edge);
    world.run(seconds(3));
    world.publish_many(edge, "from the edge", 10);
    world.publish_many(5, "to the edge", 10);
    world.run(seconds(2));
    let expected = [numbered("from the edge", 10), numbered("to the edge", 10)].concat();
    assert_eq!(world.texts(near), expected);
    assert_eq!(world.texts(far), expected);
    assert_eq!(world.receipts().len(), 20);
    let status = world.nodes[edge].as_ref().unwrap().status();
    assert_eq!(status.node_state, NodeState::Edge);
    assert!(status.peers.len() >= 2, "its access nodes, and others to try");
}

#[test]
fn a_node_alone_needs_nobody() {
    let mut world = World::ring(1);
    let news = world.subscribe(0);
    world.publish(0, "to myself");
    world.run(seconds(1));
    assert_eq!(world.texts(news), ["to myself"]);
    assert_eq!(world.receipts()[0].listeners, 1);
    let key = topic().id().key();
    world.command(0, Command::Lookup { token: Token(7), key, trace: true });
    world.command(0, Command::Status(Token(8)));
    world.command(0, Command::Leave);
    world.run(seconds(5));
    let kinds = |wanted: fn(&Event) -> bool| world.events.iter().any(|(_, event)| wanted(event));
    assert!(kinds(|event| matches!(event, Event::Found { token: Token(7), .. })));
    assert!(kinds(|event| matches!(event, Event::Status { token: Token(8), .. })));
    assert!(kinds(|event| matches!(event, Event::Left)));
}

#[test]
fn entries_and_publications_are_data_and_all_else_that_is_sent_goes_before_them() {
    let mut world = World::ring(6);
    let edge = world.enter(Role::Edge { promote_after: None });
    world.run(seconds(3));
    for slot in 0..=edge {
        world.subscribe(slot);
    }
    world.logs = true;
    world.publish_many(1, "one", 20);
    world.publish_many(edge, "two", 20);
    world.run(seconds(2));
    let mut seen = [0; 4];
    for (.., frame) in &world.log {
        let (RingHeader::Direct(direct) | RingHeader::RelayedDirect { direct, .. }) = &frame.header else {
            continue;
        };
        if !direct.is_payload() {
            continue;
        }
        let relayed = matches!(frame.header, RingHeader::RelayedDirect { .. });
        let (header, _) = wire::decode(&frame.payload).unwrap();
        let is_data = matches!(header, Header::Data(_) | Header::Publish(_) | Header::Pulled { .. });
        assert_eq!(frame.is_control(), !is_data, "{header:?}");
        seen[2 * usize::from(relayed) + usize::from(is_data)] += 1;
    }
    assert!(seen.iter().all(|&count| count > 0), "{seen:?}");
}

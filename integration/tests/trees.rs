//! Topics in a world that does what it can to break them: whole nodes, the code that ships, under the judges of all
//! promises. What seeds make of it stands in `swarm.rs`.

use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use treecast_integration::case;
use treecast_integration::check::{Promise, s4, s6, s7};
use treecast_integration::grove::Grove;
use treecast_integration::history::Watched;
use treecast_integration::world::{self, Case, Crash, Cut, Faults, Tally};
use treecast_scribe::config::{PublishConfig, RootConfig};
use treecast_scribe::event::SubscriptionId;
use treecast_scribe::{Config, Item, Topic};

const SECOND: Duration = Duration::from_secs(1);
/// How long after a fault every subscriber is attached again (promise S1), and what was lost is announced.
const BOUND: Duration = Duration::from_secs(20);
/// How long a publication may wait for its receipt or its error: the publish timeout, and a little.
const ANSWERED: Duration = Duration::from_secs(35);

fn topic(name: &str) -> Topic {
    Topic::new(name).expect("a name")
}

fn grove(case: Case, nodes: usize) -> Grove {
    let mut grove = Grove::new(case, world::Config::default());
    grove.grow(nodes, Duration::from_millis(nodes as u64 * 50));
    grove
}

/// So many messages, one each `pause`, from publishers in turn.
fn publish(grove: &mut Grove, topic: &Topic, publishers: &[usize], messages: usize, pause: Duration) {
    for i in 0..messages {
        grove.publish(publishers[i % publishers.len()], topic, 200);
        grove.run(pause);
    }
}

/// New messages of every publisher reach everybody. Each publisher goes on until one has its receipt: after the loss of
/// a root the session may still have to end.
fn reaches_all(grove: &mut Grove, topic: &Topic, publishers: &[usize]) {
    for &slot in publishers {
        while !reaches(grove, topic, slot) {}
    }
}

fn reaches(grove: &mut Grove, topic: &Topic, slot: usize) -> bool {
    let token = grove.publish(slot, topic, 64);
    grove.run_until(ANSWERED, |grove| grove.judge(&[], s4::judge_open));
    let Some((_, Ok(receipt))) = grove.history.publications[&token].outcome else { return false };
    grove.run_until(BOUND, |grove| {
        let awake = |(_, watched): &(_, &Watched)| !watched.stalled;
        let gets = |watched: &Watched| watched.messages().any(|(_, message)| message.id == receipt.id);
        match grove.history.lasting(topic.id()).filter(awake).find(|(_, watched)| !gets(watched)) {
            Some((id, watched)) => {
                Err(Promise::S5.broken(format!("{id:?} in slot {} waits for {receipt:?}", watched.slot)))
            }
            None => Ok(()),
        }
    });
    true
}

fn tell(grove: &Grove, what: &str) {
    let (kept, failed, _) = grove.history.outcomes();
    eprintln!(
        "{what}: {} at {}: {} deliveries, {} gaps, {kept} receipts, {failed} without",
        grove.world.case(),
        grove.world.now(),
        grove.history.deliveries(),
        grove.history.gaps()
    );
}

/// What happens to one topic in one ring.
struct Story {
    nodes: usize,
    subscribers: usize,
    messages: usize,
    faults: Faults,
}

/// Joins through one bootstrap; everybody subscribes; publishers publish; forwarders crash, then roots.
fn story(case: Case, plan: &Story) -> Grove {
    let mut grove = grove(case, plan.nodes);
    let news = topic("rust/news");
    let mut slots: Vec<usize> = (0..plan.nodes).collect();
    slots.shuffle(&mut grove.world.stream("story"));
    let (publishers, subscribers) = slots.split_at(4);
    for &slot in &subscribers[..plan.subscribers] {
        grove.subscribe(slot, &news);
    }
    grove.world.set_faults(plan.faults);
    let attached = grove.settle(BOUND);
    let before = grove.payloads();
    publish(&mut grove, &news, publishers, plan.messages, Duration::from_millis(100));
    grove.settle(ANSWERED);
    let copies = (grove.payloads() - before) as f64 / grove.history.deliveries() as f64;
    let forwarders = grove.parents(&news).len();
    eprintln!("attached after {attached:?}; {forwarders} forwarders; {copies:.3} payloads per delivery");
    assert_eq!(grove.history.gaps(), 0, "nothing has failed yet");
    if plan.faults == Faults::default() && plan.subscribers >= 100 {
        assert!(copies < 1.15, "{copies} payloads per delivery");
    }
    tell(&grove, "quiet");
    for how in [Crash::Process, Crash::Power] {
        crash_forwarders(&mut grove, &news, publishers, plan, how);
    }
    for how in [Crash::Process, Crash::Power] {
        crash_root(&mut grove, &news, publishers, plan, how);
    }
    grove.world.set_faults(Faults::default());
    grove.run(SECOND * 5);
    grove.settle(ANSWERED);
    grove
}

fn alive(grove: &Grove, slots: &[usize]) -> Vec<usize> {
    slots.iter().copied().filter(|&slot| grove.world.is_running(slot)).collect()
}

/// The three largest families lose their heads while publishers publish.
fn crash_forwarders(grove: &mut Grove, topic: &Topic, publishers: &[usize], plan: &Story, how: Crash) {
    let publishers = &alive(grove, publishers);
    let mut doomed = grove.parents(topic);
    doomed.retain(|slot| !publishers.contains(slot));
    doomed.truncate(3);
    publish(grove, topic, publishers, plan.messages / 4, Duration::from_millis(100));
    for slot in doomed {
        grove.crash(slot, how);
    }
    publish(grove, topic, publishers, plan.messages / 2, Duration::from_millis(100));
    let took = grove.run_until(BOUND, Grove::is_whole);
    grove.settle(ANSWERED);
    reaches_all(grove, topic, publishers);
    tell(grove, &format!("forwarders, {how:?}: whole after {took:?}"));
}

fn crash_root(grove: &mut Grove, topic: &Topic, publishers: &[usize], plan: &Story, how: Crash) {
    publish(grove, topic, &alive(grove, publishers), plan.messages / 4, Duration::from_millis(100));
    let root = grove.root(topic);
    grove.crash(root, how);
    let publishers = alive(grove, publishers);
    publish(grove, topic, &publishers, plan.messages / 2, Duration::from_millis(100));
    let took = grove.run_until(BOUND, Grove::is_whole);
    grove.settle(ANSWERED);
    reaches_all(grove, topic, &publishers);
    tell(grove, &format!("root, {how:?}: whole after {took:?}"));
}

const LARGE: Story = Story {
    nodes: 200,
    subscribers: 150,
    messages: 40,
    faults: Faults { loss: 0.0, duplication: 0.0, reordering: 0.0, reorder_by: Duration::ZERO },
};

fn bad_weather(loss: f64) -> Faults {
    Faults { loss, duplication: 0.05, reordering: 0.1, reorder_by: Duration::from_millis(500) }
}

#[test]
fn two_hundred_nodes_and_one_topic() {
    let grove = story(case!("two_hundred_nodes_and_one_topic", 1), &LARGE);
    eprintln!("{}", grove.world.counters());
}

#[test]
fn two_hundred_nodes_in_bad_weather() {
    let plan = Story { faults: bad_weather(0.03), messages: 20, ..LARGE };
    story(case!("two_hundred_nodes_in_bad_weather", 1), &plan);
}

#[test]
fn many_topics_come_and_go() {
    let case = case!("many_topics_come_and_go", 1);
    // Logs that nobody uses go after 20 s, not after ten minutes.
    let forest = Config {
        root: RootConfig { idle: SECOND * 20, ..RootConfig::default() },
        publish: PublishConfig { idle: SECOND * 20, ..PublishConfig::default() },
        ..Config::default()
    };
    let mut grove = Grove::with(case, world::Config::default(), forest);
    grove.grow(50, SECOND * 5);
    let topics: Vec<Topic> = (0..40).map(|i| topic(&format!("topic/{i}"))).collect();
    let mut dice = grove.world.stream("many");
    let mut subscriptions: Vec<SubscriptionId> = Vec::new();
    for round in 0..200 {
        for _ in 0..3 {
            let (slot, topic) = (dice.random_range(0..50), topics.choose(&mut dice).unwrap());
            subscriptions.push(grove.subscribe(slot, topic));
        }
        while subscriptions.len() > 150 || round > 150 && subscriptions.len() > 20 {
            let place = dice.random_range(0..subscriptions.len());
            grove.unsubscribe(subscriptions.swap_remove(place));
        }
        let (slot, topic) = (dice.random_range(0..50), topics.choose(&mut dice).unwrap());
        grove.publish(slot, topic, 100);
        grove.run(Duration::from_millis(100));
    }
    grove.settle(ANSWERED);
    assert_eq!(grove.history.gaps(), 0);
    tell(&grove, "many topics");
    for subscription in subscriptions {
        grove.unsubscribe(subscription);
    }
    grove.run(SECOND * 10);
    let on_trees =
        grove.stacks().flat_map(|(_, stack)| stack.forest().trees()).filter(|tree| !tree.is_root).count();
    assert_eq!(on_trees, 0, "trees that nobody needs, after the linger");
    grove.run(SECOND * 25);
    assert_eq!(grove.trees(), 0, "trees of which only the root is left, after its idle time");
    let before = *grove.world.counters();
    grove.run(SECOND * 20);
    // The ring goes on; of the forest nothing is heard.
    let kinds = s7::kinds(&before, grove.world.counters());
    assert!(kinds.contains("probe") && !kinds.contains("letter") && !kinds.contains("routed"), "{kinds}");
}

/// What goes over the wires while nobody does anything.
fn rest(grove: &mut Grove, time: Duration) -> Tally {
    let before = *grove.world.counters();
    grove.run(time);
    eprintln!("at rest for {time:?}: {}", s7::kinds(&before, grove.world.counters()));
    s7::between(&before, grove.world.counters())
}

#[test]
fn a_thousand_topics_idle_like_one() {
    // No jitter of the dice: what is compared is what the nodes do.
    let network = world::Config { spurious_timeouts: 0.0, ..world::Config::default() };
    let mut grove = Grove::new(case!("a_thousand_topics_idle_like_one", 1), network);
    grove.grow(6, SECOND);
    // So many topics that every node is every other one's child in some.
    let mut pairs = std::collections::BTreeSet::new();
    for i in 0.. {
        let topic = topic(&format!("first/{i}"));
        for slot in 0..6 {
            grove.subscribe(slot, &topic);
        }
        grove.settle(BOUND);
        for (slot, tree) in grove.tree(&topic) {
            pairs.extend(tree.parent.map(|parent| (parent, grove.id(slot))));
        }
        if pairs.len() == 30 {
            break;
        }
    }
    let first = grove.stack(0).forest().trees().len();
    grove.run(SECOND * 30);
    let few = rest(&mut grove, SECOND * 60);
    for i in 0..1000 {
        let topic = topic(&format!("further/{i}"));
        for slot in 0..6 {
            grove.subscribe(slot, &topic);
        }
    }
    grove.settle(BOUND);
    grove.run(SECOND * 30);
    let many = rest(&mut grove, SECOND * 60);
    let per_second = |tally: Tally| tally.sent as f64 / 60.0 / 6.0;
    eprintln!(
        "frames a second and node: {:.1} with {first} topics, {:.1} with 1,000 more",
        per_second(few),
        per_second(many)
    );
    s7::cheap(few, many).unwrap_or_else(|fault| panic!("{fault}"));
}

/// The beats of the trees that two ring neighbours share carry their leases (design §5).
#[test]
fn neighbours_that_share_trees_need_no_frames_for_their_leases() {
    let about_leases = |grove: &mut Grove| {
        let probes = |grove: &Grove| {
            let counters = grove.world.counters();
            counters.of("probe").sent + counters.of("probe_ack").sent
        };
        let before = probes(grove);
        rest(grove, SECOND * 60);
        probes(grove) - before
    };
    let mut grove = grove(case!("neighbours_that_share_trees_need_no_frames_for_their_leases", 1), 6);
    grove.run(SECOND * 10);
    let silent = about_leases(&mut grove);
    for i in 0..30 {
        let topic = topic(&format!("shared/{i}"));
        (0..6).for_each(|slot| {
            grove.subscribe(slot, &topic);
        });
    }
    grove.settle(BOUND);
    grove.run(SECOND * 10);
    let talking = about_leases(&mut grove);
    eprintln!("probes and their answers in a minute: {silent} without topics, {talking} with 30");
    assert!(talking * 4 <= silent, "{talking} of {silent}");
}

#[test]
fn edges_outlive_their_access_nodes() {
    let mut grove = grove(case!("edges_outlive_their_access_nodes", 1), 10);
    let news = topic("rust/news");
    let root = grove.root(&news);
    let access: Vec<usize> = (0..10).filter(|&slot| slot != root).take(3).collect();
    let edges: Vec<usize> = (0..20).map(|i| grove.add_edge(&[access[i % 2], access[2]])).collect();
    grove.await_ready();
    for &edge in &edges {
        grove.subscribe(edge, &news);
    }
    grove.settle(BOUND);
    publish(&mut grove, &news, &edges, 20, Duration::from_millis(50));
    for (slot, how) in [(access[0], Crash::Process), (access[1], Crash::Power)] {
        grove.crash(slot, how);
        publish(&mut grove, &news, &edges, 40, Duration::from_millis(100));
        let took = grove.run_until(BOUND, Grove::is_whole);
        grove.settle(ANSWERED);
        reaches_all(&mut grove, &news, &edges);
        tell(&grove, &format!("access node, {how:?}: whole after {took:?}"));
    }
    assert_eq!(grove.history.gaps(), 0, "the root lived: its window had everything");
    assert_eq!(grove.history.outcomes().1, 0, "and so every message has its receipt");
}

#[test]
fn who_leaves_in_order_loses_nothing() {
    let mut grove = grove(case!("who_leaves_in_order_loses_nothing", 1), 30);
    let news = topic("rust/news");
    let (publishers, subscribers) = ([0, 1, 2], 3..30);
    for slot in subscribers {
        grove.subscribe(slot, &news);
    }
    grove.settle(BOUND);
    for round in 0..4 {
        publish(&mut grove, &news, &publishers, 10, Duration::from_millis(50));
        let slot =
            if round % 2 == 0 { Some(grove.root(&news)) } else { grove.parents(&news).first().copied() };
        // A publisher that leaves takes its answers with it: it stays.
        if let Some(slot) = slot.filter(|slot| !publishers.contains(slot)) {
            end_subscriptions(&mut grove, slot);
            grove.leave(slot);
        }
        publish(&mut grove, &news, &publishers, 40, Duration::from_millis(100));
        let took = grove.run_until(BOUND, Grove::is_whole);
        grove.settle(ANSWERED);
        tell(&grove, &format!("slot {slot:?} left: whole after {took:?}"));
    }
    assert_eq!(grove.history.gaps(), 0);
    assert_eq!(grove.history.outcomes().1, 0);
}

fn end_subscriptions(grove: &mut Grove, slot: usize) {
    let there = grove.history.subscriptions.iter().filter(|(_, w)| w.slot == slot && w.ended.is_none());
    for id in there.map(|(&id, _)| id).collect::<Vec<_>>() {
        grove.unsubscribe(id);
    }
}

#[test]
fn newcomers_take_the_root_over_without_a_gap() {
    let mut grove = grove(case!("newcomers_take_the_root_over_without_a_gap", 1), 8);
    // A topic whose root is yet to come: ids are known beforehand.
    let closest = |topic: &Topic| {
        let key = topic.id().key();
        (0..32).min_by(|&a, &b| key.closer(grove.id(a), grove.id(b)))
    };
    let mut topics = (0..).map(|i| topic(&format!("news/{i}")));
    let news =
        topics.find(|topic| closest(topic) >= Some(8)).expect("most newcomers are closest to something");
    for slot in 0..8 {
        grove.subscribe(slot, &news);
    }
    grove.settle(BOUND);
    let mut roots = std::collections::BTreeSet::from([grove.root(&news)]);
    for _ in 0..24 {
        grove.add(&[0]);
        publish(&mut grove, &news, &[1, 2, 3], 15, Duration::from_millis(100));
        roots.insert(grove.root(&news));
    }
    grove.await_ready();
    grove.settle(ANSWERED);
    reaches_all(&mut grove, &news, &[1, 2, 3]);
    tell(&grove, &format!("{} roots", roots.len()));
    assert!(roots.len() > 1, "somebody came closer to the key");
    assert_eq!(grove.history.gaps(), 0);
    assert_eq!(grove.history.outcomes().1, 0);
}

#[test]
fn a_slow_subscriber_gets_a_gap_and_disturbs_nobody() {
    let mut grove = grove(case!("a_slow_subscriber_gets_a_gap_and_disturbs_nobody", 1), 20);
    let news = topic("rust/news");
    for slot in 0..19 {
        grove.subscribe(slot, &news);
    }
    let slow = grove.subscribe_stalled(19, &news, 10);
    grove.settle(BOUND);
    // Half as much again as a window holds.
    let total = Config::default().window.messages * 3 / 2;
    for i in 0..total {
        grove.publish(i % 3, &news, 100);
        if i % 10 == 0 {
            grove.run(Duration::from_millis(50));
        }
    }
    grove.settle(ANSWERED);
    let slowest = s6::undisturbed(&grove.history, SECOND * 2).unwrap_or_else(|fault| panic!("{fault}"));
    let items = grove.history.subscriptions[&slow].items.len();
    assert_eq!(items, 10, "its credit");
    grove.unstall(slow);
    grove.settle(BOUND);
    let watched = &grove.history.subscriptions[&slow];
    let gap = watched.items.iter().position(|(_, item)| matches!(item, Item::Gap(_)));
    eprintln!("slowest delivery {slowest:?}; the slow one: gap at {gap:?}, {} items", watched.items.len());
    assert_eq!((gap, watched.gaps(), grove.history.gaps()), (Some(10), 1, 1));
}

#[test]
fn a_publisher_that_its_root_cannot_reach_gets_its_receipts_another_way() {
    let mut grove =
        grove(case!("a_publisher_that_its_root_cannot_reach_gets_its_receipts_another_way", 1), 16);
    let news = topic("cut/news");
    let root = grove.root(&news);
    let leaf_set = grove.stack(root).ring().leaf_set();
    let next: Vec<_> = leaf_set.left().into_iter().chain(leaf_set.right()).map(|peer| peer.id).collect();
    let publisher = (0..16).find(|&slot| slot != root && !next.contains(&grove.id(slot))).unwrap();
    grove.world.cut(Cut::pair(root, publisher));
    for _ in 0..3 {
        let token = grove.publish(publisher, &news, 64);
        grove.run_until(ANSWERED, |grove| grove.judge(&[], s4::judge_open));
        let outcome = &grove.history.publications[&token].outcome;
        assert!(matches!(outcome, Some((_, Ok(_)))), "{outcome:?}");
    }
}

//! Topics in a world that does what it can to break them: whole nodes, the code that ships, under the judges of all
//! promises. Seeds of such worlds run in `swarm.rs`.

use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use treecast_integration::case;
use treecast_integration::check::{Promise, s6, s7};
use treecast_integration::cluster::Cluster;
use treecast_integration::cluster::history::Watched;
use treecast_integration::node::RingNode;
use treecast_integration::world::{self, Case, Crash, Cut, Faults, Tally};
use treecast_overlay::config::Config as RingConfig;
use treecast_scribe::event::{SubscriptionId, TreeStatus};
use treecast_scribe::{Config, Item, Topic};

const SECOND: Duration = Duration::from_secs(1);
/// How long after a fault every subscriber is attached again (promise S1), and what was lost is announced.
const BOUND: Duration = Duration::from_secs(20);
/// How long a publication may wait for its receipt or its error: the publish timeout, and a little.
const ANSWERED: Duration = Duration::from_secs(35);

fn topic(name: &str) -> Topic {
    Topic::new(name).expect("a name")
}

fn cluster(case: Case, nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(case, world::Config::default());
    cluster.grow(nodes, Duration::from_millis(nodes as u64 * 50));
    cluster
}

/// So many messages, one each `pause`, from publishers in turn.
fn publish(cluster: &mut Cluster, topic: &Topic, publishers: &[usize], messages: usize, pause: Duration) {
    for i in 0..messages {
        cluster.publish(publishers[i % publishers.len()], topic, 200);
        cluster.run(pause);
    }
}

/// New messages of every publisher reach everybody. Each publisher goes on until one has its receipt: after the loss of
/// a root the session may still have to end.
fn reaches_all(cluster: &mut Cluster, topic: &Topic, publishers: &[usize]) {
    for &slot in publishers {
        while !reaches(cluster, topic, slot) {}
    }
}

fn reaches(cluster: &mut Cluster, topic: &Topic, slot: usize) -> bool {
    let token = cluster.publish(slot, topic, 64);
    cluster.run_until(ANSWERED, Cluster::is_answered);
    let Some((_, Ok(receipt))) = cluster.history.publications[&token].outcome else { return false };
    cluster.run_until(BOUND, |cluster| {
        let awake = |(_, watched): &(_, &Watched)| !watched.stalled;
        let gets = |watched: &Watched| watched.messages().any(|(_, message)| message.id == receipt.id);
        match cluster.history.lasting(topic.id()).filter(awake).find(|(_, watched)| !gets(watched)) {
            Some((id, watched)) => {
                Err(Promise::S5.broken(format!("{id:?} in slot {} waits for {receipt:?}", watched.slot)))
            }
            None => Ok(()),
        }
    });
    true
}

fn tell(cluster: &Cluster, what: &str) {
    let (kept, failed, _) = cluster.history.outcomes();
    eprintln!(
        "{what}: {} at {}: {} deliveries, {} gaps, {kept} receipts, {failed} without",
        cluster.world.case(),
        cluster.world.now(),
        cluster.history.deliveries(),
        cluster.history.gaps()
    );
}

/// A story of one topic in one ring.
struct Story {
    nodes: usize,
    subscribers: usize,
    messages: usize,
    faults: Faults,
}

/// Joins through one bootstrap; everybody subscribes; publishers publish; forwarders crash, then roots.
fn story(case: Case, plan: &Story) -> Cluster {
    let mut cluster = cluster(case, plan.nodes);
    let news = topic("rust/news");
    let mut slots: Vec<usize> = (0..plan.nodes).collect();
    slots.shuffle(&mut cluster.world.stream("story"));
    let (publishers, subscribers) = slots.split_at(4);
    for &slot in &subscribers[..plan.subscribers] {
        cluster.subscribe(slot, &news);
    }
    cluster.world.set_faults(plan.faults);
    let attached = cluster.run_until_delivered(BOUND);
    let before = cluster.witness.borrow().payloads;
    publish(&mut cluster, &news, publishers, plan.messages, Duration::from_millis(100));
    cluster.run_until_delivered(ANSWERED);
    let copies = (cluster.witness.borrow().payloads - before) as f64 / cluster.history.deliveries() as f64;
    let forwarders = cluster.parents(&news).len();
    eprintln!("attached after {attached:?}; {forwarders} forwarders; {copies:.3} payloads per delivery");
    assert_eq!(cluster.history.gaps(), 0, "nothing has failed yet");
    if plan.faults == Faults::default() && plan.subscribers >= 100 {
        assert!(copies < 1.15, "{copies} payloads per delivery");
    }
    tell(&cluster, "quiet");
    for how in [Crash::Process, Crash::Power] {
        crash_forwarders(&mut cluster, &news, publishers, plan, how);
    }
    for how in [Crash::Process, Crash::Power] {
        crash_root(&mut cluster, &news, publishers, plan, how);
    }
    cluster.world.set_faults(Faults::default());
    cluster.run(SECOND * 5);
    cluster.run_until_delivered(ANSWERED);
    cluster
}

fn alive(cluster: &Cluster, slots: &[usize]) -> Vec<usize> {
    slots.iter().copied().filter(|&slot| cluster.world.is_running(slot)).collect()
}

/// The three largest families lose their heads while publishers publish.
fn crash_forwarders(cluster: &mut Cluster, topic: &Topic, publishers: &[usize], plan: &Story, how: Crash) {
    let publishers = &alive(cluster, publishers);
    let mut doomed = cluster.parents(topic);
    doomed.retain(|slot| !publishers.contains(slot));
    doomed.truncate(3);
    publish(cluster, topic, publishers, plan.messages / 4, Duration::from_millis(100));
    for slot in doomed {
        cluster.crash(slot, how);
    }
    publish(cluster, topic, publishers, plan.messages / 2, Duration::from_millis(100));
    let took = cluster.run_until(BOUND, Cluster::is_attached);
    cluster.run_until_delivered(ANSWERED);
    reaches_all(cluster, topic, publishers);
    tell(cluster, &format!("forwarders, {how:?}: whole after {took:?}"));
}

fn crash_root(cluster: &mut Cluster, topic: &Topic, publishers: &[usize], plan: &Story, how: Crash) {
    publish(cluster, topic, &alive(cluster, publishers), plan.messages / 4, Duration::from_millis(100));
    let root = cluster.root(topic);
    cluster.crash(root, how);
    let publishers = alive(cluster, publishers);
    publish(cluster, topic, &publishers, plan.messages / 2, Duration::from_millis(100));
    let took = cluster.run_until(BOUND, Cluster::is_attached);
    cluster.run_until_delivered(ANSWERED);
    reaches_all(cluster, topic, &publishers);
    tell(cluster, &format!("root, {how:?}: whole after {took:?}"));
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
    let cluster = story(case!("two_hundred_nodes_and_one_topic", 1), &LARGE);
    eprintln!("{}", cluster.world.counters());
}

#[test]
fn two_hundred_nodes_in_bad_weather() {
    let plan = Story { faults: bad_weather(0.03), messages: 20, ..LARGE };
    story(case!("two_hundred_nodes_in_bad_weather", 1), &plan);
}

/// Whoever was on the tree before it became a member has its history from the root: when all are dead that were there when it
/// was published, nothing of it is missing.
#[test]
fn history_outlives_all_who_held_it_first() {
    let mut cluster = cluster(case!("history_outlives_all_who_held_it_first", 1), 4);
    let topic = topic("history");
    let first = cluster.subscribe(0, &topic);
    cluster.run(SECOND * 3);
    publish(&mut cluster, &topic, &[1], 600, Duration::from_millis(5));
    cluster.run_until(ANSWERED, Cluster::is_answered);
    for _ in 4..10 {
        cluster.add(&[0]);
    }
    cluster.run(SECOND * 5);
    // They begin with what comes.
    for slot in 4..10 {
        cluster.subscribe(slot, &topic);
    }
    cluster.run(SECOND * 5);
    publish(&mut cluster, &topic, &[5], 20, Duration::from_millis(50));
    cluster.unsubscribe(first);
    for slot in 0..4 {
        cluster.crash(slot, Crash::Process);
        cluster.run(SECOND * 20);
    }
    let logs = cluster.stacks().filter_map(|(_, stack)| stack.forest().place(topic.id())?.log());
    let members = logs.filter(|log| log.replica().is_some());
    let starts: Vec<_> = members.map(|log| (log.window.start(), log.end() >= 620)).collect();
    assert_eq!(starts, [(0, true); 3], "where the members' logs begin");
}

#[test]
fn many_topics_come_and_go() {
    let case = case!("many_topics_come_and_go", 1);
    // Logs that nobody uses go after 20 s, not after ten minutes.
    let mut forest = Config::default();
    (forest.root.idle, forest.publish.idle) = (SECOND * 20, SECOND * 20);
    let mut cluster = Cluster::with(case, world::Config::default(), RingConfig::default(), forest);
    cluster.grow(50, SECOND * 5);
    let topics: Vec<Topic> = (0..40).map(|i| topic(&format!("topic/{i}"))).collect();
    let mut dice = cluster.world.stream("many");
    let mut subscriptions: Vec<SubscriptionId> = Vec::new();
    for round in 0..200 {
        for _ in 0..3 {
            let (slot, topic) = (dice.random_range(0..50), topics.choose(&mut dice).unwrap());
            subscriptions.push(cluster.subscribe(slot, topic));
        }
        while subscriptions.len() > 150 || round > 150 && subscriptions.len() > 20 {
            let place = dice.random_range(0..subscriptions.len());
            cluster.unsubscribe(subscriptions.swap_remove(place));
        }
        let (slot, topic) = (dice.random_range(0..50), topics.choose(&mut dice).unwrap());
        cluster.publish(slot, topic, 100);
        cluster.run(Duration::from_millis(100));
    }
    cluster.run_until_delivered(ANSWERED);
    assert_eq!(cluster.history.gaps(), 0);
    tell(&cluster, "many topics");
    for subscription in subscriptions {
        cluster.unsubscribe(subscription);
    }
    cluster.run(SECOND * 10);
    // The root and the members keep the log for a while.
    let keeps_log = |tree: &TreeStatus| tree.is_root || tree.is_member;
    let needless =
        cluster.stacks().flat_map(|(_, stack)| stack.forest().trees()).find(|tree| !keeps_log(tree));
    assert_eq!(needless, None, "a tree that nobody needs, after the linger");
    cluster.run(SECOND * 25);
    assert_eq!(
        cluster.stacks().map(|(_, stack)| stack.forest().trees().len()).sum::<usize>(),
        0,
        "trees of which only the root and the members are left, after its idle time"
    );
    let before = *cluster.world.counters();
    cluster.run(SECOND * 20);
    // The ring goes on; of the forest nothing is heard.
    let kinds = s7::kinds(&before, cluster.world.counters());
    assert!(kinds.contains("probe") && !kinds.contains("direct") && !kinds.contains("routed"), "{kinds}");
}

/// Frames that go over the wires while nobody does anything.
fn rest(cluster: &mut Cluster, time: Duration) -> Tally {
    let before = *cluster.world.counters();
    cluster.run(time);
    eprintln!("at rest for {time:?}: {}", s7::kinds(&before, cluster.world.counters()));
    s7::between(&before, cluster.world.counters())
}

#[test]
fn a_thousand_topics_idle_like_one() {
    // No jitter of the dice: what is compared is what the nodes do.
    let network = world::Config { spurious_timeouts: 0.0, ..world::Config::default() };
    let mut cluster = Cluster::new(case!("a_thousand_topics_idle_like_one", 1), network);
    cluster.grow(6, SECOND);
    // So many topics that every node is every other one's child in some.
    let mut pairs = std::collections::BTreeSet::new();
    for i in 0.. {
        let topic = topic(&format!("first/{i}"));
        for slot in 0..6 {
            cluster.subscribe(slot, &topic);
        }
        cluster.run_until_delivered(BOUND);
        for (slot, tree) in cluster.tree(&topic) {
            pairs.extend(tree.parent.map(|parent| (parent, cluster.id(slot))));
        }
        if pairs.len() == 30 {
            break;
        }
    }
    let first = cluster.stack(0).forest().trees().len();
    cluster.run(SECOND * 30);
    let few = rest(&mut cluster, SECOND * 60);
    for i in 0..1000 {
        let topic = topic(&format!("further/{i}"));
        for slot in 0..6 {
            cluster.subscribe(slot, &topic);
        }
    }
    cluster.run_until_delivered(BOUND);
    cluster.run(SECOND * 30);
    let many = rest(&mut cluster, SECOND * 60);
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
    let about_leases = |cluster: &mut Cluster| {
        let probes = |cluster: &Cluster| {
            let counters = cluster.world.counters();
            counters.of("probe").sent + counters.of("probe_ack").sent
        };
        let before = probes(cluster);
        rest(cluster, SECOND * 60);
        probes(cluster) - before
    };
    let mut cluster = cluster(case!("neighbours_that_share_trees_need_no_frames_for_their_leases", 1), 6);
    cluster.run(SECOND * 10);
    let silent = about_leases(&mut cluster);
    for i in 0..30 {
        let topic = topic(&format!("shared/{i}"));
        (0..6).for_each(|slot| {
            cluster.subscribe(slot, &topic);
        });
    }
    cluster.run_until_delivered(BOUND);
    cluster.run(SECOND * 10);
    let talking = about_leases(&mut cluster);
    eprintln!("probes and their answers in a minute: {silent} without topics, {talking} with 30");
    assert!(talking * 4 <= silent, "{talking} of {silent}");
}

#[test]
fn edges_outlive_their_access_nodes() {
    let mut cluster = cluster(case!("edges_outlive_their_access_nodes", 1), 10);
    let news = topic("rust/news");
    let root = cluster.root(&news);
    let access: Vec<usize> = (0..10).filter(|&slot| slot != root).take(3).collect();
    let edges: Vec<usize> = (0..20).map(|i| cluster.add_edge(&[access[i % 2], access[2]])).collect();
    cluster.await_ready();
    for &edge in &edges {
        cluster.subscribe(edge, &news);
    }
    cluster.run_until_delivered(BOUND);
    publish(&mut cluster, &news, &edges, 20, Duration::from_millis(50));
    for (slot, how) in [(access[0], Crash::Process), (access[1], Crash::Power)] {
        cluster.crash(slot, how);
        publish(&mut cluster, &news, &edges, 40, Duration::from_millis(100));
        let took = cluster.run_until(BOUND, Cluster::is_attached);
        cluster.run_until_delivered(ANSWERED);
        reaches_all(&mut cluster, &news, &edges);
        tell(&cluster, &format!("access node, {how:?}: whole after {took:?}"));
    }
    assert_eq!(cluster.history.gaps(), 0, "the root lived: its window had everything");
    assert_eq!(cluster.history.outcomes().1, 0, "and so every message has its receipt");
}

#[test]
fn who_leaves_in_order_loses_nothing() {
    let mut cluster = cluster(case!("who_leaves_in_order_loses_nothing", 1), 30);
    let news = topic("rust/news");
    let (publishers, subscribers) = ([0, 1, 2], 3..30);
    for slot in subscribers {
        cluster.subscribe(slot, &news);
    }
    cluster.run_until_delivered(BOUND);
    for round in 0..4 {
        publish(&mut cluster, &news, &publishers, 10, Duration::from_millis(50));
        let slot =
            if round % 2 == 0 { Some(cluster.root(&news)) } else { cluster.parents(&news).first().copied() };
        // A publisher that leaves takes its answers with it: it stays.
        if let Some(slot) = slot.filter(|slot| !publishers.contains(slot)) {
            end_subscriptions(&mut cluster, slot);
            cluster.leave(slot);
        }
        publish(&mut cluster, &news, &publishers, 40, Duration::from_millis(100));
        let took = cluster.run_until(BOUND, Cluster::is_attached);
        cluster.run_until_delivered(ANSWERED);
        tell(&cluster, &format!("slot {slot:?} left: whole after {took:?}"));
    }
    assert_eq!(cluster.history.gaps(), 0);
    assert_eq!(cluster.history.outcomes().1, 0);
}

fn end_subscriptions(cluster: &mut Cluster, slot: usize) {
    let there = cluster.history.subscriptions.iter().filter(|(_, w)| w.slot == slot && w.ended.is_none());
    for id in there.map(|(&id, _)| id).collect::<Vec<_>>() {
        cluster.unsubscribe(id);
    }
}

#[test]
fn newcomers_take_the_root_over_without_a_gap() {
    let mut cluster = cluster(case!("newcomers_take_the_root_over_without_a_gap", 1), 8);
    // A topic whose root is yet to come: ids are known beforehand.
    let closest = |topic: &Topic| {
        let key = topic.id().key();
        (0..32).min_by(|&a, &b| key.closer(cluster.id(a), cluster.id(b)))
    };
    let mut topics = (0..).map(|i| topic(&format!("news/{i}")));
    let news =
        topics.find(|topic| closest(topic) >= Some(8)).expect("most newcomers are closest to something");
    for slot in 0..8 {
        cluster.subscribe(slot, &news);
    }
    cluster.run_until_delivered(BOUND);
    let mut roots = std::collections::BTreeSet::from([cluster.root(&news)]);
    for _ in 0..24 {
        cluster.add(&[0]);
        publish(&mut cluster, &news, &[1, 2, 3], 15, Duration::from_millis(100));
        roots.insert(cluster.root(&news));
    }
    cluster.await_ready();
    cluster.run_until_delivered(ANSWERED);
    reaches_all(&mut cluster, &news, &[1, 2, 3]);
    tell(&cluster, &format!("{} roots", roots.len()));
    assert!(roots.len() > 1, "somebody came closer to the key");
    assert_eq!(cluster.history.gaps(), 0);
    assert_eq!(cluster.history.outcomes().1, 0);
}

#[test]
fn a_slow_subscriber_gets_a_gap_and_disturbs_nobody() {
    let mut small = Config::default();
    (small.window.messages, small.push.messages) = (1024, 256);
    let total = small.window.messages * 3 / 2;
    let case = case!("a_slow_subscriber_gets_a_gap_and_disturbs_nobody", 1);
    let mut cluster: Cluster = Cluster::with(case, world::Config::default(), RingConfig::default(), small);
    cluster.grow(20, SECOND);
    let news = topic("rust/news");
    for slot in 0..19 {
        cluster.subscribe(slot, &news);
    }
    let slow = cluster.subscribe_with(19, &news, Some(10));
    cluster.run_until_delivered(BOUND);
    // Half as much again as a window holds.
    for i in 0..total {
        cluster.publish(i % 3, &news, 100);
        if i % 10 == 0 {
            cluster.run(Duration::from_millis(50));
        }
    }
    cluster.run_until_delivered(ANSWERED);
    let slowest = s6::undisturbed(&cluster.history, SECOND * 2).unwrap_or_else(|fault| panic!("{fault}"));
    let items = cluster.history.subscriptions[&slow].items.len();
    assert_eq!(items, 10, "its credit");
    cluster.unstall(slow);
    cluster.run_until_delivered(BOUND);
    let watched = &cluster.history.subscriptions[&slow];
    let gap = watched.items.iter().position(|(_, item)| matches!(item, Item::Gap(_)));
    eprintln!("slowest delivery {slowest:?}; the slow one: gap at {gap:?}, {} items", watched.items.len());
    assert_eq!((gap, watched.gaps(), cluster.history.gaps()), (Some(10), 1, 1));
}

#[test]
fn a_publisher_that_its_root_cannot_reach_gets_its_receipts_another_way() {
    let mut cluster =
        cluster(case!("a_publisher_that_its_root_cannot_reach_gets_its_receipts_another_way", 1), 16);
    let news = topic("cut/news");
    let root = cluster.root(&news);
    let neighbours = cluster.stack(root).ring().neighbours();
    let next: Vec<_> = neighbours.into_iter().flatten().map(|peer| peer.id).collect();
    let publisher = (0..16).find(|&slot| slot != root && !next.contains(&cluster.id(slot))).unwrap();
    cluster.world.cut(Cut::pair(root, publisher));
    for _ in 0..3 {
        let token = cluster.publish(publisher, &news, 64);
        cluster.run_until(ANSWERED, Cluster::is_answered);
        let outcome = &cluster.history.publications[&token].outcome;
        assert!(matches!(outcome, Some((_, Ok(_)))), "{outcome:?}");
    }
}

//! The judges see: for each promise a node that breaks it, in a whole world, and the judge that finds out.

use std::time::Duration;

use treecast_integration::case;
use treecast_integration::check::{JUDGES, Promise, Verdict};
use treecast_integration::cluster::Cluster;
use treecast_integration::cluster::planted::Bug;
use treecast_integration::world::{self, Crash, Cut};
use treecast_overlay::config::Config as RingConfig;
use treecast_overlay::id::Key;
use treecast_scribe::{Config, Topic};

const SECOND: Duration = Duration::from_secs(1);
/// Where the fault is planted.
const CULPRIT: usize = 3;
const NODES: usize = 16;

/// Gives the bug its occasion in a world.
type Story = fn(&mut Cluster) -> Verdict;

/// Promise, planted fault, and its occasion.
const PLANTED: [(Promise, Bug, Story); 24] = [
    (Promise::O1, Bug::Overstays, isolation),
    (Promise::O2, Bug::Backwards, lookups),
    (Promise::O3, Bug::Hermit, merge),
    (Promise::O4, Bug::Swallows, lookups),
    (Promise::O5, Bug::Hoards, lookups),
    (Promise::S1, Bug::Parentless, topic),
    (Promise::S1, Bug::Crowds, rest),
    (Promise::S2, Bug::Doubled(7), topic),
    (Promise::S3, Bug::Swapped(7), topic),
    (Promise::S4, Bug::Unanswered(7), topic),
    (Promise::S4, Bug::Misplaces, slow),
    (Promise::S4, Bug::Hasty, slow),
    (Promise::S4, Bug::Leaky, topic),
    (Promise::S4, Bug::Amnesiac, member_restarts),
    (Promise::S4, Bug::Resurrected, member_returns),
    (Promise::S4, Bug::Grasping, topic),
    (Promise::S4, Bug::Oblivious, two_newcomers),
    (Promise::S5, Bug::Gappy(7), topic),
    (Promise::S5, Bug::Swallowed(1), topic),
    (Promise::S6, Bug::Collects, slow),
    (Promise::S6, Bug::Dawdles, calm),
    (Promise::S6, Bug::Waits, calm_beside_one),
    (Promise::S7, Bug::BeatsPerTopic, rest),
    (Promise::S8, Bug::Forges, topic),
];

/// A ring whose limits are small enough to be exceeded, with or without the fault.
fn cluster(fault: Option<Bug>) -> Result<Cluster, treecast_integration::check::Breach> {
    let case = case!("every_planted_fault_is_found", 1);
    let ring = RingConfig::default().with(|config| config.tables.leaf_set = 8);
    let mut forest = Config::default();
    (forest.window.messages, forest.push.messages, forest.tree.children_per_tree) = (32, 16, 8);
    let mut cluster = Cluster::with(case, world::Config::default(), ring, forest);
    if let Some(fault) = fault {
        cluster.plant(CULPRIT, fault);
    }
    cluster.add(&[]);
    cluster.advance(SECOND / 2)?;
    for _ in 1..NODES {
        cluster.add(&[0]);
        cluster.advance(SECOND / 5)?;
    }
    cluster.advance(SECOND * 10)?;
    assert_eq!(cluster.ready().len(), NODES, "{:?}", cluster.failed_starts);
    Ok(cluster)
}

fn name(i: usize) -> Topic {
    Topic::new(&format!("news/{i}")).expect("a name")
}

/// A topic of which the culprit is the root: everything passes through it.
fn own_topic(cluster: &Cluster) -> Topic {
    (0..).map(name).find(|topic| cluster.root(topic) == CULPRIT).expect("some topic is its own")
}

/// The culprit is cut off; the others take its range over.
fn isolation(cluster: &mut Cluster) -> Verdict {
    // One side: a node that is cut off must know by its lease that its word counts no more. (Later it finds that all others are
    // dead, here after 6.6 s: then it is a ring of its own, and has its own side.)
    cluster.world.cut(Cut::isolate(CULPRIT));
    cluster.advance(SECOND * 6)
}

fn lookups(cluster: &mut Cluster) -> Verdict {
    for i in 0..8_u32 {
        cluster.look_up(CULPRIT, Key::hash(&i.to_le_bytes()));
        cluster.look_up(1, cluster.id(CULPRIT).key());
        cluster.advance(SECOND)?;
    }
    cluster.advance(SECOND * 70)
}

fn merge(cluster: &mut Cluster) -> Verdict {
    let cut = cluster.isolate(&[CULPRIT]);
    cluster.advance(SECOND * 30)?;
    cluster.rejoin(&[CULPRIT], cut);
    cluster.advance(SECOND * 10)?;
    cluster.advance_until(SECOND * 60, Cluster::is_well).map(drop)
}

/// Everybody subscribes to a topic of the culprit's and to one of another's; the culprit publishes on both.
fn topic(cluster: &mut Cluster) -> Verdict {
    let own = own_topic(cluster);
    let other = (0..).map(name).find(|topic| cluster.root(topic) == 5).expect("some topic is another's");
    for slot in 0..NODES {
        cluster.subscribe(slot, &own);
        cluster.subscribe(slot, &other);
    }
    cluster.advance(SECOND * 5)?;
    for _ in 0..10 {
        // Three at once: there is something to swap.
        for _ in 0..3 {
            cluster.publish(CULPRIT, &own, 200);
            cluster.publish(CULPRIT, &other, 200);
        }
        cluster.advance(SECOND / 5)?;
    }
    cluster.advance_until(SECOND * 20, Cluster::is_attached)?;
    cluster.advance_until(SECOND * 40, Cluster::is_well)?;
    cluster.review()
}

/// A topic to whose key the culprit is the third, or one of the first three but not the first: it is a member.
fn held_topic(cluster: &Cluster, ranks: &[usize], others: impl Fn(&Topic) -> bool) -> Topic {
    let rank = |topic: &Topic| {
        let key = topic.id().key();
        let before = |slot: usize| key.closer(cluster.id(slot), cluster.id(CULPRIT)).is_lt();
        (0..NODES).filter(|&slot| slot != CULPRIT && before(slot)).count()
    };
    (0..10_000)
        .map(name)
        .find(|topic| ranks.contains(&rank(topic)) && cluster.root(topic) != 0 && others(topic))
        .expect("there are many names")
}

/// Some subscribe to a topic, and something is published on it.
fn publish_some(cluster: &mut Cluster, topic: &Topic) -> Verdict {
    for _ in 0..5 {
        cluster.publish(0, topic, 100);
        cluster.advance(SECOND / 5)?;
    }
    Ok(())
}

fn hold(cluster: &mut Cluster, topic: &Topic) -> Verdict {
    let subscribers: Vec<usize> = (0..NODES).filter(|&slot| slot != CULPRIT).collect();
    for slot in subscribers {
        cluster.subscribe(slot, topic);
    }
    cluster.advance(SECOND * 5)?;
    publish_some(cluster, topic)
}

fn settle(cluster: &mut Cluster) -> Verdict {
    cluster.advance_until(SECOND * 60, Cluster::is_one_ring)?;
    cluster.advance_until(SECOND * 40, Cluster::is_well)?;
    cluster.review()
}

/// The root dies: the members that are left need another one.
fn crash_root(cluster: &mut Cluster, topic: &Topic) -> Verdict {
    let root = cluster.root(topic);
    cluster.crash(root, Crash::Process);
    cluster.advance(SECOND * 15)
}

/// A member dies, is replaced, and comes again; then it is needed once more.
fn member_restarts(cluster: &mut Cluster) -> Verdict {
    let topic = held_topic(cluster, &[2], |_| true);
    hold(cluster, &topic)?;
    cluster.crash(CULPRIT, Crash::Process);
    cluster.advance(SECOND)?;
    cluster.restart(CULPRIT, &[0]);
    cluster.advance(SECOND * 20)?;
    crash_root(cluster, &topic)?;
    publish_some(cluster, &topic)?;
    settle(cluster)
}

/// A member stops for so long that it is replaced; then it goes on, and is needed once more.
fn member_returns(cluster: &mut Cluster) -> Verdict {
    let topic = held_topic(cluster, &[2], |_| true);
    hold(cluster, &topic)?;
    cluster.pause(CULPRIT);
    cluster.advance(SECOND * 5)?;
    cluster.resume(CULPRIT);
    cluster.advance(SECOND * 10)?;
    crash_root(cluster, &topic)?;
    publish_some(cluster, &topic)?;
    settle(cluster)
}

/// Nodes come one after the other until two of them were the closest to the key: both prepare a term.
fn two_newcomers(cluster: &mut Cluster) -> Verdict {
    let is_root = |topic: &Topic, newcomer: usize| {
        let key = topic.id().key();
        (0..newcomer).all(|slot| key.closer(cluster.id(newcomer), cluster.id(slot)).is_lt())
    };
    let roots = |topic: &Topic| (NODES..NODES + 32).filter(|&slot| is_root(topic, slot)).collect::<Vec<_>>();
    let topic = held_topic(cluster, &[1, 2], |topic| roots(topic).len() >= 2);
    let roots = roots(&topic);
    hold(cluster, &topic)?;
    for slot in NODES..=roots[1] {
        cluster.add(&[0]);
        cluster.advance(if roots.contains(&slot) { SECOND * 15 } else { SECOND })?;
    }
    publish_some(cluster, &topic)?;
    settle(cluster)
}

/// More comes than any window may hold, and one subscriber takes nothing.
fn slow(cluster: &mut Cluster) -> Verdict {
    let own = own_topic(cluster);
    for slot in 0..NODES - 1 {
        cluster.subscribe(slot, &own);
    }
    cluster.subscribe_with(NODES - 1, &own, Some(5));
    cluster.advance(SECOND * 5)?;
    for i in 0..100 {
        cluster.publish(i % 3, &own, 100);
        cluster.advance(SECOND / 20)?;
    }
    cluster.advance_until(SECOND * 40, Cluster::is_well).map(drop)
}

/// Messages that are published from now on must come soon.
fn publish_calmly(cluster: &mut Cluster, topic: &Topic) -> Verdict {
    cluster.begin_calm();
    for slot in 0..3 {
        cluster.publish(slot, topic, 100);
    }
    cluster.advance(SECOND * 2)?;
    cluster.advance_until(SECOND * 40, Cluster::is_well).map(drop)
}

/// All is well; what comes now, comes soon.
fn calm(cluster: &mut Cluster) -> Verdict {
    let own = own_topic(cluster);
    for slot in 0..NODES {
        cluster.subscribe(slot, &own);
    }
    cluster.advance(SECOND * 5)?;
    publish_calmly(cluster, &own)
}

/// All is well but for an application at the root that takes nothing: nobody else waits.
fn calm_beside_one(cluster: &mut Cluster) -> Verdict {
    let own = own_topic(cluster);
    for slot in 0..NODES {
        cluster.subscribe(slot, &own);
    }
    cluster.subscribe_with(CULPRIT, &own, Some(1));
    cluster.advance(SECOND * 5)?;
    cluster.publish(0, &own, 100);
    cluster.advance(SECOND * 2)?;
    publish_calmly(cluster, &own)
}

/// Many topics, of which nothing is heard.
fn rest(cluster: &mut Cluster) -> Verdict {
    for i in 0..20 {
        for slot in 0..NODES {
            cluster.subscribe(slot, &name(i));
        }
    }
    cluster.advance_until(SECOND * 20, Cluster::is_well)?;
    cluster.advance_until(SECOND * 60, Cluster::is_shapely)?;
    cluster.advance(SECOND * 5)?;
    cluster.rest(SECOND * 10)
}

fn run(fault: Option<Bug>, story: Story) -> Verdict {
    story(&mut cluster(fault)?)
}

#[test]
fn every_planted_fault_is_found() {
    for (promise, fault, story) in PLANTED {
        assert_eq!(run(None, story), Ok(()), "without a fault, the story of {promise:?} breaks nothing");
        match run(Some(fault), story) {
            Ok(()) => panic!("{promise:?}: nobody sees {fault:?}"),
            Err(breach) => {
                eprintln!("{fault:?}: {breach}");
                assert_eq!(breach.promise, promise, "{fault:?}: {breach}");
            }
        }
    }
}

#[test]
fn every_promise_has_a_judge_and_a_planted_fault() {
    for judge in JUDGES {
        let planted = PLANTED.iter().any(|(promise, ..)| *promise == judge.promise);
        assert!(planted, "{:?} has no planted fault", judge.promise);
    }
    for (promise, ..) in PLANTED {
        assert!(JUDGES.iter().any(|judge| judge.promise == promise), "{promise:?} has no judge");
    }
}

//! The judges see: for each promise a node that breaks it, in a whole world, and who finds out.

use std::time::Duration;

use treecast_integration::case;
use treecast_integration::check::{JUDGES, Promise, Verdict};
use treecast_integration::grove::Grove;
use treecast_integration::tapped::Fault;
use treecast_integration::world::{self, Cut};
use treecast_overlay::config::Config as RingConfig;
use treecast_overlay::id::Key;
use treecast_scribe::config::{PushConfig, TreeConfig, WindowConfig};
use treecast_scribe::{Config, Topic};

const SECOND: Duration = Duration::from_secs(1);
/// Where the fault is planted.
const CULPRIT: usize = 3;
const NODES: usize = 16;

/// What is done to the world so that the fault has its occasion.
type Story = fn(&mut Grove) -> Verdict;

/// Promise, planted fault, and its occasion.
const PLANTED: [(Promise, Fault, Story); 17] = [
    (Promise::O1, Fault::Overstays, isolation),
    (Promise::O2, Fault::Backwards, lookups),
    (Promise::O3, Fault::Hermit, merge),
    (Promise::O4, Fault::Swallows, lookups),
    (Promise::O5, Fault::Hoards, lookups),
    (Promise::S1, Fault::Parentless, topic),
    (Promise::S1, Fault::Crowds, rest),
    (Promise::S2, Fault::Doubled(7), topic),
    (Promise::S3, Fault::Swapped(7), topic),
    (Promise::S4, Fault::Unanswered(7), topic),
    (Promise::S4, Fault::Misplaces, slow),
    (Promise::S5, Fault::Swallowed(1), topic),
    (Promise::S6, Fault::Collects, slow),
    (Promise::S6, Fault::Dawdles, calm),
    (Promise::S6, Fault::Waits, calm_beside_one),
    (Promise::S7, Fault::BeatsPerTopic, rest),
    (Promise::S8, Fault::Forges, topic),
];

/// A ring whose limits are small enough to be exceeded, with or without the fault.
fn grove(fault: Option<Fault>) -> Result<Grove, treecast_integration::check::Breach> {
    let case = case!("every_planted_fault_is_found", 1);
    let ring = RingConfig { leaf_set: 8, ..RingConfig::default() };
    let forest = Config {
        window: WindowConfig { messages: 32, ..WindowConfig::default() },
        push: PushConfig { messages: 16, ..PushConfig::default() },
        tree: TreeConfig { children_per_tree: 8, ..TreeConfig::default() },
        ..Config::default()
    };
    let mut grove = Grove::told(case, world::Config::default(), ring, forest);
    if let Some(fault) = fault {
        grove.plant(CULPRIT, fault);
    }
    grove.add(&[]);
    grove.advance(SECOND / 2)?;
    for _ in 1..NODES {
        grove.add(&[0]);
        grove.advance(SECOND / 5)?;
    }
    grove.advance(SECOND * 10)?;
    assert_eq!(grove.ready().len(), NODES, "{:?}", grove.failed_starts);
    Ok(grove)
}

fn name(i: usize) -> Topic {
    Topic::new(&format!("news/{i}")).expect("a name")
}

/// A topic of which the culprit is the root: everything passes through it.
fn own_topic(grove: &Grove) -> Topic {
    (0..).map(name).find(|topic| grove.root(topic) == CULPRIT).expect("some topic is its own")
}

/// The culprit is cut off; the others take its range over.
fn isolation(grove: &mut Grove) -> Verdict {
    // One side: who is cut off must know by its lease that its word counts no more. (Later it finds that all others are
    // dead, here after 6.6 s: then it is a ring of its own, and has its own side.)
    grove.world.cut(Cut::isolate(CULPRIT));
    grove.advance(SECOND * 6)
}

fn lookups(grove: &mut Grove) -> Verdict {
    for i in 0..8_u32 {
        grove.look_up(CULPRIT, Key::hash(&i.to_le_bytes()));
        grove.look_up(1, grove.id(CULPRIT).key());
        grove.advance(SECOND)?;
    }
    grove.advance(SECOND * 70)
}

fn merge(grove: &mut Grove) -> Verdict {
    let cut = grove.isolate(CULPRIT);
    grove.advance(SECOND * 30)?;
    grove.rejoin(&[CULPRIT], cut);
    grove.advance(SECOND * 10)?;
    grove.advance_until(SECOND * 60, Grove::is_well).map(drop)
}

/// Everybody subscribes to a topic of the culprit's and to one of another's; the culprit publishes on both.
fn topic(grove: &mut Grove) -> Verdict {
    let own = own_topic(grove);
    let other = (0..).map(name).find(|topic| grove.root(topic) == 5).expect("some topic is another's");
    for slot in 0..NODES {
        grove.subscribe(slot, &own);
        grove.subscribe(slot, &other);
    }
    grove.advance(SECOND * 5)?;
    for _ in 0..10 {
        // Three at once: there is something to swap.
        for _ in 0..3 {
            grove.publish(CULPRIT, &own, 200);
            grove.publish(CULPRIT, &other, 200);
        }
        grove.advance(SECOND / 5)?;
    }
    grove.advance_until(SECOND * 20, Grove::is_whole)?;
    grove.advance_until(SECOND * 40, Grove::is_well)?;
    grove.review()
}

/// More comes than any window may hold, and one subscriber takes nothing.
fn slow(grove: &mut Grove) -> Verdict {
    let own = own_topic(grove);
    for slot in 0..NODES - 1 {
        grove.subscribe(slot, &own);
    }
    grove.subscribe_stalled(NODES - 1, &own, 5);
    grove.advance(SECOND * 5)?;
    for i in 0..100 {
        grove.publish(i % 3, &own, 100);
        grove.advance(SECOND / 20)?;
    }
    grove.advance_until(SECOND * 40, Grove::is_well).map(drop)
}

/// What is published from now on must come soon.
fn publish_calmly(grove: &mut Grove, topic: &Topic) -> Verdict {
    grove.begin_calm();
    for slot in 0..3 {
        grove.publish(slot, topic, 100);
    }
    grove.advance(SECOND * 2)?;
    grove.advance_until(SECOND * 40, Grove::is_well).map(drop)
}

/// All is well; what comes now, comes soon.
fn calm(grove: &mut Grove) -> Verdict {
    let own = own_topic(grove);
    for slot in 0..NODES {
        grove.subscribe(slot, &own);
    }
    grove.advance(SECOND * 5)?;
    publish_calmly(grove, &own)
}

/// All is well but for an application at the root that takes nothing: nobody else waits.
fn calm_beside_one(grove: &mut Grove) -> Verdict {
    let own = own_topic(grove);
    for slot in 0..NODES {
        grove.subscribe(slot, &own);
    }
    grove.subscribe_stalled(CULPRIT, &own, 1);
    grove.advance(SECOND * 5)?;
    grove.publish(0, &own, 100);
    grove.advance(SECOND * 2)?;
    publish_calmly(grove, &own)
}

/// Many topics, of which nothing is heard.
fn rest(grove: &mut Grove) -> Verdict {
    for i in 0..20 {
        for slot in 0..NODES {
            grove.subscribe(slot, &name(i));
        }
    }
    grove.advance_until(SECOND * 20, Grove::is_well)?;
    grove.advance_until(SECOND * 60, Grove::is_shapely)?;
    grove.advance(SECOND * 5)?;
    grove.rest(SECOND * 10)
}

fn run(fault: Option<Fault>, story: Story) -> Verdict {
    story(&mut grove(fault)?)
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

//! The judge of answers is right, and sees what is wrong.

use std::time::Duration;

use treecast_overlay::config::Config as RingConfig;
use treecast_overlay::id::Key;

use super::lookups::LookupTally;
use super::passages::Decision;
use super::roster::Roster;
use super::*;
use crate::check::o1;
use crate::check::o3::{count_in_order, in_order, judge};
use crate::world::{Config as WorldConfig, Topology};

fn ring(nodes: u32) -> Cluster {
    let topology = Topology::Constant(Duration::from_millis(20));
    let world = WorldConfig { topology, jitter: 0.0, spurious_timeouts: 0.0, ..WorldConfig::default() };
    let mut cluster =
        Cluster::measured(crate::case!("cluster", 3), world, RingConfig::default(), Config::default());
    for slot in 0..nodes {
        cluster.add(if slot == 0 { &[] } else { &[0] });
        pass(&mut cluster, Duration::from_secs(2));
    }
    cluster.roster = Roster::of(cluster.roster.iter());
    cluster.watch_lookups();
    pass(&mut cluster, Duration::from_secs(5));
    assert_eq!(cluster.roster.len(), nodes as usize);
    cluster
}

fn pass(cluster: &mut Cluster, time: Duration) {
    cluster.run_to(cluster.now() + time);
}

/// A lookup is under way, and `by` decides to answer it.
fn decide(cluster: &mut Cluster, by: u32, serves: bool) -> (u64, u64) {
    let other = cluster.roster.iter().find(|&(_, slot)| slot != by && slot != 0).expect("there are others").0;
    cluster.look_up(0, other.key());
    let id = cluster.roster.id(by).expect("on the ring");
    let (&lookup, &asked) = cluster.lookups.open.last_key_value().expect("it is under way");
    assert!(!cluster.answers(by, asked.key));
    cluster.count_decision(&Decision { lookup, key: asked.key, by: id, slot: by, serves, way: Vec::new() });
    (cluster.lookups.tally.wrong, cluster.lookups.tally.excused)
}

#[test]
fn an_answer_of_any_other_node_is_wrong() {
    let mut cluster = ring(12);
    for _ in 0..20 {
        cluster.look_up_somewhere();
    }
    pass(&mut cluster, Duration::from_secs(2));
    let LookupTally { asked, answered, wrong, lost, .. } = &cluster.lookups.tally;
    assert_eq!((*asked, *answered, *wrong, *lost), (20, 20, 0, 0));
    assert_eq!(decide(&mut cluster, 1, false), (1, 0));
    assert_eq!(decide(&mut cluster, 1, true), (2, 0), "another serves and is closer");
    cluster.watch.merging = true;
    assert_eq!(decide(&mut cluster, 1, true), (3, 1), "excused while rings merge");
}

#[test]
fn a_dead_nodes_range_is_unclaimed_until_it_has_an_heir() {
    let mut cluster = ring(12);
    assert_eq!((cluster.judge(&[], judge), cluster.judge(&[], o1::breaches)), (Ok(()), Vec::new()));
    let (id, slot) = cluster.roster.iter().nth(4).expect("twelve");
    assert!(cluster.is_claimed(id.key(), 0));
    cluster.crash(slot as usize, Crash::Power);
    assert!(!cluster.is_claimed(id.key(), 0) && cluster.judge(&[], judge).is_err());
    assert!(cluster.judge(&[], in_order).is_err());
    assert_eq!(cluster.judge(&[], count_in_order), 9, "its two neighbours still think that it is there");
    pass(&mut cluster, Duration::from_secs(15));
    assert_eq!((cluster.judge(&[], judge), cluster.judge(&[], in_order)), (Ok(()), Ok(())));
    assert!(cluster.is_claimed(id.key(), 0));
}

#[test]
fn a_node_that_stands_apart_has_roots_of_its_own() {
    let mut cluster = ring(12);
    let (_, slot) = cluster.roster.iter().nth(4).expect("twelve");
    cluster.world.cut(Cut::isolate(slot as usize));
    cluster.stand_on(&[slot as usize], 1);
    pass(&mut cluster, Duration::from_secs(30));
    assert!(cluster.judge(&[], o1::breaches).is_empty(), "each side by itself has one root for each key");
    assert!(cluster.is_claimed(Key(1), 0) && cluster.is_claimed(Key(1), 1));
    cluster.watch.sides.clear();
    assert!(!cluster.judge(&[], o1::breaches).is_empty(), "taken together they have two");
}

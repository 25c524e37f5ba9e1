//! The judge of answers is right, and sees what is wrong.

use super::*;
use crate::lab::passages::Decision;
use crate::lab::setting::Profile;
use crate::lab::{Progress, Setting};

fn ring(nodes: u32) -> Living {
    let setting = Setting {
        full_membership: None,
        nodes: Some(nodes),
        seed: 3,
        topology: None,
        profile: Profile::Default,
        leaf_set: None,
        settle: 5,
    };
    let world = setting.world(crate::world::Topology::Constant(Duration::from_millis(20)));
    let scribe = treecast_scribe::Config::default();
    let ring = Ring::grow(&setting, setting.nodes(), world, scribe, &Progress::hidden());
    Living::new(ring.expect("a ring comes about"))
}

fn pass(living: &mut Living, time: Duration) {
    living.run_to(living.now() + time);
}

/// A lookup is under way, and `by` decides to answer it.
fn decide(living: &mut Living, by: u32, serves: bool) -> (u64, u64) {
    living.look_up();
    let id = living.roster.id(by).expect("on the ring");
    let lookup = living.lookups;
    let key = living.asked.get(&lookup).map(|asked| asked.key);
    let is_root = key.is_some_and(|key| living.answers(by, key));
    assert!(!is_root, "the seed gives a key of another node");
    living.judge(&Decision { lookup, by: id, slot: by, serves, way: Vec::new() });
    (living.tally.wrong, living.tally.excused)
}

#[test]
fn an_answer_of_any_other_node_is_wrong() {
    let mut living = ring(12);
    for _ in 0..20 {
        living.look_up();
    }
    pass(&mut living, Duration::from_secs(2));
    let Tally { asked, answered, wrong, lost, .. } = &living.tally;
    assert_eq!((*asked, *answered, *wrong, *lost), (20, 20, 0, 0));
    assert_eq!(decide(&mut living, 1, false), (1, 0));
    assert_eq!(decide(&mut living, 1, true), (2, 0), "another serves and is closer");
    living.watch.merging = true;
    assert_eq!(decide(&mut living, 1, true), (3, 1), "excused while rings merge");
}

#[test]
fn a_dead_nodes_range_is_nobodys_until_it_has_an_heir() {
    let mut living = ring(12);
    assert_eq!((living.is_whole(), living.breaches()), (Ok(()), Vec::new()));
    let (id, slot) = living.roster.iter().nth(4).expect("twelve");
    assert!(living.is_claimed(id.key(), 0));
    living.crash(slot);
    assert!(!living.is_claimed(id.key(), 0) && living.is_whole().is_err());
    assert!(living.is_in_order().is_err());
    assert_eq!(living.standing_right(), 9, "its two neighbours still think that it is there");
    pass(&mut living, Duration::from_secs(15));
    assert_eq!((living.is_whole(), living.is_in_order()), (Ok(()), Ok(())));
    assert!(living.is_claimed(id.key(), 0));
}

#[test]
fn who_stands_apart_has_roots_of_its_own() {
    let mut living = ring(12);
    let (_, slot) = living.roster.iter().nth(4).expect("twelve");
    living.ring.world.cut(crate::world::Cut::isolate(slot as usize));
    living.watch.sides = (0..12).map(|other| u8::from(other == slot)).collect();
    pass(&mut living, Duration::from_secs(30));
    assert!(living.breaches().is_empty(), "each side by itself has one root for each key");
    assert!(living.is_claimed(Key(1), 0) && living.is_claimed(Key(1), 1));
    living.watch.sides.clear();
    assert!(!living.breaches().is_empty(), "taken together they have two");
}

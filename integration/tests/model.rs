//! All that can happen among a few real nodes, within bounds (`lab model` has larger ones), and Lu's counterexample.

use treecast_integration::model::{self, Bounds, Explored, ModelBug, O1, O3};

fn explore(ring: usize, joiners: usize, change: impl FnOnce(&mut Bounds)) -> Explored {
    let mut bounds = Bounds { ring, joiners, ..Bounds::default() };
    change(&mut bounds);
    println!("{bounds:?}");
    let outcome = model::explore(bounds, None, |_, _| {});
    println!("{} unique states of {}, {} deep", outcome.unique, outcome.generated, outcome.depth);
    for (promise, path) in &outcome.broken {
        println!("{promise}, broken after:\n  {}", path.join("\n  "));
    }
    outcome
}

/// Explored fully, nothing is broken, and what is to happen is possible.
fn expect_sound(outcome: &Explored) {
    assert!(outcome.complete);
    assert!(outcome.broken.is_empty(), "{:#?}", outcome.broken);
    assert!(outcome.missing.is_empty(), "impossible: {:?}", outcome.missing);
}

#[test]
fn one_joins_whatever_order_frames_come_in() {
    let outcome = explore(2, 1, |bounds| (bounds.reorder, bounds.talk) = (true, true));
    expect_sound(&outcome);
}

#[test]
fn one_joins_whoever_crashes() {
    expect_sound(&explore(2, 1, |bounds| bounds.crashes = 1));
}

#[test]
fn one_joins_whichever_frame_is_lost() {
    expect_sound(&explore(3, 1, |bounds| bounds.losses = 1));
}

#[test]
fn one_joins_whichever_frame_comes_twice_or_late() {
    expect_sound(&explore(2, 1, |bounds| bounds.duplicates = 1));
    expect_sound(&explore(2, 1, |bounds| bounds.delays = 1));
}

/// Leases ride along with what neighbours have to tell each other about a joiner and a crash.
#[test]
fn one_joins_whoever_crashes_while_leases_ride_along() {
    expect_sound(&explore(2, 1, |bounds| (bounds.crashes, bounds.ride, bounds.talk) = (1, true, true)));
}

#[test]
fn two_joiners_of_one_gap_do_not_split_the_ring() {
    expect_sound(&explore(2, 2, |bounds| bounds.together = true));
}

/// A node that holds its leases for longer than they were granted answers beside its heir: the model sees time, too.
#[test]
fn a_lease_that_is_held_for_too_long_is_found() {
    let [sound, spoilt] = [None, Some(ModelBug::Overstays)]
        .map(|plant| explore(2, 0, |bounds| (bounds.losses, bounds.attempts, bounds.plant) = (3, 1, plant)));
    expect_sound(&sound);
    assert_eq!(spoilt.broken.first().map(|&(promise, _)| promise), Some(O1));
}

/// Lu, Merz & Weidenbach 2011: two nodes join the published protocol in one gap, none fails, and both answer for one key.
#[test]
fn published_pastry_is_split_by_two_joiners_and_not_by_one() {
    let published = |bounds: &mut Bounds| (bounds.plant, bounds.together) = (Some(ModelBug::Published), true);
    expect_sound(&explore(2, 1, published));
    let outcome = explore(2, 2, published);
    let broken: Vec<&str> = outcome.broken.iter().map(|&(promise, _)| promise).collect();
    assert_eq!(broken, [O1, O3]);
    let (_, path) = &outcome.broken[1];
    assert!(!path.iter().any(|step| step.contains("lost") || step.contains("crash")), "nothing failed");
}

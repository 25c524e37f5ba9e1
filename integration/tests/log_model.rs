//! All that can happen to a small replicated log, within bounds (`lab log-model` has larger ones), on the code that ships;
//! and the bugs that the model must find.

use treecast_integration::model::log::{
    self, LogBounds, LogBug, LogExplored, MAJORITY, ONE_LOG, TRUE_COMMIT,
};

fn explore(bounds: LogBounds) -> LogExplored {
    println!("{bounds:?}");
    let outcome = log::explore(bounds, None, |_, _| {});
    println!("{} unique states of {}, {} deep", outcome.unique, outcome.generated, outcome.depth);
    for (promise, path) in &outcome.broken {
        println!("{promise}, broken after:\n  {}", path.join("\n  "));
    }
    outcome
}

/// Explored fully, nothing is broken, and what is to happen is possible.
fn expect_sound(bounds: LogBounds) {
    let outcome = explore(bounds);
    assert!(outcome.complete);
    assert!(outcome.broken.is_empty(), "{:#?}", outcome.broken);
    assert!(outcome.missing.is_empty(), "impossible: {:?}", outcome.missing);
}

/// The bug breaks this promise.
fn expect_found(bug: LogBug, promise: &str, bounds: LogBounds) {
    let outcome = explore(LogBounds { plant: Some(bug), ..bounds });
    let broken: Vec<&str> = outcome.broken.iter().map(|&(promise, _)| promise).collect();
    assert!(broken.contains(&promise), "{bug:?} is not found: {broken:?}");
}

/// Every message by itself, in any order, any number of times, or never.
fn adversarial() -> LogBounds {
    LogBounds { roots: "012".to_string(), ..LogBounds::default() }
}

/// The same, but a member's answers come at once.
fn prompt() -> LogBounds {
    LogBounds { prompt: true, ..adversarial() }
}

#[test]
fn a_log_survives_root_after_root() {
    expect_sound(LogBounds { takeovers: 2, ..adversarial() });
}

#[test]
fn a_log_survives_a_member_that_restarts_empty_and_a_root_that_ends_midway() {
    expect_sound(LogBounds { restarts: 1, piecemeal: true, ..prompt() });
}

#[test]
fn a_log_survives_a_change_of_members_and_of_the_root() {
    expect_sound(LogBounds { nodes: 4, changes: 1, roots: "013".to_string(), ..prompt() });
}

#[test]
fn a_log_survives_a_former_member_that_drops_its_copy() {
    expect_sound(LogBounds {
        nodes: 4,
        values: 0,
        changes: 2,
        drops: 1,
        takeovers: 0,
        to: "123,013".to_string(),
        ..prompt()
    });
}

#[test]
fn a_log_survives_members_that_hear_what_is_committed_from_others_than_their_root() {
    expect_sound(LogBounds { hears: 2, values: 2, ..prompt() });
    expect_sound(LogBounds { nodes: 4, hears: 1, changes: 1, roots: "013".to_string(), ..prompt() });
}

#[test]
fn a_node_that_passes_on_what_is_not_committed_is_found() {
    expect_found(LogBug::OpenHearsay, TRUE_COMMIT, LogBounds { hears: 1, ..prompt() });
}

#[test]
fn a_member_that_keeps_its_life_over_a_restart_is_found() {
    let bounds = LogBounds { restarts: 1, piecemeal: true, ..prompt() };
    expect_found(LogBug::LifeOverRestart, ONE_LOG, bounds);
}

#[test]
fn a_member_that_keeps_its_life_over_a_drop_is_found() {
    let bounds = LogBounds {
        nodes: 4,
        changes: 1,
        drops: 1,
        to: "013".to_string(),
        roots: "1".to_string(),
        ..prompt()
    };
    expect_found(LogBug::LifeOverDrop, ONE_LOG, bounds);
}

#[test]
fn a_member_that_drops_its_copy_though_a_later_configuration_names_it_is_found() {
    let bounds = LogBounds {
        nodes: 4,
        values: 0,
        takeovers: 0,
        changes: 2,
        drops: 1,
        to: "123,013".to_string(),
        ..prompt()
    };
    expect_found(LogBug::EarlyDrop, MAJORITY, bounds);
}

#[test]
fn a_configuration_that_counts_by_the_old_majority_alone_is_found() {
    let bounds =
        LogBounds { nodes: 5, values: 0, takeovers: 0, changes: 1, to: "034".to_string(), ..prompt() };
    expect_found(LogBug::OldMajorityOnly, MAJORITY, bounds);
}

/// The old and the new members have one node in common: two of each make two logs.
#[test]
fn a_configuration_that_counts_by_the_new_majority_alone_is_found() {
    let bounds = LogBounds {
        nodes: 5,
        values: 0,
        changes: 1,
        to: "034".to_string(),
        roots: "1".to_string(),
        ..prompt()
    };
    expect_found(LogBug::NewMajorityOnly, ONE_LOG, bounds);
}

#[test]
fn a_root_that_asks_the_members_of_the_last_known_configuration_only_is_found() {
    let bounds =
        LogBounds { nodes: 5, changes: 1, to: "034".to_string(), roots: "2".to_string(), ..prompt() };
    expect_found(LogBug::KnownConfiguration, ONE_LOG, bounds);
}

#[test]
fn a_root_that_adopts_the_longest_log_is_found() {
    let bounds = LogBounds { values: 3, takeovers: 2, roots: "01".to_string(), ..prompt() };
    expect_found(LogBug::Longest, ONE_LOG, bounds);
}

#[test]
fn an_overtaken_root_that_ends_the_life_of_a_member_is_found() {
    let bounds = LogBounds {
        nodes: 4,
        values: 0,
        changes: 1,
        drops: 1,
        to: "013".to_string(),
        roots: "1".to_string(),
        ..prompt()
    };
    expect_found(LogBug::LateRelease, MAJORITY, bounds.clone());
    expect_sound(bounds);
}

use super::*;
use crate::log::testing::{
    BIRTH, ME, ROOT, born, configuration, member, members, message, read_log, sync, term,
};

/// A member's empty log.
fn empty() -> Log {
    let mut log = Log::new(BIRTH, Lineage::default(), 0);
    log.begin_life(ME, 1);
    log
}

/// A member's log with the first configuration and so many messages of the first term, of which these are committed.
fn copy(messages: u64, commit: u64) -> Log {
    let mut log = empty();
    assert!(log.on_sync(0, &sync(1, 1 + messages, commit)));
    assert_eq!(log.take(ROOT, 0, born(1, &[1, 2, 3], Lineage::default(), true)), Taken::Next);
    for sequence in 1..=messages {
        assert_eq!(log.take(ROOT, sequence, message(1, sequence)), Taken::Next);
    }
    log.on_commit(commit);
    log.check();
    log
}

fn synced(log: &Log) -> Term {
    log.replica().unwrap().synced
}

#[test]
fn a_member_takes_entries_in_turn_from_the_root_that_it_listens_to_and_from_no_other() {
    let mut log = copy(2, 1);
    assert_eq!(log.take(ROOT, 1, message(1, 1)), Taken::Duplicate);
    assert_eq!(log.take(ROOT, 4, message(1, 4)), Taken::Hole);
    assert_eq!(log.take(ROOT, 3, message(2, 3)), Taken::Stranger, "of another term");
    assert_eq!(
        log.take(NodeId(8), 3, message(1, 3)),
        Taken::Stranger,
        "of another root with a term of that number"
    );
    assert_eq!(log.take(ROOT, 3, message(1, 3)), Taken::Next);
    assert_eq!((log.end(), log.matched(), log.commit()), (4, 4, 1));
}

#[test]
fn a_promise_binds() {
    let mut log = copy(2, 1);
    let promise = log.on_prepare(term(3)).unwrap().unwrap();
    assert_eq!((promise.end, promise.commit, promise.synced), (3, 1, term(1)));
    assert_eq!(log.on_prepare(term(2)), Some(Err(term(3))));
    let same_number = Term { root: NodeId(8), ..term(3) };
    assert_eq!(log.on_prepare(same_number), Some(Err(term(3))), "two roots of one number are two terms");
    assert!(log.on_prepare(term(3)).unwrap().is_ok(), "asked again");
    assert!(!log.on_sync(1, &sync(2, 3, 1)), "no root of an earlier term is listened to");
    assert_eq!(log.take(ROOT, 3, message(1, 3)), Taken::Stranger, "nor an entry that was on its way");
    assert_eq!(log.end(), promise.end, "what it has said of its log holds");
    assert!(log.on_sync(1, &sync(3, 3, 1)));
    assert_eq!(read_log(3).on_prepare(term(9)), None, "one that is no member promises nothing");
}

#[test]
fn a_log_is_a_copy_only_when_it_has_all_that_the_roots_had() {
    let mut log = copy(3, 1);
    assert!(log.on_sync(1, &sync(2, 4, 1)));
    for (offset, held) in [(1, message(2, 1)), (2, message(2, 2))] {
        assert_eq!(log.take(ROOT, offset, held), Taken::Next);
        assert_eq!((synced(&log), log.end()), (term(1), 4), "a root that dies now leaves what was there");
    }
    assert_eq!(log.take(ROOT, 3, message(2, 3)), Taken::Next);
    assert_eq!((synced(&log), log.end()), (term(2), 4));
    assert!(log.is_synced(term(2)) && !log.is_synced(term(1)));
    log.check();
}

#[test]
fn it_is_cut_where_an_entry_differs_and_at_the_end_of_the_roots() {
    let mut log = copy(4, 1);
    assert!(log.on_sync(1, &sync(2, 3, 1)));
    assert_eq!(log.take(ROOT, 1, message(2, 1)), Taken::Next);
    assert_eq!(log.end(), 5, "the same entry, whoever sends it");
    assert_eq!(log.take(ROOT, 2, message(2, 77)), Taken::Next);
    assert_eq!((log.end(), synced(&log)), (3, term(2)));
    let mut longer = copy(4, 1);
    assert!(longer.on_sync(3, &sync(2, 3, 1)));
    assert_eq!((longer.end(), synced(&longer)), (3, term(2)), "what the root has not is not in the log");
    longer.check();
}

#[test]
fn what_is_committed_is_never_cut() {
    let mut log = copy(4, 4);
    // The root began with it when it was further back.
    assert!(log.on_sync(2, &sync(2, 3, 2)));
    log.check();
    assert_eq!((log.commit(), log.matched()), (4, 4));
    assert_eq!(log.take(ROOT, 2, message(2, 2)), Taken::Duplicate);
    assert_eq!(log.take(ROOT, 4, message(2, 4)), Taken::Next);
}

#[test]
fn no_more_is_committed_than_agrees_with_the_root() {
    let mut log = copy(4, 1);
    assert!(log.on_sync(1, &sync(2, 9, 3)));
    assert_eq!(log.commit(), 1, "nothing of what it holds is known to be the root's");
    assert_eq!(log.take(ROOT, 1, message(2, 1)), Taken::Next);
    assert_eq!(log.commit(), 2, "the root has said so already");
    assert!(!log.on_commit_in(term(3), 9) && !log.on_commit_in(term(2), 2));
    assert_eq!(log.take(ROOT, 2, message(2, 2)), Taken::Next);
    assert_eq!(log.take(ROOT, 3, message(2, 3)), Taken::Next);
    assert_eq!(log.commit(), 3, "no more than the root has said");
    assert!(log.on_commit_in(term(2), 9));
    assert_eq!(log.commit(), 4);
    assert!(log.copies(ROOT) && !log.copies(NodeId(77)));
}

#[test]
fn a_log_that_the_root_has_left_behind_begins_anew_and_knows_what_it_is_told() {
    let mut log = copy(2, 3);
    let told = Configuration { at: 40, members: members(&[1, 4, 5]) };
    let word = Sync { configurations: vec![told.clone()], ..sync(2, 60, 55) };
    assert!(log.on_sync(50, &word));
    assert_eq!((log.window.start(), log.commit(), log.end()), (50, 50, 50));
    assert_eq!(log.configurations().all(), [told], "not the one of long ago");
    let unordered = vec![
        Configuration { at: 9, members: members(&[1]) },
        Configuration { at: 8, members: members(&[1]) },
    ];
    let mut other = empty();
    assert!(other.on_sync(10, &Sync { configurations: unordered, ..sync(1, 10, 10) }));
    assert_eq!(other.configurations().all(), []);
}

#[test]
fn one_is_released_when_a_configuration_without_it_is_committed_and_none_after_it_names_it() {
    let mut log = copy(1, 2);
    assert!(!log.is_released());
    assert_eq!(log.take(ROOT, 2, configuration(1, &[2, 3, 4])), Taken::Next);
    assert!(!log.is_released(), "it may be taken back");
    log.on_commit(3);
    assert!(log.is_released());
    assert_eq!(log.take(ROOT, 3, configuration(1, &[1, 2, 3])), Taken::Next);
    assert!(!log.is_released(), "it counts again if that is committed");
    // One that waits to be named is not released by those before.
    let mut waiting = empty();
    let told = Configuration { at: 4, members: members(&[2, 3, 4]) };
    assert!(waiting.on_sync(5, &Sync { configurations: vec![told], ..sync(1, 5, 5) }));
    assert!(!waiting.is_released());
    // Another life of it is another member.
    let mut reborn = copy(1, 2);
    let named = [member(1, 2), member(2, 1)];
    let body = Body::Configuration { members: named.into(), birth: None, replaces: None };
    assert_eq!(reborn.take(ROOT, 2, crate::log::testing::entry(1, body, b"")), Taken::Next);
    reborn.on_commit(3);
    assert!(reborn.is_released());
}

#[test]
fn a_member_that_listens_takes_what_is_committed_and_keeps_its_promise_and_the_rest_of_its_log() {
    let mut log = copy(4, 2);
    assert_eq!(log.hear(2, message(1, 2)), Taken::Stranger, "as long as it is the copy of a root");
    log.listen(2);
    assert_eq!((log.matched(), log.commit(), log.end()), (2, 2, 5));
    assert_eq!(log.take(ROOT, 5, message(1, 5)), Taken::Stranger, "nor is it the root's copy now");
    assert_eq!(log.hear(1, message(1, 1)), Taken::Duplicate);
    assert_eq!(log.hear(3, message(1, 3)), Taken::Hole);
    assert_eq!(log.hear(2, message(1, 2)), Taken::Next);
    assert_eq!((log.matched(), log.commit(), log.end()), (3, 3, 5), "the rest may be committed still");
    assert_eq!(log.hear(3, message(2, 30)), Taken::Next);
    assert_eq!((log.matched(), log.commit(), log.end()), (4, 4, 4), "something else was");
    log.trim(1, usize::MAX);
    assert_eq!(log.window.start(), 0, "it keeps the sessions");
    let promise = log.on_prepare(term(3)).unwrap().unwrap();
    assert_eq!((promise.end, promise.commit, promise.synced), (4, 4, term(1)));
    assert!(log.on_sync(4, &sync(3, 4, 4)));
    assert_eq!(log.take(ROOT, 4, message(3, 4)), Taken::Next, "and is a root's copy again");
    // Where the other node's window begins later, the rest is gone.
    log.listen(9);
    assert_eq!((log.matched(), log.commit(), log.end()), (9, 9, 9));
    log.check();
}

#[test]
fn what_is_left_of_a_life_is_what_is_committed() {
    let mut log = copy(4, 3);
    log.end_life();
    assert_eq!((log.end(), log.commit(), log.replica()), (3, 3, None));
    assert_eq!(log.take(ROOT, 3, message(1, 3)), Taken::Stranger);
    assert_eq!(log.take_committed(3, message(1, 3)), Taken::Next);
    assert_eq!(log.take_committed(3, message(1, 3)), Taken::Duplicate);
    assert_eq!(log.take_committed(9, message(1, 9)), Taken::Hole);
    assert_eq!((log.end(), log.commit()), (4, 4));
    assert!(!log.on_sync(4, &sync(5, 4, 4)), "nor is it a member for a root's word");
    log.begin_life(ME, 2);
    assert!(!log.on_sync(4, &sync(5, 4, 4)), "a word to the life before");
}

#[test]
fn a_member_keeps_the_sessions_and_what_is_open_whatever_the_limits_are() {
    let mut log = copy(9, 5);
    log.trim(2, usize::MAX);
    assert_eq!(log.window.start(), 0, "the committed configuration stands at the beginning");
    assert_eq!(log.take(ROOT, 10, configuration(1, &[1, 2, 3])), Taken::Next);
    log.trim(2, usize::MAX);
    assert_eq!(log.window.start(), 0, "the next one is not committed");
    log.on_commit(11);
    log.trim(2, usize::MAX);
    assert_eq!(log.window.start(), 9);
    log.shrink(u64::MAX);
    log.trim(0, 0);
    assert_eq!(log.window.start(), 10);
    let mut reader = read_log(9);
    reader.trim(2, usize::MAX);
    assert_eq!(reader.window.start(), 8, "all others keep what fits");
}

#[test]
fn a_later_birth_goes_on_where_it_has_taken_over() {
    let lineage = Lineage::default().then(BIRTH, 4);
    let mut log = read_log(9);
    assert_eq!(log.commit(), 10);
    log.go_over(8, lineage.clone(), 4);
    assert_eq!((log.birth, log.window.start(), log.end(), log.commit()), (8, 0, 4, 4));
    assert_eq!(log.take_committed(4, born(1, &[4], lineage.clone(), false)), Taken::Next);
    assert!(!log.took_all_of(BIRTH));
    let mut short = read_log(2);
    short.go_over(8, lineage.clone(), 4);
    assert_eq!((short.end(), short.commit()), (3, 3), "what it lacks of it comes");
    let mut late = Log::new(BIRTH, Lineage::default(), 7);
    late.go_over(8, lineage.clone(), 4);
    assert_eq!((late.window.start(), late.commit()), (4, 4), "all that it had is lost");
    let mut complete = read_log(3);
    complete.go_over(8, lineage.clone(), 4);
    assert_eq!(complete.take_committed(4, born(1, &[4], lineage, true)), Taken::Next);
    assert!(complete.took_all_of(BIRTH) && !complete.took_all_of(5));
}

#[test]
fn a_birth_of_this_nodes_own_takes_over_all_that_is_here() {
    let mut log = copy(4, 3);
    log.begin_anew(8, Lineage::default().then(BIRTH, 5));
    log.begin_life(ME, 2);
    log.begin_birth(Term { number: 1, root: ME });
    log.append(born(1, &[1], log.lineage.clone(), false));
    log.check();
    assert_eq!((log.birth, log.window.start(), log.commit(), log.end()), (8, 0, 5, 6));
    assert_eq!(log.configurations().all().len(), 1, "those of the birth before count no more");
    assert_eq!(log.lineage.birth_at(4, log.birth), BIRTH);
}

use super::*;
use crate::log::testing::{BIRTH, ROOT, born, configuration, member, message, term};
use crate::wire::Lineage;

/// A root that is no member, or one, with its log, and the logs of others.
struct Group {
    primary: Primary,
    log: Log,
    others: BTreeMap<NodeId, Log>,
}

/// A log that a node founded which is its first member.
fn founded(root: u128, number: u64) -> Group {
    let mut log = Log::new(BIRTH, Lineage::default(), 0);
    log.begin_life(NodeId(root), 1);
    let mut primary = Primary::found(NodeId(root), Term { number, root: NodeId(root) });
    assert!(
        primary.append(&mut log, born(number, &[root], Lineage::default(), true)),
        "alone it is committed at once"
    );
    Group { primary, log, others: BTreeMap::new() }
}

impl Group {
    fn with_members(ids: &[u128]) -> Group {
        let mut group = founded(9, 1);
        for &id in ids.iter().filter(|&&id| id != 9) {
            let mut log = Log::new(BIRTH, Lineage::default(), 0);
            log.begin_life(NodeId(id), 1);
            group.others.insert(NodeId(id), log);
            group.follow(id);
        }
        group.append(configuration(1, ids));
        ids.iter().for_each(|&id| group.push(id));
        group.tell();
        group
    }

    /// Begins to make a node a copy.
    fn follow(&mut self, id: u128) {
        let log = self.others.get_mut(&NodeId(id)).unwrap();
        let promise = log.copy_state().unwrap();
        let (next, sync) = self.primary.sync(&self.log, NodeId(id), &promise, false).unwrap();
        assert!(log.on_sync(next, &sync));
    }

    fn append(&mut self, held: Held) -> bool {
        self.primary.append(&mut self.log, held)
    }

    /// A node gets all that the root has.
    fn push(&mut self, id: u128) {
        let Some(log) = self.others.get_mut(&NodeId(id)) else { return };
        let number = self.primary.term().number;
        let rest: Vec<_> =
            self.log.window.entries_from(log.matched()).map(|(at, held)| (at, held.clone())).collect();
        for (offset, held) in rest {
            let held = Held { term: number, ..held };
            assert_eq!(log.take(self.primary.term().root, offset, held), crate::log::part::Taken::Next);
        }
        let end = log.matched();
        self.primary.on_held(&mut self.log, NodeId(id), 1, end);
        self.log.check();
    }

    /// All hear how far the log is committed.
    fn tell(&mut self) {
        let commit = self.log.commit();
        self.others.values_mut().for_each(|log| {
            log.on_commit(commit);
        });
    }

    fn commit(&self) -> u64 {
        self.log.commit()
    }
}

fn promise(synced: u64, commit: u64, end: u64, configurations: &[(u64, &[u128])]) -> CopyState {
    let configuration =
        |&(at, ids): &(u64, &[u128])| Configuration { at, members: crate::log::testing::members(ids) };
    CopyState {
        life: 1,
        synced: term(synced),
        birth: BIRTH,
        lineage: Lineage::default(),
        start: 0,
        commit,
        end,
        configurations: configurations.iter().map(configuration).collect(),
    }
}

/// A root without a copy of its own that has these promises.
fn preparing(promises: &[(u128, CopyState)]) -> Primary {
    let mut primary = Primary::prepare(ROOT, term(9), None);
    promises.iter().for_each(|(id, promise)| primary.on_promise(NodeId(*id), promise.clone()));
    primary
}

fn nobody(_: &Member) -> bool {
    false
}

#[test]
fn an_entry_is_committed_when_a_majority_holds_it() {
    let mut group = Group::with_members(&[9, 1, 2]);
    assert_eq!(group.commit(), 2);
    assert!(!group.append(message(1, 1)), "the root is one of three");
    group.push(1);
    assert_eq!((group.commit(), group.primary.copies(&group.log, 2)), (3, 2));
    assert_eq!(group.primary.held_by_all(&group.log), 2);
    group.push(2);
    assert_eq!((group.primary.copies(&group.log, 2), group.primary.held_by_all(&group.log)), (3, 3));
    // The root is no member: it does not count.
    let mut outside = Group::with_members(&[9, 1, 2]);
    outside.append(configuration(1, &[1, 2, 3]));
    outside.push(1);
    outside.push(2);
    assert_eq!(outside.commit(), 3);
    outside.append(message(1, 1));
    outside.push(1);
    assert_eq!(outside.commit(), 3, "one of three");
    outside.push(2);
    assert_eq!((outside.commit(), outside.primary.copies(&outside.log, 3)), (4, 2));
}

#[test]
fn a_configuration_is_committed_by_the_old_and_by_the_new_and_nothing_comes_behind_it_before() {
    let mut group = Group::with_members(&[9, 1, 2]);
    for id in [3, 4] {
        let mut log = Log::new(BIRTH, Lineage::default(), 0);
        log.begin_life(NodeId(id), 1);
        group.others.insert(NodeId(id), log);
        group.follow(id);
    }
    assert!(group.primary.may_append(&group.log));
    group.append(configuration(1, &[9, 3, 4]));
    assert!(!group.primary.may_append(&group.log));
    group.push(3);
    group.push(4);
    assert_eq!(group.commit(), 2, "all of the new, one of the old");
    group.push(1);
    assert_eq!(group.commit(), 3);
    assert!(group.primary.may_append(&group.log));
    // The other way round.
    group.append(configuration(1, &[1, 2, 5]));
    group.push(3);
    group.push(4);
    assert_eq!(group.commit(), 3, "all of the old, none of the new");
    group.push(1);
    assert_eq!(group.commit(), 3);
    group.push(2);
    assert_eq!(group.commit(), 4);
}

#[test]
fn what_no_member_can_hold_and_what_another_life_holds_is_not_counted() {
    let mut group = Group::with_members(&[9, 1, 2]);
    group.append(message(1, 1));
    assert!(!group.primary.on_held(&mut group.log, NodeId(1), 1, 4), "beyond what was ever appended");
    assert!(!group.primary.on_held(&mut group.log, NodeId(1), 2, 3), "in another life");
    assert!(!group.primary.on_held(&mut group.log, NodeId(7), 1, 3), "of one that nobody asked");
    assert_eq!(group.commit(), 2);
    assert!(group.primary.on_held(&mut group.log, NodeId(1), 1, 3));
    assert!(!group.primary.on_held(&mut group.log, NodeId(1), 1, 2), "it does not go back");
    assert_eq!(group.primary.held_by(NodeId(1)), Some(3));
    group.primary.on_follower_lost(NodeId(1));
    assert_eq!((group.primary.held_by(NodeId(1)), group.primary.follows(NodeId(1), 1)), (None, false));
    assert_eq!(group.commit(), 3, "what is committed stays");
}

#[test]
fn a_member_counts_from_where_it_was_made_a_copy() {
    let mut group = Group::with_members(&[9, 1, 2]);
    group.append(message(1, 1));
    group.primary.on_follower_lost(NodeId(1));
    // Its log may hold something else at offset 2.
    let copy = promise(0, 1, 3, &[]);
    let (next, sync) = group.primary.sync(&group.log, NodeId(1), &copy, false).unwrap();
    assert_eq!((next, sync.upto), (1, 3));
    assert!(!group.primary.on_held(&mut group.log, NodeId(1), 1, 2));
    assert_eq!(group.commit(), 2);
    assert!(group.primary.on_held(&mut group.log, NodeId(1), 1, 3));
    assert_eq!(group.commit(), 3);
}

#[test]
fn a_member_is_told_from_where_its_log_may_differ() {
    let mut group = Group::with_members(&[9, 1, 2]);
    (1..=5).for_each(|sequence| {
        group.append(message(1, sequence));
    });
    let mut next = |promise: &CopyState| group.primary.sync(&group.log, NodeId(1), promise, false).unwrap().0;
    let synced = |number, promise| CopyState { synced: Term { number, root: ROOT }, ..promise };
    assert_eq!(next(&synced(1, promise(1, 2, 4, &[]))), 4, "a copy of this term is one up to its end");
    assert_eq!(next(&synced(0, promise(0, 2, 4, &[]))), 2, "else only what is committed is the same");
    assert_eq!(next(&promise(0, 99, 99, &[])), 7, "never beyond what the root has");
    assert_eq!(next(&CopyState { birth: 3, ..promise(0, 2, 4, &[]) }), 0, "of another birth: all of it");
}

#[test]
fn in_haste_one_that_holds_nothing_begins_at_the_last_committed_configuration() {
    let mut group = Group::with_members(&[9, 1, 2]);
    group.append(message(1, 1));
    group.append(configuration(1, &[9, 1, 2]));
    group.append(message(1, 2));
    let at = |log: &Log| log.configurations().last().unwrap().at;
    let last = at(&group.log);
    let nothing = CopyState { birth: 0, ..promise(0, 0, 0, &[]) };
    let next = |group: &mut Group, promise: &CopyState, haste| {
        group.primary.on_follower_lost(NodeId(3));
        let (next, sync) = group.primary.sync(&group.log, NodeId(3), promise, haste).unwrap();
        assert!(sync.configurations.iter().all(|known| known.at < next));
        next
    };
    assert_eq!(next(&mut group, &nothing, false), 0);
    assert_eq!(next(&mut group, &nothing, true), 1, "the other one is not committed yet");
    assert!(group.primary.on_held(&mut group.log, NodeId(1), 1, last + 2));
    assert_eq!(next(&mut group, &nothing, true), last);
    assert_eq!(next(&mut group, &promise(0, 2, 4, &[]), true), 2, "its own log goes on");
}

#[test]
fn a_root_that_was_overtaken_ends_no_life() {
    let group = Group::with_members(&[1, 2, 9]);
    let releases = |id: u128, life: u64, synced: u64| {
        let copy = CopyState { life, ..promise(synced, 1, 2, &[]) };
        group.primary.releases(&group.log, NodeId(id), &copy)
    };
    assert!(!releases(2, 1, 1), "it is a member");
    assert!(releases(2, 2, 1), "in another life it is none");
    assert!(releases(3, 1, 1) && releases(3, 1, 0));
    assert!(!releases(3, 1, 2), "a later root may have named it");
    let preparing = preparing(&[(1, promise(1, 1, 2, &[]))]);
    assert!(!preparing.releases(&group.log, NodeId(3), &promise(1, 1, 2, &[])), "it knows no members yet");
}

#[test]
fn the_copy_of_the_greatest_term_is_adopted_not_the_longest() {
    let three: &[(u64, &[u128])] = &[(0, &[1, 2, 3])];
    let promises = [(1, promise(2, 3, 8, three)), (2, promise(3, 4, 5, three))];
    assert_eq!(
        preparing(&promises).outcome(nobody, false),
        PrepareOutcome::Adopt { best: NodeId(2), commit: 4 }
    );
    let same = [(1, promise(3, 3, 8, three)), (2, promise(3, 4, 5, three))];
    assert_eq!(preparing(&same).outcome(nobody, false), PrepareOutcome::Adopt { best: NodeId(1), commit: 4 });
    assert_eq!(preparing(&[]).outcome(nobody, false), PrepareOutcome::Unknown);
}

#[test]
fn promises_of_a_majority_of_every_configuration_that_counts_are_needed() {
    let three: &[(u64, &[u128])] = &[(0, &[1, 2, 3])];
    let one = preparing(&[(1, promise(1, 3, 3, three))]);
    assert_eq!(one.outcome(nobody, false), PrepareOutcome::Wait(vec![member(2, 1), member(3, 1)]));
    // The best log names others in an entry that may be committed: they are asked, too.
    let both: &[(u64, &[u128])] = &[(0, &[1, 2, 3]), (3, &[3, 4, 5])];
    let open = [(1, promise(1, 3, 4, both)), (2, promise(1, 3, 3, three))];
    let wait = PrepareOutcome::Wait(vec![member(3, 1), member(4, 1), member(5, 1)]);
    assert_eq!(preparing(&open).outcome(nobody, false), wait);
    let more = [open[0].clone(), open[1].clone(), (3, promise(1, 3, 3, three)), (4, promise(1, 3, 4, both))];
    assert_eq!(preparing(&more).outcome(nobody, false), PrepareOutcome::Adopt { best: NodeId(4), commit: 3 });
    // Known to be committed, the old ones count no more.
    let settled = [(3, promise(1, 4, 4, both)), (4, promise(1, 4, 4, &[(3, &[3, 4, 5])]))];
    assert_eq!(
        preparing(&settled).outcome(nobody, false),
        PrepareOutcome::Adopt { best: NodeId(4), commit: 4 }
    );
    // Another life of a member is not that member.
    let reborn = CopyState { life: 2, ..promise(1, 3, 3, three) };
    let two = preparing(&[(1, promise(1, 3, 3, three)), (2, reborn)]);
    assert_eq!(two.outcome(nobody, false), PrepareOutcome::Wait(vec![member(2, 1), member(3, 1)]));
}

#[test]
fn a_majority_that_has_ended_is_complete_if_every_majority_had_a_survivor() {
    let over =
        |ids: &'static [u128]| move |member: &Member| ids.iter().any(|&id| NodeId(id) == member.peer.id);
    let three: &[(u64, &[u128])] = &[(0, &[1, 2, 3])];
    let one = preparing(&[(1, promise(1, 3, 3, three))]);
    assert_eq!(
        one.outcome(over(&[2]), false),
        PrepareOutcome::Wait(vec![member(3, 1)]),
        "one of the others is enough"
    );
    let ended = |complete| PrepareOutcome::MajorityEnded { best: Some(NodeId(1)), complete };
    assert_eq!(one.outcome(over(&[2, 3]), false), ended(false), "the two may have committed without it");
    let two = preparing(&[(1, promise(1, 3, 3, &[(0, &[1, 2])]))]);
    assert_eq!(two.outcome(over(&[2]), false), ended(true), "nothing was committed without it");
    let alone = preparing(&[(1, promise(1, 3, 3, &[(0, &[4])]))]);
    assert_eq!(alone.outcome(over(&[4]), false), ended(false));
}

#[test]
fn of_two_births_the_longest_that_has_a_majority_goes_on() {
    let two: &[(u64, &[u128])] = &[(0, &[1, 2])];
    let old = promise(5, 9, 9, two);
    let lineage = Lineage::default().then(BIRTH, 6);
    let new = CopyState { birth: 8, lineage, ..promise(1, 7, 7, &[(6, &[3])]) };
    let both = preparing(&[(1, old.clone()), (3, new.clone())]);
    let over = |member: &Member| member.peer.id == NodeId(2);
    assert_eq!(both.outcome(nobody, false), PrepareOutcome::Wait(vec![member(2, 1)]), "it may be longer");
    let adopt = |id, commit| PrepareOutcome::Adopt { best: NodeId(id), commit };
    assert_eq!(both.outcome(nobody, true), adopt(3, 7), "it was waited for");
    assert_eq!(both.outcome(over, false), adopt(3, 7), "it has ended");
    let all = preparing(&[(1, old.clone()), (2, old.clone()), (3, new.clone())]);
    assert_eq!(all.outcome(nobody, false), adopt(2, 9), "both have a majority");
    let longer = CopyState { end: 12, ..new };
    let all = preparing(&[(1, old.clone()), (2, old), (3, longer)]);
    assert_eq!(all.outcome(nobody, false), adopt(3, 7));
}

#[test]
fn a_root_adopts_the_best_copy_and_commits_it_in_its_own_term() {
    let mut group = Group::with_members(&[9, 1, 2]);
    group.append(message(1, 1));
    group.append(message(1, 2));
    group.push(1);
    assert_eq!(group.commit(), 4);
    // Node 5 becomes the root; the one before is gone. Of what node 1 holds, node 2 has nothing.
    let mut primary = Primary::prepare(NodeId(5), Term { number: 2, root: NodeId(5) }, None);
    for id in [1, 2] {
        let copy = group.others.get_mut(&NodeId(id)).unwrap().on_prepare(primary.term()).unwrap().unwrap();
        primary.on_promise(NodeId(id), copy);
    }
    let PrepareOutcome::Adopt { best, commit } = primary.outcome(nobody, false) else {
        panic!("{primary:?}")
    };
    assert_eq!(best, NodeId(1));
    let mut log = None;
    assert_eq!(primary.adopt(&mut log, best, commit), Some(0), "it has nothing");
    let mut log = *log.unwrap();
    assert!(primary.adopting().is_some() && !primary.is_serving());
    let best = group.others[&best].clone();
    for (offset, held) in best.window.entries_from(0) {
        let done = primary.on_pulled(&mut log, offset, held.clone());
        assert_eq!(done, offset + 1 == best.end());
    }
    assert!(primary.is_serving());
    assert_eq!((log.end(), log.commit()), (4, commit));
    log.check();
    group.primary = primary;
    group.log = log;
    for id in [1, 2] {
        group.follow(id);
        group.push(id);
    }
    assert_eq!(group.commit(), 4, "what was adopted is committed when a majority has it in this term");
    for log in group.others.values() {
        assert_eq!((log.end(), log.replica().unwrap().synced), (4, group.primary.term()));
    }
}

#[test]
fn a_member_that_is_the_best_serves_at_once() {
    let group = Group::with_members(&[9, 1, 2]);
    let mut log = group.others[&NodeId(1)].clone();
    let term = Term { number: 2, root: NodeId(1) };
    let own = log.on_prepare(term).unwrap().ok();
    let mut primary = Primary::prepare(NodeId(1), term, own);
    let mut other = group.others[&NodeId(2)].clone();
    primary.on_promise(NodeId(2), other.on_prepare(term).unwrap().unwrap());
    let PrepareOutcome::Adopt { best, commit } = primary.outcome(nobody, false) else {
        panic!("{primary:?}")
    };
    let mut log = Some(Box::new(log));
    if best != NodeId(1) {
        // Both are alike, and the other one has the greater id.
        assert_eq!(best, NodeId(2));
    }
    let next = primary.adopt(&mut log, best, commit);
    let log = log.unwrap();
    assert_eq!(primary.is_serving(), next.is_none());
    assert!(primary.is_serving(), "nothing is lacking");
    assert_eq!(log.replica().unwrap().synced, term);
}

#[test]
fn a_part_that_lacks_the_sessions_is_not_built_upon() {
    let three: &[(u64, &[u128])] = &[(4, &[1, 2, 3])];
    let best = CopyState { start: 2, ..promise(1, 9, 9, three) };
    for (start, expected) in [(3, 8), (6, 2)] {
        let mut primary = preparing(&[(1, best.clone()), (2, best.clone())]);
        let mut own = Log::new(BIRTH, Lineage::default(), start);
        (start..8).for_each(|offset| {
            let _ = own.take_committed(offset, message(1, offset));
        });
        let mut log = Some(Box::new(own));
        let next = primary.adopt(&mut log, NodeId(2), 9);
        assert_eq!(next, Some(expected), "a part from {start} on");
    }
}

#[test]
fn the_best_copy_may_be_lost_while_it_is_adopted() {
    let three: &[(u64, &[u128])] = &[(0, &[1, 2, 3])];
    let mut primary = preparing(&[(1, promise(2, 3, 3, three)), (2, promise(1, 3, 3, three))]);
    let mut log = None;
    assert_eq!(primary.adopt(&mut log, NodeId(1), 3), Some(0));
    primary.on_best_lost();
    assert_eq!(primary.outcome(nobody, false), PrepareOutcome::Wait(vec![member(1, 1), member(3, 1)]));
    primary.on_promise(NodeId(3), promise(1, 3, 3, three));
    assert!(matches!(primary.outcome(nobody, false), PrepareOutcome::Adopt { .. }));
}

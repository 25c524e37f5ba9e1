//! Which nodes are to be the members of a log: the root invites and replaces them (design §6, replication).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Peer;
use treecast_overlay::time::Instant;

use crate::wire::{Configuration, CopyState, Life, Member};

/// How long a node that would not be a member is not asked again.
const UNWILLING: Duration = Duration::from_secs(5);
/// How long an invited node is waited for before another one is invited as well.
const INVITED: Duration = Duration::from_secs(1);
/// How long a node that catches up is waited for before another one is invited as well.
const CATCHES_UP: Duration = Duration::from_secs(3);
/// One that holds what was committed so long ago is no farther behind than its link is long.
const LAG: Duration = Duration::from_secs(1);
/// How far apart it is noted how far the log is committed.
const NOTED_APART: Duration = Duration::from_millis(200);
/// How far apart the same node is asked for the same.
const ASKED_APART: Duration = Duration::from_millis(300);
/// Most nodes of which it is known that they were members.
const MAX_NAMED: usize = 64;
/// Members are left alone while they are among so many nodes closest to the key: none changes for a node that squeezes in.
pub(crate) const CLOSEST: usize = 8;

/// The nodes that were asked to become members.
#[derive(Debug, Default)]
pub(crate) struct Team {
    invited: BTreeMap<NodeId, Instant>,
    unwilling: BTreeMap<NodeId, Instant>,
    /// Since when they catch up.
    behind: BTreeMap<NodeId, Instant>,
    /// When a node was last asked to become a member, or for its promise.
    asked: BTreeMap<NodeId, Instant>,
    /// How far the log was committed, and when.
    commits: VecDeque<(Instant, u64)>,
    /// The last lives that configurations have named.
    named: BTreeMap<NodeId, Life>,
}

/// All that is known of one node for the choice of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The life in which it follows the root's log.
    pub life: Life,
    /// It has everything before this offset.
    pub held: u64,
}

/// The members that there should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Nodes to be invited.
    pub invite: Vec<Peer>,
    /// The next configuration, if there is to be one.
    pub members: Option<Vec<Member>>,
    /// Something is to be looked at again.
    pub is_open: bool,
}

/// What the members are chosen by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Basis<'a> {
    /// The last configuration.
    pub configuration: &'a Configuration,
    /// How far the log is committed.
    pub commit: u64,
    /// How many members there are to be.
    pub copies: usize,
    /// The nodes closest to the key, the closest first.
    pub ranked: &'a [Peer],
}

impl Team {
    /// A node will not be a member, or not any longer.
    pub(crate) fn on_unwilling(&mut self, now: Instant, id: NodeId) {
        self.invited.remove(&id);
        self.unwilling.insert(id, now + UNWILLING);
    }

    /// Whether a node said so of late.
    pub(crate) fn is_unwilling(&self, now: Instant, id: NodeId) -> bool {
        self.unwilling.get(&id).is_some_and(|&until| until > now)
    }

    /// Whether a node was invited of late, or catches up.
    pub(crate) fn is_expected(&self, id: NodeId) -> bool {
        self.invited.contains_key(&id) || self.behind.contains_key(&id)
    }

    /// Whether a node that no configuration names any more may be named with such a copy: it is expected, and none ever named
    /// it in this life. A life that is named no more the node ends itself.
    pub(crate) fn may_name(&self, id: NodeId, copy: &CopyState) -> bool {
        let was_named = copy.configurations.iter().any(|known| known.names(id, copy.life));
        self.is_expected(id) && !was_named && self.named.get(&id).is_none_or(|last| *last < copy.life)
    }

    /// Notes whom the log's configurations name.
    pub(crate) fn note_named(&mut self, configurations: &[Configuration]) {
        if self.named.len() > MAX_NAMED {
            self.named.clear();
        }
        for (id, life) in configurations.iter().flat_map(|known| known.members.iter()).map(Member::key) {
            let last = self.named.entry(id).or_insert(life);
            *last = life.max(*last);
        }
    }

    /// Whether a node may be asked once more.
    pub(crate) fn may_ask(&mut self, now: Instant, id: NodeId) -> bool {
        self.asked.retain(|_, at| now.since(*at) < ASKED_APART);
        let free = !self.asked.contains_key(&id);
        if free {
            self.asked.insert(id, now);
        }
        free
    }

    /// Notes how far the log is committed. Returns how far it was a while ago: one that holds that much may become a
    /// member. Under way to a farther node is always something.
    fn committed_lately(&mut self, now: Instant, commit: u64) -> u64 {
        if self.commits.back().is_none_or(|(at, _)| now.since(*at) >= NOTED_APART) {
            self.commits.push_back((now, commit));
        }
        while self.commits.get(1).is_some_and(|(at, _)| now.since(*at) >= LAG) {
            self.commits.pop_front();
        }
        self.commits.front().filter(|(at, _)| now.since(*at) >= LAG).map_or(commit, |(_, commit)| *commit)
    }

    /// A node is gone, or a member now.
    pub(crate) fn forget(&mut self, id: NodeId) {
        self.invited.remove(&id);
        self.unwilling.remove(&id);
        self.behind.remove(&id);
    }

    /// Decides on the members. `is_well`: whether a member is to stay. `standing`: how far a node is that follows.
    pub(crate) fn plan(
        &mut self,
        now: Instant,
        basis: Basis<'_>,
        is_well: impl Fn(&Member) -> bool,
        standing: impl Fn(NodeId) -> Option<Candidate>,
    ) -> Plan {
        let Basis { configuration, commit, copies, ranked } = basis;
        self.unwilling.retain(|_, until| *until > now);
        self.invited.retain(|_, since| now.since(*since) < 4 * INVITED);
        let lately = self.committed_lately(now, commit);
        self.behind.retain(|&id, _| standing(id).is_some_and(|candidate| candidate.held < lately));
        let near = |id: NodeId| ranked.iter().take(CLOSEST.max(copies)).any(|peer| peer.id == id);
        let members = &configuration.members;
        let mut next: Vec<Member> =
            members.iter().filter(|member| is_well(member) && near(member.peer.id)).copied().collect();
        next.truncate(copies);
        let stays = next.len();
        let mut plan = Plan::default();
        let mut awaited = 0;
        for peer in ranked {
            if next.len() + awaited >= copies {
                break;
            }
            let id = peer.id;
            let stays = next.iter().any(|member| member.peer.id == id);
            if stays || self.is_unwilling(now, id) {
                continue;
            }
            match standing(id) {
                Some(Candidate { life, held }) if held >= lately => next.push(Member { peer: *peer, life }),
                Some(_) => {
                    let since = *self.behind.entry(id).or_insert(now);
                    awaited += usize::from(now.since(since) < CATCHES_UP);
                }
                None => {
                    let since = *self.invited.entry(id).or_insert(now);
                    plan.invite.push(*peer);
                    // One that does not come is not waited for alone.
                    awaited += usize::from(now.since(since) < INVITED);
                }
            }
        }
        // A member far away, or not well, is better than none while its successor is on its way.
        let follows = |member: &&Member| {
            is_well(member) || standing(member.peer.id).is_some_and(|known| known.life == member.life)
        };
        // Without a majority of them the next configuration is never committed, and stands in the way.
        let can_commit = 2 * members.iter().filter(follows).count() > members.len();
        let grows = next.len() > stays;
        let shrinks = stays < members.len() && awaited == 0;
        if (grows || shrinks) && !next.is_empty() && can_commit {
            if awaited > 0 {
                // Members that are not replaced yet stay for now.
                let rest = members.iter().filter(|member| !next.iter().any(|n| n.peer.id == member.peer.id));
                let room = copies.max(members.len()).saturating_sub(next.len());
                let rest: Vec<_> = rest.take(room).copied().collect();
                next.extend(rest);
            }
            let same = next.len() == members.len()
                && members.iter().all(|member| next.iter().any(|n| n.key() == member.key()));
            if !same {
                plan.members = Some(next);
            }
        }
        plan.is_open = awaited > 0
            || !self.behind.is_empty()
            || !plan.invite.is_empty()
            || plan.members.is_some()
            || stays < members.len();
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::tree::testing::{contact, copy};

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn peer(id: u128) -> Peer {
        contact(id).peer
    }

    fn ids(peers: impl IntoIterator<Item = Peer>) -> Vec<u128> {
        peers.into_iter().map(|peer| peer.id.0).collect()
    }

    /// Members and the nodes around the key, by their distance; how those stand that follow.
    struct Case<'a> {
        members: &'a [u128],
        ranked: &'a [u128],
        unwell: &'a [u128],
        complete: &'a [u128],
        behind: &'a [u128],
        copies: usize,
        commit: u64,
    }

    const CASE: Case<'static> = Case {
        members: &[1, 2, 3],
        ranked: &[1, 2, 3, 4, 5],
        unwell: &[],
        complete: &[],
        behind: &[],
        copies: 3,
        commit: 10,
    };

    impl Case<'_> {
        /// Whom to invite, and the next members.
        fn plan(&self, team: &mut Team, now: u64) -> (Vec<u128>, Option<Vec<u128>>) {
            let plan = self.whole(team, now);
            let members = plan.members.map(|members| ids(members.into_iter().map(|member| member.peer)));
            (ids(plan.invite), members)
        }

        fn whole(&self, team: &mut Team, now: u64) -> Plan {
            let member = |&id: &u128| Member { peer: peer(id), life: 1 };
            let configuration = Configuration { at: 0, members: self.members.iter().map(member).collect() };
            let ranked: Vec<_> = self.ranked.iter().map(|&id| peer(id)).collect();
            let is = |all: &[u128], id: NodeId| all.iter().any(|&one| NodeId(one) == id);
            let standing = |id| {
                let well = is(self.members, id) && !is(self.unwell, id);
                let is_complete = is(self.complete, id) || well;
                let held = if is_complete { 10 } else { 3 };
                (is_complete || is(self.behind, id)).then_some(Candidate { life: 1, held })
            };
            let is_well = |member: &Member| !is(self.unwell, member.peer.id);
            let (commit, copies) = (self.commit, self.copies);
            let basis = Basis { configuration: &configuration, commit, copies, ranked: &ranked };
            team.plan(at(now), basis, is_well, standing)
        }
    }

    #[test]
    fn members_that_are_well_and_near_stay() {
        let plan = CASE.whole(&mut Team::default(), 0);
        assert_eq!(plan, Plan::default());
        // Among the closest eight, whoever is closer.
        let far = Case { ranked: &[9, 10, 11, 12, 13, 1, 2, 3], ..CASE };
        assert_eq!(far.plan(&mut Team::default(), 0), (vec![], None));
    }

    #[test]
    fn a_new_log_invites_the_closest_and_grows_when_they_have_come() {
        let mut team = Team::default();
        let alone = Case { members: &[1], ..CASE };
        assert_eq!(alone.plan(&mut team, 0), (vec![2, 3], None));
        assert!(team.is_expected(NodeId(2)) && !team.is_expected(NodeId(4)));
        let one = Case { complete: &[2], ..alone };
        assert_eq!(one.plan(&mut team, 10), (vec![3], Some(vec![1, 2])), "two are better than one");
        let both = Case { members: &[1, 2], complete: &[3], ..CASE };
        assert_eq!(both.plan(&mut team, 20), (vec![], Some(vec![1, 2, 3])));
        let few = Case { ranked: &[1, 2], ..alone };
        assert_eq!(few.plan(&mut Team::default(), 0), (vec![2], None));
    }

    #[test]
    fn one_that_is_not_well_is_replaced_when_its_successor_has_come() {
        let mut team = Team::default();
        let case = Case { ranked: &[1, 2, 4, 5], unwell: &[3], ..CASE };
        let plan = case.whole(&mut team, 0);
        assert_eq!((ids(plan.invite), plan.members.is_none(), plan.is_open), (vec![4], true, true));
        let behind = Case { behind: &[4], ..case };
        assert_eq!(behind.plan(&mut team, 10), (vec![], None), "it is catching up");
        let here = Case { complete: &[4], ..behind };
        assert_eq!(here.plan(&mut team, 20), (vec![], Some(vec![1, 2, 4])));
        let nobody = Case { ranked: &[1, 2], ..case };
        assert_eq!(nobody.plan(&mut Team::default(), 0), (vec![], Some(vec![1, 2])), "there is no successor");
    }

    #[test]
    fn a_configuration_that_nobody_could_commit_is_none() {
        // As when a root wakes, and has not heard its members for long.
        let silent = Case { unwell: &[2, 3], ranked: &[1], ..CASE };
        assert_eq!(silent.plan(&mut Team::default(), 0), (vec![], None));
        let other = Case { ranked: &[1, 4], complete: &[4], ..silent };
        assert_eq!(other.plan(&mut Team::default(), 0), (vec![], None));
        let leaving = Case { complete: &[2, 3, 4], ..other };
        assert_eq!(
            leaving.plan(&mut Team::default(), 0).1,
            Some(vec![1, 4]),
            "they hold what comes until they go"
        );
    }

    #[test]
    fn a_life_that_was_named_is_not_expected_again() {
        let mut team = Team::default();
        let alone = Case { members: &[1], ..CASE };
        assert_eq!(alone.plan(&mut team, 0).0, [2, 3]);
        let member = |id, life| Member { peer: peer(id), life };
        let known = Configuration { at: 0, members: [member(1, 4), member(2, 4)].into() };
        team.note_named(std::slice::from_ref(&known));
        let may_name = |id, life, configurations: &[Configuration]| {
            team.may_name(NodeId(id), &CopyState { configurations: configurations.to_vec(), ..copy(life) })
        };
        assert!(!may_name(2, 4, &[]) && may_name(2, 5, &[]));
        assert!(may_name(3, 1, &[]) && !may_name(4, 1, &[]), "it was not invited");
        let other = Configuration { at: 9, members: [member(3, 1)].into() };
        assert!(!may_name(3, 1, &[known, other]), "another root has named it");
    }

    #[test]
    fn one_that_does_not_come_is_not_waited_for_alone() {
        let mut team = Team::default();
        let case = Case { ranked: &[1, 2, 4, 5], unwell: &[3], ..CASE };
        assert_eq!(case.plan(&mut team, 0).0, [4]);
        assert_eq!(case.plan(&mut team, 999).0, [4]);
        assert_eq!(case.plan(&mut team, 1000).0, [4, 5]);
    }

    #[test]
    fn one_that_catches_up_slowly_is_not_waited_for_alone() {
        let mut team = Team::default();
        let case = Case { ranked: &[1, 2, 4, 5], unwell: &[3], behind: &[4], ..CASE };
        assert_eq!(case.plan(&mut team, 0), (vec![], None));
        assert_eq!(case.plan(&mut team, 2999).0, [] as [u128; 0]);
        assert_eq!(case.plan(&mut team, 3000).0, [5]);
        let here = Case { complete: &[4], behind: &[], ..case };
        assert_eq!(here.plan(&mut team, 3100).1, Some(vec![1, 2, 4]), "it is the closer one");
    }

    #[test]
    fn one_far_away_is_complete_though_something_is_always_under_way_to_it() {
        let mut team = Team::default();
        let case = Case { ranked: &[1, 2, 4], unwell: &[3], complete: &[4], commit: 12, ..CASE };
        // It holds 10 of 12: so much was committed 1 s ago.
        assert_eq!(Case { commit: 10, ..case }.plan(&mut Team::default(), 0).1, Some(vec![1, 2, 4]));
        assert_eq!(Case { commit: 10, complete: &[], ..case }.plan(&mut team, 0).1, None);
        assert_eq!(case.plan(&mut team, 900).1, None);
        assert_eq!(case.plan(&mut team, 1000).1, Some(vec![1, 2, 4]));
        assert_eq!(case.plan(&mut team, 2000).1, None, "it does not come on");
    }

    #[test]
    fn a_node_is_asked_once_in_a_while() {
        let mut team = Team::default();
        assert!(team.may_ask(at(0), NodeId(4)) && !team.may_ask(at(299), NodeId(4)));
        assert!(team.may_ask(at(299), NodeId(5)) && team.may_ask(at(300), NodeId(4)));
    }

    #[test]
    fn one_that_will_not_is_passed_over_for_a_while() {
        let mut team = Team::default();
        let case = Case { ranked: &[1, 2, 4, 5], unwell: &[3], ..CASE };
        assert_eq!(case.plan(&mut team, 0).0, [4]);
        team.on_unwilling(at(10), NodeId(4));
        assert!(team.is_unwilling(at(10), NodeId(4)) && !team.is_expected(NodeId(4)));
        assert_eq!(case.plan(&mut team, 20).0, [5]);
        assert!(!team.is_unwilling(at(5010), NodeId(4)));
        assert_eq!(case.plan(&mut team, 5010).0, [4]);
        team.forget(NodeId(4));
        assert!(!team.is_expected(NodeId(4)));
    }

    #[test]
    fn one_far_away_is_replaced() {
        let far = Case { ranked: &[9, 1, 2, 10, 11, 12, 13, 14, 3], complete: &[9], ..CASE };
        assert_eq!(far.plan(&mut Team::default(), 0), (vec![], Some(vec![1, 2, 9])));
    }

    #[test]
    fn fewer_copies_are_wanted_now() {
        let one = Case { copies: 1, ..CASE };
        assert_eq!(one.plan(&mut Team::default(), 0).1.map(|members| members.len()), Some(1));
    }

    #[test]
    fn of_those_that_can_commit_one_stays_in_the_next_configuration() {
        let none = Case { unwell: &[1, 2, 3], ranked: &[4, 5, 6], ..CASE };
        assert_eq!(none.plan(&mut Team::default(), 0), (vec![4, 5, 6], None), "an empty one would be none");
        let some = Case { complete: &[1, 2, 4], ..none };
        let mut team = Team::default();
        let (invite, members) = some.plan(&mut team, 0);
        let members = members.unwrap();
        assert_eq!(invite, [5, 6]);
        assert!(
            members.contains(&4) && members.len() == 3,
            "those that are not replaced yet stay: {members:?}"
        );
    }

    #[test]
    fn no_more_are_invited_than_there_are_places() {
        let mut team = Team::default();
        let alone = Case { members: &[1], ranked: &[2, 3, 1, 4], behind: &[2, 3], ..CASE };
        assert_eq!(alone.plan(&mut team, 0), (vec![], None));
    }
}

//! Which nodes are to be the members of a log: the root invites and replaces them (design §6, replication).

use std::collections::BTreeMap;
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Peer;
use treecast_overlay::time::Instant;

use crate::wire::{Configuration, Life, Member};

/// How long a node that would not be a member is not asked again.
const UNWILLING: Duration = Duration::from_secs(5);
/// How long an invited node is waited for before another one is invited as well.
const INVITED: Duration = Duration::from_secs(1);
/// Members are left alone while they are among so many nodes closest to the key: none changes for a node that squeezes in.
pub(crate) const CLOSEST: usize = 8;

/// The nodes that were asked to become members.
#[derive(Debug, Default)]
pub(crate) struct Team {
    invited: BTreeMap<NodeId, Instant>,
    unwilling: BTreeMap<NodeId, Instant>,
}

/// All that is known of one node for the choice of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The life in which it follows the root's log.
    pub life: Life,
    /// It has everything that is committed.
    pub is_complete: bool,
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

    /// Whether a node was invited of late.
    pub(crate) fn is_invited(&self, id: NodeId) -> bool {
        self.invited.contains_key(&id)
    }

    /// A node is gone, or a member now.
    pub(crate) fn forget(&mut self, id: NodeId) {
        self.invited.remove(&id);
        self.unwilling.remove(&id);
    }

    /// Decides on the members. `ranked`: the nodes closest to the key, the closest first. `is_well`: whether a member is to
    /// stay. `standing`: how far a node is that follows.
    pub(crate) fn plan(
        &mut self,
        now: Instant,
        configuration: &Configuration,
        copies: usize,
        ranked: &[Peer],
        is_well: impl Fn(&Member) -> bool,
        standing: impl Fn(NodeId) -> Option<Standing>,
    ) -> Plan {
        self.unwilling.retain(|_, until| *until > now);
        self.invited.retain(|_, since| now.since(*since) < 4 * INVITED);
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
                Some(Standing { life, is_complete: true }) => next.push(Member { peer: *peer, life }),
                Some(_) => awaited += 1,
                None => {
                    let since = *self.invited.entry(id).or_insert(now);
                    plan.invite.push(*peer);
                    // One that does not come is not waited for alone.
                    awaited += usize::from(now.since(since) < INVITED);
                }
            }
        }
        // A member far away, or not well, is better than none while its successor is on its way.
        let can_commit = members.iter().filter(|member| next.iter().any(|n| n.key() == member.key())).count();
        let grows = next.len() > stays;
        let shrinks = stays < members.len() && awaited == 0;
        if (grows || shrinks) && !next.is_empty() && (can_commit > 0 || grows) {
            if awaited > 0 {
                // Those that are not replaced yet stay for now.
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
        plan.is_open = awaited > 0 || !plan.invite.is_empty() || plan.members.is_some() || stays < members.len();
        plan
    }
}

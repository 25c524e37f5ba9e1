//! The leaf set kept whole: periodic, jittered, budgeted exchange, with one early round on news (Rhea et al. 2004, §3:
//! purely reactive repair collapses on congested links). And rings that have lost each other: `merge.rs`.

mod budget;
mod lost_peers;
mod merge;

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

pub(crate) use self::budget::Budget;
pub(crate) use self::lost_peers::LostPeers;
pub(crate) use self::merge::Merge;
use super::core::Core;
use super::tables::Tables;
use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::sides::Side;
use crate::table::LeafSet;
use crate::time::Instant;

/// Most nodes that one message of another may make this node probe. The others come with a later round.
pub(crate) const MAX_PROBES_PER_MESSAGE: usize = 48;
/// Most nodes remembered that come next where members are missing. Measured: `lab churn --nodes 2000 --lookups 20000 --warm
/// 300`: without them 82.1 bytes/s/node in place of 71.8, 1.43 messages/s/node in place of 1.41, stretch 1.63 as before.
const MAX_SPARE: usize = 4;
/// Most nodes asked at once that a neighbour names in place of a lease; the nearest first, and it names them again.
const MAX_BETWEEN: usize = 4;

/// The budget of repair, and its memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Repair {
    pub(crate) budget: Budget,
    /// Nodes that come next where others have found members dead, until this node has found out for itself.
    spare: Vec<Peer>,
}

/// For a model checker: where nothing need wait, what was spent decides nothing.
impl Hash for Repair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.spare, self.budget.waiting()).hash(state);
    }
}

/// The surroundings of a leaf-set member before it is dropped.
#[derive(Debug)]
pub(crate) struct Dropping {
    neighbours: Vec<Peer>,
    was_full: bool,
    side: Side,
    /// The end of its side, and of the other one.
    far_end: Option<Peer>,
    other_end: Option<Peer>,
}

impl Dropping {
    pub(crate) fn of(core: &Core, tables: &Tables, id: NodeId) -> Dropping {
        let leaf_set = &tables.leaf_set;
        let is_right = leaf_set.rights().any(|peer| peer.id == id);
        let side = if is_right { Side::Right } else { Side::Left };
        let end = |side| leaf_set.side(side).filter(|end| end.id != id).last().copied();
        Dropping {
            neighbours: leaf_set.ring_neighbours(),
            was_full: leaf_set.len() >= core.config.tables.leaf_set,
            side,
            far_end: end(side),
            other_end: end(side.opposite()),
        }
    }

    /// The ring neighbours as they were.
    pub(crate) fn neighbours(&self) -> &[Peer] {
        &self.neighbours
    }
}

impl Repair {
    /// Closes the gap of a dropped member with what its neighbours know. Returns nodes to be probed.
    pub(crate) fn close_gap(
        &mut self,
        now: Instant,
        core: &mut Core,
        tables: &Tables,
        id: NodeId,
        dropping: &Dropping,
    ) -> Vec<Peer> {
        let Dropping { neighbours, was_full, side, far_end, other_end } = dropping;
        if neighbours.iter().any(|neighbour| neighbour.id == id) {
            // One early round on news, by the nodes that watch each other: the members hear what this node's leaf set is
            // now, and check for themselves which members they miss in it (MSPastry §4.1). The members beyond the dead one
            // hear of it from its other neighbour; but its far end knows which node comes next.
            let others = tables.leaf_set.side(side.opposite()).copied();
            for peer in others.chain(*far_end).collect::<BTreeSet<Peer>>() {
                let is_end = [*far_end, *other_end].contains(&Some(peer));
                self.budget.tell(now, core, tables, peer, is_end);
            }
        } else if *was_full {
            // Its neighbours tell the others, and have said which node comes next. If not, the farthest on its side knows
            // (Pastry §2.5).
            let spare = std::mem::take(&mut self.spare);
            let next: Vec<Peer> = spare.into_iter().filter(|peer| tables.leaf_set.wants(peer.id)).collect();
            if next.is_empty()
                && let Some(end) = far_end
            {
                self.budget.tell(now, core, tables, *end, true);
            }
            return next;
        }
        Vec::new()
    }

    /// Compares this node's leaf set with that of a member. Returns the members that the sender, to which they are near as
    /// well, does not have: perhaps it found them dead.
    pub(crate) fn missing_in(
        &mut self,
        core: &Core,
        tables: &Tables,
        from: Peer,
        members: &[Peer],
        is_barred: impl Fn(&Peer) -> bool,
    ) -> Vec<Peer> {
        if !tables.leaf_set.contains(from.id) {
            return Vec::new();
        }
        let mut theirs = LeafSet::new(from.id, core.config.tables.leaf_set);
        for &member in members {
            theirs.insert(member);
        }
        // Near itself it knows all; how far is not told by its list's ends, which move where one is missing in between.
        // (A node that knows few knows all.)
        let (start, knows_all) = (from.id.key(), 2 * theirs.len() <= core.config.tables.leaf_set);
        let surely = theirs.len() / 4;
        let to_right = theirs.rights().nth(surely).map_or(0, |end| start.clockwise_to(end.id));
        let to_left = theirs.lefts().nth(surely).map_or(0, |end| end.id.key().clockwise_to(start));
        let is_near = |id: NodeId| {
            knows_all || start.clockwise_to(id) <= to_right || id.key().clockwise_to(start) <= to_left
        };
        let mut missing: Vec<Peer> = tables
            .leaf_set
            .iter()
            .filter(|peer| peer.id != from.id && !theirs.contains(peer.id))
            .filter(|peer| theirs.wants(peer.id) && is_near(peer.id))
            .copied()
            .collect();
        self.spare = next_without(tables, &missing, members, is_barred);
        missing.truncate(MAX_PROBES_PER_MESSAGE);
        missing
    }

    /// Bytes on the heap, without those of the budget.
    pub(crate) fn bytes(&self) -> usize {
        memory::list(&self.spare)
    }
}

/// The named nodes that would be members if the missing ones were not.
fn next_without(
    tables: &Tables,
    missing: &[Peer],
    named: &[Peer],
    is_barred: impl Fn(&Peer) -> bool,
) -> Vec<Peer> {
    if missing.is_empty() {
        return Vec::new();
    }
    let mut view = tables.leaf_set.clone();
    for peer in missing {
        view.remove(peer.id);
    }
    let strange = |peer: &&Peer| !tables.leaf_set.contains(peer.id) && !is_barred(peer);
    for &peer in named.iter().filter(strange) {
        view.insert(peer);
    }
    view.iter().filter(strange).take(MAX_SPARE).copied().collect()
}

/// The nodes that a ring neighbour names which stand between it and this node. It refuses a lease because of them, perhaps:
/// this node may have found them dead while it could reach no node. A dead node is not probed merely because another names
/// it; but if a neighbour refuses a lease because of it, it is.
pub(crate) fn between(
    core: &Core,
    tables: &Tables,
    refuser: NodeId,
    members: &[Peer],
    has_left: impl Fn(&Peer) -> bool,
) -> Vec<Peer> {
    let me = core.me.id.key();
    let to_right = |id: NodeId| me.clockwise_to(id);
    let to_left = |id: NodeId| id.key().clockwise_to(me);
    let is = |side: Option<&Peer>| side.is_some_and(|peer| peer.id == refuser);
    let (left, right) = (is(tables.leaf_set.left()), is(tables.leaf_set.right()));
    let is_between = |peer: &&Peer| {
        peer.id != core.me.id
            && !has_left(peer)
            && (right && to_right(peer.id) < to_right(refuser) || left && to_left(peer.id) < to_left(refuser))
    };
    let mut between: Vec<Peer> = members.iter().filter(is_between).copied().collect();
    between.sort_by_key(|peer| to_right(peer.id).min(to_left(peer.id)));
    between.truncate(MAX_BETWEEN);
    between
}

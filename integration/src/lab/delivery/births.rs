//! Births of logs, and whether they were owed: a log may begin anew, and lose something by it, only after a majority of a
//! configuration that counted was killed. Configurations are those that passed on the wire.

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;
use treecast_scribe::wire::Members;
use treecast_scribe::{Gap, GapReason, Position, TopicId};

use crate::cluster::ledger::{KnownBirth, Ledger};

/// The nodes that were killed, and the births for which they are the reason.
#[derive(Clone, Debug, Default)]
pub(super) struct Deaths {
    dead: BTreeMap<NodeId, Instant>,
    /// Births that had to lose something.
    owed: BTreeSet<(TopicId, u64)>,
    /// All births of logs that had another one before.
    again: BTreeSet<(TopicId, u64)>,
}

/// Counts of births of logs that had another one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BirthCounts {
    pub(super) all: u64,
    /// Nothing that was committed is missing from them.
    pub(super) complete: u64,
    /// A majority had been killed.
    pub(super) owed: u64,
    /// Neither complete nor owed.
    pub(super) forced: u64,
}

impl Deaths {
    /// A node is killed.
    pub(super) fn add(&mut self, node: NodeId, now: Instant) {
        self.dead.insert(node, now);
    }

    /// Looks at births that were not known before.
    pub(super) fn judge(&mut self, ledger: &mut Ledger) {
        for (topic, birth) in std::mem::take(&mut ledger.fresh) {
            let Some(before) = before(ledger, topic, birth) else { continue };
            self.again.insert((topic, birth));
            let Some(heard) = ledger.birth(topic, birth).map(|known| known.heard) else { continue };
            if before.counting().any(|members| self.has_lost(members, heard)) {
                self.owed.insert((topic, birth));
            }
        }
    }

    /// Whether a majority was killed by then.
    fn has_lost(&self, members: &Members, by: Instant) -> bool {
        let lives = |node: &NodeId| self.dead.get(node).is_none_or(|&died| died > by);
        let living = members.iter().filter(|member| lives(&member.peer.id)).count();
        living < members.len() / 2 + 1
    }

    /// Whether a majority of a configuration of the topic's log is dead, by what passed on the wire.
    pub(super) fn majority_is_dead(&self, ledger: &Ledger, topic: TopicId, now: Instant) -> bool {
        let newest = ledger.births(topic).max_by_key(|(_, known)| known.heard);
        newest.is_some_and(|(_, known)| known.counting().any(|members| self.has_lost(members, now)))
    }

    /// Whether a gap had to be: the log began anew, in between, for want of a majority.
    pub(super) fn owes(&self, ledger: &Ledger, topic: TopicId, gap: &Gap) -> bool {
        let until = gap.until.birth;
        let lineage = ledger.birth(topic, until).map(|known| known.lineage.ancestors()).unwrap_or_default();
        let mut all: Vec<u64> = lineage.iter().map(|ancestor| ancestor.birth).chain([until]).collect();
        let after = gap.after.filter(|_| gap.reason != GapReason::TooOld);
        if let Some(at) = after.and_then(|after| all.iter().position(|&birth| birth == after.birth)) {
            all.drain(..=at);
        }
        all.into_iter().any(|birth| self.owed.contains(&(topic, birth)))
    }

    /// Counts the births. One whose first entry was never seen is not complete.
    pub(super) fn counts(&self, ledger: &Ledger) -> BirthCounts {
        let mut counts = BirthCounts::default();
        for &(topic, birth) in &self.again {
            counts.all += 1;
            let is_complete = ledger.birth(topic, birth).and_then(|known| known.complete) == Some(true);
            // Without ancestors it has nothing of what was before.
            let follows =
                ledger.birth(topic, birth).is_some_and(|known| !known.lineage.ancestors().is_empty());
            let is_count = match (is_complete && follows, self.owed.contains(&(topic, birth))) {
                (true, _) => &mut counts.complete,
                (false, true) => &mut counts.owed,
                (false, false) => &mut counts.forced,
            };
            *is_count += 1;
        }
        counts
    }

    /// Births that were not owed, in words.
    pub(super) fn words(&self, ledger: &Ledger) -> Vec<String> {
        let unowed = self.again.difference(&self.owed).filter_map(|&(topic, birth)| {
            let known = ledger.birth(topic, birth)?;
            let is_complete = known.complete == Some(true) && !known.lineage.ancestors().is_empty();
            let slot = known.slot;
            let what = format!("{topic:?} began anew at {} in slot {slot}: {:?}", known.heard, known.lineage);
            (!is_complete).then_some(what)
        });
        unowed.collect()
    }
}

/// The birth that another one followed. One without ancestors followed the one that was heard of before it.
fn before(ledger: &Ledger, topic: TopicId, birth: u64) -> Option<&KnownBirth> {
    let known = ledger.birth(topic, birth)?;
    if let Some(ancestor) = known.lineage.ancestors().last() {
        return ledger.birth(topic, ancestor.birth);
    }
    let earlier =
        ledger.births(topic).filter(|(other, earlier)| *other != birth && earlier.heard <= known.heard);
    earlier.max_by_key(|(_, known)| known.heard).map(|(_, known)| known)
}

/// Whether a gap tells of a place.
pub(super) fn covers(gap: &Gap, topic: TopicId, at: Position, ledger: &Ledger) -> bool {
    let within = gap.after.is_none_or(|after| after.offset < at.offset) && at.offset < gap.until.offset;
    let until = gap.until.birth;
    match gap.reason {
        GapReason::TooOld => within && ledger.has(topic, until, at),
        // What the other birth did not take over is lost.
        GapReason::Unreplicated | GapReason::OtherLog => {
            let follows = || {
                ledger.birth(topic, at.birth).is_some_and(|known| known.lineage.taken_over(until).is_some())
            };
            within || at.birth != until && !ledger.has(topic, until, at) && !follows()
        }
    }
}

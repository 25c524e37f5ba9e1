//! Dead members: how long until a committed configuration has another one in their place, and until that one holds all.

use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;
use treecast_scribe::forest::Place;
use treecast_scribe::wire::{Configuration, Life, Members};
use treecast_scribe::{Topic, TopicId};

use super::counting::Times;
use crate::cluster::Cluster;
use crate::node::RingNode;

/// Dead members whose place is not taken yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Replacements {
    missing: Vec<Missing>,
    filling: Vec<Filling>,
    pub(super) named: Times,
    /// Of these, where the root lived.
    pub(super) replica_named: Times,
    pub(super) full_again: Times,
    copies: usize,
    /// Those that it took very long to replace, in words.
    late: Vec<String>,
}

/// A member that nobody has replaced for so long is told of in words.
const LATE: Duration = Duration::from_secs(15);
/// So many of them.
const WORDS: usize = 8;

/// A member that died.
#[derive(Clone, Copy, Debug)]
struct Missing {
    topic: TopicId,
    member: (NodeId, Life),
    died: Instant,
    was_root: bool,
}

/// A configuration that replaced one, and the end of the log that its members have to reach.
#[derive(Clone, Debug)]
struct Filling {
    topic: TopicId,
    members: Members,
    end: u64,
    died: Instant,
}

impl Replacements {
    pub(super) fn new(copies: usize) -> Replacements {
        Replacements { copies, ..Replacements::default() }
    }

    /// A node is about to die: notes the logs that count on it.
    pub(super) fn on_death<N: RingNode>(&mut self, cluster: &Cluster<N>, slot: usize) {
        let (node, now) = (cluster.id(slot), cluster.now());
        let Some(stack) = cluster.world.machine(slot) else { return };
        for place in stack.forest().places() {
            let Some(life) = place.life() else { continue };
            let is_named =
                |place: Place<'_>| place.configurations().iter().any(|known| known.names(node, life));
            let root = root(cluster, place.topic());
            if is_named(place) && root.is_none_or(is_named) {
                let was_root = place.is_root();
                self.missing.push(Missing {
                    topic: place.topic(),
                    member: (node, life),
                    died: now,
                    was_root,
                });
            }
        }
    }

    /// Looks whether others have taken their places.
    pub(super) fn look<N: RingNode>(&mut self, cluster: &Cluster<N>) {
        let Replacements { missing, filling, named, replica_named, full_again, copies, late } = self;
        let (now, enough) = (cluster.now(), (*copies).min(cluster.roster.len()));
        missing.retain(|dead| {
            let Some(root) = root(cluster, dead.topic) else { return true };
            let Some(committed) = committed(root) else { return true };
            let (node, life) = dead.member;
            if committed.names(node, life) || committed.members.len() < enough {
                return true;
            }
            named.add(now - dead.died);
            if !dead.was_root {
                replica_named.add(now - dead.died);
            }
            if now - dead.died > LATE && late.len() < WORDS {
                late.push(format!("it took {:?} to replace {}", now - dead.died, dead.words()));
            }
            let members = committed.members.clone();
            filling.push(Filling { topic: dead.topic, members, end: root.commit(), died: dead.died });
            false
        });
        filling.retain(|new| {
            let holds = |member: &treecast_scribe::wire::Member| {
                let slot = cluster.roster.slot_of(member.peer.id);
                let stack = slot.and_then(|slot| cluster.world.machine(slot));
                // One that died meanwhile is missed itself.
                stack.is_none_or(|stack| {
                    let place = stack.forest().place(new.topic);
                    place.is_none_or(|place| place.life() != Some(member.life) || place.matched() >= new.end)
                })
            };
            let is_full = new.members.iter().all(holds);
            if is_full {
                full_again.add(now - new.died);
            }
            !is_full
        });
    }

    /// Whether nobody is missed.
    pub(super) fn is_over(&self) -> bool {
        self.missing.is_empty() && self.filling.is_empty()
    }

    /// How many are missed, and how many places are not filled.
    pub(super) fn open(&self) -> (u64, u64) {
        (self.missing.len() as u64, self.filling.len() as u64)
    }

    /// Members that were replaced late, or not at all, in words.
    pub(super) fn words(&self) -> Vec<String> {
        let never =
            self.missing.iter().take(WORDS).map(|dead| format!("nobody has replaced {}", dead.words()));
        self.late.iter().cloned().chain(never).collect()
    }
}

impl Missing {
    fn words(&self) -> String {
        let (node, life) = self.member;
        format!("{node:?} (life {life}), dead since {}, in the log of {:?}", self.died, self.topic)
    }
}

/// The place of a topic's root, if it gives positions.
pub(super) fn root<N: RingNode>(cluster: &Cluster<N>, topic: TopicId) -> Option<Place<'_>> {
    let (_, slot) = cluster.roster.root_of(topic.key())?;
    cluster.world.machine(slot)?.forest().place(topic).filter(|place| place.is_serving())
}

/// The slot of a topic's root, by its own word.
pub(super) fn root_slot<N: RingNode>(cluster: &Cluster<N>, topic: &Topic) -> Option<usize> {
    let (_, slot) = cluster.roster.root_of(topic.id().key())?;
    let place = cluster.world.machine(slot)?.forest().place(topic.id())?;
    place.is_root().then_some(slot)
}

/// The last configuration that is committed, as the root knows.
fn committed(root: Place<'_>) -> Option<&Configuration> {
    root.configurations().iter().rfind(|known| known.at < root.commit())
}

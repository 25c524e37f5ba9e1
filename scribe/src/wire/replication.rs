//! The words of the replication: terms, configurations, and what roots and members tell each other of their logs.

use serde::{Deserialize, Serialize};
use treecast_overlay::id::NodeId;

use super::{Life, Lineage, Member, Members};

/// The term of a root. Ordered by number, then by the root's id, so no two roots have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term {
    /// Grows with every root.
    pub number: u64,
    /// The root.
    pub root: NodeId,
}

impl Term {
    /// Before all terms.
    pub const ZERO: Term = Term { number: 0, root: NodeId(0) };

    /// The next term, of this root.
    #[must_use]
    pub fn next(self, root: NodeId) -> Term {
        Term { number: self.number + 1, root }
    }
}

/// Members, and the offset of the entry that names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Configuration {
    /// Offset of the entry.
    pub at: u64,
    /// The members from there on.
    pub members: Members,
}

impl Configuration {
    /// Whether it names this life of a node.
    pub fn names(&self, node: NodeId, life: Life) -> bool {
        self.members.iter().any(|member| member.key() == (node, life))
    }

    /// Whether a majority of its members is such.
    pub fn has_majority(&self, is_such: impl Fn(&Member) -> bool) -> bool {
        self.members.iter().filter(|member| is_such(member)).count() >= self.majority()
    }

    /// How many members are a majority.
    pub fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }
}

/// A member's log as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CopyState {
    /// The member's life.
    pub life: Life,
    /// The term whose root last made this log a copy of its own.
    pub synced: Term,
    /// The birth of the log.
    pub birth: u64,
    /// The births before it.
    pub lineage: Lineage,
    /// Offset of the first entry that is kept.
    pub start: u64,
    /// Entries before this offset are committed, as far as the member knows.
    pub commit: u64,
    /// Offset of the entry to come.
    pub end: u64,
    /// The configurations from the last committed one on.
    pub configurations: Vec<Configuration>,
}

/// A root's word to a member: its log is to become a copy of the root's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sync {
    /// The root's term.
    pub term: Term,
    /// The life of the member.
    pub life: Life,
    /// How far the root's log reaches.
    pub upto: u64,
    /// How far it is committed.
    pub commit: u64,
    /// The configurations before `next`, from the last committed one on.
    pub configurations: Vec<Configuration>,
}

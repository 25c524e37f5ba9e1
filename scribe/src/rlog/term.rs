//! Terms of a root (ballots of Sequence Paxos). Known to roots and members only.

use serde::{Deserialize, Serialize};
use treecast_overlay::id::NodeId;

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

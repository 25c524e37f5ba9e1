//! The content of a log's entries: messages, and the configurations in which they are committed.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Peer;

use super::{Lineage, Signature};

/// Numbers the lives of one node as a member. A life ends with a restart and with the dropping of the copy, and never
/// comes back.
pub type Life = u64;

/// A node that holds a copy of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node.
    pub peer: Peer,
    /// Its life as a member.
    pub life: Life,
}

impl Member {
    /// The key by which members are told apart.
    pub fn key(&self) -> (NodeId, Life) {
        (self.peer.id, self.life)
    }
}

/// The members that hold a log, in no order.
pub type Members = Arc<[Member]>;

/// The content of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// A message; the payload is the tail.
    Message {
        /// The node that published it.
        publisher: NodeId,
        /// In which session.
        session: u64,
        /// Its number in the session.
        sequence: u64,
        /// The publisher's signature.
        signature: Signature,
    },
    /// The members from here on. The payload is the table of the sessions, as all entries before make it.
    Configuration {
        /// The members.
        members: Members,
        /// With it the log begins anew.
        birth: Option<Box<Birth>>,
        /// Another birth of the log, which was given up for this one: what only that one had is lost.
        replaces: Option<u64>,
    },
}

impl Body {
    /// The members, if this is a configuration.
    pub fn members(&self) -> Option<&Members> {
        match self {
            Body::Configuration { members, .. } => Some(members),
            Body::Message { .. } => None,
        }
    }
}

/// The beginning of a birth of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Birth {
    /// The births before it.
    pub lineage: Lineage,
    /// Nothing that was committed before is missing.
    pub complete: bool,
}

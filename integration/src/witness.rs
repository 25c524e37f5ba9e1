//! What the taps of a world see go by: evidence for the judges, kept until they have judged it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::time::Instant;
use treecast_scribe::message::MessageId;
use treecast_scribe::wire::Signature;
use treecast_scribe::{Position, TopicId};

/// One hop of a routed message, as it left a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Where the message goes.
    pub key: Key,
    /// Whose hop it is.
    pub from: NodeId,
    /// Where it leads.
    pub to: NodeId,
    /// The flag as it goes out: a hop came from a leaf set.
    pub by_leaf_set: bool,
}

/// A node answered for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Who.
    pub by: NodeId,
    /// For which key.
    pub key: Key,
    /// Whether it was the root of that key in its own eyes, when it answered. A node that goes on after a pause handles
    /// all that has waited at one instant: what it learns from a later frame says nothing of its answer to an earlier one.
    pub serves: bool,
}

/// A message as a node passed it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Who passed it on.
    pub by: NodeId,
    /// On which topic.
    pub topic: TopicId,
    /// Whose message it claims to be.
    pub id: MessageId,
    /// The signature that it carries.
    pub signature: Signature,
    /// What it says.
    pub payload: Bytes,
}

/// The signs of life that went between tree neighbours since somebody began to count.
#[derive(Clone, Debug, Default)]
pub struct Rest {
    /// Since when; `None`: nobody counts.
    pub since: Option<Instant>,
    /// By sender and receiver.
    pub beats: BTreeMap<(NodeId, NodeId), u64>,
}

/// Hears what is said.
pub type Listener = Box<dyn Fn(&str)>;

/// What was seen.
#[derive(Default)]
pub struct Witness {
    /// Hops since the last judgement.
    pub hops: Vec<Hop>,
    /// Answers at this very instant.
    pub decisions: Vec<Decision>,
    /// Messages since the last judgement.
    pub envelopes: Vec<Envelope>,
    /// Beats, while they are counted.
    pub rest: Rest,
    /// Log entries that went from node to node so far, repetitions included.
    pub payloads: u64,
    /// In which log a receipt says that a message is, by message and place: its root's own, as it said so.
    pub births: BTreeMap<(MessageId, Position), u64>,
    /// Starts of terms that were seen: which, and whether the log was handed over.
    pub terms: BTreeMap<(TopicId, Position), bool>,
    /// Why children were last offered other parents: `push-down` or `splice`, by topic and child.
    pub offers: BTreeMap<(TopicId, NodeId), &'static str>,
    /// Children that went to a parent that they were offered, by reason.
    pub moves: BTreeMap<&'static str, u64>,
    /// Who listens to what is said, line by line.
    pub listener: Option<Listener>,
}

/// One witness for all taps of a world. A world is one thread.
pub type Shared = Rc<RefCell<Witness>>;

impl Witness {
    /// Forgets what has been judged.
    pub fn forget_judged(&mut self) {
        self.hops.clear();
        self.envelopes.clear();
    }

    /// Begins to count beats.
    pub fn begin_rest(&mut self, now: Instant) {
        self.rest = Rest { since: Some(now), beats: BTreeMap::new() };
    }

    /// Says something, if somebody listens.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        if let Some(listener) = &self.listener {
            listener(&line());
        }
    }
}

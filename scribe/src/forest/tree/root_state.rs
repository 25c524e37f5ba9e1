//! A root's state: its term, the sessions of its publishers, receipts that wait, and the choice of members.

use std::collections::BTreeSet;

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;

use super::preparation::Preparation;
use super::receipts::Receipts;
use super::sequencer::Sequencer;
use super::team::Team;
use crate::log::primary::Primary;
use crate::wire::{CopyState, Term};

/// The state of a root beside its part of the log.
#[derive(Debug)]
pub(crate) struct RootState {
    pub primary: Primary,
    pub preparation: Preparation,
    pub sequencer: Sequencer,
    pub receipts: Receipts,
    pub team: Team,
    /// Its leases have ended: another node may have been the root since.
    pub lapsed: bool,
    /// When it was last of use.
    pub used: Instant,
    /// Since when it serves.
    pub serves_since: Option<Instant>,
    /// Births of the log that this root has heard of from members of theirs, and has weighed against its own.
    pub weighed: BTreeSet<u64>,
    /// Members of such a birth, whose promises are waited for.
    pub awaited: BTreeSet<NodeId>,
    /// A birth of the log that was given up for this one: readers are to hear of it.
    pub replaces: Option<u64>,
    /// It served in its last term, and nobody has served since: what is committed it has.
    pub has_served: bool,
    /// Nobody uses the topic: its members were told to forget it.
    pub is_dropping: bool,
}

impl RootState {
    /// Begins a term.
    pub(crate) fn new(now: Instant, me: NodeId, term: Term, own: Option<CopyState>) -> RootState {
        RootState {
            primary: Primary::prepare(me, term, own),
            preparation: Preparation::new(now),
            sequencer: Sequencer::default(),
            receipts: Receipts::default(),
            team: Team::default(),
            lapsed: false,
            used: now,
            serves_since: None,
            weighed: BTreeSet::new(),
            awaited: BTreeSet::new(),
            replaces: None,
            has_served: false,
            is_dropping: false,
        }
    }
}

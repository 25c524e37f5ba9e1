//! What upkeep costs: every frame that does not carry a lookup over a hop for the first time.

use std::collections::BTreeMap;

use crate::lab::living::Living;
use crate::lab::passages::Load;

/// What was sent so far, by kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    kinds: BTreeMap<&'static str, Load>,
    first: Load,
}

/// What was sent in a while: control by kind of frame, and lookups.
#[derive(Clone, Debug, Default)]
pub(super) struct Control {
    /// By kind of frame; of lookups only those that repeat a hop.
    pub(super) kinds: BTreeMap<&'static str, Load>,
    /// All of these.
    pub(super) all: Load,
    /// Frames that carried lookups for the first time.
    pub(super) lookups: Load,
}

impl Sent {
    /// What all nodes have sent by now.
    pub(super) fn by_now(living: &Living) -> Sent {
        let load = |sent, bytes| Load { frames: sent, bytes };
        let counters = living.ring.world.counters();
        let kinds = counters.by_kind().map(|(kind, tally)| (kind, load(tally.sent, tally.bytes)));
        Sent { kinds: kinds.collect(), first: living.first() }
    }

    /// What was sent since `before`.
    pub(super) fn since(&self, before: &Sent) -> Control {
        let lookups = minus(self.first, before.first);
        let mut control = Control { lookups, ..Control::default() };
        for (&kind, &now) in &self.kinds {
            let mut sent = minus(now, before.kinds.get(kind).copied().unwrap_or_default());
            if kind == "routed/lookup" {
                sent = minus(sent, lookups);
            }
            control.all.frames += sent.frames;
            control.all.bytes += sent.bytes;
            if sent.frames > 0 {
                control.kinds.insert(kind, sent);
            }
        }
        control
    }
}

fn minus(a: Load, b: Load) -> Load {
    Load { frames: a.frames - b.frames, bytes: a.bytes - b.bytes }
}

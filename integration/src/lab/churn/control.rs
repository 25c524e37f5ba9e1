//! The cost of upkeep: every frame that does not carry a lookup over a hop for the first time.

use std::collections::BTreeMap;

use crate::cluster::Cluster;
use crate::cluster::passages::Traffic;
use crate::node::RingNode;

/// Frames sent so far, by kind.
#[derive(Clone, Debug, Default)]
pub(super) struct SentSoFar {
    kinds: BTreeMap<&'static str, Traffic>,
    /// By kind: frames that did not arrive.
    unheard: BTreeMap<&'static str, u64>,
    probes: BTreeMap<&'static str, u64>,
    first: Traffic,
}

/// Frames sent in a while: control by kind of frame, and lookups.
#[derive(Clone, Debug, Default)]
pub(super) struct Control {
    /// By kind of frame; of lookups only those that repeat a hop.
    pub(super) kinds: BTreeMap<&'static str, Traffic>,
    /// By kind: frames that did not arrive, because their receiver was dead or the dice said so.
    pub(super) unheard: BTreeMap<&'static str, u64>,
    /// By purpose: frames of probes and their answers.
    pub(super) probes: BTreeMap<&'static str, u64>,
    /// All of these.
    pub(super) all: Traffic,
    /// Frames that carried lookups for the first time.
    pub(super) lookups: Traffic,
}

impl SentSoFar {
    /// Counts all that nodes have sent by now.
    pub(super) fn by_now<N: RingNode>(cluster: &Cluster<N>) -> SentSoFar {
        let load = |sent, bytes| Traffic { frames: sent, bytes };
        let (counters, passages) = (cluster.world.counters(), cluster.passages.borrow());
        let kinds = counters.by_kind().map(|(kind, tally)| (kind, load(tally.sent, tally.bytes)));
        let unheard = counters.by_kind().map(|(kind, tally)| (kind, tally.lost));
        SentSoFar {
            kinds: kinds.collect(),
            unheard: unheard.collect(),
            probes: passages.probes.clone(),
            first: passages.first,
        }
    }

    /// Returns the frames sent since `before`.
    pub(super) fn since(&self, before: &SentSoFar) -> Control {
        let lookups = minus(self.first, before.first);
        let mut control = Control {
            lookups,
            unheard: counts(&self.unheard, &before.unheard),
            probes: counts(&self.probes, &before.probes),
            ..Control::default()
        };
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

impl Control {
    /// Adds the frames of another world.
    pub(super) fn add(&mut self, other: Control) {
        for (kind, load) in other.kinds {
            let sum = self.kinds.entry(kind).or_default();
            *sum = plus(*sum, load);
        }
        self.all = plus(self.all, other.all);
        self.lookups = plus(self.lookups, other.lookups);
        other.unheard.into_iter().for_each(|(kind, count)| *self.unheard.entry(kind).or_default() += count);
        other.probes.into_iter().for_each(|(name, count)| *self.probes.entry(name).or_default() += count);
    }
}

fn plus(a: Traffic, b: Traffic) -> Traffic {
    Traffic { frames: a.frames + b.frames, bytes: a.bytes + b.bytes }
}

fn counts(
    now: &BTreeMap<&'static str, u64>,
    before: &BTreeMap<&'static str, u64>,
) -> BTreeMap<&'static str, u64> {
    now.iter().map(|(&name, &count)| (name, count - before.get(name).unwrap_or(&0))).collect()
}

fn minus(a: Traffic, b: Traffic) -> Traffic {
    Traffic { frames: a.frames - b.frames, bytes: a.bytes - b.bytes }
}

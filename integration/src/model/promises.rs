//! Promises that are asked of every state.

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::id::NodeId;
use treecast_overlay::wire::Frame;

use super::net::{Net, Step};
use super::setting::is_ready;
use super::{Bounds, QUARTER};
use crate::check::{self, Clocked, FanOut, Promise, Scene, Seen, Verdict};
use crate::cluster::history::History;
use crate::cluster::lookups::Lookups;
use crate::cluster::watch::Watch;
use crate::cluster::witness::Witness;
use crate::node::RingNode;

fn clocked(net: &Net) -> impl Iterator<Item = Clocked<'_>> {
    net.nodes().map(|(_, node)| (net.now(), node as &dyn RingNode))
}

/// O1, by the laboratory's own judge: of every key on a border between two nodes.
pub(super) fn o1(net: &Net) -> Verdict {
    let seen = |(slot, (clock, node))| Seen { slot, runs: true, clock, node, forest: None };
    check::o1::judge(&Scene {
        now: net.now(),
        nodes: clocked(net).enumerate().map(seen).collect(),
        keys: &[],
        // Nobody is excused: of a full leaf set in so small a ring never more than half fails.
        watch: &Watch::new(32),
        lookups: &Lookups::default(),
        witness: &Witness::default(),
        history: &History::default(),
        limits: &BTreeMap::new(),
        calm: None,
        beat: QUARTER,
        fan_out: FanOut::default(),
    })
}

/// O3, as far as it is a safety property: of two nodes that answer and follow each other on the ring, one at least has
/// the other in its leaf set. So the nodes that answer are one cycle by what they know, and never two. Both cannot be asked
/// for: a node that has just entered is known to its neighbours by its slot only. And between two may stand a third that
/// does not answer at this instant, if one of the nodes that answer knows it: it has just met a new neighbour, whose lease is
/// still to come, or it has crashed, and a lease with it may run.
///
/// (That everybody is on the ring and knows its neighbours is what the ring comes to, not what always holds: the
/// laboratory's judge of O3 looks at it once faults end.)
pub(super) fn o3(net: &Net) -> Verdict {
    let serving = check::o1::serving(clocked(net));
    let answers: BTreeMap<NodeId, &dyn RingNode> =
        serving.iter().map(|(_, node)| (node.peer().id, *node)).collect();
    let known = |id: &NodeId| serving.iter().any(|(_, node)| node.knows(*id));
    let ready = net.nodes().filter(|(_, node)| is_ready(node)).map(|(slot, _)| slot);
    let others = ready.chain(net.just_crashed()).map(|slot| net.id(slot)).filter(known);
    let ring: BTreeSet<NodeId> = others.chain(answers.keys().copied()).collect();
    let next = ring.iter().cycle().skip(1);
    for (a, b) in ring.iter().zip(next) {
        let (Some(left), Some(right)) = (answers.get(a), answers.get(b)) else { continue };
        if a != b && !left.knows(*b) && !right.knows(*a) {
            let what = format!("{a:?} and {b:?} answer side by side, and neither knows the other");
            return Err(Promise::O3.broken(what));
        }
    }
    Ok(())
}

/// Whether all nodes, joiners included, are on the ring.
pub(super) fn all_ready(net: &Net, bounds: &Bounds) -> bool {
    net.nodes().filter(|(_, node)| is_ready(node)).count() == bounds.ring + bounds.joiners
}

/// Whether a frame is on its way that carries a grant besides.
pub(super) fn grant_rides(net: &Net) -> bool {
    let grants = |frame: &Frame| frame.piggyback.as_ref().is_some_and(|words| words.grant.is_some());
    net.flying().iter().any(|flying| grants(&flying.frame))
}

/// Whether all that live stand in one whole ring, nobody failed to start, and nobody will crash any more.
pub(super) fn whole(net: &Net, bounds: &Bounds) -> bool {
    let ready = net.nodes().filter(|(_, node)| is_ready(node)).count();
    ready + usize::from(bounds.crashes) == bounds.ring + bounds.joiners
        && net.is_past_crashes()
        && check::o3::one_ring(clocked(net)).is_ok()
}

/// A way in words, its end with what is wrong there.
pub(super) fn tell(path: Vec<(Net, Option<Step>)>) -> Vec<String> {
    let mut lines = Vec::new();
    for (net, step) in &path {
        if let Some(step) = step {
            lines.push(net.tell(step));
        }
    }
    if let Some((net, _)) = path.last() {
        lines.push(net.standings());
        lines.extend([o1(net), o3(net)].into_iter().filter_map(|verdict| Some(verdict.err()?.to_string())));
    }
    lines
}

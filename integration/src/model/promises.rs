//! What is asked of every state.

use std::collections::BTreeMap;

use treecast_overlay::machine::Machine;
use treecast_overlay::pastry::Node;

use super::net::{Net, Step};
use super::setting::is_ready;
use super::{Bounds, QUARTER};
use crate::check::{self, Promise, Scene, Seen, Verdict};
use crate::history::History;
use crate::watch::Watch;
use crate::witness::Witness;

/// O1, by the laboratory's own judge: of every key on a border between two nodes.
pub(super) fn o1(net: &Net) -> Verdict {
    let seen = |(slot, node)| Seen { slot, runs: true, node, stack: None };
    check::o1::judge(&Scene {
        now: net.now(),
        nodes: net.nodes().map(seen).collect(),
        keys: &[],
        // Nobody is excused: of a full leaf set in so small a ring never more than half fails.
        watch: &Watch::new(32),
        witness: &Witness::default(),
        history: &History::default(),
        limits: &BTreeMap::new(),
        calm: None,
        beat: QUARTER,
    })
}

/// O3, as far as it holds at every instant: of two nodes that answer and follow each other on the ring, one at least has
/// the other in its leaf set; so those who answer are one cycle by what they know, never two. A node that has just
/// entered is known to its neighbours by its slot only, so both cannot be asked for. Between two that both stood next to a
/// node that crashed, it still stands until no lease with it can run.
///
/// (That nobody else stands between them, and all know each other, is what the ring comes to; the laboratory's judge of
/// O3 looks at that once faults end.)
pub(super) fn o3(net: &Net) -> Verdict {
    let serving = check::o1::serving(net.now(), net.nodes().map(|(_, node)| node));
    let mut ring: Vec<(_, Option<&Node>)> =
        serving.iter().map(|node| (node.peer().id, Some(*node))).collect();
    ring.extend(net.just_crashed().map(|slot| (net.id(slot), None)));
    ring.sort_by_key(|&(id, _)| id);
    let next = ring.iter().cycle().skip(1);
    for ((a, left), (b, right)) in ring.iter().zip(next) {
        let (Some(left), Some(right)) = (left, right) else { continue };
        if a != b && !left.leaf_set().contains(*b) && !right.leaf_set().contains(*a) {
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

/// Whether all that live stand in one whole ring, nobody failed to start, and nobody will crash any more.
pub(super) fn whole(net: &Net, bounds: &Bounds) -> bool {
    let ready = net.nodes().filter(|(_, node)| is_ready(node)).count();
    ready + usize::from(bounds.crashes) == bounds.ring + bounds.joiners
        && net.is_past_crashes()
        && check::o3::one_ring(net.now(), net.nodes().map(|(_, node)| node)).is_ok()
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

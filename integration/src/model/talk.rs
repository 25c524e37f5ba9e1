//! Small talk goes on all the time between neighbours, or comes too late to matter: it takes no time,
//! unless the bounds say otherwise.

use treecast_overlay::machine::Machine;
use treecast_overlay::wire::Header;

use super::Bounds;
use super::image::Image;
use super::net::{Flying, Net};
use super::setting::{self, is_ready};

impl Net {
    /// Whether a frame is small talk: an acknowledgement of a hop; a probe or a renewal of a lease between members of
    /// each other's leaf sets that names nobody; or a word of the join or of repair that finds all done already. (A word
    /// that would be answered otherwise at another moment of this quarter, as `JoinRequest` is, is none.)
    pub(super) fn is_small_talk(&self, bounds: &Bounds, flying: &Flying) -> bool {
        let Flying { from, to, ref frame, copy, .. } = *flying;
        let knows = |one, other| {
            self.node(one).is_some_and(|node| is_ready(node) && node.leaf_set().contains(self.id(other)))
        };
        let both_know = || knows(from, to) && knows(to, from);
        #[expect(clippy::wildcard_enum_match_arm, reason = "most words are worth waiting for")]
        match &frame.header {
            _ if copy => false,
            Header::HopAck { .. } => true,
            Header::Probe(probe) if !probe.leaf_set && both_know() => true,
            Header::ProbeAck(ack) if ack.leaf_set.is_none() && both_know() => true,
            Header::Probe(_)
            | Header::ProbeAck(_)
            | Header::JoinCommit { .. }
            | Header::JoinCommitted { .. }
            | Header::LeafSet { .. } => self.changes_nothing(bounds, flying),
            _ => false,
        }
    }

    /// Whether the receiver is the same before and after.
    fn changes_nothing(&self, bounds: &Bounds, flying: &Flying) -> bool {
        let Some(being) = self.being(flying.to) else { return false };
        let mut node = being.node.fork();
        node.handle_frame(self.now(), setting::peer(bounds, flying.from), flying.frame.clone());
        let is_idle = node.poll_timeout().is_none_or(|at| at > self.now());
        is_idle && Image::of_node(self.now(), &node) == being.image
    }
}

//! Connections for which the transport holds more than it should, and the children that wait for them. All wait while it holds
//! more than it should for this node itself: then a question that was not answered may have been, and whatever this node sends
//! comes back as more to handle.

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use crate::topic::TopicId;

/// Children that wait, each of a topic.
pub(super) type WaitingChildren = BTreeSet<(TopicId, NodeId)>;

/// Children to which nothing is pushed while their connection is full.
#[derive(Debug, Default)]
pub(super) struct Links {
    congested: BTreeSet<NodeId>,
    waiting: BTreeMap<NodeId, WaitingChildren>,
    /// Much has come here and is not handled yet.
    behind: bool,
    /// When a node was last found dead.
    lost: Option<Instant>,
}

impl Links {
    /// Returns whether nothing is to be pushed to a child now, because its link is full; then it waits for room there.
    pub(super) fn hold_back(&mut self, to: Contact, topic: TopicId) -> bool {
        let link = link(to);
        let full = self.behind || self.congested.contains(&link);
        if full {
            self.waiting.entry(link).or_default().insert((topic, to.id()));
        }
        full
    }

    /// Lets a child that is gone wait no more.
    pub(super) fn forget(&mut self, child: Contact, topic: TopicId) {
        let link = link(child);
        if let Some(waiting) = self.waiting.get_mut(&link) {
            waiting.remove(&(topic, child.id()));
            if waiting.is_empty() {
                self.waiting.remove(&link);
            }
        }
    }

    /// Hears how many bytes wait for a peer. Returns the children to which may be pushed again.
    pub(super) fn on_queued(&mut self, peer: NodeId, bytes: usize, high_water: usize) -> WaitingChildren {
        if bytes > high_water {
            self.congested.insert(peer);
            return WaitingChildren::new();
        }
        self.on_down(peer)
    }

    /// Whether so much waits here that nothing is to be sent again.
    pub(super) fn is_behind(&self) -> bool {
        self.behind
    }

    /// Hears whether this node is behind. Returns the children to which may be pushed again.
    pub(super) fn set_behind(&mut self, behind: bool) -> WaitingChildren {
        self.behind = behind;
        let is_free = |link: &NodeId| !behind && !self.congested.contains(link);
        let free: Vec<NodeId> = self.waiting.keys().copied().filter(is_free).collect();
        free.into_iter().filter_map(|link| self.waiting.remove(&link)).flatten().collect()
    }

    /// A node was found dead, or left.
    pub(super) fn note_lost(&mut self, now: Instant) {
        self.lost = Some(now);
    }

    /// Whether a node was found dead since then: there may be others, and others may live where this node does not reach.
    pub(super) fn lost_since(&self, since: Instant) -> bool {
        self.lost.is_some_and(|lost| lost >= since)
    }

    /// Forgets the state of a connection. Returns the children to which may be pushed again.
    pub(super) fn on_down(&mut self, peer: NodeId) -> WaitingChildren {
        if self.congested.remove(&peer) {
            self.waiting.remove(&peer).unwrap_or_default()
        } else {
            WaitingChildren::new()
        }
    }
}

/// The connection over which a node is reached: its own, or its access node's.
fn link(contact: Contact) -> NodeId {
    contact.via.map_or(contact.id(), |via| via.id)
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::Key;
    use treecast_overlay::peer::{Addr, Peer};

    use super::*;

    fn peer(id: u128) -> Peer {
        Peer { id: NodeId(id), incarnation: 1, addr: Addr::Unreachable }
    }

    #[test]
    fn children_wait_for_the_link_that_leads_to_them() {
        let topic = TopicId(Key(1));
        let access = Contact::from(peer(5));
        let edge = Contact { peer: peer(6), via: Some(peer(5)) };
        let mut links = Links::default();
        assert!(!links.hold_back(edge, topic));
        assert!(links.on_queued(NodeId(5), 101, 100).is_empty());
        assert!(links.hold_back(edge, topic) && links.hold_back(access, topic));
        links.forget(access, topic);
        assert_eq!(links.on_queued(NodeId(5), 100, 100), WaitingChildren::from([(topic, NodeId(6))]));
        assert!(!links.hold_back(edge, topic));
    }
    #[test]
    fn all_children_wait_while_this_node_is_behind() {
        let topic = TopicId(Key(1));
        let mut links = Links::default();
        links.on_queued(NodeId(5), 101, 100);
        assert!(links.set_behind(true).is_empty());
        assert!(links.hold_back(peer(5).into(), topic) && links.hold_back(peer(7).into(), topic));
        assert_eq!(
            links.set_behind(false),
            WaitingChildren::from([(topic, NodeId(7))]),
            "the other's link is full"
        );
        assert!(!links.hold_back(peer(7).into(), topic));
        assert_eq!(links.on_queued(NodeId(5), 0, 100), WaitingChildren::from([(topic, NodeId(5))]));
    }
}

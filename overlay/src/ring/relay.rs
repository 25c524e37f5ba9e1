//! The rules of relaying: how others reach this node, what it passes on for others, and what it takes from those that pass on. An
//! edge may speak by way of its access node, and be reached so. A ring node may speak by way of one that the receiver has named,
//! because the direct way may be broken. No node may speak in another's name to a third (security, `docs/guarantees.md`).

use bytes::Bytes;

use super::core::{Core, passed_on};
use super::edge::{Access, Edges};
use super::failure::FailureDetector;
use super::tables::Tables;
use crate::geometry::Geometry;
use crate::id::NodeId;
use crate::peer::{Addresses, Contact, Peer};
use crate::table::LeafSet;
use crate::wire::{self, Direct, Frame, Header};

/// The way of a direct message from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is for this node.
    Here,
    /// To the node itself.
    Straight(Peer),
    /// To a node that passes it on, or to an edge of this node.
    Through(Peer),
    /// To a ring node, in its sender's name: around a broken link.
    Around(Peer),
    /// Nowhere: the message is dropped. Direct messages are best effort.
    Dropped,
}

/// What a node goes by when it relays.
pub(crate) struct Relaying<'a, G> {
    pub(crate) core: &'a Core,
    pub(crate) tables: &'a Tables,
    pub(crate) geometry: &'a G,
    pub(crate) detector: &'a FailureDetector,
    pub(crate) access: &'a Access,
    pub(crate) edges: &'a Edges,
    /// The nodes next to this one; a joiner's view while it has no place yet.
    pub(crate) around: &'a LeafSet,
}

impl<G: Geometry> Relaying<'_, G> {
    fn member(&self, id: NodeId) -> Option<Peer> {
        self.tables.member(self.geometry, id)
    }

    /// How others reach this node.
    pub(crate) fn contact(&self) -> Contact {
        let via = if self.core.is_edge() { self.access.primary() } else { None };
        Contact { peer: self.core.me, via }
    }

    /// How others reach this node another way: each number stands for one of the ways that there are.
    pub(crate) fn reply_contact(&self, nth: u64) -> Contact {
        let ways: Vec<Peer> = if self.core.is_edge() {
            self.access.in_use().into_iter().skip(1).collect()
        } else {
            let sound = |peer: &&Peer| !self.detector.is_suspect(peer.id);
            self.tables.leaf_set.iter().filter(sound).copied().collect()
        };
        let way = (!ways.is_empty()).then(|| ways[(nth % ways.len() as u64) as usize]);
        Contact { peer: self.core.me, via: way.or(self.contact().via) }
    }

    /// The way of this node's own message.
    pub(crate) fn way_to(&self, to: &Contact) -> Way {
        let me = self.core.me.id;
        if to.id() == me {
            return Way::Here;
        }
        if self.core.is_edge() {
            return self.access.primary().map_or(Way::Dropped, Way::Through);
        }
        to.via.filter(|via| via.id != me).map_or(Way::Straight(to.peer), Way::Through)
    }

    /// The way of another's message that came from `previous`. An edge of this node may send to any node; any node may send to
    /// an edge of this node.
    pub(crate) fn way_on(&self, previous: Peer, to: &Contact, from: &Contact) -> Way {
        let is_attached_there =
            from.via.is_some_and(|via| via.id == previous.id) && !self.knows_on_ring(from.peer);
        let sender_is_honest = from.id() == previous.id || is_attached_there;
        let me = self.core.me.id;
        if to.id() == me {
            // Through this edge's access node, which is trusted with what it passes on; else from the sender itself.
            let is_taken = sender_is_honest || self.access.contains(previous.id);
            return if is_taken { Way::Here } else { Way::Dropped };
        }
        if let Some(edge) = self.edges.peer(to.id()) {
            return if sender_is_honest { Way::Through(edge) } else { Way::Dropped };
        }
        if self.edges.contains(previous.id) && from.id() == previous.id {
            let next = to.via.unwrap_or(to.peer);
            return if next.id == me { Way::Dropped } else { Way::Through(next) };
        }
        // On the ring, and has named this node as a way around a broken link: a detour.
        let known = self.detour(previous, to.id(), from.peer);
        known.filter(|_| from.via.is_none()).map_or(Way::Dropped, Way::Around)
    }

    /// Whether this life of a node is on the ring, as this node knows itself: then it is attached to no node.
    fn knows_on_ring(&self, peer: Peer) -> bool {
        self.member(peer.id).is_some_and(|known| known.supersedes(&peer))
    }

    /// The node to which a frame goes on, as this node knows it: for its own sender only, to a node that is known, and not by
    /// yet another.
    pub(crate) fn detour(&self, previous: Peer, to: NodeId, from: Peer) -> Option<Peer> {
        if !self.core.is_ready() || to == self.core.me.id || from != previous {
            return None;
        }
        self.member(to).filter(|known| known.id != from.id)
    }

    /// The frame that `previous` passes on to this node, if it may.
    pub(crate) fn open(&self, previous: Peer, to: Peer, from: Peer, inner: Bytes) -> Option<Frame> {
        let me = self.core.me;
        // Of another life than the one that is known only its own connection can tell.
        let is_other_life = self.member(from.id).is_some_and(|known| known.incarnation != from.incarnation);
        let is_for_this_life = (to.id, to.incarnation) == (me.id, me.incarnation);
        if !self.around.contains(previous.id) || is_other_life || from.id == me.id || !is_for_this_life {
            return None;
        }
        let frame = wire::decode(inner, Addresses::named_to(me.addr)).ok();
        let frame = frame
            .filter(|frame| !matches!(frame.header, Header::Via { .. } | Header::Attach | Header::Detach));
        if frame.is_none() {
            tracing::debug!(node = %me.id, relay = %previous.id, "passes on what is no frame");
        }
        frame
    }
}

/// Sends a direct message this way. One that is for this node itself goes nowhere here.
pub(crate) fn send(
    core: &mut Core,
    way: Way,
    (to, from): (&Contact, &Contact),
    direct: Direct,
    payload: Bytes,
) {
    match way {
        Way::Here | Way::Dropped => {}
        Way::Straight(peer) => core.send_payload(peer, Header::Direct(direct), payload),
        Way::Through(relay) => {
            let header = Header::RelayedDirect { to: (*to).into(), from: (*from).into(), direct };
            core.send_payload(relay, header, payload);
        }
        Way::Around(known) => {
            let inner = Frame::new(Header::Direct(direct), payload);
            core.send_straight(known, passed_on(known, from.peer, inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Config, Role};
    use crate::geometry::full::FullMembership;
    use crate::peer::Addr;
    use crate::random;
    use crate::ring::core::Phase;
    use crate::ring::fixture::{at, core, peer, tables};

    /// Nodes 90 and 110 are next to node 100, and node 7 is an edge of it.
    struct Around {
        core: Core,
        tables: Tables,
        geometry: FullMembership,
        detector: FailureDetector,
        access: Access,
        edges: Edges,
    }

    impl Around {
        fn of(mut core: Core) -> Around {
            let tables = tables(&[90, 110]);
            let mut edges = Edges::default();
            if !core.is_edge() {
                edges.on_attach(at(0), &mut core, &tables, peer(7));
            }
            Around {
                core,
                tables,
                geometry: FullMembership::default(),
                detector: FailureDetector::default(),
                access: Access::default(),
                edges,
            }
        }

        fn rules(&self) -> Relaying<'_, FullMembership> {
            Relaying {
                core: &self.core,
                tables: &self.tables,
                geometry: &self.geometry,
                detector: &self.detector,
                access: &self.access,
                edges: &self.edges,
                around: &self.tables.leaf_set,
            }
        }
    }

    fn at_access(edge: u8, access: u8) -> Contact {
        Contact { peer: peer(edge), via: Some(peer(access)) }
    }

    #[test]
    fn an_edge_speaks_and_is_reached_by_way_of_its_access_node() {
        let around = Around::of(core());
        let (rules, edge, far) = (around.rules(), at_access(7, 100), Contact::from(peer(50)));
        assert_eq!(rules.way_to(&edge), Way::Straight(peer(7)), "this node is the access node");
        assert_eq!(rules.way_to(&at_access(8, 90)), Way::Through(peer(90)));
        assert_eq!(rules.way_on(peer(7), &far, &edge), Way::Through(peer(50)));
        assert_eq!(rules.way_on(peer(50), &edge, &far), Way::Through(peer(7)));
        assert_eq!(rules.way_on(peer(7), &at_access(8, 90), &edge), Way::Through(peer(90)));
    }

    #[test]
    fn an_edge_takes_the_word_of_its_access_node_and_is_silent_without_one() {
        let config = Config { role: Role::Edge { promote_after: None }, ..Config::default() };
        let mut core = Core::new(peer(100), Arc::new(config), random::stream(&[7; 32], "test"));
        core.phase = Phase::Ready;
        let mut around = Around::of(core);
        assert_eq!(around.rules().way_to(&peer(50).into()), Way::Dropped);
        around.access.ask(at(0), &mut around.core, peer(90));
        around.access.on_attached(at(1), &mut around.core, peer(90), true, Vec::new());
        let (rules, me) = (around.rules(), at_access(100, 90));
        assert_eq!(rules.contact(), me);
        assert_eq!(rules.way_to(&peer(50).into()), Way::Through(peer(90)));
        assert_eq!(rules.way_on(peer(90), &me, &peer(50).into()), Way::Here);
        assert_eq!(rules.way_on(peer(110), &me, &peer(50).into()), Way::Dropped);
    }

    #[test]
    fn nobody_speaks_in_anothers_name_to_a_third() {
        let around = Around::of(core());
        let (rules, edge, liar) = (around.rules(), at_access(7, 100), peer(50));
        let victim = Contact::from(peer(90));
        for to in [Contact::from(peer(100)), edge, Contact::from(peer(110))] {
            assert_eq!(rules.way_on(liar, &to, &victim), Way::Dropped, "{to:?}");
            assert_eq!(
                rules.way_on(liar, &to, &at_access(90, 50)),
                Way::Dropped,
                "90 is on the ring: {to:?}"
            );
        }
        assert_eq!(
            rules.way_on(peer(7), &victim, &at_access(8, 100)),
            Way::Dropped,
            "an edge for another one"
        );
        assert_eq!(rules.way_on(liar, &peer(100).into(), &at_access(8, 50)), Way::Here, "its own edge");
    }

    #[test]
    fn a_frame_goes_around_a_broken_link_for_its_sender_only_and_once() {
        let around = Around::of(core());
        let rules = around.rules();
        assert_eq!(rules.detour(peer(90), peer(110).id, peer(90)), Some(peer(110)));
        assert_eq!(rules.way_on(peer(90), &peer(110).into(), &peer(90).into()), Way::Around(peer(110)));
        assert_eq!(rules.detour(peer(50), peer(110).id, peer(90)), None, "in another's name");
        assert_eq!(rules.detour(peer(90), peer(60).id, peer(90)), None, "to a node that is not known");
        assert_eq!(rules.detour(peer(90), peer(90).id, peer(90)), None, "back");
        let newer = Peer { incarnation: 2, addr: Addr::Memory(9), ..peer(90) };
        let inner = |header: Header| wire::encode(&header.into()).head;
        let abort = || inner(Header::JoinAbort { number: 1 });
        let open = |previous, from, inner| rules.open(previous, peer(100), from, inner).is_some();
        assert!(open(peer(110), peer(90), abort()));
        assert!(!open(peer(50), peer(90), abort()), "by a node that is not next to this one");
        assert!(!open(peer(110), newer, abort()), "of another life");
        assert!(!open(peer(110), peer(100), abort()), "of this node's own");
        assert!(!open(peer(110), peer(90), inner(Header::Attach)), "what changes who speaks for whom");
        assert!(!open(peer(110), peer(90), Bytes::from_static(&[0xff; 40])), "no frame");
    }
}

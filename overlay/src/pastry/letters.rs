//! Letters: what one node tells another, directly or by way of an edge's access node; or of another one that the
//! receiver has named, since the direct way may be broken.

use bytes::Bytes;

use super::Node;
use crate::kbr::{Event, KeyBasedRouting};
use crate::peer::{Contact, Peer};
use crate::time::Instant;
use crate::wire::{Header, Letter};

impl Node {
    pub(super) fn send_payload(&mut self, now: Instant, to: &Contact, payload: Bytes) {
        self.send_letter(now, to, Letter::Payload, payload);
    }

    /// Sends a letter. To an edge it goes through its access node; from an edge too.
    pub(super) fn send_letter(&mut self, now: Instant, to: &Contact, letter: Letter, payload: Bytes) {
        let me = self.contact();
        if to.id() == self.me.id {
            return self.on_letter(now, me, letter, payload);
        }
        let relay =
            if self.is_edge() { self.access.primary() } else { to.via.filter(|via| via.id != self.me.id) };
        match relay {
            Some(relay) => self.transmit_frame(
                relay,
                Header::Relayed { to: (*to).into(), from: me.into(), letter },
                payload,
            ),
            // An edge without an access node reaches nobody; letters are best effort.
            None if self.is_edge() => {}
            None => self.transmit_frame(to.peer, Header::Letter(letter), payload),
        }
    }

    pub(super) fn on_direct_letter(&mut self, now: Instant, from: Peer, letter: Letter, payload: Bytes) {
        self.on_letter(now, from.into(), letter, payload);
    }

    /// A letter that passes through, or ends here. An edge of this node may send to anybody; anybody may send to an
    /// edge of this node; nobody may speak in another's name to a third.
    pub(super) fn on_relayed(
        &mut self,
        now: Instant,
        previous: Peer,
        to: Contact,
        from: Contact,
        letter: Letter,
        payload: Bytes,
    ) {
        let hangs_there = from.via.is_some_and(|via| via.id == previous.id) && !self.knows_on_ring(from.peer);
        let sender_is_honest = from.id() == previous.id || hangs_there;
        if to.id() == self.me.id {
            // Through this edge's access node, which is trusted with what it passes on; else from the sender itself.
            if sender_is_honest || self.access.contains(previous.id) {
                self.on_letter(now, from, letter, payload);
            }
        } else if let Some(edge) = self.edges.peer(to.id()) {
            if sender_is_honest {
                self.transmit_frame(
                    edge,
                    Header::Relayed { to: to.into(), from: from.into(), letter },
                    payload,
                );
            }
        } else if self.edges.contains(previous.id) && from.id() == previous.id {
            let next = to.via.unwrap_or(to.peer);
            if next.id != self.me.id {
                self.transmit_frame(
                    next,
                    Header::Relayed { to: to.into(), from: from.into(), letter },
                    payload,
                );
            }
        } else if let Some(known) = self.member(to.id()).filter(|known| known.id != from.id()) {
            // On the ring, and has named this node as a way around a broken link: a detour, by the same rules.
            if self.is_ready() && Contact::from(previous) == from {
                self.pass_letter_on(known, previous, letter, payload);
            }
        }
    }

    /// Whether this life of a node is on the ring, as this node knows itself: then it hangs on nobody.
    fn knows_on_ring(&self, peer: Peer) -> bool {
        let known = self.leaf_set.get(peer.id).or_else(|| self.table.get(peer.id));
        known.is_some_and(|known| known.supersedes(&peer))
    }

    fn on_letter(&mut self, now: Instant, from: Contact, letter: Letter, payload: Bytes) {
        match letter {
            Letter::Payload => self.events.push_back(Event::Received { from, payload }),
            Letter::Answer(answer) if self.lookups.contains(answer.id) => self.on_found(now, *answer),
            Letter::Answer(answer) => self.on_sought(now, *answer),
            Letter::Undeliverable { id, key, reason } => self.on_undeliverable(id, key, reason),
        }
    }
}

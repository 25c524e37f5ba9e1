//! Connections, as little of them as the cores can see: when they come up, which one it is, and when they are gone.
//! Each end keeps its own view, as real ends do: after a power failure the survivor's end is half open.

use treecast_overlay::id::NodeId;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    /// The slot at the other end.
    pub(super) slot: u32,
    /// The other end has answered; until then this one is dialling.
    pub(super) up: bool,
    /// Numbers grow over the whole world, and so for each pair.
    pub(super) generation: u64,
}

/// The meaning of an arriving frame to the receiver's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// It came over a connection that this end has.
    Known,
    /// It opens one.
    Opens,
    /// It belongs to a connection that this end never had, or has no more.
    Stray,
}

#[derive(Debug, Default)]
struct End {
    /// The identity that lives in this slot, in all of its lives.
    id: Option<NodeId>,
    /// The last generation before this life: connections up to it ended with an earlier process.
    before: u64,
    /// By slot.
    connections: Vec<Connection>,
}

/// All connections of the world: the only state that is kept per pair.
#[derive(Debug, Default)]
pub(super) struct Links {
    ends: Vec<End>,
    generations: u64,
}

impl Links {
    /// A life begins in a slot.
    pub(super) fn begin(&mut self, slot: usize, id: NodeId) {
        if slot == self.ends.len() {
            self.ends.push(End::default());
        }
        let end = &mut self.ends[slot];
        assert!(
            end.id.is_none_or(|known| known == id),
            "slot {slot} belongs to {:?}: another identity ({id:?}) needs a slot of its own",
            end.id
        );
        end.id = Some(id);
        end.before = self.generations;
    }

    /// A life ends: these are the connections that it had.
    pub(super) fn end(&mut self, slot: usize) -> Vec<Connection> {
        std::mem::take(&mut self.ends[slot].connections)
    }

    pub(super) fn id(&self, slot: usize) -> Option<NodeId> {
        self.ends.get(slot).and_then(|end| end.id)
    }

    /// The slot of the connected node with this id, for those that cannot be dialled.
    pub(super) fn connected_to(&self, slot: usize, id: NodeId) -> Option<u32> {
        self.ends[slot].connections.iter().map(|c| c.slot).find(|&other| self.id(other as usize) == Some(id))
    }

    /// This end's connection with another slot, if it has one or dials one.
    pub(super) fn between(&self, slot: usize, other: u32) -> Option<Connection> {
        self.find(slot, other).ok().map(|place| self.ends[slot].connections[place])
    }

    /// This end dials: there is no connection with `to` yet.
    pub(super) fn dial(&mut self, from: usize, to: u32) -> Connection {
        self.generations += 1;
        let dialled = Connection { slot: to, up: false, generation: self.generations };
        if let Err(place) = self.find(from, to) {
            self.ends[from].connections.insert(place, dialled);
        }
        dialled
    }

    /// Takes note of a frame that reached slot `to` over a connection of `from`.
    pub(super) fn incoming(&mut self, to: usize, from: u32, generation: u64, dials: bool) -> Incoming {
        let place = self.find(to, from);
        let end = &mut self.ends[to];
        if !dials {
            // Over a connection with this very process, or astray.
            let known = place.is_ok() && generation > end.before;
            return if known { Incoming::Known } else { Incoming::Stray };
        }
        let opened = Connection { slot: from, up: true, generation };
        match place {
            Err(place) => end.connections.insert(place, opened),
            // Both dialled at once, or the other end started again: the younger connection takes over.
            Ok(place) if end.connections[place].generation < generation => end.connections[place] = opened,
            Ok(_) => return Incoming::Known,
        }
        Incoming::Opens
    }

    /// Whether the other end's answer brings a connection up at this one.
    pub(super) fn accepted(&mut self, slot: usize, by: u32, generation: u64) -> bool {
        let Some(connection) = self.exact(slot, by, generation) else { return false };
        !std::mem::replace(&mut connection.up, true)
    }

    /// Takes out exactly this connection, if this end had or dialled it.
    pub(super) fn closed(&mut self, slot: usize, by: u32, generation: u64) -> Option<Connection> {
        let place = self.find(slot, by).ok()?;
        let connections = &mut self.ends[slot].connections;
        (connections[place].generation == generation).then(|| connections.remove(place))
    }

    /// Whether this end was dialling exactly this connection. It dials no more; one that is up stays.
    pub(super) fn refused(&mut self, slot: usize, by: u32, generation: u64) -> bool {
        match self.exact(slot, by, generation) {
            Some(connection) if !connection.up => self.closed(slot, by, generation).is_some(),
            Some(_) | None => false,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let connections: usize = self.ends.iter().map(|end| end.connections.capacity()).sum();
        self.ends.capacity() * size_of::<End>() + connections * size_of::<Connection>()
    }

    fn find(&self, slot: usize, other: u32) -> Result<usize, usize> {
        self.ends[slot].connections.binary_search_by_key(&other, |connection| connection.slot)
    }

    fn exact(&mut self, slot: usize, other: u32, generation: u64) -> Option<&mut Connection> {
        let place = self.find(slot, other).ok()?;
        Some(&mut self.ends[slot].connections[place]).filter(|c| c.generation == generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Links {
        let mut links = Links::default();
        links.begin(0, NodeId(10));
        links.begin(1, NodeId(11));
        links
    }

    #[test]
    fn simultaneous_dials_settle_on_the_younger() {
        let mut links = two();
        let (a, b) = (links.dial(0, 1), links.dial(1, 0));
        assert!(b.generation > a.generation && !a.up && !b.up);
        assert_eq!(links.incoming(1, 0, a.generation, true), Incoming::Known);
        assert_eq!(links.incoming(0, 1, b.generation, true), Incoming::Opens);
        assert!(links.accepted(1, 0, b.generation));
        assert!(!links.accepted(0, 1, a.generation));
        let generation = b.generation;
        assert_eq!(links.between(0, 1), Some(Connection { slot: 1, up: true, generation }));
        assert_eq!(links.between(1, 0), Some(Connection { slot: 0, up: true, generation }));
    }

    #[test]
    fn a_new_life_knows_nothing_of_old_connections() {
        let mut links = two();
        let old = links.dial(0, 1).generation;
        assert_eq!(links.incoming(1, 0, old, true), Incoming::Opens);
        assert!(links.accepted(0, 1, old));
        assert_eq!(links.end(1).len(), 1);
        links.begin(1, NodeId(11));
        let new = links.dial(1, 0).generation;
        assert_eq!(
            links.incoming(1, 0, old, false),
            Incoming::Stray,
            "the old connection ended with the old process"
        );
        assert_eq!(links.incoming(0, 1, new, true), Incoming::Opens);
        assert_eq!(links.closed(0, 1, old), None, "the new connection took its place");
        assert!(links.closed(0, 1, new).is_some());
    }

    #[test]
    #[should_panic(expected = "needs a slot of its own")]
    fn a_slot_belongs_to_one_identity() {
        two().begin(1, NodeId(12));
    }
}

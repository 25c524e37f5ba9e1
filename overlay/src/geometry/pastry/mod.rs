//! Pastry's own part of a ring: the routing table, the neighbourhood set, the routes by them, and the search for near nodes
//! (Rowstron & Druschel 2001, §2; Castro, Costa & Rowstron 2004, §4.2). While the ring is small, a list of all its nodes
//! stands beside them.
//!
//! Rows that no message goes by cost nothing: where a slot is narrower than the leaf set is wide, the leaf set routes, and no
//! probe is spent on the slot.

mod frames;
mod in_degree;
mod route_cost;
mod search;

use std::hash::{Hash, Hasher};
use std::time::Duration;

pub use self::frames::{Known, Near, PastryFrame};
use self::in_degree::InDegree;
use self::route_cost::RouteCost;
use self::search::Search;
use super::full::FullMembership;
use super::{Cx, Geometry, Greeting, TableHop, TableUse, Usable};
use crate::config::Config;
use crate::id::{BASE, Key, NodeId};
use crate::memory::Memory;
use crate::peer::{Addresses, Peer};
use crate::ring::{Core, FailureDetector, Node, Size};
use crate::table::{Entry, LeafSet, NeighbourhoodSet, RoutingTable};
use crate::time::Instant;
use crate::wire::GeometryFrame;

/// A node is crowded that stands in more than so many times as many tables as it has entries (guess). Measured: `lab routing
/// --nodes 10000 --seed 1`: if no node is ever crowded, one node stands in 554 tables in place of 385; `lab routing --nodes 5000
/// --lookups 5000 --settle 120`: 424 in place of 320, with seed 2 506 in place of 373. Stretch is the same. Its price: `lab churn
/// --profile mspastry --nodes 2000 --lookups 20000 --warm 300` sends 0.329 messages/s/node in place of 0.319.
const CROWDED: usize = 2;

/// Pastry's tables and the decisions about them.
#[derive(Clone, Debug)]
pub struct Pastry {
    places: Places,
    search: Search,
    members: FullMembership,
}

/// For a model checker: measured times and rounds of the search decide nothing there.
impl Hash for Pastry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.members.hash(state);
        self.places.table.iter().for_each(|peer| peer.hash(state));
    }
}

/// The tables, and what routes by them are expected to take.
#[derive(Clone, Debug)]
struct Places {
    me: NodeId,
    table: RoutingTable,
    neighbourhood: NeighbourhoodSet,
    cost: RouteCost,
    in_degree: InDegree,
}

impl Places {
    fn rows_in_use(&self) -> usize {
        self.cost.rows_in_use(&self.table)
    }

    /// Whether messages go by the row in which a node would stand: for others no probe is spent.
    fn is_worth_a_place(&self, id: NodeId) -> bool {
        self.me.key().shared_prefix(id) < self.rows_in_use()
    }

    /// The measured nodes that share at least so many digits with this one, nearest first.
    fn partners(&self, detector: &FailureDetector, digits: usize) -> Vec<(Peer, Duration)> {
        let measured = |entry: &Entry| Some((entry.peer, entry.rtt()?));
        let mut partners: Vec<(Peer, Duration)> =
            self.table.entries_from(digits).iter().filter_map(measured).collect();
        partners.retain(|(peer, _)| !detector.is_suspect(peer.id));
        partners.sort_by_key(|&(peer, rtt)| (rtt, peer.id));
        partners
    }

    fn known_in_row(&self, row: usize, receiver: NodeId) -> Vec<Known> {
        let others = self.table.row_entries(row).iter().filter(|entry| entry.peer.id != receiver);
        others.map(known).collect()
    }

    /// Whether this node stands in clearly more tables than an average one. All tables together have as many entries as
    /// there are places in tables, and this node's own is as large as others are.
    fn is_crowded(&self) -> bool {
        self.in_degree.count() > CROWDED * self.table.len()
    }

    fn tell(&self, core: &mut Core, to: Peer, rtt_micros: Option<u32>, known: Vec<Known>, row: Option<u8>) {
        let crowded = self.is_crowded();
        core.send(to, PastryFrame::Near(Near { rtt_micros, known, row, crowded }).encode());
    }
}

impl Pastry {
    /// The routing table.
    pub fn routing_table(&self) -> &RoutingTable {
        &self.places.table
    }

    #[cfg(test)]
    pub(crate) fn members(&self) -> &FullMembership {
        &self.members
    }

    #[cfg(test)]
    pub(crate) fn set_rtt(&mut self, id: NodeId, rtt: Duration) {
        self.places.table.set_rtt(id, rtt);
    }

    /// "In certain cases (…) forward to a node that shares a prefix at least as long, and is closer."
    fn rare_case(&self, key: Key, leaf_set: &LeafSet, usable: &Usable<'_>) -> Option<Peer> {
        let Places { me, table, neighbourhood, .. } = &self.places;
        let matched = key.shared_prefix(*me);
        let near = neighbourhood.iter().map(|entry| &entry.peer);
        let fits = |peer: &&Peer| {
            (usable.allowed)(peer) && (usable.closer)(peer) && key.shared_prefix(peer.id) >= matched
        };
        let known = table.iter().chain(leaf_set.iter()).chain(near).filter(fits);
        let best = known.max_by(|a, b| {
            let prefix = |peer: &Peer| key.shared_prefix(peer.id);
            prefix(a).cmp(&prefix(b)).then_with(|| key.closer(b.id, a.id))
        });
        best.copied()
    }
}

impl Node<Pastry> {
    /// The routing table.
    pub fn routing_table(&self) -> &RoutingTable {
        self.geometry().routing_table()
    }
}

impl Geometry for Pastry {
    type Frame = PastryFrame;

    fn new(me: NodeId, config: &Config) -> Pastry {
        let places = Places {
            me,
            table: RoutingTable::new(me, config.tables.candidates),
            neighbourhood: NeighbourhoodSet::new(me, config.tables.neighbourhood),
            cost: RouteCost::default(),
            in_degree: InDegree::default(),
        };
        Pastry { places, search: Search::default(), members: FullMembership::beside_tables() }
    }

    fn next_hop(&self, key: Key, leaf_set: &LeafSet, usable: &Usable<'_>) -> Option<TableHop> {
        // In a small ring every node knows every node: as if all of it were the leaf set.
        let sound =
            |peer: &Peer| (usable.allowed)(peer) && (usable.closer)(peer) && !(usable.is_suspect)(peer.id);
        if let Some(peer) = self.members.closest(key, sound) {
            return Some(TableHop::Closer(peer));
        }
        // "Forward to a node that shares a longer prefix with the key."
        let slot = || self.places.table.next_hops(key).iter().filter(|entry| (usable.allowed)(&entry.peer));
        let cost = |entry: &&Entry| self.places.cost.by_way_of(entry, key);
        let sound = slot().filter(|entry| !(usable.is_suspect)(entry.peer.id)).min_by_key(cost);
        let entry = sound.or_else(|| slot().min_by_key(cost)).map(|entry| entry.peer);
        entry.or_else(|| self.rare_case(key, leaf_set, usable)).map(TableHop::Along)
    }

    fn get(&self, id: NodeId) -> Option<&Peer> {
        self.places.table.get(id)
    }

    fn rtt(&self, id: NodeId) -> Option<Duration> {
        self.places.table.rtt(id)
    }

    fn entries(&self) -> impl Iterator<Item = &Peer> {
        self.places.table.iter()
    }

    fn known(&self) -> impl Iterator<Item = &Peer> {
        self.places.table.iter().chain(self.members.iter())
    }

    fn table_use(&self) -> TableUse {
        let hops = self.places.rows_in_use();
        TableUse { hops, nodes: (hops * BASE / 2).min(self.places.table.len()) }
    }

    /// Of each slot the node in use, the nearest. The others wait for their turn.
    fn in_use(&self) -> impl Iterator<Item = Peer> {
        (0..self.places.rows_in_use()).flat_map(|row| self.places.table.row(row)).copied()
    }

    fn wants(&self, id: NodeId) -> bool {
        self.places.is_worth_a_place(id) && self.places.table.next_hops(id.key()).is_empty()
    }

    /// Nodes that are near each other have the same near nodes in their routing tables.
    fn gossip_partners(&self, detector: &FailureDetector, most: usize) -> Vec<Peer> {
        self.places.partners(detector, 0).into_iter().take(most).map(|(peer, _)| peer).collect()
    }

    fn told_to(&self, leaf_set: &LeafSet, seeker: NodeId) -> Vec<Peer> {
        self.members.all_but(leaf_set, seeker)
    }

    fn on_met(&mut self, cx: &mut Cx<'_>, peer: Peer, told: Option<Duration>) -> bool {
        let Places { table, neighbourhood, .. } = &mut self.places;
        let measured = cx.detector.rtt(peer.id);
        let is_new = table.get(peer.id).is_none();
        // The sender's own figure counts until this node has measured it.
        let changed = table.insert(peer, measured.or(told));
        if let Some(rtt) = measured.filter(|_| is_new && changed) {
            neighbourhood.insert(peer, rtt);
            if told.is_none() && self.places.is_worth_a_place(peer.id) {
                self.search.note_gain();
                // Being near is mutual: it need not measure what this node knows.
                self.places.tell(cx.core, peer, Some(micros(rtt)), Vec::new(), None);
            }
        }
        self.members.note_met(cx, peer);
        changed
    }

    fn on_joined(&mut self, peer: Peer, rtt: Option<Duration>) {
        self.places.table.insert(peer, rtt);
    }

    fn on_measured(&mut self, peer: Peer, rtt: Duration, is_leaf: bool) {
        let Places { table, neighbourhood, .. } = &mut self.places;
        table.set_rtt(peer.id, rtt);
        if is_leaf || table.get(peer.id).is_some() {
            neighbourhood.insert(peer, rtt);
        }
    }

    fn on_dead(&mut self, id: NodeId) {
        self.places.table.remove(id);
        self.places.neighbourhood.remove(id);
        self.members.remove(id);
    }

    fn on_ready(&mut self, cx: &mut Cx<'_>) {
        self.members.begin_on_arrival(cx);
        self.search.begin(cx);
    }

    fn on_rings_met(&mut self, now: Instant) {
        self.search.restart(now);
    }

    fn on_named(&mut self, cx: &mut Cx<'_>, named: &[Peer]) {
        self.members.note_named(cx, named);
    }

    fn on_leaf_set(&mut self, cx: &mut Cx<'_>, from: Peer, members: &[Peer]) {
        self.members.take_arc(cx, from, members);
    }

    fn repair_period(&mut self, config: &Config, leaf_set: &LeafSet) -> Duration {
        self.members.next_period(config, leaf_set)
    }

    fn on_repair_round(&mut self, cx: &mut Cx<'_>) {
        self.members.begin_below(cx, cx.core.config.tables.full_membership / 2);
    }

    fn repair_partner(&mut self, cx: &mut Cx<'_>) -> Option<Peer> {
        let table = &self.places.table;
        let is_routed_by = |id| table.get(id).is_some();
        self.members.next_on_walk(cx.core.me.id, &cx.core.config, &cx.tables.leaf_set, is_routed_by)
    }

    fn to_measure(&mut self, cx: &mut Cx<'_>) -> Vec<Peer> {
        let Places { table, cost, .. } = &mut self.places;
        let rtt = |peer: &Peer| cx.detector.rtt(peer.id).or_else(|| table.rtt(peer.id));
        cost.renew(&cx.tables.leaf_set, cx.core.config.tables.leaf_set / 2, table, rtt);
        Search::unmeasured(&self.places)
    }

    fn on_timer(&mut self, cx: &mut Cx<'_>) {
        self.search.on_timer(cx, &self.places);
    }

    fn read(frame: &GeometryFrame, addresses: Addresses) -> Option<PastryFrame> {
        PastryFrame::decode(frame, addresses)
    }

    fn greeting(&mut self, now: Instant, from: Peer, frame: &PastryFrame) -> Greeting {
        match frame {
            PastryFrame::NearerRequest { rtt_micros } => {
                self.search.greeting(now, from, Some(*rtt_micros), false)
            }
            PastryFrame::Near(near) => self.search.greeting(now, from, near.rtt_micros, true),
        }
    }

    fn on_frame(&mut self, cx: &mut Cx<'_>, from: Peer, frame: PastryFrame) -> Vec<Peer> {
        match frame {
            PastryFrame::NearerRequest { rtt_micros } => {
                Search::on_nearer_request(cx, &self.places, from, rtt_micros);
                Vec::new()
            }
            PastryFrame::Near(near) => self.search.on_near(cx, &mut self.places, from, near),
        }
    }

    fn tidy(&mut self) {
        self.members.shrink();
    }

    fn memory(&self, parts: &mut Memory) {
        parts.add("routing table", self.places.table.bytes());
        parts.add("neighbourhood", self.places.neighbourhood.bytes());
        parts.add("proximity", self.search.bytes() + self.places.cost.bytes());
        parts.add("members", self.members.bytes());
    }

    fn sizes(&self, config: &Config) -> Vec<Size> {
        let Places { table, neighbourhood, .. } = &self.places;
        let slots = (0..table.rows()).flat_map(|row| (0..BASE).map(move |col| (row, col)));
        let candidates = slots.map(|(row, col)| table.slot(row, col).len()).max();
        vec![
            ("candidates of one slot", candidates.unwrap_or_default(), config.tables.candidates),
            ("neighbourhood set", neighbourhood.len(), config.tables.neighbourhood),
            self.members.size(config),
        ]
    }

    fn assert_invariants(&self, core: &Core) {
        let table = &self.places.table;
        assert!(table.get(core.me.id).is_none(), "a node is not in its own routing table");
        assert!(!core.is_edge() || table.is_empty(), "an edge is on no ring");
    }
}

fn known(entry: &Entry) -> Known {
    Known { peer: entry.peer, rtt_micros: entry.rtt_micros() }
}

fn micros(rtt: Duration) -> u32 {
    u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX)
}

fn duration(micros: u32) -> Duration {
    Duration::from_micros(u64::from(micros))
}

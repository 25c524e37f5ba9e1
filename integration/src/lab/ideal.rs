//! The best that could be reached: hops, stretch and trees over *ideal* tables, computed without a world. Ideal is that a
//! leaf set holds the nearest on the ring, and each slot of a routing table the one node with the smallest delay of all
//! that fit (Pastry §2.5: "perfect" proximity). Computed over the very [`Map`] and the very ids of a world, it is the
//! bound that stands beside what the protocol's own tables reach there.

use std::collections::BTreeMap;

use clap::Args;
use rand::RngExt;
use serde_json::json;
use treecast_overlay::id::{BASE, BITS_PER_DIGIT, Key, NodeId};
use treecast_overlay::random::{self, Rng};

use super::groups::{Groups, papers_sizes};
use super::lookups::Keys;
use super::stats::{Histogram, Samples};
use crate::report::{Figures, Report};
use crate::world::{Map, Topology};

/// Figures of ideal tables, computed without a world: lookups, and the Scribe paper's groups
#[derive(Args, Clone, Debug)]
pub struct IdealOptions {
    /// The network, as for the other experiments
    #[arg(long, value_name = "T", default_value = "transit-stub")]
    topology: Topology,
    /// Nodes on the ring
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    nodes: usize,
    /// Members of a leaf set
    #[arg(long, value_name = "L", default_value_t = 32)]
    leaf_set: usize,
    /// How many lookups
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    lookups: usize,
    /// Everything random follows from it
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
}

/// Computes the figures.
pub fn run(options: &IdealOptions) -> Report {
    let &IdealOptions { nodes, leaf_set, lookups, seed, .. } = options;
    let key = *blake3::hash(&seed.to_le_bytes()).as_bytes();
    let mut map = Map::new(&options.topology, &key);
    (0..nodes).for_each(|_| map.add());
    let mut dice = random::stream(&key, "ideal");
    let ideal = Ideal::new(&map, (0..nodes).map(|_| NodeId(dice.random())).collect::<Vec<_>>(), leaf_set);
    let [to_keys, to_nodes] = [Keys::Random, Keys::Nodes].map(|keys| ideal.lookups(lookups, keys, &mut dice));
    let slots: Vec<u32> = (0..nodes as u32).collect();
    let groups = Groups::new(&papers_sizes(nodes, None), &slots, &mut dice);
    let tree = |members: &Vec<usize>| ideal.tree(Key(dice.random()), members);
    let trees: Vec<Tree> = groups.members().iter().map(tree).collect();
    let mut children = vec![0.0_f32; nodes];
    trees.iter().flat_map(|tree| tree.parents.values()).for_each(|&parent| children[parent] += 1.0);
    let ratios =
        |ratio: fn(&Tree) -> f64| Samples::new(trees.iter().map(|tree| ratio(tree) as f32).collect());
    let (entries, rad, rmd) = (Samples::new(children), ratios(|tree| tree.rad), ratios(|tree| tree.rmd));
    let mut figures = Figures::of(&json!({ "experiment": "ideal" }));
    figures.show("hops_mean", "hops, mean", to_keys.hops.mean());
    figures.show("stretch_mean", "stretch, mean", to_keys.stretch.mean());
    figures.show("stretch_p50", "stretch, median", to_keys.stretch.median());
    figures.show("stretch_p99", "stretch, 99 %", to_keys.stretch.quantile(0.99));
    figures.show("hops_mean_nodes", "hops between nodes, mean", to_nodes.hops.mean());
    figures.show("stretch_mean_nodes", "stretch between nodes, mean", to_nodes.stretch.mean());
    figures.show("entries_mean", "entries, mean", entries.mean());
    figures.show("entries_median", "entries, median", entries.median());
    figures.show("entries_max", "entries, max", entries.max());
    figures.show("rad_median", "RAD, median", rad.median());
    figures.show("rad_max", "RAD, max", rad.max());
    figures.show("rmd_median", "RMD, median", rmd.median());
    figures.show("rmd_max", "RMD, max", rmd.max());
    let conditions = [("nodes", nodes), ("L", leaf_set), ("lookups", lookups)];
    let named = conditions.map(|(name, value)| (name, value.to_string()));
    let conditions = [("topology", options.topology.to_string())].into_iter().chain(named).collect();
    Report { experiment: "ideal", conditions, ..Report::default() }.with(figures)
}

/// A ring with ideal tables.
#[derive(Debug)]
pub struct Ideal<'a> {
    map: &'a Map,
    /// By id, each with its slot.
    nodes: Vec<(NodeId, u32)>,
    /// The place in `nodes` of each slot.
    places: Vec<usize>,
    /// Leaves on one side.
    side: usize,
}

/// Lookups over ideal tables.
#[derive(Clone, Debug)]
pub struct IdealLookups {
    /// Hops.
    pub hops: Histogram,
    /// The delay of the route over the delay of the direct way. Pairs on one router are left out.
    pub stretch: Samples,
}

/// One topic's tree over ideal tables: the union of the members' routes to the root.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// The root's slot.
    pub root: usize,
    /// Each node of the tree but the root, with its parent: slots.
    pub parents: BTreeMap<usize, usize>,
    /// Mean delay of members from the root, over the mean of their direct delays (Scribe §4.2: RAD).
    pub rad: f64,
    /// Largest delay of a member from the root, over the largest direct delay (Scribe §4.2: RMD).
    pub rmd: f64,
}

impl<'a> Ideal<'a> {
    /// The ring of the nodes with these ids, by slot. A leaf set has `leaf_set` members, half of them on each side.
    pub fn new(map: &'a Map, ids: impl IntoIterator<Item = NodeId>, leaf_set: usize) -> Ideal<'a> {
        let mut nodes: Vec<(NodeId, u32)> = ids.into_iter().zip(0..).collect();
        nodes.sort_unstable();
        assert!(!nodes.is_empty(), "a ring has nodes");
        let mut places = vec![0; nodes.len()];
        nodes.iter().enumerate().for_each(|(place, &(_, slot))| places[slot as usize] = place);
        Ideal { map, nodes, places, side: leaf_set / 2 }
    }

    /// The slots that a message passes from a slot to a key's root, both ends included.
    pub fn route(&self, from: usize, key: Key) -> Vec<usize> {
        let mut at = self.places[from];
        let mut route = vec![from];
        while let Some(next) = self.next_hop(at, key) {
            at = next;
            route.push(self.nodes[at].1 as usize);
        }
        route
    }

    /// So many lookups from random nodes.
    pub fn lookups(&self, count: usize, keys: Keys, dice: &mut Rng) -> IdealLookups {
        let (mut hops, mut stretch) = (Histogram::default(), Vec::new());
        for _ in 0..count {
            let from = dice.random_range(0..self.nodes.len());
            let key = match keys {
                Keys::Random => Key(dice.random()),
                Keys::Nodes => self.nodes[dice.random_range(0..self.nodes.len())].0.key(),
            };
            let (mut at, mut made, mut delay) = (from, 0, 0);
            while let Some(next) = self.next_hop(at, key) {
                delay += self.nanos(at, next);
                (at, made) = (next, made + 1);
            }
            hops.add(made);
            if at != from && !self.on_one_router(from, at) {
                stretch.push((delay as f64 / self.nanos(from, at) as f64) as f32);
            }
        }
        IdealLookups { hops, stretch: Samples::new(stretch) }
    }

    /// The tree of a topic with these members, given as slots.
    pub fn tree(&self, topic: Key, members: &[usize]) -> Tree {
        let mut parents = BTreeMap::new();
        let root = self.root(topic);
        for &member in members {
            let mut at = self.places[member];
            while !parents.contains_key(&at)
                && let Some(next) = self.next_hop(at, topic)
            {
                parents.insert(at, next);
                at = next;
            }
        }
        let (mut tree, mut direct) = (Vec::new(), Vec::new());
        for place in members.iter().map(|&member| self.places[member]).filter(|&place| place != root) {
            let (mut at, mut delay) = (place, 0);
            while let Some(&parent) = parents.get(&at) {
                delay += self.nanos(parent, at);
                at = parent;
            }
            tree.push(delay as f64);
            direct.push(self.nanos(root, place) as f64);
        }
        let most = |delays: &[f64]| delays.iter().copied().fold(0.0, f64::max);
        let over = |a: f64, b: f64| if b > 0.0 { a / b } else { 1.0 };
        let slot = |place: usize| self.nodes[place].1 as usize;
        Tree {
            root: slot(root),
            rad: over(mean(&tree), mean(&direct)),
            rmd: over(most(&tree), most(&direct)),
            parents: parents.into_iter().map(|(node, parent)| (slot(node), slot(parent))).collect(),
        }
    }

    /// Pastry §2.3's step: the leaf set if it covers the key, else the slot for the key's next digit, else whoever is
    /// known and closer without sharing less.
    fn next_hop(&self, at: usize, key: Key) -> Option<usize> {
        let root = self.root(key);
        if root == at {
            return None;
        }
        if self.covers(at, key) {
            return Some(root);
        }
        let me = self.nodes[at].0;
        let row = key.shared_prefix(me);
        self.nearest(at, key, row).or_else(|| {
            let columns = (0..BASE as u128).filter_map(|digit| {
                let shift = u128::BITS - BITS_PER_DIGIT * (row as u32 + 1);
                let other = Key(key.0 & !((BASE as u128 - 1) << shift) | digit << shift);
                if other.digit(row) == me.key().digit(row) { None } else { self.nearest(at, other, row) }
            });
            let known = columns.chain(self.leaves(at));
            let fit = known.filter(|&other| {
                let other = self.nodes[other].0;
                key.shared_prefix(other) >= row && key.is_closer(other, me)
            });
            fit.min_by(|&a, &b| key.closer(self.nodes[a].0, self.nodes[b].0))
        })
    }

    /// The nearest of all nodes that share the key's first `row + 1` digits.
    fn nearest(&self, at: usize, key: Key, row: usize) -> Option<usize> {
        let rest = u128::MAX.checked_shr(BITS_PER_DIGIT * (row as u32 + 1)).unwrap_or(0);
        let first = self.nodes.partition_point(|(id, _)| id.0 < key.0 & !rest);
        let fit = self.nodes[first..].iter().take_while(|(id, _)| id.0 <= key.0 | rest);
        let from = self.nodes[at].1 as usize;
        let delays = fit.zip(first..).map(|(&(_, slot), place)| (self.map.nanos(from, slot as usize), place));
        delays.min().map(|(_, place)| place)
    }

    fn covers(&self, at: usize, key: Key) -> bool {
        let count = self.nodes.len();
        if count <= 2 * self.side + 1 {
            return true;
        }
        let left = self.nodes[(at + count - self.side) % count].0.key();
        let right = self.nodes[(at + self.side) % count].0;
        left.clockwise_to(key) <= left.clockwise_to(right)
    }

    fn leaves(&self, at: usize) -> impl Iterator<Item = usize> {
        let count = self.nodes.len();
        (1..=self.side.min(count - 1))
            .flat_map(move |step| [(at + step) % count, (at + count - step) % count])
    }

    /// The place of the node that is closest to a key.
    fn root(&self, key: Key) -> usize {
        let count = self.nodes.len();
        let after = self.nodes.partition_point(|(id, _)| id.0 < key.0) % count;
        let before = (after + count - 1) % count;
        if key.is_closer(self.nodes[before].0, self.nodes[after].0) { before } else { after }
    }

    fn nanos(&self, a: usize, b: usize) -> u64 {
        self.map.nanos(self.nodes[a].1 as usize, self.nodes[b].1 as usize)
    }

    fn on_one_router(&self, a: usize, b: usize) -> bool {
        let router = |place: usize| self.map.router(self.nodes[place].1 as usize);
        router(a).is_some() && router(a) == router(b)
    }
}

fn mean(figures: &[f64]) -> f64 {
    if figures.is_empty() { 0.0 } else { figures.iter().sum::<f64>() / figures.len() as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(topology: &Topology, nodes: usize) -> (Map, Vec<NodeId>, Rng) {
        let mut map = Map::new(topology, &[1; 32]);
        (0..nodes).for_each(|_| map.add());
        let mut dice = random::stream(&[1; 32], "ids");
        let ids = (0..nodes).map(|_| NodeId(dice.random())).collect();
        (map, ids, dice)
    }

    /// Anchors P2 and P4, and what the transit-stub model's delays were chosen by (docs/simulation.md).
    #[test]
    fn perfect_tables_come_to_the_known_figures() {
        let (map, ids, mut dice) = ring(&Topology::transit_stub(), 100_000);
        let figures = Ideal::new(&map, ids, 32).lookups(1500, Keys::Random, &mut dice);
        let (hops, stretch) = (figures.hops.mean().unwrap(), figures.stretch.mean().unwrap());
        assert!((hops - 3.80).abs() < 0.04, "{hops} hops");
        assert_eq!(figures.hops.max(), 5);
        assert!((stretch - 1.61).abs() < 0.05, "stretch {stretch}");
        let at = |share| figures.stretch.quantile(share).unwrap();
        assert!(at(0.0) >= 1.0 && at(0.5) < at(0.99));
    }

    #[test]
    fn each_hop_is_the_nearest_that_fits() {
        let (map, ids, mut dice) = ring(&Topology::PLANE, 600);
        let ideal = Ideal::new(&map, ids.iter().copied(), 8);
        let mut by_table = 0;
        for _ in 0..500 {
            let (from, key) = (dice.random_range(0..600), Key(dice.random()));
            let route = ideal.route(from, key);
            let root = (0..600).min_by(|&a, &b| key.closer(ids[a], ids[b]));
            assert_eq!(route.last().copied(), root, "a message ends at the root");
            for hop in route.windows(2) {
                let row = key.shared_prefix(ids[hop[0]]);
                let fit = |&slot: &usize| key.shared_prefix(ids[slot]) > row;
                if Some(hop[1]) != root && fit(&hop[1]) {
                    by_table += 1;
                    let nearest = (0..600).filter(fit).min_by_key(|&slot| map.nanos(hop[0], slot));
                    assert_eq!(Some(hop[1]), nearest);
                }
            }
        }
        assert!(by_table > 300, "{by_table} hops by the table");
    }

    #[test]
    fn a_tree_is_the_union_of_its_members_routes() {
        let (map, ids, mut dice) = ring(&Topology::transit_stub(), 2000);
        let ideal = Ideal::new(&map, ids, 16);
        let (members, topic): (Vec<usize>, _) = ((0..2000).step_by(7).collect(), Key(dice.random()));
        let tree = ideal.tree(topic, &members);
        let mut links = BTreeMap::new();
        for &member in &members {
            let route = ideal.route(member, topic);
            assert_eq!(route.last(), Some(&tree.root));
            links.extend(route.windows(2).map(|hop| (hop[0], hop[1])));
        }
        assert_eq!(links, tree.parents);
        assert!(tree.rad > 1.0 && tree.rad < 2.5 && tree.rmd > 1.0, "{tree:?}");
    }
}

//! The three tables against naive models: everything said so far in a `Vec` or `BTreeMap`, sorted anew each time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::id::{BASE, DIGITS, Key};
use crate::peer::Addr;

fn peer(id: NodeId, incarnation: u64) -> Peer {
    Peer { id, incarnation, addr: Addr::Memory(incarnation as u32) }
}

fn ids<'a>(peers: impl IntoIterator<Item = &'a Peer>) -> Vec<NodeId> {
    peers.into_iter().map(|peer| peer.id).collect()
}

/// Own ids at which arithmetic goes wrong first, and others.
fn any_me() -> impl Strategy<Value = NodeId> {
    prop_oneof![select(vec![0, 1, 1 << 127, u128::MAX]), any::<u128>()].prop_map(NodeId)
}

/// Ids that crowd around `me`, around the far side of the ring and along `me`'s prefix, so that they collide, tie,
/// wrap around and fill slots; and some that lie anywhere.
fn near(me: NodeId) -> impl Strategy<Value = NodeId> {
    let offset = prop_oneof![0u128..40, (0u128..40).prop_map(u128::wrapping_neg)];
    let along_prefix = (0u32..32, 1u128..16).prop_map(|(row, digit)| digit << (124 - 4 * row));
    prop_oneof![
        6 => offset.clone(),
        1 => offset.prop_map(|offset| offset ^ (1 << 127)),
        4 => (along_prefix, 0u128..4).prop_map(|(digit, low)| digit ^ low),
        1 => any::<u128>(),
    ]
    .prop_map(move |offset| NodeId(me.0 ^ offset))
    .prop_flat_map(move |id| select(vec![id, NodeId(me.0.wrapping_add(id.0 ^ me.0))]))
}

#[derive(Clone, Debug)]
enum Step {
    Insert(Peer, Option<Duration>),
    Remove(NodeId),
    SetRtt(NodeId, Duration),
}

fn any_rtt() -> impl Strategy<Value = Duration> {
    // Few values, so that there are ties; the extremes are out of range and saturate.
    select(vec![0, 1, 5, 5, 6, 7, 900, u64::from(u32::MAX), u64::MAX]).prop_map(Duration::from_micros)
}

fn any_step(me: NodeId) -> impl Strategy<Value = Step> {
    let insert = (near(me), 0u64..3, proptest::option::of(any_rtt()));
    prop_oneof![
        6 => insert.prop_map(|(id, incarnation, rtt)| Step::Insert(peer(id, incarnation), rtt)),
        2 => near(me).prop_map(Step::Remove),
        1 => (near(me), any_rtt()).prop_map(|(id, rtt)| Step::SetRtt(id, rtt)),
    ]
}

/// An own id, a size, and what happens. Removals are aimed at ids that were inserted.
fn any_story(
    sizes: impl Strategy<Value = usize> + Clone,
) -> impl Strategy<Value = (NodeId, usize, Vec<Step>)> {
    (any_me(), sizes).prop_flat_map(|(me, size)| {
        let steps = vec((any_step(me), any::<proptest::sample::Index>()), 0..120);
        (Just(me), Just(size), steps.prop_map(aim))
    })
}

fn aim(steps: Vec<(Step, proptest::sample::Index)>) -> Vec<Step> {
    let mut known: Vec<NodeId> = Vec::new();
    let mut aimed = Vec::new();
    for (step, at) in steps {
        let target = |id| if known.is_empty() { id } else { known[at.index(known.len())] };
        aimed.push(match step {
            // Every third insertion speaks of a known peer again.
            Step::Insert(new, rtt) if at.index(3) == 0 => {
                Step::Insert(peer(target(new.id), new.incarnation), rtt)
            }
            Step::Insert(new, rtt) => {
                known.push(new.id);
                Step::Insert(new, rtt)
            }
            Step::Remove(id) => Step::Remove(target(id)),
            Step::SetRtt(id, rtt) => Step::SetRtt(target(id), rtt),
        });
    }
    aimed
}

/// The naive leaf set: all members, and the sides by sorting them.
#[derive(Clone)]
struct NaiveLeafSet {
    me: NodeId,
    half: usize,
    known: Vec<Peer>,
}

impl NaiveLeafSet {
    fn rights(&self) -> Vec<NodeId> {
        let mut all = ids(&self.known);
        all.sort_by_key(|&id| id.0.wrapping_sub(self.me.0));
        all.truncate(self.half);
        all
    }

    fn lefts(&self) -> Vec<NodeId> {
        let mut all = ids(&self.known);
        all.sort_by_key(|&id| self.me.0.wrapping_sub(id.0));
        all.truncate(self.half);
        all
    }

    fn insert(&mut self, new: Peer) -> bool {
        let before = self.known.clone();
        match self.known.iter_mut().find(|old| old.id == new.id) {
            _ if new.id == self.me => {}
            Some(old) if old.incarnation < new.incarnation => *old = new,
            Some(_) => {}
            None => self.known.push(new),
        }
        let (lefts, rights) = (self.lefts(), self.rights());
        self.known.retain(|old| lefts.contains(&old.id) || rights.contains(&old.id));
        self.known.sort_by_key(|old| old.id.0.wrapping_sub(self.me.0));
        self.known != before
    }

    fn remove(&mut self, id: NodeId) -> Option<Peer> {
        let at = self.known.iter().position(|peer| peer.id == id)?;
        Some(self.known.remove(at))
    }

    /// Steps from the leftmost to the rightmost member over `me`, unless they meet on the far side.
    fn covers(&self, key: Key) -> bool {
        let (lefts, rights) = (self.lefts(), self.rights());
        if lefts.len() < self.half || lefts.iter().any(|id| rights.contains(id)) {
            return true;
        }
        let start = lefts[self.half - 1].0;
        key.0.wrapping_sub(start) <= rights[self.half - 1].0.wrapping_sub(start)
    }
}

fn expect_same_leaf_set(
    leaf_set: &LeafSet,
    naive: &NaiveLeafSet,
    probe: NodeId,
) -> Result<(), TestCaseError> {
    let (lefts, rights) = (naive.lefts(), naive.rights());
    prop_assert!(leaf_set.iter().eq(&naive.known));
    prop_assert_eq!(leaf_set.len(), naive.known.len());
    prop_assert_eq!(leaf_set.is_empty(), naive.known.is_empty());
    prop_assert_eq!(&ids(leaf_set.lefts()), &lefts);
    prop_assert_eq!(&ids(leaf_set.rights()), &rights);
    prop_assert_eq!(leaf_set.left().map(|peer| peer.id), lefts.first().copied());
    prop_assert_eq!(leaf_set.right().map(|peer| peer.id), rights.first().copied());
    prop_assert_eq!(leaf_set.is_full(), lefts.len() == naive.half && rights.len() == naive.half);

    let known = naive.known.iter().find(|peer| peer.id == probe);
    prop_assert_eq!(leaf_set.get(probe), known);
    prop_assert_eq!(leaf_set.contains(probe), known.is_some());
    prop_assert_eq!(leaf_set.wants(probe), known.is_none() && naive.clone().insert(peer(probe, 0)));

    let key = probe.key();
    prop_assert_eq!(leaf_set.covers(key), naive.covers(key));
    let mut by_distance = naive.known.clone();
    by_distance.sort_by_key(|peer| (key.distance(peer.id), peer.id));
    prop_assert_eq!(leaf_set.closest(key, |_| true), by_distance.first());
    prop_assert_eq!(leaf_set.closest_n(key, 3), &by_distance[..by_distance.len().min(3)]);
    by_distance.retain(|peer| peer.incarnation > 0);
    prop_assert_eq!(leaf_set.closest(key, |peer| peer.incarnation > 0), by_distance.first());
    Ok(())
}

proptest! {
    #[test]
    fn a_leaf_set_is_what_sorting_gives(
        (me, size, steps) in any_story(select(vec![2, 4, 8, 32])),
        offsets in vec(-60i128..60, 8),
    ) {
        let mut leaf_set = LeafSet::new(me, size);
        let mut naive = NaiveLeafSet { me, half: size / 2, known: Vec::new() };
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert(peer, _) => prop_assert_eq!(leaf_set.insert(peer), naive.insert(peer)),
                Step::Remove(id) => prop_assert_eq!(leaf_set.remove(id), naive.remove(id)),
                Step::SetRtt(..) => {}
            }
            let offset = offsets[at % offsets.len()] as u128;
            expect_same_leaf_set(&leaf_set, &naive, NodeId(me.0.wrapping_add(offset)))?;
            expect_same_leaf_set(&leaf_set, &naive, NodeId(me.0 ^ (1 << 127) ^ offset))?;
        }
    }

    /// A node that was let go was never needed: without removals, the sides are the nearest of all that were ever inserted.
    #[test]
    fn a_leaf_set_forgets_only_the_far(
        (me, size, known) in (any_me(), select(vec![2, 4, 8]))
            .prop_flat_map(|(me, size)| (Just(me), Just(size), vec(near(me), 0..60)))
    ) {
        let mut leaf_set = LeafSet::new(me, size);
        for &id in &known {
            leaf_set.insert(peer(id, 1));
        }
        let distinct: BTreeSet<NodeId> = known.into_iter().filter(|&id| id != me).collect();
        let naive =
            NaiveLeafSet { me, half: size / 2, known: distinct.into_iter().map(|id| peer(id, 1)).collect() };
        prop_assert_eq!(ids(leaf_set.lefts()), naive.lefts());
        prop_assert_eq!(ids(leaf_set.rights()), naive.rights());
    }
}

/// The order in which a slot of `me` prefers its entries: nearer first, unmeasured last, ties by `id XOR me`.
fn preference(me: NodeId, peer: &Peer, rtt: Option<u32>) -> (u64, u128) {
    (rtt.map_or(u64::MAX, u64::from), peer.id.0 ^ me.0)
}

fn in_micros(rtt: Duration) -> u32 {
    rtt.as_micros().clamp(1, u128::from(u32::MAX)) as u32
}

/// Peers with their round-trip times in microseconds.
type NaiveList = Vec<(Peer, Option<u32>)>;

/// The rule of both tables that measure, for a list: known peers are brought up to date, new ones displace only the last
/// of a full list, and only by being nearer.
fn naive_insert(list: &mut NaiveList, limit: usize, me: NodeId, new: Peer, rtt: Option<u32>) -> bool {
    let before = list.clone();
    let nearness = |rtt: Option<u32>| rtt.unwrap_or(u32::MAX) as u64 + u64::from(rtt.is_none());
    if let Some(old) = list.iter_mut().find(|(old, _)| old.id == new.id) {
        if old.0.incarnation < new.incarnation {
            *old = (new, rtt);
        } else if old.0.incarnation == new.incarnation && rtt.is_some() {
            old.1 = rtt;
        }
    } else if list.len() < limit {
        list.push((new, rtt));
    } else if list.last().is_some_and(|last| nearness(rtt) < nearness(last.1)) {
        list.pop();
        list.push((new, rtt));
    }
    let same = before == *list;
    list.sort_by_key(|(peer, rtt)| preference(me, peer, *rtt));
    !same
}

fn plain<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> NaiveList {
    entries.into_iter().map(|entry| (entry.peer, entry.rtt().map(in_micros))).collect()
}

/// The naive routing table: a list per slot.
struct NaiveTable {
    me: NodeId,
    candidates: usize,
    slots: BTreeMap<(usize, usize), NaiveList>,
}

impl NaiveTable {
    fn slot(&mut self, id: NodeId) -> Option<&mut NaiveList> {
        let row = (0..DIGITS).find(|&row| id.key().digit(row) != self.me.key().digit(row))?;
        Some(self.slots.entry((row, id.key().digit(row))).or_default())
    }

    fn insert(&mut self, new: Peer, rtt: Option<Duration>) -> bool {
        let (me, candidates) = (self.me, self.candidates);
        let Some(slot) = self.slot(new.id) else { return false };
        naive_insert(slot, candidates, me, new, rtt.map(in_micros))
    }

    fn remove(&mut self, id: NodeId) -> Option<Peer> {
        let slot = self.slot(id)?;
        let at = slot.iter().position(|(peer, _)| peer.id == id)?;
        Some(slot.remove(at).0)
    }

    fn set_rtt(&mut self, id: NodeId, rtt: Duration) -> bool {
        let me = self.me;
        let Some(slot) = self.slot(id) else { return false };
        let Some(entry) = slot.iter_mut().find(|(peer, _)| peer.id == id) else { return false };
        entry.1 = Some(in_micros(rtt));
        slot.sort_by_key(|(peer, rtt)| preference(me, peer, *rtt));
        true
    }
}

fn expect_same_table(table: &RoutingTable, naive: &NaiveTable) -> Result<(), TestCaseError> {
    let slots = || naive.slots.iter().filter(|(_, slot)| !slot.is_empty());
    let all: Vec<_> = slots().flat_map(|(_, slot)| slot.clone()).collect();
    prop_assert!(table.iter().eq(all.iter().map(|(peer, _)| peer)));
    prop_assert_eq!(table.len(), all.len());
    prop_assert_eq!(table.is_empty(), all.is_empty());
    prop_assert_eq!(table.rows(), slots().map(|((row, _), _)| row + 1).max().unwrap_or(0));
    for row in 0..=DIGITS {
        let best: Vec<Peer> = slots().filter(|((r, _), _)| *r == row).map(|(_, slot)| slot[0].0).collect();
        prop_assert_eq!(table.row(row).copied().collect::<Vec<_>>(), best);
        for col in 0..=BASE {
            let expected = naive.slots.get(&(row, col)).cloned().unwrap_or_default();
            prop_assert_eq!(plain(table.slot(row, col)), expected);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_routing_table_is_what_a_map_of_lists_gives(
        (me, candidates, steps) in any_story(1usize..4),
        key: u128,
    ) {
        let mut table = RoutingTable::new(me, candidates);
        let mut naive = NaiveTable { me, candidates, slots: BTreeMap::new() };
        for step in steps {
            let id = match step {
                Step::Insert(peer, rtt) => {
                    prop_assert_eq!(table.insert(peer, rtt), naive.insert(peer, rtt));
                    peer.id
                }
                Step::Remove(id) => {
                    prop_assert_eq!(table.remove(id), naive.remove(id));
                    id
                }
                Step::SetRtt(id, rtt) => {
                    prop_assert_eq!(table.set_rtt(id, rtt), naive.set_rtt(id, rtt));
                    id
                }
            };
            let slot = naive.slot(id).map(|slot| slot.clone()).unwrap_or_default();
            let known = slot.iter().copied().find(|(peer, _)| peer.id == id);
            let found = table.get(id).map(|&peer| (peer, table.rtt(id).map(in_micros)));
            prop_assert_eq!(found, known);
            prop_assert_eq!(plain(table.next_hops(id.key())), slot);
        }
        expect_same_table(&table, &naive)?;
        for hop in table.next_hops(Key(key)) {
            prop_assert!(Key(key).shared_prefix(hop.peer.id) > Key(key).shared_prefix(me));
        }
    }

    #[test]
    fn a_neighbourhood_set_is_a_sorted_list((me, size, steps) in any_story(0usize..9)) {
        let mut set = NeighbourhoodSet::new(me, size);
        let mut naive = Vec::new();
        for step in steps {
            match step {
                Step::Insert(peer, rtt) => {
                    let rtt = rtt.unwrap_or(Duration::from_micros(3));
                    let expected =
                        peer.id != me && naive_insert(&mut naive, size, me, peer, Some(in_micros(rtt)));
                    prop_assert_eq!(set.insert(peer, rtt), expected);
                }
                Step::Remove(id) => {
                    let at = naive.iter().position(|(peer, _)| peer.id == id);
                    prop_assert_eq!(set.remove(id), at.map(|at| naive.remove(at).0));
                }
                Step::SetRtt(..) => {}
            }
            prop_assert_eq!(plain(set.iter()), &naive[..]);
            prop_assert_eq!((set.len(), set.is_empty()), (naive.len(), naive.is_empty()));
        }
    }
}

#[test]
fn one_other_node_is_both_neighbours_and_counts_once() {
    let mut leaf_set = LeafSet::new(NodeId(10), 4);
    assert!(leaf_set.insert(peer(NodeId(3), 1)));
    assert_eq!(leaf_set.left(), leaf_set.right());
    assert_eq!((leaf_set.len(), leaf_set.lefts().len(), leaf_set.rights().len()), (1, 1, 1));
    assert!(leaf_set.covers(Key(u128::MAX / 2)) && !leaf_set.is_full());
}

#[test]
fn a_side_that_lost_a_member_is_served_by_the_other() {
    let mut leaf_set = LeafSet::new(NodeId(0), 4);
    for id in [1, 2, 3, 4, 5, 6] {
        leaf_set.insert(peer(NodeId(id), 1));
    }
    assert_eq!(ids(leaf_set.iter()), [1, 2, 5, 6].map(NodeId));
    assert!(!leaf_set.covers(Key(3)) && !leaf_set.wants(NodeId(3)));
    leaf_set.remove(NodeId(1));
    assert_eq!(ids(leaf_set.rights()), [2, 5].map(NodeId));
    assert!(leaf_set.covers(Key(3)) && leaf_set.wants(NodeId(3)));
}

#[test]
fn a_nearer_peer_displaces_the_unmeasured_then_the_farthest() {
    let ms = Duration::from_millis;
    let mut table = RoutingTable::new(NodeId(0), 2);
    let slot = |low: u128| peer(NodeId(7 << 124 | low), 1);
    assert!(table.insert(slot(1), None));
    assert!(table.insert(slot(2), Some(ms(20))));
    assert!(!table.insert(slot(3), None), "an unmeasured peer displaces nobody");
    assert!(table.insert(slot(4), Some(ms(30))), "a measured one displaces an unmeasured one");
    assert!(!table.insert(slot(5), Some(ms(30))), "an equally near one does not");
    assert!(table.insert(slot(6), Some(ms(10))));
    let order: Vec<NodeId> = table.slot(0, 7).iter().map(|entry| entry.peer.id).collect();
    assert_eq!(order, [slot(6).id, slot(2).id]);
}

#[test]
fn nodes_of_one_slot_are_preferred_differently_by_different_nodes() {
    let first = |me: u128| {
        let mut table = RoutingTable::new(NodeId(me), 3);
        for low in 0..3 {
            table.insert(peer(NodeId(7 << 124 | low), 1), None);
        }
        table.slot(0, 7)[0].peer.id.0 & 0xf
    };
    assert_eq!((first(0), first(1), first(2)), (0, 1, 2));
}

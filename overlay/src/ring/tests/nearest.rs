//! Stories of what the layer above hears of the nodes around it: those that may keep copies with it.

use super::*;
use crate::kbr::NEAREST;

const SIZE: usize = 30;

impl Net {
    /// A settled ring, of whose events no story has heard.
    fn settled(n: usize) -> Net {
        let mut net = Net::ring(n);
        net.run(Duration::from_secs(10));
        net.events.clear();
        net
    }

    /// The slots by their place on the ring, clockwise from the slot.
    fn around(&self, slot: usize) -> Vec<usize> {
        let me = peer_at(slot).id.key();
        let mut slots: Vec<usize> = self.live().map(|(slot, _)| slot).collect();
        slots.sort_by_key(|&other| me.clockwise_to(peer_at(other).id));
        slots
    }

    fn took(&mut self, slot: usize, is: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|(by, event)| *by == slot && is(event)).count()
    }

    fn nearest_changed(&mut self, slot: usize) -> usize {
        self.took(slot, |event| matches!(event, Event::NearestChanged))
    }

    /// The nodes nearest to a slot's node on both sides, by what a replica set reads.
    fn nearest(&mut self, slot: usize) -> BTreeSet<Peer> {
        let leaf_set = self.node(slot).leaf_set();
        leaf_set.lefts().take(NEAREST).chain(leaf_set.rights().take(NEAREST)).copied().collect()
    }
}

#[test]
fn a_node_second_to_the_left_that_dies_is_told() {
    let mut net = Net::settled(SIZE);
    let around = net.around(0);
    let (second, ninth) = (around[SIZE - 2], around[SIZE - 9]);
    net.kill(second);
    net.run(Duration::from_secs(30));
    assert_eq!(net.nearest_changed(0), 1, "it is the second to the left");
    assert_eq!(net.took(0, |event| matches!(event, Event::NeighboursChanged)), 0, "it is no ring neighbour");
    // The one that was the ninth is the eighth now, and the one behind it the ninth.
    net.events.clear();
    let tenth = around[SIZE - 10];
    net.kill(tenth);
    net.run(Duration::from_secs(30));
    assert_eq!(net.nearest_changed(0), 0, "the ninth to the left is none of the nearest");
    net.kill(ninth);
    net.run(Duration::from_secs(30));
    assert_eq!(net.nearest_changed(0), 1, "the eighth is one of the nearest");
}

#[test]
fn a_node_second_to_the_left_that_leaves_and_comes_back_is_told() {
    let mut net = Net::settled(SIZE);
    let second = net.around(0)[SIZE - 2];
    net.command(second, Command::Leave);
    net.run(Duration::from_secs(1));
    net.kill(second);
    assert_eq!(net.nearest_changed(0), 1, "it left");
    net.events.clear();
    let again = Peer { incarnation: 2, ..peer_at(second) };
    let join = vec![Seed::from(Addr::Memory(0))];
    net.revive(second, again, Bootstrap { join, ..Bootstrap::default() });
    net.run(Duration::from_secs(2));
    assert_eq!(net.nearest_changed(0), 1, "it came");
    assert!(net.node(0).replica_set(again.id.key(), 3).contains(&again));
}

#[test]
fn whatever_a_replica_set_reads_is_told_when_it_changes_and_not_else() {
    let mut net = Net::settled(SIZE);
    let mut seen: BTreeMap<usize, BTreeSet<Peer>> = BTreeMap::new();
    let mut told: BTreeMap<usize, usize> = BTreeMap::new();
    for slot in 0..SIZE {
        seen.insert(slot, net.nearest(slot));
    }
    for step in 0..4_000 {
        match step {
            100 => drop(net.kill(3)),
            900 => net.command(7, Command::Leave),
            910 => drop(net.kill(7)),
            1_800 => drop(net.join(Some(0), Config::default())),
            2_600 => drop(net.kill(11)),
            _ => {}
        }
        net.run(Duration::from_millis(10));
        // A node that joins meanwhile is watched by the others only.
        let slots: Vec<usize> = net.live().map(|(slot, _)| slot).filter(|slot| *slot < SIZE).collect();
        for slot in slots {
            let (now, news) = (net.nearest(slot), net.nearest_changed(slot));
            assert_eq!(seen[&slot] != now, news > 0, "slot {slot} at {}: {news} told", net.now);
            *told.entry(slot).or_default() += news;
            seen.insert(slot, now);
        }
        net.events.clear();
    }
    assert!(told.values().sum::<usize>() >= 4 * 2 * NEAREST, "{told:?}");
}

#[test]
fn an_edge_hears_nothing_of_it() {
    let mut net = Net::settled(5);
    let role = Role::Edge { promote_after: None };
    let edge = net.join(Some(0), Config { role, ..Config::default() });
    net.run(Duration::from_secs(2));
    assert_eq!(net.node(edge).node_state(), NodeState::Edge);
    net.kill(3);
    net.run(Duration::from_secs(20));
    assert!(net.nearest_changed(0) > 0);
    assert_eq!(net.nearest_changed(edge), 0);
}

#[test]
fn the_first_nodes_around_are_news_and_nothing_is_told_twice() {
    let mut net = Net::empty();
    net.join(None, Config::default());
    net.run(Duration::from_secs(1));
    assert_eq!(net.nearest_changed(0), 0, "it is alone");
    net.join(Some(0), Config::default());
    net.run(Duration::from_secs(60));
    assert_eq!((net.nearest_changed(0), net.nearest_changed(1)), (1, 1));
}

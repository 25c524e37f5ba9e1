//! Stories of small rings, in which every node knows every node.

use super::*;

impl Net {
    /// A ring of `n` nodes whose lists may have as many as `limit`.
    fn small(n: usize, limit: usize) -> Net {
        let mut net = Net::empty();
        for slot in 0..n {
            let config = Config::default().with(|config| config.tables.full_membership = limit);
            net.join(slot.checked_sub(1).map(|_| 0), config);
            net.run(Duration::from_millis(200));
        }
        net
    }

    /// How many each node knows.
    fn known(&self) -> Vec<usize> {
        self.live().map(|(_, node)| node.geometry.members().iter().count()).collect()
    }

    /// Lets time pass until each node knows so many.
    fn until_known(&mut self, count: usize, limit: Duration) {
        let end = self.now + limit;
        while self.known().iter().any(|known| *known != count) {
            assert!(self.now < end, "not all know {count}: {:?}", self.known());
            self.run(Duration::from_secs(1));
        }
    }

    /// Hops of lookups of random keys by every node; how many were made in one hop or none, and how many were not.
    fn hops(&mut self) -> (usize, usize) {
        let slots: Vec<usize> = self.live().map(|(slot, _)| slot).collect();
        self.events.clear();
        for (token, &slot) in slots.iter().enumerate() {
            let key = Key::hash(&(token as u64 + 77).to_be_bytes());
            self.command(slot, Command::Lookup { token: token as u64, key, trace: false });
        }
        self.run(Duration::from_secs(3));
        let hops = |(_, event): &(usize, Event)| match event {
            Event::Found { found, .. } => Some(found.hops),
            _ => None,
        };
        let hops: Vec<u8> = self.events.iter().filter_map(hops).collect();
        assert_eq!(hops.len(), slots.len(), "all are answered");
        let short = hops.iter().filter(|hops| **hops <= 1).count();
        (short, hops.len() - short)
    }
}

#[test]
fn everybody_knows_everybody_and_lookups_take_one_hop() {
    let mut net = Net::small(80, 256);
    net.until_known(79, Duration::from_secs(300));
    assert_eq!(net.hops(), (80, 0));
    net.assert_one_ring();
}

#[test]
fn the_dead_are_forgotten_and_not_brought_back() {
    let mut net = Net::small(60, 256);
    net.until_known(59, Duration::from_secs(300));
    let dead: Vec<NodeId> = [4, 9, 30, 31].map(|slot| net.kill(slot).id).into();
    let names_dead = |net: &Net| {
        let names =
            |node: &Node| node.geometry.members().iter().filter(|peer| dead.contains(&peer.id)).count();
        net.live().map(|(_, node)| names(node)).sum::<usize>()
    };
    assert!(names_dead(&net) > 200);
    net.until_known(55, Duration::from_secs(600));
    assert_eq!(names_dead(&net), 0);
    net.run(Duration::from_secs(120));
    assert_eq!(names_dead(&net), 0, "nobody heard of them again");
    assert_eq!(net.hops(), (56, 0));
}

#[test]
fn a_message_that_meets_a_dead_entry_reaches_the_heir() {
    let mut net = Net::small(60, 256);
    net.until_known(59, Duration::from_secs(300));
    let dead = net.kill(30);
    // Its range has been taken over, and many have not heard of it.
    net.run(Duration::from_secs(8));
    let names = |node: &Node| node.geometry.members().iter().any(|peer| peer.id == dead.id);
    let sender = net.live().find(|(_, node)| names(node)).expect("an entry is stale").0;
    net.route(sender, dead.id.key(), "for the heir");
    net.run(Duration::from_secs(5));
    let heir = net.true_root(dead.id.key());
    assert!(matches!(net.deliveries()[..], [(slot, _)] if slot == heir));
}

#[test]
fn a_ring_that_outgrows_the_limit_gives_the_list_up_and_takes_it_up_again() {
    let mut net = Net::small(36, 40);
    net.until_known(35, Duration::from_secs(300));
    for _ in 0..14 {
        net.join(Some(0), Config::default().with(|config| config.tables.full_membership = 40));
        net.run(Duration::from_millis(200));
    }
    net.until_known(0, Duration::from_secs(300));
    net.run(Duration::from_secs(10));
    net.assert_one_ring();
    for slot in (14..50).rev() {
        net.command(slot, Command::Leave);
        net.kill(slot);
        net.run(Duration::from_millis(200));
    }
    net.until_known(13, Duration::from_secs(120));
    net.assert_one_ring();
}

#[test]
fn half_a_ring_does_not_make_the_other_half_forget() {
    let mut net = Net::small(80, 256);
    net.until_known(79, Duration::from_secs(300));
    net.cut = Box::new(|from, to| from % 2 != to % 2);
    // Each half knows itself.
    net.run(Duration::from_secs(60));
    net.until_known(39, Duration::from_secs(600));
    net.cut = Box::new(|_, _| false);
    net.until_known(79, Duration::from_secs(600));
    assert_eq!(net.hops(), (80, 0));
}

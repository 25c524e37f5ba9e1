//! Stories of rings that lost each other: how they find back, and what it costs while there is nobody to find.

use super::*;

/// Even and odd slots cannot reach each other.
fn halve(net: &mut Net) {
    net.cut = Box::new(|from, to| from % 2 != to % 2);
}

impl Net {
    /// Whether each node's neighbours are the next ones on the ring of all, and each answers for its part.
    fn is_one_ring(&self) -> bool {
        let mut ring: Vec<&Node> = self.live().map(|(_, node)| node).collect();
        ring.sort_by_key(|node| node.peer().id);
        let next = |at: usize| Some(ring[at % ring.len()].peer().id);
        ring.iter().enumerate().all(|(at, node)| {
            node.leaf_set().right().map(|peer| peer.id) == next(at + 1)
                && node.is_root_of(self.now, node.peer().id.key())
        })
    }

    /// How long it takes until all are one ring.
    fn until_one_ring(&mut self, limit: Duration) -> Duration {
        let begin = self.now;
        while !self.is_one_ring() {
            self.run(Duration::from_millis(100));
            assert!(self.now - begin <= limit, "not one ring after {:?}", self.now - begin);
        }
        self.now - begin
    }

    /// Frames to the nodes that a story asks about, counted while time passes.
    fn frames_to(&mut self, time: Duration, whom: impl Fn(&Destination) -> bool) -> usize {
        let (end, mut frames) = (self.now + time, 0);
        while self.now < end {
            // Each is on its way for as long.
            self.run(DELAY);
            frames += self.on_the_way().filter(|(_, to, _)| whom(to)).count();
        }
        frames
    }
}

fn is_to(to: &Destination, slot: usize) -> bool {
    let addr = match to {
        Destination::Peer(peer) => peer.addr,
        Destination::Seed(seed) => seed.addr,
    };
    slot_of(addr) == slot
}

#[test]
fn halves_of_a_ring_find_back() {
    // More than a leaf set holds, so that the news has to travel.
    let mut net = Net::ring(50);
    halve(&mut net);
    net.run(Duration::from_secs(30));
    assert!(net.live().all(|(_, node)| node.leaf_set().len() == 24), "each half is a ring");
    net.events.clear();
    net.cut = Box::new(|_, _| false);
    let took = net.until_one_ring(Duration::from_secs(15));
    let told: BTreeSet<usize> = net
        .events
        .iter()
        .filter(|(_, event)| matches!(event, Event::NeighboursChanged))
        .map(|e| e.0)
        .collect();
    // Every node that got another neighbour said so. (Some stood between two of their own half.)
    assert!(told.len() > 25, "{} were told within {took:?}", told.len());
    net.run(Duration::from_secs(5));
    net.assert_one_ring();
}

#[test]
fn halves_of_a_small_ring_find_back_after_a_long_time() {
    let mut net = Net::ring(5);
    halve(&mut net);
    net.run(Duration::from_secs(1800));
    net.cut = Box::new(|_, _| false);
    net.until_one_ring(Duration::from_secs(120));
}

#[test]
fn who_is_heard_but_does_not_answer_stays_lost() {
    let mut net = Net::ring(20);
    // Frames of even slots arrive nowhere among the odd ones.
    net.cut = Box::new(|from, to| from % 2 == 0 && to % 2 == 1);
    net.run(Duration::from_secs(60));
    net.events.clear();
    net.run(Duration::from_secs(120));
    let unrest = net.events.iter().filter(|(_, event)| matches!(event, Event::NeighboursChanged)).count();
    assert_eq!(unrest, 0, "words that arrive bring nobody back whom no question reaches");
    net.cut = Box::new(|_, _| false);
    net.until_one_ring(Duration::from_secs(30));
}

#[test]
fn rings_that_never_met_become_one_by_a_seed() {
    let mut net = Net::empty();
    halve(&mut net);
    for slot in 0..50 {
        let join = slot - 2 * usize::from(slot > 1);
        let join = if slot > 1 { vec![Seed::from(Addr::Memory((join % 2) as u32))] } else { Vec::new() };
        // One node of fifty has been told of one of the other ring.
        let remembered = if slot == 20 { vec![Seed::from(Addr::Memory(7))] } else { Vec::new() };
        net.start(peer_at(slot), Config::default(), Bootstrap { join, remembered, ..Bootstrap::default() });
        net.run(Duration::from_millis(400));
    }
    net.run(Duration::from_secs(10));
    assert!(net.live().all(|(_, node)| node.leaf_set().len() == 24), "two rings of 25");
    net.cut = Box::new(|_, _| false);
    let took = net.until_one_ring(Duration::from_secs(200));
    // The one asks once in a minute or so; whole leaf sets are passed on within a second then.
    assert!(took <= Duration::from_secs(100), "{took:?}");
    net.run(Duration::from_secs(5));
    net.assert_one_ring();
}

#[test]
fn who_died_is_asked_seldom_and_more_and_more_so() {
    let mut net = Net::ring(10);
    net.run(Duration::from_secs(10));
    net.kill(4);
    net.run(Duration::from_secs(30));
    let soon = net.frames_to(Duration::from_secs(100), |to| is_to(to, 4));
    // Nine nodes, each of them once in some ten seconds.
    assert!((30..=200).contains(&soon), "{soon} questions in the first minutes");
    net.run(Duration::from_secs(7200));
    let late = net.frames_to(Duration::from_secs(1000), |to| is_to(to, 4));
    assert!(late <= 100, "{late} questions in 1,000 s, two hours later");
    net.assert_one_ring();
}

#[test]
fn a_ring_at_rest_asks_nobody() {
    let mut net = Net::ring(10);
    // All have come through the first node, which they know.
    let to_seeds = net.frames_to(Duration::from_secs(200), |to| matches!(to, Destination::Seed(_)));
    assert_eq!(to_seeds, 0);
}

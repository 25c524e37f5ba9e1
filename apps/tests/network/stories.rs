//! What goes wrong, and what must hold nevertheless.

use std::time::{Duration, Instant};

use crate::net::{Host, Net};
use crate::ring::{Node, on, ring, wait_for_one_ring};
use crate::sandbox::Story;
use crate::support::observers::{Publisher, Subscriber, TOPIC, judge};
use crate::support::{PATIENCE, Process};

/// Hosts that have a node, a publisher or a subscriber from the beginning.
const HOSTS: u8 = 6;
/// The hosts with a subscriber.
const LISTENERS: [usize; 4] = [0, 2, 3, 5];
/// The default profile's lease.
const LEASE: Duration = Duration::from_secs(4);
/// As many frames are lost at least where a tenth is: then every kind of frame was among them.
const MANY: u64 = 300;
/// One way through the slow cable.
const DELAY: Duration = Duration::from_millis(80);

pub(crate) const STORIES: [Story; 7] = [
    Story { name: "a_split_ring_serves_both_sides_and_is_one_again", run: split, cable: false },
    Story { name: "a_ring_split_in_one_direction_is_one_again", run: split_one_way, cable: false },
    Story { name: "who_is_killed_finds_its_ring_by_what_it_remembers", run: kills, cable: false },
    Story { name: "a_root_that_sleeps_beyond_its_leases_is_none_when_it_wakes", run: sleep, cable: false },
    Story { name: "a_listener_that_cannot_reach_the_root_hears_by_a_third", run: broken_pair, cable: false },
    Story { name: "nothing_is_lost_silently_where_a_tenth_of_all_frames_is", run: loss, cable: false },
    Story { name: "a_slow_cable_loses_nothing_and_may_be_cut", run: slow_cable, cable: true },
];

fn lines(what: &str, n: usize) -> impl Iterator<Item = String> {
    (0..n).map(move |i| format!("{what} {i}"))
}

fn publisher(host: Host) -> Publisher {
    let command = on(host, &["pub", TOPIC, "-l", "--json", "--ephemeral", "-v"], &[host]);
    Publisher::new(Process::start(&format!("publisher on {host:?}"), command))
}

fn subscriber(host: Host) -> Subscriber {
    let command = on(host, &["sub", TOPIC, "--json", "--ephemeral", "-v"], &[host]);
    Subscriber::new(Process::start(&format!("subscriber on {host:?}"), command)).subscribed()
}

/// Six nodes on as many hosts; a publisher on either side, and subscribers on both.
struct Town {
    net: Net,
    nodes: Vec<Node>,
    publishers: [Publisher; 2],
    subscribers: Vec<Subscriber>,
}

impl Town {
    fn found(net: Net) -> Town {
        let hosts = &net.hosts()[..usize::from(HOSTS)];
        let nodes = ring(hosts);
        let subscribers = LISTENERS.map(|at| subscriber(hosts[at])).into();
        let publishers = [1, 4].map(|at| publisher(hosts[at]));
        Town { net, nodes, publishers, subscribers }
    }

    fn sides(&self) -> (&[Host], &[Host]) {
        self.net.hosts().split_at(usize::from(HOSTS / 2))
    }

    /// The root of the topic.
    fn root(&self) -> &Node {
        let root = self.nodes[0].root_of(TOPIC);
        self.nodes.iter().find(|node| node.id == root).unwrap()
    }

    /// Everything published now has a receipt and reaches everybody.
    fn assert_all_hear_all(&mut self, when: &str) {
        for (publisher, side) in self.publishers.iter_mut().zip(["left", "right"]) {
            assert_eq!(
                publisher.publish(lines(&format!("{when} from the {side}"), 20)),
                20,
                "receipts {when}"
            );
        }
        for subscriber in &mut self.subscribers {
            for side in ["left", "right"] {
                subscriber.hear(&format!("{when} from the {side} 19"));
            }
        }
    }

    /// The same while leases may lapse: what has no receipt is counted, and what has one is judged in the end.
    fn all_go_on(&mut self, when: &str) {
        for (publisher, side) in self.publishers.iter_mut().zip(["left", "right"]) {
            publisher.publish(lines(&format!("{when} from the {side}"), 20));
            let last = publisher.publish_until_received(when);
            self.subscribers.iter_mut().for_each(|subscriber| subscriber.hear(&last));
        }
    }

    fn wait_for_one_ring(&self) -> Duration {
        wait_for_one_ring(&self.nodes.iter().collect::<Vec<_>>())
    }

    /// Publishes until both are served again: what was under way in a fault may have no receipt.
    fn settle(&mut self) {
        for publisher in &mut self.publishers {
            publisher.publish_until_received("served again");
        }
    }

    fn without_receipt(&self) -> usize {
        self.publishers.iter().map(Publisher::without_receipt).sum()
    }

    /// Demands what every story demands; returns how many messages with a receipt were announced as lost.
    fn judge(&self) -> usize {
        let verdict = judge(&self.publishers.each_ref(), &self.subscribers.iter().collect::<Vec<_>>());
        assert!(!verdict.is_broken(), "{verdict}\n{:#?}", verdict.faults());
        verdict.announced
    }

    /// A cut between the two halves, until each has a log of its own: the side with most of the log's members goes on, and
    /// the other one begins anew. Then both are one again.
    fn is_cut_and_heals(&mut self, cut: fn(&Net, &[Host], &[Host])) {
        self.assert_all_hear_all("before");
        let (left, right) = self.sides();
        cut(&self.net, left, right);
        let begun = Instant::now();
        // The side that lost most members begins anew when it has found them dead.
        let [on_left, on_right] = &mut self.publishers;
        loop {
            on_left.publish_until_received("cut off on the left");
            on_right.publish_until_received("cut off on the right");
            if on_left.birth() != on_right.birth() {
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "one log for both sides of a cut");
        }
        let split = begun.elapsed();
        let (on_left, on_right) = self.subscribers.split_at_mut(2);
        for (publisher, subscribers) in self.publishers.iter_mut().zip([on_left, on_right]) {
            let text = publisher.publish_until_received("to this side");
            subscribers.iter_mut().for_each(|subscriber| subscriber.hear(&text));
        }
        let lost = self.net.heal();
        assert!(lost > 0, "the cut took no frame");
        let merged = self.wait_for_one_ring();
        self.settle();
        self.assert_all_hear_all("after");
        let announced = self.judge();
        println!(
            "cut: {lost} frames dropped; two logs after {split:.1?}; one ring {merged:.1?} after healing; {} messages without \
             receipt, {announced} announced as lost",
            self.without_receipt(),
        );
    }
}

fn split() {
    Town::found(Net::new(HOSTS)).is_cut_and_heals(Net::cut);
}

fn split_one_way() {
    Town::found(Net::new(HOSTS)).is_cut_and_heals(Net::cut_one_way);
}

fn kills() {
    let mut town = Town::found(Net::new(HOSTS));
    town.assert_all_hear_all("before");
    // One dies, and then some more deaths, each in the middle of writing.
    let killed = town.nodes.last_mut().unwrap();
    killed.kill();
    let struck = (0..5).filter(|_| {
        let struck = killed.kill_while_it_writes();
        assert!(!killed.remembered().is_empty());
        struck
    });
    let struck = struck.count();
    killed.start_again();
    let back = town.wait_for_one_ring();
    town.settle();
    town.assert_all_hear_all("after a death");
    // All die at once, as by a power failure, and come back one after the other.
    town.nodes.iter_mut().for_each(Node::kill);
    town.nodes.iter_mut().for_each(Node::start_again);
    let all_back = town.wait_for_one_ring();
    town.settle();
    town.assert_all_hear_all("after the death of all");
    let announced = town.judge();
    println!(
        "kill -9: {struck} of 5 in the middle of writing peers; one ring {back:.1?} after the last start, and \
         {all_back:.1?} when all had died; {} messages without receipt, {announced} announced as lost",
        town.without_receipt(),
    );
}

fn sleep() {
    let mut town = Town::found(Net::new(HOSTS));
    town.assert_all_hear_all("before");
    let root = town.root().id;
    town.root().signal("STOP");
    let begun = Instant::now();
    // One that sleeps gives no receipts.
    town.settle();
    let replaced = begun.elapsed();
    town.assert_all_hear_all("while the root sleeps");
    town.nodes.iter().find(|node| node.id == root).unwrap().signal("CONT");
    let whole = town.wait_for_one_ring();
    town.settle();
    town.assert_all_hear_all("after");
    let announced = town.judge();
    println!(
        "sleep of the root: replaced after {replaced:.1?}, one ring {whole:.1?} after it woke; {} messages without receipt, \
         {announced} announced as lost",
        town.without_receipt(),
    );
}

fn broken_pair() {
    let mut town = Town::found(Net::new(HOSTS));
    town.assert_all_hear_all("before");
    let root = town.root().host;
    let listener = LISTENERS.map(|at| town.net.hosts()[at]).into_iter().find(|&host| host != root).unwrap();
    town.net.cut(&[root], &[listener]);
    let begun = Instant::now();
    let rounds = (1..).take_while(|round| {
        town.assert_all_hear_all(&format!("by a third, {round}"));
        begun.elapsed() < 2 * LEASE
    });
    let rounds = rounds.count();
    let lost = town.net.heal();
    assert!(lost > 0, "the cut took no frame");
    let whole = town.wait_for_one_ring();
    town.assert_all_hear_all("after");
    let announced = town.judge();
    println!(
        "cut between the root and a listener: {lost} frames dropped, {rounds} rounds; one ring {whole:.1?} after healing; \
         {announced} announced as lost",
    );
}

fn loss() {
    let mut town = Town::found(Net::new(HOSTS + 1));
    town.net.lose(10);
    town.all_go_on("while frames are lost");
    // The seventh host has no node yet. Of three to join through one answers, whatever is lost.
    town.nodes.push(Node::start(town.net.hosts()[usize::from(HOSTS)], &town.net.hosts()[..3]));
    let begun = Instant::now();
    let rounds = (1..).take_while(|round| {
        assert!(begun.elapsed() < 3 * PATIENCE, "too few frames are lost");
        town.all_go_on(&format!("in round {round}"));
        town.net.dropped() < MANY
    });
    let rounds = rounds.count();
    let lost = town.net.heal();
    let whole = town.wait_for_one_ring();
    town.settle();
    town.assert_all_hear_all("after");
    let announced = town.judge();
    println!(
        "loss of 10 %: {lost} frames lost, {rounds} rounds; one ring {whole:.1?} later; {} messages without receipt, {announced} \
         announced as lost",
        town.without_receipt(),
    );
}

fn slow_cable() {
    let mut town = Town::found(Net::new(HOSTS / 2).with_far_hosts(HOSTS / 2, DELAY));
    town.assert_all_hear_all("over a slow cable");
    let way = town.nodes[0].way_to(&town.nodes[5]);
    assert!(way >= 2 * DELAY, "the cable was not felt: there and back in {way:?}");
    assert_eq!(town.judge(), 0, "nothing is lost by waiting");
    println!("cable of {DELAY:?}: there and back in {way:.1?}");
    town.is_cut_and_heals(Net::cut);
}

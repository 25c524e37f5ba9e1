//! Rings of real nodes under watch: the promises are checked while time passes, not only in the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rand::seq::SliceRandom;
use treecast_overlay::config::Config;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::{Bootstrap, Command, Event, KeyBasedRouting};
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::Standing;

use crate::check::{self, FanOut, Scene, Seen, Verdict, When, o1, o3, o4, o5};
use crate::history::History;
use crate::member::{Member, Wish};
use crate::watch::{Asked, Watch};
use crate::witness::{Decision, Witness};
use crate::world::{Case, Crash, TimedOut, World};

type News = Rc<RefCell<Vec<(Instant, usize, Event)>>>;

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub struct Tallies {
    /// Messages delivered at a root.
    pub delivered: u64,
    /// Messages whose origin heard that they cannot be delivered.
    pub undeliverable: u64,
    /// Letters received.
    pub received: u64,
    /// Broadcasts received.
    pub broadcasts: u64,
    /// Starts that failed, and why.
    pub failed_starts: Vec<String>,
}

/// A world of nodes, and what is expected of them.
pub struct Rings {
    /// The world. Time should pass by [`run`](Rings::run) only.
    pub world: World<Member>,
    /// What happened so far.
    pub tallies: Tallies,
    /// How often the promises are checked.
    pub period: Duration,
    /// Whether promise O1 is expected of all nodes together: not during a partition.
    pub one_side: bool,
    config: Config,
    dice: Rng,
    news: News,
    incarnations: Vec<u64>,
    /// Failures and lookups.
    pub watch: Watch,
    tokens: u64,
}

impl Rings {
    /// No node yet.
    pub fn new(case: Case, world: crate::world::Config, config: Config) -> Rings {
        let mut world = World::new(case, world);
        let news = News::default();
        let writer = Rc::clone(&news);
        world.observe(move |at, slot, event| writer.borrow_mut().push((at, slot, event)));
        Rings {
            dice: world.stream("rings"),
            world,
            tallies: Tallies::default(),
            period: Duration::from_millis(50),
            one_side: true,
            watch: Watch::new(config.leaf_set),
            config,
            news,
            incarnations: Vec::new(),
            tokens: 0,
        }
    }

    // Nodes.

    /// The node that lives, or last lived, in a slot. Ids follow from the world's seed.
    pub fn peer(&self, slot: usize) -> Peer {
        let id = NodeId(self.world.stream(&format!("id/{slot}")).random());
        Peer { id, incarnation: self.incarnations[slot], addr: Addr::Memory(slot as u32) }
    }

    /// The node in a slot.
    pub fn node(&self, slot: usize) -> &Node {
        self.world.machine(slot).unwrap_or_else(|| panic!("nobody lives in slot {slot}")).node()
    }

    /// All nodes that live.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.world.machines().map(|(_, member)| member.node())
    }

    /// Slots of the nodes on the ring that run.
    pub fn ready(&self) -> Vec<usize> {
        let ready = |&(slot, member): &(usize, &Member)| {
            self.world.is_running(slot) && member.node().standing() == Standing::Ready
        };
        self.world.machines().filter(ready).map(|(slot, _)| slot).collect()
    }

    /// `count` random slots of nodes on the ring.
    pub fn some_ready(&mut self, count: usize) -> Vec<usize> {
        let mut ready = self.ready();
        ready.shuffle(&mut self.dice);
        ready.truncate(count);
        ready
    }

    /// A random key.
    pub fn any_key(&mut self) -> Key {
        Key(self.dice.random())
    }

    /// The wish to join through the nodes of certain slots; through none: to be the first.
    pub fn through(slots: &[usize]) -> Bootstrap {
        let join = slots.iter().map(|&slot| Seed::from(Addr::Memory(slot as u32))).collect();
        Bootstrap { join, ..Bootstrap::default() }
    }

    /// Starts a new node.
    pub fn add(&mut self, bootstrap: Bootstrap) -> usize {
        let config = self.config.clone();
        self.add_with(config, bootstrap)
    }

    /// Starts a new node with its own figures.
    pub fn add_with(&mut self, config: Config, bootstrap: Bootstrap) -> usize {
        let slot = self.world.next_slot();
        self.incarnations.push(1);
        let member = self.make(slot, config);
        self.world.add(member);
        self.world.command(slot, Wish::Overlay(Command::Start(bootstrap)));
        slot
    }

    /// Starts a node again in its slot, as a new incarnation.
    pub fn restart(&mut self, slot: usize, bootstrap: Bootstrap) {
        self.incarnations[slot] += 1;
        let member = self.make(slot, self.config.clone());
        self.world.restart(slot, member);
        self.world.command(slot, Wish::Overlay(Command::Start(bootstrap)));
    }

    /// Crashes a node, if one lives there.
    pub fn crash(&mut self, slot: usize, how: Crash) {
        if self.world.machine(slot).is_some() {
            self.note_failure(slot);
            self.world.crash(slot, how);
        }
    }

    /// Pauses a node.
    pub fn pause(&mut self, slot: usize) {
        self.note_failure(slot);
        self.world.pause(slot);
    }

    /// Lets a paused node go on.
    pub fn resume(&mut self, slot: usize) {
        self.note_failure(slot);
        self.world.resume(slot);
    }

    fn note_failure(&mut self, slot: usize) {
        self.watch.failures.push((self.world.now(), self.peer(slot).id));
    }

    fn make(&self, slot: usize, config: Config) -> Member {
        let seed = self.world.node_seed(slot);
        Member::new(Node::new(self.peer(slot), config, seed).expect("the configuration is sound"))
    }

    // Work.

    /// Asks for the root of a random key.
    pub fn look_up(&mut self, slot: usize) {
        let key = self.any_key();
        self.tokens += 1;
        let asked = Asked { slot, life: self.incarnations[slot], at: self.world.now(), origin_runs: true };
        self.watch.lookups.open.insert(self.tokens, asked);
        let lookup = Command::Lookup { token: self.tokens, key, trace: false };
        self.world.command(slot, Wish::Overlay(lookup));
    }

    /// Random nodes look random keys up.
    pub fn look_up_somewhere(&mut self, count: usize) {
        for slot in self.some_ready(count) {
            self.look_up(slot);
        }
    }

    // Time.

    /// Lets time pass under watch.
    pub fn run(&mut self, time: Duration) {
        let end = self.world.now() + time;
        while self.world.now() < end {
            let period = self.period.min(end - self.world.now());
            self.pass(period);
            self.check();
        }
    }

    /// Lets time pass under watch until all nodes that live are on one ring and every lookup is answered.
    pub fn run_until_whole(&mut self, limit: Duration) -> Result<Duration, TimedOut> {
        let begin = self.world.now();
        loop {
            let whole = self.is_whole();
            if whole.is_ok() {
                return Ok(self.world.now() - begin);
            }
            if self.world.now() - begin >= limit {
                eprintln!("{}", whole.err().map(|breach| breach.to_string()).unwrap_or_default());
                return self.world.run_until(Duration::ZERO, |_| false);
            }
            self.run(self.period);
        }
    }

    /// Whether all nodes that live are on one ring and every lookup is answered.
    pub fn is_whole(&self) -> Verdict {
        self.judge(&[], |scene| o4::judge_open(scene).and_then(|()| o3::judge(scene)))
    }

    /// Has somebody look at the nodes that live.
    fn judge(&self, keys: &[Key], judge: impl FnOnce(&Scene<'_>) -> Verdict) -> Verdict {
        judge(&Scene {
            now: self.world.now(),
            nodes: seen(&self.world),
            keys,
            watch: &self.watch,
            witness: &Witness::default(),
            history: &History::default(),
            limits: &BTreeMap::new(),
            calm: None,
            beat: Duration::from_secs(1),
            fan_out: FanOut::default(),
        })
    }

    fn pass(&mut self, time: Duration) {
        let end = self.world.now() + time;
        let news = Rc::clone(&self.news);
        let stopped = self.world.run_until(time, |_| !news.borrow().is_empty());
        let news: Vec<_> = self.news.borrow_mut().drain(..).collect();
        for (at, slot, event) in news {
            // Deliveries are judged at their own instant, in the state that the delivering node was left in.
            if let (Event::Deliver(delivery), true) = (&event, self.one_side) {
                let (by, key) = (self.peer(slot).id, delivery.key);
                let serves = self.node(slot).is_root_of(at, key);
                let decision = Decision { by, key, serves };
                let verdict = self.judge(&[], |scene| o1::judge_decision(scene, decision));
                verdict.unwrap_or_else(|breach| panic!("{breach}"));
            }
            self.on_event(at, slot, event);
        }
        if stopped.is_ok() && self.world.now() < end {
            self.pass(end - self.world.now());
        }
    }

    fn on_event(&mut self, at: Instant, slot: usize, event: Event) {
        match event {
            Event::Found { token, found } => self.watch.lookups.on_found(at, token, &found),
            Event::NotFound { token, reason } => {
                self.watch.lookups.on_not_found(token, format!("{reason:?}"));
            }
            Event::Deliver(_) => self.tallies.delivered += 1,
            Event::Undeliverable { .. } => self.tallies.undeliverable += 1,
            Event::Received { .. } => self.tallies.received += 1,
            Event::Broadcast { .. } => self.tallies.broadcasts += 1,
            Event::StartFailed(error) => {
                self.tallies.failed_starts.push(format!("slot {slot} at {at}: {error}"));
                self.world.stop(slot);
            }
            Event::Left | Event::Superseded { .. } => {
                self.world.stop(slot);
            }
            Event::Ready { .. }
            | Event::Forward(_)
            | Event::NeighboursChanged
            | Event::PeerDown(_)
            | Event::BroadcastEnded { .. }
            | Event::ContactChanged(_) => {}
        }
    }

    /// The promises that can be judged at any instant.
    fn check(&mut self) {
        let keys: Vec<Key> = (0..4).map(|_| self.any_key()).collect();
        let (incarnations, world) = (&self.incarnations, &self.world);
        // The promise ends with the origin, and rests while it does.
        self.watch.lookups.open.retain(|_, asked| {
            asked.origin_runs = world.is_running(asked.slot);
            incarnations[asked.slot] == asked.life && world.machine(asked.slot).is_some()
        });
        let verdict = self.judge(&keys, |scene| {
            match self.one_side {
                true => check::ask(When::Always, scene)?,
                false => o4::judge(scene)?,
            }
            o5::judge(scene)
        });
        verdict.unwrap_or_else(|breach| panic!("{breach}"));
    }
}

fn seen(world: &World<Member>) -> Vec<Seen<'_>> {
    world
        .machines()
        .map(|(slot, member)| Seen {
            slot,
            runs: world.is_running(slot),
            clock: world.local_time(slot),
            node: member.node(),
            stack: None,
        })
        .collect()
}

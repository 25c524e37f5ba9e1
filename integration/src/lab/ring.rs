//! A ring of whole nodes, grown by the real join protocol: what every experiment stands on.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant as Wall};

use rand::RngExt;
use treecast_overlay::config::Config as RingConfig;
use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::kbr::{Bootstrap, KeyBasedRouting, StartError};
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Peer, Seed};
use treecast_overlay::random::Rng;
use treecast_overlay::wire::Standing;
use treecast_scribe::PastryStack;
use treecast_scribe::event::{Command, Event};

use super::meter::{Meter, Metered};
use super::{Error, Progress, Setting, memory};
use crate::world::{Config as WorldConfig, Crash, World};

/// Newcomers per second, as a share of those on the ring: a join takes about a second, and each neighbour admits one
/// at a time.
const SHARE: f64 = 0.1;
/// How often newcomers are started.
const TICK: Duration = Duration::from_millis(100);
/// Nobody got ready for this long: the ring will not come about.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the growing ring says.
#[derive(Debug, Default)]
struct News {
    /// Slots on the ring, in the order in which they got there.
    ready: Vec<u32>,
    /// Slots whose start failed since the last look.
    failed: Vec<u32>,
    /// Why starts failed, and how often.
    reasons: BTreeMap<&'static str, u64>,
}

/// How the ring came about.
#[derive(Clone, Debug, Default)]
pub struct Growth {
    /// Starts that failed and were tried again.
    pub retried: u64,
    /// Why, and how often.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Virtual time until all were on the ring.
    pub took: Duration,
    /// Real time until then.
    pub wall: Duration,
    /// Frames per join; see [`Gauge::join_frames`](super::meter::Gauge::join_frames).
    pub join_messages_mean: f64,
}

/// Many nodes on one ring.
pub struct Ring {
    /// The world that they live in.
    pub world: World<Metered>,
    /// What they count.
    pub meter: Meter,
    /// How it came about.
    pub growth: Growth,
    /// The overlay's figures.
    pub config: Arc<RingConfig>,
    scribe: Arc<treecast_scribe::Config>,
    dice: Rng,
    /// All nodes that live, by id.
    by_id: Vec<(NodeId, u32)>,
    began: Wall,
    /// The process's memory before there was a node, in bytes.
    empty: Option<u64>,
}

impl Ring {
    /// Grows a ring as the setting says, and lets it settle.
    pub fn grow(
        setting: &Setting,
        nodes: usize,
        world: WorldConfig,
        scribe: treecast_scribe::Config,
        progress: &Progress,
    ) -> Result<Ring, Error> {
        scribe.check().map_err(|error| Error::Usage(format!("Scribe's figures: {error}")))?;
        let (began, empty) = (Wall::now(), memory::resident());
        let world = World::new(setting.case(), world);
        let mut ring = Ring {
            dice: world.stream("lab/ring"),
            world,
            meter: Meter::default(),
            growth: Growth::default(),
            config: Arc::new(setting.ring()?),
            scribe: Arc::new(scribe),
            by_id: Vec::new(),
            began,
            empty,
        };
        ring.join_all(nodes, progress)?;
        ring.settle(Duration::from_secs(setting.settle), progress);
        Ok(ring)
    }

    fn join_all(&mut self, nodes: usize, progress: &Progress) -> Result<(), Error> {
        progress.phase("joining", nodes as u64);
        let news = Rc::new(RefCell::new(News::default()));
        let writer = Rc::clone(&news);
        self.world.observe(move |_, slot, event| writer.borrow_mut().note(slot, event));
        self.start(0, &[]);
        let (mut due, mut last) = (0.0, (0, self.world.now()));
        while news.borrow().ready.len() < nodes {
            self.world.run_for(TICK);
            let ready = news.borrow().ready.len();
            if ready > last.0 {
                last = (ready, self.world.now());
            } else if self.world.now() - last.1 > PATIENCE {
                return Err(stuck(nodes, &news.borrow()));
            }
            let failed = std::mem::take(&mut news.borrow_mut().failed);
            for slot in failed {
                self.growth.retried += 1;
                self.world.stop(slot as usize);
                let through = self.any_of(&news.borrow().ready);
                self.start(slot as usize, through.as_slice());
            }
            due += (ready as f64 * SHARE).max(1.0) * TICK.as_secs_f64() * f64::from(u8::from(ready > 0));
            while due >= 1.0 && self.world.slots() < nodes {
                due -= 1.0;
                let through = self.any_of(&news.borrow().ready);
                self.start(self.world.next_slot(), through.as_slice());
            }
            progress.at(ready as u64, format!("{} of virtual time", self.world.now()));
        }
        self.growth.took = self.world.now() - treecast_overlay::time::Instant::ZERO;
        self.growth.wall = self.wall();
        self.growth.reasons = std::mem::take(&mut news.borrow_mut().reasons);
        self.growth.join_messages_mean = self.meter.borrow().join_frames as f64 / nodes as f64;
        self.index();
        Ok(())
    }

    fn any_of(&mut self, slots: &[u32]) -> Option<u32> {
        (!slots.is_empty()).then(|| slots[self.dice.random_range(0..slots.len())])
    }

    /// Starts a node, for the first time or again, through others; through none: the first.
    pub fn start(&mut self, slot: usize, through: &[u32]) {
        let seed = self.world.node_seed(slot);
        let id = NodeId(self.world.stream(&format!("id/{slot}")).random());
        // Lives of one slot need growing incarnations; virtual time gives them.
        let incarnation = 1 + self.world.now().as_nanos();
        let peer = Peer { id, incarnation, addr: Addr::Memory(slot as u32) };
        let node = Node::new(peer, Arc::clone(&self.config), seed).expect("the setting was checked");
        let stack = PastryStack::new(node, Arc::clone(&self.scribe), seed).expect("the setting was checked");
        let machine = Metered::new(stack, Rc::clone(&self.meter));
        if slot == self.world.slots() {
            self.world.add(machine);
        } else {
            self.world.restart(slot, machine);
        }
        let join = through.iter().map(|&slot| Seed::from(Addr::Memory(slot))).collect();
        self.world.command(slot, Command::Start(Bootstrap { join, ..Bootstrap::default() }));
    }

    /// Lets time pass, a second at a time; events are dropped.
    pub fn settle(&mut self, time: Duration, progress: &Progress) {
        self.world.observe(|_, _, _| ());
        progress.phase("settling", time.as_secs());
        for second in 0..time.as_secs() {
            progress.at(second, format!("{} of virtual time", self.world.now()));
            self.world.run_for(Duration::from_secs(1));
        }
    }

    // Looking at it.

    /// A node.
    pub fn stack(&self, slot: usize) -> Option<&PastryStack> {
        self.world.machine(slot).map(Metered::stack)
    }

    /// All nodes that live, by slot.
    pub fn stacks(&self) -> impl Iterator<Item = (usize, &PastryStack)> {
        self.world.machines().map(|(slot, machine)| (slot, machine.stack()))
    }

    /// Ids and slots of all nodes on the ring, by id.
    pub fn by_id(&self) -> &[(NodeId, u32)] {
        &self.by_id
    }

    /// Takes note of who is on the ring.
    fn index(&mut self) {
        let ready = |&(_, stack): &(usize, &PastryStack)| stack.ring().standing() == Standing::Ready;
        let name = |(slot, stack): (usize, &PastryStack)| (stack.ring().contact().id(), slot as u32);
        self.by_id = self.stacks().filter(ready).map(name).collect();
        self.by_id.sort_unstable();
    }

    /// The slot of a node on the ring.
    pub fn slot_of(&self, id: NodeId) -> Option<usize> {
        let place = self.by_id.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(self.by_id[place].1 as usize)
    }

    /// The root of a key, by the knowledge of all: the closest node on the ring.
    pub fn root_of(&self, key: Key) -> (NodeId, usize) {
        root_of(&self.by_id, key)
    }

    /// Whether two nodes hang on one router: such pairs say nothing of stretch.
    pub fn is_one_router(&self, a: usize, b: usize) -> bool {
        self.world.router(a).is_some_and(|router| self.world.router(b) == Some(router))
    }

    /// Nodes lose power, all at once.
    pub fn crash(&mut self, slots: &[u32]) {
        for &slot in slots {
            self.world.crash(slot as usize, Crash::Power);
        }
        self.index();
    }

    /// Real time since the ring began to grow.
    pub fn wall(&self) -> Duration {
        self.began.elapsed()
    }

    /// Memory of the process for each node that lives, in bytes: all of the world counted. `None` where the system
    /// does not tell.
    pub fn resident_per_node(&self) -> Option<f64> {
        let grown = memory::resident()?.saturating_sub(self.empty?);
        Some(grown as f64 / self.by_id.len().max(1) as f64)
    }

    /// What a node says that it holds, as a mean in bytes.
    pub fn own_bytes_per_node(&self) -> Option<f64> {
        let bytes: usize = self.stacks().map(|(_, stack)| stack.memory().total()).sum();
        (!self.by_id.is_empty()).then(|| bytes as f64 / self.by_id.len() as f64)
    }
}

/// The node of a ring, sorted by id, that is closest to a key.
pub fn root_of(by_id: &[(NodeId, u32)], key: Key) -> (NodeId, usize) {
    let place = by_id.partition_point(|&(id, _)| id.0 < key.0);
    let (n, before) = (by_id.len(), place + by_id.len() - 1);
    let candidates = [by_id[before % n], by_id[place % n]];
    let closest = candidates.into_iter().min_by(|a, b| key.closer(a.0, b.0));
    closest.map(|(id, slot)| (id, slot as usize)).expect("there are two")
}

impl News {
    fn note(&mut self, slot: usize, event: Event) {
        if let Event::Ready { .. } = event {
            self.ready.push(slot as u32);
        } else if let Event::StartFailed(error) = event {
            self.failed.push(slot as u32);
            *self.reasons.entry(kind(&error)).or_default() += 1;
        }
    }
}

/// Why a start failed, without the names of who was asked.
fn kind(error: &StartError) -> &'static str {
    match error {
        StartError::Unreachable(_) => "unreachable",
        StartError::JoinTimedOut { .. } => "join timed out",
        StartError::Superseded { .. } => "superseded",
    }
}

fn stuck(nodes: usize, news: &News) -> Error {
    let reasons: Vec<String> =
        news.reasons.iter().map(|(why, times)| format!("{why}: {times} times")).collect();
    let reasons = if reasons.is_empty() { "no start failed".to_string() } else { reasons.join(", ") };
    let missing = nodes - news.ready.len();
    Error::Failed(format!(
        "the ring did not come about: {missing} of {nodes} nodes are not on it, and for {PATIENCE:?} of virtual \
         time nobody got there ({reasons})"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_the_closest_round_the_ring() {
        let ring: Vec<(NodeId, u32)> = [10, 20, u128::MAX - 4].into_iter().map(NodeId).zip(0..).collect();
        let slot = |key| root_of(&ring, Key(key)).1;
        assert_eq!(
            [slot(0), slot(2), slot(3), slot(15), slot(16), slot(21), slot(u128::MAX)],
            [2, 2, 0, 0, 1, 1, 2]
        );
    }
}

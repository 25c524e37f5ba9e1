//! A ring of whole nodes, grown by the real join protocol: what every experiment stands on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant as Wall};

use treecast_overlay::kbr::StartError;
use treecast_overlay::machine::Machine;
use treecast_overlay::random::Rng;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::NodeState;
use treecast_scribe::event::Event;

use super::meter::Meter;
use super::{Error, Progress, Setting, memory};
use crate::cluster::Cluster;
use crate::cluster::roster::Roster;
use crate::node::RingNode;
use crate::world::{Config as WorldConfig, Shared, Topology};

/// Newcomers per second, as a share of those on the ring: a join takes about a second, and each neighbour admits one
/// at a time.
const SHARE: f64 = 0.1;
/// How often newcomers are started.
const TICK: Duration = Duration::from_millis(100);
/// If no node gets ready for this long, the ring will not come about.
const PATIENCE: Duration = Duration::from_secs(180);

/// A cluster that is to be measured, and how it came about.
pub struct Grown<N: RingNode> {
    /// The nodes.
    pub cluster: Cluster<N>,
    /// Counts of all that goes in and out of them.
    pub meter: Shared<Meter>,
    /// The network.
    pub topology: Topology,
    /// Starts that failed and were tried again.
    pub retried: u64,
    /// Virtual time until all were on the ring.
    pub took: Duration,
    /// Real time until then.
    pub wall: Duration,
    /// Frames per join; see [`Meter::join_frames`].
    pub join_messages_mean: f64,
    /// Memory of the process for each node, in bytes: all of the world counted. `None` where the system does not tell.
    pub resident_per_node: Option<f64>,
    /// A node's own count of its memory, as a mean in bytes.
    pub own_bytes_per_node: Option<f64>,
    began: Wall,
}

/// A ring that grows.
struct Growing<'a, N: RingNode> {
    cluster: Cluster<N>,
    dice: Rng,
    /// Slots that wait to be started again.
    failed: Vec<usize>,
    /// Why starts failed, and how often.
    reasons: BTreeMap<&'static str, u64>,
    retried: u64,
    progress: &'a Progress,
}

/// Grows a ring as the setting says, and leaves it alone for a while.
pub fn grow<N: RingNode>(
    setting: &Setting,
    nodes: usize,
    topology: Topology,
    progress: &Progress,
) -> Result<Grown<N>, Error> {
    grow_in(setting, nodes, setting.world(topology), treecast_scribe::Config::default(), progress)
}

/// Likewise, in any world, with any of Scribe's figures.
pub fn grow_in<N: RingNode>(
    setting: &Setting,
    nodes: usize,
    world: WorldConfig,
    scribe: treecast_scribe::Config,
    progress: &Progress,
) -> Result<Grown<N>, Error> {
    let (began, empty, topology) = (Wall::now(), memory::resident(), world.topology.clone());
    let mut cluster = Cluster::<N>::measured(setting.case(), world, setting.ring()?, scribe);
    let meter: Shared<Meter> = Shared::default();
    cluster.world.attach(Shared::clone(&meter));
    let dice = cluster.world.stream("lab/ring");
    let mut growing =
        Growing { cluster, dice, failed: Vec::new(), reasons: BTreeMap::new(), retried: 0, progress };
    growing.join_all(nodes)?;
    let Growing { mut cluster, retried, .. } = growing;
    let (took, wall) = (cluster.now() - Instant::ZERO, began.elapsed());
    let ready = |(slot, stack): (usize, &treecast_scribe::Stack<N>)| {
        (stack.ring().node_state() == NodeState::Ready).then_some((stack.peer().id, slot as u32))
    };
    cluster.roster = Roster::of(cluster.stacks().filter_map(ready));
    let join_messages_mean = meter.borrow().join_frames as f64 / nodes as f64;
    leave_alone(&mut cluster, Duration::from_secs(setting.settle), progress);
    let grown = memory::resident().zip(empty).map(|(now, empty)| now.saturating_sub(empty));
    Ok(Grown {
        resident_per_node: grown.map(|bytes| bytes as f64 / cluster.roster.len().max(1) as f64),
        own_bytes_per_node: cluster.own_bytes_per_node(),
        cluster,
        meter,
        topology,
        retried,
        took,
        wall,
        join_messages_mean,
        began,
    })
}

/// Lets time pass, a second at a time; events are dropped.
pub fn leave_alone<N: RingNode>(cluster: &mut Cluster<N>, time: Duration, progress: &Progress) {
    cluster.world.hand_events_to(|_, _, _| ());
    progress.phase("settling", time.as_secs());
    for second in 0..time.as_secs() {
        progress.at(second, format!("{} of virtual time", cluster.now()));
        cluster.world.run_for(Duration::from_secs(1));
    }
}

impl<N: RingNode> Grown<N> {
    /// Real time since the ring began to grow.
    pub fn wall(&self) -> Duration {
        self.began.elapsed()
    }
}

impl<N: RingNode> Growing<'_, N> {
    fn join_all(&mut self, nodes: usize) -> Result<(), Error> {
        self.progress.phase("joining", nodes as u64);
        self.cluster.add(&[]);
        let (mut due, mut last) = (0.0, (0, self.cluster.now()));
        while self.cluster.roster.len() < nodes {
            self.cluster.world.run_for(TICK);
            self.take_events();
            let (ready, now) = (self.cluster.roster.len(), self.cluster.now());
            if ready > last.0 {
                last = (ready, now);
            } else if now - last.1 > PATIENCE {
                return Err(self.stuck(nodes));
            }
            for slot in std::mem::take(&mut self.failed) {
                self.retried += 1;
                self.cluster.world.stop(slot);
                let through = self.any();
                self.cluster.restart(slot, &through);
            }
            due += (ready as f64 * SHARE).max(1.0) * TICK.as_secs_f64() * f64::from(u8::from(ready > 0));
            while due >= 1.0 && self.cluster.world.slots() < nodes {
                due -= 1.0;
                let through = self.any();
                self.cluster.add(&through);
            }
            self.progress.at(ready as u64, format!("{now} of virtual time"));
        }
        Ok(())
    }

    fn any(&mut self) -> Vec<usize> {
        self.cluster.roster.any(&mut self.dice).map(|slot| slot as usize).into_iter().collect()
    }

    fn take_events(&mut self) {
        for (_, slot, event) in self.cluster.world.take_events() {
            if let Event::Ready { .. } = event {
                let id = self.cluster.id(slot);
                self.cluster.roster.insert(id, slot as u32);
            } else if let Event::StartFailed(error) = event {
                self.failed.push(slot);
                *self.reasons.entry(kind(&error)).or_default() += 1;
            }
        }
    }

    fn stuck(&self, nodes: usize) -> Error {
        let reasons: Vec<String> =
            self.reasons.iter().map(|(why, times)| format!("{why}: {times} times")).collect();
        let reasons = if reasons.is_empty() { "no start failed".to_string() } else { reasons.join(", ") };
        let missing = nodes - self.cluster.roster.len();
        Error::Failed(format!(
            "the ring did not come about: {missing} of {nodes} nodes are not on it, and for {PATIENCE:?} of virtual \
             time nobody got there ({reasons})"
        ))
    }
}

/// Why a start failed, without the names of the nodes that were asked.
fn kind(error: &StartError) -> &'static str {
    match error {
        StartError::Unreachable(_) => "unreachable",
        StartError::JoinTimedOut { .. } => "join timed out",
        StartError::Superseded { .. } => "superseded",
    }
}

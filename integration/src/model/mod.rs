//! The model checker: every order in which a few real nodes can join a ring, lose frames and crash, within bounds.
//! It drives [`Node`](treecast_overlay::pastry::Node), the core that ships, by the crate `stateright`.
//!
//! **Time** passes in quarters of a lease. Within a quarter frames are delivered in any order, each taking no time; the
//! next quarter begins when all are delivered. A frame that is not delivered by then is lost, or late, or a copy: as many as the
//! bounds say. Nodes start and crash between two quarters, which is no loss: whatever such a node would not have heard
//! before is not delivered to it, and what it said in its last quarter may be lost with it.
//!
//! **States** are compared apart from what time it is, so that a ring at rest comes back to itself: no run is cut off,
//! and the space is finite all the same (`image.rs`).

mod image;
pub mod log;
mod net;
mod promises;
mod setting;
mod talk;
mod words;

use std::time::Duration;

use clap::Args;
use clap::builder::TypedValueParser;
use stateright::{Checker, HasDiscoveries, Model, Property};

pub use net::{Net, Step};

/// A quarter of a lease: the model's unit of time.
pub const QUARTER: Duration = Duration::from_secs(1);

/// How much of everything there is.
#[derive(Args, Clone, Debug)]
pub struct Bounds {
    /// Nodes on the ring, joined by the real protocol
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = nodes(1))]
    pub ring: usize,
    /// Nodes that join, each whenever it likes
    #[arg(long, value_name = "J", default_value_t = 2, value_parser = nodes(0))]
    pub joiners: usize,
    /// Where they belong
    #[arg(long, value_enum, default_value_t = Gaps::Same)]
    pub gaps: Gaps,
    /// All joiners start in the same quarter of a lease, whichever it is
    #[arg(long)]
    pub together: bool,
    /// Nodes that crash, whichever and whenever
    #[arg(long, value_name = "C", default_value_t = 1)]
    pub crashes: u8,
    /// Frames that are lost, besides what crashed nodes should have got or had just sent
    #[arg(long, value_name = "L", default_value_t = 0)]
    pub losses: u8,
    /// Frames that come twice
    #[arg(long, value_name = "D", default_value_t = 0)]
    pub duplicates: u8,
    /// Quarters of a lease that frames come too late, together
    #[arg(long, value_name = "Q", default_value_t = 0)]
    pub delays: u8,
    /// Unanswered probes that make a verdict
    #[arg(long, value_name = "A", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..))]
    pub attempts: u8,
    /// Frames of one connection overtake each other, too
    #[arg(long)]
    pub reorder: bool,
    /// Frames that go to a neighbour anyway carry the renewal of its lease
    #[arg(long)]
    pub ride: bool,
    /// Renewals and probes between nodes that know each other take their time like everything else
    #[arg(long)]
    pub talk: bool,
    /// A bug that the model must find
    #[arg(long, value_enum)]
    pub plant: Option<ModelBug>,
}

/// How many nodes: more than eight are out of reach of any machine.
fn nodes(least: u64) -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(least..=8).map(|nodes| nodes as usize)
}

impl Default for Bounds {
    /// Two joiners at a ring of three, and nothing goes wrong.
    fn default() -> Bounds {
        Bounds {
            ring: 3,
            joiners: 2,
            gaps: Gaps::Same,
            together: false,
            crashes: 0,
            losses: 0,
            duplicates: 0,
            delays: 0,
            attempts: 2,
            reorder: false,
            ride: false,
            talk: false,
            plant: None,
        }
    }
}

/// Where joiners belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Gaps {
    /// All between the same two nodes.
    Same,
    /// Each between two others.
    Apart,
}

/// A bug that is planted, to prove that the model sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ModelBug {
    /// Neighbours do not keep joiners apart, as in the published protocol (Lu, Merz & Weidenbach 2011): a node that is busy with
    /// one says yes to the other all the same.
    Published,
    /// The first node of the ring takes its leases for twice as long as they were granted.
    Overstays,
}

/// Results of an exploration.
#[derive(Clone, Debug)]
pub struct Explored {
    /// Different states.
    pub unique: usize,
    /// States met, those met before included.
    pub generated: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// Nothing is left to be explored.
    pub complete: bool,
    /// Promises that do not hold, and the way there in words.
    pub broken: Vec<(&'static str, Vec<String>)>,
    /// Events that should be possible, and are not, if everything was explored.
    pub missing: Vec<&'static str>,
}

/// Always: promise O1.
pub const O1: &str = "O1: nobody answers beside the root";
/// Always: promise O3, as far as it is a safety property.
pub const O3: &str = "O3: those who answer stand in one ring";
/// Sometimes: all nodes are on the ring.
pub const ALL_READY: &str = "all nodes become ready";
/// Sometimes, where leases ride along: a grant does.
pub const GRANT_RIDES: &str = "a grant rides along";
/// Sometimes: all nodes that live are on one whole ring, after all crashes.
pub const WHOLE_AGAIN: &str = "the ring is whole after the crashes";

/// The model.
pub struct JoinModel {
    bounds: Bounds,
    init: Net,
}

impl JoinModel {
    /// A ring at rest, made by the real protocol.
    pub fn new(bounds: Bounds) -> JoinModel {
        JoinModel { init: Net::at_rest(&bounds), bounds }
    }
}

impl Model for JoinModel {
    type State = Net;
    type Action = Step;

    fn init_states(&self) -> Vec<Net> {
        vec![self.init.clone()]
    }

    fn actions(&self, net: &Net, steps: &mut Vec<Step>) {
        net.steps(&self.bounds, steps);
    }

    fn next_state(&self, net: &Net, step: Step) -> Option<Net> {
        Some(net.after(&self.bounds, step))
    }

    fn properties(&self) -> Vec<Property<JoinModel>> {
        vec![
            Property::always(O1, |_, net: &Net| promises::o1(net).is_ok()),
            Property::always(O3, |_, net: &Net| promises::o3(net).is_ok()),
            Property::sometimes(ALL_READY, |ring: &JoinModel, net: &Net| {
                promises::all_ready(net, &ring.bounds)
            }),
            Property::sometimes(GRANT_RIDES, |ring: &JoinModel, net: &Net| {
                !ring.bounds.ride || promises::grant_rides(net)
            }),
            Property::sometimes(WHOLE_AGAIN, |ring: &JoinModel, net: &Net| {
                promises::whole(net, &ring.bounds)
            }),
        ]
    }
}

/// Explores everything within the bounds; `stop_at`: no further than so many generated states.
pub fn explore(bounds: Bounds, stop_at: Option<usize>, mut say: impl FnMut(usize, usize)) -> Explored {
    let mut builder = JoinModel::new(bounds).checker().finish_when(HasDiscoveries::AllFailures);
    if let Some(limit) = stop_at {
        builder = builder.target_state_count(limit);
    }
    let mut checker = builder.spawn_bfs();
    for handle in checker.handles() {
        while !handle.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            say(checker.unique_state_count(), checker.max_depth());
        }
    }
    let discoveries = checker.discoveries();
    let broken = [O1, O3].into_iter().filter_map(|name| {
        let path = discoveries.get(name)?.clone();
        Some((name, promises::tell(path.into_vec())))
    });
    let broken: Vec<_> = broken.collect();
    // It goes no further than to where all is broken.
    let complete = broken.len() < 2 && stop_at.is_none_or(|limit| checker.state_count() < limit);
    let missing =
        [ALL_READY, WHOLE_AGAIN, GRANT_RIDES].into_iter().filter(|name| !discoveries.contains_key(name));
    Explored {
        unique: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        missing: if complete { missing.collect() } else { Vec::new() },
        complete,
        broken,
    }
}

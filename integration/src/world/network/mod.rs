//! How far apart nodes are: where they stand, and how long a frame takes between two of them. One file per model.

mod loads;
mod matrix;
mod pairs;
mod plane;
mod routers;
mod sphere;
#[cfg(test)]
mod tests;
mod topology;
mod transit_stub;

use std::time::Duration;

use rand::RngExt;
use treecast_overlay::random::{self, Rng};

pub use loads::LinkLoads;
pub use matrix::Matrix;
pub use topology::{ParseTopologyError, Topology};
pub use transit_stub::TransitStub;

use matrix::Points;
use pairs::Pairs;
use plane::Plane;
use routers::Routers;
use sphere::Sphere;

/// Where every slot stands, and so how long frames take: a function of the topology, the seed and the slot alone. A
/// [`World`](super::World) has one; without a world it serves for ideal figures over the very same network.
#[derive(Debug)]
pub struct Map {
    model: Model,
    /// Throws for places.
    places: Rng,
}

#[derive(Debug)]
enum Model {
    Constant(u64),
    Plane(Plane),
    Pairs(Pairs),
    Sphere(Sphere),
    TransitStub(Box<Routers>),
    Matrix(Points),
}

impl Map {
    /// No slot yet. The same topology and seed give the same map.
    pub fn new(topology: &Topology, seed: &[u8; 32]) -> Map {
        let model = match topology {
            Topology::Constant(latency) => Model::Constant(nanos(*latency)),
            Topology::Plane { nearest, across } => Model::Plane(Plane::new(*nearest, *across)),
            Topology::Pairs { least, most } => {
                Model::Pairs(Pairs::new(*least, *most, random::stream(seed, "world/topology")))
            }
            Topology::Sphere { nearest, across } => Model::Sphere(Sphere::new(*nearest, *across)),
            Topology::TransitStub(shape) => {
                let dice = random::stream(seed, "world/topology");
                Model::TransitStub(Box::new(Routers::new(shape, dice)))
            }
            Topology::Matrix(matrix) => Model::Matrix(Points::new(matrix.clone())),
        };
        Map { model, places: random::stream(seed, "world/places") }
    }

    /// Finds the next slot its place.
    pub fn add(&mut self) {
        match &mut self.model {
            Model::Constant(_) | Model::Pairs(_) => {}
            Model::Plane(plane) => plane.add(&mut self.places),
            Model::Sphere(sphere) => sphere.add(&mut self.places),
            Model::TransitStub(routers) => routers.add(&mut self.places),
            Model::Matrix(points) => points.add(&mut self.places),
        }
    }

    /// One way from a to b, without jitter. A slot that nobody ever lived in stands at some fixed place.
    pub fn latency(&self, a: usize, b: usize) -> Duration {
        Duration::from_nanos(self.nanos(a, b))
    }

    /// As [`latency`](Map::latency), in nanoseconds.
    pub fn nanos(&self, a: usize, b: usize) -> u64 {
        match &self.model {
            Model::Constant(nanos) => *nanos,
            Model::Plane(plane) => plane.nanos(a, b),
            Model::Pairs(pairs) => pairs.nanos(a, b),
            Model::Sphere(sphere) => sphere.nanos(a, b),
            Model::TransitStub(routers) => routers.nanos(a, b),
            Model::Matrix(points) => points.nanos(a, b),
        }
    }

    /// The thing that the slot is attached to: a router, a matrix's point; `None` if the model has nothing that two slots could
    /// share.
    pub fn router(&self, slot: usize) -> Option<u32> {
        match &self.model {
            Model::Constant(_) | Model::Pairs(_) | Model::Plane(_) | Model::Sphere(_) => None,
            Model::TransitStub(routers) => routers.router(slot),
            Model::Matrix(points) => points.point(slot),
        }
    }

    /// Whether the model has physical links.
    pub fn has_links(&self) -> bool {
        self.routers().is_some()
    }

    /// One crossing more for each physical link of a frame's way.
    pub fn count(&self, from: usize, to: usize, loads: &mut LinkLoads) {
        if let Some(routers) = self.routers() {
            routers.route(from, to, |link| loads.cross(link));
        }
    }

    fn routers(&self) -> Option<&Routers> {
        match &self.model {
            Model::TransitStub(routers) => Some(routers),
            Model::Constant(_) | Model::Pairs(_) | Model::Plane(_) | Model::Sphere(_) | Model::Matrix(_) => {
                None
            }
        }
    }

    /// The physical links of the IP multicast tree from a source: the union of the unicast routes to the members, as
    /// DVMRP and PIM build it. Each link once, in no special order. `None` if the model has no physical links.
    pub fn multicast_links(&self, source: usize, members: &[usize]) -> Option<Vec<u32>> {
        Some(self.routers()?.multicast_links(source, members))
    }

    /// Bytes of memory that places and routes take.
    pub fn bytes(&self) -> usize {
        match &self.model {
            Model::Constant(_) | Model::Pairs(_) => 0,
            Model::Plane(plane) => plane.bytes(),
            Model::Sphere(sphere) => sphere.bytes(),
            Model::TransitStub(routers) => routers.bytes(),
            Model::Matrix(points) => points.bytes(),
        }
    }
}

/// The map, and each frame's jitter.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) map: Map,
    /// Most that jitter adds, as a share of the latency.
    jitter: f64,
    dice: Rng,
}

impl Network {
    pub(super) fn new(topology: &Topology, jitter: f64, seed: &[u8; 32]) -> Network {
        let dice = random::stream(seed, "world/network");
        Network { map: Map::new(topology, seed), jitter, dice }
    }

    /// One frame's way, jitter thrown.
    pub(super) fn delay(&mut self, a: usize, b: usize) -> Duration {
        let nanos = self.map.nanos(a, b);
        if self.jitter == 0.0 {
            return Duration::from_nanos(nanos);
        }
        Duration::from_nanos(nanos + share(nanos, self.jitter * self.dice.random::<f64>()))
    }

    /// The longest that jitter alone can make a frame's way: a connection's end comes no earlier than this, and so
    /// after the frames sent before it.
    pub(super) fn slowest(&self, a: usize, b: usize) -> Duration {
        let nanos = self.map.nanos(a, b);
        Duration::from_nanos(nanos + share(nanos, self.jitter))
    }
}

/// Nanoseconds: latencies are far below the 584 years that fit.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn share(nanos: u64, share: f64) -> u64 {
    (nanos as f64 * share) as u64
}

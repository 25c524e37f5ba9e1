//! How far apart nodes are: where they stand, and how long a frame takes between two of them.

use std::time::Duration;

use rand::RngExt;
use treecast_overlay::random::Rng;

/// How long a frame takes from one slot to another, before jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Latency {
    /// The same between any two.
    Constant(Duration),
    /// Nodes stand at random on a square, and latency grows with their distance: `nearest` for two at one point,
    /// `nearest + across` for two in opposite corners.
    Plane {
        /// What even neighbours need.
        nearest: Duration,
        /// What the square's diagonal adds.
        across: Duration,
    },
}

/// Where the slots stand.
#[derive(Debug)]
pub(super) struct Network {
    latency: Latency,
    /// Most that jitter adds, as a share of the latency.
    jitter: f64,
    places: Vec<(f32, f32)>,
    dice: Rng,
}

/// Where a slot stands that nobody ever lived in: in the middle.
const NOWHERE: (f32, f32) = (0.5, 0.5);

impl Network {
    pub(super) fn new(latency: Latency, jitter: f64, dice: Rng) -> Network {
        Network { latency, jitter, places: Vec::new(), dice }
    }

    pub(super) fn add(&mut self) {
        // Drawn whatever the model is, so that later draws do not depend on it.
        self.places.push((self.dice.random(), self.dice.random()));
    }

    /// Without jitter. A function of the pair alone, and the same both ways.
    pub(super) fn latency(&self, a: usize, b: usize) -> Duration {
        match self.latency {
            Latency::Constant(latency) => latency,
            Latency::Plane { nearest, across } => {
                let (ax, ay) = self.places.get(a).copied().unwrap_or(NOWHERE);
                let (bx, by) = self.places.get(b).copied().unwrap_or(NOWHERE);
                let (dx, dy) = (f64::from(ax - bx), f64::from(ay - by));
                nearest + across.mul_f64(((dx * dx + dy * dy) / 2.0).sqrt().min(1.0))
            }
        }
    }

    /// One frame's way, jitter thrown.
    pub(super) fn delay(&mut self, a: usize, b: usize) -> Duration {
        let latency = self.latency(a, b);
        if self.jitter == 0.0 {
            return latency;
        }
        latency + latency.mul_f64(self.jitter * self.dice.random::<f64>())
    }

    /// The longest that jitter alone can make a frame's way: a connection's end comes no earlier than this, and so
    /// after the frames sent before it.
    pub(super) fn slowest(&self, a: usize, b: usize) -> Duration {
        self.latency(a, b).mul_f64(1.0 + self.jitter)
    }
}

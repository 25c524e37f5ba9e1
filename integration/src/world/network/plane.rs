//! Nodes thrown at random on a square; latency grows with their distance.

use std::time::Duration;

use rand::RngExt;
use treecast_overlay::random::Rng;

use super::{nanos, share};

/// Where a slot stands that nobody ever lived in: in the middle.
const NOWHERE: (f32, f32) = (0.5, 0.5);

#[derive(Debug)]
pub(super) struct Plane {
    nearest: u64,
    across: u64,
    places: Vec<(f32, f32)>,
}

impl Plane {
    pub(super) fn new(nearest: Duration, across: Duration) -> Plane {
        Plane { nearest: nanos(nearest), across: nanos(across), places: Vec::new() }
    }

    pub(super) fn add(&mut self, dice: &mut Rng) {
        self.places.push((dice.random(), dice.random()));
    }

    pub(super) fn nanos(&self, a: usize, b: usize) -> u64 {
        let (ax, ay) = self.places.get(a).copied().unwrap_or(NOWHERE);
        let (bx, by) = self.places.get(b).copied().unwrap_or(NOWHERE);
        let (dx, dy) = (f64::from(ax - bx), f64::from(ay - by));
        self.nearest + share(self.across, ((dx * dx + dy * dy) / 2.0).sqrt().min(1.0))
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<(f32, f32)>()
    }
}

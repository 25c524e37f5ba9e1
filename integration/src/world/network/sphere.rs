//! Nodes thrown at random on a sphere; latency grows with the great circle between them.

use std::f64::consts::PI;
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::random::Rng;

use super::{nanos, share};

type Point = [f32; 3];

/// Where a slot stands that nobody ever lived in: at the pole.
const NOWHERE: Point = [0.0, 0.0, 1.0];

#[derive(Debug)]
pub(super) struct Sphere {
    nearest: u64,
    across: u64,
    places: Vec<Point>,
}

impl Sphere {
    pub(super) fn new(nearest: Duration, across: Duration) -> Sphere {
        Sphere { nearest: nanos(nearest), across: nanos(across), places: Vec::new() }
    }

    pub(super) fn add(&mut self, dice: &mut Rng) {
        self.places.push(throw(dice));
    }

    pub(super) fn nanos(&self, a: usize, b: usize) -> u64 {
        let a = self.places.get(a).unwrap_or(&NOWHERE);
        let b = self.places.get(b).unwrap_or(&NOWHERE);
        let cosine: f64 = a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
        self.nearest + share(self.across, angle(cosine) / PI)
    }

    pub(super) fn bytes(&self) -> usize {
        self.places.capacity() * size_of::<Point>()
    }
}

/// A point of the unit sphere (Marsaglia 1972): by arithmetic and roots alone, which are the same everywhere.
fn throw(dice: &mut Rng) -> Point {
    loop {
        let (u, v) = (2.0 * dice.random::<f64>() - 1.0, 2.0 * dice.random::<f64>() - 1.0);
        let square = u * u + v * v;
        if square < 1.0 {
            let root = 2.0 * (1.0 - square).sqrt();
            return [(u * root) as f32, (v * root) as f32, (1.0 - 2.0 * square) as f32];
        }
    }
}

/// The arc cosine, to 7e-5 (Abramowitz & Stegun 4.4.45): the libraries' own may differ in the last bit from machine to
/// machine.
fn angle(cosine: f64) -> f64 {
    let x = cosine.abs().min(1.0);
    let acute = (1.0 - x).sqrt() * (((-0.0187293 * x + 0.0742610) * x - 0.2121144) * x + 1.5707288);
    if cosine < 0.0 { PI - acute } else { acute }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_angle_is_the_arc_cosine() {
        for step in -1000..=1000 {
            let cosine = f64::from(step) / 1000.0;
            let off = (angle(cosine) - cosine.acos()).abs();
            assert!(off < 7e-5, "{cosine}: off by {off}");
        }
    }
}

//! The memory of a node at rest, counted by itself: capacities times sizes. Large simulated rings and machines
//! with many nodes live by it.

use std::collections::VecDeque;
use std::fmt;

/// Entries of a full leaf of the standard library's B-trees, and how full their nodes are on average after random
/// inserts: measured against an allocator that counts, within a tenth.
const LEAF: usize = 11;
const FILLED: f64 = 0.7;
/// Parent, place in it, and count.
const NODE: usize = 16;

/// Bytes of a node by part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    parts: Vec<(&'static str, usize)>,
}

impl Memory {
    /// Adds a part.
    pub fn add(&mut self, part: &'static str, bytes: usize) {
        self.parts.push((part, bytes));
    }

    /// The parts, in the order in which they were added.
    pub fn parts(&self) -> &[(&'static str, usize)] {
        &self.parts
    }

    /// All together.
    pub fn total(&self) -> usize {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (part, bytes) in &self.parts {
            writeln!(f, "{part:<16}{bytes:>8}")?;
        }
        write!(f, "{:<16}{:>8}", "total", self.total())
    }
}

/// Bytes of a list on the heap, without what its elements own.
pub fn list<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}

/// Bytes of a queue on the heap, without what its elements own.
pub fn queue<T>(queue: &VecDeque<T>) -> usize {
    queue.capacity() * size_of::<T>()
}

/// Bytes of a B-tree of `len` entries of `entry` bytes on the heap, without what they own: an estimate, exact up to
/// eleven.
pub fn tree(len: usize, entry: usize) -> usize {
    let leaves = match len {
        0 => 0,
        1..=LEAF => 1,
        more => (more as f64 / (LEAF as f64 * FILLED)).ceil() as usize,
    };
    leaves * (LEAF * entry + NODE)
}

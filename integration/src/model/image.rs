//! Images, by which states of the model are compared. Two states are one if they differ only in what time it is, in how far the
//! nodes have counted their questions, and in what [`Node::hash_state`] leaves out.
//!
//! So that the derived hashes of the real core serve, three kinds of numbers live in ranges of their own, by which
//! [`Tracer`] tells them: instants count from [`EPOCH`] and are hashed as the distance from now, a node's questions from
//! [`first_number`] and are hashed by their order. Everything smaller stands for itself.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use treecast_overlay::pastry::Node;
use treecast_overlay::time::Instant;

/// The model's time begins here: 13 days, so that no instant is as small as a count.
pub(super) const EPOCH: Instant = Instant::from_nanos(1 << 50);
/// Anything as far in the future is out of reach: of all that nodes wait for, only rounds of repair, of sweeping and of
/// asking for lost nodes are. A ring at rest has come back to itself before they come.
pub(super) const FAR: Duration = Duration::from_secs(9);
/// Anything as long ago is older than anything is measured by.
const LONG_AGO: Duration = Duration::from_secs(16);
const INSTANTS: std::ops::Range<u64> = 1 << 49..1 << 58;
const NUMBERS: std::ops::Range<u64> = 1 << 58..1 << 59;
/// Questions of one node.
const RANGE: u32 = 48;

/// Where the questions of the node in a slot begin.
pub(super) fn first_number(slot: usize) -> u64 {
    NUMBERS.start + ((slot as u64) << RANGE)
}

/// The hash of something, apart from the questions that it names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Image {
    shape: u64,
    /// Questions, in the order in which they are met.
    numbers: Vec<u64>,
}

impl Image {
    /// The image of a node.
    pub(super) fn of_node(now: Instant, node: &Node) -> Image {
        let mut tracer = Tracer::at(now);
        node.hash_state(&mut tracer);
        tracer.image()
    }

    /// The image of something that knows no time.
    pub(super) fn of(thing: impl Hash) -> Image {
        let mut tracer = Tracer::at(EPOCH);
        thing.hash(&mut tracer);
        tracer.image()
    }

    /// The questions that it names.
    pub(super) fn numbers(&self) -> &[u64] {
        &self.numbers
    }

    /// Hashes it; questions by their place among `live`, which has them all in order.
    pub(super) fn hash_among(&self, live: &[u64], state: &mut impl Hasher) {
        self.shape.hash(state);
        self.numbers.iter().for_each(|&number| place(number, live).hash(state));
    }
}

/// The asker of a question, and its place among those of that asker that count.
pub(super) fn place(number: u64, live: &[u64]) -> (u64, usize) {
    let asker = number >> RANGE;
    let first = live.partition_point(|&other| other >> RANGE < asker);
    (asker, live.partition_point(|&other| other < number) - first)
}

/// A hasher that sees what a number is.
struct Tracer {
    now: u64,
    shape: DefaultHasher,
    numbers: Vec<u64>,
}

impl Tracer {
    fn at(now: Instant) -> Tracer {
        Tracer { now: now.as_nanos(), shape: DefaultHasher::new(), numbers: Vec::new() }
    }

    fn image(self) -> Image {
        Image { shape: self.shape.finish(), numbers: self.numbers }
    }
}

impl Hasher for Tracer {
    fn finish(&self) -> u64 {
        self.shape.finish()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.shape.write(bytes);
    }

    fn write_u64(&mut self, value: u64) {
        if NUMBERS.contains(&value) {
            self.shape.write_u8(1);
            self.numbers.push(value);
        } else if INSTANTS.contains(&value) {
            let (ahead, behind) = (value.saturating_sub(self.now), self.now.saturating_sub(value));
            self.shape.write_u8(2);
            self.shape.write_u64(ahead.min(FAR.as_nanos() as u64));
            self.shape.write_u64(behind.min(LONG_AGO.as_nanos() as u64));
        } else {
            self.shape.write_u8(3);
            self.shape.write_u64(value);
        }
    }
}

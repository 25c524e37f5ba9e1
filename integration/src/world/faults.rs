//! Things that go wrong on the way: loss, duplication, reordering by dice, and cuts between nodes by decree.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use rand::RngExt;
use treecast_overlay::random::Rng;

/// Shares of frames to which something happens, each by its own throw of the dice. [`Faults::default`] is none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Share of frames that vanish, 0..=1.
    pub loss: f64,
    /// Share of the others that arrive twice, 0..=1.
    pub duplication: f64,
    /// Share of arriving copies that are held back by up to `reorder_by`, 0..=1.
    pub reordering: f64,
    /// Longest that a copy is held back.
    pub reorder_by: Duration,
}

/// The dice's verdict on one frame: when its copies arrive beyond their latency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiceVerdict {
    Lost,
    Once(Duration),
    Twice(Duration, Duration),
}

impl Faults {
    pub(super) fn verdict(&self, dice: &mut Rng) -> DiceVerdict {
        if happens(dice, self.loss) {
            return DiceVerdict::Lost;
        }
        let twice = happens(dice, self.duplication);
        let first = self.held_back(dice);
        if twice { DiceVerdict::Twice(first, self.held_back(dice)) } else { DiceVerdict::Once(first) }
    }

    fn held_back(&self, dice: &mut Rng) -> Duration {
        if happens(dice, self.reordering) {
            self.reorder_by.mul_f64(dice.random::<f64>())
        } else {
            Duration::ZERO
        }
    }
}

/// Throws only if there is something to decide.
pub(super) fn happens(dice: &mut Rng, share: f64) -> bool {
    share > 0.0 && dice.random::<f64>() < share
}

/// Pairs that cannot reach each other. Frames of a severed pair vanish without a word; connections stay half open.
pub enum Cut {
    /// Symmetric: each slot reaches its own side only. Side of slot i is `sides[i]`; slots beyond the list are on
    /// side 0.
    Sides(Vec<u8>),
    /// One way: nothing from the first reaches the second; the way back is open.
    OneWay {
        /// Senders of the frames that vanish.
        from: BTreeSet<usize>,
        /// On their way to whom.
        to: BTreeSet<usize>,
    },
    /// Whatever else: given sender and receiver, true where nothing passes. Must be a pure function.
    Where(Box<dyn Fn(usize, usize) -> bool + Send>),
}

impl Cut {
    /// One slot on its own, both ways.
    pub fn isolate(slot: usize) -> Cut {
        Cut::island(&[slot])
    }

    /// Some slots from all others, both ways; not from each other.
    pub fn island(slots: &[usize]) -> Cut {
        let slots: BTreeSet<usize> = slots.iter().copied().collect();
        Cut::Where(Box::new(move |from, to| slots.contains(&from) != slots.contains(&to)))
    }

    /// One pair, both ways: others reach both.
    pub fn pair(a: usize, b: usize) -> Cut {
        Cut::Where(Box::new(move |from, to| (from, to) == (a, b) || (from, to) == (b, a)))
    }

    /// A share of all pairs, 0..=1, each both ways: which pairs cannot reach each other is drawn by the seed. So reachability is not
    /// transitive, as among 2.3 % of PlanetLab's pairs (Freedman et al. 2005).
    pub fn pairs(share: f64, seed: u64) -> Cut {
        let threshold = (share.clamp(0.0, 1.0) * 2_f64.powi(53)) as u64;
        Cut::Where(Box::new(move |a, b| {
            let (low, high) = (a.min(b) as u64, a.max(b) as u64);
            a != b && scattered(seed ^ scattered(low ^ scattered(high))) >> 11 < threshold
        }))
    }

    /// Whether nothing passes from the one slot to the other.
    pub fn severs(&self, from: usize, to: usize) -> bool {
        match self {
            Cut::Sides(sides) => {
                let side = |slot: usize| sides.get(slot).copied().unwrap_or_default();
                side(from) != side(to)
            }
            Cut::OneWay { from: senders, to: receivers } => {
                senders.contains(&from) && receivers.contains(&to)
            }
            Cut::Where(severs) => severs(from, to),
        }
    }
}

/// A number made unrecognisable, evenly (splitmix64's last step, Steele et al. 2014).
fn scattered(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl fmt::Debug for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Sides(sides) => f.debug_tuple("Sides").field(sides).finish(),
            Cut::OneWay { from, to } => f.debug_struct("OneWay").field("from", from).field("to", to).finish(),
            Cut::Where(_) => f.write_str("Where(..)"),
        }
    }
}

/// The slots that are reached from a slot, step by step.
fn reached(nodes: &[usize], first: usize, passes: impl Fn(usize, usize) -> bool) -> BTreeSet<usize> {
    let (mut met, mut edge) = (BTreeSet::from([first]), vec![first]);
    while let Some(from) = edge.pop() {
        for &to in nodes {
            if !met.contains(&to) && passes(from, to) {
                met.insert(to);
                edge.push(to);
            }
        }
    }
    met
}

/// Names a cut, for healing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CutId(u64);

/// The cuts in force; a frame passes if none severs its pair.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    cuts: Vec<(CutId, Cut)>,
    last: u64,
}

impl Cuts {
    pub(super) fn add(&mut self, cut: Cut) -> CutId {
        self.last += 1;
        self.cuts.push((CutId(self.last), cut));
        CutId(self.last)
    }

    pub(super) fn heal(&mut self, id: CutId) {
        self.cuts.retain(|(other, _)| *other != id);
    }

    pub(super) fn heal_all(&mut self) {
        self.cuts.clear();
    }

    pub(super) fn sever(&self, from: usize, to: usize) -> bool {
        self.cuts.iter().any(|(_, cut)| cut.severs(from, to))
    }

    /// The strongly connected components of reachability among `nodes`, by their first one; the largest is 0.
    pub(super) fn sides(&self, slots: usize, nodes: &[usize]) -> Vec<u8> {
        if self.cuts.is_empty() {
            return vec![0; slots];
        }
        let mut firsts: BTreeMap<usize, usize> = BTreeMap::new();
        let mut sizes = BTreeMap::new();
        for &first in nodes {
            if !firsts.contains_key(&first) {
                let there = reached(nodes, first, |from, to| !self.sever(from, to));
                let back = reached(nodes, first, |from, to| !self.sever(to, from));
                let both: Vec<usize> = there.intersection(&back).copied().collect();
                sizes.insert(first, both.len());
                firsts.extend(both.into_iter().map(|slot| (slot, first)));
            }
        }
        let largest =
            sizes.iter().max_by_key(|&(&first, &size)| (size, Reverse(first))).map(|(first, _)| *first);
        let number = |first: usize| if Some(first) == largest { 0 } else { 1 + (first % 255) as u8 };
        (0..slots).map(|slot| firsts.get(&slot).map_or(0, |&first| number(first))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_reach_each_other_through_others_are_one_side() {
        let (mut cuts, all) = (Cuts::default(), [0, 1, 2, 3]);
        assert_eq!(cuts.sides(4, &all), [0, 0, 0, 0]);
        cuts.add(Cut::pair(0, 3));
        assert_eq!(cuts.sides(4, &all), [0, 0, 0, 0], "others reach both");
        assert_eq!(cuts.sides(4, &[0, 3]), [0, 0, 0, 4], "nobody else is there to help");
        cuts.add(Cut::OneWay { from: [1, 2].into(), to: [3].into() });
        assert_eq!(cuts.sides(4, &all), [0, 0, 0, 4], "nothing reaches it, whatever it says");
        let island = cuts.add(Cut::island(&[0, 1]));
        assert_eq!(cuts.sides(4, &all), [0, 0, 3, 4]);
        cuts.heal(island);
        assert_eq!(cuts.sides(4, &all), [0, 0, 0, 4]);
    }
}

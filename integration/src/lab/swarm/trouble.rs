//! What troubles hosts and networks besides crashes: slowness, clocks, thin lines, and pairs and crowds that cannot reach
//! each other.

use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use super::turmoil::{Severed, Turmoil};
use crate::world::{Cut, Uplink};

/// Fastest and slowest clocks: two of them differ by less than the 5 % for which leases allow (design §5).
const DRIFT_PPM: i32 = 24_000;
/// How often a share of pairs is drawn again that cuts somebody off from too many.
const TRIES: usize = 4;

/// A host that is not as it should be, and the step at which it is again.
pub(super) struct Hampered {
    slot: usize,
    by: Burden,
    pub(super) until: usize,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug)]
enum Burden {
    Slowness,
    Clock,
    Uplink,
}

impl Turmoil {
    pub(super) fn free(&mut self, hampered: &Hampered) {
        let &Hampered { slot, by, .. } = hampered;
        self.tell(|| format!("slot {slot} is rid of its {by:?}"));
        match by {
            Burden::Slowness => self.grove.quicken(slot),
            Burden::Clock => self.grove.world.set_drift(slot, 0),
            Burden::Uplink => self.grove.world.set_uplink(slot, None),
        }
    }

    fn is_hampered(&self, slot: usize) -> bool {
        self.hampered.iter().any(|hampered| hampered.slot == slot)
    }

    pub(super) fn slow_down(&mut self, step: usize) {
        for slot in self.victims(step, 1) {
            if self.is_hampered(slot) {
                continue;
            }
            let per_frame = Duration::from_millis(*[1, 5, 20, 50].choose(&mut self.dice).expect("some"));
            let until = step + self.dice.random_range(2..10);
            self.note("slow node", || format!("slot {slot}: {per_frame:?} a frame"));
            self.grove.slow(slot, per_frame);
            self.hampered.push(Hampered { slot, by: Burden::Slowness, until });
        }
    }

    /// No judge excuses anything: leases allow for it.
    pub(super) fn drift(&mut self, step: usize) {
        if self.hampered.iter().any(|hampered| matches!(hampered.by, Burden::Clock)) {
            return;
        }
        let until = step + self.dice.random_range(4..16);
        self.note("clock drift", || format!("up to {DRIFT_PPM} ppm"));
        for slot in 0..self.grove.world.slots() {
            self.grove.world.set_drift(slot, self.dice.random_range(-DRIFT_PPM..=DRIFT_PPM));
            self.hampered.push(Hampered { slot, by: Burden::Clock, until });
        }
    }

    pub(super) fn jump_clock(&mut self, step: usize) {
        for slot in self.victims(step, 1) {
            let by = Duration::from_secs(self.dice.random_range(1..=120));
            self.note("clock jump", || format!("slot {slot} by {by:?}"));
            self.grove.jump_clock(slot, by);
        }
    }

    pub(super) fn throttle(&mut self, step: usize) {
        for slot in self.some_ready(1) {
            if self.is_hampered(slot) {
                continue;
            }
            let bytes_per_second = *[20_000, 50_000, 200_000].choose(&mut self.dice).expect("some");
            let queue = *[65_536, 1 << 20].choose(&mut self.dice).expect("some");
            let until = step + self.dice.random_range(2..10);
            self.note("limited uplink", || format!("slot {slot}: {bytes_per_second} bytes a second"));
            self.grove.world.set_uplink(slot, Some(Uplink { bytes_per_second, queue }));
            self.hampered.push(Hampered { slot, by: Burden::Uplink, until });
        }
    }

    /// Nobody is cut off from more than a third of the others, so that any two have a third between them.
    pub(super) fn part_pairs(&mut self, step: usize) {
        let live: Vec<usize> = self.grove.stacks().map(|(slot, _)| slot).collect();
        for _ in 0..TRIES {
            let share = *[0.023, 0.05, 0.1].choose(&mut self.dice).expect("some");
            let cut = Cut::pairs(share, self.dice.random());
            let missed = |&slot: &usize| live.iter().filter(|&&other| cut.severs(slot, other)).count();
            let most = live.iter().map(missed).max().unwrap_or_default();
            if most == 0 || 3 * most >= live.len() {
                continue;
            }
            self.note("non-transitive pairs", || format!("{share} of all, up to {most} of a node"));
            let cut = self.grove.cut(cut);
            let until = step + self.dice.random_range(2..12);
            return self.cuts.push(Severed { cut, apart: Vec::new(), until });
        }
    }

    pub(super) fn part_neighbours(&mut self, step: usize) {
        let &[slot, _, _, _] = &self.some_ready(4)[..] else { return };
        let Some(next) = self.grove.stack(slot).ring().leaf_set().right().map(|peer| peer.id) else { return };
        let Some(other) = self.grove.ready().into_iter().find(|&other| self.grove.id(other) == next) else {
            return;
        };
        let cut = match self.dice.random_range(0..3) {
            0 => Cut::pair(slot, other),
            1 => Cut::OneWay { from: [slot].into(), to: [other].into() },
            _ => Cut::OneWay { from: [other].into(), to: [slot].into() },
        };
        self.note("cut between ring neighbours", || format!("slots {slot} and {other}: {cut:?}"));
        let cut = self.grove.cut(cut);
        let until = step + self.dice.random_range(1..12);
        self.cuts.push(Severed { cut, apart: Vec::new(), until });
    }

    /// Of nodes without applications, for the same reason as isolation.
    pub(super) fn part_many(&mut self, step: usize) {
        let most = self.spare(step);
        let mut island = self.grove.ready();
        island.retain(|&slot| self.is_bystander(slot) && !self.stands_apart(slot));
        island.shuffle(&mut self.dice);
        island.truncate(most);
        if island.len() < 2 {
            return;
        }
        self.failures.push((step, island.len()));
        self.note("partition of several", || format!("slots {island:?}"));
        let cut = self.grove.part(&island);
        let until = step + self.dice.random_range(2..24);
        self.cuts.push(Severed { cut, apart: island, until });
    }
}

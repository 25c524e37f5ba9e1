//! The actions that deeds come to in a world as it is now: drawn from the world's own dice.

use std::time::Duration;

use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};

use super::run::SwarmRun;
use crate::node::RingNode;
use crate::timeline::{Action, Deed, Split};
use crate::world::{Crash, Uplink};

/// Fastest and slowest clocks: two of them differ by less than the 5 % for which leases allow (design §5).
pub(in crate::lab) const DRIFT_PPM: i32 = 24_000;
/// How often a share of pairs is drawn again that cuts a node off from too many.
const TRIES: usize = 4;

/// Something that is to be done, and for how many steps.
type Drawn = Option<(Action, usize)>;

impl<N: RingNode> SwarmRun<N> {
    /// Draws the action of a deed; `None`: nothing, now.
    pub(super) fn draw(&mut self, step: usize, deed: Deed) -> Drawn {
        match deed {
            Deed::CrashProcess => self.draw_crash(step, 1, Crash::Process),
            Deed::CrashPower => self.draw_crash(step, 1, Crash::Power),
            Deed::CrashSeveral => {
                let how = self.draw_how();
                self.draw_crash(step, 4, how)
            }
            Deed::CrashRoot => self.draw_root(step),
            Deed::Restart => self.draw_restart(),
            Deed::Leave => Some((Action::Leave(self.victims(step, 1).pop()?), 0)),
            Deed::Pause => {
                let slot = self.victims(step, 1).pop()?;
                Some((Action::Pause(vec![slot]), self.dice.random_range(1..12)))
            }
            Deed::Isolate => self.draw_island(step, true),
            Deed::Blink => self.draw_island(step, false),
            Deed::Part => self.draw_pair(true),
            Deed::Deafen => self.draw_pair(false),
            Deed::Join => Some((Action::Join(Some(self.draw_seeds()?)), 0)),
            Deed::JoinEdge => Some((Action::JoinEdge(self.draw_seeds()?), 0)),
            Deed::Subscribe => self.draw_subscriber(None),
            Deed::Stall => self.draw_subscriber(Some(3)),
            Deed::Unsubscribe => self.draw_unsubscribe(),
            Deed::Burst => Some((self.draw_burst(), 0)),
            Deed::Slow => self.draw_slow(step),
            Deed::Drift => self.draw_drift(),
            Deed::JumpClock => {
                let slot = self.victims(step, 1).pop()?;
                let by = Duration::from_secs(self.dice.random_range(1..=120));
                Some((Action::JumpClock(vec![slot], by), 0))
            }
            Deed::Throttle => self.draw_throttle(),
            Deed::Pairs => self.draw_pairs(),
            Deed::PartNeighbours => self.draw_neighbours(),
            Deed::PartMany => self.draw_many(step),
            // The world is like that from its beginning; the others end what a draw began.
            Deed::Matrix | Deed::Sparse | Deed::Thrifty => None,
            Deed::Resume | Deed::Rejoin | Deed::Heal | Deed::Unstall | Deed::Weather => None,
        }
    }

    // Nodes.

    /// How many more may fail now: a leaf set of which half fails at once is excused of what follows, and proves
    /// nothing; and some nodes must be left.
    fn spare(&mut self, step: usize) -> usize {
        self.failures.retain(|(at, _)| at + 8 > step);
        let failing: usize = self.failures.iter().map(|(_, count)| count).sum();
        let ready = self.timeline.cluster.ready().len();
        let most = (self.plan.ring.tables.leaf_set / 4).min(ready / 3);
        most.saturating_sub(failing)
    }

    /// Nodes that may fail now. A node that is cut off already is left alone.
    fn victims(&mut self, step: usize, count: usize) -> Vec<usize> {
        let count = count.min(self.spare(step));
        let mut ready = self.timeline.cluster.ready();
        ready.retain(|slot| !self.timeline.stands_apart(*slot));
        ready.shuffle(&mut self.dice);
        ready.truncate(count);
        self.failures.push((step, ready.len()));
        ready
    }

    fn draw_how(&mut self) -> Crash {
        if self.dice.random() { Crash::Process } else { Crash::Power }
    }

    fn draw_crash(&mut self, step: usize, count: usize, how: Crash) -> Drawn {
        let slots = self.victims(step, count);
        Some((Action::Crash { slots, how, of_root: false }, 0))
    }

    fn draw_root(&mut self, step: usize) -> Drawn {
        let topic = self.dice.random_range(0..self.topics.len());
        let root = self.timeline.cluster.root(&self.topics[topic]);
        let free = self.timeline.cluster.world.is_running(root) && !self.timeline.stands_apart(root);
        if !free || self.spare(step) == 0 {
            return None;
        }
        self.failures.push((step, 1));
        Some((Action::Crash { slots: vec![root], how: self.draw_how(), of_root: true }, 0))
    }

    fn draw_restart(&mut self) -> Drawn {
        let through = self.some_ready(3);
        let world = &self.timeline.cluster.world;
        let dead: Vec<usize> = (0..world.slots()).filter(|&slot| world.machine(slot).is_none()).collect();
        match (dead.choose(&mut self.dice), through.is_empty()) {
            (Some(&slot), false) => Some((Action::Restart(slot, through), 0)),
            (Some(_) | None, _) => None,
        }
    }

    fn draw_seeds(&mut self) -> Option<Vec<usize>> {
        let through = self.some_ready(3);
        let full = self.timeline.cluster.world.slots() >= 2 * self.plan.nodes + 4;
        (!through.is_empty() && !full).then_some(through)
    }

    // Applications.

    fn draw_subscriber(&mut self, takes: Option<u32>) -> Drawn {
        let topic = self.dice.random_range(0..self.topics.len());
        let &slot = self.inhabited().choose(&mut self.dice)?;
        let (topic, late) = (self.topics[topic].clone(), takes.is_none());
        Some((Action::Subscribe { slot, topic, takes, late }, 0))
    }

    fn draw_unsubscribe(&mut self) -> Drawn {
        let subscriptions = &mut self.timeline.subscriptions;
        if subscriptions.is_empty() {
            return None;
        }
        let place = self.dice.random_range(0..subscriptions.len());
        Some((Action::Unsubscribe(subscriptions.swap_remove(place)), 0))
    }

    fn draw_burst(&mut self) -> Action {
        let topic = self.dice.random_range(0..self.topics.len());
        let messages = self.dice.random_range(10..60);
        let publishers = self.inhabited();
        let slots = (0..messages).filter_map(|_| publishers.choose(&mut self.dice).copied()).collect();
        Action::Publish { slots, topic: self.topics[topic].clone(), bytes: self.plan.payload, burst: true }
    }

    // Hosts.

    fn draw_slow(&mut self, step: usize) -> Drawn {
        let slot = self.victims(step, 1).pop().filter(|&slot| !self.timeline.is_impaired(slot))?;
        let per_frame = Duration::from_millis(*[1, 5, 20, 50].choose(&mut self.dice)?);
        Some((Action::Slow(slot, per_frame), self.dice.random_range(2..10)))
    }

    /// No judge excuses anything: leases allow for it.
    fn draw_drift(&mut self) -> Drawn {
        if self.timeline.is_drifting() {
            return None;
        }
        let steps = self.dice.random_range(4..16);
        let slots = 0..self.timeline.cluster.world.slots();
        let drift = |slot| (slot, self.dice.random_range(-DRIFT_PPM..=DRIFT_PPM));
        Some((Action::Drift(slots.map(drift).collect()), steps))
    }

    fn draw_throttle(&mut self) -> Drawn {
        let slot = self.some_ready(1).pop().filter(|&slot| !self.timeline.is_impaired(slot))?;
        let bytes_per_second = *[20_000, 50_000, 200_000].choose(&mut self.dice)?;
        let queue = *[65_536, 1 << 20].choose(&mut self.dice)?;
        let steps = self.dice.random_range(2..10);
        Some((Action::Throttle(slot, Some(Uplink { bytes_per_second, queue })), steps))
    }

    // Networks.

    fn draw_island(&mut self, step: usize, long: bool) -> Drawn {
        let slot = self.victims(step, 1).pop()?;
        let steps = if long { self.dice.random_range(12..24) } else { 1 };
        Some((Action::Isolate(vec![slot], 1), steps))
    }

    /// Neighbours are parted by a deed of their own.
    fn draw_pair(&mut self, both: bool) -> Drawn {
        let &[a, b, _, _] = &self.some_ready(4)[..] else { return None };
        let knows = |slot: usize, other: usize| {
            let near = self.timeline.cluster.stack(slot).ring().neighbours();
            near.into_iter().flatten().any(|peer| peer.id == self.timeline.cluster.id(other))
        };
        if knows(a, b) || knows(b, a) {
            return None;
        }
        let split = if both { Split::Pair(a, b, false) } else { Split::OneWay(a, b, false) };
        Some((Action::Sever(split), self.dice.random_range(1..6)))
    }

    /// No node is cut off from more than a third of the others, so that any two have a third between them.
    fn draw_pairs(&mut self) -> Drawn {
        let live: Vec<usize> = self.timeline.cluster.stacks().map(|(slot, _)| slot).collect();
        for _ in 0..TRIES {
            let share = *[0.023, 0.05, 0.1].choose(&mut self.dice)?;
            let split = Split::Pairs(share, self.dice.random());
            let cut = split.cut();
            let missed = |&slot: &usize| live.iter().filter(|&&other| cut.severs(slot, other)).count();
            let most = live.iter().map(missed).max().unwrap_or_default();
            if most > 0 && 3 * most < live.len() {
                return Some((Action::Sever(split), self.dice.random_range(2..12)));
            }
        }
        None
    }

    fn draw_neighbours(&mut self) -> Drawn {
        let &[slot, _, _, _] = &self.some_ready(4)[..] else { return None };
        let cluster = &self.timeline.cluster;
        let [_, next] = cluster.stack(slot).ring().neighbours();
        let other =
            cluster.ready().into_iter().find(|&other| Some(cluster.id(other)) == next.map(|n| n.id))?;
        let split = match self.dice.random_range(0..3) {
            0 => Split::Pair(slot, other, true),
            1 => Split::OneWay(slot, other, true),
            _ => Split::OneWay(other, slot, true),
        };
        Some((Action::Sever(split), self.dice.random_range(1..12)))
    }

    /// Both sides publish and subscribe.
    fn draw_many(&mut self, step: usize) -> Drawn {
        let most = self.spare(step);
        let mut island = self.timeline.cluster.ready();
        island.retain(|&slot| !self.timeline.stands_apart(slot));
        island.shuffle(&mut self.dice);
        island.truncate(most);
        if island.len() < 2 {
            return None;
        }
        self.failures.push((step, island.len()));
        Some((Action::Isolate(island, 1), self.dice.random_range(2..24)))
    }
}

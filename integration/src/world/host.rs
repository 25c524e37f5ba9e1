//! Peculiarities of a node's host: its clock, its speed, its uplink. Few have any of it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::machine::Machine;
use treecast_overlay::net::transport::QUEUED_STEP;
use treecast_overlay::time::Instant;

use super::queue::{Arrival, Happening, Word};
use super::trace::Loss;
use super::{SlotState, Waiting, World};

/// An access link with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// How fast frames leave.
    pub bytes_per_second: u64,
    /// Most bytes that wait; a frame beyond is lost. Control goes before data, as in the transports.
    pub queue: usize,
}

/// Fastest and slowest that a clock may run: half, and half as fast again.
pub const MAX_DRIFT_PPM: i32 = 500_000;

const MILLION: i128 = 1_000_000;

/// A host's peculiarities.
#[derive(Debug, Default)]
pub(super) struct Host {
    clock: Clock,
    /// The time that a frame takes.
    per_frame: Duration,
    /// Until when it handles the last one.
    busy_until: Instant,
    /// A [`Happening::Free`] is queued.
    freeing: bool,
    uplink: Option<UplinkQueue>,
    /// Counts the frames that began to leave: the [`Happening::Sent`] of any but the last is void.
    departures: u32,
}

/// A clock that runs at its own rate since the world's time `since`, when it showed `shown`.
#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    since: u64,
    shown: u64,
    ppm: i32,
}

impl Clock {
    /// Returns the time that it shows at a point of the world's time. Never decreases.
    fn shows(&self, now: Instant) -> Instant {
        let passed = i128::from(now.as_nanos().saturating_sub(self.since));
        let shown = i128::from(self.shown) + (passed * self.rate()).div_euclid(MILLION);
        Instant::from_nanos(u64::try_from(shown).unwrap_or(u64::MAX))
    }

    /// The first point of the world's time at which it shows at least this.
    fn when(&self, shown: Instant) -> Instant {
        let wanted = i128::from(shown.as_nanos().saturating_sub(self.shown));
        // Rounded up, as `shows` rounds down.
        let passed = (wanted * MILLION + self.rate() - 1).div_euclid(self.rate());
        Instant::from_nanos(u64::try_from(i128::from(self.since) + passed).unwrap_or(u64::MAX))
    }

    fn rate(&self) -> i128 {
        MILLION + i128::from(self.ppm)
    }
}

/// Frames that wait for their turn on an uplink.
#[derive(Debug)]
struct UplinkQueue {
    uplink: Uplink,
    control: VecDeque<Box<Arrival>>,
    data: VecDeque<Box<Arrival>>,
    /// On the link right now.
    leaving: Option<Box<Arrival>>,
    /// Bytes that wait or leave.
    bytes: usize,
    /// Of each peer: bytes of data that wait or leave, and what the machine was told last.
    towards: BTreeMap<NodeId, (usize, usize)>,
}

impl UplinkQueue {
    fn new(uplink: Uplink) -> UplinkQueue {
        let (control, data) = Default::default();
        UplinkQueue { uplink, control, data, leaving: None, bytes: 0, towards: BTreeMap::new() }
    }

    /// Counts a frame in or out; says whether the machine is to hear of it.
    fn count(&mut self, arrival: &Arrival, comes: bool) -> Option<NodeId> {
        let length = arrival.note.length();
        let counted = |bytes: usize| if comes { bytes + length } else { bytes - length };
        self.bytes = counted(self.bytes);
        let peer = arrival.want.filter(|_| !arrival.frame.is_control())?;
        let (waiting, told) = self.towards.entry(peer).or_default();
        *waiting = counted(*waiting);
        let (waiting, told) = (*waiting, *told);
        if waiting == 0 && told == 0 {
            self.towards.remove(&peer);
        }
        (waiting.abs_diff(told) >= QUEUED_STEP || (waiting == 0 && told != 0)).then_some(peer)
    }

    /// The level of a peer, if it differs from what was told last.
    fn level(&mut self, peer: NodeId) -> Option<usize> {
        let (waiting, told) = self.towards.get_mut(&peer)?;
        let news = (*waiting != *told).then_some(*waiting);
        *told = *waiting;
        if *waiting == 0 {
            self.towards.remove(&peer);
        }
        news
    }

    fn takes(&self, bytes: usize) -> Duration {
        let nanos = bytes as u128 * 1_000_000_000 / u128::from(self.uplink.bytes_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl<M: Machine> World<M> {
    // Setting them. A host keeps its peculiarities over its nodes' lives.

    /// Lets a slot's clock run slower or faster from now on: by so many millionths, at most [`MAX_DRIFT_PPM`].
    pub fn set_drift(&mut self, slot: usize, ppm: i32) {
        assert!(ppm.abs() <= MAX_DRIFT_PPM, "{ppm} ppm: a clock drifts by {MAX_DRIFT_PPM} at most");
        self.set_clock(slot, Duration::ZERO, ppm);
    }

    /// Lets a slot's clock jump forward, as when a laptop wakes. (Backwards it cannot: the clock of the driver never
    /// does.)
    pub fn jump_clock(&mut self, slot: usize, by: Duration) {
        let ppm = self.slots[slot].host.as_ref().map_or(0, |host| host.clock.ppm);
        self.set_clock(slot, by, ppm);
    }

    fn set_clock(&mut self, slot: usize, jump: Duration, ppm: i32) {
        let shown = (self.local_time(slot) + jump).as_nanos();
        self.host(slot).clock = Clock { since: self.now.as_nanos(), shown, ppm };
        let deadline = self.slots[slot].machine.as_ref().and_then(|machine| machine.poll_timeout());
        self.slots[slot].deadline = deadline.map(|at| self.world_time(slot, at));
        self.arm(slot);
    }

    /// Makes a slot's node slow: each frame takes it so long, and what comes meanwhile waits, up to
    /// [`Config::backlog`](super::Config::backlog); its timeouts are late, too. Zero: no time at all.
    pub fn set_slowness(&mut self, slot: usize, per_frame: Duration) {
        self.host(slot).per_frame = per_frame;
    }

    /// Limits what a slot sends; `None`: no limit, and what waits leaves at once.
    pub fn set_uplink(&mut self, slot: usize, uplink: Option<Uplink>) {
        let host = self.host(slot);
        match (&mut host.uplink, uplink) {
            (Some(queue), Some(uplink)) => queue.uplink = uplink,
            (none, Some(uplink)) => *none = Some(UplinkQueue::new(uplink)),
            (queue, None) => {
                let Some(queue) = queue.take() else { return };
                let told: Vec<NodeId> =
                    queue.towards.iter().filter(|(_, (_, told))| *told > 0).map(|(peer, _)| *peer).collect();
                queue.leaving.into_iter().chain(queue.control).chain(queue.data).for_each(|a| self.launch(a));
                told.into_iter().for_each(|peer| self.notify(slot, Duration::ZERO, Word::Queued(peer)));
            }
        }
    }

    fn host(&mut self, slot: usize) -> &mut Host {
        self.slots[slot].host.get_or_insert_default()
    }

    // Clocks.

    /// Returns the time that a slot's clock shows now: the `now` that its node is given.
    pub fn local_time(&self, slot: usize) -> Instant {
        match &self.slots[slot].host {
            Some(host) => host.clock.shows(self.now),
            None => self.now,
        }
    }

    /// When a slot's clock will show this.
    pub(super) fn world_time(&self, slot: usize, shown: Instant) -> Instant {
        match &self.slots[slot].host {
            Some(host) => host.clock.when(shown),
            None => shown,
        }
    }

    // Slow nodes.

    /// Until when a slow node has its hands full. Nothing overtakes what waits already.
    pub(super) fn busy_until(&self, slot: usize) -> Option<Instant> {
        let host = self.slots.get(slot)?.host.as_ref()?;
        (host.freeing || host.busy_until > self.now).then(|| host.busy_until.max(self.now))
    }

    /// A node begins with a frame.
    pub(super) fn begin_frame(&mut self, slot: usize) {
        if let Some(host) = &mut self.slots[slot].host {
            host.busy_until = self.now + host.per_frame;
        }
    }

    /// Lets something wait until a slow node is free.
    pub(super) fn wait_until(&mut self, slot: usize, free: Instant, waiting: Waiting<M>) {
        self.slots[slot].backlog.push_back(waiting);
        self.free_at(slot, free);
    }

    /// A slow node has finished with a frame. Its timeout comes first, if it has passed, then the next frame.
    pub(super) fn on_free(&mut self, slot: usize) {
        self.host(slot).freeing = false;
        if self.slots[slot].state != SlotState::Running {
            return;
        }
        if self.slots[slot].deadline.is_some_and(|at| at <= self.now) {
            self.time_out(slot, false);
        }
        while self.busy_until(slot).is_none()
            && let Some(waiting) = self.slots[slot].backlog.pop_front()
        {
            self.take_up(slot, waiting);
        }
        if let Some(free) = self.busy_until(slot)
            && !self.slots[slot].backlog.is_empty()
        {
            self.free_at(slot, free);
        }
    }

    fn free_at(&mut self, slot: usize, free: Instant) {
        if !std::mem::replace(&mut self.host(slot).freeing, true) {
            self.queue.push(free, Happening::Free { slot: slot as u32 });
        }
    }

    // Uplinks.

    /// A frame leaves a node: over its uplink, if that is limited.
    pub(super) fn dispatch(&mut self, arrival: Box<Arrival>) {
        let slot = arrival.from as usize;
        let Some(queue) = self.slots[slot].host.as_mut().and_then(|host| host.uplink.as_mut()) else {
            return self.launch(arrival);
        };
        if queue.bytes + arrival.note.length() > queue.uplink.queue {
            let Arrival { to, frame, note, .. } = *arrival;
            return self.lose(slot, to, &frame, note, Loss::Uplink);
        }
        let told = queue.count(&arrival, true);
        let class = if arrival.frame.is_control() { &mut queue.control } else { &mut queue.data };
        class.push_back(arrival);
        if queue.leaving.is_none() {
            self.send_next(slot);
        }
        if let Some(peer) = told {
            self.notify(slot, Duration::ZERO, Word::Queued(peer));
        }
    }

    fn send_next(&mut self, slot: usize) {
        let Some(host) = &mut self.slots[slot].host else { return };
        let Some(queue) = &mut host.uplink else { return };
        queue.leaving = queue.control.pop_front().or_else(|| queue.data.pop_front());
        if let Some(arrival) = &queue.leaving {
            host.departures = host.departures.wrapping_add(1);
            let at = self.now + queue.takes(arrival.note.length());
            self.queue.push(at, Happening::Sent { slot: slot as u32, departure: host.departures });
        }
    }

    /// The last bit of a frame is on its way.
    pub(super) fn on_sent(&mut self, slot: usize, departure: u32) {
        let Some(host) = &mut self.slots[slot].host else { return };
        if host.departures != departure {
            return;
        }
        let Some(queue) = &mut host.uplink else { return };
        let Some(arrival) = queue.leaving.take() else { return };
        let told = queue.count(&arrival, false);
        self.launch(arrival);
        self.send_next(slot);
        if let Some(peer) = told {
            self.notify(slot, Duration::ZERO, Word::Queued(peer));
        }
    }

    /// The level of a peer, as it is when the machine is told.
    pub(super) fn uplink_level(&mut self, slot: usize, peer: NodeId) -> Option<usize> {
        match &mut self.slots[slot].host.as_mut()?.uplink {
            Some(queue) => queue.level(peer),
            // The limit was lifted.
            None => Some(0),
        }
    }

    /// A life ends, and what waited to leave with it.
    pub(super) fn drop_uplink(&mut self, slot: usize) {
        let Some(host) = &mut self.slots[slot].host else { return };
        host.busy_until = Instant::ZERO;
        let Some(queue) = &mut host.uplink else { return };
        let uplink = queue.uplink;
        let old = std::mem::replace(queue, UplinkQueue::new(uplink));
        for arrival in old.leaving.into_iter().chain(old.control).chain(old.data) {
            let Arrival { to, frame, note, .. } = *arrival;
            self.lose(slot, to, &frame, note, Loss::Uplink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_shows_a_point_first_when_it_says_so() {
        for ppm in [0, 1, -1, 333, -50, 100_000, MAX_DRIFT_PPM, -MAX_DRIFT_PPM] {
            let clock = Clock { since: 1_000_003, shown: 77, ppm };
            for shown in (0..200).chain([1_000_000_007, 3_600_000_000_001]) {
                let shown = Instant::from_nanos(77 + shown);
                let at = clock.when(shown);
                assert!(clock.shows(at) >= shown, "{ppm} ppm, {shown:?}");
                let before = Instant::from_nanos(at.as_nanos() - 1);
                assert!(before.as_nanos() < 1_000_003 || clock.shows(before) < shown, "{ppm} ppm, {shown:?}");
            }
        }
    }
}

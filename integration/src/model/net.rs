//! A state of the model, and the steps from one to the next.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::{Bootstrap, Command, Event};
use treecast_overlay::machine::{Destination, Machine};
use treecast_overlay::pastry::Node;
use treecast_overlay::peer::{Addr, Seed};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::{Frame, Header};

use super::image::{self, EPOCH, Image};
use super::setting::{self, LEASE};
use super::{Bounds, ModelBug, QUARTER};

/// Some nodes, and what is on its way between them.
#[derive(Clone)]
pub struct Net {
    now: Instant,
    ids: Arc<[NodeId]>,
    seats: Vec<Seat>,
    flying: Vec<Arc<Flying>>,
    left: Left,
    /// Of all that decides what can happen next.
    print: u64,
}

/// How much may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Left {
    crashes: u8,
    losses: u8,
    duplicates: u8,
    delays: u8,
}

/// Where a node lives, will live or has lived.
#[derive(Clone)]
pub(super) enum Seat {
    /// Has not started yet.
    Waiting,
    /// Runs.
    Alive(Arc<Being>),
    /// For so many quarters, at most [`LEASE`].
    Crashed(u8),
    /// Its start failed: its process ended.
    Failed,
}

/// A node and its image.
pub(super) struct Being {
    pub(super) node: Node,
    pub(super) image: Image,
}

/// A frame on its way from one slot to another.
pub(super) struct Flying {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) frame: Frame,
    /// It is delivered already, and comes again.
    pub(super) copy: bool,
    image: Image,
}

/// Something that can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This frame arrives; with `again`, it will come a second time.
    Deliver {
        /// Which.
        frame: usize,
        /// It stays on its way, too.
        again: bool,
    },
    /// This frame, which takes no time if it arrives, is lost.
    Lose {
        /// Which.
        frame: usize,
    },
    /// A quarter passes.
    Pass {
        /// The node that crashes before.
        crash: Option<usize>,
        /// The nodes that start then, as bits.
        start: u32,
        /// Which frames of those on their way will come later, as bits; the others are lost.
        late: u32,
    },
}

impl Net {
    /// A ring without joiners, at rest.
    pub(super) fn at_rest(bounds: &Bounds) -> Net {
        let slots = bounds.ring + bounds.joiners;
        let left = Left { crashes: 0, losses: 0, duplicates: 0, delays: 0 };
        let ids = (0..slots).map(|slot| setting::peer(bounds, slot).id).collect();
        let seats = vec![Seat::Waiting; slots];
        let mut net = Net { now: EPOCH, ids, seats, flying: Vec::new(), left, print: 0 };
        for slot in 0..bounds.ring {
            net.start(bounds, slot);
            // As a friendly network does it: first come, first served.
            for _ in 0..12 {
                while !net.flying.is_empty() {
                    net = net.after(bounds, Step::Deliver { frame: 0, again: false });
                }
                net = net.after(bounds, Step::Pass { crash: None, start: 0, late: 0 });
            }
        }
        while !net.flying.is_empty() {
            net = net.after(bounds, Step::Deliver { frame: 0, again: false });
        }
        let &Bounds { crashes, losses, duplicates, delays, .. } = bounds;
        net.left = Left { crashes, losses, duplicates, delays };
        net.seal(bounds);
        net
    }

    /// The time.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// All slots.
    pub(super) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    /// All frames on their way.
    pub(super) fn flying(&self) -> &[Arc<Flying>] {
        &self.flying
    }

    /// The node in a slot, with its image.
    pub(super) fn being(&self, slot: usize) -> Option<&Being> {
        match &self.seats[slot] {
            Seat::Alive(being) => Some(being),
            Seat::Waiting | Seat::Crashed(_) | Seat::Failed => None,
        }
    }

    /// The node that lives in a slot.
    pub(super) fn node(&self, slot: usize) -> Option<&Node> {
        self.being(slot).map(|being| &being.node)
    }

    /// Nodes that live.
    pub(super) fn nodes(&self) -> impl Iterator<Item = (usize, &Node)> {
        (0..self.seats.len()).filter_map(|slot| Some((slot, self.node(slot)?)))
    }

    /// Nodes that crashed so lately that others may still keep their hands off their part.
    pub(super) fn just_crashed(&self) -> impl Iterator<Item = usize> {
        let lately = |slot: &usize| matches!(self.seats[*slot], Seat::Crashed(quarters) if quarters < LEASE);
        (0..self.seats.len()).filter(lately)
    }

    /// The node that lives or lived in a slot.
    pub(super) fn id(&self, slot: usize) -> NodeId {
        self.ids[slot]
    }

    /// Whether nobody may crash any more, and nobody has lately.
    pub(super) fn is_past_crashes(&self) -> bool {
        self.left.crashes == 0 && self.just_crashed().next().is_none()
    }

    // Steps.

    /// Lists all that can happen next.
    pub(super) fn steps(&self, bounds: &Bounds, steps: &mut Vec<Step>) {
        // A connection keeps the order of its frames.
        let is_next = |&frame: &usize| {
            let Flying { from, to, copy, .. } = *self.flying[frame];
            let before = |other: &Arc<Flying>| (other.from, other.to, other.copy) == (from, to, false);
            bounds.reorder || copy || !self.flying[..frame].iter().any(before)
        };
        let next: Vec<usize> = (0..self.flying.len()).filter(is_next).collect();
        let is_small_talk =
            |frame: &&usize| !bounds.talk && self.is_small_talk(bounds, &self.flying[**frame]);
        let talk = next.iter().find(is_small_talk);
        for &frame in talk.map_or(&next[..], std::slice::from_ref) {
            let flying = &self.flying[frame];
            let is_same = |other: &Arc<Flying>| other.copy == flying.copy && other.image == flying.image;
            if self.flying[..frame].iter().any(is_same) {
                continue;
            }
            steps.push(Step::Deliver { frame, again: false });
            if self.left.duplicates > 0 && !flying.copy {
                steps.push(Step::Deliver { frame, again: true });
            }
            // A frame that nothing waits for is lost when its quarter ends.
            if self.left.losses > 0 && !flying.copy && (talk.is_some() || !bounds.reorder) {
                steps.push(Step::Lose { frame });
            }
        }
        if talk.is_some() {
            return;
        }
        let waiting = self.seats.iter().enumerate().filter(|(_, seat)| matches!(seat, Seat::Waiting));
        let waiting: u32 = waiting.map(|(slot, _)| 1 << slot).sum();
        let crashing = self.nodes().map(|(slot, _)| Some(slot)).filter(|_| self.left.crashes > 0);
        for crash in crashing.chain([None]) {
            for late in self.fates(crash) {
                for start in
                    subsets(waiting).filter(|&start| !bounds.together || start == 0 || start == waiting)
                {
                    steps.push(Step::Pass { crash, start, late });
                }
            }
        }
    }

    /// Which of the frames on their way may come later while the others are lost, if this node crashes.
    fn fates(&self, crash: Option<usize>) -> Vec<u32> {
        let crashes = |slot: usize| Some(slot) == crash;
        let (mut dear, mut any) = (0, 0);
        for (at, flying) in self.flying.iter().enumerate() {
            if !crashes(flying.to) {
                any |= 1 << at;
                dear |= u32::from(!crashes(flying.from) && !flying.copy) << at;
            }
        }
        if dear.count_ones() > u32::from(self.left.losses + self.left.delays) {
            return Vec::new();
        }
        let fits = |late: &u32| {
            late.count_ones() <= u32::from(self.left.delays)
                && (dear & !late).count_ones() <= u32::from(self.left.losses)
        };
        if self.left.delays == 0 { vec![0] } else { subsets(any).filter(fits).collect() }
    }

    /// Returns the state after a step.
    pub(super) fn after(&self, bounds: &Bounds, step: Step) -> Net {
        let mut net = self.clone();
        match step {
            Step::Deliver { frame, again } => net.deliver(bounds, frame, again),
            Step::Lose { frame } => {
                net.flying.remove(frame);
                net.left.losses -= 1;
            }
            Step::Pass { crash, start, late } => net.pass(bounds, crash, start, late),
        }
        net.seal(bounds);
        net
    }

    fn deliver(&mut self, bounds: &Bounds, frame: usize, again: bool) {
        let flying = self.flying.remove(frame);
        let Seat::Alive(being) = &self.seats[flying.to] else { return };
        let mut node = being.node.fork();
        let from = setting::peer(bounds, flying.from);
        node.handle_frame(self.now, from, flying.frame.clone());
        let asked = (bounds.plant == Some(ModelBug::Published)).then_some(&flying.frame.header);
        self.take_out(flying.to, node, asked);
        if again {
            self.left.duplicates -= 1;
            let Flying { from, to, frame, .. } = &*flying;
            self.flying.push(Arc::new(Flying::new(*from, *to, frame.clone(), true)));
        }
    }

    fn pass(&mut self, bounds: &Bounds, crash: Option<usize>, start: u32, late: u32) {
        let mut flying = std::mem::take(&mut self.flying).into_iter().enumerate().collect::<Vec<_>>();
        let is_late = |at: usize| late & 1 << at != 0;
        for (at, flying) in &flying {
            let free = flying.copy || Some(flying.from) == crash || Some(flying.to) == crash;
            self.left.delays -= u8::from(is_late(*at));
            self.left.losses -= u8::from(!is_late(*at) && !free);
        }
        flying.retain(|&(at, _)| is_late(at));
        self.flying = flying.into_iter().map(|(_, flying)| flying).collect();
        for seat in &mut self.seats {
            if let Seat::Crashed(quarters) = seat {
                *quarters = (*quarters + 1).min(LEASE);
            }
        }
        if let Some(slot) = crash {
            self.left.crashes -= 1;
            self.seats[slot] = Seat::Crashed(0);
        }
        self.now = self.now + QUARTER;
        for slot in 0..self.seats.len() {
            if let Seat::Alive(being) = &self.seats[slot] {
                let mut node = being.node.fork();
                node.handle_timeout(self.now);
                self.take_out(slot, node, None);
            } else if start & 1 << slot != 0 {
                self.start(bounds, slot);
            }
        }
    }

    fn start(&mut self, bounds: &Bounds, slot: usize) {
        let config = setting::config(bounds, slot);
        let mut node = Node::new(setting::peer(bounds, slot), config, [0; 32]).expect("the figures fit");
        node.count_from(image::first_number(slot));
        // The ring's nodes join through its first one, joiners each through another.
        let through = slot.saturating_sub(bounds.ring) % bounds.ring;
        let through = (slot > 0).then(|| Seed::from(Addr::Memory(through as u32)));
        let bootstrap = Bootstrap { join: through.into_iter().collect(), ..Bootstrap::default() };
        node.handle_command(self.now, Command::Start(bootstrap));
        self.take_out(slot, node, None);
    }

    /// Takes over what a node has to say, and its timers that are due. `asked`: what it was asked, if it is to answer as
    /// published.
    fn take_out(&mut self, slot: usize, mut node: Node, asked: Option<&Header>) {
        let mut failed = false;
        loop {
            // Here each call is a turn. (The ring gathers nothing, so that what it hands out at the end is what it had to say before.)
            node.handle_turn_end(self.now);
            while let Some(transmit) = node.poll_transmit() {
                let addr = match transmit.to {
                    Destination::Peer(peer) => peer.addr,
                    Destination::Seed(seed) => seed.addr,
                };
                let Addr::Memory(to) = addr else { continue };
                let to = to as usize;
                let mut frame = transmit.frame;
                if let Some(asked) = asked {
                    let members = || node.leaf_set().iter().copied().collect();
                    setting::answer_as_published(asked, &mut frame.header, members);
                }
                // A frame to an empty seat is gone; there is no word of it either, as after a loss of power.
                if matches!(self.seats[to], Seat::Alive(_)) {
                    self.flying.push(Arc::new(Flying::new(slot, to, frame, false)));
                }
            }
            while let Some(event) = node.poll_event() {
                failed |= matches!(event, Event::StartFailed(_));
            }
            if node.poll_timeout().is_none_or(|at| at > self.now) {
                break;
            }
            node.handle_timeout(self.now);
        }
        let image = Image::of_node(self.now, &node);
        self.seats[slot] = if failed { Seat::Failed } else { Seat::Alive(Arc::new(Being { node, image })) };
    }

    /// Forgets what is sent to nobody, and takes the state's print.
    fn seal(&mut self, bounds: &Bounds) {
        let seats = &self.seats;
        self.flying.retain(|flying| matches!(seats[flying.to], Seat::Alive(_)));
        let beings = || (0..self.seats.len()).filter_map(|slot| self.being(slot));
        let numbers = |image: &Image| image.numbers().to_vec();
        let mut flying: Vec<u64> = self.flying.iter().flat_map(|flying| numbers(&flying.image)).collect();
        let mut live: Vec<u64> = beings().flat_map(|being| numbers(&being.image)).collect();
        live.extend(&flying);
        live.sort_unstable();
        live.dedup();
        flying.sort_unstable();
        let mut hasher = DefaultHasher::new();
        self.left.hash(&mut hasher);
        for seat in &self.seats {
            match seat {
                Seat::Waiting => 0u8.hash(&mut hasher),
                Seat::Crashed(quarters) => (1u8, quarters).hash(&mut hasher),
                Seat::Failed => 2u8.hash(&mut hasher),
                Seat::Alive(being) => {
                    3u8.hash(&mut hasher);
                    being.image.hash_among(&live, &mut hasher);
                    // A hop that was taken over counts as long as it may come again.
                    let taken = being.node.taken_hops().map(|(_, hop)| hop);
                    let taken = taken.filter(|hop| flying.binary_search(hop).is_ok());
                    taken.for_each(|hop| image::place(hop, &live).hash(&mut hasher));
                }
            }
        }
        // The order of frames counts within a connection.
        let place = |flying: &Flying, print| (flying.from, flying.to, flying.copy, print);
        let mut frames: Vec<_> =
            self.flying.iter().map(|flying| place(flying, flying.print(&live))).collect();
        match bounds.reorder {
            true => frames.sort_unstable(),
            false => frames.sort_by_key(|&(from, to, copy, print)| (from, to, copy.then_some(print))),
        }
        frames.hash(&mut hasher);
        self.print = hasher.finish();
    }
}

impl Flying {
    fn new(from: usize, to: usize, frame: Frame, copy: bool) -> Flying {
        let image = Image::of((from, to, &frame));
        Flying { from, to, frame, copy, image }
    }

    fn print(&self, live: &[u64]) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.copy.hash(&mut hasher);
        self.image.hash_among(live, &mut hasher);
        hasher.finish()
    }
}

impl PartialEq for Net {
    fn eq(&self, other: &Net) -> bool {
        self.print == other.print
    }
}

impl Hash for Net {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}

/// All subsets of some bits.
fn subsets(bits: u32) -> impl Iterator<Item = u32> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let subset = next?;
        let following = (subset | !bits).wrapping_add(1) & bits;
        next = (following != 0).then_some(following);
        Some(subset)
    })
}

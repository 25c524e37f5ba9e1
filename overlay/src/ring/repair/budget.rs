//! The budget of repair (design §5; Rhea et al. 2004, §3: repair that answers congestion with traffic makes it worse). Leaf
//! sets that are told or compared, and rows of tables, keep together to so many bytes a second, after a burst. News of leaf
//! sets that are beyond it wait, one for each receiver, and say what is so when they leave; looking for near nodes is left
//! for later. (Not counted: answers to joiners, seekers and edges, refusals of leases, and farewells: each is
//! asked for, or sent once.)

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::NodeId;
use crate::memory;
use crate::peer::Peer;
use crate::ring::core::{Core, Timer};
use crate::ring::invariants::Size;
use crate::ring::tables::Tables;
use crate::time::Instant;
use crate::wire::Header;

/// How much may be sent at once: what a second allows, times this. By default a neighbour's death is told in one go.
const BURST: u32 = 4;
/// Bytes that a named node takes at the most: its id, its incarnation, an IPv6 address, a distance.
const PER_PEER: usize = 48;
/// Receivers of news that wait; beyond it a further one hears in a round of repair.
const MAX_PUT_OFF: usize = 64;
/// The same while the news are answers to a question: strangers that ask keep no node from hearing of a death.
const MAX_ANSWERS_PUT_OFF: usize = MAX_PUT_OFF / 2;

/// The frames that were sent, and the frames that wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Budget {
    /// When all that was sent is paid for.
    paid: Instant,
    put_off: VecDeque<(Peer, bool)>,
}

impl Budget {
    /// Whether so many nodes may be named now; then they are paid for.
    fn spend(&mut self, now: Instant, rate: u32, peers: usize) -> bool {
        if self.affordable() > now {
            return false;
        }
        let takes = Duration::from_secs(1).mul_f64((peers * PER_PEER) as f64 / f64::from(rate));
        self.paid = self.paid.max(now) + takes;
        true
    }

    /// From when on something may be sent: what is owed then is no more than a burst.
    fn affordable(&self) -> Instant {
        self.paid - Duration::from_secs(1) * BURST
    }

    fn put_off(&mut self, to: Peer, reply: bool, most: usize) {
        if let Some((_, wants)) = self.put_off.iter_mut().find(|(peer, _)| peer.id == to.id) {
            *wants |= reply;
        } else if self.put_off.len() < most {
            self.put_off.push_back((to, reply));
        }
    }

    /// A node is gone.
    pub(crate) fn forget(&mut self, id: NodeId) {
        self.put_off.retain(|(peer, _)| peer.id != id);
    }

    /// The frames that wait, for a model checker: where none need wait, the sum that was spent decides nothing.
    pub(crate) fn waiting(&self) -> &VecDeque<(Peer, bool)> {
        &self.put_off
    }

    /// Gives back what a burst has taken.
    pub(crate) fn tidy(&mut self) {
        self.put_off.shrink_to_fit();
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        memory::queue(&self.put_off)
    }

    /// How many wait (promise O5).
    pub(crate) fn size(&self) -> Size {
        ("news of leaf sets put off", self.put_off.len(), MAX_PUT_OFF)
    }

    /// Tells another node which nodes stand around this one, as soon as the budget allows; `reply` asks for the same.
    pub(crate) fn tell(&mut self, now: Instant, core: &mut Core, tables: &Tables, to: Peer, reply: bool) {
        self.put_off(to, reply, MAX_PUT_OFF);
        self.tell_on(now, core, tables);
    }

    /// Tells it to a node that asks for it.
    pub(crate) fn answer(&mut self, now: Instant, core: &mut Core, tables: &Tables, to: Peer) {
        self.put_off(to, false, MAX_ANSWERS_PUT_OFF);
        self.tell_on(now, core, tables);
    }

    /// Tells it to the nodes that wait, as far as the budget goes.
    pub(crate) fn tell_on(&mut self, now: Instant, core: &mut Core, tables: &Tables) {
        let members = tables.in_use();
        while let Some(&(to, reply)) = self.put_off.front() {
            if !self.spend(now, core.config.repair.bytes_per_second, members.len()) {
                let at = self.affordable();
                return core.timers.set(Timer::Tell, at);
            }
            self.put_off.pop_front();
            core.send(to, Header::LeafSet { members: members.clone(), reply });
        }
    }

    /// Whether a row of so many nodes may be named now; then it is paid for.
    pub(crate) fn may_name(&mut self, now: Instant, core: &Core, peers: usize) -> bool {
        self.spend(now, core.config.repair.bytes_per_second, peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_beyond_a_burst_comes_by_the_second() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut budget = Budget::default();
        // 32 nodes are a second's worth.
        let mut named = 0;
        while budget.spend(at(10_000), 1536, 32) {
            named += 32;
        }
        assert_eq!(named, 32 * (BURST as usize + 1), "a burst, and one that begins within it");
        assert!(!budget.spend(at(10_900), 1536, 1));
        assert!(budget.spend(at(11_000), 1536, 32) && !budget.spend(at(11_000), 1536, 1));
        // Rest saves no more than a burst.
        let later = (0..100).filter(|_| budget.spend(at(10_000_000), 1536, 32)).count();
        assert_eq!(later, BURST as usize + 1);
    }
}

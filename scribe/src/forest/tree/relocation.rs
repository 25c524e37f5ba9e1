//! A child on its way to another parent, which its parent has offered. It keeps the old parent until the new one has
//! answered, asks the old one to stop, waits for all that was pushed, and only then lets the new one push from there
//! on: nothing is missed, and nothing comes twice.

use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use crate::forest::context::Numbers;
use crate::wire::{Attached, Capacity, Offered};

/// How long a child tries what it was offered; then it stays where it is. Well below [`OFFER_REST`], so that a parent
/// never takes a child that moves for one that stays.
const MOVE_LIMIT: Duration = Duration::from_secs(5);
/// How long a child that was offered other parents is not offered to others as a parent, nor offered any again.
pub(crate) const OFFER_REST: Duration = Duration::from_secs(10);

/// A child on its way to another parent.
#[derive(Debug)]
pub(crate) struct Relocation {
    /// This node's number for the offer.
    number: u64,
    since: Instant,
    /// Offers that were not tried yet.
    choices: Vec<Choice>,
    phase: Phase,
}

#[derive(Debug)]
struct Choice {
    offered: Offered,
    found: ProbeResult,
}

/// The knowledge of an offered parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProbeResult {
    /// It was asked.
    Asked,
    /// It has room, and a message from the old parent through it takes so many µs to come and go.
    Room { crowded: bool, micros: u32 },
    /// It has none.
    Full,
}

#[derive(Debug)]
enum Phase {
    /// The offered ones are asked how much room they have, and measured by it.
    Probing,
    /// The chosen one is asked; its JOIN's number, and whether that was repeated.
    Joining { to: Contact, join: u64, again: bool },
    /// It has answered; the old parent is asked to stop.
    Detaching { to: Contact, attached: Attached },
    /// The old parent has stopped; its last entries are still coming.
    Draining { to: Contact, attached: Attached, end: u64 },
}

/// The next step, which the tree is to carry out.
#[derive(Debug)]
#[must_use]
pub(crate) enum Step {
    /// Nothing.
    Wait,
    /// Ask these how much room they have.
    Probe(Vec<Contact>),
    /// Ask the chosen one to be the parent, by a JOIN of this number.
    Ask { to: Contact, join: u64 },
    /// Ask the old parent to stop.
    Detach,
    /// Wait for the last entries of the old parent.
    Drain,
    /// Take the chosen one as the parent. `told`: the old one knows that it is none any more.
    Switch { told: bool },
    /// The chosen one is none: take another choice, or stay.
    Refused,
    /// Stay.
    Stay,
}

impl Relocation {
    /// Begins with these offers. A single one needs no comparison.
    pub(crate) fn begin(now: Instant, numbers: &mut Numbers, offered: Vec<Offered>) -> (Relocation, Step) {
        let choice = |offered| Choice { offered, found: ProbeResult::Asked };
        let choices: Vec<_> = offered.into_iter().map(choice).collect();
        let number = numbers.next_join();
        let mut relocation = Relocation { number, since: now, choices, phase: Phase::Probing };
        let step = match &mut relocation.choices[..] {
            [only] => {
                only.found = ProbeResult::Room { crowded: false, micros: 0 };
                relocation.choose(now, numbers)
            }
            all => Step::Probe(all.iter().map(|choice| choice.offered.contact).collect()),
        };
        (relocation, step)
    }

    /// This node's number for the offer.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The node that was asked to become the parent.
    pub(crate) fn chosen(&self) -> Option<Contact> {
        match &self.phase {
            Phase::Probing => None,
            Phase::Joining { to, .. } | Phase::Detaching { to, .. } | Phase::Draining { to, .. } => Some(*to),
        }
    }

    /// Whether a node is the chosen one, and an `Attached` of it belongs to the JOIN that it was sent.
    pub(crate) fn is_chosen(&self, node: NodeId, join: u64) -> bool {
        self.chosen().is_some_and(|to| to.id() == node) && self.join() == Some(join)
    }

    /// Whether the old parent was asked to stop.
    pub(crate) fn is_detaching(&self) -> bool {
        match self.phase {
            Phase::Probing | Phase::Joining { .. } => false,
            Phase::Detaching { .. } | Phase::Draining { .. } => true,
        }
    }

    /// The JOIN with which the chosen one was asked.
    fn join(&self) -> Option<u64> {
        match &self.phase {
            Phase::Probing => None,
            Phase::Joining { join, .. } => Some(*join),
            Phase::Detaching { attached, .. } | Phase::Draining { attached, .. } => Some(attached.join),
        }
    }

    /// An offered parent tells how much room it has.
    pub(crate) fn on_capacity(
        &mut self,
        now: Instant,
        numbers: &mut Numbers,
        from: NodeId,
        number: u64,
        capacity: Capacity,
    ) -> Step {
        if self.number != number || !matches!(self.phase, Phase::Probing) {
            return Step::Wait;
        }
        let took = u32::try_from(now.since(self.since).as_micros()).unwrap_or(u32::MAX);
        let choice = self.choices.iter_mut().find(|choice| choice.offered.contact.id() == from);
        let Some(choice) = choice.filter(|choice| choice.found == ProbeResult::Asked) else {
            return Step::Wait;
        };
        let micros = choice.offered.micros.saturating_add(took);
        choice.found = match capacity {
            Capacity::None => ProbeResult::Full,
            Capacity::Crowded => ProbeResult::Room { crowded: true, micros },
            Capacity::Free => ProbeResult::Room { crowded: false, micros },
        };
        if self.choices.iter().all(|choice| choice.found != ProbeResult::Asked) {
            self.choose(now, numbers)
        } else {
            Step::Wait
        }
    }

    /// Takes the best choice that is left: the one by whose way news come soonest, among those that need hand no child
    /// on to a level below if there are any. None left, or no time: it stays.
    pub(crate) fn choose(&mut self, now: Instant, numbers: &mut Numbers) -> Step {
        let cost = |choice: &Choice| match choice.found {
            ProbeResult::Room { crowded, micros } => Some((crowded, micros, choice.offered.contact.id())),
            ProbeResult::Asked | ProbeResult::Full => None,
        };
        let best = self.choices.iter().enumerate().filter_map(|(at, choice)| Some((cost(choice)?, at))).min();
        let in_time = now.since(self.since) < MOVE_LIMIT;
        let Some((_, at)) = best.filter(|_| in_time) else { return Step::Stay };
        let to = self.choices.swap_remove(at).offered.contact;
        let join = numbers.next_join();
        self.phase = Phase::Joining { to, join, again: false };
        Step::Ask { to, join }
    }

    /// The chosen one has said how things are. `serves`: it is above this node, and has what this node needs next.
    pub(crate) fn on_attached(&mut self, from: Contact, news: Attached, serves: bool) -> Step {
        match &mut self.phase {
            Phase::Detaching { attached, .. } | Phase::Draining { attached, .. } if serves => {
                if attached.seq < news.seq {
                    *attached = news;
                }
                Step::Wait
            }
            Phase::Joining { .. } if serves => {
                self.phase = Phase::Detaching { to: from, attached: news };
                Step::Detach
            }
            Phase::Probing | Phase::Joining { .. } | Phase::Detaching { .. } | Phase::Draining { .. } => {
                Step::Refused
            }
        }
    }

    /// The old parent has stopped, behind a last entry. `next`: the one that this node lacks.
    pub(crate) fn on_detached(&mut self, join: u64, end: Option<u64>, next: u64) -> Step {
        let Phase::Detaching { to, attached } = &self.phase else { return Step::Wait };
        if attached.join > join {
            return Step::Wait;
        }
        match end.filter(|&end| end > next) {
            Some(end) => {
                self.phase = Phase::Draining { to: *to, attached: attached.clone(), end };
                Step::Drain
            }
            None => Step::Switch { told: true },
        }
    }

    /// An entry came: perhaps the last one of the old parent.
    pub(crate) fn on_entry(&self, next: u64) -> Step {
        match &self.phase {
            Phase::Draining { end, .. } if next >= *end => Step::Switch { told: true },
            Phase::Probing | Phase::Joining { .. } | Phase::Detaching { .. } | Phase::Draining { .. } => {
                Step::Wait
            }
        }
    }

    /// It has taken long.
    pub(crate) fn on_timer(&mut self, now: Instant, numbers: &mut Numbers) -> Step {
        match &mut self.phase {
            Phase::Probing => self.choose(now, numbers),
            Phase::Joining { to, join, again } if !*again => {
                *again = true;
                Step::Ask { to: *to, join: *join }
            }
            Phase::Joining { .. } => Step::Refused,
            // The old parent may be dead. Its last entries may come twice now: that takes a fault.
            Phase::Detaching { .. } => Step::Switch { told: false },
            Phase::Draining { .. } => Step::Switch { told: true },
        }
    }

    /// The new parent and its `Attached`, if it has answered.
    pub(crate) fn into_parent(self) -> Option<(Contact, Attached)> {
        match self.phase {
            Phase::Detaching { to, attached } | Phase::Draining { to, attached, .. } => Some((to, attached)),
            Phase::Probing | Phase::Joining { .. } => None,
        }
    }

    /// Heap bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Relocation>() + self.choices.capacity() * size_of::<Choice>()
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::Key;
    use treecast_overlay::peer::{Addr, Peer};

    use super::*;
    use crate::topic::TopicId;

    fn contact(id: u128) -> Contact {
        Peer { id: NodeId(id), incarnation: 1, addr: Addr::Unreachable }.into()
    }

    fn offered(ids: &[u128]) -> Vec<Offered> {
        ids.iter().map(|&id| Offered { contact: contact(id), micros: id as u32 }).collect()
    }

    fn attached(join: u64, seq: u64) -> Attached {
        Attached { topic: TopicId(Key(1)), join, seq, path: vec![NodeId(3)], root: None, start: None }
    }

    const NOW: Instant = Instant::ZERO;

    #[test]
    fn the_nearest_with_room_is_taken_once_all_have_answered() {
        let mut numbers = Numbers::default();
        let (mut move_, step) = Relocation::begin(NOW, &mut numbers, offered(&[3, 4, 5]));
        assert!(matches!(step, Step::Probe(to) if to.len() == 3));
        let number = move_.number();
        let mut answer = |id, capacity| move_.on_capacity(NOW, &mut numbers, NodeId(id), number, capacity);
        assert!(matches!(answer(3, Capacity::Crowded), Step::Wait));
        assert!(matches!(answer(4, Capacity::Free), Step::Wait));
        assert!(matches!(answer(5, Capacity::None), Step::Ask { to, .. } if to == contact(4)));
        assert!(matches!(move_.choose(NOW, &mut numbers), Step::Ask { to, .. } if to == contact(3)));
        assert!(matches!(move_.choose(NOW, &mut numbers), Step::Stay), "the last one is full");
    }

    #[test]
    fn the_new_parent_pushes_only_after_all_that_the_old_one_has_pushed() {
        let mut numbers = Numbers::default();
        let (mut move_, step) = Relocation::begin(NOW, &mut numbers, offered(&[3]));
        let Step::Ask { join, .. } = step else { panic!("{step:?}") };
        assert!(move_.is_chosen(NodeId(3), join) && !move_.is_detaching());
        assert!(matches!(move_.on_attached(contact(3), attached(join, 1), true), Step::Detach));
        assert!(matches!(move_.on_attached(contact(3), attached(join, 2), true), Step::Wait));
        assert!(matches!(move_.on_detached(join, Some(8), 6), Step::Drain));
        assert!(matches!(move_.on_entry(7), Step::Wait));
        assert!(matches!(move_.on_entry(8), Step::Switch { told: true }));
        let (to, last) = move_.into_parent().unwrap();
        assert_eq!((to, last.seq), (contact(3), 2));
    }

    #[test]
    fn one_that_does_not_answer_is_asked_twice() {
        let mut numbers = Numbers::default();
        let (mut move_, _) = Relocation::begin(NOW, &mut numbers, offered(&[3]));
        assert!(matches!(move_.on_timer(NOW, &mut numbers), Step::Ask { .. }));
        assert!(matches!(move_.on_timer(NOW, &mut numbers), Step::Refused));
        assert!(matches!(move_.choose(NOW, &mut numbers), Step::Stay));
    }
}

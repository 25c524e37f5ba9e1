//! A child moves from its parent to another one that the parent has offered. It keeps the old parent until the new one
//! has answered, asks the old one to stop, waits for all that was pushed, and only then lets the new one push from there
//! on: nothing is missed, and nothing comes twice.

use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use super::neighbours::Side;
use super::tree::{Role, Tree, Upward};
use super::{Context, Forest, Life, Timer};
use crate::message::Position;
use crate::topic::TopicId;
use crate::wire::{Attached, Header, MAX_PATH, Offer, Offered, Room};

/// How long a child tries what it was offered; then it stays where it is. Well below [`OFFER_REST`], so that a parent
/// never takes a child that moves for one that stays.
const MOVE_LIMIT: Duration = Duration::from_secs(5);
/// How long a child that was offered other parents is not offered to others as a parent, nor offered any again.
pub(super) const OFFER_REST: Duration = Duration::from_secs(10);

/// A child on its way to another parent.
#[derive(Debug)]
pub(crate) struct Moving {
    /// This node's number for the offer.
    number: u64,
    since: Instant,
    /// What was offered and not tried yet.
    choices: Vec<Choice>,
    phase: Phase,
}

#[derive(Debug)]
struct Choice {
    offered: Offered,
    visit: Visit,
}

/// What is known of an offered parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visit {
    Asked,
    /// It has room, and a message from the old parent through it takes so many µs to come and go.
    Room {
        crowded: bool,
        micros: u32,
    },
    Full,
}

#[derive(Debug)]
enum Phase {
    /// How far are they?
    Visiting,
    /// The chosen one is asked; its JOIN's number, and whether that was repeated.
    Joining { to: Contact, join: u64, again: bool },
    /// It has answered; the old parent is asked to stop.
    Parting { to: Contact, attached: Attached },
    /// The old parent has stopped; what it pushed is still coming.
    Draining { to: Contact, attached: Attached, last: Position },
}

impl Moving {
    /// The node that was asked to become the parent.
    pub(super) fn chosen(&self) -> Option<Contact> {
        match &self.phase {
            Phase::Visiting => None,
            Phase::Joining { to, .. } | Phase::Parting { to, .. } | Phase::Draining { to, .. } => Some(*to),
        }
    }

    /// Whether the old parent was asked to stop.
    pub(super) fn is_parting(&self) -> bool {
        match self.phase {
            Phase::Visiting | Phase::Joining { .. } => false,
            Phase::Parting { .. } | Phase::Draining { .. } => true,
        }
    }

    /// The JOIN with which the chosen one was asked.
    fn join(&self) -> Option<u64> {
        match &self.phase {
            Phase::Visiting => None,
            Phase::Joining { join, .. } => Some(*join),
            Phase::Parting { attached, .. } | Phase::Draining { attached, .. } => Some(attached.join),
        }
    }

    /// Heap bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Moving>() + self.choices.capacity() * size_of::<Choice>()
    }
}

impl Forest {
    /// The parent wants this node to hang on another one.
    pub(super) fn on_offer(&mut self, cx: Context<'_>, from: NodeId, offer: Offer) {
        let topic = offer.topic;
        if self.life != Life::Running || cx.ring.contact().is_edge() {
            return;
        }
        let me = self.me;
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let Role::Child(upward) = &tree.role else { return };
        let mine = upward.parent == from && upward.version.0 == offer.join && tree.join == offer.join;
        if !mine || tree.moving.is_some() || tree.log.is_none() {
            return;
        }
        let others = |id| id != me && id != from && !tree.children.contains_key(&id);
        let offered = offer.parents.into_iter();
        let choices: Vec<_> = offered
            .filter(|offered| others(offered.contact.id()) && !offered.contact.is_edge())
            .map(|offered| Choice { offered, visit: Visit::Asked })
            .collect();
        self.joins += 1;
        let number = self.joins;
        tree.moving = Some(Box::new(Moving { number, since: cx.now, choices, phase: Phase::Visiting }));
        self.visit_choices(cx, topic);
    }

    /// Measures what was offered. A single choice needs no comparison.
    fn visit_choices(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(moving) = self.trees.get_mut(&topic).and_then(|tree| tree.moving.as_mut()) else { return };
        if let [choice] = &mut moving.choices[..] {
            choice.visit = Visit::Room { crowded: false, micros: 0 };
            return self.choose(cx, topic);
        }
        let number = moving.number;
        let to: Vec<_> = moving.choices.iter().map(|choice| choice.offered.contact).collect();
        self.deadlines.set(Timer::Move(topic), cx.now + self.config.visit_wait);
        for to in to {
            self.tell(to, &Header::Visit { topic, number });
        }
    }

    /// A child of another node looks how far this one is.
    pub(super) fn on_visit(&mut self, cx: Context<'_>, from: Contact, topic: TopicId, number: u64) {
        let tree = self.trees.get(&topic).filter(|tree| self.may_adopt(tree, from.id()));
        let room = tree.map_or(Room::None, |tree| self.room(cx.now, tree, None));
        self.tell(from, &Header::Visited { topic, number, room });
    }

    /// An offered parent answers.
    pub(super) fn on_visited(
        &mut self,
        cx: Context<'_>,
        from: NodeId,
        topic: TopicId,
        number: u64,
        room: Room,
    ) {
        let Some(moving) = self.trees.get_mut(&topic).and_then(|tree| tree.moving.as_mut()) else { return };
        if moving.number != number || !matches!(moving.phase, Phase::Visiting) {
            return;
        }
        let took = u32::try_from(cx.now.since(moving.since).as_micros()).unwrap_or(u32::MAX);
        let choice = moving.choices.iter_mut().find(|choice| choice.offered.contact.id() == from);
        let Some(choice) = choice.filter(|choice| choice.visit == Visit::Asked) else { return };
        let micros = choice.offered.micros.saturating_add(took);
        choice.visit = match room {
            Room::None => Visit::Full,
            Room::Crowded => Visit::Room { crowded: true, micros },
            Room::Free => Visit::Room { crowded: false, micros },
        };
        if moving.choices.iter().all(|choice| choice.visit != Visit::Asked) {
            self.choose(cx, topic);
        }
    }

    /// Asks the best of what is left: the one by whose way news come soonest, among those that need hand nobody on to
    /// a level below if there are any. None left, or no time: it stays.
    fn choose(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(moving) = self.trees.get_mut(&topic).and_then(|tree| tree.moving.as_mut()) else { return };
        let cost = |choice: &Choice| match choice.visit {
            Visit::Room { crowded, micros } => Some((crowded, micros, choice.offered.contact.id())),
            Visit::Asked | Visit::Full => None,
        };
        let best =
            moving.choices.iter().enumerate().filter_map(|(at, choice)| Some((cost(choice)?, at))).min();
        let in_time = cx.now.since(moving.since) < MOVE_LIMIT;
        let Some((_, at)) = best.filter(|_| in_time) else { return self.end_move(topic) };
        let to = moving.choices.swap_remove(at).offered.contact;
        self.joins += 1;
        moving.phase = Phase::Joining { to, join: self.joins, again: false };
        self.ask_chosen(cx, topic);
    }

    fn ask_chosen(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        let Some(Phase::Joining { to, join, .. }) = tree.moving.as_ref().map(|moving| &moving.phase) else {
            return;
        };
        let (to, header) = (*to, Header::Join(tree.join_message(*join, tree.parent())));
        self.deadlines.set(Timer::Move(topic), cx.now + self.config.join_retry);
        self.tell(to, &header);
    }

    /// Whether a node is, in this topic, the chosen one, and a word of it belongs to the JOIN that it was sent.
    pub(super) fn is_chosen(&self, topic: TopicId, node: NodeId, join: u64) -> bool {
        let moving = self.trees.get(&topic).and_then(|tree| tree.moving.as_ref());
        moving.is_some_and(|moving| {
            moving.chosen().is_some_and(|to| to.id() == node) && moving.join() == Some(join)
        })
    }

    /// The chosen one has taken this node.
    pub(super) fn on_attached_ahead(&mut self, cx: Context<'_>, from: Contact, word: Attached) {
        let (topic, me) = (word.topic, self.me);
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let serves = tree.is_served_by(me, from.id(), &word);
        let Some(moving) = tree.moving.as_mut() else { return };
        match &mut moving.phase {
            Phase::Parting { attached, .. } | Phase::Draining { attached, .. } if serves => {
                if attached.version < word.version {
                    *attached = word;
                }
            }
            Phase::Joining { .. } if serves => {
                moving.phase = Phase::Parting { to: from, attached: word };
                self.part(cx, topic);
            }
            Phase::Visiting | Phase::Joining { .. } | Phase::Parting { .. } | Phase::Draining { .. } => {
                self.on_chosen_refuses(cx, topic);
            }
        }
    }

    /// Asks the old parent to stop.
    fn part(&mut self, cx: Context<'_>, topic: TopicId) {
        self.deadlines.set(Timer::Move(topic), cx.now + self.config.push_rto_min);
        let parent = self.trees.get(&topic).and_then(|tree| tree.parent());
        if let Some(parent) = parent.and_then(|parent| self.neighbours.contact(parent)) {
            self.tell(parent, &Header::Part { topic, join: self.joins });
        }
    }

    /// A child has another parent that waits.
    pub(super) fn on_part(&mut self, cx: Context<'_>, from: Contact, topic: TopicId, join: u64) {
        let tree = self.trees.get(&topic);
        let child = tree.and_then(|tree| tree.children.get(&from.id())).filter(|child| child.join <= join);
        let cursor = child.and_then(|child| child.cursor);
        let log = tree.and_then(|tree| tree.log.as_ref());
        let last = log.zip(cursor).and_then(|(log, cursor)| log.window.before(cursor.next));
        if child.is_some() {
            self.remove_child(cx, topic, from.id());
        }
        self.tell(from, &Header::Parted { topic, join, last });
        // Spliced out: there is nothing to linger for.
        if self.trees.get(&topic).is_some_and(|tree| tree.keep_until <= cx.now) {
            self.on_linger(topic);
        }
    }

    /// The old parent has stopped.
    pub(super) fn on_parted(
        &mut self,
        cx: Context<'_>,
        from: NodeId,
        topic: TopicId,
        join: u64,
        last: Option<Position>,
    ) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let tail = tree.log.as_ref().and_then(|log| log.window.tail());
        let parent = tree.parent();
        let Some(moving) = tree.moving.as_mut() else { return };
        let Phase::Parting { to, attached } = &moving.phase else { return };
        if parent != Some(from) || attached.join > join {
            return;
        }
        match last.filter(|_| last > tail) {
            Some(last) => {
                moving.phase = Phase::Draining { to: *to, attached: attached.clone(), last };
                self.deadlines.set(Timer::Move(topic), cx.now + self.config.push_rto_min);
            }
            None => self.change_parent(cx, topic, true),
        }
    }

    /// An entry came: perhaps the last one of the old parent.
    pub(super) fn review_drained(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        let tail = tree.log.as_ref().and_then(|log| log.window.tail());
        let Some(Phase::Draining { last, .. }) = tree.moving.as_ref().map(|moving| &moving.phase) else {
            return;
        };
        if tail >= Some(*last) {
            self.change_parent(cx, topic, true);
        }
    }

    /// The chosen one becomes the parent, and pushes from here on. `told`: the old one knows that it is none any more.
    fn change_parent(&mut self, cx: Context<'_>, topic: TopicId, told: bool) {
        self.deadlines.cancel(Timer::Move(topic));
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let Some(moving) = tree.moving.take() else { return };
        let (to, attached) = match moving.phase {
            Phase::Parting { to, attached } | Phase::Draining { to, attached, .. } => (to, attached),
            Phase::Visiting | Phase::Joining { .. } => return,
        };
        let old = tree.parent();
        tree.join = attached.join;
        let start = attached.start;
        tree.hang(Upward::through(to.id(), cx.now, attached));
        self.deadlines.cancel(Timer::Join(topic));
        if let Some(old) = old {
            let contact = self.neighbours.contact(old).filter(|_| !told);
            self.neighbours.remove(Side::Up, old, topic);
            if let Some(contact) = contact {
                self.tell(contact, &Header::Leave { topic, join: self.joins });
            }
        }
        self.settle_under(cx, topic, to, true);
        if let Some(started) = start {
            self.on_started(cx, topic, started);
        }
        self.acknowledge(topic, false);
    }

    /// The old parent is gone, or to be left: if the chosen one has answered, it is the parent now.
    pub(super) fn hurry_move(&mut self, cx: Context<'_>, topic: TopicId) -> bool {
        let moving = self.trees.get(&topic).and_then(|tree| tree.moving.as_ref());
        let ready = moving.is_some_and(|moving| moving.is_parting());
        if ready {
            self.change_parent(cx, topic, false);
        } else {
            self.end_move(topic);
        }
        ready
    }

    /// The chosen one does not take this node, or cannot serve it.
    pub(super) fn on_chosen_refuses(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(moving) = self.trees.get(&topic).and_then(|tree| tree.moving.as_ref()) else { return };
        if moving.is_parting() {
            // The old parent has stopped, or is about to: it is asked to go on.
            self.end_move(topic);
            return self.refresh(cx, topic);
        }
        if let Some(to) = moving.chosen() {
            self.deny(to, topic, self.joins);
        }
        self.choose(cx, topic);
    }

    /// Stays where it is.
    pub(super) fn end_move(&mut self, topic: TopicId) {
        self.deadlines.cancel(Timer::Move(topic));
        let moving = self.trees.get_mut(&topic).and_then(|tree| tree.moving.take());
        if let Some(to) = moving.and_then(|moving| moving.chosen()) {
            self.deny(to, topic, self.joins);
        }
    }

    pub(super) fn on_move_timer(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(moving) = self.trees.get_mut(&topic).and_then(|tree| tree.moving.as_mut()) else { return };
        match &mut moving.phase {
            Phase::Visiting => self.choose(cx, topic),
            Phase::Joining { again, .. } if !*again => {
                *again = true;
                self.ask_chosen(cx, topic);
            }
            Phase::Joining { .. } => self.on_chosen_refuses(cx, topic),
            // The old parent may be dead. What it pushed last may come twice now: that takes a fault.
            Phase::Parting { .. } => self.change_parent(cx, topic, false),
            Phase::Draining { .. } => self.change_parent(cx, topic, true),
        }
    }
}

impl Tree {
    /// Whether a node that has taken this one is above it, and has what this one needs next. (S1: nobody accepts a
    /// parent whose last known path to the root contains it; nor one of its own children.)
    fn is_served_by(&self, me: NodeId, parent: NodeId, word: &Attached) -> bool {
        let above = !word.path.contains(&me) && word.path.len() < MAX_PATH;
        let (Some(log), Some(start)) = (&self.log, &word.start) else { return false };
        above
            && !self.children.contains_key(&parent)
            && start.after.birth == log.birth
            && start.after.position <= log.window.tail()
    }
}

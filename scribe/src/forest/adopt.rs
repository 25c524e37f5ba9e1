//! The way down: taking children, telling them how things are, letting them go.

use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;

use super::neighbours::Side;
use super::tree::{Child, Cursor, Log, Role, Tree, is_plausible};
use super::{Context, Forest, Life, Timer, Way};
use crate::log::window::Follow;
use crate::message::{Mark, Position, Term};
use crate::topic::TopicId;
use crate::wire::{Attached, Header, Join, MAX_PATH, Room, Started};

impl Forest {
    /// A JOIN passes on its way to the root. Returns whether it ends here.
    pub(super) fn intercept(&mut self, cx: Context<'_>, child: Contact, join: Join) -> bool {
        let topic = join.topic;
        let Some(tree) = self.trees.get(&topic) else {
            if !self.ensure_tree(cx, topic) {
                return false;
            }
            self.adopt(cx, child, join);
            // Only now: this node's own JOIN asks for what its child needs.
            self.seek(cx, topic);
            return true;
        };
        if !self.may_adopt(tree, child.id()) || misses_history(tree, join.after) {
            return false;
        }
        self.adopt(cx, child, join);
        true
    }

    pub(super) fn on_join(&mut self, cx: Context<'_>, child: Contact, join: Join, way: Way) {
        let topic = join.topic;
        if child.id() == self.me {
            // This node's own JOIN came back: it has become the root since.
            return self.review_place(cx, topic);
        }
        if self.life != Life::Running {
            return;
        }
        match way {
            Way::Delivered { .. } => {
                // O1 is decided at the ring; here it is only asked again, since the lease may have ended meanwhile.
                if !cx.ring.is_root_of(cx.now, topic.key()) || !self.ensure_tree(cx, topic) {
                    return;
                }
                let Some(tree) = self.trees.get(&topic) else { return };
                if !tree.is_root() {
                    self.begin_opening(cx, topic);
                }
            }
            Way::Sent => {
                let welcome = self.trees.get(&topic).is_some_and(|tree| {
                    let known = tree.children.contains_key(&child.id());
                    let moves = join.former.is_some() && !known;
                    self.may_adopt(tree, child.id())
                        && (!moves || self.room(cx.now, tree, join.former) != Room::None)
                });
                if !welcome {
                    return self.tell(child, &Header::Orphan { topic });
                }
            }
        }
        self.adopt(cx, child, join);
    }

    /// A child that is this node's own ancestor would close a loop.
    pub(super) fn may_adopt(&self, tree: &Tree, child: NodeId) -> bool {
        let room = tree.children.contains_key(&child) || tree.children.len() < self.config.max_children;
        room && child != self.me && !tree.path().contains(&child) && tree.path().len() + 1 < MAX_PATH
    }

    fn adopt(&mut self, cx: Context<'_>, contact: Contact, join: Join) {
        let topic = join.topic;
        let id = contact.id();
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let before = tree.wish();
        let stale = tree.children.get(&id).is_some_and(|child| {
            let old = child.incarnation;
            (contact.peer.incarnation, join.number) < (old, child.join)
        });
        if stale {
            return;
        }
        let fresh = Child {
            incarnation: contact.peer.incarnation,
            join: join.number,
            after: join.after.map(Box::new),
            subscribers: join.subscribers,
            version: 0,
            version_seen: 0,
            cursor: None,
            rto: millis(self.config.push_rto_min),
            rtt: u32::MAX,
            said: cx.now,
            said_again: false,
            held: join.former.is_some(),
            rests_until: cx.now,
        };
        // To a repetition is repeated what was said before: that was lost, or is on its way.
        let known = tree
            .children
            .get(&id)
            .is_some_and(|child| (child.incarnation, child.join) == (contact.peer.incarnation, join.number));
        if !known && tree.children.insert(id, fresh).is_none() {
            self.entries += 1;
        }
        self.neighbours.add(cx.now, Side::Down, contact, topic);
        self.deadlines.cancel(Timer::Linger(topic));
        self.attach(cx, topic, id);
        if let Some(heard) = join.heard {
            self.on_heard(cx, topic, heard);
        }
        self.review_wish(cx, topic, before);
        self.note_subscribers(cx, topic);
        self.push(cx, topic, id);
        self.review_shape(cx, topic);
    }

    /// Asks again, further up, if this node's wish has changed while it waits to be started.
    pub(super) fn review_wish(&mut self, cx: Context<'_>, topic: TopicId, before: Option<Mark>) {
        let Some(tree) = self.trees.get(&topic) else { return };
        let asked = match tree.role {
            Role::Joining { .. } | Role::Child(_) => tree.join > 0,
            Role::Opening(_) | Role::Root(_) => false,
        };
        if tree.log.is_none() && asked && tree.wish() != before {
            self.refresh(cx, topic);
        }
    }

    /// Says anew to a child how things are.
    pub(super) fn attach(&mut self, cx: Context<'_>, topic: TopicId, id: NodeId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let Some(child) = tree.children.get_mut(&id) else { return };
        self.words += 1;
        child.version = self.words;
        (child.said, child.said_again) = (cx.now, false);
        if let (None, Some(log)) = (child.cursor, &tree.log) {
            let version = child.version;
            child.cursor = place(log, child.after.as_deref().copied()).map(|next| Cursor {
                next,
                acknowledged: next,
                version,
                repeated: None,
            });
            if child.cursor.is_some() {
                child.after = None;
            }
        }
        self.say_attached(cx, topic, id);
    }

    /// Says it again. The child acknowledges it.
    pub(super) fn repeat_attached(&mut self, cx: Context<'_>, topic: TopicId, id: NodeId) {
        let tree = self.trees.get_mut(&topic);
        if let Some(child) = tree.and_then(|tree| tree.children.get_mut(&id)) {
            child.said_again = true;
        }
        self.say_attached(cx, topic, id);
    }

    fn say_attached(&mut self, cx: Context<'_>, topic: TopicId, id: NodeId) {
        let me = self.me;
        let Some(tree) = self.trees.get(&topic) else { return };
        let Some(child) = tree.children.get(&id) else { return };
        let mut path = vec![me];
        path.extend_from_slice(tree.path());
        let root = if tree.is_root() { Some(cx.ring.contact().peer) } else { tree.told_root() };
        let start = match (&child.cursor, &tree.log) {
            (Some(cursor), Some(log)) => Some(started(log, cursor)),
            (None, _) | (_, None) => None,
        };
        let attached = Attached { topic, join: child.join, version: child.version, path, root, start };
        let rto = Duration::from_millis(child.rto.into());
        let Some(to) = self.neighbours.contact(id) else { return };
        self.deadlines.set_earlier(Timer::Push(topic, id), cx.now + rto);
        self.tell(to, &Header::Attached(attached));
    }

    /// Path changes are pushed down (promise S1).
    pub(super) fn announce_path(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        // A child that turns out to be an ancestor closes a loop: it is let go before it hears of it.
        let (loops, children): (Vec<_>, Vec<_>) =
            tree.children.keys().copied().partition(|child| tree.path().contains(child));
        for child in loops {
            let contact = self.neighbours.contact(child);
            self.remove_child(cx, topic, child);
            if let Some(contact) = contact {
                self.tell(contact, &Header::Orphan { topic });
            }
        }
        for child in children {
            self.attach(cx, topic, child);
        }
    }

    /// Starts the children that waited for this node's own start, or for its term.
    pub(super) fn start_children(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        let waiting = tree.children.iter().filter(|(_, child)| child.cursor.is_none());
        for id in waiting.map(|(&id, _)| id).collect::<Vec<_>>() {
            self.attach(cx, topic, id);
        }
    }

    /// A later life of the child numbers its JOINs anew, and is none of the earlier one's.
    pub(super) fn on_leave(&mut self, cx: Context<'_>, from: Contact, topic: TopicId, join: u64) {
        let child = self.trees.get(&topic).and_then(|tree| tree.children.get(&from.id()));
        let told = (from.peer.incarnation, join);
        if child.is_some_and(|child| (child.incarnation, child.join) <= told) {
            self.remove_child(cx, topic, from.id());
        }
    }

    /// Lets a child go, if it is one.
    pub(super) fn remove_child(&mut self, cx: Context<'_>, topic: TopicId, id: NodeId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        if tree.children.remove(&id).is_none() {
            return;
        }
        self.entries -= 1;
        if let Some(contact) = self.neighbours.contact(id) {
            self.forget_child(topic, contact);
        }
        self.note_subscribers(cx, topic);
        self.review_need(cx, topic);
        self.review_shape(cx, topic);
    }

    pub(super) fn forget_child(&mut self, topic: TopicId, child: Contact) {
        self.neighbours.remove(Side::Down, child.id(), topic);
        self.deadlines.cancel(Timer::Push(topic, child.id()));
        let link = link(child);
        if let Some(stalled) = self.stalled.get_mut(&link) {
            stalled.remove(&(topic, child.id()));
            if stalled.is_empty() {
                self.stalled.remove(&link);
            }
        }
    }

    /// Tells the parent, after a moment, that there are more subscribers here, or fewer.
    pub(super) fn note_subscribers(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        if tree.parent().is_some() && tree.subscribers() != tree.told_subscribers {
            self.deadlines.set_earlier(Timer::Ack(topic), cx.now + self.config.count_delay);
            self.moved.insert(topic);
        }
    }
}

/// The connection over which a node is reached: its own, or its access node's.
pub(super) fn link(contact: Contact) -> NodeId {
    contact.via.map_or(contact.id(), |via| via.id)
}

/// As a child's patience is kept.
pub(super) fn millis(wait: Duration) -> u32 {
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)
}

/// Where in the window a child begins; `None`: it comes from a term of which this node is yet to hear.
fn place(log: &Log, after: Option<Mark>) -> Option<u64> {
    match after {
        None => Some(log.window.end()),
        Some(mark) if mark.birth != log.birth => Some(log.window.start()),
        Some(mark) => match log.window.follow(mark.position) {
            // Not beyond what is here: a child that asks on behalf of its own child has no log yet, and begins where
            // this node says.
            Follow::At(offset) => Some(offset.min(log.window.end())),
            Follow::TooOld => Some(log.window.start()),
            // Nothing is here yet, and the child's term is this one: no start of another will come to start it.
            Follow::Newer if log.window.tail().is_none() && is_of(mark, log.term) => Some(log.window.end()),
            Follow::Newer if is_plausible(mark.position) => None,
            Follow::Newer => Some(log.window.start()),
        },
    }
}

/// Whether a mark lies in this term, or before it.
fn is_of(mark: Mark, term: Term) -> bool {
    mark.position.is_none_or(|position| position.term <= term)
}

/// Only what the child has acknowledged is surely there: what flies must not look like a gap to it.
fn started(log: &Log, cursor: &Cursor) -> Started {
    let position: Option<Position> = log.window.before(cursor.acknowledged);
    let after = Mark { birth: log.birth, position };
    Started { term: log.term, after, latest: log.window.tail() }
}

/// Whether this node's window began too late for a child, while those of its ancestors may reach back further: then
/// the JOIN goes on towards them.
fn misses_history(tree: &Tree, after: Option<Mark>) -> bool {
    let (Some(log), Some(mark)) = (&tree.log, after) else { return false };
    !tree.is_root()
        && mark.birth == log.birth
        && log.window.is_young()
        && log.window.follow(mark.position) == Follow::TooOld
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::NodeId;

    use super::*;
    use crate::log::window::Window;

    #[test]
    fn a_child_ahead_of_an_empty_window_is_started() {
        let term = Term { number: 1, root: NodeId(1) };
        let log = Log { birth: 7, term, window: Window::new(None) };
        let wish = |number| {
            let position = Position { term: Term { number, root: NodeId(1) }, offset: 0 };
            Some(Mark { birth: 7, position: Some(position) })
        };
        assert_eq!(place(&log, wish(1)), Some(0), "what it has comes again, and is passed over");
        assert_eq!(place(&log, wish(2)), None, "the start of its term is yet to come");
    }

    #[test]
    fn a_child_is_started_where_its_cursor_stands() {
        let term = Term { number: 1, root: NodeId(1) };
        let at = |offset| Some(Position { term, offset });
        let log = Log { birth: 7, term, window: Window::new(at(22)) };
        // The grandchild is ahead of this window, the child between them has nothing at all.
        for (wish, begins) in [(at(22), 23), (at(23), 23), (at(40), 23)] {
            let next = place(&log, Some(Mark { birth: 7, position: wish })).unwrap();
            assert_eq!(next, begins, "{wish:?}");
            let cursor = Cursor { next, acknowledged: next, version: 1, repeated: None };
            let told = started(&log, &cursor).after.position.unwrap();
            assert_eq!(told.offset + 1, cursor.next, "what it is told to expect is what it is sent");
        }
    }
}

//! The way up: looking for a parent, keeping it, losing it, leaving it.

use rand::RngExt;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;

use super::neighbours::Side;
use super::tree::{Role, Tree, Upward};
use super::{Context, Forest, Life, Request, Timer};
use crate::topic::TopicId;
use crate::wire::{self, Attached, Header, MAX_PATH};

/// Repetitions of a JOIN to a silent parent before another one is looked for.
const PATIENCE: u8 = 3;

impl Forest {
    /// Makes sure that this node is on a tree, or on its way. `false`: it is on too many.
    pub(super) fn ensure_tree(&mut self, cx: Context<'_>, topic: TopicId) -> bool {
        if self.trees.contains_key(&topic) {
            return true;
        }
        if self.trees.len() >= self.config.max_trees {
            return false;
        }
        self.trees.insert(topic, Box::new(Tree::new(cx.now, topic)));
        self.keep_beating(cx);
        true
    }

    /// Looks for a parent, or becomes the root.
    pub(super) fn seek(&mut self, cx: Context<'_>, topic: TopicId) {
        if self.life != Life::Running {
            return;
        }
        if self.is_online(cx) && cx.ring.is_root_of(cx.now, topic.key()) {
            return self.begin_opening(cx, topic);
        }
        if self.hurry_move(cx, topic) {
            return;
        }
        self.joins += 1;
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let former = match std::mem::replace(&mut tree.role, Role::Joining { former: None }) {
            Role::Joining { former } => former,
            Role::Child(upward) => {
                let former = self.neighbours.contact(upward.parent).map(Box::new);
                self.neighbours.remove(Side::Up, upward.parent, topic);
                former
            }
            Role::Opening(_) | Role::Root(_) => None,
        };
        tree.role = Role::Joining { former };
        tree.join = self.joins;
        self.send_join(cx, topic);
    }

    /// The parent is gone.
    pub(super) fn lose_parent(&mut self, cx: Context<'_>, topic: TopicId) {
        self.seek(cx, topic);
        if let Some(Role::Joining { former }) = self.trees.get_mut(&topic).map(|tree| &mut tree.role) {
            *former = None;
        }
    }

    /// Tells the parent, or whoever is to become it, what changed: a new JOIN with a new number.
    pub(super) fn refresh(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        if tree.is_root() {
            return;
        }
        self.joins += 1;
        tree.join = self.joins;
        self.send_join(cx, topic);
    }

    /// Sends the current JOIN, for the first time or again.
    fn send_join(&mut self, cx: Context<'_>, topic: TopicId) {
        let retry = self.config.join_retry.mul_f64(self.rng.random_range(0.75..1.25));
        self.deadlines.set(Timer::Join(topic), cx.now + retry);
        if !self.is_online(cx) {
            return;
        }
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        tree.told_subscribers = tree.subscribers();
        let join = tree.join_message(tree.join, None);
        if join.after.is_none() {
            tree.markless = join.number;
        }
        let join = Header::Join(join);
        match tree.parent().and_then(|parent| self.neighbours.contact(parent)) {
            Some(parent) => self.tell(parent, &join),
            None => {
                let payload = wire::encode(&join, &[]);
                self.out.requests.push_back(Request::Route { key: topic.key(), payload });
            }
        }
    }

    pub(super) fn on_join_timer(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        match &mut tree.role {
            Role::Joining { .. } => {
                if self.is_online(cx) && cx.ring.is_root_of(cx.now, topic.key()) {
                    self.begin_opening(cx, topic);
                } else {
                    self.send_join(cx, topic);
                }
            }
            Role::Child(upward) if upward.version.0 != tree.join => {
                tree.unanswered = tree.unanswered.saturating_add(1);
                if tree.unanswered > PATIENCE {
                    self.seek(cx, topic);
                } else {
                    self.send_join(cx, topic);
                }
            }
            Role::Child(_) | Role::Opening(_) | Role::Root(_) => {}
        }
    }

    /// A parent's word.
    pub(super) fn on_attached(&mut self, cx: Context<'_>, from: Contact, attached: Attached) {
        let topic = attached.topic;
        if self.is_chosen(topic, from.id(), attached.join) {
            return self.on_attached_ahead(cx, from, attached);
        }
        let Some(tree) = self.trees.get_mut(&topic) else { return self.deny(from, topic, attached.join) };
        let parent = tree.parent();
        if tree.is_root() || attached.join != tree.join || parent.is_some_and(|parent| parent != from.id()) {
            if parent != Some(from.id()) {
                self.deny(from, topic, attached.join);
            }
            return;
        }
        // S1: nobody accepts a parent whose last known path to the root contains it.
        if attached.path.contains(&self.me) || attached.path.len() >= MAX_PATH {
            tracing::debug!(%topic, parent = %from.id(), "own id in the path to the root: looking for another");
            self.deny(from, topic, attached.join);
            if parent.is_some() {
                self.lose_parent(cx, topic);
            }
            return;
        }
        if !self.take_parent(cx, from, &attached) {
            // Heard before; the acknowledgement may have been lost.
            return self.acknowledge(topic, false);
        }
        if let Some(started) = attached.start {
            self.on_started(cx, topic, started);
        }
        self.acknowledge(topic, false);
    }

    /// Makes the sender the parent, or hears its news. `false`: they are no news.
    fn take_parent(&mut self, cx: Context<'_>, from: Contact, attached: &Attached) -> bool {
        let topic = attached.topic;
        let Some(tree) = self.trees.get_mut(&topic) else { return false };
        let mut upward = Upward::through(from.id(), cx.now, attached.clone());
        let mut path_changed = true;
        // A later life of the parent numbers its words anew.
        let known = self.neighbours.contact(from.id());
        let reborn = known.is_some_and(|known| known.peer.incarnation < from.peer.incarnation);
        match &tree.role {
            Role::Child(before) if upward.version <= before.version && !reborn => return false,
            Role::Child(before) => {
                upward.since = before.since;
                path_changed = before.path != upward.path || before.root != upward.root;
            }
            Role::Joining { former } => {
                if let Some(former) = former.as_deref().copied().filter(|former| former.id() != from.id()) {
                    let join = tree.join;
                    self.tell(former, &Header::Leave { topic, join });
                }
            }
            Role::Opening(_) | Role::Root(_) => return false,
        }
        let Some(tree) = self.trees.get_mut(&topic) else { return false };
        tree.hang(upward);
        self.deadlines.cancel(Timer::Join(topic));
        self.settle_under(cx, topic, from, path_changed);
        true
    }

    /// What follows from having a parent, or a new one, or a new path.
    pub(super) fn settle_under(
        &mut self,
        cx: Context<'_>,
        topic: TopicId,
        parent: Contact,
        path_changed: bool,
    ) {
        self.neighbours.add(cx.now, Side::Up, parent, topic);
        self.note_parent(topic, Some(parent.id()));
        // Its path does not lead through this node, so it is no child of it any more, whatever got lost.
        self.remove_child(cx, topic, parent.id());
        if path_changed {
            self.announce_path(cx, topic);
            self.review_shape(cx, topic);
        }
    }

    /// Tells subscribers of a new parent, if it is not the first.
    pub(super) fn note_parent(&mut self, topic: TopicId, parent: Option<NodeId>) {
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        let last = tree.last_parent.replace(parent);
        if last.is_some_and(|last| last != parent) {
            for subscription in tree.subscriptions.values_mut().filter(|s| s.reader.is_some()) {
                subscription.parent_news = Some(parent);
            }
            self.deliver_local(topic);
        }
    }

    /// A parent disowns this node.
    pub(super) fn on_orphan(&mut self, cx: Context<'_>, from: NodeId, topic: TopicId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        if tree.parent() == Some(from) {
            self.lose_parent(cx, topic);
        } else if tree.moving.as_ref().and_then(|moving| moving.chosen()).is_some_and(|to| to.id() == from) {
            self.on_chosen_refuses(cx, topic);
        }
    }

    /// Looks after a tree that may not be needed any more.
    pub(super) fn review_need(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        if tree.is_needed() || tree.is_root() {
            self.deadlines.cancel(Timer::Linger(topic));
        } else {
            let at = (cx.now + self.config.linger).max(tree.keep_until);
            self.deadlines.set(Timer::Linger(topic), at);
        }
    }

    /// Scribe §3.3: "If there are no other entries in the children table, it sends a LEAVE message to its parent".
    pub(super) fn on_linger(&mut self, topic: TopicId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        if !tree.is_needed() && !tree.is_root() {
            self.remove_tree(topic);
        }
    }

    /// Forgets a tree; the parent is told.
    pub(super) fn remove_tree(&mut self, topic: TopicId) {
        self.end_move(topic);
        let Some(tree) = self.trees.remove(&topic) else { return };
        let parent = match tree.role {
            Role::Child(upward) => self.neighbours.contact(upward.parent),
            Role::Joining { former } => former.map(|former| *former),
            Role::Opening(opening) => {
                self.sessions -= opening.resumes.map_or(0, |root| root.sessions.len());
                None
            }
            Role::Root(root) => {
                self.sessions -= root.sessions.len();
                None
            }
        };
        if let Some(parent) = parent {
            self.neighbours.remove(Side::Up, parent.id(), topic);
            self.tell(parent, &Header::Leave { topic, join: self.joins });
        }
        self.entries -= tree.children.len();
        self.own -= usize::from(tree.counted_own);
        for &child in tree.children.keys() {
            let Some(contact) = self.neighbours.contact(child) else { continue };
            self.forget_child(topic, contact);
            self.tell(contact, &Header::Orphan { topic });
        }
        for timer in
            [Timer::Join, Timer::Linger, Timer::Open, Timer::Ack, Timer::Shape].map(|timer| timer(topic))
        {
            self.deadlines.cancel(timer);
        }
        self.moved.remove(&topic);
        self.budget.forget(topic, tree.counted);
    }

    /// Tells a node that takes this one for its child, by a JOIN of this number or an earlier one, that it is not. A
    /// later JOIN may have come there already.
    pub(super) fn deny(&mut self, to: Contact, topic: TopicId, join: u64) {
        self.tell(to, &Header::Leave { topic, join });
    }
}

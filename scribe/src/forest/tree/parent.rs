//! The way up: looking for a parent, keeping it, losing it, leaving it.

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::Contact;

use super::Tree;
use super::role::{News, ParentLink, Role, is_above};
use crate::forest::context::{LifeStage, TreeCx, TreeTimer};
use crate::forest::neighbours::Link;
use crate::forest::retries;
use crate::log::Log;
use crate::message::Start;
use crate::wire::{self, Attached, Header, Moved, Started};

/// Doublings of the time between two JOINs.
const MOST_DOUBLINGS: u8 = 2;

/// Why a parent is none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParentLost {
    /// It does not answer a JOIN that was repeated.
    NoAnswer,
    /// Its path to the root leads through this node (promise S1).
    Loop,
    /// It says that this node is not its child.
    Orphaned,
    /// It was not heard for three beats.
    Silent,
    /// The ring found it dead.
    PeerDown,
    /// The connection to it broke.
    LinkDown,
    /// There was none: this node was the root, and another one is it now.
    SteppedDown,
}

impl ParentLost {
    /// Whether the parent may live, and take this node for its child: then it is told to let go, but only when there is
    /// another one, because it may turn out to be that one again.
    fn may_live(self) -> bool {
        match self {
            ParentLost::NoAnswer | ParentLost::Silent | ParentLost::LinkDown => true,
            ParentLost::Loop | ParentLost::Orphaned | ParentLost::PeerDown | ParentLost::SteppedDown => false,
        }
    }
}

impl Tree {
    /// The parent is gone: the one place where that is dealt with. Looks for another.
    pub(crate) fn on_parent_lost(&mut self, cx: &mut TreeCx<'_>, reason: ParentLost) {
        tracing::debug!(topic = %cx.topic, parent = ?self.role.parent(), ?reason, "looking for another parent");
        self.seek(cx);
        if let Role::Joining { former } = &mut self.role
            && !reason.may_live()
        {
            *former = None;
        }
    }

    /// Looks for a parent, or becomes the root.
    pub(crate) fn seek(&mut self, cx: &mut TreeCx<'_>) {
        if cx.life != LifeStage::Running {
            return;
        }
        if cx.is_online() && cx.is_root() {
            return self.become_root(cx);
        }
        // A child on its way to another parent may have it already: then there is nothing to look for.
        if self.hurry_relocation(cx) {
            return;
        }
        let former = self.detach_from_parent(cx);
        self.role = Role::Joining { former };
        self.uplink.join = cx.numbers.next_join();
        self.uplink.answered();
        self.send_join(cx);
    }

    /// Gives the parent up without telling it. Returns it, or the one before, if it may take this node for its child.
    pub(super) fn detach_from_parent(&mut self, cx: &mut TreeCx<'_>) -> Option<Box<Contact>> {
        match &mut self.role {
            Role::Joining { former } => former.take(),
            Role::Child(link) => {
                let former = cx.neighbours.contact(link.parent).map(Box::new);
                cx.neighbours.remove(Link::Parent, link.parent, cx.topic);
                former
            }
            Role::Root(_) => None,
        }
    }

    /// Leaves the parent, and one that may take this node for its child.
    pub(super) fn leave_parent(&mut self, cx: &mut TreeCx<'_>) {
        if let Some(parent) = self.detach_from_parent(cx) {
            cx.neighbours.remove(Link::Parent, parent.id(), cx.topic);
            cx.send_leave(*parent, cx.numbers.last_join());
        }
    }

    /// Tells the parent, or the node that is to become it, of a change: a new JOIN with a new number.
    pub(crate) fn rejoin(&mut self, cx: &mut TreeCx<'_>) {
        if self.role.is_root() {
            return;
        }
        self.uplink.join = cx.numbers.next_join();
        self.send_join(cx);
    }

    /// Asks again, further up, if this node wants to begin elsewhere while it waits to be started.
    pub(super) fn review_start(&mut self, cx: &mut TreeCx<'_>, before: Start) {
        let asked = !self.role.is_root() && self.uplink.join > 0;
        if self.flow.log.part().is_none() && asked && self.flow.start_wanted() != before {
            self.rejoin(cx);
        }
    }

    /// Sends the current JOIN, for the first time or again. It has to wait while too many others of this node are unanswered, and
    /// while the answers may have come and not been handled.
    fn send_join(&mut self, cx: &mut TreeCx<'_>) {
        let is_online = cx.is_online();
        let may_ask =
            |cx: &mut TreeCx<'_>| !cx.links.is_behind() && cx.quota.joins.take(cx.now, &cx.config.joins);
        if is_online && !may_ask(cx) {
            self.uplink.on_join_put_off();
            let again = cx.pause(retries::AGAIN, 0);
            return cx.timers.set(TreeTimer::Join, cx.now + again);
        }
        let retry = cx.pause(cx.config.tree.join_retry, self.uplink.repetitions().min(MOST_DOUBLINGS));
        cx.timers.set(TreeTimer::Join, cx.now + retry);
        if !is_online {
            return;
        }
        self.uplink.told.subscribers = self.flow.subscribers();
        let mut join = self.flow.join_message(self.uplink.join, None);
        // The way to the root, or back, may be cut, while other nodes reach both. A parent that is not the root was found like that.
        let third = self.role.is_by_third() || (self.role.is_joining() && self.uplink.is_third_due());
        join.by_third = third && self.flow.log.is_member();
        if !join.by_third {
            self.flow.log.stop_listening();
        }
        self.uplink.on_join_sent(&join);
        let join = Header::Join(join);
        match self.role.parent().and_then(|parent| cx.neighbours.contact(parent)) {
            Some(parent) => cx.tell(parent, &join),
            None => cx.out.route(cx.topic, wire::encode(&join, &[])),
        }
    }

    pub(super) fn on_join_timer(&mut self, cx: &mut TreeCx<'_>) {
        match &self.role {
            Role::Joining { .. } if cx.is_online() && cx.is_root() => self.become_root(cx),
            Role::Joining { .. } => {
                self.uplink.on_no_answer();
                self.send_join(cx);
            }
            Role::Child(link) if link.join != self.uplink.join => {
                if self.uplink.on_no_answer() {
                    self.on_parent_lost(cx, ParentLost::NoAnswer);
                } else {
                    self.send_join(cx);
                }
            }
            Role::Child(_) | Role::Root(_) => {}
        }
    }

    /// A node has taken this one for its child, or tells its child news.
    pub(super) fn on_attached(&mut self, cx: &mut TreeCx<'_>, from: Contact, attached: Attached) {
        if self.relocation.as_ref().is_some_and(|move_| move_.is_chosen(from.id(), attached.join)) {
            return self.on_chosen_attached(cx, from, attached);
        }
        let by_root = attached.start.as_ref().is_some_and(|start| start.sync.is_some());
        if by_root && self.role.is_by_third() && attached.join == self.uplink.join {
            // The root answers after all.
            let former = self.detach_from_parent(cx);
            self.role = Role::Joining { former };
        }
        let parent = self.role.parent();
        let other = parent.is_some_and(|parent| parent != from.id());
        // A late answer to an earlier JOIN, or the answer of a node that this one has passed over.
        if self.role.is_root() || attached.join != self.uplink.join || other {
            if parent != Some(from.id()) {
                cx.send_leave(from, attached.join);
            }
            return;
        }
        if !is_above(cx.me, &attached) {
            tracing::debug!(topic = %cx.topic, parent = %from.id(), "own id in the path to the root");
            cx.send_leave(from, attached.join);
            if parent.is_some() {
                self.on_parent_lost(cx, ParentLost::Loop);
            }
            return;
        }
        if self.take_parent(cx, from, &attached)
            && let Some(started) = attached.start
        {
            self.on_started(cx, from.id(), &started);
        }
        // Also if this was heard before, because the acknowledgement may have been lost.
        self.acknowledge(cx, false);
    }

    /// Makes the sender the parent, or hears its news. `false`: they are no news.
    fn take_parent(&mut self, cx: &mut TreeCx<'_>, from: Contact, attached: &Attached) -> bool {
        // A later life of the parent numbers anew.
        let known = cx.neighbours.contact(from.id());
        let reborn = known.is_some_and(|known| known.peer.incarnation < from.peer.incarnation);
        let path_changed = match &mut self.role {
            Role::Child(link) => match link.update(attached, reborn) {
                News::Old => return false,
                News::Same => false,
                News::Path => true,
            },
            Role::Joining { former } => {
                if let Some(former) = former.take().filter(|former| former.id() != from.id()) {
                    cx.send_leave(*former, self.uplink.join);
                }
                self.role = Role::Child(ParentLink::through(from.id(), cx.now, attached.clone()));
                true
            }
            Role::Root(_) => return false,
        };
        self.on_link_changed(cx, from, path_changed);
        true
    }

    /// Adapts to a parent, or to a new one, or to a new path.
    pub(super) fn on_link_changed(&mut self, cx: &mut TreeCx<'_>, parent: Contact, path_changed: bool) {
        if self.uplink.answered() {
            cx.quota.joins.give_back();
        }
        cx.timers.cancel(TreeTimer::Join);
        cx.neighbours.add(cx.now, Link::Parent, parent, cx.topic);
        self.note_parent(cx, Some(parent.id()));
        // Its path does not lead through this node, so it is no child of it any more, even if its LEAVE got lost.
        self.remove_child(cx, parent.id());
        if path_changed {
            self.announce_path(cx);
            self.review_shape(cx);
        }
    }

    /// Tells subscribers of a new parent, if it is not the first.
    pub(super) fn note_parent(&mut self, cx: &mut TreeCx<'_>, parent: Option<NodeId>) {
        if self.uplink.note_parent(parent) {
            self.flow.readers.note_parent(parent);
            self.flow.deliver(cx);
        }
    }

    /// The parent says where it starts this node.
    pub(super) fn on_started(&mut self, cx: &mut TreeCx<'_>, from: NodeId, started: &Started) {
        let by_third = self.role.is_by_third();
        let is_member = self.flow.log.is_member();
        if started.sync.is_none() && is_member && !by_third && self.uplink.has_asked_thirds() {
            // A third that has become the root took this node for an ordinary child.
            return self.rejoin(cx);
        }
        if is_member && by_third && self.flow.log.has_left_behind(started.birth) {
            return self.on_parent_lost(cx, ParentLost::NoAnswer);
        }
        let listens = by_third && self.flow.log.may_listen(started);
        if started.sync.is_none() && !listens && self.flow.log.copy_state().is_some() {
            // The root's word that no configuration which counts names this node.
            self.flow.log.end_life();
            self.flow.count_window(cx);
            self.review_need(cx);
            self.review_shape(cx);
        }
        if started.sync.is_none() && self.uplink.is_markless() && self.flow.log.would_skip(started) {
            // A late copy of a JOIN without a mark found a parent that had forgotten this node meanwhile. That begins
            // this node at the parent's own end, though the parent may hold earlier entries: a JOIN with the mark asks
            // for them.
            return self.rejoin(cx);
        }
        if let (Some(sync), Some(replica)) = (&started.sync, self.flow.log.part().and_then(Log::replica))
            && (sync.life, true) == (replica.life, sync.term < replica.promised)
            && let Some(parent) = cx.neighbours.contact(from)
        {
            // Another root has this node's promise: this one prepares again, or steps down.
            let promised = replica.promised;
            return cx.tell(parent, &Header::PromiseRefused { topic: cx.topic, promised });
        }
        if listens {
            self.flow.listen(cx, from, started);
        } else if !self.flow.start(cx, from, started) {
            // The root takes this node for a member that it is no more, or not yet.
            return self.rejoin(cx);
        }
        self.count_own(cx);
        self.start_readers(cx, started.latest);
        self.flow.start_children(cx, self.role.way_up(cx));
        self.on_progress(cx);
    }

    /// A parent disowns this node.
    pub(super) fn on_orphan(&mut self, cx: &mut TreeCx<'_>, from: NodeId) {
        let chosen = self.relocation.as_ref().and_then(|move_| move_.chosen());
        if self.role.parent() == Some(from) {
            self.on_parent_lost(cx, ParentLost::Orphaned);
        } else if chosen.is_some_and(|to| to.id() == from) {
            self.on_chosen_refuses(cx);
        }
    }

    /// The parent says how far it is, by a beat: so a last message that was lost is noticed.
    pub(crate) fn on_moved(&mut self, cx: &mut TreeCx<'_>, from: NodeId, moved: &Moved) {
        let Some(log) = self.flow.log.part.as_mut().filter(|log| log.birth == moved.birth) else { return };
        if self.role.parent() != Some(from) {
            return;
        }
        // What a member has of its root's log is committed as far as the root's is.
        let news = log.copies(from) && log.on_commit(moved.next);
        let behind = log.matched() < moved.next;
        if news {
            self.on_committed(cx);
        }
        if behind {
            self.acknowledge(cx, true);
        }
    }

    /// The parent has lost its entry of this child: it hears of it again.
    pub(crate) fn on_lost_entry(&mut self, cx: &mut TreeCx<'_>) {
        let Some(link) = self.role.parent_link() else { return };
        // The parent's list may be older than the link.
        let old = link.is_older_than(cx.config.beat.every, cx.now);
        let detaching = self.relocation.as_ref().is_some_and(|move_| move_.is_detaching());
        if old && !detaching && link.join == self.uplink.join {
            self.rejoin(cx);
        }
    }
}

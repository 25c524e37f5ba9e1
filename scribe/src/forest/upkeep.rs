//! Keep-alives between tree neighbours (promise S7), and what has to be looked after once in a while.

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::peer::Contact;

use super::neighbours::Side;
use super::tree::Role;
use super::{Context, Forest, Life, Timer};
use crate::topic::TopicId;
use crate::wire::{Beat, Digest, Header, MAX_SHARED, Moved, Shared};

/// Beats in a row with a wrong digest before the lists are compared: one may cross a JOIN on its way.
const MISMATCHES: u32 = 2;

impl Forest {
    pub(super) fn on_beat_timer(&mut self, cx: Context<'_>) {
        self.beat_at = None;
        self.trim();
        self.drop_silent(cx);
        self.send_beats(cx);
        self.look_after_roots(cx);
        self.handovers.expire(earlier(cx, self.config.handover_keep));
        let idle = earlier(cx, self.config.publisher_idle);
        self.publishers.retain(|_, publisher| !publisher.is_idle() || publisher.used() >= idle);
        // Nothing is left to be looked after: the node is not woken again.
        if !(self.trees.is_empty() && self.publishers.is_empty() && self.handovers.is_empty()) {
            self.keep_beating(cx);
        }
    }

    /// There is something to look after once in a while.
    pub(super) fn keep_beating(&mut self, cx: Context<'_>) {
        self.beat_at.get_or_insert(cx.now + self.config.beat);
    }

    /// Gives back the room that a burst took.
    fn trim(&mut self) {
        self.out.requests.shrink_to(0);
        self.out.events.shrink_to(0);
        self.out.loopback.shrink_to(0);
        self.deadlines.trim();
    }

    /// A parent silent for three beats is given up; a child gets longer.
    fn drop_silent(&mut self, cx: Context<'_>) {
        let (parent_silent, child_silent) = (self.config.parent_silent, self.config.child_silent);
        for id in self.neighbours.ids() {
            let Some(neighbour) = self.neighbours.find(id) else { continue };
            let silent = cx.now.since(neighbour.heard);
            if silent >= parent_silent {
                for topic in neighbour.topics(Side::Up).to_vec() {
                    tracing::debug!(%topic, parent = %id, "parent silent: looking for another");
                    self.seek(cx, topic);
                }
            }
            if silent >= child_silent {
                self.drop_children(cx, id);
            }
        }
    }

    fn drop_children(&mut self, cx: Context<'_>, id: NodeId) {
        let Some(neighbour) = self.neighbours.find(id) else { return };
        for topic in neighbour.topics(Side::Down).to_vec() {
            self.remove_child(cx, topic, id);
        }
    }

    fn send_beats(&mut self, cx: Context<'_>) {
        for topic in std::mem::take(&mut self.moved) {
            let Some(tree) = self.trees.get(&topic) else { continue };
            for id in tree.children.keys().copied().chain(tree.parent()).collect::<Vec<_>>() {
                self.neighbours.mark_moved(id, topic);
            }
        }
        for id in self.neighbours.ids() {
            self.send_beat(cx, id);
        }
    }

    fn send_beat(&mut self, _cx: Context<'_>, id: NodeId) {
        let Some(neighbour) = self.neighbours.find_mut(id) else { return };
        let first = neighbour.moved.pop_first(self.config.beat_marks);
        let (to, up) = (neighbour.contact(), neighbour.digest(Side::Up));
        let moved = first.into_iter().filter_map(|topic| {
            let tree = self.trees.get(&topic)?;
            let tail = tree.log.as_ref().and_then(|log| log.window.tail());
            Some(Moved { topic, tail, subscribers: tree.subscribers() })
        });
        let beat = Beat { up, moved: moved.collect(), reply: false };
        self.tell(to, &Header::Beat(beat));
    }

    pub(super) fn on_beat(&mut self, cx: Context<'_>, from: Contact, beat: Beat) {
        let id = from.id();
        let Some(neighbour) = self.neighbours.find_mut(id) else {
            return self.on_strange_beat(from, &beat);
        };
        if neighbour.digest(Side::Down) == beat.up {
            neighbour.mismatches = 0;
        } else {
            neighbour.mismatches += 1;
            if neighbour.mismatches >= MISMATCHES {
                neighbour.mismatches = 0;
                let children = neighbour.topics(Side::Down).to_vec();
                self.send_shared(from, &children);
            }
        }
        for moved in beat.moved {
            self.on_moved(cx, id, moved);
        }
    }

    /// Who beats here without sharing a topic has lost something, or this node has.
    fn on_strange_beat(&mut self, from: Contact, beat: &Beat) {
        if beat.up != Digest::default() {
            self.send_shared(from, &[]);
        } else if !beat.reply {
            let beat = Beat { up: Digest::default(), moved: Vec::new(), reply: true };
            self.tell(from, &Header::Beat(beat));
        }
    }

    /// A neighbour says how far it is: a lost last message is noticed.
    fn on_moved(&mut self, cx: Context<'_>, from: NodeId, moved: Moved) {
        let topic = moved.topic;
        let Some(tree) = self.trees.get_mut(&topic) else { return };
        if tree.parent() == Some(from) {
            let behind = tree.log.as_ref().is_some_and(|log| log.window.tail() < moved.tail);
            if behind {
                self.acknowledge(topic, true);
            }
        } else if let Some(child) = tree.children.get_mut(&from) {
            child.subscribers = moved.subscribers;
            self.note_subscribers(cx, topic);
        }
    }

    /// Lists the topics in which the receiver is this node's child.
    fn send_shared(&mut self, to: Contact, topics: &[TopicId]) {
        let mut from = TopicId(Key(0));
        let mut rest = topics;
        loop {
            let (chunk, after) = rest.split_at(rest.len().min(MAX_SHARED));
            let last = after.first().map_or(u128::MAX, |next| next.key().0 - 1);
            let to_id = TopicId(Key(last));
            self.tell(to, &Header::Shared(Shared { from, to: to_id, topics: chunk.to_vec() }));
            let Some(&next) = after.first() else { break };
            (from, rest) = (next, after);
        }
    }

    /// The sender's view of this node as its child, for a range of topics: both sides are made to agree.
    pub(super) fn on_shared(&mut self, cx: Context<'_>, from: Contact, shared: Shared) {
        let id = from.id();
        for &topic in &shared.topics {
            let tree = self.trees.get(&topic);
            let chosen = tree.and_then(|tree| tree.moving.as_ref()?.chosen());
            match tree.map(|tree| (tree.parent(), tree.is_root())) {
                // It waits for this node's word.
                Some(_) if chosen.is_some_and(|to| to.id() == id) => {}
                // It may be this very sender's answer to a JOIN that is on its way.
                Some((None, false)) => {}
                Some((Some(parent), _)) if parent == id => {}
                Some(_) | None => self.deny(from, topic, self.joins),
            }
        }
        let Some(neighbour) = self.neighbours.find(id) else { return };
        let range = shared.from..=shared.to;
        let up = neighbour.topics(Side::Up).iter();
        let lost = up.filter(|topic| range.contains(*topic) && shared.topics.binary_search(topic).is_err());
        for topic in lost.copied().collect::<Vec<_>>() {
            self.on_lost_entry(cx, topic);
        }
    }

    /// The parent has lost its entry of this child: it hears of it again.
    fn on_lost_entry(&mut self, cx: Context<'_>, topic: TopicId) {
        let Some(tree) = self.trees.get(&topic) else { return };
        let Role::Child(upward) = &tree.role else { return };
        let young = cx.now.since(upward.since) < self.config.beat;
        let parting = tree.moving.as_ref().is_some_and(|moving| moving.is_parting());
        if !young && !parting && upward.version.0 == tree.join {
            self.refresh(cx, topic);
        }
    }

    /// Roots that nobody uses are dropped, sessions that nobody uses are forgotten, and a change in the ring of which
    /// no event told is noticed.
    fn look_after_roots(&mut self, cx: Context<'_>) {
        let idle = earlier(cx, self.config.root_idle);
        let session_idle = earlier(cx, self.config.session_idle);
        for topic in self.topic_ids() {
            self.review_place(cx, topic);
            let Some(tree) = self.trees.get_mut(&topic) else { continue };
            let needed = tree.is_needed();
            let Role::Root(root) = &mut tree.role else { continue };
            let before = root.sessions.len();
            root.sessions.expire(session_idle);
            self.sessions -= before - root.sessions.len();
            if needed {
                root.used = cx.now;
            } else if root.used() < idle {
                self.remove_tree(topic);
            }
        }
    }

    /// A node was found dead, or has left the ring.
    pub fn handle_peer_down(&mut self, cx: Context<'_>, peer: NodeId) {
        if let Some(neighbour) = self.neighbours.find(peer) {
            for topic in neighbour.topics(Side::Up).to_vec() {
                self.lose_parent(cx, topic);
            }
        }
        self.drop_children(cx, peer);
        self.congested.remove(&peer);
        self.stalled.remove(&peer);
        self.end_transfers_to(peer);
        self.stop_awaiting(cx, peer);
        self.trees.values_mut().for_each(|tree| tree.forget_root(peer));
        let publishing: Vec<_> = self.publishers.keys().copied().collect();
        for topic in publishing {
            if let Some(publisher) = self.publishers.get_mut(&topic) {
                publisher.on_peer_down(peer);
            }
            self.send_published(cx, topic);
        }
        self.settle(cx);
    }

    /// A connection broke: a hint, not a verdict. Whoever hung on it looks for another way up at once.
    pub fn handle_link_down(&mut self, cx: Context<'_>, peer: NodeId) {
        self.congested.remove(&peer);
        for (topic, child) in self.stalled.remove(&peer).unwrap_or_default() {
            self.push(cx, topic, child);
        }
        if let Some(neighbour) = self.neighbours.find(peer) {
            for topic in neighbour.topics(Side::Up).to_vec() {
                self.seek(cx, topic);
            }
        }
        self.settle(cx);
    }

    /// Leaves all trees: logs are handed over first. [`has_left`](Forest::has_left) says when the ring may be left.
    pub fn leave(&mut self, cx: Context<'_>) {
        if self.life != Life::Running {
            return;
        }
        self.stop_publishers();
        self.topics.clear();
        self.life = Life::Leaving;
        for topic in self.topic_ids() {
            let Some(tree) = self.trees.get_mut(&topic) else { continue };
            tree.subscriptions.clear();
            self.count_own(topic);
            let Some(tree) = self.trees.get(&topic) else { continue };
            let others = cx.ring.replica_set(topic.key(), 2).into_iter().find(|peer| peer.id != self.me);
            if let (Role::Root(_), Some(successor)) = (&tree.role, others) {
                self.abdicate(cx, topic, successor.into());
            }
        }
        if self.handovers.is_done() {
            self.finish_leaving();
        } else {
            self.deadlines.set(Timer::Leave, cx.now + self.config.leave_timeout);
        }
        self.settle(cx);
    }

    /// Says goodbye to parents and children, who look for others at once.
    pub(super) fn finish_leaving(&mut self) {
        if self.life != Life::Leaving {
            return;
        }
        for topic in self.topic_ids() {
            self.remove_tree(topic);
        }
        self.life = Life::Left;
        self.deadlines = Default::default();
        self.beat_at = None;
    }
}

/// The time so long ago; the very beginning, if that is not long enough ago.
fn earlier(cx: Context<'_>, ago: std::time::Duration) -> treecast_overlay::time::Instant {
    let nanos = u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX);
    treecast_overlay::time::Instant::from_nanos(cx.now.as_nanos().saturating_sub(nanos))
}

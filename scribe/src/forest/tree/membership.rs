//! Members of the log: how a root takes, replaces and counts them, and how a node becomes one and ceases to be one.

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};

use super::Tree;
use super::children::Child;
use super::role::Role;
use super::root_state::RootState;
use super::team::{Basis, CLOSEST, Candidate};
use crate::forest::context::{LifeStage, TreeCx, TreeTimer};
use crate::log::Log;
use crate::log::window::Held;
use crate::message::Start;
use crate::wire::{Body, CopyState, Data, Header, Join, Life, Member, Members, Term};

/// So many entries one that takes the place of a missing member may have to get before it is named.
const NEAR: u64 = 64;

impl Tree {
    /// The root asks this node to become a member.
    pub(crate) fn on_invite(&mut self, cx: &mut TreeCx<'_>, from: Contact) {
        if self.role.is_root() || cx.life != LifeStage::Running || cx.ring.contact().is_edge() {
            return cx.tell(from, &Header::InviteRefused { topic: cx.topic });
        }
        if self.flow.log.copy_state().is_none() {
            let life = cx.next_life();
            self.flow.log.accept_invitation(life);
        }
        self.end_relocation(cx);
        self.keep_until = self.keep_until.max(cx.now + cx.config.tree.former_root_linger);
        // Asked once more while the answer may be on its way, it says the same.
        if !self.uplink.is_invited_again(cx.now, from.id()) {
            self.uplink.join = cx.numbers.next_join();
            self.uplink.note_invited(cx.now, from.id());
            if self.role.parent() != Some(from.id()) {
                let former = self.detach_from_parent(cx);
                self.role = Role::Joining { former };
            }
        }
        self.flow.log.stop_listening();
        let join = self.flow.join_message(self.uplink.join, None);
        self.uplink.on_join_sent(&join);
        cx.timers.set(TreeTimer::Join, cx.now + cx.config.tree.join_retry);
        cx.tell(from, &Header::Join(join));
    }

    /// This node leaves: another one is to be a member in its place.
    pub(crate) fn ask_to_be_replaced(&mut self, cx: &mut TreeCx<'_>) {
        if self.role.is_root() {
            return self.review_members(cx);
        }
        let parent = self.role.parent().and_then(|parent| cx.neighbours.contact(parent));
        if let (true, Some(root)) = (self.flow.log.is_member(), parent) {
            cx.tell(root, &Header::InviteRefused { topic: cx.topic });
        }
    }

    /// Whether a log counts on this node, and another one could take its place.
    pub(crate) fn is_held_by_its_log(&self) -> bool {
        let Some(log) = self.flow.log.part() else { return false };
        let Some(replica) = log.replica() else { return self.role.is_root() && log.end() > log.commit() };
        let last = log.configurations().last();
        let others = last.is_some_and(|last| last.members.len() > 1) || !self.flow.children.is_empty();
        let is_named = |me| log.configurations().all().iter().any(|known| known.names(me, replica.life));
        let is_replaced = self.role.is_root() && log.commit() == log.end() && !is_named(replica.me());
        others && !is_replaced
    }

    /// A node will not be a member, or not any longer.
    pub(super) fn on_invite_refused(&mut self, cx: &mut TreeCx<'_>, from: NodeId) {
        if let Some(root) = self.role.root_mut() {
            root.team.on_unwilling(cx.now, from);
            self.review_members(cx);
        }
    }

    /// A member's promise came, which is a JOIN as well.
    pub(super) fn admit_member(
        &mut self,
        cx: &mut TreeCx<'_>,
        contact: Contact,
        copy: CopyState,
        number: u64,
    ) {
        let join = Join {
            topic: cx.topic,
            number,
            start: Start::Latest,
            subscribers: 0,
            former: None,
            copy: Some(Box::new(copy)),
            by_third: false,
        };
        if !self.flow.children.admit(cx, contact, &join) {
            return;
        }
        self.review_follower(contact.id());
        self.take_member(cx, contact.id());
        self.flow.attach(cx, self.role.way_up(cx), contact.id());
        self.flow.push(cx, self.role.way_up(cx), contact.id());
    }

    /// A child that has joined anew follows no more: what it held counts again when it says so.
    pub(super) fn review_follower(&mut self, id: NodeId) {
        if let Role::Root(root) = &mut self.role
            && !self.flow.children.get(id).is_some_and(Child::follows_root)
        {
            root.primary.on_follower_lost(id);
        }
    }

    /// Children that are members no more, and were not asked to become members, go on as ordinary ones. Else such a one
    /// could be named anew in a life that it has ended itself.
    fn release_unnamed(&mut self, cx: &mut TreeCx<'_>) {
        let (Role::Root(root), Some(log)) = (&self.role, self.flow.log.part()) else { return };
        let unnamed = self
            .flow
            .children
            .copies()
            .filter(|(id, copy)| root.primary.releases(log, *id, copy) && !root.team.may_name(*id, copy));
        for id in unnamed.map(|(id, _)| id).collect::<Vec<_>>() {
            if let Role::Root(root) = &mut self.role {
                root.primary.on_follower_lost(id);
            }
            self.flow.children.release(cx, id);
            self.flow.attach(cx, self.role.way_up(cx), id);
            self.flow.push(cx, self.role.way_up(cx), id);
            self.review_shape(cx);
        }
    }

    /// Makes a child that is a member, or was invited, a copy of this root's log. Any other goes on as an ordinary child;
    /// before the root serves, it waits.
    pub(super) fn take_member(&mut self, cx: &mut TreeCx<'_>, id: NodeId) {
        let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part()) else {
            self.wait_or_release(cx, id);
            return;
        };
        if !root.primary.is_serving() {
            return;
        }
        let Some(copy) = self.flow.children.copy_of(id) else { return };
        if root.primary.follows(id, copy.life) && self.flow.children.get(id).is_some_and(|c| c.follows_root())
        {
            return;
        }
        if !root.weighed.contains(&copy.birth) && has_other_branch(log, copy) {
            // Both sides of a partition went on: the one that is longer stays.
            return self.prepare_with(cx, id);
        }
        if has_other_branch(log, copy) && !root.told.contains(&copy.birth) && root.replaces.is_none() {
            root.replaces = Some(copy.birth);
            cx.timers.set_earlier(TreeTimer::Members, cx.now);
        }
        if root.primary.releases(log, id, copy) && !root.team.may_name(id, copy) {
            self.flow.children.release(cx, id);
            return self.review_shape(cx);
        }
        if copy.synced > root.primary.term() {
            // Another root has served since.
            self.known_term = self.known_term.max(copy.synced.number);
            root.lapsed = true;
            cx.timers.set_earlier(TreeTimer::Members, cx.now);
            return;
        }
        root.primary.on_follower_lost(id);
        // While one is missing the next one is not to be waited for longer than need be; else nobody takes the place of one that
        // holds more.
        let last = log.configurations().last();
        let mut others = last.iter().flat_map(|last| last.members.iter()).filter(|m| m.peer.id != cx.me);
        let haste = others.any(|member| is_missing(cx, root, member));
        if haste && copy.end == 0 && !root.primary.may_append(log) {
            // It begins at the configuration that is about to be committed.
            return;
        }
        if let Some((next, sync)) = root.primary.sync(log, id, copy, haste) {
            self.flow.children.follow_root(cx, id, sync.life, next);
        }
    }

    /// Nodes that are to become members, and waited for a configuration, begin there.
    fn take_waiting_members(&mut self, cx: &mut TreeCx<'_>) {
        let follows = |id: NodeId| self.flow.children.get(id).is_some_and(Child::follows_root);
        let waiting = self.flow.children.copies().filter(|(id, copy)| copy.end == 0 && !follows(*id));
        for id in waiting.map(|(id, _)| id).collect::<Vec<_>>() {
            self.take_member(cx, id);
            self.flow.attach(cx, self.role.way_up(cx), id);
            self.flow.push(cx, self.role.way_up(cx), id);
        }
    }

    /// Prepares anew, and asks the members of a child's copy, too, which is of another birth of the log.
    fn prepare_with(&mut self, cx: &mut TreeCx<'_>, id: NodeId) {
        let Some(copy) = self.flow.children.copy_of(id) else { return };
        let (birth, members) =
            (copy.birth, copy.configurations.iter().flat_map(|known| known.members.iter()));
        let members: Vec<Peer> = members.map(|member| member.peer).collect();
        if let Some(root) = self.role.root_mut() {
            root.weighed.insert(birth);
            root.awaited = members;
        }
        self.prepare(cx);
    }

    fn wait_or_release(&mut self, cx: &mut TreeCx<'_>, id: NodeId) {
        if !self.role.is_root() {
            self.flow.children.release(cx, id);
            self.review_shape(cx);
        }
    }

    /// A member says how far it is.
    pub(super) fn on_held(&mut self, cx: &mut TreeCx<'_>, id: NodeId, life: Life, end: u64) {
        let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part.as_mut()) else { return };
        let before = log.commit();
        let news = root.primary.on_held(log, id, life, end);
        let configured = news && log.configurations().all().first().is_some_and(|known| known.at >= before);
        if news {
            self.on_committed(cx);
        } else {
            self.give_receipts(cx);
        }
        let waits = self.role.root().is_some_and(|root| root.team.is_expected(id));
        if configured {
            self.take_waiting_members(cx);
        }
        if configured || waits {
            self.review_members(cx);
        }
    }

    /// Looks whether the members are those that there should be.
    pub(crate) fn review_members(&mut self, cx: &mut TreeCx<'_>) {
        let Role::Root(root) = &self.role else { return };
        if !root.primary.is_serving() || !cx.is_online() {
            return;
        }
        if root.lapsed {
            // Another root may have taken the members over.
            if cx.is_root() {
                self.prepare(cx);
            }
            return;
        }
        if root.is_dropping {
            return;
        }
        self.review_history(cx, false);
        if let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part()) {
            root.team.note_named(log.configurations().all());
        }
        self.release_unnamed(cx);
        let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part()) else { return };
        let Some(current) = log.configurations().last().cloned() else { return };
        let pending = !root.primary.may_append(log);
        let leaving = cx.life != LifeStage::Running;
        let copies = cx.config.replication.copies;
        let mut ranked = cx.ring.replica_set(cx.topic.key(), 2 * CLOSEST);
        // The ring names a node that was found dead until its lease has ended.
        let silent = cx.config.replication.member_silent;
        let is_silent = |id: NodeId| cx.neighbours.find(id).is_some_and(|n| n.silence.lasts(cx.now, silent));
        // One that is silent is not asked to be what it was.
        ranked.retain(|peer| {
            peer.id == cx.me && !leaving
                || peer.id != cx.me && !root.preparation.is_dead(peer.id) && !is_silent(peer.id)
        });
        let serves_since = root.serves_since.unwrap_or(cx.now);
        let (now, me, commit) = (cx.now, cx.me, log.commit());
        let own = log.replica().map(|replica| replica.life);
        let team_state = &root.team;
        let unwilling = |id| team_state.is_unwilling(now, id);
        let (primary, children) = (&root.primary, &self.flow.children);
        let is_heard = |id: NodeId| cx.neighbours.find(id).is_some_and(|n| !n.silence.lasts(now, silent));
        let well: Vec<(NodeId, Life)> = current
            .members
            .iter()
            .filter(|member| {
                let (id, life) = member.key();
                if id == me {
                    return !leaving && own == Some(life);
                }
                let follows = primary.follows(id, life) && children.contains(id) && is_heard(id);
                let is_new = now.since(serves_since) < silent && !root.preparation.is_dead(id);
                !unwilling(id) && (follows || is_new)
            })
            .map(Member::key)
            .collect();
        let standing = |id: NodeId| -> Option<Candidate> {
            if id == me {
                return Some(Candidate { life: own?, held: commit });
            }
            let life = children.get(id).filter(|_| is_heard(id))?.followed_life()?;
            Some(Candidate { life, held: primary.held_by(id).unwrap_or(0) })
        };
        let known = ranked.iter().map(|peer| peer.id);
        let known = known.chain(current.members.iter().map(|member| member.peer.id));
        let standings: Vec<_> = known.map(|id| (id, standing(id))).collect();
        let own_missing = own.is_none() && !leaving && ranked.iter().take(copies).any(|peer| peer.id == me);
        // One that takes the place of a missing member begins at the last configuration: that is to be near.
        let refreshes = log.end() > current.at + NEAR
            && current.members.iter().any(|member| member.peer.id != me && is_missing(cx, root, member));
        let plan = root.team.plan(
            now,
            Basis { configuration: &current, commit, copies, ranked: &ranked },
            |member| well.contains(&member.key()),
            |id| standings.iter().find(|(known, _)| *known == id).and_then(|(_, standing)| *standing),
        );
        let prepare = Header::Prepare { topic: cx.topic, term: root.primary.term() };
        let counting = log.configurations().all().iter().flat_map(|known| known.members.iter());
        let is_absent =
            |member: &&Member| member.peer.id != me && !root.primary.follows(member.peer.id, member.life);
        let absent: Vec<Peer> = counting.filter(is_absent).map(|member| member.peer).collect();
        // One that does not answer either is a member no more for the count of those that live.
        root.preparation.wait_only_for(now, cx.config, &absent);
        let invitation = Header::Invite { topic: cx.topic };
        for peer in absent {
            if root.team.may_ask(now, peer.id) {
                cx.tell(peer.into(), &prepare);
            }
        }
        for peer in plan.invite.iter().filter(|peer| peer.id != me) {
            if root.team.may_ask(now, peer.id) {
                cx.tell((*peer).into(), &invitation);
            }
        }
        // A member that was silent for longer than a beat is asked for a sign of life.
        let quiet = |id: NodeId| {
            cx.neighbours.find(id).is_some_and(|n| now.since(n.silence.heard) > cx.config.beat.every)
        };
        let doubtful: Vec<NodeId> =
            well.iter().map(|(id, _)| *id).filter(|&id| id != me && quiet(id)).collect();
        if plan.is_open || pending || own_missing || !doubtful.is_empty() {
            cx.timers.set_earlier(TreeTimer::Members, cx.now + cx.config.replication.review);
        }
        for id in doubtful {
            self.flow.attach(cx, self.role.way_up(cx), id);
        }
        if self.has_lost_majority(cx) {
            // Its members are asked once more: some may live after all.
            return self.prepare(cx);
        }
        if pending {
            return;
        }
        if own_missing && copies > current.members.len() {
            // This node's log is complete: it becomes a member by saying so.
            let life = cx.next_life();
            if let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part.as_mut()) {
                log.begin_life(me, life);
                log.become_synced(root.primary.term());
            }
            return self.review_members(cx);
        }
        let replaces = self.role.root().is_some_and(|root| root.replaces.is_some());
        if let Some(members) = plan.members {
            self.configure(cx, members.into());
        } else if replaces || refreshes {
            self.configure(cx, current.members);
        } else {
            self.admit_waiting(cx);
        }
    }

    /// Nobody uses the topic: its members forget it, and this node after them. Returns whether they have.
    pub(super) fn drop_log(&mut self, cx: &mut TreeCx<'_>) -> bool {
        let Role::Root(root) = &mut self.role else { return true };
        root.is_dropping = true;
        let members: Vec<NodeId> = self.flow.children.copies().map(|(id, _)| id).collect();
        for &id in &members {
            if let Role::Root(root) = &mut self.role {
                root.primary.on_follower_lost(id);
            }
            // An ordinary child that needs nothing leaves by itself.
            self.flow.children.begin_anew(id);
            self.flow.children.release(cx, id);
            self.flow.attach(cx, self.role.way_up(cx), id);
        }
        self.flow.children.is_empty()
    }

    /// Whether so many members have ended that nothing can be committed any more.
    fn has_lost_majority(&self, cx: &TreeCx<'_>) -> bool {
        let (Role::Root(root), Some(log)) = (&self.role, self.flow.log.part()) else { return false };
        let (own, patience) = (log.replica().map(|replica| replica.life), cx.config.root.force_after);
        let lives = |member: &Member| {
            let (id, life) = member.key();
            if id == cx.me {
                return own == Some(life);
            }
            let is_over = root.preparation.is_over(cx.now, patience, member, |id| is_near(cx, id));
            root.primary.follows(id, life) || !is_over
        };
        let waited = root.serves_since.is_some_and(|since| cx.now.since(since) >= patience);
        waited && log.configurations().all().iter().any(|known| !known.has_majority(lives))
    }

    /// Appends a configuration.
    pub(super) fn configure(&mut self, cx: &mut TreeCx<'_>, members: Members) {
        let unix_ms = cx.unix_ms();
        let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part.as_mut()) else { return };
        let stamp = log.next_stamp(unix_ms);
        if !root.primary.may_append(log) {
            return;
        }
        root.told.extend(root.replaces);
        let ids: Vec<_> = members.iter().map(|member| member.peer.id.to_string()).collect();
        tracing::debug!(topic = %cx.topic, offset = log.end(), members = ?ids, "a new configuration");
        let data = Data {
            topic: cx.topic,
            birth: log.birth,
            offset: log.end(),
            term: root.primary.term().number,
            behind: log.end() - log.commit(),
            stamp,
            body: Body::Configuration { members, birth: None, replaces: root.replaces.take() },
        };
        let held = Held::encode(data, &root.sequencer.sessions.encode());
        let news = root.primary.append(log, held);
        if news {
            self.on_committed(cx);
            self.review_members(cx);
        }
        self.flow.count_window(cx);
        self.flow.run(cx, self.role.way_up(cx));
    }

    /// The root says how far the log is committed.
    pub(super) fn on_commit(&mut self, cx: &mut TreeCx<'_>, from: NodeId, term: Term, commit: u64) {
        let Some(log) = self.flow.log.part.as_mut() else { return };
        let listens = log.replica().is_some_and(|replica| replica.promised == term);
        if from == term.root && listens && log.on_commit_in(term, commit) {
            self.on_committed(cx);
        }
        if self.flow.log.matched() < commit && self.role.parent() == Some(from) {
            self.acknowledge(cx, true);
        }
    }

    /// More is committed: it is read and passed on.
    pub(super) fn on_committed(&mut self, cx: &mut TreeCx<'_>) {
        self.review_membership(cx);
        cx.note_moved();
        self.flow.run(cx, self.role.way_up(cx));
        self.review_backfill(cx);
        self.watch_slowest(cx);
        if self.role.is_root() {
            cx.at_turn_end();
            self.give_receipts(cx);
            self.admit_waiting(cx);
        }
    }

    /// A configuration without this node may be committed: then it is no member any more.
    pub(crate) fn review_membership(&mut self, cx: &mut TreeCx<'_>) {
        let released = self.flow.log.part().is_some_and(|log| log.is_released());
        if released && !self.role.is_root() {
            self.flow.log.end_life();
            self.flow.count_window(cx);
            self.rejoin(cx);
            self.review_need(cx);
            self.review_shape(cx);
        }
    }

    /// The turn ends: members hear what was committed in it, the root what this member holds.
    pub(crate) fn on_turn_end(&mut self, cx: &mut TreeCx<'_>) {
        match &self.role {
            Role::Root(root) if root.primary.is_serving() => {
                self.flow.tell_commit(cx, root.primary.term(), false);
            }
            Role::Child(_) if self.flow.log.part().is_some() => self.acknowledge(cx, false),
            Role::Root(_) | Role::Child(_) | Role::Joining { .. } => {}
        }
    }
}

/// Whether a member does not follow its root, or is silent, or dead.
fn is_missing(cx: &TreeCx<'_>, root: &RootState, member: &Member) -> bool {
    let (id, life) = member.key();
    let limit = cx.config.replication.member_silent;
    !root.primary.follows(id, life)
        || root.preparation.is_dead(id)
        || cx.neighbours.find(id).is_none_or(|neighbour| neighbour.silence.lasts(cx.now, limit))
}

/// Whether the ring knows a node near the topic's key.
pub(super) fn is_near(cx: &TreeCx<'_>, id: NodeId) -> bool {
    cx.ring.replica_set(cx.topic.key(), 2 * cx.config.root.queried).iter().any(|peer| peer.id == id)
}

/// Whether a copy is of another birth than a log, and has entries that the log did not take over.
pub(super) fn has_other_branch(log: &Log, copy: &CopyState) -> bool {
    if copy.birth == log.birth || copy.synced == Term::ZERO {
        return false;
    }
    // Where the log took over all that was committed, the rest of a copy is what never was.
    let end = if log.took_all_of(copy.birth) { copy.commit } else { copy.end };
    log.lineage.common(log.birth, &copy.lineage, copy.birth).is_none_or(|common| end > common)
}

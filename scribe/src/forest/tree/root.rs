//! Becoming the root, and stepping down. The ring decides which node is the root. A root prepares a term: it asks the
//! members of the log for their promises, adopts the best of a majority's copies, and serves (design §6, replication).

use std::ops::Range;

use bytes::Bytes;
use rand::RngExt;
use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};

use super::membership::{has_other_branch, is_near};
use super::preparation::{PULLED_AT_ONCE, PullUnderWay, Purpose};
use super::receipts::WaitingReceipt;
use super::role::Role;
use super::root_state::RootState;
use super::team::Team;
use super::{ParentLost, Tree};
use crate::forest::context::{LifeStage, TreeCx, TreeTimer};
use crate::log::early::Arrived;
use crate::log::primary::{PrepareOutcome, Primary};
use crate::log::sessions::Sessions;
use crate::log::window::{Held, Window};
use crate::log::{Change, Log};
use crate::message::Mark;
use crate::wire::{
    Birth, Body, CopyState, Data, Header, Life, Lineage, Member, Promise, Publish, Pull, RefusedReason, Term,
};

/// Periods of asking again after which a source is given up.
const PULL_PATIENCE: u32 = 8;

impl Tree {
    /// Whether this node is the topic's root is the ring's decision, and may have changed.
    pub(crate) fn review_place(&mut self, cx: &mut TreeCx<'_>) {
        if cx.life != LifeStage::Running || !cx.is_online() {
            return;
        }
        match (self.role.is_root(), cx.is_root()) {
            (false, true) => self.become_root(cx),
            (true, false) => self.on_root_lost(cx),
            // Another one may have been the root meanwhile.
            (true, true) if self.role.root().is_some_and(|root| root.lapsed) => self.prepare(cx),
            (true, true) | (false, false) => {}
        }
    }

    /// This root's leases do not run. If it is still the closest that it knows of, it waits, and positions nothing; else
    /// the successor prepares a term of its own.
    fn on_root_lost(&mut self, cx: &mut TreeCx<'_>) {
        if let Some(root) = self.role.root_mut() {
            root.lapsed = true;
        }
        if let Some(successor) = cx.successor() {
            self.step_down(cx, Some(successor));
        }
    }

    /// Becomes the root.
    pub(crate) fn become_root(&mut self, cx: &mut TreeCx<'_>) {
        self.end_relocation(cx);
        // An answer to a JOIN that is still on its way is void.
        self.uplink.join = cx.numbers.next_join();
        self.leave_parent(cx);
        self.role = Role::Root(Box::new(RootState::new(cx.now, cx.me, Term::ZERO, None)));
        self.flow.log.clear_early();
        self.flow.history = None;
        cx.timers.cancel(TreeTimer::History);
        self.flow.readers.reconsider_starts();
        for timer in [TreeTimer::Join, TreeTimer::Ack, TreeTimer::Linger] {
            cx.timers.cancel(timer);
        }
        self.flow.count_window(cx);
        self.note_parent(cx, None);
        self.announce_path(cx);
        self.review_shape(cx);
        self.flow.wait_for_orphans(cx);
        self.prepare(cx);
    }

    /// Begins a term above all that this node has heard of.
    pub(super) fn prepare(&mut self, cx: &mut TreeCx<'_>) {
        let Role::Root(root) = &mut self.role else { return };
        let log = self.flow.log.part.as_mut();
        let promised =
            log.as_ref().and_then(|log| log.replica()).map_or(0, |replica| replica.promised.number);
        let number = promised.max(root.primary.term().number).max(self.known_term) + 1;
        let term = Term { number, root: cx.me };
        self.known_term = number;
        let members: Vec<Peer> =
            log.as_ref().filter(|log| log.replica().is_some()).map_or_else(Vec::new, |log| {
                let all = log.configurations().all().iter().flat_map(|known| known.members.iter());
                all.map(|member| member.peer).collect()
            });
        let own = log.and_then(|log| log.on_prepare(term)).and_then(Result::ok);
        let admission = std::mem::take(&mut root.sequencer.admission);
        let (weighed, awaited) = (std::mem::take(&mut root.weighed), std::mem::take(&mut root.awaited));
        let (used, receipts, told) =
            (root.used, std::mem::take(&mut root.receipts), std::mem::take(&mut root.told));
        let has_served = root.has_served || root.primary.is_serving();
        **root = RootState::new(cx.now, cx.me, term, own);
        (root.has_served, root.receipts) = (has_served, receipts);
        root.sequencer.admission = admission;
        (root.weighed, root.awaited, root.used, root.told) = (weighed, awaited.clone(), used, told);
        self.ask(cx, members);
        if !awaited.is_empty() {
            self.ask(cx, awaited);
        }
        self.proceed(cx);
    }

    /// Asks members for their promises; nobody known: those around the key.
    pub(super) fn ask(&mut self, cx: &mut TreeCx<'_>, members: Vec<Peer>) {
        let Role::Root(root) = &mut self.role else { return };
        let around = || cx.ring.replica_set(cx.topic.key(), cx.config.root.queried);
        let peers = if members.is_empty() { around() } else { members };
        let peers = peers.into_iter().filter(|peer| peer.id != cx.me);
        let prepare = Header::Prepare { topic: cx.topic, term: root.primary.term() };
        for contact in root.preparation.ask(cx.now, cx.config, peers) {
            cx.tell(contact, &prepare);
        }
    }

    /// Takes the next step towards serving, if there is one.
    pub(super) fn proceed(&mut self, cx: &mut TreeCx<'_>) {
        let Role::Root(root) = &mut self.role else { return };
        if root.primary.is_serving() {
            return;
        }
        if !cx.is_root() {
            cx.timers.set(TreeTimer::Recover, cx.now + cx.config.root.query_retry);
            return self.on_root_lost(cx);
        }
        if root.lapsed {
            return self.prepare(cx);
        }
        let prepare = Header::Prepare { topic: cx.topic, term: root.primary.term() };
        for contact in root.preparation.ask_again(cx.now, cx.config) {
            cx.tell(contact, &prepare);
        }
        if root.preparation.pull.is_some() {
            self.pull_again(cx);
        } else {
            self.weigh(cx);
        }
        self.flow.count_window(cx);
        if let Role::Root(root) = &self.role
            && !root.primary.is_serving()
        {
            cx.timers.set(TreeTimer::Recover, root.preparation.look_again_at(cx.now, cx.config));
        }
    }

    fn weigh(&mut self, cx: &mut TreeCx<'_>) {
        let Role::Root(root) = &mut self.role else { return };
        let forces = root.preparation.may_force(cx.now, cx.config);
        let awaits = |peer: &Peer| peer.id != cx.me && root.preparation.awaits_answer(peer.id);
        if !forces && root.awaited.iter().any(awaits) {
            return;
        }
        let is_near = |id| is_near(cx, id);
        let (preparation, now) = (&root.preparation, cx.now);
        let own = self.flow.log.part().and_then(|log| log.replica()).map(|replica| replica.life);
        let is_over = |member: &Member| {
            // A node that was restarted knows that its earlier life has ended.
            let is_own_past = member.peer.id == cx.me && own != Some(member.life);
            is_own_past || preparation.is_over(now, cx.config.root.query_timeout, member, is_near)
        };
        let hurries = preparation.may_force(now, cx.config);
        let outcome = root.primary.outcome(is_over, hurries);
        if matches!(outcome, PrepareOutcome::MajorityEnded { .. }) {
            let doubted = root.preparation.doubt(cx.now, cx.config);
            let prepare = Header::Prepare { topic: cx.topic, term: root.primary.term() };
            for &contact in &doubted {
                cx.tell(contact, &prepare);
            }
            if !doubted.is_empty() {
                return;
            }
        }
        match outcome {
            PrepareOutcome::Adopt { best, commit } => self.adopt_best(cx, best, commit),
            PrepareOutcome::Wait(missing) => {
                self.ask(cx, missing.into_iter().map(|member| member.peer).collect())
            }
            PrepareOutcome::MajorityEnded { .. } if self.role.root().is_some_and(|root| root.has_served) => {
                self.begin_anew(cx);
            }
            PrepareOutcome::MajorityEnded { complete, .. } => {
                // Others may hold what the survivors lack: all around are asked, and orphans come with their marks.
                self.ask(cx, Vec::new());
                let forced =
                    self.role.root().is_some_and(|root| root.preparation.may_force(cx.now, cx.config));
                if complete || forced {
                    self.gather(cx, complete);
                }
            }
            PrepareOutcome::Unknown => {
                self.ask(cx, Vec::new());
                if !root_is_answered(self, cx) {
                    return;
                }
                let known = self.flow.log.part().is_some() || self.best_window(cx, false).is_some();
                let forced =
                    self.role.root().is_some_and(|root| root.preparation.may_force(cx.now, cx.config));
                if !known {
                    self.found(cx);
                } else if forced {
                    self.flow.log.drop_open_unless_member();
                    self.gather(cx, false);
                }
            }
        }
    }

    fn adopt_best(&mut self, cx: &mut TreeCx<'_>, best: NodeId, commit: u64) {
        let Role::Root(root) = &mut self.role else { return };
        let Some(promise) = root.primary.promises().find(|(node, _)| *node == best) else { return };
        let promise = promise.1;
        // One without a log is not waited for until it has all that the best one keeps: it pulls the rest when it serves.
        let last = promise.configurations.iter().rfind(|known| known.at < promise.commit);
        let checkpoint = last.map_or(promise.start, |known| known.at.max(promise.start));
        let start = if self.flow.log.part().is_none() { checkpoint } else { promise.start };
        let (birth, lineage, until) = (promise.birth, promise.lineage.clone(), promise.end);
        self.flow.change_log(|log| (log.go_over(birth, &lineage, start), ()));
        self.flow.count_window(cx);
        let Role::Root(root) = &mut self.role else { return };
        match root.primary.adopt(&mut self.flow.log.part, best, commit) {
            None => self.begin_serving(cx),
            Some(next) => {
                let from = root.preparation.contact(best).unwrap_or_else(|| cx.ring.contact());
                self.pull(cx, from, next, until, Purpose::Adopt);
            }
        }
    }

    /// Asks a node for entries.
    fn pull(&mut self, cx: &mut TreeCx<'_>, from: Contact, next: u64, until: u64, purpose: Purpose) {
        let Role::Root(root) = &mut self.role else { return };
        let mut pull = PullUnderWay::new(from, cx.numbers.next_join(), next..until, purpose, cx.now);
        pull.again_at = cx.now + cx.config.root.query_retry;
        pull.give_up_at = cx.now + cx.config.root.query_retry * PULL_PATIENCE;
        cx.timers.set(TreeTimer::Recover, pull.again_at);
        let requests = pull.requests();
        root.preparation.pull = Some(pull);
        self.send_pulls(cx, requests);
    }

    fn send_pulls(&mut self, cx: &mut TreeCx<'_>, requests: Vec<Range<u64>>) {
        let Role::Root(root) = &mut self.role else { return };
        let Some(pull) = &root.preparation.pull else { return };
        let birth = match root.primary.adopting() {
            Some((_, promise)) => Some(promise.birth),
            None => self.flow.log.part().map(|log| log.birth),
        };
        for Range { start: from, end: until } in requests {
            let message = Pull {
                topic: cx.topic,
                number: pull.number,
                birth: birth.unwrap_or(0),
                from,
                until,
                term: (pull.purpose != Purpose::TakeOverWindow).then(|| root.primary.term()),
            };
            cx.tell(pull.from, &Header::Pull(message));
        }
    }

    /// Entries that were asked for have not come.
    fn pull_again(&mut self, cx: &mut TreeCx<'_>) {
        let Some(root) = self.role.root_mut() else { return };
        let Some(pull) = &mut root.preparation.pull else { return };
        if pull.give_up_at <= cx.now {
            return self.give_source_up(cx);
        }
        if pull.again_at <= cx.now {
            pull.again_at = cx.now + cx.config.root.query_retry;
            let missing = pull.missing(0..u64::MAX);
            self.send_pulls(cx, missing);
        }
    }

    /// The node that was to give entries does not.
    fn give_source_up(&mut self, cx: &mut TreeCx<'_>) {
        let Some(root) = self.role.root_mut() else { return };
        let Some(pull) = root.preparation.pull.take() else { return };
        // It may be slow only: it is asked anew.
        root.preparation.forget(pull.from.id());
        root.primary.on_best_lost();
        self.proceed(cx);
    }

    /// An entry came that was asked for.
    pub(super) fn on_pulled(&mut self, cx: &mut TreeCx<'_>, number: u64, entry: Arrived) {
        if self.on_backfill(cx, number, &entry) {
            return;
        }
        if self.flow.has_asked(number) {
            let came = self.flow.take_history(cx, &entry);
            return self.review_history(cx, came);
        }
        let Some(root) = self.role.root_mut() else { return };
        let Some(pull) = root.preparation.pull.as_mut().filter(|pull| pull.number == number) else { return };
        let lost = pull.keep(entry.compact(cx.config.window.copy_below));
        self.send_pulls(cx, lost);
        while self.take_pulled(cx) {}
    }

    /// Takes the next entry of those that were pulled. Returns whether it was there, and others may follow.
    fn take_pulled(&mut self, cx: &mut TreeCx<'_>) -> bool {
        let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part.as_mut()) else {
            return false;
        };
        let Some(pull) = &mut root.preparation.pull else { return false };
        let Some(entry) = pull.take() else { return false };
        let requests = pull.requests();
        pull.again_at = cx.now + cx.config.root.query_retry;
        pull.give_up_at = cx.now + cx.config.root.query_retry * PULL_PATIENCE;
        let done = pull.next >= pull.until;
        let served = match pull.purpose {
            Purpose::Adopt => root.primary.on_pulled(log, entry.offset, entry.held),
            Purpose::TakeOverCopy => {
                let _ = log.take_committed(entry.offset, entry.held);
                false
            }
            Purpose::TakeOverWindow => {
                // Without a log of its own this node learns the births before from the entry that says so.
                if let Body::Configuration { birth: Some(birth), .. } = &entry.held.body
                    && entry.birth == log.birth
                {
                    log.lineage = birth.lineage.clone();
                }
                log.adopt_committed(entry.offset, entry.held);
                false
            }
        };
        let adopts = pull.purpose == Purpose::Adopt;
        if served || (done && !adopts) {
            root.preparation.pull = None;
        }
        self.flow.count_window(cx);
        if served {
            self.begin_serving(cx);
        } else if done && !adopts {
            self.proceed(cx);
        } else {
            self.send_pulls(cx, requests);
        }
        !served && !done
    }

    /// A node has not what was asked for.
    pub(super) fn on_not_pulled(&mut self, cx: &mut TreeCx<'_>, number: u64, start: Option<u64>) {
        if self.on_no_backfill(cx, number, start) {
            return;
        }
        if self.flow.has_asked(number) {
            self.flow.on_no_history(start);
            return self.review_history(cx, false);
        }
        let Some(root) = self.role.root_mut() else { return };
        let Some(pull) = root.preparation.pull.as_mut().filter(|pull| pull.number == number) else { return };
        // A node without a log of its own begins where the window does that it takes over.
        let has_none = self.flow.log.part().is_some_and(|log| log.end() == 0);
        let begins = has_none && pull.purpose == Purpose::TakeOverWindow;
        let Some(start) = start.filter(|&start| begins && start > pull.next) else {
            let source = pull.from.id();
            root.preparation.lack.insert(source);
            return self.give_source_up(cx);
        };
        pull.skip_to(start);
        let requests = pull.requests();
        if let Some(log) = &mut self.flow.log.part {
            log.skip_to(pull.next);
        }
        if pull.next < pull.until {
            return self.send_pulls(cx, requests);
        }
        // That window is empty.
        root.preparation.pull = None;
        self.proceed(cx);
    }

    /// A node asks for entries: of what is committed, or, if it is the root that was promised its term, of all.
    pub(super) fn on_pull(&mut self, cx: &mut TreeCx<'_>, from: Contact, pull: &Pull) {
        let log = self.flow.log.part().filter(|log| log.birth == pull.birth);
        let end = log.map_or(0, |log| match pull.term {
            Some(term) if log.replica().is_some_and(|replica| replica.promised == term) => log.end(),
            Some(_) => 0,
            None => log.commit(),
        });
        let missing = || Header::NotPulled {
            topic: cx.topic,
            number: pull.number,
            start: log.map(|log| log.window.start()),
        };
        if self.flow.awaits_older() && log.is_some_and(|log| pull.from < log.window.start()) {
            // It may come: to be asked again.
            return;
        }
        let Some(log) = log.filter(|log| pull.from >= log.window.start() && pull.from < end) else {
            let missing = missing();
            return cx.tell(from, &missing);
        };
        let until = pull.until.min(end).min(pull.from + PULLED_AT_ONCE);
        let mut bytes = 0;
        for (offset, entry) in log.window.entries_from(pull.from).take_while(|(offset, _)| *offset < until) {
            // The first entry goes in any case.
            if bytes > 0 && bytes + entry.encoded.len() > cx.config.push.bytes {
                break;
            }
            bytes += entry.encoded.len();
            let header = Header::Pulled { topic: cx.topic, number: pull.number, offset };
            cx.out.send_data(from, crate::wire::encode(&header, &entry.encoded));
        }
    }

    /// A root asks for a promise.
    pub(super) fn on_prepare(&mut self, cx: &mut TreeCx<'_>, from: Contact, term: Term) {
        let own = self.role.root().map(|root| root.primary.term());
        if own.is_some_and(|own| own >= term) {
            let promised = own.unwrap_or(Term::ZERO);
            return cx.tell(from, &Header::PromiseRefused { topic: cx.topic, promised });
        }
        self.known_term = self.known_term.max(term.number);
        let answer = self.flow.log.part.as_mut().and_then(|log| log.on_prepare(term));
        match answer {
            Some(Err(promised)) => cx.tell(from, &Header::PromiseRefused { topic: cx.topic, promised }),
            Some(Ok(copy)) => {
                // The promise is a JOIN as well: the root of that term is to be the parent.
                self.flow.log.stop_listening();
                self.end_relocation(cx);
                self.yield_root(cx, Some(from));
                self.uplink.join = cx.numbers.next_join();
                if self.role.parent() != Some(from.id()) {
                    let former = self.detach_from_parent(cx);
                    self.role = Role::Joining { former };
                }
                cx.timers.set(TreeTimer::Join, cx.now + cx.config.tree.join_retry);
                let promise = Promise {
                    topic: cx.topic,
                    term,
                    join: self.uplink.join,
                    copy: Some(Box::new(copy)),
                    known: None,
                };
                cx.tell(from, &Header::Promise(promise));
            }
            None => {
                let known = self.flow.log.mark();
                let promise = Promise { topic: cx.topic, term, join: 0, copy: None, known };
                cx.tell(from, &Header::Promise(promise));
            }
        }
    }

    /// A node answers.
    pub(super) fn on_promise(&mut self, cx: &mut TreeCx<'_>, from: Contact, promise: Promise) {
        let Role::Root(root) = &mut self.role else { return };
        if root.primary.term() != promise.term {
            return;
        }
        match promise.copy {
            None => root.preparation.on_no_copy(cx.now, from, promise.known),
            Some(copy) => {
                root.preparation.on_copy(cx.now, from, (*copy).clone(), promise.join);
                if root.primary.is_serving() {
                    return self.admit_member(cx, from, *copy, promise.join);
                }
                root.primary.on_promise(from.id(), *copy);
            }
        }
        self.proceed(cx);
    }

    /// A member has promised to listen to another root.
    pub(super) fn on_promise_refused(&mut self, cx: &mut TreeCx<'_>, promised: Term) {
        self.known_term = self.known_term.max(promised.number);
        let fenced = self.role.root().is_some_and(|root| root.primary.term() < promised);
        if !fenced {
            return;
        }
        if cx.is_root() {
            // The ring decides for one of them: whoever it is prepares once more, though not at once.
            let pause = cx.pause(cx.config.root.query_retry, 0);
            let Some(root) = self.role.root_mut() else { return };
            (root.lapsed, root.has_served) = (true, false);
            let timer = if root.primary.is_serving() { TreeTimer::Members } else { TreeTimer::Recover };
            cx.timers.set(timer, cx.now + pause);
        } else {
            let successor = cx.successor();
            self.step_down(cx, successor);
        }
    }

    /// A node died: its answer is waited for no more, and it is no member any longer.
    pub(crate) fn on_node_down(&mut self, cx: &mut TreeCx<'_>, node: NodeId) {
        let Role::Root(root) = &mut self.role else { return };
        root.team.forget(node);
        let awaited = root.preparation.on_dead(cx.now, node);
        if root.primary.is_serving() {
            return self.review_members(cx);
        }
        let pulled_from = root.preparation.pull.as_ref().is_some_and(|pull| pull.from.id() == node);
        if pulled_from {
            return self.give_source_up(cx);
        }
        if awaited {
            self.proceed(cx);
        }
    }

    /// The window of another node that reaches farther than this node's log, in the same log. `holds`: only of those that
    /// may have its entries.
    fn best_window(&self, cx: &TreeCx<'_>, holds: bool) -> Option<(Contact, Mark)> {
        let root = self.role.root()?;
        let own = self.flow.log.part().map(|log| (log.birth, log.commit()));
        let children = self.flow.children.starts_with_contacts(cx);
        let windows = root.preparation.windows().chain(children);
        let lacks = |contact: &Contact| holds && root.preparation.lack.contains(&contact.id());
        let same = windows.filter(|(contact, mark)| {
            !lacks(contact) && own.is_none_or(|(birth, end)| birth == mark.birth && end < mark.next)
        });
        same.max_by_key(|(contact, mark)| (mark.next, contact.id()))
    }

    /// A majority of the members has ended: takes over what the survivors and the tree's windows hold, and opens a birth.
    fn gather(&mut self, cx: &mut TreeCx<'_>, complete: bool) {
        let Role::Root(root) = &mut self.role else { return };
        // First the survivors' copies, of which some reach beyond what they know to be committed. Of those of the longest
        // birth the one of the latest term is the best, as among those that are adopted.
        let own = self.flow.log.part().map(|log| (log.birth, log.end()));
        let own_copy = self.flow.log.copy_state().map(|copy| (copy.birth, copy.synced, copy.end));
        let copies = || root.preparation.copies().map(|(contact, copy, _)| (contact, copy));
        let longest = copies().max_by_key(|(_, copy)| copy.end).map(|(_, copy)| copy.birth);
        let of_longest = copies().filter(|(_, copy)| Some(copy.birth) == longest);
        let best = of_longest.max_by_key(|(_, copy)| (copy.synced, copy.end));
        let best = best.filter(|(_, copy)| match own_copy {
            Some((birth, synced, end)) if birth == copy.birth => (synced, end) < (copy.synced, copy.end),
            Some((_, _, end)) => end < copy.end,
            None => own.is_none_or(|(birth, end)| birth != copy.birth || end < copy.end),
        });
        let best = best.map(|(contact, copy)| (contact, copy.clone()));
        if let Some((contact, CopyState { birth, start, end, lineage, .. })) = best {
            let newer = own.is_none_or(|own| lineage.taken_over(own.0).is_some() || own.0 == birth);
            if newer {
                self.flow.change_log(|log| (log.go_over(birth, &lineage, start), ()));
                if let Some(log) = &mut self.flow.log.part {
                    log.end_life();
                }
                self.flow.count_window(cx);
                let next = self.flow.log.part().map_or(start, Log::end);
                // A survivor gives all of its copy to the root that it has promised.
                return self.pull(cx, contact, next, end, Purpose::TakeOverCopy);
            }
        }
        if let Some((contact, mark)) = self.best_window(cx, true) {
            // Without a log of its own it asks for all that the other one keeps.
            self.flow.change_log(|log| match log.part() {
                None => (log.go_over(mark.birth, &Lineage::default(), 0), ()),
                Some(_) => (Change::None, ()),
            });
            let next = self.flow.log.part().map_or(0, Log::commit);
            return self.pull(cx, contact, next, mark.next, Purpose::TakeOverWindow);
        }
        if let (None | Some(0), Some((_, mark))) =
            (self.flow.log.part().map(Log::end), self.best_window(cx, false))
        {
            // Nobody that is known holds its entries: at least those that do go on behind them.
            self.flow.log.part = Some(Box::new(Log::new(mark.birth, Lineage::default(), mark.next)));
            self.flow.count_window(cx);
        }
        self.open_birth(cx, complete);
    }

    /// No node knows of this topic: a new log is born.
    fn found(&mut self, cx: &mut TreeCx<'_>) {
        let birth = cx.rng.random();
        self.flow.log.part = Some(Box::new(Log::new(birth, Lineage::default(), 0)));
        self.begin_birth(cx, birth, Lineage::default(), true);
        self.after_preparing(cx);
    }

    /// The log begins anew, with all that is here.
    fn open_birth(&mut self, cx: &mut TreeCx<'_>, complete: bool) {
        self.branch(cx, complete);
        self.after_preparing(cx);
    }

    /// Members have ended without which nothing can be committed. This root has served last, so it holds all that was:
    /// it begins the log anew. What was not committed its publishers send again, if they are on this node's side; those on
    /// another side may have another root, which gives their messages their places.
    fn begin_anew(&mut self, cx: &mut TreeCx<'_>) {
        if let Some(log) = &mut self.flow.log.part {
            log.drop_open();
        }
        self.branch(cx, true);
        if let Role::Root(root) = &mut self.role {
            // Nobody else has positioned any: none is of a birth that is not known here.
            root.sequencer.young_until = 0;
        }
        self.after_preparing(cx);
    }

    /// Begins a birth that goes on from this node's log.
    fn branch(&mut self, cx: &mut TreeCx<'_>, complete: bool) {
        let Some(log) = self.flow.log.part() else { return };
        let birth = cx.rng.random();
        let lineage = log.lineage.then(log.birth, log.end());
        tracing::info!(topic = %cx.topic, offset = log.end(), complete, "a majority of the log's members has ended: it begins anew");
        let to = lineage.clone();
        self.flow.change_log(|log| {
            let end = log.part().map_or(0, Log::end);
            if let Some(log) = &mut log.part {
                log.begin_anew(birth, to);
            }
            (Change::Branched { end, descends: true, left: Window::new(end) }, ())
        });
        self.begin_birth(cx, birth, lineage, complete);
    }

    fn begin_birth(&mut self, cx: &mut TreeCx<'_>, birth: u64, lineage: Lineage, complete: bool) {
        let life = cx.next_life();
        let stamp = cx.unix_ms();
        let (me, topic) = (cx.me, cx.topic);
        let peer = cx.ring.contact().peer;
        let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part.as_mut()) else { return };
        let term = Term { number: root.primary.term().number.max(1), root: me };
        root.sequencer.sessions = replay(cx, log);
        root.primary = Primary::found(me, term);
        log.begin_life(me, life);
        let members = [Member { peer, life }].into();
        let birth_entry = Birth { lineage, complete };
        let body = Body::Configuration { members, birth: Some(Box::new(birth_entry)), replaces: None };
        let data = Data { topic, birth, offset: log.end(), term: term.number, behind: 0, stamp, body };
        let held = Held::encode(data, &root.sequencer.sessions.encode());
        root.primary.append(log, held);
        root.sequencer.young_until = young_until(cx, log);
    }

    /// The term is this node's, and the log complete: positions are given.
    fn begin_serving(&mut self, cx: &mut TreeCx<'_>) {
        let (Role::Root(root), Some(log)) = (&mut self.role, self.flow.log.part.as_mut()) else { return };
        root.sequencer.sessions = replay(cx, log);
        root.sequencer.young_until = young_until(cx, log);
        self.after_preparing(cx);
    }

    fn after_preparing(&mut self, cx: &mut TreeCx<'_>) {
        let Role::Root(root) = &mut self.role else { return };
        cx.timers.cancel(TreeTimer::Recover);
        self.flow.count_window(cx);
        tracing::debug!(topic = %cx.topic, term = root.primary.term().number, "serving");
        root.serves_since = Some(cx.now);
        root.awaited.clear();
        if let Some(log) = self.flow.log.part() {
            let others = root.preparation.copies().map(|(_, copy, _)| copy);
            let given_up = others.filter(|copy| has_other_branch(log, copy)).map(|copy| copy.birth);
            root.replaces = given_up.filter(|birth| !root.told.contains(birth)).min();
            // What this node positioned in an earlier term may not be in the log that it serves now.
            root.receipts.retain(|waiting| is_there(log, waiting));
        }
        root.team = Team::default();
        let copies: Vec<_> =
            root.preparation.copies().map(|(contact, copy, join)| (contact, copy.clone(), join)).collect();
        for (contact, copy, join) in copies {
            self.admit_member(cx, contact, copy, join);
        }
        self.review_old_copies(cx);
        self.review_history(cx, false);
        self.start_readers(cx, 0);
        self.flow.start_children(cx, self.role.way_up(cx));
        self.on_committed(cx);
        self.review_members(cx);
    }

    /// Children that have joined as members, and have not promised in this term: how their copies stand now is not known. A
    /// member is asked for its promise; one that was to become a member is an ordinary child until it is invited again.
    fn review_old_copies(&mut self, cx: &mut TreeCx<'_>) {
        let joined: Vec<(NodeId, Life)> =
            self.flow.children.copies().map(|(id, copy)| (id, copy.life)).collect();
        for (id, life) in joined {
            let (Role::Root(root), Some(log)) = (&self.role, self.flow.log.part()) else { return };
            let is_member = log.configurations().all().iter().any(|known| known.names(id, life));
            if !is_member && !root.primary.follows(id, life) {
                self.take_member(cx, id);
                self.flow.attach(cx, self.role.way_up(cx), id);
            }
        }
    }

    /// Another node is the root now. This one becomes its child.
    pub(crate) fn step_down(&mut self, cx: &mut TreeCx<'_>, successor: Option<Contact>) {
        if !self.role.is_root() {
            return;
        }
        self.keep_until = cx.now + cx.config.tree.former_root_linger;
        self.yield_root(cx, successor);
        self.on_parent_lost(cx, ParentLost::SteppedDown);
        self.review_need(cx);
    }

    /// Is the root no more: publishers whose messages wait hear who is, and send them there.
    pub(super) fn yield_root(&mut self, cx: &mut TreeCx<'_>, successor: Option<Contact>) {
        if !self.role.is_root() {
            return;
        }
        if let Role::Root(root) = &self.role
            && root.primary.is_serving()
        {
            // The next root has to know which configurations count: those that this one waited for may be gone then.
            self.flow.tell_commit(cx, root.primary.term(), true);
        }
        let joining = Role::Joining { former: None };
        let Role::Root(mut root) = std::mem::replace(&mut self.role, joining) else { return };
        for timer in [TreeTimer::Recover, TreeTimer::Members, TreeTimer::Receipts] {
            cx.timers.cancel(timer);
        }
        for waiting in root.receipts.take_all() {
            let reason = RefusedReason::NotRoot { root: successor };
            let (session, sequence) = (waiting.session, waiting.sequence);
            let refused = Header::Refused { topic: cx.topic, session, sequence, reason };
            cx.tell(waiting.publisher, &refused);
        }
        while let Some((publish, payload)) = root.sequencer.admission.take() {
            cx.out.route(cx.topic, crate::wire::encode(&Header::Publish(publish), &payload));
        }
        if let Some(log) = self.flow.log.part.as_mut().filter(|log| log.replica().is_none()) {
            // Entries that are not committed are the members' to keep.
            log.end_life();
        }
        self.flow.count_window(cx);
        // Members are children of the root: they look for the next one.
        let members: Vec<NodeId> = self.flow.children.copies().map(|(id, _)| id).collect();
        for id in members {
            let contact = cx.neighbours.contact(id);
            self.flow.children.remove(cx, id);
            if let Some(contact) = contact {
                cx.send_orphan(contact);
            }
        }
        self.count_own(cx);
    }

    /// Gives a start to the subscriptions that have none, once the log has one (promise S5). `latest`: the end of the
    /// parent's log, if it has just said so: entries up to there were published before.
    pub(super) fn start_readers(&mut self, cx: &mut TreeCx<'_>, latest: u64) {
        if self.role.is_preparing() {
            // It may still learn of a longer log.
            return;
        }
        self.flow.start_readers(cx, latest);
        self.flow.deliver(cx);
        self.review_backfill(cx);
    }

    /// A message asks this node, which is the root, for its position.
    pub(crate) fn on_publish(&mut self, cx: &mut TreeCx<'_>, publish: Publish, payload: Bytes) {
        if !self.role.is_root() {
            // Alone in the ring, it serves at once.
            self.become_root(cx);
        }
        self.answer(cx, publish, payload);
    }
}

fn is_there(log: &Log, waiting: &WaitingReceipt) -> bool {
    log.window.entry(waiting.offset).is_some_and(|entry| match entry.body {
        Body::Message { publisher, session, sequence, .. } => {
            (publisher, session, sequence) == (waiting.publisher.id(), waiting.session, waiting.sequence)
        }
        Body::Configuration { .. } => false,
    })
}

fn root_is_answered(tree: &Tree, cx: &TreeCx<'_>) -> bool {
    tree.role.root().is_some_and(|root| root.preparation.is_answered(cx.now, cx.config))
}

fn replay(cx: &TreeCx<'_>, log: &Log) -> Sessions {
    let limit = cx.quota.session_room(cx.config).min(cx.config.sessions.per_topic);
    Sessions::replay(log, limit, cx.config.publish.messages, &cx.quota.sessions)
}

/// Until when messages of sessions of another birth may come, in unix milliseconds.
fn young_until(cx: &TreeCx<'_>, log: &Log) -> u64 {
    // A log without ancestors is of a topic that no node knew; but those that knew it may be cut off.
    let lost_some = cx.links.lost_since(cx.earlier(cx.config.publish.timeout * 2));
    let born = log.window.entries_from(log.window.start()).filter(|(_, entry)| match &entry.body {
        Body::Configuration { birth: Some(birth), .. } => lost_some || !birth.lineage.ancestors().is_empty(),
        Body::Configuration { birth: None, .. } | Body::Message { .. } => false,
    });
    let timeout = u64::try_from(cx.config.publish.timeout.as_millis()).unwrap_or(u64::MAX);
    born.map(|(_, entry)| entry.stamp.saturating_add(timeout)).next_back().unwrap_or(0)
}

//! A root that does not serve yet: whom it has asked for a promise, what they answered, and what it still pulls (design
//! §6, replication).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;

use crate::config::Config;
use crate::log::early::{Arrived, Early};
use crate::message::Mark;
use crate::wire::{CopyState, Member};

/// Most entries that one request asks for.
pub(crate) const PULLED_AT_ONCE: u64 = 256;
/// How far ahead of the first entry that is missing others are asked for: a far source fills its link.
const AHEAD: u64 = 4 * PULLED_AT_ONCE;
/// Most bytes of entries that came before their predecessors; beyond it an entry has to come again.
const MAX_EARLY_BYTES: usize = 16 << 20;
/// Most requests for what was lost, at once.
const MAX_RUNS: usize = 8;

/// The nodes that a root has asked, and their answers.
#[derive(Debug)]
pub(crate) struct Preparation {
    /// When the term began.
    since: Instant,
    asked: BTreeMap<NodeId, Asked>,
    /// Nodes that were found dead since, and when.
    dead: BTreeMap<NodeId, Instant>,
    /// Those of them that were asked once more.
    doubted: BTreeSet<NodeId>,
    /// Nodes that do not hold what was to be pulled from them: one may know a mark of another's.
    pub lack: BTreeSet<NodeId>,
    /// When those that have not answered are asked again.
    ask_at: Instant,
    /// The entries that are being pulled.
    pub pull: Option<PullUnderWay>,
}

#[derive(Debug)]
struct Asked {
    contact: Contact,
    since: Instant,
    answer: Answered,
}

#[derive(Debug)]
enum Answered {
    /// None yet.
    Awaited,
    /// It is a member, and promises. The number of the JOIN that its promise is.
    Copy(Box<CopyState>, u64),
    /// It is none. All before the mark is in its window.
    NoCopy(Option<Mark>),
}

/// The reason why a root pulls entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To adopt the copy of a member, in its term.
    Adopt,
    /// To begin a birth with the copy of a member that is left.
    TakeOverCopy,
    /// To begin a birth with the window of a node that is no member.
    TakeOverWindow,
}

/// Entries on their way from one node to a root.
#[derive(Debug)]
pub(crate) struct PullUnderWay {
    /// Where they are.
    pub from: Contact,
    /// This node's number for the request.
    pub number: u64,
    /// The next offset.
    pub next: u64,
    /// Where the requests began.
    first: u64,
    /// The offset behind the last one.
    pub until: u64,
    /// The offset behind those that were asked for.
    asked: u64,
    /// When they are asked for again.
    pub again_at: Instant,
    /// When the source is given up.
    pub give_up_at: Instant,
    /// The reason.
    pub purpose: Purpose,
    /// Entries that came before their predecessors.
    early: Early,
}

impl PullUnderWay {
    /// Begins to pull the entries of a range, with nothing asked for.
    pub(crate) fn new(from: Contact, number: u64, range: Range<u64>, purpose: Purpose, now: Instant) -> Self {
        PullUnderWay {
            from,
            number,
            next: range.start,
            first: range.start,
            until: range.end,
            asked: range.start,
            again_at: now,
            give_up_at: now,
            purpose,
            early: Early::default(),
        }
    }

    /// The requests that may follow those before.
    pub(crate) fn requests(&mut self) -> Vec<Range<u64>> {
        let mut requests = Vec::new();
        self.asked = self.asked.max(self.next);
        // A window may begin later than it is asked for: its first answer says so.
        let ahead = if self.purpose == Purpose::TakeOverWindow { PULLED_AT_ONCE } else { AHEAD };
        while self.asked < self.until && self.asked.saturating_sub(self.next) + PULLED_AT_ONCE <= ahead {
            let end = self.until.min(self.asked.saturating_add(PULLED_AT_ONCE));
            requests.push(self.asked..end);
            self.asked = end;
        }
        requests
    }

    /// Requests for entries of a range that were asked for and have not come.
    pub(crate) fn missing(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        let range = range.start.max(self.next)..range.end.min(self.asked);
        for offset in range.filter(|&offset| !self.early.has(offset)) {
            let count = runs.len();
            match runs.last_mut().filter(|run| run.end == offset && offset - run.start < PULLED_AT_ONCE) {
                Some(run) => run.end += 1,
                None if count == MAX_RUNS => break,
                None => runs.push(offset..offset + 1),
            }
        }
        runs
    }

    /// Keeps an entry until it is the next one, if it is one of those that were asked for. Returns the requests for others
    /// that were lost, if this one was the last that a request named.
    pub(crate) fn keep(&mut self, entry: Arrived) -> Vec<Range<u64>> {
        let offset = entry.offset;
        if !(self.next..self.asked).contains(&offset) || self.early.has(offset) {
            return Vec::new();
        }
        // The one that comes next makes room for the others. There are never more than were asked for.
        let bytes = if offset == self.next { usize::MAX } else { MAX_EARLY_BYTES };
        self.early.keep(entry, usize::MAX, bytes);
        // Requests end at these places, from the first one on.
        let is_last = offset + 1 == self.asked || (offset + 1 - self.first).is_multiple_of(PULLED_AT_ONCE);
        let request = offset.saturating_sub(PULLED_AT_ONCE)..offset;
        if is_last { self.missing(request) } else { Vec::new() }
    }

    /// Takes out the next entry, if it has come.
    pub(crate) fn take(&mut self) -> Option<Arrived> {
        let entry = self.early.take(self.next)?;
        self.next += 1;
        Some(entry)
    }

    /// The source has nothing before this offset.
    pub(crate) fn skip_to(&mut self, next: u64) {
        self.next = next.min(self.until);
        (self.first, self.asked) = (self.next, self.next);
    }
}

impl Preparation {
    /// Begins, with nobody asked.
    pub(crate) fn new(now: Instant) -> Preparation {
        Preparation {
            since: now,
            asked: BTreeMap::new(),
            dead: BTreeMap::new(),
            doubted: BTreeSet::new(),
            lack: BTreeSet::new(),
            ask_at: now,
            pull: None,
        }
    }

    /// Forgets what a node answered: it is to be asked anew.
    pub(crate) fn forget(&mut self, id: NodeId) {
        self.asked.remove(&id);
    }

    /// Adds nodes to be asked. Returns those that were not asked before.
    pub(crate) fn ask(
        &mut self,
        now: Instant,
        config: &Config,
        peers: impl IntoIterator<Item = Peer>,
    ) -> Vec<Contact> {
        let mut new = Vec::new();
        for peer in peers {
            let known = self
                .asked
                .get(&peer.id)
                .is_some_and(|asked| asked.contact.peer.incarnation >= peer.incarnation);
            if !known {
                self.dead.remove(&peer.id);
                let contact = Contact::from(peer);
                self.asked.insert(peer.id, Asked { contact, since: now, answer: Answered::Awaited });
                new.push(contact);
            }
        }
        if !new.is_empty() {
            self.ask_at = now + config.root.query_retry;
        }
        new
    }

    /// Waits for the answers of these nodes, from now on or as before, and of no others: they have come by another way.
    pub(crate) fn wait_only_for(&mut self, now: Instant, config: &Config, absent: &[Peer]) {
        let is_absent = |id: NodeId| absent.iter().any(|peer| peer.id == id);
        self.asked.retain(|id, asked| !matches!(asked.answer, Answered::Awaited) || is_absent(*id));
        self.ask(now, config, absent.iter().copied());
    }

    /// The nodes that have not answered, if it is time to ask them again.
    pub(crate) fn ask_again(&mut self, now: Instant, config: &Config) -> Vec<Contact> {
        if self.ask_at > now {
            return Vec::new();
        }
        self.ask_at = now + config.root.query_retry;
        let silent = self.asked.iter().filter(|(id, asked)| self.awaits(**id, asked));
        silent.map(|(_, asked)| asked.contact).collect()
    }

    /// A node is a member, and promises.
    pub(crate) fn on_copy(&mut self, now: Instant, from: Contact, copy: CopyState, join: u64) {
        let answer = Answered::Copy(Box::new(copy), join);
        self.dead.remove(&from.id());
        self.asked.insert(from.id(), Asked { contact: from, since: now, answer });
    }

    /// A node is no member.
    pub(crate) fn on_no_copy(&mut self, now: Instant, from: Contact, known: Option<Mark>) {
        let answer = Answered::NoCopy(known);
        self.dead.remove(&from.id());
        self.asked.insert(from.id(), Asked { contact: from, since: now, answer });
    }

    /// A node was found dead. Returns whether its answer was waited for.
    pub(crate) fn on_dead(&mut self, now: Instant, id: NodeId) -> bool {
        let awaited = self.asked.get(&id).is_some_and(|asked| self.awaits(id, asked));
        self.dead.insert(id, now);
        awaited
    }

    /// Awaits the answers of those that were found dead a while ago, once more: they may have been cut off only.
    pub(crate) fn doubt(&mut self, now: Instant, config: &Config) -> Vec<Contact> {
        let stale = |since: Instant| now.since(since) >= config.root.force_after;
        let again = self.dead.iter().filter(|(id, since)| stale(**since) && !self.doubted.contains(*id));
        let again: Vec<NodeId> = again.map(|(id, _)| *id).collect();
        let mut contacts = Vec::new();
        for id in again {
            let Some(asked) =
                self.asked.get_mut(&id).filter(|asked| matches!(asked.answer, Answered::Awaited))
            else {
                continue;
            };
            asked.since = now;
            contacts.push(asked.contact);
            self.dead.remove(&id);
            self.doubted.insert(id);
        }
        contacts
    }

    fn awaits(&self, id: NodeId, asked: &Asked) -> bool {
        matches!(asked.answer, Answered::Awaited) && !self.dead.contains_key(&id)
    }

    /// Whether a node has not answered yet, and may.
    pub(crate) fn awaits_answer(&self, id: NodeId) -> bool {
        !self.dead.contains_key(&id)
            && self.asked.get(&id).is_none_or(|asked| matches!(asked.answer, Answered::Awaited))
    }

    /// Whether a node was found dead.
    pub(crate) fn is_dead(&self, id: NodeId) -> bool {
        self.dead.contains_key(&id)
    }

    /// The members that have promised: how to reach them, their copies, and the JOINs that their promises are.
    pub(crate) fn copies(&self) -> impl Iterator<Item = (Contact, &CopyState, u64)> {
        self.asked.values().filter_map(|asked| match &asked.answer {
            Answered::Copy(copy, join) => Some((asked.contact, &**copy, *join)),
            Answered::Awaited | Answered::NoCopy(_) => None,
        })
    }

    /// The windows of nodes that are no members.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (Contact, Mark)> {
        self.asked.values().filter_map(|asked| match asked.answer {
            Answered::NoCopy(Some(mark)) => Some((asked.contact, mark)),
            Answered::NoCopy(None) | Answered::Copy(..) | Answered::Awaited => None,
        })
    }

    /// How to reach a node that was asked.
    pub(crate) fn contact(&self, id: NodeId) -> Option<Contact> {
        self.asked.get(&id).map(|asked| asked.contact)
    }

    /// Whether a member's life has ended, as far as is known. `is_near`: whether the ring knows a node. One that it does not
    /// know is waited for as long as `patience`: it may be far, and unable to reach this node itself.
    pub(crate) fn is_over(
        &self,
        now: Instant,
        patience: Duration,
        member: &Member,
        is_near: impl Fn(NodeId) -> bool,
    ) -> bool {
        if self.dead.contains_key(&member.peer.id) {
            return true;
        }
        let Some(asked) = self.asked.get(&member.peer.id) else { return false };
        match &asked.answer {
            Answered::Copy(copy, _) => copy.life != member.life,
            Answered::NoCopy(_) => true,
            // The ring has found it dead before it was asked.
            Answered::Awaited => now.since(asked.since) >= patience && !is_near(member.peer.id),
        }
    }

    /// Whether all have answered, or are dead, or were waited for long enough.
    pub(crate) fn is_answered(&self, now: Instant, config: &Config) -> bool {
        let late = now.since(self.since) >= config.root.query_timeout;
        late || !self.asked.iter().any(|(id, asked)| self.awaits(*id, asked))
    }

    /// Whether it has waited so long that a majority which has ended may be given up.
    pub(crate) fn may_force(&self, now: Instant, config: &Config) -> bool {
        now.since(self.since) >= config.root.force_after
    }

    /// When to look again.
    pub(crate) fn look_again_at(&self, now: Instant, config: &Config) -> Instant {
        let next = self.pull.as_ref().map_or(self.ask_at, |pull| pull.again_at);
        next.max(now + config.root.query_retry / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::tree::testing::{contact, copy, entry};

    const FORCED: Duration = Duration::from_secs(2);

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn peer(id: u128) -> Peer {
        contact(id).peer
    }

    fn ids(contacts: &[Contact]) -> Vec<NodeId> {
        contacts.iter().map(|contact| contact.id()).collect()
    }

    #[test]
    fn each_is_asked_once_and_the_silent_again() {
        let config = Config::default();
        let mut all = Preparation::new(at(0));
        assert_eq!(
            ids(&all.ask(at(0), &config, [peer(2), peer(3), peer(4)])),
            [NodeId(2), NodeId(3), NodeId(4)]
        );
        assert_eq!(all.ask(at(1), &config, [peer(2)]), []);
        let reborn = Peer { incarnation: 2, ..peer(2) };
        assert_eq!(ids(&all.ask(at(1), &config, [reborn])), [NodeId(2)], "a later life");
        assert!(!all.is_answered(at(1), &config));
        all.on_copy(at(5), contact(3), copy(1), 8);
        all.on_no_copy(at(5), contact(4), Some(Mark { birth: 7, next: 5 }));
        assert_eq!(all.ask_again(at(300), &config), []);
        assert_eq!(ids(&all.ask_again(at(301), &config)), [NodeId(2)]);
        assert!(
            all.on_dead(at(300), NodeId(2)) && !all.on_dead(at(300), NodeId(3)),
            "whether its answer was waited for"
        );
        assert!(all.is_answered(at(300), &config));
        assert_eq!(all.ask_again(at(900), &config), []);
        assert_eq!(
            all.copies().map(|(from, copy, join)| (from.id(), copy.life, join)).collect::<Vec<_>>(),
            [(NodeId(3), 1, 8)]
        );
        assert_eq!(
            all.windows().map(|(from, mark)| (from.id(), mark.next)).collect::<Vec<_>>(),
            [(NodeId(4), 5)]
        );
    }

    #[test]
    fn nobody_is_waited_for_for_ever() {
        let config = Config::default();
        let mut all = Preparation::new(at(0));
        all.ask(at(0), &config, [peer(2)]);
        assert!(!all.is_answered(at(4999), &config) && all.is_answered(at(5000), &config));
        assert!(!all.may_force(at(1999), &config) && all.may_force(at(2000), &config));
    }

    #[test]
    fn a_life_is_over_when_its_node_is_dead_or_says_so_or_is_gone() {
        let config = Config::default();
        let mut all = Preparation::new(at(0));
        all.ask(at(0), &config, (2..=5).map(peer));
        all.on_copy(at(1), contact(3), copy(8), 1);
        all.on_no_copy(at(1), contact(4), None);
        let member = |id, life| Member { peer: peer(id), life };
        let over = |all: &Preparation, now, id, life, near| {
            all.is_over(at(now), FORCED, &member(id, life), |_| near)
        };
        assert!(!over(&all, 9000, 2, 1, true), "silent, but the ring knows it");
        assert!(!over(&all, 1999, 2, 1, false) && over(&all, 2000, 2, 1, false));
        assert!(!over(&all, 0, 3, 8, true) && over(&all, 0, 3, 7, true), "another life of it");
        assert!(over(&all, 0, 4, 1, true), "it is no member");
        assert!(!over(&all, 9000, 9, 1, false), "it was not asked");
        all.on_dead(at(9000), NodeId(3));
        assert!(over(&all, 0, 3, 8, true) && all.is_dead(NodeId(3)));
        all.on_copy(at(2), contact(3), copy(8), 2);
        assert!(!over(&all, 0, 3, 8, true), "it lives after all");
    }

    #[test]
    fn one_that_was_found_dead_long_ago_is_asked_once_more() {
        let config = Config::default();
        let mut all = Preparation::new(at(0));
        all.ask(at(0), &config, [peer(2), peer(3)]);
        all.on_copy(at(1), contact(3), copy(1), 8);
        all.on_dead(at(10), NodeId(2));
        all.on_dead(at(10), NodeId(3));
        assert_eq!(all.doubt(at(2009), &config), []);
        assert_eq!(ids(&all.doubt(at(2010), &config)), [NodeId(2)], "the other one has answered");
        let member = Member { peer: peer(2), life: 1 };
        assert!(!all.is_over(at(4009), FORCED, &member, |_| false));
        assert!(all.is_over(at(4010), FORCED, &member, |_| false));
        assert_eq!(all.doubt(at(9000), &config), []);
    }

    #[test]
    fn one_that_has_come_by_another_way_is_waited_for_anew_when_it_is_away_again() {
        let config = Config::default();
        let mut all = Preparation::new(at(0));
        let over = |all: &Preparation, now| {
            all.is_over(at(now), FORCED, &Member { peer: peer(2), life: 1 }, |_| false)
        };
        all.wait_only_for(at(0), &config, &[peer(2)]);
        all.wait_only_for(at(1999), &config, &[peer(2)]);
        assert!(!over(&all, 1999) && over(&all, 2000));
        all.wait_only_for(at(2000), &config, &[]);
        all.wait_only_for(at(3000), &config, &[peer(2)]);
        assert!(!over(&all, 4999) && over(&all, 5000));
        all.on_no_copy(at(5000), contact(3), None);
        all.wait_only_for(at(5000), &config, &[]);
        assert!(!all.awaits_answer(NodeId(3)), "what was answered stays");
    }

    fn pull(until: u64) -> PullUnderWay {
        PullUnderWay::new(contact(2), 1, 10..until, Purpose::Adopt, at(0))
    }

    #[test]
    fn of_what_is_pulled_only_what_was_asked_for_is_kept() {
        let mut pull = pull(2000);
        assert!(pull.keep(entry(10)).is_empty() && pull.take().is_none(), "nothing was asked for");
        assert_eq!(pull.requests(), [10..266, 266..522, 522..778, 778..1034]);
        for offset in [9, 10, 12, 12, 1032, 1034, 1 << 40] {
            assert!(pull.keep(entry(offset)).is_empty());
        }
        assert!([9, 11, 1034, 1 << 40].iter().all(|&offset| !pull.early.has(offset)));
        assert!([10, 12, 1032].iter().all(|&offset| pull.early.has(offset)));
        assert_eq!(pull.take().map(|entry| entry.offset), Some(10));
        assert!(pull.take().is_none() && pull.requests().is_empty());
    }

    #[test]
    fn what_was_lost_is_asked_for_when_the_last_one_of_a_request_has_come() {
        let mut pull = pull(300);
        assert_eq!(pull.requests(), [10..266, 266..300]);
        let mut asked = Vec::new();
        for offset in (10..300).filter(|offset| ![20, 21, 30, 270].contains(offset)) {
            asked.extend(pull.keep(entry(offset)));
        }
        assert_eq!(asked, [20..22, 30..31, 270..271]);
        assert_eq!(pull.missing(0..u64::MAX), asked);
        for offset in [20, 21, 30, 270] {
            pull.keep(entry(offset));
        }
        assert_eq!(std::iter::from_fn(|| pull.take()).count(), 290);
        assert_eq!((pull.next, pull.early.bytes()), (300, 0));
    }
}

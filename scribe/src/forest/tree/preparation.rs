//! A root that does not serve yet: whom it has asked for a promise, what they answered, and what it still pulls (design
//! §6, replication).

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::id::NodeId;
use treecast_overlay::peer::{Contact, Peer};
use treecast_overlay::time::Instant;

use crate::config::Config;
use crate::log::early::Arrived;
use crate::message::Mark;
use crate::wire::{CopyState, Member};

/// Entries that are asked for at once.
pub(crate) const PULLED_AT_ONCE: u64 = 256;

/// The nodes that a root has asked, and their answers.
#[derive(Debug)]
pub(crate) struct Preparation {
    /// When the term began.
    since: Instant,
    asked: BTreeMap<NodeId, Asked>,
    /// Nodes that were found dead since.
    dead: BTreeSet<NodeId>,
    /// When those that have not answered are asked again.
    ask_at: Instant,
    /// The entries that are being pulled.
    pub pull: Option<PullUnderWay>,
}

#[derive(Debug)]
struct Asked {
    contact: Contact,
    since: Instant,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    /// None yet.
    Awaited,
    /// It is a member, and promises. The number of the JOIN that its promise is.
    Copy(Box<CopyState>, u64),
    /// It is none. All before the mark is in its window.
    NoCopy(Option<Mark>),
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
    /// The offset behind the last one.
    pub until: u64,
    /// When they are asked for again.
    pub again_at: Instant,
    /// When the source is given up.
    pub give_up_at: Instant,
    /// It is a member's copy, which is adopted; else a window that completes a log whose members have ended.
    pub adopts: bool,
    /// Entries that came before their predecessors.
    pub early: BTreeMap<u64, Arrived>,
}

impl PullUnderWay {
    /// Keeps an entry until it is the next one, if it is one of those that were asked for.
    pub(crate) fn keep(&mut self, entry: Arrived) {
        let asked = self.next..self.until.min(self.next.saturating_add(PULLED_AT_ONCE));
        if asked.contains(&entry.offset) {
            self.early.insert(entry.offset, entry);
        }
    }
}

impl Preparation {
    /// Begins, with nobody asked.
    pub(crate) fn new(now: Instant) -> Preparation {
        Preparation { since: now, asked: BTreeMap::new(), dead: BTreeSet::new(), ask_at: now, pull: None }
    }

    /// Adds nodes to be asked. Returns those that were not asked before.
    pub(crate) fn ask(&mut self, now: Instant, peers: impl IntoIterator<Item = Peer>) -> Vec<Contact> {
        let mut new = Vec::new();
        for peer in peers {
            let known = self.asked.get(&peer.id).is_some_and(|asked| {
                asked.contact.peer.incarnation >= peer.incarnation
            });
            if !known {
                self.dead.remove(&peer.id);
                let contact = Contact::from(peer);
                self.asked.insert(peer.id, Asked { contact, since: now, answer: Answer::Awaited });
                new.push(contact);
            }
        }
        new
    }

    /// Those that have not answered, if it is time to ask them again.
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
        let answer = Answer::Copy(Box::new(copy), join);
        self.dead.remove(&from.id());
        self.asked.insert(from.id(), Asked { contact: from, since: now, answer });
    }

    /// A node is no member.
    pub(crate) fn on_no_copy(&mut self, now: Instant, from: Contact, known: Option<Mark>) {
        let answer = Answer::NoCopy(known);
        self.dead.remove(&from.id());
        self.asked.insert(from.id(), Asked { contact: from, since: now, answer });
    }

    /// A node was found dead. Returns whether its answer was waited for.
    pub(crate) fn on_dead(&mut self, id: NodeId) -> bool {
        let awaited = self.asked.get(&id).is_some_and(|asked| self.awaits(id, asked));
        self.dead.insert(id);
        awaited
    }

    fn awaits(&self, id: NodeId, asked: &Asked) -> bool {
        matches!(asked.answer, Answer::Awaited) && !self.dead.contains(&id)
    }

    /// Whether a node was found dead.
    pub(crate) fn is_dead(&self, id: NodeId) -> bool {
        self.dead.contains(&id)
    }

    /// The members that have promised: how to reach them, their copies, and the JOINs that their promises are.
    pub(crate) fn copies(&self) -> impl Iterator<Item = (Contact, &CopyState, u64)> {
        self.asked.values().filter_map(|asked| match &asked.answer {
            Answer::Copy(copy, join) => Some((asked.contact, &**copy, *join)),
            Answer::Awaited | Answer::NoCopy(_) => None,
        })
    }

    /// The windows of nodes that are no members.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (Contact, Mark)> {
        self.asked.values().filter_map(|asked| match asked.answer {
            Answer::NoCopy(Some(mark)) => Some((asked.contact, mark)),
            Answer::NoCopy(None) | Answer::Copy(..) | Answer::Awaited => None,
        })
    }

    /// How to reach a node that was asked.
    pub(crate) fn contact(&self, id: NodeId) -> Option<Contact> {
        self.asked.get(&id).map(|asked| asked.contact)
    }

    /// Whether a member's life has ended, as far as is known. `is_near`: whether the ring knows a node.
    pub(crate) fn is_over(
        &self,
        now: Instant,
        config: &Config,
        member: &Member,
        is_near: impl Fn(NodeId) -> bool,
    ) -> bool {
        if self.dead.contains(&member.peer.id) {
            return true;
        }
        let Some(asked) = self.asked.get(&member.peer.id) else { return false };
        match &asked.answer {
            Answer::Copy(copy, _) => copy.life != member.life,
            Answer::NoCopy(_) => true,
            // The ring has found it dead before it was asked.
            Answer::Awaited => {
                now.since(asked.since) >= config.root.force_after && !is_near(member.peer.id)
            }
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

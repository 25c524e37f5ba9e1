//! All that the wires told of the topics' logs: births with their lineages, configurations, and who held what. Judges compare
//! with it what publishers and subscribers were told.

use std::collections::BTreeMap;

use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;
use treecast_scribe::message::Mark;
use treecast_scribe::wire::{CopyState, Life, Lineage, Member, Members, Term};
use treecast_scribe::{Position, TopicId};

/// The logs of all topics.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    births: BTreeMap<TopicId, BTreeMap<u64, KnownBirth>>,
    /// Bytes of all entries, by topic.
    bytes: BTreeMap<TopicId, usize>,
    members: BTreeMap<(TopicId, NodeId), MemberStory>,
    /// Entries that tell of another birth which was given up, by topic, birth and offset.
    replaces: BTreeMap<(TopicId, u64, u64), u64>,
    /// Births since the last judgement.
    pub fresh: Vec<(TopicId, u64)>,
    /// Words that no node may say, since the last judgement.
    pub wrongs: Vec<String>,
}

/// What a node has said of itself as a member of one log.
#[derive(Clone, Copy, Debug)]
struct MemberStory {
    incarnation: u64,
    /// Its last life.
    life: Life,
    /// This life, and all before it, are over.
    over: Option<Life>,
    /// The term that it has promised in that life.
    promised: Option<Term>,
    /// The number of its last JOIN.
    join: u64,
    /// The last one that any node might answer, though this one is a member: no start by it ends a life.
    by_third: u64,
    /// The birth of the log that it is a copy of in that life, once a root has made it one.
    copy_of: Option<u64>,
    /// This life, and all before it, ended because their node went over to another birth.
    went_over: Option<Life>,
}

impl MemberStory {
    /// Whether the answer to a JOIN ends its life, if it starts an ordinary child.
    fn is_released_by(&self, join: u64) -> bool {
        self.life > 0 && self.join == join && self.by_third != join
    }
}

/// One birth of a log.
#[derive(Clone, Debug)]
pub struct KnownBirth {
    /// When it was first heard of, by the clock of the node that spoke of it.
    pub heard: Instant,
    /// In which slot the node lives that spoke of it first: its root.
    pub slot: usize,
    /// The births before it.
    pub lineage: Lineage,
    /// Whether its root says that it has all that was committed. `None`: its first entry was not seen.
    pub complete: Option<bool>,
    /// The configurations, each with the offset of its entry, in the order in which they were seen.
    pub configurations: Vec<(u64, Members)>,
    /// The offset behind the last entry that was seen.
    pub reached: u64,
    /// The nodes that have said, or shown, that they hold everything before an offset.
    held: BTreeMap<NodeId, u64>,
    /// The number of the last term in which an entry was seen at an offset.
    terms: BTreeMap<u64, u64>,
}

impl KnownBirth {
    /// The configurations one of which was the last that counted: the last one known to be committed, and those behind it.
    /// While a configuration is not committed, nothing follows it.
    pub fn counting(&self) -> impl Iterator<Item = &Members> {
        let committed =
            self.configurations.iter().map(|(at, _)| *at).filter(|at| at + 1 < self.reached).max();
        self.configurations.iter().filter(move |(at, _)| Some(*at) >= committed).map(|(_, members)| members)
    }

    /// Whether a majority of those that have to has shown that it holds the entry at an offset. `None`: nobody knows who
    /// has to.
    fn is_committed(&self, offset: u64) -> Option<bool> {
        let by = |members: &Members| {
            let holds = |id: NodeId| self.held.get(&id).is_some_and(|end| *end > offset);
            2 * members.iter().filter(|member| holds(member.peer.id)).count() > members.len()
        };
        let before = self.configurations.iter().map(|(at, _)| *at).filter(|at| *at < offset).max();
        let at = |at: u64| self.configurations.iter().filter(move |(other, _)| *other == at);
        let mut own = at(offset).peekable();
        let own = own.peek().is_none().then_some(true).or_else(|| Some(own.any(|(_, members)| by(members))));
        match before {
            Some(before) => Some(own == Some(true) && at(before).any(|(_, members)| by(members))),
            // A birth has nothing before it.
            None if self.configurations.is_empty() => None,
            None => own,
        }
    }
}

impl KnownBirth {
    /// Whether no entry of a later term was seen at an offset. A node that has not heard of it keeps what was overruled there.
    fn is_of_last_term(&mut self, at: u64, term: u64) -> bool {
        let last = self.terms.entry(at).or_default();
        *last = term.max(*last);
        *last == term
    }

    /// For people: who has to hold an entry, and how far they are.
    fn committing(&self, offset: u64) -> String {
        let near = self.configurations.iter().filter(|(at, _)| *at <= offset).rev().take(2);
        let end = |id: NodeId| self.held.get(&id).copied().unwrap_or(0);
        let told = near.map(|(at, members)| {
            let ends: Vec<_> = members.iter().map(|member| (member.peer.id, end(member.peer.id))).collect();
            format!("members of {at} hold {ends:?}")
        });
        told.collect::<Vec<_>>().join(", ")
    }
}

impl Ledger {
    /// A birth of a topic's log.
    pub fn birth(&self, topic: TopicId, birth: u64) -> Option<&KnownBirth> {
        self.births.get(&topic)?.get(&birth)
    }

    /// All births of a topic's log.
    pub fn births(&self, topic: TopicId) -> impl Iterator<Item = (u64, &KnownBirth)> {
        self.births.get(&topic).into_iter().flatten().map(|(&birth, known)| (birth, known))
    }

    /// All births of all logs.
    pub fn all(&self) -> impl Iterator<Item = &KnownBirth> {
        self.births.values().flat_map(BTreeMap::values)
    }

    /// The birth that an offset of a log of this birth belongs to.
    pub fn birth_at(&self, topic: TopicId, birth: u64, offset: u64) -> u64 {
        self.birth(topic, birth).map_or(birth, |known| known.lineage.birth_at(offset, birth))
    }

    /// Whether a log of this birth has what stood at a place.
    pub fn has(&self, topic: TopicId, birth: u64, at: Position) -> bool {
        self.birth_at(topic, birth, at.offset) == at.birth
    }

    /// Whether there is a log that has both places. What a publisher sent to both sides of a divided ring has one place in the
    /// log of each.
    pub fn are_of_one_log(&self, topic: TopicId, one: Position, other: Position) -> bool {
        self.has(topic, one.birth, other) || self.has(topic, other.birth, one)
    }

    /// Whether nothing was lost from one birth to another one that took it over; `None`: it did not, or nobody knows.
    pub fn is_complete(&self, topic: TopicId, from: u64, to: u64) -> Option<bool> {
        let lineage = &self.birth(topic, to)?.lineage;
        let at = lineage.ancestors().iter().position(|ancestor| ancestor.birth == from)?;
        let after = lineage.ancestors()[at + 1..].iter().map(|ancestor| ancestor.birth).chain([to]);
        let mut known = after.map(|birth| self.birth(topic, birth).and_then(|known| known.complete));
        known.try_fold(true, |all, one| Some(all && one?))
    }

    /// How far the topic's log reaches, over all births.
    pub fn reached(&self, topic: TopicId) -> u64 {
        self.births(topic).map(|(_, known)| known.reached).max().unwrap_or(0)
    }

    /// Bytes of all its entries.
    pub fn bytes(&self, topic: TopicId) -> usize {
        self.bytes.get(&topic).copied().unwrap_or(0)
    }

    /// Whether what stands at a place is committed, by what the members have shown; `None`: nobody knows its members.
    pub fn is_committed(&self, topic: TopicId, at: Position) -> Option<bool> {
        let taken_over =
            |known: &KnownBirth| known.lineage.taken_over(at.birth).is_some_and(|end| at.offset < end);
        if self.births(topic).any(|(_, known)| taken_over(known)) {
            return Some(true);
        }
        self.birth(topic, at.birth)?.is_committed(at.offset)
    }

    /// A node speaks of a birth.
    pub fn note_birth(&mut self, heard: Instant, slot: usize, topic: TopicId, birth: u64, lineage: &Lineage) {
        let known = self.births.entry(topic).or_default();
        known.entry(birth).or_insert_with(|| {
            self.fresh.push((topic, birth));
            KnownBirth {
                heard,
                slot,
                lineage: lineage.clone(),
                complete: None,
                configurations: Vec::new(),
                reached: 0,
                held: BTreeMap::new(),
                terms: BTreeMap::new(),
            }
        });
    }

    /// The first entry of a birth.
    pub fn note_begin(&mut self, topic: TopicId, birth: u64, complete: bool) {
        if let Some(known) = self.births.entry(topic).or_default().get_mut(&birth) {
            known.complete = Some(complete);
        }
    }

    /// The entry at an offset tells of another birth that was given up.
    pub fn note_replaces(&mut self, topic: TopicId, birth: u64, at: u64, other: u64) {
        self.replaces.insert((topic, birth, at), other);
    }

    /// Which other birth was given up, as the entry at a place tells.
    pub fn replaced(&self, topic: TopicId, at: Position) -> Option<u64> {
        self.replaces.get(&(topic, at.birth, at.offset)).copied()
    }

    /// In a term of this number, the entry at an offset names members.
    pub fn note_members(&mut self, topic: TopicId, birth: u64, at: u64, members: &Members, term: u64) {
        let birth = self.birth_at(topic, birth, at);
        let Some(known) = self.births.entry(topic).or_default().get_mut(&birth) else { return };
        let is_known = known.configurations.iter().any(|known| (known.0, &known.1) == (at, members));
        if known.is_of_last_term(at, term) && !is_known {
            known.configurations.push((at, members.clone()));
        }
    }

    /// In a term of this number, the entry at an offset names no members: a configuration that another root had there was
    /// never committed.
    pub fn note_message(&mut self, topic: TopicId, birth: u64, at: u64, term: u64) {
        let birth = self.birth_at(topic, birth, at);
        let Some(known) = self.births.entry(topic).or_default().get_mut(&birth) else { return };
        if known.is_of_last_term(at, term) {
            known.configurations.retain(|(other, _)| *other != at);
        }
    }

    /// A node sends, or receives, an entry.
    pub fn note_entry(&mut self, topic: TopicId, birth: u64, offset: u64, bytes: usize) {
        let birth = self.birth_at(topic, birth, offset);
        let Some(known) = self.births.entry(topic).or_default().get_mut(&birth) else { return };
        if offset >= known.reached {
            known.reached = offset + 1;
            *self.bytes.entry(topic).or_default() += bytes;
        }
    }

    /// A node shows that it has everything before an offset.
    pub fn note_held(&mut self, topic: TopicId, birth: u64, node: NodeId, end: u64) {
        let Some(known) = self.births.entry(topic).or_default().get_mut(&birth) else { return };
        let held = known.held.entry(node).or_default();
        *held = end.max(*held);
    }

    /// A node says to the node that it wants for its parent, or for its root, in which life it is a member.
    pub fn note_copy(
        &mut self,
        topic: TopicId,
        node: NodeId,
        incarnation: u64,
        join: u64,
        copy: Option<&CopyState>,
    ) {
        // A JOIN may be on its way for long, and pass on when its sender has said other things since.
        let last = self.members.get(&(topic, node));
        if last.is_some_and(|story| (incarnation, join) <= (story.incarnation, story.join)) {
            return;
        }
        if let Some(copy) = copy {
            for known in &copy.configurations {
                self.note_members(topic, copy.birth, known.at, &known.members, copy.synced.number);
            }
            self.note_held(topic, copy.birth, node, copy.end);
        }
        let life = copy.map_or(0, |copy| copy.life);
        let new = MemberStory {
            incarnation,
            life,
            over: None,
            promised: None,
            join,
            by_third: 0,
            copy_of: None,
            went_over: None,
        };
        let story = self.members.entry((topic, node)).or_insert(new);
        if story.incarnation < incarnation {
            *story = MemberStory { over: story.over.max(Some(story.life)), ..new };
        }
        story.join = story.join.max(join);
        if copy.is_none() {
            return;
        }
        if story.over >= Some(life) && life > 0 || life < story.life {
            let (last, over) = (story.life, story.over);
            self.wrongs.push(format!(
                "{node:?} claims the life {life} for {topic:?}, which has ended: its last was {last}, over is {over:?}"
            ));
        } else if life > story.life {
            (story.life, story.promised, story.copy_of) = (life, None, None);
        }
        let synced = copy.filter(|copy| copy.synced > Term::ZERO);
        story.copy_of = synced.map(|copy| copy.birth).or(story.copy_of);
    }

    /// A node says that it has no copy, and of which birth it knows. (One that was invited only has none yet.)
    pub fn note_no_copy(&mut self, topic: TopicId, node: NodeId, known: Option<Mark>) {
        if let (Some(story), Some(mark)) = (self.members.get_mut(&(topic, node)), known)
            && story.copy_of.is_some_and(|birth| birth != mark.birth)
        {
            (story.over, story.went_over) = (Some(story.life), Some(story.life));
        }
    }

    /// Whether a member's life has ended because its node went over to another birth.
    pub fn went_over(&self, topic: TopicId, member: &Member) -> bool {
        let (node, life) = member.key();
        self.members.get(&(topic, node)).is_some_and(|story| story.went_over >= Some(life))
    }

    /// A member lets any node answer its JOIN.
    pub fn note_third(&mut self, topic: TopicId, node: NodeId, join: u64) {
        if let Some(story) = self.members.get_mut(&(topic, node)) {
            story.by_third = story.by_third.max(join);
        }
    }

    /// A node promises a term.
    pub fn note_promise(&mut self, topic: TopicId, node: NodeId, term: Term) {
        let Some(story) = self.members.get_mut(&(topic, node)) else { return };
        if story.promised > Some(term) {
            let before = story.promised;
            self.wrongs.push(format!("{node:?} promises {term:?} for {topic:?} after {before:?}"));
        }
        story.promised = story.promised.max(Some(term));
    }

    /// A node hears from its parent that no configuration names it.
    pub fn note_release(&mut self, topic: TopicId, node: NodeId, join: u64) {
        if let Some(story) = self.members.get_mut(&(topic, node)).filter(|story| story.is_released_by(join)) {
            story.over = Some(story.life);
        }
    }

    /// A node says, or shows, that an entry is committed.
    pub fn note_commit(&mut self, topic: TopicId, by: NodeId, at: Position, says: impl FnOnce() -> String) {
        let at = Position { birth: self.birth_at(topic, at.birth, at.offset), ..at };
        if self.is_committed(topic, at) == Some(false) {
            let who =
                self.birth(topic, at.birth).map(|known| known.committing(at.offset)).unwrap_or_default();
            let says = says();
            self.wrongs.push(format!("{by:?} {says} {at:#} of {topic:?}, which is not committed: {who}"));
        }
    }
}

//! The judges: one file per promise of `design.md` §2, all of one shape. Each looks at a [`Scene`] and says in words what
//! is wrong, or nothing. [`JUDGES`] lists them all.

pub mod o1;
pub mod o2;
pub mod o3;
pub mod o4;
pub mod o5;
pub mod s1;
pub mod s2;
pub mod s3;
pub mod s4;
pub mod s5;
pub mod s6;
pub mod s7;
pub mod s8;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use treecast_overlay::id::{Key, NodeId};
use treecast_overlay::time::Instant;
use treecast_overlay::wire::NodeState;
use treecast_scribe::forest::Forest;

use crate::cluster::history::History;
use crate::cluster::lookups::Lookups;
use crate::cluster::watch::Watch;
use crate::cluster::witness::Witness;
use crate::node::RingNode;

/// The promises, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Correct delivery.
    O1,
    /// Progress.
    O2,
    /// One ring.
    O3,
    /// Dependable lookup.
    O4,
    /// Bounded.
    O5,
    /// Tree.
    S1,
    /// Effectively once.
    S2,
    /// Order.
    S3,
    /// Acknowledged means kept.
    S4,
    /// Definite start.
    S5,
    /// Isolation.
    S6,
    /// Cheap idling.
    S7,
    /// Honest middlemen not needed.
    S8,
}

/// A promise that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which.
    pub promise: Promise,
    /// The breach in words: where, when and how.
    pub what: String,
}

/// Nothing to say, or a broken promise.
pub type Verdict = Result<(), Breach>;

impl Promise {
    /// It does not hold.
    pub fn broken(self, what: impl Into<String>) -> Breach {
        Breach { promise: self, what: what.into() }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.promise, self.what)
    }
}

/// When a judge has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Whatever happens, at any instant: asked every 50 ms of virtual time.
    Always,
    /// Likewise; asked every second, because it looks at much.
    EachSecond,
    /// Likewise; asked every five seconds, because it looks at all that ever happened.
    EachRound,
    /// Once no faults happen any more, within a bound.
    Recovered,
    /// Once nobody comes or goes any more, within a bound: it takes several moves, with pauses between them.
    Shaped,
    /// Once nobody does anything any more: over some seconds in which beats are counted.
    AtRest,
}

/// One judge.
#[derive(Clone, Copy)]
pub struct Judge {
    /// Its promise.
    pub promise: Promise,
    /// When.
    pub when: When,
    /// How.
    pub judge: fn(&Scene<'_>) -> Verdict,
}

/// All judges.
pub const JUDGES: [Judge; 20] = [
    Judge { promise: Promise::O1, when: When::Always, judge: o1::judge },
    Judge { promise: Promise::O2, when: When::Always, judge: o2::judge },
    Judge { promise: Promise::O3, when: When::Recovered, judge: o3::judge },
    Judge { promise: Promise::O4, when: When::Always, judge: o4::judge },
    Judge { promise: Promise::O4, when: When::Recovered, judge: o4::judge_open },
    Judge { promise: Promise::O5, when: When::EachSecond, judge: o5::judge },
    Judge { promise: Promise::S1, when: When::Recovered, judge: s1::judge },
    Judge { promise: Promise::S1, when: When::Shaped, judge: s1::judge_shape },
    Judge { promise: Promise::S2, when: When::EachRound, judge: s2::judge },
    Judge { promise: Promise::S3, when: When::EachRound, judge: s3::judge },
    Judge { promise: Promise::S4, when: When::Always, judge: s4::judge_words },
    Judge { promise: Promise::S4, when: When::Always, judge: s4::judge_births },
    Judge { promise: Promise::S4, when: When::EachRound, judge: s4::judge },
    Judge { promise: Promise::S4, when: When::Recovered, judge: s4::judge_open },
    Judge { promise: Promise::S5, when: When::Recovered, judge: s5::judge },
    Judge { promise: Promise::S5, when: When::EachRound, judge: s5::judge_gaps },
    Judge { promise: Promise::S6, when: When::EachSecond, judge: s6::judge },
    Judge { promise: Promise::S6, when: When::Recovered, judge: s6::judge_delays },
    Judge { promise: Promise::S7, when: When::AtRest, judge: s7::judge },
    Judge { promise: Promise::S8, when: When::Always, judge: s8::judge },
];

/// A node of the scene.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Where it lives.
    pub slot: usize,
    /// It is not paused.
    pub runs: bool,
    /// The time that its clock shows: leases end by it.
    pub clock: Instant,
    /// Its overlay.
    pub node: &'a dyn RingNode,
    /// Its topics' side, if there is one.
    pub forest: Option<&'a Forest>,
}

/// The scene that judges look at: the nodes that live, and what is known of the past.
pub struct Scene<'a> {
    /// The time.
    pub now: Instant,
    /// The nodes that live, by slot.
    pub nodes: Vec<Seen<'a>>,
    /// Keys to be asked for, besides those that suggest themselves.
    pub keys: &'a [Key],
    /// Failures and sides.
    pub watch: &'a Watch,
    /// Lookups.
    pub lookups: &'a Lookups,
    /// All that the taps saw.
    pub witness: &'a Witness,
    /// All that the applications saw.
    pub history: &'a History,
    /// Limits, as the world was told: name and limit.
    pub limits: &'a BTreeMap<&'static str, usize>,
    /// Since when all is well: no faults, nobody stalled by them.
    pub calm: Option<Instant>,
    /// How long tree neighbours wait between two beats.
    pub beat: Duration,
    /// How many children a node has at most, at rest.
    pub fan_out: FanOut,
}

/// Most children of a node, at rest.
#[derive(Clone, Copy, Debug, Default)]
pub struct FanOut {
    /// In one tree.
    pub tree: usize,
    /// In all trees, if it has fewer than half as many topics of its own.
    pub node: usize,
}

impl<'a> Scene<'a> {
    /// The overlays of the nodes that live, each with what its clock shows.
    fn clocked(&self) -> impl Iterator<Item = Clocked<'a>> {
        self.nodes.iter().map(|seen| (seen.clock, seen.node))
    }

    /// The nodes that live and have a topics' side, with it.
    fn forests(&self) -> impl Iterator<Item = (&Seen<'a>, &'a Forest)> {
        self.nodes.iter().filter_map(|seen| Some((seen, seen.forest?)))
    }

    /// Ids of the nodes on the ring.
    fn ready(&self) -> Vec<NodeId> {
        on_the_ring(self.clocked()).into_iter().map(|(_, node)| node.peer().id).collect()
    }
}

/// Asks all judges that judge at this time; the first that has something to say ends it.
pub fn ask(when: When, scene: &Scene<'_>) -> Verdict {
    JUDGES.iter().filter(|judge| judge.when == when).try_for_each(|judge| (judge.judge)(scene))
}

/// A node, and what its clock shows.
pub type Clocked<'a> = (Instant, &'a dyn RingNode);

/// The nodes on the ring among `nodes`, by id.
fn on_the_ring<'a>(nodes: impl Iterator<Item = Clocked<'a>>) -> Vec<Clocked<'a>> {
    let mut ready: Vec<_> = nodes.filter(|(_, node)| node.node_state() == NodeState::Ready).collect();
    ready.sort_by_key(|(_, node)| node.peer().id);
    ready
}

/// A small history that is right, for the judges' own tests to spoil.
#[cfg(test)]
pub(crate) mod stories {
    use std::time::Duration;

    use treecast_overlay::id::{Key, NodeId};
    use treecast_overlay::time::Instant;
    use treecast_scribe::event::{SubscriptionId, Token};
    use treecast_scribe::message::MessageId;
    use treecast_scribe::{Gap, GapReason, Item, Mark, Message, Position, Receipt, TopicId};

    use crate::cluster::history::{History, Offered, Watched, payload};

    const TOPIC: TopicId = TopicId(Key(7));
    const PUBLISHER: NodeId = NodeId(100);
    const BIRTH: u64 = 0xb;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn position(offset: u64) -> Position {
        Position { birth: BIRTH, offset }
    }

    /// Two subscribers of one topic get so many messages of one publisher.
    pub(crate) fn story(messages: u64) -> History {
        let mut history = History::default();
        for offset in 0..messages {
            let token = Token(1000 + offset);
            let id = id(offset);
            let receipt = Receipt { id, position: position(offset), copies: 1, listeners: 2 };
            let offered = Offered {
                slot: 0,
                publisher: PUBLISHER,
                topic: TOPIC,
                at: at(offset + 10),
                payload: payload(token, 16),
                outcome: Some((at(offset + 30), Ok(receipt))),
                abandoned: false,
            };
            history.publications.insert(token, offered);
        }
        for slot in [1, 2] {
            let watched = Watched {
                slot,
                topic: TOPIC,
                asked: at(0),
                mark: Some((at(5), Mark { birth: BIRTH, next: 0 })),
                items: (0..messages).map(delivery).collect(),
                reached: Vec::new(),
                ended: None,
                failed: None,
                stalled: false,
                was_stalled: false,
            };
            history.subscriptions.insert(SubscriptionId(slot as u64), watched);
        }
        history
    }

    fn id(offset: u64) -> MessageId {
        MessageId { publisher: PUBLISHER, session: 5, sequence: offset + 1 }
    }

    fn delivery(offset: u64) -> (Instant, Item) {
        let position = position(offset);
        let mark = Mark { birth: BIRTH, next: offset + 1 };
        let payload = payload(Token(1000 + offset), 16);
        (at(offset + 40), Item::Message(Message { id: id(offset), position, mark, payload }))
    }

    /// The first subscriber's n-th item.
    pub(super) fn message(history: &History, n: usize) -> (Instant, Item) {
        history.subscriptions[&SubscriptionId(1)].items[n].clone()
    }

    /// Both bounds as offsets.
    pub(super) fn gap(after: Option<u64>, until: u64) -> (Instant, Item) {
        let (after, until) = (after.map(position), position(until));
        (at(50), Item::Gap(Gap { after, until, reason: GapReason::TooOld }))
    }
}

//! A root's memory of its publishers: which message of a session comes next, and where the last ones stand. It makes
//! sending again safe (design §6, publishing). All of it but what came early is a function of the log: each configuration
//! entry carries it, and the messages behind that entry complete it, so a new root knows what the one before it knew.
//! Only the forgetting of silent sessions goes by the root's own clock.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use treecast_overlay::id::NodeId;

use super::Log;
use crate::permit::{Meter, Permit};
use crate::wire::{Body, MAX_MISSING, Publish};

/// Most bytes of the sessions in one entry: half of the largest payload.
const MAX_BYTES: usize = 256 * 1024;
/// A session takes at most so many bytes there, beside its offsets: an id and four numbers.
const SESSION_BYTES: usize = 16 + 4 * 9;
/// An offset is a varint of at most nine bytes.
const OFFSET_BYTES: usize = 9;

/// How far apart a publisher is told what is missing, in milliseconds.
const TOLD_APART: u64 = 50;

/// Names a session: publisher and number.
pub(crate) type SessionId = (NodeId, u64);

/// The sessions of one topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    /// Bytes of all messages that came before their predecessors.
    early_bytes: usize,
}

#[derive(Clone, Debug)]
struct Session {
    /// Sequence of the last message that has a position.
    last: u64,
    /// Offsets of the last positions, ending with that of `last`.
    recent: VecDeque<u64>,
    /// Messages that came before their predecessors.
    early: BTreeMap<u64, (Publish, Bytes)>,
    /// When its last message was appended, in unix milliseconds.
    stamp: u64,
    /// When its publisher was last told what is missing, in unix milliseconds.
    told: u64,
    /// Counts the session in the node's quota.
    _permit: Permit,
}

/// The fate of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It comes next: append it, and say so by [`Sessions::note`].
    Append,
    /// It is in the log, at this offset.
    Positioned(u64),
    /// It is in the log, and its publisher has had the receipt.
    Forgotten,
    /// Its predecessors are missing: it waits for them, or is sent again.
    Early,
    /// No node knows the fate of its predecessors.
    Unknown,
    /// There are too many sessions.
    Full,
}

/// A session as a configuration entry carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SessionState {
    publisher: NodeId,
    session: u64,
    last: u64,
    stamp: u64,
    recent: Vec<u64>,
}

impl Sessions {
    /// The sessions as a log makes them: those that its last configuration entry carries, and what came after it. At most
    /// `limit` of them, with `recent` positions each.
    pub(crate) fn replay(log: &Log, limit: usize, recent: usize, meter: &Meter) -> Sessions {
        let mut sessions = Sessions::default();
        let entries = || log.window.entries_from(log.window.start());
        let base = entries().rfind(|(_, entry)| entry.body.members().is_some());
        let mut from = log.window.start();
        if let Some((at, entry)) = base {
            from = at + 1;
            sessions.restore(&entry.payload, limit, meter);
        }
        for (offset, entry) in entries().filter(|(offset, _)| *offset >= from) {
            if let Body::Message { publisher, session, sequence, .. } = entry.body {
                sessions.note((publisher, session), sequence, offset, entry.stamp, recent, meter);
            }
        }
        sessions
    }

    fn restore(&mut self, payload: &[u8], limit: usize, meter: &Meter) {
        let Ok(states) = postcard::from_bytes::<Vec<SessionState>>(payload) else {
            return tracing::warn!("the sessions in a configuration entry are malformed");
        };
        for SessionState { publisher, session, last, stamp, recent } in states.into_iter().take(limit) {
            let early = BTreeMap::new();
            let state = Session { last, recent: recent.into(), early, stamp, told: 0, _permit: meter.take() };
            self.by_id.insert((publisher, session), state);
        }
    }

    /// The sessions as a configuration entry carries them.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let state = |(&(publisher, session), state): (&SessionId, &Session)| SessionState {
            publisher,
            session,
            last: state.last,
            stamp: state.stamp,
            recent: state.recent.iter().copied().collect(),
        };
        let mut states: Vec<_> = self.by_id.iter().map(state).collect();
        // An entry has to fit into a frame: those that were silent longest are left out if there are too many.
        states.sort_by_key(|state| std::cmp::Reverse(state.stamp));
        let mut room = MAX_BYTES;
        let fitting = states.iter().take_while(|state| {
            let rest = room.checked_sub(SESSION_BYTES + state.recent.len() * OFFSET_BYTES);
            room = rest.unwrap_or(0);
            rest.is_some()
        });
        let fitting = fitting.count();
        states.truncate(fitting);
        postcard::to_allocvec(&states).unwrap_or_default()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether a message is in the log.
    pub(crate) fn has(&self, publish: &Publish) -> bool {
        let id = (publish.publisher.id(), publish.session);
        self.by_id.get(&id).is_some_and(|session| publish.sequence <= session.last)
    }

    /// Judges a message. `room` says whether a session may be added.
    pub(crate) fn judge(&mut self, publish: &Publish, room: bool) -> Ruling {
        let id = (publish.publisher.id(), publish.session);
        let Some(session) = self.by_id.get_mut(&id) else {
            return match publish.sequence {
                1 if !room => Ruling::Full,
                1 => Ruling::Append,
                _ => Ruling::Unknown,
            };
        };
        session.forget(publish.acknowledged);
        session.judge(publish.sequence)
    }

    /// Keeps a message that came too early, if there is room for it. Those that come sooner have it before those that
    /// come later: else the later ones could keep out what all of them wait for.
    pub(crate) fn keep_early(&mut self, publish: Publish, payload: Bytes, messages: usize, bytes: usize) {
        let id = (publish.publisher.id(), publish.session);
        let Some(session) = self.by_id.get_mut(&id) else { return };
        if session.early.contains_key(&publish.sequence) {
            return;
        }
        while session.early.len() >= messages || self.early_bytes + payload.len() > bytes {
            let Some(last) = session.early.last_entry().filter(|last| *last.key() > publish.sequence) else {
                return;
            };
            self.early_bytes -= last.remove().1.len();
        }
        self.early_bytes += payload.len();
        session.early.insert(publish.sequence, (publish, payload));
    }

    /// The sequences that have not come before a message which did: as many as are to be told, and not too often. `now` is in
    /// unix milliseconds.
    pub(crate) fn missing(&mut self, now: u64, publish: &Publish) -> Vec<u64> {
        let id = (publish.publisher.id(), publish.session);
        let Some(session) = self.by_id.get_mut(&id) else { return Vec::new() };
        if now < session.told.saturating_add(TOLD_APART) {
            return Vec::new();
        }
        session.told = now;
        let before = session.last.saturating_add(1)..publish.sequence;
        before.filter(|sequence| !session.early.contains_key(sequence)).take(MAX_MISSING).collect()
    }

    /// Notes a position, and hands out the message that waited for this one. At most `recent` positions are kept.
    pub(crate) fn note(
        &mut self,
        id: SessionId,
        sequence: u64,
        offset: u64,
        stamp: u64,
        recent: usize,
        meter: &Meter,
    ) -> Option<(Publish, Bytes)> {
        let session = self.by_id.entry(id).or_insert_with(|| Session {
            last: 0,
            recent: VecDeque::new(),
            early: BTreeMap::new(),
            stamp,
            told: 0,
            _permit: meter.take(),
        });
        (session.last, session.stamp) = (sequence, stamp);
        session.recent.push_back(offset);
        let surplus = session.recent.len().saturating_sub(recent);
        session.recent.drain(..surplus);
        let next = session.early.remove(&sequence.saturating_add(1))?;
        self.early_bytes -= next.1.len();
        Some(next)
    }

    /// Forgets sessions whose last message was appended before `limit`, in unix milliseconds.
    pub(crate) fn expire(&mut self, limit: u64) {
        self.by_id.retain(|_, session| {
            let keep = session.stamp >= limit;
            if !keep {
                self.early_bytes -= session.early.values().map(|(_, payload)| payload.len()).sum::<usize>();
            }
            keep
        });
    }
}

impl Session {
    fn judge(&self, sequence: u64) -> Ruling {
        if sequence > self.last {
            return if sequence == self.last.saturating_add(1) { Ruling::Append } else { Ruling::Early };
        }
        let back = usize::try_from(self.last - sequence).unwrap_or(usize::MAX);
        let index = self.recent.len().checked_sub(1).and_then(|newest| newest.checked_sub(back));
        index.map_or(Ruling::Forgotten, |index| Ruling::Positioned(self.recent[index]))
    }

    /// The publisher has the receipts of all messages up to `acknowledged`.
    fn forget(&mut self, acknowledged: u64) {
        let wanted = usize::try_from(self.last.saturating_sub(acknowledged)).unwrap_or(usize::MAX);
        let surplus = self.recent.len().saturating_sub(wanted);
        self.recent.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use treecast_overlay::id::Key;
    use treecast_overlay::peer::{Addr, Peer};

    use super::*;
    use crate::log::testing::{BIRTH, entry, members};
    use crate::topic::TopicId;
    use crate::wire::{Lineage, Signature};

    const RECENT: usize = 4;

    fn publish(session: u64, sequence: u64) -> Publish {
        let publisher = Peer { id: NodeId(3), incarnation: 1, addr: Addr::Unreachable }.into();
        let (topic, signature) = (TopicId(Key(7)), Signature::None);
        Publish {
            topic,
            publisher,
            session,
            sequence,
            acknowledged: 0,
            resent: false,
            birth: None,
            signature,
        }
    }

    /// A root's log and sessions, side by side.
    struct Root {
        log: Log,
        sessions: Sessions,
        meter: Meter,
    }

    impl Root {
        fn new() -> Root {
            let log = Log::new(BIRTH, Lineage::default(), 0);
            let mut root = Root { log, sessions: Sessions::default(), meter: Meter::default() };
            root.configure();
            root
        }

        fn configure(&mut self) {
            let body = Body::Configuration { members: members(&[1]), birth: None, replaces: None };
            let held = entry(1, body, &self.sessions.encode());
            let _ = self.log.take_committed(self.log.end(), held);
        }

        /// Publishes the next message of a session.
        fn append(&mut self, session: u64) {
            let id = (NodeId(3), session);
            let sequence = self.sessions.by_id.get(&id).map_or(0, |session| session.last) + 1;
            assert_eq!(self.sessions.judge(&publish(session, sequence), true), Ruling::Append);
            let offset = self.log.end();
            let body = Body::Message { publisher: NodeId(3), session, sequence, signature: Signature::None };
            let held = entry(1, body, b"");
            self.sessions.note(id, sequence, offset, held.stamp, RECENT, &self.meter);
            let _ = self.log.take_committed(offset, held);
        }

        fn replayed(&self) -> Sessions {
            Sessions::replay(&self.log, usize::MAX, RECENT, &self.meter)
        }
    }

    #[test]
    fn a_publisher_hears_what_is_missing_and_not_too_often() {
        let mut sessions = Sessions::default();
        assert_eq!(sessions.missing(0, &publish(1, 3)), [] as [u64; 0], "of a session that nobody knows");
        sessions.note((NodeId(3), 1), 1, 5, 0, RECENT, &Meter::default());
        assert_eq!(sessions.missing(100, &publish(1, 4)), [2, 3]);
        sessions.keep_early(publish(1, 4), Bytes::new(), 9, 9);
        assert_eq!(sessions.missing(149, &publish(1, 6)), [] as [u64; 0]);
        assert_eq!(sessions.missing(150, &publish(1, 6)), [2, 3, 5]);
        assert_eq!(sessions.missing(200, &publish(1, 1 << 50)).len(), MAX_MISSING);
    }

    #[test]
    fn a_session_is_judged_by_what_of_it_is_in_the_log() {
        let mut root = Root::new();
        assert_eq!(root.sessions.judge(&publish(1, 1), false), Ruling::Full);
        assert_eq!(root.sessions.judge(&publish(1, 2), true), Ruling::Unknown);
        for _ in 0..6 {
            root.append(1);
        }
        let rulings = [8, 7, 6, 3, 2].map(|sequence| root.sessions.judge(&publish(1, sequence), false));
        let positioned = Ruling::Positioned;
        assert_eq!(rulings, [Ruling::Early, Ruling::Append, positioned(6), positioned(3), Ruling::Forgotten]);
        let acknowledged = Publish { acknowledged: 5, ..publish(1, 6) };
        assert_eq!(root.sessions.judge(&acknowledged, true), positioned(6));
        assert_eq!(
            root.sessions.judge(&publish(1, 5), true),
            Ruling::Forgotten,
            "its publisher has the receipt"
        );
        assert!(root.sessions.has(&publish(1, 1)) && root.sessions.has(&publish(1, 6)));
        assert!(!root.sessions.has(&publish(1, 7)) && !root.sessions.has(&publish(2, 1)));
        assert_eq!(root.sessions.judge(&publish(1, u64::MAX), true), Ruling::Early);
    }

    #[test]
    fn one_that_came_early_waits_for_those_before_it_within_bounds() {
        let mut root = Root::new();
        root.append(1);
        for sequence in [4, 3, 3, 5] {
            root.sessions.keep_early(publish(1, sequence), Bytes::from_static(b"xx"), 2, 100);
        }
        root.sessions.keep_early(publish(2, 3), Bytes::new(), 2, 100);
        assert_eq!(root.sessions.early_bytes, 4, "two, and of a session that is known");
        let mut next = |sequence| {
            let note = root.sessions.note((NodeId(3), 1), sequence, sequence, 1000, RECENT, &root.meter);
            note.map(|(publish, _)| publish.sequence)
        };
        assert_eq!([next(2), next(3), next(4)], [Some(3), Some(4), None]);
        assert_eq!(root.sessions.early_bytes, 0);
        root.sessions.keep_early(publish(1, 9), Bytes::from_static(b"xx"), 2, 1);
        assert_eq!(root.sessions.early_bytes, 0, "too many bytes");
    }

    #[test]
    fn sessions_age_by_the_stamps_of_the_log() {
        let mut root = Root::new();
        root.append(1);
        root.sessions.keep_early(publish(1, 3), Bytes::from_static(b"xx"), 2, 100);
        root.sessions.note((NodeId(3), 2), 1, 9, 2000, RECENT, &root.meter);
        root.sessions.expire(1000);
        assert_eq!((root.sessions.len(), root.meter.count()), (2, 2));
        root.sessions.expire(1001);
        assert_eq!((root.sessions.len(), root.meter.count(), root.sessions.early_bytes), (1, 1, 0));
    }

    #[test]
    fn a_malformed_table_is_none_and_a_long_one_is_cut() {
        let mut root = Root::new();
        (1..=9).for_each(|session| root.append(session));
        root.configure();
        assert_eq!(Sessions::replay(&root.log, 4, RECENT, &root.meter).len(), 4);
        let body = Body::Configuration { members: members(&[1]), birth: None, replaces: None };
        let _ = root.log.take_committed(root.log.end(), entry(1, body, b"no table"));
        assert_eq!(root.replayed().len(), 0);
    }

    proptest! {
        #[test]
        fn the_sessions_are_a_function_of_the_log(steps in proptest::collection::vec(0u64..5, 0..60), kept in 0usize..40) {
            let mut root = Root::new();
            for session in steps {
                match session {
                    0 => root.configure(),
                    _ => root.append(session),
                }
                prop_assert_eq!(root.replayed().encode(), root.sessions.encode());
            }
            // Whatever falls out of a member's window is in the table of the last configuration.
            root.configure();
            root.append(1);
            root.log.trim(2 + kept, usize::MAX);
            prop_assert_eq!(root.replayed().encode(), root.sessions.encode());
        }
    }
}

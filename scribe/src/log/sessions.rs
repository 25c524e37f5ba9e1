//! A root's memory of its publishers: which message of a session comes next, and where the last ones stand. It makes
//! sending again safe (design §6, publishing).

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use treecast_overlay::id::NodeId;
use treecast_overlay::time::Instant;

use super::terms::{Span, Terms};
use crate::message::Position;
use crate::permit::{Meter, Permit};
use crate::wire::Publish;

/// Most terms of which positions are remembered: the log was handed over that often while a publisher waited for a
/// receipt. Of earlier ones is known only that the messages are in the log.
const MAX_TERMS: usize = 64;

/// Names a session: publisher and number.
pub(crate) type SessionId = (NodeId, u64);

/// The sessions of one topic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    /// The terms of the positions.
    terms: Terms,
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
    used: Instant,
    /// Counts the session in the node's quota.
    _permit: Permit,
}

/// The fate of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It comes next: append it, and say so by [`Sessions::appended`].
    Append,
    /// It is in the log, here.
    Positioned(Position),
    /// It is in the log, and its publisher has had the receipt, or waits for it too long.
    Forgotten,
    /// Its predecessors are missing: it waits for them, or is sent again.
    Early,
    /// No node knows the fate of its predecessors.
    Unknown,
    /// There are too many sessions.
    Full,
}

/// A session as a former root hands it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionState {
    publisher: NodeId,
    session: u64,
    last: u64,
    recent: Vec<u64>,
}

/// The sessions of a topic as a former root hands them over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionsState {
    /// Where the terms of their positions begin.
    terms: Vec<Span>,
    /// The last used one first.
    sessions: Vec<SessionState>,
}

impl Sessions {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Judges a message. `room` says whether a session may be added, `certain` whether this root knows every session
    /// that its log ever had: if not, a repetition of a first message may be in the log already.
    pub(crate) fn judge(&mut self, now: Instant, publish: &Publish, room: bool, certain: bool) -> Ruling {
        let id = (publish.publisher.id(), publish.session);
        let Some(session) = self.by_id.get_mut(&id) else {
            return match publish.sequence {
                1 if publish.resent && !certain => Ruling::Unknown,
                1 if !room => Ruling::Full,
                1 => Ruling::Append,
                _ => Ruling::Unknown,
            };
        };
        session.used = now;
        session.forget(publish.acknowledged);
        session.judge(publish.sequence, &self.terms)
    }

    /// Keeps a message that came too early, if there is room for it.
    pub(crate) fn keep_early(&mut self, publish: Publish, payload: Bytes, messages: usize, bytes: usize) {
        let id = (publish.publisher.id(), publish.session);
        let Some(session) = self.by_id.get_mut(&id) else { return };
        let fits = session.early.len() < messages && self.early_bytes + payload.len() <= bytes;
        if fits && !session.early.contains_key(&publish.sequence) {
            self.early_bytes += payload.len();
            session.early.insert(publish.sequence, (publish, payload));
        }
    }

    /// Notes a position, and hands out the message that waited for this one.
    pub(crate) fn appended(
        &mut self,
        now: Instant,
        publish: &Publish,
        at: Position,
        meter: &Meter,
    ) -> Option<(Publish, Bytes)> {
        let id = (publish.publisher.id(), publish.session);
        let session = self.by_id.entry(id).or_insert_with(|| Session {
            last: 0,
            recent: VecDeque::new(),
            early: BTreeMap::new(),
            used: now,
            _permit: meter.take(),
        });
        session.last = publish.sequence;
        session.recent.push_back(at.offset);
        self.terms.note(at);
        self.terms.bound(MAX_TERMS);
        let next = session.early.remove(&publish.sequence.saturating_add(1))?;
        self.early_bytes -= next.1.len();
        Some(next)
    }

    /// Lets all but the last `limit` positions of a session go.
    pub(crate) fn bound(&mut self, id: SessionId, limit: usize) {
        let Some(session) = self.by_id.get_mut(&id) else { return };
        let surplus = session.recent.len().saturating_sub(limit);
        session.recent.drain(..surplus);
    }

    /// Forgets sessions last used before `limit`.
    pub(crate) fn expire(&mut self, limit: Instant) {
        self.by_id.retain(|_, session| {
            let keep = session.used >= limit;
            if !keep {
                self.early_bytes -= session.early.values().map(|(_, payload)| payload.len()).sum::<usize>();
            }
            keep
        });
    }

    /// The sessions for a handoff: the last used ones that fit into so many bytes.
    pub(crate) fn state(&self, bytes: usize) -> SessionsState {
        let mut all: Vec<_> = self.by_id.iter().collect();
        all.sort_by_key(|(_, session)| std::cmp::Reverse(session.used));
        let mut room = bytes;
        let mut sessions = Vec::new();
        for (&(publisher, number), session) in all {
            // An offset is a varint of at most nine bytes.
            let size = 48 + session.recent.len() * 9;
            let Some(rest) = room.checked_sub(size) else { break };
            room = rest;
            let recent = session.recent.iter().copied().collect();
            sessions.push(SessionState { publisher, session: number, last: session.last, recent });
        }
        SessionsState { terms: self.terms.spans().to_vec(), sessions }
    }

    /// Takes over what a former root knew; sessions beyond `limit` are left out, and their publishers refused.
    pub(crate) fn restore(now: Instant, state: SessionsState, limit: usize, meter: &Meter) -> Sessions {
        let mut terms: Terms = state.terms.into_iter().collect();
        terms.bound(MAX_TERMS);
        let sessions = state.sessions.into_iter().take(limit).map(|state| {
            let recent: VecDeque<_> = state.recent.into();
            let early = BTreeMap::new();
            let session = Session { last: state.last, recent, early, used: now, _permit: meter.take() };
            ((state.publisher, state.session), session)
        });
        Sessions { by_id: sessions.collect(), terms, early_bytes: 0 }
    }
}

impl Session {
    fn judge(&self, sequence: u64, terms: &Terms) -> Ruling {
        if sequence > self.last {
            return if sequence == self.last.saturating_add(1) { Ruling::Append } else { Ruling::Early };
        }
        let back = usize::try_from(self.last - sequence).unwrap_or(usize::MAX);
        let index = self.recent.len().checked_sub(1).and_then(|newest| newest.checked_sub(back));
        let position = index.and_then(|index| terms.position(self.recent[index]));
        position.map_or(Ruling::Forgotten, Ruling::Positioned)
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
    use treecast_overlay::id::Key;
    use treecast_overlay::peer::{Addr, Peer};

    use super::*;
    use crate::message::Term;
    use crate::topic::TopicId;
    use crate::wire::Signature;

    fn publish(sequence: u64, acknowledged: u64) -> Publish {
        let publisher = Peer { id: NodeId(5), incarnation: 1, addr: Addr::Memory(0) }.into();
        let topic = TopicId(Key(9));
        let signature = Signature::None;
        Publish { topic, publisher, session: 3, sequence, acknowledged, resent: false, signature }
    }

    fn judge(sessions: &mut Sessions, publish: Publish) -> Ruling {
        sessions.judge(Instant::ZERO, &publish, true, true)
    }

    fn at(offset: u64) -> Position {
        Position { term: Term { number: 1, root: NodeId(9) }, offset }
    }

    #[test]
    fn a_session_is_appended_in_sequence_and_answered_again() {
        let mut sessions = Sessions::default();
        assert_eq!(judge(&mut sessions, publish(2, 0)), Ruling::Unknown);
        assert_eq!(judge(&mut sessions, publish(1, 0)), Ruling::Append);
        assert!(sessions.appended(Instant::ZERO, &publish(1, 0), at(10), &Meter::default()).is_none());
        assert_eq!(judge(&mut sessions, publish(1, 0)), Ruling::Positioned(at(10)));
        assert_eq!(judge(&mut sessions, publish(3, 0)), Ruling::Early);
        sessions.keep_early(publish(3, 0), Bytes::new(), 1, 0);
        assert_eq!(judge(&mut sessions, publish(2, 0)), Ruling::Append);
        let (early, _) = sessions.appended(Instant::ZERO, &publish(2, 0), at(11), &Meter::default()).unwrap();
        assert_eq!(early.sequence, 3);
        assert!(sessions.appended(Instant::ZERO, &early, at(12), &Meter::default()).is_none());
        assert_eq!(judge(&mut sessions, publish(2, 1)), Ruling::Positioned(at(11)));
        assert_eq!(judge(&mut sessions, publish(1, 1)), Ruling::Forgotten);
    }

    #[test]
    fn a_repeated_first_message_is_refused_by_a_root_that_may_have_forgotten_it() {
        let mut sessions = Sessions::default();
        let again = Publish { resent: true, ..publish(1, 0) };
        assert_eq!(sessions.judge(Instant::ZERO, &again, true, false), Ruling::Unknown);
        assert_eq!(sessions.judge(Instant::ZERO, &again, true, true), Ruling::Append);
        assert_eq!(sessions.judge(Instant::ZERO, &publish(1, 0), false, true), Ruling::Full);
    }

    #[test]
    fn early_messages_are_bounded_over_all_sessions_and_their_bytes_come_back() {
        let mut sessions = Sessions::default();
        let of = |session, sequence| Publish { session, ..publish(sequence, 0) };
        let early = |sessions: &mut Sessions, publish| {
            sessions.keep_early(publish, Bytes::from_static(b"12345678"), 2, 20);
            sessions.early_bytes
        };
        for session in 1..=3 {
            sessions.appended(Instant::ZERO, &of(session, 1), at(session), &Meter::default());
        }
        assert_eq!(early(&mut sessions, of(1, 3)), 8);
        assert_eq!(early(&mut sessions, of(1, 3)), 8, "the same again");
        assert_eq!(early(&mut sessions, of(2, 3)), 16);
        assert_eq!(early(&mut sessions, of(3, 3)), 16, "no room, in whichever session");
        assert!(sessions.appended(Instant::ZERO, &of(1, 2), at(4), &Meter::default()).is_some());
        assert_eq!(sessions.early_bytes, 8);
        sessions.expire(Instant::from_nanos(1));
        assert_eq!(sessions.early_bytes, 0);
    }

    #[test]
    fn a_handoff_keeps_the_positions() {
        let mut sessions = Sessions::default();
        for sequence in 1..=3 {
            sessions.appended(Instant::ZERO, &publish(sequence, 0), at(sequence + 10), &Meter::default());
        }
        let mut again = Sessions::restore(Instant::ZERO, sessions.state(1000), 10, &Meter::default());
        assert_eq!(judge(&mut again, publish(2, 0)), Ruling::Positioned(at(12)));
        assert_eq!(judge(&mut again, publish(4, 0)), Ruling::Append);
        assert_eq!(sessions.state(10).sessions, [], "what does not fit is left out");
    }
}

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
use crate::wire::{Body, Publish};

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
            let state = Session { last, recent: recent.into(), early, stamp, _permit: meter.take() };
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
        let states: Vec<_> = self.by_id.iter().map(state).collect();
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

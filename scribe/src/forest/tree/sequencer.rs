//! The root gives messages their positions (design §6, publishing): its state beside its part of the log.

use bytes::Bytes;
use treecast_overlay::time::Instant;

use super::admission::Admission;
use crate::config::Config;
use crate::forest::quota::Quota;
use crate::log::Log;
use crate::log::sessions::{Ruling, Sessions, SessionsState};
use crate::log::window::{Entry, Held};
use crate::message::Position;
use crate::wire::{Body, Publish, RefusedReason};

/// A root's state beside its window.
#[derive(Debug)]
pub(crate) struct Sequencer {
    pub sessions: Sessions,
    /// Messages that wait for those that read.
    pub admission: Admission,
    /// From then on every session that counts is known: one that is not known cannot have been in the log.
    certain_from: Instant,
    /// When it was last of use.
    pub used: Instant,
    /// Its leases have ended: another node may have been the root since.
    pub lapsed: bool,
}

/// The root's decision on a message.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is appended.
    Append(Publish, Bytes),
    /// It has its position already.
    Receipt(Publish, Position),
    /// It gets none.
    Refuse(Publish, RefusedReason),
    /// It waits for its predecessors, or its publisher has its answer.
    Nothing,
}

/// A message that has got its position.
#[derive(Debug)]
pub(crate) struct Positioned {
    pub entry: Entry,
    /// The message that waited for this one.
    pub next: Option<(Publish, Bytes)>,
}

impl Sequencer {
    /// A root that knows of no session.
    pub(crate) fn new(now: Instant) -> Sequencer {
        Sequencer {
            sessions: Sessions::default(),
            admission: Admission::default(),
            certain_from: now,
            used: now,
            lapsed: false,
        }
    }

    /// Goes on after its leases ended for a while.
    pub(crate) fn resume(mut self: Box<Self>) -> Box<Sequencer> {
        self.lapsed = false;
        self
    }

    /// Decides on a message.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        config: &Config,
        quota: &Quota,
        publish: Publish,
        payload: Bytes,
    ) -> Answer {
        if payload.len() > config.max_payload {
            let limit = config.max_payload as u64;
            return Answer::Refuse(publish, RefusedReason::TooLarge { limit });
        }
        self.used = now;
        let room = quota.session_room(config) > 0;
        match self.sessions.judge(now, &publish, room, now >= self.certain_from) {
            Ruling::Append => Answer::Append(publish, payload),
            Ruling::Positioned(at) => Answer::Receipt(publish, at),
            Ruling::Forgotten => Answer::Nothing,
            Ruling::Early => {
                let (messages, bytes) = (config.sessions.early_messages, config.sessions.early_bytes);
                self.sessions.keep_early(publish, payload, messages, bytes);
                Answer::Nothing
            }
            Ruling::Unknown => Answer::Refuse(publish, RefusedReason::UnknownSession),
            Ruling::Full => Answer::Refuse(publish, RefusedReason::Full),
        }
    }

    /// Gives a message the next position of the log.
    pub(crate) fn position(
        &mut self,
        now: Instant,
        config: &Config,
        quota: &Quota,
        log: &Log,
        publish: &Publish,
        payload: &[u8],
    ) -> Positioned {
        let at = Position { term: log.term, offset: log.window.end() };
        let next = self.sessions.appended(now, publish, at, &quota.sessions);
        self.sessions.bound((publish.publisher.id(), publish.session), config.publish.messages);
        let body = Body::Message {
            publisher: publish.publisher.id(),
            session: publish.session,
            sequence: publish.sequence,
            signature: publish.signature,
        };
        Positioned { entry: Entry::encode(publish.topic, at, body, payload), next }
    }

    /// Forgets all sessions. A message that an earlier root may have positioned was first sent before now, and is given
    /// up by the time from which this root is certain again.
    pub(crate) fn begin_forced_term(&mut self, now: Instant, config: &Config) {
        self.certain_from = now + config.publish.timeout;
        self.sessions = Sessions::default();
    }

    /// Takes over the sessions of the former root, whose log is this one.
    pub(crate) fn inherit(
        &mut self,
        now: Instant,
        config: &Config,
        quota: &Quota,
        sessions: SessionsState,
        log: Option<&Log>,
    ) {
        let forced = |held: &Held| matches!(held.body, Body::TermStart { forced: true, .. });
        if log.is_some_and(|log| log.window.entries().any(forced)) {
            // The former root did not know every session itself, or had not for long: nor does this one.
            self.certain_from = now + config.publish.timeout;
        }
        self.sessions = Sessions::restore(now, sessions, quota.session_room(config), &quota.sessions);
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::{Key, NodeId};
    use treecast_overlay::peer::{Addr, Peer};

    use super::*;
    use crate::log::window::Window;
    use crate::message::Term;
    use crate::topic::TopicId;
    use crate::wire::Signature;

    fn publish(sequence: u64, resent: bool) -> Publish {
        let publisher = Peer { id: NodeId(5), incarnation: 1, addr: Addr::Unreachable }.into();
        let (topic, signature) = (TopicId(Key(9)), Signature::None);
        Publish { topic, publisher, session: 3, sequence, acknowledged: 0, resent, signature }
    }

    #[test]
    fn positions_follow_each_other_and_a_repetition_gets_its_own_again() {
        let (config, quota, now) = (Config::default(), Quota::default(), Instant::ZERO);
        let term = Term { number: 1, root: NodeId(9) };
        let mut log = Log { birth: 1, term, window: Window::new(None) };
        let mut root = Sequencer::new(now);
        for sequence in 1..=2 {
            let Answer::Append(publish, payload) =
                root.answer(now, &config, &quota, publish(sequence, false), Bytes::new())
            else {
                panic!("message {sequence} is next");
            };
            let positioned = root.position(now, &config, &quota, &log, &publish, &payload);
            assert!(positioned.next.is_none());
            log.window.append(positioned.entry);
        }
        let again = root.answer(now, &config, &quota, publish(1, true), Bytes::new());
        let Answer::Receipt(_, at) = again else { panic!("{again:?}") };
        assert_eq!((at.offset, quota.sessions.count()), (0, 1));
        root.begin_forced_term(now, &config);
        let again = root.answer(now, &config, &quota, publish(1, true), Bytes::new());
        assert!(matches!(again, Answer::Refuse(_, RefusedReason::UnknownSession)), "{again:?}");
        assert_eq!(quota.sessions.count(), 0);
    }
}

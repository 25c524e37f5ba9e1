//! The root gives messages their positions (design §6, publishing): its sessions, and the messages that wait.

use bytes::Bytes;

use super::admission::Admission;
use crate::config::Config;
use crate::forest::quota::Quota;
use crate::log::Log;
use crate::log::sessions::{Ruling, Sessions};
use crate::log::window::Held;
use crate::wire::{Body, Data, Publish, RefusedReason};

/// A root's memory of its publishers, and the messages that wait.
#[derive(Debug, Default)]
pub(crate) struct Sequencer {
    pub sessions: Sessions,
    /// Messages that wait for the term, for a configuration, or for those that read.
    pub admission: Admission,
    /// Until then, in unix milliseconds, messages of a session of another birth may still come.
    pub young_until: u64,
}

/// The root's decision on a message.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is appended.
    Append(Publish, Bytes),
    /// It has its position already.
    Positioned(Publish, u64),
    /// It gets none.
    Refuse(Publish, RefusedReason),
    /// It waits for its predecessors, of which these have not come.
    Missing(Publish, Vec<u64>),
    /// It waits, or its publisher has its answer.
    Nothing,
}

/// A message that has got its position.
#[derive(Debug)]
pub(crate) struct Positioned {
    pub held: Held,
    /// The message that waited for this one.
    pub next: Option<(Publish, Bytes)>,
}

impl Sequencer {
    /// Decides on a message.
    pub(crate) fn answer(
        &mut self,
        unix_ms: u64,
        config: &Config,
        quota: &Quota,
        log: &Log,
        publish: Publish,
        payload: Bytes,
    ) -> Answer {
        if payload.len() > config.max_payload {
            let limit = config.max_payload as u64;
            return Answer::Refuse(publish, RefusedReason::TooLarge { limit });
        }
        // Messages that are in this log are not refused, whichever birth their publisher knows.
        if !self.sessions.has(&publish) && !self.is_of(log, unix_ms, &publish) {
            let reason = RefusedReason::OtherBirth { birth: log.birth, repeated: publish.resent };
            return Answer::Refuse(publish, reason);
        }
        let room = quota.session_room(config) > 0 && self.sessions.len() < config.sessions.per_topic;
        match self.sessions.judge(&publish, room) {
            Ruling::Append => Answer::Append(publish, payload),
            Ruling::Positioned(offset) => Answer::Positioned(publish, offset),
            Ruling::Forgotten => Answer::Nothing,
            Ruling::Early => {
                let (messages, bytes) = (config.sessions.early_messages, config.sessions.early_bytes);
                let missing = self.sessions.missing(unix_ms, &publish);
                self.sessions.keep_early(publish, payload, messages, bytes);
                if missing.is_empty() { Answer::Nothing } else { Answer::Missing(publish, missing) }
            }
            Ruling::Unknown => Answer::Refuse(publish, RefusedReason::UnknownSession),
            Ruling::Full => Answer::Refuse(publish, RefusedReason::Full),
        }
    }

    /// Whether a message can be of this birth of the log. One whose publisher does not know any may have been positioned
    /// by a root of another one, as long as that one's publishers have not given up.
    fn is_of(&self, log: &Log, unix_ms: u64, publish: &Publish) -> bool {
        match publish.birth {
            Some(known) => known == log.birth || log.took_all_of(known),
            None => unix_ms >= self.young_until || !publish.resent,
        }
    }

    /// Gives a message the next position of the log.
    pub(crate) fn position(
        &mut self,
        stamp: u64,
        term: u64,
        config: &Config,
        quota: &Quota,
        log: &Log,
        (publish, payload): (&Publish, &[u8]),
    ) -> Positioned {
        let offset = log.end();
        let id = (publish.publisher.id(), publish.session);
        let recent = config.publish.messages;
        let next = self.sessions.note(id, publish.sequence, offset, stamp, recent, &quota.sessions);
        let body = Body::Message {
            publisher: publish.publisher.id(),
            session: publish.session,
            sequence: publish.sequence,
            signature: publish.signature,
        };
        let behind = offset - log.commit();
        let data = Data { topic: publish.topic, birth: log.birth, offset, term, behind, stamp, body };
        Positioned { held: Held::encode(data, payload), next }
    }
}

//! Which messages a subscriber has had, by their identities (promise S2). The root gives each message one position, and
//! remembers the sessions to do so; but a first message that was held up on its way may come to the next root, which
//! cannot know that it has one. The log holds such a message twice, a subscriber gets it once.

use std::collections::BTreeMap;

use super::sessions::SessionId;
use crate::message::MessageId;

/// Most sessions that a subscriber remembers; beyond it the one that was silent longest is forgotten. A message is held
/// up for seconds, so that many others would have to speak meanwhile.
const MAX_SESSIONS: usize = 1024;

/// The last message of each session that a subscriber has had. A session's messages come in their order, so all before
/// it are behind the subscriber.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    sessions: BTreeMap<SessionId, Last>,
    /// Grows with every message.
    count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    sequence: u64,
    count: u64,
}

impl Seen {
    /// Notes a message. `false`: the subscriber has had it.
    pub(crate) fn note(&mut self, id: MessageId) -> bool {
        let MessageId { publisher, session, sequence } = id;
        self.count += 1;
        let last = Last { sequence, count: self.count };
        match self.sessions.get_mut(&(publisher, session)) {
            Some(known) if sequence <= known.sequence => return false,
            Some(known) => *known = last,
            None => {
                self.make_room();
                self.sessions.insert((publisher, session), last);
            }
        }
        true
    }

    /// Heap bytes, of a B-tree three quarters full.
    pub(crate) fn weight(&self) -> usize {
        let entry = size_of::<(SessionId, Last)>();
        if self.sessions.is_empty() { 0 } else { (self.sessions.len() * 4 / 3).max(11) * entry }
    }

    fn make_room(&mut self) {
        if self.sessions.len() < MAX_SESSIONS {
            return;
        }
        let oldest = self.sessions.iter().min_by_key(|(_, last)| last.count).map(|(&id, _)| id);
        if let Some(oldest) = oldest {
            self.sessions.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::NodeId;

    use super::*;

    fn message(session: u64, sequence: u64) -> MessageId {
        MessageId { publisher: NodeId(1), session, sequence }
    }

    #[test]
    fn a_message_is_new_once() {
        let mut seen = Seen::default();
        let words =
            [message(1, 1), message(2, 1), message(1, 2), message(1, 2), message(1, 1), message(2, 2)];
        assert_eq!(words.map(|id| seen.note(id)), [true, true, true, false, false, true]);
    }

    #[test]
    fn the_longest_silent_session_is_forgotten_first() {
        let mut seen = Seen::default();
        for session in 0..MAX_SESSIONS as u64 {
            assert!(seen.note(message(session, 1)));
        }
        assert!(seen.note(message(0, 2)));
        assert!(seen.note(message(9999, 1)));
        assert_eq!(seen.sessions.len(), MAX_SESSIONS);
        assert!(!seen.note(message(0, 2)), "it spoke a moment ago");
        assert!(seen.note(message(1, 1)), "this one was the oldest");
    }
}

//! The state that a root hands to its successor when it steps down: the end of its window, and its sessions. With it
//! the next term is not forced, and nothing is lost.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Log;
use super::sessions::{Sessions, SessionsState};
use super::window::{Arrival, Entry, Held};
use crate::message::Position;
use crate::wire::{self, Header, LogTip};

/// The state that a root hands over.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Handoff {
    pub tip: LogTip,
    pub sessions: SessionsState,
    /// The entry before the first of these.
    pub base: Option<Position>,
    /// The window's newest entries, as they travel.
    entries: Vec<Vec<u8>>,
}

impl Handoff {
    /// The handoff of a log, with as much as fits of its window and of its sessions.
    pub(crate) fn of(log: &Log, sessions: &Sessions, window_bytes: usize, session_bytes: usize) -> Handoff {
        let mut room = window_bytes;
        let mut entries: Vec<&Held> = Vec::new();
        for entry in log.window.entries().rev() {
            let Some(rest) = room.checked_sub(entry.encoded.len()) else { break };
            room = rest;
            entries.push(entry);
        }
        entries.reverse();
        let first = log.window.end() - entries.len() as u64;
        Handoff {
            tip: log.tip(),
            sessions: sessions.state(session_bytes),
            base: log.window.before(first),
            entries: entries.into_iter().map(|entry| entry.encoded.to_vec()).collect(),
        }
    }

    /// The bytes that travel.
    pub(crate) fn encode(&self) -> Bytes {
        Bytes::from(postcard::to_stdvec(self).expect("a handoff always encodes: it has no unsized parts"))
    }

    /// Decodes the bytes that travelled. `None`: it is malformed, and worth no more than none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Handoff> {
        match postcard::from_bytes::<Handoff>(bytes) {
            Ok(handoff) if handoff.is_sound() => Some(handoff),
            Ok(_) | Err(_) => {
                tracing::warn!("a former root handed over something malformed: opening a forced term");
                None
            }
        }
    }

    /// Appends to a log those entries that come next in it.
    pub(crate) fn append_to(&self, log: &mut Log) {
        for bytes in &self.entries {
            append_encoded(log, bytes);
        }
    }

    fn is_sound(&self) -> bool {
        let positions = [self.tip.tail, self.base].into_iter().flatten();
        let in_range = |number: u64| number < wire::MAX_NUMBER;
        in_range(self.tip.term.number)
            && positions.into_iter().all(|at| in_range(at.term.number) && in_range(at.offset))
    }
}

fn append_encoded(log: &mut Log, bytes: &[u8]) {
    let encoded = Bytes::copy_from_slice(bytes);
    let Ok((Header::Data(data), payload)) = wire::decode(&encoded) else { return };
    if log.window.arrival(data.position, &data.body) != Arrival::Next {
        return;
    }
    log.term = log.term.max(data.position.term);
    log.window.append(Entry { position: data.position, held: Held { body: data.body, encoded, payload } });
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::{Key, NodeId};
    use treecast_overlay::peer::{Addr, Peer};
    use treecast_overlay::time::Instant;

    use super::*;
    use crate::log::window::Window;
    use crate::message::Term;
    use crate::permit::Meter;
    use crate::topic::TopicId;
    use crate::wire::{Body, Publish, Signature};

    /// `docs/protocol.md` shows a handoff's bytes: that is this one.
    #[test]
    fn the_handoff_of_the_page_is_that_of_the_code() {
        let topic = TopicId(Key(0x1234_5678_9abc_def0_0fed_cba9_8765_4321));
        let publisher = NodeId(0xc5a2_90ab_0000_0000_0000_0000_0000_0080);
        let contact = Peer { id: publisher, incarnation: 1, addr: Addr::Unreachable }.into();
        let publish = Publish {
            topic,
            publisher: contact,
            session: 77,
            sequence: 1,
            acknowledged: 0,
            resent: false,
            signature: Signature::None,
        };
        let root = NodeId(0x3f00_0000_0000_0000_0000_0000_0000_0001);
        let term = Term { number: 1, root };
        let at = Position { term, offset: 0 };
        let body = Body::Message { publisher, session: 77, sequence: 1, signature: Signature::None };
        let mut window = Window::new(None);
        window.append(Entry::encode(topic, at, body, b"hi"));
        let log = Log { birth: 300, term, window };
        let mut sessions = Sessions::default();
        sessions.appended(Instant::ZERO, &publish, at, &Meter::default());
        let handoff = Handoff::of(&log, &sessions, 1000, 1000);
        let hex: String = handoff.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let page = include_str!("../../../docs/protocol.md");
        assert!(page.contains(&format!("`{hex}`")), "docs/protocol.md should show {hex}");
    }
}

//! What chats tell each other: one JSON object per message, on topic `chat/ROOM`.
//!
//! `{"v":1,"kind":"say","nick":"ann","text":"hello","n":7}`. A payload that is no such object but UTF-8 text is shown
//! as said by its publisher, so `treecast pub chat/lobby -m hello` talks to people too.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The version of the envelope.
const VERSION: u32 = 1;

/// One message of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Envelope {
    v: u32,
    /// What it is.
    pub(super) kind: EnvelopeKind,
    /// Who says it.
    #[serde(default)]
    pub(super) nick: String,
    /// What is said; for [`EnvelopeKind::Nick`] the former nick.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) text: String,
    /// The sender's own number for it, by which it knows its message when it comes back.
    #[serde(default)]
    pub(super) n: u64,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum EnvelopeKind {
    /// Somebody says something.
    Say,
    /// Somebody does something.
    Me,
    /// Somebody changed nick.
    Nick,
    /// Somebody has come.
    Join,
    /// Somebody goes.
    Leave,
    /// Somebody is there.
    Here,
    /// A newer chat's kind.
    #[serde(other)]
    Unknown,
}

impl Envelope {
    pub(super) fn new(kind: EnvelopeKind, nick: &str, text: &str, n: u64) -> Envelope {
        Envelope { v: VERSION, kind, nick: nick.to_string(), text: text.to_string(), n }
    }

    pub(super) fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("strings and numbers always encode").into()
    }

    /// The envelope, or the plain text that was sent instead; `None` for bytes that are neither.
    pub(super) fn decode(payload: &[u8]) -> Option<Envelope> {
        let text = std::str::from_utf8(payload).ok()?;
        match serde_json::from_str::<Envelope>(text) {
            Ok(envelope) if envelope.v == VERSION => Some(envelope),
            Ok(envelope) => Some(Envelope { kind: EnvelopeKind::Unknown, ..envelope }),
            Err(_) => Some(Envelope::new(EnvelopeKind::Say, "", text, 0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envelopes_round_trip_and_keep_their_shape() {
        let envelope = Envelope::new(EnvelopeKind::Say, "ann", "hello", 7);
        assert_eq!(&envelope.encode()[..], br#"{"v":1,"kind":"say","nick":"ann","text":"hello","n":7}"#);
        assert_eq!(Envelope::decode(&envelope.encode()), Some(envelope));
    }

    #[test]
    fn plain_text_is_said_and_bytes_and_newer_chats_are_told_apart() {
        let said = Envelope::decode(b"hello {").unwrap();
        assert_eq!((said.kind, said.nick.as_str(), said.text.as_str()), (EnvelopeKind::Say, "", "hello {"));
        assert_eq!(Envelope::decode(&[0xff]), None);
        for newer in [r#"{"v":2,"kind":"say","nick":"a"}"#, r#"{"v":1,"kind":"sticker","nick":"a"}"#] {
            assert_eq!(Envelope::decode(newer.as_bytes()).unwrap().kind, EnvelopeKind::Unknown, "{newer}");
        }
    }
}

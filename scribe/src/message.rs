//! A topic's log as publishers and subscribers see it: messages, positions, marks, gaps and receipts.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use treecast_overlay::id::NodeId;
use treecast_overlay::kbr::BroadcastFailure;

/// A place in a topic's log. Offsets go on over births. Within one birth an offset is one message for ever.
///
/// Shown as `OFFSET`; the alternate form is `BIRTH:OFFSET`. The order of positions means something within one
/// birth only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The random number of this birth of the log. A log begins anew only when a majority of its members has ended.
    pub birth: u64,
    /// The place in the log, from 0. The log's own entries take places, too: messages need not be at consecutive ones.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            write!(f, "{:016x}:{}", self.birth, self.offset)
        } else {
            write!(f, "{}", self.offset)
        }
    }
}

/// Identity of a message within its topic. One session is one life of one publisher on one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    /// The node that published it.
    pub publisher: NodeId,
    /// In which session.
    pub session: u64,
    /// Its number in the session, from 1.
    pub sequence: u64,
}

/// How far a subscriber has come: everything before the offset `next` is behind it. Text form `3.BIRTH.NEXT` (the leading
/// number is the form's version).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mark {
    /// The log's birth.
    pub birth: u64,
    /// The offset of what comes next.
    pub next: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "3.{:016x}.{}", self.birth, self.next)
    }
}

/// A text that is no mark.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("`{0}` is not a mark of version 3 (`3.BIRTH.NEXT`, as a subscriber printed it)")]
pub struct ParseMarkError(String);

impl FromStr for Mark {
    type Err = ParseMarkError;

    fn from_str(text: &str) -> Result<Mark, ParseMarkError> {
        let parse = || {
            let mut fields = text.split('.');
            if fields.next()? != "3" {
                return None;
            }
            let birth = fields.next().filter(|digits| digits.len() == 16 && !digits.starts_with('+'))?;
            let birth = u64::from_str_radix(birth, 16).ok()?;
            let next = fields.next().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
            let next = next.parse().ok()?;
            fields.next().is_none().then_some(Mark { birth, next })
        };
        parse().ok_or_else(|| ParseMarkError(text.chars().take(64).collect()))
    }
}

/// A delivered message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its publisher, the session, and its number there.
    pub id: MessageId,
    /// Its place in the topic's log.
    pub position: Position,
    /// How far a subscriber is that has seen this message: to be stored, and given to
    /// [`Start::After`] later.
    pub mark: Mark,
    /// Its content.
    pub payload: Bytes,
}

/// Messages that a subscriber did not and will not get, or may not. Nothing is ever dropped silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last place before the gap that is behind the subscriber, if any.
    pub after: Option<Position>,
    /// The first place behind the gap.
    pub until: Position,
    /// Why.
    pub reason: GapReason,
}

/// Why there is a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The subscriber came too late, or was too slow: no node that it can ask keeps what it lacks.
    TooOld,
    /// A majority of the members that held the log has ended. Entries that only they had are lost; maybe none.
    Unreplicated,
    /// Two logs of the topic met, as when a divided ring becomes one again, and one gave way: that of the subscriber's mark,
    /// or the other one. What stood only there does not come.
    OtherLog,
}

/// An item of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A message.
    Message(Message),
    /// Messages that were lost for this subscriber.
    Gap(Gap),
    /// This node has another parent in the topic's tree; `None`: it is the root itself now.
    ParentChanged(Option<NodeId>),
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Start {
    /// With what is published from now on.
    #[default]
    Latest,
    /// With the earliest message that is kept.
    Earliest,
    /// With the last so many messages that are kept.
    Last(u32),
    /// After this mark; what is no longer kept is announced as a gap.
    After(Mark),
}

/// The root's word that a message is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The message.
    pub id: MessageId,
    /// Its place in the log.
    pub position: Position,
    /// How many members of the log held it when the receipt was written.
    pub copies: u32,
    /// Subscribers of the topic, by the counts that came up the tree: an estimate; 0 only if there was none at all.
    pub listeners: u64,
}

/// Why there is no receipt.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PublishError {
    /// The message may or may not be in the log: no receipt came, or the root that had it is gone. It is not sent
    /// again.
    #[error("outcome unknown: no receipt came for message {} of session {:x}", .id.sequence, .id.session)]
    OutcomeUnknown {
        /// The message.
        id: MessageId,
    },
    /// The message was not sent: too many are waiting for their receipts.
    #[error("{limit} messages already wait for their receipts on this topic: await some first")]
    Busy {
        /// How many may wait.
        limit: usize,
    },
    /// The message was not sent: it is too large.
    #[error("the message has {len} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Its size.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The message was not sent: this node publishes on too many topics at once.
    #[error("this node already publishes on {limit} topics: its limit")]
    TooManyTopics {
        /// How many are allowed.
        limit: usize,
    },
    /// The root would not take it: it keeps as many topics, or as many sessions, as it can. It is not in the log.
    #[error("the topic's root is full: try again later")]
    RootFull,
    /// The node is shutting down or has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Why a broadcast was not sent.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BroadcastError {
    /// It is too large.
    #[error("the broadcast has {len} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Its size.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The overlay could not send it, or has no word that it could.
    #[error(transparent)]
    Failed(#[from] BroadcastFailure),
    /// The node is shutting down or has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// Why a subscription did not come about, or ended.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SubscribeError {
    /// The tree could not be reached in time.
    #[error("the topic's tree could not be reached within {0:?}")]
    TimedOut(std::time::Duration),
    /// This node is on too many trees.
    #[error("this node is already on {limit} trees: its limit")]
    TooManyTopics {
        /// How many are allowed.
        limit: usize,
    },
    /// The node is shutting down or has stopped.
    #[error("the node has stopped")]
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_printable() {
        let mark = Mark { birth: 0xab, next: 42 };
        assert_eq!(mark.to_string(), "3.00000000000000ab.42");
        assert_eq!(mark.to_string().parse(), Ok(mark));
        let extreme = Mark { birth: u64::MAX, next: u64::MAX };
        assert_eq!(extreme.to_string().parse(), Ok(extreme));
        for bad in [
            "",
            "3",
            "3.00000000000000ab",
            "3.ab.41",
            "3.00000000000000ab.",
            "3.00000000000000ab.-1",
            "3.00000000000000ab.+1",
            "3.00000000000000ab.41.5",
            "3.+0000000000000ab.41",
            "3.00000000000000ab.99999999999999999999",
            "2.00000000000000ab.3.cd000000000000000000000000000000.41",
        ] {
            assert!(bad.parse::<Mark>().is_err(), "{bad}");
        }
    }

    #[test]
    fn positions_show_their_birth_only_when_asked() {
        let at = Position { birth: 0xab, offset: 7 };
        assert_eq!((at.to_string(), format!("{at:#}")), ("7".to_string(), "00000000000000ab:7".to_string()));
    }
}

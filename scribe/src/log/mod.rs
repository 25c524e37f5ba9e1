//! A topic's log as one node holds it: entries at consecutive offsets, the terms that they belong to, the cursors of
//! those that read it, and the sessions of the publishers whose messages they are. Knows neither tree nor ring.

pub(crate) mod terms;
pub(crate) mod window;
pub(crate) mod early;
pub(crate) mod cursor;
pub(crate) mod seen;
pub(crate) mod reader;
pub(crate) mod pace;
pub(crate) mod sessions;
pub(crate) mod handoff;
pub(crate) mod local;

use crate::message::{Mark, Position, Term};
use crate::wire::LogTip;

pub(crate) use self::local::LocalLog;
use self::window::Window;

/// A node's part of a topic's log.
#[derive(Debug)]
pub(crate) struct Log {
    pub birth: u64,
    /// The highest term of which this node has the start, or was told by the parent that started it.
    pub term: Term,
    pub window: Window,
}

impl Log {
    /// How far it reaches.
    pub(crate) fn tip(&self) -> LogTip {
        LogTip { birth: self.birth, term: self.term, tail: self.window.tail() }
    }

    /// The mark of a reader that has everything.
    pub(crate) fn mark(&self) -> Mark {
        Mark { birth: self.birth, position: self.window.tail() }
    }
}

/// A change of the log, as it concerns those that read it by offset.
#[derive(Debug)]
#[must_use]
pub(crate) enum Change {
    /// Offsets are what they were.
    None,
    /// A term begins at this offset: what was beyond it is on another branch.
    Truncated { end: u64 },
    /// Another window of the same log: an offset of the old one may lie on another branch in the new one.
    Rebased { old: Log },
    /// Another log.
    Replaced { old: Log },
}

/// Whether a position may be the word of an honest node: no log has had so many terms, or so many entries. A claim
/// beyond that would drive the topic's numbers towards their end.
pub(crate) fn is_plausible(position: Option<Position>) -> bool {
    position.is_none_or(|position| position.term.number < 1 << 40 && position.offset < 1 << 50)
}

/// The joint knowledge of two nodes: the highest term, and the last position. Of two logs the longer one is kept.
pub(crate) fn better(a: LogTip, b: LogTip) -> LogTip {
    if a.birth == b.birth {
        return LogTip { birth: a.birth, term: a.term.max(b.term), tail: a.tail.max(b.tail) };
    }
    let length = |tip: &LogTip| (tip.tail.map(|tail| tail.offset), tip.birth);
    if length(&a) >= length(&b) { a } else { b }
}

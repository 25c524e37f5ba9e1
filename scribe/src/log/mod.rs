//! A topic's log, replicated, as one node holds it. Knows neither tree nor ring.
//!
//! | file | owns, or decides |
//! | --- | --- |
//! | `window` | entries at consecutive offsets |
//! | `part` | this node's part of the log: what of it is committed, and the promises of a member |
//! | `configurations` | which members count |
//! | `primary` | the root's side: promises, adoption, what is committed |
//! | `sessions` | which message of a publisher comes next: a function of the log |
//! | `early` | entries that came before their predecessors |
//! | `local` | all of these at a node of the tree |
//! | `backlog` | entries older than the window, pulled for subscribers |
//! | `cursor`, `reader`, `pace` | a child's place in the window, a subscriber's, and whether they keep up |
//!
//! `part` and `primary` are pure, and a model checker drives them (`lab log-model`).

pub mod configurations;
pub mod part;
pub mod primary;
pub mod window;
pub(crate) mod early;
pub(crate) mod backlog;
pub(crate) mod cursor;
pub(crate) mod reader;
pub(crate) mod pace;
pub(crate) mod sessions;
pub(crate) mod local;

#[cfg(test)]
mod testing;

pub use self::part::Log;

pub(crate) use self::local::LocalLog;
use self::window::Window;

/// A change of the log, as it concerns those that read it by offset.
#[derive(Debug)]
#[must_use]
pub(crate) enum Change {
    /// Offsets mean what they meant.
    None,
    /// From this offset on the log is another one. It `descends` from the one before, or both from a third. `left`: what it
    /// had there before.
    Branched { end: u64, descends: bool, left: Window },
    /// Another log. `left`: what the one before had.
    Replaced { start: u64, left: Window },
}

//! Structs that name a term, and positions which mostly lie in it: on the wire that term is said once.

use serde::{Deserialize, Serialize};

use super::{LogTip, Started};
use crate::message::{Mark, Position, Term};

/// A position beside a term.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum ShortPosition {
    /// In that term, at this offset.
    SameTerm(u64),
    /// In another one.
    OtherTerm(Position),
}

impl ShortPosition {
    fn beside(term: Term, position: Position) -> ShortPosition {
        if position.term == term {
            ShortPosition::SameTerm(position.offset)
        } else {
            ShortPosition::OtherTerm(position)
        }
    }

    fn position(self, term: Term) -> Position {
        match self {
            ShortPosition::SameTerm(offset) => Position { term, offset },
            ShortPosition::OtherTerm(position) => position,
        }
    }
}

/// [`LogTip`] as it travels.
#[derive(Serialize, Deserialize)]
pub(super) struct LogTipForm {
    birth: u64,
    term: Term,
    tail: Option<ShortPosition>,
}

impl From<LogTip> for LogTipForm {
    fn from(LogTip { birth, term, tail }: LogTip) -> LogTipForm {
        LogTipForm { birth, term, tail: tail.map(|at| ShortPosition::beside(term, at)) }
    }
}

impl From<LogTipForm> for LogTip {
    fn from(LogTipForm { birth, term, tail }: LogTipForm) -> LogTip {
        LogTip { birth, term, tail: tail.map(|place| place.position(term)) }
    }
}

/// [`Started`] as it travels.
#[derive(Serialize, Deserialize)]
pub(super) struct StartedForm {
    term: Term,
    birth: u64,
    after: Option<ShortPosition>,
    latest: Option<ShortPosition>,
}

impl From<Started> for StartedForm {
    fn from(Started { term, after: Mark { birth, position }, latest }: Started) -> StartedForm {
        let [after, latest] = [position, latest].map(|at| at.map(|at| ShortPosition::beside(term, at)));
        StartedForm { term, birth, after, latest }
    }
}

impl From<StartedForm> for Started {
    fn from(StartedForm { term, birth, after, latest }: StartedForm) -> Started {
        let [position, latest] = [after, latest].map(|place| place.map(|place| place.position(term)));
        Started { term, after: Mark { birth, position }, latest }
    }
}

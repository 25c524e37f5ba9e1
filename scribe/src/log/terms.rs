//! Which term each offset of a log belongs to. Offsets go on over terms, so a term is kept once, not with each entry.

use serde::{Deserialize, Serialize};

use crate::message::{Position, Term};

/// The terms of a stretch of one log, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    spans: Vec<Span>,
}

/// Where a term begins; it goes on to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    /// The first offset that is known to be of it.
    pub from: u64,
    pub term: Term,
}

impl Terms {
    /// Notes an entry behind all others. Entries beyond it were on another branch.
    pub(crate) fn note(&mut self, at: Position) {
        self.cut(at.offset);
        if self.spans.last().is_none_or(|last| last.term != at.term) {
            // Most logs have one term, and nodes have many logs.
            self.spans.reserve_exact(1);
            self.spans.push(Span { from: at.offset, term: at.term });
        }
    }

    /// Forgets what lies at an offset and beyond.
    pub(crate) fn cut(&mut self, offset: u64) {
        let keep = self.spans.partition_point(|span| span.from < offset);
        self.spans.truncate(keep);
    }

    /// Forgets what lies before an offset.
    pub(crate) fn forget_before(&mut self, offset: u64) {
        let gone = self.spans.partition_point(|span| span.from <= offset).saturating_sub(1);
        self.spans.drain(..gone);
        if let Some(first) = self.spans.first_mut() {
            first.from = first.from.max(offset);
        }
    }

    /// Forgets all but the last `limit` terms.
    pub(crate) fn bound(&mut self, limit: usize) {
        self.spans.drain(..self.spans.len().saturating_sub(limit));
    }

    /// The position with this offset, if its term is known.
    pub(crate) fn position(&self, offset: u64) -> Option<Position> {
        let behind = self.spans.partition_point(|span| span.from <= offset);
        let Span { term, .. } = self.spans.get(behind.checked_sub(1)?)?;
        Some(Position { term: *term, offset })
    }

    /// Where the first term above this one begins.
    pub(crate) fn above(&self, term: Term) -> Option<u64> {
        self.spans.get(self.spans.partition_point(|span| span.term <= term)).map(|span| span.from)
    }

    /// The terms and where they begin.
    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Heap bytes.
    pub(crate) fn weight(&self) -> usize {
        self.spans.capacity() * size_of::<Span>()
    }
}

impl FromIterator<Span> for Terms {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Terms {
        let mut terms = Terms::default();
        spans.into_iter().for_each(|Span { from, term }| terms.note(Position { term, offset: from }));
        terms
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::NodeId;

    use super::*;

    fn term(number: u64) -> Term {
        Term { number, root: NodeId(9) }
    }

    #[test]
    fn each_offset_has_its_term() {
        let spans = [(3, 1), (7, 2), (9, 5)].map(|(from, number)| Span { from, term: term(number) });
        let mut terms: Terms = spans.into_iter().collect();
        let number = |terms: &Terms, offset| terms.position(offset).map(|at| at.term.number);
        assert_eq!(
            [2, 3, 6, 7, 8, 9, 99].map(|offset| number(&terms, offset)),
            [None, Some(1), Some(1), Some(2), Some(2), Some(5), Some(5)]
        );
        assert_eq!([0, 1, 2, 4, 5].map(|n| terms.above(term(n))), [Some(3), Some(7), Some(9), Some(9), None]);
        terms.forget_before(8);
        assert_eq!((number(&terms, 7), number(&terms, 8)), (None, Some(2)));
        terms.note(Position { term: term(6), offset: 9 });
        assert_eq!(terms.spans(), [Span { from: 8, term: term(2) }, Span { from: 9, term: term(6) }]);
        terms.bound(1);
        assert_eq!((number(&terms, 8), number(&terms, 9)), (None, Some(6)));
    }
}

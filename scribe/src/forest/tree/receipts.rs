//! Receipts that wait until their messages are committed, and, for a moment, until every member holds them.

use std::collections::VecDeque;
use std::time::Duration;

use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use crate::wire::Publish;

/// Receipts that wait, in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    waiting: VecDeque<Waiting>,
}

/// A message whose receipt waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub offset: u64,
    pub publisher: Contact,
    pub session: u64,
    pub sequence: u64,
    since: Instant,
}

impl Receipts {
    /// Lets the receipt for a message wait. Messages that are sent again come out of the order of the log.
    pub(crate) fn wait(&mut self, now: Instant, publish: &Publish, offset: u64) {
        let Publish { publisher, session, sequence, .. } = *publish;
        let new = Waiting { offset, publisher, session, sequence, since: now };
        let at = self.waiting.partition_point(|waiting| waiting.offset <= offset);
        let same = |waiting: &Waiting| {
            (waiting.offset, waiting.publisher.id(), waiting.session) == (offset, publisher.id(), session)
        };
        match at.checked_sub(1).and_then(|before| self.waiting.get_mut(before)).filter(|before| same(before)) {
            // It may be reached another way now.
            Some(known) => known.publisher = publisher,
            None => self.waiting.insert(at, new),
        }
    }

    /// Takes out a receipt that may be given: its message is committed, and all members hold it or have had the time.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        commit: u64,
        held_by_all: u64,
        patience: Duration,
    ) -> Option<Waiting> {
        let first = self.waiting.front()?;
        let due = first.offset < held_by_all || now.since(first.since) >= patience;
        if first.offset < commit && due { self.waiting.pop_front() } else { None }
    }

    /// When the first one may be given although not all members hold its message.
    pub(crate) fn due_at(&self, commit: u64, patience: Duration) -> Option<Instant> {
        self.waiting.front().filter(|first| first.offset < commit).map(|first| first.since + patience)
    }

    /// All that wait: this node is the root no more.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = Waiting> {
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

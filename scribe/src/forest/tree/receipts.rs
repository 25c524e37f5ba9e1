//! Receipts that wait until their messages are committed, and, for a moment, until every member holds them.

use std::collections::VecDeque;
use std::time::Duration;

use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use crate::wire::Publish;

/// Receipts that wait, in the order of the log.
#[derive(Debug, Default)]
pub(crate) struct Receipts {
    waiting: VecDeque<WaitingReceipt>,
}

/// A message whose receipt waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitingReceipt {
    pub offset: u64,
    pub publisher: Contact,
    pub session: u64,
    pub sequence: u64,
    pub since: Instant,
}

impl Receipts {
    /// Lets the receipt for a message wait. Messages that are sent again come out of the order of the log.
    pub(crate) fn wait(&mut self, now: Instant, publish: &Publish, offset: u64) {
        let Publish { publisher, session, sequence, .. } = *publish;
        let new = WaitingReceipt { offset, publisher, session, sequence, since: now };
        let at = self.waiting.partition_point(|waiting| waiting.offset <= offset);
        let same = |waiting: &WaitingReceipt| {
            (waiting.offset, waiting.publisher.id(), waiting.session) == (offset, publisher.id(), session)
        };
        match at.checked_sub(1).and_then(|before| self.waiting.get_mut(before)).filter(|before| same(before))
        {
            // It may be reached another way now.
            Some(known) => known.publisher = publisher,
            None => self.waiting.insert(at, new),
        }
    }

    /// Lets a receipt wait on.
    pub(crate) fn put(&mut self, waiting: WaitingReceipt) {
        let at = self.waiting.partition_point(|known| known.offset <= waiting.offset);
        self.waiting.insert(at, waiting);
    }

    /// Takes out a receipt that may be given: its message is committed, and all members hold it or have had the time.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        commit: u64,
        held_by_all: u64,
        patience: Duration,
    ) -> Option<WaitingReceipt> {
        let first = self.waiting.front()?;
        let due = first.offset < held_by_all || now.since(first.since) >= patience;
        if first.offset < commit && due { self.waiting.pop_front() } else { None }
    }

    /// When the first one may be given although not all members hold its message.
    pub(crate) fn due_at(&self, commit: u64, patience: Duration) -> Option<Instant> {
        self.waiting.front().filter(|first| first.offset < commit).map(|first| first.since + patience)
    }

    /// Lets those wait on that are still right. The publishers of the others send their messages again.
    pub(crate) fn retain(&mut self, is_right: impl Fn(&WaitingReceipt) -> bool) {
        self.waiting.retain(is_right);
    }

    /// All that wait: this node is the root no more.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = WaitingReceipt> {
        std::mem::take(&mut self.waiting).into_iter()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forest::tree::testing::{TOPIC, contact};
    use crate::wire::Signature;

    const PATIENCE: Duration = Duration::from_millis(200);

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn publish(publisher: u128, sequence: u64) -> Publish {
        Publish {
            topic: TOPIC,
            publisher: contact(publisher),
            session: 1,
            sequence,
            acknowledged: 0,
            resent: false,
            birth: None,
            signature: Signature::None,
        }
    }

    fn offsets(receipts: &mut Receipts, now: u64, commit: u64, held_by_all: u64) -> Vec<u64> {
        std::iter::from_fn(|| receipts.take(at(now), commit, held_by_all, PATIENCE))
            .map(|w| w.offset)
            .collect()
    }

    #[test]
    fn receipts_come_in_the_order_of_the_log_once_their_messages_are_committed() {
        let mut receipts = Receipts::default();
        for (sequence, offset) in [(3, 7), (1, 4), (2, 5)] {
            receipts.wait(at(0), &publish(5, sequence), offset);
        }
        assert_eq!(offsets(&mut receipts, 0, 4, 9), [] as [u64; 0]);
        assert_eq!(offsets(&mut receipts, 0, 6, 9), [4, 5]);
        assert_eq!(receipts.len(), 1);
    }

    #[test]
    fn slow_members_are_waited_for_for_a_moment() {
        let mut receipts = Receipts::default();
        receipts.wait(at(0), &publish(5, 1), 4);
        receipts.wait(at(50), &publish(5, 2), 5);
        assert_eq!(receipts.due_at(4, PATIENCE), None, "it is not committed");
        assert_eq!(receipts.due_at(9, PATIENCE), Some(at(200)));
        assert_eq!(offsets(&mut receipts, 199, 9, 4), [] as [u64; 0]);
        assert_eq!(offsets(&mut receipts, 200, 9, 4), [4]);
        assert_eq!(offsets(&mut receipts, 201, 9, 6), [5]);
    }

    #[test]
    fn a_message_that_is_sent_again_has_one_receipt_by_the_last_way() {
        let mut receipts = Receipts::default();
        receipts.wait(at(0), &publish(5, 1), 4);
        receipts.wait(at(0), &publish(5, 2), 5);
        let mut again = publish(5, 1);
        again.publisher.via = Some(contact(6).peer);
        receipts.wait(at(10), &again, 4);
        let waiting: Vec<_> = receipts.take_all().map(|w| (w.sequence, w.publisher.via.is_some())).collect();
        assert_eq!(waiting, [(1, true), (2, false)]);
        assert_eq!(receipts.len(), 0);
    }
}

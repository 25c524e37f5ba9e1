//! Where the connections' tasks put what the transport's owner is to hear: control, and data behind it, as in the queues on
//! their way here. A node that is behind with its data hears at once who lives, which hops have arrived, and who asks for a
//! lease.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::connection::Notice;
use super::transport::TransportEvent;

/// While so many bytes of payloads wait to be handled, connections read no more: the senders wait, by TCP's own means. The frames
/// of one read of each connection may come on top.
const FULL_AT: usize = 8 * 1024 * 1024;
/// Data frames that wait at the most; beyond it the oldest are dropped (guess: what a node handles within a second or two). Small
/// frames do not make the senders wait, because control would have to wait with them, behind seconds of data: leases would end,
/// and nodes that live be found dead. What was dropped is repaired by the cores' acknowledgements, as what a full queue drops
/// on its way out; the oldest, since their senders have most likely given them up.
const MOST_DATA: usize = 4096;
/// While more data frames than this wait, and until fewer than `DATA_AT_ONCE` do, this node is behind, and its machine hears so
/// (guess: some turns of the driver).
const BEHIND_FROM: usize = 1024;
/// The weight of a frame beside its payload, where it waits.
const FRAME_WEIGHT: usize = 512;
/// Data that is taken at a time: control that comes meanwhile goes before the rest.
pub(super) const DATA_AT_ONCE: usize = 256;

#[derive(Debug, Default)]
struct Waiting {
    control: Vec<Notice>,
    data: VecDeque<Notice>,
    weight: usize,
    /// The machine has heard that it is behind.
    behind: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.control.is_empty() && self.data.is_empty()
    }

    /// Drops the oldest data that is too much. Returns how many frames those are.
    fn shed(&mut self) -> u64 {
        let mut dropped = 0;
        while self.data.len() > MOST_DATA
            && let Some(oldest) = self.data.pop_front()
        {
            match oldest {
                Notice::Event(_) => {
                    self.weight -= weight(&oldest);
                    dropped += 1;
                }
                // The end of a connection: nothing that came by it is left before it.
                ended @ (Notice::Greeted(_)
                | Notice::Accepted { .. }
                | Notice::Drained { .. }
                | Notice::Ended { .. }
                | Notice::Refused { .. }) => self.control.push(ended),
            }
        }
        dropped
    }
}

/// Whether a notice goes first. The end of a connection keeps its place behind the data that came by it.
fn is_control(notice: &Notice) -> bool {
    match notice {
        Notice::Event(TransportEvent::Frame { frame, .. }) => frame.is_control(),
        Notice::Event(TransportEvent::Link(_) | TransportEvent::Queued { .. })
        | Notice::Greeted(_)
        | Notice::Accepted { .. }
        | Notice::Drained { .. }
        | Notice::Refused { .. } => true,
        Notice::Ended { .. } => false,
    }
}

fn weight(notice: &Notice) -> usize {
    match notice {
        Notice::Event(TransportEvent::Frame { frame, .. }) => frame.payload.len(),
        Notice::Event(TransportEvent::Link(_) | TransportEvent::Queued { .. })
        | Notice::Greeted(_)
        | Notice::Accepted { .. }
        | Notice::Drained { .. }
        | Notice::Ended { .. }
        | Notice::Refused { .. } => 0,
    }
}

/// Many tasks put in, one owner takes out.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    /// Data frames that were dropped, since the start.
    dropped: AtomicU64,
    arrived: Notify,
    room: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A poisoned inbox is still whole: appending either happened or did not.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts notices in, and leaves `notices` empty.
    pub(super) fn put(&self, notices: &mut Vec<Notice>) {
        if notices.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        let first = waiting.is_empty();
        for notice in notices.drain(..) {
            waiting.weight += weight(&notice);
            if is_control(&notice) {
                waiting.control.push(notice);
            } else {
                waiting.data.push_back(notice);
            }
        }
        let dropped = waiting.shed();
        drop(waiting);
        self.count_dropped(dropped);
        if first {
            self.arrived.notify_one();
        }
    }

    /// Says so at the first dropped frame, and at every doubling.
    fn count_dropped(&self, dropped: u64) {
        let before = self.dropped.fetch_add(dropped, Ordering::Relaxed);
        let total = before + dropped;
        if before.checked_ilog2() != total.checked_ilog2() {
            tracing::warn!(total, "dropped data that has come in: this node handles less than comes");
        }
    }

    /// Puts one notice in.
    pub(super) fn put_one(&self, notice: Notice) {
        self.put(&mut vec![notice]);
    }

    /// Takes all control out and some data, without waiting.
    pub(super) fn take(&self) -> Vec<Notice> {
        self.take_some(DATA_AT_ONCE)
    }

    /// Takes all out, without waiting.
    pub(super) fn take_all(&self) -> Vec<Notice> {
        self.take_some(usize::MAX)
    }

    fn take_some(&self, most: usize) -> Vec<Notice> {
        let waiting = &mut *self.lock();
        let was_full = waiting.weight >= FULL_AT;
        let mut taken = std::mem::take(&mut waiting.control);
        let some = waiting.data.len().min(most);
        taken.extend(waiting.data.drain(..some));
        waiting.weight -= taken.iter().map(weight).sum::<usize>();
        if waiting.data.is_empty() {
            // What a burst took is given back.
            waiting.data.shrink_to(DATA_AT_ONCE);
        }
        if was_full && waiting.weight < FULL_AT {
            self.room.notify_waiters();
        }
        taken
    }

    /// How much data waits, if the machine is to hear of it: much, or little again.
    pub(super) fn level(&self) -> Option<usize> {
        let waiting = &mut *self.lock();
        let behind = waiting.data.len() > if waiting.behind { DATA_AT_ONCE } else { BEHIND_FROM };
        let changed = std::mem::replace(&mut waiting.behind, behind) != behind;
        let bytes = if behind { waiting.weight + waiting.data.len() * FRAME_WEIGHT } else { 0 };
        changed.then_some(bytes)
    }

    /// Waits until there may be something to take. Cancel-safe.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    pub(super) fn is_full(&self) -> bool {
        self.lock().weight >= FULL_AT
    }

    /// Waits until the inbox is not full. Cancel-safe.
    pub(super) async fn room(&self) {
        loop {
            let mut room = pin!(self.room.notified());
            room.as_mut().enable();
            if !self.is_full() {
                return;
            }
            room.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::id::NodeId;
    use crate::peer::{Addr, Peer};
    use crate::wire::{Direct, Frame, Header};

    fn frame(header: Header, payload: impl Into<Bytes>) -> Notice {
        let from = Peer { id: NodeId(1), incarnation: 1, addr: Addr::Memory(1) };
        Notice::Event(TransportEvent::Frame { from, frame: Frame::new(header, payload.into()) })
    }

    fn data(payload: impl Into<Bytes>) -> Notice {
        frame(Header::Direct(Direct::Payload), payload)
    }

    fn ack(hop: u64) -> Notice {
        frame(Header::HopAck { hop }, Bytes::new())
    }

    #[test]
    fn control_that_came_behind_much_data_is_taken_first() {
        let inbox = Inbox::default();
        inbox.put(&mut (0..MOST_DATA).map(|_| data("x")).collect());
        inbox.put_one(ack(7));
        let first = inbox.take();
        assert!(is_control(&first[0]) && first[1..].iter().all(|notice| !is_control(notice)));
        assert_eq!(first.len(), 1 + DATA_AT_ONCE);
        inbox.put_one(ack(8));
        assert!(is_control(&inbox.take()[0]), "before the rest of the data, too");
    }

    #[test]
    fn much_makes_the_senders_wait_and_many_small_frames_are_dropped() {
        let inbox = Inbox::default();
        inbox.put(&mut (0..2 * MOST_DATA).map(|_| data("x")).collect());
        assert!(!inbox.is_full());
        inbox.put_one(Notice::Ended { connection: 1, peer: NodeId(1), quietly: false });
        inbox.put(&mut (0..2 * MOST_DATA).map(|_| data("y")).collect());
        assert!(
            inbox.level().is_some_and(|bytes| bytes > FRAME_WEIGHT * MOST_DATA / 2)
                && inbox.level().is_none()
        );
        let all = inbox.take_all();
        assert_eq!((inbox.level(), inbox.level()), (Some(0), None));
        assert!(matches!(all[0], Notice::Ended { .. }), "news of a connection are never dropped");
        assert_eq!((all.len(), inbox.dropped.load(Ordering::Relaxed)), (1 + MOST_DATA, 3 * MOST_DATA as u64));
        inbox.put(&mut (0..9).map(|_| data(vec![0; FULL_AT / 8])).collect());
        assert!(inbox.is_full());
        inbox.take_all();
        assert!(!inbox.is_full() && inbox.lock().is_empty() && inbox.lock().weight == 0);
    }
}

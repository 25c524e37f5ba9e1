//! Broadcasts of other nodes as a stream, which is bounded and says how many it has left out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures::Stream;
use treecast_overlay::id::NodeId;

use super::Scribe;

/// Most bytes of payloads that a reader's queue holds: 256 broadcasts of the largest size that ships.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A message that another node sent to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    /// The sender, as those say that passed it on: no signature proves it.
    pub origin: NodeId,
    /// The message.
    pub payload: Bytes,
    /// So many broadcasts just before this one were left out, because the reader had not read what came earlier.
    pub missed: u64,
}

/// Broadcasts of other nodes, in the order in which they came here. A node does not hear itself.
///
/// It holds at most [`Builder::queue`](super::Builder::queue) broadcasts, and 16 MiB. Beyond that the oldest are left
/// out, because the newest say best how things are; the next one that is read says
/// [how many](Broadcast::missed). As long as a reader lives, so does its node.
#[derive(Debug)]
pub struct Broadcasts {
    inbox: Arc<Inbox>,
    /// Keeps the node alive.
    _node: Scribe,
}

impl Broadcasts {
    pub(super) fn new(node: Scribe, queue: usize) -> Broadcasts {
        let inbox = Arc::new(Inbox { queue: Mutex::default(), capacity: queue });
        node.dispatch().enter_inbox(&inbox);
        Broadcasts { inbox, _node: node }
    }

    /// The next broadcast; `None` once the node has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<Broadcast> {
        std::future::poll_fn(|cx| self.inbox.poll(cx)).await
    }
}

impl Stream for Broadcasts {
    type Item = Broadcast;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Broadcast>> {
        self.inbox.poll(cx)
    }
}

/// One reader's queue. Nothing here blocks or awaits: the driver calls in.
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Queue {
    broadcasts: VecDeque<Broadcast>,
    /// Bytes of the payloads in it.
    held: usize,
    /// Left out since the last one that was read.
    missed: u64,
    closed: bool,
    reader: Option<Waker>,
}

impl Inbox {
    pub(super) fn push(&self, broadcast: Broadcast) {
        let mut queue = self.queue();
        queue.held += broadcast.payload.len();
        queue.broadcasts.push_back(broadcast);
        while queue.broadcasts.len() > self.capacity || queue.held > MAX_BYTES {
            if queue.pop().is_none() {
                break;
            }
            queue.missed += 1;
        }
        wake(queue);
    }

    /// No more will come; what is in the queue can still be read.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        wake(queue);
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Broadcast>> {
        let mut queue = self.queue();
        if let Some(mut broadcast) = queue.pop() {
            broadcast.missed = std::mem::take(&mut queue.missed);
            return Poll::Ready(Some(broadcast));
        }
        if queue.closed {
            return Poll::Ready(None);
        }
        queue.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every section under the lock is a few queue operations: a poisoned one is still whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Broadcast> {
        let broadcast = self.broadcasts.pop_front()?;
        self.held -= broadcast.payload.len();
        Some(broadcast)
    }
}

/// Wakes the reader, but not under the lock.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let reader = queue.reader.take();
    drop(queue);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn inbox(capacity: usize) -> Inbox {
        Inbox { queue: Mutex::default(), capacity }
    }

    fn push(inbox: &Inbox, number: u8, len: usize) {
        let payload = vec![number; len].into();
        inbox.push(Broadcast { origin: NodeId(1), payload, missed: 0 });
    }

    /// The first byte of the next broadcast, and how many are missing before it.
    fn next(inbox: &Inbox) -> Option<(u8, u64)> {
        let next = std::future::poll_fn(|cx| inbox.poll(cx)).now_or_never()?;
        next.map(|broadcast| (broadcast.payload[0], broadcast.missed))
    }

    #[test]
    fn a_reader_that_does_not_read_keeps_the_newest_and_is_told_what_it_missed() {
        let inbox = inbox(3);
        (1..=5).for_each(|number| push(&inbox, number, 1));
        assert_eq!((next(&inbox), next(&inbox)), (Some((3, 2)), Some((4, 0))));
        (6..=8).for_each(|number| push(&inbox, number, 1));
        assert_eq!((next(&inbox), next(&inbox)), (Some((6, 1)), Some((7, 0))));
        assert_eq!((next(&inbox), next(&inbox)), (Some((8, 0)), None));
    }

    #[test]
    fn a_queue_holds_so_many_bytes_and_no_more() {
        let inbox = inbox(100);
        (1..=5).for_each(|number| push(&inbox, number, MAX_BYTES / 4));
        assert_eq!(next(&inbox), Some((2, 1)));
        push(&inbox, 6, MAX_BYTES + 1);
        push(&inbox, 7, 1);
        assert_eq!(next(&inbox), Some((7, 4)));
    }

    #[test]
    fn a_closed_queue_gives_what_it_holds_and_then_ends() {
        let inbox = inbox(3);
        push(&inbox, 1, 1);
        inbox.close();
        assert_eq!(next(&inbox), Some((1, 0)));
        assert_eq!(std::future::poll_fn(|cx| inbox.poll(cx)).now_or_never(), Some(None));
    }
}

//! Where the connections' tasks put what the transport's owner is to hear.

use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::connection::Notice;

/// While so many bytes wait to be handled, connections read no more: the senders wait, by TCP's own means. The frames
/// of one read of each connection may come on top.
const FULL_AT: usize = 8 * 1024 * 1024;
/// The weight of a notice, beside a frame's bytes.
const NOTICE_WEIGHT: usize = 512;

#[derive(Debug, Default)]
struct Waiting {
    notices: Vec<Notice>,
    weight: usize,
}

/// Many tasks put in, one owner takes out.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    room: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A poisoned inbox is still whole: appending either happened or did not.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts notices in, which carry `bytes` of frames, and leaves `notices` empty.
    pub(super) fn put(&self, notices: &mut Vec<Notice>, bytes: usize) {
        if notices.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        waiting.weight += bytes + notices.len() * NOTICE_WEIGHT;
        // Notices are large: the usual case moves none of them.
        let first = waiting.notices.is_empty();
        if first {
            std::mem::swap(&mut waiting.notices, notices);
        } else {
            waiting.notices.append(notices);
        }
        drop(waiting);
        if first {
            self.arrived.notify_one();
        }
    }

    /// Puts one notice in.
    pub(super) fn put_one(&self, notice: Notice) {
        self.put(&mut vec![notice], 0);
    }

    /// Takes all out, without waiting.
    pub(super) fn take(&self) -> Vec<Notice> {
        let taken = std::mem::take(&mut *self.lock());
        if taken.weight >= FULL_AT {
            self.room.notify_waiters();
        }
        taken.notices
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

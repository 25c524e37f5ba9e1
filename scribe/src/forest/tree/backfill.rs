//! Subscribers that need entries older than this node's window: they are pulled from the parent, then from the root, on
//! the subscribers' account. Entries that nobody keeps are a gap.

use std::time::Duration;

use treecast_overlay::peer::Contact;
use treecast_overlay::time::Instant;

use super::Tree;
use crate::forest::context::{TreeCx, TreeTimer};
use crate::log::backlog::Backlog;
use crate::log::early::Arrived;
use crate::wire::{Header, Pull};

/// Entries that are asked for at once.
const AT_ONCE: u64 = 256;
/// Bytes of pulled entries from which on no more are asked for until subscribers took some.
const ENOUGH: usize = 1 << 20;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// Answers that do not come, in a row, until what is asked for is given up.
const TRIES: u8 = 40;

/// The entries that are pulled for subscribers.
#[derive(Debug, Default)]
pub(crate) struct Backfill {
    pub backlog: Backlog,
    request: Option<PullRequest>,
    /// The parent has not what is needed: the root is asked.
    asks_root: bool,
    tries: u8,
}

#[derive(Clone, Copy, Debug)]
struct PullRequest {
    number: u64,
    next: u64,
    until: u64,
    again_at: Instant,
}

impl Tree {
    /// Sees to it that subscribers which need older entries get them.
    pub(super) fn review_backfill(&mut self, cx: &mut TreeCx<'_>) {
        let Some((next, start)) = self.flow.lacking() else {
            if self.flow.backfill.take().is_some() {
                cx.timers.cancel(TreeTimer::Backfill);
            }
            return;
        };
        let source = self.backfill_source(cx);
        let may_come = self.flow.awaits_older();
        let backfill = self.flow.backfill.get_or_insert_default();
        backfill.backlog.forget_before(next);
        let Some(source) = source else {
            // Nobody above has more.
            if may_come {
                cx.timers.set_earlier(TreeTimer::Backfill, cx.now + PATIENCE);
            } else if self.role.is_root() {
                backfill.backlog.set_gone_before(start);
                self.flow.deliver(cx);
            } else {
                // It is asked for when there is a parent again, or the root is known.
                cx.timers.set_earlier(TreeTimer::Backfill, cx.now + PATIENCE);
            }
            return;
        };
        let held = (next..start).find(|offset| backfill.backlog.entry(*offset).is_none()).unwrap_or(start);
        if backfill.request.is_some() || held >= start || backfill.backlog.bytes() >= ENOUGH {
            return;
        }
        self.ask_for(cx, source, held, start.min(held + AT_ONCE));
    }

    fn backfill_source(&self, cx: &TreeCx<'_>) -> Option<Contact> {
        let parent = self.role.parent().and_then(|parent| cx.neighbours.contact(parent));
        let asks_root = self.flow.backfill.as_ref().is_some_and(|backfill| backfill.asks_root);
        if asks_root { self.role.told_root().map(Contact::from) } else { parent }
    }

    fn ask_for(&mut self, cx: &mut TreeCx<'_>, source: Contact, next: u64, until: u64) {
        let (Some(backfill), Some(log)) = (&mut self.flow.backfill, self.flow.log.part()) else { return };
        let number = cx.numbers.next_join();
        let again_at = cx.now + PATIENCE;
        backfill.request = Some(PullRequest { number, next, until, again_at });
        cx.timers.set(TreeTimer::Backfill, again_at);
        let pull = Pull { topic: cx.topic, number, birth: log.birth, from: next, until, term: None };
        cx.tell(source, &Header::Pull(pull));
    }

    /// An entry came for subscribers. Returns whether it was asked for.
    pub(super) fn on_backfill(&mut self, cx: &mut TreeCx<'_>, number: u64, entry: &Arrived) -> bool {
        let Some(backfill) = &mut self.flow.backfill else { return false };
        let Some(request) = backfill.request.as_mut().filter(|request| request.number == number) else {
            return false;
        };
        if request.next == entry.offset {
            request.next += 1;
            backfill.tries = 0;
            backfill.backlog.push(entry.offset, entry.held.clone());
            if request.next >= request.until {
                backfill.request = None;
            }
            self.flow.deliver(cx);
            self.review_backfill(cx);
        }
        true
    }

    /// A node has not what was asked for; `start`: where its window begins. Returns whether it was asked for subscribers.
    pub(super) fn on_no_backfill(&mut self, cx: &mut TreeCx<'_>, number: u64, start: Option<u64>) -> bool {
        let Some(backfill) = &mut self.flow.backfill else { return false };
        let Some(request) = backfill.request.filter(|request| request.number == number) else { return false };
        backfill.request = None;
        if backfill.asks_root {
            self.give_up_history(cx, start.unwrap_or(u64::MAX).max(request.next + 1));
        } else {
            backfill.asks_root = true;
        }
        self.review_backfill(cx);
        true
    }

    /// No node that can be asked has what lies before an offset.
    fn give_up_history(&mut self, cx: &mut TreeCx<'_>, start: u64) {
        let first = self.flow.log.part().map_or(0, |log| log.window.start());
        if let Some(backfill) = &mut self.flow.backfill {
            backfill.backlog.set_gone_before(start.min(first));
        }
        self.flow.deliver(cx);
    }

    /// An answer has not come.
    pub(super) fn on_backfill_timer(&mut self, cx: &mut TreeCx<'_>) {
        let Some(backfill) = &mut self.flow.backfill else { return };
        let request = backfill.request.filter(|request| request.again_at <= cx.now);
        if backfill.request.is_some() && request.is_none() {
            return;
        }
        backfill.request = None;
        backfill.tries += 1;
        if backfill.tries >= TRIES {
            backfill.tries = 0;
            let first = self.flow.log.part().map_or(0, |log| log.window.start());
            self.give_up_history(cx, first);
        } else if let (Some(source), Some(request)) = (self.backfill_source(cx), request) {
            return self.ask_for(cx, source, request.next, request.until);
        }
        self.review_backfill(cx);
    }
}

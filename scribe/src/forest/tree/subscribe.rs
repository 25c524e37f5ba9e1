//! This node's own subscribers come and go.

use super::Tree;
use crate::event::SubscriptionId;
use crate::forest::context::{TreeCx, TreeTimer};
use crate::message::Start;

impl Tree {
    /// Adds a subscriber. `new`: the tree was made for it.
    pub(crate) fn subscribe(
        &mut self,
        cx: &mut TreeCx<'_>,
        id: SubscriptionId,
        start: Start,
        credit: u32,
        new: bool,
    ) {
        let before = self.flow.start_wanted();
        self.flow.readers.add(id, start, credit);
        cx.timers.cancel(TreeTimer::Linger);
        cx.timers.set(TreeTimer::Start(id), cx.now + cx.config.tree.subscribe_timeout);
        if new {
            self.seek(cx);
        } else {
            self.review_start(cx, before);
        }
        self.start_readers(cx, 0);
        self.note_subscribers(cx);
        self.review_shape(cx);
    }

    /// A subscriber takes so many items more.
    pub(crate) fn add_credit(&mut self, cx: &mut TreeCx<'_>, id: SubscriptionId, items: u32) {
        self.flow.readers.add_credit(id, items);
        self.flow.deliver(cx);
        self.review_backfill(cx);
        self.review_pace(cx);
    }

    /// Lets a subscriber go.
    pub(crate) fn unsubscribe(&mut self, cx: &mut TreeCx<'_>, id: SubscriptionId) {
        cx.timers.cancel(TreeTimer::Start(id));
        self.flow.readers.remove(id);
        self.note_subscribers(cx);
        self.review_need(cx);
        self.review_shape(cx);
        self.review_pace(cx);
    }

    /// Lets all subscribers go, because the node leaves: what they have to say goodbye to follows.
    pub(crate) fn drop_subscribers(&mut self, cx: &TreeCx<'_>) {
        self.flow.readers.clear();
        self.count_own(cx);
    }
}

//! Lookups: who is the root of a key? Repeated end to end until it is answered or given up (promise O4), and traced
//! if asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::route::Hop;
use super::{Node, Timer};
use crate::id::Key;
use crate::kbr::{Event, Found, KeyBasedRouting};
use crate::memory;
use crate::time::Instant;
use crate::wire::{Answer, Purpose, RouteFailure, Routed};

/// Most lookups under way; a further one is `NotFound` (`Overloaded`) at once.
const MAX_LOOKUPS: usize = 4096;
/// How long an answer is waited for before the question is asked again.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a question is repeated before it is given up (promise O4).
const LIMIT: Duration = Duration::from_secs(60);

/// Lookups under way, by the number that their routed messages bear.
#[derive(Clone, Debug, Default)]
pub(super) struct Lookups {
    open: BTreeMap<u64, Lookup>,
}

#[derive(Clone, Debug)]
struct Lookup {
    token: u64,
    key: Key,
    trace: bool,
    started: Instant,
    /// How often it was asked.
    asked: u32,
    failure: Option<RouteFailure>,
}

impl Lookups {
    pub(super) fn contains(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Gives back what a burst has taken.
    pub(super) fn tidy(&mut self) {
        if self.open.is_empty() {
            self.open = BTreeMap::new();
        }
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        memory::tree(self.open.len(), size_of::<(u64, Lookup)>())
    }

    pub(super) const fn limit() -> usize {
        MAX_LOOKUPS
    }
}

impl Node {
    pub(super) fn look_up(&mut self, now: Instant, token: u64, key: Key, trace: bool) {
        if self.lookups.open.len() >= MAX_LOOKUPS {
            return self.events.push_back(Event::NotFound { token, reason: Some(RouteFailure::Overloaded) });
        }
        let id = self.number();
        self.lookups.open.insert(id, Lookup { token, key, trace, started: now, asked: 0, failure: None });
        self.ask_for_root(now, id);
    }

    fn ask_for_root(&mut self, now: Instant, id: u64) {
        let Some(lookup) = self.lookups.open.get_mut(&id) else { return };
        lookup.asked += 1;
        let (key, trace, times) = (lookup.key, lookup.trace, lookup.asked);
        let mut routed = self.new_routed(id, key, Purpose::Lookup, trace);
        // Perhaps it was answered, and only the way back is broken: every second answer is to come another way.
        if times.is_multiple_of(2) {
            routed.origin = self.roundabout(id.wrapping_add(u64::from(times) / 2));
        }
        self.deadlines.set(Timer::Lookup(id), now + PATIENCE);
        self.hedge(now, &routed);
        self.pass_on(now, routed, Bytes::new(), None);
    }

    /// A question whose first hop may well be dead goes another way, too: whoever comes first is answered first (Dean &
    /// Barroso 2013, "The Tail at Scale", hedged requests).
    fn hedge(&mut self, now: Instant, routed: &Routed) {
        if self.is_edge() {
            return;
        }
        let Hop::To { peer: first, by_leaf_set: false } = self.next_hop(routed, &[]) else { return };
        if !self.is_doubtful(now, &first) {
            return;
        }
        if let Hop::To { peer, by_leaf_set } = self.next_hop(routed, &[first.id]) {
            self.send_hop(now, peer, by_leaf_set, routed.clone(), Bytes::new());
        }
    }

    pub(super) fn on_lookup_timer(&mut self, now: Instant, id: u64) {
        let Some(lookup) = self.lookups.open.get(&id) else { return };
        if now - lookup.started < LIMIT {
            return self.ask_for_root(now, id);
        }
        let event = Event::NotFound { token: lookup.token, reason: lookup.failure };
        self.lookups.open.remove(&id);
        self.events.push_back(event);
    }

    /// The question stopped on its way; it is asked again when its time comes.
    pub(super) fn on_lookup_failed(&mut self, id: u64, reason: RouteFailure) {
        if let Some(lookup) = self.lookups.open.get_mut(&id) {
            lookup.failure = Some(reason);
        }
    }

    pub(super) fn on_found(&mut self, now: Instant, answer: Answer) {
        let Some(lookup) = self.lookups.open.remove(&answer.id) else { return };
        self.deadlines.cancel(Timer::Lookup(answer.id));
        let Answer { root, hops, trace: path, .. } = answer;
        let found = Found { root, hops, took: now - lookup.started, path };
        self.events.push_back(Event::Found { token: lookup.token, found });
    }
}

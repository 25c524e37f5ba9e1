//! Lookups: which node is the root of a key? Repeated end to end until it is answered or given up (promise O4), and traced
//! if asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::Key;
use crate::kbr::{Event, Found};
use crate::memory;
use crate::ring::core::{Core, Timer};
use crate::ring::invariants::Size;
use crate::time::Instant;
use crate::wire::{Answer, RouteFailure};

/// Most lookups under way; a further one is `NotFound` (`Overloaded`) at once.
const MAX_LOOKUPS: usize = 4096;
/// How long an answer is waited for before the question is asked again.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a question is repeated before it is given up (promise O4).
const LIMIT: Duration = Duration::from_secs(60);

/// Lookups under way, by the number that their routed messages bear.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookups {
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

/// A question to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookupAttempt {
    pub(crate) id: u64,
    pub(crate) key: Key,
    pub(crate) trace: bool,
    /// How the answer is to come another way than the direct one. Perhaps the question before was answered, and only the way
    /// back is broken: so every second answer does.
    pub(crate) reply_way: Option<u64>,
}

impl Lookups {
    /// Begins a lookup, if there is room.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        core: &mut Core,
        token: u64,
        key: Key,
        trace: bool,
    ) -> Option<LookupAttempt> {
        if self.open.len() >= MAX_LOOKUPS {
            core.emit(Event::NotFound { token, reason: Some(RouteFailure::Overloaded) });
            return None;
        }
        let id = core.number();
        self.open.insert(id, Lookup { token, key, trace, started: now, asked: 0, failure: None });
        self.ask(now, core, id)
    }

    fn ask(&mut self, now: Instant, core: &mut Core, id: u64) -> Option<LookupAttempt> {
        let lookup = self.open.get_mut(&id)?;
        lookup.asked += 1;
        let times = lookup.asked;
        core.timers.set(Timer::Lookup(id), now + PATIENCE);
        let reply_way = times.is_multiple_of(2).then(|| id.wrapping_add(u64::from(times) / 2));
        Some(LookupAttempt { id, key: lookup.key, trace: lookup.trace, reply_way })
    }

    /// No answer came: asks again, or gives up.
    pub(crate) fn on_timer(&mut self, now: Instant, core: &mut Core, id: u64) -> Option<LookupAttempt> {
        let lookup = self.open.get(&id)?;
        if now - lookup.started < LIMIT {
            return self.ask(now, core, id);
        }
        core.emit(Event::NotFound { token: lookup.token, reason: lookup.failure });
        self.open.remove(&id);
        None
    }

    /// The question stopped on its way, if it was one; it is asked again when its time comes.
    pub(crate) fn on_failed(&mut self, id: u64, reason: RouteFailure) -> bool {
        let lookup = self.open.get_mut(&id);
        lookup.map(|lookup| lookup.failure = Some(reason)).is_some()
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.open.contains_key(&id)
    }

    /// The root has answered.
    pub(crate) fn on_answer(&mut self, now: Instant, core: &mut Core, answer: Answer) {
        let Some(lookup) = self.open.remove(&answer.id) else { return };
        core.timers.cancel(Timer::Lookup(answer.id));
        let Answer { root, hops, trace: path, .. } = answer;
        let found = Found { root, hops, took: now - lookup.started, path };
        core.emit(Event::Found { token: lookup.token, found });
    }

    /// Gives back what a burst has taken.
    pub(crate) fn tidy(&mut self) {
        if self.open.is_empty() {
            self.open = BTreeMap::new();
        }
    }

    /// Bytes on the heap.
    pub(crate) fn bytes(&self) -> usize {
        memory::tree(self.open.len(), size_of::<(u64, Lookup)>())
    }

    /// How many are under way (promise O5).
    pub(crate) fn size(&self) -> Size {
        ("pending lookups", self.open.len(), MAX_LOOKUPS)
    }
}

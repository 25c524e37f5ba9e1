//! How time passes in a cluster: in slices under the judges, after each of which the applications fetch what has come; or
//! from one event to the next, where only lookups are judged.

use std::time::Duration;

use rand::RngExt;
use treecast_overlay::id::Key;
use treecast_overlay::time::Instant;
use treecast_overlay::wire::NodeState;

use super::Cluster;
use crate::check::{self, Breach, Promise, Verdict, When};
use crate::node::RingNode;
use crate::world::Shared;

/// How often the promises are judged that hold at any instant, unless told otherwise.
pub(super) const SLICE: Duration = Duration::from_millis(50);
/// How often what costs more is judged.
const SECOND: Duration = Duration::from_secs(1);
/// How often all that ever happened is judged.
const ROUND: Duration = Duration::from_secs(5);
/// Random keys, besides all borders, for which the answering nodes are asked for.
const KEYS: usize = 2;

impl<N: RingNode> Cluster<N> {
    /// Lets time pass; the applications fetch what comes. Panics at a broken promise.
    pub fn run(&mut self, time: Duration) {
        self.advance(time).unwrap_or_else(|breach| panic!("{breach}"));
    }

    /// Lets time pass; the applications fetch what comes. Says which promise is broken, if one is: of those that hold
    /// whatever happens.
    pub fn advance(&mut self, time: Duration) -> Verdict {
        let end = self.now() + time;
        while self.now() < end {
            self.pass(self.slice.min(end - self.now()))?;
            self.fetch()?;
            self.judge_always()?;
        }
        Ok(())
    }

    /// Lets time pass until `done`, and says how long that took; with its last word if time is up.
    pub fn advance_until(
        &mut self,
        limit: Duration,
        mut done: impl FnMut(&Cluster<N>) -> Verdict,
    ) -> Result<Duration, Breach> {
        let begin = self.now();
        loop {
            match done(self) {
                Ok(()) => return Ok(self.now() - begin),
                Err(Breach { promise, what }) if self.now() - begin >= limit => {
                    return Err(promise.broken(format!("within {limit:?}: {what}")));
                }
                Err(_) => self.advance(SLICE * 2)?,
            }
        }
    }

    /// Lets time pass until `done`, and says how long that took. Panics with its last word when time is up.
    pub fn run_until(&mut self, limit: Duration, done: impl FnMut(&Cluster<N>) -> Verdict) -> Duration {
        self.advance_until(limit, done).unwrap_or_else(|breach| panic!("{breach}"))
    }

    /// Lets time pass until then, of a cluster that is measured.
    pub fn run_to(&mut self, at: Instant) {
        loop {
            let (rest, passages) = (at - self.now(), Shared::clone(&self.passages));
            let quiet = self
                .world
                .run_until(rest, |world| world.has_events() || !passages.borrow().decisions.is_empty())
                .is_err();
            self.catch_up();
            if quiet {
                break;
            }
        }
        self.give_up_lookups();
    }

    /// Takes note of what happened at this instant, of a cluster that is measured. The roster comes first: a node that
    /// just got onto the ring may be the better root.
    pub(super) fn catch_up(&mut self) {
        let verdict = self.fetch().and_then(|()| self.judge_decisions());
        debug_assert_eq!(verdict, Ok(()), "wrong answers are counted, and nobody subscribes");
    }

    /// Answers are judged at their own instant, in the state that the answering node was left in.
    fn pass(&mut self, time: Duration) -> Verdict {
        std::mem::replace(&mut self.unheard, Ok(()))?;
        let end = self.now() + time;
        loop {
            let (rest, passages) = (end - self.now(), Shared::clone(&self.passages));
            let stopped = self.world.run_until(rest, |_| !passages.borrow().decisions.is_empty());
            self.judge_decisions()?;
            if stopped.is_err() {
                return Ok(());
            }
        }
    }

    fn judge_always(&mut self) -> Verdict {
        let now = self.now();
        let keys: Vec<Key> = (0..KEYS).map(|_| Key(self.dice.random())).collect();
        self.judge(&keys, |scene| check::ask(When::Always, scene))?;
        let by_table = self.witness.borrow().hops.iter().filter(|hop| !hop.by_leaf_set).count() as u64;
        self.count("hop by the routing table", by_table);
        self.witness.borrow_mut().forget_judged();
        self.notice_demotions();
        let (second, round) = self.inspected;
        if now - second >= SECOND {
            self.inspected.0 = now;
            self.notice();
            self.judge(&[], |scene| check::ask(When::EachSecond, scene))?;
        }
        if now - round >= ROUND {
            self.inspected.1 = now;
            self.review()?;
        }
        Ok(())
    }

    // Waiting for something.

    /// So many nodes on the ring, all through the first, and waits until they are there.
    pub fn grow(&mut self, count: usize, within: Duration) {
        self.add(&[]);
        self.run(Duration::from_millis(500));
        for _ in 1..count {
            self.add(&[0]);
            self.run(within / count as u32);
        }
        self.await_ready();
    }

    /// Waits until every node is on the ring, or hangs on it.
    pub fn await_ready(&mut self) {
        self.run_until(Duration::from_secs(60), Cluster::is_started);
        assert!(self.failed_starts.is_empty(), "{:?}", self.failed_starts);
    }

    /// Whether every node is on the ring, or hangs on it, or has given up.
    pub fn is_started(&self) -> Verdict {
        let starts =
            |(_, node_state): &(usize, NodeState)| !matches!(node_state, NodeState::Ready | NodeState::Edge);
        match self.stacks().map(|(slot, stack)| (slot, stack.ring().node_state())).find(starts) {
            Some((slot, node_state)) => {
                let id = self.id(slot);
                Err(Promise::O3.broken(format!("slot {slot} ({id:?}) is {node_state:?}")))
            }
            None => Ok(()),
        }
    }

    /// Waits until trees are whole and everything is delivered, and judges. Says how long it took. Panics if it does not
    /// come to that, or at a broken promise.
    pub fn run_until_delivered(&mut self, limit: Duration) -> Duration {
        let took = self.run_until(limit, |cluster| {
            cluster.is_attached()?;
            cluster.is_delivered()
        });
        self.review().unwrap_or_else(|breach| panic!("{breach}"));
        took
    }

    /// From now on all is well: what is published comes without delay.
    pub fn begin_calm(&mut self) {
        self.calm = Some(self.now());
    }

    /// Nobody does anything for so long; says whether the upkeep is as cheap as promised (S7).
    pub fn rest(&mut self, time: Duration) -> Verdict {
        let now = self.now();
        self.witness.borrow_mut().begin_rest(now);
        self.advance(time)?;
        let verdict = self.judge(&[], |scene| check::ask(When::AtRest, scene));
        self.witness.borrow_mut().rest = Default::default();
        verdict
    }
}

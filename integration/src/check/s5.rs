//! S5, definite start, and that nothing is dropped silently: whatever got a place after a subscription's start came to
//! it, or lies in a gap that was announced to it; and no gap is announced that nobody owes.

use std::collections::{BTreeMap, BTreeSet};

use treecast_scribe::event::SubscriptionId;
use treecast_scribe::message::MessageId;
use treecast_scribe::{Gap, GapReason, Item, Mark, Position, Receipt, TopicId};

use super::{Promise, Scene, Verdict};
use crate::cluster::history::{History, Offered, Watched};
use crate::cluster::ledger::Ledger;

/// The births of the logs that the topics' roots have now.
pub type Current = BTreeMap<TopicId, u64>;

/// What a window holds at most: messages and bytes.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Messages.
    pub messages: u64,
    /// Bytes.
    pub bytes: usize,
}

/// Judges all subscriptions: each has started, or come to nothing.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    let waiting = |watched: &&Watched| watched.mark.is_none() && watched.ended.is_none();
    if let Some(watched) = scene.history.subscriptions.values().find(waiting) {
        let (slot, asked) = (watched.slot, watched.asked);
        return Err(Promise::S5
            .broken(format!("the subscription of slot {slot}, asked for at {asked}, has not started")));
    }
    let current = current(scene);
    announced(scene.history, &scene.witness.ledger, &current).map_err(|what| Promise::S5.broken(what))
}

/// Judges the gaps that were announced.
pub fn judge_gaps(scene: &Scene<'_>) -> Verdict {
    let retention = retention(scene);
    match undue(scene.history, &scene.witness.ledger, retention).into_iter().next() {
        Some(what) => Err(Promise::S5.broken(what)),
        None => Ok(()),
    }
}

/// What a window holds at most, as the world was told.
fn retention(scene: &Scene<'_>) -> Retention {
    let limit = |name| scene.limits.get(name).copied().unwrap_or(usize::MAX);
    Retention { messages: limit("messages in one window") as u64, bytes: limit("bytes in one window") }
}

/// Gaps that nobody owed.
pub fn unforced_gaps(scene: &Scene<'_>) -> u64 {
    undue(scene.history, &scene.witness.ledger, retention(scene)).len() as u64
}

fn current(scene: &Scene<'_>) -> Current {
    let places = scene.forests().flat_map(|(_, forest)| forest.places());
    places.filter(|place| place.is_root()).filter_map(|place| Some((place.topic(), place.birth()?))).collect()
}

/// Judges every subscription that has started; those that are still there also by the log's very end.
pub fn announced(history: &History, ledger: &Ledger, current: &Current) -> Result<(), String> {
    let logs = Logs::of(history);
    for (&id, watched) in &history.subscriptions {
        if let Some(seen) = Followed::of(watched) {
            seen.judge(id, watched, &logs, ledger, current.get(&watched.topic).copied())?;
        }
    }
    Ok(())
}

/// Publications with a receipt from a birth that no lasting subscriber of their topic ever read: where a ring falls
/// apart, each part has one. (They are merged one day; today they are lost with the part that gives way.)
pub fn astray(history: &History, ledger: &Ledger) -> u64 {
    let astray = |offered: &&Offered| {
        let Some((_, Ok(receipt))) = offered.outcome else { return false };
        let mut lasting =
            history.lasting(offered.topic).filter_map(|(_, watched)| Followed::of(watched)).peekable();
        let reads = |seen: &Followed| {
            seen.births.iter().any(|&birth| ledger.has(offered.topic, birth, receipt.position))
        };
        lasting.peek().is_some() && !lasting.any(|seen| reads(&seen))
    };
    history.publications.values().filter(astray).count() as u64
}

/// Knowledge of the topics' logs: everything that anybody got, or has a receipt for.
struct Logs<'a> {
    /// By topic: what stands where.
    places: BTreeMap<TopicId, BTreeMap<Position, MessageId>>,
    kept: BTreeMap<TopicId, Vec<(&'a Offered, Receipt)>>,
}

impl<'a> Logs<'a> {
    fn of(history: &'a History) -> Logs<'a> {
        let mut logs = Logs { places: BTreeMap::new(), kept: BTreeMap::new() };
        for watched in history.subscriptions.values() {
            let topic = logs.places.entry(watched.topic).or_default();
            topic.extend(watched.messages().map(|(_, message)| (message.position, message.id)));
        }
        for offered in history.publications.values() {
            let Some((_, Ok(receipt))) = &offered.outcome else { continue };
            logs.kept.entry(offered.topic).or_default().push((offered, *receipt));
        }
        logs
    }
}

/// All that one subscription has seen.
struct Followed {
    start: Mark,
    /// The births that it read, or heard of.
    births: BTreeSet<u64>,
    messages: BTreeSet<MessageId>,
    /// Each with the birth that it read, or heard of, before.
    gaps: Vec<(u64, Gap)>,
    /// How far it has come in the log that it read last.
    last: Mark,
}

impl Followed {
    fn of(watched: &Watched) -> Option<Followed> {
        let (_, start) = watched.mark?;
        let mut seen = Followed {
            start,
            births: [start.birth].into(),
            messages: BTreeSet::new(),
            gaps: Vec::new(),
            last: start,
        };
        for (_, item) in &watched.items {
            match item {
                Item::ParentChanged(_) => {}
                Item::Gap(gap) => {
                    seen.gaps.push((seen.last.birth, *gap));
                    seen.births.extend(gap.after.map(|after| after.birth));
                    seen.births.insert(gap.until.birth);
                    seen.last = Mark { birth: gap.until.birth, next: gap.until.offset };
                }
                Item::Message(message) => {
                    seen.births.insert(message.position.birth);
                    seen.messages.insert(message.id);
                    seen.last = message.mark;
                }
            }
        }
        Some(seen)
    }

    /// `current`: the birth of the log that its root has now.
    fn judge(
        &self,
        id: SubscriptionId,
        watched: &Watched,
        logs: &Logs<'_>,
        ledger: &Ledger,
        current: Option<u64>,
    ) -> Result<(), String> {
        let topic = watched.topic;
        let missing = |what: String| {
            Err(format!("{id:?} in slot {} neither got nor heard of {what} of {topic:?}", watched.slot))
        };
        let to_the_end = watched.ended.is_none() && !watched.stalled;
        let now = current.filter(|_| to_the_end).unwrap_or(self.last.birth);
        // Of the log that it reads now: all that is not before its start. Of those that it has left: all up to there.
        let reads = |at: Position| ledger.has(topic, now, at) || self.births.contains(&at.birth);
        for (&at, &message) in logs.places.get(&topic).into_iter().flatten() {
            let reached = to_the_end || at.offset < self.last.next && self.heard_of(topic, at, ledger);
            let own = reads(at) && self.begins_before(topic, at, ledger);
            if own && reached && !self.has(topic, at, message, ledger) {
                return missing(format!("{at:#}, which others got"));
            }
        }
        if !to_the_end {
            return Ok(());
        }
        let start = watched.mark.map(|(at, _)| at);
        for (offered, receipt) in logs.kept.get(&topic).into_iter().flatten() {
            // Published when the start was known already: it is after the start, or lost with its birth. A birth that this
            // subscription never read is none of its.
            let at = receipt.position;
            if Some(offered.at) > start && reads(at) && !self.has(topic, at, receipt.id, ledger) {
                return missing(format!("{at:#}, published at {} and acknowledged", offered.at));
            }
        }
        Ok(())
    }

    /// Whether a subscription that has ended could know of a place before the end of what it read: it is in its last log, or
    /// that log says that it lacks something. The other side of a divided ring may have gone on without it.
    fn heard_of(&self, topic: TopicId, at: Position, ledger: &Ledger) -> bool {
        let last = self.last.birth;
        ledger.has(topic, last, at) || ledger.is_complete(topic, at.birth, last) != Some(true)
    }

    /// Whether a place is behind the start.
    fn begins_before(&self, topic: TopicId, at: Position, ledger: &Ledger) -> bool {
        at.offset >= self.start.next
            && (at.birth == self.start.birth || {
                // A birth beside that of the start may have begun, and ended, before.
                let later = ledger.birth(topic, at.birth);
                later.is_some_and(|known| known.lineage.taken_over(self.start.birth).is_some())
            })
    }

    /// Whether it got this message, or heard that it would not.
    fn has(&self, topic: TopicId, at: Position, id: MessageId, ledger: &Ledger) -> bool {
        self.messages.contains(&id)
            || self.gaps.iter().any(|(from, gap)| covers(*from, gap, topic, at, ledger))
    }
}

/// Whether a gap tells of a place. `from`: the birth that the subscription was in.
fn covers(from: u64, gap: &Gap, topic: TopicId, at: Position, ledger: &Ledger) -> bool {
    let within = gap.after.is_none_or(|after| after.offset < at.offset) && at.offset < gap.until.offset;
    match gap.reason {
        GapReason::TooOld => within && ledger.has(topic, gap.until.birth, at),
        // What the other birth did not take over is lost.
        GapReason::Unreplicated | GapReason::OtherLog => {
            let follows = ledger
                .birth(topic, at.birth)
                .is_some_and(|known| known.lineage.taken_over(gap.until.birth).is_some());
            // Of a birth that the subscriber, or the log, left there, it knows that it has left it.
            let leaves = from == at.birth && gap.after.is_none_or(|after| after.offset < at.offset)
                || ledger.replaced(topic, gap.until) == Some(at.birth);
            within
                || (leaves || !follows)
                    && at.birth != gap.until.birth
                    && !ledger.has(topic, gap.until.birth, at)
        }
    }
}

/// Tells of the gaps that nobody owed.
fn undue(history: &History, ledger: &Ledger, retention: Retention) -> Vec<String> {
    let mut undue = Vec::new();
    for (id, watched) in &history.subscriptions {
        let Some((_, start)) = watched.mark else { continue };
        let (mut birth, mut told) = (start.birth, BTreeSet::new());
        let mut reached = watched.reached.iter();
        for (at, item) in &watched.items {
            match item {
                Item::ParentChanged(_) => {}
                Item::Message(message) => birth = message.position.birth,
                Item::Gap(gap) => {
                    let now = || (ledger.reached(watched.topic), ledger.bytes(watched.topic));
                    let reached = reached.next().copied().unwrap_or_else(now);
                    let known = Told { watched, ledger, retention, birth, reached, told: &mut told };
                    if let Err(why) = known.due(gap) {
                        let slot = watched.slot;
                        undue.push(format!(
                            "{id:?} in slot {slot} hears at {at} of {gap:?} that nobody owes: {why}"
                        ));
                    }
                    if birth != gap.until.birth {
                        // If it comes back, it hears of that.
                        told.remove(&birth);
                    }
                    birth = gap.until.birth;
                }
            }
        }
    }
    undue
}

/// What is known when a gap is told.
struct Told<'a> {
    watched: &'a Watched,
    ledger: &'a Ledger,
    retention: Retention,
    /// The birth of what the subscription got last.
    birth: u64,
    /// How far the log reached, and how many bytes it had.
    reached: (u64, usize),
    /// The births of which it has heard that they are not complete.
    told: &'a mut BTreeSet<u64>,
}

impl Told<'_> {
    fn due(self, gap: &Gap) -> Result<(), &'static str> {
        let (topic, to) = (self.watched.topic, gap.until.birth);
        match gap.reason {
            GapReason::TooOld => {
                let after = gap.after.map_or(0, |after| after.offset + 1);
                let (reached, bytes) = self.reached;
                let behind = reached.saturating_sub(after);
                let full = behind > self.retention.messages || bytes > self.retention.bytes / 2;
                let forced = self.ledger.births(topic).any(|(_, known)| known.complete == Some(false));
                if full || forced { Ok(()) } else { Err("no window was full") }
            }
            GapReason::OtherLog if self.ledger.replaced(topic, gap.until).is_some() => Ok(()),
            GapReason::Unreplicated | GapReason::OtherLog => {
                // It has read what the other birth did not take over: the other side of a partition went on.
                if gap.after.is_some_and(|after| !self.ledger.has(topic, to, after)) {
                    return Ok(());
                }
                if self.birth == to {
                    return Err("it is in that birth already");
                }
                if self.ledger.is_complete(topic, self.birth, to) == Some(true) {
                    return Err("that birth took over everything");
                }
                if !self.told.insert(to) {
                    return Err("it has heard of that birth before");
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use treecast_overlay::time::Instant;
    use treecast_scribe::wire::Lineage;

    use super::*;
    use crate::check::stories::{BIRTH, TOPIC, gap, story};

    const RETENTION: Retention = Retention { messages: 100, bytes: 1 << 20 };
    const LATER: u64 = 0xc;

    fn verdict(change: impl FnOnce(&mut History)) -> String {
        let mut history = story(4);
        let told = |history: &History| announced(history, &Ledger::default(), &Current::new());
        assert_eq!(told(&history), Ok(()));
        change(&mut history);
        told(&history).err().unwrap_or_default()
    }

    fn first(history: &mut History) -> &mut Watched {
        history.subscriptions.first_entry().unwrap().into_mut()
    }

    #[test]
    fn silent_losses_are_seen() {
        assert!(verdict(|history| drop(first(history).items.pop())).contains("neither got nor heard"));
        assert!(verdict(|history| drop(first(history).items.remove(1))).contains("neither got nor heard"));
        assert_eq!(verdict(|history| first(history).items[1] = gap(Some(0), 2)), "");
        assert!(verdict(|history| first(history).items[1] = gap(Some(1), 2)).contains("neither got"));
        assert_eq!(verdict(|history| first(history).items[3] = gap(Some(2), 4)), "");
    }

    #[test]
    fn what_only_the_publisher_knows_of_counts() {
        // Nobody got the last one, but it has a receipt.
        let fault = verdict(|history| {
            for watched in history.subscriptions.values_mut() {
                watched.items.pop();
            }
        });
        assert!(fault.contains("acknowledged"), "{fault}");
    }

    /// A birth that took over what is before an offset.
    fn ledger(end: u64, complete: bool) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.note_birth(Instant::ZERO, 0, TOPIC, BIRTH, &Lineage::default());
        ledger.note_birth(Instant::ZERO, 0, TOPIC, LATER, &Lineage::default().then(BIRTH, end));
        ledger.note_begin(TOPIC, LATER, complete);
        ledger
    }

    /// The last message is lost with its birth, and the first subscriber hears of that or does not.
    fn lose_the_last(told: bool) -> History {
        let mut history = story(4);
        for watched in history.subscriptions.values_mut() {
            watched.items.pop();
            let until = Position { birth: LATER, offset: 3 };
            let after = Some(Position { birth: BIRTH, offset: 2 });
            let gap = Gap { after, until, reason: GapReason::Unreplicated };
            watched.items.extend(told.then_some((Instant::ZERO, Item::Gap(gap))));
        }
        history
    }

    #[test]
    fn a_birth_that_is_not_complete_excuses_what_it_did_not_take_over() {
        let current = Current::from([(TOPIC, LATER)]);
        assert_eq!(announced(&lose_the_last(true), &ledger(3, false), &current), Ok(()));
        let silent = announced(&lose_the_last(false), &ledger(3, false), &current).unwrap_err();
        assert!(silent.contains("acknowledged"), "{silent}");
        let taken = announced(&lose_the_last(true), &ledger(4, false), &current).unwrap_err();
        assert!(taken.contains("acknowledged"), "the birth took it over: {taken}");
    }

    #[test]
    fn gaps_that_nobody_owes_are_seen() {
        let due = |history: &History, ledger: &Ledger| undue(history, ledger, RETENTION).join("; ");
        assert_eq!(due(&lose_the_last(true), &ledger(3, false)), "");
        assert!(due(&lose_the_last(true), &ledger(3, true)).contains("took over everything"));
        let mut twice = lose_the_last(true);
        let again = first(&mut twice).items.last().unwrap().clone();
        first(&mut twice).items.push(again);
        assert!(due(&twice, &ledger(3, false)).contains("in that birth already"));
        let mut old = story(4);
        first(&mut old).items[1] = gap(Some(0), 2);
        assert!(due(&old, &ledger(3, true)).contains("no window was full"));
        first(&mut old).reached = vec![(200, 0)];
        assert_eq!(due(&old, &ledger(3, true)), "");
    }

    #[test]
    fn who_left_or_takes_nothing_owes_no_end() {
        assert_eq!(
            verdict(|history| {
                first(history).items.pop();
                first(history).stalled = true;
            }),
            ""
        );
        let fault = verdict(|history| {
            first(history).items.remove(1);
            first(history).stalled = true;
        });
        assert!(fault.contains("neither got nor heard"), "{fault}");
    }
}

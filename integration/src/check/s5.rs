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
        let mut lasting = history.lasting(offered.topic).filter_map(|(_, watched)| Followed::of(watched)).peekable();
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
    gaps: Vec<Gap>,
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
                    seen.gaps.push(*gap);
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
            let reached = to_the_end || at.offset < self.last.next || !ledger.has(topic, self.last.birth, at);
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

    /// Whether a place is behind the start.
    fn begins_before(&self, topic: TopicId, at: Position, ledger: &Ledger) -> bool {
        at.offset >= self.start.next && (at.birth == self.start.birth || {
            // A birth beside that of the start may have begun, and ended, before.
            let later = ledger.birth(topic, at.birth);
            later.is_some_and(|known| known.lineage.taken_over(self.start.birth).is_some())
        })
    }

    /// Whether it got this message, or heard that it would not.
    fn has(&self, topic: TopicId, at: Position, id: MessageId, ledger: &Ledger) -> bool {
        self.messages.contains(&id) || self.gaps.iter().any(|gap| covers(gap, topic, at, ledger))
    }
}

/// Whether a gap tells of a place.
fn covers(gap: &Gap, topic: TopicId, at: Position, ledger: &Ledger) -> bool {
    let within = gap.after.is_none_or(|after| after.offset < at.offset) && at.offset < gap.until.offset;
    match gap.reason {
        GapReason::TooOld => within && ledger.has(topic, gap.until.birth, at),
        // What the other birth did not take over is lost.
        GapReason::Unreplicated | GapReason::OtherLog => {
            let follows = ledger
                .birth(topic, at.birth)
                .is_some_and(|known| known.lineage.taken_over(gap.until.birth).is_some());
            within || !follows && at.birth != gap.until.birth && !ledger.has(topic, gap.until.birth, at)
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
                        undue.push(format!("{id:?} in slot {slot} hears at {at} of {gap:?} that nobody owes: {why}"));
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
            GapReason::Unreplicated | GapReason::OtherLog => {
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
    use treecast_overlay::id::NodeId;
    use treecast_scribe::message::Term;

    use super::*;
    use crate::check::stories::{gap, story};

    fn verdict(change: impl FnOnce(&mut History)) -> String {
        let mut history = story(4);
        assert_eq!(announced(&history), Ok(()));
        change(&mut history);
        announced(&history).err().unwrap_or_default()
    }

    fn first(history: &mut History) -> &mut Watched {
        history.subscriptions.first_entry().unwrap().into_mut()
    }

    #[test]
    fn silent_losses_are_seen() {
        assert!(verdict(|history| drop(first(history).items.pop())).contains("neither got nor heard"));
        assert!(verdict(|history| drop(first(history).items.remove(1))).contains("neither got nor heard"));
        assert_eq!(verdict(|history| first(history).items[1] = gap(Some(0), Some(2))), "");
        assert!(verdict(|history| first(history).items[1] = gap(Some(1), Some(2))).contains("neither got"));
        assert_eq!(verdict(|history| first(history).items[3] = gap(Some(2), None)), "");
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

    #[test]
    fn what_came_from_another_log_need_not_come_again() {
        // The root was cut off, and its publisher sent again to another one, in whose log the message stands elsewhere.
        let story = |first_had_it: bool| {
            verdict(|history| {
                let mut others = history.subscriptions.values_mut();
                let (watched, other) = (others.next().unwrap(), others.next().unwrap());
                for (_, item) in &mut other.items {
                    let Item::Message(message) = item else { unreachable!("a message") };
                    (message.mark.birth, message.position.offset) = (0xc, message.position.offset + 10);
                }
                let (at, _) = watched.items[3];
                let until = watched.messages().last().map(|(_, message)| message.position);
                let gap = Gap { after: until, until, reason: GapReason::OtherLog };
                watched.items.truncate(if first_had_it { 4 } else { 3 });
                watched.items.push((at, Item::Gap(gap)));
            })
        };
        assert_eq!(story(true), "");
        assert!(story(false).contains("neither got nor heard"), "{}", story(false));
    }

    #[test]
    fn what_an_overruled_root_took_is_lost_with_a_later_gap() {
        // Term 2 began behind 1:1, and both subscribers begin in it; the root of term 1, cut off, takes a message more.
        let place = |number, offset| Position { term: Term { number, root: NodeId(number.into()) }, offset };
        let story = |taken: Position, lost: Option<u64>| {
            verdict(|history| {
                let begin = place(2, 4);
                for watched in history.subscriptions.values_mut() {
                    let (_, mark) = watched.mark.as_mut().unwrap();
                    mark.position = Some(begin);
                    watched.items.clear();
                    let gap =
                        Gap { after: Some(begin), until: Some(place(3, 5)), reason: GapReason::RootLost };
                    let at = Instant::ZERO + std::time::Duration::from_millis(lost.unwrap_or(0));
                    watched.items.extend(lost.map(|_| (at, Item::Gap(gap))));
                }
                // A subscriber that has gone by now was there when term 2 began.
                let mut gone = first(history).clone();
                let gap =
                    Gap { after: Some(place(1, 1)), until: Some(place(2, 2)), reason: GapReason::RootLost };
                gone.items = vec![(Instant::ZERO, Item::Gap(gap))];
                gone.ended = Some(Instant::ZERO);
                history.subscriptions.insert(SubscriptionId(9), gone);
                history.publications.retain(|token, _| token.0 == 1000);
                let offered = history.publications.values_mut().next().unwrap();
                let Some((_, Ok(receipt))) = &mut offered.outcome else { unreachable!("a receipt") };
                receipt.position = taken;
            })
        };
        assert_eq!(story(place(1, 2), Some(60)), "");
        assert!(story(place(1, 2), None).contains("acknowledged"), "nothing was said");
        assert!(story(place(1, 2), Some(6)).contains("acknowledged"), "it was said before that");
        assert!(story(place(1, 1), Some(60)).contains("acknowledged"), "term 2 goes on behind it");
        // All nodes that knew of term 4 died with its root.
        assert_eq!(story(place(4, 9), Some(60)), "");
        assert!(story(place(4, 9), None).contains("acknowledged"), "nothing was said");
        assert!(story(place(4, 9), Some(6)).contains("acknowledged"), "it was said before that");
    }

    #[test]
    fn a_gap_tells_of_the_branch_beside_its_bounds() {
        let of = |root, offset| Position { term: Term { number: 2, root: NodeId(root) }, offset };
        let hole = |after, until| Hole { birth: None, after, until };
        for root in [4, 6] {
            let lost = of(root, 9);
            assert!(hole(None, Some(of(5, 3))).covers(None, lost), "it was told of the other term's start");
            let above = Position { term: Term { number: 3, root: NodeId(1) }, offset: 8 };
            assert!(hole(Some(of(5, 7)), Some(above)).covers(None, lost));
        }
        assert!(!hole(Some(of(5, 7)), None).covers(None, of(5, 6)), "the own branch was followed so far");
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

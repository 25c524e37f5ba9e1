//! S5, definite start, and that nothing is dropped silently: whatever got a place after a subscription's start came to
//! it, from this place or from one on another branch or in another log, or lies in a gap that was announced to it.

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::time::Instant;
use treecast_scribe::event::SubscriptionId;
use treecast_scribe::message::MessageId;
use treecast_scribe::{Gap, GapReason, Item, Position, Receipt, TopicId};

use super::branches::{Forced, are_beside};
use super::{Promise, Scene, Verdict};
use crate::cluster::history::{History, Offered, Watched};

/// Judges all subscriptions: each has started, or come to nothing.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    let waiting = |watched: &&Watched| watched.mark.is_none() && watched.ended.is_none();
    if let Some(watched) = scene.history.subscriptions.values().find(waiting) {
        let (slot, asked) = (watched.slot, watched.asked);
        return Err(Promise::S5
            .broken(format!("the subscription of slot {slot}, asked for at {asked}, has not started")));
    }
    announced(scene.history).map_err(|what| Promise::S5.broken(what))
}

/// Judges every subscription that has started; those that are still there also by the log's very end.
pub fn announced(history: &History) -> Result<(), String> {
    let logs = Logs::of(history);
    for (&id, watched) in &history.subscriptions {
        if let Some(seen) = Followed::of(watched, &logs) {
            seen.judge(id, watched, &logs)?;
        }
    }
    Ok(())
}

/// Publications with a receipt from a log that no lasting subscriber of their topic ever read: their root was
/// cut off, and gone or overruled afterwards. With one copy, a receipt promises no more.
pub fn astray(history: &History) -> u64 {
    let logs = Logs::of(history);
    let seen = |(_, watched): (SubscriptionId, &Watched)| Followed::of(watched, &logs);
    let astray = |offered: &&Offered| {
        let Some(birth) = offered.birth else { return false };
        let mut lasting = history.lasting(offered.topic).filter_map(seen).peekable();
        lasting.peek().is_some() && lasting.all(|seen| !seen.births.contains_key(&birth))
    };
    history.publications.values().filter(astray).count() as u64
}

/// Knowledge of the topics' logs: everything that anybody got, or has a receipt for.
struct Logs<'a> {
    /// By topic and birth: what stands where.
    places: BTreeMap<TopicId, BTreeMap<u64, BTreeMap<Position, MessageId>>>,
    kept: BTreeMap<TopicId, Vec<Kept<'a>>>,
    forced: Forced,
}

/// A message with a receipt, and the birth of its log.
type Kept<'a> = (&'a Offered, Receipt, Option<u64>);

impl<'a> Logs<'a> {
    fn of(history: &'a History) -> Logs<'a> {
        let (places, kept) = (BTreeMap::new(), BTreeMap::new());
        let mut logs = Logs { places, kept, forced: Forced::of(history) };
        for watched in history.subscriptions.values() {
            let topic = logs.places.entry(watched.topic).or_default();
            for (_, message) in watched.messages() {
                topic.entry(message.mark.birth).or_default().insert(message.position, message.id);
            }
        }
        for offered in history.publications.values() {
            let Some((_, Ok(receipt))) = &offered.outcome else { continue };
            logs.kept.entry(offered.topic).or_default().push((offered, *receipt, offered.birth));
        }
        logs
    }
}

/// Positions of one log that a subscriber was told it will not get: all between two, each excluded.
#[derive(Clone, Copy, Debug)]
struct Hole {
    /// `None`: of whatever log.
    birth: Option<u64>,
    after: Option<Position>,
    until: Option<Position>,
}

impl Hole {
    fn covers(&self, birth: Option<u64>, at: Position) -> bool {
        let same = self.birth.is_none() || birth.is_none() || self.birth == birth;
        // A bound names the branch that was followed: the one beside it was lost, or left, between the two.
        let beside = |bound: Option<Position>| bound.is_some_and(|bound| are_beside(bound, at));
        same && (Some(at) > self.after || beside(self.after))
            && (self.until.is_none_or(|until| at < until) || beside(self.until))
    }
}

/// A root was lost.
#[derive(Clone, Copy, Debug)]
struct ToldLoss {
    heard: Instant,
    log: Option<u64>,
    /// How far the subscriber had come.
    reached: Position,
    /// Where the next root goes on.
    until: Option<Position>,
}

/// All that one subscription has seen.
struct Followed {
    /// The logs that it read, and where it began in each.
    births: BTreeMap<u64, Option<Position>>,
    messages: BTreeSet<MessageId>,
    holes: Vec<Hole>,
    /// Roots that were lost, as it heard.
    losses: Vec<ToldLoss>,
    /// How far it has come in the log that it read last.
    last: (Option<u64>, Option<Position>),
}

impl Followed {
    fn of(watched: &Watched, logs: &Logs<'_>) -> Option<Followed> {
        let (_, mark) = watched.mark?;
        let mut seen = Followed {
            births: [(mark.birth, mark.position)].into(),
            messages: BTreeSet::new(),
            holes: Vec::new(),
            losses: Vec::new(),
            last: (Some(mark.birth), mark.position),
        };
        // After the word of another log: where it goes on there.
        let mut entering = None;
        for (heard, item) in &watched.items {
            match item {
                Item::ParentChanged(_) => {}
                Item::Gap(Gap { after, until, reason: GapReason::OtherLog }) => {
                    seen.holes.push(Hole { birth: seen.last.0, after: *after, until: None });
                    entering = Some(*until);
                    seen.last = (None, None);
                }
                Item::Gap(Gap { after, until, reason }) => {
                    if let (GapReason::RootLost, Some(after)) = (reason, after) {
                        let (heard, log, reached, until) = (*heard, seen.last.0, *after, *until);
                        seen.losses.push(ToldLoss { heard, log, reached, until });
                    }
                    seen.holes.push(Hole { birth: seen.last.0, after: *after, until: *until });
                    seen.last.1 = seen.last.1.max(*after);
                }
                Item::Message(message) => {
                    if let Some(until) = entering.take() {
                        seen.enter(message.mark.birth, until);
                    }
                    seen.messages.insert(message.id);
                    seen.last = (Some(message.mark.birth), Some(message.position));
                }
            }
        }
        if let Some(until) = entering {
            let others = logs.places.get(&watched.topic).into_iter().flat_map(BTreeMap::keys);
            for birth in others.copied().filter(|birth| *birth != mark.birth).collect::<Vec<_>>() {
                seen.enter(birth, until);
            }
        }
        Some(seen)
    }

    fn enter(&mut self, birth: u64, until: Option<Position>) {
        self.births.entry(birth).or_insert(None);
        self.holes.push(Hole { birth: Some(birth), after: None, until });
    }

    fn judge(&self, id: SubscriptionId, watched: &Watched, logs: &Logs<'_>) -> Result<(), String> {
        let missing =
            |what: String| Err(format!("{id:?} in slot {} neither got nor heard of {what}", watched.slot));
        let to_the_end = watched.ended.is_none() && !watched.stalled;
        let topic = logs.places.get(&watched.topic);
        for (&birth, &floor) in &self.births {
            let known = topic.and_then(|births| births.get(&birth)).into_iter().flatten();
            for (&at, &id) in known.filter(|&(&at, _)| Some(at) > floor) {
                let reached = to_the_end || self.last.0 != Some(birth) || Some(at) <= self.last.1;
                if reached && !self.has(Some(birth), at, id) {
                    return missing(format!("{at} of the log {birth:x}"));
                }
            }
        }
        if !to_the_end {
            return Ok(());
        }
        let start = watched.mark.map(|(at, _)| at);
        for (offered, receipt, birth) in logs.kept.get(&watched.topic).into_iter().flatten() {
            // Published when the start was known already: it is after the start, or lost with the log. A log that this
            // subscription never read is none of its: its places cannot be compared with those of its own.
            let own = birth.is_none_or(|birth| self.births.contains_key(&birth));
            let at = receipt.position;
            // A root that had been overruled without hearing of it gave it a place: that this one is lost, too, was said
            // after that. Or all nodes that knew of a term have died, and of it nothing had come here: then the next root goes on
            // in an earlier one.
            let told = |&ToldLoss { heard, log, reached, until }: &ToldLoss| {
                let same = birth.is_none() || *birth == log;
                let forgotten = until.is_some_and(|until| until.term.number < at.term.number)
                    && watched.messages().all(|(_, message)| message.position.term != at.term);
                heard > offered.at && same && (forgotten || logs.forced.overrule(watched.topic, at, reached))
            };
            let has = self.has(*birth, at, receipt.id) || self.losses.iter().any(told);
            if Some(offered.at) > start && own && !has {
                return missing(format!("{at}, published at {} and acknowledged", offered.at));
            }
        }
        Ok(())
    }

    /// Whether it got this message, be it from another place, or heard that it would not.
    fn has(&self, birth: Option<u64>, at: Position, id: MessageId) -> bool {
        self.messages.contains(&id) || self.holes.iter().any(|hole| hole.covers(birth, at))
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

//! S3, order: every subscriber gets messages in the order of their offsets, a session's messages in the order of their
//! publication, what stands at a place of a birth is one message for ever, and a message has one place in one log. Only
//! where a log begins anew may a subscriber go back, and it says so.

use std::collections::BTreeMap;

use treecast_scribe::message::MessageId;
use treecast_scribe::{Gap, GapReason, Item, Mark, Message, Position, TopicId};

use super::{Promise, Scene, Verdict};
use crate::cluster::history::{History, Watched};
use crate::cluster::ledger::Ledger;

/// Judges all that the applications got.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    in_order(scene.history, &scene.witness.ledger).map_err(|what| Promise::S3.broken(what))
}

/// Judges every subscription, and all of them together.
pub fn in_order(history: &History, ledger: &Ledger) -> Result<(), String> {
    let mut at: BTreeMap<(TopicId, Position), MessageId> = BTreeMap::new();
    let mut of: BTreeMap<(TopicId, MessageId), Vec<Position>> = BTreeMap::new();
    for (id, watched) in &history.subscriptions {
        alone(watched, ledger).map_err(|fault| format!("{id:?} in slot {} {fault}", watched.slot))?;
        for (_, message) in watched.messages() {
            let place = (watched.topic, message.position);
            let other = *at.entry(place).or_insert(message.id);
            if other != message.id {
                return Err(format!(
                    "both {other:?} and {:?} were delivered from {:#} of {:?}",
                    message.id, message.position, watched.topic
                ));
            }
            let places = of.entry((watched.topic, message.id)).or_default();
            let of_one_log =
                |other: &&Position| ledger.are_of_one_log(watched.topic, **other, message.position);
            if let Some(elsewhere) =
                places.iter().find(|other| **other != message.position && of_one_log(other))
            {
                return Err(format!(
                    "{:?} was delivered from {elsewhere:#} and {:#} of {:?}",
                    message.id, message.position, watched.topic
                ));
            }
            if !places.contains(&message.position) {
                places.push(message.position);
            }
        }
    }
    Ok(())
}

/// Judges one subscription. A gap skips forward, but where the log begins anew.
fn alone(watched: &Watched, ledger: &Ledger) -> Result<(), String> {
    let Some((_, start)) = watched.mark else { return Ok(()) };
    // The birth of the last entry, the offset of the next one, whether another birth was announced, and, be it only by a gap's
    // bounds, told.
    let (mut birth, mut next, mut begins_anew) = (start.birth, start.next, false);
    let mut told = false;
    let mut sessions: BTreeMap<_, (u64, usize)> = BTreeMap::new();
    let mut gaps = 0;
    for (at, item) in &watched.items {
        match item {
            Item::ParentChanged(_) => {}
            Item::Gap(Gap { after, until, reason }) => {
                gaps += 1;
                let forward = after.is_none_or(|after| after.offset < until.offset);
                let other = after.is_some_and(|after| after.birth != until.birth);
                if !forward && !other && *reason != GapReason::OtherLog {
                    return Err(format!(
                        "hears at {at} of a gap that is none: after {after:?}, until {until:?}"
                    ));
                }
                if *reason != GapReason::TooOld {
                    // What a session published before may stand behind this in the other log. (S2 sees what comes twice.)
                    begins_anew = true;
                    sessions.clear();
                }
                // What is too old may reach into another birth: the bounds say so.
                told |= begins_anew || other;
                next = if begins_anew { until.offset } else { next.max(until.offset) };
            }
            Item::Message(message) => {
                let Position { birth: own, offset } = message.position;
                if (message.mark.birth, message.mark.next) != (own, offset + 1) {
                    return Err(format!(
                        "gets the mark {} with {:#} at {at}",
                        message.mark, message.position
                    ));
                }
                if birth != own && !told && !may_slide(ledger, watched.topic, start, birth, own) {
                    return Err(format!(
                        "slides from {birth:016x} into {own:016x} at {at} without a word: {:?}",
                        message.id
                    ));
                }
                if offset < next {
                    return Err(format!("yields {:#} at {at}, behind {next}", message.position));
                }
                (birth, next, begins_anew) = (own, offset + 1, false);
                told = false;
                let session = (message.id.publisher, message.id.session);
                follow(message, sessions.insert(session, (message.id.sequence, gaps)), gaps)?;
            }
        }
    }
    Ok(())
}

/// Whether nothing need be said between two births: the later one took the other over completely, or began right where
/// the subscription did.
fn may_slide(ledger: &Ledger, topic: TopicId, start: Mark, from: u64, to: u64) -> bool {
    let Some(end) = ledger.birth(topic, to).and_then(|known| known.lineage.taken_over(from)) else {
        return false;
    };
    let began = (start.birth, start.next) == (from, end);
    began || ledger.is_complete(topic, from, to) != Some(false)
}

/// A session's next message follows the last one, unless a gap came between.
fn follow(message: &Message, before: Option<(u64, usize)>, gaps: usize) -> Result<(), String> {
    let Some((last, gaps_then)) = before else { return Ok(()) };
    let sequence = message.id.sequence;
    if sequence == last + 1 || sequence > last && gaps > gaps_then {
        return Ok(());
    }
    Err(format!("yields {:?} after its sequence {last}, with {} gaps between", message.id, gaps - gaps_then))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::stories::{gap, story};

    fn verdict(change: impl FnOnce(&mut Watched)) -> String {
        let mut history = story(4);
        let ledger = Ledger::default();
        assert_eq!(in_order(&history, &ledger), Ok(()));
        change(history.subscriptions.first_entry().unwrap().get_mut());
        in_order(&history, &ledger).err().unwrap_or_default()
    }

    #[test]
    fn disorder_is_seen() {
        assert!(verdict(|watched| watched.items.swap(1, 2)).contains("after its sequence"));
        assert!(verdict(|watched| watched.items[1] = gap(Some(0), 3)).contains("behind 3"));
        assert!(verdict(|watched| drop(watched.items.remove(1))).contains("with 0 gaps between"));
        assert_eq!(verdict(|watched| watched.items[1] = gap(Some(0), 2)), "");
        assert!(verdict(|watched| watched.items[1] = gap(Some(2), 2)).contains("a gap that is none"));
    }

    #[test]
    fn disagreement_is_seen() {
        let elsewhere = verdict(|watched| {
            let Item::Message(last) = &mut watched.items[3].1 else { unreachable!("a message") };
            (last.position.offset, last.mark.next) = (last.position.offset + 1, last.mark.next + 1);
        });
        assert!(elsewhere.contains("was delivered from"), "{elsewhere}");
        let both = verdict(|watched| {
            let Item::Message(last) = &mut watched.items[3].1 else { unreachable!("a message") };
            last.id.session += 1;
        });
        assert!(both.contains("were delivered from"), "{both}");
        let slides = verdict(|watched| {
            let Item::Message(last) = &mut watched.items[3].1 else { unreachable!("a message") };
            (last.mark.birth, last.position.birth) = (1, 1);
        });
        assert!(slides.contains("without a word"), "{slides}");
        let told = verdict(|watched| {
            let Item::Message(last) = &mut watched.items[3].1 else { unreachable!("a message") };
            (last.mark.birth, last.position.birth) = (1, 1);
            let (_, Item::Gap(too_old)) = &mut gap(Some(1), 3) else { unreachable!("a gap") };
            too_old.until.birth = 1;
            watched.items[2] = (watched.items[2].0, Item::Gap(*too_old));
        });
        assert!(!told.contains("without a word"), "{told}");
    }
}

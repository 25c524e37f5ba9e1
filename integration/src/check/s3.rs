//! S3, order: every subscriber gets messages in the order of their positions, a session's messages in the order of
//! their publication, and all subscribers get the same messages at the same positions.

use std::collections::BTreeMap;

use treecast_scribe::message::MessageId;
use treecast_scribe::{Gap, GapReason, Item, Message, Position, TopicId};

use super::branches::Forced;
use super::{Promise, Scene, Verdict};
use crate::cluster::history::{History, Watched};

/// Where a message stands: in which log of which topic, and at which place.
type LogPlace = (TopicId, u64, Position);

/// Judges all that the applications got.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    in_order(scene.history).map_err(|what| Promise::S3.broken(what))
}

/// Judges every subscription, and all of them together.
pub fn in_order(history: &History) -> Result<(), String> {
    let mut at: BTreeMap<LogPlace, MessageId> = BTreeMap::new();
    let mut of: BTreeMap<(TopicId, u64, MessageId), Position> = BTreeMap::new();
    let forced = Forced::of(history);
    for (id, watched) in &history.subscriptions {
        alone(watched).map_err(|fault| format!("{id:?} in slot {} {fault}", watched.slot))?;
        for (_, message) in watched.messages() {
            let place = (watched.topic, message.mark.birth, message.position);
            let other = *at.entry(place).or_insert(message.id);
            if other != message.id {
                return Err(format!("both {other:?} and {:?} were delivered from {place:?}", message.id));
            }
            // In one log, and on one branch of it: where nodes around the key could not reach each other there may be
            // two, and a publisher that hears nothing sends again to whoever is the root then.
            let log = (watched.topic, message.mark.birth, message.id);
            let elsewhere = *of.entry(log).or_insert(message.position);
            let parted = || forced.parts(watched.topic, elsewhere, message.position);
            if elsewhere != message.position && !parted() {
                return Err(format!("{:?} was delivered from {elsewhere} and {place:?}", message.id));
            }
        }
    }
    Ok(())
}

/// Judges one subscription. A gap skips forward only.
fn alone(watched: &Watched) -> Result<(), String> {
    let start = watched.mark.map(|(_, mark)| mark);
    let (mut birth, mut last) = (start.map(|mark| mark.birth), start.and_then(|mark| mark.position));
    let mut sessions: BTreeMap<_, (u64, usize)> = BTreeMap::new();
    let mut gaps = 0;
    for (at, item) in &watched.items {
        match item {
            Item::ParentChanged(_) => {}
            Item::Gap(Gap { after, until, reason }) => {
                gaps += 1;
                if until.is_some_and(|until| Some(until) <= *after) && *reason != GapReason::OtherLog {
                    return Err(format!(
                        "hears at {at} of a gap that is none: after {after:?}, until {until:?}"
                    ));
                }
                if *reason == GapReason::OtherLog {
                    (birth, last) = (None, None);
                }
            }
            Item::Message(message) => {
                if birth.is_some_and(|birth| birth != message.mark.birth) {
                    return Err(format!("slides into another log at {at} without a word: {:?}", message.id));
                }
                if Some(message.position) <= last {
                    return Err(format!("yields {} at {at}, behind {last:?}", message.position));
                }
                (birth, last) = (Some(message.mark.birth), Some(message.position));
                let session = (message.id.publisher, message.id.session);
                follow(message, sessions.insert(session, (message.id.sequence, gaps)), gaps)?;
            }
        }
    }
    Ok(())
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
    use treecast_overlay::id::NodeId;

    use super::*;
    use crate::check::stories::{gap, story};

    fn verdict(change: impl FnOnce(&mut Watched)) -> String {
        let mut history = story(4);
        assert_eq!(in_order(&history), Ok(()));
        change(history.subscriptions.first_entry().unwrap().get_mut());
        in_order(&history).err().unwrap_or_default()
    }

    #[test]
    fn disorder_is_seen() {
        assert!(verdict(|watched| watched.items.swap(1, 2)).contains("after its sequence"));
        assert!(verdict(|watched| drop(watched.items.remove(1))).contains("with 0 gaps between"));
        assert_eq!(verdict(|watched| watched.items[1] = gap(Some(0), Some(2))), "");
        assert!(verdict(|watched| watched.items[1] = gap(Some(2), Some(2))).contains("a gap that is none"));
    }

    #[test]
    fn disagreement_is_seen() {
        let elsewhere = verdict(|watched| {
            let Item::Message(last) = &mut watched.items[3].1 else { unreachable!("a message") };
            last.position.offset += 1;
        });
        assert!(elsewhere.contains("was delivered from"), "{elsewhere}");
        let beside = verdict(|watched| {
            let Item::Message(last) = &mut watched.items[3].1 else { unreachable!("a message") };
            last.position.term.root = NodeId(100);
        });
        assert_eq!(beside, "", "two roots, two branches");
        let both = verdict(|watched| {
            let Item::Message(last) = &mut watched.items[3].1 else { unreachable!("a message") };
            last.id.session += 1;
        });
        assert!(both.contains("were delivered from"), "{both}");
        let slides = verdict(|watched| {
            let Item::Message(last) = &mut watched.items[3].1 else { unreachable!("a message") };
            last.mark.birth += 1;
        });
        assert!(slides.contains("another log"), "{slides}");
    }
}

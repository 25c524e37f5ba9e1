//! S4, as far as one copy carries it: every publication of a node that lives is answered, and a receipt names the very
//! place from which the message is delivered.

use std::collections::{BTreeMap, BTreeSet};

use treecast_scribe::message::MessageId;
use treecast_scribe::{Position, TopicId};

use super::branches::Forced;
use super::{Promise, Scene, Verdict};
use crate::cluster::history::{History, token};

/// Judges all receipts.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    true_receipts(scene.history).map_err(|what| Promise::S4.broken(what))
}

/// Whether every publication is answered.
pub fn judge_open(scene: &Scene<'_>) -> Verdict {
    answered(scene.history).map_err(|what| Promise::S4.broken(what))
}

/// Whether every publisher that lives has heard what became of its messages.
pub fn answered(history: &History) -> Result<(), String> {
    let open = |(_, offered): &(_, &crate::cluster::history::Offered)| {
        offered.outcome.is_none() && !offered.abandoned
    };
    match history.publications.iter().find(open) {
        Some((token, offered)) => {
            Err(format!("{token:?}, published in slot {} at {}, is not answered", offered.slot, offered.at))
        }
        None => Ok(()),
    }
}

/// Whether no receipt is at odds with what was delivered. Where a topic has had several logs, because nodes around its
/// key could not reach each other, a receipt may name a place in another one than that which was delivered: places are
/// compared within one log, and within one branch of it.
pub fn true_receipts(history: &History) -> Result<(), String> {
    let mut delivered: BTreeMap<_, BTreeSet<(TopicId, MessageId, Position)>> = BTreeMap::new();
    let mut stands: BTreeMap<(TopicId, u64, Position), MessageId> = BTreeMap::new();
    let forced = Forced::of(history);
    for watched in history.subscriptions.values() {
        for (_, message) in watched.messages() {
            let found = (watched.topic, message.id, message.position);
            stands.insert((watched.topic, message.mark.birth, message.position), message.id);
            delivered.entry((token(&message.payload), message.mark.birth)).or_default().insert(found);
        }
    }
    for (token, offered) in &history.publications {
        let Some((_, Ok(receipt))) = &offered.outcome else { continue };
        let Some(birth) = offered.birth else {
            return Err(format!("{token:?} has a receipt of nobody who has a log"));
        };
        let promised = (offered.topic, receipt.id, receipt.position);
        let places = delivered.get(&(Some(*token), birth)).into_iter().flatten();
        let differs = |&&(topic, id, at): &&(TopicId, MessageId, Position)| {
            let same = (topic, id) == (promised.0, promised.1);
            !same || (at != receipt.position && !forced.parts(topic, at, receipt.position))
        };
        if let Some(found) = places.clone().find(differs) {
            return Err(format!("{token:?} has a receipt for {promised:?}, and was delivered as {found:?}"));
        }
        if let Some(other) =
            stands.get(&(offered.topic, birth, receipt.position)).filter(|id| **id != receipt.id)
        {
            return Err(format!("{token:?} has a receipt for {promised:?}, where {other:?} stands"));
        }
        if receipt.copies == 0 {
            return Err(format!("{token:?} has a receipt, and nobody has a copy"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::stories::story;

    #[test]
    fn silence_and_false_receipts_are_seen() {
        let mut history = story(2);
        assert_eq!((answered(&history), true_receipts(&history)), (Ok(()), Ok(())));
        let offered = history.publications.first_entry().unwrap().into_mut();
        let Some((at, Ok(mut receipt))) = offered.outcome.take() else { unreachable!("a receipt") };
        receipt.position.offset += 1;
        assert!(answered(&history).unwrap_err().contains("is not answered"));
        history.publications.first_entry().unwrap().get_mut().outcome = Some((at, Ok(receipt)));
        assert!(true_receipts(&history).unwrap_err().contains("was delivered as"));
        // Nobody got this one, but another one from the place that its receipt names.
        for watched in history.subscriptions.values_mut() {
            watched.items.remove(0);
        }
        let fault = true_receipts(&history).unwrap_err();
        assert!(fault.contains("where MessageId"), "{fault}");
    }
}

//! S4, acknowledged means kept: every publication of a node that lives is answered, a receipt names the very place from
//! which the message is delivered, and nothing leaves the root and the members before it is committed. A log begins anew
//! only where a majority of the configuration has ended. (That what has a receipt comes to everybody is judged as S5.)

use std::collections::BTreeMap;

use treecast_scribe::message::MessageId;
use treecast_scribe::{Position, TopicId};

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

/// Whether no receipt is at odds with what was delivered, or with another one.
pub fn true_receipts(history: &History) -> Result<(), String> {
    let mut delivered: BTreeMap<_, (TopicId, MessageId, Position)> = BTreeMap::new();
    let mut stands: BTreeMap<(TopicId, Position), MessageId> = BTreeMap::new();
    for watched in history.subscriptions.values() {
        for (_, message) in watched.messages() {
            stands.insert((watched.topic, message.position), message.id);
            delivered.insert(token(&message.payload), (watched.topic, message.id, message.position));
        }
    }
    for (token, offered) in &history.publications {
        let Some((_, Ok(receipt))) = &offered.outcome else { continue };
        let promised = (offered.topic, receipt.id, receipt.position);
        if let Some(found) = delivered.get(&Some(*token)).filter(|found| **found != promised) {
            return Err(format!("{token:?} has a receipt for {promised:?}, and was delivered as {found:?}"));
        }
        let other = *stands.entry((offered.topic, receipt.position)).or_insert(receipt.id);
        if other != receipt.id {
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

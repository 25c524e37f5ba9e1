//! S4, acknowledged means kept: every publication of a node that lives is answered, a receipt names the very place from
//! which the message is delivered, and nothing leaves the root and the members before it is committed. A log begins anew
//! only where a majority of the configuration has ended. (That what has a receipt comes to everybody is judged as S5.)

use std::collections::{BTreeMap, BTreeSet};

use treecast_overlay::peer::Peer;
use treecast_scribe::message::MessageId;
use treecast_scribe::wire::{Member, Members};
use treecast_scribe::{Position, TopicId};

use super::{Promise, Scene, Verdict};
use crate::cluster::history::{History, token};
use crate::cluster::ledger::Ledger;

/// Judges all receipts.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    true_receipts(scene.history, &scene.witness.ledger).map_err(|what| Promise::S4.broken(what))
}

/// Whether every publication is answered.
pub fn judge_open(scene: &Scene<'_>) -> Verdict {
    answered(scene.history).map_err(|what| Promise::S4.broken(what))
}

/// Judges what roots and members said since the last judgement: nothing leaves them before it is committed, a life that
/// has ended does not come back, and a promise is not forgotten.
pub fn judge_words(scene: &Scene<'_>) -> Verdict {
    match scene.witness.ledger.wrongs.first() {
        Some(what) => Err(Promise::S4.broken(what)),
        None => Ok(()),
    }
}

/// Judges the births since the last judgement: a log begins anew only where a majority of the last configuration has ended, or
/// was found dead.
pub fn judge_births(scene: &Scene<'_>) -> Verdict {
    let ledger = &scene.witness.ledger;
    for &(topic, birth) in &ledger.fresh {
        let Some(known) = ledger.birth(topic, birth) else { continue };
        let holds = |peer: &Peer, before: u64| {
            let mut forests = scene.forests().filter(|(seen, _)| seen.node.peer().id == peer.id);
            forests.any(|(_, forest)| {
                forest.places().any(|place| place.topic() == topic && place.birth() == Some(before))
            })
        };
        let lives = |peer: &Peer| !scene.watch.may_be_found_dead(scene.now, peer, known.slot);
        let founded = known.lineage.ancestors().is_empty();
        let before: Vec<u64> = match known.lineage.ancestors().last() {
            Some(last) => vec![last.birth],
            None => ledger.births(topic).map(|(other, _)| other).filter(|other| *other != birth).collect(),
        };
        for before in before {
            let Some(former) = ledger.birth(topic, before) else { continue };
            // (A log that nobody uses is given up: then a new one is none of it.)
            let stands = |members: &Members| {
                let counts = |member: &&Member| {
                    lives(&member.peer)
                        && !ledger.went_over(topic, member)
                        && (!founded || holds(&member.peer, before))
                };
                let living = members.iter().filter(counts);
                2 * living.count() > members.len()
            };
            let mut counting = former.counting().peekable();
            if counting.peek().is_some() && counting.all(stands) {
                let last: Vec<_> = former.configurations.iter().rev().take(2).collect();
                return Err(Promise::S4.broken(format!(
                    "the log of {topic:?} begins anew as {birth:016x} in slot {}, while a majority of the members of \
                     {before:016x} lives: {last:?}",
                    known.slot
                )));
            }
        }
    }
    Ok(())
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
pub fn true_receipts(history: &History, ledger: &Ledger) -> Result<(), String> {
    let mut delivered: BTreeMap<_, BTreeSet<(TopicId, MessageId, Position)>> = BTreeMap::new();
    let mut stands: BTreeMap<(TopicId, Position), MessageId> = BTreeMap::new();
    for watched in history.subscriptions.values() {
        for (_, message) in watched.messages() {
            stands.insert((watched.topic, message.position), message.id);
            let found = (watched.topic, message.id, message.position);
            delivered.entry(token(&message.payload)).or_default().insert(found);
        }
    }
    for (token, offered) in &history.publications {
        let Some((_, Ok(receipt))) = &offered.outcome else { continue };
        let promised = (offered.topic, receipt.id, receipt.position);
        let is_wrong = |found: &&(TopicId, MessageId, Position)| {
            (found.0, found.1) != (promised.0, promised.1)
                || found.2 != promised.2 && ledger.are_of_one_log(promised.0, found.2, promised.2)
        };
        if let Some(found) = delivered.get(&Some(*token)).into_iter().flatten().find(is_wrong) {
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
        assert_eq!((answered(&history), true_receipts(&history, &Ledger::default())), (Ok(()), Ok(())));
        let offered = history.publications.first_entry().unwrap().into_mut();
        let Some((at, Ok(mut receipt))) = offered.outcome.take() else { unreachable!("a receipt") };
        receipt.position.offset += 1;
        assert!(answered(&history).unwrap_err().contains("is not answered"));
        history.publications.first_entry().unwrap().get_mut().outcome = Some((at, Ok(receipt)));
        assert!(true_receipts(&history, &Ledger::default()).unwrap_err().contains("was delivered as"));
        // Nobody got this one, but another one from the place that its receipt names.
        for watched in history.subscriptions.values_mut() {
            watched.items.remove(0);
        }
        let fault = true_receipts(&history, &Ledger::default()).unwrap_err();
        assert!(fault.contains("where MessageId"), "{fault}");
    }
}

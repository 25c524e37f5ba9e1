//! S2, effectively once: no subscription yields one message twice, nor one that nobody published.

use std::collections::BTreeSet;

use super::{Promise, Scene, Verdict};
use crate::cluster::history::{History, token};

/// Judges all that the applications got.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    once(scene.history).map_err(|what| Promise::S2.broken(what))
}

/// Judges every subscription.
pub fn once(history: &History) -> Result<(), String> {
    for (id, watched) in &history.subscriptions {
        let (mut messages, mut tokens) = (BTreeSet::new(), BTreeSet::new());
        for (at, message) in watched.messages() {
            let slot = watched.slot;
            let token = token(&message.payload);
            let origin = token.and_then(|token| history.publications.get(&token));
            let genuine = origin.is_some_and(|offered| {
                offered.topic == watched.topic
                    && offered.publisher == message.id.publisher
                    && offered.payload == message.payload
            });
            if !genuine {
                return Err(format!("{id:?} in slot {slot} yields {message:?} at {at}: published by nobody"));
            }
            // The identity, and what it stands for: a message that was published again under another one is the same.
            if !messages.insert(message.id) || !tokens.insert(token) {
                return Err(format!("{id:?} in slot {slot} yields {:?} twice, now at {at}", message.id));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::stories::{message, story};

    #[test]
    fn repetitions_and_forgeries_are_seen() {
        let mut history = story(3);
        assert_eq!(once(&history), Ok(()));
        let first = message(&history, 0);
        history.subscriptions.first_entry().unwrap().get_mut().items.push(first);
        assert!(once(&history).unwrap_err().contains("twice"));

        history = story(3);
        let watched = history.subscriptions.first_entry().unwrap().into_mut();
        let treecast_scribe::Item::Message(second) = &mut watched.items[1].1 else {
            unreachable!("a message")
        };
        second.payload = second.payload.slice(..second.payload.len() - 1);
        assert!(once(&history).unwrap_err().contains("published by nobody"));
    }
}

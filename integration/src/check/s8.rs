//! S8, as far as it goes without signatures: every message on every wire carries the field that is reserved for one, and
//! no node on the way alters what its publisher said. (That a forgery can be *proven* comes with the signatures; here
//! the laboratory knows the sender of everything.)

use treecast_scribe::wire::Signature;

use super::{Promise, Scene, Verdict};
use crate::cluster::history::{History, token};
use crate::cluster::witness::Envelope;

/// Judges every message that was passed on since the last judgement.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    scene.witness.envelopes.iter().try_for_each(|envelope| genuine(scene.history, envelope))
}

/// Whether a message on a wire is what its publisher made.
pub fn genuine(history: &History, envelope: &Envelope) -> Verdict {
    let Envelope { by, topic, id, signature, payload } = envelope;
    // The only version of the field so far; another one is a case of its own here.
    let Signature::None = signature;
    let offered = token(payload).and_then(|token| history.publications.get(&token));
    let same = |offered: &crate::cluster::history::Offered| {
        offered.topic == *topic && offered.publisher == id.publisher && offered.payload == *payload
    };
    if offered.is_some_and(same) {
        return Ok(());
    }
    let len = payload.len();
    Err(Promise::S8.broken(format!("{by:?} passes {id:?} on with {len} bytes that its publisher never said")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::stories::story;

    #[test]
    fn alterations_are_seen() {
        let history = story(1);
        let offered = history.publications.values().next().unwrap();
        let id =
            treecast_scribe::message::MessageId { publisher: offered.publisher, session: 5, sequence: 1 };
        let (by, payload) = (treecast_overlay::id::NodeId(9), offered.payload.clone());
        let right = Envelope { by, topic: offered.topic, id, signature: Signature::None, payload };
        assert_eq!(genuine(&history, &right), Ok(()));
        let shorter = Envelope { payload: right.payload.slice(..9), ..right.clone() };
        assert_eq!(genuine(&history, &shorter).unwrap_err().promise, Promise::S8);
        let stolen = Envelope { id: treecast_scribe::message::MessageId { publisher: by, ..id }, ..right };
        assert!(genuine(&history, &stolen).is_err());
    }
}

//! O2, progress: each hop shares a longer prefix with the key, or an equally long one and is closer; once a hop came
//! from the leaf set, each is strictly closer.

use super::{Promise, Scene, Verdict};
use crate::cluster::witness::Hop;

/// Judges every hop since the last judgement.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    scene.witness.hops.iter().try_for_each(progress)
}

/// Judges one hop on the ring.
pub fn progress(hop: &Hop) -> Verdict {
    let Hop { key, from, to, by_leaf_set } = *hop;
    let (before, after) = (key.shared_prefix(from), key.shared_prefix(to));
    let closer = key.is_closer(to, from);
    let fine = if by_leaf_set { closer } else { after > before || after == before && closer };
    if fine {
        return Ok(());
    }
    Err(Promise::O2.broken(format!(
        "{from:?} passes a message for {key:?} on to {to:?}: {before} digits become {after}, closer: {closer}, \
         after a hop by leaf set: {by_leaf_set}"
    )))
}

#[cfg(test)]
mod tests {
    use treecast_overlay::id::{Key, NodeId};

    use super::progress as judge_hop;
    use super::*;

    #[test]
    fn steps_back_are_seen() {
        let at = |byte: u128| NodeId(byte << 120);
        let key = Key(0x50 << 120);
        let progress = |from, to, by_leaf_set| judge_hop(&Hop { key, from, to, by_leaf_set });
        assert!(progress(at(0x70), at(0x5f), false).is_ok(), "a longer prefix may be farther");
        assert!(progress(at(0x4f), at(0x5f), true).is_err(), "not after the leaf set had its word");
        assert!(progress(at(0x5f), at(0x4f), false).is_err(), "closer with a shorter prefix");
        assert!(progress(at(0x5f), at(0x4f), true).is_ok());
        assert!(progress(at(0x60), at(0x70), false).is_err(), "farther with the same prefix");
        assert!(progress(at(0x60), at(0x60), true).is_err(), "to itself");
    }
}

//! O4, dependable lookup: while its origin lives, a lookup is answered within 60 s, whoever dies on its way.

use std::time::Duration;

use super::{Promise, Scene, Verdict};
use crate::cluster::lookups::{Asked, Failed, LIMIT};

/// How much longer than that until the verdict: the last attempt may still be on its way.
const GRACE: Duration = Duration::from_secs(5);

/// Judges lookups that came to nothing, and those that wait too long. A paused origin waits for nothing.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    let lookups = scene.lookups;
    if let Some(Failed { asked: Asked { slot, at, .. }, why }) = lookups.failed.first() {
        return Err(Promise::O4.broken(format!("slot {slot} asked at {at} and was told: {why}")));
    }
    let runs = |slot: usize| scene.nodes.iter().any(|seen| seen.slot == slot && seen.runs);
    let late = |asked: &&Asked| scene.now - asked.at > LIMIT + GRACE && runs(asked.slot);
    match lookups.open.values().find(late) {
        Some(Asked { slot, at, .. }) => {
            Err(Promise::O4.broken(format!("slot {slot} asked at {at} and has no answer at {}", scene.now)))
        }
        None => Ok(()),
    }
}

/// Whether every lookup is answered.
pub fn judge_open(scene: &Scene<'_>) -> Verdict {
    match scene.lookups.open.first_key_value() {
        Some((token, asked)) => {
            Err(Promise::O4.broken(format!("lookup {token} of slot {} is not answered", asked.slot)))
        }
        None => Ok(()),
    }
}

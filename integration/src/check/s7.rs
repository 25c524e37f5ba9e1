//! S7, cheap idling: the upkeep between the same neighbours costs the same for one topic as for many.

use super::{Promise, Scene, Verdict};
use crate::world::{Counters, Tally};

/// Frames of two rests may differ by this share: jitter moves a few of them over the edges of the time watched.
const FRAMES: f64 = 0.05;
/// And bytes by this one: larger counts and sums are longer varints, by a byte or two a beat.
const BYTES: f64 = 0.1;

/// Beats between two neighbours that are allowed besides one each period: the time watched begins and ends somewhere,
/// periods are jittered, and a beat is answered where two nodes disagree on what they share.
const SPARE: u64 = 3;

/// Judges a rest: tree neighbours tell each other that they live once a period, however many topics they share.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    let rest = &scene.witness.rest;
    let Some(since) = rest.since else { return Ok(()) };
    let time = scene.now - since;
    let allowed = (time.as_secs_f64() / scene.beat.as_secs_f64() * 1.25).ceil() as u64 + SPARE;
    match rest.beats.iter().find(|(_, beats)| **beats > allowed) {
        Some(((from, to), beats)) => Err(Promise::S7.broken(format!(
            "{from:?} told {to:?} {beats} times within {time:?} that it lives; {allowed} are enough for all topics"
        ))),
        None => Ok(()),
    }
}

/// Frames and bytes between two looks at the counters.
pub fn between(before: &Counters, after: &Counters) -> Tally {
    let (before, after) = (before.total(), after.total());
    Tally { sent: after.sent - before.sent, bytes: after.bytes - before.bytes, ..Tally::default() }
}

/// The kinds of frames that make the difference, for people.
pub fn kinds(before: &Counters, after: &Counters) -> String {
    let kinds = after.by_kind().map(|(name, tally)| (name, tally.sent - before.of(name).sent));
    kinds
        .filter(|(_, sent)| *sent > 0)
        .map(|(name, sent)| format!("{name} {sent}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Compares two rests of the same length.
pub fn cheap(few: Tally, many: Tally) -> Result<(), String> {
    let compared = [("frames", few.sent, many.sent, FRAMES), ("bytes", few.bytes, many.bytes, BYTES)];
    for (what, few, many, tolerance) in compared {
        if many as f64 > few as f64 * (1.0 + tolerance) {
            return Err(format!("at rest {few} {what} with few topics, {many} with many"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dear_rests_are_seen() {
        let rest = |sent, bytes| Tally { sent, bytes, ..Tally::default() };
        assert_eq!(cheap(rest(100, 1000), rest(103, 1010)), Ok(()));
        assert!(cheap(rest(100, 1000), rest(120, 1000)).unwrap_err().contains("frames"));
        assert!(cheap(rest(100, 1000), rest(100, 9000)).unwrap_err().contains("bytes"));
    }
}

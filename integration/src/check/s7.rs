//! S7, cheap idling: the upkeep between the same neighbours costs the same for one topic as for many.

use crate::world::{Counters, Tally};

/// Rests compared may differ by this share: jitter moves a few frames over the edges of the time watched.
const TOLERANCE: f64 = 0.05;

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
    for (what, few, many) in [("frames", few.sent, many.sent), ("bytes", few.bytes, many.bytes)] {
        if many as f64 > few as f64 * (1.0 + TOLERANCE) {
            return Err(format!("S7: at rest {few} {what} with few topics, {many} with many"));
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

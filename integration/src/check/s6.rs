//! S6, isolation: a subscriber that takes nothing, or little, slows no other. (That it grows nobody's memory is an invariant of the
//! forest, which is asked for every second.)

use std::time::Duration;

use treecast_overlay::time::Instant;

use super::{Promise, Scene, Verdict};
use crate::cluster::history::{History, Watched, token};

/// Sizes that a subscriber that takes nothing must not let grow beyond their limits, at any node.
pub(super) const HELD: [&str; 4] =
    ["messages in one window", "bytes in one window", "bytes of all windows", "children in one tree"];
/// How long a message may take, from its publication to its last delivery, while all is well.
const LIMIT: Duration = Duration::from_secs(5);

/// Judges the memory of every node: what it holds for those that take nothing.
pub fn judge(scene: &Scene<'_>) -> Verdict {
    for (seen, forest) in scene.forests() {
        for (name, size, own) in forest.sizes() {
            let limit = scene.limits.get(name).copied().unwrap_or(own);
            if HELD.contains(&name) && size > limit {
                let what = format!(
                    "slot {} holds {size} {name}, for whoever is slow; allowed are {limit}",
                    seen.slot
                );
                return Err(Promise::S6.broken(what));
            }
        }
    }
    Ok(())
}

/// Judges the delays of what was published since all is well.
pub fn judge_delays(scene: &Scene<'_>) -> Verdict {
    let Some(calm) = scene.calm else { return Ok(()) };
    let verdict = undisturbed_since(scene.history, calm, LIMIT, |watched| !watched.stalled);
    verdict.map(drop).map_err(|what| Promise::S6.broken(what))
}

/// Whether every message came to those that always took them within `limit` of its publication. Says what the slowest took.
pub fn undisturbed(history: &History, limit: Duration) -> Result<Duration, String> {
    undisturbed_since(history, Instant::ZERO, limit, |watched| !watched.was_stalled)
}

fn undisturbed_since(
    history: &History,
    since: Instant,
    limit: Duration,
    counts: impl Fn(&Watched) -> bool,
) -> Result<Duration, String> {
    let mut slowest = Duration::ZERO;
    for (id, watched) in history.subscriptions.iter().filter(|(_, watched)| counts(watched)) {
        for (at, message) in watched.messages() {
            let Some(offered) = token(&message.payload).and_then(|token| history.publications.get(&token))
            else {
                continue;
            };
            // A later subscriber got it as history.
            let awaited = watched.mark.is_some_and(|(started, _)| started <= offered.at);
            if offered.at < since || !awaited {
                continue;
            }
            let took = at - offered.at;
            if took > limit {
                return Err(format!("{id:?} in slot {} waited {took:?} for {:?}", watched.slot, message.id));
            }
            slowest = slowest.max(took);
        }
    }
    Ok(slowest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::stories::story;

    #[test]
    fn delays_are_seen() {
        let mut history = story(3);
        let limit = Duration::from_millis(100);
        assert!(undisturbed(&history, limit).is_ok());
        let watched = history.subscriptions.first_entry().unwrap().into_mut();
        watched.items[2].0 = watched.items[2].0 + limit;
        assert!(undisturbed(&history, limit).unwrap_err().contains("waited"));
        history.subscriptions.first_entry().unwrap().get_mut().was_stalled = true;
        assert!(undisturbed(&history, limit).is_ok(), "it is the slow one itself");
    }
}

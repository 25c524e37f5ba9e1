//! S6, isolation: who takes nothing, or little, slows nobody else. (That it grows nobody's memory is an invariant of the
//! forest, which the grove asks for every second.)

use std::time::Duration;

use crate::history::{History, token};

/// Whether every message came to those that take them within `limit` of its publication. Says what the slowest took.
pub fn undisturbed(history: &History, limit: Duration) -> Result<Duration, String> {
    let mut slowest = Duration::ZERO;
    for (id, watched) in history.subscriptions.iter().filter(|(_, watched)| !watched.stalled) {
        for (at, message) in watched.messages() {
            let Some(offered) = token(&message.payload).and_then(|token| history.publications.get(&token))
            else {
                continue;
            };
            let took = at - offered.at;
            if took > limit {
                return Err(format!(
                    "S6: {id:?} in slot {} waited {took:?} for {:?}",
                    watched.slot, message.id
                ));
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
        history.subscriptions.first_entry().unwrap().get_mut().stalled = true;
        assert!(undisturbed(&history, limit).is_ok(), "it is the slow one itself");
    }
}

//! What came when, second by second: how a scenario's applications fare while things happen.

use std::collections::BTreeMap;

use treecast_overlay::time::Instant;

use crate::history::{History, token};
use crate::report::{Axis, Kind, Plot, Report, Series, Sheet};

/// A second of the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Second {
    published: u64,
    delivered: u64,
    /// The longest way of those delivered, in seconds, waiting included.
    slowest: f64,
}

/// By the seconds since `begin`; those in which nothing was published nor delivered are left out.
fn seconds(history: &History, begin: Instant) -> BTreeMap<u64, Second> {
    let mut seconds: BTreeMap<u64, Second> = BTreeMap::new();
    for offered in history.publications.values() {
        seconds.entry((offered.at - begin).as_secs()).or_default().published += 1;
    }
    for watched in history.subscriptions.values() {
        for (at, message) in watched.messages() {
            let second = seconds.entry((at - begin).as_secs()).or_default();
            second.delivered += 1;
            let offered = token(&message.payload).and_then(|token| history.publications.get(&token));
            let took = offered.map_or(0.0, |offered| (at - offered.at).as_secs_f64());
            second.slowest = second.slowest.max(took);
        }
    }
    seconds
}

/// Adds the table and its pictures.
pub(super) fn add_to(report: &mut Report, history: &History, begin: Instant) {
    let seconds = seconds(history, begin);
    let line = |name: &str, value: fn(&Second) -> f64| Series {
        name: name.to_string(),
        kind: Kind::Line,
        points: seconds.iter().map(|(at, second)| (*at as f64, value(second))).collect(),
    };
    let across = || Axis::of("seconds since the timeline began");
    report.plots.push(Plot {
        name: "deliveries",
        title: "What came when".to_string(),
        x: across(),
        y: Axis::of("messages a second"),
        series: vec![
            line("published", |second| second.published as f64),
            line("delivered, to all subscribers together", |second| second.delivered as f64),
        ],
    });
    report.plots.push(Plot {
        name: "delays",
        title: "How late it came".to_string(),
        x: across(),
        y: Axis::of("slowest delivery of a second, s"),
        series: vec![line("from publication to delivery", |second| second.slowest)],
    });
    report.sheets.push(Sheet {
        name: "seconds",
        columns: vec!["second", "published", "delivered", "slowest_s"],
        rows: seconds
            .iter()
            .map(|(at, s)| vec![*at as f64, s.published as f64, s.delivered as f64, s.slowest])
            .collect(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::stories::story;

    #[test]
    fn each_second_has_its_own() {
        let history = story(4);
        let all = seconds(&history, Instant::ZERO);
        let published: u64 = all.values().map(|second| second.published).sum();
        let delivered: u64 = all.values().map(|second| second.delivered).sum();
        assert_eq!(published, history.publications.len() as u64);
        assert_eq!(delivered, history.deliveries());
        let slowest = all.values().map(|second| second.slowest).fold(0.0, f64::max);
        assert!(slowest > 0.0, "{all:?}");
    }
}

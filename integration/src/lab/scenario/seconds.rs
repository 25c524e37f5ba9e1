//! Messages second by second: how a scenario's applications fare while things happen.

use treecast_overlay::time::Instant;

use crate::cluster::history::{History, token};
use crate::report::{Axis, Kind, Plot, Report, Series, Sheet};

/// A second of the timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Second {
    published: u64,
    delivered: u64,
    /// The longest way of those delivered, in seconds, waiting included.
    slowest: f64,
}

/// By the seconds since `begin`.
fn seconds(history: &History, begin: Instant) -> Vec<Second> {
    let mut seconds: Vec<Second> = Vec::new();
    for offered in history.publications.values() {
        of(&mut seconds, begin, offered.at).published += 1;
    }
    for watched in history.subscriptions.values() {
        for (at, message) in watched.messages() {
            let offered = token(&message.payload).and_then(|token| history.publications.get(&token));
            let took = offered.map_or(0.0, |offered| (at - offered.at).as_secs_f64());
            let second = of(&mut seconds, begin, at);
            second.delivered += 1;
            second.slowest = second.slowest.max(took);
        }
    }
    seconds
}

/// The second of this instant; there are none beyond the last one that was asked for.
fn of(seconds: &mut Vec<Second>, begin: Instant, at: Instant) -> &mut Second {
    let place = (at - begin).as_secs() as usize;
    seconds.resize(seconds.len().max(place + 1), Second::default());
    &mut seconds[place]
}

/// Adds the table and its pictures.
pub(super) fn add_to(report: &mut Report, history: &History, begin: Instant) {
    let seconds = seconds(history, begin);
    let line = |name: &str, value: fn(&Second) -> f64| Series {
        name: name.to_string(),
        kind: Kind::Line,
        points: seconds.iter().enumerate().map(|(at, second)| (at as f64, value(second))).collect(),
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
            .enumerate()
            .map(|(at, s)| vec![at as f64, s.published as f64, s.delivered as f64, s.slowest])
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
        let published: u64 = all.iter().map(|second| second.published).sum();
        let delivered: u64 = all.iter().map(|second| second.delivered).sum();
        assert_eq!(published, history.publications.len() as u64);
        assert_eq!(delivered, history.deliveries());
        let slowest = all.iter().map(|second| second.slowest).fold(0.0, f64::max);
        assert!(slowest > 0.0, "{all:?}");
    }
}

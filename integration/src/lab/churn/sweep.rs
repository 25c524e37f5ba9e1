//! `lab churn --sweep`: from sessions of minutes to sessions of hours, with and without loss.

use serde_json::json;

use super::figures::{self, small};
use super::{ChurnOptions, measure};
use crate::lab::{Error, Progress};
use crate::report::{Axis, Figures, Kind, Plot, Report, Row, Series, Sheet, show};

/// Medians of sessions, in minutes.
const MEDIANS: [f64; 6] = [5.0, 15.0, 30.0, 60.0, 120.0, 600.0];
/// Frames that vanish, in percent.
const LOSSES: [f64; 3] = [0.0, 1.0, 5.0];

pub(super) fn run(options: &ChurnOptions, progress: &Progress) -> Result<Report, Error> {
    let cells: Vec<ChurnOptions> = LOSSES.iter().flat_map(|&loss| row(options, loss)).collect();
    let (mut runs, mut faults) = (Vec::new(), Vec::new());
    for (done, cell) in cells.iter().enumerate() {
        let name = format!("{} min, loss {} %", cell.session_median, cell.loss);
        progress.phase("sweep", cells.len() as u64);
        progress.at(done as u64, name.clone());
        let (run, seen) = measure(cell, &Progress::hidden())?;
        faults.extend(figures::faults(&seen).into_iter().map(|fault| format!("{name}: {fault}")));
        runs.push(figures::figures(&run, cell, &seen));
    }
    let mut report = Report { experiment: "churn", faults, ..Report::default() };
    report.conditions = vec![
        ("nodes", options.setting.nodes().to_string()),
        ("topology", options.setting.topology().to_string()),
        ("profile", options.setting.profile.to_string()),
        ("sessions", format!("{:?}", options.trace).to_lowercase()),
        ("lookups each", options.lookups.to_string()),
        ("seed", options.setting.seed.to_string()),
    ];
    report.rows = runs.iter().map(table_row).collect();
    report.sheets = vec![sheet(&runs)];
    report.plots = plots(&runs);
    let runs: Vec<_> = runs.into_iter().map(|run| run.json).collect();
    report.json = json!({ "experiment": "churn --sweep", "runs": runs }).to_string();
    Ok(report)
}

fn row(options: &ChurnOptions, loss: f64) -> impl Iterator<Item = ChurnOptions> {
    let cell = move |session_median| ChurnOptions { session_median, loss, sweep: false, ..options.clone() };
    MEDIANS.into_iter().map(cell)
}

fn table_row(run: &Figures) -> Row {
    let number = |key: &str| run.number(key).unwrap_or(f64::NAN);
    let name = format!("{:>3} min, loss {} %", number("session_median_min"), number("loss_percent"));
    let ring = if run.json.get("ring_correct") == Some(&true.into()) { "one ring" } else { "NOT ONE RING" };
    let ours = format!(
        "lost {} ({}), wrong {}, stretch {}, control {} msgs {} B, unclaimed p99 {} ms, {ring}",
        number("lost"),
        small(number("lost_rate")),
        number("wrong"),
        show(run.number("stretch_mean")),
        show(run.number("control_msgs_per_node_s")),
        show(run.number("control_bytes_per_node_s")),
        run.number("unclaimed_ms_p99").map_or("-".to_string(), |ms| format!("{ms:.0}")),
    );
    Row::ours(name, ours)
}

fn sheet(runs: &[Figures]) -> Sheet {
    let columns = vec![
        "session_median_min",
        "loss_percent",
        "lookups",
        "lost_rate",
        "wrong_rate",
        "stretch_mean",
        "control_msgs_per_node_s",
        "control_bytes_per_node_s",
        "unclaimed_ms_p99",
    ];
    let row = |run: &Figures| columns.iter().map(|key| run.number(key).unwrap_or(f64::NAN)).collect();
    Sheet { name: "churn", rows: runs.iter().map(row).collect(), columns }
}

fn plots(runs: &[Figures]) -> Vec<Plot> {
    let lines = |figure: &dyn Fn(&Figures) -> Option<f64>| -> Vec<Series> {
        let line = |&loss: &f64| {
            let cells = runs.iter().filter(|run| run.number("loss_percent") == Some(loss));
            let points =
                cells.filter_map(|run| Some((run.number("session_median_min")?, figure(run)?))).collect();
            Series::new(&format!("loss {loss} %"), Kind::Line, points)
        };
        LOSSES.iter().map(line).collect()
    };
    let across = || Axis { logarithmic: true, ..Axis::of("median of the sessions, minutes") };
    let plot =
        |name, title: &str, y: Axis, series| Plot { name, title: title.to_string(), x: across(), y, series };
    let mut control = lines(&|run| run.number("control_msgs_per_node_s"));
    control.push(Series::new(
        "MSPastry, Gnutella trace (unverified)",
        Kind::Dashed,
        vec![(MEDIANS[0], 0.245), (MEDIANS[5], 0.245)],
    ));
    // A run that lost nothing has no place on a logarithmic axis: nothing is drawn as less than one in the
    // run.
    let least = |run: &Figures| Some(run.number("lost_rate")?.max(0.5 / run.number("lookups")?));
    vec![
        plot(
            "churn",
            "Control traffic under churn",
            Axis::of("control messages per node and second"),
            control,
        ),
        plot(
            "churn_lost",
            "Lookups lost under churn",
            Axis { logarithmic: true, ..Axis::of("share of lookups lost (none: half of one)") },
            lines(&least),
        ),
        plot(
            "churn_unclaimed",
            "How long dead nodes' ranges are nobody's",
            Axis::of("99 % of the crashes, milliseconds"),
            lines(&|run| run.number("unclaimed_ms_p99")),
        ),
        plot("churn_stretch", "Stretch under churn", Axis::of("mean stretch, waiting included"), {
            lines(&|run| run.number("stretch_mean"))
        }),
    ]
}

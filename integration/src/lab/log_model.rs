//! `lab log-model`: every order in which roots and members of one log can change, lose messages and end, within bounds,
//! by `stateright`.

use clap::Args;
use serde_json::json;

use crate::lab::memory;
use crate::lab::{Error, Progress};
use crate::model::log::{self, LogBounds, LogExplored};
use crate::report::{Figures, Report};

/// Options of `lab log-model`.
#[derive(Args, Clone, Debug)]
pub struct LogModelOptions {
    #[command(flatten)]
    bounds: LogBounds,
    /// Give up after so many states, those met before included
    #[arg(long, value_name = "STATES")]
    limit: Option<usize>,
}

/// Explores the model.
pub fn run(options: &LogModelOptions, progress: &Progress) -> Result<Report, Error> {
    let begin = std::time::Instant::now();
    progress.phase("states", 0);
    let outcome = log::explore(options.bounds.clone(), options.limit, |unique, depth| {
        progress.at(unique as u64, format!("depth {depth}"));
    });
    Ok(report(&options.bounds, &outcome, begin.elapsed().as_secs_f64()))
}

fn report(bounds: &LogBounds, outcome: &LogExplored, wall_s: f64) -> Report {
    let LogBounds { nodes, values, takeovers, changes, restarts, drops, hears, .. } = bounds;
    let LogBounds { to, roots, piecemeal, prompt, plant, .. } = bounds;
    let LogExplored { unique, generated, depth, complete, broken, missing } = outcome;
    let plant = plant.map(|bug| format!("{bug:?}"));
    let mut figures = Figures::of(&json!({
        "experiment": "log-model",
        "nodes": nodes, "values": values, "takeovers": takeovers, "changes": changes, "restarts": restarts,
        "drops": drops, "hears": hears, "to": to, "roots": roots, "piecemeal": piecemeal, "prompt": prompt, "plant": plant,
        "depth": depth, "complete": complete, "impossible": missing, "wall_s": wall_s,
        "broken": broken.iter().map(|(name, path)| json!({"promise": name, "path": path})).collect::<Vec<_>>(),
    }));
    figures.count("unique_states", "unique states", *unique as u64);
    figures.count("generated_states", "states met", *generated as u64);
    figures.tell("steps to the farthest state", depth.saturating_sub(1).to_string());
    figures.tell("explored", if *complete { "all" } else { "in part" });
    figures.tell("time", format!("{wall_s:.1} s"));
    let peak = memory::peak();
    figures.tell("memory", peak.map_or("unknown".to_string(), |peak| format!("{:.2} GB", peak as f64 / 1e9)));
    figures.set("peak_bytes", peak);
    let mut faults: Vec<String> = Vec::new();
    for (name, path) in broken {
        faults.push(format!("{name}, broken after:\n    {}", path.join("\n    ")));
    }
    faults.extend(missing.iter().map(|name| format!("impossible: {name}")));
    let conditions = vec![
        ("nodes", format!("{nodes}, three of them members at first")),
        ("messages, takeovers, changes", format!("{values}, {takeovers}, {changes}")),
        ("restarts, drops, entries heard from others", format!("{restarts}, {drops}, {hears}")),
        ("entries", if *piecemeal { "come one by one" } else { "come together" }.to_string()),
        ("planted", plant.unwrap_or_else(|| "nothing".to_string())),
    ];
    Report { experiment: "log-model", conditions, faults, ..Report::default() }.with(figures)
}

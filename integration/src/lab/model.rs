//! `lab model`: every order in which a few real nodes can join, lose frames and crash, within bounds, by `stateright`.

use clap::Args;
use serde_json::json;

use crate::lab::memory;
use crate::lab::{Error, Progress};
use crate::model::{self, Bounds, Explored, Gaps};
use crate::report::{Figures, Report};

/// Most nodes in one model: more are out of reach of any machine.
const MOST_NODES: usize = 8;

/// Options of `lab model`.
#[derive(Args, Clone, Debug)]
pub struct ModelOptions {
    #[command(flatten)]
    bounds: Bounds,
    /// Give up after so many states, those met before included (some 1 kB of memory each)
    #[arg(long, value_name = "STATES")]
    limit: Option<usize>,
}

/// Explores the model.
pub fn run(options: &ModelOptions, progress: &Progress) -> Result<Report, Error> {
    let bounds = &options.bounds;
    if bounds.ring + bounds.joiners > MOST_NODES {
        return Err(Error::Usage(format!("--ring and --joiners: no more than {MOST_NODES} nodes together")));
    }
    let begin = std::time::Instant::now();
    progress.phase("states", 0);
    let outcome = model::explore(bounds.clone(), options.limit, |unique, depth| {
        progress.at(unique as u64, format!("depth {depth}"));
    });
    Ok(report(bounds, &outcome, begin.elapsed().as_secs_f64()))
}

fn report(bounds: &Bounds, outcome: &Explored, wall_s: f64) -> Report {
    let &Bounds { ring, joiners, gaps, together, crashes, losses, duplicates, delays, .. } = bounds;
    let &Bounds { attempts, reorder, ride, talk, plant, .. } = bounds;
    let Explored { unique, generated, depth, complete, broken, missing } = outcome;
    let plant = plant.map(|bug| format!("{bug:?}"));
    let mut figures = Figures::of(&json!({
        "experiment": "model",
        "ring": ring, "joiners": joiners, "gaps": format!("{gaps:?}"), "together": together, "crashes": crashes, "losses": losses,
        "duplicates": duplicates, "delays": delays, "attempts": attempts, "reorder": reorder, "ride": ride, "talk": talk,
        "plant": plant, "depth": depth, "complete": complete, "impossible": missing, "wall_s": wall_s,
        "broken": broken.iter().map(|(name, path)| json!({"promise": name, "path": path})).collect::<Vec<_>>(),
    }));
    figures.count("unique_states", "unique states", *unique as u64);
    figures.count("generated_states", "states met", *generated as u64);
    figures.tell("steps to the farthest state", (depth - 1).to_string());
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
    if !complete && broken.is_empty() {
        faults.push("not explored to the end: --limit".to_string());
    }
    let either = |is_so: bool, [yes, no]: [&str; 2]| if is_so { yes } else { no }.to_string();
    let place = either(gaps == Gaps::Same, ["in one gap", "in gaps of their own"]);
    let start = either(together, ["starting together", "starting whenever they like"]);
    let conditions = vec![
        ("ring", ring.to_string()),
        ("joiners", format!("{joiners}, {place}, {start}")),
        ("crashes", crashes.to_string()),
        ("losses, duplicates, quarters of delay", format!("{losses}, {duplicates}, {delays}")),
        ("unanswered probes for a verdict", attempts.to_string()),
        ("frames of one connection", either(reorder, ["in any order", "in order"])),
        ("leases", either(ride, ["ride along with other frames", "have frames of their own"])),
        ("small talk", either(talk, ["takes its time", "takes no time"])),
        ("planted", plant.unwrap_or_else(|| "nothing".to_string())),
    ];
    Report { experiment: "model", conditions, faults, ..Report::default() }.with(figures)
}

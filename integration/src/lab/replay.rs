//! `lab replay`: one seed of the swarm again, and every step of it in words: all that happened, all that nodes
//! told each other and applications heard, and the verdict.

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;

use clap::Args;
use serde_json::json;

use treecast_overlay::pastry::Node;

use crate::lab::swarm::{Choice, SeedOutcome, SwarmRun, run_prepared};
use crate::lab::{Error, RingGeometry};
use crate::node::{FullNode, RingNode};
use crate::report::{Figures, Report};

/// Options of `lab replay`.
#[derive(Args, Clone, Debug)]
pub struct ReplayOptions {
    /// The seed, as the swarm names it
    #[arg(long, value_name = "S")]
    pub seed: u64,
    /// The last step to be told; the run goes on to its verdict in silence
    #[arg(long, value_name = "STEP")]
    pub until: Option<u64>,
    #[command(flatten)]
    choice: Choice,
}

/// Runs the seed and tells it on stdout.
pub fn run(options: &ReplayOptions) -> Result<Report, Error> {
    let begin = std::time::Instant::now();
    let say = |line: &str| {
        // A reader that has enough closes the pipe: the verdict is all that is left to do.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    };
    let until = options.until.unwrap_or(u64::MAX);
    let outcome = match options.choice.geometry {
        RingGeometry::Pastry => tell(options.choice.prepare::<Node>(options.seed), until, say),
        RingGeometry::Full => tell(options.choice.prepare::<FullNode>(options.seed), until, say),
    };
    let mut figures = Figures::of(&json!({ "experiment": "replay", "seed": options.seed }));
    figures.tell("steps", outcome.steps.to_string());
    figures.tell("trace hash", &outcome.trace_hash[..16]);
    let verdict = outcome.fault.clone().unwrap_or_else(|| "all promises are kept".to_string());
    figures.tell("verdict", verdict);
    figures.set("fault", &outcome.fault);
    figures.set("events", outcome.events);
    figures.set("trace_hash", outcome.trace_hash);
    figures.set_cost(outcome.steps, begin.elapsed());
    let conditions = vec![("seed", options.seed.to_string())];
    let faults = outcome.fault.into_iter().collect();
    Ok(Report { experiment: "replay", conditions, faults, ..Report::default() }.with(figures))
}

/// Runs it to its end; `say` gets each line up to a step.
pub fn tell<N: RingNode>(
    mut run: SwarmRun<N>,
    until: u64,
    say: impl Fn(&str) + Clone + 'static,
) -> SeedOutcome {
    say(&run.plan.to_string());
    let cluster = &mut run.timeline.cluster;
    let step = Rc::new(Cell::new(0));
    let (now, aloud) = (Rc::clone(&step), say.clone());
    cluster.world.listen(move |number, what| {
        now.set(number);
        if number <= until {
            aloud(&what.to_string());
        }
    });
    cluster.witness.borrow_mut().listener = Some(Box::new(move |line| {
        if step.get() <= until {
            say(line);
        }
    }));
    run_prepared(run)
}

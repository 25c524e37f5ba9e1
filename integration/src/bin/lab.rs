//! The laboratory's command: `cargo run --release -p treecast-integration --bin lab -- EXPERIMENT …`.
//!
//! A table on stdout, figures beside those of others; with `--json` one object as the last line; with `--out` files to
//! look at. Exit code 1 if a promise failed or something was lost, wrong or missed, 2 if the command makes no sense.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use treecast_integration::lab::pages::start_with_huge_pages;
use treecast_integration::lab::{
    Error, Output, Progress, broadcast, churn, delivery, faults, ideal, log_model, model, multicast, replay,
    routing, scenario, swarm, upkeep,
};
use treecast_integration::report::{self, Report};

/// The very nodes that ship, many of them, in virtual time: figures beside the papers', faults by seed.
#[derive(Parser)]
#[command(name = "lab", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    experiment: Experiment,
    #[command(flatten)]
    output: Output,
}

#[derive(Subcommand)]
enum Experiment {
    Routing(routing::RoutingOptions),
    Multicast(multicast::MulticastOptions),
    Broadcast(broadcast::BroadcastOptions),
    Delivery(delivery::DeliveryOptions),
    Bulk(delivery::bulk::BulkOptions),
    Churn(churn::ChurnOptions),
    Faults(faults::FaultsOptions),
    /// Many small worlds drawn from seeds, under all judges
    Swarm(swarm::SwarmOptions),
    /// One seed of the swarm again, every step in words
    Replay(replay::ReplayOptions),
    Upkeep(upkeep::UpkeepOptions),
    Ideal(ideal::IdealOptions),
    /// All that can happen among a few nodes, by a model checker
    Model(model::ModelOptions),
    /// All that can happen to one replicated log, by a model checker
    LogModel(log_model::LogModelOptions),
    /// A described run: nodes, topics, a timeline of faults, expectations
    Scenario(scenario::ScenarioOptions),
}

impl Experiment {
    fn run(&self, progress: &Progress) -> Result<Report, Error> {
        match self {
            Experiment::Routing(options) => routing::run(options, progress),
            Experiment::Multicast(options) => multicast::run(options, progress),
            Experiment::Broadcast(options) => broadcast::run(options, progress),
            Experiment::Delivery(options) => delivery::run(options, progress),
            Experiment::Bulk(options) => delivery::bulk::run(options, progress),
            Experiment::Churn(options) => churn::run(options, progress),
            Experiment::Faults(options) => faults::run(options, progress),
            Experiment::Swarm(options) => swarm::run(options, progress),
            Experiment::Replay(options) => replay::run(options),
            Experiment::Upkeep(options) => upkeep::run(options, progress),
            Experiment::Ideal(options) => Ok(ideal::run(options)),
            Experiment::LogModel(options) => log_model::run(options, progress),
            Experiment::Model(options) => model::run(options, progress),
            Experiment::Scenario(options) => scenario::run(options, progress),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_with_huge_pages();
    match run(&cli.experiment, &cli.output) {
        Ok(report) if report.faults.is_empty() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Runs the experiment and hands its report to where it was asked for.
fn run(experiment: &Experiment, output: &Output) -> Result<Report, Error> {
    let refused = |error: report::OutError| Error::Usage(error.to_string());
    if let Some(dir) = &output.out {
        report::prepare(dir).map_err(refused)?;
    }
    let progress = Progress::on_terminal();
    let outcome = experiment.run(&progress);
    progress.finish();
    let report = outcome?;
    say(&report.to_text());
    if let Some(dir) = &output.out {
        report.write(dir).map_err(refused)?;
        say(&format!("\nwritten to {}", dir.display()));
    }
    if output.json {
        say(&report.json);
    }
    Ok(report)
}

/// A reader that has enough closes the pipe: the exit code says the rest.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

//! The command line of a long run.

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser};

/// Kills, pauses and restarts `treecast` processes at random, and compares receipts with what each subscriber printed.
#[derive(Clone, Debug, Parser)]
#[command(name = "chaos")]
pub(crate) struct Options {
    /// What is chosen at random follows from it
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How long things go wrong, before all come back and the judge begins
    #[arg(long, default_value_t = 1.0)]
    pub(crate) minutes: f64,
    /// Nodes of the ring, at least 4
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..))]
    pub(crate) nodes: u64,
    /// Publishers, at least 2: one always goes on
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(2..))]
    pub(crate) publishers: u64,
    /// Subscribers
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) subscribers: u64,
    /// Lines a second that each publisher publishes
    #[arg(long, default_value_t = 25.0)]
    pub(crate) rate: f64,
    /// Deaths come closer together than repair takes: then a loss passes if a gap covers it
    #[arg(long)]
    pub(crate) brutal: bool,
    /// Where the processes' logs go; TREECAST_LOG says how much there is [default: a temporary directory, which is kept if the run fails]
    #[arg(long, value_name = "DIR")]
    pub(crate) logs: Option<PathBuf>,
    /// In place of all this: the topic's root is stopped for so long, and woken
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["minutes", "nodes", "brutal"])]
    pub(crate) stop_root: Option<u64>,
}

impl Options {
    /// `None`: no option of ours is given, so this is a test among others.
    pub(crate) fn of_a_long_run() -> Option<Options> {
        let command = Options::command();
        let ours: Vec<&str> = command.get_arguments().filter_map(|argument| argument.get_long()).collect();
        let is_ours = |argument: String| {
            let name = argument.strip_prefix("--").and_then(|name| name.split('=').next());
            name.is_some_and(|name| ours.contains(&name))
        };
        env::args().skip(1).any(is_ours).then(Options::parse)
    }

    /// A run that is short enough for the tests.
    pub(crate) fn short(seed: u64, brutal: bool) -> Options {
        Options { seed, brutal, ..Options::parse_from(["chaos", "--minutes", "0.4", "--nodes", "6"]) }
            .with_few_clients()
    }

    fn with_few_clients(self) -> Options {
        Options { publishers: 2, subscribers: 2, ..self }
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.minutes * 60.0)
    }
}

/// The command that does the same again.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { seed, minutes, nodes, publishers, subscribers, rate, .. } = self;
        write!(
            f,
            "cargo test -p treecast --release --test chaos -- --seed {seed} --minutes {minutes} --nodes {nodes} \
             --publishers {publishers} --subscribers {subscribers} --rate {rate}{}",
            if self.brutal { " --brutal" } else { "" },
        )
    }
}

//! Processes that are killed, paused and started again while others publish and print. Without options this is a test like
//! others, and takes a minute. With them it is a long run:
//!
//! ```sh
//! cargo test -p treecast --release --test chaos -- --minutes 30 --nodes 20 --seed 7
//! cargo test -p treecast --release --test chaos -- --minutes 30 --nodes 20 --seed 7 --brutal
//! cargo test -p treecast --release --test chaos -- --stop-root 60
//! ```
//!
//! A seed gives the same choices again, but not the same instants: the processes and the machine have their own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(unix)]
mod options;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod stories;
#[cfg(unix)]
#[path = "../support/mod.rs"]
mod support;
#[cfg(unix)]
mod town;

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    use libtest_mimic::{Arguments, Trial};

    if let Some(options) = options::Options::of_a_long_run() {
        return match options.stop_root {
            Some(seconds) => stories::stop_root_for(std::time::Duration::from_secs(seconds)),
            None => run::run(&options),
        };
    }
    let trial = |(name, story): (&str, fn())| {
        Trial::test(name, move || {
            story();
            Ok(())
        })
    };
    // Each keeps two cores busy with the processes of a town.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, stories::STORIES.map(trial).into()).exit_code()
}

#[cfg(not(unix))]
fn main() {
    println!("SKIPPED: chaos among processes: it needs SIGKILL, SIGSTOP and SIGCONT");
}

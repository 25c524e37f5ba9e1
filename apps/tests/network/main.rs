//! Real processes on a real network that breaks: hosts are network namespaces, nftables loses frames and cuts links, and
//! a slow cable delays. Each story runs in namespaces of its own, which end with it; where none can be made, the stories
//! are skipped, and say what is missing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(target_os = "linux")]
mod cable;
#[cfg(target_os = "linux")]
mod net;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod stories;
#[cfg(target_os = "linux")]
#[path = "../support/mod.rs"]
mod support;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    use libtest_mimic::{Arguments, Trial};

    if sandbox::run_inside(&stories::STORIES) {
        return std::process::ExitCode::SUCCESS;
    }
    let trial = |story: &sandbox::Story| {
        let story = *story;
        Trial::ignorable_test(story.name, move || sandbox::run(story))
    };
    let trials = stories::STORIES.iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("SKIPPED: faults on a real network: they need Linux's network namespaces");
}

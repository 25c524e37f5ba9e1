//! The `treecast` command.

mod options;

mod failure;
mod interrupt;
mod lines;
mod output;

mod connect;

mod broadcast;
mod chat;
mod node;
mod publish;
mod subscribe;
mod topic;
mod trace;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::options::{Command, Options};
use crate::output::say;

fn main() -> ExitCode {
    let options = Options::parse().checked().unwrap_or_else(|error| error.exit());
    start_log(&options);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format_args!("treecast: no runtime: {error}"));
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(run(options));
    // A read of stdin that is under way must not keep the process alive.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                say(format_args!("treecast: {text}"));
            }
            failure.exit_code()
        }
    }
}

async fn run(options: Options) -> Result<(), Failure> {
    let interrupt = Interrupt::listen().map_err(|error| Failure::Failed(format!("no signals: {error}")))?;
    let Options { node, command } = options;
    match command {
        Command::Broadcast(messages) => broadcast::run(&node, messages, interrupt).await,
        Command::Chat(chat) => chat::run(&node, chat, interrupt).await,
        Command::Node => node::run(&node, interrupt).await,
        Command::Publish(publish) => publish::run(&node, publish, interrupt).await,
        Command::Subscribe(subscribe) => subscribe::run(&node, subscribe, interrupt).await,
        Command::Topic(topic) => topic::run(&node, topic, interrupt).await,
        Command::Trace(target) => trace::run(&node, target, interrupt).await,
    }
}

/// Log lines go to stderr: warnings only, or more by `-v`, or what `TREECAST_LOG` says. The chat's full screen and
/// log lines cannot share a terminal: there the lines are left out, `2>chat.log` shows them.
fn start_log(options: &Options) {
    let level = match options.node.verbose {
        0 => "warn",
        1 => "warn,treecast=info,treecast_overlay=info,treecast_scribe=info",
        2 => "info,treecast=debug,treecast_overlay=debug,treecast_scribe=debug",
        _ => "trace",
    };
    let on_terminal = std::io::stderr().is_terminal();
    let full_screen = matches!(options.command, Command::Chat(_)) && chat::is_full_screen();
    if full_screen && on_terminal {
        return;
    }
    let filter = EnvFilter::try_from_env("TREECAST_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(on_terminal)
        .log_internal_errors(false)
        .init();
}

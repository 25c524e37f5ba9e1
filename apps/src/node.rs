//! `treecast node`: a node that stays until it is told to go, and shows what is broadcast meanwhile.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::json;
use treecast_scribe::{Broadcasts, Scribe, Stopped};

use crate::broadcast::{broadcast_line, broadcast_talk, say_missed};
use crate::connect::{Kind, connect};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::options::NodeOptions;
use crate::output::{Output, say};

/// How long the last line waits for a reader of stdout.
const LAST_WORD: Duration = Duration::from_secs(1);

pub(crate) async fn run(options: &NodeOptions, interrupt: Interrupt) -> Result<(), Failure> {
    let node = connect(options, Kind::Ring, &interrupt).await?;
    let mut output = Output::new();
    let broadcasts = node.broadcasts();
    print_ready(&node, options, &mut output).await;
    let why = tokio::select! {
        () = interrupt.wait() => None,
        why = node.stopped() => Some(why),
        never = print_broadcasts(broadcasts, options, &mut output) => match never {},
    };
    node.shutdown().await;
    let reason = why.as_ref().map_or_else(|| "interrupted".to_string(), Stopped::to_string);
    if options.json {
        output.json(&json!({"event": "stopped", "reason": reason}));
        let _ = tokio::time::timeout(LAST_WORD, output.flush()).await;
    }
    match why {
        None => Ok(()),
        Some(why) => Err(Failure::Failed(format!("the node has stopped: {why}"))),
    }
}

/// Shows broadcasts for as long as it is polled. If nobody reads stdout, they wait with the node, which keeps so many.
async fn print_broadcasts(
    mut broadcasts: Broadcasts,
    options: &NodeOptions,
    output: &mut Output,
) -> Infallible {
    while let Some(broadcast) = broadcasts.next().await {
        if !options.json {
            say_missed(&broadcast);
            say(broadcast_talk(&broadcast));
            continue;
        }
        output.json(&broadcast_line(&broadcast));
        if output.flush().await.is_err() {
            output.discard();
        }
    }
    // The node has stopped: its reason is told elsewhere.
    std::future::pending().await
}

/// A node goes on also if nobody reads what it says.
async fn print_ready(node: &Scribe, options: &NodeOptions, output: &mut Output) {
    let (id, addr, ticket) = (node.id().to_string(), node.addr().to_string(), node.ticket().to_string());
    if options.json {
        output.json(&json!({"event": "ready", "id": id, "addr": addr, "ticket": ticket}));
    } else {
        output.text(&ticket);
        say(format_args!("ready on {addr}, network `{}`; others join with:", options.network));
        say(format_args!("  treecast chat --join {ticket}"));
    }
    let _ = output.flush().await;
}

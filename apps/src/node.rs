//! `treecast node`: a node that stays until it is told to go.

use serde_json::json;
use treecast_scribe::{Scribe, Stopped};

use crate::connect::{Kind, connect};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::options::NodeOptions;
use crate::output::{Output, say};

pub(crate) async fn run(options: &NodeOptions, interrupt: Interrupt) -> Result<(), Failure> {
    let node = connect(options, Kind::Ring, &interrupt).await?;
    let mut output = Output::new();
    print_ready(&node, options, &mut output).await;
    let why = tokio::select! {
        () = interrupt.wait() => None,
        why = node.stopped() => Some(why),
    };
    node.shutdown().await;
    let reason = why.as_ref().map_or_else(|| "interrupted".to_string(), Stopped::to_string);
    if options.json {
        output.json(&json!({"event": "stopped", "reason": reason}));
        let _ = output.flush().await;
    }
    match why {
        None => Ok(()),
        Some(why) => Err(Failure::Failed(format!("the node has stopped: {why}"))),
    }
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

//! `treecast broadcast`: a word to every node that is there; and how such words are shown by the commands that hear them.

use serde_json::{Map, Value, json};
use treecast_scribe::{Broadcast, Config, Scribe};

use crate::chat::text::harmless;
use crate::connect::{Kind, connect};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::lines::Messages;
use crate::options::{MessageOptions, NodeOptions};
use crate::output::{Output, payload_field, say};

pub(crate) async fn run(
    options: &NodeOptions,
    messages: MessageOptions,
    interrupt: Interrupt,
) -> Result<(), Failure> {
    let node = connect(options, Kind::Edge, &interrupt).await?;
    let mut messages = Messages::new(messages, Config::default().max_broadcast);
    let mut report = BroadcastReport { json: options.json, output: Output::new(), sent: 0, failed: 0 };
    let done = tokio::select! {
        done = broadcast_all(&node, &mut messages, &mut report) => done,
        () = interrupt.wait() => Err(Failure::Failed("interrupted: not everything may have been sent".into())),
    };
    node.shutdown().await;
    done?;
    report.conclude(&options.network)
}

/// One after the other: a stdin without end must not fill the node.
async fn broadcast_all(
    node: &Scribe,
    messages: &mut Messages,
    report: &mut BroadcastReport,
) -> Result<(), Failure> {
    while let Some(message) = messages.next().await? {
        let outcome = match message {
            Ok(payload) => {
                let bytes = payload.len();
                node.broadcast(payload).await.map(|()| bytes).map_err(|error| error.to_string())
            }
            Err(problem) => Err(problem),
        };
        report.outcome(node, outcome).await;
    }
    Ok(())
}

/// Tells the user the outcomes.
struct BroadcastReport {
    json: bool,
    output: Output,
    sent: u64,
    failed: u64,
}

impl BroadcastReport {
    async fn outcome(&mut self, node: &Scribe, outcome: Result<usize, String>) {
        match outcome {
            Ok(bytes) => {
                self.sent += 1;
                self.line(&json!({"event": "sent", "origin": node.id().to_string(), "bytes": bytes})).await;
            }
            Err(problem) => {
                self.failed += 1;
                say(format_args!("treecast: not broadcast: {problem}"));
                self.line(&json!({"event": "failed", "error": problem})).await;
            }
        }
    }

    async fn line(&mut self, line: &Value) {
        if self.json {
            self.output.json(line);
            if self.output.flush().await.is_err() {
                // Nobody reads stdout any more; broadcasting goes on.
                self.output.discard();
            }
        }
    }

    fn conclude(&self, network: &str) -> Result<(), Failure> {
        match (self.sent, self.failed) {
            // Its problem was said.
            (0, 1) => Err(Failure::Said),
            (sent, failed @ 1..) => {
                Err(Failure::Failed(format!("{failed} of {} messages were not broadcast", sent + failed)))
            }
            (sent @ 1.., 0) if !self.json => {
                let messages = if sent == 1 { "message" } else { "messages" };
                say(format_args!(
                    "broadcast {sent} {messages} in network `{network}` (there are no receipts)"
                ));
                Ok(())
            }
            (_, 0) => Ok(()),
        }
    }
}

/// A broadcast as a line of JSON.
pub(crate) fn broadcast_line(broadcast: &Broadcast) -> Value {
    let mut line = Map::new();
    line.insert("event".into(), "broadcast".into());
    line.insert("origin".into(), broadcast.origin.to_string().into());
    line.insert("missed".into(), broadcast.missed.into());
    let (name, payload) = payload_field(&broadcast.payload);
    line.insert(name.into(), payload);
    Value::Object(line)
}

/// A broadcast as one line of talk. Nothing in it acts on a terminal or looks like a line of another.
pub(crate) fn broadcast_talk(broadcast: &Broadcast) -> String {
    let text = String::from_utf8_lossy(&broadcast.payload);
    format!("broadcast from {}: {}", broadcast.origin, harmless(&text))
}

/// Says that a reader was too slow, if it was.
pub(crate) fn say_missed(broadcast: &Broadcast) {
    match broadcast.missed {
        0 => {}
        1 => say("treecast: 1 broadcast was left out: they came faster than they were read"),
        missed => say(format_args!(
            "treecast: {missed} broadcasts were left out: they came faster than they were read"
        )),
    }
}

#[cfg(test)]
mod tests {
    use treecast_scribe::overlay::id::NodeId;

    use super::*;

    fn broadcast(payload: &'static [u8]) -> Broadcast {
        Broadcast { origin: NodeId(1), payload: payload.into(), missed: 3 }
    }

    #[test]
    fn a_line_has_all_its_fields() {
        let expected = json!({
            "event": "broadcast", "origin": "00000000000000000000000000000001", "missed": 3, "payload": "hi\n",
        });
        assert_eq!(broadcast_line(&broadcast(b"hi\n")), expected);
        assert_eq!(broadcast_line(&broadcast(&[0xff, 0]))["payload_base64"], "/wA=");
    }

    #[test]
    fn talk_is_one_harmless_line() {
        let talk = broadcast_talk(&broadcast(b"red:\x1b[31m\nready"));
        assert!(!talk.chars().any(char::is_control), "{talk:?}");
        assert!(talk.starts_with("broadcast from 00000000000000000000000000000001: red:"), "{talk}");
    }
}

//! `treecast pub`: messages in order, many in flight, and a loud word for each that got no receipt.

use std::future::Future;

use bytes::Bytes;
use futures::stream::{FuturesOrdered, StreamExt};
use serde_json::json;
use treecast_scribe::message::{PublishError, Receipt};
use treecast_scribe::topic::Topic;
use treecast_scribe::{Config, Publisher};

use crate::connect::{Kind, connect};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::lines::Messages;
use crate::options::{NodeOptions, PublishOptions};
use crate::output::{Output, say};

/// Receipts that are awaited at once; more messages wait with their reader.
const MAX_AWAITED: usize = 512;

pub(crate) async fn run(
    options: &NodeOptions,
    publish: PublishOptions,
    interrupt: Interrupt,
) -> Result<(), Failure> {
    let node = connect(options, Kind::Edge, &interrupt).await?;
    let publisher = node.publisher(&publish.topic).map_err(Failure::of)?;
    let mut messages = Messages::new(publish.messages, Config::default().max_payload);
    let mut report = Report::new(&publisher, options.json);
    let done = tokio::select! {
        done = publish_all(&publisher, &mut messages, &mut report) => done,
        () = interrupt.wait() => Err(Failure::Failed("interrupted: messages may be without receipt".into())),
    };
    report.flush().await;
    node.shutdown().await;
    done?;
    report.conclude()
}

async fn publish_all(
    publisher: &Publisher,
    messages: &mut Messages,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut awaited = FuturesOrdered::new();
    let mut reading = true;
    while reading || !awaited.is_empty() {
        tokio::select! {
            // Receipts first: whoever publishes without end sees them nevertheless.
            biased;
            Some(outcome) = awaited.next() => report.receipt(outcome).await,
            message = messages.next(), if reading && awaited.len() < MAX_AWAITED => match message? {
                None => reading = false,
                Some(Ok(payload)) => awaited.push_back(outcome_of(publisher, payload).await),
                Some(Err(problem)) => report.failed(&problem).await,
            },
        }
    }
    Ok(())
}

/// Sends a message off, and gives the future of its receipt.
async fn outcome_of(
    publisher: &Publisher,
    payload: Bytes,
) -> impl Future<Output = Result<Receipt, PublishError>> + use<> {
    let sent = publisher.send(payload).await;
    async move { sent?.await }
}

/// What is told of receipts.
struct Report {
    topic: Topic,
    json: bool,
    output: Output,
    /// Nobody reads stdout any more; publishing goes on.
    closed: bool,
    published: u64,
    failed: u64,
    listeners: u64,
}

impl Report {
    fn new(publisher: &Publisher, json: bool) -> Report {
        let topic = publisher.topic().clone();
        Report { topic, json, output: Output::new(), closed: false, published: 0, failed: 0, listeners: 0 }
    }

    async fn receipt(&mut self, outcome: Result<Receipt, PublishError>) {
        match outcome {
            Ok(receipt) => {
                self.published += 1;
                self.listeners = receipt.listeners;
                if self.json {
                    self.line(&receipt_line(&self.topic, &receipt)).await;
                }
            }
            Err(error) => self.failed(&error.to_string()).await,
        }
    }

    async fn failed(&mut self, problem: &str) {
        self.failed += 1;
        say(format_args!("treecast: {}: {problem}", self.topic));
        if self.json {
            let line = json!({"event": "failed", "topic": self.topic.name(), "error": problem});
            self.line(&line).await;
        }
    }

    async fn line(&mut self, line: &serde_json::Value) {
        self.output.json(line);
        self.flush().await;
    }

    async fn flush(&mut self) {
        self.closed = self.closed || self.output.flush().await.is_err();
        if self.closed {
            self.output.discard();
        }
    }

    fn conclude(&self) -> Result<(), Failure> {
        let Report { topic, published, failed, listeners, .. } = self;
        if *failed > 0 {
            let all = published + failed;
            return Err(Failure::Failed(format!("{failed} of {all} messages on {topic} have no receipt")));
        }
        if !self.json && *published > 0 {
            let whom = match listeners {
                0 => "nobody listens".to_string(),
                1 => "1 listener".to_string(),
                n => format!("{n} listeners"),
            };
            say(format_args!("published {published} on {topic}: {whom}"));
        }
        Ok(())
    }
}

fn receipt_line(topic: &Topic, receipt: &Receipt) -> serde_json::Value {
    json!({
        "topic": topic.name(),
        // Text, because 64 bits are more than JavaScript's numbers hold.
        "session": format!("{:016x}", receipt.id.session),
        "seq": receipt.id.sequence,
        "birth": format!("{:016x}", receipt.position.birth),
        "offset": receipt.position.offset,
        "copies": receipt.copies,
        "listeners": receipt.listeners,
    })
}

#[cfg(test)]
mod tests {
    use treecast_scribe::message::{MessageId, Position};
    use treecast_scribe::overlay::id::NodeId;

    use super::*;

    #[test]
    fn a_receipt_line_has_all_its_fields() {
        let receipt = Receipt {
            id: MessageId { publisher: NodeId(1), session: 0xab, sequence: 7 },
            position: Position { birth: 0xcd, offset: 41 },
            copies: 1,
            listeners: 3,
        };
        let line = receipt_line(&Topic::new("rust/news").unwrap(), &receipt);
        let expected = r#"{"topic":"rust/news","session":"00000000000000ab","seq":7,
            "birth":"00000000000000cd","offset":41,"copies":1,"listeners":3}"#;
        assert_eq!(line, serde_json::from_str::<serde_json::Value>(expected).unwrap());
    }
}

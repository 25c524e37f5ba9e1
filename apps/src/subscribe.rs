//! `treecast sub`: a line per message, in the order of the topic's log; and per broadcast, in the order in which they come.

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::Duration;

use bytes::Bytes;
use futures::future::FutureExt;
use futures::stream::{BoxStream, SelectAll, StreamExt};
use serde_json::{Map, Value, json};
use treecast_scribe::message::{Gap, GapReason, Item, Mark, Message, Position, Start};
use treecast_scribe::topic::Topic;
use treecast_scribe::{Broadcast, Scribe};

use crate::broadcast::{broadcast_line, say_missed};
use crate::chat::text::harmless;
use crate::connect::{Kind, connect};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::options::{NodeOptions, SubscribeOptions};
use crate::output::{Output, payload_field, say};

pub(crate) async fn run(
    options: &NodeOptions,
    subscribe: SubscribeOptions,
    interrupt: Interrupt,
) -> Result<(), Failure> {
    let limit = deadline(subscribe.wait);
    tokio::pin!(limit);
    let node = tokio::select! {
        node = connect(options, Kind::Edge, &interrupt) => node?,
        () = &mut limit => return timed_out(&subscribe, 0),
    };
    let mut printer = Printer::new(&subscribe, options.json);
    let done = tokio::select! {
        done = print_all(&node, &subscribe, &mut printer) => done,
        () = &mut limit => timed_out(&subscribe, printer.messages),
        () = interrupt.wait() => interrupted(&subscribe, printer.messages),
    };
    node.shutdown().await;
    done
}

async fn deadline(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

fn timed_out(subscribe: &SubscribeOptions, came: u64) -> Result<(), Failure> {
    match subscribe.count {
        Some(count) => Err(Failure::TimedOut(format!("timed out: {came} of {count} messages came"))),
        None => Ok(()),
    }
}

fn interrupted(subscribe: &SubscribeOptions, came: u64) -> Result<(), Failure> {
    match subscribe.count {
        Some(count) => Err(Failure::Failed(format!("interrupted: {came} of {count} messages came"))),
        None => Ok(()),
    }
}

async fn print_all(
    node: &Scribe,
    subscribe: &SubscribeOptions,
    printer: &mut Printer,
) -> Result<(), Failure> {
    let mut items = SelectAll::new();
    if subscribe.broadcasts {
        items.push(node.broadcasts().map(Heard::Broadcast).boxed());
        printer.listening();
    }
    for topic in &subscribe.topics {
        items.push(follow(node, topic, subscribe.from, printer).await?);
        // Somebody who closes stdout wants nothing more: that is no failure.
        if printer.output.flush().await.is_err() {
            return Ok(());
        }
    }
    loop {
        if printer.is_done() {
            let _ = printer.output.flush().await;
            return Ok(());
        }
        // Whole bursts are written at once, single messages at once, too.
        let ready = if printer.output.is_full() { None } else { items.next().now_or_never() };
        let next = match ready {
            Some(next) => next,
            None if printer.output.flush().await.is_err() => return Ok(()),
            None => items.next().await,
        };
        match next {
            Some(Heard::Item(topic, item)) => printer.item(&topic, &item),
            Some(Heard::Broadcast(broadcast)) => printer.broadcast(&broadcast),
            None => return Err(Failure::Failed(format!("the node has stopped: {}", node.stopped().await))),
        }
    }
}

/// Something that came from the node.
enum Heard {
    Item(Topic, Item),
    Broadcast(Broadcast),
}

/// Subscribes, and says so. The stream ends all when the node stops.
async fn follow(
    node: &Scribe,
    topic: &Topic,
    from: Start,
    printer: &mut Printer,
) -> Result<BoxStream<'static, Heard>, Failure> {
    let subscription = node
        .subscribe_from(topic, from)
        .await
        .map_err(|error| Failure::Failed(format!("could not subscribe to {topic}: {error}")))?;
    printer.subscribed(topic, subscription.mark());
    let topic = topic.clone();
    Ok(subscription.map(move |item| Heard::Item(topic.clone(), item)).boxed())
}

struct Printer {
    json: bool,
    /// More than one source: each line names its own.
    named: bool,
    /// A person looks at it: what others sent must not act on the terminal. Elsewhere payloads are data, byte for byte.
    terminal: bool,
    count: Option<u64>,
    messages: u64,
    output: Output,
}

impl Printer {
    fn new(subscribe: &SubscribeOptions, json: bool) -> Printer {
        let named = subscribe.topics.len() + usize::from(subscribe.broadcasts) > 1;
        let terminal = std::io::stdout().is_terminal();
        Printer { json, named, terminal, count: subscribe.count, messages: 0, output: Output::new() }
    }

    fn is_done(&self) -> bool {
        self.count.is_some_and(|count| self.messages >= count)
    }

    fn subscribed(&mut self, topic: &Topic, mark: Mark) {
        if self.json {
            let line = json!({"event": "subscribed", "topic": topic.name(), "mark": mark.to_string()});
            self.output.json(&line);
        } else {
            say(format_args!("subscribed to {topic}"));
        }
    }

    fn listening(&mut self) {
        if self.json {
            self.output.json(&json!({"event": "listening"}));
        } else {
            say("listening to broadcasts");
        }
    }

    fn broadcast(&mut self, broadcast: &Broadcast) {
        self.messages += 1;
        if self.json {
            return self.output.json(&broadcast_line(broadcast));
        }
        say_missed(broadcast);
        self.line(format_args!("broadcast from {}", broadcast.origin), &broadcast.payload);
    }

    /// A line of data, named if there are several sources.
    fn line(&mut self, source: impl Display, payload: &Bytes) {
        let payload = if self.terminal { shown(payload) } else { payload.clone() };
        let name = if self.named { format!("{source}: ") } else { String::new() };
        self.output.bytes(&[name.as_bytes(), &payload].concat());
    }

    fn item(&mut self, topic: &Topic, item: &Item) {
        match item {
            Item::Message(message) => {
                self.messages += 1;
                if self.json {
                    self.output.json(&message_line(topic, message));
                } else {
                    self.line(topic, &message.payload);
                }
            }
            Item::Gap(gap) if self.json => self.output.json(&gap_line(topic, gap)),
            Item::Gap(gap) => say(format_args!("treecast: {topic}: {}", gap_text(gap))),
            Item::ParentChanged(parent) => tracing::debug!(%topic, ?parent, "parent changed"),
        }
    }
}

/// A payload as it may stand on a terminal: its lines, with whatever would act there made visible.
fn shown(payload: &[u8]) -> Bytes {
    let lines: Vec<String> = String::from_utf8_lossy(payload).split('\n').map(harmless).collect();
    lines.join("\n").into()
}

fn message_line(topic: &Topic, message: &Message) -> Value {
    let mut line = Map::new();
    line.insert("topic".into(), topic.name().into());
    line.insert("publisher".into(), message.id.publisher.to_string().into());
    line.insert("session".into(), format!("{:016x}", message.id.session).into());
    line.insert("seq".into(), message.id.sequence.into());
    line.insert("birth".into(), format!("{:016x}", message.position.birth).into());
    line.insert("offset".into(), message.position.offset.into());
    line.insert("mark".into(), message.mark.to_string().into());
    let (name, payload) = payload_field(&message.payload);
    line.insert(name.into(), payload);
    Value::Object(line)
}

fn gap_line(topic: &Topic, gap: &Gap) -> Value {
    let position =
        |Position { birth, offset }: Position| json!({"birth": format!("{birth:016x}"), "offset": offset});
    let reason = match gap.reason {
        GapReason::TooOld => "too_old",
        GapReason::Unreplicated => "unreplicated",
        GapReason::OtherLog => "other_log",
    };
    json!({
        "event": "gap",
        "topic": topic.name(),
        "after": gap.after.map(position),
        "until": position(gap.until),
        "reason": reason,
    })
}

fn gap_text(gap: &Gap) -> String {
    let why = match gap.reason {
        GapReason::TooOld => {
            "older messages are not kept any more, or this subscriber was cut off or too slow"
        }
        GapReason::Unreplicated => {
            "most of the nodes that held the topic's log are gone, and with them what only they had; maybe nothing"
        }
        GapReason::OtherLog => {
            "two logs of this topic met, and one gave way; what only that one had does not come"
        }
    };
    let after = gap.after.map_or("the beginning".to_string(), |after| after.to_string());
    format!("gap after {after} until {}: {why}", gap.until)
}

#[cfg(test)]
mod tests {
    use treecast_scribe::message::MessageId;
    use treecast_scribe::overlay::id::NodeId;

    use super::*;

    const BIRTH: u64 = 0xcd;

    fn message(payload: &'static [u8]) -> Message {
        Message {
            id: MessageId { publisher: NodeId(1), session: 0xab, sequence: 7 },
            position: Position { birth: BIRTH, offset: 41 },
            mark: Mark { birth: BIRTH, next: 42 },
            payload: Bytes::from_static(payload),
        }
    }

    fn object(json: &str) -> Value {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn on_a_terminal_payloads_are_harmless_lines() {
        assert_eq!(shown(b"red:\x1b[31m\nnext"), "red:\u{241b}[31m\nnext");
    }

    #[test]
    fn a_message_line_has_all_its_fields() {
        let topic = Topic::new("demo").unwrap();
        let expected = object(
            r#"{"topic":"demo","publisher":"00000000000000000000000000000001","session":"00000000000000ab","seq":7,
                "birth":"00000000000000cd","offset":41,"mark":"3.00000000000000cd.42","payload":"hi \"you\"\n"}"#,
        );
        assert_eq!(message_line(&topic, &message(b"hi \"you\"\n")), expected);
        let binary = message_line(&topic, &message(&[0xff, 0]));
        assert_eq!((binary.get("payload"), &binary["payload_base64"]), (None, &"/wA=".into()));
    }

    #[test]
    fn a_gap_line_gives_its_bounds_and_its_reason() {
        let topic = Topic::new("demo").unwrap();
        let until = Position { birth: 0xef, offset: 9 };
        let gap = Gap { after: None, until, reason: GapReason::OtherLog };
        let expected = r#"{"event":"gap","topic":"demo","after":null,
            "until":{"birth":"00000000000000ef","offset":9},"reason":"other_log"}"#;
        assert_eq!(gap_line(&topic, &gap), object(expected));
        assert!(gap_text(&gap).starts_with("gap after the beginning until 9: "), "{}", gap_text(&gap));
        let after = Some(Position { birth: BIRTH, offset: 4 });
        for (reason, word) in [(GapReason::TooOld, "too_old"), (GapReason::Unreplicated, "unreplicated")] {
            let gap = Gap { after, until, reason };
            let line = gap_line(&topic, &gap);
            assert_eq!((&line["reason"], &line["after"]["offset"]), (&word.into(), &4.into()));
            assert!(gap_text(&gap).starts_with("gap after 4 until 9: "), "{}", gap_text(&gap));
        }
    }
}

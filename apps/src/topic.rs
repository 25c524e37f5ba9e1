//! `treecast topic show`: what this node can learn of a topic, as a subscriber for a moment.

use std::time::Duration;

use futures::future::FutureExt;
use serde_json::{Value, json};
use tokio::time::{Instant, interval};
use treecast_scribe::overlay::id::NodeId;
use treecast_scribe::topic::Topic;
use treecast_scribe::{Item, Scribe, Start};

use crate::connect::{Kind, connect};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::options::{NodeOptions, TopicCommand};
use crate::output::Output;

/// How long what is kept may take to come; then what is known by then is shown.
const ALL_WITHIN: Duration = Duration::from_secs(5);
/// How often the node is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn run(
    options: &NodeOptions,
    TopicCommand::Show { topic }: TopicCommand,
    interrupt: Interrupt,
) -> Result<(), Failure> {
    let node = connect(options, Kind::Edge, &interrupt).await?;
    let known = tokio::select! {
        known = look(&node, &topic) => known,
        () = interrupt.wait() => Err(Failure::Failed("interrupted".into())),
    };
    node.shutdown().await;
    let known = known?;
    let mut output = Output::new();
    if options.json {
        output.json(&known.line(&topic));
    } else {
        known.text(&topic).iter().for_each(|line| output.text(line));
    }
    let _ = output.flush().await;
    Ok(())
}

/// What was learnt of a topic.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    root: Option<NodeId>,
    birth: u64,
    /// The offset of the first message that is kept; `None`: none is.
    first: Option<u64>,
    /// The offset behind the log's last entry.
    end: u64,
    /// Empty: the log's part that came names none.
    members: Vec<NodeId>,
    /// `None`: only the root can tell.
    subscribers: Option<u64>,
}

/// Subscribes from the earliest and from the latest at once. The latest names the log's end, as the node's parent knows it;
/// the earliest brings the first message that is kept anywhere on the way to the root. Then waits until the part between
/// has come, because it names the log's members.
async fn look(node: &Scribe, topic: &Topic) -> Result<Known, Failure> {
    let from = |start| node.subscribe_from(topic, start);
    let (mut earliest, latest) = tokio::try_join!(from(Start::Earliest), from(Start::Latest))
        .map_err(|error| Failure::Failed(format!("could not look at {topic}: {error}")))?;
    let end = latest.mark().next;
    let mut first = None;
    let begun = Instant::now();
    let mut ask = interval(ASK_EVERY);
    let (status, log) = loop {
        tokio::select! {
            Some(item) = earliest.next() => note(&mut first, &item),
            _ = ask.tick() => {
                let stopped = || Failure::Failed("the node has stopped".into());
                let mut status = node.topic(topic).await.map_err(Failure::of)?.ok_or_else(stopped)?;
                // What the node had before its answer is here.
                while let Some(Some(item)) = earliest.next().now_or_never() {
                    note(&mut first, &item);
                }
                let log = status.log.take().ok_or_else(|| Failure::Failed(format!("{topic} has no log")))?;
                let all_here = log.end >= end && (first.is_some() || log.first == 0);
                if all_here || begun.elapsed() >= ALL_WITHIN {
                    break (status, log);
                }
            }
        }
    };
    Ok(Known {
        root: status.root,
        birth: log.birth,
        first,
        end: end.max(log.end),
        members: log.members,
        // The two subscriptions of this command are no news.
        subscribers: status.is_root.then_some(status.subscribers.saturating_sub(2)),
    })
}

fn note(first: &mut Option<u64>, item: &Item) {
    if let Item::Message(message) = item {
        first.get_or_insert(message.position.offset);
    }
}

impl Known {
    fn line(&self, topic: &Topic) -> Value {
        let ids = |ids: &[NodeId]| ids.iter().map(NodeId::to_string).collect::<Vec<_>>();
        json!({
            "topic": topic.name(),
            "key": topic.id().key().to_string(),
            "root": self.root.map(|root| root.to_string()),
            // Text, because 64 bits are more than JavaScript's numbers hold.
            "birth": format!("{:016x}", self.birth),
            "first": self.first,
            "end": self.end,
            "members": (!self.members.is_empty()).then(|| ids(&self.members)),
            "subscribers": self.subscribers,
        })
    }

    fn text(&self, topic: &Topic) -> Vec<String> {
        let root = self.root.map_or("not known".to_string(), |root| root.to_string());
        let kept = match self.first {
            Some(first) => format!("messages from offset {first} until {}", self.end),
            None => format!("no message until offset {}", self.end),
        };
        let subscribers = self.subscribers.map_or("only the root knows".to_string(), |n| n.to_string());
        let mut lines = vec![
            format!("topic        {topic} (key {})", topic.id().key()),
            format!("root         {root}"),
            format!("birth        {:016x}", self.birth),
            format!("kept         {kept}"),
        ];
        if self.members.is_empty() {
            lines.push("members      not named in what is kept".to_string());
        }
        let heads = std::iter::once("members").chain(std::iter::repeat(""));
        lines.extend(self.members.iter().zip(heads).map(|(member, head)| format!("{head:13}{member}")));
        lines.push(format!("subscribers  {subscribers}"));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let members = vec![NodeId(1), NodeId(2)];
        Known { root: Some(NodeId(2)), birth: 0xcd, first: Some(3), end: 42, members, subscribers: None }
    }

    #[test]
    fn the_json_line_has_all_its_fields_and_null_for_what_is_not_known() {
        let topic = Topic::new("demo").unwrap();
        let id = |n: u8| format!("{n:032x}");
        let key = topic.id().key().to_string();
        let expected = json!({
            "topic": "demo", "key": key, "root": id(2), "birth": "00000000000000cd", "first": 3, "end": 42,
            "members": [id(1), id(2)], "subscribers": null,
        });
        assert_eq!(known().line(&topic), expected);
        let less = Known { root: None, members: Vec::new(), subscribers: Some(7), ..known() }.line(&topic);
        assert_eq!(
            (&less["root"], &less["members"], &less["subscribers"]),
            (&Value::Null, &Value::Null, &7.into())
        );
    }

    #[test]
    fn the_text_says_what_is_not_known() {
        let topic = Topic::new("demo").unwrap();
        let text = known().text(&topic);
        assert_eq!(text[3], "kept         messages from offset 3 until 42");
        assert_eq!(text[4..6], [format!("members      {:032x}", 1), format!("             {:032x}", 2)]);
        assert_eq!(text[6], "subscribers  only the root knows");
        let empty = Known { first: None, members: Vec::new(), subscribers: Some(0), ..known() }.text(&topic);
        assert_eq!(empty[3], "kept         no message until offset 42");
        assert_eq!(empty[4..], ["members      not named in what is kept", "subscribers  0"]);
    }
}

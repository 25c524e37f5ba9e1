//! The chat as plain lines, for pipes and scripts: what happens in the room on stdout, answers to commands and
//! trouble on stderr.

use serde_json::{Value, json};
use treecast_scribe::Stopped;

use super::command::Typed;
use super::conversation::{Body, Delivery, Entry, MAX_TEXT};
use super::session::Session;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::output::{Output, say};

/// Longest line of stdin: a text with a command in front.
const MAX_LINE: usize = MAX_TEXT + 64;

/// Runs until `/quit`, the end of stdin, an interrupt, or until nobody reads stdout any more.
pub(super) async fn run(mut session: Session, json: bool, interrupt: Interrupt) -> Result<(), Failure> {
    let mut lines = Lines::of_stdin(MAX_LINE);
    let mut page = Page { json, seen: 0, output: Output::new() };
    let mut skipped = 0;
    let done = tokio::select! {
        done = talk(&mut session, &mut lines, &mut page, &mut skipped) => done,
        () = interrupt.wait() => Ok(()),
    };
    let failures = session.conversation.failures();
    session.quit().await;
    done?;
    match (failures, skipped) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::Failed(format!("not all was sent: {skipped} line(s) too long"))),
        (n, _) => Err(Failure::Failed(format!("{n} of your messages have no receipt"))),
    }
}

async fn talk(
    session: &mut Session,
    lines: &mut Lines,
    page: &mut Page,
    skipped: &mut u64,
) -> Result<(), Failure> {
    let stopped = |why: Stopped| Failure::Failed(format!("the node has stopped: {why}"));
    let mut reading = true;
    while reading || !session.conversation.is_settled() {
        if page.show(session).await.is_err() {
            return Ok(());
        }
        // Words wait until there is a room to say them in, and until the words before them are heard.
        let may_read = reading && session.entering().is_none() && session.conversation.has_room();
        tokio::select! {
            step = session.step() => step.map_err(stopped)?,
            line = lines.next(), if may_read => match line {
                Ok(None) => reading = false,
                Ok(Some(Ok(line))) => {
                    if session.on_typed(Typed::parse(&String::from_utf8_lossy(&line))).await {
                        break;
                    }
                }
                Ok(Some(Err(too_long))) => {
                    *skipped += 1;
                    say(format_args!("treecast: not sent: {too_long}"));
                }
                Err(error) => return Err(Failure::Failed(format!("stdin: {error}"))),
            },
        }
    }
    let _ = page.show(session).await;
    Ok(())
}

/// What was printed already.
struct Page {
    json: bool,
    seen: u64,
    output: Output,
}

impl Page {
    /// Prints what came since the last time.
    async fn show(&mut self, session: &Session) -> Result<(), crate::output::Closed> {
        let (entries, seen) = session.conversation.since(self.seen);
        self.seen = seen;
        for entry in &entries {
            match line(entry) {
                Line::Nothing => {}
                _ if self.json => self.output.json(&json_line(entry)),
                Line::Data(text) => self.output.text(text),
                Line::Talk(text) => say(text),
            }
        }
        self.output.flush().await
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Data(String),
    Talk(String),
    Nothing,
}

fn line(entry: &Entry) -> Line {
    let earlier = if entry.is_earlier() { "earlier: " } else { "" };
    match &entry.body {
        Body::Said { text, delivery: Some(Delivery::Failed(why)), .. } => {
            Line::Talk(format!("treecast: not delivered ({why}): {text}"))
        }
        Body::Said { name, text, action: false, .. } => Line::Data(format!("{earlier}<{name}> {text}")),
        Body::Said { name, text, action: true, .. } => Line::Data(format!("{earlier}* {name} {text}")),
        Body::Notice(text) => Line::Data(format!("* {text}")),
        Body::Warning(text) => Line::Talk(format!("treecast: {text}")),
        Body::Reply(text) => Line::Talk(text.clone()),
        // Each earlier line says that it is one.
        Body::Divider(_) => Line::Nothing,
    }
}

fn json_line(entry: &Entry) -> Value {
    match &entry.body {
        Body::Said { from, name, text, action, delivery } => json!({
            "event": if *action { "did" } else { "said" },
            "from": from.to_string(),
            "name": name,
            "text": text,
            "failed": matches!(delivery, Some(Delivery::Failed(_))),
            "earlier": entry.is_earlier(),
        }),
        Body::Notice(text) => json!({"event": "notice", "text": text}),
        Body::Warning(text) => json!({"event": "warning", "text": text}),
        Body::Reply(text) => json!({"event": "reply", "text": text}),
        Body::Divider(text) => json!({"event": "divider", "text": text}),
    }
}

#[cfg(test)]
mod tests {
    use treecast_scribe::overlay::id::NodeId;

    use super::*;

    fn said(action: bool, delivery: Option<Delivery>) -> Entry {
        let body = Body::Said { from: NodeId(1), name: "ann".into(), text: "hi".into(), action, delivery };
        Entry { clock: Some(0), body }
    }

    #[test]
    fn what_was_said_is_data_and_what_failed_is_talk() {
        assert_eq!(line(&said(false, None)), Line::Data("<ann> hi".into()));
        assert_eq!(line(&said(true, None)), Line::Data("* ann hi".into()));
        let earlier = Entry { clock: None, ..said(false, None) };
        assert_eq!(line(&earlier), Line::Data("earlier: <ann> hi".into()));
        assert_eq!(json_line(&earlier)["earlier"], true);
        assert_eq!(line(&Entry { clock: None, body: Body::Divider("now") }), Line::Nothing);
        let failed = line(&said(false, Some(Delivery::Failed("outcome unknown".into()))));
        assert_eq!(failed, Line::Talk("treecast: not delivered (outcome unknown): hi".into()));
        let joined = Entry { clock: Some(0), body: Body::Notice("ann joined".into()) };
        assert_eq!(line(&joined), Line::Data("* ann joined".into()));
        assert_eq!(json_line(&joined), json!({"event": "notice", "text": "ann joined"}));
    }
}

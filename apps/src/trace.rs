//! `treecast trace`: the way to a key, hop by hop, with the shared prefix marked.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::{Value, json};
use treecast_scribe::overlay::id::{DIGITS, Key};
use treecast_scribe::overlay::kbr::Found;
use treecast_scribe::overlay::wire::TraceHop;

use crate::connect::{Kind, connect};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::options::{NodeOptions, TraceOptions};
use crate::output::Output;

pub(crate) async fn run(
    options: &NodeOptions,
    target: TraceOptions,
    interrupt: Interrupt,
) -> Result<(), Failure> {
    let topic = target.topic.as_ref();
    let Some(key) = target.key.or_else(|| topic.map(|topic| topic.id().key())) else {
        return Err(Failure::Failed("neither a key nor a topic was given".into()));
    };
    let node = connect(options, Kind::Edge, &interrupt).await?;
    let found = tokio::select! {
        found = node.trace(key) => found.map_err(Failure::of),
        () = interrupt.wait() => Err(Failure::Failed("interrupted".into())),
    };
    node.shutdown().await;
    let found = found?;
    let mut output = Output::new();
    if options.json {
        output.json(&trace_line(key, &found));
    } else {
        let marks = if std::io::stdout().is_terminal() { TERMINAL } else { PLAIN };
        for line in trace_text(key, topic.map(|topic| topic.name()), &found, marks) {
            output.text(line);
        }
    }
    let _ = output.flush().await;
    Ok(())
}

/// What stands around a shared prefix: bold and underlined, or brackets.
type Marks = (&'static str, &'static str);
const TERMINAL: Marks = ("\x1b[1;4m", "\x1b[0m");
const PLAIN: Marks = ("[", "]");

fn trace_line(key: Key, found: &Found) -> Value {
    let hops: Vec<Value> = path(found)
        .iter()
        .map(|hop| {
            let rtt = hop.rtt_micros.map(|micros| f64::from(micros) / 1000.0);
            json!({"node": hop.node.to_string(), "matched": hop.matched, "rtt_ms": rtt})
        })
        .collect();
    json!({"key": key.to_string(), "hops": hops, "took_ms": millis(found.took)})
}

fn trace_text(key: Key, topic: Option<&str>, found: &Found, marks: Marks) -> Vec<String> {
    let mut lines = vec![match topic {
        Some(topic) => format!("key {key} (topic {topic})"),
        None => format!("key {key}"),
    }];
    let path = path(found);
    for (number, hop) in path.iter().enumerate() {
        let id = mark_prefix(&hop.node.to_string(), usize::from(hop.matched), marks);
        let tail = match hop.rtt_micros {
            _ if number + 1 == path.len() => "root".to_string(),
            Some(micros) => format!("{:.2} ms to the next", f64::from(micros) / 1000.0),
            None => "not measured yet".to_string(),
        };
        lines.push(format!("{number:3} {id}  {tail}"));
    }
    let hops = if found.hops == 1 { "1 hop".to_string() } else { format!("{} hops", found.hops) };
    lines.push(format!("{hops}, answered in {:.2} ms", millis(found.took)));
    lines
}

fn path(found: &Found) -> &[TraceHop] {
    found.path.as_deref().unwrap_or_default()
}

fn mark_prefix(id: &str, matched: usize, (open, close): Marks) -> String {
    let (shared, rest) = id.split_at(matched.min(DIGITS).min(id.len()));
    if shared.is_empty() { id.to_string() } else { format!("{open}{shared}{close}{rest}") }
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use treecast_scribe::overlay::id::NodeId;
    use treecast_scribe::overlay::peer::{Addr, Peer};

    use super::*;

    fn found() -> Found {
        let hop =
            |node: u128, matched, rtt_micros| TraceHop { node: NodeId(node << 112), matched, rtt_micros };
        Found {
            root: Peer { id: NodeId(0x3f12 << 112), incarnation: 1, addr: Addr::Memory(1) },
            hops: 1,
            took: Duration::from_micros(2340),
            path: Some(vec![hop(0x3a00, 1, Some(1250)), hop(0x3f12, 4, None)]),
        }
    }

    #[test]
    fn the_shared_prefix_is_marked_on_each_hop() {
        let zeros = "0".repeat(28);
        assert_eq!(
            trace_text(Key(0x3f12 << 112), Some("demo"), &found(), PLAIN),
            [
                format!("key 3f12{zeros} (topic demo)"),
                format!("  0 [3]a00{zeros}  1.25 ms to the next"),
                format!("  1 [3f12]{zeros}  root"),
                "1 hop, answered in 2.34 ms".to_string(),
            ]
        );
    }

    #[test]
    fn the_json_line_has_every_hop() {
        let zeros = "0".repeat(28);
        let expected = json!({
            "key": format!("3f12{zeros}"),
            "hops": [
                {"node": format!("3a00{zeros}"), "matched": 1, "rtt_ms": 1.25},
                {"node": format!("3f12{zeros}"), "matched": 4, "rtt_ms": null},
            ],
            "took_ms": 2.34,
        });
        assert_eq!(trace_line(Key(0x3f12 << 112), &found()), expected);
    }

    #[test]
    fn a_path_that_claims_too_much_is_no_panic() {
        assert_eq!(mark_prefix("3f", 40, PLAIN), "[3f]");
        assert_eq!(mark_prefix("3f", 0, PLAIN), "3f");
    }
}

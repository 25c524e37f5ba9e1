//! The command line: what may be said, and what it means.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use treecast_scribe::overlay::id::Key;
use treecast_scribe::overlay::peer::{ParseSeedError, Seed};
use treecast_scribe::overlay::wire::MAX_NETWORK_NAME;
use treecast_scribe::topic::Topic;
use treecast_scribe::{Mark, Start};

use crate::chat;

/// Chat, publish and subscribe without a server.
///
/// Every process is a peer. Processes of one machine find each other; to meet others, say --join with the address or
/// ticket of one of them (`treecast node` prints both).
#[derive(Debug, Parser)]
#[command(name = "treecast", version, max_term_width = 100)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) node: NodeOptions,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Options {
    /// The same, if its parts fit together.
    pub(crate) fn checked(self) -> Result<Options, clap::Error> {
        if let Command::Subscribe(SubscribeOptions { topics, from, .. }) = &self.command {
            let wrong = |what| Options::command().error(ErrorKind::ArgumentConflict, what);
            match (from, topics.len()) {
                (Start::Latest, _) | (_, 1) => {}
                (_, 0) => {
                    return Err(wrong("--from is about a TOPIC, and none is given: broadcasts are not kept"));
                }
                (Start::After(_), 2..) => {
                    return Err(wrong("--from with a mark takes one TOPIC: each mark is of one topic's log"));
                }
                (Start::Earliest | Start::Last(_), _) => {}
            }
        }
        Ok(self)
    }
}

/// The heading of what concerns the node rather than the command.
const NODE: &str = "Node";

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeOptions {
    /// A node to join: HOST:PORT, or its ticket ID@HOST:PORT. May be repeated: one that answers is enough
    #[arg(long, value_name = "ADDR|TICKET", global = true, value_parser = parse_seed, help_heading = NODE)]
    pub(crate) join: Vec<Seed>,
    /// Where to listen [default: 127.0.0.1, a free port of 4848-4863, else any]
    #[arg(long, value_name = "ADDR", global = true, help_heading = NODE)]
    pub(crate) listen: Option<SocketAddr>,
    /// The network to be in: nodes of different networks do not talk to each other
    #[arg(long, value_name = "NAME", global = true, default_value = "main", value_parser = parse_network, help_heading = NODE)]
    pub(crate) network: String,
    /// Where identity and known peers are kept [default: the user's data directory]
    #[arg(long, value_name = "DIR", global = true, help_heading = NODE)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Keep nothing on disk: a new identity for this run
    #[arg(long, global = true, conflicts_with = "data_dir", help_heading = NODE)]
    pub(crate) ephemeral: bool,
    /// Write one JSON object per line to stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Say more on stderr; -vv says everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Talk to people
    Chat(ChatOptions),
    /// Run a node that stays: others can join through it
    Node,
    /// Publish messages on a topic and wait for their receipts
    #[command(name = "pub")]
    Publish(PublishOptions),
    /// Tell every node that is there now: without order, receipts or a second chance
    Broadcast(MessageOptions),
    /// Print what is published on topics, or broadcast to all, a line per message
    #[command(name = "sub")]
    Subscribe(SubscribeOptions),
    /// Look at a topic
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Show the way through the ring to a key or topic, hop by hop
    Trace(TraceOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ChatOptions {
    /// The room to enter
    #[arg(default_value = "lobby", value_parser = parse_room)]
    pub(crate) room: String,
    /// Your name, at most 32 cells wide [default: your user name and a piece of the node's id]
    #[arg(long, value_name = "NAME", value_parser = parse_nick)]
    pub(crate) nick: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PublishOptions {
    /// Where to publish, such as rust/news
    #[arg(value_parser = parse_topic)]
    pub(crate) topic: Topic,
    #[command(flatten)]
    pub(crate) messages: MessageOptions,
}

#[derive(Debug, Args)]
pub(crate) struct MessageOptions {
    /// A message; may be repeated
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, required_unless_present = "lines")]
    pub(crate) message: Vec<String>,
    /// Send each line of stdin, as it comes
    #[arg(short, long)]
    pub(crate) lines: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubscribeOptions {
    /// What to listen to
    #[arg(value_name = "TOPIC", required_unless_present = "broadcasts", value_parser = parse_topic)]
    pub(crate) topics: Vec<Topic>,
    /// Where to begin: latest, earliest, last:N (the last N messages), or a mark that `sub --json` printed
    #[arg(long, value_name = "START", default_value = "latest", value_parser = parse_start)]
    pub(crate) from: Start,
    /// Listen to what is broadcast to all nodes, besides the topics or instead of any
    #[arg(short, long)]
    pub(crate) broadcasts: bool,
    /// End after so many messages
    #[arg(short = 'C', long, value_name = "COUNT")]
    pub(crate) count: Option<u64>,
    /// End after so much time; with -C it is an error (exit 3) if the count was not reached
    #[arg(short = 'W', long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Show its root, its log's birth, the offsets that are kept, and the nodes that hold them. Subscribes for a moment
    Show {
        /// The topic
        #[arg(value_name = "NAME", value_parser = parse_topic)]
        topic: Topic,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TraceOptions {
    /// A key: 32 hexadecimal digits
    #[arg(value_name = "KEY", required_unless_present = "topic", conflicts_with = "topic")]
    pub(crate) key: Option<Key>,
    /// The key of this topic
    #[arg(long, value_name = "NAME", value_parser = parse_topic)]
    pub(crate) topic: Option<Topic>,
}

fn parse_seed(text: &str) -> Result<Seed, String> {
    text.parse().or_else(|error: ParseSeedError| resolve(text).unwrap_or_else(|| Err(error.to_string())))
}

/// The same with a name in place of the IP address; `None` if it does not even look like that. Where a name has several
/// addresses, IPv4 comes first: nodes listen there.
fn resolve(text: &str) -> Option<Result<Seed, String>> {
    let (id, host) = match text.split_once('@') {
        Some((id, host)) => (Some(id.parse().ok()?), host),
        None => (None, text),
    };
    let (name, port) = host.rsplit_once(':')?;
    if name.is_empty() || name.contains(':') || port.parse::<u16>().is_err() {
        return None;
    }
    Some(match host.to_socket_addrs().map(Iterator::collect::<Vec<SocketAddr>>) {
        Ok(addrs) => match addrs.iter().find(|addr| addr.is_ipv4()).or(addrs.first()) {
            Some(addr) => Ok(Seed { addr: (*addr).into(), id }),
            None => Err(format!("the name `{name}` has no address")),
        },
        Err(error) => Err(format!("the name `{name}` has no address: {error}")),
    })
}

fn parse_topic(text: &str) -> Result<Topic, String> {
    Topic::new(text).map_err(|error| error.to_string())
}

fn parse_room(text: &str) -> Result<String, String> {
    let room = text.trim_start_matches('#');
    chat::check_room(room)?;
    Ok(room.to_string())
}

fn parse_nick(text: &str) -> Result<String, String> {
    chat::check_nick(text)?;
    Ok(text.to_string())
}

fn parse_network(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("a network's name is not empty".to_string()),
        1..=MAX_NETWORK_NAME => Ok(text.to_string()),
        len => Err(format!("a network's name has at most {MAX_NETWORK_NAME} bytes, this one has {len}")),
    }
}

fn parse_start(text: &str) -> Result<Start, String> {
    let start = match text {
        "latest" => Some(Start::Latest),
        "earliest" => Some(Start::Earliest),
        _ => match text.strip_prefix("last:") {
            Some(count) => count.parse().ok().filter(|&count| count > 0).map(Start::Last),
            None => text.parse::<Mark>().ok().map(Start::After),
        },
    };
    start.ok_or_else(|| {
        let most = u32::MAX;
        format!(
            "`{text}` is no place to begin: latest, earliest, last:N with N from 1 to {most}, or a mark as \
             `sub --json` prints it, 3.BIRTH.NEXT"
        )
    })
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("`{text}` is not a number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("treecast").chain(line.split_whitespace()))?.checked()
    }

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn flags_of_the_node_stand_before_or_behind_the_command() {
        let before = parse("--network lab --join 127.0.0.1:9 --json sub a b -C 3 -W 1.5").unwrap();
        let behind = parse("sub a b -C 3 -W 1.5 --network lab --join 127.0.0.1:9 --json").unwrap();
        for options in [before, behind] {
            assert_eq!((options.node.network.as_str(), options.node.join.len()), ("lab", 1));
            assert!(options.node.json);
            let Command::Subscribe(sub) = options.command else { panic!("not sub") };
            assert_eq!((sub.topics.len(), sub.count), (2, Some(3)));
            assert_eq!(sub.wait, Some(Duration::from_millis(1500)));
        }
    }

    #[test]
    fn a_subscription_begins_where_it_is_told_to() {
        let mark = Mark { birth: 0xcd, next: 7 };
        for (line, start) in [
            ("sub a", Start::Latest),
            ("sub a --from latest", Start::Latest),
            ("sub a b --from earliest", Start::Earliest),
            ("sub a b --from last:50", Start::Last(50)),
            ("sub a --from 3.00000000000000cd.7", Start::After(mark)),
        ] {
            let Command::Subscribe(subscribe) = parse(line).unwrap().command else { panic!("not sub") };
            assert_eq!(subscribe.from, start, "{line}");
        }
        let error = parse("sub a --from soon").unwrap_err().to_string();
        assert!(
            ["latest", "earliest", "last:N", "3.BIRTH.NEXT"].iter().all(|word| error.contains(word)),
            "{error}"
        );
    }

    #[test]
    fn a_node_is_joined_by_address_ticket_or_name() {
        let id = "000102030405060708090a0b0c0d0e0f";
        for (text, seed) in [
            ("10.0.0.7:4848".to_string(), "10.0.0.7:4848".to_string()),
            (format!("{id}@10.0.0.7:4848"), format!("{id}@10.0.0.7:4848")),
            ("localhost:4848".to_string(), "127.0.0.1:4848".to_string()),
            (format!("{id}@localhost:4848"), format!("{id}@127.0.0.1:4848")),
        ] {
            assert_eq!(parse_seed(&text).unwrap().to_string(), seed);
        }
    }

    #[test]
    fn a_name_that_does_not_resolve_is_told_from_a_text_that_is_no_address() {
        let error = parse_seed("nowhere.invalid:4848").unwrap_err();
        assert!(error.starts_with("the name `nowhere.invalid` has no address"), "{error}");
        for text in ["nowhere", "::1", "a:b:c", ":4848", "7@localhost:1", "localhost:99999"] {
            let error = parse_seed(text).unwrap_err();
            assert!(error.contains("is neither an address"), "{error}");
        }
    }

    #[test]
    fn nonsense_is_a_usage_error_that_names_the_culprit() {
        for (line, culprit) in [
            ("node --join nowhere", "nowhere"),
            ("node --listen 4848", "4848"),
            ("node --network", "--network"),
            ("node --ephemeral --data-dir x", "--data-dir"),
            ("pub demo", "--message"),
            ("broadcast", "--message"),
            ("pub a//b -m x", "a//b"),
            ("sub", "TOPIC"),
            ("sub a -W -1", "-1"),
            ("sub a --from newest", "newest"),
            ("sub a --from last:0", "last:0"),
            ("sub a --from last:4294967296", "last:4294967296"),
            ("sub a --from 2.00000000000000cd.7", "2.00000000000000cd.7"),
            ("sub a b --from 3.00000000000000cd.7", "one TOPIC"),
            ("sub --broadcasts --from earliest", "TOPIC"),
            ("chat --nick a\u{7}b", "--nick"),
            ("chat a//b", "a//b"),
            ("topic", "show"),
            ("topic show", "NAME"),
            ("topic show a//b", "a//b"),
            ("trace 3f", "3f"),
            ("trace", "KEY"),
            ("trace 00000000000000000000000000000000 --topic a", "--topic"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(culprit), "{line}: {error}");
        }
    }

    #[test]
    fn messages_may_begin_with_a_dash_and_help_is_no_error() {
        let options = Options::try_parse_from(["treecast", "pub", "demo", "-m", "- x", "-m", "-l"]).unwrap();
        let Command::Publish(publish) = options.command else { panic!("not pub") };
        let MessageOptions { message, lines } = publish.messages;
        assert_eq!((message, lines), (vec!["- x".to_string(), "-l".to_string()], false));
        assert_eq!(parse("chat --help").unwrap_err().kind(), ErrorKind::DisplayHelp);
    }
}

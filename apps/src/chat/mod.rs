//! `treecast chat`: people talk in rooms. A room is a topic, `chat/ROOM`; there is no server to ask.
//!
//! [`conversation`] knows what happens in a room, [`session`] puts it on a node; [`screen`] and [`lines`] show it, on
//! a terminal or as plain lines.

mod command;
mod conversation;
mod envelope;
mod input;
mod lines;
mod members;
mod render;
mod screen;
mod session;
pub(crate) mod text;

use std::io::IsTerminal;

use treecast_scribe::overlay::id::NodeId;

use crate::connect::{Kind, connect};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::options::{ChatOptions, NodeOptions};
use crate::output::say;

use self::session::Session;

pub(crate) use self::text::check_nick;

/// Whether a room can have this name.
pub(crate) fn check_room(room: &str) -> Result<(), String> {
    session::topic_of(room).map(drop).map_err(|error| error.to_string())
}

/// Full screen on a terminal, plain lines otherwise.
pub(crate) fn is_full_screen() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

pub(crate) async fn run(
    options: &NodeOptions,
    chat: ChatOptions,
    interrupt: Interrupt,
) -> Result<(), Failure> {
    say("looking for a ring…");
    let node = connect(options, Kind::Ring, &interrupt).await?;
    say(format_args!("on the ring; others join with --join {}", node.ticket()));
    let nick = chat.nick.unwrap_or_else(|| default_nick(node.id()));
    let session = Session::new(node, nick, chat.room);
    if is_full_screen() {
        screen::run(session, interrupt).await
    } else {
        lines::run(session, options.json, interrupt).await
    }
}

/// The user's name and a piece of the node's id: readable, and rarely anybody else's.
fn default_nick(id: NodeId) -> String {
    let user = ["USER", "LOGNAME", "USERNAME"].iter().find_map(|name| std::env::var(name).ok());
    let piece = &id.to_string()[..4];
    let nick = format!("{}-{piece}", user.unwrap_or_default());
    match check_nick(&nick) {
        Ok(()) if !nick.starts_with('-') => nick,
        Ok(()) | Err(_) => format!("guest-{piece}"),
    }
}

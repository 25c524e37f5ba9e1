//! Screens as stories.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use treecast_scribe::message::{Item, Mark, Message, MessageId, Position as LogPosition, Receipt};

use super::super::command::Typed;
use super::super::conversation::Now;
use super::super::envelope::{Envelope, EnvelopeKind};
use super::*;

const NOON: Now = Now { uptime: Duration::ZERO, clock: 12 * 60 + 5 };
const BEGINNING: LogPosition = LogPosition { birth: 1, offset: 1 };

/// A conversation that has just entered #lobby: what it hears is history.
fn arriving() -> Conversation {
    let mut conversation = Conversation::new(NodeId(1), "me".into(), 0);
    conversation.enter(NOON, "lobby");
    conversation
}

fn lobby() -> Conversation {
    let mut lobby = arriving();
    arrive(&mut lobby);
    lobby
}

fn arrive(conversation: &mut Conversation) {
    tell(conversation, 1, &Envelope::new(EnvelopeKind::Join, "me", "", 1));
}

fn hear(conversation: &mut Conversation, id: u128, nick: &str, text: &str) {
    tell(conversation, id, &Envelope::new(EnvelopeKind::Say, nick, text, 1));
}

fn tell(conversation: &mut Conversation, id: u128, envelope: &Envelope) {
    let position = BEGINNING;
    conversation.on_item(
        NOON,
        Item::Message(Message {
            id: MessageId { publisher: NodeId(id), session: 1, sequence: 1 },
            position,
            mark: Mark { birth: 1, next: 2 },
            payload: envelope.encode(),
        }),
    );
}

fn say(conversation: &mut Conversation, text: &str) -> u64 {
    conversation.on_typed(NOON, Typed::Say(text.into()));
    let mut n = 0;
    while let Some(sent) = conversation.sent() {
        n = sent;
    }
    n
}

fn draw(
    conversation: &Conversation,
    input: &Input,
    scroll: usize,
    (width, height): (u16, u16),
) -> (Vec<String>, Drawn, Position) {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let ring = RingView { peers: 3, ready: true };
    let view = View { conversation, input, ring, entering: None, scroll };
    let mut drawn = Drawn::default();
    terminal.draw(|frame| drawn = render(frame, &view)).unwrap();
    let cursor = terminal.get_cursor_position().unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| -> String {
        let mut text = String::new();
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            text.push_str(symbol);
            x += (cells(symbol) as u16).max(1);
        }
        text.trim_end().to_string()
    };
    ((0..height).map(row).collect(), drawn, cursor)
}

fn typed(text: &str) -> Input {
    let mut input = Input::new(4096);
    assert!(input.insert(text));
    input
}

#[test]
fn messages_members_status_and_input_have_their_places() {
    let mut lobby = lobby();
    hear(&mut lobby, 2, "ann", "日本 hello");
    let n = say(&mut lobby, "hi ann");
    let (rows, ..) = draw(&lobby, &typed("next"), 0, (60, 6));
    assert_eq!(rows[0], "                                        │ 2 here");
    assert_eq!(rows[1], "12:05   you joined #lobby as me         │ me (you)");
    assert_eq!(rows[2], "12:05 ann: 日本 hello                   │ ann");
    assert_eq!(rows[3], "12:05 me: hi ann …                      │");
    assert_eq!(rows[4], " #lobby · me · 3 peers                                /help");
    assert_eq!(rows[5], "> next");
    let receipt = Receipt {
        id: MessageId { publisher: NodeId(1), session: 1, sequence: 1 },
        position: BEGINNING,
        copies: 1,
        listeners: 2,
    };
    lobby.on_receipt(NOON, n, &Ok(receipt));
    let (rows, ..) = draw(&lobby, &typed(""), 0, (60, 6));
    assert_eq!(rows[3], "12:05 me: hi ann ✓ 1                    │");
}

#[test]
fn what_was_said_earlier_is_dim_and_stands_between_dividers() {
    let mut lobby = arriving();
    hear(&mut lobby, 2, "ann", "an old word");
    arrive(&mut lobby);
    hear(&mut lobby, 2, "ann", "a new word");
    let (rows, ..) = draw(&lobby, &typed(""), 0, (40, 7));
    assert_eq!(rows[0], "12:05   you joined #lobby as me");
    assert_eq!(rows[1], format!("── earlier {}", "─".repeat(29)));
    assert_eq!(rows[2], "      ann: an old word");
    assert_eq!(rows[3], format!("── now {}", "─".repeat(33)));
    assert_eq!(rows[4], "12:05 ann: a new word");
    let mut lines = Vec::new();
    lobby.entries().for_each(|entry| append_entry(&mut lines, entry, 40));
    let is_dim = |line: &Line| {
        let style = |span: &Span| line.style.patch(span.style).add_modifier.contains(Modifier::DIM);
        line.spans.iter().filter(|span| !span.content.trim().is_empty()).all(style)
    };
    assert_eq!(lines.iter().map(is_dim).collect::<Vec<_>>(), [false, true, true, true, false]);
}

#[test]
fn long_messages_wrap_under_themselves() {
    let mut lobby = lobby();
    hear(&mut lobby, 2, "ann", "one two three four five six seven eight nine");
    let (rows, ..) = draw(&lobby, &typed(""), 0, (40, 5));
    assert_eq!(rows[0], "12:05   you joined #lobby as me");
    assert_eq!(rows[1], "12:05 ann: one two three four five six");
    assert_eq!(rows[2], "      seven eight nine");
}

#[test]
fn a_mark_without_room_stands_under_its_words() {
    let mut lobby = lobby();
    say(&mut lobby, "just as long as the line");
    let (rows, ..) = draw(&lobby, &typed(""), 0, (34, 5));
    assert_eq!(rows[1..3], ["12:05 me: just as long as the line", "      …"]);
}

#[test]
fn one_scrolls_up_to_the_first_line_and_no_further() {
    let mut lobby = lobby();
    for n in 0..20 {
        hear(&mut lobby, 2, "ann", &n.to_string());
    }
    let (rows, drawn, _) = draw(&lobby, &typed(""), 0, (40, 7));
    assert_eq!((drawn, rows[4].as_str()), (Drawn { page: 5, max_scroll: 16 }, "12:05 ann: 19"));
    let (rows, ..) = draw(&lobby, &typed(""), 16, (40, 7));
    assert_eq!(rows[0], "12:05   you joined #lobby as me");
    assert!(rows[5].contains("PgDn"), "{}", rows[5]);
    let (beyond, ..) = draw(&lobby, &typed(""), 999, (40, 7));
    assert_eq!(beyond, rows);
}

#[test]
fn the_cursor_stands_behind_wide_characters_and_long_lines_move_under_it() {
    let lobby = lobby();
    let (_, _, cursor) = draw(&lobby, &typed("日本"), 0, (20, 4));
    assert_eq!(cursor, Position { x: 2 + 4, y: 3 });
    let mut long = typed("abcdefghijklmnopqrstuvwxyz日");
    let (rows, _, cursor) = draw(&lobby, &long, 0, (12, 4));
    assert_eq!((rows[3].as_str(), cursor.x), ("> tuvwxyz日", 11));
    long.home();
    let (rows, _, cursor) = draw(&lobby, &long, 0, (12, 4));
    assert_eq!((rows[3].as_str(), cursor.x), ("> abcdefghi", 2));
}

#[test]
fn no_screen_is_too_small() {
    let mut lobby = lobby();
    hear(&mut lobby, 2, "日本語日本語", "wide 日本語 and e\u{301} and 👩‍👩‍👧 anevenlongerword");
    for n in 0..40 {
        hear(&mut lobby, 10 + n, &format!("member{n}"), "x");
    }
    say(&mut lobby, "mine");
    let input = typed("日本語 typed");
    for width in 1..70 {
        for height in 1..9 {
            draw(&lobby, &input, 2, (width, height));
        }
    }
    let (rows, ..) = draw(&lobby, &input, 0, (60, 6));
    assert!(rows[3].ends_with("and 40 more"), "{}", rows[3]);
}

//! The chat's screen: a pure function of the conversation and of what is being typed.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph};
use treecast_scribe::overlay::id::NodeId;

use super::conversation::{Body, Conversation, Delivery, Entry};
use super::input::Input;
use super::session::RingView;
use super::text::{cells, cut, harmless, wrap};

/// Below this width there is no room for the members beside the messages.
const MEMBERS_FROM: u16 = 48;
/// The members' pane, its border included.
const MEMBERS_WIDTH: u16 = 20;
/// Nicks differ by these; no red and yellow, which warn.
const COLOURS: [Color; 8] = [
    Color::Cyan,
    Color::Green,
    Color::Magenta,
    Color::Blue,
    Color::LightCyan,
    Color::LightGreen,
    Color::LightMagenta,
    Color::LightBlue,
];

/// All that the screen shows.
pub(super) struct View<'a> {
    pub(super) conversation: &'a Conversation,
    pub(super) input: &'a Input,
    pub(super) ring: RingView,
    /// The room that is being entered.
    pub(super) entering: Option<&'a str>,
    /// Lines scrolled up from the end; clamped to what there is.
    pub(super) scroll: usize,
}

/// What was drawn, for scrolling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drawn {
    /// Height of the messages' pane.
    pub(super) page: usize,
    /// The furthest that one can scroll up.
    pub(super) max_scroll: usize,
}

/// Draws a screen of any size, also of none.
pub(super) fn render(frame: &mut Frame, view: &View) -> Drawn {
    let [above, status, input] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(1), Constraint::Length(1)])
            .areas(frame.area());
    let beside = if above.width >= MEMBERS_FROM { MEMBERS_WIDTH } else { 0 };
    let [messages, members] =
        Layout::horizontal([Constraint::Min(0), Constraint::Length(beside)]).areas(above);
    let drawn = render_messages(frame, messages, view);
    render_members(frame, members, view.conversation);
    render_status(frame, status, view, drawn);
    render_input(frame, input, view.input);
    drawn
}

fn render_messages(frame: &mut Frame, area: Rect, view: &View) -> Drawn {
    let (width, page) = (usize::from(area.width), usize::from(area.height));
    if width == 0 || page == 0 {
        return Drawn::default();
    }
    let mut lines = Vec::new();
    for entry in view.conversation.entries() {
        append_entry(&mut lines, entry, width);
    }
    let max_scroll = lines.len().saturating_sub(page);
    let end = lines.len() - view.scroll.min(max_scroll);
    let shown: Vec<Line> = lines.drain(end.saturating_sub(page)..end).collect();
    // The newest line stands at the bottom, as in every chat.
    let blank = page - shown.len();
    let area = Rect { y: area.y + blank as u16, height: shown.len() as u16, ..area };
    frame.render_widget(Paragraph::new(shown), area);
    Drawn { page, max_scroll }
}

fn append_entry(lines: &mut Vec<Line<'static>>, entry: &Entry, width: usize) {
    if let Body::Divider(text) = entry.body {
        return lines.push(Line::styled(divider(text, width), Style::new().dim()));
    }
    let time = match entry.clock {
        _ if width < 30 => String::new(),
        Some(clock) => format!("{:02}:{:02} ", clock / 60 % 24, clock % 60),
        None => " ".repeat(6),
    };
    let (head, text, style, tail) = match &entry.body {
        Body::Said { from, name, text, action, delivery } => {
            let head = if *action { format!("* {name} ") } else { format!("{name}: ") };
            (
                Span::styled(head, if entry.is_earlier() { Style::new().dim() } else { name_style(*from) }),
                text.as_str(),
                if entry.is_earlier() { Style::new().dim() } else { said_style(delivery) },
                delivery_mark(delivery),
            )
        }
        Body::Notice(text) => ("· ".dim(), text.as_str(), Style::new().dim(), None),
        Body::Warning(text) => ("! ".yellow(), text.as_str(), Style::new().yellow(), None),
        Body::Reply(text) => ("  ".into(), text.as_str(), Style::new().italic(), None),
        Body::Divider(text) => ("".into(), *text, Style::new().dim(), None),
    };
    let indent = cells(&time);
    let mut rows = rows(time, head, text, style, width);
    if let Some(mark) = tail {
        append_mark(&mut rows, mark, width, indent);
    }
    lines.append(&mut rows);
}

/// A line across, with a word in it.
fn divider(text: &str, width: usize) -> String {
    let line = format!("── {text} ");
    let rest = "─".repeat(width.saturating_sub(cells(&line)));
    cut(&format!("{line}{rest}"), width)
}

/// The first row begins with time and head, the others with as many blanks as the time has.
fn rows(time: String, head: Span<'static>, text: &str, style: Style, width: usize) -> Vec<Line<'static>> {
    let indent = cells(&time);
    let taken = indent + cells(&head.content);
    if taken + 8 > width {
        // No room beside the head: the text goes below.
        let mut rows = vec![Line::from(Span::styled(cut(&head.content, width), head.style))];
        rows.extend(wrap(text, width, width).into_iter().map(|row| Line::styled(row, style)));
        return rows;
    }
    let mut texts = wrap(text, width - taken, width - indent).into_iter();
    let first = Span::styled(texts.next().unwrap_or_default(), style);
    let mut rows = vec![Line::from(vec![Span::styled(time, Style::new().dim()), head, first])];
    rows.extend(texts.map(|row| Line::from(vec![" ".repeat(indent).into(), Span::styled(row, style)])));
    rows
}

fn append_mark(rows: &mut Vec<Line<'static>>, mark: Span<'static>, width: usize, indent: usize) {
    let Some(last) = rows.last_mut() else { return };
    if last.width() + 1 + cells(&mark.content) <= width {
        last.push_span(" ");
        last.push_span(mark);
    } else {
        let indent = if indent + cells(&mark.content) <= width { indent } else { 0 };
        let mark = Span::styled(cut(&mark.content, width), mark.style);
        rows.push(Line::from(vec![" ".repeat(indent).into(), mark]));
    }
}

fn delivery_mark(delivery: &Option<Delivery>) -> Option<Span<'static>> {
    Some(match delivery.as_ref()? {
        Delivery::Pending => "…".dim(),
        Delivery::Delivered { others: 0 } => "✓ nobody else listens".dim(),
        Delivery::Delivered { others } => format!("✓ {others}").green(),
        Delivery::Failed(why) => format!("✗ {why}").red(),
    })
}

fn said_style(delivery: &Option<Delivery>) -> Style {
    match delivery {
        Some(Delivery::Pending) => Style::new().dim(),
        Some(Delivery::Delivered { .. } | Delivery::Failed(_)) | None => Style::new(),
    }
}

fn name_style(id: NodeId) -> Style {
    let colour = COLOURS[(id.0 >> 64) as usize % COLOURS.len()];
    Style::new().fg(colour).add_modifier(Modifier::BOLD)
}

fn render_members(frame: &mut Frame, area: Rect, conversation: &Conversation) {
    if area.width < 4 || area.height == 0 || conversation.room().is_none() {
        return;
    }
    let width = usize::from(area.width) - 2;
    let others = conversation.others();
    let mut lines = vec![Line::styled(format!("{} here", others.len() + 1), Style::new().dim())];
    let me = cut(&format!("{} (you)", conversation.nick()), width);
    lines.push(Line::styled(me, name_style(conversation.me())));
    let room = usize::from(area.height).saturating_sub(lines.len());
    let listed = if others.len() <= room { others.len() } else { room.saturating_sub(1) };
    lines.extend(others[..listed].iter().map(|(id, name)| Line::styled(cut(name, width), name_style(*id))));
    if listed < others.len() {
        lines.push(Line::styled(format!("and {} more", others.len() - listed), Style::new().dim()));
    }
    let border = Block::new().borders(Borders::LEFT).border_style(Style::new().dim());
    let pane = Paragraph::new(lines).block(border.padding(ratatui::widgets::Padding::left(1)));
    frame.render_widget(pane, area);
}

fn render_status(frame: &mut Frame, area: Rect, view: &View, drawn: Drawn) {
    let room = match (view.entering, view.conversation.room()) {
        (Some(entering), _) => format!("entering #{}…", harmless(entering)),
        (None, Some(room)) => format!("#{}", harmless(room)),
        (None, None) => "no room".to_string(),
    };
    let ring = match view.ring {
        RingView { ready: false, .. } => "looking for the ring…".to_string(),
        RingView { peers: 0, .. } => "alone in the ring".to_string(),
        RingView { peers: 1, .. } => "1 peer".to_string(),
        RingView { peers, .. } => format!("{peers} peers"),
    };
    let mut text = format!(" {room} · {} · {ring}", view.conversation.nick());
    if view.scroll.min(drawn.max_scroll) > 0 {
        text.push_str(" · PgDn for newer");
    }
    let width = usize::from(area.width);
    let text = cut(&text, width);
    let hint = "/help ";
    let blank = width.saturating_sub(cells(&text) + cells(hint));
    let text = if blank > 0 { format!("{text}{}{hint}", " ".repeat(blank)) } else { text };
    frame.render_widget(Paragraph::new(text).reversed(), area);
}

fn render_input(frame: &mut Frame, area: Rect, input: &Input) {
    if area.is_empty() {
        return;
    }
    let prompt = if area.width > 8 { "> " } else { "" };
    let width = usize::from(area.width) - prompt.len();
    // The cursor needs a cell, too.
    let (shown, cursor) = window(input, width.saturating_sub(1));
    let line = Line::from(vec![prompt.dim(), shown.into()]);
    frame.render_widget(Paragraph::new(line), area);
    let x = area.x + (prompt.len() + cursor) as u16;
    frame.set_cursor_position(Position { x: x.min(area.right() - 1), y: area.y });
}

/// The part of the line around the cursor that fits into `width` cells, and the cursor's cell in it.
fn window(input: &Input, width: usize) -> (String, usize) {
    use unicode_segmentation::UnicodeSegmentation;
    let cursor = input.cursor_cell();
    let from = cursor.saturating_sub(width);
    let (mut at, mut shown, mut skipped) = (0, String::new(), None);
    for cluster in input.text().graphemes(true) {
        let wide = cells(cluster);
        if at >= from && at + wide <= from + width {
            skipped.get_or_insert(at);
            shown.push_str(cluster);
        }
        at += wide;
    }
    (shown, cursor - skipped.unwrap_or(cursor).min(cursor))
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;

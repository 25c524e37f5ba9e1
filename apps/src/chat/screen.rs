//! The chat on a terminal: keys in, frames out. Whatever happens, the terminal is as it was afterwards.

use std::io::{self, Stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossterm::cursor::Show;
use crossterm::event::{
    DisableBracketedPaste, EnableBracketedPaste, Event, EventStream, KeyCode, KeyEvent, KeyEventKind,
    KeyModifiers,
};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use futures::stream::StreamExt;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::command::Typed;
use super::conversation::MAX_TEXT;
use super::input::Input;
use super::render::{Drawn, View, render};
use super::session::Session;
use crate::failure::Failure;
use crate::interrupt::Interrupt;

/// Longest input: a text with a command in front.
const MAX_INPUT: usize = MAX_TEXT + 64;
/// A burst of news is drawn at most so often.
const DRAW_EVERY: Duration = Duration::from_millis(30);

/// Runs until the user leaves, by command, key or signal.
pub(super) async fn run(session: Session, interrupt: Interrupt) -> Result<(), Failure> {
    let terminal = Raw::enter().map_err(|error| Failure::Failed(format!("the terminal: {error}")))?;
    let mut screen = Screen::new(session, terminal);
    let done = tokio::select! {
        done = screen.talk() => done,
        () = interrupt.wait() => Ok(()),
    };
    let Screen { session, terminal, .. } = screen;
    drop(terminal);
    session.quit().await;
    done
}

/// The terminal in raw mode on its alternate screen, until dropped or until a panic.
struct Raw {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Raw {
    fn enter() -> io::Result<Raw> {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // The report would be lost on the alternate screen.
            restore();
            report(panic);
        }));
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let entered = execute!(io::stdout(), EnterAlternateScreen, EnableBracketedPaste)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match entered {
            Ok(terminal) => Ok(Raw { terminal }),
            Err(error) => {
                restore();
                Err(error)
            }
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Whether the terminal is ours at the moment.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back, once: a second time would put the cursor back over the report of a panic. A terminal that is
/// gone needs nothing.
fn restore() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = execute!(io::stdout(), DisableBracketedPaste, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

struct Screen {
    session: Session,
    terminal: Raw,
    input: Input,
    scroll: usize,
    drawn: Drawn,
}

/// What a key wants that is not editing.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    None,
    Submit,
    Quit,
}

impl Screen {
    fn new(session: Session, terminal: Raw) -> Screen {
        Screen { session, terminal, input: Input::new(MAX_INPUT), scroll: 0, drawn: Drawn::default() }
    }

    async fn talk(&mut self) -> Result<(), Failure> {
        let mut keys = EventStream::new();
        let mut draw_from = tokio::time::Instant::now();
        let mut stale = true;
        loop {
            tokio::select! {
                biased;
                key = keys.next() => {
                    let Some(Ok(event)) = key else { return Ok(()) };
                    stale = true;
                    draw_from = tokio::time::Instant::now();
                    if self.on_event(event).await {
                        return Ok(());
                    }
                }
                () = tokio::time::sleep_until(draw_from), if stale => {
                    self.draw().map_err(|error| Failure::Failed(format!("the terminal: {error}")))?;
                    draw_from = tokio::time::Instant::now() + DRAW_EVERY;
                    stale = false;
                }
                step = self.session.step() => {
                    step.map_err(|why| Failure::Failed(format!("the node has stopped: {why}")))?;
                    stale = true;
                }
            }
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        let Screen { session, terminal, input, scroll, drawn } = self;
        let view = View {
            conversation: &session.conversation,
            input,
            ring: session.ring,
            entering: session.entering(),
            scroll: *scroll,
        };
        terminal.terminal.draw(|frame| *drawn = render(frame, &view))?;
        *scroll = (*scroll).min(drawn.max_scroll);
        Ok(())
    }

    /// `true` if the user wants to leave.
    async fn on_event(&mut self, event: Event) -> bool {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => match self.on_key(key) {
                Wish::None => false,
                Wish::Quit => true,
                Wish::Submit => self.on_submit().await,
            },
            Event::Paste(text) => {
                self.insert(&text);
                false
            }
            Event::Key(_) | Event::Resize(..) | Event::FocusGained | Event::FocusLost | Event::Mouse(_) => {
                false
            }
        }
    }

    fn on_key(&mut self, key: KeyEvent) -> Wish {
        let page = self.drawn.page.saturating_sub(1).max(1);
        match on_key(&mut self.input, key) {
            Edit::Done => {}
            Edit::Wish(wish) => return wish,
            Edit::Refused => self.refuse(),
            Edit::Scroll(Scroll::Up) => self.scroll = (self.scroll + page).min(self.drawn.max_scroll),
            Edit::Scroll(Scroll::Down) => self.scroll = self.scroll.saturating_sub(page),
        }
        Wish::None
    }

    async fn on_submit(&mut self) -> bool {
        // What is said must be seen.
        self.scroll = 0;
        let line = self.input.submit();
        let typed = Typed::parse(&line);
        let says = matches!(typed, Typed::Say(_) | Typed::Me(_));
        if says && let Some(why) = self.hindrance() {
            self.input.restore(line);
            self.session.conversation.warn(self.session.now(), format!("not sent yet: {why}"));
            return false;
        }
        self.session.on_typed(typed).await
    }

    /// Why nothing can be said for the moment.
    fn hindrance(&self) -> Option<String> {
        match self.session.entering() {
            Some(room) => Some(format!("#{room} is still being entered")),
            None if self.session.conversation.has_room() => None,
            None => Some("your last messages are still on their way".to_string()),
        }
    }

    fn insert(&mut self, text: &str) {
        if !self.input.insert(text) {
            self.refuse();
        }
    }

    fn refuse(&mut self) {
        let text = format!("there is no room for that: a message has at most {MAX_TEXT} bytes");
        self.session.conversation.warn(self.session.now(), text);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Edit {
    Done,
    Refused,
    Scroll(Scroll),
    Wish(Wish),
}

#[derive(Debug, PartialEq, Eq)]
enum Scroll {
    Up,
    Down,
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys do nothing")]
fn on_key(input: &mut Input, key: KeyEvent) -> Edit {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    let alt = key.modifiers.contains(KeyModifiers::ALT);
    match key.code {
        KeyCode::Char('c') if control => return Edit::Wish(Wish::Quit),
        KeyCode::Char('d') if control && input.text().is_empty() => return Edit::Wish(Wish::Quit),
        KeyCode::Enter => return Edit::Wish(Wish::Submit),
        KeyCode::PageUp => return Edit::Scroll(Scroll::Up),
        KeyCode::PageDown => return Edit::Scroll(Scroll::Down),
        KeyCode::Char('u') if control => input.delete_to_start(),
        KeyCode::Char('w') if control => input.delete_word(),
        KeyCode::Char('a') if control => input.home(),
        KeyCode::Char('e') if control => input.end(),
        KeyCode::Char('d') if control => input.delete(),
        KeyCode::Char('h') if control => input.backspace(),
        KeyCode::Left => input.left(),
        KeyCode::Right => input.right(),
        KeyCode::Home => input.home(),
        KeyCode::End => input.end(),
        KeyCode::Backspace => input.backspace(),
        KeyCode::Delete => input.delete(),
        KeyCode::Up => input.older(),
        KeyCode::Down => input.newer(),
        // Some layouts type characters with both.
        KeyCode::Char(c) if control == alt && !input.insert(c.encode_utf8(&mut [0; 4])) => {
            return Edit::Refused;
        }
        _ => {}
    }
    Edit::Done
}

#[cfg(test)]
#[path = "../../tests/support/tmux.rs"]
mod tmux;

#[cfg(test)]
mod tests {
    use super::tmux::Tmux;
    use super::*;

    /// Set for the copy of this test that runs on the terminal.
    const ON_TERMINAL: &str = "TREECAST_TEST_ON_TERMINAL";

    #[test]
    fn a_panic_leaves_the_terminal_as_it_was_and_its_report_to_be_read() {
        if std::env::var_os(ON_TERMINAL).is_some() {
            let _raw = Raw::enter().unwrap();
            panic!("as the test wants it");
        }
        let Some(tmux) = Tmux::start("panic") else { return };
        let this = std::env::current_exe().unwrap();
        let name = "chat::screen::tests::a_panic_leaves_the_terminal_as_it_was_and_its_report_to_be_read";
        let command = format!(
            "RUST_BACKTRACE=0 {ON_TERMINAL}=1 {} --exact {name} --nocapture; stty -a | tail -2",
            this.display()
        );
        tmux.open("panic", &command);
        let screen = tmux.wait_for("panic", "iexten");
        assert!(screen.contains("as the test wants it"), "the report is lost:\n{screen}");
        assert!(screen.contains("1 failed"), "it did not panic:\n{screen}");
        tmux.expect_restored("panic");
    }

    fn press(input: &mut Input, code: KeyCode, modifiers: KeyModifiers) -> Edit {
        on_key(input, KeyEvent::new(code, modifiers))
    }

    #[test]
    fn keys_edit_the_line_and_the_rest_does_nothing() {
        let mut input = Input::new(8);
        for c in "ab日".chars() {
            assert_eq!(press(&mut input, KeyCode::Char(c), KeyModifiers::NONE), Edit::Done);
        }
        press(&mut input, KeyCode::Left, KeyModifiers::NONE);
        press(&mut input, KeyCode::Char('X'), KeyModifiers::SHIFT);
        press(&mut input, KeyCode::Char('z'), KeyModifiers::CONTROL);
        press(&mut input, KeyCode::F(5), KeyModifiers::NONE);
        assert_eq!(input.text(), "abX日");
        assert_eq!(press(&mut input, KeyCode::Char('語'), KeyModifiers::NONE), Edit::Refused);
        press(&mut input, KeyCode::Char('w'), KeyModifiers::CONTROL);
        assert_eq!(input.text(), "日");
    }

    #[test]
    fn ctrl_d_ends_the_chat_on_an_empty_line_only() {
        let mut input = Input::new(8);
        let quit = Edit::Wish(Wish::Quit);
        assert_eq!(press(&mut input, KeyCode::Char('d'), KeyModifiers::CONTROL), quit);
        press(&mut input, KeyCode::Char('x'), KeyModifiers::NONE);
        press(&mut input, KeyCode::Home, KeyModifiers::NONE);
        assert_eq!(press(&mut input, KeyCode::Char('d'), KeyModifiers::CONTROL), Edit::Done);
        assert_eq!(input.text(), "");
        assert_eq!(press(&mut input, KeyCode::Char('c'), KeyModifiers::CONTROL), quit);
    }
}

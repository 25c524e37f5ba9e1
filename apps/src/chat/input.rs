//! The line that is being typed: editing by what people see as one character, and the lines before it.

use std::collections::VecDeque;

use unicode_segmentation::UnicodeSegmentation;

use super::text::{cells, harmless_char};

/// Most lines that are remembered.
const MAX_HISTORY: usize = 100;

/// A line editor. The cursor stands in front of a character, or at the end.
#[derive(Debug)]
pub(super) struct Input {
    text: String,
    /// A byte offset, always at a character's boundary.
    cursor: usize,
    limit: usize,
    history: VecDeque<String>,
    /// Which line of the history is shown, and what was typed before it was.
    browsing: Option<(usize, String)>,
}

impl Input {
    /// An empty line of at most `limit` bytes.
    pub(super) fn new(limit: usize) -> Input {
        Input { text: String::new(), cursor: 0, limit, history: VecDeque::new(), browsing: None }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Cells in front of the cursor.
    pub(super) fn cursor_cell(&self) -> usize {
        cells(&self.text[..self.cursor])
    }

    /// Types a text in. Lines are joined by spaces, other control characters become visible. `false` if there is no
    /// room for it.
    pub(super) fn insert(&mut self, text: &str) -> bool {
        // Most terminals paste a line's end as a carriage return.
        let text = text.replace("\r\n", " ").replace(['\n', '\r'], " ");
        let text: String = text.chars().map(harmless_char).collect();
        if self.text.len() + text.len() > self.limit {
            return false;
        }
        self.text.insert_str(self.cursor, &text);
        self.cursor += text.len();
        // What was typed may have joined the character in front of it, or behind.
        self.cursor = self.boundary_from(self.cursor);
        true
    }

    pub(super) fn left(&mut self) {
        self.cursor = self.boundary_before(self.cursor);
    }

    pub(super) fn right(&mut self) {
        self.cursor = self.boundary_after(self.cursor);
    }

    pub(super) fn home(&mut self) {
        self.cursor = 0;
    }

    pub(super) fn end(&mut self) {
        self.cursor = self.text.len();
    }

    pub(super) fn backspace(&mut self) {
        let start = self.boundary_before(self.cursor);
        self.text.drain(start..self.cursor);
        self.cursor = start;
    }

    pub(super) fn delete(&mut self) {
        let end = self.boundary_after(self.cursor);
        self.text.drain(self.cursor..end);
    }

    /// Deletes all in front of the cursor (ctrl-u).
    pub(super) fn delete_to_start(&mut self) {
        self.text.drain(..self.cursor);
        self.cursor = 0;
    }

    /// Deletes the word in front of the cursor (ctrl-w).
    pub(super) fn delete_word(&mut self) {
        let before = self.text[..self.cursor].trim_end();
        let start = before
            .rfind(char::is_whitespace)
            .map_or(0, |space| space + before[space..].chars().next().map_or(0, char::len_utf8));
        self.text.drain(start..self.cursor);
        self.cursor = start;
    }

    /// The line before (up).
    pub(super) fn older(&mut self) {
        let shown = self.browsing.as_ref().map_or(self.history.len(), |(shown, _)| *shown);
        if shown == 0 {
            return;
        }
        let typed = self.browsing.take().map_or_else(|| self.text.clone(), |(_, typed)| typed);
        self.show(self.history[shown - 1].clone());
        self.browsing = Some((shown - 1, typed));
    }

    /// The line after (down); behind the last one, what was typed before.
    pub(super) fn newer(&mut self) {
        let Some((shown, typed)) = self.browsing.take() else { return };
        match self.history.get(shown + 1).cloned() {
            Some(line) => {
                self.show(line);
                self.browsing = Some((shown + 1, typed));
            }
            None => self.show(typed),
        }
    }

    /// Takes the line out, to be sent, and remembers it.
    pub(super) fn submit(&mut self) -> String {
        let line = std::mem::take(&mut self.text);
        self.cursor = 0;
        self.browsing = None;
        if !line.trim().is_empty() && self.history.back() != Some(&line) {
            if self.history.len() == MAX_HISTORY {
                self.history.pop_front();
            }
            self.history.push_back(line.clone());
        }
        line
    }

    /// Puts a line back that could not be sent.
    pub(super) fn restore(&mut self, line: String) {
        self.show(line);
    }

    fn show(&mut self, line: String) {
        self.cursor = line.len();
        self.text = line;
    }

    fn boundary_before(&self, at: usize) -> usize {
        self.text[..at].grapheme_indices(true).next_back().map_or(0, |(start, _)| start)
    }

    fn boundary_after(&self, at: usize) -> usize {
        self.text[at..].graphemes(true).next().map_or(at, |cluster| at + cluster.len())
    }

    fn boundary_from(&self, at: usize) -> usize {
        let bounds = self.text.grapheme_indices(true).map(|(start, _)| start);
        bounds.into_iter().find(|&start| start >= at).unwrap_or(self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(text: &str) -> Input {
        let mut input = Input::new(64);
        assert!(input.insert(text));
        input
    }

    #[test]
    fn wide_and_combined_characters_are_one_step_and_one_deletion() {
        let mut input = typed("a日e\u{301}👩‍👩‍👧");
        assert_eq!(input.cursor_cell(), 1 + 2 + 1 + 2);
        input.left();
        input.backspace();
        assert_eq!((input.text(), input.cursor_cell()), ("a日👩‍👩‍👧", 3));
        input.left();
        input.delete();
        assert_eq!((input.text(), input.cursor_cell()), ("a👩‍👩‍👧", 1));
        input.end();
        input.backspace();
        assert_eq!(input.text(), "a");
    }

    #[test]
    fn a_combining_character_joins_what_stands_before_it() {
        let mut input = typed("ex");
        input.left();
        input.insert("\u{301}");
        assert_eq!((input.text(), input.cursor_cell()), ("e\u{301}x", 1));
        input.backspace();
        assert_eq!(input.text(), "x");
    }

    #[test]
    fn pasted_control_characters_become_visible_and_lines_one_line() {
        assert_eq!(typed("a\nb\x1b[2J").text(), "a b␛[2J");
        assert_eq!(typed("a\rb\r\nc").text(), "a b c");
    }

    #[test]
    fn words_and_lines_are_deleted_in_front_of_the_cursor() {
        let mut input = typed("one two  ");
        input.delete_word();
        assert_eq!(input.text(), "one ");
        input.insert("three");
        input.left();
        input.delete_to_start();
        assert_eq!((input.text(), input.cursor_cell()), ("e", 0));
        input.delete_word();
        assert_eq!(input.text(), "e");
    }

    #[test]
    fn nothing_happens_beyond_the_ends() {
        let mut input = Input::new(3);
        input.left();
        input.backspace();
        input.delete();
        input.older();
        input.newer();
        assert!(input.insert("日"));
        assert!(!input.insert("x"), "the limit counts bytes");
        input.right();
        assert_eq!(input.cursor_cell(), 2);
    }

    #[test]
    fn the_history_gives_back_what_was_typed() {
        let mut input = typed("first");
        input.submit();
        input.insert("second");
        input.submit();
        input.insert("draft");
        input.older();
        assert_eq!(input.text(), "second");
        input.older();
        input.older();
        assert_eq!(input.text(), "first");
        input.newer();
        input.newer();
        assert_eq!(input.text(), "draft");
    }
}

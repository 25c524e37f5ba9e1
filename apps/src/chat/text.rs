//! Text of others on this terminal: made harmless, measured in cells, wrapped.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// Widest nick, in cells.
pub(super) const MAX_NICK_CELLS: usize = 32;
/// Most bytes of a nick: 32 cells may hide any number of combining characters.
const MAX_NICK_BYTES: usize = 128;

/// Makes characters that would act on the terminal visible: control characters become their pictures, what turns the
/// writing direction or breaks lines becomes `�`.
pub(crate) fn harmless(text: &str) -> String {
    text.chars().map(harmless_char).collect()
}

pub(super) fn harmless_char(c: char) -> char {
    match c {
        '\t' => ' ',
        '\0'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}' => '\u{fffd}',
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => {
            '\u{fffd}'
        }
        _ => c,
    }
}

/// How many cells a text takes.
pub(super) fn cells(text: &str) -> usize {
    text.width()
}

/// Says what is wrong with a nick, if anything is.
pub(crate) fn check_nick(nick: &str) -> Result<(), &'static str> {
    if nick.chars().any(|c| c.is_whitespace()) {
        return Err("a nick has no spaces");
    }
    if harmless(nick) != nick {
        return Err("a nick has no control characters");
    }
    match cells(nick) {
        0 => Err("a nick has at least one visible character"),
        1..=MAX_NICK_CELLS if nick.len() <= MAX_NICK_BYTES => Ok(()),
        _ => Err("a nick has at most 32 cells"),
    }
}

/// A nick that somebody else claims, made fit to be shown; `None` if nothing fit is left.
pub(super) fn fit_nick(nick: &str) -> Option<String> {
    let mut fit = String::new();
    for cluster in nick.graphemes(true) {
        let cluster = harmless(cluster);
        let blank = cluster.chars().any(char::is_whitespace);
        if blank {
            continue;
        }
        if cells(&fit) + cells(&cluster) > MAX_NICK_CELLS || fit.len() + cluster.len() > MAX_NICK_BYTES {
            break;
        }
        fit.push_str(&cluster);
    }
    (cells(&fit) > 0).then_some(fit)
}

/// Cuts a text to so many cells, the last of them `…` if something is missing.
pub(super) fn cut(text: &str, width: usize) -> String {
    if cells(text) <= width {
        return text.to_string();
    }
    let mut kept = String::new();
    for cluster in text.graphemes(true) {
        if cells(&kept) + cells(cluster) + 1 > width {
            break;
        }
        kept.push_str(cluster);
    }
    if width > 0 {
        kept.push('…');
    }
    kept
}

/// Breaks a text into lines of at most `width` cells, the first one of `first` cells, at spaces where there are any.
/// At least one line. A character that is wider than a whole line becomes `…`.
pub(super) fn wrap(text: &str, first: usize, width: usize) -> Vec<String> {
    let mut paragraph =
        Paragraph { lines: Vec::new(), line: String::new(), first: first.max(1), width: width.max(1) };
    for word in text.split_inclusive(char::is_whitespace) {
        paragraph.add_word(word);
    }
    paragraph.lines.push(paragraph.line);
    paragraph.lines
}

struct Paragraph {
    lines: Vec<String>,
    line: String,
    first: usize,
    width: usize,
}

impl Paragraph {
    fn limit(&self) -> usize {
        if self.lines.is_empty() { self.first } else { self.width }
    }

    fn fits(&self, more: &str) -> bool {
        cells(&self.line) + cells(more) <= self.limit()
    }

    fn break_line(&mut self) {
        self.lines.push(std::mem::take(&mut self.line));
    }

    /// A word and the space behind it, which may fall off the line's end.
    fn add_word(&mut self, word: &str) {
        let bare = word.trim_end();
        if !self.fits(bare) && cells(bare) <= self.width {
            self.break_line();
        }
        if self.fits(word) {
            self.line.push_str(word);
        } else {
            // A word that is longer than a line begins where it stands, and breaks where it must.
            bare.graphemes(true).for_each(|cluster| self.add_cluster(cluster));
        }
    }

    fn add_cluster(&mut self, cluster: &str) {
        let cluster = if cells(cluster) > self.width { "…" } else { cluster };
        if !self.fits(cluster) {
            self.break_line();
        }
        self.line.push_str(cluster);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_gets_through() {
        assert_eq!(harmless("\x1b[31mred\x07\r\n\u{9b}\u{202e}x\ty"), "␛[31mred␇␍␊��x y");
        assert_eq!(harmless("日本 é 👩‍👩‍👧"), "日本 é 👩‍👩‍👧");
    }

    #[test]
    fn nicks_are_checked_and_those_of_others_made_fit() {
        assert_eq!(check_nick("ann"), Ok(()));
        assert_eq!(check_nick("日本語"), Ok(()));
        for bad in ["", "a b", "a\x1b", "\u{200b}", &"日".repeat(17), &format!("e{}", "\u{301}".repeat(99))]
        {
            assert!(check_nick(bad).is_err(), "{bad:?}");
        }
        assert_eq!(fit_nick("a b\x1b[2J").as_deref(), Some("ab␛[2J"));
        assert_eq!(fit_nick(&"日".repeat(40)).as_deref(), Some("日".repeat(16).as_str()));
        assert_eq!(fit_nick(" \u{200b}"), None);
    }

    #[test]
    fn texts_are_cut_and_wrapped_by_cells() {
        assert_eq!((cut("日本語", 4), cut("abc", 3), cut("abc", 0)), ("日…".into(), "abc".into(), "".into()));
        assert_eq!(wrap("ab cd", 3, 3), ["ab ", "cd"]);
        assert_eq!(wrap("ab cd ef", 2, 5), ["ab", "cd ef"]);
        assert_eq!(wrap("ab ctrl-u", 7, 7), ["ab ", "ctrl-u"]);
        assert_eq!(wrap("日本語", 4, 4), ["日本", "語"]);
        assert_eq!(wrap("abcdef", 4, 4), ["abcd", "ef"]);
        assert_eq!(wrap("日", 1, 1), ["…"]);
        assert_eq!(wrap("", 5, 5), [""]);
        for width in 0..9 {
            for line in wrap("a  wide 日本 word and anevenlongerone", width, width) {
                assert!(cells(&line) <= width.max(1), "{width}: {line:?}");
            }
        }
    }
}

use super::source::{read, shown, sources, top};

/// A sentence that begins so has no subject: it names neither the code nor the thing that the code is about.
const POOR_BEGINNINGS: [&str; 4] = ["Who", "What", "Whoever", "Those"];

/// The comment on a line, and of which kind it is.
fn comment(line: &str) -> Option<(&'static str, &str)> {
    let line = line.trim_start();
    let kinds = ["//!", "///", "//"];
    let whole = kinds.into_iter().find_map(|kind| Some((kind, line.strip_prefix(kind)?)));
    whole.or_else(|| line.split_once(" // ").map(|(_, text)| ("//", text)))
}

/// The sentences of a file's comments. Blocks of code, tables and links are none.
fn sentences(text: &str) -> Vec<String> {
    let mut paragraphs: Vec<(&str, String)> = Vec::new();
    let (mut is_code, mut goes_on) = (false, false);
    for line in text.lines() {
        let Some((kind, comment)) = comment(line) else {
            goes_on = false;
            continue;
        };
        let comment = comment.trim();
        is_code ^= comment.starts_with("```");
        if is_code || comment.is_empty() || comment.starts_with(['|', '`']) && comment.ends_with(['|', '`']) {
            goes_on = false;
            continue;
        }
        let item =
            comment.trim_start_matches(['-', '*', '.']).trim_start_matches(|c: char| c.is_ascii_digit());
        let begins = item.len() < comment.len() && item.starts_with([' ', '.']);
        match paragraphs.last_mut().filter(|(last, _)| goes_on && *last == kind && !begins) {
            Some((_, paragraph)) => *paragraph += &format!(" {comment}"),
            None => paragraphs.push((kind, comment.to_string())),
        }
        goes_on = true;
    }
    paragraphs.iter().flat_map(|(_, paragraph)| split(paragraph)).collect()
}

/// A sentence ends where a full stop, a question mark or an exclamation mark stands before a capital letter.
fn split(paragraph: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    for (at, word) in words.iter().enumerate() {
        let sentence = found.last_mut().unwrap();
        *sentence += word;
        sentence.push(' ');
        let ends = word.trim_end_matches([')', '"', '*', '`']).ends_with(['.', '?', '!']);
        let next =
            words.get(at + 1).and_then(|next| next.trim_start_matches(['(', '"', '*', '[']).chars().next());
        if ends && next.is_some_and(|c| c.is_uppercase() || c == '`') {
            found.push(String::new());
        }
    }
    found.retain(|sentence| sentence.chars().filter(|c| c.is_alphabetic()).count() > 1);
    found
}

fn is_poor(sentence: &str) -> bool {
    let first = sentence.trim_start_matches(|c: char| !c.is_alphanumeric());
    let first = first.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    POOR_BEGINNINGS.contains(&first)
}

#[test]
fn sentences_have_a_subject() {
    for part in ["overlay/src", "scribe/src"] {
        let (mut all, mut poor) = (0, Vec::new());
        for file in sources(&top().join(part)) {
            for sentence in sentences(&read(&file)) {
                all += 1;
                if is_poor(&sentence) {
                    poor.push(format!("{}: {sentence}", shown(&file)));
                }
            }
        }
        println!("{part}: {} of {all} sentences begin with {POOR_BEGINNINGS:?}", poor.len());
        assert!(all > 1000, "{part} has comments");
        assert!(poor.len() * 200 < all, "{} of {all} sentences, 0.5 % are too many: {poor:#?}", poor.len());
    }
}

#[test]
fn the_count_sees_poor_sentences() {
    let text = "/// What it is. It is\n/// a node (Pastry §2.1). Who\n/// knows?\n/// ```\n/// Who\n/// ```\n/// - Those.\nlet a = 1; // Whoever.";
    let found = sentences(text);
    assert_eq!(found.len(), 5, "{found:#?}");
    assert_eq!(found.iter().filter(|sentence| is_poor(sentence)).count(), 4);
}

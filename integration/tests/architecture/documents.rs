use std::path::PathBuf;

use super::source::{files, identifiers, read, shown, top};

/// The pages of this repository.
fn pages() -> Vec<PathBuf> {
    files(&top(), "md")
}

/// The links of a page: text and target.
fn links(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("](") {
        let target = text[at + 2..].split(')').next().unwrap_or_default();
        let label = text[..at].rsplit('[').next().unwrap_or_default();
        found.push((label, target));
    }
    found
}

/// The function or type that a link to a source names: `Node::forward` → forward.
fn named(label: &str) -> Option<&str> {
    let name = label.strip_prefix('`')?.strip_suffix('`')?.rsplit("::").next()?;
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then_some(name)
}

fn declares(code: &str, name: &str) -> bool {
    let kinds = ["fn", "struct", "enum", "trait", "type", "const", "mod"];
    let mut before = "";
    let mut is_variant = false;
    for (_, identifier) in identifiers(code) {
        if identifier == name && kinds.contains(&before) {
            return true;
        }
        before = identifier;
    }
    // A variant of an enum.
    for line in code.lines() {
        let line = line.trim();
        is_variant |= line
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([',', ' ', '(', '{']));
    }
    is_variant
}

#[test]
fn links_lead_somewhere_and_functions_are_where_the_pages_say() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = read(&page);
        for (label, target) in links(&text) {
            if target.contains("://") || target.starts_with('#') || target.contains(char::is_whitespace) {
                continue;
            }
            let path = target.split('#').next().unwrap_or_default();
            let file = page.parent().unwrap().join(path);
            if !file.exists() {
                wrong.push(format!("{}: {target} does not exist", shown(&page)));
            } else if path.ends_with(".rs")
                && let Some(name) = named(label)
                && !label.contains('.')
                && !declares(&read(&file), name)
            {
                wrong.push(format!("{}: {name} is not in {path}", shown(&page)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_check_sees_a_wrong_function() {
    let found = links("see [`Node::go`](../a.rs), [b](c.md)");
    assert_eq!(found, [("`Node::go`", "../a.rs"), ("b", "c.md")]);
    assert_eq!((named("`Node::go`"), named("b")), (Some("go"), None));
    assert!(declares("pub(super) fn go(&self) {}", "go") && declares("enum A {\n    Go(u8),\n}", "Go"));
    assert!(!declares("fn going() { self.go() }", "go"));
}

/// Paths in backticks: `overlay/src/…` must exist.
#[test]
fn files_that_the_pages_name_exist() {
    let mut wrong = Vec::new();
    let places = [top(), top().join("scribe/src"), top().join("overlay/src")];
    for page in pages().into_iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        let text = read(&page);
        for span in text.split('`').skip(1).step_by(2) {
            let is_path = span.contains('/') && (span.ends_with(".rs") || span.ends_with('/'));
            let is_plain = !span.contains(|c: char| c.is_whitespace() || "…*$A:".contains(c));
            let exists = |place: &PathBuf| place.join(span).exists();
            let begins = ["overlay/", "scribe/", "apps/", "integration/", "docs/"];
            if is_path
                && is_plain
                && begins.iter().any(|dir| span.starts_with(dir))
                && !places.iter().any(exists)
            {
                wrong.push(format!("{}: {span}", shown(&page)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Text files of the repository.
fn texts() -> Vec<PathBuf> {
    ["md", "rs", "toml"].iter().flat_map(|extension| files(&top(), extension)).collect()
}

#[test]
fn nothing_outside_the_repository_is_named() {
    // (In pieces, so that this file does not name it either.)
    let outside = [
        concat!("../", "shared"),
        concat!("/work", "/"),
        concat!("anchors", ".md"),
        concat!("style", ".md"),
        concat!("redesign", ".md"),
        concat!("security", ".md"),
        concat!("example", ".invalid/treecast"),
    ];
    let mut wrong = Vec::new();
    for file in texts() {
        let text = read(&file);
        let found = outside.iter().filter(|name| text.contains(**name));
        wrong.extend(found.map(|name| format!("{} names {name}", shown(&file))));
    }
    assert!(wrong.is_empty(), "a reader has this repository only: {wrong:#?}");
}

/// Whether a word looks like the short name of a commit.
fn is_commit(word: &str) -> bool {
    let is_hex = word.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
    let is_mixed =
        word.contains(|c: char| c.is_ascii_digit()) && word.contains(|c: char| c.is_ascii_lowercase());
    (7..=8).contains(&word.len()) && is_hex && is_mixed && !word.starts_with("ed25519")
}

#[test]
fn running_text_names_no_commits() {
    let mut wrong = Vec::new();
    for page in pages().into_iter().filter(|page| !page.ends_with("protocol.md")) {
        let text = read(&page);
        let found = identifiers(&text).filter(|(_, word)| is_commit(word));
        wrong.extend(found.map(|(line, word)| format!("{}:{line}: {word}", shown(&page))));
    }
    assert!(wrong.is_empty(), "a figure names its command: {wrong:#?}");
}

#[test]
fn sections_of_the_design_exist() {
    let design = read(&top().join("docs/design.md"));
    let mut wrong = Vec::new();
    for file in texts() {
        let text = read(&file);
        for (at, found) in text.match_indices("design §") {
            let number: String = text[at + found.len()..].chars().take_while(char::is_ascii_digit).collect();
            // (Without a number it is a pattern, as in this test.)
            if !number.is_empty() && !design.contains(&format!("\n## {number}. ")) {
                wrong.push(format!("{}: §{number}", shown(&file)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

//! The import table of `docs/architecture.md`, held against the sources.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// Module → what it may use, as the page says.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let page = fs::read_to_string(top().join("docs/architecture.md")).unwrap();
    let (_, rest) = page.split_once("<!-- imports -->").expect("the page marks its table");
    let (table, _) = rest.split_once("<!-- end -->").expect("the page marks its table's end");
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.contains('/'));
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(str::trim);
        let module = cells.next().unwrap().to_string();
        let allowed = cells.next().unwrap().split(", ").filter(|name| !name.is_empty()).map(String::from);
        (module, allowed.collect())
    })
    .collect()
}

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A file's top module: `overlay/src/wire/codec.rs` → `wire`.
fn module(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_string()
}

fn is_test(file: &Path) -> bool {
    let name = file.file_name().unwrap().to_string_lossy();
    name.contains("test") || file.components().any(|part| part.as_os_str().to_string_lossy().contains("test"))
}

/// The code of a file: without comments, and without its unit tests at the end.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The names right behind each `prefix` in a text, groups in braces included: `crate::{a, b::c}` → a, b.
fn uses(code: &str, prefix: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect()
    };
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let group = group.split('}').next().unwrap_or_default();
                found.extend(group.split(',').map(name));
            }
            None => {
                found.insert(name(rest));
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn modules_use_only_what_the_page_allows() {
    let table = table();
    let mut wrong = Vec::new();
    for part in ["overlay", "scribe"] {
        let src = top().join(part).join("src");
        for file in
            sources(&src).into_iter().filter(|file| !is_test(file) && file.file_name().unwrap() != "lib.rs")
        {
            let module = module(&src, &file);
            let Some(allowed) = table.get(&format!("{part}/{module}")) else {
                wrong.push(format!("{part}/{module} is not in the table"));
                continue;
            };
            for used in uses(&code(&file), "crate::") {
                if used != module && !allowed.contains(&used) {
                    wrong.push(format!("{} uses {used}", file.strip_prefix(top()).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn layers_import_downwards_only() {
    let forbidden = [
        ("overlay", &["treecast_scribe::", "treecast_integration::"][..]),
        ("scribe", &["treecast_integration::"][..]),
        ("apps", &["treecast_integration::", "treecast_overlay::"][..]),
    ];
    for (part, crates) in forbidden {
        for file in sources(&top().join(part).join("src")) {
            let code = code(&file);
            for name in crates {
                assert!(!code.contains(name), "{} uses {name}", file.display());
            }
        }
    }
    // `.ci/run` checks what a core is built from without its features; here: that only `net` sees sockets.
    let src = top().join("overlay/src");
    for file in sources(&src).into_iter().filter(|file| module(&src, file) != "net") {
        assert!(!code(&file).contains("tokio::"), "{} uses tokio", file.display());
    }
}

#[test]
fn the_check_sees_a_wrong_import() {
    assert_eq!(uses("use crate::{wire::Frame, id};\nuse crate::pastry::Node;", "crate::").len(), 3);
}

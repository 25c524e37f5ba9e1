use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::{code, is_test, read, shown, sources, top};

/// Module → what it may use, as the page says.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let page = read(&top().join("docs/architecture.md"));
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

/// A file's top module: `overlay/src/wire/codec.rs` → `wire`.
fn module(src: &Path, file: &Path) -> String {
    let first = file.strip_prefix(src).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_string()
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
        let is_listed = |file: &Path| !is_test(file) && file.file_name().unwrap() != "lib.rs";
        for file in sources(&src).into_iter().filter(|file| is_listed(file)) {
            let module = module(&src, &file);
            let Some(allowed) = table.get(&format!("{part}/{module}")) else {
                wrong.push(format!("{part}/{module} is not in the table"));
                continue;
            };
            for used in uses(&code(&read(&file)), "crate::") {
                if used != module && !allowed.contains(&used) {
                    wrong.push(format!("{} uses {used}", shown(&file)));
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
            let code = code(&read(&file));
            for name in crates {
                assert!(!code.contains(name), "{} uses {name}", shown(&file));
            }
        }
    }
    // What a core is built from without its features is checked by `.ci/run`; here: that only `net` sees sockets.
    let src = top().join("overlay/src");
    for file in sources(&src).into_iter().filter(|file| module(&src, file) != "net") {
        assert!(!code(&read(&file)).contains("tokio::"), "{} uses tokio", shown(&file));
    }
}

#[test]
fn the_check_sees_a_wrong_import() {
    assert_eq!(uses("use crate::{wire::Frame, id};\nuse crate::pastry::Node;", "crate::").len(), 3);
}

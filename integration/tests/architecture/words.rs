use std::collections::BTreeMap;

use super::source::{code, identifiers, is_test, read, shown, sources, top};

/// Where a word is banned, the word, and what is written in its place (`docs/glossary.md`).
type Row = (&'static [&'static str], &'static str, &'static str);

const OVERLAY: &[&str] = &["overlay/src"];
const SCRIBE: &[&str] = &["scribe/src"];
const CORES: &[&str] = &["overlay/src", "scribe/src"];

/// Words that this project made up, or uses otherwise than the field does. A row in small letters is about a word in prose
/// and in any identifier (`verdict` finds `on_verdicts` and `Verdict`); any other row is about exactly this identifier.
const BANNED: &[Row] = &[
    (CORES, "roundabout", "reply_contact"),
    (CORES, "verdict", "failure: found dead"),
    (CORES, "bury_for", "dead_for"),
    (CORES, "raw_loss", "target_loss_rate"),
    (OVERLAY, "doubt", "hedge_above"),
    (CORES, "ride_after", "piggyback_after"),
    (SCRIBE, "Visit", "CapacityProbe"),
    (SCRIBE, "Part", "Detach (a farewell), Chunk (a piece of data)"),
    (CORES, "hang", "attach"),
    (CORES, "exhume", "clear_dead"),
    (CORES, "exhumed", "clear_dead"),
    (CORES, "condemn", "begin_removal"),
    (CORES, "condemned", "being removed"),
    (CORES, "pardon", "cancel_removal"),
    (CORES, "renounce", "release"),
    (CORES, "vitals", "PeerState"),
    (CORES, "Moment", "CoarseInstant"),
    (CORES, "Entering", "Joiner"),
    (CORES, "stands_at", "my_sides_at"),
    (CORES, "sides_of", "sides_for"),
    (CORES, "outlook", "RouteCost"),
    (OVERLAY, "Crowd", "InDegree"),
    (CORES, "be_young", "restart_search"),
    (CORES, "send_off", "originate"),
    (CORES, "pass_on", "forward"),
    (CORES, "go_on", "resume"),
    (CORES, "take_over", "accept_hop"),
    (CORES, "hand_over", "send_via, or relocation in a tree"),
    (CORES, "give_up", "cede_range"),
    (OVERLAY, "spoke", "heard_itself"),
    (CORES, "estate", "Handoff"),
    (CORES, "inheritance", "ReceivedHandoff"),
    (CORES, "bequeath", "hand_off_unused"),
    (CORES, "abdicate", "step_down"),
    (CORES, "Opening", "Recovering"),
    (CORES, "forsake", "replace_log"),
    (CORES, "say_attached", "send_attached"),
    (CORES, "Upward", "ParentLink"),
    (CORES, "deny", "send_leave"),
    (CORES, "errand", "pending_commands"),
    (CORES, "Keeper", "Supervisor"),
    (CORES, "Seat", "SubscriptionGuard"),
    (CORES, "turmoil", "SwarmRun"),
    (CORES, "ordeal", "FaultRun"),
    (CORES, "his", "its: a node is a thing"),
    (CORES, "him", "it: a node is a thing"),
    (CORES, "he", "it: a node is a thing"),
    (CORES, "she", "it: a node is a thing"),
    (CORES, "Letter", "Direct"),
    (CORES, "Relayed", "RelayedDirect"),
    (CORES, "LeaseWords", "LeasePiggyback"),
    (CORES, "Admit", "JoinRequest"),
    (CORES, "Commit", "JoinCommit"),
    (CORES, "Withdraw", "JoinAbort"),
    (CORES, "Standing", "NodeState"),
    (CORES, "rumour", "failure gossip, or a hint"),
    (SCRIBE, "wish", "resume_point"),
];

/// Types of one name in one crate that are one thing: here, one for each kind of system.
const SHARED: &[(&str, &str)] = &[("apps", "Signals")];

/// `on_FirstWord` → on, First, Word.
fn parts(identifier: &str) -> impl Iterator<Item = &str> {
    let begins = |(at, pair): (usize, &[u8])| {
        (pair[0].is_ascii_lowercase() && pair[1].is_ascii_uppercase()).then_some(at + 1)
    };
    identifier.split('_').flat_map(move |part| {
        let starts = [0].into_iter().chain(part.as_bytes().windows(2).enumerate().filter_map(begins));
        let mut starts = starts.peekable();
        std::iter::from_fn(move || Some(&part[starts.next()?..starts.peek().copied().unwrap_or(part.len())]))
    })
}

fn is_banned(identifier: &str, word: &str) -> bool {
    if word.contains(|c: char| c.is_ascii_uppercase() || c == '_') {
        return identifier == word;
    }
    let is_word = |part: &str| part.eq_ignore_ascii_case(word);
    parts(identifier).any(|part| is_word(part) || part.strip_suffix('s').is_some_and(is_word))
}

/// Whether a row holds for this file.
fn is_about((parts, ..): &Row, file: &str) -> bool {
    parts.iter().any(|part| file.starts_with(part))
}

/// Each place at which a row's word stands, by row.
fn places(rows: &'static [Row]) -> BTreeMap<&'static str, Vec<String>> {
    let mut found: BTreeMap<&str, Vec<String>> =
        rows.iter().map(|(_, word, _)| (*word, Vec::new())).collect();
    for part in CORES {
        for file in sources(&top().join(part)) {
            let (name, text) = (shown(&file), read(&file));
            let rows: Vec<&Row> = rows.iter().filter(|row| is_about(row, &name)).collect();
            for (line, identifier) in identifiers(&text) {
                for (_, word, instead) in rows.iter().filter(|(_, word, _)| is_banned(identifier, word)) {
                    let place = format!("{name}:{line}: `{identifier}`, instead of `{word}`: {instead}");
                    found.entry(word).or_default().push(place);
                }
            }
        }
    }
    found
}

#[test]
fn old_words_do_not_come_back() {
    let found: Vec<String> = places(BANNED).into_values().flatten().collect();
    assert!(found.is_empty(), "docs/glossary.md has the words of this project: {found:#?}");
}

#[test]
fn the_ban_sees_words_in_identifiers() {
    assert!(is_banned("on_verdicts", "verdict") && is_banned("VerdictBy", "verdict"));
    assert!(is_banned("Part", "Part") && !is_banned("Parted", "Part") && !is_banned("part", "Part"));
    assert!(!is_banned("the", "he") && is_banned("go_on", "go_on") && !is_banned("go_once", "go_on"));
}

/// The types that a text declares at its top level.
fn declared(text: &str) -> impl Iterator<Item = &str> {
    let kinds = ["struct ", "enum ", "trait ", "type ", "union "];
    text.lines().filter_map(move |line| {
        let line = match line.strip_prefix("pub") {
            Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
            Some(rest) => rest.trim_start(),
            None => line,
        };
        let name = kinds.into_iter().find_map(|kind| line.strip_prefix(kind))?;
        // An alias of a type by its own name is the same thing.
        let name_end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        let alias = line.strip_prefix("type ").and_then(|rest| rest.split_once(" = "));
        let is_same = alias.is_some_and(|(_, of)| {
            of.split(['<', ';'])
                .next()
                .is_some_and(|path| path.rsplit("::").next() == Some(&name[..name_end]))
        });
        (!is_same).then(|| &name[..name_end])
    })
}

#[test]
fn no_type_name_is_used_twice_in_one_crate() {
    let mut twice = Vec::new();
    for part in ["overlay", "scribe", "apps", "integration"] {
        let src = top().join(part).join("src");
        let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for file in sources(&src).into_iter().filter(|file| !is_test(file)) {
            for name in declared(&code(&read(&file))) {
                homes.entry(name.to_string()).or_default().push(shown(&file));
            }
        }
        homes.retain(|name, homes| homes.len() > 1 && !SHARED.contains(&(part, name.as_str())));
        twice.extend(homes.into_iter().map(|(name, homes)| format!("{name}: {homes:?}")));
    }
    assert!(twice.is_empty(), "a reader cannot tell them apart: {twice:#?}");
}

#[test]
fn the_check_sees_a_declaration() {
    let text = "pub(crate) struct A<T>(T);\nenum B {\npub type Node = ring::Node<C>;\n    struct D;\ntype E = F;\nstruct G;";
    assert_eq!(declared(text).collect::<Vec<&str>>(), ["A", "B", "E", "G"]);
}

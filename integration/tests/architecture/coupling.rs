use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::{is_test, read, shown, sources, top};

/// What one type's `impl` blocks in several files have to do with each other. An `impl` needs no import, so the import table
/// cannot see this.
#[derive(Debug, PartialEq, Eq)]
struct Coupling {
    fields: usize,
    methods: usize,
    /// The largest set of files each of which calls, in the end, each other one.
    circle: Vec<String>,
}

/// Limits: fields of the type, its methods, files of its largest circle. They only ever go down. (They went up once: a root
/// and its members decide together what a log is, and `Tree` has the root's state, the log, and the way up.)
struct Ratchet {
    folder: &'static str,
    name: &'static str,
    fields: usize,
    methods: usize,
    circle: usize,
}

const RATCHETS: [Ratchet; 3] = [
    Ratchet { folder: "overlay/src/ring", name: "Node", fields: 14, methods: 150, circle: 3 },
    Ratchet { folder: "scribe/src/forest", name: "Forest", fields: 15, methods: 68, circle: 1 },
    Ratchet { folder: "scribe/src/forest", name: "Tree", fields: 8, methods: 151, circle: 8 },
];

/// The name of the type that an `impl` block is about, if this line begins one.
fn impl_of(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("impl")?.strip_suffix('{')?;
    let rest = match rest.strip_prefix('<') {
        Some(generics) => generics.split_once("> ")?.1,
        None => rest,
    };
    let subject = rest.rsplit_once(" for ").map_or(rest, |(_, subject)| subject).trim();
    subject.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next()
}

/// The name of the method that this line of an `impl` block declares.
fn method(line: &str) -> Option<&str> {
    let declared = line.strip_prefix("    ").filter(|rest| !rest.starts_with(' '))?;
    let (before, after) = declared.split_once("fn ")?;
    let is_plain =
        before.split_whitespace().all(|word| word.starts_with("pub") || ["const", "async"].contains(&word));
    is_plain.then(|| after.split(['(', '<']).next().unwrap_or_default())
}

/// Methods that this line calls on `self`.
fn calls(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("self.").filter_map(|(at, found)| {
        let rest = &line[at + found.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        rest[end..].starts_with('(').then(|| &rest[..end])
    })
}

/// Whether this line begins the struct of this name.
fn declares(line: &str, name: &str) -> bool {
    let rest = line.split_once("struct ").and_then(|(_, rest)| rest.strip_prefix(name));
    rest.is_some_and(|rest| rest.starts_with([' ', '<']))
}

fn coupling(files: &[(String, String)], name: &str) -> Coupling {
    let mut homes: BTreeMap<&str, &str> = BTreeMap::new();
    let mut bodies: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut fields = 0;
    for (file, text) in files {
        let (mut subject, mut in_struct) = (None, false);
        for line in text.lines() {
            if line.starts_with('}') {
                (subject, in_struct) = (None, false);
            }
            subject = impl_of(line).or(subject);
            in_struct |= line.ends_with('{') && declares(line, name);
            let is_field = line.starts_with("    ")
                && !line.starts_with("     ")
                && !line.trim().starts_with(['/', '#']);
            fields += usize::from(in_struct && is_field && line.contains(':'));
            if subject == Some(name) {
                homes.extend(method(line).map(|method| (method, file.as_str())));
                bodies.entry(file).or_default().push(line);
            }
        }
    }
    let mut reached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (&file, body) in &bodies {
        let called = body.iter().flat_map(|line| calls(line)).filter_map(|called| homes.get(called).copied());
        reached.insert(file, called.filter(|&other| other != file).collect());
    }
    // (As many rounds as files: paths are no longer.)
    for _ in 0..bodies.len() {
        let before = reached.clone();
        for others in reached.values_mut() {
            let further = others.iter().flat_map(|other| before.get(other).into_iter().flatten());
            let further: Vec<&str> = further.copied().collect();
            others.extend(further);
        }
    }
    let circle_of = |&file: &&str| -> Vec<String> {
        let others = reached[file].iter().filter(|&&other| other != file && reached[other].contains(file));
        others.chain([&file]).map(|&file| file.to_string()).collect()
    };
    let circle = bodies.keys().map(circle_of).max_by_key(Vec::len).unwrap_or_default();
    Coupling { fields, methods: homes.len(), circle }
}

fn read_all(folder: &Path) -> Vec<(String, String)> {
    let code = sources(folder).into_iter().filter(|file| !is_test(file) && !file.ends_with("testing.rs"));
    let without_tests =
        |text: String| text.split("#[cfg(test)]\nmod ").next().unwrap_or_default().to_string();
    code.map(|file| (shown(&file), read(&file)))
        .map(|(name, text)| {
            let has_block = text.contains("#[cfg(test)]\nmod tests {");
            (name, if has_block { without_tests(text) } else { text })
        })
        .collect()
}

#[test]
fn the_cores_are_components_and_not_one_class_in_many_files() {
    let mut wrong = Vec::new();
    for Ratchet { folder, name, fields, methods, circle } in RATCHETS {
        let found = coupling(&read_all(&top().join(folder)), name);
        println!(
            "{name}: {} fields, {} methods, largest circle {:?}",
            found.fields, found.methods, found.circle
        );
        assert!(found.methods > 10, "{name} is not in {folder}: the ratchet looks at nothing");
        if found.fields > fields || found.methods > methods || found.circle.len() > circle {
            wrong.push(format!(
                "{name} (at most {fields} fields, {methods} methods, {circle} files in a circle): {found:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "state and decisions belong into a component: {wrong:#?}");
}

#[test]
fn the_ratchet_sees_a_circle() {
    let file = |name: &str, text: &str| (name.to_string(), text.to_string());
    let mut files = vec![
        file(
            "a",
            "pub struct Node<G> {\n    /// A: field.\n    pub a: u8,\n    b: u8,\n}\nimpl<G: Geometry> Node<G> {\n    pub(super) fn one(&self) {\n        self.two();\n    }\n}",
        ),
        file(
            "b",
            "impl<G> Clone for Node<G> {\n    fn two(&self) {\n        self.field.one(self.three());\n    }\n}",
        ),
        file(
            "c",
            "impl Node<Pastry> {\n    fn three(&self) {}\n}\nimpl Other {\n    fn one(&self) {\n        self.two();\n    }\n}",
        ),
    ];
    let found = coupling(&files, "Node");
    assert_eq!((found.fields, found.methods, found.circle.len()), (2, 3, 1), "{found:?}");
    files[2] = file("c", "impl Node<Pastry> {\n    fn three(&self) {\n        self.one();\n    }\n}");
    assert_eq!(coupling(&files, "Node").circle.len(), 3);
}

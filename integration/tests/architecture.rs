//! The structure of the code, held by tests: imports, coupling, names, comments, documents.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// Reads the sources.
#[path = "architecture/source.rs"]
mod source;
/// The import table of `docs/architecture.md`, held against the sources.
#[path = "architecture/imports.rs"]
mod imports;
/// A class that was cut into files is still one class: how its files call each other.
#[path = "architecture/coupling.rs"]
mod coupling;
/// Words and names: no type name twice, no word that this project has given up.
#[path = "architecture/words.rs"]
mod words;
/// Comments: the subject of a sentence is the code.
#[path = "architecture/comments.rs"]
mod comments;
/// Documents: links, functions and sections that they name exist; nothing outside the repository is named.
#[path = "architecture/documents.rs"]
mod documents;

use std::fs;
use std::path::{Path, PathBuf};

/// The top of the repository.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A path as it is printed: from the top of the repository.
pub(crate) fn shown(file: &Path) -> String {
    file.strip_prefix(top()).unwrap_or(file).display().to_string()
}

/// All files below a folder whose name ends so, sorted; build output is left out.
pub(crate) fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let is_output = name.starts_with("target") || name.starts_with('.');
            found.extend(if is_output { Vec::new() } else { files(&path, extension) });
        } else if path.extension().is_some_and(|other| other == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// All Rust files below a folder.
pub(crate) fn sources(dir: &Path) -> Vec<PathBuf> {
    files(dir, "rs")
}

pub(crate) fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap()
}

/// Whether a file holds tests only, by its place below the top of the repository.
pub(crate) fn is_test(file: &Path) -> bool {
    let below = file.strip_prefix(top()).unwrap_or(file);
    below.components().any(|part| part.as_os_str().to_string_lossy().contains("test"))
}

/// The code of a file: without comments, and without its unit tests at the end.
pub(crate) fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The identifiers and words of a text, with the number of their line.
pub(crate) fn identifiers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let of_line = move |(number, line)| {
        let names = str::split(line, move |c: char| !is_part(c)).filter(|name| !name.is_empty());
        names.map(move |name| (number + 1, name))
    };
    text.lines().enumerate().flat_map(of_line)
}

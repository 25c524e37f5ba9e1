//! Carries out [`Store`]: one record, one file, replaced as a whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tokio::sync::mpsc;

use crate::machine::{Store, StoreToken};

/// Records that may wait to be written; the next one is not written, and never acknowledged.
const MAX_WAITING: usize = 1024;

/// Writes records one after the other, in the order given, so that of two with one name the later one stays.
pub(super) struct Writer {
    records: Option<mpsc::Sender<Store>>,
    written: mpsc::Receiver<StoreToken>,
}

impl Writer {
    /// A writer into `directory`; without one, nothing is stored, and said so.
    pub(super) fn start(directory: Option<PathBuf>) -> Writer {
        let (acknowledge, written) = mpsc::channel(MAX_WAITING);
        let records = directory.map(|directory| {
            let (records, queue) = mpsc::channel(MAX_WAITING);
            tokio::spawn(write_all(directory, queue, acknowledge));
            records
        });
        Writer { records, written }
    }

    pub(super) fn write(&mut self, store: Store) {
        let Some(records) = &self.records else {
            tracing::error!(name = store.name, "a record was not stored: this node has no data directory");
            return;
        };
        if let Err(error) = records.try_send(store) {
            let name = error.into_inner().name;
            tracing::error!(name, "a record was not stored: {MAX_WAITING} others still wait for the disk");
        }
    }

    /// The next record that is on disk. Cancel-safe. Never returns if nothing will ever be stored.
    pub(super) async fn written(&mut self) -> StoreToken {
        match self.written.recv().await {
            Some(token) => token,
            None => std::future::pending().await,
        }
    }
}

async fn write_all(
    directory: PathBuf,
    mut queue: mpsc::Receiver<Store>,
    acknowledge: mpsc::Sender<StoreToken>,
) {
    while let Some(store) = queue.recv().await {
        let path = directory.join(file_name(&store.name));
        let shown = path.display().to_string();
        let write = tokio::task::spawn_blocking(move || replace(&path, &store.bytes));
        match write.await {
            Ok(Ok(())) if acknowledge.send(store.token).await.is_err() => return,
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(path = shown, %error, "a record was not stored"),
            Err(error) => tracing::error!(path = shown, %error, "a record was not stored"),
        }
    }
}

/// Replaces a file as a whole: a reader finds the old bytes or the new ones, also after a power failure.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()
}

/// A record's name as a file name: what is not a direct, digit, `-` or `_` is escaped by its hexadecimal value, so
/// no name leaves the directory or collides with another or with a temporary file.
fn file_name(name: &str) -> String {
    let mut file = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => file.push(char::from(byte)),
            other => file.push_str(&format!("%{other:02x}")),
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        assert_eq!(file_name("topic-1_a"), "topic-1_a");
        assert_eq!(file_name("../a b.new"), "%2e%2e%2fa%20b%2enew");
    }
}
